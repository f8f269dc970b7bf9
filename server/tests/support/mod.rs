//! What tests with engines at a real relay share.
#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod http;

use std::path::Path;
use std::time::{Duration, SystemTime};

use sds_server::{Grant, Relay, RelayConfig, Scope, Secret, mint};
use sds_store::{EntryId, StoreError};
use sds_sync::presence::{PeerPresence, PresenceState};
use sds_sync::{ConnectOptions, LocalStore, RelayUrl, StoreId, SyncEngine, SyncStatus, Token};
use tempfile::TempDir;
use tokio::time::timeout;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long tokens hold, unless that is what a test is about.
pub(crate) const LIFETIME: Duration = Duration::from_secs(3_600);

pub(crate) fn secret() -> Secret {
    Secret::new("a secret of more than thirty-two characters").unwrap()
}

pub(crate) fn id(text: &str) -> StoreId {
    StoreId::new(text).unwrap()
}

pub(crate) fn folder() -> TempDir {
    TempDir::new().unwrap()
}

/// What a token of `subject` for a store says.
pub(crate) fn grant(store: &str, subject: &str, scope: Scope, lifetime: Duration) -> Grant {
    let (stores, subject) = (id(store).into(), subject.to_owned());
    Grant { stores, subject, scope, lifetime, issuer: None }
}

/// A token of `subject` for the store `s`.
pub(crate) fn token_of(subject: &str, scope: Scope, lifetime: Duration) -> Token {
    mint(&secret(), &grant("s", subject, scope, lifetime), SystemTime::now()).unwrap()
}

/// A token of `subject` that may write to the store `s` for an hour.
pub(crate) fn writer(subject: &str) -> Token {
    token_of(subject, Scope::Write, LIFETIME)
}

pub(crate) async fn relay(folder: &Path) -> Relay {
    Relay::start(RelayConfig::new(secret(), folder)).await.unwrap()
}

/// An engine with the store `s` in `folder`.
pub(crate) fn engine(folder: &Path) -> SyncEngine {
    engine_of(folder, "s")
}

/// An engine with a store in `folder`.
pub(crate) fn engine_of(folder: &Path, store: &str) -> SyncEngine {
    SyncEngine::start(LocalStore::open_or_create(folder, &id(store)).unwrap())
}

pub(crate) fn connect(engine: &SyncEngine, relay: &Relay, token: Token) {
    engine.connect(ConnectOptions::new(relay.url(), token)).unwrap();
}

pub(crate) async fn synced(engine: &SyncEngine) {
    let synced = engine.wait_until_synced(PATIENCE).await;
    assert!(synced.is_ok(), "{synced:?}: {:?}", engine.status());
}

/// Waits until the status of `engine` is as wanted, or the store is, which may be looked at meanwhile: the
/// status is not held, for whoever changes the store has to tell it.
pub(crate) async fn until(engine: &SyncEngine, mut is_so: impl FnMut(&SyncStatus) -> bool) {
    let mut status = engine.watch_status();
    let wait = async {
        loop {
            let known = status.borrow_and_update().clone();
            if is_so(&known) {
                return;
            }
            status.changed().await.unwrap();
        }
    };
    let waited = timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "it never comes about: {:?}", engine.status());
}

/// Adds an item as one change. As two, copies could both make the first one, to the byte.
pub(crate) fn add_item(engine: &SyncEngine, label: &str) -> EntryId {
    let added = engine.edit(|store| {
        store.transact(|store| {
            let item = store.new_item_at(None, EntryId::ROOT, None)?;
            store.set_label(item, label)?;
            Ok::<_, StoreError>(item)
        })
    });
    added.unwrap().unwrap()
}

/// The labels of what is in the root, in alphabetical order.
pub(crate) fn labels(engine: &SyncEngine) -> Vec<String> {
    let read = engine.read(|store| {
        let root = store.root_item();
        let items = root.inner_entries().filter(|entry| !entry.id().is_well_known());
        let mut labels: Vec<String> = items.map(|item| item.label().into_owned()).collect();
        labels.sort();
        labels
    });
    read.unwrap()
}

/// Waits until `engine` shows these labels; fails the test if it never does.
pub(crate) async fn shows(engine: &SyncEngine, expected: &[&str]) {
    until(engine, |_| labels(engine) == expected).await;
}

/// An engine with the store `s` in `folder`, connected and synced.
pub(crate) async fn present(folder: &Path, url: RelayUrl, token: Token) -> SyncEngine {
    let engine = engine(folder);
    engine.connect(ConnectOptions::new(url, token)).unwrap();
    synced(&engine).await;
    engine
}

pub(crate) fn named(name: &str) -> PresenceState {
    PresenceState { name: Some(name.to_owned()), ..PresenceState::default() }
}

pub(crate) fn has_name(name: &str) -> impl Fn(&[PeerPresence]) -> bool {
    move |peers| peers.iter().any(|peer| peer.state.name.as_deref() == Some(name))
}

/// Waits until `engine` sees what the test expects.
pub(crate) async fn sees(
    engine: &SyncEngine,
    is_it: impl Fn(&[PeerPresence]) -> bool,
) -> Vec<PeerPresence> {
    let mut changed = engine.watch_presence();
    let waiting = async {
        loop {
            let peers = engine.presence();
            if is_it(&peers) {
                return peers;
            }
            changed.changed().await.unwrap();
        }
    };
    let seen = timeout(PATIENCE, waiting).await;
    seen.unwrap_or_else(|_| panic!("{:?}", engine.presence()))
}
