//! A guest's side of a store whose file another process owns, without socket, clock or store.
//!
//! A guest keeps nothing: it asks for a seat, takes in what the owner has, and sends changes until the
//! owner has said of each that it is on disk. After a loss a new session sends the same changes again,
//! whether or not the owner seems to have them: only its answer tells changes of that name apart.
//!
//! Not here: what the owner does with the changes (`intake`), whom to ask (`guest_link`).

use std::collections::BTreeMap;
use std::sync::Arc;

use sds_engine::{ChangeHeader, Patch, ReplicaId, Version};

use crate::limits::{OPEN_VERSION_BYTES_MAX, PROTOCOL_VERSION};
use crate::message::{ClientFrame, RefusalCode, RelayFrame, SeatTip, Token};
use crate::outbox::Outbox;
use crate::seat::{Chain, Seat};
use crate::session::{PeerMisbehaved, encode_within};
use crate::store_id::StoreId;

/// The seat that a guest wants to write under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// None: it only reads.
    Nothing,
    /// Whichever is free.
    Any,
    /// This one, which it had before, or another one.
    Same(ReplicaId),
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GuestFailure {
    /// The owner refuses.
    Refused(RefusalCode),
    /// The owner broke the protocol.
    Misbehaved(PeerMisbehaved),
}

/// One visit to the owner of a store's file.
#[derive(Debug)]
pub(crate) struct GuestSession {
    opening: Option<ClientFrame>,
    is_open: bool,
    wish: Wish,
    seat: Option<SeatTip>,
    /// What the owner tells of the seats of the file.
    file_seats: Vec<SeatTip>,
    at_open: Version,
    /// What the guest has, or was sent.
    have: Version,
    snapshot: Vec<u8>,
    /// Whether the last part of it has come.
    snapshot_is_whole: bool,
    received: Vec<Arc<[u8]>>,
    outbox: Outbox,
    /// Up to where changes were sent that the owner has not said to be on disk.
    awaited: BTreeMap<ReplicaId, u64>,
    /// What it has said to be there, and nobody has asked for yet.
    stored: Version,
}

impl GuestSession {
    /// A session of a guest that has `known` of the store already.
    pub(crate) fn new(store: &StoreId, known: &Version, wish: Wish) -> Self {
        let seats = match wish {
            Wish::Nothing => Vec::new(),
            Wish::Any => vec![0],
            Wish::Same(seat) => vec![seat.as_u64()],
        };
        let opening = ClientFrame::OpenSeated {
            protocol: PROTOCOL_VERSION,
            store: store.as_str().to_owned(),
            token: Token::from(String::new()),
            version: encode_within(known, OPEN_VERSION_BYTES_MAX).into(),
            seats,
        };
        Self {
            opening: Some(opening),
            is_open: false,
            wish,
            seat: None,
            file_seats: Vec::new(),
            at_open: Version::new(),
            have: known.clone(),
            snapshot: Vec::new(),
            snapshot_is_whole: false,
            received: Vec::new(),
            outbox: Outbox::new(),
            awaited: BTreeMap::new(),
            stored: Version::new(),
        }
    }

    /// Takes in a frame of the owner.
    pub(crate) fn handle_frame(&mut self, frame: RelayFrame) -> Result<(), GuestFailure> {
        match frame {
            RelayFrame::Refused { code, .. } => {
                Err(GuestFailure::Refused(RefusalCode::from_number(code)))
            }
            RelayFrame::OpenedSeated { version, mut seats, .. } if !self.is_open => {
                self.at_open = decode_version(&version)?;
                if self.wish != Wish::Nothing {
                    self.seat = seats.pop();
                }
                self.file_seats = seats;
                self.is_open = true;
                if self.wish != Wish::Nothing && self.seat.is_none() {
                    return Err(out_of_place("no seat for a guest"));
                }
                Ok(())
            }
            RelayFrame::Changes { patch } if self.is_open => self.receive(&patch),
            RelayFrame::Snapshot { bytes, version } if self.is_open => {
                self.snapshot.extend_from_slice(&bytes);
                if !version.is_empty() {
                    self.have.merge(&decode_version(&version)?);
                    self.snapshot_is_whole = true;
                }
                Ok(())
            }
            RelayFrame::Stored { version } if self.is_open => {
                let stored = decode_version(&version)?;
                self.stored.merge(&stored);
                self.awaited.retain(|replica, end| stored.next(*replica) < *end);
                Ok(())
            }
            _ => Err(out_of_place("a frame that an owner does not send here")),
        }
    }

    /// Queues changes, each after what it builds on, to be sent and awaited.
    pub(crate) fn send(&mut self, changes: &[Arc<[u8]>]) {
        for change in changes {
            // What the caller has are changes; anything else would not be one for the owner either.
            let Ok(header) = ChangeHeader::decode(change) else { continue };
            let end = self.awaited.entry(header.replica).or_default();
            *end = header.end().max(*end);
            self.outbox.push(&header, Arc::clone(change));
        }
    }

    /// The next frame to send, if there is one.
    pub(crate) fn poll_transmit(&mut self) -> Option<ClientFrame> {
        if let Some(opening) = self.opening.take() {
            return Some(opening);
        }
        if !self.is_open {
            return None;
        }
        let patch = self.outbox.next_patch(&mut Version::new())?;
        Some(ClientFrame::Changes { patch })
    }

    /// Whether the store is open.
    pub(crate) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether all that the owner had on disk when it opened the store has come.
    pub(crate) fn is_loaded(&self) -> bool {
        self.is_open && self.have.covers(&self.at_open)
    }

    /// Whether the owner has said of all that was sent that it is on disk.
    pub(crate) fn is_stored(&self) -> bool {
        self.awaited.is_empty() && self.outbox.is_empty()
    }

    /// What the owner has said to be on disk since the last call.
    pub(crate) fn take_stored(&mut self) -> Version {
        std::mem::take(&mut self.stored)
    }

    /// The snapshot that came before all changes, once it is whole, if one did.
    pub(crate) fn take_snapshot(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.snapshot_is_whole).then(|| std::mem::take(&mut self.snapshot))
    }

    /// The changes that have come since the last call, each after those it builds on.
    pub(crate) fn take_received(&mut self) -> Vec<Arc<[u8]>> {
        std::mem::take(&mut self.received)
    }

    /// What the owner had on disk when it opened the store.
    pub(crate) const fn at_open(&self) -> &Version {
        &self.at_open
    }

    /// The seat that was lent, once everything is loaded.
    pub(crate) fn seat(&self) -> Option<Seat> {
        let tip = self.seat.as_ref()?;
        let replica = ReplicaId::new(tip.replica)?;
        let own = Chain { counter: self.at_open.next(replica), hash: tip.chain };
        let left = self.file_seats().into_iter().find(|seat| seat.replica == replica);
        let agreed = left.filter(|seat| seat.own == own).map_or(own, |seat| seat.agreed);
        Some(Seat { next: tip.next, own, agreed, ..Seat::new(replica) })
    }

    /// The chains of the file's seats when the owner opened the store.
    pub(crate) fn chains(&self) -> Vec<(ReplicaId, Chain)> {
        let chain = |tip: &SeatTip| {
            let chain = Chain { counter: tip.next, hash: tip.chain };
            Some((ReplicaId::new(tip.replica)?, chain))
        };
        self.file_seats.iter().filter_map(chain).collect()
    }

    /// The file's seats when the owner opened the store. Of each the owner tells three chains, none of them
    /// twice: all that is there under its id, of which somebody else made the last; what a relay is known
    /// to have; and what was made there.
    pub(crate) fn file_seats(&self) -> Vec<Seat> {
        let mut seats: Vec<Seat> = Vec::new();
        for (replica, chain) in self.chains() {
            match seats.last_mut().filter(|seat| seat.replica == replica) {
                Some(seat) if chain.counter >= seat.own.counter => {
                    (seat.own, seat.next) = (chain, chain.counter);
                }
                Some(seat) => {
                    (seat.own, seat.agreed, seat.next) = (chain, chain, chain.counter);
                }
                None => {
                    let (own, agreed, next) = (chain, chain, chain.counter);
                    seats.push(Seat { own, agreed, next, ..Seat::new(replica) });
                }
            }
        }
        seats
    }

    fn receive(&mut self, patch: &[u8]) -> Result<(), GuestFailure> {
        let malformed = |error| GuestFailure::Misbehaved(PeerMisbehaved::Version(error));
        for change in Patch::decode(patch).map_err(malformed)?.into_changes() {
            self.have.advance(change.header().replica, change.header().end());
            self.received.push(Arc::clone(change.bytes()));
        }
        Ok(())
    }
}

fn decode_version(bytes: &[u8]) -> Result<Version, GuestFailure> {
    Version::decode(bytes).map_err(|error| GuestFailure::Misbehaved(PeerMisbehaved::Version(error)))
}

const fn out_of_place(what: &'static str) -> GuestFailure {
    GuestFailure::Misbehaved(PeerMisbehaved::OutOfPlace(what))
}

#[cfg(test)]
mod tests {
    use sds_engine::{Change, Op};

    use super::*;
    use crate::message::Frame;
    use crate::serving_session::ServingSession;

    fn id(number: u64) -> ReplicaId {
        ReplicaId::new(number).unwrap()
    }

    fn change(author: u64, start: u64) -> Change {
        Change::new(id(author), start, Vec::new(), &[Op::Skip { count: 1 }]).unwrap()
    }

    fn version(pairs: &[(u64, u64)]) -> Version {
        let mut version = Version::new();
        pairs.iter().for_each(|(replica, next)| version.advance(id(*replica), *next));
        version
    }

    fn guest(wish: Wish) -> GuestSession {
        GuestSession::new(&StoreId::new("s").unwrap(), &Version::new(), wish)
    }

    /// An owner that has one change of replica 1, and lends the seat 2.
    fn owner() -> ServingSession<Version> {
        let tip = SeatTip { replica: 2, next: 5, chain: [7; 32] };
        let mut owner = ServingSession::new(
            PROTOCOL_VERSION,
            version(&[(1, 1)]).encode().into(),
            Some(vec![tip]),
            true,
            version(&[(1, 1)]),
        );
        let change = change(1, 0);
        owner.handle_log([(change.header().clone(), Arc::clone(change.bytes()))]);
        owner
    }

    /// Exchanges frames until both are quiet.
    fn settle(guest: &mut GuestSession, owner: &mut ServingSession<Version>) {
        for _ in 0..100 {
            let mut is_quiet = true;
            while let Some(frame) = guest.poll_transmit() {
                is_quiet = false;
                if !matches!(frame, ClientFrame::OpenSeated { .. }) {
                    owner.handle_frame(frame);
                }
            }
            while let Some(frame) = owner.poll_transmit() {
                is_quiet = false;
                guest.handle_frame(frame).unwrap();
            }
            if is_quiet {
                return;
            }
        }
        panic!("they never come to rest");
    }

    #[test]
    fn a_guest_gets_a_seat_and_all_that_the_owner_has() {
        let (mut guest, mut owner) = (guest(Wish::Any), owner());
        assert!(!guest.is_loaded());
        settle(&mut guest, &mut owner);
        assert!(guest.is_loaded());
        assert_eq!(guest.take_received(), [Arc::clone(change(1, 0).bytes())]);
        let seat = guest.seat().unwrap();
        assert_eq!((seat.replica, seat.next, seat.own.counter), (id(2), 5, 0));
    }

    #[test]
    fn what_was_sent_is_awaited_until_the_owner_has_it_on_disk() {
        let (mut guest, mut owner) = (guest(Wish::Any), owner());
        settle(&mut guest, &mut owner);
        let own = [change(2, 0), change(2, 1)];
        guest.send(&own.each_ref().map(|change| Arc::clone(change.bytes())));
        settle(&mut guest, &mut owner);
        assert!(!guest.is_stored() && guest.take_stored().is_empty());
        assert_eq!(owner.poll_append().unwrap().len(), 2);
        owner.handle_appended(&version(&[(2, 1)]), None);
        settle(&mut guest, &mut owner);
        assert!(!guest.is_stored());
        assert_eq!(guest.take_stored(), version(&[(2, 1)]));
        owner.handle_appended(&version(&[(2, 2)]), None);
        settle(&mut guest, &mut owner);
        assert!(guest.is_stored());
    }

    #[test]
    fn what_the_owner_seems_to_have_is_sent_all_the_same() {
        let known = version(&[(1, 1), (2, 1)]);
        let mut again = GuestSession::new(&StoreId::new("s").unwrap(), &known, Wish::Same(id(2)));
        let tip = SeatTip { replica: 2, next: 9, chain: [7; 32] };
        let mut owner = ServingSession::new(
            PROTOCOL_VERSION,
            known.encode().into(),
            Some(vec![tip]),
            true,
            known.clone(),
        );
        again.send(&[Arc::clone(change(2, 0).bytes())]);
        settle(&mut again, &mut owner);
        assert_eq!(owner.poll_append().unwrap().len(), 1, "only its bytes tell");
        owner.handle_appended(&Version::new(), Some(RefusalCode::Forked));
        let refused = GuestFailure::Refused(RefusalCode::Forked);
        assert_eq!(again.handle_frame(owner.poll_transmit().unwrap()), Err(refused));
    }

    #[test]
    fn a_snapshot_comes_first_and_counts_as_what_it_has() {
        let (mut guest, bytes) = (guest(Wish::Nothing), vec![7; 3 << 20]);
        let mut owner = ServingSession::new(
            PROTOCOL_VERSION,
            version(&[(1, 2)]).encode().into(),
            Some(Vec::new()),
            true,
            version(&[(1, 1)]),
        )
        .with_snapshot(bytes.clone().into(), version(&[(1, 1)]));
        assert!(owner.wants_log().is_none(), "not before the snapshot");
        settle(&mut guest, &mut owner);
        assert!(!guest.is_loaded(), "a change is missing");
        let last = change(1, 1);
        owner.handle_log([(last.header().clone(), Arc::clone(last.bytes()))]);
        settle(&mut guest, &mut owner);
        assert!(guest.is_loaded());
        assert_eq!(guest.take_snapshot(), Some(bytes));
        assert_eq!(guest.take_received().len(), 1);
        assert_eq!(guest.seat(), None, "who only reads has none");
    }

    #[test]
    fn a_part_of_a_snapshot_is_none() {
        let mut guest = guest(Wish::Nothing);
        let mut owner = ServingSession::new(
            PROTOCOL_VERSION,
            version(&[(1, 2)]).encode().into(),
            Some(Vec::new()),
            true,
            version(&[(1, 1)]),
        )
        .with_snapshot(vec![7; 3 << 20].into(), version(&[(1, 1)]));
        let _opening = guest.poll_transmit();
        let mut parts = 0;
        while let Some(frame) = owner.poll_transmit() {
            assert_eq!(guest.take_snapshot(), None, "after {parts} parts");
            parts += usize::from(matches!(frame, RelayFrame::Snapshot { .. }));
            guest.handle_frame(frame).unwrap();
        }
        assert!(parts > 1);
        assert_eq!(guest.take_snapshot().map(|snapshot| snapshot.len()), Some(3 << 20));
        assert_eq!(guest.take_snapshot(), None, "it can be taken once");
    }

    #[test]
    fn an_owner_that_breaks_the_protocol_is_noticed() {
        let stored = RelayFrame::Stored { version: Version::new().encode().into() };
        assert!(guest(Wish::Any).handle_frame(stored).is_err(), "not open yet");
        let opened = |seats| RelayFrame::OpenedSeated {
            version: Version::new().encode().into(),
            writable: true,
            seats,
        };
        assert!(guest(Wish::Any).handle_frame(opened(Vec::new())).is_err(), "no seat");
        let mut twice = guest(Wish::Nothing);
        twice.handle_frame(opened(Vec::new())).unwrap();
        assert!(twice.handle_frame(opened(Vec::new())).is_err());
        let garbage = RelayFrame::Changes { patch: vec![1, 2, 3].into() };
        assert!(twice.handle_frame(garbage).is_err());
    }

    #[test]
    fn a_guest_that_knows_of_many_replicas_can_come_back() {
        let many: Vec<(u64, u64)> = (1..20_000).map(|it| (it << 40, u64::from(u32::MAX))).collect();
        let many = version(&many);
        let mut guest = GuestSession::new(&StoreId::new("s").unwrap(), &many, Wish::Same(id(2)));
        let open = guest.poll_transmit().unwrap();
        assert!(open.encode().len() < crate::limits::FIRST_FRAME_BYTES_MAX);
        let ClientFrame::OpenSeated { version, .. } = open else { panic!("not an open frame") };
        let part = Version::decode(&version).unwrap();
        assert!(!part.is_empty() && many.covers(&part));
    }
}
