//! New keys for all siblings of a container, far apart.

use crate::display::Sibling;
use crate::entries::EntryIx;
use crate::error::EditError;
use crate::id::EntryId;
use crate::replica::Replica;
use crate::tree::{OrderKey, SPREAD_HEAD_MAX};

impl Replica {
    /// Gives the entries in `parent` new order keys, short and far apart, without changing their
    /// order. They are reordered, never moved: who takes one away meanwhile keeps it. What only shows
    /// in Lost and Found, without having been put there, has no key to change. One change;
    /// O(n log n) in the number of entries.
    ///
    /// # Errors
    /// If `parent` is not a shown item, or has more entries than one change may reorder.
    pub fn rebalance(&mut self, parent: EntryId) -> Result<(), EditError> {
        let container = self.require_item(parent)?;
        self.transact(|replica| {
            let children: Vec<EntryIx> = replica.display.children(container).collect();
            let mut from = 0;
            while from < children.len() {
                if !replica.has_key(children[from]) {
                    from += 1;
                    continue;
                }
                let run = children[from..].iter().take_while(|child| replica.has_key(**child));
                let to = from + run.count();
                replica.spread(container, &children, from..to)?;
                from = to;
            }
            Ok(())
        })
    }

    /// The bytes by which a shown entry stands among its siblings; equal ones are in order of id.
    #[must_use]
    pub fn order_key(&self, entry: EntryId) -> Option<Vec<u8>> {
        let entry = self.find_shown(entry)?;
        let by = self.display.place(entry)?.by;
        let key = self.facts().key(Sibling { entry, by });
        Some(key.as_bytes().to_vec())
    }

    /// Whether the entry shows by a key that it was given.
    fn has_key(&self, entry: EntryIx) -> bool {
        self.display.place(entry).is_some_and(|place| place.by.is_some())
    }

    /// Spreads the keys of some siblings in a row over the gap that they are in.
    fn spread(
        &mut self,
        parent: EntryIx,
        children: &[EntryIx],
        range: std::ops::Range<usize>,
    ) -> Result<(), EditError> {
        let key = |at: usize| self.order_key(self.entries.id(*children.get(at)?));
        let (lo, hi) = (range.start.checked_sub(1).and_then(key), key(range.end));
        let ends = (lo.as_deref(), hi.as_deref());
        let keys = OrderKey::spread(ends, range.len(), self.next_id(), SPREAD_HEAD_MAX);
        let keys = keys.ok_or(EditError::OutOfIds)?;
        for (child, key) in children[range].iter().zip(keys) {
            self.put_again(*child, parent, key)?;
        }
        Ok(())
    }
}
