//! A store's file as one process has it open, and whether another one had it meanwhile.
//!
//! After a failure of the disk the file is closed, and opened again when it is next used; in between anybody
//! may have had it. What is in it then need not tell: somebody may have put a snapshot in the place of all,
//! removed a blob, or only taken the place at the socket. So whoever opens it to write leaves a stamp, with the first
//! thing that it writes: a file that turns out to be damaged when it is read has not been written to.
//!
//! Invariant F1: nothing is written unless the stamp in the file is the one that was left here, or, before that,
//! the one that was found.

use std::fmt;
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

/// What is written before anything else.
type FirstWork = dyn Fn(&WriteTransaction) -> Result<(), Failure> + Send;

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    database: Database,
    claim: Mutex<Claim>,
}

/// By what it is told that nobody else has written meanwhile.
enum Claim {
    /// It is not: who only looks writes nothing that stays.
    None,
    /// The stamp that was found, and what is left with the first write.
    Pending { found: Vec<u8>, fresh: Stamp, first: Box<FirstWork> },
    /// The stamp that was left.
    Left(Stamp),
}

impl OpenFile {
    /// A file that nobody means to write to yet.
    pub(super) const fn new(database: Database) -> Self {
        Self { database, claim: Mutex::new(Claim::None) }
    }

    /// Takes the file as it is by [`stamp_in`](Self::stamp_in): what others did to it before is not noticed any
    /// more. `first` is done with the first write, and again if it is not known whether that came about.
    pub(super) fn claim(
        &self,
        found: Vec<u8>,
        first: impl Fn(&WriteTransaction) -> Result<(), Failure> + Send + 'static,
    ) {
        let mut fresh = Stamp::default();
        let (low, high) = fresh.split_at_mut(size_of::<u64>());
        low.copy_from_slice(&random::number().to_le_bytes());
        high.copy_from_slice(&random::number().to_le_bytes());
        *self.lock() = Claim::Pending { found, fresh, first: Box::new(first) };
    }

    /// The stamp in a file; empty if nobody has left any.
    pub(super) fn stamp_in(
        meta: &impl ReadableTable<&'static str, &'static [u8]>,
    ) -> Result<Vec<u8>, Failure> {
        Ok(meta.get(STAMP)?.map_or_else(Vec::new, |stamp| stamp.value().to_vec()))
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
        let mut claim = self.lock();
        let value = match &*claim {
            Claim::None => return self.database.write(work),
            Claim::Left(stamp) => {
                let stamp = *stamp;
                drop(claim);
                return self.database.write(|write| {
                    if Self::stamp_in(&write.open_table(META)?)? != stamp {
                        return Err(Failure::Changed);
                    }
                    work(write)
                });
            }
            Claim::Pending { found, fresh, first } => self.database.write(|write| {
                {
                    let mut meta = write.open_table(META)?;
                    let there = Self::stamp_in(&meta)?;
                    // A commit that failed may be there all the same.
                    if there != *found && there != *fresh {
                        return Err(Failure::Changed);
                    }
                    meta.insert(STAMP, fresh.as_slice())?;
                }
                first(write)?;
                work(write)
            })?,
        };
        if let Claim::Pending { fresh, .. } = *claim {
            *claim = Claim::Left(fresh);
        }
        Ok(value)
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

    fn lock(&self) -> MutexGuard<'_, Claim> {
        // No code under this lock can leave the claim half changed.
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Pending { .. } => "Pending",
            Self::Left(_) => "Left",
        })
    }
}
