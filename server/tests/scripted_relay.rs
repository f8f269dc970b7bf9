//! A sync engine before a relay that does what the test says, right or wrong.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::Endpoint;
use rustls::pki_types::PrivatePkcs8KeyDer;
use sds_engine::{BlobHash, ReplicaId, Version};
use sds_store::{DataStore, EntryId};
use sds_sync::limits::FRAME_BYTES_MAX;
use sds_sync::transport::{FrameReceiver, FrameSender, server_endpoint};
use sds_sync::{
    Batch, CertificateHash, ClientFrame, ConnectOptions, LocalStore, LogPage, MemoryPersistence,
    Persistence, RelayFrame, RelayUrl, StorageError, StoreId, SyncEngine, Token,
};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

struct ScriptedRelay {
    endpoint: Endpoint,
    url: RelayUrl,
}

impl ScriptedRelay {
    fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let hash = CertificateHash::of(made.cert.der());
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = server_endpoint(listen, vec![made.cert.der().clone()], key.into()).unwrap();
        let port = endpoint.local_addr().unwrap().port();
        Self { endpoint, url: RelayUrl::new("127.0.0.1", port, Some(hash)).unwrap() }
    }

    /// Opens the next client's store, as empty.
    async fn open(&self) -> (quinn::Connection, FrameSender, FrameReceiver) {
        let incoming = timeout(PATIENCE, self.endpoint.accept()).await.unwrap().unwrap();
        let connection = incoming.await.unwrap();
        let (send, receive) = connection.accept_bi().await.unwrap();
        let mut receiver = FrameReceiver::new(receive, FRAME_BYTES_MAX);
        let open = receiver.next().await.unwrap();
        assert!(matches!(open, Some(ClientFrame::Open { .. })));
        let mut sender = FrameSender::new(send);
        let opened = RelayFrame::Opened { version: Version::new().encode().into(), writable: true };
        sender.send(&opened).await.unwrap();
        (connection, sender, receiver)
    }
}

fn memory() -> MemoryPersistence {
    MemoryPersistence::new(StoreId::new("s").unwrap(), ReplicaId::new(7).unwrap())
}

fn connected(persistence: impl Persistence, relay: &ScriptedRelay) -> SyncEngine {
    let engine = SyncEngine::start(LocalStore::load(persistence).unwrap());
    let token = Token::from("any".to_owned());
    engine.connect(ConnectOptions::new(relay.url.clone(), token)).unwrap();
    engine
}

fn add_item(store: &mut DataStore) -> EntryId {
    store.new_item_at(None, EntryId::ROOT, None).unwrap()
}

/// A disk that writes only while the test lets it.
#[derive(Debug)]
struct SlowDisk {
    inner: MemoryPersistence,
    gate: Arc<Mutex<()>>,
}

impl Persistence for SlowDisk {
    fn store(&self) -> &StoreId {
        self.inner.store()
    }

    fn replica(&self) -> ReplicaId {
        self.inner.replica()
    }

    fn read_log(&self, from: u64) -> Result<LogPage, StorageError> {
        self.inner.read_log(from)
    }

    fn read_blob(&self, hash: &BlobHash) -> Result<Option<Arc<[u8]>>, StorageError> {
        self.inner.read_blob(hash)
    }

    fn append(&mut self, batch: &Batch) -> Result<(), StorageError> {
        let _open = self.gate.lock().unwrap();
        self.inner.append(batch)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_gets_wrong_leaves_the_store_as_it_was() {
    let relay = ScriptedRelay::start();
    let engine = connected(memory(), &relay);
    let mut unknown = Version::new();
    unknown.advance(ReplicaId::new(99).unwrap(), 5);
    let rows = [
        RelayFrame::Changes { patch: b"no patch".as_slice().into() },
        RelayFrame::Stored { version: unknown.encode().into() },
        RelayFrame::Stored { version: vec![0xff; 9].into() },
        RelayFrame::BlobMissing,
    ];
    let before = engine.edit(|store| store.digest()).unwrap();
    for frame in rows {
        let (connection, mut sender, _receiver) = relay.open().await;
        sender.send(&frame).await.unwrap();
        let closed = timeout(PATIENCE, connection.closed()).await;
        assert!(closed.is_ok(), "the client leaves after {frame:?}");
    }
    let (_connection, _sender, _receiver) = relay.open().await;
    assert_eq!(engine.edit(|store| store.digest()).unwrap(), before);
    engine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_on_disk_is_not_sent() {
    let relay = ScriptedRelay::start();
    let gate = Arc::new(Mutex::new(()));
    let disk = SlowDisk { inner: memory(), gate: Arc::clone(&gate) };
    let engine = connected(disk, &relay);
    let (_connection, mut sender, mut receiver) = relay.open().await;
    let (closed, open) = std::sync::mpsc::channel::<()>();
    let (locked, is_locked) = std::sync::mpsc::channel::<()>();
    let holder = std::thread::spawn(move || {
        let _closed = gate.lock().unwrap();
        locked.send(()).unwrap();
        open.recv().unwrap();
    });
    is_locked.recv().unwrap();
    engine.edit(add_item).unwrap();
    let early = timeout(Duration::from_millis(200), receiver.next::<ClientFrame>()).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(engine.status().persisted, Version::new());

    closed.send(()).unwrap();
    holder.join().unwrap();
    let sent = timeout(PATIENCE, receiver.next()).await.unwrap().unwrap();
    assert!(matches!(sent, Some(ClientFrame::Changes { .. })));
    let waiting = engine.wait_until_synced(Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(waiting.code(), "sync-timed-out", "sent is not stored");
    let stored = engine.status().local.encode().into();
    sender.send(&RelayFrame::Stored { version: stored }).await.unwrap();
    engine.wait_until_synced(PATIENCE).await.unwrap();
    engine.stop().await.unwrap();
}
