//! A replica's state as a whole: given away without the history that led there, and taken in.

use hashbrown::HashMap;

use crate::batch::Batch;
use crate::codec::{
    InColumns, Kind, LogHead, StateReader, decode_remainder, encode_remainder, encode_state,
    for_each_section, pack, unpack, unpack_first,
};
use crate::entries::EntryIx;
use crate::error::DecodeError;
use crate::id::{EntryId, OpId, ReplicaId, Stamp};
use crate::registers::FieldMap;
use crate::replica::{Pending, Replica};
use crate::state::{Creation, EntryRecord, MoveRecord, Times};
use crate::text::Sides;
use crate::told::{Graves, Told};
use crate::tree::{MoveIx, MoveKind, MoveOp, OrderKey};

/// For so many entries room is made before they are read: a forged state may claim any number.
const ENTRIES_AT_ONCE: usize = 1 << 16;

impl Replica {
    /// Drops the history: the bytes of old changes and the characters that were deleted. What is left
    /// is what merging needs, so that changes by anybody who was away for however long can still come.
    ///
    /// Whoever asks for changes that were dropped gets a state instead, which joins into theirs.
    /// What shows, the version and the digest stay as they are. Costs the log that is dropped.
    pub fn compact(&mut self) {
        self.history.cut();
    }

    /// Where each author's log begins, in order of author, and what of all logs the state does not
    /// tell, compressed. In as few parts as can be, since like compresses beside like.
    pub(crate) fn pack_log(&self) -> (Vec<u64>, Vec<u8>) {
        let (mut floors, mut bound) = (Vec::new(), 0);
        for (author, floor) in self.history.floors() {
            let typed = self.history.typed_bound(author, floor);
            // Nothing is left, or a forged snapshot brought a log that cannot be read.
            let end = || self.history.version().next(author);
            floors.push((author, if typed.is_some() { floor } else { end() }));
            bound += typed.unwrap_or_default();
        }
        let mut remainders = Vec::new();
        if bound > 0 {
            // Each character that is gone was typed, unless a forged state says so of other ops: then
            // there may be more of them than memory can count, or than a reader takes for honest.
            let told = Told::new(self, &|author| floor_of(&floors, author));
            remainders = self.encode_remainders(&floors, Graves::up_to(bound, &told));
            let bytes = remainders.iter().map(|(_, remainder)| remainder.bytes.len()).sum();
            if Graves::are_too_many(&told, bytes) {
                remainders = self.encode_remainders(&floors, Graves::up_to(bytes, &told));
            }
        }
        let log = pack(&remainders, None);
        (floors.into_iter().map(|(_, floor)| floor).collect(), log)
    }

    fn encode_remainders(
        &self,
        floors: &[(ReplicaId, u64)],
        mut graves: Graves<'_>,
    ) -> Vec<(Kind, InColumns)> {
        let parts =
            floors.iter().filter_map(|(author, floor)| self.history.gathered(*author, *floor));
        parts.flatten().map(|part| (Kind::Log, encode_remainder(&part, &mut graves))).collect()
    }

    /// Hands over the changes in a snapshot, author by author.
    ///
    /// # Errors
    /// If the log does not go with the state; what was handed over till then is not to be used. Costs
    /// both, and memory in proportion to the bytes that they unfold to.
    pub(crate) fn unpack_log(
        snapshot: &[u8],
        mut each: impl FnMut(Batch),
    ) -> Result<(), DecodeError> {
        let (replica, head, log) = Self::read_snapshot(ReplicaId::MAX, snapshot)?;
        let Some(head) = head else { return Ok(()) };
        let log = unpack(log)?;
        let floors = replica.floors_of(&head.floors);
        let told = Told::new(&replica, &|author| floor_of(&floors, author));
        // Each character that is gone stands in an honest log.
        let mut graves = Graves::up_to(log.len(), &told);
        // What the state tells takes memory each time that the log asks for it.
        let mut next: HashMap<ReplicaId, u64> = floors.iter().copied().collect();
        for_each_section(&log, |kind, section| {
            if kind != Kind::Log {
                return Err(DecodeError::Malformed { at: 0, what: "not a snapshot's log" });
            }
            let batch = decode_remainder(section, &mut graves)?;
            match next.get_mut(&batch.author) {
                Some(next) if *next == batch.start => *next = batch.end(),
                _ => return Err(DecodeError::Malformed { at: 0, what: "changes not in order" }),
            }
            each(batch);
            Ok(())
        })
    }

    /// The state of a snapshot as a replica, what is said of its log, and the log.
    pub(crate) fn read_snapshot(
        id: ReplicaId,
        bytes: &[u8],
    ) -> Result<(Self, Option<LogHead>, &[u8]), DecodeError> {
        let (first, log) = unpack_first(bytes)?;
        let (mut state, mut head) = (None, None);
        for_each_section(&first, |kind, section| {
            match kind {
                Kind::State if state.is_none() => state = Some(section),
                Kind::Log if head.is_none() => head = Some(LogHead::decode(section)?),
                _ => return Err(DecodeError::Malformed { at: 0, what: "not a snapshot's state" }),
            }
            Ok(())
        })?;
        let mut replica = Self::new(id);
        if let Some(state) = state {
            replica.load_state(state)?;
        }
        Ok((replica, head, log))
    }

    /// Takes in the state of a snapshot, on top of nothing.
    pub(crate) fn load_state(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let mut pending = Pending::default();
        let reader = StateReader::new(bytes)?;
        self.history.join(&reader.times);
        let room = reader.entry_count().min(ENTRIES_AT_ONCE);
        self.entries.reserve(room);
        self.tree.reserve(room);
        self.display.reserve(room);
        let times = reader.times.clone();
        let there = |op: OpId| has(&times, op);
        let mut fields = FieldMap::default();
        reader.read_entries(|record, names| {
            fields.learn(names, self.entries.states_mut().names_mut());
            self.join_entry((record, &fields), &|_| false, &there, &mut pending);
        })?;
        self.settle(pending);
        self.entries.trim();
        self.tree.trim();
        self.display.trim();
        Ok(())
    }

    /// Says where the changes are that led to a loaded state. `floors` are in order of author.
    pub(crate) fn attach_log(&mut self, floors: &[u64], snapshot: &[u8]) {
        self.history.attach(snapshot.to_vec(), &self.floors_of(floors));
    }

    /// Where the log of each author begins whose changes are known without their ops.
    fn floors_of(&self, floors: &[u64]) -> Vec<(ReplicaId, u64)> {
        let authors = self.history.floors().into_iter().zip(floors);
        authors.map(|((author, end), floor)| (author, end.min(*floor))).collect()
    }

    /// The state as bytes.
    pub(crate) fn encode_state(&self) -> InColumns {
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
        encode_state(&times, self.entries.names(), count, records)
    }

    fn record(&self, entry: EntryIx, moves: impl Iterator<Item = MoveIx>) -> EntryRecord<'_> {
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
        let mut fields = FieldMap::default();
        drop(reader.read_entries(|record, names| {
            fields.learn(names, self.entries.states_mut().names_mut());
            self.join_entry((record, &fields), &here, &there, pending);
        }));
    }

    fn join_entry(
        &mut self,
        (record, fields): (&EntryRecord<'_>, &FieldMap),
        here: &dyn Fn(OpId) -> bool,
        there: &dyn Fn(OpId) -> bool,
        pending: &mut Pending,
    ) {
        let entry = self.entries.name(record.id);
        for one in &record.moves {
            if !here(one.op) {
                let parent = self.entries.name(one.parent);
                let is_first = record.moves.len() == 1 || record.id.creator() == Some(one.op);
                let kind = match one.trashed_at {
                    _ if one.is_within => MoveKind::Within,
                    None if is_first => MoveKind::Creation,
                    trashed_at => MoveKind::Into { trashed_at },
                };
                let (life, key) = (one.life, &one.key);
                let op = MoveOp { entry, life, parent, key, kind };
                let stamp = self.history.stamp_near(one.op, &pending.dated);
                pending.moves.push(self.tree.record(stamp, &op));
            }
        }
        for life in &record.lives {
            if let Creation::Link { target, .. } = life.creation {
                self.entries.name(target);
            }
        }
        let history = &self.history;
        let clock = |op: OpId| history.stamp_near(op, &pending.dated);
        let sides = Sides { here, there, clock: &clock };
        self.entries.states_mut().join((entry, record), fields, &sides, &mut self.watch);
        pending.changed.push(entry);
        self.digest.mark(entry);
    }
}

type OpIdKey = (ReplicaId, u64);

/// Of floors in order of author, that of one.
fn floor_of(floors: &[(ReplicaId, u64)], author: ReplicaId) -> u64 {
    let place = floors.binary_search_by_key(&author, |(author, _)| *author).ok();
    place.and_then(|place| floors.get(place)).map_or(0, |(_, floor)| *floor)
}

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

#[cfg(test)]
mod tests;
