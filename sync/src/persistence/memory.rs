//! A store that is kept in memory: for tests, and for stores that need no disk.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sds_engine::{BlobHash, ReplicaId};

use super::{Batch, LogPage, Persistence, StorageError};
use crate::seat::Seat;
use crate::store_id::StoreId;

/// Clones share what is kept, as two openings of one file would.
#[derive(Clone)]
pub struct MemoryPersistence {
    store: StoreId,
    kept: Arc<Mutex<Kept>>,
    guard: Option<Arc<Guard>>,
}

/// Asked before each write whether it may go ahead, as a disk would be.
type Guard = dyn Fn() -> Result<(), StorageError> + Send + Sync;

#[derive(Clone, Debug, Default)]
struct Kept {
    snapshot: Option<Arc<[u8]>>,
    seats: BTreeMap<ReplicaId, Seat>,
    log: Vec<Arc<[u8]>>,
    blobs: BTreeMap<BlobHash, Arc<[u8]>>,
}

impl MemoryPersistence {
    /// An empty store that `replica` writes to.
    #[must_use]
    pub fn new(store: StoreId, replica: ReplicaId) -> Self {
        let seats = BTreeMap::from([(replica, Seat::new(replica))]);
        let kept = Kept { seats, ..Kept::default() };
        Self { store, kept: Arc::new(Mutex::new(kept)), guard: None }
    }

    /// A copy that goes its own way, as one of a disk would.
    #[must_use]
    pub fn copy(&self) -> Self {
        let kept = Arc::new(Mutex::new(self.kept().clone()));
        Self { store: self.store.clone(), kept, guard: None }
    }

    /// The same, where each write asks `guard` first: it may fail as a full disk does, or take its
    /// time as a slow one.
    #[must_use]
    pub fn guarded(
        mut self,
        guard: impl Fn() -> Result<(), StorageError> + Send + Sync + 'static,
    ) -> Self {
        self.guard = Some(Arc::new(guard));
        self
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // No code under this lock can leave the data half changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryPersistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryPersistence").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Persistence for MemoryPersistence {
    fn store(&self) -> &StoreId {
        &self.store
    }

    fn seats(&self) -> Vec<Seat> {
        self.kept().seats.values().cloned().collect()
    }

    fn read_snapshot(&self) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.kept().snapshot.as_ref().map(|snapshot| snapshot.to_vec()))
    }

    fn read_log(&self, from: u64) -> Result<LogPage, StorageError> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let changes = self.kept().log.iter().skip(from).cloned().collect();
        Ok(LogPage { changes, next: None })
    }

    fn read_blob(&self, hash: &BlobHash) -> Result<Option<Arc<[u8]>>, StorageError> {
        Ok(self.kept().blobs.get(hash).cloned())
    }

    fn append(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.guard.as_ref().map_or(Ok(()), |guard| guard())?;
        let mut kept = self.kept();
        if let Some(snapshot) = &batch.snapshot {
            kept.snapshot = Some(Arc::clone(snapshot));
            kept.log.clear();
        }
        kept.seats.extend(batch.seats.iter().map(|seat| (seat.replica, seat.clone())));
        kept.log.extend(batch.changes.iter().cloned());
        kept.blobs.extend(batch.blobs.iter().cloned());
        Ok(())
    }
}
