//! Waiting until an engine is, or shows, what a test expects.

use sds_sync::{SyncEngine, SyncStatus};
use tokio::time::timeout;

use super::common::PATIENCE;

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
