//! The log of integrated changes: who made what and when, in runs, with the boundaries of changes
//! beside them.
//!
//! A change is not kept as bytes: it has one form, so that it is encoded again when somebody asks for
//! it. Older runs are sealed into blocks, which are columns of bytes and are sent as they are.
//!
//! History can be cut: then the ops are gone, while who made what and when stays for good.
//!
//! Invariants, checked by `assert_invariants`:
//! - H1. The changes of a replica follow each other without gaps, from counter zero.
//! - H2. A change's Lamport time is one more than the greatest among its deps and its author's
//!   previous change.
//! - H3. `heads` are last ops of replicas, and any other last op is built on by some change. One of them
//!   has the greatest time of all.
//! - H4. The log of an author, blocks and tail, has exactly the counters of its pieces from where it
//!   was cut.
//!
//! Cost: appending is O(1) amortised; finding the change of an op is a binary search; an export costs
//! what it returns, and the blocks that it begins or ends in.

mod archive;
mod author_log;

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};

use crate::batch::{Batch, Deps, Edit, OpWalk, Span, gather};
use crate::change::{Change, ChangeHeader, full_deps};
use crate::id::{OpId, ReplicaId, Stamp};
use crate::op::{OpList, TextEdit};
use crate::state::{Piece, Times, first_difference};
use crate::version::Version;
use archive::Archive;
use author_log::AuthorLog;

/// All integrated changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    places: HashMap<ReplicaId, usize>,
    logs: Vec<AuthorLog>,
    /// Whose log was changed last, and where it is.
    asked_last: Option<(ReplicaId, usize)>,
    version: Version,
    /// The replicas whose last op is one.
    heads: BTreeSet<ReplicaId>,
    /// The greatest Lamport time of all.
    newest: u64,
}

impl History {
    /// Notes who made changes and when. They must be ready; their ops are to be added with
    /// [`History::push_ops`] or [`History::push_block`].
    pub(crate) fn append(
        &mut self,
        author: ReplicaId,
        start: u64,
        span: &Span,
        ops: &mut OpWalk<'_>,
    ) {
        let end = start + span.total();
        let mut times = Timing::new(self, author, start, span);
        for dep in &span.deps {
            times.see(start, *dep);
        }
        ops.edits_until(end, |edit| times.see_edit(edit));
        let (pieces, covered) = times.finish();
        for replica in covered {
            self.heads.remove(&replica);
        }
        self.heads.insert(author);
        self.version.advance(author, end);
        let log = self.log_mut(author);
        for piece in pieces {
            log.push_piece(piece);
        }
        log.push_links(start, &span.deps);
        self.newest = log.newest().max(self.newest);
    }

    /// Notes that a change was made here, on top of everything. Its ops are to be added.
    pub(crate) fn append_own(&mut self, first: OpId, len: u64, deps: &[OpId]) {
        let lamport = self.next_lamport();
        let author = first.replica;
        let log = self.log_mut(author);
        log.push_piece(Piece { start: first.counter, lamport, len, count: 1 });
        log.push_links(first.counter, deps);
        if !self.is_led_by(author) {
            self.heads.clear();
            self.heads.insert(author);
        }
        self.version.advance(author, first.counter + len);
        self.newest = lamport;
    }

    /// The stamp of the next change here, if `author` makes it, its counter is `next`, and the newest
    /// change of `author` builds on everything.
    #[inline]
    pub(crate) fn next_stamp(&self, author: ReplicaId, next: u64) -> Option<Stamp> {
        let is_next = self.is_led_by(author) && self.log_asked_last(author)?.end() == next;
        let stamp = Stamp { lamport: self.next_lamport(), replica: author, counter: next };
        is_next.then_some(stamp)
    }

    /// Notes that a change was made on top of everything by an edit of the text that the newest change
    /// edits, which is of the same author.
    #[inline]
    pub(crate) fn type_on(&mut self, stamp: Stamp, edit: TextEdit<'_>) {
        let Stamp { lamport, replica, counter } = stamp;
        let end = counter + edit.span;
        self.log_mut(replica).type_on(replica, lamport, edit);
        self.version.advance(replica, end);
        self.newest = lamport;
    }

    /// The same for an edit of any text.
    pub(crate) fn append_edit(&mut self, stamp: Stamp, edit: TextEdit<'_>) {
        let Stamp { lamport, replica, counter } = stamp;
        let log = self.log_mut(replica);
        log.push_piece(Piece { start: counter, lamport, len: edit.span, count: 1 });
        log.push_edit(replica, edit);
        log.seal_if_long(replica);
        self.version.advance(replica, counter + edit.span);
        self.newest = lamport;
    }

    /// Adds ops to the log of their author, where the log ends.
    pub(crate) fn push_ops(&mut self, author: ReplicaId, ops: OpList) {
        self.log_mut(author).push_ops(author, ops);
    }

    /// Whether the newest change of `author` builds on everything.
    pub(crate) fn is_led_by(&self, author: ReplicaId) -> bool {
        self.heads.len() == 1 && self.heads.first() == Some(&author)
    }

    /// Adds changes to the log of their author as the block that they came in.
    pub(crate) fn push_block(&mut self, author: ReplicaId, range: (u64, u64), block: Arc<[u8]>) {
        self.log_mut(author).push_block(author, range, block);
    }

    /// Whether a block is long enough to be kept as it is.
    pub(crate) fn keeps(block: &[u8]) -> bool {
        AuthorLog::keeps(block.len())
    }

    /// To be called when all ops of appended changes are there.
    pub(crate) fn seal_if_long(&mut self, author: ReplicaId) {
        self.log_mut(author).seal_if_long(author);
    }

    /// Drops all ops.
    pub(crate) fn cut(&mut self) {
        self.logs.iter_mut().for_each(AuthorLog::cut);
    }

    /// Takes over who made what and when from a state.
    pub(crate) fn join(&mut self, times: &[Times]) {
        for one in times {
            let log = self.log_mut(one.author);
            log.join(&one.pieces);
            let (newest, end) = (log.newest(), log.pieces().last().map_or(0, Piece::end));
            self.newest = newest.max(self.newest);
            if end > self.version.next(one.author) {
                // What was its last op is one no more.
                self.heads.remove(&one.author);
                self.version.advance(one.author, end);
            }
        }
        // A head is the last op of its author; what it covers stays covered.
        let is_head_there = |author: ReplicaId, counter: u64| {
            let one = times.binary_search_by_key(&author, |one| one.author).ok();
            let one = one.and_then(|at| times.get(at)).filter(|one| one.is_head);
            one.is_some_and(|one| one.pieces.last().is_some_and(|last| last.end() == counter + 1))
        };
        for (author, next) in self.version.iter() {
            if is_head_there(author, next - 1) {
                self.heads.insert(author);
            }
        }
        self.crown_newest();
    }

    /// Makes the author of the newest change a head if no head is as new, as after a forged state: others
    /// take a change's time from its deps, which are the heads, and must come to the same.
    fn crown_newest(&mut self) {
        let is_newest =
            |author: ReplicaId| self.log(author).is_some_and(|log| log.newest() == self.newest);
        if self.heads.iter().any(|head| is_newest(*head)) {
            return;
        }
        let newest =
            self.version.iter().map(|(author, _)| author).find(|author| is_newest(*author));
        self.heads.extend(newest);
    }

    /// The first op under the id of which this history and a state have different changes, by their
    /// boundaries and times.
    pub(crate) fn fork_with(&self, times: &[Times]) -> Option<OpId> {
        times.iter().find_map(|one| {
            let counter = first_difference(self.log(one.author)?.pieces(), &one.pieces)?;
            Some(OpId { replica: one.author, counter })
        })
    }

    /// Whether changes that are here have the boundaries and Lamport times of these. O(n) in their ops.
    pub(crate) fn has_times_of(&self, batch: &Batch) -> bool {
        let Some(log) = self.log(batch.author) else { return false };
        batch.parts().all(|(header, _)| {
            let (start, last) = (header.start, header.last());
            let previous = start.checked_sub(1).map(|counter| batch.id(counter));
            let seen = header.deps.iter().copied().chain(previous).map(|op| self.lamport(op)).max();
            let lamport = seen.unwrap_or_default() + 1;
            log.dated(last.counter) == Some(Dated { start, end: header.end(), lamport })
        })
    }

    /// Who made what and when, in order of author.
    pub(crate) fn times(&self) -> Vec<Times> {
        let times = |(author, _): (ReplicaId, u64)| {
            let pieces = self.log(author)?.pieces().to_vec();
            Some(Times { author, pieces, is_head: self.heads.contains(&author) })
        };
        self.version.iter().filter_map(times).collect()
    }

    /// The counter of an author below which the ops are gone.
    pub(crate) fn floor(&self, author: ReplicaId) -> u64 {
        self.log(author).map_or(0, AuthorLog::floor)
    }

    /// The greatest Lamport time of all.
    #[cfg(test)]
    pub(crate) const fn newest(&self) -> u64 {
        self.newest
    }

    /// The Lamport time of a change made on top of everything here.
    pub(crate) const fn next_lamport(&self) -> u64 {
        self.newest + 1
    }

    /// What `replica` has seen of others: the last ops of the changes that no other builds on.
    pub(crate) fn deps_of(&self, replica: ReplicaId) -> Deps {
        let others = self.heads.iter().filter(|head| **head != replica);
        others.map(|head| OpId { replica: *head, counter: self.version.next(*head) - 1 }).collect()
    }

    /// The Lamport time of the change that holds `op`; zero if it is not here.
    pub(crate) fn lamport(&self, op: OpId) -> u64 {
        self.log(op.replica).and_then(|log| log.lamport(op.counter)).unwrap_or_default()
    }

    /// Whether a change of `author` ends before a counter; nothing if some of its changes are gone.
    pub(crate) fn ends_change(&self, author: ReplicaId, counter: u64) -> Option<bool> {
        match self.log(author) {
            Some(log) => (log.floor() == 0).then(|| log.has_boundary(counter)),
            None => Some(counter == 0),
        }
    }

    /// The stamp of an op that is here.
    pub(crate) fn stamp(&self, op: OpId) -> Stamp {
        Stamp { lamport: self.lamport(op), replica: op.replica, counter: op.counter }
    }

    /// The same for ops that mostly come from the change of the one before, which `last` remembers.
    pub(crate) fn stamp_near(&self, op: OpId, last: &LastDated) -> Stamp {
        let has = |(author, change): &(ReplicaId, Dated)| {
            *author == op.replica && (change.start..change.end).contains(&op.counter)
        };
        let known = last.0.get().filter(has).map(|(_, change)| change);
        let change = known.or_else(|| self.log(op.replica)?.dated(op.counter));
        last.0.set(change.map(|change| (op.replica, change)));
        let lamport = change.map_or(0, |change| change.lamport);
        Stamp { lamport, replica: op.replica, counter: op.counter }
    }

    /// Which ops are here.
    pub(crate) const fn version(&self) -> &Version {
        &self.version
    }

    /// How many changes of `author` there are from counter `from` on.
    pub(crate) fn change_count(&self, author: ReplicaId, from: u64) -> u64 {
        self.log(author).map_or(0, |log| log.change_count(from))
    }

    /// The changes of `author` from one counter to another; none if no change begins or ends there, or
    /// they are gone.
    pub(crate) fn batch(&self, author: ReplicaId, from: u64, to: u64) -> Option<Batch> {
        self.log(author)?.batch(author, from, to)
    }

    /// The block in which the log keeps the change of `author` with a counter, as a whole; nothing if
    /// none does, as is so for the newest changes.
    pub(crate) fn block_at(&self, author: ReplicaId, counter: u64) -> Option<Batch> {
        self.log(author)?.block_at(author, counter)
    }

    /// All changes of `author` from a counter on, in as few batches as fit blocks, each of which is put
    /// together when it is asked for.
    pub(crate) fn gathered(
        &self,
        author: ReplicaId,
        from: u64,
    ) -> Option<impl Iterator<Item = Batch> + '_> {
        Some(gather(self.log(author)?.kept(author, from, self.version.next(author))?))
    }

    /// At least as many bytes as the changes of `author` from a counter on have typed; nothing if they
    /// are gone.
    pub(crate) fn typed_bound(&self, author: ReplicaId, from: u64) -> Option<usize> {
        self.log(author)?.typed_bound(author, from)
    }

    /// The newest change of `author`, if it begins at `from`.
    pub(crate) fn lone_change(
        &self,
        author: ReplicaId,
        from: u64,
    ) -> Option<(ChangeHeader, OpList)> {
        let log = self.log(author)?;
        let (span, named) = log.last_change(from)?;
        let ops = log.tail_ops_from(author, from)?;
        let references = ops.iter().flat_map(|op| op.references()).flatten();
        let deps = full_deps(&named, references, author);
        Some((ChangeHeader { replica: author, start: from, span, deps }, ops))
    }

    /// The changes of `author` from the counter `from` on, as blocks; nothing if they are gone.
    pub(crate) fn blocks(&self, author: ReplicaId, from: u64) -> Option<Vec<Arc<[u8]>>> {
        self.log(author)?.blocks(author, from)
    }

    /// The changes of `author` from one counter to another, without their ops, of which these name deps,
    /// in order; nothing if no change begins or ends there.
    pub(crate) fn spans(
        &self,
        author: ReplicaId,
        (from, to): (u64, u64),
        links: &[(u64, OpId)],
    ) -> Option<Vec<Span>> {
        self.log(author)?.spans(from, to, links)
    }

    /// Says where the changes are that a loaded state knows without their ops: in the snapshot that it
    /// comes from, of each author from the counter given on.
    pub(crate) fn attach(&mut self, snapshot: Vec<u8>, floors: &[(ReplicaId, u64)]) {
        let archive = Arc::new(Archive::new(snapshot));
        for (author, from) in floors {
            self.log_mut(*author).attach(&archive, *from);
        }
    }

    /// The counter of each author below which the ops are gone.
    pub(crate) fn floors(&self) -> Vec<(ReplicaId, u64)> {
        self.version.iter().map(|(author, _)| (author, self.floor(author))).collect()
    }

    /// The authors of changes that `since` lacks, in order, with the counter from which on.
    pub(crate) fn newer_than(&self, since: &Version) -> Vec<(ReplicaId, u64)> {
        let mut newer = Vec::new();
        // Both are in order, so that there is nothing to look for.
        let mut there = since.iter().peekable();
        for (replica, next) in self.version.iter() {
            while there.next_if(|(other, _)| *other < replica).is_some() {}
            let known = there.next_if(|(other, _)| *other == replica).map_or(0, |(_, next)| next);
            if known < next {
                let first = self.log(replica).and_then(|log| log.start_of_change(known));
                newer.push((replica, first.unwrap_or(known)));
            }
        }
        newer
    }

    /// The changes that `since` lacks, in an order in which each can be integrated at once; nothing if
    /// some are gone.
    pub(crate) fn since(&self, since: &Version) -> Option<Vec<Change>> {
        let newer = self.newer_than(since);
        if let [(author, from)] = newer[..]
            && let Some((header, ops)) = self.lone_change(author, from)
        {
            return Some(vec![Change::assemble(header, ops)]);
        }
        let newer =
            newer.into_iter().map(|(author, from)| (author, (from, self.version.next(author))));
        self.in_order(newer)
    }

    /// The first of the changes that `since` lacks and `upto` has, in the same order: so many, or all;
    /// nothing if some of them are gone.
    pub(crate) fn first_since(
        &self,
        since: &Version,
        upto: &Version,
        count: usize,
    ) -> Option<Vec<Change>> {
        let ready = |author: ReplicaId, at: u64| {
            let change = self.log(author)?.dated(at)?;
            (change.end <= upto.next(author)).then_some(Reverse((
                change.lamport,
                author,
                change.end,
            )))
        };
        let newer = self.newer_than(since);
        // The next change of each author, the oldest of them first.
        let mut next: BinaryHeap<_> =
            newer.iter().filter_map(|(author, from)| ready(*author, *from)).collect();
        let mut ends = BTreeMap::new();
        for _ in 0..count {
            let Some(Reverse((_, author, end))) = next.pop() else { break };
            ends.insert(author, end);
            next.extend(ready(author, end));
        }
        let first = newer.into_iter();
        self.in_order(
            first.filter_map(|(author, from)| Some((author, (from, *ends.get(&author)?)))),
        )
    }

    /// The changes of each author from one counter to another, in an order in which each can be integrated at
    /// once; nothing if some are gone.
    fn in_order(
        &self,
        ranges: impl IntoIterator<Item = (ReplicaId, (u64, u64))>,
    ) -> Option<Vec<Change>> {
        let mut all = Vec::new();
        for (author, (from, to)) in ranges {
            for change in self.batch(author, from, to)?.changes() {
                all.push((self.lamport(change.header().last()), author, change));
            }
        }
        // Whatever a change builds on has a smaller Lamport time.
        all.sort_by_key(|(lamport, author, change)| (*lamport, *author, change.header().start));
        Some(all.into_iter().map(|(_, _, change)| change).collect())
    }

    fn log(&self, author: ReplicaId) -> Option<&AuthorLog> {
        self.log_asked_last(author).or_else(|| self.logs.get(*self.places.get(&author)?))
    }

    /// The log of `author`, if it was the last that was changed.
    #[inline]
    fn log_asked_last(&self, author: ReplicaId) -> Option<&AuthorLog> {
        let (_, place) = self.asked_last.filter(|(last, _)| *last == author)?;
        self.logs.get(place)
    }

    #[inline]
    fn log_mut(&mut self, author: ReplicaId) -> &mut AuthorLog {
        let place = match self.asked_last {
            Some((last, place)) if last == author => place,
            _ => *self.places.entry(author).or_insert_with(|| {
                self.logs.push(AuthorLog::default());
                self.logs.len() - 1
            }),
        };
        self.asked_last = Some((author, place));
        &mut self.logs[place]
    }

    /// Panics if H1 to H4 do not hold.
    pub(crate) fn assert_invariants(&self) {
        let mut built_on = BTreeSet::new();
        let (mut seen, mut newest) = (Version::new(), 0);
        for (author, _) in self.version.iter() {
            seen.advance(author, self.floor(author));
            newest =
                newest.max(self.lamport(OpId {
                    replica: author,
                    counter: self.floor(author).saturating_sub(1),
                }));
        }
        let is_cut = !seen.is_empty();
        for change in self.since(&seen.clone()).expect("H4: what is above the floor is here") {
            let header = change.header();
            assert_eq!(seen.next(header.replica), header.start, "H1: {header:?}");
            assert!(header.deps.iter().all(|dep| seen.has(*dep)), "H2: {header:?}");
            let previous = header.start.checked_sub(1);
            let previous = previous.map(|counter| OpId { counter, ..header.last() });
            let deps = header.deps.iter().chain(&previous).map(|dep| self.lamport(*dep));
            let expected = 1 + deps.max().unwrap_or_default();
            for counter in [header.start, header.last().counter] {
                assert_eq!(self.lamport(OpId { counter, ..header.last() }), expected, "H2");
            }
            newest = expected.max(newest);
            seen.advance(header.replica, header.end());
            built_on.extend(header.deps.iter().map(|dep| (dep.replica, dep.counter)));
        }
        assert_eq!(seen, self.version, "H1");
        assert!(newest == self.newest || is_cut && newest < self.newest, "H2");
        for replica in &self.heads {
            assert!(self.version.next(*replica) > 0, "H3: {replica:?} has no last op");
        }
        let times = self.heads.iter().filter_map(|head| Some(self.log(*head)?.newest()));
        assert_eq!(times.max().unwrap_or_default(), self.newest, "H3");
        for (replica, next) in self.version.iter() {
            let is_head = self.heads.contains(&replica);
            let is_covered = is_cut || built_on.contains(&(replica, next - 1));
            assert!(is_head || is_covered, "H3: {replica:?} is lost");
            let log = self.log(replica).expect("H4: an author has a log");
            log.assert_invariants(replica, next);
        }
    }
}

/// The change that [`History::stamp_near`] found last, with its author.
#[derive(Debug, Default)]
pub(crate) struct LastDated(Cell<Option<(ReplicaId, Dated)>>);

/// Where a change begins and ends, and its Lamport time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dated {
    start: u64,
    end: u64,
    lamport: u64,
}

type Pieces = SmallVec<[Piece; 1]>;

/// Finds out the Lamport times of changes of one length, in a row.
struct Timing<'a> {
    history: &'a History,
    start: u64,
    len: u64,
    end: u64,
    /// What is known so far; the last piece goes on to the end.
    pieces: Pieces,
    /// The replicas whose last op the changes build on.
    covered: SmallVec<[ReplicaId; 1]>,
}

impl<'a> Timing<'a> {
    fn new(history: &'a History, author: ReplicaId, start: u64, span: &Span) -> Self {
        let own = history.log(author).map_or(0, AuthorLog::newest);
        let piece = Piece { start, lamport: own + 1, len: span.len, count: span.count };
        let end = start + span.total();
        Self {
            history,
            start,
            len: span.len,
            end,
            pieces: smallvec![piece],
            covered: SmallVec::new(),
        }
    }

    /// Notes what a part of an op refers to, which may go through many changes.
    fn see_edit(&mut self, edit: &Edit<'_>) {
        let references = edit.references();
        // Times rise along an author's ops: the last one deleted has the greatest.
        let is_news = references.iter().flatten().any(|op| self.is_news(edit.from, *op));
        if !is_news {
            return references.iter().flatten().for_each(|op| self.cover(*op));
        }
        let mut from = edit.from;
        while from < edit.to {
            let change = (from - self.start) / self.len;
            let to = edit.to.min(self.start + (change + 1) * self.len);
            let part = edit.part(from, to);
            part.references().iter().flatten().for_each(|op| self.see(from, *op));
            from = to;
        }
    }

    fn cover(&mut self, op: OpId) {
        let is_last = self.history.version.next(op.replica) == op.counter + 1;
        if is_last && self.history.heads.contains(&op.replica) {
            self.covered.push(op.replica);
        }
    }

    /// Whether `op` is as new as the change with the counter `at` is known to be.
    fn is_news(&self, at: u64, op: OpId) -> bool {
        let Some(piece) = self.pieces.last() else { return false };
        self.history.lamport(op) >= piece.lamport + (at - piece.start) / self.len
    }

    /// Notes that the change with the counter `at` builds on `op`.
    fn see(&mut self, at: u64, op: OpId) {
        self.cover(op);
        if !self.is_news(at, op) {
            return;
        }
        let seen = self.history.lamport(op);
        let Some(piece) = self.pieces.last_mut() else { return };
        let before = (at - piece.start) / self.len;
        // The author had seen something newer than its own changes: its time jumps.
        let start = piece.start + before * self.len;
        let count = piece.count - before;
        piece.count = before;
        if before == 0 {
            self.pieces.pop();
        }
        self.pieces.push(Piece { start, lamport: seen + 1, len: self.len, count });
    }

    fn finish(self) -> (Pieces, SmallVec<[ReplicaId; 1]>) {
        debug_assert!(self.pieces.last().is_some_and(|piece| piece.end() == self.end));
        (self.pieces, self.covered)
    }
}
