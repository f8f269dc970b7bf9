//! The store on top of the engine: creating, applying patches, opening, finding; as it grows.
//!
//! There is no peer in this process: what others took is in the targets.

use std::hint::black_box;

use anyhow::{Context, Result, bail, ensure};
use sds_store::{DataStore, EntryId, ReplicaId, StoreError, Timestamp};

use crate::board::{Board, Row, Target};
use crate::engines::Engine;
use crate::measure::{Dice, Settings, count, live_heap, micros_each, nanos_each, say, timed};

/// A hundredth of what the reference store takes at best.
const CREATE: Row =
    Row::new("an item created with label, value and one info key", "us", Target::AtMost(2.9));
const CREATE_CURVE: Row = Row::new("... in a store of so many", "ns", Target::Shown);
const APPLY: Row = Row::new("one patch applied", "us", Target::AtMost(5.0));
const APPLY_GROWTH: Row =
    Row::new("one patch applied: largest store to smallest", "x", Target::AtMost(1.2));
const OPEN: Row = Row::new("a store opened", "s", Target::AtMost(1.0));
const OPEN_HEAP: Row = Row::new("... heap an entry", "bytes", Target::AtMost(150.0));
const BY_INDEX: Row = Row::new("an entry listed by index", "ns", Target::Shown);
const BY_ID: Row = Row::new("an entry found by id, with its label", "ns", Target::Shown);
const ROWS: [Row; 8] =
    [CREATE, CREATE_CURVE, APPLY, APPLY_GROWTH, OPEN, OPEN_HEAP, BY_INDEX, BY_ID];

/// How many times each operation is done in one measurement.
const TIMES: usize = 1_000;

/// When entries are deleted.
const DELETED_AT: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Runs every row about stores.
pub(crate) fn run(settings: &Settings, board: &mut Board) {
    if !settings.wants(&ROWS) {
        return;
    }
    let sizes = settings.curve_sizes();
    let mut stages = Vec::new();
    for size in &sizes {
        say(&format!("store: building one of {size} entries"));
        match Stage::build(*size) {
            Ok(stage) => stages.push(stage),
            Err(error) => board.note(format!("no store of {size} entries: {error:#}")),
        }
    }
    for round in 1..=settings.rounds {
        say(&format!("store: round {round} of {}", settings.rounds));
        if let Err(error) = measure(&mut stages, board) {
            board.note(format!("stores were not measured: {error:#}"));
            return;
        }
    }
}

fn measure(stages: &mut [Stage], board: &mut Board) -> Result<()> {
    let mut applying = Vec::new();
    let last = stages.len().saturating_sub(1);
    for (at, stage) in stages.iter_mut().enumerate() {
        let name = format!("{} entries", stage.size);
        let created = stage.create()?;
        board.record_curve(CREATE_CURVE, stage.size, Engine::Sds, nanos_each(created, TIMES));
        if at == 0 {
            board.record(CREATE, &name, Engine::Sds, micros_each(created, TIMES));
        }
        let applied = micros_each(stage.apply()?, TIMES);
        board.record(APPLY, &name, Engine::Sds, applied);
        applying.push(applied);
        board.record_curve(BY_INDEX, stage.size, Engine::Sds, nanos_each(stage.list()?, TIMES));
        board.record_curve(BY_ID, stage.size, Engine::Sds, nanos_each(stage.find()?, TIMES));
        if at == last {
            let (opened, heap) = stage.open()?;
            board.record(OPEN, &name, Engine::Sds, opened);
            board.record(OPEN_HEAP, &name, Engine::Sds, heap);
        }
    }
    if let [first, .., last] = applying[..] {
        board.record(APPLY_GROWTH, "all sizes", Engine::Sds, last / first);
    }
    Ok(())
}

/// Two copies of a store of some size.
struct Stage {
    size: usize,
    author: DataStore,
    reader: DataStore,
    entries: Vec<EntryId>,
    dice: Dice,
}

impl Stage {
    fn build(size: usize) -> Result<Self> {
        const A_CHANGE: usize = 1_000;
        let mut author = DataStore::new(replica(1)?);
        let mut dice = Dice::new(20);
        let mut entries = vec![EntryId::ROOT];
        while entries.len() < size {
            author.transact(|store| {
                for at in entries.len()..size.min(entries.len() + A_CHANGE) {
                    let outer = entries[dice.below(entries.len())];
                    entries.push(new_item(store, outer, at)?);
                }
                Ok::<_, StoreError>(())
            })?;
        }
        let mut reader = DataStore::from_binary(replica(2)?, &author.as_binary())?;
        ensure!(reader.digest() == author.digest(), "the copies differ");
        Ok(Self { size, author, reader, entries, dice })
    }

    fn pick(&mut self) -> EntryId {
        self.entries[self.dice.below(self.entries.len())]
    }

    /// Creates items, each in a transaction of its own, and takes them away again.
    fn create(&mut self) -> Result<std::time::Duration> {
        let mut copy = DataStore::from_binary(replica(3)?, &self.reader.as_binary())?;
        let outers: Vec<EntryId> = (0..TIMES).map(|_| self.pick()).collect();
        let (result, time) = timed(|| {
            outers.iter().enumerate().try_for_each(|(at, outer)| {
                copy.transact(|store| new_item(store, *outer, at)).map(drop)
            })
        });
        result?;
        ensure!(copy.entry_count() == self.reader.entry_count() + TIMES, "some were not created");
        Ok(time)
    }

    /// An entry and a container that it can be moved into and is not in.
    fn pick_move(&mut self) -> Result<(EntryId, EntryId)> {
        for _ in 0..TIMES {
            let (entry, outer) = (self.pick(), self.pick());
            let here = self.author.entry(entry)?;
            if here.outer_item_id() != Some(outer) && here.may_be_moved_to(outer) {
                return Ok((entry, outer));
            }
        }
        bail!("no entry can be moved")
    }

    /// Applies patches of one change each: labels, characters, moves between containers, new items, and
    /// deletions.
    fn apply(&mut self) -> Result<std::time::Duration> {
        let mut patches = Vec::new();
        while patches.len() < TIMES {
            let seen = self.author.version().clone();
            let entry = self.pick();
            let at = patches.len();
            let (moved, outer) = self.pick_move()?;
            let store = &mut self.author;
            match at % 8 {
                0 | 4 => store.set_label(entry, &format!("label {at}"))?,
                1 | 5 if entry != EntryId::ROOT => store.change_value(entry, 0..1, "x")?,
                2 | 6 => store.move_entry_to(moved, outer, None)?,
                7 if entry != EntryId::ROOT => store.delete_entry(entry, DELETED_AT)?,
                _ => drop(new_item(store, entry, at)?.to_string()),
            }
            let patch = self.author.export_patch(&seen);
            patches.push(patch);
        }
        let reader = &mut self.reader;
        let (result, time) = timed(|| {
            patches.iter().try_for_each(|patch| reader.apply_remote_patch(patch).map(drop))
        });
        result?;
        ensure!(self.reader.version() == self.author.version(), "some patch was not applied");
        Ok(time)
    }

    /// Lists entries of the fullest items by index.
    fn list(&mut self) -> Result<std::time::Duration> {
        let outers: Vec<EntryId> = (0..TIMES).map(|_| self.pick()).collect();
        let store = &self.reader;
        let asked: Vec<_> = outers
            .iter()
            .filter_map(|outer| store.entry(*outer).ok()?.outer_item())
            .map(|outer| (outer, outer.inner_entry_count() / 2))
            .collect();
        let (found, time) = timed(|| {
            asked.iter().filter(|(outer, at)| outer.inner_entry_at(*at).is_some()).count()
        });
        ensure!(found == asked.len(), "some entry is not where it is");
        Ok(time)
    }

    fn find(&mut self) -> Result<std::time::Duration> {
        let asked: Vec<EntryId> = (0..TIMES).map(|_| self.pick()).collect();
        let store = &self.reader;
        let (found, time) = timed(|| {
            let found = asked.iter().filter_map(|id| store.entry_with_id(*id));
            found.map(|entry| black_box(entry.label()).len()).count()
        });
        ensure!(found == asked.len(), "some entry was not found");
        Ok(time)
    }

    /// Opens a snapshot; seconds, and bytes of heap an entry.
    fn open(&self) -> Result<(f64, f64)> {
        let snapshot = self.author.as_binary();
        let before = live_heap();
        let (opened, time) =
            timed(|| DataStore::from_binary(replica(4)?, &snapshot).map_err(anyhow::Error::from));
        let opened = opened?;
        let heap = live_heap().saturating_sub(before);
        Ok((time.as_secs_f64(), count(heap) / count(opened.entry_count())))
    }
}

fn new_item(store: &mut DataStore, outer: EntryId, at: usize) -> Result<EntryId, StoreError> {
    let item = store.new_item_at(None, outer, None)?;
    store.set_label(item, &format!("item {at}"))?;
    store.write_value(item, format!("what is written in item {at}"))?;
    store.set_info(item, "n", &at)?;
    Ok(item)
}

fn replica(number: u64) -> Result<ReplicaId> {
    ReplicaId::new(number).context("zero names nobody")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_store_goes_through_every_measurement() {
        let mut stages = vec![Stage::build(50).unwrap(), Stage::build(200).unwrap()];
        let mut board = Board::default();
        measure(&mut stages, &mut board).unwrap();
        for row in ROWS {
            assert!(board.cells().iter().any(|cell| cell.row == row), "{}", row.name);
        }
    }
}
