//! A snapshot: the state, and behind it the log, which is not unpacked before somebody asks for it.
#![deny(clippy::indexing_slicing)]

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use super::patch::{Kind, pack_sections_apart};
use super::{InColumns, Reader, Writer};
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

/// A column of fewer bytes is compressed with what stands beside it.
const COLUMN_BYTES_MIN: usize = 512;

/// Compresses a part of a snapshot: what stands in columns, and the head of the log if it is the first.
pub(crate) fn pack(parts: &[(Kind, InColumns)], head: Option<&LogHead>) -> Vec<u8> {
    let head = head.map(LogHead::encode);
    let sections = parts.iter().map(|(kind, part)| (*kind, part.bytes.as_slice()));
    let (patch, ends) =
        pack_sections_apart(sections.chain(head.iter().map(|head| (Kind::Log, head.as_slice()))));
    let starts = ends.into_iter().zip(parts).flat_map(|(end, (_, part))| {
        part.starts.iter().map(move |start| end - part.bytes.len() + start)
    });
    // Writing to memory does not fail; if it did, the snapshot would be short and its checksum wrong.
    deflate(&patch, starts).unwrap_or_default()
}

/// Compresses bytes, those from each of some places on with codes of their own: the bytes of a column
/// are like each other, and not like those of the next.
fn deflate(bytes: &[u8], starts: impl Iterator<Item = usize>) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut written = 0;
    for start in starts.chain([bytes.len()]) {
        let part = bytes.get(written..start).unwrap_or_default();
        if part.len() >= COLUMN_BYTES_MIN {
            encoder.write_all(part)?;
            encoder.flush()?;
            written = start;
        }
    }
    encoder.write_all(bytes.get(written..).unwrap_or_default())?;
    encoder.finish()
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
