//! The changes of one author: when they were made, what they build on, and their ops.

use std::sync::Arc;

use super::Dated;
use super::archive::Archive;
use crate::batch::{Batch, Deps, Span, push_span};
use crate::codec::decode_block;
use crate::id::{OpId, ReplicaId};
use crate::op::{OpList, OpParts, OpPlace, TextEdit};
use crate::state::Piece;

/// How many ops there are before they are sealed into a block. Few make tests see many blocks.
const SEAL_OPS: usize = if cfg!(any(test, feature = "small-nodes")) { 4 } else { 512 };
/// A block that comes from elsewhere is kept as it is if it has at least so many bytes.
const KEPT_BLOCK_BYTES: usize = if cfg!(any(test, feature = "small-nodes")) { 24 } else { 1_024 };

/// Changes as a block of bytes.
#[derive(Clone, Debug)]
pub(super) struct Sealed {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) block: Arc<[u8]>,
}

/// The log of one author.
#[derive(Clone, Debug, Default)]
pub(super) struct AuthorLog {
    pieces: Vec<Piece>,
    /// The deps that changes of the tail name by themselves, by the first counter of the change.
    links: Vec<(u64, OpId)>,
    /// The counter below which the ops are gone.
    floor: u64,
    /// What holds the changes from the floor to a counter, still packed.
    archive: Option<(Arc<Archive>, u64)>,
    sealed: Vec<Sealed>,
    /// The ops that no block has yet, from `tail_start` on.
    tail: OpList,
    tail_start: u64,
    /// The first counter of each op of the tail.
    tail_starts: Vec<u64>,
    tail_end: u64,
}

impl AuthorLog {
    #[inline]
    pub(super) fn push_piece(&mut self, piece: Piece) {
        match self.pieces.last_mut() {
            Some(last) if piece.continues(last) => last.count += piece.count,
            _ => self.pieces.push(piece),
        }
    }

    pub(super) fn push_links(&mut self, start: u64, deps: &[OpId]) {
        self.links.extend(deps.iter().map(|dep| (start, *dep)));
    }

    /// Adds ops where the log ends.
    pub(super) fn push_ops(&mut self, author: ReplicaId, ops: OpList) {
        let at = OpId { replica: author, counter: self.tail_end };
        self.tail_end += ops.span().unwrap_or_default();
        self.tail.extend_joined(ops, at, |start| self.tail_starts.push(start));
    }

    /// The same for an edit of a text.
    pub(super) fn push_edit(&mut self, author: ReplicaId, edit: TextEdit<'_>) {
        let at = OpId { replica: author, counter: self.tail_end };
        let before = self.tail.len();
        self.tail.push_edit_joined(edit, at);
        self.tail_end += edit.span;
        if self.tail.len() > before {
            self.tail_starts.push(self.tail_end - self.tail.last_span());
        }
    }

    /// Notes that a change was made by an edit of the text that the last op edits, and adds that.
    #[inline]
    pub(super) fn type_on(&mut self, author: ReplicaId, lamport: u64, edit: TextEdit<'_>) {
        let (start, len) = (self.tail_end, edit.span);
        self.push_piece(Piece { start, lamport, len, count: 1 });
        let at = OpId { replica: author, counter: start };
        if self.tail.go_on(&edit.op, len, at) {
            self.tail_end += len;
            return;
        }
        self.push_edit(author, edit);
        self.seal_if_long(author);
    }

    /// Takes in a block, which begins where the log ends.
    pub(super) fn push_block(
        &mut self,
        author: ReplicaId,
        (start, end): (u64, u64),
        block: Arc<[u8]>,
    ) {
        self.seal(author);
        self.sealed.push(Sealed { start, end, block });
        self.tail_end = end;
        self.start_tail();
    }

    /// Drops all ops, but not when they were made.
    pub(super) fn cut(&mut self) {
        self.floor = self.tail_end;
        (self.sealed, self.archive) = (Vec::new(), None);
        self.start_tail();
    }

    /// Says where the changes are that were made before the log was loaded.
    pub(super) fn attach(&mut self, archive: &Arc<Archive>, from: u64) {
        self.archive = Some((archive.clone(), self.floor));
        self.floor = from;
    }

    /// Takes over the times of changes that are known without their ops, if they are more than here.
    pub(super) fn join(&mut self, pieces: &[Piece]) {
        let end = pieces.last().map_or(0, Piece::end);
        if end > self.tail_end {
            self.pieces = pieces.to_vec();
            self.tail_end = end;
            self.cut();
        }
    }

    /// The counter below which the ops are gone.
    pub(super) const fn floor(&self) -> u64 {
        self.floor
    }

    /// The counter after the last op.
    #[inline]
    pub(super) const fn end(&self) -> u64 {
        self.tail_end
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether a block of so many bytes is kept rather than taken apart.
    pub(super) const fn keeps(bytes: usize) -> bool {
        bytes >= KEPT_BLOCK_BYTES
    }

    pub(super) fn seal_if_long(&mut self, author: ReplicaId) {
        if self.tail.len() >= SEAL_OPS {
            self.seal(author);
        }
    }

    fn seal(&mut self, author: ReplicaId) {
        let start = self.tail_start;
        let ops = std::mem::take(&mut self.tail);
        // H4: the tail has all changes from where it starts.
        let spans = self.tail_spans(start, self.tail_end).filter(|spans| !spans.is_empty());
        if let Some(spans) = spans {
            for (start, end, block) in (Batch { author, start, spans, ops }).into_blocks() {
                self.sealed.push(Sealed { start, end, block });
            }
        }
        self.start_tail();
    }

    /// Begins a new tail where the log ends.
    fn start_tail(&mut self) {
        self.tail = OpList::new();
        self.tail_starts = Vec::new();
        self.tail_start = self.tail_end;
        // Changes may be noted whose ops are still to come: what is moved is less than what goes.
        let stale = self.links.partition_point(|(start, _)| *start < self.tail_end);
        if stale * 2 >= self.links.len() {
            self.links.drain(..stale);
        }
    }

    /// The part of the tail from a change's first counter on, in blocks.
    fn tail_blocks(&self, author: ReplicaId, from: u64) -> Vec<(u64, u64, Arc<[u8]>)> {
        let spans = self.tail_spans(from, self.tail_end).filter(|spans| !spans.is_empty());
        let Some(spans) = spans else {
            return Vec::new();
        };
        let ops = self.tail_ops(author, from, self.tail_end);
        Batch { author, start: from, spans, ops }.into_blocks()
    }

    /// The Lamport time of the newest change.
    pub(super) fn newest(&self) -> u64 {
        self.pieces.last().map_or(0, Piece::newest)
    }

    /// The Lamport time of the change that has a counter.
    pub(super) fn lamport(&self, counter: u64) -> Option<u64> {
        Some(self.dated(counter)?.lamport)
    }

    /// The change that has a counter, with its Lamport time.
    pub(super) fn dated(&self, counter: u64) -> Option<Dated> {
        let piece = self.piece_at(counter)?;
        let number = piece.change_at(counter);
        let start = piece.start + number * piece.len;
        Some(Dated { start, end: start + piece.len, lamport: piece.lamport + number })
    }

    /// The first counter of the change that has a counter.
    pub(super) fn start_of_change(&self, counter: u64) -> Option<u64> {
        Some(self.dated(counter)?.start)
    }

    /// The length of the newest change, if it begins at a counter, and the deps that it names.
    pub(super) fn last_change(&self, start: u64) -> Option<(u64, Deps)> {
        let last = self.pieces.last()?;
        if last.end() != start + last.len {
            return None;
        }
        // The links of a change are the last ones of the log if it has any.
        let first = self.links.iter().rposition(|(of, _)| *of != start).map_or(0, |at| at + 1);
        Some((last.len, self.links[first..].iter().map(|(_, dep)| *dep).collect()))
    }

    /// Whether a change begins or the log ends at a counter.
    pub(super) fn has_boundary(&self, counter: u64) -> bool {
        counter == self.tail_end || self.start_of_change(counter) == Some(counter)
    }

    /// How many changes there are from a counter on.
    pub(super) fn change_count(&self, from: u64) -> u64 {
        let first = self.pieces.partition_point(|piece| piece.end() <= from);
        let Some(piece) = self.pieces.get(first) else { return 0 };
        let before = if from > piece.start { piece.change_at(from) } else { 0 };
        self.pieces.iter().skip(first).map(|piece| piece.count).sum::<u64>() - before
    }

    /// The changes of the tail from one counter to another; nothing if no change begins or ends there.
    fn tail_spans(&self, from: u64, to: u64) -> Option<Vec<Span>> {
        self.spans(from, to, &self.links)
    }

    /// The changes from one counter to another, of which these name deps, in order; nothing if no change
    /// begins or ends there.
    pub(super) fn spans(&self, from: u64, to: u64, links: &[(u64, OpId)]) -> Option<Vec<Span>> {
        if from >= to {
            return (from == to).then(Vec::new);
        }
        let first = self.pieces.partition_point(|piece| piece.end() <= from);
        let last = self.pieces.partition_point(|piece| piece.start < to);
        let mut spans = Vec::new();
        for piece in self.pieces.get(first..last)? {
            push_spans_of(piece, (from, to), links, &mut spans)?;
        }
        Some(spans)
    }

    /// The changes from one counter to another; nothing if no change begins or ends there, or their
    /// ops are gone.
    pub(super) fn batch(&self, author: ReplicaId, from: u64, to: u64) -> Option<Batch> {
        let mut kept = self.kept(author, from, to)?;
        let mut whole = kept.next()?;
        kept.for_each(|part| whole.take(part));
        ((whole.start, whole.end()) == (from, to)).then_some(whole)
    }

    /// The same as it is kept, one after the other.
    pub(super) fn kept(
        &self,
        author: ReplicaId,
        from: u64,
        to: u64,
    ) -> Option<impl Iterator<Item = Batch> + '_> {
        let sealed = self.stored(author, from)?.take_while(move |sealed| sealed.start < to);
        let start = from.max(self.tail_start);
        let spans = if start < to { Some(self.tail_spans(start, to)?) } else { None };
        let tail =
            move |spans| Batch { author, start, spans, ops: self.tail_ops(author, start, to) };
        // Who asks for more than there is finds a part missing.
        let sealed = sealed.map_while(move |sealed| sealed.batch(from, to));
        Some(sealed.chain(std::iter::once_with(move || spans.map(tail)).flatten()))
    }

    /// The block that holds the change with a counter, as a whole; nothing if none does.
    pub(super) fn block_at(&self, author: ReplicaId, counter: u64) -> Option<Batch> {
        let sealed = self.stored(author, counter)?.next()?;
        sealed.batch(sealed.start, sealed.end).filter(|block| block.start <= counter)
    }

    /// At least as many bytes as the ops from a counter on have typed; nothing if those are gone.
    pub(super) fn typed_bound(&self, author: ReplicaId, from: u64) -> Option<usize> {
        let sealed = self.stored(author, from)?.map(|sealed| sealed.block.len()).sum::<usize>();
        Some(sealed + self.tail.size_bound())
    }

    /// The blocks that hold changes from a counter on; nothing if those are gone.
    fn stored(&self, author: ReplicaId, from: u64) -> Option<impl Iterator<Item = &Sealed>> {
        let archived = match &self.archive {
            Some((archive, end)) if from < *end && from >= self.floor => {
                archive.blocks(author, (self.floor, *end), self)?
            }
            _ if from < self.floor => return None,
            _ => &[],
        };
        let after = |all: &[Sealed]| all.partition_point(|sealed| sealed.end <= from);
        let (archived, sealed) =
            (&archived[after(archived)..], &self.sealed[after(&self.sealed)..]);
        Some(archived.iter().chain(sealed))
    }

    /// The ops from the first counter of the newest change on.
    pub(super) fn tail_ops_from(&self, author: ReplicaId, from: u64) -> Option<OpList> {
        (from >= self.tail_start).then(|| self.tail_ops(author, from, self.tail_end))
    }

    fn tail_ops(&self, author: ReplicaId, from: u64, to: u64) -> OpList {
        let first = self.tail_starts.partition_point(|start| *start <= from).saturating_sub(1);
        let start = self.tail_starts.get(first).filter(|_| from < to);
        let Some(start) = start else { return OpList::new() };
        let place = OpPlace::before(first, OpId { replica: author, counter: *start });
        let mut parts = OpParts::starting_at(&self.tail, place);
        if *start < from {
            parts.skip_within(from);
        }
        parts.take_until(to)
    }

    /// The changes from the first counter of one on, as blocks; nothing if they are gone.
    pub(super) fn blocks(&self, author: ReplicaId, from: u64) -> Option<Vec<Arc<[u8]>>> {
        let mut blocks = Vec::new();
        for sealed in self.stored(author, from)? {
            if sealed.start >= from {
                blocks.push(sealed.block.clone());
            } else {
                let part = sealed.batch(from, sealed.end)?;
                blocks.extend(part.into_blocks().into_iter().map(|(_, _, block)| block));
            }
        }
        let tail = self.tail_blocks(author, from.max(self.tail_start));
        blocks.extend(tail.into_iter().map(|(_, _, block)| block));
        Some(blocks)
    }

    fn piece_at(&self, counter: u64) -> Option<&Piece> {
        // Most questions are about what is new.
        if let Some(last) = self.pieces.last().filter(|last| last.start <= counter) {
            return (counter < last.end()).then_some(last);
        }
        let after = self.pieces.partition_point(|piece| piece.start <= counter);
        self.pieces.get(after.checked_sub(1)?)
    }

    /// Panics if the log is not that of an author whose next counter is `next`.
    pub(super) fn assert_invariants(&self, author: ReplicaId, next: u64) {
        let mut at = 0;
        for piece in &self.pieces {
            assert_eq!(piece.start, at, "H1: {author:?}");
            assert!(piece.count > 0 && piece.len > 0, "H1: {piece:?}");
            at = piece.end();
        }
        assert_eq!(at, next, "H1: {author:?}");
        let mut at = self.floor;
        for sealed in self.stored(author, self.floor).expect("H4: the archive can be read") {
            let batch = decode_block(&sealed.block).expect("H4: a block can be read");
            assert_eq!((batch.author, batch.start, batch.end()), (author, at, sealed.end), "H4");
            batch.assert_invariants();
            at = sealed.end;
        }
        assert_eq!((at, self.tail_end), (self.tail_start, next), "H4");
        self.tail.assert_invariants();
        for (op, start) in self.tail.iter().zip(&self.tail_starts) {
            assert_eq!(*start, at, "H4");
            at += op.span();
        }
        assert_eq!((at, self.tail.len()), (next, self.tail_starts.len()), "H4");
        assert!(self.links.is_sorted_by_key(|(start, _)| *start), "H4");
    }
}

impl Sealed {
    /// The changes that are in both the block and the range.
    fn batch(&self, from: u64, to: u64) -> Option<Batch> {
        // H4: what is in the log could be read when it came.
        let mut batch = decode_block(&self.block).ok()?;
        if to < self.end {
            batch.split_off(to)?;
        }
        if from > self.start { batch.split_off(from) } else { Some(batch) }
    }
}

/// Adds the part of a piece that lies in the range, cut where a change names deps.
fn push_spans_of(
    piece: &Piece,
    (from, to): (u64, u64),
    links: &[(u64, OpId)],
    spans: &mut Vec<Span>,
) -> Option<()> {
    let (mut at, end) = (from.max(piece.start), to.min(piece.end()));
    let is_boundary = |counter: u64| (counter - piece.start).is_multiple_of(piece.len);
    if !is_boundary(at) || !is_boundary(end) {
        return None;
    }
    let mut next = links.partition_point(|(start, _)| *start < at);
    while at < end {
        let mut deps = Deps::new();
        while let Some((_, dep)) = links.get(next).filter(|(start, _)| *start == at) {
            deps.push(*dep);
            next += 1;
        }
        let until = links.get(next).map_or(end, |(start, _)| end.min(*start));
        if !is_boundary(until) {
            return None;
        }
        push_span(spans, Span { len: piece.len, count: (until - at) / piece.len, deps });
        at = until;
    }
    Some(())
}
