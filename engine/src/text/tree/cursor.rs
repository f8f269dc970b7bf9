//! The place of the last edit, where the next one is likely to be.

use std::ops::Range;

use super::{CharId, FIRST_LEAF, LEAF_BYTES, Lengths, Run, RunTree, Side, Spot, TextUnit, reaches};
use crate::id::{OpId, Stamp};
use crate::op::IdRange;
use crate::text::{IdRanges, push_range};

/// How many runs to go from the cursor before taking the way through the nodes above.
const NEAR: usize = 8;

#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    /// The run, or the end of a leaf.
    pub(super) spot: Spot,
    /// How much shows before that; none if it was found by an id.
    pub(super) at: Option<Lengths>,
    /// By how much more the leaf shows than the nodes above it know.
    pub(super) pending: Lengths,
    /// The end of the cursor's run, if the last edit was there.
    pub(super) tip: Option<Tip>,
}

/// The end of a visible run, where somebody types.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tip {
    /// The last character.
    pub(super) last: OpId,
    /// Where in the leaf's text it ends.
    pub(super) byte: usize,
    /// How much shows up to its end, if that is known.
    pub(super) at: Option<Lengths>,
    /// A stamp than which whatever comes next is older, if that is known.
    pub(super) newer: Option<Stamp>,
}

impl Cursor {
    /// At the start of a text.
    pub(super) const START: Self = Self {
        spot: Spot { leaf: FIRST_LEAF, run: 0, byte: 0 },
        at: Some(Lengths::ZERO),
        pending: Lengths::ZERO,
        tip: None,
    };

    /// Goes on to the next run, which is `shown` further on.
    #[inline]
    pub(super) fn step(&mut self, shown: Lengths) {
        self.spot.run += 1;
        self.spot.byte += shown.bytes;
        self.at = self.at.map(|at| at + shown);
        self.tip = None;
    }

    /// Goes back to the run before, of which `shown` shows.
    #[inline]
    pub(super) fn step_back(&mut self, shown: Lengths) {
        self.spot.run -= 1;
        self.spot.byte -= shown.bytes;
        self.at = self.at.map(|at| at - shown);
        self.tip = None;
    }

    /// Stays with the character that it was behind while a run before it, or its own, is cut in two.
    pub(super) fn follow_cut(&mut self, run: usize, kept: Lengths) {
        if self.spot.run == run {
            self.step(kept);
        } else {
            self.spot.run += 1;
        }
    }
}

impl RunTree {
    /// Moves the cursor to the run of the visible character on one side of a position. Returns how much
    /// of the run shows before the position; none if there is no such character, or the position is
    /// inside of one.
    #[inline]
    pub(in crate::text) fn seek(
        &mut self,
        position: usize,
        unit: TextUnit,
        side: Side,
    ) -> Option<Lengths> {
        if !self.seek_near(position, unit, side) {
            self.flush();
            let found = self.find(position, unit, side)?;
            self.cursor.spot = found.spot;
            self.cursor.at = Some(found.at);
            self.cursor.tip = None;
            return Some(found.cut);
        }
        let run = self.run(self.cursor.spot)?;
        let left = position - self.cursor.at?.in_unit(unit);
        if run.is_ascii() {
            return Some(Lengths::ascii(left));
        }
        run.cut(self.run_text(self.cursor.spot), left, unit)
    }

    /// The same, if the character is a few runs away in the cursor's leaf. Whether it was.
    #[inline]
    fn seek_near(&mut self, position: usize, unit: TextUnit, side: Side) -> bool {
        let runs = &self.leaves[self.cursor.spot.leaf as usize].runs;
        let Some(mut at) = self.cursor.at else { return false };
        if position.abs_diff(at.in_unit(unit)) > LEAF_BYTES {
            return false;
        }
        let Spot { mut run, mut byte, leaf } = self.cursor.spot;
        for _ in 0..NEAR {
            let start = at.in_unit(unit);
            let is_behind = match side {
                Side::Before => start < position,
                Side::After => start <= position,
            };
            if !is_behind {
                let Some(before) = run.checked_sub(1) else { return false };
                let shown = runs[before].lengths();
                (run, byte, at) = (before, byte - shown.bytes, at - shown);
                continue;
            }
            let Some(here) = runs.get(run) else { return false };
            let shown = here.lengths();
            if reaches(shown.in_unit(unit), position - start, side) {
                if run != self.cursor.spot.run {
                    self.cursor.spot = Spot { leaf, run, byte };
                    self.cursor.at = Some(at);
                    self.cursor.tip = None;
                }
                return true;
            }
            (run, byte, at) = (run + 1, byte + shown.bytes, at + shown);
        }
        false
    }

    /// Moves the cursor to the start of the text.
    pub(in crate::text) fn seek_start(&mut self) {
        self.go_to(FIRST_LEAF, 0);
    }

    /// Moves the cursor to the run of a character; returns which one of the run it is. None if it is
    /// not in this text.
    #[inline]
    pub(in crate::text) fn seek_char(&mut self, op: OpId) -> Option<u32> {
        let id = self.authors.find(op)?;
        self.seek_id(id)
    }

    /// The same, by the short form of its id.
    #[inline]
    pub(super) fn seek_id(&mut self, id: CharId) -> Option<u32> {
        if let Some(run) = self.run(self.cursor.spot)
            && run.contains(id)
        {
            return Some(run.offset_of(id));
        }
        // After a deletion the next run, or the one before, is likely.
        let Spot { leaf, run, .. } = self.cursor.spot;
        let near = run.saturating_sub(1)..run + 3;
        for (run, found) in
            near.clone().zip(self.leaves[leaf as usize].runs.iter().skip(near.start))
        {
            if found.contains(id) {
                let offset = found.offset_of(id);
                self.go_to(leaf, run);
                return Some(offset);
            }
        }
        let (leaf, number) = self.locate(id)?;
        self.go_to(leaf, number);
        self.run(self.cursor.spot).map(|run| run.offset_of(id))
    }

    /// Moves the cursor to a run, or to the end of a leaf.
    pub(super) fn go_to(&mut self, leaf: u32, run: usize) {
        let runs = &self.leaves[leaf as usize].runs;
        if self.cursor.spot.leaf == leaf {
            while self.cursor.spot.run > run {
                self.cursor.step_back(runs[self.cursor.spot.run - 1].lengths());
            }
            while self.cursor.spot.run < run {
                self.cursor.step(runs[self.cursor.spot.run].lengths());
            }
            return;
        }
        let byte = runs[..run].iter().map(|run| run.lengths().bytes).sum();
        self.flush();
        let at = (leaf == FIRST_LEAF && byte == 0).then_some(Lengths::ZERO);
        self.cursor = Cursor { spot: Spot { leaf, run, byte }, at, ..Cursor::START };
    }

    /// Finds out how much shows before the cursor, if that is not known. O(log n).
    #[inline]
    pub(super) fn locate_cursor(&mut self) {
        if self.cursor.at.is_none() {
            let Spot { leaf, run, .. } = self.cursor.spot;
            let runs = &self.leaves[leaf as usize].runs[..run];
            let within = runs.iter().fold(Lengths::ZERO, |shown, run| shown + run.lengths());
            let at = self.before_leaf(leaf) + within;
            self.cursor.at = Some(at);
            let run = self.run(self.cursor.spot).map_or(Lengths::ZERO, Run::lengths);
            if let Some(tip) = &mut self.cursor.tip {
                tip.at = Some(at + run);
            }
        }
    }

    /// How much shows up to the end of an insertion that was the last thing to happen: that is where
    /// the cursor's run ends.
    #[inline]
    pub(in crate::text) fn end_of_insertion(&mut self) -> Lengths {
        self.locate_cursor();
        let run = self.run(self.cursor.spot).map_or(Lengths::ZERO, Run::lengths);
        self.cursor.at.unwrap_or(Lengths::ZERO) + run
    }

    /// The id of a character of the cursor's run.
    #[inline]
    pub(in crate::text) fn char_here(&self, offset: u32) -> Option<OpId> {
        self.run(self.cursor.spot).map(|run| self.authors.op(run.first.plus(offset)))
    }

    /// What a range of positions is, if it is at the end of the cursor's run: the character before it,
    /// and those in it. The usual case of typing and of deleting backwards.
    #[inline]
    pub(in crate::text) fn range_at_tip(
        &self,
        range: &Range<usize>,
        unit: TextUnit,
    ) -> Option<(OpId, IdRange)> {
        let tip = self.cursor.tip.as_ref()?;
        if tip.at?.in_unit(unit) != range.end {
            return None;
        }
        let len = (range.end - range.start) as u64;
        if len > 0 {
            let run = self.run(self.cursor.spot)?;
            if !run.is_ascii() || len >= u64::from(run.len) {
                return None;
            }
        }
        let before = OpId { counter: tip.last.counter - len, ..tip.last };
        Some((before, IdRange { first: before.plus(1), len }))
    }

    /// The visible characters in a range that is not empty. Moves the cursor to the first of them. None
    /// if the range ends inside a character or after the text.
    pub(in crate::text) fn chars_in(
        &mut self,
        range: &Range<usize>,
        unit: TextUnit,
    ) -> Option<IdRanges> {
        let mut from = self.seek(range.start, unit, Side::After)?;
        let mut spot = self.cursor.spot;
        let mut ranges = IdRanges::new();
        let mut left = range.end - range.start;
        loop {
            let Some(run) = self.run(spot) else {
                // There may be many leaves of which nothing shows.
                spot = self.find(range.end - left, unit, Side::After)?.spot;
                continue;
            };
            let shown = run.lengths();
            let rest = (shown - from).in_unit(unit);
            if rest > 0 {
                let upto = left.min(rest);
                let to = self.cut_here(spot, run, from.in_unit(unit) + upto, unit)?;
                left -= upto;
                push_range(&mut ranges, self.id_range(run, from.chars..to.chars));
                if left == 0 {
                    return Some(ranges);
                }
            }
            spot = Spot { run: spot.run + 1, byte: spot.byte + shown.bytes, ..spot };
            from = Lengths::ZERO;
        }
    }

    #[inline]
    fn cut_here(&self, spot: Spot, run: &Run, count: usize, unit: TextUnit) -> Option<Lengths> {
        if run.is_ascii() {
            return Some(Lengths::ascii(count));
        }
        run.cut(self.run_text(spot), count, unit)
    }

    #[inline]
    fn id_range(&self, run: &Run, chars: Range<usize>) -> IdRange {
        // Within a run, whose length fits.
        let from = u32::try_from(chars.start).unwrap_or(u32::MAX);
        let first = self.authors.op(run.first.plus(from));
        IdRange { first, len: (chars.end - chars.start) as u64 }
    }
}
