//! Which changes count, and when they were made: the Lamport time of each.

use std::collections::BTreeMap;

use sds_engine::{Change, Op, OpId, ReplicaId, Stamp, Version};

/// The changes that could be integrated, each with its Lamport time.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By author and first counter.
    integrated: BTreeMap<(ReplicaId, u64), (u64, Change)>,
    waiting: Vec<Change>,
}

impl History {
    /// Takes the changes one after the other, until no further one has all that it builds on.
    #[must_use]
    pub fn of(changes: &[Change]) -> Self {
        let mut history = Self { integrated: BTreeMap::new(), waiting: changes.to_vec() };
        loop {
            let before = history.waiting.len();
            for change in std::mem::take(&mut history.waiting) {
                history.add(change);
            }
            if history.waiting.len() == before {
                return history;
            }
        }
    }

    /// Every op with its stamp, in no particular order.
    pub fn ops(&self) -> impl Iterator<Item = (Stamp, Op)> + '_ {
        self.integrated.values().flat_map(|(lamport, change)| {
            change.numbered_ops().map(|(id, op)| {
                let stamp = Stamp { lamport: *lamport, replica: id.replica, counter: id.counter };
                (stamp, op.clone())
            })
        })
    }

    /// Which ops are integrated.
    #[must_use]
    pub fn version(&self) -> Version {
        let mut version = Version::new();
        for (_, change) in self.integrated.values() {
            version.advance(change.header().replica, change.header().end());
        }
        version
    }

    /// The changes that wait for others.
    #[must_use]
    pub fn waiting(&self) -> &[Change] {
        &self.waiting
    }

    /// The integrated changes, by author.
    pub fn integrated(&self) -> impl Iterator<Item = &Change> {
        self.integrated.values().map(|(_, change)| change)
    }

    fn add(&mut self, change: Change) {
        let header = change.header();
        let key = (header.replica, header.start);
        if self.integrated.contains_key(&key) {
            return;
        }
        match self.lamport(&change) {
            Some(lamport) => {
                self.integrated.insert(key, (lamport, change));
            }
            None => self.waiting.push(change),
        }
    }

    /// One more than the greatest time among the change's deps and its author's previous change.
    fn lamport(&self, change: &Change) -> Option<u64> {
        let header = change.header();
        let previous = (header.start > 0)
            .then(|| OpId { replica: header.replica, counter: header.start.saturating_sub(1) });
        let mut greatest = 0;
        for seen in header.deps.iter().copied().chain(previous) {
            greatest = greatest.max(self.time_of(seen)?);
        }
        Some(greatest + 1)
    }

    /// The Lamport time of the change that took `op`'s counter.
    fn time_of(&self, op: OpId) -> Option<u64> {
        let (_, (lamport, change)) =
            self.integrated.range(..=(op.replica, op.counter)).next_back()?;
        let header = change.header();
        (header.replica == op.replica && op.counter < header.end()).then_some(*lamport)
    }
}
