//! Snapshots taken apart and put together again, so that what is forged has checksums that fit.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use crate::fuzz::{CHECKSUM_BYTES, with_checksum};

/// How many bytes of a hash of the log stand before the state's log head.
const HASH_BYTES: usize = 16;
/// Bits of a section's head that say what it is, and those of a log head.
const KIND_BITS: u32 = 2;
const LOG: u64 = 3;

/// State and log of a snapshot, unpacked and without their checksums.
#[must_use]
pub fn take_apart(snapshot: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (state, rest) = unpack(snapshot);
    let (log, _) = unpack(rest);
    (state, log)
}

fn unpack(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut decoder = GzDecoder::new(bytes);
    let mut content = Vec::new();
    decoder.read_to_end(&mut content).expect("a snapshot's part");
    content.truncate(content.len() - CHECKSUM_BYTES);
    (content, decoder.into_inner())
}

/// The snapshot of a state and a log, with checksums.
#[must_use]
pub fn assemble(state: &[u8], log: &[u8]) -> Vec<u8> {
    let log = pack(log);
    let mut state = state.to_vec();
    if let Some(hash) = hash_of_log(&mut state) {
        hash.copy_from_slice(&blake3::hash(&log).as_bytes()[..HASH_BYTES]);
    }
    [pack(&state), log].concat()
}

fn pack(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&with_checksum(content)).expect("memory");
    encoder.finish().expect("memory")
}

/// Where a state's log head has the hash, if it has one.
fn hash_of_log(state: &mut [u8]) -> Option<&mut [u8]> {
    let mut at = 2;
    loop {
        let head = varint(state, &mut at)?;
        let len = usize::try_from(head >> KIND_BITS).ok()?;
        if head & ((1 << KIND_BITS) - 1) == LOG {
            return state.get_mut(at..at.checked_add(len)?)?.get_mut(..HASH_BYTES);
        }
        at = at.checked_add(len)?;
    }
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}
