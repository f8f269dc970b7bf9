//! A state in columns: authors and times, then entry after entry.
#![deny(clippy::indexing_slicing)]

mod entries;
mod reader;
mod texts;

use super::columns::{Column, ColumnReader, ColumnWriter, InColumns, Sink, Source};
use super::{Reader, Writer};
use crate::error::DecodeError;
use crate::id::{OpId, ReplicaId};
use crate::limits::{COUNTER_MAX, LAMPORT_MAX};
use crate::registers::FieldNames;
use crate::state::{EntryRecord, Piece, Times};
use entries::EntryWriter;
use reader::EntryReader;

/// Writes a state, of which the fields have these names. The entries must be in order of [`entry_order`].
pub(crate) fn encode_state<'a>(
    times: &[Times],
    names: &FieldNames,
    entry_count: usize,
    entries: impl Iterator<Item = EntryRecord<'a>>,
) -> InColumns {
    let authors: Vec<ReplicaId> = times.iter().map(|one| one.author).collect();
    let mut columns = ColumnWriter::default();
    for one in times {
        write_times(columns.to(Column::Changes), one);
    }
    let mut writer = EntryWriter::new(columns, &authors, names);
    entries.for_each(|entry| writer.entry(&entry));
    let mut bytes = Writer::new();
    bytes.count(authors.len());
    authors.iter().for_each(|author| bytes.replica(*author));
    bytes.count(entry_count);
    InColumns::new(bytes, writer.into_sink())
}

/// A state that is being read.
#[derive(Debug)]
pub(crate) struct StateReader<'a> {
    pub(crate) times: Vec<Times>,
    entry_count: usize,
    columns: ColumnReader<'a>,
}

impl<'a> StateReader<'a> {
    /// Reads authors and times.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let count = reader.count(8)?;
        let mut authors: Vec<ReplicaId> = Vec::with_capacity(count);
        for _ in 0..count {
            authors.push(reader.replica()?);
        }
        if !authors.is_sorted_by(|a, b| a < b) {
            return Err(reader.malformed("replicas not in order"));
        }
        let entry_count = reader.varint()?;
        let mut columns = ColumnReader::read(&mut reader)?;
        reader.finish()?;
        let entry_count = columns.from(Column::Entry).fits(entry_count, 1)?;
        let changes = columns.from(Column::Changes);
        let mut times = Vec::with_capacity(count);
        for author in authors {
            times.push(read_times(changes, author)?);
        }
        Ok(Self { times, entry_count, columns })
    }

    /// How many entries there are; each takes a byte or more.
    pub(crate) const fn entry_count(&self) -> usize {
        self.entry_count
    }

    /// Hands over each entry, with the names of fields so far.
    ///
    /// # Errors
    /// Where an entry is not well formed; those before it, or all, have been handed over then.
    pub(crate) fn read_entries(
        self,
        mut each: impl FnMut(&EntryRecord<'a>, &FieldNames),
    ) -> Result<Vec<Times>, DecodeError> {
        let mut reader = EntryReader::new(self.columns, &self.times);
        for _ in 0..self.entry_count {
            each(&reader.entry()?, &reader.names);
        }
        reader.finish()?;
        Ok(self.times)
    }
}

fn write_times(writer: &mut Writer, times: &Times) {
    writer.varint((times.pieces.len() as u64) << 1 | u64::from(times.is_head));
    let mut expected = 1;
    for piece in &times.pieces {
        writer.varint(piece.len);
        writer.varint(piece.count);
        // Times rise along an author's changes.
        writer.varint(piece.lamport.saturating_sub(expected));
        expected = piece.lamport + piece.count;
    }
}

fn read_times(reader: &mut Reader<'_>, author: ReplicaId) -> Result<Times, DecodeError> {
    let head = reader.varint()?;
    let count = reader.fits(head >> 1, 3)?;
    let mut pieces: Vec<Piece> = Vec::with_capacity(count);
    let (mut start, mut expected) = (0_u64, 1_u64);
    for _ in 0..count {
        let (len, count) = (reader.varint()?, reader.varint()?);
        let lamport = expected.checked_add(reader.varint()?);
        let total = len.checked_mul(count).filter(|total| *total > 0);
        let end = total.and_then(|total| start.checked_add(total));
        let next = lamport.and_then(|lamport| lamport.checked_add(count));
        let (Some(lamport), Some(end), Some(next)) = (lamport, end, next) else {
            return Err(reader.malformed("counters out of range"));
        };
        // The last change of the piece has the time before the next one's.
        if end > COUNTER_MAX + 1 || next - 1 > LAMPORT_MAX {
            return Err(reader.malformed("counters out of range"));
        }
        let piece = Piece { start, lamport, len, count };
        if pieces.last().is_some_and(|last| piece.continues(last)) {
            return Err(reader.malformed("times in two pieces"));
        }
        pieces.push(piece);
        (start, expected) = (end, next);
    }
    if pieces.is_empty() {
        return Err(reader.malformed("an author of nothing"));
    }
    Ok(Times { author, pieces, is_head: head & 1 == 1 })
}

/// An op as the number of its author and its counter.
fn numbered(op: OpId, authors: &[ReplicaId]) -> (u64, u64) {
    // Whoever made an op in the state is among the authors.
    let number = authors.binary_search(&op.replica).unwrap_or_default();
    (number as u64, op.counter)
}

#[cfg(test)]
mod tests;
