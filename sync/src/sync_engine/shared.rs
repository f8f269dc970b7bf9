//! What the callers, the connection and the writer of one store share.
//!
//! Invariant: the writer is handed what comes out of the store, in that order: capturing happens under
//! the lock that every edit holds.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use sds_engine::{ChangeHeader, ReplicaId, Version};
use sds_store::DataStore;
use tokio::sync::{oneshot, watch};

use super::SyncError;
use super::presence::Presence;
use super::signals::Signals;
use super::status::{ConnectionState, SyncStatus};
use super::writer::{Job, WriterGone, WriterHandle};
use crate::blob_storage::BlobStorage;
use crate::ledger::Ledger;
use crate::limits::UNSAVED_BYTES_MAX;
use crate::link::{Link, LinkError};
use crate::local_store::LocalStore;
use crate::message::Token;
use crate::random;
use crate::store_id::StoreId;
use crate::synced_store::{
    Captured, Handover, LogPart, Purpose, SyncedStore, TakeInError, TakenIn,
};

mod blobs;
mod visitors;

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
    /// Counts how often the file was had again after another process had it.
    pub(super) taken_over: watch::Sender<u64>,
    /// Counts the guests that have left a seat.
    pub(super) seats_returned: watch::Sender<u64>,
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
            taken_over: watch::Sender::new(0),
            seats_returned: watch::Sender::new(0),
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

    /// Goes on from `base`, what is in the file: see [`SyncedStore::rebase`]. The writer is held until it
    /// hears of this.
    pub(super) fn rebase(&self, base: &LocalStore) -> Result<(), SyncError> {
        let (base, seats) = (base.store(), base.ledger.seats.made_under());
        let mut core = self.core()?;
        let persisted = self.persisted();
        let rebased = core.rebase(base, seats, &persisted, random::replica_id())?;
        self.replace(&core, base, rebased)
    }

    /// Goes on from what is in the file, after another process had it: see [`SyncedStore::take_over`]. The
    /// writer is held until it hears of this.
    pub(super) fn take_over(&self, base: &DataStore, ledger: Ledger) -> Result<(), SyncError> {
        let mut core = self.core()?;
        let persisted = self.persisted();
        let taken_over = core.take_over(base, ledger, &persisted, random::replica_id())?;
        self.replace(&core, base, taken_over)?;
        self.taken_over.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Hands to the writer what is to be written after `base`, which is on disk, in the place of all that
    /// waits.
    fn replace(
        &self,
        core: &SyncedStore,
        base: &DataStore,
        captured: Captured,
    ) -> Result<(), SyncError> {
        let Captured { handover, .. } = captured;
        self.status.send_modify(|status| {
            self.writer.begin_settle();
            status.local.clone_from(core.captured());
            status.persisted.clone_from(base.version());
            status.storage_error = None;
            self.writer.note_outcome(Ok(()));
        });
        self.publish_blobs(core);
        self.ring_blobs();
        Ok(self.writer.ask(Job::Replace(handover))?)
    }

    /// The first of the changes on disk that `version` lacks; nobody uses the store while they are read.
    pub(super) fn durable_part(&self, version: &Version) -> Result<LogPart, SyncError> {
        let persisted = self.persisted();
        Ok(self.core()?.durable_part(version, &persisted)?)
    }

    /// What is on disk.
    pub(super) fn persisted(&self) -> Version {
        self.status.borrow().persisted.clone()
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

    /// The lock; an error after a panic of somebody who held it, for then nobody knows what is in
    /// there, and what is on disk is the truth.
    pub(super) fn core(&self) -> Result<MutexGuard<'_, SyncedStore>, SyncError> {
        self.core.lock().map_err(|_| SyncError::Stopped)
    }
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
mod tests;
