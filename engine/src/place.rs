//! Keys for entries that are to stand at an index among those shown.
//!
//! Where a gap is full, as few neighbours as it takes get new keys in the same change: so keys stay
//! short however often something is inserted at one place.

use crate::display::{Facts, ShownKey, Sibling};
use crate::entries::EntryIx;
use crate::error::EditError;
use crate::op::Op;
use crate::replica::Replica;
use crate::tree::{OrderKey, SPREAD_HEAD_MAX};

/// The siblings among which an entry is to go: those that show in a container, without the entry.
struct Others<'a> {
    replica: &'a Replica,
    parent: EntryIx,
    /// Where the entry itself is among them.
    left_out: Option<usize>,
}

impl<'a> Others<'a> {
    fn len(&self) -> usize {
        let len = self.replica.display.child_count(self.parent);
        len - usize::from(self.left_out.is_some())
    }

    fn at(&self, index: usize) -> Option<Sibling> {
        let is_behind = self.left_out.is_some_and(|left_out| index >= left_out);
        self.replica.display.child_at(self.parent, index + usize::from(is_behind))
    }

    fn before(&self, index: usize) -> Option<Sibling> {
        self.at(index.checked_sub(1)?)
    }

    fn key(&self, child: Sibling) -> ShownKey<'a> {
        let Replica { entries, tree, .. } = self.replica;
        Facts { entries, tree }.key(child)
    }
}

/// The prefix that very many siblings may have together: that of a place in a run of one's own.
const HEAD_MAX_OF_MANY: usize = 10;

/// New keys for siblings, and one for the gap among them.
struct Room {
    key: OrderKey,
    moved: Vec<(EntryIx, OrderKey)>,
}

impl Replica {
    /// A key for an entry that is to stand at `index` among the children of `parent`, not counting
    /// `moving`. Where there is no room, neighbours get new keys in the same change.
    pub(crate) fn make_place(
        &mut self,
        parent: EntryIx,
        index: usize,
        moving: Option<EntryIx>,
    ) -> Result<OrderKey, EditError> {
        let others = self.others(parent, moving);
        let index = index.min(others.len());
        let (lo, hi) = (others.before(index), others.at(index));
        if let Some(key) = self.find_place(&others, lo, hi) {
            if let Some(lo) = lo {
                self.display.expect_behind(lo.entry);
            }
            return Ok(key);
        }
        let room = self.find_room(&others, index).ok_or(EditError::OutOfIds)?;
        for (child, key) in room.moved {
            self.put_again(child, parent, key)?;
        }
        Ok(room.key)
    }

    fn others(&self, parent: EntryIx, moving: Option<EntryIx>) -> Others<'_> {
        let inside = moving.filter(|entry| self.display.parent(*entry) == Some(parent));
        let left_out = inside.and_then(|entry| self.display.index_of(entry));
        Others { replica: self, parent, left_out }
    }

    /// A key between two neighbours, if there is room.
    fn find_place(
        &self,
        others: &Others<'_>,
        lo: Option<Sibling>,
        hi: Option<Sibling>,
    ) -> Option<OrderKey> {
        let (lo_key, hi_key) = (lo.map(|lo| others.key(lo)), hi.map(|hi| others.key(hi)));
        let lo_key = lo_key.as_ref().map(ShownKey::as_bytes);
        let hi_key = hi_key.as_ref().map(ShownKey::as_bytes);
        // What goes on with a run shares its tag, so that nobody else's run comes between.
        let after = lo.filter(|lo| self.is_own_place(*lo)).and(lo_key);
        let before = hi.filter(|hi| self.is_own_place(*hi)).and(hi_key);
        after
            .and_then(|own| OrderKey::following(own, hi_key))
            .or_else(|| before.and_then(|own| OrderKey::preceding(own, lo_key)))
            .or_else(|| OrderKey::between(lo_key, hi_key, self.next_id()))
    }

    /// New keys for as few neighbours of a full gap as it takes; nothing if all siblings between two that
    /// have to stay are too many for that.
    ///
    /// The more neighbours it takes, the shorter keys it asks for: so the next time that many are
    /// needed is the further away (after Bender, Cole, Demaine, Farach-Colton, Zito 2002, "Two
    /// simplified algorithms for maintaining order in a list").
    fn find_room(&self, others: &Others<'_>, index: usize) -> Option<Room> {
        // What only shows in Lost and Found has no key to change: it would be moved there for good, and a
        // placeholder be revived.
        let may_move = |sibling: Option<Sibling>| sibling.is_some_and(|one| one.by.is_some());
        let (mut from, mut to) = (index, index);
        let mut head_max = SPREAD_HEAD_MAX;
        let mut step = 1;
        loop {
            // The right neighbour first: it may have the left one's key.
            while to < index + step && may_move(others.at(to)) {
                to += 1;
            }
            while from + step > index + 1 && may_move(others.before(from)) {
                from -= 1;
            }
            let is_all = !may_move(others.at(to)) && !may_move(others.before(from));
            let lo = others.before(from).map(|lo| others.key(lo));
            let hi = others.at(to).map(|hi| others.key(hi));
            let ends = (lo.as_ref().map(ShownKey::as_bytes), hi.as_ref().map(ShownKey::as_bytes));
            let head_max_here = if is_all { SPREAD_HEAD_MAX } else { head_max };
            let keys = OrderKey::spread(ends, to - from + 1, self.next_id(), head_max_here);
            if let Some(mut keys) = keys {
                let key = keys.remove(index - from);
                let children = (from..to).filter_map(|at| others.at(at)).map(|child| child.entry);
                return Some(Room { key, moved: children.zip(keys).collect() });
            }
            if is_all {
                return None;
            }
            step *= 2;
            head_max = head_max.saturating_sub(2).max(HEAD_MAX_OF_MANY);
        }
    }

    /// Gives a child another key in the container where it was put and shows.
    pub(crate) fn put_again(
        &mut self,
        entry: EntryIx,
        parent: EntryIx,
        key: OrderKey,
    ) -> Result<(), EditError> {
        let life = self.life(entry);
        let (entry, parent) = (self.entries.id(entry), self.entries.id(parent));
        self.push(Op::Reorder { entry, life, parent, key })
    }
}
