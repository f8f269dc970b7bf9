//! Ops in a row, as the log keeps them and as they are taken in: many edits of texts, in little room.
//!
//! Of such an edit a few words are kept. The characters of all insertions stand in one buffer, one
//! after the other, and each text is named once for all edits of it that follow each other; so that
//! neither a run nor a keystroke costs an allocation.
//!
//! Invariants:
//! - S1. An item's characters begin at `byte` and end where those of the next item begin.
//! - S2. Neither `subject` nor `byte` falls from an item to the next of its kind.
#![expect(clippy::cast_possible_truncation, reason = "texts and other ops are fewer than ops")]

mod parts;

use smallvec::SmallVec;

use super::runs::take_over_range;
use super::{IdRange, Op, OpView, Target, TextEdit, TextOp};
use crate::id::{EntryId, Life, OpId, ReplicaId};
use crate::value::{Field, char_count};
use parts::Cut;
pub(crate) use parts::{OpParts, OpPlace};

/// Ops of one author without gaps.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpList {
    items: SmallVec<[Item; 1]>,
    /// The characters of all insertions.
    text: String,
    texts: SmallVec<[TextName; 1]>,
    /// The ops that edit no text.
    others: Vec<Op>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    kind: Kind,
    /// How many counters the op takes.
    span: u64,
    /// S1.
    byte: usize,
    /// Which of the texts, or of the other ops.
    subject: u32,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Insert { origin: Option<OpId> },
    Delete { first: OpId, backwards: bool },
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct TextName {
    entry: EntryId,
    life: Life,
    field: Field,
    set: OpId,
}

impl TextName {
    #[inline]
    const fn target(&self) -> Target<'_> {
        Target { entry: self.entry, life: self.life, field: &self.field, set: self.set }
    }
}

impl PartialEq for OpList {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for OpList {}

impl OpList {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A list with room for so many ops and bytes of text.
    pub(crate) fn with_capacity(ops: usize, bytes: usize) -> Self {
        let (items, text) = (SmallVec::with_capacity(ops), String::with_capacity(bytes));
        Self { items, text, ..Self::new() }
    }

    /// About what it takes in memory beside itself, in bytes, without what its values have.
    pub(crate) fn memory(&self) -> usize {
        size_of_val(self.items.as_slice())
            + self.text.len()
            + size_of_val(self.texts.as_slice())
            + size_of_val(self.others.as_slice())
            + self.purged_bytes()
    }

    /// What the lists of its purges take in memory, in bytes: several times what they take in a change.
    pub(crate) fn purged_bytes(&self) -> usize {
        let purged = self.others.iter().map(|op| match op {
            Op::Purge { entries } => size_of_val(entries.as_slice()),
            _ => 0,
        });
        purged.sum()
    }

    /// Ops, the first of which has the counter of `first`, in their one form.
    pub(crate) fn joined(ops: impl IntoIterator<Item = Op>, first: OpId) -> Self {
        let (mut list, mut at) = (Self::new(), first);
        for op in ops {
            let span = op.span();
            list.push_joined(op, at);
            at = at.plus(span);
        }
        list
    }

    /// A list of a single edit of a text.
    pub(crate) fn of_edit(edit: &TextEdit<'_>) -> Self {
        let mut list = Self::new();
        list.push_edit(edit);
        list
    }

    /// Adds an op behind the others, as it is.
    pub(crate) fn push(&mut self, op: Op) {
        match OpView::of(&op) {
            OpView::Text(edit) => self.push_edit(&edit),
            OpView::Other(_) => {
                let (subject, byte, span) = (self.others.len() as u32, self.text.len(), op.span());
                self.items.push(Item { kind: Kind::Other, span, byte, subject });
                self.others.push(op);
            }
        }
    }

    /// Adds an op, which begins at `at`, behind the others, with which it may go together.
    pub(crate) fn push_joined(&mut self, op: Op, at: OpId) {
        match OpView::of(&op) {
            OpView::Text(edit) => self.push_edit_joined(edit, at),
            OpView::Other(_) => self.push(op),
        }
    }

    /// The same as [`OpList::push_joined`] for an op that is looked at.
    #[inline]
    pub(crate) fn push_view_joined(&mut self, op: &OpView<'_>, at: OpId) {
        match op {
            OpView::Text(edit) => self.push_edit_joined(*edit, at),
            OpView::Other(op) => self.push((*op).clone()),
        }
    }

    /// Adds ops in the same way, the first of which begins at `at`. Hands over the first counter of
    /// each op that did not go together with the one before.
    pub(crate) fn extend_joined(
        &mut self,
        mut ops: Self,
        mut at: OpId,
        mut begun: impl FnMut(u64),
    ) {
        let mut others = std::mem::take(&mut ops.others).into_iter();
        let (is_joined, mut is_whole) = (ops.is_joined(at), false);
        for (number, item) in ops.items.iter().enumerate() {
            // What does not continue the op before does not continue a longer one that ends with it; but
            // maybe what is left of one that was taken over in part.
            if is_joined && is_whole {
                ops.others.extend(others);
                return ops.append_tail(self, number, at, begun);
            }
            let before = self.items.len();
            if let Kind::Other = item.kind {
                others.next().into_iter().for_each(|op| self.push(op));
            } else if let Some(OpView::Text(edit)) = ops.view(number) {
                self.push_edit_joined(edit, at);
            }
            at = at.plus(item.span);
            if self.items.len() > before {
                begun(at.counter - self.last_span());
            }
            is_whole = self.items.len() == before || self.last_span() == item.span;
        }
    }

    /// The same for an edit of a text.
    #[inline]
    pub(crate) fn push_edit_joined(&mut self, edit: TextEdit<'_>, mut at: OpId) {
        let mut rest = edit;
        // What is left over begins a run of its own, which the rest continues.
        while let Some(left) = self.take_over(&rest, at) {
            if left.span == 0 {
                return;
            }
            at = at.plus(rest.span - left.span);
            rest = left;
        }
        self.push_edit(&rest);
    }

    /// Lets the last op go on with an edit of the same text, whose first counter is `at`. Whether it
    /// can; if not, it may still be continued in part.
    #[inline]
    pub(crate) fn go_on(&mut self, op: &TextOp<'_>, span: u64, at: OpId) -> bool {
        let Some(last) = self.items.last_mut() else { return false };
        match (&mut last.kind, op) {
            (Kind::Insert { .. }, TextOp::Insert { origin: Some(origin), text }) => {
                if origin.plus(1) != at {
                    return false;
                }
                self.text.push_str(text);
            }
            (Kind::Delete { first, backwards: false }, TextOp::Delete { range, .. })
                if first.plus(last.span) == range.first => {}
            (Kind::Delete { first, backwards: true }, TextOp::Delete { range, .. })
                if span == 1 && range.first.plus(1) == *first =>
            {
                *first = range.first;
            }
            _ => return false,
        }
        last.span += span;
        true
    }

    fn push_edit(&mut self, edit: &TextEdit<'_>) {
        if self.texts.last().is_none_or(|last| last.target() != edit.target) {
            self.name_text(&edit.target);
        }
        self.push_text_op(&edit.op, edit.span);
    }

    /// Says which text the edits that follow are about.
    pub(crate) fn name_text(&mut self, target: &Target<'_>) {
        let Target { entry, life, field, set } = *target;
        self.texts.push(TextName { entry, life, field: field.clone(), set });
    }

    /// The text that was named last.
    pub(crate) fn last_text(&self) -> Option<Target<'_>> {
        self.texts.last().map(TextName::target)
    }

    /// Forgets all ops but the last, and all texts but the one that was named last.
    pub(crate) fn keep_last(&mut self) {
        let Some(mut last) = self.items.pop() else { return };
        self.items.clear();
        let (text, others) = match last.kind {
            Kind::Insert { .. } | Kind::Delete { .. } => (last.byte, self.others.len()),
            Kind::Other => (self.text.len(), self.others.len().saturating_sub(1)),
        };
        self.text.drain(..text);
        self.others.drain(..others);
        self.texts.drain(..self.texts.len().saturating_sub(1));
        (last.byte, last.subject) = (0, 0);
        self.items.push(last);
    }

    /// Adds an edit of the text that was named last.
    #[inline]
    pub(crate) fn push_text_op(&mut self, op: &TextOp<'_>, span: u64) {
        let (subject, byte) = (self.texts.len().saturating_sub(1) as u32, self.text.len());
        let kind = match op {
            TextOp::Insert { origin, text } => {
                self.text.push_str(text);
                Kind::Insert { origin: *origin }
            }
            TextOp::Delete { range, backwards } => {
                Kind::Delete { first: range.first, backwards: *backwards }
            }
        };
        self.items.push(Item { kind, span, byte, subject });
    }

    /// Lets the last op take over as much of an edit, whose first counter is `at`, as continues it.
    /// Returns what is left, if anything was taken.
    ///
    /// Taking over from the left, one op after the other, gives the one form that a list of ops has,
    /// however it was cut.
    #[inline]
    fn take_over<'a>(&mut self, next: &TextEdit<'a>, at: OpId) -> Option<TextEdit<'a>> {
        let Self { items, text, texts, .. } = self;
        let last = items.last_mut()?;
        let is_same = |subject: u32| texts[subject as usize].target() == next.target;
        match (&mut last.kind, next.op) {
            (Kind::Insert { .. }, TextOp::Insert { origin: Some(origin), text: more })
                if origin.plus(1) == at && is_same(last.subject) =>
            {
                text.push_str(more);
                last.span += next.span;
                Some(TextEdit { span: 0, ..*next })
            }
            (Kind::Delete { first, backwards }, TextOp::Delete { range, backwards: more_back })
                if is_same(last.subject) =>
            {
                let mut run = IdRange { first: *first, len: last.span };
                let (mut more, mut more_back) = (range, more_back);
                take_over_range((&mut run, backwards), (&mut more, &mut more_back));
                (*first, last.span) = (run.first, run.len);
                let op = TextOp::Delete { range: more, backwards: more_back };
                (more.len < next.span).then_some(TextEdit { op, span: more.len, ..*next })
            }
            _ => None,
        }
    }

    /// How many ops there are.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// How many counters the ops take; none if they are too many to count.
    pub(crate) fn span(&self) -> Option<u64> {
        self.items.iter().try_fold(0_u64, |sum, item| sum.checked_add(item.span))
    }

    /// The last op.
    pub(crate) fn last(&self) -> Option<OpView<'_>> {
        self.view(self.len().checked_sub(1)?)
    }

    /// How many counters the ops before an op take, if there is such an op.
    pub(crate) fn span_before(&self, number: usize) -> Option<u64> {
        let before = self.items.get(..number).filter(|_| number < self.len())?;
        Some(before.iter().map(|item| item.span).sum())
    }

    /// How many counters the last op takes.
    pub(crate) fn last_span(&self) -> u64 {
        self.items.last().map_or(0, |last| last.span)
    }

    /// The ops that edit no text.
    pub(crate) fn others(&self) -> &[Op] {
        &self.others
    }

    /// The texts that are edited.
    pub(crate) fn texts(&self) -> impl Iterator<Item = Target<'_>> {
        self.texts.iter().map(TextName::target)
    }

    /// How many edits of a text there are, if all are of one and the same.
    pub(crate) fn edits_of_one_text(&self) -> Option<usize> {
        (self.texts.len() == 1).then(|| self.len() - self.others.len())
    }

    /// Whether the ops refer to nothing that somebody else than `author` made.
    pub(crate) fn is_all_of(&self, author: ReplicaId) -> bool {
        self.texts.iter().all(|text| text.set.replica == author)
            && self.items.iter().all(|item| match item.kind {
                Kind::Insert { origin } => origin.is_none_or(|origin| origin.replica == author),
                Kind::Delete { first, .. } => first.replica == author,
                Kind::Other => true,
            })
    }

    /// More bytes than the ops take in a change, but for the names of replicas.
    pub(crate) fn size_bound(&self) -> usize {
        let field = self.texts.iter().map(|text| text.field.size()).max().unwrap_or_default();
        let edits = (self.len() - self.others.len()) * (Op::PARTS_BYTES + field) + self.text.len();
        edits + self.others.iter().map(Op::size_bound).sum::<usize>()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = OpView<'_>> {
        (0..self.items.len()).filter_map(|at| self.view(at))
    }

    pub(crate) fn to_ops(&self) -> Vec<Op> {
        self.iter().map(OpView::to_op).collect()
    }

    /// One of the ops.
    #[inline]
    fn view(&self, at: usize) -> Option<OpView<'_>> {
        let item = self.items.get(at)?;
        let op = match item.kind {
            Kind::Other => return Some(OpView::Other(&self.others[item.subject as usize])),
            Kind::Insert { origin } => TextOp::Insert { origin, text: self.text_of(at) },
            Kind::Delete { first, backwards } => {
                TextOp::Delete { range: IdRange { first, len: item.span }, backwards }
            }
        };
        let target = self.texts[item.subject as usize].target();
        Some(OpView::Text(TextEdit { target, op, span: item.span }))
    }

    fn text_of(&self, at: usize) -> &str {
        let end = self.items.get(at + 1).map_or(self.text.len(), |next| next.byte);
        &self.text[self.items[at].byte..end]
    }

    /// Whether the ops, the first of which has the counter of `first`, are in their one form: none
    /// continues the one before.
    pub(crate) fn is_joined(&self, first: OpId) -> bool {
        let mut at = first;
        self.items.windows(2).all(|pair| {
            at = at.plus(pair[0].span);
            !self.goes_on(&pair[0], &pair[1], at)
        })
    }

    /// Whether `next`, whose first counter is `at`, begins with something that continues `op`.
    fn goes_on(&self, op: &Item, next: &Item, at: OpId) -> bool {
        let is_possible = match (op.kind, next.kind) {
            (Kind::Insert { .. }, Kind::Insert { origin: Some(origin) }) => origin.plus(1) == at,
            (
                Kind::Delete { first, backwards },
                Kind::Delete { first: more, backwards: more_back },
            ) => {
                let mut run = (IdRange { first, len: op.span }, backwards);
                let mut more = (IdRange { first: more, len: next.span }, more_back);
                take_over_range((&mut run.0, &mut run.1), (&mut more.0, &mut more.1));
                more.0.len < next.span
            }
            _ => false,
        };
        let text = |item: &Item| self.texts[item.subject as usize].target();
        is_possible && (op.subject == next.subject || text(op) == text(next))
    }

    /// Cuts off the ops from the counter `at` on; the first has that of `first`. Only runs of typing
    /// and deleting can be cut inside. Both parts are in their one form if the whole was.
    pub(crate) fn split_off(&mut self, first: OpId, at: u64) -> Self {
        let mut parts = OpParts::new(self, first);
        while parts.next_until(at).is_some() {}
        let OpPlace { number, cut, .. } = parts.place();
        let mut rest = Self::new();
        if let (Some(cut), Some(OpView::Text(run))) = (cut, self.view(number)) {
            let (start, run_span) = (Cut { units: 0, bytes: 0, ..cut }, run.span);
            let kind = match start.part(&run, cut.units).op {
                TextOp::Insert { origin, .. } => Kind::Insert { origin },
                TextOp::Delete { range, backwards } => {
                    Kind::Delete { first: range.first, backwards }
                }
            };
            rest.push_edit(&cut.part(&run, run_span - cut.units));
            let here = self.items[number];
            self.items[number] = Item { kind, span: cut.units, ..here };
            self.append_tail(&mut rest, number + 1, first, drop);
            self.text.truncate(here.byte + cut.bytes);
            rest.join_second(OpId { counter: at, ..first });
        } else {
            self.append_tail(&mut rest, number, first, drop);
        }
        rest
    }

    /// Brings ops into their one form of which the first, with the counter of `at`, is what is left of a
    /// run, if the second continues it. Only deleting what is deleted already can continue a part of a
    /// run and not the whole.
    fn join_second(&mut self, at: OpId) {
        if let [left, next, ..] = &self.items[..]
            && self.goes_on(left, next, at.plus(left.span))
        {
            let ops = std::mem::take(self);
            self.extend_joined(ops, at, drop);
        }
    }

    /// Panics if S1 or S2 does not hold.
    pub(crate) fn assert_invariants(&self) {
        let (mut byte, mut text, mut other) = (0, 0, 0);
        for (at, item) in self.items.iter().enumerate() {
            assert_eq!(item.byte, byte, "S1: {item:?}");
            let chars = self.text_of(at);
            byte += chars.len();
            match item.kind {
                Kind::Insert { .. } => assert_eq!(char_count(chars), item.span, "S1: {item:?}"),
                Kind::Delete { .. } | Kind::Other => assert_eq!(chars, "", "S1: {item:?}"),
            }
            if let Kind::Other = item.kind {
                assert_eq!(item.subject as usize, other, "S2: {item:?}");
                assert_eq!(self.others[other].span(), item.span, "S1: {item:?}");
                other += 1;
            } else {
                assert!((item.subject as usize) < self.texts.len(), "S2: {item:?}");
                assert!(item.subject >= text, "S2: {item:?}");
                text = item.subject;
            }
        }
        assert_eq!(
            (byte, other),
            (self.text.len(), self.others.len()),
            "S1: more than the ops have"
        );
    }

    /// Moves the ops from number `from` on, the first of which begins at `at`, to the end of others.
    /// Hands over the first counter of each. Of the other ops, those before may be gone already.
    fn append_tail(
        &mut self,
        to: &mut Self,
        from: usize,
        mut at: OpId,
        mut begun: impl FnMut(u64),
    ) {
        let Some(start) = self.items.get(from).map(|item| item.byte) else { return };
        let is_other = |item: &&Item| matches!(item.kind, Kind::Other);
        let tail = self.items[from..].iter();
        let moved = tail.clone().filter(is_other).count();
        let first_other = tail.clone().find(is_other).map_or(0, |item| item.subject as usize);
        let first_text = tail.clone().find(|item| !is_other(item));
        let first_text = first_text.map_or(self.texts.len(), |item| item.subject as usize);
        let (others, bytes) = (to.others.len(), to.text.len());
        // Mostly it is the text of the op before.
        let new = self.texts.get(first_text);
        let is_same = new.is_some() && to.texts.last() == new;
        let texts = to.texts.len() - usize::from(is_same);
        to.items.reserve(self.items.len() - from);
        for mut item in self.items.drain(from..) {
            let (before, known) =
                if is_other(&&item) { (first_other, others) } else { (first_text, texts) };
            item.subject = (item.subject as usize - before + known) as u32;
            item.byte = item.byte - start + bytes;
            to.items.push(item);
            begun(at.counter);
            at = at.plus(item.span);
        }
        to.texts.extend(self.texts.iter().skip(first_text + usize::from(is_same)).cloned());
        to.others.extend(self.others.drain(self.others.len() - moved..));
        to.text.push_str(&self.text[start..]);
        self.text.truncate(start);
        let used = self.items.iter().rfind(|item| !is_other(item));
        self.texts.truncate(used.map_or(0, |item| item.subject as usize + 1));
    }
}

#[cfg(test)]
mod tests;
