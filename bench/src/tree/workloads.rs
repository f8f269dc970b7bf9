//! The rows about trees that have targets.

use std::marker::PhantomData;

use anyhow::{Result, ensure};

use super::OPS_A_CHANGE;
use super::plan::{Among, FOLDERS, Model, Move, Shape, check_same, create_some, make_moves, walk};
use crate::board::{Board, Row, Target};
use crate::engines::loro::LoroNodes;
use crate::engines::sds::SdsTree;
use crate::engines::{Engine, Tree};
use crate::measure::{
    Contestant, Lap, Settings, heap_since, lap, live_heap, micros_each, millis, take_turns, timed,
};
use crate::text::gzipped;

const CREATE: Row = Row::new("create entries", "ms", Target::Times(0.2));
const MOVE: Row = Row::new("random moves to an index", "ms", Target::Times(0.2));
const MOVES_APPLIED: Row = Row::new("random moves applied in one patch", "ms", Target::Times(0.2));
const LOAD: Row = Row::new("load and walk", "ms", Target::Times(0.1));
const HEAP: Row = Row::new("heap after load", "MB", Target::Times(0.15));
const FILE: Row = Row::new("file of ordered entries, gzip", "kB", Target::Times(0.5));
const LATE_FIRST: Row = Row::new("late move, the first", "ms", Target::Times(0.01));
const LATE_NEXT: Row = Row::new("late move, the next ones", "ms", Target::Times(0.01));
const LATE_LEAF: Row = Row::new("late move of a leaf", "us", Target::AtMost(5.0));
const CONCURRENT: Row = Row::new("concurrent moves merged, both ways", "ms", Target::Times(0.1));
const CHAIN: Row = Row::new("chain merged", "ms", Target::Times(1.0));

/// Nodes that nobody moves or moves into before the late moves do.
const SPARE: usize = 16;
const LATE_MOVES: usize = 11;

pub(super) fn run(settings: &Settings, board: &mut Board) {
    let entries = settings.size(100_000, 5_000);
    let few = settings.size(10_000, 1_000);
    let flat = format!("{entries}, under one parent");
    if settings.wants(&[CREATE, LOAD, HEAP, FILE]) {
        turns(settings, &flat, (entries, Shape::Flat), Run::created, Run::created, board);
        let random = format!("{entries}, under random parents");
        turns(settings, &random, (entries, Shape::Random), Run::created, Run::created, board);
    }
    if settings.wants(&[MOVE, MOVES_APPLIED]) {
        let name = format!("{entries} moves of {few}");
        turns(settings, &name, (few, Shape::Random), Run::moved, Run::moved, board);
    }
    if settings.wants(&[LATE_FIRST, LATE_NEXT, LATE_LEAF]) {
        for nodes in [few, entries] {
            let name = format!("after {entries} moves of {nodes}");
            let size = (nodes, Shape::Folders);
            turns(settings, &name, size, Run::late_among_folders, Run::late_among_folders, board);
        }
        // Every move counts here, and trees get deep, in which a late move takes loro long.
        let name = format!("after {entries} moves of {few}, any into any");
        let size = (few, Shape::Random);
        turns(settings, &name, size, Run::late_among_all, Run::late_among_all, board);
    }
    if settings.wants(&[CONCURRENT]) {
        let name = format!("{few} moves each of {few}");
        turns(settings, &name, (few, Shape::Random), Run::concurrent, Run::concurrent, board);
    }
    if settings.wants(&[CHAIN]) {
        let nodes = settings.size(50_000, 2_000);
        let name = format!("{nodes} nodes");
        turns(settings, &name, (nodes, Shape::Chain), Run::chained, Run::chained, board);
    }
}

/// A tree, its nodes by number, and what creating them took.
type Base<T> = (T, Vec<<T as Tree>::Node>, Lap);

type Stage<T> = fn(&mut Run<T>, &mut Board) -> Result<()>;

fn turns(
    settings: &Settings,
    workload: &str,
    (nodes, shape): (usize, Shape),
    ours: Stage<SdsTree>,
    loros: Stage<LoroNodes>,
    board: &mut Board,
) {
    let model = Model::of(shape, nodes, SPARE);
    let contestants = settings.engines.iter().filter_map(|engine| match engine {
        Engine::Sds => Some(Run::boxed(settings, workload, &model, ours)),
        Engine::Loro => Some(Run::boxed(settings, workload, &model, loros)),
        _ => None,
    });
    take_turns(settings, workload, contestants.collect(), board);
}

/// One engine on one workload.
struct Run<T: Tree> {
    settings: Settings,
    workload: String,
    /// The tree that is created first.
    model: Model,
    stage: Stage<T>,
    /// Whether the budget was passed in an earlier round.
    is_hopeless: bool,
    engine: PhantomData<T>,
}

impl<T: Tree + 'static> Run<T> {
    fn boxed(
        settings: &Settings,
        workload: &str,
        model: &Model,
        stage: Stage<T>,
    ) -> Box<dyn Contestant> {
        Box::new(Self {
            settings: settings.clone(),
            workload: workload.to_owned(),
            model: model.clone(),
            stage,
            is_hopeless: false,
            engine: PhantomData,
        })
    }
}

impl<T: Tree> Contestant for Run<T> {
    fn engine(&self) -> Engine {
        T::ENGINE
    }

    fn round(&mut self, board: &mut Board) -> Result<()> {
        if self.is_hopeless { Ok(()) } else { (self.stage)(self, board) }
    }
}

impl<T: Tree> Run<T> {
    fn record(&self, board: &mut Board, row: Row, sample: f64) {
        board.record(row, &self.workload, T::ENGINE, sample);
    }

    fn stop(&mut self, board: &mut Board, rows: &[Row]) {
        self.is_hopeless = true;
        for row in rows {
            board.stop(*row, &self.workload, T::ENGINE, self.settings.budget);
        }
    }

    /// Any nodes but the spare ones.
    fn any(&self) -> Among {
        Among::all_of(self.model.len(), SPARE)
    }

    /// The tree of the model with its nodes, unless the budget runs out.
    fn base(&mut self, board: &mut Board, rows: &[Row]) -> Result<Option<Base<T>>> {
        let mut tree = T::new(1);
        let mut nodes = Vec::with_capacity(self.model.len());
        let changes = 0..self.model.len().div_ceil(OPS_A_CHANGE);
        let lap = lap_changes(&self.settings, changes, |_| {
            create_some(&mut tree, &self.model, &mut nodes)
        })?;
        if lap == Lap::Stopped {
            self.stop(board, rows);
            return Ok(None);
        }
        Ok(Some((tree, nodes, lap)))
    }

    /// Another replica of a tree, which has heard of everything.
    fn other(tree: &mut T, number: u64) -> Result<T> {
        let file = tree.save()?;
        drop(tree.message()?);
        T::load(&file, number)
    }

    fn created(&mut self, board: &mut Board) -> Result<()> {
        let rows = [CREATE, LOAD, HEAP, FILE];
        let Some((mut tree, nodes, Lap::Finished(time))) = self.base(board, &rows)? else {
            return Ok(());
        };
        self.model.check(&tree, &nodes)?;
        self.record(board, CREATE, millis(time));
        let file = tree.save()?;
        drop((tree, nodes));
        self.record(board, FILE, gzipped(&file)?);
        let heap = live_heap();
        let (loaded, time) = timed(|| -> Result<_> {
            let tree = T::load(&file, 2)?;
            ensure!(walk(&tree) == self.model.len(), "some entries were lost");
            Ok(tree)
        });
        self.record(board, HEAP, heap_since(heap));
        drop(loaded?);
        self.record(board, LOAD, millis(time));
        Ok(())
    }

    fn moved(&mut self, board: &mut Board) -> Result<()> {
        let rows = [MOVE, MOVES_APPLIED];
        let Some((mut tree, nodes, _)) = self.base(board, &rows)? else { return Ok(()) };
        let mut other = Self::other(&mut tree, 2)?;
        let mut model = self.model.clone();
        let moves = model.random_moves(self.settings.size(100_000, 5_000), &self.any(), 5);
        let lap = lap_changes(&self.settings, moves.chunks(OPS_A_CHANGE), |moves| {
            make_moves(&mut tree, &nodes, moves)
        })?;
        let Lap::Finished(time) = lap else {
            self.stop(board, &rows);
            return Ok(());
        };
        model.check(&tree, &nodes)?;
        self.record(board, MOVE, millis(time));
        let message = tree.message()?;
        let (result, time) = timed(|| other.receive(&message));
        result?;
        model.check(&other, &nodes)?;
        if time > self.settings.budget {
            self.stop(board, &[MOVES_APPLIED]);
        }
        self.record(board, MOVES_APPLIED, millis(time));
        Ok(())
    }

    /// Late moves into a history in which leaves go from folder to folder.
    fn late_among_folders(&mut self, board: &mut Board) -> Result<()> {
        let nodes = FOLDERS + 1..self.model.len() - SPARE;
        self.late(board, &Among { nodes, parents: 1..FOLDERS + 1 })
    }

    /// Late moves into a history in which anything goes anywhere.
    fn late_among_all(&mut self, board: &mut Board) -> Result<()> {
        let Among { nodes, parents } = self.any();
        self.late(board, &Among { nodes: nodes.start.max(FOLDERS + 1)..nodes.end, parents })
    }

    /// Moves of folders and then of leaves, made before a long history of moves and arriving after it.
    fn late(&mut self, board: &mut Board, history: &Among) -> Result<()> {
        let rows = [LATE_FIRST, LATE_NEXT, LATE_LEAF];
        let Some((mut tree, nodes, _)) = self.base(board, &rows)? else { return Ok(()) };
        let mut late = Self::other(&mut tree, 2)?;
        let mut model = self.model.clone();
        let mut messages = Vec::new();
        let mut send = |moves: &[Move]| -> Result<()> {
            make_moves(&mut late, &nodes, moves)?;
            messages.push(late.message()?);
            Ok(())
        };
        let folders = 1..FOLDERS + 1;
        let among = Among { nodes: folders.clone(), parents: folders };
        model.random_moves(LATE_MOVES, &among, 6).chunks(1).try_for_each(&mut send)?;
        let leaves = self.model.len() - SPARE..self.model.len();
        leaves.map(|node| Move { node, parent: 1, index: 0 }).try_for_each(|step| send(&[step]))?;

        let count = self.settings.size(100_000, 5_000);
        let moves = self.model.clone().random_moves(count, history, 7);
        let lap = lap_changes(&self.settings, moves.chunks(OPS_A_CHANGE), |moves| {
            make_moves(&mut tree, &nodes, moves)
        })?;
        if lap == Lap::Stopped {
            self.stop(board, &rows);
            return Ok(());
        }
        // Until then, what is to be sent was edited here.
        let history = tree.message()?;
        let (first, others) = messages.split_at(1);
        let (next, leaves) = others.split_at(LATE_MOVES - 1);
        let mut times = Vec::new();
        for messages in [first, next, leaves] {
            let lap = lap_changes(&self.settings, messages, |message| tree.receive(message))?;
            let Lap::Finished(time) = lap else {
                self.stop(board, &rows);
                return Ok(());
            };
            times.push(time);
        }
        late.receive(&history)?;
        check_same(&tree, &late, &nodes)?;
        self.record(board, LATE_FIRST, millis(times[0]));
        self.record(board, LATE_NEXT, micros_each(times[1], LATE_MOVES - 1) / 1e3);
        self.record(board, LATE_LEAF, micros_each(times[2], SPARE));
        Ok(())
    }

    fn concurrent(&mut self, board: &mut Board) -> Result<()> {
        let Some((mut tree, nodes, _)) = self.base(board, &[CONCURRENT])? else { return Ok(()) };
        let mut other = Self::other(&mut tree, 2)?;
        let (mut messages, any) = (Vec::new(), self.any());
        for (tree, seed) in [(&mut tree, 8), (&mut other, 9)] {
            let moves = self.model.clone().random_moves(self.model.len(), &any, seed);
            moves.chunks(OPS_A_CHANGE).try_for_each(|moves| make_moves(tree, &nodes, moves))?;
            messages.push(tree.message()?);
        }
        let (result, time) = timed(|| -> Result<()> {
            tree.receive(&messages[1])?;
            other.receive(&messages[0])
        });
        result?;
        check_same(&tree, &other, &nodes)?;
        self.record(board, CONCURRENT, millis(time));
        Ok(())
    }

    fn chained(&mut self, board: &mut Board) -> Result<()> {
        let Some((mut tree, nodes, _)) = self.base(board, &[CHAIN])? else { return Ok(()) };
        let message = tree.message()?;
        let mut other = T::new(2);
        let (result, time) = timed(|| other.receive(&message));
        result?;
        self.model.check(&other, &nodes)?;
        if time > self.settings.budget {
            self.stop(board, &[CHAIN]);
        }
        self.record(board, CHAIN, millis(time));
        Ok(())
    }
}

/// A lap whose steps take so long that the clock is looked at before each.
fn lap_changes<I>(
    settings: &Settings,
    changes: impl IntoIterator<Item = I>,
    mut step: impl FnMut(I) -> Result<()>,
) -> Result<Lap> {
    let started = std::time::Instant::now();
    for change in changes {
        if started.elapsed() > settings.budget {
            return Ok(Lap::Stopped);
        }
        lap(settings.budget, [change], &mut step)?;
    }
    Ok(Lap::Finished(started.elapsed()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Every workload, as small as it can be: the checks inside are the test.
    #[test]
    fn every_workload_comes_to_its_end() {
        let settings = Settings {
            quick: true,
            rounds: 1,
            budget: Duration::from_secs(600),
            engines: vec![Engine::Sds, Engine::Loro],
            only: None,
        };
        let mut board = Board::default();
        let small = (200, Shape::Random);
        let stages: [(Stage<SdsTree>, Stage<LoroNodes>); 5] = [
            (Run::created, Run::created),
            (Run::moved, Run::moved),
            (Run::late_among_all, Run::late_among_all),
            (Run::concurrent, Run::concurrent),
            (Run::chained, Run::chained),
        ];
        for (ours, loros) in stages {
            turns(&settings, "small", small, ours, loros, &mut board);
        }
        let folders = (200, Shape::Folders);
        let late = (Run::late_among_folders, Run::late_among_folders);
        turns(&settings, "folders", folders, late.0, late.1, &mut board);
        assert!(board.notes().is_empty(), "{:?}", board.notes());
        assert_eq!(board.cells().len(), 28);
    }
}
