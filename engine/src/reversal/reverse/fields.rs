//! Undoing what was done to fields: values are set again, and characters come and go by name.

use super::Undoing;
use crate::entries::EntryIx;
use crate::error::EditError;
use crate::id::OpId;
use crate::op::{IdRange, Op};
use crate::registers::{FieldIx, RegisterView};
use crate::reversal::id_map::IdMap;
use crate::reversal::{FieldPart, SetPart, TextPart, for_each_named, split_at_char};
use crate::value::Value;

/// Stands where characters were that are deleted again at once: what undoing may bring back later has
/// its place then.
const FILLER: char = '_';

impl Undoing<'_> {
    pub(super) fn undo_field(&mut self, part: &FieldPart) -> Result<(), EditError> {
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
        let register = self.replica.entries.state(entry).register(field)?;
        for_each_named(register, self.stand_ins, |piece| {
            let parts = piece.text.map(|_| brought.parts(piece.named)).unwrap_or_default();
            for (part, is_brought) in parts {
                match self.is_own(part) || is_brought.is_some() {
                    true => {
                        let by = part.first.counter - piece.named.first.counter;
                        own.push(IdRange { first: piece.now.plus(by), len: part.len });
                    }
                    false => has_others = true,
                }
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
        for_each_named(register, self.stand_ins, |piece| match piece.text {
            Some(text) => refilled.push(piece.named, text),
            None => {
                let parts = self.mentioned.chars.parts(piece.named).into_iter();
                let mentioned = parts.filter(|(_, is_mentioned)| is_mentioned.is_some());
                mentioned.for_each(|(range, _)| refilled.push_fillers(range));
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
            let now = IdRange { first: now, ..named };
            let states = self.replica.entries.states_mut();
            let pieces = states.text_mut(entry, field).map(|(_, text)| text.standing(now));
            for (piece, is_visible) in pieces.unwrap_or_default() {
                let by = piece.first.counter - now.first.counter;
                let named = IdRange { first: named.first.plus(by), len: piece.len };
                present.push((named, piece, is_visible));
            }
        }
        present
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
    fn push(&mut self, named: IdRange, text: &str) {
        self.text.push_str(text);
        self.chars.push((named, self.len));
        self.len += named.len;
    }

    fn push_fillers(&mut self, named: IdRange) {
        self.fillers.push((self.len, named.len));
        let count = usize::try_from(named.len).unwrap_or(usize::MAX);
        let fillers: String = std::iter::repeat_n(FILLER, count).collect();
        self.push(named, &fillers);
    }
}
