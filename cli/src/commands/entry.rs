//! `sds entry`: create, read, move and delete entries.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sds_store::{BlobRef, DataStore, Entry, EntryId, ItemValue, NewValue};
use sds_sync::LocalStore;
use serde_json::{Map, Value as Json, json};

use crate::args::{
    CreateArgs, DeleteArgs, EntryCommand, FieldArgs, Format, GetArgs, ListArgs, MoveArgs, Options,
};
use crate::entry_name::EntryName;
use crate::failure::{Exit, Failure};
use crate::input::Input;
use crate::open_store::StorePlace;
use crate::output;
use crate::write_file::{is_direct, write_file};

/// The most bytes of a file that are read into memory to be stored.
const IN_MEMORY_BYTES: u64 = 1 << 20;

pub(super) fn run(options: &Options, command: &EntryCommand, input: &Input) -> Result<(), Failure> {
    let place = StorePlace::of(options)?;
    match command {
        EntryCommand::Create(args) => create(options.format, &place, args, input),
        EntryCommand::Get(args) => {
            // Copying a large value out of a file that others may have in between would mean to open it
            // again for each part.
            let local = if args.output.is_some() { place.open()? } else { place.read()? };
            get(options.format, local, args)
        }
        EntryCommand::List(args) => list(options.format, place.read()?.store(), args),
        EntryCommand::Move(args) => move_into(options.format, &place, args),
        EntryCommand::Delete(args) => delete(options.format, &place, args),
    }
}

fn create(
    format: Format,
    place: &StorePlace,
    args: &CreateArgs,
    input: &Input,
) -> Result<(), Failure> {
    // What can fail for reasons outside the store comes before anything is created.
    let source = args.file.as_deref().map(|path| open_source(path, input)).transpose()?;
    let mut local = if args.target.is_some() { place.open()? } else { place.open_or_create()? };
    let container = require_item(local.store(), args.container)?;
    let target = args.target.map(|name| require_item(local.store(), name)).transpose()?;
    let value = match source {
        Some(source) => source.into_value(&local, mime_type(args).as_deref())?,
        None => NewContent::Inline(args.value.clone().into()),
    };
    let id = local.store_mut().transact(|store| {
        let id = match target {
            Some(target) => store.new_link_at(target, container, args.at)?,
            None => store.new_item_at(mime_type(args).as_deref(), container, args.at)?,
        };
        if let Some(label) = &args.label {
            store.set_label(id, label)?;
        }
        match value {
            NewContent::Inline(NewValue::None) => {}
            NewContent::Inline(value) => store.write_value(id, value)?,
            NewContent::Stored(blob) => store.write_blob_value(id, blob)?,
        }
        Ok::<_, Failure>(id)
    })?;
    local.commit()?;
    let mut json = json!({ "id": id.to_string(), "created": true, "kind": "item" });
    if let Some(target) = target {
        json["kind"] = "link".into();
        json["target"] = target.to_string().into();
    }
    output::result(format, &json, id);
    Ok(())
}

/// The type of a new item: as given, or as the file's name suggests.
fn mime_type(args: &CreateArgs) -> Option<String> {
    let guess = |path: &Path| mime_guess::from_path(path).first_raw().map(str::to_owned);
    args.mime.clone().or_else(|| args.file.as_deref().and_then(guess))
}

/// What a new item holds.
enum NewContent {
    Inline(NewValue),
    /// Too large to be in memory, and stored already.
    Stored(BlobRef),
}

/// A file whose content is to be stored.
struct Source {
    path: PathBuf,
    file: File,
}

fn open_source(path: &Path, input: &Input) -> Result<Source, Failure> {
    let file = input.open(path).map_err(|error| unreadable(path, &error))?;
    Ok(Source { path: path.to_owned(), file })
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let missing = error.kind() == io::ErrorKind::NotFound;
    let exit = if missing { Exit::NotFound } else { Exit::General };
    Failure::new(exit, format_args!("cannot read '{}': {error}", path.display()))
}

impl Source {
    /// The content: as text if the type is one and the bytes are, else as bytes.
    fn into_value(mut self, local: &LocalStore, mime: Option<&str>) -> Result<NewContent, Failure> {
        let is_text = mime.is_none_or(|mime| mime.starts_with("text/"));
        let mut bytes = Vec::new();
        let read = Read::by_ref(&mut self.file).take(IN_MEMORY_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| unreadable(&self.path, &error))?;
        if bytes.len() as u64 > IN_MEMORY_BYTES {
            let all = Read::chain(bytes.as_slice(), self.file);
            return Ok(NewContent::Stored(local.write_blob(all, is_text)?));
        }
        Ok(NewContent::Inline(match String::from_utf8(bytes) {
            Ok(text) if is_text => NewValue::Text(text),
            Ok(text) => NewValue::Bytes(text.into_bytes()),
            Err(error) => NewValue::Bytes(error.into_bytes()),
        }))
    }
}

fn get(format: Format, local: LocalStore, args: &GetArgs) -> Result<(), Failure> {
    if let Some(path) = &args.output {
        return write_value(local, args.id, path);
    }
    let entry = require_entry(local.store(), args.id)?;
    let fields = args.fields;
    let all = !(args.kind || args.target || fields.label || fields.mime || fields.value);
    let mut shown = Map::new();
    shown.insert("id".to_owned(), entry.id().to_string().into());
    if all || args.kind {
        shown.insert("kind".to_owned(), kind(&entry).into());
    }
    let fields = if all { FieldArgs { label: true, mime: true, value: true } } else { fields };
    add_fields(&mut shown, &entry, fields);
    if let Some(target) = entry.target_id().filter(|_| all || args.target) {
        shown.insert("target".to_owned(), target.to_string().into());
    }
    if all {
        shown.insert("info".to_owned(), Json::Object(entry.info_map()));
    }
    let lines: Vec<String> = shown
        .iter()
        .map(|(name, value)| format!("{:<7}{}", format!("{name}:"), text_of(value, "(none)")))
        .collect();
    output::result(format, &Json::Object(shown.clone()), lines.join("\n"));
    Ok(())
}

/// Writes a value. Nobody waits for the store while somebody else reads: what goes through a pipe is
/// copied aside before.
fn write_value(local: LocalStore, id: EntryName, path: &Path) -> Result<(), Failure> {
    let entry = require_entry(local.store(), id)?;
    if let Some(blob) = entry.blob_ref() {
        let Some(mut reader) = local.open_blob(&blob.hash)? else {
            let why = "the value has not been fetched yet: run 'sds store sync'";
            return Err(Failure::not_found(why));
        };
        if !is_direct(path) {
            return Ok(write_file(path, |out| io::copy(&mut reader, out).map(drop))?);
        }
        let mut aside = tempfile::tempfile()?;
        io::copy(&mut reader, &mut aside)?;
        aside.rewind()?;
        drop((reader, local));
        return Ok(write_file(path, |out| io::copy(&mut aside, out).map(drop))?);
    }
    let bytes: Arc<[u8]> = match entry.value() {
        ItemValue::Text(text) => text.into_bytes().into(),
        ItemValue::Bytes(bytes) => bytes,
        ItemValue::None | ItemValue::Pending(_) => {
            return Err(Failure::not_found("the entry has no value"));
        }
    };
    drop(local);
    Ok(write_file(path, |out| out.write_all(&bytes))?)
}

fn list(format: Format, store: &DataStore, args: &ListArgs) -> Result<(), Failure> {
    let container = require_item(store, args.id)?;
    let depth = if args.recursive { args.depth.unwrap_or(usize::MAX) } else { 0 };
    let mut rows = Vec::new();
    let mut rest: Vec<(Entry<'_>, usize)> =
        store.entry_with_id(container).iter().flat_map(|item| inner(item, depth)).collect();
    while let Some((entry, depth)) = rest.pop() {
        let mut row = Map::new();
        row.insert("id".to_owned(), entry.id().to_string().into());
        row.insert("kind".to_owned(), kind(&entry).into());
        add_fields(&mut row, &entry, args.fields);
        rows.push(Json::Object(row));
        if depth > 0 {
            rest.extend(inner(&entry, depth - 1));
        }
    }
    match format {
        Format::Json => output::line(format_args!("{:#}", Json::Array(rows))),
        Format::Text => rows.iter().for_each(|row| output::line(columns(row))),
    }
    Ok(())
}

/// What is inside an item, last first; the system items are left out.
fn inner<'a>(item: &Entry<'a>, depth: usize) -> Vec<(Entry<'a>, usize)> {
    let inner = item.inner_entries().rev().filter(|entry| !entry.id().is_well_known());
    inner.map(|entry| (entry, depth)).collect()
}

fn columns(row: &Json) -> String {
    let selected = [("id", ""), ("label", "(no label)"), ("mime", ""), ("value", "(no value)")];
    let cells: Vec<String> = selected
        .iter()
        .filter_map(|(name, absent)| row.get(*name).map(|value| text_of(value, absent)))
        .map(|cell| output::label(&cell))
        .collect();
    cells.join("  ")
}

fn move_into(format: Format, place: &StorePlace, args: &MoveArgs) -> Result<(), Failure> {
    let mut local = place.open()?;
    let entry = require_entry(local.store(), args.id)?.id();
    let target = require_item(local.store(), args.to)?;
    local.store_mut().move_entry_to(entry, target, args.at)?;
    local.commit()?;
    let at = args.at.map_or_else(|| Json::from("end"), Json::from);
    let json = json!({ "id": entry.to_string(), "movedTo": target.to_string(), "at": at });
    output::result(format, &json, format_args!("moved '{entry}' into '{target}'"));
    Ok(())
}

fn delete(format: Format, place: &StorePlace, args: &DeleteArgs) -> Result<(), Failure> {
    let mut local = place.open()?;
    let entry = require_entry(local.store(), args.id)?.id();
    local.store_mut().delete_entry(entry, super::now())?;
    local.commit()?;
    let json = json!({ "id": entry.to_string(), "deleted": true });
    output::result(format, &json, format_args!("deleted '{entry}' (moved to trash)"));
    Ok(())
}

fn require_entry(store: &DataStore, name: EntryName) -> Result<Entry<'_>, Failure> {
    let entry = store.entry_with_id(name.0);
    entry.ok_or_else(|| Failure::not_found(format_args!("no entry '{name}'")))
}

fn require_item(store: &DataStore, name: EntryName) -> Result<EntryId, Failure> {
    match store.entry_with_id(name.0) {
        Some(entry) if entry.is_item() => Ok(entry.id()),
        _ => Err(Failure::not_found(format_args!("'{name}' is not an item of this store"))),
    }
}

fn kind(entry: &Entry<'_>) -> &'static str {
    if entry.is_item() { "item" } else { "link" }
}

fn add_fields(row: &mut Map<String, Json>, entry: &Entry<'_>, fields: FieldArgs) {
    if fields.label {
        row.insert("label".to_owned(), entry.label().into());
    }
    if fields.mime && entry.is_item() {
        row.insert("mime".to_owned(), entry.mime_type().into());
    }
    if fields.value && entry.is_item() {
        row.insert("value".to_owned(), value_json(&entry.value()));
    }
}

/// A value for people and programs: text as it is, bytes in base64.
fn value_json(value: &ItemValue) -> Json {
    match value {
        ItemValue::None => Json::Null,
        ItemValue::Text(text) => text.as_str().into(),
        ItemValue::Bytes(bytes) => BASE64.encode(bytes).into(),
        ItemValue::Pending(blob) => json!({ "hash": blob.hash.to_string(), "size": blob.size }),
    }
}

fn text_of(value: &Json, absent: &str) -> String {
    match value {
        Json::Null => absent.to_owned(),
        Json::String(text) if text.is_empty() && !absent.is_empty() => absent.to_owned(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}
