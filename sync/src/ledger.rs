//! What a store's file has of the store, or will have once everything handed on is written.
//!
//! Invariant L1: snapshot and log are exactly the changes of `version`, and the store has them all.

use std::path::PathBuf;
use std::sync::Arc;

use sds_engine::{BlobRef, Change, Version};
use sds_store::DataStore;

use crate::blob_storage::BlobStorage;
use crate::limits::CHECKPOINT_BYTES_MIN;
use crate::persistence::{Batch, StorageError};
use crate::seat::Seats;
use crate::store_id::StoreId;

/// What was handed on of a store, to be written to its file.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    pub(crate) version: Version,
    pub(crate) seats: Seats,
    /// How many bytes the changes in the log have.
    pub(crate) log_bytes: usize,
    /// How many bytes the changes had that are in the snapshot, as far as that is known: at least as
    /// many as the snapshot.
    pub(crate) packed_bytes: usize,
    /// Whether there is a log that a snapshot may take the place of.
    pub(crate) takes_snapshots: bool,
}

/// What a store has gained.
#[derive(Debug, Default)]
pub(crate) struct Gained {
    /// What has to be written: changes or a snapshot, seats, and those blobs that the store holds.
    pub(crate) unsaved: Batch,
    /// The changes that are new, also if a snapshot is written in their place.
    pub(crate) changes: Vec<Arc<[u8]>>,
    /// Every blob that they refer to.
    pub(crate) blobs: Vec<BlobRef>,
    /// Whether anything has lost its last reference.
    pub(crate) has_dropped: bool,
    /// What the file has of their authors once they are written; with a snapshot, all that it has.
    pub(crate) upto: Version,
}

impl Ledger {
    /// What `store`, which has this id, has gained; it is to be written then, and what it no longer
    /// refers to is to be released from `kept`.
    pub(crate) fn gain(
        &mut self,
        store: &mut DataStore,
        kept: &dyn BlobStorage,
        id: &StoreId,
    ) -> Result<Gained, StorageError> {
        let next = store.next_counter();
        if *store.version() == self.version && next == self.seats.current().next {
            return Ok(Gained::default());
        }
        let mut gained = Gained::default();
        let mut has_gone = false;
        match store.decoded_changes_since(&self.version) {
            Some(changes) => {
                let read = changes.iter().map(|change| (change.header(), change.bytes()));
                self.seats.note(read, next);
                for change in &changes {
                    let header = change.header();
                    gained.upto.advance(header.replica, header.end());
                    gained.blobs.extend(change.blobs());
                }
                self.version.merge(&gained.upto);
                gained.changes = changes.iter().map(|change| Arc::clone(change.bytes())).collect();
                if self.takes_snapshots {
                    self.log_bytes += gained.changes.iter().map(|it| it.len()).sum::<usize>();
                }
                gained.unsaved.changes.clone_from(&gained.changes);
            }
            // It took in a state in place of changes that are gone.
            None if !self.takes_snapshots => return Err(history_missing(id)),
            None => {
                self.seats.note_all(store).ok_or_else(|| history_missing(id))?;
                has_gone = true;
                gained.blobs = store.referenced_blobs();
                self.version = store.version().clone();
            }
        }
        gained.blobs.iter().for_each(|blob| kept.unpin(&blob.hash));
        let dropped = store.take_dropped_blobs();
        gained.has_dropped = !dropped.free.is_empty() || !dropped.undoable.is_empty();
        gained.unsaved.released = kept.let_go_late();
        let released =
            dropped.free.into_iter().filter_map(|hash| Some((hash, kept.let_go(&hash)?)));
        gained.unsaved.released.extend(released);
        gained.unsaved.held = dropped.undoable;
        let held = |blob: &BlobRef| Some((blob.hash, store.blob_in_memory(&blob.hash)?));
        gained.unsaved.blobs = gained.blobs.iter().filter_map(held).collect();
        gained.unsaved.seats = self.seats.take_changed();
        if has_gone || self.log_bytes >= CHECKPOINT_BYTES_MIN.max(self.packed_bytes) {
            gained.upto.clone_from(&self.version);
            gained.unsaved.add(self.checkpoint(store));
        }
        Ok(gained)
    }

    /// A snapshot in place of the log, of a store that has gained nothing.
    pub(crate) fn checkpoint(&mut self, store: &DataStore) -> Batch {
        let snapshot = store.as_binary();
        self.packed_bytes = (self.packed_bytes + self.log_bytes).max(snapshot.len());
        self.log_bytes = 0;
        let seats = self.seats.take_changed();
        Batch { snapshot: Some(snapshot.into()), seats, ..Batch::default() }
    }
}

/// The blobs that a change refers to.
pub(crate) fn blobs_of(change: &[u8]) -> Vec<BlobRef> {
    // The store only holds changes that it could read.
    let change = Change::decode(change);
    change.iter().flat_map(Change::blobs).collect()
}

pub(crate) fn history_missing(id: &StoreId) -> StorageError {
    StorageError::HistoryMissing { path: PathBuf::from(id.file_name()) }
}
