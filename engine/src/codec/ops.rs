//! Ops as bytes: a tag, then the op's parts, each relative to what stands before it, so that what
//! people do most takes least.
//!
//! The same parts in the same order make up a change and a block; only where they go differs
//! (`columns`), and how much stands before. `docs/format.md` gives the bytes.
#![deny(clippy::indexing_slicing)]

mod names;
mod values;

use super::columns::{Column, Sink, Source};
use crate::error::DecodeError;
use crate::id::{EntryId, Life, OpId, Timestamp};
use crate::op::{IdRange, NewEntry, Op, OpList, OpView, Target, TextEdit, TextOp};
use crate::value::Field;
pub(crate) use names::{NameReader, NameWriter, Scope};
pub(crate) use values::{
    BYTES_KIND, TEXT_KIND, TEXT_KINDS, read_content, value_kind, write_content,
};

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
/// A deletion of characters from the last to the first.
const DELETE_BACK: u8 = 12;
/// The same three where the cursor is.
const TYPE: u8 = 13;
const ERASE: u8 = 14;
const ERASE_BACK: u8 = 15;

const KIND_BITS: u8 = 0x1f;
/// Set when the op's life is not the first, and so is written.
const HAS_LIFE: u8 = 0x80;
/// Reserved for text that was typed backwards (the left side of Fugue's tree).
const LEFT_SIDE: u8 = 0x40;
/// Set when the subject need not be named: the entry is the one that this op creates, or the text
/// is the one that was edited before.
const IS_IMPLIED: u8 = 0x20;

/// For so many purged entries room is made before they are read.
const PURGED_AT_ONCE: usize = 1 << 12;

/// The text that was edited last.
type EditedText = (EntryId, Life, Field, OpId);

/// Writes ops.
#[derive(Debug)]
pub(crate) struct OpWriter<'a, S> {
    names: NameWriter<'a, S>,
    text: Option<EditedText>,
    /// Whether the op is all there is, so that its length is known.
    is_alone: bool,
}

impl<'a, S: Sink> OpWriter<'a, S> {
    pub(crate) fn new(sink: S, scope: Scope<'a>, is_alone: bool) -> Self {
        Self { names: NameWriter::new(sink, scope), text: None, is_alone }
    }

    pub(crate) fn into_sink(self) -> S {
        self.names.into_sink()
    }

    /// Where the parts go.
    pub(crate) const fn sink(&mut self) -> &mut S {
        &mut self.names.sink
    }

    /// Takes note of an op that is not written.
    pub(crate) fn pass(&mut self, at: u64, op: &OpView<'_>) {
        self.names.at = at;
        if let OpView::Text(edit) = op {
            let Target { entry, life, field, set } = edit.target;
            self.text = Some((entry, life, field.clone(), set));
            self.names.move_cursor(&edit.op, edit.span);
        }
    }

    /// Writes one op whose first counter is `at`.
    pub(crate) fn op(&mut self, at: u64, op: &OpView<'_>) {
        self.names.at = at;
        match op {
            OpView::Text(edit) => self.text_edit(edit),
            OpView::Other(op) => self.other_op(op),
        }
    }

    fn other_op(&mut self, op: &Op) {
        match op {
            Op::Create { entry, life, kind, parent, key } => {
                let tag = if *kind == NewEntry::Item { CREATE_ITEM } else { CREATE_LINK };
                self.created(tag, *entry, *life);
                self.names.entry(Column::Parent, *parent);
                self.names.key(key);
                if let NewEntry::Link { target } = kind {
                    self.names.entry(Column::Parent, *target);
                }
            }
            Op::Move { entry, life, key, trashed_at: Some(time), .. } => {
                self.subject(TRASH, *entry, *life);
                self.names.key(key);
                self.names.sink.to(Column::Value).signed(time.as_millis());
            }
            Op::Move { entry, life, parent, key, trashed_at: None } => {
                self.subject(MOVE, *entry, *life);
                self.names.entry(Column::Parent, *parent);
                self.names.key(key);
            }
            Op::Reorder { entry, life, parent, key } => {
                self.subject(REORDER, *entry, *life);
                self.names.entry(Column::Parent, *parent);
                self.names.key(key);
            }
            Op::Set { entry, life, field, value } => {
                self.subject(SET, *entry, *life);
                self.names.value(field, value);
            }
            Op::Insert { .. } | Op::Delete { .. } => {}
            Op::Purge { entries } => {
                self.tag(PURGE);
                self.number(entries.len() as u64);
                for (entry, life) in entries {
                    self.names.entry(Column::Entry, *entry);
                    self.number(life.number().into());
                }
            }
            Op::Revive { entry, life } => self.subject(REVIVE, *entry, *life),
            Op::Skip { count } => {
                self.tag(SKIP);
                self.number(*count);
            }
        }
    }

    fn text_edit(&mut self, edit: &TextEdit<'_>) {
        let place = edit.op.place();
        let is_here = place == self.names.cursor();
        let kind = match (edit.op, is_here) {
            (TextOp::Delete { backwards: true, .. }, false) => DELETE_BACK,
            (TextOp::Delete { backwards: true, .. }, true) => ERASE_BACK,
            (TextOp::Delete { .. }, false) => DELETE,
            (TextOp::Delete { .. }, true) => ERASE,
            (_, false) => INSERT,
            (_, true) => TYPE,
        };
        self.edited_text(kind, &edit.target);
        if !is_here {
            self.names.reference(place);
        }
        self.length(edit.span);
        if let TextOp::Insert { text, .. } = edit.op {
            self.names.sink.to(Column::Text).raw(text.as_bytes());
        }
        self.names.move_cursor(&edit.op, edit.span);
    }

    fn tag(&mut self, tag: u8) {
        self.names.sink.to(Column::Tag).byte(tag);
    }

    fn number(&mut self, number: u64) {
        self.names.sink.to(Column::Number).varint(number);
    }

    fn length(&mut self, length: u64) {
        if !self.is_alone {
            self.number(length);
        }
    }

    fn tag_with_life(&mut self, tag: u8, life: Life) {
        if life == Life::FIRST {
            self.tag(tag);
        } else {
            self.tag(tag | HAS_LIFE);
            self.number(life.number().into());
        }
    }

    fn subject(&mut self, kind: u8, entry: EntryId, life: Life) {
        self.tag_with_life(kind, life);
        self.names.entry(Column::Entry, entry);
    }

    fn created(&mut self, kind: u8, entry: EntryId, life: Life) {
        if entry == self.names.created_here() {
            self.tag_with_life(kind | IS_IMPLIED, life);
        } else {
            self.subject(kind, entry, life);
        }
    }

    fn edited_text(&mut self, kind: u8, target: &Target<'_>) {
        let Target { entry, life, field, set } = *target;
        let is_same = self
            .text
            .as_ref()
            .is_some_and(|last| (last.0, last.1, last.3) == (entry, life, set) && last.2 == *field);
        if is_same {
            return self.tag(kind | IS_IMPLIED);
        }
        self.subject(kind, entry, life);
        self.names.text(entry, field, set);
        self.text = Some((entry, life, field.clone(), set));
    }
}

/// Reads ops.
#[derive(Debug)]
pub(crate) struct OpReader<'a, S> {
    names: NameReader<'a, S>,
    /// The length of the op, if it is all there is.
    alone: Option<u64>,
}

impl<'a, 'b, S: Source<'b>> OpReader<'a, S> {
    pub(crate) fn new(source: S, scope: Scope<'a>, alone: Option<u64>) -> Self {
        Self { names: NameReader::new(source, scope), alone }
    }

    pub(crate) fn into_source(self) -> S {
        self.names.into_source()
    }

    /// Where the parts are read from.
    pub(crate) const fn source(&mut self) -> &mut S {
        &mut self.names.source
    }

    /// Takes note of an op that was not written, but is among those before.
    pub(crate) fn pass(&mut self, at: u64, op: &OpView<'_>) {
        self.names.at = at;
        if let OpView::Text(edit) = op {
            self.names.move_cursor(&edit.op, edit.span);
        }
    }

    /// Where parts of this kind are read from.
    pub(crate) fn column(&mut self, column: Column) -> &mut super::Reader<'b> {
        self.names.source.from(column)
    }

    /// Reads the op whose first counter is `at`, and adds it to those before it. Returns how many
    /// counters it takes.
    #[inline]
    pub(crate) fn op(&mut self, at: u64, ops: &mut OpList) -> Result<u64, DecodeError> {
        let tag = self.column(Column::Tag).byte()?;
        self.op_with_tag(at, tag, ops)
    }

    /// The same, behind its tag.
    #[inline]
    pub(crate) fn op_with_tag(
        &mut self,
        at: u64,
        tag: u8,
        ops: &mut OpList,
    ) -> Result<u64, DecodeError> {
        self.names.at = at;
        let kind = tag & KIND_BITS;
        if !(CREATE_ITEM..=ERASE_BACK).contains(&kind) {
            return Err(DecodeError::OpTooNew { replica: self.names.author(), kind });
        }
        if tag & LEFT_SIDE != 0 {
            return Err(self.malformed("reserved side bit"));
        }
        let life = if tag & HAS_LIFE == 0 { Life::FIRST } else { self.later_life()? };
        let is_implied = tag & IS_IMPLIED != 0;
        if matches!(kind, INSERT | DELETE | DELETE_BACK | TYPE | ERASE | ERASE_BACK) {
            self.text(life, is_implied, ops)?;
            return self.text_op(kind, ops);
        }
        let op = match kind {
            PURGE | SKIP if tag != kind => Err(self.malformed("flags of an op without entry")),
            PURGE => self.purge(),
            SKIP => Ok(Op::Skip { count: self.number()? }),
            CREATE_ITEM | CREATE_LINK if is_implied => {
                let entry = self.names.created_here();
                self.create(kind, entry, life)
            }
            _ if is_implied => Err(self.malformed("an entry that is not named")),
            _ => {
                let entry = self.names.entry(Column::Entry)?;
                self.op_on(kind, entry, life)
            }
        }?;
        if let Some(fault) = op.fault() {
            return Err(self.malformed(fault));
        }
        let span = op.span();
        ops.push(op);
        Ok(span)
    }

    fn op_on(&mut self, kind: u8, entry: EntryId, life: Life) -> Result<Op, DecodeError> {
        Ok(match kind {
            CREATE_ITEM | CREATE_LINK => self.create(kind, entry, life)?,
            MOVE => {
                let (parent, key) = (self.names.entry(Column::Parent)?, self.names.key()?);
                Op::Move { entry, life, parent, key, trashed_at: None }
            }
            TRASH => {
                let key = self.names.key()?;
                let time = self.column(Column::Value).signed()?;
                let trashed_at = Some(Timestamp::from_millis(time));
                Op::Move { entry, life, parent: EntryId::TRASH, key, trashed_at }
            }
            REORDER => {
                let (parent, key) = (self.names.entry(Column::Parent)?, self.names.key()?);
                Op::Reorder { entry, life, parent, key }
            }
            SET => {
                let (field, value) = self.names.value()?;
                Op::Set { entry, life, field, value }
            }
            _ => Op::Revive { entry, life },
        })
    }

    fn create(&mut self, kind: u8, entry: EntryId, life: Life) -> Result<Op, DecodeError> {
        let (parent, key) = (self.names.entry(Column::Parent)?, self.names.key()?);
        let kind = if kind == CREATE_ITEM {
            NewEntry::Item
        } else {
            NewEntry::Link { target: self.names.entry(Column::Parent)? }
        };
        Ok(Op::Create { entry, life, kind, parent, key })
    }

    /// Reads which text an edit is about, if that is not the one of the edit before.
    #[inline]
    fn text(&mut self, life: Life, is_implied: bool, ops: &mut OpList) -> Result<(), DecodeError> {
        if is_implied {
            return match ops.last_text() {
                _ if life != Life::FIRST => {
                    Err(self.malformed("a life of a text that is not named"))
                }
                None => Err(self.malformed("a text that is not named")),
                Some(_) => Ok(()),
            };
        }
        let entry = self.names.entry(Column::Entry)?;
        let (field, set) = self.names.text(entry)?;
        let target = Target { entry, life, field: &field, set };
        if let Some(fault) = target.fault() {
            return Err(self.malformed(fault));
        }
        ops.name_text(&target);
        Ok(())
    }

    #[inline]
    fn text_op(&mut self, kind: u8, ops: &mut OpList) -> Result<u64, DecodeError> {
        let is_here = matches!(kind, TYPE | ERASE | ERASE_BACK);
        let place = if is_here { self.names.cursor() } else { self.names.reference()? };
        let len = self.length()?;
        if len == 0 {
            return Err(self.malformed("an edit of no characters"));
        }
        let op = if matches!(kind, INSERT | TYPE) {
            TextOp::Insert { origin: place, text: self.column(Column::Text).chars(len)? }
        } else {
            let backwards = matches!(kind, DELETE_BACK | ERASE_BACK);
            TextOp::Delete { range: self.range(place, len, backwards)?, backwards }
        };
        if let Some(fault) = op.fault() {
            return Err(self.malformed(fault));
        }
        self.names.move_cursor(&op, len);
        ops.push_text_op(&op, len);
        Ok(len)
    }

    /// The characters that a deletion of `len` after or, backwards, up to a place means.
    fn range(
        &mut self,
        place: Option<OpId>,
        len: u64,
        backwards: bool,
    ) -> Result<IdRange, DecodeError> {
        let range = place.zip(len.checked_sub(1)).and_then(|(place, more)| {
            let first = if backwards { place.counter.checked_sub(more)? } else { place.counter };
            let last = OpId { counter: first.checked_add(more)?, ..place };
            let first = OpId { counter: first, ..place };
            self.names.may_refer_to(last).then_some(IdRange { first, len })
        });
        range.ok_or_else(|| self.malformed("range of characters not seen"))
    }

    fn purge(&mut self) -> Result<Op, DecodeError> {
        let count = self.number()?;
        // Each of them takes at least a byte of a name and one of a life, which may be in two columns or
        // in one: what is claimed may still be twice of what can be there, at many times the size.
        self.column(Column::Number).fits(count, 1)?;
        let count = self.column(Column::Entry).fits(count, 1)?;
        let mut entries = Vec::with_capacity(count.min(PURGED_AT_ONCE));
        for _ in 0..count {
            entries.push((self.names.entry(Column::Entry)?, self.life()?));
        }
        Ok(Op::Purge { entries })
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        self.column(Column::Number).varint()
    }

    fn length(&mut self) -> Result<u64, DecodeError> {
        match self.alone {
            Some(length) => Ok(length),
            None => self.number(),
        }
    }

    fn life(&mut self) -> Result<Life, DecodeError> {
        let number = self.number()?;
        u32::try_from(number)
            .ok()
            .and_then(Life::new)
            .ok_or_else(|| self.malformed("life out of range"))
    }

    fn later_life(&mut self) -> Result<Life, DecodeError> {
        match self.life()? {
            Life::FIRST => Err(self.malformed("first life written out")),
            life => Ok(life),
        }
    }

    fn malformed(&mut self, what: &'static str) -> DecodeError {
        self.column(Column::Tag).malformed(what)
    }
}
