//! The entries in one container, in order, with their indexes.
//!
//! A B+ tree that counts: each inner node knows how many siblings are below each child, so an index
//! is found, and told, in one descent. Most containers are small and are one leaf.
//!
//! Invariants, checked by `assert_invariants`:
//! - S1. Siblings are in strict order across all leaves.
//! - S2. Every count is the number of siblings below the child.
//! - S3. No node is over its size, none but a lone leaf is empty, all leaves are equally deep.
//!
//! Cost: O(log n) for each operation; walking is O(1) a sibling, amortised.

use crate::id::EntryId;
use crate::tree::OrderKey;

/// An entry among those in one container: its place, then its id, which breaks ties.
pub(crate) type Sibling = (OrderKey, EntryId);

/// The most siblings of a leaf, and the most children of an inner node. Small ones make tests see
/// many levels.
const NODE_SIZE: usize = if cfg!(any(test, feature = "small-nodes")) { 4 } else { 32 };
/// A node below this size joins its neighbour if both fit into one.
const NODE_SIZE_LOW: usize = NODE_SIZE / 3;

#[derive(Clone, Debug)]
enum Node {
    Leaf(Vec<Sibling>),
    Inner(Vec<Child>),
}

#[derive(Clone, Debug)]
struct Child {
    count: usize,
    node: Node,
}

/// The entries in one container.
#[derive(Clone, Debug)]
pub(crate) struct Siblings {
    root: Node,
    count: usize,
}

impl Siblings {
    pub(crate) const fn new() -> Self {
        Self { root: Node::Leaf(Vec::new()), count: 0 }
    }

    /// Adds a sibling, unless it is here.
    pub(crate) fn insert(&mut self, sibling: Sibling) {
        if !self.root.insert(sibling) {
            return;
        }
        self.count += 1;
        if let Some(right) = self.root.split() {
            let left = std::mem::replace(&mut self.root, Node::Leaf(Vec::new()));
            self.root = Node::Inner(vec![Child::of(left), Child::of(right)]);
        }
    }

    /// Removes a sibling, if it is here.
    pub(crate) fn remove(&mut self, sibling: &Sibling) {
        if !self.root.remove(sibling) {
            return;
        }
        self.count -= 1;
        if let Node::Inner(children) = &mut self.root
            && children.len() == 1
            && let Some(only) = children.pop()
        {
            self.root = only.node;
        }
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The sibling at `index`.
    pub(crate) fn at(&self, index: usize) -> Option<&Sibling> {
        let (leaf, first) = self.leaf_at(index)?;
        leaf.get(index - first)
    }

    /// The index of a sibling that is here.
    pub(crate) fn index_of(&self, sibling: &Sibling) -> Option<usize> {
        let mut before = 0;
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(siblings) => {
                    return siblings.binary_search(sibling).ok().map(|at| before + at);
                }
                Node::Inner(children) => {
                    let slot = slot_for(children, sibling);
                    before += children[..slot].iter().map(|child| child.count).sum::<usize>();
                    node = &children[slot].node;
                }
            }
        }
    }

    /// All siblings, in order, from either end.
    pub(crate) const fn iter(&self) -> Iter<'_> {
        Iter { siblings: self, front: 0, back: self.count, ahead: (&[], 0), behind: (&[], 0) }
    }

    /// The leaf that holds the sibling at `index`, and the index of its first one.
    fn leaf_at(&self, index: usize) -> Option<(&[Sibling], usize)> {
        if index >= self.count {
            return None;
        }
        let mut first = 0;
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(siblings) => return Some((siblings, first)),
                Node::Inner(children) => {
                    let child = children.iter().find(|child| {
                        let is_here = index < first + child.count;
                        if !is_here {
                            first += child.count;
                        }
                        is_here
                    });
                    node = &child?.node;
                }
            }
        }
    }

    /// Panics if S1 to S3 do not hold.
    pub(crate) fn assert_invariants(&self) {
        let all: Vec<&Sibling> = self.iter().collect();
        assert!(all.is_sorted_by(|a, b| a < b), "S1");
        assert_eq!(all.len(), self.count, "S2: the whole");
        if let Node::Inner(children) = &self.root {
            assert!(children.len() > 1, "S3: a root with one child");
        }
        self.root.assert_depth();
    }
}

impl Child {
    fn of(node: Node) -> Self {
        Self { count: node.count(), node }
    }
}

impl Node {
    fn count(&self) -> usize {
        match self {
            Self::Leaf(siblings) => siblings.len(),
            Self::Inner(children) => children.iter().map(|child| child.count).sum(),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Leaf(siblings) => siblings.len(),
            Self::Inner(children) => children.len(),
        }
    }

    /// The smallest sibling below; a node in a tree is never empty.
    fn first(&self) -> Option<&Sibling> {
        let mut node = self;
        loop {
            match node {
                Self::Leaf(siblings) => return siblings.first(),
                Self::Inner(children) => node = &children.first()?.node,
            }
        }
    }

    /// Adds a sibling below, and returns whether it is new. May leave this node one over its size.
    fn insert(&mut self, sibling: Sibling) -> bool {
        match self {
            Self::Leaf(siblings) => match siblings.binary_search(&sibling) {
                Ok(_) => false,
                Err(at) => {
                    siblings.insert(at, sibling);
                    true
                }
            },
            Self::Inner(children) => {
                let slot = slot_for(children, &sibling);
                let child = &mut children[slot];
                let is_new = child.node.insert(sibling);
                if is_new {
                    child.count += 1;
                    if let Some(right) = child.node.split() {
                        let right = Child::of(right);
                        child.count -= right.count;
                        children.insert(slot + 1, right);
                    }
                }
                is_new
            }
        }
    }

    /// Removes a sibling below, and returns whether it was there.
    fn remove(&mut self, sibling: &Sibling) -> bool {
        match self {
            Self::Leaf(siblings) => match siblings.binary_search(sibling) {
                Ok(at) => {
                    siblings.remove(at);
                    true
                }
                Err(_) => false,
            },
            Self::Inner(children) => {
                let slot = slot_for(children, sibling);
                let was_here = children[slot].node.remove(sibling);
                if was_here {
                    children[slot].count -= 1;
                    mend(children, slot);
                }
                was_here
            }
        }
    }

    /// Cuts off the second half if the node is over its size.
    fn split(&mut self) -> Option<Self> {
        let middle = self.size() / 2;
        match self {
            Self::Leaf(siblings) if siblings.len() > NODE_SIZE => {
                Some(Self::Leaf(siblings.split_off(middle)))
            }
            Self::Inner(children) if children.len() > NODE_SIZE => {
                Some(Self::Inner(children.split_off(middle)))
            }
            _ => None,
        }
    }

    /// Takes in a node of the same depth that comes right after.
    fn join(&mut self, next: Self) {
        match (self, next) {
            (Self::Leaf(siblings), Self::Leaf(more)) => siblings.extend(more),
            (Self::Inner(children), Self::Inner(more)) => children.extend(more),
            _ => debug_assert!(false, "S3: neighbours are equally deep"),
        }
    }

    fn assert_depth(&self) -> usize {
        assert!(self.size() <= NODE_SIZE, "S3: a node over its size");
        let Self::Inner(children) = self else { return 0 };
        let mut depths = children.iter().map(|child| {
            assert!(child.node.size() > 0, "S3: an empty node");
            assert_eq!(child.count, child.node.count(), "S2");
            child.node.assert_depth()
        });
        let depth = depths.next().expect("S3: an inner node has children");
        assert!(depths.all(|other| other == depth), "S3: leaves of several depths");
        depth + 1
    }
}

/// The child below which `sibling` is or belongs.
fn slot_for(children: &[Child], sibling: &Sibling) -> usize {
    let after = children.partition_point(|child| child.node.first() <= Some(sibling));
    after.saturating_sub(1)
}

/// Joins a child that has become small with a neighbour, if both fit into one node.
fn mend(children: &mut Vec<Child>, slot: usize) {
    let size = children[slot].node.size();
    if size == 0 {
        children.remove(slot);
        return;
    }
    if size > NODE_SIZE_LOW {
        return;
    }
    let left = if slot > 0 { slot - 1 } else { slot };
    let Some(right) = children.get(left + 1) else { return };
    if children[left].node.size() + right.node.size() <= NODE_SIZE {
        let right = children.remove(left + 1);
        children[left].count += right.count;
        children[left].node.join(right.node);
    }
}

/// Siblings in order, from either end.
#[derive(Clone, Debug)]
pub(crate) struct Iter<'a> {
    siblings: &'a Siblings,
    front: usize,
    back: usize,
    /// The leaf at the front with the index of its first sibling, and the same at the back.
    ahead: (&'a [Sibling], usize),
    behind: (&'a [Sibling], usize),
}

impl<'a> Iter<'a> {
    fn at(
        siblings: &'a Siblings,
        leaf: &mut (&'a [Sibling], usize),
        index: usize,
    ) -> Option<&'a Sibling> {
        let is_here =
            |(leaf, first): &(&[Sibling], usize)| index >= *first && index - first < leaf.len();
        if !is_here(leaf) {
            *leaf = siblings.leaf_at(index)?;
        }
        leaf.0.get(index - leaf.1)
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Sibling;

    fn next(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        let index = self.front;
        self.front += 1;
        Self::at(self.siblings, &mut self.ahead, index)
    }

    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        self.front = self.front.saturating_add(n).min(self.back);
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.back - self.front;
        (len, Some(len))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        self.back -= 1;
        Self::at(self.siblings, &mut self.behind, self.back)
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn sibling(key: u8, id: u8) -> Sibling {
        (OrderKey::new(&[key.max(1)]).unwrap(), EntryId::from_bytes([id; 16]))
    }

    proptest! {
        #[test]
        fn siblings_agree_with_a_sorted_set(
            steps in prop::collection::vec((any::<bool>(), 0u8..60, 0u8..3), 0..300),
        ) {
            let (mut siblings, mut set) = (Siblings::new(), BTreeSet::new());
            for (insert, key, id) in steps {
                let one = sibling(key, id);
                if insert {
                    siblings.insert(one.clone());
                    set.insert(one);
                } else {
                    siblings.remove(&one);
                    set.remove(&one);
                }
                siblings.assert_invariants();
                prop_assert_eq!(siblings.len(), set.len());
            }
            prop_assert!(siblings.iter().eq(&set));
            prop_assert!(siblings.iter().rev().eq(set.iter().rev()));
            for (index, one) in set.iter().enumerate() {
                prop_assert_eq!(siblings.at(index), Some(one));
                prop_assert_eq!(siblings.index_of(one), Some(index));
            }
            prop_assert_eq!(siblings.at(set.len()), None);
            prop_assert_eq!(siblings.index_of(&sibling(200, 0)), None);
        }
    }

    #[test]
    fn an_iterator_meets_itself_in_the_middle() {
        let mut siblings = Siblings::new();
        (1..=9).for_each(|key| siblings.insert(sibling(key, 0)));
        let mut iter = siblings.iter();
        assert_eq!(iter.nth(3), Some(&sibling(4, 0)));
        assert_eq!(iter.next_back(), Some(&sibling(9, 0)));
        assert_eq!(iter.len(), 4);
        assert_eq!(
            iter.by_ref().rev().map(|(key, _)| key.as_bytes()[0]).collect::<Vec<_>>(),
            [8, 7, 6, 5]
        );
        assert_eq!((iter.next(), iter.next_back(), iter.nth(5)), (None, None, None));
    }
}
