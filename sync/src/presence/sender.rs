//! When to tell others of one's own state: at once, not too often, once more when it has come to rest,
//! and now and then, so that nobody thinks one gone.

use std::time::Instant;

use bytes::Bytes;

use crate::limits::{PRESENCE_INTERVAL, PRESENCE_REPEAT, PRESENCE_SETTLE};

/// A state on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceMessage {
    /// Counts the states of one peer.
    pub clock: u64,
    /// The encoded state; empty if the peer shows nothing any more.
    pub state: Bytes,
    /// Whether it has to arrive. Any other may get lost, for another one will follow.
    pub is_settled: bool,
}

/// One's own state, and what others have been told of it on the present connection.
#[derive(Debug, Default)]
pub struct PresenceSender {
    state: Option<Bytes>,
    clock: u64,
    is_open: bool,
    /// Whether the state has to be sent for the first time.
    is_new: bool,
    /// Whether the newest state was sent so that it will arrive.
    is_settled: bool,
    last_sent: Option<Instant>,
}

impl PresenceSender {
    /// Shows a state from now on, or none.
    pub fn set(&mut self, state: Option<Bytes>) {
        if self.state == state {
            return;
        }
        self.state = state;
        self.clock += 1;
        (self.is_new, self.is_settled) = (true, false);
    }

    /// A connection is there, on which nobody has heard of the state yet.
    pub fn handle_open(&mut self) {
        self.is_open = true;
        self.is_new = self.state.is_some();
        self.is_settled = !self.is_new;
        self.last_sent = None;
    }

    /// The connection is gone.
    pub const fn handle_close(&mut self) {
        self.is_open = false;
    }

    /// What to send now, if anything.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<PresenceMessage> {
        if self.poll_timeout(now).is_none_or(|due| due > now) {
            return None;
        }
        // That nobody is here any more is said once, and has to arrive.
        let is_settled = !self.is_new || self.state.is_none();
        (self.is_new, self.is_settled, self.last_sent) = (false, is_settled, Some(now));
        let state = self.state.clone().unwrap_or_default();
        Some(PresenceMessage { clock: self.clock, state, is_settled })
    }

    /// When [`poll_transmit`](Self::poll_transmit) has something, if nothing else happens; `now`, if it
    /// has something already.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if !self.is_open {
            return None;
        }
        let Some(last) = self.last_sent else { return self.is_new.then_some(now) };
        match (self.is_new, self.is_settled) {
            (true, _) => Some(last + PRESENCE_INTERVAL),
            (false, false) => Some(last + PRESENCE_SETTLE),
            (false, true) => self.state.is_some().then_some(last + PRESENCE_REPEAT),
        }
    }
}
