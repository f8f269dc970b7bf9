//! The loop that serves one open store on one stream.
//!
//! While an append is on its way to the disk nothing further is read from the client, so a client
//! that sends faster than the disk writes waits in its own connection.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sds_engine::{Change, Version};
use sds_sync::limits::{FRAME_BYTES_MAX, OPEN_SEATS_MAX, PROTOCOL_VERSION};
use sds_sync::transport::{FramePipe, FrameReceiver, FrameSender, Interest, Ready, StreamError};
use sds_sync::{
    ClientFrame, Refusal, RefusalCode, RelayFrame, ServingSession, StoreId, Token, memory_of,
};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use crate::connection::Peer;
use crate::log_writer::Outcome;
use crate::node::{Node, stopped};
use crate::presence_seat::PresenceSeat;
use crate::relay::{Cursor, Next};
use crate::rooms::Member;
use sds_sync::access::{Access, AccessError};

/// How long to sleep at most before the clock is looked at again: clocks are set, machines
/// suspended.
const CLOCK_INTERVAL: Duration = Duration::from_secs(60);

/// The first frame of a stream that opens a store.
pub(crate) struct OpenRequest {
    pub(crate) protocol: u16,
    pub(crate) store: String,
    pub(crate) token: Token,
    pub(crate) version: bytes::Bytes,
    /// The seats that the client asks about; none if it speaks a version without.
    pub(crate) seats: Option<Vec<u64>>,
}

const STORAGE_FAILED: Refusal =
    Refusal::new(RefusalCode::StorageFailed, "the relay cannot read or write its file");
const SHUTTING_DOWN: Refusal =
    Refusal::new(RefusalCode::ShuttingDown, "the relay is about to stop; try again soon");
const EXPIRED: Refusal = Refusal::new(RefusalCode::Unauthorized, "the token has expired");

/// Serves a stream whose first frame asks for a store, until either side ends it.
pub(crate) async fn serve_store(
    peer: &Arc<Peer>,
    mut request: OpenRequest,
    sender: FrameSender,
    mut receiver: FrameReceiver,
    stop: watch::Receiver<bool>,
) {
    let admitted = admit(&peer.node, &request).and_then(|(store, access, version)| {
        let granted = peer.grant(&store, &access)?;
        Ok((store, access, version, granted))
    });
    match admitted {
        Ok((store, access, version, _granted)) => {
            tracing::info!(%store, subject = access.subject, scope = ?access.scope, "opened");
            receiver.set_max(FRAME_BYTES_MAX);
            let member = peer.node.rooms.enter(&store);
            let stream = sender.id();
            let presence = (request.protocol >= PRESENCE_SINCE)
                .then(|| Attendance::begin(peer, stream, &member, &store, access.subject.clone()));
            let pipe = FramePipe::new(sender, receiver);
            let asked = Asked { had: version, seats: request.seats.take() };
            match open_session(peer, &store, &access, asked, &member).await {
                Ok(session) => {
                    let node = Arc::clone(&peer.node);
                    let pending = None;
                    let expires = access.expires;
                    let room = Service {
                        node,
                        store,
                        session,
                        member,
                        pipe,
                        pending,
                        presence,
                        expires,
                        stop,
                    };
                    room.run().await;
                }
                Err(refusal) => pipe.finish([refusal.frame()]).await,
            }
        }
        Err(refusal) => {
            tracing::info!(code = refusal.code.code(), "not opened");
            sender.refuse(refusal).await;
        }
    }
}

/// Checks the request; says what it opens, what it allows, and what the client has.
fn admit(node: &Node, request: &OpenRequest) -> Result<(StoreId, Access, Version), Refusal> {
    if request.protocol > PROTOCOL_VERSION {
        return Err(Refusal::new(RefusalCode::TooNew, "the protocol is newer than this relay"));
    }
    let malformed = |message| Refusal::new(RefusalCode::Malformed, message);
    if request.protocol == 0 {
        return Err(malformed("there is no protocol version 0"));
    }
    if request.seats.as_ref().is_some_and(|seats| seats.len() > OPEN_SEATS_MAX) {
        return Err(malformed("too many seats"));
    }
    let access = node.gate.check(&request.token, &request.store, SystemTime::now());
    let access = access.map_err(|error| match error {
        AccessError::Forbidden => {
            Refusal::new(RefusalCode::Forbidden, "the token is for another store")
        }
        _ => Refusal::new(RefusalCode::Unauthorized, "the token is not accepted"),
    })?;
    let store = StoreId::new(&request.store).map_err(|_| malformed("no valid store id"))?;
    let version = Version::decode(&request.version).map_err(|_| malformed("no valid version"))?;
    Ok((store, access, version))
}

/// What a client has, and wants to know.
struct Asked {
    had: Version,
    seats: Option<Vec<u64>>,
}

async fn open_session(
    peer: &Peer,
    store: &StoreId,
    access: &Access,
    Asked { had, seats }: Asked,
    member: &Member,
) -> Result<ServingSession<Cursor>, Refusal> {
    let (id, known) = (store.clone(), had.clone());
    let read = peer.node.read(move |log| {
        let (position, end) = log.position_for(&id, &known)?;
        // What is said of the seats is never more than what is said to be here.
        let tips = seats.map(|seats| log.tips(&id, &seats)).transpose()?;
        Ok((log.version(&id)?, tips, position, end))
    });
    let (version, tips, position, end) = read.await.ok_or(STORAGE_FAILED)?;
    member.note_end(end);
    let (writable, cursor) = (access.may_write(), Cursor::new(had, position, end));
    Ok(ServingSession::new(&version, tips, writable, cursor))
}

/// An append that waits for its turn or is on its way to the disk. `None` if the relay stops.
type Append = Pin<Box<dyn Future<Output = Option<Outcome>> + Send>>;

struct Service {
    node: Arc<Node>,
    store: StoreId,
    session: ServingSession<Cursor>,
    member: Member,
    pipe: FramePipe<RelayFrame, ClientFrame>,
    pending: Option<Append>,
    /// None for a client of a version without.
    presence: Option<Attendance>,
    expires: SystemTime,
    stop: watch::Receiver<bool>,
}

/// What the service has to attend to next.
enum Turn {
    Stop,
    Clock,
    Pipe(Ready<ClientFrame>),
    Appended(Option<Outcome>),
    More,
    Presence,
}

/// The first version of the protocol with presence.
const PRESENCE_SINCE: u16 = 3;

/// A client's part in the presence of a store, until it is dropped.
struct Attendance {
    peer: Arc<Peer>,
    stream: u64,
    seat: Arc<PresenceSeat>,
    /// Up to where the client has heard of the others.
    revision: u64,
    changed: watch::Receiver<u64>,
    /// What waits for room on the stream.
    frame: Option<RelayFrame>,
    /// Whether the next frame is of the store, if there is one: the first, which is Opened, and one after
    /// each of presence.
    is_stores_turn: bool,
}

impl Attendance {
    fn begin(
        peer: &Arc<Peer>,
        stream: u64,
        member: &Member,
        store: &StoreId,
        subject: String,
    ) -> Self {
        let seat = PresenceSeat::new(&peer.node, store.clone(), subject);
        let seat = Arc::new(seat);
        peer.set_seat(stream, Some(Arc::clone(&seat)));
        let (peer, changed) = (Arc::clone(peer), member.watch_presence());
        Self { peer, stream, seat, revision: 0, changed, frame: None, is_stores_turn: true }
    }

    /// Tells the client of the others, until something has to wait for room on the stream.
    fn tell(&mut self) {
        while self.frame.is_none()
            && let Some((revision, frame, is_settled)) = self.seat.next(self.revision)
        {
            self.revision = revision;
            if is_settled || !self.peer.send_datagram(self.stream, &frame) {
                self.frame = Some(frame);
            }
        }
    }

    /// The frame that waits, if it is presence's turn.
    fn take_turn(&mut self) -> Option<RelayFrame> {
        let frame = self.frame.take_if(|_| !self.is_stores_turn);
        self.is_stores_turn = frame.is_some();
        frame
    }

    /// Waits until there may be more to tell.
    async fn wait(&mut self) {
        let due = self.seat.poll_timeout();
        let timer = sleep_until(due.unwrap_or_else(Instant::now).into());
        tokio::select! {
            Ok(()) = self.changed.changed() => {}
            () = timer, if due.is_some() => self.seat.handle_timeout(),
        }
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.peer.set_seat(self.stream, None);
    }
}

impl Service {
    async fn run(mut self) {
        while !self.session.is_over() {
            self.append_what_came();
            self.read_log().await;
            if let Some(presence) = &mut self.presence {
                presence.tell();
            }
            match self.next_turn().await {
                Turn::Stop => self.session.refuse(SHUTTING_DOWN),
                Turn::Clock if self.expires <= SystemTime::now() => self.session.refuse(EXPIRED),
                Turn::Clock | Turn::More | Turn::Presence => {}
                Turn::Pipe(Ready::Room(true)) => {
                    // By turns, so that neither many changes nor much presence holds the other up.
                    let presence = self.presence.as_mut().and_then(Attendance::take_turn);
                    let waiting = || self.presence.as_mut()?.frame.take();
                    let changes = || self.session.poll_transmit();
                    if let Some(frame) = presence.or_else(changes).or_else(waiting) {
                        self.pipe.send(frame);
                    }
                }
                // A client that has left reads nothing further; what it sent before is still taken.
                Turn::Pipe(Ready::Room(false)) => {}
                Turn::Pipe(Ready::Received(received)) => self.handle_received(received),
                Turn::Appended(outcome) => {
                    self.pending = None;
                    self.handle_outcome(outcome);
                }
            }
        }
        // The others hear of it at once, whatever is still to be done here.
        self.presence = None;
        self.settle().await;
        let last: Vec<RelayFrame> = std::iter::from_fn(|| self.session.poll_transmit()).collect();
        self.pipe.finish(last).await;
    }

    async fn next_turn(&mut self) -> Turn {
        let interest = Interest {
            in_room: self.session.has_transmit()
                || self.presence.as_ref().is_some_and(|presence| presence.frame.is_some()),
            in_frames: self.pending.is_none() && self.session.wants_frames(),
        };
        let left = self.expires.duration_since(SystemTime::now()).unwrap_or_default();
        let is_reading = self.session.wants_log().is_some();
        let appended = async {
            match &mut self.pending {
                Some(append) => append.await,
                None => std::future::pending().await,
            }
        };
        let presence = async {
            match &mut self.presence {
                Some(presence) => presence.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stopped(&mut self.stop) => Turn::Stop,
            () = presence => Turn::Presence,
            () = sleep(left.min(CLOCK_INTERVAL)) => Turn::Clock,
            ready = self.pipe.ready(interest) => Turn::Pipe(ready),
            outcome = appended => Turn::Appended(outcome),
            () = self.member.changed(), if is_reading => Turn::More,
        }
    }

    /// Hands over what has come in; all that has arrived goes into one append.
    fn append_what_came(&mut self) {
        if self.pending.is_some() {
            return;
        }
        while self.session.wants_frames() {
            let Some(received) = self.pipe.next_arrived() else { break };
            self.handle_received(received);
        }
        if let Some(changes) = self.session.poll_append() {
            self.pending = Some(self.append(changes));
        }
    }

    fn handle_received(&mut self, received: Result<Option<ClientFrame>, StreamError>) {
        match received {
            Ok(Some(ClientFrame::Presence { clock, state })) if self.presence.is_some() => {
                if let Some(presence) = &self.presence {
                    presence.seat.handle_state(clock, state, true);
                }
            }
            Ok(frame) => self.session.handle_frame(frame.unwrap_or(ClientFrame::Bye)),
            Err(StreamError::Frame(error)) => {
                self.node.note_malformed(&error);
                tracing::info!(store = %self.store, %error, "malformed frame");
                let message = "a frame is not well formed, or too large";
                self.session.refuse(Refusal::new(RefusalCode::Malformed, message));
            }
            // Nobody is there any more to be told.
            Err(_) => self.session.handle_frame(ClientFrame::Bye),
        }
    }

    /// Reads on in the log until the client has something to be sent, or has everything.
    async fn read_log(&mut self) {
        while let Some(cursor) = self.session.wants_log() {
            match self.member.next_for(cursor) {
                Next::Nothing => return,
                Next::Changes { from, changes } => self.pass(from, changes),
                Next::OnDisk(from) => {
                    let store = self.store.clone();
                    let page = self.node.read(move |log| log.read(&store, from)).await;
                    match page.filter(|page| !page.changes.is_empty()) {
                        Some(page) => self.pass(from, page.changes),
                        None => return self.session.refuse(STORAGE_FAILED),
                    }
                }
            }
        }
    }

    /// Moves the client on over the part of the log at position `from`.
    fn pass(&mut self, from: u64, changes: Vec<Arc<[u8]>>) {
        let lacking = self.session.cursor_mut().pass(from, changes);
        self.session.handle_log(lacking);
    }

    /// Appends the client's last changes, so that a goodbye right after them loses none.
    async fn settle(&mut self) {
        if let Some(append) = self.pending.take() {
            let outcome = append.await;
            self.handle_outcome(outcome);
        }
        if let Some(changes) = self.session.poll_append() {
            let outcome = self.append(changes).await;
            self.handle_outcome(outcome);
        }
    }

    /// Hands changes to the writer when it is their turn.
    fn append(&self, changes: Vec<Change>) -> Append {
        let turn = self.member.turn(changes.iter().map(memory_of).sum());
        let (writer, store) = (self.node.writer.clone(), self.store.clone());
        Box::pin(async move {
            let _turn = turn.await;
            writer.append(store, changes).await.ok()
        })
    }

    fn handle_outcome(&mut self, outcome: Option<Outcome>) {
        match outcome {
            Some(Ok(appended)) => {
                if let Some(code) = appended.refused {
                    tracing::warn!(store = %self.store, code = code.code(), "changes refused");
                }
                self.session.handle_appended(&appended.stored, appended.refused);
            }
            Some(Err(_)) => self.session.refuse(STORAGE_FAILED),
            None => self.session.refuse(SHUTTING_DOWN),
        }
    }
}
