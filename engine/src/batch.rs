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

mod cutter;

use std::cmp::Ordering;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::change::{Change, ChangeHeader, deps_fault, full_deps, named_deps};
use crate::codec::encode_block;
use crate::id::{OpId, ReplicaId};
use crate::limits::{BLOCK_CHANGES_MAX, BLOCK_OPS_MAX, CHANGE_OPS_MAX};
use crate::op::{OpList, OpParts, OpView, TextEdit, TextOp};
use crate::version::Version;
pub(crate) use cutter::Cutter;

/// Of how many ops parts are made, but for a change that has more: enough for like to compress beside
/// like, and little enough that a part is no burden on memory. Few make tests see many parts.
const PART_OPS_MAX: usize = if cfg!(any(test, feature = "small-nodes")) { 8 } else { 1 << 18 };
const _: () = assert!(PART_OPS_MAX <= BLOCK_OPS_MAX && CHANGE_OPS_MAX <= BLOCK_OPS_MAX);

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

/// Changes of one author in few batches, each of which fits a block.
pub(crate) fn gather(pieces: impl Iterator<Item = Batch>) -> impl Iterator<Item = Batch> {
    let mut pieces = pieces.peekable();
    let gathered = std::iter::from_fn(move || {
        let mut whole = pieces.next()?;
        let mut len = whole.ops.len();
        while let Some(next) = pieces.next_if(|next| {
            len += next.ops.len();
            len <= PART_OPS_MAX && whole.can_take(next)
        }) {
            whole.take(next);
        }
        Some(whole)
    });
    gathered.flat_map(Batch::into_parts)
}

/// Some changes of one author, without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) author: ReplicaId,
    pub(crate) start: u64,
    pub(crate) spans: Vec<Span>,
    pub(crate) ops: OpList,
}

impl Batch {
    pub(crate) fn of_change(change: Change) -> Self {
        let (header, ops) = change.into_parts();
        let references = ops.iter().flat_map(|op| op.references()).flatten();
        let named = named_deps(&header.deps, references);
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

    /// Whether all changes can be made at once on top of a version.
    pub(crate) fn is_next(&self, version: &Version) -> bool {
        if version.next(self.author) != self.start
            || !self.spans.iter().flat_map(|span| &span.deps).all(|dep| version.has(*dep))
        {
            return false;
        }
        if self.ops.is_all_of(self.author) {
            return true;
        }
        let references = self.ops.iter().flat_map(|op| op.references()).flatten();
        let mut foreign = references.filter(|op| op.replica != self.author);
        // Neighbours mostly refer to the same author.
        let mut known = None;
        foreign.all(|op| {
            let next = match known {
                Some((author, next)) if author == op.replica => next,
                _ => version.next(op.replica),
            };
            known = Some((op.replica, next));
            op.counter < next
        })
    }

    /// Whether `next` goes on where this batch ends, and there is room for it in one block.
    pub(crate) fn can_take(&self, next: &Self) -> bool {
        (self.author, self.end()) == (next.author, next.start)
            && self.change_count() + next.change_count() <= BLOCK_CHANGES_MAX
            && self.ops.len() + next.ops.len() <= BLOCK_OPS_MAX
    }

    /// Takes in what goes on where this batch ends.
    pub(crate) fn take(&mut self, next: Self) {
        let at = self.id(self.end());
        next.spans.into_iter().for_each(|span| push_span(&mut self.spans, span));
        self.ops.extend_joined(next.ops, at, drop);
    }

    /// Cuts off the changes from `at` on; nothing if no change begins there.
    pub(crate) fn split_off(&mut self, at: u64) -> Option<Self> {
        let spans = split_spans(&mut self.spans, at.checked_sub(self.start)?)?;
        let first = self.id(self.start);
        let ops = self.ops.split_off(first, at);
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
        let by_ops = self.ops.span_before(PART_OPS_MAX).map(|before| {
            let at = self.start + before;
            let (start, len) = Boundaries::new(self).change_at(at);
            if start > self.start { start } else { start + len }
        });
        let end = by_changes.into_iter().chain(by_ops).min()?;
        (end < self.end()).then_some(end)
    }

    /// The changes one by one.
    pub(crate) fn changes(&self) -> impl Iterator<Item = Change> {
        self.parts().map(|(header, ops)| Change::assemble(header, ops))
    }

    /// The headers and ops of the changes, one by one.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (ChangeHeader, OpList)> {
        let mut at = self.id(self.start);
        let mut ops = OpParts::new(&self.ops, at);
        let lone = self.spans.iter().flat_map(|span| {
            let rest = std::iter::repeat_n(&[][..], to_usize(span.count.saturating_sub(1)));
            std::iter::once(&span.deps[..]).chain(rest).map(|deps| (span.len, deps))
        });
        lone.map(move |(len, named)| {
            let end = at.counter + len;
            let mine = ops.take_until(end);
            let references = mine.iter().flat_map(|op| op.references()).flatten();
            let deps = full_deps(named, references, at.replica);
            let header = ChangeHeader { replica: at.replica, start: at.counter, span: len, deps };
            at.counter = end;
            (header, mine)
        })
    }

    /// Whether the changes are the same, however they are cut.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let ops = |batch: &Self| {
            let mut joined = OpList::new();
            joined.extend_joined(batch.ops.clone(), batch.id(batch.start), drop);
            joined
        };
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
        if total.is_none() || total != self.ops.span() {
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
        if self.ops.others().is_empty() {
            return None;
        }
        let mut at = self.start;
        let mut bounds = Boundaries::new(self);
        for op in self.ops.iter() {
            let end = at + op.span();
            if let OpView::Other(_) = op
                && bounds.end_of_change_at(at) < end
            {
                return Some("an op in two changes");
            }
            at = end;
        }
        None
    }

    /// A dep that a change names must cover what its ops refer to, and is none that they tell: a change
    /// has one form. Deps are known to be in order.
    fn dep_fault(&self) -> Option<&'static str> {
        if self.spans.iter().all(|span| span.deps.is_empty()) {
            return None;
        }
        let mut at = self.start;
        let mut walk = OpWalk::new(self);
        for span in &self.spans {
            let end = at + span.len;
            let mut newest = None;
            walk.references_until(end, |op| {
                let named = span.deps.binary_search_by_key(&op.replica, |dep| dep.replica);
                newest = newest.max(named.ok().map(|at| op.counter.cmp(&span.deps[at].counter)));
            });
            match newest {
                Some(Ordering::Greater) => return Some("reference to an op not seen"),
                Some(Ordering::Equal) => return Some("a dep that the edits tell"),
                Some(Ordering::Less) | None => {}
            }
            at += span.total();
            walk.references_until(at, |_| {});
        }
        None
    }

    /// Panics if C1 to C3 do not hold.
    pub(crate) fn assert_invariants(&self) {
        self.ops.assert_invariants();
        assert_eq!(self.fault(), None, "C1");
        let total = self.ops.span().expect("C1: few counters");
        assert_eq!(self.start + total, self.end(), "C1");
        assert!(self.ops.is_joined(self.id(self.start)), "C3");
    }
}

/// Walks over ops without taking them apart.
#[derive(Clone, Debug)]
pub(crate) struct OpWalk<'a> {
    ops: OpParts<'a>,
    author: ReplicaId,
    /// Whether no op refers to anything foreign, so that there is nothing to walk over.
    is_own: bool,
    /// The op under way, with its first counter.
    op: Option<(u64, OpView<'a>)>,
    at: u64,
    next: u64,
}

impl<'a> OpWalk<'a> {
    pub(crate) fn new(batch: &'a Batch) -> Self {
        let (author, at) = (batch.author, batch.start);
        let is_own = batch.ops.is_all_of(author);
        let ops = OpParts::new(&batch.ops, batch.id(at));
        Self { ops, author, is_own, op: None, at, next: at }
    }

    /// Hands over the foreign ops that are referred to before the counter `end`, from where the walk
    /// stands, and goes there. Of the characters that a part of an op deletes it is the one with the
    /// highest counter.
    pub(crate) fn references_until(&mut self, end: u64, mut each: impl FnMut(OpId)) {
        self.edits_until(end, |edit| edit.references().iter().flatten().for_each(|op| each(*op)));
    }

    /// Hands over the parts of ops before the counter `end` that refer to foreign ops, from where the
    /// walk stands, and goes there.
    #[inline]
    pub(crate) fn edits_until(&mut self, end: u64, mut each: impl FnMut(&Edit<'_>)) {
        let ControlFlow::<Infallible>::Continue(()) = self.try_edits_until(end, |edit| {
            each(edit);
            ControlFlow::Continue(())
        });
    }

    /// The same until `each` breaks off; then the walk stands where that part begins.
    #[inline]
    pub(crate) fn try_edits_until<B>(
        &mut self,
        end: u64,
        mut each: impl FnMut(&Edit<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if self.is_own {
            return ControlFlow::Continue(());
        }
        while self.at < end {
            if self.at == self.next || self.op.is_none() {
                let Some((_, op)) = self.ops.next_until(u64::MAX) else { break };
                self.op = Some((self.next, op));
                self.next += op.span();
            }
            let Some((first, op)) = self.op else { break };
            let to = self.next.min(end);
            if let OpView::Text(op) = op {
                let edit = Edit { author: self.author, first, op, from: self.at, to };
                if edit.references() != [None, None] {
                    each(&edit)?;
                }
            }
            self.at = to;
        }
        ControlFlow::Continue(())
    }
}

/// A part of an edit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edit<'a> {
    author: ReplicaId,
    /// The first counter of the edit.
    first: u64,
    op: TextEdit<'a>,
    /// The counters of the part.
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Edit<'_> {
    /// The counters `from` to `to` of it.
    pub(crate) const fn part(&self, from: u64, to: u64) -> Self {
        Self { from, to, ..*self }
    }

    /// The first counter of the part that refers to a foreign op which is not there, and that op;
    /// `next` tells how many ops of a replica are there.
    pub(crate) fn first_missing(
        &self,
        mut next: impl FnMut(ReplicaId) -> u64,
    ) -> Option<(u64, OpId)> {
        let mut reached = |replica| if replica == self.author { u64::MAX } else { next(replica) };
        let Self { first, from, op: TextEdit { target, op, .. }, .. } = *self;
        if reached(target.set.replica) <= target.set.counter {
            return Some((from, target.set));
        }
        match op {
            TextOp::Insert { origin, .. } => {
                let origin = origin.filter(|op| from == first && reached(op.replica) <= op.counter);
                origin.map(|op| (from, op))
            }
            TextOp::Delete { range, backwards: true } => {
                // The highest comes first, and with it all others are there.
                let op = range.first.plus(range.len - 1 - (from - first));
                (reached(op.replica) <= op.counter).then_some((from, op))
            }
            TextOp::Delete { range, .. } => {
                let there = reached(range.first.replica).saturating_sub(range.first.counter);
                let at = from.max(first.saturating_add(there));
                (at < self.to).then(|| (at, range.first.plus(at - first)))
            }
        }
    }

    /// The foreign ops that the part refers to, by the highest counter of those deleted.
    pub(crate) fn references(&self) -> [Option<OpId>; 2] {
        let newest = match self.op.op {
            TextOp::Insert { origin, .. } => origin.filter(|_| self.from == self.first),
            TextOp::Delete { range, backwards } => {
                let highest = if backwards {
                    range.len - 1 - (self.from - self.first)
                } else {
                    self.to - 1 - self.first
                };
                Some(range.first.plus(highest))
            }
        };
        [Some(self.op.target.set), newest].map(|op| op.filter(|op| op.replica != self.author))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{EntryId, Life};
    use crate::op::{IdRange, Op};
    use crate::value::Field;

    /// As many characters, no two of which could be one op, and then their deletions.
    fn change(start: u64, len: u64) -> Change {
        let author = ReplicaId::new(1).unwrap();
        let (entry, field) = (EntryId::ROOT, Field::Value);
        let set = OpId { replica: author, counter: 0 };
        let op = |counter| {
            let range =
                IdRange { first: OpId { replica: author, counter: counter % 7 * 2 }, len: 1 };
            Op::Delete {
                entry,
                life: Life::FIRST,
                field: field.clone(),
                set,
                range,
                backwards: false,
            }
        };
        Change::new(author, start, vec![], &(start..start + len).map(op).collect::<Vec<_>>())
            .unwrap()
    }

    #[test]
    fn parts_have_few_ops_and_are_together_the_whole() {
        let lens = [1, 3, 7, 2, 20, 1, 1, 1, 9, 8];
        let mut changes = Vec::new();
        let mut whole: Option<Batch> = None;
        let mut start = 100;
        for len in lens {
            changes.push(change(start, len));
            let next = Batch::of_change(change(start, len));
            match &mut whole {
                Some(whole) => whole.take(next),
                None => whole = Some(next),
            }
            start += len;
        }
        let whole = whole.unwrap();
        assert_eq!(whole.ops.len(), 53);
        let parts: Vec<Batch> = whole.into_parts().collect();
        assert!(parts.len() > 4);
        for part in &parts {
            assert!(part.ops.len() <= PART_OPS_MAX || part.change_count() == 1, "{part:?}");
        }
        assert!(parts.windows(2).all(|pair| pair[0].end() == pair[1].start));
        let found: Vec<Change> = parts.iter().flat_map(Batch::changes).collect();
        assert_eq!(found, changes);
    }

    /// Of a change that inserts behind a foreign character there would be two forms, of which the second
    /// to come is no duplicate.
    #[test]
    fn a_change_names_no_dep_that_its_edits_tell() {
        let [author, other] = [1, 2].map(|id| ReplicaId::new(id).unwrap());
        let theirs = |counter| OpId { replica: other, counter };
        let op = Op::Insert {
            entry: EntryId::ROOT,
            life: Life::FIRST,
            field: Field::Value,
            set: theirs(0),
            origin: Some(theirs(5)),
            text: "x".to_owned(),
        };
        let change = Change::new(author, 0, vec![theirs(5)], std::slice::from_ref(&op)).unwrap();
        assert!(Batch::of_change(change).spans[0].deps.is_empty());
        let rows = [(None, true), (Some(4), false), (Some(5), false), (Some(6), true)];
        for (dep, is_fine) in rows {
            let spans =
                vec![Span { len: 1, count: 1, deps: dep.map(theirs).into_iter().collect() }];
            let ops = OpList::joined([op.clone()], OpId { replica: author, counter: 0 });
            let batch = Batch { author, start: 0, spans, ops };
            assert_eq!(batch.fault().is_none(), is_fine, "{dep:?}");
            assert_eq!(
                crate::codec::decode_block(&encode_block(&batch)).is_ok(),
                is_fine,
                "{dep:?}"
            );
        }
    }
}
