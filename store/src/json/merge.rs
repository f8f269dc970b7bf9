//! Import that keeps ids: entries that are not here are created, those that are become as the JSON
//! says. Importing the same again changes nothing. What is here and not in the JSON stays.

use std::collections::HashSet;

use sds_engine::{EntryId, NewEntry, ReplicaId};

use super::info::Info;
use super::read::{JsonSource, records};
use super::record::{Bounds, Content, Record, Records, set_info};
use crate::error::{ImportError, StoreError};
use crate::options::StoreOptions;
use crate::store::DataStore;

/// About how many bytes of entries become one change where an import may be several.
const CHANGE_BYTES_GOAL: usize = 1 << 20;

/// The most entries that become one change there.
const CHANGE_ENTRIES_MAX: usize = 10_000;

impl DataStore {
    /// A new store with what [`DataStore::as_json`] gave: all ids, labels, types, metadata, values and
    /// the order; not the history. Values kept as blobs wait for their content unless it is embedded.
    ///
    /// Fields that nobody knows are passed over. Of any size up to
    /// [`IMPORT_BYTES_MAX`](crate::limits::IMPORT_BYTES_MAX): it becomes as many changes as it takes.
    ///
    /// What only merging and other programs can make is taken as it is: labels, types and metadata past their
    /// limits, links that lead to links. An inline text past the limit of these becomes a blob.
    ///
    /// Stores of other programs may name a value as kept elsewhere (`literal-reference`,
    /// `binary-reference`) without `Value`, `Hash` or `Size`. Such an item has no value then;
    /// [`JsonSummary`](crate::JsonSummary) counts them.
    ///
    /// # Errors
    /// `invalid-argument` for what is not the JSON of a store, or passes another limit of local edits;
    /// `transaction-too-large` for a label or a value of metadata that is more than one change may have.
    pub fn from_json<'a>(
        replica: ReplicaId,
        json: impl Into<JsonSource<'a>>,
    ) -> Result<Self, StoreError> {
        Self::from_json_with(replica, json, StoreOptions::default())
    }

    /// The same, with other options than the usual ones.
    ///
    /// # Errors
    /// As for [`DataStore::from_json`].
    pub fn from_json_with<'a>(
        replica: ReplicaId,
        json: impl Into<JsonSource<'a>>,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let records = records(json.into())?;
        check_store(&records)?;
        let mut store = Self::new(replica).with_options(options);
        let mut merging = Merging::new(records, Bounds::OfMerges);
        while !merging.is_done() {
            store.transact(|store| merging.run(store, CHANGE_BYTES_GOAL, CHANGE_ENTRIES_MAX))?;
        }
        Ok(store)
    }

    /// Takes in the JSON of a store ([`DataStore::as_json`]), keeping ids: entries that are not here
    /// are created; those that are get the label, type, value, metadata and place that the JSON says.
    /// Importing twice changes nothing. What is here and not in the JSON stays where it is, and of an
    /// entry that is here a field that the JSON leaves out (`Label`, `Type`, `Info`, or `ValueKind` and
    /// `Value`) stays as it is.
    ///
    /// Links that lead to links are taken as [`DataStore::from_json`] does; of labels, types and metadata past
    /// their limits only those that are here already.
    ///
    /// One transaction. Between copies of one store patches and snapshots do better: they merge, while
    /// this overwrites.
    ///
    /// # Errors
    /// `invalid-argument` for what is not the JSON of a store, passes a limit of local edits, or has an
    /// entry that is here as something else; `transaction-too-large` for more than one change may have
    /// (16 MiB). Nothing has changed then.
    pub fn import_json<'a>(&mut self, json: impl Into<JsonSource<'a>>) -> Result<(), StoreError> {
        let records = records(json.into())?;
        check_store(&records)?;
        let mut merging = Merging::new(records, Bounds::OfEdits);
        self.transact(|store| merging.run(store, usize::MAX, usize::MAX))
    }

    /// Takes in the JSON of one entry ([`Entry::as_json`](crate::Entry::as_json)) with all inside,
    /// keeping ids as [`DataStore::import_json`] does. The entry is to stand at `index` in `outer`; if
    /// no index is given, last, or where it is if it is in there.
    ///
    /// # Errors
    /// As for [`DataStore::import_json`], and as for [`DataStore::move_entry_to`]; `invalid-argument` also
    /// for what passes any limit of local edits, and for a link whose target is a link when all is here.
    pub fn import_entry_from_json_at<'a>(
        &mut self,
        json: impl Into<JsonSource<'a>>,
        outer: EntryId,
        index: Option<usize>,
    ) -> Result<EntryId, StoreError> {
        self.require_item("container", outer)?;
        let records = records(json.into())?;
        check_ids(&records)?;
        let system = records.iter().filter_map(|record| record.id).find(EntryId::is_well_known);
        if let Some(system) = system {
            return Err(ImportError::SystemEntry(system).into());
        }
        let top = records.first().and_then(|record| record.id).ok_or(ImportError::NotAStore)?;
        let mut merging = Merging { outer, index, ..Merging::new(records, Bounds::OfEdits) };
        self.transact(|store| {
            merging.run(store, usize::MAX, usize::MAX)?;
            merging.targets.iter().try_for_each(|target| check_target(store, *target))
        })?;
        Ok(top)
    }
}

/// That every entry has an id of its own.
fn check_ids(records: &[Box<Record>]) -> Result<(), ImportError> {
    let mut seen = HashSet::new();
    for (at, record) in records.iter().enumerate() {
        let rule = "is missing, and ids are to be kept";
        let id = record.id.ok_or(ImportError::Field { entry: at + 1, field: "Id", rule })?;
        if !seen.insert(id) {
            return Err(ImportError::DuplicateId(id));
        }
    }
    Ok(())
}

/// That this is a store: Root is outermost, the other system entries are items in it.
fn check_store(records: &[Box<Record>]) -> Result<(), ImportError> {
    let is_root = |record: &Record| record.id == Some(EntryId::ROOT) && record.is_item();
    if !records.first().is_some_and(|record| is_root(record)) {
        return Err(ImportError::NotAStore);
    }
    check_ids(records)?;
    let is_misplaced = |record: &&Record| {
        let is_system = record.id.is_some_and(|id| id.is_well_known());
        is_system && (record.parent != Some(0) || !record.is_item())
    };
    let mut inside = records.iter().skip(1).map(Box::as_ref);
    match inside.find(is_misplaced).and_then(|record| record.id) {
        Some(id) => Err(ImportError::SystemEntry(id)),
        None => Ok(()),
    }
}

/// An import under way.
struct Merging {
    /// What is left, the next one last.
    rest: Records,
    /// The entries that are done, in the order of the JSON, with the last one inside each.
    done: Vec<(EntryId, Option<EntryId>)>,
    /// Where the outermost entry is to go, unless it is Root.
    outer: EntryId,
    index: Option<usize>,
    bounds: Bounds,
    /// Metadata of an entry for the next change, since one cannot have all of it.
    late: Option<(EntryId, Info)>,
    /// Where links lead that were created.
    targets: Vec<EntryId>,
}

impl Merging {
    /// An import to where the records say.
    fn new(mut records: Records, bounds: Bounds) -> Self {
        records.reverse();
        Self {
            rest: records,
            done: Vec::new(),
            outer: EntryId::ROOT,
            index: None,
            bounds,
            late: None,
            targets: Vec::new(),
        }
    }

    const fn is_done(&self) -> bool {
        self.rest.is_empty() && self.late.is_none()
    }

    /// Imports entries until about so many bytes or entries are done.
    fn run(
        &mut self,
        store: &mut DataStore,
        mut bytes: usize,
        entries: usize,
    ) -> Result<(), StoreError> {
        for _ in 0..entries {
            let (size, id, late) = if let Some((id, mut info)) = self.late.take() {
                let late = Some(info.split_off(bytes)).filter(|late| !late.is_empty());
                let size = info.size();
                set_info(store, id, &info, self.bounds)?;
                (size, Some(id), late)
            } else {
                let Some(mut record) = self.rest.pop() else { return Ok(()) };
                let (id, late) = (record.id, record.split_info(bytes));
                let size = record.size();
                self.import(store, *record)?;
                (size, id, late)
            };
            self.late = id.zip(late);
            bytes = bytes.saturating_sub(size);
            if bytes == 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    fn import(&mut self, store: &mut DataStore, record: Record) -> Result<(), StoreError> {
        // All ids are there: `check_ids`.
        let Some(id) = record.id else { return Ok(()) };
        let parent = record.parent.and_then(|parent| self.done.get_mut(parent));
        let (outer, before) = match parent {
            Some((outer, last)) => (*outer, last.replace(id)),
            None => (self.outer, None),
        };
        self.done.push((id, None));
        if id == EntryId::ROOT {
            return record.fill(store, id, self.bounds);
        }
        let is_top = record.parent.is_none();
        let here = store.entry_with_id(id);
        let is_placeholder = here.is_some_and(|here| here.is_placeholder());
        let stands_at = here.and_then(|here| here.index());
        let index = match before {
            Some(before) => store.entry(before)?.index().map_or(0, |index| index + 1),
            None if is_top => self.index.unwrap_or(usize::MAX),
            None => 0,
        };
        // One that stands elsewhere becomes an entry of its own: only those can be placed.
        let is_in_place = stands_at.is_some_and(|at| at >= index);
        if is_placeholder && is_in_place && outer == EntryId::LOST_AND_FOUND && record.is_blank() {
            return Ok(());
        }
        let kind = match record.content {
            Content::Item { .. } => NewEntry::Item,
            Content::Link { target } => NewEntry::Link { target },
        };
        if store.replica().is_alive(id) {
            if store.replica().kind(id) != Some(kind) {
                return Err(ImportError::OtherKind(id).into());
            }
            let wanted =
                Wanted { outer, index: if is_top { self.index } else { Some(index) }, is_top };
            wanted.place(store, id)?;
        } else {
            if let NewEntry::Link { target } = kind {
                self.targets.push(target);
            }
            store.edit(|replica| replica.create_with_id(id, kind, outer, index))?;
        }
        if let Some(time) = record.trashed_at.filter(|_| outer == EntryId::TRASH)
            && store.replica().trashed_at(id) != Some(time)
        {
            store.delete_entry(id, time)?;
            let last = store.trash_item().inner_entry_count().saturating_sub(1);
            if store.entry(id)?.index() != Some(index.min(last)) {
                store.move_entry_to(id, outer, Some(index))?;
            }
        }
        if outer == EntryId::TRASH && record.has_no_time() {
            forget_time(store, id)?;
        }
        record.fill(store, id, self.bounds)
    }
}

/// Leaves an entry where it is in Trash, but as one that was moved there rather than deleted.
fn forget_time(store: &mut DataStore, id: EntryId) -> Result<(), StoreError> {
    let entry = store.entry(id)?;
    let index = entry.index();
    if entry.trashed_at().is_some() {
        store.move_entry_to(id, EntryId::ROOT, None)?;
        store.move_entry_to(id, EntryId::TRASH, index)?;
    }
    Ok(())
}

pub(super) const TARGET_IS_LINK: StoreError =
    StoreError::InvalidArgument { what: "target", rule: "must be an item" };

/// That nothing is known of a link's target which says that it is no item.
pub(super) fn check_target(store: &DataStore, target: EntryId) -> Result<(), StoreError> {
    match store.replica().kind(target) {
        Some(NewEntry::Link { .. }) => Err(TARGET_IS_LINK),
        _ => Ok(()),
    }
}

/// Where an entry that is here is to stand.
struct Wanted {
    outer: EntryId,
    index: Option<usize>,
    /// Whether the index is the caller's, not only behind a sibling.
    is_top: bool,
}

impl Wanted {
    fn place(self, store: &mut DataStore, id: EntryId) -> Result<(), StoreError> {
        let entry = store.entry(id)?;
        let (is_inside, at) = (entry.outer_item_id() == Some(self.outer), entry.index());
        let index = match (self.index, at) {
            _ if !is_inside => self.index,
            (None, _) => return Ok(()),
            (Some(index), Some(at)) if self.is_top => {
                let last = store.entry(self.outer)?.inner_entry_count().saturating_sub(1);
                if index.min(last) == at {
                    return Ok(());
                }
                self.index
            }
            // It stands behind its sibling already, if not right behind.
            (Some(index), Some(at)) if at >= index => return Ok(()),
            // Its own place is before the sibling, which moves up when it is gone.
            (Some(index), _) => Some(index.saturating_sub(1)),
        };
        store.move_entry_to(id, self.outer, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an entry that only links know of so far, and of which nothing is told but its place, gets that
    /// place. Method: the link comes before it, and so does another one, which has sorted itself in between.
    #[test]
    fn what_was_only_referred_to_before_gets_its_place() {
        let item = |id: &str, inner: &str| {
            format!(
                r#"{{"Kind":"item","Id":"{id}","Label":"","Type":"text/plain","ValueKind":"none","Info":{{}},"innerEntries":[{inner}]}}"#
            )
        };
        let link = |id: &str, target: &str| {
            format!(r#"{{"Kind":"link","Id":"{id}","Label":"","TargetId":"{target}","Info":{{}}}}"#)
        };
        let (late, early) =
            ("00000000-0000-87a1-8400-000000000000", "ffffffff-ffff-8fff-bc00-000000000000");
        let inner = [
            link("ffffffff-ffff-8fff-bc00-000000000002", early),
            item(early, ""),
            link("00000000-0000-87a1-8400-000000000008", late),
            item(late, ""),
        ];
        let system = |number: char, label: &str, inner: &str| {
            let id = format!("00000000-0000-4000-8000-00000000000{number}");
            item(&id, inner).replacen(r#""Label":"""#, &format!(r#""Label":"{label}""#), 1)
        };
        let containers =
            [system('1', "trash", ""), system('2', "lost-and-found", &inner.join(","))];
        let json = system('0', "", &containers.join(","));
        let copy = DataStore::from_json(ReplicaId::new(9).unwrap(), &json).unwrap();
        assert_eq!(copy.as_json(), json);
    }
}
