//! Reading the entries of a state, none of which is trusted.
#![deny(clippy::indexing_slicing)]

use smallvec::SmallVec;

use super::super::columns::{Column, ColumnReader, Source};
use super::super::fields::read_field;
use super::super::keys::read_key;
use super::super::ops::read_content;
use super::super::unzigzag;
use super::entries::{
    HAS_LIFE, HEAD_BITS, ID_RAW, IS_CREATED_ITEM, IS_PLACED_AT_ONCE, IS_TIMED, IS_WITHIN,
    MOVE_BITS, MOVE_HAS_LIFE, Recent, SPLICED,
};
use crate::error::DecodeError;
use crate::id::{EntryId, Life, OpId, Timestamp};
use crate::limits::COUNTER_MAX;
use crate::registers::{FieldIx, FieldNames};
use crate::state::{
    ContentRecord, Creation, EntryRecord, FieldRecord, LifeRecord, MoveRecord, Times,
};
use crate::value::{ValueView, char_count};

/// Reads entries.
#[derive(Debug)]
pub(super) struct EntryReader<'a, 'b> {
    pub(super) source: ColumnReader<'b>,
    times: &'a [Times],
    recent: Recent,
    pub(super) names: FieldNames,
    /// The fields by the numbers that the state gives them.
    fields: Vec<FieldIx>,
    /// The ops of all moves.
    moved: Vec<OpId>,
}

impl<'a, 'b> EntryReader<'a, 'b> {
    pub(super) fn new(source: ColumnReader<'b>, times: &'a [Times]) -> Self {
        let (recent, names) = (Recent::new(), FieldNames::new());
        Self { source, times, recent, names, fields: Vec::new(), moved: Vec::new() }
    }

    /// Checks that everything was read, and that no op moves twice.
    pub(super) fn finish(mut self) -> Result<(), DecodeError> {
        let key = |op: &OpId| (op.replica, op.counter);
        // Entries stand in the order in which their authors created them, mostly by their only moves.
        self.moved.sort_unstable_by_key(key);
        if !self.moved.is_sorted_by(|a, b| key(a) < key(b)) {
            return Err(self.malformed("a move that moves twice"));
        }
        self.source.finish()
    }

    pub(super) fn entry(&mut self) -> Result<EntryRecord<'b>, DecodeError> {
        let id = self.id()?;
        let head = self.number(Column::Tag)?;
        let life = if head & HAS_LIFE == 0 { Life::FIRST } else { self.life()? };
        let lives = if head & IS_CREATED_ITEM == 0 {
            self.lives(life)?
        } else {
            SmallVec::from_elem(LifeRecord { life, creation: Creation::Item }, 1)
        };
        let at_once = head & IS_PLACED_AT_ONCE != 0;
        let count = if at_once { 1 } else { self.number(Column::Number)? };
        let count = self.source.from(Column::Key).fits(count, 1)?;
        let mut moves = SmallVec::with_capacity(count);
        for _ in 0..count {
            moves.push(self.one_move(id, at_once)?);
        }
        let count = self.source.from(Column::Field).fits(head >> HEAD_BITS, 1)?;
        let mut fields = SmallVec::with_capacity(count);
        for _ in 0..count {
            fields.push(self.field(id, life)?);
        }
        let entry = EntryRecord { id, life, lives, moves, fields };
        match fault(&entry) {
            Some(fault) => Err(self.malformed(fault)),
            None => Ok(entry),
        }
    }

    fn id(&mut self) -> Result<EntryId, DecodeError> {
        let head = self.number(Column::Entry)?;
        if head == ID_RAW {
            return Ok(EntryId::from_bytes(self.source.from(Column::Entry).array()?));
        }
        let (author, counter) = if head & 1 == 1 {
            (head >> 1, self.number(Column::Entry)?)
        } else {
            let (author, last) = self.recent.entry;
            (author, last.saturating_add(head >> 1))
        };
        self.recent.entry = (author, counter);
        self.created_by(author, counter)
    }

    fn created_by(&mut self, author: u64, counter: u64) -> Result<EntryId, DecodeError> {
        let replica = usize::try_from(author).ok().and_then(|author| self.times.get(author));
        match replica.map(|times| OpId { replica: times.author, counter }) {
            Some(op) if counter <= COUNTER_MAX => Ok(EntryId::created_by(op)),
            _ => Err(self.malformed("counters out of range")),
        }
    }

    fn lives(&mut self, current: Life) -> Result<SmallVec<[LifeRecord; 1]>, DecodeError> {
        let count = self.number(Column::Number)?;
        let count = self.source.from(Column::Field).fits(count, 1)?;
        let mut lives: SmallVec<[LifeRecord; 1]> = SmallVec::with_capacity(count);
        for _ in 0..count {
            let life = self.life()?;
            if life < current || lives.last().is_some_and(|last| last.life >= life) {
                return Err(self.malformed("lives not in order"));
            }
            let creation = match self.number(Column::Field)? {
                0 => Creation::None,
                1 => Creation::Item,
                2 => Creation::Link { target: self.parent()?, op: self.op()? },
                _ => return Err(self.malformed("unknown kind of entry")),
            };
            lives.push(LifeRecord { life, creation });
        }
        Ok(lives)
    }

    fn one_move(&mut self, entry: EntryId, at_once: bool) -> Result<MoveRecord, DecodeError> {
        let (mut is_within, mut trashed_at, mut life) = (false, None, Life::FIRST);
        let op = if at_once {
            let creator = entry.creator().filter(|op| self.is_here(*op));
            creator.ok_or_else(|| self.malformed("reference to an op not seen"))?
        } else {
            let head = self.number(Column::Field)?;
            if head >> MOVE_BITS != 0 {
                return Err(self.malformed("unknown kind of move"));
            }
            is_within = head & IS_WITHIN != 0;
            if head & MOVE_HAS_LIFE != 0 {
                life = self.life()?;
            }
            if head & IS_TIMED != 0 {
                let time = self.source.from(Column::Value).signed()?;
                trashed_at = Some(Timestamp::from_millis(time));
            }
            self.op()?
        };
        let parent = self.parent()?;
        let last = self.recent.key.take();
        let key = read_key(self.source.from(Column::Key), last.as_ref(), op)?;
        self.recent.key = Some(key.clone());
        self.moved.push(op);
        Ok(MoveRecord { op, life, parent, key, is_within, trashed_at })
    }

    fn field(&mut self, entry: EntryId, current: Life) -> Result<FieldRecord<'b>, DecodeError> {
        let head = self.number(Column::Field)?;
        let (number, has_life) = (head >> 5, head & 16 != 0);
        // Four bits.
        let kind = u8::try_from(head & 15).unwrap_or_default();
        if number == self.fields.len() as u64 {
            let field = read_field(self.source.from(Column::Field))?;
            self.fields.push(self.names.name(&field));
        }
        let field = usize::try_from(number).ok().and_then(|number| self.fields.get(number));
        let field = field.copied().ok_or_else(|| self.malformed("unknown field"))?;
        let life = if has_life { self.life()? } else { Life::FIRST };
        if life < current {
            return Err(self.malformed("a value of a life that is over"));
        }
        let creator = entry.creator();
        self.recent.op = creator.and_then(|op| self.number_of(op)).unwrap_or_default();
        let set = self.op()?;
        let content = if kind == SPLICED {
            ContentRecord::Text(self.text()?)
        } else {
            let value = read_content(self.source.from(Column::Value), kind)?;
            if let ValueView::Text(text) = value
                && !self.has_counters_for(set, text)
            {
                return Err(self.malformed("reference to an op not seen"));
            }
            ContentRecord::Value(value)
        };
        Ok(FieldRecord { field, life, set, content })
    }

    fn number_of(&self, op: OpId) -> Option<(u64, u64)> {
        let number = self.times.binary_search_by_key(&op.replica, |times| times.author).ok()?;
        Some((number as u64, op.counter))
    }

    /// Whether the state has seen an op.
    pub(super) fn is_here(&self, op: OpId) -> bool {
        let number = self.times.binary_search_by_key(&op.replica, |times| times.author);
        let times = number.ok().and_then(|number| self.times.get(number));
        times.is_some_and(|times| op.counter < times.next())
    }

    /// Whether the characters of a text that was set are ops that the state has seen.
    fn has_counters_for(&self, set: OpId, text: &str) -> bool {
        let reaches = |len: u64| self.is_here(set.plus(len.saturating_sub(1)));
        // There are no more characters than bytes, which need not be counted.
        reaches(text.len() as u64) || reaches(char_count(text))
    }

    pub(super) fn op(&mut self) -> Result<OpId, DecodeError> {
        let head = self.number(Column::Reference)?;
        let (author, counter) = if head & 1 == 1 {
            (head >> 1, self.number(Column::Reference)?)
        } else {
            let (author, last) = self.recent.op;
            (author, last.wrapping_add(unzigzag(head >> 1).cast_unsigned()))
        };
        self.recent.op = (author, counter);
        let times = usize::try_from(author).ok().and_then(|author| self.times.get(author));
        match times {
            Some(times) if counter < times.next() => Ok(OpId { replica: times.author, counter }),
            _ => Err(self.malformed("reference to an op not seen")),
        }
    }

    /// Says that the next op is expected to be this one, whose author is that of the last. Returns the
    /// author's number.
    pub(super) const fn skip_to(&mut self, op: OpId) -> u64 {
        self.recent.op.1 = op.counter;
        self.recent.op.0
    }

    /// Says that the last op was one of this author.
    pub(super) const fn go_on_with(&mut self, author: u64) {
        self.recent.op.0 = author;
    }

    fn parent(&mut self) -> Result<EntryId, DecodeError> {
        let parent = match self.number(Column::Parent)? {
            0 => self.recent.parent.ok_or_else(|| self.malformed("entry again"))?,
            1 => EntryId::from_bytes(self.source.from(Column::Parent).array()?),
            author => {
                let counter = self.number(Column::Parent)?;
                self.created_by(author - 2, counter)?
            }
        };
        self.recent.parent = Some(parent);
        Ok(parent)
    }

    fn life(&mut self) -> Result<Life, DecodeError> {
        let number = self.number(Column::Number)?;
        let life = u32::try_from(number).ok().and_then(Life::new);
        life.ok_or_else(|| self.malformed("life out of range"))
    }

    pub(super) fn number(&mut self, column: Column) -> Result<u64, DecodeError> {
        self.source.from(column).varint()
    }

    pub(super) fn malformed(&mut self, what: &'static str) -> DecodeError {
        self.source.from(Column::Tag).malformed(what)
    }
}

/// What no ops on a system entry can have led to: they set its fields and reorder it in its only life.
fn system_fault(entry: &EntryRecord<'_>) -> Option<&'static str> {
    let is_first = |life: Life| life == Life::FIRST;
    let is_touch = |one: &LifeRecord| is_first(one.life) && one.creation == Creation::None;
    if !is_first(entry.life)
        || !entry.lives.iter().all(is_touch)
        || !entry.fields.iter().all(|one| is_first(one.life))
    {
        return Some("a life that a system entry does not have");
    }
    let is_allowed = |one: &MoveRecord| {
        is_first(one.life)
            && one.is_within
            && one.parent == EntryId::ROOT
            && entry.id != EntryId::ROOT
    };
    (!entry.moves.iter().all(is_allowed)).then_some("a place that a system entry does not have")
}

/// What no ops can have led to.
fn fault(entry: &EntryRecord<'_>) -> Option<&'static str> {
    if entry.id.is_well_known()
        && let Some(fault) = system_fault(entry)
    {
        return Some(fault);
    }
    let is_timed = |one: &MoveRecord| one.trashed_at.is_some();
    let mut timed = entry.moves.iter().filter(|one| is_timed(one));
    if timed.any(|one| one.is_within || one.parent != EntryId::TRASH) {
        return Some("time of deletion outside the trash");
    }
    has_field_twice(&entry.fields).then_some("a field that has two values")
}

fn has_field_twice(fields: &[FieldRecord<'_>]) -> bool {
    // Those that all entries have mostly come in one order.
    if fields.is_sorted_by(|a, b| a.field < b.field) {
        return false;
    }
    let mut fields: SmallVec<[FieldIx; 8]> = fields.iter().map(|one| one.field).collect();
    fields.sort_unstable();
    !fields.is_sorted_by(|a, b| a < b)
}
