//! K: patches and convergence.

use sds_store::{DataStore, EntryId, Version};

use crate::stores::*;

#[test]
fn k108_a_full_export_shows_everything_elsewhere() {
    let a = full();
    let mut b = store(2);
    b.apply_remote_patch(&a.export_patch(&Version::new())).unwrap();
    assert_eq!(b.as_json(), a.as_json());
}

#[test]
fn k109_both_edit_and_exchange() {
    let (mut a, mut b) = (store(1), store(2));
    let [of_a, of_b] = [item(&mut a, ROOT), item(&mut b, ROOT)];
    // By opaque cursors, as over a wire.
    let (cursor_a, cursor_b) = (a.current_cursor(), b.current_cursor());
    let for_b = a.export_patch_since(&cursor_b).unwrap();
    let for_a = b.export_patch_since(&cursor_a).unwrap();
    a.apply_remote_patch(&for_a).unwrap();
    b.apply_remote_patch(&for_b).unwrap();
    assert_eq!(a.as_json(), b.as_json());
    assert!([of_a, of_b].iter().all(|entry| a.entry_with_id(*entry).is_some()));
    assert_eq!(a.export_patch_since(&[]).unwrap(), a.export_patch(&Version::new()));
    assert_eq!(code(a.export_patch_since(b"junk")), "malformed-patch");
}

#[test]
fn k110_an_empty_patch_is_nothing() {
    let mut store = full();
    let (version, json) = (store.version().clone(), store.as_json());
    assert_eq!(store.apply_remote_patch(&[]).unwrap().applied, 0);
    let nothing_new = store.export_patch(&version);
    assert_eq!(store.apply_remote_patch(&nothing_new).unwrap().applied, 0);
    assert_eq!((store.version(), store.as_json()), (&version, json));
}

#[test]
fn k113_a_restored_store_hands_on_everything() {
    let mut a = full();
    let b = DataStore::from_binary(id(2), &a.as_binary()).unwrap();
    let mut c = store(3);
    c.apply_remote_patch(&b.export_patch(&Version::new())).unwrap();
    assert_eq!(c.as_json(), a.as_json());
    assert_eq!(c.digest(), a.digest());
}

#[test]
fn k113_a_snapshot_of_the_same_store_merges() {
    let (mut a, mut b) = twins(|store| {
        item(store, ROOT);
    });
    let entry = inner(&a, ROOT)[2];
    a.set_label(entry, "label").unwrap();
    b.write_value(entry, "value").unwrap();
    let done = b.merge_binary(&a.as_binary()).unwrap();
    assert_eq!(done.applied, 1);
    assert_eq!(b.entry(entry).unwrap().label(), "label");
    assert_eq!(text(&b, entry), "value");
    assert_eq!(b.merge_binary(&a.as_binary()).unwrap().applied, 0, "twice is once");
    exchange(&mut a, &mut b);
    let json = b.as_json();
    for bad in [&b"junk"[..], &a.as_binary()[..30], b""] {
        assert_eq!(code(b.merge_binary(bad)), "malformed-patch");
    }
    assert_eq!(b.as_json(), json);
}

#[test]
fn k114_patches_twice_or_backwards_give_the_same() {
    let mut a = store(1);
    let mut patches = Vec::new();
    let mut seen = Version::new();
    for round in 0..6 {
        let entry = item(&mut a, ROOT);
        a.write_value(entry, format!("text {round}")).unwrap();
        a.move_entry_to(entry, ROOT, Some(round % 3)).unwrap();
        if round == 4 {
            a.delete_entry(entry, NOW).unwrap();
            a.purge_entry(entry).unwrap();
        }
        patches.push(a.export_patch(&seen));
        seen = a.version().clone();
    }
    let backwards: Vec<_> = patches.iter().rev().cloned().collect();
    let twice: Vec<_> = patches.iter().flat_map(|patch| [patch.clone(), patch.clone()]).collect();
    for order in [patches, backwards, twice] {
        let mut b = store(2);
        for patch in order {
            b.apply_remote_patch(&patch).unwrap();
        }
        assert_eq!(b.as_json(), a.as_json());
        assert_eq!(b.digest(), a.digest());
    }
}

/// Numbers that look random and follow from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % (sides as u64)).unwrap()
    }

    fn entry(&mut self, store: &DataStore) -> EntryId {
        let mut all = vec![store.root_item()];
        let mut at = 0;
        while at < all.len() {
            all.extend(all[at].inner_entries());
            at += 1;
        }
        all[self.roll(all.len())].id()
    }
}

/// What is refused is refused; what is not must come out the same everywhere.
fn edit_at_random(store: &mut DataStore, dice: &mut Dice) {
    let [one, two] = [dice.entry(store), dice.entry(store)];
    let index = Some(dice.roll(4));
    let len = store.entry(one).unwrap().text().map_or(0, |text| text.len());
    let done = match dice.roll(12) {
        0 | 1 => store.new_item_at(None, one, index).map(drop),
        2 => store.new_link_at(two, one, index).map(drop),
        3 => store.set_label(one, ["a", "b", "label"][dice.roll(3)]),
        4 => store.write_value(one, ["", "text", "more text"][dice.roll(3)]),
        5 => store.change_value(one, 0..dice.roll(len + 1), "x"),
        6 => store.move_entry_to(one, two, index),
        7 => store.delete_entry(one, after(7)),
        8 => store.purge_entry(one),
        9 => store.purge_all_trash_entries().map(drop),
        10 => store.set_info(one, "k", &dice.roll(3)),
        _ => store.delete_info(one, "k"),
    };
    drop(done);
}

#[test]
fn k115_many_peers_end_up_the_same_in_any_order_of_delivery() {
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let mut peers: Vec<DataStore> = (1..=4).map(store).collect();
        let mut sent: Vec<Vec<u8>> = Vec::new();
        for _ in 0..150 {
            let at = dice.roll(peers.len());
            let seen = peers[at].version().clone();
            edit_at_random(&mut peers[at], &mut dice);
            sent.push(peers[at].export_patch(&seen));
            // Somebody gets any patch, maybe an old one, maybe again.
            let (to, which) = (dice.roll(peers.len()), dice.roll(sent.len()));
            peers[to].apply_remote_patch(&sent[which]).unwrap();
        }
        for peer in &mut peers {
            let mut rest: Vec<&Vec<u8>> = sent.iter().collect();
            while !rest.is_empty() {
                let next = rest.swap_remove(dice.roll(rest.len()));
                peer.apply_remote_patch(next).unwrap();
            }
            peer.assert_invariants();
        }
        let json = peers[0].as_json();
        assert!(peers.iter().all(|peer| peer.as_json() == json), "seed {seed}");
    }
}

#[test]
fn k116_edits_at_both_ends_of_a_text_survive() {
    let (mut a, mut b) = twins(|store| store.write_value(ROOT, "hello world").unwrap());
    a.change_value(ROOT, 0..0, "A").unwrap();
    b.change_value(ROOT, 11..11, "B").unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(text(&a, ROOT), "Ahello worldB");
    a.update_value(ROOT, "Ahello, worldB").unwrap();
    b.update_value(ROOT, "Ahello worldBC").unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(text(&a, ROOT), "Ahello, worldBC");
}

#[test]
fn k120_what_is_no_patch_of_this_format_is_refused() {
    let (mut a, mut b) = (store(1), store(2));
    item(&mut a, ROOT);
    let patch = a.export_patch(&Version::new());
    for at in 0..patch.len() {
        let mut damaged = patch.clone();
        damaged[at] ^= 0x10;
        assert!(b.apply_remote_patch(&damaged).is_err(), "byte {at}");
        assert!(at == 0 || b.apply_remote_patch(&patch[..at]).is_err(), "cut at {at}");
    }
    let mut newer = patch.clone();
    newer[1] = 2;
    assert_eq!(code(b.apply_remote_patch(&newer)), "format-too-new");
    let json = a.as_json();
    for other in [&a.as_binary()[..], json.as_bytes(), b"\0\0\0\x01\0\0\0\x04abcd"] {
        assert_eq!(code(b.apply_remote_patch(other)), "malformed-patch");
    }
    assert!(b.version().is_empty());
    b.apply_remote_patch(&patch).unwrap();
    assert_eq!(b.as_json(), json);
}

/// One replica id is used by two copies: whoever hears of both refuses the second.
#[test]
fn k_two_copies_under_one_id_are_told_apart() {
    let (mut a, mut copy, mut b) = (store(1), store(1), store(2));
    a.set_label(ROOT, "one").unwrap();
    copy.set_label(ROOT, "other").unwrap();
    send(&a, &mut b);
    let json = b.as_json();
    let refused = b.apply_remote_patch(&copy.export_patch(&Version::new()));
    assert_eq!(code(refused), "forked");
    assert_eq!(b.as_json(), json);
}

/// What builds on something that is missing waits, but not without bound.
#[test]
fn k_more_than_may_wait_is_refused() {
    let (mut a, mut b) = (store(1), store(2));
    let mut edits = || {
        let before = a.version().clone();
        a.transact(|store| {
            // Several fields, so that each change is large and each value within its limit.
            (0..60)
                .try_for_each(|key| store.set_info(ROOT, &format!("{key}"), &"x".repeat(262_000)))
        })
        .unwrap();
        a.export_patch(&before)
    };
    let first = edits();
    let waiting: Vec<_> = (0..4).map(|_| edits()).collect();
    for patch in &waiting {
        assert_eq!(b.apply_remote_patch(patch).unwrap().applied, 0);
    }
    let (last, json) = (edits(), b.as_json());
    assert_eq!(code(b.apply_remote_patch(&last)), "backlog-full");
    assert_eq!(b.as_json(), json);
    b.apply_remote_patch(&first).unwrap();
    b.apply_remote_patch(&last).unwrap();
    assert_eq!(b.version(), a.version());
}
