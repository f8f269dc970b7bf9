//! What a patch brings: which of it is new, and in which order it can take effect.
//!
//! Everything is found out before anything happens, so that a patch is taken in whole or not at all.
//! Blocks are taken as they are, and in parts only where something else must come in between; what
//! has to wait is taken apart into single changes for the backlog.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::backlog::{Arrangement, Backlog, Place, weight};
use crate::batch::{Batch, Cutter, OpWalk};
use crate::change::Change;
use crate::codec::{Patch, Section};
use crate::error::IntegrateError;
use crate::history::History;
use crate::id::{OpId, ReplicaId};
use crate::limits::BACKLOG_CHANGES_MAX;
use crate::op::OpList;
use crate::state::{Piece, Times, first_difference};
use crate::version::Ahead;

/// Changes that arrived and are not here yet.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) batch: Batch,
    /// The bytes that the batch came in, if it is still all of them.
    pub(crate) block: Option<Arc<[u8]>>,
}

/// A part of an arrival whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Which arrival.
    pub(crate) arrival: usize,
    /// The counter up to which its changes take effect.
    pub(crate) to: u64,
}

/// What a patch leads to.
#[derive(Debug)]
pub(crate) struct Plan {
    /// States, to be joined before anything else.
    pub(crate) states: Vec<Arc<[u8]>>,
    /// What is new and ready, by author and counter.
    pub(crate) arrivals: Vec<Arrival>,
    pub(crate) steps: Vec<Step>,
    /// What is new and was not ready at once.
    pub(crate) fresh: BTreeMap<Place, Change>,
    pub(crate) arrangement: Arrangement,
    /// How many changes were here already.
    pub(crate) known: u64,
    /// How many parts of the patch are newer than this program.
    pub(crate) newer: usize,
}

/// Works out what a patch leads to. Changes nothing.
///
/// # Errors
/// If a change contradicts one that is here or in the patch, or too many would have to wait.
pub(crate) fn plan(
    patch: Patch,
    history: &History,
    backlog: &Backlog,
) -> Result<Plan, IntegrateError> {
    let newer = patch.newer().count();
    let (mut arrivals, mut states) = (Vec::new(), Vec::new());
    let mut told = BTreeMap::new();
    let mut ahead = Ahead::of(history.version());
    for section in patch.into_sections() {
        match section {
            Section::Change(change) => {
                arrivals.push(Arrival { batch: Batch::of_change(change), block: None });
            }
            Section::Block(batch, bytes) => arrivals.push(Arrival { batch, block: Some(bytes) }),
            Section::State(state) => {
                let (times, bytes) = state.into_parts();
                if let Some(at) = history.fork_with(&times) {
                    return Err(IntegrateError::Forked { at });
                }
                check_against_states(&times, &mut told)?;
                times.iter().for_each(|one| ahead.reach(one.author, one.next()));
                states.push(bytes);
            }
            Section::Newer { known, .. } => {
                arrivals.extend(known.map(|batch| Arrival { batch, block: None }));
            }
        }
    }
    arrivals.sort_by_key(|arrival| (arrival.batch.author, arrival.batch.start));
    let (mut arrivals, known) = drop_known(arrivals, history, &ahead, backlog)?;
    let steps = Planner::new(&arrivals).run(&mut ahead);
    let (fresh, waiting) = take_blocked(&mut arrivals, &ahead, backlog)?;
    let arrangement = if fresh.is_empty() && backlog.changes().is_empty() {
        Arrangement::default()
    } else {
        backlog.arrange(&fresh, &mut ahead)?
    };
    Ok(Plan { states, arrivals, steps, fresh, arrangement, known: known + waiting, newer })
}

/// Checks that a state tells of each author what those before it told, as far as both go, and keeps the
/// longer of the two.
fn check_against_states(
    times: &[Times],
    told: &mut BTreeMap<ReplicaId, Vec<Piece>>,
) -> Result<(), IntegrateError> {
    for one in times {
        let longest = told.entry(one.author).or_default();
        if let Some(counter) = first_difference(longest, &one.pieces) {
            return Err(IntegrateError::Forked { at: OpId { replica: one.author, counter } });
        }
        if longest.last().map_or(0, Piece::end) < one.next() {
            longest.clone_from(&one.pieces);
        }
    }
    Ok(())
}

/// Drops what is here already, or comes twice. Arrivals are in order of author and counter.
fn drop_known(
    arrivals: Vec<Arrival>,
    history: &History,
    ahead: &Ahead<'_>,
    backlog: &Backlog,
) -> Result<(Vec<Arrival>, u64), IntegrateError> {
    let mut fresh: Vec<Arrival> = Vec::with_capacity(arrivals.len());
    // How far each of them was gone through.
    let mut cutters: Vec<Cutter> = Vec::with_capacity(arrivals.len());
    let mut logged = Logged { history, block: None };
    let mut known = 0;
    for arrival in arrivals {
        let author = arrival.batch.author;
        let end = ahead.next(author);
        let is_known = |batch: &Batch| logged.has(batch);
        let Some(arrival) = drop_covered(arrival, end, is_known, &mut known)? else { continue };
        let mut rest = Some(arrival);
        while let Some(arrival) = rest.take() {
            let start = arrival.batch.start;
            // What was fresh so far is in order too, and nothing in it twice.
            let after =
                fresh.partition_point(|one| (one.batch.author, one.batch.start) <= (author, start));
            let before = fresh[..after].last().map(|before| &before.batch);
            let before = before.filter(|one| one.author == author && start < one.end());
            let Some(before) = before else {
                rest = Some(arrival);
                break;
            };
            let cutter = &mut cutters[after - 1];
            let twice = |batch: &Batch| {
                cutter.part(before, batch.start, batch.end()).is_some_and(|one| one.is_same(batch))
            };
            rest = drop_covered(arrival, before.end(), twice, &mut known)?;
        }
        let Some(arrival) = rest else { continue };
        check_against_backlog(&arrival.batch, backlog)?;
        cutters.push(Cutter::new(&arrival.batch));
        fresh.push(arrival);
    }
    Ok((fresh, known))
}

/// The log, of which each block is read once for all that is asked in order.
struct Logged<'a> {
    history: &'a History,
    /// The block that was read last.
    block: Option<(Batch, Cutter)>,
}

impl Logged<'_> {
    /// Whether changes that are here are these: the same bytes as far as the log goes back, and before
    /// that the same boundaries and times. What a state of the same patch brings cannot be compared.
    fn has(&mut self, batch: &Batch) -> bool {
        let (start, end) = (batch.start, batch.end());
        let from = self.history.floor(batch.author).clamp(start, end);
        let to = self.history.version().next(batch.author).clamp(from, end);
        let mut cutter = Cutter::new(batch);
        if start < from {
            let gone = cutter.part(batch, start, from);
            if !gone.is_some_and(|gone| self.history.has_times_of(&gone)) {
                return false;
            }
        }
        from == to
            || cutter
                .part(batch, from, to)
                .is_some_and(|kept| self.part(&kept).is_some_and(|there| there.is_same(&kept)))
    }

    /// What the log has in the place of a batch; nothing if no change begins or ends there.
    fn part(&mut self, batch: &Batch) -> Option<Batch> {
        let (author, mut at, end) = (batch.author, batch.start, batch.end());
        let mut whole: Option<Batch> = None;
        while at < end {
            let part = match self.block_at(author, at) {
                Some((block, cutter)) => cutter.part(block, at, end.min(block.end()))?,
                None => self.history.batch(author, at, end)?,
            };
            at = part.end();
            match &mut whole {
                Some(whole) => whole.take(part),
                None => whole = Some(part),
            }
        }
        whole
    }

    fn block_at(&mut self, author: ReplicaId, at: u64) -> Option<&mut (Batch, Cutter)> {
        let is_in = |(block, _): &(Batch, Cutter)| {
            block.author == author && (block.start..block.end()).contains(&at)
        };
        if !self.block.as_ref().is_some_and(is_in) {
            let block = self.history.block_at(author, at)?;
            let cutter = Cutter::new(&block);
            self.block = Some((block, cutter));
        }
        self.block.as_mut()
    }
}

/// Drops the changes of an arrival below `end`, which must be known.
fn drop_covered(
    mut arrival: Arrival,
    end: u64,
    is_known: impl FnOnce(&Batch) -> bool,
    known: &mut u64,
) -> Result<Option<Arrival>, IntegrateError> {
    let batch = &mut arrival.batch;
    if batch.start >= end {
        return Ok(Some(arrival));
    }
    let forked = IntegrateError::Forked { at: batch.id(batch.start) };
    let rest = if batch.end() > end {
        Some(batch.split_off(end).ok_or_else(|| forked.clone())?)
    } else {
        None
    };
    if !is_known(batch) {
        return Err(forked);
    }
    *known += batch.change_count();
    Ok(rest.map(|batch| Arrival { batch, block: None }))
}

fn check_against_backlog(batch: &Batch, backlog: &Backlog) -> Result<(), IntegrateError> {
    let mut cutter = Cutter::new(batch);
    for waiting in backlog.overlapping(batch.author, batch.start..batch.end()) {
        let header = waiting.header();
        let part = cutter.part(batch, header.start, header.end());
        if !part.is_some_and(|part| part.is_same(&Batch::of_change(waiting.clone()))) {
            let from = header.start.max(batch.start);
            return Err(IntegrateError::Forked { at: batch.id(from) });
        }
    }
    Ok(())
}

/// Takes what is not ready out of the arrivals, as single changes, and counts those that were
/// waiting already.
fn take_blocked(
    arrivals: &mut [Arrival],
    ahead: &Ahead<'_>,
    backlog: &Backlog,
) -> Result<(BTreeMap<Place, Change>, u64), IntegrateError> {
    let (mut fresh, mut known) = (BTreeMap::new(), 0);
    for arrival in arrivals.iter_mut() {
        let batch = &mut arrival.batch;
        let reached = ahead.next(batch.author);
        if reached >= batch.end() {
            continue;
        }
        let blocked = if reached > batch.start { batch.split_off(reached) } else { None };
        let blocked = blocked.unwrap_or_else(|| {
            let nothing = Batch { spans: Vec::new(), ops: OpList::new(), ..*batch };
            std::mem::replace(batch, nothing)
        });
        arrival.block = None;
        for change in blocked.changes() {
            let place = (change.header().replica, change.header().start);
            if backlog.changes().contains_key(&place) {
                known += 1;
            } else {
                fresh.insert(place, change);
            }
            // More can be released by what waits here, but not more than may wait.
            if fresh.len() > 2 * BACKLOG_CHANGES_MAX {
                let (changes, weight) = (fresh.len(), fresh.values().map(weight).sum());
                return Err(IntegrateError::BacklogFull { changes, weight });
            }
        }
    }
    Ok((fresh, known))
}

/// Finds an order in which each change comes after what it builds on.
struct Planner<'a> {
    streams: Vec<Stream<'a>>,
    by_author: BTreeMap<ReplicaId, usize>,
    /// The streams that wait, each with the author and the counter of the op that it waits for.
    waiting: BTreeSet<(ReplicaId, u64, usize)>,
    steps: Vec<Step>,
}

/// The arrivals of one author, one after the other.
struct Stream<'a> {
    author: ReplicaId,
    arrivals: VecDeque<(usize, &'a Batch)>,
    cursor: Option<Cursor<'a>>,
}

/// A place in a batch.
struct Cursor<'a> {
    span: usize,
    /// The counter at which the span begins.
    span_start: u64,
    /// How many of the span's deps are there.
    deps: usize,
    /// How far everything is ready.
    at: u64,
    /// Where the edit stands that was not ready.
    walk: OpWalk<'a>,
}

impl<'a> Planner<'a> {
    fn new(arrivals: &'a [Arrival]) -> Self {
        let mut planner = Self {
            streams: Vec::new(),
            by_author: BTreeMap::new(),
            waiting: BTreeSet::new(),
            steps: Vec::new(),
        };
        for (number, arrival) in arrivals.iter().enumerate() {
            let author = arrival.batch.author;
            if planner.streams.last().is_none_or(|last| last.author != author) {
                planner.by_author.insert(author, planner.streams.len());
                planner.streams.push(Stream { author, arrivals: VecDeque::new(), cursor: None });
            }
            if let Some(stream) = planner.streams.last_mut() {
                stream.arrivals.push_back((number, &arrival.batch));
            }
        }
        planner
    }

    fn run(mut self, ahead: &mut Ahead<'_>) -> Vec<Step> {
        let mut next: Vec<usize> = (0..self.streams.len()).rev().collect();
        while let Some(number) = next.pop() {
            let author = self.streams[number].author;
            if let Some(missing) = self.streams[number].go(ahead, &mut self.steps)
                && self.by_author.contains_key(&missing.replica)
            {
                self.waiting.insert((missing.replica, missing.counter, number));
            }
            let reached = (author, 0, 0)..(author, ahead.next(author), 0);
            while let Some(waiter) = self.waiting.range(reached.clone()).next().copied() {
                self.waiting.remove(&waiter);
                next.push(waiter.2);
            }
        }
        self.steps
    }
}

impl Stream<'_> {
    /// Goes as far as everything is there, and returns the op that is missing for the next change.
    fn go(&mut self, ahead: &mut Ahead<'_>, steps: &mut Vec<Step>) -> Option<OpId> {
        while let Some((arrival, batch)) = self.arrivals.front() {
            let reached = ahead.next(self.author);
            if batch.start > reached && self.cursor.is_none() {
                return Some(OpId { replica: self.author, counter: batch.start - 1 });
            }
            let cursor = self.cursor.get_or_insert_with(|| Cursor::new(batch));
            let missing = cursor.go(batch, ahead);
            if cursor.at > reached {
                ahead.advance(self.author, cursor.at);
                steps.push(Step { arrival: *arrival, to: cursor.at });
            }
            if missing.is_some() {
                return missing;
            }
            self.cursor = None;
            self.arrivals.pop_front();
        }
        None
    }
}

impl<'a> Cursor<'a> {
    fn new(batch: &'a Batch) -> Self {
        let start = batch.start;
        Self { span: 0, span_start: start, deps: 0, at: start, walk: OpWalk::new(batch) }
    }

    /// Goes on as far as everything is there, and returns the op that is missing for the next change.
    /// Costs the way, and a look at the op that was missing before.
    fn go(&mut self, batch: &Batch, ahead: &Ahead<'_>) -> Option<OpId> {
        while let Some(span) = batch.spans.get(self.span) {
            while let Some(dep) = span.deps.get(self.deps) {
                if !ahead.has(*dep) {
                    return Some(*dep);
                }
                self.deps += 1;
            }
            let end = self.span_start + span.total();
            // Neighbours mostly refer to the same author.
            let mut last = None;
            let mut next = |replica| match last {
                Some((same, next)) if same == replica => next,
                _ => last.insert((replica, ahead.next(replica))).1,
            };
            let ready = self.walk.try_edits_until(end, |edit| {
                edit.first_missing(&mut next).map_or(ControlFlow::Continue(()), ControlFlow::Break)
            });
            if let ControlFlow::Break((at, op)) = ready {
                let before = (at - self.span_start) / span.len;
                self.at = self.span_start + before * span.len;
                self.walk.edits_until(at, |_| {});
                return Some(op);
            }
            (self.at, self.span_start, self.deps) = (end, end, 0);
            self.span += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests;
