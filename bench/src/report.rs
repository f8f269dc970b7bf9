//! The board as tables for people and as JSON for programs.

use anyhow::Result;
use serde::Serialize;

use crate::board::{Board, Cell, Row, Target};
use crate::engines::Engine;

/// Cost for each op that grows by more than this from one size to the next, ten times larger, is
/// more than n log n: the logarithm grows by a third at most, the rest is caches and noise.
const GROWTH_MAX: f64 = 3.0;

/// Statistics over the samples of one cell.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, min, max })
    }
}

impl Cell {
    /// None for what was stopped: its samples, if any, are no fair ones.
    fn spread(&self) -> Option<Spread> {
        if self.stopped.is_some() { None } else { Spread::of(&self.samples) }
    }
}

/// The median over the rounds of our figure divided by a peer's.
fn ratio(ours: &Cell, peer: &Cell) -> Option<f64> {
    if ours.stopped.is_some() || peer.stopped.is_some() {
        return None;
    }
    let ratios: Vec<f64> =
        ours.samples.iter().zip(&peer.samples).map(|(ours, peer)| ours / peer).collect();
    Spread::of(&ratios).map(|spread| spread.median)
}

/// All tables: what has targets first, then the cost curves, then notes.
pub(crate) fn tables(board: &Board) -> String {
    let mut out = targets(board);
    out.push_str(&curves(board));
    if !board.notes().is_empty() {
        out.push_str("\nNotes\n\n");
        board.notes().iter().for_each(|note| out.push_str(&format!("- {note}\n")));
    }
    out
}

/// The cells of each row and workload, in order.
fn groups(cells: Vec<&Cell>) -> Vec<Vec<&Cell>> {
    let mut groups: Vec<Vec<&Cell>> = Vec::new();
    for cell in cells {
        let same = |group: &&mut Vec<&Cell>| {
            group[0].row.name == cell.row.name && group[0].workload == cell.workload
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(cell),
            None => groups.push(vec![cell]),
        }
    }
    groups
}

fn targets(board: &Board) -> String {
    let cells = board.cells().iter().filter(|cell| cell.ops.is_none()).collect();
    let mut table =
        Table::new(&["row", "workload", "unit", "sds", "P", "ratio", "target", "", "peers"]);
    for group in groups(cells) {
        let row = group[0].row;
        let ours = group.iter().copied().find(|cell| cell.engine == Engine::Sds);
        let best = best_peer(&group);
        let rope = group.iter().copied().find(|cell| cell.engine == Engine::Jumprope);
        let to_best = ours.zip(best).and_then(|(ours, best)| ratio(ours, best));
        let to_rope = ours.zip(rope).and_then(|(ours, rope)| ratio(ours, rope));
        let median = ours.and_then(Cell::spread).map(|spread| spread.median);
        let verdict = match is_met(row, median, to_best, to_rope) {
            _ if ours.is_some_and(|cell| cell.stopped.is_some()) => "missed",
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        table.line([
            row.name.to_owned(),
            group[0].workload.clone(),
            row.unit.to_owned(),
            ours.map_or_else(|| "-".to_owned(), figure),
            best.map_or_else(|| "-".to_owned(), named),
            ratios(row, to_best, to_rope),
            target(row.target),
            verdict.to_owned(),
            peers(&group, best),
        ]);
    }
    table.into_text()
}

/// The peer with the smallest median.
fn best_peer<'a>(group: &[&'a Cell]) -> Option<&'a Cell> {
    let peers = group.iter().copied().filter(|cell| cell.engine.is_peer());
    let measured = peers.filter_map(|cell| Some((cell.spread()?.median, cell)));
    measured.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, cell)| cell)
}

fn is_met(
    row: Row,
    median: Option<f64>,
    to_best: Option<f64>,
    to_rope: Option<f64>,
) -> Option<bool> {
    match row.target {
        Target::Times(times) => Some(to_best? <= times),
        Target::AtMost(figure) => Some(median? <= figure),
        Target::TimesAndRope(times, rope) => Some(to_best? <= times && to_rope? <= rope),
        Target::Shown => None,
    }
}

fn ratios(row: Row, to_best: Option<f64>, to_rope: Option<f64>) -> String {
    let best = to_best.map_or_else(|| "-".to_owned(), digits);
    match (row.target, to_rope) {
        (Target::TimesAndRope(..), Some(rope)) => format!("{best}; rope {}", digits(rope)),
        _ => best,
    }
}

fn target(target: Target) -> String {
    match target {
        Target::Times(times) => format!("<= {times} x P"),
        Target::AtMost(figure) => format!("<= {figure}"),
        Target::TimesAndRope(times, rope) => format!("<= {times} x P, {rope} x rope"),
        Target::Shown => String::new(),
    }
}

fn peers(group: &[&Cell], best: Option<&Cell>) -> String {
    let is_other = |cell: &&&Cell| {
        cell.engine != Engine::Sds && best.is_none_or(|best| best.engine != cell.engine)
    };
    let others: Vec<String> = group.iter().filter(is_other).map(|cell| named(cell)).collect();
    others.join(", ")
}

fn named(cell: &Cell) -> String {
    format!("{} {}", cell.engine.name(), figure(cell))
}

fn figure(cell: &Cell) -> String {
    match (cell.stopped, cell.spread()) {
        (Some(budget), _) => format!("> {} s (stopped)", budget.as_secs()),
        (None, Some(spread)) => digits(spread.median),
        (None, None) => "-".to_owned(),
    }
}

/// Three digits that count.
fn digits(figure: f64) -> String {
    let decimals = match figure.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 4,
    };
    format!("{figure:.decimals$}")
}

/// A line for each operation and engine, a column for each size.
fn curves(board: &Board) -> String {
    let cells: Vec<&Cell> = board.cells().iter().filter(|cell| cell.ops.is_some()).collect();
    if cells.is_empty() {
        return String::new();
    }
    let mut sizes: Vec<usize> = cells.iter().filter_map(|cell| cell.ops).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut heads = vec!["cost of each, in ns, after so many".to_owned(), "engine".to_owned()];
    heads.extend(sizes.iter().map(usize::to_string));
    heads.push("growth".to_owned());
    let mut table = Table::new(&heads);
    let mut lines: Vec<(Row, Engine)> = Vec::new();
    for cell in &cells {
        if !lines.iter().any(|(row, engine)| row.name == cell.row.name && *engine == cell.engine) {
            lines.push((cell.row, cell.engine));
        }
    }
    // Engines of one operation together, operations in the order in which they were first seen.
    let first = |row: Row| lines.iter().position(|(other, _)| other.name == row.name);
    let mut sorted = lines.clone();
    sorted.sort_by_key(|(row, engine)| (first(*row), *engine));
    for (row, engine) in sorted {
        let at = |size: usize| {
            cells.iter().find(|cell| {
                cell.row.name == row.name && cell.engine == engine && cell.ops == Some(size)
            })
        };
        let mut line = vec![row.name.to_owned(), engine.name().to_owned()];
        line.extend(
            sizes.iter().map(|size| at(*size).map_or_else(String::new, |cell| figure(cell))),
        );
        let costs: Vec<f64> =
            sizes.iter().filter_map(|size| Some(at(*size)?.spread()?.median)).collect();
        let is_stopped =
            sizes.iter().any(|size| at(*size).is_some_and(|cell| cell.stopped.is_some()));
        line.push(if grows_too_fast(&costs) || is_stopped { "> n log n" } else { "" }.to_owned());
        table.line(line);
    }
    format!("\n{}", table.into_text())
}

/// Whether the cost of each op, at sizes ten times apart, grows more than a logarithm would.
fn grows_too_fast(costs: &[f64]) -> bool {
    costs.windows(2).any(|pair| pair[1] / pair[0] > GROWTH_MAX)
}

/// A table in Markdown, its columns aligned.
struct Table {
    lines: Vec<Vec<String>>,
}

impl Table {
    fn new<S: AsRef<str>>(heads: &[S]) -> Self {
        Self { lines: vec![heads.iter().map(|head| head.as_ref().to_owned()).collect()] }
    }

    fn line(&mut self, line: impl IntoIterator<Item = String>) {
        self.lines.push(line.into_iter().collect());
    }

    fn into_text(self) -> String {
        if self.lines.len() == 1 {
            return String::new();
        }
        let columns = self.lines[0].len();
        let width = |column: usize| {
            self.lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for (at, line) in self.lines.iter().enumerate() {
            for (cell, width) in line.iter().zip(&widths) {
                out.push_str(&format!("| {cell:width$} "));
            }
            out.push_str("|\n");
            if at == 0 {
                widths
                    .iter()
                    .for_each(|width| out.push_str(&format!("|{}", "-".repeat(width + 2))));
                out.push_str("|\n");
            }
        }
        out
    }
}

#[derive(Serialize)]
struct Json<'a> {
    rows: Vec<JsonRow<'a>>,
}

#[derive(Serialize)]
struct JsonRow<'a> {
    row: &'a str,
    workload: &'a str,
    engine: &'a str,
    unit: &'a str,
    median: f64,
    min: f64,
    max: f64,
}

/// Every cell that was measured to its end. What was stopped has no figure, and no row.
pub(crate) fn json(board: &Board) -> Result<String> {
    let rows = board.cells().iter().filter_map(|cell| {
        let Spread { median, min, max } = cell.spread()?;
        let (row, unit) = (cell.row.name, cell.row.unit);
        let (workload, engine) = (cell.workload.as_str(), cell.engine.name());
        Some(JsonRow { row, workload, engine, unit, median, min, max })
    });
    Ok(serde_json::to_string_pretty(&Json { rows: rows.collect() })? + "\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ROW: Row = Row::new("a row", "ms", Target::Times(1.0));

    fn board(samples: &[(Engine, &[f64])]) -> Board {
        let mut board = Board::default();
        for (engine, samples) in samples {
            samples.iter().for_each(|sample| board.record(ROW, "work", *engine, *sample));
        }
        board
    }

    #[test]
    fn medians_lie_in_the_middle() {
        assert_eq!(Spread::of(&[]), None);
        let odd = Spread { median: 2.0, min: 1.0, max: 9.0 };
        assert_eq!(Spread::of(&[9.0, 1.0, 2.0]), Some(odd));
        let even = Spread { median: 2.5, min: 1.0, max: 9.0 };
        assert_eq!(Spread::of(&[9.0, 1.0, 2.0, 3.0]), Some(even));
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds() {
        let board = board(&[(Engine::Sds, &[1.0, 10.0, 3.0]), (Engine::Yrs, &[1.0, 2.0, 6.0])]);
        let [ours, peer] = [0, 1].map(|at| &board.cells()[at]);
        assert_eq!(ratio(ours, peer), Some(1.0), "of 1, 5 and 0.5");
    }

    #[test]
    fn the_best_peer_is_neither_we_nor_a_rope() {
        let samples: [(Engine, &[f64]); 4] = [
            (Engine::Sds, &[1.0]),
            (Engine::Jumprope, &[2.0]),
            (Engine::Loro, &[4.0]),
            (Engine::Yrs, &[3.0]),
        ];
        let mut board = board(&samples);
        let cells = |board: &Board| {
            best_peer(&board.cells().iter().collect::<Vec<_>>()).map(|cell| cell.engine)
        };
        assert_eq!(cells(&board), Some(Engine::Yrs));
        board.stop(ROW, "work", Engine::Yrs, Duration::from_secs(5));
        assert_eq!(cells(&board), Some(Engine::Loro));
        assert!(tables(&board).contains("yrs > 5 s (stopped)"));
    }

    #[test]
    fn targets_are_met_at_the_figure_and_missed_past_it() {
        let row = |target| Row::new("a row", "ms", target);
        assert_eq!(is_met(row(Target::Times(0.5)), None, Some(0.5), None), Some(true));
        assert_eq!(is_met(row(Target::Times(0.5)), None, Some(0.51), None), Some(false));
        assert_eq!(is_met(row(Target::Times(0.5)), Some(1.0), None, None), None);
        assert_eq!(is_met(row(Target::AtMost(24.0)), Some(25.0), None, None), Some(false));
        let both = row(Target::TimesAndRope(1.0, 1.5));
        assert_eq!(is_met(both, None, Some(1.0), Some(1.6)), Some(false));
        assert_eq!(is_met(both, None, Some(1.0), Some(1.5)), Some(true));
        assert_eq!(is_met(both, None, Some(1.0), None), None, "the rope was not asked");
    }

    #[test]
    fn growth_past_a_logarithm_is_seen() {
        assert!(!grows_too_fast(&[100.0, 140.0, 190.0, 400.0]));
        assert!(grows_too_fast(&[100.0, 1_000.0]));
        assert!(!grows_too_fast(&[]));
    }

    #[test]
    fn json_has_what_was_measured_and_nothing_else() {
        let mut board = board(&[(Engine::Sds, &[1.0, 3.0, 2.0])]);
        board.stop(ROW, "hopeless", Engine::Sds, Duration::from_secs(5));
        let json: serde_json::Value = serde_json::from_str(&json(&board).unwrap()).unwrap();
        let expected = serde_json::json!({"rows": [{
            "row": "a row", "workload": "work", "engine": "sds", "unit": "ms",
            "median": 2.0, "min": 1.0, "max": 3.0,
        }]});
        assert_eq!(json, expected);
    }
}
