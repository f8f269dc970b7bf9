//! Into which step it goes what handlers edit.

#[path = "acceptance/stores.rs"]
#[expect(dead_code, reason = "shared with tests that need more of it")]
mod stores;

use sds_store::{DataStore, EntryId, Property, Timestamp, UndoOptions};
use serde_json::json;
use stores::*;

/// A store that notes undo steps and another one, with as many items in both.
fn desk_and_phone(items: usize) -> (DataStore, DataStore, Vec<EntryId>) {
    let mut made = Vec::new();
    let (mut desk, phone) = twins(|desk| made = (0..items).map(|_| item(desk, ROOT)).collect());
    desk.enable_undo(UndoOptions::default());
    (desk, phone, made)
}

#[test]
fn what_a_handler_adds_is_undone_with_what_it_answers() {
    let (mut desk, mut phone, made) = desk_and_phone(1);
    let item = made[0];
    let counting = desk.on_change(move |store, event| {
        if event.changes.contains(item, &Property::Label) {
            let count = store.entry_with_id(item).unwrap().info("edits");
            let count = count.and_then(|count| count.as_i64()).unwrap_or(0);
            store.set_info(item, "edits", &json!(count + 1)).unwrap();
        }
    });
    let look = |desk: &DataStore| {
        let entry = desk.entry_with_id(item).unwrap();
        (
            entry.label().into_owned(),
            entry.info("edits").and_then(|count| count.as_i64()).unwrap_or(0),
        )
    };
    desk.set_label(item, "a").unwrap();
    desk.set_label(item, "b").unwrap();
    assert_eq!(look(&desk), ("b".into(), 2));
    // Undoing takes its count back and makes it count again.
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(look(&desk), ("a".into(), 2));
    // That count is newer than the first step's, which stays as it is therefore.
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(look(&desk), (String::new(), 3));
    assert!(desk.redo(NOW).unwrap());
    assert_eq!(look(&desk), ("a".into(), 3));
    assert!(desk.redo(NOW).unwrap());
    assert_eq!(look(&desk).0, "b");
    assert!(!desk.redo(NOW).unwrap());
    // What answers a patch is no step.
    desk.clear_undo();
    send(&desk, &mut phone);
    phone.set_label(item, "theirs").unwrap();
    send(&phone, &mut desk);
    assert!(!desk.can_undo());
    drop(counting);
}

/// Two edits are held back, and a handler answers each; then an undo and an edit are.
#[test]
fn an_answer_goes_with_what_it_answers_however_late_it_comes() {
    let (mut desk, _, made) = desk_and_phone(2);
    let entries = made.clone();
    let answering = desk.on_change(move |store, event| {
        for entry in &entries {
            if event.changes.contains(*entry, &Property::Label) {
                let label = store.entry_with_id(*entry).unwrap().label().into_owned();
                store.set_info(*entry, "seen", &label).unwrap();
            }
        }
    });
    let look = |desk: &DataStore| {
        [made[0], made[1]].map(|entry| {
            let entry = desk.entry_with_id(entry).unwrap();
            let seen = entry.info("seen").map(|seen| seen.as_str().unwrap().to_owned());
            (entry.label().into_owned(), seen)
        })
    };
    let nothing = || (String::new(), None);
    let both = |label: &str| (label.to_owned(), Some(label.to_owned()));
    desk.hold_events(|desk| {
        desk.set_label(made[0], "a").unwrap();
        desk.set_label(made[1], "b").unwrap();
    });
    assert_eq!(look(&desk), [both("a"), both("b")]);
    answering.unsubscribe();
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(look(&desk), [both("a"), nothing()], "each with its own");
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(look(&desk), [nothing(), nothing()]);
}

/// Goal: an answer that edits what a later step has edited too does not get in the way of that one's
/// undoing. Method: three edits are held back; what answers the first edits what the second did.
#[test]
fn an_answer_to_what_a_later_step_has_edited_makes_one_step_of_both() {
    let (mut desk, _, made) = desk_and_phone(3);
    let [first, second, third] = made[..] else { panic!("three") };
    let answering = desk.on_change(move |store, event| {
        if event.changes.contains(first, &Property::Label) {
            store.set_label(second, "answered").unwrap();
        } else if event.changes.contains(third, &Property::Label) {
            store.set_info(second, "seen", &json!(3)).unwrap();
        } else if event.changes.contains(second, &Property::Label) {
            store.set_info(second, "seen", &json!(2)).unwrap();
        }
    });
    let label = |desk: &DataStore, entry| desk.entry(entry).unwrap().label().into_owned();
    let look = |desk: &DataStore| {
        let seen = desk.entry(second).unwrap().info("seen").and_then(|seen| seen.as_i64());
        (made.iter().map(|entry| label(desk, *entry)).collect::<Vec<_>>().join(" "), seen)
    };
    desk.hold_events(|desk| {
        desk.set_label(first, "a").unwrap();
        desk.set_label(second, "b").unwrap();
        desk.set_label(third, "c").unwrap();
    });
    drop(answering);
    let whole = look(&desk);
    assert_eq!(whole, ("a answered c".into(), Some(2)), "the answer's answer came last");
    for _ in 0..2 {
        assert!(desk.undo(NOW).unwrap());
        assert_eq!(look(&desk), ("  ".into(), None));
        assert!(!desk.can_undo());
        desk.assert_invariants();
        assert!(desk.redo(NOW).unwrap());
        assert_eq!(look(&desk), whole);
        assert!(!desk.can_redo());
    }
}

#[test]
fn an_answer_joins_steps_to_be_redone_and_no_more_than_it_has_to() {
    let (mut desk, _, made) = desk_and_phone(3);
    let labels = |desk: &DataStore| {
        let label = |entry: &EntryId| desk.entry(*entry).unwrap().label().into_owned();
        made.iter().map(label).collect::<Vec<_>>().join(" ")
    };
    for (entry, label) in made.iter().zip(["a", "b", "c"]) {
        desk.set_label(*entry, label).unwrap();
    }
    let [_, second, third] = made[..] else { panic!("three") };
    let answering = desk.on_change(move |store, event| {
        if event.changes.contains(third, &Property::Label) {
            store.set_label(second, "answered").unwrap();
        }
    });
    desk.hold_events(|desk| {
        (0..3).for_each(|_| assert!(desk.undo(NOW).unwrap()));
    });
    drop(answering);
    assert_eq!((labels(&desk), desk.can_undo()), (" answered ".into(), false));
    assert!(desk.redo(NOW).unwrap());
    assert_eq!(labels(&desk), "a answered ", "the first has nothing to do with it");
    assert!(desk.redo(NOW).unwrap());
    assert_eq!((labels(&desk), desk.can_redo()), ("a b c".into(), false));
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(labels(&desk), "a answered ");
    desk.assert_invariants();
}

#[test]
fn an_answer_to_an_undo_that_cannot_be_redone_is_a_step() {
    let (mut desk, _, made) = desk_and_phone(1);
    desk.set_label(made[0], "a").unwrap();
    let answering = desk.on_change(move |store, event| {
        if event.changes.contains(made[0], &Property::Label) {
            store.set_info(ROOT, "undone", &json!(1)).unwrap();
        }
    });
    desk.hold_events(|desk| {
        assert!(desk.undo(NOW).unwrap());
        desk.set_label(ROOT, "b").unwrap();
    });
    drop(answering);
    assert_eq!(desk.root_item().info("undone"), Some(json!(1)));
    assert!(desk.undo(NOW).unwrap());
    assert_eq!((desk.root_item().info("undone"), &*desk.root_item().label()), (None, "b"));
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(desk.root_item().label(), "");
}

/// An event may still wait that names a step of before.
#[test]
fn steps_of_before_are_not_mistaken_for_new_ones() {
    let (mut desk, _, made) = desk_and_phone(2);
    let answered = made[0];
    let answering = desk.on_change(move |store, event| {
        if event.changes.contains(answered, &Property::Label) {
            store.set_info(ROOT, "seen", &json!(1)).unwrap();
        }
    });
    desk.hold_events(|desk| {
        desk.set_label(made[0], "a").unwrap();
        desk.disable_undo();
        desk.enable_undo(UndoOptions::default());
        desk.set_label(made[1], "b").unwrap();
    });
    drop(answering);
    let look = |desk: &DataStore| {
        let is_seen = desk.root_item().info("seen").is_some();
        (desk.entry(made[1]).unwrap().label().into_owned(), is_seen)
    };
    assert_eq!(look(&desk), ("b".into(), true));
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(look(&desk), ("b".into(), false), "the answer is a step of its own");
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(look(&desk), (String::new(), false));
    assert!(!desk.can_undo());
}

#[test]
fn a_time_that_was_told_in_vain_is_forgotten() {
    let mut desk = store(1);
    desk.write_value(ROOT, "").unwrap();
    desk.enable_undo(UndoOptions::default().with_group_millis(100));
    let now = Timestamp::from_millis(1_000);
    let endless = desk.on_change(move |store, _| {
        let again = |store: &mut DataStore| store.set_label(ROOT, "x");
        if again(store).is_err() {
            let refused = store.transact_at(now, again);
            assert_eq!(refused.unwrap_err().code(), "too-many-events");
        }
    });
    desk.set_label(ROOT, "x").unwrap();
    endless.unsubscribe();
    desk.change_value(ROOT, 0..0, "a").unwrap();
    desk.transact_at(now, |desk| desk.change_value(ROOT, 1..1, "b")).unwrap();
    assert!(desk.undo(NOW).unwrap());
    assert_eq!(text(&desk, ROOT), "a");
}

/// A purge is no step, so that there is none which the answer could go into.
#[test]
fn what_a_handler_answers_to_a_purge_is_a_step_of_its_own() {
    for has_step in [true, false] {
        let (mut desk, mut phone, made) = desk_and_phone(3);
        let gone = made[0];
        phone.delete_entry(gone, NOW).unwrap();
        send(&phone, &mut desk);
        let counting = desk.on_change(move |store, _| {
            if store.entry_with_id(gone).is_none() && store.root_item().info("purged").is_none() {
                store.set_info(ROOT, "purged", &json!(1)).unwrap();
                store.set_info(ROOT, "more", &json!(2)).unwrap();
            }
        });
        if has_step {
            desk.set_label(made[1], "A").unwrap();
        }
        desk.purge_entry(gone).unwrap();
        let look = |desk: &DataStore| {
            let keys = ["purged", "more"].map(|key| desk.root_item().info(key).is_some());
            (keys, desk.entry(made[1]).unwrap().label().into_owned())
        };
        let label = if has_step { "A" } else { "" };
        assert_eq!(look(&desk), ([true; 2], label.to_owned()));
        drop(counting);
        assert!(desk.undo(NOW).unwrap());
        assert_eq!(look(&desk), ([false; 2], label.to_owned()));
        assert_eq!(desk.can_undo(), has_step);
        assert!(desk.redo(NOW).unwrap());
        assert_eq!(look(&desk), ([true; 2], label.to_owned()));
    }
}
