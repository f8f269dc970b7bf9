//! The thread that writes the relay's file. One commit takes whatever all clients have sent
//! meanwhile, and nobody hears of anything before it is durable.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use sds_engine::Change;
use sds_sync::database::Failure;
use sds_sync::{StorageError, StoreId};
use tokio::sync::oneshot;

use crate::limits::GROUP_BYTES_GOAL;
use crate::metrics::Metrics;
use crate::rooms::Rooms;
use crate::store_log::{Appended, Author, StoreLog, append};

/// What is to be written.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) store: StoreId,
    /// Who sends it.
    pub(crate) author: Arc<Author>,
    pub(crate) changes: Vec<Change>,
    /// Whether changes that lack something are passed over instead of refused.
    pub(crate) skips_lacking: bool,
}

/// What became of the work, once it is durable.
pub(crate) type Outcome = Result<Appended, StorageError>;

/// Resolves to the outcome, or to an error if the writer has stopped.
pub(crate) type Reply = oneshot::Receiver<Outcome>;

enum Job {
    Write(Append, oneshot::Sender<Outcome>),
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
    ) -> (Self, JoinHandle<()>) {
        let (sender, jobs) = channel();
        let thread = std::thread::spawn(move || run(&log, &rooms, &metrics, &jobs));
        (Self { jobs: sender }, thread)
    }

    /// Appends changes.
    pub(crate) fn append(&self, work: Append) -> Reply {
        let (sender, receiver) = oneshot::channel();
        // If the writer has stopped, the sender is gone with the job, and the reply says so.
        let _stopped = self.jobs.send(Job::Write(work, sender));
        receiver
    }

    /// Lets the writer end, after what was asked for before.
    pub(crate) fn stop(&self) {
        // If it has ended already, that is what was wanted.
        let _ended = self.jobs.send(Job::Stop);
    }
}

fn run(log: &StoreLog, rooms: &Rooms, metrics: &Metrics, jobs: &Receiver<Job>) {
    let mut is_over = false;
    while !is_over {
        let mut group = Vec::new();
        let mut size = 0;
        let mut job = jobs.recv().unwrap_or(Job::Stop);
        loop {
            match job {
                Job::Write(work, reply) => {
                    size += work.size();
                    group.push((work, reply));
                }
                Job::Stop => is_over = true,
            }
            if is_over || size > GROUP_BYTES_GOAL {
                break;
            }
            let Ok(next) = jobs.try_recv() else { break };
            job = next;
        }
        if !group.is_empty() {
            commit(log, rooms, metrics, group);
        }
    }
}

fn commit(
    log: &StoreLog,
    rooms: &Rooms,
    metrics: &Metrics,
    group: Vec<(Append, oneshot::Sender<Outcome>)>,
) {
    let begun = Instant::now();
    let outcomes = log.write(|write| {
        let append = |(work, _): &(Append, _)| {
            append(write, &work.store, &work.author, &work.changes, work.skips_lacking)
        };
        group.iter().map(append).collect::<Result<Vec<_>, Failure>>()
    });
    match outcomes {
        Ok(outcomes) => {
            let changes = outcomes.iter().map(|appended| appended.new.len()).sum();
            metrics.committed(changes, begun.elapsed());
            for ((work, reply), appended) in group.into_iter().zip(outcomes) {
                rooms.publish(&work.store, appended.from, &appended.new);
                // The client may have left meanwhile.
                let _gone = reply.send(Ok(appended));
            }
        }
        Err(error) => {
            metrics.storage_failures.inc();
            tracing::error!(code = error.code(), %error, "cannot write");
            for (_, reply) in group {
                let _gone = reply.send(Err(error.clone()));
            }
        }
    }
}

impl Append {
    fn size(&self) -> usize {
        self.changes.iter().map(|change| change.bytes().len()).sum()
    }
}
