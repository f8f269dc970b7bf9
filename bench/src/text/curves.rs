//! What an edit costs as the text grows.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::board::{Board, Row, Target};
use crate::engines::automerge::Automerge;
use crate::engines::cola::Cola;
use crate::engines::diamond::Diamond;
use crate::engines::loro::Loro;
use crate::engines::sds::SdsText;
use crate::engines::yrs::Yrs;
use crate::engines::{Engine, Logged, Stored, Text, jumprope};
use crate::measure::{Climber, Dice, Lap, Settings, climb, lap, timed};
use crate::traces::Splice;

const TYPED: Row = Row::new("characters typed at the end", "ns", Target::Shown);
const TYPED_BACKWARDS: Row = Row::new("characters inserted at the start", "ns", Target::Shown);
const RANDOM: Row = Row::new("characters inserted and deleted anywhere", "ns", Target::Shown);
const RANDOM_LOADED: Row = Row::new("... loaded and read", "ns", Target::Shown);
const RANDOM_MERGED: Row = Row::new("... merged as one patch and read", "ns", Target::Shown);
const SAME_PLACE: Row =
    Row::new("replicas that insert at one place, each patch applied", "ns", Target::Shown);
const SAME_PLACE_DOWN: Row = Row::new("... in descending order of id", "ns", Target::Shown);
const SAME_PLACE_MIXED: Row = Row::new("... in random order", "ns", Target::Shown);

/// The splice that is made when the text has so many characters.
type Next = fn(&mut Dice, usize) -> Splice;

fn typed(_: &mut Dice, len: usize) -> Splice {
    Splice::ascii(len, 0, "x")
}

fn typed_backwards(_: &mut Dice, _: usize) -> Splice {
    Splice::ascii(0, 0, "x")
}

fn random(dice: &mut Dice, len: usize) -> Splice {
    if len > 0 && dice.below(4) == 0 {
        Splice::ascii(dice.below(len), 1, "")
    } else {
        Splice::ascii(dice.below(len + 1), 0, "x")
    }
}

pub(super) fn run(settings: &Settings, board: &mut Board) {
    for (row, next) in [(TYPED, typed as Next), (TYPED_BACKWARDS, typed_backwards)] {
        let climbers = settings.engines.iter().filter_map(|engine| {
            Some(match engine {
                Engine::Sds => local::<SdsText>(settings, row, next),
                Engine::Loro => local::<Loro>(settings, row, next),
                Engine::Yrs => local::<Yrs>(settings, row, next),
                Engine::Automerge => local::<Automerge>(settings, row, next),
                Engine::DiamondTypes => local::<Diamond>(settings, row, next),
                Engine::Cola => local::<Cola<true>>(settings, row, next),
                Engine::Jumprope => local::<jumprope::Rope>(settings, row, next),
                Engine::ColaPositions | Engine::Redb => return None,
            })
        });
        climb(settings, &[row], &settings.curve_sizes(), climbers.collect(), board);
    }
    let climbers = settings.engines.iter().filter_map(|engine| {
        Some(match engine {
            Engine::Sds => logged::<SdsText>(settings),
            Engine::Loro => logged::<Loro>(settings),
            Engine::Yrs => logged::<Yrs>(settings),
            Engine::Automerge => logged::<Automerge>(settings),
            Engine::DiamondTypes => logged::<Diamond>(settings),
            Engine::Cola => stored::<Cola<true>>(settings),
            Engine::Jumprope => local::<jumprope::Rope>(settings, RANDOM, random),
            Engine::ColaPositions | Engine::Redb => return None,
        })
    });
    let rows = [RANDOM, RANDOM_LOADED, RANDOM_MERGED];
    climb(settings, &rows, &settings.curve_sizes(), climbers.collect(), board);
    same_place(settings, board);
}

fn local<E: Text>(settings: &Settings, row: Row, next: Next) -> Climber<'_> {
    Climber::new(E::ENGINE, move |size| Ok(vec![(row, edit::<E>(settings.budget, size, next)?.0)]))
}

fn stored<E: Stored>(settings: &Settings) -> Climber<'_> {
    Climber::new(E::ENGINE, move |size| {
        let (edited, mut text) = edit::<E>(settings.budget, size, random)?;
        let mut results = vec![(RANDOM, edited)];
        if edited != Lap::Stopped {
            results.push((RANDOM_LOADED, load(&mut text)?));
        }
        Ok(results)
    })
}

fn logged<E: Logged>(settings: &Settings) -> Climber<'_> {
    Climber::new(E::ENGINE, move |size| {
        let (edited, mut text) = edit::<E>(settings.budget, size, random)?;
        let mut results = vec![(RANDOM, edited)];
        if edited != Lap::Stopped {
            results.push((RANDOM_LOADED, load(&mut text)?));
            results.push((RANDOM_MERGED, merge(&mut text)?));
        }
        Ok(results)
    })
}

fn edit<E: Text>(budget: Duration, size: usize, next: Next) -> Result<(Lap, E)> {
    let mut dice = Dice::new(3);
    let mut len = 0;
    let edits: Vec<Splice> = (0..size)
        .map(|_| {
            let splice = next(&mut dice, len);
            len = len + splice.inserted.len() - splice.deleted.chars();
            splice
        })
        .collect();
    let mut text = E::new();
    let lap = lap(budget, &edits, |splice| text.edit(std::slice::from_ref(splice)))?;
    if lap != Lap::Stopped {
        ensure!(text.text()?.len() == len, "a text of a wrong length");
    }
    Ok((lap, text))
}

fn load<E: Stored>(text: &mut E) -> Result<Lap> {
    let file = text.save()?;
    let (loaded, time) = timed(|| E::load(&file, 2).and_then(|mut text| Ok((text.text()?, text))));
    ensure!(loaded?.0 == text.text()?, "another text was loaded");
    Ok(Lap::Finished(time))
}

fn merge<E: Logged>(text: &mut E) -> Result<Lap> {
    let history = text.history()?;
    let (merged, time) = timed(|| -> Result<_> {
        let mut reader = E::blank(2)?;
        reader.receive(&[&history])?;
        Ok((reader.text()?, reader))
    });
    ensure!(merged?.0 == text.text()?, "another text was merged");
    Ok(Lap::Finished(time))
}

/// Many replicas of one short text insert at the same place, not knowing of each other. In which order
/// their patches arrive decides what there is to skip, and for each engine another order is the worst.
fn same_place(settings: &Settings, board: &mut Board) {
    let sizes: Vec<usize> = [100, 1_000, 10_000]
        .into_iter()
        .filter(|size| *size <= settings.size(10_000, 1_000))
        .collect();
    let orders: [(Row, Order); 3] = [
        (SAME_PLACE, |_| {}),
        (SAME_PLACE_DOWN, |numbers| numbers.reverse()),
        (SAME_PLACE_MIXED, |numbers| Dice::new(14).shuffle(numbers)),
    ];
    for (row, order) in orders {
        let climbers = settings.engines.iter().filter_map(|engine| {
            Some(match engine {
                Engine::Sds => rivals::<SdsText>(settings, row, order),
                Engine::Loro => rivals::<Loro>(settings, row, order),
                Engine::Yrs => rivals::<Yrs>(settings, row, order),
                Engine::Automerge => rivals::<Automerge>(settings, row, order),
                Engine::DiamondTypes => rivals::<Diamond>(settings, row, order),
                Engine::Cola => rivals::<Cola<true>>(settings, row, order),
                Engine::ColaPositions | Engine::Jumprope | Engine::Redb => return None,
            })
        });
        climb(settings, &[row], &sizes, climbers.collect(), board);
    }
}

/// Puts the numbers of replicas, which rise as their ids do, into the order in which they arrive.
type Order = fn(&mut [usize]);

/// At how many replicas it is also checked that they converge.
const COMPARED: usize = 100;

fn rivals<E: Text>(settings: &Settings, row: Row, order: Order) -> Climber<'_> {
    Climber::new(E::ENGINE, move |size| {
        let mut base = E::new();
        base.record();
        base.edit(&[Splice::ascii(0, 0, "[]")])?;
        drop(base.message()?);
        let (mut reader, mut other) = (base.fork(2)?, base.fork(3)?);
        let mut messages = Vec::with_capacity(size);
        for number in 0..size {
            let mut rival = base.fork(number as u64 + 4)?;
            rival.record();
            rival.edit(&[Splice::ascii(1, 0, letter(number))])?;
            messages.push(rival.message()?);
        }
        let mut numbers: Vec<usize> = (0..size).collect();
        order(&mut numbers);
        let lap = lap(settings.budget, &numbers, |number| reader.receive(&[&messages[*number]]))?;
        if lap != Lap::Stopped {
            let text = reader.text()?;
            let typed: String = (0..size).map(letter).collect();
            let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
            ensure!(inner.map(letters_of) == Some(letters_of(&typed)), "a wrong text");
            if size <= COMPARED {
                messages.iter().rev().try_for_each(|message| other.receive(&[message]))?;
                ensure!(other.text()? == text, "the replicas differ");
            }
        }
        Ok(vec![(row, lap)])
    })
}

fn letters_of(text: &str) -> Vec<char> {
    let mut letters: Vec<char> = text.chars().collect();
    letters.sort_unstable();
    letters
}

/// What a rival types.
fn letter(number: usize) -> &'static str {
    let at = number % LETTERS.len();
    &LETTERS[at..=at]
}

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";
