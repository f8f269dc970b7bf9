//! All moves that are here, in the order in which they arrived, with their order keys.
//!
//! A placement is nothing of its own: it is the move that gave it. So each place and each key is
//! kept once, however often they are undone and redone. Most moves are creations, which take half the
//! room of others (`births`).

use hashbrown::HashMap;

use crate::entries::EntryIx;
use crate::id::{EntryId, Life, ReplicaId, Stamp, Timestamp};
use crate::index::{dense_index, push_tightly, trim};
use crate::tree::births::Births;
use crate::tree::{MoveKind, MoveOp, OrderKey};

dense_index! {
    /// Which move, in this replica alone: the lowest bit says in which arena it is.
    MoveIx
}

/// Where a move is kept.
enum Place {
    Birth(usize),
    Record(usize),
}

impl MoveIx {
    const fn birth(at: usize) -> Self {
        Self::new(2 * at)
    }

    const fn record(at: usize) -> Self {
        Self::new(2 * at + 1)
    }

    const fn place(self) -> Place {
        match self.at() {
            at if at & 1 == 0 => Place::Birth(at / 2),
            at => Place::Record(at / 2),
        }
    }
}

/// Time and author of what is there before any op; older than every op.
const BEFORE_ALL: Stamp = Stamp { lamport: 0, replica: ReplicaId::MAX, counter: 0 };

/// A key of up to so many bytes is kept in the record itself. Nearly all are that short.
const SHORT: usize = 12;

/// A creation, move or reordering.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) stamp: Stamp,
    pub(super) entry: EntryIx,
    pub(super) parent: EntryIx,
    pub(super) life: Life,
    /// What was the entry's placement before this move took effect.
    pub(super) replaced: Option<MoveIx>,
    /// The next older move of the same entry, while that is a leaf.
    pub(super) older: Option<MoveIx>,
    pub(super) is_within: bool,
    pub(super) is_effective: bool,
}

/// A move that is not kept as a birth.
#[derive(Clone, Debug)]
struct Record {
    one: Move,
    key: [u8; SHORT],
    key_len: u8,
    /// Whether `times` has a time of deletion for it.
    is_timed: bool,
}

impl Record {
    /// Where the key is among the long ones, if it is not short.
    fn long_key(&self) -> Option<usize> {
        let at = self.key.first_chunk().filter(|_| usize::from(self.key_len) > SHORT)?;
        Some(usize::from_le_bytes(*at))
    }
}

// There is one for each move, for good.
const _: () = assert!(size_of::<Record>() <= 64);

/// The moves. Only the newest can be taken out again.
#[derive(Clone, Debug, Default)]
pub(super) struct Moves {
    births: Births,
    records: Vec<Record>,
    /// The keys that are not short; the record says where, in the first bytes of its `key`.
    long_keys: Vec<u8>,
    /// Times of deletion, by record.
    times: HashMap<usize, Timestamp>,
}

impl Moves {
    /// Makes room for so many more creations at once.
    pub(super) fn reserve(&mut self, creations: usize) {
        self.births.reserve(creations);
    }

    /// Gives back room that was made for more.
    pub(super) fn trim(&mut self) {
        self.births.trim();
        trim(&mut self.records);
        trim(&mut self.long_keys);
    }

    /// Adds a move that has not taken effect yet.
    pub(super) fn push(&mut self, stamp: Stamp, op: &MoveOp<'_>) -> MoveIx {
        if self.births.push(stamp, op) {
            return MoveIx::birth(self.births.len() - 1);
        }
        let (is_within, time) = match op.kind {
            MoveKind::Creation => (false, None),
            MoveKind::Into { trashed_at } => (false, trashed_at),
            MoveKind::Within => (true, None),
        };
        let bytes = op.key.as_bytes();
        let key = self.keep_key(bytes);
        let one = Move {
            stamp,
            entry: op.entry,
            parent: op.parent,
            life: op.life,
            replaced: None,
            older: None,
            is_within,
            is_effective: false,
        };
        let key_len = u8::try_from(bytes.len()).expect("a key has at most 64 bytes");
        push_tightly(&mut self.records, Record { one, key, key_len, is_timed: false });
        let at = self.records.len() - 1;
        self.set_record_time(at, time);
        MoveIx::record(at)
    }

    /// Adds the place that a system entry has before anybody reorders it.
    pub(super) fn push_well_known(&mut self, entry: EntryIx, id: EntryId) -> MoveIx {
        let key = &OrderKey::well_known(id);
        let (parent, kind) = (EntryIx::ROOT, MoveKind::Into { trashed_at: None });
        let ix = self.push(BEFORE_ALL, &MoveOp { entry, life: Life::FIRST, parent, key, kind });
        self.set_effect(ix, true, None);
        ix
    }

    fn keep_key(&mut self, bytes: &[u8]) -> [u8; SHORT] {
        let mut key = [0; SHORT];
        if let Some(short) = key.get_mut(..bytes.len()) {
            short.copy_from_slice(bytes);
        } else {
            key[..size_of::<usize>()].copy_from_slice(&self.long_keys.len().to_le_bytes());
            self.long_keys.extend_from_slice(bytes);
        }
        key
    }

    /// Takes a move out that is the newest arrival of its arena.
    pub(super) fn pop(&mut self, ix: MoveIx) {
        match ix.place() {
            Place::Birth(at) => {
                debug_assert_eq!(at + 1, self.births.len());
                self.births.pop();
            }
            Place::Record(at) => {
                debug_assert_eq!(at + 1, self.records.len());
                self.set_record_time(at, None);
                if let Some(at) = self.records[at].long_key() {
                    self.long_keys.truncate(at);
                }
                self.records.pop();
            }
        }
    }

    /// Says whether a move took effect, and on top of which placement.
    pub(super) fn set_effect(&mut self, ix: MoveIx, is_effective: bool, replaced: Option<MoveIx>) {
        match ix.place() {
            Place::Birth(at) => self.births.set_effect(at, is_effective, replaced),
            Place::Record(at) => {
                let one = &mut self.records[at].one;
                (one.is_effective, one.replaced) = (is_effective, replaced);
            }
        }
    }

    /// Says which move of the same leaf is the next older one.
    pub(super) fn set_older(&mut self, ix: MoveIx, older: Option<MoveIx>) {
        match ix.place() {
            Place::Birth(at) => self.births.set_older(at, older),
            Place::Record(at) => self.records[at].one.older = older,
        }
    }

    /// Says which time of deletion a reordering keeps.
    pub(super) fn set_time(&mut self, ix: MoveIx, time: Option<Timestamp>) {
        match ix.place() {
            Place::Birth(_) => debug_assert_eq!(time, None, "nothing is created deleted"),
            Place::Record(at) => self.set_record_time(at, time),
        }
    }

    fn set_record_time(&mut self, at: usize, time: Option<Timestamp>) {
        if let Some(time) = time {
            self.times.insert(at, time);
        } else if self.records[at].is_timed {
            self.times.remove(&at);
        }
        self.records[at].is_timed = time.is_some();
    }

    #[inline]
    pub(super) fn get(&self, ix: MoveIx) -> Move {
        match ix.place() {
            Place::Birth(at) => self.births.get(at),
            Place::Record(at) => self.records[at].one,
        }
    }

    /// When a move came; older than any op for what is there before.
    #[inline]
    pub(super) fn turn(&self, ix: MoveIx) -> Stamp {
        match ix.place() {
            Place::Birth(at) => self.births.stamp(at),
            Place::Record(at) => self.records[at].one.stamp,
        }
    }

    /// The entry that a move is about, and the container that it names.
    #[inline]
    pub(super) fn pair(&self, ix: MoveIx) -> (EntryIx, EntryIx) {
        match ix.place() {
            Place::Birth(at) => self.births.pair(at),
            Place::Record(at) => (self.records[at].one.entry, self.records[at].one.parent),
        }
    }

    /// The container that a move names, and the life.
    #[inline]
    pub(super) fn target(&self, ix: MoveIx) -> (EntryIx, Life) {
        match ix.place() {
            Place::Birth(at) => (self.births.pair(at).1, Life::FIRST),
            Place::Record(at) => (self.records[at].one.parent, self.records[at].one.life),
        }
    }

    /// Whether a move only reorders.
    #[inline]
    pub(super) fn is_within(&self, ix: MoveIx) -> bool {
        match ix.place() {
            Place::Birth(_) => false,
            Place::Record(at) => self.records[at].one.is_within,
        }
    }

    /// When a move came; none for what is there before any op.
    pub(super) fn stamp(&self, ix: MoveIx) -> Option<Stamp> {
        Some(self.turn(ix)).filter(|stamp| *stamp != BEFORE_ALL)
    }

    pub(super) fn key(&self, ix: MoveIx) -> &[u8] {
        let at = match ix.place() {
            Place::Birth(at) => return self.births.key(at),
            Place::Record(at) => at,
        };
        let record = &self.records[at];
        let len = usize::from(record.key_len);
        match record.long_key() {
            Some(at) => &self.long_keys[at..at + len],
            None => &record.key[..len],
        }
    }

    /// The time of deletion that goes with the placement.
    pub(super) fn time(&self, ix: MoveIx) -> Option<Timestamp> {
        match ix.place() {
            Place::Record(at) if self.records[at].is_timed => self.times.get(&at).copied(),
            _ => None,
        }
    }

    /// The moves from `stamp` on, the newest first, if all of them arrived after all others.
    pub(super) fn from(&self, stamp: Stamp) -> impl Iterator<Item = MoveIx> + '_ {
        let mut births = (0..self.births.len()).rev().map(MoveIx::birth).peekable();
        let mut records = (0..self.records.len()).rev().map(MoveIx::record).peekable();
        let newest = move || {
            let (birth, record) = (births.peek().copied(), records.peek().copied());
            let turn = |ix: Option<MoveIx>| ix.map(|ix| self.turn(ix));
            if turn(birth) > turn(record) { births.next() } else { records.next() }
        };
        std::iter::from_fn(newest).take_while(move |ix| self.turn(*ix) >= stamp)
    }

    /// All moves, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = MoveIx> + use<> {
        let births = (0..self.births.len()).map(MoveIx::birth);
        births.chain((0..self.records.len()).map(MoveIx::record))
    }

    /// Whether a move has not been taken out.
    pub(super) const fn has(&self, ix: MoveIx) -> bool {
        match ix.place() {
            Place::Birth(at) => at < self.births.len(),
            Place::Record(at) => at < self.records.len(),
        }
    }

    /// Panics if an invariant of a part does not hold.
    pub(super) fn assert_invariants(&self) {
        self.births.assert_invariants();
        let timed = self.records.iter().filter(|record| record.is_timed);
        assert_eq!(timed.count(), self.times.len(), "a time is left over");
    }
}
