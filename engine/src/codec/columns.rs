//! Where the parts of ops go: one after another in a change, each to its column in a block, where
//! like stands beside like and compresses.
#![deny(clippy::indexing_slicing)]

use super::{Reader, Writer};
use crate::error::DecodeError;

/// A part of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// Boundaries of changes and their deps; only in blocks.
    Changes,
    /// What kind of op.
    Tag,
    /// The entry that an op is about.
    Entry,
    /// A container, or the target of a link.
    Parent,
    /// Ops referred to: texts, origins, deleted characters.
    Reference,
    /// Lengths, counts and lives.
    Number,
    /// Text.
    Text,
    /// Order keys.
    Key,
    /// Fields and kinds of value.
    Field,
    /// Values that are no text.
    Value,
}

impl Column {
    const COUNT: usize = Self::Value as usize + 1;
}

/// Where parts are written to.
pub(crate) trait Sink {
    /// Where parts of this kind go.
    fn to(&mut self, column: Column) -> &mut Writer;
}

/// Where parts are read from.
pub(crate) trait Source<'a> {
    /// Where parts of this kind are.
    fn from(&mut self, column: Column) -> &mut Reader<'a>;
}

impl Sink for Writer {
    fn to(&mut self, _: Column) -> &mut Writer {
        self
    }
}

impl<'a> Source<'a> for Reader<'a> {
    fn from(&mut self, _: Column) -> &mut Self {
        self
    }
}

/// A writer for each column.
#[derive(Clone, Debug, Default)]
pub(crate) struct ColumnWriter([Writer; Column::COUNT]);

impl ColumnWriter {
    /// Writes the columns behind their lengths.
    pub(crate) fn write_to(self, writer: &mut Writer) {
        drop(self.write_apart(writer));
    }

    /// The same; returns where each column begins.
    fn write_apart(self, writer: &mut Writer) -> Vec<usize> {
        let bytes: usize = self.0.iter().map(|column| column.as_slice().len()).sum();
        writer.reserve(bytes + 2 * Column::COUNT);
        for column in &self.0 {
            writer.count(column.as_slice().len());
        }
        let mut starts = Vec::with_capacity(Column::COUNT);
        for column in &self.0 {
            starts.push(writer.as_slice().len());
            writer.raw(column.as_slice());
        }
        starts
    }
}

/// Bytes that end in columns.
#[derive(Clone, Debug)]
pub(crate) struct InColumns {
    pub(crate) bytes: Vec<u8>,
    /// Where each column begins.
    pub(super) starts: Vec<usize>,
}

impl InColumns {
    pub(super) fn new(mut head: Writer, columns: ColumnWriter) -> Self {
        let starts = columns.write_apart(&mut head);
        Self { bytes: head.into_bytes(), starts }
    }
}

impl Sink for ColumnWriter {
    #[expect(clippy::indexing_slicing, reason = "there is a writer for each column")]
    fn to(&mut self, column: Column) -> &mut Writer {
        &mut self.0[column as usize]
    }
}

/// A reader for each column.
#[derive(Debug)]
pub(crate) struct ColumnReader<'a>([Reader<'a>; Column::COUNT]);

impl<'a> ColumnReader<'a> {
    /// Reads what [`ColumnWriter::write_to`] wrote.
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut lengths = [0; Column::COUNT];
        for length in &mut lengths {
            *length = reader.count(1)?;
        }
        let mut columns = [const { Reader::new(&[]) }; Column::COUNT];
        for (column, length) in columns.iter_mut().zip(lengths) {
            *column = Reader::new(reader.bytes(length)?);
        }
        Ok(Self(columns))
    }

    /// Checks that every column was read to its end.
    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        self.0.iter().try_for_each(Reader::finish)
    }
}

impl<'a> Source<'a> for ColumnReader<'a> {
    #[expect(clippy::indexing_slicing, reason = "there is a reader for each column")]
    fn from(&mut self, column: Column) -> &mut Reader<'a> {
        &mut self.0[column as usize]
    }
}
