//! Several authors' trace, with a replica for each; then its history as one patch.

use std::rc::Rc;

use anyhow::{Result, ensure};

use crate::board::{Board, Row, Target};
use crate::engines::automerge::Automerge;
use crate::engines::cola::Cola;
use crate::engines::diamond::Diamond;
use crate::engines::loro::Loro;
use crate::engines::sds::SdsText;
use crate::engines::yrs::Yrs;
use crate::engines::{Engine, Logged, Text};
use crate::measure::{Contestant, Lap, Settings, lap, millis, take_turns, timed, timed_often};
use crate::traces::{ConcurrentTrace, Step};

const REPLAY: Row = Row::new("concurrent trace, a replica an author", "ms", Target::Times(1.0));
const MERGE: Row = Row::new("concurrent trace, merged as one patch", "ms", Target::Times(1.0));

pub(super) fn run(settings: &Settings, trace: &Rc<ConcurrentTrace>, board: &mut Board) {
    if !settings.wants(&[REPLAY, MERGE]) {
        return;
    }
    let contestants = settings.engines.iter().filter_map(|engine| {
        Some(match engine {
            Engine::Sds => logged::<SdsText>(settings, trace),
            Engine::Loro => logged::<Loro>(settings, trace),
            Engine::Yrs => logged::<Yrs>(settings, trace),
            Engine::Automerge => logged::<Automerge>(settings, trace),
            Engine::DiamondTypes => logged::<Diamond>(settings, trace),
            Engine::Cola => Run::<Cola<true>>::boxed(settings, trace, |_, _| Ok(())),
            Engine::ColaPositions => Run::<Cola<false>>::boxed(settings, trace, |_, _| Ok(())),
            Engine::Jumprope | Engine::Redb => return None,
        })
    });
    take_turns(settings, &trace.name, contestants.collect(), board);
}

fn logged<E: Logged + 'static>(
    settings: &Settings,
    trace: &Rc<ConcurrentTrace>,
) -> Box<dyn Contestant> {
    Run::<E>::boxed(settings, trace, Run::merge)
}

type Merge<E> = fn(&mut Run<E>, &mut Board) -> Result<()>;

/// One engine on one trace.
struct Run<E: Text> {
    settings: Settings,
    trace: Rc<ConcurrentTrace>,
    merge: Merge<E>,
    /// The replicas, of which the first has everything, once a replay came to its end.
    replicas: Vec<E>,
    /// Whether they were found to converge.
    is_compared: bool,
}

impl<E: Text> Contestant for Run<E> {
    fn engine(&self) -> Engine {
        E::ENGINE
    }

    fn round(&mut self, board: &mut Board) -> Result<()> {
        self.replay(board)?;
        if self.replicas.is_empty() { Ok(()) } else { (self.merge)(self, board) }
    }
}

impl<E: Text + 'static> Run<E> {
    fn boxed(
        settings: &Settings,
        trace: &Rc<ConcurrentTrace>,
        merge: Merge<E>,
    ) -> Box<dyn Contestant> {
        let (settings, trace) = (settings.clone(), trace.clone());
        Box::new(Self { settings, trace, merge, replicas: Vec::new(), is_compared: false })
    }
}

impl<E: Text> Run<E> {
    fn replay(&mut self, board: &mut Board) -> Result<()> {
        let name = &self.trace.name;
        if board.is_stopped(REPLAY, name, E::ENGINE) {
            return Ok(());
        }
        let mut replicas = vec![E::new()];
        for number in 1..self.trace.replicas as u64 {
            let other = replicas[0].fork(number + 1)?;
            replicas.push(other);
        }
        replicas.iter_mut().for_each(E::record);
        let mut sent = Vec::new();
        let mut lap = lap(self.settings.budget, &self.trace.steps, |step| {
            take(step, &mut replicas, &mut sent)
        })?;
        if let Lap::Finished(time) = &mut lap {
            let (text, reading) = timed(|| replicas[0].text());
            *time += reading;
            if E::ENGINE != Engine::ColaPositions && text? != self.trace.end {
                let engine = E::ENGINE.name();
                board.note(format!(
                    "{engine} orders concurrent insertions of {name} differently from its file"
                ));
            }
        }
        match lap {
            Lap::Finished(time) => {
                board.record(REPLAY, name, E::ENGINE, millis(time));
                self.replicas = replicas;
            }
            Lap::Stopped => board.stop(REPLAY, name, E::ENGINE, self.settings.budget),
        }
        Ok(())
    }
}

fn take<E: Text>(step: &Step, replicas: &mut [E], sent: &mut Vec<E::Message>) -> Result<()> {
    match step {
        Step::Send { replica, changes } => {
            sent.push(replicas[*replica].share(changes.iter())?);
            Ok(())
        }
        Step::Receive { replica, messages } => {
            let messages: Vec<&E::Message> = messages.iter().map(|number| &sent[*number]).collect();
            replicas[*replica].receive(&messages)
        }
    }
}

impl<E: Logged> Run<E> {
    fn merge(&mut self, board: &mut Board) -> Result<()> {
        if board.is_stopped(MERGE, &self.trace.name, E::ENGINE) {
            return Ok(());
        }
        let [merged, others @ ..] = &mut self.replicas[..] else { return Ok(()) };
        let (history, text) = (merged.history()?, merged.text()?);
        if !std::mem::replace(&mut self.is_compared, true) {
            for other in others {
                other.receive(&[&history])?;
                ensure!(other.text()? == text, "the replicas differ");
            }
        }
        let merge = || -> Result<(String, E)> {
            let mut reader = E::blank(1_000_000)?;
            reader.receive(&[&history])?;
            Ok((reader.text()?, reader))
        };
        ensure!(merge()?.0 == text, "another text was merged");
        let time = timed_often(merge);
        if time > self.settings.budget {
            board.stop(MERGE, &self.trace.name, E::ENGINE, self.settings.budget);
        }
        board.record(MERGE, &self.trace.name, E::ENGINE, millis(time));
        Ok(())
    }
}
