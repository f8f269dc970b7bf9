//! Leaves and inner nodes: what they know of each other, and how they split.

use smallvec::SmallVec;

use super::{FAN_OUT, LEAF_BYTES, LEAF_RUNS, Lengths, NONE, Run, RunTree};
use crate::id::{OpId, ReplicaId, Stamp};

/// Newer than any stamp there is.
pub(super) const NEWEST: Stamp =
    Stamp { lamport: u64::MAX, replica: ReplicaId::MAX, counter: u64::MAX };

#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) runs: Vec<Run>,
    pub(super) text: String,
    pub(super) parent: u32,
    pub(super) next: u32,
    /// B7.
    pub(super) oldest: Stamp,
}

#[derive(Clone, Debug)]
pub(super) struct Inner {
    pub(super) children: Vec<Child>,
    pub(super) parent: u32,
}

/// What an inner node knows of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) node: u32,
    pub(super) shown: Lengths,
    /// B7.
    pub(super) oldest: Stamp,
}

/// Where to cut a leaf: before run number `run`, or `offset` characters into it.
struct Cut {
    run: usize,
    offset: u32,
    /// What shows of those characters.
    kept: Lengths,
}

impl Leaf {
    /// A leaf with nothing in it.
    pub(super) const fn empty() -> Self {
        Self { runs: Vec::new(), text: String::new(), parent: NONE, next: NONE, oldest: NEWEST }
    }

    pub(super) const fn is_over_full(&self) -> bool {
        self.runs.len() > LEAF_RUNS || self.text.len() > LEAF_BYTES
    }

    pub(super) fn shown(&self) -> Lengths {
        self.runs.iter().fold(Lengths::ZERO, |shown, run| shown + run.lengths())
    }

    /// Puts text in at `byte`. Buffers grow by a part only, since there are many.
    #[inline]
    pub(super) fn insert_text(&mut self, byte: usize, text: &str) {
        let spare = self.text.capacity() - self.text.len();
        if spare < text.len() {
            self.text.reserve_exact(text.len().max(self.text.len() / 2).max(32));
        }
        self.text.insert_str(byte, text);
    }

    /// Puts other runs in the place of those from number `from` up to `to`.
    #[inline]
    pub(super) fn replace_runs(&mut self, from: usize, to: usize, runs: &[Run]) {
        let common = runs.len().min(to - from);
        self.runs[from..from + common].copy_from_slice(&runs[..common]);
        if runs.len() < to - from {
            self.runs.drain(from + common..to);
            return;
        }
        let more = &runs[common..];
        let spare = self.runs.capacity() - self.runs.len();
        if spare < more.len() {
            // Room for one run too many, with which the leaf is split.
            let most = (LEAF_RUNS + 1).saturating_sub(self.runs.len());
            let some = (self.runs.len() / 2).max(4).min(most);
            self.runs.reserve_exact(more.len().max(some));
        }
        match more {
            [] => {}
            [run] => self.runs.insert(to, *run),
            _ => drop(self.runs.splice(to..to, more.iter().copied())),
        }
    }

    /// Where to cut a leaf that is over-full: in the middle, or near the end if what goes on there is
    /// appending. Either part gets something.
    fn cut(&self, is_appended: bool) -> Cut {
        let middle = |len: usize, max: usize| if is_appended { max - max / 8 } else { len / 2 };
        if self.runs.len() > LEAF_RUNS {
            let run = middle(self.runs.len(), LEAF_RUNS);
            return Cut { run, offset: 0, kept: Lengths::ZERO };
        }
        let target = self.text.floor_char_boundary(middle(self.text.len(), LEAF_BYTES));
        let mut byte = 0;
        for (number, run) in self.runs.iter().enumerate() {
            let end = byte + run.lengths().bytes;
            if end > target {
                let kept = Lengths::of(&self.text[byte..target]);
                // A part of the run's length, which fits.
                let offset = u32::try_from(kept.chars).unwrap_or(u32::MAX);
                return Cut { run: number, offset, kept };
            }
            byte = end;
        }
        Cut { run: self.runs.len() / 2, offset: 0, kept: Lengths::ZERO }
    }
}

impl RunTree {
    /// Splits the cursor's leaf, and what comes of it, until no leaf is over its size.
    #[inline]
    pub(super) fn split_if_full(&mut self) {
        if self.leaves[self.cursor.spot.leaf as usize].is_over_full() {
            self.split(self.cursor.spot.leaf);
        }
    }

    #[cold]
    fn split(&mut self, leaf: u32) {
        self.flush();
        let mut full: SmallVec<[u32; 8]> = SmallVec::from_slice(&[leaf]);
        while let Some(leaf) = full.pop() {
            if self.leaves[leaf as usize].is_over_full() {
                full.extend([leaf, self.split_leaf(leaf)]);
            }
        }
    }

    fn split_leaf(&mut self, leaf: u32) -> u32 {
        // Leaves are fewer than runs, and these fewer than 2^32.
        let new = u32::try_from(self.leaves.len()).unwrap_or(NONE);
        let here = &mut self.leaves[leaf as usize];
        let cursor = self.cursor.spot;
        let is_here = cursor.leaf == leaf;
        let mut cut = here.cut(is_here && cursor.run + 2 >= here.runs.len());
        let mut byte = here.runs[..cut.run].iter().map(|run| run.lengths().bytes).sum();
        if cut.offset > 0 {
            let rest = here.runs[cut.run].split_off(cut.offset, cut.kept);
            if is_here && cursor.run >= cut.run {
                self.cursor.follow_cut(cut.run, cut.kept);
            }
            here.replace_runs(cut.run + 1, cut.run + 1, &[rest]);
            cut.run += 1;
            byte += cut.kept.bytes;
        }
        let rest = Leaf {
            runs: here.runs.split_off(cut.run),
            text: here.text.split_off(byte),
            parent: here.parent,
            next: here.next,
            oldest: here.oldest,
        };
        here.next = new;
        here.text.shrink_to_fit();
        here.runs.shrink_to_fit();
        if is_here && self.cursor.spot.run >= cut.run {
            self.cursor.spot = super::Spot {
                leaf: new,
                run: self.cursor.spot.run - cut.run,
                byte: self.cursor.spot.byte - byte,
            };
        }
        self.cursor.tip = None;
        let (parent, oldest, moved) = (rest.parent, rest.oldest, rest.shown());
        let stays = here.shown();
        self.leaves.push(rest);
        self.index_leaf(new);
        let children =
            [(leaf, stays), (new, moved)].map(|(node, shown)| Child { node, shown, oldest });
        self.replace_child(parent, children, 0);
        new
    }

    /// Puts two children where the first of them was alone, and splits upwards where a node is full.
    /// `level` counts from the leaves.
    fn replace_child(&mut self, parent: u32, children: [Child; 2], level: usize) {
        if parent == NONE {
            self.add_root(children.to_vec(), level);
            return;
        }
        let here = &mut self.inners[parent as usize];
        let slot = slot_of(here, children[0].node);
        here.children[slot] = children[0];
        if here.children.len() == here.children.capacity() {
            here.children.reserve_exact(FAN_OUT / 4 + 1);
        }
        here.children.insert(slot + 1, children[1]);
        if here.children.len() <= FAN_OUT {
            return;
        }
        let last = here.children.len() - 1;
        let cut = if slot + 1 == last { FAN_OUT - FAN_OUT / 4 } else { last.div_ceil(2) };
        let rest = here.children.split_off(cut);
        let grandparent = here.parent;
        let new = self.add_inner(rest, grandparent, level);
        let halves = [parent, new].map(|node| self.summarize(node));
        self.replace_child(grandparent, halves, level + 1);
    }

    /// Makes a node above all others, with the given children.
    pub(super) fn add_root(&mut self, children: Vec<Child>, level: usize) {
        self.root = self.add_inner(children, NONE, level);
        self.height = level + 1;
    }

    /// Makes an inner node whose children are on `level`.
    pub(super) fn add_inner(&mut self, children: Vec<Child>, parent: u32, level: usize) -> u32 {
        // Inner nodes are fewer than leaves.
        let new = u32::try_from(self.inners.len()).unwrap_or(NONE);
        for child in &children {
            self.set_parent(child.node, level, new);
        }
        self.inners.push(Inner { children, parent });
        new
    }

    fn set_parent(&mut self, node: u32, level: usize, parent: u32) {
        if level == 0 {
            self.leaves[node as usize].parent = parent;
        } else {
            self.inners[node as usize].parent = parent;
        }
    }

    pub(super) fn summarize(&self, node: u32) -> Child {
        let children = &self.inners[node as usize].children;
        let mut summary = Child { node, shown: Lengths::ZERO, oldest: NEWEST };
        for child in children {
            summary.shown += child.shown;
            summary.oldest = child.oldest.min(summary.oldest);
        }
        summary
    }

    /// Tells the nodes above the cursor's leaf how it has grown.
    pub(super) fn flush(&mut self) {
        let pending = std::mem::take(&mut self.cursor.pending);
        if pending != Lengths::ZERO {
            self.for_each_above(self.cursor.spot.leaf, |child| {
                child.shown += pending;
                true
            });
        }
    }

    /// Notes that a leaf has got a run which begins at `stamp`.
    #[inline]
    pub(super) fn lower_bound(&mut self, leaf: u32, stamp: Stamp) {
        if self.leaves[leaf as usize].oldest <= stamp {
            return;
        }
        self.leaves[leaf as usize].oldest = stamp;
        self.for_each_above(leaf, |child| {
            let is_older = stamp < child.oldest;
            child.oldest = stamp.min(child.oldest);
            is_older
        });
    }

    /// Makes the bound on how old a leaf's runs are exact.
    pub(super) fn tighten(&mut self, leaf: u32, clock: &impl Fn(OpId) -> Stamp) {
        let here = &mut self.leaves[leaf as usize];
        let stamps = here.runs.iter().map(|run| clock(self.authors.op(run.first)));
        let mut oldest = stamps.min().unwrap_or(NEWEST);
        here.oldest = oldest;
        let (mut node, mut parent) = (leaf, here.parent);
        while parent != NONE {
            let here = &mut self.inners[parent as usize];
            let slot = slot_of(here, node);
            here.children[slot].oldest = oldest;
            oldest = here.children.iter().map(|child| child.oldest).min().unwrap_or(NEWEST);
            (node, parent) = (parent, here.parent);
        }
    }

    /// The first leaf after `leaf` that may hold a run older than `stamp`.
    pub(super) fn next_leaf_with_older(&self, leaf: u32, stamp: Stamp) -> Option<u32> {
        let (mut node, mut parent) = (leaf, self.leaves[leaf as usize].parent);
        let mut level = 0;
        let older = |child: &&Child| child.oldest < stamp;
        let mut found = loop {
            let here = self.inners.get(parent as usize)?;
            let after = slot_of(here, node) + 1;
            if let Some(child) = here.children[after..].iter().find(older) {
                break child.node;
            }
            (node, parent) = (parent, here.parent);
            level += 1;
        };
        for _ in 0..level {
            found = self.inners[found as usize].children.iter().find(older)?.node;
        }
        Some(found)
    }

    /// Updates what the nodes above a leaf know, upwards until `update` says that it is enough.
    fn for_each_above(&mut self, leaf: u32, mut update: impl FnMut(&mut Child) -> bool) {
        let (mut node, mut parent) = (leaf, self.leaves[leaf as usize].parent);
        while parent != NONE {
            let here = &mut self.inners[parent as usize];
            let slot = slot_of(here, node);
            if !update(&mut here.children[slot]) {
                return;
            }
            (node, parent) = (parent, here.parent);
        }
    }
}

pub(super) fn slot_of(parent: &Inner, node: u32) -> usize {
    let slot = parent.children.iter().position(|child| child.node == node);
    slot.expect("B2: a node's parent has it as a child")
}
