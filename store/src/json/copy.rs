//! Import as a copy: every entry gets a new id. Links among what is copied lead to the copies, others
//! where they led.

use std::collections::HashMap;

use sds_engine::EntryId;
use sds_engine::limits::CHANGE_OPS_MAX;

use super::merge::{TARGET_IS_LINK, check_target};
use super::read::{JsonSource, records, records_within};
use super::record::{Bounds, Content, Record, Records};
use crate::error::{ImportError, StoreError};
use crate::store::DataStore;

impl DataStore {
    /// Creates a copy of an entry with all inside from its JSON ([`Entry::as_json`]), to stand at
    /// `index` in `outer`, or last. Everything gets new ids; links inside to what is inside lead to the
    /// copies, others to where they led. A value that the JSON names as kept elsewhere without saying
    /// what it is ([`DataStore::from_json`]) is left out.
    ///
    /// ```
    /// use sds_store::{DataStore, EntryId, ReplicaId};
    ///
    /// # fn main() -> Result<(), sds_store::StoreError> {
    /// let mut store = DataStore::new(ReplicaId::new(1).unwrap());
    /// let folder = store.new_item_at(None, EntryId::ROOT, None)?;
    /// store.set_label(folder, "template")?;
    /// store.new_item_at(None, folder, None)?;
    ///
    /// let template = store.entry(folder)?.as_json();
    /// let copy = store.new_entry_from_json_at(&template, EntryId::ROOT, None)?;
    /// assert_ne!(copy, folder);
    /// assert_eq!(store.entry(copy)?.label(), "template");
    /// assert_eq!(store.entry(copy)?.inner_entry_count(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`Entry::as_json`]: crate::Entry::as_json
    ///
    /// # Errors
    /// `invalid-argument` if `outer` is not an item of this store, the JSON is not that of an entry, or
    /// something passes a limit of local edits; `transaction-too-large` for more than one change may
    /// have (16 MiB). Nothing has changed then.
    pub fn new_entry_from_json_at<'a>(
        &mut self,
        json: impl Into<JsonSource<'a>>,
        outer: EntryId,
        index: Option<usize>,
    ) -> Result<EntryId, StoreError> {
        self.require_item("container", outer)?;
        // Each becomes an edit at least.
        let max = CHANGE_OPS_MAX;
        let records = records_within(json.into(), max).map_err(|error| match error {
            ImportError::TooManyEntries { .. } => StoreError::TooManyEdits { max },
            other => other.into(),
        })?;
        let made = self.transact(|store| copy(store, records, |_| true, outer, index))?;
        made.first().copied().ok_or_else(|| ImportError::NotAStore.into())
    }

    /// Creates a copy of everything in the JSON of a store ([`DataStore::as_json`]) but for what is in
    /// its Trash and Lost and Found, at the end of Root; returns the new entries in Root. Importing
    /// twice makes two copies.
    ///
    /// # Errors
    /// As for [`DataStore::new_entry_from_json_at`].
    pub fn import_json_as_copy<'a>(
        &mut self,
        json: impl Into<JsonSource<'a>>,
    ) -> Result<Vec<EntryId>, StoreError> {
        let mut records = records(json.into())?;
        if records.first().and_then(|root| root.id) != Some(EntryId::ROOT) {
            return Err(ImportError::NotAStore.into());
        }
        let root_itself = records.remove(0);
        drop(root_itself);
        for record in &mut records {
            record.parent = record.parent.and_then(|parent| parent.checked_sub(1));
        }
        let is_wanted = |record: &Record| !record.id.is_some_and(|id| id.is_well_known());
        self.transact(|store| copy(store, records, is_wanted, EntryId::ROOT, None))
    }
}

/// Copies the wanted among the outermost records, with what is inside them, one behind the other.
fn copy(
    store: &mut DataStore,
    records: Records,
    is_wanted: impl Fn(&Record) -> bool,
    outer: EntryId,
    index: Option<usize>,
) -> Result<Vec<EntryId>, StoreError> {
    let mut copying = Copying::new(&records)?;
    let first = index.unwrap_or(usize::MAX).min(store.entry(outer)?.inner_entry_count());
    // Items first, so that links know the copies of their targets; then links to their places.
    for makes_items in [true, false] {
        let mut top = first;
        for (at, record) in records.iter().enumerate() {
            let place = match record.parent {
                Some(parent) => {
                    copying.made.get(parent).copied().flatten().map(|outer| (outer, record.ordinal))
                }
                None => is_wanted(record).then_some((outer, top)),
            };
            let Some((into, ordinal)) = place else { continue };
            if record.is_item() == makes_items {
                // Of the links before it none is there yet; they push it to its place later.
                let made = copying.make(store, record, (into, ordinal))?;
                if let Some(place) = copying.made.get_mut(at) {
                    *place = Some(made);
                }
            }
            top += usize::from(record.parent.is_none());
        }
    }
    copying.check_targets(&records)?;
    let Copying { made, .. } = copying;
    let mut tops = Vec::new();
    for (record, made) in records.into_iter().zip(made) {
        let Some(made) = made else { continue };
        if record.parent.is_none() {
            tops.push(made);
        }
        record.fill(store, made, Bounds::OfEdits)?;
    }
    Ok(tops)
}

struct Copying {
    /// The copy of each record.
    made: Vec<Option<EntryId>>,
    /// The record of each id.
    by_id: HashMap<EntryId, usize>,
}

impl Copying {
    fn new(records: &[Box<Record>]) -> Result<Self, ImportError> {
        let mut by_id = HashMap::new();
        for (at, record) in records.iter().enumerate() {
            if let Some(id) = record.id
                && by_id.insert(id, at).is_some()
            {
                return Err(ImportError::DuplicateId(id));
            }
        }
        Ok(Self { made: vec![None; records.len()], by_id })
    }

    fn make(
        &self,
        store: &mut DataStore,
        record: &Record,
        (outer, index): (EntryId, usize),
    ) -> Result<EntryId, StoreError> {
        let Content::Link { target } = record.content else {
            return store.edit(|replica| replica.create_item(outer, index));
        };
        let copied = self.by_id.get(&target).and_then(|at| self.made.get(*at).copied().flatten());
        let target = copied.unwrap_or(target);
        check_target(store, target)?;
        store.edit(|replica| replica.create_link_unchecked(target, outer, index))
    }

    /// That no link was to lead to one that was copied too. Items are copied first, so a link that came
    /// before its target leads elsewhere.
    fn check_targets(&self, records: &[Box<Record>]) -> Result<(), StoreError> {
        let is_made = |at: usize| self.made.get(at).is_some_and(Option::is_some);
        let is_to_link = |(at, record): (usize, &Record)| {
            let Content::Link { target } = record.content else { return false };
            let target = self.by_id.get(&target).copied().filter(|target| is_made(*target));
            is_made(at) && target.is_some_and(|at| records.get(at).is_some_and(|to| !to.is_item()))
        };
        match records.iter().map(Box::as_ref).enumerate().any(is_to_link) {
            true => Err(TARGET_IS_LINK),
            false => Ok(()),
        }
    }
}
