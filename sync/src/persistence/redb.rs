//! A store's file: one redb database.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format` (u16 LE), `store` (UTF-8), `place` (32 bytes), `log_start` (u64 LE), `opening` (16 bytes) | the value |
//! | `seats` | replica (u64) | its seat, and a checksum (`seat`, `log_value`) |
//! | `snapshot` | u32, from 0 without gaps | 1 MiB, the last one the rest; and a checksum each |
//! | `log` | u64, from `log_start` without gaps | an encoded change, and its checksum (`log_value`) |
//!
//! and the tables of the blobs (`blob_rows`), with the owner 0.
//!
//! Invariants:
//! - R1. What was written here since opening, and nothing else, is behind what was loaded; also if a
//!   failure made it necessary to open the file again (`open_file`).
//! - R2. The snapshot and the log after it are the whole store, after every commit.
//! - R3. A session's seat is in the file before anything that was made under it. A file in another place
//!   than it was gives up all seats that it had.
//!
//! Not here: whether changes are well formed; the log gives back what was put in.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, TableHandle, WriteTransaction};
use sds_engine::{BlobHash, ReplicaId, Version};

use super::{Batch, Intent, LogPage, Persistence, StorageError};
use crate::blob_rows;
use crate::blob_storage::BlobStorage;
use crate::database::{Database, Failure, Medium};
use crate::limits::LOG_PAGE_BYTES_MAX;
use crate::log_value::{seal, unseal};
use crate::random;
use crate::read_only::ReadOnlyFile;
use crate::seat::Seat;
use crate::store_id::StoreId;

mod blobs;
mod check;
mod open_file;

use blobs::RedbBlobs;
pub use check::{CheckReport, Finding, check_store};
use open_file::OpenFile;

const FORMAT: u16 = 3;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const SEATS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("seats");
const SNAPSHOT: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("snapshot");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// How many bytes of a snapshot are in one row.
const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;

/// A store in a redb file. As long as this lives no other process can open it.
#[derive(Debug)]
pub struct RedbPersistence {
    file: Arc<OpenFile>,
    blobs: Arc<RedbBlobs>,
    store: StoreId,
    seats: Vec<Seat>,
    /// Where the log ended when it was last known. The file may be opened anew after a failure.
    end: u64,
    /// Whether a commit has failed since. It may have reached the disk all the same.
    has_failed: bool,
    /// Whether what is to be written still has to be made to fit what others have written.
    is_reloaded: bool,
}

impl RedbPersistence {
    /// Opens the file of `store` in `folder`, or makes it. If it has no seat that can be used, it
    /// gets the seat `fresh`.
    ///
    /// # Errors
    /// Any [`StorageError`] but [`StorageError::NotFound`].
    pub fn open_or_create(
        folder: &Path,
        store: &StoreId,
        fresh: ReplicaId,
    ) -> Result<Self, StorageError> {
        let path = folder.join(store.file_name());
        let database = Database::open_or_create(&path, |write| initialize(write, store))?;
        Self::lease(database, store, fresh, Intent::Create)
    }

    /// Opens the file of `store` on `medium`. If it has no seat that can be used, it gets the seat
    /// `fresh`.
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn open_on(
        medium: Box<dyn Medium>,
        store: &StoreId,
        fresh: ReplicaId,
    ) -> Result<Self, StorageError> {
        Self::lease(Database::open_on(medium)?, store, fresh, Intent::Write)
    }

    /// Fills a database that is new and empty as the file of `store`.
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn initialize(redb: &redb::Database, store: &StoreId) -> Result<(), StorageError> {
        let path = PathBuf::from(store.file_name());
        Database::initialize(redb, &path, |write| initialize(write, store))
    }

    /// Opens the file of `store` in `folder`; it must be there.
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn open_existing(folder: &Path, store: &StoreId) -> Result<Self, StorageError> {
        let path = folder.join(store.file_name());
        if !path.exists() {
            return Err(StorageError::NotFound { path });
        }
        Self::lease(Database::open(&path)?, store, random::replica_id(), Intent::Write)
    }

    /// Like [`open_or_create`](Self::open_or_create), but waits for nobody.
    pub(super) fn create_at_once(
        folder: &Path,
        store: &StoreId,
        fresh: ReplicaId,
    ) -> Result<Self, StorageError> {
        let path = folder.join(store.file_name());
        Database::create_if_missing(&path, |write| initialize(write, store))?;
        Self::lease(Database::open_within(&path, Duration::ZERO)?, store, fresh, Intent::Create)
    }

    /// Like [`open_existing`](Self::open_existing), but waits for nobody. With the intent to read the file
    /// stays as it is to the byte, and others may read it at the same time.
    pub(super) fn open_at_once(
        folder: &Path,
        store: &StoreId,
        intent: Intent,
    ) -> Result<Self, StorageError> {
        let path = folder.join(store.file_name());
        if !path.exists() {
            return Err(StorageError::NotFound { path });
        }
        let database = match intent {
            Intent::Read => Database::open_on_within(Box::new(ReadOnlyFile(path)), Duration::ZERO),
            Intent::Write | Intent::Create => Database::open_within(&path, Duration::ZERO),
        };
        Self::lease(database?, store, random::replica_id(), intent)
    }

    /// Takes a seat: one of the file's, or `fresh`, if it has none or is a copy (R3).
    fn lease(
        database: Database,
        store: &StoreId,
        fresh: ReplicaId,
        intent: Intent,
    ) -> Result<Self, StorageError> {
        let file = OpenFile::new(database);
        let (seats, end) = Self::look(&file, store, fresh, intent)?;
        Ok(Self { seats, end, ..Self::of(file, store.clone())? })
    }

    /// The seats, of which one is for sessions, and where the log ends (R3).
    fn look(
        file: &OpenFile,
        store: &StoreId,
        fresh: ReplicaId,
        intent: Intent,
    ) -> Result<(Vec<Seat>, u64), StorageError> {
        let place = file.place()?;
        let (mut seats, end, is_at_home, found) = file.read(|read| {
            check_meta(read, store)?;
            let meta = read.open_table(META)?;
            let known = meta.get("place")?;
            let is_at_home = known.is_some_and(|known| known.value() == place.0);
            let seats = read_seats(&read.open_table(SEATS)?)?;
            let found = OpenFile::stamp_in(&meta)?;
            Ok((seats, end_of(&read.open_table(LOG)?, &meta)?, is_at_home, found))
        })?;
        if !is_at_home {
            seats.iter_mut().for_each(|seat| seat.is_given_up = true);
        }
        let is_without = !seats.iter().any(Seat::is_for_sessions);
        if is_without {
            seats.push(Seat::new(fresh));
        }
        let is_as_left = is_at_home && !is_without;
        if intent != Intent::Read {
            let changed = (!is_as_left).then(|| (place, seats.clone()));
            file.claim(found, move |write| {
                let Some((place, seats)) = &changed else { return Ok(()) };
                write.open_table(META)?.insert("place", place.0.as_slice())?;
                write_seats(write, seats)
            });
        }
        Ok((seats, end))
    }

    /// A file to read, whose seats are not looked at.
    fn of(file: OpenFile, store: StoreId) -> Result<Self, StorageError> {
        let file = Arc::new(file);
        let blobs = Arc::new(RedbBlobs::of(Arc::clone(&file))?);
        Ok(Self {
            file,
            blobs,
            store,
            seats: Vec::new(),
            end: 0,
            has_failed: false,
            is_reloaded: false,
        })
    }
}

#[cfg(test)]
impl RedbPersistence {
    /// What makes the file be closed, as after a failure of the disk: the next use opens it again.
    pub(super) fn failure(&self) -> impl FnOnce() + Send + use<> {
        let file = Arc::clone(&self.file);
        move || {
            let fail = |_: &WriteTransaction| Err::<(), _>(redb::Error::PreviousIo.into());
            assert_eq!(file.write(fail).unwrap_err().code(), "storage-closed");
        }
    }
}

impl Persistence for RedbPersistence {
    fn store(&self) -> &StoreId {
        &self.store
    }

    fn seats(&self) -> Vec<Seat> {
        self.seats.clone()
    }

    fn claim(&mut self) -> Result<(), StorageError> {
        self.file.write(|_| Ok(()))
    }

    fn read_snapshot(&self) -> Result<Option<Vec<u8>>, StorageError> {
        self.file.read(|read| {
            let mut snapshot = None;
            for (index, row) in (0..).zip(read.open_table(SNAPSHOT)?.iter()?) {
                let (key, value) = row?;
                if key.value() != index {
                    return Err(Failure::Corrupt("a part of the snapshot is missing"));
                }
                let bytes: &mut Vec<u8> = snapshot.get_or_insert_default();
                bytes.extend_from_slice(unseal(value.value())?);
            }
            Ok(snapshot)
        })
    }

    fn read_log(&self, from: u64) -> Result<LogPage, StorageError> {
        self.file.read(|read| {
            let mut page = LogPage::default();
            let mut size = 0;
            for row in read.open_table(LOG)?.range(from..)? {
                let (seq, value) = row?;
                let change = unseal(value.value())?;
                size += change.len();
                if !page.changes.is_empty() && size > LOG_PAGE_BYTES_MAX {
                    page.next = Some(seq.value());
                    break;
                }
                page.changes.push(change.into());
            }
            Ok(page)
        })
    }

    fn blobs(&self) -> Arc<dyn BlobStorage> {
        Arc::clone(&self.blobs) as Arc<dyn BlobStorage>
    }

    fn retain_blobs(&mut self, referenced: &BTreeSet<BlobHash>) -> Result<(), StorageError> {
        self.blobs.retain(referenced)
    }

    fn append(&mut self, batch: &Batch) -> Result<(), StorageError> {
        if self.is_reloaded {
            return Err(StorageError::SeatLost { path: self.file.path().to_owned() });
        }
        let known_end = self.end;
        let mut written = Vec::new();
        let outcome = self.file.write(|write| {
            self.blobs.write(write, &batch.released, &batch.blobs, &mut written)?;
            write_seats(write, &batch.seats)?;
            let end = match &batch.snapshot {
                Some(snapshot) => replace_log(write, known_end, snapshot)?,
                None => known_end,
            };
            let meta = write.open_table(META)?;
            append_changes(&mut write.open_table(LOG)?, &meta, end, &batch.changes)
        });
        match outcome {
            Ok(end) => {
                (self.end, self.has_failed) = (end, false);
                self.blobs.settle(&written);
                self.blobs.sweep(batch.released.iter().map(|(_, number)| *number));
                Ok(())
            }
            Err(error) => {
                self.blobs.take_back(&written);
                match error {
                    // A commit that failed may be there, below what somebody else has written.
                    StorageError::SeatLost { path } if self.has_failed => {
                        Err(StorageError::SeatLostMidway { path, written: Version::new() })
                    }
                    error => {
                        self.has_failed |= !error.is_seat_lost();
                        Err(error)
                    }
                }
            }
        }
    }

    fn begin_anew(&mut self) {
        self.is_reloaded = false;
    }

    fn reload(&mut self) -> Result<(), StorageError> {
        // Before there is a stamp by which it would be let through.
        self.is_reloaded = true;
        let fresh = random::replica_id();
        (self.seats, self.end) = Self::look(&self.file, &self.store, fresh, Intent::Write)?;
        self.has_failed = false;
        self.blobs.reload()
    }

    fn compact(&mut self) -> Result<(), StorageError> {
        self.file.compact_if_worth_it().map(drop)
    }
}

/// Puts a snapshot in the place of the log, which ended at `known_end`; says where it ends now: past
/// everything before.
///
/// A commit that failed may have reached the disk all the same; the snapshot has its changes too.
fn replace_log(write: &WriteTransaction, known_end: u64, snapshot: &[u8]) -> Result<u64, Failure> {
    let mut meta = write.open_table(META)?;
    let mut log = write.open_table(LOG)?;
    let end = end_of(&log, &meta)?;
    if end < known_end {
        return Err(Failure::Changed);
    }
    log.retain(|_, _| false)?;
    meta.insert("log_start", (end + 1).to_le_bytes().as_slice())?;
    let mut rows = write.open_table(SNAPSHOT)?;
    rows.retain(|_, _| false)?;
    for (index, chunk) in (0..).zip(snapshot.chunks(SNAPSHOT_CHUNK_BYTES)) {
        rows.insert(index, seal(chunk).as_slice())?;
    }
    Ok(end + 1)
}

/// Appends changes behind `known_end`, and says where the log ends then.
///
/// A commit that failed may have reached the disk all the same: what is there already of these is
/// not written twice. Anything else there was written by a program that leaves no stamp, or is older: then
/// a backup took the place of the file.
fn append_changes(
    log: &mut Table<'_, u64, &'static [u8]>,
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    known_end: u64,
    changes: &[Arc<[u8]>],
) -> Result<u64, Failure> {
    let end = end_of(log, meta)?;
    let mut seq = known_end;
    for change in changes {
        let value = seal(change);
        if seq < end {
            let is_there = log.get(seq)?.is_some_and(|there| there.value() == value);
            if !is_there {
                return Err(Failure::Changed);
            }
        } else {
            log.insert(seq, value.as_slice())?;
        }
        seq += 1;
    }
    if seq < end || known_end > end {
        return Err(Failure::Changed);
    }
    Ok(seq)
}

/// Where the log ends.
fn end_of(
    log: &impl ReadableTable<u64, &'static [u8]>,
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<u64, Failure> {
    if let Some((last, _)) = log.last()? {
        return Ok(last.value() + 1);
    }
    start_of(meta)
}

/// Where it starts.
fn start_of(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<u64, Failure> {
    let start = meta.get("log_start")?.and_then(|bytes| bytes.value().try_into().ok());
    start.map(u64::from_le_bytes).ok_or(Failure::Corrupt("no start of the log"))
}

fn initialize(write: &WriteTransaction, store: &StoreId) -> Result<(), Failure> {
    let mut meta = write.open_table(META)?;
    meta.insert("format", FORMAT.to_le_bytes().as_slice())?;
    meta.insert("store", store.as_str().as_bytes())?;
    meta.insert("log_start", 0_u64.to_le_bytes().as_slice())?;
    write.open_table(SEATS)?;
    write.open_table(SNAPSHOT)?;
    write.open_table(LOG)?;
    blob_rows::initialize(write)
}

/// Whether the file is `store`'s and this program can read it.
fn check_meta(read: &ReadTransaction, store: &StoreId) -> Result<(), Failure> {
    if !read.list_tables()?.any(|table| table.name() == META.name()) {
        return Err(Failure::Corrupt("a database of another kind"));
    }
    let meta = read.open_table(META)?;
    let format = meta.get("format")?.and_then(|bytes| bytes.value().try_into().ok());
    match format.map(u16::from_le_bytes) {
        Some(FORMAT) => {}
        Some(newer) if newer > FORMAT => return Err(Failure::TooNew),
        _ => return Err(Failure::Corrupt("no known format")),
    }
    if meta.get("store")?.is_none_or(|id| id.value() != store.as_str().as_bytes()) {
        return Err(Failure::WrongStore);
    }
    Ok(())
}

fn read_seats(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<Vec<Seat>, Failure> {
    let mut seats = Vec::new();
    for row in table.iter()? {
        let (replica, value) = row?;
        let replica = ReplicaId::new(replica.value());
        let seat = replica.and_then(|replica| Seat::decode(replica, unseal(value.value()).ok()?));
        seats.push(seat.ok_or(Failure::Corrupt("a seat is damaged"))?);
    }
    Ok(seats)
}

fn write_seats(write: &WriteTransaction, seats: &[Seat]) -> Result<(), Failure> {
    let mut table = write.open_table(SEATS)?;
    for seat in seats {
        table.insert(seat.replica.as_u64(), seal(&seat.encode()).as_slice())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod blob_tests;
