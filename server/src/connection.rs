//! One client's connection: its streams, and what it has open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use sds_engine::BlobHash;
use sds_sync::limits::{
    BLOB_FRAME_BYTES_MAX, CONNECTION_WINDOW_BYTES, FIRST_FRAME_BYTES_MAX, IDLE_CONNECTION_TIMEOUT,
    OPEN_TIMEOUT,
};
use sds_sync::transport::{
    FrameReceiver, FrameSender, InputRoom, OutputRoom, Pace, RoomBytes, SharedRoom, StreamError,
    send_datagram,
};
use sds_sync::{
    ClientFrame, Offer, Refusal, RefusalCode, RelayFrame, StoreId, decode_datagram,
    encode_datagram, serve_get, serve_put,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::doorkeeper::Visit;
use crate::limits::{
    ARRIVED_BYTES_PER_CONNECTION_MAX, BEGUN_BYTES_PER_CONNECTION_MAX,
    LEAVING_BYTES_PER_CONNECTION_MAX, LEAVING_BYTES_PER_STREAM_MAX, Limit,
    STRANGER_BEGUN_BYTES_MAX, STRANGER_FREE_FRAME_BYTES,
};
use crate::node::{Node, stopped};
use crate::pace::{ConnectionPace, DatagramFate, Holder, SubjectSeat};
use crate::presence_seat::PresenceSeat;
use crate::serve_blob::ClientBlobs;
use crate::serve_store::{OpenRequest, open_store};
use crate::sessions::{ConnectionEntry, SessionEntry};
use sds_sync::access::{Access, Scope};

/// A client, and which stores it has open on its connection.
pub(crate) struct Peer {
    pub(crate) node: Arc<Node>,
    connection: Connection,
    visit: Visit,
    entry: ConnectionEntry,
    pace: Arc<ConnectionPace>,
    /// What all its streams share that may send large frames.
    room: Arc<SharedRoom>,
    /// What all its streams share before a store is open on them.
    stranger_room: InputRoom,
    open: Mutex<OpenStores>,
    /// Who takes part in presence, by the number of the stream; never more than there are streams.
    seats: Mutex<HashMap<u64, Arc<PresenceSeat>>>,
}

struct OpenStores {
    /// One entry for each open store; never more than `Limits::open_stores`.
    entries: Vec<OpenStore>,
    /// The number of the next entry.
    next: u64,
    /// How many streams the client may have before its bound is raised to `Limits::streams`.
    ready_streams: u32,
    /// Until when there has to be an entry, if there is none.
    deadline: Instant,
}

struct OpenStore {
    number: u64,
    store: StoreId,
    may_write: bool,
    seat: Arc<SubjectSeat>,
}

/// An entry in the list of open stores, until it is dropped.
pub(crate) struct Granted {
    peer: Arc<Peer>,
    number: u64,
    scope: Scope,
    entry: SessionEntry,
    seat: Arc<SubjectSeat>,
}

const fn input_room(shared: Vec<Arc<SharedRoom>>) -> InputRoom {
    InputRoom::new(FIRST_FRAME_BYTES_MAX, shared)
}

fn output_room(shared: Vec<Arc<SharedRoom>>) -> OutputRoom {
    OutputRoom::new(LEAVING_BYTES_PER_STREAM_MAX, shared)
}

/// How many streams are made ready for a client that has shown a token. QUIC keeps a place for each
/// stream that may come, and for all of them that is a tenth of what a quiet client costs; so there
/// are more only when half as many as these have come.
const READY_STREAMS: u32 = 14;

/// What all streams of a connection share.
const ROOM_OF_CONNECTION: RoomBytes = RoomBytes {
    begun: BEGUN_BYTES_PER_CONNECTION_MAX,
    arrived: ARRIVED_BYTES_PER_CONNECTION_MAX,
    leaving: LEAVING_BYTES_PER_CONNECTION_MAX,
};

/// The same before a store is open on them.
const ROOM_OF_STRANGER: RoomBytes =
    RoomBytes { begun: STRANGER_BEGUN_BYTES_MAX, arrived: STRANGER_BEGUN_BYTES_MAX, leaving: 0 };

const TOO_MANY_STORES: Refusal =
    Refusal::new(RefusalCode::Busy, "too many stores are open on this connection");
const TOO_MANY_CONNECTIONS: Refusal =
    Refusal::new(RefusalCode::Busy, "the subject has too many connections");

impl Peer {
    fn new(node: Arc<Node>, connection: Connection, visit: Visit) -> Self {
        let deadline = Instant::now() + node.limits.authenticate_time();
        let ready_streams = node.limits.stranger_streams;
        let open = OpenStores { entries: Vec::new(), next: 0, ready_streams, deadline };
        let pace = Arc::new(ConnectionPace::new(&node.limits, Arc::clone(&node.metrics)));
        let entry = node.sessions.connect(connection.clone(), Arc::clone(&node.metrics));
        let room = SharedRoom::new(ROOM_OF_CONNECTION);
        let shared = Arc::new(SharedRoom::new(ROOM_OF_STRANGER));
        Self {
            node,
            connection,
            visit,
            entry,
            pace,
            room: Arc::new(room),
            stranger_room: InputRoom::new(STRANGER_FREE_FRAME_BYTES, vec![shared]),
            open: Mutex::new(open),
            seats: Mutex::default(),
        }
    }

    /// Refuses what a stream asks for.
    pub(crate) async fn refuse(&self, sender: FrameSender, refusal: Refusal) {
        self.node.metrics.refused(refusal.code);
        sender.refuse(refusal).await;
    }

    /// Lets datagrams that name `stream` speak for `seat`, or for nobody any more.
    pub(crate) fn set_seat(&self, stream: u64, seat: Option<Arc<PresenceSeat>>) {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        match seat {
            Some(seat) => seats.insert(stream, seat),
            None => seats.remove(&stream),
        };
    }

    /// Sends a datagram; says false, and does not, if it is too large for one.
    pub(crate) fn send_datagram(&self, stream: u64, frame: &RelayFrame) -> bool {
        send_datagram(&self.connection, encode_datagram(stream, frame))
    }

    /// Takes in a datagram; one that is nothing of ours, or too many, is as good as lost. With far
    /// too many the connection ends.
    fn handle_datagram(&self, bytes: &[u8]) {
        match self.pace.note_datagram(bytes.len()) {
            DatagramFate::Read => {}
            DatagramFate::Dropped => return,
            DatagramFate::EndsConnection => {
                return self.connection.close(VarInt::from_u32(0), b"too many datagrams");
            }
        }
        let Ok((stream, ClientFrame::Presence { clock, state })) = decode_datagram(bytes) else {
            return;
        };
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let seat = seats.get(&stream).cloned();
        drop(seats);
        if let Some(seat) = seat {
            self.show(&seat, clock, state, false);
        }
    }

    /// Takes in what the client shows in `seat`.
    pub(crate) fn show(&self, seat: &PresenceSeat, clock: u64, state: Bytes, is_settled: bool) {
        let metrics = &self.node.metrics;
        match seat.handle_state(clock, state, is_settled) {
            Ok(()) => {
                metrics.presence_received.inc();
            }
            Err(limit) => metrics.limit_hit(limit),
        }
    }

    /// Notes that the client has `store` open, until the answer is dropped. From now on the client
    /// may send faster.
    ///
    /// # Errors
    /// If it has too many open, or its subject too many connections.
    pub(crate) fn grant(
        self: &Arc<Self>,
        store: &StoreId,
        access: &Access,
    ) -> Result<Granted, Refusal> {
        let (limits, metrics) = (&self.node.limits, &self.node.metrics);
        let mut open = self.open();
        if open.entries.len() >= limits.open_stores as usize {
            metrics.limit_hit(Limit::OpenStores);
            return Err(TOO_MANY_STORES);
        }
        let holder = Holder::of(access);
        let mut seats = open.entries.iter().map(|entry| &entry.seat);
        let seat = match seats.find(|seat| seat.is_of(&holder)) {
            Some(seat) => Arc::clone(seat),
            None => {
                let seat = self.node.subjects.enter(holder, limits).ok_or_else(|| {
                    metrics.limit_hit(Limit::ConnectionsPerSubject);
                    TOO_MANY_CONNECTIONS
                })?;
                let seat = Arc::new(seat);
                self.pace.add(&seat);
                seat
            }
        };
        let (number, entry) = (open.next, self.entry.open(store, access));
        let (store, may_write) = (store.clone(), access.may_write());
        let own = Arc::clone(&seat);
        open.entries.push(OpenStore { number, store, may_write, seat: own });
        open.next += 1;
        if number == 0 {
            self.visit.become_member();
            self.pace.widen(limits);
            self.connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
            self.make_ready(&mut open, READY_STREAMS);
        }
        drop(open);
        metrics.session(access.scope, true);
        Ok(Granted { peer: Arc::clone(self), number, scope: access.scope, entry, seat })
    }

    /// Takes one of the messages that `seat` may send on this connection.
    ///
    /// # Errors
    /// Which limit there is, if there is none left.
    pub(crate) fn take_signal(&self, seat: &SubjectSeat) -> Result<(), Limit> {
        self.pace.take_signal(seat)
    }

    /// The room for what is sent by who has `store` open, if somebody has.
    fn input_room(&self, store: &StoreId) -> Option<InputRoom> {
        Some(input_room(self.shared_rooms(store)?))
    }

    /// The room for what is sent to who has `store` open, if somebody has.
    pub(crate) fn output_room(&self, store: &StoreId) -> Option<OutputRoom> {
        Some(output_room(self.shared_rooms(store)?))
    }

    fn shared_rooms(&self, store: &StoreId) -> Option<Vec<Arc<SharedRoom>>> {
        let open = self.open();
        let entry = open.entries.iter().find(|entry| entry.store == *store)?;
        Some(vec![Arc::clone(&self.room), Arc::clone(entry.seat.room())])
    }

    /// Whether the client may write to `store`; `None` if it has not opened it.
    pub(crate) fn may_write(&self, store: &StoreId) -> Option<bool> {
        let open = self.open();
        let entries = open.entries.iter().filter(|entry| entry.store == *store);
        entries.map(|entry| entry.may_write).max()
    }

    /// Who has opened `store` on this connection so that it may write to it.
    pub(crate) fn writer_of(&self, store: &StoreId) -> Option<String> {
        let open = self.open();
        let mut entries = open.entries.iter().filter(|entry| entry.may_write);
        entries.find(|entry| entry.store == *store).map(|entry| entry.seat.name().to_owned())
    }

    /// How many streams the client may have at a time.
    fn streams_max(&self) -> usize {
        let (limits, open) = (&self.node.limits, self.open());
        if open.next == 0 { limits.stranger_streams as usize } else { limits.streams as usize }
    }

    /// Makes more streams ready if there have been so `many` that those which are may soon be in
    /// use: when a stream is over for both sides only the client knows.
    fn note_streams(&self, many: u32) {
        let mut open = self.open();
        if open.next > 0 && many >= READY_STREAMS / 2 {
            self.make_ready(&mut open, self.node.limits.streams);
        }
    }

    /// Lets the client have `streams` streams, if its bound allows that and it may not have more
    /// already.
    fn make_ready(&self, open: &mut OpenStores, streams: u32) {
        let streams = streams.min(self.node.limits.streams);
        if streams > open.ready_streams {
            open.ready_streams = streams;
            self.connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
        }
    }

    /// When the connection will have been without an open store for too long, and what it is then.
    fn deadline(&self) -> (Instant, Option<Limit>) {
        let open = self.open();
        if open.entries.is_empty() {
            (open.deadline, (open.next == 0).then_some(Limit::AuthenticateTime))
        } else {
            (Instant::now() + IDLE_CONNECTION_TIMEOUT, None)
        }
    }

    fn open(&self) -> MutexGuard<'_, OpenStores> {
        // No code under this lock can leave the list half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Granted {
    /// Resolves when somebody ends the session: what its client is to be told.
    pub(crate) async fn ended(&self) -> Refusal {
        self.entry.ended().await
    }

    /// The room for what comes on its stream.
    pub(crate) fn input_room(&self) -> InputRoom {
        input_room(self.shared_rooms())
    }

    /// The room for what goes out there.
    pub(crate) fn output_room(&self) -> OutputRoom {
        output_room(self.shared_rooms())
    }

    fn shared_rooms(&self) -> Vec<Arc<SharedRoom>> {
        vec![Arc::clone(&self.peer.room), Arc::clone(self.seat.room())]
    }

    /// Whose it is.
    pub(crate) const fn seat(&self) -> &Arc<SubjectSeat> {
        &self.seat
    }

    /// Notes how far in the store's log the client is.
    pub(crate) fn set_position(&self, position: u64) {
        self.entry.set_position(position);
    }

    /// Notes that the client follows the log no further.
    pub(crate) fn leave_log(&self) {
        self.entry.leave_log();
    }

    /// Notes what a newer token allows.
    pub(crate) fn set_access(&mut self, access: &Access) {
        let metrics = &self.peer.node.metrics;
        metrics.session(self.scope, false);
        metrics.session(access.scope, true);
        self.scope = access.scope;
        self.entry.set_access(access);
        let mut open = self.peer.open();
        if let Some(entry) = open.entries.iter_mut().find(|entry| entry.number == self.number) {
            entry.may_write = access.may_write();
        }
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        self.peer.node.metrics.session(self.scope, false);
        let mut open = self.peer.open();
        open.entries.retain(|entry| entry.number != self.number);
        open.deadline = Instant::now() + IDLE_CONNECTION_TIMEOUT;
    }
}

/// Serves a connection until the client leaves, opens nothing, or the relay stops.
pub(crate) async fn serve(
    node: Arc<Node>,
    connection: Connection,
    mut stop: watch::Receiver<bool>,
) {
    let Some(visit) = node.door.enter(connection.remote_address().ip()) else {
        connection.close(VarInt::from_u32(0), b"too many connections");
        return;
    };
    let (metrics, drain) = (Arc::clone(&node.metrics), node.drain);
    let peer = Arc::new(Peer::new(node, connection.clone(), visit));
    let mut streams = JoinSet::new();
    let mut resume = Instant::now();
    let mut count = 0_u32;
    loop {
        let (deadline, limit) = peer.deadline();
        if deadline <= Instant::now() {
            limit.into_iter().for_each(|limit| metrics.limit_hit(limit));
            connection.close(VarInt::from_u32(0), b"idle");
            return;
        }
        tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = accept_after(&connection, resume) => {
                let Ok((send, receive)) = accepted else { break };
                streams.spawn(serve_stream(Arc::clone(&peer), send, receive, stop.clone()));
                count = count.saturating_add(1);
                peer.note_streams(count);
                if streams.len() >= peer.streams_max() {
                    metrics.limit_hit(Limit::Streams);
                }
                // Whoever opens streams only to give them up is no faster than with frames.
                resume = Instant::now() + peer.pace.note(1, 0);
            }
            Some(_) = streams.join_next() => {}
            Ok(datagram) = connection.read_datagram() => peer.handle_datagram(&datagram),
            () = sleep_until(deadline) => {}
        }
    }
    // If the relay stops, each stream tells its client so; if the client has left, each takes in
    // what came before. Those that do not end are cut off.
    let _all_ended = timeout(drain, async { while streams.join_next().await.is_some() {} }).await;
    connection.close(VarInt::from_u32(0), b"shutting down");
}

/// The next stream, not before `resume`.
async fn accept_after(
    connection: &Connection,
    resume: Instant,
) -> Result<(SendStream, RecvStream), ConnectionError> {
    if resume > Instant::now() {
        sleep_until(resume).await;
    }
    connection.accept_bi().await
}

/// Serves what the first frame of a stream asks for. The tasks of quiet clients wait in here, so
/// what is large and rare is boxed.
async fn serve_stream(
    peer: Arc<Peer>,
    send: SendStream,
    receive: RecvStream,
    stop: watch::Receiver<bool>,
) {
    let sender = FrameSender::new(send);
    let mut receiver = FrameReceiver::new(receive, FIRST_FRAME_BYTES_MAX);
    receiver.set_pace(Arc::clone(&peer.pace) as Arc<dyn Pace>);
    receiver.set_room(peer.stranger_room.clone());
    let Ok(first) = timeout(OPEN_TIMEOUT, receiver.next()).await else {
        let message = "the first frame did not come in time";
        return peer.refuse(sender, Refusal::new(RefusalCode::Unexpected, message)).await;
    };
    if let Err(error) = &first {
        peer.node.note_failed(error);
    }
    match first {
        Ok(Some(frame)) => match OpenRequest::of(frame) {
            Ok(request) => {
                let opening = open_store(&peer, request, sender, receiver, stop);
                if let Some(service) = Box::pin(opening).await {
                    service.run().await;
                }
            }
            Err(frame) => Box::pin(serve_blob(&peer, frame, sender, receiver)).await,
        },
        Err(StreamError::Frame(_)) => {
            let message = "the first frame is not well formed, or too large";
            peer.refuse(sender, Refusal::new(RefusalCode::Malformed, message)).await;
        }
        Err(StreamError::NoRoom) => peer.refuse(sender, Refusal::NO_ROOM).await,
        Ok(None) | Err(_) => {}
    }
}

/// Lets pieces of a blob come, if they are those of somebody who has the store open.
fn expect_chunks(peer: &Peer, store: &str, receiver: &mut FrameReceiver) {
    let room = StoreId::new(store).ok().and_then(|store| peer.input_room(&store));
    if let Some(room) = room {
        receiver.set_max(BLOB_FRAME_BYTES_MAX);
        receiver.set_room(room);
    }
}

/// Serves a stream whose first frame does not open a store.
async fn serve_blob(
    peer: &Peer,
    first: ClientFrame,
    sender: FrameSender,
    mut receiver: FrameReceiver,
) {
    let can_resume = matches!(first, ClientFrame::OfferBlob { .. });
    let (store, hash, offset) = match first {
        ClientFrame::PutBlob { store, hash, size }
        | ClientFrame::OfferBlob { store, hash, size } => {
            expect_chunks(peer, &store, &mut receiver);
            let offer = Offer { hash: BlobHash(hash), size, can_resume };
            serve_put(&ClientBlobs { peer, store }, offer, sender, receiver).await;
            return;
        }
        ClientFrame::GetBlob { store, hash } => (store, hash, 0),
        ClientFrame::GetBlobFrom { store, hash, offset } => (store, hash, offset),
        _ => {
            let message = "no stream begins with this frame";
            return peer.refuse(sender, Refusal::new(RefusalCode::Unexpected, message)).await;
        }
    };
    serve_get(&ClientBlobs { peer, store }, BlobHash(hash), offset, sender).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<F>(
        _: fn(Arc<Peer>, SendStream, RecvStream, watch::Receiver<bool>) -> F,
    ) -> usize {
        size_of::<F>()
    }

    /// A thousand clients that only listen are a thousand of these.
    #[test]
    fn a_quiet_stream_waits_in_a_small_future() {
        let size = size_of_future(serve_stream);
        assert!(size <= 2 << 10, "{size} bytes");
    }
}
