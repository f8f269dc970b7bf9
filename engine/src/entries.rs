//! Every entry that anything here has named, under a dense index.
//!
//! An id is looked up once for each op; from then on everything about an entry is found by its
//! index. An index is never given to another entry: what a transaction that was taken back had
//! named stays, with a state that says that no op has named it.
//!
//! Invariants, checked by `assert_invariants`:
//! - E1. Each id is here once, and is found.
//! - E2. The system entries have the indexes that [`EntryIx`] says.

use std::hash::BuildHasher;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::id::EntryId;
use crate::index::{dense_index, push_tightly};
use crate::registers::{EntryState, FieldNames};

dense_index! {
    /// Which entry, in this replica alone.
    EntryIx
}

impl EntryIx {
    pub(crate) const ROOT: Self = Self::new(0);
    pub(crate) const TRASH: Self = Self::new(1);
    pub(crate) const LOST_AND_FOUND: Self = Self::new(2);

    pub(crate) const fn is_well_known(self) -> bool {
        self.at() <= Self::LOST_AND_FOUND.at()
    }
}

/// The entries, with what each of them is and holds.
#[derive(Clone, Debug)]
pub(crate) struct Entries {
    ids: Vec<EntryId>,
    states: Vec<EntryState>,
    index: HashTable<EntryIx>,
    hasher: DefaultHashBuilder,
    /// The fields that registers are in.
    names: FieldNames,
}

impl Entries {
    /// The system entries.
    pub(crate) fn new() -> Self {
        let mut entries = Self {
            ids: Vec::new(),
            states: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            names: FieldNames::new(),
        };
        for id in [EntryId::ROOT, EntryId::TRASH, EntryId::LOST_AND_FOUND] {
            entries.name(id);
        }
        entries
    }

    /// The index of an entry, which may be named here for the first time.
    pub(crate) fn name(&mut self, id: EntryId) -> EntryIx {
        let Self { ids, states, index, hasher, .. } = self;
        let hash = hash(hasher, id);
        let is_it = |ix: &EntryIx| ids[ix.at()] == id;
        match index.entry(hash, is_it, |ix| self::hash(hasher, ids[ix.at()])) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                let ix = EntryIx::new(ids.len());
                place.insert(ix);
                push_tightly(ids, id);
                push_tightly(states, EntryState::default());
                ix
            }
        }
    }

    pub(crate) fn state_mut(&mut self, ix: EntryIx) -> (&mut EntryState, &mut FieldNames) {
        (&mut self.states[ix.at()], &mut self.names)
    }

    /// The index of an entry, if anything has named it.
    pub(crate) fn find(&self, id: EntryId) -> Option<EntryIx> {
        self.index.find(hash(&self.hasher, id), |ix| self.ids[ix.at()] == id).copied()
    }

    pub(crate) fn id(&self, ix: EntryIx) -> EntryId {
        self.ids[ix.at()]
    }

    pub(crate) fn state(&self, ix: EntryIx) -> &EntryState {
        &self.states[ix.at()]
    }

    pub(crate) const fn names(&self) -> &FieldNames {
        &self.names
    }

    /// How many indexes there are.
    pub(crate) const fn len(&self) -> usize {
        self.ids.len()
    }

    /// All indexes, in the order in which they were given out.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = EntryIx> + use<> {
        (0..self.ids.len()).map(EntryIx::new)
    }

    /// Panics if E1 or E2 does not hold.
    pub(crate) fn assert_invariants(&self) {
        assert_eq!(self.index.len(), self.ids.len(), "E1");
        assert_eq!(self.states.len(), self.ids.len(), "E1");
        for ix in self.indexes() {
            assert_eq!(self.find(self.id(ix)), Some(ix), "E1");
            assert_eq!(self.id(ix).is_well_known(), ix.is_well_known(), "E2");
        }
        assert_eq!(self.id(EntryIx::TRASH), EntryId::TRASH, "E2");
        assert_eq!(self.id(EntryIx::LOST_AND_FOUND), EntryId::LOST_AND_FOUND, "E2");
    }
}

fn hash(hasher: &DefaultHashBuilder, id: EntryId) -> u64 {
    hasher.hash_one(u128::from_ne_bytes(*id.as_bytes()))
}
