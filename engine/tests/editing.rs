//! Stories of replicas that edit and meet, through the public API alone.

use proptest::prelude::*;
use sds_engine::limits::{CHANGE_BYTES_MAX, ORDER_KEY_BYTES_GOAL};
use sds_engine::{
    Change, EditError, EntryId, Field, Life, NewEntry, Op, OpId, Patch, Replica, ReplicaId,
    Timestamp, Value,
};

const END: usize = usize::MAX;

fn replica(number: u64) -> Replica {
    Replica::new(ReplicaId::new(number).unwrap())
}

fn send(from: &Replica, to: &mut Replica) {
    to.integrate(Patch::decode(&from.export(to.version())).unwrap()).unwrap();
    to.assert_invariants();
}

fn meet(a: &mut Replica, b: &mut Replica) {
    send(a, b);
    send(b, a);
    assert_eq!(a.version(), b.version());
    assert_eq!(a.digest(), b.digest());
}

fn children(replica: &Replica, parent: EntryId) -> Vec<EntryId> {
    replica.children(parent).collect()
}

fn text(replica: &Replica, entry: EntryId) -> String {
    match replica.value(entry, &Field::Value) {
        Value::Text(text) => text,
        other => format!("{other:?}"),
    }
}

#[test]
fn a_fresh_replica_has_the_three_system_items() {
    let replica = replica(1);
    assert_eq!(children(&replica, EntryId::ROOT), [EntryId::TRASH, EntryId::LOST_AND_FOUND]);
    assert_eq!(replica.parent(EntryId::ROOT), None);
    assert!(replica.is_alive(EntryId::ROOT) && replica.is_shown(EntryId::TRASH));
    replica.assert_invariants();
}

#[test]
fn entries_stand_where_they_were_put() {
    let mut a = replica(1);
    let root = EntryId::ROOT;
    let [x, y, z] = [END, END, END].map(|index| a.create_item(root, index).unwrap());
    let (trash, lost) = (EntryId::TRASH, EntryId::LOST_AND_FOUND);
    assert_eq!(children(&a, root), [trash, lost, x, y, z]);
    let first = a.create_item(root, 0).unwrap();
    assert_eq!(children(&a, root), [first, trash, lost, x, y, z]);
    a.move_to(first, root, 4).unwrap();
    assert_eq!(children(&a, root), [trash, lost, x, y, first, z], "the final index");
    a.move_to(trash, root, END).unwrap();
    let order = [lost, x, y, first, z, trash];
    assert_eq!(children(&a, root), order);
    for (index, entry) in order.into_iter().enumerate() {
        assert_eq!(a.child_at(root, index), Some(entry));
        assert_eq!(a.index_of(entry), Some(index));
    }
    assert_eq!((a.child_at(root, 6), a.index_of(root)), (None, None));
    a.move_to(z, x, 9).unwrap();
    assert_eq!(children(&a, x), [z]);
    a.assert_invariants();
    let mut b = replica(2);
    meet(&mut a, &mut b);
    assert_eq!(children(&b, root), children(&a, root));
}

#[test]
fn a_gap_takes_a_thousand_entries_with_short_keys() {
    let mut a = replica(1);
    let holder = a.create_item(EntryId::ROOT, END).unwrap();
    let mut expected = vec![a.create_item(holder, 0).unwrap(), a.create_item(holder, 1).unwrap()];
    let mut at = 1;
    for turn in 0..1_000 {
        expected.insert(at, a.create_item(holder, at).unwrap());
        at += turn % 2;
    }
    assert_eq!(children(&a, holder), expected);
    let mut b = replica(2);
    meet(&mut a, &mut b);
    let patch = Patch::decode(&a.export(&sds_engine::Version::new())).unwrap();
    let changes = patch.into_changes();
    let longest = changes.iter().flat_map(Change::ops).filter_map(|op| match op {
        Op::Create { key, .. } | Op::Reorder { key, .. } => Some(key.as_bytes().len()),
        _ => None,
    });
    assert!(longest.max().unwrap() <= 32);
}

#[test]
fn two_forward_runs_at_one_place_stay_apart() {
    // At the end of nothing, between two of one's own, behind one's own last.
    for (before, at) in [(0, 0), (2, 1), (3, 3), (3, 2)] {
        let (mut a, mut b) = (replica(1), replica(2));
        let holder = a.create_item(EntryId::ROOT, END).unwrap();
        for _ in 0..before {
            a.create_item(holder, END).unwrap();
        }
        meet(&mut a, &mut b);
        let run = |replica: &mut Replica| -> Vec<EntryId> {
            (0..40).map(|nth| replica.create_item(holder, at + nth).unwrap()).collect()
        };
        let (of_a, of_b) = (run(&mut a), run(&mut b));
        meet(&mut a, &mut b);
        let together: Vec<_> = children(&a, holder)[at..at + 80].to_vec();
        assert_eq!(children(&b, holder)[at..at + 80], together);
        let either =
            together == [of_a.clone(), of_b.clone()].concat() || together == [of_b, of_a].concat();
        assert!(either, "the runs interleave, of {before} at {at}");
    }
}

/// Where some of a row have gone, its author has free keys of that row.
#[test]
fn runs_of_two_replicas_stay_apart_where_others_have_gone() {
    check_hole(3, &[1], 1, 3);
    check_hole(10, &[1, 2, 3, 4, 5, 6, 7, 8], 1, 8);
    check_hole(4, &[0, 1], 0, 3);
    check_hole(4, &[2, 3], 2, 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn runs_stay_apart_in_whatever_holes(
        made in 2usize..12,
        gone in prop::collection::vec(0usize..12, 0..8),
        at in 0usize..12,
        inserted in 1usize..9,
    ) {
        check_hole(made, &gone, at, inserted);
    }
}

/// One makes a row, and some of it goes, here and there with something of another in its place; then three
/// insert a run each, forwards or backwards.
fn check_hole(made: usize, gone: &[usize], at: usize, inserted: usize) {
    for is_forwards in [true, false] {
        let mut all = [replica(7), replica(1), replica(9)];
        let holder = all[0].create_item(EntryId::ROOT, END).unwrap();
        let row: Vec<_> = (0..made).map(|_| all[0].create_item(holder, END).unwrap()).collect();
        meet_all(&mut all);
        for (nth, place) in gone.iter().enumerate() {
            let entry = row[place % made];
            let index = all[0].children(holder).position(|child| child == entry);
            if let Some(index) = index.filter(|_| nth % 3 == 2) {
                all[1].create_item(holder, index + 1).unwrap();
            }
            meet_all(&mut all);
            match nth % 2 {
                0 => all[0].trash(entry, Timestamp::from_millis(5)).unwrap(),
                _ => all[0].move_to(entry, EntryId::ROOT, END).unwrap(),
            }
            meet_all(&mut all);
        }
        let at = at % (children(&all[0], holder).len() + 1);
        let runs = all.each_mut().map(|replica| {
            let index = |nth: usize| if is_forwards { at + nth } else { at };
            let run = (0..inserted).map(|nth| replica.create_item(holder, index(nth)).unwrap());
            run.collect::<Vec<_>>()
        });
        meet_all(&mut all);
        let together = children(&all[0], holder)[at..at + 3 * inserted].to_vec();
        let owner = |entry: &EntryId| runs.iter().position(|run| run.contains(entry));
        let borders = together.windows(2).filter(|pair| owner(&pair[0]) != owner(&pair[1])).count();
        assert_eq!(borders, 2, "forwards: {is_forwards}, of {made} without {gone:?} at {at}");
    }
}

fn meet_all([a, b, c]: &mut [Replica; 3]) {
    for _ in 0..2 {
        meet(a, b);
        meet(b, c);
    }
    meet(a, b);
}

/// What only shows in Lost and Found is put there by nobody who needs room beside it.
#[test]
fn making_room_beside_what_was_rescued_leaves_it_where_it_is() {
    let (mut a, mut b) = (replica(1), replica(2));
    let list = a.create_item(EntryId::ROOT, END).unwrap();
    meet(&mut a, &mut b);
    a.purge(list).unwrap();
    let rescued = b.create_item(list, 0).unwrap();
    meet(&mut a, &mut b);
    assert_eq!(children(&a, EntryId::LOST_AND_FOUND), [rescued]);
    let key = a.order_key(rescued);
    for turn in 0..200 {
        for (here, there) in [(0, 1), (1, 0)] {
            let both = [&mut a, &mut b];
            let index = both[here].child_count(EntryId::LOST_AND_FOUND) - 1;
            both[here].create_item(EntryId::LOST_AND_FOUND, index).unwrap();
            let bytes = both[here].export(both[there].version());
            both[there].integrate(Patch::decode(&bytes).unwrap()).unwrap();
        }
        assert_eq!(children(&a, EntryId::LOST_AND_FOUND).last(), Some(&rescued), "turn {turn}");
        assert_eq!(a.order_key(rescued), key, "turn {turn}");
    }
    meet(&mut a, &mut b);
}

#[test]
fn folders_moved_into_each_other_stay_reachable() {
    let (mut a, mut b) = (replica(1), replica(2));
    let x = a.create_item(EntryId::ROOT, END).unwrap();
    let y = a.create_item(EntryId::ROOT, END).unwrap();
    meet(&mut a, &mut b);
    a.move_to(x, y, END).unwrap();
    b.move_to(y, x, END).unwrap();
    meet(&mut a, &mut b);
    let nested =
        |outer, inner| a.parent(outer) == Some(EntryId::ROOT) && a.parent(inner) == Some(outer);
    assert!(nested(x, y) || nested(y, x));
}

#[test]
fn impossible_edits_are_refused_and_change_nothing() {
    let mut a = replica(1);
    let x = a.create_item(EntryId::ROOT, END).unwrap();
    let y = a.create_item(x, END).unwrap();
    let link = a.create_link(x, EntryId::ROOT, END).unwrap();
    let unknown = EntryId::from_bytes([9; 16]);
    let (version, digest) = (a.version().clone(), a.digest());
    let cycle = |entry, target| Err(EditError::WouldCycle { entry, target });
    assert_eq!(a.move_to(x, y, 0), cycle(x, y));
    assert_eq!(a.move_to(x, x, 0), cycle(x, x));
    assert_eq!(a.move_to(EntryId::ROOT, x, 0), Err(EditError::WellKnown(EntryId::ROOT)));
    assert_eq!(a.move_to(EntryId::TRASH, x, 0), Err(EditError::WellKnown(EntryId::TRASH)));
    assert_eq!(a.move_to(y, link, 0), Err(EditError::NotAnItem(link)));
    assert_eq!(a.create_item(unknown, 0), Err(EditError::NotFound(unknown)));
    assert_eq!(a.create_link(link, x, 0), Err(EditError::NotAnItem(link)));
    assert_eq!(a.create_with_id(y, NewEntry::Item, x, 0), Err(EditError::AlreadyExists(y)));
    assert_eq!(a.splice(x, Field::Value, 0..0, "a"), Err(EditError::NotText(x)));
    assert_eq!(a.purge(EntryId::TRASH), Err(EditError::WellKnown(EntryId::TRASH)));
    assert_eq!(*a.version(), version);
    assert_eq!(a.digest(), digest);
    a.assert_invariants();
}

#[test]
fn splices_of_one_text_merge() {
    let (mut a, mut b) = (replica(1), replica(2));
    let note = a.create_item(EntryId::ROOT, END).unwrap();
    a.set(note, Field::Value, Value::Text("naïve 😀 text".into())).unwrap();
    meet(&mut a, &mut b);
    a.splice(note, Field::Value, 0..5, "Simple").unwrap();
    b.splice(note, Field::Value, 8..13, "!").unwrap();
    b.splice(note, Field::Value, 6..6, "<").unwrap();
    meet(&mut a, &mut b);
    assert_eq!(text(&a, note), "Simple <😀!");
    let range = Err(EditError::OutOfRange { from: 9, to: 9, len: 11 });
    assert_eq!(a.splice(note, Field::Value, 9..9, "x"), range, "inside a surrogate pair");
    assert!(a.splice(note, Field::Value, 0..12, "").is_err(), "past the end");
    #[expect(clippy::reversed_empty_ranges, reason = "a caller may pass one")]
    let reversed = 3..2;
    assert!(a.splice(note, Field::Value, reversed, "").is_err());
}

#[test]
fn a_whole_text_that_is_set_beats_splices_of_the_old_one() {
    let (mut a, mut b) = (replica(1), replica(2));
    let note = a.create_item(EntryId::ROOT, END).unwrap();
    a.set(note, Field::Value, Value::Text("old".into())).unwrap();
    meet(&mut a, &mut b);
    a.set(note, Field::Value, Value::Text("new".into())).unwrap();
    b.splice(note, Field::Value, 3..3, "er").unwrap();
    meet(&mut a, &mut b);
    assert_eq!(text(&b, note), "new");
}

#[test]
fn a_purge_beats_concurrent_edits_and_an_edit_made_knowingly_revives() {
    let (mut a, mut b) = (replica(1), replica(2));
    let folder = a.create_item(EntryId::ROOT, END).unwrap();
    a.set(folder, Field::Label, Value::Text("folder".into())).unwrap();
    meet(&mut a, &mut b);
    a.trash(folder, Timestamp::from_millis(5)).unwrap();
    assert_eq!(a.trashed_at(folder), Some(Timestamp::from_millis(5)));
    a.purge(folder).unwrap();
    b.set(folder, Field::Label, Value::Text("renamed".into())).unwrap();
    let child = b.create_item(folder, 0).unwrap();
    let link = b.create_link(folder, EntryId::ROOT, END).unwrap();
    meet(&mut a, &mut b);
    for side in [&a, &b] {
        assert!(!side.is_alive(folder), "purged for good");
        assert_eq!(side.parent(child), Some(EntryId::LOST_AND_FOUND), "rescued");
        assert_eq!(side.parent(folder), Some(EntryId::LOST_AND_FOUND), "a placeholder");
        assert_eq!(side.value(folder, &Field::Label), Value::None);
        assert_eq!(side.kind(link), Some(NewEntry::Link { target: folder }));
    }
    let revived = b.create_item(folder, 0).unwrap();
    meet(&mut a, &mut b);
    assert!(a.is_alive(folder));
    assert_eq!(a.parent(child), Some(folder), "back where it was put");
    a.move_to(child, folder, 0).unwrap();
    meet(&mut a, &mut b);
    assert_eq!(children(&b, folder), [child, revived]);
}

#[test]
fn a_move_that_only_the_hidden_tree_forbids_is_made_possible() {
    let (mut a, mut b) = (replica(1), replica(2));
    let top = a.create_item(EntryId::ROOT, END).unwrap();
    let middle = a.create_item(top, END).unwrap();
    let bottom = a.create_item(middle, END).unwrap();
    meet(&mut a, &mut b);
    // `middle` dies on one side while `bottom` is touched on the other, so it shows apart from `top`
    // and is still below it in the tree of moves.
    a.purge(middle).unwrap();
    b.set(bottom, Field::Label, Value::Text("kept".into())).unwrap();
    let inner = b.create_item(bottom, 0).unwrap();
    meet(&mut a, &mut b);
    assert!(!a.is_alive(bottom), "purged with what it was in");
    assert_eq!(a.parent(inner), Some(EntryId::LOST_AND_FOUND));
    a.move_to(top, inner, 0).unwrap();
    meet(&mut a, &mut b);
    assert_eq!(b.parent(top), Some(inner));
    assert_eq!(b.parent(inner), Some(EntryId::LOST_AND_FOUND));
}

#[test]
fn a_failed_transaction_leaves_no_trace_but_a_gap_in_the_ids() {
    let (mut a, mut b) = (replica(1), replica(2));
    let x = a.create_item(EntryId::ROOT, END).unwrap();
    a.set(x, Field::Value, Value::Text("text".into())).unwrap();
    let (version, digest) = (a.version().clone(), a.digest());
    let mut lost = None;
    let failed: Result<(), EditError> = a.transact(|a| {
        lost = Some(a.create_item(x, 0)?);
        a.splice(x, Field::Value, 0..4, "other")?;
        a.trash(x, Timestamp::from_millis(1))?;
        a.move_to(EntryId::ROOT, x, 0)
    });
    assert_eq!(failed, Err(EditError::WellKnown(EntryId::ROOT)));
    assert_eq!(*a.version(), version);
    assert_eq!(a.digest(), digest);
    assert_eq!(text(&a, x), "text");
    assert_eq!(children(&a, x), []);
    a.assert_invariants();
    let next = a.create_item(x, 0).unwrap();
    assert_ne!(Some(next), lost, "an id never means two things");
    meet(&mut a, &mut b);
    assert_eq!(children(&b, x), [next]);
}

#[test]
fn an_inner_transaction_can_fail_by_itself() {
    let mut a = replica(1);
    let x = a.create_item(EntryId::ROOT, END).unwrap();
    let done: Result<EntryId, EditError> = a.transact(|a| {
        let kept = a.create_item(x, 0)?;
        let inner: Result<(), EditError> = a.transact(|a| {
            a.set(kept, Field::Label, Value::Text("lost".into()))?;
            a.create_item(x, 0)?;
            Err(EditError::OutOfIds)
        });
        assert_eq!(inner, Err(EditError::OutOfIds));
        a.set(kept, Field::Type, Value::Text("kept".into()))?;
        Ok(kept)
    });
    let kept = done.unwrap();
    assert_eq!(children(&a, x), [kept]);
    assert_eq!(a.value(kept, &Field::Label), Value::None);
    assert_eq!(a.value(kept, &Field::Type), Value::Text("kept".into()));
    let mut b = replica(2);
    meet(&mut a, &mut b);
}

#[test]
fn a_transaction_past_the_size_of_a_change_fails_as_a_whole() {
    let mut a = replica(1);
    let x = a.create_item(EntryId::ROOT, END).unwrap();
    let max = CHANGE_BYTES_MAX;
    let fits = Value::Bytes(vec![7; max - 100]);
    a.set(x, Field::Value, fits.clone()).unwrap();
    let digest = a.digest();
    let failed = a.set(x, Field::Value, Value::Bytes(vec![8; max + 1]));
    assert!(matches!(failed, Err(EditError::ChangeTooLarge { .. })));
    assert_eq!(a.value(x, &Field::Value), fits);
    assert_eq!(a.digest(), digest);
    let mut b = replica(2);
    meet(&mut a, &mut b);
}

#[test]
fn a_snapshot_gives_the_same_replica() {
    let mut a = replica(1);
    let x = a.create_item(EntryId::ROOT, END).unwrap();
    a.set(x, Field::Value, Value::Text("text".into())).unwrap();
    a.splice(x, Field::Value, 4..4, "ual").unwrap();
    let bytes = a.snapshot();
    assert_eq!(bytes[..2], [0x1f, 0x8b]);
    let mut b = Replica::from_snapshot(ReplicaId::new(2).unwrap(), &bytes).unwrap();
    assert_eq!(a.digest(), b.digest());
    for end in 0..bytes.len() {
        let cut = Replica::from_snapshot(ReplicaId::new(2).unwrap(), &bytes[..end]);
        assert!(cut.is_err(), "cut at {end}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(Replica::from_snapshot(ReplicaId::new(2).unwrap(), &longer).is_err());
}

#[test]
fn making_room_among_rescued_entries_revives_no_placeholder() {
    let (mut a, mut b) = (replica(1), replica(2));
    let targets: Vec<EntryId> =
        (0..3).map(|_| a.create_item(EntryId::ROOT, END).unwrap()).collect();
    meet(&mut a, &mut b);
    for target in &targets {
        a.purge(*target).unwrap();
        b.create_link(*target, EntryId::ROOT, END).unwrap();
    }
    meet(&mut a, &mut b);
    let lost = EntryId::LOST_AND_FOUND;
    assert_eq!(children(&a, lost), targets, "placeholders");
    // Always into the gap that the last two leave, until its keys have no room left.
    let mut at = 1;
    for turn in 0..200 {
        a.create_item(lost, at).unwrap();
        at += turn % 2;
    }
    meet(&mut a, &mut b);
    assert!(targets.iter().all(|target| !a.is_alive(*target)));
    assert_eq!(a.child_count(lost), 203);
}

#[test]
fn two_who_append_in_turn_never_run_out_of_room() {
    let (mut desk, mut phone) = (replica(1), replica(2));
    let list = desk.create_item(EntryId::ROOT, END).unwrap();
    let mut expected = Vec::new();
    for _ in 0..600 {
        send(&desk, &mut phone);
        expected.push(phone.create_item(list, END).unwrap());
        send(&phone, &mut desk);
        expected.push(desk.create_item(list, END).unwrap());
    }
    meet(&mut desk, &mut phone);
    assert_eq!(children(&desk, list), expected);
    let longest = expected.iter().filter_map(|entry| desk.order_key(*entry)).map(|key| key.len());
    assert!(longest.max().unwrap() <= ORDER_KEY_BYTES_GOAL);
}

#[test]
fn two_who_prepend_in_turn_never_run_out_of_room() {
    let (mut desk, mut phone) = (replica(1), replica(2));
    let list = desk.create_item(EntryId::ROOT, END).unwrap();
    let mut expected = Vec::new();
    for _ in 0..600 {
        send(&desk, &mut phone);
        expected.push(phone.create_item(list, 0).unwrap());
        send(&phone, &mut desk);
        expected.push(desk.create_item(list, 0).unwrap());
    }
    expected.reverse();
    assert_eq!(children(&desk, list), expected);
}

#[test]
fn an_edit_that_is_refused_takes_no_ids() {
    let mut desk = replica(1);
    let root = EntryId::ROOT;
    let too_large = || Value::Text("x".repeat(CHANGE_BYTES_MAX));
    let item = desk.create_item(root, END).unwrap();
    for skipped in [0, 3] {
        let taken_back = desk.transact(|desk| {
            (0..skipped).try_for_each(|_| desk.create_item(root, END).map(drop))?;
            Err::<(), _>(EditError::NotFound(item))
        });
        assert!(taken_back.is_err());
        let next = desk.next_counter();
        let failed = desk.set(item, Field::Value, too_large());
        assert!(matches!(failed, Err(EditError::ChangeTooLarge { .. })), "{failed:?}");
        assert_eq!(desk.next_counter(), next, "{skipped}");
        assert_eq!(next, desk.version().next(desk.id()) + skipped);
        desk.assert_invariants();
    }
    desk.set(item, Field::Value, Value::Text("fits".into())).unwrap();
    let mut phone = replica(2);
    meet(&mut desk, &mut phone);
}

/// Each key that is typed behind a long text leaves by itself. If finding it took a look at all the
/// characters before it, this would take minutes.
#[test]
fn what_is_typed_behind_a_long_paste_leaves_at_once() {
    const CHARS: usize = 1 << 21;
    const KEYS: usize = 40_000;
    let (mut desk, mut phone) = (replica(1), replica(2));
    desk.set(EntryId::ROOT, Field::Value, Value::Text(String::new())).unwrap();
    desk.splice(EntryId::ROOT, Field::Value, 0..0, &"\u{5b57}".repeat(CHARS)).unwrap();
    send(&desk, &mut phone);
    for key in 0..KEYS {
        let at = CHARS + key;
        desk.splice(EntryId::ROOT, Field::Value, at..at, "\u{e9}").unwrap();
        let patch = desk.export(phone.version());
        assert!(patch.len() < 32);
        phone.integrate(Patch::decode(&patch).unwrap()).unwrap();
    }
    assert_eq!(phone.version(), desk.version());
    assert_eq!(phone.digest(), desk.digest());
}

/// If each edit by itself were taken back, or each run of edits of one text, this would take minutes.
#[test]
fn edits_of_texts_by_turns_are_taken_back_together() {
    let mut desk = replica(1);
    let fields = [Field::Label, Field::Value];
    for field in &fields {
        desk.set(EntryId::ROOT, field.clone(), Value::Text("0123456789".repeat(3_000))).unwrap();
    }
    let before = desk.digest();
    let failed = desk.transact(|desk| {
        for at in (0..29_000).rev().step_by(3) {
            for field in &fields {
                desk.splice(EntryId::ROOT, field.clone(), at..at + 1, "ab")?;
            }
        }
        Err::<(), _>(EditError::TransactionOpen)
    });
    assert_eq!(failed, Err(EditError::TransactionOpen));
    desk.assert_invariants();
    assert_eq!(desk.digest(), before);
}

fn forge(author: u64, start: u64, deps: Vec<OpId>, ops: &[Op]) -> Patch {
    let change = Change::new(ReplicaId::new(author).unwrap(), start, deps, ops).unwrap();
    Patch::decode(&Patch::pack([&**change.bytes()])).unwrap()
}

fn assert_fresh(replica: &Replica, entry: EntryId, kind: NewEntry) {
    assert_eq!((replica.is_alive(entry), replica.kind(entry)), (true, Some(kind)), "{entry:?}");
    assert_eq!(replica.parent(entry), Some(EntryId::ROOT));
    assert_eq!(replica.value(entry, &Field::Label), Value::None);
    assert_eq!(children(replica, entry), []);
}

#[test]
fn ids_that_somebody_purged_beforehand_are_given_to_nobody() {
    const FORGED: u64 = 200_000;
    let mut a = replica(1);
    let target = a.create_item(EntryId::ROOT, END).unwrap();
    let own = |counter| OpId { replica: a.id(), counter };
    let forged = (1..=FORGED).map(|counter| (EntryId::created_by(own(counter)), Life::FIRST));
    let purge = forge(2, 0, vec![own(0)], &[Op::Purge { entries: forged.collect() }]);
    a.integrate(purge).unwrap();
    let before = a.version().clone();
    for _ in 0..500 {
        let item = a.create_item(EntryId::ROOT, END).unwrap();
        assert_fresh(&a, item, NewEntry::Item);
        let link = a.create_link(target, EntryId::ROOT, END).unwrap();
        assert_fresh(&a, link, NewEntry::Link { target });
    }
    // What was made up is passed over once.
    assert_eq!(a.next_counter(), 1 + FORGED + 1_000);
    let changes = a.decoded_changes_since(&before).unwrap();
    assert_eq!(changes.iter().map(|change| change.ops().len()).sum::<usize>(), 1_001);
    let mut b = replica(3);
    meet(&mut a, &mut b);
}

#[test]
fn ids_that_somebody_filled_beforehand_are_given_to_nobody() {
    let (mut a, mut b) = (replica(1), replica(2));
    let target = a.create_item(EntryId::ROOT, END).unwrap();
    meet(&mut a, &mut b);
    let mut forged = Vec::new();
    for counter in (1..40).filter(|counter| counter % 7 != 0) {
        let entry = EntryId::created_by(OpId { replica: a.id(), counter });
        let kind = if counter % 2 == 0 { NewEntry::Link { target } } else { NewEntry::Item };
        b.create_with_id(entry, kind, EntryId::TRASH, END).unwrap();
        b.set(entry, Field::Label, Value::Text("forged".into())).unwrap();
        forged.push(entry);
    }
    meet(&mut a, &mut b);
    for taken_back in [true, false] {
        for index in [0, END].repeat(9) {
            let made: Result<_, EditError> = a.transact(|a| {
                let item = a.create_item(EntryId::ROOT, index)?;
                let link = a.create_link(target, EntryId::ROOT, index)?;
                assert_fresh(a, item, NewEntry::Item);
                assert_fresh(a, link, NewEntry::Link { target });
                if taken_back { Err(EditError::OutOfIds) } else { Ok(()) }
            });
            assert_eq!(made.is_err(), taken_back);
        }
    }
    assert_eq!(children(&a, EntryId::TRASH), forged);
    assert!(forged.iter().all(|one| a.value(*one, &Field::Label) == Value::Text("forged".into())));
    meet(&mut a, &mut b);
}

/// Going through all lives for each would take an hour.
#[test]
fn many_lives_of_one_entry_are_touched_soon() {
    const LIVES: u32 = 300_000;
    let mut a = replica(1);
    let entry = EntryId::from_bytes([7; 16]);
    let life = |number| Life::new(number).unwrap();
    let revive = |number| Op::Revive { entry, life: life(number) };
    let ops: Vec<Op> = (1..=LIVES).rev().map(revive).collect();
    a.integrate(forge(2, 0, vec![], &ops)).unwrap();
    assert!(!a.is_alive(entry));
    let mut b = replica(3);
    b.compact();
    send(&a, &mut b);
    let purge = |number| Op::Purge { entries: vec![(entry, life(number))] };
    a.integrate(forge(2, u64::from(LIVES), vec![], &[purge(LIVES - 1)])).unwrap();
    assert!(a.is_alive(entry));
    meet(&mut a, &mut b);
}

#[test]
fn what_is_in_its_last_life_outlives_the_purge_of_its_container() {
    let (mut a, mut b) = (replica(1), replica(2));
    let folder = a.create_item(EntryId::ROOT, END).unwrap();
    let entry = a.create_item(folder, END).unwrap();
    let before_last = Life::new(Life::LAST.number() - 1).unwrap();
    let forged =
        [Op::Purge { entries: vec![(entry, before_last)] }, Op::Revive { entry, life: Life::LAST }];
    a.integrate(forge(3, 0, vec![], &forged)).unwrap();
    a.move_to(entry, folder, END).unwrap();
    let [inside, beside] = [entry, folder].map(|into| a.create_item(into, END).unwrap());
    meet(&mut a, &mut b);
    assert_eq!(a.purge(entry), Err(EditError::OutOfIds));
    a.purge(folder).unwrap();
    assert!([folder, inside, beside].iter().all(|gone| !a.is_alive(*gone)));
    assert_eq!(a.parent(entry), Some(EntryId::LOST_AND_FOUND));
    meet(&mut a, &mut b);
}
