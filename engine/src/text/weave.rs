//! A text while a patch brings many edits of it: a list of characters, made a tree again in the end.
//!
//! Nobody asks for positions meanwhile, so that nothing but the order of the characters has to be
//! kept: an insertion links some in, a deletion marks some. Each character has a cell, and an author's
//! cells stand in the order of their counters, so that an id leads to its cell without a search and
//! the cells of a run stand side by side. Where an author's counters have a gap, there are empty cells
//! or, if it is wide or others were in between, another stretch begins.
//!
//! What this form is bad at is left to the tree: places where much that is newer has to be skipped, and
//! deleting the same again and again. Who meets one of these gives up, and the edits go on in the tree.
//!
//! Invariants:
//! - W1. From `HEAD` on, `next` goes through the cells of all characters in their order.
//! - W2. Stretches stand in the order of their cells, those of an author also in that of counters.
//!
//! Cost: O(1) for each edit and each character that it inserts or deletes; for each author that had
//! others between its own edits, a binary search.
#![expect(clippy::cast_possible_truncation, reason = "what does not fit is given up before")]

use hashbrown::HashMap;

use super::tree::{Fate, Piece};
use crate::id::{OpId, ReplicaId, Stamp};
use crate::op::IdRange;
use crate::value::char_count;

const NONE: u32 = u32::MAX;
/// The place before the first character.
const HEAD: u32 = 0;

/// So many counters that are no characters get empty cells.
const GAP_MAX: u64 = if cfg!(any(test, feature = "small-nodes")) { 2 } else { 64 };

/// A text may have so many deleted characters for each byte that shows.
const CELLS_EACH: usize = 8;

/// How many cells an edit may pass in vain, on average.
const STEPS_EACH: usize = 64;
const STEPS_FREE: usize = if cfg!(any(test, feature = "small-nodes")) { 8 } else { 1 << 16 };

/// The text in the making.
#[derive(Clone, Debug)]
pub(super) struct Weave {
    cells: Vec<Cell>,
    stretches: Vec<Stretch>,
    by_author: HashMap<ReplicaId, Vec<u32>>,
    /// The stretch in which something was found last.
    last: u32,
    text: String,
    /// The newest of all characters.
    newest: Option<Stamp>,
    /// How many steps are left.
    steps: usize,
}

/// A character.
#[derive(Clone, Copy, Debug)]
struct Cell {
    next: u32,
    /// Where in the text it is; with [`Cell::DELETED`] if it does not show.
    byte: u32,
}

impl Cell {
    const DELETED: u32 = 1 << 31;
    /// A cell of no character.
    const EMPTY: Self = Self { next: NONE, byte: u32::MAX };

    const fn is_deleted(self) -> bool {
        self.byte & Self::DELETED != 0
    }
}

/// Cells in a row with consecutive ids.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    first: OpId,
    cell: u32,
    len: u32,
}

impl Stretch {
    const fn end(&self) -> u32 {
        self.cell + self.len
    }

    fn cell_of(&self, id: OpId) -> Option<u32> {
        let offset = id.counter.checked_sub(self.first.counter)?;
        let is_here = id.replica == self.first.replica && offset < self.len.into();
        is_here.then(|| self.cell + offset as u32)
    }
}

/// The edit is not for this form; if anything of it was done, doing it again makes no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GivesUp;

impl Weave {
    /// The text that consists of these pieces, if this form is for it.
    pub(super) fn of<'a>(
        pieces: impl Iterator<Item = Piece<'a>>,
        clock: &impl Fn(OpId) -> Stamp,
    ) -> Option<Self> {
        let mut weave = Self {
            cells: vec![Cell { next: NONE, byte: 0 }],
            stretches: Vec::new(),
            by_author: HashMap::new(),
            last: 0,
            text: String::new(),
            newest: None,
            steps: STEPS_FREE,
        };
        let mut pieces: Vec<(usize, Piece<'a>)> = pieces.enumerate().collect();
        pieces.sort_unstable_by_key(|(_, piece)| (piece.first.replica, piece.first.counter));
        // What was deleted takes next to no room in the tree, but a cell each here.
        let visible = |(_, piece): &(usize, Piece<'_>)| match piece.fate {
            Fate::Visible(text) => text.len(),
            Fate::Deleted(_) => 0,
        };
        weave.steps += pieces.iter().map(visible).sum::<usize>() * CELLS_EACH;
        let mut made = vec![(HEAD, HEAD); pieces.len()];
        for (number, Piece { first, fate }) in pieces {
            made[number] = match fate {
                Fate::Visible(text) => weave.make(first, text).ok()?,
                Fate::Deleted(len) => weave.make_deleted(first, len).ok()?,
            };
            let (from, to) = made[number];
            let last = clock(first.plus(u64::from(to - from)));
            weave.newest = weave.newest.max(Some(last));
        }
        weave.steps = STEPS_FREE;
        let mut before = HEAD;
        for (first, last) in made {
            weave.link(before, (first, last));
            before = last;
        }
        Some(weave)
    }

    /// Puts characters after `origin`, as [`Text::insert`](super::Text::insert) does. Returns how many
    /// there are; nothing if there is no such origin.
    pub(super) fn insert(
        &mut self,
        origin: Option<OpId>,
        stamp: Stamp,
        text: &str,
        clock: &impl Fn(OpId) -> Stamp,
    ) -> Result<Option<u64>, GivesUp> {
        self.steps = self.steps.saturating_add(STEPS_EACH);
        let mut before = HEAD;
        if let Some(origin) = origin {
            let Some(cell) = self.find(origin) else { return Ok(None) };
            before = cell;
        }
        if self.newest.is_some_and(|newest| newest > stamp) {
            before = self.skip_newer(before, stamp, clock)?;
        }
        let (first, last) = self.make(stamp.op(), text)?;
        self.link(before, (first, last));
        let len = u64::from(last - first) + 1;
        let last = Stamp { counter: stamp.counter + len - 1, ..stamp };
        self.newest = self.newest.max(Some(last));
        Ok(Some(len))
    }

    /// Marks the characters in `range` that are here as deleted.
    pub(super) fn delete(&mut self, range: IdRange) -> Result<(), GivesUp> {
        self.steps = self.steps.saturating_add(STEPS_EACH);
        let (from, to) = (range.first.counter, range.first.counter.saturating_add(range.len));
        let Self { cells, stretches, by_author, last, steps, .. } = self;
        let one = stretches.get(*last as usize).filter(|stretch| {
            stretch.cell_of(range.first).is_some()
                && to - stretch.first.counter <= stretch.len.into()
        });
        let lone = [*last];
        let numbers = match one {
            Some(_) => &lone[..],
            None => by_author.get(&range.first.replica).map_or(&[][..], Vec::as_slice),
        };
        let start =
            numbers.partition_point(|number| stretches[*number as usize].first.counter <= from);
        for number in &numbers[start.saturating_sub(1)..] {
            let Stretch { first, cell, len } = stretches[*number as usize];
            if first.counter >= to {
                break;
            }
            let slot =
                |counter: u64| counter.saturating_sub(first.counter).min(len.into()) as usize;
            let cells = &mut cells[cell as usize..][slot(from)..slot(to)];
            let mut in_vain = 0;
            for cell in cells {
                in_vain += usize::from(cell.is_deleted());
                cell.byte |= Cell::DELETED;
            }
            *steps = steps.checked_sub(in_vain).ok_or(GivesUp)?;
        }
        Ok(())
    }

    /// All characters, in order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let mut next = self.cells[HEAD as usize].next;
        let mut known = 0;
        std::iter::from_fn(move || {
            let first = next;
            let cell = *self.cells.get(first as usize)?;
            known = self.stretch_of(first, known);
            let stretch = &self.stretches[known];
            let (mut last, is_deleted) = (first, cell.is_deleted());
            next = cell.next;
            while next == last + 1 && next < stretch.end() {
                let cell = self.cells[next as usize];
                if cell.is_deleted() != is_deleted {
                    break;
                }
                (last, next) = (next, cell.next);
            }
            let fate = if is_deleted {
                Fate::Deleted(u64::from(last - first) + 1)
            } else {
                Fate::Visible(&self.text[cell.byte as usize..self.end_of(last)])
            };
            Some(Piece { first: stretch.first.plus(u64::from(first - stretch.cell)), fate })
        })
    }

    /// Where in the text the character in a cell ends.
    fn end_of(&self, cell: u32) -> usize {
        let byte = self.cells[cell as usize].byte as usize;
        // How many ones a character's first byte begins with is how many bytes it has.
        byte + self.text.as_bytes()[byte].leading_ones().max(1) as usize
    }

    /// The number of the stretch that a cell is in, which is often known already.
    fn stretch_of(&self, cell: u32, known: usize) -> usize {
        let is_in = |stretch: &Stretch| stretch.cell <= cell && cell < stretch.end();
        if self.stretches.get(known).is_some_and(is_in) {
            return known;
        }
        // W2, and the first stretch begins behind the head.
        self.stretches.partition_point(|stretch| stretch.cell <= cell).saturating_sub(1)
    }

    /// The cell of a character.
    #[inline]
    fn find(&mut self, id: OpId) -> Option<u32> {
        let known = self.stretches.get(self.last as usize).and_then(|last| last.cell_of(id));
        let cell = match known {
            Some(cell) => cell,
            None => {
                let numbers = self.by_author.get(&id.replica)?;
                let is_before =
                    |number: &u32| self.stretches[*number as usize].first.counter <= id.counter;
                let at = numbers.partition_point(is_before).checked_sub(1)?;
                self.last = numbers[at];
                self.stretches[self.last as usize].cell_of(id)?
            }
        };
        (self.cells[cell as usize].byte != Cell::EMPTY.byte).then_some(cell)
    }

    /// The last of the cells from one on after which something older comes, or nothing.
    fn skip_newer(
        &mut self,
        mut before: u32,
        stamp: Stamp,
        clock: &impl Fn(OpId) -> Stamp,
    ) -> Result<u32, GivesUp> {
        let (mut known, mut run_end) = (0, HEAD);
        loop {
            let next = self.cells[before as usize].next;
            if next == NONE {
                return Ok(before);
            }
            // What goes on behind something newer is newer still.
            if next != before + 1 || next >= run_end {
                known = self.stretch_of(next, known);
                let stretch = &self.stretches[known];
                if clock(stretch.first.plus(u64::from(next - stretch.cell))) < stamp {
                    return Ok(before);
                }
                run_end = stretch.end();
            }
            before = next;
            self.steps = self.steps.checked_sub(1).ok_or(GivesUp)?;
        }
    }

    /// Makes cells for characters, which stand nowhere yet. Returns the first and the last.
    fn make(&mut self, first: OpId, text: &str) -> Result<(u32, u32), GivesUp> {
        let start = self.text.len();
        if start + text.len() >= Cell::DELETED as usize {
            return Err(GivesUp);
        }
        let len = char_count(text);
        let cells = self.reach(first, len)?;
        let cell = |(at, byte): (u32, usize)| Cell { next: at + 1, byte: (start + byte) as u32 };
        if len == text.len() as u64 {
            self.cells.extend((cells.0..).zip(0..text.len()).map(cell));
        } else {
            let bytes = text.char_indices().map(|(byte, _)| byte);
            self.cells.extend((cells.0..).zip(bytes).map(cell));
        }
        self.text.push_str(text);
        Ok(cells)
    }

    /// The same for characters that were deleted.
    fn make_deleted(&mut self, first: OpId, len: u64) -> Result<(u32, u32), GivesUp> {
        let cells = self.reach(first, len)?;
        self.steps = self.steps.checked_sub(len as usize).ok_or(GivesUp)?;
        self.cells.extend((cells.0..=cells.1).map(|at| Cell { next: at + 1, byte: Cell::DELETED }));
        Ok(cells)
    }

    /// Says that the next cells, the first and the last of which it returns, are of these ids.
    fn reach(&mut self, first: OpId, len: u64) -> Result<(u32, u32), GivesUp> {
        let known = self.stretches.last_mut().filter(|last| last.first.replica == first.replica);
        let gap = known.and_then(|last| {
            let gap = first.counter.checked_sub(last.first.counter + u64::from(last.len))?;
            (gap <= GAP_MAX).then_some((last, gap))
        });
        let cell = self.cells.len() as u64;
        let end = cell.checked_add(len).and_then(|end| end.checked_add(GAP_MAX));
        if len == 0 || end.is_none_or(|end| end >= NONE.into()) {
            return Err(GivesUp);
        }
        let cell = match gap {
            Some((last, gap)) => {
                last.len += (gap + len) as u32;
                self.cells.resize((cell + gap) as usize, Cell::EMPTY);
                cell + gap
            }
            None => {
                let numbers = self.by_author.entry(first.replica).or_default();
                let before = numbers.last().map(|last| &self.stretches[*last as usize]);
                if before
                    .is_some_and(|last| last.first.counter + u64::from(last.len) > first.counter)
                {
                    return Err(GivesUp);
                }
                numbers.push(self.stretches.len() as u32);
                self.stretches.push(Stretch { first, cell: cell as u32, len: len as u32 });
                cell
            }
        };
        Ok((cell as u32, (cell + len - 1) as u32))
    }

    /// Panics if W1 or W2 does not hold.
    pub(super) fn assert_invariants(&self) {
        let mut end = HEAD + 1;
        for (number, stretch) in self.stretches.iter().enumerate() {
            assert_eq!(stretch.cell, end, "W2: {stretch:?}");
            end = stretch.end();
            let numbers = &self.by_author[&stretch.first.replica];
            assert!(numbers.contains(&(number as u32)), "W2: {stretch:?} is not listed");
        }
        assert_eq!(end as usize, self.cells.len(), "W2: cells of no stretch");
        let listed = self.by_author.values().map(Vec::len).sum::<usize>();
        assert_eq!(listed, self.stretches.len(), "W2: a stretch is listed twice");
        for numbers in self.by_author.values() {
            assert!(numbers.is_sorted(), "W2: {numbers:?}");
            let stretch = |number: &u32| &self.stretches[*number as usize];
            for (a, b) in numbers.iter().zip(numbers.iter().skip(1)) {
                let (a, b) = (stretch(a), stretch(b));
                assert!(a.first.counter + u64::from(a.len) <= b.first.counter, "W2: {a:?} {b:?}");
            }
        }
        let mut is_seen = vec![false; self.cells.len()];
        let mut at = HEAD;
        while at != NONE {
            assert!(!std::mem::replace(&mut is_seen[at as usize], true), "W1: {at} comes twice");
            at = self.cells[at as usize].next;
        }
        for (at, cell) in self.cells.iter().enumerate().skip(1) {
            assert_eq!(is_seen[at], cell.byte != Cell::EMPTY.byte, "W1: {at}");
            let is_here = cell.is_deleted() || self.text.is_char_boundary(cell.byte as usize);
            assert!(is_here, "W1: {at}");
        }
    }

    /// Puts characters in a row behind a cell.
    #[inline]
    fn link(&mut self, before: u32, (first, last): (u32, u32)) {
        let next = std::mem::replace(&mut self.cells[before as usize].next, first);
        self.cells[last as usize].next = next;
    }
}
