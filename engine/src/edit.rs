//! Local edits: they become ops, which take effect at once.
//!
//! Edits are checked against what is shown, not against the hidden tree of moves. Where the two
//! differ, the same change first makes explicit what is shown (MERGING, "What is shown").
//!
//! Not here: how ops become a change or are taken back (`transaction`), keys for places (`place`).

use std::ops::Range;

use crate::display::Sibling;
use crate::entries::EntryIx;
use crate::error::EditError;
use crate::id::{EntryId, Life, OpId, Timestamp};
use crate::limits::{COUNTER_MAX, INFO_KEY_BYTES_MAX};
use crate::op::{NewEntry, Op, Target, TextEdit};
use crate::replica::Replica;
use crate::text::{Splice, TextContent, TextForm, TextUnit};
use crate::text_slice::out_of_range;
use crate::value::{Field, Value};

/// An entry that is to go into a container.
pub(crate) struct Step {
    moving: EntryIx,
    into: EntryIx,
    /// Whether the container is inside the entry by the tree of moves, though it may not show so.
    is_above: bool,
}

impl Replica {
    /// Creates an item in `parent`, to stand at `index` there, or last if there are fewer. O(log n)
    /// in the number of siblings.
    ///
    /// # Errors
    /// If `parent` is not a shown item, or the ids of this replica are used up.
    pub fn create_item(&mut self, parent: EntryId, index: usize) -> Result<EntryId, EditError> {
        self.create(None, NewEntry::Item, parent, index)
    }

    /// Creates a link to `target` in `parent`, to stand at `index` there, or last. O(log n) in the
    /// number of siblings.
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

    /// Creates a link to an entry that may not be here, or not yet, as imports do. O(log n) in the
    /// number of siblings.
    ///
    /// # Errors
    /// If `parent` is not a shown item.
    pub fn create_link_unchecked(
        &mut self,
        target: EntryId,
        parent: EntryId,
        index: usize,
    ) -> Result<EntryId, EditError> {
        self.create(None, NewEntry::Link { target }, parent, index)
    }

    /// Creates an entry with an id that came from elsewhere, as imports do.
    ///
    /// # Errors
    /// If the id is that of a live entry, or `parent` is not a shown item.
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
        let into = self.require_item(parent)?;
        self.transact(|replica| {
            let known = entry.and_then(|entry| replica.entries.find(entry));
            match known {
                Some(known) => replica.enter(&replica.step(known, into))?,
                None => replica.open_up(into)?,
            }
            // The first key of a run is short if it is made for the op that bears it.
            if entry.is_none() {
                replica.free_id()?;
            }
            let key = replica.make_place(into, index, known)?;
            let entry = entry.map_or_else(|| replica.free_id(), Ok)?;
            let life = known.map(|known| replica.life(known)).unwrap_or_default();
            replica.push(Op::Create { entry, life, kind, parent, key })?;
            Ok(entry)
        })
    }

    /// The id of an entry that the next op creates. Ids that something here has named before are passed
    /// over, each once: an import may have brought them, or somebody may have made them up.
    fn free_id(&mut self) -> Result<EntryId, EditError> {
        let next = self.next_id();
        let mut id = next;
        while id.counter <= COUNTER_MAX && self.entries.find(EntryId::created_by(id)).is_some() {
            id.counter += 1;
        }
        if id.counter > COUNTER_MAX {
            return Err(EditError::OutOfIds);
        }
        if id != next {
            self.push(Op::Skip { count: id.counter - next.counter })?;
        }
        Ok(EntryId::created_by(id))
    }

    /// Puts the entry into `parent`, to stand at `index` there afterwards, or last. O(log n) in the
    /// number of siblings; for a folder also its new depth, or the number of folders inside if that
    /// is less.
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
        let step = self.may_move(entry, parent)?;
        self.relocate(&step, index, None)
    }

    /// Whether [`Replica::move_to`] would move `entry` into `parent`.
    ///
    /// # Errors
    /// What it would say.
    pub fn check_move(&self, entry: EntryId, parent: EntryId) -> Result<(), EditError> {
        self.may_move(entry, parent).map(drop)
    }

    fn may_move(&self, entry: EntryId, parent: EntryId) -> Result<Step, EditError> {
        let (moving, into) = (self.require_shown(entry)?, self.require_item(parent)?);
        if entry == EntryId::ROOT || (entry.is_well_known() && parent != EntryId::ROOT) {
            return Err(EditError::WellKnown(entry));
        }
        // What shows above an entry is above it in the tree of moves too, but for Root and Lost and
        // Found; and asking that tree may save the way up.
        let step = self.step(moving, into);
        if step.is_above && self.display.is_at_or_above(moving, into) {
            return Err(EditError::WouldCycle { entry, target: parent });
        }
        Ok(step)
    }

    /// Deletes the entry: puts it, with all inside, at the end of Trash, noting the time.
    ///
    /// # Errors
    /// If it does not show or is a system entry.
    pub fn trash(&mut self, entry: EntryId, now: Timestamp) -> Result<(), EditError> {
        let moving = self.require_shown(entry)?;
        if entry.is_well_known() {
            return Err(EditError::WellKnown(entry));
        }
        self.relocate(&self.step(moving, EntryIx::TRASH), usize::MAX, Some(now))
    }

    /// Ends the life of the entry and of all that shows inside it, for good and against every
    /// concurrent edit. What is inside and in its last life, which nothing ends, shows in Lost and Found
    /// then. Costs what shows inside.
    ///
    /// # Errors
    /// If it does not show, is a system entry, is a placeholder, which has no life to end, or is in its
    /// last life.
    pub fn purge(&mut self, entry: EntryId) -> Result<(), EditError> {
        let purged = self.require_shown(entry)?;
        if entry.is_well_known() {
            return Err(EditError::WellKnown(entry));
        }
        if !self.facts().is_alive(purged) {
            return Err(EditError::NotFound(entry));
        }
        self.life(purged).next().ok_or(EditError::OutOfIds)?;
        let mut entries = Vec::new();
        let mut inside = vec![purged];
        while let Some(entry) = inside.pop() {
            let life = self.life(entry);
            if life < Life::LAST {
                entries.push((self.entries.id(entry), life));
            }
            inside.extend(self.display.children(entry).rev());
        }
        self.transact(|replica| replica.push(Op::Purge { entries }))
    }

    /// Sets a field; the value before is gone, and of concurrent settings the newest wins. Costs
    /// the length of the value.
    ///
    /// # Errors
    /// If the entry does not show, the key of an info field is empty or too long, or the value is
    /// larger than a change may be.
    pub fn set(&mut self, entry: EntryId, field: Field, value: Value) -> Result<(), EditError> {
        let known = self.require_shown(entry)?;
        if matches!(&field, Field::Info(key) if key.is_empty() || key.len() > INFO_KEY_BYTES_MAX) {
            return Err(EditError::TooLong("the info key"));
        }
        let life = self.life(known);
        // A single op needs no transaction.
        self.push(Op::Set { entry, life, field, value })
    }

    /// Replaces a range of UTF-16 units of the text in a field. Concurrent splices of one text merge.
    /// What it costs is told at [`Replica::splice_by`].
    ///
    /// # Errors
    /// If the entry does not show, the field holds no text, the range does not lie on character
    /// boundaries inside it, or the new characters are more than a change may have.
    pub fn splice(
        &mut self,
        entry: EntryId,
        field: Field,
        range: Range<usize>,
        text: &str,
    ) -> Result<(), EditError> {
        self.splice_by(entry, field, range, TextUnit::Utf16, text)
    }

    /// The same for a range that counts another unit. O(log n) and what it deletes and inserts;
    /// O(1) where the last edit of the text was. The first splice after a set costs the length of
    /// the text.
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
        if self.type_on(entry, &field, &range, unit, text) {
            return Ok(());
        }
        let known = self.require_shown(entry)?;
        let found = self.entries.names().find(&field);
        let known_text = found.and_then(|field| self.entries.states_mut().text_mut(known, field));
        let (set, known_text) = known_text.ok_or(EditError::NotText(entry))?;
        let Some(splice) = known_text.resolve(&range, unit, !text.is_empty()) else {
            let content = TextContent { set, form: TextForm::Spliced(known_text) };
            return Err(out_of_range(content, &range, unit));
        };
        let life = self.life(known);
        if let Some((op, span)) = splice.as_keystroke(text) {
            let edit = TextEdit { target: Target { entry, life, field: &field, set }, op, span };
            // A single op needs no transaction.
            return if self.is_at_keyboard(&op) {
                self.press(known, edit)
            } else {
                self.push(edit.to_op())
            };
        }
        self.transact(|replica| replica.push_splice((entry, life, field, set), splice, text))
    }

    fn push_splice(
        &mut self,
        (entry, life, field, set): (EntryId, Life, Field, OpId),
        splice: Splice,
        text: &str,
    ) -> Result<(), EditError> {
        for range in splice.deleted {
            let (field, backwards) = (field.clone(), false);
            self.push(Op::Delete { entry, life, field, set, range, backwards })?;
        }
        if !text.is_empty() {
            let (origin, text) = (splice.origin, text.to_owned());
            self.push(Op::Insert { entry, life, field, set, origin, text })?;
        }
        Ok(())
    }

    /// Puts a shown entry into a shown item that is not inside it.
    fn relocate(
        &mut self,
        step: &Step,
        index: usize,
        trashed_at: Option<Timestamp>,
    ) -> Result<(), EditError> {
        let Step { moving, into, .. } = *step;
        self.transact(|replica| {
            replica.enter(step)?;
            let key = replica.make_place(into, index, Some(moving))?;
            let is_placed = replica.is_placed_in(moving, into);
            let life = replica.life(moving);
            let (entry, parent) = (replica.entries.id(moving), replica.entries.id(into));
            replica.push(if trashed_at.is_none() && is_placed {
                Op::Reorder { entry, life, parent, key }
            } else {
                Op::Move { entry, life, parent, key, trashed_at }
            })
        })
    }

    /// Where an entry is to go, and what stands against it.
    pub(crate) fn step(&self, moving: EntryIx, into: EntryIx) -> Step {
        Step { moving, into, is_above: self.tree.is_at_or_above(moving, into) }
    }

    /// Makes sure that a shown item can take entries: a placeholder cannot.
    fn open_up(&mut self, parent: EntryIx) -> Result<(), EditError> {
        if self.display.is_container(parent) {
            return Ok(());
        }
        let (entry, life) = (self.entries.id(parent), self.life(parent));
        self.push(Op::Revive { entry, life })
    }

    /// Makes sure that an entry can go where it is to.
    pub(crate) fn enter(&mut self, step: &Step) -> Result<(), EditError> {
        let Step { moving, into, is_above } = *step;
        self.open_up(into)?;
        if !is_above {
            return Ok(());
        }
        // Not inside it as shown: on the way up, something shows in Lost and Found without having
        // been put there. Putting it there for good breaks the hidden chain.
        let mut rescued = into;
        let up = |at| self.display.parent(at).filter(|up| *up != EntryIx::LOST_AND_FOUND);
        while let Some(above) = up(rescued) {
            rescued = above;
        }
        if self.display.parent(rescued).is_none() || rescued == moving {
            let (entry, target) = (self.entries.id(moving), self.entries.id(into));
            return Err(EditError::WouldCycle { entry, target });
        }
        self.pin(rescued)
    }

    /// Moves an entry that only shows in Lost and Found into it, at the index where it shows.
    fn pin(&mut self, entry: EntryIx) -> Result<(), EditError> {
        let index = self.display.index_of(entry).unwrap_or(usize::MAX);
        let key = self.make_place(EntryIx::LOST_AND_FOUND, index, Some(entry))?;
        let (entry, life) = (self.entries.id(entry), self.life(entry));
        let parent = EntryId::LOST_AND_FOUND;
        self.push(Op::Move { entry, life, parent, key, trashed_at: None })
    }

    /// Whether the entry was put into `parent` in its current life, rather than only showing there.
    pub(crate) fn is_placed_in(&self, entry: EntryIx, parent: EntryIx) -> bool {
        let target = self.tree.placed(entry).map(|placed| self.tree.target(placed));
        target == Some((parent, self.life(entry)))
    }

    /// Whether this replica made the key under which the entry shows.
    pub(crate) fn is_own_place(&self, sibling: Sibling) -> bool {
        let stamp = sibling.by.and_then(|by| self.tree.stamp(by));
        stamp.is_some_and(|stamp| stamp.replica == self.id)
    }

    pub(crate) fn life(&self, entry: EntryIx) -> Life {
        self.entries.state(entry).life()
    }

    fn require_shown(&self, entry: EntryId) -> Result<EntryIx, EditError> {
        self.find_shown(entry).ok_or(EditError::NotFound(entry))
    }

    pub(crate) fn require_item(&self, entry: EntryId) -> Result<EntryIx, EditError> {
        let known = self.entries.find(entry).ok_or(EditError::NotFound(entry))?;
        if self.display.is_container(known) {
            return Ok(known);
        }
        match self.kind(entry) {
            Some(NewEntry::Link { .. }) => Err(EditError::NotAnItem(entry)),
            Some(NewEntry::Item) => Ok(known),
            None => Err(EditError::NotFound(entry)),
        }
    }
}
