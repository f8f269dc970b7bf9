//! What must hold of any store, whatever was done to it, checked through its public API alone: so that
//! properties, fuzzers and simulations can ask after every step.
//!
//! - S1. Following outer items from any entry ends at Root.
//! - S2. Root, Trash and Lost and Found are items, Root outermost, the others in it.
//! - S3. Every entry shows exactly once, in the item that it says it is in.
//! - S4. Inner entries are in order of (order key, id); length, index, lookup and iteration agree.
//! - S5. Links hold nothing. The target of a link outside Trash shows; it may be a link where one copy knew
//!   of it only as a target and another one imported it as that. Targets know their links.
//! - S6. Placeholders are empty items in Lost and Found to which a link outside Trash leads.
//! - S7. Only what is directly in Trash has a time of deletion, and it is metadata.
//! - S8. What is protected from purging is what a plain search says; the rest of Trash may be purged.
//! - S9. References to blobs are counted as they are.
//! - S10. Limits that no merge can pass are kept, as long as only programs like this one edit. Others may pass
//!   all but those of the format.
//! - S11. A small store is the same after JSON, a snapshot, and a replay of its patches.
//! - S12. What may be deleted and moved where is what a plain search says, and what deleting and moving
//!   say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use sds_store::limits::{
    BINARY_SIZE_LIMIT, INFO_KEY_LENGTH_MAX, INFO_VALUE_BYTES_MAX, MIME_TYPE_LENGTH_MAX,
};
use sds_store::{
    BlobHash, DataStore, Entry, EntryId, ItemValue, ReplicaId, StoreError, Timestamp, ValueKind,
    Version,
};

/// Stores with more entries are not copied to check S11.
const COPIED_ENTRIES_MAX: usize = 300;

/// The id under which copies are made that nobody edits.
const COPIER: u64 = 0xc0_91e5;

/// A rule that does not hold, with the entry of which it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenRule {
    /// The number of the rule, as in the module's documentation.
    pub rule: u8,
    /// The entry, if it is about one.
    pub entry: Option<EntryId>,
}

impl fmt::Display for BrokenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S{} does not hold", self.rule)?;
        self.entry.map_or(Ok(()), |entry| write!(f, " of {entry:?}"))
    }
}

/// Checks all rules.
///
/// # Errors
/// The first that does not hold.
pub fn check_store_rules(store: &DataStore) -> Result<(), BrokenRule> {
    let all = check_shown_rules(store)?;
    blob_contents(store)?;
    if all.len() > COPIED_ENTRIES_MAX {
        return Ok(());
    }
    copies(store)?;
    permissions(store, &all)
}

/// Checks those that need neither a copy of the store nor the contents of blobs, which may be on their way
/// to a disk: S1 to S10; returns all entries.
///
/// # Errors
/// The first that does not hold.
pub fn check_shown_rules(store: &DataStore) -> Result<Vec<Entry<'_>>, BrokenRule> {
    let all = shown_once(store)?;
    system_items(store)?;
    for entry in &all {
        outer_chain(*entry, all.len())?;
        order(*entry)?;
        links(*entry)?;
        placeholder(*entry)?;
        trash_time(*entry)?;
        limits(*entry)?;
    }
    back_links(&all)?;
    protection(store, &all)?;
    blobs(store, &all)?;
    Ok(all)
}

fn hold(holds: bool, rule: u8, entry: Option<EntryId>) -> Result<(), BrokenRule> {
    if holds { Ok(()) } else { Err(BrokenRule { rule, entry }) }
}

/// S3; returns all entries.
fn shown_once(store: &DataStore) -> Result<Vec<Entry<'_>>, BrokenRule> {
    let mut all = vec![store.root_item()];
    let mut seen = BTreeSet::from([EntryId::ROOT]);
    let mut at = 0;
    while let Some(outer) = all.get(at).copied() {
        for inner in outer.inner_entries() {
            let id = Some(inner.id());
            hold(seen.insert(inner.id()), 3, id)?;
            hold(inner.outer_item() == Some(outer), 3, id)?;
            hold(store.entry_with_id(inner.id()) == Some(inner), 3, id)?;
            all.push(inner);
        }
        at += 1;
    }
    hold(all.len() == store.entry_count(), 3, None)?;
    Ok(all)
}

/// S2.
fn system_items(store: &DataStore) -> Result<(), BrokenRule> {
    let root = store.root_item();
    hold(root.is_item() && root.outer_item().is_none(), 2, Some(EntryId::ROOT))?;
    for item in [store.trash_item(), store.lost_and_found_item()] {
        hold(item.is_item() && item.outer_item() == Some(root), 2, Some(item.id()))?;
        hold(!item.may_be_deleted() && !item.may_be_purged(), 2, Some(item.id()))?;
    }
    Ok(())
}

/// S1.
fn outer_chain(entry: Entry<'_>, count: usize) -> Result<(), BrokenRule> {
    let last = entry.outer_item_chain().take(count).last();
    let is_ended = last.map_or(entry.is_root_item(), |last| last.is_root_item());
    hold(is_ended, 1, Some(entry.id()))
}

/// S4.
fn order(outer: Entry<'_>) -> Result<(), BrokenRule> {
    let id = Some(outer.id());
    let inner: Vec<_> = outer.inner_entries().collect();
    hold(outer.inner_entry_count() == inner.len(), 4, id)?;
    hold(outer.inner_entry_at(inner.len()).is_none(), 4, id)?;
    hold(outer.inner_entries().rev().eq(inner.iter().rev().copied()), 4, id)?;
    for (index, entry) in inner.iter().enumerate() {
        hold(entry.index() == Some(index), 4, Some(entry.id()))?;
        hold(outer.inner_entry_at(index) == Some(*entry), 4, Some(entry.id()))?;
    }
    let rank = |entry: &Entry<'_>| (entry.order_key(), entry.id());
    hold(inner.iter().map(rank).is_sorted_by(|a, b| a < b), 4, id)
}

/// S5, but for what targets know.
fn links(entry: Entry<'_>) -> Result<(), BrokenRule> {
    hold(entry.is_item() || entry.inner_entry_count() == 0, 5, Some(entry.id()))?;
    let is_led_somewhere = entry.is_item() || entry.target().is_some() || entry.is_in_trash();
    hold(is_led_somewhere, 5, Some(entry.id()))
}

/// S5: what targets know.
fn back_links(all: &[Entry<'_>]) -> Result<(), BrokenRule> {
    let mut expected: BTreeMap<EntryId, BTreeSet<EntryId>> = BTreeMap::new();
    for entry in all {
        if let Some(target) = entry.target_id() {
            expected.entry(target).or_default().insert(entry.id());
        }
    }
    for entry in all {
        let known: Vec<EntryId> = entry.links().map(|link| link.id()).collect();
        let expected = expected.remove(&entry.id()).unwrap_or_default();
        hold(known.into_iter().eq(expected), 5, Some(entry.id()))?;
    }
    Ok(())
}

/// S6.
fn placeholder(entry: Entry<'_>) -> Result<(), BrokenRule> {
    if !entry.is_placeholder() {
        return Ok(());
    }
    let is_empty = entry.is_item()
        && entry.label().is_empty()
        && entry.value_kind() == ValueKind::None
        && entry.info_keys().next().is_none()
        && entry.inner_entry_count() == 0;
    let is_wanted = entry.links().any(|link| !link.is_in_trash());
    let is_there = entry.outer_item_id() == Some(EntryId::LOST_AND_FOUND);
    hold(is_empty && is_wanted && is_there, 6, Some(entry.id()))
}

/// S7.
fn trash_time(entry: Entry<'_>) -> Result<(), BrokenRule> {
    let is_in_trash = entry.outer_item_id() == Some(EntryId::TRASH);
    let time = entry.trashed_at().map(|time| time.as_millis().into());
    hold(time.is_none() || is_in_trash, 7, Some(entry.id()))?;
    hold(entry.info("_trashedAt") == time, 7, Some(entry.id()))?;
    let is_listed = entry.info_keys().any(|key| key == "_trashedAt");
    hold(is_listed == time.is_some(), 7, Some(entry.id()))
}

/// S8.
fn protection(store: &DataStore, all: &[Entry<'_>]) -> Result<(), BrokenRule> {
    // The entry directly in Trash that an entry is or is in.
    let top = |entry: Entry<'_>| {
        let mut chain = std::iter::successors(Some(entry), |at| at.outer_item());
        chain.find(|at| at.outer_item_id() == Some(EntryId::TRASH)).map(|top| top.id())
    };
    let links: Vec<(Option<EntryId>, EntryId)> =
        all.iter().filter_map(|link| Some((top(*link), top(link.target()?)?))).collect();
    let mut protected = BTreeSet::new();
    loop {
        let is_new = |(from, to): &&(Option<EntryId>, EntryId)| {
            from.is_none_or(|from| protected.contains(&from)) && !protected.contains(to)
        };
        let Some((_, next)) = links.iter().find(is_new) else { break };
        protected.insert(*next);
    }
    let found: BTreeSet<EntryId> = store.protected_trash_entries().into_iter().collect();
    hold(found == protected, 8, None)?;
    for entry in all {
        let is_in_trash = entry.outer_item_id() == Some(EntryId::TRASH);
        let expected = match (is_in_trash, protected.contains(&entry.id())) {
            (false, _) => Err("purge-not-in-trash"),
            (true, true) => Err("purge-protected"),
            (true, false) => Ok(()),
        };
        let found = store.entry_may_be_purged(entry.id()).map_err(|error| error.code());
        hold(found == expected, 8, Some(entry.id()))?;
    }
    Ok(())
}

/// S9.
fn blobs(store: &DataStore, all: &[Entry<'_>]) -> Result<(), BrokenRule> {
    let mut counts: HashMap<BlobHash, usize> = HashMap::new();
    for blob in all.iter().filter_map(Entry::blob_ref) {
        *counts.entry(blob.hash).or_default() += 1;
    }
    let referenced = store.referenced_blobs();
    hold(referenced.len() == counts.len(), 9, None)?;
    hold(referenced.is_sorted_by_key(|blob| blob.hash), 9, None)?;
    counts
        .iter()
        .try_for_each(|(hash, count)| hold(store.blob_reference_count(hash) == *count, 9, None))
}

/// S9, of what blobs hold.
fn blob_contents(store: &DataStore) -> Result<(), BrokenRule> {
    let referenced = store.referenced_blobs();
    let is_missing = |hash: &BlobHash| store.blob(hash).is_none();
    let missing = referenced.iter().map(|blob| blob.hash).filter(is_missing);
    hold(store.missing_blobs().iter().map(|blob| blob.hash).eq(missing), 9, None)?;
    let is_free =
        |hash: &BlobHash| store.blob_reference_count(hash) == 0 && store.blob(hash).is_some();
    hold(store.unreferenced_blobs().iter().all(is_free), 9, None)
}

/// S10. Labels and texts may be merged past their limits.
fn limits(entry: Entry<'_>) -> Result<(), BrokenRule> {
    let id = Some(entry.id());
    let mime_type = entry.mime_type();
    let len = mime_type.encode_utf16().count();
    hold((1..=MIME_TYPE_LENGTH_MAX).contains(&len), 10, id)?;
    if let (ValueKind::Binary, ItemValue::Bytes(bytes)) = (entry.value_kind(), entry.value()) {
        hold(bytes.len() <= BINARY_SIZE_LIMIT, 10, id)?;
    }
    let info = entry.info_map();
    let key_lens = info.keys().map(|key| key.encode_utf16().count());
    hold(key_lens.into_iter().all(|len| (1..=INFO_KEY_LENGTH_MAX).contains(&len)), 10, id)?;
    hold(info.values().all(|value| value.to_string().len() <= INFO_VALUE_BYTES_MAX), 10, id)?;
    hold(info.keys().eq(entry.info_keys()), 10, id)
}

/// S11.
fn copies(store: &DataStore) -> Result<(), BrokenRule> {
    let json = store.as_json();
    let copier = ReplicaId::new(COPIER);
    let copied = |copy: Result<DataStore, StoreError>| copy.ok();
    let of_json = copier.and_then(|id| copied(DataStore::from_json(id, &json)));
    hold(of_json.is_some_and(|copy| copy.as_json() == json), 11, None)?;
    let of_snapshot = copier.and_then(|id| copied(DataStore::from_binary(id, &store.as_binary())));
    let of_patches = copier.and_then(|id| {
        let mut copy = DataStore::new(id);
        let done = copy.apply_remote_patch(&store.export_patch(&Version::new())).ok()?;
        (done.waiting == 0).then_some(copy)
    });
    let (Some(mut one), Some(mut two)) = (of_snapshot, of_patches) else {
        return hold(false, 11, None);
    };
    hold(one.as_json() == json && two.as_json() == json, 11, None)?;
    hold(one.version() == store.version() && one.digest() == two.digest(), 11, None)?;
    match store.as_json_value() {
        Ok(value) => hold(
            serde_json::from_str(&json).is_ok_and(|read: serde_json::Value| read == value),
            11,
            None,
        ),
        Err(error) => hold(error.code() == "too-deep", 11, None),
    }
}

/// S12.
fn permissions(store: &DataStore, all: &[Entry<'_>]) -> Result<(), BrokenRule> {
    let copy =
        ReplicaId::new(COPIER).and_then(|id| DataStore::from_binary(id, &store.as_binary()).ok());
    let Some(mut copy) = copy else { return hold(false, 12, None) };
    for (at, entry) in all.iter().enumerate() {
        let id = entry.id();
        let expected = if id.is_well_known() { Err("delete-not-permitted") } else { Ok(()) };
        hold(entry.may_be_deleted() == expected.is_ok(), 12, Some(id))?;
        let deleted = |store: &mut DataStore| store.delete_entry(id, Timestamp::from_millis(0));
        hold(outcome(&mut copy, deleted) == expected, 12, Some(id))?;
        // Root, Trash, what is in it and what it is in, and one of all others.
        let others =
            [entry.inner_entry_at(0), entry.outer_item(), all.get((7 * at) % all.len()).copied()];
        let others = others.into_iter().flatten();
        for outer in [store.root_item(), store.trash_item(), *entry].into_iter().chain(others) {
            let expected = may_move(*entry, outer);
            hold(entry.may_be_moved_to(outer.id()) == expected.is_ok(), 12, Some(id))?;
            let moved = |store: &mut DataStore| store.move_entry_to(id, outer.id(), None);
            hold(outcome(&mut copy, moved) == expected, 12, Some(id))?;
        }
    }
    Ok(())
}

fn may_move(entry: Entry<'_>, outer: Entry<'_>) -> Result<(), &'static str> {
    let is_inside = outer == entry || outer.outer_item_chain().any(|above| above == entry);
    let is_held = entry.id().is_well_known() && !outer.is_root_item();
    match outer.is_item() {
        false => Err("invalid-argument"),
        true if is_inside || is_held => Err("move-would-cycle"),
        true => Ok(()),
    }
}

/// What becomes of an edit, which is taken back.
fn outcome(
    store: &mut DataStore,
    edit: impl FnOnce(&mut DataStore) -> Result<(), StoreError>,
) -> Result<(), &'static str> {
    let mut outcome = Ok(());
    let taken_back = store.transact(|store| {
        outcome = edit(store).map_err(|error| error.code());
        Err::<(), StoreError>(StoreError::OutOfIds)
    });
    drop(taken_back);
    outcome
}
