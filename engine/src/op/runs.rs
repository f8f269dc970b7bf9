//! Runs of deleting: which characters go on where others were deleted.
//!
//! A keystroke is a change of its own, yet a paragraph typed at one go is one run in the log. Each
//! character has its counter, so a run can be cut anywhere and put together again without loss.

use super::IdRange;
use crate::id::OpId;

/// Moves what it can of the second range to the end of the first; returns whether that is all.
pub(super) fn take_over_range(
    (range, backwards): (&mut IdRange, &mut bool),
    (more, more_backwards): (&mut IdRange, &mut bool),
) -> bool {
    let first = first_deleted(more, *more_backwards);
    let is_lone = more.len == 1;
    if goes_on(range, *backwards, first) {
        let taken = if is_lone || !*more_backwards { more.len } else { 1 };
        range.len += taken;
        // From a backwards run only its first character goes on, which is the highest.
        more.len -= taken;
    } else if goes_back(range, *backwards, first) {
        let taken = if is_lone || *more_backwards { more.len } else { 1 };
        range.len += taken;
        range.first.counter -= taken;
        *backwards = true;
        if !*more_backwards {
            more.first.counter += taken;
        }
        more.len -= taken;
    }
    *more_backwards &= more.len > 1;
    more.len == 0
}

/// The character of a range that was deleted first.
const fn first_deleted(range: &IdRange, backwards: bool) -> OpId {
    if backwards { range.first.plus(range.len - 1) } else { range.first }
}

fn goes_on(range: &IdRange, backwards: bool, next: OpId) -> bool {
    !backwards && range.first.plus(range.len) == next
}

fn goes_back(range: &IdRange, backwards: bool, next: OpId) -> bool {
    (backwards || range.len == 1) && next.plus(1) == range.first
}
