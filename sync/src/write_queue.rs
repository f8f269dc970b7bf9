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
        self.batch.add(handover.batch);
        self.upto.merge(&handover.upto);
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
        let Self { upto, bytes, .. } = std::mem::take(self);
        Ok(Some(Committed { upto, bytes }))
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }
}
