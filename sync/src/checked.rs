//! What is kept of a change between its check and its append.

use std::sync::Arc;

use sds_engine::{Change, ChangeHeader, CheckedPatch, DecodeError, OpId, Patch};

/// What is in a patch that was found well formed.
#[derive(Debug)]
pub struct Contents<K> {
    /// The changes, in the order in which they were sent.
    pub changes: Vec<K>,
    /// Whether there are others that only a newer program understands.
    pub has_newer: bool,
    /// Whether there is a state.
    pub has_state: bool,
}

/// A change that was found well formed.
pub trait Checked: Sized {
    /// Reads a patch.
    ///
    /// # Errors
    /// As [`Patch::decode`].
    fn read(patch: &[u8]) -> Result<Contents<Self>, DecodeError>;

    /// The header.
    fn header(&self) -> &ChangeHeader;

    /// The encoded change, header and ops.
    fn bytes(&self) -> &Arc<[u8]>;

    /// About what it takes in memory, in bytes.
    fn memory(&self) -> usize;
}

/// With its ops, for whoever is to apply it.
impl Checked for Change {
    fn read(patch: &[u8]) -> Result<Contents<Self>, DecodeError> {
        let patch = Patch::decode(patch)?;
        let (has_newer, has_state) = (patch.newer().next().is_some(), patch.has_state());
        Ok(Contents { changes: patch.into_changes(), has_newer, has_state })
    }

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
    fn read(patch: &[u8]) -> Result<Contents<Self>, DecodeError> {
        let CheckedPatch { changes, has_newer, has_state } = Patch::check(patch)?;
        let changes = changes.into_iter().map(|(header, bytes)| Self { header, bytes });
        Ok(Contents { changes: changes.collect(), has_newer, has_state })
    }

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
