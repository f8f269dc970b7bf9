//! Waiting until an engine is, or shows, what a test expects.

use sds_sync::{SyncEngine, SyncStatus};
use tokio::time::timeout;

use super::common::PATIENCE;

/// Waits until the status of `engine` is as wanted.
pub(crate) async fn until(engine: &SyncEngine, is_so: impl FnMut(&SyncStatus) -> bool) {
    let mut status = engine.watch_status();
    let came = timeout(PATIENCE, status.wait_for(is_so)).await;
    assert!(matches!(came, Ok(Ok(_))), "{:?}", engine.status());
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
