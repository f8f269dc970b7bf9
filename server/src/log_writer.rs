//! The thread that writes the relay's file. One commit takes whatever all clients have sent
//! meanwhile, and nobody hears of anything before it is durable. After each commit, and while nobody
//! sends anything, it packs what was appended, and removes what deleted stores have left behind.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use sds_sync::database::Failure;
use sds_sync::{Checked, CheckedChange, StorageError, StoreId};
use tokio::sync::oneshot;

use crate::limits::{GROUP_BYTES_GOAL, LOOSE_PAGES_MAX, PACK_LOOKS_MAX};
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
            left: Vec::new(),
            to_pack: BTreeSet::new(),
            sweeps: true,
        };
        let thread = std::thread::spawn(move || writing.run(&jobs));
        (Self { jobs: sender }, thread)
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
    /// What goes on in the next commit, so that others got their turn.
    left: Vec<Work>,
    /// Stores of which there may be something to pack.
    to_pack: BTreeSet<StoreId>,
    /// Whether deleted stores may have left something behind.
    sweeps: bool,
}

impl Writing {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut is_over = false;
        while !is_over || !self.left.is_empty() {
            let mut group = std::mem::take(&mut self.left);
            let mut size = 0;
            while !is_over && size <= GROUP_BYTES_GOAL {
                let is_idle = group.is_empty() && self.to_pack.is_empty() && !self.sweeps;
                let next = if is_idle { jobs.recv().ok() } else { jobs.try_recv().ok() };
                match next {
                    Some(Job::Write(append, reply)) => {
                        size += append.size();
                        group.push(Work { append, so_far: Appended::default(), reply });
                    }
                    Some(Job::Sweep) => self.sweeps = true,
                    Some(Job::Stop) => is_over = true,
                    None if is_idle => is_over = true,
                    None => break,
                }
            }
            if !group.is_empty() {
                self.commit(group);
            }
            if !is_over {
                self.pack();
                self.sweep();
            }
        }
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
                    for (work, appended) in group.drain(..).zip(outcomes) {
                        self.settle(work, appended);
                    }
                }
                Err(Unwritten { error, store }) => {
                    self.metrics.storage_failures.inc();
                    tracing::error!(code = error.code(), %error, ?store, "cannot write");
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

    /// Writes a group in one transaction.
    fn write(&self, group: &[Work]) -> Result<Vec<Appended>, Unwritten> {
        let at_work = RefCell::new(None);
        let outcomes = self.log.write(|write| {
            let appender = Appender::begin(write, SystemTime::now())?;
            let mut appender = appender.within(self.quota, &self.counts);
            let append = |work: &Work| {
                let Append { store, author, changes, skips_lacking } = &work.append;
                at_work.replace(Some(store.clone()));
                let skips_lacking = *skips_lacking || !work.so_far.foreign.is_empty();
                appender.append(store, author, changes, skips_lacking)
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
        so_far.refused = appended.refused;
        if appended.left > 0 {
            let done = work.append.changes.len() - appended.left;
            work.append.changes.drain(..done);
            self.left.push(work);
        } else {
            let _gone = work.reply.send(Ok(work.so_far));
        }
    }

    fn sweep(&mut self) {
        if self.sweeps {
            self.sweeps = self.log.sweep_deleted().unwrap_or_else(|error| {
                self.metrics.storage_failures.inc();
                tracing::error!(code = error.code(), %error, "cannot remove deleted stores");
                false
            });
        }
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
    fn size(&self) -> usize {
        self.changes.iter().map(|change| change.bytes().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use sds_engine::{Change, Op, ReplicaId};
    use tempfile::TempDir;

    use super::*;
    use crate::store_log::tables::STATES;

    fn id(name: &str) -> StoreId {
        StoreId::new(name).unwrap()
    }

    fn append(writer: &LogWriter, store: &str, start: u64) -> Reply {
        let replica = ReplicaId::new(1).unwrap();
        let change = Change::new(replica, start, Vec::new(), &[Op::Skip { count: 1 }]).unwrap();
        let author = Arc::new(Author { subject: "ann".to_owned(), ..Author::default() });
        let (store, changes) = (id(store), vec![change.into()]);
        writer.append(Append { store, author, changes, skips_lacking: false })
    }

    /// Goal: a damaged row hurts its own store alone. Method: changes of three stores that wait for one
    /// commit, the one in the middle damaged so that nothing can be appended to it.
    #[test]
    fn a_damaged_store_fails_alone() {
        let folder = TempDir::new().unwrap();
        let log = Arc::new(StoreLog::open(&folder.path().join("relay.redb")).unwrap());
        let (rooms, metrics) = (Arc::new(Rooms::default()), Arc::new(Metrics::default()));
        let (writer, thread) =
            LogWriter::spawn(Arc::clone(&log), Arc::clone(&rooms), metrics, StoreQuota::UNLIMITED);
        for store in ["a", "b", "c"] {
            append(&writer, store, 0).blocking_recv().unwrap().unwrap();
        }
        let number = log.number_of(&id("b")).unwrap().unwrap();
        log.write(|write| Ok(write.open_table(STATES)?.remove(number)?.map(drop))).unwrap();
        let waits = rooms.publishing();
        let replies = ["a", "b", "b", "c"].map(|store| append(&writer, store, 1));
        drop(waits);
        let outcomes = replies.map(|reply| reply.blocking_recv().unwrap());
        let replica = ReplicaId::new(1).unwrap();
        let told = outcomes.map(|outcome| match outcome {
            Ok(appended) => Ok(appended.stored.next(replica)),
            Err(error) => Err(error.code()),
        });
        assert_eq!(told, [Ok(2), Err("store-corrupt"), Err("store-corrupt"), Ok(2)]);
        for store in ["a", "c"] {
            assert_eq!(log.version(&id(store)).unwrap().next(replica), 2);
        }
        writer.stop();
        thread.join().unwrap();
    }
}
