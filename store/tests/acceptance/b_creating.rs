//! B: creating entries and links.

use sds_store::ValueKind;

use crate::stores::*;

#[test]
fn b11_an_item_is_created_last_with_its_type() {
    let mut store = store(1);
    let folder = item(&mut store, ROOT);
    let first = item(&mut store, folder);
    let made = store.new_item_at(Some("text/markdown"), folder, None).unwrap();
    let entry = store.entry(made).unwrap();
    assert!(entry.is_item() && !entry.is_link());
    assert_eq!((&*entry.mime_type(), &*entry.label()), ("text/markdown", ""));
    assert_eq!(entry.outer_item(), Some(store.entry(folder).unwrap()));
    assert_eq!(inner(&store, folder), [first, made]);
    assert!(entry.info_map().is_empty());
    assert_eq!(entry.value_kind(), ValueKind::None);
}

#[test]
fn b12_an_item_without_a_type_is_plain_text() {
    let mut store = store(1);
    let made = item(&mut store, ROOT);
    assert_eq!(store.entry(made).unwrap().mime_type(), "text/plain");
}

#[test]
fn b13_a_type_has_1_to_256_units() {
    let mut store = store(1);
    let made = store.new_item_at(Some(&"x".repeat(256)), ROOT, None).unwrap();
    let count = store.entry_count();
    for bad in [String::new(), "x".repeat(257), "\u{1f600}".repeat(129)] {
        assert_eq!(code(store.new_item_at(Some(&bad), ROOT, None)), "invalid-argument");
        assert_eq!(code(store.set_mime_type(made, &bad)), "invalid-argument");
    }
    assert_eq!(store.entry_count(), count, "a failed creation leaves nothing");
    assert_eq!(store.entry(made).unwrap().mime_type(), "x".repeat(256));
    store.set_mime_type(made, &"\u{1f600}".repeat(128)).unwrap();
    let link = store.new_link_at(made, ROOT, None).unwrap();
    assert_eq!(code(store.set_mime_type(link, "text/plain")), "invalid-argument");
}

#[test]
fn b14_the_container_must_be_an_item_that_is_here() {
    let mut store = store(1);
    let target = item(&mut store, ROOT);
    let link = store.new_link_at(target, ROOT, None).unwrap();
    let json = store.entry(target).unwrap().as_json();
    for bad in [link, unknown()] {
        assert_eq!(code(store.new_item_at(None, bad, None)), "invalid-argument");
        assert_eq!(code(store.new_link_at(target, bad, None)), "invalid-argument");
        assert_eq!(code(store.new_entry_from_json_at(&json, bad, None)), "invalid-argument");
        assert_eq!(code(store.import_entry_from_json_at(&json, bad, None)), "invalid-argument");
    }
}

/// An index is a `usize`, so that there is no negative, broken or absent one to refuse; what is left
/// is that one past the end means last, the same for all three.
#[test]
fn b16_an_index_past_the_end_means_last_wherever_it_is_taken() {
    let mut store = store(1);
    let (folder, other) = (item(&mut store, ROOT), item(&mut store, ROOT));
    let json = store.entry(other).unwrap().as_json();
    for index in [3, 9_999, usize::MAX] {
        let made = store.new_item_at(None, folder, Some(index)).unwrap();
        assert_eq!(inner(&store, folder).last(), Some(&made));
        let made = store.new_entry_from_json_at(&json, folder, Some(index)).unwrap();
        assert_eq!(inner(&store, folder).last(), Some(&made));
        let moved = inner(&store, folder)[0];
        store.move_entry_to(moved, folder, Some(index)).unwrap();
        assert_eq!(inner(&store, folder).last(), Some(&moved));
    }
}

#[test]
fn b17_a_link_shows_its_target_and_holds_nothing() {
    let mut store = store(1);
    let target = item(&mut store, ROOT);
    let link = store.new_link_at(target, ROOT, None).unwrap();
    let entry = store.entry(link).unwrap();
    assert!(entry.is_link() && !entry.is_item());
    assert_eq!(entry.target(), store.entry_with_id(target));
    assert_eq!(store.entry(target).unwrap().links().collect::<Vec<_>>(), [entry]);
    assert_eq!(inner(&store, ROOT).last(), Some(&link));
    assert_eq!(entry.inner_entries().count(), 0);
    assert_eq!(code(store.new_item_at(None, link, None)), "invalid-argument");
    assert_eq!(code(store.write_value(link, "x")), "invalid-argument");
    assert_eq!(code(store.read_value(link)), "invalid-argument");
}

#[test]
fn b18_a_link_needs_an_item_to_point_to() {
    let mut store = store(1);
    let target = item(&mut store, ROOT);
    let link = store.new_link_at(target, ROOT, None).unwrap();
    for bad in [link, unknown()] {
        assert_eq!(code(store.new_link_at(bad, ROOT, None)), "invalid-argument");
    }
}

#[test]
fn b19_an_entry_is_found_again_and_an_unknown_one_is_not() {
    let mut store = store(1);
    let made = item(&mut store, ROOT);
    assert!(store.entry_with_id(unknown()).is_none());
    assert_eq!(code(store.entry(unknown())), "not-found");
    assert_eq!(store.entry_with_id(made), store.entry_with_id(made));
    assert_ne!(store.entry_with_id(made), Some(store.root_item()));
}

#[test]
fn b21_a_link_may_point_outwards_and_leaves_its_target_alone() {
    let mut store = store(1);
    let folder = item(&mut store, ROOT);
    let links = [ROOT, folder].map(|target| store.new_link_at(target, folder, None).unwrap());
    let before = store.entry(ROOT).unwrap().label().into_owned();
    for link in links {
        store.delete_entry(link, NOW).unwrap();
        store.purge_entry(link).unwrap();
    }
    assert_eq!(store.root_item().label(), before);
    assert_eq!(outer(&store, folder), Some(ROOT));
}
