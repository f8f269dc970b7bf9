//! The frames that a client and a relay exchange, and their bytes.
//!
//! A frame is a length (u32, little-endian), then that many bytes of postcard: the number of the
//! kind, then its fields. `docs/protocol.md` describes each kind; tests here pin their bytes.
//! Kinds are only ever added at the end. Reading is total: any bytes give a frame or a
//! [`FrameError`], and a buffer only grows by bytes that have arrived.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits::{
    FIRST_FRAME_BYTES_MAX, FRAME_BYTES_MAX, FRAME_LENGTH_BYTES, REFUSAL_MESSAGE_BYTES_MAX,
};

/// What a client says. The first frame of a stream decides what the stream is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientFrame {
    /// First frame: the stream is for one store, as long as it lives.
    Open {
        /// The version of the protocol that the client speaks.
        protocol: u16,
        /// The store's id.
        store: String,
        /// Proof that the client may open the store.
        token: Token,
        /// What the client has, an encoded `Version`.
        version: Bytes,
    },
    /// Changes that the relay lacks.
    Changes {
        /// An encoded patch.
        patch: Bytes,
    },
    /// The client is about to leave.
    Bye,
    /// First frame: the stream brings a blob of a store that is open on this connection.
    PutBlob {
        /// The store's id.
        store: String,
        /// SHA-256 of the bytes.
        hash: [u8; 32],
        /// How many bytes will come.
        size: u64,
    },
    /// First frame: the stream fetches a blob of a store that is open on this connection.
    GetBlob {
        /// The store's id.
        store: String,
        /// SHA-256 of the bytes.
        hash: [u8; 32],
    },
    /// The next bytes of the blob.
    BlobChunk {
        /// At most `BLOB_CHUNK_BYTES_MAX` of them.
        bytes: Bytes,
    },
    /// First frame, since version 2: as Open, by a client whose file keeps seats.
    OpenSeated {
        /// The version of the protocol that the client speaks.
        protocol: u16,
        /// The store's id.
        store: String,
        /// Proof that the client may open the store.
        token: Token,
        /// What the client has, an encoded `Version`.
        version: Bytes,
        /// The replica ids of which the client wants to know what the relay has, at most
        /// `OPEN_SEATS_MAX`.
        seats: Vec<u64>,
    },
    /// First frame, since version 3: as PutBlob, but the relay says from where on it lacks the bytes.
    OfferBlob {
        /// The store's id.
        store: String,
        /// SHA-256 of the bytes.
        hash: [u8; 32],
        /// How many bytes there are in all.
        size: u64,
    },
    /// First frame, since version 3: as GetBlob, without the bytes before `offset`.
    GetBlobFrom {
        /// The store's id.
        store: String,
        /// SHA-256 of the bytes.
        hash: [u8; 32],
        /// How many bytes the client has.
        offset: u64,
    },
    /// Since version 3: what the client shows of itself to others.
    Presence {
        /// Counts the states; an older one is passed over.
        clock: u64,
        /// An encoded `PresenceState`; empty if nothing is shown any more.
        state: Bytes,
    },
    /// Since version 4: a newer token for the store.
    Refresh {
        /// Proof that the client may have the store open, of the same subject.
        token: Token,
    },
    /// Since version 4: a message to others who have the store open.
    Signal {
        /// To whom: a `PeerId`, or 0 to all others.
        to: u64,
        /// At most `SIGNAL_BYTES_MAX`, which mean nothing to the relay.
        message: Bytes,
    },
}

/// How far a relay knows a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatTip {
    /// The replica id.
    pub replica: u64,
    /// The counter after its last change.
    pub next: u64,
    /// The hash over all its changes, a [`Chain`](crate::Chain)'s.
    pub chain: [u8; 32],
}

/// What a relay says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelayFrame {
    /// The store is open.
    Opened {
        /// What the relay has, an encoded `Version`.
        version: Bytes,
        /// Whether the client may send changes and blobs.
        writable: bool,
    },
    /// Changes that the client lacks.
    Changes {
        /// An encoded patch.
        patch: Bytes,
    },
    /// Changes that this client sent are on the relay's disk.
    Stored {
        /// An encoded `Version` of the replicas concerned; others are as before.
        version: Bytes,
    },
    /// The stream ends here, and why.
    Refused {
        /// The number of a [`RefusalCode`].
        code: u16,
        /// The reason for a person to read.
        message: String,
    },
    /// The relay lacks the blob: send it.
    BlobWanted,
    /// The relay has the blob, on disk.
    BlobStored,
    /// The blob follows.
    BlobFound {
        /// How many bytes will come.
        size: u64,
    },
    /// The relay lacks the blob, now.
    BlobMissing,
    /// The next bytes of the blob.
    BlobChunk {
        /// At most `BLOB_CHUNK_BYTES_MAX` of them.
        bytes: Bytes,
    },
    /// The store is open: the answer to OpenSeated.
    OpenedSeated {
        /// What the relay has, an encoded `Version`.
        version: Bytes,
        /// Whether the client may send changes and blobs.
        writable: bool,
        /// Those of the seats asked about that the relay knows.
        seats: Vec<SeatTip>,
    },
    /// The relay lacks the rest of the blob: send it. The answer to OfferBlob.
    BlobWantedFrom {
        /// How many bytes it has.
        offset: u64,
    },
    /// Since version 3: what somebody else shows.
    Presence {
        /// Who, for as long as they are connected.
        peer: u64,
        /// The subject of their token.
        subject: String,
        /// Counts the states of the peer; an older one is passed over.
        clock: u64,
        /// An encoded `PresenceState`.
        state: Bytes,
    },
    /// Since version 3: somebody else has left, or shows nothing any more.
    PeerLeft {
        /// Who.
        peer: u64,
        /// After all states that they have shown so far.
        clock: u64,
    },
    /// Since version 3, to a guest that has nothing yet: a part of a snapshot of the store.
    Snapshot {
        /// The next bytes of it.
        bytes: Bytes,
        /// With the last part what the snapshot has, an encoded `Version`; empty before.
        version: Bytes,
    },
    /// Since version 4, after OpenedSeated and after each Refresh: what the token allows.
    Access {
        /// How others see the client; 0 where there is no presence.
        peer: u64,
        /// Whether the client may send changes and blobs.
        writable: bool,
        /// When the token expires, in milliseconds from now.
        expires_in: u64,
    },
    /// Since version 4: a message from somebody else who has the store open.
    Signal {
        /// From whom: a `PeerId`.
        from: u64,
        /// The subject of their token.
        subject: String,
        /// Which mean nothing to the relay.
        message: Bytes,
    },
    /// Since version 4: the client may not bring changes of a replica, which belongs to another subject.
    NotYours {
        /// The replica id.
        replica: u64,
        /// The counter after the last change that the relay has of it; none beyond was taken.
        next: u64,
    },
    /// Since version 4, before Refused: when to come back.
    ComeBack {
        /// In milliseconds from now.
        after: u64,
    },
}

/// A token on its way to a relay. It shows nowhere but in the frame that carries it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// The token itself, for the one who has to check or to print it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Token {
    fn from(token: String) -> Self {
        Self(token)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Why a relay ends a stream. The numbers are part of the protocol and never change.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// The token is missing, damaged, expired or signed by somebody else.
    Unauthorized,
    /// The token is for another store.
    Forbidden,
    /// The token does not allow changes.
    ReadOnly,
    /// The frame, or what it carries, is not well formed.
    Malformed,
    /// Another change with the same id is known: the author's file was copied.
    Forked,
    /// The protocol or the format is newer than the relay.
    TooNew,
    /// Something that the change builds on was not sent.
    MissingDependency,
    /// Larger than the relay takes.
    TooLarge,
    /// The relay has no room for the client now.
    Busy,
    /// The relay is about to stop; try again soon.
    ShuttingDown,
    /// The frame is not allowed at this point of the stream.
    Unexpected,
    /// The bytes of a blob are not those of its name.
    WrongHash,
    /// The relay cannot store or read; its operator has to act.
    StorageFailed,
    /// A reason that this program is too old to know.
    Unrecognized(u16),
}

impl RefusalCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Unauthorized => 1,
            Self::Forbidden => 2,
            Self::ReadOnly => 3,
            Self::Malformed => 4,
            Self::Forked => 5,
            Self::TooNew => 6,
            Self::MissingDependency => 7,
            Self::TooLarge => 8,
            Self::Busy => 9,
            Self::ShuttingDown => 10,
            Self::Unexpected => 11,
            Self::WrongHash => 12,
            Self::StorageFailed => 13,
            Self::Unrecognized(number) => number,
        }
    }

    /// The reason with this number.
    #[must_use]
    pub const fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Unauthorized,
            2 => Self::Forbidden,
            3 => Self::ReadOnly,
            4 => Self::Malformed,
            5 => Self::Forked,
            6 => Self::TooNew,
            7 => Self::MissingDependency,
            8 => Self::TooLarge,
            9 => Self::Busy,
            10 => Self::ShuttingDown,
            11 => Self::Unexpected,
            12 => Self::WrongHash,
            13 => Self::StorageFailed,
            other => Self::Unrecognized(other),
        }
    }

    /// The stable name of the reason.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::ReadOnly => "read-only",
            Self::Malformed => "malformed",
            Self::Forked => "forked",
            Self::TooNew => "too-new",
            Self::MissingDependency => "missing-dependency",
            Self::TooLarge => "too-large",
            Self::Busy => "busy",
            Self::ShuttingDown => "shutting-down",
            Self::Unexpected => "unexpected",
            Self::WrongHash => "wrong-hash",
            Self::StorageFailed => "relay-storage-failed",
            Self::Unrecognized(_) => "refused",
        }
    }

    /// Whether the same attempt would be refused again, so that only a person can help.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Unauthorized | Self::Forbidden | Self::Forked | Self::TooNew)
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Why bytes are not a frame. Their sender is at fault.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is larger than this stream allows.
    #[error("a frame of {size} bytes, where {max} are allowed")]
    TooLarge {
        /// What the length says.
        size: usize,
        /// The bound, in bytes.
        max: usize,
    },
    /// A frame without a kind.
    #[error("an empty frame")]
    Empty,
    /// A kind that this program does not know.
    #[error("a frame of the unknown kind {kind}")]
    UnknownKind {
        /// Its number.
        kind: u8,
    },
    /// The fields are not those of the kind.
    #[error("the fields of a frame of kind {kind} are malformed")]
    Malformed {
        /// The number of the kind.
        kind: u8,
    },
}

/// A frame in one direction: what to write its bytes, and to read them back.
pub trait Frame: Serialize + DeserializeOwned {
    /// How many kinds there are; the greatest number is one less.
    const KINDS: u8;

    /// The frame with its length in front, ready to be sent.
    #[must_use]
    fn encode(&self) -> Bytes {
        // Serializing into a vector fails for no type of this module: all their lengths are known.
        let head = vec![0; FRAME_LENGTH_BYTES];
        let mut bytes = postcard::to_extend(self, head).unwrap_or_default();
        let size = bytes.len().saturating_sub(FRAME_LENGTH_BYTES);
        debug_assert!(0 < size && size <= FRAME_BYTES_MAX);
        if let (Some(head), Ok(size)) = (bytes.first_chunk_mut(), u32::try_from(size)) {
            *head = size.to_le_bytes();
        }
        bytes.into()
    }

    /// The same in parts that follow each other. What is large and may be that of many frames is
    /// not copied.
    #[must_use]
    fn encode_parts(&self) -> Vec<Bytes> {
        vec![self.encode()]
    }

    /// Reads a frame without its length.
    ///
    /// # Errors
    /// If the bytes are anything but one frame of a known kind.
    fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let kind = *bytes.first().ok_or(FrameError::Empty)?;
        if kind >= Self::KINDS {
            return Err(FrameError::UnknownKind { kind });
        }
        match postcard::take_from_bytes(bytes) {
            Ok((frame, [])) => Ok(frame),
            _ => Err(FrameError::Malformed { kind }),
        }
    }
}

impl Frame for ClientFrame {
    const KINDS: u8 = 12;
}

impl Frame for RelayFrame {
    const KINDS: u8 = 18;

    fn encode_parts(&self) -> Vec<Bytes> {
        let empty = Bytes::new();
        let (version, without) = match self {
            Self::Opened { version, writable } => {
                (version, Self::Opened { version: empty, writable: *writable })
            }
            Self::OpenedSeated { version, writable, seats } => {
                let (writable, seats) = (*writable, seats.clone());
                (version, Self::OpenedSeated { version: empty, writable, seats })
            }
            _ => return vec![self.encode()],
        };
        if version.len() <= FIRST_FRAME_BYTES_MAX {
            return vec![self.encode()];
        }
        let mut rest = without.encode();
        // Its length, its kind, and that its version has no bytes.
        let mut head = rest.split_to(rest.len().min(FRAME_LENGTH_BYTES + 2)).to_vec();
        head.truncate(FRAME_LENGTH_BYTES + 1);
        let mut head = postcard::to_extend(&version.len(), head).unwrap_or_default();
        let size = head.len().saturating_sub(FRAME_LENGTH_BYTES) + version.len() + rest.len();
        debug_assert!(size <= FRAME_BYTES_MAX);
        if let (Some(length), Ok(size)) = (head.first_chunk_mut(), u32::try_from(size)) {
            *length = size.to_le_bytes();
        }
        vec![head.into(), version.clone(), rest]
    }
}

impl RelayFrame {
    /// The frame that ends a stream, its message cut to the bound.
    #[must_use]
    pub fn refused(code: RefusalCode, message: &str) -> Self {
        let end = message.floor_char_boundary(REFUSAL_MESSAGE_BYTES_MAX);
        let message = message.get(..end).unwrap_or_default().to_owned();
        Self::Refused { code: code.number(), message }
    }
}

/// A frame that travels outside its stream, as a datagram: the number of the stream, a varint, and the
/// frame without its length.
#[must_use]
pub fn encode_datagram<F: Frame>(stream: u64, frame: &F) -> Bytes {
    // Serializing into a vector fails for no type of this module.
    postcard::to_allocvec(&(stream, frame)).unwrap_or_default().into()
}

/// Reads what [`encode_datagram`] wrote: the number of the stream, and the frame.
///
/// # Errors
/// If the bytes are anything else.
pub fn decode_datagram<F: Frame>(bytes: &[u8]) -> Result<(u64, F), FrameError> {
    let (stream, rest) = postcard::take_from_bytes(bytes).map_err(|_| FrameError::Empty)?;
    Ok((stream, F::decode(rest)?))
}

/// Cuts a stream of bytes into frames.
///
/// Invariant: what is buffered are bytes that arrived; a length that somebody claims reserves none, unless
/// whoever reads has room for it ([`reserve`](Self::reserve)).
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: BytesMut,
    max: usize,
}

impl FrameBuffer {
    /// An empty buffer that refuses frames greater than `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { bytes: BytesMut::new(), max }
    }

    /// Changes the bound for the frames to come.
    pub const fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Adds bytes that arrived. Callers take out all whole frames before they add more.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the next frame out, once all its bytes have arrived.
    ///
    /// # Errors
    /// If the frame is too large, as soon as its length is known, or is not a frame.
    pub fn next_frame<F: Frame>(&mut self) -> Result<Option<F>, FrameError> {
        let Some(head) = self.bytes.first_chunk::<FRAME_LENGTH_BYTES>() else {
            return Ok(None);
        };
        let size = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        if size > self.max {
            return Err(FrameError::TooLarge { size, max: self.max });
        }
        if self.bytes.len() - FRAME_LENGTH_BYTES < size {
            return Ok(None);
        }
        self.bytes.advance(FRAME_LENGTH_BYTES);
        let frame = F::decode(&self.bytes.split_to(size)).map(Some);
        if size > FIRST_FRAME_BYTES_MAX {
            // What is left behind would keep the memory of the large frame.
            self.bytes = BytesMut::from(self.bytes.as_ref());
        }
        frame
    }

    /// Takes exactly the memory that the frame needs that has begun, for whoever has room for it.
    pub fn reserve(&mut self) {
        let whole = self.begun().map_or(0, |size| size.min(self.max) + FRAME_LENGTH_BYTES);
        if whole > self.bytes.capacity() {
            let mut bytes = BytesMut::with_capacity(whole);
            bytes.extend_from_slice(&self.bytes);
            self.bytes = bytes;
        }
    }

    /// How many bytes the frame has that has begun, once that is known.
    #[must_use]
    pub fn begun(&self) -> Option<usize> {
        let head = self.bytes.first_chunk::<FRAME_LENGTH_BYTES>()?;
        Some(usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX))
    }

    /// How many bytes wait for the rest of a frame.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no part of a frame waits for the rest.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests;
