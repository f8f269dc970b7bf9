//! The changes that a snapshot brought, still packed: they are unpacked when somebody asks for
//! history.

use std::sync::OnceLock;

use hashbrown::HashMap;

use super::author_log::{AuthorLog, Sealed};
use crate::codec::{Patch, Section, unpack};
use crate::id::ReplicaId;

/// The log of a snapshot.
#[derive(Debug)]
pub(super) struct Archive {
    packed: Vec<u8>,
    blocks: OnceLock<HashMap<ReplicaId, Vec<Sealed>>>,
}

impl Archive {
    pub(super) const fn new(packed: Vec<u8>) -> Self {
        Self { packed, blocks: OnceLock::new() }
    }

    /// The blocks of an author from one counter to another; nothing if they are not all here, which
    /// only who forged the snapshot can bring about.
    pub(super) fn blocks(
        &self,
        author: ReplicaId,
        (from, to): (u64, u64),
        log: &AuthorLog,
    ) -> Option<&[Sealed]> {
        let blocks = self.blocks.get_or_init(|| unpack_blocks(&self.packed));
        let blocks = blocks.get(&author)?;
        let mut at = from;
        for sealed in blocks {
            if sealed.start != at || !log.has_boundary(sealed.end) {
                return None;
            }
            at = sealed.end;
        }
        (at == to).then_some(blocks)
    }
}

fn unpack_blocks(packed: &[u8]) -> HashMap<ReplicaId, Vec<Sealed>> {
    let patch = unpack(packed).and_then(|bytes| Patch::decode(&bytes));
    let mut blocks: HashMap<ReplicaId, Vec<Sealed>> = HashMap::new();
    for section in patch.unwrap_or_default().into_sections() {
        if let Section::Block(batch, bytes) = section {
            let sealed = Sealed { start: batch.start, end: batch.end(), block: bytes };
            blocks.entry(batch.author).or_default().push(sealed);
        }
    }
    blocks
}
