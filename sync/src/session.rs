//! The client's side of one store on one stream, without socket, clock or store.
//!
//! The driver feeds it: frames that came in, changes that are safely on disk, the time. It answers
//! with frames to send and with events. Everything it knows of progress are versions: what the
//! relay has or will be sent, what was sent, what is on the relay's disk. So nothing needs sequence
//! numbers, and after a lost connection a fresh session sends just what the relay lacks.
//!
//! Invariants, checked by `assert_invariants`:
//! - S1. `stored` <= `sent` <= `queued`.
//! - S2. The outbox holds what is in `queued` but not in `sent`, each change after those it builds
//!   on.
//!
//! Not here: whether changes are on disk (the driver says so), reconnecting, blobs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sds_engine::{ChangeHeader, DecodeError, ReplicaId, Version};

use crate::limits::{OPEN_TIMEOUT, OPEN_VERSION_BYTES_MAX, PROTOCOL_VERSION};
use crate::message::{ClientFrame, RefusalCode, RelayFrame, SeatTip, Token};
use crate::outbox::Outbox;
use crate::presence::PeerId;
use crate::seat::Chain;
use crate::store_id::StoreId;

/// What opens a session.
#[derive(Clone, Debug)]
pub struct Hello<'a> {
    /// The store.
    pub store: &'a StoreId,
    /// Proof that the client may open it.
    pub token: &'a Token,
    /// What the client has.
    pub version: &'a Version,
    /// Its seats, as far as the relay is to be asked about them.
    pub seats: &'a [ReplicaId],
}

/// What the driver has to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// The relay has opened the store: compare [`ClientSession::seats`] with one's own, then send it
    /// what it lacks.
    Opened,
    /// Changes for the store, as an encoded patch.
    Changes(Bytes),
    /// More of what was sent is on the relay's disk.
    Stored,
    /// What the token allows, and how long it holds.
    Access {
        /// How others see this side; none where there is no presence.
        peer: Option<PeerId>,
        /// Whether changes may be sent now; what was queued before stays queued, or is dropped.
        writable: bool,
        /// How long the token holds.
        expires_in: Duration,
    },
    /// The relay does not take changes of this replica from here.
    NotYours {
        /// The replica.
        replica: ReplicaId,
        /// The counter after the last change that the relay has of it.
        next: u64,
    },
    /// The relay has ended the session.
    Refused {
        /// Why.
        code: RefusalCode,
        /// Why, for a person.
        message: String,
        /// When to come back, if the relay has said so.
        after: Option<Duration>,
    },
}

/// What a relay must never do. The session is over; the store has not changed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerMisbehaved {
    /// A frame that has no place here.
    #[error("the relay sent a frame out of place: {0}")]
    OutOfPlace(&'static str),
    /// A version that cannot be read.
    #[error("the relay sent a version that cannot be read: {0}")]
    Version(#[source] DecodeError),
    /// An acknowledgement of changes that were never sent.
    #[error("the relay acknowledged changes that were never sent")]
    StoredUnsent,
    /// The relay did not answer in time.
    #[error("the relay did not answer within {} seconds", OPEN_TIMEOUT.as_secs())]
    TooSlow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Open { writable: bool },
    Over,
}

/// One open store, as its client sees it.
#[derive(Debug)]
pub struct ClientSession {
    phase: Phase,
    /// Until when the relay has to have opened the store, and then, as much later, said what the client may do; none
    /// once it has.
    deadline: Option<Instant>,
    at_open: Version,
    seats: Vec<(ReplicaId, Chain)>,
    queued: Version,
    sent: Version,
    stored: Version,
    control: VecDeque<ClientFrame>,
    /// When to come back once the session is over.
    come_back: Option<Duration>,
    outbox: Outbox,
    events: VecDeque<ClientEvent>,
}

impl ClientSession {
    /// A session that is about to say `hello`.
    #[must_use]
    pub fn new(hello: &Hello<'_>, now: Instant) -> Self {
        let open = ClientFrame::OpenSeated {
            protocol: PROTOCOL_VERSION,
            store: hello.store.as_str().to_owned(),
            token: hello.token.clone(),
            version: encode_within(hello.version, OPEN_VERSION_BYTES_MAX).into(),
            seats: hello.seats.iter().map(|seat| seat.as_u64()).collect(),
        };
        Self {
            phase: Phase::Opening,
            deadline: Some(now + OPEN_TIMEOUT),
            at_open: Version::new(),
            seats: Vec::new(),
            queued: Version::new(),
            sent: Version::new(),
            stored: Version::new(),
            control: VecDeque::from([open]),
            come_back: None,
            outbox: Outbox::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes in a frame. Events may follow.
    ///
    /// # Errors
    /// If the relay breaks the protocol; the session is then over.
    pub fn handle_frame(&mut self, frame: RelayFrame) -> Result<(), PeerMisbehaved> {
        let handled = self.dispatch(frame);
        if handled.is_err() {
            self.phase = Phase::Over;
        }
        handled
    }

    /// Queues those of the changes that the relay lacks. They must be on this side's disk, and each
    /// must come after what it builds on. A session that may not write queues nothing.
    ///
    /// # Errors
    /// If the bytes are no changes: the caller's fault. Changes before the bad one are queued.
    pub fn handle_durable(&mut self, changes: &[Arc<[u8]>]) -> Result<(), DecodeError> {
        if !matches!(self.phase, Phase::Open { writable: true }) {
            return Ok(());
        }
        for change in changes {
            let header = ChangeHeader::decode(change)?;
            if !self.queued.has(header.last()) {
                self.queued.advance(header.replica, header.end());
                self.outbox.push(&header, Arc::clone(change));
            }
        }
        Ok(())
    }

    /// Notes that the store took these changes from the relay, so they need not go back.
    ///
    /// # Errors
    /// If the bytes are no changes: the caller's fault.
    pub fn handle_integrated(&mut self, changes: &[Arc<[u8]>]) -> Result<(), DecodeError> {
        for change in changes {
            let header = ChangeHeader::decode(change)?;
            for version in [&mut self.queued, &mut self.sent, &mut self.stored] {
                version.advance(header.replica, header.end());
            }
        }
        Ok(())
    }

    /// Takes in the time.
    ///
    /// # Errors
    /// If the relay has let its deadline pass; the session is then over.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), PeerMisbehaved> {
        if self.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.phase = Phase::Over;
            return Err(PeerMisbehaved::TooSlow);
        }
        Ok(())
    }

    /// Shows the relay a newer token; [`ClientEvent::Access`] answers.
    pub fn handle_token(&mut self, token: Token) {
        if self.is_open() {
            self.control.push_back(ClientFrame::Refresh { token });
        }
    }

    /// Says goodbye; what is still in the outbox is for the next session.
    pub fn handle_close(&mut self) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            self.control.push_back(ClientFrame::Bye);
        }
    }

    /// The next frame to send, if there is one.
    pub fn poll_transmit(&mut self) -> Option<ClientFrame> {
        if let Some(frame) = self.control.pop_front() {
            return Some(frame);
        }
        if !self.is_open() {
            return None;
        }
        let patch = self.outbox.next_patch(&mut self.sent)?;
        Some(ClientFrame::Changes { patch })
    }

    /// The next thing for the driver to act on, if there is one.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, if it is.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Opening | Phase::Open { .. } => self.deadline,
            Phase::Over => None,
        }
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has a frame.
    #[must_use]
    pub fn has_transmit(&self) -> bool {
        !self.control.is_empty() || (self.is_open() && !self.outbox.is_empty())
    }

    /// Whether the relay has opened the store, and the session goes on.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// Whether changes may be sent.
    #[must_use]
    pub const fn is_writable(&self) -> bool {
        matches!(self.phase, Phase::Open { writable: true })
    }

    /// What the relay had when it opened the store.
    #[must_use]
    pub const fn at_open(&self) -> &Version {
        &self.at_open
    }

    /// What the relay had then of the seats that it was asked about: those that it knows.
    #[must_use]
    pub fn seats(&self) -> &[(ReplicaId, Chain)] {
        &self.seats
    }

    /// What the relay has or will be sent: changes beyond it are the ones to export.
    #[must_use]
    pub const fn queued(&self) -> &Version {
        &self.queued
    }

    /// What the relay has or was sent.
    #[must_use]
    pub const fn sent(&self) -> &Version {
        &self.sent
    }

    /// What is on the relay's disk, as far as it said.
    #[must_use]
    pub const fn stored(&self) -> &Version {
        &self.stored
    }

    /// Panics if an invariant does not hold.
    pub fn assert_invariants(&self) {
        assert!(self.sent.covers(&self.stored), "S1: stored <= sent");
        assert!(self.queued.covers(&self.sent), "S1: sent <= queued");
        self.outbox.assert_invariants(&self.sent, &self.queued);
    }

    fn dispatch(&mut self, frame: RelayFrame) -> Result<(), PeerMisbehaved> {
        match (self.phase, frame) {
            (Phase::Over, _) => Ok(()),
            (_, RelayFrame::Refused { code, message }) => {
                self.phase = Phase::Over;
                let code = RefusalCode::from_number(code);
                let after = self.come_back.take();
                self.events.push_back(ClientEvent::Refused { code, message, after });
                Ok(())
            }
            (_, RelayFrame::ComeBack { after }) => {
                self.come_back = Some(Duration::from_millis(after));
                Ok(())
            }
            (Phase::Opening, RelayFrame::OpenedSeated { version, writable, seats }) => {
                let chain = |seat: SeatTip| {
                    let chain = Chain { counter: seat.next, hash: seat.chain };
                    Some((ReplicaId::new(seat.replica)?, chain))
                };
                self.seats = seats.into_iter().filter_map(chain).collect();
                self.open(&version, writable)
            }
            (Phase::Open { .. }, RelayFrame::Changes { patch }) => {
                self.events.push_back(ClientEvent::Changes(patch));
                Ok(())
            }
            (Phase::Open { .. }, RelayFrame::Stored { version }) => self.note_stored(&version),
            (Phase::Open { .. }, RelayFrame::Access { peer, writable, expires_in }) => {
                self.set_writable(writable);
                self.deadline = None;
                let (peer, expires_in) = (PeerId::new(peer), Duration::from_millis(expires_in));
                self.events.push_back(ClientEvent::Access { peer, writable, expires_in });
                Ok(())
            }
            (Phase::Open { .. }, RelayFrame::NotYours { replica, next }) => {
                let replica = ReplicaId::new(replica);
                let replica = replica.ok_or(PeerMisbehaved::OutOfPlace("no replica has no id"))?;
                self.events.push_back(ClientEvent::NotYours { replica, next });
                Ok(())
            }
            (Phase::Opening, _) => Err(PeerMisbehaved::OutOfPlace("the store is not open yet")),
            (Phase::Open { .. }, RelayFrame::OpenedSeated { .. }) => {
                Err(PeerMisbehaved::OutOfPlace("the store is open already"))
            }
            (Phase::Open { .. }, _) => {
                Err(PeerMisbehaved::OutOfPlace("blobs have streams of their own, stores seats"))
            }
        }
    }

    fn open(&mut self, version: &[u8], writable: bool) -> Result<(), PeerMisbehaved> {
        self.deadline = self.deadline.map(|at| at + OPEN_TIMEOUT);
        self.at_open = Version::decode(version).map_err(PeerMisbehaved::Version)?;
        self.queued = self.at_open.clone();
        self.sent = self.at_open.clone();
        self.stored = self.at_open.clone();
        self.phase = Phase::Open { writable };
        self.events.push_back(ClientEvent::Opened);
        Ok(())
    }

    fn set_writable(&mut self, writable: bool) {
        self.phase = Phase::Open { writable };
        if !writable {
            // What waits would be refused. It is queued again if that changes.
            self.outbox = Outbox::new();
            self.queued.clone_from(&self.sent);
        }
    }

    fn note_stored(&mut self, version: &[u8]) -> Result<(), PeerMisbehaved> {
        let stored = Version::decode(version).map_err(PeerMisbehaved::Version)?;
        if !self.sent.covers(&stored) {
            return Err(PeerMisbehaved::StoredUnsent);
        }
        self.stored.merge(&stored);
        self.events.push_back(ClientEvent::Stored);
        Ok(())
    }
}

/// The version as bytes; if they are more than `max`, the version without its last replicas.
pub(crate) fn encode_within(version: &Version, max: usize) -> Vec<u8> {
    let whole = version.encode();
    if whole.len() <= max {
        return whole;
    }
    // No replica takes more than 8 bytes of id and 10 of counter, nor the count more than 10.
    let count = (max - 10) / 18;
    let mut part = Version::new();
    version.iter().take(count).for_each(|(replica, next)| part.advance(replica, next));
    part.encode()
}

#[cfg(test)]
mod tests {
    use sds_engine::ReplicaId;

    use super::*;
    use crate::message::Frame;

    fn version(pairs: &[(u64, u64)]) -> Version {
        let mut version = Version::new();
        for (replica, next) in pairs {
            version.advance(ReplicaId::new(*replica).unwrap(), *next);
        }
        version
    }

    fn session(now: Instant) -> ClientSession {
        let store = StoreId::new("s").unwrap();
        let token = Token::from("t".to_owned());
        ClientSession::new(
            &Hello { store: &store, token: &token, version: &version(&[]), seats: &[] },
            now,
        )
    }

    fn opened(version: &Version) -> RelayFrame {
        let (version, seats) = (version.encode().into(), Vec::new());
        RelayFrame::OpenedSeated { version, writable: true, seats }
    }

    #[test]
    fn a_session_opens_and_tells_what_the_relay_has() {
        let mut session = session(Instant::now());
        assert!(matches!(session.poll_transmit(), Some(ClientFrame::OpenSeated { .. })));
        assert!(!session.has_transmit());
        session.handle_frame(opened(&version(&[(1, 5)]))).unwrap();
        assert_eq!(session.poll_event(), Some(ClientEvent::Opened));
        assert_eq!(session.stored(), &version(&[(1, 5)]));
        assert_eq!(session.at_open(), session.queued());
        session.assert_invariants();
    }

    #[test]
    fn frames_out_of_place_end_the_session() {
        let early = RelayFrame::Changes { patch: Bytes::new() };
        let mut first = session(Instant::now());
        assert!(matches!(first.handle_frame(early), Err(PeerMisbehaved::OutOfPlace(_))));
        assert!(!first.is_open());
        let mut second = session(Instant::now());
        second.handle_frame(opened(&version(&[]))).unwrap();
        assert!(second.handle_frame(opened(&version(&[]))).is_err());
        let mut third = session(Instant::now());
        third.handle_frame(opened(&version(&[]))).unwrap();
        assert!(third.handle_frame(RelayFrame::BlobWanted).is_err());
    }

    #[test]
    fn acknowledging_what_was_never_sent_is_misbehaviour() {
        let mut session = session(Instant::now());
        session.handle_frame(opened(&version(&[(1, 5)]))).unwrap();
        let stored = RelayFrame::Stored { version: version(&[(1, 6)]).encode().into() };
        assert_eq!(session.handle_frame(stored), Err(PeerMisbehaved::StoredUnsent));
    }

    #[test]
    fn versions_that_cannot_be_read_are_misbehaviour() {
        let mut session = session(Instant::now());
        let damaged = {
            let version = vec![0xff; 3].into();
            RelayFrame::OpenedSeated { version, writable: true, seats: Vec::new() }
        };
        assert!(matches!(session.handle_frame(damaged), Err(PeerMisbehaved::Version(_))));
    }

    #[test]
    fn a_silent_relay_is_given_up_at_the_deadline_whether_it_has_opened_the_store_or_not() {
        let now = Instant::now();
        let mut opened_only = session(now);
        opened_only.handle_frame(opened(&Version::new())).unwrap();
        let due = now + 2 * OPEN_TIMEOUT;
        let just_before = due.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(opened_only.handle_timeout(just_before), Ok(()));
        assert_eq!(opened_only.handle_timeout(due), Err(PeerMisbehaved::TooSlow));
        let mut told = session(now);
        told.handle_frame(opened(&Version::new())).unwrap();
        let access = RelayFrame::Access { peer: 1, writable: true, expires_in: 1 };
        told.handle_frame(access).unwrap();
        assert_eq!((told.poll_timeout(), told.handle_timeout(due)), (None, Ok(())));
        let mut session = session(now);
        assert_eq!(session.poll_timeout(), Some(now + OPEN_TIMEOUT));
        assert_eq!(session.handle_timeout(now), Ok(()));
        assert_eq!(session.handle_timeout(now + OPEN_TIMEOUT), Err(PeerMisbehaved::TooSlow));
        assert_eq!(session.poll_timeout(), None);
    }

    #[test]
    fn a_refusal_ends_the_session_with_its_reason() {
        let mut session = session(Instant::now());
        session.handle_frame(RelayFrame::refused(RefusalCode::Forbidden, "no")).unwrap();
        let event = ClientEvent::Refused {
            code: RefusalCode::Forbidden,
            message: "no".to_owned(),
            after: None,
        };
        assert_eq!(session.poll_event(), Some(event));
        session.handle_frame(opened(&version(&[]))).unwrap();
        assert_eq!(session.poll_event(), None);
    }

    #[test]
    fn a_version_too_great_for_the_first_frame_is_cut() {
        let many: Vec<(u64, u64)> =
            (1..5_000).map(|replica| (replica, u64::from(u32::MAX))).collect();
        let many = version(&many);
        let store = StoreId::new("s").unwrap();
        let token = Token::from("t".to_owned());
        let hello = Hello { store: &store, token: &token, version: &many, seats: &[] };
        let mut session = ClientSession::new(&hello, Instant::now());
        let open = session.poll_transmit().unwrap();
        assert!(open.encode().len() < crate::limits::FIRST_FRAME_BYTES_MAX);
        let ClientFrame::OpenSeated { version, .. } = open else { panic!("not an open frame") };
        let part = Version::decode(&version).unwrap();
        assert!(!part.is_empty() && many.covers(&part));
    }
}
