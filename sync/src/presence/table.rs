//! Who is here, as far as one has heard.
//!
//! Invariant P1: every peer that is listed will be told of as gone: when its serving side says so, when
//! it is not heard of for too long, or when the connection is lost.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::{PeerId, PresenceState};
use crate::limits::{
    PRESENCE_DEPARTED_MAX, PRESENCE_PEERS_MAX, PRESENCE_SUBJECT_BYTES_MAX, PRESENCE_TIMEOUT,
};

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
    /// are newcomers when too many are here. A subject that is too long is cut.
    pub fn handle_state(
        &mut self,
        peer: PeerId,
        mut subject: String,
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
        subject.truncate(subject.floor_char_boundary(PRESENCE_SUBJECT_BYTES_MAX));
        subject.shrink_to_fit();
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ANN: PeerId = PeerId(1);

    fn state(name: &str) -> Vec<u8> {
        let name = Some(name.to_owned());
        PresenceState { name, ..PresenceState::default() }.encode().unwrap()
    }

    /// What was told of, as names and "-" for a leave.
    fn told(table: &mut PresenceTable) -> Vec<String> {
        let name = |event| match event {
            PresenceEvent::Here(presence) => presence.state.name.unwrap_or_default(),
            PresenceEvent::Left(_) | PresenceEvent::Own(_) => "-".to_owned(),
        };
        std::iter::from_fn(|| table.poll_event()).map(name).collect()
    }

    #[test]
    fn newer_states_are_told_of_and_older_ones_are_not() {
        let (mut table, start) = (PresenceTable::default(), Instant::now());
        for (clock, name) in [(3, "c"), (2, "b"), (3, "c"), (4, "d")] {
            table.handle_state(ANN, "ann".to_owned(), clock, &state(name), start);
        }
        table.handle_state(ANN, "ann".to_owned(), 9, b"no state", start);
        assert_eq!(told(&mut table), ["c", "d"]);
        assert_eq!((table.peers()[0].peer, table.peers()[0].subject.as_str()), (ANN, "ann"));
    }

    #[test]
    fn who_has_left_is_not_brought_back_by_what_was_on_its_way() {
        let (mut table, start) = (PresenceTable::default(), Instant::now());
        table.handle_state(ANN, String::new(), 1, &state("a"), start);
        table.handle_left(ANN, 3);
        table.handle_state(ANN, String::new(), 2, &state("late"), start);
        table.handle_left(ANN, 3);
        assert_eq!(told(&mut table), ["a", "-"]);
        table.handle_state(ANN, String::new(), 4, &state("again"), start);
        table.handle_left(ANN, 3);
        assert_eq!(told(&mut table), ["again"]);
        table.handle_close();
        assert_eq!((told(&mut table), table.peers().len()), (vec!["-".to_owned()], 0));
    }

    #[test]
    fn who_is_not_heard_of_is_gone_and_a_repetition_is_being_heard_of() {
        let (mut table, start) = (PresenceTable::default(), Instant::now());
        table.handle_state(ANN, String::new(), 1, &state("a"), start);
        let later = start + Duration::from_secs(30);
        table.handle_state(ANN, String::new(), 1, &state("a"), later);
        assert_eq!(table.poll_timeout(), Some(later + PRESENCE_TIMEOUT));
        table.handle_timeout(start + PRESENCE_TIMEOUT);
        assert_eq!(told(&mut table), ["a"]);
        table.handle_timeout(later + PRESENCE_TIMEOUT);
        assert_eq!((told(&mut table), table.poll_timeout()), (vec!["-".to_owned()], None));
    }

    #[test]
    fn a_table_is_bounded() {
        let (mut table, start) = (PresenceTable::default(), Instant::now());
        for peer in 0..2 * PRESENCE_PEERS_MAX as u64 {
            table.handle_state(PeerId(peer), String::new(), 1, &state("x"), start);
            table.handle_left(PeerId(1_000_000 + peer), 1);
        }
        assert_eq!(table.peers().len(), PRESENCE_PEERS_MAX);
        assert_eq!(table.departed.len(), PRESENCE_DEPARTED_MAX);
        table.handle_close();
        table.handle_state(ANN, "\u{e9}".repeat(9_999), 1, &state("a"), start);
        let subject = &table.peers()[0].subject;
        assert_eq!(subject.len(), PRESENCE_SUBJECT_BYTES_MAX);
        assert!(subject.capacity() < 2 * PRESENCE_SUBJECT_BYTES_MAX);
    }
}
