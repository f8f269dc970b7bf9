//! Changes of one author without what the state beside them tells ([`Told`](crate::told::Told)): a
//! block of which most ops are left out.
#![deny(clippy::indexing_slicing)]

use super::block::{DepCoder, check, others_of, read_others, read_spans, write_spans};
use super::columns::{Column, ColumnReader, ColumnWriter, InColumns, Sink, Source};
use super::ops::{OpReader, OpWriter, Scope};
use super::{Reader, Writer};
use crate::batch::Batch;
use crate::error::DecodeError;
use crate::id::OpId;
use crate::limits::{BLOCK_CHANGES_MAX, BLOCK_OPS_MAX};
use crate::op::{Op, OpList, OpView};
use crate::told::{Extent, Graves, Lost};
use crate::value::{Value, char_count, split_chars};

/// Tags of deletions that are told by how far they are from the last edit. No op has them.
const NEAR_ONE: u8 = 27;
const NEAR_FAR: u8 = 28;
const NEAR_FAR_BACK: u8 = 29;
const NEAR_SOME: u8 = 30;
const NEAR_SOME_BACK: u8 = 31;

/// Writes changes. They must be no more than a block may hold.
pub(crate) fn encode_remainder(batch: &Batch, graves: &mut Graves<'_>) -> InColumns {
    graves.forget_place();
    let others = others_of(batch);
    let mut columns = ColumnWriter::default();
    let links = links_of(batch);
    let spans = graves.told.spans(batch.author, (batch.start, batch.end()), &links);
    let are_told = spans.as_ref() == Some(&batch.spans);
    if are_told {
        write_links(columns.to(Column::Changes), batch.start, &links, &others);
    } else {
        write_spans(columns.to(Column::Changes), batch, &others);
    }
    let scope = Scope { author: batch.author, others: &others, is_bounded: false };
    let mut ops = OpWriter::new(columns, scope, false);
    let (mut at, end) = (batch.start, batch.end());
    // Counters of ops of which the state tells something else.
    let mut differing = Vec::new();
    for view in batch.ops.iter() {
        let (id, op) = (batch.id(at), &view.to_op());
        let room = graves.told.next_known(id, end) - at;
        let is_known = room == 0;
        let near = if is_known { None } else { graves.place_of(op, room) };
        if is_known {
            let mut lost = LostOfOp::new(op);
            if graves.told.op(id, end, &mut lost).as_ref() == Some(op) {
                lost.write_to(ops.sink());
                ops.pass(at, &view);
            } else {
                differing.push(at);
                ops.op(at, &view);
            }
        } else if let Some((distance, extent)) = near {
            write_near(ops.sink(), distance, extent);
            ops.pass(at, &view);
        } else {
            ops.op(at, &view);
        }
        graves.see(id, op, near.is_some());
        at += op.span();
    }
    let mut writer = Writer::new();
    writer.replica(batch.author);
    writer.varint(batch.start);
    writer.varint(if are_told { batch.end() - batch.start } else { 0 });
    writer.count(others.len());
    others.iter().for_each(|other| writer.replica(other.replica));
    writer.count(differing.len());
    let mut last = batch.start;
    for at in differing {
        writer.varint(at - last);
        last = at;
    }
    InColumns::new(writer, ops.into_sink())
}

fn write_near(sink: &mut impl Sink, distance: i64, extent: Extent) {
    sink.to(Column::Tag).byte(match extent {
        Extent::One => NEAR_ONE,
        Extent::Far { backwards: false } => NEAR_FAR,
        Extent::Far { backwards: true } => NEAR_FAR_BACK,
        Extent::Some { backwards: false, .. } => NEAR_SOME,
        Extent::Some { backwards: true, .. } => NEAR_SOME_BACK,
    });
    sink.to(Column::Reference).signed(distance);
    if let Extent::Some { len, .. } = extent {
        sink.to(Column::Number).varint(len);
    }
}

/// The deps that changes name, by the counter at which each begins.
fn links_of(batch: &Batch) -> Vec<(u64, OpId)> {
    let mut at = batch.start;
    let mut links = Vec::new();
    for span in &batch.spans {
        links.extend(span.deps.iter().map(|dep| (at, *dep)));
        at += span.total();
    }
    links
}

fn write_links(writer: &mut Writer, start: u64, links: &[(u64, OpId)], others: &[OpId]) {
    let (mut at, mut coder) = (start, DepCoder::new(others));
    for (of, dep) in links {
        writer.varint(of - at);
        coder.write(writer, *dep);
        at = *of;
    }
}

fn read_links(
    reader: &mut Reader<'_>,
    start: u64,
    others: &[OpId],
) -> Result<Vec<(u64, OpId)>, DecodeError> {
    let (mut at, mut coder) = (start, DepCoder::new(others));
    let mut links = Vec::new();
    while !reader.is_empty() {
        at = at.saturating_add(reader.varint()?);
        links.push((at, coder.read(reader)?));
    }
    Ok(links)
}

/// Reads changes, which are then known to be well formed.
pub(crate) fn decode_remainder(
    bytes: &[u8],
    graves: &mut Graves<'_>,
) -> Result<Batch, DecodeError> {
    graves.forget_place();
    let mut reader = Reader::new(bytes);
    let author = reader.replica()?;
    let (start, told_len) = (reader.varint()?, reader.varint()?);
    let others = read_others(&mut reader, author)?;
    let mut differing = Vec::new();
    let mut last = start;
    for _ in 0..reader.count(1)? {
        last = last.saturating_add(reader.varint()?);
        differing.push(last);
    }
    let mut differing = differing.into_iter().peekable();
    let mut columns = ColumnReader::read(&mut reader)?;
    reader.finish()?;
    let changes = columns.from(Column::Changes);
    let (spans, end) = if told_len == 0 {
        read_spans(changes, start, &others)?
    } else {
        let links = read_links(changes, start, &others)?;
        let end = start.saturating_add(told_len);
        let spans = graves.told.spans(author, (start, end), &links);
        let spans = spans.ok_or_else(|| reader.malformed("changes that are not there"))?;
        // A few bytes of times tell of any number of changes.
        let changes = spans.iter().map(|span| span.count).fold(0, u64::saturating_add);
        if changes > BLOCK_CHANGES_MAX {
            return Err(reader.malformed("more changes than a block may hold"));
        }
        (spans, end)
    };
    let scope = Scope { author, others: &others, is_bounded: false };
    let (ops, read) = (OpReader::new(columns, scope, None), OpList::new());
    let mut ops = RestReader { ops, read, graves, end };
    let mut at = start;
    while at < end {
        let id = OpId { replica: author, counter: at };
        let is_other = differing.next_if_eq(&at).is_some();
        let span = ops.next(id, is_other)?;
        at = match at.checked_add(span) {
            Some(next) if next <= end && ops.read.len() <= BLOCK_OPS_MAX => next,
            _ => return Err(ops.malformed("more ops than changes")),
        };
    }
    if differing.next().is_some() {
        return Err(ops.malformed("an op that is not there"));
    }
    let RestReader { ops, read, .. } = ops;
    ops.into_source().finish()?;
    check(Batch { author, start, spans, ops: read })
}

/// Reads the ops of changes.
struct RestReader<'a, 'b, 'c, 'd> {
    ops: OpReader<'a, ColumnReader<'b>>,
    /// The ops so far.
    read: OpList,
    graves: &'c mut Graves<'d>,
    /// The counter after the last op.
    end: u64,
}

impl RestReader<'_, '_, '_, '_> {
    /// Reads the op that begins at `id`; `is_other`: it is not as the state tells. Returns how many
    /// counters it takes.
    fn next(&mut self, id: OpId, is_other: bool) -> Result<u64, DecodeError> {
        if !is_other && self.graves.told.knows(id) {
            let mut lost = LostOfColumns(self.ops.source());
            let op = self.graves.told.op(id, self.end, &mut lost);
            let op = op.ok_or_else(|| self.malformed("not as the state tells"))?;
            return Ok(self.pass(id, op, false));
        }
        let tag = self.ops.column(Column::Tag).byte()?;
        if !(NEAR_ONE..=NEAR_SOME_BACK).contains(&tag) {
            let span = self.ops.op_with_tag(id.counter, tag, &mut self.read)?;
            if let Some(op) = self.read.last() {
                self.graves.see(id, &op.to_op(), false);
            }
            return Ok(span);
        }
        let distance = self.ops.column(Column::Reference).signed()?;
        let extent = match tag {
            NEAR_ONE => Extent::One,
            NEAR_FAR | NEAR_FAR_BACK => Extent::Far { backwards: tag == NEAR_FAR_BACK },
            _ => {
                let len = self.ops.column(Column::Number).varint()?;
                Extent::Some { len, backwards: tag == NEAR_SOME_BACK }
            }
        };
        let room = self.graves.told.next_known(id, self.end) - id.counter;
        let op = self.graves.deletion(distance, extent, room);
        let op = op.filter(|op| op.fault().is_none());
        let op = op.ok_or_else(|| self.malformed("a deletion of nothing"))?;
        Ok(self.pass(id, op, true))
    }

    fn pass(&mut self, id: OpId, op: Op, is_near: bool) -> u64 {
        self.ops.pass(id.counter, &OpView::of(&op));
        self.graves.see(id, &op, is_near);
        let span = op.span();
        self.read.push(op);
        span
    }

    fn malformed(&mut self, what: &'static str) -> DecodeError {
        self.ops.column(Column::Tag).malformed(what)
    }
}

/// What a state does not tell of an op that is here.
struct LostOfOp<'a> {
    set_len: Option<u64>,
    asked_len: bool,
    /// The characters of the op that are still to come.
    rest: &'a str,
    lost: String,
}

impl<'a> LostOfOp<'a> {
    fn new(op: &'a Op) -> Self {
        let (set_len, rest) = match op {
            Op::Set { value: Value::Text(text), .. } => (Some(char_count(text)), text.as_str()),
            Op::Insert { text, .. } => (None, text.as_str()),
            _ => (None, ""),
        };
        Self { set_len, asked_len: false, rest, lost: String::new() }
    }

    fn write_to(self, sink: &mut impl Sink) {
        if let Some(len) = self.set_len.filter(|_| self.asked_len) {
            sink.to(Column::Number).varint(len);
        }
        sink.to(Column::Text).raw(self.lost.as_bytes());
    }
}

impl Lost for LostOfOp<'_> {
    fn set_len(&mut self) -> Option<u64> {
        self.asked_len = true;
        self.set_len
    }

    fn shown(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    fn gone(&mut self, count: u64, into: &mut String) -> Option<()> {
        let (gone, rest) = split_chars(self.rest, usize::try_from(count).ok()?);
        self.rest = rest;
        self.lost.push_str(gone);
        into.push_str(gone);
        Some(())
    }
}

/// What a state does not tell, from the columns of the rest.
struct LostOfColumns<'a, 'b>(&'a mut ColumnReader<'b>);

impl Lost for LostOfColumns<'_, '_> {
    fn set_len(&mut self) -> Option<u64> {
        self.0.from(Column::Number).varint().ok()
    }

    fn shown(&mut self, _: &str) -> Option<()> {
        Some(())
    }

    fn gone(&mut self, count: u64, into: &mut String) -> Option<()> {
        into.push_str(self.0.from(Column::Text).chars(count).ok()?);
        Some(())
    }
}
