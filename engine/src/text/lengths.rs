//! How long some text is, in every unit that positions come in.

use std::ops::{Add, AddAssign, Sub, SubAssign};

/// What a position in a text, or its length, counts.
///
/// A position lies between two characters; in bytes and UTF-16 units it can also fall inside one, which
/// no call accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextUnit {
    /// Bytes of UTF-8, as in a Rust `str`.
    Utf8,
    /// Unicode scalar values, as in a `char`.
    Chars,
    /// UTF-16 units, as in JavaScript strings and in the store.
    Utf16,
}

/// The length of some text in every unit. Arithmetic wraps, so that a difference of lengths can be
/// kept as one, too.
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
    /// The length of no text.
    pub(crate) const ZERO: Self = Self::ascii(0);

    /// The length of a text that is nothing but ASCII.
    pub(crate) const fn ascii(len: usize) -> Self {
        Self { bytes: len, chars: len, units: len }
    }

    #[inline]
    pub(crate) fn of(text: &str) -> Self {
        // Most texts are ASCII, where all three are the same; a single byte always is.
        if text.len() == 1 || text.is_ascii() {
            return Self::ascii(text.len());
        }
        let chars = text.chars().count();
        // Of the characters, those of four bytes take two units.
        let pairs = text.bytes().filter(|byte| *byte >= 0xf0).count();
        Self { bytes: text.len(), chars, units: chars + pairs }
    }

    /// The length of the beginning of `text` that is `count` units long; none if that ends inside a
    /// character or after the text.
    pub(crate) fn of_beginning(text: &str, count: usize, unit: TextUnit) -> Option<Self> {
        match unit {
            TextUnit::Utf8 => text.get(..count).map(Self::of),
            TextUnit::Chars | TextUnit::Utf16 => {
                let mut lengths = Self::ZERO;
                for char in text.chars() {
                    if lengths.in_unit(unit) >= count {
                        break;
                    }
                    lengths += Self::of_char(char);
                }
                (lengths.in_unit(unit) == count).then_some(lengths)
            }
        }
    }

    pub(crate) const fn of_char(char: char) -> Self {
        Self { bytes: char.len_utf8(), chars: 1, units: char.len_utf16() }
    }

    #[inline]
    pub(crate) const fn in_unit(self, unit: TextUnit) -> usize {
        match unit {
            TextUnit::Utf8 => self.bytes,
            TextUnit::Chars => self.chars,
            TextUnit::Utf16 => self.units,
        }
    }
}

impl Add for Lengths {
    type Output = Self;

    #[inline]
    fn add(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.wrapping_add(other.bytes),
            chars: self.chars.wrapping_add(other.chars),
            units: self.units.wrapping_add(other.units),
        }
    }
}

impl Sub for Lengths {
    type Output = Self;

    #[inline]
    fn sub(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.wrapping_sub(other.bytes),
            chars: self.chars.wrapping_sub(other.chars),
            units: self.units.wrapping_sub(other.units),
        }
    }
}

impl AddAssign for Lengths {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Lengths {
    #[inline]
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_its_length_in_every_unit() {
        for text in ["", "abc", "aé", "€", "a😀b", "😀😀"] {
            let lengths = Lengths::of(text);
            assert_eq!(lengths.bytes, text.len());
            assert_eq!(lengths.chars, text.chars().count());
            assert_eq!(lengths.units, text.encode_utf16().count());
        }
    }

    #[test]
    fn beginnings_end_between_characters() {
        let text = "aé😀b";
        let in_unit = |unit, count| Lengths::of_beginning(text, count, unit);
        let ends: Vec<Lengths> =
            ["", "a", "aé", "aé😀", "aé😀b"].into_iter().map(Lengths::of).collect();
        for unit in [TextUnit::Utf8, TextUnit::Chars, TextUnit::Utf16] {
            for count in 0..12 {
                let end = ends.iter().copied().find(|end| end.in_unit(unit) == count);
                assert_eq!(in_unit(unit, count), end, "{count} {unit:?}");
            }
        }
    }
}
