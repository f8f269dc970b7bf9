//! What the callers, the connection and the writer of one store share.
//!
//! Invariant: the writer is handed what comes out of the store, in that order: capturing happens under
//! the lock that every edit holds.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use sds_engine::{BlobHash, Change, ChangeHeader, ReplicaId, Version};
use sds_store::DataStore;
use tokio::sync::{oneshot, watch};

use super::SyncError;
use super::presence::Presence;
use super::signals::Signals;
use super::status::{BlobFetch, ConnectionState, SyncStatus};
use super::writer::{Job, WriterGone, WriterHandle};
use crate::blob_storage::BlobStorage;
use crate::intake::Taken;
use crate::limits::UNSAVED_BYTES_MAX;
use crate::link::{Link, LinkError};
use crate::message::{SeatTip, Token};
use crate::random;
use crate::seat::{Chain, Seat};
use crate::store_id::StoreId;
use crate::synced_store::{
    Captured, Handover, Purpose, Snapshot, SyncedStore, TakeInError, TakenIn,
};

/// What is told of changes that only a newer program understands.
const TOO_NEW: &str = "too-new";

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
    core: Mutex<SyncedStore>,
    pub(super) presence: Arc<Presence>,
    pub(super) signals: Arc<Signals>,
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
        store: SyncedStore,
        status: watch::Sender<SyncStatus>,
        saved: watch::Sender<u64>,
        writer: WriterHandle,
    ) -> Self {
        let (id, blobs) = (store.id().clone(), Arc::clone(store.blobs()));
        let blobs_changed = watch::Sender::new(0);
        let (presence, signals) = (Arc::default(), Arc::default());
        Self {
            id,
            status,
            saved,
            blobs,
            blobs_changed,
            core: Mutex::new(store),
            presence,
            signals,
            writer,
            speaker: AtomicU64::new(0),
        }
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&DataStore) -> T) -> Result<T, SyncError> {
        let core = self.core()?;
        let looked = catch_unwind(AssertUnwindSafe(|| look(&core.store)));
        // Whoever only looks leaves nothing half done, and so closes the store to nobody.
        drop(core);
        looked.or_else(|panic| resume_unwind(panic))
    }

    pub(super) fn edit<T>(&self, work: impl FnOnce(&mut DataStore) -> T) -> Result<T, SyncError> {
        let mut core = self.core()?;
        if self.writer.unsaved_bytes() > UNSAVED_BYTES_MAX {
            let failure = self.status.borrow().storage_error.clone();
            return Err(failure.map_or(SyncError::DiskTooSlow, SyncError::Storage));
        }
        let (value, captured) = core.edit(work)?;
        self.hand_over(&core, captured, &Version::new())?;
        Ok(value)
    }

    /// A connection on which nothing was said yet.
    pub(super) fn open_link(&self, token: &Token) -> Result<Link, SyncError> {
        Ok(Link::new(&*self.core()?, token, Instant::now()))
    }

    /// Acts on the relay having opened the store.
    pub(super) fn handle_opened(&self, link: &mut Link) -> Result<(), LinkError> {
        let mut core = self.core()?;
        let handover = link.handle_opened(&mut core, random::replica_id())?;
        if !handover.batch.is_empty() {
            self.writer.ask(Job::Append(handover)).map_err(SyncError::from)?;
        }
        // Nobody knows which blobs a relay still has: it may have been restored from a backup.
        core.list_blobs();
        self.publish_blobs(&core);
        Ok(())
    }

    /// Acts on what `act` finds out about seats that are not this side's at the relay; whether that has
    /// to reach the disk, and another connection has to be opened.
    pub(super) fn give_up(
        &self,
        act: impl FnOnce(&mut SyncedStore, ReplicaId) -> Result<Option<Handover>, LinkError>,
    ) -> Result<bool, LinkError> {
        let mut core = self.core()?;
        let given_up = act(&mut core, random::replica_id())?;
        let has_to = given_up.is_some();
        given_up.map_or(Ok(()), |handover| self.hand_over_settled(handover))?;
        Ok(has_to)
    }

    /// Queues what has reached the disk and the relay lacks.
    pub(super) fn handle_saved(&self, link: &mut Link) -> Result<(), LinkError> {
        let persisted = self.status.borrow().persisted.clone();
        link.handle_saved(&*self.core()?, &persisted)
    }

    /// Takes a patch in, or leaves the store untouched.
    pub(super) fn take_in(
        &self,
        purpose: Purpose,
        at_open: &Version,
        patch: &[u8],
    ) -> Result<TakenIn, TakeInError> {
        let mut core = self.core()?;
        let mut taken_in = core.take_in(purpose, at_open, patch, random::replica_id())?;
        match &mut taken_in {
            TakenIn::Changes { captured, came, is_too_new } => {
                if *is_too_new {
                    self.status.send_modify(|status| {
                        status.is_too_old = true;
                        status.last_error = Some(TOO_NEW);
                    });
                }
                // The relay has what came from it: nobody shall take it for something of one's own that
                // it lacks.
                let mut stored = Version::new();
                for header in came.iter().filter_map(|change| ChangeHeader::decode(change).ok()) {
                    stored.advance(header.replica, header.end());
                }
                self.hand_over(&core, std::mem::take(captured), &stored)?;
            }
            TakenIn::Inquiring => {}
            TakenIn::Settled { handover } => self.hand_over_settled(std::mem::take(handover))?,
        }
        Ok(taken_in)
    }

    /// Acts on the relay having more on its disk.
    pub(super) fn handle_stored(&self, link: &mut Link) -> Result<(), LinkError> {
        self.core()?.note_stored(link.session().stored());
        if link.is_holding_back() { self.handle_saved(link) } else { Ok(()) }
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
        core.list_blobs();
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
        core.set_blob_fetch(blob_fetch);
        self.publish_blobs(&core);
        self.ring_blobs();
        Ok(())
    }

    /// Asks for a blob; whether it is here, or nothing refers to it.
    pub(super) fn ask_for_blob(&self, hash: &BlobHash) -> Result<Option<bool>, SyncError> {
        if self.blobs.find(hash)?.is_some() {
            return Ok(Some(true));
        }
        let mut core = self.core()?;
        if core.store.blob_reference_count(hash) == 0 {
            return Ok(Some(false));
        }
        if core.ask_for_blob(*hash) {
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

    /// Notes that a blob is not here that was to be sent.
    pub(super) fn blob_absent(&self, hash: &BlobHash) -> Result<(), SyncError> {
        let mut core = self.core()?;
        core.note_blob_absent(hash);
        self.publish_blobs(&core);
        Ok(())
    }

    /// Notes that a blob is in the file, wherever it came from.
    pub(super) fn blob_found(&self, hash: &BlobHash) -> Result<(), SyncError> {
        let mut core = self.core()?;
        core.note_blob_found(hash);
        self.publish_blobs(&core);
        self.ring_blobs();
        Ok(())
    }

    /// The blobs that the process which owns the file may have meanwhile.
    pub(super) fn blobs_to_look_for(&self) -> Result<BTreeSet<BlobHash>, SyncError> {
        Ok(self.core()?.blobs_to_look_for())
    }

    /// Notes that a blob is in the file, and at the relay.
    pub(super) fn blob_fetched(&self, hash: &BlobHash) -> Result<(), SyncError> {
        let mut core = self.core()?;
        core.note_blob_fetched(hash);
        self.publish_blobs(&core);
        self.ring_blobs();
        Ok(())
    }

    /// A snapshot for a guest that has nothing; what is in it is on disk.
    pub(super) async fn snapshot(self: &Arc<Self>) -> Result<Snapshot, SyncError> {
        let shared = Arc::clone(self);
        let made =
            tokio::task::spawn_blocking(move || Ok::<_, SyncError>(shared.core()?.snapshot()));
        let snapshot = made.await.map_err(|_| SyncError::Stopped)??;
        self.flush().await?;
        Ok(snapshot)
    }

    /// Goes on from `base`, what is in the file: see [`SyncedStore::rebase`]. The writer is held until it
    /// hears of this.
    pub(super) fn rebase(&self, base: &DataStore) -> Result<(), SyncError> {
        let mut core = self.core()?;
        let persisted = self.persisted();
        let Captured { handover, .. } = core.rebase(base, &persisted, random::replica_id())?;
        self.status.send_modify(|status| {
            self.writer.begin_settle();
            status.local.clone_from(core.captured());
            status.persisted.clone_from(base.version());
            status.storage_error = None;
        });
        self.publish_blobs(&core);
        self.ring_blobs();
        Ok(self.writer.ask(Job::Replace(handover))?)
    }

    /// Lends a seat to a guest, who hears of it once that is on disk.
    pub(super) fn lend_seat(&self, wish: Option<ReplicaId>) -> Result<SeatTip, SyncError> {
        let mut core = self.core()?;
        let lease = core.lend_seat(wish, random::replica_id());
        let asked = self.writer.ask(Job::Append(lease.handover));
        if let (Err(_), Some(seat)) = (&asked, ReplicaId::new(lease.tip.replica)) {
            core.take_seat_back(seat);
        }
        Ok(asked.map(|()| lease.tip)?)
    }

    /// The chains of the file's seats, for a guest to compare.
    pub(super) fn file_seats(&self) -> Result<Vec<SeatTip>, SyncError> {
        let tip = |(replica, chain): (ReplicaId, Chain)| SeatTip {
            replica: replica.as_u64(),
            next: chain.counter,
            chain: chain.hash,
        };
        Ok(self.core()?.seat_chains().into_iter().map(tip).collect())
    }

    /// Takes over what the owner says of the file's seats, unless the history here does not go on from
    /// these chains of theirs; whether it does.
    pub(super) fn follow_seats(
        &self,
        chains: &[(ReplicaId, Chain)],
        seats: Vec<Seat>,
    ) -> Result<bool, SyncError> {
        let mut core = self.core()?;
        let fits = core.fits(chains);
        if fits {
            core.follow_seats(seats);
        }
        Ok(fits)
    }

    /// Notes that the guest has left which had this seat.
    pub(super) fn take_seat_back(&self, seat: ReplicaId) {
        // After a panic the store is closed, and so are its seats.
        if let Ok(mut core) = self.core() {
            core.take_seat_back(seat);
        }
    }

    /// Takes in what a guest or a peer brings, up to the first change that cannot be taken.
    pub(super) fn take_from(
        &self,
        lease: Option<ReplicaId>,
        changes: &[Change],
    ) -> Result<Taken, SyncError> {
        let mut core = self.core()?;
        let (taken, captured) = core.take_from(lease, changes, random::replica_id())?;
        self.hand_over(&core, captured, &Version::new())?;
        Ok(taken)
    }

    /// Notes that a blob which somebody brought is in the file.
    pub(super) fn blob_brought(&self, hash: &BlobHash, size: u64) -> Result<(), SyncError> {
        let mut core = self.core()?;
        core.note_blob_brought(*hash, size);
        self.publish_blobs(&core);
        self.ring_blobs();
        Ok(())
    }

    /// The changes on disk that `version` lacks.
    pub(super) fn durable_since(&self, version: &Version) -> Result<Vec<Arc<[u8]>>, SyncError> {
        let persisted = self.persisted();
        Ok(self.core()?.durable_since(version, &persisted)?)
    }

    /// What is on disk.
    pub(super) fn persisted(&self) -> Version {
        self.status.borrow().persisted.clone()
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
        if let Some(handover) = core.checkpoint() {
            self.writer.ask(Job::Append(handover))?;
        }
        Ok(())
    }

    /// Hands what the store has gained to the writer.
    /// Of that, the relay has `stored`.
    fn hand_over(
        &self,
        core: &SyncedStore,
        captured: Captured,
        stored: &Version,
    ) -> Result<(), SyncError> {
        let Captured { handover, has_blobs, .. } = captured;
        if handover.batch.is_empty() {
            return Ok(());
        }
        self.status.send_modify(|status| {
            status.local.merge(&handover.upto);
            status.sent.merge(stored);
            status.stored.merge(stored);
            status.blobs_to_send = core.blobs_to_send.len();
            status.blobs_to_fetch = core.blobs_to_fetch.len();
        });
        if has_blobs {
            self.ring_blobs();
        }
        self.writer.ask(Job::Append(handover))?;
        Ok(())
    }

    /// Hands to the writer what a store has of which some was made again.
    fn hand_over_settled(&self, handover: Handover) -> Result<(), SyncError> {
        self.status.send_modify(|status| {
            self.writer.begin_settle();
            status.local.clone_from(&handover.upto);
            status.persisted = handover.still_there(&status.persisted);
        });
        self.writer.ask(Job::Settle(handover))?;
        Ok(())
    }

    fn publish_blobs(&self, core: &SyncedStore) {
        let counts = (core.blobs_to_send.len(), core.blobs_to_fetch.len());
        self.status.send_if_modified(|status| {
            let is_new = (status.blobs_to_send, status.blobs_to_fetch) != counts;
            (status.blobs_to_send, status.blobs_to_fetch) = counts;
            is_new
        });
    }

    /// The lock; an error after a panic of somebody who held it, for then nobody knows what is in
    /// there, and what is on disk is the truth.
    pub(super) fn core(&self) -> Result<MutexGuard<'_, SyncedStore>, SyncError> {
        self.core.lock().map_err(|_| SyncError::Stopped)
    }
}

/// Blobs with the small ones first: a large one keeps the others waiting long.
fn by_size(blobs: &BTreeMap<BlobHash, u64>) -> Vec<(BlobHash, u64)> {
    let mut blobs: Vec<(BlobHash, u64)> = blobs.iter().map(|(hash, size)| (*hash, *size)).collect();
    blobs.sort_by_key(|(_, size)| *size);
    blobs
}

/// [`Shared::take_in`], off the threads that must not wait.
pub(super) async fn take_in_off_thread(
    shared: &Arc<Shared>,
    link: &Link,
    patch: Bytes,
) -> Result<TakenIn, TakeInError> {
    let (shared, purpose) = (Arc::clone(shared), link.purpose());
    let at_open = link.session().at_open().clone();
    let take_in = move || shared.take_in(purpose, &at_open, &patch);
    let taken_in = tokio::task::spawn_blocking(take_in).await;
    taken_in.unwrap_or(Err(TakeInError::Sync(SyncError::Stopped)))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use sds_engine::{Op, Patch, ReplicaId};
    use sds_store::EntryId;

    use super::super::writer::Writer;
    use super::*;
    use crate::local_store::LocalStore;
    use crate::persistence::{Batch, LogPage, MemoryPersistence, Persistence, StorageError};

    fn replica(number: u64) -> ReplicaId {
        ReplicaId::new(number).unwrap()
    }

    fn shared() -> Shared {
        let (status, saved) = (watch::Sender::default(), watch::Sender::default());
        let memory = MemoryPersistence::new(StoreId::new("s").unwrap(), replica(2));
        let (store, persistence) = SyncedStore::new(LocalStore::load(memory).unwrap());
        let (writer, _thread) = Writer::spawn(persistence, status.clone(), saved.clone());
        Shared::new(store, status, saved, writer)
    }

    fn take_in(shared: &Shared, patch: &[u8]) -> Vec<Arc<[u8]>> {
        match shared.take_in(Purpose::Sync, &Version::new(), patch).unwrap() {
            TakenIn::Changes { came, .. } => came,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn changes_of_newer_programs_are_told() {
        let shared = shared();
        shared.edit(|store| store.set_label(EntryId::ROOT, "one's own").unwrap()).unwrap();
        let skip = Change::new(replica(1), 0, vec![], &[Op::Skip { count: 1 }]).unwrap();
        let mut newer = skip.bytes().to_vec();
        // The kind of its op.
        let at = newer.len() - 2;
        newer[at] = 30;
        assert!(take_in(&shared, &Patch::pack([newer.as_slice()])).is_empty());
        shared.status.send_modify(|status| {
            status.connection = ConnectionState::Connected { writable: true };
            status.relay_at_open.advance(replica(1), 1);
        });
        let status = shared.status.borrow().clone();
        assert!(status.is_too_old && status.last_error == Some("too-new"), "{status:?}");
        assert!(status.outcome().is_none(), "others may still come");
    }

    /// Goal: whoever may only read is not told that there are edits which cannot leave, when only others
    /// have made any.
    #[test]
    fn what_comes_from_the_relay_is_never_something_that_it_lacks() {
        let shared = shared();
        shared.status.send_modify(|status| {
            status.connection = ConnectionState::Connected { writable: false };
        });
        let mut author = DataStore::new(replica(1));
        author.set_label(EntryId::ROOT, "from the relay").unwrap();
        take_in(&shared, &author.export_patch(&Version::new()));
        let outcome = shared.status.borrow().outcome();
        assert!(!matches!(outcome, Some(Err(_))), "{outcome:?}");
        shared.edit(|store| store.set_label(EntryId::ROOT, "one's own").unwrap()).unwrap();
        let outcome = shared.status.borrow().outcome();
        assert!(matches!(outcome, Some(Err(SyncError::ReadOnly))), "{outcome:?}");
    }

    #[test]
    fn whoever_panics_while_reading_closes_the_store_to_nobody() {
        let shared = shared();
        let looked = catch_unwind(AssertUnwindSafe(|| {
            shared.read(|store| assert!(store.version().is_empty(), "no panic"))
        }));
        looked.unwrap().unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| shared.read(|_| panic!("while reading"))));
        assert!(panicked.is_err());
        shared.edit(|store| store.set_label(EntryId::ROOT, "after it").unwrap()).unwrap();
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
        let changes = take_in(&shared, &author.export_patch(&Version::new()));
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
            take_in(&shared, &author.export_patch(&seen));
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

    /// A file that says when it is about to write a batch, and does so only when it is told to.
    #[derive(Debug)]
    struct Gated {
        memory: MemoryPersistence,
        begun: Sender<()>,
        gate: Receiver<()>,
    }

    impl Persistence for Gated {
        fn store(&self) -> &StoreId {
            self.memory.store()
        }

        fn seats(&self) -> Vec<Seat> {
            self.memory.seats()
        }

        fn read_snapshot(&self) -> Result<Option<Vec<u8>>, StorageError> {
            self.memory.read_snapshot()
        }

        fn read_log(&self, from: u64) -> Result<LogPage, StorageError> {
            self.memory.read_log(from)
        }

        fn blobs(&self) -> Arc<dyn BlobStorage> {
            self.memory.blobs()
        }

        fn retain_blobs(&mut self, referenced: &BTreeSet<BlobHash>) -> Result<(), StorageError> {
            self.memory.retain_blobs(referenced)
        }

        fn append(&mut self, batch: &Batch) -> Result<(), StorageError> {
            self.begun.send(()).unwrap();
            self.gate.recv().unwrap();
            self.memory.append(batch)
        }
    }

    /// Goal: what is being written while seats are settled does not count as on disk by its former
    /// name, neither before the rest is written nor after.
    #[tokio::test]
    async fn a_commit_under_way_does_not_bring_former_ids_back() {
        let ((gate, gated), (begun, has_begun)) = (channel(), channel());
        let (status, saved) = (watch::Sender::default(), watch::Sender::default());
        let memory = MemoryPersistence::new(StoreId::new("s").unwrap(), replica(2));
        let file = Gated { memory, begun, gate: gated };
        let (store, file) = SyncedStore::new(LocalStore::load(file).unwrap());
        let (writer, _thread) = Writer::spawn(file, status.clone(), saved.clone());
        let shared = Shared::new(store, status, saved, writer);
        let mut commits = shared.saved.subscribe();
        shared.edit(|store| store.set_label(EntryId::ROOT, "own")).unwrap().unwrap();
        has_begun.recv().unwrap();
        let settle = |core: &mut SyncedStore, fresh| {
            Ok(core.give_up(&[(replica(2), 0)], &Version::new(), fresh)?)
        };
        assert!(shared.give_up(settle).unwrap());
        gate.send(()).unwrap();
        commits.wait_for(|count| *count > 0).await.unwrap();
        assert_eq!(shared.persisted().next(replica(2)), 0);
        gate.send(()).unwrap();
        shared.flush().await.unwrap();
        assert_eq!(shared.persisted(), shared.read(|store| store.version().clone()).unwrap());
    }
}
