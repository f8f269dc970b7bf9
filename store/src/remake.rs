//! Going on under another replica id, when the file of a store turned out to be a copy.

use std::collections::BTreeSet;
use std::sync::Arc;

use sds_engine::{
    Change, ChangeHeader, IntegrateError, NewEntry, Op, OpId, Patch, Remake, Replica, ReplicaId,
    Version,
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

/// What becomes of a change that another copy of the store lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays, as it is if it can.
    Stays,
    /// It is made again.
    MadeAgain,
    /// It was made again before, as one that begins with this op.
    MadeBefore(OpId),
    /// It goes, unless one that stays or is made again refers to something of it: then it stays.
    LeftOut,
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
        self.set_replica(replica);
        Ok(())
    }

    /// Makes the changes for which `is_former` holds again, as the author `to`, who has made nothing
    /// yet: their edits stay, with other ids, for entries too. Nobody else may have them. Steps to undo
    /// are forgotten. Handlers hear of what reads differently as of a patch: an entry with another id is
    /// one that is gone and one that is new. Costs the whole history. Returns what the entries are called now.
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

    /// Puts the history of `base`, another copy of this store, in the place of its own. Of `lacking`, its own
    /// changes that `base` has not, in an order in which each comes after those it builds on, `fate` says
    /// what becomes of them. What builds on a change that has another name then, and what `base` has another
    /// change in the place of, is made again in any case, as the author `to`, who has made nothing yet.
    /// Otherwise as [`remake_as`](Self::remake_as).
    ///
    /// # Errors
    /// Any [`RemakeError`] but [`RemakeError::BuiltUpon`].
    pub fn rebase_as(
        &mut self,
        to: ReplicaId,
        base: &Self,
        lacking: &[Arc<[u8]>],
        fate: impl Fn(&ChangeHeader) -> Fate,
    ) -> Result<Remake, RemakeError> {
        self.check_no_transaction()?;
        let lacking: Result<Vec<Change>, _> =
            lacking.iter().map(|bytes| Change::decode(bytes)).collect();
        let lacking = lacking.map_err(StoreError::from)?;
        let fates = fates(&lacking, fate);
        let mut remake = Remake::new(to);
        let mut added: Vec<Change> = Vec::new();
        for (change, fate) in lacking.into_iter().zip(fates) {
            let header = change.header();
            let must_change = match fate {
                Fate::LeftOut => {
                    remake.forget(header);
                    continue;
                }
                Fate::MadeBefore(now) => {
                    remake.note(header, now);
                    continue;
                }
                Fate::MadeAgain => true,
                Fate::Stays => {
                    let is_taken = header.start < base.version().next(header.replica);
                    let is_renamed = |op| remake.op(op) != op || remake.is_forgotten(op);
                    is_taken || builds_on(header).any(is_renamed)
                }
            };
            added.push(if must_change {
                remake.change(&change).map_err(StoreError::from)?
            } else {
                change
            });
        }
        let mut replica =
            Replica::from_snapshot(to, &base.replica().snapshot()).map_err(StoreError::from)?;
        for some in added.chunks(CHANGES_AT_A_TIME) {
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

/// The fates of changes in order.
fn fates(changes: &[Change], fate: impl Fn(&ChangeHeader) -> Fate) -> Vec<Fate> {
    let mut fates: Vec<Fate> = changes.iter().map(|change| fate(change.header())).collect();
    if fates.contains(&Fate::LeftOut) {
        let mut needed: BTreeSet<(ReplicaId, u64)> = BTreeSet::new();
        for (change, fate) in changes.iter().zip(&mut fates).rev() {
            let header = change.header();
            let own = (header.replica, header.start)..(header.replica, header.end());
            let is_needed = needed.range(own).next().is_some();
            match fate {
                Fate::LeftOut if !is_needed => continue,
                Fate::MadeBefore(_) => continue,
                Fate::LeftOut => *fate = Fate::Stays,
                Fate::Stays | Fate::MadeAgain => {}
            }
            needed.extend(
                change.ops().iter().flat_map(references).map(|op| (op.replica, op.counter)),
            );
            match fate {
                // Only who makes it can leave out what it builds on.
                Fate::Stays => needed.extend(builds_on(header).map(|op| (op.replica, op.counter))),
                _ => needed.extend(previous(header).map(|op| (op.replica, op.counter))),
            }
        }
    }
    fates
}

/// What an op refers to: what created its entry and its container, and characters.
fn references(op: &Op) -> impl Iterator<Item = OpId> {
    let (mut container, mut text) = (None, [None; 3]);
    let mut target = None;
    match op {
        Op::Create { parent, kind, .. } => {
            container = Some(*parent);
            target = if let NewEntry::Link { target } = kind { Some(*target) } else { None };
        }
        Op::Move { parent, .. } | Op::Reorder { parent, .. } => {
            container = Some(*parent);
        }
        Op::Insert { set, origin, .. } => text = [Some(*set), *origin, None],
        Op::Delete { set, range, .. } => {
            let last = range.first.counter.saturating_add(range.len.saturating_sub(1));
            text = [Some(*set), Some(range.first), Some(OpId { counter: last, ..range.first })];
        }
        Op::Set { .. } | Op::Purge { .. } | Op::Revive { .. } | Op::Skip { .. } => {}
    }
    let entry = op.subject().map(|(entry, _)| entry);
    let entries = entry.into_iter().chain(container).chain(target);
    entries.filter_map(|entry| entry.creator()).chain(text.into_iter().flatten())
}

/// What a change builds on: its deps, and its author's previous change.
fn builds_on(header: &ChangeHeader) -> impl Iterator<Item = OpId> + '_ {
    header.deps.iter().copied().chain(previous(header))
}

/// The last op that the author made before.
fn previous(header: &ChangeHeader) -> Option<OpId> {
    let counter = header.start.checked_sub(1)?;
    Some(OpId { replica: header.replica, counter })
}
