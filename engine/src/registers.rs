//! What one entry is and holds: its lives, its kind, its fields.
//!
//! A field keeps the value with the greatest (life, stamp); the losers leave no trace. Only what
//! belongs to the current life counts, and a purge begins the next one.
//!
//! Invariants, checked by `assert_invariants`:
//! - R1. No life before the current one is kept, neither touched nor in a field.
//! - R2. Lives are in order, each at most once.
//!
//! Not here: where the entry is (`tree`), whether and where it shows (`display`).

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::id::{EntryId, Life, OpId, Stamp};
use crate::op::{IdRange, NewEntry};
use crate::text::{Splice, Text};
use crate::value::{Field, Value};

/// One life in which somebody touched the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TouchedLife {
    life: Life,
    /// The creation that counts: an item before any link, then the newest.
    creation: Option<Creation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Creation {
    kind: NewEntry,
    stamp: Stamp,
}

/// The winning value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Register {
    pub(crate) life: Life,
    pub(crate) stamp: Stamp,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// As it was set.
    Plain(Value),
    /// A text that was spliced since.
    Spliced(Text),
}

impl Register {
    /// The value as it reads now.
    pub(crate) fn value(&self) -> Value {
        match &self.content {
            Content::Plain(value) => value.clone(),
            Content::Spliced(text) => Value::Text(text.visible()),
        }
    }

    /// Whether the field holds nothing.
    pub(crate) const fn is_none(&self) -> bool {
        matches!(self.content, Content::Plain(Value::None))
    }

    /// What replacing a range of UTF-16 units means in characters; `None` if the field holds no
    /// text, `Some(None)` if the range does not fit the text.
    pub(crate) fn resolve(&self, range: &std::ops::Range<usize>) -> Option<Option<Splice>> {
        match &self.content {
            Content::Spliced(text) => Some(text.resolve(range)),
            Content::Plain(Value::Text(text)) => {
                Some(Text::new(self.stamp.op(), text).resolve(range))
            }
            Content::Plain(_) => None,
        }
    }

    fn text_mut(&mut self) -> Option<&mut Text> {
        if let Content::Plain(Value::Text(text)) = &self.content {
            self.content = Content::Spliced(Text::new(self.stamp.op(), text));
        }
        match &mut self.content {
            Content::Spliced(text) => Some(text),
            Content::Plain(_) => None,
        }
    }
}

/// Everything about an entry but its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntryState {
    life: Life,
    touched: SmallVec<[TouchedLife; 1]>,
    fields: BTreeMap<Field, Register>,
}

impl EntryState {
    /// Records that some op touched the entry in `life`.
    pub(crate) fn touch(&mut self, life: Life) {
        if let Some(at) = self.slot(life) {
            self.touched.insert(at, TouchedLife { life, creation: None });
        }
    }

    /// Records a creation.
    pub(crate) fn create(&mut self, life: Life, kind: NewEntry, stamp: Stamp) {
        self.touch(life);
        let Some(touched) = self.touched.iter_mut().find(|touched| touched.life == life) else {
            return;
        };
        let rank = |one: &Creation| (one.kind == NewEntry::Item, one.stamp);
        let creation = Creation { kind, stamp };
        if touched.creation.is_none_or(|known| rank(&known) < rank(&creation)) {
            touched.creation = Some(creation);
        }
    }

    /// Ends `life`, and drops whatever belonged to it or to an earlier one.
    pub(crate) fn purge(&mut self, life: Life) {
        let Some(next) = life.next().filter(|next| *next > self.life) else { return };
        self.life = next;
        self.touched.retain(|touched| touched.life >= next);
        self.fields.retain(|_, register| register.life >= next);
    }

    /// Sets a field, unless a greater (life, stamp) has.
    pub(crate) fn set(&mut self, life: Life, stamp: Stamp, field: &Field, value: Value) {
        let known = self.fields.get(field).map(|register| (register.life, register.stamp));
        if life >= self.life && known.is_none_or(|known| known < (life, stamp)) {
            let register = Register { life, stamp, content: Content::Plain(value) };
            self.fields.insert(field.clone(), register);
        }
    }

    /// The text that the `Set` `set` made in `field`, if that value still stands.
    fn text_of(&mut self, field: &Field, set: OpId) -> Option<&mut Text> {
        let register = self.fields.get_mut(field)?;
        if register.stamp.op() == set { register.text_mut() } else { None }
    }

    /// Inserts characters into the text that `set` made; void if that text is gone.
    pub(crate) fn insert_text(
        &mut self,
        (field, set): (&Field, OpId),
        (origin, text): (Option<OpId>, &str),
        stamp: Stamp,
        stamp_of: impl Fn(OpId) -> Stamp,
    ) {
        if let Some(content) = self.text_of(field, set) {
            content.insert(origin, stamp, text, stamp_of);
        }
    }

    /// Deletes characters from the text that `set` made; void if that text is gone.
    pub(crate) fn delete_text(&mut self, field: &Field, set: OpId, ranges: &[IdRange]) {
        if let Some(content) = self.text_of(field, set) {
            for range in ranges {
                content.delete(*range);
            }
        }
    }

    /// The current life: how often the entry was purged.
    pub(crate) const fn life(&self) -> Life {
        self.life
    }

    /// Whether some op touched the entry in its current life.
    pub(crate) fn is_touched(&self) -> bool {
        self.current().is_some()
    }

    /// What the entry is in its current life; an item if nobody created it in that life.
    pub(crate) fn kind(&self) -> NewEntry {
        let creation = self.current().and_then(|touched| touched.creation);
        creation.map_or(NewEntry::Item, |creation| creation.kind)
    }

    /// The value of a field in the current life.
    pub(crate) fn register(&self, field: &Field) -> Option<&Register> {
        self.fields.get(field).filter(|register| register.life == self.life)
    }

    /// The fields that hold something in the current life, in order.
    pub(crate) fn registers(&self) -> impl Iterator<Item = (&Field, &Register)> {
        self.fields.iter().filter(|(_, register)| register.life == self.life && !register.is_none())
    }

    fn current(&self) -> Option<&TouchedLife> {
        self.touched.iter().find(|touched| touched.life == self.life)
    }

    /// Where `life` is to be inserted, if it is missing and counts.
    fn slot(&self, life: Life) -> Option<usize> {
        let place = self.touched.binary_search_by_key(&life, |touched| touched.life);
        place.err().filter(|_| life >= self.life)
    }

    /// Panics if R1 or R2 does not hold, or an invariant of a text.
    pub(crate) fn assert_invariants(&self, entry: EntryId) {
        assert!(self.touched.iter().all(|touched| touched.life >= self.life), "R1: {entry:?}");
        assert!(self.fields.values().all(|field| field.life >= self.life), "R1: {entry:?}");
        assert!(self.touched.is_sorted_by(|a, b| a.life < b.life), "R2: {entry:?}");
        for register in self.fields.values() {
            if let Content::Spliced(text) = &register.content {
                text.assert_invariants();
            }
        }
    }
}
