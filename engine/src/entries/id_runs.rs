//! Ids of entries that were created in a row, found by arithmetic.
//!
//! An id that was made here carries the op that created the entry ([`EntryId::creator`]), and who
//! creates many entries mostly does so at even distances. Such a run takes a few bytes however long
//! it is; a hash table would take nine for each entry, and a cache miss or two to look into.
//!
//! Whatever is in no run is the caller's to keep, which hears of it by a callback: a run that ends
//! before it is worth its bytes is given up entry by entry.
//!
//! Invariants, checked by `assert_invariants`:
//! - I1. The runs of an author are in order of counter and share none.
//! - I2. No run but the growing one is shorter than [`LEN_MIN`].

use hashbrown::HashMap;

use super::EntryIx;
use crate::id::{EntryId, OpId, ReplicaId};

/// So many entries are worth a run. Few make tests see many runs.
const LEN_MIN: u32 = if cfg!(any(test, feature = "small-nodes")) { 2 } else { 8 };

/// Entries of one author whose counters are evenly far apart and whose indexes follow each other.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u64,
    /// How far apart the counters are; zero while there is only one.
    step: u32,
    ix: EntryIx,
    len: u32,
}

impl Run {
    fn new(counter: u64, ix: EntryIx) -> Self {
        Self { first: counter, step: 0, ix, len: 1 }
    }

    const fn last(&self) -> u64 {
        self.first + self.step as u64 * (self.len - 1) as u64
    }

    #[inline]
    fn find(&self, counter: u64) -> Option<EntryIx> {
        let distance = counter.checked_sub(self.first)?;
        let nth = match self.step {
            0 | 1 => distance,
            step if distance.is_multiple_of(step.into()) => distance / u64::from(step),
            _ => return None,
        };
        if nth < u64::from(self.len) { Some(self.nth(nth)) } else { None }
    }

    fn nth(&self, nth: u64) -> EntryIx {
        EntryIx::new(self.ix.at() + usize::try_from(nth).expect("less than a length of 32 bits"))
    }

    /// Takes an entry in, if the run goes on with it.
    fn extend(&mut self, counter: u64, ix: EntryIx) -> bool {
        let Some(step) = counter.checked_sub(self.last()).and_then(|step| u32::try_from(step).ok())
        else {
            return false;
        };
        let is_even = step > 0 && (self.step == 0 || self.step == step);
        let is_next = is_even && self.nth(self.len.into()) == ix;
        if is_next {
            (self.step, self.len) = (step, self.len + 1);
        }
        is_next
    }

    fn entries(&self, author: ReplicaId) -> impl Iterator<Item = (EntryId, EntryIx)> + use<> {
        let run = *self;
        (0..u64::from(run.len)).map(move |nth| {
            let counter = run.first + nth * u64::from(run.step);
            (EntryId::created_by(OpId { replica: author, counter }), run.nth(nth))
        })
    }
}

/// The runs of all authors.
#[derive(Clone, Debug, Default)]
pub(super) struct IdRuns {
    runs: HashMap<ReplicaId, Vec<Run>>,
    /// The run that the next entry may continue.
    growing: Option<(ReplicaId, Run)>,
}

impl IdRuns {
    /// The index of the entry that an op created, if it is in a run.
    #[inline]
    pub(super) fn find(&self, creator: OpId) -> Option<EntryIx> {
        let OpId { replica, counter } = creator;
        if let Some((author, run)) = &self.growing
            && *author == replica
            && let Some(found) = run.find(counter)
        {
            return Some(found);
        }
        if self.runs.is_empty() {
            return None;
        }
        let runs = self.runs.get(&replica)?;
        let after = runs.partition_point(|run| run.first <= counter);
        runs.get(after.checked_sub(1)?)?.find(counter)
    }

    /// Takes in an entry that is here nowhere else. `give_up` hears of those that belong to no run.
    pub(super) fn push(
        &mut self,
        creator: OpId,
        ix: EntryIx,
        give_up: impl FnMut(EntryId, EntryIx),
    ) {
        let OpId { replica, counter } = creator;
        if let Some((author, run)) = &mut self.growing
            && *author == replica
            && run.extend(counter, ix)
        {
            return;
        }
        if let Some((author, run)) = self.growing.replace((replica, Run::new(counter, ix))) {
            self.end(author, run, give_up);
        }
    }

    /// Keeps a run that has ended if it is long, and behind the others of its author.
    fn end(&mut self, author: ReplicaId, run: Run, mut give_up: impl FnMut(EntryId, EntryIx)) {
        let is_long = run.len >= LEN_MIN;
        let last = self.runs.get(&author).and_then(|runs| runs.last());
        if is_long && last.is_none_or(|last| last.last() < run.first) {
            self.runs.entry(author).or_default().push(run);
        } else {
            run.entries(author).for_each(|(id, ix)| give_up(id, ix));
        }
    }

    /// How many entries are in runs.
    pub(super) fn len(&self) -> usize {
        let growing = self.growing.iter().map(|(_, run)| run);
        self.runs.values().flatten().chain(growing).map(|run| run.len as usize).sum()
    }

    /// Panics if I1 or I2 does not hold.
    pub(super) fn assert_invariants(&self) {
        for runs in self.runs.values() {
            assert!(runs.is_sorted_by(|a, b| a.last() < b.first), "I1");
            assert!(runs.iter().all(|run| run.len >= LEN_MIN), "I2");
        }
    }
}
