//! Making, splitting, joining and freeing nodes, so that none is over its size or empty.

use smallvec::smallvec;

use super::{NODE_SIZE, NODE_SIZE_LOW, Node, NodeIx, Siblings, Slot, Slots, Up};
use crate::entries::EntryIx;
use crate::index::push_tightly;

impl<T: Copy + Default> Siblings<T> {
    /// Adds a slot to a node, whose count above includes it already. A full node is split.
    pub(super) fn insert_slot(&mut self, node: NodeIx, at: usize, slot: Slot) {
        let slots = &mut self.nodes[node.at()].slots;
        if slots.len() < NODE_SIZE {
            slots.insert(at, slot);
            if at == 0 {
                self.renew_first(node);
            }
            return;
        }
        // Those who add at the end fill all nodes.
        let cut = if at == NODE_SIZE { NODE_SIZE } else { NODE_SIZE / 2 };
        let mut moved: Slots = slots.drain(cut..).collect();
        if at < cut || cut < NODE_SIZE && at == cut {
            slots.insert(at, slot);
        } else {
            moved.insert(at - cut, slot);
        }
        if at == 0 {
            self.renew_first(node);
        }
        self.add_right(node, moved);
    }

    /// Makes the tree of an empty container from all its siblings, in order. They are used up.
    pub(super) fn build(&mut self, container: EntryIx, slots: &mut Vec<Slot>) {
        let (up, mut is_leaf) = (Up::Container(container), true);
        loop {
            // As many nodes as it takes, all about as full.
            let nodes = slots.len().div_ceil(NODE_SIZE);
            let size = slots.len().div_ceil(nodes.max(1)).max(1);
            for node in 0..nodes {
                let below = &slots[node * size..slots.len().min((node + 1) * size)];
                let first_leaf = if is_leaf { None } else { self.first_leaf(below[0]) };
                let made = self.add_node(Slots::from_slice(below), up, first_leaf);
                slots[node] = self.slot_of(made);
            }
            slots.truncate(nodes);
            is_leaf = false;
            if let [root] = slots[..] {
                self.spots[container.at()].root = Some(root.node());
            }
            if slots.len() <= 1 {
                return;
            }
        }
    }

    /// Makes a node of these slots, right beside `node` to which they belonged.
    fn add_right(&mut self, node: NodeIx, slots: Slots) {
        let up = self.nodes[node.at()].up();
        let first_leaf =
            if self.nodes[node.at()].is_leaf() { None } else { self.first_leaf(slots[0]) };
        let right = self.add_node(slots, up, first_leaf);
        let new = self.slot_of(right);
        match up {
            Up::Node(up) => {
                let at = self.position(up, node.raw());
                self.nodes[up.at()].slots[at].more -= new.more;
                self.insert_slot(up, at + 1, new);
            }
            Up::Container(container) => {
                let slots = smallvec![self.slot_of(node), new];
                let root = self.add_node(slots, up, self.first_leaf(self.slot_of(node)));
                self.spots[container.at()].root = Some(root);
            }
        }
    }

    /// The first leaf below a slot of an inner node.
    pub(super) fn first_leaf(&self, slot: Slot) -> Option<NodeIx> {
        self.nodes[slot.node().at()].first_leaf.or(Some(slot.node()))
    }

    pub(super) fn add_node(&mut self, slots: Slots, up: Up, first_leaf: Option<NodeIx>) -> NodeIx {
        let node = Node { slots, up: up.ix(), first_leaf };
        let ix = match self.free.pop() {
            Some(ix) => {
                self.nodes[ix.at()] = node;
                ix
            }
            None => {
                push_tightly(&mut self.nodes, node);
                NodeIx::new(self.nodes.len() - 1)
            }
        };
        self.adopt(ix, 0);
        ix
    }

    /// Tells the items of a node, from one on, that they are there.
    fn adopt(&mut self, node: NodeIx, from: usize) {
        let Self { nodes, spots, .. } = self;
        for at in from..nodes[node.at()].slots.len() {
            let slot = nodes[node.at()].slots[at];
            if nodes[node.at()].is_leaf() {
                spots[slot.entry().at()].leaf = Some(node);
            } else {
                nodes[slot.node().at()].up = Up::Node(node).ix();
            }
        }
    }

    /// The slot that stands for a node in the one above.
    pub(super) fn slot_of(&self, node: NodeIx) -> Slot {
        let prefix = self.nodes[node.at()].slots[0].prefix;
        let count = u32::try_from(self.count(node)).expect("entries are counted in four bytes");
        Slot { prefix, item: node.raw(), more: count }
    }

    /// Tells the nodes above what is the first below them now.
    pub(super) fn renew_first(&mut self, mut node: NodeIx) {
        loop {
            let Some(slot) = self.nodes[node.at()].slots.first().copied() else { return };
            if !self.nodes[node.at()].is_leaf() {
                self.nodes[node.at()].first_leaf = self.first_leaf(slot);
            }
            let Up::Node(up) = self.nodes[node.at()].up() else { return };
            let at = self.position(up, node.raw());
            self.nodes[up.at()].slots[at].prefix = slot.prefix;
            if at > 0 {
                return;
            }
            node = up;
        }
    }

    /// Removes or joins nodes that have become empty or small, from one on upwards.
    pub(super) fn mend(&mut self, mut node: NodeIx) {
        loop {
            let size = self.nodes[node.at()].slots.len();
            node = match self.nodes[node.at()].up() {
                Up::Container(container) if size == 0 => {
                    self.spots[container.at()].root = None;
                    return self.free(node);
                }
                Up::Container(container) => {
                    if size > 1 || self.nodes[node.at()].is_leaf() {
                        return;
                    }
                    let only = self.nodes[node.at()].slots[0].node();
                    self.nodes[only.at()].up = Up::Container(container).ix();
                    self.spots[container.at()].root = Some(only);
                    self.free(node);
                    only
                }
                Up::Node(up) if size == 0 => {
                    let at = self.position(up, node.raw());
                    self.nodes[up.at()].slots.remove(at);
                    self.free(node);
                    if at == 0 {
                        self.renew_first(up);
                    }
                    up
                }
                Up::Node(up) => {
                    if size > NODE_SIZE_LOW || !self.join_neighbour(up, node) {
                        return;
                    }
                    up
                }
            }
        }
    }

    /// Joins a node with one beside it, if both fit into one.
    fn join_neighbour(&mut self, up: NodeIx, node: NodeIx) -> bool {
        let at = self.position(up, node.raw()).saturating_sub(1);
        let [left, right, ..] = self.nodes[up.at()].slots[at..] else { return false };
        let left_len = self.nodes[left.node().at()].slots.len();
        if left_len + self.nodes[right.node().at()].slots.len() > NODE_SIZE {
            return false;
        }
        let moved = std::mem::take(&mut self.nodes[right.node().at()].slots);
        self.nodes[left.node().at()].slots.extend(moved);
        self.adopt(left.node(), left_len);
        let slots = &mut self.nodes[up.at()].slots;
        slots[at].more += right.more;
        slots.remove(at + 1);
        self.free(right.node());
        true
    }

    fn free(&mut self, node: NodeIx) {
        self.nodes[node.at()].slots = Slots::new();
        self.free.push(node);
    }
}
