//! Reading an entry.

use sds_engine::{BlobRef, EntryId, Field, NewEntry, Timestamp, Value};
use serde_json::Value as Json;

use crate::limits::DEFAULT_MIME_TYPE;
use crate::store::DataStore;
use crate::value::{ItemValue, ValueKind};

/// The info key under which the time of deletion is read; nobody can set it.
pub(crate) const TRASHED_AT: &str = "_trashedAt";

/// An entry that shows in a store: an item or a link. Cheap to copy; reads what is there now.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    store: &'a DataStore,
    id: EntryId,
}

impl<'a> Entry<'a> {
    pub(crate) const fn new(store: &'a DataStore, id: EntryId) -> Self {
        Self { store, id }
    }

    /// The entry's id.
    #[must_use]
    pub const fn id(&self) -> EntryId {
        self.id
    }

    /// Whether it is an item rather than a link.
    #[must_use]
    pub fn is_item(&self) -> bool {
        self.target_id().is_none()
    }

    /// The item that a link points to; none for an item. The target may not be there.
    #[must_use]
    pub fn target_id(&self) -> Option<EntryId> {
        match self.store.replica().kind(self.id) {
            Some(NewEntry::Link { target }) => Some(target),
            _ => None,
        }
    }

    /// The item it is in; none for Root.
    #[must_use]
    pub fn outer_item(&self) -> Option<Self> {
        self.outer_item_id().map(|id| Self { id, ..*self })
    }

    /// The id of the item it is in; none for Root.
    #[must_use]
    pub fn outer_item_id(&self) -> Option<EntryId> {
        self.store.replica().parent(self.id)
    }

    /// The items it is in, from the nearest to Root.
    pub fn outer_item_chain(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.outer_item(), Self::outer_item)
    }

    /// The entries inside, in order; none for a link.
    pub fn inner_entries(&self) -> impl DoubleEndedIterator<Item = Self> + use<'a> {
        let store = self.store;
        store.replica().children(self.id).map(move |id| Self { store, id })
    }

    /// How many entries are inside.
    #[must_use]
    pub fn inner_entry_count(&self) -> usize {
        self.store.replica().child_count(self.id)
    }

    /// What it is called.
    #[must_use]
    pub fn label(&self) -> String {
        match self.field(&Field::Label) {
            Value::Text(label) => label,
            _ => default_label(self.id).to_owned(),
        }
    }

    /// MIME type of an item's value.
    #[must_use]
    pub fn mime_type(&self) -> String {
        match self.field(&Field::Type) {
            Value::Text(kind) => kind,
            _ => DEFAULT_MIME_TYPE.to_owned(),
        }
    }

    /// How the value is kept.
    #[must_use]
    pub fn value_kind(&self) -> ValueKind {
        match self.field(&Field::Value) {
            Value::Text(_) => ValueKind::Literal,
            Value::Bytes(_) => ValueKind::Binary,
            Value::Blob(blob) if blob.is_text => ValueKind::LiteralReference,
            Value::Blob(_) => ValueKind::BinaryReference,
            _ => ValueKind::None,
        }
    }

    /// The value, from wherever it is kept.
    #[must_use]
    pub fn value(&self) -> ItemValue {
        match self.field(&Field::Value) {
            Value::Text(text) => ItemValue::Text(text),
            Value::Bytes(bytes) => ItemValue::Bytes(bytes.into()),
            Value::Blob(blob) => self.blob_value(blob),
            _ => ItemValue::None,
        }
    }

    /// The blob that the value refers to, if it is kept as one.
    #[must_use]
    pub fn blob_ref(&self) -> Option<BlobRef> {
        match self.field(&Field::Value) {
            Value::Blob(blob) => Some(blob),
            _ => None,
        }
    }

    /// When it was deleted, if it is directly in Trash by a deletion.
    #[must_use]
    pub fn trashed_at(&self) -> Option<Timestamp> {
        self.store.replica().trashed_at(self.id)
    }

    /// The metadata under `key`; none if there is none, which is not the same as JSON's null.
    #[must_use]
    pub fn info(&self, key: &str) -> Option<Json> {
        if key == TRASHED_AT {
            return self.trashed_at().map(|time| time.as_millis().into());
        }
        match self.field(&Field::Info(key.into())) {
            Value::Bool(value) => Some(value.into()),
            Value::Int(number) => Some(number.into()),
            Value::Float(number) => Some(number.into()),
            Value::Text(text) => Some(text.into()),
            // The text was JSON when it was set; one that is not came from a foreign program.
            Value::Json(text) => Some(serde_json::from_str(&text).unwrap_or(Json::Null)),
            _ => None,
        }
    }

    /// All metadata, by key.
    #[must_use]
    pub fn info_map(&self) -> serde_json::Map<String, Json> {
        let keys = self.store.replica().fields(self.id).filter_map(|field| match field {
            Field::Info(key) if &**key != TRASHED_AT => Some(&**key),
            _ => None,
        });
        let derived = self.trashed_at().map(|_| TRASHED_AT);
        keys.chain(derived)
            .filter_map(|key| self.info(key).map(|value| (key.to_owned(), value)))
            .collect()
    }

    fn field(&self, field: &Field) -> Value {
        self.store.replica().value(self.id, field)
    }

    fn blob_value(&self, blob: BlobRef) -> ItemValue {
        match self.store.blob(&blob.hash) {
            None => ItemValue::Pending(blob),
            Some(bytes) if blob.is_text => match std::str::from_utf8(&bytes) {
                Ok(text) => ItemValue::Text(text.to_owned()),
                // Said to be text by whoever wrote it, and it is not: show what is there.
                Err(_) => ItemValue::Bytes(bytes),
            },
            Some(bytes) => ItemValue::Bytes(bytes),
        }
    }
}

pub(crate) fn default_label(entry: EntryId) -> &'static str {
    match entry {
        EntryId::TRASH => "trash",
        EntryId::LOST_AND_FOUND => "lost-and-found",
        _ => "",
    }
}
