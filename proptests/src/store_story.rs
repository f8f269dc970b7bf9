//! Stories of a few users of one store: who does what, what reaches whom.
//!
//! A [`StoreStep`] is a recipe of small numbers, so that any list of steps is a story. After each step
//! the rules of [`store_rules`](crate::store_rules) must hold of the store that it touched, somebody who
//! listens must have been told exactly what has changed, and a step that was refused must have changed
//! nothing.

mod edits;
mod imports;

use arbitrary::Arbitrary;
use proptest::prelude::{Strategy, any, prop};
use sds_store::{DataStore, ReplicaId, StoreError, StoreOptions, UndoOptions, Version};

use crate::dice::Dice;
use crate::store_rules::check_store_rules;
use crate::user::NOW;
use crate::watcher::Watcher;
pub use edits::StoreEdit;
use edits::pick;
use imports::{Imported, Shape, assert_imported, forms, import_entry, is_small};

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
    /// A store is saved and loaded. What could be undone no longer can.
    Reload { at: u8 },
    /// The last steps are undone, and some of them redone.
    UndoRedo { at: u8, back: u8, forth: u8 },
    /// What follows is one step to undo, or no longer.
    UndoGroup { at: u8, begins: bool },
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
            3 => (any::<u8>(), 0..4u8, 0..4u8)
                .prop_map(|(at, back, forth)| Self::UndoRedo { at, back, forth }),
            1 => (any::<u8>(), any::<bool>())
                .prop_map(|(at, begins)| Self::UndoGroup { at, begins }),
        ]
    }
}

/// A few users, each with a store.
#[derive(Debug)]
pub struct StoreStory {
    users: Vec<DataStore>,
    watchers: Vec<Watcher>,
    sent: Vec<Vec<u8>>,
}

impl StoreStory {
    /// As many users, each with a fresh store.
    #[must_use]
    pub fn new(users: usize) -> Self {
        let ids = CAST.into_iter().filter_map(ReplicaId::new).take(users);
        let mut users: Vec<_> = ids.map(|id| equipped(DataStore::new(id))).collect();
        let watchers = users.iter_mut().map(Watcher::of).collect();
        Self { users, watchers, sent: Vec::new() }
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
            self.watchers[touched].follow(store);
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
        for (user, watcher) in self.users.iter_mut().zip(&mut self.watchers) {
            dice.shuffle(&mut self.sent);
            for patch in &self.sent {
                user.apply_remote_patch(patch).expect("what was sent can be taken in");
            }
            assert_eq!(check_store_rules(user), Ok(()));
            watcher.follow(user);
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
                self.import_entry((from, to), (*entry, *outer), *index, *form);
                to
            }
            StoreStep::UndoRedo { at, back, forth } => {
                let at = self.user(*at);
                undo_and_redo(&mut self.users[at], back % 8, forth % 8);
                at
            }
            StoreStep::UndoGroup { at, begins: true } => {
                let at = self.user(*at);
                self.users[at].begin_undo_group();
                at
            }
            StoreStep::UndoGroup { at, begins: false } => {
                let at = self.user(*at);
                self.users[at].end_undo_group();
                at
            }
            StoreStep::Reload { at } => {
                let at = self.user(*at);
                let (id, snapshot) = (self.users[at].replica_id(), self.users[at].as_binary());
                let loaded = DataStore::from_binary(id, &snapshot).expect("it can be loaded");
                self.users[at] = equipped(loaded);
                self.watchers[at] = Watcher::of(&mut self.users[at]);
                at
            }
        }
    }

    fn import_entry(
        &mut self,
        (from, to): (usize, usize),
        (entry, outer): (u8, u8),
        index: u8,
        form: u8,
    ) {
        let exported = self.users[from].entry(pick(&self.users[from], entry));
        let Some(exported) = exported.ok().filter(|entry| is_small(*entry)) else { return };
        let (source, expected) = (exported.id(), Shape::of(exported));
        let (json, bytes) = forms(exported);
        let outer = pick(&self.users[to], outer);
        let index = Some(usize::from(index) % 8).filter(|index| *index < 7);
        let mut made = None;
        attempt(&mut self.users[to], |store| {
            made = Some(import_entry(store, (&json, &bytes), (outer, index), form)?);
            Ok(())
        });
        match made {
            Some(Imported::Copy(copy)) => {
                let copy = self.users[to].entry(copy).expect("it was made");
                assert_eq!(Shape::of(copy), expected);
            }
            Some(Imported::Itself(had)) if from != to => {
                let source = self.users[from].entry(source).expect("it was exported");
                assert_imported(source, &self.users[to], had);
            }
            _ => {}
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

fn equipped(store: DataStore) -> DataStore {
    let options = StoreOptions::default().with_literal_size_limit(LITERAL_SIZE_LIMIT);
    let mut store = store.with_options(options);
    store.enable_undo(UndoOptions::default().with_steps(8));
    store
}

/// Where there is nothing left to do, nothing happens.
fn undo_and_redo(store: &mut DataStore, back: u8, forth: u8) {
    for _ in 0..back {
        store.undo(NOW).expect("undoing is never refused");
    }
    for _ in 0..forth {
        store.redo(NOW).expect("redoing is never refused");
    }
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
