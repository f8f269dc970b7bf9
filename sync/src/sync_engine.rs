//! A store that is kept on disk and equal with a relay, for programs that go on running.
//!
//! Rules that hold whatever is killed when:
//! - What was edited is on disk before it is sent.
//! - What was received is on disk before it counts as synced.
//! - A patch that cannot be taken in ends the connection and leaves the store untouched.
//! - What others bring, guests of the file and peers, is on disk before they are told that it is.
//!
//! Not here: the protocol (`session`), the file (`persistence`), and more than one process at one
//! file.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use sds_engine::{BlobHash, BlobRef};
use sds_store::DataStore;
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

use crate::blob_storage::{BlobError, BlobReader, write_blob};
use crate::local_socket::LocalAddress;
use crate::local_store::LocalStore;
use crate::message::{RefusalCode, Token};
use crate::persistence::StorageError;
use crate::presence::{PeerId, PeerPresence, PresenceEvent, PresenceState, PresenceTooLarge};
use crate::synced_store::SyncedStore;
use crate::transport::{ConnectionPool, RelayUrl, Trust};

mod blobs;
mod credentials;
mod driver;
mod following;
#[cfg(test)]
mod gated;
mod hosting;
mod presence;
mod shared;
mod signals;
mod status;
mod trash_timer;
mod writer;

use credentials::Credentials;
pub use credentials::TokenSource;
use following::Following;
use hosting::Hosting;
pub use hosting::{ListenError, ListenOptions, Listening};
pub use presence::PresenceSubscription;
use shared::Shared;
pub use signals::{Signal, SignalError};
pub use status::{BlobFetch, ConnectionState, SyncStatus};
use trash_timer::TrashTimer;
use writer::Writer;

/// Where to connect, as whom, and whom to trust.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// The relay.
    pub url: RelayUrl,
    /// Proof that the store may be opened.
    pub token: Token,
    /// Whom to believe to be the relay.
    pub trust: Trust,
    /// Where newer tokens come from. Without it the connection ends with the token.
    pub tokens: Option<TokenSource>,
    /// Where the connection comes from. Stores that have the same pool share their connections.
    pub pool: ConnectionPool,
}

impl ConnectOptions {
    /// Trusts the URL's pin if it has one, else the roots of the operating system. The connection is shared
    /// with nobody.
    #[must_use]
    pub fn new(url: RelayUrl, token: Token) -> Self {
        let trust = Trust::of(&url);
        Self { url, token, trust, tokens: None, pool: ConnectionPool::new() }
    }

    /// Shares connections with all stores that are given the same pool.
    ///
    /// ```
    /// use sds_sync::{ConnectOptions, ConnectionPool, RelayUrl, Token, UrlError};
    ///
    /// # fn main() -> Result<(), UrlError> {
    /// let url: RelayUrl = "quic://relay.example:3000".parse()?;
    /// let pool = ConnectionPool::new();
    /// // One for each `SyncEngine::connect`.
    /// let options = ["the token for one store", "the token for another"].map(|token| {
    ///     ConnectOptions::new(url.clone(), Token::from(token.to_owned())).with_pool(&pool)
    /// });
    /// # drop(options);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_pool(self, pool: &ConnectionPool) -> Self {
        Self { pool: pool.clone(), ..self }
    }

    /// Gets newer tokens from `tokens`.
    #[must_use]
    pub fn with_tokens(self, tokens: TokenSource) -> Self {
        Self { tokens: Some(tokens), ..self }
    }
}

/// Why something did not come about. The store is as it was.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum SyncError {
    /// The disk fails.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The disk is so far behind that no further edit is taken.
    #[error("the disk cannot keep up: wait until what was edited is written")]
    DiskTooSlow,
    /// The relay refuses.
    #[error("the relay refuses ({code}): {message}")]
    Refused {
        /// Why.
        code: RefusalCode,
        /// Why, for a person.
        message: String,
    },
    /// There are local changes, and the token does not allow to send any.
    #[error("the token is read-only: local changes cannot be sent")]
    ReadOnly,
    /// The file was restored or copied, and another process has it open: only that one can make again what it
    /// has and the relay lacks.
    #[error(
        "this file was restored or copied: the process that has it open has to connect to the relay first"
    )]
    OwnerFirst,
    /// It took too long.
    #[error("not synced in time{}", hint(.last_error))]
    TimedOut {
        /// The code of the last failure of the connection, if there was one.
        last_error: Option<&'static str>,
    },
    /// No connection is wanted.
    #[error("not connected to a relay: connect first")]
    NotConnected,
    /// The engine has ended.
    #[error("the sync engine has stopped")]
    Stopped,
}

impl SyncError {
    /// The stable name of the reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::DiskTooSlow => "disk-too-slow",
            Self::Refused { code, .. } => code.code(),
            Self::ReadOnly => "read-only",
            Self::OwnerFirst => "owner-first",
            Self::TimedOut { .. } => "sync-timed-out",
            Self::NotConnected => "not-connected",
            Self::Stopped => "stopped",
        }
    }
}

/// A store that is kept on disk, and with a relay if one is connected.
pub struct SyncEngine {
    shared: Arc<Shared>,
    driver: Mutex<Option<Driver>>,
    writer: Option<JoinHandle<()>>,
    /// The guests of the file, if this process owns one.
    hosting: Option<Hosting>,
    /// What others write to the file: always, if another process owns it, else after a failure.
    following: Option<Following>,
    trash_timer: Option<TrashTimer>,
    /// Ends what listens for peers.
    stop_listening: watch::Sender<bool>,
}

struct Driver {
    stop: watch::Sender<bool>,
    token: watch::Sender<Token>,
    task: tokio::task::JoinHandle<()>,
}

impl SyncEngine {
    /// Takes over a store. What was not committed of it is written now. If the store has a file of its
    /// own, and there is a tokio runtime, other processes that open the file become guests from now on,
    /// whose edits come here; without a runtime they wait until the file is free. If another process owns
    /// the file, this engine is its guest. With a runtime, an engine that is no guest also purges what has
    /// expired in Trash, whenever the store's [`options`](sds_store::StoreOptions) say; but while a relay
    /// is wanted only as long as that takes changes.
    #[must_use]
    pub fn start(local: LocalStore) -> Self {
        let has_runtime = tokio::runtime::Handle::try_current().is_ok();
        let own = local.persistence.owned_file().filter(|_| has_runtime).map(LocalAddress::of);
        let others = local.persistence.followed_file().filter(|_| has_runtime);
        let others = others.map(Path::to_owned);
        let (store, persistence) = SyncedStore::new(local);
        let (persisted, known) = (store.captured().clone(), store.captured().clone());
        let status = SyncStatus { local: known, persisted, ..SyncStatus::default() };
        let (status, saved) = (watch::Sender::new(status), watch::Sender::new(0));
        let (handle, writer) = Writer::spawn(persistence, status.clone(), saved.clone());
        let shared = Arc::new(Shared::new(store, status, saved, handle));
        let hosting = own.map(|address| Hosting::begin(&shared, address));
        let trash_timer = (has_runtime && others.is_none()).then(|| TrashTimer::begin(&shared));
        let following = has_runtime.then(|| match others {
            Some(file) => Following::begin(&shared, file),
            None => Following::begin_as_owner(&shared),
        });
        let (driver, stop_listening) = (Mutex::new(None), watch::Sender::new(false));
        let writer = Some(writer);
        let engine =
            Self { shared, driver, writer, hosting, following, trash_timer, stop_listening };
        // Nobody else has the store yet, so nothing stands in the way.
        let _captured = engine.edit(|_| ());
        engine
    }

    /// Looks at the store.
    ///
    /// # Errors
    /// [`SyncError::Stopped`] after a panic in an earlier edit.
    pub fn read<T>(&self, look: impl FnOnce(&DataStore) -> T) -> Result<T, SyncError> {
        self.shared.read(look)
    }

    /// Edits the store. What changed is written, and then sent, from now on by itself.
    ///
    /// # Errors
    /// If the disk fails or is too far behind; then `work` was not called.
    pub fn edit<T>(&self, work: impl FnOnce(&mut DataStore) -> T) -> Result<T, SyncError> {
        self.shared.edit(work)
    }

    /// Stores all that `source` gives, in memory that does not depend on its size, to be made a value
    /// with [`DataStore::write_blob_value`]; until then nobody sees it, and it is removed when the store
    /// is opened again. It is a
    /// text if it is to be one and is UTF-8. Blocks while it reads and writes.
    ///
    /// ```
    /// use std::io::Read;
    /// use sds_store::EntryId;
    /// use sds_sync::{LocalStore, StoreId, SyncEngine};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let engine =
    ///     SyncEngine::start(LocalStore::open_or_create(folder.path(), &StoreId::new("s")?)?);
    /// // From a file, as a rule.
    /// let film = engine.write_blob([7; 100_000].as_slice(), false)?;
    /// engine.edit(|store| store.write_blob_value(EntryId::ROOT, film))??;
    ///
    /// let mut reader = engine.open_blob(&film.hash)?.ok_or("it was just written")?;
    /// assert_eq!(reader.bytes().count(), 100_000);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Any [`BlobError`]; then nothing of it stays.
    pub fn write_blob(&self, source: impl Read, is_text: bool) -> Result<BlobRef, BlobError> {
        let written = write_blob(Arc::clone(&self.shared.blobs), source, is_text);
        if let Err(BlobError::Storage(error)) = &written {
            self.shared.note_lost(error);
        }
        written
    }

    /// The content of a value that is kept as a blob, to be read as a stream; none if it is not here.
    /// What was edited is here after the next flush.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn open_blob(&self, hash: &BlobHash) -> Result<Option<BlobReader>, StorageError> {
        BlobReader::open(Arc::clone(&self.shared.blobs), *hash)
    }

    /// Says which blobs are fetched without being asked for; all, as long as nothing is said. Those
    /// that are here stay.
    ///
    /// # Errors
    /// [`SyncError::Stopped`] after a panic in an earlier edit.
    pub fn set_blob_fetch(&self, blob_fetch: BlobFetch) -> Result<(), SyncError> {
        self.shared.set_blob_fetch(blob_fetch)
    }

    /// Asks for a blob that the store refers to, and waits until it is here. It is still wanted if it
    /// does not come in time. Says whether it is here; false if nothing refers to it.
    ///
    /// # Errors
    /// If that takes longer than `limit`, or the disk fails.
    pub async fn fetch_blob(&self, hash: &BlobHash, limit: Duration) -> Result<bool, SyncError> {
        let mut changed = self.shared.blobs_changed.subscribe();
        let waiting = async {
            loop {
                if let Some(is_here) = self.shared.ask_for_blob(hash).await? {
                    return Ok(is_here);
                }
                changed.changed().await.map_err(|_| SyncError::Stopped)?;
            }
        };
        let last_error = || SyncError::TimedOut { last_error: self.status().last_error };
        timeout(limit, waiting).await.unwrap_or_else(|_| Err(last_error()))
    }

    /// Waits until everything that is in the store is on disk.
    ///
    /// # Errors
    /// If the disk fails. What was not written is kept, and tried again with the next edit or
    /// flush.
    pub async fn flush(&self) -> Result<(), SyncError> {
        self.shared.flush().await
    }

    /// Connects to a relay, and again after each loss, until [`disconnect`](Self::disconnect) or a
    /// refusal that is final. Replaces an earlier connection. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`SyncError::Stopped`] after a panic in an earlier edit.
    pub fn connect(&self, options: ConnectOptions) -> Result<(), SyncError> {
        self.shared.read(|_| ())?;
        let (stop, stopped) = watch::channel(false);
        let token = watch::Sender::new(options.token.clone());
        let credentials = Credentials::new(token.clone(), options.tokens.clone());
        let shared = Arc::clone(&self.shared);
        // Held over all of it, so that of two callers one comes after the other.
        let mut driver = self.driver();
        let former = driver.take();
        let number = self.shared.next_driver(ConnectionState::Connecting);
        let task = tokio::spawn(async move {
            if let Some(former) = former {
                former.end().await;
            }
            // Only now nobody strikes off what the former relay has.
            match shared.list_blobs() {
                Ok(()) => driver::run(shared, number, options, credentials, stopped).await,
                Err(_) => shared.report_connection(number, ConnectionState::Disconnected),
            }
        });
        *driver = Some(Driver { stop, token, task });
        Ok(())
    }

    /// Shows the relay a newer token, of the same subject, and uses it for connections to come. What it
    /// allows counts at once.
    ///
    /// # Errors
    /// [`SyncError::NotConnected`] if no connection is wanted.
    pub fn refresh_token(&self, token: Token) -> Result<(), SyncError> {
        let driver = self.driver();
        let connection = self.shared.status.borrow().connection.clone();
        match (connection, &*driver) {
            (ConnectionState::Disconnected | ConnectionState::Refused { .. }, _) | (_, None) => {
                return Err(SyncError::NotConnected);
            }
            (_, Some(driver)) => driver.token.send_replace(token),
        };
        Ok(())
    }

    /// Leaves the relay. What it lacks stays on disk for the next connection.
    pub async fn disconnect(&self) {
        let former = {
            let mut driver = self.driver();
            self.shared.next_driver(ConnectionState::Disconnected);
            driver.take()
        };
        if let Some(driver) = former {
            driver.end().await;
        }
    }

    /// Takes connections of peers, who need a token and then can do what they could at a relay: so two
    /// devices on one network need none. Lasts until the answer is stopped or dropped, or the engine.
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// If the certificate or the address cannot be used.
    pub async fn listen(&self, options: ListenOptions) -> Result<Listening, ListenError> {
        let stop = self.stop_listening.subscribe();
        Listening::begin(Arc::clone(&self.shared), options, stop).await
    }

    /// How far the store has come.
    #[must_use]
    pub fn status(&self) -> SyncStatus {
        self.shared.status.borrow().clone()
    }

    /// How far the store has come, from now on. What is borrowed from the receiver must be let go
    /// before the engine is asked for anything: until then no edit can come to its end.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<SyncStatus> {
        self.shared.status.subscribe()
    }

    /// Waits until all that is in the store is on the relay's disk, and all that the relay had when
    /// it opened the store is on this side's, with blobs.
    ///
    /// # Errors
    /// If that takes longer than `limit`, or cannot happen without somebody's help.
    pub async fn wait_until_synced(&self, limit: Duration) -> Result<(), SyncError> {
        let mut status = self.watch_status();
        let settled = status.wait_for(|status| status.outcome().is_some());
        match timeout(limit, settled).await {
            Ok(Ok(status)) => status.outcome().unwrap_or(Err(SyncError::Stopped)),
            Ok(Err(_)) => Err(SyncError::Stopped),
            Err(_) => Err(SyncError::TimedOut { last_error: self.status().last_error }),
        }
    }

    /// Shows a state to all others who have the store open at the relay, or nothing any more; the same
    /// on each connection to come. It is never kept. Handlers hear of it before this returns.
    ///
    /// # Errors
    /// If the state is too large; then the former one stays.
    pub fn set_presence_to(&self, state: Option<PresenceState>) -> Result<(), PresenceTooLarge> {
        self.shared.presence.set(state)
    }

    /// Who else is here, as far as known: those who show something, while this is connected.
    #[must_use]
    pub fn presence(&self) -> Vec<PeerPresence> {
        self.shared.presence.peers()
    }

    /// Calls `handler` whenever somebody, this engine too, shows something else or leaves, until the
    /// answer is dropped. It is called by whoever brought the news, and holds that up: it should be
    /// brief, and may ask the engine for anything that does not block.
    pub fn on_presence_change(
        &self,
        handler: impl Fn(&PresenceEvent) + Send + Sync + 'static,
    ) -> PresenceSubscription {
        self.shared.presence.subscribe(handler)
    }

    /// Counts the changes of what others show, to wait for the next one and then ask for
    /// [`presence`](Self::presence).
    #[must_use]
    pub fn watch_presence(&self) -> watch::Receiver<u64> {
        self.shared.presence.seen.subscribe()
    }

    /// Sends a message to somebody who has the store open at the same relay, or to all others. It may get
    /// lost, if they do not read or the connection breaks.
    ///
    /// # Errors
    /// If there is no connection, the message is too large, or too many wait.
    pub fn signal(&self, to: Option<PeerId>, message: impl Into<Bytes>) -> Result<(), SignalError> {
        self.shared.signals.send(to, message.into())
    }

    /// The messages that others send, from now on. Who reads too slowly misses the oldest.
    #[must_use]
    pub fn signals(&self) -> broadcast::Receiver<Signal> {
        self.shared.signals.subscribe()
    }

    /// How others who have the store open at the same relay see this engine, while it is connected.
    #[must_use]
    pub fn peer_id(&self) -> Option<PeerId> {
        self.shared.signals.own()
    }

    /// Leaves the relay, writes what is not on disk yet, with a snapshot in the place of the log, and
    /// closes the file.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn stop(mut self) -> Result<(), SyncError> {
        self.stop_listening.send_replace(true);
        drop(self.trash_timer.take());
        if let Some(hosting) = self.hosting.take() {
            hosting.end().await;
        }
        if let Some(following) = &mut self.following {
            following.end().await;
        }
        self.disconnect().await;
        let mut flushed = self.write_all().await;
        // Nobody is left to go on from what somebody else has written to the file.
        if let (Err(SyncError::Storage(error)), Some(following)) = (&flushed, &self.following)
            && error.is_seat_lost()
        {
            flushed = following.go_on(&self.shared).await;
            if flushed.is_ok() {
                flushed = self.write_all().await;
            }
        }
        self.shared.stop_writer();
        if let Some(writer) = self.writer.take() {
            let joined = tokio::task::spawn_blocking(move || writer.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                return flushed.and(Err(SyncError::Stopped));
            }
        }
        flushed
    }

    /// Writes what is not on disk yet, with a snapshot in the place of the log.
    async fn write_all(&self) -> Result<(), SyncError> {
        let checkpointed = self.shared.checkpoint();
        checkpointed.and(self.shared.flush().await)
    }

    fn driver(&self) -> MutexGuard<'_, Option<Driver>> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SyncEngine {
    fn drop(&mut self) {
        let driver = self.driver().take();
        if let Some(driver) = driver {
            driver.task.abort();
        }
        if let Some(hosting) = self.hosting.take() {
            hosting.abort();
        }
        self.shared.stop_writer();
    }
}

impl fmt::Debug for SyncEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncEngine").field("store", &self.shared.id).finish_non_exhaustive()
    }
}

impl Driver {
    async fn end(self) {
        // If nobody listens any more, the task is at its end.
        let _listening = self.stop.send(true);
        let _ended = self.task.await;
    }
}

fn hint(last_error: &Option<&'static str>) -> String {
    last_error.map_or_else(String::new, |code| format!(" (last failure: {code})"))
}

#[cfg(test)]
mod tests {
    use sds_engine::ReplicaId;
    use sds_store::EntryId;
    use tokio::sync::oneshot;

    use super::*;
    use crate::persistence::MemoryPersistence;
    use crate::store_id::StoreId;

    /// Goal: a blob that the former relay has is offered to the next one, whenever it got there.
    /// Method: in place of the former driver, one that notes the blob as sent while it is ended.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_former_relay_still_takes_is_offered_to_the_next_one_too() {
        let (id, replica) = (StoreId::new("s").unwrap(), ReplicaId::new(7).unwrap());
        let memory = MemoryPersistence::new(id, replica);
        let engine = SyncEngine::start(LocalStore::load(memory).unwrap());
        let add_blob = |store: &mut DataStore| {
            let item = store.new_item_at(None, EntryId::ROOT, None)?;
            store.write_value(item, [7_u8; 50_000].as_slice())
        };
        engine.edit(add_blob).unwrap().unwrap();
        let (blob, size) = engine.shared.blobs_to_send().unwrap()[0];
        let (stop, mut stopped) = watch::channel(false);
        let (sent, is_sent) = oneshot::channel();
        let shared = Arc::clone(&engine.shared);
        let task = tokio::spawn(async move {
            stopped.wait_for(|stop| *stop).await.unwrap();
            shared.blob_sent(&blob).unwrap();
            sent.send(()).unwrap();
        });
        let token = watch::Sender::new(Token::from(String::new()));
        *engine.driver() = Some(Driver { stop, token, task });

        let nowhere = "quic://127.0.0.1:1".parse().unwrap();
        engine.connect(ConnectOptions::new(nowhere, Token::from("any".to_owned()))).unwrap();
        is_sent.await.unwrap();
        let mut status = engine.watch_status();
        let listed = status.wait_for(|status| status.blobs_to_send == 1);
        assert!(timeout(Duration::from_secs(5), listed).await.is_ok());
        assert_eq!(engine.shared.blobs_to_send().unwrap(), [(blob, size)]);
    }
}
