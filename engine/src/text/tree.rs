//! The runs of one text in an arena B-tree.
//!
//! Leaves hold some runs and the characters that show of them; inner nodes hold, for each child, how
//! much shows below it and a bound on how old its runs are. So a position in any unit is found in one
//! descent, and so is the first run after a place that is older than a given stamp. An index from ids
//! to leaves finds a character's run.
//!
//! Edits mostly follow each other at one place. A cursor stays there: what it finds under itself needs
//! no descent and no index, and what it changes is told to the nodes above when it leaves the leaf.
//!
//! Invariants, checked by `assert_invariants`:
//! - B1. A leaf's text is the visible characters of its runs in order; no run is empty.
//! - B2. What an inner node says of a child's length is true of it, but for the cursor's `pending` on the
//!   way to its leaf; each node knows its parent.
//! - B3. The index, if it is there, has the leaf of every character.
//! - B4. No node is over its size, and but for the root none is empty.
//! - B5. No two neighbours in one leaf could be one run.
//! - B6. Leaves are chained in order, beginning with leaf 0.
//! - B7. `oldest` of a leaf or a child is not newer than the first character of any run below.
//! - B8. The cursor is on a run or at the end of a leaf; what it says of that place is true.
//!
//! Cost: O(log n) for each operation and run that it touches, O(1) under the cursor; the fan-out bounds
//! the rest. B7 is a bound, not the minimum, since that would cost a split a clock for each run; a look
//! that the bound misled makes it exact, so that there are at most two such looks for each split.

mod cursor;
mod edit;
mod invariants;
mod load;
mod nodes;
mod standing;

use std::sync::OnceLock;

use smallvec::SmallVec;

use super::authors::{Authors, CharId};
use super::index::Index;
use super::lengths::{Lengths, TextUnit};
use super::run::Run;
use crate::id::OpId;
use cursor::Cursor;
pub(crate) use load::{Fate, Piece};
use nodes::{Child, Inner, Leaf};

/// The most runs, and the most bytes of text, of a leaf; the most children of an inner node. Small
/// ones make tests see many levels.
const LEAF_RUNS: usize = if cfg!(any(test, feature = "small-nodes")) { 4 } else { 32 };
const LEAF_BYTES: usize = if cfg!(any(test, feature = "small-nodes")) { 16 } else { 1_024 };
const FAN_OUT: usize = if cfg!(any(test, feature = "small-nodes")) { 3 } else { 16 };

// A run's lengths have 16 bits, and a leaf may take as much again before it is split.
const _: () = assert!(2 * LEAF_BYTES <= u16::MAX as usize);

const NONE: u32 = u32::MAX;
const FIRST_LEAF: u32 = 0;

/// One of the two characters beside a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The one that ends there.
    Before,
    /// The one that begins there.
    After,
}

/// A run, or the end of a leaf, and where in the leaf's text it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    leaf: u32,
    run: usize,
    byte: usize,
}

/// A place between characters that show, as a byte of a leaf's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seam {
    leaf: u32,
    byte: usize,
}

/// A position that was found inside or at the edge of a visible run.
#[derive(Clone, Copy, Debug)]
struct Found {
    spot: Spot,
    /// How much shows before the run.
    at: Lengths,
    /// How much of the run shows before the position.
    cut: Lengths,
}

/// Where a character is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CharPosition {
    /// How much shows before it.
    pub(crate) before: Lengths,
    /// Its own length; zero if it was deleted.
    pub(crate) shown: Lengths,
}

/// A leaf and the nodes above it, from the leaf upwards.
type Path = SmallVec<[u32; 8]>;

/// The runs of one text.
#[derive(Clone, Debug)]
pub(super) struct RunTree {
    leaves: Vec<Leaf>,
    inners: Vec<Inner>,
    root: u32,
    /// How many levels of inner nodes are above the leaves.
    height: usize,
    /// How much shows in all; always up to date.
    shown: Lengths,
    authors: Authors,
    /// A text that was loaded gets it when it is first needed.
    index: OnceLock<Index>,
    cursor: Cursor,
}

impl RunTree {
    /// How much shows.
    #[inline]
    pub(super) const fn shown(&self) -> Lengths {
        self.shown
    }

    /// Whether the tree has hardly more leaves than so many runs need.
    pub(super) fn is_within(&self, runs: usize) -> bool {
        self.leaves.len() <= 1 + runs / LEAF_RUNS
    }

    /// The character beside a position; none if there is none on that side. `None` if the position is
    /// not between two characters.
    pub(super) fn char_beside(
        &self,
        position: usize,
        unit: TextUnit,
        side: Side,
    ) -> Option<Option<OpId>> {
        let len = self.shown.in_unit(unit);
        let edge = if side == Side::Before { 0 } else { len };
        if position == edge {
            return Some(None);
        }
        let found = self.find(position, unit, side)?;
        let run = self.run(found.spot)?;
        let offset = match side {
            Side::Before => found.cut.chars - 1,
            Side::After => found.cut.chars,
        };
        Some(Some(self.authors.op(run.first.plus(u32::try_from(offset).ok()?))))
    }

    /// A position in every unit, if it is between two characters.
    pub(super) fn measure(&self, position: usize, unit: TextUnit) -> Option<Lengths> {
        if position == 0 {
            return Some(Lengths::ZERO);
        }
        self.find(position, unit, Side::Before).map(|found| found.at + found.cut)
    }

    /// The place at a position, if it is between two characters.
    pub(super) fn seam(&self, position: usize, unit: TextUnit) -> Option<Seam> {
        if position == 0 {
            return Some(Seam { leaf: FIRST_LEAF, byte: 0 });
        }
        let Found { spot, cut, .. } = self.find(position, unit, Side::Before)?;
        Some(Seam { leaf: spot.leaf, byte: spot.byte + cut.bytes })
    }

    /// Where the character `id` is, if it is in this text. O(log n), or a look at every run while a
    /// text that was loaded has not been edited.
    pub(super) fn position_of(&self, id: OpId) -> Option<CharPosition> {
        let id = self.authors.find(id)?;
        let (leaf, number) = self.locate(id)?;
        let mut before = self.before_leaf(leaf);
        let mut spot = Spot { leaf, run: 0, byte: 0 };
        for run in &self.leaves[leaf as usize].runs[..number] {
            before += run.lengths();
            spot.byte += run.lengths().bytes;
        }
        spot.run = number;
        let (run, text) = (self.run(spot)?, self.run_text(spot));
        let offset = run.offset_of(id);
        let start = run.beginning(text, offset);
        let shown = run.beginning(text, offset + 1) - start;
        Some(CharPosition { before: before + start, shown })
    }

    /// What shows between two places, leaf by leaf.
    pub(super) const fn chunks(&self, from: Seam, to: Seam) -> Chunks<'_> {
        Chunks { leaves: self.leaves.as_slice(), next: Some(from), to }
    }

    /// The place behind everything.
    pub(super) fn end(&self) -> Seam {
        let leaf = self.last_leaf();
        Seam { leaf, byte: self.leaves[leaf as usize].text.len() }
    }

    fn run(&self, spot: Spot) -> Option<&Run> {
        self.leaves[spot.leaf as usize].runs.get(spot.run)
    }

    fn run_text(&self, spot: Spot) -> &str {
        let bytes = self.run(spot).map_or(0, |run| run.lengths().bytes);
        &self.leaves[spot.leaf as usize].text[spot.byte..spot.byte + bytes]
    }

    /// The run with the character on one side of a position, if the position is at its edge.
    fn find(&self, position: usize, unit: TextUnit, side: Side) -> Option<Found> {
        let (leaf, mut at) = self.descend(position, unit, side)?;
        let mut spot = Spot { leaf, run: 0, byte: 0 };
        for run in &self.leaves[leaf as usize].runs {
            let (lengths, left) = (run.lengths(), position - at.in_unit(unit));
            if reaches(lengths.in_unit(unit), left, side) {
                let cut = run.cut(self.run_text(spot), left, unit)?;
                return Some(Found { spot, at, cut });
            }
            at += lengths;
            spot.byte += lengths.bytes;
            spot.run += 1;
        }
        None
    }

    /// The leaf with the character on one side of a position, and how much shows before the leaf.
    fn descend(&self, position: usize, unit: TextUnit, side: Side) -> Option<(u32, Lengths)> {
        if !reaches(self.shown.in_unit(unit), position, side) {
            return None;
        }
        let path = self.pending_path();
        let (mut node, mut at) = (self.root, Lengths::ZERO);
        for level in (0..self.height).rev() {
            let children = &self.inners[node as usize].children;
            node = children.iter().find_map(|child| {
                let shown = self.shown_below(child, level, &path);
                if reaches(shown.in_unit(unit), position - at.in_unit(unit), side) {
                    return Some(child.node);
                }
                at += shown;
                None
            })?;
        }
        Some((node, at))
    }

    /// How much shows before a leaf.
    fn before_leaf(&self, leaf: u32) -> Lengths {
        let path = self.pending_path();
        let mut before = Lengths::ZERO;
        let (mut node, mut parent) = (leaf, self.leaves[leaf as usize].parent);
        for level in 0..self.height {
            let here = &self.inners[parent as usize];
            for child in here.children.iter().take_while(|child| child.node != node) {
                before += self.shown_below(child, level, &path);
            }
            (node, parent) = (parent, here.parent);
        }
        before
    }

    /// How much shows below a child, which is on `level`, counted from the leaves.
    fn shown_below(&self, child: &Child, level: usize, path: &Path) -> Lengths {
        if path.get(level) == Some(&child.node) {
            return child.shown + self.cursor.pending;
        }
        child.shown
    }

    /// The nodes of which the nodes above do not know the length: none, or those from the cursor's
    /// leaf upwards.
    fn pending_path(&self) -> Path {
        let mut path = Path::new();
        if self.cursor.pending != Lengths::ZERO {
            let leaf = self.cursor.spot.leaf;
            path.push(leaf);
            let mut parent = self.leaves[leaf as usize].parent;
            while parent != NONE {
                path.push(parent);
                parent = self.inners[parent as usize].parent;
            }
        }
        path
    }

    /// The leaf and the number of the run that has the character `id`.
    fn locate(&self, id: CharId) -> Option<(u32, usize)> {
        let is_in = |leaf: &Leaf| leaf.runs.iter().position(|run| run.contains(id));
        let leaf = self.index().leaf_of(id);
        is_in(&self.leaves[leaf as usize]).map(|run| (leaf, run))
    }

    fn last_leaf(&self) -> u32 {
        let mut node = self.root;
        for _ in 0..self.height {
            node = self.inners[node as usize].children.last().map_or(FIRST_LEAF, |last| last.node);
        }
        node
    }
}

/// Whether the character on one side of a position, `left` units on, is among the next `len` units.
#[inline]
fn reaches(len: usize, left: usize, side: Side) -> bool {
    match side {
        Side::Before => left <= len,
        Side::After => left < len,
    }
}

/// Pieces of a text, in order; none is empty.
#[derive(Clone, Debug)]
pub(crate) struct Chunks<'a> {
    leaves: &'a [Leaf],
    next: Option<Seam>,
    to: Seam,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            let Seam { leaf, byte } = self.next?;
            let here = &self.leaves[leaf as usize];
            let chunk = if leaf == self.to.leaf {
                self.next = None;
                &here.text[byte..self.to.byte]
            } else {
                self.next = Some(Seam { leaf: here.next, byte: 0 });
                &here.text[byte..]
            };
            if !chunk.is_empty() {
                return Some(chunk);
            }
        }
    }
}

#[cfg(test)]
impl RunTree {
    /// How many runs there are.
    pub(super) fn run_count(&self) -> usize {
        self.leaves.iter().map(|leaf| leaf.runs.len()).sum()
    }

    /// How many levels the tree has.
    pub(super) const fn levels(&self) -> usize {
        self.height + 1
    }
}
