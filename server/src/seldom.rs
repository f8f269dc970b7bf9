//! Telling only so often what others can make happen as often as they like.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often something is still told in the present minute.
#[derive(Debug)]
pub(crate) struct Seldom {
    per_minute: u32,
    minute: Mutex<Minute>,
}

#[derive(Debug)]
struct Minute {
    since: Instant,
    left: u32,
    passed_over: u64,
}

impl Seldom {
    pub(crate) const fn new(per_minute: u32, now: Instant) -> Self {
        let minute = Minute { since: now, left: per_minute, passed_over: 0 };
        Self { per_minute, minute: Mutex::new(minute) }
    }

    /// Whether it may be told once more: then how often it was not, since the last time that it
    /// was.
    pub(crate) fn take(&self, now: Instant) -> Option<u64> {
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(minute.since) >= Duration::from_secs(60) {
            (minute.since, minute.left) = (now, self.per_minute);
        }
        let Some(left) = minute.left.checked_sub(1) else {
            minute.passed_over += 1;
            return None;
        };
        minute.left = left;
        Some(std::mem::take(&mut minute.passed_over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_often_in_a_minute_and_then_it_is_told_how_often_it_was_not() {
        let now = Instant::now();
        let seldom = Seldom::new(3, now);
        assert!((0..3).all(|_| seldom.take(now) == Some(0)));
        assert_eq!((seldom.take(now), seldom.take(now)), (None, None));
        let later = now + Duration::from_secs(61);
        assert_eq!((seldom.take(later), seldom.take(later)), (Some(2), Some(0)));
    }
}
