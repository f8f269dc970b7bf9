//! Entries of a state, each relative to the one before, and how they are written.

use hashbrown::HashMap;

use super::super::columns::{Column, ColumnWriter, Sink};
use super::super::fields::write_field;
use super::super::keys::write_key;
use super::super::ops::{value_kind, write_content};
use super::super::zigzag;
use super::numbered;
use crate::id::{EntryId, Life, OpId, ReplicaId};
use crate::registers::{FieldIx, FieldNames};
use crate::state::{ContentRecord, Creation, EntryRecord, FieldRecord, LifeRecord, MoveRecord};
use crate::tree::OrderKey;

/// How an entry is named: an UUID that says nothing, or by the op that created it.
pub(super) const ID_RAW: u64 = 0;

/// The low bits of an entry's head. The most usual entry was created as an item in its first life.
pub(super) const IS_CREATED_ITEM: u64 = 1;
pub(super) const HAS_LIFE: u64 = 2;
/// A single move, by the op that the entry's id carries.
pub(super) const IS_PLACED_AT_ONCE: u64 = 4;
pub(super) const HEAD_BITS: u32 = 3;

/// The low bits of a move's head.
pub(super) const IS_WITHIN: u64 = 1;
pub(super) const IS_TIMED: u64 = 2;
pub(super) const MOVE_HAS_LIFE: u64 = 4;
pub(super) const MOVE_BITS: u32 = 3;

/// The number of a content's kind, when it is a text that was spliced.
pub(super) const SPLICED: u8 = 15;

/// What the next names are relative to.
#[derive(Debug)]
pub(super) struct Recent {
    /// The op that carries the id of the entry before, and of the parent named last.
    pub(super) entry: (u64, u64),
    pub(super) parent: Option<EntryId>,
    pub(super) key: Option<OrderKey>,
    pub(super) op: (u64, u64),
}

impl Recent {
    pub(super) const fn new() -> Self {
        Self { entry: (0, 0), parent: None, key: None, op: (0, 0) }
    }
}

/// Writes entries.
#[derive(Debug)]
pub(super) struct EntryWriter<'a> {
    pub(super) sink: ColumnWriter,
    pub(super) authors: &'a [ReplicaId],
    recent: Recent,
    names: &'a FieldNames,
    /// The numbers of the fields written so far.
    fields: HashMap<FieldIx, u64>,
}

impl<'a> EntryWriter<'a> {
    pub(super) fn new(sink: ColumnWriter, authors: &'a [ReplicaId], names: &'a FieldNames) -> Self {
        Self { sink, authors, recent: Recent::new(), names, fields: HashMap::new() }
    }

    pub(super) fn into_sink(self) -> ColumnWriter {
        self.sink
    }

    pub(super) fn entry(&mut self, entry: &EntryRecord<'_>) {
        self.id(entry.id);
        let is_item = *entry.lives == [LifeRecord { life: entry.life, creation: Creation::Item }];
        let at_once = self.is_placed_at_once(entry);
        let mut head = (entry.fields.len() as u64) << HEAD_BITS;
        head |= if is_item { IS_CREATED_ITEM } else { 0 };
        head |= if entry.life > Life::FIRST { HAS_LIFE } else { 0 };
        head |= if at_once { IS_PLACED_AT_ONCE } else { 0 };
        self.number(Column::Tag, head);
        if entry.life > Life::FIRST {
            self.number(Column::Number, entry.life.number().into());
        }
        if !is_item {
            self.lives(&entry.lives);
        }
        if !at_once {
            self.number(Column::Number, entry.moves.len() as u64);
        }
        for one in &entry.moves {
            self.one_move(one, at_once);
        }
        for one in &entry.fields {
            self.field(one, entry.id);
        }
    }

    fn is_placed_at_once(&self, entry: &EntryRecord<'_>) -> bool {
        let [one] = entry.moves.as_slice() else { return false };
        entry.id.creator() == Some(one.op)
            && one.life == Life::FIRST
            && !one.is_within
            && one.trashed_at.is_none()
    }

    /// The id, in steps from the one before.
    fn id(&mut self, id: EntryId) {
        let op = id.creator().filter(|op| self.authors.binary_search(&op.replica).is_ok());
        let Some(op) = op else {
            self.number(Column::Entry, ID_RAW);
            return self.sink.to(Column::Entry).raw(id.as_bytes());
        };
        let (author, counter) = numbered(op, self.authors);
        let (last_author, last) = std::mem::replace(&mut self.recent.entry, (author, counter));
        if author == last_author && counter > last {
            self.number(Column::Entry, (counter - last) << 1);
        } else {
            self.number(Column::Entry, author << 1 | 1);
            self.number(Column::Entry, counter);
        }
    }

    fn lives(&mut self, lives: &[LifeRecord]) {
        self.number(Column::Number, lives.len() as u64);
        for one in lives {
            self.number(Column::Number, one.life.number().into());
            match one.creation {
                Creation::None => self.number(Column::Field, 0),
                Creation::Item => self.number(Column::Field, 1),
                Creation::Link { target, op } => {
                    self.number(Column::Field, 2);
                    self.parent(target);
                    self.op(op);
                }
            }
        }
    }

    fn one_move(&mut self, one: &MoveRecord, at_once: bool) {
        if !at_once {
            let mut head = 0;
            head |= if one.is_within { IS_WITHIN } else { 0 };
            head |= if one.trashed_at.is_some() { IS_TIMED } else { 0 };
            head |= if one.life > Life::FIRST { MOVE_HAS_LIFE } else { 0 };
            self.number(Column::Field, head);
            if one.life > Life::FIRST {
                self.number(Column::Number, one.life.number().into());
            }
            if let Some(time) = one.trashed_at {
                self.sink.to(Column::Value).signed(time.as_millis());
            }
            self.op(one.op);
        }
        self.parent(one.parent);
        let last = self.recent.key.replace(one.key.clone());
        write_key(self.sink.to(Column::Key), last.as_ref(), one.op, &one.key);
    }

    fn field(&mut self, one: &FieldRecord<'_>, entry: EntryId) {
        let known = self.fields.len() as u64;
        let number = *self.fields.entry(one.field).or_insert(known);
        let kind = match &one.content {
            ContentRecord::Value(value) => value_kind(*value),
            ContentRecord::Text(_) => SPLICED,
        };
        let has_life = u64::from(one.life > Life::FIRST);
        self.number(Column::Field, number << 5 | has_life << 4 | u64::from(kind));
        if number == known {
            write_field(self.sink.to(Column::Field), self.names.field(one.field));
        }
        if one.life > Life::FIRST {
            self.number(Column::Number, one.life.number().into());
        }
        self.recent.op = self.base_of(entry);
        self.op(one.set);
        match &one.content {
            ContentRecord::Value(value) => write_content(self.sink.to(Column::Value), *value),
            ContentRecord::Text(text) => self.text(text),
        }
    }

    /// The op that carries an entry's id, to which ops on it are mostly near.
    fn base_of(&self, entry: EntryId) -> (u64, u64) {
        let op = entry.creator().filter(|op| self.authors.binary_search(&op.replica).is_ok());
        op.map_or((0, 0), |op| numbered(op, self.authors))
    }

    /// An op, as the step from the one before.
    pub(super) fn op(&mut self, op: OpId) {
        let (author, counter) = numbered(op, self.authors);
        let (last_author, last) = std::mem::replace(&mut self.recent.op, (author, counter));
        if author == last_author {
            let distance = counter.wrapping_sub(last).cast_signed();
            self.number(Column::Reference, zigzag(distance) << 1);
        } else {
            self.number(Column::Reference, author << 1 | 1);
            self.number(Column::Reference, counter);
        }
    }

    /// Says that the next op is expected to be this one.
    pub(super) fn skip_to(&mut self, op: OpId) {
        self.recent.op = numbered(op, self.authors);
    }

    fn parent(&mut self, parent: EntryId) {
        if self.recent.parent.replace(parent) == Some(parent) {
            return self.number(Column::Parent, 0);
        }
        let op = parent.creator().filter(|op| self.authors.binary_search(&op.replica).is_ok());
        match op {
            Some(op) => {
                let (author, counter) = numbered(op, self.authors);
                self.number(Column::Parent, author + 2);
                self.number(Column::Parent, counter);
            }
            None => {
                self.number(Column::Parent, 1);
                self.sink.to(Column::Parent).raw(parent.as_bytes());
            }
        }
    }

    pub(super) fn number(&mut self, column: Column, number: u64) {
        self.sink.to(column).varint(number);
    }
}
