//! Every edit that can exist.

mod list;
mod runs;
mod text_edit;

use crate::id::{EntryId, Life, OpId, Timestamp};
use crate::limits::{COUNTER_MAX, INFO_KEY_BYTES_MAX};
use crate::tree::OrderKey;
use crate::value::{Field, Value, char_count};
pub(crate) use list::{OpList, OpParts, OpPlace};
pub(crate) use text_edit::{OpView, Target, TextEdit, TextOp};

/// What an entry is created as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewEntry {
    /// Something that has a value and entries inside.
    Item,
    /// A pointer to an item elsewhere.
    Link {
        /// The item that the link points to, for good.
        target: EntryId,
    },
}

/// Characters with consecutive ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first character.
    pub first: OpId,
    /// How many characters, at least one.
    pub len: u64,
}

/// One edit. Its id is its place in its change; see [`Op::span`].
///
/// `life` is how often the author had seen the entry purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A new entry, at its first place.
    Create {
        /// The new entry.
        entry: EntryId,
        /// The entry's life.
        life: Life,
        /// Item or link.
        kind: NewEntry,
        /// The container.
        parent: EntryId,
        /// The place in the container.
        key: OrderKey,
    },
    /// The entry goes into another container.
    Move {
        /// The entry.
        entry: EntryId,
        /// The entry's life.
        life: Life,
        /// The new container.
        parent: EntryId,
        /// The place in it.
        key: OrderKey,
        /// When it was deleted; only with Trash as the container.
        trashed_at: Option<Timestamp>,
    },
    /// The entry gets another place in the container it is in. Unlike a move it never pulls back an
    /// entry that somebody else has moved out meanwhile.
    Reorder {
        /// The entry.
        entry: EntryId,
        /// The entry's life.
        life: Life,
        /// The container it must still be in.
        parent: EntryId,
        /// The new place.
        key: OrderKey,
    },
    /// A field gets another value. The characters of a text take one counter each.
    Set {
        /// The entry.
        entry: EntryId,
        /// The entry's life.
        life: Life,
        /// The field.
        field: Field,
        /// The new value.
        value: Value,
    },
    /// Characters go into a text.
    Insert {
        /// The entry.
        entry: EntryId,
        /// The entry's life.
        life: Life,
        /// The field.
        field: Field,
        /// The `Set` that made the text; if another has replaced it, the edit is void.
        set: OpId,
        /// The character after which the new ones go; none for the start.
        origin: Option<OpId>,
        /// The characters, at least one.
        text: String,
    },
    /// Characters leave a text; each takes a counter, in the order in which they were deleted.
    Delete {
        /// The entry.
        entry: EntryId,
        /// The entry's life.
        life: Life,
        /// The field.
        field: Field,
        /// The `Set` that made the text; if another has replaced it, the edit is void.
        set: OpId,
        /// The characters, at least one.
        range: IdRange,
        /// Whether the last of them went first, as with the backspace key. Not for a lone one.
        backwards: bool,
    },
    /// Ends a life of each of the entries, for good.
    Purge {
        /// The entries, each with the life that the author saw; at least one.
        entries: Vec<(EntryId, Life)>,
    },
    /// Makes an entry live again, as an empty item.
    Revive {
        /// The entry.
        entry: EntryId,
        /// The life to live.
        life: Life,
    },
    /// Counters that a rolled-back transaction had given out, so that no id ever means two things.
    Skip {
        /// How many, at least one.
        count: u64,
    },
}

impl Op {
    /// How many counters the op takes: one for each character that it inserts or deletes, at least
    /// one.
    #[must_use]
    pub fn span(&self) -> u64 {
        match self {
            Self::Set { value, .. } => value.span(),
            Self::Insert { text, .. } => char_count(text),
            Self::Delete { range, .. } => range.len,
            Self::Skip { count } => *count,
            _ => 1,
        }
    }

    /// The entry and the life of it that the op touches; none for purges and gaps.
    #[must_use]
    pub fn subject(&self) -> Option<(EntryId, Life)> {
        match self {
            Self::Create { entry, life, .. }
            | Self::Move { entry, life, .. }
            | Self::Reorder { entry, life, .. }
            | Self::Set { entry, life, .. }
            | Self::Insert { entry, life, .. }
            | Self::Delete { entry, life, .. }
            | Self::Revive { entry, life } => Some((*entry, *life)),
            Self::Purge { .. } | Self::Skip { .. } => None,
        }
    }

    /// The text that the op edits: entry, life, field, and the `Set` that made it.
    pub(crate) fn edited_text(&self) -> Option<(EntryId, Life, &Field, OpId)> {
        match self {
            Self::Insert { entry, life, field, set, .. }
            | Self::Delete { entry, life, field, set, .. } => Some((*entry, *life, field, *set)),
            _ => None,
        }
    }

    /// More bytes than the parts of an op take besides texts, keys and the like.
    const PARTS_BYTES: usize = 128;

    /// More bytes than the op takes in a change, but for the names of replicas.
    pub(crate) fn size_bound(&self) -> usize {
        Self::PARTS_BYTES
            + match self {
                Self::Set { field, value, .. } => field.size() + value.size(),
                Self::Insert { field, text, .. } => field.size() + text.len(),
                Self::Delete { field, .. } => field.size(),
                Self::Purge { entries } => entries.len() * 40,
                Self::Create { key, .. } | Self::Move { key, .. } | Self::Reorder { key, .. } => {
                    key.as_bytes().len()
                }
                Self::Revive { .. } | Self::Skip { .. } => 0,
            }
    }

    /// What MERGING's rules forbid in an op by itself, whoever looks at it.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        OpView::of(self).fault()
    }
}

/// What is wrong with an op that is no edit of a text.
fn argument_fault(op: &Op) -> Option<&'static str> {
    if let Some((entry, life)) = op.subject()
        && entry.is_well_known()
    {
        let may_be = match op {
            Op::Set { .. } => true,
            Op::Reorder { parent, .. } => entry != EntryId::ROOT && *parent == EntryId::ROOT,
            _ => false,
        };
        if let Some(fault) = subject_fault(may_be && life == Life::FIRST) {
            return Some(fault);
        }
    }
    match op {
        Op::Move { parent, trashed_at: Some(_), .. } if *parent != EntryId::TRASH => {
            Some("time of deletion outside the trash")
        }
        Op::Purge { entries } if entries.is_empty() => Some("purge of nothing"),
        Op::Purge { entries } => entries
            .iter()
            .any(|(entry, life)| entry.is_well_known() || life.next().is_none())
            .then_some("purge of what cannot be purged"),
        Op::Skip { count: 0 } => Some("gap of nothing"),
        Op::Set { field, .. } => field_fault(field),
        _ => None,
    }
}

fn subject_fault(is_allowed: bool) -> Option<&'static str> {
    (!is_allowed).then_some("op that a system entry does not allow")
}

/// Whether the `len` counters from `op` on go beyond the last one.
fn is_beyond(op: OpId, len: u64) -> bool {
    op.counter.checked_add(len).is_none_or(|end| end > COUNTER_MAX + 1)
}

fn field_fault(field: &Field) -> Option<&'static str> {
    match field {
        Field::Info(key) if key.is_empty() || key.len() > INFO_KEY_BYTES_MAX => {
            Some("info key of an illegal length")
        }
        _ => None,
    }
}
