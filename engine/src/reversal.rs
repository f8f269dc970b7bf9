//! What a transaction did, noted so that it can be undone later, while others edit.
//!
//! A [`Reversal`] speaks of things by identity: of the move that put an entry somewhere, of the op that
//! set a field, of characters. So undoing ([`Replica::reverse`]) takes back exactly what the
//! transaction did and what nobody has done anything else with since:
//!
//! - an entry that was moved goes back, under its old order key, if nothing but reordering has come
//!   after the move; one that was only reordered, if nobody has reordered it since. If others have put
//!   it somewhere at the same time and lost, it goes to where they have put it: that would show had the
//!   transaction never been;
//! - a field gets the value back that it had, if nobody has set it since; where others have typed into
//!   the text that it was set to, one's own characters go and the old text comes back beside theirs;
//! - of characters that were inserted those are deleted that are still there, and characters that were
//!   deleted come back where they were;
//! - an entry that was created goes to Trash, with all that others have put into it.
//!
//! What has become impossible is passed over: where the container is gone, or is inside the entry by
//! now, or the entry was purged. Purging is for good; nothing that was purged is noted.
//!
//! Undoing is an ordinary transaction, and noted as one: its reversal is what redoes. Whoever undoes
//! keeps to the order of a stack, the newest first, and [`StandIns`] say what stands by now for what
//! had been taken back in between.
//!
//! Cost: nothing unless asked for; then what the transaction did, and the text that it replaced.
//! Not here: stacks, and what goes into one step of them; both are the caller's.

mod id_map;
mod reverse;
mod stand_ins;

use hashbrown::{HashMap, HashSet};

use crate::entries::EntryIx;
use crate::error::EditError;
use crate::id::{EntryId, OpId, Stamp, Timestamp};
use crate::op::{IdRange, Op};
use crate::registers::{FieldIx, Register, RegisterView, Undo};
use crate::replica::Replica;
use crate::text::{Fate, TextUndo};
use crate::transaction::{OpenChange, Transaction};
use crate::tree::OrderKey;
use crate::value::{BlobRef, Field, char_count, split_chars};
use crate::value_ref::ValueRef;
pub use stand_ins::{Mentioned, StandIns};

/// What one transaction did, for [`Replica::reverse`].
#[derive(Debug, Default)]
pub struct Reversal {
    places: Vec<PlacePart>,
    fields: Vec<FieldPart>,
}

/// An entry that was put somewhere.
#[derive(Debug)]
struct PlacePart {
    entry: EntryId,
    after: Placed,
    before: Before,
    /// The newest move that the entry had been placed by, if there was one. Those of others that are
    /// newer than it and older than the transaction's were made at the same time.
    seen: Option<Stamp>,
    /// The same of what this has undone, if it has: redoing it must not forget what it had not seen.
    seen_by_undone: Option<Option<Stamp>>,
}

impl PlacePart {
    /// Whether it stayed in its container.
    fn is_reordering(&self) -> bool {
        matches!(self.before, Before::Placed { parent, .. } if parent == self.after.parent)
    }
}

/// Where an entry was put.
#[derive(Clone, Copy, Debug)]
struct Placed {
    /// The first name of the move that put it there.
    by: OpId,
    parent: EntryId,
}

/// Where an entry was.
#[derive(Debug)]
enum Before {
    /// Nowhere: it was created.
    Nowhere,
    /// In Lost and Found, without having been put there.
    Rescued,
    Placed {
        parent: EntryId,
        key: OrderKey,
        trashed_at: Option<Timestamp>,
        /// The first name of the move that had put it there, if that was one.
        by: Option<OpId>,
    },
}

/// What was done to a field: first the text that it held was edited, then it was set. Either may be
/// missing.
#[derive(Debug)]
struct FieldPart {
    entry: EntryId,
    field: Field,
    /// The first name of the `Set` that made the text.
    text: Option<OpId>,
    edits: Vec<TextPart>,
    set: Option<SetPart>,
}

#[derive(Debug)]
struct SetPart {
    /// What the field held, and the first name of the op that had set it; none if none had.
    before: Option<(OpId, Register)>,
    /// The first name of the op that set it last.
    after: OpId,
    /// The characters of others that this brought back, by their first names.
    brought: Vec<IdRange>,
}

/// Characters, by their first names, that came or went.
#[derive(Debug)]
enum TextPart {
    Inserted(IdRange),
    Deleted { chars: IdRange, text: String },
}

/// About as much as an op takes besides its text.
const PART_BYTES: usize = 128;

impl Reversal {
    /// Whether there is nothing to undo.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.places.is_empty() && self.fields.is_empty()
    }

    /// Takes in what was done right after, if both edit one text and nothing else, as in typing; gives
    /// it back otherwise. Both can only be undone together then.
    ///
    /// # Errors
    /// The later reversal.
    pub fn absorb(&mut self, mut later: Self) -> Result<(), Self> {
        let is_typing = |one: &Self| {
            one.places.is_empty() && matches!(&one.fields[..], [part] if part.set.is_none())
        };
        if !is_typing(self) || !is_typing(&later) {
            return Err(later);
        }
        let (Some(mine), Some(other)) = (self.fields.last_mut(), later.fields.pop()) else {
            return Err(later);
        };
        if (mine.entry, &mine.field, mine.text) != (other.entry, &other.field, other.text) {
            later.fields.push(other);
            return Err(later);
        }
        other.edits.into_iter().for_each(|edit| push_edit(&mut mine.edits, edit));
        Ok(())
    }

    /// Tells of others whether both edit one field or both put entries somewhere, so that they can only be
    /// undone in the order of a stack: where one is put depends on where the others are. O(n) in what this
    /// did, once, and then in what each of the others did.
    pub fn meets(&self) -> impl Fn(&Self) -> bool {
        let edited: HashSet<(EntryId, &Field)> =
            self.fields.iter().map(|part| (part.entry, &part.field)).collect();
        move |other| {
            !self.places.is_empty() && !other.places.is_empty()
                || other.fields.iter().any(|part| edited.contains(&(part.entry, &part.field)))
        }
    }

    /// Adds what this speaks of, for [`StandIns::retain`] and [`Replica::reverse`].
    pub fn mention(&self, to: &mut Mentioned) {
        for part in &self.places {
            to.add_op(part.after.by);
            if let Before::Placed { by: Some(by), .. } = part.before {
                to.add_op(by);
            }
        }
        for part in &self.fields {
            let set = part.set.as_ref();
            let before = set.and_then(|set| set.before.as_ref()).map(|(before, _)| *before);
            let ops = [part.text, set.map(|set| set.after), before];
            ops.into_iter().flatten().for_each(|op| to.add_op(op));
            set.into_iter().flat_map(|set| &set.brought).for_each(|chars| to.add_chars(*chars));
            for edit in &part.edits {
                match edit {
                    TextPart::Inserted(chars) | TextPart::Deleted { chars, .. } => {
                        to.add_chars(*chars);
                    }
                }
            }
        }
    }

    /// Notes that this has undone what others tell of, the oldest first.
    fn set_undone(&mut self, undone: &[Self]) {
        let mut first: HashMap<EntryId, &PlacePart> = HashMap::new();
        for part in undone.iter().flat_map(|one| &one.places) {
            first.entry(part.entry).or_insert(part);
        }
        for part in &mut self.places {
            if let Some(undone) = first.get(&part.entry) {
                part.seen = undone.seen_by_undone.unwrap_or(part.seen);
                part.seen_by_undone = Some(undone.seen);
            }
        }
    }

    /// The blobs that fields referred to before.
    pub fn blobs(&self) -> impl Iterator<Item = BlobRef> {
        let before = self.fields.iter().filter_map(|part| part.set.as_ref()?.before.as_ref());
        before.filter_map(|(_, register)| match register.view().value_ref() {
            ValueRef::Blob(blob) => Some(blob),
            _ => None,
        })
    }

    /// How many bytes undoing takes in a change, about.
    #[must_use]
    pub fn size(&self) -> usize {
        let edit_size = |edit: &TextPart| match edit {
            TextPart::Inserted(_) => PART_BYTES,
            TextPart::Deleted { text, .. } => PART_BYTES + text.len(),
        };
        let field_size = |part: &FieldPart| {
            let before = part.set.as_ref().and_then(|set| set.before.as_ref());
            let value = before.map_or(0, |(_, before)| before.view().size());
            let brought = part.set.as_ref().map_or(0, |set| PART_BYTES * set.brought.len());
            PART_BYTES + value + brought + part.edits.iter().map(edit_size).sum::<usize>()
        };
        PART_BYTES * self.places.len() + self.fields.iter().map(field_size).sum::<usize>()
    }
}

/// Adds an edit, to the last one if that was the same done to the characters before.
fn push_edit(edits: &mut Vec<TextPart>, edit: TextPart) {
    match (edits.last_mut(), edit) {
        (Some(TextPart::Inserted(before)), TextPart::Inserted(next))
            if before.first.plus(before.len) == next.first =>
        {
            before.len += next.len;
        }
        (
            Some(TextPart::Deleted { chars, text }),
            TextPart::Deleted { chars: next, text: more },
        ) if chars.first.plus(chars.len) == next.first => {
            chars.len += next.len;
            text.push_str(&more);
        }
        (_, edit) => edits.push(edit),
    }
}

impl Replica {
    /// Ends a transaction as [`Replica::commit`] does, and says how to undo it. Nothing of one that
    /// is inside another, since that is a part of the other.
    ///
    /// Costs what the transaction did, on top of committing.
    ///
    /// # Errors
    /// As for [`Replica::commit`].
    pub fn commit_reversibly(
        &mut self,
        transaction: Transaction,
        stand_ins: &StandIns,
    ) -> Result<Reversal, EditError> {
        let created = self.created_in_open();
        let Some(change) = self.commit_and_keep(transaction)? else {
            return Ok(Reversal::default());
        };
        Ok(Capture::new(self, change, created, stand_ins).reversal())
    }

    fn created_in_open(&self) -> HashSet<EntryId> {
        let ops = self.open.iter().flat_map(OpenChange::ops);
        let created = |op: &Op| match op {
            Op::Create { entry, .. } => Some(*entry),
            _ => None,
        };
        ops.filter_map(created).collect()
    }
}

/// A change that was just made, being looked through.
struct Capture<'a> {
    replica: &'a Replica,
    stand_ins: &'a StandIns,
    created: HashSet<EntryId>,
    /// Entries that the change purges.
    purged: HashSet<EntryIx>,
    first: Stamp,
    records: Vec<(EntryIx, Undo)>,
}

impl<'a> Capture<'a> {
    fn new(
        replica: &'a Replica,
        change: OpenChange,
        created: HashSet<EntryId>,
        stand_ins: &'a StandIns,
    ) -> Self {
        let first = change.first_stamp(replica.id);
        let records = change.into_records();
        let purged =
            |(entry, undo): &(EntryIx, Undo)| matches!(undo, Undo::Whole(..)).then_some(*entry);
        let purged = records.iter().filter_map(purged).collect();
        Self { replica, stand_ins, created, purged, first, records }
    }

    fn reversal(mut self) -> Reversal {
        let records = std::mem::take(&mut self.records);
        Reversal { places: self.places(), fields: self.fields(records) }
    }

    fn places(&self) -> Vec<PlacePart> {
        let mut seen = HashSet::new();
        let mut places: Vec<PlacePart> = Vec::new();
        // The newest come first.
        let mut moved = self.replica.tree.moved_from(self.first);
        moved.reverse();
        for entry in moved {
            if seen.insert(entry) {
                places.extend(self.place(entry));
            }
        }
        places
    }

    fn place(&self, entry: EntryIx) -> Option<PlacePart> {
        let Replica { tree, entries, .. } = self.replica;
        let placement = tree.placement(entry)?;
        let by = placement.stamp.filter(|stamp| *stamp >= self.first)?;
        let id = entries.id(entry);
        let before = if self.created.contains(&id) {
            Before::Nowhere
        } else if self.purged.contains(&entry) {
            return None;
        } else {
            self.place_before(entry)?
        };
        let after = Placed {
            by: self.stand_ins.ops.first_name(by.op()),
            parent: entries.id(placement.parent),
        };
        let seen = tree.placed_before(entry, self.first).and_then(|placed| tree.stamp(placed));
        Some(PlacePart { entry: id, after, before, seen, seen_by_undone: None })
    }

    fn place_before(&self, entry: EntryIx) -> Option<Before> {
        let Replica { tree, entries, display, .. } = self.replica;
        let Some(placed) = tree.placed_before(entry, self.first) else {
            return Some(Before::Rescued);
        };
        let (parent, life) = tree.target(placed);
        if self.purged.contains(&parent) {
            return None;
        }
        if life != self.replica.life(entry) || !display.is_container(parent) {
            return Some(Before::Rescued);
        }
        Some(Before::Placed {
            parent: entries.id(parent),
            key: OrderKey::new(tree.key(placed))?,
            trashed_at: tree.time(placed),
            by: tree.stamp(placed).map(|stamp| self.stand_ins.ops.first_name(stamp.op())),
        })
    }

    fn fields(&self, records: Vec<(EntryIx, Undo)>) -> Vec<FieldPart> {
        let mut parts: Vec<FieldPart> = Vec::new();
        let mut places: HashMap<(EntryIx, FieldIx), usize> = HashMap::new();
        for (entry, undo) in records {
            let (Undo::Field(field, _) | Undo::Text(field, _)) = undo else { continue };
            let id = self.replica.entries.id(entry);
            if self.purged.contains(&entry) || self.created.contains(&id) {
                continue;
            }
            let Some(now) = self.replica.entries.state(entry).register(field) else { continue };
            let at = *places.entry((entry, field)).or_insert(parts.len());
            if at == parts.len() {
                let field = self.replica.entries.names().field(field).clone();
                parts.push(FieldPart {
                    entry: id,
                    field,
                    text: None,
                    edits: Vec::new(),
                    set: None,
                });
            }
            self.add_record(&mut parts[at], undo, now);
        }
        parts
    }

    fn add_record(&self, part: &mut FieldPart, undo: Undo, register: RegisterView<'_>) {
        // What was done after it was set goes with what was set.
        if part.set.is_some() {
            return;
        }
        let now = self.stand_ins.ops.first_name(register.stamp.op());
        match undo {
            Undo::Field(_, before) => {
                let before = before
                    .map(|register| (self.stand_ins.ops.first_name(register.stamp.op()), register));
                part.text = before.as_ref().map(|(set, _)| *set).filter(|_| !part.edits.is_empty());
                part.set = Some(SetPart { before, after: now, brought: self.others_in(register) });
            }
            Undo::Text(_, edit) => {
                part.text = Some(now);
                self.add_edit(&mut part.edits, edit);
            }
            _ => {}
        }
    }

    /// The characters that show in a text and are by their first names those of others.
    fn others_in(&self, register: RegisterView<'_>) -> Vec<IdRange> {
        let mut others = Vec::new();
        for_each_named(register, self.stand_ins, |piece| {
            if piece.text.is_some() && piece.named.first.replica != self.replica.id {
                others.push(piece.named);
            }
        });
        others
    }

    fn add_edit(&self, edits: &mut Vec<TextPart>, edit: TextUndo) {
        match edit {
            TextUndo::Inserted(range) => {
                for chars in self.stand_ins.chars.first_names(range) {
                    push_edit(edits, TextPart::Inserted(chars));
                }
            }
            TextUndo::Deleted { first, text } => {
                let mut rest = text.as_str();
                let range = IdRange { first, len: char_count(&text) };
                for chars in self.stand_ins.chars.first_names(range) {
                    let (text, after) = split_at_char(rest, chars.len);
                    rest = after;
                    push_edit(edits, TextPart::Deleted { chars, text: text.to_owned() });
                }
            }
        }
    }
}

/// Characters of a text, which have consecutive ids and consecutive first names.
struct NamedPiece<'a> {
    named: IdRange,
    /// The id of the first.
    now: OpId,
    /// None if they were deleted.
    text: Option<&'a str>,
}

/// Hands over all characters of the text in a register, in order.
fn for_each_named(
    register: RegisterView<'_>,
    stand_ins: &StandIns,
    mut each: impl FnMut(NamedPiece<'_>),
) {
    register.for_each_piece(|piece| {
        let (len, mut rest) = match piece.fate {
            Fate::Visible(text) => (char_count(text), Some(text)),
            Fate::Deleted(len) => (len, None),
        };
        let mut now = piece.first;
        for named in stand_ins.chars.first_names(IdRange { first: now, len }) {
            let text = rest.map(|text| {
                let (text, after) = split_at_char(text, named.len);
                rest = Some(after);
                text
            });
            each(NamedPiece { named, now, text });
            now = now.plus(named.len);
        }
    });
}

fn split_at_char(text: &str, chars: u64) -> (&str, &str) {
    split_chars(text, usize::try_from(chars).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests;
