//! The live links, by target, and the targets that are not alive.
//!
//! Invariants, checked by `assert_invariants`:
//! - L1. `by_target` and `targets` say the same.
//! - L2. `dangling` are exactly the targets that are not alive.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use crate::display::Facts;
use crate::entries::EntryIx;
use crate::id::EntryId;

#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    by_target: HashMap<EntryIx, BTreeMap<EntryId, EntryIx>>,
    targets: HashMap<EntryIx, EntryIx>,
    dangling: BTreeSet<EntryIx>,
}

impl Links {
    /// Notes what an entry points to now, if it is a live link, and returns what it pointed to
    /// before.
    pub(super) fn set(
        &mut self,
        (id, link): (EntryId, EntryIx),
        target: Option<EntryIx>,
    ) -> Option<EntryIx> {
        let known = match target {
            Some(target) => self.targets.insert(link, target),
            None => self.targets.remove(&link),
        };
        if known == target {
            return known;
        }
        if let Some(known) = known
            && let Some(links) = self.by_target.get_mut(&known)
        {
            links.remove(&id);
            if links.is_empty() {
                self.by_target.remove(&known);
            }
        }
        if let Some(target) = target {
            self.by_target.entry(target).or_default().insert(id, link);
        }
        known
    }

    /// Notes whether an entry is alive, and returns whether it is a target without being so.
    pub(super) fn update_dangling(&mut self, target: EntryIx, is_alive: bool) -> bool {
        if !is_alive && self.by_target.contains_key(&target) {
            self.dangling.insert(target);
            return true;
        }
        self.dangling.remove(&target);
        false
    }

    pub(super) fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// What a live link points to.
    pub(super) fn target(&self, link: EntryIx) -> Option<EntryIx> {
        self.targets.get(&link).copied()
    }

    /// The live links to an entry, in order of id.
    pub(super) fn to(&self, target: EntryIx) -> impl Iterator<Item = (EntryId, EntryIx)> + '_ {
        let links = self.by_target.get(&target).into_iter().flatten();
        links.map(|(id, link)| (*id, *link))
    }

    /// The targets that are not alive.
    pub(super) const fn dangling(&self) -> &BTreeSet<EntryIx> {
        &self.dangling
    }

    /// Panics if L1 or L2 does not hold.
    pub(super) fn assert_invariants(&self, facts: Facts<'_>) {
        let listed: usize = self.by_target.values().map(BTreeMap::len).sum();
        assert_eq!(listed, self.targets.len(), "L1");
        for (link, target) in &self.targets {
            assert_eq!(facts.link_target(*link), Some(*target), "L1: {link:?}");
            assert!(self.to(*target).any(|(_, one)| one == *link), "L1: {link:?}");
            assert_eq!(self.dangling.contains(target), !facts.is_alive(*target), "L2: {target:?}");
        }
        let is_target = |entry: &EntryIx| self.by_target.contains_key(entry);
        assert!(self.dangling.iter().all(is_target), "L2");
    }
}
