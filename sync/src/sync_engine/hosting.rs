//! Serving others from an engine's store: the guests of its file over a local socket, and peers over
//! QUIC. What they bring is on disk before they are told so, and goes on to the relay and to all others
//! as if it had been made here.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::traits::tokio::Listener as _;
use sds_engine::BlobHash;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::shared::Shared;
use crate::access::{Access, AccessError, Gate};
use crate::blob_service::{BlobDoor, Offer, serve_get, serve_put};
use crate::blob_storage::BlobStorage;
use crate::limits::{
    BLOB_FRAME_BYTES_MAX, FIRST_FRAME_BYTES_MAX, GUESTS_MAX, OPEN_TIMEOUT, RECONNECT_DELAY_MIN,
    STOP_TIMEOUT,
};
use crate::local_socket::{LocalAddress, Made};
use crate::message::{ClientFrame, RefusalCode, Token};
use crate::serving_session::Refusal;
use crate::transport::{FrameReceiver, FrameSender, StreamError};

mod inquiry;
mod listener;
mod service;

pub use listener::{ListenError, ListenOptions, Listening};
use service::{Admitted, Opening, serve_store};

/// Who is being served.
#[derive(Clone)]
enum Visitor {
    /// A process that may use the file, since it may use the socket.
    Guest,
    /// Somebody elsewhere, who has to show a token.
    Peer(Arc<Gate>),
}

impl Visitor {
    /// What the visitor may do with the store.
    fn admit(
        &self,
        shared: &Shared,
        store: &str,
        token: &Token,
    ) -> Result<Option<Access>, Refusal> {
        let gate = match self {
            Self::Guest if store == shared.id.as_str() => return Ok(None),
            Self::Guest => return Err(Refusal::new(RefusalCode::Forbidden, "another store")),
            Self::Peer(gate) => gate,
        };
        let access = gate.check(token, store, SystemTime::now()).map_err(|error| match error {
            AccessError::Forbidden => {
                Refusal::new(RefusalCode::Forbidden, "the token is for another store")
            }
            AccessError::Unauthorized => {
                Refusal::new(RefusalCode::Unauthorized, "the token is not accepted")
            }
        })?;
        if store == shared.id.as_str() {
            Ok(Some(access))
        } else {
            Err(Refusal::new(RefusalCode::Forbidden, "this peer has another store"))
        }
    }
}

const OPEN_TOO_OFTEN: Refusal =
    Refusal::new(RefusalCode::Busy, "the store is open too often on this connection");

/// How long an owner that could not listen waits until it tries again.
const LISTEN_RETRY: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 30_000 });

/// The guests of an engine's file, served until it is ended.
pub(super) struct Hosting {
    socket: Arc<Socket>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Hosting {
    /// Begins to serve the guests of a file that this process has open. Needs a tokio runtime. As long as
    /// there can be no socket others wait until the file is free.
    pub(super) fn begin(shared: &Arc<Shared>, address: LocalAddress) -> Self {
        let socket = Arc::new(Socket { address, made: Mutex::new(None) });
        let listener = socket.listen_or_warn(shared);
        let (stop, stopped) = watch::channel(false);
        let listening = (Arc::clone(&socket), listener);
        let task = tokio::spawn(accept(Arc::clone(shared), listening, stopped));
        Self { socket, stop, task }
    }

    /// Takes in what guests have sent, tells them that it is over, and waits for that. The file must
    /// still be open.
    pub(super) async fn end(mut self) {
        self.stop.send_replace(true);
        // Nobody is to come any more whom nobody would serve.
        self.socket.remove();
        if timeout(STOP_TIMEOUT, &mut self.task).await.is_err() {
            self.task.abort();
        }
        // If it was just being made.
        self.socket.remove();
    }

    /// Cuts all guests off. The file must still be open.
    pub(super) fn abort(self) {
        self.socket.remove();
        self.task.abort();
    }
}

/// The socket beside the file.
struct Socket {
    address: LocalAddress,
    made: Mutex<Option<Made>>,
}

impl Socket {
    /// Listens, in the place of whoever did before.
    fn listen(&self) -> io::Result<Listener> {
        self.remove();
        let (listener, made) = self.address.listen()?;
        *self.made() = Some(made);
        Ok(listener)
    }

    /// The same; says so if there can be no socket.
    fn listen_or_warn(&self, shared: &Shared) -> Option<Listener> {
        let warn = |error: &io::Error| {
            tracing::warn!(store = %shared.id, %error, "other processes cannot be served");
        };
        self.listen().inspect_err(warn).ok()
    }

    fn remove(&self) {
        if let Some(made) = self.made().take() {
            made.remove();
        }
    }

    fn made(&self) -> MutexGuard<'_, Option<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns when serving has to end.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender the engine is gone altogether.
    let _closed = stop.wait_for(|stop| *stop).await;
}

async fn accept(
    shared: Arc<Shared>,
    (socket, mut listener): (Arc<Socket>, Option<Listener>),
    mut stop: watch::Receiver<bool>,
) {
    let mut guests = JoinSet::new();
    let mut taken_over = shared.taken_over.subscribe();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = guests.join_next() => {}
            // Whoever had the file meanwhile has put a socket in the place of this one's.
            Ok(()) = taken_over.changed() => {
                // Elsewhere there is one of a name at a time.
                drop(listener.take());
                listener = socket.listen_or_warn(&shared);
            }
            accepted = next_guest(listener.as_ref()) => match accepted {
                Some(Ok(stream)) => {
                    let is_full = guests.len() >= GUESTS_MAX;
                    guests.spawn(serve_guest(Arc::clone(&shared), stream, is_full, stop.clone()));
                }
                // For want of file handles, which others may give back.
                Some(Err(_)) => sleep(RECONNECT_DELAY_MIN).await,
                // Who cannot write may have lost the file, and somebody else listens.
                None if shared.status.borrow().storage_error.is_none() => {
                    listener = socket.listen().ok();
                }
                None => {}
            },
        }
    }
    drop(listener);
    while guests.join_next().await.is_some() {}
}

/// The next one at the socket; nothing, after a while, if there is none.
async fn next_guest(listener: Option<&Listener>) -> Option<io::Result<Stream>> {
    match listener {
        Some(listener) => Some(listener.accept().await),
        None => {
            sleep(LISTEN_RETRY).await;
            None
        }
    }
}

async fn serve_guest(
    shared: Arc<Shared>,
    stream: Stream,
    is_full: bool,
    stop: watch::Receiver<bool>,
) {
    let stream = Arc::new(stream);
    let sender = FrameSender::local(Arc::clone(&stream));
    let receiver = FrameReceiver::local(stream, FIRST_FRAME_BYTES_MAX);
    if is_full {
        return sender.refuse(Refusal::new(RefusalCode::Busy, "too many guests")).await;
    }
    serve_stream(shared, Visitor::Guest, None, (sender, receiver), stop).await;
}

/// Serves a stream from its first frame on. Blobs of a peer need `open`: what it may do with the store
/// that it has open on the same connection.
async fn serve_stream(
    shared: Arc<Shared>,
    visitor: Visitor,
    open: Option<Arc<listener::OpenStore>>,
    (sender, mut receiver): (FrameSender, FrameReceiver),
    stop: watch::Receiver<bool>,
) {
    let Ok(first) = timeout(OPEN_TIMEOUT, receiver.next()).await else {
        let message = "the first frame did not come in time";
        return sender.refuse(Refusal::new(RefusalCode::Unexpected, message)).await;
    };
    let unexpected = Refusal::new(RefusalCode::Unexpected, "no stream begins with this frame");
    match first {
        Ok(Some(ClientFrame::OpenSeated { protocol, store, token, version, seats })) => {
            let opening = Opening { protocol, version, seats };
            match visitor.admit(&shared, &store, &token) {
                Ok(access) => {
                    let open = match open.as_ref().map(|open| open.enter(access.as_ref())) {
                        Some(None) => return sender.refuse(OPEN_TOO_OFTEN).await,
                        Some(entered) => entered,
                        None => None,
                    };
                    let admitted = Admitted { visitor, access, open };
                    serve_store(shared, admitted, opening, (sender, receiver), stop).await;
                }
                Err(refusal) => sender.refuse(refusal).await,
            }
        }
        Ok(Some(ClientFrame::PutBlob { store, hash, size })) => {
            let offer = Offer { hash: BlobHash(hash), size, can_resume: false };
            receiver.set_max(BLOB_FRAME_BYTES_MAX);
            take_blob(&VisitorBlobs { shared, open, store }, offer, sender, receiver).await;
        }
        Ok(Some(ClientFrame::OfferBlob { store, hash, size })) => {
            let offer = Offer { hash: BlobHash(hash), size, can_resume: true };
            receiver.set_max(BLOB_FRAME_BYTES_MAX);
            take_blob(&VisitorBlobs { shared, open, store }, offer, sender, receiver).await;
        }
        Ok(Some(ClientFrame::GetBlob { store, hash })) => {
            serve_get(&VisitorBlobs { shared, open, store }, BlobHash(hash), 0, sender).await;
        }
        Ok(Some(ClientFrame::GetBlobFrom { store, hash, offset })) => {
            let door = VisitorBlobs { shared, open, store };
            serve_get(&door, BlobHash(hash), offset, sender).await;
        }
        Ok(Some(_)) => sender.refuse(unexpected).await,
        Err(StreamError::Frame(_)) => {
            let message = "the first frame is not well formed, or too large";
            sender.refuse(Refusal::new(RefusalCode::Malformed, message)).await;
        }
        Ok(None) | Err(_) => {}
    }
}

/// The blobs of the store, as a visitor asks for them.
struct VisitorBlobs {
    shared: Arc<Shared>,
    /// What a peer may do; a guest may do everything.
    open: Option<Arc<listener::OpenStore>>,
    /// The store, as the visitor names it.
    store: String,
}

impl BlobDoor for VisitorBlobs {
    type Room = ();
    type Leave = ();

    fn check(&self, writing: bool) -> Result<(), Refusal> {
        let is_open = self.open.as_ref().is_none_or(|open| open.is_open());
        if !is_open || self.store != self.shared.id.as_str() {
            let message = "the store is not open on this connection";
            return Err(Refusal::new(RefusalCode::Unauthorized, message));
        }
        if writing && !self.open.as_ref().is_none_or(|open| open.may_write()) {
            return Err(Refusal::new(RefusalCode::ReadOnly, "the token is read-only"));
        }
        Ok(())
    }

    async fn open(&self, _: bool) -> Result<Option<Arc<dyn BlobStorage>>, Refusal> {
        // What was edited just now is on its way to the file.
        self.shared.flush().await.map_err(|_| Refusal::STORAGE_FAILED)?;
        Ok(Some(Arc::clone(&self.shared.blobs)))
    }

    async fn admit(&self, _: Offer) -> Result<(), Refusal> {
        Ok(())
    }

    fn gather(&self) -> Option<()> {
        Some(())
    }
}

async fn take_blob(
    door: &VisitorBlobs,
    offer: Offer,
    sender: FrameSender,
    receiver: FrameReceiver,
) {
    if door.open.is_none() {
        // A guest is about to refer to it: it must not go meanwhile with somebody else's last reference.
        door.shared.blobs.pin(&offer.hash);
    }
    if serve_put(door, offer, sender, receiver).await {
        // After a panic the store is closed.
        let _noted = door.shared.blob_brought(&offer.hash, offer.size);
    }
}
