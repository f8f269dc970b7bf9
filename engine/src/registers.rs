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

mod fields;
mod joining;
mod journal;
mod lives;
mod packed;
mod watching;

use std::ops::Range;

use smallvec::SmallVec;

use crate::delta::Watch;
use crate::entries::EntryIx;
use crate::id::{Life, OpId, Stamp};
use crate::op::{IdRange, NewEntry, Op};
use crate::text::{Fate, Piece, Text, TextContent, TextForm, TextUndo, TextUnit, Typed};
use crate::value::{BlobRef, Field, Value, ValueView};
use crate::value_ref::ValueRef;
use fields::Fields;
pub(crate) use fields::{FieldIx, FieldNames};
pub(crate) use journal::{Journal, TakeBack, Undo, in_groups};
use lives::Lives;
pub(crate) use lives::Touch;

/// The winning value of a field.
#[derive(Clone, Debug)]
pub(crate) struct Register {
    pub(crate) stamp: Stamp,
    content: Content,
    pub(crate) life: Life,
    pub(crate) field: FieldIx,
}

/// What a register holds. What is set often takes little room.
#[derive(Clone, Debug)]
enum Content {
    Nothing,
    Int(i64),
    /// A text as it was set.
    Plain(Box<str>),
    /// A text that was spliced since.
    Spliced(Box<Text>),
    /// Any other value, as it was set.
    Other(Box<Value>),
}

impl Content {
    fn of(value: ValueView<'_>) -> Self {
        match value {
            ValueView::None => Self::Nothing,
            ValueView::Int(number) => Self::Int(number),
            ValueView::Text(text) => Self::Plain(text.into()),
            other => Self::Other(Box::new(other.to_value())),
        }
    }

    fn view(&self) -> ContentView<'_> {
        ContentView::Value(match self {
            Self::Nothing => ValueView::None,
            Self::Int(number) => ValueView::Int(*number),
            Self::Plain(text) => ValueView::Text(text),
            Self::Spliced(text) => return ContentView::Spliced(text),
            Self::Other(value) => value.view(),
        })
    }
}

/// A register to look at, however it is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegisterView<'a> {
    pub(crate) stamp: Stamp,
    pub(crate) life: Life,
    pub(crate) field: FieldIx,
    content: ContentView<'a>,
}

#[derive(Clone, Copy, Debug)]
enum ContentView<'a> {
    /// A value as it was set.
    Value(ValueView<'a>),
    Spliced(&'a Text),
}

impl<'a> RegisterView<'a> {
    /// A copy to keep.
    pub(crate) fn to_register(self) -> Register {
        let Self { stamp, life, field, .. } = self;
        let content = match self.content {
            ContentView::Value(value) => Content::of(value),
            ContentView::Spliced(text) => Content::Spliced(Box::new(text.clone())),
        };
        Register { stamp, content, life, field }
    }

    /// The value as it reads now.
    pub(crate) fn value(self) -> Value {
        match self.content {
            ContentView::Value(value) => value.to_value(),
            ContentView::Spliced(text) => Value::Text(text.visible()),
        }
    }

    /// The same, borrowed.
    pub(crate) fn value_ref(self) -> ValueRef<'a> {
        match (self.content, self.text()) {
            (_, Some(text)) => ValueRef::Text(text.chunks()),
            (ContentView::Value(value), None) => ValueRef::of_other(value),
            (ContentView::Spliced(_), None) => ValueRef::None,
        }
    }

    /// How many bytes the value has, about.
    pub(crate) fn size(&self) -> usize {
        match self.content {
            ContentView::Value(value) => value.size(),
            ContentView::Spliced(text) => text.shown().bytes,
        }
    }

    /// Whether the value takes no memory of its own.
    const fn is_scalar(&self) -> bool {
        matches!(self.content, ContentView::Value(ValueView::None | ValueView::Int(_)))
    }

    /// Whether the field holds nothing.
    pub(crate) const fn is_none(&self) -> bool {
        matches!(self.content, ContentView::Value(ValueView::None))
    }

    /// The text that the field holds, if it holds one.
    pub(crate) fn text(self) -> Option<TextContent<'a>> {
        let form = match self.content {
            ContentView::Spliced(text) => TextForm::Spliced(text),
            ContentView::Value(ValueView::Text(text)) => TextForm::Plain(text),
            ContentView::Value(_) => return None,
        };
        Some(TextContent { set: self.stamp.op(), form })
    }

    /// Hands over the characters of the text that the field holds, in order.
    pub(crate) fn for_each_piece(self, mut each: impl FnMut(Piece<'a>)) {
        match self.content {
            ContentView::Value(ValueView::Text(text)) => {
                each(Piece { first: self.stamp.op(), fate: Fate::Visible(text) });
            }
            ContentView::Spliced(text) => text.pieces().for_each(each),
            ContentView::Value(_) => {}
        }
    }

    /// The text that the field holds, if it was spliced.
    pub(crate) const fn spliced(&self) -> Option<&'a Text> {
        match self.content {
            ContentView::Spliced(text) => Some(text),
            ContentView::Value(_) => None,
        }
    }
}

impl Register {
    pub(crate) fn view(&self) -> RegisterView<'_> {
        let Self { stamp, life, field, .. } = *self;
        RegisterView { stamp, life, field, content: self.content.view() }
    }

    /// The text that the field holds, if it holds one. It is taken apart.
    #[inline]
    fn text_mut(&mut self) -> Option<&mut Text> {
        if let Content::Plain(text) = &self.content {
            self.content = Content::Spliced(Box::new(Text::new(self.stamp.op(), text)));
        }
        match &mut self.content {
            Content::Spliced(text) => Some(text),
            _ => None,
        }
    }
}

/// Everything about an entry but its place.
#[derive(Clone, Debug, Default)]
pub(crate) struct EntryState {
    fields: Fields,
    lives: Lives,
}

// There is one for each entry, and one for each field that holds something.
const _: () = assert!(size_of::<EntryState>() <= 32 && size_of::<Register>() <= 56);

/// The text in a field that a `Set` made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextPlace {
    pub(crate) entry: EntryIx,
    pub(crate) field: FieldIx,
    pub(crate) set: OpId,
}

/// An op on its way into an entry's state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applying<'a> {
    pub(crate) entry: EntryIx,
    pub(crate) op: &'a Op,
    pub(crate) stamp: Stamp,
}

/// Where an op leaves traces besides the state that it changes.
#[derive(Debug)]
pub(crate) struct Traces<'a> {
    pub(crate) journal: &'a mut Journal,
    pub(crate) watch: &'a mut Watch,
}

impl EntryState {
    /// Lets an op that names the entry, and edits no text, take effect, but for its place. Returns
    /// whether the entry's life or kind has changed.
    pub(crate) fn apply(
        &mut self,
        Applying { entry, op, stamp }: Applying<'_>,
        names: &mut FieldNames,
        traces: &mut Traces<'_>,
    ) -> bool {
        let Some((_, life)) = op.subject() else { return false };
        let creates = if let Op::Create { kind, .. } = op { Some(*kind) } else { None };
        let is_changed = self.touch(entry, &Touch { life, creates, stamp }, traces);
        if let Op::Set { field, value, .. } = op {
            let content = ContentView::Value(value.view());
            let register = RegisterView { stamp, life, field: names.name(field), content };
            self.set(entry, &register, traces);
        }
        is_changed
    }

    /// Notes that an op names the entry. Returns whether the entry's life or kind has changed.
    pub(crate) fn touch(&mut self, entry: EntryIx, touch: &Touch, traces: &mut Traces<'_>) -> bool {
        let is_new = self.become_known(entry, traces.journal);
        let is_changed = self.lives.is_changed_by(touch);
        if is_changed {
            if !is_new {
                traces.journal.note(entry, || Undo::Lives(self.lives.clone()));
            }
            if !self.is_touched() {
                self.note_all(entry, traces.watch);
            }
            self.lives.touch(touch);
        }
        is_changed
    }

    /// Puts characters after an origin into a text, if that still stands.
    #[inline]
    pub(crate) fn insert_text(
        &mut self,
        place: &TextPlace,
        (origin, text): (Option<OpId>, &str),
        stamp: Stamp,
        clock: &impl Fn(OpId) -> Stamp,
        traces: &mut Traces<'_>,
    ) {
        let TextPlace { entry, field, set } = *place;
        if let Some(content) = self.text_of(field, set)
            && let Some(undo) = content.insert(origin, stamp, text, clock)
        {
            traces.journal.note(entry, || Undo::Text(field, undo));
            self.note_insertion((entry, field), text, traces.watch);
        }
    }

    /// Edits the text that a field holds where its last edit was; see [`Text::type_on`].
    #[inline]
    pub(crate) fn type_on<'a>(
        &mut self,
        field: FieldIx,
        range: &Range<usize>,
        unit: TextUnit,
        text: &'a str,
        stamp: Stamp,
    ) -> Option<Typed<'a>> {
        self.fields.text_mut(field)?.type_on(range, unit, text, stamp)
    }

    /// Says that about so many edits of a text follow each other; see [`Text::expect_edits`].
    pub(crate) fn expect_edits(
        &mut self,
        place: &TextPlace,
        edits: usize,
        clock: &impl Fn(OpId) -> Stamp,
    ) {
        if let Some(text) = self.text_of(place.field, place.set) {
            text.expect_edits(edits, clock);
        }
    }

    /// Ends that; see [`Text::settle`].
    pub(crate) fn settle_text(&mut self, place: &TextPlace) {
        if let Some(text) = self.text_of(place.field, place.set) {
            text.settle();
        }
    }

    /// Removes characters from a text, if that still stands.
    #[inline]
    pub(crate) fn delete_text(
        &mut self,
        place: &TextPlace,
        range: IdRange,
        traces: &mut Traces<'_>,
    ) {
        let TextPlace { entry, field, set } = *place;
        let is_watched = self.is_watched(entry, field, traces.watch);
        let Some(content) = self.text_of(field, set) else { return };
        content.delete(range, is_watched, |gone| {
            traces.journal.note(entry, || Undo::Text(field, gone.undo()));
            if let Some(at) = gone.at.filter(|_| is_watched) {
                traces.watch.note_splice((entry, field), at, gone.text, "");
            }
        });
    }

    /// Ends `life`, and drops whatever belonged to it or to an earlier one.
    pub(crate) fn purge(&mut self, entry: EntryIx, life: Life, traces: &mut Traces<'_>) {
        self.become_known(entry, traces.journal);
        let Some(next) = life.next().filter(|next| *next > self.life()) else { return };
        traces.journal.note(entry, || Undo::Whole(Box::new(self.clone())));
        self.note_all(entry, traces.watch);
        self.begin_life(next);
    }

    /// Takes an op's effect back, but for edits of a text.
    pub(crate) fn take_back(&mut self, entry: EntryIx, undo: Undo, watch: &mut Watch) {
        self.note_undo(entry, &undo, watch);
        match undo {
            Undo::Unknown => *self = Self::default(),
            Undo::Lives(lives) => self.lives = lives,
            Undo::Whole(state) => *self = *state,
            Undo::Field(_, Some(register)) => self.fields.insert(register),
            Undo::Field(field, None) => self.fields.remove(field),
            Undo::Text(..) => {}
        }
    }

    /// Takes edits of a text back, the newest of which comes first.
    pub(crate) fn take_back_text(
        &mut self,
        (entry, field): (EntryIx, FieldIx),
        edits: &[TextUndo],
        watch: &mut Watch,
    ) {
        if self.is_watched(entry, field, watch) {
            watch.note_text(entry, field, || self.shown_value(entry, field));
        }
        if let Some(text) = self.fields.text_mut(field) {
            text.take_back(edits);
        }
    }

    /// Notes that an op has named the entry, and returns whether that is new.
    fn become_known(&mut self, entry: EntryIx, journal: &mut Journal) -> bool {
        let is_new = self.lives.become_known();
        if is_new {
            journal.note(entry, || Undo::Unknown);
        }
        is_new
    }

    /// Sets a field, unless a greater (life, stamp) has.
    fn set(&mut self, entry: EntryIx, register: &RegisterView<'_>, traces: &mut Traces<'_>) {
        let (field, rank) = (register.field, (register.life, register.stamp));
        if register.life < self.life() || self.fields.rank(field).is_some_and(|known| known > rank)
        {
            return;
        }
        traces.watch.note_field(entry, field, || self.shown_value(entry, field));
        if traces.journal.is_recording() {
            let before = self.fields.replace(register);
            traces.journal.note(entry, || Undo::Field(field, before));
        } else {
            self.fields.set(register);
        }
    }

    /// The text that the `Set` `set` made in `field`, if that value still stands.
    fn text_of(&mut self, field: FieldIx, set: OpId) -> Option<&mut Text> {
        self.fields.rank(field).filter(|(_, stamp)| stamp.op() == set)?;
        self.fields.text_mut(field)
    }

    /// Whether any op has named the entry as what it is about, or in a purge.
    pub(crate) const fn is_known(&self) -> bool {
        self.lives.is_known()
    }

    /// The current life: how often the entry was purged.
    pub(crate) const fn life(&self) -> Life {
        self.lives.current()
    }

    /// Whether some op touched the entry in its current life.
    pub(crate) fn is_touched(&self) -> bool {
        self.lives.is_touched()
    }

    /// What the entry is in its current life; an item if nobody created it in that life.
    pub(crate) fn kind(&self) -> NewEntry {
        self.lives.kind()
    }

    /// The value of a field in the current life.
    pub(crate) fn register(&self, field: FieldIx) -> Option<RegisterView<'_>> {
        self.fields.get(field).filter(|register| register.life == self.life())
    }

    /// The blob that a field holds in the current life, if it holds one.
    pub(crate) fn blob(&self, field: FieldIx) -> Option<BlobRef> {
        let register = self.fields.get_other(field).filter(|one| one.life == self.life())?;
        match register.content {
            ContentView::Value(ValueView::Blob(blob)) => Some(blob),
            _ => None,
        }
    }

    /// The text in a field in the current life, to be spliced, and the op that set it.
    pub(crate) fn text_mut(&mut self, field: FieldIx) -> Option<(OpId, &mut Text)> {
        let set = self.register(field)?.stamp.op();
        Some((set, self.fields.text_mut(field)?))
    }

    /// The fields that hold something in the current life, in order.
    pub(crate) fn registers<'a>(
        &'a self,
        names: &'a FieldNames,
    ) -> impl Iterator<Item = (&'a Field, RegisterView<'a>)> {
        let mut registers = SmallVec::<[_; 8]>::new();
        self.fields.for_each(|register| {
            if register.life == self.life() && !register.is_none() {
                registers.push((names.field(register.field), register));
            }
        });
        registers.sort_unstable_by_key(|(field, _)| *field);
        registers.into_iter()
    }

    /// Hands over what all fields hold, in lives to come too.
    pub(crate) fn each_register<'a>(&'a self, each: impl FnMut(RegisterView<'a>)) {
        self.fields.for_each(each);
    }

    /// Panics if R1 or R2 does not hold, or an invariant of a text.
    pub(crate) fn assert_invariants(&self, clock: &impl Fn(OpId) -> Stamp) {
        self.lives.assert_invariants();
        self.fields.for_each(|register| {
            assert!(register.life >= self.life(), "R1");
            if let Some(text) = register.spliced() {
                text.assert_invariants(clock);
            }
        });
    }
}
