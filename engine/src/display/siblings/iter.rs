//! A walk along siblings, from either end.

use super::{NodeIx, Sibling, Siblings, Slot};

/// The siblings of a leaf, with the index of the first.
type Leaf<'a> = (&'a [Slot], usize);

/// Siblings in order, from either end.
#[derive(Clone, Debug)]
pub(crate) struct Iter<'a, T> {
    siblings: &'a Siblings<T>,
    root: Option<NodeIx>,
    front: usize,
    back: usize,
    /// The leaf at the front, and that at the back.
    ahead: Leaf<'a>,
    behind: Leaf<'a>,
}

impl<'a, T: Copy + Default> Iter<'a, T> {
    /// The siblings below `root`.
    pub(super) fn new(siblings: &'a Siblings<T>, root: Option<NodeIx>) -> Self {
        let back = root.map_or(0, |root| siblings.count(root));
        Self { siblings, root, front: 0, back, ahead: (&[], 0), behind: (&[], 0) }
    }

    fn at(&self, mut leaf: Leaf<'a>, index: usize) -> Option<(Sibling, Leaf<'a>)> {
        if index < leaf.1 || index - leaf.1 >= leaf.0.len() {
            leaf = self.siblings.leaf_at(self.root?, index)?;
        }
        let slot = leaf.0.get(index - leaf.1)?;
        Some((slot.sibling(), leaf))
    }
}

impl<T: Copy + Default> Iterator for Iter<'_, T> {
    type Item = Sibling;

    fn next(&mut self) -> Option<Sibling> {
        if self.front >= self.back {
            return None;
        }
        let (sibling, leaf) = self.at(self.ahead, self.front)?;
        self.front += 1;
        self.ahead = leaf;
        Some(sibling)
    }

    fn nth(&mut self, n: usize) -> Option<Sibling> {
        self.front = self.front.saturating_add(n).min(self.back);
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.back - self.front;
        (len, Some(len))
    }
}

impl<T: Copy + Default> DoubleEndedIterator for Iter<'_, T> {
    fn next_back(&mut self) -> Option<Sibling> {
        if self.front >= self.back {
            return None;
        }
        let (sibling, leaf) = self.at(self.behind, self.back - 1)?;
        self.back -= 1;
        self.behind = leaf;
        Some(sibling)
    }
}

impl<T: Copy + Default> ExactSizeIterator for Iter<'_, T> {}
