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

const _: () = assert!(PATCH_BYTES_GOAL <= TAIL_BYTES_MAX);
const _: () = assert!(APPEND_BYTES_GOAL <= GROUP_BYTES_GOAL);
