//! All moves that are here, in the order in which they arrived, with their order keys.
//!
//! A placement is nothing of its own: it is the move that gave it. So each place and each key is
//! kept once, however often they are undone and redone.

use hashbrown::HashMap;

use crate::entries::EntryIx;
use crate::id::{EntryId, Life, ReplicaId, Stamp, Timestamp};
use crate::index::{dense_index, push_tightly, trim};
use crate::tree::{MoveKind, MoveOp, OrderKey};

dense_index! {
    /// Which move, in this replica alone.
    MoveIx
}

/// Time and author of what is there before any op; older than every op.
const BEFORE_ALL: Stamp = Stamp { lamport: 0, replica: ReplicaId::MAX, counter: 0 };

/// A key of up to so many bytes is kept in the move itself. Nearly all are that short.
const SHORT: usize = 12;

/// A creation, move or reordering.
#[derive(Clone, Debug)]
pub(super) struct Move {
    pub(super) stamp: Stamp,
    pub(super) entry: EntryIx,
    pub(super) parent: EntryIx,
    pub(super) life: Life,
    key: [u8; SHORT],
    /// What was the entry's placement before this move took effect.
    pub(super) replaced: Option<MoveIx>,
    /// The next older move of the same entry, while that is a leaf.
    pub(super) older: Option<MoveIx>,
    key_len: u8,
    pub(super) is_within: bool,
    pub(super) is_effective: bool,
    /// Whether `times` has a time of deletion for it.
    is_timed: bool,
}

impl Move {
    /// Where the key is among the long ones, if it is not short.
    fn long_key(&self) -> Option<usize> {
        let [a, b, c, d, ..] = self.key;
        (usize::from(self.key_len) > SHORT).then(|| u32::from_le_bytes([a, b, c, d]) as usize)
    }
}

// There is one for each creation and move, for good.
const _: () = assert!(size_of::<Move>() <= 64);

/// The moves. Only the newest can be taken out again.
#[derive(Clone, Debug, Default)]
pub(super) struct Moves {
    moves: Vec<Move>,
    /// The keys that are not short; the move says where, in the first four bytes of its `key`.
    long_keys: Vec<u8>,
    times: HashMap<MoveIx, Timestamp>,
}

impl Moves {
    /// Makes room for so many more at once.
    pub(super) fn reserve(&mut self, moves: usize) {
        self.moves.reserve_exact(moves);
    }

    /// Gives back room that was made for more.
    pub(super) fn trim(&mut self) {
        trim(&mut self.moves);
        trim(&mut self.long_keys);
    }

    /// Adds a move that has not taken effect yet.
    pub(super) fn push(&mut self, stamp: Stamp, op: &MoveOp<'_>) -> MoveIx {
        let ix = MoveIx::new(self.moves.len());
        let (is_within, time) = match op.kind {
            MoveKind::Into { trashed_at } => (false, trashed_at),
            MoveKind::Within => (true, None),
        };
        let bytes = op.key.as_bytes();
        let key = self.keep_key(bytes);
        push_tightly(
            &mut self.moves,
            Move {
                stamp,
                entry: op.entry,
                parent: op.parent,
                life: op.life,
                key,
                replaced: None,
                older: None,
                key_len: u8::try_from(bytes.len()).expect("a key has at most 64 bytes"),
                is_within,
                is_effective: false,
                is_timed: false,
            },
        );
        self.set_time(ix, time);
        ix
    }

    /// Adds the place that a system entry has before anybody reorders it.
    pub(super) fn push_well_known(&mut self, entry: EntryIx, id: EntryId) -> MoveIx {
        let key = &OrderKey::well_known(id);
        let (parent, kind) = (EntryIx::ROOT, MoveKind::Into { trashed_at: None });
        let ix = self.push(BEFORE_ALL, &MoveOp { entry, life: Life::FIRST, parent, key, kind });
        self.get_mut(ix).is_effective = true;
        ix
    }

    fn keep_key(&mut self, bytes: &[u8]) -> [u8; SHORT] {
        let mut key = [0; SHORT];
        if let Some(short) = key.get_mut(..bytes.len()) {
            short.copy_from_slice(bytes);
        } else {
            let at = u32::try_from(self.long_keys.len()).expect("keys fit into memory");
            key[..size_of::<u32>()].copy_from_slice(&at.to_le_bytes());
            self.long_keys.extend_from_slice(bytes);
        }
        key
    }

    /// Takes the newest arrival out.
    pub(super) fn pop(&mut self) {
        if let Some(last) = self.moves.len().checked_sub(1) {
            self.set_time(MoveIx::new(last), None);
            if let Some(at) = self.moves[last].long_key() {
                self.long_keys.truncate(at);
            }
            self.moves.pop();
        }
    }

    pub(super) fn set_time(&mut self, ix: MoveIx, time: Option<Timestamp>) {
        if let Some(time) = time {
            self.times.insert(ix, time);
        } else if self.moves[ix.at()].is_timed {
            self.times.remove(&ix);
        }
        self.moves[ix.at()].is_timed = time.is_some();
    }

    pub(super) fn get_mut(&mut self, ix: MoveIx) -> &mut Move {
        &mut self.moves[ix.at()]
    }

    pub(super) fn get(&self, ix: MoveIx) -> &Move {
        &self.moves[ix.at()]
    }

    /// When a move came; none for what is there before any op.
    pub(super) fn stamp(&self, ix: MoveIx) -> Option<Stamp> {
        Some(self.get(ix).stamp).filter(|stamp| *stamp != BEFORE_ALL)
    }

    pub(super) fn key(&self, ix: MoveIx) -> &[u8] {
        let one = self.get(ix);
        let len = usize::from(one.key_len);
        match one.long_key() {
            Some(at) => &self.long_keys[at..at + len],
            None => &one.key[..len],
        }
    }

    /// The time of deletion that goes with the placement.
    pub(super) fn time(&self, ix: MoveIx) -> Option<Timestamp> {
        if self.get(ix).is_timed { self.times.get(&ix).copied() } else { None }
    }

    /// The move that arrived last.
    pub(super) const fn last(&self) -> Option<MoveIx> {
        match self.moves.len().checked_sub(1) {
            Some(last) => Some(MoveIx::new(last)),
            None => None,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.moves.len()
    }
}
