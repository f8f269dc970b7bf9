//! The characters of one spliced text: an RGA of runs.
//!
//! Roh, Jeon, Kim, Lee 2011, "Replicated abstract data types", section 5: a character goes right
//! after its origin, past whatever has a greater stamp there. Deleted characters keep their ids, so
//! that origins never dangle.
//!
//! A run holds characters with consecutive ids, each of which has the one before as its origin; so
//! stamps rise along a run, and one comparison with its first skips or stops at all of it.
//!
//! Invariants, checked by `assert_invariants`:
//! - X1. No character id is in two runs.
//! - X2. A visible run has as many characters as its length; a deleted one has none.
//! - X3. No two neighbouring runs could be one.
//!
//! Cost: every operation walks the runs. Texts that were never spliced have no runs at all.

use std::ops::Range;

use crate::id::{OpId, Stamp};
use crate::op::IdRange;
use crate::value::char_count;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    first: OpId,
    len: u64,
    /// The characters, or nothing when they were deleted.
    text: String,
    deleted: bool,
}

impl Run {
    fn contains(&self, id: OpId) -> bool {
        id.replica == self.first.replica
            && (self.first.counter..self.first.counter + self.len).contains(&id.counter)
    }

    /// Cuts off what lies after the first `len` characters.
    fn split_off(&mut self, len: u64) -> Self {
        let text = self.text.split_off(byte_of_char(&self.text, len));
        let rest = Self { first: self.first.plus(len), len: self.len - len, text, ..*self };
        self.len = len;
        rest
    }

    /// Whether `next` can be the end of this run: its ids go on and its state is the same.
    fn continues_with(&self, next: &Self) -> bool {
        self.first.plus(self.len) == next.first && self.deleted == next.deleted
    }
}

/// What a splice of a range of units means in characters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Splice {
    /// The character before the range; none at the start.
    pub(crate) origin: Option<OpId>,
    /// The visible characters in the range.
    pub(crate) deleted: Vec<IdRange>,
}

/// A text as characters that know their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    runs: Vec<Run>,
}

impl Text {
    /// The text that the `Set` with id `set` made.
    pub(crate) fn new(set: OpId, text: &str) -> Self {
        let mut runs = Vec::new();
        if !text.is_empty() {
            let len = char_count(text);
            runs.push(Run { first: set, len, text: text.to_owned(), deleted: false });
        }
        Self { runs }
    }

    /// Puts characters after `origin`. `stamp` is that of the first; `stamp_of` knows every other.
    ///
    /// Returns whether there was anything to do: an origin that is no character of this text makes
    /// the insertion void.
    pub(crate) fn insert(
        &mut self,
        origin: Option<OpId>,
        stamp: Stamp,
        text: &str,
        stamp_of: impl Fn(OpId) -> Stamp,
    ) -> bool {
        let Some(after) = self.index_after(origin) else { return false };
        let skipped =
            self.runs[after..].iter().take_while(|run| stamp_of(run.first) > stamp).count();
        let at = after + skipped;
        let len = char_count(text);
        self.runs.insert(at, Run { first: stamp.op(), len, text: text.to_owned(), deleted: false });
        // Around the new run, and where looking for the origin may have split one for nothing.
        for at in [at + 1, at, after] {
            self.join_with_previous(at);
        }
        true
    }

    /// Removes the characters in `range` that are in this text and visible.
    pub(crate) fn delete(&mut self, range: IdRange) {
        let end = range.first.counter.saturating_add(range.len);
        let mut at = 0;
        while let Some(run) = self.runs.get_mut(at) {
            let run_end = run.first.counter + run.len;
            let from = range.first.counter.max(run.first.counter);
            let to = end.min(run_end);
            if run.first.replica != range.first.replica || from >= to || run.deleted {
                at += 1;
                continue;
            }
            let (before, inside) = (from - run.first.counter, to - from);
            if before > 0 {
                let rest = run.split_off(before);
                at += 1;
                self.runs.insert(at, rest);
            }
            if self.runs[at].len > inside {
                let rest = self.runs[at].split_off(inside);
                self.runs.insert(at + 1, rest);
            }
            self.runs[at].deleted = true;
            self.runs[at].text = String::new();
            at += 1;
        }
        self.join_all();
    }

    /// The characters that a range of UTF-16 units means, or `None` if it does not lie on character
    /// boundaries inside the text.
    pub(crate) fn resolve(&self, range: &Range<usize>) -> Option<Splice> {
        if range.start > range.end {
            return None;
        }
        let mut splice = Splice { origin: None, deleted: Vec::new() };
        let mut unit = 0;
        let (mut on_from, mut on_to) = (range.start == 0, range.end == 0);
        for run in self.runs.iter().filter(|run| !run.deleted) {
            for (nth, char) in (0..).zip(run.text.chars()) {
                let id = run.first.plus(nth);
                if unit < range.start {
                    splice.origin = Some(id);
                } else if unit < range.end {
                    push_id(&mut splice.deleted, id);
                }
                unit += char.len_utf16();
                on_from |= unit == range.start;
                on_to |= unit == range.end;
                if unit >= range.end && on_from {
                    return on_to.then_some(splice);
                }
            }
        }
        (on_from && on_to).then_some(splice)
    }

    /// The visible characters.
    pub(crate) fn visible(&self) -> String {
        self.runs.iter().map(|run| run.text.as_str()).collect()
    }

    /// The place in `runs` right after `origin`, where a run may be put; splits the run around it.
    fn index_after(&mut self, origin: Option<OpId>) -> Option<usize> {
        let Some(origin) = origin else { return Some(0) };
        let at = self.runs.iter().position(|run| run.contains(origin))?;
        let before = origin.counter - self.runs[at].first.counter + 1;
        if before < self.runs[at].len {
            let rest = self.runs[at].split_off(before);
            self.runs.insert(at + 1, rest);
        }
        Some(at + 1)
    }

    fn join_all(&mut self) {
        for at in (1..self.runs.len()).rev() {
            self.join_with_previous(at);
        }
    }

    fn join_with_previous(&mut self, at: usize) {
        if at > 0 && at < self.runs.len() && self.runs[at - 1].continues_with(&self.runs[at]) {
            let next = self.runs.remove(at);
            self.runs[at - 1].len += next.len;
            self.runs[at - 1].text.push_str(&next.text);
        }
    }

    /// Panics if X1 to X3 do not hold.
    pub(crate) fn assert_invariants(&self) {
        for (at, run) in self.runs.iter().enumerate() {
            assert!(run.len > 0, "X2: an empty run");
            let visible = if run.deleted { 0 } else { run.len };
            assert_eq!(char_count(&run.text), visible, "X2: {run:?}");
            for other in &self.runs[at + 1..] {
                assert!(!other.contains(run.first) && !run.contains(other.first), "X1: {run:?}");
            }
            if let Some(next) = self.runs.get(at + 1) {
                assert!(!run.continues_with(next), "X3: {run:?} {next:?}");
            }
        }
    }
}

fn push_id(ranges: &mut Vec<IdRange>, id: OpId) {
    match ranges.last_mut() {
        Some(range) if range.first.plus(range.len) == id => range.len += 1,
        _ => ranges.push(IdRange { first: id, len: 1 }),
    }
}

fn byte_of_char(text: &str, nth: u64) -> usize {
    let nth = usize::try_from(nth).unwrap_or(usize::MAX);
    text.char_indices().nth(nth).map_or(text.len(), |(at, _)| at)
}
