//! How often something may happen.

use std::time::{Duration, Instant};

/// How often something may still happen in the present second. Seconds begin with the first time that
/// something happens after the last one is over.
#[derive(Clone, Debug)]
pub struct Allowance {
    per_second: u32,
    since: Instant,
    left: u32,
}

impl Allowance {
    /// For so many times a second.
    #[must_use]
    pub const fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, since: now, left: per_second }
    }

    /// Whether it may happen now; if so it has.
    pub fn take(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(self.per_second, now);
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }

    /// When it may happen next.
    #[must_use]
    pub fn next(&self, now: Instant) -> Instant {
        if self.left > 0 { now } else { self.since + Duration::from_secs(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_than_its_share() {
        let start = Instant::now();
        let mut allowance = Allowance::new(2, start);
        let taken: Vec<bool> = (0..3).map(|_| allowance.take(start)).collect();
        assert_eq!(taken, [true, true, false]);
        let next = allowance.next(start);
        assert_eq!(next, start + Duration::from_secs(1));
        assert!(!allowance.take(start + Duration::from_millis(999)));
        assert_eq!(allowance.next(next), next, "it may happen at once then");
        assert!(allowance.take(next) && allowance.take(next) && !allowance.take(next));
    }
}
