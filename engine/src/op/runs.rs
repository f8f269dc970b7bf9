//! Runs of typing and deleting: one op for many characters, whichever changes they came in.
//!
//! A keystroke is a change of its own, yet a paragraph typed at one go is one run in the log. Each
//! character has its counter, so a run can be cut anywhere and put together again without loss.

use super::{IdRange, Op};
use crate::id::OpId;
use crate::keystroke::{Keystroke, Target};
use crate::value::{char_count, split_chars};

impl Op {
    /// Takes over as much of `next`, whose first counter is `at`, as continues this op, which ends
    /// right before. Returns what is left of `next`.
    ///
    /// Taking over from the left, one op after the other, gives the one form that a list of ops
    /// has, however it was cut.
    pub(crate) fn take_over(&mut self, mut next: Self, at: OpId) -> Option<Self> {
        if !self.has_text_of(&next) {
            return Some(next);
        }
        match (&mut *self, &mut next) {
            (Self::Insert { text, .. }, Self::Insert { origin, text: more, .. })
                if at.counter > 0 && *origin == Some(OpId { counter: at.counter - 1, ..at }) =>
            {
                text.push_str(more);
                None
            }
            (
                Self::Delete { range, backwards, .. },
                Self::Delete { range: more, backwards: more_backwards, .. },
            ) => {
                let is_all = take_over_range((range, backwards), (more, more_backwards));
                (!is_all).then_some(next)
            }
            _ => Some(next),
        }
    }

    /// Takes over the whole of a keystroke, whose first counter is that of `at`, if it continues this
    /// op, and returns how many counters it takes.
    pub(crate) fn extend(
        &mut self,
        target: &Target<'_>,
        key: &Keystroke<'_>,
        at: OpId,
    ) -> Option<u64> {
        let is_same = self.edited_text().is_some_and(|(entry, life, field, set)| {
            (set, entry, life) == (target.set, target.entry, target.life) && field == target.field
        });
        match (self, key) {
            (Self::Insert { text, .. }, Keystroke::Insert { origin: Some(origin), text: more })
                if is_same && origin.plus(1) == at =>
            {
                text.push_str(more);
                Some(char_count(more))
            }
            (Self::Delete { range, backwards, .. }, Keystroke::Delete { range: more })
                if is_same =>
            {
                if goes_on(range, *backwards, more.first) {
                    range.len += more.len;
                } else if more.len == 1 && goes_back(range, *backwards, more.first) {
                    (range.first, range.len, *backwards) = (more.first, range.len + 1, true);
                } else {
                    return None;
                }
                Some(more.len)
            }
            _ => None,
        }
    }

    /// Whether `next`, whose first counter is `at`, begins with something that continues this op.
    pub(crate) fn is_continued_by(&self, next: &Self, at: OpId) -> bool {
        if !self.has_text_of(next) {
            return false;
        }
        match (self, next) {
            (Self::Insert { .. }, Self::Insert { origin: Some(origin), .. }) => {
                origin.replica == at.replica && origin.counter.checked_add(1) == Some(at.counter)
            }
            (
                Self::Delete { range, backwards, .. },
                Self::Delete { range: more, backwards: more_backwards, .. },
            ) => {
                let first = first_deleted(more, *more_backwards);
                goes_on(range, *backwards, first) || goes_back(range, *backwards, first)
            }
            _ => false,
        }
    }

    /// Cuts the op, whose first counter is `at`, after `units` counters, fewer than it has, and
    /// returns the rest. Only runs of typing and deleting can be cut.
    pub(crate) fn split_off(&mut self, units: u64, at: OpId) -> Self {
        let span = self.span();
        let mut cursor = RunCursor::new(at);
        let first = cursor.part(self, units);
        let rest = cursor.part(self, span - units);
        *self = first;
        rest
    }

    /// Whether both edit the same text.
    fn has_text_of(&self, other: &Self) -> bool {
        match (self.edited_text(), other.edited_text()) {
            (Some(mine), Some(others)) => mine == others,
            _ => false,
        }
    }
}

/// A place in a run that is taken in parts, from the first to the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunCursor {
    at: OpId,
    /// How many counters, and how many bytes of text, have been taken.
    units: u64,
    bytes: usize,
}

impl RunCursor {
    /// The start of a run whose first counter is `at`.
    pub(crate) const fn new(at: OpId) -> Self {
        Self { at, units: 0, bytes: 0 }
    }

    /// The next `units` counters of the run. Costs what it returns.
    pub(crate) fn part(&mut self, run: &Op, units: u64) -> Op {
        let before = self.units;
        self.units += units;
        match run {
            Op::Insert { entry, life, field, set, origin, text } => {
                let rest = text.get(self.bytes..).unwrap_or_default();
                let (text, _) = split_chars(rest, usize::try_from(units).unwrap_or(usize::MAX));
                self.bytes += text.len();
                let origin = match before.checked_sub(1) {
                    Some(last) => Some(self.at.plus(last)),
                    None => *origin,
                };
                let (field, text) = (field.clone(), text.to_owned());
                Op::Insert { entry: *entry, life: *life, field, set: *set, origin, text }
            }
            Op::Delete { entry, life, field, set, range, backwards } => {
                let skipped = if *backwards { range.len - self.units } else { before };
                Op::Delete {
                    entry: *entry,
                    life: *life,
                    field: field.clone(),
                    set: *set,
                    range: IdRange { first: range.first.plus(skipped), len: units },
                    backwards: *backwards && units > 1,
                }
            }
            other => {
                debug_assert!(false, "only runs go on from one change to the next");
                other.clone()
            }
        }
    }
}

/// Puts ops, the first of which has the counter of `first`, into their one form.
pub(crate) fn join_runs(ops: Vec<Op>, first: OpId) -> Vec<Op> {
    if ops.len() < 2 {
        return ops;
    }
    let mut joined: Vec<Op> = Vec::with_capacity(ops.len());
    let mut at = first;
    for op in ops {
        push_joined(&mut joined, op, &mut at);
    }
    joined
}

/// Adds an op, which begins at `at`, to ops that are in their one form; moves `at` behind it.
pub(crate) fn push_joined(ops: &mut Vec<Op>, op: Op, at: &mut OpId) {
    let end = at.plus(op.span());
    let mut rest = Some(op);
    // What is left over begins a run of its own, which the rest continues.
    while let Some(op) = rest.take() {
        let span = op.span();
        let Some(last) = ops.last_mut() else {
            ops.push(op);
            break;
        };
        match last.take_over(op, *at) {
            Some(left) if left.span() == span => ops.push(left),
            left => {
                *at = at.plus(span - left.as_ref().map_or(0, Op::span));
                rest = left;
            }
        }
    }
    *at = end;
}

/// Moves what it can of the second range to the end of the first; returns whether that is all.
fn take_over_range(
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{EntryId, Life, ReplicaId};
    use crate::value::Field;

    fn id(counter: u64) -> OpId {
        OpId { replica: ReplicaId::new(7).unwrap(), counter }
    }

    fn delete(first: u64, len: u64, backwards: bool) -> Op {
        let (entry, life, field) = (EntryId::ROOT, Life::FIRST, Field::Value);
        Op::Delete {
            entry,
            life,
            field,
            set: id(0),
            range: IdRange { first: id(first), len },
            backwards,
        }
    }

    fn insert(origin: u64, text: &str) -> Op {
        let (entry, life, field) = (EntryId::ROOT, Life::FIRST, Field::Value);
        Op::Insert { entry, life, field, set: id(0), origin: Some(id(origin)), text: text.into() }
    }

    /// One op for each counter.
    fn apart(ops: &[Op], start: OpId) -> Vec<Op> {
        let mut units = Vec::new();
        let mut at = start;
        for op in ops {
            let mut rest = op.clone();
            while rest.span() > 1 {
                let next = rest.split_off(1, at);
                units.push(std::mem::replace(&mut rest, next));
                at = at.plus(1);
            }
            units.push(rest);
            at = at.plus(1);
        }
        units
    }

    proptest! {
        #[test]
        fn ops_have_one_form_however_they_were_cut(
            steps in prop::collection::vec((0u64..6, 1u64..4, any::<bool>()), 1..12),
            cut in 0usize..20,
        ) {
            let start = id(100);
            let mut at = start;
            let mut ops = Vec::new();
            for (place, len, flag) in steps {
                let op = match place {
                    0 => insert(at.counter - 1, ["\u{e9}", "\u{e9}x", "\u{e9}xy"][usize::try_from(len).unwrap() - 1]),
                    1 => insert(3, "ab"),
                    _ => delete(10 + place, len, flag && len > 1),
                };
                at = at.plus(op.span());
                ops.push(op);
            }
            let joined = join_runs(ops.clone(), start);
            let units = apart(&ops, start);
            prop_assert_eq!(&join_runs(units.clone(), start), &joined);
            prop_assert_eq!(&apart(&joined, start), &units, "nothing is lost");
            let cut = cut.min(units.len());
            let mut halves = join_runs(units[..cut].to_vec(), start);
            halves.extend(join_runs(units[cut..].to_vec(), start.plus(cut as u64)));
            prop_assert_eq!(&join_runs(halves, start), &joined);
            let mut at = start;
            for pair in joined.windows(2) {
                at = at.plus(pair[0].span());
                prop_assert!(!pair[0].is_continued_by(&pair[1], at), "{:?}", pair);
            }
        }
    }

    #[test]
    fn backspaces_become_one_run() {
        let ops = vec![delete(9, 1, false), delete(8, 1, false), delete(7, 1, false)];
        assert_eq!(join_runs(ops, id(20)), [delete(7, 3, true)]);
        let ops = vec![delete(5, 1, false), delete(4, 2, false)];
        assert_eq!(join_runs(ops, id(20)), [delete(4, 2, true), delete(5, 1, false)]);
    }
}
