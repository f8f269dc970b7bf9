//! Blobs in and out, one a stream, on the answering side. Nothing of a blob is visible before its hash
//! was checked; what has come of one stays, to go on with. Memory stays constant.

use std::sync::Arc;

use bytes::Bytes;
use sds_engine::BlobHash;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::blob_storage::{BlobError, BlobStorage, BlobWriter};
use crate::limits::{BLOB_BYTES_MAX, BLOB_CHUNK_BYTES_MAX, chunk_timeout};
use crate::message::{ClientFrame, RefusalCode, RelayFrame};
use crate::serving_session::Refusal;
use crate::transport::{FrameReceiver, FrameSender, StreamError};

/// The file of this side fails.
pub const STORAGE_FAILED: Refusal =
    Refusal::new(RefusalCode::StorageFailed, "this side cannot read or write its file");
const TOO_SLOW: Refusal =
    Refusal::new(RefusalCode::Busy, "the bytes of the blob came too slowly; try again later");
const NO_ROOM: Refusal =
    Refusal::new(RefusalCode::Busy, "too much is on its way at a time; try again later");
const BROKEN_OFF: Refusal =
    Refusal::new(RefusalCode::Unexpected, "the stream ended before the last byte of the blob");

/// The way of one client to the blobs of one store.
pub trait BlobDoor: Sync {
    /// Room for a blob that is not here yet, until it is dropped: when the blob is here, or is not
    /// coming.
    type Room: Send + 'static;

    /// Whether the client may still do this.
    ///
    /// # Errors
    /// Why it may not.
    fn check(&self, writing: bool) -> Result<(), Refusal>;

    /// The blobs; none if there can be none yet.
    ///
    /// # Errors
    /// Why there is no place for one, or that the disk fails.
    fn open(
        &self,
        writing: bool,
    ) -> impl Future<Output = Result<Option<Arc<dyn BlobStorage>>, Refusal>> + Send;

    /// Takes room for a blob.
    ///
    /// # Errors
    /// Why there is none.
    fn admit(&self, offer: Offer) -> impl Future<Output = Result<Self::Room, Refusal>> + Send;

    /// Waits for leave to do what waits for the disk, which is held until it is done. One who serves few
    /// needs none.
    fn turn(&self, _work: BlobWork) -> impl Future<Output = Option<OwnedSemaphorePermit>> + Send {
        async { None }
    }

    /// Room to gather some pieces of an upload and write them together. Without it each is written by itself.
    fn gather(&self) -> Option<GatherRoom> {
        Some(GatherRoom::default())
    }

    /// Hears of what has passed, for whoever counts it.
    fn note(&self, _passed: BlobPassed) {}
}

/// Room for pieces of an upload that wait to be written, until it is dropped.
#[derive(Debug, Default)]
pub struct GatherRoom {
    _of: Option<OwnedSemaphorePermit>,
}

impl From<OwnedSemaphorePermit> for GatherRoom {
    fn from(of: OwnedSemaphorePermit) -> Self {
        Self { _of: Some(of) }
    }
}

/// What an upload does that waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobWork {
    /// It looks at what is there to go on with, which may be long.
    Resume,
    /// It writes a piece.
    Write,
}

/// What has passed a [`BlobDoor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobPassed {
    /// So many bytes came in.
    Received(u64),
    /// So many bytes went out.
    Sent(u64),
    /// The transfer was refused.
    Refused(RefusalCode),
}

/// A blob that a client offers.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// SHA-256 of its bytes.
    pub hash: BlobHash,
    /// How many bytes there are.
    pub size: u64,
    /// Whether the client can go on in the middle.
    pub can_resume: bool,
}

/// Takes a blob from a client; whether it is here then.
pub async fn serve_put(
    door: &impl BlobDoor,
    offer: Offer,
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
) -> bool {
    match put(door, offer, &mut sender, &mut receiver).await {
        Ok(()) => {
            sender.finish().await;
            return true;
        }
        Err(Some(refusal)) => refuse(door, sender, refusal).await,
        // The client has left.
        Err(None) => {}
    }
    false
}

/// Gives a blob, from `offset` on, to a client.
pub async fn serve_get(door: &impl BlobDoor, hash: BlobHash, offset: u64, mut sender: FrameSender) {
    match get(door, hash, offset, &mut sender).await {
        Ok(()) => sender.finish().await,
        Err(Some(refusal)) => refuse(door, sender, refusal).await,
        Err(None) => {}
    }
}

async fn refuse(door: &impl BlobDoor, sender: FrameSender, refusal: Refusal) {
    door.note(BlobPassed::Refused(refusal.code));
    sender.refuse(refusal).await;
}

async fn put(
    door: &impl BlobDoor,
    offer: Offer,
    sender: &mut FrameSender,
    receiver: &mut FrameReceiver,
) -> Result<(), Option<Refusal>> {
    let Offer { hash, size, can_resume } = offer;
    door.check(true)?;
    let blobs = door.open(true).await?.ok_or(STORAGE_FAILED)?;
    if size > BLOB_BYTES_MAX {
        return Err(Some(Refusal::new(RefusalCode::TooLarge, "the blob is too large")));
    }
    let looked = Arc::clone(&blobs);
    if blocking(move || looked.find(&hash)).await?.map_err(|_| STORAGE_FAILED)?.is_none() {
        let room = door.admit(offer).await?;
        let writer = if can_resume {
            let turn = door.turn(BlobWork::Resume).await;
            blocking_in(turn, move || BlobWriter::resume(blobs, hash, size)).await?
        } else {
            Ok(BlobWriter::begin(blobs))
        };
        let writer = writer.map_err(refusal_for)?;
        let offset = writer.len();
        let wanted = match can_resume {
            true => RelayFrame::BlobWantedFrom { offset },
            false => RelayFrame::BlobWanted,
        };
        send(sender, wanted).await?;
        take(door, offer, (writer, room), receiver).await?;
    }
    send(sender, RelayFrame::BlobStored).await
}

/// Takes the rest of a blob into the room that it has.
async fn take<D: BlobDoor>(
    door: &D,
    offer: Offer,
    (mut writer, room): (BlobWriter, D::Room),
    receiver: &mut FrameReceiver,
) -> Result<(), Option<Refusal>> {
    let Offer { hash, size, .. } = offer;
    let gather = door.gather();
    let gathers = gather.is_some();
    while writer.len() < size {
        let bytes = match next_chunk(receiver, size - writer.len()).await {
            Ok(bytes) => bytes,
            Err(refusal) => {
                // What has come is written, which waits for the disk.
                let turn = door.turn(BlobWork::Write).await;
                blocking_in(turn, move || drop(writer)).await?;
                return Err(refusal);
            }
        };
        door.check(true)?;
        door.note(BlobPassed::Received(bytes.len() as u64));
        let turn = door.turn(BlobWork::Write).await;
        let write = move || {
            writer.write(&bytes)?;
            if !gathers {
                writer.flush()?;
            }
            Ok(writer)
        };
        writer = blocking_in(turn, write).await?.map_err(refusal_for)?;
    }
    let finish = move || {
        let finished = writer.finish_as(&hash);
        // Not before, though nobody may be waiting for the end any more.
        drop((room, gather));
        finished
    };
    let turn = door.turn(BlobWork::Write).await;
    blocking_in(turn, finish).await?.map_err(refusal_for)?;
    Ok(())
}

async fn get(
    door: &impl BlobDoor,
    hash: BlobHash,
    mut offset: u64,
    sender: &mut FrameSender,
) -> Result<(), Option<Refusal>> {
    door.check(false)?;
    let Some(blobs) = door.open(false).await? else {
        return send(sender, RelayFrame::BlobMissing).await;
    };
    let looked = Arc::clone(&blobs);
    let found = blocking(move || looked.find(&hash)).await?.map_err(|_| STORAGE_FAILED)?;
    let Some(content) = found else {
        return send(sender, RelayFrame::BlobMissing).await;
    };
    send(sender, RelayFrame::BlobFound { size: content.size }).await?;
    while offset < content.size {
        door.check(false)?;
        let blobs = Arc::clone(&blobs);
        let read = move || blobs.read(content.number, offset, BLOB_CHUNK_BYTES_MAX);
        let bytes = blocking(read).await?.map_err(|_| STORAGE_FAILED)?;
        if bytes.is_empty() {
            return Err(Some(STORAGE_FAILED));
        }
        offset += bytes.len() as u64;
        door.note(BlobPassed::Sent(bytes.len() as u64));
        send(sender, RelayFrame::BlobChunk { bytes: bytes.into() }).await?;
    }
    Ok(())
}

fn refusal_for(error: BlobError) -> Refusal {
    match error {
        BlobError::WrongHash => {
            Refusal::new(RefusalCode::WrongHash, "the bytes are not those of the hash")
        }
        BlobError::TooLarge => Refusal::new(RefusalCode::TooLarge, "the blob is too large"),
        BlobError::Busy => Refusal::new(
            RefusalCode::Busy,
            "somebody else is sending this blob, or too many others; try again later",
        ),
        error => {
            tracing::error!(code = error.code(), %error, "cannot write a blob");
            STORAGE_FAILED
        }
    }
}

/// The next chunk: a whole one, or all that is left.
async fn next_chunk(receiver: &mut FrameReceiver, left: u64) -> Result<Bytes, Option<Refusal>> {
    let malformed = Refusal::new(RefusalCode::Malformed, "no chunk of the size that is due");
    let due = left.min(BLOB_CHUNK_BYTES_MAX as u64);
    let frame = timeout(chunk_timeout(due), receiver.next()).await.map_err(|_| TOO_SLOW)?;
    match frame {
        Ok(Some(ClientFrame::BlobChunk { bytes })) if bytes.len() as u64 == due => Ok(bytes),
        Ok(Some(_)) | Err(StreamError::Frame(_)) => Err(Some(malformed)),
        Ok(None) => Err(Some(BROKEN_OFF)),
        Err(StreamError::TooSlow) => Err(Some(TOO_SLOW)),
        Err(StreamError::NoRoom) => Err(Some(NO_ROOM)),
        Err(_) => Err(None),
    }
}

async fn send(sender: &mut FrameSender, frame: RelayFrame) -> Result<(), Option<Refusal>> {
    sender.send(&frame).await.map_err(|_| None)
}

/// Does what waits for the disk, off the threads that must not wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Option<Refusal>> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Some(STORAGE_FAILED))
}

/// The same, when it has its turn, which ends with it, also if nobody waits for it any more.
async fn blocking_in<T: Send + 'static>(
    turn: Option<OwnedSemaphorePermit>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Option<Refusal>> {
    blocking(move || {
        let done = work();
        drop(turn);
        done
    })
    .await
}
