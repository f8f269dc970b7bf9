//! The state of one entry, to be read.

use smallvec::SmallVec;

use super::{ContentView, FieldIx, FieldNames, RegisterView, States};
use crate::entries::EntryIx;
use crate::id::Life;
use crate::op::NewEntry;
use crate::value::{BlobRef, Field, Value, ValueView};

/// Everything about an entry but its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryState<'a> {
    pub(super) states: &'a States,
    pub(super) entry: EntryIx,
}

impl<'a> EntryState<'a> {
    /// Whether any op has named the entry as what it is about, or in a purge.
    #[inline]
    pub(crate) fn is_known(self) -> bool {
        self.states.lives.is_known(self.entry)
    }

    /// The current life: how often the entry was purged.
    #[inline]
    pub(crate) fn life(self) -> Life {
        self.states.lives.current(self.entry)
    }

    /// Whether some op touched the entry in its current life.
    #[inline]
    pub(crate) fn is_touched(self) -> bool {
        self.states.lives.is_touched(self.entry)
    }

    /// What the entry is in its current life; an item if nobody created it in that life.
    #[inline]
    pub(crate) fn kind(self) -> NewEntry {
        self.states.lives.kind(self.entry)
    }

    /// The value of a field in the current life.
    #[inline]
    pub(crate) fn register(self, field: FieldIx) -> Option<RegisterView<'a>> {
        let register = self.states.fields.get(self.entry, field);
        register.filter(|register| register.life == self.life())
    }

    /// The blob that a field holds in the current life, if it holds one.
    pub(crate) fn blob(self, field: FieldIx) -> Option<BlobRef> {
        if !self.states.fields.may_have_blob(self.entry) {
            return None;
        }
        match self.register(field)?.content {
            ContentView::Value(ValueView::Blob(blob)) => Some(blob),
            _ => None,
        }
    }

    /// The fields that hold something in the current life, in order.
    pub(crate) fn registers(
        self,
        names: &'a FieldNames,
    ) -> impl Iterator<Item = (&'a Field, RegisterView<'a>)> {
        let mut registers = SmallVec::<[_; 8]>::new();
        self.each_register(|register| {
            if register.life == self.life() && !register.is_none() {
                registers.push((names.field(register.field), register));
            }
        });
        registers.sort_unstable_by_key(|(field, _)| *field);
        registers.into_iter()
    }

    /// Hands over what all fields hold, in lives to come too.
    pub(crate) fn each_register(self, each: impl FnMut(RegisterView<'a>)) {
        self.states.fields.for_each(self.entry, each);
    }

    /// What a field holds, if the entry is alive.
    pub(super) fn shown_value(self, field: FieldIx) -> Value {
        self.shown_register(field).map_or(Value::None, RegisterView::value)
    }

    pub(super) fn shown_register(self, field: FieldIx) -> Option<RegisterView<'a>> {
        let is_alive = self.entry.is_well_known() || self.is_touched();
        self.register(field).filter(|_| is_alive)
    }
}
