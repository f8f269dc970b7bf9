//! One transaction as everybody sees it.
//!
//! A change is applied whole or not at all, and has one form: the same ops on the same header are
//! the same bytes, whoever encodes them. Its header can be read without its ops, so that a relay can
//! order, deduplicate and select changes that it does not understand.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::codec::{OpReader, OpWriter, Reader, Scope, Writer};
use crate::error::DecodeError;
use crate::id::{OpId, ReplicaId};
use crate::limits::{CHANGE_BYTES_MAX, CHANGE_OPS_MAX, COUNTER_MAX};
use crate::op::{Op, OpList};
use crate::value::{BlobRef, Value};

/// Who made a change, on top of what, and which counters it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeHeader {
    /// The author.
    pub replica: ReplicaId,
    /// Counter of the first op; where the author's previous change ended.
    pub start: u64,
    /// How many counters the ops take, at least one.
    pub span: u64,
    /// What the author had seen of others, in order of replica: the newest changes that no other
    /// one seen builds on, and for every foreign replica that a text edit refers to, an op at or
    /// after the newest one referred to.
    ///
    /// So a reference can be checked against the header alone, without walking the history. The
    /// author's own previous change is implied.
    pub deps: Vec<OpId>,
}

/// Flags beside the span: whether deps follow, and whether the change is a single op.
const HAS_DEPS: u64 = 1;
const IS_ALONE: u64 = 2;
const FLAG_BITS: u32 = 2;

/// No header without its deps takes more bytes.
pub(crate) const HEADER_BYTES_MAX: usize = 64;
/// No dep takes more bytes.
pub(crate) const DEP_BYTES_MAX: usize = 24;

impl ChangeHeader {
    /// Reads the header at the start of a change's bytes.
    ///
    /// # Errors
    /// If the bytes do not begin with a header.
    pub fn decode(change: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(change)).map(|(header, _)| header)
    }

    /// Counter after the last op.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start + self.span
    }

    /// The last counter that the change takes, as an id.
    #[must_use]
    pub const fn last(&self) -> OpId {
        OpId { replica: self.replica, counter: self.end() - 1 }
    }

    /// The header, and whether a single op follows.
    fn read(reader: &mut Reader<'_>) -> Result<(Self, bool), DecodeError> {
        let replica = reader.replica()?;
        let start = reader.varint()?;
        let head = reader.varint()?;
        let span = head >> FLAG_BITS;
        if span == 0 || start.checked_add(span).is_none_or(|end| end > COUNTER_MAX + 1) {
            return Err(reader.malformed("counters out of range"));
        }
        let count = if head & HAS_DEPS == 0 { 0 } else { reader.count(9)? };
        let mut deps: Vec<OpId> = Vec::with_capacity(count);
        for _ in 0..count {
            deps.push(OpId { replica: reader.replica()?, counter: reader.varint()? });
        }
        if let Some(fault) = deps_fault(&deps, replica) {
            return Err(reader.malformed(fault));
        }
        Ok((Self { replica, start, span, deps }, head & IS_ALONE != 0))
    }

    fn write(&self, writer: &mut Writer, is_alone: bool) {
        writer.replica(self.replica);
        writer.varint(self.start);
        let flag = |is_set: bool, flag: u64| if is_set { flag } else { 0 };
        let flags = flag(!self.deps.is_empty(), HAS_DEPS) | flag(is_alone, IS_ALONE);
        writer.varint(self.span << FLAG_BITS | flags);
        if !self.deps.is_empty() {
            writer.count(self.deps.len());
        }
        for dep in &self.deps {
            writer.replica(dep.replica);
            writer.varint(dep.counter);
        }
    }

    const fn scope(&self) -> Scope<'_> {
        Scope { author: self.replica, others: self.deps.as_slice(), is_bounded: true }
    }
}

/// What is wrong with the deps of a change of `author`, if anything.
pub(crate) fn deps_fault(deps: &[OpId], author: ReplicaId) -> Option<&'static str> {
    if deps.iter().any(|dep| dep.replica == author)
        || !deps.is_sorted_by(|a, b| a.replica < b.replica)
    {
        return Some("deps not in order");
    }
    let is_far = |dep: &OpId| dep.counter > COUNTER_MAX;
    deps.iter().any(is_far).then_some("counters out of range")
}

/// The deps of a change: those that it names by itself, and an op at or after every foreign one that
/// its ops refer to. O(log n) for each reference.
pub(crate) fn full_deps(
    named: &[OpId],
    references: impl Iterator<Item = OpId>,
    author: ReplicaId,
) -> Vec<OpId> {
    let (mut deps, mut more) = (named.to_vec(), Vec::new());
    for op in references.filter(|op| op.replica != author) {
        match deps.binary_search_by_key(&op.replica, |dep| dep.replica) {
            Ok(at) => deps[at].counter = deps[at].counter.max(op.counter),
            Err(_) => more.push(op),
        }
        // Each time it costs what came since, so that many cost little more than their number.
        if more.len() > deps.len() {
            merge_deps(&mut deps, &mut more);
        }
    }
    merge_deps(&mut deps, &mut more);
    deps
}

/// Takes ops in among deps, of each replica the newest.
fn merge_deps(deps: &mut Vec<OpId>, more: &mut Vec<OpId>) {
    if more.is_empty() {
        return;
    }
    let newest_first = |op: &OpId| (op.replica, Reverse(op.counter));
    more.sort_unstable_by_key(newest_first);
    deps.append(more);
    // Two sorted runs: a stable sort merges them.
    deps.sort_by_key(newest_first);
    deps.dedup_by_key(|dep| dep.replica);
}

/// The deps that [`full_deps`] would not find by itself.
pub(crate) fn named_deps(deps: &[OpId], references: impl Iterator<Item = OpId>) -> Vec<OpId> {
    if deps.is_empty() {
        return Vec::new();
    }
    let mut newest: BTreeMap<ReplicaId, u64> = BTreeMap::new();
    for op in references {
        let known = newest.entry(op.replica).or_insert(op.counter);
        *known = op.counter.max(*known);
    }
    let is_named = |dep: &&OpId| newest.get(&dep.replica) != Some(&dep.counter);
    deps.iter().filter(is_named).copied().collect()
}

/// A transaction: its header, its ops, and both as bytes. Cheap to clone but for the ops.
///
/// Invariant: `bytes` decode to `header` and `list`, and `ops` are those if anybody has asked.
#[derive(Clone, Debug)]
pub struct Change {
    header: ChangeHeader,
    list: OpList,
    ops: OnceLock<Vec<Op>>,
    bytes: Arc<[u8]>,
}

impl PartialEq for Change {
    fn eq(&self, other: &Self) -> bool {
        self.header == other.header && self.list == other.list
    }
}

impl Eq for Change {}

impl Change {
    /// Makes a change of ops, as their author would. Ops that go on where the one before ended, as
    /// typing does, become one.
    ///
    /// # Errors
    /// If the change is not well formed: [`DecodeError::Malformed`] or [`DecodeError::TooLarge`].
    pub fn new(
        replica: ReplicaId,
        start: u64,
        deps: Vec<OpId>,
        ops: &[Op],
    ) -> Result<Self, DecodeError> {
        let malformed = |what| DecodeError::Malformed { at: 0, what };
        let span = ops.iter().map(Op::span).fold(0, u64::saturating_add);
        if start.checked_add(span).is_none_or(|end| end > COUNTER_MAX + 1) {
            return Err(malformed("counters out of range"));
        }
        if let Some(fault) = ops.iter().find_map(Op::fault) {
            return Err(malformed(fault));
        }
        let list = OpList::joined(ops.iter().cloned(), OpId { replica, counter: start });
        let made = Self::encoded(ChangeHeader { replica, start, span, deps }, list);
        let change = Self::decode(&made.bytes)?;
        if change != made {
            return Err(malformed("ops that this header cannot carry"));
        }
        Ok(change)
    }

    /// Makes a change of what is known to be well formed but for its size: local edits check what
    /// they are given.
    pub(crate) fn assemble(header: ChangeHeader, list: OpList) -> Self {
        let change = Self::encoded(header, list);
        // In pairs: what leaves here is what every receiver reads.
        debug_assert!(
            change.bytes.len() > CHANGE_BYTES_MAX
                || Self::decode(&change.bytes).as_ref() == Ok(&change)
        );
        change
    }

    fn encoded(header: ChangeHeader, list: OpList) -> Self {
        let bytes = encode(&header, &list, Writer::new()).into_bytes().into();
        Self { header, list, ops: OnceLock::new(), bytes }
    }

    /// Reads a change. Takes time and memory in proportion to the bytes.
    ///
    /// # Errors
    /// If the bytes are not one well-formed change; [`DecodeError::OpTooNew`] if it has an op that
    /// only a newer program knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, is_alone, reader) = read_head(bytes)?;
        let alone = is_alone.then_some(header.span);
        let mut list = OpList::new();
        let mut at = header.start;
        let mut op_reader = OpReader::new(reader, header.scope(), alone);
        while at < header.end() {
            let span = op_reader.op(at, &mut list)?;
            at = match at.checked_add(span) {
                Some(next) if next <= header.end() && list.len() <= CHANGE_OPS_MAX => next,
                _ => return Err(reader_error("more ops than the header counts")),
            };
        }
        op_reader.into_source().finish()?;
        check_form(&header, &list, bytes)?;
        Ok(Self { header, list, ops: OnceLock::new(), bytes: bytes.into() })
    }

    /// Whether [`Change::decode`] would read these bytes, by the header or the reason why not: for whoever
    /// passes the change on and does not look at its ops. Of these no more are in memory at a time than a
    /// few thousand.
    ///
    /// # Errors
    /// As `decode`; if several things are wrong, it may name another one.
    pub fn check(bytes: &[u8]) -> Result<ChangeHeader, DecodeError> {
        let (header, is_alone, reader) = read_head(bytes)?;
        let mut op_reader = OpReader::new(reader, header.scope(), is_alone.then_some(header.span));
        let mut form = Form::begin(&header, is_alone, bytes)?;
        let (mut window, mut first) = (OpList::new(), header.start);
        let (mut at, mut count) = (header.start, 0);
        while at < header.end() {
            let start = at;
            let span = op_reader.op(at, &mut window)?;
            count += 1;
            at = match at.checked_add(span) {
                Some(next) if next <= header.end() && count <= CHANGE_OPS_MAX => next,
                _ => return Err(reader_error("more ops than the header counts")),
            };
            if window.len() == CHECK_OPS || at == header.end() {
                form.check(&window, OpId { replica: header.replica, counter: first })?;
                window.keep_last();
                first = start;
            }
        }
        op_reader.into_source().finish()?;
        form.end(count)?;
        Ok(header)
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &ChangeHeader {
        &self.header
    }

    /// The ops in order.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        self.ops.get_or_init(|| self.list.to_ops())
    }

    /// The same as a list.
    pub(crate) const fn list(&self) -> &OpList {
        &self.list
    }

    pub(crate) fn into_parts(self) -> (ChangeHeader, OpList) {
        (self.header, self.list)
    }

    /// The ops in order, each with the counter that it starts at.
    pub fn numbered_ops(&self) -> impl Iterator<Item = (OpId, &Op)> {
        let mut counter = self.header.start;
        self.ops().iter().map(move |op| {
            let id = OpId { replica: self.header.replica, counter };
            counter += op.span();
            (id, op)
        })
    }

    /// The large contents that its ops refer to, in order. Costs a look at each op.
    pub fn blobs(&self) -> impl Iterator<Item = BlobRef> {
        self.list.others().iter().filter_map(|op| match op {
            Op::Set { value: Value::Blob(blob), .. } => Some(*blob),
            _ => None,
        })
    }

    /// About what it takes in memory, in bytes: with many small ops dozens of times its encoding. Costs
    /// a look at each op that edits no text.
    #[must_use]
    pub fn memory(&self) -> usize {
        let taken_out = |ops: &Vec<Op>| size_of_val(ops.as_slice()) + self.list.purged_bytes();
        let ops = self.ops.get().map_or(0, taken_out);
        let deps = size_of_val(self.header.deps.as_slice());
        size_of::<Self>() + self.bytes.len() + deps + self.list.memory() + ops
    }

    /// The encoded change, header and ops.
    #[must_use]
    pub const fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }
}

/// Reads the header of a change that is not too large, and whether a single op follows.
fn read_head(bytes: &[u8]) -> Result<(ChangeHeader, bool, Reader<'_>), DecodeError> {
    if bytes.len() > CHANGE_BYTES_MAX {
        let max = CHANGE_BYTES_MAX as u64;
        return Err(DecodeError::TooLarge { what: "the change", max });
    }
    let mut reader = Reader::new(bytes);
    let (header, is_alone) = ChangeHeader::read(&mut reader)?;
    Ok((header, is_alone, reader))
}

/// Adds the bytes of a change.
pub(crate) fn encode(header: &ChangeHeader, ops: &OpList, mut writer: Writer) -> Writer {
    let is_alone = ops.len() == 1;
    header.write(&mut writer, is_alone);
    let mut ops_writer = OpWriter::new(writer, header.scope(), is_alone);
    let mut counter = header.start;
    for op in ops.iter() {
        ops_writer.op(counter, &op);
        counter = counter.saturating_add(op.span());
    }
    ops_writer.into_sink()
}

/// Checks that what was read has no other form: that it is written as the same bytes.
fn check_form(header: &ChangeHeader, ops: &OpList, bytes: &[u8]) -> Result<(), DecodeError> {
    if !ops.is_joined(OpId { replica: header.replica, counter: header.start }) {
        return Err(reader_error("a run in two pieces"));
    }
    if encode(header, ops, Writer::with_capacity(bytes.len())).as_slice() != bytes {
        return Err(reader_error("another form of a change"));
    }
    Ok(())
}

/// How many ops [`Change::check`] looks at in one go. In tests few, so that small changes have many goes.
const CHECK_OPS: usize = if cfg!(debug_assertions) { 3 } else { 4_096 };

/// What [`check_form`] does, bit by bit.
struct Form<'a> {
    writer: OpWriter<'a, Writer>,
    /// What is still to be written as it was read.
    left: &'a [u8],
    is_alone: bool,
    /// The counter of the next op to be written.
    at: u64,
}

impl<'a> Form<'a> {
    fn begin(
        header: &'a ChangeHeader,
        is_alone: bool,
        bytes: &'a [u8],
    ) -> Result<Self, DecodeError> {
        let mut writer = Writer::new();
        header.write(&mut writer, is_alone);
        let writer = OpWriter::new(writer, header.scope(), is_alone);
        let mut form = Self { writer, left: bytes, is_alone, at: header.start };
        form.compare()?;
        Ok(form)
    }

    /// Checks some ops, of which the first has the id `first` and may have been checked before.
    fn check(&mut self, ops: &OpList, first: OpId) -> Result<(), DecodeError> {
        if !ops.is_joined(first) {
            return Err(reader_error("a run in two pieces"));
        }
        let mut counter = first.counter;
        for op in ops.iter() {
            if counter == self.at {
                self.writer.op(counter, &op);
                self.at += op.span();
                self.compare()?;
            }
            counter += op.span();
        }
        Ok(())
    }

    fn compare(&mut self) -> Result<(), DecodeError> {
        let written = self.writer.sink();
        let left = self.left.strip_prefix(written.as_slice());
        self.left = left.ok_or_else(|| reader_error("another form of a change"))?;
        written.clear();
        Ok(())
    }

    fn end(&self, ops: usize) -> Result<(), DecodeError> {
        let is_whole = self.left.is_empty() && self.is_alone == (ops == 1);
        if is_whole { Ok(()) } else { Err(reader_error("another form of a change")) }
    }
}

const fn reader_error(what: &'static str) -> DecodeError {
    DecodeError::Malformed { at: 0, what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Batch;
    use crate::codec::{decode_block, encode_block};
    use crate::id::{EntryId, Life};
    use crate::value::Field;

    fn op(replica: u64, counter: u64) -> OpId {
        OpId { replica: ReplicaId::new(replica).unwrap(), counter }
    }

    #[test]
    fn deps_are_the_newest_op_of_each_author() {
        let all = |named: &[OpId], references: &[OpId]| {
            full_deps(named, references.iter().copied(), op(9, 0).replica)
        };
        assert_eq!(all(&[], &[]), []);
        assert_eq!(all(&[op(3, 4)], &[op(9, 7)]), [op(3, 4)]);
        assert_eq!(all(&[op(3, 4)], &[op(3, 2), op(3, 6), op(3, 5)]), [op(3, 6)]);
        let references = [op(8, 1), op(5, 9), op(8, 3), op(1, 1), op(5, 2), op(2, 2), op(1, 0)];
        let expected = [op(1, 1), op(2, 2), op(3, 4), op(5, 9), op(8, 3)];
        assert_eq!(all(&[op(3, 4)], &references), expected);
        assert_eq!(all(&expected, &references), expected);
    }

    /// A look through all deps for each op that is referred to would be 10^11 looks.
    #[test]
    fn reading_a_change_costs_its_deps_and_references_but_not_their_product() {
        const COUNT: u64 = 500_000;
        let (author, set) = (op(1, 0).replica, op(1, 0));
        let (entry, life, text) = (EntryId::ROOT, Life::FIRST, String::from("a"));
        for seen in [5, 9] {
            let insert = |n| {
                let (field, text, origin) = (Field::Value, text.clone(), Some(op(n, 5)));
                Op::Insert { entry, life, field, set, origin, text }
            };
            let mut list = OpList::new();
            (2..COUNT + 2).rev().for_each(|n| list.push(insert(n)));
            let deps = (2..COUNT + 2).map(|n| op(n, seen)).collect();
            let header = ChangeHeader { replica: author, start: 1, span: COUNT, deps };
            let change = Change::encoded(header, list);
            assert_eq!(Change::decode(change.bytes()).as_ref(), Ok(&change));
            let block = encode_block(&Batch::of_change(change.clone()));
            let batch = decode_block(&block).unwrap();
            assert_eq!(batch.changes().collect::<Vec<_>>(), [change]);
        }
    }
}
