//! What all connections of a relay share, and the admin listener with them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sds_sync::access::Gate;
use sds_sync::certificate::LiveIdentity;
use sds_sync::transport::StreamError;
use sds_sync::{FrameError, Refusal, RefusalCode, StorageError, StoreId};
use tokio::sync::watch;

use super::LOG_FILE;
use crate::chores::Chores;
use crate::doorkeeper::Door;
use crate::fair_turns::FairTurns;
use crate::health::DiskProbe;
use crate::limits::{Limit, Limits};
use crate::log_writer::LogWriter;
use crate::metrics::Metrics;
use crate::pace::Subjects;
use crate::revocations::Revocations;
use crate::rooms::Rooms;
use crate::serve_blob::BlobTurns;
use crate::sessions::Sessions;
use crate::store_log::StoreLog;
use crate::told::Told;

/// What all connections share.
pub(crate) struct Node {
    /// Whether the relay is to stop, or stops already.
    pub(super) draining: watch::Sender<bool>,
    /// How long clients may take to leave then.
    pub(crate) drain: Duration,
    pub(super) identity: Arc<LiveIdentity>,
    pub(crate) door: Arc<Door>,
    pub(crate) subjects: Arc<Subjects>,
    pub(crate) limits: Limits,
    pub(crate) gate: Gate,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) writer: LogWriter,
    pub(crate) log: Arc<StoreLog>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) revocations: Revocations,
    pub(super) disk: DiskProbe,
    pub(crate) blob_turns: BlobTurns,
    /// Leave to look what is in a store that is opened.
    pub(crate) openings: FairTurns,
    /// Leave to check a large frame.
    pub(crate) checks: FairTurns,
    /// Where that is done.
    pub(crate) chores: Chores,
    pub(crate) told: Told,
    /// Where everything is kept.
    pub(crate) folder: PathBuf,
}

/// Why a session ends whose store was deleted.
pub(crate) const DELETED: Refusal = Refusal::new(RefusalCode::Forbidden, "the store was deleted");

impl Node {
    /// Asks whoever runs the relay to stop it.
    pub(crate) fn ask_to_stop(&self) {
        self.draining.send_replace(true);
    }

    /// Whether the relay is about to stop, and takes no new clients.
    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Whether changes can still be written. If not, only starting the relay anew helps.
    ///
    /// # Errors
    /// Why they cannot.
    pub(crate) fn check_alive(&self) -> Result<(), &'static str> {
        if self.writer.is_alive() { Ok(()) } else { Err("nobody writes the relay's file any more") }
    }

    /// Whether clients can be sent here.
    ///
    /// # Errors
    /// Why they cannot.
    pub(crate) async fn check_ready(&self) -> Result<(), &'static str> {
        let log = Arc::clone(&self.log);
        if self.is_draining() {
            return Err("draining");
        }
        self.check_alive()?;
        if self.disk.is_good(move || log.write(|_| Ok(())).is_ok()).await {
            Ok(())
        } else {
            Err("the relay's file cannot be written")
        }
    }

    /// Looks whether there is another certificate, which new connections are shown then.
    pub(super) async fn refresh_certificate(&self) {
        let identity = Arc::clone(&self.identity);
        match tokio::task::spawn_blocking(move || identity.refresh()).await {
            Ok(Ok(true)) => {
                self.metrics.certificate_reloaded(true);
                tracing::info!(hash = %self.identity.hash(), "another certificate");
            }
            Ok(Err(error)) => {
                self.metrics.certificate_reloaded(false);
                tracing::error!(%error, "the new certificate is no good; the former one stays");
            }
            // There is none, or the program is about to end.
            Ok(Ok(false)) | Err(_) => {}
        }
    }

    /// Deletes a store and ends the sessions on it; what it had is removed afterwards. Says false
    /// if there is no such store. Waits for the disk.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn delete_store(&self, store: &StoreId) -> Result<bool, StorageError> {
        let is_deleted = self.log.delete(store, SystemTime::now())?;
        if is_deleted {
            // Whoever is in the former room was listed before, and so is told.
            self.rooms.forget(store);
            self.sessions.end(DELETED, |open, _| open == store);
            self.writer.sweep();
        }
        Ok(is_deleted)
    }

    /// Looks up what is not counted, and tells everything as text.
    pub(crate) fn measure(&self) -> String {
        let gauge = |value| i64::try_from(value).unwrap_or(i64::MAX);
        self.sessions.tally(&self.metrics);
        if let Ok(file) = fs::metadata(self.folder.join(LOG_FILE)) {
            self.metrics.disk_bytes.set(gauge(file.len()));
        }
        self.metrics.lag_max.set(gauge(self.sessions.lag_max(&self.rooms)));
        self.metrics.stores_open.set(gauge(self.rooms.len() as u64));
        self.metrics.encode()
    }

    /// Reads from the file, off the threads that must not wait. `None` if that fails.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        look: impl FnOnce(&StoreLog) -> Result<T, StorageError> + Send + 'static,
    ) -> Option<T> {
        self.ask(move |node| look(&node.log)).await
    }

    /// Does what waits for the file, off the threads that must not wait. `None` if that fails,
    /// which is told and counted.
    pub(crate) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        what: impl FnOnce(&Self) -> Result<T, StorageError> + Send + 'static,
    ) -> Option<T> {
        let node = Arc::clone(self);
        match tokio::task::spawn_blocking(move || what(&node)).await {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                self.metrics.storage_failures.inc();
                tracing::error!(code = error.code(), %error, "cannot read or write the relay's file");
                None
            }
            Err(_) => None,
        }
    }

    /// Counts that a client's stream failed, if that is because of a limit.
    pub(crate) fn note_failed(&self, error: &StreamError) {
        match error {
            StreamError::Frame(FrameError::TooLarge { .. }) => {
                self.metrics.limit_hit(Limit::FrameBytes);
            }
            StreamError::NoRoom | StreamError::TooSlow => {
                self.metrics.limit_hit(Limit::BegunBytes);
            }
            _ => {}
        }
    }
}

/// Returns when the relay has to stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender the relay is gone altogether.
    let _closed = stop.wait_for(|stop| *stop).await;
}
