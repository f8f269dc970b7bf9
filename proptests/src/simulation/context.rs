//! What everything in a simulation shares: the time, the dice, and what has happened so far.

use std::fmt;
use std::time::{Duration, Instant};

use sds_engine::ReplicaId;

use crate::dice::Dice;

/// Time, dice and trace.
#[derive(Debug)]
pub(super) struct Context {
    /// How long the simulation has run, by its own clock.
    pub(super) now: Duration,
    pub(super) dice: Dice,
    /// Stands for the beginning where code wants an [`Instant`]; only differences matter.
    epoch: Instant,
    trace: Vec<String>,
}

impl Context {
    pub(super) fn new(seed: u64) -> Self {
        let (dice, epoch) = (Dice::new(seed), Instant::now());
        Self { now: Duration::ZERO, dice, epoch, trace: Vec::new() }
    }

    pub(super) fn instant(&self) -> Instant {
        self.epoch + self.now
    }

    /// When an instant of code is, by the clock of the simulation.
    pub(super) fn time_of(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.epoch)
    }

    /// A time from now on, before so many milliseconds have passed.
    pub(super) fn soon(&mut self, millis: usize) -> Duration {
        self.now + Duration::from_millis(self.dice.roll(millis) as u64)
    }

    /// Any number.
    pub(super) fn number(&mut self) -> u64 {
        let half = 1 << 32;
        (self.dice.roll(half) as u64) << 32 | self.dice.roll(half) as u64
    }

    /// An id that nobody has drawn before.
    pub(super) fn fresh(&mut self) -> ReplicaId {
        loop {
            if let Some(replica) = ReplicaId::new(self.number()) {
                return replica;
            }
        }
    }

    /// Notes what has happened.
    pub(super) fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.push(format!("{:>9.3} {what}", self.now.as_secs_f64()));
    }

    pub(super) fn into_trace(self) -> Vec<String> {
        self.trace
    }
}
