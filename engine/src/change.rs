//! One transaction as everybody sees it.
//!
//! A change is applied whole or not at all. It is encoded once, when it is committed; the same bytes
//! go to the log, to disk and over the wire. Its header can be read without its ops, so that a relay
//! can order, deduplicate and select changes that it does not understand.

use std::sync::Arc;

use crate::codec::{Reader, Writer, decode_ops, encode_op};
use crate::error::DecodeError;
use crate::id::{OpId, ReplicaId};
use crate::limits::{CHANGE_BYTES_MAX, COUNTER_MAX};
use crate::op::Op;

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
    /// one seen builds on, and for every foreign replica that the ops refer to, an op at or after
    /// the newest one referred to.
    ///
    /// So a reference can be checked against the header alone, without walking the history. The
    /// author's own previous change is implied.
    pub deps: Vec<OpId>,
}

impl ChangeHeader {
    /// Reads the header at the start of a change's bytes.
    ///
    /// # Errors
    /// If the bytes do not begin with a header.
    pub fn decode(change: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(change))
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

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let replica = reader.replica()?;
        let start = reader.varint()?;
        let span = reader.varint()?;
        if span == 0 || start.checked_add(span).is_none_or(|end| end > COUNTER_MAX + 1) {
            return Err(reader.malformed("counters out of range"));
        }
        let count = reader.count(9)?;
        let mut deps: Vec<OpId> = Vec::with_capacity(count);
        for _ in 0..count {
            let dep = OpId { replica: reader.replica()?, counter: reader.varint()? };
            if dep.replica == replica || deps.last().is_some_and(|last| last.replica >= dep.replica)
            {
                return Err(reader.malformed("deps not in order"));
            }
            if dep.counter > COUNTER_MAX {
                return Err(reader.malformed("counters out of range"));
            }
            deps.push(dep);
        }
        Ok(Self { replica, start, span, deps })
    }

    fn write(&self, writer: &mut Writer) {
        writer.replica(self.replica);
        writer.varint(self.start);
        writer.varint(self.span);
        writer.count(self.deps.len());
        for dep in &self.deps {
            writer.replica(dep.replica);
            writer.varint(dep.counter);
        }
    }
}

/// A transaction: its header, its ops, and both as bytes. Cheap to clone but for the ops.
///
/// Invariant: `bytes` decode to `header` and `ops`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    header: ChangeHeader,
    ops: Vec<Op>,
    bytes: Arc<[u8]>,
}

impl Change {
    /// Makes a change of ops, as their author would.
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
        let made = Self::assemble(ChangeHeader { replica, start, span, deps }, ops.to_vec());
        let change = Self::decode(&made.bytes)?;
        if change != made {
            return Err(malformed("ops that this header cannot carry"));
        }
        Ok(change)
    }

    /// Makes a change of what is known to be well formed but for its size: local edits check what
    /// they are given.
    pub(crate) fn assemble(header: ChangeHeader, ops: Vec<Op>) -> Self {
        let mut writer = Writer::new();
        header.write(&mut writer);
        let mut counter = header.start;
        for op in &ops {
            encode_op(&mut writer, &header, counter, op);
            counter += op.span();
        }
        Self { header, ops, bytes: writer.as_slice().into() }
    }

    /// Reads a change.
    ///
    /// # Errors
    /// If the bytes are not one well-formed change.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > CHANGE_BYTES_MAX {
            return Err(DecodeError::TooLarge { what: "the change", max: CHANGE_BYTES_MAX as u64 });
        }
        let mut reader = Reader::new(bytes);
        let header = ChangeHeader::read(&mut reader)?;
        let ops = decode_ops(&mut reader, &header)?;
        Ok(Self { header, ops, bytes: bytes.into() })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &ChangeHeader {
        &self.header
    }

    /// The ops in order.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The ops in order, each with the counter that it starts at.
    pub fn numbered_ops(&self) -> impl Iterator<Item = (OpId, &Op)> {
        let mut counter = self.header.start;
        self.ops.iter().map(move |op| {
            let id = OpId { replica: self.header.replica, counter };
            counter += op.span();
            (id, op)
        })
    }

    /// The encoded change, header and ops.
    #[must_use]
    pub const fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }
}
