//! The fine points; `proptests` holds deltas against what shows in random stories.

use super::*;
use crate::{EditError, Patch, ReplicaId, TextUnit};

const ROOT: EntryId = EntryId::ROOT;
const TRASH: EntryId = EntryId::TRASH;
const LOST_AND_FOUND: EntryId = EntryId::LOST_AND_FOUND;
const END: usize = usize::MAX;

fn replica(number: u64) -> Replica {
    let mut replica = Replica::new(ReplicaId::new(number).unwrap());
    replica.record_deltas(true);
    replica
}

/// A replica with items in Root behind the two system items, and nothing to tell.
fn with_items<const N: usize>() -> (Replica, [EntryId; N]) {
    let mut replica = replica(1);
    let items = [0; N].map(|_| replica.create_item(ROOT, END).unwrap());
    drop(replica.take_delta());
    (replica, items)
}

/// A replica with a text as Root's value, and nothing to tell.
fn with_text(value: &str) -> Replica {
    let mut replica = replica(1);
    replica.set(ROOT, Field::Value, text(value)).unwrap();
    drop(replica.take_delta());
    replica
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn splice(replica: &mut Replica, range: std::ops::Range<usize>, text: &str) {
    replica.splice(ROOT, Field::Value, range, text).unwrap();
}

fn send(from: &Replica, to: &mut Replica) {
    to.integrate(Patch::decode(&from.export(to.version())).unwrap()).unwrap();
}

/// The splices of the only text that has changed: place in UTF-16, what goes, what comes.
fn splices(delta: &Delta) -> Vec<(usize, &str, &str)> {
    let [one] = &delta.entries[..] else { panic!("{delta:?}") };
    let [FieldDelta { edit: FieldEdit::Spliced(splices), .. }] = &one.fields[..] else {
        panic!("{delta:?}")
    };
    let row = |one| TextSplice::range(one, TextUnit::Utf16).start;
    splices.iter().map(|one| (row(one), one.deleted(), one.inserted())).collect()
}

fn sets(delta: &Delta) -> Vec<(EntryId, Field, Value, Value)> {
    let fields =
        delta.entries.iter().flat_map(|one| one.fields.iter().map(move |field| (one, field)));
    let sets = fields.filter_map(|(one, field)| match &field.edit {
        FieldEdit::Set(Difference { before, after }) => {
            Some((one.entry, field.field.clone(), before.clone(), after.clone()))
        }
        FieldEdit::Spliced(_) => None,
    });
    sets.collect()
}

/// Where entries went from and to: (entry, container and index before, container and index after).
type Move = (EntryId, Option<(EntryId, usize)>, Option<(EntryId, usize)>);

fn moves(delta: &Delta) -> Vec<Move> {
    let pair = |place: Option<Place>| place.map(|place| (place.parent, place.index));
    let moved = delta.entries.iter().filter_map(|one| Some((one.entry, one.place?)));
    moved.map(|(entry, place)| (entry, pair(place.before), pair(place.after))).collect()
}

#[test]
fn nothing_is_recorded_unless_somebody_wants_it() {
    let mut replica = Replica::new(ReplicaId::new(1).unwrap());
    replica.create_item(ROOT, 0).unwrap();
    assert!(replica.take_delta().is_empty());
    replica.record_deltas(true);
    replica.set(ROOT, Field::Label, text("a")).unwrap();
    replica.record_deltas(true);
    assert!(!replica.take_delta().is_empty(), "asking twice forgets nothing");
    replica.set(ROOT, Field::Label, text("b")).unwrap();
    replica.record_deltas(false);
    replica.record_deltas(true);
    assert!(replica.take_delta().is_empty());
}

#[test]
fn a_new_entry_comes_with_its_fields() {
    let (mut replica, [_, second]) = with_items();
    let new = replica.create_link(second, ROOT, 3).unwrap();
    replica.set(new, Field::Label, text("see")).unwrap();
    let delta = replica.take_delta();
    let [one] = &delta.entries[..] else { panic!("{delta:?}") };
    let kind = NewEntry::Link { target: second };
    let after = Some(Appearance { kind, is_placeholder: false });
    assert_eq!(one.appearance, Some(Difference { before: None, after }));
    assert_eq!(moves(&delta), [(new, None, Some((ROOT, 3)))]);
    assert_eq!(sets(&delta), [(new, Field::Label, Value::None, text("see"))]);
}

#[test]
fn only_what_was_moved_is_moved() {
    let (mut replica, [first, second, third]) = with_items();
    replica.move_to(first, ROOT, 4).unwrap();
    assert_eq!(moves(&replica.take_delta()), [(first, Some((ROOT, 2)), Some((ROOT, 4)))]);
    replica.move_to(second, ROOT, 2).unwrap();
    replica.move_to(third, third, 0).unwrap_err();
    assert!(replica.take_delta().is_empty(), "where it was before");
    replica.move_to(second, third, 0).unwrap();
    replica.move_to(second, ROOT, 2).unwrap();
    assert!(replica.take_delta().is_empty(), "there and back");
    for entry in [second, third, first] {
        replica.move_to(entry, ROOT, END).unwrap();
    }
    assert!(replica.take_delta().is_empty(), "all have other keys and stand in the same order");
}

#[test]
fn indexes_are_those_of_the_whole_lists() {
    let (mut replica, [a, b, c, d]) = with_items();
    replica.move_to(d, ROOT, 2).unwrap();
    replica.move_to(b, a, 0).unwrap();
    replica.purge(c).unwrap();
    let delta = replica.take_delta();
    assert_eq!(delta.departures().iter().map(|(_, entry)| *entry).collect::<Vec<_>>(), [d, c, b]);
    assert_eq!(
        moves(&delta),
        [
            (b, Some((ROOT, 3)), Some((a, 0))),
            (c, Some((ROOT, 4)), None),
            (d, Some((ROOT, 5)), Some((ROOT, 2))),
        ]
    );
}

#[test]
fn trash_tells_the_time() {
    let (mut replica, [item]) = with_items();
    let (noon, night) = (Timestamp::from_millis(12), Timestamp::from_millis(24));
    replica.trash(item, noon).unwrap();
    let delta = replica.take_delta();
    assert_eq!(moves(&delta), [(item, Some((ROOT, 2)), Some((TRASH, 0)))]);
    let time = Difference { before: None, after: Some(noon) };
    assert_eq!(delta.entries[0].trashed_at, Some(time));
    replica.trash(item, night).unwrap();
    let delta = replica.take_delta();
    assert_eq!(moves(&delta), [], "it is the only one there");
    let time = Difference { before: Some(noon), after: Some(night) };
    assert_eq!(delta.entries[0].trashed_at, Some(time));
}

#[test]
fn rescue_and_placeholders_are_told() {
    let (mut desk, [list, note]) = with_items();
    let mut phone = replica(2);
    send(&desk, &mut phone);
    phone.create_link(note, ROOT, END).unwrap();
    let inside = phone.create_item(list, 0).unwrap();
    desk.purge(list).unwrap();
    desk.purge(note).unwrap();
    drop((desk.take_delta(), phone.take_delta()));
    send(&desk, &mut phone);
    let delta = phone.take_delta();
    let moves = moves(&delta);
    assert!(moves.contains(&(list, Some((ROOT, 2)), None)));
    let rescued: Vec<_> = delta.arrivals().into_iter().map(|(place, _)| place.parent).collect();
    assert_eq!(rescued, [LOST_AND_FOUND, LOST_AND_FOUND]);
    assert!(moves.iter().any(|(entry, before, _)| (*entry, *before) == (inside, Some((list, 0)))));
    let placeholder = delta.entries.iter().find(|one| one.entry == note).unwrap();
    let looks = |is_placeholder| Some(Appearance { kind: NewEntry::Item, is_placeholder });
    let appearance = Difference { before: looks(false), after: looks(true) };
    assert_eq!(placeholder.appearance, Some(appearance));
}

#[test]
fn typing_is_one_splice() {
    let mut replica = with_text("a\u{1f600}z");
    for (nth, char) in ["h", "e", "y", "o"].into_iter().enumerate() {
        splice(&mut replica, 3 + nth..3 + nth, char);
    }
    splice(&mut replica, 6..7, "");
    splice(&mut replica, 6..7, "!");
    assert_eq!(splices(&replica.take_delta()), [(3, "z", "hey!")]);
    splice(&mut replica, 3..7, "");
    splice(&mut replica, 1..3, "");
    assert_eq!(splices(&replica.take_delta()), [(1, "\u{1f600}hey!", "")]);
}

#[test]
fn splices_apply_one_after_the_other() {
    let mut replica = with_text("one two three");
    splice(&mut replica, 0..3, "1");
    splice(&mut replica, 6..11, "3");
    splice(&mut replica, 2..5, "2");
    let expected = [(0, "one", "1"), (6, "three", "3"), (2, "two", "2")];
    assert_eq!(splices(&replica.take_delta()), expected);
}

#[test]
fn what_is_typed_and_deleted_again_is_not_told() {
    let mut replica = with_text("abc");
    splice(&mut replica, 1..1, "xyz");
    splice(&mut replica, 1..4, "");
    assert!(replica.take_delta().is_empty());
    splice(&mut replica, 1..2, "b");
    assert!(replica.take_delta().is_empty(), "another b, which looks the same");
}

/// In any order, and also where there is too much to put it together.
#[test]
fn a_text_that_reads_as_before_is_not_told() {
    let mut desk = with_text("one, two, three, four");
    splice(&mut desk, 5..17, "");
    splice(&mut desk, 5..5, "three, ");
    splice(&mut desk, 5..5, "two, ");
    assert!(desk.take_delta().is_empty());
    splice(&mut desk, 0..1, "");
    splice(&mut desk, 19..19, "o");
    splice(&mut desk, 0..0, "o");
    splice(&mut desk, 20..21, "");
    assert!(desk.take_delta().is_empty());
    splice(&mut desk, 0..1, "");
    splice(&mut desk, 19..19, "o");
    assert_eq!(splices(&desk.take_delta()), [(0, "o", ""), (19, "", "o")]);
}

#[test]
fn setting_a_field_wins_over_splices_of_it() {
    let mut replica = with_text("draft");
    splice(&mut replica, 0..1, "D");
    splice(&mut replica, 3..4, "\u{e9}\u{e9}");
    splice(&mut replica, 1..2, "");
    replica.set(ROOT, Field::Value, text("plan")).unwrap();
    splice(&mut replica, 4..4, "!");
    let expected = [(ROOT, Field::Value, text("draft"), text("plan!"))];
    assert_eq!(sets(&replica.take_delta()), expected);
    splice(&mut replica, 4..5, "");
    replica.set(ROOT, Field::Value, text("plan!")).unwrap();
    assert!(replica.take_delta().is_empty(), "the same value again");
}

#[test]
fn what_loses_is_not_told() {
    let (mut desk, [item]) = with_items();
    let mut phone = replica(2);
    send(&desk, &mut phone);
    desk.set(item, Field::Label, text("desk")).unwrap();
    desk.move_to(item, ROOT, 0).unwrap();
    for label in ["p", "phone"] {
        phone.set(item, Field::Label, text(label)).unwrap();
    }
    phone.move_to(item, ROOT, 1).unwrap();
    drop(phone.take_delta());
    send(&desk, &mut phone);
    assert!(phone.take_delta().is_empty());
}

#[test]
fn a_deletion_of_what_was_deleted_is_not_told() {
    let (mut desk, mut phone) = (with_text("abcdef"), replica(2));
    send(&desk, &mut phone);
    splice(&mut desk, 1..4, "");
    splice(&mut phone, 2..5, "");
    drop(desk.take_delta());
    send(&phone, &mut desk);
    assert_eq!(splices(&desk.take_delta()), [(1, "e", "")]);
    send(&desk, &mut phone);
    send(&desk, &mut phone);
    assert_eq!(phone.value(ROOT, &Field::Value), text("af"));
}

#[test]
fn what_dies_loses_its_fields_and_what_lives_again_has_others() {
    let (mut replica, [item]) = with_items();
    replica.set(item, Field::Label, text("old")).unwrap();
    drop(replica.take_delta());
    replica.splice(item, Field::Label, 0..3, "spliced").unwrap();
    replica.purge(item).unwrap();
    let gone = replica.take_delta();
    assert_eq!(sets(&gone), [(item, Field::Label, text("old"), Value::None)]);
    replica.create_with_id(item, NewEntry::Item, ROOT, END).unwrap();
    replica.set(item, Field::Label, text("new")).unwrap();
    drop(replica.take_delta());
    replica.purge(item).unwrap();
    replica.create_with_id(item, NewEntry::Item, ROOT, END).unwrap();
    let reborn = replica.take_delta();
    assert_eq!(sets(&reborn), [(item, Field::Label, text("new"), Value::None)]);
    assert_eq!(moves(&reborn), [], "it shows where it showed");
}

#[test]
fn what_is_taken_back_leaves_nothing() {
    let (mut replica, [first, second]) = with_items();
    replica.set(ROOT, Field::Value, text("kept")).unwrap();
    drop(replica.take_delta());
    let failed = replica.transact(|replica| {
        replica.move_to(first, second, 0)?;
        replica.set(first, Field::Label, text("x"))?;
        replica.splice(ROOT, Field::Value, 0..4, "lost")?;
        replica.purge(second)?;
        replica.create_item(ROOT, 0)?;
        Err::<(), _>(EditError::OutOfIds)
    });
    assert_eq!(failed, Err(EditError::OutOfIds));
    assert!(replica.take_delta().is_empty());
}

#[test]
fn what_was_told_and_is_taken_back_is_told_again() {
    let mut replica = with_text("kept");
    let transaction = replica.begin();
    splice(&mut replica, 4..4, " for now");
    let new = replica.create_item(ROOT, 0).unwrap();
    assert_eq!(replica.take_delta().entries.len(), 2);
    splice(&mut replica, 0..4, "here");
    replica.roll_back(transaction);
    let delta = replica.take_delta();
    assert_eq!(moves(&delta), [(new, Some((ROOT, 0)), None)]);
    let root =
        Delta { entries: delta.entries.into_iter().filter(|one| one.entry == ROOT).collect() };
    assert_eq!(splices(&root), [(4, " for now", "")]);
}

#[test]
fn splices_before_a_part_that_fails_stay() {
    let mut replica = with_text("kept");
    splice(&mut replica, 0..0, "well ");
    let failed = replica.transact(|replica| {
        replica.splice(ROOT, Field::Value, 5..9, "lost")?;
        Err::<(), _>(EditError::OutOfIds)
    });
    assert_eq!(failed, Err(EditError::OutOfIds));
    assert_eq!(splices(&replica.take_delta()), [(0, "", "well ")]);
}

#[test]
fn a_state_that_joins_is_told_as_what_it_changes() {
    let (mut desk, mut phone) = (with_text("one two"), replica(2));
    send(&desk, &mut phone);
    splice(&mut desk, 3..3, ",");
    desk.compact();
    splice(&mut phone, 7..7, "!");
    drop(phone.take_delta());
    send(&desk, &mut phone);
    assert_eq!(splices(&phone.take_delta()), [(3, "", ",")]);
    assert_eq!(phone.value(ROOT, &Field::Value), text("one, two!"));
}
