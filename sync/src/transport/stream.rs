//! Frames on a QUIC stream, in either direction.

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};

use super::TransportError;
use crate::limits::READ_BYTES_MAX;
use crate::message::{Frame, FrameBuffer, FrameError};

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
    stream: SendStream,
}

impl FrameSender {
    /// Sends on `stream`.
    #[must_use]
    pub const fn new(stream: SendStream) -> Self {
        Self { stream }
    }

    /// The number of the stream, on its connection and on both sides.
    #[must_use]
    pub fn id(&self) -> u64 {
        VarInt::from(self.stream.id()).into_inner()
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
        self.stream.write_chunk(frame).await.map_err(|error| match error {
            WriteError::ConnectionLost(error) => StreamError::Transport(error.into()),
            _ => StreamError::CutOff,
        })
    }

    /// Ends the stream, and waits until the other side has everything or has left.
    pub async fn finish(mut self) {
        // A stream that was stopped is at its end already.
        if self.stream.finish().is_ok() {
            let _acknowledged = self.stream.stopped().await;
        }
    }
}

/// The half of a stream that receives.
#[derive(Debug)]
pub struct FrameReceiver {
    stream: RecvStream,
    buffer: FrameBuffer,
}

impl FrameReceiver {
    /// Receives from `stream` frames of at most `max` bytes.
    #[must_use]
    pub fn new(stream: RecvStream, max: usize) -> Self {
        Self { stream, buffer: FrameBuffer::new(max) }
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
            if let Some(frame) = self.buffer.next_frame()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(READ_BYTES_MAX, true).await {
                Ok(Some(chunk)) => self.buffer.extend(&chunk.bytes),
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) | Err(ReadError::Reset(_)) => return Err(StreamError::CutOff),
                Err(ReadError::ConnectionLost(error)) => {
                    return Err(StreamError::Transport(error.into()));
                }
                Err(_) => return Err(StreamError::CutOff),
            }
        }
    }

    /// Tells the other side that nothing further is read.
    pub fn stop(mut self) {
        // A stream that has ended needs no stopping.
        let _ended = self.stream.stop(VarInt::from_u32(0));
    }
}
