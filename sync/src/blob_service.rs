//! Blobs in and out, one a stream, on the answering side. Nothing of a blob is visible before its hash
//! was checked; what has come of one stays, to go on with. Memory stays constant.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use sds_engine::BlobHash;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::blob_storage::{BlobError, BlobStorage, BlobWriter};
use crate::limits::{BLOB_BYTES_MAX, BLOB_CHUNK_BYTES_MAX, chunk_timeout};
use crate::message::{ClientFrame, RefusalCode, RelayFrame};
use crate::serving_session::Refusal;
use crate::transport::{FrameReceiver, FrameRoom, FrameSender, StreamError};

const BROKEN_OFF: Refusal =
    Refusal::new(RefusalCode::Unexpected, "the stream ended before the last byte of the blob");

/// The way of one client to the blobs of one store.
pub trait BlobDoor: Sync {
    /// Room for a blob that is not here yet, until it is dropped: when the blob is here, or is not
    /// coming.
    type Room: Send + 'static;

    /// Leave to do something that only a few do at a time, until it is dropped.
    type Leave: Send + 'static;

    /// Whether the client may still do this.
    ///
    /// # Errors
    /// Why it may not.
    fn check(&self, writing: bool) -> Result<(), Refusal>;

    /// Whether a blob may come at all, as large as it is.
    ///
    /// # Errors
    /// Why it may not.
    fn check_offer(&self, _offer: &Offer) -> Result<(), Refusal> {
        Ok(())
    }

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
    fn turn(&self, _work: BlobWork) -> impl Future<Output = Option<Self::Leave>> + Send {
        async { None }
    }

    /// Leave to gather some pieces of an upload and write them together. Without it each is written by itself.
    fn gather(&self) -> Option<Self::Leave>;

    /// Hears of a stream that failed, for whoever counts it.
    fn note_failed(&self, _error: &StreamError) {}

    /// Waits for room for a piece that goes out, which is held until it has. One who serves few needs none.
    fn output_room(&self, _bytes: usize) -> impl Future<Output = FrameRoom> + Send {
        async { FrameRoom::default() }
    }

    /// Hears of what has passed, for whoever counts it.
    fn note(&self, _passed: BlobPassed) {}
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
    /// The client took a piece too slowly, and was cut off.
    NotTaken,
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
    door.check_offer(&offer)?;
    if size > BLOB_BYTES_MAX {
        return Err(Some(Refusal::new(RefusalCode::TooLarge, "the blob is too large")));
    }
    let blobs = door.open(true).await?.ok_or(Refusal::STORAGE_FAILED)?;
    let looked = Arc::clone(&blobs);
    if blocking(move || looked.find(&hash)).await?.map_err(|_| Refusal::STORAGE_FAILED)?.is_none() {
        let room = door.admit(offer).await?;
        let begun = if can_resume {
            let turn = door.turn(BlobWork::Resume).await;
            let resume = move || {
                let writer = BlobWriter::resume(blobs, hash, size)?;
                Ok(Upload::new(writer, room))
            };
            blocking_in(turn, resume).await?.map_err(refusal_for)?
        } else {
            Upload::new(BlobWriter::begin(blobs), room)
        };
        let offset = begun.len();
        let wanted = match can_resume {
            true => RelayFrame::BlobWantedFrom { offset },
            false => RelayFrame::BlobWanted,
        };
        send(sender, wanted).await?;
        take(door, offer, begun, receiver).await?;
    }
    send(sender, RelayFrame::BlobStored).await
}

/// The writer of an upload, and the room that it has. Letting go of a writer may wait for the disk: here that
/// is done where it may, whoever ends the upload, and the room is given back after it.
struct Upload<R: Send + 'static, G: Send + 'static> {
    /// Until it is over. They go in this order.
    held: Option<(BlobWriter, R, Option<G>)>,
}

impl<R: Send + 'static, G: Send + 'static> Upload<R, G> {
    const fn new(writer: BlobWriter, room: R) -> Self {
        Self { held: Some((writer, room, None)) }
    }

    fn len(&self) -> u64 {
        self.held.as_ref().map_or(0, |(writer, ..)| writer.len())
    }

    /// Gathers pieces, if there is leave to.
    fn set_gather(&mut self, leave: Option<G>) {
        if let Some((_, _, gather)) = &mut self.held {
            *gather = leave;
        }
    }

    /// Whether there is leave to gather pieces.
    fn gathers(&self) -> bool {
        matches!(self.held, Some((_, _, Some(_))))
    }

    /// Writes a piece; at once, unless there is leave to gather some.
    fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let Some((writer, _, gather)) = &mut self.held else { return Err(BlobError::Busy) };
        writer.write(bytes)?;
        if gather.is_some() { Ok(()) } else { writer.flush() }
    }

    /// Ends it, and waits for that.
    fn let_go(mut self) {
        drop(self.held.take());
    }

    /// Makes what has come the blob of this name.
    fn finish_as(mut self, hash: &BlobHash) -> Result<(), BlobError> {
        let Some((writer, room, gather)) = self.held.take() else { return Err(BlobError::Busy) };
        let finished = writer.finish_as(hash);
        // Not before, though nobody may be waiting for the end any more.
        drop((room, gather));
        finished.map(drop)
    }
}

impl<R: Send + 'static, G: Send + 'static> Drop for Upload<R, G> {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        // Without a runtime there is nobody to be kept waiting.
        if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(held)));
        }
    }
}

/// Takes the rest of a blob into the room that it has. Who has leave to gather pieces gets the next one while
/// the one before it is hashed and written.
async fn take<D: BlobDoor>(
    door: &D,
    offer: Offer,
    mut upload: Upload<D::Room, D::Leave>,
    receiver: &mut FrameReceiver,
) -> Result<(), Option<Refusal>> {
    let Offer { hash, size, .. } = offer;
    upload.set_gather(door.gather());
    let mut next = next_chunk(door, receiver, size - upload.len()).await;
    loop {
        let bytes = match next.and_then(|bytes| Ok(door.check(true).map(|()| bytes)?)) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break,
            Err(refusal) => {
                // What has come is written, which waits for the disk.
                let turn = door.turn(BlobWork::Write).await;
                blocking_in(turn, move || upload.let_go()).await?;
                return Err(refusal);
            }
        };
        door.note(BlobPassed::Received(bytes.len() as u64));
        let (left, gathers) = (size - upload.len() - bytes.len() as u64, upload.gathers());
        let mut writing = pin!(write(door, upload, bytes));
        let mut coming = pin!(next_chunk(door, receiver, left));
        (upload, next) = tokio::select! {
            biased;
            written = &mut writing => (written?, coming.await),
            came = &mut coming, if gathers => (writing.await?, came),
        };
    }
    let turn = door.turn(BlobWork::Write).await;
    blocking_in(turn, move || upload.finish_as(&hash)).await?.map_err(refusal_for)?;
    Ok(())
}

/// Writes a piece when it has its turn.
async fn write<D: BlobDoor>(
    door: &D,
    mut upload: Upload<D::Room, D::Leave>,
    bytes: Bytes,
) -> Result<Upload<D::Room, D::Leave>, Option<Refusal>> {
    let turn = door.turn(BlobWork::Write).await;
    let write = move || {
        upload.write(&bytes)?;
        Ok(upload)
    };
    Ok(blocking_in(turn, write).await?.map_err(refusal_for)?)
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
    let found = blocking(move || looked.find(&hash)).await?.map_err(|_| Refusal::STORAGE_FAILED)?;
    let Some(content) = found else {
        return send(sender, RelayFrame::BlobMissing).await;
    };
    send(sender, RelayFrame::BlobFound { size: content.size }).await?;
    while offset < content.size {
        let room = door.output_room(BLOB_CHUNK_BYTES_MAX).await;
        door.check(false)?;
        let blobs = Arc::clone(&blobs);
        let read = move || blobs.read(content.number, offset, BLOB_CHUNK_BYTES_MAX);
        let bytes = blocking(read).await?.map_err(|_| Refusal::STORAGE_FAILED)?;
        if bytes.is_empty() {
            return Err(Some(Refusal::STORAGE_FAILED));
        }
        offset += bytes.len() as u64;
        door.note(BlobPassed::Sent(bytes.len() as u64));
        let piece = RelayFrame::BlobChunk { bytes: bytes.into() };
        if let Err(error) = sender.send_in_time(piece).await {
            if matches!(error, StreamError::TooSlow) {
                door.note(BlobPassed::NotTaken);
            }
            return Err(None);
        }
        drop(room);
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
            Refusal::STORAGE_FAILED
        }
    }
}

/// The next chunk: a whole one, or all that is left; none if nothing is.
async fn next_chunk(
    door: &impl BlobDoor,
    receiver: &mut FrameReceiver,
    left: u64,
) -> Result<Option<Bytes>, Option<Refusal>> {
    if left == 0 {
        return Ok(None);
    }
    let malformed = Refusal::new(RefusalCode::Malformed, "no chunk of the size that is due");
    let due = left.min(BLOB_CHUNK_BYTES_MAX as u64);
    let frame = timeout(chunk_timeout(due), receiver.next()).await;
    let frame = frame.unwrap_or(Err(StreamError::TooSlow));
    match frame.inspect_err(|error| door.note_failed(error)) {
        Ok(Some(ClientFrame::BlobChunk { bytes })) if bytes.len() as u64 == due => Ok(Some(bytes)),
        Ok(Some(_)) | Err(StreamError::Frame(_)) => Err(Some(malformed)),
        Ok(None) => Err(Some(BROKEN_OFF)),
        Err(StreamError::TooSlow) => Err(Some(Refusal::TOO_SLOW)),
        Err(StreamError::NoRoom) => Err(Some(Refusal::NO_ROOM)),
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
    tokio::task::spawn_blocking(work).await.map_err(|_| Some(Refusal::STORAGE_FAILED))
}

/// The same, when it has its turn, which ends with it, also if nobody waits for it any more.
async fn blocking_in<T: Send + 'static>(
    turn: Option<impl Send + 'static>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Option<Refusal>> {
    blocking(move || {
        let done = work();
        drop(turn);
        done
    })
    .await
}

#[cfg(test)]
mod tests;
