//! Serving peers over QUIC, as a relay serves its clients: so two devices on one network need no relay.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::{Connection, Endpoint, VarInt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::shared::Shared;
use super::{Visitor, serve_stream, stopped};
use crate::access::{Access, Gate, Secret};
use crate::certificate::{CertificateError, CertificateSource, LiveIdentity};
use crate::limits::{
    CONNECTION_WINDOW_BYTES, FIRST_FRAME_BYTES_MAX, IDLE_CONNECTION_TIMEOUT, PEER_SESSIONS_MAX,
    PEERS_MAX, STOP_TIMEOUT, STREAMS_MAX, UNPROVED_PEERS_MAX,
};
use crate::transport::{
    Admission, CertificateHash, FrameReceiver, FrameSender, RelayUrl, TransportError, UrlError,
    serve_connections, server_endpoint,
};

/// Where peers may connect, and which.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Where to listen; port 0 is any that is free.
    pub listen: SocketAddr,
    /// What the tokens of peers are signed with ([`mint`](crate::access::mint)).
    pub secret: Secret,
    /// The certificate.
    pub certificate: CertificateSource,
    /// Where a self-signed certificate is kept, so that its hash stays the same.
    pub folder: PathBuf,
}

/// Why nobody can connect.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// There is no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The address is taken, or the certificate does not fit its key.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: TransportError,
    },
    /// The engine has ended.
    #[error("the sync engine has stopped")]
    Stopped,
}

impl ListenError {
    /// The stable name of the reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "no-certificate",
            Self::Listen { .. } => "cannot-listen",
            Self::Stopped => "stopped",
        }
    }
}

/// An engine that takes connections of peers, until this is stopped or dropped.
pub struct Listening {
    endpoint: Endpoint,
    local_addr: SocketAddr,
    certificate_hash: CertificateHash,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Listening {
    pub(in crate::sync_engine) async fn begin(
        shared: Arc<Shared>,
        options: ListenOptions,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, ListenError> {
        let ListenOptions { listen, secret, certificate, folder } = options;
        let load = move || LiveIdentity::load(&certificate, &folder);
        let loaded = tokio::task::spawn_blocking(load).await;
        let identity = loaded.map_err(|_| ListenError::Stopped)??;
        let certificate_hash = identity.hash();
        let refused = |source| ListenError::Listen { listen, source };
        let endpoint = server_endpoint(listen, Arc::new(identity), STREAMS_MAX).map_err(refused)?;
        let no_address = |error| refused(TransportError::Socket(Arc::new(error)));
        let local_addr = endpoint.local_addr().map_err(no_address)?;
        let (own_stop, stopped) = watch::channel(false);
        let gate = Arc::new(Gate::new(secret, None));
        let accepting =
            accept(shared, gate, endpoint.clone(), Stops { engine: stop, own: stopped });
        let task = tokio::spawn(accepting);
        Ok(Self { endpoint, local_addr, certificate_hash, stop: own_stop, task })
    }

    /// Where the engine listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The hash of its certificate, for peers to pin.
    #[must_use]
    pub const fn certificate_hash(&self) -> CertificateHash {
        self.certificate_hash
    }

    /// The URL with the pinned certificate, for peers who reach this machine as `host`; without, for
    /// those that reach the address itself, or of the same machine if that is all addresses.
    ///
    /// # Errors
    /// If `host` is none.
    pub fn url(&self, host: Option<&str>) -> Result<RelayUrl, UrlError> {
        RelayUrl::of_listener(self.local_addr, host, self.certificate_hash)
    }

    /// Tells all peers that it is over, and waits until what they have sent is on disk.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // A task that panicked has ended too.
        let _ended = (&mut self.task).await;
        self.endpoint.close(VarInt::from_u32(0), b"shutting down");
        let _idle = timeout(STOP_TIMEOUT, self.endpoint.wait_idle()).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// What a connection has open, and may do.
pub(super) struct OpenStore {
    connection: Connection,
    readers: AtomicUsize,
    writers: AtomicUsize,
    idle_since: Mutex<Instant>,
}

/// An open store, until this is dropped.
pub(super) struct Entered {
    open: Arc<OpenStore>,
    may_write: bool,
}

impl OpenStore {
    fn new(connection: Connection) -> Self {
        let (readers, writers) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { connection, readers, writers, idle_since: Mutex::new(Instant::now()) }
    }

    /// Notes that the store is open, until the answer is dropped; nothing if it is open too often. From now on
    /// the peer may send faster.
    pub(super) fn enter(self: &Arc<Self>, access: Option<&Access>) -> Option<Entered> {
        let more = |readers| (readers < PEER_SESSIONS_MAX).then_some(readers + 1);
        self.readers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        let may_write = access.is_some_and(Access::may_write);
        self.writers.fetch_add(usize::from(may_write), Ordering::Relaxed);
        self.connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
        Some(Entered { open: Arc::clone(self), may_write })
    }

    pub(super) fn is_open(&self) -> bool {
        self.readers.load(Ordering::Relaxed) > 0
    }

    pub(super) fn may_write(&self) -> bool {
        self.writers.load(Ordering::Relaxed) > 0
    }

    /// When the connection will have been without an open store for too long.
    fn idle_deadline(&self) -> Instant {
        let since = if self.is_open() { Instant::now() } else { *self.idle_since() };
        since + IDLE_CONNECTION_TIMEOUT
    }

    fn idle_since(&self) -> MutexGuard<'_, Instant> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entered {
    /// Notes what the peer may do from now on.
    pub(super) fn set_may_write(&mut self, may_write: bool) {
        self.open.writers.fetch_add(usize::from(may_write), Ordering::Relaxed);
        self.open.writers.fetch_sub(usize::from(self.may_write), Ordering::Relaxed);
        self.may_write = may_write;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        *self.open.idle_since() = Instant::now();
        self.open.writers.fetch_sub(usize::from(self.may_write), Ordering::Relaxed);
        self.open.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The two who can end it.
#[derive(Clone)]
struct Stops {
    engine: watch::Receiver<bool>,
    own: watch::Receiver<bool>,
}

impl Stops {
    async fn stopped(&mut self) {
        tokio::select! {
            () = stopped(&mut self.engine) => {}
            () = stopped(&mut self.own) => {}
        }
    }
}

async fn accept(shared: Arc<Shared>, gate: Arc<Gate>, endpoint: Endpoint, mut stops: Stops) {
    let (stop, stopping) = watch::channel(false);
    let admission = Admission { connections_max: PEERS_MAX, unproved_max: UNPROVED_PEERS_MAX };
    let stopped = async {
        stops.stopped().await;
        stop.send_replace(true);
    };
    serve_connections(endpoint, &admission, stopped, |connection| {
        serve(Arc::clone(&shared), Arc::clone(&gate), connection, stopping.clone())
    })
    .await;
}

/// Serves a connection until the peer leaves, opens nothing, or this side stops.
async fn serve(
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    connection: Connection,
    mut stop: watch::Receiver<bool>,
) {
    let open = Arc::new(OpenStore::new(connection.clone()));
    let mut streams = JoinSet::new();
    loop {
        let idle_deadline = open.idle_deadline();
        if idle_deadline <= Instant::now() {
            connection.close(VarInt::from_u32(0), b"idle");
            return;
        }
        tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = connection.accept_bi() => {
                let Ok((send, receive)) = accepted else { break };
                let halves = (
                    FrameSender::new(send),
                    FrameReceiver::new(receive, FIRST_FRAME_BYTES_MAX),
                );
                let (shared, visitor) = (Arc::clone(&shared), Visitor::Peer(Arc::clone(&gate)));
                let open = Some(Arc::clone(&open));
                streams.spawn(serve_stream(shared, visitor, open, halves, stop.clone()));
            }
            Some(_) = streams.join_next() => {}
            () = sleep_until(idle_deadline) => {}
        }
    }
    // What came before is taken in; those that do not end are cut off.
    let _all_ended =
        timeout(STOP_TIMEOUT, async { while streams.join_next().await.is_some() {} }).await;
    connection.close(VarInt::from_u32(0), b"shutting down");
}
