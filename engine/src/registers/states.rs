//! The states of all entries, and how ops change them.

use std::ops::Range;

use super::all_lives::AllLives;
use super::fields::{Fields, Setting};
use super::{
    Applying, ContentView, EntryState, FieldIx, FieldNames, Lives, RegisterView, TextPlace, Touch,
    Traces, Undo,
};
use crate::delta::Watch;
use crate::entries::EntryIx;
use crate::id::{Life, OpId, Stamp};
use crate::op::{IdRange, Op};
use crate::text::{Text, TextUndo, TextUnit, Typed};

/// What every entry is and holds.
#[derive(Clone, Debug)]
pub(crate) struct States {
    pub(super) lives: AllLives,
    pub(super) fields: Fields,
    /// The fields that registers are in.
    names: FieldNames,
}

impl States {
    /// Those of no entry.
    pub(crate) fn new() -> Self {
        Self { lives: AllLives::default(), fields: Fields::new(), names: FieldNames::new() }
    }

    /// Adds an entry, of which nothing is known.
    pub(crate) fn push(&mut self) {
        self.fields.grow(EntryIx::new(self.lives.len()));
        self.lives.push();
    }

    /// Makes room for so many more entries at once.
    pub(crate) fn reserve(&mut self, entries: usize) {
        self.lives.reserve(entries);
        self.fields.reserve(entries);
    }

    /// Gives back room that was made for more.
    pub(crate) fn trim(&mut self) {
        self.lives.trim();
        self.fields.trim();
    }

    /// Lets an op that names an entry, and edits no text, take effect, but for its place. Returns
    /// whether the entry's life or kind has changed.
    pub(crate) fn apply(
        &mut self,
        Applying { entry, op, stamp }: Applying<'_>,
        traces: &mut Traces<'_>,
    ) -> bool {
        let Some((_, life)) = op.subject() else { return false };
        let creates = if let Op::Create { kind, .. } = op { Some(*kind) } else { None };
        let is_changed = self.touch(entry, &Touch { life, creates, stamp }, traces);
        if let Op::Set { field, value, .. } = op {
            let content = ContentView::Value(value.view());
            let register = RegisterView { stamp, life, field: self.names.name(field), content };
            self.set(entry, &register, traces);
        }
        is_changed
    }

    /// Notes that an op names the entry. Returns whether the entry's life or kind has changed.
    pub(crate) fn touch(&mut self, entry: EntryIx, touch: &Touch, traces: &mut Traces<'_>) -> bool {
        let is_changed = self.lives.is_changed_by(entry, touch);
        if is_changed {
            let lives = &mut self.lives;
            traces.journal.note(entry, || {
                if lives.is_known(entry) { Undo::Lives(lives.get(entry)) } else { Undo::Unknown }
            });
            if !self.get(entry).is_touched() {
                self.note_all(entry, traces.watch);
            }
            self.lives.change(entry, |lives| lives.touch(touch));
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
        if let Some(content) = self.text_of(place)
            && let Some(undo) = content.insert(origin, stamp, text, clock)
        {
            traces.journal.note(place.entry, || Undo::Text(place.field, undo));
            self.note_insertion(place, text, traces.watch);
        }
    }

    /// Edits the text that a field holds where its last edit was; see [`Text::type_on`].
    #[inline]
    pub(crate) fn type_on<'a>(
        &mut self,
        (entry, field): (EntryIx, FieldIx),
        range: &Range<usize>,
        unit: TextUnit,
        text: &'a str,
        stamp: Stamp,
    ) -> Option<Typed<'a>> {
        let (_, content) = self.fields.text_mut(entry, field, |_| true)?;
        content.type_on(range, unit, text, stamp)
    }

    /// Says that about so many edits of a text follow each other; see [`Text::expect_edits`].
    pub(crate) fn expect_edits(
        &mut self,
        place: &TextPlace,
        edits: usize,
        clock: &impl Fn(OpId) -> Stamp,
    ) {
        if let Some(text) = self.text_of(place) {
            text.expect_edits(edits, clock);
        }
    }

    /// Ends that; see [`Text::settle`].
    pub(crate) fn settle_text(&mut self, place: &TextPlace) {
        if let Some(text) = self.text_of(place) {
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
        let TextPlace { entry, field, .. } = *place;
        let is_watched = self.is_watched(entry, field, traces.watch);
        let Some(content) = self.text_of(place) else { return };
        content.delete(range, is_watched, |gone| {
            traces.journal.note(entry, || Undo::Text(field, gone.undo()));
            if let Some(at) = gone.at.filter(|_| is_watched) {
                traces.watch.note_splice((entry, field), at, gone.text, "");
            }
        });
    }

    /// Ends `life` of an entry, and drops whatever belonged to it or to an earlier one.
    pub(crate) fn purge(&mut self, entry: EntryIx, life: Life, traces: &mut Traces<'_>) {
        if !self.get(entry).is_known() {
            self.lives.change(entry, |lives| *lives = Lives::None(Life::FIRST));
            traces.journal.note(entry, || Undo::Unknown);
        }
        let current = self.get(entry).life();
        let Some(next) = life.next().filter(|next| *next > current) else { return };
        traces.journal.note(entry, || {
            let mut registers = Vec::new();
            self.fields.for_each(entry, |register| registers.push(register.to_register()));
            Undo::Whole(self.lives.get(entry), registers)
        });
        self.note_all(entry, traces.watch);
        self.begin_life(entry, next);
    }

    /// Ends all lives of an entry before this one.
    pub(super) fn begin_life(&mut self, entry: EntryIx, life: Life) {
        if life > self.get(entry).life() {
            self.lives.change(entry, |lives| lives.begin(life));
            self.fields.retain(entry, |register| register.life >= life);
        }
    }

    /// Takes an op's effect back, but for edits of a text.
    pub(crate) fn take_back(&mut self, entry: EntryIx, undo: Undo, watch: &mut Watch) {
        self.note_undo(entry, &undo, watch);
        match undo {
            Undo::Unknown => {
                self.lives.change(entry, |lives| *lives = Lives::Unknown);
                self.fields.clear(entry);
            }
            Undo::Lives(before) => self.lives.change(entry, |lives| *lives = before),
            Undo::Whole(before, registers) => {
                self.lives.change(entry, |lives| *lives = before);
                self.fields.clear(entry);
                for register in registers {
                    self.fields.insert(entry, register);
                }
            }
            Undo::Field(_, Some(register)) => self.fields.insert(entry, register),
            Undo::Field(field, None) => self.fields.remove(entry, field),
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
            watch.note_text(entry, field, || self.get(entry).shown_value(field));
        }
        if let Some((_, text)) = self.fields.text_mut(entry, field, |_| true) {
            text.take_back(edits);
        }
    }

    /// The text in a field in the current life, to be spliced, and the op that set it.
    pub(crate) fn text_mut(&mut self, entry: EntryIx, field: FieldIx) -> Option<(OpId, &mut Text)> {
        let current = self.get(entry).life();
        self.fields.text_mut(entry, field, |(life, _)| life == current)
    }

    /// Sets a field, unless a greater (life, stamp) has.
    fn set(&mut self, entry: EntryIx, register: &RegisterView<'_>, traces: &mut Traces<'_>) {
        let field = register.field;
        if register.life < self.get(entry).life() {
            return;
        }
        let known = || self.fields.rank(entry, field);
        if traces.watch.is_on() && known().is_some_and(|known| known > register.rank()) {
            return;
        }
        traces.watch.note_field(entry, field, || self.get(entry).shown_value(field));
        let is_recording = traces.journal.is_recording();
        if let Setting::Set(before) = self.fields.set(entry, register, is_recording) {
            traces.journal.note(entry, || Undo::Field(field, before));
        }
    }

    /// The text of a place, if it still stands.
    #[inline]
    pub(super) fn text_of(&mut self, place: &TextPlace) -> Option<&mut Text> {
        let TextPlace { entry, field, set } = *place;
        let found = self.fields.text_mut(entry, field, |(_, stamp)| stamp.op() == set);
        found.map(|(_, text)| text)
    }

    /// The state of an entry.
    #[inline]
    pub(crate) const fn get(&self, entry: EntryIx) -> EntryState<'_> {
        EntryState { states: self, entry }
    }

    /// How many entries there are.
    pub(crate) const fn len(&self) -> usize {
        self.lives.len()
    }

    pub(crate) const fn names(&self) -> &FieldNames {
        &self.names
    }

    pub(crate) const fn names_mut(&mut self) -> &mut FieldNames {
        &mut self.names
    }

    /// Panics if R1 or R2 does not hold, or an invariant of a part or of a text.
    pub(crate) fn assert_invariants(&self, clock: &impl Fn(OpId) -> Stamp) {
        let entries = || (0..self.lives.len()).map(EntryIx::new);
        self.lives.assert_invariants();
        self.fields.assert_invariants(entries());
        for entry in entries() {
            self.lives.get(entry).assert_invariants();
            let life = self.get(entry).life();
            self.fields.for_each(entry, |register| {
                assert!(register.life >= life, "R1");
                if let Some(text) = register.spliced() {
                    text.assert_invariants(clock);
                }
            });
        }
    }
}
