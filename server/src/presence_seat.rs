//! One client's place in the presence of a store: what it shows to the others, and what it has
//! heard of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use sds_sync::RelayFrame;
use sds_sync::presence::{PeerId, PresenceMessage, PresenceNews, PresenceRoom};
use sds_sync::rate::Bucket;

use crate::limits::{Limit, Limits};
use crate::rooms::{Member, OpenRoom};

/// A client that takes part in the presence of a store, until this is dropped.
pub(crate) struct PresenceSeat {
    room: Arc<OpenRoom>,
    peer: PeerId,
    subject: String,
    /// The most that it may show.
    bytes_max: usize,
    allowed: Mutex<Bucket>,
}

impl PresenceSeat {
    pub(crate) fn new(member: &Member, subject: String, limits: &Limits) -> Self {
        let room = Arc::clone(member.room());
        let allowed = Mutex::new(Bucket::new(limits.presence_per_second, Instant::now()));
        let bytes_max = limits.presence_bytes as usize;
        Self { room, peer: PeerId::random(), subject, bytes_max, allowed }
    }

    /// How the others see the client.
    pub(crate) const fn peer(&self) -> PeerId {
        self.peer
    }

    /// Takes in what the client shows.
    ///
    /// # Errors
    /// If it is too large or too often, or too many show themselves; then it is passed over.
    pub(crate) fn handle_state(
        &self,
        clock: u64,
        state: Bytes,
        is_settled: bool,
    ) -> Result<(), Limit> {
        let now = Instant::now();
        if state.len() > self.bytes_max {
            return Err(Limit::PresenceBytes);
        }
        if !self.allowed.lock().unwrap_or_else(PoisonError::into_inner).take(now) {
            return Err(Limit::PresenceRate);
        }
        let message = PresenceMessage { clock, state, is_settled };
        let has_room =
            self.with(|room| room.handle_message(self.peer, &self.subject, message, now));
        if has_room { Ok(()) } else { Err(Limit::PresencePeers) }
    }

    /// What the client has to hear next of the others, which has heard all up to `revision`; the
    /// frame that says so, whether that has to arrive, and the revision then.
    pub(crate) fn next(&self, revision: u64) -> Option<(u64, RelayFrame, bool)> {
        let (revision, news) = self.with(|room| room.next_for(self.peer, revision))?;
        let (frame, is_settled) = match news {
            PresenceNews::Here { peer, subject, message } => {
                let PresenceMessage { clock, state, is_settled } = message;
                let subject = subject.to_string();
                (RelayFrame::Presence { peer: peer.0, subject, clock, state }, is_settled)
            }
            PresenceNews::Left { peer, clock } => {
                (RelayFrame::PeerLeft { peer: peer.0, clock }, true)
            }
        };
        Some((revision, frame, is_settled))
    }

    pub(crate) fn handle_timeout(&self) {
        self.with(|room| room.handle_timeout(Instant::now()));
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.with(|room| room.poll_timeout())
    }

    fn with<T>(&self, work: impl FnOnce(&mut PresenceRoom) -> T) -> T {
        self.room.with_presence(work)
    }
}

impl Drop for PresenceSeat {
    fn drop(&mut self) {
        self.with(|room| room.handle_left(self.peer, Instant::now()));
    }
}
