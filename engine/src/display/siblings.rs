//! The entries in each container, in order, with their indexes.
//!
//! B+ trees that count: each inner node knows how many siblings are below each child, and each node
//! knows its parent. So an index is found in one way down, and told in one way up, without looking
//! at keys. All trees share one arena; most containers are small and are one leaf.
//!
//! What decides the order is the caller's ([`Order`]); here are only entries, each with the move that
//! gave its key and the first eight bytes of that key. An entry whose key changes must leave before
//! it does.
//!
//! Invariants, checked by `assert_invariants`:
//! - S1. Siblings are in strict order across all leaves.
//! - S2. Every count is the number of siblings below the child, every prefix that of the first of them.
//! - S3. No node is over its size or empty, all leaves of a container are equally deep.
//! - S4. `leaf` says where each entry is, `root` what is inside, `up` where each node is.
//!
//! Cost: O(log n) for each operation, without any key for removal and indexes; walking is O(1) a
//! sibling, amortised.

mod balance;
mod iter;

use std::cmp::Ordering;

use smallvec::{SmallVec, smallvec};

use crate::entries::EntryIx;
use crate::index::{dense_index, fill_tightly, trim};
use crate::tree::MoveIx;
pub(crate) use iter::Iter;

dense_index! {
    /// Which node, of all containers together.
    NodeIx
}

/// The most siblings of a leaf, and the most children of an inner node. Small ones make tests see
/// many levels.
const NODE_SIZE: usize = if cfg!(any(test, feature = "small-nodes")) { 4 } else { 32 };
/// A node below this size joins its neighbour if both fit into one.
const NODE_SIZE_LOW: usize = NODE_SIZE / 3;

/// What puts siblings in order.
pub(crate) trait Order {
    /// The first eight bytes of the sibling's key, as a number.
    fn prefix(&self, sibling: Sibling) -> u64;
    /// Which of two siblings comes first.
    fn compare(&self, one: Sibling, other: Sibling) -> Ordering;
}

/// An entry among those in one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sibling {
    pub(crate) entry: EntryIx,
    /// The move that gave its order key, if one did.
    pub(crate) by: Option<MoveIx>,
}

/// A sibling in a leaf, or a child of an inner node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    /// That of the sibling, or of the first one below the child.
    prefix: u64,
    /// Index of an entry or of a node.
    item: u32,
    /// The move that gave an entry's key, or zero; the number of siblings below a child.
    more: u32,
}

dense_index! {
    /// An [`Up`] in four bytes: the lowest bit says which.
    UpIx
}

/// What is above a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Up {
    /// The node is the root of this container's tree.
    Container(EntryIx),
    Node(NodeIx),
}

#[derive(Clone, Debug)]
struct Node {
    slots: Slots,
    up: UpIx,
    /// The first leaf below an inner node.
    first_leaf: Option<NodeIx>,
}

// There is one for each container.
const _: () = assert!(size_of::<Node>() <= 32);

type Slots = SmallVec<[Slot; 1]>;

/// What is known of one entry.
#[derive(Clone, Copy, Debug, Default)]
struct Spot<T> {
    /// Where it is.
    leaf: Option<NodeIx>,
    /// Where the tree of those inside it is.
    root: Option<NodeIx>,
    note: T,
}

/// The entries in all containers, and a note about each entry for the caller, who mostly wants both.
#[derive(Clone, Debug, Default)]
pub(crate) struct Siblings<T> {
    nodes: Vec<Node>,
    free: Vec<NodeIx>,
    spots: Vec<Spot<T>>,
}

impl Slot {
    fn of(sibling: Sibling, order: &impl Order) -> Self {
        let more = sibling.by.map_or(0, MoveIx::raw);
        Self { prefix: order.prefix(sibling), item: sibling.entry.raw(), more }
    }

    fn sibling(self) -> Sibling {
        Sibling { entry: self.entry(), by: MoveIx::from_raw(self.more) }
    }

    fn entry(self) -> EntryIx {
        EntryIx::from_raw(self.item).expect("S4: a slot of a leaf has an entry")
    }

    fn node(self) -> NodeIx {
        NodeIx::from_raw(self.item).expect("S4: a slot of an inner node has a node")
    }

    /// The number of siblings below a child.
    const fn count(self) -> usize {
        self.more as usize
    }
}

impl Up {
    const fn ix(self) -> UpIx {
        match self {
            Self::Container(entry) => UpIx::new(2 * entry.at()),
            Self::Node(node) => UpIx::new(2 * node.at() + 1),
        }
    }
}

impl Node {
    const fn is_leaf(&self) -> bool {
        self.first_leaf.is_none()
    }

    const fn up(&self) -> Up {
        match self.up.at() {
            at if at & 1 == 0 => Up::Container(EntryIx::new(at / 2)),
            at => Up::Node(NodeIx::new(at / 2)),
        }
    }
}

impl<T: Copy + Default> Siblings<T> {
    /// Makes room for so many entries.
    pub(crate) fn grow(&mut self, entries: usize) {
        fill_tightly(&mut self.spots, entries);
    }

    /// Makes room for so many more entries at once.
    pub(crate) fn reserve(&mut self, entries: usize) {
        self.spots.reserve_exact(entries);
    }

    /// Gives back room that was made for more.
    pub(crate) fn trim(&mut self) {
        trim(&mut self.nodes);
        trim(&mut self.spots);
    }

    /// Adds an entry that is in no container. If it goes right behind `near`, that saves the search.
    pub(crate) fn insert(
        &mut self,
        container: EntryIx,
        new: Sibling,
        near: Option<EntryIx>,
        order: &impl Order,
    ) {
        let slot = Slot::of(new, order);
        let Some(root) = self.spots[container.at()].root else {
            let leaf = self.add_node(smallvec![slot], Up::Container(container), None);
            self.spots[container.at()].root = Some(leaf);
            return;
        };
        let behind = near.and_then(|near| self.place_behind(near, root, new, order));
        let (leaf, at) = behind.unwrap_or_else(|| self.place_for(root, slot, order));
        self.spots[new.entry.at()].leaf = Some(leaf);
        self.count_up(leaf, |count| *count += 1);
        self.insert_slot(leaf, at, slot);
    }

    /// Adds many entries, each with its container, that are in none. Those whose container is empty are
    /// put in order at once: O(n log n), but in a few passes through memory.
    pub(crate) fn insert_all(&mut self, new: Vec<(EntryIx, Sibling)>, order: &impl Order) {
        let (mut alone, mut near) = (Vec::with_capacity(new.len()), None);
        for (container, sibling) in new {
            if self.root(container).is_some() {
                self.insert(container, sibling, near, order);
                near = Some(sibling.entry);
            } else {
                alone.push((container, Slot::of(sibling, order)));
            }
        }
        let mut slots = Vec::new();
        let container = |at: &u32| alone[*at as usize].0;
        let places = together(&alone, self.spots.len());
        for inside in places.chunk_by(|one, other| container(one) == container(other)) {
            slots.extend(inside.iter().map(|at| alone[*at as usize].1));
            slots.sort_unstable_by(|one: &Slot, other| {
                let by_key = || order.compare(one.sibling(), other.sibling());
                one.prefix.cmp(&other.prefix).then_with(by_key)
            });
            self.build(container(&inside[0]), &mut slots);
            slots.clear();
        }
    }

    /// Removes an entry from its container, if it is in one.
    pub(crate) fn remove(&mut self, entry: EntryIx) {
        let Some(leaf) = self.spots.get_mut(entry.at()).and_then(|spot| spot.leaf.take()) else {
            return;
        };
        let at = self.position(leaf, entry.raw());
        self.nodes[leaf.at()].slots.remove(at);
        self.count_up(leaf, |count| *count -= 1);
        if at == 0 {
            self.renew_first(leaf);
        }
        self.mend(leaf);
    }

    /// The caller's note about an entry.
    pub(crate) fn note_mut(&mut self, entry: EntryIx) -> &mut T {
        &mut self.spots[entry.at()].note
    }

    pub(crate) fn note(&self, entry: EntryIx) -> T {
        self.spots.get(entry.at()).map(|spot| spot.note).unwrap_or_default()
    }

    /// All notes, in order of index.
    pub(crate) fn notes(&self) -> impl ExactSizeIterator<Item = T> + '_ {
        self.spots.iter().map(|spot| spot.note)
    }

    /// How many entries are in a container.
    pub(crate) fn len(&self, container: EntryIx) -> usize {
        let root = self.root(container);
        root.map_or(0, |root| self.count(root))
    }

    /// The entry at `index` in a container.
    pub(crate) fn at(&self, container: EntryIx, index: usize) -> Option<Sibling> {
        let (leaf, first) = self.leaf_at(self.root(container)?, index)?;
        leaf.get(index - first).map(|slot| slot.sibling())
    }

    /// An entry that is in a container, with its move.
    pub(crate) fn find(&self, entry: EntryIx) -> Option<Sibling> {
        let leaf = self.spots.get(entry.at())?.leaf?;
        Some(self.nodes[leaf.at()].slots[self.position(leaf, entry.raw())].sibling())
    }

    /// The index of an entry in its container.
    pub(crate) fn index_of(&self, entry: EntryIx) -> Option<usize> {
        let mut node = self.spots.get(entry.at())?.leaf?;
        let mut index = self.position(node, entry.raw());
        while let Up::Node(up) = self.nodes[node.at()].up() {
            let slot = self.position(up, node.raw());
            let before = &self.nodes[up.at()].slots[..slot];
            index += sum(before);
            node = up;
        }
        Some(index)
    }

    /// How many entries in a container come before a place: those for which `is_before`, which holds
    /// for the first ones and for none behind them.
    pub(crate) fn rank(&self, container: EntryIx, is_before: impl Fn(Sibling) -> bool) -> usize {
        let Some(root) = self.root(container) else { return 0 };
        let (mut node, mut rank) = (&self.nodes[root.at()], 0);
        loop {
            let before = node.slots.partition_point(|slot| is_before(self.first(node, *slot)));
            let Some(last) = before.checked_sub(1) else { return rank };
            if node.is_leaf() {
                return rank + before;
            }
            rank += sum(&node.slots[..last]);
            node = &self.nodes[node.slots[last].node().at()];
        }
    }

    /// The entries in a container, in order, from either end.
    pub(crate) fn iter(&self, container: EntryIx) -> Iter<'_, T> {
        Iter::new(self, self.root(container))
    }

    fn root(&self, container: EntryIx) -> Option<NodeIx> {
        self.spots.get(container.at())?.root
    }

    fn count(&self, node: NodeIx) -> usize {
        let node = &self.nodes[node.at()];
        if node.is_leaf() { node.slots.len() } else { sum(&node.slots) }
    }

    /// The leaf that holds the entry at `index`, and the index of its first one.
    fn leaf_at(&self, root: NodeIx, index: usize) -> Option<(&[Slot], usize)> {
        let (mut node, mut first) = (&self.nodes[root.at()], 0);
        while !node.is_leaf() {
            let slot = node.slots.iter().find(|slot| {
                let is_here = index < first + slot.count();
                if !is_here {
                    first += slot.count();
                }
                is_here
            });
            node = &self.nodes[slot?.node().at()];
        }
        Some((&node.slots, first))
    }

    /// Where an item is in a node that holds it.
    fn position(&self, node: NodeIx, item: u32) -> usize {
        let mut slots = self.nodes[node.at()].slots.iter();
        slots.position(|slot| slot.item == item).expect("S4: the item is here")
    }

    /// Where an entry goes among those below `root`.
    fn place_for(&self, root: NodeIx, new: Slot, order: &impl Order) -> (NodeIx, usize) {
        let mut at = root;
        loop {
            let node = &self.nodes[at.at()];
            let is_before = |slot: &Slot| {
                let by_prefix = slot.prefix.cmp(&new.prefix);
                let by_key = || order.compare(self.first(node, *slot), new.sibling());
                by_prefix.then_with(by_key) == Ordering::Less
            };
            let before = node.slots.partition_point(is_before);
            if node.is_leaf() {
                return (at, before);
            }
            at = node.slots[before.saturating_sub(1)].node();
        }
    }

    /// The first sibling in or below a slot of a node.
    fn first(&self, node: &Node, slot: Slot) -> Sibling {
        if node.is_leaf() {
            return slot.sibling();
        }
        let child = slot.node();
        let leaf = self.nodes[child.at()].first_leaf.unwrap_or(child);
        self.nodes[leaf.at()].slots[0].sibling()
    }

    /// The place right behind `near`, if that is below `root` and the entry goes there.
    fn place_behind(
        &self,
        near: EntryIx,
        root: NodeIx,
        new: Sibling,
        order: &impl Order,
    ) -> Option<(NodeIx, usize)> {
        // Mostly there is but one leaf, at hand already, and the neighbour's spot is not.
        let is_small = self.nodes[root.at()].is_leaf();
        let leaf = if is_small { root } else { self.spots[near.at()].leaf? };
        let slots = &self.nodes[leaf.at()].slots;
        let at = slots.iter().position(|slot| slot.item == near.raw())? + 1;
        let is_before_next = match slots.get(at) {
            Some(next) => order.compare(new, next.sibling()) == Ordering::Less,
            None => self.is_last(leaf),
        };
        let is_behind = || order.compare(slots[at - 1].sibling(), new) == Ordering::Less;
        let is_here = is_before_next && is_behind();
        (is_here && self.root_of(leaf) == root).then_some((leaf, at))
    }

    /// Whether no sibling is behind those of the node.
    fn is_last(&self, mut node: NodeIx) -> bool {
        while let Up::Node(up) = self.nodes[node.at()].up() {
            let last = self.nodes[up.at()].slots.last();
            if last.is_none_or(|last| last.node() != node) {
                return false;
            }
            node = up;
        }
        true
    }

    fn root_of(&self, mut node: NodeIx) -> NodeIx {
        while let Up::Node(up) = self.nodes[node.at()].up() {
            node = up;
        }
        node
    }

    /// Changes the counts of the node in all nodes above it.
    fn count_up(&mut self, mut node: NodeIx, change: impl Fn(&mut u32)) {
        while let Up::Node(up) = self.nodes[node.at()].up() {
            let at = self.position(up, node.raw());
            change(&mut self.nodes[up.at()].slots[at].more);
            node = up;
        }
    }

    /// Panics if S1 to S4 do not hold.
    pub(crate) fn assert_invariants(&self, order: &impl Order) {
        let mut listed = 0;
        for container in (0..self.spots.len()).map(EntryIx::new) {
            let Some(root) = self.root(container) else { continue };
            assert_eq!(self.nodes[root.at()].up(), Up::Container(container), "S4");
            let all: Vec<Sibling> = self.iter(container).collect();
            assert!(all.is_sorted_by(|a, b| order.compare(*a, *b) == Ordering::Less), "S1");
            assert_eq!(all.len(), self.len(container), "S2: {container:?}");
            self.assert_node(root, order);
            listed += all.len();
        }
        assert_eq!(
            listed,
            self.spots.iter().filter(|spot| spot.leaf.is_some()).count(),
            "S4: not in a container"
        );
    }

    /// Checks a node and those below it, and returns how deep they go.
    fn assert_node(&self, ix: NodeIx, order: &impl Order) -> usize {
        let node = &self.nodes[ix.at()];
        assert!((1..=NODE_SIZE).contains(&node.slots.len()), "S3: {ix:?}");
        if node.is_leaf() {
            for slot in &node.slots {
                assert_eq!(self.spots[slot.entry().at()].leaf, Some(ix), "S4");
                assert_eq!(slot.prefix, order.prefix(slot.sibling()), "S2");
            }
            return 0;
        }
        assert_eq!(node.first_leaf, self.first_leaf(node.slots[0]), "S2");
        let mut depths = node.slots.iter().map(|slot| {
            assert_eq!(self.nodes[slot.node().at()].up(), Up::Node(ix), "S4");
            assert_eq!(*slot, self.slot_of(slot.node()), "S2");
            self.assert_node(slot.node(), order)
        });
        let depth = depths.next().expect("S3: an inner node has children");
        assert!(depths.all(|other| other == depth), "S3: leaves of several depths");
        depth + 1
    }
}

/// Where slots are, those of one container beside each other. Containers are among the first so many
/// entries.
fn together(slots: &[(EntryIx, Slot)], entries: usize) -> Vec<u32> {
    /// Counting looks at every entry, so that it pays for many slots only.
    const ENTRIES_A_SLOT: usize = if cfg!(any(test, feature = "small-nodes")) { 4 } else { 16 };
    let len = u32::try_from(slots.len()).expect("entries are counted in four bytes");
    let mut places: Vec<u32> = (0..len).collect();
    if slots.len() < entries / ENTRIES_A_SLOT {
        places.sort_unstable_by_key(|at| slots[*at as usize].0);
        return places;
    }
    let mut starts = vec![0_u32; entries + 1];
    slots.iter().for_each(|(container, _)| starts[container.at() + 1] += 1);
    for at in 1..starts.len() {
        starts[at] += starts[at - 1];
    }
    for (at, (container, _)) in (0..).zip(slots) {
        let start = &mut starts[container.at()];
        places[*start as usize] = at;
        *start += 1;
    }
    places
}

/// How many siblings are below the slots of an inner node.
fn sum(slots: &[Slot]) -> usize {
    slots.iter().map(|slot| slot.count()).sum()
}

#[cfg(test)]
mod tests;
