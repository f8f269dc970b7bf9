//! One client's place in the presence of a store: what it shows to the others, and what it has heard of
//! them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use sds_sync::presence::{PeerId, PresenceMessage, PresenceNews, PresenceRoom};
use sds_sync::{RelayFrame, StoreId};

use crate::limits::Limit;
use crate::node::Node;
use crate::rate::Bucket;

/// A client that takes part in the presence of a store, until this is dropped.
pub(crate) struct PresenceSeat {
    node: Arc<Node>,
    store: StoreId,
    peer: PeerId,
    subject: String,
    /// What it may still say.
    rate: Mutex<Bucket>,
}

impl PresenceSeat {
    pub(crate) fn new(node: &Arc<Node>, store: StoreId, subject: String) -> Self {
        let rate = Bucket::new(node.limits.presence_per_second, Instant::now());
        let (node, peer) = (Arc::clone(node), PeerId::random());
        Self { node, store, peer, subject, rate: Mutex::new(rate) }
    }

    /// Takes in what the client shows, unless it says too much.
    pub(crate) fn handle_state(&self, clock: u64, state: Bytes, is_settled: bool) {
        let (now, limits) = (Instant::now(), &self.node.limits);
        let met = if state.len() > limits.presence_bytes as usize {
            Some(Limit::PresenceBytes)
        } else {
            let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
            (!rate.take(now)).then_some(Limit::PresenceRate)
        };
        match met {
            Some(limit) => self.node.metrics.limit_hit(limit),
            None => {
                let message = PresenceMessage { clock, state, is_settled };
                self.with(|room| room.handle_message(self.peer, &self.subject, message, now));
            }
        }
    }

    /// What the client has to hear next of the others, which has heard all up to `revision`; the frame
    /// that says so, whether that has to arrive, and the revision then.
    pub(crate) fn next(&self, revision: u64) -> Option<(u64, RelayFrame, bool)> {
        let next = self.with(|room| room.next_for(self.peer, revision));
        let (revision, news) = next.flatten()?;
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
        self.with(|room| room.poll_timeout()).flatten()
    }

    fn with<T>(&self, work: impl FnOnce(&mut PresenceRoom) -> T) -> Option<T> {
        self.node.rooms.with_presence(&self.store, work)
    }
}

impl Drop for PresenceSeat {
    fn drop(&mut self) {
        self.with(|room| room.handle_left(self.peer, Instant::now()));
    }
}
