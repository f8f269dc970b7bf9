//! Why a command failed, and the exit code that says so to scripts.

use std::fmt;
use std::process::ExitCode;

use sds_server::StartError;
use sds_store::StoreError;
use sds_sync::{BlobError, ListenError, RefusalCode, StorageError, SyncError};

/// The exit codes of `sds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    General = 1,
    Usage = 2,
    NotFound = 3,
    Unauthorized = 4,
    Network = 5,
    Forbidden = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failed command: what to tell people, and what to tell scripts.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    is_passing: bool,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string(), is_passing: false }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn not_found(message: impl fmt::Display) -> Self {
        Self::new(Exit::NotFound, message)
    }

    /// Whether nothing was done because of what others did meanwhile: the same can succeed now.
    pub(crate) const fn is_passing(&self) -> bool {
        self.is_passing
    }

    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::General, error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match error {
            StoreError::NotFound(_) => Exit::NotFound,
            StoreError::InvalidArgument { .. }
            | StoreError::TooLong { .. }
            | StoreError::OutOfRange { .. }
            | StoreError::NotImported(_) => Exit::Usage,
            StoreError::MoveWouldCycle { .. }
            | StoreError::DeleteNotPermitted(_)
            | StoreError::PurgeNotInTrash(_) => Exit::Forbidden,
            _ => Exit::General,
        };
        Self::new(exit, error)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        let exit = match error {
            StorageError::NotFound { .. } => Exit::NotFound,
            _ => Exit::General,
        };
        let is_passing = matches!(error, StorageError::SeatLost { .. });
        Self { is_passing, ..Self::new(exit, error) }
    }
}

impl From<BlobError> for Failure {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Storage(error) => error.into(),
            error => Self::new(Exit::General, error),
        }
    }
}

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        let exit = match &error {
            SyncError::Storage(error) => return error.clone().into(),
            SyncError::Refused { code: RefusalCode::Unauthorized, .. } => Exit::Unauthorized,
            SyncError::Refused { code: RefusalCode::Forbidden, .. } | SyncError::ReadOnly => {
                Exit::Forbidden
            }
            SyncError::TimedOut { .. } | SyncError::NotConnected => Exit::Network,
            _ => Exit::General,
        };
        Self::new(exit, error)
    }
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        Self::new(Exit::Network, error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::new(Exit::General, error)
    }
}
