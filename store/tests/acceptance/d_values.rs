//! D: values.

use sds_store::{
    DataStore, ItemValue, JsonOptions, JsonSource, NewValue, StoreOptions, ValueKind, blob_hash,
};
use serde_json::json;

use crate::stores::*;

#[test]
fn d34_a_new_item_has_no_value() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    assert_eq!(store.entry(entry).unwrap().value_kind(), ValueKind::None);
    assert_eq!(store.read_value(entry).unwrap(), ItemValue::None);
    assert_eq!(code(store.read_value(unknown())), "not-found");
}

#[test]
fn d35_a_small_text_is_literal() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    store.write_value(entry, "text").unwrap();
    let read = store.entry(entry).unwrap();
    assert_eq!(read.value_kind(), ValueKind::Literal);
    assert!(read.is_literal() && !read.is_binary());
    assert_eq!(read.text().as_deref(), Some("text"));
    assert_eq!(text(&store, entry), "text");
}

#[test]
fn d36_up_to_2048_bytes_are_inline() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    for (len, kind) in
        [(0, ValueKind::Binary), (2_048, ValueKind::Binary), (2_049, ValueKind::BinaryReference)]
    {
        let mut bytes: Vec<u8> = (0..len).map(|at: u32| at.to_le_bytes()[0]).collect();
        store.write_value(entry, bytes.clone()).unwrap();
        let read = store.entry(entry).unwrap();
        assert_eq!(read.value_kind(), kind);
        assert!(read.is_binary() && !read.is_literal());
        assert_eq!(read.value().as_bytes(), Some(&*bytes));
        // What was written is a copy.
        bytes.push(1);
        assert_eq!(
            store.read_value(entry).unwrap().as_bytes().map(<[u8]>::len),
            Some(len as usize)
        );
    }
}

#[test]
fn d37_texts_up_to_the_limit_are_inline_and_longer_ones_read_back_too() {
    let options = StoreOptions::default().with_literal_size_limit(10);
    let stores = [(store(1), 131_072), (store(1).with_options(options), 10)];
    for (mut store, limit) in stores {
        let entry = item(&mut store, ROOT);
        let rows = [
            ("x".repeat(limit), ValueKind::Literal),
            ("\u{1f600}".repeat(limit / 2), ValueKind::Literal),
            ("x".repeat(limit + 1), ValueKind::LiteralReference),
            ("\u{1f600}".repeat(limit / 2 + 1), ValueKind::LiteralReference),
        ];
        for (written, kind) in rows {
            store.write_value(entry, written.as_str()).unwrap();
            assert_eq!(store.entry(entry).unwrap().value_kind(), kind);
            assert!(store.entry(entry).unwrap().is_literal());
            assert_eq!(text(&store, entry), written);
            store.write_value(entry, "").unwrap();
            store.update_value(entry, &written).unwrap();
            assert_eq!(store.entry(entry).unwrap().value_kind(), kind);
            assert_eq!(text(&store, entry), written);
        }
    }
}

#[test]
fn d38_an_empty_text_is_a_text_and_no_value_is_none() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    store.write_value(entry, "").unwrap();
    assert_eq!(store.entry(entry).unwrap().value_kind(), ValueKind::Literal);
    assert_eq!(text(&store, entry), "");
    store.write_value(entry, NewValue::None).unwrap();
    assert_eq!(store.entry(entry).unwrap().value_kind(), ValueKind::None);
    assert_eq!(store.read_value(entry).unwrap(), ItemValue::None);
    store.write_value(entry, None::<&str>).unwrap();
    assert_eq!(store.read_value(entry).unwrap(), ItemValue::None);
}

/// In a program the compiler refuses them; what is left is JSON.
#[test]
fn d39_values_of_other_types_are_refused() {
    let mut store = store(1);
    for bad in [json!(7), json!(null), json!(["x"]), json!({"a": 1}), json!(true)] {
        let json = json!({"Kind": "item", "ValueKind": "literal", "Value": bad});
        assert_eq!(code(store.new_entry_from_json_at(&json, ROOT, None)), "invalid-argument");
        let text = json.to_string();
        assert_eq!(code(store.new_entry_from_json_at(&text, ROOT, None)), "invalid-argument");
    }
    let rows = [
        json!({"Kind": "item", "ValueKind": "pending"}),
        json!({"Kind": "item", "ValueKind": "none", "Value": "x"}),
        json!({"Kind": "item", "ValueKind": "literal"}),
        json!({"Kind": "item", "ValueKind": "binary", "Value": "no base64"}),
        json!({"Kind": "item", "ValueKind": "binary-reference", "Size": 1}),
        json!({"Kind": "item", "ValueKind": "binary-reference", "Hash": blob_hash(b"y")}),
        json!({"Kind": "item", "ValueKind": "binary-reference", "Hash": "ab", "Size": 1}),
        json!({"Kind": "item", "ValueKind": "literal-reference", "Value": "x",
            "Hash": blob_hash(b"y"), "Size": 1}),
        json!({"Kind": "item", "ValueKind": "literal-reference", "Value": "x", "Size": 2}),
    ];
    for bad in rows {
        assert_eq!(
            code(store.new_entry_from_json_at(&bad, ROOT, None)),
            "invalid-argument",
            "{bad}"
        );
    }
}

#[test]
fn d40_a_range_of_a_text_is_replaced() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    store.write_value(entry, "hello world").unwrap();
    store.change_value(entry, 0..5, "Bye").unwrap();
    assert_eq!(text(&store, entry), "Bye world");
}

#[test]
fn d41_the_second_number_is_an_end() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    store.write_value(entry, "Hello, World!").unwrap();
    store.change_value(entry, 7..12, "SDS").unwrap();
    assert_eq!(text(&store, entry), "Hello, SDS!");
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "they are to be refused")]
fn d42_only_inline_texts_have_characters_and_only_so_many() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    let values: [NewValue; 4] =
        [NewValue::None, (&[1, 2]).into(), vec![0; 3_000].into(), "x".repeat(131_073).into()];
    for value in values {
        store.write_value(entry, value).unwrap();
        assert_eq!(code(store.change_value(entry, 0..0, "a")), "change-value-not-literal");
    }
    store.write_value(entry, "a\u{1f600}b").unwrap();
    for bad in [3..1, 0..5, 5..5, usize::MAX..usize::MAX, 0..2, 2..3] {
        assert_eq!(code(store.change_value(entry, bad, "")), "invalid-argument");
    }
    assert_eq!(text(&store, entry), "a\u{1f600}b", "nothing is clamped");
    store.write_value(entry, "x".repeat(131_072)).unwrap();
    assert_eq!(code(store.change_value(entry, 0..0, "y")), "invalid-argument");
    store.change_value(entry, 0..1, "y").unwrap();
}

#[test]
fn d46_a_large_value_survives_json() {
    let mut a = store(1);
    let (large, long) = (item(&mut a, ROOT), item(&mut a, ROOT));
    a.write_value(large, vec![7; 10_000]).unwrap();
    a.write_value(long, "x".repeat(200_000)).unwrap();
    let mut embedded = Vec::new();
    a.write_json_with(&mut embedded, JsonOptions::default().with_blobs()).unwrap();
    let source = JsonSource::Reader(&mut &embedded[..]);
    let b = DataStore::from_json(id(2), source).unwrap();
    assert_eq!(b.read_value(large).unwrap(), a.read_value(large).unwrap());
    assert_eq!(b.read_value(long).unwrap(), a.read_value(long).unwrap());
    assert_eq!(b.as_json(), a.as_json());

    // Without its content it waits for the blob.
    let mut c = DataStore::from_json(id(3), &a.as_json()).unwrap();
    let wanted = c.missing_blobs();
    assert_eq!(wanted, a.referenced_blobs());
    assert!(matches!(c.read_value(large).unwrap(), ItemValue::Pending(_)));
    for blob in wanted {
        c.add_blob(a.blob(&blob.hash).unwrap());
    }
    assert_eq!(c.read_value(large).unwrap(), a.read_value(large).unwrap());
    assert_eq!(c.missing_blobs(), []);

    // As a copy of one entry, by JSON and by bytes.
    let json = json!({"Kind": "item", "ValueKind": "literal-reference", "Value": "short"});
    let copy = c.new_entry_from_json_at(&json, ROOT, None).unwrap();
    assert_eq!(text(&c, copy), "short");
    let bytes = a.entry(large).unwrap().as_binary_with(JsonOptions::default().with_blobs());
    let mut d = store(4);
    let copy = d.new_entry_from_binary_at(&bytes, ROOT, None).unwrap();
    assert_eq!(d.read_value(copy).unwrap(), a.read_value(large).unwrap());
}

#[test]
fn d47_equal_contents_are_kept_once_until_the_last_reference_goes() {
    let mut store = store(1);
    let [one, two] = [0; 2].map(|_| item(&mut store, ROOT));
    let bytes = vec![5; 10_000];
    for entry in [one, two] {
        store.write_value(entry, bytes.clone()).unwrap();
    }
    let hash = blob_hash(&bytes);
    assert_eq!(store.referenced_blobs().len(), 1);
    assert_eq!(store.blob_reference_count(&hash), 2);
    store.delete_entry(one, NOW).unwrap();
    store.purge_entry(one).unwrap();
    assert_eq!(store.blob_reference_count(&hash), 1);
    assert_eq!(store.release_unreferenced_blobs(), []);
    assert_eq!(store.read_value(two).unwrap().as_bytes(), Some(&*bytes));
    store.write_value(two, "gone").unwrap();
    assert_eq!(store.unreferenced_blobs(), [hash]);
    assert_eq!(store.release_unreferenced_blobs(), [hash]);
    assert!(store.blob(&hash).is_none() && store.referenced_blobs().is_empty());
}

#[test]
fn d47_references_follow_patches_rollbacks_and_snapshots() {
    let bytes = vec![5; 10_000];
    let hash = blob_hash(&bytes);
    let (mut a, mut b) = twins(|store| {
        let entry = item(store, ROOT);
        store.write_value(entry, bytes.clone()).unwrap();
    });
    let entry = inner(&a, ROOT)[2];
    assert_eq!(b.blob_reference_count(&hash), 1);
    let failed = b.transact(|store| {
        store.write_value(entry, "no")?;
        assert_eq!(store.blob_reference_count(&hash), 0, "as it reads now");
        store.delete_entry(entry, NOW)?;
        store.purge_entry(entry)?;
        store.move_entry_to(ROOT, ROOT, None)
    });
    assert_eq!(code(failed), "move-would-cycle");
    assert_eq!(b.blob_reference_count(&hash), 1);
    let c = DataStore::from_binary(id(3), &b.as_binary()).unwrap();
    assert_eq!(c.blob_reference_count(&hash), 1);
    a.delete_entry(entry, NOW).unwrap();
    a.purge_entry(entry).unwrap();
    exchange(&mut a, &mut b);
    assert_eq!((a.blob_reference_count(&hash), b.blob_reference_count(&hash)), (0, 0));
    assert_eq!(b.referenced_blobs(), []);
}
