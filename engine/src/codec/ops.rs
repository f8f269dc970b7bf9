//! Ops as bytes: a tag, then the op's parts. Ids are relative to the change's header, so that a
//! reference costs two or three bytes.
#![deny(clippy::indexing_slicing)]

use super::{Reader, Writer};
use crate::change::ChangeHeader;
use crate::error::DecodeError;
use crate::id::{EntryId, Life, OpId, Timestamp};
use crate::op::{IdRange, NewEntry, Op};
use crate::tree::OrderKey;
use crate::value::{BlobHash, BlobRef, Field, Value};

const CREATE_ITEM: u8 = 1;
const CREATE_LINK: u8 = 2;
const MOVE: u8 = 3;
const TRASH: u8 = 4;
const REORDER: u8 = 5;
const SET: u8 = 6;
const INSERT: u8 = 7;
const DELETE: u8 = 8;
const PURGE: u8 = 9;
const REVIVE: u8 = 10;
const SKIP: u8 = 11;

const KIND_BITS: u8 = 0x1f;
/// Set when the op's life is not the first, and so is written.
const HAS_LIFE: u8 = 0x80;
/// Reserved for text that was typed backwards (the left side of Fugue's tree).
const LEFT_SIDE: u8 = 0x40;

const ENTRY_RAW: u64 = 0;
const ENTRY_OWN: u64 = 4;
const ENTRY_DEP: u64 = 5;

/// Writes one op whose first counter is `at`.
pub(crate) fn encode_op(writer: &mut Writer, header: &ChangeHeader, at: u64, op: &Op) {
    OpWriter { writer, header, at }.op(op);
}

/// Reads the ops of a change up to the end of the bytes.
pub(crate) fn decode_ops(
    reader: &mut Reader<'_>,
    header: &ChangeHeader,
) -> Result<Vec<Op>, DecodeError> {
    let mut ops = Vec::new();
    let mut at = header.start;
    while !reader.is_empty() {
        let op = OpReader { reader, header, at }.op()?;
        if let Some(fault) = op.fault() {
            return Err(reader.malformed(fault));
        }
        at = match at.checked_add(op.span()) {
            Some(next) if next <= header.end() => next,
            _ => return Err(reader.malformed("more ops than the header counts")),
        };
        ops.push(op);
    }
    if at != header.end() {
        return Err(reader.malformed("fewer ops than the header counts"));
    }
    Ok(ops)
}

struct OpWriter<'a> {
    writer: &'a mut Writer,
    header: &'a ChangeHeader,
    at: u64,
}

impl OpWriter<'_> {
    fn op(&mut self, op: &Op) {
        match op {
            Op::Create { entry, life, kind, parent, key } => {
                let tag = if *kind == NewEntry::Item { CREATE_ITEM } else { CREATE_LINK };
                self.subject(tag, *entry, *life);
                self.entry(*parent);
                self.writer.sized(key.as_bytes());
                if let NewEntry::Link { target } = kind {
                    self.entry(*target);
                }
            }
            Op::Move { entry, life, key, trashed_at: Some(time), .. } => {
                self.subject(TRASH, *entry, *life);
                self.writer.sized(key.as_bytes());
                self.writer.signed(time.as_millis());
            }
            Op::Move { entry, life, parent, key, trashed_at: None } => {
                self.subject(MOVE, *entry, *life);
                self.entry(*parent);
                self.writer.sized(key.as_bytes());
            }
            Op::Reorder { entry, life, parent, key } => {
                self.subject(REORDER, *entry, *life);
                self.entry(*parent);
                self.writer.sized(key.as_bytes());
            }
            Op::Set { entry, life, field, value } => {
                self.subject(SET, *entry, *life);
                self.field(field);
                self.value(value);
            }
            Op::Insert { entry, life, field, set, origin, text } => {
                self.subject(INSERT, *entry, *life);
                self.field(field);
                self.seen(Some(*set));
                self.seen(*origin);
                self.writer.text(text);
            }
            Op::Delete { entry, life, field, set, ranges } => {
                self.subject(DELETE, *entry, *life);
                self.field(field);
                self.seen(Some(*set));
                self.writer.count(ranges.len());
                for range in ranges {
                    self.seen(Some(range.first));
                    self.writer.varint(range.len);
                }
            }
            Op::Purge { entries } => {
                self.writer.byte(PURGE);
                self.writer.count(entries.len());
                for (entry, life) in entries {
                    self.entry(*entry);
                    self.writer.varint(life.number().into());
                }
            }
            Op::Revive { entry, life } => self.subject(REVIVE, *entry, *life),
            Op::Skip { count } => {
                self.writer.byte(SKIP);
                self.writer.varint(*count);
            }
        }
    }

    fn subject(&mut self, kind: u8, entry: EntryId, life: Life) {
        if life == Life::FIRST {
            self.writer.byte(kind);
        } else {
            self.writer.byte(kind | HAS_LIFE);
            self.writer.varint(life.number().into());
        }
        self.entry(entry);
    }

    /// An entry by name: system entries in a byte, entries of known replicas by their op, any other
    /// in full.
    fn entry(&mut self, entry: EntryId) {
        let well_known = [EntryId::ROOT, EntryId::TRASH, EntryId::LOST_AND_FOUND];
        if let Some(place) = well_known.iter().position(|known| *known == entry) {
            return self.writer.count(place + 1);
        }
        match entry.creator() {
            Some(op) if op.replica == self.header.replica => {
                self.writer.varint(ENTRY_OWN);
                self.writer.signed(self.at.cast_signed() - op.counter.cast_signed());
            }
            Some(op) if self.dep_place(op).is_some() => {
                self.writer.varint(ENTRY_DEP + self.dep_place(op).unwrap_or_default());
                self.writer.varint(op.counter);
            }
            _ => {
                self.writer.varint(ENTRY_RAW);
                self.writer.raw(entry.as_bytes());
            }
        }
    }

    /// An op that the author had seen, or none: 0 for none, 1 for an own one, then the deps.
    fn seen(&mut self, op: Option<OpId>) {
        let Some(op) = op else { return self.writer.varint(0) };
        match self.dep_place(op) {
            Some(place) => {
                self.writer.varint(2 + place);
                self.writer.varint(op.counter);
            }
            None => {
                self.writer.varint(1);
                self.writer.varint(self.at.saturating_sub(op.counter));
            }
        }
    }

    fn dep_place(&self, op: OpId) -> Option<u64> {
        let place = self.header.deps.binary_search_by_key(&op.replica, |dep| dep.replica).ok()?;
        Some(place as u64)
    }

    fn field(&mut self, field: &Field) {
        match field {
            Field::Label => self.writer.byte(0),
            Field::Type => self.writer.byte(1),
            Field::Value => self.writer.byte(2),
            Field::Info(key) => {
                self.writer.byte(3);
                self.writer.text(key);
            }
        }
    }

    fn value(&mut self, value: &Value) {
        write_value(self.writer, value);
    }
}

/// Writes a value: a tag, then its content. The digest hashes the same bytes.
pub(crate) fn write_value(writer: &mut Writer, value: &Value) {
    match value {
        Value::None => writer.byte(0),
        Value::Bool(false) => writer.byte(1),
        Value::Bool(true) => writer.byte(2),
        Value::Int(number) => {
            writer.byte(3);
            writer.signed(*number);
        }
        Value::Float(number) => {
            writer.byte(4);
            writer.raw(&number.to_bits().to_le_bytes());
        }
        Value::Text(text) => {
            writer.byte(5);
            writer.text(text);
        }
        Value::Bytes(bytes) => {
            writer.byte(6);
            writer.sized(bytes);
        }
        Value::Json(text) => {
            writer.byte(7);
            writer.text(text);
        }
        Value::Blob(blob) => {
            writer.byte(if blob.is_text { 9 } else { 8 });
            writer.raw(&blob.hash.0);
            writer.varint(blob.size);
        }
    }
}

struct OpReader<'a, 'b> {
    reader: &'a mut Reader<'b>,
    header: &'a ChangeHeader,
    at: u64,
}

impl OpReader<'_, '_> {
    fn op(&mut self) -> Result<Op, DecodeError> {
        let tag = self.reader.byte()?;
        let kind = tag & KIND_BITS;
        if !(CREATE_ITEM..=SKIP).contains(&kind) {
            return Err(DecodeError::OpTooNew { replica: self.header.replica, kind });
        }
        if tag & !(KIND_BITS | HAS_LIFE) != 0 {
            let what = if tag & LEFT_SIDE != 0 { "reserved side bit" } else { "reserved tag bit" };
            return Err(self.reader.malformed(what));
        }
        match kind {
            PURGE | SKIP if tag & HAS_LIFE != 0 => Err(self.reader.malformed("life without entry")),
            PURGE => self.purge(),
            SKIP => Ok(Op::Skip { count: self.reader.varint()? }),
            _ => {
                let life = if tag & HAS_LIFE == 0 { Life::FIRST } else { self.later_life()? };
                let entry = self.entry()?;
                self.op_on(kind, entry, life)
            }
        }
    }

    fn op_on(&mut self, kind: u8, entry: EntryId, life: Life) -> Result<Op, DecodeError> {
        Ok(match kind {
            CREATE_ITEM | CREATE_LINK => {
                let (parent, key) = (self.entry()?, self.key()?);
                let kind = if kind == CREATE_ITEM {
                    NewEntry::Item
                } else {
                    NewEntry::Link { target: self.entry()? }
                };
                Op::Create { entry, life, kind, parent, key }
            }
            MOVE => {
                let (parent, key) = (self.entry()?, self.key()?);
                Op::Move { entry, life, parent, key, trashed_at: None }
            }
            TRASH => {
                let key = self.key()?;
                let trashed_at = Some(Timestamp::from_millis(self.reader.signed()?));
                Op::Move { entry, life, parent: EntryId::TRASH, key, trashed_at }
            }
            REORDER => {
                let (parent, key) = (self.entry()?, self.key()?);
                Op::Reorder { entry, life, parent, key }
            }
            SET => {
                let (field, value) = (self.field()?, self.value()?);
                Op::Set { entry, life, field, value }
            }
            INSERT => {
                let (field, set) = (self.field()?, self.set()?);
                let origin = self.seen()?;
                let text = self.reader.text()?.to_owned();
                Op::Insert { entry, life, field, set, origin, text }
            }
            DELETE => {
                let (field, set) = (self.field()?, self.set()?);
                Op::Delete { entry, life, field, set, ranges: self.ranges()? }
            }
            _ => Op::Revive { entry, life },
        })
    }

    fn purge(&mut self) -> Result<Op, DecodeError> {
        let count = self.reader.count(2)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push((self.entry()?, self.life()?));
        }
        Ok(Op::Purge { entries })
    }

    fn ranges(&mut self) -> Result<Vec<IdRange>, DecodeError> {
        let count = self.reader.count(3)?;
        let mut ranges = Vec::with_capacity(count);
        for _ in 0..count {
            let Some(first) = self.seen()? else {
                return Err(self.reader.malformed("range without a start"));
            };
            let len = self.reader.varint()?;
            let last = len.checked_sub(1).and_then(|more| first.counter.checked_add(more));
            match last {
                Some(counter) if self.is_seen(OpId { counter, ..first }) => {}
                _ => return Err(self.reader.malformed("range of characters not seen")),
            }
            ranges.push(IdRange { first, len });
        }
        Ok(ranges)
    }

    fn life(&mut self) -> Result<Life, DecodeError> {
        let number = self.reader.varint()?;
        u32::try_from(number)
            .ok()
            .and_then(Life::new)
            .ok_or_else(|| self.reader.malformed("life out of range"))
    }

    fn later_life(&mut self) -> Result<Life, DecodeError> {
        match self.life()? {
            Life::FIRST => Err(self.reader.malformed("first life written out")),
            life => Ok(life),
        }
    }

    fn entry(&mut self) -> Result<EntryId, DecodeError> {
        let head = self.reader.varint()?;
        match head {
            ENTRY_RAW => self.raw_entry(),
            1 => Ok(EntryId::ROOT),
            2 => Ok(EntryId::TRASH),
            3 => Ok(EntryId::LOST_AND_FOUND),
            ENTRY_OWN => {
                let back = self.reader.signed()?;
                let counter = self.at.cast_signed().checked_sub(back).unwrap_or(-1);
                self.created_by(OpId {
                    replica: self.header.replica,
                    counter: counter.cast_unsigned(),
                })
            }
            _ => {
                let dep = self.dep(head - ENTRY_DEP)?;
                let counter = self.reader.varint()?;
                self.created_by(OpId { counter, ..dep })
            }
        }
    }

    /// An entry by all its bytes, which must be one that has no shorter name: a change has one form.
    fn raw_entry(&mut self) -> Result<EntryId, DecodeError> {
        let entry = EntryId::from_bytes(self.reader.array()?);
        let has_shorter_name = entry.is_well_known()
            || entry.creator().is_some_and(|op| {
                let replica = op.replica;
                replica == self.header.replica
                    || self.header.deps.iter().any(|dep| dep.replica == replica)
            });
        if has_shorter_name {
            return Err(self.reader.malformed("entry written out although it has a short name"));
        }
        Ok(entry)
    }

    fn created_by(&self, op: OpId) -> Result<EntryId, DecodeError> {
        if op.counter > crate::limits::COUNTER_MAX {
            return Err(self.reader.malformed("counters out of range"));
        }
        Ok(EntryId::created_by(op))
    }

    fn dep(&self, place: u64) -> Result<OpId, DecodeError> {
        usize::try_from(place)
            .ok()
            .and_then(|place| self.header.deps.get(place).copied())
            .ok_or_else(|| self.reader.malformed("reference to a replica that is not in the deps"))
    }

    fn set(&mut self) -> Result<OpId, DecodeError> {
        self.seen()?.ok_or_else(|| self.reader.malformed("text edit without its text"))
    }

    fn seen(&mut self) -> Result<Option<OpId>, DecodeError> {
        let op = match self.reader.varint()? {
            0 => return Ok(None),
            1 => {
                let back = self.reader.varint()?;
                let counter = self.at.checked_sub(back);
                let counter =
                    counter.ok_or_else(|| self.reader.malformed("reference too far back"))?;
                OpId { replica: self.header.replica, counter }
            }
            head => OpId { counter: self.reader.varint()?, ..self.dep(head - 2)? },
        };
        if self.is_seen(op) {
            Ok(Some(op))
        } else {
            Err(self.reader.malformed("reference to an op not seen"))
        }
    }

    /// Whether the author had `op` when it made this one: an earlier one of its own, or one that the
    /// deps cover.
    fn is_seen(&self, op: OpId) -> bool {
        if op.replica == self.header.replica {
            return op.counter < self.at;
        }
        let deps = &self.header.deps;
        deps.iter().any(|dep| dep.replica == op.replica && op.counter <= dep.counter)
    }

    fn key(&mut self) -> Result<OrderKey, DecodeError> {
        let bytes = self.reader.sized()?;
        OrderKey::new(bytes)
            .ok_or_else(|| self.reader.malformed("order key without room beside it"))
    }

    fn field(&mut self) -> Result<Field, DecodeError> {
        Ok(match self.reader.byte()? {
            0 => Field::Label,
            1 => Field::Type,
            2 => Field::Value,
            3 => Field::Info(self.reader.text()?.into()),
            _ => return Err(self.reader.malformed("unknown field")),
        })
    }

    fn value(&mut self) -> Result<Value, DecodeError> {
        Ok(match self.reader.byte()? {
            0 => Value::None,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 => Value::Int(self.reader.signed()?),
            4 => Value::Float(f64::from_bits(u64::from_le_bytes(self.reader.array()?))),
            5 => Value::Text(self.reader.text()?.to_owned()),
            6 => Value::Bytes(self.reader.sized()?.to_vec()),
            7 => Value::Json(self.reader.text()?.to_owned()),
            tag @ (8 | 9) => Value::Blob(BlobRef {
                hash: BlobHash(self.reader.array()?),
                size: self.reader.varint()?,
                is_text: tag == 9,
            }),
            _ => return Err(self.reader.malformed("unknown kind of value")),
        })
    }
}
