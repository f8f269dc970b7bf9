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
//! - D3. Containers, links and siblings agree with the entries.
//!
//! Cost: an update is O(log n) for each entry that changed, plus the children of an entry that
//! became or ceased to be a live item. While there are links whose targets are not alive, a container that
//! moves costs its depth too, and if it goes into Trash or comes out, what is inside it or all such links with
//! their depths, whichever is less. A target that is alive no more costs the depths of the links to it.

mod links;
mod siblings;
mod waiting;

use std::cmp::Ordering;

use smallvec::SmallVec;

use crate::bits::Bits;
use crate::delta::{Appearance, Known, KnownPlace, Watch};
use crate::entries::{Entries, EntryIx};
use crate::id::{EntryId, Timestamp};
use crate::op::NewEntry;
use crate::tree::{MoveIx, MoveTree, rescued_key};
use links::Links;
pub(crate) use siblings::Sibling;
use siblings::{Order, Siblings};
use waiting::Waiting;

/// Where an entry shows: its container, and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) parent: EntryIx,
    /// The move whose order key is its own; none for an entry that shows in Lost and Found without
    /// having been put there.
    pub(crate) by: Option<MoveIx>,
}

impl Shown {
    const RESCUED: Self = Self { parent: EntryIx::LOST_AND_FOUND, by: None };
}

/// The bytes by which an entry is put in order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ShownKey<'a> {
    Given(&'a [u8]),
    Rescued([u8; 17]),
}

impl ShownKey<'_> {
    pub(crate) const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Given(bytes) => bytes,
            Self::Rescued(bytes) => bytes,
        }
    }
}

/// What decides what shows: lives and kinds, and the tree of moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) entries: &'a Entries,
    pub(crate) tree: &'a MoveTree,
}

impl<'a> Facts<'a> {
    /// Whether the entry is alive; system entries always are.
    pub(crate) fn is_alive(self, entry: EntryIx) -> bool {
        entry.is_well_known() || self.entries.state(entry).is_touched()
    }

    /// What a live entry is.
    pub(crate) fn kind(self, entry: EntryIx) -> Option<NewEntry> {
        if entry.is_well_known() {
            return Some(NewEntry::Item);
        }
        Some(self.entries.state(entry)).filter(|state| state.is_touched()).map(|state| state.kind())
    }

    /// The key under which an entry shows.
    pub(crate) fn key(self, sibling: Sibling) -> ShownKey<'a> {
        match sibling.by {
            Some(by) => ShownKey::Given(self.tree.key(by)),
            None => ShownKey::Rescued(rescued_key(self.entries.id(sibling.entry))),
        }
    }

    /// Whether entries can show inside `entry`.
    fn is_container(self, entry: EntryIx) -> bool {
        self.kind(entry) == Some(NewEntry::Item)
    }

    /// Where a live entry was put, if that was in its current life.
    fn place(self, entry: EntryIx) -> Option<Shown> {
        let by = self.tree.placed(entry)?;
        let (parent, life) = self.tree.target(by);
        let is_current = life == self.entries.state(entry).life();
        is_current.then_some(Shown { parent, by: Some(by) })
    }

    fn link_target(self, entry: EntryIx) -> Option<EntryIx> {
        match self.kind(entry)? {
            NewEntry::Link { target } => self.entries.find(target),
            NewEntry::Item => None,
        }
    }
}

/// The tree as people see it.
#[derive(Clone, Debug)]
pub(crate) struct Display {
    /// The entries in order, each with the container that it shows in.
    siblings: Siblings<Option<EntryIx>>,
    /// Which entries are live items.
    containers: Bits,
    /// Which are live links.
    live_links: Bits,
    links: Links,
    /// Which were put into what is no live item.
    waiters: Bits,
    waiting: Waiting,
    /// The entry behind which the next one is likely to go.
    near: Option<EntryIx>,
    /// What was hidden since the last update, while there were links whose targets are not alive: where
    /// these were by then cannot be told any more.
    hidden: Vec<EntryIx>,
    /// How many links were looked at, whether they are in Trash.
    #[cfg(test)]
    looked: usize,
}

/// Of an update of so many entries, the new ones are put in order together.
const MANY: usize = if cfg!(any(test, feature = "small-nodes")) { 3 } else { 64 };

/// What an update has to look at again when everything else is in place.
#[derive(Debug, Default)]
struct Doubts {
    /// Targets of links that may need a placeholder, or need one no more.
    targets: Vec<EntryIx>,
    /// Links that may have moved.
    links: Vec<EntryIx>,
    /// Containers that may move, each with whether it was below Trash, if that is known.
    containers: Vec<(EntryIx, Option<bool>)>,
}

impl Display {
    /// What an empty store shows.
    pub(crate) fn new(facts: Facts<'_>) -> Self {
        let mut display = Self {
            siblings: Siblings::default(),
            containers: Bits::default(),
            live_links: Bits::default(),
            links: Links::default(),
            waiters: Bits::default(),
            waiting: Waiting::default(),
            near: None,
            hidden: Vec::new(),
            #[cfg(test)]
            looked: 0,
        };
        display.update(facts.entries.indexes().collect(), facts, &mut Watch::default());
        display
    }

    /// Makes room for so many more entries at once.
    pub(crate) fn reserve(&mut self, entries: usize) {
        self.siblings.reserve(entries);
    }

    /// Gives back room that was made for more.
    pub(crate) fn trim(&mut self) {
        self.siblings.trim();
    }

    /// Brings everything up to date after the facts about the entries in `changed` have changed, and
    /// notes how those showed that show differently.
    pub(crate) fn update(
        &mut self,
        mut changed: SmallVec<[EntryIx; 8]>,
        facts: Facts<'_>,
        watch: &mut Watch,
    ) {
        self.grow(facts.entries.len());
        let count = changed.len();
        for at in 0..count {
            match self.update_container(changed[at], facts, watch) {
                Some(true) => changed.extend(self.waiting.inside(changed[at])),
                Some(false) => changed.extend(self.children(changed[at])),
                None => {}
            }
        }
        // Mostly they come in a few rows that are in order.
        changed.sort();
        changed.dedup();
        let mut doubts = Doubts::default();
        self.doubt_containers(&changed, &mut doubts);
        let (is_many, mut new) = (changed.len() >= MANY, Vec::new());
        for entry in changed {
            self.update_link(entry, facts, &mut doubts, watch);
            let place = self.place_live(entry, facts);
            match place {
                Some(place) if is_many && self.parent(entry).is_none() => {
                    watch.note_entry(entry, |time| self.known(entry, time, facts));
                    *self.siblings.note_mut(entry) = Some(place.parent);
                    new.push((place.parent, Sibling { entry, by: place.by }));
                }
                _ => self.show(entry, place, facts, watch),
            }
        }
        self.siblings.insert_all(new, &ByKey(facts));
        self.settle(doubts, facts, watch);
    }

    /// Takes an entry out of sight. For entries whose placements are about to be forgotten.
    pub(crate) fn hide(&mut self, entry: EntryIx, facts: Facts<'_>, watch: &mut Watch) {
        if self.parent(entry).is_some() {
            watch.note_entry(entry, |time| self.known(entry, time, facts));
            *self.siblings.note_mut(entry) = None;
            self.siblings.remove(entry);
            if self.links.dangling_count() > 0 {
                self.hidden.push(entry);
            }
        }
    }

    /// Says that the next entry to be shown is likely to go right behind this one.
    pub(crate) fn expect_behind(&mut self, near: EntryIx) {
        self.near = Some(near);
    }

    /// How many entries are known here, shown or not.
    pub(crate) fn len(&self) -> usize {
        self.siblings.notes().len()
    }

    /// Where `entry` shows; nowhere for Root and for what does not show.
    pub(crate) fn place(&self, entry: EntryIx) -> Option<Shown> {
        let parent = self.parent(entry)?;
        Some(Shown { parent, by: self.siblings.find(entry)?.by })
    }

    /// Whether an entry is a live item.
    pub(crate) fn is_container(&self, entry: EntryIx) -> bool {
        self.containers.get(entry)
    }

    pub(crate) fn parent(&self, entry: EntryIx) -> Option<EntryIx> {
        self.siblings.note(entry)
    }

    /// The entries shown in `parent`, in order.
    pub(crate) fn children(
        &self,
        parent: EntryIx,
    ) -> impl DoubleEndedIterator<Item = EntryIx> + ExactSizeIterator + Clone + '_ {
        self.siblings.iter(parent).map(|sibling| sibling.entry)
    }

    /// How many entries show in `parent`.
    pub(crate) fn child_count(&self, parent: EntryIx) -> usize {
        self.siblings.len(parent)
    }

    /// The entry shown at `index` in `parent`.
    pub(crate) fn child_at(&self, parent: EntryIx, index: usize) -> Option<Sibling> {
        self.siblings.at(parent, index)
    }

    /// Where an entry shows among its siblings.
    pub(crate) fn index_of(&self, entry: EntryIx) -> Option<usize> {
        self.siblings.index_of(entry)
    }

    /// Where an entry with this key and id would stand in `parent`.
    pub(crate) fn rank(
        &self,
        parent: EntryIx,
        (key, id): (&[u8], EntryId),
        facts: Facts<'_>,
    ) -> usize {
        self.siblings.rank(parent, |sibling| {
            let by_key = facts.key(sibling).as_bytes().cmp(key);
            by_key.then_with(|| facts.entries.id(sibling.entry).cmp(&id)) == Ordering::Less
        })
    }

    /// How an entry shows, with its time of deletion unless that is given.
    pub(crate) fn known(
        &self,
        entry: EntryIx,
        trashed_at: Option<Option<Timestamp>>,
        facts: Facts<'_>,
    ) -> Known {
        let (shown, is_link) = (self.place(entry), self.live_links.get(entry));
        let link = self.links.target(entry).map(|target| facts.entries.id(target));
        let kind = link.map_or(NewEntry::Item, |target| NewEntry::Link { target });
        let is_alive = self.is_container(entry) || is_link;
        let is_shown = is_alive || shown.is_some();
        let in_trash = shown.filter(|shown| shown.parent == EntryIx::TRASH);
        let time = || in_trash.and_then(|shown| facts.tree.time(shown.by?));
        Known {
            appearance: is_shown.then_some(Appearance { kind, is_placeholder: !is_alive }),
            place: shown.map(|Shown { parent, by }| {
                let key = facts.key(Sibling { entry, by }).as_bytes().into();
                KnownPlace { parent, key }
            }),
            trashed_at: trashed_at.unwrap_or_else(time),
        }
    }

    /// Every entry that shows but Root, in no particular order.
    pub(crate) fn shown_entries(&self) -> impl Iterator<Item = EntryIx> + '_ {
        let parents = self.siblings.notes().enumerate();
        parents.filter(|(_, parent)| parent.is_some()).map(|(at, _)| EntryIx::new(at))
    }

    /// The live links to `target`, in order of id.
    pub(crate) fn links_to(&self, target: EntryIx) -> impl Iterator<Item = EntryId> + '_ {
        self.links.to(target).map(|(id, _)| id)
    }

    /// Whether `above` shows as `entry` or as one of its ancestors.
    pub(crate) fn is_at_or_above(&self, above: EntryIx, entry: EntryIx) -> bool {
        let mut up = std::iter::successors(Some(entry), |at| self.parent(*at));
        up.any(|at| at == above)
    }

    fn is_below_trash(&self, entry: EntryIx) -> bool {
        entry != EntryIx::TRASH && self.is_at_or_above(EntryIx::TRASH, entry)
    }

    fn grow(&mut self, entries: usize) {
        self.siblings.grow(entries);
        for bits in [&mut self.containers, &mut self.live_links, &mut self.waiters] {
            bits.grow(entries);
        }
    }

    /// Notes whether `entry` is a live item, and returns it if that is new.
    fn update_container(
        &mut self,
        entry: EntryIx,
        facts: Facts<'_>,
        watch: &mut Watch,
    ) -> Option<bool> {
        let is_container = facts.is_container(entry);
        if self.is_container(entry) == is_container {
            return None;
        }
        watch.note_entry(entry, |time| self.known(entry, time, facts));
        self.containers.replace(entry, is_container);
        Some(is_container)
    }

    /// Where an entry shows if it is alive, and notes what that waits for.
    fn place_live(&mut self, entry: EntryIx, facts: Facts<'_>) -> Option<Shown> {
        let is_alive = facts.is_alive(entry) && entry != EntryIx::ROOT;
        let place = if is_alive { facts.place(entry) } else { None };
        let awaited = place.filter(|place| !self.is_container(place.parent));
        let awaited = awaited.map(|place| place.parent);
        let was_waiting = self.waiters.replace(entry, awaited.is_some());
        if was_waiting || awaited.is_some() {
            self.waiting.set(entry, awaited);
        }
        is_alive.then(|| place.filter(|_| awaited.is_none()).unwrap_or(Shown::RESCUED))
    }

    /// Where targets are missing, remembers where containers are that may move.
    fn doubt_containers(&mut self, changed: &[EntryIx], doubts: &mut Doubts) {
        let hidden = std::mem::take(&mut self.hidden);
        if self.links.dangling_count() == 0 {
            return;
        }
        let is_known = hidden.is_empty();
        let containers = changed.iter().chain(&hidden).copied();
        let containers = containers.filter(|entry| self.child_count(*entry) > 0);
        let doubtful = |entry| (entry, is_known.then(|| self.is_below_trash(entry)));
        doubts.containers.extend(containers.map(doubtful));
    }

    fn update_link(
        &mut self,
        entry: EntryIx,
        facts: Facts<'_>,
        doubts: &mut Doubts,
        watch: &mut Watch,
    ) {
        let target = facts.link_target(entry);
        if self.live_links.get(entry) || target.is_some() {
            watch.note_entry(entry, |time| self.known(entry, time, facts));
            self.live_links.replace(entry, target.is_some());
            let known = self.links.set((facts.entries.id(entry), entry), target);
            doubts.targets.extend(known.into_iter().chain(target));
            doubts.links.push(entry);
        }
        if !self.links.is_empty() {
            doubts.targets.push(entry);
        }
    }

    /// Shows the placeholders that are needed, and no others.
    fn settle(&mut self, doubts: Doubts, facts: Facts<'_>, watch: &mut Watch) {
        let Doubts { mut targets, mut links, containers } = doubts;
        targets.sort_unstable();
        targets.dedup();
        for target in &targets {
            if self.links.update_dangling(*target, facts.is_alive(*target)) {
                links.extend(self.links.to(*target).map(|(_, link)| link));
            }
        }
        links.extend(self.dangling_links_inside(&containers));
        for link in links {
            #[cfg(test)]
            {
                self.looked += 1;
            }
            let is_outside = !self.is_below_trash(link);
            targets.extend(self.links.set_outside(link, is_outside));
        }
        targets.sort_unstable();
        targets.dedup();
        for target in targets {
            if !facts.is_alive(target) {
                let is_needed = self.links.is_wanted(target);
                self.show(target, is_needed.then_some(Shown::RESCUED), facts, watch);
            }
        }
    }

    /// The links to missing targets that are inside of containers which have gone into Trash or come out.
    /// All such links, if these are fewer than what is inside.
    fn dangling_links_inside(&self, containers: &[(EntryIx, Option<bool>)]) -> Vec<EntryIx> {
        let has_crossed = |(entry, was_below): &&(EntryIx, Option<bool>)| {
            *was_below != Some(self.is_below_trash(*entry))
        };
        let crossed = containers.iter().filter(has_crossed).map(|(entry, _)| *entry);
        let (mut rest, mut inside): (Vec<_>, Vec<_>) = (crossed.collect(), Vec::new());
        let mut left = self.links.dangling_count();
        while let Some(container) = rest.pop() {
            for child in self.children(container) {
                let Some(still_left) = left.checked_sub(1) else {
                    return self.links.dangling_links().collect();
                };
                left = still_left;
                match self.live_links.get(child) {
                    true => inside.push(child),
                    false => rest.push(child),
                }
            }
        }
        inside
    }

    fn show(&mut self, entry: EntryIx, place: Option<Shown>, facts: Facts<'_>, watch: &mut Watch) {
        let known = self.place(entry);
        if known == place {
            return;
        }
        watch.note_entry(entry, |time| self.known(entry, time, facts));
        *self.siblings.note_mut(entry) = place.map(|place| place.parent);
        if known.is_some() {
            self.siblings.remove(entry);
        }
        if let Some(place) = place {
            let sibling = Sibling { entry, by: place.by };
            self.siblings.insert(place.parent, sibling, self.near, &ByKey(facts));
            self.near = Some(entry);
        }
    }

    /// Panics if D1 to D3 do not hold, or an invariant of a part.
    pub(crate) fn assert_invariants(&self, facts: Facts<'_>) {
        assert_eq!(self.len(), facts.entries.len(), "D3: an entry without a face");
        for entry in facts.entries.indexes() {
            let place = self.place(entry);
            let awaited = self.waiting.awaited_by(entry);
            if entry == EntryIx::ROOT {
                assert_eq!(place, None, "D1");
            } else if facts.is_alive(entry) {
                let own = facts.place(entry);
                let (into, out) = own.map_or((None, None), |own| {
                    if facts.is_container(own.parent) {
                        (Some(own), None)
                    } else {
                        (None, Some(own.parent))
                    }
                });
                assert_eq!(place, into.or(Some(Shown::RESCUED)), "D1: {entry:?}");
                assert_eq!(awaited, out, "D3: {entry:?}");
            } else if self.links.is_wanted(entry) {
                assert_eq!(place, Some(Shown::RESCUED), "D1: {entry:?}");
            } else {
                assert_eq!(place, None, "D1: {entry:?} is dead and shown");
            }
            assert_eq!(self.is_container(entry), facts.is_container(entry), "D3: {entry:?}");
            assert_eq!(self.waiters.get(entry), awaited.is_some(), "D3: {entry:?}");
            assert_eq!(
                self.live_links.get(entry),
                self.links.target(entry).is_some(),
                "D3: {entry:?}"
            );
        }
        for entry in self.shown_entries() {
            assert!(self.is_at_or_above(EntryIx::ROOT, entry), "D2: {entry:?}");
            let index = self.index_of(entry).expect("D3: what shows is a sibling");
            let there = self.parent(entry).and_then(|parent| self.child_at(parent, index));
            let by = self.place(entry).and_then(|place| place.by);
            assert_eq!(there, Some(Sibling { entry, by }), "D3: {entry:?}");
        }
        let listed: usize = facts.entries.indexes().map(|entry| self.child_count(entry)).sum();
        assert_eq!(listed, self.shown_entries().count(), "D3: an entry is listed twice");
        self.siblings.assert_invariants(&ByKey(facts));
        self.links.assert_invariants(facts, |link| !self.is_below_trash(link));
        self.waiting.assert_invariants();
    }
}

/// The order in which siblings show: by key, then by id.
struct ByKey<'a>(Facts<'a>);

impl Order for ByKey<'_> {
    fn prefix(&self, sibling: Sibling) -> u64 {
        let key = self.0.key(sibling);
        let mut prefix = [0; 8];
        let len = key.as_bytes().len().min(8);
        prefix[..len].copy_from_slice(&key.as_bytes()[..len]);
        u64::from_be_bytes(prefix)
    }

    fn compare(&self, one: Sibling, other: Sibling) -> Ordering {
        let by_key = self.0.key(one).as_bytes().cmp(self.0.key(other).as_bytes());
        by_key.then_with(|| self.0.entries.id(one.entry).cmp(&self.0.entries.id(other.entry)))
    }
}

#[cfg(test)]
mod tests;
