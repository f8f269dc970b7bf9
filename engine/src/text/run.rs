//! Characters with consecutive ids that stand together and share a fate.

#![expect(clippy::cast_possible_truncation, reason = "a part of a run is shorter than the run")]

use std::ops::{AddAssign, SubAssign};

use crate::id::OpId;

/// How long some visible text is, in every unit that positions come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lengths {
    /// UTF-8 bytes.
    pub(crate) bytes: usize,
    /// Unicode scalar values.
    pub(crate) chars: usize,
    /// UTF-16 units.
    pub(crate) units: usize,
}

impl Lengths {
    pub(crate) fn of(text: &str) -> Self {
        // Most texts are ASCII, where all three are the same.
        if text.is_ascii() {
            return Self { bytes: text.len(), chars: text.len(), units: text.len() };
        }
        let mut lengths = Self { bytes: text.len(), chars: 0, units: 0 };
        for char in text.chars() {
            lengths.chars += 1;
            lengths.units += char.len_utf16();
        }
        lengths
    }
}

impl AddAssign for Lengths {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.chars += other.chars;
        self.units += other.units;
    }
}

impl SubAssign for Lengths {
    fn sub_assign(&mut self, other: Self) {
        self.bytes -= other.bytes;
        self.chars -= other.chars;
        self.units -= other.units;
    }
}

/// A run of characters, each of which has the one before as its origin: all visible or all deleted.
/// The characters themselves are in the leaf's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: OpId,
    /// How many characters.
    pub(crate) len: u32,
    /// How many UTF-8 bytes of them show; zero for a deleted run.
    pub(crate) bytes: u32,
    /// How many UTF-16 units of them show; zero for a deleted run.
    pub(crate) units: u32,
}

impl Run {
    pub(crate) const fn is_deleted(&self) -> bool {
        self.bytes == 0
    }

    pub(crate) fn end(&self) -> u64 {
        self.first.counter + u64::from(self.len)
    }

    pub(crate) fn contains(&self, id: OpId) -> bool {
        id.replica == self.first.replica && (self.first.counter..self.end()).contains(&id.counter)
    }

    /// The id of the character at `offset`.
    pub(crate) fn char(&self, offset: u32) -> OpId {
        self.first.plus(offset.into())
    }

    /// What shows of the run.
    pub(crate) const fn lengths(&self) -> Lengths {
        let chars = if self.is_deleted() { 0 } else { self.len as usize };
        Lengths { bytes: self.bytes as usize, chars, units: self.units as usize }
    }

    /// Whether `next` can be the end of this run.
    pub(crate) fn continues_with(&self, next: &Self) -> bool {
        next.first.replica == self.first.replica
            && next.first.counter == self.end()
            && self.is_deleted() == next.is_deleted()
            && self.len.checked_add(next.len).is_some()
    }

    /// Takes `next` in, which it continues with.
    pub(crate) fn join(&mut self, next: &Self) {
        self.len += next.len;
        self.bytes += next.bytes;
        self.units += next.units;
    }

    /// Makes the run visible, or deletes it when nothing shows.
    pub(crate) const fn show(&mut self, shown: Lengths) {
        (self.bytes, self.units) = (shown.bytes as u32, shown.units as u32);
    }

    /// Cuts the run after `len` characters, of which `kept` show, and returns the rest.
    pub(crate) fn split_off(&mut self, len: u32, kept: Lengths) -> Self {
        // What is kept is a part of numbers that fit.
        let (bytes, units) = (kept.bytes as u32, kept.units as u32);
        let rest = Self {
            first: self.char(len),
            len: self.len - len,
            bytes: self.bytes - bytes,
            units: self.units - units,
        };
        (self.len, self.bytes, self.units) = (len, bytes, units);
        rest
    }
}
