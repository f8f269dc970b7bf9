//! Changes that wait to be sent, cut into patches of a size that a connection digests well.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use sds_engine::{ChangeHeader, Patch, ReplicaId, Version};

use crate::limits::{PATCH_BYTES_GOAL, PATCH_CHANGES_MAX};

/// A queue of encoded changes. It shares their bytes with the log that they come from.
#[derive(Debug, Default)]
pub struct Outbox {
    changes: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    replica: ReplicaId,
    end: u64,
    change: Arc<[u8]>,
}

impl Outbox {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a change, with its header, behind the others.
    pub fn push(&mut self, header: &ChangeHeader, change: Arc<[u8]>) {
        self.changes.push_back(Waiting { replica: header.replica, end: header.end(), change });
    }

    /// Takes changes out as one patch of about [`PATCH_BYTES_GOAL`] and at most
    /// [`PATCH_CHANGES_MAX`], and notes them in `sent`.
    ///
    /// A change beyond that size comes alone.
    pub fn next_patch(&mut self, sent: &mut Version) -> Option<Bytes> {
        let mut size = 0;
        let mut count = 0;
        for waiting in self.changes.iter().take(PATCH_CHANGES_MAX) {
            size += waiting.change.len();
            if count > 0 && size > PATCH_BYTES_GOAL {
                break;
            }
            count += 1;
        }
        if count == 0 {
            return None;
        }
        let taken: Vec<_> = self.changes.drain(..count).collect();
        for waiting in &taken {
            sent.advance(waiting.replica, waiting.end);
        }
        Some(Patch::pack(taken.iter().map(|waiting| &*waiting.change)).into())
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Panics unless the queue leads from `sent` to `queued` without a gap.
    pub fn assert_invariants(&self, sent: &Version, queued: &Version) {
        let mut reached = sent.clone();
        for waiting in &self.changes {
            let header =
                ChangeHeader::decode(&waiting.change).expect("S2: the outbox holds changes");
            assert_eq!((header.replica, header.end()), (waiting.replica, waiting.end));
            assert_eq!(reached.next(header.replica), header.start, "S2: no gap, no repetition");
            for dep in &header.deps {
                assert!(reached.has(*dep), "S2: after what it builds on");
            }
            reached.advance(header.replica, header.end());
        }
        assert_eq!(&reached, queued, "S2: the outbox ends at what is queued");
    }
}

#[cfg(test)]
mod tests {
    use sds_engine::{Change, Op};

    use super::*;
    use crate::limits::PATCH_BYTES_MAX;

    #[test]
    fn no_patch_is_beyond_what_a_relay_takes() {
        let author = ReplicaId::new(1).unwrap();
        let total = 2 * PATCH_CHANGES_MAX + 1;
        let mut outbox = Outbox::new();
        for start in 0..total as u64 {
            let change = Change::new(author, start, vec![], &[Op::Skip { count: 1 }]).unwrap();
            outbox.push(change.header(), Arc::clone(change.bytes()));
        }
        let mut sent = Version::new();
        let mut counts = Vec::new();
        while let Some(patch) = outbox.next_patch(&mut sent) {
            assert!(patch.len() <= PATCH_BYTES_MAX);
            counts.push(Patch::count(&patch).unwrap());
        }
        assert_eq!(counts, [PATCH_CHANGES_MAX, PATCH_CHANGES_MAX, 1]);
    }
}
