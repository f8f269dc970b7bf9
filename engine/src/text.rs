//! The characters of one spliced text: an RGA of runs.
//!
//! Roh, Jeon, Kim, Lee 2011, "Replicated abstract data types", section 5: a character goes right
//! after its origin, past whatever has a greater stamp there. Deleted characters keep their ids, so
//! that origins never dangle.
//!
//! A run holds characters with consecutive ids, each of which has the one before as its origin; so
//! stamps rise along a run, and its first one decides whether it is skipped. Two runs that stand side
//! by side and whose ids go on are one: had the second another origin, its author would have put it
//! elsewhere.
//!
//! Not here: where runs are kept and found (`tree`), which text is the one that counts (`registers`).

mod run;
mod tree;

use std::ops::Range;

use crate::id::{OpId, Stamp};
use crate::op::IdRange;
use run::{Lengths, Run};
use tree::RunTree;

/// What a splice of a range of units means in characters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Splice {
    /// The character before the range; none at the start.
    pub(crate) origin: Option<OpId>,
    /// The visible characters in the range.
    pub(crate) deleted: Vec<IdRange>,
}

/// How to take an edit of a text back.
#[derive(Clone, Debug)]
pub(crate) enum TextUndo {
    /// These characters were inserted.
    Inserted(IdRange),
    /// These characters, which have consecutive ids, were deleted.
    Deleted { first: OpId, text: String },
}

/// A text as characters that know their ids.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    tree: RunTree,
}

impl Text {
    /// The text that the `Set` with stamp `set` made.
    pub(crate) fn new(set: Stamp, text: &str) -> Self {
        let mut tree = RunTree::new();
        let clock = |id: OpId| Stamp { counter: id.counter, ..set };
        tree.insert(tree.start(), set, text, &clock);
        Self { tree }
    }

    /// Puts characters after `origin`. `stamp` is that of the first; `clock` knows every other.
    ///
    /// Returns what takes them back; nothing if there is no such origin in this text, which makes
    /// the insertion void.
    pub(crate) fn insert(
        &mut self,
        origin: Option<OpId>,
        stamp: Stamp,
        text: &str,
        clock: &impl Fn(OpId) -> Stamp,
    ) -> Option<TextUndo> {
        let after = match origin {
            Some(origin) => self.tree.after(origin)?,
            None => self.tree.start(),
        };
        let place = self.tree.skip_newer(after, stamp, clock);
        let before = self.tree.shown().chars;
        self.tree.insert(place, stamp, text, clock);
        let len = (self.tree.shown().chars - before) as u64;
        Some(TextUndo::Inserted(IdRange { first: stamp.op(), len }))
    }

    /// Removes the characters in `range` that are in this text and visible, and hands over what takes
    /// each piece back.
    pub(crate) fn delete(
        &mut self,
        range: IdRange,
        clock: &impl Fn(OpId) -> Stamp,
        mut undo: impl FnMut(&dyn Fn() -> TextUndo),
    ) {
        self.tree.delete(range.first, range.len, clock, |first, text| {
            undo(&|| TextUndo::Deleted { first, text: text.to_owned() });
        });
    }

    /// The characters that a range of UTF-16 units means, or `None` if it does not lie on character
    /// boundaries inside the text.
    pub(crate) fn resolve(&self, range: &Range<usize>) -> Option<Splice> {
        let mut left = range.end.checked_sub(range.start)?;
        let start = self.tree.at_unit(range.start)?;
        let mut splice = Splice { origin: None, deleted: Vec::new() };
        if range.start > 0 {
            splice.origin = self.tree.char_before(start);
        }
        let mut rest = self.tree.from(start).filter(|(run, _)| !run.is_deleted());
        while left > 0 {
            let (run, text) = rest.next()?;
            let whole = run.units as usize;
            let (units, len) = if whole <= left {
                (whole, run.len)
            } else {
                (left, tree::chars_in_units(text, left)?)
            };
            left -= units;
            push_range(&mut splice.deleted, IdRange { first: run.first, len: len.into() });
        }
        Some(splice)
    }

    /// The visible characters.
    pub(crate) fn visible(&self) -> String {
        let mut visible = String::with_capacity(self.tree.shown().bytes);
        visible.extend(self.tree.from(self.tree.start()).map(|(_, text)| text));
        visible
    }

    /// How many UTF-16 units show.
    pub(crate) const fn units(&self) -> usize {
        self.tree.shown().units
    }

    /// Takes edits back, the newest of which comes first. Costs the size of the text.
    pub(crate) fn take_back(&mut self, edits: &[TextUndo], clock: &impl Fn(OpId) -> Stamp) {
        let runs = self.tree.from(self.tree.start());
        let mut pieces: Vec<Piece> = runs.map(|(run, text)| Piece::new(run, text)).collect();
        for edit in edits {
            match edit {
                TextUndo::Inserted(range) => {
                    isolate(&mut pieces, *range);
                    pieces.retain(|piece| !is_inside(&piece.run, *range));
                }
                TextUndo::Deleted { first, text } => restore(&mut pieces, *first, text),
            }
        }
        let mut tree = RunTree::new();
        for piece in &pieces {
            tree.push(piece.run, &piece.text, clock);
        }
        self.tree = tree;
    }

    /// Panics if an invariant of the tree of runs does not hold.
    pub(crate) fn assert_invariants(&self, clock: &impl Fn(OpId) -> Stamp) {
        self.tree.assert_invariants(clock);
    }
}

/// A run with its text, outside the tree.
struct Piece {
    run: Run,
    text: String,
}

impl Piece {
    fn new(run: Run, text: &str) -> Self {
        Self { run, text: text.to_owned() }
    }
}

/// Cuts pieces so that none lies across an end of `range`.
fn isolate(pieces: &mut Vec<Piece>, range: IdRange) {
    for id in [range.first, range.first.plus(range.len)] {
        let inside = |piece: &Piece| piece.run.contains(id) && piece.run.first != id;
        let Some(at) = pieces.iter().position(inside) else { continue };
        let piece = &mut pieces[at];
        // Within a run, whose length fits.
        let len = u32::try_from(id.counter - piece.run.first.counter).unwrap_or(u32::MAX);
        let kept = if piece.run.is_deleted() { 0 } else { tree::prefix(&piece.text, len).len() };
        let text = piece.text.split_off(kept);
        let run = piece.run.split_off(len, Lengths::of(&piece.text));
        pieces.insert(at + 1, Piece { run, text });
    }
}

fn restore(pieces: &mut Vec<Piece>, first: OpId, text: &str) {
    let range = IdRange { first, len: Lengths::of(text).chars as u64 };
    isolate(pieces, range);
    let mut rest = text;
    for piece in pieces.iter_mut().filter(|piece| is_inside(&piece.run, range)) {
        let mine = tree::prefix(rest, piece.run.len);
        rest = &rest[mine.len()..];
        piece.text = mine.to_owned();
        piece.run.show(Lengths::of(mine));
    }
}

fn is_inside(run: &Run, range: IdRange) -> bool {
    run.first.replica == range.first.replica
        && (range.first.counter..range.first.counter + range.len).contains(&run.first.counter)
}

fn push_range(ranges: &mut Vec<IdRange>, next: IdRange) {
    match ranges.last_mut() {
        Some(range) if range.first.plus(range.len) == next.first => range.len += next.len,
        _ => ranges.push(next),
    }
}

#[cfg(test)]
mod tests;
