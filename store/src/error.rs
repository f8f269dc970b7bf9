//! What can go wrong with a store, each with a code that stays.

use sds_engine::{DecodeError, EditError, EntryId, IntegrateError};

/// Why an operation on a store failed. Nothing has changed then.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// An argument past a limit, or of the wrong kind.
    #[error("{what}: {rule}")]
    InvalidArgument {
        /// Which argument.
        what: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// An argument longer than allowed.
    #[error("{what} is too long: {len}, at most {max} are allowed")]
    TooLong {
        /// Which argument.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The limit, in the same unit.
        max: usize,
    },
    /// A range that does not lie on character boundaries inside the text.
    #[error("range {from}..{to} (UTF-16 units) does not fit a text of {len}")]
    OutOfRange {
        /// First unit of the range.
        from: usize,
        /// Unit after the range.
        to: usize,
        /// Length of the text in UTF-16 units.
        len: usize,
    },
    /// No such entry.
    #[error("no entry {0}")]
    NotFound(EntryId),
    /// Root never moves, Trash and Lost and Found only within Root, nothing into itself.
    #[error(
        "entry {entry} cannot move into {target}: it is a system entry, or {target} is below it"
    )]
    MoveWouldCycle {
        /// The entry to move.
        entry: EntryId,
        /// Where it was to go.
        target: EntryId,
    },
    /// System entries cannot be deleted.
    #[error("entry {0} is a system entry and cannot be deleted")]
    DeleteNotPermitted(EntryId),
    /// The value is not an inline text.
    #[error("the value of entry {0} is not an inline text")]
    ChangeValueNotLiteral(EntryId),
    /// One transaction holds more than one change may.
    #[error("the transaction takes {bytes} bytes; one may have {max}")]
    TransactionTooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// A transaction is under way, and must end first.
    #[error("a transaction is under way")]
    TransactionOpen,
    /// Handlers answered each other's changes without end; their edits fail from here on.
    #[error("more than {max} events in a row: handlers answer each other without end")]
    TooManyEvents {
        /// The bound.
        max: usize,
    },
    /// Every id of this replica is used up.
    #[error("this replica has used up its ids")]
    OutOfIds,
    /// The bytes are no patch or snapshot, are damaged, or are newer than this program.
    #[error("not readable: {0}")]
    Unreadable(#[from] DecodeError),
    /// The patch contradicts what is here, or comes too early.
    #[error("not integrated: {0}")]
    NotIntegrated(#[from] IntegrateError),
}

impl StoreError {
    /// The stable code of the error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InvalidArgument { .. } | Self::TooLong { .. } | Self::OutOfRange { .. } => {
                "invalid-argument"
            }
            Self::NotFound(_) => "not-found",
            Self::MoveWouldCycle { .. } => "move-would-cycle",
            Self::DeleteNotPermitted(_) => "delete-not-permitted",
            Self::ChangeValueNotLiteral(_) => "change-value-not-literal",
            Self::TransactionTooLarge { .. } => "transaction-too-large",
            Self::TooManyEvents { .. } => "too-many-events",
            Self::OutOfIds => "out-of-ids",
            Self::Unreadable(DecodeError::FormatTooNew { .. } | DecodeError::OpTooNew { .. }) => {
                "format-too-new"
            }
            Self::Unreadable(_) => "malformed-patch",
            Self::NotIntegrated(IntegrateError::Forked { .. }) => "forked",
            Self::NotIntegrated(IntegrateError::BacklogFull { .. }) => "backlog-full",
            Self::TransactionOpen | Self::NotIntegrated(_) => "transaction-open",
        }
    }
}

impl From<EditError> for StoreError {
    fn from(error: EditError) -> Self {
        match error {
            EditError::NotFound(entry) => Self::NotFound(entry),
            EditError::NotAnItem(_) => {
                Self::InvalidArgument { what: "entry", rule: "must be an item" }
            }
            EditError::AlreadyExists(_) => Self::InvalidArgument { what: "id", rule: "is in use" },
            EditError::WouldCycle { entry, target } => Self::MoveWouldCycle { entry, target },
            EditError::WellKnown(entry) => Self::DeleteNotPermitted(entry),
            EditError::NotText(entry) => Self::ChangeValueNotLiteral(entry),
            EditError::OutOfRange { from, to, len } => Self::OutOfRange { from, to, len },
            EditError::ChangeTooLarge { bytes, max } => Self::TransactionTooLarge { bytes, max },
            EditError::TransactionOpen => Self::TransactionOpen,
            EditError::TooLong(what) => Self::InvalidArgument { what, rule: "is too long" },
            _ => Self::OutOfIds,
        }
    }
}
