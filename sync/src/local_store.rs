//! A store and its file, for one user at a time: load, edit, commit.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sds_engine::{BlobHash, BlobRef, ChangeHeader, DecodeError, Patch};
use sds_store::{DataStore, StoreError};

use crate::blob_storage::{BlobError, BlobReader, BlobStorage, StoredBlobs, write_blob};
use crate::ledger::Ledger;
use crate::persistence::{Intent, Persistence, SharedFile, StorageError};
use crate::seat::Seats;
use crate::store_id::StoreId;

/// A store's file, loaded, for as long as it takes to edit it: other processes that need the file wait
/// until this is dropped. A program that goes on running has a [`SyncEngine`](crate::SyncEngine), which
/// serves them. What [`commit`](Self::commit) has returned for survives a crash; what
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
    pub(crate) blobs: Arc<dyn BlobStorage>,
    pub(crate) ledger: Ledger,
    /// Blobs that were let go of, and are still in the file.
    released: Vec<(BlobHash, u64)>,
}

impl LocalStore {
    /// Opens the store `id` in `folder`, or makes it. If another process has its file open, this one
    /// becomes its guest, or waits for its turn.
    ///
    /// # Errors
    /// Any [`StorageError`] but [`StorageError::NotFound`].
    pub fn open_or_create(folder: &Path, id: &StoreId) -> Result<Self, StorageError> {
        Self::load(SharedFile::open(folder, id, Intent::Create)?)
    }

    /// Opens the store `id` in `folder` as [`open_or_create`](Self::open_or_create) does, but creates
    /// nothing.
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn open_existing(folder: &Path, id: &StoreId) -> Result<Self, StorageError> {
        Self::load(SharedFile::open(folder, id, Intent::Write)?)
    }

    /// The store `id` in `folder` as it is now, to read: nothing can be committed. Others may have its
    /// file at once.
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn open_to_read(folder: &Path, id: &StoreId) -> Result<Self, StorageError> {
        let mut local = Self::load(SharedFile::open(folder, id, Intent::Read)?)?;
        local.persistence.let_go();
        Ok(local)
    }

    /// Loads what `persistence` keeps.
    ///
    /// # Errors
    /// If it cannot be read, or is no store.
    pub fn load(mut persistence: impl Persistence) -> Result<Self, StorageError> {
        let (mut store, ledger) = read(&persistence)?;
        persistence.claim()?;
        // What a kill, or an undo that went with its process, has left behind.
        let referenced = store.referenced_blobs().into_iter().map(|blob| blob.hash).collect();
        persistence.retain_blobs(&referenced)?;
        drop(store.take_dropped_blobs());
        let blobs = persistence.blobs();
        store.set_blob_source(Arc::new(StoredBlobs(Arc::clone(&blobs))));
        Ok(Self { store, persistence: Box::new(persistence), blobs, ledger, released: Vec::new() })
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
        let mut ledger = self.ledger.clone();
        let id = self.persistence.store();
        let mut batch = ledger.gain(&mut self.store, &*self.blobs, id)?.unsaved;
        batch.released.append(&mut self.released);
        if batch.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.persistence.append(&batch) {
            self.released = batch.released;
            return Err(error);
        }
        self.ledger = ledger;
        self.store.unload_blobs();
        Ok(())
    }

    /// Stores all that `source` gives, in memory that does not depend on its size, to be made a value
    /// with [`DataStore::write_blob_value`] before this is closed. It is a text if it is
    /// to be one and is UTF-8.
    ///
    /// # Errors
    /// Any [`BlobError`]; then nothing of it stays.
    pub fn write_blob(&self, source: impl Read, is_text: bool) -> Result<BlobRef, BlobError> {
        write_blob(Arc::clone(&self.blobs), source, is_text)
    }

    /// The content of a value that is kept as a blob, to be read as a stream; none if it is not here.
    /// What was edited and not committed is not here.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn open_blob(&self, hash: &BlobHash) -> Result<Option<BlobReader>, StorageError> {
        BlobReader::open(Arc::clone(&self.blobs), *hash)
    }
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore")
            .field("id", self.id())
            .field("saved", &self.ledger.version)
            .finish()
    }
}

/// The store that `persistence` keeps, and what it has of it.
pub(crate) fn read(persistence: &dyn Persistence) -> Result<(DataStore, Ledger), StorageError> {
    let id = persistence.store();
    let mut seats = Seats::new(persistence.seats()).ok_or_else(|| corrupt(id, "it has no seat"))?;
    seats.follow(persistence.owners_seats());
    let replica = seats.current().replica;
    let snapshot = persistence.read_snapshot()?;
    let mut store = match &snapshot {
        Some(snapshot) => from_snapshot(id, DataStore::from_binary(replica, snapshot))?,
        None => DataStore::new(replica),
    };
    let (mut log_bytes, takes_snapshots) = (0, persistence.takes_snapshots());
    let mut from = Some(0);
    while let Some(at) = from {
        let page = persistence.read_log(at)?;
        if takes_snapshots {
            log_bytes += page.changes.iter().map(|change| change.len()).sum::<usize>();
        }
        restore(&mut store, &page.changes, id)?;
        from = page.next;
    }
    if store.version().next(replica) != seats.current().own.counter {
        return Err(corrupt(id, "a seat does not fit the changes"));
    }
    store.resume_at(seats.current().next);
    let (version, packed_bytes) = (store.version().clone(), snapshot.map_or(0, |it| it.len()));
    Ok((store, Ledger { version, seats, log_bytes, packed_bytes, takes_snapshots }))
}

/// What a snapshot that cannot be read says about its file.
fn from_snapshot(
    id: &StoreId,
    store: Result<DataStore, StoreError>,
) -> Result<DataStore, StorageError> {
    store.map_err(|error| match error {
        StoreError::Unreadable(DecodeError::FormatTooNew { .. } | DecodeError::OpTooNew { .. }) => {
            StorageError::FormatTooNew { path: PathBuf::from(id.file_name()) }
        }
        _ => corrupt(id, "the snapshot is damaged"),
    })
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
