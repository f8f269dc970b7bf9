//! What can go wrong, by who is at fault: the bytes' sender, the peer's history, the caller.

use crate::id::{EntryId, OpId, ReplicaId};

/// Why bytes are not a version, a change, a patch or a snapshot. Their sender is at fault; nothing
/// has changed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("the bytes end inside a value, at byte {at}")]
    Truncated {
        /// Where the value began.
        at: usize,
    },
    /// The bytes do not begin as this form does: another kind of file, or damage.
    #[error("not {expected}: the first bytes are others")]
    WrongMagic {
        /// What was expected.
        expected: &'static str,
    },
    /// The format is newer than this program.
    #[error("format version {found} is newer than {newest}, the newest this program reads")]
    FormatTooNew {
        /// The version in the bytes.
        found: u8,
        /// The newest version that this program reads.
        newest: u8,
    },
    /// An op of a kind that this program does not know, in a change whose form is intact.
    #[error("op kind {kind} of replica {replica} is newer than this program")]
    OpTooNew {
        /// The author whose changes cannot be read any further.
        replica: ReplicaId,
        /// The unknown kind.
        kind: u8,
    },
    /// The checksum does not fit the bytes: they were damaged on the way.
    #[error("the checksum does not match: the bytes were damaged")]
    WrongChecksum,
    /// A value that the format does not allow.
    #[error("malformed at byte {at}: {what}")]
    Malformed {
        /// Where the value was found.
        at: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A size past the format's bounds.
    #[error("{what} is larger than the format allows ({max} bytes)")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The bound, in bytes.
        max: u64,
    },
}

/// Why well-formed changes were not integrated. The replica has not changed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntegrateError {
    /// Two different changes bear one id: a replica's file was copied and both copies were edited.
    #[error("replica {} has two histories: another change at counter {} is known", at.replica, at.counter)]
    Forked {
        /// The id that two changes claim.
        at: OpId,
    },
    /// More changes wait for missing ones than may be kept.
    #[error(
        "too many changes wait for missing ones ({changes} changes, which count for {weight} bytes)"
    )]
    BacklogFull {
        /// How many changes would wait.
        changes: usize,
        /// What they count for, of [`BACKLOG_BYTES_MAX`](crate::limits::BACKLOG_BYTES_MAX): their bytes,
        /// or what their ops take in memory if that is more.
        weight: usize,
    },
    /// A local transaction is open; it must end before foreign changes come in.
    #[error("a transaction is open")]
    TransactionOpen,
}

/// Why a local edit was refused. The replica has not changed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// No entry with this id is shown.
    #[error("no entry {0}")]
    NotFound(EntryId),
    /// The entry is a link, where only an item will do.
    #[error("entry {0} is not an item")]
    NotAnItem(EntryId),
    /// The id is taken already.
    #[error("entry {0} exists already")]
    AlreadyExists(EntryId),
    /// The entry would become its own ancestor.
    #[error("entry {entry} cannot move into {target}, which is itself or below it")]
    WouldCycle {
        /// The entry to move.
        entry: EntryId,
        /// Where it was to go.
        target: EntryId,
    },
    /// Root, Trash and Lost and Found stay where they are.
    #[error("entry {0} is a system entry and keeps its place")]
    WellKnown(EntryId),
    /// The field holds no text to edit.
    #[error("the field of entry {0} holds no text")]
    NotText(EntryId),
    /// The range does not lie on character boundaries inside the text.
    #[error("range {from}..{to} does not fit a text of length {len}, or divides a character")]
    OutOfRange {
        /// Where the range starts, in the unit of the call (UTF-16 where it names none).
        from: usize,
        /// Where it ends.
        to: usize,
        /// Length of the text, in the same unit.
        len: usize,
    },
    /// An argument that the format cannot carry.
    #[error("{0} is longer than the format allows")]
    TooLong(&'static str),
    /// The transaction is larger than one change may be.
    #[error("the transaction takes {bytes} bytes; one change may have {max}")]
    ChangeTooLarge {
        /// Size of the change, in bytes.
        bytes: usize,
        /// The bound, in bytes.
        max: usize,
    },
    /// The transaction has more ops than one change may have.
    #[error("the transaction has more than {max} ops")]
    TooManyOps {
        /// The bound.
        max: usize,
    },
    /// A transaction is open; it must end first.
    #[error("a transaction is open")]
    TransactionOpen,
    /// Every id of this replica is used up, or every life of the entry.
    #[error("out of ids")]
    OutOfIds,
}
