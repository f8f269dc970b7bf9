//! Connections that the stores of one process share: one handshake, one socket and one keep-alive for all
//! stores at a relay.
//!
//! Invariants:
//! - P1. A connection is closed when the last lease of it ends, and leased to nobody from then on.
//! - P2. A datagram goes to the stream that it names, whichever store that is of.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::mpsc;

use super::{Connection, FrameReceiver, FrameSender, RelayUrl, StreamError, TransportError, Trust};
use crate::limits::{DATAGRAMS_WAITING_MAX, STORES_PER_CONNECTION_MAX};
use crate::message::{RelayFrame, decode_datagram};

/// Connections to relays. Stores that connect through the same pool to the same relay, and trust it for the
/// same reason, share a connection, so many of them as leave room for their streams. Cheap to clone.
///
/// Each store shows a token of its own, so they need not be of one subject. A store whose relay does not answer
/// any more leaves the connection, and so do the others when they notice.
#[derive(Clone, Debug, Default)]
pub struct ConnectionPool(Arc<Mutex<HashMap<Relay, Arc<Made>>>>);

/// What makes a connection the same for two stores.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Relay {
    url: RelayUrl,
    trust: Trust,
}

/// What was made for one relay.
#[derive(Debug, Default)]
struct Made {
    /// Held by who makes another one.
    connections: tokio::sync::Mutex<Vec<Weak<Common>>>,
    /// How many attempts have failed, and how the last one did.
    failures: AtomicU64,
    failure: Mutex<Option<TransportError>>,
}

/// A connection as its stores have it in common.
#[derive(Debug)]
struct Common {
    connection: Connection,
    holders: Mutex<Holders>,
    routes: Arc<Mutex<Routes>>,
    reading: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Holders {
    leases: usize,
    /// Whether nobody is to lease it any more.
    is_over: bool,
}

/// Where the datagrams of each stream go.
type Routes = HashMap<u64, mpsc::Sender<RelayFrame>>;

/// One store's use of a connection. Who only drops it does not wait until the other side knows: better
/// [`end`](Self::end) it.
#[derive(Debug)]
pub(crate) struct Lease {
    common: Arc<Common>,
    has_left: bool,
}

/// What comes in datagrams for one stream, until this is dropped.
#[derive(Debug)]
pub(crate) struct Datagrams {
    stream: u64,
    came: mpsc::Receiver<RelayFrame>,
    routes: Arc<Mutex<Routes>>,
}

impl ConnectionPool {
    /// No connections yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A connection to the relay at `url`, if `trust` accepts it: one that there is, or a new one. Who asks
    /// while one is being made gets that, or hears why it came to nothing.
    pub(crate) async fn lease(
        &self,
        url: &RelayUrl,
        trust: &Trust,
    ) -> Result<Lease, TransportError> {
        let made = self.made(Relay { url: url.clone(), trust: trust.clone() });
        let failures = made.failures.load(Ordering::Acquire);
        let mut connections = made.connections.lock().await;
        if let Some(common) = connections.iter().filter_map(Weak::upgrade).find(|it| it.enter()) {
            return Ok(Lease::new(common));
        }
        if made.failures.load(Ordering::Acquire) != failures
            && let Some(failure) = lock(&made.failure).clone()
        {
            return Err(failure);
        }
        match super::connect(url, trust).await {
            Ok(connection) => {
                let common = Arc::new(Common::new(connection));
                common.enter();
                connections.retain(|it| it.upgrade().is_some_and(|common| !common.is_over()));
                connections.push(Arc::downgrade(&common));
                Ok(Lease::new(common))
            }
            Err(failure) => {
                *lock(&made.failure) = Some(failure.clone());
                made.failures.fetch_add(1, Ordering::Release);
                Err(failure)
            }
        }
    }

    fn made(&self, relay: Relay) -> Arc<Made> {
        let mut relays = lock(&self.0);
        relays.retain(|_, made| Arc::strong_count(made) > 1 || made.is_in_use());
        Arc::clone(relays.entry(relay).or_default())
    }
}

impl Made {
    /// Whether there is a connection, or somebody is making one.
    fn is_in_use(&self) -> bool {
        let connections = self.connections.try_lock();
        connections.map_or(true, |all| all.iter().any(|it| it.strong_count() > 0))
    }
}

impl Common {
    fn new(connection: Connection) -> Self {
        let routes = Arc::<Mutex<Routes>>::default();
        let (source, targets) = (connection.clone(), Arc::clone(&routes));
        let reading = tokio::spawn(async move {
            while let Ok(bytes) = source.read_datagram().await {
                // One that is none of ours, or not well formed, is as good as lost; so is what comes faster
                // than a store takes it in.
                if let Ok((stream, frame)) = decode_datagram(&bytes)
                    && let Some(target) = lock(&targets).get(&stream)
                {
                    let _lost = target.try_send(frame);
                }
            }
        });
        Self { connection, holders: Mutex::default(), routes, reading }
    }

    /// Counts another lease, if there is room for one (P1).
    fn enter(&self) -> bool {
        let mut holders = lock(&self.holders);
        holders.is_over |= self.connection.is_closed();
        let has_room = !holders.is_over && holders.leases < STORES_PER_CONNECTION_MAX;
        holders.leases += usize::from(has_room);
        has_room
    }

    fn is_over(&self) -> bool {
        lock(&self.holders).is_over
    }
}

impl Drop for Common {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Lease {
    const fn new(common: Arc<Common>) -> Self {
        Self { common, has_left: false }
    }

    /// The connection, for further streams.
    pub(crate) fn connection(&self) -> &Connection {
        &self.common.connection
    }

    /// Opens a stream of frames, to which datagrams belong.
    pub(crate) async fn open_stream(
        &self,
    ) -> Result<(FrameSender, FrameReceiver, Datagrams), StreamError> {
        let (sender, receiver) = self.common.connection.open_stream().await?;
        let (target, came) = mpsc::channel(DATAGRAMS_WAITING_MAX);
        let (stream, routes) = (sender.id(), Arc::clone(&self.common.routes));
        lock(&routes).insert(stream, target);
        Ok((sender, receiver, Datagrams { stream, came, routes }))
    }

    /// Lets no other store have the connection any more, which has failed this one.
    pub(crate) fn give_up(&self) {
        lock(&self.common.holders).is_over = true;
    }

    /// Ends it. If it was the last, closes the connection and waits until the other side knows, or a few
    /// seconds.
    pub(crate) async fn end(mut self) {
        if self.leave() {
            self.connection().clone().close().await;
        }
    }

    /// Takes the lease back, once; whether it was the last, and the connection is to be closed (P1).
    fn leave(&mut self) -> bool {
        if std::mem::replace(&mut self.has_left, true) {
            return false;
        }
        let mut holders = lock(&self.common.holders);
        holders.leases -= 1;
        holders.is_over |= holders.leases == 0;
        holders.leases == 0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.leave() {
            self.connection().close_at_once();
        }
    }
}

impl Datagrams {
    /// The next one; waits for good when the connection is gone, which its streams tell. May be dropped while
    /// it waits; nothing that arrived is lost.
    pub(crate) async fn next(&mut self) -> RelayFrame {
        match self.came.recv().await {
            Some(frame) => frame,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        lock(&self.routes).remove(&self.stream);
    }
}

/// No code under these locks can leave anything half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::join;

    use super::*;
    use crate::access::Secret;
    use crate::certificate::CertificateSource;
    use crate::local_store::LocalStore;
    use crate::store_id::StoreId;
    use crate::sync_engine::{ListenOptions, Listening, SyncEngine};

    /// Something to connect to.
    async fn listen(folder: &TempDir) -> (SyncEngine, Listening, RelayUrl) {
        let local = LocalStore::open_or_create(folder.path(), &StoreId::new("s").unwrap());
        let engine = SyncEngine::start(local.unwrap());
        let options = ListenOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            secret: Secret::new("a secret of thirty-two characters").unwrap(),
            certificate: CertificateSource::SelfSigned,
            folder: folder.path().to_owned(),
        };
        let listening = engine.listen(options).await.unwrap();
        let url = listening.url(None).unwrap();
        (engine, listening, url)
    }

    /// Goal: a connection is one for all that ask for it, at once too, up to so many; it is closed with the last
    /// of them, and goes to nobody any more whom it has failed.
    #[tokio::test]
    async fn a_connection_is_shared_until_it_fails_somebody_or_nobody_has_it() {
        let folder = TempDir::new().unwrap();
        let (_engine, _listening, url) = listen(&folder).await;
        let (pool, trust) = (ConnectionPool::new(), Trust::of(&url));
        let lease = || async { pool.lease(&url, &trust).await.unwrap() };
        let (first, second) = join!(lease(), lease());
        assert!(Arc::ptr_eq(&first.common, &second.common));
        first.give_up();
        let third = lease().await;
        assert!(!Arc::ptr_eq(&first.common, &third.common));
        let failed = first.connection().clone();
        first.end().await;
        assert!(!failed.is_closed(), "somebody has it still");
        drop(second);
        assert!(failed.is_closed());
        let mut leases = vec![third];
        while leases.len() < STORES_PER_CONNECTION_MAX {
            leases.push(lease().await);
            assert!(Arc::ptr_eq(&leases[0].common, &leases.last().unwrap().common));
        }
        let another = lease().await;
        assert!(!Arc::ptr_eq(&leases[0].common, &another.common), "it is full");
        let last = leases.pop().unwrap();
        for lease in leases {
            lease.end().await;
        }
        assert!(Arc::ptr_eq(&lease().await.common, &last.common), "there is room again");
    }

    /// Goal: stores that want the same relay at once do not wait for one vain attempt after the other.
    #[tokio::test]
    async fn who_waits_for_an_attempt_hears_why_it_failed() {
        let pool = ConnectionPool::new();
        let url = RelayUrl::new("nowhere.invalid", 1, None).unwrap();
        let made = pool.made(Relay { url: url.clone(), trust: Trust::SystemRoots });
        let lease = || pool.lease(&url, &Trust::SystemRoots);
        let (first, second, third) = join!(lease(), lease(), lease());
        for failed in [first, second, third] {
            assert!(failed.is_err());
        }
        assert_eq!(made.failures.load(Ordering::Acquire), 1);
        assert!(lease().await.is_err());
        assert_eq!(made.failures.load(Ordering::Acquire), 2, "who comes later tries again");
    }
}
