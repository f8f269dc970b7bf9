//! Which ops and characters stand for others.
//!
//! What was taken back and is brought again has new ids. Records of what was done before speak of the
//! old ones, by which a thing was first known; here is what stands for it now, and the other way round.
//! So records need not be rewritten, and a thing keeps its first name however often it goes and comes.
//!
//! Invariant: `now` and `first` are inverse to each other.

use hashbrown::HashMap;

use super::id_map::{IdMap, Part};
use crate::id::OpId;
use crate::op::IdRange;

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
        self.first.get(id).unwrap_or(id)
    }

    /// What stands now for a range of first names, in parts, each with the first of the ids that do.
    pub(super) fn present(&self, range: IdRange) -> Vec<(IdRange, OpId)> {
        let parts = self.now.parts(range).into_iter();
        parts.map(|(part, now)| (part, now.unwrap_or(part.first))).collect()
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

    /// Panics if the invariant does not hold.
    fn assert_invariants(&self) {
        self.now.assert_invariants();
        self.first.assert_invariants();
        for (there, back) in [(&self.now, &self.first), (&self.first, &self.now)] {
            for (range, to) in there.ranges() {
                let mut at = range.first;
                for (part, from) in back.parts(IdRange { first: to, ..range }) {
                    assert_eq!(from, Some(at), "{part:?} is not mapped back");
                    at = at.plus(part.len);
                }
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

/// What is known of some sets, by their first names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OfSets<T> {
    known: HashMap<OpId, T>,
    /// What was known before each time since the last commit that something else was, to go back to.
    log: Vec<(OpId, Option<T>)>,
}

impl<T> Default for OfSets<T> {
    fn default() -> Self {
        Self { known: HashMap::new(), log: Vec::new() }
    }
}

impl<T> OfSets<T> {
    fn put(&mut self, set: OpId, value: Option<T>) {
        let before = self.replace(set, value);
        self.log.push((set, before));
    }

    fn replace(&mut self, set: OpId, value: Option<T>) -> Option<T> {
        match value {
            Some(value) => self.known.insert(set, value),
            None => self.known.remove(&set),
        }
    }

    fn roll_back(&mut self) {
        while let Some((set, before)) = self.log.pop() {
            self.replace(set, before);
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
    others: OfSets<Vec<IdRange>>,
    /// Of a set whose text has come back inside the text of another one, that one; both by their first
    /// names.
    hosts: OfSets<OpId>,
}

impl StandIns {
    /// How much room they take: so many ranges of ids.
    #[must_use]
    pub fn len(&self) -> usize {
        let others = self.others.known.values().map(Vec::len).sum::<usize>();
        self.ops.now.len() + self.chars.now.len() + others + self.hosts.known.len()
    }

    /// Whether everything has its first name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Panics if what stands for something else does not stand for it alone; for tests.
    pub fn assert_invariants(&self) {
        self.ops.assert_invariants();
        self.chars.assert_invariants();
        assert!(self.others.known.values().all(|ranges| !ranges.is_empty()), "nothing of others");
    }

    /// Forgets what no reversal speaks of any more. Of a text that came back inside others they are
    /// spoken of as well.
    pub fn retain(&mut self, mentioned: &Mentioned) {
        let mut kept = mentioned.clone();
        let mut inside: Vec<OpId> = self.hosts.known.keys().copied().collect();
        inside.retain(|set| kept.ops.has(*set));
        while let Some(set) = inside.pop() {
            // Where somebody has been, the way on is known.
            if let Some(host) = self.hosts.known.get(&set).filter(|host| !kept.ops.has(**host)) {
                kept.add_op(*host);
                inside.push(*host);
            }
        }
        self.others.known.retain(|set, _| kept.ops.has(*set));
        self.hosts.known.retain(|set, _| kept.ops.has(*set));
        let others = self.others.known.values().flatten();
        others.for_each(|range| kept.add_chars(*range));
        self.ops.retain(&kept.ops);
        self.chars.retain(&kept.chars);
    }

    /// Notes whose the characters are in a text that was set again, as long as somebody speaks of the
    /// set.
    pub(super) fn keep_others(&mut self, set: OpId, others: Vec<IdRange>) {
        self.others.put(set, (!others.is_empty()).then_some(others));
    }

    /// Lets the text of one set be found inside that of another.
    pub(super) fn put_inside(&mut self, set: OpId, host: OpId) {
        self.hosts.put(set, Some(host));
    }

    /// Lets the text of a set stand by itself again.
    pub(super) fn take_out(&mut self, set: OpId) {
        self.hosts.put(set, None);
    }

    /// Whether the text of one set is inside that of another, be it over others. Both by first names.
    pub(super) fn is_inside(&self, set: OpId, host: OpId) -> bool {
        let known = &self.hosts.known;
        let hosts = std::iter::successors(known.get(&set), |at| known.get(*at));
        // They may go in a circle.
        hosts.take(known.len()).any(|at| *at == host)
    }

    pub(super) fn settle(&mut self) {
        self.ops.log.clear();
        self.chars.log.clear();
        self.others.log.clear();
        self.hosts.log.clear();
    }

    pub(super) fn roll_back(&mut self) {
        self.ops.roll_back();
        self.chars.roll_back();
        self.others.roll_back();
        self.hosts.roll_back();
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
    use super::super::id_map::tests::{id, range};
    use super::*;

    #[test]
    fn a_thing_keeps_its_first_name() {
        let mut names = Names::default();
        names.replace(range(1, 0, 9), id(1, 50));
        names.replace(range(1, 3, 5), id(1, 70));
        assert_eq!(
            names.present(range(1, 2, 6)),
            [(range(1, 2, 3), id(1, 52)), (range(1, 3, 5), id(1, 70)), (range(1, 5, 6), id(1, 55)),]
        );
        assert_eq!(names.first_names(range(1, 70, 72)), [range(1, 3, 5)]);
        assert_eq!(names.first_name(id(1, 53)), id(1, 53), "stands for nothing any more");
        assert_eq!(names.first_name(id(1, 54 + 1)), id(1, 5));
    }

    #[test]
    fn what_is_rolled_back_was_never_there() {
        let mut stand_ins = StandIns::default();
        stand_ins.chars.replace(range(1, 0, 9), id(1, 50));
        stand_ins.put_inside(id(1, 1), id(1, 2));
        stand_ins.keep_others(id(1, 1), vec![range(2, 3, 4)]);
        stand_ins.settle();
        let before = stand_ins.clone();
        stand_ins.chars.replace(range(1, 3, 12), id(1, 70));
        stand_ins.chars.replace(range(1, 4, 5), id(1, 90));
        stand_ins.ops.replace(range(2, 0, 1), id(2, 7));
        stand_ins.put_inside(id(1, 1), id(1, 3));
        stand_ins.take_out(id(1, 1));
        stand_ins.keep_others(id(1, 1), vec![]);
        stand_ins.keep_others(id(1, 2), vec![range(2, 0, 9)]);
        stand_ins.roll_back();
        assert_eq!((&stand_ins.hosts, &stand_ins.others), (&before.hosts, &before.others));
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
        assert_eq!(stand_ins.chars.present(range(1, 2, 4)), [(range(1, 2, 4), id(1, 52))]);
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
    fn texts_around_one_that_is_mentioned_are_kept() {
        let [a, b, c, other] = [1, 2, 3, 4].map(|counter| id(1, counter));
        let mut stand_ins = StandIns::default();
        stand_ins.put_inside(a, b);
        stand_ins.put_inside(b, c);
        stand_ins.put_inside(other, c);
        stand_ins.keep_others(b, vec![range(2, 0, 9)]);
        stand_ins.ops.replace(IdRange { first: c, len: 1 }, id(1, 60));
        let mut mentioned = Mentioned::default();
        mentioned.add_op(a);
        stand_ins.put_inside(c, a);
        stand_ins.retain(&mentioned);
        assert!(stand_ins.is_inside(a, c) && !stand_ins.is_inside(other, c));
        assert_eq!(stand_ins.ops.first_name(id(1, 60)), c);
        assert_eq!(stand_ins.others.known[&b], [range(2, 0, 9)]);
        stand_ins.retain(&Mentioned::default());
        assert!(stand_ins.is_empty());
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
