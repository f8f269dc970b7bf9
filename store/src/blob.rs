//! Contents too large to stay inline, kept apart under their SHA-256.

use std::collections::HashMap;
use std::sync::Arc;

use sds_engine::BlobHash;
use sha2::{Digest, Sha256};

/// The SHA-256 of a content: its name everywhere.
#[must_use]
pub fn blob_hash(bytes: &[u8]) -> BlobHash {
    BlobHash(Sha256::digest(bytes).into())
}

/// The blobs at hand, in memory. Each content is kept once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blobs(HashMap<BlobHash, Arc<[u8]>>);

impl Blobs {
    pub(crate) fn insert(&mut self, bytes: Arc<[u8]>) -> BlobHash {
        let hash = blob_hash(&bytes);
        self.0.entry(hash).or_insert(bytes);
        hash
    }

    pub(crate) fn find(&self, hash: &BlobHash) -> Option<&Arc<[u8]>> {
        self.0.get(hash)
    }
}
