//! What an engine shows of its user, and whom it sees: between those who ask, and the connection.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::watch;

use crate::message::{ClientFrame, RelayFrame};
use crate::presence::{
    PeerId, PeerPresence, PresenceEvent, PresenceMessage, PresenceSender, PresenceState,
    PresenceTable, PresenceTooLarge,
};

type Handler = Arc<dyn Fn(&PresenceEvent) + Send + Sync>;

/// The presence of one engine.
#[derive(Default)]
pub(super) struct Presence {
    hub: Mutex<Hub>,
    /// Counts what is set here; to wait for more.
    pub(super) set: watch::Sender<u64>,
    /// Counts what others show.
    pub(super) seen: watch::Sender<u64>,
}

#[derive(Default)]
struct Hub {
    sender: PresenceSender,
    table: PresenceTable,
    handlers: Vec<(u64, Handler)>,
    last_handler: u64,
}

/// A handler of presence, called until this is dropped.
#[must_use = "the handler is called only as long as this lives"]
pub struct PresenceSubscription {
    presence: Weak<Presence>,
    number: u64,
}

/// A connection over which presence travels, until it is dropped.
pub(super) struct PresenceLine {
    presence: Arc<Presence>,
    stream: u64,
}

/// How a state travels.
pub(super) enum Outgoing {
    /// As a datagram, or, if it is too large for one, as the frame.
    Datagram(ClientFrame),
    /// On the stream.
    Frame(ClientFrame),
}

impl Presence {
    pub(super) fn set(&self, state: Option<PresenceState>) -> Result<(), PresenceTooLarge> {
        let bytes = state.as_ref().map(PresenceState::encode).transpose()?;
        self.hub().sender.set(bytes.map(Into::into));
        self.set.send_modify(|count| *count += 1);
        self.tell(&[PresenceEvent::Own(state)]);
        Ok(())
    }

    pub(super) fn peers(&self) -> Vec<PeerPresence> {
        self.hub().table.peers()
    }

    pub(super) fn subscribe(
        self: &Arc<Self>,
        handler: impl Fn(&PresenceEvent) + Send + Sync + 'static,
    ) -> PresenceSubscription {
        let mut hub = self.hub();
        hub.last_handler += 1;
        let number = hub.last_handler;
        hub.handlers.push((number, Arc::new(handler)));
        PresenceSubscription { presence: Arc::downgrade(self), number }
    }

    /// Tells on a connection whose stream has this number from now on.
    pub(super) fn open(self: &Arc<Self>, stream: u64) -> PresenceLine {
        self.hub().sender.handle_open();
        PresenceLine { presence: Arc::clone(self), stream }
    }

    /// Changes the table, and then tells of it, without a lock: handlers may ask for anything.
    fn change(&self, change: impl FnOnce(&mut PresenceTable)) {
        let events: Vec<PresenceEvent> = {
            let mut hub = self.hub();
            change(&mut hub.table);
            std::iter::from_fn(|| hub.table.poll_event()).collect()
        };
        if !events.is_empty() {
            self.seen.send_modify(|count| *count += 1);
            self.tell(&events);
        }
    }

    fn tell(&self, events: &[PresenceEvent]) {
        let handlers: Vec<Handler> =
            self.hub().handlers.iter().map(|(_, handler)| Arc::clone(handler)).collect();
        for (event, handler) in
            events.iter().flat_map(|event| handlers.iter().map(move |handler| (event, handler)))
        {
            // A handler that fails keeps neither the others nor the connection from going on.
            if catch_unwind(AssertUnwindSafe(|| handler(event))).is_err() {
                tracing::error!("a handler of presence has panicked");
            }
        }
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        // No code under this lock can leave anything half changed.
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PresenceLine {
    /// The number of the stream that datagrams belong to.
    pub(super) const fn stream(&self) -> u64 {
        self.stream
    }

    /// Takes in a frame if it is about presence, and else gives it back.
    pub(super) fn handle_frame(&self, frame: RelayFrame) -> Option<RelayFrame> {
        match frame {
            RelayFrame::Presence { peer, subject, clock, state } => self.presence.change(|table| {
                table.handle_state(PeerId(peer), subject, clock, &state, Instant::now());
            }),
            RelayFrame::PeerLeft { peer, clock } => {
                self.presence.change(|table| table.handle_left(PeerId(peer), clock));
            }
            other => return Some(other),
        }
        None
    }

    pub(super) fn handle_timeout(&self, now: Instant) {
        self.presence.change(|table| table.handle_timeout(now));
    }

    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let hub = self.presence.hub();
        let due = [hub.sender.poll_timeout(now), hub.table.poll_timeout()];
        due.into_iter().flatten().min()
    }

    pub(super) fn poll_transmit(&self, now: Instant) -> Option<Outgoing> {
        let message = self.presence.hub().sender.poll_transmit(now)?;
        let PresenceMessage { clock, state, is_settled } = message;
        let frame = ClientFrame::Presence { clock, state };
        Some(if is_settled { Outgoing::Frame(frame) } else { Outgoing::Datagram(frame) })
    }
}

impl Drop for PresenceLine {
    fn drop(&mut self) {
        self.presence.hub().sender.handle_close();
        self.presence.change(PresenceTable::handle_close);
    }
}

impl Drop for PresenceSubscription {
    fn drop(&mut self) {
        if let Some(presence) = self.presence.upgrade() {
            presence.hub().handlers.retain(|(number, _)| *number != self.number);
        }
    }
}

impl fmt::Debug for PresenceSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PresenceSubscription").field(&self.number).finish()
    }
}
