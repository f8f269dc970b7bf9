//! The thread that writes to a store's file. One commit takes whatever has queued up meanwhile.
//!
//! What could not be written stays here and is tried again with whatever comes next, so the log
//! never has a gap.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use sds_engine::Version;
use tokio::sync::{oneshot, watch};

use super::status::SyncStatus;
use crate::persistence::{Batch, Persistence, StorageError};

/// What the writer is asked to do.
pub(super) enum Job {
    /// Write a batch; with it the file has all of `upto`.
    Append {
        /// What to write.
        batch: Batch,
        /// What the batch completes.
        upto: Version,
    },
    /// Say when everything asked for before is durable.
    Flush(oneshot::Sender<Result<(), StorageError>>),
    /// Write what waits, close the file and end.
    Stop,
}

/// The way to the writer.
#[derive(Clone, Debug)]
pub(super) struct WriterHandle {
    jobs: Sender<Job>,
    unsaved_bytes: Arc<AtomicUsize>,
}

/// The writer has ended.
pub(super) struct WriterGone;

impl WriterHandle {
    /// Asks for something.
    pub(super) fn ask(&self, job: Job) -> Result<(), WriterGone> {
        if let Job::Append { batch, .. } = &job {
            self.unsaved_bytes.fetch_add(batch.size(), Ordering::Relaxed);
        }
        self.jobs.send(job).map_err(|_| WriterGone)
    }

    /// How many bytes wait to be written.
    pub(super) fn unsaved_bytes(&self) -> usize {
        self.unsaved_bytes.load(Ordering::Relaxed)
    }
}

/// The thread's own side.
pub(super) struct Writer {
    persistence: Box<dyn Persistence>,
    jobs: Receiver<Job>,
    unsaved_bytes: Arc<AtomicUsize>,
    batch: Batch,
    /// How many of the unsaved bytes came with what is in `batch`.
    batch_bytes: usize,
    upto: Version,
    status: watch::Sender<SyncStatus>,
    saved: watch::Sender<u64>,
}

impl Writer {
    /// Starts the thread. `status` learns what is persisted; `saved` counts the commits.
    pub(super) fn spawn(
        persistence: Box<dyn Persistence>,
        status: watch::Sender<SyncStatus>,
        saved: watch::Sender<u64>,
    ) -> (WriterHandle, JoinHandle<()>) {
        let (sender, jobs) = channel();
        let unsaved_bytes = Arc::new(AtomicUsize::new(0));
        let handle = WriterHandle { jobs: sender, unsaved_bytes: Arc::clone(&unsaved_bytes) };
        let (batch, batch_bytes, upto) = (Batch::default(), 0, Version::new());
        let writer =
            Self { persistence, jobs, unsaved_bytes, batch, batch_bytes, upto, status, saved };
        (handle, std::thread::spawn(move || writer.run()))
    }

    fn run(mut self) {
        let mut is_over = false;
        while !is_over {
            let Ok(first) = self.jobs.recv() else { return };
            let mut waiting = Vec::new();
            is_over = self.take(first, &mut waiting);
            while !is_over && let Ok(job) = self.jobs.try_recv() {
                is_over = self.take(job, &mut waiting);
            }
            let outcome = self.commit();
            for flushed in waiting {
                // Whoever asked may have stopped waiting.
                let _gone = flushed.send(outcome.clone());
            }
        }
        if let Err(error) = self.persistence.compact() {
            tracing::warn!(code = error.code(), %error, "cannot make the store's file smaller");
        }
    }

    /// Adds a job to the coming commit; says whether it was the last.
    fn take(
        &mut self,
        job: Job,
        waiting: &mut Vec<oneshot::Sender<Result<(), StorageError>>>,
    ) -> bool {
        match job {
            Job::Append { batch, upto } => {
                self.batch_bytes += batch.size();
                self.batch.add(batch);
                self.upto.merge(&upto);
            }
            Job::Flush(flushed) => waiting.push(flushed),
            Job::Stop => return true,
        }
        false
    }

    fn commit(&mut self) -> Result<(), StorageError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let outcome = self.persistence.append(&self.batch);
        match &outcome {
            Ok(()) => {
                self.batch = Batch::default();
                let written = std::mem::take(&mut self.batch_bytes);
                self.unsaved_bytes.fetch_sub(written, Ordering::Relaxed);
                let upto = std::mem::take(&mut self.upto);
                self.status.send_modify(|status| {
                    status.persisted.merge(&upto);
                    status.storage_error = None;
                });
                self.saved.send_modify(|count| *count += 1);
            }
            Err(error) => {
                tracing::error!(code = error.code(), %error, "cannot write to the store's file");
                self.status.send_modify(|status| status.storage_error = Some(error.clone()));
            }
        }
        outcome
    }
}
