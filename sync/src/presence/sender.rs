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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// All that is sent until `end`, as (milliseconds, clock, state, is settled).
    fn sent(
        sender: &mut PresenceSender,
        start: Instant,
        end: Instant,
    ) -> Vec<(u128, u64, Bytes, bool)> {
        let mut all = Vec::new();
        let mut now = start;
        while let Some(due) = sender.poll_timeout(now).filter(|due| *due <= end) {
            now = due.max(now);
            let message = sender.poll_transmit(now).unwrap();
            let PresenceMessage { clock, state, is_settled } = message;
            all.push(((now - start).as_millis(), clock, state, is_settled));
        }
        all
    }

    #[test]
    fn a_state_is_sent_at_once_again_when_it_rests_and_now_and_then_after_that() {
        let (mut sender, start) = (PresenceSender::default(), Instant::now());
        let state = Bytes::from_static(b"a");
        sender.set(Some(state.clone()));
        assert_eq!(sender.poll_timeout(start), None, "nobody is there to hear it");
        sender.handle_open();
        let sent = sent(&mut sender, start, start + 2 * PRESENCE_REPEAT);
        let row = |at, is_settled| (at, 1, state.clone(), is_settled);
        assert_eq!(sent, [row(0, false), row(300, true), row(30_300, true)]);
    }

    #[test]
    fn what_changes_quickly_is_sent_now_and_then_and_nothing_once() {
        let (mut sender, start) = (PresenceSender::default(), Instant::now());
        sender.handle_open();
        let mut count = 0;
        for at in 0..1_000 {
            let now = start + Duration::from_millis(at);
            sender.set(Some(at.to_string().into()));
            count += u32::from(sender.poll_transmit(now).is_some());
        }
        assert_eq!(count, 20);
        let end = start + Duration::from_secs(1);
        sender.set(None);
        sender.set(None);
        let last = sent(&mut sender, end, end + PRESENCE_REPEAT);
        assert_eq!(last, [(0, 1_001, Bytes::new(), true)]);
    }

    #[test]
    fn on_another_connection_the_state_is_said_again() {
        let (mut sender, start) = (PresenceSender::default(), Instant::now());
        sender.set(Some(Bytes::from_static(b"a")));
        sender.handle_open();
        assert_eq!(sent(&mut sender, start, start + PRESENCE_SETTLE).len(), 2);
        sender.handle_close();
        assert_eq!(sender.poll_transmit(start + PRESENCE_REPEAT), None);
        sender.handle_open();
        assert_eq!(sent(&mut sender, start, start + PRESENCE_SETTLE).len(), 2);
    }
}
