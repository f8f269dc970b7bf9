//! What can go wrong with a store, each with a code that stays.

use sds_engine::{BlobHash, DecodeError, EditError, EntryId, IntegrateError};

/// Why an operation on a store failed. Nothing has changed then, but where
/// [`purge_all_trash_entries`](crate::DataStore::purge_all_trash_entries) or
/// [`purge_expired_trash_entries`](crate::DataStore::purge_expired_trash_entries) cannot purge one of several
/// entries: the others are purged.
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
    /// Only entries directly in Trash can be purged.
    #[error("entry {0} is not directly in the trash")]
    PurgeNotInTrash(EntryId),
    /// A link that is in sight leads to the entry, or to something inside it.
    #[error("entry {0} is protected by a link to it or into it")]
    PurgeProtected(EntryId),
    /// There is no inline text whose characters could be edited.
    #[error("entry {0} holds no inline text there")]
    ChangeValueNotLiteral(EntryId),
    /// One transaction holds more than one change may.
    #[error("the transaction takes {bytes} bytes; one may have {max}")]
    TransactionTooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// What an undoing would bring back was kept by somebody else, who has let go of it.
    #[error("the content {0} is gone, and with it what this step would bring back")]
    ContentGone(BlobHash),
    /// A transaction is under way, and must end first.
    #[error("a transaction is under way")]
    TransactionOpen,
    /// One transaction has more edits than one change may.
    #[error("the transaction has more than {max} edits")]
    TooManyEdits {
        /// The bound.
        max: usize,
    },
    /// The JSON was not imported.
    #[error("not imported: {0}")]
    NotImported(#[from] ImportError),
    /// Handlers answered each other's changes without end; their edits fail from here on.
    #[error("more than {max} events in a row: handlers answer each other without end")]
    TooManyEvents {
        /// The bound.
        max: usize,
    },
    /// The tree is too deep for what goes through it by recursion.
    #[error("entries are nested deeper than {max} levels")]
    TooDeep {
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

/// Why JSON was not imported. Whoever made the JSON is at fault.
///
/// Entries are counted from one, in the order in which they begin in the text.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The text is not JSON.
    #[error("no valid JSON at line {line}, column {column}")]
    Syntax {
        /// The line, counted from one.
        line: u64,
        /// The character in the line, counted from one.
        column: u64,
    },
    /// The bytes could not be read, or are not the compressed UTF-8 that they should be.
    #[error("the bytes cannot be read as text")]
    Unreadable,
    /// More bytes than one import takes.
    #[error("the JSON is larger than {max} bytes")]
    TooLarge {
        /// The bound.
        max: u64,
    },
    /// More entries than one import takes.
    #[error("the JSON has more than {max} entries")]
    TooManyEntries {
        /// The bound.
        max: usize,
    },
    /// Entries inside entries, deeper than one import takes.
    #[error("entries are nested deeper than {max} levels")]
    TooDeep {
        /// The bound.
        max: usize,
    },
    /// A field that is missing, is of the wrong type, or says what cannot be.
    #[error("entry {entry}, {field}: {rule}")]
    Field {
        /// Which entry.
        entry: usize,
        /// Which of its fields.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// Two entries with one id.
    #[error("two entries have the id {0}")]
    DuplicateId(EntryId),
    /// The entry is here already, and is something else.
    #[error("entry {0} is here as something else: its kind and its target cannot change")]
    OtherKind(EntryId),
    /// The JSON is of an entry, not of a store.
    #[error("this is not the JSON of a store, which begins with Root")]
    NotAStore,
    /// Root, Trash or Lost and Found where they cannot be.
    #[error("the system entry {0} cannot be there")]
    SystemEntry(EntryId),
}

impl StoreError {
    /// The stable code of the error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InvalidArgument { .. }
            | Self::TooLong { .. }
            | Self::OutOfRange { .. }
            | Self::NotImported(_) => "invalid-argument",
            Self::NotFound(_) => "not-found",
            Self::MoveWouldCycle { .. } => "move-would-cycle",
            Self::DeleteNotPermitted(_) => "delete-not-permitted",
            Self::PurgeNotInTrash(_) => "purge-not-in-trash",
            Self::PurgeProtected(_) => "purge-protected",
            Self::ChangeValueNotLiteral(_) => "change-value-not-literal",
            Self::TransactionTooLarge { .. } | Self::TooManyEdits { .. } => "transaction-too-large",
            Self::ContentGone(_) => "content-gone",
            Self::TooDeep { .. } => "too-deep",
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
            EditError::TooManyOps { max } => Self::TooManyEdits { max },
            EditError::TooLong(what) => Self::InvalidArgument { what, rule: "is too long" },
            _ => Self::OutOfIds,
        }
    }
}
