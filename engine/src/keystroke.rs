//! Typing and deleting outside of a transaction: the edit that people make most, without the detour
//! over an op for each character.
//!
//! It does what [`Replica::push`] does with an op that nothing can refuse; the state and the log are
//! the same afterwards. Where the last keystroke went is remembered, and the next one is mostly there:
//! then nothing is looked for at all.

use std::ops::Range;

use crate::entries::EntryIx;
use crate::error::EditError;
use crate::id::{EntryId, Life, OpId, Stamp};
use crate::op::{OpList, Target, TextEdit, TextOp};
use crate::registers::{FieldIx, Journal, TextPlace, Traces};
use crate::replica::Replica;
use crate::text::TextUnit;
use crate::transaction::is_in_range;
use crate::value::Field;

/// The longest text that is inserted this way, in bytes: far from the bound of a change.
const TEXT_BYTES_MAX: usize = 1 << 16;

/// No keystroke takes more counters.
const SPAN_MAX: u64 = 1 << 32;

/// Where the last keystroke went, so that the next one need not look for it.
#[derive(Clone, Debug)]
pub(crate) struct Keyboard {
    entry: EntryId,
    life: Life,
    field: Field,
    set: OpId,
    known: EntryIx,
    place: FieldIx,
    /// The counter of the next keystroke. Whatever else happens here either takes it or is built on
    /// by no change of this replica yet; so that while it is the next one, all of the above holds.
    next: u64,
}

impl Replica {
    /// Makes a change of an edit that goes on where the last keystroke was, if it is one. Whether it
    /// was: then all is done.
    #[inline]
    pub(crate) fn type_on(
        &mut self,
        entry: EntryId,
        field: &Field,
        range: &Range<usize>,
        unit: TextUnit,
        text: &str,
    ) -> bool {
        let is_alone = self.open.is_none() && self.skipped == 0 && !self.watch.is_on();
        let Some(keyboard) = self.keyboard.as_mut().filter(|_| is_alone) else { return false };
        if keyboard.entry != entry || keyboard.field != *field || text.len() > TEXT_BYTES_MAX {
            return false;
        }
        let Some(stamp) = self.history.next_stamp(self.id, keyboard.next) else { return false };
        if !is_in_range(stamp.lamport, stamp.counter, SPAN_MAX) {
            return false;
        }
        let place = (keyboard.known, keyboard.place);
        let typed = self.entries.states_mut().type_on(place, range, unit, text, stamp);
        let Some(typed) = typed else { return false };
        keyboard.next += typed.span;
        self.digest.mark(keyboard.known);
        let Keyboard { life, set, .. } = *keyboard;
        let target = Target { entry, life, field: &keyboard.field, set };
        let edit = TextEdit { target, op: typed.op, span: typed.span };
        self.history.type_on(stamp, edit);
        true
    }

    /// Whether a keystroke is a change and nothing but that: no transaction is under way, no ids were
    /// taken back.
    pub(crate) fn is_at_keyboard(&self, keystroke: &TextOp<'_>) -> bool {
        let is_short = match keystroke {
            TextOp::Insert { text, .. } => text.len() <= TEXT_BYTES_MAX,
            TextOp::Delete { .. } => true,
        };
        is_short && self.open.is_none() && self.skipped == 0
    }

    /// Makes a change of a keystroke in the text of a shown entry.
    pub(crate) fn press(&mut self, known: EntryIx, edit: TextEdit<'_>) -> Result<(), EditError> {
        let (id, lamport) = (self.next_id(), self.history.next_lamport());
        if !is_in_range(lamport, id.counter, edit.span) {
            return Err(EditError::OutOfIds);
        }
        let stamp = Stamp { lamport, replica: id.replica, counter: id.counter };
        let place = self.press_in_text(known, &edit, stamp);
        self.digest.mark(known);
        let Target { entry, life, field, set } = edit.target;
        self.keyboard = place.map(|place| {
            let next = id.counter + edit.span;
            Keyboard { entry, life, field: field.clone(), set, known, place, next }
        });
        if self.history.is_led_by(self.id) {
            self.history.append_edit(stamp, edit);
        } else {
            let ops = OpList::of_edit(&edit);
            let deps = self.named_deps_of(&ops);
            self.history.append_own(id, edit.span, &deps);
            self.history.push_ops(self.id, ops);
            self.history.seal_if_long(self.id);
        }
        Ok(())
    }

    fn press_in_text(
        &mut self,
        known: EntryIx,
        edit: &TextEdit<'_>,
        stamp: Stamp,
    ) -> Option<FieldIx> {
        let field = self.entries.names().find(edit.target.field)?;
        let states = self.entries.states_mut();
        let place = TextPlace { entry: known, field, set: edit.target.set };
        let mut journal = Journal::default();
        let traces = &mut Traces { journal: &mut journal, watch: &mut self.watch };
        match edit.op {
            TextOp::Insert { origin, text } => {
                // Whatever is here is older.
                let older =
                    |id: OpId| Stamp { lamport: 0, replica: id.replica, counter: id.counter };
                states.insert_text(&place, (origin, text), stamp, &older, traces);
            }
            TextOp::Delete { range, .. } => states.delete_text(&place, range, traces),
        }
        Some(field)
    }
}
