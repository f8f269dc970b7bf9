//! A replica's state as a whole: given away without the history that led there, and taken in.

use crate::codec::{Kind, StateReader, encode_state, pack, pack_sections};
use crate::entries::EntryIx;
use crate::error::DecodeError;
use crate::id::{EntryId, OpId, ReplicaId, Stamp};
use crate::replica::{Pending, Replica};
use crate::state::{Creation, EntryRecord, MoveRecord, Times};
use crate::text::Sides;
use crate::tree::{MoveIx, MoveKind, MoveOp, OrderKey};

impl Replica {
    /// Drops the history: the bytes of old changes and the characters that were deleted. What is left
    /// is what merging needs, so that changes by anybody who was away for however long can still come.
    ///
    /// Whoever asks for changes that were dropped gets a state instead, which joins into theirs.
    /// What shows, the version and the digest stay as they are. Costs the log that is dropped.
    pub fn compact(&mut self) {
        self.history.cut();
    }

    /// Where each author's log begins, in order of author, and all logs, compressed. In as few blocks
    /// as can be, since like compresses beside like.
    pub(crate) fn pack_log(&self) -> (Vec<u64>, Vec<u8>) {
        let (mut floors, mut blocks) = (Vec::new(), Vec::new());
        for (author, floor) in self.history.floors() {
            let end = self.history.version().next(author);
            match self.history.batch(author, floor, end) {
                Some(batch) => {
                    floors.push(floor);
                    blocks.extend(batch.into_blocks());
                }
                // Nothing is left, or a forged snapshot brought a log that cannot be read.
                None => floors.push(end),
            }
        }
        let sections = blocks.iter().map(|(_, _, block)| (Kind::Block, &**block));
        (floors, pack(&pack_sections(sections)))
    }

    /// Takes in the state of a snapshot, on top of nothing.
    pub(crate) fn load_state(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let mut pending = Pending::default();
        let reader = StateReader::new(bytes)?;
        self.history.join(&reader.times);
        self.entries.reserve(reader.entry_count());
        self.tree.reserve(reader.entry_count());
        self.display.reserve(reader.entry_count());
        let times = reader.times.clone();
        let there = |op: OpId| has(&times, op);
        reader.read_entries(|record| {
            self.join_entry(record, &|_| false, &there, &mut pending);
        })?;
        self.settle(pending);
        Ok(())
    }

    /// Says where the changes are that led to a loaded state. `floors` are in order of author.
    pub(crate) fn attach_log(&mut self, floors: &[u64], packed: &[u8]) {
        let authors = self.history.floors();
        let floors: Vec<(ReplicaId, u64)> = authors
            .into_iter()
            .zip(floors)
            .map(|((author, end), floor)| (author, end.min(*floor)))
            .collect();
        self.history.attach(packed.to_vec(), &floors);
    }

    /// The state as bytes.
    pub(crate) fn encode_state(&self) -> Vec<u8> {
        let times = self.history.times();
        let known = |entry: &EntryIx| self.entries.state(*entry).is_known();
        let mut entries: Vec<(Option<OpIdKey>, EntryIx)> = self
            .entries
            .indexes()
            .filter(known)
            .map(|entry| (sort_key(self.entries.id(entry), &times), entry))
            .collect();
        entries.sort_unstable_by_key(|(key, entry)| (*key, self.entries.id(*entry)));
        let mut moves: Vec<(EntryIx, Stamp, MoveIx)> =
            self.tree.moves().map(|(ix, entry, stamp)| (entry, stamp, ix)).collect();
        moves.sort_unstable();
        let count = entries.len();
        let records = entries.into_iter().map(|(_, entry)| {
            let first = moves.partition_point(|(of, ..)| *of < entry);
            let mine = moves[first..].iter().take_while(|(of, ..)| *of == entry);
            self.record(entry, mine.map(|(_, _, ix)| *ix))
        });
        encode_state(&times, count, records)
    }

    fn record(&self, entry: EntryIx, moves: impl Iterator<Item = MoveIx>) -> EntryRecord {
        let state = self.entries.state(entry);
        let moves = moves.filter_map(|ix| {
            let (parent, life) = self.tree.target(ix);
            let is_within = self.tree.is_within(ix);
            Some(MoveRecord {
                op: self.tree.stamp(ix)?.op(),
                life,
                parent: self.entries.id(parent),
                key: OrderKey::new(self.tree.key(ix))?,
                is_within,
                // A reordering keeps the time of the placement that it changes.
                trashed_at: self.tree.time(ix).filter(|_| !is_within),
            })
        });
        EntryRecord {
            id: self.entries.id(entry),
            life: state.life(),
            lives: state.life_records(),
            moves: moves.collect(),
            fields: state.field_records(self.entries.names()),
        }
    }

    /// Takes a state in, which is known to be well formed. What shows is brought up to date by
    /// [`Replica::settle`].
    pub(crate) fn join_state(&mut self, bytes: &[u8], pending: &mut Pending) {
        let before = self.history.version().clone();
        let Ok(reader) = StateReader::new(bytes) else { return };
        self.history.join(&reader.times);
        let times = reader.times.clone();
        let there = |op: OpId| has(&times, op);
        let here = |op: OpId| before.has(op);
        // It could be read to its end when it came.
        drop(reader.read_entries(|record| self.join_entry(record, &here, &there, pending)));
    }

    fn join_entry(
        &mut self,
        record: EntryRecord,
        here: &dyn Fn(OpId) -> bool,
        there: &dyn Fn(OpId) -> bool,
        pending: &mut Pending,
    ) {
        let entry = self.entries.name(record.id);
        for one in &record.moves {
            if !here(one.op) {
                let parent = self.entries.name(one.parent);
                let kind = if one.is_within {
                    MoveKind::Within
                } else {
                    MoveKind::Into { trashed_at: one.trashed_at }
                };
                let (life, key) = (one.life, &one.key);
                let op = MoveOp { entry, life, parent, key, kind };
                pending.moves.push(self.tree.record(self.history.stamp(one.op), &op));
            }
        }
        for life in &record.lives {
            if let Creation::Link { target, .. } = life.creation {
                self.entries.name(target);
            }
        }
        let history = &self.history;
        let clock = |op: OpId| history.stamp(op);
        let sides = Sides { here, there, clock: &clock };
        let (state, names) = self.entries.state_mut(entry);
        state.join((entry, record), names, &sides, &mut self.watch);
        pending.changed.push(entry);
        self.digest.mark(entry);
    }
}

type OpIdKey = (ReplicaId, u64);

/// By author and counter, so that steps from one to the next are small.
fn sort_key(entry: EntryId, times: &[Times]) -> Option<OpIdKey> {
    let op = entry.creator()?;
    let is_known = times.binary_search_by_key(&op.replica, |one| one.author).is_ok();
    is_known.then_some((op.replica, op.counter))
}

/// Whether a state has an op.
pub(crate) fn has(times: &[Times], op: OpId) -> bool {
    let one = times.binary_search_by_key(&op.replica, |one| one.author);
    let one = one.ok().and_then(|at| times.get(at));
    one.and_then(|one| one.pieces.last()).is_some_and(|last| op.counter < last.end())
}
