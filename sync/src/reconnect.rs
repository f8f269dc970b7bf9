//! What follows a connection that ended: another one after a pause, or nothing.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::limits::COME_BACK_MAX;
use crate::link::LinkError;
use crate::message::RefusalCode;
use crate::sync_engine::SyncError;

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextAttempt {
    /// Another connection, after this pause.
    Retry(Duration),
    /// Nothing: the relay would refuse again, and only a person can help.
    Refused {
        /// Why.
        code: RefusalCode,
        /// Why, for a person.
        message: String,
    },
    /// Nothing: the engine has ended.
    Stopped,
}

/// Remembers how the last connections ended.
#[derive(Clone, Debug, Default)]
pub struct Reconnect {
    backoff: Backoff,
    was_forked: bool,
}

impl Reconnect {
    /// No connection has ended yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What follows a connection that ended so; `was_open` says whether the store was open,
    /// `random` decides where the pause falls.
    pub fn after(&mut self, failure: LinkError, was_open: bool, random: u32) -> NextAttempt {
        if was_open && failure.is_mere_loss() {
            self.backoff.reset();
        }
        let mut delay = self.backoff.next_delay(random);
        if let LinkError::Refused { after: Some(pause), .. } = failure {
            // Not all at once, either: some take up to twice as long.
            let share = f64::from(random) / f64::from(u32::MAX);
            delay = pause.min(COME_BACK_MAX).mul_f64(1.0 + share);
        }
        match failure {
            // Another copy of this file may have been faster; the next connection will see that.
            LinkError::Refused { code: RefusalCode::Forked, .. } if !self.was_forked => {
                self.was_forked = true;
                NextAttempt::Retry(delay)
            }
            LinkError::Refused { code, message, .. }
            | LinkError::Engine(SyncError::Refused { code, message })
                if code.is_final() =>
            {
                NextAttempt::Refused { code, message }
            }
            LinkError::Engine(SyncError::Stopped) => NextAttempt::Stopped,
            other => {
                self.was_forked &= !matches!(other, LinkError::Reseating | LinkError::NotYours);
                NextAttempt::Retry(delay)
            }
        }
    }

    /// How many attempts have failed since the last success.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.backoff.attempt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forked() -> LinkError {
        LinkError::Refused { code: RefusalCode::Forked, message: String::new(), after: None }
    }

    #[test]
    fn a_fork_is_final_only_if_comparing_the_seats_did_not_help() {
        let mut reconnect = Reconnect::new();
        assert!(matches!(reconnect.after(forked(), true, 0), NextAttempt::Retry(_)));
        assert!(matches!(reconnect.after(LinkError::Reseating, false, 0), NextAttempt::Retry(_)));
        assert!(matches!(reconnect.after(forked(), true, 0), NextAttempt::Retry(_)));
        assert!(matches!(reconnect.after(LinkError::Ended, true, 0), NextAttempt::Retry(_)));
        assert!(matches!(reconnect.after(forked(), true, 0), NextAttempt::Refused { .. }));
    }

    #[test]
    fn a_relay_says_when_to_come_back_but_not_never() {
        let stopping = |after| LinkError::Refused {
            code: RefusalCode::ShuttingDown,
            message: String::new(),
            after: Some(after),
        };
        let mut reconnect = Reconnect::new();
        let second = Duration::from_secs(1);
        assert_eq!(reconnect.after(stopping(second), true, 0), NextAttempt::Retry(second));
        let late = reconnect.after(stopping(second), true, u32::MAX);
        assert_eq!(late, NextAttempt::Retry(2 * second));
        let never = reconnect.after(stopping(Duration::MAX), true, 0);
        assert_eq!(never, NextAttempt::Retry(COME_BACK_MAX));
    }

    #[test]
    fn a_relay_that_takes_no_id_is_asked_less_and_less_often() {
        let mut reconnect = Reconnect::new();
        let mut pause = |failure| match reconnect.after(failure, true, u32::MAX) {
            NextAttempt::Retry(pause) => pause,
            other => panic!("{other:?}"),
        };
        let pauses = [(); 4].map(|()| pause(LinkError::NotYours));
        assert!(pauses.is_sorted_by(|former, next| former < next), "{pauses:?}");
        assert_eq!(pause(LinkError::Reseating), pauses[0], "that is another matter");
    }

    #[test]
    fn only_a_loss_of_an_open_store_starts_the_pauses_anew() {
        let mut reconnect = Reconnect::new();
        for attempt in 1..4 {
            assert!(matches!(reconnect.after(LinkError::Ended, false, 0), NextAttempt::Retry(_)));
            assert_eq!(reconnect.attempt(), attempt);
        }
        assert!(matches!(reconnect.after(LinkError::Ended, true, 0), NextAttempt::Retry(_)));
        assert_eq!(reconnect.attempt(), 1);
        let stopped = LinkError::Engine(SyncError::Stopped);
        assert_eq!(reconnect.after(stopped, true, 0), NextAttempt::Stopped);
    }
}
