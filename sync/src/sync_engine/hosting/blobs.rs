//! Blobs to and from a visitor, one a stream. Nothing of a blob is kept before its hash was checked.

use std::sync::Arc;

use sds_engine::BlobHash;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::super::shared::Shared;
use super::refuse;
use crate::limits::{BLOB_BYTES_MAX, BLOB_CHUNK_BYTES_MAX, BLOB_CHUNK_TIMEOUT};
use crate::message::{ClientFrame, RefusalCode, RelayFrame};
use crate::serving_session::Refusal;
use crate::transport::{FrameReceiver, FrameSender, StreamError};

const STORAGE_FAILED: Refusal =
    Refusal::new(RefusalCode::StorageFailed, "this side cannot read or write its file");

/// A blob that a visitor brings or fetches, and whether it may.
pub(super) struct Wanted {
    pub(super) store: String,
    pub(super) hash: [u8; 32],
    pub(super) may: bool,
}

/// Takes a blob from a visitor.
pub(super) async fn serve_put(
    shared: &Arc<Shared>,
    wanted: Wanted,
    size: u64,
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
) {
    match put(shared, &wanted, size, &mut sender, &mut receiver).await {
        Ok(()) => sender.finish().await,
        Err(Some(refusal)) => refuse(sender, refusal).await,
        // The visitor has left.
        Err(None) => {}
    }
}

/// Gives a blob to a visitor.
pub(super) async fn serve_get(shared: &Arc<Shared>, wanted: Wanted, mut sender: FrameSender) {
    match get(shared, &wanted, &mut sender).await {
        Ok(()) => sender.finish().await,
        Err(Some(refusal)) => refuse(sender, refusal).await,
        Err(None) => {}
    }
}

async fn put(
    shared: &Arc<Shared>,
    wanted: &Wanted,
    size: u64,
    sender: &mut FrameSender,
    receiver: &mut FrameReceiver,
) -> Result<(), Option<Refusal>> {
    check(shared, wanted)?;
    if size > BLOB_BYTES_MAX {
        return Err(Some(Refusal::new(RefusalCode::TooLarge, "the blob is too large")));
    }
    let hash = BlobHash(wanted.hash);
    if shared.blob(&hash).map_err(|_| STORAGE_FAILED)?.is_some() {
        // What is in memory may still be on its way to the disk.
        shared.flush().await.map_err(|_| STORAGE_FAILED)?;
    } else {
        send(sender, RelayFrame::BlobWanted).await?;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            bytes.extend_from_slice(&next_chunk(receiver, size - bytes.len() as u64).await?);
        }
        let bytes: Arc<[u8]> = bytes.into();
        let content = Arc::clone(&bytes);
        let found = tokio::task::spawn_blocking(move || Sha256::digest(&content)).await;
        if found.is_ok_and(|found| found.as_slice() != wanted.hash) {
            let message = "the bytes are not those of the hash";
            return Err(Some(Refusal::new(RefusalCode::WrongHash, message)));
        }
        shared.blob_brought(hash, bytes).await.map_err(|_| STORAGE_FAILED)?;
    }
    send(sender, RelayFrame::BlobStored).await
}

async fn get(
    shared: &Arc<Shared>,
    wanted: &Wanted,
    sender: &mut FrameSender,
) -> Result<(), Option<Refusal>> {
    check(shared, wanted)?;
    let Some(bytes) = shared.blob(&BlobHash(wanted.hash)).map_err(|_| STORAGE_FAILED)? else {
        return send(sender, RelayFrame::BlobMissing).await;
    };
    send(sender, RelayFrame::BlobFound { size: bytes.len() as u64 }).await?;
    for chunk in bytes.chunks(BLOB_CHUNK_BYTES_MAX) {
        send(sender, RelayFrame::BlobChunk { bytes: chunk.to_vec().into() }).await?;
    }
    Ok(())
}

fn check(shared: &Shared, wanted: &Wanted) -> Result<(), Refusal> {
    if wanted.may && wanted.store == shared.id.as_str() {
        Ok(())
    } else {
        let message = "the store is not open on this connection, or only to read";
        Err(Refusal::new(RefusalCode::Unauthorized, message))
    }
}

/// The next chunk: a whole one, or all that is left.
async fn next_chunk(
    receiver: &mut FrameReceiver,
    left: u64,
) -> Result<bytes::Bytes, Option<Refusal>> {
    let malformed = Refusal::new(RefusalCode::Malformed, "no chunk of the size that is due");
    let too_slow = Refusal::new(RefusalCode::Busy, "the bytes of the blob came too slowly");
    let broken_off = Refusal::new(RefusalCode::Unexpected, "the stream ended before the last byte");
    let due = left.min(BLOB_CHUNK_BYTES_MAX as u64);
    match timeout(BLOB_CHUNK_TIMEOUT, receiver.next()).await.map_err(|_| too_slow)? {
        Ok(Some(ClientFrame::BlobChunk { bytes })) if bytes.len() as u64 == due => Ok(bytes),
        Ok(Some(_)) | Err(StreamError::Frame(_)) => Err(Some(malformed)),
        Ok(None) => Err(Some(broken_off)),
        Err(_) => Err(None),
    }
}

async fn send(sender: &mut FrameSender, frame: RelayFrame) -> Result<(), Option<Refusal>> {
    sender.send(&frame).await.map_err(|_| None)
}
