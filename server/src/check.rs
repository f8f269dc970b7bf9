//! A look at all that a relay keeps, which changes nothing: whether it is what was written, and
//! whether its tables agree.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use redb::{ReadTransaction, ReadableTable};
use sds_engine::{BlobHash, ChangeHeader, ReplicaId};
use sds_sync::database::Failure;
use sds_sync::inspection::{self, look_at_blobs, tolerant};
use sds_sync::{Chain, StorageError, StoreId};

use crate::node::LOG_FILE;
use crate::store_log::page::{self, Changes};
use crate::store_log::tables::{
    META, OWNERS, PAGES, STARTS, STATES, VERSIONS, check_format, state,
};

mod stores;

/// Something in a relay's file that is not as it was written, or does not fit the rest.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayFinding {
    /// The checksums of the database's pages do not match, or the pages contradict each other.
    #[error("pages of the database are damaged")]
    Pages,
    /// Changes cannot be read, from this position to the next page.
    #[error(
        "changes of the store {store} are damaged or missing at position {position} of its log"
    )]
    Changes {
        /// The store.
        store: StoreId,
        /// Where in its log.
        position: u64,
    },
    /// A change does not go on where its author's last one ended, or comes before what it builds
    /// on.
    #[error("the change at position {position} of the store {store} is out of order")]
    Order {
        /// The store.
        store: StoreId,
        /// Where in its log.
        position: u64,
    },
    /// What is noted of a store's log is not what the log is.
    #[error("what is noted of the log of the store {store} does not fit it: {detail}")]
    Index {
        /// The store.
        store: StoreId,
        /// What does not fit.
        detail: &'static str,
    },
    /// A table that says which stores there are, or who began them, cannot be read.
    #[error("the table {table} cannot be read")]
    Table {
        /// Its name.
        table: &'static str,
    },
    /// A row of such a table does not fit the rest.
    #[error("the row {row} of the table {table} does not fit the rest: {detail}")]
    Row {
        /// The name of the table.
        table: &'static str,
        /// The key of the row: a store, its number, or a subject.
        row: String,
        /// What does not fit.
        detail: &'static str,
    },
    /// The bytes of a large value are not those of its name.
    #[error("the large value {hash} of the store {store} is damaged")]
    Blob {
        /// The store.
        store: StoreId,
        /// Its name.
        hash: BlobHash,
    },
}

impl RelayFinding {
    /// The stable name of the finding.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Pages => "pages-damaged",
            Self::Changes { .. } => "changes-damaged",
            Self::Order { .. } => "change-out-of-order",
            Self::Index { .. } => "index-unfit",
            Self::Table { .. } => "table-damaged",
            Self::Row { .. } => "row-unfit",
            Self::Blob { .. } => "blob-damaged",
        }
    }
}

/// What a look at a relay's file has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayCheck {
    /// What is wrong, the first thousand; nothing if the file is sound.
    pub findings: Vec<RelayFinding>,
    /// How many stores there are.
    pub stores: u64,
    /// How many changes they have.
    pub changes: u64,
    /// How many bytes the changes have.
    pub change_bytes: u64,
    /// How many large values they have.
    pub blobs: u64,
    /// How many bytes the large values have.
    pub blob_bytes: u64,
}

impl RelayCheck {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    fn note(&mut self, finding: RelayFinding) {
        inspection::note(&mut self.findings, finding);
    }
}

/// Looks at all that the relay keeps whose data is in the folder `data_dir`: the checksums of the
/// database and of all changes, their order and what they build on, whether the indexes say what
/// the logs hold, which stores there are, were deleted and were begun by whom, and the hashes of
/// large values. Changes nothing, and needs no right to. Takes reading the file twice, and memory
/// for the index of one store.
///
/// # Errors
/// If there is no such file, the relay runs, or the file is of a newer program, no database at all,
/// or cannot be read.
pub fn check(data_dir: &Path) -> Result<RelayCheck, StorageError> {
    let mut report = RelayCheck::default();
    let path = data_dir.join(LOG_FILE);
    let is_it = |read: &ReadTransaction| check_format(&read.open_table(META)?);
    let database = inspection::open(path, is_it, &mut report.findings, RelayFinding::Pages)?;
    for (store, number) in stores::look(&database, &mut report)? {
        report.stores += 1;
        let looked = database.read(|read| Look::new(read, &store, number).look(&mut report));
        let finding = RelayFinding::Index { store: store.clone(), detail: "it cannot be read" };
        let _looked = tolerant(&mut report.findings, looked, finding)?;
        let pages = RelayFinding::Pages;
        let damaged = |hash| RelayFinding::Blob { store: store.clone(), hash };
        let blobs = look_at_blobs(&database, number, &mut report.findings, pages, damaged)?;
        report.blobs += blobs.len() as u64;
        report.blob_bytes += blobs.iter().map(|(_, content)| content.size).sum::<u64>();
    }
    Ok(report)
}

/// A look at the log of one store.
struct Look<'a> {
    read: &'a ReadTransaction,
    store: &'a StoreId,
    number: u64,
    chains: BTreeMap<ReplicaId, Chain>,
    /// Where replicas begin in pages: replica, counter, position of the page.
    starts: BTreeSet<(u64, u64, u64)>,
}

impl<'a> Look<'a> {
    fn new(read: &'a ReadTransaction, store: &'a StoreId, number: u64) -> Self {
        Self { read, store, number, chains: BTreeMap::new(), starts: BTreeSet::new() }
    }

    fn look(mut self, report: &mut RelayCheck) -> Result<(), Failure> {
        let number = self.number;
        let pages = self.read.open_table(PAGES)?;
        let state = state(&self.read.open_table(STATES)?, number)?;
        let (mut position, mut bytes, mut is_whole) = (0, 0, true);
        while position < state.end {
            match read_page(&pages, number, position)? {
                Some(changes) => {
                    bytes += self.look_at_page(position, &changes, report);
                    position += changes.len() as u64;
                }
                None => {
                    is_whole = false;
                    let store = self.store.clone();
                    report.note(RelayFinding::Changes { store, position });
                    let rest = (number, position + 1, 0)..=(number, u64::MAX, u32::MAX);
                    let next = pages.range(rest)?.next().transpose()?;
                    position = next.map_or(state.end, |(key, _)| key.value().1);
                }
            }
        }
        if position != state.end || page::page_at(&pages, number, u64::MAX)? >= Some(state.end) {
            self.unfit("the number of changes", report);
        }
        // What is damaged has been told of; the rest cannot fit then.
        if is_whole {
            if bytes != state.bytes {
                self.unfit("the number of bytes", report);
            }
            self.compare(report)?;
        }
        Ok(())
    }

    /// Looks at the changes of a page; says how many bytes they have.
    fn look_at_page(&mut self, position: u64, changes: &Changes, report: &mut RelayCheck) -> u64 {
        let mut seen = BTreeSet::new();
        let mut bytes = 0;
        for (at, change) in (position..).zip(changes.iter()) {
            report.changes += 1;
            bytes += change.len() as u64;
            let store = || self.store.clone();
            let Ok(header) = ChangeHeader::decode(change) else {
                report.note(RelayFinding::Changes { store: store(), position: at });
                continue;
            };
            let next = |replica| self.chains.get(&replica).map_or(0, |chain| chain.counter);
            let is_next = next(header.replica) == header.start;
            if !is_next || header.deps.iter().any(|dep| next(dep.replica) <= dep.counter) {
                report.note(RelayFinding::Order { store: store(), position: at });
            }
            self.chains.entry(header.replica).or_default().extend(header.end(), change);
            if seen.insert(header.replica) {
                self.starts.insert((header.replica.as_u64(), header.start, position));
            }
        }
        report.change_bytes += bytes;
        bytes
    }

    /// Compares what the log is with what is noted of it.
    fn compare(&self, report: &mut RelayCheck) -> Result<(), Failure> {
        let number = self.number;
        let mut noted = BTreeSet::new();
        let all = (number, 0, 0)..=(number, u64::MAX, u64::MAX);
        for row in self.read.open_table(STARTS)?.range(all)? {
            let (key, position) = row?;
            let (_, replica, start) = key.value();
            noted.insert((replica, start, position.value()));
        }
        if noted != self.starts {
            self.unfit("where replicas begin", report);
        }
        let mut noted = BTreeMap::new();
        for row in self.read.open_table(VERSIONS)?.range((number, 0)..=(number, u64::MAX))? {
            let (key, value) = row?;
            let (counter, hash) = value.value();
            noted.insert(key.value().1, Chain { counter, hash: *hash });
        }
        let chains = self.chains.iter().map(|(replica, chain)| (replica.as_u64(), *chain));
        if noted != chains.collect() {
            self.unfit("the versions of replicas", report);
        }
        for row in self.read.open_table(OWNERS)?.range((number, 0)..=(number, u64::MAX))? {
            if !noted.contains_key(&row?.0.value().1) {
                self.unfit("an owner without changes", report);
            }
        }
        Ok(())
    }

    fn unfit(&self, detail: &'static str, report: &mut RelayCheck) {
        report.note(RelayFinding::Index { store: self.store.clone(), detail });
    }
}

/// The changes of the page at `position`; none if it is damaged or not there.
fn read_page(
    pages: &impl ReadableTable<(u64, u64, u32), &'static [u8]>,
    number: u64,
    position: u64,
) -> Result<Option<Changes>, Failure> {
    let bytes = match page::read(pages, number, position) {
        Err(Failure::Corrupt(_)) => None,
        read => read?,
    };
    Ok(bytes.and_then(|bytes| page::decode(&bytes).ok()))
}

#[cfg(test)]
mod tests;
