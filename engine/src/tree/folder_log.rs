//! The moves of folders, in stamp order: those on which other moves may depend.
//!
//! When a leaf becomes a folder its moves join the log, in the midst of it. That is put off until
//! somebody asks for the order.
//!
//! Invariants, checked by `assert_invariants`:
//! - G1. `ordered` is in stamp order.
//! - G2. No move here is newer than `newest`.

use crate::id::Stamp;
use crate::index::{push_tightly, trim};
use crate::tree::moves::{MoveIx, Moves};

/// So many moves find their places one by one; more are sorted together.
const FEW: usize = if cfg!(any(test, feature = "small-nodes")) { 1 } else { 16 };

#[derive(Clone, Debug, Default)]
pub(super) struct FolderLog {
    ordered: Vec<MoveIx>,
    /// Moves that are not among those in order yet.
    joined: Vec<MoveIx>,
    newest: Option<Stamp>,
}

impl FolderLog {
    /// Adds a move.
    pub(super) fn push(&mut self, ix: MoveIx, moves: &Moves) {
        let stamp = moves.turn(ix);
        if self.ordered.last().is_none_or(|last| moves.turn(*last) < stamp) {
            push_tightly(&mut self.ordered, ix);
        } else {
            self.joined.push(ix);
        }
        self.newest = self.newest.max(Some(stamp));
    }

    /// Gives back room that was made for more.
    pub(super) fn trim(&mut self) {
        trim(&mut self.ordered);
    }

    /// Forgets the moves that have been taken out of `moves`.
    pub(super) fn retain(&mut self, moves: &Moves) {
        let is_here = |ix: &MoveIx| moves.has(*ix);
        self.joined.retain(is_here);
        // They were the newest of all.
        while self.ordered.last().is_some_and(|last| !is_here(last)) {
            self.ordered.pop();
        }
    }

    /// All moves from `stamp` on, in order.
    pub(super) fn from(&mut self, stamp: Stamp, moves: &Moves) -> &[MoveIx] {
        let stamp_of = |ix: &MoveIx| moves.turn(*ix);
        if self.joined.len() > FEW {
            let first = self.joined.iter().map(stamp_of).min();
            let at = self.ordered.partition_point(|ix| Some(stamp_of(ix)) < first);
            self.ordered.append(&mut self.joined);
            self.ordered[at..].sort_by_key(stamp_of);
        }
        for ix in self.joined.drain(..) {
            let at = self.ordered.partition_point(|other| stamp_of(other) < stamp_of(&ix));
            self.ordered.insert(at, ix);
        }
        let at = self.ordered.partition_point(|other| stamp_of(other) < stamp);
        &self.ordered[at..]
    }

    /// Whether a move would come after all that are here.
    pub(super) fn is_newest(&self, stamp: Stamp) -> bool {
        self.newest < Some(stamp)
    }

    /// The moves, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = MoveIx> + '_ {
        self.ordered.iter().chain(&self.joined).copied()
    }

    /// Panics if G1 or G2 does not hold.
    pub(super) fn assert_invariants(&self, moves: &Moves) {
        let stamp_of = |ix: MoveIx| moves.turn(ix);
        assert!(self.ordered.is_sorted_by(|a, b| stamp_of(*a) < stamp_of(*b)), "G1");
        assert!(self.iter().all(|ix| Some(stamp_of(ix)) <= self.newest), "G2");
    }
}
