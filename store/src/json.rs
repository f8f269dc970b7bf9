//! Stores and entries as JSON.
//!
//! Written without recursion: a tree may be deeper than any stack.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value as Json};

use crate::entry::Entry;
use crate::store::DataStore;
use crate::value::ItemValue;

const INDENT_MAX: usize = 64;

/// What is left to write.
enum Step<'a> {
    Begin { entry: Entry<'a>, depth: usize, is_first: bool },
    End { entry: Entry<'a>, depth: usize },
}

impl DataStore {
    /// Writes the whole store as JSON: Root with everything in it.
    ///
    /// # Errors
    /// What writing returns.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        self.root_item().write_json(out)
    }
}

impl Entry<'_> {
    /// Writes the entry, with all inside, as JSON indented by two spaces.
    ///
    /// Texts are strings, bytes base64. Values kept as blobs are named by `Hash` (SHA-256) and
    /// `Size`; their content is not in the JSON.
    ///
    /// # Errors
    /// What writing returns.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut steps = vec![Step::Begin { entry: *self, depth: 0, is_first: true }];
        while let Some(step) = steps.pop() {
            match step {
                Step::Begin { entry, depth, is_first } => {
                    if depth > 0 {
                        out.write_all(if is_first { b"\n" } else { b",\n" })?;
                        indent(out, 2 * depth)?;
                    }
                    entry.write_head(out, depth)?;
                    steps.push(Step::End { entry, depth });
                    let inner = entry.inner_entries().enumerate();
                    let begin =
                        |(at, entry)| Step::Begin { entry, depth: depth + 1, is_first: at == 0 };
                    let from = steps.len();
                    steps.extend(inner.map(begin));
                    steps[from..].reverse();
                }
                Step::End { entry, depth } => entry.write_tail(out, depth)?,
            }
        }
        Ok(())
    }

    /// Everything of the entry but what is inside it and its value.
    fn head(&self) -> Map<String, Json> {
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
    fn value_fields(&self) -> Map<String, Json> {
        let mut fields = Map::new();
        if let Some(blob) = self.blob_ref() {
            fields.insert("Hash".to_owned(), blob.hash.to_string().into());
            fields.insert("Size".to_owned(), blob.size.into());
            return fields;
        }
        match self.value() {
            ItemValue::Text(text) => fields.insert("Value".to_owned(), text.into()),
            ItemValue::Bytes(bytes) => {
                fields.insert("Value".to_owned(), BASE64.encode(bytes).into())
            }
            ItemValue::None | ItemValue::Pending(_) => None,
        };
        fields
    }

    /// The beginning of the entry's object, up to where the entries inside it go.
    fn write_head(&self, out: &mut dyn Write, depth: usize) -> io::Result<()> {
        let mut separator: &[u8] = b"{\n";
        for (key, value) in &self.head() {
            out.write_all(separator)?;
            write_field(out, depth, key, value)?;
            separator = b",\n";
        }
        if self.is_item() {
            out.write_all(b",\n")?;
            indent(out, 2 * depth + 1)?;
            out.write_all(b"\"innerEntries\": [")?;
        }
        Ok(())
    }

    /// The rest of the entry's object.
    fn write_tail(&self, out: &mut dyn Write, depth: usize) -> io::Result<()> {
        if self.inner_entry_count() > 0 {
            out.write_all(b"\n")?;
            indent(out, 2 * depth + 1)?;
        }
        if self.is_item() {
            out.write_all(b"]")?;
        }
        for (key, value) in &self.value_fields() {
            out.write_all(b",\n")?;
            write_field(out, depth, key, value)?;
        }
        out.write_all(b"\n")?;
        indent(out, 2 * depth)?;
        out.write_all(b"}")
    }
}

fn write_field(out: &mut dyn Write, depth: usize, key: &str, value: &Json) -> io::Result<()> {
    indent(out, 2 * depth + 1)?;
    serde_json::to_writer(&mut *out, key)?;
    out.write_all(b": ")?;
    serde_json::to_writer(&mut *out, value)?;
    Ok(())
}

/// Two spaces a level, up to where nobody reads them any more: a chain of n items would otherwise
/// take n * n bytes.
fn indent(out: &mut dyn Write, level: usize) -> io::Result<()> {
    (0..level.min(INDENT_MAX)).try_for_each(|_| out.write_all(b"  "))
}
