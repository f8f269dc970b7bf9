//! What the callers, the connection and the writer of one store share.
//!
//! Invariants:
//! - E1. The writer was handed exactly what is in `ledger`, in an order in which each change comes
//!   after those it builds on: capturing happens under the lock that every edit holds.
//! - E2. `blobs_to_fetch` lists blobs that the state refers to, not only some change, that are not
//!   here, and that are wanted; `blobs_to_send` lists blobs that are here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use sds_engine::{BlobHash, BlobRef, ChangeHeader, ReplicaId, Version};
use sds_store::{DataStore, StoreError};
use tokio::sync::{oneshot, watch};

use super::SyncError;
use super::reseat::Doubts;
use super::status::{BlobFetch, ConnectionState, SyncStatus};
use super::writer::{Job, WriterGone, WriterHandle};
use crate::blob_storage::BlobStorage;
use crate::ledger::{Ledger, history_missing};
use crate::limits::UNSAVED_BYTES_MAX;
use crate::random;
use crate::store_id::StoreId;

/// The store, and what has been passed on of it.
pub(super) struct Core {
    pub(super) store: DataStore,
    pub(super) ledger: Ledger,
    /// What is being found out about seats of which a relay has other changes.
    pub(super) doubts: Doubts,
    blobs_to_send: BTreeMap<BlobHash, u64>,
    blobs_to_fetch: BTreeMap<BlobHash, u64>,
    blob_fetch: BlobFetch,
    /// Blobs that somebody has asked for.
    asked: BTreeSet<BlobHash>,
}

/// Who made the changes that a store has gained.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Local,
    Relay,
}

/// One open store.
pub(super) struct Shared {
    pub(super) id: StoreId,
    pub(super) status: watch::Sender<SyncStatus>,
    /// Counts the commits; to wait for the next one.
    pub(super) saved: watch::Sender<u64>,
    /// The blobs in the store's file.
    pub(super) blobs: Arc<dyn BlobStorage>,
    /// Counts when there is another blob to send or to fetch, or one has arrived.
    pub(super) blobs_changed: watch::Sender<u64>,
    core: Mutex<Core>,
    pub(super) writer: WriterHandle,
    /// Which of the drivers, counted, speaks for the connection. Only changes with the status
    /// locked.
    speaker: AtomicU64,
}

/// A driver, by number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct DriverNumber(u64);

impl From<WriterGone> for SyncError {
    fn from(_: WriterGone) -> Self {
        Self::Stopped
    }
}

impl Shared {
    pub(super) fn new(
        id: StoreId,
        (store, ledger): (DataStore, Ledger),
        blobs: Arc<dyn BlobStorage>,
        status: watch::Sender<SyncStatus>,
        saved: watch::Sender<u64>,
        writer: WriterHandle,
    ) -> Self {
        let core = Core {
            store,
            ledger,
            doubts: Doubts::default(),
            blobs_to_send: BTreeMap::new(),
            blobs_to_fetch: BTreeMap::new(),
            blob_fetch: BlobFetch::default(),
            asked: BTreeSet::new(),
        };
        let core = Mutex::new(core);
        let (blobs_changed, speaker) = (watch::Sender::new(0), AtomicU64::new(0));
        Self { id, status, saved, blobs, blobs_changed, core, writer, speaker }
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&DataStore) -> T) -> Result<T, SyncError> {
        Ok(look(&self.core()?.store))
    }

    pub(super) fn edit<T>(&self, work: impl FnOnce(&mut DataStore) -> T) -> Result<T, SyncError> {
        let mut core = self.core()?;
        if self.writer.unsaved_bytes() > UNSAVED_BYTES_MAX {
            let failure = self.status.borrow().storage_error.clone();
            return Err(failure.map_or(SyncError::DiskTooSlow, SyncError::Storage));
        }
        let value = work(&mut core.store);
        self.capture(&mut core, Origin::Local)?;
        Ok(value)
    }

    /// Takes a patch in, or leaves the store untouched; returns the changes that were new.
    pub(super) fn apply(&self, patch: &[u8]) -> Result<Vec<Arc<[u8]>>, ApplyError> {
        let mut core = self.core()?;
        let Core { store, ledger, .. } = &mut *core;
        let (seat, fresh) = (ledger.seats.current().replica, random::replica_id());
        let made = store.version().next(seat);
        let taken_in = store.hold_events(|store| {
            store.apply_remote_patch(patch)?;
            if store.version().next(seat) > made {
                // Another copy of this file is at work.
                store.go_on_as(fresh)?;
            }
            Ok::<_, StoreError>(store.version().clone())
        })?;
        if store.replica_id() == fresh {
            ledger.seats.renew(fresh);
        }
        // Handlers may have answered with edits, which the relay has yet to hear of.
        let is_answered = *core.store.version() != taken_in;
        let origin = if is_answered { Origin::Local } else { Origin::Relay };
        let mut changes = self.capture(&mut core, origin)?;
        changes.retain(|change| {
            let header = ChangeHeader::decode(change);
            header.is_ok_and(|header| taken_in.has(header.last()))
        });
        Ok(changes)
    }

    /// The durable changes that `version` lacks.
    pub(super) fn durable_since(&self, version: &Version) -> Result<Vec<Arc<[u8]>>, SyncError> {
        let changes = self.core()?.store.changes_since(version);
        let mut changes = changes.ok_or_else(|| history_missing(&self.id))?;
        let status = self.status.borrow();
        changes.retain(|change| {
            let header = ChangeHeader::decode(change);
            header.is_ok_and(|header| status.persisted.has(header.last()))
        });
        Ok(changes)
    }

    /// Notes what the relay has on its disk.
    pub(super) fn note_stored(&self, stored: &Version) -> Result<(), SyncError> {
        self.core()?.ledger.seats.note_stored(stored);
        Ok(())
    }

    /// Waits until everything handed to the writer is on disk.
    pub(super) async fn flush(&self) -> Result<(), SyncError> {
        let (sender, receiver) = oneshot::channel();
        self.writer.ask(Job::Flush(sender))?;
        receiver.await.map_err(|_| SyncError::Stopped)?.map_err(SyncError::Storage)
    }

    /// Makes the writer write what waits, and end.
    pub(super) fn stop_writer(&self) {
        // If it has ended already, that is what was wanted.
        let _ended = self.writer.ask(Job::Stop);
    }

    pub(super) fn is_disk_behind(&self) -> bool {
        self.writer.unsaved_bytes() > UNSAVED_BYTES_MAX / 2
    }

    /// Forgets what the last relay had of the blobs: each is offered, or asked for, again.
    pub(super) fn list_blobs(&self) -> Result<(), SyncError> {
        let mut core = self.core()?;
        core.blobs_to_send.clear();
        let referenced = core.store.referenced_blobs();
        core.note_blobs_to_send(referenced);
        core.list_blobs_to_fetch();
        self.publish_blobs(&core);
        Ok(())
    }

    /// Forgets blobs that nothing refers to any more.
    pub(super) fn forget_unreferenced_blobs(&self) -> Result<(), SyncError> {
        let mut core = self.core()?;
        core.list_blobs_to_fetch();
        self.publish_blobs(&core);
        Ok(())
    }

    /// Says which blobs are to be fetched without being asked for.
    pub(super) fn set_blob_fetch(&self, blob_fetch: BlobFetch) -> Result<(), SyncError> {
        let mut core = self.core()?;
        core.blob_fetch = blob_fetch;
        core.list_blobs_to_fetch();
        self.publish_blobs(&core);
        self.ring_blobs();
        Ok(())
    }

    /// Asks for a blob; whether it is here, or nothing refers to it.
    pub(super) fn ask_for_blob(&self, hash: &BlobHash) -> Result<Option<bool>, SyncError> {
        let mut core = self.core()?;
        if self.blobs.find(hash)?.is_some() {
            return Ok(Some(true));
        }
        if core.store.blob_reference_count(hash) == 0 {
            return Ok(Some(false));
        }
        if core.asked.insert(*hash) {
            core.list_blobs_to_fetch();
            self.publish_blobs(&core);
            self.ring_blobs();
        }
        Ok(None)
    }

    /// The blobs to send, the small ones first.
    pub(super) fn blobs_to_send(&self) -> Result<Vec<(BlobHash, u64)>, SyncError> {
        Ok(by_size(&self.core()?.blobs_to_send))
    }

    /// The blobs to fetch, the small ones first.
    pub(super) fn blobs_to_fetch(&self) -> Result<Vec<(BlobHash, u64)>, SyncError> {
        Ok(by_size(&self.core()?.blobs_to_fetch))
    }

    /// Notes that the relay has a blob, or that there is no use in offering it.
    pub(super) fn blob_sent(&self, hash: &BlobHash) -> Result<(), SyncError> {
        let mut core = self.core()?;
        core.blobs_to_send.remove(hash);
        self.publish_blobs(&core);
        Ok(())
    }

    /// Notes that a blob is in the file.
    pub(super) fn blob_fetched(&self, hash: &BlobHash) -> Result<(), SyncError> {
        let mut core = self.core()?;
        core.blobs_to_fetch.remove(hash);
        core.asked.remove(hash);
        self.publish_blobs(&core);
        self.ring_blobs();
        Ok(())
    }

    fn ring_blobs(&self) {
        self.blobs_changed.send_modify(|count| *count += 1);
    }

    /// Makes a new driver speak for the connection; what earlier ones still say is not heard.
    pub(super) fn next_driver(&self, connection: ConnectionState) -> DriverNumber {
        let mut number = 0;
        self.status.send_modify(|status| {
            number = self.speaker.fetch_add(1, Ordering::Relaxed) + 1;
            status.connection = connection;
            status.last_error = None;
        });
        DriverNumber(number)
    }

    /// Changes the status on behalf of a driver; `change` says whether it did.
    pub(super) fn report(
        &self,
        driver: DriverNumber,
        change: impl FnOnce(&mut SyncStatus) -> bool,
    ) {
        self.status.send_if_modified(|status| {
            self.speaker.load(Ordering::Relaxed) == driver.0 && change(status)
        });
    }

    /// Tells what became of the connection, on behalf of a driver.
    pub(super) fn report_connection(&self, driver: DriverNumber, state: ConnectionState) {
        self.report(driver, |status| {
            let is_new = status.connection != state;
            status.connection = state;
            is_new
        });
    }

    /// Puts a snapshot in the place of the file's log, unless that is empty.
    pub(super) fn checkpoint(&self) -> Result<(), SyncError> {
        let mut core = self.core()?;
        if core.ledger.log_bytes > 0 {
            let Core { store, ledger, .. } = &mut *core;
            let (batch, upto) = (ledger.checkpoint(store), ledger.version.clone());
            self.writer.ask(Job::Append { batch, upto })?;
        }
        Ok(())
    }

    /// Hands what the store has gained to the writer.
    fn capture(&self, core: &mut Core, origin: Origin) -> Result<Vec<Arc<[u8]>>, SyncError> {
        let former = core.ledger.version.clone();
        core.store.unload_blobs();
        let Core { store, ledger, .. } = &mut *core;
        let gained = ledger.gain(store, &*self.blobs, &self.id)?;
        if gained.unsaved.is_empty() {
            return Ok(Vec::new());
        }
        let mut upto = Version::new();
        let is_new = |(replica, next): &(ReplicaId, u64)| former.next(*replica) < *next;
        core.ledger.version.iter().filter(is_new).for_each(|(replica, next)| {
            upto.advance(replica, next);
        });
        // Looking at the whole state is worth it only if the list can have changed.
        if !gained.blobs.is_empty() || !core.blobs_to_fetch.is_empty() {
            core.list_blobs_to_fetch();
        }
        if origin == Origin::Local {
            core.note_blobs_to_send(gained.blobs.iter().copied());
        }
        self.status.send_modify(|status| {
            status.local.merge(&upto);
            status.blobs_to_send = core.blobs_to_send.len();
            status.blobs_to_fetch = core.blobs_to_fetch.len();
        });
        if !gained.blobs.is_empty() {
            self.ring_blobs();
        }
        self.writer.ask(Job::Append { batch: gained.unsaved, upto })?;
        Ok(gained.changes)
    }

    fn publish_blobs(&self, core: &Core) {
        let counts = (core.blobs_to_send.len(), core.blobs_to_fetch.len());
        self.status.send_if_modified(|status| {
            let is_new = (status.blobs_to_send, status.blobs_to_fetch) != counts;
            (status.blobs_to_send, status.blobs_to_fetch) = counts;
            is_new
        });
    }

    /// The lock; an error after a panic of somebody who held it, for then nobody knows what is in
    /// there, and what is on disk is the truth.
    pub(super) fn core(&self) -> Result<MutexGuard<'_, Core>, SyncError> {
        self.core.lock().map_err(|_| SyncError::Stopped)
    }
}

impl Core {
    fn note_blobs_to_send(&mut self, blobs: impl IntoIterator<Item = BlobRef>) {
        let held = blobs.into_iter().filter(|blob| self.store.has_blob(&blob.hash));
        self.blobs_to_send.extend(held.map(|blob| (blob.hash, blob.size)));
    }

    /// Lists what the state refers to now, so that nobody fetches what was overwritten (E2).
    fn list_blobs_to_fetch(&mut self) {
        let Self { store, blob_fetch, asked, .. } = self;
        let missing = store.missing_blobs().into_iter();
        let is_wanted = |blob: &BlobRef| blob_fetch.wants(blob.size) || asked.contains(&blob.hash);
        let wanted = missing.filter(is_wanted);
        self.blobs_to_fetch = wanted.map(|blob| (blob.hash, blob.size)).collect();
    }
}

/// Blobs with the small ones first: a large one keeps the others waiting long.
fn by_size(blobs: &BTreeMap<BlobHash, u64>) -> Vec<(BlobHash, u64)> {
    let mut blobs: Vec<(BlobHash, u64)> = blobs.iter().map(|(hash, size)| (*hash, *size)).collect();
    blobs.sort_by_key(|(_, size)| *size);
    blobs
}

/// Why a patch of the relay was not taken in. The store is as it was.
#[derive(Debug)]
pub(super) enum ApplyError {
    Store(StoreError),
    Sync(SyncError),
}

impl From<StoreError> for ApplyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<SyncError> for ApplyError {
    fn from(error: SyncError) -> Self {
        Self::Sync(error)
    }
}

/// [`Shared::apply`], off the threads that must not wait.
pub(super) async fn apply_off_thread(
    shared: &Arc<Shared>,
    patch: Bytes,
) -> Result<Vec<Arc<[u8]>>, ApplyError> {
    let shared = Arc::clone(shared);
    let applied = tokio::task::spawn_blocking(move || shared.apply(&patch)).await;
    applied.unwrap_or(Err(ApplyError::Sync(SyncError::Stopped)))
}

#[cfg(test)]
mod tests {
    use sds_store::EntryId;

    use super::super::writer::Writer;
    use super::*;
    use crate::local_store::LocalStore;
    use crate::persistence::MemoryPersistence;

    fn replica(number: u64) -> ReplicaId {
        ReplicaId::new(number).unwrap()
    }

    fn shared() -> Shared {
        let id = StoreId::new("s").unwrap();
        let (status, saved) = (watch::Sender::default(), watch::Sender::default());
        let memory = MemoryPersistence::new(id.clone(), replica(2));
        let local = LocalStore::load(memory).unwrap();
        let (writer, _thread) = Writer::spawn(local.persistence, status.clone(), saved.clone());
        Shared::new(id, (local.store, local.ledger), local.blobs, status, saved, writer)
    }

    /// Fifty thousand bytes, which are kept as a blob.
    fn content(byte: u8) -> Vec<u8> {
        vec![byte; 50_000]
    }

    #[test]
    fn what_handlers_answer_to_a_patch_is_still_to_be_sent() {
        let shared = shared();
        let subscription = shared.edit(|store| {
            store.on_change(|store, event| {
                if event.origin == sds_store::Origin::External {
                    store.write_value(EntryId::ROOT, content(1).as_slice()).unwrap();
                }
            })
        });
        let mut author = DataStore::new(replica(1));
        author.set_label(EntryId::ROOT, "asked").unwrap();
        let changes = shared.apply(&author.export_patch(&Version::new())).unwrap();
        let authors: Vec<_> =
            changes.iter().map(|change| ChangeHeader::decode(change).unwrap().replica).collect();
        assert_eq!(authors, [replica(1)], "the relay has no other");
        assert_eq!(shared.blobs_to_send().unwrap().len(), 1);
        let captured = shared.status.borrow().local.clone();
        assert!(shared.read(|store| captured == *store.version()).unwrap());
        drop(subscription);
    }

    #[test]
    fn only_blobs_that_the_state_refers_to_are_fetched() {
        let shared = shared();
        let mut author = DataStore::new(replica(1));
        let item = author.new_item_at(None, EntryId::ROOT, None).unwrap();
        let mut seen = Version::new();
        let mut pass_on = |author: &DataStore| {
            shared.apply(&author.export_patch(&seen)).unwrap();
            seen = author.version().clone();
            let hashes = shared.blobs_to_fetch().unwrap();
            assert_eq!(shared.status.borrow().blobs_to_fetch, hashes.len());
            hashes.iter().map(|(hash, _)| *hash).collect::<Vec<_>>()
        };
        (0..9).for_each(|byte| author.write_value(item, content(byte).as_slice()).unwrap());
        let current = |author: &DataStore| author.entry_with_id(item).unwrap().blob_ref().unwrap();
        assert_eq!(pass_on(&author), [current(&author).hash]);
        author.write_value(item, content(99).as_slice()).unwrap();
        assert_eq!(pass_on(&author), [current(&author).hash], "overwritten while it was awaited");
        author.write_value(item, "no blob").unwrap();
        assert_eq!(pass_on(&author), []);
    }
}
