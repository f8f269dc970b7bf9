//! What tests with engines at a real relay share.
#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod http;

use std::path::Path;
use std::time::{Duration, SystemTime};

use sds_server::{Grant, Relay, RelayConfig, Scope, Secret, mint};
use sds_store::{EntryId, StoreError};
use sds_sync::{ConnectOptions, LocalStore, StoreId, SyncEngine, SyncStatus, Token};
use tempfile::TempDir;
use tokio::time::timeout;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn secret() -> Secret {
    Secret::new("a secret of more than thirty-two characters").unwrap()
}

pub(crate) fn id(text: &str) -> StoreId {
    StoreId::new(text).unwrap()
}

pub(crate) fn folder() -> TempDir {
    TempDir::new().unwrap()
}

/// A token of `subject` for the store `s`.
pub(crate) fn token_of(subject: &str, scope: Scope, lifetime: Duration) -> Token {
    let subject = subject.to_owned();
    let grant = Grant { stores: id("s").into(), subject, scope, lifetime, issuer: None };
    mint(&secret(), &grant, SystemTime::now()).unwrap()
}

/// A token of `subject` that may write to the store `s` for an hour.
pub(crate) fn writer(subject: &str) -> Token {
    token_of(subject, Scope::Write, Duration::from_secs(3_600))
}

pub(crate) async fn relay(folder: &Path) -> Relay {
    Relay::start(RelayConfig::new(secret(), folder)).await.unwrap()
}

/// An engine with the store `s` in `folder`.
pub(crate) fn engine(folder: &Path) -> SyncEngine {
    SyncEngine::start(LocalStore::open_or_create(folder, &id("s")).unwrap())
}

pub(crate) fn connect(engine: &SyncEngine, relay: &Relay, token: Token) {
    engine.connect(ConnectOptions::new(relay.url(), token)).unwrap();
}

pub(crate) async fn synced(engine: &SyncEngine) {
    engine.wait_until_synced(PATIENCE).await.unwrap();
}

/// Waits until the status of `engine` is as wanted.
pub(crate) async fn until(engine: &SyncEngine, is_so: impl FnMut(&SyncStatus) -> bool) {
    let mut status = engine.watch_status();
    timeout(PATIENCE, status.wait_for(is_so)).await.expect("it comes about").unwrap();
}

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
