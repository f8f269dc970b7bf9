//! Many changes of one author in columns.
#![deny(clippy::indexing_slicing)]

use std::collections::BTreeSet;

use super::columns::{Column, ColumnReader, ColumnWriter, Sink, Source};
use super::ops::{OpReader, OpWriter, Scope};
use super::{Reader, Writer};
use crate::batch::{Batch, Deps, Span};
use crate::error::DecodeError;
use crate::id::{EntryId, OpId, ReplicaId};
use crate::limits::{BLOCK_CHANGES_MAX, BLOCK_OPS_MAX, CHANGE_BYTES_MAX, COUNTER_MAX};
use crate::op::{NewEntry, Op, OpList};

/// For so many ops room is made before they are read.
const OPS_AT_ONCE: usize = 1 << 16;

/// Writes changes as one block. They must be no more than a block may hold.
pub(crate) fn encode_block(batch: &Batch) -> Vec<u8> {
    let others = others_of(batch);
    let mut writer = Writer::new();
    writer.replica(batch.author);
    writer.varint(batch.start);
    writer.count(others.len());
    others.iter().for_each(|other| writer.replica(other.replica));
    let mut columns = ColumnWriter::default();
    write_spans(columns.to(Column::Changes), batch, &others);
    let scope = Scope { author: batch.author, others: &others, is_bounded: false };
    let mut ops = OpWriter::new(columns, scope, false);
    let mut at = batch.start;
    for op in batch.ops.iter() {
        ops.op(at, &op);
        at += op.span();
    }
    ops.into_sink().write_to(&mut writer);
    writer.into_bytes()
}

/// Reads a block, whose ops and changes are then known to be well formed.
pub(crate) fn decode_block(bytes: &[u8]) -> Result<Batch, DecodeError> {
    let mut reader = Reader::new(bytes);
    let author = reader.replica()?;
    let start = reader.varint()?;
    let others = read_others(&mut reader, author)?;
    let mut columns = ColumnReader::read(&mut reader)?;
    reader.finish()?;
    let (spans, end) = read_spans(columns.from(Column::Changes), start, &others)?;
    let scope = Scope { author, others: &others, is_bounded: false };
    // Each op has a tag of one byte.
    let count = columns.from(Column::Tag).len().min(OPS_AT_ONCE);
    let bytes = columns.from(Column::Text).len();
    let mut op_reader = OpReader::new(columns, scope, None);
    let mut ops = OpList::with_capacity(count, bytes);
    let mut at = start;
    while at < end {
        let span = op_reader.op(at, &mut ops)?;
        at = match at.checked_add(span) {
            Some(next) if next <= end && ops.len() <= BLOCK_OPS_MAX => next,
            _ => return Err(op_reader.column(Column::Tag).malformed("more ops than changes")),
        };
    }
    op_reader.into_source().finish()?;
    let batch = Batch { author, start, spans, ops };
    check(batch)
}

/// The replicas that have a number.
pub(super) fn read_others(
    reader: &mut Reader<'_>,
    author: ReplicaId,
) -> Result<Vec<OpId>, DecodeError> {
    let count = reader.count(8)?;
    let mut others = Vec::with_capacity(count);
    for _ in 0..count {
        others.push(OpId { replica: reader.replica()?, counter: 0 });
    }
    let is_sorted = others.is_sorted_by(|a: &OpId, b| a.replica < b.replica);
    if !is_sorted || others.iter().any(|other| other.replica == author) {
        return Err(reader.malformed("replicas not in order"));
    }
    Ok(others)
}

/// The first op of a block.
pub(crate) fn first_of_block(bytes: &[u8]) -> Result<OpId, DecodeError> {
    let mut reader = Reader::new(bytes);
    Ok(OpId { replica: reader.replica()?, counter: reader.varint()? })
}

/// How many changes a block claims to hold.
pub(crate) fn count_changes(bytes: &[u8]) -> Result<u64, DecodeError> {
    let mut reader = Reader::new(bytes);
    reader.replica()?;
    let start = reader.varint()?;
    let count = reader.count(8)?;
    let mut others = Vec::with_capacity(count);
    for _ in 0..count {
        others.push(OpId { replica: reader.replica()?, counter: 0 });
    }
    let mut columns = ColumnReader::read(&mut reader)?;
    let (spans, _) = read_spans(columns.from(Column::Changes), start, &others)?;
    Ok(spans.iter().map(|span| span.count).sum())
}

/// Checks what ops that could be read may get wrong together.
pub(super) fn check(batch: Batch) -> Result<Batch, DecodeError> {
    let malformed = |what| DecodeError::Malformed { at: 0, what };
    if let Some(fault) = batch.fault() {
        return Err(malformed(fault));
    }
    // By itself a change may take more bytes than here. Few blocks come near the bound.
    if batch.ops.size_bound() > CHANGE_BYTES_MAX {
        let mut changes = batch.changes();
        if changes.any(|change| change.bytes().len() > CHANGE_BYTES_MAX) {
            let max = CHANGE_BYTES_MAX as u64;
            return Err(DecodeError::TooLarge { what: "the change", max });
        }
    }
    Ok(batch)
}

/// Writes or reads deps, each as the number of its author and the distance from that one's last.
pub(super) struct DepCoder<'a> {
    others: &'a [OpId],
    last: Vec<u64>,
}

impl<'a> DepCoder<'a> {
    pub(super) fn new(others: &'a [OpId]) -> Self {
        Self { others, last: vec![0; others.len()] }
    }

    pub(super) fn write(&mut self, writer: &mut Writer, dep: OpId) {
        let number = self.others.binary_search_by_key(&dep.replica, |other| other.replica);
        let number = number.unwrap_or_default();
        writer.count(number);
        if let Some(last) = self.last.get_mut(number) {
            writer.signed(dep.counter.wrapping_sub(*last).cast_signed());
            *last = dep.counter;
        }
    }

    pub(super) fn read(&mut self, reader: &mut Reader<'_>) -> Result<OpId, DecodeError> {
        let number = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        let distance = reader.signed()?.cast_unsigned();
        match (self.others.get(number), self.last.get_mut(number)) {
            (Some(other), Some(last)) => {
                *last = last.wrapping_add(distance);
                Ok(OpId { counter: *last, ..*other })
            }
            _ => Err(reader.malformed("reference to a replica that has no number")),
        }
    }
}

pub(super) fn write_spans(writer: &mut Writer, batch: &Batch, others: &[OpId]) {
    let mut coder = DepCoder::new(others);
    for span in &batch.spans {
        writer.varint(span.len << 1 | u64::from(!span.deps.is_empty()));
        writer.varint(span.count);
        if !span.deps.is_empty() {
            writer.count(span.deps.len());
        }
        span.deps.iter().for_each(|dep| coder.write(writer, *dep));
    }
}

/// The spans of a block, and the counter after its last change.
pub(super) fn read_spans(
    reader: &mut Reader<'_>,
    start: u64,
    others: &[OpId],
) -> Result<(Vec<Span>, u64), DecodeError> {
    let mut coder = DepCoder::new(others);
    let (mut spans, mut end, mut changes) = (Vec::new(), start, 0_u64);
    while !reader.is_empty() {
        let head = reader.varint()?;
        let count = reader.varint()?;
        let mut deps = Deps::new();
        if head & 1 == 1 {
            for _ in 0..reader.count(2)? {
                deps.push(coder.read(reader)?);
            }
        }
        let span = Span { len: head >> 1, count, deps };
        let total = span.len.checked_mul(count).filter(|total| *total > 0);
        changes = changes.saturating_add(count);
        end = match total.and_then(|total| end.checked_add(total)) {
            Some(end) if end <= COUNTER_MAX + 1 && changes <= BLOCK_CHANGES_MAX => end,
            _ => return Err(reader.malformed("counters out of range")),
        };
        spans.push(span);
    }
    if spans.is_empty() {
        return Err(reader.malformed("a block of nothing"));
    }
    Ok((spans, end))
}

/// The other replicas that need a number: those of deps, of ops referred to, of entries' names.
pub(super) fn others_of(batch: &Batch) -> Vec<OpId> {
    let mut others = BTreeSet::new();
    let mut last = None;
    let mut name = |replica: ReplicaId| {
        if replica != batch.author && last != Some(replica) {
            others.insert(replica);
            last = Some(replica);
        }
    };
    batch.spans.iter().flat_map(|span| &span.deps).for_each(|dep| name(dep.replica));
    if !batch.ops.is_all_of(batch.author) {
        let references = batch.ops.iter().flat_map(|op| op.references());
        references.flatten().for_each(|op| name(op.replica));
    }
    let mut name_entry = |entry: EntryId| {
        entry.creator().iter().for_each(|op| name(op.replica));
    };
    batch.ops.texts().for_each(|text| name_entry(text.entry));
    batch.ops.others().iter().for_each(|op| named_entries(op, &mut name_entry));
    others.into_iter().map(|replica| OpId { replica, counter: 0 }).collect()
}

fn named_entries(op: &Op, mut name: impl FnMut(EntryId)) {
    if let Some((entry, _)) = op.subject() {
        name(entry);
    }
    match op {
        Op::Create { parent, kind, .. } => {
            name(*parent);
            if let NewEntry::Link { target } = kind {
                name(*target);
            }
        }
        Op::Move { parent, .. } | Op::Reorder { parent, .. } => name(*parent),
        Op::Purge { entries } => entries.iter().for_each(|(entry, _)| name(*entry)),
        _ => {}
    }
}
