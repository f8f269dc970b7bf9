//! A thread for work that takes long and that can wait: it gives way to all others.
//!
//! Work on the runtime's own threads for what blocks is as good as that of those who serve everybody. Then what a
//! client sends, if it is large, holds up what all others send, which is small.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// The way to the thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Chores {
    jobs: Sender<Job>,
}

impl Chores {
    /// Starts the thread.
    pub(crate) fn start() -> Self {
        let (jobs, work) = channel::<Job>();
        thread::spawn(move || {
            yield_to_others();
            work.into_iter().for_each(|job| job());
        });
        Self { jobs }
    }

    /// Does `work` when all that was asked for before is done; none if it panics. Goes on if it is no longer
    /// waited for.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, done) = oneshot::channel();
        let job = move || {
            // What it worked on is gone with it, and the thread is needed for others.
            if let Ok(done) = catch_unwind(AssertUnwindSafe(work)) {
                let _nobody_waits = sender.send(done);
            }
        };
        // The thread lives as long as this does.
        let _is_there = self.jobs.send(Box::new(job));
        done.await.ok()
    }
}

/// How far the thread gives way, from 0 to 19: while others want all processors, it gets a tenth of what
/// one of them gets, so that large frames still pass.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Lets this thread give way to all others of its process, where the system knows of that.
fn yield_to_others() {
    #[cfg(target_os = "linux")]
    {
        let thread = Some(rustix::thread::gettid());
        // Where it is forbidden, as a filter of system calls may, the thread works as others do.
        let lowered = rustix::process::getpriority_process(thread)
            .and_then(|nice| rustix::process::setpriority_process(thread, nice.max(NICE)));
        if let Err(error) = lowered {
            tracing::warn!(%error, "long work does not give way to short work");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn work_is_done_in_order_and_what_panics_harms_nobody() {
        let chores = Chores::start();
        let (sender, order) = channel();
        let chore = |number: u8| {
            let sender = sender.clone();
            chores.run(move || {
                assert_ne!(number, 1, "this one panics");
                sender.send(number).unwrap();
                number
            })
        };
        let done = tokio::join!(chore(0), chore(1), chore(2));
        assert_eq!(done, (Some(0), None, Some(2)));
        assert_eq!(order.try_iter().collect::<Vec<_>>(), [0, 2]);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_thread_gives_way_and_no_other_does() {
        let nice = || rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        let before = nice();
        let chores = Chores::start();
        assert_eq!(chores.run(nice).await, Some(NICE.max(before)));
        assert_eq!(nice(), before);
    }

    /// Goal: the unit that is shipped does not forbid what the thread does. Method: its filters in
    /// turn, of which the last that names a call counts.
    #[test]
    fn the_unit_lets_the_thread_give_way() {
        let unit = include_str!("../deploy/sds-relay.service");
        let filters = unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter="));
        let has_it = |filter: &str| {
            let mut names = filter.trim_start_matches('~').split(' ');
            names.any(|name| ["setpriority", "@resources", "@system-service"].contains(&name))
        };
        let last = filters.rev().find(|filter| has_it(filter));
        assert!(last.is_some_and(|filter| !filter.starts_with('~')), "{last:?}");
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_done() {
        let chores = Chores::start();
        let (sender, done) = channel();
        {
            let asking = pin!(chores.run(move || sender.send(()).unwrap()));
            let _too_early = asking.poll(&mut Context::from_waker(Waker::noop()));
        }
        chores.run(|| ()).await.unwrap();
        done.try_recv().unwrap();
    }
}
