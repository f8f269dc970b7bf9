//! Which blobs are still to be sent and fetched, as the connection and the callers ask and tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sds_engine::BlobHash;

use super::super::SyncError;
use super::super::status::BlobFetch;
use super::Shared;
use crate::persistence::StorageError;
use crate::synced_store::SyncedStore;

impl Shared {
    /// Forgets what the last relay had of the blobs: each is offered, or asked for, again.
    pub(in crate::sync_engine) fn list_blobs(&self) -> Result<(), SyncError> {
        let mut core = self.core()?;
        core.list_blobs();
        self.publish_blobs(&core);
        Ok(())
    }

    /// Forgets blobs that nothing refers to any more.
    pub(in crate::sync_engine) fn forget_unreferenced_blobs(&self) -> Result<(), SyncError> {
        let mut core = self.core()?;
        core.list_blobs_to_fetch();
        self.publish_blobs(&core);
        Ok(())
    }

    /// Says which blobs are to be fetched without being asked for.
    pub(in crate::sync_engine) fn set_blob_fetch(
        &self,
        blob_fetch: BlobFetch,
    ) -> Result<(), SyncError> {
        let mut core = self.core()?;
        core.set_blob_fetch(blob_fetch);
        self.publish_blobs(&core);
        self.ring_blobs();
        Ok(())
    }

    /// Notes that a blob could not be written since another process had the file meanwhile: then the engine
    /// goes on from what is in it, as if the writer had found that out.
    pub(in crate::sync_engine) fn note_lost(&self, error: &StorageError) {
        if error.is_seat_lost() {
            self.status.send_modify(|status| {
                status.storage_error = Some(error.clone());
                self.writer.note_outcome(Err(error));
            });
        }
    }

    /// Asks for a blob; whether it is here, or nothing refers to it. Another process may have to be asked,
    /// which waits elsewhere.
    pub(in crate::sync_engine) async fn ask_for_blob(
        &self,
        hash: &BlobHash,
    ) -> Result<Option<bool>, SyncError> {
        let (blobs, looked_for) = (Arc::clone(&self.blobs), *hash);
        let found = tokio::task::spawn_blocking(move || blobs.find(&looked_for)).await;
        if found.map_err(|_| SyncError::Stopped)??.is_some() {
            return Ok(Some(true));
        }
        let mut core = self.core()?;
        if core.store.blob_reference_count(hash) == 0 {
            return Ok(Some(false));
        }
        if core.ask_for_blob(*hash) {
            self.publish_blobs(&core);
            self.ring_blobs();
        }
        Ok(None)
    }

    /// The blobs to send, the small ones first.
    pub(in crate::sync_engine) fn blobs_to_send(&self) -> Result<Vec<(BlobHash, u64)>, SyncError> {
        Ok(by_size(&self.core()?.blobs_to_send))
    }

    /// The blobs to fetch, the small ones first.
    pub(in crate::sync_engine) fn blobs_to_fetch(&self) -> Result<Vec<(BlobHash, u64)>, SyncError> {
        Ok(by_size(&self.core()?.blobs_to_fetch))
    }

    /// Notes that the relay has a blob, or that there is no use in offering it.
    pub(in crate::sync_engine) fn blob_sent(&self, hash: &BlobHash) -> Result<(), SyncError> {
        self.note_blob(|core| {
            core.blobs_to_send.remove(hash);
        })
    }

    /// Notes that a blob is not here that was to be sent.
    pub(in crate::sync_engine) fn blob_absent(&self, hash: &BlobHash) -> Result<(), SyncError> {
        self.note_blob(|core| core.note_blob_absent(hash))
    }

    /// Notes that a blob is in the file, wherever it came from.
    pub(in crate::sync_engine) fn blob_found(&self, hash: &BlobHash) -> Result<(), SyncError> {
        self.note_blob(|core| core.note_blob_found(hash))?;
        self.ring_blobs();
        Ok(())
    }

    /// The blobs that the process which owns the file may have meanwhile.
    pub(in crate::sync_engine) fn blobs_to_look_for(
        &self,
    ) -> Result<BTreeSet<BlobHash>, SyncError> {
        Ok(self.core()?.blobs_to_look_for())
    }

    /// Notes that a blob is in the file, and at the relay.
    pub(in crate::sync_engine) fn blob_fetched(&self, hash: &BlobHash) -> Result<(), SyncError> {
        self.note_blob(|core| core.note_blob_fetched(hash))?;
        self.ring_blobs();
        Ok(())
    }

    /// Notes that a blob which somebody brought is in the file.
    pub(in crate::sync_engine) fn blob_brought(
        &self,
        hash: &BlobHash,
        size: u64,
    ) -> Result<(), SyncError> {
        self.note_blob(|core| core.note_blob_brought(*hash, size))?;
        self.ring_blobs();
        Ok(())
    }

    fn note_blob(&self, note: impl FnOnce(&mut SyncedStore)) -> Result<(), SyncError> {
        let mut core = self.core()?;
        note(&mut core);
        self.publish_blobs(&core);
        Ok(())
    }

    pub(super) fn ring_blobs(&self) {
        self.blobs_changed.send_modify(|count| *count += 1);
    }

    pub(super) fn publish_blobs(&self, core: &SyncedStore) {
        let counts = (core.blobs_to_send.len(), core.blobs_to_fetch.len());
        self.status.send_if_modified(|status| {
            let is_new = (status.blobs_to_send, status.blobs_to_fetch) != counts;
            (status.blobs_to_send, status.blobs_to_fetch) = counts;
            is_new
        });
    }
}

/// Blobs with the small ones first: a large one keeps the others waiting long.
fn by_size(blobs: &BTreeMap<BlobHash, u64>) -> Vec<(BlobHash, u64)> {
    let mut blobs: Vec<(BlobHash, u64)> = blobs.iter().map(|(hash, size)| (*hash, *size)).collect();
    blobs.sort_by_key(|(_, size)| *size);
    blobs
}
