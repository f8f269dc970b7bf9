//! The way to the process that owns a store's file: the guest's session over the local socket, blocking
//! like any other access to a file.

use std::io::{self, Read, Write};
use std::sync::Arc;

use interprocess::local_socket::Stream;
use interprocess::local_socket::traits::Stream as _;
use sds_engine::{BlobHash, Version};
use sha2::{Digest, Sha256};

use crate::guest_session::{GuestFailure, GuestSession, Wish};
use crate::limits::{
    BLOB_BYTES_MAX, BLOB_CHUNK_BYTES_MAX, BLOB_FRAME_BYTES_MAX, FRAME_BYTES_MAX, OWNER_TIMEOUT,
};
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
    address: LocalAddress,
    store: StoreId,
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
        let mut link = Self { address: address.clone(), store: store.clone(), line, session };
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

    /// Sends a blob; returns when the owner has it on disk.
    pub(super) fn put_blob(&self, hash: &BlobHash, bytes: &[u8]) -> Result<(), LinkError> {
        let mut line = Line::to(&self.address, BLOB_FRAME_BYTES_MAX)?;
        let (store, size) = (self.store.as_str().to_owned(), bytes.len() as u64);
        line.send(&ClientFrame::PutBlob { store, hash: hash.0, size })?;
        match line.receive()? {
            RelayFrame::BlobStored => return Ok(()),
            RelayFrame::BlobWanted => {}
            other => return Err(unexpected(&other)),
        }
        for chunk in bytes.chunks(BLOB_CHUNK_BYTES_MAX) {
            line.send(&ClientFrame::BlobChunk { bytes: chunk.to_vec().into() })?;
        }
        match line.receive()? {
            RelayFrame::BlobStored => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Fetches a blob, if the owner has it.
    pub(super) fn blob(&self, hash: &BlobHash) -> Result<Option<Arc<[u8]>>, LinkError> {
        let mut line = Line::to(&self.address, BLOB_FRAME_BYTES_MAX)?;
        let store = self.store.as_str().to_owned();
        line.send(&ClientFrame::GetBlob { store, hash: hash.0 })?;
        let size = match line.receive()? {
            RelayFrame::BlobMissing => return Ok(None),
            RelayFrame::BlobFound { size } if size <= BLOB_BYTES_MAX => size,
            other => return Err(unexpected(&other)),
        };
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            match line.receive()? {
                RelayFrame::BlobChunk { bytes: chunk } if !chunk.is_empty() => {
                    bytes.extend_from_slice(&chunk);
                }
                other => return Err(unexpected(&other)),
            }
        }
        if bytes.len() as u64 != size || Sha256::digest(&bytes).as_slice() != hash.0 {
            return Err(LinkError::Refused(RefusalCode::WrongHash));
        }
        Ok(Some(bytes.into()))
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

fn unexpected(frame: &RelayFrame) -> LinkError {
    match frame {
        RelayFrame::Refused { code, .. } => RefusalCode::from_number(*code).into(),
        _ => LinkError::Refused(RefusalCode::Unexpected),
    }
}

/// A connection to the owner.
#[derive(Debug)]
struct Line {
    stream: Stream,
    buffer: FrameBuffer,
    piece: Vec<u8>,
}

/// How many bytes are read at a time.
const READ_BYTES: usize = 64 << 10;

impl Line {
    fn to(address: &LocalAddress, frame_max: usize) -> Result<Self, LinkError> {
        let stream = address.connect()?;
        stream.set_recv_timeout(Some(OWNER_TIMEOUT))?;
        stream.set_send_timeout(Some(OWNER_TIMEOUT))?;
        Ok(Self { stream, buffer: FrameBuffer::new(frame_max), piece: vec![0; READ_BYTES] })
    }

    fn send(&mut self, frame: &ClientFrame) -> io::Result<()> {
        self.stream.write_all(&frame.encode())
    }

    fn receive(&mut self) -> Result<RelayFrame, LinkError> {
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
