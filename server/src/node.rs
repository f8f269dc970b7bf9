//! A relay as a value: start it, ask where it is, stop it.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use quinn::{Endpoint, VarInt};
use sds_sync::limits::STOP_TIMEOUT;
use sds_sync::transport::{serve_connections, server_endpoint};
use sds_sync::{
    CertificateHash, FrameError, Refusal, RefusalCode, RelayUrl, StorageError, StoreId,
    TransportError,
};
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use crate::admin::{AdminListener, AdminState};
use crate::audit::{Audit, Deed};
use crate::connection::serve;
use crate::doorkeeper::Door;
use crate::health::DiskProbe;
use crate::limits::{Limit, Limits};
use crate::log_writer::LogWriter;
use crate::metrics::Metrics;
use crate::pace::Subjects;
use crate::revocations::Revocations;
use crate::rooms::Rooms;
use crate::sessions::Sessions;
use crate::store_log::StoreLog;
use sds_sync::access::{Gate, Keyring};
use sds_sync::certificate::{CertificateError, CertificateSource, LiveIdentity};

/// How often the files of the certificate are looked at.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(10);

/// The name of the relay's file in its folder.
pub(crate) const LOG_FILE: &str = "relay.redb";

/// What a relay needs to know.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// What tokens are signed with: the first of them signs, and any of them may have.
    pub keys: Keyring,
    /// Who must have given them, if anybody in particular.
    pub issuer: Option<String>,
    /// Where to listen; port 0 is any that is free.
    pub listen: SocketAddr,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The certificate.
    pub certificate: CertificateSource,
    /// What clients may do.
    pub limits: Limits,
    /// Where those who run the relay can reach it, if anywhere.
    pub admin: Option<SocketAddr>,
    /// How long clients may take to leave when the relay stops.
    pub drain: Duration,
}

impl RelayConfig {
    /// Any free port of this machine alone, with a self-signed certificate.
    #[must_use]
    pub fn new(keys: impl Into<Keyring>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            keys: keys.into(),
            issuer: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_dir: data_dir.into(),
            certificate: CertificateSource::SelfSigned,
            limits: Limits::default(),
            admin: None,
            drain: STOP_TIMEOUT,
        }
    }
}

/// Why a relay does not start. The operator can help.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder cannot be made.
    #[error("cannot use the data folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Nobody could say which tokens were revoked.
    #[error("cannot read the revocations: {0}")]
    Revocations(#[source] io::Error),
    /// What is done to the relay could not be written down.
    #[error("cannot write the audit log: {0}")]
    Audit(#[source] io::Error),
    /// The admin listener's address is taken.
    #[error("cannot listen for admins on {listen}: {source}")]
    Admin {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
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
    /// The runtime is about to end.
    #[error("the program is about to end")]
    Ending,
}

/// What all connections share.
pub(crate) struct Node {
    /// Whether the relay is to stop, or stops already.
    draining: watch::Sender<bool>,
    /// How long clients may take to leave then.
    pub(crate) drain: Duration,
    identity: Arc<LiveIdentity>,
    pub(crate) door: Arc<Door>,
    pub(crate) subjects: Arc<Subjects>,
    pub(crate) limits: Limits,
    pub(crate) gate: Gate,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) writer: LogWriter,
    pub(crate) log: Arc<StoreLog>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) revocations: Revocations,
    disk: DiskProbe,
    /// Where everything is kept.
    pub(crate) folder: PathBuf,
}

/// Why a session ends whose store was deleted.
pub(crate) const DELETED: Refusal = Refusal::new(RefusalCode::Forbidden, "the store was deleted");

impl Node {
    /// Asks whoever runs the relay to stop it.
    pub(crate) fn ask_to_stop(&self) {
        self.draining.send_replace(true);
    }

    /// Whether the relay is about to stop, and takes no new clients.
    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Whether clients can be sent here.
    ///
    /// # Errors
    /// Why they cannot.
    pub(crate) async fn check_ready(&self) -> Result<(), &'static str> {
        let log = Arc::clone(&self.log);
        if self.is_draining() {
            Err("draining")
        } else if self.disk.is_good(move || log.write(|_| Ok(())).is_ok()).await {
            Ok(())
        } else {
            Err("the relay's file cannot be written")
        }
    }

    /// Looks whether there is another certificate, which new connections are shown then.
    async fn refresh_certificate(&self) {
        let identity = Arc::clone(&self.identity);
        match tokio::task::spawn_blocking(move || identity.refresh()).await {
            Ok(Ok(true)) => {
                self.metrics.certificate_reloaded(true);
                tracing::info!(hash = %self.identity.hash(), "another certificate");
            }
            Ok(Err(error)) => {
                self.metrics.certificate_reloaded(false);
                tracing::error!(%error, "the new certificate is no good; the former one stays");
            }
            // There is none, or the program is about to end.
            Ok(Ok(false)) | Err(_) => {}
        }
    }

    /// Deletes a store and ends the sessions on it; what it had is removed afterwards. Says false if
    /// there is no such store. Waits for the disk.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn delete_store(&self, store: &StoreId) -> Result<bool, StorageError> {
        let is_deleted = self.log.delete(store, SystemTime::now())?;
        if is_deleted {
            // Whoever is in the former room was listed before, and so is told.
            self.rooms.forget(store);
            self.sessions.end(DELETED, |open, _| open == store);
            self.writer.sweep();
        }
        Ok(is_deleted)
    }

    /// Looks up what is not counted, and tells everything as text.
    pub(crate) fn measure(&self) -> String {
        let gauge = |value| i64::try_from(value).unwrap_or(i64::MAX);
        self.sessions.tally(&self.metrics);
        if let Ok(file) = fs::metadata(self.folder.join(LOG_FILE)) {
            self.metrics.disk_bytes.set(gauge(file.len()));
        }
        self.metrics.lag_max.set(gauge(self.sessions.lag_max(&self.rooms)));
        self.metrics.stores_open.set(gauge(self.rooms.len() as u64));
        self.metrics.encode()
    }

    /// Reads from the file, off the threads that must not wait. `None` if that fails.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&StoreLog) -> Result<T, StorageError> + Send + 'static,
    ) -> Option<T> {
        let log = Arc::clone(&self.log);
        match tokio::task::spawn_blocking(move || look(&log)).await {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                self.metrics.storage_failures.inc();
                tracing::error!(code = error.code(), %error, "cannot read");
                None
            }
            Err(_) => None,
        }
    }

    /// Counts a frame that is none, if it is one that is too large.
    pub(crate) fn note_malformed(&self, error: &FrameError) {
        if matches!(error, FrameError::TooLarge { .. }) {
            self.metrics.limit_hit(Limit::FrameBytes);
        }
    }
}

/// A running relay. It ends with [`stop`](Self::stop); dropping it cuts all clients off.
pub struct Relay {
    endpoint: Endpoint,
    local_addr: SocketAddr,
    url: RelayUrl,
    stop: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
    refreshing: tokio::task::JoinHandle<()>,
    node: Arc<Node>,
    writing: Option<JoinHandle<()>>,
    admin: Option<AdminListener>,
    audit: Arc<Audit>,
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
        let opened = tokio::task::spawn_blocking(move || open(&config)).await;
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
        let metrics = Arc::new(Metrics::default());
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

    /// What the relay keeps: to list stores, make backups, or take a deletion back. It waits for the
    /// disk, so a task calls it off the threads that must not wait.
    #[must_use]
    pub fn log(&self) -> &Arc<StoreLog> {
        &self.node.log
    }

    /// Deletes a store for everybody: ends the sessions on it, and lets nobody open it until the
    /// deletion is taken back ([`StoreLog::undelete`]). Says false if there is no such store. Waits for
    /// the disk.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn delete_store(&self, store: &StoreId) -> Result<bool, StorageError> {
        self.node.delete_store(store)
    }

    /// Takes no new clients, tells all others that it stops, writes what they have sent, and closes the
    /// file. Takes as long as clients may take to leave, and a few seconds.
    pub async fn stop(mut self) {
        self.node.ask_to_stop();
        self.stop.send_replace(true);
        // A task that panicked has ended too.
        let _ended = (&mut self.accepting).await;
        self.endpoint.close(VarInt::from_u32(0), b"shutting down");
        let _idle = timeout(STOP_TIMEOUT, self.endpoint.wait_idle()).await;
        self.node.writer.stop();
        if let Some(writing) = self.writing.take() {
            let _joined = tokio::task::spawn_blocking(move || writing.join()).await;
        }
        // What was said of the relay's health up to now was true; nobody is served any further.
        drop(self.admin.take());
        if let Err(error) = self.audit.record(Deed::new("stop")).await {
            tracing::error!(%error, "the stop is not in the audit log");
        }
        let audit = Arc::clone(&self.audit);
        let _closed = tokio::task::spawn_blocking(move || audit.close()).await;
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

/// What the relay's folder holds.
struct Opened {
    log: StoreLog,
    identity: LiveIdentity,
    revocations: Revocations,
    audit: Arc<Audit>,
}

fn open(config: &RelayConfig) -> Result<Opened, StartError> {
    let folder = &config.data_dir;
    create_private(folder).map_err(|source| StartError::Folder { path: folder.clone(), source })?;
    let log = StoreLog::open(&folder.join(LOG_FILE))?;
    // With the file open no second relay can make another certificate at the same time.
    let identity = LiveIdentity::load(&config.certificate, folder)?;
    let revocations =
        Revocations::open(folder, SystemTime::now()).map_err(StartError::Revocations)?;
    let audit = Arc::new(Audit::open(folder).map_err(StartError::Audit)?);
    Ok(Opened { log, identity, revocations, audit })
}

/// Makes the folder, if it is not there, for its owner alone: everybody's stores are in it.
pub(crate) fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

async fn refresh_certificates(node: Arc<Node>) {
    let mut clock = interval(CERTIFICATE_INTERVAL);
    loop {
        clock.tick().await;
        node.refresh_certificate().await;
    }
}

/// Returns when the relay has to stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender the relay is gone altogether.
    let _closed = stop.wait_for(|stop| *stop).await;
}

async fn accept(node: Arc<Node>, endpoint: Endpoint, mut stop: watch::Receiver<bool>) {
    let streams_stop = stop.clone();
    serve_connections(endpoint, &*node.door, stopped(&mut stop), |connection| {
        serve(Arc::clone(&node), connection, streams_stop.clone())
    })
    .await;
}
