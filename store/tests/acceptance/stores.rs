//! Stores, and what tests ask of them.

use sds_store::{DataStore, EntryId, ItemValue, ReplicaId, StoreError, Timestamp};
use serde_json::Value as Json;

pub(crate) const ROOT: EntryId = EntryId::ROOT;
pub(crate) const TRASH: EntryId = EntryId::TRASH;
pub(crate) const LOST_AND_FOUND: EntryId = EntryId::LOST_AND_FOUND;
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

pub(crate) fn id(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}

pub(crate) fn store(replica: u64) -> DataStore {
    DataStore::new(id(replica))
}

pub(crate) fn item(store: &mut DataStore, outer: EntryId) -> EntryId {
    store.new_item_at(None, outer, None).unwrap()
}

pub(crate) fn unknown() -> EntryId {
    EntryId::from_bytes([3; 16])
}

pub(crate) fn after(millis: i64) -> Timestamp {
    Timestamp::from_millis(NOW.as_millis() + millis)
}

pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, StoreError>) -> &'static str {
    result.unwrap_err().code()
}

pub(crate) fn inner(store: &DataStore, id: EntryId) -> Vec<EntryId> {
    store.entry_with_id(id).unwrap().inner_entries().map(|entry| entry.id()).collect()
}

pub(crate) fn outer(store: &DataStore, id: EntryId) -> Option<EntryId> {
    store.entry_with_id(id).unwrap().outer_item_id()
}

pub(crate) fn text(store: &DataStore, id: EntryId) -> String {
    match store.read_value(id).unwrap() {
        ItemValue::Text(text) => text,
        other => format!("{other:?}"),
    }
}

pub(crate) fn json(store: &DataStore) -> Json {
    serde_json::from_str(&store.as_json()).unwrap()
}

/// One store's patch for another.
pub(crate) fn send(from: &DataStore, to: &mut DataStore) {
    to.apply_remote_patch(&from.export_patch(to.version())).unwrap();
}

/// Both ways; afterwards they are the same.
pub(crate) fn exchange(a: &mut DataStore, b: &mut DataStore) {
    send(a, b);
    send(b, a);
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.as_json(), b.as_json());
    a.assert_invariants();
    b.assert_invariants();
}

/// Two stores, the second with all that the first one has.
pub(crate) fn twins(begin: impl FnOnce(&mut DataStore)) -> (DataStore, DataStore) {
    let (mut a, mut b) = (store(1), store(2));
    begin(&mut a);
    exchange(&mut a, &mut b);
    (a, b)
}

/// A store with something of everything.
pub(crate) fn full() -> DataStore {
    let mut store = store(1);
    let folder = item(&mut store, ROOT);
    store.set_label(folder, "Folder \u{1f600} \"quoted\"\n").unwrap();
    let note = store.new_item_at(Some("text/markdown"), folder, None).unwrap();
    store.write_value(note, "some *text*").unwrap();
    store.change_value(note, 0..4, "Some").unwrap();
    let values = serde_json::json!({"null": null, "list": [1, 2.5, {"a": false}], "big": u64::MAX});
    for (key, value) in values.as_object().unwrap() {
        store.set_info(note, key, value).unwrap();
    }
    let bytes = store.new_item_at(Some("application/x-test"), folder, Some(0)).unwrap();
    store.write_value(bytes, &[0, 255, 7]).unwrap();
    let empty = item(&mut store, folder);
    store.write_value(empty, "").unwrap();
    let link = store.new_link_at(note, ROOT, Some(0)).unwrap();
    store.set_label(link, "a link").unwrap();
    store.set_info(link, "of", &"a link").unwrap();
    let deleted = item(&mut store, ROOT);
    item(&mut store, deleted);
    store.delete_entry(deleted, NOW).unwrap();
    store.set_label(TRASH, "bin").unwrap();
    store.set_info(ROOT, "version", &3).unwrap();
    store
}
