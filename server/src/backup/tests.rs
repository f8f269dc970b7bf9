//! Backups are whole or are not there, and damage is noticed.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sds_engine::{BlobHash, Change, Op, ReplicaId, Version};
use sds_sync::access::Secret;
use sds_sync::{BlobReader, BlobStorage, BlobWriter, StoreId};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::node::{Relay, RelayConfig};
use crate::store_blobs::StoreBlobs;
use crate::store_log::{Appender, Author, StoreQuota};

fn store(name: &str) -> StoreId {
    StoreId::new(name).unwrap()
}

fn change(start: u64) -> Change {
    Change::new(ReplicaId::new(1).unwrap(), start, vec![], &[Op::Skip { count: 1 }]).unwrap()
}

fn add(log: &StoreLog, store: &StoreId, starts: std::ops::Range<u64>) {
    let changes: Vec<_> = starts.map(change).collect();
    log.write(|write| {
        let mut appender = Appender::begin(write, UNIX_EPOCH)?;
        let author = Author {
            subject: "ann".to_owned(),
            seats: vec![ReplicaId::new(1).unwrap()],
            ..Author::default()
        };
        appender.append(store, &author, &changes, false)?;
        appender.finish(|_| {})
    })
    .unwrap();
}

fn blobs(log: &Arc<StoreLog>, name: &str) -> Arc<dyn BlobStorage> {
    Arc::new(
        StoreBlobs::begin_for(Arc::clone(log), &store(name), "ann", StoreQuota::UNLIMITED)
            .unwrap()
            .unwrap(),
    )
}

/// A relay's folder with two stores, one of them with a blob.
fn example(folder: &TempDir) -> (PathBuf, BlobHash) {
    let data = folder.path().join("data");
    let log = Arc::new(StoreLog::open(&data.join(LOG_FILE)).unwrap());
    add(&log, &store("a"), 0..300);
    add(&log, &store("b"), 0..1);
    assert!(log.pack(&store("a"), 1).unwrap());
    add(&log, &store("a"), 300..310);
    let bytes = vec![7; 300_000];
    let hash = BlobHash(Sha256::digest(&bytes).into());
    let mut writer = BlobWriter::resume(blobs(&log, "a"), hash, bytes.len() as u64).unwrap();
    writer.write(&bytes).unwrap();
    writer.finish().unwrap();
    (data, hash)
}

fn starts(log: &StoreLog, name: &str) -> u64 {
    log.version(&store(name)).unwrap().next(ReplicaId::new(1).unwrap())
}

#[test]
fn what_was_backed_up_can_be_restored() {
    let folder = TempDir::new().unwrap();
    let (data, hash) = example(&folder);
    let (to, restored) = (folder.path().join("backup"), folder.path().join("new/data"));
    let report = backup(&data, &to).unwrap();
    assert_eq!(verify(&to).unwrap(), report);
    assert_eq!(fs::metadata(&to).unwrap().len(), report.bytes);
    assert_eq!(restore(&to, &restored).unwrap(), report);
    let log = Arc::new(StoreLog::open(&restored.join(LOG_FILE)).unwrap());
    assert_eq!((starts(&log, "a"), starts(&log, "b")), (310, 1));
    let page = log.read(&store("a"), 0).unwrap();
    let expected = (0..310).map(|start| Arc::clone(change(start).bytes()));
    assert_eq!(page.changes, expected.collect::<Vec<_>>());
    let mut bytes = Vec::new();
    let mut reader = BlobReader::open(blobs(&log, "a"), hash).unwrap().unwrap();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, vec![7; 300_000]);
    let other = Author { subject: "bob".to_owned(), ..Author::default() };
    let appended = log.write(|write| {
        let mut appender = Appender::begin(write, UNIX_EPOCH)?;
        appender.append(&store("a"), &other, &[change(310)], false)
    });
    assert_eq!(appended.unwrap().stored, Version::new(), "owners are restored");
    add(&log, &store("a"), 310..311);
    assert_eq!(starts(&log, "a"), 311);
}

#[test]
fn nothing_is_overwritten() {
    let folder = TempDir::new().unwrap();
    let (data, _) = example(&folder);
    let to = folder.path().join("backup");
    assert_eq!(backup(folder.path(), &to).unwrap_err().code(), "store-not-found");
    backup(&data, &to).unwrap();
    let before = fs::read(&to).unwrap();
    assert_eq!(backup(&data, &to).unwrap_err().code(), "backup-exists");
    assert_eq!(restore(&to, &data).unwrap_err().code(), "backup-exists");
    assert_eq!(fs::read(&to).unwrap(), before);
    assert_eq!(starts(&StoreLog::open(&data.join(LOG_FILE)).unwrap(), "a"), 310);
}

#[test]
fn damage_is_noticed_and_nothing_restored() {
    let folder = TempDir::new().unwrap();
    let (data, _) = example(&folder);
    let to = folder.path().join("backup");
    backup(&data, &to).unwrap();
    let whole = fs::read(&to).unwrap();
    let bad = folder.path().join("bad");
    let check = |bytes: &[u8]| {
        fs::write(&bad, bytes).unwrap();
        let restored = folder.path().join("restored");
        let error = restore(&bad, &restored).unwrap_err();
        assert!(matches!(error.code(), "backup-damaged" | "backup-too-new"), "{error}");
        assert!(!restored.exists(), "nothing was begun");
    };
    let places = (0..200).chain(whole.len() - 60..whole.len());
    for at in places.chain((0..whole.len()).step_by(whole.len() / 50)) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        check(&damaged);
        check(&whole[..at]);
    }
    check(&[&whole[..], b"x"].concat());
    let huge = [&MAGIC[..], &FORMAT.to_le_bytes(), &[ROW], &[255; 8]].concat();
    check(&huge);
}

/// Goal: whatever is written meanwhile, a backup is of one moment.
/// Method: one thread appends without a pause, each append to two stores in one transaction, while
/// backups are made; in each both stores have the same changes.
#[test]
fn a_backup_of_a_running_relay_is_of_one_moment() {
    let folder = TempDir::new().unwrap();
    let log = StoreLog::open(&folder.path().join("data").join(LOG_FILE)).unwrap();
    let is_over = AtomicBool::new(false);
    let author = Author::default();
    let (a, b) = (store("a"), store("b"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for start in 0.. {
                let append = log.write(|write| {
                    let mut appender = Appender::begin(write, UNIX_EPOCH)?;
                    appender.append(&a, &author, &[change(start)], false)?;
                    appender.append(&b, &author, &[change(start)], false)?;
                    appender.finish(|_| {})
                });
                append.unwrap();
                log.pack(&a, 20).unwrap();
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for round in 0..5 {
            let to = folder.path().join(format!("backup {round}"));
            log.backup(&to).unwrap();
            let restored = folder.path().join(format!("restored {round}"));
            restore(&to, &restored).unwrap();
            let restored = StoreLog::open(&restored.join(LOG_FILE)).unwrap();
            assert_eq!(starts(&restored, "a"), starts(&restored, "b"));
            let read = restored.read(&a, 0).unwrap().changes.len() as u64;
            assert_eq!(starts(&restored, "a"), read);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(starts(&log, "a") > 5, "there was something to disturb it");
}

/// Goal: whoever was killed while they made a backup or restored one leaves nothing for long.
/// Method: files as they leave them, some of them made just now, which somebody may still be
/// making.
#[tokio::test]
async fn what_those_who_were_killed_left_behind_is_removed() {
    let folder = TempDir::new().unwrap();
    let (data, _) = example(&folder);
    let made = |path: PathBuf, is_old: bool| {
        let file = File::create(&path).unwrap();
        if is_old {
            file.set_modified(SystemTime::now() - 2 * LEFTOVER_AGE).unwrap();
        }
        path
    };
    let kept = [
        made(folder.path().join(".backup.abc.new"), false),
        made(folder.path().join("old.backup"), true),
    ];
    let left = made(folder.path().join(".backup.def.new"), true);
    backup(&data, &folder.path().join("to")).unwrap();
    assert!(!left.exists() && kept.iter().all(|path| path.exists()));
    let left = made(data.join("relay.redb.0123456789abcdef.new"), true);
    let keys = Secret::new(&"x".repeat(32)).unwrap();
    let relay = Relay::start(RelayConfig::new(keys, &data)).await.unwrap();
    assert!(!left.exists());
    relay.stop().await;
}
