//! Characters with consecutive ids that stand together and share a fate.
#![expect(
    clippy::cast_possible_truncation,
    reason = "a run's text fits a leaf, and a part of a run is shorter than the run"
)]

use super::authors::CharId;
use super::lengths::{Lengths, TextUnit};

/// A run of characters, each of which has the one before as its origin: all visible or all deleted.
/// The characters themselves are in the leaf's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: CharId,
    /// How many characters.
    pub(super) len: u32,
    /// How many UTF-8 bytes of them show; zero for a deleted run. The text of a leaf is short.
    bytes: u16,
    /// How many UTF-16 units of them show; zero for a deleted run.
    units: u16,
}

impl Run {
    /// Characters that show.
    pub(super) const fn visible(first: CharId, lengths: Lengths) -> Self {
        let (bytes, units) = (lengths.bytes as u16, lengths.units as u16);
        Self { first, len: lengths.chars as u32, bytes, units }
    }

    /// Characters that were deleted.
    pub(super) const fn deleted(first: CharId, len: u32) -> Self {
        Self { first, len, bytes: 0, units: 0 }
    }

    #[inline]
    pub(super) const fn is_deleted(&self) -> bool {
        self.bytes == 0
    }

    /// Whether all that shows is ASCII: nothing else takes as many bytes as UTF-16 units.
    #[inline]
    pub(super) const fn is_ascii(&self) -> bool {
        self.bytes == self.units
    }

    /// The id after the last character's.
    #[inline]
    pub(super) fn end(&self) -> CharId {
        self.first.plus(self.len)
    }

    #[inline]
    pub(super) fn contains(&self, id: CharId) -> bool {
        id.distance_from(self.first) < u64::from(self.len)
    }

    /// Which of its characters `id` is, which it contains.
    #[inline]
    pub(super) fn offset_of(&self, id: CharId) -> u32 {
        id.distance_from(self.first) as u32
    }

    /// What shows of the run.
    #[inline]
    pub(super) const fn lengths(&self) -> Lengths {
        let chars = if self.is_deleted() { 0 } else { self.len as usize };
        Lengths { bytes: self.bytes as usize, chars, units: self.units as usize }
    }

    /// What the first `count` units of the run's text are, which is `text`.
    #[inline]
    pub(super) fn cut(&self, text: &str, count: usize, unit: TextUnit) -> Option<Lengths> {
        if self.is_ascii() {
            return (count <= text.len()).then_some(Lengths::ascii(count));
        }
        if count == self.lengths().in_unit(unit) {
            return Some(self.lengths());
        }
        Lengths::of_beginning(text, count, unit)
    }

    /// What shows of the first `len` characters; the run's text is `text`.
    #[inline]
    pub(super) fn beginning(&self, text: &str, len: u32) -> Lengths {
        if self.is_deleted() {
            return Lengths::ZERO;
        }
        // A run has as many characters as its length says.
        self.cut(text, len as usize, TextUnit::Chars).unwrap_or(self.lengths())
    }

    /// Whether `next` can be the end of this run.
    #[inline]
    pub(super) fn continues_with(&self, next: &Self) -> bool {
        next.first == self.end()
            && !next.first.begins_era()
            && self.is_deleted() == next.is_deleted()
            && self.len.checked_add(next.len).is_some()
    }

    /// Takes `next` in, which it continues with.
    #[inline]
    pub(super) const fn join(&mut self, next: &Self) {
        self.len += next.len;
        self.bytes += next.bytes;
        self.units += next.units;
    }

    /// Cuts the first `len` characters, which are ASCII, off a longer run.
    #[inline]
    pub(super) fn shorten_front_ascii(&mut self, len: u32) {
        self.first = self.first.plus(len);
        self.shorten_ascii(len);
    }

    /// Takes in `len` characters before the first of a deleted run; whether it can be that long.
    #[inline]
    pub(super) fn extend_back(&mut self, len: u32) -> bool {
        let Some(sum) = self.len.checked_add(len).filter(|_| !self.first.begins_era()) else {
            return false;
        };
        (self.first, self.len) = (self.first.minus(len), sum);
        true
    }

    /// Cuts the last `len` characters, which are ASCII, off a longer run.
    #[inline]
    pub(super) const fn shorten_ascii(&mut self, len: u32) {
        self.len -= len;
        self.bytes -= len as u16;
        self.units -= len as u16;
    }

    /// Cuts the run after `len` characters, of which `kept` shows, and returns the rest.
    pub(super) fn split_off(&mut self, len: u32, kept: Lengths) -> Self {
        let (bytes, units) = (kept.bytes as u16, kept.units as u16);
        let rest = Self {
            first: self.first.plus(len),
            len: self.len - len,
            bytes: self.bytes - bytes,
            units: self.units - units,
        };
        (self.len, self.bytes, self.units) = (len, bytes, units);
        rest
    }
}
