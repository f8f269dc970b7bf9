//! Many changes of one author in columns.
#![deny(clippy::indexing_slicing)]

use std::collections::BTreeSet;

use super::columns::{Column, ColumnReader, ColumnWriter, Sink, Source};
use super::ops::{OpReader, OpWriter, Scope};
use super::{Reader, Writer};
use crate::batch::{Batch, Deps, Span, split_spans};
use crate::change::{DEP_BYTES_MAX, HEADER_BYTES_MAX, encode};
use crate::error::DecodeError;
use crate::id::{EntryId, OpId, ReplicaId};
use crate::limits::{
    BLOCK_CHANGES_MAX, BLOCK_OPS_MAX, CHANGE_BYTES_MAX, CHANGE_OPS_MAX, COUNTER_MAX,
};
use crate::op::{NewEntry, Op, OpList, OpParts};

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

/// A block as far as this program knows its ops.
#[derive(Debug)]
pub(crate) struct KnownPart {
    /// The changes, or those before the first with an op of a newer program, if there are any.
    pub(crate) batch: Option<Batch>,
    /// The first op of that change, and what is wrong with it.
    pub(crate) newer: Option<(OpId, DecodeError)>,
}

/// Reads a block, whose ops and changes are then known to be well formed.
pub(crate) fn decode_block(bytes: &[u8]) -> Result<Batch, DecodeError> {
    match decode_known(bytes)? {
        KnownPart { newer: Some((_, error)), .. } => Err(error),
        KnownPart { batch: Some(batch), .. } => Ok(batch),
        KnownPart { .. } => Err(DecodeError::Malformed { at: 0, what: "a block of nothing" }),
    }
}

/// The same up to the first change with an op of a newer program. What the columns hold behind that op
/// cannot be told apart.
pub(crate) fn decode_known(bytes: &[u8]) -> Result<KnownPart, DecodeError> {
    let mut reader = Reader::new(bytes);
    let author = reader.replica()?;
    let start = reader.varint()?;
    let others = read_others(&mut reader, author)?;
    let mut columns = ColumnReader::read(&mut reader)?;
    reader.finish()?;
    let (mut spans, end) = read_spans(columns.from(Column::Changes), start, &others)?;
    let scope = Scope { author, others: &others, is_bounded: false };
    // Each op has a tag of one byte.
    let count = columns.from(Column::Tag).len().min(OPS_AT_ONCE);
    let bytes = columns.from(Column::Text).len();
    let mut op_reader = OpReader::new(columns, scope, None);
    let mut ops = OpList::with_capacity(count, bytes);
    let mut at = start;
    while at < end {
        let span = match op_reader.op(at, &mut ops) {
            Err(error @ DecodeError::OpTooNew { .. }) => {
                let first = OpId { replica: author, counter: start };
                let newer = first.plus(start_of_change(&spans, at - start));
                ops = OpParts::new(&ops, first).take_until(newer.counter);
                drop(split_spans(&mut spans, newer.counter - start));
                let batch = Some(Batch { author, start, spans, ops });
                let batch = batch.filter(|batch| batch.end() > start).map(check).transpose()?;
                return Ok(KnownPart { batch, newer: Some((newer, error)) });
            }
            read => read?,
        };
        at = match at.checked_add(span) {
            Some(next) if next <= end && ops.len() <= BLOCK_OPS_MAX => next,
            _ => return Err(op_reader.column(Column::Tag).malformed("more ops than changes")),
        };
    }
    op_reader.into_source().finish()?;
    let batch = Some(check(Batch { author, start, spans, ops })?);
    Ok(KnownPart { batch, newer: None })
}

/// How many counters are before the change that has the counter after so many.
fn start_of_change(spans: &[Span], counters: u64) -> u64 {
    let mut before = 0;
    for span in spans {
        if counters < before + span.total() {
            return before + (counters - before) / span.len * span.len;
        }
        before += span.total();
    }
    before
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
    // A change has no more ops than the block, and by itself hardly more bytes. Few blocks come near
    // a bound.
    let deps = batch.spans.iter().map(|span| span.deps.len()).sum::<usize>();
    let size_bound = batch.ops.size_bound() + HEADER_BYTES_MAX + deps * DEP_BYTES_MAX;
    if batch.ops.len() <= CHANGE_OPS_MAX && size_bound <= CHANGE_BYTES_MAX {
        return Ok(batch);
    }
    for (header, ops) in batch.parts() {
        if ops.len() > CHANGE_OPS_MAX {
            return Err(malformed("more ops than a change may have"));
        }
        if encode(&header, &ops, Writer::new()).as_slice().len() > CHANGE_BYTES_MAX {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Change;
    use crate::id::Life;

    fn replica(number: u64) -> ReplicaId {
        ReplicaId::new(number).unwrap()
    }

    fn span(len: usize, count: u64) -> Span {
        Span { len: len as u64, count, deps: Deps::new() }
    }

    /// Gaps of one counter each, as changes of these lengths.
    fn gaps(spans: Vec<Span>) -> Vec<u8> {
        let mut ops = OpList::new();
        let total = spans.iter().map(Span::total).sum::<u64>();
        (0..total).for_each(|_| ops.push(Op::Skip { count: 1 }));
        encode_block(&Batch { author: replica(1), start: 0, spans, ops })
    }

    #[test]
    fn a_change_in_a_block_has_no_more_ops_than_alone() {
        let read = |spans| decode_block(&gaps(spans));
        for (before, after) in [(0, 0), (1, 1)] {
            let around = |len| {
                let all = [span(1, before), span(len, 1), span(1, after)];
                all.into_iter().filter(|span| span.count > 0).collect::<Vec<_>>()
            };
            let most = read(around(CHANGE_OPS_MAX)).unwrap();
            for change in most.changes() {
                assert_eq!(Change::decode(change.bytes()).as_ref(), Ok(&change));
            }
            let more = read(around(CHANGE_OPS_MAX + 1));
            assert!(matches!(more, Err(DecodeError::Malformed { .. })), "{before}, {after}");
        }
        // Together they may be more.
        assert!(read(vec![span(CHANGE_OPS_MAX / 2, 4)]).is_ok());
        assert!(read(vec![span(CHANGE_OPS_MAX, 2)]).is_ok());
    }

    #[test]
    fn ops_of_a_change_that_go_on_with_each_other_count_as_one() {
        let (author, entry) = (replica(1), EntryId::ROOT);
        let set = OpId { replica: author, counter: 0 };
        let text = String::from("a");
        let mut ops = OpList::new();
        for counter in 0..=CHANGE_OPS_MAX as u64 {
            let (field, origin) = (crate::value::Field::Value, OpId { replica: author, counter });
            let (life, text) = (Life::FIRST, text.clone());
            ops.push(Op::Insert { entry, life, field, set, origin: Some(origin), text });
        }
        let spans = vec![span(CHANGE_OPS_MAX + 1, 1)];
        let block = encode_block(&Batch { author, start: 1, spans, ops });
        let batch = decode_block(&block).unwrap();
        let change = batch.changes().next().unwrap();
        assert_eq!((change.ops().len(), Change::decode(change.bytes())), (1, Ok(change.clone())));
    }

    #[test]
    fn deps_count_towards_the_size_of_a_change() {
        let deps_of = |count: u64| (2..count + 2).map(|n| OpId { replica: replica(n), counter: 1 });
        let block_of = |count: u64| {
            let spans = vec![Span { len: 1, count: 1, deps: deps_of(count).collect() }];
            let mut ops = OpList::new();
            ops.push(Op::Skip { count: 1 });
            encode_block(&Batch { author: replica(1), start: 0, spans, ops })
        };
        // Each dep takes nine bytes in a change.
        let most = (CHANGE_BYTES_MAX as u64 - 16) / 9;
        let batch = decode_block(&block_of(most)).unwrap();
        let change = batch.changes().next().unwrap();
        assert_eq!(Change::decode(change.bytes()).as_ref(), Ok(&change));
        let max = CHANGE_BYTES_MAX as u64;
        let too_large = DecodeError::TooLarge { what: "the change", max };
        assert_eq!(decode_block(&block_of(most + 2)).unwrap_err(), too_large);
    }
}
