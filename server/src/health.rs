//! Whether the relay is well, and whether it was asked to stop.
//!
//! The disk is asked by writing to it: an empty transaction that has to be durable in time, as any
//! client's change has. The answer holds for a moment, so that asking often costs nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use crate::store_log::StoreLog;

/// How long an answer of the disk holds.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// How long the disk may take to answer.
const PROBE_TIME: Duration = Duration::from_secs(5);

/// Why clients had better go elsewhere.
pub(crate) type NotReady = &'static str;

/// What is known of the relay's state.
#[derive(Debug)]
pub(crate) struct Health {
    log: Arc<StoreLog>,
    /// Whether the relay stops, or was asked to.
    draining: watch::Sender<bool>,
    /// The last answer of the disk. Held while it is asked.
    probe: Mutex<Option<(Instant, bool)>>,
}

impl Health {
    pub(crate) fn new(log: Arc<StoreLog>) -> Self {
        Self { log, draining: watch::Sender::default(), probe: Mutex::default() }
    }

    /// From now on the relay is not ready, and whoever waits for it stops it.
    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Resolves when the relay was asked to stop.
    pub(crate) async fn draining(&self) {
        // The sender is as old as this, so it is never closed.
        let mut draining = self.draining.subscribe();
        let _open = draining.wait_for(|draining| *draining).await;
    }

    /// Whether clients can be sent here.
    ///
    /// # Errors
    /// Why they cannot.
    pub(crate) async fn check(&self) -> Result<(), NotReady> {
        if *self.draining.borrow() {
            return Err("draining");
        }
        let mut probe = self.probe.lock().await;
        let known = probe.filter(|(at, _)| at.elapsed() < PROBE_INTERVAL);
        let is_good = match known {
            Some((_, is_good)) => is_good,
            None => {
                let log = Arc::clone(&self.log);
                let write = tokio::task::spawn_blocking(move || log.write(|_| Ok(())));
                let is_good = matches!(timeout(PROBE_TIME, write).await, Ok(Ok(Ok(()))));
                *probe = Some((Instant::now(), is_good));
                is_good
            }
        };
        if is_good { Ok(()) } else { Err("the relay's file cannot be written") }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_relay_that_was_asked_to_stop_is_not_ready() {
        let folder = TempDir::new().unwrap();
        let log = Arc::new(StoreLog::open(&folder.path().join("relay.redb")).unwrap());
        let health = Health::new(log);
        assert_eq!(health.check().await, Ok(()));
        assert!(timeout(Duration::from_millis(10), health.draining()).await.is_err());
        health.drain();
        assert_eq!(health.check().await, Err("draining"));
        timeout(PROBE_TIME, health.draining()).await.unwrap();
    }
}
