//! Giving up a seat: when a relay has other changes under an id of this file, the file is a copy.
//!
//! It takes up to three connections. The first one finds seats whose changes may mean something else
//! at the relay. The second one asks for all that the relay has of these seats, and takes in nothing:
//! what the file has beyond it is made again under a new id, and on disk before anything else. The
//! third one goes on as ever. A seat of which the relay merely knows more, after everything of this
//! side had reached it, is given up at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use sds_engine::{Change, ChangeHeader, OpId, Patch, Remake, ReplicaId, Version};
use sds_store::{DataStore, Fate, RemakeError, StoreError};

use super::doubts::Doubts;
use super::{Captured, Handover, Origin, SyncedStore};
use crate::ledger::{Ledger, history_missing};
use crate::limits::{OPEN_SEATS_MAX, RESEATS_MAX};
use crate::message::RefusalCode;
use crate::persistence::Batch;
use crate::seat::{Chain, Seat, Side};
use crate::sync_engine::SyncError;

/// What a connection is good for, after a look at the relay's chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To keep the store equal with the relay.
    Sync,
    /// To find out what the relay has of the seats in doubt.
    Inquiry,
    /// Nothing: the next one has to ask for other things.
    Nothing,
}

impl SyncedStore {
    /// What to tell a relay: what is here, and which seats to ask about. What is in doubt is not
    /// said to be here, so that the relay sends it.
    pub(crate) fn hello(&self) -> (Version, Vec<ReplicaId>) {
        (without(self.store.version(), &self.doubts), self.ledger.seats.to_name(&self.store))
    }

    /// Takes those of `changes` out that were made under seats which a relay has to be told of, and which
    /// are not among `named`, and what builds on them. Says nothing if there are none, else whether the
    /// next connection names them all.
    pub(crate) fn hold_back(
        &self,
        named: &[ReplicaId],
        changes: &mut Vec<Arc<[u8]>>,
    ) -> Option<bool> {
        if changes.is_empty() {
            return None;
        }
        let mut beside = self.ledger.seats.to_ask_about();
        let names_all = beside.len() <= OPEN_SEATS_MAX;
        beside.retain(|seat| !named.contains(seat));
        if beside.is_empty() {
            return None;
        }
        let beside: BTreeSet<ReplicaId> = beside.into_iter().collect();
        let mut held: BTreeMap<ReplicaId, u64> = BTreeMap::new();
        changes.retain(|change| {
            let Ok(header) = ChangeHeader::decode(change) else { return false };
            let is_held = |op: &OpId| held.get(&op.replica).is_some_and(|from| *from <= op.counter);
            let is_to_wait = beside.contains(&header.replica)
                || held.contains_key(&header.replica)
                || header.deps.iter().any(is_held);
            if is_to_wait {
                held.entry(header.replica).or_insert(header.start);
            }
            !is_to_wait
        });
        (!held.is_empty()).then_some(names_all)
    }

    /// Compares the seats with what a relay has of them, which was asked about those in `named`; says what
    /// the connection is good for, and what is to be written. If the relay knows more than this side, the
    /// store goes on as `fresh`.
    pub(crate) fn compare_seats(
        &mut self,
        named: &[ReplicaId],
        relay: &[(ReplicaId, Chain)],
        fresh: ReplicaId,
    ) -> Result<(Purpose, Handover), SyncError> {
        self.ledger.seats.set_named(named);
        let standing = self.ledger.seats.compare(&self.store, relay);
        let has_asked = standing.doubted.iter().all(|(replica, _)| self.doubts.is_about(*replica));
        self.doubts = Doubts::new(standing.doubted.iter().map(|(seat, tip)| (*seat, tip.counter)));
        if !self.doubts.is_empty() {
            let purpose = if has_asked { Purpose::Inquiry } else { Purpose::Nothing };
            return Ok((purpose, Handover::default()));
        }
        if standing.is_behind {
            self.note_reseat()?;
            self.take_new_seat(fresh)?;
            tracing::warn!(store = %self.id, "the relay knows more of this file: took a new seat");
        }
        let batch = Batch { seats: self.ledger.seats.take_changed(), ..Batch::default() };
        Ok((Purpose::Sync, Handover { batch, upto: Version::new() }))
    }

    /// Goes on from `base`, what is in the file, which has these seats, of a guest whose seat somebody else
    /// has, or in whose file something was made again or is lost. What was made under the seat in use and
    /// is not in `persisted` is made again as `fresh`, an id that nobody has drawn before; of what the file
    /// had before, what it lacks now goes there again, unless the owner has made it again. Says what is to
    /// be written in the place of all that waits. Costs the whole history.
    pub(crate) fn rebase(
        &mut self,
        base: &DataStore,
        seats: Vec<Seat>,
        persisted: &Version,
        fresh: ReplicaId,
    ) -> Result<Captured, SyncError> {
        self.put_on(base, persisted, fresh)?;
        self.ledger.seats.begin_anew(fresh);
        self.ledger.seats.follow(seats);
        self.ledger.version.clone_from(base.version());
        let captured = self.capture(Origin::Local)?;
        self.list_blobs();
        Ok(captured)
    }

    /// The same of the owner of a file, who has lost it for a while after a failure of the disk, in which
    /// somebody else has written to it: `base` is what is in it now, and `ledger` says what that is.
    pub(crate) fn take_over(
        &mut self,
        base: &DataStore,
        ledger: Ledger,
        persisted: &Version,
        fresh: ReplicaId,
    ) -> Result<Captured, SyncError> {
        self.put_on(base, persisted, fresh)?;
        let mut seats = self.ledger.seats.clone();
        seats.take_over(ledger.seats, fresh);
        let changes = self.store.decoded_changes_since(base.version());
        seats.note_again(&changes.ok_or_else(|| history_missing(&self.id))?);
        self.ledger = Ledger { seats, ..ledger };
        let captured = self.capture(Origin::Local)?;
        self.list_blobs();
        Ok(captured)
    }

    /// Puts what is made here, and not in `persisted`, on top of `base`, and what that lacks of all else. What
    /// guests have brought, and were not told to be on disk, they bring again.
    fn put_on(
        &mut self,
        base: &DataStore,
        persisted: &Version,
        fresh: ReplicaId,
    ) -> Result<(), SyncError> {
        let missing = || SyncError::Storage(history_missing(&self.id));
        let all = |store: &DataStore| store.changes_since(&Version::new());
        let mut own = all(&self.store).ok_or_else(missing)?;
        let theirs = by_first(all(base).ok_or_else(missing)?);
        let known = made_again(&own, &theirs, persisted);
        own.retain(|change| !is_among(change, &theirs));
        let lost = self.store.replica_id();
        let is_guests = |replica: ReplicaId| self.ledger.seats.is_lendable(replica);
        let fate = |header: &ChangeHeader| match known.get(&first_of(header)) {
            Some(now) => Fate::MadeBefore(*now),
            None if header.replica == lost && header.start >= persisted.next(lost) => {
                Fate::MadeAgain
            }
            None if is_guests(header.replica) && !persisted.has(header.last()) => Fate::LeftOut,
            None => Fate::Stays,
        };
        match self.store.rebase_as(fresh, base, &own, fate) {
            Ok(_) => {}
            Err(RemakeError::HistoryMissing) => return Err(missing()),
            Err(RemakeError::Store(error)) => return Err(cannot_reseat(&error)),
            Err(error) => return Err(forked(error.to_string())),
        }
        tracing::warn!(store = %self.id, "the file is not what it was: what it lacks is written again");
        (self.snapshot, self.doubts) = (None, Doubts::default());
        self.resettled += 1;
        Ok(())
    }

    /// Takes in what a relay, which has `version` in all, sends of the seats in doubt. If that was all,
    /// the seats are settled, and this is to be written.
    pub(super) fn settle_seats(
        &mut self,
        version: &Version,
        patch: Patch,
        fresh: ReplicaId,
    ) -> Result<Option<Handover>, SyncError> {
        let mut doubts = std::mem::take(&mut self.doubts);
        let settled = self.inquire(&mut doubts, Side::Relay, version, patch.into_changes(), fresh);
        if matches!(settled, Ok(None)) {
            self.doubts = doubts;
        }
        settled
    }

    /// What is in doubt of the seats here if a peer has `version`: then the file was restored or copied. A
    /// seat that others have gone on under is merely given up if they have all that was made here; that is to
    /// be written. Nobody can check the word of a peer that only reads: it counts for the seat in use alone,
    /// and so many times. `fresh` is an id that nobody has drawn before.
    pub(crate) fn compare_with_peer(
        &mut self,
        version: &Version,
        may_write: bool,
        fresh: ReplicaId,
    ) -> Result<(Doubts, Batch), SyncError> {
        let (doubted, mut outgrown) =
            self.ledger.seats.compare_version(&self.store, version, may_write);
        let current = self.store.replica_id();
        if !may_write {
            let is_believed = self.reseats_for_readers < RESEATS_MAX;
            outgrown.retain(|seat| is_believed && *seat == current);
        }
        if outgrown.contains(&current) {
            if may_write {
                self.note_reseat()?;
            } else {
                self.reseats_for_readers += 1;
            }
            self.take_new_seat(fresh)?;
            tracing::warn!(store = %self.id, "a peer knows more of this file: took a new seat");
        }
        for seat in outgrown {
            self.ledger.seats.give_up(seat);
        }
        let batch = Batch { seats: self.ledger.seats.take_changed(), ..Batch::default() };
        Ok((Doubts::new(doubted), batch))
    }

    /// Takes in what another side, which has `version` in all, sends of the seats in doubt. If that was
    /// all, the seats are settled, and this is to be written.
    pub(crate) fn inquire(
        &mut self,
        doubts: &mut Doubts,
        side: Side,
        version: &Version,
        changes: impl IntoIterator<Item = Change>,
        fresh: ReplicaId,
    ) -> Result<Option<Handover>, SyncError> {
        let missing = || SyncError::Storage(history_missing(&self.id));
        doubts.take(&self.store, &self.ledger.seats, changes).ok_or_else(missing)?;
        if !doubts.is_resolved() {
            return Ok(None);
        }
        let mut settled = doubts.common();
        if side == Side::Peer {
            // What a peer has other changes in the place of keeps its name if a relay has it.
            for (replica, chain) in &mut settled {
                let agreed = self.ledger.seats.agreed(*replica);
                if chain.counter < agreed.counter {
                    *chain = agreed;
                }
            }
        }
        let is_beyond = |(replica, chain): &(ReplicaId, Chain)| {
            self.ledger.seats.made(*replica) > chain.counter
        };
        let must_remake = settled.iter().any(is_beyond);
        if must_remake && self.is_guest {
            return Err(SyncError::OwnerFirst);
        }
        if doubts.seats().any(|seat| !self.ledger.seats.is_followed(seat)) {
            self.note_reseat()?;
        }
        let missing = || SyncError::Storage(history_missing(&self.id));
        let Self { store, ledger, .. } = self;
        let seats = &mut ledger.seats;
        let common = seats.common_with(store, version, &settled).ok_or_else(missing)?;
        // Somebody else has gone on under them. The one in use is given up below.
        for (replica, _) in &settled {
            seats.give_up(*replica);
        }
        let batch = if must_remake {
            self.remake(side, &common, fresh)?
        } else {
            self.keep_all(side, &settled, fresh)?
        };
        Ok(Some(Handover { batch, upto: self.ledger.version.clone() }))
    }

    /// Acts on a relay that takes changes of some replicas, beyond these counters, from others alone, and
    /// has `stored` in all. What was made here under such ids and is not at the relay is made again under
    /// another one; the id in use is given up. Says what is to be written before anything else, if
    /// anything. The store may have lost changes by their former names.
    ///
    /// A guest makes nothing again, for the owner of the file would have it twice: what it has made under
    /// such ids waits for somebody from whom the relay takes it, as what others have made does.
    pub(crate) fn give_up(
        &mut self,
        foreign: &[(ReplicaId, u64)],
        stored: &Version,
        fresh: ReplicaId,
    ) -> Result<Option<Handover>, SyncError> {
        let is_foreign = |replica: &ReplicaId| foreign.iter().any(|(other, _)| other == replica);
        let has_more =
            |(replica, next): &(ReplicaId, u64)| self.ledger.seats.made(*replica) > *next;
        let is_in_use = is_foreign(&self.store.replica_id());
        let must_remake = !self.is_guest && foreign.iter().any(has_more);
        if is_in_use || must_remake {
            self.note_reseat()?;
        }
        let Self { store, ledger, .. } = self;
        let mut version = stored.clone();
        foreign.iter().for_each(|(replica, next)| version.advance(*replica, *next));
        // Nothing is to be made under them any more, by guests either.
        let given_up = foreign.iter().filter(|(replica, _)| ledger.seats.give_up(*replica)).count();
        if !is_in_use && !must_remake {
            let batch = Batch { seats: ledger.seats.take_changed(), ..Batch::default() };
            let handover = Handover { batch, upto: ledger.version.clone() };
            return Ok((given_up > 0).then_some(handover));
        }
        let seats = &ledger.seats;
        let missing = || SyncError::Storage(history_missing(&self.id));
        let common = seats.common_with(store, &version, &[]).ok_or_else(missing)?;
        let is_beyond = |(replica, chain): &(ReplicaId, Chain)| {
            is_foreign(replica) && seats.made(*replica) > chain.counter
        };
        let batch = if must_remake && common.iter().any(is_beyond) {
            self.remake(Side::Relay, &common, fresh)?
        } else {
            self.take_new_seat(fresh)?;
            Batch { seats: self.ledger.seats.take_changed(), ..Batch::default() }
        };
        tracing::warn!(store = %self.id, "an id of this file belongs to somebody else at the relay");
        Ok(Some(Handover { batch, upto: self.ledger.version.clone() }))
    }

    /// Makes again what the seats have beyond `common`, under a new id; says what is to be written.
    ///
    /// The id follows from the first change that is made again: another copy of the file that makes it
    /// again too gets the same change to the byte, and not the same edit twice. If both go on under
    /// this id, that is a fork like any other.
    fn remake(
        &mut self,
        side: Side,
        common: &[(ReplicaId, Chain)],
        fresh: ReplicaId,
    ) -> Result<Batch, SyncError> {
        let Self { id, store, ledger, snapshot, resettled, .. } = self;
        let seats = &mut ledger.seats;
        let beyond = |(seat, chain): &(ReplicaId, Chain)| (*seat, chain.counter..seats.made(*seat));
        let former: Vec<(ReplicaId, Range<u64>)> = common.iter().map(beyond).collect();
        let is_former = |header: &ChangeHeader| {
            let known = former.iter().find(|(seat, _)| *seat == header.replica);
            known.is_some_and(|(_, made)| made.contains(&header.start))
        };
        let missing = || SyncError::Storage(history_missing(id));
        let changes = store.changes_since(&Version::new()).ok_or_else(missing)?;
        let named = name_of_remade(&changes, common, is_former);
        let fresh = named.filter(|name| store.version().next(*name) == 0).unwrap_or(fresh);
        store.hold_events(|store| {
            match store.remake_as(fresh, is_former) {
                Ok(_) => {}
                Err(RemakeError::HistoryMissing) => return Err(missing()),
                Err(RemakeError::Store(error)) => return Err(cannot_reseat(&error)),
                Err(error) => return Err(forked(error.to_string())),
            }
            // It has the former ids, and its version may be one that the store reaches again.
            *snapshot = None;
            *resettled += 1;
            tracing::warn!(store = %id, "this file is a copy: its own changes have new ids now");
            seats.settle(side, common);
            seats.renew(fresh);
            seats.note_all(store).ok_or_else(missing)?;
            ledger.version = store.version().clone();
            Ok(())
        })?;
        // What handlers have answered is new, and may have brought large values.
        let Captured { handover, .. } = self.capture(Origin::Local)?;
        let answered = handover.batch;
        let Batch { snapshot, seats, .. } = self.ledger.checkpoint(&self.store);
        let seats = [answered.seats, seats].concat();
        Ok(Batch { snapshot, seats, changes: Vec::new(), ..answered })
    }

    /// Notes that the other side has all that these seats made; if the one in use is among them, it is given
    /// up.
    fn keep_all(
        &mut self,
        side: Side,
        settled: &[(ReplicaId, Chain)],
        fresh: ReplicaId,
    ) -> Result<Batch, SyncError> {
        self.ledger.seats.settle(side, settled);
        let current = self.store.replica_id();
        if settled.iter().any(|(replica, _)| *replica == current) {
            self.take_new_seat(fresh)?;
        }
        Ok(Batch { seats: self.ledger.seats.take_changed(), ..Batch::default() })
    }

    /// Notes that an id is about to be given up at a relay's word; fails, before anything has changed, if
    /// that has happened too often since the last local edit: no id would do.
    fn note_reseat(&mut self) -> Result<(), SyncError> {
        if self.reseats >= RESEATS_MAX {
            let message = "the relay calls each id that this file takes somebody else's".to_owned();
            return Err(SyncError::Refused { code: RefusalCode::Forbidden, message });
        }
        self.reseats += 1;
        Ok(())
    }

    fn take_new_seat(&mut self, fresh: ReplicaId) -> Result<(), SyncError> {
        self.store.go_on_as(fresh).map_err(|error| cannot_reseat(&error))?;
        self.ledger.seats.renew(fresh);
        Ok(())
    }
}

/// The version without the seats in doubt.
pub(crate) fn without(version: &Version, doubts: &Doubts) -> Version {
    let mut told = Version::new();
    let undoubted = version.iter().filter(|(replica, _)| !doubts.is_about(*replica));
    undoubted.for_each(|(replica, next)| told.advance(replica, next));
    told
}

/// The id under which changes are made again, of which the first is the first one in `changes` for
/// which `is_former` holds.
fn name_of_remade(
    changes: &[Arc<[u8]>],
    common: &[(ReplicaId, Chain)],
    is_former: impl Fn(&ChangeHeader) -> bool,
) -> Option<ReplicaId> {
    let first = changes.iter().find_map(|change| {
        let header = ChangeHeader::decode(change).ok().filter(&is_former)?;
        Some((header.replica, change))
    });
    let (former, change) = first?;
    let (_, chain) = common.iter().find(|(seat, _)| *seat == former)?;
    name_after(chain, change)
}

/// The id under which `change`, which comes after `chain`, and what follows is made again.
fn name_after(chain: &Chain, change: &[u8]) -> Option<ReplicaId> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"made again").update(&chain.hash).update(change);
    let name = hasher.finalize();
    ReplicaId::new(u64::from_le_bytes(*name.as_bytes().first_chunk()?))
}

/// The name that a change has among those of all authors.
const fn first_of(header: &ChangeHeader) -> (ReplicaId, u64) {
    (header.replica, header.start)
}

/// Changes by their names.
fn by_first(changes: Vec<Arc<[u8]>>) -> BTreeMap<(ReplicaId, u64), Arc<[u8]>> {
    let named = changes.into_iter().filter_map(|change| {
        let header = ChangeHeader::decode(&change).ok()?;
        Some((first_of(&header), change))
    });
    named.collect()
}

/// Whether a change is among `others`, byte for byte.
fn is_among(change: &Arc<[u8]>, others: &BTreeMap<(ReplicaId, u64), Arc<[u8]>>) -> bool {
    let header = ChangeHeader::decode(change);
    header.is_ok_and(|header| others.get(&first_of(&header)) == Some(change))
}

/// Which of the changes `own`, as far as they are in `persisted`, are among `theirs` under the id that
/// they were made again under: the first op of each, and its name there.
fn made_again(
    own: &[Arc<[u8]>],
    theirs: &BTreeMap<(ReplicaId, u64), Arc<[u8]>>,
    persisted: &Version,
) -> BTreeMap<(ReplicaId, u64), OpId> {
    let mut chains: BTreeMap<ReplicaId, Chain> = BTreeMap::new();
    let (mut known, mut remake) = (BTreeMap::new(), None);
    for bytes in own {
        let Ok(header) = ChangeHeader::decode(bytes) else { continue };
        let chain = chains.entry(header.replica).or_default();
        if theirs.get(&first_of(&header)) == Some(bytes) {
            chain.extend(header.end(), bytes);
            continue;
        }
        if !persisted.has(header.last()) {
            continue;
        }
        // Only the first one that is missing names the others.
        if remake.is_none() && chain.counter == header.start {
            let name = name_after(chain, bytes);
            let is_there = |name: &ReplicaId| theirs.contains_key(&(*name, 0));
            remake = name.filter(is_there).map(Remake::new);
        }
        let again =
            remake.as_mut().and_then(|remake| remake.change(&Change::decode(bytes).ok()?).ok());
        match again.filter(|again| is_among(again.bytes(), theirs)) {
            Some(again) => {
                let (replica, counter) = first_of(again.header());
                known.insert(first_of(&header), OpId { replica, counter });
            }
            None => remake = None,
        }
    }
    known
}

fn forked(message: String) -> SyncError {
    SyncError::Refused { code: RefusalCode::Forked, message }
}

pub(super) fn cannot_reseat(error: &StoreError) -> SyncError {
    forked(format!("this file is a copy, and cannot go on under another name: {error}"))
}
