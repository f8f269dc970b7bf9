//! Editing: create, move, delete, and set what entries hold. Every edit outside a transaction is one
//! by itself.

use std::ops::Range;
use std::sync::Arc;

use sds_engine::{BlobRef, EditError, EntryId, Field, NewEntry, Timestamp, Value};
use serde_json::Value as Json;

use crate::entry::TRASHED_AT;
use crate::error::StoreError;
use crate::limits::{
    BINARY_SIZE_LIMIT, DEFAULT_MIME_TYPE, INFO_KEY_LENGTH_MAX, INFO_VALUE_BYTES_MAX,
    LABEL_LENGTH_MAX, MIME_TYPE_LENGTH_MAX,
};
use crate::store::DataStore;

/// A value to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewValue {
    /// No value.
    None,
    /// A text; past the limit for inline texts it is kept as a blob.
    Text(String),
    /// Bytes; past the limit for inline bytes they are kept as a blob.
    Bytes(Vec<u8>),
}

impl From<&str> for NewValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&[u8]> for NewValue {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl DataStore {
    /// Creates an item of a MIME type (`text/plain` if none) inside `outer`, to stand at `index`, or
    /// last if there is none or fewer are there. Indexes in Root count Trash and Lost and Found.
    ///
    /// # Errors
    /// `invalid-argument` if `outer` is not an item of this store or the type is empty or too long.
    pub fn new_item_at(
        &mut self,
        mime_type: Option<&str>,
        outer: EntryId,
        index: Option<usize>,
    ) -> Result<EntryId, StoreError> {
        self.require_item("container", outer)?;
        self.transact(|store| {
            let index = index.unwrap_or(usize::MAX);
            let item = store.edit(|replica| replica.create_item(outer, index))?;
            if let Some(mime_type) = mime_type {
                store.set_mime_type(item, mime_type)?;
            }
            Ok(item)
        })
    }

    /// Creates a link to the item `target` inside `outer`, to stand at `index`, or last.
    ///
    /// # Errors
    /// `invalid-argument` if `target` or `outer` is not an item of this store.
    pub fn new_link_at(
        &mut self,
        target: EntryId,
        outer: EntryId,
        index: Option<usize>,
    ) -> Result<EntryId, StoreError> {
        self.require_item("target", target)?;
        self.require_item("container", outer)?;
        let index = index.unwrap_or(usize::MAX);
        self.edit(|replica| replica.create_link(target, outer, index))
    }

    /// Moves an entry into `outer`, to stand at `index` afterwards, or last. Out of Trash, it is
    /// restored.
    ///
    /// # Errors
    /// `not-found` for an unknown entry, `invalid-argument` if `outer` is not an item,
    /// `move-would-cycle` for system entries and for a container inside the entry.
    pub fn move_entry_to(
        &mut self,
        entry: EntryId,
        outer: EntryId,
        index: Option<usize>,
    ) -> Result<(), StoreError> {
        self.entry_may_be_moved_to(entry, outer)?;
        let index = index.unwrap_or(usize::MAX);
        self.edit(|replica| replica.move_to(entry, outer, index))
    }

    /// Whether [`DataStore::move_entry_to`] would move `entry` into `outer`.
    ///
    /// # Errors
    /// What it would say.
    pub fn entry_may_be_moved_to(&self, entry: EntryId, outer: EntryId) -> Result<(), StoreError> {
        self.require_entry(entry)?;
        self.require_item("container", outer)?;
        self.replica().check_move(entry, outer).map_err(|error| match error {
            EditError::WellKnown(entry) => StoreError::MoveWouldCycle { entry, target: outer },
            other => other.into(),
        })
    }

    /// Deletes an entry: moves it, with everything inside, to the end of Trash. Deleting it again
    /// renews the time.
    ///
    /// # Errors
    /// `not-found` for an unknown entry, `delete-not-permitted` for a system entry.
    pub fn delete_entry(&mut self, entry: EntryId, now: Timestamp) -> Result<(), StoreError> {
        self.edit(|replica| replica.trash(entry, now))
    }

    /// Gives an entry another label, whole: of concurrent ones the newest wins.
    ///
    /// # Errors
    /// `not-found`; `invalid-argument` past 1,024 UTF-16 units.
    pub fn set_label(&mut self, entry: EntryId, label: &str) -> Result<(), StoreError> {
        check_length("label", label, 0, LABEL_LENGTH_MAX)?;
        self.set(entry, Field::Label, Value::Text(label.to_owned()))
    }

    /// Gives an item another MIME type.
    ///
    /// # Errors
    /// `not-found`; `invalid-argument` for a link, or unless the type has 1 to 256 UTF-16 units.
    pub fn set_mime_type(&mut self, item: EntryId, mime_type: &str) -> Result<(), StoreError> {
        check_length("type", mime_type, 1, MIME_TYPE_LENGTH_MAX)?;
        self.require_own_item(item)?;
        let value = match mime_type {
            DEFAULT_MIME_TYPE => Value::None,
            other => Value::Text(other.to_owned()),
        };
        self.set(item, Field::Type, value)
    }

    /// Replaces an item's value, whole: of concurrent ones the newest wins.
    ///
    /// # Errors
    /// `not-found`; `invalid-argument` for a link.
    pub fn write_value(
        &mut self,
        item: EntryId,
        value: impl Into<NewValue>,
    ) -> Result<(), StoreError> {
        self.require_own_item(item)?;
        let value = match value.into() {
            NewValue::None => Value::None,
            NewValue::Text(text) if utf16_len(&text) <= self.literal_size_limit() => {
                Value::Text(text)
            }
            NewValue::Text(text) => self.keep_as_blob(text.into_bytes().into(), true),
            NewValue::Bytes(bytes) if bytes.len() <= BINARY_SIZE_LIMIT => Value::Bytes(bytes),
            NewValue::Bytes(bytes) => self.keep_as_blob(bytes.into(), false),
        };
        self.set(item, Field::Value, value)
    }

    /// Replaces a range of UTF-16 units of an inline text. Concurrent changes of one text merge.
    ///
    /// # Errors
    /// `change-value-not-literal` if the value is no inline text; `invalid-argument` if the range
    /// does not lie on character boundaries inside it, or the text would pass the limit.
    pub fn change_value(
        &mut self,
        item: EntryId,
        range: Range<usize>,
        replacement: &str,
    ) -> Result<(), StoreError> {
        self.require_own_item(item)?;
        if let Value::Text(text) = self.replica().value(item, &Field::Value) {
            let kept = utf16_len(&text).saturating_sub(range.len());
            check_len("value", kept + utf16_len(replacement), self.literal_size_limit())?;
        }
        self.edit(|replica| replica.splice(item, Field::Value, range, replacement))
    }

    /// Sets the metadata under `key`.
    ///
    /// # Errors
    /// `not-found`; `invalid-argument` unless the key has 1 to 1,024 UTF-16 units and is free to
    /// set, or past 262,144 bytes of JSON.
    pub fn set_info(&mut self, entry: EntryId, key: &str, value: &Json) -> Result<(), StoreError> {
        check_length("info key", key, 1, INFO_KEY_LENGTH_MAX)?;
        if key == TRASHED_AT {
            let rule = "_trashedAt is set by deleting";
            return Err(StoreError::InvalidArgument { what: "info key", rule });
        }
        let json = value.to_string();
        check_len("info value", json.len(), INFO_VALUE_BYTES_MAX)?;
        let value = match value {
            Json::Bool(value) => Value::Bool(*value),
            Json::String(text) => Value::Text(text.clone()),
            Json::Number(number) if number.is_i64() => {
                number.as_i64().map_or(Value::Json(json), Value::Int)
            }
            _ => Value::Json(json),
        };
        self.set(entry, Field::Info(key.into()), value)
    }

    /// Removes the metadata under `key`; nothing happens if there is none.
    ///
    /// # Errors
    /// `not-found` for an unknown entry.
    pub fn delete_info(&mut self, entry: EntryId, key: &str) -> Result<(), StoreError> {
        self.require_entry(entry)?;
        let field = Field::Info(key.into());
        if self.replica().value(entry, &field) == Value::None {
            return Ok(());
        }
        self.set(entry, field, Value::None)
    }

    fn keep_as_blob(&mut self, bytes: Arc<[u8]>, is_text: bool) -> Value {
        let size = bytes.len() as u64;
        Value::Blob(BlobRef { hash: self.add_blob(bytes), size, is_text })
    }

    fn require_entry(&self, entry: EntryId) -> Result<(), StoreError> {
        match self.replica().is_shown(entry) {
            true => Ok(()),
            false => Err(StoreError::NotFound(entry)),
        }
    }

    fn require_own_item(&self, entry: EntryId) -> Result<(), StoreError> {
        self.require_entry(entry)?;
        self.require_item("entry", entry)
    }

    fn require_item(&self, what: &'static str, entry: EntryId) -> Result<(), StoreError> {
        match self.replica().kind(entry) {
            Some(NewEntry::Item) => Ok(()),
            _ => Err(StoreError::InvalidArgument { what, rule: "must be an item of this store" }),
        }
    }
}

fn utf16_len(text: &str) -> usize {
    text.encode_utf16().count()
}

fn check_length(what: &'static str, text: &str, min: usize, max: usize) -> Result<(), StoreError> {
    let len = utf16_len(text);
    if len < min {
        return Err(StoreError::InvalidArgument { what, rule: "must not be empty" });
    }
    check_len(what, len, max)
}

const fn check_len(what: &'static str, len: usize, max: usize) -> Result<(), StoreError> {
    if len <= max { Ok(()) } else { Err(StoreError::TooLong { what, len, max }) }
}
