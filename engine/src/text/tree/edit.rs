//! Edits at the cursor.
#![expect(clippy::cast_possible_truncation, reason = "a piece of text fits a leaf")]

use std::ops::Range;

use smallvec::SmallVec;

use super::cursor::{Cursor, Tip};
use super::{Authors, LEAF_BYTES, Lengths, Run, RunTree, TextUnit};
use crate::id::{OpId, Stamp};
use crate::op::IdRange;
use crate::text::Gone;

impl RunTree {
    /// Moves the cursor on, from a place in its run to the first place whose next run is older than
    /// `stamp`, and returns the place in the run that it is on then.
    #[inline]
    pub(in crate::text) fn skip_newer(
        &mut self,
        offset: u32,
        stamp: Stamp,
        clock: &impl Fn(OpId) -> Stamp,
    ) -> u32 {
        let runs = &self.leaves[self.cursor.spot.leaf as usize].runs;
        let Some(run) = runs.get(self.cursor.spot.run) else {
            return self.skip_runs(self.cursor.spot.run, offset, stamp, clock);
        };
        if offset == run.len {
            let newer = self.cursor.tip.as_ref().and_then(|tip| tip.newer);
            if newer.is_some_and(|newer| newer <= stamp) {
                return offset;
            }
        } else if clock(self.authors.op(run.first.plus(offset))) < stamp {
            return offset;
        }
        self.skip_runs(self.cursor.spot.run + 1, offset, stamp, clock)
    }

    /// The same, where what is left of the cursor's run is newer; `from` is the run after it.
    fn skip_runs(
        &mut self,
        from: usize,
        offset: u32,
        stamp: Stamp,
        clock: &impl Fn(OpId) -> Stamp,
    ) -> u32 {
        let mut leaf = self.cursor.spot.leaf;
        let is_older = |run: &Run| clock(self.authors.op(run.first)) < stamp;
        let rest = &self.leaves[leaf as usize].runs[from..];
        match rest.iter().position(is_older) {
            Some(0) if self.ends_at(offset) => return offset,
            Some(skipped) => {
                self.go_to(leaf, from + skipped);
                return 0;
            }
            None => {}
        }
        let is_at_end = rest.is_empty() && self.ends_at(offset);
        while let Some(next) = self.next_leaf_with_older(leaf, stamp) {
            leaf = next;
            let is_older = |run: &Run| clock(self.authors.op(run.first)) < stamp;
            match self.leaves[leaf as usize].runs.iter().position(is_older) {
                // The end of the run is the same place as the start of the next leaf.
                Some(0) if is_at_end && self.follows_cursor(leaf) => return offset,
                Some(skipped) => {
                    self.go_to(leaf, skipped);
                    return 0;
                }
                None => self.tighten(leaf, clock),
            }
        }
        leaf = self.last_leaf();
        if is_at_end && self.cursor.spot.leaf == leaf {
            return offset;
        }
        self.go_to(leaf, self.leaves[leaf as usize].runs.len());
        0
    }

    fn ends_at(&self, offset: u32) -> bool {
        self.run(self.cursor.spot).is_some_and(|run| run.len == offset)
    }

    fn follows_cursor(&self, leaf: u32) -> bool {
        self.leaves[self.cursor.spot.leaf as usize].next == leaf
    }

    /// Puts new characters at a place in the cursor's run. They take consecutive ids from that of
    /// `stamp` on, and none is older than that. Returns how many they are.
    pub(in crate::text) fn insert(&mut self, mut offset: u32, stamp: Stamp, text: &str) -> u64 {
        let (mut first, mut rest) = (stamp.op(), text);
        while !rest.is_empty() {
            let mut piece = &rest[..rest.floor_char_boundary(LEAF_BYTES)];
            let mut lengths = Lengths::of(piece);
            let id = self.authors.find_or_add(first);
            if lengths.chars as u64 > Authors::room(id) {
                let end = piece.char_indices().nth(Authors::room(id) as usize);
                piece = &piece[..end.map_or(piece.len(), |(byte, _)| byte)];
                lengths = Lengths::of(piece);
            }
            rest = &rest[piece.len()..];
            self.insert_run(offset, Run::visible(id, lengths), piece, stamp);
            first = first.plus(lengths.chars as u64);
            offset = self.run(self.cursor.spot).map_or(0, |run| run.len);
        }
        self.set_tip(Some(stamp));
        first.counter - stamp.counter
    }

    /// Notes that the last edit was at the end of the cursor's run.
    fn set_tip(&mut self, newer: Option<Stamp>) {
        let cursor = &self.cursor;
        self.cursor.tip = self.run(cursor.spot).filter(|run| !run.is_deleted()).map(|run| Tip {
            last: self.authors.op(run.first.plus(run.len - 1)),
            byte: cursor.spot.byte + run.lengths().bytes,
            at: cursor.at.map(|at| at + run.lengths()),
            newer,
        });
    }

    /// Typing that goes on: puts characters behind the cursor's run, if the last ones went there, their
    /// ids go on, and there is room. Returns how many they are.
    #[inline]
    pub(in crate::text) fn extend(
        &mut self,
        origin: OpId,
        stamp: Stamp,
        text: &str,
    ) -> Option<u64> {
        let tip = self.cursor.tip.as_ref()?;
        let goes_on = tip.last == origin && tip.newer.is_some_and(|newer| newer <= stamp);
        if goes_on { self.extend_tip(stamp, text) } else { None }
    }

    /// The same, where it is known that nothing newer comes next.
    #[inline]
    fn extend_tip(&mut self, stamp: Stamp, text: &str) -> Option<u64> {
        let Cursor { spot, tip, pending, .. } = &mut self.cursor;
        let tip = tip.as_mut()?;
        let leaf = &mut self.leaves[spot.leaf as usize];
        if tip.last.plus(1) != stamp.op() || leaf.text.len() + text.len() > LEAF_BYTES {
            return None;
        }
        let run = leaf.runs.get_mut(spot.run)?;
        let (id, added) = (run.end(), Lengths::of(text));
        let len = added.chars as u32;
        if run.len.checked_add(len).is_none() || !self.authors.extend(id, len) {
            return None;
        }
        run.join(&Run::visible(id, added));
        leaf.insert_text(tip.byte, text);
        tip.last.counter += u64::from(len);
        tip.byte += added.bytes;
        if let Some(at) = &mut tip.at {
            *at += added;
        }
        self.shown += added;
        *pending += added;
        Some(len.into())
    }

    /// Typing that goes on at a position, by the author of what is newest here. Returns the origin, and
    /// how many characters there are.
    #[inline]
    pub(in crate::text) fn type_on(
        &mut self,
        at: usize,
        unit: TextUnit,
        text: &str,
        stamp: Stamp,
    ) -> Option<(OpId, u64)> {
        let tip = self.cursor.tip.as_ref()?;
        if tip.at.as_ref()?.in_unit(unit) != at || text.is_empty() {
            return None;
        }
        let origin = tip.last;
        let len = self.extend_tip(stamp, text)?;
        if let Some(tip) = &mut self.cursor.tip
            && tip.newer.is_none()
        {
            tip.newer = Some(stamp);
        }
        Some((origin, len))
    }

    /// Deleting that goes on: removes a range at the end or at the start of the cursor's run, if some of
    /// that is left and it is ASCII. Returns which characters.
    #[inline]
    pub(in crate::text) fn erase_on(
        &mut self,
        range: &Range<usize>,
        unit: TextUnit,
    ) -> Option<IdRange> {
        let len = range.end - range.start;
        let run = self.run(self.cursor.spot)?;
        if run.is_deleted() || !run.is_ascii() || len >= run.len as usize {
            return None;
        }
        if let Some((_, chars)) = self.range_at_tip(range, unit) {
            return self.shorten(chars.first, chars.len, &mut |_| {}).then_some(chars);
        }
        if self.cursor.at?.in_unit(unit) != range.start {
            return None;
        }
        let chars = IdRange { first: self.authors.op(run.first), len: len as u64 };
        self.shorten_front(0, chars.first, len as u32, &mut |_| {}).then_some(chars)
    }

    /// Puts a run at a place in the cursor's run, and the cursor on it.
    fn insert_run(&mut self, offset: u32, new: Run, text: &str, stamp: Stamp) {
        let rest = self.pass(offset);
        let spot = self.cursor.spot;
        let leaf = &mut self.leaves[spot.leaf as usize];
        leaf.insert_text(spot.byte, text);
        match leaf.runs[..spot.run].last_mut() {
            Some(before) if before.continues_with(&new) => {
                let shown = before.lengths();
                before.join(&new);
                self.cursor.step_back(shown);
                leaf.replace_runs(spot.run, spot.run, rest.as_slice());
            }
            _ => match rest {
                Some(rest) => leaf.replace_runs(spot.run, spot.run, &[new, rest]),
                None => leaf.replace_runs(spot.run, spot.run, &[new]),
            },
        }
        self.shown += new.lengths();
        self.cursor.pending += new.lengths();
        let are_last = self.authors.end_of(new.first) <= new.first;
        self.authors.reach(new.first.plus(new.len - 1));
        if let Some(index) = self.index.get_mut() {
            index.assign(new.first..new.end(), spot.leaf, are_last);
        }
        self.lower_bound(spot.leaf, stamp);
        self.split_if_full();
    }

    /// Moves the cursor to what comes after a place in its run. If that is the rest of the run, it is
    /// cut off and has to be put back.
    #[inline]
    fn pass(&mut self, offset: u32) -> Option<Run> {
        if offset == 0 {
            return None;
        }
        let kept_text = self.run_text(self.cursor.spot);
        let run = self.run(self.cursor.spot)?;
        let is_whole = offset == run.len;
        let kept = if is_whole { run.lengths() } else { run.beginning(kept_text, offset) };
        let spot = self.cursor.spot;
        self.cursor.step(kept);
        let run = &mut self.leaves[spot.leaf as usize].runs[spot.run];
        if is_whole { None } else { Some(run.split_off(offset, kept)) }
    }

    /// Deletes the visible characters among `len` ids from `first` on, and hands each piece of them
    /// to `gone`, on request with its place.
    #[inline]
    pub(in crate::text) fn delete(
        &mut self,
        first: OpId,
        len: u64,
        tells_place: bool,
        mut gone: impl FnMut(Gone<'_>),
    ) {
        if tells_place {
            self.locate_cursor();
        }
        if self.shorten(first, len, &mut gone) {
            return;
        }
        if let Some(id) = self.authors.find(first)
            && let Some(run) = self.run(self.cursor.spot)
            && run.contains(id)
            && id.distance_from(run.first) + len <= u64::from(run.len)
        {
            let offset = run.offset_of(id);
            if !run.is_deleted() && !self.shorten_front(offset, first, len as u32, &mut gone) {
                self.delete_here(offset, offset + len as u32, &mut gone);
            }
            return;
        }
        for (mut from, to) in self.authors.ranges(first, len) {
            while from < to {
                let Some(offset) = self.seek_id(from) else {
                    from = self.next_char(from);
                    continue;
                };
                if tells_place {
                    self.locate_cursor();
                }
                let Some(run) = self.run(self.cursor.spot).copied() else { break };
                let upto = run.end().min(to);
                if !run.is_deleted() {
                    let len = upto.distance_from(from) as u32;
                    self.delete_here(offset, offset + len, &mut gone);
                }
                from = upto;
            }
        }
    }

    /// Deleting backwards that goes on: deletes the last characters of the cursor's run, if they are
    /// ASCII, some are left, and what comes next is a deleted run that they continue with.
    #[inline]
    fn shorten(&mut self, first: OpId, len: u64, gone: &mut impl FnMut(Gone<'_>)) -> bool {
        let Some(tip) = self.cursor.tip.as_mut() else { return false };
        let spot = self.cursor.spot;
        let leaf = &mut self.leaves[spot.leaf as usize];
        let [run, next, ..] = &mut leaf.runs[spot.run..] else { return false };
        let is_tail = first.plus(len - 1) == tip.last && len < u64::from(run.len);
        if !is_tail || !run.is_ascii() || !next.is_deleted() || next.first != run.end() {
            return false;
        }
        let (len, gone_text) = (len as usize, tip.byte - len as usize..tip.byte);
        if !next.extend_back(len as u32) {
            return false;
        }
        let shown = Lengths::ascii(len);
        tip.at = tip.at.map(|at| at - shown);
        gone(Gone { first, text: &leaf.text[gone_text.clone()], at: tip.at });
        leaf.text.drain(gone_text);
        run.shorten_ascii(len as u32);
        tip.last.counter -= len as u64;
        tip.byte -= len;
        tip.newer = None;
        self.shown -= shown;
        self.cursor.pending -= shown;
        true
    }

    /// Deleting forwards that goes on: deletes the first characters of the cursor's run, if they are
    /// ASCII, some are left, and the run before is a deleted one that goes on with them.
    #[inline]
    fn shorten_front(
        &mut self,
        offset: u32,
        first: OpId,
        len: u32,
        gone: &mut impl FnMut(Gone<'_>),
    ) -> bool {
        let spot = self.cursor.spot;
        let leaf = &mut self.leaves[spot.leaf as usize];
        let Some(before) = spot.run.checked_sub(1) else { return false };
        let [before, run, ..] = &mut leaf.runs[before..] else { return false };
        let deleted = Run::deleted(run.first, len);
        if offset > 0 || len >= run.len || !run.is_ascii() || !before.continues_with(&deleted) {
            return false;
        }
        before.join(&deleted);
        run.shorten_front_ascii(len);
        let shown = Lengths::ascii(len as usize);
        let gone_text = spot.byte..spot.byte + shown.bytes;
        gone(Gone { first, text: &leaf.text[gone_text.clone()], at: self.cursor.at });
        leaf.text.drain(gone_text);
        self.shown -= shown;
        self.cursor.pending -= shown;
        self.cursor.tip = None;
        true
    }

    /// Deletes some characters of the cursor's run, which is visible.
    fn delete_here(&mut self, from: u32, to: u32, gone: &mut impl FnMut(Gone<'_>)) {
        let spot = self.cursor.spot;
        let text = self.run_text(spot);
        let leaf = &self.leaves[spot.leaf as usize];
        let mut head = leaf.runs[spot.run];
        let kept = head.beginning(text, from);
        let upto = if to == head.len { head.lengths() } else { head.beginning(text, to) };
        let first = head.first.plus(from);
        let at = self.cursor.at.map(|at| at + kept);
        gone(Gone { first: self.authors.op(first), text: &text[kept.bytes..upto.bytes], at });
        let tail = head.split_off(to, upto);
        let mut middle = Run::deleted(first, to - from);
        let (mut start, mut end) = (spot.run, spot.run + 1);
        let mut runs: SmallVec<[Run; 3]> = SmallVec::new();
        if from > 0 {
            runs.push(Run::visible(head.first, kept));
        } else if let Some(before) = leaf.runs[..start].last()
            && before.continues_with(&middle)
        {
            middle = Run::deleted(before.first, before.len + middle.len);
            start -= 1;
        }
        if tail.len == 0
            && let Some(after) = leaf.runs.get(end)
            && middle.continues_with(after)
        {
            middle.join(after);
            end += 1;
        }
        runs.push(middle);
        if tail.len > 0 {
            runs.push(tail);
        }
        let leaf = &mut self.leaves[spot.leaf as usize];
        leaf.text.drain(spot.byte + kept.bytes..spot.byte + upto.bytes);
        leaf.replace_runs(start, end, &runs);
        // Of the run before, if that took this one in, nothing shows.
        self.cursor.spot.run = start;
        self.shown -= upto - kept;
        self.cursor.pending -= upto - kept;
        self.cursor.tip = None;
        self.split_if_full();
        if from > 0 && tail.len == 0 {
            self.set_tip(None);
        }
    }
}
