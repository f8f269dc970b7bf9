//! Handlers that edit, panic, come and go; texts and places in change sets; what is not recorded.

#[path = "common/listener.rs"]
mod listener;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use listener::{Listener, keys, only};
use sds_store::limits::EVENTS_AT_ONCE_MAX;
use sds_store::{
    ChangeEvent, DataStore, EntryId, Origin, Property, ReplicaId, StoreError, TextEdit, Timestamp,
};
use serde_json::json;

const ROOT: EntryId = EntryId::ROOT;

fn store(number: u64) -> DataStore {
    DataStore::new(ReplicaId::new(number).unwrap())
}

fn send(from: &DataStore, to: &mut DataStore) {
    to.apply_remote_patch(&from.export_patch(to.version())).unwrap();
}

/// A handler that counts its calls.
fn counting(calls: &Arc<AtomicUsize>) -> impl FnMut(&mut DataStore, &ChangeEvent) + use<> {
    let calls = Arc::clone(calls);
    move |_, _| {
        calls.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_store_can_be_shared_by_threads() {
    fn check<T: Send + Sync>() {}
    check::<DataStore>();
    check::<ChangeEvent>();
    check::<sds_store::Subscription>();
}

#[test]
fn what_a_handler_edits_is_an_event_of_its_own_afterwards() {
    let mut desk = store(1);
    let (sender, order) = mpsc::channel();
    let say = sender.clone();
    let counting = desk.on_change(move |store, event| {
        say.send(("counts", keys(event))).unwrap();
        if event.changes.contains(ROOT, &Property::Label) {
            store.set_info(ROOT, "edits", &json!(1)).unwrap();
            assert_eq!(store.root_item().info("edits"), Some(json!(1)), "at once");
        }
    });
    let listening = desk.on_change(move |_, event| {
        sender.send(("listens", keys(event))).unwrap();
    });
    desk.set_label(ROOT, "a").unwrap();
    let (label, info) = ([(ROOT, "Label".to_owned())], [(ROOT, "Info.edits".to_owned())]);
    assert_eq!(
        order.try_iter().collect::<Vec<_>>(),
        [
            ("counts", label.to_vec()),
            ("listens", label.to_vec()),
            ("counts", info.to_vec()),
            ("listens", info.to_vec()),
        ]
    );
    drop((counting, listening));
}

#[test]
fn an_edit_in_a_handler_of_a_patch_is_internal() {
    let (mut desk, mut phone) = (store(1), store(2));
    let answering = phone.on_change(|store, event| {
        if event.origin == Origin::External {
            store.set_label(EntryId::TRASH, "bin").unwrap();
        }
    });
    let listener = Listener::of(&mut phone);
    desk.set_label(ROOT, "a").unwrap();
    send(&desk, &mut phone);
    let origins: Vec<_> = listener.take().iter().map(|event| event.origin).collect();
    assert_eq!(origins, [Origin::External, Origin::Internal]);
    send(&phone, &mut desk);
    assert_eq!(desk.trash_item().label(), "bin");
    answering.unsubscribe();
}

#[test]
fn handlers_that_answer_each_other_without_end_get_an_error() {
    let mut desk = store(1);
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let endless = desk.on_change(move |store, _| {
        // Two edits for each event: with a bound on the depth alone this would not end.
        for label in ["x", "y"] {
            if let Err(error) = store.set_label(ROOT, label) {
                assert_eq!(error, StoreError::TooManyEvents { max: EVENTS_AT_ONCE_MAX });
                assert_eq!(error.code(), "too-many-events");
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let listener = Listener::of(&mut desk);
    desk.set_label(ROOT, "a").unwrap();
    assert_eq!(listener.take().len(), EVENTS_AT_ONCE_MAX, "every change is told");
    assert!(refused.load(Ordering::Relaxed) > 0);
    endless.unsubscribe();
    desk.set_label(ROOT, "b").unwrap();
    assert_eq!(listener.take().len(), 1, "all is well again");
    assert_eq!(desk.root_item().label(), "b");
}

/// Goal: that many events have waited is no reason to refuse what handlers answer. Method: twice as many as one
/// may have answers, each answered once; and handlers that answer without end are stopped all the same.
#[test]
fn events_that_were_held_back_are_all_answered() {
    const HELD: usize = 2 * EVENTS_AT_ONCE_MAX;
    let mut desk = store(1);
    let answering = desk.on_change(|store, event| {
        if event.changes.contains(ROOT, &Property::Label) {
            store.set_info(ROOT, "answers", &1).unwrap();
        }
    });
    let listener = Listener::of(&mut desk);
    desk.hold_events(|desk| {
        for at in 0..HELD {
            desk.set_label(ROOT, &format!("{at}")).unwrap();
        }
    });
    assert_eq!(listener.take().len(), 2 * HELD);
    drop(answering);
    let endless = desk.on_change(|store, _| drop(store.set_label(ROOT, "again")));
    desk.hold_events(|desk| (0..3).for_each(|_| desk.set_label(ROOT, "a").unwrap()));
    assert_eq!(listener.take().len(), 3 * EVENTS_AT_ONCE_MAX, "so many come of each");
    drop(endless);
}

/// What cannot even be dropped without a panic.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "dropped");
    }
}

/// Goal: whatever of a handler panics, the next event is delivered. Method: what it panics with, and what it holds
/// when it is dropped by itself, with all others, or while it is called.
#[test]
fn what_panics_when_it_is_dropped_harms_nobody() {
    let mut desk = store(1);
    let panics = desk.on_change(|_, _| std::panic::panic_any(Bomb));
    let with_bomb = |desk: &mut DataStore| {
        let bomb = Bomb;
        desk.on_change(move |_, _| {
            std::hint::black_box(&bomb);
        })
    };
    let holds = with_bomb(&mut desk);
    let listener = Listener::of(&mut desk);
    for label in ["a", "b"] {
        desk.set_label(ROOT, label).unwrap();
        assert_eq!(listener.take().len(), 1);
    }
    drop((panics, holds));
    desk.set_label(ROOT, "c").unwrap();
    assert_eq!(listener.take().len(), 1);

    with_bomb(&mut desk).detach();
    let bomb = Bomb;
    let disposing = desk.on_change(move |store, _| {
        std::hint::black_box(&bomb);
        store.dispose();
    });
    desk.set_label(ROOT, "d").unwrap();
    assert_eq!(listener.take().len(), 1, "it came before");
    drop(disposing);
    let listener = Listener::of(&mut desk);
    with_bomb(&mut desk).detach();
    desk.set_label(ROOT, "e").unwrap();
    assert_eq!(listener.take().len(), 1);
    desk.dispose();
    desk.set_label(ROOT, "f").unwrap();
    assert_eq!(listener.take().len(), 0);
}

#[test]
fn handlers_may_unsubscribe_and_subscribe_while_they_are_called() {
    let mut desk = store(1);
    let later = Arc::new(AtomicUsize::new(0));
    let second = Listener::of(&mut desk);
    let (sender, subscriptions) = mpsc::channel();
    let count = Arc::clone(&later);
    let first = desk.on_change(move |store, _| {
        sender.send(store.on_change(counting(&count))).unwrap();
    });
    desk.set_label(ROOT, "a").unwrap();
    assert_eq!(later.load(Ordering::Relaxed), 0, "it came after the change");
    first.unsubscribe();
    desk.set_label(ROOT, "b").unwrap();
    assert_eq!(later.load(Ordering::Relaxed), 1);
    subscriptions.try_iter().for_each(drop);
    second.subscription.unsubscribe();
    desk.set_label(ROOT, "c").unwrap();
    assert_eq!(later.load(Ordering::Relaxed), 1, "dropping unsubscribes");
    assert_eq!(second.take().len(), 2);
}

#[test]
fn a_handler_that_another_unsubscribes_is_not_called() {
    let mut desk = store(1);
    let (sender, receiver) = mpsc::channel::<sds_store::Subscription>();
    let receiver = std::sync::Mutex::new(receiver);
    let first = desk.on_change(move |_, _| {
        receiver.lock().unwrap().try_iter().for_each(|other| other.unsubscribe());
    });
    let called = Arc::new(AtomicUsize::new(0));
    sender.send(desk.on_change(counting(&called))).unwrap();
    desk.set_label(ROOT, "a").unwrap();
    assert_eq!(called.load(Ordering::Relaxed), 0);
    // The handler went with its subscription, once the store has looked.
    desk.set_label(ROOT, "b").unwrap();
    assert_eq!(Arc::strong_count(&called), 1);
    drop(first);
}

#[test]
fn a_detached_subscription_lasts_as_long_as_the_store() {
    let mut desk = store(1);
    let called = Arc::new(AtomicUsize::new(0));
    desk.on_change(counting(&called)).detach();
    desk.set_label(ROOT, "a").unwrap();
    assert_eq!(called.load(Ordering::Relaxed), 1);
    desk.dispose();
    desk.dispose();
    desk.set_label(ROOT, "b").unwrap();
    assert_eq!(called.load(Ordering::Relaxed), 1);
    assert_eq!(Arc::strong_count(&called), 1);
}

#[test]
fn who_listens_after_all_were_disposed_of_hears_of_nothing_before() {
    let mut desk = store(1);
    let first = Listener::of(&mut desk);
    desk.set_label(ROOT, "a").unwrap();
    desk.dispose();
    desk.set_label(ROOT, "b").unwrap();
    let second = Listener::of(&mut desk);
    desk.set_info(EntryId::TRASH, "k", &json!(1)).unwrap();
    assert_eq!(keys(&only(second.take())), [(EntryId::TRASH, "Info.k".to_owned())]);
    // Neither what a transaction under way has done so far.
    desk.transact(|desk| {
        desk.set_label(ROOT, "b")?;
        desk.dispose();
        desk.set_label(EntryId::TRASH, "bin")
    })
    .unwrap();
    let third = Listener::of(&mut desk);
    desk.set_info(ROOT, "k", &json!(1)).unwrap();
    assert_eq!(keys(&only(third.take())), [(ROOT, "Info.k".to_owned())]);
    assert_eq!((first.take().len(), second.take().len()), (1, 0));
    // Nor what one that fails has done.
    let failed = desk.transact(|desk| {
        desk.set_label(ROOT, "c")?;
        desk.dispose();
        desk.new_item_at(None, ROOT, None)?;
        desk.set_mime_type(ROOT, "")
    });
    assert!(failed.is_err());
    let fourth = Listener::of(&mut desk);
    desk.set_info(ROOT, "k", &json!(2)).unwrap();
    assert_eq!(keys(&only(fourth.take())), [(ROOT, "Info.k".to_owned())]);
    assert_eq!((third.take().len(), &*desk.root_item().label()), (0, "b"));
    desk.assert_invariants();
}

#[test]
fn a_handler_may_dispose_of_all() {
    let mut desk = store(1);
    let listener = Listener::of(&mut desk);
    let disposing = desk.on_change(|store, _| {
        store.set_label(EntryId::TRASH, "bin").unwrap();
        store.dispose();
    });
    desk.set_label(ROOT, "a").unwrap();
    desk.set_label(ROOT, "b").unwrap();
    assert_eq!(listener.take().len(), 1);
    assert_eq!(desk.trash_item().label(), "bin");
    drop(disposing);
}

#[test]
fn a_failed_transaction_tells_nothing() {
    let mut desk = store(1);
    let listener = Listener::of(&mut desk);
    let (digest, version) = (desk.digest(), desk.version().clone());
    let failed = desk.transact(|desk| {
        let item = desk.new_item_at(None, ROOT, None)?;
        desk.set_label(ROOT, "")?;
        desk.set_label(item, &"x".repeat(5_000))
    });
    assert_eq!(failed.unwrap_err().code(), "invalid-argument");
    assert_eq!((desk.digest(), desk.version()), (digest, &version));
    desk.transact(|_| Ok::<_, StoreError>(())).unwrap();
    assert_eq!(listener.take(), []);
}

#[test]
fn a_part_that_fails_and_is_survived_leaves_no_trace() {
    let mut desk = store(1);
    let item = desk.new_item_at(None, ROOT, None).unwrap();
    desk.write_value(item, "text").unwrap();
    let listener = Listener::of(&mut desk);
    desk.transact(|desk| {
        desk.set_label(item, "kept")?;
        let failed = desk.transact(|desk| {
            desk.set_mime_type(item, "text/plain")?;
            desk.change_value(item, 0..4, "lost")?;
            desk.delete_entry(item, Timestamp::from_millis(1))?;
            desk.change_value(item, 0..9, "")
        });
        assert!(failed.is_err());
        Ok::<_, StoreError>(())
    })
    .unwrap();
    assert_eq!(keys(&only(listener.take())), [(item, "Label".to_owned())]);
    assert_eq!(desk.entry_with_id(item).unwrap().outer_item_id(), Some(ROOT));
}

#[test]
fn a_transaction_that_panics_is_taken_back_and_untold() {
    let mut desk = store(1);
    let listener = Listener::of(&mut desk);
    let run = std::panic::AssertUnwindSafe(|| {
        desk.transact(|desk| {
            desk.set_label(ROOT, "half")?;
            std::panic::resume_unwind(Box::new("on purpose"));
            #[expect(unreachable_code, reason = "gives the closure its type")]
            Ok::<_, StoreError>(())
        })
    });
    assert!(std::panic::catch_unwind(run).is_err());
    assert_eq!(desk.root_item().label(), "");
    assert_eq!(listener.take(), []);
    desk.set_label(ROOT, "whole").unwrap();
    assert_eq!(keys(&only(listener.take())), [(ROOT, "Label".to_owned())]);
}

#[test]
fn setting_what_is_there_is_told_here_and_nowhere_else() {
    let (mut desk, mut phone) = (store(1), store(2));
    let (here, there) = (Listener::of(&mut desk), Listener::of(&mut phone));
    desk.set_label(EntryId::TRASH, "trash").unwrap();
    assert_eq!(keys(&only(here.take())), [(EntryId::TRASH, "Label".to_owned())]);
    send(&desk, &mut phone);
    assert_eq!(there.take(), []);
    desk.transact(|desk| {
        desk.set_label(ROOT, "a")?;
        desk.set_label(ROOT, "")
    })
    .unwrap();
    assert_eq!(here.take(), [], "as it was");
}

#[test]
fn texts_are_told_as_edits_in_utf16_units() {
    let (mut desk, mut phone) = (store(1), store(2));
    let item = desk.new_item_at(None, ROOT, None).unwrap();
    desk.write_value(item, "\u{1f600} hello world").unwrap();
    send(&desk, &mut phone);
    let listener = Listener::of(&mut phone);
    desk.transact(|desk| {
        desk.change_value(item, 3..8, "bye")?;
        desk.change_value(item, 0..2, "\u{1f601}")
    })
    .unwrap();
    phone.change_value(item, 14..14, "!").unwrap();
    let edit = |range, deleted: &str, inserted: &str| TextEdit {
        range,
        deleted: deleted.into(),
        inserted: inserted.into(),
    };
    let of_value =
        |event: &ChangeEvent| event.changes.of(item).unwrap().texts[&Property::Value].clone();
    assert_eq!(of_value(&only(listener.take())), [edit(14..14, "", "!")]);
    send(&desk, &mut phone);
    assert_eq!(
        of_value(&only(listener.take())),
        [edit(3..8, "hello", "bye"), edit(0..2, "\u{1f600}", "\u{1f601}")]
    );
    phone.write_value(item, "other").unwrap();
    let event = only(listener.take());
    assert!(event.changes.contains(item, &Property::Value));
    assert!(event.changes.of(item).unwrap().texts.is_empty(), "replaced as a whole");
}

#[test]
fn lists_follow_by_departures_and_arrivals() {
    let mut desk = store(1);
    let items: Vec<_> = (0..4).map(|_| desk.new_item_at(None, ROOT, None).unwrap()).collect();
    let listener = Listener::of(&mut desk);
    let list = |desk: &DataStore| -> Vec<EntryId> {
        desk.root_item().inner_entries().map(|entry| entry.id()).collect()
    };
    let mut copy = list(&desk);
    desk.transact(|desk| {
        desk.move_entry_to(items[3], ROOT, Some(0))?;
        desk.delete_entry(items[1], Timestamp::from_millis(1))?;
        desk.new_item_at(None, ROOT, Some(2))
    })
    .unwrap();
    let event = only(listener.take());
    for (place, entry) in event.changes.departures() {
        assert_eq!((place.outer_item, copy.remove(place.index)), (ROOT, *entry));
    }
    for (place, entry) in event.changes.arrivals() {
        if place.outer_item == ROOT {
            copy.insert(place.index, *entry);
        }
    }
    assert_eq!(copy, list(&desk));
    assert!(event.changes.of(items[3]).is_none(), "it is where it was, in another order");
}

#[test]
fn events_can_be_held_back() {
    let mut desk = store(1);
    let answering = desk.on_change(|store, event| {
        if event.changes.contains(ROOT, &Property::Label) {
            store.set_label(EntryId::TRASH, "bin").unwrap();
        }
    });
    let listener = Listener::of(&mut desk);
    let label = desk.hold_events(|desk| {
        desk.set_label(ROOT, "a").unwrap();
        desk.set_label(ROOT, "b").unwrap();
        desk.trash_item().label().into_owned()
    });
    assert_eq!(label, "trash");
    assert_eq!(desk.trash_item().label(), "bin");
    assert_eq!(listener.take().len(), 4);
    drop(answering);
}

#[test]
fn a_patch_during_a_transaction_is_refused() {
    let (mut desk, phone) = (store(1), store(2));
    let patch = phone.export_patch(desk.version());
    let refused = desk.transact(|desk| desk.apply_remote_patch(&patch).map(drop));
    assert_eq!(refused.unwrap_err().code(), "transaction-open");
}
