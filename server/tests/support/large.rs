//! Changes that are large.

use sds_engine::{Change, EntryId, Field, Life, Op, ReplicaId, Value};

/// A change with a text of so many bytes, which builds on nothing.
pub(crate) fn large_change(author: u64, start: u64, bytes: usize) -> Change {
    let (entry, life, field) = (EntryId::ROOT, Life::FIRST, Field::Label);
    let set = Op::Set { entry, life, field, value: Value::Text("x".repeat(bytes)) };
    Change::new(ReplicaId::new(author).unwrap(), start, Vec::new(), &[set]).unwrap()
}
