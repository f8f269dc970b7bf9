//! A trace typed and deleted again and again: what is left of it once the history is cut.

use anyhow::{Result, ensure};
use ropey::Rope;

use super::gzipped;
use crate::board::{Board, Row, Target};
use crate::engines::sds::SdsText;
use crate::engines::{Engine, Stored, Text};
use crate::measure::{Settings, count};
use crate::traces::{SequentialTrace, Splice};

const LEFT: Row = Row::new("left of 20 deleted drafts, gzip", "bytes/run", Target::AtMost(6.0));

const DRAFTS: usize = 20;

/// Ours alone: the others either keep what was deleted, or forget by what ids it was known.
pub(super) fn run(settings: &Settings, trace: &SequentialTrace, board: &mut Board) -> Result<()> {
    if !settings.wants(&[LEFT]) || !settings.engines.contains(&Engine::Sds) {
        return Ok(());
    }
    let rope = Rope::from_str(&trace.end);
    let all = Splice::measured(&rope, 0, rope.len_chars(), "");
    let mut text = SdsText::new();
    for _ in 0..DRAFTS {
        trace.edits.iter().try_for_each(|edit| text.edit(edit))?;
        ensure!(text.text()? == trace.end, "the text is wrong");
        text.edit(&[all])?;
    }
    ensure!(text.text()?.is_empty(), "all drafts are deleted");
    let Some(state) = text.save_state()? else { return Ok(()) };
    let bytes = gzipped(&state)? * 1e3;
    board.record(LEFT, &trace.name, Engine::Sds, bytes / count(DRAFTS * runs(trace)));
    Ok(())
}

/// How many runs a draft leaves: where somebody types elsewhere than behind what was typed last, a run begins,
/// and the one that it goes into becomes two, unless that ends there.
fn runs(trace: &SequentialTrace) -> usize {
    let (mut runs, mut cursor) = (0, None);
    for splice in trace.edits.iter().flatten() {
        let (at, inserted) = (splice.at.chars(), splice.inserted.chars().count());
        let goes_on = cursor == Some(at) && splice.deleted.chars() == 0;
        if inserted > 0 && !goes_on {
            runs += 1;
        }
        cursor = (inserted > 0).then_some(at + inserted);
    }
    runs
}
