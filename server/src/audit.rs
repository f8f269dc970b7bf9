//! Who did what to the relay: a file of JSON lines that only grows.
//!
//! A thread of its own writes it, so that nobody waits for it but who asked for the deed. Lines
//! that come together are synced together. The file is opened for each batch: it may be renamed
//! meanwhile, and is then begun anew. Tokens and contents never get here.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::limits::{AUDIT_FAILURES_PER_MINUTE_MAX, AUDIT_QUEUE_MAX};
use crate::lines_file;
use crate::metrics::Metrics;
use crate::seldom::Seldom;

/// The name of the file in the relay's folder.
const FILE: &str = "audit.jsonl";

/// The most lines that are written at once.
const BATCH_MAX: usize = 64;

/// A deed, to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deed {
    fields: Map<String, Value>,
}

/// The line could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot write the audit log")]
pub(crate) struct AuditFailed;

struct Job {
    line: Vec<u8>,
    reply: Option<oneshot::Sender<Result<(), AuditFailed>>>,
}

/// The way to the file.
#[derive(Debug)]
pub(crate) struct Audit {
    jobs: Mutex<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    failures: Seldom,
}

impl Deed {
    /// A deed of this kind, done now.
    pub(crate) fn new(action: &'static str) -> Self {
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        Self { fields: Map::new() }.with("time", time).with("action", action)
    }

    /// Says more about it.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    fn line(self) -> Vec<u8> {
        let mut line = Value::Object(self.fields).to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

impl Audit {
    /// Opens the file in `folder`, or makes it, and starts the thread that writes it.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn open(folder: &Path, metrics: Arc<Metrics>) -> io::Result<Self> {
        let path = folder.join(FILE);
        lines_file::append(&path, &[])?;
        let (jobs, queue) = sync_channel(AUDIT_QUEUE_MAX);
        let thread = std::thread::spawn(move || run(&path, &queue, &metrics));
        let failures = Seldom::new(AUDIT_FAILURES_PER_MINUTE_MAX, Instant::now());
        Ok(Self { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)), failures })
    }

    /// Writes a deed; on disk when this returns.
    ///
    /// # Errors
    /// If that fails, or there is too much to be written.
    pub(crate) async fn record(&self, deed: Deed) -> Result<(), AuditFailed> {
        let (reply, written) = oneshot::channel();
        self.send(Job { line: deed.line(), reply: Some(reply) })?;
        written.await.unwrap_or(Err(AuditFailed))
    }

    /// Writes that somebody was turned away, and who it was as far as that is known, without
    /// waiting. In a minute only so many are written; how many were passed over is told by the
    /// first of the next.
    pub(crate) fn note_refused(&self, from: IpAddr, by: Option<&str>, why: &'static str) {
        let Some(passed_over) = self.failures.take(Instant::now()) else { return };
        let mut deed = Deed::new("refused");
        if let Some(by) = by {
            deed = deed.with("by", by);
        }
        deed = deed.with("from", from.to_string()).with("why", why);
        if passed_over > 0 {
            deed = deed.with("passed_over", passed_over);
        }
        // With a full queue there is no room for it either.
        let _full = self.send(Job { line: deed.line(), reply: None });
    }

    /// Writes what was asked for before, and ends. Waits for the disk.
    pub(crate) fn close(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A thread that panicked has ended too.
            let _joined = thread.join();
        }
    }

    fn send(&self, job: Job) -> Result<(), AuditFailed> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.as_ref().ok_or(AuditFailed)?.try_send(job).map_err(|_| AuditFailed)
    }
}

fn run(path: &Path, queue: &Receiver<Job>, metrics: &Metrics) {
    while let Ok(first) = queue.recv() {
        let batch: Vec<Job> =
            std::iter::once(first).chain(queue.try_iter().take(BATCH_MAX - 1)).collect();
        let lines: Vec<u8> = batch.iter().flat_map(|job| job.line.iter().copied()).collect();
        let written = lines_file::append(path, &lines).map_err(|error| {
            metrics.storage_failures.inc();
            tracing::error!(%error, "cannot write the audit log");
            AuditFailed
        });
        for reply in batch.into_iter().filter_map(|job| job.reply) {
            // Whoever asked may be gone.
            let _gone = reply.send(written);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::net::Ipv4Addr;

    use tempfile::TempDir;

    use super::*;

    fn lines(folder: &TempDir) -> Vec<Value> {
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn deeds_are_lines_that_stay() {
        let folder = TempDir::new().unwrap();
        for round in 0..2_u64 {
            let audit = Audit::open(folder.path(), Arc::default()).unwrap();
            audit
                .record(Deed::new("mint").with("by", "a\n\"b").with("round", round))
                .await
                .unwrap();
            audit.close();
            assert_eq!(audit.record(Deed::new("late")).await, Err(AuditFailed));
        }
        let lines = lines(&folder);
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[1]["action"], &lines[1]["by"]), (&"mint".into(), &"a\n\"b".into()));
        assert_eq!(lines[1]["round"], 1);
        assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'));
    }

    #[tokio::test]
    async fn a_file_that_was_renamed_is_begun_anew() {
        let folder = TempDir::new().unwrap();
        let audit = Audit::open(folder.path(), Arc::default()).unwrap();
        audit.record(Deed::new("one")).await.unwrap();
        std::fs::rename(folder.path().join(FILE), folder.path().join("old")).unwrap();
        audit.record(Deed::new("two")).await.unwrap();
        assert_eq!(lines(&folder).len(), 1);
    }

    /// Goal: a line that was not written whole harms no other. Method: half of one, as a full disk
    /// or a crash leaves it, before the file is opened and while it is.
    #[tokio::test]
    async fn half_a_line_swallows_no_other() {
        let folder = TempDir::new().unwrap();
        let tear = || {
            let mut file =
                OpenOptions::new().create(true).append(true).open(folder.path().join(FILE));
            file.as_mut().unwrap().write_all(b"{\"action\":\"mi").unwrap();
        };
        tear();
        let audit = Audit::open(folder.path(), Arc::default()).unwrap();
        audit.record(Deed::new("one")).await.unwrap();
        tear();
        audit.record(Deed::new("two")).await.unwrap();
        let actions: Vec<Value> =
            lines(&folder).iter().map(|line| line["action"].clone()).collect();
        assert_eq!(actions, ["one", "two"]);
    }

    #[tokio::test]
    async fn a_line_that_cannot_be_written_is_told_and_counted() {
        let (folder, metrics) = (TempDir::new().unwrap(), Arc::<Metrics>::default());
        let audit = Audit::open(folder.path(), Arc::clone(&metrics)).unwrap();
        std::fs::remove_file(folder.path().join(FILE)).unwrap();
        std::fs::create_dir(folder.path().join(FILE)).unwrap();
        assert_eq!(audit.record(Deed::new("one")).await, Err(AuditFailed));
        assert_eq!(metrics.storage_failures.get(), 1);
    }

    #[tokio::test]
    async fn whoever_tries_often_fills_no_disk() {
        let folder = TempDir::new().unwrap();
        let audit = Audit::open(folder.path(), Arc::default()).unwrap();
        for _ in 0..AUDIT_FAILURES_PER_MINUTE_MAX + 10 {
            audit.note_refused(Ipv4Addr::LOCALHOST.into(), None, "invalid token");
        }
        audit.close();
        assert_eq!(lines(&folder).len(), AUDIT_FAILURES_PER_MINUTE_MAX as usize);
    }
}
