//! Changes that their author must take back and make again under another name.
//!
//! A file that was copied or restored can hold changes whose ids mean something else elsewhere. As
//! long as nobody else has them, nobody builds on them, and they can be made again: the same ops, in
//! the same order, by a replica whose name is new. Every id that such a change gave to an op, an entry
//! or a character is another one then, wherever it stands.
//!
//! Not here: which changes these are, and a replica without the former ones (`sync`).

use std::collections::BTreeMap;

use crate::change::{Change, ChangeHeader, full_deps};
use crate::error::DecodeError;
use crate::id::{EntryId, OpId, ReplicaId};
use crate::op::{IdRange, NewEntry, Op, OpView};

/// Makes changes again as those of one new replica, one after the other.
///
/// ```
/// use sds_engine::{Change, EntryId, Patch, Remake, Replica, ReplicaId, Version};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut copy = Replica::new(ReplicaId::new(1).ok_or("zero")?);
/// let note = copy.create_item(EntryId::ROOT, 0)?;
///
/// let mut remake = Remake::new(ReplicaId::new(2).ok_or("zero")?);
/// let former = Patch::decode(&copy.export(&Version::new()))?;
/// let again: Vec<Change> =
///     former.changes().map(|change| remake.change(&change)).collect::<Result<_, _>>()?;
/// let mut fresh = Replica::new(ReplicaId::new(2).ok_or("zero")?);
/// fresh.integrate(Patch::decode(&Patch::pack(again.iter().map(|change| &**change.bytes())))?)?;
/// assert!(fresh.is_shown(remake.entry(note)));
/// assert!(!fresh.is_shown(note));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Remake {
    to: ReplicaId,
    next: u64,
    /// By former author and first former counter: the former end, and the first op's new name.
    ranges: BTreeMap<(ReplicaId, u64), (u64, OpId)>,
    /// By author and first counter the ends of changes that are to be nowhere.
    forgotten: BTreeMap<(ReplicaId, u64), u64>,
}

impl Remake {
    /// Changes are to be made again by `to`, which has made none yet.
    #[must_use]
    pub const fn new(to: ReplicaId) -> Self {
        Self { to, next: 0, ranges: BTreeMap::new(), forgotten: BTreeMap::new() }
    }

    /// Makes a change again, behind those that were before. All that it builds on and that is to be
    /// made again, of whichever author, must have been. Costs the change, and for each id in it the
    /// logarithm of the number of changes.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`] if it grows past the bound of a change, since it names another
    /// replica where it named its own; [`DecodeError::Malformed`] past the greatest counter.
    pub fn change(&mut self, former: &Change) -> Result<Change, DecodeError> {
        let header = former.header();
        let start = self.next;
        let former_start = (header.replica, header.start);
        let first = OpId { replica: self.to, counter: start };
        self.ranges.insert(former_start, (header.end(), first));
        let made = self.make(former);
        match &made {
            Ok(change) => self.next = change.header().end(),
            Err(_) => {
                self.ranges.remove(&former_start);
            }
        }
        made
    }

    /// Notes that a change was made again already, as one that begins with the op `now`: what is made
    /// again from here on names it so.
    pub fn note(&mut self, former: &ChangeHeader, now: OpId) {
        self.ranges.insert((former.replica, former.start), (former.end(), now));
    }

    /// Notes that a change will be nowhere: what is made again from here on had not seen it. Nothing of that may
    /// refer to a character of it.
    pub fn forget(&mut self, former: &ChangeHeader) {
        self.forgotten.insert((former.replica, former.start), former.end());
    }

    /// Whether an op is in a change that will be nowhere.
    #[must_use]
    pub fn is_forgotten(&self, op: OpId) -> bool {
        let before = self.forgotten.range(..=(op.replica, op.counter)).next_back();
        before.is_some_and(|((replica, _), end)| *replica == op.replica && op.counter < *end)
    }

    /// The name that an op or a character has now.
    #[must_use]
    pub fn op(&self, op: OpId) -> OpId {
        self.find(op).map_or(op, |(renamed, _)| renamed)
    }

    /// The name that an entry has now.
    #[must_use]
    pub fn entry(&self, entry: EntryId) -> EntryId {
        let creator = entry.creator().and_then(|op| self.find(op));
        creator.map_or(entry, |(op, _)| EntryId::created_by(op))
    }

    fn make(&self, former: &Change) -> Result<Change, DecodeError> {
        let header = former.header();
        // What was the author's own before is somebody else's now, and no longer implied.
        let previous = header.start.checked_sub(1);
        let previous = previous.map(|counter| OpId { replica: header.replica, counter });
        let seen = header.deps.iter().copied().chain(previous);
        let seen = seen.filter(|dep| !self.is_forgotten(*dep)).map(|dep| self.op(dep));
        let mut named: Vec<OpId> = seen.filter(|dep| dep.replica != self.to).collect();
        named.sort_by_key(|dep| (dep.replica, dep.counter));
        // Of two ops of one replica the later one says both.
        named.reverse();
        named.dedup_by_key(|dep| dep.replica);
        named.reverse();
        let ops: Vec<Op> = former.ops().iter().flat_map(|op| self.rename(op)).collect();
        let references = ops.iter().flat_map(|op| OpView::of(op).references());
        let deps = full_deps(&named, references.flatten(), self.to);
        Change::new(self.to, self.next, deps, &ops)
    }

    /// The op by the new names: several if it deletes characters with both new and old ones.
    fn rename(&self, op: &Op) -> Vec<Op> {
        let mut op = op.clone();
        match &mut op {
            Op::Create { entry, kind, parent, .. } => {
                (*entry, *parent) = (self.entry(*entry), self.entry(*parent));
                if let NewEntry::Link { target } = kind {
                    *target = self.entry(*target);
                }
            }
            Op::Move { entry, parent, .. } | Op::Reorder { entry, parent, .. } => {
                (*entry, *parent) = (self.entry(*entry), self.entry(*parent));
            }
            Op::Set { entry, .. } | Op::Revive { entry, .. } => *entry = self.entry(*entry),
            Op::Insert { entry, set, origin, .. } => {
                (*entry, *set) = (self.entry(*entry), self.op(*set));
                *origin = origin.map(|origin| self.op(origin));
            }
            Op::Delete { entry, set, range, .. } => {
                (*entry, *set) = (self.entry(*entry), self.op(*set));
                let ranges = self.split(*range);
                return deletions(&op, ranges);
            }
            Op::Purge { entries } => {
                entries.iter_mut().for_each(|(entry, _)| *entry = self.entry(*entry));
            }
            Op::Skip { .. } => {}
        }
        vec![op]
    }

    /// A range of characters by their new names, in pieces that follow each other.
    fn split(&self, range: IdRange) -> Vec<IdRange> {
        let mut pieces: Vec<IdRange> = Vec::new();
        let mut at = 0;
        while at < range.len {
            let first = range.first.plus(at);
            let (renamed, ahead) = self.find(first).unwrap_or((first, self.until_next(first)));
            let len = ahead.min(range.len - at);
            match pieces.last_mut() {
                Some(last) if last.first.plus(last.len) == renamed => last.len += len,
                _ => pieces.push(IdRange { first: renamed, len }),
            }
            at += len;
        }
        pieces
    }

    /// The new name of an op that was made again, and how many go on from there.
    fn find(&self, op: OpId) -> Option<(OpId, u64)> {
        let before = self.ranges.range(..=(op.replica, op.counter)).next_back();
        let (&(replica, start), &(end, first)) = before?;
        let is_in = replica == op.replica && op.counter < end;
        let renamed = first.plus(op.counter - start.min(op.counter));
        is_in.then_some((renamed, end.saturating_sub(op.counter)))
    }

    /// How many ops from one that was not made again to the next of its author that was.
    fn until_next(&self, op: OpId) -> u64 {
        let next = self.ranges.range((op.replica, op.counter)..).next();
        let next = next.filter(|((replica, _), _)| *replica == op.replica);
        next.map_or(u64::MAX, |((_, start), _)| start - op.counter)
    }
}

/// A deletion for each of the pieces that follow each other, in the order of the keystrokes.
fn deletions(deletion: &Op, mut pieces: Vec<IdRange>) -> Vec<Op> {
    let is_backwards = matches!(deletion, Op::Delete { backwards: true, .. });
    if is_backwards {
        pieces.reverse();
    }
    let piece_of = |piece: IdRange| {
        let mut part = deletion.clone();
        if let Op::Delete { range, backwards, .. } = &mut part {
            (*range, *backwards) = (piece, is_backwards && piece.len > 1);
        }
        part
    };
    pieces.into_iter().map(piece_of).collect()
}

#[cfg(test)]
mod tests;
