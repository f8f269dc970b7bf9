//! H: purging and protection.

use std::time::Duration;

use sds_engine::{Change, Life, Op, Patch};
use sds_store::{DataStore, EntryId, Version};

use crate::stores::*;

#[test]
fn h73_only_what_is_directly_in_trash_is_purged() {
    let mut store = store(1);
    let folder = item(&mut store, ROOT);
    let child = item(&mut store, folder);
    assert_eq!(code(store.purge_entry(folder)), "purge-not-in-trash");
    store.delete_entry(folder, NOW).unwrap();
    let version = store.version().clone();
    assert_eq!(code(store.purge_entry(child)), "purge-not-in-trash");
    assert_eq!(code(store.purge_entry(unknown())), "not-found");
    assert!(!store.entry(child).unwrap().may_be_purged());
    assert_eq!(*store.version(), version);
    assert_eq!(inner(&store, folder), [child]);
}

#[test]
fn h74_a_purge_takes_everything_inside() {
    let mut store = store(1);
    let folder = item(&mut store, ROOT);
    let child = item(&mut store, folder);
    let deep = item(&mut store, child);
    let link = store.new_link_at(deep, child, None).unwrap();
    store.delete_entry(folder, NOW).unwrap();
    assert!(store.entry(folder).unwrap().may_be_purged());
    store.purge_entry(folder).unwrap();
    for gone in [folder, child, deep, link] {
        assert!(store.entry_with_id(gone).is_none());
        assert_eq!(code(store.set_label(gone, "x")), "not-found");
        assert_eq!(code(store.write_value(gone, "x")), "not-found");
        assert_eq!(code(store.set_info(gone, "k", &1)), "not-found");
        assert_eq!(code(store.move_entry_to(gone, ROOT, None)), "not-found");
        assert_eq!(code(store.delete_entry(gone, NOW)), "not-found");
        assert_eq!(code(store.purge_entry(gone)), "not-found");
    }
    assert_eq!(store.entry_count(), 3);
}

#[test]
fn h76_a_link_in_sight_protects() {
    let mut store = store(1);
    let folder = item(&mut store, ROOT);
    let target = item(&mut store, folder);
    let link = store.new_link_at(target, ROOT, None).unwrap();
    store.delete_entry(folder, NOW).unwrap();
    let json = store.as_json();
    assert_eq!(code(store.purge_entry(folder)), "purge-protected");
    assert!(!store.entry(folder).unwrap().may_be_purged());
    assert_eq!(store.as_json(), json);
    store.delete_entry(link, NOW).unwrap();
    store.purge_entry(folder).unwrap();
}

#[test]
fn h76_protection_goes_from_entry_to_entry_in_trash() {
    let mut store = store(1);
    let [a, b, c] = [0; 3].map(|_| item(&mut store, ROOT));
    let inside_a = item(&mut store, a);
    // From outside to a, from inside a to b, from inside b to c; and from c back to a.
    let live = store.new_link_at(inside_a, LOST_AND_FOUND, None).unwrap();
    store.new_link_at(b, inside_a, None).unwrap();
    store.new_link_at(c, b, None).unwrap();
    store.new_link_at(a, c, None).unwrap();
    // A link to itself protects nobody, nor does a link that is itself all there is in Trash.
    let lone = item(&mut store, ROOT);
    store.new_link_at(lone, lone, None).unwrap();
    let link_to_lone = store.new_link_at(lone, ROOT, None).unwrap();
    for entry in [a, b, c, lone, link_to_lone] {
        store.delete_entry(entry, NOW).unwrap();
    }
    let all = store.protected_trash_entries();
    assert_eq!(all, [a, b, c].into_iter().collect());
    for entry in [a, b, c] {
        assert_eq!(code(store.purge_entry(entry)), "purge-protected");
    }
    assert!(store.entry(lone).unwrap().may_be_purged());
    // Without the link from outside they only link to each other.
    store.delete_entry(live, NOW).unwrap();
    assert!(store.protected_trash_entries().is_empty());
    assert_eq!(store.purge_all_trash_entries().unwrap(), 6);
    assert_eq!(store.entry_count(), 3);
}

#[test]
fn h81_what_was_purged_stays_gone_whatever_is_replayed() {
    let (mut a, mut b) = (store(1), store(2));
    let mut patches = Vec::new();
    let mut seen = Version::new();
    let mut note = |store: &DataStore| {
        patches.push(store.export_patch(&seen));
        seen = store.version().clone();
    };
    let entry = item(&mut a, ROOT);
    note(&a);
    a.write_value(entry, "text").unwrap();
    note(&a);
    a.delete_entry(entry, NOW).unwrap();
    note(&a);
    let before_purge = a.as_binary();
    a.purge_entry(entry).unwrap();
    note(&a);
    let after_purge = a.as_binary();
    let all = [&patches[..], &[a.export_patch(&Version::new())]].concat();
    let stages = [
        (&before_purge, &all[..]),
        (&before_purge, &all[3..4]),
        (&after_purge, &all[..]),
        (&after_purge, &all[..3]),
    ];
    for (snapshot, replayed) in stages {
        for order in [false, true] {
            let mut store = DataStore::from_binary(id(3), snapshot).unwrap();
            let mut patches: Vec<_> = replayed.iter().collect();
            if order {
                patches.reverse();
            }
            for patch in patches {
                store.apply_remote_patch(patch).unwrap();
            }
            assert!(store.entry_with_id(entry).is_none());
            assert_eq!((inner(&store, TRASH), inner(&store, LOST_AND_FOUND)), (vec![], vec![]));
        }
    }
    for patch in all.iter().rev() {
        b.apply_remote_patch(patch).unwrap();
    }
    assert_eq!(b.as_json(), a.as_json());
}

#[test]
fn h84_a_purge_beats_a_concurrent_edit_and_a_concurrent_restore() {
    let edits: [fn(&mut DataStore, EntryId); 3] = [
        |store, entry| store.set_label(entry, "edited").unwrap(),
        |store, entry| store.move_entry_to(entry, ROOT, None).unwrap(),
        |store, entry| store.write_value(entry, "edited").unwrap(),
    ];
    for edit in edits {
        for purger_first in [false, true] {
            let (mut a, mut b) = twins(|store| {
                let entry = item(store, ROOT);
                store.delete_entry(entry, NOW).unwrap();
            });
            let entry = inner(&a, TRASH)[0];
            a.purge_entry(entry).unwrap();
            edit(&mut b, entry);
            if purger_first {
                exchange(&mut a, &mut b);
            } else {
                exchange(&mut b, &mut a);
            }
            assert!(a.entry_with_id(entry).is_none() && b.entry_with_id(entry).is_none());
        }
    }
}

/// Somebody ends the last but one life of an entry and deletes it in its last, in which nothing can be
/// purged.
#[test]
fn h_what_cannot_be_purged_keeps_nothing_else_in_trash() {
    let mut store = store(1);
    let eternal = item(&mut store, ROOT);
    let all: Vec<EntryId> = (0..10).map(|_| item(&mut store, ROOT)).collect();
    let folder = all[0];
    let lasting = item(&mut store, folder);
    let entries = [eternal, lasting].map(|entry| (entry, Life::new((1 << 30) - 1).unwrap()));
    let revive = |entry| Op::Revive { entry, life: Life::LAST };
    let ops = [Op::Purge { entries: entries.to_vec() }, revive(eternal), revive(lasting)];
    let change = Change::new(id(2), 0, vec![], &ops).unwrap();
    store.apply_remote_patch(&Patch::pack([&**change.bytes()])).unwrap();
    store.move_entry_to(lasting, folder, None).unwrap();
    store.delete_entry(eternal, NOW).unwrap();
    let delete = |store: &mut DataStore, some: &[EntryId]| {
        some.iter().for_each(|entry| store.delete_entry(*entry, NOW).unwrap());
    };
    delete(&mut store, &all[..5]);
    let purged = store.purge_expired_trash_entries(after(90_000), Some(Duration::from_secs(60)));
    assert_eq!(code(purged), "out-of-ids");
    assert_eq!(inner(&store, TRASH), [eternal]);
    assert_eq!(inner(&store, LOST_AND_FOUND), [lasting]);
    delete(&mut store, &all[5..]);
    assert_eq!(code(store.purge_all_trash_entries()), "out-of-ids");
    assert_eq!(inner(&store, TRASH), [eternal]);
    assert_eq!(code(store.purge_entry(eternal)), "out-of-ids");
    store.move_entry_to(eternal, ROOT, None).unwrap();
    assert_eq!(store.purge_all_trash_entries().unwrap(), 0);
    store.assert_invariants();
}
