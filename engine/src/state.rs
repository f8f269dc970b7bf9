//! Everything that merging needs, without the history that led there: what is kept when history is
//! cut, what a snapshot begins with, and what joins into any other replica.
//!
//! Two states join to that of all changes that either has seen (MERGING, "Cutting history"): moves by
//! union and replay, registers by the greatest (life, stamp), lives by the greatest, texts by union of
//! characters and of deletions, versions by the greatest. An op that the other side has seen is in its
//! state already, so that only what it has not seen need be looked at.
//!
//! A text need not say where its characters were inserted: the origin of one is the nearest before it
//! that is older, since whatever came between the two is newer than both (RGA).
//!
//! Not here: the bytes (`codec::state`), putting a state together and joining it (`join`).

use smallvec::SmallVec;

use crate::id::{EntryId, Life, OpId, ReplicaId, Timestamp};
use crate::op::NewEntry;
use crate::registers::FieldIx;
use crate::tree::OrderKey;
use crate::value::ValueView;

/// When the changes of one author were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) author: ReplicaId,
    pub(crate) pieces: Vec<Piece>,
    /// Whether no change of another author builds on the last one.
    pub(crate) is_head: bool,
}

impl Times {
    /// The counter that comes next.
    pub(crate) fn next(&self) -> u64 {
        self.pieces.last().map_or(0, Piece::end)
    }
}

/// Changes of one length in a row whose Lamport times rise by one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) start: u64,
    /// The time of the first of them.
    pub(crate) lamport: u64,
    /// How many counters each takes.
    pub(crate) len: u64,
    pub(crate) count: u64,
}

impl Piece {
    pub(crate) const fn end(&self) -> u64 {
        self.start + self.len * self.count
    }

    /// The time of the last of them.
    pub(crate) const fn newest(&self) -> u64 {
        self.lamport + self.count - 1
    }

    /// The number of the change that has a counter.
    pub(crate) const fn change_at(&self, counter: u64) -> u64 {
        (counter - self.start) / self.len
    }

    /// Whether these changes and those of `last` are one piece.
    pub(crate) const fn continues(&self, last: &Self) -> bool {
        self.len == last.len && self.lamport == last.lamport + last.count
    }
}

/// The first counter from which on two lists of an author's pieces tell other changes, as far as both go.
/// Costs the pieces.
///
/// Pieces are as long as can be, so that the same changes are the same pieces; but that the last of the
/// shorter list may go on in the other one.
pub(crate) fn first_difference(a: &[Piece], b: &[Piece]) -> Option<u64> {
    let end = a.last()?.end().min(b.last()?.end());
    let (a, b) = a.iter().zip(b).find(|(a, b)| a != b)?;
    let is_alike = (a.lamport, a.len) == (b.lamport, b.len);
    let differs_at = if is_alike { a.end().min(b.end()) } else { a.start };
    (differs_at < end).then_some(differs_at)
}

/// Everything about one entry. Values are borrowed from wherever it was put together.
#[derive(Debug)]
pub(crate) struct EntryRecord<'a> {
    pub(crate) id: EntryId,
    pub(crate) life: Life,
    /// The lives that ops touched, from the current one on.
    pub(crate) lives: SmallVec<[LifeRecord; 1]>,
    pub(crate) moves: SmallVec<[MoveRecord; 1]>,
    pub(crate) fields: SmallVec<[FieldRecord<'a>; 3]>,
}

/// A life in which somebody touched the entry, and what it was created as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LifeRecord {
    pub(crate) life: Life,
    pub(crate) creation: Creation,
}

/// What an entry was created as in one life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Creation {
    None,
    /// Whichever op did it.
    Item,
    Link {
        target: EntryId,
        op: OpId,
    },
}

impl Creation {
    pub(crate) const fn kind(self) -> Option<NewEntry> {
        match self {
            Self::None => None,
            Self::Item => Some(NewEntry::Item),
            Self::Link { target, .. } => Some(NewEntry::Link { target }),
        }
    }

    /// The op that made a link.
    pub(crate) const fn op(self) -> Option<OpId> {
        match self {
            Self::None | Self::Item => None,
            Self::Link { op, .. } => Some(op),
        }
    }
}

/// A creation, move or reordering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MoveRecord {
    pub(crate) op: OpId,
    pub(crate) life: Life,
    pub(crate) parent: EntryId,
    pub(crate) key: OrderKey,
    pub(crate) is_within: bool,
    pub(crate) trashed_at: Option<Timestamp>,
}

/// The winning value of a field.
#[derive(Debug)]
pub(crate) struct FieldRecord<'a> {
    /// Which field, among the names that go with the record.
    pub(crate) field: FieldIx,
    pub(crate) life: Life,
    pub(crate) set: OpId,
    pub(crate) content: ContentRecord<'a>,
}

/// What a field holds.
#[derive(Debug)]
pub(crate) enum ContentRecord<'a> {
    /// As it was set.
    Value(ValueView<'a>),
    /// A text that was spliced since.
    Text(TextRecord),
}

/// The characters of a text, in order, deleted ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TextRecord {
    pub(crate) runs: Vec<RunRecord>,
    /// What shows.
    pub(crate) text: String,
}

/// Characters with consecutive ids that stand together and share a fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunRecord {
    pub(crate) first: OpId,
    pub(crate) len: u64,
    pub(crate) is_deleted: bool,
}
