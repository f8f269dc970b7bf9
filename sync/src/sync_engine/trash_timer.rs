//! Purging what has been in Trash for long enough, at intervals: the store itself has no clock.
//!
//! Only the owner of a file does it. An engine that wants a relay waits until that says that it takes
//! changes: one that may only read would have a change that it could never send.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sds_engine::Timestamp;
use sds_store::limits::TRASH_CHECK_INTERVAL_MAX;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::shared::Shared;
use super::status::ConnectionState;

/// The timer, until this is dropped.
pub(super) struct TrashTimer {
    task: JoinHandle<()>,
}

impl TrashTimer {
    /// Starts the timer. Needs a tokio runtime.
    pub(super) fn begin(shared: &Arc<Shared>) -> Self {
        let shared = Arc::clone(shared);
        Self { task: tokio::spawn(async move { run(&shared).await }) }
    }
}

impl Drop for TrashTimer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(shared: &Arc<Shared>) {
    // Fails after a panic in an edit: nothing is edited any more.
    while let Ok(interval) = shared.read(|store| store.options().check_interval()) {
        // Whoever has switched it off may switch it on again.
        sleep(interval.unwrap_or(TRASH_CHECK_INTERVAL_MAX)).await;
        if !may_edit(&shared.status.borrow().connection) {
            continue;
        }
        let (store, now) = (Arc::clone(shared), now());
        let purge = move || store.edit(|store| store.purge_expired_trash_entries(now, None));
        match tokio::task::spawn_blocking(purge).await {
            Ok(Ok(Ok(0))) => {}
            Ok(Ok(Ok(count))) => {
                tracing::info!(store = %shared.id, count, "purged what had expired in trash");
            }
            Ok(Ok(Err(error))) => {
                tracing::warn!(store = %shared.id, %error, "cannot purge what has expired in trash");
            }
            // The disk is behind or fails: later.
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

const fn may_edit(connection: &ConnectionState) -> bool {
    matches!(
        connection,
        ConnectionState::Disconnected | ConnectionState::Connected { writable: true }
    )
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sds_engine::ReplicaId;
    use sds_store::{EntryId, StoreOptions};
    use tokio::time::timeout;

    use super::*;
    use crate::local_store::LocalStore;
    use crate::message::RefusalCode;
    use crate::persistence::MemoryPersistence;
    use crate::store_id::StoreId;
    use crate::sync_engine::SyncEngine;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_has_expired_in_trash_is_purged_by_itself() {
        let (id, replica) = (StoreId::new("s").unwrap(), ReplicaId::new(7).unwrap());
        let mut local = LocalStore::load(MemoryPersistence::new(id, replica)).unwrap();
        let (ttl, interval) = (Duration::from_hours(1), Duration::from_millis(1));
        let options = StoreOptions::default().with_trash_ttl(ttl);
        local.store_mut().set_options(options.with_trash_check_interval(interval));
        let engine = SyncEngine::start(local);
        let (old, new) = engine
            .edit(|store| {
                let old = store.new_item_at(None, EntryId::ROOT, None).unwrap();
                let new = store.new_item_at(None, EntryId::ROOT, None).unwrap();
                store.delete_entry(old, Timestamp::from_millis(1)).unwrap();
                store.delete_entry(new, now()).unwrap();
                (old, new)
            })
            .unwrap();
        let mut status = engine.watch_status();
        let purged = async {
            while engine.read(|store| store.entry(old).is_ok()).unwrap() {
                status.changed().await.unwrap();
            }
        };
        assert!(timeout(Duration::from_secs(60), purged).await.is_ok());
        assert!(engine.read(|store| store.entry(new).is_ok()).unwrap());
        engine.stop().await.unwrap();
    }

    #[test]
    fn an_engine_that_may_only_read_purges_nothing() {
        let refused =
            ConnectionState::Refused { code: RefusalCode::Forbidden, message: "no".into() };
        let waiting = ConnectionState::WaitingToReconnect { attempt: 1 };
        let reading = ConnectionState::Connected { writable: false };
        for connection in [ConnectionState::Connecting, refused, waiting, reading] {
            assert!(!may_edit(&connection), "{connection:?}");
        }
        assert!(may_edit(&ConnectionState::Connected { writable: true }));
        assert!(may_edit(&ConnectionState::Disconnected), "nobody is asked");
    }
}
