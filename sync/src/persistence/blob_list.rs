//! Which blobs a store has whole, in memory: known without a look at where their bytes are.
//!
//! A blob that is let go of leaves the list at once, unless somebody holds it; one that is let go of
//! before it is here leaves it when it has come.

use std::collections::{BTreeMap, BTreeSet};

use sds_engine::BlobHash;

use crate::blob_rows::Content;

#[derive(Clone, Debug, Default)]
pub(super) struct BlobList {
    pub(super) whole: BTreeMap<BlobHash, Content>,
    /// Those of them whose transaction has not ended: to everybody outside of it they are not here yet.
    coming: BTreeSet<BlobHash>,
    pinned: BTreeSet<BlobHash>,
    /// Let go of before they were here: on their way, as a rule.
    unwanted: BTreeSet<BlobHash>,
}

impl BlobList {
    pub(super) fn of(blobs: Vec<(BlobHash, Content)>) -> Self {
        Self { whole: blobs.into_iter().collect(), ..Self::default() }
    }

    /// Notes what a transaction writes, until it is [settled](Self::settle) or taken out again.
    pub(super) fn enter(&mut self, hash: BlobHash, content: Content) {
        if self.whole.insert(hash, content).is_none() {
            self.coming.insert(hash);
        }
    }

    /// Notes that the transaction has reached the disk.
    pub(super) fn settle(&mut self, hash: &BlobHash) {
        self.coming.remove(hash);
    }

    /// Notes that the transaction has failed.
    pub(super) fn take_back(&mut self, hash: &BlobHash) {
        if self.coming.remove(hash) {
            self.whole.remove(hash);
        }
    }

    /// The blob, if it is here.
    pub(super) fn find(&self, hash: &BlobHash) -> Option<Content> {
        self.whole.get(hash).filter(|_| !self.coming.contains(hash)).copied()
    }

    /// See [`BlobStorage::pin`](crate::blob_storage::BlobStorage::pin).
    pub(super) fn pin(&mut self, hash: &BlobHash) {
        self.pinned.insert(*hash);
    }

    /// See [`BlobStorage::unpin`](crate::blob_storage::BlobStorage::unpin).
    pub(super) fn unpin(&mut self, hash: &BlobHash) {
        self.pinned.remove(hash);
        self.unwanted.remove(hash);
    }

    /// See [`BlobStorage::let_go`](crate::blob_storage::BlobStorage::let_go).
    pub(super) fn let_go(&mut self, hash: &BlobHash) -> Option<u64> {
        if self.pinned.contains(hash) {
            return None;
        }
        let content = self.find(hash);
        if content.is_none() {
            self.unwanted.insert(*hash);
        } else {
            self.whole.remove(hash);
        }
        content.map(|content| content.number)
    }

    /// See [`BlobStorage::let_go_late`](crate::blob_storage::BlobStorage::let_go_late).
    pub(super) fn let_go_late(&mut self) -> Vec<(BlobHash, u64)> {
        let Self { whole, coming, pinned, unwanted } = self;
        let mut late = Vec::new();
        unwanted.retain(|hash| {
            let is_here = whole.contains_key(hash) && !coming.contains(hash);
            if is_here && !pinned.contains(hash) {
                late.extend(whole.remove(hash).map(|content| (*hash, content.number)));
            }
            !is_here
        });
        late
    }
}
