//! What others bring to a store and want to know of it: guests, who write to its file through this
//! process, and peers, who have files of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use sds_engine::{BlobHash, Change, ChangeHeader, ReplicaId, Version};

use super::{Captured, Handover, Origin, SyncedStore};
use crate::intake::{self, Taken};
use crate::ledger::history_missing;
use crate::limits::{CHECKPOINT_BYTES_MIN, LOG_PART_BYTES_GOAL, LOG_PART_CHANGES_MAX};
use crate::message::SeatTip;
use crate::persistence::{Batch, StorageError};
use crate::seat::{Chain, Seat};

/// A seat that a guest gets.
#[derive(Debug)]
pub(crate) struct Lease {
    /// What to tell the guest: the counter that its next edit gets, and the chain before it.
    pub(crate) tip: SeatTip,
    /// To be written before the guest is told.
    pub(crate) handover: Handover,
}

/// The store at some time, for those who have nothing of it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) version: Version,
    pub(crate) bytes: Bytes,
}

/// The chains that visitors have asked about, so that asking again and again does not read the log each time.
#[derive(Debug, Default)]
pub(super) struct Tips {
    /// How often something had been made again: what was asked before says nothing then.
    resettled: u64,
    pub(super) chains: BTreeMap<ReplicaId, Chain>,
}

/// The most of them that are remembered.
const TIPS_MAX: usize = 4_096;

/// A part of what a visitor lacks.
#[derive(Debug)]
pub(crate) struct LogPart {
    /// The changes with their headers, each after those it builds on.
    pub(crate) changes: Vec<(ChangeHeader, Arc<[u8]>)>,
    /// Whether that is all.
    pub(crate) is_last: bool,
}

impl SyncedStore {
    /// The first of the changes that `version` lacks and `persisted` has: about [`LOG_PART_BYTES_GOAL`], or
    /// one that is larger, so that memory does not depend on how much a visitor lacks.
    ///
    /// # Errors
    /// [`StorageError::HistoryMissing`] if some of them are gone.
    pub(crate) fn durable_part(
        &self,
        version: &Version,
        persisted: &Version,
    ) -> Result<LogPart, StorageError> {
        let first = self.store.first_changes_since(version, persisted, LOG_PART_CHANGES_MAX);
        let first = first.ok_or_else(|| history_missing(&self.id))?;
        let (count, mut size) = (first.len(), 0);
        let within = first.into_iter().take_while(|change| {
            let is_first = size == 0;
            size += change.bytes().len();
            is_first || size <= LOG_PART_BYTES_GOAL
        });
        let part = within.map(|change| (change.header().clone(), Arc::clone(change.bytes())));
        let changes: Vec<_> = part.collect();
        let is_last = count < LOG_PART_CHANGES_MAX && changes.len() == count;
        Ok(LogPart { changes, is_last })
    }

    /// A snapshot that is not much older than the store. Made anew only when as much has changed as
    /// makes a file begin a new one: else it costs what has changed since.
    pub(crate) fn snapshot(&mut self) -> Snapshot {
        let bytes_since = |version| {
            let changes = self.store.changes_since(version)?;
            Some(changes.iter().map(|change| change.len()).sum::<usize>())
        };
        if let Some(snapshot) = &self.snapshot
            && bytes_since(&snapshot.version).is_some_and(|bytes| bytes < CHECKPOINT_BYTES_MIN)
        {
            return snapshot.clone();
        }
        let (version, bytes) = (self.store.version().clone(), self.store.as_binary().into());
        self.snapshot.insert(Snapshot { version, bytes }).clone()
    }

    /// Lends a seat to a guest, if possible the one that it wishes for; `fresh` is an id that nobody has
    /// drawn before.
    pub(crate) fn lend_seat(&mut self, wish: Option<ReplicaId>, fresh: ReplicaId) -> Lease {
        let seats = &mut self.ledger.seats;
        let seat = seats.lend(&self.store, wish, fresh);
        let batch = Batch { seats: seats.take_changed(), ..Batch::default() };
        let replica = seat.replica.as_u64();
        let tip = SeatTip { replica, next: seat.next, chain: seat.own.hash };
        Lease { tip, handover: Handover { batch, upto: Version::new() } }
    }

    /// Whether a guest has this seat.
    pub(crate) fn is_lent(&self, replica: ReplicaId) -> bool {
        self.ledger.seats.is_lent(replica)
    }

    /// Of each seat of the file the chains over all that is here under its id, unless it was made here,
    /// over what a relay is known to have, unless that is all, and over what was made here.
    pub(crate) fn seat_chains(&self) -> Vec<(ReplicaId, Chain)> {
        let chains = |seat: &Seat| {
            let (replica, agreed) =
                (seat.replica, (seat.agreed != seat.own).then_some(seat.agreed));
            let next = self.store.version().next(replica);
            let is_others = next > seat.own.counter;
            let all =
                is_others.then(|| self.ledger.seats.tip(&self.store, replica, next)).flatten();
            let own = (seat.own.counter > 0).then_some(seat.own);
            all.into_iter().chain(agreed).chain(own).map(move |chain| (replica, chain))
        };
        self.ledger.seats.iter().flat_map(chains).collect()
    }

    /// Notes the seats of the file, as the process has them that owns it.
    pub(crate) fn follow_seats(&mut self, file: Vec<Seat>) {
        self.ledger.seats.follow(file);
    }

    /// Whether the changes here are those of these chains, as far as that can be told. Costs the
    /// changes of these replicas.
    pub(crate) fn fits(&self, chains: &[(ReplicaId, Chain)]) -> bool {
        chains.iter().all(|(replica, chain)| chain.is_of(&self.store, *replica))
    }

    /// Notes that the guest has left which had this seat.
    pub(crate) fn take_seat_back(&mut self, replica: ReplicaId) {
        self.ledger.seats.take_back(replica);
    }

    /// Takes in changes that a guest, which has the seat `lease`, or a peer brings, up to the first one
    /// that cannot be taken. `fresh` is an id that nobody has drawn before.
    ///
    /// # Errors
    /// [`StorageError::HistoryMissing`] if own changes are gone that were never written.
    pub(crate) fn take_from(
        &mut self,
        lease: Option<ReplicaId>,
        changes: &[Change],
        fresh: ReplicaId,
    ) -> Result<(Taken, Captured), StorageError> {
        let Self { store, ledger, .. } = self;
        let taken = intake::take_in(store, &mut ledger.seats, lease, changes, fresh);
        // The relay may lack the blobs that they refer to, as with local changes.
        Ok((taken, self.capture(Origin::Local)?))
    }

    /// How far replicas are known here: those of `version`, which is on disk. Costs the changes of theirs that
    /// nobody asked about before.
    pub(crate) fn tips(&mut self, replicas: &[u64], version: &Version) -> Vec<SeatTip> {
        if self.tips.resettled != self.resettled || self.tips.chains.len() > TIPS_MAX {
            self.tips = Tips { resettled: self.resettled, chains: BTreeMap::new() };
        }
        let Self { store, ledger, tips, .. } = self;
        let mut tip = |number: &u64| {
            let replica = ReplicaId::new(*number)?;
            let next = version.next(replica);
            if next == 0 {
                return None;
            }
            let former = tips.chains.get(&replica).copied().unwrap_or_default();
            let chain = ledger.seats.tip_from(former, store, replica, next)?;
            if chain.counter > former.counter {
                tips.chains.insert(replica, chain);
            }
            Some(SeatTip { replica: *number, next, chain: chain.hash })
        };
        replicas.iter().filter_map(&mut tip).collect()
    }

    /// Notes that a blob which somebody brought is on disk, and may be one that the relay lacks.
    pub(crate) fn note_blob_brought(&mut self, hash: BlobHash, size: u64) {
        self.blobs_to_fetch.remove(&hash);
        self.asked.remove(&hash);
        if self.store.blob_reference_count(&hash) > 0 {
            self.blobs_to_send.insert(hash, size);
        }
    }
}
