//! What undoing does to what others have put their hands on meanwhile.

#[path = "acceptance/stores.rs"]
#[expect(dead_code, reason = "shared with tests that need more of it")]
mod stores;

use sds_store::{DataStore, EntryId, UndoOptions};
use stores::*;

/// A store that notes undo steps and another one, with an item in both.
fn desk_and_phone() -> (DataStore, DataStore, EntryId) {
    let (mut desk, phone) = twins(|desk| {
        item(desk, ROOT);
    });
    desk.enable_undo(UndoOptions::default());
    let made = inner(&desk, ROOT)[2];
    (desk, phone, made)
}

#[test]
fn a_value_that_was_set_goes_but_for_what_others_have_typed_into_it() {
    let (mut desk, mut phone, note) = desk_and_phone();
    desk.write_value(note, "milk").unwrap();
    send(&desk, &mut phone);
    phone.change_value(note, 4..4, " and bread").unwrap();
    send(&phone, &mut desk);
    // What is on its way meanwhile arrives in the same text.
    phone.change_value(note, 0..0, "oat ").unwrap();
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(text(&desk, note), " and bread");
    exchange(&mut desk, &mut phone);
    assert_eq!(text(&desk, note), "oat  and bread");
    assert!(desk.redo(NOW).unwrap());
    assert_eq!(text(&desk, note), "oat milk and bread");
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(text(&desk, note), "oat  and bread");
    // Theirs are no longer there: then nothing is left of it.
    phone.change_value(note, 0..4, "").unwrap();
    phone.change_value(note, 0..10, "").unwrap();
    exchange(&mut desk, &mut phone);
    assert_eq!(text(&desk, note), "");
    assert!(desk.redo(NOW).unwrap());
    assert_eq!(text(&desk, note), "milk");
    exchange(&mut desk, &mut phone);
}

#[test]
fn a_text_that_was_replaced_comes_back_beside_what_others_have_typed_into_the_new_one() {
    let (mut desk, mut phone, note) = desk_and_phone();
    desk.write_value(note, "old").unwrap();
    desk.change_value(note, 0..1, "O").unwrap();
    desk.transact(|desk| {
        desk.change_value(note, 3..3, "er")?;
        desk.write_value(note, "new")
    })
    .unwrap();
    desk.change_value(note, 0..0, "brand ").unwrap();
    send(&desk, &mut phone);
    phone.change_value(note, 9..9, "!").unwrap();
    send(&phone, &mut desk);
    let states = ["!", "old!", "Old!", "new!", "brand new!"];
    for _ in 0..2 {
        assert_eq!(text(&desk, note), states[4]);
        assert!(desk.undo(NOW).unwrap());
        assert_eq!(text(&desk, note), states[3]);
        assert!(desk.undo(NOW).unwrap());
        assert_eq!(text(&desk, note), states[2]);
        assert!(desk.undo(NOW).unwrap());
        assert_eq!(text(&desk, note), states[1], "older edits find their characters");
        for state in &states[2..] {
            assert!(desk.redo(NOW).unwrap());
            assert_eq!(text(&desk, note), *state);
        }
    }
    exchange(&mut desk, &mut phone);
}

#[test]
fn what_undoing_brought_back_is_redone_around_what_others_have_typed_into_it() {
    let (mut desk, mut phone, note) = desk_and_phone();
    phone.write_value(note, "theirs").unwrap();
    send(&phone, &mut desk);
    desk.write_value(note, "mine").unwrap();
    assert!(desk.undo(NOW).unwrap());
    exchange(&mut desk, &mut phone);
    phone.change_value(note, 6..6, " too").unwrap();
    send(&phone, &mut desk);
    assert_eq!(text(&desk, note), "theirs too");
    assert!(desk.redo(NOW).unwrap());
    assert_eq!(text(&desk, note), "mine too");
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(text(&desk, note), "theirs too");
    exchange(&mut desk, &mut phone);
}

/// Undoing writes again what others have typed, and it stays theirs, whatever else is undone meanwhile.
#[test]
fn what_undoing_brought_back_is_still_of_those_who_typed_it() {
    let (mut desk, mut phone, note) = desk_and_phone();
    desk.write_value(note, "draft").unwrap();
    send(&desk, &mut phone);
    phone.change_value(note, 5..5, "!").unwrap();
    phone.change_value(note, 0..0, "a ").unwrap();
    send(&phone, &mut desk);
    desk.write_value(note, "other").unwrap();
    for _ in 0..300 {
        desk.set_info(note, "key", &1).unwrap();
        assert!(desk.undo(NOW).unwrap());
        assert!(desk.undo(NOW).unwrap());
        assert_eq!(text(&desk, note), "a draft!");
        assert!(desk.redo(NOW).unwrap());
    }
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(text(&desk, note), "a draft!");
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(text(&desk, note), "a !");
    exchange(&mut desk, &mut phone);
}

#[test]
fn older_values_come_back_one_after_the_other_around_what_others_have_typed() {
    let (mut desk, mut phone, note) = desk_and_phone();
    let values = ["one", "two", "three"];
    for value in values {
        desk.write_value(note, value).unwrap();
        send(&desk, &mut phone);
        phone.change_value(note, 0..0, "+").unwrap();
        send(&phone, &mut desk);
    }
    for _ in 0..2 {
        let mut found = vec![text(&desk, note)];
        while desk.undo(NOW).unwrap() {
            found.push(text(&desk, note));
        }
        assert_eq!(found, ["+three", "+two+", "+one++", "+++"]);
        while desk.redo(NOW).unwrap() {}
        assert_eq!(text(&desk, note), "+three");
    }
    exchange(&mut desk, &mut phone);
}

#[test]
fn a_label_keeps_what_others_have_typed_into_it_too() {
    let (mut desk, mut phone, note) = desk_and_phone();
    desk.set_label(note, "draft").unwrap();
    send(&desk, &mut phone);
    phone.splice_label(note, 5..5, " (read)").unwrap();
    send(&phone, &mut desk);
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(desk.entry(note).unwrap().label(), " (read)");
    assert!(desk.redo(NOW).unwrap());
    assert_eq!(desk.entry(note).unwrap().label(), "draft (read)");
}

#[test]
fn bytes_do_not_come_back_while_others_have_typed_into_the_text_that_replaced_them() {
    let (mut desk, mut phone, note) = desk_and_phone();
    desk.write_value(note, &[1, 2]).unwrap();
    desk.write_value(note, "text").unwrap();
    send(&desk, &mut phone);
    phone.change_value(note, 4..4, "!").unwrap();
    send(&phone, &mut desk);
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(text(&desk, note), "!");
    assert!(!desk.undo(NOW).unwrap(), "the bytes are not what is there");
    assert!(desk.redo(NOW).unwrap());
    assert_eq!(text(&desk, note), "text!");
    exchange(&mut desk, &mut phone);
}

/// Fresh order keys, and a place among siblings, are nothing that a creation, a move or a deletion has
/// to yield to.
#[test]
fn what_others_only_reorder_goes_back_to_where_it_was() {
    type Reorder = fn(&mut DataStore, EntryId, EntryId);
    let rebalance: Reorder = |phone, _, outer| phone.rebalance_inner_entries_of(outer).unwrap();
    let to_front: Reorder = |phone, one, outer| phone.move_entry_to(one, outer, Some(0)).unwrap();
    for reorder in [rebalance, to_front] {
        let (mut desk, mut phone, folder) = desk_and_phone();
        let mut others = |desk: &mut DataStore, one, outer| {
            send(desk, &mut phone);
            reorder(&mut phone, one, outer);
            send(&phone, desk);
        };
        let made = item(&mut desk, ROOT);
        others(&mut desk, made, ROOT);
        assert!(desk.undo(NOW).unwrap());
        assert_eq!(outer(&desk, made), Some(TRASH), "a creation");
        others(&mut desk, made, TRASH);
        assert!(desk.redo(NOW).unwrap());
        assert_eq!(outer(&desk, made), Some(ROOT));

        item(&mut desk, folder);
        desk.clear_undo();
        desk.move_entry_to(made, folder, None).unwrap();
        others(&mut desk, made, folder);
        assert!(desk.undo(NOW).unwrap());
        assert_eq!(outer(&desk, made), Some(ROOT), "a move");

        desk.delete_entry(made, NOW).unwrap();
        others(&mut desk, made, TRASH);
        assert!(desk.undo(NOW).unwrap());
        assert_eq!(outer(&desk, made), Some(ROOT), "a deletion");
        exchange(&mut desk, &mut phone);
    }
}

#[test]
fn what_others_delete_again_or_reorder_themselves_stays() {
    let (mut desk, mut phone, note) = desk_and_phone();
    let made: Vec<EntryId> = (0..3).map(|_| item(&mut desk, ROOT)).collect();
    desk.clear_undo();
    desk.delete_entry(note, NOW).unwrap();
    send(&desk, &mut phone);
    phone.delete_entry(note, after(1)).unwrap();
    send(&phone, &mut desk);
    assert!(!desk.undo(NOW).unwrap());
    assert_eq!(desk.entry(note).unwrap().trashed_at(), Some(after(1)));

    let [folder, other, moved] = made[..] else { panic!("three") };
    desk.move_entry_to(moved, folder, None).unwrap();
    desk.move_entry_to(moved, other, None).unwrap();
    send(&desk, &mut phone);
    phone.move_entry_to(moved, folder, None).unwrap();
    send(&phone, &mut desk);
    assert!(!desk.undo(NOW).unwrap(), "they have put it to where it was once");
    assert_eq!(outer(&desk, moved), Some(folder));
    desk.move_entry_to(moved, ROOT, None).unwrap();
    desk.clear_undo();

    desk.move_entry_to(made[2], ROOT, Some(0)).unwrap();
    send(&desk, &mut phone);
    phone.move_entry_to(made[2], ROOT, Some(1)).unwrap();
    send(&phone, &mut desk);
    let order = inner(&desk, ROOT);
    assert!(!desk.undo(NOW).unwrap());
    assert_eq!(inner(&desk, ROOT), order);
    exchange(&mut desk, &mut phone);
}
