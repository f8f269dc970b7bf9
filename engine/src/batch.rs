//! Consecutive changes of one author, as runs: how changes are kept in the log and travel in
//! numbers.
//!
//! Where one change ends and the next begins is kept beside the ops, so that a paragraph typed with a
//! change for each character is one op and one line of boundaries. Of a change's deps only those are
//! kept that its ops do not tell (`full_deps`).
//!
//! Invariants, checked by `assert_invariants`:
//! - C1. The spans and the ops take the same counters.
//! - C2. Only the first change of a span names deps of its own.
//! - C3. The ops are in their one form: none continues the one before.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::change::{Change, ChangeHeader, deps_fault, full_deps, named_deps};
use crate::codec::encode_block;
use crate::id::{OpId, ReplicaId};
use crate::limits::{BLOCK_CHANGES_MAX, BLOCK_OPS_MAX, CHANGE_OPS_MAX};
use crate::op::{Op, RunCursor, join_runs, push_joined};

/// Of how many ops parts are made, but for a change that has more: half of what a block may hold. Few
/// make tests see many parts.
const PART_OPS_MAX: usize =
    if cfg!(any(test, feature = "small-nodes")) { 8 } else { BLOCK_OPS_MAX / 2 };
const _: () = assert!(CHANGE_OPS_MAX <= BLOCK_OPS_MAX);

/// Deps that a change names by itself.
pub(crate) type Deps = SmallVec<[OpId; 1]>;

/// Changes of the same length in a row, of which only the first names deps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// How many counters each change takes.
    pub(crate) len: u64,
    /// How many changes there are.
    pub(crate) count: u64,
    pub(crate) deps: Deps,
}

impl Span {
    /// How many counters the changes take together.
    pub(crate) const fn total(&self) -> u64 {
        self.len * self.count
    }
}

/// Adds a span behind others, to the last of which it may belong.
pub(crate) fn push_span(spans: &mut Vec<Span>, span: Span) {
    match spans.last_mut() {
        Some(last) if last.len == span.len && span.deps.is_empty() => last.count += span.count,
        _ => spans.push(span),
    }
}

/// Some changes of one author, without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) author: ReplicaId,
    pub(crate) start: u64,
    pub(crate) spans: Vec<Span>,
    pub(crate) ops: Vec<Op>,
}

impl Batch {
    pub(crate) fn of_change(change: Change) -> Self {
        let (header, ops) = change.into_parts();
        let named = named_deps(&header.deps, ops.iter().flat_map(Op::references));
        let span = Span { len: header.span, count: 1, deps: Deps::from_vec(named) };
        Self { author: header.replica, start: header.start, spans: vec![span], ops }
    }

    /// The counter after the last change.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.spans.iter().map(Span::total).sum::<u64>()
    }

    /// How many changes there are.
    pub(crate) fn change_count(&self) -> u64 {
        self.spans.iter().map(|span| span.count).sum()
    }

    /// The id of the op with this counter.
    pub(crate) const fn id(&self, counter: u64) -> OpId {
        OpId { replica: self.author, counter }
    }

    /// Whether `next` goes on where this batch ends, and there is room for it in one block.
    pub(crate) fn can_take(&self, next: &Self) -> bool {
        (self.author, self.end()) == (next.author, next.start)
            && self.change_count() + next.change_count() <= BLOCK_CHANGES_MAX
            && self.ops.len() + next.ops.len() <= BLOCK_OPS_MAX
    }

    /// Takes in what goes on where this batch ends.
    pub(crate) fn take(&mut self, next: Self) {
        let mut at = self.id(self.end());
        next.spans.into_iter().for_each(|span| push_span(&mut self.spans, span));
        next.ops.into_iter().for_each(|op| push_joined(&mut self.ops, op, &mut at));
    }

    /// Cuts off the changes from `at` on; nothing if no change begins there.
    pub(crate) fn split_off(&mut self, at: u64) -> Option<Self> {
        let spans = split_spans(&mut self.spans, at.checked_sub(self.start)?)?;
        let first = self.id(self.start);
        let ops = split_ops(&mut self.ops, first, at);
        Some(Self { author: self.author, start: at, spans, ops })
    }

    /// The same in parts, each of which fits a block.
    pub(crate) fn into_parts(self) -> impl Iterator<Item = Self> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let mut part = rest.take()?;
            rest = part.end_of_block().and_then(|end| part.split_off(end));
            Some(part)
        })
    }

    /// The same as blocks, with the counters where each begins and ends.
    pub(crate) fn into_blocks(self) -> Vec<(u64, u64, Arc<[u8]>)> {
        let block = |part: Self| (part.start, part.end(), encode_block(&part).into());
        self.into_parts().map(block).collect()
    }

    /// Where a block that begins with these changes must end, if it cannot hold all of them: after so
    /// many changes, or before the one in which an op is that has no room.
    fn end_of_block(&self) -> Option<u64> {
        let by_changes = end_of_changes(&self.spans, self.start);
        let beyond = self.ops.get(PART_OPS_MAX..).filter(|rest| !rest.is_empty());
        let by_ops = beyond.map(|rest| {
            let at = self.end() - rest.iter().map(Op::span).sum::<u64>();
            let (start, len) = Boundaries::new(self).change_at(at);
            if start > self.start { start } else { start + len }
        });
        let end = by_changes.into_iter().chain(by_ops).min()?;
        (end < self.end()).then_some(end)
    }

    /// The changes one by one.
    pub(crate) fn changes(&self) -> impl Iterator<Item = Change> {
        let mut at = self.id(self.start);
        let mut ops = OpParts::new(&self.ops, at);
        let lone = self.spans.iter().flat_map(|span| {
            let rest = std::iter::repeat_n(&[][..], to_usize(span.count.saturating_sub(1)));
            std::iter::once(&span.deps[..]).chain(rest).map(|deps| (span.len, deps))
        });
        lone.map(move |(len, named)| {
            let end = at.counter + len;
            let mut mine = Vec::new();
            let mut next = at;
            while let Some((_, op)) = ops.next_until(end) {
                push_joined(&mut mine, op.into_owned(), &mut next);
            }
            let references = mine.iter().flat_map(Op::references);
            let deps = full_deps(named, references, at.replica);
            let header = ChangeHeader { replica: at.replica, start: at.counter, span: len, deps };
            at.counter = end;
            Change::assemble(header, mine)
        })
    }

    /// Whether the changes are the same, however they are cut.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let ops = |batch: &Self| join_runs(batch.ops.clone(), batch.id(batch.start));
        let spans = |batch: &Self| {
            let mut spans = Vec::new();
            batch.spans.iter().cloned().for_each(|span| push_span(&mut spans, span));
            spans
        };
        (self.author, self.start) == (other.author, other.start)
            && spans(self) == spans(other)
            && ops(self) == ops(other)
    }

    /// What is wrong with the batch although its ops could be read, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let total = self.spans.iter().try_fold(0_u64, |sum, span| {
            let total = span.len.checked_mul(span.count).filter(|total| *total > 0)?;
            sum.checked_add(total)
        });
        let ops = self.ops.iter().map(Op::span).try_fold(0_u64, u64::checked_add);
        if total.is_none() || total != ops {
            return Some("changes and ops take different counters");
        }
        if let Some(fault) = self.spans.iter().find_map(|span| deps_fault(&span.deps, self.author))
        {
            return Some(fault);
        }
        self.cut_op_fault().or_else(|| self.dep_fault())
    }

    /// Only runs of typing and deleting go on from one change to the next.
    fn cut_op_fault(&self) -> Option<&'static str> {
        let mut at = self.start;
        let mut bounds = Boundaries::new(self);
        for op in &self.ops {
            let end = at + op.span();
            let is_cut = op.edited_text().is_none() && bounds.end_of_change_at(at) < end;
            if is_cut {
                return Some("an op in two changes");
            }
            at = end;
        }
        None
    }

    /// A dep that a change names must cover what its ops refer to.
    fn dep_fault(&self) -> Option<&'static str> {
        let mut at = self.start;
        let mut walk = OpWalk::new(self);
        for span in &self.spans {
            let end = at + span.len;
            let mut is_covered = true;
            walk.references_until(end, |op| {
                let mut named = span.deps.iter().filter(|dep| dep.replica == op.replica);
                is_covered &= named.all(|dep| op.counter <= dep.counter);
            });
            if !is_covered {
                return Some("reference to an op not seen");
            }
            at += span.total();
            walk.references_until(at, |_| {});
        }
        None
    }

    /// Panics if C1 to C3 do not hold.
    pub(crate) fn assert_invariants(&self) {
        assert_eq!(self.fault(), None, "C1");
        let total: u64 = self.ops.iter().map(Op::span).sum();
        assert_eq!(self.start + total, self.end(), "C1");
        let joined = join_runs(self.ops.clone(), self.id(self.start));
        assert_eq!(joined, self.ops, "C3");
    }
}

/// Goes through ops, taking them in parts where changes end inside of them.
#[derive(Clone, Debug)]
pub(crate) struct OpParts<'a> {
    ops: std::slice::Iter<'a, Op>,
    /// The op under way, of which a part was taken, and the counter after it.
    cut: Option<(&'a Op, RunCursor, u64)>,
    at: OpId,
}

impl<'a> OpParts<'a> {
    /// Ops of which the first has the counter of `at`.
    pub(crate) fn new(ops: &'a [Op], at: OpId) -> Self {
        Self { ops: ops.iter(), cut: None, at }
    }

    /// The next op, or as much of it as there is before `end`, with its first counter.
    pub(crate) fn next_until(&mut self, end: u64) -> Option<(OpId, Cow<'a, Op>)> {
        let at = self.at;
        if at.counter >= end {
            return None;
        }
        let (op, mut cursor, op_end) = match self.cut.take() {
            Some(cut) => cut,
            None => {
                let op = self.ops.next()?;
                let op_end = at.counter + op.span();
                if op_end <= end {
                    self.at.counter = op_end;
                    return Some((at, Cow::Borrowed(op)));
                }
                (op, RunCursor::new(at), op_end)
            }
        };
        self.at.counter = op_end.min(end);
        let part = cursor.part(op, self.at.counter - at.counter);
        if self.at.counter < op_end {
            self.cut = Some((op, cursor, op_end));
        }
        Some((at, Cow::Owned(part)))
    }
}

/// Walks over ops without taking them apart.
#[derive(Clone, Debug)]
pub(crate) struct OpWalk<'a> {
    ops: std::slice::Iter<'a, Op>,
    author: ReplicaId,
    /// The op under way, with its first counter.
    op: Option<(u64, &'a Op)>,
    at: u64,
    next: u64,
}

impl<'a> OpWalk<'a> {
    pub(crate) fn new(batch: &'a Batch) -> Self {
        let (author, at) = (batch.author, batch.start);
        Self { ops: batch.ops.iter(), author, op: None, at, next: at }
    }

    /// Hands over the foreign ops that are referred to before the counter `end`, from where the walk
    /// stands, and goes there. Of the characters that a part of an op deletes it is the one with the
    /// highest counter.
    pub(crate) fn references_until(&mut self, end: u64, mut each: impl FnMut(OpId)) {
        self.edits_until(end, |edit| edit.references().iter().flatten().for_each(|op| each(*op)));
    }

    /// Hands over the parts of ops before the counter `end` that refer to foreign ops, from where the
    /// walk stands, and goes there.
    pub(crate) fn edits_until(&mut self, end: u64, mut each: impl FnMut(&Edit<'_>)) {
        while self.at < end {
            if self.at == self.next || self.op.is_none() {
                let Some(op) = self.ops.next() else { return };
                self.op = Some((self.next, op));
                self.next += op.span();
            }
            let Some((first, op)) = self.op else { return };
            let to = self.next.min(end);
            let edit = Edit { author: self.author, first, op, from: self.at, to };
            if edit.references() != [None, None] {
                each(&edit);
            }
            self.at = to;
        }
    }
}

/// A part of an op.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edit<'a> {
    author: ReplicaId,
    /// The first counter of the op.
    first: u64,
    op: &'a Op,
    /// The counters of the part.
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Edit<'_> {
    /// The counters `from` to `to` of it.
    pub(crate) const fn part(&self, from: u64, to: u64) -> Self {
        Self { from, to, ..*self }
    }

    /// The foreign ops that the part refers to, by the highest counter of those deleted.
    pub(crate) fn references(&self) -> [Option<OpId>; 2] {
        let references = match self.op {
            Op::Insert { set, origin, .. } => {
                [Some(*set), origin.filter(|_| self.from == self.first)]
            }
            Op::Delete { set, range, backwards, .. } => {
                let highest = if *backwards {
                    range.len - 1 - (self.from - self.first)
                } else {
                    self.to - 1 - self.first
                };
                [Some(*set), Some(range.first.plus(highest))]
            }
            _ => [None, None],
        };
        references.map(|op| op.filter(|op| op.replica != self.author))
    }
}

/// Finds where changes end.
#[derive(Debug)]
struct Boundaries<'a> {
    spans: std::slice::Iter<'a, Span>,
    at: u64,
    end: u64,
    len: u64,
}

impl<'a> Boundaries<'a> {
    fn new(batch: &'a Batch) -> Self {
        Self { spans: batch.spans.iter(), at: batch.start, end: batch.start, len: 1 }
    }

    /// Where the change with this counter ends; counters may only rise from call to call.
    fn end_of_change_at(&mut self, counter: u64) -> u64 {
        let (start, len) = self.change_at(counter);
        start.saturating_add(len)
    }

    /// Where the change with this counter begins, and its length; counters may only rise.
    fn change_at(&mut self, counter: u64) -> (u64, u64) {
        while counter >= self.end {
            let Some(span) = self.spans.next() else { return (u64::MAX, 1) };
            (self.at, self.len) = (self.end, span.len);
            self.end += span.total();
        }
        (self.at + (counter - self.at) / self.len * self.len, self.len)
    }
}

/// Cuts spans after so many counters; nothing if that is inside a change.
pub(crate) fn split_spans(spans: &mut Vec<Span>, counters: u64) -> Option<Vec<Span>> {
    let mut before = 0;
    let at = spans.iter().position(|span| {
        let is_here = counters < before + span.total();
        if !is_here {
            before += span.total();
        }
        is_here
    });
    let Some(at) = at else { return (counters == before).then(Vec::new) };
    let inside = counters - before;
    if !inside.is_multiple_of(spans[at].len) {
        return None;
    }
    if inside == 0 {
        return Some(spans.split_off(at));
    }
    let mut rest = spans.split_off(at + 1);
    let span = &mut spans[at];
    let kept = inside / span.len;
    rest.insert(0, Span { len: span.len, count: span.count - kept, deps: Deps::new() });
    span.count = kept;
    Some(rest)
}

/// Cuts ops, the first of which is `first`, at a counter.
pub(crate) fn split_ops(ops: &mut Vec<Op>, first: OpId, at: u64) -> Vec<Op> {
    let mut here = first;
    for index in 0..ops.len() {
        let span = ops[index].span();
        if at < here.counter + span {
            let inside = at - here.counter;
            if inside == 0 {
                return ops.split_off(index);
            }
            let mut rest = ops.split_off(index + 1);
            rest.insert(0, ops[index].split_off(inside, here));
            return rest;
        }
        here = here.plus(span);
    }
    Vec::new()
}

pub(crate) fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Where a block that begins with these changes must end, if they are too many.
fn end_of_changes(spans: &[Span], start: u64) -> Option<u64> {
    let (mut end, mut room) = (start, BLOCK_CHANGES_MAX);
    for span in spans {
        if span.count > room {
            return Some(end + span.len * room);
        }
        room -= span.count;
        end += span.total();
    }
    None
}
