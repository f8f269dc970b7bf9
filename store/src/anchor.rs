//! Places in texts that stay where they are while the text changes: cursors, selections, marks.

use std::ops::Range;

use sds_engine::{Anchor, EntryId, Field, Side, TextSlice, TextUnit};
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::store::DataStore;

/// A text of an entry whose characters can be edited.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TextField {
    /// What the entry is called.
    Label,
    /// The value of an item, if it is an inline text.
    Value,
}

impl TextField {
    pub(crate) const fn field(self) -> Field {
        match self {
            Self::Label => Field::Label,
            Self::Value => Field::Value,
        }
    }
}

impl DataStore {
    /// An anchor at a position of a text, in UTF-16 units. It sticks to the character on the given
    /// side, on every copy of the store, or to the start or the end of the text where there is none.
    /// [`Anchor::encode`] makes bytes of it, to be sent with presence or kept. O(log n).
    ///
    /// ```
    /// use sds_store::{DataStore, EntryId, ReplicaId, Side, TextField};
    ///
    /// # fn main() -> Result<(), sds_store::StoreError> {
    /// let mut store = DataStore::new(ReplicaId::new(1).unwrap());
    /// let note = store.new_item_at(None, EntryId::ROOT, None)?;
    /// store.write_value(note, "milk, bread")?;
    /// let cursor = store.anchor(note, TextField::Value, 4, Side::Before)?;
    ///
    /// store.change_value(note, 0..0, "buy ")?;
    /// assert_eq!(store.anchor_position(&cursor), Some(8));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `not-found`; `change-value-not-literal` if there is no inline text, as for a label that was
    /// never set; `invalid-argument` for a position inside a character or past the end.
    pub fn anchor(
        &self,
        entry: EntryId,
        text: TextField,
        position: usize,
        side: Side,
    ) -> Result<Anchor, StoreError> {
        Ok(self.replica().anchor(entry, &text.field(), position, TextUnit::Utf16, side)?)
    }

    /// Where an anchor is now, in UTF-16 units; where its character was, if that has been deleted.
    /// None if the entry does not show, the text was replaced whole, or the character has not arrived
    /// here. O(log n).
    #[must_use]
    pub fn anchor_position(&self, anchor: &Anchor) -> Option<usize> {
        self.replica().anchor_position(anchor, TextUnit::Utf16)
    }

    /// How long an inline text is, in UTF-16 units; none if there is none. O(1) once it was edited.
    #[must_use]
    pub fn text_len(&self, entry: EntryId, text: TextField) -> Option<usize> {
        self.replica().text_len(entry, &text.field(), TextUnit::Utf16)
    }

    /// A part of an inline text, by UTF-16 units, without a copy. O(log n) once it was edited.
    ///
    /// # Errors
    /// As for [`DataStore::anchor`].
    pub fn text_slice(
        &self,
        entry: EntryId,
        text: TextField,
        range: Range<usize>,
    ) -> Result<TextSlice<'_>, StoreError> {
        Ok(self.replica().text_slice(entry, &text.field(), range, TextUnit::Utf16)?)
    }
}
