//! A text while a patch brings many edits of it: a list of runs, made a tree again in the end.
//!
//! Nobody asks for positions meanwhile, so that nothing but the order of the runs has to be kept: an
//! insertion cuts one run and links another in, a deletion marks runs. Which run a character is in
//! stands in a table, by the character's counter. A run that is cut keeps its larger part, and only
//! the smaller one is entered anew, so that a character is entered O(log n) times.
//!
//! What this form is bad at is left to the tree: counters with wide gaps, which would make the table
//! large, and places where many newer runs have to be skipped. Who meets one of these gives up, and
//! the edits go on in the tree.
//!
//! Invariants:
//! - W1. From `HEAD` on, `next` goes through all runs in their order, and `prev` back.
//! - W2. A table has the run of each character of its author.
//! - W3. The tables have no more than [`SLOTS_EACH`] places for each byte of text, and [`SLOTS_FREE`].
//!
//! Cost: O(1) for each edit and run that it touches, and O(log n) for each character.
#![expect(clippy::cast_possible_truncation, reason = "what does not fit is given up before")]

use hashbrown::HashMap;

use super::tree::{Fate, Piece};
use crate::id::{OpId, ReplicaId, Stamp};
use crate::op::IdRange;
use crate::value::{char_count, split_chars};

const NONE: u32 = u32::MAX;
/// The place before the first run.
const HEAD: u32 = 0;

const SLOTS_EACH: usize = 8;
const SLOTS_FREE: usize = 1 << 16;

/// How many runs, or places without one, an edit may pass on average.
const STEPS_EACH: usize = 32;
const STEPS_FREE: usize = if cfg!(any(test, feature = "small-nodes")) { 8 } else { 1 << 16 };

/// The text in the making.
#[derive(Clone, Debug)]
pub(super) struct Weave {
    runs: Vec<Run>,
    tables: Vec<Table>,
    by_author: HashMap<ReplicaId, u32>,
    /// The author that was asked for last, who is mostly asked for again.
    last: u32,
    text: String,
    /// How many places all tables have.
    slots: usize,
    /// The newest of all characters.
    newest: Option<Stamp>,
    /// How many steps are left.
    steps: usize,
}

/// Characters with consecutive ids that stand together and share a fate.
#[derive(Clone, Copy, Debug)]
struct Run {
    table: u32,
    /// Where in the table its first character stands.
    first: u32,
    len: u32,
    /// Where its text is, unless it was deleted before.
    byte: u32,
    bytes: u32,
    prev: u32,
    next: u32,
    is_deleted: bool,
}

/// The runs of an author's characters, from the counter `base` on.
#[derive(Clone, Debug)]
struct Table {
    author: ReplicaId,
    base: u64,
    runs: Vec<u32>,
}

/// The edit is not for this form; if anything of it was done, doing it again makes no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GivesUp;

impl Weave {
    /// The text that consists of these pieces, if this form is for it; with room for so many edits.
    pub(super) fn of<'a>(
        pieces: impl Iterator<Item = Piece<'a>>,
        edits: usize,
        clock: &impl Fn(OpId) -> Stamp,
    ) -> Option<Self> {
        let head = Run {
            table: NONE,
            first: 0,
            len: 0,
            byte: 0,
            bytes: 0,
            prev: NONE,
            next: NONE,
            is_deleted: true,
        };
        let mut weave = Self {
            runs: vec![head],
            tables: Vec::new(),
            by_author: HashMap::new(),
            last: 0,
            text: String::new(),
            slots: 0,
            newest: None,
            steps: STEPS_FREE,
        };
        // An edit makes up to two runs, mostly one.
        weave.runs.reserve(edits);
        // A table begins with its author's first character.
        let mut pieces: Vec<Piece<'a>> = pieces.collect();
        let in_order: Vec<OpId> = pieces.iter().map(|piece| piece.first).collect();
        pieces.sort_unstable_by_key(|piece| (piece.first.replica, piece.first.counter));
        let mut made: HashMap<OpId, u32> = HashMap::with_capacity(pieces.len());
        for Piece { first, fate } in pieces {
            let (len, text) = match fate {
                Fate::Visible(text) => (char_count(text), text),
                Fate::Deleted(len) => (len, ""),
            };
            let run = weave.make(first, len, text).ok()?;
            weave.runs[run as usize].is_deleted = text.is_empty();
            made.insert(first, run);
            let last = clock(first.plus(len - 1));
            weave.newest = weave.newest.max(Some(last));
        }
        let mut before = HEAD;
        for run in in_order.iter().filter_map(|first| made.get(first)) {
            weave.link(before, *run);
            before = *run;
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
        let (mut run, mut offset) = match origin {
            None => (HEAD, 0),
            Some(origin) => match self.find(origin) {
                Some((run, offset)) => (run, offset + 1),
                None => return Ok(None),
            },
        };
        if self.newest.is_some_and(|newest| newest > stamp) {
            (run, offset) = self.skip_newer(run, offset, stamp, clock)?;
        }
        let len = char_count(text);
        let new = self.make(stamp.op(), len, text)?;
        if offset < self.runs[run as usize].len {
            (run, _) = self.cut(run, offset);
        }
        self.link(run, new);
        let last = Stamp { counter: stamp.counter + len - 1, ..stamp };
        self.newest = self.newest.max(Some(last));
        Ok(Some(len))
    }

    /// Marks the characters in `range` that are here as deleted.
    pub(super) fn delete(&mut self, range: IdRange) -> Result<(), GivesUp> {
        self.steps = self.steps.saturating_add(STEPS_EACH);
        let Some(number) = self.table_of(range.first.replica) else { return Ok(()) };
        let table = &self.tables[number as usize];
        let slot = |counter: u64| counter.saturating_sub(table.base).min(table.runs.len() as u64);
        let (mut from, to) = (slot(range.first.counter), slot(range.first.counter + range.len));
        while from < to {
            let run = self.tables[number as usize].runs[from as usize];
            if run == NONE {
                self.step()?;
                from += 1;
                continue;
            }
            let here = self.runs[run as usize];
            let end = u64::from(here.first) + u64::from(here.len);
            if !here.is_deleted {
                self.delete_in(run, from as u32 - here.first, end.min(to) as u32 - here.first);
            } else if end < to {
                self.step()?;
            }
            from = end;
        }
        Ok(())
    }

    /// All characters, in order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let mut next = self.runs[HEAD as usize].next;
        std::iter::from_fn(move || {
            let run = self.runs.get(next as usize)?;
            next = run.next;
            let fate = if run.is_deleted {
                Fate::Deleted(run.len.into())
            } else {
                Fate::Visible(&self.text[run.byte as usize..run.byte as usize + run.bytes as usize])
            };
            Some(Piece { first: self.id(run, 0), fate })
        })
    }

    fn id(&self, run: &Run, offset: u32) -> OpId {
        let table = &self.tables[run.table as usize];
        let counter = table.base + u64::from(run.first) + u64::from(offset);
        OpId { replica: table.author, counter }
    }

    #[inline]
    fn table_of(&mut self, author: ReplicaId) -> Option<u32> {
        if self.tables.get(self.last as usize).is_none_or(|table| table.author != author) {
            self.last = *self.by_author.get(&author)?;
        }
        Some(self.last)
    }

    /// The run of a character, and which of its characters that is.
    #[inline]
    fn find(&mut self, id: OpId) -> Option<(u32, u32)> {
        let table = self.table_of(id.replica)?;
        let table = &self.tables[table as usize];
        let slot = id.counter.checked_sub(table.base)?;
        let run = *table.runs.get(usize::try_from(slot).ok()?)?;
        let first = self.runs.get(run as usize)?.first;
        Some((run, slot as u32 - first))
    }

    fn step(&mut self) -> Result<(), GivesUp> {
        self.steps = self.steps.checked_sub(1).ok_or(GivesUp)?;
        Ok(())
    }

    /// The first place from one in a run on where what follows is older than `stamp`.
    fn skip_newer(
        &mut self,
        mut run: u32,
        mut offset: u32,
        stamp: Stamp,
        clock: &impl Fn(OpId) -> Stamp,
    ) -> Result<(u32, u32), GivesUp> {
        loop {
            let here = &self.runs[run as usize];
            // The first character of what is left decides for all of that.
            if offset < here.len && clock(self.id(here, offset)) < stamp {
                return Ok((run, offset));
            }
            let Some(next) = self.runs.get(here.next as usize) else { return Ok((run, here.len)) };
            if clock(self.id(next, 0)) < stamp {
                return Ok((run, here.len));
            }
            (run, offset) = (here.next, next.len);
            self.step()?;
        }
    }

    /// Makes a run, which stands nowhere yet.
    fn make(&mut self, first: OpId, len: u64, text: &str) -> Result<u32, GivesUp> {
        let number = match self.table_of(first.replica) {
            Some(number) => number,
            None => {
                let number = self.tables.len() as u32;
                let (author, base) = (first.replica, first.counter);
                self.tables.push(Table { author, base, runs: Vec::new() });
                self.by_author.insert(first.replica, number);
                number
            }
        };
        let new = self.runs.len() as u32;
        let byte = self.text.len();
        let table = &mut self.tables[number as usize];
        let slot = first.counter.checked_sub(table.base).ok_or(GivesUp)?;
        let end = slot.checked_add(len).filter(|end| *end < NONE.into()).ok_or(GivesUp)? as usize;
        let before = table.runs.len();
        let slots = self.slots + end.saturating_sub(before);
        let is_wide = slots > (byte + text.len()).saturating_mul(SLOTS_EACH) + SLOTS_FREE;
        if (slot as usize) < before || is_wide || byte + text.len() >= NONE as usize || new == NONE
        {
            return Err(GivesUp);
        }
        table.runs.resize(slot as usize, NONE);
        table.runs.resize(end, new);
        self.slots = slots;
        self.text.push_str(text);
        self.runs.push(Run {
            table: number,
            first: slot as u32,
            len: len as u32,
            byte: byte as u32,
            bytes: text.len() as u32,
            prev: NONE,
            next: NONE,
            is_deleted: false,
        });
        Ok(new)
    }

    /// Puts a run behind another one.
    fn link(&mut self, before: u32, run: u32) {
        let next = std::mem::replace(&mut self.runs[before as usize].next, run);
        let new = &mut self.runs[run as usize];
        (new.prev, new.next) = (before, next);
        if let Some(next) = self.runs.get_mut(next as usize) {
            next.prev = run;
        }
    }

    /// Cuts a run in two, and returns both.
    fn cut(&mut self, run: u32, offset: u32) -> (u32, u32) {
        let new = self.runs.len() as u32;
        let here = &mut self.runs[run as usize];
        let whole = *here;
        let bytes = if whole.bytes == whole.len || whole.bytes == 0 {
            offset.min(whole.bytes)
        } else {
            let text = &self.text[whole.byte as usize..(whole.byte + whole.bytes) as usize];
            split_chars(text, offset as usize).0.len() as u32
        };
        let left = Run { len: offset, bytes, ..whole };
        let right = Run {
            first: whole.first + offset,
            len: whole.len - offset,
            byte: whole.byte + bytes,
            bytes: whole.bytes - bytes,
            ..whole
        };
        if right.len <= left.len {
            *here = left;
            self.runs.push(right);
            self.enter(new);
            self.link(run, new);
            return (run, new);
        }
        *here = right;
        self.runs.push(left);
        self.enter(new);
        self.link(whole.prev, new);
        (new, run)
    }

    /// Says where the characters of a run are.
    fn enter(&mut self, run: u32) {
        let Run { table, first, len, .. } = self.runs[run as usize];
        let (first, len) = (first as usize, len as usize);
        self.tables[table as usize].runs[first..first + len].fill(run);
    }

    /// Marks some characters of a run as deleted.
    fn delete_in(&mut self, mut run: u32, from: u32, to: u32) {
        if to < self.runs[run as usize].len {
            (run, _) = self.cut(run, to);
        }
        if from > 0 {
            (_, run) = self.cut(run, from);
        }
        self.runs[run as usize].is_deleted = true;
    }
}
