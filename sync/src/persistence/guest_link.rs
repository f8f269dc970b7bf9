//! The way to the process that owns a store's file: the guest's session over the local socket, blocking
//! like any other access to a file.

use std::io::{self, Read, Write};
use std::sync::Arc;

use interprocess::local_socket::Stream;
use interprocess::local_socket::traits::Stream as _;
use sds_engine::Version;

use crate::guest_session::{GuestFailure, GuestSession, Wish};
use crate::limits::{FRAME_BYTES_MAX, OWNER_TIMEOUT};
use crate::local_socket::LocalAddress;
use crate::message::{ClientFrame, Frame, FrameBuffer, FrameError, RefusalCode, RelayFrame};
use crate::store_id::StoreId;

/// Why the owner did not do what it was asked to.
#[derive(Debug)]
pub(super) enum LinkError {
    /// Nobody is there, or not any more, or too busy: it may be somebody else's turn.
    Gone,
    /// The owner refuses, or does not speak as it should.
    Refused(RefusalCode),
}

impl From<io::Error> for LinkError {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<FrameError> for LinkError {
    fn from(_: FrameError) -> Self {
        Self::Refused(RefusalCode::Malformed)
    }
}

impl From<RefusalCode> for LinkError {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::Busy | RefusalCode::ShuttingDown => Self::Gone,
            code => Self::Refused(code),
        }
    }
}

impl From<GuestFailure> for LinkError {
    fn from(failure: GuestFailure) -> Self {
        match failure {
            GuestFailure::Refused(code) => code.into(),
            GuestFailure::Misbehaved(_) => Self::Refused(RefusalCode::Unexpected),
        }
    }
}

/// A store that is open at its owner.
#[derive(Debug)]
pub(super) struct GuestLink {
    line: Line,
    pub(super) session: GuestSession,
}

impl GuestLink {
    /// Opens the store.
    pub(super) fn open(
        address: &LocalAddress,
        store: &StoreId,
        known: &Version,
        wish: Wish,
    ) -> Result<Self, LinkError> {
        let line = Line::to(address, FRAME_BYTES_MAX)?;
        let session = GuestSession::new(store, known, wish);
        let mut link = Self { line, session };
        link.exchange(GuestSession::is_open)?;
        Ok(link)
    }

    /// Waits until all is here that the owner had when the store was opened.
    pub(super) fn load(&mut self) -> Result<(), LinkError> {
        self.exchange(GuestSession::is_loaded)
    }

    /// Sends changes; returns when the owner has them on disk.
    pub(super) fn store(&mut self, changes: &[Arc<[u8]>]) -> Result<(), LinkError> {
        self.session.send(changes);
        let stored = self.exchange(GuestSession::is_stored);
        // What others do meanwhile is for whoever opens the store next.
        drop(self.session.take_received());
        stored
    }

    /// Whether the owner is still there, as far as can be told without waiting.
    pub(super) fn is_there(&mut self) -> bool {
        let mut look = || {
            self.line.take_arrived()?;
            while let Some(frame) = self.line.buffer.next_frame()? {
                self.session.handle_frame(frame)?;
            }
            Ok::<_, LinkError>(())
        };
        let is_there = look().is_ok();
        drop(self.session.take_received());
        is_there
    }

    fn exchange(&mut self, is_done: impl Fn(&GuestSession) -> bool) -> Result<(), LinkError> {
        loop {
            while let Some(frame) = self.session.poll_transmit() {
                self.line.send(&frame)?;
            }
            if is_done(&self.session) {
                return Ok(());
            }
            self.session.handle_frame(self.line.receive()?)?;
        }
    }
}

impl Drop for GuestLink {
    fn drop(&mut self) {
        // The owner also notices by itself.
        let _gone = self.line.send(&ClientFrame::Bye);
    }
}

/// A connection to the owner.
#[derive(Debug)]
pub(super) struct Line {
    stream: Stream,
    buffer: FrameBuffer,
    piece: Vec<u8>,
}

/// How many bytes are read at a time.
const READ_BYTES: usize = 64 << 10;

impl Line {
    pub(super) fn to(address: &LocalAddress, frame_max: usize) -> Result<Self, LinkError> {
        let stream = address.connect()?;
        stream.set_recv_timeout(Some(OWNER_TIMEOUT))?;
        stream.set_send_timeout(Some(OWNER_TIMEOUT))?;
        Ok(Self { stream, buffer: FrameBuffer::new(frame_max), piece: vec![0; READ_BYTES] })
    }

    pub(super) fn send(&mut self, frame: &ClientFrame) -> io::Result<()> {
        self.stream.write_all(&frame.encode())
    }

    /// Takes in what has arrived; fails if the other end is gone.
    fn take_arrived(&mut self) -> Result<(), LinkError> {
        self.stream.set_nonblocking(true)?;
        let outcome = loop {
            match self.stream.read(&mut self.piece) {
                Ok(0) => break Err(LinkError::Gone),
                Ok(count) => self.buffer.extend(self.piece.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        self.stream.set_nonblocking(false)?;
        outcome
    }

    pub(super) fn receive(&mut self) -> Result<RelayFrame, LinkError> {
        loop {
            if let Some(frame) = self.buffer.next_frame()? {
                return Ok(frame);
            }
            match self.stream.read(&mut self.piece) {
                Ok(0) => return Err(LinkError::Gone),
                Ok(count) => self.buffer.extend(self.piece.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
