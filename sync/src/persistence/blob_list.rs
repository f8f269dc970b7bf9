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
    pinned: BTreeSet<BlobHash>,
    /// Let go of before they were here: on their way, as a rule.
    unwanted: BTreeSet<BlobHash>,
}

impl BlobList {
    pub(super) fn of(blobs: Vec<(BlobHash, Content)>) -> Self {
        Self { whole: blobs.into_iter().collect(), ..Self::default() }
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
        let content = self.whole.remove(hash);
        if content.is_none() {
            self.unwanted.insert(*hash);
        }
        content.map(|content| content.number)
    }

    /// See [`BlobStorage::let_go_late`](crate::blob_storage::BlobStorage::let_go_late).
    pub(super) fn let_go_late(&mut self) -> Vec<(BlobHash, u64)> {
        let Self { whole, pinned, unwanted } = self;
        let mut late = Vec::new();
        unwanted.retain(|hash| {
            let is_here = whole.contains_key(hash);
            if is_here && !pinned.contains(hash) {
                late.extend(whole.remove(hash).map(|content| (*hash, content.number)));
            }
            !is_here
        });
        late
    }
}
