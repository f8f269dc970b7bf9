//! A copy of what a replica shows that is told nothing but deltas.
//!
//! It is a plain map with lists. Each delta must say of everything it names how the mirror has it, and
//! leave the mirror as the replica is.

use std::collections::{BTreeMap, BTreeSet};

use sds_engine::{
    Delta, Difference, EntryDelta, EntryId, FieldEdit, Place, Replica, TextSplice, TextUnit, Value,
};

use crate::model::Kind;
use crate::view::{Displayed, View};

/// What a replica showed when it was last asked.
#[derive(Clone, Debug)]
pub struct Mirror(View);

impl Mirror {
    /// A mirror of what the replica shows. From now on the replica records.
    #[must_use]
    pub fn of(replica: &mut Replica) -> Self {
        replica.record_deltas(true);
        drop(replica.take_delta());
        Self(View::of_replica(replica))
    }

    /// Takes the replica's delta over, and panics unless the mirror shows what the replica shows, and
    /// the delta says no more than what has changed.
    pub fn follow(&mut self, replica: &mut Replica) {
        let before = self.0.clone();
        let delta = replica.take_delta();
        self.apply(&delta);
        assert_eq!(self.0, View::of_replica(replica), "{delta:?} of {before:?}");
        assert!(delta.entries.is_sorted_by(|a, b| a.entry < b.entry), "each entry once");
        delta.entries.iter().for_each(|one| assert_exact(one, &before, &self.0));
        assert!(replica.take_delta().is_empty(), "what was taken is gone");
    }

    fn apply(&mut self, delta: &Delta) {
        let Self(View(entries)) = self;
        for (Place { parent, index }, entry) in delta.departures() {
            let there = entries.get_mut(&parent).expect("a container shows").children.remove(index);
            assert_eq!(there, entry, "where it was");
        }
        for one in &delta.entries {
            if let Some(Difference { after: Some(_), .. }) = one.appearance {
                entries.entry(one.entry).or_insert_with(Displayed::hidden);
            }
        }
        for (Place { parent, index }, entry) in delta.arrivals() {
            entries.get_mut(&parent).expect("a container shows").children.insert(index, entry);
        }
        for one in &delta.entries {
            let displayed = entries.get_mut(&one.entry).expect("an entry of a delta shows");
            apply_to(displayed, one);
            if let Some(Difference { after: None, .. }) = one.appearance {
                assert_eq!(entries.remove(&one.entry), Some(Displayed::hidden()), "all is gone");
            }
        }
    }
}

fn apply_to(displayed: &mut Displayed, delta: &EntryDelta) {
    if let Some(appearance) = &delta.appearance {
        displayed.is_alive = appearance.after.is_some_and(|after| !after.is_placeholder);
        displayed.kind = appearance.after.map(|after| Kind::from(after.kind));
    }
    if let Some(place) = &delta.place {
        assert_eq!(displayed.parent, place.before.map(|place| place.parent));
        displayed.parent = place.after.map(|place| place.parent);
    }
    if let Some(time) = &delta.trashed_at {
        assert_eq!(displayed.trashed_at, time.before);
        displayed.trashed_at = time.after;
    }
    for one in &delta.fields {
        let value = displayed.values.remove(&one.field).unwrap_or(Value::None);
        let value = match (&one.edit, value) {
            (FieldEdit::Set(Difference { before, after }), value) => {
                assert_eq!(*before, value);
                after.clone()
            }
            (FieldEdit::Spliced(splices), Value::Text(text)) => {
                Value::Text(splices.iter().fold(text, |text, splice| spliced(&text, splice)))
            }
            (FieldEdit::Spliced(_), other) => {
                assert_eq!(other, Value::Text(String::new()), "a text is spliced");
                other
            }
        };
        if value != Value::None {
            displayed.values.insert(one.field.clone(), value);
        }
    }
}

/// The text after a splice, which must mean the same in every unit.
fn spliced(text: &str, splice: &TextSplice) -> String {
    let range = splice.range(TextUnit::Utf8);
    assert_eq!(&text[range.clone()], splice.deleted());
    for (unit, len) in [
        (TextUnit::Chars, (|text| text.chars().count()) as fn(&str) -> usize),
        (TextUnit::Utf16, |text| text.encode_utf16().count()),
    ] {
        assert_eq!(splice.range(unit), len(&text[..range.start])..len(&text[..range.end]));
    }
    let mut text = text.to_owned();
    text.replace_range(range, splice.inserted());
    text
}

fn assert_exact(delta: &EntryDelta, before: &View, after: &View) {
    let EntryDelta { entry, appearance, place, trashed_at, fields } = delta;
    let [old, new] = [before, after].map(|view| view.0.get(entry));
    assert!(old.is_some() || new.is_some(), "{entry:?} shows, or did");
    if let Some(Difference { before, after }) = appearance {
        assert_ne!(before, after);
        assert_eq!((before.is_some(), after.is_some()), (old.is_some(), new.is_some()));
        let looks = |one: &Displayed| (one.is_alive, one.kind);
        assert_ne!(old.map(looks), new.map(looks));
    }
    if let Some(Difference { before: Some(from), after: Some(to) }) = place
        && from.parent == to.parent
    {
        let [old, new] = [before, after].map(|view| order_around(view, *entry, from.parent));
        let both: BTreeSet<EntryId> =
            old.keys().filter(|one| new.contains_key(one)).copied().collect();
        assert!(both.iter().any(|one| old[one] != new[one]), "{entry:?} was not reordered");
    }
    assert!(place.is_none_or(|place| place.before.is_some() || place.after.is_some()));
    assert!(trashed_at.is_none_or(|time| time.before != time.after));
    assert!(fields.is_sorted_by(|a, b| a.field < b.field), "each field once");
    for one in fields {
        match &one.edit {
            FieldEdit::Set(value) => assert_ne!(value.before, value.after),
            FieldEdit::Spliced(splices) => {
                assert!(!splices.is_empty());
                assert!(splices.iter().all(|splice| splice.deleted() != splice.inserted()));
            }
        }
    }
    let is_empty = appearance.is_none() && place.is_none() && trashed_at.is_none();
    assert!(!is_empty || !fields.is_empty(), "{entry:?} is the same");
}

/// Of each other child of the container, whether it is before the entry.
fn order_around(view: &View, entry: EntryId, container: EntryId) -> BTreeMap<EntryId, bool> {
    let children = view.children(container);
    let at = children.iter().position(|child| *child == entry).expect("the entry is there");
    children.iter().enumerate().map(|(nth, child)| (*child, nth < at)).collect()
}
