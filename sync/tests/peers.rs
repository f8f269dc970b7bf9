//! Engines that listen, and peers that connect to them without a relay.

mod support {
    pub(crate) mod labelled;
    pub(crate) mod shows;
}

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use sds_engine::{ReplicaId, Version};
use sds_store::{DataStore, EntryId};
use sds_sync::access::{Grant, Scope, Secret, mint};
use sds_sync::limits::{
    FRAME_BYTES_MAX, LOG_PART_CHANGES_MAX, PEER_SESSIONS_MAX, PROTOCOL_VERSION,
};
use sds_sync::transport::connect;
use sds_sync::{
    CertificateSource, ClientFrame, ConnectOptions, ListenOptions, Listening, LocalStore,
    MemoryPersistence, RefusalCode, RelayFrame, StorageError, StoreId, SyncEngine, Token, Trust,
};
use support::shows::{add_in, shows};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

fn id() -> StoreId {
    StoreId::new("s").unwrap()
}

fn secret() -> Secret {
    Secret::new("a secret of thirty-two characters").unwrap()
}

fn start(folder: &TempDir) -> SyncEngine {
    SyncEngine::start(LocalStore::open_or_create(folder.path(), &id()).unwrap())
}

/// An engine that listens, and how a peer connects to it.
async fn listen(engine: &SyncEngine, folder: &Path) -> (Listening, ConnectOptions) {
    let certificate = CertificateSource::SelfSigned;
    let (listen, folder) = ("127.0.0.1:0".parse().unwrap(), folder.to_owned());
    let options = ListenOptions { listen, secret: secret(), certificate, folder };
    let listening = engine.listen(options).await.unwrap();
    let url = listening.url(None).unwrap();
    (listening, ConnectOptions::new(url, token()))
}

fn token() -> Token {
    let grant = Grant {
        stores: id().into(),
        subject: "peer".to_owned(),
        scope: Scope::Write,
        lifetime: Duration::from_secs(3_600),
        issuer: None,
    };
    mint(&secret(), &grant, SystemTime::now()).unwrap()
}

/// Goal: an engine whose file was restored, and that was edited then, finds out from a peer that what it has
/// made has the ids of something else, which the peer has: nothing is lost, and both have the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_listening_engine_whose_file_was_restored_makes_its_changes_again() {
    let (home, away) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (engine, peer) = (start(&home), start(&away));
    add_in(&engine, "before");
    engine.stop().await.unwrap();
    let path = home.path().join(id().file_name());
    let backup = std::fs::read(&path).unwrap();
    let engine = start(&home);
    ["lost", "lost too"].iter().for_each(|label| add_in(&engine, label));
    let (listening, options) = listen(&engine, home.path()).await;
    peer.connect(options).unwrap();
    shows(&peer, &["before", "lost", "lost too"]).await;
    peer.disconnect().await;
    listening.stop().await;
    engine.stop().await.unwrap();
    // Where it is says nothing: it is written back into the file.
    std::fs::write(&path, backup).unwrap();
    let engine = start(&home);
    add_in(&engine, "new");
    let (listening, options) = listen(&engine, home.path()).await;
    peer.connect(options).unwrap();
    for engine in [&engine, &peer] {
        shows(engine, &["before", "lost", "lost too", "new"]).await;
    }
    peer.wait_until_synced(Duration::from_secs(60)).await.unwrap();
    let digest = |engine: &SyncEngine| engine.edit(DataStore::digest).unwrap();
    assert_eq!(digest(&engine), digest(&peer));
    listening.stop().await;
    peer.stop().await.unwrap();
    engine.stop().await.unwrap();
}

/// Goal: whoever connects waits for the disk only if something has to be on it first. Method: a disk that is full.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_gets_what_is_on_disk_while_that_takes_nothing_more() {
    let (home, away) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (is_full, peer) = (Arc::new(AtomicBool::new(false)), start(&away));
    let full = Arc::clone(&is_full);
    let memory = MemoryPersistence::new(id(), ReplicaId::new(7).unwrap());
    let disk = memory.guarded(move || match full.load(Ordering::SeqCst) {
        true => Err(StorageError::Full { path: "memory".into() }),
        false => Ok(()),
    });
    let engine = SyncEngine::start(LocalStore::load(disk).unwrap());
    add_in(&engine, "written");
    engine.flush().await.unwrap();
    is_full.store(true, Ordering::SeqCst);
    add_in(&engine, "not written");
    let (listening, options) = listen(&engine, home.path()).await;
    peer.connect(options).unwrap();
    shows(&peer, &["written"]).await;
    is_full.store(false, Ordering::SeqCst);
    shows(&peer, &["not written", "written"]).await;
    listening.stop().await;
    peer.stop().await.unwrap();
    engine.stop().await.unwrap();
}

/// Goal: a peer that lacks much gets it in parts, and all of it, also what comes meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_lacks_much_gets_it_in_parts() {
    let (home, away) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (engine, peer) = (start(&home), start(&away));
    let label = |number: usize| {
        let edit = |store: &mut DataStore| store.set_label(EntryId::ROOT, &number.to_string());
        engine.edit(edit).unwrap().unwrap();
    };
    (0..2 * LOG_PART_CHANGES_MAX).for_each(label);
    let (_listening, options) = listen(&engine, home.path()).await;
    peer.connect(options).unwrap();
    (0..100).for_each(label);
    engine.flush().await.unwrap();
    let wanted = engine.read(|store| store.version().clone()).unwrap();
    let mut status = peer.watch_status();
    let all_there = status.wait_for(|status| status.persisted == wanted);
    timeout(Duration::from_secs(60), all_there).await.unwrap().unwrap();
}

/// Goal: a peer has the store open only so often at a time on one connection, and again when it has closed it.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_open_only_so_often_on_one_connection() {
    let home = TempDir::new().unwrap();
    let engine = start(&home);
    let (listening, _) = listen(&engine, home.path()).await;
    let url = listening.url(None).unwrap();
    let connection = connect(&url, &Trust::of(&url)).await.unwrap();
    let open = async || {
        let (mut sender, mut receiver) = connection.open_stream().await.unwrap();
        let hello = ClientFrame::OpenSeated {
            protocol: PROTOCOL_VERSION,
            store: id().as_str().to_owned(),
            token: token(),
            version: Version::new().encode().into(),
            seats: Vec::new(),
        };
        sender.send(&hello).await.unwrap();
        receiver.set_max(FRAME_BYTES_MAX);
        let answer: RelayFrame = receiver.next().await.unwrap().unwrap();
        (answer, sender, receiver)
    };
    let mut sessions = Vec::new();
    for _ in 0..PEER_SESSIONS_MAX {
        let (answer, sender, receiver) = open().await;
        assert!(matches!(answer, RelayFrame::OpenedSeated { .. }), "{answer:?}");
        sessions.push((sender, receiver));
    }
    let (answer, ..) = open().await;
    let busy = RefusalCode::Busy.number();
    assert!(matches!(answer, RelayFrame::Refused { code, .. } if code == busy), "{answer:?}");
    drop(sessions.pop());
    let again = async {
        while !matches!(open().await.0, RelayFrame::OpenedSeated { .. }) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), again).await.unwrap();
}
