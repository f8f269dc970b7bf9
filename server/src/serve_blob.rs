//! Blobs in and out, one a stream. Nothing of a blob is visible before its hash was checked.

use std::sync::Arc;

use bytes::Bytes;
use sds_engine::BlobHash;
use sds_sync::limits::{BLOB_BYTES_MAX, BLOB_CHUNK_BYTES_MAX};
use sds_sync::transport::{FrameReceiver, FrameSender, StreamError};
use sds_sync::{ClientFrame, Refusal, RefusalCode, RelayFrame, StoreId};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use crate::connection::{Peer, refuse};
use crate::limits::chunk_timeout;
use crate::log_writer::LogWriter;
use crate::node::Node;
use crate::store_log::StoredBlob;

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

/// Takes a blob from a client that may write to its store.
pub(crate) async fn serve_put(
    peer: &Peer,
    name: BlobName,
    size: u64,
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
) {
    match put(peer, &name, size, &mut sender, &mut receiver).await {
        Ok(()) => sender.finish().await,
        Err(Some(refusal)) => refuse(sender, refusal).await,
        // The client has left.
        Err(None) => {}
    }
}

/// Gives a blob to a client that may read its store.
pub(crate) async fn serve_get(peer: &Peer, name: BlobName, mut sender: FrameSender) {
    match get(peer, &name, &mut sender).await {
        Ok(()) => sender.finish().await,
        Err(Some(refusal)) => refuse(sender, refusal).await,
        Err(None) => {}
    }
}

async fn put(
    peer: &Peer,
    name: &BlobName,
    size: u64,
    sender: &mut FrameSender,
    receiver: &mut FrameReceiver,
) -> Result<(), Option<Refusal>> {
    let store = check(peer, name, true)?;
    if size > BLOB_BYTES_MAX {
        return Err(Some(Refusal::new(RefusalCode::TooLarge, "the blob is too large")));
    }
    if find(&peer.node, &store, name).await?.is_none() {
        send(sender, RelayFrame::BlobWanted).await?;
        let mut upload = Upload::begin(&peer.node);
        let mut left = size;
        let mut hasher = Sha256::new();
        while left > 0 {
            let bytes = next_chunk(receiver, left).await?;
            check(peer, name, true)?;
            left -= bytes.len() as u64;
            hasher.update(&bytes);
            upload.add(bytes).await?;
        }
        if hasher.finalize().as_slice() != name.hash {
            let message = "the bytes are not those of the hash";
            return Err(Some(Refusal::new(RefusalCode::WrongHash, message)));
        }
        upload.keep(store, BlobHash(name.hash), size).await?;
    }
    send(sender, RelayFrame::BlobStored).await
}

async fn get(
    peer: &Peer,
    name: &BlobName,
    sender: &mut FrameSender,
) -> Result<(), Option<Refusal>> {
    let store = check(peer, name, false)?;
    let Some(blob) = find(&peer.node, &store, name).await? else {
        return send(sender, RelayFrame::BlobMissing).await;
    };
    send(sender, RelayFrame::BlobFound { size: blob.size }).await?;
    let mut left = blob.size;
    let mut index = 0;
    while left > 0 {
        check(peer, name, false)?;
        let chunk = peer.node.read(move |log| log.blob_chunk(blob.upload, index)).await;
        let bytes: Bytes = chunk.flatten().ok_or(Some(STORAGE_FAILED))?.into();
        left = left.saturating_sub(bytes.len() as u64);
        index += 1;
        send(sender, RelayFrame::BlobChunk { bytes }).await?;
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

async fn find(
    node: &Node,
    store: &StoreId,
    name: &BlobName,
) -> Result<Option<StoredBlob>, Option<Refusal>> {
    let (store, hash) = (store.clone(), BlobHash(name.hash));
    node.read(move |log| log.blob(&store, hash)).await.ok_or(Some(STORAGE_FAILED))
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

/// Chunks on their way into the file; forgotten unless they are kept.
struct Upload {
    writer: LogWriter,
    number: u64,
    chunks: u32,
    is_kept: bool,
}

impl Upload {
    fn begin(node: &Arc<Node>) -> Self {
        let number = node.next_upload();
        Self { writer: node.writer.clone(), number, chunks: 0, is_kept: false }
    }

    async fn add(&mut self, bytes: Bytes) -> Result<(), Refusal> {
        let reply = self.writer.put_chunk(self.number, self.chunks, bytes);
        self.chunks += 1;
        reply.await.ok().and_then(Result::ok).map(drop).ok_or(STORAGE_FAILED)
    }

    async fn keep(&mut self, store: StoreId, hash: BlobHash, size: u64) -> Result<(), Refusal> {
        let blob = StoredBlob { size, upload: self.number };
        // From here on the writer decides; dropping the chunks could leave a blob without them.
        self.is_kept = true;
        let reply = self.writer.keep_upload(store, hash, blob);
        reply.await.ok().and_then(Result::ok).map(drop).ok_or(STORAGE_FAILED)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_kept {
            self.writer.drop_upload(self.number);
        }
    }
}
