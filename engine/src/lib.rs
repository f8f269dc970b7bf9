//! The CRDT of the shareable data store: a movable tree of entries with last-writer-wins fields and
//! mergeable texts, and one log of changes.
//!
//! A [`Replica`] is one copy of the tree. Edit it, in transactions if need be; each transaction
//! becomes one [`Change`]. [`Replica::export`] packs the changes that another copy lacks as a patch,
//! [`Patch::decode`] reads it, and [`Replica::integrate`] takes it in. Copies with the same changes
//! are the same, in whatever order the changes arrived: [`Replica::digest`] says so.
//!
//! ```
//! use sds_engine::{EntryId, Field, Patch, Replica, ReplicaId, Value, Version};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut desk = Replica::new(ReplicaId::new(1).ok_or("zero")?);
//! let mut train = Replica::new(ReplicaId::new(2).ok_or("zero")?);
//!
//! let note = desk.create_item(EntryId::ROOT, usize::MAX)?;
//! desk.set(note, Field::Label, Value::Text("milk".into()))?;
//! train.integrate(Patch::decode(&desk.export(&Version::new()))?)?;
//!
//! // Both edit the label at the same time.
//! desk.splice(note, Field::Label, 0..0, "buy ")?;
//! train.splice(note, Field::Label, 4..4, ", bread")?;
//! train.integrate(Patch::decode(&desk.export(train.version()))?)?;
//! desk.integrate(Patch::decode(&train.export(desk.version()))?)?;
//!
//! assert_eq!(desk.value(note, &Field::Label), Value::Text("buy milk, bread".into()));
//! assert_eq!(desk.digest(), train.digest());
//! # Ok(())
//! # }
//! ```
//!
//! The engine does no I/O and has no clock, no randomness, no threads: ids and times come in as
//! arguments. What merging decides is laid down in `docs/merging.md`, the bytes in `docs/format.md`.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic, clippy::unreachable))]

mod anchor;
mod backlog;
mod batch;
mod change;
mod codec;
mod delta;
mod digest;
mod display;
mod edit;
mod entries;
mod error;
mod history;
mod id;
mod index;
mod integration;
mod join;
mod keystroke;
pub mod limits;
mod op;
mod place;
mod registers;
mod replica;
mod state;
mod text;
mod text_slice;
mod transaction;
mod tree;
mod value;
mod version;

pub use anchor::Anchor;
pub use change::{Change, ChangeHeader};
pub use codec::Patch;
pub use delta::{
    Appearance, Delta, Difference, EntryDelta, FieldDelta, FieldEdit, Place, TextSplice,
};
pub use digest::Digest;
pub use error::{DecodeError, EditError, IntegrateError};
pub use id::{EntryId, Life, NotAnEntryId, OpId, ReplicaId, Stamp, Timestamp};
pub use op::{IdRange, NewEntry, Op};
pub use replica::{Integrated, Replica};
pub use text::{Side, TextChunks, TextUnit};
pub use text_slice::TextSlice;
pub use transaction::Transaction;
pub use tree::OrderKey;
pub use value::{BlobHash, BlobRef, Field, Value};
pub use version::Version;
