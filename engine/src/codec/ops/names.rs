//! Names of entries, ops and places, relative to what stands before them.

use smallvec::SmallVec;

use super::super::keys::{read_key, write_key};
use super::super::{Column, Sink, Source, unzigzag, zigzag};
use crate::error::DecodeError;
use crate::id::{EntryId, OpId, ReplicaId};
use crate::limits::COUNTER_MAX;
use crate::op::TextOp;
use crate::tree::OrderKey;
use crate::value::Field;

/// What ids are relative to: the author, and the other replicas that have a number, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) author: ReplicaId,
    /// Each with the counter from which distances are taken at first.
    pub(crate) others: &'a [OpId],
    /// Whether an op of another replica may only be referred to up to its counter in `others`: in a
    /// change, where these are the deps.
    pub(crate) is_bounded: bool,
}

impl Scope<'_> {
    fn number_of(&self, replica: ReplicaId) -> Option<usize> {
        self.others.binary_search_by_key(&replica, |other| other.replica).ok()
    }

    /// Whether the ops of another replica up to this one may be referred to where that is bounded.
    fn covers(&self, op: OpId) -> bool {
        let other = self.number_of(op.replica).and_then(|number| self.others.get(number));
        other.is_some_and(|other| op.counter <= other.counter)
    }
}

/// The two low bits of an entry's name say how it is named; the rest is a number.
const ENTRY_SPECIAL: u64 = 0;
const ENTRY_OWN: u64 = 1;
const ENTRY_OTHER: u64 = 2;
const ENTRY_AGAIN: u64 = 3;
const ENTRY_RAW: u64 = 0;

const CODE_BITS: u32 = 2;
const CODE_MASK: u64 = (1 << CODE_BITS) - 1;

/// How far behind its entry's creation a text may have been set to be named by the distance.
const SET_DISTANCE_MAX: u64 = 31;

const WELL_KNOWN: [EntryId; 3] = [EntryId::ROOT, EntryId::TRASH, EntryId::LOST_AND_FOUND];

/// What was named last, so that the next name can be short.
#[derive(Debug)]
struct Recent {
    entry: Option<EntryId>,
    parent: Option<EntryId>,
    key: Option<OrderKey>,
    /// The character before the cursor, as far as can be told from ids; see [`cursor_after`].
    cursor: Option<Option<OpId>>,
    /// The counter named last of each other replica.
    counters: SmallVec<[u64; 2]>,
}

impl Recent {
    fn new() -> Self {
        Self { entry: None, parent: None, key: None, cursor: None, counters: SmallVec::new() }
    }

    const fn entry(&mut self, column: Column) -> &mut Option<EntryId> {
        match column {
            Column::Parent => &mut self.parent,
            _ => &mut self.entry,
        }
    }

    /// The character before the cursor; at first the author's previous op.
    fn cursor(&self, scope: &Scope<'_>, at: u64) -> Option<OpId> {
        let previous = || Some(OpId { replica: scope.author, counter: at.checked_sub(1)? });
        self.cursor.unwrap_or_else(previous)
    }

    /// The counter from which the distance to one of the author's own is taken.
    fn own_base(&self, scope: &Scope<'_>, at: u64) -> u64 {
        let cursor = self.cursor(scope, at).filter(|cursor| cursor.replica == scope.author);
        cursor.map_or(at, |cursor| cursor.counter)
    }

    /// The counter from which the distance to the next one of another replica is taken.
    fn counter(&mut self, scope: &Scope<'_>, number: usize) -> Option<&mut u64> {
        if self.counters.is_empty() {
            self.counters.extend(scope.others.iter().map(|other| other.counter));
        }
        self.counters.get_mut(number)
    }
}

/// Writes names.
#[derive(Debug)]
pub(crate) struct NameWriter<'a, S> {
    pub(super) sink: S,
    scope: Scope<'a>,
    /// The first counter of the op that is being written.
    pub(super) at: u64,
    recent: Recent,
}

impl<'a, S: Sink> NameWriter<'a, S> {
    pub(super) fn new(sink: S, scope: Scope<'a>) -> Self {
        Self { sink, scope, at: 0, recent: Recent::new() }
    }

    pub(super) fn into_sink(self) -> S {
        self.sink
    }

    /// The character before the cursor.
    pub(super) fn cursor(&self) -> Option<OpId> {
        self.recent.cursor(&self.scope, self.at)
    }

    pub(super) fn move_cursor(&mut self, op: &TextOp<'_>, span: u64) {
        self.recent.cursor = Some(cursor_after(op, span, &self.scope, self.at));
    }

    /// The entry that this op creates, if it creates one.
    pub(super) fn created_here(&self) -> EntryId {
        EntryId::created_by(OpId { replica: self.scope.author, counter: self.at })
    }

    /// An entry, in the column that says which part it plays.
    pub(super) fn entry(&mut self, column: Column, entry: EntryId) {
        let recent = self.recent.entry(column);
        if *recent == Some(entry) {
            return self.sink.to(column).varint(ENTRY_AGAIN);
        }
        *recent = Some(entry);
        if let Some(place) = WELL_KNOWN.iter().position(|known| *known == entry) {
            return self.coded(column, ENTRY_SPECIAL, place as u64 + 1);
        }
        if let Some(op) = entry.creator() {
            if op.replica == self.scope.author && op.counter <= self.at {
                return self.coded(column, ENTRY_OWN, self.at - op.counter);
            }
            if let Some(number) = self.scope.number_of(op.replica) {
                self.coded(column, ENTRY_OTHER, number as u64);
                return self.distance(column, number, op.counter);
            }
        }
        self.coded(column, ENTRY_SPECIAL, ENTRY_RAW);
        self.sink.to(column).raw(entry.as_bytes());
    }

    /// An op that the author had seen, or none.
    pub(super) fn reference(&mut self, op: Option<OpId>) {
        let column = Column::Reference;
        let Some(op) = op else { return self.sink.to(column).varint(0) };
        match self.scope.number_of(op.replica) {
            Some(number) => {
                self.sink.to(column).varint((number as u64) << 1 | 1);
                self.distance(column, number, op.counter);
            }
            // Its own, unless the op is malformed; then the numbers do not matter.
            None => {
                let base = self.recent.own_base(&self.scope, self.at);
                let distance = zigzag(base.wrapping_sub(op.counter).cast_signed());
                self.sink.to(column).varint(distance.wrapping_add(1) << 1);
            }
        }
    }

    /// The field that holds a text of `entry`, and the `Set` that made it.
    pub(super) fn text(&mut self, entry: EntryId, field: &Field, set: OpId) {
        match set_distance(entry, set) {
            Some(distance) => self.field(field, distance),
            None => {
                self.field(field, 0);
                self.reference(Some(set));
            }
        }
    }

    /// The place of an entry among its siblings.
    pub(super) fn key(&mut self, key: &OrderKey) {
        let op = OpId { replica: self.scope.author, counter: self.at };
        let last = self.recent.key.replace(key.clone());
        write_key(self.sink.to(Column::Key), last.as_ref(), op, key);
    }

    fn coded(&mut self, column: Column, code: u64, number: u64) {
        self.sink.to(column).varint(number << CODE_BITS | code);
    }

    fn distance(&mut self, column: Column, number: usize, counter: u64) {
        if let Some(last) = self.recent.counter(&self.scope, number) {
            let distance = last.wrapping_sub(counter).cast_signed();
            *last = counter;
            self.sink.to(column).signed(distance);
        }
    }
}

/// Reads names.
#[derive(Debug)]
pub(crate) struct NameReader<'a, S> {
    pub(super) source: S,
    scope: Scope<'a>,
    pub(super) at: u64,
    recent: Recent,
}

impl<'a, 'b, S: Source<'b>> NameReader<'a, S> {
    pub(super) fn new(source: S, scope: Scope<'a>) -> Self {
        Self { source, scope, at: 0, recent: Recent::new() }
    }

    pub(super) fn into_source(self) -> S {
        self.source
    }

    pub(super) const fn author(&self) -> ReplicaId {
        self.scope.author
    }

    pub(super) fn cursor(&self) -> Option<OpId> {
        self.recent.cursor(&self.scope, self.at)
    }

    #[inline]
    pub(super) fn move_cursor(&mut self, op: &TextOp<'_>, span: u64) {
        self.recent.cursor = Some(cursor_after(op, span, &self.scope, self.at));
    }

    pub(super) fn created_here(&self) -> EntryId {
        EntryId::created_by(OpId { replica: self.scope.author, counter: self.at })
    }

    pub(super) fn entry(&mut self, column: Column) -> Result<EntryId, DecodeError> {
        let head = self.source.from(column).varint()?;
        let number = head >> CODE_BITS;
        let entry = match head & CODE_MASK {
            ENTRY_AGAIN => {
                let recent = *self.recent.entry(column);
                recent.filter(|_| number == 0).ok_or_else(|| self.malformed(column, "entry again"))
            }
            ENTRY_OWN => match self.at.checked_sub(number) {
                Some(counter) => self.created_by(column, OpId { replica: self.author(), counter }),
                None => Err(self.malformed(column, "counters out of range")),
            },
            ENTRY_OTHER => {
                let op = self.distance(column, number)?;
                self.created_by(column, op)
            }
            _ if number == ENTRY_RAW => Ok(EntryId::from_bytes(self.source.from(column).array()?)),
            _ => {
                let place = usize::try_from(number - 1).unwrap_or(usize::MAX);
                let known = WELL_KNOWN.get(place).copied();
                known.ok_or_else(|| self.malformed(column, "unknown system entry"))
            }
        }?;
        *self.recent.entry(column) = Some(entry);
        Ok(entry)
    }

    pub(super) fn reference(&mut self) -> Result<Option<OpId>, DecodeError> {
        let column = Column::Reference;
        let head = self.source.from(column).varint()?;
        let op = match (head & 1, head >> 1) {
            (0, 0) => return Ok(None),
            (0, distance) => {
                let base = self.recent.own_base(&self.scope, self.at);
                let counter = base.wrapping_sub(unzigzag(distance - 1).cast_unsigned());
                OpId { replica: self.author(), counter }
            }
            (_, number) => self.distance(column, number)?,
        };
        if !self.may_refer_to(op) {
            return Err(self.malformed(column, "reference to an op not seen"));
        }
        Ok(Some(op))
    }

    /// Whether the author can have had `op` when it made this one: an earlier one of its own, or one
    /// that the deps cover.
    pub(super) fn may_refer_to(&self, op: OpId) -> bool {
        if op.replica == self.author() {
            return op.counter < self.at;
        }
        op.counter <= COUNTER_MAX && (!self.scope.is_bounded || self.scope.covers(op))
    }

    pub(super) fn text(&mut self, entry: EntryId) -> Result<(Field, OpId), DecodeError> {
        let (field, distance) = self.field()?;
        let column = Column::Field;
        if distance == 0 {
            let set = self.reference()?;
            let set = set.ok_or_else(|| self.malformed(column, "text edit without its text"))?;
            return Ok((field, set));
        }
        let creator = entry.creator().filter(|_| distance <= SET_DISTANCE_MAX);
        match creator.map(|creator| creator.plus(distance)) {
            Some(set) if self.may_refer_to(set) => Ok((field, set)),
            _ => Err(self.malformed(column, "reference to an op not seen")),
        }
    }

    pub(super) fn key(&mut self) -> Result<OrderKey, DecodeError> {
        let op = OpId { replica: self.scope.author, counter: self.at };
        let last = self.recent.key.take();
        let key = read_key(self.source.from(Column::Key), last.as_ref(), op)?;
        self.recent.key = Some(key.clone());
        Ok(key)
    }

    fn created_by(&mut self, column: Column, op: OpId) -> Result<EntryId, DecodeError> {
        if op.counter > COUNTER_MAX {
            return Err(self.malformed(column, "counters out of range"));
        }
        Ok(EntryId::created_by(op))
    }

    fn distance(&mut self, column: Column, number: u64) -> Result<OpId, DecodeError> {
        let distance = self.source.from(column).signed()?.cast_unsigned();
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        match (self.scope.others.get(number), self.recent.counter(&self.scope, number)) {
            (Some(other), Some(last)) => {
                *last = last.wrapping_sub(distance);
                Ok(OpId { counter: *last, ..*other })
            }
            _ => Err(self.malformed(column, "reference to a replica that has no number")),
        }
    }

    fn malformed(&mut self, column: Column, what: &'static str) -> DecodeError {
        self.source.from(column).malformed(what)
    }
}

/// The character before the cursor after an edit whose first counter is `at`: the last one typed,
/// or the one with the id before those deleted, which mostly stood there.
fn cursor_after(op: &TextOp<'_>, span: u64, scope: &Scope<'_>, at: u64) -> Option<OpId> {
    match op {
        TextOp::Delete { range, .. } => {
            Some(OpId { counter: range.first.counter.checked_sub(1)?, ..range.first })
        }
        TextOp::Insert { .. } => Some(OpId { replica: scope.author, counter: at + span - 1 }),
    }
}

/// How far behind its entry's creation, by the same replica, a text was set; if that is near.
fn set_distance(entry: EntryId, set: OpId) -> Option<u64> {
    let creator = entry.creator().filter(|creator| creator.replica == set.replica)?;
    let distance = set.counter.checked_sub(creator.counter)?;
    (1..=SET_DISTANCE_MAX).contains(&distance).then_some(distance)
}
