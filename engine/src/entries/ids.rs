//! The ids of all entries, by index: some three bytes for one that this engine made. Such an id carries an
//! op, and entries beside each other were mostly created near each other.
//!
//! Invariant, checked by `assert_invariants`:
//! - J1. Ids that carry no op are in the order in which they came.

use crate::id::EntryId;
use crate::index::{push_tightly, trim};
use crate::short_op::{Authors, ShortOp};

/// So many ids share a page. Few make tests see many pages.
const PAGE: usize = if cfg!(any(test, feature = "small-nodes")) { 3 } else { 16 };

#[derive(Clone, Debug, Default)]
pub(super) struct Ids {
    /// The op that each id carries, or the place of the id among the others.
    pages: Vec<Page>,
    len: usize,
    authors: Authors,
    /// Ids that carry no op, or one without a short form.
    others: Vec<EntryId>,
}

/// What stands for a few ids whose indexes follow each other.
#[derive(Clone, Debug)]
enum Page {
    /// The first one, and how far each is behind it.
    Near(ShortOp, [u16; PAGE]),
    /// Where one of them is not near.
    Apart(Box<[ShortOp; PAGE]>),
}

// There is one for a few entries.
const _: () = assert!(size_of::<Page>() <= 48);

impl Page {
    const fn get(&self, at: usize) -> ShortOp {
        match self {
            Self::Near(first, steps) => first.behind(steps[at]),
            Self::Apart(all) => all[at],
        }
    }

    fn set(&mut self, at: usize, short: ShortOp) {
        if let Self::Near(first, steps) = self {
            if let Some(step) = short.step_from(*first) {
                steps[at] = step;
                return;
            }
            *self = Self::Apart(Box::new(steps.map(|step| first.behind(step))));
        }
        if let Self::Apart(all) = self {
            all[at] = short;
        }
    }
}

impl Ids {
    pub(super) fn reserve(&mut self, ids: usize) {
        self.pages.reserve_exact(ids.div_ceil(PAGE));
    }

    pub(super) fn trim(&mut self) {
        trim(&mut self.pages);
        trim(&mut self.others);
    }

    pub(super) fn push(&mut self, id: EntryId) {
        let short = id.creator().and_then(|creator| self.authors.shorten(creator));
        let short = short.unwrap_or_else(|| {
            push_tightly(&mut self.others, id);
            ShortOp::not_an_op(self.others.len() - 1)
        });
        let (page, at) = (self.len / PAGE, self.len % PAGE);
        if at == 0 {
            push_tightly(&mut self.pages, Page::Near(short, [0; PAGE]));
        }
        self.pages[page].set(at, short);
        self.len += 1;
    }

    /// The id of the entry with the index `at`.
    #[inline]
    pub(super) fn get(&self, at: usize) -> EntryId {
        let short = self.pages[at / PAGE].get(at % PAGE);
        match short.number() {
            Some(other) => self.others[other],
            None => EntryId::created_by(self.authors.op(short)),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Panics if J1 does not hold, or an invariant of a part.
    pub(super) fn assert_invariants(&self) {
        self.authors.assert_invariants();
        let all = (0..self.len).map(|at| self.pages[at / PAGE].get(at % PAGE));
        assert!(all.filter_map(ShortOp::number).eq(0..self.others.len()), "J1");
        assert_eq!(self.pages.len(), self.len.div_ceil(PAGE), "a page is missing");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{OpId, ReplicaId};
    use crate::limits::COUNTER_MAX;

    #[test]
    fn ids_of_every_kind_come_back_as_they_were() {
        let created = |replica, counter| {
            EntryId::created_by(OpId { replica: ReplicaId::new(replica).unwrap(), counter })
        };
        let mut all = vec![EntryId::ROOT, created(1, 7), EntryId::from_bytes([9; 16])];
        all.extend([created(1, COUNTER_MAX), created(2, 0)]);
        // More authors than have numbers.
        all.extend((1..9).map(|replica| created(replica, 8)));
        // Pages of which some are near, at the end of what that is, and past it.
        for step in [1, 7, 0xffff, 0x1_0000] {
            all.extend((0..6).map(|nth| created(1, 10 + nth * step)));
            all.extend((0..6).map(|nth| created(1, 1 << 20 >> nth)));
        }
        let mut ids = Ids::default();
        all.iter().for_each(|id| ids.push(*id));
        ids.assert_invariants();
        assert!((0..ids.len()).map(|at| ids.get(at)).eq(all));
    }
}
