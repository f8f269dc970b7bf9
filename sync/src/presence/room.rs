//! What the side that serves a store passes on of its members' states, without knowing what they mean.
//!
//! Every state that is passed on gets a revision, and a member is behind by what is newer than the
//! revision it has: so a slow one costs a number and holds nobody up, and gets the newest state of each
//! when its time comes. That somebody has left is a revision too, kept for a while.
//!
//! Invariants, checked by `assert_invariants`:
//! - Q1. `order` has each entry under its revision, and nothing else.
//! - Q2. A member is passed on at most once in [`PRESENCE_INTERVAL`], but for its leave.
//! - Q3. There are never more than twice [`PRESENCE_PEERS_MAX`] entries, and one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::{PeerId, PresenceMessage};
use crate::limits::{
    PRESENCE_BYTES_MAX, PRESENCE_INTERVAL, PRESENCE_PEERS_MAX, PRESENCE_SUBJECT_BYTES_MAX,
    PRESENCE_TIMEOUT,
};

/// The states of those who have a store open.
#[derive(Debug, Default)]
pub struct PresenceRoom {
    revision: u64,
    entries: HashMap<PeerId, Entry>,
    order: BTreeMap<u64, PeerId>,
}

#[derive(Debug)]
struct Entry {
    subject: Arc<str>,
    message: PresenceMessage,
    /// None if it is not passed on yet.
    revision: Option<u64>,
    passed_on_at: Instant,
    last_heard: Instant,
    is_waiting: bool,
}

/// Something to pass on to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresenceNews {
    /// Somebody shows this.
    Here {
        /// Who.
        peer: PeerId,
        /// Whose token they have.
        subject: Arc<str>,
        /// What they show, and whether it has to arrive.
        message: PresenceMessage,
    },
    /// Somebody shows nothing any more.
    Left {
        /// Who.
        peer: PeerId,
        /// After all states that they have shown so far.
        clock: u64,
    },
}

impl PresenceRoom {
    /// Takes in a member's state. Older ones than the last, ones that are too large, and those of
    /// newcomers to a room that is full are passed over.
    pub fn handle_message(
        &mut self,
        peer: PeerId,
        subject: &str,
        message: PresenceMessage,
        now: Instant,
    ) {
        if message.state.len() > PRESENCE_BYTES_MAX {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&peer) {
            let former = &entry.message;
            let is_settling = message.is_settled && !former.is_settled;
            let is_new = message.clock > former.clock;
            if !is_new && !(message.clock == former.clock && is_settling) {
                if message.clock == former.clock {
                    // Still here, which the others have to hear as well.
                    entry.is_waiting |= entry.last_heard + PRESENCE_INTERVAL <= now;
                    entry.last_heard = now;
                    self.handle_timeout(now);
                }
                return;
            }
            entry.message = message;
            entry.last_heard = now;
            entry.is_waiting = true;
        } else {
            let here = self.entries.values().filter(|entry| !entry.has_left()).count();
            if message.state.is_empty() || here >= PRESENCE_PEERS_MAX {
                return;
            }
            let subject = subject.get(..subject.floor_char_boundary(PRESENCE_SUBJECT_BYTES_MAX));
            let entry = Entry {
                subject: subject.unwrap_or_default().into(),
                message,
                revision: None,
                passed_on_at: now.checked_sub(PRESENCE_INTERVAL).unwrap_or(now),
                last_heard: now,
                is_waiting: true,
            };
            self.entries.insert(peer, entry);
        }
        self.handle_timeout(now);
    }

    /// A member has left.
    pub fn handle_left(&mut self, peer: PeerId, now: Instant) {
        let Some(entry) = self.entries.get_mut(&peer).filter(|entry| !entry.has_left()) else {
            return;
        };
        let clock = entry.message.clock + 1;
        entry.message = PresenceMessage { clock, state: bytes::Bytes::new(), is_settled: true };
        entry.last_heard = now;
        self.pass_on(peer, now);
        self.forget_some();
    }

    /// Takes in the time: passes on what has waited, and notes who is gone.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut due = Vec::new();
        let mut gone = Vec::new();
        for (peer, entry) in &self.entries {
            if entry.last_heard + PRESENCE_TIMEOUT <= now {
                gone.push((*peer, entry.has_left()));
            } else if entry.is_waiting && entry.due() <= now {
                due.push(*peer);
            }
        }
        // In an order of their own, so that all rooms do the same.
        due.sort_unstable();
        gone.sort_unstable();
        due.into_iter().for_each(|peer| self.pass_on(peer, now));
        for (peer, has_left) in gone {
            if !has_left {
                self.handle_left(peer, now);
            } else if let Some(entry) = self.entries.remove(&peer)
                && let Some(revision) = entry.revision
            {
                self.order.remove(&revision);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, if it is.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |entry: &Entry| {
            let gone = entry.last_heard + PRESENCE_TIMEOUT;
            if entry.is_waiting { gone.min(entry.due()) } else { gone }
        };
        self.entries.values().map(due).min()
    }

    /// The revision of what was passed on last.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// What comes next for `member`, which has everything up to `revision`; and the revision that it
    /// has then.
    #[must_use]
    pub fn next_for(&self, member: PeerId, revision: u64) -> Option<(u64, PresenceNews)> {
        let newer = self.order.range(revision.saturating_add(1)..);
        let mut others = newer.filter(|(_, peer)| **peer != member);
        let (revision, peer) = others.next()?;
        let entry = self.entries.get(peer)?;
        let news = if entry.has_left() {
            PresenceNews::Left { peer: *peer, clock: entry.message.clock }
        } else {
            let (subject, message) = (Arc::clone(&entry.subject), entry.message.clone());
            PresenceNews::Here { peer: *peer, subject, message }
        };
        Some((*revision, news))
    }

    /// Panics if an invariant does not hold.
    pub fn assert_invariants(&self) {
        let revisions = self.entries.values().filter_map(|entry| entry.revision);
        assert_eq!(revisions.count(), self.order.len(), "Q1");
        assert!(self.entries.len() <= 2 * PRESENCE_PEERS_MAX + 1, "Q3");
        for (revision, peer) in &self.order {
            let found = self.entries.get(peer).and_then(|entry| entry.revision);
            assert_eq!(found, Some(*revision), "Q1");
            assert!(*revision <= self.revision, "Q1");
        }
    }

    /// Forgets who has left first, so that coming and going costs no memory.
    fn forget_some(&mut self) {
        if self.entries.len() <= 2 * PRESENCE_PEERS_MAX {
            return;
        }
        let mut in_order = self.order.iter();
        let has_left = |peer: &PeerId| self.entries.get(peer).is_some_and(Entry::has_left);
        if let Some((revision, peer)) = in_order.find(|(_, peer)| has_left(peer)) {
            let (revision, peer) = (*revision, *peer);
            self.order.remove(&revision);
            self.entries.remove(&peer);
        }
    }

    fn pass_on(&mut self, peer: PeerId, now: Instant) {
        let Some(entry) = self.entries.get_mut(&peer) else { return };
        self.revision += 1;
        if let Some(former) = entry.revision.replace(self.revision) {
            self.order.remove(&former);
        }
        self.order.insert(self.revision, peer);
        entry.is_waiting = false;
        entry.passed_on_at = now;
    }
}

impl Entry {
    const fn has_left(&self) -> bool {
        self.message.state.is_empty()
    }

    fn due(&self) -> Instant {
        self.passed_on_at + PRESENCE_INTERVAL
    }
}
