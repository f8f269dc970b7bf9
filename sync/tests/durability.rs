//! A store and its disk: what is durable when, and what happens when the disk fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sds_engine::ReplicaId;
use sds_store::{DataStore, EntryId, StoreError};
use sds_sync::{
    Batch, LocalStore, MemoryPersistence, Persistence, StorageError, StoreId, SyncEngine,
};
use tempfile::TempDir;

fn id() -> StoreId {
    StoreId::new("s").unwrap()
}

fn memory() -> MemoryPersistence {
    MemoryPersistence::new(id(), ReplicaId::new(7).unwrap())
}

fn add_item(store: &mut DataStore) -> EntryId {
    store.new_item_at(None, EntryId::ROOT, None).unwrap()
}

#[test]
fn what_was_committed_is_there_again_and_the_replica_goes_on_counting() {
    let folder = TempDir::new().unwrap();
    let mut first = LocalStore::open_or_create(folder.path(), &id()).unwrap();
    let item = add_item(first.store_mut());
    first.commit().unwrap();
    first.commit().unwrap();
    let lost = add_item(first.store_mut());
    let replica = first.store().replica_id();
    drop(first);

    let mut second = LocalStore::open_existing(folder.path(), &id()).unwrap();
    assert_eq!(second.store().replica_id(), replica);
    assert!(second.store().entry_with_id(item).is_some());
    assert!(second.store().entry_with_id(lost).is_none(), "never committed");
    add_item(second.store_mut());
    second.commit().unwrap();
    drop(second);
    let mut third = LocalStore::open_existing(folder.path(), &id()).unwrap();
    third.store().assert_invariants();
    assert_eq!(third.store().root_item().inner_entry_count(), 4);
    assert_eq!(third.store_mut().digest(), third.store_mut().digest());
}

#[test]
fn blobs_are_committed_with_the_changes_that_refer_to_them() {
    let folder = TempDir::new().unwrap();
    let mut local = LocalStore::open_or_create(folder.path(), &id()).unwrap();
    let content = vec![7_u8; 2_000_000];
    let item = add_item(local.store_mut());
    local.store_mut().write_value(item, content.as_slice()).unwrap();
    local.commit().unwrap();
    drop(local);
    let local = LocalStore::open_existing(folder.path(), &id()).unwrap();
    let blob = local.store().entry_with_id(item).unwrap().blob_ref().unwrap();
    assert_eq!(local.store().blob(&blob.hash).as_deref(), Some(content.as_slice()));
}

#[test]
fn a_log_with_a_gap_or_damage_is_no_store() {
    let mut disk = memory();
    let mut local = LocalStore::load(disk.clone()).unwrap();
    add_item(local.store_mut());
    add_item(local.store_mut());
    let changes = local.store().changes_since(&sds_engine::Version::new()).unwrap();
    let mut gap = memory();
    gap.append(&Batch { changes: changes[1..].to_vec(), ..Batch::default() }).unwrap();
    assert_eq!(LocalStore::load(gap).unwrap_err().code(), "store-corrupt");
    disk.append(&Batch { changes: vec![Arc::from(*b"garbage")], ..Batch::default() }).unwrap();
    assert_eq!(LocalStore::load(disk).unwrap_err().code(), "store-corrupt");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_flushed_survives_an_engine_that_was_never_stopped() {
    let folder = TempDir::new().unwrap();
    let engine = SyncEngine::start(LocalStore::open_or_create(folder.path(), &id()).unwrap());
    let item = engine.edit(add_item).unwrap();
    engine.flush().await.unwrap();
    assert!(engine.status().persisted.covers(&engine.status().local));
    drop(engine);
    let again = LocalStore::open_existing(folder.path(), &id()).unwrap();
    assert!(again.store().entry_with_id(item).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn uncommitted_edits_of_a_local_store_are_written_by_its_engine() {
    let disk = memory();
    let mut local = LocalStore::load(disk.clone()).unwrap();
    let item = add_item(local.store_mut());
    let engine = SyncEngine::start(local);
    engine.stop().await.unwrap();
    assert!(LocalStore::load(disk).unwrap().store().entry_with_id(item).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_reported_and_loses_nothing_once_there_is_room() {
    let (disk, is_full) = (memory(), Arc::new(AtomicBool::new(true)));
    let full = Arc::clone(&is_full);
    let failing = disk.clone().guarded(move || match full.load(Ordering::SeqCst) {
        true => Err(StorageError::Full { path: "memory".into() }),
        false => Ok(()),
    });
    let engine = SyncEngine::start(LocalStore::load(failing).unwrap());
    let items = [engine.edit(add_item).unwrap(), engine.edit(add_item).unwrap()];
    assert_eq!(engine.flush().await.unwrap_err().code(), "disk-full");
    assert_eq!(engine.status().storage_error.map(|error| error.code()), Some("disk-full"));
    assert!(disk.read_log(0).unwrap().changes.is_empty());
    let waited = engine.wait_until_synced(Duration::from_secs(5)).await;
    assert_eq!(waited.unwrap_err().code(), "disk-full");

    is_full.store(false, Ordering::SeqCst);
    engine.flush().await.unwrap();
    assert!(engine.status().storage_error.is_none());
    engine.stop().await.unwrap();
    let again = LocalStore::load(disk).unwrap();
    assert!(items.iter().all(|item| again.store().entry_with_id(*item).is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_fails_changes_nothing_and_writes_nothing() {
    let disk = memory();
    let engine = SyncEngine::start(LocalStore::load(disk.clone()).unwrap());
    let failed = engine.edit(|store| {
        store.transact(|store| {
            add_item(store);
            store.set_label(EntryId::from_bytes([9; 16]), "nobody")
        })
    });
    assert!(matches!(failed, Ok(Err(StoreError::NotFound(_)))), "{failed:?}");
    engine.stop().await.unwrap();
    let items = LocalStore::load(disk).unwrap().store().root_item().inner_entry_count();
    assert_eq!(items, 2);
}
