//! A text as a register holds it: as it was set, or taken apart since.
//!
//! Reading asks this, so that a text that nobody splices is never taken apart. What it costs is
//! O(log n) for a text that was spliced, and the text's length for one that was not.

use std::borrow::Cow;
use std::ops::Range;

use super::tree::{CharPosition, Chunks, Side};
use super::{Lengths, OpId, Text, TextUnit};

/// A text, and the `Set` that made it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextContent<'a> {
    pub(crate) set: OpId,
    pub(crate) form: TextForm<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum TextForm<'a> {
    /// As it was set: its characters have the ids from that of the `Set` on.
    Plain(&'a str),
    /// Spliced since.
    Spliced(&'a Text),
}

/// The pieces of a part of a text; see [`TextSlice::chunks`](crate::TextSlice::chunks).
#[derive(Clone, Debug)]
pub struct TextChunks<'a>(ChunksForm<'a>);

#[derive(Clone, Debug)]
enum ChunksForm<'a> {
    Plain(Option<&'a str>),
    Spliced(Chunks<'a>),
}

impl<'a> TextChunks<'a> {
    /// What is left, in one piece; without a copy if it is one.
    #[must_use]
    pub fn into_cow(mut self) -> Cow<'a, str> {
        let Some(first) = self.next() else { return Cow::Borrowed("") };
        let Some(second) = self.next() else { return Cow::Borrowed(first) };
        let mut all = String::from(first);
        all.push_str(second);
        all.extend(self);
        Cow::Owned(all)
    }
}

impl<'a> Iterator for TextChunks<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        match &mut self.0 {
            ChunksForm::Plain(text) => text.take().filter(|text| !text.is_empty()),
            ChunksForm::Spliced(chunks) => chunks.next(),
        }
    }
}

impl<'a> TextContent<'a> {
    /// The whole text.
    pub(crate) fn chunks(self) -> TextChunks<'a> {
        TextChunks(match self.form {
            TextForm::Plain(text) => ChunksForm::Plain(Some(text)),
            TextForm::Spliced(text) => ChunksForm::Spliced(text.all_chunks()),
        })
    }

    /// How long the text is.
    pub(crate) fn lengths(self) -> Lengths {
        match self.form {
            TextForm::Plain(text) => Lengths::of(text),
            TextForm::Spliced(text) => text.shown(),
        }
    }

    /// A position in every unit, if it is between two characters.
    pub(crate) fn measure(self, position: usize, unit: TextUnit) -> Option<Lengths> {
        match self.form {
            TextForm::Plain(text) => Lengths::of_beginning(text, position, unit),
            TextForm::Spliced(text) => text.measure(position, unit),
        }
    }

    /// The part of the text in a range, and how long it is; none if the range does not lie on
    /// character boundaries inside the text.
    pub(crate) fn slice(
        self,
        range: &Range<usize>,
        unit: TextUnit,
    ) -> Option<(TextChunks<'a>, Lengths)> {
        if range.start > range.end {
            return None;
        }
        let [start, end] = [range.start, range.end].map(|position| self.measure(position, unit));
        let (start, end) = (start?, end?);
        let chunks = match self.form {
            TextForm::Plain(text) => ChunksForm::Plain(text.get(start.bytes..end.bytes)),
            TextForm::Spliced(text) => {
                let [from, to] = [start, end].map(|at| text.seam(at.bytes, TextUnit::Utf8));
                ChunksForm::Spliced(text.chunks(from?, to?))
            }
        };
        Some((TextChunks(chunks), end - start))
    }

    /// The character beside a position, none at the text's edge; `None` if the position is not between
    /// two characters.
    pub(crate) fn char_beside(
        self,
        position: usize,
        unit: TextUnit,
        side: Side,
    ) -> Option<Option<OpId>> {
        let text = match self.form {
            TextForm::Plain(text) => text,
            TextForm::Spliced(text) => return text.char_beside(position, unit, side),
        };
        let before = Lengths::of_beginning(text, position, unit)?;
        let char = match side {
            Side::Before => before.chars.checked_sub(1),
            Side::After => Some(before.chars).filter(|_| before.bytes < text.len()),
        };
        Some(char.map(|char| self.set.plus(char as u64)))
    }

    /// Where a character is, or was before it was deleted; none if it is not of this text.
    pub(crate) fn position_of(self, char: OpId) -> Option<CharPosition> {
        let text = match self.form {
            TextForm::Plain(text) => text,
            TextForm::Spliced(text) => return text.position_of(char),
        };
        let offset = char.counter.checked_sub(self.set.counter)?;
        let before = Lengths::of_beginning(text, usize::try_from(offset).ok()?, TextUnit::Chars)?;
        let itself = text[before.bytes..].chars().next()?;
        (char.replica == self.set.replica)
            .then_some(CharPosition { before, shown: Lengths::of_char(itself) })
    }
}
