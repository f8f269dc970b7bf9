//! What a transaction or a patch has changed, entry by entry and property by property.
//!
//! It is made of the engine's delta, so it says the same of local edits and of patches, and names
//! nothing that reads as before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use sds_engine::{
    Delta, Difference, EntryDelta, EntryId, Field, FieldDelta, FieldEdit, Place, TextSplice,
    TextUnit, Value,
};

use crate::entry::{TRASHED_AT, default_label};
use crate::limits::DEFAULT_MIME_TYPE;

/// A property of an entry that can change.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Property {
    /// The entry that was there is gone, or only stands for the target of a link now, or the other
    /// way round. Nothing else is told of an entry that is gone, but that its inner list has changed.
    Existence,
    /// It is in another item; of a new entry, it is in one.
    OuterItem,
    /// Entries came, went or were reordered inside it.
    InnerEntryList,
    /// What it is called.
    Label,
    /// MIME type of its value.
    Type,
    /// Its value.
    Value,
    /// The metadata under this key; under `_trashedAt` the time of deletion.
    Info(Box<str>),
}

impl From<&Field> for Property {
    fn from(field: &Field) -> Self {
        match field {
            Field::Label => Self::Label,
            Field::Type => Self::Type,
            Field::Value => Self::Value,
            Field::Info(key) => Self::Info(key.clone()),
        }
    }
}

/// The name by which others know the property: `outerItem`, `Info.<key>` and so on.
impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Existence => f.write_str("Existence"),
            Self::OuterItem => f.write_str("outerItem"),
            Self::InnerEntryList => f.write_str("innerEntryList"),
            Self::Label => f.write_str("Label"),
            Self::Type => f.write_str("Type"),
            Self::Value => f.write_str("Value"),
            Self::Info(key) => write!(f, "Info.{key}"),
        }
    }
}

/// A place in an item's list of inner entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListPlace {
    /// The item.
    pub outer_item: EntryId,
    /// The index in its list: before everything in the change set for a place that is left, after
    /// everything for one that is taken.
    pub index: usize,
}

impl From<Place> for ListPlace {
    fn from(Place { parent, index }: Place) -> Self {
        Self { outer_item: parent, index }
    }
}

/// An edit of some characters of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextEdit {
    /// What is replaced, in UTF-16 units of the text before this edit.
    pub range: Range<usize>,
    /// The characters that were there.
    pub deleted: String,
    /// The characters that come into their place.
    pub inserted: String,
}

impl From<&TextSplice> for TextEdit {
    fn from(splice: &TextSplice) -> Self {
        Self {
            range: splice.range(TextUnit::Utf16),
            deleted: splice.deleted().to_owned(),
            inserted: splice.inserted().to_owned(),
        }
    }
}

/// What has changed of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryChange {
    /// The entry.
    pub entry: EntryId,
    /// The properties that have changed, at least one.
    pub properties: BTreeSet<Property>,
    /// How texts were edited that were not replaced as a whole: the edits of each apply one after the
    /// other.
    pub texts: BTreeMap<Property, Vec<TextEdit>>,
}

/// What has changed, by entry. The cost of making one follows what has changed.
///
/// It has exactly what reads differently afterwards, for local edits and patches alike; and
/// properties that somebody here has set to what they were already. Purged entries have
/// [`Property::Existence`], new ones [`Property::OuterItem`] and whatever of them is not empty.
///
/// A copy of the store's lists follows by index: first take out [`ChangeSet::departures`], one after
/// the other, then put in [`ChangeSet::arrivals`]. A copy of a text follows by [`EntryChange::texts`],
/// where they are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeSet {
    changes: BTreeMap<EntryId, EntryChange>,
    departures: Vec<(ListPlace, EntryId)>,
    arrivals: Vec<(ListPlace, EntryId)>,
}

impl ChangeSet {
    /// The change set for a delta; `set_again` are properties that were set to what they were.
    pub(crate) fn new(delta: &Delta, set_again: Vec<(EntryId, Property)>) -> Self {
        let places = |places: Vec<(Place, EntryId)>| {
            places.into_iter().map(|(place, entry)| (place.into(), entry)).collect()
        };
        let mut changes = Self {
            changes: BTreeMap::new(),
            departures: places(delta.departures()),
            arrivals: places(delta.arrivals()),
        };
        delta.entries.iter().for_each(|one| changes.add(one));
        let is_gone = |entry: &EntryId| {
            let at = delta.entries.binary_search_by_key(entry, |one| one.entry);
            at.is_ok_and(|at| is_gone(&delta.entries[at]))
        };
        for (entry, property) in set_again {
            if !is_gone(&entry) {
                changes.note(entry, property);
            }
        }
        changes
    }

    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many entries have changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// What has changed of each entry, in order of id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &EntryChange> {
        self.changes.values()
    }

    /// What has changed of an entry, if anything has.
    #[must_use]
    pub fn of(&self, entry: EntryId) -> Option<&EntryChange> {
        self.changes.get(&entry)
    }

    /// Whether a property of an entry has changed.
    #[must_use]
    pub fn contains(&self, entry: EntryId, property: &Property) -> bool {
        self.of(entry).is_some_and(|change| change.properties.contains(property))
    }

    /// The places that entries left which were moved or reordered or are gone, of each item the last
    /// first.
    #[must_use]
    pub fn departures(&self) -> &[(ListPlace, EntryId)] {
        &self.departures
    }

    /// The places that entries came to which are new or were moved or reordered, of each item the
    /// first first.
    #[must_use]
    pub fn arrivals(&self) -> &[(ListPlace, EntryId)] {
        &self.arrivals
    }

    fn add(&mut self, delta: &EntryDelta) {
        let entry = delta.entry;
        if delta.appearance.is_some_and(|appearance| appearance.before.is_some()) {
            self.note(entry, Property::Existence);
        }
        if let Some(Difference { before, after }) = delta.place {
            for place in [before, after].into_iter().flatten() {
                self.note(place.parent, Property::InnerEntryList);
            }
            let outer_item = |place: Option<Place>| place.map(|place| place.parent);
            if after.is_some() && outer_item(before) != outer_item(after) {
                self.note(entry, Property::OuterItem);
            }
        }
        if is_gone(delta) {
            return;
        }
        if delta.trashed_at.is_some() {
            self.note(entry, Property::Info(TRASHED_AT.into()));
        }
        delta.fields.iter().for_each(|field| self.add_field(entry, field));
    }

    fn add_field(&mut self, entry: EntryId, FieldDelta { field, edit }: &FieldDelta) {
        match edit {
            FieldEdit::Set(Difference { before, after }) => {
                if !reads_alike(entry, field, before, after) {
                    self.note(entry, field.into());
                }
            }
            FieldEdit::Spliced(splices) => {
                self.note(entry, field.into());
                let edits = splices.iter().map(TextEdit::from).collect();
                self.change_mut(entry).texts.insert(field.into(), edits);
            }
        }
    }

    fn note(&mut self, entry: EntryId, property: Property) {
        self.change_mut(entry).properties.insert(property);
    }

    fn change_mut(&mut self, entry: EntryId) -> &mut EntryChange {
        let none = || EntryChange { entry, properties: BTreeSet::new(), texts: BTreeMap::new() };
        self.changes.entry(entry).or_insert_with(none)
    }
}

fn is_gone(delta: &EntryDelta) -> bool {
    delta.appearance.is_some_and(|appearance| appearance.after.is_none())
}

/// Whether nobody who reads a field can tell two values apart.
pub(crate) fn reads_alike(entry: EntryId, field: &Field, before: &Value, after: &Value) -> bool {
    fn text<'a>(value: &'a Value, default: &'a str) -> &'a str {
        if let Value::Text(text) = value { text } else { default }
    }
    fn mime_type(value: &Value) -> &str {
        Some(text(value, "")).filter(|text| !text.is_empty()).unwrap_or(DEFAULT_MIME_TYPE)
    }
    fn content(value: &Value) -> Option<&Value> {
        matches!(value, Value::Text(_) | Value::Bytes(_) | Value::Blob(_)).then_some(value)
    }
    fn json(value: &Value) -> Option<&Value> {
        (!matches!(value, Value::None | Value::Bytes(_) | Value::Blob(_))).then_some(value)
    }
    match field {
        Field::Label => {
            let default = default_label(entry);
            text(before, default) == text(after, default)
        }
        Field::Type => mime_type(before) == mime_type(after),
        Field::Value => content(before) == content(after),
        Field::Info(key) => &**key == TRASHED_AT || json(before) == json(after),
    }
}
