//! Values to look at, without a copy.

use crate::entries::EntryIx;
use crate::id::EntryId;
use crate::registers::{FieldNames, RegisterView};
use crate::replica::Replica;
use crate::text::TextChunks;
use crate::value::{BlobRef, Field, ValueView};

/// What a field holds, borrowed from its replica. See [`Value`](crate::Value) for what each means.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum ValueRef<'a> {
    /// Nothing.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A text, in pieces.
    Text(TextChunks<'a>),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Any other JSON value, as its text.
    Json(&'a str),
    /// A blob by reference.
    Blob(BlobRef),
}

impl<'a> ValueRef<'a> {
    /// A value that is no text.
    pub(crate) const fn of_other(value: ValueView<'a>) -> Self {
        match value {
            ValueView::Bool(value) => Self::Bool(value),
            ValueView::Int(number) => Self::Int(number),
            ValueView::Float(number) => Self::Float(number),
            ValueView::Bytes(bytes) => Self::Bytes(bytes),
            ValueView::Json(text) => Self::Json(text),
            ValueView::Blob(blob) => Self::Blob(blob),
            ValueView::None | ValueView::Text(_) => Self::None,
        }
    }
}

impl Replica {
    /// What a field of a live entry holds, without a copy. O(log n) in the size of the text.
    #[must_use]
    pub fn value_ref(&self, entry: EntryId, field: &Field) -> ValueRef<'_> {
        self.register(entry, field).map_or(ValueRef::None, RegisterView::value_ref)
    }

    /// The live entries whose value is a blob, in no particular order. Costs a look at each entry.
    pub fn blob_values(&self) -> impl Iterator<Item = (EntryId, BlobRef)> {
        self.entries.indexes().filter_map(|entry| self.blob_value(entry))
    }

    /// From now on, remembers which entries' values were set, or came or went with a life, for
    /// [`Replica::take_marked_values`]. Costs next to nothing; splices of a text are not marked.
    pub fn mark_values(&mut self) {
        self.watch.mark_values();
    }

    /// The entries whose values may hold something else since this was last called, some maybe twice:
    /// set here or elsewhere, purged, revived or taken back. Splices of a text do not count.
    pub fn take_marked_values(&mut self) -> Vec<EntryId> {
        let marked = self.watch.take_marked();
        marked.into_iter().map(|entry| self.entries.id(entry)).collect()
    }

    fn blob_value(&self, entry: EntryIx) -> Option<(EntryId, BlobRef)> {
        let blob = self.entries.state(entry).blob(FieldNames::VALUE)?;
        self.facts().is_alive(entry).then(|| (self.entries.id(entry), blob))
    }
}
