//! What was measured, beside what is asked for.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;

/// Rows of figures.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<[String; 3]>,
}

impl Report {
    /// Adds a row, and shows it at once.
    pub(crate) fn add(&mut self, name: &str, measured: String, target: &str) {
        // Nobody has to listen.
        let _shown = writeln!(io::stderr(), "{name}: {measured} (target {target})");
        self.rows.push([name.to_owned(), measured, target.to_owned()]);
    }

    /// Prints all rows as a table.
    pub(crate) fn print(&self) -> Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "| row | measured | target |\n|---|---|---|")?;
        for [name, measured, target] in &self.rows {
            writeln!(out, "| {name} | {measured} | {target} |")?;
        }
        Ok(())
    }
}

/// Durations, to be asked which of them are how long.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {}, p99 {}", millis(self.p50()), millis(self.p99()))
    }
}

impl Latencies {
    pub(crate) fn from(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Self(durations)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The median.
    pub(crate) fn p50(&self) -> Duration {
        self.per_mille(500)
    }

    /// What 99 of 100 stay within.
    pub(crate) fn p99(&self) -> Duration {
        self.per_mille(990)
    }

    fn per_mille(&self, part: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0.get((self.0.len() * part / 1_000).min(last)).copied().unwrap_or_default()
    }
}

/// What each of `count` took, in microseconds.
pub(crate) fn micros_each(time: Duration, count: usize) -> String {
    format!("{:.1} us", time.as_secs_f64() * 1e6 / count as f64)
}

/// Milliseconds, to two places.
pub(crate) fn millis(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}
