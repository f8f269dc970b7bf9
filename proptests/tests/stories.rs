//! The merging rules as stories of two or three people, a few lines each.
//!
//! What else each replica shows is checked by the naive model along the way.

use sds_engine::{
    EditError, EntryId, Field, NewEntry, Patch, Replica, ReplicaId, Timestamp, Value, Version,
};
use sds_proptests::view::{View, assert_matches_model};

const ROOT: EntryId = EntryId::ROOT;
const TRASH: EntryId = EntryId::TRASH;
const LOST_AND_FOUND: EntryId = EntryId::LOST_AND_FOUND;
const NOON: Timestamp = Timestamp::from_millis(43_200_000);

#[test]
fn of_two_moves_that_would_make_a_circle_the_older_one_wins() {
    let [mut ann, mut bob] = people();
    let (x, y) = (item(&mut ann, ROOT), item(&mut ann, ROOT));
    sync(&mut ann, &mut bob);
    // Ann's id is lower, so of two moves at one time hers is the older.
    ann.move_to(x, y, 0).unwrap();
    bob.move_to(y, x, 0).unwrap();
    sync(&mut ann, &mut bob);
    assert_eq!((bob.parent(x), bob.parent(y)), (Some(y), Some(ROOT)));
}

#[test]
fn sorting_a_list_does_not_pull_back_what_was_taken_out_of_it() {
    let [mut ann, mut bob] = people();
    let (list, first, second) = list_of_two(&mut ann);
    sync(&mut ann, &mut bob);
    ann.trash(first, NOON).unwrap();
    bob.move_to(first, list, 1).unwrap();
    bob.move_to(second, list, 0).unwrap();
    sync(&mut ann, &mut bob);
    assert_eq!((ann.parent(first), ann.trashed_at(first)), (Some(TRASH), Some(NOON)));
    assert_eq!(children(&ann, list), [second]);
}

#[test]
fn sorting_the_trash_keeps_the_time_of_deletion() {
    let [mut ann, _] = people();
    let (_, first, second) = list_of_two(&mut ann);
    ann.trash(first, NOON).unwrap();
    ann.trash(second, NOON).unwrap();
    ann.move_to(second, TRASH, 0).unwrap();
    assert_eq!(children(&ann, TRASH), [second, first]);
    assert_eq!(ann.trashed_at(second), Some(NOON));
    ann.move_to(second, ROOT, 0).unwrap();
    assert_eq!(ann.trashed_at(second), None);
}

#[test]
fn a_purge_beats_every_edit_that_did_not_know_of_it() {
    let [mut ann, mut bob] = people();
    let (list, first, second) = list_of_two(&mut ann);
    sync(&mut ann, &mut bob);
    ann.purge(list).unwrap();
    bob.set(first, Field::Label, text("kept?")).unwrap();
    bob.move_to(first, ROOT, 0).unwrap();
    bob.set(first, Field::Label, text("really?")).unwrap();
    sync(&mut ann, &mut bob);
    for gone in [list, first, second] {
        assert!(!bob.is_alive(gone) && !bob.is_shown(gone));
        assert_eq!(bob.set(gone, Field::Label, text("x")), Err(EditError::NotFound(gone)));
    }
}

#[test]
fn purging_twice_at_once_ends_one_life_only() {
    let [mut ann, mut bob] = people();
    let note = item(&mut ann, ROOT);
    sync(&mut ann, &mut bob);
    ann.purge(note).unwrap();
    bob.purge(note).unwrap();
    ann.create_with_id(note, NewEntry::Item, ROOT, 0).unwrap();
    sync(&mut ann, &mut bob);
    assert!(bob.is_alive(note));
}

#[test]
fn what_was_made_inside_a_purged_item_is_rescued() {
    let [mut ann, mut bob] = people();
    let list = item(&mut ann, ROOT);
    sync(&mut ann, &mut bob);
    ann.purge(list).unwrap();
    let new = item(&mut bob, list);
    let inside = item(&mut bob, new);
    sync(&mut ann, &mut bob);
    assert_eq!(children(&ann, LOST_AND_FOUND), [new]);
    assert_eq!(children(&ann, new), [inside]);
}

#[test]
fn rescued_entries_can_be_put_in_any_order() {
    let [mut ann, mut bob] = people();
    let list = item(&mut ann, ROOT);
    sync(&mut ann, &mut bob);
    ann.purge(list).unwrap();
    let made = [0, 1, 2].map(|_| item(&mut bob, list));
    sync(&mut ann, &mut bob);
    let rescued = children(&ann, LOST_AND_FOUND);
    assert_eq!(rescued.len(), made.len());
    ann.move_to(rescued[2], LOST_AND_FOUND, 1).unwrap();
    assert_eq!(children(&ann, LOST_AND_FOUND), [rescued[0], rescued[2], rescued[1]]);
    let new = ann.create_item(LOST_AND_FOUND, 2).unwrap();
    assert_eq!(children(&ann, LOST_AND_FOUND), [rescued[0], rescued[2], new, rescued[1]]);
    sync(&mut ann, &mut bob);
}

#[test]
fn an_item_can_go_into_what_was_rescued_from_below_it() {
    let [mut ann, mut bob] = people();
    let outer = item(&mut ann, ROOT);
    let inner = item(&mut ann, outer);
    sync(&mut ann, &mut bob);
    ann.purge(inner).unwrap();
    let rescued = item(&mut bob, inner);
    let below = item(&mut bob, rescued);
    sync(&mut ann, &mut bob);
    // As displayed that is no circle, though in the hidden tree `below` is inside `outer`.
    ann.move_to(outer, below, 0).unwrap();
    assert_eq!(ann.parent(outer), Some(below));
    sync(&mut ann, &mut bob);
    assert_eq!(children(&bob, LOST_AND_FOUND), [rescued]);
    assert_eq!((bob.parent(below), bob.parent(outer)), (Some(rescued), Some(below)));
}

#[test]
fn a_purged_item_that_a_link_wants_is_shown_as_a_placeholder() {
    let [mut ann, mut bob] = people();
    let note = item(&mut ann, ROOT);
    ann.set(note, Field::Label, text("secret")).unwrap();
    sync(&mut ann, &mut bob);
    ann.purge(note).unwrap();
    let link = bob.create_link(note, ROOT, 0).unwrap();
    sync(&mut ann, &mut bob);
    assert_eq!(children(&ann, LOST_AND_FOUND), [note]);
    assert!(ann.is_shown(note) && !ann.is_alive(note));
    assert_eq!(ann.value(note, &Field::Label), Value::None);

    bob.trash(link, NOON).unwrap();
    assert!(!bob.is_shown(note), "a link in the trash wants nothing");
    bob.move_to(link, ROOT, 0).unwrap();
    bob.purge(link).unwrap();
    assert!(!bob.is_shown(note));
    sync(&mut ann, &mut bob);
}

#[test]
fn an_edit_inside_a_placeholder_revives_it_empty() {
    let [mut ann, mut bob] = people();
    let note = item(&mut ann, ROOT);
    ann.set(note, Field::Label, text("secret")).unwrap();
    sync(&mut ann, &mut bob);
    ann.purge(note).unwrap();
    bob.create_link(note, ROOT, 0).unwrap();
    sync(&mut ann, &mut bob);
    let inside = item(&mut ann, note);
    sync(&mut ann, &mut bob);
    assert!(bob.is_alive(note));
    assert_eq!((bob.parent(note), bob.parent(inside)), (Some(LOST_AND_FOUND), Some(note)));
    assert_eq!(bob.value(note, &Field::Label), Value::None);
}

#[test]
fn an_item_beats_a_link_of_the_same_id() {
    let [mut ann, mut bob] = people();
    let target = item(&mut ann, ROOT);
    let id = EntryId::from_bytes([0x55; 16]);
    sync(&mut ann, &mut bob);
    ann.create_with_id(id, NewEntry::Item, ROOT, 0).unwrap();
    bob.create_with_id(id, NewEntry::Link { target }, ROOT, 0).unwrap();
    let inside = item(&mut ann, id);
    sync(&mut ann, &mut bob);
    assert_eq!(bob.kind(id), Some(NewEntry::Item));
    assert_eq!(bob.parent(inside), Some(id));
}

#[test]
fn two_titles_are_never_glued_together() {
    let [mut ann, mut bob] = people();
    ann.set(ROOT, Field::Label, text("draft")).unwrap();
    sync(&mut ann, &mut bob);
    ann.set(ROOT, Field::Label, text("plan")).unwrap();
    bob.splice(ROOT, Field::Label, 0..0, "the ").unwrap();
    sync(&mut ann, &mut bob);
    assert_eq!(bob.value(ROOT, &Field::Label), text("plan"));
}

#[test]
fn what_two_people_type_at_one_place_does_not_interleave() {
    let [mut ann, mut bob] = people();
    ann.set(ROOT, Field::Value, text("[]")).unwrap();
    sync(&mut ann, &mut bob);
    for (at, (hers, his)) in "abc".chars().zip("xyz".chars()).enumerate() {
        ann.splice(ROOT, Field::Value, at + 1..at + 1, &hers.to_string()).unwrap();
        bob.splice(ROOT, Field::Value, at + 1..at + 1, &his.to_string()).unwrap();
    }
    sync(&mut ann, &mut bob);
    let merged = ann.value(ROOT, &Field::Value);
    assert!([text("[abcxyz]"), text("[xyzabc]")].contains(&merged), "{merged:?}");
}

#[test]
fn what_was_typed_next_to_deleted_characters_stays() {
    let [mut ann, mut bob] = people();
    ann.set(ROOT, Field::Value, text("one two three")).unwrap();
    sync(&mut ann, &mut bob);
    ann.splice(ROOT, Field::Value, 3..7, "").unwrap();
    bob.splice(ROOT, Field::Value, 7..7, "!").unwrap();
    sync(&mut ann, &mut bob);
    assert_eq!(ann.value(ROOT, &Field::Value), text("one! three"));
}

#[test]
fn lists_that_two_people_add_at_one_place_do_not_interleave() {
    let [mut ann, mut bob] = people();
    let list = item(&mut ann, ROOT);
    sync(&mut ann, &mut bob);
    let hers = [0, 1, 2].map(|at| ann.create_item(list, at).unwrap());
    let his = [0, 1, 2].map(|at| bob.create_item(list, at).unwrap());
    sync(&mut ann, &mut bob);
    let merged = children(&ann, list);
    assert!(merged == [hers, his].concat() || merged == [his, hers].concat(), "{merged:?}");
}

#[test]
fn system_entries_stay_where_they_are() {
    let [mut ann, _] = people();
    let list = item(&mut ann, ROOT);
    for system in [TRASH, LOST_AND_FOUND] {
        assert_eq!(ann.move_to(system, list, 0), Err(EditError::WellKnown(system)));
        assert_eq!(ann.trash(system, NOON), Err(EditError::WellKnown(system)));
        assert_eq!(ann.purge(system), Err(EditError::WellKnown(system)));
    }
    assert_eq!(children(&ann, ROOT), [TRASH, LOST_AND_FOUND, list]);
    ann.move_to(LOST_AND_FOUND, ROOT, 0).unwrap();
    assert_eq!(children(&ann, ROOT), [LOST_AND_FOUND, TRASH, list]);
}

fn people() -> [Replica; 2] {
    [1, 2].map(|number| Replica::new(ReplicaId::new(number).unwrap()))
}

fn item(replica: &mut Replica, parent: EntryId) -> EntryId {
    replica.create_item(parent, usize::MAX).unwrap()
}

/// A list in Root, and two items in it.
fn list_of_two(replica: &mut Replica) -> (EntryId, EntryId, EntryId) {
    let list = item(replica, ROOT);
    (list, item(replica, list), item(replica, list))
}

fn children(replica: &Replica, parent: EntryId) -> Vec<EntryId> {
    replica.children(parent).collect()
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// Each gets what the other has; afterwards both are what the model says.
fn sync(ann: &mut Replica, bob: &mut Replica) {
    let for_bob = Patch::decode(&ann.export(bob.version())).unwrap();
    let for_ann = Patch::decode(&bob.export(ann.version())).unwrap();
    bob.integrate(for_bob).unwrap();
    ann.integrate(for_ann).unwrap();
    for replica in [&mut *ann, &mut *bob] {
        let changes = Patch::decode(&replica.export(&Version::new())).unwrap().into_changes();
        assert_matches_model(replica, &changes);
    }
    assert_eq!(View::of_replica(ann), View::of_replica(bob));
}
