//! What guests and peers want of the store, and bring.

use std::sync::Arc;

use sds_engine::{Change, ReplicaId, Version};
use tokio::time::timeout;

use super::super::SyncError;
use super::super::writer::Job;
use super::Shared;
use crate::intake::Taken;
use crate::limits::SEAT_PATIENCE;
use crate::message::SeatTip;
use crate::random;
use crate::seat::{Chain, Seat, Side};
use crate::synced_store::{Doubts, Handover, Snapshot};

impl Shared {
    /// A snapshot for a guest that has nothing; what is in it is on disk.
    pub(in crate::sync_engine) async fn snapshot(self: &Arc<Self>) -> Result<Snapshot, SyncError> {
        let shared = Arc::clone(self);
        let made =
            tokio::task::spawn_blocking(move || Ok::<_, SyncError>(shared.core()?.snapshot()));
        let snapshot = made.await.map_err(|_| SyncError::Stopped)??;
        self.flush().await?;
        Ok(snapshot)
    }

    /// Lends a seat to a guest, who hears of it once that is on disk. One that wishes for a seat is back, and its
    /// former session may not have ended yet: under another seat it could not go on. If it does not end,
    /// somebody else has the seat.
    pub(in crate::sync_engine) async fn lend_seat(
        &self,
        wish: Option<ReplicaId>,
    ) -> Result<SeatTip, SyncError> {
        if let Some(seat) = wish {
            let mut returned = self.seats_returned.subscribe();
            let is_free = async {
                while self.core()?.is_lent(seat) {
                    returned.changed().await.map_err(|_| SyncError::Stopped)?;
                }
                Ok::<_, SyncError>(())
            };
            if let Ok(waited) = timeout(SEAT_PATIENCE, is_free).await {
                waited?;
            }
        }
        self.lend_seat_now(wish)
    }

    fn lend_seat_now(&self, wish: Option<ReplicaId>) -> Result<SeatTip, SyncError> {
        let mut core = self.core()?;
        let lease = core.lend_seat(wish, random::replica_id());
        let asked = self.writer.ask(Job::Append(lease.handover));
        if let (Err(_), Some(seat)) = (&asked, ReplicaId::new(lease.tip.replica)) {
            core.take_seat_back(seat);
        }
        Ok(asked.map(|()| lease.tip)?)
    }

    /// The chains of the file's seats, for a guest to compare.
    pub(in crate::sync_engine) fn file_seats(&self) -> Result<Vec<SeatTip>, SyncError> {
        let tip = |(replica, chain): (ReplicaId, Chain)| SeatTip {
            replica: replica.as_u64(),
            next: chain.counter,
            chain: chain.hash,
        };
        Ok(self.core()?.seat_chains().into_iter().map(tip).collect())
    }

    /// Takes over what the owner says of the file's seats, unless the history here does not go on from
    /// these chains of theirs; whether it does.
    pub(in crate::sync_engine) fn follow_seats(
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

    /// Compares the seats with the version of a peer; what is in doubt then, and is to be asked for, and
    /// whether something has to reach the disk first.
    pub(in crate::sync_engine) fn compare_with_peer(
        &self,
        version: &Version,
        may_write: bool,
    ) -> Result<(Doubts, bool), SyncError> {
        let mut core = self.core()?;
        let (doubts, batch) = core.compare_with_peer(version, may_write, random::replica_id())?;
        let has_to = !batch.is_empty();
        if has_to {
            self.writer.ask(Job::Append(Handover { batch, upto: Version::new() }))?;
        }
        Ok((doubts, has_to))
    }

    /// Takes in what a peer, which has `version` in all, sends of seats in doubt; not if seats were settled
    /// more often than `settles` times.
    pub(in crate::sync_engine) fn inquire(
        &self,
        settles: u64,
        doubts: &mut Doubts,
        version: &Version,
        changes: Vec<Change>,
    ) -> Result<(), SyncError> {
        let mut core = self.core()?;
        if self.writer.settles() != settles {
            return Ok(());
        }
        let settled = core.inquire(doubts, Side::Peer, version, changes, random::replica_id())?;
        settled.map_or(Ok(()), |handover| self.hand_over_settled(handover))
    }

    /// Notes that the guest has left which had this seat.
    pub(in crate::sync_engine) fn take_seat_back(&self, seat: ReplicaId) {
        // After a panic the store is closed, and so are its seats.
        if let Ok(mut core) = self.core() {
            core.take_seat_back(seat);
        }
        self.seats_returned.send_modify(|count| *count += 1);
    }

    /// Takes in what a guest or a peer brings, up to the first change that cannot be taken.
    pub(in crate::sync_engine) fn take_from(
        &self,
        lease: Option<ReplicaId>,
        changes: &[Change],
    ) -> Result<Taken, SyncError> {
        let mut core = self.core()?;
        let (taken, captured) = core.take_from(lease, changes, random::replica_id())?;
        self.hand_over(&core, captured, &Version::new())?;
        Ok(taken)
    }
}
