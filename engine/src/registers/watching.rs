//! What is noted of fields before they come to hold something else.

use super::{FieldIx, States, TextPlace, Undo};
use crate::delta::Watch;
use crate::entries::EntryIx;

impl States {
    /// Notes what all fields of an entry hold, since its life is about to change.
    pub(super) fn note_all(&self, entry: EntryIx, watch: &mut Watch) {
        if watch.notes_fields() {
            self.get(entry).each_register(|register| self.note(entry, register.field, watch));
        }
    }

    /// Notes what fields hold that are about to hold again what they held.
    pub(super) fn note_undo(&self, entry: EntryIx, undo: &Undo, watch: &mut Watch) {
        match undo {
            Undo::Field(field, _) => self.note(entry, *field, watch),
            Undo::Lives(lives) if lives.is_touched() == self.get(entry).is_touched() => {}
            Undo::Whole(_, registers) => {
                self.note_all(entry, watch);
                if watch.notes_fields() {
                    registers.iter().for_each(|register| self.note(entry, register.field, watch));
                }
            }
            _ => self.note_all(entry, watch),
        }
    }

    fn note(&self, entry: EntryIx, field: FieldIx, watch: &mut Watch) {
        watch.note_field(entry, field, || self.get(entry).shown_value(field));
    }

    /// Notes that a text was put into the one that a field holds, where its last edit was.
    #[inline]
    pub(super) fn note_insertion(&mut self, place: &TextPlace, inserted: &str, watch: &mut Watch) {
        let TextPlace { entry, field, .. } = *place;
        if self.is_watched(entry, field, watch)
            && let Some(text) = self.text_of(place)
        {
            watch.note_splice((entry, field), text.place_of_insertion(inserted), "", inserted);
        }
    }

    /// Whether edits of the text in a field are to be noted: somebody wants to know, and it shows.
    #[inline]
    pub(super) fn is_watched(&self, entry: EntryIx, field: FieldIx, watch: &Watch) -> bool {
        watch.is_on() && self.get(entry).shown_register(field).is_some()
    }
}
