//! C: label, metadata, type.

use std::collections::BTreeMap;

use serde_json::json;

use crate::stores::*;

#[test]
fn c22_a_label_reads_back_and_may_be_empty() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    for label in ["a label", "", "\u{1f600}"] {
        store.set_label(entry, label).unwrap();
        assert_eq!(store.entry(entry).unwrap().label(), label);
    }
    assert_eq!(code(store.set_label(unknown(), "x")), "not-found");
}

#[test]
fn c22_a_label_can_be_edited_by_characters() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    assert_eq!(code(store.splice_label(entry, 0..1, "x")), "invalid-argument");
    store.splice_label(entry, 0..0, "hello").unwrap();
    store.splice_label(entry, 0..1, "J").unwrap();
    store.update_label(entry, "Jello world").unwrap();
    assert_eq!(store.entry(entry).unwrap().label(), "Jello world");
    store.splice_label(TRASH, 0..5, "bin").unwrap();
    assert_eq!(store.trash_item().label(), "bin", "a label of a system item that was never set");
    let version = store.version().clone();
    store.update_label(entry, "Jello world").unwrap();
    assert_eq!(*store.version(), version, "the same label is no change");
    for range in [3..99, 99..99] {
        assert_eq!(code(store.splice_label(entry, range, "")), "invalid-argument");
    }
    assert_eq!(code(store.splice_label(unknown(), 0..0, "")), "not-found");
    assert_eq!(code(store.update_label(unknown(), "")), "not-found");
}

#[test]
fn c22_concurrent_edits_of_a_label_merge_and_whole_labels_do_not_glue() {
    let (mut a, mut b) = twins(|store| {
        let entry = item(store, ROOT);
        store.set_label(entry, "milk").unwrap();
    });
    let entry = inner(&a, ROOT)[2];
    a.splice_label(entry, 0..0, "oat ").unwrap();
    b.update_label(entry, "milk, bread").unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(a.entry(entry).unwrap().label(), "oat milk, bread");
    a.set_label(entry, "AAA").unwrap();
    b.set_label(entry, "BBB").unwrap();
    exchange(&mut a, &mut b);
    let label = a.entry(entry).unwrap().label();
    assert!(label == "AAA" || label == "BBB", "{label}");
}

#[test]
fn c23_a_label_has_at_most_1024_units_and_stays_on_failure() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    let longest = "x".repeat(1_024);
    store.set_label(entry, &longest).unwrap();
    for bad in ["x".repeat(1_025), "\u{1f600}".repeat(513)] {
        assert_eq!(code(store.set_label(entry, &bad)), "invalid-argument");
        assert_eq!(code(store.update_label(entry, &bad)), "invalid-argument");
    }
    assert_eq!(code(store.splice_label(entry, 0..0, "y")), "invalid-argument");
    assert_eq!(store.entry(entry).unwrap().label(), longest);
    store.splice_label(entry, 0..1, "y").unwrap();
    store.set_label(entry, &"\u{1f600}".repeat(512)).unwrap();
}

#[test]
fn c23_a_label_that_was_merged_past_its_limit_can_still_be_shortened() {
    let (mut a, mut b) = twins(|store| {
        store.set_label(ROOT, &"x".repeat(1_000)).unwrap();
    });
    a.splice_label(ROOT, 0..0, &"a".repeat(24)).unwrap();
    b.splice_label(ROOT, 0..0, &"b".repeat(24)).unwrap();
    exchange(&mut a, &mut b);
    assert_eq!(a.root_item().label().len(), 1_048);
    assert_eq!(code(a.splice_label(ROOT, 0..0, "y")), "invalid-argument");
    a.splice_label(ROOT, 0..2, "y").unwrap();
    assert_eq!(a.root_item().label().len(), 1_047);
    let label = |len| "y".repeat(len);
    assert_eq!(code(a.update_label(ROOT, &label(1_048))), "invalid-argument");
    for len in [1_047, 1_046, 1_024] {
        a.update_label(ROOT, &label(len)).unwrap();
        assert_eq!(a.root_item().label(), label(len));
    }
    assert_eq!(code(a.update_label(ROOT, &label(1_025))), "invalid-argument");
}

#[test]
fn c25_metadata_is_set_read_listed_and_deleted() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    assert_eq!(store.entry(entry).unwrap().info_keys().count(), 0);
    let values = [
        ("bool", json!(true)),
        ("float", json!(0.1)),
        ("int", json!(-7)),
        ("large", json!(u64::MAX)),
        ("list", json!([1, {"a": null, "b": [0.1]}])),
        ("text", json!("x")),
    ];
    for (key, value) in &values {
        store.set_info(entry, key, value).unwrap();
    }
    let read = store.entry(entry).unwrap();
    assert!(read.info_keys().eq(values.iter().map(|(key, _)| *key)));
    assert!(values.iter().all(|(key, value)| read.info(key).as_ref() == Some(value)));
    store.delete_info(entry, "list").unwrap();
    assert_eq!(store.entry(entry).unwrap().info("list"), None);
    assert_eq!(store.entry(entry).unwrap().info_map().len(), values.len() - 1);
    let version = store.version().clone();
    store.delete_info(entry, "list").unwrap();
    assert_eq!(*store.version(), version, "nothing to delete, no change");
    assert_eq!(code(store.delete_info(unknown(), "x")), "not-found");
    assert_eq!(code(store.set_info(unknown(), "x", &1)), "not-found");
}

#[test]
fn c25_what_was_read_is_a_copy() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    store.set_info(entry, "list", &[1]).unwrap();
    store.entry(entry).unwrap().info("list").unwrap().as_array_mut().unwrap().push(json!(2));
    assert_eq!(store.entry(entry).unwrap().info("list"), Some(json!([1])));
}

#[test]
fn c26_after_the_last_key_there_may_be_others() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    store.set_info(entry, "a", &1).unwrap();
    store.delete_info(entry, "a").unwrap();
    assert!(store.entry(entry).unwrap().info_map().is_empty());
    store.set_info(entry, "b", &2).unwrap();
    assert_eq!(store.entry(entry).unwrap().info_map().len(), 1);
}

#[test]
fn c27_a_value_has_at_most_262144_bytes_of_json() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    store.set_info(entry, "k", &"x".repeat(262_142)).unwrap();
    for bad in ["x".repeat(262_143), "\u{e9}".repeat(131_072), "\"".repeat(131_072)] {
        assert_eq!(code(store.set_info(entry, "k", &bad)), "invalid-argument");
    }
    let kept = store.entry(entry).unwrap().info("k").unwrap();
    assert_eq!(kept.as_str().map(str::len), Some(262_142));
}

#[test]
fn c29_keys_have_1_to_1024_units_and_values_are_json() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    store.set_info(entry, &"x".repeat(1_024), &1).unwrap();
    for bad in [String::new(), "x".repeat(1_025), "\u{1f600}".repeat(513), "_trashedAt".into()] {
        assert_eq!(code(store.set_info(entry, &bad, &1)), "invalid-argument");
    }
    assert_eq!(code(store.delete_info(entry, "_trashedAt")), "invalid-argument");
    let no_json = BTreeMap::from([((1, 2), 3)]);
    assert_eq!(code(store.set_info(entry, "k", &no_json)), "invalid-argument");
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(code(store.set_info(entry, "k", &bad)), "invalid-argument");
        assert_eq!(code(store.set_info(entry, "k", &Some((1, [bad])))), "invalid-argument");
        let nested = BTreeMap::from([("a", vec![Ok(0.0), Err::<f64, _>(bad)])]);
        assert_eq!(code(store.set_info(entry, "k", &nested)), "invalid-argument");
    }
    assert_eq!(code(store.set_info(entry, "k", &f32::NAN)), "invalid-argument");
    assert_eq!(store.entry(entry).unwrap().info("k"), None);
    let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    store.set_info(entry, "k", &nested(100)).unwrap();
    assert_eq!(code(store.set_info(entry, "k", &nested(101))), "invalid-argument");
    assert_eq!(store.entry(entry).unwrap().info("k"), Some(nested(100)));
}

#[test]
fn c30_null_is_a_value() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    store.set_info(entry, "null", &()).unwrap();
    let read = store.entry(entry).unwrap();
    assert!(read.info_keys().eq(["null"]));
    assert_eq!((read.info("null"), read.info("absent")), (Some(json!(null)), None));
    let exported = read.as_json_value().unwrap();
    assert_eq!(exported["Info"], json!({"null": null}));
}

#[test]
fn c33_the_limits_hold_for_imports_too() {
    let mut store = store(1);
    let long = |len: usize| "x".repeat(len);
    let rows = [
        json!({"Label": long(5_000)}),
        json!({"Type": ""}),
        json!({"Type": long(257)}),
        json!({"Info": {"": 1}}),
        json!({"Info": {long(1_025): 1}}),
        json!({"Info": {"k": long(262_143)}}),
        json!({"Info": {"_trashedAt": "yesterday"}}),
    ];
    for row in rows {
        let mut bad = json!({"Kind": "item", "Id": unknown()});
        bad.as_object_mut().unwrap().extend(row.as_object().unwrap().clone());
        let good = json!({"Kind": "item", "Id": "11111111-1111-4111-8111-111111111111"});
        let whole = json!({"Kind": "item", "Id": "22222222-2222-4222-8222-222222222222",
            "innerEntries": [good, bad]});
        let text = whole.to_string();
        assert_eq!(code(store.new_entry_from_json_at(&whole, ROOT, None)), "invalid-argument");
        assert_eq!(code(store.new_entry_from_json_at(&text, ROOT, None)), "invalid-argument");
        assert_eq!(code(store.import_entry_from_json_at(&text, ROOT, None)), "invalid-argument");
        assert_eq!(store.entry_count(), 3, "nothing was imported");
    }
    assert!(store.version().is_empty());
}
