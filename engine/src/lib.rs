//! The CRDT of the shareable data store: a movable tree of entries with last-writer-wins fields and
//! mergeable texts, and one log of changes.
//!
//! A [`Replica`] is one copy of the tree. Edit it, in transactions if need be; each transaction
//! becomes one [`Change`]. [`Replica::export`] packs the changes that another copy lacks as a
//! patch, [`Patch::decode`] reads it, and [`Replica::integrate`] takes it in. Copies with the same
//! changes are the same, in whatever order the changes arrived: [`Replica::digest`] says so.
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
//! # Replicas and their ids
//!
//! A [`ReplicaId`] names one author. Everything that the author makes is numbered without gaps, and
//! an [`OpId`] (who, and the how many-th) means one op or one character everywhere and for good. So
//! an id belongs to one copy at a time. Draw it at random, 64 bits, and keep it beside the
//! snapshot; a program that starts again goes on under the same id, since each id costs a place in
//! every [`Version`]. A second program beside the first takes an id of its own, and so does a file
//! that was copied or brought back from a backup.
//!
//! Save what was edited before sending it. A copy that forgets what others have seen from it would
//! give the same numbers out again, and others would refuse its changes as
//! [`IntegrateError::Forked`].
//!
//! # How two replicas meet
//!
//! Each tells the other its [`Replica::version`], which is all there is to tell: which ops it has.
//! [`Replica::export`] of the other's version is what the other lacks, as bytes. [`Patch::decode`]
//! checks all of them; then the receiver can look at every change, and refuse the patch by dropping
//! it.
//!
//! ```
//! use sds_engine::{EntryId, Patch, Replica, ReplicaId, Version};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut desk = Replica::new(ReplicaId::new(1).ok_or("zero")?);
//! let note = desk.create_item(EntryId::ROOT, 0)?;
//! let cursor = desk.version().encode();
//! desk.move_to(note, EntryId::LOST_AND_FOUND, 0)?;
//! let second = desk.export(&Version::decode(&cursor)?);
//! let both = desk.export(&Version::new());
//!
//! let patch = Patch::decode(&second)?;
//! for change in patch.changes() {
//!     assert_eq!(change.header().replica, desk.id());
//!     assert!(change.ops().iter().all(|op| op.subject().is_some_and(|(entry, _)| entry == note)));
//! }
//!
//! // The second change builds on the first, and waits for it.
//! let mut train = Replica::new(ReplicaId::new(2).ok_or("zero")?);
//! assert_eq!(train.integrate(patch)?.waiting, 1);
//! assert_eq!(train.missing().len(), 1);
//! // Both changes now; what is there already is counted and does nothing.
//! train.integrate(Patch::decode(&both)?)?;
//! assert_eq!(train.integrate(Patch::decode(&both)?)?.known, 2);
//! assert_eq!(train.parent(note), Some(EntryId::LOST_AND_FOUND));
//! # Ok(())
//! # }
//! ```
//!
//! Order and repetition make no difference. A change that comes before what it builds on waits in
//! the backlog, which [`limits`] bound and which no snapshot holds: what waits is not in the
//! version, so it is sent again. If integrating fails, nothing of the patch was taken in. The
//! errors say who is at fault: [`DecodeError`] the sender of the bytes, [`IntegrateError`] the
//! history that they come from, [`EditError`] the caller.
//!
//! # The tree, and what shows
//!
//! Entries are items, which have entries and fields, and links, which point to an item. Root, Trash
//! and Lost and Found exist without any op, so replicas that began apart merge; the last two show
//! in Root. Of moves that would together put entries inside each other, the one whose turn comes
//! last has no effect.
//!
//! Reading tells what *shows*, which every replica computes alike and nobody writes. An entry whose
//! container is gone shows in Lost and Found. The target of a live link that is itself gone shows
//! there as a *placeholder*: an empty item that becomes a real one when it is edited.
//! [`Replica::trash`] moves an entry into Trash with the time that it is given. [`Replica::purge`]
//! ends the *life* of an entry and of what shows inside it, against every edit by somebody who did
//! not know; an edit by somebody who does know begins the next life, in which the entry is empty.
//!
//! ```
//! use sds_engine::{EntryId, Patch, Replica, ReplicaId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut desk = Replica::new(ReplicaId::new(1).ok_or("zero")?);
//! let mut train = Replica::new(ReplicaId::new(2).ok_or("zero")?);
//! let folder = desk.create_item(EntryId::ROOT, 0)?;
//! train.integrate(Patch::decode(&desk.export(train.version()))?)?;
//!
//! desk.purge(folder)?;
//! let note = train.create_item(folder, 0)?;
//! train.create_link(folder, EntryId::ROOT, 0)?;
//! train.integrate(Patch::decode(&desk.export(train.version()))?)?;
//!
//! assert_eq!(train.parent(note), Some(EntryId::LOST_AND_FOUND));
//! assert!(!train.is_alive(folder));
//! assert!(train.is_shown(folder), "as the placeholder for the link");
//! # Ok(())
//! # }
//! ```
//!
//! # Fields and texts
//!
//! An entry has a label, a type, a value, and info under keys of your own: [`Field`]. Each holds
//! one [`Value`]. [`Replica::set`] replaces it, and of concurrent settings the newest wins.
//! [`Replica::splice`] edits the characters of the text that is there, and concurrent splices
//! merge; splices of a text that somebody replaced meanwhile are lost with it. So set what is short
//! and belongs together, and splice what people write.
//!
//! Positions count a [`TextUnit`]: UTF-16 units where a call names none. A range outside the text
//! or inside a character is an error. [`Replica::text_slice`] reads a part without a copy, and
//! [`Replica::text_position`] turns one unit into another. An [`Anchor`] is a place that stays with
//! the character beside it, on every replica: for cursors and marks.
//!
//! ```
//! use sds_engine::{EntryId, Field, Replica, ReplicaId, Side, TextUnit, Value};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut desk = Replica::new(ReplicaId::new(1).ok_or("zero")?);
//! let note = desk.create_item(EntryId::ROOT, 0)?;
//! desk.set(note, Field::Value, Value::Text("\u{1f34e} apples".into()))?;
//! let chars = TextUnit::Chars;
//! let cursor = desk.anchor(note, &Field::Value, 2, chars, Side::After)?;
//!
//! desk.splice_by(note, Field::Value, 2..2, chars, "ripe ")?;
//! assert_eq!(desk.text_slice(note, &Field::Value, 2..6, chars)?, "ripe");
//! assert_eq!(desk.anchor_position(&cursor, chars), Some(7));
//! assert_eq!(desk.anchor_position(&cursor, TextUnit::Utf16), Some(8));
//! # Ok(())
//! # }
//! ```
//!
//! # Transactions
//!
//! An edit by itself is a change. [`Replica::transact`] makes one change of several: all of them
//! happen or none, here and on every other replica, which never sees a part. An error or a panic
//! inside takes back what was done. Transactions nest; one that fails inside another can be
//! survived by the other.
//!
//! ```
//! use sds_engine::{EditError, EntryId, Field, Replica, ReplicaId, Value};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut desk = Replica::new(ReplicaId::new(1).ok_or("zero")?);
//! let before = desk.digest();
//! let result = desk.transact(|desk| {
//!     let note = desk.create_item(EntryId::ROOT, 0)?;
//!     desk.set(note, Field::Label, Value::Text("milk".into()))?;
//!     desk.splice(note, Field::Label, 0..9, "")
//! });
//! assert_eq!(result, Err(EditError::OutOfRange { from: 0, to: 9, len: 4 }));
//! assert_eq!(desk.child_count(EntryId::ROOT), 2, "Trash and Lost and Found");
//! assert_eq!(desk.digest(), before);
//! # Ok(())
//! # }
//! ```
//!
//! While a transaction is open its edits show, but they are in no version, no export and no snapshot,
//! and nothing can be integrated.
//!
//! # Deltas for a user interface
//!
//! After [`Replica::record_deltas`], [`Replica::take_delta`] tells what has changed since the last
//! look, in terms of what shows: which entries came, went or moved with their indexes, which fields
//! hold something else, which splices a text went through. It says the same of local edits and of
//! patches, and what came back to where it was is not in it.
//!
//! # Saving, and cutting history
//!
//! [`Replica::snapshot`] is everything in one piece; [`Replica::from_snapshot`] loads its state and
//! leaves the log packed until somebody asks for it. Between two snapshots it is enough to store
//! what [`Replica::export`] gives for the version saved last.
//!
//! [`Replica::compact`] drops the log. What merging needs stays, so that changes of somebody who
//! was away for however long still come in. Whoever lacks what was dropped gets the state in its
//! place, which *joins*: nothing of the receiver's own is lost.
//!
//! ```
//! use sds_engine::{EntryId, Patch, Replica, ReplicaId, Version};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut desk = Replica::new(ReplicaId::new(1).ok_or("zero")?);
//! desk.create_item(EntryId::ROOT, 0)?;
//! desk.compact();
//! let mut desk = Replica::from_snapshot(desk.id(), &desk.snapshot())?;
//! assert!(desk.changes_since(&Version::new()).is_none());
//!
//! let mut train = Replica::new(ReplicaId::new(2).ok_or("zero")?);
//! train.create_item(EntryId::ROOT, 0)?;
//! let patch = Patch::decode(&desk.export(train.version()))?;
//! let state = patch.states().next().ok_or("a state")?;
//! assert_eq!((state.version(), state.entry_count()), (desk.version().clone(), 1));
//! train.integrate(patch)?;
//! desk.integrate(Patch::decode(&train.export(desk.version()))?)?;
//! assert_eq!(train.child_count(EntryId::ROOT), 4, "two items, Trash, Lost and Found");
//! assert_eq!(train.digest(), desk.digest());
//! # Ok(())
//! # }
//! ```
//!
//! A state cannot be looked through change by change: [`Patch::changes`] has none of it. What it covers,
//! which entries it tells of and how large it is can be seen before it is joined ([`Patch::states`],
//! [`PatchState`]). Where the changes are gone, a fork can only be told by the times and lengths of
//! changes, of which all that both sides have are compared, not by what they say.
//!
//! # Whether two replicas are the same
//!
//! Replicas of equal [`Version`] have the same changes, and so show the same; [`Version::covers`]
//! tells whether one has all that the other has. A [`Digest`] is the proof: it hashes what was
//! merged, so that equal digests also rule out a fork or a fault. Neither looks at the backlog.
//!
//! # Changes by newer programs
//!
//! An op that this program does not know stalls nobody but its author, and what builds on it. Of such
//! parts of a patch the changes before the one with that op are taken, and the rest is passed over:
//! [`Patch::newer`] says whose and from where on before, [`Integrated::newer`] how many parts after.
//! They do not enter the version, so that a newer program asks for them again by itself. Only a newer
//! format of the whole patch is an error: [`DecodeError::FormatTooNew`].
//!
//! # What things cost
//!
//! | operation | cost | n counts |
//! |---|---|---|
//! | `create_item`, `create_link`, `trash` | O(log n) | siblings in the container |
//! | `move_to` | O(log n), of folders see below | siblings in the container |
//! | `purge` | O(n log n) | what shows inside the entry |
//! | `set`, `value` | O(n) | the length of the value |
//! | `splice` | O(log n), and what goes and comes | runs of the text |
//! | `text_slice`, `anchor`, `anchor_position` | O(log n) | runs of the text |
//! | `child_at`, `index_of` | O(log n) | siblings in the container |
//! | `parent`, `kind`, `is_alive` | O(1) | |
//! | `roll_back` | O(n log n) | edits taken back, and the texts that they spliced |
//! | `Patch::decode` | O(n) | bytes of the patch |
//! | `integrate` | O(n log n), of folders see below | what the patch brings |
//! | `export` | O(n log n) | what it returns, and the blocks in which that begins; O(1) for each replica |
//! | `take_delta` | O(n log n) | what was touched since the last look |
//! | `digest` | O(n) | entries touched since the last call, with their fields |
//! | `snapshot` | O(n log n) | the state and the log |
//! | `from_snapshot` | O(n log n) | the state; of the log its packed bytes are hashed |
//! | `compact` | O(n) | the log that it drops |
//!
//! A splice where the last edit was, as in typing, is O(1). The first splice of a text after it was
//! set costs the length of the text, and until then reading a part costs what is before the part.
//! Moving a folder adds its new depth or the number of folders inside it, whichever is less. A move
//! of a folder that comes late undoes and redoes the newer moves of folders, once for all moves of
//! a patch; a late move of an entry that never was a container does not. An item that is purged or
//! comes back costs the entries inside it, since they show elsewhere then. A patch with a state
//! costs the whole state.
//!
//! # What the engine does not do
//!
//! No clock, no randomness, no I/O, no threads: ids and times come in as arguments, and bytes go
//! out as values. It holds no blobs: a [`BlobRef`] names one by its hash, and bringing the bytes is
//! up to others. It does not decide who may do what, and has no limits but those of the format
//! ([`limits`]). What merging decides is laid down in `docs/merging.md`, the bytes in
//! `docs/format.md`.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic, clippy::unreachable))]

mod anchor;
mod backlog;
mod batch;
mod bits;
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
mod rebalance;
mod registers;
mod remake;
mod replica;
mod reversal;
#[cfg(feature = "serde")]
mod serde_forms;
mod short_op;
mod state;
mod text;
mod text_slice;
mod told;
mod transaction;
mod tree;
mod value;
mod value_ref;
mod version;

pub use anchor::Anchor;
pub use change::{Change, ChangeHeader};
pub use codec::{CheckedPatch, Patch, PatchState};
pub use delta::{
    Appearance, Delta, Difference, EntryDelta, FieldDelta, FieldEdit, Place, TextSplice,
};
pub use digest::Digest;
pub use error::{DecodeError, EditError, IntegrateError};
pub use id::{EntryId, Life, NotAnEntryId, OpId, ReplicaId, Stamp, Timestamp};
pub use op::{IdRange, NewEntry, Op};
pub use remake::Remake;
pub use replica::{Integrated, Replica};
pub use reversal::{Mentioned, Reversal, StandIns};
pub use text::{Side, TextChunks, TextUnit};
pub use text_slice::TextSlice;
pub use transaction::Transaction;
pub use tree::OrderKey;
pub use value::{BlobHash, BlobRef, Field, NotABlobHash, Value};
pub use value_ref::ValueRef;
pub use version::Version;
