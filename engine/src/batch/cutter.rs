//! Parts of a batch, one after the other, without going through all of it for each.

use super::{Batch, Deps, Span, push_span};
use crate::op::{OpParts, OpPlace};

/// How far a batch was gone through. Always to be asked about the same one.
#[derive(Clone, Debug)]
pub(crate) struct Cutter {
    /// The span with the changes at hand, and its first counter.
    span: usize,
    span_start: u64,
    ops: OpPlace,
    at: u64,
}

impl Cutter {
    pub(crate) const fn new(batch: &Batch) -> Self {
        let (start, ops) = (batch.start, OpPlace::first(batch.id(batch.start)));
        Self { span: 0, span_start: start, ops, at: start }
    }

    /// The changes from one counter to another; nothing if no change begins or ends there. Costs what
    /// lies between where the last part began and the end of this one, or is before this one if it
    /// begins earlier.
    pub(crate) fn part(&mut self, batch: &Batch, from: u64, to: u64) -> Option<Batch> {
        if from >= to || from < batch.start {
            return None;
        }
        if from < self.at {
            *self = Self::new(batch);
        }
        while self.span_start + batch.spans.get(self.span)?.total() <= from {
            self.span_start += batch.spans.get(self.span)?.total();
            self.span += 1;
        }
        let mut ops = OpParts::starting_at(&batch.ops, self.ops);
        while ops.next_until(from).is_some() {}
        (self.ops, self.at) = (ops.place(), from);
        let spans = self.spans(batch, to)?;
        Some(Batch { author: batch.author, start: from, spans, ops: ops.take_until(to) })
    }

    /// The changes from where this is to a counter.
    fn spans(&self, batch: &Batch, to: u64) -> Option<Vec<Span>> {
        let (mut spans, mut start, mut at) = (Vec::new(), self.span_start, self.at);
        let mut rest = batch.spans[self.span..].iter();
        while at < to {
            let span = rest.next()?;
            let end = to.min(start + span.total());
            let is_boundary = |counter: u64| (counter - start).is_multiple_of(span.len);
            if !is_boundary(at) || !is_boundary(end) {
                return None;
            }
            let deps = if at == start { span.deps.clone() } else { Deps::new() };
            push_span(&mut spans, Span { len: span.len, count: (end - at) / span.len, deps });
            start += span.total();
            at = end;
        }
        Some(spans)
    }
}
