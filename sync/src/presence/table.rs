//! Who is here, as far as one has heard.
//!
//! Invariant P1: every peer that is listed will be told of as gone: when its serving side says so, when
//! it is not heard of for too long, or when the connection is lost.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::{PeerId, PresenceState};
use crate::limits::{PRESENCE_DEPARTED_MAX, PRESENCE_PEERS_MAX, PRESENCE_TIMEOUT};

/// Somebody who is here.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerPresence {
    /// Who, as the serving side says.
    pub peer: PeerId,
    /// Whose token they have, as the serving side says.
    pub subject: String,
    /// What they show.
    pub state: PresenceState,
    /// When they were last heard of.
    pub last_seen: Instant,
}

/// What has changed.
#[derive(Clone, Debug, PartialEq)]
pub enum PresenceEvent {
    /// This side shows something else, or nothing.
    Own(Option<PresenceState>),
    /// Somebody has come, or shows something else.
    Here(PeerPresence),
    /// Somebody has left.
    Left(PeerId),
}

/// The others who are here.
#[derive(Debug, Default)]
pub struct PresenceTable {
    peers: BTreeMap<PeerId, (u64, PeerPresence)>,
    /// Who has left of late, and with which clock: what of them was still on its way does not bring them
    /// back.
    departed: VecDeque<(PeerId, u64)>,
    events: VecDeque<PresenceEvent>,
}

impl PresenceTable {
    /// Takes in a state. One that cannot be read, or is older than what is known, is passed over; so
    /// are newcomers when too many are here.
    pub fn handle_state(
        &mut self,
        peer: PeerId,
        subject: String,
        clock: u64,
        state: &[u8],
        now: Instant,
    ) {
        if self.departed.iter().any(|(other, left)| *other == peer && clock <= *left) {
            return;
        }
        if let Some((known, presence)) = self.peers.get_mut(&peer) {
            if clock < *known {
                return;
            }
            presence.last_seen = now;
            if clock == *known {
                return;
            }
        } else if self.peers.len() >= PRESENCE_PEERS_MAX {
            return;
        }
        let Some(state) = PresenceState::decode(state) else { return };
        let presence = PeerPresence { peer, subject, state, last_seen: now };
        self.events.push_back(PresenceEvent::Here(presence.clone()));
        self.peers.insert(peer, (clock, presence));
    }

    /// Somebody has left, or shows nothing any more.
    pub fn handle_left(&mut self, peer: PeerId, clock: u64) {
        if self.peers.get(&peer).is_some_and(|(known, _)| *known > clock) {
            return;
        }
        self.departed.retain(|(other, _)| *other != peer);
        self.departed.push_back((peer, clock));
        if self.departed.len() > PRESENCE_DEPARTED_MAX {
            self.departed.pop_front();
        }
        self.remove(peer);
    }

    /// The connection is lost, and with it everybody.
    pub fn handle_close(&mut self) {
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.remove(peer));
        self.departed.clear();
    }

    /// Takes in the time.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_late = |presence: &PeerPresence| presence.last_seen + PRESENCE_TIMEOUT <= now;
        let late = self.peers.values().filter(|(_, presence)| is_late(presence));
        let late: Vec<PeerId> = late.map(|(_, presence)| presence.peer).collect();
        late.into_iter().for_each(|peer| self.remove(peer));
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, if it is.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let seen = self.peers.values().map(|(_, presence)| presence.last_seen);
        seen.min().map(|seen| seen + PRESENCE_TIMEOUT)
    }

    /// The next change, if there is one.
    pub fn poll_event(&mut self) -> Option<PresenceEvent> {
        self.events.pop_front()
    }

    /// Who is here, by id.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerPresence> {
        self.peers.values().map(|(_, presence)| presence.clone()).collect()
    }

    fn remove(&mut self, peer: PeerId) {
        if self.peers.remove(&peer).is_some() {
            self.events.push_back(PresenceEvent::Left(peer));
        }
    }
}
