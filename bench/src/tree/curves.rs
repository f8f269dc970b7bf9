//! What an edit of a tree costs as the tree grows.

use anyhow::{Result, ensure};

use super::OPS_A_CHANGE;
use super::plan::{Among, Model, Shape, create, make_moves, walk};
use crate::board::{Board, Row, Target};
use crate::engines::loro::LoroNodes;
use crate::engines::sds::SdsTree;
use crate::engines::{Engine, Tree};
use crate::measure::{Climber, Dice, Lap, Settings, climb, lap, timed};

const LAST: Row = Row::new("entries created last in one parent", "ns", Target::Shown);
const FIRST: Row = Row::new("entries created first in one parent", "ns", Target::Shown);
const ANYWHERE: Row = Row::new("entries created anywhere in one parent", "ns", Target::Shown);
const LOADED: Row = Row::new("... loaded and walked", "ns", Target::Shown);
const MERGED: Row = Row::new("... merged as one patch and walked", "ns", Target::Shown);
const MOVED: Row = Row::new("random moves among 1,000 entries", "ns", Target::Shown);
const MOVES_MERGED: Row = Row::new("... applied in one patch", "ns", Target::Shown);

/// The entries among which things move.
const MOVING: usize = 1_000;

/// The index at which the next child is created, after so many.
type Next = fn(&mut Dice, usize) -> Option<usize>;

pub(super) fn run(settings: &Settings, board: &mut Board) {
    let sizes = settings.curve_sizes();
    let local: [(Row, Next); 2] = [(LAST, |_, _| None), (FIRST, |_, _| Some(0))];
    for (row, next) in local {
        let climbers = settings.engines.iter().filter_map(|engine| match engine {
            Engine::Sds => Some(created::<SdsTree>(settings, row, next)),
            Engine::Loro => Some(created::<LoroNodes>(settings, row, next)),
            _ => None,
        });
        climb(settings, &[row], &sizes, climbers.collect(), board);
    }
    let climbers = settings.engines.iter().filter_map(|engine| match engine {
        Engine::Sds => Some(anywhere::<SdsTree>(settings)),
        Engine::Loro => Some(anywhere::<LoroNodes>(settings)),
        _ => None,
    });
    climb(settings, &[ANYWHERE, LOADED, MERGED], &sizes, climbers.collect(), board);
    let climbers = settings.engines.iter().filter_map(|engine| match engine {
        Engine::Sds => Some(moved::<SdsTree>(settings)),
        Engine::Loro => Some(moved::<LoroNodes>(settings)),
        _ => None,
    });
    climb(settings, &[MOVED, MOVES_MERGED], &sizes, climbers.collect(), board);
}

fn create_children<T: Tree>(settings: &Settings, size: usize, next: Next) -> Result<(Lap, T)> {
    let mut dice = Dice::new(10);
    let mut tree = T::new(1);
    tree.begin();
    let top = tree.create(None, None)?;
    let lap = lap(settings.budget, 0..size, |at| {
        tree.create(Some(top), next(&mut dice, at))?;
        if (at + 1).is_multiple_of(OPS_A_CHANGE) {
            tree.commit()?;
            tree.begin();
        }
        Ok(())
    })?;
    tree.commit()?;
    Ok((lap, tree))
}

fn created<T: Tree>(settings: &Settings, row: Row, next: Next) -> Climber<'_> {
    Climber::new(T::ENGINE, move |size| {
        Ok(vec![(row, create_children::<T>(settings, size, next)?.0)])
    })
}

fn anywhere<T: Tree>(settings: &Settings) -> Climber<'_> {
    Climber::new(T::ENGINE, move |size| {
        let next: Next = |dice, len| Some(dice.below(len + 1));
        let (lap, mut tree) = create_children::<T>(settings, size, next)?;
        if lap == Lap::Stopped {
            return Ok(vec![(ANYWHERE, lap)]);
        }
        let (file, message) = (tree.save()?, tree.message()?);
        let (loaded, loading) = timed(|| T::load(&file, 2).map(|tree| (walk(&tree), tree)));
        let (merged, merging) = timed(|| -> Result<_> {
            let mut other = T::new(2);
            other.receive(&message)?;
            Ok((walk(&other), other))
        });
        ensure!(loaded?.0 == size + 1 && merged?.0 == size + 1, "some entries were lost");
        let (loading, merging) = (Lap::Finished(loading), Lap::Finished(merging));
        Ok(vec![(ANYWHERE, lap), (LOADED, loading), (MERGED, merging)])
    })
}

fn moved<T: Tree>(settings: &Settings) -> Climber<'_> {
    Climber::new(T::ENGINE, move |size| {
        let mut model = Model::of(Shape::Random, MOVING, 0);
        let mut tree = T::new(1);
        let nodes = create(&mut tree, &model)?;
        let mut other = T::load(&tree.save()?, 2)?;
        drop(tree.message()?);
        let moves = model.random_moves(size, &Among::all_of(MOVING, 0), 11);
        let lap = lap(settings.budget, moves.chunks(OPS_A_CHANGE / 10), |moves| {
            make_moves(&mut tree, &nodes, moves)
        })?;
        if lap == Lap::Stopped {
            return Ok(vec![(MOVED, lap)]);
        }
        let message = tree.message()?;
        let (result, time) = timed(|| other.receive(&message));
        result?;
        model.check(&other, &nodes)?;
        Ok(vec![(MOVED, lap), (MOVES_MERGED, Lap::Finished(time))])
    })
}
