//! What a look at a store's file finds, and that it changes nothing.

use std::fs;
use std::path::PathBuf;

use redb::{Database, TableDefinition};
use sds_engine::{BlobHash, BlobRef};
use sds_store::EntryId;
use sds_sync::{CheckReport, Finding, LocalStore, StoreId, SyncEngine, check_store, log_value};
use tempfile::TempDir;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const SEATS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("seats");
const SNAPSHOT: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("snapshot");
const ROWS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("blob_rows");

fn id() -> StoreId {
    StoreId::new("s").unwrap()
}

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join(id().file_name())
}

/// A store with a snapshot, changes after it, a large value, and one that was not fetched.
async fn filled() -> TempDir {
    let folder = TempDir::new().unwrap();
    let engine = SyncEngine::start(LocalStore::open_or_create(folder.path(), &id()).unwrap());
    let add = |engine: &SyncEngine, value: &[u8]| {
        let added = engine.edit(|store| {
            let item = store.new_item_at(None, EntryId::ROOT, None)?;
            store.write_value(item, value)?;
            Ok::<_, sds_store::StoreError>(item)
        });
        added.unwrap().unwrap()
    };
    add(&engine, b"before the snapshot");
    engine.stop().await.unwrap();
    let engine = SyncEngine::start(LocalStore::open_existing(folder.path(), &id()).unwrap());
    let item = add(&engine, &vec![7; 600_000]);
    let other = add(&engine, b"small");
    let away = BlobRef { hash: BlobHash([1; 32]), size: 9, is_text: false };
    engine.edit(|store| store.write_blob_value(other, away)).unwrap().unwrap();
    engine.edit(|store| store.set_label(item, "film")).unwrap().unwrap();
    engine.flush().await.unwrap();
    // Dropped like this the log stays.
    drop(engine);
    drop(LocalStore::open_existing(folder.path(), &id()).unwrap());
    folder
}

/// Looks at the file, and makes sure that it is as it was.
fn check(folder: &TempDir) -> Result<CheckReport, &'static str> {
    let before = (fs::read(path(folder)).unwrap(), fs::metadata(path(folder)).unwrap().modified());
    let report = check_store(folder.path(), &id()).map_err(|error| error.code());
    let after = (fs::read(path(folder)).unwrap(), fs::metadata(path(folder)).unwrap().modified());
    assert!(before.0 == after.0 && before.1.unwrap() == after.1.unwrap(), "the file has changed");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was added");
    report
}

fn findings(folder: &TempDir) -> Vec<Finding> {
    check(folder).unwrap().findings
}

/// Changes the file as no program of ours does, so that all its checksums are right.
fn forge(folder: &TempDir, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = Database::open(path(folder)).unwrap();
    let write = database.begin_write().unwrap();
    change(&write);
    write.commit().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_file_is_sound_also_when_it_was_not_closed_or_may_only_be_read() {
    let folder = filled().await;
    let sound = CheckReport { findings: vec![], changes: 6, blobs: 1, missing_blobs: 1 };
    assert_eq!(check(&folder).unwrap(), sound);
    let open = LocalStore::open_existing(folder.path(), &id()).unwrap();
    let killed = TempDir::new().unwrap();
    fs::copy(path(&folder), path(&killed)).unwrap();
    drop(open);
    assert_eq!(check(&killed).unwrap(), sound);
    let mut permissions = fs::metadata(path(&killed)).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(path(&killed), permissions).unwrap();
    assert_eq!(check(&killed).unwrap(), sound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_of_this_store_is_an_error_that_says_so() {
    let empty = TempDir::new().unwrap();
    let missing = check_store(empty.path(), &id()).unwrap_err();
    assert_eq!(missing.code(), "store-not-found");
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
    let folder = filled().await;
    let open = LocalStore::open_existing(folder.path(), &id()).unwrap();
    assert_eq!(check(&folder), Err("store-locked"));
    drop(open);
    let other = StoreId::new("t").unwrap();
    fs::copy(path(&folder), folder.path().join(other.file_name())).unwrap();
    assert_eq!(check_store(folder.path(), &other).unwrap_err().code(), "wrong-store");
    fs::remove_file(folder.path().join(other.file_name())).unwrap();
    forge(&folder, |write| {
        let format = 99_u16.to_le_bytes();
        write.open_table(META).unwrap().insert("format", format.as_slice()).unwrap();
    });
    assert_eq!(check(&folder), Err("store-too-new"));
    for garbage in [b"".as_slice(), b"no database at all", &[0; 9_000]] {
        fs::write(path(&folder), garbage).unwrap();
        assert_eq!(check(&folder), Err("store-corrupt"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_damage_is_told_by_its_name() {
    let first = |folder: &TempDir| {
        let database = Database::open(path(folder)).unwrap();
        let read = redb::ReadableDatabase::begin_read(&database).unwrap();
        let log = read.open_table(LOG).unwrap();
        let first = redb::ReadableTable::first(&log).unwrap().unwrap();
        first.0.value()
    };
    let folder = filled().await;
    let from = first(&folder);
    forge(&folder, |write| {
        write.open_table(LOG).unwrap().insert(from + 1, b"no change".as_slice()).unwrap();
    });
    let detail = "a change in the log does not match its checksum";
    let damaged = Finding::Change { position: from + 1 };
    assert_eq!(findings(&folder), [damaged, Finding::Store { detail }]);

    let folder = filled().await;
    // Where a log begins depends on whether its changes were written before the snapshot was.
    let from = first(&folder);
    forge(&folder, |write| drop(write.open_table(LOG).unwrap().remove(from + 1).unwrap()));
    let gap = Finding::Gap { position: from + 1 };
    assert_eq!(findings(&folder), [gap, Finding::Store { detail: "the log has a gap" }]);

    let folder = filled().await;
    forge(&folder, |write| {
        let damaged = log_value::seal(b"no snapshot");
        write.open_table(SNAPSHOT).unwrap().insert(0, damaged.as_slice()).unwrap();
    });
    assert_eq!(findings(&folder), [Finding::Store { detail: "the snapshot is damaged" }]);

    let folder = filled().await;
    forge(&folder, |write| {
        let mut rows = write.open_table(ROWS).unwrap();
        let (key, mut row) = {
            let (key, row) = redb::ReadableTable::last(&rows).unwrap().unwrap();
            (key.value(), row.value().to_vec())
        };
        row[5] ^= 1;
        rows.insert(key, row.as_slice()).unwrap();
    });
    let found = findings(&folder);
    assert!(matches!(found.as_slice(), [Finding::Blob { .. }]), "{found:?}");

    let folder = filled().await;
    let replica = LocalStore::open_existing(folder.path(), &id()).unwrap().store().replica_id();
    let unfit = sds_sync::Seat::new(replica).encode();
    forge(&folder, |write| {
        let unfit = log_value::seal(&unfit);
        write.open_table(SEATS).unwrap().insert(replica.as_u64(), unfit.as_slice()).unwrap();
    });
    assert_eq!(findings(&folder), [Finding::Seat { replica }]);
    forge(&folder, |write| {
        write.open_table(SEATS).unwrap().insert(replica.as_u64(), b"".as_slice()).unwrap();
    });
    assert_eq!(findings(&folder), [Finding::Seats]);
}

/// Goal: damage anywhere is found, never made worse, and never takes the program down.
/// Method: bits are flipped all over a file, and it is cut at many places; whatever then cannot be
/// opened, or shows another store, must not be called sound.
#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_and_cut_files_are_found_and_not_made_worse() {
    let original = filled().await;
    let bytes = fs::read(path(&original)).unwrap();
    let digest = |folder: &TempDir| {
        let local = LocalStore::open_existing(folder.path(), &id());
        local.map(|mut local| local.store_mut().digest().to_string()).ok()
    };
    let scratch = TempDir::new().unwrap();
    fs::copy(path(&original), path(&scratch)).unwrap();
    let expected = digest(&scratch).unwrap();
    let mut found = 0;
    for step in 0..120_usize {
        let mut damaged = bytes.clone();
        if step % 4 == 3 {
            damaged.truncate(bytes.len() * step / 121);
        } else {
            let at = (step * 7_919 * 4_099) % bytes.len();
            damaged[at] ^= 1 << (step % 8);
        }
        fs::write(path(&scratch), &damaged).unwrap();
        let is_sound = check(&scratch).is_ok_and(|report| report.is_sound());
        found += usize::from(!is_sound);
        if is_sound {
            assert_eq!(digest(&scratch).as_ref(), Some(&expected), "step {step} is not sound");
        }
    }
    assert!(found >= 30, "{found}");
}
