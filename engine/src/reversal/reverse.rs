//! Undoing: what is noted becomes ops, as far as it still can.

mod fields;

use std::cell::LazyCell;

use hashbrown::HashSet;

use super::{Before, Mentioned, PlacePart, Reversal, StandIns};
use crate::entries::EntryIx;
use crate::error::EditError;
use crate::id::{EntryId, OpId, Timestamp};
use crate::op::{IdRange, Op};
use crate::replica::Replica;
use crate::tree::{MoveIx, OrderKey, rescued_key};

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
            Ok(()) => self.commit_reversibly(transaction, stand_ins).map(|mut undoing| {
                undoing.set_undone(done);
                Some(undoing)
            }),
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

/// An entry that is still where a step put it.
struct StillPlaced {
    entry: EntryIx,
    /// The move by which others have put it somewhere at the same time, and lost.
    theirs: Option<MoveIx>,
}

impl Undoing<'_> {
    fn undo(&mut self, done: &[Reversal]) -> Result<(), EditError> {
        for one in done.iter().rev() {
            for part in one.fields.iter().rev() {
                if !self.created.contains(&part.entry) {
                    self.undo_field(part)?;
                }
            }
            self.undo_places(&one.places)?;
        }
        Ok(())
    }

    /// Puts entries where they were before one transaction. Of each only its first and its last place there
    /// are known, so that what is to go into something may have to wait until that has left it.
    fn undo_places(&mut self, places: &[PlacePart]) -> Result<(), EditError> {
        let mut waiting: Vec<&PlacePart> = places.iter().rev().collect();
        loop {
            let mut left = Vec::new();
            for part in &waiting {
                if self.undo_place(part)? {
                    left.push(*part);
                }
            }
            if left.len() == waiting.len() || left.is_empty() {
                return Ok(());
            }
            // Those that waited for each other mostly stand in the wrong order.
            left.reverse();
            waiting = left;
        }
    }

    /// Moves what was created to Trash; what is inside of something that goes there goes with it.
    fn discard<'b>(
        &mut self,
        created: impl Iterator<Item = &'b PlacePart>,
        now: Timestamp,
    ) -> Result<(), EditError> {
        let placed = created.filter_map(|part| self.still_placed(part));
        let own = placed.filter(|still| still.theirs.is_none());
        let going: HashSet<EntryIx> = own.map(|still| still.entry).collect();
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

    /// An entry that is where the move put it. What moved it between containers may have been followed by
    /// reordering, which leaves it there; what only reordered it may not. A later move to the same
    /// container is somebody else's to take back.
    fn still_placed(&self, part: &PlacePart) -> Option<StillPlaced> {
        let tree = &self.replica.tree;
        let entry = self.replica.find_shown(part.entry)?;
        let life = self.replica.life(entry);
        let mut placings = tree.placings(entry).take_while(|placed| tree.target(*placed).1 == life);
        loop {
            let placed = placings.next()?;
            if self.stand_ins.ops.first_name(tree.stamp(placed)?.op()) == part.after.by {
                break;
            }
            if part.is_reordering() || !tree.is_within(placed) {
                return None;
            }
        }
        let unseen = placings.take_while(|placed| tree.stamp(*placed) > part.seen);
        Some(StillPlaced { entry, theirs: self.theirs(unseen, part.is_reordering()) })
    }

    /// The newest of some placings that is somebody else's, or that only reorders what somebody else has
    /// put there. Reordering by others counts by itself only where it is one's own that is undone.
    fn theirs(
        &self,
        placings: impl Iterator<Item = MoveIx>,
        is_reordering: bool,
    ) -> Option<MoveIx> {
        let tree = &self.replica.tree;
        let mut within = None;
        for placed in placings {
            let is_theirs = tree.stamp(placed)?.replica != self.replica.id;
            match tree.is_within(placed) {
                true if is_theirs && is_reordering => return Some(placed),
                true => within = within.or(Some(placed)),
                false if is_theirs => return within.or(Some(placed)),
                false => within = None,
            }
        }
        None
    }

    /// Puts an entry to where others have put it at the same time as the move that is undone. If that is
    /// where it is, it is theirs to take back.
    fn put_where_others_did(
        &mut self,
        entry: EntryIx,
        theirs: MoveIx,
        is_reordering: bool,
    ) -> Result<bool, EditError> {
        let tree = &self.replica.tree;
        let (into, _) = tree.target(theirs);
        if !is_reordering && tree.placement(entry).is_some_and(|now| now.parent == into) {
            return Ok(false);
        }
        let Some(key) = OrderKey::new(tree.key(theirs)) else { return Ok(false) };
        let trashed_at = tree.time(theirs);
        self.enter(entry, into, |replica| replica.put(entry, into, key, trashed_at).map(drop))
    }

    /// Puts an entry where it was, if it is to go anywhere. Whether that has to wait, as for
    /// [`Undoing::enter`].
    fn undo_place(&mut self, part: &PlacePart) -> Result<bool, EditError> {
        let Some(StillPlaced { entry, theirs }) = self.still_placed(part) else { return Ok(false) };
        if let Some(theirs) = theirs {
            return self.put_where_others_did(entry, theirs, part.is_reordering());
        }
        match &part.before {
            Before::Nowhere => Ok(false),
            Before::Rescued => {
                let into = EntryIx::LOST_AND_FOUND;
                let key = rescued_key(self.replica.entries.id(entry));
                let index = self.index_for(entry, into, &key);
                if self.replica.display.parent(entry) == Some(into)
                    && self.replica.display.index_of(entry) == Some(index)
                {
                    return Ok(false);
                }
                self.enter(entry, into, |replica| {
                    let key = replica.make_place(into, index, Some(entry))?;
                    replica.put(entry, into, key, None).map(drop)
                })
            }
            Before::Placed { parent, key, trashed_at, by } => {
                let Some(into) = self.replica.entries.find(*parent) else { return Ok(false) };
                let mut moved = None;
                let has_to_wait = self.enter(entry, into, |replica| {
                    moved = Some(replica.put(entry, into, key.clone(), *trashed_at)?);
                    Ok(())
                })?;
                if let (Some(first), Some(moved)) = (by, moved) {
                    self.stand_for_op(*first, moved);
                }
                Ok(has_to_wait)
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

    /// Puts an entry into a container, unless that is none any more or is inside the entry. Whether it
    /// has to wait, since it would be inside itself there, as things are.
    fn enter(
        &mut self,
        entry: EntryIx,
        into: EntryIx,
        put: impl FnOnce(&mut Replica) -> Result<(), EditError>,
    ) -> Result<bool, EditError> {
        let display = &self.replica.display;
        if !display.is_container(into) {
            return Ok(false);
        }
        if display.is_at_or_above(entry, into) {
            return Ok(true);
        }
        let step = self.replica.step(entry, into);
        match self.replica.enter(&step) {
            // As shown it would be no cycle, but nothing can be done about the hidden one.
            Err(EditError::WouldCycle { .. }) => return Ok(true),
            entered => entered?,
        }
        put(self.replica).map(|()| false)
    }

    fn stand_for_op(&mut self, first: OpId, by: OpId) {
        self.stand_ins.ops.replace(IdRange { first, len: 1 }, by);
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
