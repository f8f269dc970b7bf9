//! Blobs in and out, one a stream. Nothing of a blob is visible before its hash was checked; what has
//! come of one stays, for the client to go on with.

use std::sync::Arc;

use bytes::Bytes;
use sds_engine::BlobHash;
use sds_sync::limits::{BLOB_BYTES_MAX, BLOB_CHUNK_BYTES_MAX};
use sds_sync::transport::{FrameReceiver, FrameSender, StreamError};
use sds_sync::{BlobError, BlobStorage, BlobWriter, ClientFrame, RefusalCode, RelayFrame, StoreId};
use tokio::time::timeout;

use crate::connection::{Peer, refuse};
use crate::limits::chunk_timeout;
use crate::relay_session::Refusal;
use crate::store_blobs::StoreBlobs;

const STORAGE_FAILED: Refusal =
    Refusal::new(RefusalCode::StorageFailed, "the relay cannot read or write its file");
const TOO_SLOW: Refusal =
    Refusal::new(RefusalCode::Busy, "the bytes of the blob came too slowly; try again later");
const BROKEN_OFF: Refusal =
    Refusal::new(RefusalCode::Unexpected, "the stream ended before the last byte of the blob");
const NOT_OPEN: Refusal =
    Refusal::new(RefusalCode::Unauthorized, "the store is not open on this connection");

/// A blob, by store and name.
pub(crate) struct BlobName {
    pub(crate) store: String,
    pub(crate) hash: [u8; 32],
}

/// What a client that brings a blob says first.
pub(crate) struct Offer {
    pub(crate) name: BlobName,
    pub(crate) size: u64,
    /// Whether the client can go on where another transfer broke off.
    pub(crate) can_resume: bool,
}

/// Takes a blob from a client that may write to its store.
pub(crate) async fn serve_put(
    peer: &Peer,
    offer: Offer,
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
) {
    match put(peer, &offer, &mut sender, &mut receiver).await {
        Ok(()) => sender.finish().await,
        Err(Some(refusal)) => refuse(sender, refusal).await,
        // The client has left.
        Err(None) => {}
    }
}

/// Gives a blob, from `offset` on, to a client that may read its store.
pub(crate) async fn serve_get(peer: &Peer, name: BlobName, offset: u64, mut sender: FrameSender) {
    match get(peer, &name, offset, &mut sender).await {
        Ok(()) => sender.finish().await,
        Err(Some(refusal)) => refuse(sender, refusal).await,
        Err(None) => {}
    }
}

async fn put(
    peer: &Peer,
    offer: &Offer,
    sender: &mut FrameSender,
    receiver: &mut FrameReceiver,
) -> Result<(), Option<Refusal>> {
    let Offer { name, size, can_resume } = offer;
    let blobs = open(peer, name, true).await?;
    let (hash, size) = (BlobHash(name.hash), *size);
    if size > BLOB_BYTES_MAX {
        return Err(Some(Refusal::new(RefusalCode::TooLarge, "the blob is too large")));
    }
    let looked = Arc::clone(&blobs);
    if blocking(move || looked.find(&hash)).await?.map_err(|_| STORAGE_FAILED)?.is_none() {
        let writer = if *can_resume {
            blocking(move || BlobWriter::resume(blobs, hash, size)).await?
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
        take(peer, name, size, writer, receiver).await?;
    }
    send(sender, RelayFrame::BlobStored).await
}

/// Takes the rest of a blob.
async fn take(
    peer: &Peer,
    name: &BlobName,
    size: u64,
    mut writer: BlobWriter,
    receiver: &mut FrameReceiver,
) -> Result<(), Option<Refusal>> {
    while writer.len() < size {
        let bytes = match next_chunk(receiver, size - writer.len()).await {
            Ok(bytes) => bytes,
            Err(refusal) => {
                // What has come is written, which waits for the disk.
                blocking(move || drop(writer)).await?;
                return Err(refusal);
            }
        };
        check(peer, name, true)?;
        writer =
            blocking(move || writer.write(&bytes).map(|()| writer)).await?.map_err(refusal_for)?;
    }
    let hash = BlobHash(name.hash);
    blocking(move || writer.finish_as(&hash)).await?.map_err(refusal_for)?;
    Ok(())
}

async fn get(
    peer: &Peer,
    name: &BlobName,
    mut offset: u64,
    sender: &mut FrameSender,
) -> Result<(), Option<Refusal>> {
    let blobs = open(peer, name, false).await?;
    let (hash, looked) = (BlobHash(name.hash), Arc::clone(&blobs));
    let found = blocking(move || looked.find(&hash)).await?.map_err(|_| STORAGE_FAILED)?;
    let Some(content) = found else {
        return send(sender, RelayFrame::BlobMissing).await;
    };
    send(sender, RelayFrame::BlobFound { size: content.size }).await?;
    while offset < content.size {
        check(peer, name, false)?;
        let blobs = Arc::clone(&blobs);
        let read = move || blobs.read(content.number, offset, BLOB_CHUNK_BYTES_MAX);
        let bytes = blocking(read).await?.map_err(|_| STORAGE_FAILED)?;
        if bytes.is_empty() {
            return Err(Some(STORAGE_FAILED));
        }
        offset += bytes.len() as u64;
        send(sender, RelayFrame::BlobChunk { bytes: bytes.into() }).await?;
    }
    Ok(())
}

/// Whether the client may still do this: only while it has the store open.
fn check(peer: &Peer, name: &BlobName, writing: bool) -> Result<StoreId, Option<Refusal>> {
    let store = StoreId::new(&name.store);
    let store = store.map_err(|_| Refusal::new(RefusalCode::Malformed, "no valid store id"))?;
    match peer.may_write(&store) {
        None => Err(Some(NOT_OPEN)),
        Some(false) if writing => {
            Err(Some(Refusal::new(RefusalCode::ReadOnly, "the token is read-only")))
        }
        Some(_) => Ok(store),
    }
}

/// The blobs of the store, if the client may do this.
async fn open(
    peer: &Peer,
    name: &BlobName,
    writing: bool,
) -> Result<Arc<dyn BlobStorage>, Option<Refusal>> {
    let store = check(peer, name, writing)?;
    let log = Arc::clone(&peer.node.log);
    let blobs = blocking(move || StoreBlobs::of(log, &store)).await?;
    Ok(Arc::new(blobs.map_err(|_| STORAGE_FAILED)?))
}

fn refusal_for(error: BlobError) -> Refusal {
    match error {
        BlobError::WrongHash => {
            Refusal::new(RefusalCode::WrongHash, "the bytes are not those of the hash")
        }
        BlobError::TooLarge => Refusal::new(RefusalCode::TooLarge, "the blob is too large"),
        BlobError::Busy => {
            Refusal::new(RefusalCode::Busy, "somebody else is sending this blob; try again later")
        }
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
