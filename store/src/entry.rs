//! Reading an entry.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

use sds_engine::{BlobRef, EntryId, Field, NewEntry, Timestamp, ValueRef};
use serde_json::Value as Json;

use crate::edit::check_depth;
use crate::limits::DEFAULT_MIME_TYPE;
use crate::store::DataStore;
use crate::value::{ItemValue, ValueKind};

/// The info key under which the time of deletion is read; nobody can set it.
pub(crate) const TRASHED_AT: &str = "_trashedAt";

/// An entry that shows in a store: an item or a link. Cheap to copy; reads what is there now.
///
/// It borrows the store, so nothing changes while it is held. What is to outlive an edit is the
/// [`id`](Self::id): it stays good for ever, and whatever takes it says `not-found` once the entry was
/// purged. Two are equal if they are the same entry of the same store.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    store: &'a DataStore,
    id: EntryId,
}

impl PartialEq for Entry<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && std::ptr::eq(self.store, other.store)
    }
}

impl Eq for Entry<'_> {}

impl Hash for Entry<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
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

    /// Whether it is the item that holds everything.
    #[must_use]
    pub fn is_root_item(&self) -> bool {
        self.id == EntryId::ROOT
    }

    /// Whether it is the item in which deleted entries wait.
    #[must_use]
    pub fn is_trash_item(&self) -> bool {
        self.id == EntryId::TRASH
    }

    /// Whether it is the item in which entries show that have lost their place.
    #[must_use]
    pub fn is_lost_and_found_item(&self) -> bool {
        self.id == EntryId::LOST_AND_FOUND
    }

    /// Whether it is an item rather than a link.
    #[must_use]
    pub fn is_item(&self) -> bool {
        self.target_id().is_none()
    }

    /// Whether it is a link.
    #[must_use]
    pub fn is_link(&self) -> bool {
        !self.is_item()
    }

    /// Whether it only stands for the target of a link: an empty item in Lost and Found, which becomes
    /// a real one when it is edited.
    #[must_use]
    pub fn is_placeholder(&self) -> bool {
        !self.store.replica().is_alive(self.id)
    }

    /// The item that a link points to; none for an item. It need not be there.
    #[must_use]
    pub fn target_id(&self) -> Option<EntryId> {
        match self.store.replica().kind(self.id) {
            Some(NewEntry::Link { target }) => Some(target),
            _ => None,
        }
    }

    /// The item that a link points to, if it is one and its target shows: as that of a link outside
    /// Trash always does. A link is there where one copy imported a link to something that was not
    /// there, and another one imported that as a link.
    #[must_use]
    pub fn target(&self) -> Option<Self> {
        self.store.entry_with_id(self.target_id()?)
    }

    /// The live links that point here, in order of id.
    pub fn links(&self) -> impl Iterator<Item = Self> + use<'a> {
        let store = self.store;
        store.replica().links_to(self.id).map(move |id| Self { store, id })
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
    pub fn outer_item_chain(&self) -> impl Iterator<Item = Self> + use<'a> {
        std::iter::successors(self.outer_item(), Self::outer_item)
    }

    /// The ids of the items it is in, from the nearest to Root.
    pub fn outer_item_ids(&self) -> impl Iterator<Item = EntryId> + use<'a> {
        self.outer_item_chain().map(|outer| outer.id)
    }

    /// Whether it is in Trash, at any depth. Costs its depth.
    #[must_use]
    pub fn is_in_trash(&self) -> bool {
        self.outer_item_ids().any(|outer| outer == EntryId::TRASH)
    }

    /// Where it stands in its container; none for Root. O(log n).
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        self.store.replica().index_of(self.id)
    }

    /// The bytes by which it stands among its siblings; equal ones are in order of id. For whoever
    /// checks or compares stores.
    #[must_use]
    pub fn order_key(&self) -> Option<Vec<u8>> {
        self.store.replica().order_key(self.id)
    }

    /// The entries inside, in order; none for a link.
    pub fn inner_entries(&self) -> impl DoubleEndedIterator<Item = Self> + use<'a> {
        let store = self.store;
        store.replica().children(self.id).map(move |id| Self { store, id })
    }

    /// How many entries are inside. O(1).
    #[must_use]
    pub fn inner_entry_count(&self) -> usize {
        self.store.replica().child_count(self.id)
    }

    /// The entry inside that stands at `index`. O(log n).
    #[must_use]
    pub fn inner_entry_at(&self, index: usize) -> Option<Self> {
        self.store.replica().child_at(self.id, index).map(|id| Self { id, ..*self })
    }

    /// What it is called.
    #[must_use]
    pub fn label(&self) -> Cow<'a, str> {
        match self.field(&Field::Label) {
            ValueRef::Text(label) => label.into_cow(),
            _ => Cow::Borrowed(default_label(self.id)),
        }
    }

    /// MIME type of an item's value.
    #[must_use]
    pub fn mime_type(&self) -> Cow<'a, str> {
        match self.field(&Field::Type) {
            // An empty one came from a foreign program.
            ValueRef::Text(kind) => Some(kind.into_cow()).filter(|kind| !kind.is_empty()),
            _ => None,
        }
        .unwrap_or(Cow::Borrowed(DEFAULT_MIME_TYPE))
    }

    /// How the value is kept.
    #[must_use]
    pub fn value_kind(&self) -> ValueKind {
        match self.field(&Field::Value) {
            ValueRef::Text(_) => ValueKind::Literal,
            ValueRef::Bytes(_) => ValueKind::Binary,
            ValueRef::Blob(blob) if blob.is_text => ValueKind::LiteralReference,
            ValueRef::Blob(_) => ValueKind::BinaryReference,
            _ => ValueKind::None,
        }
    }

    /// Whether the value is a text, inline or not.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.value_kind().is_literal()
    }

    /// Whether the value is bytes, inline or not.
    #[must_use]
    pub fn is_binary(&self) -> bool {
        self.value_kind().is_binary()
    }

    /// The value, from wherever it is kept.
    #[must_use]
    pub fn value(&self) -> ItemValue {
        match self.field(&Field::Value) {
            ValueRef::Text(text) => ItemValue::Text(text.into_cow().into_owned()),
            ValueRef::Bytes(bytes) => ItemValue::Bytes(bytes.into()),
            ValueRef::Blob(blob) => self.blob_value(blob),
            _ => ItemValue::None,
        }
    }

    /// The value, if it is an inline text; without a copy unless it was edited.
    #[must_use]
    pub fn text(&self) -> Option<Cow<'a, str>> {
        match self.field(&Field::Value) {
            ValueRef::Text(text) => Some(text.into_cow()),
            _ => None,
        }
    }

    /// The blob that the value refers to, if it is kept as one.
    #[must_use]
    pub fn blob_ref(&self) -> Option<BlobRef> {
        match self.field(&Field::Value) {
            ValueRef::Blob(blob) => Some(blob),
            _ => None,
        }
    }

    /// When it was deleted, if it is directly in Trash by a deletion.
    #[must_use]
    pub fn trashed_at(&self) -> Option<Timestamp> {
        self.store.replica().trashed_at(self.id)
    }

    /// Whether it can be deleted: everything can but the system items.
    #[must_use]
    pub fn may_be_deleted(&self) -> bool {
        self.store.entry_may_be_deleted(self.id).is_ok()
    }

    /// Whether it can be purged: it is directly in Trash, and no link in sight leads into it.
    #[must_use]
    pub fn may_be_purged(&self) -> bool {
        self.store.entry_may_be_purged(self.id).is_ok()
    }

    /// Whether it can be moved into `outer`.
    #[must_use]
    pub fn may_be_moved_to(&self, outer: EntryId) -> bool {
        self.store.entry_may_be_moved_to(self.id, outer).is_ok()
    }

    /// The metadata under `key`; none if there is none, which is not the same as JSON's null.
    #[must_use]
    pub fn info(&self, key: &str) -> Option<Json> {
        if key == TRASHED_AT {
            return self.trashed_at().map(|time| time.as_millis().into());
        }
        self.info_of(&Field::Info(key.into()))
    }

    /// The keys under which there is metadata, in order; `_trashedAt` last.
    pub fn info_keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let (store, id) = (self.store, self.id);
        let keys = store.replica().fields(id).filter_map(|field| match field {
            Field::Info(key) if &**key != TRASHED_AT => Some((field, &**key)),
            _ => None,
        });
        // What is no metadata came from a foreign program.
        let is_json = move |field: &Field| {
            let value = store.replica().value_ref(id, field);
            !matches!(value, ValueRef::None | ValueRef::Bytes(_) | ValueRef::Blob(_))
        };
        let keys = keys.filter(move |(field, _)| is_json(field)).map(|(_, key)| key);
        keys.chain(self.trashed_at().map(|_| TRASHED_AT))
    }

    /// All metadata, by key.
    #[must_use]
    pub fn info_map(&self) -> serde_json::Map<String, Json> {
        self.info_keys().filter_map(|key| Some((key.to_owned(), self.info(key)?))).collect()
    }

    fn info_of(&self, field: &Field) -> Option<Json> {
        match self.field(field) {
            ValueRef::Bool(value) => Some(value.into()),
            ValueRef::Int(number) => Some(number.into()),
            ValueRef::Float(number) => Some(number.into()),
            ValueRef::Text(text) => Some(text.into_cow().into()),
            // The text was JSON when it was set; one that is not, or is nested deeper than anybody here
            // can set, came from a foreign program.
            ValueRef::Json(text) => {
                let value = serde_json::from_str(text).ok();
                Some(value.filter(|value| check_depth(value).is_ok()).unwrap_or(Json::Null))
            }
            _ => None,
        }
    }

    fn field(&self, field: &Field) -> ValueRef<'a> {
        self.store.replica().value_ref(self.id, field)
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

/// What a system item is called until somebody renames it.
pub(crate) fn default_label(entry: EntryId) -> &'static str {
    match entry {
        EntryId::TRASH => "trash",
        EntryId::LOST_AND_FOUND => "lost-and-found",
        _ => "",
    }
}
