//! What is kept of a change between its check and its append.

use std::sync::Arc;

use sds_engine::{Change, ChangeHeader, OpId};

/// A change that was found well formed.
pub trait Checked: From<Change> {
    /// The header.
    fn header(&self) -> &ChangeHeader;

    /// The encoded change, header and ops.
    fn bytes(&self) -> &Arc<[u8]>;

    /// About what it takes in memory, in bytes.
    fn memory(&self) -> usize;
}

/// With its ops, for whoever is to apply it.
impl Checked for Change {
    fn header(&self) -> &ChangeHeader {
        self.header()
    }

    fn bytes(&self) -> &Arc<[u8]> {
        self.bytes()
    }

    fn memory(&self) -> usize {
        self.memory()
    }
}

/// For a log: as it came. Ops can take dozens of times their encoding, and a log does not look at them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedChange {
    header: ChangeHeader,
    bytes: Arc<[u8]>,
}

impl From<Change> for CheckedChange {
    fn from(change: Change) -> Self {
        Self { header: change.header().clone(), bytes: Arc::clone(change.bytes()) }
    }
}

impl Checked for CheckedChange {
    fn header(&self) -> &ChangeHeader {
        &self.header
    }

    fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    fn memory(&self) -> usize {
        self.bytes.len() + size_of::<Self>() + self.header.deps.len() * size_of::<OpId>()
    }
}
