//! The registers of an entry as bytes, one after the other: what most entries hold takes less than
//! pointers to it would.
//!
//! Of each: flags and kind of value in a byte, field, life unless it is the first, author unless it is
//! that of the one before, Lamport time and counter as steps from the one before, the value. The bytes
//! never leave the process, so that their form may change at any time.

use std::ops::Range;

use super::{ContentView, FieldIx, RegisterView};
use crate::codec::{
    BYTES_KIND, Reader, TEXT_KINDS, Writer, read_content, value_kind, write_content,
};
use crate::id::{Life, Stamp};

/// Registers of more bytes are not packed, since all are copied when one is set.
const BYTES_MAX: usize = if cfg!(any(test, feature = "small-nodes")) { 64 } else { 512 };

const HAS_LIFE: u8 = 1;
const HAS_AUTHOR: u8 = 2;
const FLAG_BITS: u32 = 2;

/// What stands before a value, and a number, mostly take no more.
pub(super) const HEAD_BYTES: usize = 24;

/// Registers as bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Packed(Box<[u8]>);

impl Packed {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The registers, in the order in which they were packed.
    pub(super) fn iter(&self) -> impl Iterator<Item = RegisterView<'_>> {
        let mut unpacker = Unpacker::new(&self.0);
        std::iter::from_fn(move || {
            let head = unpacker.head()?;
            unpacker.register(&head)
        })
    }

    /// The register of a field.
    pub(super) fn get(&self, field: FieldIx) -> Option<RegisterView<'_>> {
        let (mut unpacker, head) = self.seek(field)?;
        unpacker.register(&head)
    }

    /// The same if it holds no text, none of which is looked at.
    pub(super) fn get_other(&self, field: FieldIx) -> Option<RegisterView<'_>> {
        let (mut unpacker, head) = self.seek(field)?;
        if TEXT_KINDS.contains(&head.kind) { None } else { unpacker.register(&head) }
    }

    /// The life and stamp of the register of a field.
    pub(super) fn rank(&self, field: FieldIx) -> Option<(Life, Stamp)> {
        let (unpacker, head) = self.seek(field)?;
        Some((head.life, unpacker.last))
    }

    /// Goes to the value of a field.
    fn seek(&self, field: FieldIx) -> Option<(Unpacker<'_>, Head)> {
        let mut unpacker = Unpacker::new(&self.0);
        loop {
            let head = unpacker.head()?;
            if head.field == field {
                return Some((unpacker, head));
            }
            unpacker.skip(&head)?;
        }
    }

    /// These registers as bytes, unless one is missing or holds a text that was spliced, or there is too
    /// much of them. They are expected to take so many bytes.
    pub(super) fn of<'a>(
        registers: impl Iterator<Item = Option<RegisterView<'a>>>,
        expected: usize,
    ) -> Option<Self> {
        let mut writer = Writer::with_capacity(expected);
        pack(&mut writer, registers)?;
        Some(Self(writer.into_bytes().into()))
    }

    /// Those of the registers that are to be kept.
    pub(super) fn filtered(&self, keep: impl Fn(&RegisterView<'_>) -> bool) -> Option<Self> {
        Self::of(self.iter().filter(keep).map(Some), self.0.len())
    }

    /// Sets a register, which becomes the last one, if there is room for it. Whether there was.
    pub(super) fn set(&mut self, register: &RegisterView<'_>) -> bool {
        let (old, before) = self.find(register.field);
        let mut writer = Writer::with_capacity(HEAD_BYTES + register.size());
        if old.end == self.0.len() {
            if write(&mut writer, old.start, register, before).is_none() {
                return false;
            }
            if writer.len() == old.len() {
                self.0[old].copy_from_slice(writer.as_slice());
            } else {
                self.0 = [&self.0[..old.start], writer.as_slice()].concat().into();
            }
            return true;
        }
        let others = self.iter().filter(|known| known.field != register.field);
        if pack(&mut writer, others.chain([*register]).map(Some)).is_none() {
            return false;
        }
        self.0 = writer.into_bytes().into();
        true
    }

    /// Where the register of a field is, or would be added, and the stamp of the one before.
    fn find(&self, field: FieldIx) -> (Range<usize>, Stamp) {
        let mut unpacker = Unpacker::new(&self.0);
        loop {
            let (start, before) = (unpacker.reader.position(), unpacker.last);
            let Some(head) = unpacker.head() else { return (start..self.0.len(), before) };
            let is_it = head.field == field;
            if unpacker.skip(&head).is_none() || is_it {
                return (start..unpacker.reader.position(), before);
            }
        }
    }
}

/// Writes registers, if all are there, have room, and hold no text that was spliced.
fn pack<'a>(
    writer: &mut Writer,
    registers: impl Iterator<Item = Option<RegisterView<'a>>>,
) -> Option<()> {
    let mut last = Stamp::ZERO;
    for register in registers {
        let register = register?;
        write(writer, writer.len(), &register, last)?;
        last = register.stamp;
    }
    Some(())
}

/// Writes a register behind so many bytes, of which the last register has the stamp `last`, on the same
/// conditions.
fn write(
    writer: &mut Writer,
    start: usize,
    register: &RegisterView<'_>,
    last: Stamp,
) -> Option<()> {
    let RegisterView { stamp, life, field, content } = *register;
    let ContentView::Value(value) = content else { return None };
    if start + value.size() > BYTES_MAX {
        return None;
    }
    let is_first = life == Life::FIRST;
    let has_author = start == 0 || stamp.replica != last.replica;
    let flags = if is_first { 0 } else { HAS_LIFE } | if has_author { HAS_AUTHOR } else { 0 };
    writer.byte(value_kind(value) << FLAG_BITS | flags);
    writer.varint(field.raw().into());
    if !is_first {
        writer.varint(life.number().into());
    }
    if has_author {
        writer.replica(stamp.replica);
    }
    writer.signed(stamp.lamport.wrapping_sub(last.lamport).cast_signed());
    writer.signed(stamp.counter.wrapping_sub(last.counter).cast_signed());
    write_content(writer, value);
    Some(())
}

/// Reads what [`pack`] has written: nothing of it can fail.
struct Unpacker<'a> {
    reader: Reader<'a>,
    /// That of the register before.
    last: Stamp,
}

/// A register before its value.
struct Head {
    field: FieldIx,
    life: Life,
    kind: u8,
}

impl<'a> Unpacker<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes), last: Stamp::ZERO }
    }

    /// The next register, with its stamp as the last one.
    fn head(&mut self) -> Option<Head> {
        let reader = &mut self.reader;
        let flags = reader.byte().ok()?;
        let field = u32::try_from(reader.varint().ok()?).ok().and_then(FieldIx::from_raw)?;
        let life = if flags & HAS_LIFE == 0 {
            Life::FIRST
        } else {
            u32::try_from(reader.varint().ok()?).ok().and_then(Life::new)?
        };
        if flags & HAS_AUTHOR != 0 {
            self.last.replica = reader.replica().ok()?;
        }
        let step = |last: u64, step: i64| last.wrapping_add(step.cast_unsigned());
        self.last.lamport = step(self.last.lamport, reader.signed().ok()?);
        self.last.counter = step(self.last.counter, reader.signed().ok()?);
        Some(Head { field, life, kind: flags >> FLAG_BITS })
    }

    /// The value behind a head, with it.
    fn register(&mut self, head: &Head) -> Option<RegisterView<'a>> {
        let content = ContentView::Value(read_content(&mut self.reader, head.kind).ok()?);
        Some(RegisterView { stamp: self.last, life: head.life, field: head.field, content })
    }

    /// Goes on behind the value, without checking that a text is one.
    fn skip(&mut self, head: &Head) -> Option<()> {
        let kind = if TEXT_KINDS.contains(&head.kind) { BYTES_KIND } else { head.kind };
        read_content(&mut self.reader, kind).ok().map(drop)
    }
}
