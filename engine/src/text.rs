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
mod weave;

use std::ops::Range;

use smallvec::SmallVec;

use crate::id::{OpId, Stamp};
use crate::op::{IdRange, TextOp};
use crate::value::char_count;
pub use content::TextChunks;
pub(crate) use content::{TextContent, TextForm};
pub(crate) use join::{Sides, pieces_of};
pub(crate) use lengths::Lengths;
pub use lengths::TextUnit;
use tree::RunTree;
pub use tree::Side;
pub(crate) use tree::{CharPosition, Chunks, Seam};
pub(crate) use tree::{Fate, Piece};
use weave::Weave;

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

impl Splice {
    /// The one op that the splice is, if it is one: something inserted or something deleted. Also how
    /// many counters that takes.
    pub(crate) fn as_keystroke<'a>(&self, text: &'a str) -> Option<(TextOp<'a>, u64)> {
        match (self.deleted.as_slice(), text) {
            ([range], "") => Some((TextOp::Delete { range: *range, backwards: false }, range.len)),
            ([], text) if !text.is_empty() => {
                Some((TextOp::Insert { origin: self.origin, text }, char_count(text)))
            }
            _ => None,
        }
    }
}

/// An edit that was made where the last one was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Typed<'a> {
    pub(crate) op: TextOp<'a>,
    /// How many counters it takes.
    pub(crate) span: u64,
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

/// The fewest edits for which a text is made a list and a tree again.
const EDITS_WOVEN: usize = if cfg!(any(test, feature = "small-nodes")) { 3 } else { 128 };

/// A text as characters that know their ids.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    tree: RunTree,
    /// The text while a patch brings many edits; then the tree is behind.
    weave: Option<Box<Weave>>,
}

impl Text {
    /// The text that the `Set` `set` made.
    pub(crate) fn new(set: OpId, text: &str) -> Self {
        Self::from_pieces([Piece { first: set, fate: Fate::Visible(text) }])
    }

    /// The text of which these are all characters, in order. O(n); what only edits need is built at the
    /// first edit.
    pub(crate) fn from_pieces<'a>(pieces: impl IntoIterator<Item = Piece<'a>>) -> Self {
        Self { tree: RunTree::from_pieces(pieces), weave: None }
    }

    /// Says that about so many edits follow each other now, and that nobody reads the text or takes
    /// anything back until [`Text::settle`]. Costs the text, if the edits are worth that.
    pub(crate) fn expect_edits(&mut self, edits: usize, clock: &impl Fn(OpId) -> Stamp) {
        if self.weave.is_none() && edits >= EDITS_WOVEN && self.tree.is_within(edits) {
            self.weave = Weave::of(self.tree.pieces(), clock).map(Box::new);
        }
    }

    /// Ends what [`Text::expect_edits`] began. Costs the text.
    pub(crate) fn settle(&mut self) {
        if let Some(weave) = self.weave.take() {
            self.tree = RunTree::from_pieces(weave.pieces());
        }
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
        if let Some(weave) = &mut self.weave {
            match weave.insert(origin, stamp, text, clock) {
                Ok(len) => {
                    return Some(TextUndo::Inserted(IdRange { first: stamp.op(), len: len? }));
                }
                Err(weave::GivesUp) => self.settle(),
            }
        }
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

    /// Replaces a range of positions, if that goes on where the last edit was: typing, or deleting
    /// either way. `stamp` has to be newer than that of any character here. Returns what was done; if
    /// that is nothing, there may be another way to do it. O(1).
    #[inline]
    pub(crate) fn type_on<'a>(
        &mut self,
        range: &Range<usize>,
        unit: TextUnit,
        text: &'a str,
        stamp: Stamp,
    ) -> Option<Typed<'a>> {
        if range.start == range.end {
            let (origin, span) = self.tree.type_on(range.start, unit, text, stamp)?;
            return Some(Typed { op: TextOp::Insert { origin: Some(origin), text }, span });
        }
        if !text.is_empty() || range.start > range.end {
            return None;
        }
        let range = self.tree.erase_on(range, unit)?;
        Some(Typed { op: TextOp::Delete { range, backwards: false }, span: range.len })
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
        if let Some(weave) = &mut self.weave {
            match weave.delete(range) {
                Ok(()) => return,
                Err(weave::GivesUp) => self.settle(),
            }
        }
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
    pub(crate) fn standing(&self, range: IdRange) -> Vec<(IdRange, bool)> {
        self.tree.standing(range.first, range.len)
    }

    /// Panics if an invariant of the tree of runs does not hold, or of the list of characters.
    pub(crate) fn assert_invariants(&self, clock: &impl Fn(OpId) -> Stamp) {
        self.tree.assert_invariants(clock);
        if let Some(weave) = &self.weave {
            weave.assert_invariants();
        }
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
