//! What the side that serves a store passes on of its members' states, without knowing what they mean.
//!
//! Every state that is passed on gets a revision, and a member is behind by what is newer than the
//! revision it has: so a slow one costs a number and holds nobody up, and gets the newest state of each
//! when its time comes. That somebody has left is a revision too, kept for a while.
//!
//! Members count their states themselves, and the room only compares these clocks. What it passes on it
//! numbers anew, with the revision of the first time: so whoever was told of as gone and comes back is
//! newer than that, whatever their own clock says.
//!
//! Invariants, checked by `assert_invariants`:
//! - Q1. `order` has each entry that was passed on under its revision, and nothing else.
//! - Q2. A member is passed on at most once in [`PRESENCE_INTERVAL`], but for its leave.
//! - Q3. No more than [`PRESENCE_PEERS_MAX`] show anything, and there are never more than twice [`PRESENCE_PEERS_MAX`] entries, and one.
//! - Q4. `deadlines` has each entry under its deadline, and nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

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
    deadlines: BTreeSet<(Instant, PeerId)>,
}

#[derive(Debug)]
struct Entry {
    subject: Arc<str>,
    /// The newest state, with the clock of the peer itself.
    message: PresenceMessage,
    /// The clock that the others are told.
    clock: u64,
    /// Whether the state was not passed on yet, and so has no clock of its own.
    is_new: bool,
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
        /// What they show, and whether it has to arrive. The clock is the room's.
        message: PresenceMessage,
    },
    /// Somebody shows nothing any more.
    Left {
        /// Who.
        peer: PeerId,
        /// After that of all states that they have shown so far.
        clock: u64,
    },
}

impl PresenceRoom {
    /// Takes in a member's state. Older ones than the last, ones that are too large, and those of
    /// newcomers to a room that is full are passed over. Says whether there was room.
    ///
    /// In a full room somebody gives way to a newcomer whose subject shows less: of the subject that shows
    /// most, who was not heard of for the longest time. So whoever fills a room keeps nobody else out.
    pub fn handle_message(
        &mut self,
        peer: PeerId,
        subject: &str,
        message: PresenceMessage,
        now: Instant,
    ) -> bool {
        if message.state.len() > PRESENCE_BYTES_MAX {
            return true;
        }
        let end = subject.floor_char_boundary(PRESENCE_SUBJECT_BYTES_MAX);
        let subject = subject.get(..end).unwrap_or_default();
        let known = self.entries.get(&peer);
        let is_here = known.is_some_and(|entry| !entry.has_left());
        let is_known = known.is_some();
        let has_room = is_here || message.state.is_empty() || self.make_room(subject, now);
        if is_known && has_room {
            self.change(peer, |entry| entry.take(message, now));
        } else if !message.state.is_empty() && has_room {
            let entry = Entry {
                subject: subject.into(),
                message,
                clock: 0,
                is_new: true,
                revision: None,
                passed_on_at: now.checked_sub(PRESENCE_INTERVAL).unwrap_or(now),
                last_heard: now,
                is_waiting: true,
            };
            self.deadlines.insert((entry.deadline(), peer));
            self.entries.insert(peer, entry);
        }
        self.handle_timeout(now);
        has_room
    }

    /// A member has left.
    pub fn handle_left(&mut self, peer: PeerId, now: Instant) {
        if self.entries.get(&peer).is_none_or(Entry::has_left) {
            return;
        }
        self.change(peer, |entry| {
            (entry.message.state, entry.message.is_settled) = (Bytes::new(), true);
            entry.is_new = true;
            entry.last_heard = now;
        });
        self.pass_on(peer, now);
        self.forget_some();
    }

    /// Takes in the time: passes on what has waited, and notes who is gone.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((deadline, peer)) = self.deadlines.first().copied()
            && deadline <= now
        {
            match self.entries.get(&peer) {
                Some(entry) if entry.gone_at() > now => self.pass_on(peer, now),
                Some(entry) if !entry.has_left() => self.handle_left(peer, now),
                _ => self.forget(peer),
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, if it is.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
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
            PresenceNews::Left { peer: *peer, clock: entry.clock }
        } else {
            let subject = Arc::clone(&entry.subject);
            let message = PresenceMessage { clock: entry.clock, ..entry.message.clone() };
            PresenceNews::Here { peer: *peer, subject, message }
        };
        Some((*revision, news))
    }

    /// Panics if an invariant does not hold.
    pub fn assert_invariants(&self) {
        let revisions = self.entries.values().filter_map(|entry| entry.revision);
        assert_eq!(revisions.count(), self.order.len(), "Q1");
        let deadlines = self.entries.iter().map(|(peer, entry)| (entry.deadline(), *peer));
        assert_eq!(deadlines.collect::<BTreeSet<_>>(), self.deadlines, "Q4");
        assert!(self.entries.len() <= 2 * PRESENCE_PEERS_MAX + 1, "Q3");
        let here = self.entries.values().filter(|entry| !entry.has_left());
        assert!(here.count() <= PRESENCE_PEERS_MAX, "Q3");
        for (revision, peer) in &self.order {
            let found = self.entries.get(peer).and_then(|entry| entry.revision);
            assert_eq!(found, Some(*revision), "Q1");
            assert!(*revision <= self.revision, "Q1");
        }
    }

    /// Makes room for one more of `subject`, if there is none and somebody has to give way; says whether
    /// there is some.
    fn make_room(&mut self, subject: &str, now: Instant) -> bool {
        let here = || self.entries.iter().filter(|(_, entry)| !entry.has_left());
        if here().count() < PRESENCE_PEERS_MAX {
            return true;
        }
        let mut shown: HashMap<&str, usize> = HashMap::new();
        here().for_each(|(_, entry)| *shown.entry(&entry.subject).or_default() += 1);
        let own = shown.get(subject).copied().unwrap_or(0);
        let most = shown.iter().map(|(subject, count)| (*count, *subject)).max();
        let Some((_, greedy)) = most.filter(|(count, _)| *count > own + 1) else {
            return false;
        };
        let of_greedy = here().filter(|(_, entry)| *entry.subject == *greedy);
        let silent = of_greedy.map(|(peer, entry)| (entry.last_heard, *peer)).min();
        silent.into_iter().for_each(|(_, peer)| self.handle_left(peer, now));
        true
    }

    /// Forgets who has left first, so that coming and going costs no memory.
    fn forget_some(&mut self) {
        if self.entries.len() > 2 * PRESENCE_PEERS_MAX {
            let has_left = |peer: &&PeerId| self.entries.get(*peer).is_some_and(Entry::has_left);
            let first = self.order.values().find(has_left).copied();
            first.into_iter().for_each(|peer| self.forget(peer));
        }
    }

    fn forget(&mut self, peer: PeerId) {
        if let Some(entry) = self.entries.remove(&peer) {
            self.deadlines.remove(&(entry.deadline(), peer));
            if let Some(revision) = entry.revision {
                self.order.remove(&revision);
            }
        }
    }

    fn pass_on(&mut self, peer: PeerId, now: Instant) {
        self.revision += 1;
        let revision = self.revision;
        let mut former = None;
        self.change(peer, |entry| {
            former = entry.revision.replace(revision);
            if std::mem::take(&mut entry.is_new) {
                entry.clock = revision;
            }
            entry.is_waiting = false;
            entry.passed_on_at = now;
        });
        if let Some(former) = former {
            self.order.remove(&former);
        }
        self.order.insert(revision, peer);
    }

    /// Changes an entry, which may change its deadline.
    fn change(&mut self, peer: PeerId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.get_mut(&peer) {
            self.deadlines.remove(&(entry.deadline(), peer));
            change(entry);
            self.deadlines.insert((entry.deadline(), peer));
        }
    }
}

impl Entry {
    const fn has_left(&self) -> bool {
        self.message.state.is_empty()
    }

    fn take(&mut self, message: PresenceMessage, now: Instant) {
        let is_same = message.clock == self.message.clock;
        let is_back = is_same && self.has_left() && !message.state.is_empty();
        let is_new = message.clock > self.message.clock || is_back;
        if is_new || (is_same && message.is_settled && !self.message.is_settled) {
            self.message = message;
            self.is_new |= is_new;
            self.last_heard = now;
            self.is_waiting = true;
        } else if is_same && !self.has_left() {
            // Still here, which the others have to hear as well.
            self.is_waiting |= self.last_heard + PRESENCE_INTERVAL <= now;
            self.last_heard = now;
        }
    }

    fn gone_at(&self) -> Instant {
        self.last_heard + PRESENCE_TIMEOUT
    }

    fn deadline(&self) -> Instant {
        let due = self.passed_on_at + PRESENCE_INTERVAL;
        if self.is_waiting { self.gone_at().min(due) } else { self.gone_at() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn message(clock: u64, state: &'static str, is_settled: bool) -> PresenceMessage {
        PresenceMessage { clock, state: state.into(), is_settled }
    }

    /// A member that notes what it hears: (peer, clock, state), the state empty for a leave.
    struct Member {
        peer: PeerId,
        revision: u64,
        /// The newest clock of each peer, and what came with it.
        known: HashMap<u64, (u64, String)>,
    }

    impl Member {
        fn new(peer: PeerId) -> Self {
            Self { peer, revision: 0, known: HashMap::new() }
        }

        fn hears(&mut self, room: &PresenceRoom) -> Vec<(u64, u64, String)> {
            room.assert_invariants();
            let mut heard = Vec::new();
            while let Some((revision, news)) = room.next_for(self.peer, self.revision) {
                assert!(revision > self.revision);
                self.revision = revision;
                let (peer, clock, state) = match news {
                    PresenceNews::Here { peer, message, .. } => {
                        let state = String::from_utf8(message.state.to_vec()).unwrap();
                        (peer.0, message.clock, state)
                    }
                    PresenceNews::Left { peer, clock } => (peer.0, clock, String::new()),
                };
                // What is new has a greater clock, and what is repeated has the same.
                let new = (clock, state.clone());
                let former = self.known.insert(peer, new.clone());
                assert!(former.is_none_or(|former| former.0 < clock || former == new));
                heard.push((peer, clock, state));
            }
            heard
        }
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    const ANN: PeerId = PeerId(1);
    const BOB: PeerId = PeerId(2);

    #[test]
    fn others_hear_the_newest_state_and_nobody_hears_himself() {
        let (mut room, start) = (PresenceRoom::default(), Instant::now());
        let (mut ann, mut bob) = (Member::new(ANN), Member::new(BOB));
        room.handle_message(ANN, "ann", message(1, "a", false), start);
        assert_eq!(bob.hears(&room), [(1, 1, "a".to_owned())]);
        for clock in 2..30 {
            room.handle_message(ANN, "ann", message(clock, "moving", false), start + ms(clock));
        }
        assert_eq!(bob.hears(&room), [], "too soon");
        room.handle_timeout(start + ms(49));
        assert_eq!(bob.hears(&room), []);
        assert_eq!(room.poll_timeout(), Some(start + PRESENCE_INTERVAL));
        room.handle_timeout(start + ms(50));
        assert_eq!(bob.hears(&room), [(1, 2, "moving".to_owned())]);
        room.handle_message(ANN, "ann", message(7, "late", false), start + ms(200));
        assert_eq!(bob.hears(&room), [], "older than what is known");
        room.handle_message(ANN, "ann", message(29, "moving", true), start + ms(300));
        assert_eq!(bob.hears(&room).len(), 1, "it has come to rest");
        assert_eq!(ann.hears(&room), []);
        let mut late = Member::new(PeerId(3));
        assert_eq!(late.hears(&room), [(1, 2, "moving".to_owned())]);
    }

    #[test]
    fn who_leaves_is_told_of_at_once_and_who_falls_silent_in_the_end() {
        let (mut room, start) = (PresenceRoom::default(), Instant::now());
        let mut bob = Member::new(BOB);
        room.handle_message(ANN, "ann", message(1, "a", true), start);
        room.handle_left(ANN, start + ms(1));
        assert_eq!(bob.hears(&room), [(1, 2, String::new())]);
        room.handle_left(ANN, start + ms(2));
        room.handle_message(PeerId(3), "eve", message(1, "e", true), start);
        assert_eq!(bob.hears(&room), [(3, 3, "e".to_owned())]);
        let half = PRESENCE_TIMEOUT / 2;
        room.handle_message(PeerId(3), "eve", message(1, "e", true), start + half);
        assert_eq!(bob.hears(&room).len(), 1, "still here");
        room.handle_timeout(start + PRESENCE_TIMEOUT + ms(2));
        assert_eq!(bob.hears(&room), []);
        room.handle_timeout(start + half + PRESENCE_TIMEOUT);
        assert_eq!(bob.hears(&room), [(3, 5, String::new())]);
        room.handle_timeout(start + half + 2 * PRESENCE_TIMEOUT);
        room.assert_invariants();
        assert!(room.entries.is_empty() && room.poll_timeout().is_none());
    }

    #[test]
    fn somebody_who_shows_nothing_may_show_something_again() {
        let (mut room, start) = (PresenceRoom::default(), Instant::now());
        let mut bob = Member::new(BOB);
        for (clock, state) in [(1, "a"), (2, ""), (3, "b")] {
            room.handle_message(ANN, "ann", message(clock, state, true), start + ms(clock * 100));
            assert_eq!(bob.hears(&room), [(1, clock, state.to_owned())]);
        }
    }

    #[test]
    fn who_was_not_heard_of_for_long_is_seen_again() {
        let (mut room, start) = (PresenceRoom::default(), Instant::now());
        let mut bob = Member::new(BOB);
        room.handle_message(ANN, "ann", message(7, "a", true), start);
        let gone = start + PRESENCE_TIMEOUT;
        room.handle_timeout(gone);
        assert_eq!(bob.hears(&room), [(1, 2, String::new())]);
        room.handle_message(ANN, "ann", message(6, "late", true), gone + ms(60));
        assert_eq!(bob.hears(&room), [], "older than what is known");
        room.handle_message(ANN, "ann", message(7, "a", true), gone + ms(100));
        assert_eq!(bob.hears(&room), [(1, 3, "a".to_owned())], "a repetition brings back");
        room.handle_timeout(gone + ms(100) + PRESENCE_TIMEOUT);
        assert_eq!(bob.hears(&room), [(1, 4, String::new())]);
        let back = gone + ms(200) + PRESENCE_TIMEOUT;
        room.handle_message(ANN, "ann", message(8, "b", true), back);
        assert_eq!(bob.hears(&room), [(1, 5, "b".to_owned())], "and so does a change");
        room.handle_timeout(back + PRESENCE_TIMEOUT);
        room.handle_timeout(back + 2 * PRESENCE_TIMEOUT);
        assert!(room.entries.is_empty());
        room.handle_message(ANN, "ann", message(8, "b", true), back + 2 * PRESENCE_TIMEOUT);
        assert_eq!(bob.hears(&room), [(1, 7, "b".to_owned())], "after being forgotten as well");
    }

    #[test]
    fn the_greatest_clock_of_all_is_one_like_any_other() {
        let (mut room, start) = (PresenceRoom::default(), Instant::now());
        let mut bob = Member::new(BOB);
        room.handle_message(ANN, "ann", message(u64::MAX, "a", true), start);
        assert_eq!(bob.hears(&room), [(1, 1, "a".to_owned())]);
        room.handle_left(ANN, start + ms(1));
        assert_eq!(bob.hears(&room), [(1, 2, String::new())]);
    }

    /// Goal: nobody keeps others out of a room by filling it. Method: one subject takes all places; another
    /// gets as many as the first has left, and no more.
    #[test]
    fn a_full_room_is_shared_by_those_who_are_in_it() {
        let (mut room, start) = (PresenceRoom::default(), Instant::now());
        let half = PRESENCE_PEERS_MAX as u64 / 2;
        let ann = |number| PeerId(1 + number);
        let bob = |number| PeerId(10_000 + number);
        let shown = |room: &PresenceRoom, subject: &str| {
            let here = room.entries.values().filter(|entry| !entry.has_left());
            here.filter(|entry| *entry.subject == *subject).count() as u64
        };
        for number in 0..2 * half {
            let now = start + ms(number);
            assert!(room.handle_message(ann(number), "ann", message(1, "a", true), now));
        }
        assert!(!room.handle_message(ann(2 * half), "ann", message(1, "a", true), start + ms(999)));
        let now = start + Duration::from_secs(1);
        for number in 0..2 * half {
            let has_room = room.handle_message(bob(number), "bob", message(1, "b", true), now);
            assert_eq!(has_room, number < half, "{number}");
            room.assert_invariants();
        }
        assert_eq!((shown(&room, "ann"), shown(&room, "bob")), (half, half));
        // Those who were not heard of for the longest time gave way, and do not come back.
        assert!(!room.handle_message(ann(0), "ann", message(2, "a", true), now));
        assert!(room.handle_message(ann(2 * half - 1), "ann", message(2, "a", true), now));
        assert!(room.handle_message(PeerId(7_777), "eve", message(1, "e", true), now));
        assert_eq!(shown(&room, "eve"), 1);
        room.handle_left(PeerId(7_777), now);
        assert!(room.handle_message(ann(0), "ann", message(3, "a", true), now));
        room.assert_invariants();
    }

    #[test]
    fn what_strangers_can_make_a_room_hold_is_bounded() {
        let (mut room, start) = (PresenceRoom::default(), Instant::now());
        let large = vec![b'x'; PRESENCE_BYTES_MAX + 1];
        let large = PresenceMessage { clock: 1, state: large.into(), is_settled: true };
        room.handle_message(ANN, "ann", large, start);
        assert!(room.entries.is_empty());
        for peer in 0..=PRESENCE_PEERS_MAX as u64 {
            room.handle_message(PeerId(peer), &"s".repeat(999), message(1, "x", true), start);
        }
        assert_eq!(room.entries.len(), PRESENCE_PEERS_MAX, "full");
        assert_eq!(room.entries[&PeerId(0)].subject.len(), PRESENCE_SUBJECT_BYTES_MAX);
        for peer in 0..5 * PRESENCE_PEERS_MAX as u64 {
            room.handle_message(PeerId(peer), "s", message(1, "x", true), start);
            room.handle_left(PeerId(peer), start);
            room.assert_invariants();
        }
    }
}
