//! Typing and deleting outside of a transaction: the edit that people make most, without the detour
//! over an op for each character.
//!
//! It does what [`Replica::push`] does with an op that nothing can refuse; the state and the log are
//! the same afterwards.

use crate::batch::Deps;
use crate::entries::EntryIx;
use crate::error::EditError;
use crate::id::{EntryId, Life, OpId, Stamp};
use crate::limits::COUNTER_MAX;
use crate::op::{IdRange, Op};
use crate::registers::{Journal, TextPlace, Traces};
use crate::replica::{Replica, clock};
use crate::text::Splice;
use crate::value::{Field, char_count};

/// The text that is edited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) entry: EntryId,
    pub(crate) life: Life,
    pub(crate) field: &'a Field,
    pub(crate) set: OpId,
}

/// What a keystroke does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keystroke<'a> {
    Insert { origin: Option<OpId>, text: &'a str },
    Delete { range: IdRange },
}

impl<'a> Keystroke<'a> {
    /// The keystroke that a splice is, if it is one: something inserted or something deleted.
    pub(crate) fn of(splice: &Splice, text: &'a str) -> Option<Self> {
        match (splice.deleted.as_slice(), text) {
            ([range], "") => Some(Self::Delete { range: *range }),
            ([], text) if !text.is_empty() => Some(Self::Insert { origin: splice.origin, text }),
            _ => None,
        }
    }

    /// How many counters it takes.
    fn span(&self) -> u64 {
        match self {
            Self::Insert { text, .. } => char_count(text),
            Self::Delete { range } => range.len,
        }
    }

    /// The same as an op.
    pub(crate) fn to_op(self, target: &Target<'_>) -> Op {
        let Target { entry, life, set, .. } = *target;
        let field = target.field.clone();
        match self {
            Self::Insert { origin, text } => {
                Op::Insert { entry, life, field, set, origin, text: text.to_owned() }
            }
            Self::Delete { range } => {
                Op::Delete { entry, life, field, set, range, backwards: false }
            }
        }
    }
}

/// The longest text that is inserted this way, in bytes: far from the bound of a change.
const TEXT_BYTES_MAX: usize = 1 << 16;

impl Replica {
    /// Whether a keystroke needs nothing but itself: no transaction is under way, no ids were taken
    /// back, nothing has come from others since the last own change.
    pub(crate) fn is_at_keyboard(&self, keystroke: &Keystroke<'_>) -> bool {
        let is_short = match keystroke {
            Keystroke::Insert { text, .. } => text.len() <= TEXT_BYTES_MAX,
            Keystroke::Delete { .. } => true,
        };
        is_short && self.open.is_none() && self.skipped == 0 && self.history.is_led_by(self.id)
    }

    /// Makes a change of a keystroke in the text of a shown entry.
    pub(crate) fn press(
        &mut self,
        known: EntryIx,
        target: &Target<'_>,
        keystroke: &Keystroke<'_>,
    ) -> Result<(), EditError> {
        let (id, span) = (self.next_id(), keystroke.span());
        if id.counter + span > COUNTER_MAX + 1 {
            return Err(EditError::OutOfIds);
        }
        let lamport = self.history.next_lamport();
        let stamp = Stamp { lamport, replica: id.replica, counter: id.counter };
        self.press_in_text(known, target, keystroke, stamp);
        self.digest.mark(known);
        self.history.append_own(id, span, &Deps::new());
        self.history.push_keystroke(id, target, keystroke);
        Ok(())
    }

    fn press_in_text(
        &mut self,
        known: EntryIx,
        target: &Target<'_>,
        keystroke: &Keystroke<'_>,
        stamp: Stamp,
    ) {
        let (state, names) = self.entries.state_mut(known);
        let Some(field) = names.find(target.field) else { return };
        let place = TextPlace { entry: known, field, set: target.set };
        let mut journal = Journal::default();
        let traces = &mut Traces { journal: &mut journal, watch: &mut self.watch };
        match keystroke {
            Keystroke::Insert { origin, text } => {
                let clock = clock(&self.history, stamp);
                state.insert_text(&place, (*origin, text), stamp, &clock, traces);
            }
            Keystroke::Delete { range } => state.delete_text(&place, *range, traces),
        }
    }
}
