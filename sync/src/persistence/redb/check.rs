//! A look at all that is in a store's file, which changes nothing: whether it is what was written, and
//! whether its parts agree.

use std::collections::BTreeSet;
use std::path::Path;

use redb::{ReadTransaction, ReadableTable};
use sds_engine::{BlobHash, Change, ReplicaId};
use sds_store::DataStore;

use super::{LOG, META, OpenFile, Persistence, RedbPersistence, SEATS, check_meta, end_of};
use crate::blob_rows::Content;
use crate::database::Failure;
use crate::inspection::{self, look_at_blobs, tolerant};
use crate::local_store::LocalStore;
use crate::log_value::unseal;
use crate::persistence::StorageError;
use crate::persistence::memory::MemoryPersistence;
use crate::random;
use crate::seat::Seat;
use crate::store_id::StoreId;

/// Something in a store's file that is not as it was written, or does not fit the rest.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The checksums of the database's pages do not match, or the pages contradict each other.
    #[error("pages of the database are damaged")]
    Pages,
    /// A change in the log does not match its checksum, or is none.
    #[error("the change at position {position} of the log is damaged")]
    Change {
        /// Where it is in the log.
        position: u64,
    },
    /// A change in the log is missing.
    #[error("the change at position {position} of the log is missing")]
    Gap {
        /// Where it should be in the log.
        position: u64,
    },
    /// Snapshot and log do not make a store.
    #[error("the snapshot and the log are no store: {detail}")]
    Store {
        /// What is wrong with them.
        detail: &'static str,
    },
    /// A seat cannot be read.
    #[error("a seat is damaged")]
    Seats,
    /// What a seat says of the changes made under it is not what they are.
    #[error("the seat of replica {} does not fit the changes", replica.as_u64())]
    Seat {
        /// Its replica id.
        replica: ReplicaId,
    },
    /// The bytes of a large value are not those of its name.
    #[error("the large value {hash} is damaged")]
    Blob {
        /// Its name.
        hash: BlobHash,
    },
}

impl Finding {
    /// The stable name of the finding.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Pages => "pages-damaged",
            Self::Change { .. } => "change-damaged",
            Self::Gap { .. } => "change-missing",
            Self::Store { .. } => "store-unreadable",
            Self::Seats => "seat-damaged",
            Self::Seat { .. } => "seat-unfit",
            Self::Blob { .. } => "blob-damaged",
        }
    }
}

/// What a look at a store's file has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// What is wrong; nothing if the file is sound.
    pub findings: Vec<Finding>,
    /// How many changes are in the log, behind the snapshot.
    pub changes: u64,
    /// How many large values are in the file.
    pub blobs: u64,
    /// How many values refer to one that is not here: it has not been fetched yet.
    pub missing_blobs: u64,
}

impl CheckReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    fn note(&mut self, finding: Finding) {
        inspection::note(&mut self.findings, finding);
    }
}

/// Looks at all that is in the file of `store` in `folder`: the checksums of pages, log and snapshot,
/// whether log, versions and seats agree, and the hashes of large values. Changes nothing, and needs no
/// right to. Takes reading the file twice, and the memory that opening the store takes.
///
/// # Errors
/// If there is no such file, another process has it open, it belongs to another store or a newer
/// program, is no database at all, or cannot be read.
pub fn check_store(folder: &Path, store: &StoreId) -> Result<CheckReport, StorageError> {
    let mut report = CheckReport::default();
    let path = folder.join(store.file_name());
    let is_it = |read: &ReadTransaction| check_meta(read, store);
    let database = inspection::open(path, is_it, &mut report.findings, Finding::Pages)?;
    let seats = database.read(look_at_seats);
    let seats = tolerant(&mut report.findings, seats, Finding::Seats)?;
    let log = database.read(|read| look_at_log(read, &mut report));
    let _log = tolerant(&mut report.findings, log, Finding::Pages)?;
    let damaged = |hash| Finding::Blob { hash };
    let blobs = look_at_blobs(&database, 0, &mut report.findings, Finding::Pages, damaged)?;
    report.blobs = blobs.len() as u64;
    let loaded = RedbPersistence::of(OpenFile::new(database), store.clone())
        .and_then(|file| load(&file, store));
    match loaded {
        Ok(loaded) => compare(&mut report, &loaded, seats.as_deref(), &blobs),
        Err(StorageError::Corrupt { detail, .. }) => report.note(Finding::Store { detail }),
        Err(error) => return Err(error),
    }
    Ok(report)
}

fn look_at_seats(read: &ReadTransaction) -> Result<Vec<Seat>, Failure> {
    super::read_seats(&read.open_table(SEATS)?)
}

fn look_at_log(read: &ReadTransaction, report: &mut CheckReport) -> Result<(), Failure> {
    let (log, meta) = (read.open_table(LOG)?, read.open_table(META)?);
    let end = end_of(&log, &meta)?;
    let start = meta.get("log_start")?.and_then(|bytes| bytes.value().try_into().ok());
    let mut expected = start.map_or(end, u64::from_le_bytes);
    for row in log.iter()? {
        let (position, value) = row?;
        let position = position.value();
        if position != expected {
            report.note(Finding::Gap { position: expected });
        }
        expected = position + 1;
        report.changes += 1;
        let change = unseal(value.value()).ok().and_then(|change| Change::decode(change).ok());
        if change.is_none() {
            report.note(Finding::Change { position });
        }
    }
    Ok(())
}

/// The store in the file, as it would be opened; nothing is written.
fn load(file: &RedbPersistence, id: &StoreId) -> Result<DataStore, StorageError> {
    let fresh = random::replica_id();
    let mut copy = MemoryPersistence::new(id.clone(), fresh);
    copy.fill(file.read_snapshot()?, |from| file.read_log(from))?;
    Ok(LocalStore::load(copy)?.store)
}

/// Whether seats and large values fit the store.
fn compare(
    report: &mut CheckReport,
    store: &DataStore,
    seats: Option<&[Seat]>,
    blobs: &[(BlobHash, Content)],
) {
    for seat in seats.unwrap_or_default() {
        if !seat.fits(store) {
            report.note(Finding::Seat { replica: seat.replica });
        }
    }
    let here: BTreeSet<BlobHash> = blobs.iter().map(|(hash, _)| *hash).collect();
    let wanted = store.referenced_blobs();
    report.missing_blobs = wanted.iter().filter(|blob| !here.contains(&blob.hash)).count() as u64;
}
