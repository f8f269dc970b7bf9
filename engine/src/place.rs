//! Keys for entries that are to stand at an index among those shown.
//!
//! Where a gap is full, as few neighbours as it takes get new keys in the same change: so keys stay
//! short however often something is inserted at one place.

use crate::display::{Sibling, Siblings};
use crate::error::EditError;
use crate::id::EntryId;
use crate::op::Op;
use crate::replica::Replica;
use crate::tree::{OrderKey, SPREAD_HEAD_MAX};

/// The siblings among which an entry is to go: those that show in a container, without the entry.
struct Others<'a> {
    siblings: Option<&'a Siblings>,
    /// Where the entry itself is among them.
    left_out: Option<usize>,
}

impl Others<'_> {
    fn len(&self) -> usize {
        let len = self.siblings.map_or(0, Siblings::len);
        len - usize::from(self.left_out.is_some())
    }

    fn at(&self, index: usize) -> Option<&Sibling> {
        let is_behind = self.left_out.is_some_and(|left_out| index >= left_out);
        self.siblings?.at(index + usize::from(is_behind))
    }

    fn before(&self, index: usize) -> Option<&Sibling> {
        self.at(index.checked_sub(1)?)
    }
}

/// The prefix that very many siblings may have together: that of a place in a run of one's own.
const HEAD_MAX_OF_MANY: usize = 10;

/// New keys for siblings, and one for the gap among them.
struct Room {
    key: OrderKey,
    moved: Vec<(EntryId, OrderKey)>,
}

impl Replica {
    /// A key for an entry that is to stand at `index` among the children of `parent`, not counting
    /// `moving`. Where there is no room, neighbours get new keys in the same change.
    pub(crate) fn make_place(
        &mut self,
        parent: EntryId,
        index: usize,
        moving: Option<EntryId>,
    ) -> Result<OrderKey, EditError> {
        let others = self.others(parent, moving);
        let index = index.min(others.len());
        let (lo, hi) = (others.before(index), others.at(index));
        let (lo_key, hi_key) = (lo.map(|(key, _)| key), hi.map(|(key, _)| key));
        if let Some((key, child)) = lo
            && self.is_own_place(*child)
            && let Some(next) = key.following(hi_key)
        {
            return Ok(next);
        }
        if let Some(key) = OrderKey::between(lo_key, hi_key, self.next_id()) {
            return Ok(key);
        }
        let room = self.find_room(&others, index).ok_or(EditError::OutOfIds)?;
        for (child, key) in room.moved {
            self.put_again(child, parent, key)?;
        }
        Ok(room.key)
    }

    fn others(&self, parent: EntryId, moving: Option<EntryId>) -> Others<'_> {
        let inside = moving.filter(|entry| self.parent(*entry) == Some(parent));
        let left_out = inside.and_then(|entry| self.index_of(entry));
        Others { siblings: self.display.children(parent), left_out }
    }

    /// New keys for as few neighbours of a full gap as it takes; nothing if all siblings together are
    /// too many for that.
    ///
    /// The more neighbours it takes, the shorter keys it asks for: so the next time that many are
    /// needed is the further away (after Bender, Cole, Demaine, Farach-Colton, Zito 2002, "Two
    /// simplified algorithms for maintaining order in a list").
    fn find_room(&self, others: &Others<'_>, index: usize) -> Option<Room> {
        // A placeholder has no place of its own; giving it one would revive it.
        let may_move =
            |sibling: Option<&Sibling>| sibling.is_some_and(|(_, id)| self.is_alive(*id));
        let (mut from, mut to) = (index, index);
        let mut head_max = SPREAD_HEAD_MAX;
        let mut step = 1;
        loop {
            let before = (from, to);
            // The right neighbour first: it may have the left one's key.
            while to < index + step && may_move(others.at(to)) {
                to += 1;
            }
            while from + step > index + 1 && may_move(others.before(from)) {
                from -= 1;
            }
            let is_all = before == (from, to);
            let (lo, hi) = (others.before(from), others.at(to));
            let ends = (lo.map(|(key, _)| key), hi.map(|(key, _)| key));
            let head_max_here = if is_all { SPREAD_HEAD_MAX } else { head_max };
            let keys = OrderKey::spread(ends, to - from + 1, self.next_id(), head_max_here);
            if let Some(mut keys) = keys {
                let key = keys.remove(index - from);
                let children = (from..to).filter_map(|at| others.at(at)).map(|(_, child)| *child);
                return Some(Room { key, moved: children.zip(keys).collect() });
            }
            if is_all {
                return None;
            }
            step *= 2;
            head_max = head_max.saturating_sub(2).max(HEAD_MAX_OF_MANY);
        }
    }

    /// Gives a child another key in the container where it shows.
    fn put_again(
        &mut self,
        entry: EntryId,
        parent: EntryId,
        key: OrderKey,
    ) -> Result<(), EditError> {
        let life = self.life(entry);
        self.push(if self.is_placed_in(entry, parent) {
            Op::Reorder { entry, life, parent, key }
        } else {
            Op::Move { entry, life, parent, key, trashed_at: None }
        })
    }
}
