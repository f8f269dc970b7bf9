//! A snapshot: the state, and behind it the log, which is not unpacked before somebody asks for it.
#![deny(clippy::indexing_slicing)]

use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use super::{Reader, Writer};
use crate::error::DecodeError;
use crate::limits::SNAPSHOT_BYTES_MAX;

/// How many bytes of blake3 tell whether the log is the one that belongs to a state.
const HASH_BYTES: usize = 16;

/// What stands in a snapshot beside the state: where each author's log begins, in order of author, and
/// a hash of the packed log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogHead {
    pub(crate) floors: Vec<u64>,
    hash: [u8; HASH_BYTES],
}

impl LogHead {
    /// The head for a packed log.
    pub(crate) fn of(floors: Vec<u64>, packed: &[u8]) -> Self {
        Self { floors, hash: hash(packed) }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(&self.hash);
        self.floors.iter().for_each(|floor| writer.varint(*floor));
        writer.into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let hash = reader.array()?;
        let mut floors = Vec::new();
        while !reader.is_empty() {
            floors.push(reader.varint()?);
        }
        Ok(Self { floors, hash })
    }

    /// Whether a packed log is the one.
    pub(crate) fn fits(&self, packed: &[u8]) -> bool {
        self.hash == hash(packed)
    }
}

fn hash(packed: &[u8]) -> [u8; HASH_BYTES] {
    let mut hash = [0; HASH_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(packed).finalize_xof().fill(&mut hash);
    hash
}

/// Compresses a part of a snapshot.
pub(crate) fn pack(patch: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail; if it did, the snapshot would be short and its checksum wrong.
    let written = encoder.write_all(patch).and_then(|()| encoder.finish());
    written.unwrap_or_default()
}

/// The first part of a snapshot, and what is behind it. A part that unfolds past the format's bound is
/// an error, found before that much memory is taken.
pub(crate) fn unpack_first(bytes: &[u8]) -> Result<(Vec<u8>, &[u8]), DecodeError> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Err(DecodeError::WrongMagic { expected: "a snapshot" });
    }
    let mut patch = Vec::new();
    let mut decoder = GzDecoder::new(bytes).take(SNAPSHOT_BYTES_MAX + 1);
    decoder.read_to_end(&mut patch).map_err(|_| DecodeError::WrongChecksum)?;
    if patch.len() as u64 > SNAPSHOT_BYTES_MAX {
        return Err(DecodeError::TooLarge { what: "the snapshot", max: SNAPSHOT_BYTES_MAX });
    }
    Ok((patch, decoder.into_inner().into_inner()))
}

/// A part that is the last one.
pub(crate) fn unpack(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    match unpack_first(bytes)? {
        (patch, []) => Ok(patch),
        (_, rest) => {
            let at = bytes.len() - rest.len();
            Err(DecodeError::Malformed { at, what: "bytes after the end" })
        }
    }
}
