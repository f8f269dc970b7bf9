//! A sync engine before a relay that does what the test says, right or wrong.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::Endpoint;
use sds_engine::{ReplicaId, Version};
use sds_store::{DataStore, EntryId};
use sds_sync::certificate::LiveIdentity;
use sds_sync::limits::{
    BLOB_CHUNK_BYTES_MAX, BLOB_FRAME_BYTES_MAX, CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX,
    RESEATS_MAX, STRANGER_WINDOW_BYTES, STREAMS_MAX,
};
use sds_sync::transport::{Connection, FrameReceiver, FrameSender, connect, server_endpoint};
use sds_sync::{
    CertificateSource, ClientFrame, ConnectOptions, ConnectionState, LocalStore, MemoryPersistence,
    Persistence, RefusalCode, RelayFrame, RelayUrl, StoreId, SyncEngine, SyncStatus, Token, Trust,
};
use tempfile::TempDir;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

const ACCESS: RelayFrame = RelayFrame::Access { peer: 1, writable: true, expires_in: 3_600_000 };

struct ScriptedRelay {
    endpoint: Endpoint,
    url: RelayUrl,
}

impl ScriptedRelay {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let identity = LiveIdentity::load(&CertificateSource::SelfSigned, folder.path()).unwrap();
        let hash = identity.hash();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = server_endpoint(listen, Arc::new(identity), STREAMS_MAX).unwrap();
        let port = endpoint.local_addr().unwrap().port();
        Self { endpoint, url: RelayUrl::new("127.0.0.1", port, Some(hash)).unwrap() }
    }

    /// Opens the next client's store, as empty, and says what its token allows.
    async fn open(&self) -> (quinn::Connection, FrameSender, FrameReceiver) {
        let (connection, mut sender, receiver) = self.open_without_terms().await;
        sender.send(&ACCESS).await.unwrap();
        (connection, sender, receiver)
    }

    /// The same, but for the latter.
    async fn open_without_terms(&self) -> (quinn::Connection, FrameSender, FrameReceiver) {
        let incoming = timeout(PATIENCE, self.endpoint.accept()).await.unwrap().unwrap();
        let connection = incoming.await.unwrap();
        let (send, receive) = connection.accept_bi().await.unwrap();
        let mut receiver = FrameReceiver::new(receive, FRAME_BYTES_MAX);
        let open = receiver.next().await.unwrap();
        assert!(matches!(open, Some(ClientFrame::OpenSeated { .. })));
        let mut sender = FrameSender::new(send);
        let (version, seats) = (Version::new().encode().into(), Vec::new());
        let opened = RelayFrame::OpenedSeated { version, writable: true, seats };
        sender.send(&opened).await.unwrap();
        (connection, sender, receiver)
    }
}

/// The next stream of a connection, which has to be for a blob.
async fn blob_stream(connection: &quinn::Connection) -> (FrameSender, FrameReceiver) {
    let (sender, receiver, _) = blob_request(connection).await;
    (sender, receiver)
}

/// The next stream of a connection, which has to be for a blob, and what it asks for.
async fn blob_request(connection: &quinn::Connection) -> (FrameSender, FrameReceiver, ClientFrame) {
    let (send, receive) = timeout(PATIENCE, connection.accept_bi()).await.unwrap().unwrap();
    let mut receiver = FrameReceiver::new(receive, BLOB_FRAME_BYTES_MAX);
    let first = timeout(PATIENCE, receiver.next()).await.unwrap().unwrap();
    let first = first.unwrap();
    let is_blob = matches!(first, ClientFrame::OfferBlob { .. } | ClientFrame::GetBlobFrom { .. });
    assert!(is_blob, "{first:?}");
    (FrameSender::new(send), receiver, first)
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
    let opened = Arc::clone(&gate);
    let disk = memory().guarded(move || {
        let _open = opened.lock().unwrap();
        Ok(())
    });
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

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_whose_transfer_broke_off_is_sent_again_on_the_same_connection() {
    let relay = ScriptedRelay::start();
    let engine = connected(memory(), &relay);
    let content = vec![7_u8; 20_000];
    let added = engine.edit(|store| {
        let item = add_item(store);
        store.write_value(item, content.as_slice())
    });
    added.unwrap().unwrap();
    let (connection, mut sender, _receiver) = relay.open().await;
    let stored = engine.status().local.encode().into();
    let answers = [
        RelayFrame::BlobWantedFrom { offset: 0 },
        RelayFrame::refused(RefusalCode::Busy, "later"),
        RelayFrame::refused(RefusalCode::Unexpected, "later"),
        RelayFrame::refused(RefusalCode::StorageFailed, "later"),
    ];
    for answer in answers {
        let (mut out, _in) = blob_stream(&connection).await;
        out.send(&answer).await.unwrap();
        drop(out);
    }
    let (mut out, _in) = blob_stream(&connection).await;
    out.send(&RelayFrame::BlobStored).await.unwrap();
    sender.send(&RelayFrame::Stored { version: stored }).await.unwrap();
    engine.wait_until_synced(PATIENCE).await.unwrap();
    engine.stop().await.unwrap();
}

/// Goal: what came of a blob before the connection broke need not come again, also to another process.
/// Method: a relay that gives a chunk and hangs up, to two engines one after the other on one disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_fetched_goes_on_where_it_broke_off() {
    let content: Vec<u8> = (0..2_500_000_u32).map(|n| (n % 251) as u8).collect();
    let size = content.len() as u64;
    let disk = memory();
    let mut author = DataStore::new(ReplicaId::new(1).unwrap());
    let item = add_item(&mut author);
    author.write_value(item, content.as_slice()).unwrap();
    let mut chunks = content.chunks(BLOB_CHUNK_BYTES_MAX);
    let mut sent = 0;
    for round in 0..3 {
        let relay = ScriptedRelay::start();
        let engine = connected(disk.clone(), &relay);
        engine
            .edit(|store| store.apply_remote_patch(&author.export_patch(&Version::new())))
            .unwrap()
            .unwrap();
        let (connection, _sender, _receiver) = relay.open().await;
        let (mut out, _in, asked) = blob_request(&connection).await;
        let ClientFrame::GetBlobFrom { offset, .. } = asked else { panic!("{asked:?}") };
        assert_eq!(offset, sent, "round {round}");
        out.send(&RelayFrame::BlobFound { size }).await.unwrap();
        let chunk = chunks.next().unwrap().to_vec();
        sent += chunk.len() as u64;
        out.send(&RelayFrame::BlobChunk { bytes: chunk.into() }).await.unwrap();
        out.finish().await;
        let blob = author.referenced_blobs()[0];
        let fetched = engine.fetch_blob(&blob.hash, Duration::from_millis(500)).await;
        assert_eq!(fetched.is_ok(), round == 2, "{fetched:?}");
        engine.stop().await.unwrap();
    }
    let local = LocalStore::load(disk).unwrap();
    assert_eq!(local.store().read_value(item).unwrap().as_bytes(), Some(content.as_slice()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_waits_until_the_relay_has_taken_in_what_it_sent() {
    let relay = ScriptedRelay::start();
    let engine = connected(memory(), &relay);
    let (connection, sender, mut receiver) = relay.open().await;
    let stopping = tokio::spawn(engine.stop());
    let last = timeout(PATIENCE, receiver.next()).await.unwrap().unwrap();
    assert_eq!(last, Some(ClientFrame::Bye));
    let end = timeout(PATIENCE, receiver.next::<ClientFrame>()).await.unwrap();
    assert!(matches!(end, Ok(None)), "{end:?}");
    let early = timeout(Duration::from_millis(300), connection.closed()).await;
    assert!(early.is_err(), "{early:?}");
    sender.finish().await;
    timeout(PATIENCE, connection.closed()).await.unwrap();
    stopping.await.unwrap().unwrap();
}

/// Goal: a relay that calls every id of a file somebody else's does not keep it busy for ever, its user
/// is told, and nothing is lost. Method: such a relay, until the client comes no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_takes_no_id_is_given_up_and_the_user_is_told() {
    let relay = ScriptedRelay::start();
    let disk = memory();
    let engine = connected(disk.clone(), &relay);
    engine.edit(|store| store.set_label(EntryId::ROOT, "kept")).unwrap().unwrap();
    engine.flush().await.unwrap();
    let mut seats = std::collections::BTreeSet::new();
    let mut status = engine.watch_status();
    let refused = async {
        let is_refused = |status: &SyncStatus| matches!(&status.connection, ConnectionState::Refused { code, .. } if *code == RefusalCode::Forbidden);
        status.wait_for(is_refused).await.unwrap().last_error
    };
    let refusing = async {
        loop {
            let (connection, mut sender, _receiver) = relay.open_without_terms().await;
            let seat = engine.read(DataStore::replica_id).unwrap();
            seats.insert(seat);
            let not_yours = RelayFrame::NotYours { replica: seat.as_u64(), next: 0 };
            sender.send(&not_yours).await.unwrap();
            sender.send(&ACCESS).await.unwrap();
            connection.closed().await;
        }
    };
    let told = tokio::select! {
        told = timeout(2 * PATIENCE, refused) => told.expect("it gives up"),
        () = refusing => None,
    };
    assert_eq!(told, Some("forbidden"));
    assert!(seats.len() <= RESEATS_MAX as usize + 1, "{seats:?}");
    let label = |store: &DataStore| store.root_item().label().into_owned();
    assert_eq!(engine.read(label).unwrap(), "kept");
    engine.stop().await.unwrap();
    assert_eq!(label(LocalStore::load(disk).unwrap().store()), "kept");
}

/// How many bytes a client gets rid of on some streams that nobody reads.
async fn sent_unread(connection: &Connection) -> usize {
    const PIECE: usize = 16 << 10;
    let mut sent = 0;
    for _ in 0..16 {
        let (mut sender, receiver) = connection.open_stream().await.unwrap();
        let brief = Duration::from_millis(100);
        while let Ok(taken) = timeout(brief, sender.send_encoded(vec![0; PIECE].into())).await {
            taken.unwrap();
            sent += PIECE;
        }
        std::mem::forget((sender, receiver));
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_has_little_under_way_and_who_opened_a_store_has_more() {
    let relay = ScriptedRelay::start();
    let accepting = async { relay.endpoint.accept().await.unwrap().await.unwrap() };
    let trust = Trust::of(&relay.url);
    let (connection, accepted) = tokio::join!(connect(&relay.url, &trust), accepting);
    let connection = connection.unwrap();
    let stranger = sent_unread(&connection).await;
    assert!(stranger <= STRANGER_WINDOW_BYTES as usize, "{stranger}");
    accepted.set_receive_window(quinn::VarInt::from_u32(CONNECTION_WINDOW_BYTES));
    let known = stranger + sent_unread(&connection).await;
    assert!(known > 2 * STRANGER_WINDOW_BYTES as usize, "{known}");
    assert!(known <= CONNECTION_WINDOW_BYTES as usize, "{known}");
    // Presence travels in them; those of strangers are read and dropped.
    assert!(accepted.max_datagram_size().is_some());
}
