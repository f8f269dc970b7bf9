//! The thread that writes to a store's file what waits in a [`WriteQueue`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use sds_store::DataStore;
use tokio::sync::{oneshot, watch};

use super::status::SyncStatus;
use crate::ledger::Ledger;
use crate::limits::{WRITE_RETRY_MAX, WRITE_RETRY_MIN};
use crate::local_store::read as read_store;
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
    /// The same, and give what is in the file now, which another process had meanwhile.
    Reload(oneshot::Sender<Result<(DataStore, Ledger), StorageError>>),
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
    seat_lost: watch::Sender<bool>,
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

    /// Notes what became of the last use of the file. With the status locked, which says so too: whoever
    /// waits for the seat's loss is not to wake at each edit.
    pub(super) fn note_outcome(&self, outcome: Result<(), &StorageError>) {
        note_outcome(&self.seat_lost, outcome);
    }

    /// Waits until what this engine has to write has to be made again first.
    pub(super) async fn seat_loss(&self) {
        let mut seat_lost = self.seat_lost.subscribe();
        // This has a sender itself, so that there is always one.
        let _always = seat_lost.wait_for(|is_lost| *is_lost).await;
    }

    /// How many bytes wait to be written.
    pub(super) fn unsaved_bytes(&self) -> usize {
        self.unsaved_bytes.load(Ordering::Relaxed)
    }
}

fn note_outcome(seat_lost: &watch::Sender<bool>, outcome: Result<(), &StorageError>) {
    let is_lost = outcome.is_err_and(StorageError::is_seat_lost);
    seat_lost.send_if_modified(|was_lost| std::mem::replace(was_lost, is_lost) != is_lost);
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
    /// Tells of that.
    tell_seat_lost: watch::Sender<bool>,
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
        let tell_seat_lost = watch::Sender::new(false);
        let handle = WriterHandle {
            jobs: sender,
            unsaved_bytes: Arc::clone(&unsaved_bytes),
            settles: Arc::clone(&settles),
            seat_lost: tell_seat_lost.clone(),
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
            tell_seat_lost,
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
            Job::Reload(read) => {
                self.is_held = true;
                let reloaded = self.persistence.reload();
                let _gone = read.send(reloaded.and_then(|()| read_store(&*self.persistence)));
            }
            Job::Release => self.is_held = false,
            Job::Replace(handover) => {
                self.unsaved_bytes.fetch_sub(self.queue.clear(), Ordering::Relaxed);
                (self.seat_lost, self.is_held) = (None, false);
                self.settled += 1;
                self.has_news = true;
                self.persistence.begin_anew();
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
            note_outcome(&self.tell_seat_lost, Ok(()));
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
                self.status.send_modify(|status| {
                    // Whoever makes again what was not written has to know of what was.
                    if let StorageError::SeatLostMidway { written, .. } = &error
                        && self.settles.load(Ordering::Relaxed) == self.settled
                    {
                        status.persisted.merge(written);
                    }
                    status.storage_error = Some(error.clone());
                    note_outcome(&self.tell_seat_lost, Err(&error));
                });
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU32;

    use sds_engine::{ReplicaId, Version};

    use super::*;
    use crate::persistence::{Batch, MemoryPersistence};
    use crate::store_id::StoreId;

    struct Running {
        writer: WriterHandle,
        thread: JoinHandle<()>,
        status: watch::Receiver<SyncStatus>,
    }

    impl Running {
        /// A writer that asks `guard` before each write.
        fn new(guard: impl Fn() -> Result<(), StorageError> + Send + Sync + 'static) -> Self {
            let memory = MemoryPersistence::new(StoreId::new("s").unwrap(), replica());
            let status = watch::Sender::<SyncStatus>::default();
            let file = Box::new(memory.guarded(guard));
            let (writer, thread) = Writer::spawn(file, status.clone(), watch::Sender::default());
            Self { writer, thread, status: status.subscribe() }
        }

        fn ask(&self, job: Job) {
            assert!(self.writer.ask(job).is_ok());
        }

        async fn flush(&self) -> Result<(), StorageError> {
            let (sender, flushed) = oneshot::channel();
            self.ask(Job::Flush(sender));
            flushed.await.unwrap()
        }

        fn persisted(&self) -> Version {
            self.status.borrow().persisted.clone()
        }

        fn end(self) {
            self.ask(Job::Stop);
            self.thread.join().unwrap();
        }
    }

    fn replica() -> ReplicaId {
        ReplicaId::new(1).unwrap()
    }

    fn upto(next: u64) -> Version {
        let mut upto = Version::new();
        upto.advance(replica(), next);
        upto
    }

    fn change(next: u64) -> Handover {
        let batch = Batch { changes: vec![Arc::from(*b"change")], ..Batch::default() };
        Handover { batch, upto: upto(next) }
    }

    fn path() -> PathBuf {
        PathBuf::from("the disk")
    }

    /// Goal: what could not be written is written when the disk takes it again, though nobody edits any more.
    #[tokio::test]
    async fn what_could_not_be_written_is_tried_again_by_itself() {
        let attempts = AtomicU32::new(0);
        let mut running = Running::new(move || match attempts.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(StorageError::Full { path: path() }),
            _ => Ok(()),
        });
        running.ask(Job::Append(change(1)));
        let failed = |status: &SyncStatus| status.storage_error.is_some();
        drop(running.status.wait_for(failed).await.unwrap());
        let written = |status: &SyncStatus| status.persisted.covers(&upto(1));
        let is_well = running.status.wait_for(written).await.unwrap().storage_error.is_none();
        assert!(is_well && running.writer.unsaved_bytes() == 0);
        running.end();
    }

    /// Goal: who makes again what was not written, after a seat was lost in the middle of a write, does not
    /// take what was written for it.
    #[tokio::test]
    async fn what_was_written_before_the_seat_was_lost_is_on_disk() {
        let running =
            Running::new(|| Err(StorageError::SeatLostMidway { path: path(), written: upto(1) }));
        running.ask(Job::Append(change(2)));
        let lost = running.flush().await;
        assert!(matches!(lost, Err(StorageError::SeatLostMidway { .. })), "{lost:?}");
        assert_eq!(running.persisted(), upto(1));
        running.end();
    }

    /// Goal: what was on its way to the disk when seats were settled, and kept its name, counts as on disk
    /// afterwards, although there was nothing more to write. Method: a write that goes ahead only when the
    /// settle has begun.
    #[tokio::test]
    async fn a_settle_with_nothing_to_write_tells_of_what_was_on_its_way() {
        let (begun, has_begun) = channel();
        let (gate, gated) = channel::<()>();
        let gated = Mutex::new(gated);
        let running = Running::new(move || {
            begun.send(()).unwrap();
            gated.lock().unwrap().recv().unwrap();
            Ok(())
        });
        running.ask(Job::Append(change(1)));
        has_begun.recv().unwrap();
        running.writer.begin_settle();
        gate.send(()).unwrap();
        running.flush().await.unwrap();
        assert!(running.persisted().is_empty(), "it may have another name now");
        running.ask(Job::Settle(Handover { upto: upto(1), ..Handover::default() }));
        running.flush().await.unwrap();
        assert_eq!(running.persisted(), upto(1));
        running.end();
    }
}
