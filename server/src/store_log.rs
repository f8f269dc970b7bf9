//! What a relay keeps: the log of each store, and its blobs, in one redb file.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format` (u16 LE) | the value |
//! | `stores` | store id | its number |
//! | `log` | store number, position from 0 without gaps | an encoded change, and its checksum |
//! | `starts` | store number, replica, first counter | the change's position |
//! | `versions` | store number, replica | the counter that comes next, the chain hash at it |
//! | `owners` | store number, replica | the subject that this replica belongs to |
//!
//! and the tables of the blobs (`sds_sync::blob_rows`), whose owners are store numbers.
//!
//! Invariants, which every transaction keeps:
//! - G1. A store's changes follow each other without gaps for each replica, and each comes after
//!   its deps.
//! - G2. `starts` and `versions` say what `log` holds; the chain hash of a replica is that of all its
//!   changes (`sds_sync::Chain`).
//! - G3. A blob stays where it is: the log has all that ever referred to it.
//!
//! - G4. A replica that has an owner keeps it, and has changes.
//!
//! Not here: the thread that groups commits (`log_writer`), who may do what (`access`).
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod appending;

use std::path::Path;
use std::sync::atomic::AtomicU64;

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use sds_engine::{ReplicaId, Version};
use sds_sync::blob_rows;
use sds_sync::database::{Database, Failure, Medium};
use sds_sync::limits::LOG_PAGE_BYTES_MAX;
use sds_sync::log_value::unseal;
use sds_sync::{Claims, LogPage, SeatTip, StorageError, StoreId};

use crate::limits::STEP_CHANGES_MAX;

pub use appending::{Appended, Author, append};

const FORMAT: u16 = 4;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const STORES: TableDefinition<'_, &str, u64> = TableDefinition::new("stores");
const LOG: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("log");
const STARTS: TableDefinition<'_, (u64, u64, u64), u64> = TableDefinition::new("starts");
const VERSIONS: TableDefinition<'_, (u64, u64), (u64, &[u8; 32])> =
    TableDefinition::new("versions");
const OWNERS: TableDefinition<'_, (u64, u64), &str> = TableDefinition::new("owners");

/// The relay's file.
#[derive(Debug)]
pub struct StoreLog {
    pub(crate) database: Database,
    /// The number that the next large content gets.
    pub(crate) next_content: AtomicU64,
    /// Who writes to which content.
    pub(crate) claims: Claims,
}

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
        database.write(check_format)?;
        for number in database.read(blob_rows::garbage)? {
            while !database.write(|write| blob_rows::sweep(write, number))? {}
        }
        let next_content = AtomicU64::new(database.read(blob_rows::next_number)?);
        Ok(Self { database, next_content, claims: Claims::default() })
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

    /// Which of the replicas that `author` has said to write with belong to others, and how far the log of
    /// `store` has them.
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

    /// The position of the first change that somebody with `version` may lack, and the log's end.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn position_for(
        &self,
        store: &StoreId,
        version: &Version,
    ) -> Result<(u64, u64), StorageError> {
        self.database.read(|read| {
            let Some(number) = number_of(read, store)? else { return Ok((0, 0)) };
            let log = read.open_table(LOG)?;
            let end = next_position(&log, number)?;
            let starts = read.open_table(STARTS)?;
            let mut first = end;
            for row in read.open_table(VERSIONS)?.range((number, 0)..=(number, u64::MAX))? {
                let (key, next) = row?;
                let author = key.value().1;
                let known = version.next(replica(author)?);
                if known < next.value().0 {
                    // The change that holds the first unknown counter.
                    let mut until = starts.range((number, author, 0)..=(number, author, known))?;
                    if let Some(row) = until.next_back() {
                        first = first.min(row?.1.value());
                    }
                }
            }
            Ok((first, end))
        })
    }

    /// A part of the log of `store` from position `from`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, store: &StoreId, from: u64) -> Result<LogPage, StorageError> {
        self.database.read(|read| {
            let mut page = LogPage::default();
            let Some(number) = number_of(read, store)? else { return Ok(page) };
            let mut size = 0;
            for row in read.open_table(LOG)?.range((number, from)..=(number, u64::MAX))? {
                let (key, value) = row?;
                let change = unseal(value.value())?;
                size += change.len();
                let is_full = size > LOG_PAGE_BYTES_MAX || page.changes.len() >= STEP_CHANGES_MAX;
                if is_full && !page.changes.is_empty() {
                    page.next = Some(key.value().1);
                    break;
                }
                page.changes.push(change.into());
            }
            Ok(page)
        })
    }

    /// The number of `store`, which it gets if it has none.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn number_of(&self, store: &StoreId) -> Result<u64, StorageError> {
        match self.database.read(|read| number_of(read, store))? {
            Some(number) => Ok(number),
            None => self.database.write(|write| number_for(write, store)),
        }
    }

    /// Does one durable transaction.
    ///
    /// # Errors
    /// If it fails; then nothing has changed.
    pub fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, StorageError> {
        self.database.write(work)
    }
}

fn initialize(write: &WriteTransaction) -> Result<(), Failure> {
    write.open_table(META)?.insert("format", FORMAT.to_le_bytes().as_slice())?;
    write.open_table(STORES)?;
    write.open_table(LOG)?;
    write.open_table(STARTS)?;
    write.open_table(VERSIONS)?;
    write.open_table(OWNERS)?;
    blob_rows::initialize(write)
}

fn check_format(write: &WriteTransaction) -> Result<(), Failure> {
    let meta = write.open_table(META)?;
    let format = meta.get("format")?.and_then(|bytes| bytes.value().try_into().ok());
    match format.map(u16::from_le_bytes) {
        Some(FORMAT) => Ok(()),
        Some(newer) if newer > FORMAT => Err(Failure::TooNew),
        _ => Err(Failure::Corrupt("no relay's file")),
    }
}

fn number_of(read: &ReadTransaction, store: &StoreId) -> Result<Option<u64>, Failure> {
    Ok(read.open_table(STORES)?.get(store.as_str())?.map(|number| number.value()))
}

fn number_for(write: &WriteTransaction, store: &StoreId) -> Result<u64, Failure> {
    let mut stores = write.open_table(STORES)?;
    if let Some(number) = stores.get(store.as_str())? {
        return Ok(number.value());
    }
    // Stores are never removed, so their count is a number that none has.
    let number = redb::ReadableTableMetadata::len(&stores)?;
    stores.insert(store.as_str(), number)?;
    Ok(number)
}

fn next_position(
    log: &impl ReadableTable<(u64, u64), &'static [u8]>,
    number: u64,
) -> Result<u64, Failure> {
    let last = log.range((number, 0)..=(number, u64::MAX))?.next_back().transpose()?;
    Ok(last.map_or(0, |(key, _)| key.value().1 + 1))
}

fn replica(number: u64) -> Result<ReplicaId, Failure> {
    ReplicaId::new(number).ok_or(Failure::Corrupt("a replica without a number"))
}

#[cfg(test)]
mod tests;
