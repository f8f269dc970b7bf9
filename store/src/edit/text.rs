//! What entries are called, and what items hold.
//!
//! Three ways to edit a text: *set* or *write* replaces it whole, and of concurrent ones the newest
//! wins; *splice* or *change* edits characters, and concurrent edits merge; *update* is given the whole
//! new text and splices the difference.

use std::ops::Range;
use std::sync::Arc;

use sds_engine::{BlobRef, EntryId, Field, Value, ValueRef};

use super::checks::{check_growth, check_length};
use crate::anchor::TextField;
use crate::error::StoreError;
use crate::limits::{BINARY_SIZE_LIMIT, DEFAULT_MIME_TYPE, LABEL_LENGTH_MAX, MIME_TYPE_LENGTH_MAX};
use crate::store::DataStore;
use crate::text_diff::{edits, utf16_len};
use crate::value::{ItemValue, NewValue};

impl DataStore {
    /// Gives an entry another label, whole: of concurrent ones the newest wins.
    ///
    /// # Errors
    /// `not-found`; `invalid-argument` past 1,024 UTF-16 units.
    pub fn set_label(&mut self, entry: EntryId, label: &str) -> Result<(), StoreError> {
        check_length("label", label, 0, LABEL_LENGTH_MAX)?;
        self.set(entry, Field::Label, Value::Text(label.to_owned()))
    }

    /// Replaces a range of UTF-16 units of a label. Concurrent splices of one label merge. Splicing a
    /// label that was never set sets it: so does whoever else does it at the same time, and the newest
    /// wins.
    ///
    /// # Errors
    /// `not-found`; `invalid-argument` if the range does not lie on character boundaries inside the
    /// label, or the label would grow past 1,024 UTF-16 units.
    pub fn splice_label(
        &mut self,
        entry: EntryId,
        range: Range<usize>,
        replacement: &str,
    ) -> Result<(), StoreError> {
        self.require_entry(entry)?;
        let Some(len) = self.text_len(entry, TextField::Label) else {
            let label = spliced(&self.entry(entry)?.label(), range, replacement)?;
            return self.set_label(entry, &label);
        };
        let after = len.saturating_sub(range.len()) + utf16_len(replacement);
        check_growth("label", (len, after), LABEL_LENGTH_MAX)?;
        self.edit(|replica| replica.splice(entry, Field::Label, range, replacement))
    }

    /// Makes a label of the one that is there by splicing what differs, so that it merges with what
    /// others do to the label. Nothing happens if it is the same.
    ///
    /// # Errors
    /// `not-found`; `invalid-argument` past 1,024 UTF-16 units, or past what it has if it was merged past
    /// them.
    pub fn update_label(&mut self, entry: EntryId, label: &str) -> Result<(), StoreError> {
        let old = self.entry(entry)?.label().into_owned();
        check_growth("label", (utf16_len(&old), utf16_len(label)), LABEL_LENGTH_MAX)?;
        if self.text_len(entry, TextField::Label).is_none() && old != label {
            return self.set_label(entry, label);
        }
        self.splice_difference(entry, &Field::Label, &old, label)
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

    /// An item's value, from wherever it is kept.
    ///
    /// # Errors
    /// `not-found`; `invalid-argument` for a link.
    pub fn read_value(&self, item: EntryId) -> Result<ItemValue, StoreError> {
        self.require_own_item(item)?;
        Ok(self.entry(item)?.value())
    }

    /// Replaces an item's value, whole: of concurrent ones the newest wins. A text up to the store's
    /// limit (131,072 UTF-16 units) and bytes up to 2,048 are kept inline, longer ones as a blob.
    ///
    /// ```
    /// use sds_store::{DataStore, EntryId, ItemValue, NewValue, ReplicaId, ValueKind};
    ///
    /// # fn main() -> Result<(), sds_store::StoreError> {
    /// let mut store = DataStore::new(ReplicaId::new(1).unwrap());
    /// let item = store.new_item_at(None, EntryId::ROOT, None)?;
    /// store.write_value(item, "some text")?;
    /// assert_eq!(store.read_value(item)?.as_text(), Some("some text"));
    /// store.write_value(item, vec![0; 4_096])?;
    /// assert_eq!(store.entry(item)?.value_kind(), ValueKind::BinaryReference);
    /// store.write_value(item, NewValue::None)?;
    /// assert_eq!(store.read_value(item)?, ItemValue::None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `not-found`; `invalid-argument` for a link; `transaction-too-large` if the store's limit lets a
    /// text be inline that is more than a change may have.
    pub fn write_value(
        &mut self,
        item: EntryId,
        value: impl Into<NewValue>,
    ) -> Result<(), StoreError> {
        self.require_own_item(item)?;
        let value = self.stored(value.into());
        self.set(item, Field::Value, value)
    }

    /// Makes a blob an item's value, whole, as [`write_value`](Self::write_value) does: for one that
    /// was brought to where the blobs are kept without being in memory, or that is to come.
    ///
    /// # Errors
    /// `not-found`; `invalid-argument` for a link.
    pub fn write_blob_value(&mut self, item: EntryId, blob: BlobRef) -> Result<(), StoreError> {
        self.require_own_item(item)?;
        self.set(item, Field::Value, Value::Blob(blob))
    }

    /// Replaces a range of UTF-16 units of an inline text. Concurrent changes of one text merge. The
    /// second number is an end, not a count.
    ///
    /// # Errors
    /// `change-value-not-literal` if the value is no inline text; `invalid-argument` if the range
    /// does not lie on character boundaries inside it, or the text would grow past the limit.
    pub fn change_value(
        &mut self,
        item: EntryId,
        range: Range<usize>,
        replacement: &str,
    ) -> Result<(), StoreError> {
        self.require_own_item(item)?;
        if let Some(len) = self.text_len(item, TextField::Value) {
            let after = len.saturating_sub(range.len()) + utf16_len(replacement);
            check_growth("value", (len, after), self.options().literal_size_limit)?;
        }
        self.edit(|replica| replica.splice(item, Field::Value, range, replacement))
    }

    /// Makes a text of an item's value. Of an inline text only what differs is spliced, so that it
    /// merges with what others type at the same time; any other value, and what is too long to be
    /// inline, is replaced. Nothing happens if it is the same. Costs about the length of both texts.
    ///
    /// ```
    /// use sds_store::{DataStore, EntryId, ReplicaId};
    ///
    /// # fn main() -> Result<(), sds_store::StoreError> {
    /// let mut desk = DataStore::new(ReplicaId::new(1).unwrap());
    /// let mut phone = DataStore::new(ReplicaId::new(2).unwrap());
    /// let note = desk.new_item_at(None, EntryId::ROOT, None)?;
    /// desk.write_value(note, "buy milk and bread")?;
    /// phone.apply_remote_patch(&desk.export_patch(phone.version()))?;
    ///
    /// // An editor without positions hands over whole texts.
    /// desk.update_value(note, "buy oat milk and bread")?;
    /// phone.update_value(note, "buy milk and rye bread")?;
    /// phone.apply_remote_patch(&desk.export_patch(phone.version()))?;
    /// assert_eq!(phone.read_value(note)?.as_text(), Some("buy oat milk and rye bread"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`DataStore::write_value`].
    pub fn update_value(&mut self, item: EntryId, text: &str) -> Result<(), StoreError> {
        self.require_own_item(item)?;
        let old = match self.replica().value_ref(item, &Field::Value) {
            ValueRef::Text(old) => old.into_cow().into_owned(),
            _ => return self.write_if_other(item, text.into()),
        };
        let (before, after) = (utf16_len(&old), utf16_len(text));
        if check_growth("value", (before, after), self.options().literal_size_limit).is_err() {
            return self.write_value(item, text);
        }
        self.splice_difference(item, &Field::Value, &old, text)
    }

    /// Replaces an item's value unless it is the same.
    pub(crate) fn write_if_other(
        &mut self,
        item: EntryId,
        value: NewValue,
    ) -> Result<(), StoreError> {
        let is_same = match (self.replica().value_ref(item, &Field::Value), &value) {
            // Compared before it is kept: merging may have made an inline one longer than it may be set.
            (ValueRef::Text(old), NewValue::Text(new)) => old.into_cow() == *new,
            _ => false,
        };
        if is_same {
            return Ok(());
        }
        let value = self.stored(value);
        self.set_value_if_other(item, value)
    }

    pub(crate) fn set_value_if_other(
        &mut self,
        item: EntryId,
        value: Value,
    ) -> Result<(), StoreError> {
        let is_same = match (self.replica().value_ref(item, &Field::Value), &value) {
            (ValueRef::None, Value::None) => true,
            (ValueRef::Text(old), Value::Text(new)) => old.into_cow() == *new,
            (ValueRef::Bytes(old), Value::Bytes(new)) => old == new,
            (ValueRef::Blob(old), Value::Blob(new)) => old == *new,
            _ => false,
        };
        if is_same {
            return Ok(());
        }
        self.set(item, Field::Value, value)
    }

    /// A value as it is kept; what is too large becomes a blob.
    fn stored(&mut self, value: NewValue) -> Value {
        match value {
            NewValue::None => Value::None,
            NewValue::Text(text) if utf16_len(&text) <= self.options().literal_size_limit => {
                Value::Text(text)
            }
            NewValue::Text(text) => self.keep_as_blob(text.into_bytes().into(), true),
            NewValue::Bytes(bytes) if bytes.len() <= BINARY_SIZE_LIMIT => Value::Bytes(bytes),
            NewValue::Bytes(bytes) => self.keep_as_blob(bytes.into(), false),
        }
    }

    fn keep_as_blob(&mut self, bytes: Arc<[u8]>, is_text: bool) -> Value {
        let size = bytes.len() as u64;
        Value::Blob(BlobRef { hash: self.add_blob(bytes), size, is_text })
    }

    fn splice_difference(
        &mut self,
        entry: EntryId,
        field: &Field,
        old: &str,
        new: &str,
    ) -> Result<(), StoreError> {
        let edits = edits(old, new);
        if edits.is_empty() {
            return Ok(());
        }
        self.edit(|replica| {
            replica.transact(|replica| {
                edits.into_iter().try_for_each(|edit| {
                    replica.splice(entry, field.clone(), edit.range, edit.text)
                })
            })
        })
    }
}

/// A text with a range of UTF-16 units replaced.
fn spliced(text: &str, range: Range<usize>, replacement: &str) -> Result<String, StoreError> {
    let at = |units: usize| {
        let mut passed = 0;
        let mut ends = text.char_indices().chain([(text.len(), ' ')]);
        ends.find_map(|(byte, char)| {
            let is_it = passed == units;
            passed += char.len_utf16();
            is_it.then_some(byte)
        })
    };
    let (from, to) = (range.start, range.end);
    match (at(from), at(to)) {
        (Some(start), Some(end)) if start <= end => {
            Ok([&text[..start], replacement, &text[end..]].concat())
        }
        _ => Err(StoreError::OutOfRange { from, to, len: utf16_len(text) }),
    }
}
