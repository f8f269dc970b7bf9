//! What a relay keeps: the log of each store, and its blobs, in one redb file.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format` (u16 LE) | the value |
//! | `stores` | store id | its number |
//! | `log` | store number, position from 0 without gaps | an encoded change, and its checksum |
//! | `starts` | store number, replica, first counter | the change's position |
//! | `versions` | store number, replica | the counter that comes next, the chain hash at it |
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
//! Not here: the thread that groups commits (`log_writer`), who may do what (`access`).
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use sds_engine::{Change, ReplicaId, Version};
use sds_sync::blob_rows;
use sds_sync::database::{Database, Failure, Medium};
use sds_sync::limits::LOG_PAGE_BYTES_MAX;
use sds_sync::log_value::{seal, unseal};
use sds_sync::{Chain, Claims, LogPage, RefusalCode, SeatTip, StorageError, StoreId};

use crate::limits::STEP_CHANGES_MAX;

const FORMAT: u16 = 3;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const STORES: TableDefinition<'_, &str, u64> = TableDefinition::new("stores");
const LOG: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("log");
const STARTS: TableDefinition<'_, (u64, u64, u64), u64> = TableDefinition::new("starts");
const VERSIONS: TableDefinition<'_, (u64, u64), (u64, &[u8; 32])> =
    TableDefinition::new("versions");

/// What became of changes that a client sent. Not yet durable until the transaction is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// The position of the first new change.
    pub from: u64,
    /// The new changes, in order.
    pub new: Vec<Arc<[u8]>>,
    /// What of the client's is in the log now: for each replica that it sent changes of.
    pub stored: Version,
    /// Why the rest was not taken, if something was wrong.
    pub refused: Option<RefusalCode>,
}

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

/// Appends those of `changes` that are new, up to the first one that cannot be taken.
///
/// # Errors
/// If the file cannot be read or written.
pub fn append(
    write: &WriteTransaction,
    store: &StoreId,
    changes: &[Change],
) -> Result<Appended, Failure> {
    let number = number_for(write, store)?;
    let mut log = write.open_table(LOG)?;
    let mut starts = write.open_table(STARTS)?;
    let mut versions = write.open_table(VERSIONS)?;
    let mut position = next_position(&log, number)?;
    let mut appended = Appended { from: position, ..Appended::default() };
    for change in changes {
        let header = change.header();
        let author = header.replica.as_u64();
        let mut chain = versions.get((number, author))?.map_or_else(Chain::default, |known| {
            let (counter, hash) = known.value();
            Chain { counter, hash: *hash }
        });
        let next = chain.counter;
        if header.start < next {
            let known = starts.get((number, author, header.start))?.map(|known| known.value());
            let known = known.map(|position| log.get((number, position))).transpose()?.flatten();
            let known = known.as_ref().map(|known| unseal(known.value()));
            if !matches!(known, Some(Ok(known)) if known == &**change.bytes()) {
                // Damage is no reason to fail the others of this transaction, nor a fork.
                let is_damaged = matches!(known, Some(Err(_)));
                let code =
                    if is_damaged { RefusalCode::StorageFailed } else { RefusalCode::Forked };
                appended.refused = Some(code);
                break;
            }
        } else {
            let mut lacks = header.start > next;
            for dep in &header.deps {
                let next = versions.get((number, dep.replica.as_u64()))?;
                lacks |= next.is_none_or(|next| next.value().0 <= dep.counter);
            }
            if lacks {
                appended.refused = Some(RefusalCode::MissingDependency);
                break;
            }
            log.insert((number, position), seal(change.bytes()).as_slice())?;
            starts.insert((number, author, header.start), position)?;
            chain.extend(header.end(), change.bytes());
            versions.insert((number, author), (chain.counter, &chain.hash))?;
            appended.new.push(Arc::clone(change.bytes()));
            position += 1;
        }
        appended.stored.advance(header.replica, header.end());
    }
    Ok(appended)
}

fn initialize(write: &WriteTransaction) -> Result<(), Failure> {
    write.open_table(META)?.insert("format", FORMAT.to_le_bytes().as_slice())?;
    write.open_table(STORES)?;
    write.open_table(LOG)?;
    write.open_table(STARTS)?;
    write.open_table(VERSIONS)?;
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
mod tests {
    use sds_engine::{Op, OpId};
    use tempfile::TempDir;

    use super::*;

    fn replica_id(number: u64) -> ReplicaId {
        ReplicaId::new(number).unwrap()
    }

    fn change(author: u64, start: u64, deps: &[(u64, u64)], count: u64) -> Change {
        let deps = deps
            .iter()
            .map(|(replica, counter)| OpId { replica: replica_id(*replica), counter: *counter });
        let ops = [Op::Skip { count }];
        Change::new(replica_id(author), start, deps.collect(), &ops).unwrap()
    }

    fn id() -> StoreId {
        StoreId::new("s").unwrap()
    }

    fn open(folder: &TempDir) -> StoreLog {
        StoreLog::open(&folder.path().join("relay.redb")).unwrap()
    }

    fn add(log: &StoreLog, store: &StoreId, changes: &[Change]) -> Appended {
        log.write(|write| append(write, store, changes)).unwrap()
    }

    fn version(pairs: &[(u64, u64)]) -> Version {
        let mut version = Version::new();
        pairs.iter().for_each(|(replica, next)| version.advance(replica_id(*replica), *next));
        version
    }

    #[test]
    fn what_was_appended_survives_reopening() {
        let folder = TempDir::new().unwrap();
        let changes = [change(1, 0, &[], 2), change(2, 0, &[(1, 1)], 1)];
        let appended = add(&open(&folder), &id(), &changes);
        assert_eq!((appended.from, appended.new.len(), appended.refused), (0, 2, None));
        let log = open(&folder);
        assert_eq!(log.version(&id()).unwrap(), version(&[(1, 2), (2, 1)]));
        assert_eq!(log.read(&id(), 1).unwrap().changes, [Arc::clone(changes[1].bytes())]);
        assert_eq!(log.version(&StoreId::new("t").unwrap()).unwrap(), Version::new());
        let other = add(&log, &StoreId::new("t").unwrap(), &changes);
        assert_eq!((other.from, other.new.len()), (0, 2), "stores are apart");
    }

    #[test]
    fn duplicates_are_acknowledged_and_not_kept_twice() {
        let folder = TempDir::new().unwrap();
        let log = open(&folder);
        add(&log, &id(), &[change(1, 0, &[], 2)]);
        let again = add(&log, &id(), &[change(1, 0, &[], 2), change(1, 2, &[], 1)]);
        assert_eq!((again.from, again.new.len(), again.refused), (1, 1, None));
        assert_eq!(again.stored, version(&[(1, 3)]));
    }

    #[test]
    fn another_change_under_a_known_id_is_a_fork() {
        let folder = TempDir::new().unwrap();
        let log = open(&folder);
        add(&log, &id(), &[change(1, 0, &[], 2), change(1, 2, &[], 2)]);
        for fork in [change(1, 0, &[], 1), change(1, 1, &[], 1), change(1, 2, &[], 9)] {
            let refused = add(&log, &id(), &[fork, change(3, 0, &[], 1)]);
            assert_eq!(refused.refused, Some(RefusalCode::Forked));
            assert_eq!((refused.new.len(), refused.stored), (0, Version::new()));
        }
    }

    #[test]
    fn changes_before_what_they_build_on_are_refused_and_those_before_them_kept() {
        let folder = TempDir::new().unwrap();
        let log = open(&folder);
        for bad in [change(1, 5, &[], 1), change(2, 0, &[(1, 1)], 1), change(2, 0, &[(9, 0)], 1)] {
            let refused = add(&log, &id(), &[change(1, 0, &[], 1), bad, change(4, 0, &[], 1)]);
            assert_eq!(refused.refused, Some(RefusalCode::MissingDependency));
            assert_eq!(refused.stored, version(&[(1, 1)]));
        }
        assert_eq!(log.version(&id()).unwrap(), version(&[(1, 1)]));
    }

    #[test]
    fn the_position_is_where_the_first_lacking_change_is() {
        let folder = TempDir::new().unwrap();
        let log = open(&folder);
        let changes = [
            change(1, 0, &[], 1),
            change(2, 0, &[], 3),
            change(1, 1, &[], 1),
            change(2, 3, &[], 1),
        ];
        add(&log, &id(), &changes);
        let rows: [(&[(u64, u64)], u64); 6] = [
            (&[], 0),
            (&[(1, 1)], 1),
            (&[(1, 1), (2, 3)], 2),
            (&[(1, 2), (2, 3)], 3),
            (&[(1, 2), (2, 2)], 1),
            (&[(1, 2), (2, 4), (7, 1)], 4),
        ];
        for (known, position) in rows {
            let found = log.position_for(&id(), &version(known)).unwrap();
            assert_eq!(found, (position, 4), "{known:?}");
        }
    }

    #[test]
    fn a_damaged_change_is_not_handed_out_and_not_taken_for_a_fork() {
        let folder = TempDir::new().unwrap();
        let log = open(&folder);
        let changes = [change(1, 0, &[], 2), change(2, 0, &[], 1)];
        add(&log, &id(), &changes);
        log.write(|write| {
            let other = change(1, 0, &[], 3);
            let mut damaged = seal(changes[0].bytes());
            damaged[..other.bytes().len()].copy_from_slice(other.bytes());
            write.open_table(LOG)?.insert((0, 0), damaged.as_slice())?;
            Ok(())
        })
        .unwrap();
        assert_eq!(log.read(&id(), 0).unwrap_err().code(), "store-corrupt");
        assert_eq!(log.read(&id(), 1).unwrap().changes.len(), 1);
        let again = add(&log, &id(), &changes);
        assert_eq!(again.refused, Some(RefusalCode::StorageFailed));
    }
}
