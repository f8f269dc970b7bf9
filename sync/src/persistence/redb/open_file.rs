//! A store's file as one process has it open, and whether another one had it meanwhile.
//!
//! After a failure of the disk the file is closed, and opened again when it is next used; in between anybody
//! may have had it. What is in it then need not tell: somebody may have put a snapshot in the place of all,
//! removed a blob, or only taken the place at the socket. So whoever opens it to write leaves a stamp.
//!
//! Invariant F1: nothing is written unless the stamp in the file is the one that was left here.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::META;
use crate::database::{Database, Failure};
use crate::persistence::StorageError;
use crate::place::Place;
use crate::random;

/// The name of the stamp in the table `meta`.
const STAMP: &str = "opening";

/// What no other opening of any file has left.
type Stamp = [u8; 16];

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    database: Database,
    /// What was left in it; nothing by whoever only reads.
    stamp: Mutex<Option<Stamp>>,
}

impl OpenFile {
    /// A file in which no stamp was left yet.
    pub(super) const fn new(database: Database) -> Self {
        Self { database, stamp: Mutex::new(None) }
    }

    /// Leaves a new stamp, in one transaction with `work`: from then on what others have done to the file
    /// before is not noticed any more.
    pub(super) fn claim(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<(), Failure>,
    ) -> Result<(), StorageError> {
        let mut fresh = Stamp::default();
        let (first, second) = fresh.split_at_mut(size_of::<u64>());
        first.copy_from_slice(&random::number().to_le_bytes());
        second.copy_from_slice(&random::number().to_le_bytes());
        self.database.write(|write| {
            write.open_table(META)?.insert(STAMP, fresh.as_slice())?;
            work(write)
        })?;
        *self.stamp() = Some(fresh);
        Ok(())
    }

    /// Does one durable write transaction.
    ///
    /// # Errors
    /// [`StorageError::SeatLost`] if another process had the file meanwhile (F1), what `work` fails with, or
    /// the commit; then nothing has changed.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, StorageError> {
        let left = *self.stamp();
        self.database.write(|write| {
            if let Some(left) = left {
                let meta = write.open_table(META)?;
                if meta.get(STAMP)?.is_none_or(|there| there.value() != left) {
                    return Err(Failure::Changed);
                }
            }
            work(write)
        })
    }

    /// Reads a consistent state, whoever has written it.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, Failure>,
    ) -> Result<T, StorageError> {
        self.database.read(work)
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        self.database.path()
    }

    /// Where it is, to notice copies.
    pub(super) fn place(&self) -> Result<Place, StorageError> {
        self.database.place()
    }

    /// See [`Database::compact_if_worth_it`].
    pub(super) fn compact_if_worth_it(&self) -> Result<bool, StorageError> {
        self.database.compact_if_worth_it()
    }

    fn stamp(&self) -> MutexGuard<'_, Option<Stamp>> {
        // No code under this lock can leave the stamp half changed.
        self.stamp.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
