//! Whose child every entry is, on every replica alike.
//!
//! Moves take effect in stamp order; a late one undoes the newer ones, takes effect, and redoes them
//! (Kleppmann, Mulligan, Gomes, Beresford 2022, "A highly-available move operation for replicated
//! trees", section 3). Simpler (last move wins, no redo) was rejected: concurrent moves can then
//! form a cycle. A batch of moves undoes and redoes once.
//!
//! An entry that no move ever named as a container is a leaf: whether its moves take effect depends on
//! itself alone, and no other move depends on them. So a late move of a leaf replays that entry's moves
//! and nothing else, and a late move of a folder undoes and redoes moves of folders alone. "Has no
//! children now" would not do: a move without effect may get one when an older move arrives.
//!
//! Dead entries stay in the tree as hidden nodes: forgetting their moves makes replicas diverge.
//!
//! Invariants, checked by `assert_invariants`:
//! - T1. Following parents from any entry ends: at Root, or at an entry that was never placed.
//! - T2. Each move remembers the placement that was there before it, if it took effect.
//! - T3. The moves of a leaf hang together from its newest one, in order; those of a folder are in the
//!   folders' log. Every parent of a move is a folder.
//!
//! Cost: a move is O(1) for an entry with no folder inside, and for any other the depth of the target
//! or the number of folders inside, whichever is less; the depth alone until that has cost as many
//! steps as there are entries, and once a walk over all entries then. A late one adds an undo and a redo of
//! each newer move in the folders' log; that of a leaf, of each newer move of the same entry.
//! Not here: who is shown where (`display`), which keys siblings get (`edit`).

mod births;
mod folder_log;
mod moves;
mod nodes;
mod order_key;

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::entries::{Entries, EntryIx};
use crate::id::{EntryId, Life, Stamp, Timestamp};
use folder_log::FolderLog;
pub(crate) use moves::MoveIx;
use moves::{Move, Moves};
use nodes::Nodes;
pub use order_key::OrderKey;
pub(crate) use order_key::{SPREAD_HEAD_MAX, rescued_key};

/// Where an entry was put: one unit, so that a container and a place in it never mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement<'a> {
    pub(crate) parent: EntryIx,
    pub(crate) key: &'a [u8],
    /// The life of the entry in which it was put there.
    pub(crate) life: Life,
    /// The op that put it there; none for a system entry that nobody has reordered.
    pub(crate) stamp: Option<Stamp>,
    /// When it was deleted, if this is a place in Trash.
    pub(crate) trashed_at: Option<Timestamp>,
}

/// How an op changes placements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MoveKind {
    /// Into a container, most likely as the entry's first place.
    Creation,
    /// Into a container, from wherever the entry was.
    Into { trashed_at: Option<Timestamp> },
    /// Another place in the same container.
    Within,
}

/// A creation, move or reordering.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MoveOp<'a> {
    pub(crate) entry: EntryIx,
    pub(crate) life: Life,
    pub(crate) parent: EntryIx,
    pub(crate) key: &'a OrderKey,
    pub(crate) kind: MoveKind,
}

/// An entry that a batch may have moved, with the placement and time of deletion from before.
type Touched = (EntryIx, Option<MoveIx>, Option<Timestamp>);

/// Room for so many touched entries is kept from batch to batch.
const TOUCHED_KEPT: usize = 64;

/// The placements of all entries, dead ones included, and the moves that gave them.
#[derive(Clone, Debug)]
pub(crate) struct MoveTree {
    moves: Moves,
    nodes: Nodes,
    log: FolderLog,
    touched: Vec<Touched>,
}

impl MoveTree {
    /// The tree of an empty store: Trash and Lost and Found in Root.
    pub(crate) fn new() -> Self {
        let (moves, nodes, log) = (Moves::default(), Nodes::default(), FolderLog::default());
        let mut tree = Self { moves, nodes, log, touched: Vec::new() };
        tree.nodes.grow(EntryIx::LOST_AND_FOUND);
        tree.nodes.make_folder(EntryIx::ROOT, &tree.moves);
        let known =
            [(EntryIx::TRASH, EntryId::TRASH), (EntryIx::LOST_AND_FOUND, EntryId::LOST_AND_FOUND)];
        for (entry, id) in known {
            let placed = tree.moves.push_well_known(entry, id);
            tree.nodes.put(entry, Some(placed), &tree.moves);
            tree.nodes.set_newest(entry, None);
        }
        tree
    }

    /// Makes room for so many more entries at once, of which each was mostly moved once.
    pub(crate) fn reserve(&mut self, entries: usize) {
        self.nodes.reserve(entries);
        self.moves.reserve(entries);
    }

    /// Gives back room that was made for more.
    pub(crate) fn trim(&mut self) {
        self.nodes.trim();
        self.moves.trim();
        self.log.trim();
    }

    /// Takes a move in. It takes no effect before [`MoveTree::integrate`] is told so.
    pub(crate) fn record(&mut self, stamp: Stamp, op: &MoveOp<'_>) -> MoveIx {
        self.nodes.grow(op.entry.max(op.parent));
        self.moves.push(stamp, op)
    }

    /// Lets recorded moves take effect, each at its turn in stamp order, and adds the entries whose
    /// placement is another afterwards to `changed`. `known` hears which time of deletion each had.
    pub(crate) fn integrate(
        &mut self,
        moves: &mut [MoveIx],
        changed: &mut SmallVec<[EntryIx; 8]>,
        mut known: impl FnMut(EntryIx, Option<Timestamp>),
    ) {
        if !moves.is_sorted_by_key(|ix| self.moves.turn(*ix)) {
            moves.sort_unstable_by_key(|ix| self.moves.turn(*ix));
        }
        for ix in moves.iter() {
            self.name_folder(self.parent(*ix));
        }
        let (mut of_folders, mut late) = (SmallVec::<[MoveIx; 4]>::new(), Vec::new());
        for ix in moves.iter().copied() {
            let entry = self.entry(ix);
            self.touch(entry);
            if self.nodes.is_folder(entry) {
                of_folders.push(ix);
            } else if self.is_older(self.nodes.newest(entry), ix) {
                self.append_to_leaf(ix);
            } else {
                late.push(ix);
            }
        }
        self.insert_into_leaves(late);
        self.insert_into_log(&of_folders);
        let mut touched = std::mem::take(&mut self.touched);
        for (entry, placed, time) in touched.drain(..) {
            self.nodes.set_touched(entry, false);
            if (placed, time) != self.placement_with_time(entry) {
                known(entry, time);
                changed.push(entry);
            }
        }
        // A load touches every entry, and is mostly the last batch to do so.
        touched.shrink_to(TOUCHED_KEPT);
        self.touched = touched;
    }

    /// The entries with a move at or after `stamp`, if all those moves arrived after all others.
    pub(crate) fn moved_from(&self, stamp: Stamp) -> SmallVec<[EntryIx; 8]> {
        self.moves.from(stamp).map(|ix| self.entry(ix)).collect()
    }

    /// Takes back every move at or after `stamp`, as if it had never been. All of them must have
    /// arrived after all others.
    pub(crate) fn remove_from(&mut self, stamp: Stamp) {
        let newest_first: Vec<MoveIx> = self.moves.from(stamp).collect();
        for last in newest_first {
            self.undo(last);
            let Move { entry, older, .. } = self.moves.get(last);
            if !self.nodes.is_folder(entry) {
                self.nodes.set_newest(entry, older);
            }
            self.moves.pop(last);
        }
        self.log.retain(&self.moves);
    }

    /// The move that put `entry` where it is.
    pub(crate) fn placed(&self, entry: EntryIx) -> Option<MoveIx> {
        self.nodes.placed(entry)
    }

    /// The move that had put `entry` where it was before the moves from `stamp` on, which are the newest.
    pub(crate) fn placed_before(&self, entry: EntryIx, stamp: Stamp) -> Option<MoveIx> {
        self.placings(entry).find(|ix| self.moves.turn(*ix) < stamp)
    }

    /// The moves that `entry` was placed by, each before the one that it replaced.
    pub(crate) fn placings(&self, entry: EntryIx) -> impl Iterator<Item = MoveIx> + '_ {
        std::iter::successors(self.nodes.placed(entry), |ix| self.moves.get(*ix).replaced)
    }

    /// Where `entry` was put last, by the moves that took effect.
    pub(crate) fn placement(&self, entry: EntryIx) -> Option<Placement<'_>> {
        let ix = self.nodes.placed(entry)?;
        let one = self.moves.get(ix);
        let (stamp, trashed_at) = (self.moves.stamp(ix), self.moves.time(ix));
        Some(Placement {
            parent: one.parent,
            key: self.moves.key(ix),
            life: one.life,
            stamp,
            trashed_at,
        })
    }

    /// The order key of a move.
    pub(crate) fn key(&self, ix: MoveIx) -> &[u8] {
        self.moves.key(ix)
    }

    /// When a move came; none for the place that a system entry has before anybody reorders it.
    pub(crate) fn stamp(&self, ix: MoveIx) -> Option<Stamp> {
        self.moves.stamp(ix)
    }

    /// Every move, with its entry, but for the places that system entries have from the start.
    pub(crate) fn moves(&self) -> impl Iterator<Item = (MoveIx, EntryIx, Stamp)> {
        self.moves.iter().filter_map(|ix| Some((ix, self.entry(ix), self.moves.stamp(ix)?)))
    }

    /// Whether a move only reorders.
    pub(crate) fn is_within(&self, ix: MoveIx) -> bool {
        self.moves.is_within(ix)
    }

    /// The time of deletion that goes with the placement that a move gives.
    pub(crate) fn time(&self, ix: MoveIx) -> Option<Timestamp> {
        self.moves.time(ix)
    }

    /// The entry that a move is about.
    pub(crate) fn entry(&self, ix: MoveIx) -> EntryIx {
        self.moves.pair(ix).0
    }

    /// The container that a move names.
    fn parent(&self, ix: MoveIx) -> EntryIx {
        self.moves.pair(ix).1
    }

    /// Container and life of a move.
    pub(crate) fn target(&self, ix: MoveIx) -> (EntryIx, Life) {
        self.moves.target(ix)
    }

    /// Whether `above` is `entry` or one of its ancestors.
    pub(crate) fn is_at_or_above(&self, above: EntryIx, entry: EntryIx) -> bool {
        self.nodes.is_at_or_above(above, entry, &self.moves)
    }

    /// Notes that a move names `entry` as a container: from now on its own moves matter to others.
    fn name_folder(&mut self, entry: EntryIx) {
        let mut next = self.nodes.make_folder(entry, &self.moves).flatten();
        while let Some(ix) = next {
            self.log.push(ix, &self.moves);
            next = self.moves.get(ix).older;
            self.moves.set_older(ix, None);
        }
    }

    /// Whether a move of the same entry, if there is one, is older than `ix`.
    fn is_older(&self, one: Option<MoveIx>, ix: MoveIx) -> bool {
        one.is_none_or(|one| self.moves.turn(one) < self.moves.turn(ix))
    }

    /// Remembers the placement of an entry that may be about to move.
    fn touch(&mut self, entry: EntryIx) {
        if !self.nodes.set_touched(entry, true) {
            let (placed, time) = self.placement_with_time(entry);
            self.touched.push((entry, placed, time));
        }
    }

    fn placement_with_time(&self, entry: EntryIx) -> (Option<MoveIx>, Option<Timestamp>) {
        let placed = self.nodes.placed(entry);
        (placed, placed.and_then(|ix| self.moves.time(ix)))
    }

    /// Lets a move of a leaf that is newer than all others of it take effect.
    fn append_to_leaf(&mut self, ix: MoveIx) {
        let entry = self.entry(ix);
        self.moves.set_older(ix, self.nodes.newest(entry));
        self.take_effect(ix);
        self.nodes.set_newest(entry, Some(ix));
    }

    /// Lets late moves of leaves take effect, each at its turn among those of the same leaf.
    fn insert_into_leaves(&mut self, mut late: Vec<MoveIx>) {
        late.sort_unstable_by_key(|ix| (self.entry(*ix), self.moves.turn(*ix)));
        let mut rest = late.as_slice();
        while let Some(first) = rest.first() {
            let entry = self.entry(*first);
            let len = rest.partition_point(|ix| self.entry(*ix) == entry);
            let (of_one, others) = rest.split_at(len);
            self.insert_into_leaf(entry, of_one);
            rest = others;
        }
    }

    fn insert_into_leaf(&mut self, entry: EntryIx, late: &[MoveIx]) {
        let mut redo = late.to_vec();
        while let Some(newest) = self.nodes.newest(entry)
            && !self.is_older(Some(newest), late[0])
        {
            self.undo(newest);
            self.nodes.set_newest(entry, self.moves.get(newest).older);
            redo.push(newest);
        }
        redo.sort_unstable_by_key(|ix| self.moves.turn(*ix));
        for ix in redo {
            self.append_to_leaf(ix);
        }
    }

    /// Lets moves of folders take effect. Those that are not the newest undo every newer one in the
    /// log, and all are redone with these among them.
    fn insert_into_log(&mut self, moves: &[MoveIx]) {
        let late = moves.partition_point(|ix| !self.log.is_newest(self.moves.turn(*ix)));
        let (late, newer) = moves.split_at(late);
        if let Some(first) = late.first() {
            let first = self.moves.turn(*first);
            let undo = self.log.from(first, &self.moves).to_vec();
            for ix in undo.into_iter().rev() {
                self.touch(self.entry(ix));
                self.undo(ix);
            }
            for ix in late {
                self.log.push(*ix, &self.moves);
            }
            self.redo(first, late);
        }
        for ix in newer {
            self.log.push(*ix, &self.moves);
            self.take_effect(*ix);
        }
    }

    /// Lets the moves in the log from `first` on take effect, of which those in `late` do so for the
    /// first time. While all folders are where they were at the same turn before, so does every move
    /// what it did before: then nobody looks for cycles.
    fn redo(&mut self, first: Stamp, late: &[MoveIx]) {
        let mut late = late.iter().peekable();
        // Folders that are elsewhere than before at this turn, with their placements from then.
        let mut astray: HashMap<EntryIx, Option<MoveIx>> = HashMap::new();
        for ix in self.log.from(first, &self.moves).to_vec() {
            let is_late = late.next_if_eq(&&ix).is_some();
            let Move { entry, is_effective: was_effective, .. } = self.moves.get(ix);
            let mut before = astray.get(&entry).copied().unwrap_or(self.nodes.placed(entry));
            if astray.is_empty() && !is_late {
                self.give_effect(ix, self.nodes.placed(entry), was_effective);
                continue;
            }
            self.take_effect(ix);
            if was_effective && !is_late {
                before = Some(ix);
            }
            if self.nodes.placed(entry) == before {
                astray.remove(&entry);
            } else {
                astray.insert(entry, before);
            }
        }
    }

    /// Lets a move take effect on top of what is, if it can.
    fn take_effect(&mut self, ix: MoveIx) {
        let entry = self.entry(ix);
        let current = self.nodes.placed(entry);
        let is_effective = self.is_effective(ix, current);
        self.give_effect(ix, current, is_effective);
    }

    fn give_effect(&mut self, ix: MoveIx, current: Option<MoveIx>, is_effective: bool) {
        self.moves.set_effect(ix, is_effective, current);
        if !is_effective {
            return;
        }
        if self.is_within(ix) {
            self.moves.set_time(ix, current.and_then(|current| self.moves.time(current)));
        }
        self.nodes.put(self.entry(ix), Some(ix), &self.moves);
    }

    fn is_effective(&mut self, ix: MoveIx, current: Option<MoveIx>) -> bool {
        let (parent, life) = self.target(ix);
        let current = current.map(|current| self.target(current));
        if self.is_within(ix) {
            return current == Some((parent, life));
        }
        let is_stale = current.is_some_and(|(_, current)| life < current);
        !is_stale && !self.nodes.find_above(self.entry(ix), parent, &self.moves)
    }

    /// Puts back what a move replaced.
    fn undo(&mut self, ix: MoveIx) {
        let one = self.moves.get(ix);
        if one.is_effective {
            self.nodes.put(one.entry, one.replaced, &self.moves);
        }
    }

    /// Panics if T1 to T3 do not hold, or an invariant of a part.
    pub(crate) fn assert_invariants(&self, entries: &Entries) {
        self.moves.assert_invariants();
        self.nodes.assert_invariants(&self.moves);
        self.log.assert_invariants(&self.moves);
        for (entry, _) in self.nodes.placements(&self.moves) {
            let up = std::iter::successors(Some(entry), |at| Some(self.placement(*at)?.parent));
            assert!(up.take(entries.len() + 1).count() <= entries.len(), "T1: {entry:?}");
        }
        let mut listed = self.log.iter().count();
        for entry in entries.indexes() {
            let mut next = self.nodes.newest(entry);
            while let Some(ix) = next {
                let one = self.moves.get(ix);
                assert_eq!(one.entry, entry, "T3");
                assert!(one.older.is_none_or(|older| self.is_older(Some(older), ix)), "T3");
                assert!(!self.nodes.is_folder(entry), "T3: {entry:?}");
                listed += 1;
                next = one.older;
            }
        }
        assert_eq!(listed, self.moves().count(), "T3: a move is not listed");
        self.assert_replay(entries);
    }

    fn assert_replay(&self, entries: &Entries) {
        let mut moves: Vec<MoveIx> = self.moves().map(|(ix, ..)| ix).collect();
        moves.sort_by_key(|ix| self.moves.turn(*ix));
        let mut replay = Self::new();
        replay.moves.clone_from(&self.moves);
        for ix in &moves {
            let one = self.moves.get(*ix);
            assert!(self.nodes.is_folder(one.parent), "T3: {:?}", one.parent);
            replay.nodes.grow(one.entry.max(one.parent));
            replay.nodes.make_folder(one.parent, &replay.moves);
            replay.take_effect(*ix);
            let again = replay.moves.get(*ix);
            assert_eq!(again.is_effective, one.is_effective, "T2: {ix:?}");
            assert!(!one.is_effective || again.replaced == one.replaced, "T2: {ix:?}");
        }
        for entry in entries.indexes() {
            assert_eq!(replay.placement(entry), self.placement(entry), "T2: {entry:?}");
        }
    }
}

#[cfg(test)]
mod tests;
