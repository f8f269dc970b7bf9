//! Engines that meet at a relay.

use std::path::Path;

use sds_server::Scope;
use sds_store::{EntryId, StoreError};
use sds_sync::{ConnectOptions, LocalStore, RelayUrl, SyncEngine, Token};

use super::common::{PATIENCE, id, token};

/// A token of `subject` that may write to the store `s` for an hour.
pub(crate) fn writer(subject: &str) -> Token {
    token("s", subject, Scope::Write)
}

/// An engine with the store `s` in `folder`.
pub(crate) fn engine(folder: &Path) -> SyncEngine {
    engine_of(folder, "s")
}

/// An engine with a store in `folder`.
pub(crate) fn engine_of(folder: &Path, store: &str) -> SyncEngine {
    SyncEngine::start(LocalStore::open_or_create(folder, &id(store)).unwrap())
}

pub(crate) fn connect(engine: &SyncEngine, url: RelayUrl, token: Token) {
    engine.connect(ConnectOptions::new(url, token)).unwrap();
}

pub(crate) async fn synced(engine: &SyncEngine) {
    let synced = engine.wait_until_synced(PATIENCE).await;
    assert!(synced.is_ok(), "{synced:?}: {:?}", engine.status());
}

/// An engine with the store `s` in `folder`, connected and synced.
pub(crate) async fn present(folder: &Path, url: RelayUrl, token: Token) -> SyncEngine {
    let engine = engine(folder);
    connect(&engine, url, token);
    synced(&engine).await;
    engine
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
