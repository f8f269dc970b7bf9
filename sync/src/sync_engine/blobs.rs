//! Blobs over a connection whose store is open: offer what the relay may lack, fetch what is
//! missing.
//!
//! One at a time each way, the small ones first. A blob that the relay lacks is asked for again and
//! again, for whoever has it may bring it at any time. So is one whose transfer broke off, and it goes
//! on where it was; only what would fail again in the same way is set aside for the rest of the
//! connection.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sds_engine::BlobHash;
use tokio::time::timeout;

use super::SyncError;
use super::shared::Shared;
use crate::blob_rows::Content;
use crate::blob_storage::{BlobError, BlobWriter};
use crate::limits::{
    BLOB_BYTES_MAX, BLOB_CHUNK_BYTES_MAX, BLOB_FRAME_BYTES_MAX, BLOB_RETRY_MAX, BLOB_RETRY_MIN,
};
use crate::message::{ClientFrame, RefusalCode, RelayFrame};
use crate::persistence::StorageError;
use crate::transport::{Connection, FrameReceiver, FrameSender, StreamError};

/// Why a blob did not arrive.
#[derive(Debug)]
enum TransferError {
    /// The connection is no good any more, or the engine has stopped; another will try.
    Over,
    /// This transfer broke off, or the relay refused it for now; the same may succeed later.
    Passing(&'static str),
    /// Another process had the file meanwhile; the same may succeed once the engine goes on from it.
    FileLost(StorageError),
    /// The relay will never take or give this blob.
    Refused(RefusalCode),
    /// The relay broke the protocol, or sent other bytes than those of the hash.
    Misbehaved(&'static str),
}

impl From<StreamError> for TransferError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Transport(_) => Self::Over,
            StreamError::CutOff | StreamError::TooSlow | StreamError::NoRoom => {
                Self::Passing(error.code())
            }
            StreamError::Frame(_) => Self::Misbehaved(error.code()),
        }
    }
}

impl From<RefusalCode> for TransferError {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::TooLarge | RefusalCode::WrongHash | RefusalCode::ReadOnly => {
                Self::Refused(code)
            }
            code => Self::Passing(code.code()),
        }
    }
}

impl From<SyncError> for TransferError {
    fn from(_: SyncError) -> Self {
        Self::Over
    }
}

impl From<StorageError> for TransferError {
    fn from(error: StorageError) -> Self {
        if error.is_seat_lost() { Self::FileLost(error) } else { Self::Passing(error.code()) }
    }
}

impl From<BlobError> for TransferError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Storage(error) => error.into(),
            BlobError::WrongHash | BlobError::TooLarge => Self::Misbehaved("wrong-hash"),
            error => Self::Passing(error.code()),
        }
    }
}

const MALFORMED: TransferError = TransferError::Misbehaved("malformed-frame");

/// Which way blobs go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Out,
    In,
}

/// Transfers blobs until the connection or the engine ends.
pub(super) async fn transfer(shared: Arc<Shared>, connection: Connection, writable: bool) {
    let way = |way| Transfers {
        shared: Arc::clone(&shared),
        connection: connection.clone(),
        way,
        set_aside: BTreeSet::new(),
    };
    let outgoing = async {
        if writable {
            way(Way::Out).run().await;
        }
    };
    tokio::join!(outgoing, way(Way::In).run());
}

struct Transfers {
    shared: Arc<Shared>,
    connection: Connection,
    way: Way,
    /// Blobs that this relay refused, or whose bytes it got wrong.
    set_aside: BTreeSet<BlobHash>,
}

impl Transfers {
    async fn run(mut self) {
        let mut changed = self.shared.blobs_changed.subscribe();
        let mut pause = BLOB_RETRY_MIN;
        while let Ok(is_done) = self.round().await {
            let changed = changed.changed();
            if is_done {
                pause = BLOB_RETRY_MIN;
                if changed.await.is_err() {
                    return;
                }
            } else if timeout(pause, changed).await.is_err() {
                pause = Duration::min(pause * 2, BLOB_RETRY_MAX);
            }
        }
    }

    /// Tries each blob once; whether nothing is left that may succeed later.
    async fn round(&mut self) -> Result<bool, TransferError> {
        let mut is_done = true;
        let blobs = match self.way {
            Way::Out => self.shared.blobs_to_send()?,
            Way::In => self.shared.blobs_to_fetch()?,
        };
        for (hash, size) in blobs {
            if size > BLOB_BYTES_MAX || self.set_aside.contains(&hash) {
                continue;
            }
            let transferred = match self.way {
                Way::Out => self.send(hash).await.map(|()| true),
                Way::In => self.fetch(hash, size).await,
            };
            is_done &= self.settle(hash, transferred)?;
        }
        if self.way == Way::In && !is_done {
            self.shared.forget_unreferenced_blobs()?;
        }
        Ok(is_done)
    }

    /// Goes on to the next blob unless the connection is over; whether this one is settled.
    fn settle(
        &mut self,
        hash: BlobHash,
        outcome: Result<bool, TransferError>,
    ) -> Result<bool, TransferError> {
        let (code, is_passing) = match outcome {
            Ok(is_settled) => return Ok(is_settled),
            Err(TransferError::Over) => return Err(TransferError::Over),
            Err(TransferError::Passing(code)) => (code, true),
            Err(TransferError::FileLost(error)) => {
                self.shared.note_lost(&error);
                (error.code(), true)
            }
            Err(TransferError::Refused(code)) => (code.code(), false),
            Err(TransferError::Misbehaved(what)) => (what, false),
        };
        tracing::warn!(%hash, code, is_passing, "a blob was not transferred");
        self.shared.status.send_modify(|status| status.last_error = Some(code));
        if !is_passing {
            self.set_aside.insert(hash);
        }
        Ok(!is_passing)
    }

    async fn send(&self, hash: BlobHash) -> Result<(), TransferError> {
        let Some(content) = self.content(&hash).await? else {
            return Ok(self.shared.blob_absent(&hash)?);
        };
        let (mut sender, mut receiver) = self.open_stream().await?;
        let store = self.shared.id.as_str().to_owned();
        sender.send(&ClientFrame::OfferBlob { store, hash: hash.0, size: content.size }).await?;
        match answer(&mut receiver).await? {
            RelayFrame::BlobStored => {}
            RelayFrame::BlobWantedFrom { offset } => {
                self.send_from(content, offset, &mut sender).await?;
                if answer(&mut receiver).await? != RelayFrame::BlobStored {
                    return Err(MALFORMED);
                }
            }
            _ => return Err(MALFORMED),
        }
        sender.finish().await;
        Ok(self.shared.blob_sent(&hash)?)
    }

    /// Where the bytes of a blob are; none if it was released.
    async fn content(&self, hash: &BlobHash) -> Result<Option<Content>, TransferError> {
        if let Some(content) = self.find(hash).await? {
            return Ok(Some(content));
        }
        // What was written just now is on its way to the file.
        self.shared.flush().await?;
        self.find(hash).await
    }

    async fn find(&self, hash: &BlobHash) -> Result<Option<Content>, TransferError> {
        let (blobs, hash) = (Arc::clone(&self.shared.blobs), *hash);
        Ok(blocking(move || blobs.find(&hash)).await??)
    }

    async fn send_from(
        &self,
        content: Content,
        mut offset: u64,
        sender: &mut FrameSender,
    ) -> Result<(), TransferError> {
        while offset < content.size {
            let blobs = Arc::clone(&self.shared.blobs);
            let read = move || blobs.read(content.number, offset, BLOB_CHUNK_BYTES_MAX);
            let bytes = blocking(read).await??;
            if bytes.is_empty() {
                return Err(TransferError::Passing("blob-released"));
            }
            offset += bytes.len() as u64;
            if sender.send(&ClientFrame::BlobChunk { bytes: bytes.into() }).await.is_err() {
                // The relay has given up; its answer says why.
                break;
            }
        }
        Ok(())
    }

    /// Fetches a blob; whether the relay had it.
    async fn fetch(&self, hash: BlobHash, size: u64) -> Result<bool, TransferError> {
        if self.find(&hash).await?.is_some() {
            self.shared.blob_found(&hash)?;
            return Ok(true);
        }
        let offset = self.shared.blobs.part_len(&hash, size)?;
        let (mut sender, mut receiver) = self.open_stream().await?;
        let store = self.shared.id.as_str().to_owned();
        sender.send(&ClientFrame::GetBlobFrom { store, hash: hash.0, offset }).await?;
        match answer(&mut receiver).await? {
            RelayFrame::BlobMissing => return Ok(false),
            RelayFrame::BlobFound { size: found } if found == size => {}
            RelayFrame::BlobFound { .. } => return Err(TransferError::Misbehaved("wrong-size")),
            _ => return Err(MALFORMED),
        }
        let blobs = Arc::clone(&self.shared.blobs);
        let mut writer = blocking(move || BlobWriter::resume(blobs, hash, size)).await??;
        if writer.len() != offset {
            return Err(TransferError::Passing("busy"));
        }
        while writer.len() < size {
            let RelayFrame::BlobChunk { bytes } = answer(&mut receiver).await? else {
                return Err(MALFORMED);
            };
            if bytes.is_empty() {
                return Err(MALFORMED);
            }
            writer = blocking(move || writer.write(&bytes).map(|()| writer)).await??;
        }
        blocking(move || writer.finish()).await??;
        self.shared.blob_fetched(&hash)?;
        Ok(true)
    }

    async fn open_stream(&self) -> Result<(FrameSender, FrameReceiver), TransferError> {
        let (sender, mut receiver) = self.connection.open_stream().await?;
        receiver.set_max(BLOB_FRAME_BYTES_MAX);
        Ok((sender, receiver))
    }
}

/// The relay's next frame, unless it refuses.
async fn answer(receiver: &mut FrameReceiver) -> Result<RelayFrame, TransferError> {
    match receiver.next().await? {
        Some(RelayFrame::Refused { code, .. }) => Err(RefusalCode::from_number(code).into()),
        Some(
            frame @ (RelayFrame::BlobWantedFrom { .. }
            | RelayFrame::BlobStored
            | RelayFrame::BlobFound { .. }
            | RelayFrame::BlobMissing
            | RelayFrame::BlobChunk { .. }),
        ) => Ok(frame),
        Some(_) => Err(MALFORMED),
        None => Err(TransferError::Passing(StreamError::CutOff.code())),
    }
}

/// Does what waits for the disk, off the threads that must not wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TransferError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| TransferError::Over)
}
