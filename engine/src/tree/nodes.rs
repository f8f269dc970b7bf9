//! Which entry is inside which, by the moves that took effect.
//!
//! A *folder* is an entry that some move, effective or not, named as a container; all others are
//! leaves. Each container has two lists, so that its folders are found without looking at leaves.
//!
//! Invariants, checked by `assert_invariants`:
//! - F1. The lists of a container are exactly the entries whose `parent` it is, folders in the one,
//!   leaves in the other.
//! - F2. Whatever is a parent is a folder.

use crate::entries::EntryIx;
use crate::tree::moves::MoveIx;

/// What the tree of moves knows of an entry.
#[derive(Clone, Debug, Default)]
struct Node {
    placed: Option<MoveIx>,
    /// The container that `placed` names.
    parent: Option<EntryIx>,
    /// The newest move of the entry, while it is a leaf.
    newest: Option<MoveIx>,
    /// What is inside.
    first_folder: Option<EntryIx>,
    first_leaf: Option<EntryIx>,
    /// The neighbours in the list that the entry is in.
    next: Option<EntryIx>,
    previous: Option<EntryIx>,
    is_folder: bool,
    is_touched: bool,
}

/// The placements of all entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes(Vec<Node>);

impl Nodes {
    /// Makes room for an entry.
    pub(super) fn grow(&mut self, entry: EntryIx) {
        if entry.at() >= self.0.len() {
            self.0.resize_with(entry.at() + 1, Node::default);
        }
    }

    /// Puts an entry where a move says, or nowhere.
    pub(super) fn put(&mut self, entry: EntryIx, placed: Option<MoveIx>, parent: Option<EntryIx>) {
        self.0[entry.at()].placed = placed;
        if self.0[entry.at()].parent != parent {
            self.unlink(entry);
            self.0[entry.at()].parent = parent;
            self.link(entry);
        }
    }

    /// Notes that some move named the entry as a container, and returns whether that is new.
    pub(super) fn make_folder(&mut self, entry: EntryIx) -> bool {
        if self.0[entry.at()].is_folder {
            return false;
        }
        self.unlink(entry);
        self.0[entry.at()].is_folder = true;
        self.link(entry);
        true
    }

    pub(super) fn set_newest(&mut self, entry: EntryIx, newest: Option<MoveIx>) {
        self.0[entry.at()].newest = newest;
    }

    /// Sets a flag that only the caller gives a meaning, and returns what it was.
    pub(super) fn set_touched(&mut self, entry: EntryIx, is_touched: bool) -> bool {
        std::mem::replace(&mut self.0[entry.at()].is_touched, is_touched)
    }

    pub(super) fn placed(&self, entry: EntryIx) -> Option<MoveIx> {
        self.0.get(entry.at())?.placed
    }

    pub(super) fn newest(&self, entry: EntryIx) -> Option<MoveIx> {
        self.0.get(entry.at())?.newest
    }

    pub(super) fn is_folder(&self, entry: EntryIx) -> bool {
        self.0.get(entry.at()).is_some_and(|node| node.is_folder)
    }

    /// What is inside, in no particular order.
    pub(super) fn inside(&self, parent: EntryIx) -> impl Iterator<Item = EntryIx> + '_ {
        let node = self.0.get(parent.at());
        let lists = node.map_or([None, None], |node| [node.first_folder, node.first_leaf]);
        lists
            .into_iter()
            .flat_map(|first| std::iter::successors(first, |entry| self.0[entry.at()].next))
    }

    /// Whether `above` is `entry` or one of its ancestors.
    ///
    /// Looks up from the one and down from the other by turns: so it costs the depth, or what is
    /// inside, whichever is less.
    pub(super) fn is_at_or_above(&self, above: EntryIx, entry: EntryIx) -> bool {
        let mut up = Some(entry);
        let mut down = self.0.get(above.at()).and_then(|node| node.first_folder);
        loop {
            let Some(at) = up else { return false };
            if at == above {
                return true;
            }
            up = self.parent(at);
            let Some(inside) = down else { return up == Some(above) };
            if inside == entry {
                return true;
            }
            down = self.folder_after(inside, above);
        }
    }

    fn parent(&self, entry: EntryIx) -> Option<EntryIx> {
        self.0.get(entry.at())?.parent
    }

    /// The folder that comes next when all those inside `above` are visited.
    fn folder_after(&self, folder: EntryIx, above: EntryIx) -> Option<EntryIx> {
        let mut at = folder;
        if let Some(inside) = self.0[at.at()].first_folder {
            return Some(inside);
        }
        while at != above {
            let node = &self.0[at.at()];
            if let Some(next) = node.next {
                return Some(next);
            }
            at = node.parent?;
        }
        None
    }

    fn list_of(&mut self, parent: EntryIx, is_folder: bool) -> &mut Option<EntryIx> {
        let node = &mut self.0[parent.at()];
        if is_folder { &mut node.first_folder } else { &mut node.first_leaf }
    }

    fn link(&mut self, entry: EntryIx) {
        let Node { parent: Some(parent), is_folder, .. } = self.0[entry.at()] else { return };
        let next = self.list_of(parent, is_folder).replace(entry);
        if let Some(next) = next {
            self.0[next.at()].previous = Some(entry);
        }
        let node = &mut self.0[entry.at()];
        (node.previous, node.next) = (None, next);
    }

    fn unlink(&mut self, entry: EntryIx) {
        let Node { parent: Some(parent), is_folder, next, previous, .. } = self.0[entry.at()]
        else {
            return;
        };
        match previous {
            Some(previous) => self.0[previous.at()].next = next,
            None => *self.list_of(parent, is_folder) = next,
        }
        if let Some(next) = next {
            self.0[next.at()].previous = previous;
        }
    }

    /// The entries that have a place, each with its parent.
    pub(super) fn placements(&self) -> impl Iterator<Item = (EntryIx, EntryIx)> + '_ {
        let parents = self.0.iter().enumerate();
        parents.filter_map(|(at, node)| Some((EntryIx::new(at), node.parent?)))
    }

    /// Panics if F1 or F2 does not hold.
    pub(super) fn assert_invariants(&self) {
        let mut listed = 0;
        for parent in (0..self.0.len()).map(EntryIx::new) {
            let node = &self.0[parent.at()];
            let mut previous = None;
            for entry in self.inside(parent) {
                let child = &self.0[entry.at()];
                assert_eq!(child.parent, Some(parent), "F1: {entry:?}");
                let is_first = [node.first_folder, node.first_leaf].contains(&Some(entry));
                previous = previous.filter(|_| !is_first);
                assert_eq!(child.previous, previous, "F1: {entry:?}");
                let first = if child.is_folder { node.first_folder } else { node.first_leaf };
                assert!(!is_first || first == Some(entry), "F1: {entry:?} is in the other list");
                previous = Some(entry);
                listed += 1;
            }
            assert!(node.is_folder || self.inside(parent).next().is_none(), "F2: {parent:?}");
            assert!(!node.is_touched, "a flag is left over");
        }
        assert_eq!(listed, self.placements().count(), "F1: an entry is listed twice");
    }
}
