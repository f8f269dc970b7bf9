//! A store that is kept in memory: for tests, and for stores that need no disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sds_engine::{BlobHash, ReplicaId};

use super::{Batch, LogPage, Persistence, StorageError};
use crate::store_id::StoreId;

/// Clones share what is kept, as two openings of one file would.
#[derive(Clone, Debug)]
pub struct MemoryPersistence {
    store: StoreId,
    replica: ReplicaId,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    log: Vec<Arc<[u8]>>,
    blobs: BTreeMap<BlobHash, Arc<[u8]>>,
}

impl MemoryPersistence {
    /// An empty store that `replica` writes to.
    #[must_use]
    pub fn new(store: StoreId, replica: ReplicaId) -> Self {
        Self { store, replica, kept: Arc::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // No code under this lock can leave the data half changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Persistence for MemoryPersistence {
    fn store(&self) -> &StoreId {
        &self.store
    }

    fn replica(&self) -> ReplicaId {
        self.replica
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
        let mut kept = self.kept();
        kept.log.extend(batch.changes.iter().cloned());
        kept.blobs.extend(batch.blobs.iter().cloned());
        Ok(())
    }
}
