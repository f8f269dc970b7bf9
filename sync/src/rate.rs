//! A token bucket: so much a second, and up to a second's worth at once.

use std::time::{Duration, Instant};

/// What somebody may still do, which grows back with time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    per_second: f64,
    /// How much was left at `since`; below nothing is debt.
    left: f64,
    since: Instant,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, left: per_second, since: now }
    }

    /// Gives more or less from now on; it is full then.
    pub fn set_rate(&mut self, per_second: u32, now: Instant) {
        *self = Self::new(per_second, now);
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let has_one = self.left >= 1.0;
        if has_one {
            self.left -= 1.0;
        }
        has_one
    }

    /// Takes `amount`, which has been used already; says how long nothing further is to be used, so that
    /// what was taken too much grows back.
    pub fn spend(&mut self, amount: u32, now: Instant) -> Duration {
        self.refill(now);
        self.left -= f64::from(amount);
        Duration::try_from_secs_f64((-self.left / self.per_second).max(0.0)).unwrap_or_default()
    }

    /// When there is one again.
    pub fn next(&mut self, now: Instant) -> Instant {
        self.refill(now);
        let wait = Duration::try_from_secs_f64((1.0 - self.left).max(0.0) / self.per_second);
        // Rounded up, so that there is one then.
        let rounding = Duration::from_micros(if self.left < 1.0 { 1 } else { 0 });
        now + wait.unwrap_or_default() + rounding
    }

    /// Whether there is not even one left.
    pub fn is_empty(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left < 1.0
    }

    /// Whether nothing is known of it that a new one would not know.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left >= self.per_second
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.left = passed.mul_add(self.per_second, self.left).min(self.per_second);
        self.since = self.since.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_may_come_at_once_and_then_it_comes_at_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, start);
        assert_eq!((0..20).filter(|_| bucket.take(start)).count(), 10);
        let at = |tenths: u64| start + Duration::from_millis(100 * tenths + 1);
        for tenth in 1..50 {
            assert!(bucket.take(at(tenth)));
            assert!(!bucket.take(at(tenth)));
        }
        assert!(!bucket.is_full(at(50)));
        assert!(bucket.is_full(at(61)), "it grows back");
        assert_eq!((0..20).filter(|_| bucket.take(at(1_000))).count(), 10, "and no further");
    }

    #[test]
    fn it_is_known_when_there_is_one_again() {
        let start = Instant::now();
        for per_second in [1, 3, 7, 1_000] {
            let mut bucket = Bucket::new(per_second, start);
            assert_eq!(bucket.next(start), start);
            while bucket.take(start) {}
            let next = bucket.next(start);
            assert!(next > start && bucket.take(next), "{per_second}");
        }
    }

    #[test]
    fn who_has_used_too_much_waits_until_it_has_grown_back() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, start);
        assert_eq!(bucket.spend(100, start), Duration::ZERO, "the bound itself is free");
        assert_eq!(bucket.spend(50, start), Duration::from_millis(500));
        assert_eq!(bucket.spend(0, start + Duration::from_millis(400)), Duration::from_millis(100));
        let later = start + Duration::from_millis(600);
        assert_eq!(bucket.spend(10, later), Duration::ZERO);
        let backwards = bucket.spend(0, start);
        assert_eq!(backwards, Duration::ZERO, "a clock that stands still is harmless");
    }
}
