//! The characters of one text, as the state has them.

use crate::batch::to_usize;
use crate::id::{EntryId, Life, OpId, ReplicaId, Stamp};
use crate::op::Op;
use crate::text::{Fate, Piece};
use crate::value::{Field, char_count, split_chars};

/// A text that was spliced and still counts.
#[derive(Debug)]
pub(super) struct ToldText<'a> {
    pub(super) entry: EntryId,
    pub(super) life: Life,
    pub(super) field: Field,
    pub(super) set: OpId,
    /// Characters with consecutive ids, in the order in which they stand.
    runs: Vec<ToldRun<'a>>,
    /// The runs of the log that are gone, by how many such characters stand before.
    gone: Vec<(u64, OpId)>,
    pub(super) gone_count: u64,
}

/// Characters with consecutive ids that stand together and share a fate.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToldRun<'a> {
    pub(super) first: OpId,
    pub(super) len: u64,
    /// What shows; none if they are gone.
    pub(super) shown: Option<&'a str>,
    /// Whether they are gone, but in the log.
    pub(super) is_lost: bool,
    /// After which character the first was inserted.
    pub(super) origin: Option<OpId>,
    /// How many characters of the log that are gone stand before.
    pub(super) gone_before: u64,
}

impl<'a> ToldText<'a> {
    pub(super) fn new(
        (entry, life, field, set): (EntryId, Life, Field, OpId),
        pieces: impl Iterator<Item = Piece<'a>>,
        clock: &dyn Fn(OpId) -> Stamp,
        floor: &dyn Fn(ReplicaId) -> u64,
    ) -> Self {
        let (runs, gone) = (Vec::new(), Vec::new());
        let mut text = Self { entry, life, field, set, runs, gone, gone_count: 0 };
        let mut origins = Origins { clock, before: Vec::new() };
        for piece in pieces {
            let first = piece.first;
            let (len, shown) = match piece.fate {
                Fate::Visible(shown) => (char_count(shown), Some(shown)),
                Fate::Deleted(len) => (len, None),
            };
            let origin = origins.of(first, len);
            let whole = ToldRun { first, len, shown, is_lost: false, origin, gone_before: 0 };
            let floor = floor(first.replica).clamp(first.counter, first.counter + len);
            text.push(whole.part(first.counter, floor), false);
            text.push(whole.part(floor, whole.end()), true);
        }
        text
    }

    fn push(&mut self, run: Option<ToldRun<'a>>, is_in_log: bool) {
        let Some(run) = run.filter(|run| run.len > 0) else { return };
        let is_lost = is_in_log && run.shown.is_none();
        self.runs.push(ToldRun { gone_before: self.gone_count, is_lost, ..run });
        if is_lost {
            self.gone.push((self.gone_count, run.first));
            self.gone_count += run.len;
        }
    }

    pub(super) fn run(&self, at: usize) -> Option<&ToldRun<'a>> {
        self.runs.get(at)
    }

    /// Where each run is, and with which character it begins.
    pub(super) fn run_starts(&self) -> impl Iterator<Item = (usize, OpId)> {
        self.runs.iter().enumerate().map(|(at, run)| (at, run.first))
    }

    /// The character of the log before which so many that are gone too stand.
    pub(super) fn gone_at(&self, rank: u64) -> Option<OpId> {
        let at = self.gone.partition_point(|(before, _)| *before <= rank);
        let (before, first) = self.gone.get(at.checked_sub(1)?)?;
        (rank < self.gone_count).then(|| first.plus(rank - before))
    }

    /// The op that typed characters.
    pub(super) fn insert(&self, origin: Option<OpId>, text: String) -> Op {
        let Self { entry, life, set, .. } = *self;
        Op::Insert { entry, life, field: self.field.clone(), set, origin, text }
    }

    /// Whether an op edits this text.
    pub(super) fn is_edited_by(&self, op: &Op) -> bool {
        op.edited_text() == Some((self.entry, self.life, &self.field, self.set))
    }
}

impl<'a> ToldRun<'a> {
    pub(super) const fn end(&self) -> u64 {
        self.first.counter + self.len
    }

    pub(super) fn has(&self, id: OpId) -> bool {
        id.replica == self.first.replica && (self.first.counter..self.end()).contains(&id.counter)
    }

    pub(super) fn origin_of(&self, id: OpId) -> Option<OpId> {
        if id == self.first {
            return self.origin;
        }
        Some(OpId { counter: id.counter.checked_sub(1)?, ..id })
    }

    /// How many characters of the log that are gone stand before one of the run.
    pub(super) const fn rank_of(&self, id: OpId) -> u64 {
        let inside = if self.is_lost { id.counter - self.first.counter } else { 0 };
        self.gone_before + inside
    }

    /// What of the run lies from one counter to another.
    pub(super) fn part(&self, from: u64, to: u64) -> Option<Self> {
        let (before, to) = (from.checked_sub(self.first.counter)?, to.min(self.end()));
        let len = to.checked_sub(from)?;
        let first = OpId { counter: from, ..self.first };
        let (skip, keep) = (to_usize(before), to_usize(len));
        let shown = self.shown.map(|shown| split_chars(split_chars(shown, skip).1, keep).0);
        Some(Self { first, len, shown, origin: self.origin_of(first), ..*self })
    }
}

/// Finds out after which character each was inserted: the nearest before it that is older.
struct Origins<'a> {
    clock: &'a dyn Fn(OpId) -> Stamp,
    /// Runs before, but for what is newer than something behind it; stamps rise along them.
    before: Vec<(OpId, u64)>,
}

impl Origins<'_> {
    fn of(&mut self, first: OpId, len: u64) -> Option<OpId> {
        if let Some((last, so_far)) = self.before.last_mut()
            && last.plus(*so_far) == first
        {
            let origin = last.plus(*so_far - 1);
            *so_far += len;
            return Some(origin);
        }
        let stamp = (self.clock)(first);
        while self.before.last().is_some_and(|(run, _)| (self.clock)(*run) > stamp) {
            self.before.pop();
        }
        let clock = self.clock;
        let origin = self.before.last_mut().map(|(run, len)| {
            // Its first character is older.
            let (mut older, mut newer) = (1, *len);
            while older < newer {
                let middle = older + (newer - older) / 2;
                if clock(run.plus(middle)) < stamp { older = middle + 1 } else { newer = middle }
            }
            *len = older;
            run.plus(older - 1)
        });
        self.before.push((first, len));
        origin
    }
}
