//! Order keys as bytes, relative to the one before and to the run that the key may begin.
#![deny(clippy::indexing_slicing)]

use super::{Reader, Writer};
use crate::error::DecodeError;
use crate::id::OpId;
use crate::tree::OrderKey;

/// The two low bits of a key's head say how it is told; the rest is a number.
const KEY_RAW: u64 = 0;
const KEY_FRESH: u64 = 1;
const KEY_NEXT: u64 = 2;
const KEY_BEFORE: u64 = 3;

const CODE_BITS: u32 = 2;
const CODE_MASK: u64 = (1 << CODE_BITS) - 1;

/// Writes the key of a move whose id is `op`, after the key `last`.
pub(crate) fn write_key(writer: &mut Writer, last: Option<&OrderKey>, op: OpId, key: &OrderKey) {
    if last.and_then(OrderKey::successor).as_ref() == Some(key) {
        return writer.varint(KEY_NEXT);
    }
    if last.and_then(OrderKey::predecessor).as_ref() == Some(key) {
        return writer.varint(KEY_BEFORE);
    }
    if let Some(head) = key.head_of_run(op) {
        writer.varint((head.len() as u64) << CODE_BITS | KEY_FRESH);
        return writer.raw(head);
    }
    let shared = last.map_or(0, |last| shared_prefix(last, key));
    writer.varint((shared as u64) << CODE_BITS | KEY_RAW);
    writer.sized(key.as_bytes().get(shared..).unwrap_or_default());
}

/// Reads what [`write_key`] wrote.
pub(crate) fn read_key(
    reader: &mut Reader<'_>,
    last: Option<&OrderKey>,
    op: OpId,
) -> Result<OrderKey, DecodeError> {
    let head = reader.varint()?;
    let number = head >> CODE_BITS;
    let key = match head & CODE_MASK {
        KEY_NEXT if number == 0 => last.and_then(OrderKey::successor),
        KEY_BEFORE if number == 0 => last.and_then(OrderKey::predecessor),
        KEY_FRESH => {
            let len = reader.fits(number, 1)?;
            OrderKey::first_of_run(reader.bytes(len)?, op)
        }
        KEY_RAW => {
            let rest = reader.sized()?;
            let shared = usize::try_from(number).unwrap_or(usize::MAX);
            match last {
                Some(last) => last.with_rest(shared, rest),
                None => OrderKey::new(rest).filter(|_| shared == 0),
            }
        }
        _ => None,
    };
    key.ok_or_else(|| reader.malformed("order key without room beside it"))
}

fn shared_prefix(a: &OrderKey, b: &OrderKey) -> usize {
    a.as_bytes().iter().zip(b.as_bytes()).take_while(|(a, b)| a == b).count()
}
