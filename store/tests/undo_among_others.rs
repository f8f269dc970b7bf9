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

/// The phone gets what the desk has, does something, and the desk hears of it.
fn meanwhile(desk: &mut DataStore, phone: &mut DataStore, edit: impl FnOnce(&mut DataStore)) {
    send(desk, phone);
    edit(phone);
    send(phone, desk);
}

#[test]
fn a_value_that_was_set_goes_but_for_what_others_have_typed_into_it() {
    let (mut desk, mut phone, note) = desk_and_phone();
    desk.write_value(note, "milk").unwrap();
    meanwhile(&mut desk, &mut phone, |phone| phone.change_value(note, 4..4, " and bread").unwrap());
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
    meanwhile(&mut desk, &mut phone, |phone| phone.change_value(note, 9..9, "!").unwrap());
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
    meanwhile(&mut desk, &mut phone, |phone| {
        phone.change_value(note, 5..5, "!").unwrap();
        phone.change_value(note, 0..0, "a ").unwrap();
    });
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
        meanwhile(&mut desk, &mut phone, |phone| phone.change_value(note, 0..0, "+").unwrap());
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

/// Goal: a text that came back inside another one is found there, however many things stand for others.
/// Method: three values, the first with so much of others that what nobody speaks of is forgotten.
#[test]
fn a_value_inside_of_two_others_is_found_when_much_has_come_back() {
    let (mut desk, mut phone, note) = desk_and_phone();
    desk.write_value(note, "one").unwrap();
    meanwhile(&mut desk, &mut phone, |phone| {
        (0..70).for_each(|_| phone.change_value(note, 0..0, "+").unwrap());
    });
    desk.write_value(note, "two").unwrap();
    desk.write_value(note, "three").unwrap();
    meanwhile(&mut desk, &mut phone, |phone| phone.change_value(note, 5..5, "!").unwrap());
    let theirs = "+".repeat(70);
    let states = [format!("{theirs}!"), format!("{theirs}one!"), "two!".into(), "three!".into()];
    for _ in 0..2 {
        for state in states[..3].iter().rev() {
            assert!(desk.undo(NOW).unwrap());
            assert_eq!(text(&desk, note), *state);
        }
        for state in &states[1..] {
            assert!(desk.redo(NOW).unwrap());
            assert_eq!(text(&desk, note), *state);
        }
    }
    exchange(&mut desk, &mut phone);
}

#[test]
fn a_label_keeps_what_others_have_typed_into_it_too() {
    let (mut desk, mut phone, note) = desk_and_phone();
    desk.set_label(note, "draft").unwrap();
    meanwhile(&mut desk, &mut phone, |phone| phone.splice_label(note, 5..5, " (read)").unwrap());
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(desk.entry(note).unwrap().label(), " (read)");
    assert!(desk.redo(NOW).unwrap());
    assert_eq!(desk.entry(note).unwrap().label(), "draft (read)");
}

/// Goal: one can always go back, and what comes back beside what others have written is what merging would make:
/// it may be past a limit, be made shorter, and go out and in.
#[test]
fn undoing_brings_back_what_was_deleted_even_past_a_limit() {
    let (mut desk, mut phone, note) = desk_and_phone();
    desk.set_label(note, &"d".repeat(1_000)).unwrap();
    desk.splice_label(note, 0..500, "").unwrap();
    meanwhile(&mut desk, &mut phone, |phone| {
        phone.splice_label(note, 0..0, &"p".repeat(524)).unwrap();
    });
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(desk.entry(note).unwrap().label().len(), 1_524);
    assert_eq!(code(desk.splice_label(note, 0..1, "two")), "invalid-argument");
    exchange(&mut desk, &mut phone);
    let json = desk.as_json();
    assert_eq!(DataStore::from_json(id(9), &json).unwrap().as_json(), json);
    assert!(desk.redo(NOW).unwrap());
    assert_eq!(desk.entry(note).unwrap().label().len(), 1_024);
    assert!(desk.undo(NOW).unwrap());
    desk.splice_label(note, 0..600, "").unwrap();
    assert_eq!(desk.entry(note).unwrap().label().len(), 924);
}

#[test]
fn bytes_do_not_come_back_while_others_have_typed_into_the_text_that_replaced_them() {
    let (mut desk, mut phone, note) = desk_and_phone();
    desk.write_value(note, &[1, 2]).unwrap();
    desk.write_value(note, "text").unwrap();
    meanwhile(&mut desk, &mut phone, |phone| phone.change_value(note, 4..4, "!").unwrap());
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
            meanwhile(desk, &mut phone, |phone| reorder(phone, one, outer));
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

/// Two stores that note undo steps, with two folders and an item beside them in both. Of edits made at the
/// same time those of the second one win.
fn two_desks() -> ([DataStore; 2], [EntryId; 3]) {
    let (mut one, mut two) = twins(|one| {
        for _ in 0..3 {
            item(one, ROOT);
        }
    });
    one.enable_undo(UndoOptions::default());
    two.enable_undo(UndoOptions::default());
    let made = inner(&one, ROOT)[2..].try_into().unwrap();
    ([one, two], made)
}

/// Two do the same at the same time: then it is not only one's own to take back, whoever of them is the
/// one whose edit won.
#[test]
fn what_others_have_moved_to_the_same_place_stays_there() {
    type Put = fn(&mut DataStore, [EntryId; 3]);
    let into_folder: Put = |store, [moved, folder, _]| {
        store.move_entry_to(moved, folder, None).unwrap();
    };
    let on_a_detour: Put = |store, [moved, folder, other]| {
        store
            .transact(|store| {
                store.move_entry_to(moved, other, None)?;
                store.move_entry_to(moved, folder, None)
            })
            .unwrap();
    };
    let to_trash: Put = |store, [moved, ..]| store.delete_entry(moved, NOW).unwrap();
    for put in [into_folder, on_a_detour, to_trash] {
        for who in [0, 1] {
            let (mut desks, made) = two_desks();
            desks.iter_mut().for_each(|desk| put(desk, made));
            let [one, two] = &mut desks;
            exchange(one, two);
            let place = outer(&desks[who], made[0]);
            assert_ne!(place, Some(ROOT));
            assert!(!desks[who].undo(NOW).unwrap(), "desk {who}");
            assert_eq!(outer(&desks[who], made[0]), place);
        }
    }
}

/// Goal: undoing leaves what one would see had oneself done nothing, so nothing that somebody else did at the
/// same time is lost, whoever of them is the one whose edit won. Method: the second one wins and undoes.
#[test]
fn what_others_have_put_elsewhere_at_the_same_time_goes_there() {
    let ([mut one, mut two], [moved, folder, other]) = two_desks();
    let elsewhere = |one: &mut DataStore, two: &mut DataStore| {
        one.move_entry_to(moved, folder, None).unwrap();
        two.move_entry_to(moved, other, None).unwrap();
        exchange(one, two);
        assert_eq!(outer(one, moved), Some(other), "the second one wins");
    };
    elsewhere(&mut one, &mut two);
    assert!(!one.undo(NOW).unwrap(), "somebody has moved it since");
    for _ in 0..3 {
        assert!(two.undo(NOW).unwrap());
        exchange(&mut one, &mut two);
        assert_eq!(outer(&one, moved), Some(folder));
        assert!(two.redo(NOW).unwrap());
        exchange(&mut one, &mut two);
        assert_eq!(outer(&one, moved), Some(other));
    }
    // What they did at the same time arrives after all that.
    one.move_entry_to(moved, ROOT, None).unwrap();
    exchange(&mut one, &mut two);
    two.clear_undo();
    one.move_entry_to(moved, folder, None).unwrap();
    two.move_entry_to(moved, other, None).unwrap();
    assert!(two.undo(NOW).unwrap() && two.redo(NOW).unwrap());
    exchange(&mut one, &mut two);
    assert_eq!(outer(&two, moved), Some(other));
    assert!(two.undo(NOW).unwrap());
    assert_eq!(outer(&two, moved), Some(folder));
    // A deletion, with its time.
    one.move_entry_to(moved, ROOT, None).unwrap();
    exchange(&mut one, &mut two);
    one.delete_entry(moved, after(1)).unwrap();
    two.move_entry_to(moved, other, None).unwrap();
    exchange(&mut one, &mut two);
    assert!(two.undo(NOW).unwrap());
    assert_eq!(two.entry(moved).unwrap().trashed_at(), Some(after(1)));
}

/// An earlier step of one's own lies between: then it is that one's place which comes back first.
#[test]
fn what_others_have_put_elsewhere_goes_there_with_the_step_that_was_in_its_way() {
    let ([mut one, mut two], [moved, folder, other]) = two_desks();
    one.move_entry_to(moved, folder, None).unwrap();
    two.move_entry_to(moved, other, None).unwrap();
    two.delete_entry(moved, NOW).unwrap();
    exchange(&mut one, &mut two);
    for place in [other, folder] {
        assert!(two.undo(NOW).unwrap());
        assert_eq!(outer(&two, moved), Some(place));
    }
    assert!(!two.undo(NOW).unwrap());
    exchange(&mut one, &mut two);
}

#[test]
fn what_others_have_reordered_at_the_same_time_goes_to_their_place() {
    let ([mut one, mut two], [moved, ..]) = two_desks();
    one.move_entry_to(moved, ROOT, Some(0)).unwrap();
    let theirs = inner(&one, ROOT);
    two.move_entry_to(moved, ROOT, None).unwrap();
    exchange(&mut one, &mut two);
    assert_ne!(inner(&two, ROOT), theirs);
    assert!(two.undo(NOW).unwrap());
    assert_eq!(inner(&two, ROOT), theirs);
    exchange(&mut one, &mut two);
}

/// Two import the same: then undoing one's own import is no reason to delete what the other one has.
#[test]
fn what_others_have_created_at_the_same_time_goes_to_their_place() {
    let made = EntryId::from_bytes([7; 16]);
    let json = serde_json::json!({"Kind": "item", "Id": made});
    for same in [true, false] {
        let ([mut one, mut two], [folder, other, _]) = two_desks();
        one.import_entry_from_json_at(&json, folder, None).unwrap();
        let into = if same { folder } else { other };
        two.import_entry_from_json_at(&json, into, None).unwrap();
        exchange(&mut one, &mut two);
        assert_eq!(outer(&two, made), Some(into));
        assert_eq!(two.undo(NOW).unwrap(), !same);
        assert_eq!(outer(&two, made), Some(folder));
        exchange(&mut one, &mut two);
        assert!(!one.undo(NOW).unwrap());
    }
}

#[test]
fn what_others_delete_again_or_reorder_themselves_stays() {
    let (mut desk, mut phone, note) = desk_and_phone();
    let made: Vec<EntryId> = (0..3).map(|_| item(&mut desk, ROOT)).collect();
    desk.clear_undo();
    desk.delete_entry(note, NOW).unwrap();
    meanwhile(&mut desk, &mut phone, |phone| phone.delete_entry(note, after(1)).unwrap());
    assert!(!desk.undo(NOW).unwrap());
    assert_eq!(desk.entry(note).unwrap().trashed_at(), Some(after(1)));

    let [folder, other, moved] = made[..] else { panic!("three") };
    desk.move_entry_to(moved, folder, None).unwrap();
    desk.move_entry_to(moved, other, None).unwrap();
    meanwhile(&mut desk, &mut phone, |phone| phone.move_entry_to(moved, folder, None).unwrap());
    assert!(!desk.undo(NOW).unwrap(), "they have put it to where it was once");
    assert_eq!(outer(&desk, moved), Some(folder));
    desk.move_entry_to(moved, ROOT, None).unwrap();
    desk.clear_undo();

    desk.move_entry_to(made[2], ROOT, Some(0)).unwrap();
    meanwhile(&mut desk, &mut phone, |phone| phone.move_entry_to(made[2], ROOT, Some(1)).unwrap());
    let order = inner(&desk, ROOT);
    assert!(!desk.undo(NOW).unwrap());
    assert_eq!(inner(&desk, ROOT), order);
    exchange(&mut desk, &mut phone);
}
