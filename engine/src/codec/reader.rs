//! A cursor over foreign bytes.
#![deny(clippy::indexing_slicing)]

use crate::error::DecodeError;
use crate::id::ReplicaId;

#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// How many bytes there were.
    total: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, total: bytes.len() }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let (byte, rest) = self.rest.split_first().ok_or_else(|| self.truncated())?;
        self.rest = rest;
        Ok(*byte)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(|| self.truncated())?;
        self.rest = rest;
        Ok(*array)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.truncated())?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A number in LEB128: seven bits a byte, lowest first, in as few bytes as it takes.
    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        // Most numbers are that small.
        match *self.rest {
            [byte @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            [low, high @ 1..0x80, ref rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return Err(self.malformed("number of more than 64 bits"));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.malformed("number longer than it needs to be"));
                }
                return Ok(number);
            }
        }
        Err(self.malformed("number of more than 64 bits"))
    }

    /// A signed number: zigzag, then LEB128.
    #[inline]
    pub(crate) fn signed(&mut self) -> Result<i64, DecodeError> {
        Ok(unzigzag(self.varint()?))
    }

    /// A number of things of at least `size` bytes each, of which the rest can hold that many.
    pub(crate) fn count(&mut self, size: usize) -> Result<usize, DecodeError> {
        let count = self.varint()?;
        self.fits(count, size)
    }

    /// The number, if the rest can hold that many things of at least `size` bytes each.
    pub(crate) fn fits(&self, count: u64, size: usize) -> Result<usize, DecodeError> {
        match usize::try_from(count) {
            Ok(count) if count.checked_mul(size).is_some_and(|len| len <= self.rest.len()) => {
                Ok(count)
            }
            _ => Err(self.truncated()),
        }
    }

    /// UTF-8 text of so many characters.
    pub(crate) fn chars(&mut self, count: u64) -> Result<&'a str, DecodeError> {
        let count = self.fits(count, 1)?;
        let (ascii, _) = self.rest.split_at(count);
        let len = if ascii.is_ascii() { Some(count) } else { chars_len(self.rest, count) };
        self.utf8(len.ok_or_else(|| self.truncated())?)
    }

    /// Bytes behind their length.
    pub(crate) fn sized(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.count(1)?;
        self.bytes(len)
    }

    /// UTF-8 text behind its length in bytes.
    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let len = self.count(1)?;
        self.utf8(len)
    }

    /// UTF-8 text of so many bytes.
    pub(crate) fn utf8(&mut self, len: usize) -> Result<&'a str, DecodeError> {
        let bytes = self.bytes(len)?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed("text that is not UTF-8"))
    }

    pub(crate) fn replica(&mut self) -> Result<ReplicaId, DecodeError> {
        let number = u64::from_le_bytes(self.array()?);
        ReplicaId::new(number).ok_or_else(|| self.malformed("replica id zero"))
    }

    /// How many bytes have been read.
    pub(crate) fn position(&self) -> usize {
        self.total - self.rest.len()
    }

    /// How many bytes are left.
    pub(crate) const fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(self.malformed("bytes after the end")) }
    }

    pub(crate) fn truncated(&self) -> DecodeError {
        DecodeError::Truncated { at: self.position() }
    }

    pub(crate) fn malformed(&self, what: &'static str) -> DecodeError {
        DecodeError::Malformed { at: self.position(), what }
    }
}

/// 0, 1, 2, 3 ... as 0, -1, 1, -2 ...
pub(crate) const fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// How many bytes the first `count` characters take, if all of them are there and each first byte
/// tells the truth.
fn chars_len(bytes: &[u8], count: usize) -> Option<usize> {
    let mut len = 0_usize;
    for _ in 0..count {
        // How many ones a character's first byte begins with is how many bytes it has.
        len += bytes.get(len)?.leading_ones().max(1) as usize;
    }
    (len <= bytes.len()).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::super::Writer;
    use super::*;

    #[test]
    fn numbers_survive_and_have_one_form_each() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut writer = Writer::new();
            writer.varint(number);
            let bytes = writer.into_bytes();
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint(), Ok(number));
            assert_eq!(reader.finish(), Ok(()));
        }
        assert!(Reader::new(&[0x80, 0]).varint().is_err(), "zero in two bytes");
        assert!(Reader::new(&[0xff; 11]).varint().is_err());
        let too_large = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert!(Reader::new(&too_large).varint().is_err(), "bit 65");
    }

    #[test]
    fn signed_numbers_survive() {
        for number in [0, -1, 1, i64::MIN, i64::MAX] {
            let mut writer = Writer::new();
            writer.signed(number);
            assert_eq!(Reader::new(&writer.into_bytes()).signed(), Ok(number));
        }
    }

    #[test]
    fn a_count_that_the_bytes_cannot_hold_is_refused_before_allocating() {
        let mut writer = Writer::new();
        writer.varint(u64::MAX);
        let bytes = writer.into_bytes();
        assert!(matches!(Reader::new(&bytes).count(1), Err(DecodeError::Truncated { .. })));
    }
}
