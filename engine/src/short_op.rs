//! Ops in eight bytes: which of the authors seen so far, and the counter.
//!
//! For what there is one of for each entry. An author is a number in one table alone: it depends on the
//! order of arrival, so it decides no order and reaches no byte and no digest. What does not fit has
//! no short form, and whoever keeps short ops keeps it in another way.
//!
//! Invariant, checked by `assert_invariants`:
//! - O1. Each author is here once, and is found.

use hashbrown::HashMap;

use crate::id::{OpId, ReplicaId};

const COUNTER_BITS: u32 = 48;
/// So many authors have numbers. Few in tests, so that they see ops without a short form.
const AUTHORS_MAX: usize =
    if cfg!(any(test, feature = "small-nodes")) { 3 } else { u16::MAX as usize };

/// An op in the words of one table of authors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShortOp(u64);

impl ShortOp {
    /// What is no op: a number of the caller's own.
    pub(crate) fn not_an_op(number: usize) -> Self {
        Self((u64::from(u16::MAX) << COUNTER_BITS) | number as u64)
    }

    /// The caller's number, if it is no op.
    pub(crate) const fn number(self) -> Option<usize> {
        #[expect(clippy::cast_possible_truncation, reason = "it was made from one")]
        if self.author() == u16::MAX { Some(self.counter() as usize) } else { None }
    }

    /// How many ops of the same author, or numbers, this is behind another, if it is only a few.
    pub(crate) fn step_from(self, first: Self) -> Option<u16> {
        u16::try_from(self.0.checked_sub(first.0)?).ok().filter(|_| self.author() == first.author())
    }

    /// What is so many ops of the same author, or numbers, behind.
    pub(crate) const fn behind(self, step: u16) -> Self {
        Self(self.0 + step as u64)
    }

    /// The number of its author.
    pub(crate) const fn author(self) -> u16 {
        (self.0 >> COUNTER_BITS) as u16
    }

    pub(crate) const fn counter(self) -> u64 {
        self.0 & ((1 << COUNTER_BITS) - 1)
    }
}

/// The authors of short ops.
#[derive(Clone, Debug, Default)]
pub(crate) struct Authors {
    list: Vec<ReplicaId>,
    numbers: HashMap<ReplicaId, u16>,
    /// The number that was asked for last.
    last: u16,
}

impl Authors {
    /// The short form of an op, if it has one.
    #[inline]
    pub(crate) fn shorten(&mut self, op: OpId) -> Option<ShortOp> {
        if op.counter >> COUNTER_BITS != 0 {
            return None;
        }
        let author = self.number(op.replica)?;
        Some(ShortOp(u64::from(author) << COUNTER_BITS | op.counter))
    }

    /// The number of an author, who may be new; none if there is none left.
    #[inline]
    pub(crate) fn number(&mut self, author: ReplicaId) -> Option<u16> {
        if self.list.get(usize::from(self.last)) != Some(&author) {
            self.last = self.find(author).or_else(|| self.add(author))?;
        }
        Some(self.last)
    }

    /// The number of an author that has one.
    #[inline]
    pub(crate) fn find(&self, author: ReplicaId) -> Option<u16> {
        if self.list.get(usize::from(self.last)) == Some(&author) {
            return Some(self.last);
        }
        self.numbers.get(&author).copied()
    }

    /// The author with a number.
    pub(crate) fn author(&self, number: u16) -> Option<ReplicaId> {
        self.list.get(usize::from(number)).copied()
    }

    /// The op that a short one stands for.
    #[inline]
    pub(crate) fn op(&self, short: ShortOp) -> OpId {
        OpId { replica: self.list[usize::from(short.author())], counter: short.counter() }
    }

    fn add(&mut self, author: ReplicaId) -> Option<u16> {
        let number =
            u16::try_from(self.list.len()).ok().filter(|_| self.list.len() < AUTHORS_MAX)?;
        self.list.push(author);
        self.numbers.insert(author, number);
        Some(number)
    }

    /// Panics if O1 does not hold.
    pub(crate) fn assert_invariants(&self) {
        assert_eq!(self.list.len(), self.numbers.len(), "O1");
        for (at, author) in self.list.iter().enumerate() {
            assert_eq!(self.numbers.get(author).copied().map(usize::from), Some(at), "O1");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::COUNTER_MAX;

    fn op(replica: u64, counter: u64) -> OpId {
        OpId { replica: ReplicaId::new(replica).unwrap(), counter }
    }

    #[test]
    fn short_ops_stand_for_what_they_were_made_of() {
        let mut authors = Authors::default();
        for counter in [0, 7, (1 << COUNTER_BITS) - 1] {
            for replica in [5, u64::MAX, 6, 5] {
                let short = authors.shorten(op(replica, counter)).unwrap();
                assert_eq!((authors.op(short), short.number()), (op(replica, counter), None));
            }
        }
        authors.assert_invariants();
        assert_eq!(ShortOp::not_an_op(9).number(), Some(9));
    }

    #[test]
    fn what_does_not_fit_has_no_short_form() {
        let mut authors = Authors::default();
        assert_eq!(authors.shorten(op(1, COUNTER_MAX)), None);
        let named = (1..).take_while(|replica| authors.shorten(op(*replica, 1)).is_some());
        assert_eq!(named.count(), AUTHORS_MAX);
        assert!(authors.shorten(op(1, 2)).is_some(), "those that are known stay so");
        authors.assert_invariants();
    }
}
