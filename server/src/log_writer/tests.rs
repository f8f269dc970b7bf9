//! Groups of appends, and what is left of deleted stores.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{ReadableTableMetadata, StorageBackend};
use sds_engine::{Change, EntryId, Field, Life, Op, ReplicaId, Value, Version};
use sds_sync::database::{Medium, Place};
use tempfile::TempDir;

use super::*;
use crate::limits::{GROUP_BYTES_PER_SUBJECT_GOAL, PAGE_BYTES_GOAL};
use crate::relay::{Cursor, Next};
use crate::store_log::tables::{GARBAGE, STATES};

/// How long a step that always comes may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A disk that can be full, and say once that it did not sync what it did.
#[derive(Clone, Debug)]
struct Disk {
    path: PathBuf,
    is_full: Arc<AtomicBool>,
    is_unsure: Arc<AtomicBool>,
}

/// A file on it.
#[derive(Debug)]
struct OpenFile {
    file: FileBackend,
    disk: Disk,
}

impl Disk {
    fn new(folder: &TempDir) -> Self {
        let path = folder.path().join("relay.redb");
        drop(StoreLog::open(&path).unwrap());
        Self { path, is_full: Arc::default(), is_unsure: Arc::default() }
    }

    fn fill(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }
}

impl Medium for Disk {
    fn open(&self) -> Result<redb::Database, redb::Error> {
        let file = File::options().read(true).write(true).open(&self.path)?;
        let file = OpenFile { file: FileBackend::new(file)?, disk: self.clone() };
        Ok(redb::Database::builder().create_with_backend(file)?)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.path.metadata()?.len())
    }

    fn place(&self) -> io::Result<Place> {
        Place::of(&self.path)
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl OpenFile {
    fn check(&self) -> io::Result<()> {
        let is_full = self.disk.is_full.load(Ordering::Relaxed);
        if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for OpenFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()?;
        let is_unsure = self.disk.is_unsure.swap(false, Ordering::Relaxed);
        if is_unsure { Err(io::Error::other("nobody knows")) } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// A writer, and what it works on.
struct Work {
    log: Arc<StoreLog>,
    rooms: Arc<Rooms>,
    metrics: Arc<Metrics>,
    writer: LogWriter,
    thread: JoinHandle<()>,
}

impl Work {
    fn begin(log: StoreLog) -> Self {
        let (log, rooms, metrics) = (Arc::new(log), Arc::<Rooms>::default(), Arc::default());
        let (writer, thread) = LogWriter::spawn(
            Arc::clone(&log),
            Arc::clone(&rooms),
            Arc::clone(&metrics),
            StoreQuota::UNLIMITED,
        );
        Self { log, rooms, metrics, writer, thread }
    }

    fn end(self) {
        self.writer.stop();
        self.thread.join().unwrap();
    }
}

/// Waits for what comes anyway.
fn wait_until(is_there: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(begun.elapsed() < PATIENCE, "it does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn id(name: &str) -> StoreId {
    StoreId::new(name).unwrap()
}

fn change(start: u64) -> Change {
    let replica = ReplicaId::new(1).unwrap();
    Change::new(replica, start, Vec::new(), &[Op::Skip { count: 1 }]).unwrap()
}

/// A change of about so many bytes.
fn large(start: u64, bytes: usize) -> Change {
    let (entry, life, field) = (EntryId::ROOT, Life::FIRST, Field::Label);
    let set = Op::Set { entry, life, field, value: Value::Text("x".repeat(bytes)) };
    Change::new(ReplicaId::new(1).unwrap(), start, Vec::new(), &[set]).unwrap()
}

fn append(writer: &LogWriter, store: &str, start: u64) -> Reply {
    append_as(writer, "ann", store, change(start))
}

fn append_as(writer: &LogWriter, subject: &str, store: &str, change: Change) -> Reply {
    let author = Arc::new(Author { subject: subject.to_owned(), ..Author::default() });
    let (store, changes, _room) = (id(store), vec![change.into()], FrameRoom::default());
    writer.append(Append { store, author, changes, skips_lacking: false, _room })
}

/// Goal: a damaged row hurts its own store alone. Method: changes of three stores that wait for one
/// commit, the one in the middle damaged so that nothing can be appended to it.
#[test]
fn a_damaged_store_fails_alone() {
    let folder = TempDir::new().unwrap();
    let work = Work::begin(StoreLog::open(&folder.path().join("relay.redb")).unwrap());
    let (log, writer) = (&work.log, &work.writer);
    for store in ["a", "b", "c"] {
        append(writer, store, 0).blocking_recv().unwrap().unwrap();
    }
    let number = log.number_of(&id("b")).unwrap().unwrap();
    log.write(|write| Ok(write.open_table(STATES)?.remove(number)?.map(drop))).unwrap();
    let waits = work.rooms.publishing();
    let replies = ["a", "b", "b", "c"].map(|store| append(writer, store, 1));
    drop(waits);
    let outcomes = replies.map(|reply| reply.blocking_recv().unwrap());
    let replica = ReplicaId::new(1).unwrap();
    let told = outcomes.map(|outcome| match outcome {
        Ok(appended) => Ok(appended.stored.next(replica)),
        Err(error) => Err(error.code()),
    });
    assert_eq!(told, [Ok(2), Err("store-corrupt"), Err("store-corrupt"), Ok(2)]);
    for store in ["a", "c"] {
        assert_eq!(log.version(&id(store)).unwrap().next(replica), 2);
    }
    work.end();
}

/// Goal: what a deleted store had is removed also if that fails at first, and nobody need ask
/// again. Method: a disk that is full when the writer begins to, and is not later.
#[test]
fn what_is_left_of_a_deleted_store_goes_when_the_disk_has_room_again() {
    let folder = TempDir::new().unwrap();
    let disk = Disk::new(&folder);
    let work = Work::begin(StoreLog::open_on(Box::new(disk.clone())).unwrap());
    append(&work.writer, "a", 0).blocking_recv().unwrap().unwrap();
    let left = || {
        let left = work.log.database.read(|read| Ok(read.open_table(GARBAGE)?.len()?));
        left.unwrap_or(u64::MAX)
    };
    wait_until(|| left() == 0);
    work.log.delete(&id("a"), SystemTime::now()).unwrap();
    assert_eq!(left(), 1);
    disk.fill(true);
    work.writer.sweep();
    wait_until(|| work.metrics.storage_failures.get() > 0);
    disk.fill(false);
    wait_until(|| left() == 0);
    work.end();
}

/// Goal: one commit takes all that has come meanwhile. Method: appends that wait for a commit that
/// the test holds up.
#[test]
fn appends_that_come_together_are_one_commit() {
    const APPENDS: u64 = 20;
    let folder = TempDir::new().unwrap();
    let work = Work::begin(StoreLog::open(&folder.path().join("relay.redb")).unwrap());
    let waits = work.rooms.publishing();
    let replies: Vec<Reply> = (0..APPENDS)
        .map(|number| append(&work.writer, &format!("s{}", number % 4), number / 4))
        .collect();
    drop(waits);
    for reply in replies {
        assert_eq!(reply.blocking_recv().unwrap().unwrap().refused, None);
    }
    let text = work.metrics.encode();
    let commits =
        text.lines().find_map(|line| line.strip_prefix("sds_relay_commit_seconds_count "));
    // The first append may be alone in one.
    assert!(matches!(commits, Some("1" | "2")), "{commits:?} commits");
    work.end();
}

/// Goal: one subject with much to write in many stores does not keep others waiting. Method: large
/// changes that wait for a commit that the test holds up, and behind them a small one.
#[test]
fn a_small_append_does_not_wait_for_the_large_ones_of_somebody_else() {
    const LARGE: usize = GROUP_BYTES_PER_SUBJECT_GOAL / 2;
    let folder = TempDir::new().unwrap();
    let work = Work::begin(StoreLog::open(&folder.path().join("relay.redb")).unwrap());
    let waits = work.rooms.publishing();
    let append_large =
        |number| append_as(&work.writer, "mallory", &format!("s{number}"), large(0, LARGE));
    let mut larges: Vec<Reply> = (0..10).map(append_large).collect();
    let small = append(&work.writer, "calm", 0);
    drop(waits);
    assert_eq!(small.blocking_recv().unwrap().unwrap().refused, None);
    let done = larges.iter_mut().map(|reply| reply.try_recv().is_ok()).filter(|done| *done).count();
    // What was being written when it came, and what is in one commit with it.
    assert!(done <= 2, "{done} large ones came before it");
    work.end();
}

/// Goal: whoever has a store open hears of what became durable, also if its commit seemed to fail
/// and nobody sends it again. Method: a disk that syncs what was written and says that it has not.
#[test]
fn what_became_durable_although_the_commit_failed_is_heard() {
    let folder = TempDir::new().unwrap();
    let disk = Disk::new(&folder);
    let work = Work::begin(StoreLog::open_on(Box::new(disk.clone())).unwrap());
    append(&work.writer, "a", 0).blocking_recv().unwrap().unwrap();
    let member = work.rooms.enter(&id("a"));
    member.note_end(1);
    let cursor = Cursor::new(Version::new(), 1, 1);
    assert_eq!(member.next_for(&cursor), Next::Nothing);
    disk.is_unsure.store(true, Ordering::Relaxed);
    assert!(append(&work.writer, "a", 1).blocking_recv().unwrap().is_err());
    assert_eq!(work.log.version(&id("a")).unwrap().next(ReplicaId::new(1).unwrap()), 2);
    assert_eq!(member.next_for(&cursor), Next::OnDisk(1));
    work.end();
}

/// Goal: what a relay had no time to pack is packed after its next start, also if nobody appends
/// any more.
#[test]
fn packing_goes_on_after_a_start() {
    let folder = TempDir::new().unwrap();
    let log = StoreLog::open(&folder.path().join("relay.redb")).unwrap();
    log.write(|write| {
        let mut appender = Appender::begin(write, SystemTime::now())?;
        for store in ["a", "b"] {
            let change = if store == "a" { large(0, PAGE_BYTES_GOAL) } else { change(0) };
            appender.append(&id(store), &Author::default(), &[change], false)?;
        }
        appender.finish(|_| {})
    })
    .unwrap();
    let to_pack = |log: &StoreLog| log.to_pack(LOOSE_PAGES_MAX, 9).unwrap();
    assert_eq!(to_pack(&log), [id("a")]);
    let work = Work::begin(log);
    wait_until(|| to_pack(&work.log).is_empty());
    work.end();
}

#[test]
fn a_writer_that_has_ended_is_not_alive() {
    let folder = TempDir::new().unwrap();
    let Work { writer, thread, .. } =
        Work::begin(StoreLog::open(&folder.path().join("relay.redb")).unwrap());
    assert!(writer.is_alive());
    writer.stop();
    thread.join().unwrap();
    assert!(!writer.is_alive());
}
