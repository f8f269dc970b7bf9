//! Edits that are on disk before they count: a store's file with all that belongs to it, against the
//! database that it is in, alone.
//!
//! Both write to the folder for temporary files, with a sync of the disk for each commit.

use anyhow::{Context, Result, ensure};
use redb::{Database, TableDefinition};
use sds_store::{EntryId, StoreError};
use sds_sync::{LocalStore, StoreId, SyncEngine};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::board::{Board, Row, Target};
use crate::engines::Engine;
use crate::measure::{Settings, micros_each, say, timed};

/// Four fifths of the database's rate.
const TARGET: Target = Target::Times(1.25);
const SINGLY: Row = Row::new("a durable edit, each waited for", "us", TARGET);
const GROUPED: Row = Row::new("a durable edit, many on their way", "us", TARGET);

/// So many rows the database gets in a commit where edits are not waited for.
const GROUP: usize = 512;
/// About what an edit takes in the file.
const ROW_BYTES: usize = 64;
const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");

/// Runs every row about durable edits.
pub(crate) fn run(settings: &Settings, board: &mut Board) {
    let workloads = [
        (SINGLY, settings.size(200, 40), 1),
        (GROUPED, settings.size(200 * GROUP, 20 * GROUP), GROUP),
    ];
    for (row, edits, group) in workloads {
        if !settings.wants(&[row]) {
            continue;
        }
        for round in 1..=settings.rounds {
            say(&format!("{}: round {round} of {}", row.name, settings.rounds));
            if let Err(error) = measure(row, edits, group, board) {
                board.note(format!("{} was not measured: {error:#}", row.name));
                break;
            }
        }
    }
}

fn measure(row: Row, edits: usize, group: usize, board: &mut Board) -> Result<()> {
    let workload = format!("{edits} edits");
    board.record(row, &workload, Engine::Sds, edit(edits, group)?);
    board.record(row, &workload, Engine::Redb, insert(edits, group)?);
    Ok(())
}

/// Edits a store, and waits for the disk after each group; if that is more than one edit, only at the
/// end, so that the engine makes groups of its own. Microseconds each.
fn edit(edits: usize, group: usize) -> Result<f64> {
    let (folder, runtime) = (TempDir::new()?, Runtime::new()?);
    let local = LocalStore::open_or_create(folder.path(), &StoreId::new("bench")?)?;
    let engine = runtime.block_on(async { SyncEngine::start(local) });
    let item = engine.edit(|store| store.new_item_at(None, EntryId::ROOT, None))??;
    runtime.block_on(engine.flush())?;
    // The database is given bytes that are there already, too.
    let labels: Vec<String> = (0..edits).map(|number| format!("{number:0ROW_BYTES$}")).collect();
    let (result, time) = timed(|| {
        for label in &labels {
            edit_when_there_is_room(&runtime, &engine, item, label)?;
            if group == 1 {
                runtime.block_on(engine.flush())?;
            }
        }
        Ok::<_, anyhow::Error>(runtime.block_on(engine.flush())?)
    });
    result?;
    runtime.block_on(engine.stop())?;
    let reopened = LocalStore::open_existing(folder.path(), &StoreId::new("bench")?)?;
    let label = reopened.store().entry_with_id(item).context("the item is gone")?.label();
    ensure!(label == format!("{:0ROW_BYTES$}", edits - 1), "some edit was lost");
    Ok(micros_each(time, edits))
}

/// Edits; where the disk is too far behind, after it has caught up.
fn edit_when_there_is_room(
    runtime: &Runtime,
    engine: &SyncEngine,
    item: EntryId,
    label: &str,
) -> Result<()> {
    let edit = || -> Result<Result<(), StoreError>, sds_sync::SyncError> {
        engine.edit(|store| store.set_label(item, label))
    };
    match edit() {
        Err(sds_sync::SyncError::DiskTooSlow) => {
            runtime.block_on(engine.flush())?;
            Ok(edit()??)
        }
        done => Ok(done??),
    }
}

/// The same number of rows, so many a commit. Microseconds each.
fn insert(rows: usize, group: usize) -> Result<f64> {
    let folder = TempDir::new()?;
    let database = Database::create(folder.path().join("rows.redb"))?;
    let (result, time) = timed(|| {
        for start in (0..rows).step_by(group) {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(ROWS)?;
                for number in start..rows.min(start + group) {
                    table.insert(number as u64, [7; ROW_BYTES].as_slice())?;
                }
            }
            transaction.commit()?;
        }
        Ok::<_, anyhow::Error>(())
    });
    result?;
    Ok(micros_each(time, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_write_what_they_are_given() {
        let mut board = Board::default();
        measure(SINGLY, 3, 1, &mut board).unwrap();
        measure(GROUPED, 20, 8, &mut board).unwrap();
        assert_eq!(board.cells().len(), 4);
    }
}
