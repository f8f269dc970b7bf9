//! What imports take: all that exports give, and what other programs leave out.

#[path = "acceptance/stores.rs"]
#[expect(dead_code, reason = "shared with tests that need more of it")]
mod stores;

use sds_engine::{Field, Patch, Replica, Value};
use sds_store::{
    BlobRef, DataStore, EntryId, ItemValue, JsonOptions, JsonSource, JsonSummary, StoreError,
    StoreOptions, ValueKind, blob_hash, limits::LITERAL_SIZE_LIMIT,
};
use serde_json::{Value as Json, json};
use stores::*;

fn entry_id(number: u8) -> EntryId {
    EntryId::from_bytes([number; 16])
}

fn link_json(link: EntryId, target: EntryId) -> Json {
    json!({"Kind": "link", "Id": link, "TargetId": target})
}

/// A store gives JSON, and what is made of that gives the same JSON.
fn assert_comes_back(store: &DataStore) {
    let json = store.as_json();
    let mut copy = DataStore::from_json(id(9), &json).unwrap();
    assert_eq!(copy.as_json(), json);
    copy.assert_invariants();
    let mut other = DataStore::new(id(8));
    other.import_json(&json).unwrap();
    assert_eq!(other.as_json(), json);
    for store in [&mut copy, &mut other] {
        let version = store.version().clone();
        store.import_json(&json).unwrap();
        assert_eq!(*store.version(), version, "importing twice changes nothing");
    }
}

#[test]
fn a_link_to_a_link_is_refused_in_any_order() {
    let mut store = store(1);
    let outside = item(&mut store, ROOT);
    let known = store.new_link_at(outside, ROOT, None).unwrap();
    let [one, two] = [1, 2].map(entry_id);
    let (to_link, link) = (link_json(one, two), link_json(two, outside));
    let rows = [
        json!([to_link, link]),
        json!([link, to_link]),
        json!([link_json(one, one)]),
        json!([link_json(one, two), link_json(two, one)]),
        json!([link_json(one, known)]),
    ];
    let (json, version) = (store.as_json(), store.version().clone());
    for inner in rows {
        let folder = json!({"Kind": "item", "Id": entry_id(7), "innerEntries": inner});
        let root = json!({"Kind": "item", "Id": ROOT, "innerEntries": inner});
        let refused = [
            store.new_entry_from_json_at(&folder, ROOT, None).map(drop),
            store.import_entry_from_json_at(&folder, ROOT, None).map(drop),
            store.import_json_as_copy(&root).map(drop),
        ];
        for result in refused {
            assert_eq!(code(result), "invalid-argument", "{inner}");
        }
        assert_eq!((store.as_json(), store.version()), (json.clone(), &version));
    }
    // Links before and after the items that they lead to, and to what is not here, are fine.
    let inner = json!([link_json(one, two), {"Kind": "item", "Id": two}, link_json(entry_id(3), two),
        link_json(entry_id(4), entry_id(9))]);
    let folder = json!({"Kind": "item", "Id": entry_id(7), "innerEntries": inner});
    store.new_entry_from_json_at(&folder, ROOT, None).unwrap();
    store.import_entry_from_json_at(&folder, ROOT, None).unwrap();
    store.assert_invariants();
}

/// One knows only of a link to an entry, another imports that entry as a link.
#[test]
fn a_link_to_a_link_that_merging_makes_goes_out_and_in() {
    let (mut a, mut b) = (store(1), store(2));
    let [one, two] = [1, 2].map(entry_id);
    a.import_entry_from_json_at(&link_json(one, two), ROOT, None).unwrap();
    b.import_entry_from_json_at(&link_json(two, ROOT), ROOT, None).unwrap();
    assert!(a.entry(two).unwrap().is_placeholder());
    exchange(&mut a, &mut b);
    let merged = a.entry(one).unwrap().target().unwrap();
    assert!(merged.is_link() && !merged.is_placeholder());
    assert_comes_back(&a);
    a.move_entry_to(two, ROOT, Some(0)).unwrap();
    assert_comes_back(&a);
    a.move_entry_to(one, ROOT, Some(0)).unwrap();
    assert_comes_back(&a);
}

/// What merging has made is no longer than it is; an edit of a store that is there has its limits.
#[test]
fn a_label_that_was_merged_past_its_limit_makes_a_store_and_goes_into_none_without_it() {
    let (mut a, mut b) = twins(|store| store.set_label(ROOT, &"x".repeat(1_000)).unwrap());
    let before = a.as_json();
    a.splice_label(ROOT, 0..0, &"a".repeat(24)).unwrap();
    b.splice_label(ROOT, 0..0, &"b".repeat(24)).unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(a.root_item().label().len(), 1_048);
    let json = a.as_json();
    let mut copy = DataStore::from_json(id(9), &json).unwrap();
    assert_eq!(copy.as_json(), json);
    for store in [&mut copy, &mut a] {
        let version = store.version().clone();
        store.import_json(&json).unwrap();
        assert_eq!(*store.version(), version, "it is the same already");
    }
    for mut other in [store(7), DataStore::from_json(id(8), &before).unwrap()] {
        let before = other.as_json();
        assert_eq!(code(other.import_json(&json)), "invalid-argument");
        assert_eq!(other.as_json(), before);
    }
}

/// Goal: one peer that keeps no limits does not take the JSON of the whole store from all others. Method: what is
/// well formed and past the limits of edits, from an engine without a store, goes out and in.
#[test]
fn what_other_programs_have_made_past_the_limits_of_edits_makes_a_store() {
    let list = format!("[{}0]", "0,".repeat(150_000));
    let rows = [
        (Field::Type, Value::Text("x/".repeat(150))),
        (Field::Info("k".repeat(2_000).into()), Value::Int(1)),
        (Field::Info("list".into()), Value::Json(list)),
        (Field::Info("text".into()), Value::Text("t\"".repeat(150_000))),
    ];
    for (field, value) in rows {
        let mut foreign = Replica::new(id(5));
        let item = foreign.create_item(ROOT, 0).unwrap();
        foreign.set(item, field.clone(), value).unwrap();
        let mut here = store(1);
        here.apply_remote_patch(&foreign.export(here.version())).unwrap();
        let json = here.as_json();
        let mut copy = DataStore::from_json(id(9), &json).unwrap();
        assert!(copy.as_json() == json, "{field:?}");
        for store in [&mut copy, &mut here] {
            let version = store.version().clone();
            store.import_json(&json).unwrap();
            assert_eq!(*store.version(), version, "it is the same already");
        }
        let mut other = store(7);
        assert_eq!(code(other.import_json(&json)), "invalid-argument", "{field:?}");
        assert!(other.version().is_empty());
        let entry = here.entry(item).unwrap().as_json();
        assert_eq!(code(here.new_entry_from_json_at(&entry, ROOT, None)), "invalid-argument");
    }
}

/// Goal: what is the same stays the text into which others can type. Method: one that was merged past the
/// limit, and one that this device alone would not keep inline.
#[test]
fn a_text_that_is_here_already_stays_one_however_long_it_is() {
    let (mut a, mut b) =
        twins(|store| store.write_value(ROOT, "x".repeat(LITERAL_SIZE_LIMIT - 10)).unwrap());
    for (store, text) in [(&mut a, "aaaaaaaaaa"), (&mut b, "bbbbbbbbbb")] {
        store.change_value(ROOT, 0..0, text).unwrap();
    }
    exchange(&mut a, &mut b);
    b.set_options(StoreOptions::default().with_literal_size_limit(100));
    for store in [&mut a, &mut b] {
        let (json, version) = (store.as_json(), store.version().clone());
        assert_eq!(
            store.read_value(ROOT).unwrap().as_text().unwrap().len(),
            LITERAL_SIZE_LIMIT + 10
        );
        store.import_json(&json).unwrap();
        assert_eq!(*store.version(), version, "it is the same already");
    }
}

#[test]
fn an_entry_with_more_metadata_than_fits_a_change_goes_out_and_in() {
    let mut a = store(1);
    let (large, next) = (item(&mut a, ROOT), item(&mut a, ROOT));
    let value = "x".repeat(262_142);
    for key in 0..65 {
        a.set_info(large, &format!("{key}"), &value).unwrap();
    }
    a.set_info(next, "key", &1).unwrap();
    let json = a.as_json();
    let copy = DataStore::from_json(id(2), &json).unwrap();
    assert!(copy.as_json() == json, "the same");
    let mut other = store(3);
    assert_eq!(code(other.import_json(&json)), "transaction-too-large");
    assert!(other.version().is_empty());
}

#[test]
fn a_content_that_is_said_to_be_text_and_is_not_goes_out_and_in() {
    let mut a = store(1);
    let entry = item(&mut a, ROOT);
    for bytes in [&b"\xff\xfe"[..], b"text", b"dGV4dA=="] {
        let hash = a.add_blob(bytes.to_vec());
        let blob = BlobRef { hash, size: bytes.len() as u64, is_text: true };
        a.write_blob_value(entry, blob).unwrap();
        let mut json = Vec::new();
        a.write_json_with(&mut json, JsonOptions::default().with_blobs()).unwrap();
        let copy = DataStore::from_json(id(2), JsonSource::Reader(&mut &json[..])).unwrap();
        assert_eq!(copy.blob(&hash).as_deref(), Some(bytes));
        assert_eq!(copy.entry(entry).unwrap().blob_ref(), Some(blob));
        assert_eq!(copy.read_value(entry).unwrap(), a.read_value(entry).unwrap());
        assert_comes_back(&a);
    }
}

/// The TypeScript implementation names large values as kept elsewhere, and says no more of them.
#[test]
fn the_json_of_the_reference_is_taken_with_all_that_it_says() {
    let item = |id: &str, label: &str, inner: Json| {
        json!({"Kind": "item", "Id": id, "Label": label, "Type": "text/plain", "ValueKind": "none",
            "Info": {}, "innerEntries": inner})
    };
    let (photo, note, link) = (
        "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "3f2504e0-4f89-41d3-9a0c-0305e82c3302",
        "3f2504e0-4f89-41d3-9a0c-0305e82c3303",
    );
    let inner = json!([
        {"Kind": "item", "Id": photo, "Label": "photo", "Type": "image/png",
            "ValueKind": "binary-reference", "Info": {"rating": 5}, "innerEntries": []},
        {"Kind": "item", "Id": note, "Label": "note", "Type": "text/markdown",
            "ValueKind": "literal", "Info": {}, "innerEntries": [
                {"Kind": "item", "Id": "3f2504e0-4f89-41d3-9a0c-0305e82c3304", "Label": "",
                    "Type": "text/plain", "ValueKind": "literal-reference", "Info": {},
                    "innerEntries": []}
            ], "Value": "*text*"},
        {"Kind": "link", "Id": link, "Label": "to it", "TargetId": photo, "Info": {}},
    ]);
    let system = [
        item("00000000-0000-4000-8000-000000000001", "trash", json!([])),
        item("00000000-0000-4000-8000-000000000002", "lost-and-found", json!([])),
    ];
    let mut all = system.to_vec();
    all.extend(inner.as_array().unwrap().clone());
    let json = item("00000000-0000-4000-8000-000000000000", "", json!(all)).to_string();
    let summary = JsonSummary::of(&json).unwrap();
    assert_eq!((summary.entries, summary.nameless_values), (7, 2));
    let mut migrated = DataStore::from_json(id(1), &json).unwrap();
    let photo: EntryId = photo.parse().unwrap();
    let read = migrated.entry(photo).unwrap();
    assert_eq!((&*read.label(), &*read.mime_type()), ("photo", "image/png"));
    assert_eq!((read.info("rating"), read.value_kind()), (Some(json!(5)), ValueKind::None));
    assert_eq!(text(&migrated, note.parse().unwrap()), "*text*");
    assert_eq!(migrated.entry(link.parse().unwrap()).unwrap().target().unwrap().id(), photo);
    assert_eq!(migrated.entry_count(), 7);
    assert_comes_back(&migrated);
    // What was brought from elsewhere meanwhile is not taken away again.
    migrated.write_value(photo, &[1, 2, 3]).unwrap();
    migrated.import_json(&json).unwrap();
    assert_eq!(migrated.read_value(photo).unwrap(), ItemValue::Bytes([1, 2, 3].into()));
}

#[test]
fn a_time_of_deletion_that_the_json_does_not_have_goes() {
    let (mut a, mut b) = twins(|store| {
        for _ in 0..3 {
            item(store, ROOT);
        }
    });
    let made = inner(&a, ROOT)[2..].to_vec();
    for entry in &made {
        a.move_entry_to(*entry, TRASH, None).unwrap();
        b.delete_entry(*entry, NOW).unwrap();
    }
    let json = a.as_json();
    for _ in 0..2 {
        b.import_json(&json).unwrap();
        assert_eq!(b.as_json(), json);
    }
    assert_eq!(b.purge_expired_trash_entries(after(i64::MAX / 2), None), Ok(0));
    // One entry alone; and the other way round.
    b.delete_entry(made[1], NOW).unwrap();
    let deleted = b.entry(made[1]).unwrap().as_json();
    b.import_entry_from_json_at(&a.entry(made[1]).unwrap().as_json(), TRASH, Some(1)).unwrap();
    assert_eq!(b.as_json(), json);
    b.import_entry_from_json_at(&deleted, TRASH, Some(1)).unwrap();
    assert_eq!(b.entry(made[1]).unwrap().trashed_at(), Some(NOW));
    b.import_entry_from_json_at(&json!({"Kind": "item", "Id": made[1]}), TRASH, None).unwrap();
    assert_eq!(b.entry(made[1]).unwrap().trashed_at(), Some(NOW), "nothing is said of it");
}

#[test]
fn what_the_json_leaves_out_stays_as_it_is() {
    let mut store = full();
    let filled = |store: &DataStore, label: &str| {
        let mut all = vec![store.root_item()];
        let mut at = 0;
        while let Some(entry) = all.get(at).copied() {
            all.extend(entry.inner_entries());
            at += 1;
        }
        all.into_iter().find(|entry| entry.label() == label).unwrap().id()
    };
    let folder = filled(&store, "Folder \u{1f600} \"quoted\"\n");
    let note = inner(&store, folder)[1];
    let link = filled(&store, "a link");
    store.write_value(folder, vec![7; 5_000]).unwrap();
    let (before, version) = (store.as_json(), store.version().clone());
    let target = store.entry(link).unwrap().target_id();
    let rows = [
        (json!({"Kind": "item", "Id": folder}), ROOT),
        (json!({"Kind": "item", "Id": note}), folder),
        (json!({"Kind": "item", "Id": note, "Type": "text/markdown"}), folder),
        (json!({"Kind": "item", "Id": note, "ValueKind": "literal-reference"}), folder),
        (json!({"Kind": "link", "Id": link, "TargetId": target}), ROOT),
    ];
    for (json, outer) in rows {
        store.import_entry_from_json_at(&json, outer, None).unwrap();
        assert_eq!((store.as_json(), store.version()), (before.clone(), &version), "{json}");
    }
    let root = json!({"Kind": "item", "Id": ROOT, "innerEntries": [{"Kind": "item", "Id": TRASH}]});
    store.import_json(&root).unwrap();
    assert_eq!((store.as_json(), store.version()), (before, &version));
    let fresh = DataStore::from_json(id(2), &root).unwrap();
    assert_eq!(fresh.trash_item().label(), "trash");
    // What is there and empty empties.
    let json = json!({"Kind": "item", "Id": note, "Label": "", "ValueKind": "none", "Info": {}});
    store.import_entry_from_json_at(&json, folder, None).unwrap();
    let emptied = store.entry(note).unwrap();
    assert_eq!((&*emptied.label(), emptied.value_kind()), ("", ValueKind::None));
    assert_eq!((emptied.info_keys().count(), &*emptied.mime_type()), (0, "text/markdown"));
}

/// Changes are well formed that no store here would make.
#[test]
fn what_foreign_programs_write_into_fields_reads_and_goes_out_and_in() {
    let mut foreign = Replica::new(id(7));
    let item = foreign.create_item(ROOT, 0).unwrap();
    let deep = "[".repeat(110) + &"]".repeat(110);
    let info = [
        ("bytes", Value::Bytes(vec![1])),
        ("blob", Value::Blob(BlobRef { hash: blob_hash(b"x"), size: 1, is_text: false })),
        ("deep", Value::Json(deep)),
        ("no-json", Value::Json("[".into())),
        ("nan", Value::Float(f64::NAN)),
        ("fine", Value::Int(1)),
    ];
    for (key, value) in info {
        // Some of them the engine itself refuses.
        drop(foreign.set(item, Field::Info(key.into()), value));
    }
    foreign.set(item, Field::Type, Value::Text(String::new())).unwrap();
    foreign.set(item, Field::Label, Value::Int(1)).unwrap();
    let mut store = store(1);
    let patch = foreign.export(store.version());
    assert!(Patch::decode(&patch).is_ok());
    store.apply_remote_patch(&patch).unwrap();
    let read = store.entry(item).unwrap();
    assert_eq!((&*read.mime_type(), &*read.label()), ("text/plain", ""));
    let map = read.info_map();
    assert!(read.info_keys().eq(map.keys().map(String::as_str)), "{map:?}");
    assert!(
        ["bytes", "blob"].iter().all(|key| read.info(key).is_none() && !map.contains_key(*key))
    );
    assert_eq!((map.get("fine"), map.get("deep")), (Some(&json!(1)), Some(&json!(null))));
    assert_comes_back(&store);
    let copied = store.transact(|store| {
        let json = store.entry(item)?.as_json();
        store.new_entry_from_json_at(&json, ROOT, None)
    });
    assert!(copied.is_ok(), "{:?}", copied.map_err(|error: StoreError| error));
}
