//! Where every entry shows: a pure function of the state, so that every replica shows the same
//! rescue at once and nobody writes any.
//!
//! A live entry shows where it was put, if it was put there in its current life and the container is
//! a live item; otherwise in Lost and Found. The target of a live link outside Trash shows there too
//! when it is not alive: as a placeholder.
//!
//! Invariants, checked by `assert_invariants`:
//! - D1. Every live entry but Root shows exactly once; of the others only placeholders show.
//! - D2. Following shown parents from any entry ends at Root.
//! - D3. `children`, `containers`, `links` and `dangling` agree with the entries.
//!
//! Cost: an update is O(log n) for each entry that changed, plus the children of an entry that
//! became or ceased to be a live item, plus the depth of each link whose target is not alive.

mod siblings;

use std::collections::BTreeSet;

use hashbrown::{HashMap, HashSet};

use crate::id::EntryId;
use crate::op::NewEntry;
use crate::registers::EntryState;
use crate::tree::{MoveTree, OrderKey};
pub(crate) use siblings::{Sibling, Siblings};

/// Where an entry shows: its container, and its place there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) parent: EntryId,
    pub(crate) key: OrderKey,
}

/// What decides what shows: lives and kinds, and the tree of moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) entries: &'a HashMap<EntryId, EntryState>,
    pub(crate) tree: &'a MoveTree,
}

impl Facts<'_> {
    /// Whether the entry is alive; system entries always are.
    pub(crate) fn is_alive(&self, entry: EntryId) -> bool {
        entry.is_well_known() || self.entries.get(&entry).is_some_and(EntryState::is_touched)
    }

    /// What a live entry is.
    pub(crate) fn kind(&self, entry: EntryId) -> Option<NewEntry> {
        if entry.is_well_known() {
            return Some(NewEntry::Item);
        }
        self.entries.get(&entry).filter(|state| state.is_touched()).map(EntryState::kind)
    }

    /// Whether entries can show inside `entry`.
    fn is_container(&self, entry: EntryId) -> bool {
        self.kind(entry) == Some(NewEntry::Item)
    }

    /// Where a live entry shows.
    fn place(&self, entry: EntryId) -> Shown {
        let life = self.entries.get(&entry).map(EntryState::life).unwrap_or_default();
        match self.tree.placement(entry) {
            Some(place) if place.life == life && self.is_container(place.parent) => {
                Shown { parent: place.parent, key: place.key.clone() }
            }
            _ => rescued(entry),
        }
    }

    fn link_target(&self, entry: EntryId) -> Option<EntryId> {
        match self.kind(entry)? {
            NewEntry::Link { target } => Some(target),
            NewEntry::Item => None,
        }
    }
}

/// The tree as people see it.
#[derive(Clone, Debug)]
pub(crate) struct Display {
    shown: HashMap<EntryId, Shown>,
    children: HashMap<EntryId, Siblings>,
    /// The live items.
    containers: HashSet<EntryId>,
    /// Live links, by target.
    links: HashMap<EntryId, BTreeSet<EntryId>>,
    targets: HashMap<EntryId, EntryId>,
    /// The targets of live links that are not alive themselves.
    dangling: BTreeSet<EntryId>,
}

impl Display {
    /// What an empty store shows.
    pub(crate) fn new(facts: Facts<'_>) -> Self {
        let mut display = Self {
            shown: HashMap::new(),
            children: HashMap::new(),
            containers: HashSet::new(),
            links: HashMap::new(),
            targets: HashMap::new(),
            dangling: BTreeSet::new(),
        };
        let known = [EntryId::ROOT, EntryId::TRASH, EntryId::LOST_AND_FOUND];
        display.update(known.into_iter().collect(), facts);
        display
    }

    /// Brings everything up to date after the facts about the entries in `dirty` have changed.
    pub(crate) fn update(&mut self, mut dirty: BTreeSet<EntryId>, facts: Facts<'_>) {
        for entry in dirty.clone() {
            if self.update_container(entry, facts) {
                dirty.extend(facts.tree.inside(entry));
            }
        }
        for entry in &dirty {
            self.update_link(*entry, facts);
            self.update_dangling(*entry, facts);
            let place =
                (facts.is_alive(*entry) && *entry != EntryId::ROOT).then(|| facts.place(*entry));
            self.show(*entry, place);
        }
        for target in self.dangling.clone() {
            let is_needed = self.links_to(target).any(|link| !self.is_below_trash(link));
            self.show(target, is_needed.then(|| rescued(target)));
        }
    }

    /// Where `entry` shows; nowhere for Root and for what does not show.
    pub(crate) fn place(&self, entry: EntryId) -> Option<&Shown> {
        self.shown.get(&entry)
    }

    /// The entries shown in `parent`, in order; none if there are none.
    pub(crate) fn children(&self, parent: EntryId) -> Option<&Siblings> {
        self.children.get(&parent)
    }

    /// Every entry that shows but Root, in no particular order.
    pub(crate) fn shown_entries(&self) -> impl Iterator<Item = EntryId> + '_ {
        self.shown.keys().copied()
    }

    /// The live links to `target`.
    pub(crate) fn links_to(&self, target: EntryId) -> impl Iterator<Item = EntryId> + '_ {
        self.links.get(&target).into_iter().flatten().copied()
    }

    /// Whether `above` shows as `entry` or as one of its ancestors.
    pub(crate) fn is_at_or_above(&self, above: EntryId, entry: EntryId) -> bool {
        if !self.children.contains_key(&above) {
            return above == entry;
        }
        let mut next = Some(entry);
        while let Some(at) = next {
            if at == above {
                return true;
            }
            next = self.shown.get(&at).map(|place| place.parent);
        }
        false
    }

    fn is_below_trash(&self, entry: EntryId) -> bool {
        entry != EntryId::TRASH && self.is_at_or_above(EntryId::TRASH, entry)
    }

    /// Notes whether `entry` is a live item, and returns whether that is new.
    fn update_container(&mut self, entry: EntryId, facts: Facts<'_>) -> bool {
        if facts.is_container(entry) {
            self.containers.insert(entry)
        } else {
            self.containers.remove(&entry)
        }
    }

    fn update_link(&mut self, entry: EntryId, facts: Facts<'_>) {
        let target = facts.link_target(entry);
        let known = match target {
            Some(target) => self.targets.insert(entry, target),
            None => self.targets.remove(&entry),
        };
        if known == target {
            return;
        }
        if let Some(known) = known
            && let Some(links) = self.links.get_mut(&known)
        {
            links.remove(&entry);
            if links.is_empty() {
                self.links.remove(&known);
            }
            self.update_dangling(known, facts);
        }
        if let Some(target) = target {
            self.links.entry(target).or_default().insert(entry);
            self.update_dangling(target, facts);
        }
    }

    fn update_dangling(&mut self, target: EntryId, facts: Facts<'_>) {
        let is_alive = facts.is_alive(target);
        if !is_alive && self.links.contains_key(&target) {
            self.dangling.insert(target);
        } else if self.dangling.remove(&target) && !is_alive {
            self.show(target, None);
        }
    }

    fn show(&mut self, entry: EntryId, place: Option<Shown>) {
        let known = self.shown.get(&entry);
        if known == place.as_ref() {
            return;
        }
        if let Some(known) = self.shown.remove(&entry)
            && let Some(siblings) = self.children.get_mut(&known.parent)
        {
            siblings.remove(&(known.key, entry));
            if siblings.is_empty() {
                self.children.remove(&known.parent);
            }
        }
        if let Some(place) = place {
            let siblings = self.children.entry(place.parent).or_insert_with(Siblings::new);
            siblings.insert((place.key.clone(), entry));
            self.shown.insert(entry, place);
        }
    }

    /// Panics if D1 to D3 do not hold.
    pub(crate) fn assert_invariants(&self, facts: Facts<'_>) {
        let live = facts.entries.iter().filter(|(_, state)| state.is_touched()).map(|(id, _)| *id);
        for entry in live.chain([EntryId::TRASH, EntryId::LOST_AND_FOUND]) {
            assert!(entry == EntryId::ROOT || self.shown.contains_key(&entry), "D1: {entry:?}");
        }
        for (entry, place) in &self.shown {
            assert!(self.is_at_or_above(EntryId::ROOT, *entry), "D2: {entry:?}");
            let sibling = (place.key.clone(), *entry);
            let siblings = self.children(place.parent).expect("D3: a child's parent has children");
            assert!(siblings.index_of(&sibling).is_some(), "D3: {entry:?}");
            if facts.is_alive(*entry) {
                assert_eq!(*place, facts.place(*entry), "D1: {entry:?}");
            } else {
                assert!(self.dangling.contains(entry), "D1: {entry:?} is dead and shown");
                let is_needed = self.links_to(*entry).any(|link| !self.is_below_trash(link));
                assert!(is_needed, "D1: {entry:?} is a placeholder for nothing");
            }
        }
        self.children.values().for_each(Siblings::assert_invariants);
        let listed: usize = self.children.values().map(Siblings::len).sum();
        assert_eq!(listed, self.shown.len(), "D3: an entry is listed twice");
        for (link, target) in &self.targets {
            assert_eq!(facts.link_target(*link), Some(*target), "D3: {link:?}");
            assert!(self.links_to(*target).any(|one| one == *link), "D3: {link:?}");
            assert_eq!(self.dangling.contains(target), !facts.is_alive(*target), "D3: {target:?}");
        }
    }
}

fn rescued(entry: EntryId) -> Shown {
    Shown { parent: EntryId::LOST_AND_FOUND, key: OrderKey::rescued(entry) }
}
