//! How one replica reads differently from another, whatever led from the one to the other.

use std::collections::{BTreeMap, BTreeSet};

use super::order::longest_rise;
use super::{Appearance, Delta, Deltas, Difference, FieldDelta, FieldEdit, Place, TextSplice};
use crate::id::EntryId;
use crate::replica::Replica;
use crate::value::{Field, Value};

impl Replica {
    /// What reads differently in `after`, another replica: what [`Replica::take_delta`] would tell if edits had led
    /// from here to there. A value that was a text and is another one is told as one splice, other fields as set.
    ///
    /// For whoever goes on with another replica in the place of this one. Costs both of them, and
    /// O(n log n) for the children of a container.
    #[must_use]
    pub fn delta_to(&self, after: &Self) -> Delta {
        let shown: BTreeSet<EntryId> = self.shown_entries().chain(after.shown_entries()).collect();
        let mut deltas = Deltas::default();
        let mut places = Places::default();
        for entry in shown {
            let delta = deltas.of(entry);
            delta.appearance = Difference::between(self.appearance(entry), after.appearance(entry));
            delta.trashed_at = Difference::between(self.trashed_at(entry), after.trashed_at(entry));
            let fields: BTreeSet<&Field> = self.fields(entry).chain(after.fields(entry)).collect();
            delta.fields.extend(fields.into_iter().filter_map(|field| {
                let edit = edit(field, self.value(entry, field), after.value(entry, field))?;
                Some(FieldDelta { field: field.clone(), edit })
            }));
            places.compare(entry, self, after);
        }
        for (entry, place) in places.0 {
            deltas.of(entry).place = Some(place);
        }
        deltas.finish()
    }

    fn appearance(&self, entry: EntryId) -> Option<Appearance> {
        let (kind, is_placeholder) = (self.kind(entry)?, !self.is_alive(entry));
        Some(Appearance { kind, is_placeholder })
    }
}

fn edit(field: &Field, before: Value, after: Value) -> Option<FieldEdit> {
    match (field, before, after) {
        // What somebody may be typing in: a cursor stays where it is.
        (Field::Value, Value::Text(before), Value::Text(after)) => {
            TextSplice::between(&before, &after).map(|splice| FieldEdit::Spliced(vec![splice]))
        }
        (_, before, after) => Difference::between(before, after).map(FieldEdit::Set),
    }
}

/// The places of the entries that stand elsewhere.
#[derive(Default)]
struct Places(BTreeMap<EntryId, Difference<Option<Place>>>);

impl Places {
    /// Compares the children of a container. As many as can be are taken to have stayed.
    fn compare(&mut self, parent: EntryId, before: &Replica, after: &Replica) {
        if before.child_count(parent) == 0 && after.child_count(parent) == 0 {
            return;
        }
        let old: BTreeMap<EntryId, usize> = numbered(before, parent).collect();
        let common =
            numbered(after, parent).filter_map(|(entry, _)| Some((entry, *old.get(&entry)?)));
        let common: Vec<(EntryId, usize)> = common.collect();
        let stays: BTreeSet<EntryId> = longest_rise(&common).into_iter().collect();
        let has_left = |(entry, _): &(EntryId, usize)| !stays.contains(entry);
        for (entry, index) in numbered(before, parent).filter(has_left) {
            self.of(entry).before = Some(Place { parent, index });
        }
        for (entry, index) in numbered(after, parent).filter(has_left) {
            self.of(entry).after = Some(Place { parent, index });
        }
    }

    fn of(&mut self, entry: EntryId) -> &mut Difference<Option<Place>> {
        self.0.entry(entry).or_insert(Difference { before: None, after: None })
    }
}

fn numbered(replica: &Replica, parent: EntryId) -> impl Iterator<Item = (EntryId, usize)> {
    replica.children(parent).enumerate().map(|(index, entry)| (entry, index))
}
