//! Messages to others who have the store open at the same relay: for programs that want to talk to each
//! other directly. They mean nothing to the engine, are never kept, and may get lost.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{broadcast, watch};

use crate::limits::{
    PRESENCE_SUBJECT_BYTES_MAX, SIGNAL_BYTES_MAX, SIGNALS_PER_SECOND, SIGNALS_WAITING_MAX,
};
use crate::message::{ClientFrame, RelayFrame};
use crate::presence::PeerId;
use crate::rate::Bucket;

/// A message from somebody else who has the store open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Who sent it.
    pub from: PeerId,
    /// The subject of their token.
    pub subject: String,
    /// What they sent.
    pub message: Bytes,
}

/// Why a message is not sent.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// The store is not open at a relay.
    #[error("not connected to a relay")]
    NotConnected,
    /// The message is too large.
    #[error("the message is larger than {SIGNAL_BYTES_MAX} bytes")]
    TooLarge,
    /// Too many others wait to be sent.
    #[error("too many messages wait to be sent")]
    Busy,
}

impl SignalError {
    /// The stable name of the reason.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotConnected => "not-connected",
            Self::TooLarge => "too-large",
            Self::Busy => "busy",
        }
    }
}

/// The messages of one engine.
#[derive(Debug)]
pub(super) struct Signals {
    outgoing: Mutex<Outgoing>,
    /// Counts what is sent; to wait for more.
    pub(super) sent: watch::Sender<u64>,
    received: broadcast::Sender<Signal>,
}

/// What waits to be sent.
#[derive(Debug, Default)]
struct Outgoing {
    /// How others see this engine, while there is a connection.
    own: Option<PeerId>,
    waiting: VecDeque<ClientFrame>,
}

/// A connection over which messages travel, until it is dropped.
#[derive(Debug)]
pub(super) struct SignalLine {
    signals: Arc<Signals>,
    allowed: Bucket,
}

impl Default for Signals {
    fn default() -> Self {
        let (outgoing, sent) = (Mutex::default(), watch::Sender::default());
        Self { outgoing, sent, received: broadcast::Sender::new(SIGNALS_WAITING_MAX) }
    }
}

impl Signals {
    pub(super) fn send(&self, to: Option<PeerId>, message: Bytes) -> Result<(), SignalError> {
        if message.len() > SIGNAL_BYTES_MAX {
            return Err(SignalError::TooLarge);
        }
        let mut outgoing = self.outgoing();
        if outgoing.own.is_none() {
            return Err(SignalError::NotConnected);
        }
        if outgoing.waiting.len() >= SIGNALS_WAITING_MAX {
            return Err(SignalError::Busy);
        }
        let to = to.map_or(0, |peer| peer.0);
        outgoing.waiting.push_back(ClientFrame::Signal { to, message });
        self.sent.send_modify(|count| *count += 1);
        Ok(())
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Signal> {
        self.received.subscribe()
    }

    /// How others see this engine.
    pub(super) fn own(&self) -> Option<PeerId> {
        self.outgoing().own
    }

    /// Sends on a connection on which others see this engine as `own`.
    pub(super) fn open(self: &Arc<Self>, own: PeerId, now: Instant) -> SignalLine {
        self.outgoing().own = Some(own);
        SignalLine { signals: Arc::clone(self), allowed: Bucket::new(SIGNALS_PER_SECOND, now) }
    }

    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        // No code under this lock can leave anything half changed.
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SignalLine {
    /// Takes in a frame if it is a message, and else gives it back.
    pub(super) fn handle_frame(&self, frame: RelayFrame) -> Option<RelayFrame> {
        let RelayFrame::Signal { from, mut subject, message } = frame else { return Some(frame) };
        // What no relay passes on is not kept for handlers that may be slow.
        subject.truncate(subject.floor_char_boundary(PRESENCE_SUBJECT_BYTES_MAX));
        subject.shrink_to_fit();
        let is_small = message.len() <= SIGNAL_BYTES_MAX;
        if let Some(from) = PeerId::new(from).filter(|_| is_small) {
            // Nobody may be there to hear it.
            let _unheard = self.signals.received.send(Signal { from, subject, message });
        }
        None
    }

    /// The next message to send, if it is time.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<ClientFrame> {
        let mut outgoing = self.signals.outgoing();
        if outgoing.waiting.is_empty() || !self.allowed.take(now) {
            return None;
        }
        outgoing.waiting.pop_front()
    }

    /// When there is something to send again.
    pub(super) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let is_waiting = !self.signals.outgoing().waiting.is_empty();
        is_waiting.then(|| self.allowed.next(now))
    }
}

impl Drop for SignalLine {
    fn drop(&mut self) {
        *self.signals.outgoing() = Outgoing::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_relay_passes_on_is_not_kept() {
        let signals = Arc::new(Signals::default());
        let (line, mut received) = (signals.open(PeerId(7), Instant::now()), signals.subscribe());
        let hear = |bytes: usize| {
            let message = vec![0; bytes].into();
            line.handle_frame(RelayFrame::Signal { from: 9, subject: "x".repeat(5_000), message })
        };
        assert!(hear(SIGNAL_BYTES_MAX + 1).is_none() && hear(SIGNAL_BYTES_MAX).is_none());
        let heard = received.try_recv().unwrap();
        assert_eq!(heard.message.len(), SIGNAL_BYTES_MAX);
        assert_eq!(heard.subject.len(), PRESENCE_SUBJECT_BYTES_MAX);
        assert!(received.try_recv().is_err());
    }

    #[test]
    fn messages_wait_their_turn_and_not_for_another_connection() {
        let (signals, now) = (Arc::new(Signals::default()), Instant::now());
        let message = Bytes::from_static(b"hello");
        assert_eq!(signals.send(None, message.clone()), Err(SignalError::NotConnected));
        let mut line = signals.open(PeerId(7), now);
        assert_eq!(signals.own(), Some(PeerId(7)));
        for _ in 0..SIGNALS_WAITING_MAX {
            signals.send(Some(PeerId(9)), message.clone()).unwrap();
        }
        assert_eq!(signals.send(None, message.clone()), Err(SignalError::Busy));
        let sent = std::iter::from_fn(|| line.poll_transmit(now)).count();
        assert_eq!(sent, SIGNALS_PER_SECOND as usize);
        let next = line.poll_timeout(now).unwrap();
        assert!(next > now && line.poll_transmit(next).is_some());
        drop(line);
        assert_eq!(signals.send(None, message), Err(SignalError::NotConnected));
        assert!(signals.open(PeerId(8), next).poll_transmit(next).is_none());
    }

    #[test]
    fn a_message_too_large_is_refused() {
        let signals = Arc::new(Signals::default());
        let _line = signals.open(PeerId(7), Instant::now());
        assert_eq!(signals.send(None, vec![0; SIGNAL_BYTES_MAX].into()), Ok(()));
        let larger = vec![0; SIGNAL_BYTES_MAX + 1].into();
        assert_eq!(signals.send(None, larger), Err(SignalError::TooLarge));
    }
}
