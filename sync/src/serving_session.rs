//! The answering side of one open store on one stream, without socket, clock or disk: of a relay, of a
//! peer that listens, and of a process that owns a store's file.
//!
//! It begins when access was granted. Frames, the outcome of appends and parts of the log go in;
//! changes to append and frames to send come out. What a log is, and where in it a client stands, is
//! the caller's.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sds_engine::{Change, ChangeHeader, DecodeError, Patch, ReplicaId, Version};

use crate::checked::{Checked, Contents};
use crate::limits::{
    APPEND_BYTES_GOAL, APPEND_CHANGES_MAX, PATCH_BYTES_GOAL, PATCH_BYTES_MAX, PATCH_CHANGES_MAX,
};
use crate::message::{ClientFrame, RefusalCode, RelayFrame, SeatTip};
use crate::outbox::Outbox;
use crate::presence::PeerId;

/// Where a client stands in the log that it is served from.
pub trait LogCursor {
    /// What the log takes.
    type Kept: Checked;

    /// Notes what was taken of that which the client has sent, so that it does not come back to it.
    fn note_taken(&mut self, taken: &Version);
}

/// By version: what the client has, or was given.
impl LogCursor for Version {
    type Kept = Change;

    fn note_taken(&mut self, taken: &Version) {
        self.merge(taken);
    }
}

/// The first version of the protocol in which the answering side says more than what was asked: what the
/// token allows, whose replica is whose, and when to come back.
const TERMS_SINCE: u16 = 4;

/// Of how many replicas changes may be acknowledged to a client that does not read, beside those of one
/// append.
const STORED_REPLICAS_MAX: usize = 1_024;

/// How many frames that come before anything else may wait for a client that does not read.
const CONTROL_FRAMES_MAX: usize = 4 * APPEND_CHANGES_MAX;

/// Why a stream ends before its client wants it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason as the protocol has it.
    pub code: RefusalCode,
    /// The reason for a person.
    pub message: &'static str,
}

impl Refusal {
    /// A newer token cannot make a session somebody else's.
    pub const OTHER_SUBJECT: Self =
        Self::new(RefusalCode::Forbidden, "the newer token is of another subject");
    /// The session has outlived its token.
    pub const EXPIRED: Self = Self::new(RefusalCode::Unauthorized, "the token has expired");
    /// Changes from somebody who may only read.
    pub const READ_ONLY: Self = Self::new(RefusalCode::ReadOnly, "the token is read-only");
    /// The file of the side that serves fails.
    pub const STORAGE_FAILED: Self =
        Self::new(RefusalCode::StorageFailed, "this side cannot read or write its file");
    /// What a client has begun to send does not come.
    pub const TOO_SLOW: Self =
        Self::new(RefusalCode::Busy, "the bytes of a frame came too slowly; try again later");
    /// What a client has begun to send takes all the room that there is.
    pub const NO_ROOM: Self =
        Self::new(RefusalCode::Busy, "too much is on its way at a time; try again later");
    /// What came is no frame.
    pub const MALFORMED_FRAME: Self =
        Self::new(RefusalCode::Malformed, "a frame is not well formed, or too large");

    /// A refusal with its reason.
    #[must_use]
    pub const fn new(code: RefusalCode, message: &'static str) -> Self {
        Self { code, message }
    }

    /// The frame that says so.
    #[must_use]
    pub fn frame(self) -> RelayFrame {
        RelayFrame::refused(self.code, self.message)
    }
}

/// One open store, as the answering side sees one of its clients.
#[derive(Debug)]
pub struct ServingSession<C: LogCursor> {
    /// The version of the protocol that the client speaks.
    protocol: u16,
    writable: bool,
    cursor: C,
    /// What comes before anything else.
    control: VecDeque<RelayFrame>,
    snapshot: VecDeque<Bytes>,
    snapshot_version: Version,
    outbox: Outbox,
    /// Whether the client reads no more.
    is_deaf: bool,
    to_append: Vec<C::Kept>,
    to_append_bytes: usize,
    stored: Version,
    /// No fewer replicas than are in `stored`.
    stored_replicas: usize,
    refusal: Option<Refusal>,
    is_over: bool,
}

impl<C: LogCursor> ServingSession<C> {
    /// A session whose client stands at `cursor`, of a store of which this side has `version`, encoded,
    /// and of the client's seats, if it asked about them, `seats`.
    #[must_use]
    pub fn new(
        protocol: u16,
        version: Bytes,
        seats: Option<Vec<SeatTip>>,
        writable: bool,
        cursor: C,
    ) -> Self {
        let opened = match seats {
            Some(seats) => RelayFrame::OpenedSeated { version, writable, seats },
            None => RelayFrame::Opened { version, writable },
        };
        Self {
            protocol,
            writable,
            cursor,
            control: VecDeque::from([opened]),
            snapshot: VecDeque::new(),
            snapshot_version: Version::new(),
            outbox: Outbox::new(),
            is_deaf: false,
            to_append: Vec::new(),
            to_append_bytes: 0,
            stored: Version::new(),
            stored_replicas: 0,
            refusal: None,
            is_over: false,
        }
    }

    /// Sends a snapshot, which has `version`, before anything else. The cursor must be there.
    #[must_use]
    pub fn with_snapshot(mut self, mut snapshot: Bytes, version: Version) -> Self {
        self.snapshot_version = version;
        // All sessions share its bytes.
        while !snapshot.is_empty() {
            let part = snapshot.split_to(PATCH_BYTES_GOAL.min(snapshot.len()));
            self.snapshot.push_back(part);
        }
        self
    }

    /// Tells the client what its token allows from now on: `peer` is how others see it.
    pub fn set_access(&mut self, peer: Option<PeerId>, writable: bool, expires_in: Duration) {
        self.writable = writable;
        let expires_in = u64::try_from(expires_in.as_millis()).unwrap_or(u64::MAX);
        let peer = peer.map_or(0, |peer| peer.0);
        self.tell_terms(RelayFrame::Access { peer, writable, expires_in });
    }

    /// Says that changes of a replica from `next` on were not taken, since it belongs to another subject.
    pub fn handle_passed_over(&mut self, replica: ReplicaId, next: u64) {
        if self.protocol < TERMS_SINCE {
            let message = "the replica id belongs to another subject";
            return self.refuse(Refusal::new(RefusalCode::Forbidden, message));
        }
        if self.control.len() >= CONTROL_FRAMES_MAX {
            let message = "what is told of other subjects' replicas is not read";
            return self.refuse(Refusal::new(RefusalCode::Busy, message));
        }
        self.tell_terms(RelayFrame::NotYours { replica: replica.as_u64(), next });
    }

    /// Takes in a frame of the client.
    pub fn handle_frame(&mut self, frame: ClientFrame) {
        if self.is_over {
            return;
        }
        match frame {
            ClientFrame::Changes { patch } if self.writable => {
                self.handle_checked(check_patch(&patch));
            }
            ClientFrame::Changes { .. } => self.refuse(Refusal::READ_ONLY),
            ClientFrame::Bye => self.is_over = true,
            _ => {
                let message = "the frame has no place in an open store";
                self.refuse(Refusal::new(RefusalCode::Unexpected, message));
            }
        }
    }

    /// Takes in the changes of a frame that were checked by [`check_patch`], as if the frame came now.
    pub fn handle_checked(&mut self, checked: Result<Vec<C::Kept>, Refusal>) {
        match checked {
            _ if self.is_over => {}
            _ if !self.writable => self.refuse(Refusal::READ_ONLY),
            Ok(changes) => self.take_changes(changes),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Takes in what became of the changes that [`poll_append`](Self::poll_append) gave: those in
    /// `stored` are on disk, and the rest was refused, if it was.
    pub fn handle_appended(&mut self, stored: &Version, refused: Option<RefusalCode>) {
        self.cursor.note_taken(stored);
        self.stored.merge(stored);
        self.stored_replicas += stored.iter().count();
        let Some(code) = refused else { return };
        let message = match code {
            RefusalCode::Forked => "another change with this id is known",
            RefusalCode::Forbidden => "the store was deleted",
            RefusalCode::StorageFailed => "this side cannot read or write its file",
            RefusalCode::TooLarge => "the store has too many replicas for one more",
            RefusalCode::Busy => "there is no room for another store",
            _ => "the change builds on others that were not sent",
        };
        self.refuse(Refusal::new(code, message));
    }

    /// Takes in changes from the log that the client lacks; the cursor is past them already.
    pub fn handle_log(&mut self, lacking: impl IntoIterator<Item = (ChangeHeader, Arc<[u8]>)>) {
        for (header, change) in lacking {
            self.outbox.push(&header, change);
        }
    }

    /// Sends nothing further of the log: the client reads no more.
    pub fn forget_log(&mut self) {
        self.is_deaf = true;
        self.outbox = Outbox::new();
        self.snapshot.clear();
    }

    /// Whether [`forget_log`](Self::forget_log) was called.
    #[must_use]
    pub const fn is_deaf(&self) -> bool {
        self.is_deaf
    }

    /// Where the client stands, to be moved on.
    pub const fn cursor_mut(&mut self) -> &mut C {
        &mut self.cursor
    }

    /// Ends the session; what was acknowledged is still said.
    pub fn refuse(&mut self, refusal: Refusal) {
        if self.refusal.is_none() {
            self.refusal = Some(refusal);
        }
        self.to_append.clear();
        self.is_over = true;
    }

    /// Ends the session like [`refuse`](Self::refuse), and asks the client to come back after a pause.
    pub fn refuse_until(&mut self, refusal: Refusal, pause: Duration) {
        if self.refusal.is_none() {
            let after = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            self.tell_terms(RelayFrame::ComeBack { after });
        }
        self.refuse(refusal);
    }

    /// Changes to append now; the outcome is awaited before there are more.
    pub fn poll_append(&mut self) -> Option<Vec<C::Kept>> {
        self.to_append_bytes = 0;
        let changes = std::mem::take(&mut self.to_append);
        if changes.is_empty() { None } else { Some(changes) }
    }

    /// The next frame to send, if there is one.
    pub fn poll_transmit(&mut self) -> Option<RelayFrame> {
        if let Some(frame) = self.control.pop_front() {
            return Some(frame);
        }
        if let Some(bytes) = self.snapshot.pop_front() {
            let is_last = self.snapshot.is_empty();
            let version = if is_last { self.snapshot_version.encode() } else { Vec::new() };
            return Some(RelayFrame::Snapshot { bytes, version: version.into() });
        }
        if !self.stored.is_empty() {
            self.stored_replicas = 0;
            let version = std::mem::take(&mut self.stored).encode();
            return Some(RelayFrame::Stored { version: version.into() });
        }
        if self.is_over {
            return self.refusal.take().map(Refusal::frame);
        }
        // What a client was sent need not be remembered: its cursor has passed it.
        let patch = self.outbox.next_patch(&mut Version::new())?;
        Some(RelayFrame::Changes { patch })
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has a frame.
    #[must_use]
    pub fn has_transmit(&self) -> bool {
        !self.control.is_empty()
            || !self.snapshot.is_empty()
            || !self.stored.is_empty()
            || self.refusal.is_some()
            || (!self.is_over && !self.outbox.is_empty())
    }

    /// Where the client stands, if it can take more of the log now.
    #[must_use]
    pub fn wants_log(&self) -> Option<&C> {
        if self.is_over || self.is_deaf || !self.outbox.is_empty() || !self.snapshot.is_empty() {
            None
        } else {
            Some(&self.cursor)
        }
    }

    /// Whether more frames can be taken in before the next append. With much to be acknowledged that
    /// waits for room none can: who does not read sends nothing further.
    #[must_use]
    pub const fn wants_frames(&self) -> bool {
        !self.is_over
            && (self.is_deaf || self.stored_replicas < STORED_REPLICAS_MAX)
            && self.to_append_bytes < APPEND_BYTES_GOAL
            && self.to_append.len() + PATCH_CHANGES_MAX <= APPEND_CHANGES_MAX
    }

    /// Whether the session has ended, but for frames that are still to be sent.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    fn tell_terms(&mut self, frame: RelayFrame) {
        if self.protocol >= TERMS_SINCE {
            self.control.push_back(frame);
        }
    }

    fn take_changes(&mut self, changes: Vec<C::Kept>) {
        for kept in changes {
            self.to_append_bytes += kept.memory();
            self.to_append.push(kept);
        }
    }
}

/// Checks the changes that a client sends. A patch of more than a single change that is larger than any client makes
/// is refused before it is decoded, for that would take many times its size. A large frame takes long: whoever serves
/// many clients lets only so many be checked at a time, elsewhere.
///
/// # Errors
/// Why they are not taken.
pub fn check_patch<K: Checked>(patch: &[u8]) -> Result<Vec<K>, Refusal> {
    let too_new = || Refusal::new(RefusalCode::TooNew, "the change is newer than this side");
    let refusal = |error| match error {
        DecodeError::FormatTooNew { .. } | DecodeError::OpTooNew { .. } => too_new(),
        _ => Refusal::new(RefusalCode::Malformed, "the patch is not well formed"),
    };
    let count = Patch::count(patch).map_err(refusal)?;
    if count > PATCH_CHANGES_MAX || (!Patch::is_single(patch) && patch.len() > PATCH_BYTES_MAX) {
        return Err(Refusal::new(RefusalCode::TooLarge, "too many changes in one frame"));
    }
    let Contents { changes, has_newer, has_state } = K::read(patch).map_err(refusal)?;
    if has_newer {
        return Err(too_new());
    }
    if has_state {
        return Err(Refusal::new(RefusalCode::Malformed, "a state where changes belong"));
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use sds_engine::limits::CHANGE_OPS_MAX;
    use sds_engine::{EntryId, Field, Life, Op, Replica, Value};

    use super::*;
    use crate::checked::CheckedChange;
    use crate::limits::PROTOCOL_VERSION;

    fn session() -> ServingSession<Version> {
        ServingSession::new(PROTOCOL_VERSION, Bytes::new(), None, true, Version::new())
    }

    #[test]
    fn who_does_not_read_what_is_stored_sends_nothing_further() {
        let mut session = session();
        let (mut stored, mut acknowledged) = (Version::new(), Version::new());
        for replica in 1..=STORED_REPLICAS_MAX as u64 {
            assert!(session.wants_frames(), "{replica} replicas are too few");
            let mut one = Version::new();
            one.advance(ReplicaId::new(replica).unwrap(), 1);
            session.handle_appended(&one, None);
            stored.merge(&one);
        }
        assert!(!session.wants_frames());
        while let Some(frame) = session.poll_transmit() {
            if let RelayFrame::Stored { version } = frame {
                acknowledged.merge(&Version::decode(&version).unwrap());
            }
        }
        assert_eq!(acknowledged, stored);
        assert!(session.wants_frames(), "it goes on when they have gone out");
        (0..2).for_each(|_| session.handle_appended(&stored, None));
        session.forget_log();
        assert!(session.wants_frames(), "what somebody sent who has left is taken");
    }

    fn small(count: usize) -> Vec<Change> {
        let author = ReplicaId::new(1).unwrap();
        let change = |start| Change::new(author, start, vec![], &[Op::Skip { count: 1 }]).unwrap();
        (0..count as u64).map(change).collect()
    }

    fn large(count: usize) -> Vec<Change> {
        let text = "x".repeat(PATCH_BYTES_MAX);
        let set = Op::Set {
            entry: EntryId::ROOT,
            life: Life::FIRST,
            field: Field::Label,
            value: Value::Text(text),
        };
        let author = ReplicaId::new(1).unwrap();
        let change =
            |start| Change::new(author, start, vec![], std::slice::from_ref(&set)).unwrap();
        (0..count as u64).map(change).collect()
    }

    #[test]
    fn only_a_single_change_may_be_large() {
        let check = |changes: Vec<Change>, is_taken: bool| {
            let mut session = session();
            let count = changes.len();
            let patch = Patch::new(changes).encode().into();
            session.handle_frame(ClientFrame::Changes { patch });
            assert_eq!(session.is_over(), !is_taken);
            let taken = session.poll_append().map_or(0, |changes| changes.len());
            assert_eq!(taken, if is_taken { count } else { 0 });
        };
        check(large(1), true);
        check(large(2), false);
        check(small(PATCH_CHANGES_MAX), true);
        check(small(PATCH_CHANGES_MAX + 1), false);
    }

    #[test]
    fn what_is_no_change_that_can_be_read_is_refused() {
        let mut newer = small(1)[0].bytes().to_vec();
        let tag = newer.len() - 2;
        newer[tag] = 30;
        let mut replica = Replica::new(ReplicaId::new(1).unwrap());
        replica.create_item(EntryId::ROOT, 0).unwrap();
        replica.compact();
        let state = replica.export(&Version::new());
        for patch in [Patch::pack([newer.as_slice()]), state] {
            assert!(Patch::decode(&patch).is_ok());
            let mut session = session();
            session.handle_frame(ClientFrame::Changes { patch: patch.into() });
            assert!(session.is_over());
        }
    }

    /// Where a client stands of whom nothing is remembered.
    #[derive(Debug)]
    struct Nowhere;

    impl LogCursor for Nowhere {
        type Kept = CheckedChange;

        fn note_taken(&mut self, _: &Version) {}
    }

    #[test]
    fn only_what_was_taken_is_remembered_of_what_a_client_sends() {
        let change = |replica| {
            let replica = ReplicaId::new(replica).unwrap();
            Change::new(replica, 0, vec![], &[Op::Skip { count: 1 }]).unwrap()
        };
        let mut session = session();
        let patch = Patch::new(vec![change(1), change(2)]).encode();
        session.handle_frame(ClientFrame::Changes { patch: patch.into() });
        assert!(session.poll_append().is_some());
        assert!(session.cursor_mut().is_empty(), "not before it is known what became of them");
        let mut taken = Version::new();
        taken.advance(ReplicaId::new(2).unwrap(), 1);
        session.handle_appended(&taken, None);
        assert_eq!(*session.cursor_mut(), taken);
    }

    #[test]
    fn all_who_get_a_snapshot_share_its_bytes() {
        let snapshot = Bytes::from(vec![7; 2 * PATCH_BYTES_GOAL + 1]);
        let mut session = session().with_snapshot(snapshot.clone(), Version::new());
        let mut at = 0;
        while let Some(frame) = session.poll_transmit() {
            if let RelayFrame::Snapshot { bytes, .. } = frame {
                assert_eq!(bytes.as_ptr(), snapshot[at..].as_ptr());
                at += bytes.len();
            }
        }
        assert_eq!(at, snapshot.len());
    }

    /// Goal: ops that take dozens of times their bytes cost a log no more than the bytes. Method: as many
    /// as a change may have, of two bytes each, for a log and for one that is to apply them.
    #[test]
    fn of_a_change_full_of_ops_a_log_keeps_no_more_than_its_bytes() {
        let ops = vec![Op::Skip { count: 1 }; CHANGE_OPS_MAX];
        let change = Change::new(ReplicaId::new(1).unwrap(), 0, vec![], &ops).unwrap();
        let len = change.bytes().len();
        assert!(change.memory() > 10 * len, "its ops are counted");
        let patch: Bytes = Patch::new(vec![change]).encode().into();
        let opened = Version::new();
        let mut log =
            ServingSession::new(PROTOCOL_VERSION, opened.encode().into(), None, true, Nowhere);
        log.handle_frame(ClientFrame::Changes { patch: patch.clone() });
        let kept = log.poll_append().unwrap();
        assert_eq!(kept.len(), 1);
        assert!(kept[0].memory() < len + 1_000);
        let mut applying = session();
        applying.handle_frame(ClientFrame::Changes { patch });
        assert!(!applying.wants_frames(), "it is more than is taken at a time");
    }

    /// A block is decoded with all its ops, also if there is one change in it.
    #[test]
    fn one_change_may_be_large_by_itself_and_not_in_a_block() {
        let ops = vec![Op::Skip { count: 1 }; CHANGE_OPS_MAX];
        let change = Change::new(ReplicaId::new(1).unwrap(), 0, vec![], &ops).unwrap();
        let alone = Patch::new(vec![change.clone()]).encode();
        assert_eq!(check_patch::<CheckedChange>(&alone).unwrap().len(), 1);
        let block = Patch::in_blocks(vec![change]).encode();
        assert!(block.len() > PATCH_BYTES_MAX && Patch::count(&block) == Ok(1));
        let refused = check_patch::<CheckedChange>(&block).unwrap_err();
        assert_eq!(refused.code, RefusalCode::TooLarge);
    }

    #[test]
    fn an_append_is_bounded_by_count_and_by_what_it_takes_in_memory() {
        let mut session = session();
        let mut frames = 0;
        while session.wants_frames() {
            let patch = Patch::new(small(PATCH_CHANGES_MAX)).encode().into();
            session.handle_frame(ClientFrame::Changes { patch });
            frames += 1;
            assert!(frames < 100);
        }
        let changes = session.poll_append().unwrap();
        assert!(changes.len() <= APPEND_CHANGES_MAX);
        assert!(session.wants_frames(), "the next append begins empty");
        let memory: usize = changes.iter().map(Checked::memory).sum();
        let encoded: usize = changes.iter().map(|change| change.bytes().len()).sum();
        assert!(memory > encoded + changes.len() * size_of::<Op>());
    }
}
