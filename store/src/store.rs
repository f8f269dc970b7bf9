//! The store itself: made new or from bytes, edited in transactions, kept equal by patches.

use std::sync::Arc;

use sds_engine::{
    Digest, EditError, EntryId, Integrated, Patch, Replica, ReplicaId, Transaction, Version,
};

use crate::blob::Blobs;
use crate::entry::Entry;
use crate::error::StoreError;
use crate::options::StoreOptions;

/// A tree of items and links. See the crate's documentation for a first example.
#[derive(Debug)]
pub struct DataStore {
    replica: Replica,
    pub(crate) blobs: Blobs,
    options: StoreOptions,
}

impl DataStore {
    /// A store with nothing but Root, Trash and Lost and Found.
    ///
    /// `replica` names this copy as an author; no two copies may ever use one id at a time.
    #[must_use]
    pub fn new(replica: ReplicaId) -> Self {
        Self::from_replica(Replica::new(replica))
    }

    /// The store in a snapshot that [`DataStore::as_binary`] gave, to be edited as `replica`.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] if the bytes are no snapshot, are damaged, or are newer.
    pub fn from_binary(replica: ReplicaId, snapshot: &[u8]) -> Result<Self, StoreError> {
        Ok(Self::from_replica(Replica::from_snapshot(replica, snapshot)?))
    }

    fn from_replica(mut replica: Replica) -> Self {
        let blobs = Blobs::of(&mut replica);
        Self { replica, blobs, options: StoreOptions::default() }
    }

    /// Gives the store other options than the usual ones.
    #[must_use]
    pub fn with_options(mut self, options: StoreOptions) -> Self {
        self.options = options;
        self
    }

    /// The options of this copy.
    #[must_use]
    pub const fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// Runs several edits as one: all of them happen, or none. Inside another transaction it is a
    /// part of that one which can fail by itself.
    ///
    /// # Errors
    /// What `edits` returns, or [`StoreError::TransactionTooLarge`]. Nothing has changed then.
    pub fn transact<T, E: From<StoreError>>(
        &mut self,
        edits: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        // The engine's transactions want the engine alone; blobs may stay, nobody refers to them.
        let transaction = self.replica.begin();
        let mut scope = Scope { store: self, transaction: Some(transaction) };
        let result = edits(scope.store)?;
        if let Some(transaction) = scope.transaction.take() {
            scope.store.replica.commit(transaction).map_err(StoreError::from)?;
        }
        Ok(result)
    }

    /// Takes in a patch from elsewhere. Empty bytes are an empty patch.
    ///
    /// # Errors
    /// If the patch is not readable or contradicts what is here. Nothing has changed then.
    pub fn apply_remote_patch(&mut self, patch: &[u8]) -> Result<Integrated, StoreError> {
        let done = self.replica.integrate(Patch::decode(patch)?)?;
        self.blobs.follow(&mut self.replica);
        Ok(done)
    }

    /// Takes in a snapshot that another copy of the store gave ([`DataStore::as_binary`]), as if it
    /// were a patch: nothing of what is here is lost. Costs the snapshot. Only for snapshots from where
    /// patches would be taken from: one unfolds to gigabytes at most.
    ///
    /// # Errors
    /// As for [`DataStore::from_binary`] and [`DataStore::apply_remote_patch`].
    pub fn merge_binary(&mut self, snapshot: &[u8]) -> Result<Integrated, StoreError> {
        let other = Replica::from_snapshot(self.replica.id(), snapshot)?;
        self.apply_remote_patch(&other.export(self.version()))
    }

    /// The one way in which a local edit reaches the engine.
    pub(crate) fn edit<T>(
        &mut self,
        edit: impl FnOnce(&mut Replica) -> Result<T, EditError>,
    ) -> Result<T, StoreError> {
        let done = edit(&mut self.replica)?;
        self.blobs.follow(&mut self.replica);
        Ok(done)
    }

    /// The id under which this copy is edited.
    #[must_use]
    pub const fn replica_id(&self) -> ReplicaId {
        self.replica.id()
    }

    /// The item that holds everything.
    #[must_use]
    pub const fn root_item(&self) -> Entry<'_> {
        Entry::new(self, EntryId::ROOT)
    }

    /// The item in which deleted entries wait.
    #[must_use]
    pub const fn trash_item(&self) -> Entry<'_> {
        Entry::new(self, EntryId::TRASH)
    }

    /// The item in which entries show that have lost their place.
    #[must_use]
    pub const fn lost_and_found_item(&self) -> Entry<'_> {
        Entry::new(self, EntryId::LOST_AND_FOUND)
    }

    /// The entry with this id, if it shows.
    #[must_use]
    pub fn entry_with_id(&self, id: EntryId) -> Option<Entry<'_>> {
        self.replica.is_shown(id).then(|| Entry::new(self, id))
    }

    /// The entry with this id.
    ///
    /// # Errors
    /// `not-found` if it does not show: it never was here, or was purged.
    pub fn entry(&self, id: EntryId) -> Result<Entry<'_>, StoreError> {
        self.entry_with_id(id).ok_or(StoreError::NotFound(id))
    }

    /// How many entries show, the three system items included.
    #[must_use]
    pub fn entry_count(&self) -> usize {
        self.replica.shown_entries().count()
    }

    /// Which ops this copy has: what to send to another copy, so that it exports what is missing.
    #[must_use]
    pub const fn version(&self) -> &Version {
        self.replica.version()
    }

    /// The version as opaque bytes.
    #[must_use]
    pub fn current_cursor(&self) -> Vec<u8> {
        self.version().encode()
    }

    /// A patch with exactly the changes that `since` lacks.
    #[must_use]
    pub fn export_patch(&self, since: &Version) -> Vec<u8> {
        self.replica.export(since)
    }

    /// The same for a cursor that [`DataStore::current_cursor`] gave, here or on another copy; an empty
    /// one knows nothing.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] if it is no cursor.
    pub fn export_patch_since(&self, cursor: &[u8]) -> Result<Vec<u8>, StoreError> {
        Ok(self.export_patch(&Version::decode(cursor)?))
    }

    /// The changes that `since` lacks, encoded, each after what it builds on; nothing if some came as
    /// a state, without their bytes.
    #[must_use]
    pub fn changes_since(&self, since: &Version) -> Option<Vec<Arc<[u8]>>> {
        self.replica.changes_since(since)
    }

    /// Everything but the blobs, as a snapshot (gzip).
    #[must_use]
    pub fn as_binary(&self) -> Vec<u8> {
        self.replica.snapshot()
    }

    /// One hash over the merged state: copies with the same changes have the same.
    pub fn digest(&mut self) -> Digest {
        self.replica.digest()
    }

    pub(crate) const fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Panics if an invariant of the engine does not hold; for tests.
    pub fn assert_invariants(&self) {
        self.replica.assert_invariants();
    }
}

/// Takes the transaction back when the closure fails or panics.
struct Scope<'a> {
    store: &'a mut DataStore,
    transaction: Option<Transaction>,
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            let DataStore { replica, blobs, .. } = &mut *self.store;
            replica.roll_back(transaction);
            blobs.follow(replica);
        }
    }
}
