//! Ops taken in parts, where changes end inside of them.

use super::OpList;
use crate::batch::to_usize;
use crate::id::OpId;
use crate::op::{IdRange, OpView, TextEdit, TextOp};
use crate::value::split_chars;

/// A place inside a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// The id of the run's first counter.
    pub(super) first: OpId,
    /// How many counters, and how many bytes of text, are before it.
    pub(super) units: u64,
    pub(super) bytes: usize,
}

impl Cut {
    /// So many counters of a run from here on.
    pub(super) fn part<'a>(&self, run: &TextEdit<'a>, units: u64) -> TextEdit<'a> {
        let op = match run.op {
            TextOp::Insert { origin, text } => {
                let rest = text.get(self.bytes..).unwrap_or_default();
                let (text, _) = split_chars(rest, usize::try_from(units).unwrap_or(usize::MAX));
                let origin = match self.units.checked_sub(1) {
                    Some(last) => Some(self.first.plus(last)),
                    None => origin,
                };
                TextOp::Insert { origin, text }
            }
            TextOp::Delete { range, backwards } => {
                let skipped = if backwards { run.span - self.units - units } else { self.units };
                let range = IdRange { first: range.first.plus(skipped), len: units };
                TextOp::Delete { range, backwards: backwards && units > 1 }
            }
        };
        TextEdit { op, span: units, ..*run }
    }
}

/// How many bytes the last characters of a text have.
fn bytes_at_end(text: &str, chars: u64) -> usize {
    text.chars().rev().take(to_usize(chars)).map(char::len_utf8).sum()
}

/// How far ops were gone through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpPlace {
    /// The next op, of which a part may have been taken.
    pub(super) number: usize,
    pub(super) cut: Option<Cut>,
    at: OpId,
}

impl OpPlace {
    /// Before the first op, which has the counter of `at`.
    pub(crate) const fn first(at: OpId) -> Self {
        Self::before(0, at)
    }

    /// Before number `number`, which has the counter of `at`.
    pub(crate) const fn before(number: usize, at: OpId) -> Self {
        Self { number, cut: None, at }
    }
}

/// Goes through ops, taking them in parts where changes end inside of them.
#[derive(Clone, Debug)]
pub(crate) struct OpParts<'a> {
    list: &'a OpList,
    place: OpPlace,
}

impl<'a> OpParts<'a> {
    /// Ops of which the first has the counter of `at`.
    pub(crate) const fn new(list: &'a OpList, at: OpId) -> Self {
        Self::starting_at(list, OpPlace::first(at))
    }

    /// The same from a place on.
    pub(crate) const fn starting_at(list: &'a OpList, place: OpPlace) -> Self {
        Self { list, place }
    }

    /// How far this has come.
    pub(crate) const fn place(&self) -> OpPlace {
        self.place
    }

    /// Goes to a counter inside of the next op, of which nothing has been taken. Costs the part of its
    /// text before or behind that, whichever is shorter.
    pub(crate) fn skip_within(&mut self, to: u64) {
        let first = self.place.at;
        let Some(OpView::Text(run)) = self.list.view(self.place.number) else { return };
        let units = to - first.counter;
        let behind = run.span - units;
        let bytes = match run.op {
            TextOp::Insert { text, .. } if behind < units => {
                text.len() - bytes_at_end(text, behind)
            }
            TextOp::Insert { text, .. } => split_chars(text, to_usize(units)).0.len(),
            TextOp::Delete { .. } => 0,
        };
        self.place.cut = Some(Cut { first, units, bytes });
        self.place.at.counter = to;
    }

    /// The ops before `end`, in their one form. A part of longer runs may be put together in another way
    /// when it stands alone.
    pub(crate) fn take_until(&mut self, end: u64) -> OpList {
        let mut taken = OpList::new();
        while let Some((id, op)) = self.next_until(end) {
            taken.push_view_joined(&op, id);
        }
        taken
    }

    /// The next op, or as much of it as there is before `end`, with its first counter.
    #[inline]
    pub(crate) fn next_until(&mut self, end: u64) -> Option<(OpId, OpView<'a>)> {
        let at = self.place.at;
        if at.counter >= end {
            return None;
        }
        let whole = self.list.view(self.place.number)?;
        let cut = self.place.cut.take();
        let taken = cut.map_or(0, |cut| cut.units);
        let op_end = at.counter + whole.span() - taken;
        if cut.is_none() && op_end <= end {
            (self.place.at.counter, self.place.number) = (op_end, self.place.number + 1);
            return Some((at, whole));
        }
        // Only runs go on from one change to the next.
        let OpView::Text(run) = whole else { return None };
        let mut cut = cut.unwrap_or(Cut { first: at, units: 0, bytes: 0 });
        self.place.at.counter = op_end.min(end);
        let part = cut.part(&run, self.place.at.counter - at.counter);
        if self.place.at.counter < op_end {
            cut.units += part.span;
            if let TextOp::Insert { text, .. } = part.op {
                cut.bytes += text.len();
            }
            self.place.cut = Some(cut);
        } else {
            self.place.number += 1;
        }
        Some((at, OpView::Text(part)))
    }
}
