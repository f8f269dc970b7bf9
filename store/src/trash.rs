//! Deleting, restoring, purging, and what protects from being purged.
//!
//! An entry directly in Trash is *protected* while a link to something inside it is in sight: a link
//! outside Trash, or one inside another entry in Trash that is protected itself. So purging never
//! takes away what somebody still sees. Links inside the entry itself do not protect it, nor do two
//! entries in Trash that only link to each other.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sds_engine::{EntryId, Replica, Timestamp};

use crate::error::StoreError;
use crate::store::DataStore;

impl DataStore {
    /// Deletes an entry: moves it, with everything inside, to the end of Trash, and notes the time
    /// (info key `_trashedAt`). Deleting what is in Trash renews the time; what is deeper inside is
    /// lifted out. [`DataStore::move_entry_to`] restores it.
    ///
    /// ```
    /// use sds_store::{DataStore, EntryId, ReplicaId, Timestamp};
    ///
    /// # fn main() -> Result<(), sds_store::StoreError> {
    /// let mut store = DataStore::new(ReplicaId::new(1).unwrap());
    /// let note = store.new_item_at(None, EntryId::ROOT, None)?;
    /// store.delete_entry(note, Timestamp::from_millis(1_700_000_000_000))?;
    /// assert!(store.entry(note)?.is_in_trash());
    ///
    /// store.move_entry_to(note, EntryId::ROOT, Some(0))?;
    /// assert_eq!(store.entry(note)?.trashed_at(), None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `not-found` for an unknown entry, `delete-not-permitted` for a system entry.
    pub fn delete_entry(&mut self, entry: EntryId, now: Timestamp) -> Result<(), StoreError> {
        self.entry_may_be_deleted(entry)?;
        self.edit(|replica| replica.trash(entry, now))
    }

    /// Whether [`DataStore::delete_entry`] would delete the entry.
    ///
    /// # Errors
    /// What it would say.
    pub fn entry_may_be_deleted(&self, entry: EntryId) -> Result<(), StoreError> {
        self.require_entry(entry)?;
        match entry.is_well_known() {
            true => Err(StoreError::DeleteNotPermitted(entry)),
            false => Ok(()),
        }
    }

    /// Ends the life of an entry directly in Trash, and of everything inside it, for good. It beats
    /// whatever others do to them at the same time; what others put inside meanwhile shows in Lost and
    /// Found. Costs what is inside, and the links to it.
    ///
    /// ```
    /// use sds_store::{DataStore, EntryId, ReplicaId, Timestamp};
    ///
    /// # fn main() -> Result<(), sds_store::StoreError> {
    /// let mut store = DataStore::new(ReplicaId::new(1).unwrap());
    /// let note = store.new_item_at(None, EntryId::ROOT, None)?;
    /// let link = store.new_link_at(note, EntryId::ROOT, None)?;
    /// let now = Timestamp::from_millis(1_700_000_000_000);
    /// store.delete_entry(note, now)?;
    /// assert_eq!(store.purge_entry(note).unwrap_err().code(), "purge-protected");
    ///
    /// store.delete_entry(link, now)?;
    /// store.purge_entry(note)?;
    /// assert!(store.entry_with_id(note).is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `not-found` for an unknown entry, `purge-not-in-trash` unless it is directly in Trash,
    /// `purge-protected`, `transaction-too-large` if more is inside than one change may name (about a
    /// million entries), and [`StoreError::OutOfIds`] if it was purged and revived so often (2^30 times)
    /// that nothing can purge it any more.
    pub fn purge_entry(&mut self, entry: EntryId) -> Result<(), StoreError> {
        self.entry_may_be_purged(entry)?;
        self.edit(|replica| replica.purge(entry))
    }

    /// Whether [`DataStore::purge_entry`] would purge the entry.
    ///
    /// # Errors
    /// What it would say.
    pub fn entry_may_be_purged(&self, entry: EntryId) -> Result<(), StoreError> {
        self.require_entry(entry)?;
        if self.replica().parent(entry) != Some(EntryId::TRASH) {
            return Err(StoreError::PurgeNotInTrash(entry));
        }
        match is_protected(self.replica(), entry) {
            true => Err(StoreError::PurgeProtected(entry)),
            false => Ok(()),
        }
    }

    /// Purges what was deleted at least `ttl` before `now`, or as long before as the store's options
    /// say if none is given; nothing if they say zero. What is protected stays, and so does what was
    /// moved into Trash rather than deleted. Returns how many entries directly in Trash were purged.
    ///
    /// The store has no clock: whoever has one calls this every
    /// [`check_interval`](crate::StoreOptions::check_interval). Costs what is in Trash.
    ///
    /// # Errors
    /// `transaction-too-large` for a single entry with more inside than one change may name, or
    /// [`StoreError::OutOfIds`] for one that was purged and revived so often that nothing can purge it
    /// any more; the others are purged then.
    pub fn purge_expired_trash_entries(
        &mut self,
        now: Timestamp,
        ttl: Option<Duration>,
    ) -> Result<usize, StoreError> {
        let configured = || Some(self.options().trash_ttl).filter(|ttl| !ttl.is_zero());
        let Some(ttl) = ttl.or_else(configured) else { return Ok(0) };
        let replica = self.replica();
        let is_expired = |entry: &EntryId| {
            let age = replica.trashed_at(*entry).map(|at| age_millis(at, now));
            age.is_some_and(|age| age >= i128::try_from(ttl.as_millis()).unwrap_or(i128::MAX))
        };
        let expired = replica.children(EntryId::TRASH).filter(is_expired).collect();
        self.purge_unprotected(expired)
    }

    /// Purges everything in Trash but what is protected, and returns how many entries directly in
    /// Trash that were. Costs what is in Trash.
    ///
    /// # Errors
    /// As for [`DataStore::purge_expired_trash_entries`].
    pub fn purge_all_trash_entries(&mut self) -> Result<usize, StoreError> {
        let all = self.replica().children(EntryId::TRASH).collect();
        self.purge_unprotected(all)
    }

    /// The entries directly in Trash that are protected, in no particular order. Costs what is in
    /// Trash, and the links to it.
    #[must_use]
    pub fn protected_trash_entries(&self) -> HashSet<EntryId> {
        protected_entries(self.replica())
    }

    fn purge_unprotected(&mut self, mut entries: Vec<EntryId>) -> Result<usize, StoreError> {
        if entries.is_empty() {
            return Ok(0);
        }
        // What is unprotected protects nothing, so that purging some leaves the others as they are.
        let protected = self.protected_trash_entries();
        entries.retain(|entry| !protected.contains(entry));
        let together = self.transact(|store| {
            entries.iter().try_for_each(|entry| store.edit(|replica| replica.purge(*entry)))
        });
        if together.is_ok() {
            return Ok(entries.len());
        }
        let mut result = Ok(());
        for entry in &entries {
            result = self.edit(|replica| replica.purge(*entry)).and(result);
        }
        result.map(|()| entries.len())
    }
}

fn age_millis(at: Timestamp, now: Timestamp) -> i128 {
    i128::from(now.as_millis()) - i128::from(at.as_millis())
}

/// Whether a link that is in sight leads to something inside an entry directly in Trash, be it over
/// other entries in Trash. Costs these entries with what is inside them.
fn is_protected(replica: &Replica, entry: EntryId) -> bool {
    let mut tops = Tops::new(replica);
    let mut seen = HashSet::from([entry]);
    let mut rest = vec![entry];
    while let Some(top) = rest.pop() {
        for inside in subtree(replica, top) {
            for link in replica.links_to(inside) {
                match tops.of(link) {
                    None => return true,
                    Some(from) if seen.insert(from) => rest.push(from),
                    Some(_) => {}
                }
            }
        }
    }
    false
}

/// All protected entries: those to which links in sight lead, and from there the links inside these.
fn protected_entries(replica: &Replica) -> HashSet<EntryId> {
    let mut tops = Tops::new(replica);
    let mut protects: HashMap<EntryId, Vec<EntryId>> = HashMap::new();
    let (mut protected, mut rest) = (HashSet::new(), Vec::new());
    for top in replica.children(EntryId::TRASH) {
        for link in subtree(replica, top).flat_map(|inside| replica.links_to(inside)) {
            match tops.of(link) {
                Some(from) => protects.entry(from).or_default().push(top),
                None if protected.insert(top) => rest.push(top),
                None => {}
            }
        }
    }
    while let Some(top) = rest.pop() {
        for next in protects.get(&top).into_iter().flatten() {
            if protected.insert(*next) {
                rest.push(*next);
            }
        }
    }
    protected
}

/// An entry and all that shows inside it.
fn subtree(replica: &Replica, top: EntryId) -> impl Iterator<Item = EntryId> {
    let mut rest = vec![top];
    std::iter::from_fn(move || {
        let next = rest.pop()?;
        rest.extend(replica.children(next));
        Some(next)
    })
}

/// Finds the entry directly in Trash that an entry is in.
struct Tops<'a> {
    replica: &'a Replica,
    /// What is known of containers; nothing for those outside Trash.
    known: HashMap<EntryId, Option<EntryId>>,
}

impl<'a> Tops<'a> {
    fn new(replica: &'a Replica) -> Self {
        Self { replica, known: HashMap::new() }
    }

    /// The entry directly in Trash that this one is or is in; none if it is not in Trash.
    fn of(&mut self, entry: EntryId) -> Option<EntryId> {
        let mut way = Vec::new();
        let mut at = entry;
        let top = loop {
            if let Some(known) = self.known.get(&at) {
                break *known;
            }
            way.push(at);
            match self.replica.parent(at) {
                None => break None,
                Some(EntryId::TRASH) => break Some(at),
                Some(outer) => at = outer,
            }
        };
        self.known.extend(way.into_iter().map(|at| (at, top)));
        top
    }
}
