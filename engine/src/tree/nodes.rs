//! Which entry is inside which, by the moves that took effect.
//!
//! A *folder* is an entry that some move, effective or not, named as a container; all others are
//! leaves. Only folders are listed by what they are in: a leaf is above nothing. Listed folders have
//! records of their own, so that a walk among them touches nothing else, and so that a leaf takes
//! little room.
//!
//! Only moves of folders that hold others ask for the lists. Before enough of them there are neither
//! lists nor records, and afterwards a new folder is not listed at once: who creates or loads a large
//! tree makes none.
//!
//! Invariants, checked by `assert_invariants`:
//! - F1. The list of a container is exactly the folders in it that do not wait to be listed; those
//!   that wait are in no list.
//! - F2. Whatever is a parent is a folder, and a holder if that of a folder.
//! - F3. Once there are lists, each folder has a record of its own.
//! - F4. `newest` has exactly the leaves whose newest move is not what put them where they are.

use hashbrown::HashMap;

use crate::bits::Bits;
use crate::entries::EntryIx;
use crate::index::{dense_index, fill_tightly, push_tightly, trim};
use crate::tree::moves::{MoveIx, Moves};

dense_index! {
    /// Which folder among those that have records.
    FolderIx
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

// There is one for each folder.
const _: () = assert!(size_of::<Folder>() <= 16);

/// The placements of all entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    /// The move that put each entry where it is.
    placed: Vec<Option<MoveIx>>,
    /// The newest moves of leaves that are where another one put them: few.
    newest: HashMap<EntryIx, Option<MoveIx>>,
    /// The keys of `newest`.
    astray: Bits,
    /// Whether there are lists.
    is_listed: bool,
    /// How many steps searches have taken before there were lists.
    walked: usize,
    records: Vec<Folder>,
    /// Which record is that of an entry; of none before there are lists.
    record_of: Vec<Option<FolderIx>>,
    /// Folders that wait to be listed by what they are in.
    unlisted: Vec<EntryIx>,
    /// Whether an entry is a folder: every move asks this of two entries.
    folders: Bits,
    /// Whether a folder was ever in an entry: what holds none is above none.
    holders: Bits,
    /// A flag that only the caller gives a meaning.
    touched: Bits,
}

impl Nodes {
    /// Makes room for an entry.
    pub(super) fn grow(&mut self, entry: EntryIx) {
        fill_tightly(&mut self.placed, entry.at() + 1);
        self.folders.grow(entry.at() + 1);
        self.holders.grow(entry.at() + 1);
        self.touched.grow(entry.at() + 1);
        self.astray.grow(entry.at() + 1);
    }

    /// Makes room for so many more entries at once.
    pub(super) fn reserve(&mut self, entries: usize) {
        self.placed.reserve_exact(entries);
    }

    /// Gives back room that was made for more.
    pub(super) fn trim(&mut self) {
        trim(&mut self.placed);
        trim(&mut self.records);
        trim(&mut self.record_of);
    }

    /// Puts an entry where a move says, or nowhere. Of a leaf, its newest move is to be said next.
    pub(super) fn put(&mut self, entry: EntryIx, placed: Option<MoveIx>, moves: &Moves) {
        if !self.is_folder(entry) {
            self.placed[entry.at()] = placed;
            return;
        }
        let parent = placed.map(|ix| moves.pair(ix).1);
        if let Some(parent) = parent {
            self.holders.replace(parent, true);
        }
        if self.is_listed && self.parent(entry, moves) != parent {
            self.list_folders(moves);
            self.unlist(self.record(entry));
            self.placed[entry.at()] = placed;
            self.list(entry, moves);
        } else {
            self.placed[entry.at()] = placed;
        }
    }

    /// Notes that some move named the entry as a container. Returns whether that is new, with the
    /// newest move that the entry had as a leaf.
    pub(super) fn make_folder(&mut self, entry: EntryIx, moves: &Moves) -> Option<Option<MoveIx>> {
        if self.is_folder(entry) {
            return None;
        }
        let newest = self.newest(entry);
        self.set_newest(entry, self.placed(entry));
        self.folders.replace(entry, true);
        if let Some(parent) = self.parent(entry, moves) {
            self.holders.replace(parent, true);
        }
        if self.is_listed {
            self.add_record(entry);
        }
        Some(newest)
    }

    /// Gives a folder a record, and lets it wait to be listed.
    fn add_record(&mut self, folder: EntryIx) {
        push_tightly(&mut self.records, Folder::default());
        fill_tightly(&mut self.record_of, folder.at() + 1);
        self.record_of[folder.at()] = Some(FolderIx::new(self.records.len() - 1));
        if self.placed[folder.at()].is_some() {
            self.unlisted.push(folder);
        }
    }

    /// Says which move of a leaf is its newest.
    #[inline]
    pub(super) fn set_newest(&mut self, leaf: EntryIx, newest: Option<MoveIx>) {
        let is_astray = newest != self.placed(leaf);
        if self.astray.replace(leaf, is_astray) || is_astray {
            if is_astray {
                self.newest.insert(leaf, newest);
            } else {
                self.newest.remove(&leaf);
            }
        }
    }

    /// Sets a flag that only the caller gives a meaning, and returns what it was.
    pub(super) fn set_touched(&mut self, entry: EntryIx, is_touched: bool) -> bool {
        self.touched.replace(entry, is_touched)
    }

    pub(super) fn placed(&self, entry: EntryIx) -> Option<MoveIx> {
        self.placed.get(entry.at()).copied().flatten()
    }

    /// The newest move of an entry, while it is a leaf.
    #[inline]
    pub(super) fn newest(&self, entry: EntryIx) -> Option<MoveIx> {
        if self.is_folder(entry) {
            return None;
        }
        let is_astray = self.astray.get(entry);
        if is_astray { self.newest.get(&entry).copied().flatten() } else { self.placed(entry) }
    }

    pub(super) fn is_folder(&self, entry: EntryIx) -> bool {
        self.folders.get(entry)
    }

    /// Whether a folder was ever in an entry.
    fn is_holder(&self, entry: EntryIx) -> bool {
        self.holders.get(entry)
    }

    /// Whether `above` is `entry` or one of its ancestors, for a move that is about to take effect.
    ///
    /// The lists are made once searches without them have cost about as much as that will.
    pub(super) fn find_above(&mut self, above: EntryIx, entry: EntryIx, moves: &Moves) -> bool {
        if self.is_listed && self.is_holder(above) {
            self.list_folders(moves);
        }
        let (is_above, steps) = self.search(above, entry, moves);
        self.walked += steps;
        if !self.is_listed && self.walked > self.placed.len() {
            self.list_folders(moves);
        }
        is_above
    }

    /// Whether `above` is `entry` or one of its ancestors.
    pub(super) fn is_at_or_above(&self, above: EntryIx, entry: EntryIx, moves: &Moves) -> bool {
        self.search(above, entry, moves).0
    }

    /// The same, and how many steps it took without lists.
    ///
    /// Looks up from the one and down from the other by turns: so it costs the depth, or what is
    /// inside, whichever is less; but only the depth while folders wait to be listed.
    fn search(&self, above: EntryIx, entry: EntryIx, moves: &Moves) -> (bool, usize) {
        if above == entry || !self.is_folder(above) {
            return (above == entry, 0);
        }
        let container = if self.is_folder(entry) { Some(entry) } else { self.parent(entry, moves) };
        if container == Some(above) || !self.is_holder(above) {
            return (container == Some(above), 0);
        }
        if !self.is_listed || !self.unlisted.is_empty() {
            let (mut up, mut steps) = (container, 0);
            while let Some(at) = up.filter(|at| *at != above) {
                (up, steps) = (self.parent(at, moves), steps + 1);
            }
            return (up.is_some(), steps);
        }
        let (above, mut up) = (self.record(above), container.map(|at| self.record(at)));
        let below = up;
        let mut down = self.records[above.at()].first;
        loop {
            let Some(at) = up else { return (false, 0) };
            if at == above {
                return (true, 0);
            }
            up = self.records[at.at()].parent;
            let Some(inside) = down else { return (false, 0) };
            if Some(inside) == below {
                return (true, 0);
            }
            down = self.folder_after(inside, above);
        }
    }

    /// Lists the folders that wait for it, which is all of them at first.
    fn list_folders(&mut self, moves: &Moves) {
        if !self.is_listed {
            self.is_listed = true;
            let folders = (0..self.placed.len()).map(EntryIx::new);
            for folder in folders.filter(|entry| self.folders.get(*entry)).collect::<Vec<_>>() {
                self.add_record(folder);
            }
        }
        for entry in std::mem::take(&mut self.unlisted) {
            self.list(entry, moves);
        }
    }

    fn parent(&self, entry: EntryIx, moves: &Moves) -> Option<EntryIx> {
        Some(moves.pair(self.placed(entry)?).1)
    }

    fn record(&self, folder: EntryIx) -> FolderIx {
        self.record_of[folder.at()].expect("F3: a folder has a record")
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

    fn list(&mut self, folder: EntryIx, moves: &Moves) {
        let parent = self.parent(folder, moves).map(|parent| self.record(parent));
        let Some(parent) = parent else { return };
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
    pub(super) fn placements<'a>(
        &'a self,
        moves: &'a Moves,
    ) -> impl Iterator<Item = (EntryIx, EntryIx)> + 'a {
        let entries = (0..self.placed.len()).map(EntryIx::new);
        entries.filter_map(|entry| Some((entry, self.parent(entry, moves)?)))
    }

    /// Panics if F1 to F4 do not hold.
    pub(super) fn assert_invariants(&self, moves: &Moves) {
        let all = || (0..self.placed.len()).map(EntryIx::new);
        let folders: Vec<EntryIx> = all().filter(|entry| self.is_folder(*entry)).collect();
        for (entry, parent) in self.placements(moves) {
            assert!(self.is_folder(parent), "F2: {parent:?}");
            assert!(self.is_holder(parent) || !self.is_folder(entry), "F2: {parent:?}");
        }
        assert!(all().all(|entry| !self.touched.get(entry)), "a flag is left over");
        assert_eq!(all().filter(|entry| self.astray.get(*entry)).count(), self.newest.len(), "F4");
        for (entry, newest) in &self.newest {
            assert!(self.astray.get(*entry) && !self.is_folder(*entry), "F4: {entry:?}");
            assert_ne!(*newest, self.placed(*entry), "F4: {entry:?}");
        }
        if !self.is_listed {
            assert!(self.records.is_empty() && self.unlisted.is_empty(), "F1");
            return assert!(self.record_of.is_empty(), "F3");
        }
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
            let parent = self.parent(*folder, moves).filter(|_| !waits);
            let record = &self.records[self.record(*folder).at()];
            assert_eq!(record.parent, parent.map(|parent| self.record(parent)), "F1: {folder:?}");
            expected += usize::from(parent.is_some());
        }
        assert_eq!(listed, expected, "F1: a folder is not listed, or twice");
    }
}
