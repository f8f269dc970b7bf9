//! What a file keeps beside its log: seats and snapshots.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sds_engine::{Replica, ReplicaId, Version};
use sds_store::{DataStore, EntryId, StoreError};
use sds_sync::limits::CHECKPOINT_BYTES_MIN;
use sds_sync::{
    LocalStore, MemoryPersistence, Persistence, RedbPersistence, Seat, StorageError, StoreId,
    SyncEngine,
};
use tempfile::TempDir;

fn id() -> StoreId {
    StoreId::new("s").unwrap()
}

fn open(folder: &TempDir) -> LocalStore {
    LocalStore::open_or_create(folder.path(), &id()).unwrap()
}

fn add_item(store: &mut DataStore) -> EntryId {
    store.new_item_at(None, EntryId::ROOT, None).unwrap()
}

/// A text that does not compress, different for each number.
fn noise(number: u64, len: usize) -> String {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b' ' + (state >> 58) as u8)
    };
    (0..len).map(next).collect()
}

fn log_len(file: &impl Persistence) -> usize {
    file.read_log(0).unwrap().changes.len()
}

#[test]
fn a_file_in_another_place_gives_up_its_seats_and_keeps_its_new_one() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut local = open(&here);
    add_item(local.store_mut());
    local.commit().unwrap();
    let first = local.store().replica_id();
    drop(local);
    fs::copy(here.path().join("s.sds"), there.path().join("s.sds")).unwrap();
    let mut copy = open(&there);
    let second = copy.store().replica_id();
    assert_ne!(second, first);
    add_item(copy.store_mut());
    copy.commit().unwrap();
    drop(copy);
    assert_eq!(open(&there).store().replica_id(), second);
    assert_eq!(open(&there).store().entry_count(), 5);
    assert_eq!(open(&here).store().replica_id(), first, "the original stays what it is");
    let seats = RedbPersistence::open_existing(there.path(), &id()).unwrap().seats();
    let given_up = |seat: &Seat| (seat.replica, seat.is_given_up);
    let mut expected = [(first, true), (second, false)];
    expected.sort();
    assert_eq!(seats.iter().map(given_up).collect::<Vec<_>>(), expected);
}

#[test]
fn a_seat_that_was_taken_and_not_used_is_taken_again() {
    let folder = TempDir::new().unwrap();
    let first = open(&folder).store().replica_id();
    assert_eq!(open(&folder).store().replica_id(), first);
    let file = RedbPersistence::open_existing(folder.path(), &id()).unwrap();
    assert_eq!(file.seats(), [Seat::new(first)]);
}

#[test]
fn ids_of_edits_that_were_taken_back_are_not_given_out_again_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let mut local = open(&folder);
    add_item(local.store_mut());
    local.commit().unwrap();
    let mut given = None;
    let failed = local.store_mut().transact(|store| {
        given = Some(store.new_item_at(None, EntryId::ROOT, None)?);
        store.set_label(EntryId::from_bytes([9; 16]), "nobody")
    });
    assert!(matches!(failed, Err(StoreError::NotFound(_))));
    local.commit().unwrap();
    drop(local);
    let mut local = open(&folder);
    assert_ne!(Some(add_item(local.store_mut())), given);
    local.commit().unwrap();
    drop(local);
    open(&folder).store().assert_invariants();
}

/// Goal: opening costs the state, not the log, and finds all that was committed, whenever the process
/// is killed. Method: after each commit the file is copied as it is, and the copy opened.
#[test]
fn after_every_commit_the_file_holds_everything_and_the_log_stays_short() {
    let (folder, killed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut local = open(&folder);
    let item = add_item(local.store_mut());
    let mut longest = 0;
    for number in 0..40 {
        let text = noise(number, 60_000);
        local.store_mut().set_info(item, "text", text.as_str()).unwrap();
        local.store_mut().set_label(item, &number.to_string()).unwrap();
        local.commit().unwrap();
        fs::copy(folder.path().join("s.sds"), killed.path().join("s.sds")).unwrap();
        let file = RedbPersistence::open_existing(killed.path(), &id()).unwrap();
        longest = longest.max(log_len(&file));
        let mut again = LocalStore::load(file).unwrap();
        assert_eq!(again.store().version(), local.store().version());
        assert_eq!(again.store_mut().digest(), local.store_mut().digest(), "commit {number}");
    }
    assert!(longest < 40, "{longest} changes in the log");
    drop(local);
    let file = RedbPersistence::open_existing(folder.path(), &id()).unwrap();
    assert!(file.read_snapshot().unwrap().is_some());
    let changes = LocalStore::load(file).unwrap().store().changes_since(&Version::new());
    assert_eq!(changes.unwrap().len(), 81, "the history is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_leaves_a_snapshot_and_no_log() {
    let memory = MemoryPersistence::new(id(), ReplicaId::new(7).unwrap());
    let engine = SyncEngine::start(LocalStore::load(memory.clone()).unwrap());
    let item = engine.edit(add_item).unwrap();
    engine.flush().await.unwrap();
    assert_eq!((log_len(&memory), memory.read_snapshot().unwrap()), (1, None));
    engine.stop().await.unwrap();
    assert_eq!(log_len(&memory), 0);
    let again = LocalStore::load(memory.clone()).unwrap();
    assert!(again.store().entry_with_id(item).is_some());
    let snapshot = memory.read_snapshot().unwrap();
    SyncEngine::start(again).stop().await.unwrap();
    assert_eq!(memory.read_snapshot().unwrap(), snapshot, "nothing new, nothing written");
}

#[test]
fn a_state_that_joined_is_kept_although_its_changes_are_gone() {
    let folder = TempDir::new().unwrap();
    let mut author = Replica::new(ReplicaId::new(9).unwrap());
    let theirs = author.create_item(EntryId::ROOT, 0).unwrap();
    author.compact();
    let mut local = open(&folder);
    let ours = add_item(local.store_mut());
    local.store_mut().apply_remote_patch(&author.export(&Version::new())).unwrap();
    local.commit().unwrap();
    let later = add_item(local.store_mut());
    local.commit().unwrap();
    let expected = local.store_mut().digest();
    drop(local);
    let mut local = open(&folder);
    for item in [ours, theirs, later] {
        assert!(local.store().entry_with_id(item).is_some());
    }
    assert_eq!(local.store_mut().digest(), expected);
    let file = RedbPersistence::open_existing(folder.path(), &id());
    assert_eq!(file.unwrap_err().code(), "store-locked");
}

/// Goal: no flipped bit in a file panics, or passes for another store. Method: bits all over a file with
/// seats, snapshot, log and blob, one at a time.
#[test]
fn a_flipped_bit_is_an_error_or_makes_no_difference() {
    let (folder, flipped) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut local = open(&folder);
    let (item, photo) = (add_item(local.store_mut()), add_item(local.store_mut()));
    local.store_mut().write_value(photo, noise(99, 150_000).into_bytes()).unwrap();
    for number in 0..11 {
        let text = noise(number, 60_000);
        local.store_mut().set_info(item, "text", text.as_str()).unwrap();
        local.commit().unwrap();
    }
    let expected = local.store_mut().digest();
    drop(local);
    let bytes = fs::read(folder.path().join("s.sds")).unwrap();
    let path = flipped.path().join("s.sds");
    let (mut good, mut bad) = (0, 0);
    for at in (0..600).step_by(5).chain((600..bytes.len()).step_by(bytes.len() / 150)) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&path, &damaged).unwrap();
        match LocalStore::open_existing(flipped.path(), &id()) {
            Ok(mut local) => {
                assert_eq!(local.store_mut().digest(), expected, "byte {at}");
                good += 1;
            }
            Err(error) => {
                let codes = ["store-corrupt", "store-too-new", "wrong-store", "storage-failed"];
                assert!(codes.contains(&error.code()), "byte {at}: {error:?}");
                bad += 1;
            }
        }
    }
    assert!(good > 0 && bad > 0, "{good} good, {bad} bad");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_a_checkpoint_loses_nothing() {
    let inner = MemoryPersistence::new(id(), ReplicaId::new(7).unwrap());
    let is_full = Arc::new(AtomicBool::new(true));
    let full = Arc::clone(&is_full);
    let disk = inner.clone().guarded(move || match full.load(Ordering::SeqCst) {
        true => Err(StorageError::Full { path: "memory".into() }),
        false => Ok(()),
    });
    let engine = SyncEngine::start(LocalStore::load(disk).unwrap());
    let item = engine.edit(add_item).unwrap();
    for number in 0..12 {
        let text = noise(number, CHECKPOINT_BYTES_MIN / 5);
        engine.edit(|store| store.write_value(item, text.as_str())).unwrap().unwrap();
    }
    assert_eq!(engine.flush().await.unwrap_err().code(), "disk-full");
    assert_eq!((log_len(&inner), inner.read_snapshot().unwrap()), (0, None));
    is_full.store(false, Ordering::SeqCst);
    engine.flush().await.unwrap();
    let digest = engine.edit(DataStore::digest).unwrap();
    // Killed here, without a stop.
    let mut again = LocalStore::load(inner.copy()).unwrap();
    assert_eq!(again.store_mut().digest(), digest);
    assert!(inner.read_snapshot().unwrap().is_some());
    engine.stop().await.unwrap();
}
