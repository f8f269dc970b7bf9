//! Keys for entries that are to stand at an index among those shown.
//!
//! Where a gap is full, as few neighbours as it takes get new keys in the same change: so keys stay
//! short however often something is inserted at one place.

use crate::display::Sibling;
use crate::error::EditError;
use crate::id::EntryId;
use crate::op::Op;
use crate::replica::Replica;
use crate::tree::OrderKey;

impl Replica {
    /// A key for an entry that is to stand at `index` among the children of `parent`, not counting
    /// `moving`. Where there is no room, neighbours get new keys in the same change.
    pub(crate) fn make_place(
        &mut self,
        parent: EntryId,
        index: usize,
        moving: Option<EntryId>,
    ) -> Result<OrderKey, EditError> {
        let (lo, hi) = self.neighbours(parent, index, moving);
        let (lo_key, hi_key) = (lo.as_ref().map(|(key, _)| key), hi.as_ref().map(|(key, _)| key));
        if let Some((key, child)) = &lo
            && self.is_own_place(*child)
            && let Some(next) = key.following(hi_key)
        {
            return Ok(next);
        }
        match OrderKey::between(lo_key, hi_key, self.next_id()) {
            Some(key) => Ok(key),
            None => self.make_room(parent, index, moving),
        }
    }

    /// The children of `parent` between which an entry is to go, with their keys.
    fn neighbours(
        &self,
        parent: EntryId,
        index: usize,
        moving: Option<EntryId>,
    ) -> (Option<Sibling>, Option<Sibling>) {
        let mut others =
            self.display.children(parent).filter(|(_, child)| Some(*child) != moving).cloned();
        if index >= self.child_count(parent) {
            return (others.next_back(), None);
        }
        let lo = index.checked_sub(1).and_then(|before| others.nth(before));
        (lo, others.next())
    }

    /// Gives new keys to as few neighbours of a full gap as it takes, and returns one for the gap.
    fn make_room(
        &mut self,
        parent: EntryId,
        index: usize,
        moving: Option<EntryId>,
    ) -> Result<OrderKey, EditError> {
        let others: Vec<Sibling> = self
            .display
            .children(parent)
            .filter(|(_, child)| Some(*child) != moving)
            .cloned()
            .collect();
        let index = index.min(others.len());
        // A placeholder has no place of its own; giving it one would revive it.
        let is_placeholder = |(_, child): &Sibling| !self.is_alive(*child);
        let least = others[..index].iter().rposition(is_placeholder).map_or(0, |at| at + 1);
        let most = others[index..].iter().position(is_placeholder);
        let most = most.map_or(others.len(), |at| index + at);
        let mut width = 1;
        loop {
            let from = index.saturating_sub(width - 1).max(least);
            let to = (index + width).min(most);
            let lo = from.checked_sub(1).map(|before| &others[before].0);
            let hi = others.get(to).map(|(key, _)| key);
            let first = OrderKey::between(lo, hi, self.next_id());
            let keys: Vec<OrderKey> =
                std::iter::successors(first, |key| key.following(hi)).take(to - from + 1).collect();
            if keys.len() == to - from + 1 {
                let gap = index - from;
                let children = others[from..to].iter().map(|(_, child)| *child);
                let free = (0..).zip(&keys).filter(|(at, _)| *at != gap).map(|(_, key)| key);
                for (child, key) in children.zip(free) {
                    self.put_again(child, parent, key.clone())?;
                }
                return Ok(keys[gap].clone());
            }
            if (from, to) == (least, most) {
                // 2^24 siblings and more do not fit one run.
                return Err(EditError::OutOfIds);
            }
            width *= 2;
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
