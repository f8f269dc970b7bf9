//! What was measured: samples by row, workload and engine.

use std::time::Duration;

use crate::engines::Engine;

/// What a row has to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// At most this times the best peer.
    Times(f64),
    /// At most this, in the unit of the row.
    AtMost(f64),
    /// At most this times the best peer, and this times the bare rope.
    TimesAndRope(f64, f64),
    /// No figure to reach; shown for the comparison.
    Shown,
}

/// One line of the tables of targets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) target: Target,
}

impl Row {
    pub(crate) const fn new(name: &'static str, unit: &'static str, target: Target) -> Self {
        Self { name, unit, target }
    }
}

/// The samples of one engine in one row on one workload, a sample a round.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) row: Row,
    pub(crate) workload: String,
    pub(crate) engine: Engine,
    pub(crate) samples: Vec<f64>,
    /// The budget that one measurement passed.
    pub(crate) stopped: Option<Duration>,
    /// How many ops the curve went through to get here; none for what is no curve.
    pub(crate) ops: Option<usize>,
}

/// Everything measured so far, in the order in which it was first seen.
#[derive(Debug, Default)]
pub(crate) struct Board {
    cells: Vec<Cell>,
    notes: Vec<String>,
}

impl Board {
    /// Adds a sample.
    pub(crate) fn record(&mut self, row: Row, workload: &str, engine: Engine, sample: f64) {
        self.cell(row, workload, engine).samples.push(sample);
    }

    /// Adds a sample of a cost curve, at `ops` ops.
    pub(crate) fn record_curve(&mut self, row: Row, ops: usize, engine: Engine, sample: f64) {
        let cell = self.cell(row, &curve_workload(ops), engine);
        cell.ops = Some(ops);
        cell.samples.push(sample);
    }

    /// Notes that a measurement passed its budget.
    pub(crate) fn stop(&mut self, row: Row, workload: &str, engine: Engine, budget: Duration) {
        self.cell(row, workload, engine).stopped = Some(budget);
    }

    /// Notes that a point of a cost curve passed its budget.
    pub(crate) fn stop_curve(&mut self, row: Row, ops: usize, engine: Engine, budget: Duration) {
        let cell = self.cell(row, &curve_workload(ops), engine);
        cell.ops = Some(ops);
        cell.stopped = Some(budget);
    }

    /// Whether a measurement passed its budget before.
    pub(crate) fn is_stopped(&self, row: Row, workload: &str, engine: Engine) -> bool {
        let cell = self.find(row, workload, engine);
        cell.is_some_and(|cell| cell.stopped.is_some())
    }

    /// Adds something that the reader of the tables has to know; once.
    pub(crate) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(crate) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(crate) fn find(&self, row: Row, workload: &str, engine: Engine) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.is(row, workload, engine))
    }

    fn cell(&mut self, row: Row, workload: &str, engine: Engine) -> &mut Cell {
        let known = self.cells.iter().position(|cell| cell.is(row, workload, engine));
        let at = known.unwrap_or_else(|| {
            let (workload, samples) = (workload.to_owned(), Vec::new());
            self.cells.push(Cell { row, workload, engine, samples, stopped: None, ops: None });
            self.cells.len() - 1
        });
        &mut self.cells[at]
    }
}

impl Cell {
    fn is(&self, row: Row, workload: &str, engine: Engine) -> bool {
        self.row.name == row.name && self.workload == workload && self.engine == engine
    }
}

fn curve_workload(ops: usize) -> String {
    format!("{ops} ops")
}
