//! Every bound on local edits and imports. Remote changes are never refused by them: replicas with
//! different settings would split. Nor is undoing, which brings back what was there beside what others have
//! written since: what comes of both may pass a limit as what merging makes may.

use std::time::Duration;

/// The longest text kept inline, in UTF-16 units, unless the store's options say otherwise.
pub const LITERAL_SIZE_LIMIT: usize = 131_072;

/// The most bytes kept inline; more become a blob.
pub const BINARY_SIZE_LIMIT: usize = 2_048;

/// The longest label, in UTF-16 units.
pub const LABEL_LENGTH_MAX: usize = 1_024;

/// The longest MIME type, in UTF-16 units.
pub const MIME_TYPE_LENGTH_MAX: usize = 256;

/// The longest key of an info field, in UTF-16 units.
pub const INFO_KEY_LENGTH_MAX: usize = 1_024;

/// The greatest info value, in bytes of its JSON text.
pub const INFO_VALUE_BYTES_MAX: usize = 262_144;

/// How deep arrays and objects of an info value may be nested, so that whoever reads it can.
pub const INFO_VALUE_DEPTH_MAX: usize = 100;

/// The type of an item that was given none.
pub const DEFAULT_MIME_TYPE: &str = "text/plain";

/// How long deleted entries wait in Trash, unless the store's options say otherwise.
pub const TRASH_TTL: Duration = Duration::from_hours(30 * 24);

/// The longest time between two looks for expired entries, unless the store's options say otherwise.
pub const TRASH_CHECK_INTERVAL_MAX: Duration = Duration::from_hours(1);

/// The most bytes of JSON that one import takes, after decompression.
pub const IMPORT_BYTES_MAX: u64 = 512 << 20;

/// The most entries that one import takes. A copy takes no more than one change may have edits.
pub const IMPORT_ENTRIES_MAX: usize = 1 << 22;

/// How deep entries may be nested in JSON that is imported.
pub const IMPORT_DEPTH_MAX: usize = 1 << 18;

/// How deep entries may be nested that are made a `serde_json::Value` or given to a serializer, which
/// go through them by recursion. As text they may be of any depth.
pub const VALUE_DEPTH_MAX: usize = 100;

/// The most events that may come of one, itself included, as handlers edit the store; then their edits fail.
pub const EVENTS_AT_ONCE_MAX: usize = 1_000;

/// So many steps can be undone, unless undoing is enabled with another number.
pub const UNDO_STEPS: usize = 100;

/// Steps keep about so many bytes of what they replaced, unless undoing is enabled with another number.
pub const UNDO_BYTES: usize = 64 << 20;

/// Steps of about so many bytes take in no more, so that undoing one fits a change.
pub const UNDO_STEP_BYTES_MAX: usize = 4 << 20;

// A UTF-16 unit is at most three bytes of UTF-8.
const _: () = assert!(INFO_KEY_LENGTH_MAX * 3 <= sds_engine::limits::INFO_KEY_BYTES_MAX);
const _: () = assert!(LITERAL_SIZE_LIMIT * 3 + 1_024 <= sds_engine::limits::CHANGE_BYTES_MAX);
const _: () = assert!(INFO_VALUE_BYTES_MAX + 8_192 <= sds_engine::limits::CHANGE_BYTES_MAX);
