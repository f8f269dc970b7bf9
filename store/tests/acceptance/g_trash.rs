//! G: Trash and the time to live in it.

use std::sync::Arc;
use std::time::Duration;

use sds_store::StoreOptions;
use serde_json::json;

use crate::stores::*;

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn g62_only_the_deleted_item_goes_to_the_end_of_trash() {
    let mut store = store(1);
    let earlier = item(&mut store, ROOT);
    store.delete_entry(earlier, NOW).unwrap();
    let folder = item(&mut store, ROOT);
    let child = item(&mut store, folder);
    store.delete_entry(folder, NOW).unwrap();
    assert_eq!(inner(&store, TRASH), [earlier, folder]);
    assert_eq!(inner(&store, folder), [child]);
    assert!(store.entry(child).unwrap().is_in_trash());
    assert_eq!(store.entry(child).unwrap().trashed_at(), None);
    // Again: to the end, with another time; from deeper inside: lifted out.
    store.delete_entry(earlier, after(1)).unwrap();
    store.delete_entry(child, after(2)).unwrap();
    assert_eq!(inner(&store, TRASH), [folder, earlier, child]);
    assert_eq!(store.entry(earlier).unwrap().trashed_at(), Some(after(1)));
}

#[test]
fn g63_the_time_of_deletion_is_metadata_and_reaches_others() {
    let (mut a, mut b) = twins(|store| {
        item(store, ROOT);
    });
    let entry = inner(&a, ROOT)[2];
    a.delete_entry(entry, NOW).unwrap();
    exchange(&mut a, &mut b);
    for store in [&a, &b] {
        let deleted = store.entry(entry).unwrap();
        assert_eq!(deleted.info("_trashedAt"), Some(json!(NOW.as_millis())));
        assert_eq!(deleted.info_map()["_trashedAt"], json!(NOW.as_millis()));
        assert!(deleted.info_keys().any(|key| key == "_trashedAt"));
    }
}

#[test]
fn g64_what_is_old_enough_is_purged() {
    let mut store = store(1);
    let [old, new] = [0; 2].map(|_| item(&mut store, ROOT));
    store.delete_entry(old, NOW).unwrap();
    store.delete_entry(new, after(90_000)).unwrap();
    let day = Duration::from_hours(24);
    assert_eq!(store.purge_expired_trash_entries(after(90_000), Some(day)).unwrap(), 0);
    assert_eq!(store.purge_expired_trash_entries(after(59_999), Some(MINUTE)).unwrap(), 0);
    assert_eq!(store.purge_expired_trash_entries(after(90_000), Some(MINUTE)).unwrap(), 1);
    assert!(store.entry_with_id(old).is_none());
    // A clock that goes behind the deletion expires nothing, however short the time to wait.
    assert_eq!(store.purge_expired_trash_entries(after(0), Some(Duration::ZERO)).unwrap(), 0);
    assert_eq!(store.purge_expired_trash_entries(after(90_000), Some(Duration::ZERO)).unwrap(), 1);
    // What was moved there has no time.
    let moved = item(&mut store, ROOT);
    store.move_entry_to(moved, TRASH, None).unwrap();
    assert_eq!(store.entry(moved).unwrap().trashed_at(), None);
    assert_eq!(store.purge_expired_trash_entries(after(1 << 40), Some(Duration::ZERO)).unwrap(), 0);
    assert_eq!(store.purge_all_trash_entries().unwrap(), 1);
}

#[test]
fn g65_all_that_have_expired_are_purged() {
    let mut store = store(1);
    for _ in 0..2 {
        let entry = item(&mut store, ROOT);
        item(&mut store, entry);
        store.delete_entry(entry, NOW).unwrap();
    }
    assert_eq!(store.purge_expired_trash_entries(after(60_000), Some(MINUTE)).unwrap(), 2);
    assert_eq!(store.entry_count(), 3);
}

#[test]
fn g67_what_is_protected_is_passed_over() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    store.new_link_at(entry, ROOT, None).unwrap();
    store.delete_entry(entry, NOW).unwrap();
    assert_eq!(store.purge_expired_trash_entries(after(90_000), Some(MINUTE)).unwrap(), 0);
    assert_eq!(store.purge_all_trash_entries().unwrap(), 0);
    assert_eq!(inner(&store, TRASH), [entry]);
}

#[test]
fn g68_out_of_trash_the_time_is_forgotten() {
    let mut store = store(1);
    let folder = item(&mut store, ROOT);
    let entry = item(&mut store, ROOT);
    for target in [ROOT, folder] {
        store.delete_entry(entry, NOW).unwrap();
        store.move_entry_to(entry, target, None).unwrap();
        assert_eq!(store.entry(entry).unwrap().info("_trashedAt"), None);
    }
    // Into another deleted item, too; and it is not back when it is.
    store.delete_entry(entry, NOW).unwrap();
    store.delete_entry(folder, NOW).unwrap();
    store.move_entry_to(entry, folder, None).unwrap();
    assert_eq!(store.entry(entry).unwrap().info("_trashedAt"), None);
    store.move_entry_to(entry, TRASH, None).unwrap();
    assert_eq!(store.entry(entry).unwrap().info("_trashedAt"), None);
    // Reordered within Trash it keeps its time.
    store.move_entry_to(folder, TRASH, None).unwrap();
    assert_eq!(store.entry(folder).unwrap().trashed_at(), Some(NOW));
}

/// The store has no clock: whoever has one asks as often as the options say.
#[test]
fn g71_a_timer_purges_what_has_expired_after_one_interval() {
    let options = StoreOptions::default()
        .with_trash_ttl(MINUTE)
        .with_trash_check_interval(Duration::from_millis(500));
    let interval = options.check_interval().unwrap();
    let mut store = store(1).with_options(options);
    let entry = item(&mut store, ROOT);
    store.delete_entry(entry, NOW).unwrap();
    let first_tick = after(90_000 + i64::try_from(interval.as_millis()).unwrap());
    assert_eq!(store.purge_expired_trash_entries(first_tick, None).unwrap(), 1);
    assert!(store.entry_with_id(entry).is_none());
    let usual = |ttl| StoreOptions::default().with_trash_ttl(ttl).check_interval();
    assert_eq!(usual(MINUTE), Some(Duration::from_secs(15)));
    assert_eq!(usual(Duration::from_hours(720)), Some(Duration::from_hours(1)));
    assert_eq!(usual(Duration::from_millis(1)), Some(Duration::from_millis(1)));
}

#[test]
fn g72_after_dispose_no_handler_is_called_and_nothing_is_purged_by_itself() {
    let mut store = store(1);
    let entry = item(&mut store, ROOT);
    let held = Arc::new(());
    let witness = Arc::clone(&held);
    store
        .on_change(move |_, _| assert_eq!(Arc::strong_count(&witness), 0, "is not called"))
        .detach();
    store.dispose();
    store.dispose();
    assert_eq!(Arc::strong_count(&held), 1, "the handler is gone");
    store.delete_entry(entry, NOW).unwrap();
    assert_eq!(inner(&store, TRASH), [entry], "only who asks purges");
}
