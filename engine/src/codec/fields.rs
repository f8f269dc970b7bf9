//! Fields by themselves, where no number shares their byte.
#![deny(clippy::indexing_slicing)]

use super::{Reader, Writer};
use crate::error::DecodeError;
use crate::limits::INFO_KEY_BYTES_MAX;
use crate::value::Field;

/// The number of a field; info fields share one and are told apart by their keys.
pub(crate) const fn field_number(field: &Field) -> u8 {
    match field {
        Field::Label => 0,
        Field::Type => 1,
        Field::Value => 2,
        Field::Info(_) => 3,
    }
}

/// Writes a field: its number, and the key of an info field.
pub(crate) fn write_field(writer: &mut Writer, field: &Field) {
    writer.byte(field_number(field));
    if let Field::Info(key) = field {
        writer.text(key);
    }
}

/// Reads what [`write_field`] wrote.
pub(crate) fn read_field(reader: &mut Reader<'_>) -> Result<Field, DecodeError> {
    Ok(match reader.byte()? {
        0 => Field::Label,
        1 => Field::Type,
        2 => Field::Value,
        3 => {
            let key = reader.text()?;
            if key.is_empty() || key.len() > INFO_KEY_BYTES_MAX {
                return Err(reader.malformed("info key of an illegal length"));
            }
            Field::Info(key.into())
        }
        _ => return Err(reader.malformed("unknown field")),
    })
}
