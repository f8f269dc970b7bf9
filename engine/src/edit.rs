//! Local edits: they become ops, which take effect at once.
//!
//! Edits are checked against what is shown, not against the hidden tree of moves. Where the two
//! differ, the same change first makes explicit what is shown (MERGING, "What is shown").
//!
//! Not here: how ops become a change or are taken back (`transaction`), keys for places (`place`).

use std::ops::Range;

use crate::error::EditError;
use crate::id::{EntryId, Life, Timestamp};
use crate::limits::{COUNTER_MAX, INFO_KEY_BYTES_MAX};
use crate::op::{NewEntry, Op};
use crate::registers::EntryState;
use crate::replica::Replica;
use crate::text::TextUnit;
use crate::text_slice::out_of_range;
use crate::value::{Field, Value};

impl Replica {
    /// Creates an item in `parent`, to stand at `index` there, or last if there are fewer.
    ///
    /// # Errors
    /// If `parent` is not a shown item.
    pub fn create_item(&mut self, parent: EntryId, index: usize) -> Result<EntryId, EditError> {
        self.create(None, NewEntry::Item, parent, index)
    }

    /// Creates a link to `target` in `parent`, to stand at `index` there, or last.
    ///
    /// # Errors
    /// If `target` or `parent` is not a shown item.
    pub fn create_link(
        &mut self,
        target: EntryId,
        parent: EntryId,
        index: usize,
    ) -> Result<EntryId, EditError> {
        self.require_item(target)?;
        self.create(None, NewEntry::Link { target }, parent, index)
    }

    /// Creates an entry with an id that came from elsewhere, as imports do.
    ///
    /// # Errors
    /// If the id is in use, or `parent` is not a shown item.
    pub fn create_with_id(
        &mut self,
        entry: EntryId,
        kind: NewEntry,
        parent: EntryId,
        index: usize,
    ) -> Result<(), EditError> {
        if self.is_alive(entry) {
            return Err(EditError::AlreadyExists(entry));
        }
        self.create(Some(entry), kind, parent, index).map(drop)
    }

    fn create(
        &mut self,
        entry: Option<EntryId>,
        kind: NewEntry,
        parent: EntryId,
        index: usize,
    ) -> Result<EntryId, EditError> {
        self.transact(|replica| {
            replica.enter(entry, parent)?;
            let key = replica.make_place(parent, index, entry)?;
            let entry = match entry {
                Some(entry) => entry,
                None if replica.next_id().counter > COUNTER_MAX => return Err(EditError::OutOfIds),
                None => EntryId::created_by(replica.next_id()),
            };
            let life = replica.life(entry);
            replica.push(Op::Create { entry, life, kind, parent, key })?;
            Ok(entry)
        })
    }

    /// Puts the entry into `parent`, to stand at `index` there afterwards, or last.
    ///
    /// # Errors
    /// If either does not show, `parent` is no item, the entry would become its own ancestor, or it
    /// is a system entry that would leave Root.
    pub fn move_to(
        &mut self,
        entry: EntryId,
        parent: EntryId,
        index: usize,
    ) -> Result<(), EditError> {
        self.check_move(entry, parent)?;
        self.relocate(entry, parent, index, None)
    }

    /// Whether [`Replica::move_to`] would move `entry` into `parent`.
    ///
    /// # Errors
    /// What it would say.
    pub fn check_move(&self, entry: EntryId, parent: EntryId) -> Result<(), EditError> {
        self.require_shown(entry)?;
        self.require_item(parent)?;
        if entry == EntryId::ROOT || (entry.is_well_known() && parent != EntryId::ROOT) {
            return Err(EditError::WellKnown(entry));
        }
        if self.display.is_at_or_above(entry, parent) {
            return Err(EditError::WouldCycle { entry, target: parent });
        }
        Ok(())
    }

    /// Deletes the entry: puts it, with all inside, at the end of Trash, noting the time.
    ///
    /// # Errors
    /// If it does not show or is a system entry.
    pub fn trash(&mut self, entry: EntryId, now: Timestamp) -> Result<(), EditError> {
        self.require_shown(entry)?;
        if entry.is_well_known() {
            return Err(EditError::WellKnown(entry));
        }
        self.relocate(entry, EntryId::TRASH, usize::MAX, Some(now))
    }

    /// Ends the life of the entry and of all that shows inside it, for good and against every
    /// concurrent edit.
    ///
    /// # Errors
    /// If it does not show, is a system entry, or is a placeholder, which has no life to end.
    pub fn purge(&mut self, entry: EntryId) -> Result<(), EditError> {
        self.require_shown(entry)?;
        if entry.is_well_known() {
            return Err(EditError::WellKnown(entry));
        }
        if !self.is_alive(entry) {
            return Err(EditError::NotFound(entry));
        }
        let mut entries = Vec::new();
        let mut inside = vec![entry];
        while let Some(entry) = inside.pop() {
            let life = self.life(entry);
            life.next().ok_or(EditError::OutOfIds)?;
            entries.push((entry, life));
            inside.extend(self.children(entry).rev());
        }
        self.transact(|replica| replica.push(Op::Purge { entries }))
    }

    /// Sets a field; the value before is gone, and of concurrent settings the newest wins.
    ///
    /// # Errors
    /// If the entry does not show, or the key of an info field is empty or too long.
    pub fn set(&mut self, entry: EntryId, field: Field, value: Value) -> Result<(), EditError> {
        self.require_shown(entry)?;
        if matches!(&field, Field::Info(key) if key.is_empty() || key.len() > INFO_KEY_BYTES_MAX) {
            return Err(EditError::TooLong("the info key"));
        }
        let life = self.life(entry);
        self.transact(|replica| replica.push(Op::Set { entry, life, field, value }))
    }

    /// Replaces a range of UTF-16 units of the text in a field. Concurrent splices of one text merge.
    ///
    /// # Errors
    /// If the entry does not show, the field holds no text, or the range does not lie on character
    /// boundaries inside it.
    pub fn splice(
        &mut self,
        entry: EntryId,
        field: Field,
        range: Range<usize>,
        text: &str,
    ) -> Result<(), EditError> {
        self.splice_by(entry, field, range, TextUnit::Utf16, text)
    }

    /// The same for a range that counts another unit. O(log n) and what it deletes and inserts; O(1)
    /// where the last edit of the text was.
    ///
    /// ```
    /// use sds_engine::{EntryId, Field, Replica, ReplicaId, TextUnit, Value};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut desk = Replica::new(ReplicaId::new(1).ok_or("zero")?);
    /// desk.set(EntryId::ROOT, Field::Label, Value::Text("na\u{ef}ve".into()))?;
    /// desk.splice_by(EntryId::ROOT, Field::Label, 2..3, TextUnit::Chars, "i")?;
    /// assert_eq!(desk.value(EntryId::ROOT, &Field::Label), Value::Text("naive".into()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`Replica::splice`].
    pub fn splice_by(
        &mut self,
        entry: EntryId,
        field: Field,
        range: Range<usize>,
        unit: TextUnit,
        text: &str,
    ) -> Result<(), EditError> {
        self.require_shown(entry)?;
        let register = self.entries.get_mut(&entry).and_then(|state| state.register_mut(&field));
        let register = register.ok_or(EditError::NotText(entry))?;
        let set = register.stamp.op();
        let splice = register.resolve(&range, unit, !text.is_empty());
        let Some(splice) = splice.ok_or(EditError::NotText(entry))? else {
            let text = register.text().ok_or(EditError::NotText(entry))?;
            return Err(out_of_range(text, &range, unit));
        };
        let life = self.life(entry);
        self.transact(|replica| {
            if !splice.deleted.is_empty() {
                let (field, ranges) = (field.clone(), splice.deleted.into_vec());
                replica.push(Op::Delete { entry, life, field, set, ranges })?;
            }
            if !text.is_empty() {
                let (origin, text) = (splice.origin, text.to_owned());
                replica.push(Op::Insert { entry, life, field, set, origin, text })?;
            }
            Ok(())
        })
    }

    /// Puts a shown entry into a shown item that is not inside it.
    fn relocate(
        &mut self,
        entry: EntryId,
        parent: EntryId,
        index: usize,
        trashed_at: Option<Timestamp>,
    ) -> Result<(), EditError> {
        self.transact(|replica| {
            replica.enter(Some(entry), parent)?;
            let key = replica.make_place(parent, index, Some(entry))?;
            let op = if trashed_at.is_none() && replica.is_placed_in(entry, parent) {
                Op::Reorder { entry, life: replica.life(entry), parent, key }
            } else {
                Op::Move { entry, life: replica.life(entry), parent, key, trashed_at }
            };
            replica.push(op)
        })
    }

    /// Makes sure that `parent` can take entries, and that `entry` can go there.
    fn enter(&mut self, entry: Option<EntryId>, parent: EntryId) -> Result<(), EditError> {
        self.require_item(parent)?;
        if !self.is_alive(parent) {
            self.push(Op::Revive { entry: parent, life: self.life(parent) })?;
        }
        let Some(entry) = entry.filter(|entry| self.tree.is_at_or_above(*entry, parent)) else {
            return Ok(());
        };
        // Not inside it as shown: on the way up, something shows in Lost and Found without having
        // been put there. Putting it there for good breaks the hidden chain.
        let mut rescued = parent;
        while let Some(above) = self.parent(rescued).filter(|up| *up != EntryId::LOST_AND_FOUND) {
            rescued = above;
        }
        if self.parent(rescued).is_none() || rescued == entry {
            return Err(EditError::WouldCycle { entry, target: parent });
        }
        self.pin(rescued)
    }

    /// Moves an entry that only shows in Lost and Found into it, at the index where it shows.
    fn pin(&mut self, entry: EntryId) -> Result<(), EditError> {
        let parent = EntryId::LOST_AND_FOUND;
        let index = self.index_of(entry).unwrap_or(usize::MAX);
        let key = self.make_place(parent, index, Some(entry))?;
        let life = self.life(entry);
        self.push(Op::Move { entry, life, parent, key, trashed_at: None })
    }

    /// Whether the entry was put into `parent` in its current life, rather than only showing there.
    pub(crate) fn is_placed_in(&self, entry: EntryId, parent: EntryId) -> bool {
        let place = self.tree.placement(entry);
        place.is_some_and(|place| place.parent == parent && place.life == self.life(entry))
    }

    /// Whether this replica made the key under which the entry shows.
    pub(crate) fn is_own_place(&self, entry: EntryId) -> bool {
        let place = self.tree.placement(entry);
        place.is_some_and(|place| {
            place.stamp.is_some_and(|stamp| stamp.replica == self.id)
                && self.display.place(entry).is_some_and(|shown| shown.key == place.key)
        })
    }

    pub(crate) fn life(&self, entry: EntryId) -> Life {
        self.entries.get(&entry).map(EntryState::life).unwrap_or_default()
    }

    fn require_shown(&self, entry: EntryId) -> Result<(), EditError> {
        if self.is_shown(entry) { Ok(()) } else { Err(EditError::NotFound(entry)) }
    }

    fn require_item(&self, entry: EntryId) -> Result<(), EditError> {
        match self.kind(entry) {
            Some(NewEntry::Item) => Ok(()),
            Some(NewEntry::Link { .. }) => Err(EditError::NotAnItem(entry)),
            None => Err(EditError::NotFound(entry)),
        }
    }
}
