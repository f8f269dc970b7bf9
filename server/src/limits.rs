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

/// How many bytes of changes go into one page of a store's log on disk; a larger one comes alone.
pub const PAGE_BYTES_GOAL: usize = 256 << 10;

/// The most changes in one page as it is appended.
pub const PAGE_CHANGES_MAX: usize = STEP_CHANGES_MAX;

/// The most changes in one page that was packed.
pub const PACKED_CHANGES_MAX: usize = STEP_CHANGES_MAX;

/// How many pages of a store's log may be as they were appended before they are packed.
pub const LOOSE_PAGES_MAX: u64 = 256;

/// At how many stores the writer looks for something to pack before it takes what has come meanwhile.
pub const PACK_LOOKS_MAX: usize = 64;

/// How many bytes of pages one append may unpack to compare changes with those in the log, before
/// others get their turn.
pub const COMPARE_BYTES_MAX: usize = 4 << 20;

/// How many packed pages are kept in memory as they are unpacked.
pub const PAGE_CACHE_MAX: usize = 16;

const _: () = assert!(PATCH_BYTES_GOAL <= TAIL_BYTES_MAX);
const _: () = assert!(APPEND_BYTES_GOAL <= GROUP_BYTES_GOAL);
