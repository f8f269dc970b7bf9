//! Stories of a few users of one store: who does what, what reaches whom.
//!
//! A [`StoreStep`] is a recipe of small numbers, so that any list of steps is a story. After each step
//! the rules of [`store_rules`](crate::store_rules) must hold of the store that it touched, and a
//! step that was refused must have changed nothing.

use std::time::Duration;

use arbitrary::Arbitrary;
use proptest::prelude::{Strategy, any, prop};
use sds_store::{
    DataStore, Entry, EntryId, ItemValue, JsonOptions, NewValue, ReplicaId, StoreError,
    StoreOptions, Timestamp, Version,
};
use serde_json::{Map, Value as Json, json};

use crate::dice::Dice;
use crate::store_rules::check_store_rules;

/// The fewest and most users of a story.
pub const USERS: std::ops::RangeInclusive<usize> = 2..=4;

/// Ids without any order between time, place in the cast and number.
const CAST: [u64; 4] = [0x7a11, u64::MAX, 1, 0x0123_4567_89ab_cdef];

/// Short, so that texts become blobs.
const LITERAL_SIZE_LIMIT: usize = 12;

/// Stores grow by copies of themselves, and the rules take time.
const ENTRIES_MAX: usize = 120;

/// Something that happens. `at`, `from` and `to` pick a user.
#[derive(Clone, Debug, Arbitrary)]
#[expect(missing_docs, reason = "the variants say it")]
pub enum StoreStep {
    /// An edit, legal or not.
    Edit { at: u8, edit: StoreEdit },
    /// Several edits as one. A part of them may fail by itself, and so may the whole.
    Transaction { at: u8, edits: Vec<StoreEdit>, failing_part: Vec<StoreEdit>, fails: bool },
    /// What the other side lacks.
    Send { from: u8, to: u8 },
    /// Any patch that was ever sent, again or late.
    SendAgain { to: u8, which: u8 },
    /// A snapshot of another's store is taken in as a patch.
    Merge { from: u8, to: u8 },
    /// JSON of another's store is taken in, overwriting.
    ImportStore { from: u8, to: u8, as_copy: bool },
    /// JSON of another's entry is taken in, keeping ids or not.
    ImportEntry { from: u8, to: u8, entry: u8, outer: u8, index: u8, form: u8 },
    /// A store is saved and loaded.
    Reload { at: u8 },
}

/// An edit: the numbers pick among the entries that show, and one that does not.
#[derive(Clone, Debug, Arbitrary)]
pub struct StoreEdit {
    /// What to do.
    pub kind: u8,
    /// With which entries, and what else it takes.
    pub picks: [u8; 4],
}

impl StoreEdit {
    fn any() -> impl Strategy<Value = Self> {
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

impl StoreStep {
    /// Steps of every kind, edits most often.
    pub fn any() -> impl Strategy<Value = Self> {
        let edits = |most| prop::collection::vec(StoreEdit::any(), 0..most);
        let users = || (any::<u8>(), any::<u8>());
        proptest::prop_oneof![
            16 => (any::<u8>(), StoreEdit::any()).prop_map(|(at, edit)| Self::Edit { at, edit }),
            2 => (any::<u8>(), edits(4), edits(3), any::<bool>()).prop_map(
                |(at, edits, failing_part, fails)| Self::Transaction { at, edits, failing_part, fails }
            ),
            5 => users().prop_map(|(from, to)| Self::Send { from, to }),
            2 => users().prop_map(|(to, which)| Self::SendAgain { to, which }),
            1 => users().prop_map(|(from, to)| Self::Merge { from, to }),
            1 => (users(), any::<bool>())
                .prop_map(|((from, to), as_copy)| Self::ImportStore { from, to, as_copy }),
            2 => (users(), users(), users()).prop_map(
                |((from, to), (entry, outer), (index, form))| {
                    Self::ImportEntry { from, to, entry, outer, index, form }
                }
            ),
            1 => any::<u8>().prop_map(|at| Self::Reload { at }),
        ]
    }
}

/// A few users, each with a store.
#[derive(Debug)]
pub struct StoreStory {
    users: Vec<DataStore>,
    sent: Vec<Vec<u8>>,
}

impl StoreStory {
    /// As many users, each with a fresh store.
    #[must_use]
    pub fn new(users: usize) -> Self {
        let ids = CAST.into_iter().filter_map(ReplicaId::new).take(users);
        let users = ids.map(|id| DataStore::new(id).with_options(options())).collect();
        Self { users, sent: Vec::new() }
    }

    /// Takes the steps. Panics if a rule does not hold after one of them.
    #[must_use]
    pub fn run(mut self, steps: &[StoreStep]) -> Self {
        for step in steps {
            let touched = self.take(step);
            let store = &self.users[touched];
            store.assert_invariants();
            let rules = check_store_rules(store);
            assert_eq!(rules, Ok(()), "after {step:?}");
        }
        self
    }

    /// Lets everything arrive everywhere, in an order that the seed decides. Panics unless all stores
    /// are the same then.
    pub fn converge(mut self, seed: u64) {
        let mut dice = Dice::new(seed);
        let patches: Vec<_> =
            self.users.iter().map(|user| user.export_patch(&Version::new())).collect();
        self.sent.extend(patches);
        for user in &mut self.users {
            dice.shuffle(&mut self.sent);
            for patch in &self.sent {
                user.apply_remote_patch(patch).expect("what was sent can be taken in");
            }
            assert_eq!(check_store_rules(user), Ok(()));
        }
        let (first, others) = self.users.split_first_mut().expect("somebody");
        let (json, digest) = (first.as_json(), first.digest());
        for other in others {
            assert_eq!(other.as_json(), json);
            assert_eq!(other.digest(), digest);
        }
    }

    fn user(&self, number: u8) -> usize {
        usize::from(number) % self.users.len()
    }

    /// Takes a step, and returns whose store it touched.
    fn take(&mut self, step: &StoreStep) -> usize {
        match step {
            StoreStep::Edit { at, edit } => {
                let at = self.user(*at);
                if !(self.users[at].entry_count() >= ENTRIES_MAX && edit.kind % 32 < 8) {
                    attempt(&mut self.users[at], |store| edit.make(store));
                }
                at
            }
            StoreStep::Transaction { at, edits, failing_part, fails } => {
                let at = self.user(*at);
                attempt(&mut self.users[at], |store| {
                    transaction(store, edits, failing_part, *fails)
                });
                at
            }
            StoreStep::Send { from, to } => {
                let (from, to) = (self.user(*from), self.user(*to));
                let patch = self.users[from].export_patch(self.users[to].version());
                self.users[to].apply_remote_patch(&patch).expect("a patch can be taken in");
                self.sent.push(patch);
                to
            }
            StoreStep::SendAgain { to, which } => {
                let to = self.user(*to);
                if let Some(which) = usize::from(*which).checked_rem(self.sent.len()) {
                    let done = self.users[to].apply_remote_patch(&self.sent[which]);
                    done.expect("a patch can be taken in at any time");
                }
                to
            }
            StoreStep::Merge { from, to } => {
                let (from, to) = (self.user(*from), self.user(*to));
                let snapshot = self.users[from].as_binary();
                let done = self.users[to].merge_binary(&snapshot).expect("it is one");
                assert_eq!(done.newer, 0);
                assert!(self.users[to].version().covers(self.users[from].version()));
                to
            }
            StoreStep::ImportStore { from, to, as_copy } => {
                self.import_store(self.user(*from), self.user(*to), *as_copy)
            }
            StoreStep::ImportEntry { from, to, entry, outer, index, form } => {
                let (from, to) = (self.user(*from), self.user(*to));
                let exported = self.users[from].entry(pick(&self.users[from], *entry));
                let exported = exported.ok().filter(|entry| is_small(*entry));
                let Some((json, bytes)) = exported.map(forms) else { return to };
                let exported = exported.expect("it has forms");
                let (source, expected) = (exported.id(), Shape::of(exported));
                let outer = pick(&self.users[to], *outer);
                let index = Some(usize::from(*index) % 8).filter(|index| *index < 7);
                let mut made = None;
                attempt(&mut self.users[to], |store| {
                    made = import_entry(store, (&json, &bytes), (outer, index), *form)?;
                    Ok(())
                });
                match made {
                    Some(Imported::Copy(copy)) => {
                        let copy = self.users[to].entry(copy).expect("it was made");
                        assert_eq!(Shape::of(copy), expected);
                    }
                    Some(Imported::Itself(had)) => {
                        if from != to {
                            let source = self.users[from].entry(source).expect("it was exported");
                            assert_imported(source, &self.users[to], had);
                        }
                    }
                    None => {}
                }
                to
            }
            StoreStep::Reload { at } => {
                let at = self.user(*at);
                let (id, snapshot) = (self.users[at].replica_id(), self.users[at].as_binary());
                let loaded =
                    DataStore::from_binary(id, &snapshot).expect("a snapshot can be loaded");
                self.users[at] = loaded.with_options(options());
                at
            }
        }
    }

    fn import_store(&mut self, from: usize, to: usize, as_copy: bool) -> usize {
        let json = self.users[from].as_json();
        let store = &mut self.users[to];
        if as_copy {
            if store.entry_count() < ENTRIES_MAX {
                attempt(store, |store| store.import_json_as_copy(&json).map(drop));
            }
            return to;
        }
        let had = store.entry_count();
        if attempt(store, |store| store.import_json(&json)) {
            let version = store.version().clone();
            store.import_json(&json).expect("what was imported can be imported");
            assert_eq!(*store.version(), version, "importing twice changes nothing");
            if from != to {
                assert_imported(self.users[from].root_item(), &self.users[to], had);
            }
        }
        to
    }
}

fn options() -> StoreOptions {
    StoreOptions::default().with_literal_size_limit(LITERAL_SIZE_LIMIT)
}

/// Does something; if it is refused nothing may have changed. Returns whether it was done.
fn attempt(
    store: &mut DataStore,
    work: impl FnOnce(&mut DataStore) -> Result<(), StoreError>,
) -> bool {
    let (json, version) = (store.as_json(), store.version().clone());
    match work(store) {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(store.as_json(), json, "{error} changed something");
            assert_eq!(*store.version(), version, "{error} changed something");
            assert!(!error.code().is_empty() && !error.to_string().is_empty());
            false
        }
    }
}

fn transaction(
    store: &mut DataStore,
    edits: &[StoreEdit],
    failing_part: &[StoreEdit],
    fails: bool,
) -> Result<(), StoreError> {
    let failure = || StoreError::OutOfIds;
    store.transact(|store| {
        edits.iter().for_each(|edit| drop(edit.make(store)));
        let before = store.as_json();
        let part: Result<(), StoreError> = store.transact(|store| {
            failing_part.iter().for_each(|edit| drop(edit.make(store)));
            Err(failure())
        });
        assert_eq!(part, Err(failure()));
        assert_eq!(store.as_json(), before, "the part that failed left nothing");
        if fails { Err(failure()) } else { Ok(()) }
    })
}

/// What became of an entry that was imported.
enum Imported {
    /// The copy.
    Copy(EntryId),
    /// It has its id; so many entries were there before.
    Itself(usize),
}

fn import_entry(
    store: &mut DataStore,
    (json, bytes): (&str, &[u8]),
    (outer, index): (EntryId, Option<usize>),
    form: u8,
) -> Result<Option<Imported>, StoreError> {
    let room = ENTRIES_MAX.saturating_sub(store.entry_count());
    let copy = match form % 3 {
        0 if room > 0 => store.new_entry_from_json_at(json, outer, index)?,
        1 if room > 0 => store.new_entry_from_binary_at(bytes, outer, index)?,
        _ => {
            let had = store.entry_count();
            let imported = store.import_entry_from_json_at(json, outer, index)?;
            let version = store.version().clone();
            // A link may bring a placeholder into Lost and Found, which changes what stands at an index.
            let again = index.filter(|_| outer != EntryId::LOST_AND_FOUND);
            store.import_entry_from_json_at(json, outer, again)?;
            assert_eq!(*store.version(), version, "importing twice changes nothing");
            assert_placed(store, imported, outer, index);
            return Ok(Some(Imported::Itself(had)));
        }
    };
    assert_placed(store, copy, outer, index);
    Ok(Some(Imported::Copy(copy)))
}

/// The entry stands where it was asked for; in Lost and Found what is rescued comes and goes.
fn assert_placed(store: &DataStore, entry: EntryId, outer: EntryId, index: Option<usize>) {
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

/// What an entry holds by itself, but for the time of deletion.
type Content = (bool, String, String, ItemValue, Map<String, Json>);

fn content(entry: Entry<'_>) -> Content {
    let mut info = entry.info_map();
    info.remove("_trashedAt");
    let value = match entry.blob_ref() {
        Some(blob) => ItemValue::Pending(blob),
        None => entry.value(),
    };
    let (label, mime_type) = (entry.label().into_owned(), entry.mime_type().into_owned());
    (entry.is_item(), label, mime_type, value, info)
}

/// An entry with all inside, whatever the ids.
#[derive(Debug, PartialEq)]
struct Shape(Vec<(usize, Content, Option<Target>)>);

/// Where a link leads: to the n-th entry inside, or outside.
#[derive(Debug, PartialEq)]
enum Target {
    Inside(usize),
    Outside(EntryId),
}

impl Shape {
    fn of(top: Entry<'_>) -> Self {
        let (mut all, mut rest) = (Vec::new(), vec![(top, 0)]);
        while let Some((entry, depth)) = rest.pop() {
            all.push((entry, depth));
            rest.extend(entry.inner_entries().rev().map(|inner| (inner, depth + 1)));
        }
        let target = |link: Entry<'_>| {
            let target = link.target_id()?;
            let at = all.iter().position(|(entry, _)| entry.id() == target);
            Some(at.map_or(Target::Outside(target), Target::Inside))
        };
        Self(all.iter().map(|(entry, depth)| (*depth, content(*entry), target(*entry))).collect())
    }
}

/// Everything in an entry is in another store as it is here, and in the same order; and nothing else
/// has gone there.
fn assert_imported(source: Entry<'_>, target: &DataStore, had: usize) {
    let mut rest = vec![source];
    while let Some(entry) = rest.pop() {
        let imported = target.entry(entry.id()).expect("it was imported");
        assert_eq!(content(imported), content(entry));
        assert_eq!(imported.target_id(), entry.target_id());
        let inner: Vec<Entry<'_>> = entry.inner_entries().collect();
        let places: Vec<_> = inner
            .iter()
            .filter(|inner| !inner.is_placeholder())
            .map(|inner| target.entry(inner.id()).expect("it was imported"))
            .inspect(|inner| assert_eq!(inner.outer_item_id(), Some(entry.id())))
            .map(|inner| inner.index())
            .collect();
        assert!(places.is_sorted_by(|a, b| a < b), "in the same order");
        rest.extend(inner.into_iter().filter(|inner| !inner.is_placeholder()));
    }
    assert!(target.entry_count() + 1 >= had, "what was here stays, but for a placeholder");
}

/// An entry as JSON and as bytes, contents of blobs included.
fn forms(entry: Entry<'_>) -> (String, Vec<u8>) {
    let options = JsonOptions::default().with_blobs();
    let mut json = Vec::new();
    entry.write_json_with(&mut json, options).expect("memory takes everything");
    (String::from_utf8(json).expect("JSON is UTF-8"), entry.as_binary_with(options))
}

fn is_small(entry: Entry<'_>) -> bool {
    let mut all = vec![entry];
    while let Some(next) = all.pop() {
        all.extend(next.inner_entries());
        if all.len() > ENTRIES_MAX / 4 {
            return false;
        }
    }
    true
}

/// An entry that shows, or one that does not.
fn pick(store: &DataStore, number: u8) -> EntryId {
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
