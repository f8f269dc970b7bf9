//! What waits to be written to a store's file. One commit takes whatever has queued up meanwhile.
//!
//! What could not be written stays here and is tried again with whatever comes next, so the log
//! never has a gap.

use sds_engine::Version;

use crate::persistence::{Batch, Persistence, StorageError};
use crate::synced_store::Handover;

/// A queue that is written as a whole.
#[derive(Debug, Default)]
pub struct WriteQueue {
    batch: Batch,
    /// How many bytes came with what is in `batch`.
    bytes: usize,
    upto: Version,
}

/// What a commit has written.
#[derive(Debug)]
pub struct Committed {
    /// The file has all of this now.
    pub upto: Version,
    /// Whether that is all that the file has: whether there was a snapshot.
    pub is_all: bool,
    /// How many bytes were handed over for it.
    pub bytes: usize,
}

impl WriteQueue {
    /// Nothing waits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what is to be written after all before.
    pub fn add(&mut self, handover: Handover) {
        self.bytes += handover.batch.size();
        if handover.batch.snapshot.is_some() {
            // It is all there is: what was made again is no longer there by its former name.
            self.upto = handover.upto;
        } else {
            self.upto.merge(&handover.upto);
        }
        self.batch.add(handover.batch);
    }

    /// Gives up everything that waits; returns how many bytes were handed over for it.
    pub fn clear(&mut self) -> usize {
        std::mem::take(self).bytes
    }

    /// Writes everything, durably; nothing comes back if there was nothing.
    ///
    /// # Errors
    /// If it cannot be written; it waits on.
    pub fn commit(
        &mut self,
        persistence: &mut dyn Persistence,
    ) -> Result<Option<Committed>, StorageError> {
        if self.is_empty() {
            return Ok(None);
        }
        persistence.append(&self.batch)?;
        let Self { upto, bytes, batch } = std::mem::take(self);
        Ok(Some(Committed { upto, is_all: batch.snapshot.is_some(), bytes }))
    }

    /// What has been said to be on disk after the next commit, with which there was nothing to write.
    pub(crate) fn take_upto(&mut self) -> Version {
        std::mem::take(&mut self.upto)
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sds_engine::ReplicaId;

    use super::*;
    use crate::persistence::MemoryPersistence;
    use crate::store_id::StoreId;

    fn version(pairs: &[(u64, u64)]) -> Version {
        let mut version = Version::new();
        for (replica, next) in pairs {
            version.advance(ReplicaId::new(*replica).unwrap(), *next);
        }
        version
    }

    #[test]
    fn a_snapshot_says_itself_what_is_on_disk() {
        let changes = |upto| {
            let batch = Batch { changes: vec![Arc::from(*b"change")], ..Batch::default() };
            Handover { batch, upto }
        };
        let snapshot = |upto| {
            let batch = Batch { snapshot: Some(Arc::from(*b"all")), ..Batch::default() };
            Handover { batch, upto }
        };
        let id = StoreId::new("s").unwrap();
        let mut disk = MemoryPersistence::new(id, ReplicaId::new(1).unwrap());
        let mut queue = WriteQueue::new();
        assert!(queue.commit(&mut disk).unwrap().is_none());
        queue.add(changes(version(&[(1, 9)])));
        // What was made under the id 1 from 5 on was made again under the id 2.
        queue.add(snapshot(version(&[(1, 5), (2, 4)])));
        queue.add(changes(version(&[(2, 6)])));
        let committed = queue.commit(&mut disk).unwrap().unwrap();
        assert_eq!(committed.upto, version(&[(1, 5), (2, 6)]));
        assert!(committed.is_all);
        assert!(queue.is_empty());
    }
}
