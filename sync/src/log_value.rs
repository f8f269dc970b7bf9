//! A change as it is kept in a log: its bytes, and behind them a checksum.
//!
//! redb does not check the pages of a file that was closed well, and a change that has changed on
//! disk may still decode. Two contents under one op id would then part the replicas for ever, so
//! nothing leaves a log without this check.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use crate::database::Failure;

/// How many bytes of the blake3 of a change stand behind it.
pub const CHECKSUM_BYTES: usize = 8;

/// What is kept for `change`.
#[must_use]
pub fn seal(change: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(change.len() + CHECKSUM_BYTES);
    value.extend_from_slice(change);
    value.extend_from_slice(&checksum(change));
    value
}

/// The change of a value that is kept.
///
/// # Errors
/// [`Failure::Corrupt`] if these are not the bytes that were sealed.
pub fn unseal(value: &[u8]) -> Result<&[u8], Failure> {
    match value.split_last_chunk() {
        Some((change, sum)) if checksum(change) == *sum => Ok(change),
        _ => Err(Failure::Corrupt("a change in the log does not match its checksum")),
    }
}

fn checksum(change: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(change).finalize_xof().fill(&mut sum);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        for change in [b"".as_slice(), b"a change"] {
            let value = seal(change);
            assert_eq!(unseal(&value).unwrap(), change);
            for bit in 0..value.len() * 8 {
                let mut damaged = value.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(unseal(&damaged).is_err(), "bit {bit}");
            }
            for cut in 0..value.len() {
                assert!(unseal(&value[..cut]).is_err(), "cut to {cut}");
            }
        }
    }
}
