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
use std::ops::Range;

use smallvec::SmallVec;

use crate::id::{EntryId, Life, OpId, Stamp};
use crate::op::{NewEntry, Op};
use crate::text::{Splice, Text, TextContent, TextForm, TextUndo, TextUnit};
use crate::value::{Field, Value};

/// One life in which somebody touched the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TouchedLife {
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
#[derive(Clone, Debug)]
pub(crate) struct Register {
    pub(crate) life: Life,
    pub(crate) stamp: Stamp,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    /// As it was set.
    Plain(Value),
    /// A text that was spliced since.
    Spliced(Box<Text>),
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

    /// The text that the field holds, if it holds one.
    pub(crate) fn text(&self) -> Option<TextContent<'_>> {
        let form = match &self.content {
            Content::Spliced(text) => TextForm::Spliced(text),
            Content::Plain(Value::Text(text)) => TextForm::Plain(text),
            Content::Plain(_) => return None,
        };
        Some(TextContent { set: self.stamp.op(), form })
    }

    /// What replacing a range of positions means in characters; `None` if the field holds no text,
    /// `Some(None)` if the range does not fit the text. `inserts`: something goes into its place. A
    /// text that is asked for the first time is taken apart.
    #[inline]
    pub(crate) fn resolve(
        &mut self,
        range: &Range<usize>,
        unit: TextUnit,
        inserts: bool,
    ) -> Option<Option<Splice>> {
        Some(self.text_mut()?.resolve(range, unit, inserts))
    }

    #[inline]
    fn text_mut(&mut self) -> Option<&mut Text> {
        if let Content::Plain(Value::Text(text)) = &self.content {
            self.content = Content::Spliced(Box::new(Text::new(self.stamp.op(), text)));
        }
        match &mut self.content {
            Content::Spliced(text) => Some(text),
            Content::Plain(_) => None,
        }
    }
}

/// How to take back what an op did to an entry.
#[derive(Clone, Debug)]
pub(crate) enum Undo {
    /// The entry had never been named.
    Unknown,
    /// Which lives had been touched.
    Touched(TouchedLives),
    /// Everything, before a purge.
    Whole(Box<EntryState>),
    /// The winning value of a field.
    Field(Field, Option<Box<Register>>),
    /// An edit of the text in a field.
    Text(Field, TextUndo),
}

/// Where undo records of a transaction go; nowhere for changes from elsewhere, which stay.
#[derive(Debug, Default)]
pub(crate) struct Journal(Option<Vec<(EntryId, Undo)>>);

impl Journal {
    /// A journal that keeps what it is told.
    pub(crate) const fn recording() -> Self {
        Self(Some(Vec::new()))
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, Vec::len)
    }

    /// Takes out the records from number `from` on, oldest first.
    pub(crate) fn split_off(&mut self, from: usize) -> Vec<(EntryId, Undo)> {
        self.0.as_mut().map(|records| records.split_off(from)).unwrap_or_default()
    }

    pub(crate) fn note(&mut self, entry: EntryId, undo: impl FnOnce() -> Undo) {
        if let Some(records) = &mut self.0 {
            records.push((entry, undo()));
        }
    }
}

type TouchedLives = SmallVec<[TouchedLife; 1]>;

/// Everything about an entry but its place.
#[derive(Clone, Debug, Default)]
pub(crate) struct EntryState {
    life: Life,
    touched: TouchedLives,
    fields: BTreeMap<Field, Register>,
}

impl EntryState {
    /// Lets an op that names the entry take effect, but for its place. Returns whether the entry's
    /// life or kind may have changed.
    pub(crate) fn apply(
        &mut self,
        entry: EntryId,
        op: &Op,
        stamp: Stamp,
        clock: &impl Fn(OpId) -> Stamp,
        journal: &mut Journal,
    ) -> bool {
        let Some((_, life)) = op.subject() else { return false };
        let is_changed = match op {
            Op::Create { kind, .. } => {
                self.create(entry, (life, *kind), stamp, journal);
                true
            }
            _ => self.touch(entry, life, journal),
        };
        match op {
            Op::Set { field, value, .. } => {
                self.set(entry, life, stamp, (field, value), journal);
            }
            Op::Insert { field, set, origin, text, .. } => {
                if let Some(content) = self.text_of(field, *set)
                    && let Some(undo) = content.insert(*origin, stamp, text, clock)
                {
                    journal.note(entry, || Undo::Text(field.clone(), undo));
                }
            }
            Op::Delete { field, set, range, .. } => {
                if let Some(content) = self.text_of(field, *set) {
                    content.delete(*range, |undo| {
                        journal.note(entry, || Undo::Text(field.clone(), undo()));
                    });
                }
            }
            _ => {}
        }
        is_changed
    }

    /// Ends `life`, and drops whatever belonged to it or to an earlier one.
    pub(crate) fn purge(&mut self, entry: EntryId, life: Life, journal: &mut Journal) {
        let Some(next) = life.next().filter(|next| *next > self.life) else { return };
        journal.note(entry, || Undo::Whole(Box::new(self.clone())));
        self.life = next;
        self.touched.retain(|touched| touched.life >= next);
        self.fields.retain(|_, register| register.life >= next);
    }

    /// Takes an op's effect back, but for those that the caller does: making the entry known, and
    /// editing a text.
    pub(crate) fn take_back(&mut self, undo: Undo) {
        match undo {
            Undo::Touched(touched) => self.touched = touched,
            Undo::Whole(state) => *self = *state,
            Undo::Field(field, Some(register)) => {
                self.fields.insert(field, *register);
            }
            Undo::Field(field, None) => {
                self.fields.remove(&field);
            }
            Undo::Unknown | Undo::Text(..) => {}
        }
    }

    /// Takes edits of a text back, the newest of which comes first.
    pub(crate) fn take_back_text(&mut self, field: &Field, edits: &[TextUndo]) {
        if let Some(text) = self.fields.get_mut(field).and_then(Register::text_mut) {
            text.take_back(edits);
        }
    }

    /// Records that some op touched the entry in `life`; returns whether that is new.
    fn touch(&mut self, entry: EntryId, life: Life, journal: &mut Journal) -> bool {
        let Some(at) = self.slot(life) else { return false };
        journal.note(entry, || Undo::Touched(self.touched.clone()));
        self.touched.insert(at, TouchedLife { life, creation: None });
        true
    }

    fn create(
        &mut self,
        entry: EntryId,
        (life, kind): (Life, NewEntry),
        stamp: Stamp,
        journal: &mut Journal,
    ) {
        journal.note(entry, || Undo::Touched(self.touched.clone()));
        self.touch(entry, life, &mut Journal::default());
        let Some(touched) = self.touched.iter_mut().find(|touched| touched.life == life) else {
            return;
        };
        let rank = |one: &Creation| (one.kind == NewEntry::Item, one.stamp);
        let creation = Creation { kind, stamp };
        if touched.creation.is_none_or(|known| rank(&known) < rank(&creation)) {
            touched.creation = Some(creation);
        }
    }

    /// Sets a field, unless a greater (life, stamp) has.
    fn set(
        &mut self,
        entry: EntryId,
        life: Life,
        stamp: Stamp,
        (field, value): (&Field, &Value),
        journal: &mut Journal,
    ) {
        let known = self.fields.get(field).map(|register| (register.life, register.stamp));
        if life >= self.life && known.is_none_or(|known| known < (life, stamp)) {
            let register = Register { life, stamp, content: Content::Plain(value.clone()) };
            let before = self.fields.insert(field.clone(), register);
            journal.note(entry, || Undo::Field(field.clone(), before.map(Box::new)));
        }
    }

    /// The text that the `Set` `set` made in `field`, if that value still stands.
    fn text_of(&mut self, field: &Field, set: OpId) -> Option<&mut Text> {
        let register = self.fields.get_mut(field)?;
        if register.stamp.op() == set { register.text_mut() } else { None }
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

    /// The same, to be taken apart.
    pub(crate) fn register_mut(&mut self, field: &Field) -> Option<&mut Register> {
        let life = self.life;
        self.fields.get_mut(field).filter(|register| register.life == life)
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
    pub(crate) fn assert_invariants(&self, entry: EntryId, clock: &impl Fn(OpId) -> Stamp) {
        assert!(self.touched.iter().all(|touched| touched.life >= self.life), "R1: {entry:?}");
        assert!(self.fields.values().all(|field| field.life >= self.life), "R1: {entry:?}");
        assert!(self.touched.is_sorted_by(|a, b| a.life < b.life), "R2: {entry:?}");
        for register in self.fields.values() {
            if let Content::Spliced(text) = &register.content {
                text.assert_invariants(clock);
            }
        }
    }
}
