//! The thread that writes the relay's file. One commit takes whatever all clients have sent
//! meanwhile, and nobody hears of anything before it is durable. After each commit, and while
//! nobody sends anything, it packs what was appended, and removes what deleted stores have left
//! behind.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use sds_sync::database::Failure;
use sds_sync::transport::FrameRoom;
use sds_sync::{Checked, CheckedChange, StorageError, StoreId};
use tokio::sync::oneshot;

use crate::append_queue::AppendQueue;
use crate::limits::{LOOSE_PAGES_MAX, PACK_LOOKS_MAX, PACK_RESUMED_MAX, SWEEP_RETRY};
use crate::metrics::Metrics;
use crate::rooms::{Publishing, Rooms};
use crate::store_log::{Appended, Appender, Author, ReplicaCounts, StoreLog, StoreQuota};

/// What is to be written.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) store: StoreId,
    /// Who sends it.
    pub(crate) author: Arc<Author>,
    pub(crate) changes: Vec<CheckedChange>,
    /// Whether changes that lack something are passed over instead of refused.
    pub(crate) skips_lacking: bool,
    /// What they take as long as they wait.
    pub(crate) _room: FrameRoom,
}

/// What became of the work, once it is durable.
pub(crate) type Outcome = Result<Appended, StorageError>;

/// Resolves to the outcome, or to an error if the writer has stopped.
pub(crate) type Reply = oneshot::Receiver<Outcome>;

enum Job {
    Write(Append, oneshot::Sender<Outcome>),
    Sweep,
    Stop,
}

/// The way to the writer.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter {
    jobs: Sender<Job>,
    /// Held by the thread alone.
    life: Weak<()>,
}

impl LogWriter {
    /// Starts the thread; what it commits is published in `rooms`.
    pub(crate) fn spawn(
        log: Arc<StoreLog>,
        rooms: Arc<Rooms>,
        metrics: Arc<Metrics>,
        quota: StoreQuota,
    ) -> (Self, JoinHandle<()>) {
        let (sender, jobs) = channel();
        let writing = Writing {
            log,
            rooms,
            metrics,
            quota,
            counts: RefCell::default(),
            waiting: AppendQueue::default(),
            to_pack: BTreeSet::new(),
            sweep_at: Some(Instant::now()),
        };
        let life = Arc::new(());
        let writer = Self { jobs: sender, life: Arc::downgrade(&life) };
        let thread = std::thread::spawn(move || {
            let _until_it_ends = life;
            writing.run(&jobs);
        });
        (writer, thread)
    }

    /// Appends changes.
    pub(crate) fn append(&self, work: Append) -> Reply {
        let (sender, receiver) = oneshot::channel();
        // If the writer has stopped, the sender is gone with the job, and the reply says so.
        let _stopped = self.jobs.send(Job::Write(work, sender));
        receiver
    }

    /// Lets the writer remove what deleted stores have left behind, little by little.
    pub(crate) fn sweep(&self) {
        // What is left is removed after the next start otherwise.
        let _stopped = self.jobs.send(Job::Sweep);
    }

    /// Whether the thread runs. It ends before it is told to only by a fault of this program.
    pub(crate) fn is_alive(&self) -> bool {
        self.life.strong_count() > 0
    }

    /// Lets the writer end, after what was asked for before.
    pub(crate) fn stop(&self) {
        // If it has ended already, that is what was wanted.
        let _ended = self.jobs.send(Job::Stop);
    }
}

/// An append whose turn it is.
struct Work {
    append: Append,
    /// What became of the changes that are written already.
    so_far: Appended,
    reply: oneshot::Sender<Outcome>,
}

/// Why nothing of a group was written.
struct Unwritten {
    error: StorageError,
    /// The store whose rows are damaged, if that is why.
    store: Option<StoreId>,
}

/// The thread's own.
struct Writing {
    log: Arc<StoreLog>,
    rooms: Arc<Rooms>,
    metrics: Arc<Metrics>,
    quota: StoreQuota,
    counts: RefCell<ReplicaCounts>,
    /// What has come, or goes on in a later commit so that others get their turn.
    waiting: AppendQueue<Work>,
    /// Stores of which there may be something to pack.
    to_pack: BTreeSet<StoreId>,
    /// When to remove more of what deleted stores have left behind, if there may be something.
    sweep_at: Option<Instant>,
}

impl Writing {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut is_over = false;
        match self.log.to_pack(LOOSE_PAGES_MAX, PACK_RESUMED_MAX) {
            Ok(stores) => self.to_pack.extend(stores),
            Err(error) => {
                self.metrics.storage_failures.inc();
                tracing::error!(code = error.code(), %error, "cannot look for what to pack");
            }
        }
        while !is_over || !self.waiting.is_empty() {
            // A session has one append on its way at a time, so this comes to an end.
            while !is_over {
                match self.next_job(jobs, !self.waiting.is_empty()) {
                    Ok(Job::Write(append, reply)) => {
                        let (author, bytes) = (Arc::clone(&append.author), append.memory());
                        let work = Work { append, so_far: Appended::default(), reply };
                        self.waiting.push(&author.subject, bytes, work);
                    }
                    Ok(Job::Sweep) => self.sweep_at = Some(Instant::now()),
                    Ok(Job::Stop) | Err(TryRecvError::Disconnected) => is_over = true,
                    Err(TryRecvError::Empty) => break,
                }
            }
            let group = self.waiting.take_group();
            if !group.is_empty() {
                self.commit(group);
            }
            if !is_over {
                self.pack();
                self.sweep();
            }
        }
    }

    /// The next job. Waits for one if nothing else is to be done until then.
    fn next_job(&self, jobs: &Receiver<Job>, is_busy: bool) -> Result<Job, TryRecvError> {
        if is_busy || !self.to_pack.is_empty() {
            return jobs.try_recv();
        }
        let Some(sweep_at) = self.sweep_at else {
            return jobs.recv().map_err(|_| TryRecvError::Disconnected);
        };
        let left = sweep_at.saturating_duration_since(Instant::now());
        jobs.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => TryRecvError::Empty,
            RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
        })
    }

    /// Commits a group. A store whose rows are damaged fails alone: the others go on without it.
    fn commit(&mut self, mut group: Vec<Work>) {
        while !group.is_empty() {
            let begun = Instant::now();
            let rooms = Arc::clone(&self.rooms);
            let publishing = rooms.publishing();
            match self.write(&group) {
                Ok(outcomes) => {
                    let changes = outcomes.iter().map(|appended| appended.new.len()).sum();
                    self.metrics.committed(changes, begun.elapsed());
                    let limits = outcomes.iter().filter_map(|appended| appended.limit);
                    limits.for_each(|limit| self.metrics.limit_hit(limit));
                    publish(&publishing, &group, &outcomes);
                    // The last one first, so that what is left waits in the order in which it came.
                    for (work, appended) in group.drain(..).zip(outcomes).rev() {
                        self.settle(work, appended);
                    }
                }
                Err(Unwritten { error, store }) => {
                    self.metrics.storage_failures.inc();
                    tracing::error!(code = error.code(), %error, ?store, "cannot write");
                    self.publish_ends(&publishing, &group);
                    let is_hit = |work: &mut Work| {
                        store.as_ref().is_none_or(|store| work.append.store == *store)
                    };
                    for work in group.extract_if(.., is_hit) {
                        // The client may have left meanwhile.
                        let _gone = work.reply.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Lets the members of each room hear how long the log is. What the disk failed with may have
    /// become durable all the same, and nobody need send it again.
    fn publish_ends(&self, publishing: &Publishing<'_>, group: &[Work]) {
        let stores: BTreeSet<&StoreId> = group.iter().map(|work| &work.append.store).collect();
        for store in stores {
            // With a disk that cannot be read either they hear of it from whoever appends or comes
            // next.
            if let Ok(end) = self.log.end(store) {
                publishing.publish(store, end, &[]);
            }
        }
    }

    /// Writes a group in one transaction.
    fn write(&self, group: &[Work]) -> Result<Vec<Appended>, Unwritten> {
        let at_work = RefCell::new(None);
        let outcomes = self.log.write_log(|write| {
            let appender = Appender::begin(write, SystemTime::now())?;
            let mut appender = appender.within(self.quota, &self.counts);
            let append = |work: &Work| {
                let Append { store, author, changes, skips_lacking, .. } = &work.append;
                at_work.replace(Some(store.clone()));
                let skips_lacking = *skips_lacking || !work.so_far.foreign.is_empty();
                appender.go_on(store, author, changes, skips_lacking, work.so_far.found)
            };
            let appended = group.iter().map(append).collect::<Result<Vec<_>, Failure>>()?;
            appender.finish(|store| {
                at_work.replace(Some(store.clone()));
            })?;
            at_work.replace(None);
            Ok(appended)
        });
        outcomes.map_err(|error| {
            self.counts.borrow_mut().clear();
            // What else fails is no fault of the store at which it was noticed.
            let is_damaged = matches!(error, StorageError::Corrupt { .. });
            Unwritten { error, store: at_work.take().filter(|_| is_damaged) }
        })
    }

    /// Answers what was asked for, unless some of it is left for the next commit.
    fn settle(&mut self, mut work: Work, appended: Appended) {
        if !appended.new.is_empty() {
            self.to_pack.insert(work.append.store.clone());
        }
        let so_far = &mut work.so_far;
        so_far.stored.merge(&appended.stored);
        for foreign in appended.foreign {
            if so_far.foreign.iter().all(|(known, _)| *known != foreign.0) {
                so_far.foreign.push(foreign);
            }
        }
        (so_far.refused, so_far.found) = (appended.refused, appended.found);
        so_far.end = so_far.end.max(appended.end);
        if appended.left > 0 {
            let done = work.append.changes.len() - appended.left;
            work.append.changes.drain(..done);
            let (author, bytes) = (Arc::clone(&work.append.author), work.append.memory());
            self.waiting.put_back(&author.subject, bytes, work);
        } else {
            let _gone = work.reply.send(Ok(work.so_far));
        }
    }

    /// Removes some of what deleted stores have left behind, if it is time to. After a failure it
    /// is tried again in a while: what was deleted to make room has to give it once the disk lets
    /// it.
    fn sweep(&mut self) {
        let now = Instant::now();
        if self.sweep_at.is_none_or(|at| at > now) {
            return;
        }
        self.sweep_at = match self.log.sweep_deleted() {
            Ok(is_more) => is_more.then_some(now),
            Err(error) => {
                self.metrics.storage_failures.inc();
                tracing::error!(code = error.code(), %error, "cannot remove deleted stores");
                Some(now + SWEEP_RETRY)
            }
        };
    }

    /// Packs one part of one store, if a look at a few of them finds one where it is time to.
    fn pack(&mut self) {
        for _ in 0..PACK_LOOKS_MAX {
            let Some(store) = self.to_pack.pop_first() else { return };
            match self.log.pack(&store, LOOSE_PAGES_MAX) {
                Ok(false) => {}
                Ok(true) => {
                    self.to_pack.insert(store);
                    return;
                }
                // What is there can be read as it could before.
                Err(error) => {
                    self.metrics.storage_failures.inc();
                    tracing::error!(code = error.code(), %error, %store, "cannot pack");
                }
            }
        }
    }
}

/// Lets the members of each room hear of all that was appended to it, at once.
fn publish(publishing: &Publishing<'_>, group: &[Work], outcomes: &[Appended]) {
    let mut new: HashMap<&StoreId, (u64, Vec<_>)> = HashMap::new();
    for (work, appended) in group.iter().zip(outcomes) {
        let from = || (appended.from, Vec::new());
        let (_, changes) = new.entry(&work.append.store).or_insert_with(from);
        changes.extend(appended.new.iter().cloned());
    }
    for (store, (from, changes)) in new {
        publishing.publish(store, from, &changes);
    }
}

impl Append {
    fn memory(&self) -> usize {
        self.changes.iter().map(Checked::memory).sum()
    }
}

#[cfg(test)]
mod tests;
