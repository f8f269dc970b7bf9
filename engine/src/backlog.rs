//! Changes that arrived before what they build on.
//!
//! Invariants, checked by `assert_invariants`:
//! - B1. Each waiting change is listed under exactly one op that it waits for.
//! - B2. `bytes` is the sum of the waiting changes' sizes, and both bounds of `limits` hold.
//! - B3. No two waiting changes of one replica share a counter.

use std::collections::{BTreeMap, BTreeSet};

use crate::change::Change;
use crate::error::IntegrateError;
use crate::id::{OpId, ReplicaId};
use crate::limits::{BACKLOG_BYTES_MAX, BACKLOG_CHANGES_MAX};

type Place = (ReplicaId, u64);

/// The waiting changes, found by what they wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backlog {
    waiting: BTreeMap<Place, Change>,
    waiting_for: BTreeMap<Place, BTreeSet<Place>>,
    bytes: usize,
}

impl Backlog {
    /// Keeps a change until `missing` is here. A change that waits already is not kept twice.
    pub(crate) fn insert(&mut self, change: Change, missing: OpId) {
        let place = (change.header().replica, change.header().start);
        let size = change.bytes().len();
        if self.waiting.insert(place, change).is_none() {
            self.bytes += size;
            self.waiting_for.entry((missing.replica, missing.counter)).or_default().insert(place);
        }
    }

    /// Takes out the changes that waited for an op of `replica` below `next`.
    pub(crate) fn take_ready(&mut self, replica: ReplicaId, next: u64) -> Vec<Change> {
        let mut ready = Vec::new();
        while let Some(key) =
            self.waiting_for.range((replica, 0)..(replica, next)).next().map(|(key, _)| *key)
        {
            for place in self.waiting_for.remove(&key).unwrap_or_default() {
                if let Some(change) = self.waiting.remove(&place) {
                    self.bytes -= change.bytes().len();
                    ready.push(change);
                }
            }
        }
        ready
    }

    /// The waiting change that shares a counter with `change`, if there is one.
    pub(crate) fn overlapping(&self, change: &Change) -> Option<&Change> {
        let header = change.header();
        let before = self.waiting.range((header.replica, 0)..(header.replica, header.end()));
        let (_, last) = before.last()?;
        (last.header().end() > header.start).then_some(last)
    }

    /// Whether `changes` more of `bytes` in all may wait.
    pub(crate) fn room_for(&self, changes: usize, bytes: usize) -> Result<(), IntegrateError> {
        let (changes, bytes) = (self.waiting.len() + changes, self.bytes + bytes);
        if changes > BACKLOG_CHANGES_MAX || bytes > BACKLOG_BYTES_MAX {
            return Err(IntegrateError::BacklogFull { changes, bytes });
        }
        Ok(())
    }

    /// How many changes wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
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
        let bytes: usize = self.waiting.values().map(|change| change.bytes().len()).sum();
        assert_eq!(bytes, self.bytes, "B2");
        assert!(self.room_for(0, 0).is_ok(), "B2: a bound is passed");
        let headers: Vec<_> = self.waiting.values().map(Change::header).collect();
        for (a, b) in headers.iter().zip(headers.iter().skip(1)) {
            assert!(a.replica != b.replica || a.end() <= b.start, "B3: {a:?} {b:?}");
        }
    }
}
