//! I: orphans, import, serialisation.

use sds_store::{DataStore, EntryId, Origin, ValueKind};
use serde_json::json;

use crate::stores::*;

#[test]
fn i86_what_was_put_into_a_purged_item_shows_in_lost_and_found() {
    let (mut a, mut b) = twins(|store| {
        let folder = item(store, ROOT);
        store.delete_entry(folder, NOW).unwrap();
    });
    let folder = inner(&a, TRASH)[0];
    a.purge_entry(folder).unwrap();
    let child = item(&mut b, folder);
    b.set_label(child, "kept").unwrap();
    let version = b.version().clone();
    send(&a, &mut b);
    assert_eq!(inner(&b, LOST_AND_FOUND), [child]);
    send(&b, &mut a);
    assert_eq!(inner(&a, LOST_AND_FOUND), [child]);
    assert_eq!(a.entry(child).unwrap().label(), "kept");
    assert_eq!(a.as_json(), b.as_json());
    let own = |version: &sds_store::Version| version.next(b.replica_id());
    assert_eq!(own(b.version()), own(&version), "nothing is written to rescue it");
}

#[test]
fn i87_the_purged_target_of_a_link_shows_as_an_empty_item() {
    let (mut a, mut b) = twins(|store| {
        let target = store.new_item_at(Some("text/html"), ROOT, None).unwrap();
        store.set_label(target, "gone").unwrap();
        store.delete_entry(target, NOW).unwrap();
    });
    let target = inner(&a, TRASH)[0];
    let link = b.new_link_at(target, ROOT, None).unwrap();
    a.purge_entry(target).unwrap();
    exchange(&mut a, &mut b);
    for store in [&a, &b] {
        let shown = store.entry(target).unwrap();
        assert!(shown.is_item() && shown.is_placeholder());
        assert_eq!(shown.outer_item_id(), Some(LOST_AND_FOUND));
        assert_eq!((&*shown.label(), &*shown.mime_type()), ("", "text/plain"));
        assert_eq!(shown.value_kind(), ValueKind::None);
        assert_eq!(store.entry(link).unwrap().target(), Some(shown));
    }
    // It can be used like any item, and is a real one then.
    b.set_label(target, "again").unwrap();
    let inside = item(&mut b, target);
    exchange(&mut a, &mut b);
    assert!(!a.entry(target).unwrap().is_placeholder());
    assert_eq!(inner(&a, target), [inside]);
}

#[test]
fn i88_a_healthy_store_has_nothing_to_recover() {
    let (mut a, mut b) = twins(|store| {
        item(store, ROOT);
    });
    let (sender, events) = std::sync::mpsc::channel();
    b.on_change(move |_, event| sender.send(event.origin).unwrap()).detach();
    a.set_label(ROOT, "changed").unwrap();
    send(&a, &mut b);
    assert_eq!(events.try_iter().collect::<Vec<_>>(), [Origin::External], "no event of a rescue");
    assert_eq!(b.version(), a.version(), "and no change");
    assert_eq!(inner(&b, LOST_AND_FOUND), []);
}

/// A folder with a note, an item inside the note, and links inside and outside.
fn folder(store: &mut DataStore) -> EntryId {
    let folder = store.new_item_at(Some("text/html"), ROOT, None).unwrap();
    store.set_label(folder, "folder").unwrap();
    store.set_info(folder, "k", &json!([null, 1.5])).unwrap();
    store.write_value(folder, "<p>").unwrap();
    let first = store.new_link_at(folder, folder, None).unwrap();
    store.set_label(first, "to the folder").unwrap();
    let note = item(store, folder);
    store.write_value(note, &[1, 2, 3]).unwrap();
    store.new_link_at(TRASH, note, None).unwrap();
    item(store, note);
    store.new_link_at(note, folder, Some(0)).unwrap();
    folder
}

#[test]
fn i89_an_item_is_imported_as_a_copy() {
    let (mut a, mut b) = (store(1), store(2));
    let original = folder(&mut a);
    let exported = a.entry(original).unwrap();
    let text = exported.as_json();
    let value = exported.as_json_value().unwrap();
    let before = item(&mut b, ROOT);
    let copies = [
        b.new_entry_from_json_at(&text, ROOT, None).unwrap(),
        b.new_entry_from_json_at(&value, ROOT, Some(2)).unwrap(),
    ];
    assert_eq!(inner(&b, ROOT), [TRASH, LOST_AND_FOUND, copies[1], before, copies[0]]);
    for copy in copies {
        assert_ne!(copy, original);
        let copied = b.entry(copy).unwrap();
        assert_eq!((&*copied.label(), &*copied.mime_type()), ("folder", "text/html"));
        assert_eq!(copied.info("k"), Some(json!([null, 1.5])));
        assert_eq!(copied.text().as_deref(), Some("<p>"));
        let [to_note, to_folder, note] = inner(&b, copy)[..] else { panic!("three") };
        assert_eq!(b.entry(to_note).unwrap().target_id(), Some(note), "links lead to the copies");
        assert_eq!(b.entry(to_folder).unwrap().target_id(), Some(copy));
        assert_eq!(b.entry(note).unwrap().value().as_bytes(), Some(&[1, 2, 3][..]));
        let [outwards, _inside] = inner(&b, note)[..] else { panic!("two") };
        assert_eq!(b.entry(outwards).unwrap().target_id(), Some(TRASH), "others where they led");
    }
    b.assert_invariants();
}

#[test]
fn i89_an_import_that_keeps_ids_overwrites_and_is_nothing_new_the_second_time() {
    let mut a = store(1);
    let original = folder(&mut a);
    let json = a.entry(original).unwrap().as_json();
    let mut b = store(2);
    assert_eq!(b.import_entry_from_json_at(&json, ROOT, Some(0)).unwrap(), original);
    assert_eq!(inner(&b, ROOT), [original, TRASH, LOST_AND_FOUND]);
    assert_eq!(b.entry(original).unwrap().as_json(), json);
    let version = b.version().clone();
    for index in [None, Some(0)] {
        b.import_entry_from_json_at(&json, ROOT, index).unwrap();
        assert_eq!(*b.version(), version);
    }
    // Whatever happened to them meanwhile, they become as the JSON says.
    let [to_note, _, note] = inner(&b, original)[..] else { panic!("three") };
    b.set_label(original, "other").unwrap();
    b.set_info(original, "more", &1).unwrap();
    b.write_value(note, "other").unwrap();
    b.move_entry_to(note, ROOT, None).unwrap();
    b.move_entry_to(to_note, original, None).unwrap();
    b.delete_entry(original, NOW).unwrap();
    b.import_entry_from_json_at(&json, ROOT, Some(0)).unwrap();
    assert_eq!(b.entry(original).unwrap().as_json(), json);
    assert_eq!(inner(&b, ROOT)[0], original);
    b.assert_invariants();
}

#[test]
fn i89_a_whole_store_is_imported_into_another() {
    let a = full();
    let json = a.as_json();
    let mut b = store(2);
    let own = item(&mut b, ROOT);
    b.import_json(&json).unwrap();
    let mut expected: Vec<_> = inner(&a, ROOT);
    let rest: Vec<_> = inner(&b, ROOT).into_iter().filter(|entry| *entry != own).collect();
    assert_eq!(rest, expected, "what was here stays, the others are in their order");
    assert_eq!(b.trash_item().as_json(), a.trash_item().as_json());
    let version = b.version().clone();
    b.import_json(&a.as_json_value().unwrap()).unwrap();
    assert_eq!(*b.version(), version, "importing twice changes nothing");
    // Its own JSON changes nothing either.
    b.import_json(&b.as_json()).unwrap();
    assert_eq!(*b.version(), version);
    // As a copy it is there again, but for what is in the system items.
    let made = b.import_json_as_copy(&json).unwrap();
    expected.retain(|entry| !entry.is_well_known());
    assert_eq!(made.len(), expected.len());
    assert!(made.iter().all(|copy| !expected.contains(copy)));
    assert_eq!(inner(&b, ROOT)[inner(&b, ROOT).len() - made.len()..], made);
    assert_eq!(inner(&b, TRASH), inner(&a, TRASH));
    b.assert_invariants();
}

#[test]
fn i92_a_link_is_imported_with_its_target() {
    let mut store = store(1);
    let target = item(&mut store, ROOT);
    let link = store.new_link_at(target, ROOT, None).unwrap();
    store.set_label(link, "a link").unwrap();
    let json = store.entry(link).unwrap().as_json();
    let copy = store.new_entry_from_json_at(&json, target, None).unwrap();
    let copied = store.entry(copy).unwrap();
    assert_ne!(copy, link);
    assert_eq!((copied.target_id(), &*copied.label()), (Some(target), "a link"));
    // A target that is not here shows as a placeholder; one that is no item is refused.
    let elsewhere = json!({"Kind": "link", "TargetId": unknown()});
    let copy = store.new_entry_from_json_at(&elsewhere, ROOT, None).unwrap();
    assert!(store.entry(copy).unwrap().target().unwrap().is_placeholder());
    let wrong = json!({"Kind": "link", "TargetId": link});
    assert_eq!(code(store.new_entry_from_json_at(&wrong, ROOT, None)), "invalid-argument");
    store.assert_invariants();
}

#[test]
fn i93_what_is_no_entry_is_refused() {
    let mut store = store(1);
    let values = [
        json!(null),
        json!(7),
        json!([]),
        json!({}),
        json!({"Kind": "folder"}),
        json!({"Kind": 7}),
        json!({"Kind": "link"}),
        json!({"Kind": "link", "TargetId": "nowhere"}),
        json!({"Kind": "link", "TargetId": TRASH, "innerEntries": [{"Kind": "item"}]}),
        json!({"Kind": "item", "Id": "no uuid"}),
        json!({"Kind": "item", "innerEntries": {}}),
        json!({"Kind": "item", "innerEntries": [7]}),
        json!({"Kind": "item", "Info": []}),
        json!({"Kind": "item", "Label": 7}),
        json!({"Kind": "item", "Size": -1}),
        json!({"Kind": "item", "Id": TRASH, "innerEntries": [{"Kind": "item", "Id": TRASH}]}),
    ];
    let texts = [
        "",
        "{",
        "nonsense",
        "{\"Kind\":\"item\"",
        "{\"Kind\":\"item\"} x",
        "{\"Kind\":\"item\",}",
        "{\"Kind\":\"item\",\"Kind\":\"item\"}",
        "{\"Kind\":\"item\",\"Info\":{\"a\":1,\"a\":2}}",
        "{\"Kind\":\"item\",\"innerEntries\":[],\"innerEntries\":[]}",
        "{\"Kind\":\"item\",\"Label\":\"\\ud800\"}",
        "{\"Kind\":\"item\",\"Info\":{\"a\":1e999}}",
        "\u{feff}{}",
    ];
    let texts = texts.into_iter().map(str::to_owned);
    for bad in texts.chain(values.iter().map(ToString::to_string)) {
        assert_eq!(
            code(store.new_entry_from_json_at(&bad, ROOT, None)),
            "invalid-argument",
            "{bad}"
        );
        assert_eq!(
            code(store.import_entry_from_json_at(&bad, ROOT, None)),
            "invalid-argument",
            "{bad}"
        );
        assert_eq!(code(store.import_json(&bad)), "invalid-argument", "{bad}");
        assert_eq!(code(store.import_json_as_copy(&bad)), "invalid-argument", "{bad}");
    }
    for bad in &values {
        assert_eq!(
            code(store.new_entry_from_json_at(bad, ROOT, None)),
            "invalid-argument",
            "{bad}"
        );
    }
    assert!(store.version().is_empty());
}

#[test]
fn i93_ids_must_be_there_once_and_mean_the_same() {
    let mut store = store(1);
    let known = item(&mut store, ROOT);
    let link = store.new_link_at(known, ROOT, None).unwrap();
    let top = unknown();
    let rows = [
        json!({"Kind": "item", "innerEntries": []}),
        json!({"Kind": "item", "Id": ROOT}),
        json!({"Kind": "item", "Id": top, "innerEntries": [{"Kind": "item", "Id": TRASH}]}),
        json!({"Kind": "item", "Id": top, "innerEntries": [{"Kind": "item", "Id": top}]}),
        json!({"Kind": "item", "Id": link}),
        json!({"Kind": "link", "Id": known, "TargetId": TRASH}),
        json!({"Kind": "link", "Id": link, "TargetId": TRASH}),
    ];
    let version = store.version().clone();
    for bad in rows {
        assert_eq!(
            code(store.import_entry_from_json_at(&bad, ROOT, None)),
            "invalid-argument",
            "{bad}"
        );
    }
    assert_eq!(*store.version(), version);
    let into_itself = json!({"Kind": "item", "Id": known});
    assert_eq!(
        code(store.import_entry_from_json_at(&into_itself, known, None)),
        "move-would-cycle"
    );
}

#[test]
fn i94_an_entry_survives_as_bytes() {
    let mut a = store(1);
    let original = folder(&mut a);
    let link = a.new_link_at(original, ROOT, None).unwrap();
    let mut b = store(2);
    for (entry, is_item) in [(original, true), (link, false)] {
        let bytes = a.entry(entry).unwrap().as_binary();
        assert_eq!(bytes[..2], [0x1f, 0x8b]);
        let copy = b.new_entry_from_binary_at(&bytes, ROOT, None).unwrap();
        assert_eq!(b.entry(copy).unwrap().is_item(), is_item);
        assert_eq!(b.entry(copy).unwrap().label(), a.entry(entry).unwrap().label());
        let count = b.entry_count();
        for end in 0..bytes.len() {
            let result = b.new_entry_from_binary_at(&bytes[..end], ROOT, None);
            assert_eq!(code(result), "invalid-argument", "cut at {end}");
        }
        assert_eq!(b.entry_count(), count);
    }
    for bad in [&b""[..], b"junk", &a.as_binary()] {
        assert_eq!(code(b.new_entry_from_binary_at(bad, ROOT, None)), "invalid-argument");
    }
}

#[test]
fn i94_json_has_the_documented_shape_and_order() {
    let mut store = store(1);
    let entry = store.new_item_at(Some("text/html"), ROOT, Some(0)).unwrap();
    store.set_label(entry, "a \"quoted\"\nlabel").unwrap();
    let bytes = store.new_item_at(Some("image/png"), entry, None).unwrap();
    store.write_value(bytes, b"\0\x01").unwrap();
    let large = store.new_item_at(Some("image/png"), entry, None).unwrap();
    store.write_value(large, vec![1; 3_000]).unwrap();
    let link = store.new_link_at(entry, entry, None).unwrap();
    store.write_value(entry, "<p>").unwrap();
    let json = json(&store);
    let first = &json["innerEntries"][0];
    let keys: Vec<&String> = first.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["Kind", "Id", "Label", "Type", "ValueKind", "Info", "innerEntries", "Value"]);
    assert_eq!(first["Value"], "<p>");
    assert_eq!(first["innerEntries"][0]["Value"], "AAE=");
    assert_eq!(first["innerEntries"][1]["Size"], 3_000);
    assert_eq!(first["innerEntries"][1]["ValueKind"], "binary-reference");
    let expected = json!({
        "Kind": "link", "Id": link, "Label": "", "TargetId": entry, "Info": {},
    });
    assert_eq!(first["innerEntries"][2], expected);
}

#[test]
fn i94_trees_deeper_than_any_stack_go_out_and_in() {
    const DEPTH: usize = 20_000;
    let mut a = store(1);
    let mut bottom = ROOT;
    a.transact(|store| {
        (0..DEPTH).try_for_each(|_| {
            bottom = store.new_item_at(None, bottom, None)?;
            Ok::<_, sds_store::StoreError>(())
        })
    })
    .unwrap();
    let json = a.as_json();
    assert_eq!(code(a.as_json_value()), "too-deep");
    assert!(serde_json::to_value(&a).is_err());
    let mut b = DataStore::from_json(id(2), &json).unwrap();
    assert_eq!(b.as_json(), json);
    assert_eq!(b.entry(bottom).unwrap().outer_item_chain().count(), DEPTH);
    let top = inner(&b, ROOT)[2];
    b.delete_entry(top, NOW).unwrap();
    b.purge_entry(top).unwrap();
    assert_eq!(b.entry_count(), 3);
    let bomb = "{\"Kind\":\"item\",\"innerEntries\":[".repeat(70_000);
    assert_eq!(code(b.new_entry_from_json_at(&bomb, ROOT, None)), "invalid-argument");
    let arrays = format!("{{\"Kind\":\"item\",\"Info\":{{\"k\":{}", "[".repeat(300_000));
    assert_eq!(code(b.new_entry_from_json_at(&arrays, ROOT, None)), "invalid-argument");
}

#[test]
fn what_as_json_gives_is_taken_however_deep_up_to_the_bound() {
    const DEPTH: usize = 70_000;
    let mut chain = store(1);
    chain
        .transact(|store| {
            let mut outer = ROOT;
            for _ in 0..DEPTH {
                outer = store.new_item_at(None, outer, None)?;
            }
            Ok::<_, sds_store::StoreError>(())
        })
        .unwrap();
    let json = chain.as_json();
    let copy = DataStore::from_json(sds_store::ReplicaId::new(2).unwrap(), &json).unwrap();
    assert_eq!(copy.entry_count(), chain.entry_count());
    assert_eq!(copy.as_json(), json);
}

/// Ids that an import brings may be those that this replica would give out next.
#[test]
fn i_new_entries_are_none_that_an_import_has_brought() {
    let mut a = store(1);
    for _ in 0..20 {
        let folder = item(&mut a, ROOT);
        a.set_label(folder, "kept").unwrap();
        item(&mut a, folder);
    }
    let json = a.as_json();
    let mut later = store(1);
    later.import_json(&json).unwrap();
    for mut copy in [DataStore::from_json(id(1), &json).unwrap(), later] {
        assert_eq!(copy.as_json(), json);
        let count = copy.entry_count();
        let new: Vec<EntryId> = (0..100).map(|_| item(&mut copy, ROOT)).collect();
        assert_eq!(copy.entry_count(), count + 100);
        for one in &new {
            assert_eq!((outer(&copy, *one), inner(&copy, *one)), (Some(ROOT), vec![]));
            assert_eq!(copy.entry(*one).unwrap().label(), "");
        }
        for one in new {
            copy.delete_entry(one, NOW).unwrap();
            copy.purge_entry(one).unwrap();
        }
        assert_eq!(copy.as_json(), json);
        copy.assert_invariants();
    }
}
