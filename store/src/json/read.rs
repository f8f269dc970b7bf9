//! From JSON to entries in a list, each after the one that it is in. Nothing is trusted: every size is
//! bounded, and nothing is read by recursion.
#![deny(clippy::indexing_slicing)]

use std::fmt;
use std::io::{self, Read, Write};

use serde_json::Value as Json;
use struson::reader::{
    JsonReader, JsonReaderPosition, JsonStreamReader, ReaderError, ReaderSettings, TransferError,
    ValueType,
};
use struson::writer::{JsonStreamWriter, JsonWriter};

use super::info::{Fields, VALUE_TEXT_MAX, is_sound};
use super::record::{RawEntry, Record, Records};
use crate::edit::check_depth;
use crate::entry::TRASHED_AT;
use crate::error::ImportError;
use crate::limits::{IMPORT_BYTES_MAX, IMPORT_DEPTH_MAX, IMPORT_ENTRIES_MAX, INFO_VALUE_DEPTH_MAX};

/// Where JSON comes from.
#[non_exhaustive]
pub enum JsonSource<'a> {
    /// A text.
    Text(&'a str),
    /// A value that somebody has parsed.
    Value(&'a Json),
    /// UTF-8 from somewhere, which is read as it is needed.
    Reader(&'a mut dyn Read),
}

impl fmt::Debug for JsonSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text",
            Self::Value(_) => "Value",
            Self::Reader(_) => "Reader",
        })
    }
}

impl<'a> From<&'a str> for JsonSource<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for JsonSource<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a Json> for JsonSource<'a> {
    fn from(value: &'a Json) -> Self {
        Self::Value(value)
    }
}

/// The entries of a source, outermost first, each before what is inside it.
pub(super) fn records(source: JsonSource<'_>) -> Result<Records, ImportError> {
    records_within(source, IMPORT_ENTRIES_MAX)
}

/// The same, of at most `max` entries.
pub(super) fn records_within(source: JsonSource<'_>, max: usize) -> Result<Records, ImportError> {
    let mut reading = Reading { max, records: Vec::new() };
    match source {
        JsonSource::Text(text) => read_text(&mut text.as_bytes(), &mut reading)?,
        JsonSource::Reader(reader) => read_text(reader, &mut reading)?,
        JsonSource::Value(value) => read_value(value, &mut reading)?,
    }
    // All of them have ended.
    Ok(reading.records.into_iter().map_while(|record| record).collect())
}

/// The entries that have begun, in order, of which those that have ended are there.
struct Reading {
    /// How many there may be.
    max: usize,
    records: Vec<Option<Box<Record>>>,
}

impl Reading {
    /// Begins an entry that is at this depth, and returns its index.
    fn begin(&mut self, depth: usize) -> Result<usize, ImportError> {
        if self.records.len() >= self.max {
            return Err(ImportError::TooManyEntries { max: self.max });
        }
        if depth > IMPORT_DEPTH_MAX {
            return Err(ImportError::TooDeep { max: IMPORT_DEPTH_MAX });
        }
        self.records.push(None);
        Ok(self.records.len() - 1)
    }

    /// Ends an entry: what is checked takes less room than what was read.
    fn end(&mut self, entry: usize, raw: RawEntry) -> Result<(), ImportError> {
        if let Some(record) = self.records.get_mut(entry) {
            *record = Some(Box::new(raw.check(entry + 1)?));
        }
        Ok(())
    }
}

const fn wrong(entry: usize, field: &'static str, rule: &'static str) -> ImportError {
    ImportError::Field { entry: entry + 1, field, rule }
}

fn read_value(top: &Json, reading: &mut Reading) -> Result<(), ImportError> {
    let mut rest = vec![(top, RawEntry::default(), 1)];
    while let Some((value, mut raw, depth)) = rest.pop() {
        let entry = reading.begin(depth)?;
        let object =
            value.as_object().ok_or_else(|| wrong(entry, "Kind", "an entry is an object"))?;
        for (field, value) in object {
            if field == "innerEntries" {
                let inner = value
                    .as_array()
                    .ok_or_else(|| wrong(entry, "innerEntries", "must be a list"))?;
                raw.has_inner = !inner.is_empty();
                let inside = |ordinal| RawEntry::inside(entry, ordinal);
                let inner = inner.iter().enumerate().rev();
                rest.extend(inner.map(|(at, inner)| (inner, inside(at), depth + 1)));
            } else if let Some((field, place)) = raw.text(field) {
                let text = value.as_str().ok_or_else(|| wrong(entry, field, "must be a string"))?;
                *place = Some(text.to_owned());
            } else {
                read_other(&mut raw, (entry, field), value)?;
            }
        }
        reading.end(entry, raw)?;
    }
    Ok(())
}

/// Reads a field that is no text; one that nobody knows is passed over.
fn read_other(
    raw: &mut RawEntry,
    (entry, field): (usize, &str),
    value: &Json,
) -> Result<(), ImportError> {
    match field {
        "Size" => {
            raw.size = Some(
                value.as_u64().ok_or_else(|| wrong(entry, "Size", "must be a number of bytes"))?,
            )
        }
        "Info" => {
            let info =
                value.as_object().ok_or_else(|| wrong(entry, "Info", "must be an object"))?;
            let mut fields = Fields::default();
            for (key, value) in info {
                // Checked before it is written, which goes by recursion.
                if check_depth(value).is_err() {
                    return Err(wrong(entry, "Info", "is nested too deep"));
                }
                let mut text = Limited::default();
                serde_json::to_writer(&mut text, value).map_err(|_| too_large(entry))?;
                add_info(raw, &mut fields, key, &text.0)?;
            }
            raw.info = Some(fields);
        }
        _ => {}
    }
    Ok(())
}

/// A reader that fails past a number of bytes.
struct Bounded<'a> {
    inner: &'a mut dyn Read,
    left: u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let taken = u64::try_from(count).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(taken).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(count)
    }
}

type TextReader<'a> = JsonStreamReader<Bounded<'a>>;

fn read_text(inner: &mut dyn Read, reading: &mut Reading) -> Result<(), ImportError> {
    let nesting = 2 * IMPORT_DEPTH_MAX + INFO_VALUE_DEPTH_MAX + 8;
    let settings = ReaderSettings {
        track_path: false,
        max_nesting_depth: u32::try_from(nesting).ok(),
        ..ReaderSettings::default()
    };
    let bounded = Bounded { inner, left: IMPORT_BYTES_MAX };
    let mut reader = JsonStreamReader::new_custom(bounded, settings);
    read_entries(&mut reader, reading)?;
    reader.consume_trailing_whitespace().map_err(failure)
}

/// An entry whose object has begun.
struct Open {
    entry: usize,
    raw: RawEntry,
    /// How many entries inside it have begun.
    inner_count: usize,
    /// Whether what comes is inside its list of entries.
    is_inside: bool,
    /// Whether that list has begun, or ended already.
    has_list: bool,
}

fn read_entries(reader: &mut TextReader<'_>, reading: &mut Reading) -> Result<(), ImportError> {
    let mut open = vec![begin(reader, reading, RawEntry::default(), 1)?];
    while let Some(top) = open.last_mut() {
        if !reader.has_next().map_err(failure)? {
            if top.is_inside {
                reader.end_array().map_err(failure)?;
                top.is_inside = false;
            } else {
                reader.end_object().map_err(failure)?;
                let ended = open.pop().map(|top| reading.end(top.entry, top.raw));
                ended.transpose()?;
            }
        } else if top.is_inside {
            let inside = RawEntry::inside(top.entry, top.inner_count);
            top.raw.has_inner = true;
            top.inner_count += 1;
            let depth = open.len() + 1;
            open.push(begin(reader, reading, inside, depth)?);
        } else {
            let field = reader.next_name_owned().map_err(failure)?;
            let is_list = read_field(reader, &mut top.raw, top.entry, &field)?;
            if is_list && std::mem::replace(&mut top.has_list, true) {
                return Err(wrong(top.entry, "innerEntries", TWICE));
            }
            top.is_inside = is_list;
        }
    }
    Ok(())
}

fn begin(
    reader: &mut TextReader<'_>,
    reading: &mut Reading,
    raw: RawEntry,
    depth: usize,
) -> Result<Open, ImportError> {
    let entry = reading.begin(depth)?;
    require(reader, ValueType::Object, wrong(entry, "Kind", "an entry is an object"))?;
    reader.begin_object().map_err(failure)?;
    Ok(Open { entry, raw, inner_count: 0, is_inside: false, has_list: false })
}

/// Reads a field; returns whether its entries come next.
fn read_field(
    reader: &mut TextReader<'_>,
    raw: &mut RawEntry,
    entry: usize,
    field: &str,
) -> Result<bool, ImportError> {
    if let Some((field, place)) = raw.text(field) {
        require(reader, ValueType::String, wrong(entry, field, "must be a string"))?;
        let text = reader.next_string().map_err(failure)?;
        return put(place, text, wrong(entry, field, TWICE)).map(|()| false);
    }
    match field {
        "innerEntries" => {
            require(reader, ValueType::Array, wrong(entry, "innerEntries", "must be a list"))?;
            reader.begin_array().map_err(failure)?;
            return Ok(true);
        }
        "Size" => {
            let not_a_size = || wrong(entry, "Size", "must be a number of bytes");
            require(reader, ValueType::Number, not_a_size())?;
            let size = reader.next_number().map_err(failure)?.map_err(|_| not_a_size())?;
            put(&mut raw.size, size, wrong(entry, "Size", TWICE))?;
        }
        "Info" => {
            let info = read_info(reader, entry, raw)?;
            put(&mut raw.info, info, wrong(entry, "Info", TWICE))?;
        }
        _ => reader.skip_value().map_err(failure)?,
    }
    Ok(false)
}

fn read_info(
    reader: &mut TextReader<'_>,
    entry: usize,
    raw: &mut RawEntry,
) -> Result<Fields, ImportError> {
    require(reader, ValueType::Object, wrong(entry, "Info", "must be an object"))?;
    reader.begin_object().map_err(failure)?;
    let mut fields = Fields::default();
    while reader.has_next().map_err(failure)? {
        let key = reader.next_name_owned().map_err(failure)?;
        let mut text = Limited::default();
        let mut writer = JsonStreamWriter::new(&mut text);
        reader.transfer_to(&mut writer).map_err(|error| match error {
            TransferError::ReaderError(error) => failure(error),
            TransferError::WriterError(_) => too_large(entry),
        })?;
        writer.finish_document().map_err(|_| too_large(entry))?;
        // It was JSON; what can be wrong is its depth, and a number that is none.
        if !is_sound(&text.0) {
            return Err(wrong(entry, "Info", "is nested too deep, or has numbers out of range"));
        }
        add_info(raw, &mut fields, &key, &text.0)?;
    }
    reader.end_object().map_err(failure)?;
    match fields.has_key_twice() {
        true => Err(wrong(entry, "Info", "has a key twice")),
        false => Ok(fields),
    }
}

/// Adds metadata to that which was read of an entry; the time of deletion is none of it.
fn add_info(
    raw: &mut RawEntry,
    fields: &mut Fields,
    key: &str,
    json: &[u8],
) -> Result<(), ImportError> {
    let json = str::from_utf8(json).map_err(|_| ImportError::Unreadable)?;
    if key == TRASHED_AT {
        raw.trashed_at = Some(json.to_owned());
    } else {
        fields.push(key, json);
    }
    Ok(())
}

const fn too_large(entry: usize) -> ImportError {
    wrong(entry, "Info", "has a value that is more than one change may have")
}

/// The text of one value of metadata, which may have so many bytes and no more.
#[derive(Default)]
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > VALUE_TEXT_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const TWICE: &str = "is there twice";

/// Fills the place of a field, which must be empty.
fn put<T>(place: &mut Option<T>, value: T, otherwise: ImportError) -> Result<(), ImportError> {
    if place.replace(value).is_none() { Ok(()) } else { Err(otherwise) }
}

/// That a value of this type comes next.
fn require(
    reader: &mut TextReader<'_>,
    wanted: ValueType,
    otherwise: ImportError,
) -> Result<(), ImportError> {
    if reader.peek().map_err(failure)? == wanted { Ok(()) } else { Err(otherwise) }
}

fn failure(error: ReaderError) -> ImportError {
    match error {
        ReaderError::IoError { error, .. } if error.kind() == io::ErrorKind::FileTooLarge => {
            ImportError::TooLarge { max: IMPORT_BYTES_MAX }
        }
        ReaderError::IoError { .. } => ImportError::Unreadable,
        ReaderError::MaxNestingDepthExceeded { .. } => {
            ImportError::TooDeep { max: IMPORT_DEPTH_MAX }
        }
        ReaderError::SyntaxError(error) => syntax(&error.location),
        ReaderError::UnexpectedValueType { location, .. }
        | ReaderError::UnexpectedStructure { location, .. }
        | ReaderError::UnsupportedNumberValue { location, .. } => syntax(&location),
        _ => ImportError::Unreadable,
    }
}

fn syntax(at: &JsonReaderPosition) -> ImportError {
    let (line, column) = at.line_pos.map_or((0, 0), |at| (at.line, at.column));
    ImportError::Syntax { line: line + 1, column: column + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries inside each other, so many.
    fn nested(depth: usize) -> String {
        let inside = "{\"Kind\":\"item\",\"innerEntries\":[".repeat(depth - 1);
        inside + "{\"Kind\":\"item\"}" + &"]}".repeat(depth - 1)
    }

    #[test]
    fn entries_are_nested_up_to_the_bound_and_no_deeper() {
        let read = |depth| records(JsonSource::Text(&nested(depth))).map(|records| records.len());
        assert_eq!(read(IMPORT_DEPTH_MAX), Ok(IMPORT_DEPTH_MAX));
        let too_deep = ImportError::TooDeep { max: IMPORT_DEPTH_MAX };
        assert_eq!(read(IMPORT_DEPTH_MAX + 1), Err(too_deep));
    }

    #[test]
    fn as_many_entries_are_read_as_may_be_and_no_more() {
        let inner = [r#"{"Kind":"item"}"#; 8].join(",");
        let nine = format!(r#"{{"Kind":"item","innerEntries":[{inner}]}}"#);
        let value: Json = serde_json::from_str(&nine).unwrap();
        for max in [8, 9, 10] {
            let mut bytes = nine.as_bytes();
            let rows = [
                records_within(JsonSource::Text(&nine), max),
                records_within(JsonSource::Value(&value), max),
                records_within(JsonSource::Reader(&mut bytes), max),
            ];
            for read in rows {
                let too_many = ImportError::TooManyEntries { max };
                let expected = if max < 9 { Err(too_many) } else { Ok(9) };
                assert_eq!(read.map(|records| records.len()), expected);
            }
        }
    }

    #[test]
    fn as_many_bytes_are_read_as_may_be_and_no_more() {
        let bytes = [b' '; 10];
        let read = |left| {
            let mut all = Vec::new();
            Bounded { inner: &mut &bytes[..], left }.read_to_end(&mut all)
        };
        assert_eq!(read(10).unwrap(), 10);
        assert_eq!(read(9).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn an_error_says_where_it_is() {
        let error = |text: &str| records(JsonSource::Text(text)).unwrap_err();
        assert_eq!(error("{\n  \"Kind\" 7}"), ImportError::Syntax { line: 2, column: 10 });
        let second = r#"{"Kind":"item","innerEntries":[{"Kind":"item","Id":"x"}]}"#;
        assert_eq!(error(second), wrong(1, "Id", "must be a UUID"));
        assert_eq!(error("\"text\""), wrong(0, "Kind", "an entry is an object"));
    }

    #[test]
    fn bytes_that_are_no_text_are_unreadable() {
        let mut bytes: &[u8] = b"{\"Kind\":\"\xff\"}";
        let error = records(JsonSource::Reader(&mut bytes)).unwrap_err();
        assert_eq!(error, ImportError::Unreadable);
    }
}
