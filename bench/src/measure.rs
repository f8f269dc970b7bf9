//! Turns, clocks and heap: how every workload is measured.
//!
//! Engines take turns within a round, so that whatever else the machine does hits all of them. A
//! measurement that passes its budget is given up and never begun again.

use std::hint::black_box;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::HEAP;
use crate::board::{Board, Row};
use crate::engines::Engine;

/// What the command line asked for.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    /// How long one measurement may take.
    pub(crate) budget: Duration,
    pub(crate) engines: Vec<Engine>,
    pub(crate) only: Option<String>,
}

impl Settings {
    /// The size of a workload: `quick` under `--quick`, else `full`.
    pub(crate) const fn size(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// How many ops the cost curves go through.
    pub(crate) fn curve_sizes(&self) -> Vec<usize> {
        let sizes = [1_000, 10_000, 100_000, 1_000_000];
        sizes.into_iter().filter(|size| *size <= self.size(1_000_000, 10_000)).collect()
    }

    /// Whether any of these rows was asked for.
    pub(crate) fn wants(&self, rows: &[Row]) -> bool {
        let Some(only) = &self.only else { return true };
        rows.iter().any(|row| row.name.contains(only.as_str()))
    }
}

/// One engine on one workload.
pub(crate) trait Contestant {
    fn engine(&self) -> Engine;

    /// Measures every row of the workload once.
    fn round(&mut self, board: &mut Board) -> Result<()>;
}

/// Lets the engines take turns. One that fails drops out, and the report says why.
pub(crate) fn take_turns(
    settings: &Settings,
    workload: &str,
    mut contestants: Vec<Box<dyn Contestant>>,
    board: &mut Board,
) {
    for round in 1..=settings.rounds {
        contestants.retain_mut(|contestant| {
            let engine = contestant.engine();
            say(&format!("{workload}: round {round} of {}, {}", settings.rounds, engine.name()));
            match contestant.round(board) {
                Ok(()) => true,
                Err(error) => {
                    board.note(format!("{} on {workload}: {error:#}", engine.name()));
                    false
                }
            }
        });
    }
}

/// Measures some rows after so many ops.
type Climb<'a> = Box<dyn FnMut(usize) -> Result<Vec<(Row, Lap)>> + 'a>;

/// One engine on a cost curve.
pub(crate) struct Climber<'a> {
    engine: Engine,
    climb: Climb<'a>,
    /// How long the last size took, whatever was measured of it, and how many times the one before.
    last: Option<(Duration, f64)>,
}

impl<'a> Climber<'a> {
    pub(crate) fn new(
        engine: Engine,
        climb: impl FnMut(usize) -> Result<Vec<(Row, Lap)>> + 'a,
    ) -> Self {
        Self { engine, climb: Box::new(climb), last: None }
    }

    /// Whether the next size, ten times this, would take far too long.
    fn is_hopeless(&self, budget: Duration) -> bool {
        // Each size is measured in several ways, and prepared.
        const AS_MUCH: u32 = 4;
        self.last.is_some_and(|(time, growth)| time.mul_f64(growth) > budget * AS_MUCH)
    }

    fn climbed(&mut self, time: Duration) {
        let before = self.last.map(|(before, _)| before.as_secs_f64());
        let growth = before.map_or(10.0, |before| (time.as_secs_f64() / before).clamp(10.0, 100.0));
        self.last = Some((time, growth));
    }
}

/// Takes the engines up a cost curve, from size to size. Who runs out of budget stays behind.
pub(crate) fn climb(
    settings: &Settings,
    rows: &[Row],
    sizes: &[usize],
    mut climbers: Vec<Climber<'_>>,
    board: &mut Board,
) {
    const ROUNDS_MAX: usize = 3;
    if !settings.wants(rows) {
        return;
    }
    for (size, round) in sizes
        .iter()
        .flat_map(|size| (0..settings.rounds.min(ROUNDS_MAX)).map(move |at| (*size, at)))
    {
        climbers.retain_mut(|climber| {
            let engine = climber.engine;
            say(&format!("{}, {size} ops: {}", rows[0].name, engine.name()));
            if round == 0 && climber.is_hopeless(settings.budget) {
                rows.iter().for_each(|row| board.stop_curve(*row, size, engine, settings.budget));
                return false;
            }
            let (results, time) = timed(|| (climber.climb)(size));
            if round == 0 {
                climber.climbed(time);
            }
            match results {
                Ok(results) => note_climb(&results, (size, engine), settings.budget, board),
                Err(error) => {
                    board.note(format!("{} on {}: {error:#}", engine.name(), rows[0].name));
                    false
                }
            }
        });
    }
}

/// Notes what was measured; returns whether nothing was stopped.
fn note_climb(
    results: &[(Row, Lap)],
    (size, engine): (usize, Engine),
    budget: Duration,
    board: &mut Board,
) -> bool {
    let mut goes_on = true;
    for (row, lap) in results {
        match lap {
            Lap::Finished(time) => board.record_curve(*row, size, engine, nanos_each(*time, size)),
            Lap::Stopped => {
                board.stop_curve(*row, size, engine, budget);
                goes_on = false;
            }
        }
    }
    goes_on
}

/// How far a loop came within its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lap {
    Finished(Duration),
    /// Out of budget.
    Stopped,
}

/// Runs `step` on every item and then `finish`, unless the budget runs out.
pub(crate) fn lap<T>(
    budget: Duration,
    items: impl IntoIterator<Item = T>,
    mut step: impl FnMut(T) -> Result<()>,
) -> Result<Lap> {
    // Looking at the clock costs as much as the fastest edits, so it is done now and then.
    const STRIDE: usize = 64;
    let started = Instant::now();
    for (at, item) in items.into_iter().enumerate() {
        step(item)?;
        if at % STRIDE == STRIDE - 1 && started.elapsed() > budget {
            return Ok(Lap::Stopped);
        }
    }
    Ok(Lap::Finished(started.elapsed()))
}

/// Times one call; its result is dropped after the clock stops.
pub(crate) fn timed<T>(call: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let result = black_box(call());
    (result, started.elapsed())
}

/// Times a short call several times, for about 50 ms, and returns the median.
pub(crate) fn timed_often<T>(mut call: impl FnMut() -> T) -> Duration {
    const ENOUGH: Duration = Duration::from_millis(50);
    const CALLS_MAX: usize = 51;
    let started = Instant::now();
    let mut times = Vec::new();
    while times.is_empty() || (times.len() < CALLS_MAX && started.elapsed() < ENOUGH) {
        times.push(timed(&mut call).1);
    }
    times.sort_unstable();
    times[times.len() / 2]
}

/// The bytes that are allocated now.
pub(crate) fn live_heap() -> usize {
    HEAP.allocated()
}

/// The heap that has been taken since `before`, in MB.
pub(crate) fn heap_since(before: usize) -> f64 {
    count(live_heap().saturating_sub(before)) / 1e6
}

/// A count as a figure.
pub(crate) fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Microseconds for each of `number`.
pub(crate) fn micros_each(time: Duration, number: usize) -> f64 {
    time.as_secs_f64() * 1e6 / count(number)
}

/// Nanoseconds for each of `number`.
pub(crate) fn nanos_each(time: Duration, number: usize) -> f64 {
    time.as_secs_f64() * 1e9 / count(number)
}

/// Progress, for whoever waits.
pub(crate) fn say(line: &str) {
    // Nobody reading progress is no reason to stop.
    drop(writeln!(io::stderr(), "{line}"));
}

/// Numbers that look random and are the same in every run (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which must not be zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bound = bound as u64;
        usize::try_from((mixed ^ (mixed >> 31)) % bound).expect("less than a usize")
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lap_ends_when_its_budget_does() {
        let mut steps = 0;
        let count = |_| {
            steps += 1;
            Ok(())
        };
        assert_eq!(lap(Duration::ZERO, 0.., count).unwrap(), Lap::Stopped);
        assert_eq!(steps, 64);
        assert!(matches!(lap(Duration::MAX, 0..10, |_| Ok(())), Ok(Lap::Finished(_))));
    }

    #[test]
    fn the_heap_in_use_is_counted() {
        let before = live_heap();
        let kept = vec![0_u8; 10_000_000];
        assert!(heap_since(before) >= 9.0);
        drop(kept);
    }

    #[test]
    fn dice_repeat_themselves() {
        let (mut a, mut b) = (Dice::new(1), Dice::new(1));
        let rolls: Vec<usize> = (0..100).map(|_| a.below(6)).collect();
        assert!(rolls.iter().all(|roll| *roll < 6 && *roll == b.below(6)));
        assert!((0..6).all(|face| rolls.contains(&face)));
    }
}
