//! Engines that show items with labels.

use std::time::Duration;

use sds_sync::SyncEngine;
use tokio::time::{sleep, timeout};

use super::labelled::{add_labelled, labels};

/// Adds an item with a label, in one edit.
pub(crate) fn add_in(engine: &SyncEngine, label: &str) {
    engine.edit(|store| add_labelled(store, label)).unwrap();
}

/// Waits until the engine shows items with these labels, sorted, each once, and no others.
pub(crate) async fn shows(engine: &SyncEngine, expected: &[&str]) {
    let all_there = async {
        while engine.read(labels).unwrap() != expected {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = timeout(Duration::from_secs(60), all_there).await;
    assert!(waited.is_ok(), "{:?} {:?}", engine.read(labels).unwrap(), engine.status());
}
