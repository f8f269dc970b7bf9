//! One author's trace: replayed, saved, loaded, merged, sent in batches; then keystrokes in the
//! finished text.

use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use ropey::Rope;

use super::{ensure_equal, gzipped};
use crate::board::{Board, Row, Target};
use crate::engines::automerge::Automerge;
use crate::engines::cola::Cola;
use crate::engines::diamond::Diamond;
use crate::engines::loro::Loro;
use crate::engines::sds::SdsText;
use crate::engines::yrs::Yrs;
use crate::engines::{Engine, Logged, Stored, Text, jumprope};
use crate::measure::{
    Contestant, Dice, Lap, Settings, heap_since, lap, live_heap, micros_each, millis, take_turns,
    timed, timed_often,
};
use crate::traces::{SequentialTrace, Splice};

const REPLAY: Row = Row::new("local replay", "ms", Target::TimesAndRope(1.0, 1.5));
const FILE: Row = Row::new("state + full history, gzip", "kB", Target::Times(0.9));
const STATE: Row = Row::new("state, history cut, gzip", "kB", Target::Times(0.9));
const LOAD: Row = Row::new("load and read the text", "ms", Target::Times(1.0));
const MERGE: Row = Row::new("full history merged as one patch", "ms", Target::Times(1.0));
const KEYSTROKE: Row = Row::new("keystroke: commit and encode", "us", Target::AtMost(0.5));
const KEYSTROKE_BYTES: Row = Row::new("keystroke: patch", "bytes", Target::AtMost(24.0));
const KEYSTROKE_APPLIED: Row = Row::new("keystroke: patch applied", "us", Target::Times(1.0));
const BATCHES: Row = Row::new("patches of 100 edits applied", "us/edit", Target::Times(1.0));
const HEAP_REPLAYED: Row = Row::new("heap after replay", "MB", Target::Times(1.0));
const HEAP_LOADED: Row = Row::new("heap after load", "MB", Target::Times(1.0));

const ROWS: &[Row] = &[
    REPLAY,
    FILE,
    STATE,
    LOAD,
    MERGE,
    KEYSTROKE,
    KEYSTROKE_BYTES,
    KEYSTROKE_APPLIED,
    BATCHES,
    HEAP_REPLAYED,
    HEAP_LOADED,
];

/// Whoever typed the trace goes on typing.
const AUTHOR: u64 = 1;
const BATCH: usize = 100;
/// Keystrokes before the clock starts, for engines that unpack what they need when it is needed.
const WARM_UP: usize = 10;

pub(super) fn run(settings: &Settings, trace: &Rc<SequentialTrace>, board: &mut Board) {
    if !settings.wants(ROWS) {
        return;
    }
    let keystrokes = Rc::new(keystrokes(&trace.end, settings.size(1_000, 100) + WARM_UP));
    let contestants = settings.engines.iter().filter_map(|engine| {
        let with = (settings, trace, &keystrokes);
        Some(match engine {
            Engine::Sds => logged::<SdsText>(with),
            Engine::Loro => logged::<Loro>(with),
            Engine::Yrs => logged::<Yrs>(with),
            Engine::Automerge => logged::<Automerge>(with),
            Engine::DiamondTypes => logged::<Diamond>(with),
            Engine::Cola => Run::<Cola<true>>::boxed(
                with,
                &[Run::replay, Run::store, Run::keystrokes, Run::batches],
            ),
            Engine::ColaPositions => Run::<Cola<false>>::boxed(
                with,
                &[Run::prepare, Run::applied_keystrokes, Run::batches],
            ),
            Engine::Jumprope => Run::<jumprope::Rope>::boxed(with, &[Run::replay]),
            Engine::Redb => return None,
        })
    });
    take_turns(settings, &trace.name, contestants.collect(), board);
}

/// Typing at places all over the text, some fifty keystrokes at each.
fn keystrokes(text: &str, count: usize) -> Vec<Splice> {
    let mut dice = Dice::new(2);
    let mut rope = Rope::from_str(text);
    let mut cursor = rope.len_chars() / 2;
    let mut keystrokes = Vec::with_capacity(count);
    for at in 0..count {
        if at % 50 == 49 {
            cursor = dice.below(rope.len_chars() + 1);
        }
        let splice = Splice::measured(&rope, cursor, 0, "x");
        splice.apply(&mut rope);
        cursor += 1;
        keystrokes.push(splice);
    }
    keystrokes
}

type With<'a> = (&'a Settings, &'a Rc<SequentialTrace>, &'a Rc<Vec<Splice>>);
type Stage<E> = fn(&mut Run<E>, &mut Board) -> Result<()>;

fn logged<E: Logged + 'static>(with: With<'_>) -> Box<dyn Contestant> {
    Run::<E>::boxed(with, &[Run::replay, Run::store, Run::merge, Run::keystrokes, Run::batches])
}

/// One engine on one trace. Every round goes through the stages.
struct Run<E: Text> {
    settings: Settings,
    trace: Rc<SequentialTrace>,
    keystrokes: Rc<Vec<Splice>>,
    stages: Vec<Stage<E>>,
    /// The text after the trace, once a replay came to its end.
    base: Option<E>,
    /// The trace as messages of [`BATCH`] edits.
    batches: Vec<E::Message>,
}

impl<E: Text> Contestant for Run<E> {
    fn engine(&self) -> Engine {
        E::ENGINE
    }

    fn round(&mut self, board: &mut Board) -> Result<()> {
        for stage in self.stages.clone() {
            stage(self, board)?;
            if self.base.is_none() {
                break;
            }
        }
        Ok(())
    }
}

impl<E: Text + 'static> Run<E> {
    fn boxed((settings, trace, keystrokes): With<'_>, stages: &[Stage<E>]) -> Box<dyn Contestant> {
        Box::new(Self {
            settings: settings.clone(),
            trace: trace.clone(),
            keystrokes: keystrokes.clone(),
            stages: stages.to_vec(),
            base: None,
            batches: Vec::new(),
        })
    }
}

impl<E: Text> Run<E> {
    fn record(&self, board: &mut Board, row: Row, sample: f64) {
        board.record(row, &self.trace.name, E::ENGINE, sample);
    }

    fn stop(&self, board: &mut Board, row: Row) {
        board.stop(row, &self.trace.name, E::ENGINE, self.settings.budget);
    }

    fn is_stopped(&self, board: &Board, row: Row) -> bool {
        board.is_stopped(row, &self.trace.name, E::ENGINE)
    }

    fn base(&mut self) -> Result<&mut E> {
        self.base.as_mut().context("the trace was not replayed")
    }

    fn replay(&mut self, board: &mut Board) -> Result<()> {
        if self.is_stopped(board, REPLAY) {
            return Ok(());
        }
        let heap = live_heap();
        let mut text = E::new();
        let mut lap = lap(self.settings.budget, self.trace.edits.iter(), |edit| text.edit(edit))?;
        if let Lap::Finished(time) = &mut lap {
            let (end, reading) = timed(|| text.text());
            *time += reading;
            ensure_equal(&end?, &self.trace.end)?;
        }
        match lap {
            Lap::Finished(time) => {
                self.record(board, REPLAY, millis(time));
                self.record(board, HEAP_REPLAYED, heap_since(heap));
                self.base = Some(text);
            }
            Lap::Stopped => self.stop(board, REPLAY),
        }
        Ok(())
    }

    /// Replays the trace without measuring it.
    fn prepare(&mut self, _board: &mut Board) -> Result<()> {
        if self.base.is_none() {
            let mut text = E::new();
            self.trace.edits.iter().try_for_each(|edit| text.edit(edit))?;
            self.base = Some(text);
        }
        Ok(())
    }

    fn keystrokes(&mut self, board: &mut Board) -> Result<()> {
        let mut author = self.base()?.fork(AUTHOR)?;
        author.record();
        let (warm_up, keystrokes) = self.keystrokes.split_at(WARM_UP);
        for keystroke in warm_up {
            author.edit(std::slice::from_ref(keystroke))?;
            author.message()?;
        }
        let mut messages = Vec::with_capacity(keystrokes.len());
        let lap = lap(self.settings.budget, keystrokes, |keystroke| {
            author.edit(std::slice::from_ref(keystroke))?;
            messages.push(author.message()?);
            Ok(())
        })?;
        let Lap::Finished(time) = lap else {
            self.stop(board, KEYSTROKE);
            return Ok(());
        };
        // Messages of cola are not encoded, so that nothing can be compared.
        if E::ENGINE != Engine::Cola {
            self.record(board, KEYSTROKE, micros_each(time, keystrokes.len()));
        }
        let mut sizes: Vec<usize> = messages.iter().map(E::message_bytes).collect();
        sizes.sort_unstable();
        let median = crate::measure::count(sizes[sizes.len() / 2]);
        self.record(board, KEYSTROKE_BYTES, median);
        self.applied_keystrokes(board)
    }

    fn applied_keystrokes(&mut self, board: &mut Board) -> Result<()> {
        let mut author = self.base()?.fork(AUTHOR)?;
        let mut reader = self.base()?.fork(3)?;
        author.record();
        let mut messages = Vec::with_capacity(self.keystrokes.len());
        for keystroke in &*self.keystrokes {
            author.edit(std::slice::from_ref(keystroke))?;
            messages.push(author.message()?);
        }
        let (warm_up, messages) = messages.split_at(WARM_UP);
        warm_up.iter().try_for_each(|message| reader.receive(&[message]))?;
        let lap = lap(self.settings.budget, messages, |message| reader.receive(&[message]))?;
        match lap {
            Lap::Finished(time) => {
                ensure_equal(&reader.text()?, &author.text()?)?;
                self.record(board, KEYSTROKE_APPLIED, micros_each(time, messages.len()));
            }
            Lap::Stopped => self.stop(board, KEYSTROKE_APPLIED),
        }
        Ok(())
    }

    fn batches(&mut self, board: &mut Board) -> Result<()> {
        if self.is_stopped(board, BATCHES) {
            return Ok(());
        }
        if self.batches.is_empty() {
            self.batches = self.make_batches()?;
        }
        let mut reader = E::new().fork(2)?;
        let mut lap =
            lap(self.settings.budget, &self.batches, |message| reader.receive(&[message]))?;
        if let Lap::Finished(time) = &mut lap {
            let (text, reading) = timed(|| reader.text());
            *time += reading;
            let text = text?;
            ensure!(E::ENGINE == Engine::ColaPositions || text == self.trace.end, "a wrong text");
        }
        match lap {
            Lap::Finished(time) => {
                self.record(board, BATCHES, micros_each(time, self.trace.edits.len()));
            }
            Lap::Stopped => self.stop(board, BATCHES),
        }
        Ok(())
    }

    fn make_batches(&self) -> Result<Vec<E::Message>> {
        let mut author = E::new();
        author.record();
        let mut batches = Vec::with_capacity(self.trace.edits.len() / BATCH + 1);
        let edits = &self.trace.edits;
        for start in (0..edits.len()).step_by(BATCH) {
            let changes = edits.range(start..edits.len().min(start + BATCH));
            batches.push(author.share(changes)?);
        }
        Ok(batches)
    }
}

impl<E: Stored> Run<E> {
    fn store(&mut self, board: &mut Board) -> Result<()> {
        let file = self.base()?.save()?;
        if E::KEEPS_HISTORY {
            self.record(board, FILE, gzipped(&file)?);
        }
        if let Some(state) = self.base()?.save_state()? {
            ensure_equal(&E::load(&state, 4)?.text()?, &self.trace.end)?;
            self.record(board, STATE, gzipped(&state)?);
        }
        let heap = live_heap();
        let mut loaded = E::load(&file, 4)?;
        ensure_equal(&loaded.text()?, &self.trace.end)?;
        self.record(board, HEAP_LOADED, heap_since(heap));
        drop(loaded);
        if self.is_stopped(board, LOAD) {
            return Ok(());
        }
        // The replica outlives the clock: closing a text is no part of loading one.
        let time = timed_often(|| E::load(&file, 4).and_then(|mut text| Ok((text.text()?, text))));
        if time > self.settings.budget {
            self.stop(board, LOAD);
        }
        self.record(board, LOAD, millis(time));
        Ok(())
    }
}

impl<E: Logged> Run<E> {
    fn merge(&mut self, board: &mut Board) -> Result<()> {
        if self.is_stopped(board, MERGE) {
            return Ok(());
        }
        let history = self.base()?.history()?;
        let merge = || -> Result<(String, E)> {
            let mut reader = E::blank(5)?;
            reader.receive(&[&history])?;
            Ok((reader.text()?, reader))
        };
        ensure_equal(&merge()?.0, &self.trace.end)?;
        let time = timed_often(merge);
        if time > self.settings.budget {
            self.stop(board, MERGE);
        }
        self.record(board, MERGE, millis(time));
        Ok(())
    }
}
