//! Cases that must hold for a single store and for two that exchange patches, through the public API.

use sds_store::limits::{
    BINARY_SIZE_LIMIT, INFO_VALUE_BYTES_MAX, LABEL_LENGTH_MAX, LITERAL_SIZE_LIMIT,
    MIME_TYPE_LENGTH_MAX,
};
use sds_store::{
    DataStore, EntryId, ItemValue, NewValue, ReplicaId, StoreError, Timestamp, ValueKind, Version,
    blob_hash,
};
use serde_json::{Value as Json, json};

const ROOT: EntryId = EntryId::ROOT;
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn store(replica: u64) -> DataStore {
    DataStore::new(ReplicaId::new(replica).unwrap())
}

fn code<T: std::fmt::Debug>(result: Result<T, StoreError>) -> &'static str {
    result.unwrap_err().code()
}

fn inner(store: &DataStore, id: EntryId) -> Vec<EntryId> {
    store.entry_with_id(id).unwrap().inner_entries().map(|entry| entry.id()).collect()
}

fn exchange(a: &mut DataStore, b: &mut DataStore) {
    b.apply_remote_patch(&a.export_patch(b.version())).unwrap();
    a.apply_remote_patch(&b.export_patch(a.version())).unwrap();
    assert_eq!(a.digest(), b.digest());
    a.assert_invariants();
    b.assert_invariants();
}

fn text(store: &DataStore, id: EntryId) -> String {
    match store.entry_with_id(id).unwrap().value() {
        ItemValue::Text(text) => text,
        other => format!("{other:?}"),
    }
}

fn json_of(store: &DataStore) -> Json {
    let mut bytes = Vec::new();
    store.write_json(&mut bytes).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn a_fresh_store_holds_exactly_the_system_items() {
    let store = store(1);
    assert_eq!(store.entry_count(), 3);
    assert_eq!(inner(&store, ROOT), [EntryId::TRASH, EntryId::LOST_AND_FOUND]);
    let labels = [store.root_item(), store.trash_item(), store.lost_and_found_item()];
    assert_eq!(labels.map(|item| item.label()), ["", "trash", "lost-and-found"]);
    assert_eq!(store.root_item().outer_item_chain().count(), 0);
    assert_eq!(store.trash_item().outer_item_id(), Some(ROOT));
}

#[test]
fn system_items_can_be_renamed_but_not_deleted() {
    let mut store = store(1);
    store.set_label(EntryId::TRASH, "bin").unwrap();
    assert_eq!(store.trash_item().label(), "bin");
    for id in [ROOT, EntryId::TRASH, EntryId::LOST_AND_FOUND] {
        assert_eq!(code(store.delete_entry(id, NOW)), "delete-not-permitted");
        assert_eq!(code(store.move_entry_to(id, EntryId::TRASH, None)), "move-would-cycle");
    }
    store.move_entry_to(EntryId::TRASH, ROOT, None).unwrap();
    assert_eq!(inner(&store, ROOT), [EntryId::LOST_AND_FOUND, EntryId::TRASH]);
}

#[test]
fn stores_begun_independently_merge() {
    let (mut a, mut b) = (store(1), store(2));
    a.set_label(EntryId::TRASH, "AAA").unwrap();
    b.set_label(EntryId::LOST_AND_FOUND, "BBB").unwrap();
    exchange(&mut a, &mut b);
    for store in [&a, &b] {
        assert_eq!(store.trash_item().label(), "AAA");
        assert_eq!(store.lost_and_found_item().label(), "BBB");
    }
}

#[test]
fn a_snapshot_restores_everything_under_another_replica() {
    let mut a = store(1);
    let note = a.new_item_at(Some("text/markdown"), ROOT, None).unwrap();
    a.write_value(note, "text").unwrap();
    a.set_info(note, "done", &json!(null)).unwrap();
    let bytes = a.as_binary();
    assert_eq!(bytes[..2], [0x1f, 0x8b]);
    let mut b = DataStore::from_binary(ReplicaId::new(2).unwrap(), &bytes).unwrap();
    assert_eq!(a.digest(), b.digest());
    assert_eq!(json_of(&a), json_of(&b));
    let mut c = store(3);
    c.apply_remote_patch(&b.export_patch(&Version::new())).unwrap();
    assert_eq!(c.digest(), a.digest(), "a restored store hands on everything");
    assert_eq!(
        code(DataStore::from_binary(ReplicaId::new(2).unwrap(), b"junk")),
        "malformed-patch"
    );
}

#[test]
fn items_are_created_where_they_are_wanted() {
    let mut store = store(1);
    let folder = store.new_item_at(None, ROOT, None).unwrap();
    let [a, b, c] = [None, None, None].map(|at| store.new_item_at(None, folder, at).unwrap());
    let first = store.new_item_at(None, folder, Some(0)).unwrap();
    let last = store.new_item_at(None, folder, Some(9_999)).unwrap();
    assert_eq!(inner(&store, folder), [first, a, b, c, last]);
    let item = store.entry_with_id(first).unwrap();
    assert_eq!((&*item.label(), &*item.mime_type()), ("", "text/plain"));
    assert!(item.is_item() && item.value_kind() == ValueKind::None);
    assert!(item.info_map().is_empty());
    store.move_entry_to(first, folder, Some(1)).unwrap();
    assert_eq!(inner(&store, folder), [a, first, b, c, last], "the final index");
}

#[test]
fn containers_and_targets_must_be_items() {
    let mut store = store(1);
    let item = store.new_item_at(None, ROOT, None).unwrap();
    let link = store.new_link_at(item, ROOT, None).unwrap();
    let unknown = EntryId::from_bytes([3; 16]);
    for bad in [link, unknown] {
        assert_eq!(code(store.new_item_at(None, bad, None)), "invalid-argument");
        assert_eq!(code(store.new_link_at(bad, ROOT, None)), "invalid-argument");
        assert_eq!(code(store.move_entry_to(item, bad, None)), "invalid-argument");
    }
    assert_eq!(store.entry_with_id(link).unwrap().target_id(), Some(item));
    store.new_link_at(ROOT, item, None).unwrap();
    store.new_link_at(item, item, None).unwrap();
    store.delete_entry(link, NOW).unwrap();
    assert_eq!(store.entry_with_id(item).unwrap().outer_item_id(), Some(ROOT));
    assert!(store.entry_with_id(unknown).is_none());
}

#[test]
fn limits_hold_at_the_bound_and_one_past_it() {
    let mut store = store(1);
    let item = store.new_item_at(None, ROOT, None).unwrap();
    let long = |len| "x".repeat(len);
    store.set_label(item, &long(LABEL_LENGTH_MAX)).unwrap();
    assert_eq!(code(store.set_label(item, &long(LABEL_LENGTH_MAX + 1))), "invalid-argument");
    assert_eq!(code(store.set_label(item, &"😀".repeat(513))), "invalid-argument");
    assert_eq!(store.entry_with_id(item).unwrap().label().len(), LABEL_LENGTH_MAX);
    store.set_mime_type(item, &long(MIME_TYPE_LENGTH_MAX)).unwrap();
    for bad in [long(MIME_TYPE_LENGTH_MAX + 1), String::new()] {
        assert_eq!(code(store.set_mime_type(item, &bad)), "invalid-argument");
        let before = store.entry_count();
        assert_eq!(code(store.new_item_at(Some(&bad), ROOT, None)), "invalid-argument");
        assert_eq!(store.entry_count(), before, "a failed creation leaves nothing");
    }
    let fits = json!(long(INFO_VALUE_BYTES_MAX - 2));
    store.set_info(item, &long(1_024), &fits).unwrap();
    let past = json!(long(INFO_VALUE_BYTES_MAX - 1));
    assert_eq!(code(store.set_info(item, "k", &past)), "invalid-argument");
    for key in [String::new(), long(1_025), "_trashedAt".to_owned()] {
        assert_eq!(code(store.set_info(item, &key, &json!(1))), "invalid-argument");
    }
}

#[test]
fn metadata_of_every_kind_comes_back() {
    let mut store = store(1);
    let item = store.new_item_at(None, ROOT, None).unwrap();
    let values = [
        ("null", json!(null)),
        ("bool", json!(true)),
        ("int", json!(-7)),
        ("large", json!(u64::MAX)),
        ("float", json!(1.5)),
        ("text", json!("x")),
        ("list", json!([1, {"a": null}])),
    ];
    for (key, value) in &values {
        store.set_info(item, key, value).unwrap();
    }
    let entry = store.entry_with_id(item).unwrap();
    for (key, value) in &values {
        assert_eq!(entry.info(key).as_ref(), Some(value));
    }
    assert_eq!(entry.info_map().len(), values.len());
    assert_eq!(entry.info("absent"), None);
    for (key, _) in &values {
        store.delete_info(item, key).unwrap();
    }
    let version = store.version().clone();
    store.delete_info(item, "absent").unwrap();
    assert_eq!(*store.version(), version, "nothing to delete, no change");
    assert!(store.entry_with_id(item).unwrap().info_map().is_empty());
    store.set_info(item, "again", &json!(1)).unwrap();
}

#[test]
fn values_are_kept_inline_up_to_their_limit_and_as_blobs_past_it() {
    let mut store = store(1);
    let item = store.new_item_at(None, ROOT, None).unwrap();
    let rows: [(NewValue, ValueKind); 7] = [
        (NewValue::Text(String::new()), ValueKind::Literal),
        (NewValue::Text("x".repeat(LITERAL_SIZE_LIMIT)), ValueKind::Literal),
        (NewValue::Text("x".repeat(LITERAL_SIZE_LIMIT + 1)), ValueKind::LiteralReference),
        (NewValue::Bytes(Vec::new()), ValueKind::Binary),
        (NewValue::Bytes(vec![7; BINARY_SIZE_LIMIT]), ValueKind::Binary),
        (NewValue::Bytes(vec![7; BINARY_SIZE_LIMIT + 1]), ValueKind::BinaryReference),
        (NewValue::None, ValueKind::None),
    ];
    for (value, kind) in rows {
        store.write_value(item, value.clone()).unwrap();
        let entry = store.entry_with_id(item).unwrap();
        assert_eq!(entry.value_kind(), kind);
        let read = match entry.value() {
            ItemValue::Text(text) => NewValue::Text(text),
            ItemValue::Bytes(bytes) => NewValue::Bytes(bytes.to_vec()),
            ItemValue::None => NewValue::None,
            ItemValue::Pending(blob) => panic!("{blob:?}"),
        };
        assert_eq!(read, value);
    }
}

#[test]
fn equal_blobs_are_kept_once_and_wait_until_they_are_fetched() {
    let (mut a, mut b) = (store(1), store(2));
    let bytes = vec![5; 10_000];
    for _ in 0..2 {
        let item = a.new_item_at(None, ROOT, None).unwrap();
        a.write_value(item, bytes.as_slice()).unwrap();
    }
    exchange(&mut a, &mut b);
    let wanted = b.referenced_blobs();
    assert_eq!(wanted.len(), 1);
    let item = *inner(&b, ROOT).last().unwrap();
    assert_eq!(b.entry_with_id(item).unwrap().value(), ItemValue::Pending(wanted[0]));
    let fetched = a.blob(&wanted[0].hash).unwrap();
    assert_eq!(blob_hash(&fetched), wanted[0].hash);
    b.add_blob(fetched);
    assert_eq!(b.entry_with_id(item).unwrap().value(), ItemValue::Bytes(bytes.into()));
}

#[test]
fn a_range_of_a_text_is_replaced_by_units_with_an_exclusive_end() {
    let mut store = store(1);
    let item = store.new_item_at(None, ROOT, None).unwrap();
    assert_eq!(code(store.change_value(item, 0..0, "a")), "change-value-not-literal");
    store.write_value(item, "Hello, World!").unwrap();
    store.change_value(item, 7..12, "SDS").unwrap();
    assert_eq!(text(&store, item), "Hello, SDS!");
    assert_eq!(code(store.change_value(item, 5..99, "")), "invalid-argument");
    store.write_value(item, &b"bytes"[..]).unwrap();
    assert_eq!(code(store.change_value(item, 0..0, "a")), "change-value-not-literal");
    store.write_value(item, "x".repeat(LITERAL_SIZE_LIMIT).as_str()).unwrap();
    assert_eq!(code(store.change_value(item, 0..0, "y")), "invalid-argument");
    store.change_value(item, 0..1, "y").unwrap();
}

#[test]
fn concurrent_edits_at_both_ends_of_a_text_survive() {
    let (mut a, mut b) = (store(1), store(2));
    let item = a.new_item_at(None, ROOT, None).unwrap();
    a.write_value(item, "hello world").unwrap();
    exchange(&mut a, &mut b);
    a.change_value(item, 0..0, "A").unwrap();
    b.change_value(item, 11..11, "B").unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(text(&a, item), "Ahello worldB");
}

#[test]
fn whole_texts_and_labels_set_at_once_never_glue_together() {
    let (mut a, mut b) = (store(1), store(2));
    let item = a.new_item_at(None, ROOT, None).unwrap();
    exchange(&mut a, &mut b);
    for (store, name) in [(&mut a, "AAA"), (&mut b, "BBB")] {
        store.write_value(item, name).unwrap();
        store.set_label(item, name).unwrap();
    }
    exchange(&mut a, &mut b);
    let label = a.entry_with_id(item).unwrap().label();
    assert!(["AAA", "BBB"].contains(&&*label), "{label}");
    assert_eq!(text(&a, item), text(&b, item));
}

#[test]
fn deleting_notes_the_time_and_moving_out_forgets_it() {
    let (mut a, mut b) = (store(1), store(2));
    let folder = a.new_item_at(None, ROOT, None).unwrap();
    let child = a.new_item_at(None, folder, None).unwrap();
    a.delete_entry(folder, NOW).unwrap();
    exchange(&mut a, &mut b);
    let deleted = b.entry_with_id(folder).unwrap();
    assert_eq!(deleted.outer_item_id(), Some(EntryId::TRASH));
    assert_eq!(deleted.info("_trashedAt"), Some(json!(1_700_000_000_000_i64)));
    assert_eq!(inner(&b, folder), [child], "what was inside stays inside");
    b.delete_entry(child, NOW).unwrap();
    assert_eq!(inner(&b, EntryId::TRASH), [folder, child], "lifted to the end of the trash");
    b.move_entry_to(folder, ROOT, None).unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(a.entry_with_id(folder).unwrap().trashed_at(), None);
    a.move_entry_to(folder, EntryId::TRASH, None).unwrap();
    assert_eq!(a.entry_with_id(folder).unwrap().trashed_at(), None, "moved there, not deleted");
}

#[test]
fn a_failing_transaction_takes_everything_back() {
    let mut store = store(1);
    let item = store.new_item_at(None, ROOT, None).unwrap();
    let (version, digest) = (store.version().clone(), store.digest());
    let failed: Result<(), StoreError> = store.transact(|store| {
        store.set_label(item, "lost")?;
        store.new_item_at(None, item, None)?;
        store.move_entry_to(item, item, None)
    });
    assert_eq!(code(failed), "move-would-cycle");
    assert_eq!(*store.version(), version);
    assert_eq!(store.digest(), digest);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.transact(|store| -> Result<(), StoreError> {
            store.set_label(item, "lost")?;
            panic!("in the middle")
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(store.entry_with_id(item).unwrap().label(), "", "a panic takes it back too");
    store.set_label(item, "kept").unwrap();
    store.assert_invariants();
    assert_eq!(store.changes_since(&version).unwrap().len(), 1);
}

#[test]
fn patches_that_cannot_be_read_change_nothing() {
    let (mut a, mut b) = (store(1), store(2));
    a.new_item_at(None, ROOT, None).unwrap();
    let patch = a.export_patch(&Version::new());
    assert_eq!(b.apply_remote_patch(&[]).unwrap().applied, 0);
    for at in 0..patch.len() {
        let mut damaged = patch.clone();
        damaged[at] ^= 0x10;
        assert!(b.apply_remote_patch(&damaged).is_err(), "byte {at}");
        assert!(at == 0 || b.apply_remote_patch(&patch[..at]).is_err(), "cut at {at}");
    }
    let mut newer = patch.clone();
    newer[1] = 2;
    assert_eq!(code(b.apply_remote_patch(&newer)), "format-too-new");
    assert!(b.version().is_empty());
    assert_eq!(b.apply_remote_patch(&patch).unwrap().applied, 1);
    assert_eq!(b.apply_remote_patch(&patch).unwrap().known, 1, "twice is once");
}

#[test]
fn json_has_the_documented_shape_and_order() {
    let mut store = store(1);
    let item = store.new_item_at(Some("text/html"), ROOT, Some(0)).unwrap();
    store.set_label(item, "a \"quoted\"\nlabel").unwrap();
    let bytes = store.new_item_at(Some("image/png"), item, None).unwrap();
    store.write_value(bytes, &b"\0\x01"[..]).unwrap();
    let large = store.new_item_at(Some("image/png"), item, None).unwrap();
    store.write_value(large, [1; 3_000].as_slice()).unwrap();
    let link = store.new_link_at(item, item, None).unwrap();
    store.write_value(item, "<p>").unwrap();
    let json = json_of(&store);
    let first = &json["innerEntries"][0];
    let keys: Vec<&String> = first.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["Kind", "Id", "Label", "Type", "ValueKind", "Info", "innerEntries", "Value"]);
    assert_eq!(first["Value"], "<p>");
    assert_eq!(first["innerEntries"][0]["Value"], "AAE=");
    assert_eq!(first["innerEntries"][1]["Size"], 3_000);
    assert_eq!(first["innerEntries"][1]["ValueKind"], "binary-reference");
    let expected = json!({
        "Kind": "link", "Id": link.to_string(), "Label": "", "TargetId": item.to_string(),
        "Info": {},
    });
    assert_eq!(first["innerEntries"][2], expected);
}

#[test]
fn a_tree_deeper_than_any_stack_is_written_and_deleted() {
    let mut store = store(1);
    let mut outer = ROOT;
    let top = store
        .transact(|store| {
            let mut top = None;
            for _ in 0..20_000 {
                outer = store.new_item_at(None, outer, None)?;
                top.get_or_insert(outer);
            }
            Ok::<_, StoreError>(top.unwrap())
        })
        .unwrap();
    let mut bytes = Vec::new();
    store.write_json(&mut bytes).unwrap();
    let opened = bytes.iter().filter(|byte| **byte == b'{').count();
    assert_eq!(opened, bytes.iter().filter(|byte| **byte == b'}').count());
    assert!(opened > 40_000);
    store.delete_entry(top, NOW).unwrap();
    assert_eq!(store.entry_with_id(outer).unwrap().outer_item_chain().count(), 20_001);
}
