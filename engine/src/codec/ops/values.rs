//! Values as bytes: what kind it is goes with the field, then its content.

use super::super::fields::field_number;
use super::super::{Column, Reader, Sink, Source, Writer};
use super::names::{NameReader, NameWriter};
use crate::error::DecodeError;
use crate::value::{BlobHash, BlobRef, Field, Value, ValueView};

pub(crate) const TEXT_KIND: u8 = 5;
/// The kinds of texts, which have the form of bytes.
pub(crate) const TEXT_KINDS: [u8; 2] = [TEXT_KIND, 7];
pub(crate) const BYTES_KIND: u8 = 6;

/// The number of the value's kind.
pub(crate) const fn value_kind(value: ValueView<'_>) -> u8 {
    match value {
        ValueView::None => 0,
        ValueView::Bool(false) => 1,
        ValueView::Bool(true) => 2,
        ValueView::Int(_) => 3,
        ValueView::Float(_) => 4,
        ValueView::Text(_) => 5,
        ValueView::Bytes(_) => 6,
        ValueView::Json(_) => 7,
        ValueView::Blob(BlobRef { is_text: false, .. }) => 8,
        ValueView::Blob(BlobRef { is_text: true, .. }) => 9,
    }
}

/// Writes what a value holds. The digest hashes the same bytes.
pub(crate) fn write_content(writer: &mut Writer, value: ValueView<'_>) {
    match value {
        ValueView::None | ValueView::Bool(_) => {}
        ValueView::Int(number) => writer.signed(number),
        ValueView::Float(number) => writer.raw(&number.to_bits().to_le_bytes()),
        ValueView::Text(text) | ValueView::Json(text) => writer.text(text),
        ValueView::Bytes(bytes) => writer.sized(bytes),
        ValueView::Blob(blob) => {
            writer.raw(&blob.hash.0);
            writer.varint(blob.size);
        }
    }
}

/// Reads what a value of this kind holds.
pub(crate) fn read_content<'a>(
    reader: &mut Reader<'a>,
    kind: u8,
) -> Result<ValueView<'a>, DecodeError> {
    Ok(match kind {
        0 => ValueView::None,
        1 => ValueView::Bool(false),
        2 => ValueView::Bool(true),
        3 => ValueView::Int(reader.signed()?),
        4 => ValueView::Float(f64::from_bits(u64::from_le_bytes(reader.array()?))),
        5 => ValueView::Text(reader.text()?),
        6 => ValueView::Bytes(reader.sized()?),
        7 => ValueView::Json(reader.text()?),
        8 | 9 => ValueView::Blob(BlobRef {
            hash: BlobHash(reader.array()?),
            size: reader.varint()?,
            is_text: kind == 9,
        }),
        _ => return Err(reader.malformed("unknown kind of value")),
    })
}

const FIELD_BITS: u32 = 2;

impl<S: Sink> NameWriter<'_, S> {
    /// A field, with a number that shares its byte.
    pub(super) fn field(&mut self, field: &Field, number: u64) {
        let writer = self.sink.to(Column::Field);
        writer.varint(number << FIELD_BITS | u64::from(field_number(field)));
        if let Field::Info(key) = field {
            writer.text(key);
        }
    }

    /// A field and its new value.
    pub(super) fn value(&mut self, field: &Field, value: &Value) {
        self.field(field, value_kind(value.view()).into());
        let column = if matches!(value, Value::Text(_)) { Column::Text } else { Column::Value };
        write_content(self.sink.to(column), value.view());
    }
}

impl<'b, S: Source<'b>> NameReader<'_, S> {
    /// A field, and the number that shares its byte.
    pub(super) fn field(&mut self) -> Result<(Field, u64), DecodeError> {
        let reader = self.source.from(Column::Field);
        let number = reader.varint()?;
        let field = match number & ((1 << FIELD_BITS) - 1) {
            0 => Field::Label,
            1 => Field::Type,
            2 => Field::Value,
            _ => Field::Info(reader.text()?.into()),
        };
        Ok((field, number >> FIELD_BITS))
    }

    /// A field and its new value.
    pub(super) fn value(&mut self) -> Result<(Field, Value), DecodeError> {
        let (field, kind) = self.field()?;
        let kind = u8::try_from(kind).unwrap_or(u8::MAX);
        let column = if kind == 5 { Column::Text } else { Column::Value };
        Ok((field, read_content(self.source.from(column), kind)?.to_value()))
    }
}
