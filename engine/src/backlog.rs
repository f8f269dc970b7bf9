//! Changes that arrived before what they build on.
//!
//! Invariants, checked by `assert_invariants`:
//! - B1. Each waiting change is listed under exactly one op that it waits for.
//! - B2. `weight` is the sum of the waiting changes' weights, and both bounds of `limits` hold, unless a
//!   single change waits: there is always room for one.
//! - B3. No two waiting changes of one replica share a counter.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::change::Change;
use crate::error::IntegrateError;
use crate::id::{OpId, ReplicaId};
use crate::limits::{BACKLOG_BYTES_MAX, BACKLOG_CHANGES_MAX, BACKLOG_OP_BYTES};
use crate::version::Ahead;

/// Where a change begins: its author and first counter.
pub(crate) type Place = (ReplicaId, u64);

/// The waiting changes, found by what they wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backlog {
    waiting: BTreeMap<Place, Change>,
    waiting_for: BTreeMap<Place, BTreeSet<Place>>,
    missing: BTreeMap<Place, OpId>,
    weight: usize,
}

/// What the arrival of some changes leads to.
#[derive(Debug, Default)]
pub(crate) struct Arrangement {
    /// The changes that can be integrated, each after what it builds on, those included that were
    /// waiting.
    pub(crate) ready: Vec<Place>,
    /// The changes that have to wait, or to wait for something else than before.
    pub(crate) blocked: Vec<(Place, OpId)>,
    /// Waiting changes that came again and were integrated as a part of something larger.
    pub(crate) obsolete: BTreeSet<Place>,
}

impl Backlog {
    /// Works out what becomes ready when the `fresh` changes, none of which is here, arrive after
    /// `ahead` was reached. Changes nothing. O(log n) for each change involved.
    ///
    /// # Errors
    /// If more would wait afterwards than may.
    pub(crate) fn arrange(
        &self,
        fresh: &BTreeMap<Place, Change>,
        ahead: &mut Ahead<'_>,
    ) -> Result<Arrangement, IntegrateError> {
        let mut blocked: BTreeMap<Place, Vec<Place>> = BTreeMap::new();
        let mut released: BTreeSet<Place> = BTreeSet::new();
        let mut done = Arrangement::default();
        let mut next: Vec<Place> = fresh.keys().rev().copied().collect();
        for (author, reached) in ahead.advanced() {
            next.extend(self.released_by((author, 0)..(author, reached), &mut released));
            let obsolete = self.waiting.range((author, 0)..(author, reached));
            done.obsolete.extend(obsolete.map(|(place, _)| *place));
        }
        next.retain(|place| !done.obsolete.contains(place));
        while let Some(place) = next.pop() {
            let Some(change) = fresh.get(&place).or_else(|| self.waiting.get(&place)) else {
                continue;
            };
            if let Some(missing) = first_missing(change, ahead) {
                blocked.entry((missing.replica, missing.counter)).or_default().push(place);
                continue;
            }
            let (author, end) = (change.header().replica, change.header().end());
            ahead.advance(author, end);
            done.ready.push(place);
            let until_end = place..(author, end);
            while let Some((key, _)) = blocked.range(until_end.clone()).next() {
                let key = *key;
                next.extend(blocked.remove(&key).unwrap_or_default());
            }
            next.extend(self.released_by(until_end, &mut released));
        }
        done.blocked = blocked
            .into_iter()
            .flat_map(|((replica, counter), places)| {
                places.into_iter().map(move |place| (place, OpId { replica, counter }))
            })
            .collect();
        released.extend(&done.obsolete);
        self.check_room(fresh, &released, &done)?;
        Ok(done)
    }

    /// The waiting changes that waited for an op in the range.
    fn released_by(&self, range: Range<Place>, released: &mut BTreeSet<Place>) -> Vec<Place> {
        let waited = self.waiting_for.range(range).flat_map(|(_, places)| places);
        waited.filter(|place| released.insert(**place)).copied().collect()
    }

    fn check_room(
        &self,
        fresh: &BTreeMap<Place, Change>,
        released: &BTreeSet<Place>,
        done: &Arrangement,
    ) -> Result<(), IntegrateError> {
        let weight = |place: &Place| {
            let change = fresh.get(place).or_else(|| self.waiting.get(place));
            change.map_or(0, weight)
        };
        let leave: usize = released.iter().map(weight).sum();
        let stay: usize = done.blocked.iter().map(|(place, _)| weight(place)).sum();
        let changes = self.waiting.len() - released.len() + done.blocked.len();
        let weight = self.weight - leave + stay;
        if !has_room(changes, weight) {
            return Err(IntegrateError::BacklogFull { changes, weight });
        }
        Ok(())
    }

    /// Keeps a change until `missing` is here.
    pub(crate) fn insert(&mut self, change: Change, missing: OpId) {
        let place = (change.header().replica, change.header().start);
        drop(self.remove(place));
        self.weight += weight(&change);
        self.waiting.insert(place, change);
        self.missing.insert(place, missing);
        self.waiting_for.entry((missing.replica, missing.counter)).or_default().insert(place);
    }

    /// Takes out the change that begins at `place`.
    pub(crate) fn remove(&mut self, place: Place) -> Option<Change> {
        let change = self.waiting.remove(&place)?;
        self.weight -= weight(&change);
        if let Some(missing) = self.missing.remove(&place) {
            let key = (missing.replica, missing.counter);
            if let Some(places) = self.waiting_for.get_mut(&key) {
                places.remove(&place);
                if places.is_empty() {
                    self.waiting_for.remove(&key);
                }
            }
        }
        Some(change)
    }

    /// The waiting changes of an author that share a counter with the range.
    pub(crate) fn overlapping(
        &self,
        author: ReplicaId,
        range: Range<u64>,
    ) -> impl Iterator<Item = &Change> {
        let before = self.waiting.range((author, 0)..(author, range.start)).next_back();
        let before = before.filter(|(_, change)| change.header().end() > range.start);
        let inside = self.waiting.range((author, range.start)..(author, range.end));
        before.into_iter().chain(inside).map(|(_, change)| change)
    }

    /// The waiting changes.
    pub(crate) const fn changes(&self) -> &BTreeMap<Place, Change> {
        &self.waiting
    }

    /// The ops that changes wait for.
    pub(crate) fn missing(&self) -> impl Iterator<Item = OpId> + '_ {
        self.waiting_for
            .keys()
            .map(|(replica, counter)| OpId { replica: *replica, counter: *counter })
    }

    /// Panics if B1 to B3 do not hold.
    pub(crate) fn assert_invariants(&self) {
        let listed: Vec<Place> = self.waiting_for.values().flatten().copied().collect();
        let distinct: BTreeSet<Place> = listed.iter().copied().collect();
        assert_eq!(listed.len(), distinct.len(), "B1: a change is listed twice");
        assert!(distinct.iter().eq(self.waiting.keys()), "B1: a change is not listed");
        for (key, places) in &self.waiting_for {
            for place in places {
                let missing = self.missing.get(place).map(|op| (op.replica, op.counter));
                assert_eq!(missing, Some(*key), "B1: {place:?}");
            }
        }
        let weight: usize = self.waiting.values().map(weight).sum();
        assert_eq!(weight, self.weight, "B2");
        assert!(has_room(self.waiting.len(), weight), "B2");
        let headers: Vec<_> = self.waiting.values().map(Change::header).collect();
        for (a, b) in headers.iter().zip(headers.iter().skip(1)) {
            assert!(a.replica != b.replica || a.end() <= b.start, "B3: {a:?} {b:?}");
        }
    }
}

/// Whether so many changes of this weight together may wait. A single one always may, or else it could
/// never come: the entries of a purge weigh many times what a change has room for.
const fn has_room(changes: usize, weight: usize) -> bool {
    changes <= 1 || changes <= BACKLOG_CHANGES_MAX && weight <= BACKLOG_BYTES_MAX
}

/// What a change counts for: its bytes, or what its ops take in memory, which can be far more.
pub(crate) fn weight(change: &Change) -> usize {
    let ops = change.list().len() * BACKLOG_OP_BYTES + change.list().purged_bytes();
    change.bytes().len().max(ops)
}

/// What a change waits for: its author's previous op, or one of its deps.
fn first_missing(change: &Change, ahead: &Ahead<'_>) -> Option<OpId> {
    let header = change.header();
    if header.start > ahead.next(header.replica) {
        return Some(OpId { replica: header.replica, counter: header.start - 1 });
    }
    header.deps.iter().find(|dep| !ahead.has(**dep)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{EntryId, Life};
    use crate::op::Op;

    /// Entries whose ids follow each other take a byte or two each in a change.
    #[test]
    fn purges_count_as_what_they_take_in_memory() {
        const ENTRIES: usize = 1_000;
        let (author, start) = (ReplicaId::new(1).unwrap(), ENTRIES as u64);
        let entry = |counter| EntryId::created_by(OpId { replica: author, counter });
        let entries = (0..start).map(|counter| (entry(counter), Life::FIRST)).collect();
        let ops = [Op::Skip { count: 1 }, Op::Purge { entries }];
        let change = Change::new(author, start, vec![], &ops).unwrap();
        let taken = ENTRIES * size_of::<(EntryId, Life)>();
        assert!(change.bytes().len() < taken / 4);
        assert_eq!(weight(&change), 2 * BACKLOG_OP_BYTES + taken);
        let packed = change.memory();
        assert!(packed > taken);
        assert_eq!(change.ops().len(), 2);
        assert!(change.memory() > packed + taken, "the ops are there twice then");

        let mut backlog = Backlog::default();
        backlog.insert(change, OpId { replica: author, counter: start - 1 });
        backlog.assert_invariants();
        assert_eq!(backlog.weight, 2 * BACKLOG_OP_BYTES + taken);
        drop(backlog.remove((author, start)));
        assert_eq!(backlog.weight, 0);
    }
}
