//! A store that is kept in memory: for tests, and for stores that need no disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sds_engine::{BlobHash, ReplicaId};

use super::blob_list::BlobList;
use super::{Batch, LogPage, Persistence, StorageError};
use crate::blob_rows::Content;
use crate::blob_storage::{BlobStorage, Claims};
use crate::seat::Seat;
use crate::store_id::StoreId;

/// Clones share what is kept, as two openings of one file would.
#[derive(Clone)]
pub struct MemoryPersistence {
    store: StoreId,
    kept: Arc<Mutex<Kept>>,
    blobs: MemoryBlobs,
}

/// Asked before each write whether it may go ahead, as a disk would be.
type Guard = dyn Fn() -> Result<(), StorageError> + Send + Sync;

#[derive(Clone, Debug, Default)]
struct Kept {
    snapshot: Option<Arc<[u8]>>,
    seats: BTreeMap<ReplicaId, Seat>,
    log: Vec<Arc<[u8]>>,
}

/// The blobs, and their parts, by name, and their bytes by number.
#[derive(Clone, Default)]
struct MemoryBlobs {
    kept: Arc<Mutex<KeptBlobs>>,
    claims: Arc<Claims>,
    guard: Option<Arc<Guard>>,
}

#[derive(Clone, Debug, Default)]
struct KeptBlobs {
    last_number: u64,
    list: BlobList,
    parts: BTreeMap<BlobHash, Content>,
    bytes: BTreeMap<u64, Vec<u8>>,
}

impl MemoryPersistence {
    /// An empty store that `replica` writes to.
    #[must_use]
    pub fn new(store: StoreId, replica: ReplicaId) -> Self {
        let seats = BTreeMap::from([(replica, Seat::new(replica))]);
        let kept = Kept { seats, ..Kept::default() };
        Self { store, kept: Arc::new(Mutex::new(kept)), blobs: MemoryBlobs::default() }
    }

    /// Takes over the snapshot and the log of another.
    pub(super) fn fill(
        &mut self,
        snapshot: Option<Vec<u8>>,
        read_log: impl Fn(u64) -> Result<LogPage, StorageError>,
    ) -> Result<(), StorageError> {
        let mut kept = self.kept();
        kept.snapshot = snapshot.map(Into::into);
        let mut from = Some(0);
        while let Some(at) = from {
            let page = read_log(at)?;
            kept.log.extend(page.changes);
            from = page.next;
        }
        Ok(())
    }

    /// A copy that goes its own way, as one of a disk would.
    #[must_use]
    pub fn copy(&self) -> Self {
        let kept = Arc::new(Mutex::new(self.kept().clone()));
        let blobs = Arc::new(Mutex::new(self.blobs.kept().clone()));
        let blobs = MemoryBlobs { kept: blobs, ..MemoryBlobs::default() };
        Self { store: self.store.clone(), kept, blobs }
    }

    /// The same, where each write asks `guard` first: it may fail as a full disk does, or take its
    /// time as a slow one.
    #[must_use]
    pub fn guarded(
        mut self,
        guard: impl Fn() -> Result<(), StorageError> + Send + Sync + 'static,
    ) -> Self {
        self.blobs.guard = Some(Arc::new(guard));
        self
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // No code under this lock can leave the data half changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryPersistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryPersistence").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Persistence for MemoryPersistence {
    fn store(&self) -> &StoreId {
        &self.store
    }

    fn seats(&self) -> Vec<Seat> {
        self.kept().seats.values().cloned().collect()
    }

    fn read_snapshot(&self) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.kept().snapshot.as_ref().map(|snapshot| snapshot.to_vec()))
    }

    fn read_log(&self, from: u64) -> Result<LogPage, StorageError> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let changes = self.kept().log.iter().skip(from).cloned().collect();
        Ok(LogPage { changes, next: None })
    }

    fn blobs(&self) -> Arc<dyn BlobStorage> {
        Arc::new(self.blobs.clone())
    }

    fn retain_blobs(&mut self, referenced: &BTreeSet<BlobHash>) -> Result<(), StorageError> {
        let mut kept = self.blobs.kept();
        let KeptBlobs { list, parts, bytes, .. } = &mut *kept;
        list.whole.retain(|hash, _| referenced.contains(hash));
        parts.retain(|hash, _| referenced.contains(hash));
        let named: BTreeSet<u64> =
            list.whole.values().chain(parts.values()).map(|content| content.number).collect();
        bytes.retain(|number, _| named.contains(number));
        Ok(())
    }

    fn append(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.blobs.ask_guard()?;
        let mut kept = self.kept();
        if let Some(snapshot) = &batch.snapshot {
            kept.snapshot = Some(Arc::clone(snapshot));
            kept.log.clear();
        }
        kept.seats.extend(batch.seats.iter().map(|seat| (seat.replica, seat.clone())));
        kept.log.extend(batch.changes.iter().cloned());
        drop(kept);
        let mut blobs = self.blobs.kept();
        for (_, number) in &batch.released {
            blobs.bytes.remove(number);
        }
        for (hash, bytes) in &batch.blobs {
            if !blobs.list.whole.contains_key(hash) {
                let content = blobs.next(bytes.len() as u64);
                blobs.bytes.insert(content.number, bytes.to_vec());
                blobs.list.whole.insert(*hash, content);
            }
        }
        Ok(())
    }
}

impl MemoryBlobs {
    fn ask_guard(&self) -> Result<(), StorageError> {
        self.guard.as_ref().map_or(Ok(()), |guard| guard())
    }

    fn kept(&self) -> MutexGuard<'_, KeptBlobs> {
        // No code under this lock can leave the data half changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeptBlobs {
    const fn next(&mut self, size: u64) -> Content {
        self.last_number += 1;
        Content { number: self.last_number, size }
    }

    fn held(&self, number: u64) -> u64 {
        self.bytes.get(&number).map_or(0, |bytes| bytes.len() as u64)
    }
}

impl fmt::Debug for MemoryBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBlobs").field("kept", &self.kept).finish_non_exhaustive()
    }
}

impl BlobStorage for MemoryBlobs {
    fn find(&self, hash: &BlobHash) -> Result<Option<Content>, StorageError> {
        Ok(self.kept().list.whole.get(hash).copied())
    }

    fn read(&self, number: u64, offset: u64, max: usize) -> Result<Vec<u8>, StorageError> {
        let kept = self.kept();
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = kept.bytes.get(&number).and_then(|bytes| bytes.get(offset..));
        let rest = rest.unwrap_or_default();
        Ok(rest.get(..max.min(rest.len())).unwrap_or_default().to_vec())
    }

    fn begin(&self) -> u64 {
        self.kept().next(0).number
    }

    fn part_len(&self, hash: &BlobHash, size: u64) -> Result<u64, StorageError> {
        let kept = self.kept();
        let part = kept.parts.get(hash).filter(|part| part.size == size);
        Ok(part.map_or(0, |part| kept.held(part.number)))
    }

    fn resume(&self, hash: &BlobHash, size: u64) -> Result<Option<(Content, u64)>, StorageError> {
        let mut kept = self.kept();
        let part = match kept.parts.get(hash) {
            Some(part) if part.size == size => *part,
            _ => kept.next(size),
        };
        kept.parts.insert(*hash, part);
        Ok(Some((part, kept.held(part.number))))
    }

    fn append(&self, number: u64, offset: u64, bytes: &[u8]) -> Result<bool, StorageError> {
        self.ask_guard()?;
        let mut kept = self.kept();
        if kept.held(number) != offset {
            return Ok(false);
        }
        kept.bytes.entry(number).or_default().extend_from_slice(bytes);
        Ok(true)
    }

    fn keep(&self, hash: &BlobHash, content: Content) -> Result<(), StorageError> {
        self.ask_guard()?;
        let mut kept = self.kept();
        kept.parts.remove(hash);
        kept.list.whole.entry(*hash).or_insert(content);
        Ok(())
    }

    fn forget(&self, number: u64, part_of: Option<&BlobHash>) -> Result<(), StorageError> {
        self.ask_guard()?;
        let mut kept = self.kept();
        kept.bytes.remove(&number);
        if let Some(hash) = part_of
            && kept.parts.get(hash).is_some_and(|part| part.number == number)
        {
            kept.parts.remove(hash);
        }
        Ok(())
    }

    fn pin(&self, hash: &BlobHash) {
        self.kept().list.pin(hash);
    }

    fn unpin(&self, hash: &BlobHash) {
        self.kept().list.unpin(hash);
    }

    fn let_go(&self, hash: &BlobHash) -> Option<u64> {
        self.kept().list.let_go(hash)
    }

    fn let_go_late(&self) -> Vec<(BlobHash, u64)> {
        self.kept().list.let_go_late()
    }

    fn claims(&self) -> &Claims {
        &self.claims
    }
}
