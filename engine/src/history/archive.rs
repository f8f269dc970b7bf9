//! The changes that a snapshot brought, still packed: they are unpacked when somebody asks for
//! history.

use std::sync::OnceLock;

use hashbrown::HashMap;

use super::author_log::{AuthorLog, Sealed};
use crate::id::ReplicaId;
use crate::replica::Replica;

/// The log of a snapshot, which only its state makes whole.
#[derive(Debug)]
pub(super) struct Archive {
    snapshot: Vec<u8>,
    blocks: OnceLock<HashMap<ReplicaId, Vec<Sealed>>>,
}

impl Archive {
    pub(super) const fn new(snapshot: Vec<u8>) -> Self {
        Self { snapshot, blocks: OnceLock::new() }
    }

    /// The blocks of an author from one counter to another; nothing if they are not all here, which
    /// only who forged the snapshot can bring about.
    pub(super) fn blocks(
        &self,
        author: ReplicaId,
        (from, to): (u64, u64),
        log: &AuthorLog,
    ) -> Option<&[Sealed]> {
        let blocks = self.blocks.get_or_init(|| unpack_blocks(&self.snapshot));
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

fn unpack_blocks(snapshot: &[u8]) -> HashMap<ReplicaId, Vec<Sealed>> {
    let mut blocks: HashMap<ReplicaId, Vec<Sealed>> = HashMap::new();
    let read = Replica::unpack_log(snapshot, |batch| {
        let author = batch.author;
        for (start, end, block) in batch.into_blocks() {
            blocks.entry(author).or_default().push(Sealed { start, end, block });
        }
    });
    // Only a forged snapshot cannot be read.
    if read.is_ok() { blocks } else { HashMap::new() }
}
