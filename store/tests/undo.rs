//! What undoing brings back, and what of others it leaves alone.

#[path = "common/listener.rs"]
mod listener;

use listener::{Listener, keys, only};
use sds_engine::{Patch, Replica};
use sds_store::limits::UNDO_STEPS;
use sds_store::{
    DataStore, EntryId, ItemValue, Origin, ReplicaId, StoreError, StoreOptions, Timestamp,
    UndoOptions,
};
use serde_json::json;

const ROOT: EntryId = EntryId::ROOT;
const TRASH: EntryId = EntryId::TRASH;
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const LATER: Timestamp = Timestamp::from_millis(1_700_000_060_000);

fn store(number: u64) -> DataStore {
    DataStore::new(ReplicaId::new(number).unwrap())
}

/// A store that begins to note undo steps after `make`, and another that has the same.
fn desk_and_phone(
    make: impl FnOnce(&mut DataStore) -> Vec<EntryId>,
) -> (DataStore, DataStore, Vec<EntryId>) {
    let mut desk = store(1);
    let made = make(&mut desk);
    desk.enable_undo(UndoOptions::default());
    let mut phone = store(2);
    send(&desk, &mut phone);
    (desk, phone, made)
}

fn send(from: &DataStore, to: &mut DataStore) {
    to.apply_remote_patch(&from.export_patch(to.version())).unwrap();
}

fn exchange(a: &mut DataStore, b: &mut DataStore) {
    send(a, b);
    send(b, a);
    assert_eq!(a.digest(), b.digest());
}

fn items<const N: usize>(desk: &mut DataStore) -> Vec<EntryId> {
    (0..N).map(|_| desk.new_item_at(None, ROOT, None).unwrap()).collect()
}

fn inner(store: &DataStore, outer: EntryId) -> Vec<EntryId> {
    store.entry_with_id(outer).unwrap().inner_entries().map(|entry| entry.id()).collect()
}

fn outer(store: &DataStore, entry: EntryId) -> Option<EntryId> {
    store.entry_with_id(entry)?.outer_item_id()
}

fn text(store: &DataStore, item: EntryId) -> String {
    match store.entry_with_id(item).unwrap().value() {
        ItemValue::Text(text) => text,
        other => format!("{other:?}"),
    }
}

#[test]
fn nothing_is_undone_unless_that_is_enabled() {
    let mut desk = store(1);
    desk.set_label(ROOT, "a").unwrap();
    assert_eq!((desk.undo(NOW), desk.can_undo()), (Ok(false), false));
    desk.enable_undo(UndoOptions::default());
    assert_eq!((desk.undo(NOW), desk.can_undo()), (Ok(false), false));
    desk.set_label(ROOT, "b").unwrap();
    desk.enable_undo(UndoOptions::default());
    assert!(desk.can_undo(), "what was noted stays");
    desk.disable_undo();
    assert_eq!((desk.undo(NOW), desk.can_undo()), (Ok(false), false));
    assert_eq!(desk.root_item().label(), "b");
}

#[test]
fn every_property_comes_back() {
    let (mut desk, _, made) = desk_and_phone(|desk| {
        let made = items::<1>(desk);
        desk.set_label(made[0], "old").unwrap();
        desk.set_info(made[0], "key", &json!({"a": 1})).unwrap();
        desk.write_value(made[0], [1, 2].as_slice()).unwrap();
        made
    });
    let item = made[0];
    let look = |desk: &DataStore| {
        let entry = desk.entry_with_id(item).unwrap();
        let (label, mime_type) = (entry.label().into_owned(), entry.mime_type().into_owned());
        (label, mime_type, entry.value(), entry.info_map())
    };
    let before = look(&desk);
    desk.transact(|desk| {
        desk.set_label(item, "new")?;
        desk.set_mime_type(item, "text/markdown")?;
        desk.write_value(item, "text")?;
        desk.change_value(item, 0..1, "T")?;
        desk.delete_info(item, "key")?;
        desk.set_info(item, "other", &json!(null))
    })
    .unwrap();
    let after = look(&desk);
    for _ in 0..3 {
        assert!(desk.undo(NOW).unwrap());
        assert_eq!(look(&desk), before);
        assert!(desk.redo(NOW).unwrap());
        assert_eq!(look(&desk), after);
    }
}

#[test]
fn an_undo_is_one_change_and_one_event() {
    let (mut desk, mut phone, made) = desk_and_phone(items::<2>);
    desk.transact(|desk| {
        desk.set_label(made[0], "a")?;
        desk.move_entry_to(made[1], made[0], None)
    })
    .unwrap();
    send(&desk, &mut phone);
    let (here, there) = (Listener::of(&mut desk), Listener::of(&mut phone));
    let before = desk.version().clone();
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(desk.changes_since(&before).unwrap().len(), 1);
    let event = only(here.take());
    let mut expected = [
        (made[0], "Label".to_owned()),
        (made[0], "innerEntryList".to_owned()),
        (made[1], "outerItem".to_owned()),
        (ROOT, "innerEntryList".to_owned()),
    ];
    expected.sort_unstable();
    let mut found = keys(&event);
    found.sort_unstable();
    assert_eq!((event.origin, found.as_slice()), (Origin::Internal, expected.as_slice()));
    send(&desk, &mut phone);
    assert_eq!(only(there.take()).changes, event.changes);
    // What does nothing tells nothing.
    assert!(!desk.undo(NOW).unwrap());
    here.subscription.unsubscribe();
    assert!(desk.redo(NOW).unwrap());
    assert!(!desk.redo(NOW).unwrap());
    assert_eq!(here.take(), []);
}

#[test]
fn what_was_created_goes_to_trash_with_what_others_put_into_it() {
    let (mut desk, mut phone, _) = desk_and_phone(|_| Vec::new());
    let (folder, inside) = desk
        .transact(|desk| {
            let folder = desk.new_item_at(None, ROOT, Some(1))?;
            desk.set_label(folder, "mine")?;
            Ok::<_, StoreError>((folder, desk.new_item_at(None, folder, None)?))
        })
        .unwrap();
    send(&desk, &mut phone);
    let theirs = phone.new_item_at(None, folder, None).unwrap();
    phone.write_value(inside, "theirs").unwrap();
    send(&phone, &mut desk);
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(inner(&desk, TRASH), [folder], "as a whole");
    assert_eq!(inner(&desk, folder), [inside, theirs]);
    let entry = desk.entry_with_id(folder).unwrap();
    assert_eq!((&*entry.label(), entry.trashed_at()), ("mine", Some(NOW)));
    assert!(desk.redo(LATER).unwrap());
    assert_eq!(inner(&desk, ROOT)[1], folder);
    assert_eq!(text(&desk, inside), "theirs");
    exchange(&mut desk, &mut phone);
}

#[test]
fn a_deletion_is_taken_back_to_where_it_was() {
    let (mut desk, _, made) = desk_and_phone(items::<3>);
    let before = inner(&desk, ROOT);
    desk.delete_entry(made[1], NOW).unwrap();
    desk.delete_entry(made[1], LATER).unwrap();
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(desk.entry_with_id(made[1]).unwrap().trashed_at(), Some(NOW));
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(inner(&desk, ROOT), before);
    assert_eq!(desk.entry_with_id(made[1]).unwrap().info("_trashedAt"), None);
    assert!(desk.redo(LATER).unwrap() && desk.redo(LATER).unwrap());
    assert_eq!(desk.entry_with_id(made[1]).unwrap().trashed_at(), Some(LATER));
    // Restoring is a move like others.
    desk.move_entry_to(made[1], ROOT, Some(0)).unwrap();
    assert!(desk.undo(LATER).unwrap());
    assert_eq!(desk.entry_with_id(made[1]).unwrap().trashed_at(), Some(LATER));
}

#[test]
fn orders_come_back_those_of_system_entries_too() {
    let (mut desk, _, made) = desk_and_phone(items::<4>);
    let before = inner(&desk, ROOT);
    desk.transact(|desk| {
        desk.move_entry_to(TRASH, ROOT, Some(5))?;
        desk.move_entry_to(made[3], ROOT, Some(0))?;
        desk.move_entry_to(made[0], ROOT, Some(1))
    })
    .unwrap();
    let after = inner(&desk, ROOT);
    for _ in 0..2 {
        assert!(desk.undo(NOW).unwrap());
        assert_eq!(inner(&desk, ROOT), before);
        assert!(desk.redo(NOW).unwrap());
        assert_eq!(inner(&desk, ROOT), after);
    }
}

#[test]
fn a_move_of_what_somebody_has_moved_since_is_not_undone() {
    let (mut desk, mut phone, made) = desk_and_phone(items::<4>);
    desk.transact(|desk| {
        desk.move_entry_to(made[0], made[2], None)?;
        desk.move_entry_to(made[1], made[2], None)
    })
    .unwrap();
    send(&desk, &mut phone);
    phone.move_entry_to(made[0], made[3], None).unwrap();
    send(&phone, &mut desk);
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(outer(&desk, made[0]), Some(made[3]), "theirs stays");
    assert_eq!(outer(&desk, made[1]), Some(ROOT), "the rest is undone");
    assert!(desk.redo(NOW).unwrap());
    assert_eq!(outer(&desk, made[0]), Some(made[3]));
    assert_eq!(outer(&desk, made[1]), Some(made[2]));
    exchange(&mut desk, &mut phone);
}

#[test]
fn a_field_that_somebody_has_set_since_stays() {
    let (mut desk, mut phone, made) = desk_and_phone(items::<1>);
    desk.set_label(made[0], "first").unwrap();
    desk.transact(|desk| {
        desk.set_label(made[0], "second")?;
        desk.set_info(made[0], "key", &json!(1))
    })
    .unwrap();
    send(&desk, &mut phone);
    phone.set_label(made[0], "theirs").unwrap();
    send(&phone, &mut desk);
    assert!(desk.undo(NOW).unwrap());
    let entry = desk.entry_with_id(made[0]).unwrap();
    assert_eq!((&*entry.label(), entry.info("key")), ("theirs", None));
    // Of the older step nothing is left: theirs is not what it set.
    assert!(!desk.undo(NOW).unwrap());
    assert_eq!(desk.entry_with_id(made[0]).unwrap().label(), "theirs");
}

#[test]
fn what_others_set_and_one_set_over_comes_back() {
    let (mut desk, mut phone, made) = desk_and_phone(items::<1>);
    desk.set_label(made[0], "mine").unwrap();
    send(&desk, &mut phone);
    phone.set_label(made[0], "theirs").unwrap();
    send(&phone, &mut desk);
    desk.set_label(made[0], "mine again").unwrap();
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(desk.entry_with_id(made[0]).unwrap().label(), "theirs");
    assert!(!desk.undo(NOW).unwrap(), "theirs is theirs");
    assert!(desk.redo(NOW).unwrap());
    assert_eq!(desk.entry_with_id(made[0]).unwrap().label(), "mine again");
}

#[test]
fn typed_characters_go_as_far_as_they_are_still_there() {
    let (mut desk, mut phone, made) = desk_and_phone(|desk| {
        let made = items::<1>(desk);
        desk.write_value(made[0], "[]").unwrap();
        made
    });
    desk.change_value(made[0], 1..1, "hello").unwrap();
    send(&desk, &mut phone);
    phone.change_value(made[0], 3..5, "").unwrap();
    phone.change_value(made[0], 3..3, "YY").unwrap();
    send(&phone, &mut desk);
    assert_eq!(text(&desk, made[0]), "[heYYo]");
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(text(&desk, made[0]), "[YY]");
    assert!(desk.redo(NOW).unwrap());
    assert_eq!(text(&desk, made[0]), "[heYYo]", "what they deleted stays deleted");
    exchange(&mut desk, &mut phone);
}

#[test]
fn deleted_characters_come_back_where_they_were() {
    let (mut desk, mut phone, made) = desk_and_phone(|desk| {
        let made = items::<1>(desk);
        desk.write_value(made[0], "one \u{1f600}two three").unwrap();
        made
    });
    desk.change_value(made[0], 4..10, "").unwrap();
    send(&desk, &mut phone);
    phone.change_value(made[0], 0..0, "zero ").unwrap();
    phone.change_value(made[0], 8..9, "!").unwrap();
    send(&phone, &mut desk);
    assert_eq!(text(&desk, made[0]), "zero one!three");
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(text(&desk, made[0]), "zero one!\u{1f600}two three");
    exchange(&mut desk, &mut phone);
}

#[test]
fn edits_of_a_text_that_was_replaced_come_back_with_it() {
    let (mut desk, mut phone, made) = desk_and_phone(|desk| {
        let made = items::<1>(desk);
        desk.write_value(made[0], "abcd").unwrap();
        made
    });
    let item = made[0];
    desk.change_value(item, 2..2, "XY").unwrap();
    desk.change_value(item, 1..3, "").unwrap();
    desk.write_value(item, "other").unwrap();
    desk.change_value(item, 5..5, "!").unwrap();
    let states = ["abcd", "abXYcd", "aYcd", "other", "other!"];
    for _ in 0..2 {
        for state in states.iter().rev().skip(1) {
            assert!(desk.undo(NOW).unwrap());
            assert_eq!(text(&desk, item), *state);
        }
        for state in &states[1..] {
            assert!(desk.redo(NOW).unwrap());
            assert_eq!(text(&desk, item), *state);
        }
    }
    exchange(&mut desk, &mut phone);
}

#[test]
fn what_was_purged_meanwhile_is_passed_over() {
    let (mut desk, mut phone, made) = desk_and_phone(items::<3>);
    desk.transact(|desk| {
        desk.set_label(made[0], "a")?;
        desk.move_entry_to(made[1], made[2], None)?;
        desk.set_label(made[1], "b")
    })
    .unwrap();
    send(&desk, &mut phone);
    desk.apply_remote_patch(&purge_elsewhere(&desk, made[0])).unwrap();
    assert!(desk.undo(NOW).unwrap());
    assert!(desk.entry_with_id(made[0]).is_none());
    assert_eq!(outer(&desk, made[1]), Some(ROOT));
    assert_eq!(desk.entry_with_id(made[1]).unwrap().label(), "");
    assert!(desk.redo(NOW).unwrap());
    desk.apply_remote_patch(&purge_elsewhere(&desk, made[2])).unwrap();
    desk.assert_invariants();
    assert_eq!(outer(&desk, made[1]), None, "purged with what it was in");
    assert!(!desk.undo(NOW).unwrap(), "nothing is left of it");
    exchange(&mut desk, &mut phone);
}

#[test]
fn an_entry_whose_old_container_is_gone_stays_where_it_is() {
    let (mut desk, mut phone, made) = desk_and_phone(|desk| {
        let mut made = items::<2>(desk);
        made.push(desk.new_item_at(None, made[0], None).unwrap());
        made
    });
    let item = made[2];
    desk.move_entry_to(item, made[1], None).unwrap();
    desk.delete_entry(item, NOW).unwrap();
    desk.apply_remote_patch(&purge_elsewhere(&desk, made[0])).unwrap();
    assert!(desk.undo(NOW).unwrap(), "of the deletion");
    assert_eq!(outer(&desk, item), Some(made[1]));
    assert!(!desk.undo(NOW).unwrap());
    assert_eq!(outer(&desk, item), Some(made[1]));
    exchange(&mut desk, &mut phone);
}

#[test]
fn an_undo_makes_no_cycle() {
    let (mut desk, mut phone, made) = desk_and_phone(|desk| {
        let mut made = items::<1>(desk);
        made.push(desk.new_item_at(None, made[0], None).unwrap());
        made
    });
    let (outside, inside) = (made[0], made[1]);
    desk.move_entry_to(inside, ROOT, None).unwrap();
    send(&desk, &mut phone);
    phone.move_entry_to(outside, inside, None).unwrap();
    send(&phone, &mut desk);
    assert!(!desk.undo(NOW).unwrap());
    assert_eq!((outer(&desk, inside), outer(&desk, outside)), (Some(ROOT), Some(inside)));
    exchange(&mut desk, &mut phone);
}

#[test]
fn an_entry_in_lost_and_found_goes_back_to_where_it_showed() {
    let (mut desk, phone, made) = desk_and_phone(|desk| {
        let mut made = items::<1>(desk);
        made.push(desk.new_item_at(None, made[0], None).unwrap());
        made.push(desk.new_item_at(None, made[0], None).unwrap());
        made
    });
    let mut other = Replica::new(ReplicaId::new(9).unwrap());
    other.integrate(Patch::decode(&phone.export_patch(other.version())).unwrap()).unwrap();
    other.purge(made[0]).unwrap();
    // What somebody touches after the purge lives on, without a place.
    let mut late = desk.new_item_at(None, made[0], None).unwrap();
    desk.apply_remote_patch(&other.export(desk.version())).unwrap();
    assert_eq!(inner(&desk, EntryId::LOST_AND_FOUND), [late]);
    desk.move_entry_to(late, ROOT, Some(0)).unwrap();
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(inner(&desk, EntryId::LOST_AND_FOUND), [late]);
    assert!(desk.redo(NOW).unwrap());
    assert_eq!(inner(&desk, ROOT)[0], late);
    late = desk.new_item_at(None, late, None).unwrap();
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(outer(&desk, late), Some(TRASH));
}

#[test]
fn a_new_edit_leaves_nothing_to_redo_and_a_patch_does() {
    let (mut desk, mut phone, made) = desk_and_phone(items::<1>);
    desk.set_label(made[0], "a").unwrap();
    assert!(desk.undo(NOW).unwrap());
    phone.set_info(made[0], "key", &json!(1)).unwrap();
    send(&phone, &mut desk);
    assert!(desk.can_redo() && !desk.can_undo(), "a patch is no step");
    let failed = desk.transact(|desk| {
        desk.set_label(made[0], "b")?;
        desk.set_mime_type(made[0], "")
    });
    assert!(failed.is_err());
    assert!(desk.can_redo() && !desk.can_undo(), "nothing has happened");
    desk.set_label(made[0], "b").unwrap();
    assert!(!desk.can_redo() && desk.can_undo());
    desk.clear_undo();
    assert!(!desk.can_undo());
    assert_eq!(desk.undo(NOW), Ok(false));
}

#[test]
fn the_number_of_steps_is_bounded() {
    for (options, steps) in [
        (UndoOptions::default(), UNDO_STEPS),
        (UndoOptions::default().with_steps(3), 3),
        (UndoOptions::default().with_steps(0), 0),
    ] {
        let mut desk = store(1);
        desk.enable_undo(options);
        for number in 0..2 * UNDO_STEPS {
            desk.set_label(ROOT, &number.to_string()).unwrap();
        }
        let undone = std::iter::repeat_with(|| desk.undo(NOW).unwrap()).take_while(|done| *done);
        assert_eq!(undone.count(), steps);
        let redone = std::iter::repeat_with(|| desk.redo(NOW).unwrap()).take_while(|done| *done);
        assert_eq!(redone.count(), steps);
        assert_eq!(desk.root_item().label(), (2 * UNDO_STEPS - 1).to_string());
    }
}

/// Of what was replaced, too much is forgotten from its oldest end, but never the newest step.
#[test]
fn the_bytes_of_steps_are_bounded() {
    const LEN: usize = 10_000;
    let value = |number: usize| number.to_string().repeat(LEN);
    let mut desk = store(1);
    let item = desk.new_item_at(None, ROOT, None).unwrap();
    let write = |desk: &mut DataStore, numbers: std::ops::Range<usize>| {
        numbers.for_each(|number| desk.write_value(item, value(number)).unwrap());
    };
    let options = UndoOptions::default().with_bytes(5 * LEN + LEN / 2);
    write(&mut desk, 0..1);
    desk.enable_undo(options);
    write(&mut desk, 1..9);
    let mut undone = 0;
    while desk.undo(NOW).unwrap() {
        undone += 1;
    }
    assert_eq!((undone, text(&desk, item)), (5, value(3)));
    let mut redone = 0;
    while desk.redo(NOW).unwrap() {
        redone += 1;
    }
    assert_eq!((redone, text(&desk, item)), (5, value(8)));
    // What was undone and can no longer be redone makes room.
    desk.undo(NOW).unwrap();
    write(&mut desk, 9..10);
    assert!(!desk.can_redo());
    assert!((0..5).all(|_| desk.undo(NOW).unwrap()));
    assert!(!desk.can_undo());
    desk.enable_undo(options.with_bytes(1));
    write(&mut desk, 1..4);
    assert!(desk.undo(NOW).unwrap());
    assert!(!desk.can_undo());
}

#[test]
fn what_follows_soon_is_undone_together() {
    let mut desk = store(1);
    desk.write_value(ROOT, "").unwrap();
    desk.enable_undo(UndoOptions::default().with_group_millis(100));
    let type_at = |desk: &mut DataStore, millis, key: &str| {
        let at = text(desk, ROOT).len();
        let time = Timestamp::from_millis(millis);
        desk.transact_at(time, |desk| desk.change_value(ROOT, at..at, key)).unwrap();
    };
    for (millis, key) in [(0, "a"), (100, "b"), (200, "c"), (301, "d"), (300, "e"), (350, "f")] {
        type_at(&mut desk, millis, key);
    }
    // Without a time it is a step by itself.
    desk.change_value(ROOT, 0..0, "-").unwrap();
    desk.change_value(ROOT, 0..0, "-").unwrap();
    type_at(&mut desk, 355, "g");
    let mut states = Vec::new();
    while desk.undo(NOW).unwrap() {
        states.push(text(&desk, ROOT));
    }
    assert_eq!(states, ["--abcdef", "-abcdef", "abcdef", "abcd", "abc", ""]);
    // Undoing ends a step.
    type_at(&mut desk, 360, "h");
    assert!(desk.undo(NOW).unwrap());
    type_at(&mut desk, 361, "i");
    type_at(&mut desk, 362, "j");
    let failed = desk
        .transact_at(Timestamp::from_millis(363), |desk| desk.set_label(ROOT, &"x".repeat(2_000)));
    assert!(failed.is_err());
    desk.change_value(ROOT, 2..2, "k").unwrap();
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(text(&desk, ROOT), "ij", "the time of what failed is gone");
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(text(&desk, ROOT), "");
}

#[test]
fn groups_by_hand_are_undone_together() {
    let (mut desk, _, made) = desk_and_phone(items::<2>);
    desk.set_label(made[0], "before").unwrap();
    desk.begin_undo_group();
    desk.set_label(made[0], "a").unwrap();
    desk.begin_undo_group();
    desk.move_entry_to(made[1], made[0], None).unwrap();
    desk.end_undo_group();
    let new = desk.new_item_at(None, made[0], None).unwrap();
    desk.write_value(new, "text").unwrap();
    desk.change_value(new, 0..4, "").unwrap();
    desk.end_undo_group();
    desk.end_undo_group();
    desk.set_label(made[0], "after").unwrap();
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(desk.entry_with_id(made[0]).unwrap().label(), "a");
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(desk.entry_with_id(made[0]).unwrap().label(), "before");
    assert_eq!((outer(&desk, made[1]), outer(&desk, new)), (Some(ROOT), Some(TRASH)));
    assert_eq!(text(&desk, new), "", "what was created keeps what it holds");
    assert!(desk.redo(NOW).unwrap());
    assert_eq!((outer(&desk, made[1]), outer(&desk, new)), (Some(made[0]), Some(made[0])));
    assert_eq!(desk.entry_with_id(made[0]).unwrap().label(), "a");
}

#[test]
fn inside_a_transaction_nothing_is_undone() {
    let mut desk = store(1);
    desk.enable_undo(UndoOptions::default());
    desk.set_label(ROOT, "a").unwrap();
    let refused = desk.transact(|desk| {
        desk.set_label(ROOT, "b")?;
        desk.undo(NOW)
    });
    assert_eq!(refused, Err(StoreError::TransactionOpen));
    assert_eq!(refused.unwrap_err().code(), "transaction-open");
    assert_eq!(desk.root_item().label(), "a");
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(desk.root_item().label(), "");
}

#[test]
fn a_purge_is_no_step_and_leaves_nothing_to_redo() {
    let (mut desk, _, made) = desk_and_phone(items::<2>);
    desk.delete_entry(made[0], NOW).unwrap();
    desk.set_label(made[1], "a").unwrap();
    assert!(desk.undo(NOW).unwrap() && desk.can_redo());
    desk.purge_entry(made[0]).unwrap();
    assert!(!desk.can_redo());
    assert!(!desk.undo(NOW).unwrap(), "the deletion is for good now");
    assert!(desk.entry_with_id(made[0]).is_none());
}

#[test]
fn contents_stay_at_hand_as_long_as_undoing_may_bring_them_back() {
    let (mut desk, _, made) = desk_and_phone(|desk| {
        let made = items::<1>(desk);
        desk.write_value(made[0], vec![7; 50_000]).unwrap();
        made
    });
    let hash = desk.entry(made[0]).unwrap().blob_ref().unwrap().hash;
    desk.write_value(made[0], "small").unwrap();
    assert_eq!(desk.blob_reference_count(&hash), 0);
    assert_eq!(desk.release_unreferenced_blobs(), []);
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(desk.blob_reference_count(&hash), 1);
    assert_eq!(desk.entry(made[0]).unwrap().value(), ItemValue::Bytes(vec![7; 50_000].into()));
    assert!(desk.redo(NOW).unwrap());
    desk.clear_undo();
    assert_eq!(desk.release_unreferenced_blobs(), [hash]);
}

#[test]
fn imports_and_fresh_keys_are_steps_like_others() {
    let (mut desk, _, made) = desk_and_phone(items::<3>);
    let before = inner(&desk, ROOT);
    desk.rebalance_inner_entries_of(ROOT).unwrap();
    desk.move_entry_to(made[2], ROOT, Some(0)).unwrap();
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(inner(&desk, ROOT), before);
    assert!(desk.undo(NOW).unwrap(), "as good as nothing");
    assert_eq!(inner(&desk, ROOT), before);
    let json = desk.entry(made[0]).unwrap().as_json();
    let copy = desk.new_entry_from_json_at(&json, ROOT, None).unwrap();
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(outer(&desk, copy), Some(TRASH));
}

#[test]
fn what_does_not_fit_a_change_is_not_undone_and_stays_to_be() {
    let options = StoreOptions::default().with_literal_size_limit(20 << 20);
    let mut desk = store(1).with_options(options);
    let made = items::<2>(&mut desk);
    let large = "x".repeat(9 << 20);
    made.iter().for_each(|item| desk.write_value(*item, large.as_str()).unwrap());
    desk.enable_undo(UndoOptions::default());
    desk.transact(|desk| made.iter().try_for_each(|item| desk.write_value(*item, ""))).unwrap();
    let listener = Listener::of(&mut desk);
    let (digest, version) = (desk.digest(), desk.version().clone());
    for _ in 0..2 {
        assert_eq!(desk.undo(NOW).unwrap_err().code(), "transaction-too-large");
        assert_eq!((desk.digest(), desk.version()), (digest, &version));
    }
    assert!(desk.can_undo());
    assert_eq!(listener.take(), []);
    desk.set_label(ROOT, "a").unwrap();
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(desk.root_item().label(), "");
    listener.subscription.unsubscribe();
}

/// A patch in which somebody else purges an entry.
fn purge_elsewhere(store: &DataStore, entry: EntryId) -> Vec<u8> {
    let mut other = Replica::new(ReplicaId::new(9).unwrap());
    other.integrate(Patch::decode(&store.export_patch(other.version())).unwrap()).unwrap();
    other.purge(entry).unwrap();
    other.export(store.version())
}

/// Goal: a transaction that turned two containers inside out can be undone and done again. Method: what went
/// into what it had been in; neither can go back before the other.
#[test]
fn what_was_turned_inside_out_comes_back() {
    let mut desk = DataStore::new(ReplicaId::new(1).unwrap());
    desk.enable_undo(UndoOptions::default());
    let [outer, inner, last] =
        [(); 3].map(|()| desk.new_item_at(None, EntryId::ROOT, None).unwrap());
    desk.move_entry_to(inner, outer, None).unwrap();
    desk.move_entry_to(last, inner, None).unwrap();
    let before = desk.as_json();
    let turn = |store: &mut DataStore| {
        store.move_entry_to(last, EntryId::ROOT, None)?;
        store.move_entry_to(inner, last, None)?;
        store.move_entry_to(outer, inner, None)
    };
    desk.transact(turn).unwrap();
    let after = desk.as_json();
    for _ in 0..2 {
        assert!(desk.undo(NOW).unwrap());
        assert_eq!(desk.as_json(), before);
        assert!(desk.redo(NOW).unwrap());
        assert_eq!(desk.as_json(), after);
    }
}

/// Only purging ends a life, and undoing never purges.
#[test]
fn what_stood_for_the_target_of_a_link_stays_an_entry_once_it_was_edited() {
    type Edit = fn(&mut DataStore, EntryId);
    let label: Edit = |store, target| store.set_label(target, "x").unwrap();
    let inside: Edit = |store, target| {
        store.new_item_at(None, target, None).unwrap();
    };
    for edit in [label, inside] {
        let mut desk = store(1);
        desk.enable_undo(UndoOptions::default());
        let target = EntryId::from_bytes([7; 16]);
        let json = json!({"Kind": "link", "TargetId": target});
        let link = desk.new_entry_from_json_at(&json, ROOT, None).unwrap();
        assert!(desk.entry(target).unwrap().is_placeholder());
        edit(&mut desk, target);
        assert!(desk.undo(NOW).unwrap());
        let left = desk.entry(target).unwrap();
        assert!(!left.is_placeholder());
        assert_eq!((&*left.label(), left.inner_entry_count()), ("", 0));
        assert_eq!(left.outer_item_id(), Some(EntryId::LOST_AND_FOUND));
        desk.delete_entry(link, NOW).unwrap();
        assert_eq!(inner(&desk, EntryId::LOST_AND_FOUND), [target], "it needs no link any more");
    }
}
