//! A patch: changes on their way from one replica to another.
#![deny(clippy::indexing_slicing)]

use super::{Reader, Writer};
use crate::change::Change;
use crate::error::DecodeError;
use crate::limits::CHANGE_BYTES_MAX;

const MAGIC: [u8; 2] = *b"SD";
const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// Changes that were read and found well formed, and can be looked at before they are integrated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    changes: Vec<Change>,
}

impl Patch {
    /// Reads what an export gave. Empty bytes are an empty patch.
    ///
    /// Takes time and memory in proportion to the bytes.
    ///
    /// # Errors
    /// If the bytes are no patch, are damaged, or hold a change that is not well formed.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let body = checked_body(bytes)?;
        let mut reader = Reader::new(body);
        let mut changes = Vec::new();
        while !reader.is_empty() {
            let change = reader.sized()?;
            if change.len() > CHANGE_BYTES_MAX {
                let max = CHANGE_BYTES_MAX as u64;
                return Err(DecodeError::TooLarge { what: "the change", max });
            }
            changes.push(Change::decode(change)?);
        }
        Ok(Self { changes })
    }

    /// How many changes a patch claims to hold, without looking inside: cheap enough to decide
    /// whether it is worth decoding.
    ///
    /// # Errors
    /// If the bytes are no patch, or their checksum is wrong.
    pub fn count(bytes: &[u8]) -> Result<usize, DecodeError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut reader = Reader::new(checked_body(bytes)?);
        let mut count = 0;
        while !reader.is_empty() {
            reader.sized()?;
            count += 1;
        }
        Ok(count)
    }

    /// A patch of these changes.
    #[must_use]
    pub const fn new(changes: Vec<Change>) -> Self {
        Self { changes }
    }

    /// The changes, in the order in which they were sent.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The changes by value.
    #[must_use]
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// The patch as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Self::pack(self.changes.iter().map(|change| &**change.bytes()))
    }

    /// Packs changes that are encoded already, without looking inside.
    pub fn pack<'a>(changes: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(&MAGIC);
        writer.byte(FORMAT);
        for change in changes {
            writer.sized(change);
        }
        let checksum = checksum(writer.as_slice());
        writer.raw(&checksum);
        writer.into_bytes()
    }
}

fn checked_body(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let mut head = Reader::new(bytes);
    if head.array()? != MAGIC {
        return Err(DecodeError::WrongMagic { expected: "a patch" });
    }
    let found = head.byte()?;
    if found != FORMAT {
        return Err(if found > FORMAT {
            DecodeError::FormatTooNew { found, newest: FORMAT }
        } else {
            head.malformed("unknown format version")
        });
    }
    let (content, sum) = bytes
        .split_last_chunk::<CHECKSUM_BYTES>()
        .filter(|(content, _)| content.len() >= head.position())
        .ok_or_else(|| head.truncated())?;
    if checksum(content) != *sum {
        return Err(DecodeError::WrongChecksum);
    }
    content.get(head.position()..).ok_or_else(|| head.truncated())
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes).finalize_xof().fill(&mut sum);
    sum
}
