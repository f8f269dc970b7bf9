//! The characters of one spliced text: an RGA of runs.
//!
//! Roh, Jeon, Kim, Lee 2011, "Replicated abstract data types", section 5: a character goes right
//! after its origin, past whatever has a greater stamp there. Deleted characters keep their ids, so
//! that origins never dangle.
//!
//! A run holds characters with consecutive ids, each of which has the one before as its origin; so
//! stamps rise along a run, and its first one decides whether it is skipped. Two runs that stand side
//! by side and whose ids go on are one: had the second another origin, its author would have put it
//! elsewhere. For the same reason a whole run goes in at once: what is behind its first character is
//! older than that, and so than the others.
//!
//! Not here: where runs are kept and found (`tree`), short names for ids (`authors`), where an id is
//! (`index`), texts that were never spliced (`content`), which text counts (`registers`).

mod authors;
mod content;
mod index;
mod join;
mod lengths;
mod run;
mod take_back;
mod tree;

use std::ops::Range;

use smallvec::SmallVec;

use crate::id::{OpId, Stamp};
use crate::op::IdRange;
pub use content::TextChunks;
pub(crate) use content::{TextContent, TextForm};
pub(crate) use join::{Sides, pieces_of};
pub(crate) use lengths::Lengths;
pub use lengths::TextUnit;
use tree::RunTree;
pub use tree::Side;
pub(crate) use tree::{CharPosition, Chunks, Seam};
pub(crate) use tree::{Fate, Piece};

/// Characters, as few ranges of ids as possible. One range is by far the most usual.
pub(crate) type IdRanges = SmallVec<[IdRange; 1]>;

/// What a splice of a range of positions means in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Splice {
    /// The character before the range; none at the start.
    pub(crate) origin: Option<OpId>,
    /// The visible characters in the range.
    pub(crate) deleted: IdRanges,
}

/// How to take an edit of a text back.
#[derive(Clone, Debug)]
pub(crate) enum TextUndo {
    /// These characters were inserted.
    Inserted(IdRange),
    /// These characters, which have consecutive ids, were deleted.
    Deleted { first: OpId, text: String },
}

/// Characters that were deleted together: they have consecutive ids.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone<'a> {
    pub(crate) first: OpId,
    pub(crate) text: &'a str,
    /// How much showed before them; it is known if that was asked for.
    pub(crate) at: Option<Lengths>,
}

impl Gone<'_> {
    /// What takes the deletion back.
    pub(crate) fn undo(&self) -> TextUndo {
        TextUndo::Deleted { first: self.first, text: self.text.to_owned() }
    }
}

/// A text as characters that know their ids.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    tree: RunTree,
}

impl Text {
    /// The text that the `Set` `set` made.
    pub(crate) fn new(set: OpId, text: &str) -> Self {
        Self::from_pieces([Piece { first: set, fate: Fate::Visible(text) }])
    }

    /// The text of which these are all characters, in order. O(n); what only edits need is built at the
    /// first edit.
    pub(crate) fn from_pieces<'a>(pieces: impl IntoIterator<Item = Piece<'a>>) -> Self {
        Self { tree: RunTree::from_pieces(pieces) }
    }

    /// Puts characters after `origin`. `stamp` is that of the first; `clock` knows that of every
    /// character here.
    ///
    /// Returns what takes them back; nothing if there is no such origin in this text, which makes
    /// the insertion void.
    #[inline]
    pub(crate) fn insert(
        &mut self,
        origin: Option<OpId>,
        stamp: Stamp,
        text: &str,
        clock: &impl Fn(OpId) -> Stamp,
    ) -> Option<TextUndo> {
        if let Some(origin) = origin
            && let Some(len) = self.tree.extend(origin, stamp, text)
        {
            return Some(TextUndo::Inserted(IdRange { first: stamp.op(), len }));
        }
        let offset = match origin {
            Some(origin) => self.tree.seek_char(origin)? + 1,
            None => {
                self.tree.seek_start();
                0
            }
        };
        let offset = self.tree.skip_newer(offset, stamp, clock);
        let len = self.tree.insert(offset, stamp, text);
        Some(TextUndo::Inserted(IdRange { first: stamp.op(), len }))
    }

    /// How much shows before a text that was the last thing to happen, and was inserted. O(log n); O(1)
    /// in typing.
    #[inline]
    pub(crate) fn place_of_insertion(&mut self, text: &str) -> Lengths {
        self.tree.end_of_insertion() - Lengths::of(text)
    }

    /// Removes the characters in `range` that are in this text and visible, and hands over each piece
    /// as it goes, on request with where it was.
    #[inline]
    pub(crate) fn delete(&mut self, range: IdRange, tells_place: bool, gone: impl FnMut(Gone<'_>)) {
        self.tree.delete(range.first, range.len, tells_place, gone);
    }

    /// The characters that a range of positions means, or `None` if it does not lie on character
    /// boundaries inside the text. O(1) where the last edit was. The origin is not looked for where
    /// nothing is inserted in the place of what is deleted.
    #[inline]
    pub(crate) fn resolve(
        &mut self,
        range: &Range<usize>,
        unit: TextUnit,
        inserts: bool,
    ) -> Option<Splice> {
        if range.start > range.end {
            return None;
        }
        if let Some((origin, chars)) = self.tree.range_at_tip(range, unit) {
            let mut deleted = IdRanges::new();
            if chars.len > 0 {
                deleted.push(chars);
            }
            return Some(Splice { origin: Some(origin), deleted });
        }
        self.resolve_anywhere(range, unit, inserts)
    }

    fn resolve_anywhere(
        &mut self,
        range: &Range<usize>,
        unit: TextUnit,
        inserts: bool,
    ) -> Option<Splice> {
        let mut splice = Splice { origin: None, deleted: IdRanges::new() };
        if range.start > 0 && (inserts || range.is_empty()) {
            let cut = self.tree.seek(range.start, unit, Side::Before)?;
            // A run's characters are counted in 32 bits, and at least one is before the position.
            splice.origin = self.tree.char_here(u32::try_from(cut.chars - 1).ok()?);
        }
        if !range.is_empty() {
            splice.deleted = self.tree.chars_in(range, unit)?;
        }
        Some(splice)
    }

    /// The visible characters.
    pub(crate) fn visible(&self) -> String {
        let mut visible = String::with_capacity(self.tree.shown().bytes);
        visible.extend(self.all_chunks());
        visible
    }

    /// The visible characters, in pieces.
    pub(crate) fn all_chunks(&self) -> Chunks<'_> {
        self.chunks(self.seam(0, TextUnit::Utf8).unwrap_or(self.end()), self.end())
    }

    /// All characters, in order: what [`Text::from_pieces`] takes.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.tree.pieces()
    }

    /// How much shows.
    #[inline]
    pub(crate) const fn shown(&self) -> Lengths {
        self.tree.shown()
    }

    /// The place at a position, if it is between two characters. O(log n).
    pub(crate) fn seam(&self, position: usize, unit: TextUnit) -> Option<Seam> {
        self.tree.seam(position, unit)
    }

    /// The place behind everything.
    pub(crate) fn end(&self) -> Seam {
        self.tree.end()
    }

    /// What shows between two places, in pieces.
    pub(crate) const fn chunks(&self, from: Seam, to: Seam) -> Chunks<'_> {
        self.tree.chunks(from, to)
    }

    /// A position in every unit, if it is between two characters. O(log n).
    pub(crate) fn measure(&self, position: usize, unit: TextUnit) -> Option<Lengths> {
        self.tree.measure(position, unit)
    }

    /// The character beside a position, none at the text's edge; `None` if the position is not between
    /// two characters. O(log n).
    pub(crate) fn char_beside(
        &self,
        position: usize,
        unit: TextUnit,
        side: Side,
    ) -> Option<Option<OpId>> {
        self.tree.char_beside(position, unit, side)
    }

    /// Where a character is, or was before it was deleted. O(log n) once the text has been edited.
    pub(crate) fn position_of(&self, id: OpId) -> Option<CharPosition> {
        self.tree.position_of(id)
    }

    /// The characters of a range that are in this text: pieces that stand together, each with whether
    /// it shows. O(log n) for each piece.
    pub(crate) fn standing(&mut self, range: IdRange) -> Vec<(IdRange, bool)> {
        self.tree.standing(range.first, range.len)
    }

    /// Panics if an invariant of the tree of runs does not hold.
    pub(crate) fn assert_invariants(&self, clock: &impl Fn(OpId) -> Stamp) {
        self.tree.assert_invariants(clock);
    }
}

/// Adds a range, to the last one if it goes on there.
#[inline]
pub(crate) fn push_range(ranges: &mut IdRanges, next: IdRange) {
    match ranges.last_mut() {
        Some(range) if range.first.plus(range.len) == next.first => range.len += next.len,
        _ => ranges.push(next),
    }
}

#[cfg(test)]
mod tests;
