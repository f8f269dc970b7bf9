//! What a user does with a store, drawn at random.

use std::ops::Range;

use proptest::prelude::{Strategy, any, prop};
use sds_engine::{Patch, Replica};
use sds_store::limits::BINARY_SIZE_LIMIT;
use sds_store::{DataStore, EntryId, ItemValue, NewValue, ReplicaId, StoreError, Timestamp};
use serde_json::{Value as Json, json};

use crate::pool::{pick, text};

/// An edit; the numbers pick among what is there.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are the arguments of the edits, as numbers that pick")]
pub enum UserEdit {
    NewItem { outer: u8, index: u8, has_type: bool },
    NewLink { target: u8, outer: u8, index: u8 },
    Move { entry: u8, outer: u8, index: u8 },
    Delete { entry: u8 },
    SetLabel { entry: u8, text: u8 },
    SpliceLabel { entry: u8, from: u8, len: u8, text: u8 },
    UpdateLabel { entry: u8, text: u8 },
    SetType { entry: u8, is_default: bool },
    Write { entry: u8, value: u8 },
    WriteBlob { entry: u8, value: u8 },
    Change { entry: u8, from: u8, len: u8, text: u8 },
    UpdateValue { entry: u8, text: u8 },
    SetInfo { entry: u8, key: bool, value: u8 },
    DeleteInfo { entry: u8, key: bool },
    Rebalance { outer: u8 },
    ImportCopy { entry: u8, outer: u8, index: u8 },
    Import { entry: u8, outer: u8, index: u8, text: u8 },
}

/// A transaction: edits, of which those from `part` on are in a transaction inside that may fail.
#[derive(Clone, Debug)]
pub struct UserTransaction {
    /// The edits; those that are refused are passed over.
    pub edits: Vec<UserEdit>,
    /// Where the part inside begins, and whether it fails.
    pub part: Option<(u8, bool)>,
}

/// Copies would double a store again and again.
const ENTRIES_MAX: usize = 60;

/// When users say it is.
pub const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

impl UserEdit {
    /// Edits of every kind.
    pub fn any() -> impl Strategy<Value = Self> {
        (0..27u8, any::<(u8, u8, u8, u8)>(), any::<bool>()).prop_map(|(kind, (a, b, c, d), e)| {
            match kind {
                0..=2 => Self::NewItem { outer: a, index: b, has_type: e },
                3 => Self::NewLink { target: a, outer: b, index: c },
                4..=7 => Self::Move { entry: a, outer: b, index: c },
                8 | 9 => Self::Delete { entry: a },
                10 => Self::SetLabel { entry: a, text: b },
                11 => Self::SetType { entry: a, is_default: e },
                12 | 13 => Self::Write { entry: a, value: b },
                14..=16 => Self::Change { entry: a, from: b, len: c, text: d },
                17 => Self::SetInfo { entry: a, key: e, value: b },
                18 => Self::DeleteInfo { entry: a, key: e },
                19 | 20 => Self::SpliceLabel { entry: a, from: b, len: c, text: d },
                21 => Self::UpdateLabel { entry: a, text: b },
                22 => Self::UpdateValue { entry: a, text: b },
                23 => Self::WriteBlob { entry: a, value: b },
                24 => Self::Rebalance { outer: a },
                25 => Self::ImportCopy { entry: a, outer: b, index: c },
                _ => Self::Import { entry: a, outer: b, index: c, text: d },
            }
        })
    }

    /// Makes the edit.
    ///
    /// # Errors
    /// Why the store refused.
    pub fn make(&self, store: &mut DataStore) -> Result<(), StoreError> {
        let entries = entries(store);
        let entry = |number: u8| pick(&entries, number).unwrap_or(EntryId::ROOT);
        match *self {
            Self::NewItem { outer, index, has_type } => {
                let mime_type = has_type.then_some("text/markdown");
                store.new_item_at(mime_type, entry(outer), at(index)).map(drop)
            }
            Self::NewLink { target, outer, index } => {
                store.new_link_at(entry(target), entry(outer), at(index)).map(drop)
            }
            Self::Move { entry: moved, outer, index } => {
                store.move_entry_to(entry(moved), entry(outer), at(index))
            }
            Self::Delete { entry: deleted } => store.delete_entry(entry(deleted), NOW),
            Self::SetLabel { entry: named, text: label } => {
                store.set_label(entry(named), text(label))
            }
            Self::SetType { entry: item, is_default } => {
                let mime_type = if is_default { "text/plain" } else { "text/html" };
                store.set_mime_type(entry(item), mime_type)
            }
            Self::Write { entry: item, value } => store.write_value(entry(item), new_value(value)),
            Self::Change { entry: item, from, len, text: new } => {
                let item = entry(item);
                let value = store.entry_with_id(item).map(|item| item.value());
                let old = value.as_ref().and_then(ItemValue::as_text).unwrap_or_default();
                store.change_value(item, range(old, (from, len)), text(new))
            }
            Self::SpliceLabel { entry: named, from, len, text: new } => {
                let label = store.entry(entry(named))?.label().into_owned();
                store.splice_label(entry(named), range(&label, (from, len)), text(new))
            }
            Self::UpdateLabel { entry: named, text: label } => {
                store.update_label(entry(named), text(label))
            }
            Self::UpdateValue { entry: item, text: value } => {
                store.update_value(entry(item), text(value))
            }
            Self::WriteBlob { entry: item, value } => {
                store.write_value(entry(item), vec![value % 3; BINARY_SIZE_LIMIT + 1])
            }
            Self::Rebalance { outer } => store.rebalance_inner_entries_of(entry(outer)),
            Self::ImportCopy { entry: source, outer, index } => {
                let json = store.entry(entry(source))?.as_json_value()?;
                match entries.len() + count(&json) <= ENTRIES_MAX {
                    true => store.new_entry_from_json_at(&json, entry(outer), at(index)).map(drop),
                    false => Ok(()),
                }
            }
            Self::Import { entry: source, outer, index, text: new } => {
                let mut json = store.entry(entry(source))?.as_json_value()?;
                json["Label"] = text(new).into();
                json["Info"] = json!({"color": text(new)});
                store.import_entry_from_json_at(&json, entry(outer), at(index)).map(drop)
            }
            Self::SetInfo { entry: owner, key, value } => {
                let values = [json!(null), json!(true), json!(7), json!("text"), json!([1, {}])];
                let value = pick(&values, value).unwrap_or_default();
                store.set_info(entry(owner), info_key(key), &value)
            }
            Self::DeleteInfo { entry: owner, key } => {
                store.delete_info(entry(owner), info_key(key))
            }
        }
    }
}

impl UserTransaction {
    /// Transactions of one edit or a few.
    pub fn any() -> impl Strategy<Value = Self> {
        let part = prop::option::weighted(0.2, any::<(u8, bool)>());
        let edits = prop::collection::vec(UserEdit::any(), 1..5);
        (edits, part).prop_map(|(edits, part)| Self { edits, part })
    }

    /// Makes it. A lone edit goes without a transaction.
    pub fn make(&self, store: &mut DataStore) {
        if let ([edit], None) = (&self.edits[..], self.part) {
            // What is refused changes nothing.
            drop(edit.make(store));
            return;
        }
        let made = store.transact(|store| {
            let from = self
                .part
                .map_or(self.edits.len(), |(from, _)| usize::from(from) % (self.edits.len() + 1));
            let (before, inside) = self.edits.split_at(from);
            before.iter().for_each(|edit| drop(edit.make(store)));
            let part = store.transact(|store| {
                inside.iter().for_each(|edit| drop(edit.make(store)));
                match self.part {
                    Some((_, true)) => Err(StoreError::OutOfIds),
                    _ => Ok(()),
                }
            });
            // The part that failed is taken back, the rest stays.
            drop(part);
            Ok::<_, StoreError>(())
        });
        assert_eq!(made, Ok(()));
    }
}

/// What one of several users does next.
#[derive(Clone, Debug)]
pub enum UserAct {
    /// Edits.
    Edit(UserTransaction),
    /// Takes the last step back.
    Undo,
    /// Takes that back.
    Redo,
    /// Begins a group of steps, or ends it.
    Group(bool),
    /// Takes in what another has.
    Receive(u8),
    /// Takes in all that another has, as a snapshot.
    Merge(u8),
    /// Hears that somebody elsewhere has purged something.
    Purge(u8),
    /// Purges something, or all that may be.
    PurgeHere(u8),
}

impl UserAct {
    /// Acts of every kind.
    pub fn any() -> impl Strategy<Value = Self> {
        (0..15u8, UserTransaction::any(), any::<u8>()).prop_map(|(kind, transaction, number)| {
            match kind {
                0..=4 => Self::Edit(transaction),
                5 | 6 => Self::Undo,
                7 | 8 => Self::Redo,
                9 => Self::Group(number.is_multiple_of(2)),
                10 => Self::Purge(number),
                11 => Self::PurgeHere(number),
                12 => Self::Merge(number),
                _ => Self::Receive(number),
            }
        })
    }
}

/// Purges what is in Trash, as far as that is allowed: one entry, or all.
pub fn purge_here(store: &mut DataStore, number: u8) {
    let trashed: Vec<EntryId> = store.trash_item().inner_entries().map(|one| one.id()).collect();
    match pick(&trashed, number / 2) {
        // What is protected stays.
        Some(entry) if number.is_multiple_of(2) => drop(store.purge_entry(entry)),
        _ => drop(store.purge_all_trash_entries().expect("it is little")),
    }
}

/// Somebody elsewhere who purges what is in Trash, also what links outside still point to.
#[derive(Debug)]
pub struct Janitor(Replica);

impl Janitor {
    /// One with this replica id.
    #[must_use]
    pub fn new(replica: ReplicaId) -> Self {
        Self(Replica::new(replica))
    }

    /// Sees what a store shows, purges something in its Trash if there is anything, and returns the patch
    /// for the store.
    pub fn purge(&mut self, store: &DataStore, number: u8) -> Vec<u8> {
        let seen = Patch::decode(&store.export_patch(self.0.version()));
        self.0.integrate(seen.expect("a store's patch")).expect("nothing is forked");
        let trashed: Vec<EntryId> = self.0.children(EntryId::TRASH).collect();
        if let Some(entry) = pick(&trashed, number) {
            self.0.purge(entry).expect("what is in Trash is alive");
        }
        self.0.export(store.version())
    }
}

/// Every entry that shows, Root first.
#[must_use]
pub fn entries(store: &DataStore) -> Vec<EntryId> {
    let mut entries = vec![EntryId::ROOT];
    let mut at = 0;
    while let Some(outer) = entries.get(at).and_then(|outer| store.entry_with_id(*outer)) {
        entries.extend(outer.inner_entries().map(|entry| entry.id()));
        at += 1;
    }
    entries
}

fn at(number: u8) -> Option<usize> {
    (number < 200).then_some(usize::from(number % 8))
}

const fn info_key(key: bool) -> &'static str {
    if key { "color" } else { "\u{e9}" }
}

fn new_value(number: u8) -> NewValue {
    match number % 8 {
        0 => NewValue::None,
        1 => NewValue::Bytes(vec![number; usize::from(number % 3)]),
        _ => NewValue::Text(text(number / 8).to_owned()),
    }
}

/// How many entries there are in JSON.
fn count(json: &Json) -> usize {
    let inner = json["innerEntries"].as_array();
    1 + inner.into_iter().flatten().map(count).sum::<usize>()
}

/// A range of UTF-16 units of a text that divides no character.
fn range(text: &str, (from, len): (u8, u8)) -> Range<usize> {
    let mut bounds = vec![0];
    for char in text.chars() {
        bounds.push(bounds.last().copied().unwrap_or(0) + char.len_utf16());
    }
    let from = usize::from(from) % bounds.len();
    let to = (from + usize::from(len % 4)).min(bounds.len() - 1);
    bounds[from]..bounds[to]
}
