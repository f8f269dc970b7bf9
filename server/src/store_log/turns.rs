//! Turns at the one place where the relay's file is written.
//!
//! redb lets one transaction write at a time, and of those who wait any may be next. Here it is who
//! has waited longest, so that the log waits for no more of the others than were there before it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Who writes, and who is next.
#[derive(Debug, Default)]
pub(super) struct WriteTurns {
    tickets: Mutex<Tickets>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct Tickets {
    /// The one that is given out next.
    next: u64,
    /// The one whose turn it is.
    now: u64,
}

/// Leave to write, until it is dropped.
#[derive(Debug)]
pub(super) struct WriteTurn<'a>(&'a WriteTurns);

impl WriteTurns {
    /// Waits for leave to write.
    pub(super) fn take(&self) -> WriteTurn<'_> {
        let mut tickets = self.lock();
        let own = tickets.next;
        tickets.next += 1;
        while tickets.now != own {
            tickets = self.called.wait(tickets).unwrap_or_else(PoisonError::into_inner);
        }
        WriteTurn(self)
    }

    fn lock(&self) -> MutexGuard<'_, Tickets> {
        // No code under this lock can leave it half changed.
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WriteTurn<'_> {
    fn drop(&mut self) {
        self.0.lock().now += 1;
        self.0.called.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_longest_is_next() {
        let (turns, order) = (WriteTurns::default(), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            let first = turns.take();
            for number in 0..20_u64 {
                let (turns, order) = (&turns, &order);
                scope.spawn(move || {
                    let _turn = turns.take();
                    order.lock().unwrap().push(number);
                });
                while turns.lock().next < number + 2 {
                    std::thread::yield_now();
                }
            }
            assert!(order.lock().unwrap().is_empty(), "one at a time");
            drop(first);
        });
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
    }
}
