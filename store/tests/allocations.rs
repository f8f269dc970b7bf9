//! Reading what is inside an item takes no memory.

use std::io::Write;

use allocation_counter::measure;
use flate2::Compression;
use flate2::write::GzEncoder;
use sds_store::{DataStore, EntryId, ReplicaId};

#[test]
fn iterating_over_entries_allocates_nothing() {
    let mut store = DataStore::new(ReplicaId::new(1).unwrap());
    let folder = store.new_item_at(None, EntryId::ROOT, None).unwrap();
    let mut last = folder;
    for _ in 0..1_000 {
        last = store.new_item_at(None, folder, None).unwrap();
        store.set_label(last, "a label").unwrap();
        store.write_value(last, "a text").unwrap();
    }
    store.new_link_at(last, folder, Some(0)).unwrap();
    let folder = store.entry(folder).unwrap();
    let mut seen = 0;
    let taken = measure(|| {
        for entry in folder.inner_entries().chain(folder.inner_entries().rev()) {
            let is_known = entry.outer_item() == Some(folder) && entry.index().is_some();
            let is_filled = entry.is_link() || entry.text().is_some_and(|text| text.len() == 6);
            seen += usize::from(is_known && is_filled && entry.label().len() <= 7);
        }
        seen += folder.inner_entries().filter(|entry| entry.is_item()).count();
        seen += folder.inner_entry_count();
        seen += usize::from(folder.inner_entry_at(500).is_some());
    });
    assert_eq!(seen, 2 * 1_001 + 1_000 + 1_001 + 1);
    assert_eq!(taken.count_total, 0, "{taken:?}");
}

/// Fields are put in order first, which takes room from nine of them on.
#[test]
fn listing_keys_of_metadata_allocates_only_where_there_are_many() {
    let mut store = DataStore::new(ReplicaId::new(1).unwrap());
    for (count, most) in [(7, 0), (100, 10)] {
        let item = store.new_item_at(None, EntryId::ROOT, None).unwrap();
        for key in 0..count {
            store.set_info(item, &format!("{key}"), &key).unwrap();
        }
        let item = store.entry(item).unwrap();
        let mut listed = 0;
        let taken = measure(|| listed = item.info_keys().count());
        assert_eq!(listed, count);
        assert!(taken.count_total <= most, "{count} keys: {taken:?}");
    }
}

/// Goal: an import takes a few times the room of its JSON, whatever that says. Method: what takes much room when
/// it is parsed, or what one transaction cannot have, each as text and compressed.
#[test]
fn an_import_takes_a_few_times_the_room_of_its_json() {
    let repeated = |part: &str| part.repeat((2 << 20) / part.len());
    let with_info = |info: &str| format!(r#"{{"Kind":"item","Info":{{{info}}}}}"#);
    let many_keys: String = (0..200_000).map(|key| format!(r#""{key}":0,"#)).collect();
    let text = "x".repeat(250_000);
    let long_values: Vec<String> = (0..72).map(|key| format!(r#""{key}":"{text}""#)).collect();
    let entries = repeated(r#"{"Kind":"item"},"#);
    let rows = [
        (with_info(&format!(r#""a":[{}0]"#, repeated("0,"))), "invalid-argument"),
        (with_info(&format!(r#"{many_keys}"_trashedAt":"""#)), "invalid-argument"),
        (with_info(&long_values.join(",")), "transaction-too-large"),
        (format!(r#"{{"Kind":"item","innerEntries":[{entries}{{}}]}}"#), "invalid-argument"),
    ];
    let mut store = DataStore::new(ReplicaId::new(1).unwrap());
    for (json, code) in rows {
        let mut binary = GzEncoder::new(Vec::new(), Compression::fast());
        binary.write_all(json.as_bytes()).unwrap();
        let binary = binary.finish().unwrap();
        for is_packed in [false, true] {
            let mut refused = None;
            let taken = measure(|| {
                let import = match is_packed {
                    true => store.new_entry_from_binary_at(&binary, EntryId::ROOT, None),
                    false => store.new_entry_from_json_at(&json, EntryId::ROOT, None),
                };
                refused = import.err();
            });
            assert_eq!(refused.map(|error| error.code()), Some(code), "{}", &json[..40]);
            let times = taken.bytes_max / json.len() as u64;
            assert!(times < 20, "{times} times {}", &json[..40]);
        }
    }
}
