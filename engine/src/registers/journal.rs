//! How to take back what the ops of a transaction did to entries.

use crate::entries::EntryIx;
use crate::registers::{EntryState, FieldIx, Lives, Register};
use crate::text::TextUndo;

/// How to take back what an op did to an entry.
#[derive(Clone, Debug)]
pub(crate) enum Undo {
    /// No op had named the entry, and nothing was known of it.
    Unknown,
    /// Which lives had been touched.
    Lives(Lives),
    /// Everything, before a purge.
    Whole(Box<EntryState>),
    /// The winning value of a field.
    Field(FieldIx, Option<Register>),
    /// An edit of the text in a field.
    Text(FieldIx, TextUndo),
}

/// Where undo records of a transaction go; nowhere for changes from elsewhere, which stay.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Option<Vec<(EntryIx, Undo)>>);

impl Journal {
    /// A journal that keeps what it is told.
    pub(crate) const fn recording() -> Self {
        Self(Some(Vec::new()))
    }

    /// Whether it keeps what it is told.
    pub(crate) const fn is_recording(&self) -> bool {
        self.0.is_some()
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, Vec::len)
    }

    /// Takes out the records from number `from` on, oldest first.
    pub(crate) fn split_off(&mut self, from: usize) -> Vec<(EntryIx, Undo)> {
        self.0.as_mut().map(|records| records.split_off(from)).unwrap_or_default()
    }

    pub(crate) fn note(&mut self, entry: EntryIx, undo: impl FnOnce() -> Undo) {
        if let Some(records) = &mut self.0 {
            records.push((entry, undo()));
        }
    }
}
