//! Local edits, drawn at random, legal and illegal ones, each with what it must bring about.

use std::ops::Range;

use arbitrary::Arbitrary;
use proptest::prelude::{Strategy, any};
use sds_engine::{EditError, EntryId, NewEntry, Replica, Timestamp, Value};

use crate::pool;
use crate::view::View;

/// An edit: the numbers pick among the entries that are shown, and a few that are not.
#[derive(Clone, Debug, Arbitrary)]
#[expect(missing_docs, reason = "the fields are the arguments of the edits, as numbers that pick")]
pub enum Edit {
    CreateItem { parent: u8, index: u8 },
    CreateLink { target: u8, parent: u8, index: u8 },
    CreateWithId { entry: u8, link: Option<u8>, parent: u8, index: u8 },
    Move { entry: u8, parent: u8, index: u8 },
    Trash { entry: u8, time: u8 },
    Set { entry: u8, field: u8, value: u8 },
    Splice { entry: u8, field: u8, from: u8, len: u8, text: u8 },
    Purge { entry: u8 },
    Rebalance { parent: u8 },
}

impl Edit {
    /// Edits of every kind, moves most often.
    pub fn any() -> impl Strategy<Value = Self> {
        type Numbers = (u8, u8, u8, u8, u8);
        (0..15u8, any::<Numbers>(), any::<Option<u8>>()).prop_map(
            |(kind, (a, b, c, d, e), link)| match kind {
                0 | 1 => Self::CreateItem { parent: a, index: b },
                2 => Self::CreateLink { target: a, parent: b, index: c },
                3 => Self::CreateWithId { entry: a, link, parent: b, index: c },
                4..=6 => Self::Move { entry: a, parent: b, index: c },
                7 => Self::Trash { entry: a, time: b },
                8 | 9 => Self::Set { entry: a, field: b, value: c },
                10 | 11 => Self::Splice { entry: a, field: b, from: c, len: d, text: e },
                12 => Self::Rebalance { parent: a },
                _ => Self::Purge { entry: a },
            },
        )
    }

    /// Makes the edit on the replica, and panics unless it is refused exactly where it must be.
    ///
    /// With `keeps_promises` it must also bring about what its kind promises. That is only to be
    /// had while nobody has forged an op of a life to come, which beats what honest people do.
    ///
    /// # Errors
    /// Why the replica refused.
    pub fn make(&self, replica: &mut Replica, keeps_promises: bool) -> Result<(), EditError> {
        let before = View::of_replica(replica);
        let entries = nameable(&before);
        Editor { replica, before, entries, keeps_promises }.make(self)
    }
}

/// What is shown, and the foreign ids of the pool whether they are shown or not.
fn nameable(view: &View) -> Vec<EntryId> {
    let unknown = pool::ENTRIES.into_iter().filter(|entry| !view.has(*entry));
    view.entries().chain(unknown).collect()
}

struct Editor<'a> {
    replica: &'a mut Replica,
    before: View,
    entries: Vec<EntryId>,
    keeps_promises: bool,
}

impl Editor<'_> {
    fn make(mut self, edit: &Edit) -> Result<(), EditError> {
        match *edit {
            Edit::CreateItem { parent, index } => self.create_item(parent, index),
            Edit::CreateLink { target, parent, index } => self.create_link(target, parent, index),
            Edit::CreateWithId { entry, link, parent, index } => {
                let kind = match link {
                    None => NewEntry::Item,
                    Some(target) => NewEntry::Link { target: self.entry(target) },
                };
                self.create_with_id(entry, kind, parent, index)
            }
            Edit::Move { entry, parent, index } => self.move_to(entry, parent, index),
            Edit::Trash { entry, time } => self.trash(entry, time),
            Edit::Set { entry, field, value } => self.set(entry, field, value),
            Edit::Splice { entry, field, from, len, text } => {
                self.splice((entry, field), (from, len), pool::text(text))
            }
            Edit::Purge { entry } => self.purge(entry),
            Edit::Rebalance { parent } => self.rebalance(parent),
        }
    }

    fn create_item(&mut self, parent: u8, index: u8) -> Result<(), EditError> {
        let (parent, index) = self.place(parent, index);
        let made = self.replica.create_item(parent, index);
        assert_eq!(made.is_ok(), self.before.is_item(parent), "{made:?}");
        self.assert_placed(made?, parent, index, NewEntry::Item);
        Ok(())
    }

    fn create_link(&mut self, target: u8, parent: u8, index: u8) -> Result<(), EditError> {
        let target = self.entry(target);
        let (parent, index) = self.place(parent, index);
        let made = self.replica.create_link(target, parent, index);
        let is_legal = self.before.is_item(parent) && self.before.is_item(target);
        assert_eq!(made.is_ok(), is_legal, "{made:?}");
        self.assert_placed(made?, parent, index, NewEntry::Link { target });
        Ok(())
    }

    fn create_with_id(
        &mut self,
        entry: u8,
        kind: NewEntry,
        parent: u8,
        index: u8,
    ) -> Result<(), EditError> {
        let entry = self.entry(entry);
        let (parent, index) = self.place(parent, index);
        let made = self.replica.create_with_id(entry, kind, parent, index);
        let is_legal =
            !self.before.is_alive(entry) && self.before.is_item(parent) && entry != parent;
        assert_eq!(made.is_ok(), is_legal, "{made:?}");
        made?;
        self.assert_placed(entry, parent, index, kind);
        Ok(())
    }

    fn move_to(&mut self, entry: u8, parent: u8, index: u8) -> Result<(), EditError> {
        let entry = self.entry(entry);
        let (parent, index) = self.place(parent, index);
        let kind = self.replica.kind(entry);
        let moved = self.replica.move_to(entry, parent, index);
        let may_go = !entry.is_well_known() || (entry != EntryId::ROOT && parent == EntryId::ROOT);
        let is_legal = self.before.has(entry)
            && self.before.is_item(parent)
            && !self.before.subtree(entry).contains(&parent)
            && may_go;
        assert_eq!(moved.is_ok(), is_legal, "{moved:?}");
        moved?;
        self.assert_placed(entry, parent, index, kind.expect("what is shown is of a kind"));
        Ok(())
    }

    fn trash(&mut self, entry: u8, time: u8) -> Result<(), EditError> {
        let (entry, time) = (self.entry(entry), Timestamp::from_millis(time.into()));
        let trashed = self.replica.trash(entry, time);
        let is_legal = self.before.has(entry) && !entry.is_well_known();
        assert_eq!(trashed.is_ok(), is_legal, "{trashed:?}");
        trashed?;
        if self.keeps_promises {
            assert_eq!(self.replica.parent(entry), Some(EntryId::TRASH));
            assert_eq!(self.replica.trashed_at(entry), Some(time));
        }
        Ok(())
    }

    fn set(&mut self, entry: u8, field: u8, value: u8) -> Result<(), EditError> {
        let (entry, field, value) = (self.entry(entry), pool::field(field), pool::value(value));
        let set = self.replica.set(entry, field.clone(), value.clone());
        assert_eq!(set.is_ok(), self.before.has(entry), "{set:?}");
        set?;
        if self.keeps_promises {
            assert_eq!(self.replica.value(entry, &field), value);
        }
        Ok(())
    }

    fn splice(&mut self, at: (u8, u8), range: (u8, u8), text: &str) -> Result<(), EditError> {
        let (entry, field) = (self.entry(at.0), pool::field(at.1));
        let old = match self.before.value(entry, &field) {
            Value::Text(old) => Some(old),
            _ => None,
        };
        // One past the end at times, and at times between the halves of a surrogate pair.
        let len = old.as_ref().map_or(3, |old| old.encode_utf16().count());
        let from = usize::from(range.0) % (len + 1);
        let range = from..from + usize::from(range.1) % (len - from + 2);
        let expected = old.and_then(|old| spliced(&old, &range, text));
        let done = self.replica.splice(entry, field.clone(), range.clone(), text);
        assert_eq!(done.is_ok(), expected.is_some(), "{range:?}: {done:?}, not {expected:?}");
        done?;
        assert_eq!(Some(self.replica.value(entry, &field)), expected.map(Value::Text));
        Ok(())
    }

    fn purge(&mut self, entry: u8) -> Result<(), EditError> {
        let entry = self.entry(entry);
        let purged = self.replica.purge(entry);
        if purged != Err(EditError::OutOfIds) {
            let is_legal = self.before.is_alive(entry) && !entry.is_well_known();
            assert_eq!(purged.is_ok(), is_legal, "{purged:?}");
        }
        purged?;
        if self.keeps_promises {
            let subtree = self.before.subtree(entry);
            let survivor = subtree.into_iter().find(|below| self.replica.is_alive(*below));
            assert_eq!(survivor, None, "a purge ends everything below");
        }
        Ok(())
    }

    fn rebalance(&mut self, parent: u8) -> Result<(), EditError> {
        let parent = self.entry(parent);
        let done = self.replica.rebalance(parent);
        assert_eq!(done.is_ok(), self.before.is_item(parent), "{done:?}");
        done?;
        if self.keeps_promises {
            let now = View::of_replica(self.replica);
            assert_eq!(now, self.before, "new keys change nothing that shows");
        }
        Ok(())
    }

    fn entry(&self, number: u8) -> EntryId {
        pool::pick(&self.entries, number).expect("Root is always shown")
    }

    /// A container and a place in it, at times past the last.
    fn place(&self, parent: u8, index: u8) -> (EntryId, usize) {
        let parent = self.entry(parent);
        (parent, usize::from(index) % (self.before.children(parent).len() + 2))
    }

    /// The entry stands at its index, and all others of the container where they were.
    fn assert_placed(&self, entry: EntryId, parent: EntryId, index: usize, kind: NewEntry) {
        if !self.keeps_promises {
            return;
        }
        let others = self.before.children(parent).iter().copied();
        let mut expected: Vec<_> = others.filter(|child| *child != entry).collect();
        expected.insert(index.min(expected.len()), entry);
        let mut children: Vec<_> = self.replica.children(parent).collect();
        if parent == EntryId::LOST_AND_FOUND || !self.before.is_alive(parent) {
            // Placeholders may come and go, and what was rescued goes back to what lives again.
            let now = children.clone();
            children.retain(|child| expected.contains(child));
            expected.retain(|child| *child == entry || now.contains(child));
        }
        assert_eq!(children, expected, "{entry:?} is where it was asked for");
        assert_eq!(self.replica.kind(entry), Some(kind));
    }
}

/// The text after the edit, if the range lies on character boundaries inside it.
fn spliced(old: &str, range: &Range<usize>, new: &str) -> Option<String> {
    let units: Vec<u16> = old.encode_utf16().collect();
    let read = |range: Range<usize>| String::from_utf16(units.get(range)?).ok();
    read(range.clone())?;
    Some(read(0..range.start)? + new + &read(range.end..units.len())?)
}
