//! The live links, by target, and the targets that are not alive, each with how many links outside Trash
//! lead there.
//!
//! Invariants, checked by `assert_invariants`:
//! - L1. `by_target` and `targets` say the same.
//! - L2. `dangling` are exactly the targets that are not alive, with the number of their links that are
//!   in `outside`, which has no others.
//! - L3. `dangling_links` is how many links lead to these targets.
//!
//! Not here: where links show, and so which of them are in `outside` (`display`).

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use crate::display::Facts;
use crate::entries::EntryIx;
use crate::id::EntryId;

#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    by_target: HashMap<EntryIx, BTreeMap<EntryId, EntryIx>>,
    targets: HashMap<EntryIx, EntryIx>,
    dangling: BTreeMap<EntryIx, usize>,
    dangling_links: usize,
    /// The links to dangling targets that do not show below Trash.
    outside: HashSet<EntryIx>,
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
            if let Some(count) = self.dangling.get_mut(&known) {
                *count -= usize::from(self.outside.remove(&link));
                self.dangling_links -= 1;
            }
            if links.is_empty() {
                self.by_target.remove(&known);
            }
        }
        if let Some(target) = target {
            self.by_target.entry(target).or_default().insert(id, link);
            self.dangling_links += usize::from(self.dangling.contains_key(&target));
        }
        known
    }

    /// Notes whether an entry is alive. If that makes a dangling target of it, all links to it are to be
    /// looked at.
    pub(super) fn update_dangling(&mut self, target: EntryIx, is_alive: bool) -> bool {
        let links = self.by_target.get(&target);
        let is_dangling = !is_alive && links.is_some();
        if self.dangling.contains_key(&target) == is_dangling {
            return false;
        }
        let count = links.map_or(0, BTreeMap::len);
        if is_dangling {
            self.dangling.insert(target, 0);
            self.dangling_links += count;
        } else {
            self.dangling.remove(&target);
            self.dangling_links -= count;
            for link in links.into_iter().flat_map(BTreeMap::values) {
                self.outside.remove(link);
            }
        }
        is_dangling
    }

    /// Notes whether a link shows outside Trash, and returns its target, if that is dangling.
    pub(super) fn set_outside(&mut self, link: EntryIx, is_outside: bool) -> Option<EntryIx> {
        let target = self.target(link)?;
        let count = self.dangling.get_mut(&target)?;
        match is_outside {
            true => *count += usize::from(self.outside.insert(link)),
            false => *count -= usize::from(self.outside.remove(&link)),
        }
        Some(target)
    }

    /// Whether a live link outside Trash leads to an entry that is not alive.
    pub(super) fn is_wanted(&self, target: EntryIx) -> bool {
        self.dangling.get(&target).is_some_and(|outside| *outside > 0)
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

    /// The links to targets that are not alive.
    pub(super) fn dangling_links(&self) -> impl Iterator<Item = EntryIx> + '_ {
        self.dangling.keys().flat_map(|target| self.to(*target)).map(|(_, link)| link)
    }

    /// How many these are.
    pub(super) const fn dangling_count(&self) -> usize {
        self.dangling_links
    }

    /// Panics if L1 to L3 do not hold, where `is_outside` says which links show outside Trash.
    pub(super) fn assert_invariants(&self, facts: Facts<'_>, is_outside: impl Fn(EntryIx) -> bool) {
        let listed: usize = self.by_target.values().map(BTreeMap::len).sum();
        assert_eq!(listed, self.targets.len(), "L1");
        for (link, target) in &self.targets {
            assert_eq!(facts.link_target(*link), Some(*target), "L1: {link:?}");
            assert!(self.to(*target).any(|(_, one)| one == *link), "L1: {link:?}");
            let is_dangling = self.dangling.contains_key(target);
            assert_eq!(is_dangling, !facts.is_alive(*target), "L2: {target:?}");
            let is_counted = self.outside.contains(link);
            assert_eq!(is_counted, is_dangling && is_outside(*link), "L2: {link:?}");
        }
        for (target, count) in &self.dangling {
            let outside = self.to(*target).filter(|(_, link)| self.outside.contains(link));
            assert_eq!(outside.count(), *count, "L2: {target:?}");
            assert!(self.by_target.contains_key(target), "L2: {target:?}");
        }
        assert_eq!(self.dangling.values().sum::<usize>(), self.outside.len(), "L2");
        assert_eq!(self.dangling_links().count(), self.dangling_links, "L3");
    }
}
