//! Entries that were put into what is no live item, and show in Lost and Found until it is one.
//!
//! Invariant, checked by `assert_invariants`:
//! - W1. `inside` and `awaited` say the same.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use crate::entries::EntryIx;

#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    inside: HashMap<EntryIx, BTreeSet<EntryIx>>,
    awaited: HashMap<EntryIx, EntryIx>,
}

impl Waiting {
    /// Notes which container an entry waits for, if it does.
    pub(super) fn set(&mut self, entry: EntryIx, container: Option<EntryIx>) {
        let known = match container {
            Some(container) => self.awaited.insert(entry, container),
            None => self.awaited.remove(&entry),
        };
        if known == container {
            return;
        }
        if let Some(known) = known
            && let Some(inside) = self.inside.get_mut(&known)
        {
            inside.remove(&entry);
            if inside.is_empty() {
                self.inside.remove(&known);
            }
        }
        if let Some(container) = container {
            self.inside.entry(container).or_default().insert(entry);
        }
    }

    /// The entries that wait for a container.
    pub(super) fn inside(&self, container: EntryIx) -> impl Iterator<Item = EntryIx> + '_ {
        self.inside.get(&container).into_iter().flatten().copied()
    }

    /// What an entry waits for.
    pub(super) fn awaited_by(&self, entry: EntryIx) -> Option<EntryIx> {
        self.awaited.get(&entry).copied()
    }

    /// Panics if W1 does not hold.
    pub(super) fn assert_invariants(&self) {
        let listed: usize = self.inside.values().map(BTreeSet::len).sum();
        assert_eq!(listed, self.awaited.len(), "W1");
        for (entry, container) in &self.awaited {
            assert!(self.inside(*container).any(|one| one == *entry), "W1: {entry:?}");
        }
    }
}
