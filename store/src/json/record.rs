//! An entry that was read from JSON, before and after it is checked.

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sds_engine::{BlobHash, BlobRef, EntryId, Field, Timestamp, Value};

use super::info::{Fields, Info};
use crate::blob::blob_hash;
use crate::entry::TRASHED_AT;
use crate::error::{ImportError, StoreError};
use crate::limits::{DEFAULT_MIME_TYPE, MIME_TYPE_LENGTH_MAX};
use crate::store::DataStore;
use crate::value::{NewValue, ValueKind};

/// The fields of an entry as they stand in the text, each of the right type.
#[derive(Debug, Default)]
pub(super) struct RawEntry {
    pub(super) parent: Option<usize>,
    /// How many entries stand before it in its container.
    pub(super) ordinal: usize,
    pub(super) kind: Option<String>,
    pub(super) id: Option<String>,
    pub(super) label: Option<String>,
    pub(super) mime_type: Option<String>,
    pub(super) value_kind: Option<String>,
    pub(super) value: Option<String>,
    pub(super) hash: Option<String>,
    pub(super) size: Option<u64>,
    pub(super) target: Option<String>,
    pub(super) info: Option<Fields>,
    /// The time of deletion, which stands in the metadata, as JSON.
    pub(super) trashed_at: Option<String>,
    pub(super) has_inner: bool,
}

/// An entry to be imported. Of what is not said, it keeps what it has.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) parent: Option<usize>,
    pub(super) ordinal: usize,
    pub(super) id: Option<EntryId>,
    label: Option<String>,
    info: Option<Info>,
    pub(super) trashed_at: Option<Timestamp>,
    pub(super) content: Content,
}

/// All entries of an import, in order. A list that grows has room for twice as many, so it has no records
/// itself.
pub(super) type Records = Vec<Box<Record>>;

#[derive(Debug)]
pub(super) enum Content {
    Item { mime_type: Option<String>, value: Imported },
    Link { target: EntryId },
}

/// Which bounds hold for what is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bounds {
    /// Those of edits.
    OfEdits,
    /// Those of a store that is made anew, in whose likeness merging has passed some of these.
    OfMerges,
}

/// A value to be imported.
#[derive(Debug)]
pub(super) enum Imported {
    /// Nothing is said of it.
    Unsaid,
    /// It was kept as a blob, of which neither the name nor the content is there.
    Nameless,
    /// To be kept as the store's limits say.
    Inline(NewValue),
    /// Kept as a blob; with its content, if that was in the JSON.
    Blob(BlobRef, Option<Arc<[u8]>>),
}

impl RawEntry {
    /// An entry inside another one, of which nothing has been read yet.
    pub(super) fn inside(parent: usize, ordinal: usize) -> Self {
        Self { parent: Some(parent), ordinal, ..Self::default() }
    }

    /// The place of a text field; nothing for a field that is none.
    pub(super) fn text(&mut self, field: &str) -> Option<(&'static str, &mut Option<String>)> {
        Some(match field {
            "Kind" => ("Kind", &mut self.kind),
            "Id" => ("Id", &mut self.id),
            "Label" => ("Label", &mut self.label),
            "Type" => ("Type", &mut self.mime_type),
            "ValueKind" => ("ValueKind", &mut self.value_kind),
            "Value" => ("Value", &mut self.value),
            "Hash" => ("Hash", &mut self.hash),
            "TargetId" => ("TargetId", &mut self.target),
            _ => return None,
        })
    }

    /// Checks what does not depend on any store. `number` counts entries from one.
    pub(super) fn check(self, number: usize) -> Result<Record, ImportError> {
        let wrong = |field, rule| ImportError::Field { entry: number, field, rule };
        let id = |field, text: String| {
            text.parse::<EntryId>().map_err(|_| wrong(field, "must be a UUID"))
        };
        let content = match self.kind.as_deref() {
            Some("item") => Content::Item {
                mime_type: self.mime_type,
                value: value(self.value_kind, self.value, self.hash, self.size, wrong)?,
            },
            Some("link") if self.has_inner => {
                return Err(wrong("innerEntries", "a link has none"));
            }
            Some("link") => {
                let target = self.target.ok_or_else(|| wrong("TargetId", "is missing"))?;
                Content::Link { target: id("TargetId", target)? }
            }
            _ => return Err(wrong("Kind", "must be item or link")),
        };
        let not_a_time = |_| wrong(TRASHED_AT, "must be a number of milliseconds");
        let trashed_at = self.trashed_at.map(|json| serde_json::from_str(&json)).transpose();
        let trashed_at = trashed_at.map_err(not_a_time)?.map(Timestamp::from_millis);
        Ok(Record {
            parent: self.parent,
            ordinal: self.ordinal,
            id: self.id.map(|text| id("Id", text)).transpose()?,
            label: self.label,
            info: self.info.map(Info::from),
            trashed_at,
            content,
        })
    }
}

/// What `ValueKind` and the fields beside it say together.
fn value(
    kind: Option<String>,
    value: Option<String>,
    hash: Option<String>,
    size: Option<u64>,
    wrong: impl Fn(&'static str, &'static str) -> ImportError,
) -> Result<Imported, ImportError> {
    let kind = match (kind, &value) {
        (Some(kind), _) => ValueKind::named(&kind)
            .ok_or_else(|| wrong("ValueKind", "is none of those that there are"))?,
        (None, Some(_)) => ValueKind::Literal,
        (None, None) => return Ok(Imported::Unsaid),
    };
    let decoded = |text: String| {
        BASE64.decode(text).map_err(|_| wrong("Value", "must be base64, for this ValueKind"))
    };
    let inline = |value| Ok(Imported::Inline(value));
    match (kind, value) {
        (ValueKind::None, None) => inline(NewValue::None),
        (ValueKind::Literal, Some(text)) => inline(NewValue::Text(text)),
        (ValueKind::Binary, Some(text)) => inline(NewValue::Bytes(decoded(text)?)),
        (ValueKind::None, Some(_)) => Err(wrong("Value", "there is none of this ValueKind")),
        (ValueKind::Literal | ValueKind::Binary, None) => Err(wrong("Value", "is missing")),
        (ValueKind::LiteralReference | ValueKind::BinaryReference, None)
            if hash.is_none() && size.is_none() =>
        {
            Ok(Imported::Nameless)
        }
        (ValueKind::LiteralReference | ValueKind::BinaryReference, content) => {
            reference(kind.is_literal(), content, hash, size, wrong)
        }
    }
}

/// A value that is kept as a blob, with its content if that is there.
fn reference(
    is_text: bool,
    content: Option<String>,
    hash: Option<String>,
    size: Option<u64>,
    wrong: impl Fn(&'static str, &'static str) -> ImportError,
) -> Result<Imported, ImportError> {
    let hash: Option<BlobHash> = hash
        .map(|hash| hash.parse().map_err(|_| wrong("Hash", "must be 64 hexadecimal digits")))
        .transpose()?;
    let is_named = |bytes: &[u8]| {
        hash.is_none_or(|hash| hash == blob_hash(bytes))
            && size.is_none_or(|size| size == bytes.len() as u64)
    };
    let Some(content) = content else {
        let (hash, size) = hash
            .zip(size)
            .ok_or_else(|| wrong("Hash", "without Value, Hash and Size must say what it is"))?;
        return Ok(Imported::Blob(BlobRef { hash, size, is_text }, None));
    };
    let content: Arc<[u8]> = if is_text && is_named(content.as_bytes()) {
        content.into_bytes().into()
    } else {
        // What is said to be text and is not is exported as base64.
        match BASE64.decode(&content) {
            Ok(bytes) => bytes.into(),
            Err(_) if is_text => content.into_bytes().into(),
            Err(_) => return Err(wrong("Value", "must be base64, for this ValueKind")),
        }
    };
    if !is_named(&content) {
        return Err(wrong("Value", "is not the content that Hash and Size name"));
    }
    let (hash, size) = (blob_hash(&content), content.len() as u64);
    Ok(Imported::Blob(BlobRef { hash, size, is_text }, Some(content)))
}

impl Record {
    pub(super) const fn is_item(&self) -> bool {
        matches!(self.content, Content::Item { .. })
    }

    /// Whether its value is somewhere else, under a name that is not here.
    pub(super) const fn is_nameless(&self) -> bool {
        matches!(self.content, Content::Item { value: Imported::Nameless, .. })
    }

    /// Whether it says that the entry has no time of deletion.
    pub(super) const fn has_no_time(&self) -> bool {
        self.info.is_some() && self.trashed_at.is_none()
    }

    /// About how many bytes a change takes that creates it.
    pub(super) fn size(&self) -> usize {
        const HEAD: usize = 128;
        let value = match &self.content {
            Content::Item { value: Imported::Inline(NewValue::Text(text)), .. } => text.len(),
            Content::Item { value: Imported::Inline(NewValue::Bytes(bytes)), .. } => bytes.len(),
            _ => 0,
        };
        let info = self.info.as_ref().map_or(0, Info::size);
        HEAD + self.label.as_ref().map_or(0, String::len) + value + info
    }

    /// Takes out the metadata that is more than so many bytes, about.
    pub(super) fn split_info(&mut self, bytes: usize) -> Option<Info> {
        let late = self.info.as_mut()?.split_off(bytes);
        Some(late).filter(|late| !late.is_empty())
    }

    /// Whether it says no more than that there is an item.
    pub(super) fn is_blank(&self) -> bool {
        let is_empty = match &self.content {
            Content::Item { mime_type, value } => {
                mime_type.as_deref().is_none_or(|mime_type| mime_type == DEFAULT_MIME_TYPE)
                    && matches!(
                        value,
                        Imported::Unsaid | Imported::Nameless | Imported::Inline(NewValue::None)
                    )
            }
            Content::Link { .. } => false,
        };
        is_empty
            && self.label.as_deref().is_none_or(str::is_empty)
            && self.info.as_ref().is_none_or(Info::is_empty)
    }

    /// Makes an entry that is here hold what the record says. What is the same is left alone.
    pub(super) fn fill(
        self,
        store: &mut DataStore,
        entry: EntryId,
        bounds: Bounds,
    ) -> Result<(), StoreError> {
        if let Some(label) =
            self.label.filter(|label| store.entry(entry).is_ok_and(|here| here.label() != **label))
        {
            match bounds {
                Bounds::OfEdits => store.set_label(entry, &label)?,
                Bounds::OfMerges => store.set(entry, Field::Label, Value::Text(label))?,
            }
        }
        if let Content::Item { mime_type, value } = self.content {
            if let Some(mime_type) = mime_type
                && store.entry(entry)?.mime_type() != mime_type
            {
                match bounds {
                    Bounds::OfMerges if mime_type.len() > MIME_TYPE_LENGTH_MAX => {
                        store.set(entry, Field::Type, Value::Text(mime_type))?;
                    }
                    _ => store.set_mime_type(entry, &mime_type)?,
                }
            }
            match value {
                Imported::Unsaid | Imported::Nameless => {}
                Imported::Inline(value) => store.write_if_other(entry, value)?,
                Imported::Blob(blob, content) => {
                    if let Some(content) = content {
                        store.add_blob(content);
                    }
                    store.set_value_if_other(entry, Value::Blob(blob))?;
                }
            }
        }
        let Some(info) = self.info else { return Ok(()) };
        let known: Vec<&str> = store.entry(entry)?.info_keys().collect();
        if !known.is_empty() {
            let own: HashSet<&str> = info.iter().map(|(key, _)| key).collect();
            let is_gone = |key: &&str| *key != TRASHED_AT && !own.contains(key);
            let gone: Vec<String> = known.into_iter().filter(is_gone).map(str::to_owned).collect();
            for key in gone {
                store.delete_info(entry, &key)?;
            }
        }
        set_info(store, entry, &info, bounds)
    }
}

/// Sets metadata that is not the same already.
pub(super) fn set_info(
    store: &mut DataStore,
    entry: EntryId,
    info: &Info,
    bounds: Bounds,
) -> Result<(), StoreError> {
    info.iter().try_for_each(|(key, json)| {
        if store.is_info(entry, key, json)? {
            return Ok(());
        }
        match bounds {
            Bounds::OfEdits => store.set_info_text(entry, key, json),
            Bounds::OfMerges => store.set_merged_info(entry, key, json),
        }
    })
}
