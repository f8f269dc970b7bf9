//! A store and its file, for one user at a time: load, edit, commit.
//!
//! Invariant L1: the file holds exactly the changes of `saved`, and the store has them all.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sds_engine::{BlobRef, Change, ChangeHeader, DecodeError, Op, Patch, Value, Version};
use sds_store::DataStore;

use crate::persistence::{Batch, Persistence, RedbPersistence, StorageError};
use crate::random;
use crate::store_id::StoreId;

/// A store's file, loaded. What [`commit`](Self::commit) has returned for survives a crash; what
/// was edited since is gone with this value.
///
/// ```
/// use sds_sync::{LocalStore, StoreId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let id: StoreId = "notes".parse()?;
/// let mut local = LocalStore::open_or_create(folder.path(), &id)?;
/// // Edit `local.store_mut()`; then make it durable, in one transaction.
/// local.commit()?;
/// # Ok(())
/// # }
/// ```
pub struct LocalStore {
    pub(crate) store: DataStore,
    pub(crate) persistence: Box<dyn Persistence>,
    pub(crate) saved: Version,
}

impl LocalStore {
    /// Opens the store `id` in `folder`, or makes it. Waits a few seconds for another process that
    /// has it open.
    ///
    /// # Errors
    /// Any [`StorageError`] but [`StorageError::NotFound`].
    pub fn open_or_create(folder: &Path, id: &StoreId) -> Result<Self, StorageError> {
        let fresh = random::replica_id();
        Self::load(RedbPersistence::open_or_create(folder, id, fresh)?)
    }

    /// Opens the store `id` in `folder`; creates nothing. Waits a few seconds for another process
    /// that has it open.
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn open_existing(folder: &Path, id: &StoreId) -> Result<Self, StorageError> {
        Self::load(RedbPersistence::open_existing(folder, id)?)
    }

    /// Loads what `persistence` keeps.
    ///
    /// # Errors
    /// If it cannot be read, or is no store.
    pub fn load(persistence: impl Persistence) -> Result<Self, StorageError> {
        let mut store = DataStore::new(persistence.replica());
        let mut from = Some(0);
        while let Some(at) = from {
            let page = persistence.read_log(at)?;
            restore(&mut store, &page.changes, persistence.store())?;
            from = page.next;
        }
        for blob in store.referenced_blobs() {
            if let Some(bytes) = persistence.read_blob(&blob.hash)?
                && store.add_blob(bytes) != blob.hash
            {
                return Err(corrupt(persistence.store(), "a blob is not what its name says"));
            }
        }
        let saved = store.version().clone();
        Ok(Self { store, persistence: Box::new(persistence), saved })
    }

    /// The store's id.
    #[must_use]
    pub fn id(&self) -> &StoreId {
        self.persistence.store()
    }

    /// The store, to read.
    #[must_use]
    pub const fn store(&self) -> &DataStore {
        &self.store
    }

    /// The store, to edit. Edits are on disk after the next [`commit`](Self::commit).
    pub const fn store_mut(&mut self) -> &mut DataStore {
        &mut self.store
    }

    /// Writes all new changes, and the blobs that they refer to, in one durable transaction.
    ///
    /// # Errors
    /// If that fails; then nothing was written, and it can be tried again.
    pub fn commit(&mut self) -> Result<(), StorageError> {
        let batch = batch_since(&self.store, &self.saved, self.id())?.unsaved;
        if !batch.is_empty() {
            self.persistence.append(&batch)?;
            self.saved = self.store.version().clone();
        }
        Ok(())
    }
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore").field("id", self.id()).field("saved", &self.saved).finish()
    }
}

/// What a store has gained.
pub(crate) struct Gained {
    /// What has to be written: changes, and those blobs that the store holds.
    pub(crate) unsaved: Batch,
    /// Every blob that the changes refer to.
    pub(crate) blobs: Vec<BlobRef>,
}

/// What `store`, which has this id, has gained since it had `version`.
pub(crate) fn batch_since(
    store: &DataStore,
    version: &Version,
    id: &StoreId,
) -> Result<Gained, StorageError> {
    let changes = store.changes_since(version).ok_or_else(|| history_missing(id))?;
    let blobs: Vec<BlobRef> = changes.iter().flat_map(|change| blobs_of(change)).collect();
    let held = blobs.iter().filter_map(|blob| Some((blob.hash, store.blob(&blob.hash)?))).collect();
    Ok(Gained { unsaved: Batch { changes, blobs: held }, blobs })
}

pub(crate) fn history_missing(id: &StoreId) -> StorageError {
    StorageError::HistoryMissing { path: PathBuf::from(id.file_name()) }
}

/// The blobs that a change refers to.
fn blobs_of(change: &[u8]) -> Vec<BlobRef> {
    // The store only holds changes that it could read.
    let ops = Change::decode(change);
    let ops = ops.iter().flat_map(Change::ops);
    let blob = |op: &Op| match op {
        Op::Set { value: Value::Blob(blob), .. } => Some(*blob),
        _ => None,
    };
    ops.filter_map(blob).collect()
}

/// Gives a store the changes of its file back.
fn restore(store: &mut DataStore, changes: &[Arc<[u8]>], id: &StoreId) -> Result<(), StorageError> {
    let patch = Patch::pack(changes.iter().map(|change| &**change));
    let too_new = || StorageError::FormatTooNew { path: PathBuf::from(id.file_name()) };
    match store.apply_remote_patch(&patch) {
        Ok(done) if done.newer > 0 => return Err(too_new()),
        Ok(_) => {}
        Err(_) => {
            return Err(match Patch::decode(&patch) {
                Err(DecodeError::FormatTooNew { .. }) => too_new(),
                _ => corrupt(id, "a change in the log is damaged"),
            });
        }
    }
    let is_here = |change: &Arc<[u8]>| {
        ChangeHeader::decode(change).is_ok_and(|header| store.version().has(header.last()))
    };
    if changes.iter().all(is_here) { Ok(()) } else { Err(corrupt(id, "the log has a gap")) }
}

fn corrupt(id: &StoreId, detail: &'static str) -> StorageError {
    StorageError::Corrupt { path: PathBuf::from(id.file_name()), detail }
}
