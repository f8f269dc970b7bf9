//! Ids by id, in ranges: what is consecutive and mapped to what is consecutive takes one place.

use std::collections::BTreeMap;

use crate::id::{OpId, ReplicaId};
use crate::op::IdRange;

/// Ranges of ids, each with the ids that it is mapped to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IdMap(BTreeMap<(ReplicaId, u64), (u64, OpId)>);

/// A part of a range, and the first of the ids that it is mapped to.
pub(super) type Part = (IdRange, Option<OpId>);

impl IdMap {
    /// The parts of a range, in order.
    pub(super) fn parts(&self, range: IdRange) -> Vec<Part> {
        let (replica, end) = (range.first.replica, range.first.counter + range.len);
        let part = |from: u64, to: u64, mapped| {
            (IdRange { first: OpId { replica, counter: from }, len: to - from }, mapped)
        };
        let mut parts = Vec::new();
        let mut at = range.first.counter;
        for (start, len, to) in self.overlapping(range) {
            if at < start {
                parts.push(part(at, start, None));
                at = start;
            }
            let upto = end.min(start + len);
            parts.push(part(at, upto, Some(to.plus(at - start))));
            at = upto;
        }
        if at < end {
            parts.push(part(at, end, None));
        }
        parts
    }

    /// Maps a range, whatever it was mapped to before.
    pub(super) fn insert(&mut self, range: IdRange, to: OpId) {
        self.remove(range);
        let IdRange { first, len } = range;
        if let Some((start, (before, mapped))) = self.0.range_mut(..key(first)).next_back()
            && start.0 == first.replica
            && start.1 + *before == first.counter
            && mapped.plus(*before) == to
        {
            *before += len;
            return;
        }
        self.0.insert(key(first), (len, to));
    }

    /// Maps a range to nothing.
    pub(super) fn remove(&mut self, range: IdRange) {
        let (replica, end) = (range.first.replica, range.first.counter + range.len);
        let overlapping: Vec<_> = self.overlapping(range).collect();
        for (start, len, to) in overlapping {
            self.0.remove(&(replica, start));
            if start < range.first.counter {
                self.0.insert((replica, start), (range.first.counter - start, to));
            }
            if start + len > end {
                self.0.insert((replica, end), (start + len - end, to.plus(end - start)));
            }
        }
    }

    /// What an id is mapped to.
    pub(super) fn get(&self, id: OpId) -> Option<OpId> {
        let (start, _, to) = self.overlapping(IdRange { first: id, len: 1 }).next()?;
        Some(to.plus(id.counter - start))
    }

    /// Whether an id is mapped to anything.
    pub(super) fn has(&self, id: OpId) -> bool {
        self.get(id).is_some()
    }

    /// How many ranges there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = (IdRange, OpId)> + '_ {
        self.0.iter().map(|((replica, counter), (len, to))| {
            let first = OpId { replica: *replica, counter: *counter };
            (IdRange { first, len: *len }, *to)
        })
    }

    /// Panics if ranges overlap or are empty.
    pub(super) fn assert_invariants(&self) {
        assert!(self.0.values().all(|(len, _)| *len > 0), "an empty range");
        for (((author, start), (len, _)), ((next, from), _)) in
            self.0.iter().zip(self.0.iter().skip(1))
        {
            assert!(author != next || start + len <= *from, "{author:?}@{start} has two values");
        }
    }

    /// What overlaps with a range: first counter, length, and what it is mapped to.
    fn overlapping(&self, range: IdRange) -> impl Iterator<Item = (u64, u64, OpId)> + '_ {
        let (replica, counter) = key(range.first);
        let end = counter + range.len;
        let before = self.0.range(..=(replica, counter)).next_back();
        let first = before.map_or(counter, |((author, start), (len, _))| {
            if *author == replica && start + len > counter { *start } else { counter }
        });
        let found = self.0.range((replica, first)..(replica, end));
        found.map(|((_, start), (len, to))| (*start, *len, *to))
    }
}

const fn key(id: OpId) -> (ReplicaId, u64) {
    (id.replica, id.counter)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn id(replica: u64, counter: u64) -> OpId {
        OpId { replica: ReplicaId::new(replica).unwrap(), counter }
    }

    pub(in super::super) fn range(replica: u64, from: u64, to: u64) -> IdRange {
        IdRange { first: id(replica, from), len: to - from }
    }

    #[test]
    fn a_range_is_mapped_in_parts() {
        let mut map = IdMap::default();
        map.insert(range(1, 10, 20), id(9, 100));
        map.insert(range(1, 20, 25), id(9, 110));
        assert_eq!(map.len(), 1, "goes on");
        map.insert(range(1, 12, 14), id(8, 0));
        map.insert(range(2, 0, 99), id(7, 0));
        assert_eq!(
            map.parts(range(1, 5, 30)),
            [
                (range(1, 5, 10), None),
                (range(1, 10, 12), Some(id(9, 100))),
                (range(1, 12, 14), Some(id(8, 0))),
                (range(1, 14, 25), Some(id(9, 104))),
                (range(1, 25, 30), None),
            ]
        );
        assert_eq!(map.parts(range(1, 15, 16)), [(range(1, 15, 16), Some(id(9, 105)))]);
        let got = [9, 11, 12, 14, 25].map(|counter| map.get(id(1, counter)));
        assert_eq!(got, [None, Some(id(9, 101)), Some(id(8, 0)), Some(id(9, 104)), None]);
        map.remove(range(1, 0, 13));
        assert_eq!(
            map.parts(range(1, 11, 15)),
            [
                (range(1, 11, 13), None),
                (range(1, 13, 14), Some(id(8, 1))),
                (range(1, 14, 15), Some(id(9, 104))),
            ]
        );
    }
}
