//! Texts of a state: which characters stand in which order, and what shows of them.
//!
//! Ids and deletions are apart: characters with consecutive ids are one run whatever became of them.
//! Where others typed into a run, it goes on behind what they typed. So the ends of the runs written so
//! far are kept on a stack, and a run that goes on where one of them ended is named by its depth; what
//! was above it can hardly go on any more and is dropped.
//!
//! What deleted characters take in memory follows their ids, in stretches of 2^32. So that they take
//! bytes too, a run is no longer than that, and goes on in another.

use hashbrown::HashMap;

use super::super::columns::{Column, Sink, Source};
use super::entries::EntryWriter;
use super::reader::EntryReader;
use crate::error::DecodeError;
use crate::id::OpId;
use crate::limits::STATE_RUN_CHARS_MAX;
use crate::state::{RunRecord, TextRecord};

/// The low bits of a run's head: a run that is named anew; of other values one more than how deep the
/// end lies that it goes on from, or that this depth follows.
const NEW: u64 = 0;
const DEEP: u64 = 3;
const DEPTH_BITS: u32 = 2;

impl EntryWriter<'_> {
    pub(super) fn text(&mut self, text: &TextRecord) {
        let ids = id_runs(&text.runs);
        self.number(Column::Number, ids.len() as u64);
        let mut ends = Ends::default();
        for run in &ids {
            let depth = ends.depth_of(run.first).map_or(NEW, |depth| depth + 1);
            self.number(Column::Number, run.len << DEPTH_BITS | depth.min(DEEP));
            match depth {
                NEW => self.op(run.first),
                DEEP.. => self.number(Column::Tag, depth - DEEP),
                _ => {}
            }
            let end = run.first.plus(run.len);
            self.skip_to(end);
            ends.push(end);
        }
        for shown_or_not in lengths_by_turns(&text.runs) {
            self.number(Column::Value, shown_or_not);
        }
        self.number(Column::Number, text.text.len() as u64);
        self.sink.to(Column::Text).raw(text.text.as_bytes());
    }
}

impl EntryReader<'_, '_> {
    pub(super) fn text(&mut self) -> Result<TextRecord, DecodeError> {
        let count = self.number(Column::Number)?;
        let count = self.source.from(Column::Number).fits(count, 1)?;
        let mut runs: Vec<RunRecord> = Vec::with_capacity(count);
        let mut ends: Vec<End> = Vec::new();
        let mut chains: Vec<Chain> = Vec::new();
        let (mut shown, mut turn) = (0_u64, Turn { is_deleted: true, left: 0 });
        for _ in 0..count {
            let head = self.number(Column::Number)?;
            let mut len = head >> DEPTH_BITS;
            let depth = match head & DEEP {
                DEEP => self.number(Column::Tag)?.saturating_add(DEEP),
                depth => depth,
            };
            let (first, chain) = if depth == NEW {
                (self.op()?, chains.len())
            } else {
                let end = self.pop(&mut ends, depth)?;
                (end.id, end.chain)
            };
            let is_run = (1..=STATE_RUN_CHARS_MAX).contains(&len);
            let end = first.counter.checked_add(len).filter(|_| is_run);
            let Some(end) = end.map(|end| OpId { counter: end, ..first }) else {
                return Err(self.malformed("counters out of range"));
            };
            if !self.is_here(OpId { counter: end.counter - 1, ..first }) {
                return Err(self.malformed("reference to an op not seen"));
            }
            let author = self.skip_to(end);
            ends.push(End { author, id: end, chain });
            match chains.get_mut(chain) {
                Some(chain) => chain.end = end.counter,
                None => chains.push(Chain { author, first: first.counter, end: end.counter }),
            }
            let mut first = first;
            while len > 0 {
                if turn.left == 0 {
                    let is_first = runs.is_empty() && turn.is_deleted;
                    turn = self.turn(turn, is_first)?;
                }
                let part = len.min(turn.left);
                runs.push(RunRecord { first, len: part, is_deleted: turn.is_deleted });
                shown = shown.saturating_add(if turn.is_deleted { 0 } else { part });
                (first, len, turn.left) = (first.plus(part), len - part, turn.left - part);
            }
        }
        if turn.left > 0 {
            return Err(self.malformed("characters and runs that differ"));
        }
        let bytes = self.number(Column::Number)?;
        let reader = self.source.from(Column::Text);
        let len = reader.fits(bytes, 1)?;
        let text = reader.utf8(len)?.to_owned();
        if text.chars().count() as u64 != shown {
            return Err(self.malformed("characters and runs that differ"));
        }
        if overlap(chains) {
            return Err(self.malformed("a character twice"));
        }
        Ok(TextRecord { runs, text })
    }

    /// Takes the end that lies so deep, and all above it, off the stack.
    fn pop(&mut self, ends: &mut Vec<End>, depth: u64) -> Result<End, DecodeError> {
        let depth = usize::try_from(depth).ok();
        let place = depth.and_then(|depth| ends.len().checked_sub(depth));
        let Some(end) = place.and_then(|place| ends.get(place).copied()) else {
            return Err(self.malformed("a run that goes on from nowhere"));
        };
        ends.truncate(place.unwrap_or_default());
        self.go_on_with(end.author);
        Ok(end)
    }

    /// What comes after characters that show or do not show. Only at the start may it be nothing.
    fn turn(&mut self, last: Turn, is_first: bool) -> Result<Turn, DecodeError> {
        let mut next = Turn { is_deleted: !last.is_deleted, left: self.number(Column::Value)? };
        if is_first && next.left == 0 {
            next = Turn { is_deleted: true, left: self.number(Column::Value)? };
        }
        if next.left == 0 {
            return Err(self.malformed("a run of nothing"));
        }
        Ok(next)
    }
}

/// Characters in a row that all show or all do not.
#[derive(Clone, Copy, Debug)]
struct Turn {
    is_deleted: bool,
    left: u64,
}

/// Where runs ended that may go on.
#[derive(Debug, Default)]
struct Ends {
    stack: Vec<OpId>,
    /// Where in the stack an end is, or was.
    places: HashMap<OpId, usize>,
}

impl Ends {
    fn push(&mut self, end: OpId) {
        self.places.insert(end, self.stack.len());
        self.stack.push(end);
    }

    /// How deep an end lies; it and what is above it are dropped.
    fn depth_of(&mut self, end: OpId) -> Option<u64> {
        let place =
            self.places.get(&end).copied().filter(|place| self.stack.get(*place) == Some(&end))?;
        let depth = self.stack.len() - 1 - place;
        self.stack.truncate(place);
        Some(depth as u64)
    }
}

/// Runs of consecutive ids, deleted or not, none longer than a run may be.
fn id_runs(runs: &[RunRecord]) -> Vec<RunRecord> {
    let mut ids: Vec<RunRecord> = Vec::with_capacity(runs.len());
    for run in runs {
        let mut rest = *run;
        while rest.len > 0 {
            let last = ids.last_mut().filter(|last| last.first.plus(last.len) == rest.first);
            let part = match last.filter(|last| last.len < STATE_RUN_CHARS_MAX) {
                Some(last) => {
                    let part = rest.len.min(STATE_RUN_CHARS_MAX - last.len);
                    last.len += part;
                    part
                }
                None => {
                    let part = rest.len.min(STATE_RUN_CHARS_MAX);
                    ids.push(RunRecord { len: part, ..rest });
                    part
                }
            };
            (rest.first, rest.len) = (rest.first.plus(part), rest.len - part);
        }
    }
    ids
}

/// How many characters show, do not show, show ... in turns.
fn lengths_by_turns(runs: &[RunRecord]) -> Vec<u64> {
    let (mut lengths, mut is_deleted) = (vec![0], false);
    for run in runs {
        match lengths.last_mut() {
            Some(last) if run.is_deleted == is_deleted => *last += run.len,
            _ => lengths.push(run.len),
        }
        is_deleted = run.is_deleted;
    }
    if runs.is_empty() {
        lengths.clear();
    }
    lengths
}

/// Where a run ended, by a number for its author; and of which chain it is.
#[derive(Clone, Copy, Debug)]
struct End {
    author: u64,
    id: OpId,
    chain: usize,
}

/// Runs that go on where each other ended: together they have consecutive ids.
#[derive(Clone, Copy, Debug)]
struct Chain {
    author: u64,
    first: u64,
    end: u64,
}

/// Whether two chains share a character.
fn overlap(mut chains: Vec<Chain>) -> bool {
    chains.sort_unstable_by_key(|chain| (chain.author, chain.first));
    !chains.is_sorted_by(|a, b| a.author != b.author || a.end <= b.first)
}
