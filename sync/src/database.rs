//! Opening redb files the way this project does, and what their errors mean to a person.
//!
//! Every write transaction is durable when its commit returns, and leaves the file so that it opens
//! at once after a crash. redb trusts a file that was closed well and may panic over one that was
//! damaged since; here that is an error like any other.

use std::fmt;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use redb::{Durability, ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::limits::LOCK_PATIENCE;
use crate::persistence::StorageError;

/// How often a file that another process has open is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Whether a missing file is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is made, and its folder.
    Create,
    /// It is an error.
    Refuse,
}

/// An open redb file.
pub struct Database {
    redb: redb::Database,
    path: PathBuf,
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
    pub fn open(path: &Path, missing: Missing) -> Result<Self, StorageError> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match Self::try_open(path, missing) {
                Err(StorageError::Locked { .. }) if Instant::now() < deadline => sleep(LOCK_RETRY),
                outcome => return outcome,
            }
        }
    }

    /// Does one durable write transaction.
    ///
    /// # Errors
    /// What `work` fails with, or the commit; then nothing has changed.
    pub fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, StorageError> {
        self.run(|redb| {
            let mut transaction = redb.begin_write()?;
            transaction.set_durability(Durability::Immediate).map_err(redb::Error::from)?;
            transaction.set_quick_repair(true);
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
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

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn try_open(path: &Path, missing: Missing) -> Result<Self, StorageError> {
        let builder = redb::Database::builder();
        let is_new = missing == Missing::Create && !path.exists();
        if is_new && let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| StorageError::from_io(folder, error))?;
        }
        let redb = guarded(path, || {
            Ok(match missing {
                Missing::Create => builder.create(path),
                Missing::Refuse => builder.open(path),
            }?)
        })?;
        if is_new {
            sync_folder(path)?;
        }
        Ok(Self { redb, path: path.to_owned() })
    }

    fn run<T>(
        &self,
        work: impl FnOnce(&redb::Database) -> Result<T, Failure>,
    ) -> Result<T, StorageError> {
        guarded(&self.path, || work(&self.redb))
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.path).finish()
    }
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

/// Makes the name of a new file durable, not only its content.
fn sync_folder(path: &Path) -> Result<(), StorageError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    if cfg!(unix) {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| StorageError::from_io(folder, error))?;
    }
    Ok(())
}
