//! What was noted of entries and fields when they were about to change.
//!
//! Invariants:
//! - D1. Of an entry or field that is not noted, nothing that shows has changed since the last look, but
//!   for a time of deletion that is noted by itself.
//! - D2. No time of deletion is noted by itself of an entry that is noted.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use smallvec::SmallVec;

use super::Appearance;
use super::splices::Splices;
use crate::entries::EntryIx;
use crate::id::Timestamp;
use crate::registers::{FieldIx, FieldNames};
use crate::text::Lengths;
use crate::value::Value;

/// How an entry showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) appearance: Option<Appearance>,
    pub(crate) place: Option<KnownPlace>,
    pub(crate) trashed_at: Option<Timestamp>,
}

/// Where an entry showed. The key is a copy, since the move that gave it may be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownPlace {
    pub(crate) parent: EntryIx,
    pub(crate) key: SmallVec<[u8; 24]>,
}

/// What a field held, or what was done to it since.
#[derive(Clone, Debug)]
pub(crate) enum KnownField {
    /// It held this, and was set or has changed with the life of its entry.
    Replaced(Value),
    /// It holds the same text, but for these splices.
    Spliced(Splices),
    /// It held this text and holds the same one, which was edited in ways that nobody followed.
    Rewritten(String),
}

/// The notes, while somebody wants them; and the entries whose values were set, while somebody wants
/// only these.
#[derive(Debug, Default)]
pub(crate) struct Watch(Option<Box<Noted>>, Option<Vec<EntryIx>>);

#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) entries: HashMap<EntryIx, Known>,
    /// The times of deletion from before, of entries that may be noted for nothing else.
    pub(super) times: HashMap<EntryIx, Option<Timestamp>>,
    pub(super) fields: HashMap<(EntryIx, FieldIx), KnownField>,
}

impl Watch {
    /// Begins to take notes, or ceases to.
    pub(super) fn turn(&mut self, is_on: bool) {
        if is_on != self.is_on() {
            self.0 = is_on.then(Box::default);
        }
    }

    /// Hands over the notes and begins anew.
    pub(super) fn take(&mut self) -> Noted {
        self.0.as_deref_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether anybody wants notes.
    #[inline]
    pub(crate) const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether anybody wants notes of fields that are set.
    pub(crate) const fn notes_fields(&self) -> bool {
        self.0.is_some() || self.1.is_some()
    }

    /// Panics if D2 does not hold. D1 cannot be seen without what showed at the last look.
    pub(crate) fn assert_invariants(&self) {
        let Some(noted) = &self.0 else { return };
        assert!(!noted.times.keys().any(|entry| noted.entries.contains_key(entry)), "D2");
    }

    /// Begins to mark entries whose value is set, or comes or goes with a life.
    pub(crate) fn mark_values(&mut self) {
        self.1.get_or_insert_default();
    }

    /// Hands over the marked entries, some maybe twice.
    pub(crate) fn take_marked(&mut self) -> Vec<EntryIx> {
        self.1.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Notes how an entry shows that is about to show differently. `known` gets the time of deletion
    /// if that was noted before.
    #[inline]
    pub(crate) fn note_entry(
        &mut self,
        entry: EntryIx,
        known: impl FnOnce(Option<Option<Timestamp>>) -> Known,
    ) {
        if let Some(noted) = &mut self.0
            && let Entry::Vacant(place) = noted.entries.entry(entry)
        {
            place.insert(known(noted.times.remove(&entry)));
        }
    }

    /// Notes the time of deletion that an entry had.
    pub(crate) fn note_time(&mut self, entry: EntryIx, trashed_at: Option<Timestamp>) {
        if let Some(noted) = &mut self.0
            && !noted.entries.contains_key(&entry)
        {
            noted.times.entry(entry).or_insert(trashed_at);
        }
    }

    /// Notes what a field holds that is about to hold something else.
    #[inline]
    pub(crate) fn note_field(
        &mut self,
        entry: EntryIx,
        field: FieldIx,
        value: impl FnOnce() -> Value,
    ) {
        if field == FieldNames::VALUE
            && let Some(marked) = &mut self.1
            && marked.last() != Some(&entry)
        {
            marked.push(entry);
        }
        let Some(noted) = &mut self.0 else { return };
        match noted.fields.entry((entry, field)) {
            Entry::Vacant(place) => drop(place.insert(KnownField::Replaced(value()))),
            Entry::Occupied(mut known) => {
                if !matches!(known.get(), KnownField::Replaced(_)) {
                    let before = std::mem::replace(known.get_mut(), Value::None.into());
                    known.insert(Value::Text(before.text_before(value)).into());
                }
            }
        }
    }

    /// Notes a text that is about to be edited in ways that nobody follows.
    pub(crate) fn note_text(
        &mut self,
        entry: EntryIx,
        field: FieldIx,
        value: impl FnOnce() -> Value,
    ) {
        let Some(noted) = &mut self.0 else { return };
        let known = noted.fields.entry((entry, field));
        let known = known.or_insert_with(|| KnownField::Spliced(Splices::default()));
        if matches!(known, KnownField::Spliced(_)) {
            let before = std::mem::replace(known, Value::None.into());
            *known = KnownField::Rewritten(before.text_before(value));
        }
    }

    /// Notes an edit of the text that a field holds: what was in the place of what, after how much.
    pub(crate) fn note_splice(
        &mut self,
        (entry, field): (EntryIx, FieldIx),
        at: Lengths,
        deleted: &str,
        inserted: &str,
    ) {
        let Some(noted) = &mut self.0 else { return };
        let known = noted.fields.entry((entry, field));
        let known = known.or_insert_with(|| KnownField::Spliced(Splices::default()));
        if let KnownField::Spliced(splices) = known {
            splices.push(at, deleted, inserted);
        }
    }
}

impl From<Value> for KnownField {
    fn from(value: Value) -> Self {
        Self::Replaced(value)
    }
}

impl KnownField {
    /// The text that a field held which holds a text still.
    fn text_before(self, value: impl FnOnce() -> Value) -> String {
        match self {
            Self::Rewritten(before) | Self::Replaced(Value::Text(before)) => before,
            Self::Spliced(splices) => match value() {
                Value::Text(after) => splices.undone(after),
                _ => String::new(),
            },
            Self::Replaced(_) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests;
