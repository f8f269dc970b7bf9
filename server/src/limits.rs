//! Every bound on what clients can make a relay hold. Those of the protocol are in `sds_sync`.

use std::time::Duration;

use sds_sync::limits::{APPEND_BYTES_GOAL, PATCH_BYTES_GOAL};

/// The most connections at a time.
pub const CONNECTIONS_MAX: usize = 4_096;

/// The most handshakes at a time before clients have to prove first that their address is theirs.
pub const UNPROVED_HANDSHAKES_MAX: usize = 64;

/// How long a client may take for a piece of a blob, beyond the time that its bytes need.
pub const CHUNK_PATIENCE: Duration = Duration::from_secs(30);

/// The slowest line over which a blob is still taken, in bytes a second.
pub const BLOB_BYTES_PER_SECOND_MIN: u64 = 4 << 10;

/// How long a client may take for a piece of a blob with this many bytes.
#[must_use]
pub const fn chunk_timeout(bytes: u64) -> Duration {
    CHUNK_PATIENCE.saturating_add(Duration::from_secs(bytes / BLOB_BYTES_PER_SECOND_MIN))
}

/// The most bytes of recent changes that a store's room keeps in memory; older ones are on disk.
pub const TAIL_BYTES_MAX: usize = 4 << 20;

/// The most recent changes that a store's room keeps in memory.
pub const TAIL_CHANGES_MAX: usize = 16_384;

/// The most changes that are looked at in one step for one client.
pub const STEP_CHANGES_MAX: usize = 4_096;

/// The most bytes that go into one commit before the next one begins.
pub const GROUP_BYTES_GOAL: usize = 32 << 20;

const _: () = assert!(PATCH_BYTES_GOAL <= TAIL_BYTES_MAX);
const _: () = assert!(APPEND_BYTES_GOAL <= GROUP_BYTES_GOAL);

#[cfg(test)]
mod tests {
    use sds_sync::limits::BLOB_CHUNK_BYTES_MAX;

    use super::*;

    #[test]
    fn a_whole_chunk_may_come_over_a_slow_line() {
        let modem = Duration::from_secs(BLOB_CHUNK_BYTES_MAX as u64 / (5 << 10));
        assert!(chunk_timeout(BLOB_CHUNK_BYTES_MAX as u64) > modem);
        assert_eq!(chunk_timeout(1), CHUNK_PATIENCE, "one byte is no reason to wait for minutes");
    }
}
