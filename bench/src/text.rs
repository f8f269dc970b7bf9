//! Text: traces replayed, saved, loaded, merged, deleted; keystrokes; cost curves.

mod concurrent;
mod curves;
mod drafts;
mod sequential;

use std::io::Write;
use std::rc::Rc;

use anyhow::{Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::board::Board;
use crate::measure::{Dice, Settings};
use crate::traces::{Edits, SequentialTrace, Splice, Trace};

/// Runs every text row on every trace of its kind, and on synthetic texts.
pub(crate) fn run(settings: &Settings, traces: &[Trace], board: &mut Board) {
    let typed = synthetic(settings.size(100_000, 5_000));
    let sequential = traces.iter().filter_map(|trace| match trace {
        Trace::Sequential(trace) => Some(trace),
        Trace::Concurrent(_) => None,
    });
    for trace in sequential.chain([&typed]) {
        let trace = Rc::new(trace.prefix(settings.size(usize::MAX, 5_000)));
        sequential::run(settings, &trace, board);
        if let Err(error) = drafts::run(settings, &trace, board) {
            board.note(format!("{}: deleted drafts: {error:#}", trace.name));
        }
    }
    for trace in traces {
        if let Trace::Concurrent(trace) = trace {
            concurrent::run(settings, &Rc::new(trace.clone()), board);
        }
    }
    curves::run(settings, board);
}

/// Someone typing words in several scripts, here and there, and deleting some of it.
fn synthetic(edits: usize) -> SequentialTrace {
    const LETTERS: [&str; 8] = ["a", "e", " ", "n", "\u{e9}", "\u{3042}", "\u{1f600}", "\n"];
    let mut dice = Dice::new(1);
    let mut rope = ropey::Rope::new();
    let mut cursor = 0;
    let mut changes = Edits::default();
    for _ in 0..edits {
        if dice.below(40) == 0 {
            cursor = dice.below(rope.len_chars() + 1);
        }
        let deletes = cursor > 0 && dice.below(4) == 0;
        let splice = if deletes {
            cursor -= 1;
            Splice::measured(&rope, cursor, 1, "")
        } else {
            let letter = LETTERS[dice.below(LETTERS.len())];
            let splice = Splice::measured(&rope, cursor, 0, letter);
            cursor += 1;
            splice
        };
        splice.apply(&mut rope);
        changes.push([splice]);
    }
    SequentialTrace { name: "synthetic".into(), edits: changes, end: rope.to_string() }
}

/// The size of a file after gzip, in kB; of one that gzip does not make smaller, as it is.
pub(crate) fn gzipped(file: &[u8]) -> Result<f64> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(file)?;
    let packed = packer.finish()?;
    Ok(crate::measure::count(packed.len().min(file.len())) / 1e3)
}

fn ensure_equal(text: &str, expected: &str) -> Result<()> {
    let first = text.chars().zip(expected.chars()).take_while(|(a, b)| a == b).count();
    ensure!(text == expected, "the text is wrong from character {first} on");
    Ok(())
}
