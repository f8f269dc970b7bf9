//! The way of a client to the blobs of a store that it has open.

use std::sync::Arc;

use sds_sync::transport::{FrameRoom, StreamError};
use sds_sync::{
    BlobDoor, BlobPassed, BlobStorage, BlobWork, Offer, Refusal, RefusalCode, StorageError, StoreId,
};
use tokio::task::spawn_blocking;

use crate::blob_totals::BlobTotal;
use crate::connection::Peer;
use crate::fair_turns::{FairTurn, FairTurns};
use crate::limits::{BLOB_GATHERING_MAX, BLOB_GATHERING_PER_SUBJECT_MAX, BLOB_WRITERS_MAX, Limit};
use crate::node::DELETED;
use crate::store_blobs::{NoRoom, Reservation, StoreBlobs};
use crate::store_log::NoStore;

const NOT_OPEN: Refusal =
    Refusal::new(RefusalCode::Unauthorized, "the store is not open on this connection");

const TOO_MANY_STORES: Refusal =
    Refusal::new(RefusalCode::Busy, "there are too many stores to begin one more");
const TOO_LARGE: Refusal =
    Refusal::new(RefusalCode::TooLarge, "the blob is larger than this relay takes");
const NO_ROOM: Refusal =
    Refusal::new(RefusalCode::TooLarge, "the store has no room for another blob of this size");

const TOO_MANY_BLOBS: Refusal =
    Refusal::new(RefusalCode::TooLarge, "the store has as many blobs as it may have");

const TOO_MANY_UPLOADS: Refusal = Refusal::new(
    RefusalCode::Busy,
    "too many blobs of the store are on their way; try again later",
);

/// How many uploads of all stores do what waits for the disk at a time. The others wait without a
/// thread, so that the log, and whoever reads, never waits for many of them; and subjects take
/// turns.
#[derive(Debug)]
pub(crate) struct BlobTurns {
    admits: FairTurns,
    writes: FairTurns,
    resumes: FairTurns,
    gathering: FairTurns,
}

impl Default for BlobTurns {
    fn default() -> Self {
        let places = || FairTurns::new(BLOB_WRITERS_MAX);
        let gathering = FairTurns::new(BLOB_GATHERING_MAX);
        Self { admits: places(), writes: places(), resumes: places(), gathering }
    }
}

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

    /// Whose turns these are; nobody's if the store is not open any more.
    fn name(&self) -> String {
        let store = self.store().ok();
        store.and_then(|store| self.peer.writer_of(&store)).unwrap_or_default()
    }
}

impl BlobDoor for ClientBlobs<'_> {
    type Room = Reservation;
    type Leave = FairTurn;

    fn check(&self, writing: bool) -> Result<(), Refusal> {
        match self.peer.may_write(&self.store()?) {
            None => Err(NOT_OPEN),
            Some(false) if writing => {
                Err(Refusal::new(RefusalCode::ReadOnly, "the token is read-only"))
            }
            Some(_) => Ok(()),
        }
    }

    fn check_offer(&self, offer: &Offer) -> Result<(), Refusal> {
        let node = &self.peer.node;
        if offer.size > node.limits.blob_bytes {
            node.metrics.limit_hit(Limit::BlobBytes);
            return Err(TOO_LARGE);
        }
        Ok(())
    }

    async fn open(&self, writing: bool) -> Result<Option<Arc<dyn BlobStorage>>, Refusal> {
        let node = &self.peer.node;
        let (log, store) = (Arc::clone(&node.log), self.store()?);
        let founder = self.peer.writer_of(&store).filter(|_| writing);
        let quota = node.limits.store_quota();
        let found = spawn_blocking(move || match founder {
            Some(subject) => StoreBlobs::begin_for(log, &store, &subject, quota),
            None => StoreBlobs::of(log, &store).map(|blobs| blobs.ok_or(NoStore::Deleted)),
        });
        match found.await {
            Ok(Ok(Ok(blobs))) => Ok(Some(Arc::new(blobs))),
            Ok(Ok(Err(NoStore::Deleted))) => Ok(None),
            Ok(Ok(Err(NoStore::Full(limit)))) => {
                node.metrics.limit_hit(limit);
                Err(TOO_MANY_STORES)
            }
            Ok(Err(_)) | Err(_) => Err(Refusal::STORAGE_FAILED),
        }
    }

    async fn admit(&self, offer: Offer) -> Result<Reservation, Refusal> {
        let node = &self.peer.node;
        let (log, store) = (Arc::clone(&node.log), self.store()?);
        let (count, bytes) = (node.limits.blobs_per_store, node.limits.blob_bytes_per_store);
        let max = BlobTotal { count, bytes };
        let turn = node.blob_turns.admits.take(&self.name()).await;
        let reserved = spawn_blocking(move || {
            let _turn = turn;
            let Some(blobs) = StoreBlobs::of(log, &store)? else { return Ok(Err(DELETED)) };
            Ok::<_, StorageError>(Ok(blobs.reserve(offer, max)?))
        });
        let Ok(Ok(reserved)) = reserved.await else { return Err(Refusal::STORAGE_FAILED) };
        reserved?.map_err(|none| {
            let (limit, refusal) = match none {
                NoRoom::Bytes => (Limit::BlobBytesPerStore, NO_ROOM),
                NoRoom::Blobs => (Limit::BlobsPerStore, TOO_MANY_BLOBS),
                NoRoom::Uploads => (Limit::BlobUploads, TOO_MANY_UPLOADS),
            };
            node.metrics.limit_hit(limit);
            refusal
        })
    }

    async fn turn(&self, work: BlobWork) -> Option<FairTurn> {
        let turns = &self.peer.node.blob_turns;
        let turns = match work {
            BlobWork::Write => &turns.writes,
            BlobWork::Resume => &turns.resumes,
        };
        turns.take(&self.name()).await
    }

    fn gather(&self) -> Option<FairTurn> {
        let gathering = &self.peer.node.blob_turns.gathering;
        gathering.try_take(&self.name(), BLOB_GATHERING_PER_SUBJECT_MAX)
    }

    fn note_failed(&self, error: &StreamError) {
        self.peer.node.note_failed(error);
    }

    async fn output_room(&self, bytes: usize) -> FrameRoom {
        let room = self.store().ok().and_then(|store| self.peer.output_room(&store));
        match room {
            Some(room) => room.hold(bytes).await,
            // The store is not open any more, as will be found next.
            None => FrameRoom::default(),
        }
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
            BlobPassed::NotTaken => metrics.limit_hit(Limit::TakeTime),
            BlobPassed::Refused(code) => {
                if code == RefusalCode::StorageFailed {
                    metrics.storage_failures.inc();
                }
                metrics.refused(code);
            }
        }
    }
}
