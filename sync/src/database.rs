//! Opening redb files the way this project does, and what their errors mean to a person.
//!
//! Every write transaction is durable when its commit returns. A large file is left so that it opens
//! at once after a crash, which takes a second sync of the disk for each commit; a small one is walked
//! through then, which takes some milliseconds. redb trusts a file that was closed well and may panic over
//! one that was damaged since; here that is an error like any other. After a failure of the disk redb
//! refuses all further work; here the next use opens the file again.
//!
//! Invariant D1: under its own name there is never a file that was not made whole.

use std::fmt;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant};

use redb::{Durability, ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::limits::{FILE_CACHE_BYTES, LOCK_PATIENCE};
use crate::new_file::make_whole;
use crate::persistence::StorageError;
pub use crate::place::Place;

/// How often a file that another process has open is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// The smallest file, in bytes, that is not walked through after a crash. Below that a walk takes about
/// as long as a few commits.
const QUICK_REPAIR_BYTES_MIN: u64 = if cfg!(test) { 2 << 20 } else { 16 << 20 };

/// The smallest file, in bytes, that is worth making smaller.
const COMPACT_BYTES_MIN: u64 = if cfg!(test) { 1 << 20 } else { 16 << 20 };

/// What a database is kept on: a file, or what stands for one.
pub trait Medium: fmt::Debug + Send + Sync {
    /// Opens the database that is there.
    ///
    /// # Errors
    /// What redb fails with.
    fn open(&self) -> Result<redb::Database, redb::Error>;

    /// How many bytes it takes.
    ///
    /// # Errors
    /// If it is not there.
    fn size(&self) -> io::Result<u64>;

    /// Where it is, to notice copies.
    ///
    /// # Errors
    /// If it is not there.
    fn place(&self) -> io::Result<Place>;

    /// Its name, for messages.
    fn path(&self) -> &Path;
}

/// A file.
#[derive(Debug)]
struct FileMedium(PathBuf);

impl Medium for FileMedium {
    fn open(&self) -> Result<redb::Database, redb::Error> {
        Ok(redb::Database::builder().set_cache_size(FILE_CACHE_BYTES).open(&self.0)?)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(fs::metadata(&self.0)?.len())
    }

    fn place(&self) -> io::Result<Place> {
        Place::of(&self.0)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

/// An open redb file.
pub struct Database {
    redb: RwLock<Handle>,
    medium: Box<dyn Medium>,
}

/// The open file. Whoever uses it holds on to it alone, not to the lock: a long read keeps nobody waiting.
struct Handle {
    /// None after a failure of the disk, until the next use opens the file again.
    current: Option<Arc<redb::Database>>,
    /// The former one, which somebody may still be reading; until then nobody can open the file again.
    broken: Weak<redb::Database>,
}

/// Why a step inside a transaction failed: redb's error, or damage that was noticed.
#[derive(Debug)]
pub enum Failure {
    /// What redb said.
    Redb(redb::Error),
    /// What was found instead of a store.
    Corrupt(&'static str),
    /// The file was written by a newer program.
    TooNew,
    /// The file belongs to another store.
    WrongStore,
    /// Another process wrote to the file while it was closed after a failure.
    Changed,
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Redb(error.into())
    }
}

impl Database {
    /// Opens a file, and waits up to [`LOCK_PATIENCE`] for another process to let go of it.
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        Self::open_within(path, LOCK_PATIENCE)
    }

    /// Opens a file, and waits no longer than `patience` for another process to let go of it. Should it
    /// have to be opened again after a failure, that waits up to [`LOCK_PATIENCE`].
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn open_within(path: &Path, patience: Duration) -> Result<Self, StorageError> {
        Self::open_on_within(Box::new(FileMedium(path.to_owned())), patience)
    }

    /// Opens the database on a medium like [`open`](Self::open).
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn open_on(medium: Box<dyn Medium>) -> Result<Self, StorageError> {
        Self::open_on_within(medium, LOCK_PATIENCE)
    }

    /// Opens the database on a medium like [`open_within`](Self::open_within).
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn open_on_within(
        medium: Box<dyn Medium>,
        patience: Duration,
    ) -> Result<Self, StorageError> {
        let current = Some(Arc::new(open_patiently(&*medium, patience)?));
        let redb = RwLock::new(Handle { current, broken: Weak::new() });
        Ok(Self { redb, medium })
    }

    /// Makes a file, and its folder, with what `initialize` puts into it, unless it is there or somebody
    /// else is faster. Returns whether the file is the one made here.
    ///
    /// # Errors
    /// Any [`StorageError`]; and what `initialize` fails with, then there is no file.
    pub fn create_if_missing(
        path: &Path,
        initialize: impl FnOnce(&WriteTransaction) -> Result<(), Failure>,
    ) -> Result<bool, StorageError> {
        let is_there = path.try_exists().map_err(|error| StorageError::from_io(path, error))?;
        if is_there {
            return Ok(false);
        }
        make_whole(path, |temporary| {
            guarded(path, || {
                let mut builder = redb::Database::builder();
                let redb = builder.set_cache_size(FILE_CACHE_BYTES).create(temporary)?;
                write(&redb, false, initialize)
            })
        })
    }

    /// Opens a file like [`open`](Self::open), or makes it, and its folder, with what `initialize`
    /// puts into it.
    ///
    /// # Errors
    /// Any [`StorageError`]; and what `initialize` fails with, then there is no file.
    pub fn open_or_create(
        path: &Path,
        initialize: impl FnOnce(&WriteTransaction) -> Result<(), Failure>,
    ) -> Result<Self, StorageError> {
        Self::create_if_missing(path, initialize)?;
        Self::open(path)
    }

    /// Fills a new and empty database with what `initialize` puts into it.
    ///
    /// # Errors
    /// What `initialize` fails with, or the disk; then it is still empty.
    pub fn initialize(
        redb: &redb::Database,
        path: &Path,
        initialize: impl FnOnce(&WriteTransaction) -> Result<(), Failure>,
    ) -> Result<(), StorageError> {
        guarded(path, || write(redb, false, initialize))
    }

    /// Does one durable write transaction.
    ///
    /// # Errors
    /// What `work` fails with, or the commit; then nothing has changed.
    pub fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, StorageError> {
        // A file whose size nobody can tell counts as large.
        let is_small = self.medium.size().is_ok_and(|size| size < QUICK_REPAIR_BYTES_MIN);
        self.run(|redb| write(redb, !is_small, work))
    }

    /// Reads a consistent state.
    ///
    /// # Errors
    /// What `work` fails with.
    pub fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, Failure>,
    ) -> Result<T, StorageError> {
        self.run(|redb| work(&redb.begin_read()?))
    }

    /// Whether the checksums of all pages match, and the pages agree. Reads the whole file, and repairs
    /// what can be, as far as the medium lets it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn check_integrity(&mut self) -> Result<bool, StorageError> {
        let path = self.medium.path().to_owned();
        let redb = self.redb.get_mut().unwrap_or_else(PoisonError::into_inner);
        let redb = redb.current.as_mut().and_then(Arc::get_mut);
        let checked = guarded(&path, || match redb {
            Some(redb) => Ok(redb.check_integrity()?),
            None => Err(redb::Error::DatabaseClosed.into()),
        });
        match checked {
            Err(StorageError::Corrupt { .. }) => Ok(false),
            checked => checked,
        }
    }

    /// Makes a large file smaller of which less than half is in use and which nobody else uses just now,
    /// and says whether it did. Takes as long as copying it, and nobody else gets at it meanwhile; a kill
    /// costs a check of the whole file at the next opening, and nothing else.
    ///
    /// # Errors
    /// If it cannot be read or written; what is in it is as it was.
    pub fn compact_if_worth_it(&self) -> Result<bool, StorageError> {
        let size = self.medium.size();
        let size = size.map_err(|error| StorageError::from_io(self.path(), error))?;
        if size < COMPACT_BYTES_MIN {
            return Ok(false);
        }
        let used = self.run(|redb| {
            let transaction = redb.begin_write()?;
            let stats = transaction.stats()?;
            transaction.abort()?;
            Ok(stats.allocated_pages().saturating_mul(stats.page_size() as u64))
        })?;
        if used > size / 2 {
            return Ok(false);
        }
        let mut redb = self.redb.write().unwrap_or_else(PoisonError::into_inner);
        let redb = redb.current.as_mut().and_then(Arc::get_mut);
        guarded(self.path(), || redb.map_or(Ok(false), |redb| Ok(redb.compact()?)))
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.medium.path()
    }

    /// Where the file is, to notice copies.
    ///
    /// # Errors
    /// If it is not there any more.
    pub fn place(&self) -> Result<Place, StorageError> {
        self.medium.place().map_err(|error| StorageError::from_io(self.path(), error))
    }

    /// Does `work`; after a failure of the disk the next one gets a file that was opened anew.
    fn run<T>(
        &self,
        work: impl FnOnce(&redb::Database) -> Result<T, Failure>,
    ) -> Result<T, StorageError> {
        let redb = self.opened()?;
        let outcome = guarded(self.path(), || work(&redb));
        if let Err(
            StorageError::Full { .. } | StorageError::Io { .. } | StorageError::Closed { .. },
        ) = &outcome
        {
            let mut handle = self.redb.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(broken) = handle.current.take_if(|current| Arc::ptr_eq(current, &redb)) {
                handle.broken = Arc::downgrade(&broken);
            }
        }
        // After a failure it may find its file in any state.
        let _closed = catch_unwind(AssertUnwindSafe(|| drop(redb)));
        outcome
    }

    /// The open file. Opens it again after a failure, when nobody uses the former one any more; waits for
    /// that no longer than for another process, up to [`LOCK_PATIENCE`].
    fn opened(&self) -> Result<Arc<redb::Database>, StorageError> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            let handle = self.redb.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(redb) = &handle.current {
                return Ok(Arc::clone(redb));
            }
            let is_free = handle.broken.strong_count() == 0;
            drop(handle);
            if is_free {
                let mut handle = self.redb.write().unwrap_or_else(PoisonError::into_inner);
                if handle.current.is_none() {
                    let opened = open_patiently(&*self.medium, LOCK_PATIENCE)?;
                    handle.current = Some(Arc::new(opened));
                }
            } else if Instant::now() >= deadline {
                return Err(StorageError::Closed { path: self.path().to_owned() });
            } else {
                sleep(LOCK_RETRY);
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.path()).finish()
    }
}

fn open_patiently(medium: &dyn Medium, patience: Duration) -> Result<redb::Database, StorageError> {
    let deadline = Instant::now() + patience;
    loop {
        match guarded(medium.path(), || Ok(medium.open()?)) {
            Err(StorageError::Locked { .. }) if Instant::now() < deadline => sleep(LOCK_RETRY),
            outcome => return outcome,
        }
    }
}

/// One durable transaction; with it, the file opens at once after a crash if that `is_quick_to_repair`.
fn write<T>(
    redb: &redb::Database,
    is_quick_to_repair: bool,
    work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut transaction = redb.begin_write()?;
    transaction.set_durability(Durability::Immediate).map_err(redb::Error::from)?;
    transaction.set_quick_repair(is_quick_to_repair);
    let value = work(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

/// Runs `work`; a panic in it means that redb met bytes that it never wrote.
///
/// Nothing of ours panics in there. A write transaction that unwinds is never committed, so the
/// file stays as it was.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, StorageError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(|failure| meaning(path, failure)),
        Err(_) => Err(corrupt(path, "its pages contradict each other")),
    }
}

/// What a failure means to the one who opened the file.
fn meaning(path: &Path, failure: Failure) -> StorageError {
    let error = match failure {
        Failure::Corrupt(detail) => return corrupt(path, detail),
        Failure::TooNew => return StorageError::FormatTooNew { path: path.to_owned() },
        Failure::WrongStore => return StorageError::WrongStore { path: path.to_owned() },
        Failure::Changed => return StorageError::SeatLost { path: path.to_owned() },
        Failure::Redb(error) => error,
    };
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
            StorageError::Locked { path: path.to_owned() }
        }
        redb::Error::Io(error) => StorageError::from_io(path, error),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
            StorageError::Closed { path: path.to_owned() }
        }
        redb::Error::UpgradeRequired(_) => corrupt(path, "an old database format"),
        redb::Error::TableTypeMismatch { .. } | redb::Error::TypeDefinitionChanged { .. } => {
            corrupt(path, "its tables have another shape")
        }
        redb::Error::TableDoesNotExist(_) => corrupt(path, "a table is missing"),
        redb::Error::Corrupted(_) | redb::Error::RepairAborted => {
            corrupt(path, "its checksums do not match")
        }
        error => {
            StorageError::Io { path: path.to_owned(), source: Arc::new(io::Error::other(error)) }
        }
    }
}

fn corrupt(path: &Path, detail: &'static str) -> StorageError {
    StorageError::Corrupt { path: path.to_owned(), detail }
}

#[cfg(test)]
mod tests;
