//! Which blobs are to be sent, fetched and looked for (E2).

use std::collections::BTreeSet;

use sds_engine::{BlobHash, BlobRef};

use super::SyncedStore;
use crate::sync_engine::BlobFetch;

impl SyncedStore {
    /// Forgets what the last relay had of the blobs: each is offered, or asked for, again.
    pub(crate) fn list_blobs(&mut self) {
        self.blobs_to_send.clear();
        self.blobs_absent.clear();
        let referenced = self.store.referenced_blobs();
        self.note_blobs_to_send(referenced);
        self.list_blobs_to_fetch();
    }

    /// Lists what the state refers to now, so that nobody fetches what was overwritten (E2).
    pub(crate) fn list_blobs_to_fetch(&mut self) {
        let referenced = self.store.referenced_blobs().into_iter();
        let missing = referenced.filter(|blob| self.lacks(blob));
        self.blobs_to_fetch = missing.map(|blob| (blob.hash, blob.size)).collect();
    }

    /// Whether a blob is wanted, and not known to be here. Who would have to ask another process finds
    /// out later, beside the store.
    pub(super) fn lacks(&self, blob: &BlobRef) -> bool {
        let is_wanted = self.blob_fetch.wants(blob.size) || self.asked.contains(&blob.hash);
        is_wanted && self.store.knows_blob(&blob.hash) != Some(true)
    }

    pub(crate) fn set_blob_fetch(&mut self, blob_fetch: BlobFetch) {
        self.blob_fetch = blob_fetch;
        self.list_blobs_to_fetch();
    }

    /// Wants a blob whatever its size; whether that is new.
    pub(crate) fn ask_for_blob(&mut self, hash: BlobHash) -> bool {
        let is_new = self.asked.insert(hash);
        if is_new {
            self.list_blobs_to_fetch();
        }
        is_new
    }

    /// Notes that a blob is here, which the relay had.
    pub(crate) fn note_blob_fetched(&mut self, hash: &BlobHash) {
        self.blobs_to_fetch.remove(hash);
        self.blobs_absent.remove(hash);
        self.asked.remove(hash);
    }

    /// Notes that a blob is here; if it was to be sent, it is again.
    pub(crate) fn note_blob_found(&mut self, hash: &BlobHash) {
        if let Some(size) = self.blobs_absent.remove(hash) {
            self.blobs_to_send.insert(*hash, size);
        }
        self.note_blob_fetched(hash);
    }

    /// Notes that a blob is not here that was to be sent. Where another process would have to know that,
    /// it may have it later.
    pub(crate) fn note_blob_absent(&mut self, hash: &BlobHash) {
        let Some(size) = self.blobs_to_send.remove(hash) else { return };
        let may_come = self.store.knows_blob(hash).is_none();
        if may_come && self.store.blob_reference_count(hash) > 0 {
            self.blobs_absent.insert(*hash, size);
        }
    }

    /// The blobs to look for: to fetch, or to send.
    pub(crate) fn blobs_to_look_for(&self) -> BTreeSet<BlobHash> {
        self.blobs_to_fetch.keys().chain(self.blobs_absent.keys()).copied().collect()
    }

    pub(super) fn note_blobs_to_send(&mut self, blobs: impl IntoIterator<Item = BlobRef>) {
        let held =
            blobs.into_iter().filter(|blob| self.store.knows_blob(&blob.hash) != Some(false));
        self.blobs_to_send.extend(held.map(|blob| (blob.hash, blob.size)));
    }
}
