//! A tree of items and links that many devices and people edit, also while offline, and that always
//! converges.
//!
//! An item has a label, a MIME type, a value (text or bytes), free metadata, and entries inside; a
//! link points to an item. Root holds everything; deleted entries wait in Trash; entries that lost
//! their place show in Lost and Found.
//!
//! ```
//! use sds_store::{DataStore, EntryId, ReplicaId, StoreError, Timestamp};
//!
//! # fn main() -> Result<(), StoreError> {
//! # let (one, two) = (ReplicaId::new(1).unwrap(), ReplicaId::new(2).unwrap());
//! let mut desk = DataStore::new(one);
//! let note = desk.transact(|store| {
//!     let note = store.new_item_at(Some("text/markdown"), EntryId::ROOT, None)?;
//!     store.set_label(note, "Shopping")?;
//!     store.write_value(note, "milk")?;
//!     Ok::<_, StoreError>(note)
//! })?;
//!
//! // Another device gets everything, and both go on.
//! let mut phone = DataStore::new(two);
//! phone.apply_remote_patch(&desk.export_patch(phone.version()))?;
//! phone.change_value(note, 4..4, ", bread")?;
//! desk.delete_entry(note, Timestamp::from_millis(1_700_000_000_000))?;
//! phone.apply_remote_patch(&desk.export_patch(phone.version()))?;
//! desk.apply_remote_patch(&phone.export_patch(desk.version()))?;
//!
//! assert_eq!(desk.digest(), phone.digest());
//! assert_eq!(desk.entry_with_id(note).unwrap().outer_item_id(), Some(EntryId::TRASH));
//! # Ok(())
//! # }
//! ```
//!
//! [`DataStore::on_change`] tells what has changed, here and elsewhere; [`DataStore::undo`] takes back
//! what was done here. What holds of both is in `docs/events-and-undo.md`.
//!
//! The store does no I/O: `sds-sync` keeps it on disk and equal to its peers.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic, clippy::unreachable))]

/// The code in `docs/guide.md`, as tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide.md")]
pub struct Guide;

mod anchor;
mod blob;
mod change_set;
mod edit;
mod entry;
mod error;
mod events;
mod json;
pub mod limits;
mod options;
mod remake;
mod store;
mod text_diff;
mod trash;
mod undo;
mod value;

pub use anchor::TextField;
pub use blob::{BlobSource, DroppedBlobs, blob_hash};
pub use change_set::{ChangeSet, EntryChange, ListPlace, Property, TextEdit};
pub use entry::Entry;
pub use error::{ImportError, StoreError};
pub use events::{ChangeEvent, Origin, Subscription};
pub use json::{JsonOptions, JsonSource, JsonSummary};
pub use options::StoreOptions;
pub use remake::{Fate, RemakeError};
pub use sds_engine::{
    Anchor, BlobHash, BlobRef, Change, ChangeHeader, DecodeError, Digest, EntryId, Integrated,
    NotABlobHash, NotAnEntryId, OpId, Patch, ReplicaId, Side, TextSlice, TextUnit, Timestamp,
    Version,
};
pub use store::DataStore;
pub use undo::UndoOptions;
pub use value::{ItemValue, NewValue, ValueKind};

/// The examples in the guides hold.
#[cfg(doctest)]
#[doc = include_str!("../../docs/events-and-undo.md")]
mod events_and_undo {}
