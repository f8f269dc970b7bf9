//! Giving up a seat: when a relay has other changes under an id of this file, the file is a copy.
//!
//! It takes up to three connections. The first one finds seats whose changes may mean something else
//! at the relay. The second one asks for all that the relay has of these seats, and takes in nothing:
//! what the file has beyond it is made again under a new id, and on disk before anything else. The
//! third one goes on as ever. A seat of which the relay merely knows more, after everything of this
//! side had reached it, is given up at once.

use std::sync::Arc;

use sds_engine::{ChangeHeader, Patch, ReplicaId, Version};
use sds_store::{RemakeError, StoreError};

use super::SyncError;
use super::shared::{Core, Shared};
use super::writer::Job;
use crate::ledger::history_missing;
use crate::message::RefusalCode;
use crate::persistence::Batch;
use crate::random;
use crate::seat::Chain;
use crate::store_id::StoreId;

/// Seats of which a relay has other changes, or may have, and what it has.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    seats: Vec<(ReplicaId, Chain)>,
    theirs: Vec<Arc<[u8]>>,
}

impl Doubts {
    /// Whether all that the relay has of the seats has come.
    fn is_resolved(&self) -> bool {
        let mut have = Version::new();
        for header in self.theirs.iter().flat_map(|change| ChangeHeader::decode(change)) {
            have.advance(header.replica, header.end());
        }
        self.seats.iter().all(|(replica, tip)| have.next(*replica) >= tip.counter)
    }
}

/// What a connection is good for, after a look at the relay's chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To keep the store equal with the relay.
    Sync,
    /// To find out what the relay has of the seats in doubt.
    Inquiry,
    /// Nothing: the next one has to ask for other things.
    Nothing,
}

impl Shared {
    /// What to tell a relay: what is here, and which seats to ask about. What is in doubt is not
    /// said to be here, so that the relay sends it.
    pub(super) fn hello(&self) -> Result<(Version, Vec<ReplicaId>), SyncError> {
        let core = self.core()?;
        let doubted = |replica| core.doubts.seats.iter().any(|(seat, _)| *seat == replica);
        let mut version = Version::new();
        let known = core.store.version().iter().filter(|(replica, _)| !doubted(*replica));
        known.for_each(|(replica, next)| version.advance(replica, next));
        Ok((version, core.ledger.seats.to_ask_about()))
    }

    /// Compares the seats with what a relay has of them.
    pub(super) fn compare_seats(&self, relay: &[(ReplicaId, Chain)]) -> Result<Purpose, SyncError> {
        let mut core = self.core()?;
        let Core { store, ledger, doubts, .. } = &mut *core;
        let standing = ledger.seats.compare(store, relay);
        let was_asked = |replica| doubts.seats.iter().any(|(seat, _)| *seat == replica);
        let has_asked = standing.doubted.iter().all(|(replica, _)| was_asked(*replica));
        *doubts = Doubts { seats: standing.doubted, theirs: Vec::new() };
        if !doubts.seats.is_empty() {
            return Ok(if has_asked { Purpose::Inquiry } else { Purpose::Nothing });
        }
        if standing.is_behind {
            core.take_new_seat()?;
            tracing::warn!(store = %self.id, "the relay knows more of this file: took a new seat");
        }
        let (seats, upto) = (core.ledger.seats.take_changed(), Version::new());
        if !seats.is_empty() {
            let batch = Batch { seats, ..Batch::default() };
            self.writer.ask(Job::Append { batch, upto })?;
        }
        Ok(Purpose::Sync)
    }

    /// Takes in what a relay, which has `version` in all, sends of the seats in doubt. Says whether
    /// that was all, and the seats are settled.
    pub(super) async fn inquire(&self, version: &Version, patch: &[u8]) -> Result<bool, SyncError> {
        let changes = Patch::decode(patch).map_err(|error| cannot_reseat(&error.into()))?;
        if !self.settle_seats(version, &changes)? {
            return Ok(false);
        }
        // Nothing is sent before it is on disk, nor is any connection opened.
        self.flush().await?;
        Ok(true)
    }

    fn settle_seats(&self, version: &Version, patch: &Patch) -> Result<bool, SyncError> {
        let mut core = self.core()?;
        let Core { store, ledger, doubts, .. } = &mut *core;
        for change in patch.changes() {
            if doubts.seats.iter().any(|(seat, _)| *seat == change.header().replica) {
                doubts.theirs.push(Arc::clone(change.bytes()));
            }
        }
        if !doubts.is_resolved() {
            return Ok(false);
        }
        let Doubts { seats: doubted, theirs } = std::mem::take(doubts);
        let doubted: Vec<ReplicaId> = doubted.into_iter().map(|(replica, _)| replica).collect();
        let missing = || SyncError::Storage(history_missing(&self.id));
        let seats = &mut ledger.seats;
        let common = seats.common_with(store, version, &doubted, &theirs).ok_or_else(missing)?;
        let is_beyond = |(replica, chain): &&(ReplicaId, Chain)| {
            doubted.contains(replica) && seats.made(*replica) > chain.counter
        };
        let batch = if common.iter().any(|seat| is_beyond(&seat)) {
            core.remake(&common, &self.id)?
        } else {
            core.keep_all(&common, &doubted)?
        };
        let upto = core.ledger.version.clone();
        self.status.send_modify(|status| {
            status.local = upto.clone();
            // What was made again is no longer there by its former name.
            let known = std::mem::take(&mut status.persisted);
            known.iter().for_each(|(replica, next)| {
                status.persisted.advance(replica, next.min(upto.next(replica)));
            });
        });
        self.writer.ask(Job::Append { batch, upto })?;
        Ok(true)
    }
}

impl Core {
    /// Makes again what the seats have beyond `common`, under a new id; says what is to be written.
    fn remake(&mut self, common: &[(ReplicaId, Chain)], id: &StoreId) -> Result<Batch, SyncError> {
        let Self { store, ledger, .. } = self;
        let seats = &mut ledger.seats;
        let is_former = |header: &ChangeHeader| {
            let known = common.iter().find(|(seat, _)| *seat == header.replica);
            known.is_some_and(|(seat, chain)| {
                chain.counter <= header.start && header.start < seats.made(*seat)
            })
        };
        let fresh = random::replica_id();
        match store.remake_as(fresh, is_former) {
            Ok(_) => {}
            Err(RemakeError::HistoryMissing) => {
                return Err(SyncError::Storage(history_missing(id)));
            }
            Err(RemakeError::Store(error)) => return Err(cannot_reseat(&error)),
            Err(error) => return Err(forked(error.to_string())),
        }
        tracing::warn!(store = %id, "this file is a copy: its own changes have new ids now");
        seats.settle(common);
        seats.renew(fresh);
        seats.note_all(store).ok_or_else(|| SyncError::Storage(history_missing(id)))?;
        ledger.version = store.version().clone();
        Ok(ledger.checkpoint(store))
    }

    /// Notes that the relay has all that the `doubted` seats made; if the one in use is among them, it
    /// is given up.
    fn keep_all(
        &mut self,
        common: &[(ReplicaId, Chain)],
        doubted: &[ReplicaId],
    ) -> Result<Batch, SyncError> {
        let settled = common.iter().filter(|(seat, _)| doubted.contains(seat));
        let settled: Vec<(ReplicaId, Chain)> = settled.copied().collect();
        self.ledger.seats.settle(&settled);
        if doubted.contains(&self.store.replica_id()) {
            self.take_new_seat()?;
        }
        Ok(Batch { seats: self.ledger.seats.take_changed(), ..Batch::default() })
    }

    fn take_new_seat(&mut self) -> Result<(), SyncError> {
        let fresh = random::replica_id();
        self.store.go_on_as(fresh).map_err(|error| cannot_reseat(&error))?;
        self.ledger.seats.renew(fresh);
        Ok(())
    }
}

fn forked(message: String) -> SyncError {
    SyncError::Refused { code: RefusalCode::Forked, message }
}

fn cannot_reseat(error: &StoreError) -> SyncError {
    forked(format!("this file is a copy, and cannot go on under another name: {error}"))
}
