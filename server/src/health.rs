//! Whether the relay's disk is well.
//!
//! It is asked by writing to it: an empty transaction that has to be durable in time, as any client's
//! change has. The answer holds for a moment, so that asking often costs nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::store_log::StoreLog;

/// How long an answer of the disk holds.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// How long the disk may take to answer.
const PROBE_TIME: Duration = Duration::from_secs(5);

/// The last answer of the disk. Held while it is asked.
#[derive(Debug, Default)]
pub(crate) struct DiskProbe {
    last: Mutex<Option<(Instant, bool)>>,
}

impl DiskProbe {
    /// Whether the relay's file can be written.
    pub(crate) async fn is_good(&self, log: &Arc<StoreLog>) -> bool {
        let mut last = self.last.lock().await;
        if let Some((_, is_good)) = last.filter(|(at, _)| at.elapsed() < PROBE_INTERVAL) {
            return is_good;
        }
        let log = Arc::clone(log);
        let write = tokio::task::spawn_blocking(move || log.write(|_| Ok(())));
        let is_good = matches!(timeout(PROBE_TIME, write).await, Ok(Ok(Ok(()))));
        *last = Some((Instant::now(), is_good));
        is_good
    }
}
