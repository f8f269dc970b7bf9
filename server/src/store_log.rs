//! What a relay keeps: the log of each store, and its blobs, in one redb file.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format` (u16 LE), `next_store` (u64 LE) | the value |
//! | `stores` | store id | its number |
//! | `states` | store number | how far its log goes, and how much of it is packed |
//! | `pages` | store number, position of the first change, part | a part of a page: changes in a row |
//! | `starts` | store number, replica, its first counter in a page | the page's position |
//! | `versions` | store number, replica | the counter that comes next, the chain hash at it |
//! | `owners` | store number, replica | the subject that this replica belongs to |
//! | `founders` | store number | the subject that began the store |
//! | `founded` | subject | how many stores it has begun that are there |
//! | `deleted` | store id | when it was deleted |
//! | `garbage` | store number | nothing: of this store there may be something left |
//!
//! and the tables of the blobs (`sds_sync::blob_rows`), whose owners are store numbers.
//!
//! Invariants, which every transaction keeps:
//! - G1. A store's changes follow each other without gaps for each replica, and each comes after
//!   its deps.
//! - G2. `states`, `starts` and `versions` say what `pages` hold, whose positions follow each other
//!   from 0 without gaps; the chain hash of a replica is that of all its changes
//!   (`sds_sync::Chain`).
//! - G3. A blob stays where it is as long as its store: the log has all that ever referred to it.
//! - G4. A replica that has an owner keeps it, and has changes.
//! - G5. A store is in `stores` or in `deleted` or in neither. What rows have a number that is in
//!   no row of `stores` is garbage, and `garbage` has the number.
//!
//! Not here: the thread that groups commits (`log_writer`), who may do what (`access`).
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod appending;
mod deleting;
mod packing;
pub(crate) mod page;
pub(crate) mod tables;
mod told_versions;
mod turns;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use redb::{ReadableTable, WriteTransaction};
use sds_engine::{ReplicaId, Version};
use sds_sync::blob_rows;
use sds_sync::database::{Database, Failure, Medium};
use sds_sync::{Claims, LogPage, SeatTip, StorageError, StoreId};

use crate::blob_totals::{BlobTotal, BlobTotals};
use crate::limits::{PAGE_CACHE_MAX, STEP_BYTES_MAX, STEP_CHANGES_MAX};
use crate::store_blobs::Reservations;

pub use appending::{Appended, Appender, Author, FoundDeps, ReplicaCounts};
pub use deleting::{StoreSummary, Wanted};
use page::Changes;
use tables::{
    META, OWNERS, PAGES, STARTS, STATES, VERSIONS, check_format, initialize, number_for, number_of,
    replica, state,
};
pub use tables::{NoStore, StoreQuota};
use told_versions::ToldVersions;
use turns::{Who, WriteTurns};

/// The relay's file.
#[derive(Debug)]
pub struct StoreLog {
    pub(crate) database: Database,
    turns: WriteTurns,
    /// The number that the next large content gets.
    pub(crate) next_content: AtomicU64,
    /// Who writes to which content.
    pub(crate) claims: Claims,
    /// The room that uploads have been promised.
    pub(crate) reserved: Reservations,
    pub(crate) blob_totals: BlobTotals,
    /// Packed pages that somebody read just now, the last one first, so that many who read the same
    /// unpack it once.
    unpacked: Mutex<VecDeque<(PageKey, Changes)>>,
    versions: ToldVersions,
    /// The content of a deleted store that is being removed.
    sweeping: Mutex<Option<u64>>,
}

/// What somebody needs to know who opens a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// What the log has, encoded. All who open the store as it is share these bytes.
    pub version: Bytes,
    /// Before this position they lack nothing. Not far from the first change that is lacking: in
    /// the same page.
    pub position: u64,
    /// How many changes the log has.
    pub end: u64,
    /// What they have of the replicas that the log knows: of others nothing can come that they have.
    pub had: Version,
}

/// Store number, position, and how many changes: that alone changes in a page once it is there.
type PageKey = (u64, u64, u32);

impl StoreLog {
    /// Opens the file, or makes it, and clears away what nothing can go on with.
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        Self::begin(Database::open_or_create(path, initialize)?)
    }

    /// Opens the file on a medium like [`open`](Self::open); makes none.
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn open_on(medium: Box<dyn Medium>) -> Result<Self, StorageError> {
        Self::begin(Database::open_on(medium)?)
    }

    /// Fills a database that is new and empty as a relay's file.
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn initialize(redb: &redb::Database) -> Result<(), StorageError> {
        Database::initialize(redb, Path::new("relay.redb"), initialize)
    }

    fn begin(database: Database) -> Result<Self, StorageError> {
        database.read(|read| check_format(&read.open_table(META)?))?;
        for number in database.read(blob_rows::garbage)? {
            while !database.write(|write| blob_rows::sweep(write, number))? {}
        }
        let next_content = AtomicU64::new(database.read(blob_rows::next_number)?);
        Ok(Self {
            database,
            turns: WriteTurns::default(),
            next_content,
            claims: Claims::default(),
            reserved: Reservations::default(),
            blob_totals: BlobTotals::default(),
            unpacked: Mutex::default(),
            versions: ToldVersions::default(),
            sweeping: Mutex::default(),
        })
    }

    /// What somebody needs to know who opens `store` and has `had`.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn opening(&self, store: &StoreId, had: &Version) -> Result<Opening, StorageError> {
        self.database.read(|read| {
            let Some(number) = number_of(read, store)? else {
                let version = Version::new().encode().into();
                return Ok(Opening { version, position: 0, end: 0, had: Version::new() });
            };
            let end = state(&read.open_table(STATES)?, number)?.end;
            let shared = self.versions.find((number, end));
            if let Some(version) = shared.clone().filter(|_| had.is_empty()) {
                return Ok(Opening { version, position: 0, end, had: Version::new() });
            }
            let (mut version, mut first, mut kept) = (Version::new(), end, Version::new());
            let starts = read.open_table(STARTS)?;
            for row in read.open_table(VERSIONS)?.range((number, 0)..=(number, u64::MAX))? {
                let (key, next) = row?;
                let (author, next) = (key.value().1, next.value().0);
                let known = had.next(replica(author)?);
                if known < next {
                    // The page that holds the first unknown counter.
                    let mut until = starts.range((number, author, 0)..=(number, author, known))?;
                    if let Some(row) = until.next_back() {
                        first = first.min(row?.1.value());
                    }
                }
                kept.advance(replica(author)?, known);
                if shared.is_none() {
                    version.advance(replica(author)?, next);
                }
            }
            let version =
                shared.unwrap_or_else(|| self.versions.keep((number, end), version.encode()));
            Ok(Opening { version, position: first, end, had: kept })
        })
    }

    /// What the log of `store` has.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn version(&self, store: &StoreId) -> Result<Version, StorageError> {
        self.database.read(|read| {
            let mut version = Version::new();
            let Some(number) = number_of(read, store)? else { return Ok(version) };
            for row in read.open_table(VERSIONS)?.range((number, 0)..=(number, u64::MAX))? {
                let (key, next) = row?;
                version.advance(replica(key.value().1)?, next.value().0);
            }
            Ok(version)
        })
    }

    /// How many changes the log of `store` has.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn end(&self, store: &StoreId) -> Result<u64, StorageError> {
        self.database.read(|read| {
            let Some(number) = number_of(read, store)? else { return Ok(0) };
            Ok(state(&read.open_table(STATES)?, number)?.end)
        })
    }

    /// How far the log of `store` has those of the replicas that it knows.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn tips(&self, store: &StoreId, replicas: &[u64]) -> Result<Vec<SeatTip>, StorageError> {
        self.database.read(|read| {
            let mut tips = Vec::new();
            let Some(number) = number_of(read, store)? else { return Ok(tips) };
            let versions = read.open_table(VERSIONS)?;
            for replica in replicas {
                if let Some(known) = versions.get((number, *replica))? {
                    let (next, chain) = known.value();
                    tips.push(SeatTip { replica: *replica, next, chain: *chain });
                }
            }
            Ok(tips)
        })
    }

    /// Which of the replicas that `author` has said to write with belong to others, and how far the
    /// log of `store` has them.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn foreign(
        &self,
        store: &StoreId,
        author: &Author,
    ) -> Result<Vec<(ReplicaId, u64)>, StorageError> {
        self.database.read(|read| {
            let mut foreign = Vec::new();
            if author.speaks_for_all {
                return Ok(foreign);
            }
            let Some(number) = number_of(read, store)? else { return Ok(foreign) };
            let (owners, versions) = (read.open_table(OWNERS)?, read.open_table(VERSIONS)?);
            for replica in &author.seats {
                let key = (number, replica.as_u64());
                let owner = owners.get(key)?;
                if owner.is_some_and(|owner| owner.value() != author.subject) {
                    let next = versions.get(key)?.map_or(0, |known| known.value().0);
                    foreign.push((*replica, next));
                }
            }
            Ok(foreign)
        })
    }

    /// A part of the log of `store` from position `from`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, store: &StoreId, from: u64) -> Result<LogPage, StorageError> {
        self.database.read(|read| {
            let mut part = LogPage::default();
            let Some(number) = number_of(read, store)? else { return Ok(part) };
            let end = state(&read.open_table(STATES)?, number)?.end;
            let pages = read.open_table(PAGES)?;
            let (mut at, mut size) = (from, 0);
            while at < end {
                let missing = Failure::Corrupt("a page of the log is missing");
                let position = page::page_at(&pages, number, at)?.ok_or(missing)?;
                let changes = self.page(&pages, number, position)?;
                let skipped = usize::try_from(at - position).unwrap_or(usize::MAX);
                let rest = changes.get(skipped..).filter(|rest| !rest.is_empty());
                for change in rest.ok_or(Failure::Corrupt("a page of the log is missing"))? {
                    size += change.len();
                    let is_full = size > STEP_BYTES_MAX || part.changes.len() >= STEP_CHANGES_MAX;
                    if is_full && !part.changes.is_empty() {
                        part.next = Some(at);
                        return Ok(part);
                    }
                    part.changes.push(Arc::clone(change));
                    at += 1;
                }
            }
            Ok(part)
        })
    }

    /// The changes of the page at `position`.
    fn page(
        &self,
        pages: &impl ReadableTable<(u64, u64, u32), &'static [u8]>,
        number: u64,
        position: u64,
    ) -> Result<Changes, Failure> {
        let missing = || Failure::Corrupt("a page of the log is missing");
        let head = page::head(pages, number, position)?.ok_or_else(missing)?;
        let key = (number, position, head.count);
        if !head.is_packed {
            return page::decode(&page::read(pages, number, position)?.ok_or_else(missing)?);
        }
        if let Some(changes) = self.unpacked(|cache| {
            let at = cache.iter().position(|(known, _)| *known == key)?;
            let entry = cache.remove(at)?;
            cache.push_front(entry);
            cache.front().map(|(_, changes)| Arc::clone(changes))
        }) {
            return Ok(changes);
        }
        let changes = page::decode(&page::read(pages, number, position)?.ok_or_else(missing)?)?;
        self.unpacked(|cache| {
            cache.push_front((key, Arc::clone(&changes)));
            cache.truncate(PAGE_CACHE_MAX);
        });
        Ok(changes)
    }

    fn unpacked<T>(&self, work: impl FnOnce(&mut VecDeque<(PageKey, Changes)>) -> T) -> T {
        // No code under this lock can leave an entry half made.
        work(&mut self.unpacked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number of `store`; none if there is no such store.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn number_of(&self, store: &StoreId) -> Result<Option<u64>, StorageError> {
        self.database.read(|read| number_of(read, store))
    }

    /// The number of `store`, which it gets if it has none and `subject` may begin one more.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn number_for(
        &self,
        store: &StoreId,
        subject: &str,
        quota: StoreQuota,
    ) -> Result<Result<u64, NoStore>, StorageError> {
        match self.number_of(store)? {
            Some(number) => Ok(Ok(number)),
            None => self.write(|write| number_for(write, store, subject, quota)),
        }
    }

    /// The blobs of the store with this number. Reads the names of all of them if nobody has of
    /// late.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn blob_total(&self, number: u64) -> Result<BlobTotal, StorageError> {
        self.blob_totals.get(number, || {
            let (count, bytes) = self.database.read(|read| blob_rows::total(read, number))?;
            Ok(BlobTotal { count, bytes })
        })
    }

    /// Does one durable transaction, when it is its turn.
    ///
    /// # Errors
    /// If it fails; then nothing has changed.
    pub fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, StorageError> {
        let _turn = self.turns.take(Who::Other);
        self.database.write(work)
    }

    /// The same for the one who writes what all clients wait for.
    pub(crate) fn write_log<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, StorageError> {
        let _turn = self.turns.take(Who::Log);
        self.database.write(work)
    }

    /// Whether the log is likely to be written soon, so that other transactions are better short.
    pub(crate) fn is_busy(&self) -> bool {
        self.turns.is_log_busy()
    }
}

#[cfg(test)]
mod tests;
