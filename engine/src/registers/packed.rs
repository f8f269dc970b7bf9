//! The registers of an entry as bytes, one after the other: what most entries hold takes less than
//! pointers to it would.
//!
//! Of each: flags and kind of value in a byte, field, life unless it is the first, author unless it is
//! that of the one before, Lamport time and counter as steps from the one before, the value. The bytes
//! never leave the process, so that their form may change at any time.

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

/// Most registers of an entry take no more together.
const BYTES_EXPECTED: usize = 128;

/// What stands before a value takes no more.
const HEAD_BYTES_MAX: usize = 48;

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
        let mut unpacker = Unpacker::new(&self.0);
        loop {
            let head = unpacker.head()?;
            if head.field == field {
                return unpacker.register(&head);
            }
            unpacker.skip(&head)?;
        }
    }

    /// These registers as bytes, unless one is missing or holds a text that was spliced, or there is too
    /// much of them.
    pub(super) fn of<'a>(
        registers: impl Iterator<Item = Option<RegisterView<'a>>>,
    ) -> Option<Self> {
        let mut writer = Writer::with_capacity(BYTES_EXPECTED);
        pack(&mut writer, registers)?;
        Some(Self(writer.into_bytes().into()))
    }

    /// The stamp of the last register, unless one of them is of this field.
    fn last_stamp_without(&self, field: FieldIx) -> Option<Stamp> {
        let mut unpacker = Unpacker::new(&self.0);
        while let Some(head) = unpacker.head() {
            if head.field == field {
                return None;
            }
            unpacker.skip(&head)?;
        }
        Some(unpacker.last)
    }

    /// The same with a register set, if there is room for it. Whether there was.
    pub(super) fn set(&mut self, register: &RegisterView<'_>) -> bool {
        let mut writer = Writer::with_capacity(self.0.len() + HEAD_BYTES_MAX + register.size());
        let has_room = match self.last_stamp_without(register.field) {
            Some(last) => {
                writer.raw(&self.0);
                write(&mut writer, register, last).is_some()
            }
            None => {
                let others = self.iter().filter(|known| known.field != register.field);
                pack(&mut writer, others.chain([*register]).map(Some)).is_some()
            }
        };
        if !has_room {
            return false;
        }
        if self.0.len() == writer.len() {
            self.0.copy_from_slice(writer.as_slice());
        } else {
            self.0 = writer.into_bytes().into();
        }
        true
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
        write(writer, &register, last)?;
        last = register.stamp;
    }
    Some(())
}

/// Writes a register behind one with the stamp `last`, on the same conditions.
fn write(writer: &mut Writer, register: &RegisterView<'_>, last: Stamp) -> Option<()> {
    let RegisterView { stamp, life, field, content } = *register;
    let ContentView::Value(value) = content else { return None };
    if writer.len() + value.size() > BYTES_MAX {
        return None;
    }
    let is_first = life == Life::FIRST;
    let has_author = writer.is_empty() || stamp.replica != last.replica;
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
