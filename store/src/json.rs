//! Stores and entries as JSON, in and out, and entries as compressed JSON.
//!
//! Nothing here goes through the tree by recursion: it may be deeper than any stack. What does, since
//! `serde` works so, is bounded by [`VALUE_DEPTH_MAX`](crate::limits::VALUE_DEPTH_MAX).

mod binary;
mod copy;
mod info;
mod merge;
mod read;
mod record;
mod serde_form;
mod summary;
mod write;

pub use read::JsonSource;
pub use summary::JsonSummary;
pub use write::JsonOptions;
