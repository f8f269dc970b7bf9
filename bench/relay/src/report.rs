//! What was measured, beside what is asked for.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;

/// Rows of figures, of as many rounds as there have been.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    unit: Unit,
    target: &'static str,
    figures: Vec<f64>,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    PerSecond,
    Micros,
    Millis,
    Mib,
    MegabytesPerSecond,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PerSecond => "/s",
            Self::Micros => " us",
            Self::Millis => " ms",
            Self::Mib => " MiB",
            Self::MegabytesPerSecond => " MB/s",
        })
    }
}

impl Unit {
    /// A figure as it is read.
    fn show(self, figure: f64) -> String {
        let places = if figure < 10.0 { 2 } else { usize::from(figure < 1_000.0) };
        format!("{figure:.places$}{self}")
    }
}

impl Report {
    /// Adds a figure of this round to the row of this name, and shows it at once.
    pub(crate) fn add(&mut self, name: &str, figure: f64, unit: Unit, target: &'static str) {
        // Nobody has to listen.
        let _shown = writeln!(io::stderr(), "{name}: {} (target {target})", unit.show(figure));
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.figures.push(figure),
            None => {
                let (name, figures) = (name.to_owned(), vec![figure]);
                self.rows.push(Row { name, unit, target, figures });
            }
        }
    }

    /// The same for a time, in milliseconds.
    pub(crate) fn add_time(&mut self, name: &str, time: Duration, target: &'static str) {
        self.add(name, time.as_secs_f64() * 1e3, Unit::Millis, target);
    }

    /// The same for what each of `count` took, in microseconds.
    pub(crate) fn add_each(&mut self, name: &str, time: Duration, count: usize) {
        self.add(name, time.as_secs_f64() * 1e6 / count as f64, Unit::Micros, "");
    }

    /// Prints the median, the least and the greatest of each row as a table.
    pub(crate) fn print(&mut self) -> Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "| row | median | least | greatest | rounds | target |")?;
        writeln!(out, "|---|---|---|---|---|---|")?;
        for Row { name, unit, target, figures } in &mut self.rows {
            figures.sort_by(f64::total_cmp);
            let ends = figures.first().copied().zip(figures.last().copied());
            let (Some((least, greatest)), Some(median)) = (ends, figures.get(figures.len() / 2))
            else {
                continue;
            };
            let [median, least, greatest] = [*median, least, greatest].map(|it| unit.show(it));
            let rounds = figures.len();
            writeln!(out, "| {name} | {median} | {least} | {greatest} | {rounds} | {target} |")?;
        }
        Ok(())
    }
}

/// Durations, to be asked which of them are how long.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<Duration>);

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
