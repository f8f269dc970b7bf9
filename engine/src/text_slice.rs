//! Reading texts by position, in any unit, without copying them.
//!
//! Each call is O(log n) for a text that was spliced, however large; a text that was only set is read
//! through as far as the position, and stays as it is.

use std::fmt;
use std::ops::Range;

use crate::error::EditError;
use crate::id::EntryId;
use crate::registers::RegisterView;
use crate::replica::Replica;
use crate::text::{Lengths, TextChunks, TextContent, TextUnit};
use crate::value::Field;

/// A part of a text, which stays where it is.
///
/// It prints as its characters, and compares with a `str`.
#[derive(Clone, Debug)]
pub struct TextSlice<'a> {
    chunks: TextChunks<'a>,
    lengths: Lengths,
}

impl<'a> TextSlice<'a> {
    /// The slice in pieces, in order; none is empty.
    #[must_use]
    pub fn chunks(&self) -> TextChunks<'a> {
        self.chunks.clone()
    }

    /// How long the slice is.
    #[must_use]
    pub const fn len(&self, unit: TextUnit) -> usize {
        self.lengths.in_unit(unit)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lengths.bytes == 0
    }
}

impl fmt::Display for TextSlice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chunks().try_for_each(|chunk| f.write_str(chunk))
    }
}

impl PartialEq<str> for TextSlice<'_> {
    fn eq(&self, other: &str) -> bool {
        let mut rest = Some(other);
        for chunk in self.chunks() {
            rest = rest.and_then(|rest| rest.strip_prefix(chunk));
        }
        rest == Some("")
    }
}

impl PartialEq<&str> for TextSlice<'_> {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl Replica {
    /// How long the text in a field is; none if the entry does not show or the field holds no text.
    /// O(1) for a text that was spliced.
    #[must_use]
    pub fn text_len(&self, entry: EntryId, field: &Field, unit: TextUnit) -> Option<usize> {
        let text = self.text(entry, field).ok()?;
        Some(text.lengths().in_unit(unit))
    }

    /// A part of the text in a field, without a copy. O(log n) for a text that was spliced, and
    /// then what is read of it.
    ///
    /// ```
    /// use sds_engine::{EntryId, Field, Replica, ReplicaId, TextUnit, Value};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut desk = Replica::new(ReplicaId::new(1).ok_or("zero")?);
    /// desk.set(EntryId::ROOT, Field::Label, Value::Text("5 \u{20ac} each".into()))?;
    /// let price = desk.text_slice(EntryId::ROOT, &Field::Label, 0..3, TextUnit::Chars)?;
    /// assert_eq!(price, "5 \u{20ac}");
    /// assert_eq!(price.len(TextUnit::Utf8), 5);
    /// assert!(desk.text_slice(EntryId::ROOT, &Field::Label, 0..4, TextUnit::Utf8).is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the entry does not show, the field holds no text, or the range does not lie on character
    /// boundaries inside it.
    pub fn text_slice(
        &self,
        entry: EntryId,
        field: &Field,
        range: Range<usize>,
        unit: TextUnit,
    ) -> Result<TextSlice<'_>, EditError> {
        let text = self.text(entry, field)?;
        let slice = text.slice(&range, unit);
        let (chunks, lengths) = slice.ok_or_else(|| out_of_range(text, &range, unit))?;
        Ok(TextSlice { chunks, lengths })
    }

    /// The same position, counted in another unit. O(log n) for a text that was spliced.
    ///
    /// # Errors
    /// As for [`Replica::text_slice`], for the empty range at the position.
    pub fn text_position(
        &self,
        entry: EntryId,
        field: &Field,
        position: usize,
        from: TextUnit,
        to: TextUnit,
    ) -> Result<usize, EditError> {
        let text = self.text(entry, field)?;
        let lengths = text.measure(position, from);
        let lengths = lengths.ok_or_else(|| out_of_range(text, &(position..position), from))?;
        Ok(lengths.in_unit(to))
    }

    /// The text in a field.
    pub(crate) fn text(&self, entry: EntryId, field: &Field) -> Result<TextContent<'_>, EditError> {
        if !self.is_shown(entry) {
            return Err(EditError::NotFound(entry));
        }
        let register = self.register(entry, field);
        register.and_then(RegisterView::text).ok_or(EditError::NotText(entry))
    }
}

/// The error for a range that does not fit a text.
pub(crate) fn out_of_range(
    text: TextContent<'_>,
    range: &Range<usize>,
    unit: TextUnit,
) -> EditError {
    let len = text.lengths().in_unit(unit);
    EditError::OutOfRange { from: range.start, to: range.end, len }
}
