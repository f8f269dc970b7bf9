//! Every bound of the format. They are constants, because whether a change is well formed must
//! never depend on who looks at it; limits that a user may set bind local edits only and live in
//! the store.

/// The greatest counter an op may have. It fits the 58 bits that an entry id has for it.
pub const COUNTER_MAX: u64 = (1 << 56) - 1;

/// The greatest change, in encoded bytes; a transaction that grows past it fails as a whole, and edits
/// that would bring more into one fail by themselves.
pub const CHANGE_BYTES_MAX: usize = 16 << 20;

/// The most ops of one change, which bounds what a change of tiny ops takes in memory.
pub const CHANGE_OPS_MAX: usize = 1 << 20;

/// The most changes that one block of a patch may hold.
pub const BLOCK_CHANGES_MAX: u64 = 1 << 20;

/// The most ops that one block of a patch may hold: those of the greatest change, and more.
pub const BLOCK_OPS_MAX: usize = 2 * CHANGE_OPS_MAX;

/// The longest order key, in bytes.
pub const ORDER_KEY_BYTES_MAX: usize = 64;

/// Local edits give the neighbours new keys rather than make a key longer than this, in bytes.
pub const ORDER_KEY_BYTES_GOAL: usize = 32;

/// The longest key of an info field, in UTF-8 bytes. Four times the store's limit in UTF-16 units,
/// rounded up, so that nothing that a store accepts is malformed.
pub const INFO_KEY_BYTES_MAX: usize = 4_096;

/// The most characters of one run in the texts of a state. More with consecutive ids are several runs,
/// so that what a state takes in memory follows its bytes.
pub const STATE_RUN_CHARS_MAX: u64 = 1 << 32;

/// The greatest Lamport time that a state in a patch may bring. No more changes than it has counters
/// can have led to it, in any store there is.
pub const PATCH_LAMPORT_MAX: u64 = COUNTER_MAX;

/// The greatest Lamport time that a snapshot may hold; local edits past it fail. It is so far beyond
/// that of any patch that changes never get there.
pub const LAMPORT_MAX: u64 = 1 << 62;

/// The most changes that may wait for others that have not arrived.
pub const BACKLOG_CHANGES_MAX: usize = 65_536;

/// The most bytes of changes that may wait for others that have not arrived: their own, or what their
/// ops take in memory if that is more. A single change may wait whatever it takes.
pub const BACKLOG_BYTES_MAX: usize = 64 << 20;

/// How many bytes an op of a waiting change counts for at least, however short it is written.
pub const BACKLOG_OP_BYTES: usize = 64;

/// The greatest snapshot, in bytes after decompression.
pub const SNAPSHOT_BYTES_MAX: u64 = 4 << 30;

const _: () = assert!(COUNTER_MAX < 1 << 58);
const _: () = assert!(ORDER_KEY_BYTES_GOAL < ORDER_KEY_BYTES_MAX);
const _: () = assert!(PATCH_LAMPORT_MAX < LAMPORT_MAX / 2);
