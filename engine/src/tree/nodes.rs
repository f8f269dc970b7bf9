//! Which entry is inside which, by the moves that took effect.
//!
//! A *folder* is an entry that some move, effective or not, named as a container; all others are
//! leaves. Only folders are listed by what they are in: a leaf is above nothing. Folders have records
//! of their own, in the order in which they became folders, so that a walk among them touches
//! nothing else, and so that a leaf takes little room.
//!
//! A new folder is not listed at once: only moves of folders ask for the lists, and who creates a
//! large tree makes none.
//!
//! Invariants, checked by `assert_invariants`:
//! - F1. The list of a container is exactly the folders in it that do not wait to be listed; those
//!   that wait are in no list.
//! - F2. Whatever is a parent is a folder.
//! - F3. `more` is the number of an entry's record if it is a folder.

use crate::entries::EntryIx;
use crate::index::{dense_index, fill_tightly, push_tightly, trim};
use crate::tree::moves::MoveIx;

dense_index! {
    /// Which folder, in the order in which entries became folders.
    FolderIx
}

/// What the tree of moves knows of an entry.
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    placed: Option<MoveIx>,
    /// The container that `placed` names.
    parent: Option<EntryIx>,
    /// The newest move of a leaf, or zero; the record of a folder (F3).
    more: u32,
}

/// The neighbours of a folder among folders.
#[derive(Clone, Copy, Debug, Default)]
struct Folder {
    parent: Option<FolderIx>,
    /// The first of the folders inside.
    first: Option<FolderIx>,
    /// The neighbours among those in the same container.
    next: Option<FolderIx>,
    previous: Option<FolderIx>,
}

// There is one for each entry, and one for each folder.
const _: () = assert!(size_of::<Node>() <= 12 && size_of::<Folder>() <= 16);

const BITS: usize = u64::BITS as usize;

/// A bit for each entry. All the bits of a large tree stay at hand.
#[derive(Clone, Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn grow(&mut self, len: usize) {
        fill_tightly(&mut self.0, len.div_ceil(BITS));
    }

    fn get(&self, entry: EntryIx) -> bool {
        let bits = self.0.get(entry.at() / BITS);
        bits.is_some_and(|bits| bits >> (entry.at() % BITS) & 1 == 1)
    }

    /// Sets a bit, and returns what it was.
    fn replace(&mut self, entry: EntryIx, is_set: bool) -> bool {
        let (bits, mask) = (&mut self.0[entry.at() / BITS], 1 << (entry.at() % BITS));
        let was_set = *bits & mask != 0;
        *bits = if is_set { *bits | mask } else { *bits & !mask };
        was_set
    }
}

/// The placements of all entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    records: Vec<Folder>,
    /// Folders that wait to be listed by what they are in.
    unlisted: Vec<EntryIx>,
    /// Whether an entry is a folder: every move asks this of two entries.
    folders: Bits,
    /// A flag that only the caller gives a meaning.
    touched: Bits,
}

impl Nodes {
    /// Makes room for an entry.
    pub(super) fn grow(&mut self, entry: EntryIx) {
        fill_tightly(&mut self.nodes, entry.at() + 1);
        self.folders.grow(entry.at() + 1);
        self.touched.grow(entry.at() + 1);
    }

    /// Makes room for so many more entries at once.
    pub(super) fn reserve(&mut self, entries: usize) {
        self.nodes.reserve_exact(entries);
    }

    /// Gives back room that was made for more.
    pub(super) fn trim(&mut self) {
        trim(&mut self.nodes);
        trim(&mut self.records);
    }

    /// Puts an entry where a move says, or nowhere.
    pub(super) fn put(&mut self, entry: EntryIx, placed: Option<MoveIx>, parent: Option<EntryIx>) {
        let is_folder = self.is_folder(entry);
        let node = &mut self.nodes[entry.at()];
        node.placed = placed;
        if !is_folder {
            node.parent = parent;
        } else if node.parent != parent {
            self.list_folders();
            self.unlist(self.record(entry));
            self.nodes[entry.at()].parent = parent;
            self.list(entry);
        }
    }

    /// Notes that some move named the entry as a container. Returns whether that is new, with the
    /// newest move that the entry had as a leaf.
    pub(super) fn make_folder(&mut self, entry: EntryIx) -> Option<Option<MoveIx>> {
        if self.folders.replace(entry, true) {
            return None;
        }
        push_tightly(&mut self.records, Folder::default());
        let record = FolderIx::new(self.records.len() - 1);
        let node = &mut self.nodes[entry.at()];
        let newest = std::mem::replace(&mut node.more, record.raw());
        if node.parent.is_some() {
            self.unlisted.push(entry);
        }
        Some(MoveIx::from_raw(newest))
    }

    /// Says which move of a leaf is its newest.
    pub(super) fn set_newest(&mut self, leaf: EntryIx, newest: Option<MoveIx>) {
        self.nodes[leaf.at()].more = newest.map_or(0, MoveIx::raw);
    }

    /// Sets a flag that only the caller gives a meaning, and returns what it was.
    pub(super) fn set_touched(&mut self, entry: EntryIx, is_touched: bool) -> bool {
        self.touched.replace(entry, is_touched)
    }

    pub(super) fn placed(&self, entry: EntryIx) -> Option<MoveIx> {
        self.nodes.get(entry.at())?.placed
    }

    /// The newest move of an entry, while it is a leaf.
    pub(super) fn newest(&self, entry: EntryIx) -> Option<MoveIx> {
        let node = self.nodes.get(entry.at())?;
        if self.is_folder(entry) { None } else { MoveIx::from_raw(node.more) }
    }

    pub(super) fn is_folder(&self, entry: EntryIx) -> bool {
        self.folders.get(entry)
    }

    /// Whether `above` is `entry` or one of its ancestors.
    ///
    /// Looks up from the one and down from the other by turns: so it costs the depth, or what is
    /// inside, whichever is less; but only the depth while folders wait to be listed.
    pub(super) fn is_at_or_above(&self, above: EntryIx, entry: EntryIx) -> bool {
        if above == entry || !self.is_folder(above) {
            return above == entry;
        }
        if !self.unlisted.is_empty() {
            return std::iter::successors(Some(entry), |at| self.parent(*at)).any(|at| at == above);
        }
        let container = if self.is_folder(entry) { Some(entry) } else { self.parent(entry) };
        let (above, mut up) = (self.record(above), container.map(|at| self.record(at)));
        let below = up;
        let mut down = self.records[above.at()].first;
        loop {
            let Some(at) = up else { return false };
            if at == above {
                return true;
            }
            up = self.records[at.at()].parent;
            let Some(inside) = down else { return false };
            if Some(inside) == below {
                return true;
            }
            down = self.folder_after(inside, above);
        }
    }

    /// Lists the folders that wait for it.
    pub(super) fn list_folders(&mut self) {
        for entry in std::mem::take(&mut self.unlisted) {
            self.list(entry);
        }
    }

    fn parent(&self, entry: EntryIx) -> Option<EntryIx> {
        self.nodes.get(entry.at())?.parent
    }

    fn record(&self, folder: EntryIx) -> FolderIx {
        FolderIx::from_raw(self.nodes[folder.at()].more).expect("F3: a folder has a record")
    }

    /// The folder that comes next when all those inside `above` are visited.
    fn folder_after(&self, folder: FolderIx, above: FolderIx) -> Option<FolderIx> {
        let mut at = folder;
        if let Some(inside) = self.records[at.at()].first {
            return Some(inside);
        }
        while at != above {
            let record = &self.records[at.at()];
            if let Some(next) = record.next {
                return Some(next);
            }
            at = record.parent?;
        }
        None
    }

    fn list(&mut self, folder: EntryIx) {
        let Some(parent) = self.parent(folder).map(|parent| self.record(parent)) else { return };
        let record = self.record(folder);
        let next = self.records[parent.at()].first.replace(record);
        if let Some(next) = next {
            self.records[next.at()].previous = Some(record);
        }
        let folder = &mut self.records[record.at()];
        (folder.parent, folder.previous, folder.next) = (Some(parent), None, next);
    }

    fn unlist(&mut self, folder: FolderIx) {
        let record = &mut self.records[folder.at()];
        let Folder { next, previous, .. } = *record;
        let Some(parent) = record.parent.take() else { return };
        match previous {
            Some(previous) => self.records[previous.at()].next = next,
            None => self.records[parent.at()].first = next,
        }
        if let Some(next) = next {
            self.records[next.at()].previous = previous;
        }
    }

    /// The entries that have a place, each with its parent.
    pub(super) fn placements(&self) -> impl Iterator<Item = (EntryIx, EntryIx)> + '_ {
        let parents = self.nodes.iter().enumerate();
        parents.filter_map(|(at, node)| Some((EntryIx::new(at), node.parent?)))
    }

    /// Panics if F1 to F3 do not hold.
    pub(super) fn assert_invariants(&self) {
        let all = || (0..self.nodes.len()).map(EntryIx::new);
        let folders: Vec<EntryIx> = all().filter(|entry| self.is_folder(*entry)).collect();
        assert_eq!(folders.len(), self.records.len(), "F3");
        let mut seen = vec![false; self.records.len()];
        for folder in &folders {
            let is_new = !std::mem::replace(&mut seen[self.record(*folder).at()], true);
            assert!(is_new, "F3: {folder:?} shares a record");
        }
        let mut listed = 0;
        for parent in folders.iter().map(|folder| self.record(*folder)) {
            let (mut previous, mut next) = (None, self.records[parent.at()].first);
            while let Some(at) = next {
                let record = &self.records[at.at()];
                assert_eq!((record.parent, record.previous), (Some(parent), previous), "F1");
                (previous, next) = (Some(at), record.next);
                listed += 1;
            }
        }
        let mut expected = 0;
        for folder in &folders {
            let waits = self.unlisted.contains(folder);
            let parent = self.parent(*folder).filter(|_| !waits);
            let record = &self.records[self.record(*folder).at()];
            assert_eq!(record.parent, parent.map(|parent| self.record(parent)), "F1: {folder:?}");
            expected += usize::from(parent.is_some());
        }
        assert_eq!(listed, expected, "F1: a folder is not listed, or twice");
        assert!(all().all(|entry| !self.touched.get(entry)), "a flag is left over");
        assert!(self.placements().all(|(_, parent)| self.is_folder(parent)), "F2");
    }
}
