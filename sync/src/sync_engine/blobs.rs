//! Blobs over a connection whose store is open: offer what the relay may lack, fetch what is
//! missing.
//!
//! One at a time: the next one waits for the last. A blob that the relay lacks is asked for again
//! and again, for whoever has it may bring it at any time. So is one whose transfer broke off; only
//! what would fail again in the same way is set aside for the rest of the connection.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sds_engine::BlobHash;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::SyncError;
use super::shared::Shared;
use crate::limits::{
    BLOB_BYTES_MAX, BLOB_CHUNK_BYTES_MAX, BLOB_FRAME_BYTES_MAX, BLOB_RETRY_MAX, BLOB_RETRY_MIN,
};
use crate::message::{ClientFrame, RefusalCode, RelayFrame};
use crate::transport::{Connection, FrameReceiver, FrameSender, StreamError};

/// Why a blob did not arrive.
#[derive(Debug)]
enum BlobError {
    /// The connection is no good any more, or the engine has stopped; another will try.
    Over,
    /// This transfer broke off, or the relay refused it for now; the same may succeed later.
    Passing(&'static str),
    /// The relay will never take or give this blob.
    Refused(RefusalCode),
    /// The relay broke the protocol, or sent other bytes than those of the hash.
    Misbehaved(&'static str),
}

impl From<StreamError> for BlobError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Transport(_) => Self::Over,
            StreamError::CutOff => Self::Passing(error.code()),
            StreamError::Frame(_) => Self::Misbehaved(error.code()),
        }
    }
}

impl From<RefusalCode> for BlobError {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::TooLarge | RefusalCode::WrongHash | RefusalCode::ReadOnly => {
                Self::Refused(code)
            }
            code => Self::Passing(code.code()),
        }
    }
}

impl From<SyncError> for BlobError {
    fn from(_: SyncError) -> Self {
        Self::Over
    }
}

/// How a round of transfers went.
#[derive(Default)]
struct Round {
    is_missing_some: bool,
    has_failed_some: bool,
}

/// Transfers blobs until the connection or the engine ends.
pub(super) async fn transfer(shared: Arc<Shared>, connection: Connection, writable: bool) {
    let mut transfers = Transfers { shared, connection, writable, set_aside: BTreeSet::new() };
    let mut pause = BLOB_RETRY_MIN;
    while let Ok(round) = transfers.round().await {
        let changed = transfers.shared.blobs_changed.notified();
        if round.is_missing_some || round.has_failed_some {
            if timeout(pause, changed).await.is_err() {
                pause = Duration::min(pause * 2, BLOB_RETRY_MAX);
            }
        } else {
            pause = BLOB_RETRY_MIN;
            changed.await;
        }
    }
}

struct Transfers {
    shared: Arc<Shared>,
    connection: Connection,
    writable: bool,
    /// Blobs that this relay refused, or whose bytes it got wrong.
    set_aside: BTreeSet<BlobHash>,
}

impl Transfers {
    async fn round(&mut self) -> Result<Round, BlobError> {
        let mut round = Round::default();
        if self.writable {
            for hash in self.shared.blobs_to_send()? {
                if !self.set_aside.contains(&hash) {
                    let sent = self.send(hash).await;
                    self.settle(hash, sent, &mut round)?;
                }
            }
        }
        for (hash, size) in self.shared.blobs_to_fetch()? {
            if size <= BLOB_BYTES_MAX && !self.set_aside.contains(&hash) {
                let fetched = self.fetch(hash, size).await;
                let is_here = self.settle(hash, fetched, &mut round)?.unwrap_or(true);
                round.is_missing_some |= !is_here;
            }
        }
        if round.is_missing_some {
            self.shared.forget_unreferenced_blobs()?;
        }
        Ok(round)
    }

    /// Goes on to the next blob unless the connection is over.
    fn settle<T>(
        &mut self,
        hash: BlobHash,
        outcome: Result<T, BlobError>,
        round: &mut Round,
    ) -> Result<Option<T>, BlobError> {
        let (code, is_passing) = match outcome {
            Ok(value) => return Ok(Some(value)),
            Err(BlobError::Over) => return Err(BlobError::Over),
            Err(BlobError::Passing(code)) => (code, true),
            Err(BlobError::Refused(code)) => (code.code(), false),
            Err(BlobError::Misbehaved(what)) => (what, false),
        };
        tracing::warn!(%hash, code, is_passing, "a blob was not transferred");
        self.shared.status.send_modify(|status| status.last_error = Some(code));
        if is_passing {
            round.has_failed_some = true;
        } else {
            self.set_aside.insert(hash);
        }
        Ok(None)
    }

    async fn send(&self, hash: BlobHash) -> Result<(), BlobError> {
        let Some(bytes) = self.shared.blob(&hash)? else {
            return Ok(self.shared.blob_sent(&hash)?);
        };
        let (mut sender, mut receiver) = self.open_stream().await?;
        let store = self.shared.id.as_str().to_owned();
        let put = ClientFrame::PutBlob { store, hash: hash.0, size: bytes.len() as u64 };
        sender.send(&put).await?;
        if answer(&mut receiver).await? == RelayFrame::BlobWanted {
            for chunk in bytes.chunks(BLOB_CHUNK_BYTES_MAX) {
                let chunk = ClientFrame::BlobChunk { bytes: chunk.to_vec().into() };
                if sender.send(&chunk).await.is_err() {
                    // The relay has given up; its answer says why.
                    break;
                }
            }
            if answer(&mut receiver).await? != RelayFrame::BlobStored {
                return Err(BlobError::Misbehaved("malformed-frame"));
            }
        }
        sender.finish().await;
        Ok(self.shared.blob_sent(&hash)?)
    }

    /// Fetches a blob; whether the relay had it.
    async fn fetch(&self, hash: BlobHash, size: u64) -> Result<bool, BlobError> {
        let (mut sender, mut receiver) = self.open_stream().await?;
        let store = self.shared.id.as_str().to_owned();
        sender.send(&ClientFrame::GetBlob { store, hash: hash.0 }).await?;
        match answer(&mut receiver).await? {
            RelayFrame::BlobMissing => return Ok(false),
            RelayFrame::BlobFound { size: found } if found == size => {}
            RelayFrame::BlobFound { .. } => return Err(BlobError::Misbehaved("wrong-size")),
            _ => return Err(BlobError::Misbehaved("malformed-frame")),
        }
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            let RelayFrame::BlobChunk { bytes: chunk } = answer(&mut receiver).await? else {
                return Err(BlobError::Misbehaved("malformed-frame"));
            };
            if chunk.is_empty() {
                return Err(BlobError::Misbehaved("malformed-frame"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let bytes: Arc<[u8]> = bytes.into();
        if bytes.len() as u64 != size || !is_blob(hash, &bytes).await {
            return Err(BlobError::Misbehaved("wrong-hash"));
        }
        self.shared.blob_fetched(hash, bytes).await?;
        Ok(true)
    }

    async fn open_stream(&self) -> Result<(FrameSender, FrameReceiver), BlobError> {
        let (sender, mut receiver) = self.connection.open_stream().await?;
        receiver.set_max(BLOB_FRAME_BYTES_MAX);
        Ok((sender, receiver))
    }
}

/// The relay's next frame, unless it refuses.
async fn answer(receiver: &mut FrameReceiver) -> Result<RelayFrame, BlobError> {
    match receiver.next().await? {
        Some(RelayFrame::Refused { code, .. }) => Err(RefusalCode::from_number(code).into()),
        Some(
            frame @ (RelayFrame::BlobWanted
            | RelayFrame::BlobStored
            | RelayFrame::BlobFound { .. }
            | RelayFrame::BlobMissing
            | RelayFrame::BlobChunk { .. }),
        ) => Ok(frame),
        Some(_) => Err(BlobError::Misbehaved("malformed-frame")),
        None => Err(BlobError::Passing(StreamError::CutOff.code())),
    }
}

/// Whether these are the bytes that `hash` names.
async fn is_blob(hash: BlobHash, bytes: &Arc<[u8]>) -> bool {
    let bytes = Arc::clone(bytes);
    let found = tokio::task::spawn_blocking(move || Sha256::digest(&bytes));
    found.await.is_ok_and(|found| found.as_slice() == hash.0)
}
