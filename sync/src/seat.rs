//! Seats: the replica ids that belong to a store's file, and how far each has come.
//!
//! An id means one author for good. So a file keeps its ids from one session to the next, and notes
//! beside each the counter that comes next and a hash over all changes made under it. Whoever has
//! another hash at the same counter, or knows more than the file, has met a copy of it: the seat is
//! given up then, and what nobody else has is made again under a new id.
//!
//! Invariants:
//! - T1. `agreed.counter` <= `own.counter` <= `next`.
//! - T2. Of the seats that are neither given up nor for guests a session has exactly one: the one that
//!   it edits under.
//! - T3. A seat for guests is lent to one guest at a time, who gets higher counters than any guest
//!   before: so two guests never make changes that are the same to the byte.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sds_engine::{Change, ChangeHeader, ReplicaId, Version};
use sds_store::DataStore;

use crate::limits::OPEN_SEATS_MAX;

/// A hash over the changes of one author, from the first one on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The counter after the last change in it.
    pub counter: u64,
    /// 32 zeros, or the blake3 of the hash before the last change and that change's bytes.
    pub hash: [u8; 32],
}

impl Chain {
    /// Takes the author's next change in, which ends before the counter `end`.
    pub fn extend(&mut self, end: u64, change: &[u8]) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.hash).update(change);
        *self = Self { counter: end, hash: hasher.finalize().into() };
    }

    /// Whether it is that of `author` in `store`, as far as its changes are there, one by one.
    pub(crate) fn is_of(&self, store: &DataStore, author: ReplicaId) -> bool {
        if store.version().next(author) < self.counter {
            return true;
        }
        match Seat::new(author).chain_at(store, self.counter) {
            ChainAt::Is(chain) => chain == *self,
            ChainAt::NoChange => false,
            ChainAt::Gone => true,
        }
    }
}

/// One replica id of a store's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The id.
    pub replica: ReplicaId,
    /// The counter that the next edit gets.
    pub next: u64,
    /// The changes that were made here under this id.
    pub own: Chain,
    /// Those of them that a relay is known to have as they are here.
    pub agreed: Chain,
    /// Whether nothing may be made under this id here any more.
    pub is_given_up: bool,
    /// Whether it is for guests: other processes, which the owner of the file lends it to.
    pub is_for_guests: bool,
}

/// How many bytes a seat takes on disk.
const SEAT_BYTES: usize = 89;

impl Seat {
    /// A seat under which nothing was made yet.
    #[must_use]
    pub fn new(replica: ReplicaId) -> Self {
        let (own, agreed) = (Chain::default(), Chain::default());
        Self { replica, next: 0, own, agreed, is_given_up: false, is_for_guests: false }
    }

    /// Whether a session may edit under it: whether it is neither given up nor for guests.
    #[must_use]
    pub const fn is_for_sessions(&self) -> bool {
        !self.is_given_up && !self.is_for_guests
    }

    /// Whether guests may write under it: whether it is for them, and not given up.
    #[must_use]
    pub const fn is_lendable(&self) -> bool {
        self.is_for_guests && !self.is_given_up
    }

    /// All but the id, as bytes: the counters little-endian.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEAT_BYTES);
        bytes.extend(self.next.to_le_bytes());
        for chain in [self.own, self.agreed] {
            bytes.extend(chain.counter.to_le_bytes());
            bytes.extend(chain.hash);
        }
        bytes.push(u8::from(self.is_given_up) | u8::from(self.is_for_guests) << 1);
        bytes
    }

    /// Reads what [`Seat::encode`] wrote; nothing if it did not.
    #[must_use]
    pub fn decode(replica: ReplicaId, bytes: &[u8]) -> Option<Self> {
        let (next, rest) = bytes.split_first_chunk()?;
        let (own, rest) = decode_chain(rest)?;
        let (agreed, rest) = decode_chain(rest)?;
        let (is_given_up, is_for_guests) = match rest {
            [flags @ 0..=3] => (flags & 1 != 0, flags & 2 != 0),
            _ => return None,
        };
        let next = u64::from_le_bytes(*next);
        let is_sound = agreed.counter <= own.counter && own.counter <= next;
        is_sound.then_some(Self { replica, next, own, agreed, is_given_up, is_for_guests })
    }

    /// Whether what it says of the changes made under it is what they are in `store`, as far as they
    /// are still there one by one.
    pub(crate) fn fits(&self, store: &DataStore) -> bool {
        let known = store.version().next(self.replica);
        if known < self.own.counter || (!self.is_given_up && known != self.own.counter) {
            return false;
        }
        let Some(changes) = self.changes(store, 0) else { return true };
        let mut chain = Chain::default();
        let mut is_agreed = self.agreed == chain;
        let own = changes.iter().take_while(|(header, _)| header.end() <= self.own.counter);
        for (header, change) in own {
            chain.extend(header.end(), change);
            is_agreed |= self.agreed == chain;
        }
        chain == self.own && is_agreed
    }

    /// The changes made here under this id from the counter `from` on; nothing if some are gone.
    fn changes(&self, store: &DataStore, from: u64) -> Option<Vec<(ChangeHeader, Arc<[u8]>)>> {
        let mut known = Version::new();
        let others = store.version().iter().filter(|(replica, _)| *replica != self.replica);
        others.for_each(|(replica, next)| known.advance(replica, next));
        known.advance(self.replica, from);
        let changes = store.changes_since(&known)?.into_iter();
        let read = changes.filter_map(|change| Some((ChangeHeader::decode(&change).ok()?, change)));
        Some(read.collect())
    }

    /// The chain up to a counter, as far as it can be told.
    fn chain_at(&self, store: &DataStore, counter: u64) -> ChainAt {
        let known = [self.own, self.agreed, Chain::default()];
        let known = known.into_iter().find(|chain| chain.counter <= counter);
        let mut chain = known.unwrap_or_default();
        if chain.counter < counter {
            let Some(changes) = self.changes(store, chain.counter) else { return ChainAt::Gone };
            let until = changes.iter().take_while(|(header, _)| header.end() <= counter);
            until.for_each(|(header, change)| chain.extend(header.end(), change));
        }
        if chain.counter == counter { ChainAt::Is(chain) } else { ChainAt::NoChange }
    }
}

fn decode_chain(bytes: &[u8]) -> Option<(Chain, &[u8])> {
    let (counter, rest) = bytes.split_first_chunk()?;
    let (hash, rest) = rest.split_first_chunk()?;
    Some((Chain { counter: u64::from_le_bytes(*counter), hash: *hash }, rest))
}

/// What is known of a chain at a counter.
enum ChainAt {
    Is(Chain),
    /// No change ends there.
    NoChange,
    /// The changes before are gone.
    Gone,
}

/// Who says what it has of the seats here. Only what a relay says is for all to rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The relay.
    Relay,
    /// Another engine.
    Peer,
}

/// What a relay's chains say of the seats here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Seats of which the relay has, or may have, changes under ids that mean others here.
    pub(crate) doubted: Vec<(ReplicaId, Chain)>,
    /// Whether the relay knows more of the seat in use than this side, and nothing else is wrong.
    pub(crate) is_behind: bool,
}

/// The seats of a file, as one session has them.
#[derive(Clone, Debug)]
pub(crate) struct Seats {
    all: Vec<Seat>,
    /// The one in use.
    current: usize,
    /// Those that are not on disk as they are here.
    changed: BTreeSet<ReplicaId>,
    /// Those that a guest has at present (T3).
    lent: BTreeSet<ReplicaId>,
    /// Those that the relay was asked about.
    named: BTreeSet<ReplicaId>,
    /// Those of the file, where another process owns it, which are that one's to settle.
    followed: BTreeSet<ReplicaId>,
    /// Those that a peer has told about: another one is not asked, but the relay is.
    told_by_peers: BTreeSet<ReplicaId>,
}

impl Seats {
    /// Seats of which one is for sessions (T2); nothing otherwise.
    pub(crate) fn new(all: Vec<Seat>) -> Option<Self> {
        let current = all.iter().position(Seat::is_for_sessions)?;
        let (changed, lent, named, followed, told_by_peers) = Default::default();
        Some(Self { all, current, changed, lent, named, followed, told_by_peers })
    }

    /// Begins anew, as a guest that has lost its seat: as `fresh`, under which nothing was made yet. The seats
    /// of the file are to be [followed](Self::follow) again.
    pub(crate) fn begin_anew(&mut self, fresh: ReplicaId) {
        let (changed, lent, named, followed, told_by_peers) = Default::default();
        let all = vec![Seat::new(fresh)];
        *self = Self { all, current: 0, changed, lent, named, followed, told_by_peers };
    }

    /// Begins anew, as the owner of a file that somebody else had meanwhile, whose seats are `file`: as
    /// `fresh`, under which nothing was made yet. Guests keep what they have.
    pub(crate) fn take_over(&mut self, file: Self, fresh: ReplicaId) {
        let lent = std::mem::take(&mut self.lent);
        *self = Self { lent, ..file };
        self.renew(fresh);
    }

    /// Notes changes that go to the file again, of those of its seats that nothing else was made under since.
    pub(crate) fn note_again(&mut self, changes: &[Change]) {
        for change in changes {
            let header = change.header();
            let seat = self.all.iter_mut().find(|seat| seat.replica == header.replica);
            if let Some(seat) = seat.filter(|seat| seat.own.counter == header.start) {
                seat.own.extend(header.end(), change.bytes());
                seat.next = seat.next.max(seat.own.counter);
                self.changed.insert(seat.replica);
            }
        }
    }

    /// Notes the seats of the file, as the process has them that owns it: a guest makes nothing under
    /// them, and nothing again of what was made there.
    pub(crate) fn follow(&mut self, file: Vec<Seat>) {
        let current = self.current().replica;
        self.all.retain(|seat| !self.followed.contains(&seat.replica));
        let own: BTreeSet<ReplicaId> = self.all.iter().map(|seat| seat.replica).collect();
        let others = file.into_iter().filter(|seat| !own.contains(&seat.replica));
        let others: Vec<Seat> = others.map(|seat| Seat { is_given_up: true, ..seat }).collect();
        self.followed = others.iter().map(|seat| seat.replica).collect();
        self.all.extend(others);
        let index = self.all.iter().position(|seat| seat.replica == current);
        self.current = index.expect("T2: the seat in use is not one of those");
    }

    /// The one in use.
    pub(crate) fn current(&self) -> &Seat {
        &self.all[self.current]
    }

    /// Those that something was made under.
    pub(crate) fn made_under(&self) -> Vec<Seat> {
        self.all.iter().filter(|seat| seat.own.counter > 0).cloned().collect()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Seat> {
        self.all.iter()
    }

    /// Notes changes, of whomever, and the counter that comes next.
    pub(crate) fn note<'a>(
        &mut self,
        changes: impl IntoIterator<Item = (&'a ChangeHeader, &'a Arc<[u8]>)>,
        next: u64,
    ) {
        let current = self.current;
        for (header, change) in changes {
            let seat = &mut self.all[current];
            if header.replica == seat.replica && header.start >= seat.own.counter {
                seat.own.extend(header.end(), change);
            } else if self.followed.contains(&header.replica) {
                let followed = self.all.iter_mut().find(|seat| seat.replica == header.replica);
                if let Some(seat) = followed.filter(|seat| seat.own.counter == header.start) {
                    seat.own.extend(header.end(), change);
                    seat.next = seat.own.counter;
                }
            }
        }
        let seat = &mut self.all[current];
        let former = seat.next;
        seat.next = former.max(next).max(seat.own.counter);
        if seat.next != former {
            self.changed.insert(seat.replica);
        }
    }

    /// Notes which seats the relay was asked about.
    pub(crate) fn set_named(&mut self, named: &[ReplicaId]) {
        self.named = named.iter().copied().collect();
    }

    /// Notes what a relay has on its disk: of the seats that it was asked about it has taken it as it is
    /// here.
    pub(crate) fn note_stored(&mut self, stored: &Version) {
        for seat in self.all.iter_mut().filter(|seat| self.named.contains(&seat.replica)) {
            if seat.agreed != seat.own && stored.next(seat.replica) == seat.own.counter {
                seat.agreed = seat.own;
                self.changed.insert(seat.replica);
            }
        }
    }

    /// Lends a seat to a guest: the one that it wishes for if that is free, else any other, or
    /// `fresh`, an id that nobody has drawn before. It has to be on disk before the guest uses it.
    pub(crate) fn lend(
        &mut self,
        store: &DataStore,
        wish: Option<ReplicaId>,
        fresh: ReplicaId,
    ) -> Seat {
        let is_free = |seat: &Seat| {
            let is_as_left = store.version().next(seat.replica) == seat.own.counter;
            seat.is_lendable() && is_as_left && !self.lent.contains(&seat.replica)
        };
        let wished = self.all.iter().position(|seat| Some(seat.replica) == wish && is_free(seat));
        let index = wished.or_else(|| self.all.iter().position(is_free)).unwrap_or_else(|| {
            self.all.push(Seat { is_for_guests: true, ..Seat::new(fresh) });
            self.all.len() - 1
        });
        let seat = &mut self.all[index];
        // A counter that nobody uses tells the changes of this guest from those of any other (T3).
        seat.next += 1;
        self.lent.insert(seat.replica);
        self.changed.insert(seat.replica);
        seat.clone()
    }

    /// Whether it is a seat for the guests of this file. Of one that was given up others' changes may come
    /// from anywhere.
    pub(crate) fn is_lendable(&self, replica: ReplicaId) -> bool {
        self.all.iter().any(|seat| seat.replica == replica && seat.is_lendable())
    }

    /// Whether a guest has this seat.
    pub(crate) fn is_lent(&self, replica: ReplicaId) -> bool {
        self.lent.contains(&replica)
    }

    /// Notes that the guest has left which had this seat.
    pub(crate) fn take_back(&mut self, replica: ReplicaId) {
        self.lent.remove(&replica);
    }

    /// Notes changes of a guest that are new here, among them those of its seat.
    pub(crate) fn note_guest(&mut self, replica: ReplicaId, changes: &[Change]) {
        let Some(seat) = self.all.iter_mut().find(|seat| seat.replica == replica) else { return };
        for change in changes {
            let header = change.header();
            if header.replica == replica && header.start == seat.own.counter {
                seat.own.extend(header.end(), change.bytes());
            }
        }
        seat.next = seat.next.max(seat.own.counter);
        self.changed.insert(replica);
    }

    /// The chain of any replica at the counter `next`, which is at the end of a change, as far as it
    /// can be told. Costs that replica's changes, unless it has a seat here.
    pub(crate) fn tip(&self, store: &DataStore, replica: ReplicaId, next: u64) -> Option<Chain> {
        self.tip_from(Chain::default(), store, replica, next)
    }

    /// The same, if the chain is known up to some counter.
    pub(crate) fn tip_from(
        &self,
        known: Chain,
        store: &DataStore,
        replica: ReplicaId,
        next: u64,
    ) -> Option<Chain> {
        let seat = self.all.iter().find(|seat| seat.replica == replica && next <= seat.own.counter);
        let seat = seat.cloned().unwrap_or_else(|| Seat { own: known, ..Seat::new(replica) });
        match seat.chain_at(store, next) {
            ChainAt::Is(chain) => Some(chain),
            ChainAt::NoChange | ChainAt::Gone => None,
        }
    }

    /// Notes changes of the seat in use that are not told one by one; nothing if they are gone.
    pub(crate) fn note_all(&mut self, store: &DataStore) -> Option<()> {
        let seat = self.current();
        let changes = seat.changes(store, seat.own.counter)?;
        self.note(changes.iter().map(|(header, change)| (header, change)), store.next_counter());
        Some(())
    }

    /// The seats that are not on disk as they are here; from now on they count as written.
    pub(crate) fn take_changed(&mut self) -> Vec<Seat> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.retain(|seat| !self.followed.contains(seat));
        self.all.iter().filter(|seat| changed.contains(&seat.replica)).cloned().collect()
    }

    /// The seats that a relay has to be asked about: the one in use, those with changes that no relay is
    /// known to have, and those that guests may write under.
    pub(crate) fn to_ask_about(&self) -> Vec<ReplicaId> {
        let has_unsent = |seat: &&Seat| seat.agreed != seat.own;
        let unsent = self.all.iter().rev().filter(has_unsent);
        let others = unsent.chain(self.all.iter().rev().filter(|seat| seat.is_lendable()));
        let all = [self.current()].into_iter().chain(others).map(|seat| seat.replica);
        let mut asked = BTreeSet::new();
        all.filter(|replica| asked.insert(*replica)).collect()
    }

    /// Those of them that one connection asks about: if they are too many, those whose changes the others
    /// may build on. What a relay has of these is not to be asked about again.
    pub(crate) fn to_name(&self, store: &DataStore) -> Vec<ReplicaId> {
        let mut named = self.to_ask_about();
        if named.len() > OPEN_SEATS_MAX {
            let mut agreed = Version::new();
            for (replica, next) in store.version().iter() {
                let seat = self.all.iter().find(|seat| seat.replica == replica);
                let unsent = seat.filter(|seat| seat.agreed != seat.own);
                agreed.advance(replica, unsent.map_or(next, |seat| seat.agreed.counter));
            }
            let unsent = store.changes_since(&agreed).unwrap_or_default();
            let headers = unsent.iter().filter_map(|change| ChangeHeader::decode(change).ok());
            let mut order = BTreeMap::new();
            for (position, header) in headers.enumerate() {
                order.entry(header.replica).or_insert(position);
            }
            let current = self.current().replica;
            let position = |seat: &ReplicaId| order.get(seat).copied().unwrap_or(usize::MAX);
            named.sort_by_key(|seat| (*seat != current, position(seat)));
            named.truncate(OPEN_SEATS_MAX);
        }
        named
    }

    /// Compares the seats with what a relay has of them.
    pub(crate) fn compare(&mut self, store: &DataStore, relay: &[(ReplicaId, Chain)]) -> Standing {
        let mut standing = Standing::default();
        let current = self.current().replica;
        let mut outgrown = Vec::new();
        for (replica, theirs) in relay {
            let Some(seat) = self.all.iter_mut().find(|seat| seat.replica == *replica) else {
                continue;
            };
            if theirs.counter > seat.own.counter {
                if seat.agreed != seat.own {
                    standing.doubted.push((*replica, *theirs));
                } else if *replica == current {
                    standing.is_behind = true;
                } else {
                    outgrown.push(*replica);
                }
                continue;
            }
            match seat.chain_at(store, theirs.counter) {
                ChainAt::Is(own) if own == *theirs => {
                    if seat.agreed.counter < own.counter {
                        seat.agreed = own;
                        self.changed.insert(*replica);
                    }
                }
                // What is gone was cut after others had it.
                ChainAt::Gone => {}
                _ => standing.doubted.push((*replica, *theirs)),
            }
        }
        // Somebody else has gone on under them.
        for replica in outgrown {
            self.give_up(replica);
        }
        standing
    }

    /// Those of the seats of which a peer that has `version` has other changes, and up to where, if it can
    /// send them; and those that others have gone on under. A peer that has just as many is believed to have
    /// the same: it says no more than that.
    pub(crate) fn compare_version(
        &self,
        store: &DataStore,
        version: &Version,
        may_send: bool,
    ) -> (Vec<(ReplicaId, u64)>, Vec<ReplicaId>) {
        let (mut doubted, mut outgrown) = (Vec::new(), Vec::new());
        for seat in &self.all {
            let theirs = version.next(seat.replica);
            let has_more = theirs > seat.own.counter;
            let may_differ = may_send
                && seat.agreed != seat.own
                && theirs > seat.agreed.counter
                && !self.is_settled(store, seat);
            let is_other = || store.ends_change(seat.replica, theirs) == Some(false);
            if may_differ && (has_more || is_other()) {
                doubted.push((seat.replica, theirs));
            } else if has_more {
                outgrown.push(seat.replica);
            }
        }
        (doubted, outgrown)
    }

    /// Whether a seat is given up from which others have gone on, as a peer has told or shown.
    fn is_settled(&self, store: &DataStore, seat: &Seat) -> bool {
        let is_others = || store.version().next(seat.replica) > seat.own.counter;
        seat.is_given_up && (self.told_by_peers.contains(&seat.replica) || is_others())
    }

    /// The chains after each of the changes made here under an id; nothing if some are gone.
    pub(crate) fn own_chains(&self, store: &DataStore, replica: ReplicaId) -> Option<Vec<Chain>> {
        let mut chain = Chain::default();
        let Some(seat) = self.all.iter().find(|seat| seat.replica == replica) else {
            return Some(Vec::new());
        };
        let changes = seat.changes(store, 0)?;
        let own = changes.iter().take_while(|(header, _)| header.start < seat.own.counter);
        let after = |(header, change): &(ChangeHeader, Arc<[u8]>)| {
            chain.extend(header.end(), change);
            chain
        };
        Some(own.map(after).collect())
    }

    /// How far each seat's changes are the same at a relay or a peer that has `version` in all, and no less than
    /// at the relay that had them last; of some that is `known`. Nothing if own changes are gone. Those of a
    /// file that another process owns are left out, unless they are known.
    pub(crate) fn common_with(
        &self,
        store: &DataStore,
        version: &Version,
        known: &[(ReplicaId, Chain)],
    ) -> Option<Vec<(ReplicaId, Chain)>> {
        let mut common = Vec::new();
        for seat in &self.all {
            let known = known.iter().find(|(replica, _)| *replica == seat.replica);
            let chain = match known {
                Some((_, chain)) => *chain,
                None if self.is_followed(seat.replica) => continue,
                None if seat.agreed == seat.own => seat.own,
                None => {
                    // What it was known to have, and has no more, it gets again.
                    let next = version.next(seat.replica).min(seat.own.counter);
                    let next = next.max(seat.agreed.counter);
                    match seat.chain_at(store, next) {
                        ChainAt::Is(chain) => chain,
                        // It has others, of which nothing is known: it was not asked about this seat.
                        ChainAt::NoChange => seat.agreed,
                        ChainAt::Gone => return None,
                    }
                }
            };
            common.push((seat.replica, chain));
        }
        Some(common)
    }

    /// Whether it is one of a file that another process owns, and that one's to settle.
    pub(crate) fn is_followed(&self, replica: ReplicaId) -> bool {
        self.followed.contains(&replica)
    }

    /// How far the changes that were made here under an id go.
    pub(crate) fn made(&self, replica: ReplicaId) -> u64 {
        let seat = self.all.iter().find(|seat| seat.replica == replica);
        seat.map_or(0, |seat| seat.own.counter)
    }

    /// Notes that the other side has these changes, no less than [agreed upon](Self::agreed), and that nothing
    /// was made beyond them, or is made again.
    pub(crate) fn settle(&mut self, side: Side, common: &[(ReplicaId, Chain)]) {
        for (replica, chain) in common {
            if let Some(seat) = self.all.iter_mut().find(|seat| seat.replica == *replica) {
                seat.own = *chain;
                match side {
                    Side::Relay => seat.agreed = *chain,
                    Side::Peer => drop(self.told_by_peers.insert(*replica)),
                }
                self.changed.insert(*replica);
            }
        }
    }

    /// The chain over what a relay is known to have of a seat.
    pub(crate) fn agreed(&self, replica: ReplicaId) -> Chain {
        let seat = self.all.iter().find(|seat| seat.replica == replica);
        seat.map_or(Chain::default(), |seat| seat.agreed)
    }

    /// Gives up a seat that belongs to somebody else at a relay; says false if there is none, it was given up
    /// before, or it is the one in use. A guest that has it loses it.
    pub(crate) fn give_up(&mut self, replica: ReplicaId) -> bool {
        let current = self.current().replica;
        let seat = self.all.iter_mut().find(|seat| seat.replica == replica);
        let Some(seat) = seat.filter(|seat| !seat.is_given_up && seat.replica != current) else {
            return false;
        };
        seat.is_given_up = true;
        self.lent.remove(&replica);
        self.changed.insert(replica);
        true
    }

    /// Gives up the seat in use, which nothing is to be made under any more, and takes `fresh`.
    pub(crate) fn renew(&mut self, fresh: ReplicaId) {
        let former = &mut self.all[self.current];
        former.is_given_up = true;
        self.changed.extend([former.replica, fresh]);
        self.current = self.all.len();
        self.all.push(Seat::new(fresh));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_survives_its_encoding_and_nothing_else_does() {
        let mut seat = Seat::new(ReplicaId::new(7).unwrap());
        seat.own.extend(3, b"a");
        seat.agreed = seat.own;
        seat.own.extend(5, b"b");
        seat.next = 9;
        for flags in 0..4 {
            (seat.is_given_up, seat.is_for_guests) = (flags & 1 == 1, flags & 2 == 2);
            let bytes = seat.encode();
            assert_eq!(bytes.len(), SEAT_BYTES);
            assert_eq!(Seat::decode(seat.replica, &bytes), Some(seat.clone()));
            for cut in 0..bytes.len() {
                assert_eq!(Seat::decode(seat.replica, &bytes[..cut]), None);
            }
        }
        seat.next = 4;
        assert_eq!(Seat::decode(seat.replica, &seat.encode()), None, "T1");
    }

    #[test]
    fn no_two_guests_have_one_seat_and_none_gets_ids_that_another_had() {
        let id = |number| ReplicaId::new(number).unwrap();
        let (store, own) = (DataStore::new(id(1)), Seat::new(id(1)));
        let mut seats = Seats::new(vec![own]).unwrap();
        let first = seats.lend(&store, None, id(2));
        let second = seats.lend(&store, Some(id(2)), id(3));
        assert_eq!((first.replica, first.next), (id(2), 1));
        assert_eq!(second.replica, id(3), "the one that it wishes for is taken");
        seats.take_back(id(2));
        seats.take_back(id(3));
        let third = seats.lend(&store, Some(id(3)), id(4));
        assert_eq!((third.replica, third.next), (id(3), 2));
        assert_eq!(seats.lend(&store, Some(id(1)), id(4)).replica, id(2), "not the owner's own");
        assert_eq!(seats.take_changed().len(), 2);
        assert_eq!(seats.current().replica, id(1));
        let kept = seats.all.into_iter().rev().collect();
        assert_eq!(Seats::new(kept).unwrap().current().replica, id(1), "T2");
    }

    #[test]
    fn where_changes_end_is_known_without_reading_them() {
        let id = |number| ReplicaId::new(number).unwrap();
        let mut store = DataStore::new(id(1));
        for label in ["one", "another", "and one more"] {
            crate::labelled::add_labelled(&mut store, label);
        }
        let changes = store.decoded_changes_since(&Version::new()).unwrap();
        let ends: BTreeSet<u64> = changes.iter().map(|change| change.header().end()).collect();
        let loaded = DataStore::from_binary(id(2), &store.as_binary()).unwrap();
        for store in [&store, &loaded] {
            for counter in 0..=store.version().next(id(1)) {
                let is_end = counter == 0 || ends.contains(&counter);
                assert_eq!(store.ends_change(id(1), counter), Some(is_end), "{counter}");
            }
        }
        assert!(ends.len() > 2 && store.version().next(id(1)) > 4);
    }

    #[test]
    fn a_chain_tells_order_content_and_boundaries_apart() {
        let chain = |changes: &[&str]| {
            let mut chain = Chain::default();
            changes.iter().for_each(|change| chain.extend(chain.counter + 1, change.as_bytes()));
            chain.hash
        };
        assert_eq!(chain(&["a", "b"]), chain(&["a", "b"]));
        let others: [&[&str]; 5] = [&["b", "a"], &["a"], &["ab"], &["a", "b", ""], &["a", "c"]];
        assert!(others.iter().all(|other| chain(other) != chain(&["a", "b"])));
    }
}
