//! Every bound on what clients can make a relay hold. Those of the protocol are in `sds_sync`.

use std::time::Duration;

use sds_sync::limits::{FRAME_BYTES_MAX, PATCH_BYTES_GOAL};

/// The shortest secret that signs tokens, in characters.
pub const SECRET_CHARS_MIN: usize = 32;

/// The most connections at a time.
pub const CONNECTIONS_MAX: usize = 4_096;

/// How long a client may take to shake hands, and a connection may be without a stream.
pub const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// How long streams and connections may take to end when the relay stops.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of recent changes that a store's room keeps in memory; older ones are on disk.
pub const TAIL_BYTES_MAX: usize = 4 << 20;

/// The most recent changes that a store's room keeps in memory.
pub const TAIL_CHANGES_MAX: usize = 16_384;

/// The most changes that are looked at in one step for one client.
pub const STEP_CHANGES_MAX: usize = 4_096;

/// The most bytes of changes that are taken from one client at a time.
pub const APPEND_BYTES_GOAL: usize = 4 << 20;

/// The most bytes that go into one commit before the next one begins.
pub const GROUP_BYTES_GOAL: usize = 32 << 20;

const _: () = assert!(PATCH_BYTES_GOAL <= TAIL_BYTES_MAX);
const _: () = assert!(APPEND_BYTES_GOAL <= FRAME_BYTES_MAX);
const _: () = assert!(APPEND_BYTES_GOAL <= GROUP_BYTES_GOAL);
