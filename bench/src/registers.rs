//! Registers: numbers set again and again, alone and many at a time; then applied, saved, loaded.

use std::rc::Rc;

use anyhow::{Result, ensure};

use crate::board::{Board, Row, Target};
use crate::engines::automerge::AutomergeRegisters;
use crate::engines::loro::LoroRegisters;
use crate::engines::sds::SdsRegisters;
use crate::engines::yrs::YrsRegisters;
use crate::engines::{Engine, Registers};
use crate::measure::{
    Climber, Contestant, Dice, Lap, Settings, climb, heap_since, lap, live_heap, millis,
    take_turns, timed, timed_often,
};
use crate::text::gzipped;

const SET: Row = Row::new("set registers", "ms", Target::Times(0.2));
const APPLIED: Row = Row::new("sets applied in one patch", "ms", Target::Times(0.2));
const LOADED: Row = Row::new("registers loaded and read", "ms", Target::Times(1.0));
const HEAP: Row = Row::new("heap, history kept", "MB", Target::Times(0.5));
const HEAP_LOADED: Row = Row::new("heap after load, history kept", "MB", Target::Times(0.5));
const FILE: Row = Row::new("file, history kept, gzip", "kB", Target::Times(0.5));
/// What it holds is bounded by the registers, however often they were set.
const STATE: Row = Row::new("file, history cut, gzip", "kB", Target::Times(0.5));
const STATE_HEAP: Row = Row::new("heap after load, history cut", "MB", Target::Times(0.5));
const ROWS: &[Row] = &[SET, APPLIED, LOADED, HEAP, HEAP_LOADED, FILE, STATE, STATE_HEAP];

const CURVE: Row = Row::new("registers set, one a change", "ns", Target::Shown);
const CURVE_APPLIED: Row = Row::new("... applied in one patch", "ns", Target::Shown);
const CURVE_LOADED: Row = Row::new("... loaded and read", "ns", Target::Shown);

/// What every register holds first, so that no clock sees one made.
const FIRST: i64 = -1;

/// Registers, sets, and sets in one change.
#[derive(Clone, Copy, Debug)]
struct Size {
    registers: usize,
    sets: usize,
    change: usize,
}

/// Runs every row about registers.
pub(crate) fn run(settings: &Settings, board: &mut Board) {
    let registers = settings.size(10_000, 500);
    let many = Size { registers, sets: settings.size(1_000_000, 20_000), change: 1_000 };
    let alone = Size { registers, sets: settings.size(100_000, 5_000), change: 1 };
    if settings.wants(ROWS) {
        for size in [many, alone] {
            turns(settings, size, board);
        }
    }
    let climbers = settings.engines.iter().filter_map(|engine| match engine {
        Engine::Sds => Some(climber::<SdsRegisters>(settings)),
        Engine::Loro => Some(climber::<LoroRegisters>(settings)),
        Engine::Yrs => Some(climber::<YrsRegisters>(settings)),
        Engine::Automerge => Some(climber::<AutomergeRegisters>(settings)),
        _ => None,
    });
    let rows = [CURVE, CURVE_APPLIED, CURVE_LOADED];
    climb(settings, &rows, &settings.curve_sizes(), climbers.collect(), board);
}

fn turns(settings: &Settings, size: Size, board: &mut Board) {
    let Size { registers, sets, change } = size;
    let workload = format!("{sets} sets of {registers}, {change} a change");
    let work = Rc::new(Work::new(size));
    let contestants = settings.engines.iter().filter_map(|engine| match engine {
        Engine::Sds => Some(Run::<SdsRegisters>::boxed(settings, &workload, &work)),
        Engine::Loro => Some(Run::<LoroRegisters>::boxed(settings, &workload, &work)),
        Engine::Yrs => Some(Run::<YrsRegisters>::boxed(settings, &workload, &work)),
        Engine::Automerge => Some(Run::<AutomergeRegisters>::boxed(settings, &workload, &work)),
        _ => None,
    });
    take_turns(settings, &workload, contestants.collect(), board);
}

/// Registers that hold something, what they are set to, and what they hold afterwards.
struct Work {
    size: Size,
    sets: Vec<(usize, i64)>,
    end: Vec<Option<i64>>,
}

impl Work {
    fn new(size: Size) -> Self {
        let mut dice = Dice::new(12);
        let mut end = vec![Some(FIRST); size.registers];
        let values = (0..size.sets).map(|_| {
            let value = i64::try_from(dice.below(1_000_000)).expect("less than a million");
            (dice.below(size.registers), value)
        });
        let sets: Vec<(usize, i64)> = values.collect();
        sets.iter().for_each(|(register, value)| end[*register] = Some(*value));
        Self { size, sets, end }
    }

    /// The registers as they are before any clock runs.
    fn begin<R: Registers>(&self, keys: &R::Keys) -> Result<R> {
        let mut author = R::new(keys)?;
        let first: Vec<(usize, i64)> = (0..self.size.registers).map(|at| (at, FIRST)).collect();
        author.set(&first)?;
        Ok(author)
    }

    fn changes(&self) -> impl Iterator<Item = &[(usize, i64)]> {
        self.sets.chunks(self.size.change)
    }

    fn check<R: Registers>(&self, registers: &R) -> Result<()> {
        let is_right = (0..self.size.registers).all(|at| registers.value(at) == self.end[at]);
        ensure!(is_right, "a register holds a wrong value");
        Ok(())
    }

    fn load<R: Registers>(&self, file: &[u8], keys: &R::Keys) -> Result<R> {
        let registers = R::load(file, keys)?;
        self.check(&registers)?;
        Ok(registers)
    }
}

/// One engine on one workload.
struct Run<R: Registers> {
    settings: Settings,
    workload: String,
    work: Rc<Work>,
    keys: R::Keys,
}

impl<R: Registers + 'static> Run<R> {
    fn boxed(settings: &Settings, workload: &str, work: &Rc<Work>) -> Box<dyn Contestant> {
        Box::new(Self {
            settings: settings.clone(),
            workload: workload.to_owned(),
            work: work.clone(),
            keys: R::keys(work.size.registers),
        })
    }
}

impl<R: Registers> Contestant for Run<R> {
    fn engine(&self) -> Engine {
        R::ENGINE
    }

    fn round(&mut self, board: &mut Board) -> Result<()> {
        let Self { settings, workload, work, keys } = self;
        if board.is_stopped(SET, workload, R::ENGINE) {
            return Ok(());
        }
        let mut record = |row, sample| board.record(row, workload, R::ENGINE, sample);
        let heap = live_heap();
        let mut author: R = work.begin(keys)?;
        let before_reader = live_heap();
        let mut reader = author.fork()?;
        let reader_takes = live_heap() - before_reader;
        let lap = lap(settings.budget, work.changes(), |sets| author.set(sets))?;
        let Lap::Finished(time) = lap else {
            board.stop(SET, workload, R::ENGINE, settings.budget);
            return Ok(());
        };
        work.check(&author)?;
        record(SET, millis(time));
        record(HEAP, heap_since(heap + reader_takes));
        let message = author.message()?;
        let (result, time) = timed(|| reader.receive(&message));
        result?;
        work.check(&reader)?;
        record(APPLIED, millis(time));
        drop(reader);
        let (file, state) = (author.save()?, author.save_state()?);
        drop(author);
        record(FILE, gzipped(&file)?);
        if let Some(state) = state {
            record(STATE, gzipped(&state)?);
            let heap = live_heap();
            let loaded = work.load::<R>(&state, keys)?;
            record(STATE_HEAP, heap_since(heap));
            drop(loaded);
        }
        let heap = live_heap();
        let loaded = work.load::<R>(&file, keys)?;
        record(HEAP_LOADED, heap_since(heap));
        drop(loaded);
        let time = timed_often(|| work.load::<R>(&file, keys));
        record(LOADED, millis(time));
        Ok(())
    }
}

fn climber<R: Registers>(settings: &Settings) -> Climber<'_> {
    Climber::new(R::ENGINE, move |sets| {
        let work = Work::new(Size { registers: (sets / 10).max(1), sets, change: 1 });
        let keys = R::keys(work.size.registers);
        let mut author: R = work.begin(&keys)?;
        let mut reader = author.fork()?;
        let set = lap(settings.budget, work.changes(), |sets| author.set(sets))?;
        if set == Lap::Stopped {
            return Ok(vec![(CURVE, set)]);
        }
        let (file, message) = (author.save()?, author.message()?);
        let (result, applying) = timed(|| reader.receive(&message));
        result?;
        work.check(&reader)?;
        let (loaded, loading) = timed(|| work.load::<R>(&file, &keys));
        drop(loaded?);
        let (applying, loading) = (Lap::Finished(applying), Lap::Finished(loading));
        Ok(vec![(CURVE, set), (CURVE_APPLIED, applying), (CURVE_LOADED, loading)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_hold_what_was_set_last() {
        check_engine::<SdsRegisters>();
        check_engine::<LoroRegisters>();
        check_engine::<YrsRegisters>();
        check_engine::<AutomergeRegisters>();
    }

    fn check_engine<R: Registers>() {
        let work = Work::new(Size { registers: 20, sets: 200, change: 7 });
        let keys = R::keys(20);
        let mut author: R = work.begin(&keys).unwrap();
        let mut reader = author.fork().unwrap();
        work.changes().try_for_each(|sets| author.set(sets)).unwrap();
        work.check(&author).unwrap();
        reader.receive(&author.message().unwrap()).unwrap();
        work.check(&reader).unwrap();
        work.load::<R>(&author.save().unwrap(), &keys).unwrap();
    }
}
