//! How far a store has come: on disk, to the relay, from the relay.

use sds_engine::Version;

use super::SyncError;
use crate::message::RefusalCode;
use crate::persistence::StorageError;

/// What became of the connection to a relay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ConnectionState {
    /// There is none, and none is wanted.
    #[default]
    Disconnected,
    /// A relay is being asked.
    Connecting,
    /// The store is open at the relay, which has said what the token allows; messages to others can be sent.
    Connected {
        /// Whether the relay takes changes.
        writable: bool,
    },
    /// The connection was lost or did not come about; it will be tried again.
    WaitingToReconnect {
        /// How many attempts have failed in a row.
        attempt: u32,
    },
    /// The relay refuses, and would again; only a person can help.
    Refused {
        /// Why.
        code: RefusalCode,
        /// Why, for a person.
        message: String,
    },
}

/// Which blobs are fetched without being asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlobFetch {
    /// All, so that everything can be read offline.
    #[default]
    All,
    /// Those of at most so many bytes.
    UpTo(u64),
    /// None: each when it is asked for.
    OnDemand,
}

impl BlobFetch {
    pub(crate) const fn wants(self, size: u64) -> bool {
        match self {
            Self::All => true,
            Self::UpTo(max) => size <= max,
            Self::OnDemand => false,
        }
    }
}

/// How far a store has come. All progress is a version: see which changes each one covers.
#[derive(Clone, Debug, Default)]
pub struct SyncStatus {
    /// What became of the connection.
    pub connection: ConnectionState,
    /// What the store has.
    pub local: Version,
    /// What is on this side's disk.
    pub persisted: Version,
    /// What the relay has or was sent, as far as known.
    pub sent: Version,
    /// What is on the relay's disk, as far as it said.
    pub stored: Version,
    /// What the relay had when the present connection opened the store.
    pub relay_at_open: Version,
    /// How many blobs have still to be offered to the relay.
    pub blobs_to_send: usize,
    /// How many blobs the store refers to, wants, and lacks.
    pub blobs_to_fetch: usize,
    /// Why the disk took nothing the last time, until it does.
    pub storage_error: Option<StorageError>,
    /// Whether the relay has sent changes that only a newer program understands. They, and what builds on
    /// them, do not come here before this one is updated; all else does.
    pub is_too_old: bool,
    /// The code of the failure that ended the last connection or attempt.
    pub last_error: Option<&'static str>,
}

impl SyncStatus {
    /// Whether both sides have, durably, what either had when they connected and all local edits
    /// since, with blobs.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        let ConnectionState::Connected { writable } = self.connection else { return false };
        self.stored.covers(&self.local)
            && self.persisted.covers(&self.local)
            && self.persisted.covers(&self.relay_at_open)
            && self.blobs_to_fetch == 0
            && (self.blobs_to_send == 0 || !writable)
    }

    /// Whether waiting for the store to be synced is over, and how; `None` as long as it may help.
    pub(super) fn outcome(&self) -> Option<Result<(), SyncError>> {
        if self.is_synced() {
            return Some(Ok(()));
        }
        if let Some(error) = &self.storage_error {
            return Some(Err(SyncError::Storage(error.clone())));
        }
        match &self.connection {
            ConnectionState::Disconnected => Some(Err(SyncError::NotConnected)),
            ConnectionState::Refused { code, message } => {
                Some(Err(SyncError::Refused { code: *code, message: message.clone() }))
            }
            ConnectionState::Connected { writable: false } if !self.stored.covers(&self.local) => {
                Some(Err(SyncError::ReadOnly))
            }
            _ => None,
        }
    }
}
