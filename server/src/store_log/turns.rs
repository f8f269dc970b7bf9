//! Turns at the one place where the relay's file is written.
//!
//! redb lets one transaction write at a time, and of those who wait any may be next. Here it is the log,
//! for which all clients wait, and between two commits of the log whoever of the others has waited longest. So
//! the log waits for one transaction of the others, and they for one of the log and those before them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long after a commit of the log another one counts as likely.
const BUSY_FOR: Duration = Duration::from_millis(100);

/// Who wants to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The log.
    Log,
    /// Anybody else.
    Other,
}

/// Who writes, and who is next.
#[derive(Debug, Default)]
pub(super) struct WriteTurns {
    state: Mutex<State>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_taken: bool,
    /// How many wait who write for the log.
    logs_waiting: usize,
    /// Whether the last turn was the log's.
    was_log: bool,
    /// When the log's last turn began or ended, if it had any.
    log_at: Option<Instant>,
    /// The ticket that another one gets next.
    next: u64,
    /// The one of those that is next.
    now: u64,
}

/// Leave to write, until it is dropped.
#[derive(Debug)]
pub(super) struct WriteTurn<'a>(&'a WriteTurns);

impl WriteTurns {
    /// Waits for leave to write.
    pub(super) fn take(&self, who: Who) -> WriteTurn<'_> {
        let mut state = self.lock();
        let ticket = state.next;
        match who {
            Who::Log => state.logs_waiting += 1,
            Who::Other => state.next += 1,
        }
        while !state.may_go(who, ticket) {
            state = self.called.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match who {
            Who::Log => {
                state.logs_waiting -= 1;
                state.log_at = Some(Instant::now());
            }
            Who::Other => state.now += 1,
        }
        (state.is_taken, state.was_log) = (true, who == Who::Log);
        WriteTurn(self)
    }

    /// Whether the log is likely to want a turn soon, so that the others' are better short.
    pub(super) fn is_log_busy(&self) -> bool {
        let state = self.lock();
        state.logs_waiting > 0 || state.log_at.is_some_and(|at| at.elapsed() < BUSY_FOR)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under this lock can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    const fn may_go(&self, who: Who, ticket: u64) -> bool {
        let is_logs = self.logs_waiting > 0 && (!self.was_log || self.now == self.next);
        match who {
            _ if self.is_taken => false,
            Who::Log => is_logs,
            Who::Other => !is_logs && self.now == ticket,
        }
    }
}

impl Drop for WriteTurn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_taken = false;
        if state.was_log {
            state.log_at = Some(Instant::now());
        }
        drop(state);
        self.0.called.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_longest_is_next_and_the_log_comes_between() {
        let (turns, order) = (WriteTurns::default(), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            let first = turns.take(Who::Other);
            assert!(!turns.is_log_busy());
            for number in 0..20_u64 {
                let (turns, order) = (&turns, &order);
                scope.spawn(move || {
                    let _turn = turns.take(Who::Other);
                    order.lock().unwrap().push(Some(number));
                });
                while turns.lock().next < number + 2 {
                    std::thread::yield_now();
                }
            }
            let log = scope.spawn(|| {
                for _ in 0..3 {
                    let _turn = turns.take(Who::Log);
                    order.lock().unwrap().push(None);
                }
            });
            while !turns.is_log_busy() {
                std::thread::yield_now();
            }
            assert!(order.lock().unwrap().is_empty(), "one at a time");
            drop(first);
            log.join().unwrap();
        });
        let order = order.into_inner().unwrap();
        let others: Vec<u64> = order.iter().copied().flatten().collect();
        assert_eq!(others, (0..20).collect::<Vec<_>>());
        assert_eq!(order[0], None, "the log waits for nobody but who was there");
        let last = order.iter().rposition(Option::is_some).unwrap();
        let twice = order[..=last].windows(2).any(|two| two == [None, None]);
        assert!(!twice, "and lets another one go between: {order:?}");
        assert!(turns.lock().log_at.is_some());
    }

    #[test]
    fn the_log_goes_on_when_nobody_else_is_there() {
        let turns = WriteTurns::default();
        for who in [Who::Log, Who::Log, Who::Other, Who::Log, Who::Other, Who::Other] {
            drop(turns.take(who));
        }
        let state = turns.lock();
        assert_eq!((state.now, state.next, state.logs_waiting), (3, 3, 0));
    }
}
