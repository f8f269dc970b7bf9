//! Whether the relay's disk is well.
//!
//! It is asked by writing to it: an empty transaction that has to be durable in time, as any
//! client's change has. The answer holds for a moment, so that asking often costs nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How long an answer of the disk holds.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// How long the disk may take to answer.
const PROBE_TIME: Duration = Duration::from_secs(5);

/// What is known of the disk. It is asked once at a time: a disk that hangs keeps one thread,
/// however often somebody wants to know.
#[derive(Debug, Default)]
pub(crate) struct DiskProbe {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Since when it is being asked, if it is.
    asked: Option<Instant>,
    last: Option<(Instant, bool)>,
}

impl DiskProbe {
    /// Whether the relay's file can be written, as `write` finds out, which may wait for the disk.
    /// Says no if that takes too long.
    pub(crate) async fn is_good(&self, write: impl FnOnce() -> bool + Send + 'static) -> bool {
        let mut answers = self.state.subscribe();
        let mut last = None;
        let mut deadline = Instant::now() + PROBE_TIME;
        let begins = self.state.send_if_modified(|state| {
            last = state.last.filter(|(at, _)| at.elapsed() < PROBE_INTERVAL);
            if let Some(asked) = state.asked {
                deadline = asked + PROBE_TIME;
            }
            let begins = last.is_none() && state.asked.is_none();
            if begins {
                state.asked = Some(Instant::now());
            }
            begins
        });
        if let Some((_, is_good)) = last {
            return is_good;
        }
        if begins {
            let state = Arc::clone(&self.state);
            tokio::task::spawn_blocking(move || {
                let is_good = write();
                state.send_replace(State { asked: None, last: Some((Instant::now(), is_good)) });
            });
        }
        let answered = timeout_at(deadline, answers.wait_for(|state| state.asked.is_none())).await;
        matches!(answered, Ok(Ok(state)) if state.last.is_some_and(|(_, is_good)| is_good))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    /// Goal: a disk that hangs is asked once, whoever asks how often. Method: a write that goes on
    /// when the test says so, and a clock that the test moves.
    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_is_asked_once_and_is_not_good_until_it_answers() {
        let (probe, writes) = (DiskProbe::default(), Arc::new(AtomicUsize::new(0)));
        let (go_on, hangs) = mpsc::channel();
        let begun = Arc::clone(&writes);
        let hanging = move || {
            begun.fetch_add(1, Ordering::Relaxed);
            hangs.recv().is_ok()
        };
        let never = || -> bool { unreachable!("a second write") };
        let mut first = Box::pin(probe.is_good(hanging));
        let mut second = Box::pin(probe.is_good(never));
        assert!(poll_once(&mut first).await.is_none());
        assert!(poll_once(&mut second).await.is_none());
        tokio::time::advance(PROBE_TIME).await;
        assert_eq!((first.await, second.await), (false, false));
        for _ in 0..20 {
            assert!(!probe.is_good(never).await);
        }
        go_on.send(()).unwrap();
        probe.state.subscribe().wait_for(|state| state.asked.is_none()).await.unwrap();
        assert!(probe.is_good(never).await, "what it said in the end holds for a while");
        assert_eq!(writes.load(Ordering::Relaxed), 1);
        tokio::time::advance(PROBE_INTERVAL).await;
        assert!(!probe.is_good(|| false).await, "it is asked again");
    }

    /// Polls once.
    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }
}
