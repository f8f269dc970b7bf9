//! Engines that listen, and peers that connect to them without a relay.

mod support {
    pub(crate) mod labelled;
    pub(crate) mod shows;
}

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use sds_engine::ReplicaId;
use sds_store::DataStore;
use sds_sync::access::{Grant, Scope, Secret, mint};
use sds_sync::{
    CertificateSource, ConnectOptions, ListenOptions, Listening, LocalStore, MemoryPersistence,
    StorageError, StoreId, SyncEngine,
};
use support::shows::{add_in, shows};
use tempfile::TempDir;

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
    let grant = Grant {
        stores: id().into(),
        subject: "peer".to_owned(),
        scope: Scope::Write,
        lifetime: Duration::from_secs(3_600),
        issuer: None,
    };
    let token = mint(&secret(), &grant, SystemTime::now()).unwrap();
    let url = listening.url(None).unwrap();
    (listening, ConnectOptions::new(url, token))
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
