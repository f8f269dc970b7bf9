//! A store that is kept on disk and equal with a relay, without thread, socket, clock or randomness:
//! what a [`SyncEngine`](crate::SyncEngine) does, for whoever brings another loop.
//!
//! Edits and patches go in, and what is to be written comes out; the caller hands it to the disk, in
//! that order, and sends nothing before it is there. [`Link`](crate::Link) is the connection that goes
//! with it, [`WriteQueue`](crate::WriteQueue) what waits for the disk.
//!
//! Invariants:
//! - E1. What came out to be written is exactly what is in `ledger`, in an order in which each change
//!   comes after those it builds on.
//! - E2. `blobs_to_fetch` lists blobs that the state refers to, not only some change, that are not
//!   known to be here, and that are wanted; `blobs_to_send` lists blobs that may be here. Nobody is
//!   asked about them while the store is in use.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use sds_engine::{BlobHash, ChangeHeader, Patch, ReplicaId, Version};
use sds_store::{DataStore, StoreError};

use crate::blob_storage::BlobStorage;
use crate::intake;
use crate::ledger::{Ledger, history_missing};
use crate::local_store::LocalStore;
use crate::persistence::{Batch, Persistence, StorageError};
use crate::store_id::StoreId;
use crate::sync_engine::{BlobFetch, SyncError};

mod blobs;
mod doubts;
mod reseat;
mod visitors;

pub(crate) use doubts::Doubts;
pub use reseat::Purpose;
pub(crate) use reseat::without;
use visitors::Tips;
pub(crate) use visitors::{LogPart, Snapshot};

/// The store, and what has been passed on of it.
pub struct SyncedStore {
    id: StoreId,
    pub(crate) store: DataStore,
    ledger: Ledger,
    /// What is being found out about seats of which a relay has other changes.
    doubts: Doubts,
    /// Whether another process owns the file: only that one can put changes made again in the place of those
    /// in it.
    is_guest: bool,
    /// How many ids were given up at a relay's word since the last local edit.
    reseats: u32,
    /// How often an id was given up at the word of a peer that only reads.
    reseats_for_readers: u32,
    /// How often something here was made again: what was said of the history before holds no more.
    resettled: u64,
    /// The last snapshot for a guest.
    snapshot: Option<Snapshot>,
    tips: Tips,
    /// The blobs in the store's file.
    blobs: Arc<dyn BlobStorage>,
    pub(crate) blobs_to_send: BTreeMap<BlobHash, u64>,
    pub(crate) blobs_to_fetch: BTreeMap<BlobHash, u64>,
    /// Those to send that the process which owns the file did not have when it was asked.
    blobs_absent: BTreeMap<BlobHash, u64>,
    blob_fetch: BlobFetch,
    /// Blobs that somebody has asked for.
    asked: BTreeSet<BlobHash>,
}

/// What is to be written to the store's file.
#[derive(Clone, Debug, Default)]
pub struct Handover {
    /// What to write.
    pub batch: Batch,
    /// Once it is written, and all before it, the file has all of this. With a snapshot, it is all that
    /// the file has.
    pub upto: Version,
}

impl Handover {
    /// What of `persisted`, which was on disk before, is still there by its former name, if this
    /// [settled](TakenIn::Settled) the seats.
    #[must_use]
    pub fn still_there(&self, persisted: &Version) -> Version {
        let mut still = Version::new();
        persisted.iter().for_each(|(replica, next)| {
            still.advance(replica, next.min(self.upto.next(replica)));
        });
        still
    }
}

/// What the store has gained.
#[derive(Debug, Default)]
pub struct Captured {
    /// To be written.
    pub handover: Handover,
    /// The changes that are new.
    pub changes: Vec<Arc<[u8]>>,
    /// Whether they refer to blobs.
    pub has_blobs: bool,
}

/// What became of a relay's patch.
#[derive(Debug)]
pub enum TakenIn {
    /// It is in the store.
    Changes {
        /// What the store has gained.
        captured: Captured,
        /// Those of the changes that came with the patch; handlers may have answered with others.
        came: Vec<Arc<[u8]>>,
        /// Whether there were others that only a newer program understands: they were passed over.
        is_too_new: bool,
    },
    /// It is part of an inquiry about seats, which goes on.
    Inquiring,
    /// It was the last part. This has to be written before the next connection is opened, which is
    /// what comes next. The store may have lost changes by their former names: it has what
    /// `handover.upto` says, and no more.
    Settled {
        /// To be written.
        handover: Handover,
    },
}

/// Why a patch of the relay was not taken in. The store is as it was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TakeInError {
    /// The store refuses it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something on this side is wrong.
    #[error(transparent)]
    Sync(#[from] SyncError),
}

/// Who made the changes that a store has gained.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Local,
    Relay,
}

impl SyncedStore {
    /// Takes over a store that was loaded, and gives away its file. What was not committed of the store
    /// comes out of the first [`edit`](Self::edit).
    #[must_use]
    pub fn new(local: LocalStore) -> (Self, Box<dyn Persistence>) {
        let id = local.id().clone();
        let this = Self {
            id,
            store: local.store,
            ledger: local.ledger,
            doubts: Doubts::default(),
            is_guest: local.persistence.followed_file().is_some(),
            reseats: 0,
            reseats_for_readers: 0,
            resettled: 0,
            snapshot: None,
            tips: Tips::default(),
            blobs: local.blobs,
            blobs_to_send: BTreeMap::new(),
            blobs_to_fetch: BTreeMap::new(),
            blobs_absent: BTreeMap::new(),
            blob_fetch: BlobFetch::default(),
            asked: BTreeSet::new(),
        };
        (this, local.persistence)
    }

    /// Edits the store; says what it has gained.
    ///
    /// # Errors
    /// [`StorageError::HistoryMissing`] if own changes are gone that were never written.
    pub fn edit<T>(
        &mut self,
        work: impl FnOnce(&mut DataStore) -> T,
    ) -> Result<(T, Captured), StorageError> {
        let value = work(&mut self.store);
        let captured = self.capture(Origin::Local)?;
        if !captured.changes.is_empty() {
            self.reseats = 0;
        }
        Ok((value, captured))
    }

    /// Takes in a patch of the relay, which had `at_open` when the connection was opened, or leaves the
    /// store untouched. If the relay has changes of another copy of this file, the store goes on as
    /// `fresh`, an id that nobody has drawn before.
    ///
    /// # Errors
    /// Any [`TakeInError`].
    pub fn take_in(
        &mut self,
        purpose: Purpose,
        at_open: &Version,
        patch: &[u8],
        fresh: ReplicaId,
    ) -> Result<TakenIn, TakeInError> {
        if purpose == Purpose::Inquiry {
            let patch =
                Patch::decode(patch).map_err(|error| reseat::cannot_reseat(&error.into()))?;
            let settled = self.settle_seats(at_open, patch, fresh)?;
            return Ok(match settled {
                Some(handover) => TakenIn::Settled { handover },
                None => TakenIn::Inquiring,
            });
        }
        self.apply(patch, fresh)
    }

    /// The changes that `version` lacks, as far as they are in `persisted`.
    ///
    /// # Errors
    /// [`StorageError::HistoryMissing`] if some of them are gone.
    pub fn durable_since(
        &self,
        version: &Version,
        persisted: &Version,
    ) -> Result<Vec<Arc<[u8]>>, StorageError> {
        let changes = self.changes_since(version)?;
        Ok(among(changes, persisted).map(|(_, change)| change).collect())
    }

    /// The changes that `version` lacks, on disk or not.
    pub(crate) fn changes_since(&self, version: &Version) -> Result<Vec<Arc<[u8]>>, StorageError> {
        self.store.changes_since(version).ok_or_else(|| history_missing(&self.id))
    }

    /// Notes what the relay has on its disk.
    pub fn note_stored(&mut self, stored: &Version) {
        self.ledger.seats.note_stored(stored);
    }

    /// A snapshot in the place of the file's log, unless that is empty.
    pub fn checkpoint(&mut self) -> Option<Handover> {
        (self.ledger.log_bytes > 0).then(|| {
            let batch = self.ledger.checkpoint(&self.store);
            Handover { batch, upto: self.ledger.version.clone() }
        })
    }

    /// The store's id.
    #[must_use]
    pub const fn id(&self) -> &StoreId {
        &self.id
    }

    /// The store, to read.
    #[must_use]
    pub const fn store(&self) -> &DataStore {
        &self.store
    }

    /// What came out to be written so far.
    #[must_use]
    pub const fn captured(&self) -> &Version {
        &self.ledger.version
    }

    /// How often something here was made again.
    pub(crate) const fn resettled(&self) -> u64 {
        self.resettled
    }

    /// The blobs in the store's file.
    #[must_use]
    pub const fn blobs(&self) -> &Arc<dyn BlobStorage> {
        &self.blobs
    }

    fn apply(&mut self, patch: &[u8], fresh: ReplicaId) -> Result<TakenIn, TakeInError> {
        let Self { store, ledger, .. } = self;
        let (taken_in, is_too_new) = intake::apply(store, &mut ledger.seats, patch, fresh)?;
        // Handlers may have answered with edits, which the relay has yet to hear of.
        let is_answered = *store.version() != taken_in;
        let origin = if is_answered { Origin::Local } else { Origin::Relay };
        let captured = self.capture(origin).map_err(SyncError::Storage)?;
        let mut came = captured.changes.clone();
        came.retain(|change| {
            let header = ChangeHeader::decode(change);
            header.is_ok_and(|header| taken_in.has(header.last()))
        });
        Ok(TakenIn::Changes { captured, came, is_too_new })
    }

    /// What the store has gained since the last call.
    fn capture(&mut self, origin: Origin) -> Result<Captured, StorageError> {
        self.store.unload_blobs();
        let gained = self.ledger.gain(&mut self.store, &*self.blobs, &self.id)?;
        if gained.unsaved.is_empty() {
            return Ok(Captured::default());
        }
        let has_blobs = !gained.blobs.is_empty();
        for blob in &gained.blobs {
            if self.store.blob_reference_count(&blob.hash) > 0 && self.lacks(blob) {
                self.blobs_to_fetch.insert(blob.hash, blob.size);
            }
        }
        if gained.has_dropped {
            let store = &self.store;
            self.blobs_to_fetch.retain(|hash, _| store.blob_reference_count(hash) > 0);
            self.blobs_absent.retain(|hash, _| store.blob_reference_count(hash) > 0);
        }
        if origin == Origin::Local {
            self.note_blobs_to_send(gained.blobs);
        }
        let handover = Handover { batch: gained.unsaved, upto: gained.upto };
        Ok(Captured { handover, changes: gained.changes, has_blobs })
    }
}

/// Those of the changes that are in `version`, and their headers.
fn among(
    changes: Vec<Arc<[u8]>>,
    version: &Version,
) -> impl Iterator<Item = (ChangeHeader, Arc<[u8]>)> + '_ {
    // The store holds only what it could read.
    let read = changes.into_iter().filter_map(|it| Some((ChangeHeader::decode(&it).ok()?, it)));
    read.filter(|(header, _)| version.has(header.last()))
}

impl fmt::Debug for SyncedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncedStore")
            .field("id", &self.id)
            .field("captured", &self.ledger.version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
