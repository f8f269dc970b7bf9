//! Edits of a store, drawn at random, legal and illegal ones.

use std::time::Duration;

use arbitrary::Arbitrary;
use proptest::prelude::{Strategy, any};
use sds_store::{DataStore, Entry, EntryId, NewValue, StoreError, Timestamp};
use serde_json::json;

/// An edit: the numbers pick among the entries that show, and one that does not.
#[derive(Clone, Debug, Arbitrary)]
pub struct StoreEdit {
    /// What to do.
    pub kind: u8,
    /// With which entries, and what else it takes.
    pub picks: [u8; 4],
}

impl StoreEdit {
    pub(super) fn any() -> impl Strategy<Value = Self> {
        (any::<u8>(), any::<[u8; 4]>()).prop_map(|(kind, picks)| Self { kind, picks })
    }

    /// Makes the edit.
    ///
    /// # Errors
    /// Why it was refused.
    pub fn make(&self, store: &mut DataStore) -> Result<(), StoreError> {
        let [a, b, c, d] = self.picks;
        let (one, two) = (pick(store, a), pick(store, b));
        let index = Some(usize::from(c) % 8).filter(|index| *index < 7);
        let range = usize::from(c % 8)..usize::from(c % 8) + usize::from(d % 4);
        let now = Timestamp::from_millis(i64::from(d) * 1_000);
        match self.kind % 32 {
            0..=3 => {
                let made = store.new_item_at(MIME_TYPES[usize::from(d % 4)], one, index)?;
                assert_placed(store, made, one, index);
                Ok(())
            }
            4..=7 => {
                let made = store.new_link_at(one, two, index)?;
                assert_placed(store, made, two, index);
                Ok(())
            }
            8 => store.set_label(one, text(d)),
            9 => store.splice_label(one, range, text(b)),
            10 => store.update_label(one, text(d)),
            11 => store.set_mime_type(one, MIME_TYPES[usize::from(d % 4)].unwrap_or_default()),
            12..=14 => store.write_value(one, value(d)),
            15 => store.change_value(one, range, text(b)),
            16 => store.update_value(one, text(d)),
            17 => store.set_info(one, text(b), &json!([text(c), d, null])),
            18 => store.delete_info(one, text(b)),
            19..=22 => {
                store.move_entry_to(one, two, index)?;
                assert_placed(store, one, two, index);
                Ok(())
            }
            23..=25 => store.delete_entry(one, now),
            26 => store.purge_entry(one),
            27 => store.purge_entry(deleted(store, a).unwrap_or(one)),
            28 => store.purge_expired_trash_entries(now, Some(Duration::from_secs(100))).map(drop),
            29 if d < 64 => store.purge_all_trash_entries().map(drop),
            30 => rebalance(store, one),
            _ => {
                drop(store.release_unreferenced_blobs());
                Ok(())
            }
        }
    }
}

/// The entry stands where it was asked for; in Lost and Found what is rescued comes and goes.
pub(super) fn assert_placed(
    store: &DataStore,
    entry: EntryId,
    outer: EntryId,
    index: Option<usize>,
) {
    let entry = store.entry(entry).expect("it was placed");
    assert_eq!(entry.outer_item_id(), Some(outer));
    if outer != EntryId::LOST_AND_FOUND
        && let Some(index) = index
    {
        let last = entry.outer_item().map_or(0, |outer| outer.inner_entry_count() - 1);
        assert_eq!(entry.index(), Some(index.min(last)));
    }
}

fn rebalance(store: &mut DataStore, item: EntryId) -> Result<(), StoreError> {
    let inner = |store: &DataStore| -> Vec<EntryId> {
        let item = store.entry_with_id(item).into_iter();
        item.flat_map(|item| item.inner_entries()).map(|entry| entry.id()).collect()
    };
    let before = inner(store);
    store.rebalance_inner_entries_of(item)?;
    assert_eq!(inner(store), before, "rebalancing keeps the order");
    Ok(())
}

/// An entry directly in Trash.
fn deleted(store: &DataStore, number: u8) -> Option<EntryId> {
    let count = store.trash_item().inner_entry_count();
    let at = usize::from(number).checked_rem(count)?;
    store.trash_item().inner_entry_at(at).map(|entry| entry.id())
}

/// An entry that shows, or one that does not.
pub(super) fn pick(store: &DataStore, number: u8) -> EntryId {
    let mut all = vec![store.root_item()];
    let mut at = 0;
    while let Some(entry) = all.get(at).copied() {
        all.extend(entry.inner_entries());
        at += 1;
    }
    let unknown = EntryId::from_bytes([0x33; 16]);
    all.get(usize::from(number) % (all.len() + 1)).map_or(unknown, Entry::id)
}

const MIME_TYPES: [Option<&str>; 4] = [None, Some("text/plain"), Some("image/png"), Some("")];

/// A short text, some past the limit for inline ones.
const fn text(number: u8) -> &'static str {
    match number % 8 {
        0 => "",
        1 => "a",
        2 => "one two",
        3 => "one three two",
        4 => "\u{1f600} x",
        5 => "\u{e9}",
        6 => "_trashedAt",
        _ => "more than fits inline",
    }
}

fn value(number: u8) -> NewValue {
    match number % 8 {
        0 => NewValue::None,
        1 => NewValue::Bytes(vec![number; usize::from(number % 5)]),
        2 => NewValue::Bytes(vec![7; 2_049]),
        _ => NewValue::Text(text(number / 8).to_owned()),
    }
}
