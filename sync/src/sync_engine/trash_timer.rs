//! Purging what has been in Trash for long enough, at intervals: the store itself has no clock.
//!
//! Only the owner of a file does it. An engine that wants a relay waits until that says that it takes
//! changes: one that may only read would have a change that it could never send.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sds_engine::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::shared::Shared;
use super::status::ConnectionState;

/// When it is looked first, if not earlier: a program that never runs for a whole interval purges too.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// How long changed options may go unnoticed.
const OPTIONS_LOOK: Duration = Duration::from_secs(60);

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
    let (mut since, mut is_first) = (Instant::now(), true);
    // Fails after a panic in an edit: nothing is edited any more.
    while let Ok(interval) = shared.read(|store| store.options().check_interval()) {
        let left = left(interval, is_first, since.elapsed());
        if !left.is_zero() {
            sleep(left.min(OPTIONS_LOOK)).await;
            continue;
        }
        since = Instant::now();
        if !may_edit(&shared.status.borrow().connection) {
            continue;
        }
        is_first = false;
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

/// How long there is nothing to do, so long after the last look or the start. Whoever has switched it off may
/// switch it on again.
fn left(interval: Option<Duration>, is_first: bool, since: Duration) -> Duration {
    let Some(interval) = interval else { return OPTIONS_LOOK };
    let due = if is_first { interval.min(FIRST_LOOK) } else { interval };
    due.saturating_sub(since)
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
    fn the_first_look_is_soon_and_the_others_as_the_options_say_at_that_time() {
        let hours = Duration::from_hours;
        let rows = [
            (Some(hours(1)), true, FIRST_LOOK),
            (Some(Duration::from_millis(5)), true, Duration::from_millis(5)),
            (Some(hours(1)), false, hours(1)),
            (None, true, OPTIONS_LOOK),
            (None, false, OPTIONS_LOOK),
        ];
        for (interval, is_first, expected) in rows {
            assert_eq!(left(interval, is_first, Duration::ZERO), expected, "{interval:?}");
        }
        assert_eq!(left(Some(hours(2)), false, hours(1)), hours(1));
        assert_eq!(left(Some(hours(1)), false, hours(2)), Duration::ZERO, "it was made shorter");
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
