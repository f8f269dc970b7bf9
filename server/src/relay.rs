//! Who hears what: the changes of a store in the order of its log, and where in it a client stands.
//!
//! A room keeps the recent end of a log in memory; whoever is further behind reads from disk. So a
//! slow client costs its cursor and nothing else, and never holds up another. Neither room nor
//! cursor does anything by itself: bytes and positions go in, bytes come out.
//!
//! Invariants, checked by `assert_invariants`:
//! - R1. The tail is the end of the log, without gaps: it ends at `end`.
//! - R2. The tail is within its bounds, or one change.

use std::collections::VecDeque;
use std::sync::Arc;

use sds_engine::{ChangeHeader, OpId, ReplicaId, Version};
use sds_sync::{CheckedChange, LogCursor};

use crate::limits::{STEP_BYTES_MAX, STEP_CHANGES_MAX, TAIL_BYTES_MAX, TAIL_CHANGES_MAX};

/// The recent end of a store's log.
#[derive(Debug, Default)]
pub struct Room {
    end: u64,
    tail: VecDeque<Arc<[u8]>>,
    tail_bytes: usize,
}

/// Where the next changes for a client are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The client has everything.
    Nothing,
    /// These, from position `from`.
    Changes {
        /// The position of the first.
        from: u64,
        /// Encoded changes in the order of the log.
        changes: Vec<Arc<[u8]>>,
    },
    /// On disk, from this position.
    OnDisk(u64),
}

impl Room {
    /// A room for a log that has `end` changes.
    #[must_use]
    pub fn new(end: u64) -> Self {
        Self { end, ..Self::default() }
    }

    /// Adds changes that are durable, at their positions in the log.
    ///
    /// What is behind the end already is left out; after a gap the tail begins anew.
    pub fn publish(&mut self, from: u64, changes: &[Arc<[u8]>]) {
        for (position, change) in (from..).zip(changes) {
            if position < self.end {
                continue;
            }
            if position > self.end {
                self.tail.clear();
                self.tail_bytes = 0;
            }
            self.end = position + 1;
            self.tail_bytes += change.len();
            self.tail.push_back(Arc::clone(change));
        }
        while self.tail.len() > 1
            && (self.tail_bytes > TAIL_BYTES_MAX || self.tail.len() > TAIL_CHANGES_MAX)
        {
            self.tail_bytes -= self.tail.pop_front().map_or(0, |change| change.len());
        }
    }

    /// How many bytes of changes are kept in memory.
    #[must_use]
    pub const fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// Keeps nothing in memory; who lacks something finds it on disk.
    pub fn forget_tail(&mut self) {
        self.tail = VecDeque::new();
        self.tail_bytes = 0;
    }

    /// Where the changes are that come next for `cursor`.
    #[must_use]
    pub fn next_for(&self, cursor: &Cursor) -> Next {
        let from = cursor.position;
        if from >= self.end {
            return Next::Nothing;
        }
        match from.checked_sub(self.tail_start()).map(usize::try_from) {
            Some(Ok(skipped)) => {
                let mut bytes = 0;
                let is_in_step = |change: &&Arc<[u8]>| {
                    let is_first = bytes == 0;
                    bytes += change.len();
                    is_first || bytes <= STEP_BYTES_MAX
                };
                let rest = self.tail.iter().skip(skipped).take(STEP_CHANGES_MAX);
                let changes = rest.take_while(is_in_step).cloned().collect();
                Next::Changes { from, changes }
            }
            _ => Next::OnDisk(from),
        }
    }

    /// How many changes the log has.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    fn tail_start(&self) -> u64 {
        self.end - self.tail.len() as u64
    }

    /// Panics if an invariant does not hold.
    pub fn assert_invariants(&self) {
        assert!(self.tail.len() as u64 <= self.end, "R1: the tail is part of the log");
        let bytes: usize = self.tail.iter().map(|change| change.len()).sum();
        assert_eq!(bytes, self.tail_bytes);
        let is_bounded = bytes <= TAIL_BYTES_MAX && self.tail.len() <= TAIL_CHANGES_MAX;
        assert!(is_bounded || self.tail.len() == 1, "R2: the tail is bounded");
    }
}

/// Where a client stands in the log of a store.
#[derive(Debug)]
pub struct Cursor {
    position: u64,
    /// What the client had when it came, and what was taken since of that which it has sent; in
    /// order of replica, each with the counter that comes next.
    known: Vec<(ReplicaId, u64)>,
    /// The end of the log when all of that was in it: from there on nobody asks for it. None if
    /// nobody has said yet.
    known_until: Option<u64>,
}

impl Cursor {
    /// A client that has `had`; the first change that it may lack is at `position`, and the log has
    /// `end` changes.
    #[must_use]
    pub fn new(had: Version, position: u64, end: u64) -> Self {
        let known = had.iter().collect();
        let mut cursor = Self { position, known, known_until: Some(end) };
        cursor.forget_passed();
        cursor
    }

    /// Notes that the log had `end` changes when what was taken of the client was in it.
    pub fn note_end(&mut self, end: u64) {
        self.known_until = Some(self.known_until.unwrap_or(0).max(end));
        self.forget_passed();
    }

    /// Forgets what the client has: it is sent once more what comes of that.
    pub fn forget(&mut self) {
        self.known = Vec::new();
    }

    /// How much memory it takes to know what the client has, in bytes.
    #[must_use]
    pub const fn memory(&self) -> usize {
        self.known.capacity() * size_of::<(ReplicaId, u64)>()
    }

    /// Moves over changes from position `from`, and returns those that the client lacks.
    pub fn pass(&mut self, from: u64, changes: Vec<Arc<[u8]>>) -> Vec<(ChangeHeader, Arc<[u8]>)> {
        let mut lacking = Vec::new();
        for (position, change) in (from..).zip(changes) {
            if position != self.position {
                continue;
            }
            self.position += 1;
            // The log holds only what could be read when it came.
            let Ok(header) = ChangeHeader::decode(&change) else { continue };
            if !self.has(header.last()) {
                lacking.push((header, change));
            }
            self.forget_passed();
        }
        lacking
    }

    /// Keeps what the client has no longer than it is asked for.
    fn forget_passed(&mut self) {
        if self.known_until.is_some_and(|until| self.position >= until) {
            self.forget();
        }
    }

    /// The position of the next change.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    fn has(&self, op: OpId) -> bool {
        let found = self.known.binary_search_by_key(&op.replica, |(replica, _)| *replica);
        found.is_ok_and(|at| self.known.get(at).is_some_and(|(_, next)| op.counter < *next))
    }
}

impl LogCursor for Cursor {
    type Kept = CheckedChange;

    fn note_taken(&mut self, taken: &Version) {
        if taken.is_empty() {
            return;
        }
        self.known_until = None;
        let mut new = Vec::new();
        for (replica, next) in taken.iter() {
            match self.known.binary_search_by_key(&replica, |(replica, _)| *replica) {
                Ok(at) => {
                    self.known
                        .get_mut(at)
                        .into_iter()
                        .for_each(|(_, known)| *known = next.max(*known));
                }
                Err(_) => new.push((replica, next)),
            }
        }
        self.known.append(&mut new);
        // Two parts that are in order each, which is what sorting them costs.
        self.known.sort_by_key(|(replica, _)| *replica);
    }
}

#[cfg(test)]
mod tests {
    use sds_engine::{Change, Op, ReplicaId};

    use super::*;

    fn change(replica: u64, start: u64) -> Arc<[u8]> {
        let replica = ReplicaId::new(replica).unwrap();
        let change = Change::new(replica, start, Vec::new(), &[Op::Skip { count: 1 }]).unwrap();
        Arc::clone(change.bytes())
    }

    fn version(pairs: &[(u64, u64)]) -> Version {
        let mut version = Version::new();
        for (replica, next) in pairs {
            version.advance(ReplicaId::new(*replica).unwrap(), *next);
        }
        version
    }

    /// All that `cursor` is given from `room`, as (replica, start).
    fn hear(room: &Room, cursor: &mut Cursor) -> Vec<(u64, u64)> {
        let mut heard = Vec::new();
        while let Next::Changes { from, changes } = room.next_for(cursor) {
            for (header, _) in cursor.pass(from, changes) {
                heard.push((header.replica.as_u64(), header.start));
            }
        }
        heard
    }

    #[test]
    fn a_client_hears_others_but_not_itself() {
        let mut room = Room::new(0);
        let mut desk = Cursor::new(version(&[]), 0, 0);
        let mut phone = Cursor::new(version(&[]), 0, 0);
        let note = change(1, 0);
        desk.note_taken(&version(&[(1, 1)]));
        room.publish(0, &[note, change(2, 0)]);
        assert_eq!(hear(&room, &mut desk), [(2, 0)]);
        assert_eq!(hear(&room, &mut phone), [(1, 0), (2, 0)]);
        assert_eq!(hear(&room, &mut phone), []);
        room.assert_invariants();
    }

    #[test]
    fn a_client_that_comes_back_hears_only_what_it_lacks() {
        let mut room = Room::new(0);
        room.publish(0, &[change(1, 0), change(2, 0), change(1, 1), change(2, 1)]);
        let mut cursor = Cursor::new(version(&[(1, 2), (2, 1)]), 0, room.end());
        assert_eq!(hear(&room, &mut cursor), [(2, 1)]);
        room.publish(4, &[change(1, 2)]);
        assert_eq!(hear(&room, &mut cursor), [(1, 2)]);
    }

    #[test]
    fn whoever_is_behind_the_tail_is_sent_to_the_disk() {
        let mut room = Room::new(10);
        let mut cursor = Cursor::new(version(&[]), 3, 10);
        assert_eq!(room.next_for(&cursor), Next::OnDisk(3));
        assert_eq!(room.next_for(&Cursor::new(version(&[]), 10, 10)), Next::Nothing);
        room.publish(10, &[change(1, 0)]);
        assert_eq!(room.next_for(&cursor), Next::OnDisk(3));
        let on_disk = (0..7).map(|start| change(9, start)).collect();
        assert_eq!(cursor.pass(3, on_disk).len(), 7);
        assert_eq!(hear(&room, &mut cursor), [(1, 0)]);
    }

    #[test]
    fn the_tail_is_bounded_and_survives_repetition_and_gaps() {
        let mut room = Room::new(0);
        for position in 0..TAIL_CHANGES_MAX as u64 + 5 {
            room.publish(position, &[change(1, position)]);
        }
        room.assert_invariants();
        let oldest = Cursor::new(version(&[]), 5, 0);
        assert!(matches!(room.next_for(&oldest), Next::Changes { from: 5, .. }));
        assert_eq!(room.next_for(&Cursor::new(version(&[]), 4, 0)), Next::OnDisk(4));
        let end = room.end();
        room.publish(end - 2, &[change(1, 0), change(1, 0), change(7, 0)]);
        assert_eq!(room.end(), end + 1);
        room.publish(end + 100, &[change(1, 0)]);
        room.assert_invariants();
        let behind_the_gap = Cursor::new(version(&[]), end, 0);
        assert_eq!(room.next_for(&behind_the_gap), Next::OnDisk(end));
    }

    #[test]
    fn what_a_client_had_is_kept_only_as_long_as_it_is_asked_for() {
        let had = || version(&[(1, 1), (7, 9)]);
        assert_eq!(Cursor::new(had(), 2, 2).memory(), 0);
        let mut cursor = Cursor::new(had(), 0, 2);
        assert_eq!(cursor.pass(0, vec![change(1, 0)]).len(), 0);
        assert_eq!(cursor.known, had().iter().collect::<Vec<_>>());
        assert_eq!(cursor.pass(1, vec![change(1, 1)]).len(), 1);
        assert_eq!(cursor.memory(), 0);
    }

    #[test]
    fn what_a_client_has_sent_is_kept_until_its_cursor_is_past_it() {
        let mut cursor = Cursor::new(version(&[(5, 1)]), 0, 1);
        cursor.note_taken(&version(&[(9, 2), (2, 1)]));
        cursor.note_taken(&version(&[(5, 3), (2, 1), (1, 1)]));
        cursor.note_end(4);
        let lacking = |cursor: &mut Cursor, from, change| cursor.pass(from, vec![change]).len();
        assert_eq!(lacking(&mut cursor, 0, change(5, 2)), 0);
        assert_eq!(lacking(&mut cursor, 1, change(9, 2)), 1);
        assert_eq!(lacking(&mut cursor, 2, change(2, 0)), 0);
        assert!(cursor.memory() >= 4 * 16, "{}", cursor.memory());
        assert_eq!(lacking(&mut cursor, 3, change(1, 0)), 0);
        assert_eq!(cursor.memory(), 0, "nothing of it is to come");
        cursor.note_taken(&version(&[(9, 3)]));
        assert_eq!(lacking(&mut cursor, 4, change(9, 2)), 0, "before anybody knows how long");
        assert!(cursor.memory() > 0);
        cursor.note_end(5);
        assert_eq!(cursor.memory(), 0);
    }

    #[test]
    fn a_client_of_which_nothing_is_known_any_more_is_sent_what_it_has() {
        let mut cursor = Cursor::new(version(&[(1, 2)]), 0, 2);
        cursor.forget();
        assert_eq!(cursor.memory(), 0);
        assert_eq!(cursor.pass(0, vec![change(1, 0), change(1, 1)]).len(), 2);
    }
}
