//! Which entry is inside which, by the moves that took effect.
//!
//! A *folder* is an entry that some move, effective or not, named as a container; all others are
//! leaves. Only folders are listed by what they are in: a leaf is above nothing.
//!
//! Invariants, checked by `assert_invariants`:
//! - F1. The list of a container is exactly the folders whose `parent` it is.
//! - F2. Whatever is a parent is a folder.

use crate::entries::EntryIx;
use crate::index::fill_tightly;
use crate::tree::moves::MoveIx;

/// What the tree of moves knows of an entry.
#[derive(Clone, Debug, Default)]
struct Node {
    placed: Option<MoveIx>,
    /// The container that `placed` names.
    parent: Option<EntryIx>,
    /// The newest move of the entry, while it is a leaf.
    newest: Option<MoveIx>,
    /// The folders inside.
    first_folder: Option<EntryIx>,
    /// The neighbours of a folder among those in the same container.
    next: Option<EntryIx>,
    previous: Option<EntryIx>,
    is_touched: bool,
}

// There is one for each entry.
const _: () = assert!(size_of::<Node>() <= 28);

const BITS: usize = u64::BITS as usize;

/// The placements of all entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    /// A bit for each entry: whether it is a folder. Every move asks this of two entries, and all
    /// the bits of a large tree stay at hand.
    folders: Vec<u64>,
}

impl Nodes {
    /// Makes room for an entry.
    pub(super) fn grow(&mut self, entry: EntryIx) {
        fill_tightly(&mut self.nodes, entry.at() + 1);
        fill_tightly(&mut self.folders, entry.at() / BITS + 1);
    }

    /// Puts an entry where a move says, or nowhere.
    pub(super) fn put(&mut self, entry: EntryIx, placed: Option<MoveIx>, parent: Option<EntryIx>) {
        let is_folder = self.is_folder(entry);
        let node = &mut self.nodes[entry.at()];
        node.placed = placed;
        if !is_folder {
            node.parent = parent;
        } else if node.parent != parent {
            self.unlink(entry);
            self.nodes[entry.at()].parent = parent;
            self.link(entry);
        }
    }

    /// Notes that some move named the entry as a container, and returns whether that is new.
    pub(super) fn make_folder(&mut self, entry: EntryIx) -> bool {
        if self.is_folder(entry) {
            return false;
        }
        self.folders[entry.at() / BITS] |= 1 << (entry.at() % BITS);
        self.link(entry);
        true
    }

    pub(super) fn set_newest(&mut self, entry: EntryIx, newest: Option<MoveIx>) {
        self.nodes[entry.at()].newest = newest;
    }

    /// Sets a flag that only the caller gives a meaning, and returns what it was.
    pub(super) fn set_touched(&mut self, entry: EntryIx, is_touched: bool) -> bool {
        std::mem::replace(&mut self.nodes[entry.at()].is_touched, is_touched)
    }

    pub(super) fn placed(&self, entry: EntryIx) -> Option<MoveIx> {
        self.nodes.get(entry.at())?.placed
    }

    pub(super) fn newest(&self, entry: EntryIx) -> Option<MoveIx> {
        self.nodes.get(entry.at())?.newest
    }

    pub(super) fn is_folder(&self, entry: EntryIx) -> bool {
        let bits = self.folders.get(entry.at() / BITS);
        bits.is_some_and(|bits| bits >> (entry.at() % BITS) & 1 == 1)
    }

    /// Whether `above` is `entry` or one of its ancestors.
    ///
    /// Looks up from the one and down from the other by turns: so it costs the depth, or what is
    /// inside, whichever is less.
    pub(super) fn is_at_or_above(&self, above: EntryIx, entry: EntryIx) -> bool {
        if !self.is_folder(above) {
            return above == entry;
        }
        let mut up = Some(entry);
        let mut down = self.nodes.get(above.at()).and_then(|node| node.first_folder);
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
        self.nodes.get(entry.at())?.parent
    }

    /// The folder that comes next when all those inside `above` are visited.
    fn folder_after(&self, folder: EntryIx, above: EntryIx) -> Option<EntryIx> {
        let mut at = folder;
        if let Some(inside) = self.nodes[at.at()].first_folder {
            return Some(inside);
        }
        while at != above {
            let node = &self.nodes[at.at()];
            if let Some(next) = node.next {
                return Some(next);
            }
            at = node.parent?;
        }
        None
    }

    fn link(&mut self, entry: EntryIx) {
        let Some(parent) = self.nodes[entry.at()].parent else { return };
        let next = self.nodes[parent.at()].first_folder.replace(entry);
        if let Some(next) = next {
            self.nodes[next.at()].previous = Some(entry);
        }
        let node = &mut self.nodes[entry.at()];
        (node.previous, node.next) = (None, next);
    }

    fn unlink(&mut self, entry: EntryIx) {
        let Node { parent: Some(parent), next, previous, .. } = self.nodes[entry.at()] else {
            return;
        };
        match previous {
            Some(previous) => self.nodes[previous.at()].next = next,
            None => self.nodes[parent.at()].first_folder = next,
        }
        if let Some(next) = next {
            self.nodes[next.at()].previous = previous;
        }
    }

    /// The entries that have a place, each with its parent.
    pub(super) fn placements(&self) -> impl Iterator<Item = (EntryIx, EntryIx)> + '_ {
        let parents = self.nodes.iter().enumerate();
        parents.filter_map(|(at, node)| Some((EntryIx::new(at), node.parent?)))
    }

    /// Panics if F1 or F2 does not hold.
    pub(super) fn assert_invariants(&self) {
        let mut listed = 0;
        for parent in (0..self.nodes.len()).map(EntryIx::new) {
            let (mut previous, mut next) = (None, self.nodes[parent.at()].first_folder);
            while let Some(entry) = next {
                let node = &self.nodes[entry.at()];
                assert!(self.is_folder(entry) && node.parent == Some(parent), "F1: {entry:?}");
                assert_eq!(node.previous, previous, "F1: {entry:?}");
                (previous, next) = (Some(entry), node.next);
                listed += 1;
            }
            assert!(!self.nodes[parent.at()].is_touched, "a flag is left over");
        }
        let folders = self.placements().filter(|(entry, _)| self.is_folder(*entry));
        assert_eq!(listed, folders.count(), "F1: a folder is not listed, or twice");
        assert!(self.placements().all(|(_, parent)| self.is_folder(parent)), "F2");
    }
}
