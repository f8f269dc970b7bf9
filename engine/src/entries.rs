//! Every entry that anything here has named, under a dense index.
//!
//! An id is looked up once for each op; from then on everything about an entry is found by its
//! index. Ids of entries that were created in a row need no table for that (`id_runs`), and most take 3 of
//! their 16 bytes (`ids`). An index is never given to another entry: what a transaction that was
//! taken back had named stays, with a state that says that no op has named it.
//!
//! Invariants, checked by `assert_invariants`:
//! - E1. Each id is here once, and is found.
//! - E2. The system entries have the indexes that [`EntryIx`] says.

mod id_runs;
mod ids;

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::id::{EntryId, OpId, Stamp};
use crate::index::dense_index;
use crate::registers::{EntryState, FieldNames, States};
use id_runs::IdRuns;
use ids::Ids;

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
    ids: Ids,
    states: States,
    runs: IdRuns,
    /// The entries that are in no run.
    index: HashTable<EntryIx>,
    hasher: DefaultHashBuilder,
}

impl Entries {
    /// The system entries.
    pub(crate) fn new() -> Self {
        let mut entries = Self {
            ids: Ids::default(),
            states: States::new(),
            runs: IdRuns::default(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        };
        for id in [EntryId::ROOT, EntryId::TRASH, EntryId::LOST_AND_FOUND] {
            entries.name(id);
        }
        entries
    }

    /// Makes room for so many more at once.
    pub(crate) fn reserve(&mut self, entries: usize) {
        self.ids.reserve(entries);
        self.states.reserve(entries);
    }

    /// Gives back room that was made for more.
    pub(crate) fn trim(&mut self) {
        self.ids.trim();
        self.states.trim();
    }

    /// The index of an entry, which may be named here for the first time.
    #[inline]
    pub(crate) fn name(&mut self, id: EntryId) -> EntryIx {
        match self.find(id) {
            Some(known) => known,
            None => self.add(id),
        }
    }

    fn add(&mut self, id: EntryId) -> EntryIx {
        let ix = EntryIx::new(self.ids.len());
        self.ids.push(id);
        self.states.push();
        let Self { ids, runs, index, hasher, .. } = self;
        let mut keep = |id: EntryId, ix: EntryIx| {
            let rehash = |ix: &EntryIx| hash(hasher, ids.get(ix.at()));
            index.insert_unique(hash(hasher, id), ix, rehash);
        };
        match id.creator() {
            Some(creator) => runs.push(creator, ix, keep),
            None => keep(id, ix),
        }
        ix
    }

    /// What all entries are and hold.
    #[inline]
    pub(crate) const fn states_mut(&mut self) -> &mut States {
        &mut self.states
    }

    /// The index of an entry, if anything has named it.
    #[inline]
    pub(crate) fn find(&self, id: EntryId) -> Option<EntryIx> {
        if let Some(found) = id.creator().and_then(|creator| self.runs.find(creator)) {
            return Some(found);
        }
        if self.index.is_empty() { None } else { self.find_in_no_run(id) }
    }

    /// The same for one that is in no run. Apart, so that it does not weigh on the others.
    #[inline(never)]
    fn find_in_no_run(&self, id: EntryId) -> Option<EntryIx> {
        self.index.find(hash(&self.hasher, id), |ix| self.id(*ix) == id).copied()
    }

    #[inline]
    pub(crate) fn id(&self, ix: EntryIx) -> EntryId {
        self.ids.get(ix.at())
    }

    #[inline]
    pub(crate) const fn state(&self, ix: EntryIx) -> EntryState<'_> {
        self.states.get(ix)
    }

    pub(crate) const fn names(&self) -> &FieldNames {
        self.states.names()
    }

    /// How many indexes there are.
    pub(crate) const fn len(&self) -> usize {
        self.ids.len()
    }

    /// All indexes, in the order in which they were given out.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = EntryIx> + use<> {
        (0..self.ids.len()).map(EntryIx::new)
    }

    /// Panics if E1 or E2 does not hold, or an invariant of a part.
    pub(crate) fn assert_invariants(&self, clock: &impl Fn(OpId) -> Stamp) {
        self.states.assert_invariants(clock);
        self.ids.assert_invariants();
        self.runs.assert_invariants();
        assert_eq!(self.index.len() + self.runs.len(), self.ids.len(), "E1");
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
