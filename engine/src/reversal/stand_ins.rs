//! Which ops and characters stand for others.
//!
//! What was taken back and is brought again has new ids. Records of what was done before speak of the
//! old ones, by which a thing was first known; here is what stands for it now, and the other way round.
//! So records need not be rewritten, and a thing keeps its first name however often it goes and comes.
//!
//! Invariant: `now` and `first` are inverse to each other.

use std::collections::BTreeMap;

use hashbrown::HashMap;

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

/// Ids of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// What stands for a thing, by its first name.
    now: IdMap,
    /// The first name of what stands for another.
    first: IdMap,
    /// What was replaced since the last commit, to go back to.
    log: Vec<Part>,
}

impl Names {
    /// The parts of a range under their first names, in order.
    pub(super) fn first_names(&self, range: IdRange) -> Vec<IdRange> {
        let parts = self.first.parts(range).into_iter();
        parts.map(|(part, first)| IdRange { first: first.unwrap_or(part.first), ..part }).collect()
    }

    /// The first name of one.
    pub(super) fn first_name(&self, id: OpId) -> OpId {
        self.first_names(IdRange { first: id, len: 1 }).first().map_or(id, |range| range.first)
    }

    /// What stands now for a range of first names, in parts.
    pub(super) fn present(&self, range: IdRange) -> Vec<Part> {
        let parts = self.now.parts(range).into_iter();
        parts.map(|(part, now)| (part, Some(now.unwrap_or(part.first)))).collect()
    }

    /// Lets ids from `by` on stand for a range of first names.
    pub(super) fn replace(&mut self, range: IdRange, by: OpId) {
        let mut at = by;
        for (part, before) in self.now.parts(range) {
            self.log.push((part, before));
            self.put(part, before, Some(at));
            at = at.plus(part.len);
        }
    }

    fn put(&mut self, part: IdRange, before: Option<OpId>, after: Option<OpId>) {
        if let Some(first) = before {
            self.first.remove(IdRange { first, ..part });
        }
        match after {
            Some(first) => {
                self.now.insert(part, first);
                self.first.insert(IdRange { first, ..part }, part.first);
            }
            None => self.now.remove(part),
        }
    }

    fn roll_back(&mut self) {
        while let Some((part, before)) = self.log.pop() {
            for (part_now, after) in self.now.parts(part) {
                let by = part_now.first.counter - part.first.counter;
                self.put(part_now, after, before.map(|first| first.plus(by)));
            }
        }
    }

    fn retain(&mut self, mentioned: &IdMap) {
        let old = std::mem::take(self);
        for (range, by) in old.now.ranges() {
            for (part, is_mentioned) in mentioned.parts(range) {
                if is_mentioned.is_some() {
                    let by = by.plus(part.first.counter - range.first.counter);
                    self.put(part, None, Some(by));
                }
            }
        }
    }
}

/// What stands for what was taken back and brought again. Belongs to the [`Reversal`]s of one
/// replica, which speak of first names.
///
/// [`Reversal`]: crate::Reversal
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StandIns {
    /// Moves and sets.
    pub(super) ops: Names,
    pub(super) chars: Names,
    /// The characters of others in texts that were set again, by the first name of the set: whose they
    /// are is known by their first names alone.
    others: HashMap<OpId, Vec<IdRange>>,
    /// Of a set whose text has come back inside the text of another one, that one; both by their first
    /// names.
    hosts: HashMap<OpId, OpId>,
}

impl StandIns {
    /// How much room they take: so many ranges of ids.
    #[must_use]
    pub fn len(&self) -> usize {
        let others = self.others.values().map(Vec::len).sum::<usize>();
        self.ops.now.len() + self.chars.now.len() + others + self.hosts.len()
    }

    /// Whether everything has its first name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what no reversal speaks of any more.
    pub fn retain(&mut self, mentioned: &Mentioned) {
        let is_mentioned = |op: &OpId| {
            let parts = mentioned.ops.parts(IdRange { first: *op, len: 1 });
            parts.iter().any(|(_, is_mentioned)| is_mentioned.is_some())
        };
        self.others.retain(|set, _| is_mentioned(set));
        self.hosts.retain(|set, _| is_mentioned(set));
        let mut chars = mentioned.chars.clone();
        self.others.values().flatten().for_each(|range| chars.insert(*range, range.first));
        self.ops.retain(&mentioned.ops);
        self.chars.retain(&chars);
    }

    /// Notes whose the characters are in a text that was set again, as long as somebody speaks of the
    /// set.
    pub(super) fn keep_others(&mut self, set: OpId, others: Vec<IdRange>) {
        if others.is_empty() {
            self.others.remove(&set);
        } else {
            self.others.insert(set, others);
        }
    }

    /// Lets the text of one set be found inside that of another.
    pub(super) fn put_inside(&mut self, set: OpId, host: OpId) {
        self.hosts.insert(set, host);
    }

    /// Lets the text of a set stand by itself again.
    pub(super) fn take_out(&mut self, set: OpId) {
        self.hosts.remove(&set);
    }

    /// Whether the text of one set is inside that of another, be it over others. Both by first names.
    pub(super) fn is_inside(&self, set: OpId, host: OpId) -> bool {
        let hosts = std::iter::successors(self.hosts.get(&set), |at| self.hosts.get(*at));
        // They may go in a circle.
        hosts.take(self.hosts.len()).any(|at| *at == host)
    }

    pub(super) fn settle(&mut self) {
        self.ops.log.clear();
        self.chars.log.clear();
    }

    pub(super) fn roll_back(&mut self) {
        self.ops.roll_back();
        self.chars.roll_back();
    }
}

/// What some reversals speak of. See [`Reversal::mention`](crate::Reversal::mention).
#[derive(Clone, Debug, Default)]
pub struct Mentioned {
    pub(super) ops: IdMap,
    pub(super) chars: IdMap,
}

impl Mentioned {
    pub(super) fn add_op(&mut self, first: OpId) {
        self.ops.insert(IdRange { first, len: 1 }, first);
    }

    pub(super) fn add_chars(&mut self, range: IdRange) {
        self.chars.insert(range, range.first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(replica: u64, counter: u64) -> OpId {
        OpId { replica: ReplicaId::new(replica).unwrap(), counter }
    }

    fn range(replica: u64, from: u64, to: u64) -> IdRange {
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

    #[test]
    fn a_thing_keeps_its_first_name() {
        let mut names = Names::default();
        names.replace(range(1, 0, 9), id(1, 50));
        names.replace(range(1, 3, 5), id(1, 70));
        assert_eq!(
            names.present(range(1, 2, 6)),
            [
                (range(1, 2, 3), Some(id(1, 52))),
                (range(1, 3, 5), Some(id(1, 70))),
                (range(1, 5, 6), Some(id(1, 55))),
            ]
        );
        assert_eq!(names.first_names(range(1, 70, 72)), [range(1, 3, 5)]);
        assert_eq!(names.first_name(id(1, 53)), id(1, 53), "stands for nothing any more");
        assert_eq!(names.first_name(id(1, 54 + 1)), id(1, 5));
    }

    #[test]
    fn what_is_rolled_back_was_never_there() {
        let mut stand_ins = StandIns::default();
        stand_ins.chars.replace(range(1, 0, 9), id(1, 50));
        stand_ins.settle();
        let before = stand_ins.clone();
        stand_ins.chars.replace(range(1, 3, 12), id(1, 70));
        stand_ins.chars.replace(range(1, 4, 5), id(1, 90));
        stand_ins.ops.replace(range(2, 0, 1), id(2, 7));
        stand_ins.roll_back();
        assert_eq!(stand_ins.chars.present(range(1, 0, 12)), before.chars.present(range(1, 0, 12)));
        assert_eq!(stand_ins.chars.first_names(range(1, 70, 79)), [range(1, 70, 79)]);
        assert_eq!(stand_ins.ops, Names::default());
    }

    #[test]
    fn only_what_is_mentioned_is_kept() {
        let mut stand_ins = StandIns::default();
        stand_ins.chars.replace(range(1, 0, 9), id(1, 50));
        stand_ins.ops.replace(range(1, 0, 1), id(1, 60));
        let mut mentioned = Mentioned::default();
        mentioned.add_chars(range(1, 2, 4));
        stand_ins.retain(&mentioned);
        assert_eq!(stand_ins.chars.present(range(1, 2, 4)), [(range(1, 2, 4), Some(id(1, 52)))]);
        assert_eq!(stand_ins.chars.first_name(id(1, 51)), id(1, 51));
        assert!(stand_ins.ops.now.len() == 0 && stand_ins.len() == 1);
    }

    #[test]
    fn a_text_is_found_inside_others() {
        let [a, b, c] = [1, 2, 3].map(|counter| id(1, counter));
        let mut stand_ins = StandIns::default();
        stand_ins.put_inside(a, b);
        stand_ins.put_inside(b, c);
        assert!(stand_ins.is_inside(a, c) && stand_ins.is_inside(b, c));
        assert!(!stand_ins.is_inside(c, a) && !stand_ins.is_inside(a, a));
        stand_ins.put_inside(c, a);
        assert!(!stand_ins.is_inside(a, id(1, 4)), "it ends");
        stand_ins.take_out(b);
        assert!(!stand_ins.is_inside(a, c));
    }

    #[test]
    fn whose_characters_are_is_kept_as_long_as_their_text_is_mentioned() {
        let mut stand_ins = StandIns::default();
        stand_ins.chars.replace(range(2, 0, 9), id(1, 50));
        stand_ins.chars.replace(range(1, 0, 9), id(1, 70));
        stand_ins.keep_others(id(1, 40), vec![range(2, 0, 9)]);
        let mut mentioned = Mentioned::default();
        mentioned.add_op(id(1, 40));
        stand_ins.retain(&mentioned);
        assert_eq!(stand_ins.chars.first_name(id(1, 51)), id(2, 1));
        assert_eq!(stand_ins.chars.first_name(id(1, 71)), id(1, 71));
        stand_ins.retain(&Mentioned::default());
        assert!(stand_ins.is_empty());
    }
}
