//! The runs of one text in an arena B-tree.
//!
//! Leaves hold a few runs and the characters that show of them; inner nodes hold, for each child, how
//! much shows below it and the smallest stamp of a run's first character. So a position in any unit
//! is found in one descent, and so is the first run after a place that is older than a given stamp.
//! An index from ids to leaves finds a character's run.
//!
//! Invariants, checked by `assert_invariants`:
//! - B1. A leaf's text is the visible characters of its runs in order; no run is empty.
//! - B2. What an inner node says of a child is true of it, and each node knows its parent.
//! - B3. The index has exactly the first id of every run, and the leaf that it is in.
//! - B4. No node is over its size, and but for the root none is empty.
//! - B5. No two neighbours in one leaf could be one run.
//! - B6. Leaves are chained in order, beginning with leaf 0.
//!
//! Cost: O(log n) for each operation and run that it touches; the fan-out bounds the rest.
#![expect(
    clippy::cast_possible_truncation,
    reason = "nodes are fewer than 2^32, and what is cut from a run is shorter than the run"
)]

use std::collections::BTreeMap;

use super::run::{Lengths, Run};
use crate::id::{OpId, ReplicaId, Stamp};

/// The most runs, and the most bytes of text, of a leaf; the most children of an inner node. Small
/// ones make tests see many levels.
const LEAF_RUNS: usize = if cfg!(any(test, feature = "small-nodes")) { 4 } else { 32 };
const LEAF_BYTES: usize = if cfg!(any(test, feature = "small-nodes")) { 16 } else { 1_024 };
const FAN_OUT: usize = if cfg!(any(test, feature = "small-nodes")) { 3 } else { 16 };

const NONE: u32 = u32::MAX;
const FIRST_LEAF: u32 = 0;

#[derive(Clone, Debug)]
struct Leaf {
    runs: Vec<Run>,
    text: String,
    parent: u32,
    next: u32,
}

#[derive(Clone, Debug)]
struct Inner {
    children: Vec<Child>,
    parent: u32,
}

/// What an inner node knows of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Child {
    node: u32,
    shown: Lengths,
    /// The smallest stamp of a run's first character below.
    oldest: Stamp,
}

/// A place between two characters: before run number `run` of a leaf, or `offset` characters into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    leaf: u32,
    run: usize,
    offset: u32,
}

/// The runs of one text. Every call that can split a node takes a `clock`, which knows the stamp of
/// each character that is here.
#[derive(Clone, Debug)]
pub(crate) struct RunTree {
    leaves: Vec<Leaf>,
    inners: Vec<Inner>,
    root: u32,
    /// How many levels of inner nodes are above the leaves.
    height: usize,
    /// The first character of each run, and the leaf it is in.
    index: BTreeMap<(ReplicaId, u64), u32>,
    shown: Lengths,
}

impl RunTree {
    pub(crate) fn new() -> Self {
        let leaf = Leaf { runs: Vec::new(), text: String::new(), parent: NONE, next: NONE };
        Self {
            leaves: vec![leaf],
            inners: Vec::new(),
            root: FIRST_LEAF,
            height: 0,
            index: BTreeMap::new(),
            shown: Lengths::default(),
        }
    }

    /// How much shows.
    pub(crate) const fn shown(&self) -> Lengths {
        self.shown
    }

    /// The place before everything.
    pub(crate) const fn start(&self) -> Place {
        Place { leaf: FIRST_LEAF, run: 0, offset: 0 }
    }

    /// The place after the character `id`, if it is here.
    pub(crate) fn after(&self, id: OpId) -> Option<Place> {
        let (leaf, run) = self.find(id)?;
        let first = self.leaves[leaf as usize].runs[run].first.counter;
        // A character of a run lies within its length, which fits.
        let offset = (id.counter - first + 1) as u32;
        Some(self.tidy(Place { leaf, run, offset }))
    }

    /// The place after the visible character that ends at `unit` UTF-16 units, if one does.
    pub(crate) fn at_unit(&self, unit: usize) -> Option<Place> {
        if unit == 0 {
            return Some(self.start());
        }
        if unit > self.shown.units {
            return None;
        }
        let (mut node, mut left) = (self.root, unit);
        for _ in 0..self.height {
            let children = &self.inners[node as usize].children;
            let child = children.iter().find(|child| {
                let is_here = left <= child.shown.units;
                if !is_here {
                    left -= child.shown.units;
                }
                is_here
            })?;
            node = child.node;
        }
        let leaf = &self.leaves[node as usize];
        let mut byte = 0;
        for (run, content) in leaf.runs.iter().enumerate() {
            let units = content.units as usize;
            if left <= units {
                let text = &leaf.text[byte..byte + content.bytes as usize];
                let offset = chars_in_units(text, left)?;
                return Some(self.tidy(Place { leaf: node, run, offset }));
            }
            left -= units;
            byte += content.bytes as usize;
        }
        None
    }

    /// The character before a place.
    pub(crate) fn char_before(&self, place: Place) -> Option<OpId> {
        let runs = &self.leaves[place.leaf as usize].runs;
        if place.offset > 0 {
            return Some(runs[place.run].char(place.offset - 1));
        }
        let before = place.run.checked_sub(1)?;
        Some(runs[before].char(runs[before].len - 1))
    }

    /// The parts of runs from a place on, in order.
    pub(crate) fn from(&self, place: Place) -> impl Iterator<Item = (Run, &str)> {
        let Place { mut leaf, run, offset } = place;
        let mut at = run;
        let mut byte: usize = self.runs_before(place).iter().map(|run| run.bytes as usize).sum();
        let mut skip = offset;
        std::iter::from_fn(move || {
            loop {
                let here = self.leaves.get(leaf as usize)?;
                let Some(run) = here.runs.get(at) else {
                    (leaf, at, byte) = (here.next, 0, 0);
                    continue;
                };
                let text = &here.text[byte..byte + run.bytes as usize];
                byte += text.len();
                at += 1;
                let skipped = std::mem::take(&mut skip);
                if skipped == 0 {
                    return Some((*run, text));
                }
                let kept = if run.is_deleted() { "" } else { prefix(text, skipped) };
                let rest = run.clone().split_off(skipped, Lengths::of(kept));
                return Some((rest, &text[kept.len()..]));
            }
        })
    }

    /// Puts a run as it is behind everything.
    pub(crate) fn push(&mut self, run: Run, text: &str, clock: &impl Fn(OpId) -> Stamp) {
        self.insert_piece(self.end(), run, text, clock(run.first), clock);
    }

    /// The first place at or after `place` whose next run is older than `stamp`.
    pub(crate) fn skip_newer(
        &self,
        place: Place,
        stamp: Stamp,
        clock: &impl Fn(OpId) -> Stamp,
    ) -> Place {
        let leaf = &self.leaves[place.leaf as usize];
        let mut run = place.run;
        if place.offset > 0 {
            if clock(leaf.runs[run].char(place.offset)) < stamp {
                return place;
            }
            run += 1;
        }
        let older = |run: &Run| clock(run.first) < stamp;
        if let Some(found) = leaf.runs[run..].iter().position(older) {
            return Place { leaf: place.leaf, run: run + found, offset: 0 };
        }
        let Some(leaf) = self.next_leaf_with_older(place.leaf, stamp) else {
            return self.end();
        };
        let found = self.leaves[leaf as usize].runs.iter().position(older);
        Place { leaf, run: found.unwrap_or_default(), offset: 0 }
    }

    /// Puts new characters at a place. They take consecutive ids from that of `stamp` on.
    pub(crate) fn insert(
        &mut self,
        mut place: Place,
        stamp: Stamp,
        text: &str,
        clock: &impl Fn(OpId) -> Stamp,
    ) {
        let mut rest = text;
        let mut stamp = stamp;
        while !rest.is_empty() {
            let piece = &rest[..rest.floor_char_boundary(LEAF_BYTES)];
            rest = &rest[piece.len()..];
            let lengths = Lengths::of(piece);
            // A piece has at most LEAF_BYTES of anything.
            let [len, bytes, units] =
                [lengths.chars, lengths.bytes, lengths.units].map(|length| length as u32);
            let run = Run { first: stamp.op(), len, bytes, units };
            self.insert_piece(place, run, piece, stamp, clock);
            stamp.counter += u64::from(len);
            if !rest.is_empty() {
                let last = run.char(len - 1);
                place = self.after(last).unwrap_or_else(|| self.end());
            }
        }
    }

    /// Deletes the visible characters among `len` ids from `first` on, and hands each piece of them
    /// to `gone` with its first id.
    pub(crate) fn delete(
        &mut self,
        first: OpId,
        len: u64,
        clock: &impl Fn(OpId) -> Stamp,
        mut gone: impl FnMut(OpId, &str),
    ) {
        let end = first.counter.saturating_add(len);
        let mut counter = first.counter;
        while counter < end {
            let Some((leaf, at)) = self.find_from(OpId { counter, ..first }, end) else { return };
            let run = self.leaves[leaf as usize].runs[at];
            let from = counter.max(run.first.counter);
            counter = end.min(run.end());
            if !run.is_deleted() {
                // Both lie within the run, whose length fits.
                let [from, to] = [from, counter].map(|at| (at - run.first.counter) as u32);
                self.delete_in_run((leaf, at), from..to, clock, &mut gone);
            }
        }
    }

    fn insert_piece(
        &mut self,
        place: Place,
        run: Run,
        text: &str,
        stamp: Stamp,
        clock: &impl Fn(OpId) -> Stamp,
    ) {
        let at = self.split_run(place);
        let leaf = &mut self.leaves[place.leaf as usize];
        let byte: usize = leaf.runs[..at].iter().map(|run| run.bytes as usize).sum();
        leaf.text.insert_str(byte, text);
        match at.checked_sub(1).map(|before| &mut leaf.runs[before]) {
            Some(before) if before.continues_with(&run) => before.join(&run),
            _ => {
                leaf.runs.insert(at, run);
                self.index.insert((run.first.replica, run.first.counter), place.leaf);
            }
        }
        self.add_shown(place.leaf, run.lengths(), Some(stamp));
        self.split_if_full(place.leaf, clock);
    }

    fn delete_in_run(
        &mut self,
        (leaf, at): (u32, usize),
        chars: std::ops::Range<u32>,
        clock: &impl Fn(OpId) -> Stamp,
        gone: &mut impl FnMut(OpId, &str),
    ) {
        self.split_run(self.tidy(Place { leaf, run: at, offset: chars.end }));
        let at = self.split_run(Place { leaf, run: at, offset: chars.start });
        let here = &mut self.leaves[leaf as usize];
        let byte: usize = here.runs[..at].iter().map(|run| run.bytes as usize).sum();
        let run = &mut here.runs[at];
        let shown = run.lengths();
        gone(run.first, &here.text[byte..byte + shown.bytes]);
        here.text.drain(byte..byte + shown.bytes);
        run.show(Lengths::default());
        self.remove_shown(leaf, shown);
        self.join_with_previous(leaf, at + 1);
        self.join_with_previous(leaf, at);
        self.split_if_full(leaf, clock);
    }

    /// Cuts the run at a place, if the place is inside one; returns the number of the run after it.
    fn split_run(&mut self, place: Place) -> usize {
        if place.offset == 0 {
            return place.run;
        }
        let leaf = &mut self.leaves[place.leaf as usize];
        let byte: usize = leaf.runs[..place.run].iter().map(|run| run.bytes as usize).sum();
        let run = &mut leaf.runs[place.run];
        let text = &leaf.text[byte..byte + run.bytes as usize];
        let kept = if run.is_deleted() { "" } else { prefix(text, place.offset) };
        let rest = run.split_off(place.offset, Lengths::of(kept));
        leaf.runs.insert(place.run + 1, rest);
        self.index.insert((rest.first.replica, rest.first.counter), place.leaf);
        place.run + 1
    }

    fn join_with_previous(&mut self, leaf: u32, at: usize) {
        let runs = &mut self.leaves[leaf as usize].runs;
        if at == 0 || at >= runs.len() || !runs[at - 1].continues_with(&runs[at]) {
            return;
        }
        let run = runs.remove(at);
        runs[at - 1].join(&run);
        self.index.remove(&(run.first.replica, run.first.counter));
    }

    fn split_if_full(&mut self, leaf: u32, clock: &impl Fn(OpId) -> Stamp) {
        let mut full = vec![leaf];
        while let Some(leaf) = full.pop() {
            let here = &self.leaves[leaf as usize];
            if here.runs.len() > LEAF_RUNS || here.text.len() > LEAF_BYTES {
                let next = self.split_leaf(leaf, clock);
                full.extend([leaf, next]);
            }
        }
    }

    fn split_leaf(&mut self, leaf: u32, clock: &impl Fn(OpId) -> Stamp) -> u32 {
        let at = self.split_run(self.middle(leaf));
        let new = self.leaves.len() as u32;
        let here = &mut self.leaves[leaf as usize];
        let byte = here.runs[..at].iter().map(|run| run.bytes as usize).sum();
        let rest = Leaf {
            runs: here.runs.split_off(at),
            text: here.text.split_off(byte),
            parent: here.parent,
            next: here.next,
        };
        here.next = new;
        here.text.shrink_to(LEAF_BYTES);
        for run in &rest.runs {
            self.index.insert((run.first.replica, run.first.counter), new);
        }
        self.leaves.push(rest);
        let children = [leaf, new].map(|leaf| self.describe(leaf, clock));
        self.replace_child(self.leaves[leaf as usize].parent, children, 0);
        new
    }

    /// Where to cut a leaf that is full: between runs if there are many, else in the text's middle.
    fn middle(&self, leaf: u32) -> Place {
        let here = &self.leaves[leaf as usize];
        if here.runs.len() > LEAF_RUNS {
            return Place { leaf, run: here.runs.len() / 2, offset: 0 };
        }
        let half = here.text.floor_char_boundary(here.text.len() / 2);
        let mut byte = 0;
        for (run, content) in here.runs.iter().enumerate() {
            let bytes = content.bytes as usize;
            if byte + bytes > half {
                let chars = Lengths::of(&here.text[byte..half]).chars;
                // Cut off at least one character, so that neither half is empty.
                let offset = if run == 0 { chars.max(1) } else { chars };
                return self.tidy(Place { leaf, run, offset: offset as u32 });
            }
            byte += bytes;
        }
        Place { leaf, run: here.runs.len() / 2, offset: 0 }
    }

    /// Puts two children where the first of them was alone, and splits upwards where a node is full.
    /// `level` counts from the leaves.
    fn replace_child(&mut self, parent: u32, children: [Child; 2], level: usize) {
        if parent == NONE {
            self.root = self.inners.len() as u32;
            self.height = level + 1;
            self.inners.push(Inner { children: children.to_vec(), parent: NONE });
            for child in children {
                self.set_parent(child.node, level, self.root);
            }
            return;
        }
        let here = &mut self.inners[parent as usize];
        let slot = slot_of(here, children[0].node);
        here.children[slot] = children[0];
        here.children.insert(slot + 1, children[1]);
        if here.children.len() <= FAN_OUT {
            return;
        }
        let rest = here.children.split_off(here.children.len() / 2);
        let (grandparent, new) = (here.parent, self.inners.len() as u32);
        for child in &rest {
            self.set_parent(child.node, level, new);
        }
        self.inners.push(Inner { children: rest, parent: grandparent });
        let halves = [parent, new].map(|node| self.summarize(node));
        self.replace_child(grandparent, halves, level + 1);
    }

    fn set_parent(&mut self, node: u32, level: usize, parent: u32) {
        if level == 0 {
            self.leaves[node as usize].parent = parent;
        } else {
            self.inners[node as usize].parent = parent;
        }
    }

    fn describe(&self, leaf: u32, clock: &impl Fn(OpId) -> Stamp) -> Child {
        let here = &self.leaves[leaf as usize];
        let mut shown = Lengths::default();
        here.runs.iter().for_each(|run| shown += run.lengths());
        let oldest = here.runs.iter().map(|run| clock(run.first)).min();
        Child { node: leaf, shown, oldest: oldest.unwrap_or(NEWEST) }
    }

    fn summarize(&self, node: u32) -> Child {
        let children = &self.inners[node as usize].children;
        let mut shown = Lengths::default();
        children.iter().for_each(|child| shown += child.shown);
        let oldest = children.iter().map(|child| child.oldest).min();
        Child { node, shown, oldest: oldest.unwrap_or(NEWEST) }
    }

    fn add_shown(&mut self, leaf: u32, shown: Lengths, stamp: Option<Stamp>) {
        self.shown += shown;
        self.for_each_above(leaf, |child| {
            child.shown += shown;
            child.oldest = stamp.map_or(child.oldest, |stamp| stamp.min(child.oldest));
        });
    }

    fn remove_shown(&mut self, leaf: u32, shown: Lengths) {
        self.shown -= shown;
        self.for_each_above(leaf, |child| child.shown -= shown);
    }

    fn for_each_above(&mut self, leaf: u32, mut update: impl FnMut(&mut Child)) {
        let (mut node, mut parent) = (leaf, self.leaves[leaf as usize].parent);
        while parent != NONE {
            let here = &mut self.inners[parent as usize];
            let slot = slot_of(here, node);
            update(&mut here.children[slot]);
            (node, parent) = (parent, here.parent);
        }
    }

    /// The first leaf after `leaf` that holds a run older than `stamp`.
    fn next_leaf_with_older(&self, leaf: u32, stamp: Stamp) -> Option<u32> {
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

    fn end(&self) -> Place {
        let mut node = self.root;
        for _ in 0..self.height {
            node = self.inners[node as usize].children.last().map_or(FIRST_LEAF, |last| last.node);
        }
        Place { leaf: node, run: self.leaves[node as usize].runs.len(), offset: 0 }
    }

    /// The leaf and the number of the run that has the character `id`.
    fn find(&self, id: OpId) -> Option<(u32, usize)> {
        let upto = (id.replica, 0)..=(id.replica, id.counter);
        let (_, leaf) = self.index.range(upto).next_back()?;
        let run = self.leaves[*leaf as usize].runs.iter().position(|run| run.contains(id))?;
        Some((*leaf, run))
    }

    /// The same, or of the first character after it and before `end` that is here.
    fn find_from(&self, id: OpId, end: u64) -> Option<(u32, usize)> {
        self.find(id).or_else(|| {
            let between = (id.replica, id.counter)..(id.replica, end);
            let ((_, counter), _) = self.index.range(between).next()?;
            self.find(OpId { counter: *counter, ..id })
        })
    }

    /// The same place, said as the beginning of the next run rather than the end of one.
    fn tidy(&self, place: Place) -> Place {
        let run = self.leaves[place.leaf as usize].runs[place.run];
        if place.offset < run.len {
            return place;
        }
        Place { run: place.run + 1, offset: 0, ..place }
    }

    fn runs_before(&self, place: Place) -> &[Run] {
        &self.leaves[place.leaf as usize].runs[..place.run]
    }
}

/// Newer than any stamp there is.
const NEWEST: Stamp = Stamp { lamport: u64::MAX, replica: ReplicaId::MAX, counter: u64::MAX };

fn slot_of(parent: &Inner, node: u32) -> usize {
    let slot = parent.children.iter().position(|child| child.node == node);
    slot.expect("B2: a node's parent has it as a child")
}

/// The first `chars` characters.
pub(super) fn prefix(text: &str, chars: u32) -> &str {
    if text.is_ascii() {
        return &text[..chars as usize];
    }
    let end = text.char_indices().nth(chars as usize).map_or(text.len(), |(byte, _)| byte);
    &text[..end]
}

/// How many characters the first `units` UTF-16 units are, unless they end inside one.
pub(super) fn chars_in_units(text: &str, units: usize) -> Option<u32> {
    if text.is_ascii() {
        return u32::try_from(units).ok();
    }
    let mut left = units;
    let mut chars = 0;
    for char in text.chars() {
        if left == 0 {
            break;
        }
        left = left.checked_sub(char.len_utf16())?;
        chars += 1;
    }
    Some(chars)
}

#[cfg(test)]
impl RunTree {
    /// How many runs there are.
    pub(crate) fn run_count(&self) -> usize {
        self.index.len()
    }

    /// How many levels the tree has.
    pub(crate) const fn levels(&self) -> usize {
        self.height + 1
    }
}

impl RunTree {
    /// Panics if B1 to B6 do not hold.
    pub(crate) fn assert_invariants(&self, clock: &impl Fn(OpId) -> Stamp) {
        let mut leaf = FIRST_LEAF;
        let mut in_order = Vec::new();
        while let Some(here) = self.leaves.get(leaf as usize) {
            in_order.push(leaf);
            self.assert_leaf(leaf);
            leaf = here.next;
        }
        assert_eq!(in_order.len(), self.leaves.len(), "B6: a leaf is off the chain");
        let runs = self.leaves.iter().map(|leaf| leaf.runs.len()).sum::<usize>();
        assert_eq!(runs, self.index.len(), "B3: the index has other runs");
        let mut below = Vec::new();
        let root = self.assert_inner(self.root, self.height, &mut below, clock);
        assert_eq!(root.shown, self.shown, "B2: the whole");
        assert_eq!(below, in_order, "B6: the chain is in another order than the tree");
    }

    fn assert_leaf(&self, leaf: u32) {
        let here = &self.leaves[leaf as usize];
        assert!(here.runs.len() <= LEAF_RUNS && here.text.len() <= LEAF_BYTES, "B4: leaf {leaf}");
        assert!(!here.runs.is_empty() || self.leaves.len() == 1, "B4: leaf {leaf} is empty");
        let mut byte = 0;
        for (at, run) in here.runs.iter().enumerate() {
            assert!(run.len > 0, "B1: an empty run");
            let text = &here.text[byte..byte + run.bytes as usize];
            byte += text.len();
            assert_eq!(Lengths::of(text), run.lengths(), "B1: {run:?}");
            let key = (run.first.replica, run.first.counter);
            assert_eq!(self.index.get(&key), Some(&leaf), "B3: {run:?}");
            let joins = here.runs.get(at + 1).is_some_and(|next| run.continues_with(next));
            assert!(!joins, "B5: {run:?}");
        }
        assert_eq!(byte, here.text.len(), "B1: text of no run");
    }

    fn assert_inner(
        &self,
        node: u32,
        level: usize,
        leaves: &mut Vec<u32>,
        clock: &impl Fn(OpId) -> Stamp,
    ) -> Child {
        if level == 0 {
            leaves.push(node);
            return self.describe(node, clock);
        }
        let here = &self.inners[node as usize];
        assert!((1..=FAN_OUT).contains(&here.children.len()), "B4: inner node {node}");
        for child in &here.children {
            let found = self.assert_inner(child.node, level - 1, leaves, clock);
            assert_eq!(found, *child, "B2: child of {node}");
            let parent = match level {
                1 => self.leaves[child.node as usize].parent,
                _ => self.inners[child.node as usize].parent,
            };
            assert_eq!(parent, node, "B2: the parent of {child:?}");
        }
        self.summarize(node)
    }
}
