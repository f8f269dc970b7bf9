//! A relay as a value: start it, ask where it is, stop it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use quinn::{Endpoint, VarInt};
use sds_sync::access::Gate;
use sds_sync::limits::STOP_TIMEOUT;
use sds_sync::transport::{serve_connections, server_endpoint};
use sds_sync::{CertificateHash, RelayUrl, StorageError, StoreId, TransportError};
use tokio::sync::watch;
use tokio::time::{Instant, interval, timeout, timeout_at};

mod shared;
mod start;

pub(crate) use shared::{DELETED, Node, stopped};
pub(crate) use start::{LOG_FILE, create_private};
pub use start::{RelayConfig, StartError};

use crate::admin::{AdminListener, AdminState};
use crate::audit::{Audit, Deed};
use crate::chores::Chores;
use crate::connection::serve;
use crate::doorkeeper::Door;
use crate::fair_turns::FairTurns;
use crate::health::DiskProbe;
use crate::limits::{CHECKS_MAX, Limit, OPENINGS_MAX};
use crate::log_writer::LogWriter;
use crate::metrics::Metrics;
use crate::rooms::Rooms;
use crate::serve_blob::BlobTurns;
use crate::store_log::StoreLog;
use crate::told::Told;
use start::{Opened, open};

/// How often the files of the certificate are looked at.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(10);

/// How long the disk may take for what is still to be written when the relay stops.
const LAST_WRITES_TIME: Duration = Duration::from_secs(10);

/// How a relay came to its end. Whatever it has acknowledged is on the disk either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All that it was sent is written, and the file is closed.
    InGoodOrder,
    /// The disk did not answer any more, and was not waited for.
    DiskHangs,
}

/// A running relay. It ends with [`stop`](Self::stop); dropping it cuts all clients off.
pub struct Relay {
    endpoint: Endpoint,
    local_addr: SocketAddr,
    url: RelayUrl,
    stop: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
    refreshing: tokio::task::JoinHandle<()>,
    pub(crate) node: Arc<Node>,
    writing: Option<JoinHandle<()>>,
    admin: Option<AdminListener>,
    pub(crate) audit: Arc<Audit>,
}

impl Relay {
    /// Starts a relay. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the folder, the file, the certificate or the address cannot be used.
    pub async fn start(config: RelayConfig) -> Result<Self, StartError> {
        let (limits, admin) = (config.limits.clone(), config.admin);
        let (keys, issuer) = (config.keys.clone(), config.issuer.clone());
        let (folder, drain) = (config.data_dir.clone(), config.drain);
        let (listen, gate) = (config.listen, Gate::new(config.keys.clone(), config.issuer.clone()));
        let metrics = Arc::new(Metrics::default());
        let counted = Arc::clone(&metrics);
        let opened = tokio::task::spawn_blocking(move || open(&config, counted)).await;
        let Opened { log, identity, revocations, audit } =
            opened.map_err(|_| StartError::Ending)??;
        let refused = |source| StartError::Listen { listen, source };
        let identity = Arc::new(identity);
        let endpoint = server_endpoint(listen, Arc::clone(&identity), limits.stranger_streams)
            .map_err(refused)?;
        let no_address = |error| refused(TransportError::Socket(Arc::new(error)));
        let local_addr = endpoint.local_addr().map_err(no_address)?;
        let url = RelayUrl::of_listener(local_addr, None, identity.hash())
            .map_err(|_| StartError::Ending)?;
        let (log, rooms) = (Arc::new(log), Arc::new(Rooms::default()));
        let (writer, writing) = LogWriter::spawn(
            Arc::clone(&log),
            Arc::clone(&rooms),
            Arc::clone(&metrics),
            limits.store_quota(),
        );
        let door = Arc::new(Door::new(limits.clone(), Arc::clone(&metrics)));
        let subjects = Arc::default();
        let node = Arc::new(Node {
            draining: watch::Sender::new(false),
            drain,
            identity,
            door,
            subjects,
            limits,
            gate,
            rooms,
            writer,
            log,
            metrics,
            sessions: Arc::default(),
            revocations,
            disk: DiskProbe::default(),
            blob_turns: BlobTurns::default(),
            openings: FairTurns::new(OPENINGS_MAX),
            checks: FairTurns::new(CHECKS_MAX),
            chores: Chores::start(),
            told: Told::default(),
            folder,
        });
        let state = AdminState::new(Arc::clone(&node), Arc::clone(&audit), keys, issuer);
        let admin = listen_for_admins(admin, state).await?;
        let written = audit.record(Deed::new("start")).await;
        written.map_err(|failed| StartError::Audit(io::Error::other(failed)))?;
        let (stop, stopped) = watch::channel(false);
        let accepting = tokio::spawn(accept(Arc::clone(&node), endpoint.clone(), stopped));
        let refreshing = tokio::spawn(refresh_certificates(Arc::clone(&node)));
        let writing = Some(writing);
        Ok(Self {
            endpoint,
            local_addr,
            url,
            stop,
            accepting,
            refreshing,
            node,
            writing,
            admin,
            audit,
        })
    }

    /// Where the relay listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where the admin listener is, if there is one.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(AdminListener::local_addr)
    }

    /// The hash of the certificate that it shows at present, for clients to pin.
    #[must_use]
    pub fn certificate_hash(&self) -> CertificateHash {
        self.node.identity.hash()
    }

    /// Looks whether there is another certificate in the files; so does the relay itself every few
    /// seconds. One that is no good is logged and counted, and the former one stays.
    pub async fn refresh_certificate(&self) {
        self.node.refresh_certificate().await;
    }

    /// Whether it can still do what it is there for. If not, only starting it anew helps.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.node.check_alive().is_ok()
    }

    /// Waits until somebody who may asks the relay to stop.
    pub async fn asked_to_stop(&self) {
        stopped(&mut self.node.draining.subscribe()).await;
    }

    /// The URL with the pinned certificate. If the relay listens on all addresses, the URL is for
    /// clients of the same machine.
    #[must_use]
    pub fn url(&self) -> RelayUrl {
        self.url.clone()
    }

    /// How often somebody met a limit since the start.
    #[must_use]
    pub fn limit_hits(&self, limit: Limit) -> u64 {
        self.node.metrics.limit_hits(limit)
    }

    /// What the relay has counted, as text in the OpenMetrics form.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.node.measure()
    }

    /// What the relay keeps: to list stores, make backups, or take a deletion back. It waits for
    /// the disk, so a task calls it off the threads that must not wait.
    #[must_use]
    pub fn log(&self) -> &Arc<StoreLog> {
        &self.node.log
    }

    /// Deletes a store for everybody: ends the sessions on it, and lets nobody open it until the
    /// deletion is taken back ([`StoreLog::undelete`]). Says false if there is no such store. Waits
    /// for the disk.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn delete_store(&self, store: &StoreId) -> Result<bool, StorageError> {
        self.node.delete_store(store)
    }

    /// Takes no new clients, tells all others that it stops, writes what they have sent, and closes
    /// the file. Takes as long as clients may take to leave, and a few seconds; if the disk hangs,
    /// ten more. Threads that wait for it are left behind then, which end with the program.
    pub async fn stop(mut self) -> Ending {
        self.node.ask_to_stop();
        self.stop.send_replace(true);
        // A task that panicked has ended too.
        let _ended = (&mut self.accepting).await;
        self.endpoint.close(VarInt::from_u32(0), b"shutting down");
        let _idle = timeout(STOP_TIMEOUT, self.endpoint.wait_idle()).await;
        self.node.writer.stop();
        let deadline = Instant::now() + LAST_WRITES_TIME;
        let mut is_written = true;
        if let Some(writing) = self.writing.take() {
            let joined = tokio::task::spawn_blocking(move || writing.join());
            is_written = timeout_at(deadline, joined).await.is_ok();
        }
        // What was said of the relay's health up to now was true; nobody is served any further.
        if let Some(admin) = self.admin.take() {
            let _in_time = timeout(STOP_TIMEOUT, admin.stop()).await;
        }
        match timeout_at(deadline, self.audit.record(Deed::new("stop"))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the stop is not in the audit log"),
            Err(_) => is_written = false,
        }
        // Whoever drops the file last waits for the disk.
        let closed = tokio::task::spawn_blocking(move || {
            self.audit.close();
            drop(self);
        });
        if is_written && timeout_at(deadline, closed).await.is_ok() {
            Ending::InGoodOrder
        } else {
            tracing::error!(
                "the disk hangs and is not waited for; all that was acknowledged is on it"
            );
            Ending::DiskHangs
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.refreshing.abort();
        self.node.writer.stop();
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// The admin listener, if one is wanted.
async fn listen_for_admins(
    listen: Option<SocketAddr>,
    state: AdminState,
) -> Result<Option<AdminListener>, StartError> {
    let Some(listen) = listen else { return Ok(None) };
    let refused = |source| StartError::Admin { listen, source };
    AdminListener::start(listen, state).await.map(Some).map_err(refused)
}

async fn refresh_certificates(node: Arc<Node>) {
    let mut clock = interval(CERTIFICATE_INTERVAL);
    loop {
        clock.tick().await;
        node.refresh_certificate().await;
    }
}

async fn accept(node: Arc<Node>, endpoint: Endpoint, mut stop: watch::Receiver<bool>) {
    let streams_stop = stop.clone();
    serve_connections(endpoint, &*node.door, stopped(&mut stop), |connection| {
        serve(Arc::clone(&node), connection, streams_stop.clone())
    })
    .await;
}

#[cfg(test)]
mod tests;
