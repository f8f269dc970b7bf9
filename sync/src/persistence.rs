//! Where a store is kept: its seats, a snapshot, a log of the changes after it, and the blobs that
//! they refer to.
//!
//! The trait is small so that a test can stand in for the disk. Whatever [`Persistence::append`] has
//! returned for is there after a crash; what it failed for is not there at all.
//!
//! Not here: which changes to keep (`local_store`), grouping of commits (`sync_engine`).

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sds_engine::{BlobHash, BlobRef, Version};

use crate::blob_storage::BlobStorage;
use crate::message::RefusalCode;
use crate::seat::Seat;
use crate::store_id::StoreId;

mod blob_list;
mod guest_blobs;
mod guest_link;
mod memory;
mod redb;
mod shared_file;

pub use memory::MemoryPersistence;
pub use redb::{CheckReport, Finding, RedbPersistence, check_store};
pub(crate) use shared_file::Intent;
pub use shared_file::SharedFile;

/// A part of the log, in the order in which it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// Encoded changes, each after those it builds on.
    pub changes: Vec<Arc<[u8]>>,
    /// Where the next page begins; none at the end.
    pub next: Option<u64>,
}

/// What one commit adds.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The store as it was before `changes`; it takes the place of all that is in the log.
    pub snapshot: Option<Arc<[u8]>>,
    /// Encoded changes, each after those it builds on.
    pub changes: Vec<Arc<[u8]>>,
    /// Seats, as they are with these changes.
    pub seats: Vec<Seat>,
    /// Blobs; the caller has checked that the bytes are those of the hash.
    pub blobs: Vec<(BlobHash, Arc<[u8]>)>,
    /// Blobs that nothing refers to with these changes, and the numbers of their contents
    /// ([`BlobStorage::let_go`]). They go before `blobs` come.
    pub released: Vec<(BlobHash, u64)>,
    /// Blobs that nothing refers to with these changes, and that undoing may refer to again: to be
    /// kept where somebody else would let go of them.
    pub held: Vec<BlobRef>,
}

impl Batch {
    /// Whether there is nothing to add.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.snapshot.is_none()
            && self.changes.is_empty()
            && self.seats.is_empty()
            && self.blobs.is_empty()
            && self.released.is_empty()
    }

    /// How many bytes are to be written.
    #[must_use]
    pub fn size(&self) -> usize {
        let changes = self.changes.iter().map(|change| change.len());
        let blobs = self.blobs.iter().map(|(_, bytes)| bytes.len());
        let snapshot = self.snapshot.iter().map(|snapshot| snapshot.len());
        changes.chain(blobs).chain(snapshot).sum()
    }

    /// Adds what was to be written after this.
    pub fn add(&mut self, later: Self) {
        if later.snapshot.is_some() {
            self.snapshot = later.snapshot;
            self.changes.clear();
        }
        self.changes.extend(later.changes);
        self.released.extend(later.released);
        self.held.extend(later.held);
        self.blobs.extend(later.blobs);
        for seat in later.seats {
            self.seats.retain(|former| former.replica != seat.replica);
            self.seats.push(seat);
        }
    }
}

/// A store's file, or what stands for it.
pub trait Persistence: fmt::Debug + Send + 'static {
    /// The store that is kept here.
    fn store(&self) -> &StoreId;

    /// The seats of the file. One is for sessions, and this session's.
    fn seats(&self) -> Vec<Seat>;

    /// The seats of the file where another process owns it, as that one has them.
    fn owners_seats(&self) -> Vec<Seat> {
        Vec::new()
    }

    /// The snapshot that the log begins after, if there is one.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read_snapshot(&self) -> Result<Option<Vec<u8>>, StorageError>;

    /// Notes in the file that this process has it, if it means to write: called when what is there could be
    /// read, so that a damaged file stays as it is.
    ///
    /// # Errors
    /// If that cannot be written.
    fn claim(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    /// A part of the log from position `from`; zero is the start.
    ///
    /// # Errors
    /// If the log cannot be read.
    fn read_log(&self, from: u64) -> Result<LogPage, StorageError>;

    /// The blobs that are kept with the store, to be read and written beside the log.
    fn blobs(&self) -> Arc<dyn BlobStorage>;

    /// Removes all blobs, and parts of blobs, that are not in `referenced`, and whatever a kill left
    /// behind. To be called when nobody reads or writes blobs.
    ///
    /// # Errors
    /// If that fails; then some may be left.
    fn retain_blobs(&mut self, referenced: &BTreeSet<BlobHash>) -> Result<(), StorageError>;

    /// Adds a batch, whole, and durably by the time it returns.
    ///
    /// # Errors
    /// If it cannot be written; then nothing of it is here.
    fn append(&mut self, batch: &Batch) -> Result<(), StorageError>;

    /// Whether a batch may bring a snapshot.
    fn takes_snapshots(&self) -> bool {
        true
    }

    /// The file, if there is one and this process owns it: others then are served by it.
    fn owned_file(&self) -> Option<&Path> {
        None
    }

    /// Lets others have what is kept here, if it was opened only to be read: it is not asked for
    /// anything but blobs any more.
    fn let_go(&mut self) {}

    /// The file, if another process may own it, and what others write there has to be asked for.
    fn followed_file(&self) -> Option<&Path> {
        None
    }

    /// Notes that another process may own the file now: a guest takes its seat there at once, before
    /// anybody else gets it. If that fails, the next [`append`](Self::append) tries again.
    fn reattach(&mut self) {}

    /// Notes that what is written from now on fits what is there after [`reload`](Self::reload), and that all
    /// that was written here is to be looked for by the names that the file has now: nothing of it has to be
    /// there as it was brought.
    fn begin_anew(&mut self) {}

    /// Goes on from what is there now, also if another process has written to it meanwhile: from then on
    /// what is read is that, and what is appended comes after it. Nothing is appended
    /// ([`StorageError::SeatLost`]) before [`begin_anew`](Self::begin_anew), also if this fails.
    ///
    /// # Errors
    /// If it cannot be read.
    fn reload(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Gives room on disk back that nothing needs, if it is worth it. May take as long as copying the
    /// file; to be called before closing.
    ///
    /// # Errors
    /// If that fails; what is kept is as it was.
    fn compact(&mut self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Why a store's file cannot be used. The world is at fault; the file has not changed.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// There is no such store.
    #[error("no store at {}: create it first, or check the id and the folder", path.display())]
    NotFound {
        /// The file looked for.
        path: PathBuf,
    },
    /// Another process has the file open.
    #[error("{} is in use by another process: close that, or try again later", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged, or is no store's file.
    #[error("{} is damaged or no store ({detail}): restore it from a backup or a relay", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: &'static str,
    },
    /// The file was written by a newer program.
    #[error("{} was written by a newer program: update this one", path.display())]
    FormatTooNew {
        /// The file.
        path: PathBuf,
    },
    /// The file belongs to another store.
    #[error("{} holds another store: it was renamed; give it back its name", path.display())]
    WrongStore {
        /// The file.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("no space left to write {}: free some and try again", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The file or its folder may only be read.
    #[error("{} cannot be written: give this user the right to, or use another folder", path.display())]
    NotWritable {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot use {}: {source}; check that the disk is there and the rights are", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// Changes that were made here, or that a relay lacks, are gone: only what they led to is here.
    #[error("{} lacks changes that are to be sent: only what they led to is here", path.display())]
    HistoryMissing {
        /// The file.
        path: PathBuf,
    },
    /// The process that had the file went in the middle of a write, or this one lost it after a failure of
    /// the disk, and somebody else has gone on under the same ids, or without what the write built on.
    /// Nothing of it was written.
    #[error("{} was written to by somebody else meanwhile: do the same again", path.display())]
    SeatLost {
        /// The file.
        path: PathBuf,
    },
    /// The same, after some of what was brought was written. It may be there by other names.
    #[error("{} was written to by somebody else meanwhile, in the middle of what this process wrote: look what of it is there", path.display())]
    SeatLostMidway {
        /// The file.
        path: PathBuf,
        /// What was written, by the names that it was brought under.
        written: Version,
    },
    /// The process that has the file open does not take what this one brings.
    #[error("the process that has {} open refuses ({code}): see that both programs are of one version", path.display())]
    OwnerRefuses {
        /// The file.
        path: PathBuf,
        /// Why.
        code: RefusalCode,
    },
    /// A failure has closed the file.
    #[error("{} was closed after a failure: try again, or open it anew", path.display())]
    Closed {
        /// The file.
        path: PathBuf,
    },
}

impl StorageError {
    /// Whether what this process has to write has to be made again first.
    pub(crate) const fn is_seat_lost(&self) -> bool {
        matches!(self, Self::SeatLost { .. } | Self::SeatLostMidway { .. })
    }

    /// The stable name of the reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "store-not-found",
            Self::Locked { .. } => "store-locked",
            Self::Corrupt { .. } => "store-corrupt",
            Self::FormatTooNew { .. } => "store-too-new",
            Self::WrongStore { .. } => "wrong-store",
            Self::Full { .. } => "disk-full",
            Self::NotWritable { .. } => "store-not-writable",
            Self::Io { .. } => "storage-failed",
            Self::HistoryMissing { .. } => "history-missing",
            Self::SeatLost { .. } => "seat-lost",
            Self::SeatLostMidway { .. } => "seat-lost-midway",
            Self::OwnerRefuses { .. } => "owner-refuses",
            Self::Closed { .. } => "storage-closed",
        }
    }

    /// What the operating system said about `path`.
    #[must_use]
    pub fn from_io(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable { path }
            }
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::Corrupt { path, detail: "not a database" }
            }
            _ => Self::Io { path, source: Arc::new(error) },
        }
    }
}
