//! The log of integrated changes: who made what, when, and the bytes to pass on.
//!
//! Invariants, checked by `assert_invariants`:
//! - H1. The changes of a replica follow each other without gaps, from counter zero.
//! - H2. A change's Lamport time is one more than the greatest among its deps and its author's
//!   previous change.
//! - H3. `heads` are the last ops of exactly the changes that no other change builds on.
//!
//! Cost: finding the change of an op is a binary search; an export costs what it returns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::change::{Change, ChangeHeader};
use crate::id::{OpId, ReplicaId, Stamp};
use crate::version::Version;

#[derive(Clone, Debug)]
struct LoggedChange {
    start: u64,
    end: u64,
    lamport: u64,
    bytes: Arc<[u8]>,
}

/// How a change that arrives relates to those already here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing of it is here.
    New,
    /// This very change is here.
    Known,
    /// Another change is here under its ids.
    Forked,
}

/// All integrated changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    logs: BTreeMap<ReplicaId, Vec<LoggedChange>>,
    version: Version,
    heads: BTreeMap<ReplicaId, u64>,
    /// The greatest Lamport time of all.
    newest: u64,
}

impl History {
    /// How a change relates to the log.
    pub(crate) fn standing(&self, change: &Change) -> Standing {
        let header = change.header();
        if header.start >= self.version.next(header.replica) {
            return Standing::New;
        }
        match self.logged(OpId { replica: header.replica, counter: header.start }) {
            Some(logged) if logged.bytes == *change.bytes() => Standing::Known,
            _ => Standing::Forked,
        }
    }

    /// Adds a change that is ready, and returns its Lamport time.
    pub(crate) fn append(&mut self, change: &Change) -> u64 {
        let header = change.header();
        let lamport = self.lamport_on(header);
        self.newest = lamport.max(self.newest);
        for dep in &header.deps {
            if self.heads.get(&dep.replica) == Some(&dep.counter) {
                self.heads.remove(&dep.replica);
            }
        }
        self.heads.insert(header.replica, header.last().counter);
        self.version.advance(header.replica, header.end());
        let (start, end, bytes) = (header.start, header.end(), change.bytes().clone());
        let log = self.logs.entry(header.replica).or_default();
        log.push(LoggedChange { start, end, lamport, bytes });
        lamport
    }

    /// The Lamport time of a change made on top of everything here.
    pub(crate) const fn next_lamport(&self) -> u64 {
        self.newest + 1
    }

    /// What `replica` has seen of others: the last ops of the changes that no other builds on.
    pub(crate) fn deps_of(&self, replica: ReplicaId) -> BTreeMap<ReplicaId, u64> {
        let mut deps = self.heads.clone();
        deps.remove(&replica);
        deps
    }

    /// The Lamport time of the change that holds `op`; zero if it is not here.
    pub(crate) fn lamport(&self, op: OpId) -> u64 {
        self.logged(op).map_or(0, |logged| logged.lamport)
    }

    /// The stamp of an op that is here.
    pub(crate) fn stamp(&self, op: OpId) -> Stamp {
        Stamp { lamport: self.lamport(op), replica: op.replica, counter: op.counter }
    }

    /// Which ops are here.
    pub(crate) const fn version(&self) -> &Version {
        &self.version
    }

    /// The changes that `since` lacks, in an order in which each can be integrated at once.
    pub(crate) fn since(&self, since: &Version) -> Vec<&Arc<[u8]>> {
        let mut missing = Vec::new();
        for (replica, log) in &self.logs {
            let known = log.partition_point(|change| change.end <= since.next(*replica));
            let newer = log.iter().skip(known);
            missing.extend(newer.map(|change| (change.lamport, *replica, change)));
        }
        // Whatever a change builds on has a smaller Lamport time.
        missing.sort_by_key(|(lamport, replica, change)| (*lamport, *replica, change.start));
        missing.into_iter().map(|(_, _, change)| &change.bytes).collect()
    }

    fn lamport_on(&self, header: &ChangeHeader) -> u64 {
        let log = self.logs.get(&header.replica);
        let own = log.and_then(|log| log.last()).map(|last| last.lamport);
        let deps = header.deps.iter().map(|dep| self.lamport(*dep));
        1 + deps.chain(own).max().unwrap_or(0)
    }

    fn logged(&self, op: OpId) -> Option<&LoggedChange> {
        let log = self.logs.get(&op.replica)?;
        let at = log.partition_point(|change| change.end <= op.counter);
        log.get(at).filter(|change| change.start <= op.counter)
    }

    /// Panics if H1 to H3 do not hold.
    pub(crate) fn assert_invariants(&self) {
        let mut replay = Self::default();
        let mut built_on = BTreeSet::new();
        for bytes in self.since(&Version::new()) {
            let change = Change::decode(bytes).expect("H1: a logged change is well formed");
            let header = change.header();
            assert_eq!(replay.version.next(header.replica), header.start, "H1: {header:?}");
            assert!(header.deps.iter().all(|dep| replay.version.has(*dep)), "H2: {header:?}");
            let lamport = replay.append(&change);
            assert_eq!(lamport, self.lamport(change.header().last()), "H2");
            built_on.extend(change.header().deps.iter().map(|dep| (dep.replica, dep.counter)));
        }
        assert_eq!(replay.version, self.version, "H1");
        assert_eq!(replay.newest, self.newest, "H2");
        for (replica, counter) in &self.heads {
            assert_eq!(self.version.next(*replica), counter + 1, "H3: only a last op is a head");
            assert!(!built_on.contains(&(*replica, *counter)), "H3: {replica:?}@{counter}");
        }
        for (replica, next) in self.version.iter() {
            let is_head = self.heads.contains_key(&replica);
            assert!(is_head || built_on.contains(&(replica, next - 1)), "H3: {replica:?} is lost");
        }
    }
}
