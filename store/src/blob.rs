//! Contents too large to stay inline, kept apart under their SHA-256, and who refers to them.
//!
//! References follow each change: the engine marks the entries whose values were set, and only these
//! are looked at. A content whose last reference has gone stays until somebody releases it, since an
//! undo or a late change may refer to it again.
//!
//! Invariant: `counts` has each hash that a value of a live entry refers to, with how many do.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sds_engine::{BlobHash, BlobRef, EntryId, Field, Replica, ValueRef};
use sha2::{Digest, Sha256};

use crate::store::DataStore;
use crate::undo::UndoHistory;

/// The SHA-256 of a content: its name everywhere.
#[must_use]
pub fn blob_hash(bytes: &[u8]) -> BlobHash {
    BlobHash(Sha256::digest(bytes).into())
}

/// The blobs at hand, in memory, each once; and what the store's values refer to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blobs {
    held: HashMap<BlobHash, Arc<[u8]>>,
    values: HashMap<EntryId, BlobRef>,
    counts: HashMap<BlobHash, usize>,
}

impl Blobs {
    /// What the values of a replica refer to. Costs a look at each entry.
    pub(crate) fn of(replica: &mut Replica) -> Self {
        replica.mark_values();
        let mut blobs = Self::default();
        for (entry, blob) in replica.blob_values() {
            blobs.refer(entry, Some(blob));
        }
        blobs
    }

    /// Looks at another replica from now on. Costs a look at each entry.
    pub(crate) fn look_anew(&mut self, replica: &mut Replica) {
        let held = std::mem::take(&mut self.held);
        *self = Self { held, ..Self::of(replica) };
    }

    /// Takes in what has changed since the last look. Costs the values that were set.
    pub(crate) fn follow(&mut self, replica: &mut Replica) {
        for entry in replica.take_marked_values() {
            let blob = match replica.value_ref(entry, &Field::Value) {
                ValueRef::Blob(blob) => Some(blob),
                _ => None,
            };
            self.refer(entry, blob);
        }
    }

    fn refer(&mut self, entry: EntryId, blob: Option<BlobRef>) {
        let before = match blob {
            Some(blob) => self.values.insert(entry, blob),
            None => self.values.remove(&entry),
        };
        if let Some(blob) = blob {
            *self.counts.entry(blob.hash).or_default() += 1;
        }
        if let Some(before) = before
            && let Entry::Occupied(mut count) = self.counts.entry(before.hash)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl DataStore {
    /// Keeps a blob that was fetched or is about to be referred to, and returns its name.
    pub fn add_blob(&mut self, bytes: impl Into<Arc<[u8]>>) -> BlobHash {
        let bytes = bytes.into();
        let hash = blob_hash(&bytes);
        self.blobs.held.entry(hash).or_insert(bytes);
        hash
    }

    /// The blob with this hash, if it is at hand.
    #[must_use]
    pub fn blob(&self, hash: &BlobHash) -> Option<Arc<[u8]>> {
        self.blobs.held.get(hash).cloned()
    }

    /// How many values refer to a blob, those of entries in Trash included. O(1).
    #[must_use]
    pub fn blob_reference_count(&self, hash: &BlobHash) -> usize {
        self.blobs.counts.get(hash).copied().unwrap_or(0)
    }

    /// The blobs that values refer to, each once, in order of hash. Costs the values that are blobs.
    #[must_use]
    pub fn referenced_blobs(&self) -> Vec<BlobRef> {
        let mut blobs: Vec<BlobRef> = self.blobs.values.values().copied().collect();
        blobs.sort_unstable_by_key(|blob| (blob.hash, blob.size, blob.is_text));
        blobs.dedup_by_key(|blob| blob.hash);
        blobs
    }

    /// Those of them that are not at hand: what to fetch.
    #[must_use]
    pub fn missing_blobs(&self) -> Vec<BlobRef> {
        let mut blobs = self.referenced_blobs();
        blobs.retain(|blob| !self.blobs.held.contains_key(&blob.hash));
        blobs
    }

    /// The blobs at hand that no value refers to, in order of hash; but for those that undoing may
    /// bring back.
    #[must_use]
    pub fn unreferenced_blobs(&self) -> Vec<BlobHash> {
        let undoable = self.undo_ref().into_iter().flat_map(UndoHistory::blobs);
        let undoable: HashSet<BlobHash> = undoable.map(|blob| blob.hash).collect();
        let is_free =
            |hash: &&BlobHash| !self.blobs.counts.contains_key(*hash) && !undoable.contains(*hash);
        let mut free: Vec<BlobHash> = self.blobs.held.keys().filter(is_free).copied().collect();
        free.sort_unstable();
        free
    }

    /// Lets go of the blobs that no value refers to, and returns which these were, for whoever keeps
    /// them on disk. One that is referred to again later has to be fetched or added again.
    ///
    /// ```
    /// use sds_store::{DataStore, EntryId, ReplicaId};
    ///
    /// # fn main() -> Result<(), sds_store::StoreError> {
    /// let mut store = DataStore::new(ReplicaId::new(1).unwrap());
    /// let photo = store.new_item_at(Some("image/png"), EntryId::ROOT, None)?;
    /// store.write_value(photo, vec![7; 100_000])?;
    /// let hash = store.referenced_blobs()[0].hash;
    /// assert_eq!(store.blob_reference_count(&hash), 1);
    ///
    /// store.write_value(photo, "no longer")?;
    /// assert_eq!(store.release_unreferenced_blobs(), [hash]);
    /// assert!(store.blob(&hash).is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn release_unreferenced_blobs(&mut self) -> Vec<BlobHash> {
        let free = self.unreferenced_blobs();
        free.iter().for_each(|hash| drop(self.blobs.held.remove(hash)));
        free
    }
}
