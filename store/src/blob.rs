//! Contents too large to stay inline, kept apart under their SHA-256, and who refers to them.
//!
//! A content is at hand in memory, or in a [`BlobSource`] that the store was given: a file, as a rule.
//! Those in the source are not kept in memory.
//!
//! References follow each change: the engine marks the entries whose values were set, and only these
//! are looked at. A content whose last reference has gone stays until somebody releases it, since an
//! undo or a late change may refer to it again.
//!
//! Invariants:
//! - `counts` has each hash that a value of a live entry refers to, with how many do.
//! - `dropped` has each hash whose last reference has gone since it was last asked for.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
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

/// Where contents are that are not in memory. It is asked while the store is borrowed, so it answers
/// soon.
pub trait BlobSource: fmt::Debug + Send + Sync {
    /// How many bytes the content has, if it is there.
    fn size(&self, hash: &BlobHash) -> Option<u64>;

    /// The content, whole, if it is there and its bytes are those of the hash.
    fn read(&self, hash: &BlobHash) -> Option<Arc<[u8]>>;

    /// Whether the content is there, as far as that is known without asking anybody else.
    fn is_known(&self, hash: &BlobHash) -> Option<bool> {
        Some(self.size(hash).is_some())
    }

    /// Keeps a content that nothing refers to for somebody who is about to refer to it again; false if
    /// it was there and is gone.
    fn hold(&self, _: &BlobRef) -> bool {
        true
    }
}

/// Blobs whose last reference has gone, in order of hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DroppedBlobs {
    /// Those that are not needed any more.
    pub free: Vec<BlobHash>,
    /// Those that undoing or redoing may refer to again.
    pub undoable: Vec<BlobRef>,
}

/// The blobs at hand, each once; and what the store's values refer to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blobs {
    held: HashMap<BlobHash, Arc<[u8]>>,
    source: Option<Arc<dyn BlobSource>>,
    values: HashMap<EntryId, BlobRef>,
    counts: HashMap<BlobHash, usize>,
    dropped: HashSet<BlobHash>,
    has_dropped_more: bool,
}

impl Blobs {
    fn is_in_source(&self, hash: &BlobHash) -> bool {
        self.source.as_ref().is_some_and(|source| source.size(hash).is_some())
    }

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
        let Self { held, source, counts, mut dropped, .. } = std::mem::take(self);
        dropped.extend(counts.into_keys());
        *self = Self { held, source, dropped, has_dropped_more: true, ..Self::of(replica) };
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

    /// Whether a content that is about to be referred to again was here and is gone.
    pub(crate) fn is_gone(&self, blob: &BlobRef) -> bool {
        let is_at_hand = self.counts.contains_key(&blob.hash) || self.held.contains_key(&blob.hash);
        !is_at_hand && self.source.as_ref().is_some_and(|source| !source.hold(blob))
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
                self.dropped.insert(before.hash);
                self.has_dropped_more = true;
            }
        }
    }
}

impl DataStore {
    /// Keeps a blob that was fetched or is about to be referred to, and returns its name.
    pub fn add_blob(&mut self, bytes: impl Into<Arc<[u8]>>) -> BlobHash {
        let bytes = bytes.into();
        let hash = blob_hash(&bytes);
        // Nobody is asked: what may be in the source is kept until that is known.
        if self.knows_blob(&hash) != Some(true) {
            self.blobs.held.entry(hash).or_insert(bytes);
        }
        hash
    }

    /// The blob with this hash, if it is at hand. Reads it whole if it is not in memory.
    #[must_use]
    pub fn blob(&self, hash: &BlobHash) -> Option<Arc<[u8]>> {
        let held = self.blobs.held.get(hash).cloned();
        held.or_else(|| self.blobs.source.as_ref()?.read(hash))
    }

    /// The blob with this hash, if it is in memory and not in the source: what is still to be written
    /// there.
    #[must_use]
    pub fn blob_in_memory(&self, hash: &BlobHash) -> Option<Arc<[u8]>> {
        self.blobs.held.get(hash).cloned()
    }

    /// Whether the blob with this hash is at hand. O(1), and as long as the source takes to say.
    #[must_use]
    pub fn has_blob(&self, hash: &BlobHash) -> bool {
        self.blobs.held.contains_key(hash) || self.blobs.is_in_source(hash)
    }

    /// Looks for blobs that are not in memory in `source` from now on.
    pub fn set_blob_source(&mut self, source: Arc<dyn BlobSource>) {
        self.blobs.source = Some(source);
    }

    /// Whether the blob with this hash is at hand, as far as that is known without asking anybody: a
    /// source may have to. O(1).
    #[must_use]
    pub fn knows_blob(&self, hash: &BlobHash) -> Option<bool> {
        if self.blobs.held.contains_key(hash) {
            return Some(true);
        }
        self.blobs.source.as_ref().map_or(Some(false), |source| source.is_known(hash))
    }

    /// Lets go of the blobs in memory that are known to be in the source too. Costs the blobs in memory.
    pub fn unload_blobs(&mut self) {
        let Blobs { held, source: Some(source), .. } = &mut self.blobs else { return };
        held.retain(|hash, _| source.is_known(hash) != Some(true));
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
        blobs.retain(|blob| !self.has_blob(&blob.hash));
        blobs
    }

    /// The blobs in memory that no value refers to, in order of hash; but for those that undoing may
    /// bring back.
    #[must_use]
    pub fn unreferenced_blobs(&self) -> Vec<BlobHash> {
        let undoable = self.undoable_blobs();
        let is_free = |hash: &&BlobHash| {
            !self.blobs.counts.contains_key(*hash) && !undoable.contains_key(*hash)
        };
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

    /// The blobs whose last reference has gone since they were last asked for, for whoever keeps them;
    /// one that undoing may bring back is free only once it no longer may and another one has gone. What
    /// is free is no longer kept in memory.
    pub fn take_dropped_blobs(&mut self) -> DroppedBlobs {
        let mut taken = DroppedBlobs::default();
        if !std::mem::take(&mut self.blobs.has_dropped_more) {
            return taken;
        }
        let undoable = self.undoable_blobs();
        let Blobs { held, counts, dropped, .. } = &mut self.blobs;
        dropped.retain(|hash| {
            if counts.contains_key(hash) {
                return false;
            }
            match undoable.get(hash) {
                Some(blob) => taken.undoable.push(*blob),
                None => {
                    held.remove(hash);
                    taken.free.push(*hash);
                }
            }
            undoable.contains_key(hash)
        });
        taken.free.sort_unstable();
        taken.undoable.sort_unstable_by_key(|blob| blob.hash);
        taken
    }

    fn undoable_blobs(&self) -> HashMap<BlobHash, BlobRef> {
        let undoable = self.undo_ref().into_iter().flat_map(UndoHistory::blobs);
        undoable.map(|blob| (blob.hash, blob)).collect()
    }
}
