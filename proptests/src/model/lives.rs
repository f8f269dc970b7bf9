//! How often each entry was purged, whether it lives, and as what.

use std::collections::{BTreeMap, BTreeSet};

use sds_engine::{EntryId, NewEntry, Op, Stamp};

/// What a live entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It has a value and entries inside.
    Item,
    /// It points to another entry.
    Link(EntryId),
}

impl From<NewEntry> for Kind {
    fn from(kind: NewEntry) -> Self {
        match kind {
            NewEntry::Item => Self::Item,
            NewEntry::Link { target } => Self::Link(target),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Lives {
    named: BTreeSet<EntryId>,
    lives: BTreeMap<EntryId, u32>,
    alive: BTreeSet<EntryId>,
    kinds: BTreeMap<EntryId, Kind>,
}

impl Lives {
    pub(crate) fn of(ops: &[(Stamp, Op)]) -> Self {
        let mut lives = Self::default();
        ops.iter().for_each(|(_, op)| lives.count_purges(op));
        lives.alive.extend([EntryId::ROOT, EntryId::TRASH, EntryId::LOST_AND_FOUND]);
        // Only now is every `L` final, so that ops can be told to be of the present life or not.
        ops.iter().for_each(|(_, op)| lives.enliven(op));
        lives
    }

    pub(crate) const fn named(&self) -> &BTreeSet<EntryId> {
        &self.named
    }

    pub(crate) const fn alive(&self) -> &BTreeSet<EntryId> {
        &self.alive
    }

    pub(crate) fn life(&self, entry: EntryId) -> u32 {
        self.lives.get(&entry).copied().unwrap_or(0)
    }

    pub(crate) fn is_alive(&self, entry: EntryId) -> bool {
        self.alive.contains(&entry)
    }

    /// What a live entry is: a live entry that no op of this life created is an item.
    pub(crate) fn kind(&self, entry: EntryId) -> Option<Kind> {
        let kind = self.kinds.get(&entry).copied().unwrap_or(Kind::Item);
        self.is_alive(entry).then_some(kind)
    }

    pub(crate) fn is_live_item(&self, entry: EntryId) -> bool {
        self.kind(entry) == Some(Kind::Item)
    }

    fn count_purges(&mut self, op: &Op) {
        if let Some((entry, _)) = op.subject() {
            self.named.insert(entry);
        }
        if let Op::Purge { entries } = op {
            for (entry, life) in entries {
                self.named.insert(*entry);
                let over = self.lives.entry(*entry).or_default();
                *over = (*over).max(life.number() + 1);
            }
        }
    }

    /// Ops come in stamp order, so of several links the last stays; an item stays whatever comes.
    fn enliven(&mut self, op: &Op) {
        let Some((entry, life)) = op.subject() else { return };
        if life.number() != self.life(entry) {
            return;
        }
        self.alive.insert(entry);
        match op {
            Op::Create { kind: NewEntry::Item, .. } => {
                self.kinds.insert(entry, Kind::Item);
            }
            Op::Create { kind: NewEntry::Link { target }, .. }
                if self.kinds.get(&entry) != Some(&Kind::Item) =>
            {
                self.kinds.insert(entry, Kind::Link(*target));
            }
            _ => {}
        }
    }
}
