//! The store itself: made new or from bytes, edited in transactions, kept equal by patches.

use std::sync::Arc;

use sds_engine::{
    BlobHash, BlobRef, Digest, EntryId, Field, Integrated, Patch, Replica, ReplicaId, Transaction,
    Value, Version,
};

use crate::blob::Blobs;
use crate::entry::Entry;
use crate::error::StoreError;
use crate::limits::LITERAL_SIZE_LIMIT;

/// A tree of items and links. See the crate's documentation for a first example.
#[derive(Debug)]
pub struct DataStore {
    replica: Replica,
    blobs: Blobs,
    literal_size_limit: usize,
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

    fn from_replica(replica: Replica) -> Self {
        Self { replica, blobs: Blobs::default(), literal_size_limit: LITERAL_SIZE_LIMIT }
    }

    /// Keeps texts up to `limit` UTF-16 units inline, and makes blobs of longer ones.
    #[must_use]
    pub const fn with_literal_size_limit(mut self, limit: usize) -> Self {
        self.literal_size_limit = limit;
        self
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
        Ok(self.replica.integrate(Patch::decode(patch)?)?)
    }

    /// Keeps a blob that was fetched or is about to be referred to, and returns its name.
    pub fn add_blob(&mut self, bytes: impl Into<Arc<[u8]>>) -> BlobHash {
        self.blobs.insert(bytes.into())
    }

    /// The blob with this hash, if it is at hand.
    #[must_use]
    pub fn blob(&self, hash: &BlobHash) -> Option<Arc<[u8]>> {
        self.blobs.find(hash).cloned()
    }

    /// The blobs that values refer to, each once, in order of hash. Costs a walk over the store.
    #[must_use]
    pub fn referenced_blobs(&self) -> Vec<BlobRef> {
        let values = self.replica.shown_entries().map(|id| self.replica.value(id, &Field::Value));
        let mut blobs: Vec<BlobRef> = values
            .filter_map(|value| match value {
                Value::Blob(blob) => Some(blob),
                _ => None,
            })
            .collect();
        blobs.sort_by_key(|blob| (blob.hash, blob.size));
        blobs.dedup_by_key(|blob| blob.hash);
        blobs
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

    pub(crate) const fn replica_mut(&mut self) -> &mut Replica {
        &mut self.replica
    }

    pub(crate) const fn literal_size_limit(&self) -> usize {
        self.literal_size_limit
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
            self.store.replica.roll_back(transaction);
        }
    }
}
