//! Edits of texts without anything of their own: ops and parts of them as they are looked at, and
//! keystrokes on their way into a log.

use super::{IdRange, Op, argument_fault, is_beyond, subject_fault};
use crate::id::{EntryId, Life, OpId};
use crate::value::Field;

/// The text that an edit is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) entry: EntryId,
    pub(crate) life: Life,
    pub(crate) field: &'a Field,
    /// The `Set` that made the text.
    pub(crate) set: OpId,
}

impl Target<'_> {
    /// What is wrong with it, whatever the edit.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let is_allowed = !self.entry.is_well_known() || self.life == Life::FIRST;
        subject_fault(is_allowed)
            .or_else(|| super::field_fault(self.field))
            .or_else(|| is_beyond(self.set, 1).then_some("counters out of range"))
    }
}

/// What is done to a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextOp<'a> {
    /// Characters go in after another one; see [`Op::Insert`].
    Insert { origin: Option<OpId>, text: &'a str },
    /// Characters go; see [`Op::Delete`].
    Delete { range: IdRange, backwards: bool },
}

impl TextOp<'_> {
    /// Where it takes place: the origin, or the character that is deleted first.
    #[inline]
    pub(crate) const fn place(&self) -> Option<OpId> {
        match self {
            Self::Insert { origin, .. } => *origin,
            Self::Delete { range, backwards: true } => Some(range.first.plus(range.len - 1)),
            Self::Delete { range, .. } => Some(range.first),
        }
    }

    /// The newest character that it refers to.
    #[inline]
    pub(crate) fn newest(&self) -> Option<OpId> {
        match self {
            Self::Insert { origin, .. } => *origin,
            // A deletion of nothing is malformed.
            Self::Delete { range, .. } => {
                range.len.checked_sub(1).map(|more| range.first.plus(more))
            }
        }
    }

    /// What is wrong with it, whatever the text.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let is_far = match self {
            Self::Insert { text: "", .. } => return Some("insertion of nothing"),
            Self::Delete { range: IdRange { len: 0, .. }, .. } => {
                return Some("deletion of nothing");
            }
            Self::Delete { range: IdRange { len: 1, .. }, backwards: true } => {
                return Some("one character deleted backwards");
            }
            Self::Insert { origin, .. } => origin.is_some_and(|origin| is_beyond(origin, 1)),
            Self::Delete { range, .. } => is_beyond(range.first, range.len),
        };
        is_far.then_some("counters out of range")
    }
}

/// An edit of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TextEdit<'a> {
    pub(crate) target: Target<'a>,
    pub(crate) op: TextOp<'a>,
    /// How many counters it takes.
    pub(crate) span: u64,
}

impl TextEdit<'_> {
    /// The `Set` and the newest character that it refers to.
    #[inline]
    pub(crate) fn references(&self) -> [Option<OpId>; 2] {
        [Some(self.target.set), self.op.newest()]
    }

    /// The same as an op.
    pub(crate) fn to_op(self) -> Op {
        let Target { entry, life, field, set } = self.target;
        let field = field.clone();
        match self.op {
            TextOp::Insert { origin, text } => {
                Op::Insert { entry, life, field, set, origin, text: text.to_owned() }
            }
            TextOp::Delete { range, backwards } => {
                Op::Delete { entry, life, field, set, range, backwards }
            }
        }
    }
}

/// An op as it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpView<'a> {
    /// An edit of a text.
    Text(TextEdit<'a>),
    /// Any other op.
    Other(&'a Op),
}

impl<'a> OpView<'a> {
    pub(crate) fn of(op: &'a Op) -> Self {
        let span = op.span();
        match op {
            Op::Insert { entry, life, field, set, origin, text } => Self::Text(TextEdit {
                target: Target { entry: *entry, life: *life, field, set: *set },
                op: TextOp::Insert { origin: *origin, text },
                span,
            }),
            Op::Delete { entry, life, field, set, range, backwards } => Self::Text(TextEdit {
                target: Target { entry: *entry, life: *life, field, set: *set },
                op: TextOp::Delete { range: *range, backwards: *backwards },
                span,
            }),
            other => Self::Other(other),
        }
    }

    /// How many counters the op takes.
    #[inline]
    pub(crate) fn span(&self) -> u64 {
        match self {
            Self::Text(edit) => edit.span,
            Self::Other(op) => op.span(),
        }
    }

    /// What of others or of its own author the op refers to.
    #[inline]
    pub(crate) fn references(&self) -> [Option<OpId>; 2] {
        match self {
            Self::Text(edit) => edit.references(),
            Self::Other(_) => [None, None],
        }
    }

    pub(crate) fn to_op(self) -> Op {
        match self {
            Self::Text(edit) => edit.to_op(),
            Self::Other(op) => op.clone(),
        }
    }

    /// What MERGING's rules forbid in the op by itself.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Text(edit) => edit.target.fault().or_else(|| edit.op.fault()),
            Self::Other(op) => argument_fault(op),
        }
    }
}
