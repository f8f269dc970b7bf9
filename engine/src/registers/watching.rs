//! What is noted of fields before they come to hold something else.

use super::{EntryState, FieldIx, RegisterView, Undo};
use crate::delta::Watch;
use crate::entries::EntryIx;
use crate::value::Value;

impl EntryState {
    /// Notes what all fields hold, since the life of the entry is about to change.
    pub(super) fn note_all(&self, entry: EntryIx, watch: &mut Watch) {
        if watch.notes_fields() {
            self.fields.for_each(|register| {
                let field = register.field;
                watch.note_field(entry, field, || self.shown_value(entry, field));
            });
        }
    }

    /// Notes what fields hold that are about to hold again what they held.
    pub(super) fn note_undo(&self, entry: EntryIx, undo: &Undo, watch: &mut Watch) {
        match undo {
            Undo::Field(field, _) => {
                watch.note_field(entry, *field, || self.shown_value(entry, *field));
            }
            Undo::Lives(lives) if lives.is_touched() == self.is_touched() => {}
            Undo::Whole(state) => {
                self.note_all(entry, watch);
                state.fields.for_each(|register| {
                    let field = register.field;
                    watch.note_field(entry, field, || self.shown_value(entry, field));
                });
            }
            _ => self.note_all(entry, watch),
        }
    }

    /// Notes that a text was put into the one that a field holds, where its last edit was.
    #[inline]
    pub(super) fn note_insertion(
        &mut self,
        (entry, field): (EntryIx, FieldIx),
        inserted: &str,
        watch: &mut Watch,
    ) {
        if self.is_watched(entry, field, watch)
            && let Some(text) = self.fields.text_mut(field)
        {
            watch.note_splice((entry, field), text.place_of_insertion(inserted), "", inserted);
        }
    }

    /// Whether edits of the text in a field are to be noted: somebody wants to know, and it shows.
    #[inline]
    pub(super) fn is_watched(&self, entry: EntryIx, field: FieldIx, watch: &Watch) -> bool {
        watch.is_on() && self.shown_register(entry, field).is_some()
    }

    /// What a field holds, if the entry is alive.
    pub(super) fn shown_value(&self, entry: EntryIx, field: FieldIx) -> Value {
        self.shown_register(entry, field).map_or(Value::None, RegisterView::value)
    }

    fn shown_register(&self, entry: EntryIx, field: FieldIx) -> Option<RegisterView<'_>> {
        let is_alive = entry.is_well_known() || self.is_touched();
        self.register(field).filter(|_| is_alive)
    }
}
