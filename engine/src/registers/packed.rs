//! The registers of one entry as bytes, one after the other: what most entries hold takes less so than
//! pointers to it would.
//!
//! Of each: kind of value and flags in a byte; field unless it is the label; life unless it is the first;
//! author, Lamport time and counter unless they are as expected; the value. Expected are author and time of
//! the one before, and the counter that comes next if its text is one of as many characters as bytes; of
//! the first one, a stamp that its page knows. The bytes never leave the process, so that their form may
//! change at any time.

use std::ops::Range;

use super::{ContentView, FieldIx, FieldNames, RegisterView};
use crate::codec::{
    BYTES_KIND, Reader, TEXT_KIND, TEXT_KINDS, Writer, read_content, value_kind, write_content,
};
use crate::id::{Life, ReplicaId, Stamp};
use crate::short_op::Authors;
use crate::value::ValueView;

/// Registers of more bytes are not packed, since all of them may be looked at for one.
const BYTES_MAX: usize = if cfg!(any(test, feature = "small-nodes")) { 64 } else { 512 };

/// The flags of a register's head, beside the kind of its value.
const HAS_COUNTER: u8 = 1;
const HAS_TIME: u8 = 2;
/// A byte of flags follows.
const HAS_MORE: u8 = 4;
const HAS_FIELD: u8 = 0x80;
const KIND_SHIFT: u32 = 3;
const KIND_MASK: u8 = 0xf;

/// The flags that are rare.
const HAS_LIFE: u8 = 1;
const HAS_AUTHOR: u8 = 2;

/// A byte that no registers begin with: no kind of value has that number.
pub(super) const NOT_PACKED: u8 = u8::MAX;

/// An author without a number, whose id follows.
const UNNUMBERED: u64 = 0;

/// What packed registers refer to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) authors: &'a Authors,
    /// What is expected of the first register.
    pub(super) expected: Stamp,
}

/// Registers as bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) frame: Frame<'a>,
}

impl<'a> Packed<'a> {
    pub(super) const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// The registers, in the order in which they were packed.
    pub(super) fn iter(self) -> impl Iterator<Item = RegisterView<'a>> {
        let mut unpacker = Unpacker::new(self);
        std::iter::from_fn(move || {
            let head = unpacker.head()?;
            unpacker.register(&head)
        })
    }

    /// Where the register of a field is, or would be.
    pub(super) fn seek(self, field: FieldIx) -> Option<Spot> {
        let mut unpacker = Unpacker::new(self);
        loop {
            let (start, expected) = (unpacker.reader.position(), unpacker.expected);
            let known = unpacker.head();
            if let Some(other) = known.as_ref().filter(|head| head.field != field) {
                unpacker.skip(other)?;
                continue;
            }
            return Some(Spot { start, expected, known, value: unpacker.reader.position() });
        }
    }

    /// The register at a spot.
    pub(super) fn register(self, spot: &Spot) -> Option<RegisterView<'a>> {
        self.at_value(spot).register(spot.known.as_ref()?)
    }

    /// Packs what is to stand at the spot of a register's field so that it is set, and returns in place of
    /// which bytes; none if there is no room for it.
    pub(super) fn set(
        self,
        spot: &Spot,
        register: &RegisterView<'_>,
        packer: &mut Packer,
    ) -> Option<Range<usize>> {
        let mut unpacker = self.at_value(spot);
        if let Some(known) = &spot.known {
            unpacker.skip(known)?;
        }
        // What is expected of the one behind is another now.
        let behind = unpacker.head();
        let old = spot.start..spot.value + unpacker.reader.position();
        packer.begin(Frame { expected: spot.expected, ..self.frame }, self.bytes.len() - old.len());
        packer.push(register, self.frame.authors)?;
        if let Some(behind) = behind {
            packer.push_head(&behind, self.frame.authors);
        }
        Some(old)
    }

    /// What reads the value at a spot, and what is behind it.
    fn at_value(self, spot: &Spot) -> Unpacker<'a> {
        Unpacker::new(Self { bytes: &self.bytes[spot.value..], ..self })
    }
}

/// Where the register of a field is among packed ones, or would be, as long as those are the same.
#[derive(Debug)]
pub(super) struct Spot {
    start: usize,
    /// What is expected of a register there.
    expected: Stamp,
    /// The one that is there, but for its value.
    known: Option<Head>,
    /// Where its value begins.
    value: usize,
}

impl Spot {
    /// The life and stamp of the register that is there.
    pub(super) fn rank(&self) -> Option<(Life, Stamp)> {
        self.known.as_ref().map(|head| (head.life, head.stamp))
    }
}

/// Packs registers, in room that is used again and again.
#[derive(Clone, Debug)]
pub(super) struct Packer {
    writer: Writer,
    /// How many bytes there are beside those written here.
    others: usize,
    expected: Stamp,
}

impl Packer {
    pub(super) fn new() -> Self {
        Self { writer: Writer::new(), others: 0, expected: Stamp::ZERO }
    }

    /// Begins anew, beside so many bytes of an entry's registers.
    pub(super) fn begin(&mut self, frame: Frame<'_>, others: usize) {
        self.writer.clear();
        (self.others, self.expected) = (others, frame.expected);
    }

    /// Adds a register, unless it holds a text that was spliced, or there is too much of them.
    pub(super) fn push(&mut self, register: &RegisterView<'_>, authors: &Authors) -> Option<()> {
        let RegisterView { stamp, life, field, content } = *register;
        let ContentView::Value(value) = content else { return None };
        if self.others + self.writer.len() + value.size() > BYTES_MAX {
            return None;
        }
        let head = Head { field, life, stamp, kind: value_kind(value) };
        self.push_head(&head, authors);
        write_content(&mut self.writer, value);
        self.expected = head.next(value);
        Some(())
    }

    #[inline]
    fn push_head(&mut self, head: &Head, authors: &Authors) {
        let Head { field, life, stamp, kind } = *head;
        let (writer, expected) = (&mut self.writer, self.expected);
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let more = flag(life != Life::FIRST, HAS_LIFE)
            | flag(stamp.replica != expected.replica, HAS_AUTHOR);
        let flags = flag(field != FieldNames::LABEL, HAS_FIELD)
            | flag(more != 0, HAS_MORE)
            | flag(stamp.lamport != expected.lamport, HAS_TIME)
            | flag(stamp.counter != expected.counter, HAS_COUNTER);
        writer.byte(kind << KIND_SHIFT | flags);
        if flags & HAS_FIELD != 0 {
            writer.varint(field.raw().into());
        }
        if flags & HAS_MORE != 0 {
            writer.byte(more);
        }
        if more & HAS_LIFE != 0 {
            writer.varint(life.number().into());
        }
        if more & HAS_AUTHOR != 0 {
            write_author(writer, stamp.replica, authors);
        }
        if flags & HAS_TIME != 0 {
            writer.signed(stamp.lamport.wrapping_sub(expected.lamport).cast_signed());
        }
        if flags & HAS_COUNTER != 0 {
            writer.signed(stamp.counter.wrapping_sub(expected.counter).cast_signed());
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.writer.as_slice()
    }
}

fn write_author(writer: &mut Writer, author: ReplicaId, authors: &Authors) {
    match authors.find(author) {
        Some(number) => writer.varint(u64::from(number) + 1),
        None => {
            writer.varint(UNNUMBERED);
            writer.replica(author);
        }
    }
}

/// Reads what a [`Packer`] has written: nothing of it can fail.
#[derive(Debug)]
struct Unpacker<'a> {
    reader: Reader<'a>,
    authors: &'a Authors,
    expected: Stamp,
}

/// A register before its value.
#[derive(Debug)]
struct Head {
    field: FieldIx,
    life: Life,
    stamp: Stamp,
    kind: u8,
}

impl Head {
    /// What is expected of the register behind this one, if it has this value, or its bytes.
    fn next(&self, value: ValueView<'_>) -> Stamp {
        let span = if self.kind == TEXT_KIND { value.size().max(1) } else { 1 };
        Stamp { counter: self.stamp.counter.wrapping_add(span as u64), ..self.stamp }
    }
}

impl<'a> Unpacker<'a> {
    const fn new(packed: Packed<'a>) -> Self {
        let Frame { authors, expected } = packed.frame;
        Self { reader: Reader::new(packed.bytes), authors, expected }
    }

    /// The next register.
    fn head(&mut self) -> Option<Head> {
        let head = self.reader.byte().ok()?;
        let kind = head >> KIND_SHIFT & KIND_MASK;
        let field = if head & HAS_FIELD == 0 {
            FieldNames::LABEL
        } else {
            u32::try_from(self.reader.varint().ok()?).ok().and_then(FieldIx::from_raw)?
        };
        let (mut stamp, mut life) = (self.expected, Life::FIRST);
        let more = if head & HAS_MORE == 0 { 0 } else { self.reader.byte().ok()? };
        if more & HAS_LIFE != 0 {
            life = u32::try_from(self.reader.varint().ok()?).ok().and_then(Life::new)?;
        }
        if more & HAS_AUTHOR != 0 {
            stamp.replica = self.author()?;
        }
        if head & HAS_TIME != 0 {
            let step = self.reader.signed().ok()?;
            stamp.lamport = stamp.lamport.wrapping_add(step.cast_unsigned());
        }
        if head & HAS_COUNTER != 0 {
            let step = self.reader.signed().ok()?;
            stamp.counter = stamp.counter.wrapping_add(step.cast_unsigned());
        }
        Some(Head { field, life, stamp, kind })
    }

    fn author(&mut self) -> Option<ReplicaId> {
        match self.reader.varint().ok()? {
            UNNUMBERED => self.reader.replica().ok(),
            number => self.authors.author(u16::try_from(number - 1).ok()?),
        }
    }

    /// The value behind a head, with it.
    fn register(&mut self, head: &Head) -> Option<RegisterView<'a>> {
        let value = self.value(head, head.kind)?;
        let Head { field, life, stamp, .. } = *head;
        Some(RegisterView { stamp, life, field, content: ContentView::Value(value) })
    }

    /// Goes on behind the value, without checking that a text is one.
    fn skip(&mut self, head: &Head) -> Option<()> {
        let kind = if TEXT_KINDS.contains(&head.kind) { BYTES_KIND } else { head.kind };
        self.value(head, kind).map(drop)
    }

    fn value(&mut self, head: &Head, kind: u8) -> Option<ValueView<'a>> {
        let value = read_content(&mut self.reader, kind).ok()?;
        self.expected = head.next(value);
        Some(value)
    }
}
