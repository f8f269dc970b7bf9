//! Whose child every entry is, on every replica alike.
//!
//! Moves take effect in stamp order; a late one undoes the newer ones, takes effect, and redoes them
//! (Kleppmann, Mulligan, Gomes, Beresford 2022, "A highly-available move operation for replicated
//! trees", section 3). Simpler (last move wins, no redo) was rejected: concurrent moves can then
//! form a cycle. A batch of moves undoes and redoes once.
//!
//! An entry that no move ever named as a container is a leaf: whether its moves take effect depends on
//! itself alone, and no other move depends on them. So a late move of a leaf replays that entry's moves
//! and nothing else. "Has no children now" would not do: a move without effect may get one when an
//! older move arrives.
//!
//! Dead entries stay in the tree as hidden nodes: forgetting their moves makes replicas diverge.
//!
//! Invariants, checked by `assert_invariants`:
//! - T1. Following parents from any entry ends: at Root, or at an entry that was never placed.
//! - T2. Each logged move remembers the placement that was there before it, if it took effect.
//! - T3. `inside` lists exactly the placed entries, by parent.
//! - T4. `moves` lists exactly the stamps of the log, by entry; every parent in the log is in `parents`.
//!
//! Cost: a move is O(depth), or O(1) for an entry with nothing inside. A late one adds an undo and a
//! redo of each newer move in the log; that of a leaf, of each move of the same entry.
//! Not here: who is shown where (`display`), which keys siblings get (`edit`).

mod order_key;

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

use crate::id::{EntryId, Life, Stamp, Timestamp};
pub use order_key::OrderKey;
pub(crate) use order_key::SPREAD_HEAD_MAX;

/// Where an entry was put: one unit, so that a container and a place in it never mix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) parent: EntryId,
    pub(crate) key: OrderKey,
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
    /// Creations and moves: into a container, from wherever the entry was.
    Into { trashed_at: Option<Timestamp> },
    /// Another place in the same container.
    Within,
}

/// A creation, move or reordering.
#[derive(Clone, Debug)]
pub(crate) struct MoveOp {
    pub(crate) entry: EntryId,
    pub(crate) life: Life,
    pub(crate) parent: EntryId,
    pub(crate) key: OrderKey,
    pub(crate) kind: MoveKind,
}

/// A move in the log, with what it replaced.
#[derive(Clone, Debug)]
struct LoggedMove {
    op: MoveOp,
    /// What to put back when the move is undone; none if it had no effect.
    replaced: Option<Option<Placement>>,
}

/// The placements of all entries, dead ones included, and the log of moves that gave them.
#[derive(Clone, Debug)]
pub(crate) struct MoveTree {
    placements: HashMap<EntryId, Placement>,
    inside: HashMap<EntryId, BTreeSet<EntryId>>,
    log: BTreeMap<Stamp, LoggedMove>,
    /// The moves of each entry, in order.
    moves: HashMap<EntryId, SmallVec<[Stamp; 1]>>,
    /// Every entry that some move, effective or not, named as a container.
    parents: HashSet<EntryId>,
}

impl MoveTree {
    /// The tree of an empty store: Trash and Lost and Found in Root.
    pub(crate) fn new() -> Self {
        let mut tree = Self {
            placements: HashMap::new(),
            inside: HashMap::new(),
            log: BTreeMap::new(),
            moves: HashMap::new(),
            parents: HashSet::new(),
        };
        for entry in [EntryId::TRASH, EntryId::LOST_AND_FOUND] {
            let key = OrderKey::well_known(entry);
            let parent = EntryId::ROOT;
            let place = Placement { parent, key, life: Life::FIRST, stamp: None, trashed_at: None };
            tree.put(entry, Some(place));
        }
        tree
    }

    /// Lets moves take effect, each at its turn in stamp order, and returns the entries whose
    /// placement may differ afterwards.
    pub(crate) fn integrate(&mut self, mut moves: Vec<(Stamp, MoveOp)>) -> BTreeSet<EntryId> {
        moves.sort_by_key(|(stamp, _)| *stamp);
        self.parents.extend(moves.iter().map(|(_, op)| op.parent));
        let mut touched: BTreeSet<EntryId> = moves.iter().map(|(_, op)| op.entry).collect();
        let newest = self.log.last_key_value().map(|(stamp, _)| *stamp);
        let late = moves.partition_point(|(stamp, _)| Some(*stamp) < newest);
        let newer = moves.split_off(late);
        if moves.iter().all(|(_, op)| !self.parents.contains(&op.entry)) {
            for (stamp, op) in moves {
                self.insert_leaf_move(stamp, op);
            }
        } else {
            touched.extend(self.insert_late_moves(moves));
        }
        for (stamp, op) in newer {
            self.list(op.entry, stamp);
            self.append(stamp, op);
        }
        touched
    }

    /// Takes back every move at or after `stamp`, as if it had never been, and returns the entries
    /// that were moved.
    pub(crate) fn remove_from(&mut self, stamp: Stamp) -> BTreeSet<EntryId> {
        let removed = self.undo_from(stamp);
        for op in removed.values() {
            if let Some(stamps) = self.moves.get_mut(&op.entry) {
                stamps.retain(|listed| *listed < stamp);
                if stamps.is_empty() {
                    self.moves.remove(&op.entry);
                }
            }
        }
        removed.into_values().map(|op| op.entry).collect()
    }

    /// Where `entry` was put last, by the moves that took effect.
    pub(crate) fn placement(&self, entry: EntryId) -> Option<&Placement> {
        self.placements.get(&entry)
    }

    /// The entries that were put into `parent` last, dead ones included, in order of id.
    pub(crate) fn inside(&self, parent: EntryId) -> impl Iterator<Item = EntryId> + '_ {
        self.inside.get(&parent).into_iter().flatten().copied()
    }

    /// Whether `above` is `entry` or one of its ancestors.
    pub(crate) fn is_at_or_above(&self, above: EntryId, entry: EntryId) -> bool {
        if !self.inside.contains_key(&above) {
            return above == entry;
        }
        let mut next = Some(entry);
        while let Some(at) = next {
            if at == above {
                return true;
            }
            next = self.placements.get(&at).map(|place| place.parent);
        }
        false
    }

    /// Undoes every move from the first of these on, and redoes them with these among them.
    fn insert_late_moves(&mut self, moves: Vec<(Stamp, MoveOp)>) -> BTreeSet<EntryId> {
        let Some((first, _)) = moves.first() else { return BTreeSet::new() };
        let mut redo = self.undo_from(*first);
        for (stamp, op) in moves {
            self.list(op.entry, stamp);
            redo.insert(stamp, op);
        }
        let touched = redo.values().map(|op| op.entry).collect();
        for (stamp, op) in redo {
            self.append(stamp, op);
        }
        touched
    }

    /// Lets a late move of a leaf take effect at its turn among the leaf's own moves.
    fn insert_leaf_move(&mut self, stamp: Stamp, op: MoveOp) {
        let entry = op.entry;
        let at = self.list(entry, stamp);
        self.log.insert(stamp, LoggedMove { op, replaced: None });
        let stamps = self.moves.get(&entry).cloned().unwrap_or_default();
        for stamp in stamps[at..].iter().rev() {
            let logged = self.log.get_mut(stamp);
            if let Some(replaced) = logged.and_then(|logged| logged.replaced.take()) {
                self.put(entry, replaced);
            }
        }
        for stamp in &stamps[at..] {
            if let Some(op) = self.log.get(stamp).map(|logged| logged.op.clone()) {
                self.append(*stamp, op);
            }
        }
    }

    /// Lets a move take effect on top of what is, and logs it.
    fn append(&mut self, stamp: Stamp, op: MoveOp) {
        let replaced = self.take_effect(stamp, &op);
        self.log.insert(stamp, LoggedMove { op, replaced });
    }

    /// Notes that `entry` has a move with this stamp, and returns how many older ones it has.
    fn list(&mut self, entry: EntryId, stamp: Stamp) -> usize {
        let stamps = self.moves.entry(entry).or_default();
        let at = stamps.partition_point(|listed| *listed < stamp);
        stamps.insert(at, stamp);
        at
    }

    fn undo_from(&mut self, stamp: Stamp) -> BTreeMap<Stamp, MoveOp> {
        let undone = self.log.split_off(&stamp);
        for logged in undone.values().rev() {
            if let Some(replaced) = &logged.replaced {
                self.put(logged.op.entry, replaced.clone());
            }
        }
        undone.into_iter().map(|(stamp, logged)| (stamp, logged.op)).collect()
    }

    fn take_effect(&mut self, stamp: Stamp, op: &MoveOp) -> Option<Option<Placement>> {
        let current = self.placements.get(&op.entry);
        let trashed_at = match op.kind {
            MoveKind::Into { trashed_at } => {
                let is_stale = current.is_some_and(|place| op.life < place.life);
                if is_stale || self.is_at_or_above(op.entry, op.parent) {
                    return None;
                }
                trashed_at
            }
            MoveKind::Within => {
                let place = current?;
                if place.parent != op.parent || place.life != op.life {
                    return None;
                }
                place.trashed_at
            }
        };
        let (parent, key) = (op.parent, op.key.clone());
        let place = Placement { parent, key, life: op.life, stamp: Some(stamp), trashed_at };
        Some(self.put(op.entry, Some(place)))
    }

    fn put(&mut self, entry: EntryId, place: Option<Placement>) -> Option<Placement> {
        let parent = place.as_ref().map(|place| place.parent);
        let replaced = match place {
            Some(place) => self.placements.insert(entry, place),
            None => self.placements.remove(&entry),
        };
        let old_parent = replaced.as_ref().map(|place| place.parent);
        if parent != old_parent {
            if let Some(old) = old_parent
                && let Some(siblings) = self.inside.get_mut(&old)
            {
                siblings.remove(&entry);
                if siblings.is_empty() {
                    self.inside.remove(&old);
                }
            }
            if let Some(parent) = parent {
                self.inside.entry(parent).or_default().insert(entry);
            }
        }
        replaced
    }

    /// Panics if T1 to T3 do not hold.
    pub(crate) fn assert_invariants(&self) {
        for (entry, place) in &self.placements {
            let mut steps = 0;
            let mut next = Some(*entry);
            while let Some(at) = next {
                steps += 1;
                assert!(steps <= self.placements.len() + 1, "T1: {entry:?} is below itself");
                next = self.placements.get(&at).map(|place| place.parent);
            }
            assert!(self.inside(place.parent).any(|child| child == *entry), "T3: {entry:?}");
        }
        let listed: usize = self.inside.values().map(BTreeSet::len).sum();
        assert_eq!(listed, self.placements.len(), "T3: entries listed twice");
        for (stamp, logged) in &self.log {
            let stamps = self.moves.get(&logged.op.entry).expect("T4: an entry has its moves");
            assert!(stamps.contains(stamp) && stamps.is_sorted(), "T4: {stamp:?}");
            assert!(self.parents.contains(&logged.op.parent), "T4: {stamp:?}");
        }
        let listed: usize = self.moves.values().map(SmallVec::len).sum();
        assert_eq!(listed, self.log.len(), "T4: moves listed that are not there");
        let mut replay = Self::new();
        let moves = self.log.iter().map(|(stamp, logged)| (*stamp, logged.op.clone())).collect();
        replay.integrate(moves);
        assert_eq!(replay.placements, self.placements, "T2: a replay gives another tree");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{OpId, ReplicaId};

    fn entry(name: u64) -> EntryId {
        EntryId::created_by(OpId { replica: ReplicaId::new(99).unwrap(), counter: name })
    }

    fn stamp(lamport: u64) -> Stamp {
        Stamp { lamport, replica: ReplicaId::new(1).unwrap(), counter: lamport }
    }

    fn into(lamport: u64, child: u64, parent: EntryId) -> (Stamp, MoveOp) {
        let key = OrderKey::new(&[7]).unwrap();
        let kind = MoveKind::Into { trashed_at: None };
        (stamp(lamport), MoveOp { entry: entry(child), life: Life::FIRST, parent, key, kind })
    }

    fn tree_of(moves: Vec<(Stamp, MoveOp)>) -> MoveTree {
        let mut tree = MoveTree::new();
        for one in moves {
            tree.integrate(vec![one]);
            tree.assert_invariants();
        }
        tree
    }

    #[test]
    fn a_late_move_takes_effect_at_its_turn() {
        let start = || vec![into(1, 1, EntryId::ROOT), into(2, 2, EntryId::ROOT)];
        let (a_into_b, b_into_a) = (into(3, 1, entry(2)), into(4, 2, entry(1)));
        let mut early = start();
        early.extend([a_into_b.clone(), b_into_a.clone()]);
        let mut late = start();
        late.extend([b_into_a, a_into_b]);
        let (early, late) = (tree_of(early), tree_of(late));
        assert_eq!(early.placements, late.placements);
        assert_eq!(early.placement(entry(2)).unwrap().parent, EntryId::ROOT, "the later one fails");
        assert_eq!(early.placement(entry(1)).unwrap().parent, entry(2));
    }

    #[test]
    fn a_reordering_does_not_pull_an_entry_back() {
        let mut reorder = into(4, 1, EntryId::ROOT);
        reorder.1.kind = MoveKind::Within;
        let tree = tree_of(vec![
            into(1, 1, EntryId::ROOT),
            into(2, 2, EntryId::ROOT),
            reorder,
            into(3, 1, entry(2)),
        ]);
        assert_eq!(tree.placement(entry(1)).unwrap().parent, entry(2));
    }

    #[test]
    fn a_late_move_of_a_leaf_takes_effect_among_its_own() {
        let moves = || {
            vec![
                into(1, 1, EntryId::ROOT),
                into(2, 9, EntryId::ROOT),
                into(3, 9, entry(1)),
                into(4, 9, EntryId::TRASH),
                into(5, 1, EntryId::TRASH),
            ]
        };
        let in_order = tree_of(moves());
        for late in 1..5 {
            let mut others = moves();
            let last = others.remove(late);
            others.push(last);
            assert_eq!(tree_of(others).placements, in_order.placements, "move {late} last");
        }
    }

    #[test]
    fn a_removed_move_leaves_no_trace() {
        let mut tree = tree_of(vec![into(1, 1, EntryId::ROOT)]);
        let before = tree.placements.clone();
        tree.integrate(vec![into(2, 1, EntryId::TRASH), into(3, 2, entry(1))]);
        tree.remove_from(stamp(2));
        assert_eq!(tree.placements, before);
        tree.assert_invariants();
    }
}
