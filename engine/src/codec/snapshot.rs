//! A snapshot: everything a replica has, compressed.
#![deny(clippy::indexing_slicing)]

use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use crate::error::DecodeError;
use crate::limits::SNAPSHOT_BYTES_MAX;

/// Compresses a patch with everything.
pub(crate) fn pack_snapshot(patch: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail; if it did, the snapshot would be short and its checksum wrong.
    let written = encoder.write_all(patch).and_then(|()| encoder.finish());
    written.unwrap_or_default()
}

/// The patch inside a snapshot. A snapshot that unfolds past the format's bound is an error, found
/// before that much memory is taken.
pub(crate) fn unpack_snapshot(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Err(DecodeError::WrongMagic { expected: "a snapshot" });
    }
    let mut patch = Vec::new();
    let mut decoder = GzDecoder::new(bytes).take(SNAPSHOT_BYTES_MAX + 1);
    decoder.read_to_end(&mut patch).map_err(|_| DecodeError::WrongChecksum)?;
    if patch.len() as u64 > SNAPSHOT_BYTES_MAX {
        return Err(DecodeError::TooLarge { what: "the snapshot", max: SNAPSHOT_BYTES_MAX });
    }
    let rest = decoder.into_inner().into_inner();
    if !rest.is_empty() {
        let at = bytes.len() - rest.len();
        return Err(DecodeError::Malformed { at, what: "bytes after the end" });
    }
    Ok(patch)
}
