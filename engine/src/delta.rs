//! What has changed since somebody last asked, in terms of what shows.
//!
//! While deltas are recorded, whatever is about to change notes how it was, the first time since the
//! last look (`watch`); a look compares that with how it is now. So a delta says the same
//! whichever edits, patches and transactions led from the one to the other, and what came back to where
//! it was is not in it. Splices of texts alone are kept one by one.
//!
//! Cost: O(log n) for each entry, field and splice that was touched, and what came and went of texts; the
//! length of a text that is set, taken back or joined, which costs that much anyway. Nothing but a look
//! at a flag while nobody records.
//! Not here: which change did it, and by whom.

mod between;
mod order;
mod splices;
mod watch;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::entries::EntryIx;
use crate::id::{EntryId, Timestamp};
use crate::op::NewEntry;
use crate::registers::{FieldIx, RegisterView};
use crate::replica::Replica;
use crate::value::{Field, Value};
use order::Reordering;
pub use splices::TextSplice;
use watch::Noted;
pub(crate) use watch::{Known, KnownField, KnownPlace, Watch};

/// What has changed between two looks at a replica: enough to bring a copy of what showed then up to
/// date. See [`Replica::take_delta`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// The entries of which something has changed, in order of id.
    pub entries: Vec<EntryDelta>,
}

/// What has changed of one entry; at least something has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryDelta {
    /// The entry.
    pub entry: EntryId,
    /// What it shows as, if that is another thing; none while it does not show.
    pub appearance: Option<Difference<Option<Appearance>>>,
    /// Where it shows, if it came, went, or was moved or reordered; none while it does not show. An
    /// entry whose index is another one because of its siblings has not moved.
    pub place: Option<Difference<Option<Place>>>,
    /// When it was deleted, if that is another time.
    pub trashed_at: Option<Difference<Option<Timestamp>>>,
    /// The fields that hold something else, in order. An entry that goes loses what its fields held.
    pub fields: Vec<FieldDelta>,
}

/// How something was and how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference<T> {
    /// At the last look.
    pub before: T,
    /// Now.
    pub after: T,
}

/// What an entry shows as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appearance {
    /// Item or link; a placeholder is an item.
    pub kind: NewEntry,
    /// Whether it only stands for the target of a link.
    pub is_placeholder: bool,
}

/// A place where an entry shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The container.
    pub parent: EntryId,
    /// The index among all that shows or showed there: before the delta in a place of before, after
    /// the whole delta in a place of after. See [`Delta::departures`] and [`Delta::arrivals`].
    pub index: usize,
}

/// What has changed of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDelta {
    /// The field.
    pub field: Field,
    /// How.
    pub edit: FieldEdit,
}

/// How a field came to hold something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldEdit {
    /// It was set, or came or went with the life of its entry.
    Set(Difference<Value>),
    /// The text that it held was edited. The splices apply one after the other, each to the text that
    /// the one before it leaves.
    Spliced(Vec<TextSplice>),
}

impl Delta {
    /// Whether nothing has changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The places that entries leave, of each container the last first: so whoever keeps lists of
    /// children can take them out by index, one after the other. All leave before any arrives.
    #[must_use]
    pub fn departures(&self) -> Vec<(Place, EntryId)> {
        let mut places = self.places(|place| place.before);
        places.sort_unstable_by_key(|place| Reverse(*place));
        places
    }

    /// The places that entries come to, of each container the first first: so they can be put in by
    /// index, one after the other, once all departures are done.
    #[must_use]
    pub fn arrivals(&self) -> Vec<(Place, EntryId)> {
        let mut places = self.places(|place| place.after);
        places.sort_unstable();
        places
    }

    fn places(
        &self,
        which: impl Fn(&Difference<Option<Place>>) -> Option<Place>,
    ) -> Vec<(Place, EntryId)> {
        let entries = self.entries.iter();
        entries.filter_map(|one| Some((which(one.place.as_ref()?)?, one.entry))).collect()
    }
}

impl EntryDelta {
    const fn none(entry: EntryId) -> Self {
        Self { entry, appearance: None, place: None, trashed_at: None, fields: Vec::new() }
    }

    const fn is_empty(&self) -> bool {
        let is_same = self.appearance.is_none() && self.place.is_none();
        is_same && self.trashed_at.is_none() && self.fields.is_empty()
    }
}

impl<T: PartialEq> Difference<T> {
    /// The difference, if there is one.
    fn between(before: T, after: T) -> Option<Self> {
        (before != after).then_some(Self { before, after })
    }
}

impl Replica {
    /// Begins to record what changes, for [`Replica::take_delta`], or ceases to and forgets it. A
    /// replica that records already goes on.
    pub fn record_deltas(&mut self, wanted: bool) {
        self.watch.turn(wanted);
    }

    /// What has changed since this was last called, or since recording began: by local edits, in a
    /// transaction under way too, and by what was integrated. What was taken back leaves nothing.
    /// Empty if nothing is recorded.
    ///
    /// O(log n) for each entry and field that was touched, and what came and went of texts and other
    /// values.
    ///
    /// ```
    /// use sds_engine::{EntryId, Field, FieldEdit, Replica, ReplicaId, TextUnit, Value};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut desk = Replica::new(ReplicaId::new(1).ok_or("zero")?);
    /// let note = desk.create_item(EntryId::ROOT, 0)?;
    /// desk.set(note, Field::Label, Value::Text("milk".into()))?;
    ///
    /// desk.record_deltas(true);
    /// desk.splice(note, Field::Label, 0..0, "buy ")?;
    /// desk.splice(note, Field::Label, 4..8, "bread")?;
    /// desk.move_to(note, EntryId::ROOT, 2)?;
    /// let delta = desk.take_delta();
    ///
    /// let [changed] = &delta.entries[..] else { return Err("one entry".into()) };
    /// let moved = changed.place.ok_or("moved")?;
    /// assert_eq!(moved.before.map(|place| place.index), Some(0));
    /// assert_eq!(moved.after.map(|place| place.index), Some(2));
    /// let FieldEdit::Spliced(splices) = &changed.fields[0].edit else { return Err("text".into()) };
    /// assert_eq!(splices[0].range(TextUnit::Utf16), 0..4);
    /// assert_eq!((splices[0].deleted(), splices[0].inserted()), ("milk", "buy bread"));
    /// assert!(desk.take_delta().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn take_delta(&mut self) -> Delta {
        let Noted { entries, times, fields } = self.watch.take();
        let mut deltas = Deltas::default();
        self.compare_entries(entries, &mut deltas);
        for (entry, before) in times {
            let after = self.known(entry).trashed_at;
            let delta = deltas.of(self.entries.id(entry));
            delta.trashed_at = Difference::between(before, after);
        }
        self.compare_fields(fields, &mut deltas);
        deltas.finish()
    }

    fn compare_entries(&self, known: impl IntoIterator<Item = (EntryIx, Known)>, to: &mut Deltas) {
        let mut moved = Vec::new();
        for (entry, before) in known {
            let after = self.known(entry);
            let delta = to.of(self.entries.id(entry));
            delta.appearance = Difference::between(before.appearance, after.appearance);
            delta.trashed_at = Difference::between(before.trashed_at, after.trashed_at);
            if let Some(places) = Difference::between(before.place, after.place) {
                moved.push((entry, places));
            }
        }
        for (entry, place) in Reordering::of(&moved, self).places() {
            to.of(entry).place = Some(place);
        }
    }

    fn compare_fields(
        &self,
        known: impl IntoIterator<Item = ((EntryIx, FieldIx), KnownField)>,
        to: &mut Deltas,
    ) {
        for ((entry, field), before) in known {
            let is_alive = self.facts().is_alive(entry);
            let after = self.entries.state(entry).register(field).filter(|_| is_alive);
            if let Some(edit) = before.edit_to(after) {
                let field = self.entries.names().field(field).clone();
                to.of(self.entries.id(entry)).fields.push(FieldDelta { field, edit });
            }
        }
    }

    fn known(&self, entry: EntryIx) -> Known {
        self.display.known(entry, None, self.facts())
    }
}

/// A delta in the making. What was noted comes in any order.
#[derive(Debug, Default)]
struct Deltas(BTreeMap<EntryId, EntryDelta>);

impl Deltas {
    fn of(&mut self, entry: EntryId) -> &mut EntryDelta {
        self.0.entry(entry).or_insert_with(|| EntryDelta::none(entry))
    }

    fn finish(self) -> Delta {
        let mut entries: Vec<EntryDelta> = self.0.into_values().collect();
        entries.retain(|delta| !delta.is_empty());
        for delta in &mut entries {
            delta.fields.sort_unstable_by(|a, b| a.field.cmp(&b.field));
        }
        Delta { entries }
    }
}

impl KnownField {
    /// How a field came from what was noted to what it holds.
    fn edit_to(self, after: Option<RegisterView<'_>>) -> Option<FieldEdit> {
        let value = || after.map_or(Value::None, RegisterView::value);
        match self {
            Self::Replaced(before) => Difference::between(before, value()).map(FieldEdit::Set),
            Self::Spliced(splices) => splices.into_edit(|| match value() {
                Value::Text(after) => after,
                _ => String::new(),
            }),
            Self::Rewritten(before) => match value() {
                Value::Text(after) => TextSplice::between(&before, &after)
                    .map(|splice| FieldEdit::Spliced(vec![splice])),
                after => Some(FieldEdit::Set(Difference { before: Value::Text(before), after })),
            },
        }
    }
}

/// An entry that shows elsewhere than it did.
type Moved = (EntryIx, Difference<Option<KnownPlace>>);

#[cfg(test)]
mod tests;
