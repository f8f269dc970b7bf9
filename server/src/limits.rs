//! Every bound on what clients can make a relay hold. Those of the protocol are in `sds_sync`.

use sds_sync::limits::{APPEND_BYTES_GOAL, PATCH_BYTES_GOAL};

/// The most connections at a time.
pub const CONNECTIONS_MAX: usize = 4_096;

/// The most handshakes at a time before clients have to prove first that their address is theirs.
pub const UNPROVED_HANDSHAKES_MAX: usize = 64;

/// The most bytes of recent changes that a store's room keeps in memory; older ones are on disk.
pub const TAIL_BYTES_MAX: usize = 4 << 20;

/// The most recent changes that a store's room keeps in memory.
pub const TAIL_CHANGES_MAX: usize = 16_384;

/// The most changes that are looked at in one step for one client.
pub const STEP_CHANGES_MAX: usize = 4_096;

/// The most bytes that go into one commit before the next one begins.
pub const GROUP_BYTES_GOAL: usize = 32 << 20;

/// Which limit somebody met, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Handshakes under way.
    Handshakes,
    /// Connections in all.
    Connections,
    /// Connections from one address.
    ConnectionsPerAddress,
    /// Connections of one subject.
    ConnectionsPerSubject,
    /// Streams of a connection.
    Streams,
    /// The size or number of frames.
    Frames,
    /// Bytes in a second.
    BytesPerSecond,
    /// Stores in all, or of a connection.
    Stores,
    /// The size of a blob, or how many are sent at a time.
    BlobBytes,
    /// The size or rate of presence.
    Presence,
    /// The size or rate of signals.
    Signals,
    /// How long a client may take to show a token.
    TimeToAuthenticate,
    /// What the admin listener takes: connections, bytes, time.
    Admin,
}

impl Limit {
    /// All limits.
    pub const ALL: [Self; 13] = [
        Self::Handshakes,
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::ConnectionsPerSubject,
        Self::Streams,
        Self::Frames,
        Self::BytesPerSecond,
        Self::Stores,
        Self::BlobBytes,
        Self::Presence,
        Self::Signals,
        Self::TimeToAuthenticate,
        Self::Admin,
    ];

    /// The limit's name in the metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshakes => "handshakes",
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections-per-address",
            Self::ConnectionsPerSubject => "connections-per-subject",
            Self::Streams => "streams",
            Self::Frames => "frames",
            Self::BytesPerSecond => "bytes-per-second",
            Self::Stores => "stores",
            Self::BlobBytes => "blob-bytes",
            Self::Presence => "presence",
            Self::Signals => "signals",
            Self::TimeToAuthenticate => "time-to-authenticate",
            Self::Admin => "admin",
        }
    }
}

const _: () = assert!(PATCH_BYTES_GOAL <= TAIL_BYTES_MAX);
const _: () = assert!(APPEND_BYTES_GOAL <= GROUP_BYTES_GOAL);
