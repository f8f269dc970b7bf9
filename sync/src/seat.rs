//! Seats: the replica ids that belong to a store's file, and how far each has come.
//!
//! An id means one author for good. So a file keeps its ids from one session to the next, and notes
//! beside each the counter that comes next and a hash over all changes made under it. Whoever has
//! another hash at the same counter, or knows more than the file, has met a copy of it: the seat is
//! given up then, and what nobody else has is made again under a new id.
//!
//! Invariants:
//! - T1. `agreed.counter` <= `own.counter` <= `next`.
//! - T2. Exactly one seat of a session is not given up: the one it edits under.

use std::collections::BTreeSet;
use std::sync::Arc;

use sds_engine::{ChangeHeader, ReplicaId, Version};
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
}

/// How many bytes a seat takes on disk.
const SEAT_BYTES: usize = 89;

impl Seat {
    /// A seat under which nothing was made yet.
    #[must_use]
    pub fn new(replica: ReplicaId) -> Self {
        let (own, agreed) = (Chain::default(), Chain::default());
        Self { replica, next: 0, own, agreed, is_given_up: false }
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
        bytes.push(u8::from(self.is_given_up));
        bytes
    }

    /// Reads what [`Seat::encode`] wrote; nothing if it did not.
    #[must_use]
    pub fn decode(replica: ReplicaId, bytes: &[u8]) -> Option<Self> {
        let (next, rest) = bytes.split_first_chunk()?;
        let (own, rest) = decode_chain(rest)?;
        let (agreed, rest) = decode_chain(rest)?;
        let is_given_up = match rest {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let next = u64::from_le_bytes(*next);
        let is_sound = agreed.counter <= own.counter && own.counter <= next;
        is_sound.then_some(Self { replica, next, own, agreed, is_given_up })
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

    /// The chain over those first changes that somebody else, who has `theirs`, has as they are.
    fn common_with(&self, store: &DataStore, theirs: &[Arc<[u8]>]) -> Option<Chain> {
        let mut chain = Chain::default();
        for ((header, own), their) in self.changes(store, 0)?.iter().zip(theirs) {
            if own != their || header.start >= self.own.counter {
                break;
            }
            chain.extend(header.end(), own);
        }
        Some(chain)
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
}

impl Seats {
    /// Seats of which one is not given up (T2); nothing otherwise.
    pub(crate) fn new(all: Vec<Seat>) -> Option<Self> {
        let current = all.iter().position(|seat| !seat.is_given_up)?;
        Some(Self { all, current, changed: BTreeSet::new() })
    }

    /// The one in use.
    pub(crate) fn current(&self) -> &Seat {
        &self.all[self.current]
    }

    /// Notes changes, of whomever, and the counter that comes next.
    pub(crate) fn note(&mut self, changes: &[Arc<[u8]>], next: u64) {
        let seat = &mut self.all[self.current];
        let former = seat.next;
        for change in changes {
            let header = ChangeHeader::decode(change);
            if let Ok(header) = header.as_ref().map_err(drop)
                && header.replica == seat.replica
                && header.start >= seat.own.counter
            {
                seat.own.extend(header.end(), change);
            }
        }
        seat.next = former.max(next).max(seat.own.counter);
        if seat.next != former {
            self.changed.insert(seat.replica);
        }
    }

    /// Notes what a relay has on its disk: it has taken it as it is here.
    pub(crate) fn note_stored(&mut self, stored: &Version) {
        let seat = &mut self.all[self.current];
        if seat.agreed != seat.own && stored.next(seat.replica) == seat.own.counter {
            seat.agreed = seat.own;
            self.changed.insert(seat.replica);
        }
    }

    /// Notes changes of the seat in use that are not told one by one; nothing if they are gone.
    pub(crate) fn note_all(&mut self, store: &DataStore) -> Option<()> {
        let seat = self.current();
        let changes = seat.changes(store, seat.own.counter)?;
        let changes: Vec<Arc<[u8]>> = changes.into_iter().map(|(_, change)| change).collect();
        self.note(&changes, store.next_counter());
        Some(())
    }

    /// The seats that are not on disk as they are here; from now on they count as written.
    pub(crate) fn take_changed(&mut self) -> Vec<Seat> {
        let changed = std::mem::take(&mut self.changed);
        self.all.iter().filter(|seat| changed.contains(&seat.replica)).cloned().collect()
    }

    /// The seats that a relay has to be asked about: the one in use, and those with changes that no
    /// relay is known to have.
    pub(crate) fn to_ask_about(&self) -> Vec<ReplicaId> {
        let others = self.all.iter().rev().filter(|seat| seat.agreed != seat.own);
        let all = [self.current()].into_iter().chain(others).map(|seat| seat.replica);
        let mut asked: Vec<ReplicaId> = Vec::new();
        for replica in all.take(OPEN_SEATS_MAX) {
            if !asked.contains(&replica) {
                asked.push(replica);
            }
        }
        asked
    }

    /// Compares the seats with what a relay has of them.
    pub(crate) fn compare(&mut self, store: &DataStore, relay: &[(ReplicaId, Chain)]) -> Standing {
        let mut standing = Standing::default();
        let current = self.current().replica;
        for (replica, theirs) in relay {
            let Some(seat) = self.all.iter_mut().find(|seat| seat.replica == *replica) else {
                continue;
            };
            if theirs.counter > seat.own.counter {
                if seat.agreed != seat.own {
                    standing.doubted.push((*replica, *theirs));
                } else if *replica == current {
                    standing.is_behind = true;
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
        standing
    }

    /// How far each seat's changes are the same at a relay that has `version` in all, and of the
    /// `doubted` seats the changes `theirs`; nothing if own changes are gone.
    pub(crate) fn common_with(
        &self,
        store: &DataStore,
        version: &Version,
        doubted: &[ReplicaId],
        theirs: &[Arc<[u8]>],
    ) -> Option<Vec<(ReplicaId, Chain)>> {
        let mut common = Vec::new();
        for seat in &self.all {
            let chain = if doubted.contains(&seat.replica) {
                let is_its = |change: &&Arc<[u8]>| {
                    ChangeHeader::decode(change).is_ok_and(|header| header.replica == seat.replica)
                };
                let theirs: Vec<Arc<[u8]>> = theirs.iter().filter(is_its).cloned().collect();
                seat.common_with(store, &theirs)?
            } else if seat.agreed == seat.own {
                seat.own
            } else {
                match seat.chain_at(store, version.next(seat.replica).min(seat.own.counter)) {
                    ChainAt::Is(chain) => chain,
                    ChainAt::NoChange | ChainAt::Gone => return None,
                }
            };
            common.push((seat.replica, chain));
        }
        Some(common)
    }

    /// How far the changes that were made here under an id go.
    pub(crate) fn made(&self, replica: ReplicaId) -> u64 {
        let seat = self.all.iter().find(|seat| seat.replica == replica);
        seat.map_or(0, |seat| seat.own.counter)
    }

    /// Notes that a relay has these changes, and that nothing was made beyond them, or is made again.
    pub(crate) fn settle(&mut self, common: &[(ReplicaId, Chain)]) {
        for (replica, chain) in common {
            if let Some(seat) = self.all.iter_mut().find(|seat| seat.replica == *replica) {
                (seat.own, seat.agreed) = (*chain, *chain);
                self.changed.insert(*replica);
            }
        }
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
        for is_given_up in [false, true] {
            seat.is_given_up = is_given_up;
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
