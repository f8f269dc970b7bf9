//! The thread that writes to a store's file what waits in a [`WriteQueue`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::status::SyncStatus;
use crate::limits::{WRITE_RETRY_MAX, WRITE_RETRY_MIN};
use crate::persistence::{Persistence, StorageError};
use crate::synced_store::Handover;
use crate::write_queue::{Committed, WriteQueue};

/// What the writer is asked to do.
pub(super) enum Job {
    /// Write this.
    Append(Handover),
    /// Write this, of a store of which some was made again: what was asked for before says nothing any
    /// more of what is on disk.
    Settle(Handover),
    /// Write nothing, and say so, until what waits is replaced or let go on.
    Hold(oneshot::Sender<()>),
    /// Write again what waits.
    Release,
    /// Write this in the place of all that waits, which nobody has yet: it was made again, after the
    /// seat it was made under was lost.
    Replace(Handover),
    /// Find out who owns the file now.
    Reattach,
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
    settles: Arc<AtomicU64>,
}

/// The writer has ended.
pub(super) struct WriterGone;

impl WriterHandle {
    /// Asks for something.
    pub(super) fn ask(&self, job: Job) -> Result<(), WriterGone> {
        if let Job::Append(handover) | Job::Settle(handover) | Job::Replace(handover) = &job {
            self.unsaved_bytes.fetch_add(handover.batch.size(), Ordering::Relaxed);
        }
        self.jobs.send(job).map_err(|_| WriterGone)
    }

    /// Says that what was handed over so far does not tell any more what is on disk. With the status
    /// locked, and before the job that does.
    pub(super) fn begin_settle(&self) {
        self.settles.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was said.
    pub(super) fn settles(&self) -> u64 {
        self.settles.load(Ordering::Relaxed)
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
    queue: WriteQueue,
    /// How many settles have begun, and how many of them have come here.
    settles: Arc<AtomicU64>,
    settled: u64,
    /// Whether nothing is to be written at present.
    is_held: bool,
    /// Whether something was settled that nobody has heard of yet.
    has_news: bool,
    /// Who waits until everything is on disk.
    waiting: Vec<oneshot::Sender<Result<(), StorageError>>>,
    /// The seat that what waits was made under is lost: writing it later might make it be there twice.
    seat_lost: Option<StorageError>,
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
        let settles = Arc::new(AtomicU64::new(0));
        let handle = WriterHandle {
            jobs: sender,
            unsaved_bytes: Arc::clone(&unsaved_bytes),
            settles: Arc::clone(&settles),
        };
        let writer = Self {
            persistence,
            jobs,
            unsaved_bytes,
            queue: WriteQueue::new(),
            settles,
            settled: 0,
            is_held: false,
            has_news: false,
            waiting: Vec::new(),
            seat_lost: None,
            status,
            saved,
        };
        (handle, std::thread::spawn(move || writer.run()))
    }

    fn run(mut self) {
        let (mut is_over, mut retry) = (false, WRITE_RETRY_MIN);
        while !is_over {
            let Ok(first) = self.next(retry) else { return };
            is_over = first.is_some_and(|first| self.take(first));
            while !is_over && let Ok(job) = self.jobs.try_recv() {
                is_over = self.take(job);
            }
            if self.is_held && !is_over {
                continue;
            }
            let outcome = self.commit();
            retry = if outcome.is_ok() { WRITE_RETRY_MIN } else { WRITE_RETRY_MAX.min(2 * retry) };
            for flushed in std::mem::take(&mut self.waiting) {
                // Whoever asked may have stopped waiting.
                let _gone = flushed.send(outcome.clone());
            }
        }
        if let Err(error) = self.persistence.compact() {
            tracing::warn!(code = error.code(), %error, "cannot make the store's file smaller");
        }
    }

    /// The next job; none if it is time to try again what could not be written, whether or not anybody
    /// comes with something more.
    fn next(&self, retry: Duration) -> Result<Option<Job>, WriterGone> {
        if self.queue.is_empty() || self.seat_lost.is_some() || self.is_held {
            return self.jobs.recv().map(Some).map_err(|_| WriterGone);
        }
        match self.jobs.recv_timeout(retry) {
            Ok(job) => Ok(Some(job)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(WriterGone),
        }
    }

    /// Adds a job to the coming commit; says whether it was the last.
    fn take(&mut self, job: Job) -> bool {
        match job {
            Job::Append(handover) => self.queue.add(handover),
            Job::Settle(handover) => {
                self.settled += 1;
                self.has_news = true;
                self.queue.add(handover);
            }
            Job::Hold(held) => {
                self.is_held = true;
                // Whoever asked may have stopped waiting; it is released all the same.
                let _gone = held.send(());
            }
            Job::Release => self.is_held = false,
            Job::Replace(handover) => {
                self.unsaved_bytes.fetch_sub(self.queue.clear(), Ordering::Relaxed);
                (self.seat_lost, self.is_held) = (None, false);
                self.settled += 1;
                self.has_news = true;
                self.queue.add(handover);
            }
            Job::Reattach => self.persistence.reattach(),
            Job::Flush(flushed) => self.waiting.push(flushed),
            Job::Stop => return true,
        }
        false
    }

    /// Tells everybody what is on disk now.
    fn tell(&mut self, committed: &Committed) {
        self.has_news = false;
        self.unsaved_bytes.fetch_sub(committed.bytes, Ordering::Relaxed);
        self.status.send_modify(|status| {
            // A settle that this came before has said what is there.
            if self.settles.load(Ordering::Relaxed) == self.settled {
                if committed.is_all {
                    status.persisted.clone_from(&committed.upto);
                } else {
                    status.persisted.merge(&committed.upto);
                }
            }
            status.storage_error = None;
        });
        self.saved.send_modify(|count| *count += 1);
    }

    fn commit(&mut self) -> Result<(), StorageError> {
        if let Some(lost) = &self.seat_lost {
            return Err(lost.clone());
        }
        match self.queue.commit(&mut *self.persistence) {
            Ok(None) if !self.has_news => Ok(()),
            // With nothing to write, a settle tells of what was on its way to the disk when it began.
            Ok(None) => {
                let upto = self.queue.take_upto();
                self.tell(&Committed { upto, is_all: false, bytes: 0 });
                Ok(())
            }
            Ok(Some(committed)) => {
                self.tell(&committed);
                Ok(())
            }
            Err(error) => {
                tracing::error!(code = error.code(), %error, "cannot write to the store's file");
                if error.is_seat_lost() {
                    self.seat_lost = Some(error.clone());
                }
                self.status.send_modify(|status| status.storage_error = Some(error.clone()));
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use sds_engine::{BlobHash, ReplicaId, Version};

    use super::*;
    use crate::blob_storage::BlobStorage;
    use crate::persistence::{Batch, LogPage, MemoryPersistence};
    use crate::seat::Seat;
    use crate::store_id::StoreId;

    /// Takes nothing so many times.
    #[derive(Debug)]
    struct Moody {
        memory: MemoryPersistence,
        failures: u32,
    }

    impl Persistence for Moody {
        fn store(&self) -> &StoreId {
            self.memory.store()
        }

        fn seats(&self) -> Vec<Seat> {
            self.memory.seats()
        }

        fn read_snapshot(&self) -> Result<Option<Vec<u8>>, StorageError> {
            self.memory.read_snapshot()
        }

        fn read_log(&self, from: u64) -> Result<LogPage, StorageError> {
            self.memory.read_log(from)
        }

        fn blobs(&self) -> Arc<dyn BlobStorage> {
            self.memory.blobs()
        }

        fn retain_blobs(&mut self, referenced: &BTreeSet<BlobHash>) -> Result<(), StorageError> {
            self.memory.retain_blobs(referenced)
        }

        fn append(&mut self, batch: &Batch) -> Result<(), StorageError> {
            if self.failures > 0 {
                self.failures -= 1;
                return Err(StorageError::Full { path: PathBuf::from("the disk") });
            }
            self.memory.append(batch)
        }
    }

    /// Goal: what could not be written is written when the disk takes it again, though nobody edits any more.
    #[tokio::test]
    async fn what_could_not_be_written_is_tried_again_by_itself() {
        let replica = ReplicaId::new(1).unwrap();
        let memory = MemoryPersistence::new(StoreId::new("s").unwrap(), replica);
        let (status, saved) = (watch::Sender::<SyncStatus>::default(), watch::Sender::default());
        let moody = Box::new(Moody { memory, failures: 2 });
        let (writer, thread) = Writer::spawn(moody, status.clone(), saved);
        let mut upto = Version::new();
        upto.advance(replica, 1);
        let batch = Batch { changes: vec![Arc::from(*b"change")], ..Batch::default() };
        assert!(writer.ask(Job::Append(Handover { batch, upto: upto.clone() })).is_ok());
        let mut status = status.subscribe();
        let failed = |status: &SyncStatus| status.storage_error.is_some();
        drop(status.wait_for(failed).await.unwrap());
        let written = |status: &SyncStatus| status.persisted.covers(&upto);
        let is_well = status.wait_for(written).await.unwrap().storage_error.is_none();
        assert!(is_well && writer.unsaved_bytes() == 0);
        assert!(writer.ask(Job::Stop).is_ok());
        thread.join().unwrap();
    }
}
