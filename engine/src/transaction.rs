//! Transactions: ops take effect one by one, can be taken back, and leave as one change.
//!
//! Invariants:
//! - N1. While a transaction is open, its stamp is greater than any other here, since its Lamport time
//!   is one more than that of everything seen; so its moves are the last in the log of moves.
//! - N2. An id that was given out is never given out again: what is taken back leaves a gap.

use crate::batch::Deps;
use crate::change::{ChangeHeader, DEP_BYTES_MAX, HEADER_BYTES_MAX, encode, full_deps, named_deps};
use crate::codec::Writer;
use crate::delta::Watch;
use crate::digest::DigestSum;
use crate::display::Facts;
use crate::entries::{Entries, EntryIx};
use crate::error::EditError;
use crate::id::{OpId, ReplicaId, Stamp};
use crate::limits::{CHANGE_BYTES_MAX, CHANGE_OPS_MAX, COUNTER_MAX, LAMPORT_MAX};
use crate::op::{Op, OpList, OpView};
use crate::registers::{Journal, TakeBack, Undo, in_groups};
use crate::replica::{Pending, Replica};
use crate::value::Value;

/// A transaction under way: its ops have taken effect and can be taken back.
#[derive(Clone, Debug)]
pub(crate) struct OpenChange {
    start: u64,
    next: u64,
    lamport: u64,
    ops: Vec<Op>,
    weight: Weight,
    /// How to take the ops back.
    journal: Journal,
    /// Where in the journal the transactions under way begin, outermost first.
    marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    ops: usize,
    next: u64,
    journal: usize,
    weight: Weight,
}

/// What ops take in a change at least, so that one which is to be too large is noticed before it is in
/// memory: how many there are but for edits of texts, which may become one, and the bytes that they bring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weight {
    ops: usize,
    bytes: usize,
}

impl Weight {
    fn with(self, op: &Op) -> Self {
        let (ops, bytes) = match op {
            Op::Set { value: Value::Blob(_), .. } => (1, 0),
            Op::Set { value, .. } => (1, value.size()),
            Op::Insert { text, .. } => (0, text.len()),
            Op::Delete { .. } | Op::Skip { .. } => (0, 0),
            _ => (1, 0),
        };
        Self { ops: self.ops + ops, bytes: self.bytes + bytes }
    }

    const fn check(self) -> Result<(), EditError> {
        let Self { ops, bytes } = self;
        if ops > CHANGE_OPS_MAX {
            return Err(EditError::TooManyOps { max: CHANGE_OPS_MAX });
        }
        if bytes > CHANGE_BYTES_MAX {
            return Err(EditError::ChangeTooLarge { bytes, max: CHANGE_BYTES_MAX });
        }
        Ok(())
    }
}

impl OpenChange {
    pub(crate) fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The stamp of its first op.
    pub(crate) const fn first_stamp(&self, replica: ReplicaId) -> Stamp {
        Stamp { lamport: self.lamport, replica, counter: self.start }
    }

    /// Panics if N1 or N2 does not hold, or the transactions under way are not inside of each other.
    pub(crate) fn assert_invariants(&self, replica: &Replica) {
        let first = self.first_stamp(replica.id);
        assert_eq!(self.lamport, replica.history.next_lamport(), "N1");
        for (_, entry, stamp) in replica.tree.moves() {
            let is_mine =
                stamp.replica == replica.id && (self.start..self.next).contains(&stamp.counter);
            assert!(stamp < first || is_mine, "N1: a move of {entry:?} is newer");
        }
        assert_eq!(self.start, replica.version().next(replica.id), "N2");
        let spans = self.ops.iter().map(Op::span).sum::<u64>();
        assert_eq!(self.start + spans, self.next, "N2: an id of no op");
        let weight = self.ops.iter().fold(Weight::default(), Weight::with);
        assert_eq!(self.weight, weight, "an op is not weighed");
        let end = self.mark();
        let marks = self.marks.iter().chain([&end]).map(|mark| (mark.ops, mark.next, mark.journal));
        let marks: Vec<_> = marks.collect();
        for pair in marks.windows(2) {
            let ((ops, next, journal), after) = (pair[0], pair[1]);
            assert!(ops <= after.0 && next <= after.1 && journal <= after.2, "{pair:?}");
        }
    }

    fn mark(&self) -> Mark {
        let (ops, journal) = (self.ops.len(), self.journal.len());
        Mark { ops, next: self.next, journal, weight: self.weight }
    }

    /// How to take its ops back, the oldest first.
    pub(crate) fn into_records(mut self) -> Vec<(EntryIx, Undo)> {
        self.journal.split_off(0)
    }
}

/// A transaction that has begun: to be given back to [`Replica::commit`] or [`Replica::roll_back`].
#[must_use = "a transaction that is not ended stays open"]
#[derive(Debug)]
pub struct Transaction {
    /// How many transactions are under way, this one included.
    depth: usize,
}

/// Takes a transaction back when the closure that makes it fails or panics.
struct Scope<'a> {
    replica: &'a mut Replica,
    transaction: Option<Transaction>,
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            self.replica.roll_back(transaction);
        }
    }
}

impl Replica {
    /// Runs several edits as one change: all of them happen, or none. Inside another transaction it
    /// is a part of that one which can fail by itself.
    ///
    /// # Errors
    /// What `edits` returns, or [`EditError::ChangeTooLarge`] or [`EditError::TooManyOps`] for the
    /// whole. Either way the replica is as before. An edit after which the whole could be no change any more
    /// fails itself with one of these, so that nobody has to find room for what becomes nothing.
    pub fn transact<T, E: From<EditError>>(
        &mut self,
        edits: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let transaction = self.begin();
        let mut scope = Scope { replica: self, transaction: Some(transaction) };
        let result = edits(scope.replica)?;
        if let Some(transaction) = scope.transaction.take() {
            scope.replica.commit(transaction)?;
        }
        Ok(result)
    }

    /// Begins a transaction, inside of the one under way if there is one. For callers that cannot
    /// put their edits into a closure; [`Replica::transact`] cannot be left open by accident.
    pub fn begin(&mut self) -> Transaction {
        let start = self.version().next(self.id);
        let lamport = self.history.next_lamport();
        let skipped = &mut self.skipped;
        let open = self.open.get_or_insert_with(|| {
            let count = std::mem::take(skipped);
            let ops = if count > 0 { vec![Op::Skip { count }] } else { Vec::new() };
            let (journal, marks) = (Journal::recording(), Vec::new());
            let weight = Weight::default();
            OpenChange { start, next: start + count, lamport, ops, weight, journal, marks }
        });
        open.marks.push(open.mark());
        Transaction { depth: open.marks.len() }
    }

    /// Ends a transaction; the outermost becomes a change. Any that was begun inside it and not
    /// ended is taken back.
    ///
    /// # Errors
    /// [`EditError::ChangeTooLarge`] or [`EditError::TooManyOps`] for the outermost, which is taken
    /// back then.
    pub fn commit(&mut self, transaction: Transaction) -> Result<(), EditError> {
        self.commit_and_keep(transaction).map(drop)
    }

    /// The same; what the outermost made of the log of undo records is handed over.
    pub(crate) fn commit_and_keep(
        &mut self,
        transaction: Transaction,
    ) -> Result<Option<OpenChange>, EditError> {
        while self.depth() > transaction.depth {
            self.roll_back_innermost();
        }
        if self.depth() < transaction.depth {
            return Ok(None);
        }
        if transaction.depth == 1 {
            return self.commit_change();
        }
        if let Some(open) = &mut self.open {
            open.marks.pop();
        }
        Ok(None)
    }

    /// Takes back a transaction and any that was begun inside it. Ids that they gave out are not
    /// given out again by this replica; a snapshot does not tell of them before the next change, so see
    /// [`Replica::next_counter`].
    ///
    /// Costs the edits taken back, and the length of each text that they spliced.
    pub fn roll_back(&mut self, transaction: Transaction) {
        while self.depth() >= transaction.depth {
            self.roll_back_innermost();
        }
    }

    /// The counter that the next op gets: past those of all changes, and of all ids that transactions
    /// had given out when they were taken back. A snapshot does not tell of the latter; whoever keeps
    /// one keeps this beside it, for [`Replica::resume_at`].
    #[must_use]
    pub fn next_counter(&self) -> u64 {
        self.next_id().counter
    }

    /// Gives out no id below the counter `next`, which [`Replica::next_counter`] gave before the
    /// replica was saved. Without effect if that many are taken already, and past the greatest.
    pub fn resume_at(&mut self, next: u64) {
        let taken = self.version().next(self.id);
        if self.open.is_none() && next <= COUNTER_MAX + 1 {
            self.skipped = self.skipped.max(next.saturating_sub(taken));
            self.keyboard = None;
        }
    }

    /// Whether a transaction is under way.
    #[must_use]
    pub const fn is_in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// The id that the next op gets.
    pub(crate) fn next_id(&self) -> OpId {
        let after_log = self.version().next(self.id) + self.skipped;
        let counter = self.open.as_ref().map_or(after_log, |open| open.next);
        OpId { replica: self.id, counter }
    }

    /// A copy as it was before the transaction under way, if there is one.
    pub(crate) fn without_transaction(&self) -> Option<Self> {
        let open = self.open.clone()?;
        let mut copy = Self {
            id: self.id,
            history: self.history.clone(),
            backlog: self.backlog.clone(),
            entries: self.entries.clone(),
            tree: self.tree.clone(),
            display: self.display.clone(),
            watch: Watch::default(),
            digest: DigestSum::default(),
            open: Some(open),
            skipped: self.skipped,
            keyboard: None,
        };
        while copy.depth() > 0 {
            copy.roll_back_innermost();
        }
        Some(copy)
    }

    fn depth(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.marks.len())
    }

    /// Adds an op to the transaction under way and lets it take effect, unless the transaction cannot
    /// become a change then.
    pub(crate) fn push(&mut self, op: Op) -> Result<(), EditError> {
        let Some(open) = &mut self.open else { return self.push_alone(op) };
        let span = op.span();
        if !is_in_range(open.lamport, open.next, span) {
            return Err(EditError::OutOfIds);
        }
        let weight = open.weight.with(&op);
        weight.check()?;
        let stamp = Stamp { lamport: open.lamport, replica: self.id, counter: open.next };
        (open.next, open.weight) = (open.next + span, weight);
        let journal = std::mem::take(&mut open.journal);
        let mut pending = Pending { journal, ..Pending::default() };
        self.apply_op(stamp, &OpView::of(&op), &mut pending);
        let journal = std::mem::take(&mut pending.journal);
        if let Some(open) = &mut self.open {
            open.ops.push(op);
            open.journal = journal;
        }
        self.settle(pending);
        Ok(())
    }

    /// Makes a change of a single op, which needs nothing to take it back.
    fn push_alone(&mut self, op: Op) -> Result<(), EditError> {
        if self.skipped > 0 {
            // The gap is an op as well. An id that nobody has got needs none.
            let skipped = self.skipped;
            return self
                .transact(|replica| replica.push(op))
                .inspect_err(|_| self.skipped = skipped);
        }
        let (id, span, lamport) = (self.next_id(), op.span(), self.history.next_lamport());
        if !is_in_range(lamport, id.counter, span) {
            return Err(EditError::OutOfIds);
        }
        let ops = OpList::joined([op], id);
        let deps = self.named_deps_of(&ops);
        self.check_size(id.counter, span, &deps, &ops)?;
        let mut pending = Pending::default();
        let stamp = Stamp { lamport, replica: id.replica, counter: id.counter };
        for op in ops.iter() {
            self.apply_op(stamp, &op, &mut pending);
        }
        self.settle(pending);
        self.history.append_own(id, span, &deps);
        self.history.push_ops(self.id, ops);
        self.history.seal_if_long(self.id);
        Ok(())
    }

    /// The deps that a change of these ops names by itself.
    pub(crate) fn named_deps_of(&self, ops: &OpList) -> Deps {
        let heads = self.history.deps_of(self.id);
        if heads.is_empty() {
            return heads;
        }
        let references = || ops.iter().flat_map(|op| op.references()).flatten();
        let deps = full_deps(&heads, references(), self.id);
        Deps::from_vec(named_deps(&deps, references()))
    }

    fn roll_back_innermost(&mut self) {
        let Some(open) = &mut self.open else { return };
        let Some(mark) = open.marks.pop() else { return };
        let first = Stamp { lamport: open.lamport, replica: self.id, counter: mark.next };
        let mut touched = self.tree.moved_from(first);
        let facts = Facts { entries: &self.entries, tree: &self.tree };
        touched.iter().for_each(|entry| self.display.hide(*entry, facts, &mut self.watch));
        self.tree.remove_from(first);
        let records = open.journal.split_off(mark.journal);
        touched.extend(records.iter().map(|(entry, _)| *entry));
        take_back(&mut self.entries, &mut self.watch, records);
        open.ops.truncate(mark.ops);
        open.weight = mark.weight;
        let count = open.next - mark.next;
        if count > 0 {
            open.ops.push(Op::Skip { count });
        }
        if open.marks.is_empty() {
            self.skipped = open.next - open.start;
            self.open = None;
        }
        self.refresh(touched);
    }

    /// Makes a change of the outermost transaction, if there is anything in it.
    fn commit_change(&mut self) -> Result<Option<OpenChange>, EditError> {
        let Some(open) = &mut self.open else { return Ok(None) };
        if open.ops.iter().all(|op| matches!(op, Op::Skip { .. })) {
            self.skipped = open.next - open.start;
            self.open = None;
            return Ok(None);
        }
        let (start, span) = (open.start, open.next - open.start);
        let first = OpId { replica: self.id, counter: start };
        let ops = OpList::joined(std::mem::take(&mut open.ops), first);
        let deps = self.named_deps_of(&ops);
        if let Err(error) = self.check_size(start, span, &deps, &ops) {
            self.roll_back_innermost();
            return Err(error);
        }
        self.history.append_own(first, span, &deps);
        self.history.push_ops(self.id, ops);
        self.history.seal_if_long(self.id);
        Ok(self.open.take())
    }

    /// Whether the ops are few and small enough for one change. Encodes them only if they may not be.
    fn check_size(
        &self,
        start: u64,
        span: u64,
        named: &[OpId],
        ops: &OpList,
    ) -> Result<(), EditError> {
        if ops.len() > CHANGE_OPS_MAX {
            return Err(EditError::TooManyOps { max: CHANGE_OPS_MAX });
        }
        if ops.size_bound() + HEADER_BYTES_MAX + named.len() * DEP_BYTES_MAX <= CHANGE_BYTES_MAX {
            return Ok(());
        }
        let references = ops.iter().flat_map(|op| op.references()).flatten();
        let deps = full_deps(named, references, self.id);
        let header = ChangeHeader { replica: self.id, start, span, deps };
        let bytes = encode(&header, ops, Writer::new()).as_slice().len();
        if bytes > CHANGE_BYTES_MAX {
            return Err(EditError::ChangeTooLarge { bytes, max: CHANGE_BYTES_MAX });
        }
        Ok(())
    }
}

/// Whether a change of this time may have so many counters from one on.
pub(crate) fn is_in_range(lamport: u64, counter: u64, span: u64) -> bool {
    let is_counted = counter.checked_add(span).is_some_and(|next| next <= COUNTER_MAX + 1);
    is_counted && lamport <= LAMPORT_MAX
}

/// Takes back what the journal says, the newest first.
fn take_back(entries: &mut Entries, watch: &mut Watch, records: Vec<(EntryIx, Undo)>) {
    for (entry, group) in in_groups(records) {
        let states = entries.states_mut();
        match group {
            TakeBack::Edits(field, edits) => states.take_back_text((entry, field), &edits, watch),
            TakeBack::One(undo) => states.take_back(entry, undo, watch),
        }
    }
}
