//! An entry that was read from JSON, before and after it is checked.

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sds_engine::{BlobHash, BlobRef, EntryId, Timestamp, Value};
use serde_json::Value as Json;

use crate::blob::blob_hash;
use crate::entry::TRASHED_AT;
use crate::error::{ImportError, StoreError};
use crate::limits::DEFAULT_MIME_TYPE;
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
    pub(super) info: Option<Info>,
    pub(super) has_inner: bool,
}

/// An entry to be imported.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) parent: Option<usize>,
    pub(super) ordinal: usize,
    pub(super) id: Option<EntryId>,
    pub(super) label: String,
    pub(super) info: Info,
    pub(super) trashed_at: Option<Timestamp>,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Item { mime_type: String, value: Imported },
    Link { target: EntryId },
}

/// A value to be imported.
#[derive(Debug)]
pub(super) enum Imported {
    /// To be kept as the store's limits say.
    Inline(NewValue),
    /// Kept as a blob; with its content, if that was in the JSON.
    Blob(BlobRef, Option<Arc<[u8]>>),
}

impl RawEntry {
    /// Checks what does not depend on any store. `number` counts entries from one.
    pub(super) fn check(self, number: usize) -> Result<Record, ImportError> {
        let wrong = |field, rule| ImportError::Field { entry: number, field, rule };
        let id = |field, text: String| {
            text.parse::<EntryId>().map_err(|_| wrong(field, "must be a UUID"))
        };
        let content = match self.kind.as_deref() {
            Some("item") => Content::Item {
                mime_type: self.mime_type.unwrap_or_else(|| DEFAULT_MIME_TYPE.to_owned()),
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
        let (info, trashed_at) = checked_info(self.info.unwrap_or_default(), wrong)?;
        Ok(Record {
            parent: self.parent,
            ordinal: self.ordinal,
            id: self.id.map(|text| id("Id", text)).transpose()?,
            label: self.label.unwrap_or_default(),
            info,
            trashed_at,
            content,
        })
    }
}

/// Metadata as it stands in the text: each key with its value.
pub(super) type Info = Vec<(String, Json)>;

/// Metadata without the time of deletion, and that time.
fn checked_info(
    mut info: Info,
    wrong: impl Fn(&'static str, &'static str) -> ImportError,
) -> Result<(Info, Option<Timestamp>), ImportError> {
    let at = info.iter().position(|(key, _)| key == TRASHED_AT);
    let Some((_, time)) = at.map(|at| info.remove(at)) else { return Ok((info, None)) };
    match time.as_i64() {
        Some(time) => Ok((info, Some(Timestamp::from_millis(time)))),
        None => Err(wrong(TRASHED_AT, "must be a number of milliseconds")),
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
        (None, None) => ValueKind::None,
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
        (ValueKind::LiteralReference | ValueKind::BinaryReference, content) => {
            let is_text = kind.is_literal();
            let content: Option<Arc<[u8]>> = match content {
                Some(text) if is_text => Some(text.into_bytes().into()),
                Some(text) => Some(decoded(text)?.into()),
                None => None,
            };
            let named: Option<BlobHash> = hash
                .map(|hash| {
                    hash.parse().map_err(|_| wrong("Hash", "must be 64 hexadecimal digits"))
                })
                .transpose()?;
            let found = content.as_deref().map(|bytes| (blob_hash(bytes), bytes.len() as u64));
            let is_other = found.is_some_and(|(hash, len)| {
                named.is_some_and(|named| named != hash) || size.is_some_and(|size| size != len)
            });
            if is_other {
                return Err(wrong("Value", "is not the content that Hash and Size name"));
            }
            let (hash, size) = found
                .or_else(|| named.zip(size))
                .ok_or_else(|| wrong("Hash", "without Value, Hash and Size must say what it is"))?;
            Ok(Imported::Blob(BlobRef { hash, size, is_text }, content))
        }
    }
}

impl Record {
    pub(super) const fn is_item(&self) -> bool {
        matches!(self.content, Content::Item { .. })
    }

    /// About how many bytes a change takes that creates it.
    pub(super) fn size(&self) -> usize {
        const HEAD: usize = 128;
        let value = match &self.content {
            Content::Item { value: Imported::Inline(NewValue::Text(text)), .. } => text.len(),
            Content::Item { value: Imported::Inline(NewValue::Bytes(bytes)), .. } => bytes.len(),
            _ => 0,
        };
        let info = self.info.iter().map(|(key, value)| key.len() + value.to_string().len());
        HEAD + self.label.len() + value + info.sum::<usize>()
    }

    /// Whether it says no more than that there is an item.
    pub(super) fn is_blank(&self) -> bool {
        let is_empty = match &self.content {
            Content::Item { mime_type, value } => {
                mime_type == DEFAULT_MIME_TYPE && matches!(value, Imported::Inline(NewValue::None))
            }
            Content::Link { .. } => false,
        };
        is_empty && self.label.is_empty() && self.info.is_empty()
    }

    /// Makes an entry that is here hold what the record says. What is the same is left alone.
    pub(super) fn fill(self, store: &mut DataStore, entry: EntryId) -> Result<(), StoreError> {
        if store.entry(entry)?.label() != self.label {
            store.set_label(entry, &self.label)?;
        }
        if let Content::Item { mime_type, value } = self.content {
            if store.entry(entry)?.mime_type() != mime_type {
                store.set_mime_type(entry, &mime_type)?;
            }
            match value {
                Imported::Inline(value) => store.write_if_other(entry, value)?,
                Imported::Blob(blob, content) => {
                    if let Some(content) = content {
                        store.add_blob(content);
                    }
                    store.set_value_if_other(entry, Value::Blob(blob))?;
                }
            }
        }
        let own: HashSet<&str> = self.info.iter().map(|(key, _)| key.as_str()).collect();
        let is_gone = |key: &&str| *key != TRASHED_AT && !own.contains(key);
        let known = store.entry(entry)?;
        let gone: Vec<String> = known.info_keys().filter(is_gone).map(str::to_owned).collect();
        for key in gone {
            store.delete_info(entry, &key)?;
        }
        for (key, value) in self.info {
            if store.entry(entry)?.info(&key).as_ref() != Some(&value) {
                store.set_info_json(entry, &key, value)?;
            }
        }
        Ok(())
    }
}
