//! The process on a device: what a sync engine holds.

use std::time::Duration;

use sds_engine::Version;
use sds_sync::database::Medium;
use sds_sync::{
    Handover, Link, LocalStore, Persistence, Reconnect, RedbPersistence, RefusalCode, Seat,
    StorageError, StoreId, SyncedStore, WriteQueue,
};

use super::context::Context;

/// The longest time until something is written, in milliseconds, by disks that are fast or slow.
const COMMIT_MILLIS_MAX: [usize; 4] = [30, 30, 30, 3_000];

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) store: SyncedStore,
    pub(super) file: Box<dyn Persistence>,
    /// The longest time until something is written, in milliseconds.
    commit_millis_max: usize,
    pub(super) queue: WriteQueue,
    pub(super) persisted: Version,
    /// Whether the connection has yet to hear of a commit.
    pub(super) has_saved: bool,
    pub(super) commit_at: Option<Duration>,
    pub(super) reconnect: Reconnect,
    pub(super) connect_at: Option<Duration>,
    pub(super) refused: Option<RefusalCode>,
    pub(super) link: Option<Linked>,
}

/// A connection, from this side.
#[derive(Debug)]
pub(super) struct Linked {
    pub(super) line: u64,
    pub(super) link: Link,
}

impl Process {
    pub(super) fn open(
        medium: Box<dyn Medium>,
        id: &StoreId,
        ever_stored: &Version,
        context: &mut Context,
    ) -> Result<Self, StorageError> {
        let file = RedbPersistence::open_on(medium, id, context.fresh())?;
        for Seat { replica, agreed, .. } in file.seats() {
            let ever = ever_stored.next(replica);
            assert!(agreed.counter <= ever, "no relay ever had {replica:?} up to {agreed:?}");
        }
        let (store, file) = SyncedStore::new(LocalStore::load(file)?);
        let persisted = store.captured().clone();
        let mut process = Self {
            store,
            file,
            queue: WriteQueue::new(),
            persisted,
            has_saved: false,
            commit_millis_max: COMMIT_MILLIS_MAX[context.dice.roll(COMMIT_MILLIS_MAX.len())],
            commit_at: None,
            reconnect: Reconnect::new(),
            connect_at: Some(context.soon(100)),
            refused: None,
            link: None,
        };
        let ((), captured) = process.store.edit(|_| ())?;
        process.hand_over(captured.handover, context);
        Ok(process)
    }

    /// Lets it be written soon.
    pub(super) fn hand_over(&mut self, handover: Handover, context: &mut Context) {
        if !handover.batch.is_empty() {
            self.queue.add(handover);
            self.commit_at.get_or_insert(context.soon(self.commit_millis_max));
        }
    }

    /// Whether the relay has everything and says so.
    pub(super) fn is_synced(&self) -> bool {
        let version = self.store.store().version();
        let is_stored = self.link.as_ref().is_some_and(|linked| {
            linked.link.is_syncing() && linked.link.session().stored().covers(version)
        });
        is_stored && self.queue.is_empty() && self.persisted.covers(version)
    }

    /// Tries again to write what waits, if anything does.
    pub(super) fn retry(&mut self, now: Duration) {
        if !self.queue.is_empty() {
            self.commit_at = Some(now);
        }
        if self.link.is_none() {
            self.connect_at = Some(now);
        }
    }
}
