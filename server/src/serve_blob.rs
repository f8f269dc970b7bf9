//! The way of a client to the blobs of a store that it has open.

use std::sync::Arc;

use sds_sync::{BlobDoor, BlobPassed, BlobStorage, Refusal, RefusalCode, StoreId};

use crate::connection::Peer;
use crate::store_blobs::StoreBlobs;

const NOT_OPEN: Refusal =
    Refusal::new(RefusalCode::Unauthorized, "the store is not open on this connection");

/// The blobs of a store, as a client asks for them.
pub(crate) struct ClientBlobs<'a> {
    pub(crate) peer: &'a Peer,
    /// The store's id, as the client names it.
    pub(crate) store: String,
}

impl ClientBlobs<'_> {
    fn store(&self) -> Result<StoreId, Refusal> {
        let malformed = |_| Refusal::new(RefusalCode::Malformed, "no valid store id");
        StoreId::new(&self.store).map_err(malformed)
    }
}

impl BlobDoor for ClientBlobs<'_> {
    fn check(&self, writing: bool) -> Result<(), Refusal> {
        match self.peer.may_write(&self.store()?) {
            None => Err(NOT_OPEN),
            Some(false) if writing => {
                Err(Refusal::new(RefusalCode::ReadOnly, "the token is read-only"))
            }
            Some(_) => Ok(()),
        }
    }

    async fn open(&self) -> Option<Arc<dyn BlobStorage>> {
        let (log, store) = (Arc::clone(&self.peer.node.log), self.store().ok()?);
        let blobs = tokio::task::spawn_blocking(move || StoreBlobs::of(log, &store)).await;
        Some(Arc::new(blobs.ok()?.ok()??))
    }

    fn note(&self, passed: BlobPassed) {
        let metrics = &self.peer.node.metrics;
        match passed {
            BlobPassed::Received(bytes) => {
                metrics.blob_received_bytes.inc_by(bytes);
            }
            BlobPassed::Sent(bytes) => {
                metrics.blob_sent_bytes.inc_by(bytes);
            }
            BlobPassed::Refused(code) => metrics.refused(code),
        }
    }
}
