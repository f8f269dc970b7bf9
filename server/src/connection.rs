//! One client's connection: its streams, and what it has open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use sds_engine::BlobHash;
use sds_sync::limits::{
    BLOB_FRAME_BYTES_MAX, CONNECTION_WINDOW_BYTES, FIRST_FRAME_BYTES_MAX, IDLE_CONNECTION_TIMEOUT,
    OPEN_TIMEOUT, STOP_TIMEOUT,
};
use sds_sync::transport::{FrameReceiver, FrameSender, StreamError, send_datagram};
use sds_sync::{
    ClientFrame, Offer, Refusal, RefusalCode, RelayFrame, StoreId, decode_datagram,
    encode_datagram, serve_get, serve_put,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::limits::Limit;
use crate::node::{Node, stopped};
use crate::presence_seat::PresenceSeat;
use crate::serve_blob::ClientBlobs;
use crate::serve_store::{OpenRequest, serve_store};
use sds_sync::access::{Access, Scope};

/// A client, and which stores it has open on its connection.
pub(crate) struct Peer {
    pub(crate) node: Arc<Node>,
    connection: Connection,
    open: Mutex<OpenStores>,
    /// Who takes part in presence, by the number of the stream; never more than there are streams.
    seats: Mutex<HashMap<u64, Arc<PresenceSeat>>>,
}

struct OpenStores {
    /// One entry for each open stream; never more than a connection may have streams.
    entries: Vec<OpenStore>,
    /// Since when there has been none.
    idle_since: Instant,
}

#[derive(Clone, PartialEq, Eq)]
struct OpenStore {
    store: StoreId,
    may_write: bool,
}

/// An entry in the list of open stores, until it is dropped.
pub(crate) struct Granted {
    peer: Arc<Peer>,
    entry: OpenStore,
    scope: Scope,
}

impl Peer {
    fn new(node: Arc<Node>, connection: Connection) -> Self {
        let open = OpenStores { entries: Vec::new(), idle_since: Instant::now() };
        node.metrics.connections.inc();
        Self { node, connection, open: Mutex::new(open), seats: Mutex::default() }
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

    /// Takes in a datagram; one that is nothing of ours is as good as lost.
    fn handle_datagram(&self, bytes: &[u8]) {
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
        if seat.handle_state(clock, state, is_settled) {
            self.node.metrics.presence_received.inc();
        } else {
            self.node.metrics.limit_hit(Limit::PresenceRate);
        }
    }

    /// Notes that the client has `store` open, until the answer is dropped. From now on the client
    /// may send faster.
    pub(crate) fn grant(self: &Arc<Self>, store: &StoreId, access: &Access) -> Granted {
        let entry = OpenStore { store: store.clone(), may_write: access.may_write() };
        self.open().entries.push(entry.clone());
        self.connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
        self.node.metrics.session(access.scope, true);
        Granted { peer: Arc::clone(self), entry, scope: access.scope }
    }

    /// Whether the client may write to `store`; `None` if it has not opened it.
    pub(crate) fn may_write(&self, store: &StoreId) -> Option<bool> {
        let open = self.open();
        let entries = open.entries.iter().filter(|entry| entry.store == *store);
        entries.map(|entry| entry.may_write).max()
    }

    /// When the connection will have been without an open store for too long.
    fn idle_deadline(&self) -> Instant {
        let open = self.open();
        let since = if open.entries.is_empty() { open.idle_since } else { Instant::now() };
        since + IDLE_CONNECTION_TIMEOUT
    }

    fn open(&self) -> MutexGuard<'_, OpenStores> {
        // No code under this lock can leave the list half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.node.metrics.connections.dec();
    }
}

impl Granted {
    /// Notes what a newer token allows.
    pub(crate) fn set_access(&mut self, access: &Access) {
        let metrics = &self.peer.node.metrics;
        metrics.session(self.scope, false);
        metrics.session(access.scope, true);
        self.scope = access.scope;
        let mut open = self.peer.open();
        if let Some(entry) = open.entries.iter_mut().find(|entry| **entry == self.entry) {
            entry.may_write = access.may_write();
        }
        self.entry.may_write = access.may_write();
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        self.peer.node.metrics.session(self.scope, false);
        let mut open = self.peer.open();
        if let Some(index) = open.entries.iter().position(|entry| *entry == self.entry) {
            open.entries.swap_remove(index);
            open.idle_since = Instant::now();
        }
    }
}

/// Serves a connection until the client leaves, opens nothing, or the relay stops.
pub(crate) async fn serve(
    node: Arc<Node>,
    connection: Connection,
    mut stop: watch::Receiver<bool>,
) {
    let peer = Arc::new(Peer::new(node, connection.clone()));
    let mut streams = JoinSet::new();
    loop {
        let idle_deadline = peer.idle_deadline();
        if idle_deadline <= Instant::now() {
            connection.close(VarInt::from_u32(0), b"idle");
            return;
        }
        tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = connection.accept_bi() => {
                let Ok((send, receive)) = accepted else { break };
                streams.spawn(serve_stream(Arc::clone(&peer), send, receive, stop.clone()));
            }
            Some(_) = streams.join_next() => {}
            Ok(datagram) = connection.read_datagram() => peer.handle_datagram(&datagram),
            () = sleep_until(idle_deadline) => {}
        }
    }
    // If the relay stops, each stream tells its client so; if the client has left, each takes in
    // what came before. Those that do not end are cut off.
    let _all_ended =
        timeout(STOP_TIMEOUT, async { while streams.join_next().await.is_some() {} }).await;
    connection.close(VarInt::from_u32(0), b"shutting down");
}

async fn serve_stream(
    peer: Arc<Peer>,
    send: SendStream,
    receive: RecvStream,
    stop: watch::Receiver<bool>,
) {
    let sender = FrameSender::new(send);
    let mut receiver = FrameReceiver::new(receive, FIRST_FRAME_BYTES_MAX);
    let Ok(first) = timeout(OPEN_TIMEOUT, receiver.next()).await else {
        let message = "the first frame did not come in time";
        return peer.refuse(sender, Refusal::new(RefusalCode::Unexpected, message)).await;
    };
    match first {
        Ok(Some(ClientFrame::Open { protocol, store, token, version })) => {
            let request = OpenRequest { protocol, store, token, version, seats: None };
            serve_store(&peer, request, sender, receiver, stop).await;
        }
        Ok(Some(ClientFrame::OpenSeated { protocol, store, token, version, seats })) => {
            let request = OpenRequest { protocol, store, token, version, seats: Some(seats) };
            serve_store(&peer, request, sender, receiver, stop).await;
        }
        Ok(Some(ClientFrame::PutBlob { store, hash, size })) => {
            receiver.set_max(BLOB_FRAME_BYTES_MAX);
            let offer = Offer { hash: BlobHash(hash), size, can_resume: false };
            serve_put(&ClientBlobs { peer: &peer, store }, offer, sender, receiver).await;
        }
        Ok(Some(ClientFrame::OfferBlob { store, hash, size })) => {
            receiver.set_max(BLOB_FRAME_BYTES_MAX);
            let offer = Offer { hash: BlobHash(hash), size, can_resume: true };
            serve_put(&ClientBlobs { peer: &peer, store }, offer, sender, receiver).await;
        }
        Ok(Some(ClientFrame::GetBlob { store, hash })) => {
            serve_get(&ClientBlobs { peer: &peer, store }, BlobHash(hash), 0, sender).await;
        }
        Ok(Some(ClientFrame::GetBlobFrom { store, hash, offset })) => {
            serve_get(&ClientBlobs { peer: &peer, store }, BlobHash(hash), offset, sender).await;
        }
        Ok(Some(_)) => {
            let message = "no stream begins with this frame";
            peer.refuse(sender, Refusal::new(RefusalCode::Unexpected, message)).await;
        }
        Err(StreamError::Frame(_)) => {
            let message = "the first frame is not well formed, or too large";
            peer.refuse(sender, Refusal::new(RefusalCode::Malformed, message)).await;
        }
        Ok(None) | Err(_) => {}
    }
}
