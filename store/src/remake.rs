//! Going on under another replica id, when the file of a store turned out to be a copy.

use std::collections::BTreeSet;
use std::sync::Arc;

use sds_engine::{
    Change, ChangeHeader, IntegrateError, OpId, Patch, Remake, Replica, ReplicaId, Version,
};

use crate::error::StoreError;
use crate::store::DataStore;

/// How many changes are packed at a time.
const CHANGES_AT_A_TIME: usize = 4_096;

/// Why changes cannot be made again. Nothing has changed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemakeError {
    /// The store knows some changes only by what they led to, so it cannot do without others.
    #[error("the changes that led to this store are not all here")]
    HistoryMissing,
    /// Somebody else builds on a change that was to be made again.
    #[error("{0:?} was made again, and somebody else builds on it")]
    BuiltUpon(OpId),
    /// A change could not be read or taken in again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DataStore {
    /// Counter of the next edit: what is to be kept beside the store so that ids which were given
    /// out in vain are not given out again. See [`DataStore::resume_at`].
    #[must_use]
    pub fn next_counter(&self) -> u64 {
        self.replica().next_counter()
    }

    /// Gives out no id below the counter `next`.
    pub fn resume_at(&mut self, next: u64) {
        self.replica_mut().resume_at(next);
    }

    /// Goes on as the author `to`, who has made nothing yet. Steps to undo are forgotten. Costs the
    /// store.
    ///
    /// # Errors
    /// [`StoreError::NotIntegrated`] inside a transaction; [`StoreError::Unreadable`] if the store
    /// cannot read its own snapshot.
    pub fn go_on_as(&mut self, to: ReplicaId) -> Result<(), StoreError> {
        self.check_no_transaction()?;
        let replica = Replica::from_snapshot(to, &self.replica().snapshot())?;
        self.replace_replica(replica);
        Ok(())
    }

    /// Makes the changes for which `is_former` holds again, as the author `to`, who has made nothing
    /// yet: their edits stay, with other ids, for entries too. Nobody else may have them. Steps to undo
    /// are forgotten, and handlers hear nothing: whoever shows the store looks at it anew. Costs the
    /// whole history. Returns what the entries are called now.
    ///
    /// # Errors
    /// Any [`RemakeError`].
    pub fn remake_as(
        &mut self,
        to: ReplicaId,
        is_former: impl Fn(&ChangeHeader) -> bool,
    ) -> Result<Remake, RemakeError> {
        self.check_no_transaction()?;
        let changes = self.changes_since(&Version::new()).ok_or(RemakeError::HistoryMissing)?;
        let mut replica = Replica::new(to);
        let mut remake = Remake::new(to);
        for some in changes.chunks(CHANGES_AT_A_TIME) {
            let mut changes = Vec::with_capacity(some.len());
            for bytes in some {
                let change = Change::decode(bytes).map_err(StoreError::from)?;
                let header = change.header();
                if is_former(header) {
                    changes.push(remake.change(&change).map_err(StoreError::from)?);
                } else if let Some(op) = builds_on(header).find(|op| remake.op(*op) != *op) {
                    return Err(RemakeError::BuiltUpon(op));
                } else {
                    changes.push(change);
                }
            }
            let patch = Patch::pack(changes.iter().map(|change| &**change.bytes()));
            let patch = Patch::decode(&patch).map_err(StoreError::from)?;
            replica.integrate(patch).map_err(StoreError::from)?;
        }
        self.replace_replica(replica);
        Ok(remake)
    }

    /// Puts the history of `base`, another copy of this store, in the place of its own. What `base` lacks
    /// stays, as it is if it can: what `is_former` holds for, what `base` has another change in the
    /// place of, and what builds on either, is made again, as the author `to`, who has made nothing yet.
    /// Of a change that was made again already, and is in `base`, `known_as` says the first op.
    /// Otherwise as [`remake_as`](Self::remake_as).
    ///
    /// # Errors
    /// Any [`RemakeError`] but [`RemakeError::BuiltUpon`].
    pub fn rebase_as(
        &mut self,
        to: ReplicaId,
        base: &Self,
        is_former: impl Fn(&ChangeHeader) -> bool,
        known_as: impl Fn(OpId) -> Option<OpId>,
    ) -> Result<Remake, RemakeError> {
        self.check_no_transaction()?;
        let all = |store: &Self| store.changes_since(&Version::new());
        let own = all(self).ok_or(RemakeError::HistoryMissing)?;
        let theirs = all(base).ok_or(RemakeError::HistoryMissing)?;
        let theirs: BTreeSet<Arc<[u8]>> = theirs.into_iter().collect();
        let mut remake = Remake::new(to);
        let mut lacking: Vec<Change> = Vec::new();
        for bytes in own {
            if theirs.contains(&bytes) {
                continue;
            }
            let change = Change::decode(&bytes).map_err(StoreError::from)?;
            let header = change.header();
            let first = OpId { replica: header.replica, counter: header.start };
            if let Some(now) = known_as(first) {
                remake.note(header, now);
                continue;
            }
            let is_taken = header.start < base.version().next(header.replica);
            let is_renamed = || builds_on(header).any(|op| remake.op(op) != op);
            let must_change = is_former(header) || is_taken || is_renamed();
            lacking.push(if must_change {
                remake.change(&change).map_err(StoreError::from)?
            } else {
                change
            });
        }
        let mut replica =
            Replica::from_snapshot(to, &base.replica().snapshot()).map_err(StoreError::from)?;
        for some in lacking.chunks(CHANGES_AT_A_TIME) {
            let patch = Patch::pack(some.iter().map(|change| &**change.bytes()));
            let patch = Patch::decode(&patch).map_err(StoreError::from)?;
            replica.integrate(patch).map_err(StoreError::from)?;
        }
        self.replace_replica(replica);
        Ok(remake)
    }

    fn check_no_transaction(&self) -> Result<(), StoreError> {
        if self.replica().is_in_transaction() {
            return Err(IntegrateError::TransactionOpen.into());
        }
        Ok(())
    }
}

/// What a change builds on: its deps, and its author's previous change.
fn builds_on(header: &ChangeHeader) -> impl Iterator<Item = OpId> + '_ {
    let previous = header.start.checked_sub(1);
    let previous = previous.map(|counter| OpId { replica: header.replica, counter });
    header.deps.iter().copied().chain(previous)
}
