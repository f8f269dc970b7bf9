//! Entries of one store taken into another, and what must come of it.

use sds_store::{DataStore, Entry, EntryId, ItemValue, JsonOptions, StoreError};
use serde_json::{Map, Value as Json};

use super::ENTRIES_MAX;
use super::edits::assert_placed;

/// What became of an entry that was imported.
pub(super) enum Imported {
    /// The copy.
    Copy(EntryId),
    /// It has its id; so many entries were there before.
    Itself(usize),
}

pub(super) fn import_entry(
    store: &mut DataStore,
    (json, bytes): (&str, &[u8]),
    (outer, index): (EntryId, Option<usize>),
    form: u8,
) -> Result<Imported, StoreError> {
    let room = ENTRIES_MAX.saturating_sub(store.entry_count());
    let copy = match form % 3 {
        0 if room > 0 => store.new_entry_from_json_at(json, outer, index)?,
        1 if room > 0 => store.new_entry_from_binary_at(bytes, outer, index)?,
        _ => {
            let had = store.entry_count();
            let imported = store.import_entry_from_json_at(json, outer, index)?;
            let version = store.version().clone();
            // A link may bring a placeholder into Lost and Found, which changes what stands at an index.
            let again = index.filter(|_| outer != EntryId::LOST_AND_FOUND);
            store.import_entry_from_json_at(json, outer, again)?;
            assert_eq!(*store.version(), version, "importing twice changes nothing");
            assert_placed(store, imported, outer, index);
            return Ok(Imported::Itself(had));
        }
    };
    assert_placed(store, copy, outer, index);
    Ok(Imported::Copy(copy))
}

/// An entry as JSON and as bytes, contents of blobs included.
pub(super) fn forms(entry: Entry<'_>) -> (String, Vec<u8>) {
    let options = JsonOptions::default().with_blobs();
    let mut json = Vec::new();
    entry.write_json_with(&mut json, options).expect("memory takes everything");
    (String::from_utf8(json).expect("JSON is UTF-8"), entry.as_binary_with(options))
}

pub(super) fn is_small(entry: Entry<'_>) -> bool {
    let mut all = vec![entry];
    while let Some(next) = all.pop() {
        all.extend(next.inner_entries());
        if all.len() > ENTRIES_MAX / 4 {
            return false;
        }
    }
    true
}

/// What an entry holds by itself, but for the time of deletion.
type Content = (bool, String, String, ItemValue, Map<String, Json>);

fn content(entry: Entry<'_>) -> Content {
    let mut info = entry.info_map();
    info.remove("_trashedAt");
    let value = match entry.blob_ref() {
        Some(blob) => ItemValue::Pending(blob),
        None => entry.value(),
    };
    let (label, mime_type) = (entry.label().into_owned(), entry.mime_type().into_owned());
    (entry.is_item(), label, mime_type, value, info)
}

/// An entry with all inside, whatever the ids.
#[derive(Debug, PartialEq)]
pub(super) struct Shape(Vec<(usize, Content, Option<Target>)>);

/// Where a link leads: to the n-th entry inside, or outside.
#[derive(Debug, PartialEq)]
enum Target {
    Inside(usize),
    Outside(EntryId),
}

impl Shape {
    pub(super) fn of(top: Entry<'_>) -> Self {
        let (mut all, mut rest) = (Vec::new(), vec![(top, 0)]);
        while let Some((entry, depth)) = rest.pop() {
            all.push((entry, depth));
            rest.extend(entry.inner_entries().rev().map(|inner| (inner, depth + 1)));
        }
        let target = |link: Entry<'_>| {
            let target = link.target_id()?;
            let at = all.iter().position(|(entry, _)| entry.id() == target);
            Some(at.map_or(Target::Outside(target), Target::Inside))
        };
        Self(all.iter().map(|(entry, depth)| (*depth, content(*entry), target(*entry))).collect())
    }
}

/// Everything in an entry is in another store as it is here, and in the same order; and nothing else
/// has gone there.
pub(super) fn assert_imported(source: Entry<'_>, target: &DataStore, had: usize) {
    let mut rest = vec![source];
    while let Some(entry) = rest.pop() {
        let imported = target.entry(entry.id()).expect("it was imported");
        assert_eq!(content(imported), content(entry));
        assert_eq!(imported.target_id(), entry.target_id());
        let inner: Vec<Entry<'_>> = entry.inner_entries().collect();
        let places: Vec<_> = inner
            .iter()
            .filter(|inner| !inner.is_placeholder())
            .map(|inner| target.entry(inner.id()).expect("it was imported"))
            .inspect(|inner| assert_eq!(inner.outer_item_id(), Some(entry.id())))
            .map(|inner| inner.index())
            .collect();
        assert!(places.is_sorted_by(|a, b| a < b), "in the same order");
        rest.extend(inner.into_iter().filter(|inner| !inner.is_placeholder()));
    }
    assert!(target.entry_count() + 1 >= had, "what was here stays, but for a placeholder");
}
