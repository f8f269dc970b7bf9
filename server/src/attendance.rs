//! A client's part in what those who have a store open say to each other: presence, and messages.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sds_sync::limits::SIGNAL_BYTES_MAX;
use sds_sync::presence::PeerId;
use sds_sync::transport::FrameRoom;
use sds_sync::{ClientFrame, Refusal, RefusalCode, RelayFrame};
use tokio::sync::watch;
use tokio::time::sleep_until;

use crate::connection::Peer;
use crate::pace::SubjectSeat;
use crate::presence_seat::PresenceSeat;
use crate::rooms::{self, Member, Message, OpenRoom};

/// The first version of the protocol with presence.
const PRESENCE_SINCE: u16 = 3;

/// The first version of the protocol with messages.
const SIGNALS_SINCE: u16 = 4;

const SIGNAL_TOO_LARGE: Refusal =
    Refusal::new(RefusalCode::TooLarge, "the message is larger than allowed");

/// A client that takes part, until this is dropped.
pub(crate) struct Attendance {
    peer: Arc<Peer>,
    stream: u64,
    seat: Arc<PresenceSeat>,
    /// Up to where the client has heard of the others.
    revision: u64,
    changed: watch::Receiver<u64>,
    /// None for a client of a version without.
    inbox: Option<Inbox>,
    /// What waits for room on the stream.
    frame: Option<Message>,
    /// Whether the next frame is of the store, if there is one: the first, which is Opened, and one
    /// after each that is not.
    is_stores_turn: bool,
}

/// A client's messages, until this is dropped.
struct Inbox {
    room: Arc<OpenRoom>,
    own: PeerId,
    waiting: Arc<rooms::Inbox>,
    subject: Arc<SubjectSeat>,
}

impl Attendance {
    /// Begins to take part, if the client's version of the protocol knows of it.
    pub(crate) fn begin(
        peer: &Arc<Peer>,
        protocol: u16,
        stream: u64,
        member: &Member,
        subject: &Arc<SubjectSeat>,
    ) -> Option<Self> {
        if protocol < PRESENCE_SINCE {
            return None;
        }
        let seat =
            Arc::new(PresenceSeat::new(member, subject.name().to_owned(), &peer.node.limits));
        peer.set_seat(stream, Some(Arc::clone(&seat)));
        let inbox = (protocol >= SIGNALS_SINCE).then(|| Inbox::new(member, &seat, subject));
        Some(Self {
            peer: Arc::clone(peer),
            stream,
            seat,
            revision: 0,
            changed: member.watch_presence(),
            inbox,
            frame: None,
            is_stores_turn: true,
        })
    }

    /// How the others see the client.
    pub(crate) fn own(&self) -> PeerId {
        self.seat.peer()
    }

    /// Takes in a frame if it is one for the others, and else gives it back.
    ///
    /// # Errors
    /// If the client must not say such a thing.
    pub(crate) fn handle_frame(
        &mut self,
        frame: ClientFrame,
    ) -> Result<Option<ClientFrame>, Refusal> {
        match (frame, &mut self.inbox) {
            (ClientFrame::Presence { clock, state }, _) => {
                self.peer.show(&self.seat, clock, state, true);
                Ok(None)
            }
            (ClientFrame::Signal { message, .. }, _) if message.len() > SIGNAL_BYTES_MAX => {
                Err(SIGNAL_TOO_LARGE)
            }
            (ClientFrame::Signal { to, message }, Some(inbox)) => {
                let metrics = &self.peer.node.metrics;
                match self.peer.take_signal(&inbox.subject) {
                    Ok(()) => {
                        metrics.signals.inc_by(inbox.send(PeerId::new(to), message));
                    }
                    Err(limit) => metrics.limit_hit(limit),
                }
                Ok(None)
            }
            (other, _) => Ok(Some(other)),
        }
    }

    /// Tells the client of the others, until something has to wait for room on the stream.
    pub(crate) fn tell(&mut self) {
        while self.frame.is_none()
            && let Some((revision, frame, is_settled)) = self.seat.next(self.revision)
        {
            self.revision = revision;
            self.peer.node.metrics.presence_delivered.inc();
            if is_settled || !self.peer.send_datagram(self.stream, &frame) {
                self.frame = Some((frame, FrameRoom::default()));
            }
        }
        if self.frame.is_none()
            && let Some(inbox) = &mut self.inbox
        {
            self.frame = inbox.waiting.take();
        }
    }

    /// Whether a frame waits.
    pub(crate) const fn has_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// The frame that waits, if it is its turn.
    pub(crate) fn take_turn(&mut self) -> Option<Message> {
        let frame = self.frame.take_if(|_| !self.is_stores_turn);
        self.is_stores_turn = frame.is_some();
        frame
    }

    /// The frame that waits.
    pub(crate) fn take_frame(&mut self) -> Option<Message> {
        self.frame.take()
    }

    /// Waits until there may be more to tell.
    pub(crate) async fn wait(&mut self) {
        let due = self.seat.poll_timeout();
        let timer = sleep_until(due.unwrap_or_else(Instant::now).into());
        let is_free = self.frame.is_none();
        let message = async {
            match &mut self.inbox {
                Some(inbox) if is_free => inbox.waiting.next().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            Ok(()) = self.changed.changed() => {}
            message = message => self.frame = Some(message),
            () = timer, if due.is_some() => self.seat.handle_timeout(),
        }
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.peer.set_seat(self.stream, None);
    }
}

impl Inbox {
    fn new(member: &Member, seat: &PresenceSeat, subject: &Arc<SubjectSeat>) -> Self {
        let waiting = Arc::new(rooms::Inbox::new(Arc::clone(subject.messages())));
        let (room, own) = (Arc::clone(member.room()), seat.peer());
        room.open_inbox(own, Arc::clone(&waiting));
        Self { room, own, waiting, subject: Arc::clone(subject) }
    }

    /// Passes a message on to one of the others, or to all; says how many get it. Those whose inbox
    /// is full do not.
    fn send(&self, to: Option<PeerId>, message: Bytes) -> u64 {
        let subject = self.subject.name().to_owned();
        let frame = RelayFrame::Signal { from: self.own.0, subject, message };
        self.room.signal(self.own, to, &frame)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.room.close_inbox(self.own);
    }
}
