//! One connection of a store with a relay, without socket or clock: the session, and what it means to
//! the store.
//!
//! The driver feeds it frames, the time and word of what has reached the disk, acts on the events of
//! the session with the methods here, and sends what it has to transmit.

use std::time::{Duration, Instant};

use sds_engine::{Patch, ReplicaId, Version};
use sds_store::StoreError;

use crate::message::{ClientFrame, RefusalCode, RelayFrame, Token};
use crate::session::{ClientEvent, ClientSession, Hello, PeerMisbehaved};
use crate::sync_engine::SyncError;
use crate::synced_store::{Handover, Purpose, SyncedStore, TakeInError, TakenIn};
use crate::transport::{StreamError, TransportError};

/// Why a connection ended, or did not come about.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no way to the relay.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The stream broke off, or what came over it is no frame.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The relay broke the protocol.
    #[error(transparent)]
    Misbehaved(#[from] PeerMisbehaved),
    /// The relay refuses.
    #[error("the relay refuses ({code}): {message}")]
    Refused {
        /// Why.
        code: RefusalCode,
        /// Why, for a person.
        message: String,
        /// When to come back, if the relay has said so.
        after: Option<Duration>,
    },
    /// The store refuses what the relay sent.
    #[error("the relay's patch cannot be taken in: {0}")]
    Apply(#[source] StoreError),
    /// Something on this side is wrong.
    #[error(transparent)]
    Engine(#[from] SyncError),
    /// The relay has said all it had to say.
    #[error("the relay has ended the stream")]
    Ended,
    /// Another connection has to find out what the relay has, or takes, of changes.
    #[error("the relay has other changes than expected: connecting anew to settle that")]
    Reseating,
    /// The relay takes changes under an id of this file from others alone. Another connection goes on under a
    /// new one; not too soon, should the relay not take that either.
    #[error(
        "the relay calls an id of this file somebody else's: connecting anew under another one"
    )]
    NotYours,
    /// Another connection can show a newer token.
    #[error("the token has expired: connecting anew with another one")]
    Renewing,
}

impl LinkError {
    /// Whether the connection itself may be at fault, so that no other store is to begin on it.
    pub(crate) const fn is_of_connection(&self) -> bool {
        match self {
            Self::Transport(_) | Self::Stream(_) | Self::Misbehaved(_) | Self::Ended => true,
            Self::Refused { .. }
            | Self::Apply(_)
            | Self::Engine(_)
            | Self::Reseating
            | Self::NotYours
            | Self::Renewing => false,
        }
    }

    /// The stable name of the reason.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Transport(error) => error.code(),
            Self::Stream(error) => error.code(),
            Self::Misbehaved(_) => "relay-misbehaved",
            Self::Refused { code, .. } => code.code(),
            Self::Apply(error) => error.code(),
            Self::Engine(error) => error.code(),
            Self::Ended => "connection-lost",
            Self::Reseating => "reseating",
            Self::NotYours => "not-yours",
            Self::Renewing => "unauthorized",
        }
    }

    /// Whether the relay itself was fine, so that there is no reason to go easy on it.
    pub(crate) const fn is_mere_loss(&self) -> bool {
        matches!(self, Self::Stream(StreamError::Transport(_) | StreamError::CutOff) | Self::Ended)
            || matches!(self, Self::Reseating | Self::Renewing)
            || matches!(self, Self::Refused { code: RefusalCode::ShuttingDown, .. })
    }
}

impl From<TakeInError> for LinkError {
    fn from(error: TakeInError) -> Self {
        match error {
            TakeInError::Store(error) => Self::Apply(error),
            TakeInError::Sync(error) => Self::Engine(error),
        }
    }
}

/// A store's side of one connection.
#[derive(Debug)]
pub struct Link {
    session: ClientSession,
    /// The seats that the relay was told of: what is made under others would belong to nobody there.
    named: Vec<ReplicaId>,
    purpose: Purpose,
    /// How often something in the store had been made again when the relay was told what is here.
    resettled: u64,
    /// Whether changes wait for a connection that names their seats, which are too many for this one.
    is_holding_back: bool,
    /// The replicas that the relay takes from others alone, and how far it has them.
    not_yours: Vec<(ReplicaId, u64)>,
    /// Whether the relay has said all of that which it could say when it opened the store.
    has_terms: bool,
}

impl Link {
    /// A connection on which nothing was said yet.
    #[must_use]
    pub fn new(store: &SyncedStore, token: &Token, now: Instant) -> Self {
        let (version, seats) = store.hello();
        let hello = Hello { store: store.id(), token, version: &version, seats: &seats };
        Self {
            session: ClientSession::new(&hello, now),
            named: seats,
            purpose: Purpose::Nothing,
            resettled: store.resettled(),
            is_holding_back: false,
            not_yours: Vec::new(),
            has_terms: false,
        }
    }

    /// Takes in a frame. Events may follow.
    ///
    /// # Errors
    /// If the relay breaks the protocol.
    pub fn handle_frame(&mut self, frame: RelayFrame) -> Result<(), PeerMisbehaved> {
        self.session.handle_frame(frame)
    }

    /// Acts on [`ClientEvent::Opened`]: compares the seats of the file with what the relay has of them.
    /// What comes back is to be written. Then [`handle_saved`](Self::handle_saved) is due. The store may
    /// go on as `fresh`, an id that nobody has drawn before.
    ///
    /// # Errors
    /// [`LinkError::Reseating`] if another connection has to ask the relay for other things.
    pub fn handle_opened(
        &mut self,
        store: &mut SyncedStore,
        fresh: ReplicaId,
    ) -> Result<Handover, LinkError> {
        self.check_history(store)?;
        let (purpose, handover) = store.compare_seats(&self.named, self.session.seats(), fresh)?;
        self.purpose = purpose;
        if purpose == Purpose::Nothing { Err(LinkError::Reseating) } else { Ok(handover) }
    }

    /// Acts on [`ClientEvent::Access`]: the relay has said now which seats of the file are not the
    /// client's. What comes back is to be written, and ends the connection as
    /// [`TakenIn::Settled`](crate::TakenIn::Settled) does.
    ///
    /// # Errors
    /// If what was made under such a seat cannot be made again.
    pub fn handle_access(
        &mut self,
        store: &mut SyncedStore,
        fresh: ReplicaId,
    ) -> Result<Option<Handover>, LinkError> {
        self.has_terms = true;
        self.give_up(store, fresh)
    }

    /// Acts on [`ClientEvent::NotYours`], as [`handle_access`](Self::handle_access) does.
    ///
    /// # Errors
    /// The same.
    pub fn handle_not_yours(
        &mut self,
        store: &mut SyncedStore,
        (replica, next): (ReplicaId, u64),
        fresh: ReplicaId,
    ) -> Result<Option<Handover>, LinkError> {
        self.not_yours.retain(|(known, _)| *known != replica);
        self.not_yours.push((replica, next));
        if self.has_terms { self.give_up(store, fresh) } else { Ok(None) }
    }

    fn give_up(
        &self,
        store: &mut SyncedStore,
        fresh: ReplicaId,
    ) -> Result<Option<Handover>, LinkError> {
        if self.not_yours.is_empty() || !self.is_syncing() {
            return Ok(None);
        }
        Ok(store.give_up(&self.not_yours, self.session.stored(), fresh)?)
    }

    /// The replicas whose changes the relay takes from others alone.
    #[must_use]
    pub fn not_yours(&self) -> &[(ReplicaId, u64)] {
        &self.not_yours
    }

    /// Notes what became of the patch of a [`ClientEvent::Changes`], which
    /// [`SyncedStore::take_in`] was given.
    ///
    /// # Errors
    /// [`LinkError::Reseating`] if the seats are settled now, so that another connection can go on; and if
    /// `patch` brought changes that the relay did not take from here, so that it takes now what builds on
    /// them.
    pub fn handle_taken_in(&mut self, taken_in: &TakenIn, patch: &[u8]) -> Result<(), LinkError> {
        if !self.not_yours.is_empty()
            && let Ok(patch) = Patch::decode(patch)
        {
            let is_theirs = |replica| self.not_yours.iter().any(|(theirs, _)| *theirs == replica);
            if patch.changes().any(|change| is_theirs(change.header().replica)) {
                return Err(LinkError::Reseating);
            }
        }
        match taken_in {
            TakenIn::Changes { came, .. } => {
                self.session.handle_integrated(came).map_err(|_| SyncError::Stopped)?;
                Ok(())
            }
            TakenIn::Inquiring => Ok(()),
            TakenIn::Settled { .. } => Err(LinkError::Reseating),
        }
    }

    /// Queues what has reached the disk and the relay lacks.
    ///
    /// # Errors
    /// If changes that the relay lacks are gone; [`LinkError::Reseating`] if some were made under a seat that
    /// this connection does not name, and another one has to.
    pub fn handle_saved(
        &mut self,
        store: &SyncedStore,
        persisted: &Version,
    ) -> Result<(), LinkError> {
        self.check_history(store)?;
        if self.session.is_writable() && self.is_syncing() {
            let changes = store.durable_since(self.session.queued(), persisted);
            let mut changes = changes.map_err(SyncError::Storage)?;
            let held_back = store.hold_back(&self.named, &mut changes);
            self.is_holding_back = held_back.is_some();
            let is_all_there = changes.is_empty() && self.session.stored() == self.session.queued();
            if held_back.is_some_and(|names_all| names_all || is_all_there) {
                return Err(LinkError::Reseating);
            }
            self.session.handle_durable(&changes).map_err(|_| SyncError::Stopped)?;
        }
        Ok(())
    }

    /// Whether the relay was told of the history that the store has.
    fn check_history(&self, store: &SyncedStore) -> Result<(), LinkError> {
        let is_told = store.resettled() == self.resettled;
        if is_told { Ok(()) } else { Err(LinkError::Reseating) }
    }

    /// Takes in the time.
    ///
    /// # Errors
    /// If the relay has let its deadline pass.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), PeerMisbehaved> {
        self.session.handle_timeout(now)
    }

    /// Shows the relay a newer token.
    pub fn handle_token(&mut self, token: Token) {
        self.session.handle_token(token);
    }

    /// Says goodbye.
    pub fn handle_close(&mut self) {
        self.session.handle_close();
    }

    /// The next thing to act on, if there is one.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.session.poll_event()
    }

    /// The next frame to send, if there is one.
    pub fn poll_transmit(&mut self) -> Option<ClientFrame> {
        self.session.poll_transmit()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, if it is.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.session.poll_timeout()
    }

    /// Whether [`handle_saved`](Self::handle_saved) is due after [`ClientEvent::Stored`] too: what was held
    /// back goes out with another connection once the relay has all that this one can bring.
    #[must_use]
    pub const fn is_holding_back(&self) -> bool {
        self.is_holding_back
    }

    /// What the connection is good for.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Whether the store is open and the connection keeps it equal with the relay.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.session.is_open() && self.purpose == Purpose::Sync
    }

    /// What the relay has, was sent and has stored.
    #[must_use]
    pub const fn session(&self) -> &ClientSession {
        &self.session
    }
}
