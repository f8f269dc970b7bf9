//! Frames in either direction: on a QUIC stream, or on a local socket.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use interprocess::local_socket::tokio as local;
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::TransportError;
use super::room::{FrameBound, FrameRoom, InputRoom};
use crate::limits::{
    FRAME_LENGTH_BYTES, OPEN_TIMEOUT, READ_BYTES_MAX, STREAM_WINDOW_BYTES, chunk_timeout,
};
use crate::message::{Frame, FrameBuffer, FrameError};
use crate::serving_session::Refusal;

/// How much room there is at least for the next read from a local socket, in bytes.
const LOCAL_READ_BYTES: usize = 64 << 10;

/// Why no further frame came, or none could be sent.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum StreamError {
    /// What came is no frame. The other side is at fault.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended inside a frame, or was cut off.
    #[error("the stream was cut off")]
    CutOff,
    /// A large frame came too slowly, or was taken too slowly.
    #[error("the bytes of a frame came or were taken too slowly")]
    TooSlow,
    /// There is no room for a large frame now.
    #[error("there is no room for a large frame now")]
    NoRoom,
    /// The connection is gone.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl StreamError {
    /// The stable name of the reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Frame(_) => "malformed-frame",
            Self::CutOff => "connection-lost",
            Self::TooSlow => "too-slow",
            Self::NoRoom => "busy",
            Self::Transport(error) => error.code(),
        }
    }
}

/// The half of a stream that sends.
#[derive(Debug)]
pub struct FrameSender {
    stream: Outgoing,
}

#[derive(Debug)]
enum Outgoing {
    Quic(SendStream),
    Local(Arc<local::Stream>),
}

impl FrameSender {
    /// Sends on `stream`.
    #[must_use]
    pub const fn new(stream: SendStream) -> Self {
        Self { stream: Outgoing::Quic(stream) }
    }

    /// Sends on a local socket.
    pub(crate) const fn local(stream: Arc<local::Stream>) -> Self {
        Self { stream: Outgoing::Local(stream) }
    }

    /// The number of the stream, on its connection and on both sides; a local socket is alone on its.
    #[must_use]
    pub fn id(&self) -> u64 {
        match &self.stream {
            Outgoing::Quic(stream) => VarInt::from(stream.id()).into_inner(),
            Outgoing::Local(_) => 0,
        }
    }

    /// Sends a frame; waits while the other side cannot take it.
    ///
    /// # Errors
    /// If the other side has stopped the stream, or the connection is gone.
    pub async fn send<F: Frame>(&mut self, frame: &F) -> Result<(), StreamError> {
        self.send_encoded(frame.encode()).await
    }

    /// Sends bytes that [`Frame::encode`] gave.
    ///
    /// # Errors
    /// If the other side has stopped the stream, or the connection is gone.
    pub async fn send_encoded(&mut self, frame: Bytes) -> Result<(), StreamError> {
        match &mut self.stream {
            Outgoing::Quic(stream) => {
                stream.write_chunk(frame).await.map_err(|error| match error {
                    WriteError::ConnectionLost(error) => StreamError::Transport(error.into()),
                    _ => StreamError::CutOff,
                })
            }
            Outgoing::Local(stream) => {
                (&**stream).write_all(&frame).await.map_err(|_| StreamError::CutOff)
            }
        }
    }

    /// Sends a frame that has to be taken in the time that a slow line needs for it and for what may be on its
    /// way before it, or the stream is cut off.
    ///
    /// # Errors
    /// Like [`send`](Self::send), and [`StreamError::TooSlow`].
    pub(crate) async fn send_in_time<F: Frame>(&mut self, frame: F) -> Result<(), StreamError> {
        let parts = frame.encode_parts();
        // What it has is in the parts, and need not be there twice.
        drop(frame);
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        let patience = chunk_timeout(bytes as u64 + u64::from(STREAM_WINDOW_BYTES));
        let sending = async {
            for part in parts {
                self.send_encoded(part).await?;
            }
            Ok(())
        };
        match timeout(patience, sending).await {
            Ok(sent) => sent,
            Err(_) => {
                if let Outgoing::Quic(stream) = &mut self.stream {
                    // One that has ended needs no cutting off.
                    let _ended = stream.reset(VarInt::from_u32(0));
                }
                Err(StreamError::TooSlow)
            }
        }
    }

    /// Ends the stream with a reason, and waits a while until the other side has it.
    pub async fn refuse(mut self, refusal: Refusal) {
        if self.send(&refusal.frame()).await.is_ok() {
            // Who does not take the reason is not waited for.
            let _taken = timeout(OPEN_TIMEOUT, self.finish()).await;
        }
    }

    /// Ends the stream, and waits until the other side has everything or has left. A local socket
    /// ends when both directions are dropped; what was sent is the system's by now.
    pub async fn finish(self) {
        // A stream that was stopped is at its end already.
        if let Outgoing::Quic(mut stream) = self.stream
            && stream.finish().is_ok()
        {
            let _acknowledged = stream.stopped().await;
        }
    }
}

/// How fast somebody may send. Who sends faster is read later, so that its own connection holds it up.
pub trait Pace: Send + Sync + fmt::Debug {
    /// Notes what has come in; says how long nothing further is to be read then.
    fn note(&self, frames: usize, bytes: usize) -> Duration;
}

/// The half of a stream that receives.
#[derive(Debug)]
pub struct FrameReceiver {
    stream: Incoming,
    buffer: FrameBuffer,
    pace: Option<Arc<dyn Pace>>,
    /// Until when nothing further is read.
    pause: Option<Instant>,
    /// How many bytes the last frame had.
    frame_len: usize,
    bound: FrameBound,
    input: Option<InputRoom>,
    /// What a large frame takes that has begun, and until when it has to be there.
    begun: Option<(FrameRoom, Instant)>,
    /// What the last frame takes, until the next one is asked for.
    taken: Option<FrameRoom>,
}

#[derive(Debug)]
enum Incoming {
    Quic(RecvStream),
    Local(Arc<local::Stream>, BytesMut),
}

impl Incoming {
    /// The next bytes, from QUIC at most `max`; `None` at the end. May be dropped while it waits; nothing is
    /// lost.
    async fn next(&mut self, max: usize) -> Result<Option<Bytes>, StreamError> {
        match self {
            Self::Quic(stream) => match stream.read_chunk(max, true).await {
                Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
                Err(ReadError::ConnectionLost(error)) => Err(StreamError::Transport(error.into())),
                Err(_) => Err(StreamError::CutOff),
            },
            Self::Local(stream, bytes) => {
                bytes.reserve(LOCAL_READ_BYTES);
                let count = (&**stream).read_buf(bytes).await.map_err(|_| StreamError::CutOff)?;
                Ok((count > 0).then(|| bytes.split().freeze()))
            }
        }
    }
}

impl FrameReceiver {
    /// Receives from `stream` frames of at most `max` bytes.
    #[must_use]
    pub fn new(stream: RecvStream, max: usize) -> Self {
        Self::of(Incoming::Quic(stream), max)
    }

    /// Receives from a local socket frames of at most `max` bytes.
    pub(crate) fn local(stream: Arc<local::Stream>, max: usize) -> Self {
        Self::of(Incoming::Local(stream, BytesMut::new()), max)
    }

    fn of(stream: Incoming, max: usize) -> Self {
        Self {
            stream,
            buffer: FrameBuffer::new(max),
            pause: None,
            pace: None,
            frame_len: 0,
            bound: FrameBound(Arc::new(AtomicUsize::new(max))),
            input: None,
            begun: None,
            taken: None,
        }
    }

    /// Lets the other side send only so fast.
    pub fn set_pace(&mut self, pace: Arc<dyn Pace>) {
        self.pace = Some(pace);
    }

    /// Changes the bound for the frames to come.
    pub fn set_max(&mut self, max: usize) {
        self.bound.set(max);
    }

    /// The bound for the frames to come, to be changed by somebody else.
    #[must_use]
    pub fn bound(&self) -> FrameBound {
        self.bound.clone()
    }

    /// Lets what comes take no more memory than there is room for. Large frames have to come in a time that
    /// a slow line needs, then.
    pub fn set_room(&mut self, room: InputRoom) {
        self.input = Some(room);
    }

    /// Waits for the room that the last frame takes, which the caller holds from now on.
    pub(super) async fn hold(&mut self) -> Option<FrameRoom> {
        let held = self.input.as_ref()?.hold(self.frame_len).await;
        self.taken = None;
        Some(held)
    }

    /// The next frame; `None` when the other side has ended the stream in good order.
    ///
    /// May be dropped while it waits; nothing that arrived is lost.
    ///
    /// # Errors
    /// If what arrives is no frame, has no room, comes too slowly, or the stream was cut off.
    pub async fn next<F: Frame>(&mut self) -> Result<Option<F>, StreamError> {
        self.taken = None;
        loop {
            self.buffer.set_max(self.bound.0.load(Ordering::Relaxed));
            if let Some(until) = self.pause {
                sleep_until(until).await;
                self.pause = None;
            }
            let len = self.buffer.len();
            if let Some(frame) = self.buffer.next_frame()? {
                self.frame_len = len - self.buffer.len();
                self.taken = self.begun.take().map(|(room, _)| room);
                self.note(1, 0);
                return Ok(Some(frame));
            }
            let max = self.make_room()?;
            let next = self.stream.next(max);
            let next = match &self.begun {
                Some((_, due)) => timeout_at(*due, next).await.map_err(|_| StreamError::TooSlow)?,
                None => next.await,
            };
            match next? {
                Some(bytes) => {
                    self.note(0, bytes.len());
                    self.buffer.extend(&bytes);
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(StreamError::CutOff),
            }
        }
    }

    /// Takes room for the frame that has begun, if it needs some; says how much may be read now.
    fn make_room(&mut self) -> Result<usize, StreamError> {
        let Some(input) = &self.input else { return Ok(READ_BYTES_MAX) };
        let large = self.buffer.begun().filter(|size| *size > input.free());
        if let Some(size) = large.filter(|_| self.begun.is_none()) {
            let room = input.begin(size).ok_or(StreamError::NoRoom)?;
            self.begun = Some((room, Instant::now() + chunk_timeout(size as u64)));
            self.buffer.reserve();
        }
        // No more than the rest of a large frame, so that it takes what it has room for and no more.
        let most = large.map_or(input.free(), |size| {
            (size + FRAME_LENGTH_BYTES).saturating_sub(self.buffer.len())
        });
        Ok(most.clamp(1, READ_BYTES_MAX))
    }

    /// How many bytes the last frame had.
    pub(super) const fn frame_len(&self) -> usize {
        self.frame_len
    }

    fn note(&mut self, frames: usize, bytes: usize) {
        let wait = self.pace.as_ref().map(|pace| pace.note(frames, bytes));
        self.pause = wait.filter(|wait| !wait.is_zero()).map(|wait| Instant::now() + wait);
    }

    /// Tells the other side that nothing further is read.
    pub fn stop(self) {
        if let Incoming::Quic(mut stream) = self.stream {
            // A stream that has ended needs no stopping.
            let _ended = stream.stop(VarInt::from_u32(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use interprocess::local_socket::traits::tokio::Listener as _;
    use tempfile::TempDir;

    use super::*;
    use crate::limits::FRAME_BYTES_MAX;
    use crate::local_socket::LocalAddress;
    use crate::message::{ClientFrame, RelayFrame};
    use crate::transport::{FramePipe, Interest, Ready, RoomBytes, SharedRoom};

    fn room(arrived: u32) -> SharedRoom {
        SharedRoom::new(RoomBytes { begun: 1 << 20, arrived, leaving: 0 })
    }

    async fn pair(folder: &TempDir) -> (FrameSender, FrameReceiver) {
        let file = folder.path().join("file");
        std::fs::write(&file, []).unwrap();
        let address = LocalAddress::of(&file);
        let (listener, _made) = address.listen().unwrap();
        let (one, other) = tokio::join!(address.connect_async(), listener.accept());
        let sender = FrameSender::local(Arc::new(one.unwrap()));
        (sender, FrameReceiver::local(Arc::new(other.unwrap()), FRAME_BYTES_MAX))
    }

    fn begun(size: usize) -> Bytes {
        let head = u32::try_from(size).unwrap().to_le_bytes();
        Bytes::from([&head[..], &[3; 100]].concat())
    }

    /// Goal: whoever takes nothing of what it is sent is told apart from who has left. Method: frames go out
    /// until the pipe says why no more do, on a clock that goes on whenever nothing else does.
    #[tokio::test(start_paused = true)]
    async fn who_takes_too_long_is_cut_off_for_that() {
        let (folder, silent) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (_silent, receiver) = pair(&silent).await;
        let (sender, unread) = pair(&folder).await;
        let mut pipe = FramePipe::<RelayFrame, ClientFrame>::timed(sender, receiver);
        assert!(matches!(fill(&mut pipe).await, StreamError::TooSlow));
        pipe.finish([RelayFrame::Changes { patch: Bytes::new() }]).await;
        drop(unread);
        let (_silent, receiver) = pair(&silent).await;
        let (sender, unread) = pair(&folder).await;
        drop(unread);
        let mut pipe = FramePipe::timed(sender, receiver);
        assert!(!matches!(fill(&mut pipe).await, StreamError::TooSlow));
    }

    async fn fill(pipe: &mut FramePipe<RelayFrame, ClientFrame>) -> StreamError {
        loop {
            match pipe.ready(Interest { in_room: true, in_frames: false }).await {
                Ready::Room => pipe.send(RelayFrame::Changes { patch: vec![3; 1 << 19].into() }),
                Ready::Gone(why) => return why,
                Ready::Received(received) => panic!("{received:?}"),
            }
        }
    }

    /// Goal: nobody keeps the room of a large frame for ever. Method: a frame that begins, on a clock that
    /// goes on whenever nothing else does.
    #[tokio::test(start_paused = true)]
    async fn a_large_frame_has_as_long_as_a_slow_line_needs() {
        let folder = TempDir::new().unwrap();
        let (mut sender, mut receiver) = pair(&folder).await;
        let shared = Arc::new(room(1 << 20));
        receiver.set_room(InputRoom::new(1_000, vec![Arc::clone(&shared)]));
        let size = 1 << 19;
        sender.send_encoded(begun(size)).await.unwrap();
        let since = Instant::now();
        let received = receiver.next::<ClientFrame>().await;
        assert!(matches!(received, Err(StreamError::TooSlow)), "{received:?}");
        assert!(since.elapsed() >= chunk_timeout(size as u64), "not before");
        drop(receiver);
        let whole = InputRoom::new(0, vec![shared]);
        assert!(whole.begin(1 << 20).is_some(), "its room is free again");
        assert!(whole.begin((1 << 20) + 1).is_none());
    }

    #[tokio::test]
    async fn a_frame_of_which_the_room_is_taken_is_refused_and_one_that_has_come_waits() {
        let folder = TempDir::new().unwrap();
        let (mut sender, mut receiver) = pair(&folder).await;
        let shared = Arc::new(room(1_000));
        let room = InputRoom::new(1_000, vec![Arc::clone(&shared)]);
        receiver.set_room(room.clone());
        let large = ClientFrame::Changes { patch: vec![7; 100_000].into() };
        let (sent, received) = tokio::join!(sender.send(&large), receiver.next());
        sent.unwrap();
        assert_eq!(received.unwrap(), Some(large), "there is room");
        let mut held = receiver.hold().await.unwrap();
        let wait = Duration::from_millis(50);
        assert!(timeout(wait, room.hold(1)).await.is_err(), "the largest takes all of it");
        held.merge(FrameRoom::default());
        drop(held);
        timeout(Duration::from_secs(20), room.hold(1)).await.unwrap();
        let taken = room.begin(1 << 20).unwrap();
        sender.send_encoded(begun(1_001)).await.unwrap();
        let refused = receiver.next::<ClientFrame>().await;
        assert!(matches!(refused, Err(StreamError::NoRoom)), "{refused:?}");
        drop(taken);
    }
}
