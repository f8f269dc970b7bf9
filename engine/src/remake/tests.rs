use super::*;
use crate::change::ChangeHeader;
use crate::{Field, Patch, Replica, Side, TextUnit, Value, Version};

fn id(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}

fn changes(replica: &Replica) -> Vec<Change> {
    let changes = replica.changes_since(&Version::new()).unwrap();
    changes.iter().map(|change| Change::decode(change).unwrap()).collect()
}

fn replica_of(number: u64, changes: &[Change]) -> Replica {
    let mut replica = Replica::new(id(number));
    let patch = Patch::pack(changes.iter().map(|change| &**change.bytes()));
    replica.integrate(Patch::decode(&patch).unwrap()).unwrap();
    replica
}

/// The changes with those from `cut` on made again by `to`.
fn remade(all: &[Change], to: u64, is_former: impl Fn(&ChangeHeader) -> bool) -> Vec<Change> {
    let mut remake = Remake::new(id(to));
    let again = |change: &Change| {
        if is_former(change.header()) { remake.change(change).unwrap() } else { change.clone() }
    };
    all.iter().map(again).collect()
}

fn text(replica: &Replica, entry: EntryId) -> String {
    match replica.value(entry, &Field::Value) {
        Value::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_deletion_across_the_cut_reaches_both_sides_of_it() {
    for is_backwards in [false, true] {
        let mut copy = Replica::new(id(1));
        let note = copy.create_item(EntryId::ROOT, 0).unwrap();
        copy.set(note, Field::Value, Value::Text("ab".into())).unwrap();
        copy.splice(note, Field::Value, 2..2, "cd").unwrap();
        let cut = copy.version().next(id(1));
        copy.splice(note, Field::Value, 4..4, "efg").unwrap();
        if is_backwards {
            copy.transact(|copy| {
                (0..4).rev().try_for_each(|at| copy.splice(note, Field::Value, at + 2..at + 3, ""))
            })
            .unwrap();
        } else {
            copy.splice(note, Field::Value, 2..6, "").unwrap();
        }
        assert_eq!(text(&copy, note), "abg");
        let all = changes(&copy);
        let deleted = all.last().unwrap().ops().len();
        let again = remade(&all, 9, |header| header.start >= cut);
        assert_eq!((deleted, again.last().unwrap().ops().len()), (1, 2), "one for each replica");
        let fresh = replica_of(9, &again);
        assert_eq!(text(&fresh, note), "abg");
        fresh.assert_invariants();
    }
}

#[test]
fn entries_links_and_purges_have_the_new_names() {
    let mut copy = Replica::new(id(1));
    let folder = copy.create_item(EntryId::ROOT, 0).unwrap();
    let cut = copy.version().next(id(1));
    let inner = copy.create_item(folder, 0).unwrap();
    let link = copy.create_link(inner, EntryId::ROOT, 0).unwrap();
    let gone = copy.create_item(folder, 1).unwrap();
    copy.purge(gone).unwrap();
    let mut remake = Remake::new(id(2));
    let (kept, former): (Vec<Change>, Vec<Change>) =
        changes(&copy).into_iter().partition(|change| change.header().start < cut);
    let again = former.iter().map(|change| remake.change(change).unwrap());
    let all: Vec<Change> = kept.into_iter().chain(again).collect();
    let fresh = replica_of(2, &all);
    assert_eq!(fresh.parent(remake.entry(inner)), Some(folder), "the folder keeps its name");
    assert_ne!(remake.entry(inner), inner);
    assert_eq!(
        fresh.kind(remake.entry(link)),
        Some(NewEntry::Link { target: remake.entry(inner) })
    );
    assert!(!fresh.is_alive(remake.entry(gone)));
    assert!([inner, link, gone].iter().all(|former| !fresh.is_shown(*former)));
}

#[test]
fn changes_of_two_authors_become_those_of_one_and_both_forks_live_on() {
    let mut copy = Replica::new(id(1));
    let note = copy.create_item(EntryId::ROOT, 0).unwrap();
    copy.set(note, Field::Value, Value::Text("base".into())).unwrap();
    let shared = copy.version().clone();
    let base = changes(&copy);
    let mut original = replica_of(1, &base);
    original.splice(note, Field::Value, 0..0, "X").unwrap();

    copy.splice(note, Field::Value, 4..4, "one").unwrap();
    let mut guest = replica_of(3, &changes(&copy));
    guest.splice(note, Field::Value, 7..7, "two").unwrap();
    copy.integrate(Patch::decode(&guest.export(copy.version())).unwrap()).unwrap();
    copy.splice(note, Field::Value, 4..10, "").unwrap();
    copy.splice(note, Field::Value, 4..4, "!").unwrap();

    let again = remade(&changes(&copy), 2, |header| !shared.has(header.last()));
    let authors: Vec<u64> = again.iter().map(|change| change.header().replica.as_u64()).collect();
    assert_eq!(authors, [1, 1, 2, 2, 2, 2]);
    let mut fresh = replica_of(2, &again);
    assert_eq!(text(&fresh, note), "base!");
    fresh.integrate(Patch::decode(&original.export(fresh.version())).unwrap()).unwrap();
    original.integrate(Patch::decode(&fresh.export(original.version())).unwrap()).unwrap();
    assert_eq!(text(&fresh, note), "Xbase!");
    assert_eq!(fresh.digest(), original.digest());
}

#[test]
fn ids_that_were_given_out_are_not_given_out_again_after_a_restart() {
    let mut replica = Replica::new(id(1));
    let kept = replica.create_item(EntryId::ROOT, 0).unwrap();
    let transaction = replica.begin();
    let given = replica.create_item(EntryId::ROOT, 0).unwrap();
    replica.roll_back(transaction);
    let next = replica.next_counter();
    let mut again = Replica::from_snapshot(id(1), &replica.snapshot()).unwrap();
    assert!(again.next_counter() < next, "a snapshot alone forgets");
    again.resume_at(next);
    let fresh = again.create_item(EntryId::ROOT, 0).unwrap();
    assert!(fresh != given && fresh != kept);
    again.resume_at(0);
    again.resume_at(u64::MAX);
    assert_eq!(again.next_counter(), again.version().next(id(1)));
    again.assert_invariants();
    let anchor = again.anchor(fresh, &Field::Value, 0, TextUnit::Chars, Side::After);
    assert!(anchor.is_err(), "there is no text yet");
}
