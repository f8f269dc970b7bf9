//! Frames in either direction: on a QUIC stream, or on a local socket.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use interprocess::local_socket::tokio as local;
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::TransportError;
use crate::limits::{OPEN_TIMEOUT, READ_BYTES_MAX};
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
}

#[derive(Debug)]
enum Incoming {
    Quic(RecvStream),
    Local(Arc<local::Stream>, BytesMut),
}

impl Incoming {
    /// The next bytes; `None` at the end. May be dropped while it waits; nothing is lost.
    async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        match self {
            Self::Quic(stream) => match stream.read_chunk(READ_BYTES_MAX, true).await {
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
        Self { stream, buffer: FrameBuffer::new(max), pause: None, pace: None, frame_len: 0 }
    }

    /// Lets the other side send only so fast.
    pub fn set_pace(&mut self, pace: Arc<dyn Pace>) {
        self.pace = Some(pace);
    }

    /// Changes the bound for the frames to come.
    pub const fn set_max(&mut self, max: usize) {
        self.buffer.set_max(max);
    }

    /// The next frame; `None` when the other side has ended the stream in good order.
    ///
    /// May be dropped while it waits; nothing that arrived is lost.
    ///
    /// # Errors
    /// If what arrives is no frame, or the stream was cut off.
    pub async fn next<F: Frame>(&mut self) -> Result<Option<F>, StreamError> {
        loop {
            if let Some(until) = self.pause {
                sleep_until(until).await;
                self.pause = None;
            }
            let len = self.buffer.len();
            if let Some(frame) = self.buffer.next_frame()? {
                self.frame_len = len - self.buffer.len();
                self.note(1, 0);
                return Ok(Some(frame));
            }
            match self.stream.next().await? {
                Some(bytes) => {
                    self.note(0, bytes.len());
                    self.buffer.extend(&bytes);
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(StreamError::CutOff),
            }
        }
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
