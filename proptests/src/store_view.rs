//! What a store shows, as plain maps and lists, and what has changed between two looks at it.

use std::collections::{BTreeMap, BTreeSet};

use sds_store::{ChangeSet, DataStore, EntryId, ItemValue, Property, TextEdit};
use serde_json::{Map, Value as Json};

use crate::user::entries;

/// What a store shows.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreView(BTreeMap<EntryId, Seen>);

/// What is seen of one entry.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    outer_item: Option<EntryId>,
    inner_entries: Vec<EntryId>,
    label: String,
    mime_type: String,
    value: ItemValue,
    info: Map<String, Json>,
}

impl Seen {
    /// What an entry is of which nobody has said anything.
    fn nothing() -> Self {
        Self {
            outer_item: None,
            inner_entries: Vec::new(),
            label: String::new(),
            mime_type: "text/plain".to_owned(),
            value: ItemValue::None,
            info: Map::new(),
        }
    }

    /// The properties in which they differ.
    fn differences(&self, other: &Self) -> BTreeSet<Property> {
        let mut found = BTreeSet::new();
        let mut check = |differs, property| {
            if differs {
                found.insert(property);
            }
        };
        check(self.outer_item != other.outer_item, Property::OuterItem);
        check(self.inner_entries != other.inner_entries, Property::InnerEntryList);
        check(self.label != other.label, Property::Label);
        check(self.mime_type != other.mime_type, Property::Type);
        check(self.value != other.value, Property::Value);
        for key in self.info.keys().chain(other.info.keys()) {
            let differs = self.info.get(key) != other.info.get(key);
            check(differs, Property::Info(key.as_str().into()));
        }
        found
    }
}

impl StoreView {
    /// What the store shows now.
    #[must_use]
    pub fn of(store: &DataStore) -> Self {
        let see = |id: EntryId| {
            let entry = store.entry_with_id(id)?;
            let inner_entries = entry.inner_entries().map(|inner| inner.id()).collect();
            let seen = Seen {
                outer_item: entry.outer_item_id(),
                inner_entries,
                label: entry.label().into_owned(),
                mime_type: entry.mime_type().into_owned(),
                // Contents come and go without a change of the store.
                value: entry.blob_ref().map_or_else(|| entry.value(), ItemValue::Pending),
                info: entry.info_map(),
            };
            Some((id, seen))
        };
        Self(entries(store).into_iter().filter_map(see).collect())
    }

    /// Takes over what a change set says, and panics unless this then shows what `after` shows, and the
    /// change set names exactly what differs. It may name properties that were set to what they were,
    /// if somebody here `has_edited`.
    pub fn follow(&mut self, changes: &ChangeSet, after: &Self, has_edited: bool) {
        let expected = self.differences(after);
        for change in changes.iter() {
            let none = BTreeSet::new();
            let expected = expected.get(&change.entry).unwrap_or(&none);
            for property in &change.properties {
                let is_expected = expected.contains(property);
                let may_be = self.may_be_named(after, change.entry, property, has_edited);
                assert!(is_expected || may_be, "{:?} {property}: {changes:?}", change.entry);
            }
            assert!(!change.properties.is_empty(), "{changes:?}");
            let texts: BTreeSet<_> = change.texts.keys().cloned().collect();
            assert!(texts.is_subset(&change.properties));
        }
        for (entry, properties) in expected {
            for property in properties {
                assert!(changes.contains(entry, &property), "{entry:?} {property}: {changes:?}");
            }
        }
        self.follow_lists(changes, after);
        self.follow_texts(changes, after);
        self.clone_from(after);
    }

    fn may_be_named(
        &self,
        after: &Self,
        entry: EntryId,
        property: &Property,
        has_edited: bool,
    ) -> bool {
        match property {
            // Whether an entry only stands for the target of a link cannot be seen, but where it can be.
            Property::Existence => [self, after].iter().all(|view| {
                let seen = view.0.get(&entry);
                seen.is_some_and(|seen| seen.outer_item.is_some())
            }),
            Property::Label | Property::Type | Property::Value => has_edited,
            Property::Info(key) => has_edited && &**key != "_trashedAt",
            _ => false,
        }
    }

    fn differences(&self, after: &Self) -> BTreeMap<EntryId, BTreeSet<Property>> {
        let nothing = Seen::nothing();
        let ids: BTreeSet<EntryId> = self.0.keys().chain(after.0.keys()).copied().collect();
        let of_one = |id: EntryId| {
            let differences = match (self.0.get(&id), after.0.get(&id)) {
                (Some(before), Some(after)) => before.differences(after),
                (None, Some(after)) => nothing.differences(after),
                (Some(before), None) => {
                    let list =
                        (!before.inner_entries.is_empty()).then_some(Property::InnerEntryList);
                    list.into_iter().chain([Property::Existence]).collect()
                }
                (None, None) => BTreeSet::new(),
            };
            (id, differences)
        };
        let mut differences: BTreeMap<_, _> = ids.into_iter().map(of_one).collect();
        differences.retain(|_, properties| !properties.is_empty());
        differences
    }

    fn follow_lists(&self, changes: &ChangeSet, after: &Self) {
        let lists = |view: &Self| -> BTreeMap<EntryId, Vec<EntryId>> {
            let lists = view.0.iter().map(|(id, seen)| (*id, seen.inner_entries.clone()));
            lists.filter(|(_, list)| !list.is_empty()).collect()
        };
        let mut found = lists(self);
        for (place, entry) in changes.departures() {
            let list = found.get_mut(&place.outer_item).expect("a list");
            assert_eq!(list.remove(place.index), *entry);
        }
        for (place, entry) in changes.arrivals() {
            found.entry(place.outer_item).or_default().insert(place.index, *entry);
        }
        found.retain(|_, list| !list.is_empty());
        assert_eq!(found, lists(after), "{changes:?}");
    }

    fn follow_texts(&self, changes: &ChangeSet, after: &Self) {
        let text = |view: &Self, entry, property: &Property| {
            let seen = view.0.get(&entry);
            let text = match (property, seen.map(|seen| &seen.value)) {
                (Property::Label, _) => seen.map(|seen| seen.label.as_str()),
                (Property::Value, Some(ItemValue::Text(text))) => Some(text.as_str()),
                _ => None,
            };
            assert!(text.is_some(), "{property} of {entry:?} is spliced");
            text.unwrap_or_default().encode_utf16().collect::<Vec<u16>>()
        };
        for change in changes.iter() {
            for (property, edits) in &change.texts {
                let found = edits.iter().fold(text(self, change.entry, property), apply);
                assert_eq!(found, text(after, change.entry, property), "{changes:?}");
            }
        }
    }
}

fn apply(mut text: Vec<u16>, edit: &TextEdit) -> Vec<u16> {
    let inserted = edit.inserted.encode_utf16();
    let deleted: Vec<u16> = text.splice(edit.range.clone(), inserted).collect();
    assert_eq!(deleted, edit.deleted.encode_utf16().collect::<Vec<_>>());
    text
}
