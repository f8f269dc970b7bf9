//! Undoing: what is noted becomes ops, as far as it still can.

use std::cell::LazyCell;

use hashbrown::HashSet;

use super::stand_ins::IdMap;
use super::{
    Before, FieldPart, Mentioned, PlacePart, Placed, Reversal, SetPart, StandIns, TextPart,
    split_at_char,
};
use crate::entries::EntryIx;
use crate::error::EditError;
use crate::id::{EntryId, OpId, Timestamp};
use crate::op::{IdRange, Op};
use crate::registers::{FieldIx, RegisterView};
use crate::replica::Replica;
use crate::text::Fate;
use crate::tree::{OrderKey, rescued_key};
use crate::value::{Value, char_count};

/// Stands where characters were that are deleted again at once: what undoing may bring back later has
/// its place then.
const FILLER: char = '_';

impl Replica {
    /// Undoes what transactions did, the last first, as one transaction. Each must have been the newest
    /// that was neither undone nor is to stay. `mentioned` says what all reversals speak of that may
    /// be undone or redone later; it is asked once at most. `now` is the time of deletion of what was created.
    ///
    /// Returns how to redo it; nothing if there was nothing left to undo, and no change is made then.
    ///
    /// Costs what is undone; for a text that was set to another one, the length of the text as well.
    ///
    /// # Errors
    /// [`EditError::TransactionOpen`] inside a transaction; [`EditError::ChangeTooLarge`],
    /// [`EditError::TooManyOps`] or [`EditError::OutOfIds`] if it does not fit one change.
    pub fn reverse(
        &mut self,
        done: &[Reversal],
        stand_ins: &mut StandIns,
        mentioned: impl Fn() -> Mentioned,
        now: Timestamp,
    ) -> Result<Option<Reversal>, EditError> {
        if self.is_in_transaction() {
            return Err(EditError::TransactionOpen);
        }
        let transaction = self.begin();
        let first = self.next_id();
        let created = done.iter().flat_map(|one| &one.places);
        let created = created.filter(|part| matches!(part.before, Before::Nowhere));
        let created_ids = created.clone().map(|part| part.entry).collect();
        let mentioned = LazyCell::new(&mentioned as &dyn Fn() -> Mentioned);
        let mut undoing = Undoing { replica: self, stand_ins, mentioned, created: created_ids };
        let undone = undoing.undo(done).and_then(|()| undoing.discard(created, now));
        let result = match undone {
            Ok(()) if self.next_id() == first => {
                self.roll_back(transaction);
                Ok(None)
            }
            Ok(()) => self.commit_reversibly(transaction, stand_ins).map(Some),
            Err(error) => {
                self.roll_back(transaction);
                Err(error)
            }
        };
        match &result {
            Ok(_) => stand_ins.settle(),
            Err(_) => stand_ins.roll_back(),
        }
        result
    }
}

/// A step that is being undone.
struct Undoing<'a> {
    replica: &'a mut Replica,
    stand_ins: &'a mut StandIns,
    /// Looked for once, however many texts are restored, and only if it is needed.
    mentioned: LazyCell<Mentioned, &'a dyn Fn() -> Mentioned>,
    /// Entries that the step created. They keep what they hold, since they go as a whole.
    created: HashSet<EntryId>,
}

impl Undoing<'_> {
    fn undo(&mut self, done: &[Reversal]) -> Result<(), EditError> {
        for one in done.iter().rev() {
            for part in one.fields.iter().rev() {
                if !self.created.contains(&part.entry) {
                    self.undo_field(part)?;
                }
            }
            for part in one.places.iter().rev() {
                self.undo_place(part)?;
            }
        }
        Ok(())
    }

    /// Moves what was created to Trash; what is inside of something that goes there goes with it.
    fn discard<'b>(
        &mut self,
        created: impl Iterator<Item = &'b PlacePart>,
        now: Timestamp,
    ) -> Result<(), EditError> {
        let going: HashSet<EntryIx> = created.filter_map(|part| self.still_placed(part)).collect();
        let mut topmost: Vec<EntryIx> = going.iter().copied().collect();
        topmost.retain(|entry| {
            let display = &self.replica.display;
            let mut up = std::iter::successors(display.parent(*entry), |at| display.parent(*at));
            display.parent(*entry) != Some(EntryIx::TRASH)
                && !up.any(|above| going.contains(&above))
        });
        // In the order in which they became known here.
        topmost.sort_unstable();
        for entry in topmost {
            let entry = self.replica.entries.id(entry);
            self.replica.trash(entry, now)?;
        }
        Ok(())
    }

    /// The entry, if it is where the move put it. What moved it between containers may have been
    /// followed by reordering; what only reordered it may not.
    fn still_placed(&self, part: &PlacePart) -> Option<EntryIx> {
        let Placed { by, parent, trashed_at } = part.after;
        let Replica { tree, entries, .. } = &*self.replica;
        let entry = self.replica.find_shown(part.entry)?;
        let is_within =
            matches!(part.before, Before::Placed { parent: before, .. } if before == parent);
        for placed in tree.placings(entry) {
            let (container, life) = tree.target(placed);
            if life != self.replica.life(entry) {
                return None;
            }
            if self.stand_ins.ops.first_name(tree.stamp(placed)?.op()) == by {
                return Some(entry);
            }
            let is_in_it = entries.id(container) == parent && tree.time(placed) == trashed_at;
            if is_within || !is_in_it {
                return None;
            }
        }
        None
    }

    fn undo_place(&mut self, part: &PlacePart) -> Result<(), EditError> {
        let Some(entry) = self.still_placed(part) else { return Ok(()) };
        match &part.before {
            Before::Nowhere => Ok(()),
            Before::Rescued => {
                let into = EntryIx::LOST_AND_FOUND;
                let key = rescued_key(self.replica.entries.id(entry));
                let index = self.index_for(entry, into, &key);
                if self.replica.display.parent(entry) == Some(into)
                    && self.replica.display.index_of(entry) == Some(index)
                {
                    return Ok(());
                }
                self.enter(entry, into, |replica| {
                    let key = replica.make_place(into, index, Some(entry))?;
                    replica.put(entry, into, key, None).map(drop)
                })
            }
            Before::Placed { parent, key, trashed_at, by } => {
                let Some(into) = self.replica.entries.find(*parent) else { return Ok(()) };
                let mut moved = None;
                self.enter(entry, into, |replica| {
                    moved = Some(replica.put(entry, into, key.clone(), *trashed_at)?);
                    Ok(())
                })?;
                if let (Some(first), Some(moved)) = (by, moved) {
                    self.stand_for_op(*first, moved);
                }
                Ok(())
            }
        }
    }

    /// Where an entry with this key would stand among the others in a container.
    fn index_for(&self, entry: EntryIx, into: EntryIx, key: &[u8]) -> usize {
        let Replica { display, entries, .. } = &*self.replica;
        let rank = display.rank(into, (key, entries.id(entry)), self.replica.facts());
        let is_before = display.parent(entry) == Some(into)
            && display.index_of(entry).is_some_and(|index| index < rank);
        rank - usize::from(is_before)
    }

    /// Puts an entry into a container, unless that is none any more or is inside the entry.
    fn enter(
        &mut self,
        entry: EntryIx,
        into: EntryIx,
        put: impl FnOnce(&mut Replica) -> Result<(), EditError>,
    ) -> Result<(), EditError> {
        let display = &self.replica.display;
        if !display.is_container(into) || display.is_at_or_above(entry, into) {
            return Ok(());
        }
        let step = self.replica.step(entry, into);
        match self.replica.enter(&step) {
            // As shown it would be no cycle, but nothing can be done about the hidden one.
            Err(EditError::WouldCycle { .. }) => return Ok(()),
            entered => entered?,
        }
        put(self.replica)
    }

    fn undo_field(&mut self, part: &FieldPart) -> Result<(), EditError> {
        let Some((entry, field)) = self.find(part) else { return Ok(()) };
        if let Some(set) = &part.set {
            let now = self.set_now(entry, field);
            let is_inside = |now| self.stand_ins.is_inside(set.after, now);
            if now.is_none_or(|now| now != set.after && !is_inside(now)) {
                return Ok(());
            }
            match self.own_among_others((entry, field), set) {
                None => self.restore(entry, part, set)?,
                Some(own) => self.restore_among_others((entry, field), part, set, &own)?,
            }
        }
        // Characters are found by name, in whatever text they stand by now.
        part.edits.iter().rev().try_for_each(|edit| match edit {
            TextPart::Inserted(chars) => self.delete_again((entry, field), part, *chars),
            TextPart::Deleted { chars, text } => {
                self.insert_again((entry, field), part, *chars, text)
            }
        })
    }

    fn find(&self, part: &FieldPart) -> Option<(EntryIx, FieldIx)> {
        let entry = self.replica.find_shown(part.entry)?;
        Some((entry, self.replica.entries.names().find(&part.field)?))
    }

    /// The first name of the op that has set a field.
    fn set_now(&self, entry: EntryIx, field: FieldIx) -> Option<OpId> {
        let register = self.replica.entries.state(entry).register(field)?;
        Some(self.stand_ins.ops.first_name(register.stamp.op()))
    }

    /// The characters that a set, or this replica, has brought into the text that a field holds, if some
    /// of others show in it as well. Those of others that undoing has brought back are still theirs.
    fn own_among_others(
        &self,
        (entry, field): (EntryIx, FieldIx),
        set: &SetPart,
    ) -> Option<Vec<IdRange>> {
        let mut brought = IdMap::default();
        set.brought.iter().for_each(|range| brought.insert(*range, range.first));
        let (mut own, mut has_others) = (Vec::new(), false);
        self.replica.entries.state(entry).register(field)?.for_each_piece(|piece| {
            let Fate::Visible(text) = piece.fate else { return };
            let mut first = piece.first;
            let range = IdRange { first, len: char_count(text) };
            let named = self.stand_ins.chars.first_names(range).into_iter();
            for (named, is_brought) in named.flat_map(|named| brought.parts(named)) {
                match self.is_own(named) || is_brought.is_some() {
                    true => own.push(IdRange { first, len: named.len }),
                    false => has_others = true,
                }
                first = first.plus(named.len);
            }
        });
        has_others.then_some(own)
    }

    fn keep_others(&mut self, set: OpId, text: &Refilled) {
        let chars = text.chars.iter().map(|(named, _)| *named);
        let others = chars.filter(|named| !self.is_own(*named)).collect();
        self.stand_ins.keep_others(set, others);
    }

    fn is_own(&self, named: IdRange) -> bool {
        named.first.replica == self.replica.id
    }

    /// Takes one's own characters out of the text that a field was set to, and puts those back that the
    /// field held before. The text stays the same one, so that nothing goes that others type into it.
    fn restore_among_others(
        &mut self,
        place: (EntryIx, FieldIx),
        part: &FieldPart,
        set: &SetPart,
        own: &[IdRange],
    ) -> Result<(), EditError> {
        let id = self.text_id(place)?;
        own.iter().try_for_each(|range| self.push_delete(place.0, part, id, *range))?;
        let Some((before, register)) = &set.before else { return Ok(()) };
        let text = self.text_with_fillers(register.view());
        if register.view().text().is_some() {
            self.keep_others(*before, &text);
            self.stand_ins.put_inside(*before, set.after);
        }
        if text.text.is_empty() {
            return Ok(());
        }
        let (new, life) = (self.replica.next_id(), self.replica.life(place.0));
        let (entry, field) = (part.entry, part.field.clone());
        let (origin, inserted) = (None, text.text.clone());
        self.replica.push(Op::Insert { entry, life, field, set: id, origin, text: inserted })?;
        self.stand_for_chars(place.0, part, (id, new), text)
    }

    /// Sets a field to what it held.
    fn restore(
        &mut self,
        entry: EntryIx,
        part: &FieldPart,
        set: &SetPart,
    ) -> Result<(), EditError> {
        let Some((before, register)) = &set.before else {
            return self.push_set(entry, part, Value::None).map(drop);
        };
        let register = register.view();
        if register.text().is_none() {
            let new = self.push_set(entry, part, register.value())?;
            self.stand_for_op(*before, new);
            return Ok(());
        }
        let text = self.text_with_fillers(register);
        let new = self.push_set(entry, part, Value::Text(text.text.clone()))?;
        self.stand_for_op(*before, new);
        self.keep_others(*before, &text);
        self.stand_ins.take_out(*before);
        self.stand_for_chars(entry, part, (new, new), text)
    }

    /// Lets the characters from `first` on, in the text that `set` made, stand for those that they were
    /// made from, and deletes the fillers among them.
    fn stand_for_chars(
        &mut self,
        entry: EntryIx,
        part: &FieldPart,
        (set, first): (OpId, OpId),
        text: Refilled,
    ) -> Result<(), EditError> {
        for (range, offset) in text.chars {
            self.stand_ins.chars.replace(range, first.plus(offset));
        }
        for (offset, len) in text.fillers {
            self.push_delete(entry, part, set, IdRange { first: first.plus(offset), len })?;
        }
        Ok(())
    }

    fn push_set(
        &mut self,
        entry: EntryIx,
        part: &FieldPart,
        value: Value,
    ) -> Result<OpId, EditError> {
        let (new, life) = (self.replica.next_id(), self.replica.life(entry));
        let field = part.field.clone();
        self.replica.push(Op::Set { entry: part.entry, life, field, value })?;
        Ok(new)
    }

    /// The text that a register holds, with something in the place of deleted characters that may be
    /// brought back.
    fn text_with_fillers(&self, register: RegisterView<'_>) -> Refilled {
        let mut refilled = Refilled::default();
        let names = &self.stand_ins.chars;
        register.for_each_piece(|piece| match piece.fate {
            Fate::Visible(text) => {
                let range = IdRange { first: piece.first, len: char_count(text) };
                refilled.push(&names.first_names(range), text);
            }
            Fate::Deleted(len) => {
                for range in names.first_names(IdRange { first: piece.first, len }) {
                    for (range, is_mentioned) in self.mentioned.chars.parts(range) {
                        if is_mentioned.is_some() {
                            refilled.push_fillers(range);
                        }
                    }
                }
            }
        });
        refilled
    }

    /// Deletes those of some characters that are still there.
    fn delete_again(
        &mut self,
        place: (EntryIx, FieldIx),
        part: &FieldPart,
        chars: IdRange,
    ) -> Result<(), EditError> {
        for (_, range, is_visible) in self.present(place, chars) {
            if is_visible {
                let set = self.text_id(place)?;
                self.push_delete(place.0, part, set, range)?;
            }
        }
        Ok(())
    }

    /// Inserts characters again that were deleted, each where it was.
    fn insert_again(
        &mut self,
        place: (EntryIx, FieldIx),
        part: &FieldPart,
        chars: IdRange,
        text: &str,
    ) -> Result<(), EditError> {
        let (mut rest, mut at) = (text, chars.first.counter);
        for (named, range, is_visible) in self.present(place, chars) {
            let (_, from_here) = split_at_char(rest, named.first.counter - at);
            let (text, after) = split_at_char(from_here, named.len);
            (rest, at) = (after, named.first.counter + named.len);
            if is_visible {
                continue;
            }
            let text = text.to_owned();
            let (life, set) = (self.replica.life(place.0), self.text_id(place)?);
            let (entry, field) = (part.entry, part.field.clone());
            let origin = Some(range.first.plus(range.len - 1));
            let new = self.replica.next_id();
            self.replica.push(Op::Insert { entry, life, field, set, origin, text })?;
            self.stand_ins.chars.replace(named, new);
        }
        Ok(())
    }

    fn push_delete(
        &mut self,
        entry: EntryIx,
        part: &FieldPart,
        set: OpId,
        range: IdRange,
    ) -> Result<(), EditError> {
        let (life, field) = (self.replica.life(entry), part.field.clone());
        let entry = part.entry;
        self.replica.push(Op::Delete { entry, life, field, set, range, backwards: false })
    }

    /// The op that made the text in a field.
    fn text_id(&self, (entry, field): (EntryIx, FieldIx)) -> Result<OpId, EditError> {
        let register = self.replica.entries.state(entry).register(field);
        let id = || EditError::NotText(self.replica.entries.id(entry));
        Ok(register.ok_or_else(id)?.stamp.op())
    }

    /// What stands for some characters in a text: pieces that stand together, each with its first name,
    /// its ids now, and whether it shows.
    fn present(
        &mut self,
        (entry, field): (EntryIx, FieldIx),
        chars: IdRange,
    ) -> Vec<(IdRange, IdRange, bool)> {
        let mut present = Vec::new();
        for (named, now) in self.stand_ins.chars.present(chars) {
            let now = IdRange { first: now.unwrap_or(named.first), ..named };
            let (state, _) = self.replica.entries.state_mut(entry);
            let pieces = state.text_mut(field).map(|(_, text)| text.standing(now));
            for (piece, is_visible) in pieces.unwrap_or_default() {
                let by = piece.first.counter - now.first.counter;
                let named = IdRange { first: named.first.plus(by), len: piece.len };
                present.push((named, piece, is_visible));
            }
        }
        present
    }

    fn stand_for_op(&mut self, first: OpId, by: OpId) {
        self.stand_ins.ops.replace(IdRange { first, len: 1 }, by);
    }
}

/// A text to be set again: which characters, by their first names, are at which place in it, and which
/// of them are to be deleted again.
#[derive(Debug, Default)]
struct Refilled {
    text: String,
    len: u64,
    chars: Vec<(IdRange, u64)>,
    fillers: Vec<(u64, u64)>,
}

impl Refilled {
    fn push(&mut self, named: &[IdRange], text: &str) {
        self.text.push_str(text);
        for range in named {
            self.chars.push((*range, self.len));
            self.len += range.len;
        }
    }

    fn push_fillers(&mut self, named: IdRange) {
        self.fillers.push((self.len, named.len));
        let count = usize::try_from(named.len).unwrap_or(usize::MAX);
        let fillers: String = std::iter::repeat_n(FILLER, count).collect();
        self.push(&[named], &fillers);
    }
}

impl Replica {
    /// Puts a shown entry under a key into a container that can take it, and returns the op that does.
    fn put(
        &mut self,
        entry: EntryIx,
        into: EntryIx,
        key: OrderKey,
        trashed_at: Option<Timestamp>,
    ) -> Result<OpId, EditError> {
        let time = self.tree.placement(entry).and_then(|placement| placement.trashed_at);
        let is_within = self.is_placed_in(entry, into) && time == trashed_at;
        let life = self.life(entry);
        let (entry, parent) = (self.entries.id(entry), self.entries.id(into));
        let op = self.next_id();
        self.push(if is_within {
            Op::Reorder { entry, life, parent, key }
        } else {
            Op::Move { entry, life, parent, key, trashed_at }
        })?;
        Ok(op)
    }
}
