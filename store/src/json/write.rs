//! JSON as text.
//!
//! Keys come in one order: of an item `Kind`, `Id`, `Label`, `Type`, `ValueKind`, `Info`,
//! `innerEntries`, then `Value`, or `Hash` and `Size`; of a link `Kind`, `Id`, `Label`, `TargetId`,
//! `Info`.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::entry::Entry;
use crate::store::DataStore;
use crate::value::ItemValue;

/// Deeper levels are not indented further: a chain of n items would otherwise take n * n bytes.
const INDENT_MAX: usize = 64;

/// How JSON is written.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JsonOptions {
    /// Whether each key stands on a line of its own, indented by two spaces a level.
    pub is_indented: bool,
    /// Whether contents that are kept as blobs are written too, as far as they are at hand.
    pub embeds_blobs: bool,
}

impl JsonOptions {
    /// A key a line, for people.
    #[must_use]
    pub const fn indented(mut self) -> Self {
        self.is_indented = true;
        self
    }

    /// The contents of blobs too, so that nothing else is needed to read all values.
    #[must_use]
    pub const fn with_blobs(mut self) -> Self {
        self.embeds_blobs = true;
        self
    }
}

/// What is left to write.
enum Step<'a> {
    Begin { entry: Entry<'a>, depth: usize, is_first: bool },
    End { entry: Entry<'a>, depth: usize },
}

impl DataStore {
    /// The whole store as JSON: Root with everything in it, Trash and Lost and Found too. Contents of
    /// blobs are not in it; see [`DataStore::write_json_with`].
    ///
    /// [`DataStore::from_json`] takes what this gives, up to [`IMPORT_BYTES_MAX`], [`IMPORT_ENTRIES_MAX`]
    /// and [`IMPORT_DEPTH_MAX`], which a store itself may exceed; [`DataStore::as_binary`] has none
    /// of these.
    ///
    /// [`IMPORT_BYTES_MAX`]: crate::limits::IMPORT_BYTES_MAX
    /// [`IMPORT_ENTRIES_MAX`]: crate::limits::IMPORT_ENTRIES_MAX
    /// [`IMPORT_DEPTH_MAX`]: crate::limits::IMPORT_DEPTH_MAX
    ///
    /// ```
    /// use sds_store::{DataStore, EntryId, ReplicaId};
    ///
    /// # fn main() -> Result<(), sds_store::StoreError> {
    /// let mut store = DataStore::new(ReplicaId::new(1).unwrap());
    /// let note = store.new_item_at(None, EntryId::ROOT, None)?;
    /// store.write_value(note, "milk")?;
    /// let json = store.as_json();
    ///
    /// let copy = DataStore::from_json(ReplicaId::new(2).unwrap(), &json)?;
    /// assert_eq!(copy.read_value(note)?.as_text(), Some("milk"), "ids stay");
    /// assert_eq!(copy.as_json(), json);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn as_json(&self) -> String {
        self.root_item().as_json()
    }

    /// Writes the whole store as indented JSON.
    ///
    /// # Errors
    /// What writing returns.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        self.root_item().write_json(out)
    }

    /// Writes the whole store as JSON.
    ///
    /// # Errors
    /// What writing returns.
    pub fn write_json_with(&self, out: &mut dyn Write, options: JsonOptions) -> io::Result<()> {
        self.root_item().write_json_with(out, options)
    }
}

impl Entry<'_> {
    /// The entry, with all inside, as JSON.
    #[must_use]
    pub fn as_json(&self) -> String {
        let mut json = Vec::new();
        // Writing to memory does not fail, and JSON is UTF-8.
        drop(self.write_json_with(&mut json, JsonOptions::default()));
        String::from_utf8(json).unwrap_or_default()
    }

    /// Writes the entry, with all inside, as indented JSON.
    ///
    /// # Errors
    /// What writing returns.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write_json_with(out, JsonOptions::default().indented())
    }

    /// Writes the entry, with all inside, as JSON.
    ///
    /// Texts are strings, bytes base64. Values kept as blobs are named by `Hash` (SHA-256) and `Size`;
    /// with [`JsonOptions::with_blobs`] their content is there too.
    ///
    /// # Errors
    /// What writing returns.
    pub fn write_json_with(&self, out: &mut dyn Write, options: JsonOptions) -> io::Result<()> {
        let mut writer = Writer { out, options };
        let mut steps = vec![Step::Begin { entry: *self, depth: 0, is_first: true }];
        while let Some(step) = steps.pop() {
            match step {
                Step::Begin { entry, depth, is_first } => {
                    if depth > 0 {
                        writer.raw(if is_first { "" } else { "," })?;
                        writer.line(2 * depth)?;
                    }
                    writer.head(entry, depth)?;
                    steps.push(Step::End { entry, depth });
                    let inner = entry.inner_entries().enumerate();
                    let begin =
                        |(at, entry)| Step::Begin { entry, depth: depth + 1, is_first: at == 0 };
                    let from = steps.len();
                    steps.extend(inner.map(begin));
                    steps[from..].reverse();
                }
                Step::End { entry, depth } => writer.tail(entry, depth)?,
            }
        }
        Ok(())
    }

    /// Everything of the entry but what is inside it and its value.
    pub(super) fn json_head(&self) -> Map<String, Json> {
        let mut head = Map::new();
        let mut add = |key: &str, value: Json| head.insert(key.to_owned(), value);
        add("Kind", if self.is_item() { "item" } else { "link" }.into());
        add("Id", self.id().to_string().into());
        add("Label", self.label().into());
        match self.target_id() {
            Some(target) => {
                add("TargetId", target.to_string().into());
            }
            None => {
                add("Type", self.mime_type().into());
                add("ValueKind", self.value_kind().name().into());
            }
        }
        add("Info", Json::Object(self.info_map()));
        head
    }

    /// The item's value, as the fields that stand behind what is inside it.
    pub(super) fn json_value(&self, embeds_blobs: bool) -> Map<String, Json> {
        let mut fields = Map::new();
        let blob = self.blob_ref();
        if let Some(blob) = blob {
            fields.insert("Hash".to_owned(), blob.hash.to_string().into());
            fields.insert("Size".to_owned(), blob.size.into());
        }
        if blob.is_none() || embeds_blobs {
            let value = match self.value() {
                ItemValue::Text(text) => Some(text),
                ItemValue::Bytes(bytes) => Some(BASE64.encode(bytes)),
                ItemValue::None | ItemValue::Pending(_) => None,
            };
            fields.extend(value.map(|value| ("Value".to_owned(), value.into())));
        }
        fields
    }
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    options: JsonOptions,
}

impl Writer<'_> {
    /// The beginning of an entry's object, up to where the entries inside it go.
    fn head(&mut self, entry: Entry<'_>, depth: usize) -> io::Result<()> {
        let mut separator = "{";
        for (key, value) in &entry.json_head() {
            self.raw(separator)?;
            self.field(depth, key, value)?;
            separator = ",";
        }
        if entry.is_item() {
            self.raw(",")?;
            self.line(2 * depth + 1)?;
            self.raw(if self.options.is_indented {
                "\"innerEntries\": ["
            } else {
                "\"innerEntries\":["
            })?;
        }
        Ok(())
    }

    /// The rest of the entry's object.
    fn tail(&mut self, entry: Entry<'_>, depth: usize) -> io::Result<()> {
        if entry.inner_entry_count() > 0 {
            self.line(2 * depth + 1)?;
        }
        if entry.is_item() {
            self.raw("]")?;
        }
        for (key, value) in &entry.json_value(self.options.embeds_blobs) {
            self.raw(",")?;
            self.field(depth, key, value)?;
        }
        self.line(2 * depth)?;
        self.raw("}")
    }

    fn field(&mut self, depth: usize, key: &str, value: &impl Serialize) -> io::Result<()> {
        self.line(2 * depth + 1)?;
        serde_json::to_writer(&mut *self.out, key)?;
        self.raw(if self.options.is_indented { ": " } else { ":" })?;
        serde_json::to_writer(&mut *self.out, value)?;
        Ok(())
    }

    /// A new line with two spaces a level, if lines are wanted.
    fn line(&mut self, level: usize) -> io::Result<()> {
        if !self.options.is_indented {
            return Ok(());
        }
        self.raw("\n")?;
        (0..level.min(INDENT_MAX)).try_for_each(|_| self.raw("  "))
    }

    fn raw(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }
}
