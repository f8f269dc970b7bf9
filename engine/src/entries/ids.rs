//! The ids of all entries, by index: eight bytes for one that this engine made, since it carries an op.

use crate::id::EntryId;
use crate::index::{push_tightly, trim};
use crate::short_op::{Authors, ShortOp};

#[derive(Clone, Debug, Default)]
pub(super) struct Ids {
    /// The op that an id carries, or the place of the id among the others.
    ids: Vec<ShortOp>,
    authors: Authors,
    /// Ids that carry no op, or one without a short form.
    others: Vec<EntryId>,
}

impl Ids {
    pub(super) fn reserve(&mut self, ids: usize) {
        self.ids.reserve_exact(ids);
    }

    pub(super) fn trim(&mut self) {
        trim(&mut self.ids);
        trim(&mut self.others);
    }

    pub(super) fn push(&mut self, id: EntryId) {
        let short = id.creator().and_then(|creator| self.authors.shorten(creator));
        let short = short.unwrap_or_else(|| {
            push_tightly(&mut self.others, id);
            ShortOp::not_an_op(self.others.len() - 1)
        });
        push_tightly(&mut self.ids, short);
    }

    /// The id of the entry with the index `at`.
    #[inline]
    pub(super) fn get(&self, at: usize) -> EntryId {
        let short = self.ids[at];
        match short.number() {
            Some(other) => self.others[other],
            None => EntryId::created_by(self.authors.op(short)),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.ids.len()
    }

    /// Panics if an invariant of a part does not hold.
    pub(super) fn assert_invariants(&self) {
        self.authors.assert_invariants();
        let others = self.ids.iter().filter_map(|short| short.number());
        assert!(others.eq(0..self.others.len()), "an id is in the wrong place");
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
        let mut ids = Ids::default();
        all.iter().for_each(|id| ids.push(*id));
        ids.assert_invariants();
        assert!((0..ids.len()).map(|at| ids.get(at)).eq(all));
    }
}
