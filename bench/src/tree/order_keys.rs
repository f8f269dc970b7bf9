//! Order keys: how long they get, and whether the runs of two replicas stay apart.

use anyhow::{Context, Result, ensure};

use crate::board::{Board, Row, Target};
use crate::engines::loro::LoroNodes;
use crate::engines::sds::SdsTree;
use crate::engines::{Engine, Tree};
use crate::measure::{Settings, count};

const LONGEST: Row =
    Row::new("longest order key after alternating inserts", "bytes", Target::AtMost(32.0));
const BORDERS: Row =
    Row::new("borders between the runs of two replicas", "borders", Target::AtMost(1.0));

/// Inserts at one gap, and entries in each replica's run.
const ALTERNATING: usize = 1_000;
const RUN: usize = 100;

/// Sizes do not vary from round to round: measured once.
pub(super) fn run(settings: &Settings, board: &mut Board) {
    if !settings.wants(&[LONGEST, BORDERS]) {
        return;
    }
    for engine in &settings.engines {
        let result = match engine {
            Engine::Sds => measure::<SdsTree>(board),
            Engine::Loro => measure::<LoroNodes>(board),
            _ => Ok(()),
        };
        if let Err(error) = result {
            board.note(format!("{} on order keys: {error:#}", engine.name()));
        }
    }
}

fn measure<T: Tree>(board: &mut Board) -> Result<()> {
    let longest = longest_key::<T>()?;
    board.record(LONGEST, &format!("{ALTERNATING} inserts"), T::ENGINE, count(longest));
    let borders = borders::<T>()?;
    board.record(BORDERS, &format!("runs of {RUN}"), T::ENGINE, count(borders));
    Ok(())
}

/// Inserts between the two entries inserted last, on either side in turn.
fn longest_key<T: Tree>() -> Result<usize> {
    let mut tree = T::new(1);
    tree.begin();
    let top = tree.create(None, None)?;
    tree.create(Some(top), None)?;
    tree.create(Some(top), None)?;
    tree.commit()?;
    let mut gap = 1;
    for at in 0..ALTERNATING {
        tree.begin();
        tree.create(Some(top), Some(gap))?;
        tree.commit()?;
        gap += at % 2;
    }
    tree.longest_order_key()
}

/// How often two neighbours come from different replicas, after both inserted a run at one gap.
fn borders<T: Tree>() -> Result<usize> {
    let mut one = T::new(1);
    one.begin();
    let top = one.create(None, None)?;
    one.create(Some(top), None)?;
    one.create(Some(top), None)?;
    one.commit()?;
    let mut two = T::load(&one.save()?, 2)?;
    drop(one.message()?);
    let runs = [type_run(&mut one, top)?, type_run(&mut two, top)?];
    let messages = [one.message()?, two.message()?];
    one.receive(&messages[1])?;
    two.receive(&messages[0])?;
    let children = one.children(top);
    ensure!(children == two.children(top), "the replicas differ");
    let inner = children.get(1..children.len() - 1).context("the children are gone")?;
    ensure!(inner.len() == 2 * RUN, "some entries are not where they were put");
    let is_first = |node: &T::Node| runs[0].contains(node);
    Ok(inner.windows(2).filter(|pair| is_first(&pair[0]) != is_first(&pair[1])).count())
}

fn type_run<T: Tree>(tree: &mut T, top: T::Node) -> Result<Vec<T::Node>> {
    (1..=RUN)
        .map(|index| {
            tree.begin();
            let node = tree.create(Some(top), Some(index))?;
            tree.commit()?;
            Ok(node)
        })
        .collect()
}
