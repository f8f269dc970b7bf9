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

use crate::limits::PROTOCOL_VERSION;
use crate::message::{ClientFrame, RefusalCode, RelayFrame, SeatTip, Token};
use crate::outbox::Outbox;
use crate::seat::{Chain, Seat};
use crate::session::PeerMisbehaved;
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
    at_open: Version,
    /// What the guest has, or was sent.
    have: Version,
    received: Vec<Arc<[u8]>>,
    outbox: Outbox,
    /// Up to where changes were sent that the owner has not said to be on disk.
    awaited: BTreeMap<ReplicaId, u64>,
    /// Whether it has said so of some.
    has_stored: bool,
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
            version: known.encode().into(),
            seats,
        };
        Self {
            opening: Some(opening),
            is_open: false,
            wish,
            seat: None,
            at_open: Version::new(),
            have: known.clone(),
            received: Vec::new(),
            outbox: Outbox::new(),
            awaited: BTreeMap::new(),
            has_stored: false,
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
                self.seat = seats.pop();
                self.is_open = true;
                if self.wish != Wish::Nothing && self.seat.is_none() {
                    return Err(out_of_place("no seat for a guest"));
                }
                Ok(())
            }
            RelayFrame::Changes { patch } if self.is_open => self.receive(&patch),
            RelayFrame::Stored { version } if self.is_open => {
                let stored = decode_version(&version)?;
                self.has_stored |= !stored.is_empty();
                self.awaited.retain(|replica, end| stored.next(*replica) < *end);
                Ok(())
            }
            _ => Err(out_of_place("a frame that an owner does not send here")),
        }
    }

    /// Queues changes, each after what it builds on, to be sent and awaited.
    pub(crate) fn send(&mut self, changes: &[Arc<[u8]>]) {
        self.has_stored = false;
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

    /// Whether the owner has said that of any of it.
    pub(crate) const fn has_stored_some(&self) -> bool {
        self.has_stored
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
        Some(Seat { next: tip.next, own, agreed: own, ..Seat::new(replica) })
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
