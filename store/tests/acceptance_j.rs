//! Acceptance cases J: events, change sets, transactions.

#[path = "common/listener.rs"]
mod listener;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use listener::{Listener, keys, only};
use sds_store::{DataStore, EntryId, Origin, Property, ReplicaId, StoreError, Timestamp};
use serde_json::json;

const ROOT: EntryId = EntryId::ROOT;
const TRASH: EntryId = EntryId::TRASH;
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn id(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}

fn store(number: u64) -> DataStore {
    DataStore::new(id(number))
}

/// Two stores with the same changes.
fn twins(
    make: impl FnOnce(&mut DataStore) -> Vec<EntryId>,
) -> (DataStore, DataStore, Vec<EntryId>) {
    let mut desk = store(1);
    let made = make(&mut desk);
    let mut phone = store(2);
    phone.apply_remote_patch(&desk.export_patch(phone.version())).unwrap();
    (desk, phone, made)
}

fn send(from: &DataStore, to: &mut DataStore) {
    to.apply_remote_patch(&from.export_patch(to.version())).unwrap();
}

#[test]
fn j95_creating_an_item_is_one_internal_event() {
    let mut desk = store(1);
    let listener = Listener::of(&mut desk);
    let item = desk.new_item_at(None, ROOT, None).unwrap();
    let event = only(listener.take());
    assert_eq!(event.origin, Origin::Internal);
    assert_eq!(keys(&event), [(ROOT, "innerEntryList".into()), (item, "outerItem".into())]);
}

#[test]
fn j96_all_handlers_are_called_until_they_unsubscribe() {
    let mut desk = store(1);
    let (one, other) = (Listener::of(&mut desk), Listener::of(&mut desk));
    desk.set_label(ROOT, "a").unwrap();
    assert_eq!(one.take(), other.take());
    one.subscription.unsubscribe();
    one.subscription.unsubscribe();
    desk.set_label(ROOT, "b").unwrap();
    assert_eq!((one.take().len(), other.take().len()), (0, 1));
    other.subscription.unsubscribe();
    drop(desk);
    other.subscription.unsubscribe();
}

#[test]
fn j97_nested_transactions_are_one_event() {
    let mut desk = store(1);
    let listener = Listener::of(&mut desk);
    let (outer, inner) = desk
        .transact(|store| {
            let outer = store.new_item_at(None, ROOT, None)?;
            let inner = store.transact(|store| store.new_item_at(None, outer, None))?;
            Ok::<_, StoreError>((outer, inner))
        })
        .unwrap();
    let event = only(listener.take());
    assert!(event.changes.contains(outer, &Property::OuterItem));
    assert!(event.changes.contains(inner, &Property::OuterItem));
    assert!(event.changes.contains(outer, &Property::InnerEntryList));
}

#[test]
fn j99_a_handler_that_panics_harms_nobody() {
    let mut desk = store(1);
    let before = Listener::of(&mut desk);
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let panicking = desk.on_change(move |store, _| {
        count.fetch_add(1, Ordering::Relaxed);
        store
            .transact(|store| {
                store.set_label(TRASH, "half")?;
                std::panic::resume_unwind(Box::new("on purpose"));
                #[expect(unreachable_code, reason = "gives the closure its type")]
                Ok::<_, StoreError>(())
            })
            .unwrap();
    });
    let after = Listener::of(&mut desk);
    for label in ["a", "b"] {
        desk.set_label(ROOT, label).unwrap();
        assert_eq!((before.take().len(), after.take().len()), (1, 1));
        assert_eq!(desk.root_item().label(), label);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 2, "it is called again the next time");
    assert_eq!(desk.trash_item().label(), "trash", "taken back");
    desk.assert_invariants();
    panicking.unsubscribe();
}

#[test]
fn j100_properties_are_told_by_name() {
    let mut desk = store(1);
    let item = desk.new_item_at(None, ROOT, None).unwrap();
    let listener = Listener::of(&mut desk);
    let check = |key: &str| assert_eq!(keys(&only(listener.take())), [(item, key.to_owned())]);
    desk.set_label(item, "label").unwrap();
    check("Label");
    desk.set_mime_type(item, "text/markdown").unwrap();
    check("Type");
    desk.write_value(item, "hello").unwrap();
    check("Value");
    desk.change_value(item, 0..1, "J").unwrap();
    check("Value");
    desk.set_info(item, "key", &json!([1])).unwrap();
    check("Info.key");
    desk.delete_info(item, "key").unwrap();
    check("Info.key");
    desk.delete_info(item, "key").unwrap();
    assert_eq!(listener.take(), [], "there was none");
    desk.set_label(item, "label").unwrap();
    check("Label");
    desk.set_info(item, "key", &json!(null)).unwrap();
    check("Info.key");
}

#[test]
fn j101_moves_and_deletions_name_the_entry_and_both_containers() {
    let mut desk = store(1);
    let old = desk.new_item_at(None, ROOT, None).unwrap();
    let new = desk.new_item_at(None, ROOT, None).unwrap();
    let item = desk.new_item_at(None, old, None).unwrap();
    let listener = Listener::of(&mut desk);
    let check = |expected: &[(EntryId, &str)]| {
        let mut expected: Vec<_> =
            expected.iter().map(|(entry, key)| (*entry, (*key).to_owned())).collect();
        expected.sort_unstable();
        let mut found = keys(&only(listener.take()));
        found.sort_unstable();
        assert_eq!(found, expected);
    };
    let list = "innerEntryList";
    desk.move_entry_to(item, new, None).unwrap();
    check(&[(item, "outerItem"), (old, list), (new, list)]);
    desk.delete_entry(item, NOW).unwrap();
    check(&[(item, "outerItem"), (item, "Info._trashedAt"), (new, list), (TRASH, list)]);
    desk.move_entry_to(item, ROOT, None).unwrap();
    check(&[(item, "outerItem"), (item, "Info._trashedAt"), (TRASH, list), (ROOT, list)]);
    desk.move_entry_to(item, ROOT, Some(0)).unwrap();
    check(&[(ROOT, list)]);
    desk.move_entry_to(item, ROOT, Some(0)).unwrap();
    assert_eq!(listener.take(), [], "it stood there before");
}

#[test]
fn j105_a_remote_patch_names_what_it_changes_and_no_bystander() {
    let (desk, mut phone, made) = twins(|desk| {
        let folder = desk.new_item_at(None, ROOT, None).unwrap();
        let bystander = desk.new_item_at(None, ROOT, None).unwrap();
        desk.set_label(bystander, "here").unwrap();
        vec![folder, bystander]
    });
    let mut desk = desk;
    let listener = Listener::of(&mut desk);
    let new = phone.new_item_at(None, made[0], None).unwrap();
    send(&phone, &mut desk);
    let event = only(listener.take());
    assert_eq!(event.origin, Origin::External);
    assert_eq!(keys(&event), [(made[0], "innerEntryList".into()), (new, "outerItem".into())]);
    assert!(event.changes.of(made[1]).is_none());
    send(&phone, &mut desk);
    desk.apply_remote_patch(&[]).unwrap();
    assert_eq!(listener.take(), [], "nothing new");
}

#[test]
fn j106_a_remote_patch_names_exactly_the_properties_that_changed() {
    let (mut desk, mut phone, made) = twins(|desk| {
        let items: Vec<_> = (0..5).map(|_| desk.new_item_at(None, ROOT, None).unwrap()).collect();
        items.iter().for_each(|item| desk.write_value(*item, "old").unwrap());
        desk.delete_entry(items[4], NOW).unwrap();
        items
    });
    let listener = Listener::of(&mut phone);
    desk.transact(|desk| {
        desk.write_value(made[0], "new")?;
        desk.set_mime_type(made[1], "text/markdown")?;
        desk.set_info(made[2], "key", &json!(1))?;
        desk.set_label(made[3], "label")?;
        // What reads the same afterwards is not told.
        desk.set_label(made[0], "")?;
        desk.write_value(made[3], "old")
    })
    .unwrap();
    send(&desk, &mut phone);
    let event = only(listener.take());
    assert_eq!(event.origin, Origin::External);
    let expected = ["Value", "Type", "Info.key", "Label"];
    let expected: Vec<_> = made.iter().copied().zip(expected.map(str::to_owned)).collect();
    assert_eq!(keys(&event), expected);

    desk.purge_entry(made[4]).unwrap();
    send(&desk, &mut phone);
    let expected = [(TRASH, "innerEntryList".into()), (made[4], "Existence".into())];
    assert_eq!(keys(&only(listener.take())), expected);
}

#[test]
fn j103_a_purge_names_every_entry_that_is_gone() {
    let mut desk = store(1);
    let folder = desk.new_item_at(None, ROOT, None).unwrap();
    let inside = desk.new_item_at(None, folder, None).unwrap();
    desk.set_label(inside, "inside").unwrap();
    let deepest = desk.new_item_at(None, inside, None).unwrap();
    desk.delete_entry(folder, NOW).unwrap();
    let mut phone = store(2);
    send(&desk, &mut phone);
    let (here, there) = (Listener::of(&mut desk), Listener::of(&mut phone));
    desk.purge_entry(folder).unwrap();
    send(&desk, &mut phone);
    let (gone, list) = ("Existence".to_owned(), "innerEntryList".to_owned());
    let expected = [
        (TRASH, list.clone()),
        (folder, gone.clone()),
        (folder, list.clone()),
        (inside, gone.clone()),
        (inside, list),
        (deepest, gone),
    ];
    assert_eq!(keys(&only(here.take())), expected);
    assert_eq!(keys(&only(there.take())), expected);
}
