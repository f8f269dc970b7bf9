//! Short names for the characters of one text.
//!
//! An id is 16 bytes, and a text has an id or two for each run. Inside one text an id is one number:
//! which of the text's authors, then the counter. Counters have 56 bits and a text is usually a few
//! authors' work of a short time, so an author counts once for each *era*, a stretch of counters.
//! These numbers never leave the text and decide no order.
//!
//! Invariants, checked by `assert_invariants`:
//! - A1. No two authors have the same replica and era.
//! - A2. Past a few authors, each is in the map under its name.

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::id::{OpId, ReplicaId};

/// How many bits of a counter lie within its era. Few in tests, so that they see many eras.
const ERA_BITS: u32 = if cfg!(any(test, feature = "small-nodes")) { 7 } else { 32 };
const ERA_LEN: u64 = 1 << ERA_BITS;

/// Up to how many authors looking through all of them is the fastest way to find one.
const FEW: usize = if cfg!(any(test, feature = "small-nodes")) { 2 } else { 8 };

/// An id in the words of one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CharId(u64);

impl CharId {
    /// After every id there is.
    pub(super) const MAX: Self = Self(u64::MAX);

    const fn new(author: u32, within_era: u64) -> Self {
        Self(((author as u64) << ERA_BITS) | within_era)
    }

    /// The id `by` places later, which may be the one after an era's last.
    #[inline]
    pub(super) fn plus(self, by: u32) -> Self {
        Self(self.0 + u64::from(by))
    }

    /// The id `by` places earlier, which has to be in the same era.
    #[inline]
    pub(super) fn minus(self, by: u32) -> Self {
        Self(self.0 - u64::from(by))
    }

    /// How many places it is later than `first`; a huge number if it is earlier.
    #[inline]
    pub(super) const fn distance_from(self, first: Self) -> u64 {
        self.0.wrapping_sub(first.0)
    }

    /// Whether it is the first of its era, so that none before it belongs to the same run.
    #[inline]
    pub(super) const fn begins_era(self) -> bool {
        self.0.is_multiple_of(ERA_LEN)
    }

    /// Whether both have one author and era.
    #[inline]
    pub(super) const fn is_of_author_of(self, other: Self) -> bool {
        self.author() == other.author()
    }

    #[inline]
    const fn author(self) -> usize {
        (self.0 >> ERA_BITS) as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Name {
    replica: ReplicaId,
    era: u64,
}

impl Name {
    #[inline]
    const fn of(id: OpId) -> Self {
        Self { replica: id.replica, era: id.counter >> ERA_BITS }
    }
}

#[derive(Clone, Copy, Debug)]
struct Author {
    name: Name,
    /// The id after the greatest of the text.
    end: CharId,
}

/// The authors of one text.
#[derive(Clone, Debug, Default)]
pub(super) struct Authors {
    list: Vec<Author>,
    /// Where in the list each is, once there are more than a few.
    places: HashMap<Name, u32>,
}

impl Authors {
    /// The short form of an id; none if no character of that author and era is here.
    #[inline]
    pub(super) fn find(&self, id: OpId) -> Option<CharId> {
        let author = self.place(Name::of(id))?;
        Some(CharId::new(author, id.counter % ERA_LEN))
    }

    /// The same, for a character that may be its author's first.
    pub(super) fn find_or_add(&mut self, id: OpId) -> CharId {
        self.find(id).unwrap_or_else(|| self.add(id))
    }

    /// Notes that the text has characters up to the one before `end`, which belongs to their author.
    #[inline]
    pub(super) fn reach(&mut self, last: CharId) {
        let known = &mut self.list[last.author()].end;
        *known = last.plus(1).max(*known);
    }

    /// The id after the greatest that the author of `id` has in this text.
    #[inline]
    pub(super) fn end_of(&self, id: CharId) -> CharId {
        self.list[id.author()].end
    }

    /// Notes that the text has `len` more characters from `id` on. Whether they are the last that their
    /// author has in this text, and of one era; if not, nothing is noted.
    #[inline]
    pub(super) fn extend(&mut self, id: CharId, len: u32) -> bool {
        let fits = !id.begins_era() && u64::from(len) <= Self::room(id);
        match self.list.get_mut(id.author()) {
            Some(author) if fits && author.end == id => {
                author.end = id.plus(len);
                true
            }
            _ => false,
        }
    }

    /// The id behind its short form.
    #[inline]
    pub(super) fn op(&self, id: CharId) -> OpId {
        let Name { replica, era } = self.list[id.author()].name;
        OpId { replica, counter: (era << ERA_BITS) | (id.0 % ERA_LEN) }
    }

    /// The ranges of short forms that may be in use among `len` ids from `first` on. Costs the eras that
    /// these go through, which mostly is one, or the authors if they are fewer.
    pub(super) fn ranges(&self, first: OpId, len: u64) -> SmallVec<[(CharId, CharId); 2]> {
        let last = first.counter.saturating_add(len - 1);
        let (from, to) = (first.counter >> ERA_BITS, last >> ERA_BITS);
        let range = |at: u32, era: u64| {
            let start = if era == from { first.counter % ERA_LEN } else { 0 };
            let end = if era == to { last % ERA_LEN } else { ERA_LEN - 1 };
            let end = CharId::new(at, end).plus(1).min(self.list[at as usize].end);
            (CharId::new(at, start), end)
        };
        let replica = first.replica;
        if to - from < self.list.len() as u64 {
            let place = |era| Some((self.place(Name { replica, era })?, era));
            return (from..=to).filter_map(place).map(|(at, era)| range(at, era)).collect();
        }
        let known = (0..).zip(&self.list).map(|(at, author)| (at, author.name));
        let inside =
            known.filter(|(_, name)| name.replica == replica && (from..=to).contains(&name.era));
        inside.map(|(at, name)| range(at, name.era)).collect()
    }

    /// How many more characters fit the era of `id`, itself included.
    #[inline]
    pub(super) const fn room(id: CharId) -> u64 {
        ERA_LEN - id.0 % ERA_LEN
    }

    fn add(&mut self, id: OpId) -> CharId {
        let name = Name::of(id);
        // Authors are fewer than runs, and these fewer than 2^32.
        let at = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        let id = CharId::new(at, id.counter % ERA_LEN);
        if self.list.is_empty() {
            self.list.reserve_exact(1);
        }
        self.list.push(Author { name, end: id });
        if self.list.len() == FEW + 1 {
            let all = (0..).zip(&self.list).map(|(at, author)| (author.name, at));
            self.places = all.collect();
        } else if self.list.len() > FEW {
            self.places.insert(name, at);
        }
        id
    }

    #[inline]
    fn place(&self, name: Name) -> Option<u32> {
        if self.list.len() > FEW {
            return self.places.get(&name).copied();
        }
        (0..).zip(&self.list).find(|(_, author)| author.name == name).map(|(at, _)| at)
    }

    /// Panics if A1 or A2 does not hold.
    pub(super) fn assert_invariants(&self) {
        for (at, author) in (0..).zip(&self.list) {
            assert_eq!(self.place(author.name), Some(at), "A1, A2: {author:?}");
        }
        if self.list.len() > FEW {
            assert_eq!(self.places.len(), self.list.len(), "A2");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(replica: u64, counter: u64) -> OpId {
        OpId { replica: ReplicaId::new(replica).unwrap(), counter }
    }

    fn authors(ids: impl Iterator<Item = OpId>) -> Authors {
        let mut authors = Authors::default();
        for id in ids {
            let id = authors.find_or_add(id);
            authors.reach(id);
        }
        authors
    }

    #[test]
    fn ranges_are_those_of_the_eras_in_which_there_is_something() {
        for others in [0, 1, 9] {
            let own = [2, 5, 3, 9].map(|era| op(1, era * ERA_LEN + 7));
            let others = (2..2 + others).map(|replica| op(replica, 4 * ERA_LEN));
            let authors = authors(own.into_iter().chain(others));
            authors.assert_invariants();
            let found = |from: u64, len: u64| {
                let ranges = authors.ranges(op(1, from), len).into_iter();
                let mut ids: Vec<_> = ranges
                    .filter(|(from, to)| from < to)
                    .map(|(from, to)| (authors.op(from).counter, to.distance_from(from)))
                    .collect();
                ids.sort_unstable();
                ids
            };
            let era = |number: u64, from: u64| (number * ERA_LEN + from, 8 - from);
            assert_eq!(found(0, 10 * ERA_LEN), [era(2, 0), era(3, 0), era(5, 0), era(9, 0)]);
            assert_eq!(found(2 * ERA_LEN + 3, 2 * ERA_LEN), [era(2, 3), era(3, 0)]);
            assert_eq!(found(5 * ERA_LEN + 2, 4), [(5 * ERA_LEN + 2, 4)]);
            assert_eq!(found(6 * ERA_LEN, 3 * ERA_LEN), []);
            assert_eq!(found(0, 1 << 56), found(0, 10 * ERA_LEN));
        }
    }

    /// A look at each of the others would be 10^11 looks.
    #[test]
    fn where_an_author_is_costs_no_look_at_the_others() {
        const AUTHORS: u64 = 400_000;
        let authors = authors((1..=AUTHORS).map(|replica| op(replica, 3)));
        for replica in 1..=AUTHORS {
            let ranges = authors.ranges(op(replica, 2), 3);
            let found =
                ranges.iter().map(|(from, to)| (authors.op(*from), to.distance_from(*from)));
            assert_eq!(found.collect::<Vec<_>>(), [(op(replica, 2), 2)]);
        }
    }
}
