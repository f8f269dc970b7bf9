//! Places in texts that stay where they are while the text changes around them.
//!
//! An anchor names a character, or the start or the end of the text, and the `Set` that made the text.
//! It is no part of the state: whoever holds it, on any replica that has the character, gets the same
//! place. The bytes are in `docs/format.md`.
#![deny(clippy::indexing_slicing)]

use crate::codec::{Reader, Writer, read_field, write_field};
use crate::error::{DecodeError, EditError};
use crate::id::{EntryId, OpId};
use crate::limits::COUNTER_MAX;
use crate::replica::Replica;
use crate::text::{Side, TextUnit};
use crate::text_slice::out_of_range;
use crate::value::Field;

/// The newest form of an anchor's bytes.
const FORMAT: u8 = 1;

/// A place in a text that sticks to one of the characters beside it. See [`Replica::anchor`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Anchor {
    entry: EntryId,
    field: Field,
    /// The `Set` that made the text.
    set: OpId,
    hold: Hold,
}

/// What an anchor sticks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Hold {
    /// The start of the text.
    Start,
    /// The end of the text.
    End,
    /// The end of a character.
    After(OpId),
    /// The beginning of a character.
    Before(OpId),
}

impl Anchor {
    /// The entry whose text it is in.
    #[must_use]
    pub const fn entry(&self) -> EntryId {
        self.entry
    }

    /// The field that holds the text.
    #[must_use]
    pub const fn field(&self) -> &Field {
        &self.field
    }

    /// The anchor as bytes, for whoever it is to be sent to or kept for.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.byte(FORMAT);
        let (kind, char) = match self.hold {
            Hold::Start => (0, None),
            Hold::End => (1, None),
            Hold::After(char) => (2, Some(char)),
            Hold::Before(char) => (3, Some(char)),
        };
        writer.byte(kind);
        writer.raw(self.entry.as_bytes());
        write_field(&mut writer, &self.field);
        for op in [Some(self.set), char].into_iter().flatten() {
            writer.replica(op.replica);
            writer.varint(op.counter);
        }
        writer.into_bytes()
    }

    /// Reads what [`Anchor::encode`] wrote.
    ///
    /// # Errors
    /// Whatever is not exactly that.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let found = reader.byte()?;
        if found > FORMAT {
            return Err(DecodeError::FormatTooNew { found, newest: FORMAT });
        }
        if found != FORMAT {
            return Err(reader.malformed("format of an anchor"));
        }
        let kind = reader.byte()?;
        let entry = EntryId::from_bytes(reader.array()?);
        let field = read_field(&mut reader)?;
        let set = read_op(&mut reader)?;
        let hold = match kind {
            0 => Hold::Start,
            1 => Hold::End,
            2 => Hold::After(read_op(&mut reader)?),
            3 => Hold::Before(read_op(&mut reader)?),
            _ => return Err(reader.malformed("unknown kind of anchor")),
        };
        reader.finish()?;
        Ok(Self { entry, field, set, hold })
    }
}

impl Replica {
    /// An anchor at a position of the text in a field. It sticks to the character on the given side,
    /// or to the start or the end of the text where there is none. O(log n).
    ///
    /// ```
    /// use sds_engine::{EntryId, Field, Replica, ReplicaId, Side, TextUnit, Value};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut desk = Replica::new(ReplicaId::new(1).ok_or("zero")?);
    /// desk.set(EntryId::ROOT, Field::Label, Value::Text("one three".into()))?;
    /// let utf16 = TextUnit::Utf16;
    /// let cursor = desk.anchor(EntryId::ROOT, &Field::Label, 4, utf16, Side::Before)?;
    /// let mark = desk.anchor(EntryId::ROOT, &Field::Label, 4, utf16, Side::After)?;
    ///
    /// desk.splice(EntryId::ROOT, Field::Label, 4..4, "two ")?;
    /// assert_eq!(desk.anchor_position(&cursor, utf16), Some(4));
    /// assert_eq!(desk.anchor_position(&mark, utf16), Some(8));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the entry does not show, the field holds no text, or the position is inside a character or
    /// past the end.
    pub fn anchor(
        &self,
        entry: EntryId,
        field: &Field,
        position: usize,
        unit: TextUnit,
        side: Side,
    ) -> Result<Anchor, EditError> {
        let text = self.text(entry, field)?;
        let char = text.char_beside(position, unit, side);
        let char = char.ok_or_else(|| out_of_range(text, &(position..position), unit))?;
        let hold = match (side, char) {
            (Side::Before, None) => Hold::Start,
            (Side::After, None) => Hold::End,
            (Side::Before, Some(char)) => Hold::After(char),
            (Side::After, Some(char)) => Hold::Before(char),
        };
        Ok(Anchor { entry, field: field.clone(), set: text.set, hold })
    }

    /// Where an anchor is now; where its character was, if that has been deleted. None if the entry
    /// does not show, its field holds another text by now, or the character has not arrived here.
    /// Replicas with the same changes agree. O(log n), but for the first time in a text that was set or
    /// loaded and not spliced since: then O(n log n) in its runs.
    #[must_use]
    pub fn anchor_position(&self, anchor: &Anchor, unit: TextUnit) -> Option<usize> {
        let text = self.text(anchor.entry, &anchor.field).ok()?;
        if text.set != anchor.set {
            return None;
        }
        let lengths = match anchor.hold {
            Hold::Start => return Some(0),
            Hold::End => text.lengths(),
            Hold::Before(char) => text.position_of(char)?.before,
            Hold::After(char) => {
                let place = text.position_of(char)?;
                place.before + place.shown
            }
        };
        Some(lengths.in_unit(unit))
    }
}

fn read_op(reader: &mut Reader<'_>) -> Result<OpId, DecodeError> {
    let (replica, counter) = (reader.replica()?, reader.varint()?);
    if counter > COUNTER_MAX {
        return Err(reader.malformed("counter out of range"));
    }
    Ok(OpId { replica, counter })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ReplicaId;
    use crate::value::Value;

    fn anchors() -> Vec<Anchor> {
        let mut desk = Replica::new(ReplicaId::new(7).unwrap());
        let mut anchors = Vec::new();
        for field in [Field::Label, Field::Value, Field::Info("a key".into())] {
            desk.set(EntryId::ROOT, field.clone(), Value::Text("text".into())).unwrap();
            for (position, side) in
                [(0, Side::Before), (4, Side::After), (2, Side::Before), (2, Side::After)]
            {
                let made = desk.anchor(EntryId::ROOT, &field, position, TextUnit::Chars, side);
                anchors.push(made.unwrap());
            }
        }
        anchors
    }

    #[test]
    fn an_anchor_survives_its_encoding_and_no_part_of_it_is_one() {
        for anchor in anchors() {
            let bytes = anchor.encode();
            assert_eq!(Anchor::decode(&bytes), Ok(anchor));
            for end in 0..bytes.len() {
                assert!(bytes.get(..end).is_none_or(|part| Anchor::decode(part).is_err()));
            }
            let longer = [bytes.as_slice(), &[0]].concat();
            assert!(Anchor::decode(&longer).is_err());
        }
    }

    #[test]
    fn an_anchor_of_a_newer_format_says_so() {
        let newer = DecodeError::FormatTooNew { found: 2, newest: 1 };
        assert_eq!(Anchor::decode(&[2, 0]), Err(newer));
    }

    #[test]
    fn an_anchor_is_nowhere_once_its_text_was_set_again() {
        let mut desk = Replica::new(ReplicaId::new(7).unwrap());
        let set = |desk: &mut Replica| {
            desk.set(EntryId::ROOT, Field::Label, Value::Text("same".into())).unwrap();
        };
        set(&mut desk);
        let at = |desk: &Replica, position, side| {
            desk.anchor(EntryId::ROOT, &Field::Label, position, TextUnit::Utf8, side).unwrap()
        };
        let held =
            [at(&desk, 0, Side::Before), at(&desk, 1, Side::After), at(&desk, 4, Side::After)];
        desk.splice(EntryId::ROOT, Field::Label, 0..3, "").unwrap();
        let positions = |desk: &Replica| {
            held.clone().map(|anchor| desk.anchor_position(&anchor, TextUnit::Utf8))
        };
        assert_eq!(positions(&desk), [Some(0), Some(0), Some(1)]);
        set(&mut desk);
        assert_eq!(positions(&desk), [None; 3]);
    }
}
