//! A: construction and well-known items.

use std::time::Duration;

use sds_store::{DataStore, StoreOptions, Version};

use crate::stores::*;

#[test]
fn a1_a_fresh_store_holds_exactly_the_system_items() {
    let store = store(1);
    assert_eq!(store.entry_count(), 3);
    assert_eq!(ROOT.to_string(), "00000000-0000-4000-8000-000000000000");
    assert_eq!(TRASH.to_string(), "00000000-0000-4000-8000-000000000001");
    assert_eq!(LOST_AND_FOUND.to_string(), "00000000-0000-4000-8000-000000000002");
    assert_eq!(inner(&store, ROOT), [TRASH, LOST_AND_FOUND]);
    assert!(store.root_item().is_root_item() && store.trash_item().is_trash_item());
    assert!(store.lost_and_found_item().is_lost_and_found_item());
    assert!(!store.trash_item().is_root_item());
}

#[test]
fn a2_system_items_have_their_labels_and_places() {
    let store = store(1);
    let items = [store.root_item(), store.trash_item(), store.lost_and_found_item()];
    assert_eq!(items.map(|item| item.label()), ["", "trash", "lost-and-found"]);
    assert_eq!(items.map(|item| item.outer_item_id()), [None, Some(ROOT), Some(ROOT)]);
    assert_eq!(items.map(|item| item.outer_item_chain().count()), [0, 1, 1]);
    assert_eq!(items.map(|item| item.index()), [None, Some(0), Some(1)]);
}

#[test]
fn a3_trash_can_be_renamed_and_still_not_deleted() {
    let mut store = store(1);
    store.set_label(TRASH, "bin").unwrap();
    store.set_info(TRASH, "icon", &"can").unwrap();
    assert_eq!(store.trash_item().label(), "bin");
    assert_eq!(code(store.delete_entry(TRASH, NOW)), "delete-not-permitted");
}

#[test]
fn a4_system_items_cannot_be_deleted() {
    let mut store = store(1);
    for id in [ROOT, TRASH, LOST_AND_FOUND] {
        assert!(!store.entry(id).unwrap().may_be_deleted());
        assert_eq!(code(store.delete_entry(id, NOW)), "delete-not-permitted");
        assert_eq!(code(store.purge_entry(id)), "purge-not-in-trash");
    }
    assert!(store.version().is_empty());
}

#[test]
fn a5_a_snapshot_restores_everything_under_another_replica() {
    let mut a = full();
    let bytes = a.as_binary();
    assert_eq!(bytes[..2], [0x1f, 0x8b]);
    let mut b = DataStore::from_binary(id(2), &bytes).unwrap();
    assert_eq!(b.as_json(), a.as_json());
    assert_eq!(b.digest(), a.digest());
    assert_ne!(b.replica_id(), a.replica_id(), "whoever restores is somebody else");
    exchange(&mut a, &mut b);
    for bad in [&b""[..], b"junk", &bytes[..bytes.len() / 2], &bytes[1..]] {
        assert_eq!(code(DataStore::from_binary(id(2), bad)), "malformed-patch");
    }
}

#[test]
fn a6_a_store_survives_json_as_text_and_as_a_value() {
    let store = full();
    let text = store.as_json();
    let value = store.as_json_value().unwrap();
    assert_eq!(value, json(&store), "the value says what the text says");
    assert_eq!(value["Kind"], "item");
    let mut indented = Vec::new();
    store.write_json(&mut indented).unwrap();
    let indented = String::from_utf8(indented).unwrap();
    let copies = [
        DataStore::from_json(id(2), &text).unwrap(),
        DataStore::from_json(id(2), &value).unwrap(),
        DataStore::from_json(id(2), &indented).unwrap(),
    ];
    for copy in copies {
        assert_eq!(copy.as_json(), text);
        copy.assert_invariants();
    }
}

#[test]
fn a6_what_is_no_store_is_refused() {
    let entry = item_json();
    for bad in ["", "{", "null", "[]", "7", "{}", r#"{"Kind":"item"}"#, &entry, "{} {}"] {
        assert_eq!(code(DataStore::from_json(id(2), bad)), "invalid-argument", "{bad}");
    }
}

fn item_json() -> String {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    store.entry(entry).unwrap().as_json()
}

#[test]
fn a8_stores_begun_independently_merge() {
    let (mut a, mut b) = (store(1), store(2));
    a.set_label(TRASH, "AAA").unwrap();
    b.set_label(LOST_AND_FOUND, "BBB").unwrap();
    let (from_a, from_b) = (a.export_patch(&Version::new()), b.export_patch(&Version::new()));
    b.apply_remote_patch(&from_a).unwrap();
    a.apply_remote_patch(&from_b).unwrap();
    for store in [&a, &b] {
        assert_eq!(store.trash_item().label(), "AAA");
        assert_eq!(store.lost_and_found_item().label(), "BBB");
    }
}

#[test]
fn a10_without_a_time_to_wait_nothing_is_purged() {
    let options = StoreOptions::default().with_trash_ttl(Duration::ZERO);
    assert_eq!(options.check_interval(), None, "no timer is to run");
    let mut store = store(1).with_options(options);
    let entry = item(&mut store, ROOT);
    store.delete_entry(entry, NOW).unwrap();
    for day in 1..400 {
        let now = after(day * 86_400_000);
        assert_eq!(store.purge_expired_trash_entries(now, None).unwrap(), 0);
    }
    assert_eq!(inner(&store, TRASH), [entry]);
}
