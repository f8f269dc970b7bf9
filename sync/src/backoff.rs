//! How long to wait before the next connection attempt: exponential, with full jitter.
//!
//! Full jitter spreads the clients of a relay that comes back over the whole interval, where a
//! fixed delay with some noise would send them all at once.

use std::time::Duration;

use crate::limits::{RECONNECT_DELAY_MAX, RECONNECT_DELAY_MIN};

/// Counts failed attempts and draws the pause before the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    attempt: u32,
}

impl Backoff {
    /// No attempt has failed yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { attempt: 0 }
    }

    /// The pause after one more failure; `random` decides where below the ceiling it falls.
    pub fn next_delay(&mut self, random: u32) -> Duration {
        let ceiling = Self::ceiling(self.attempt);
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Starts again after a success.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }

    /// How many attempts have failed since the last success.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    fn ceiling(attempt: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempt).unwrap_or(u32::MAX);
        RECONNECT_DELAY_MIN.saturating_mul(factor).min(RECONNECT_DELAY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_its_bound() {
        let mut backoff = Backoff::new();
        let millis: Vec<u128> = (0..10).map(|_| backoff.next_delay(u32::MAX).as_millis()).collect();
        assert_eq!(millis, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        backoff.reset();
        assert_eq!(backoff.next_delay(u32::MAX), RECONNECT_DELAY_MIN);
    }

    #[test]
    fn jitter_covers_the_whole_interval_and_counting_never_overflows() {
        let mut backoff = Backoff { attempt: u32::MAX };
        assert_eq!(backoff.next_delay(0), Duration::ZERO);
        assert!(backoff.next_delay(u32::MAX / 2) < RECONNECT_DELAY_MAX);
        assert_eq!(backoff.next_delay(u32::MAX), RECONNECT_DELAY_MAX);
    }
}
