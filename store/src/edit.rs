//! Creating, moving and ordering entries. Every edit outside a transaction is one by itself.
//!
//! All edits reach the engine through `DataStore::edit`. An index is the *final* one: afterwards the
//! entry stands at it, or last if fewer are there.

mod checks;
mod finite;
mod info;
mod text;

use sds_engine::{EditError, EntryId, NewEntry};

use crate::error::StoreError;
use crate::store::DataStore;
pub(crate) use checks::check_depth;

impl DataStore {
    /// Creates an item of a MIME type (`text/plain` if none) inside `outer`, to stand at `index`, or
    /// last if there is none or fewer are there. Indexes in Root count Trash and Lost and Found.
    ///
    /// # Errors
    /// `invalid-argument` if `outer` is not an item of this store or the type is empty or too long.
    pub fn new_item_at(
        &mut self,
        mime_type: Option<&str>,
        outer: EntryId,
        index: Option<usize>,
    ) -> Result<EntryId, StoreError> {
        self.require_item("container", outer)?;
        self.transact(|store| {
            let index = index.unwrap_or(usize::MAX);
            let item = store.edit(|replica| replica.create_item(outer, index))?;
            if let Some(mime_type) = mime_type {
                store.set_mime_type(item, mime_type)?;
            }
            Ok(item)
        })
    }

    /// Creates a link to the item `target` inside `outer`, to stand at `index`, or last. A link may
    /// point to Root, to the item that it is in, or to one further out; its target never changes.
    ///
    /// # Errors
    /// `invalid-argument` if `target` or `outer` is not an item of this store.
    pub fn new_link_at(
        &mut self,
        target: EntryId,
        outer: EntryId,
        index: Option<usize>,
    ) -> Result<EntryId, StoreError> {
        self.require_item("target", target)?;
        self.require_item("container", outer)?;
        let index = index.unwrap_or(usize::MAX);
        self.edit(|replica| replica.create_link(target, outer, index))
    }

    /// Moves an entry into `outer`, to stand at `index` afterwards, or last. Out of Trash, it is
    /// restored.
    ///
    /// # Errors
    /// `not-found` for an unknown entry, `invalid-argument` if `outer` is not an item,
    /// `move-would-cycle` for system entries and for a container inside the entry.
    pub fn move_entry_to(
        &mut self,
        entry: EntryId,
        outer: EntryId,
        index: Option<usize>,
    ) -> Result<(), StoreError> {
        self.entry_may_be_moved_to(entry, outer)?;
        let index = index.unwrap_or(usize::MAX);
        self.edit(|replica| replica.move_to(entry, outer, index))
    }

    /// Whether [`DataStore::move_entry_to`] would move `entry` into `outer`.
    ///
    /// # Errors
    /// What it would say.
    pub fn entry_may_be_moved_to(&self, entry: EntryId, outer: EntryId) -> Result<(), StoreError> {
        self.require_entry(entry)?;
        self.require_item("container", outer)?;
        self.replica().check_move(entry, outer).map_err(|error| match error {
            EditError::WellKnown(entry) => StoreError::MoveWouldCycle { entry, target: outer },
            other => other.into(),
        })
    }

    /// Gives the entries inside an item new order keys, far apart, without changing their order. The
    /// store does as much by itself where it runs out of room; this is for whoever wants short keys
    /// again after very many insertions. Costs the entries inside.
    ///
    /// # Errors
    /// `invalid-argument` if it is not an item of this store, `transaction-too-large` if it has more
    /// entries than one change may reorder.
    pub fn rebalance_inner_entries_of(&mut self, item: EntryId) -> Result<(), StoreError> {
        self.require_item("item", item)?;
        self.edit(|replica| replica.rebalance(item))
    }

    pub(crate) fn require_entry(&self, entry: EntryId) -> Result<(), StoreError> {
        match self.replica().is_shown(entry) {
            true => Ok(()),
            false => Err(StoreError::NotFound(entry)),
        }
    }

    /// That the entry is here, and an item.
    pub(crate) fn require_own_item(&self, entry: EntryId) -> Result<(), StoreError> {
        self.require_entry(entry)?;
        self.require_item("entry", entry)
    }

    pub(crate) fn require_item(
        &self,
        what: &'static str,
        entry: EntryId,
    ) -> Result<(), StoreError> {
        match self.replica().kind(entry) {
            Some(NewEntry::Item) => Ok(()),
            _ => Err(StoreError::InvalidArgument { what, rule: "must be an item of this store" }),
        }
    }
}
