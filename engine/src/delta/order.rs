//! Which places entries left and came to, as indexes, and which of them really stand elsewhere.
//!
//! Siblings that nothing touched stand in the same order as before. Of those that got another key in
//! the same container, as many as can be are taken to have stayed: a longest sequence that is in the
//! same order among themselves and among the others. What is left was reordered.

use std::collections::BTreeMap;

use super::{Difference, Moved, Place};
use crate::entries::EntryIx;
use crate::id::EntryId;
use crate::replica::Replica;

/// Where an entry was or is in a container.
#[derive(Clone, Copy, Debug)]
struct Stand {
    entry: EntryIx,
    /// How many siblings that nothing touched stand before it.
    gap: usize,
    index: usize,
}

/// What was touched in a container: what showed there and what shows there, each in order.
#[derive(Debug, Default)]
struct Touched {
    old: Vec<Stand>,
    new: Vec<Stand>,
}

/// The places of the entries that stand elsewhere.
#[derive(Debug, Default)]
pub(super) struct Reordering(BTreeMap<EntryId, Difference<Option<Place>>>);

impl Reordering {
    /// The places of entries whose container or key is another one than before.
    pub(super) fn of(moved: &[Moved], replica: &Replica) -> Self {
        let mut reordering = Self::default();
        for (container, touched) in touched_by_container(moved, replica) {
            let parent = replica.entries.id(container);
            let stays = touched.stays();
            let is_there = |stand: &&Stand| stays.binary_search(&stand.entry).is_err();
            for stand in touched.old.iter().filter(is_there) {
                let place = reordering.place_of(replica.entries.id(stand.entry));
                place.before = Some(Place { parent, index: stand.index });
            }
            for stand in touched.new.iter().filter(is_there) {
                let place = reordering.place_of(replica.entries.id(stand.entry));
                place.after = Some(Place { parent, index: stand.index });
            }
        }
        reordering
    }

    pub(super) fn places(self) -> impl Iterator<Item = (EntryId, Difference<Option<Place>>)> {
        self.0.into_iter()
    }

    fn place_of(&mut self, entry: EntryId) -> &mut Difference<Option<Place>> {
        self.0.entry(entry).or_insert(Difference { before: None, after: None })
    }
}

fn touched_by_container(moved: &[Moved], replica: &Replica) -> BTreeMap<EntryIx, Touched> {
    let mut containers: BTreeMap<EntryIx, Touched> = BTreeMap::new();
    for (entry, place) in moved {
        if let Some(after) = &place.after
            && let Some(index) = replica.display.index_of(*entry)
        {
            let new = &mut containers.entry(after.parent).or_default().new;
            new.push(Stand { entry: *entry, gap: 0, index });
        }
    }
    for touched in containers.values_mut() {
        touched.new.sort_unstable_by_key(|stand| stand.index);
        touched.new.iter_mut().enumerate().for_each(|(at, stand)| stand.gap = stand.index - at);
    }
    let mut old: Vec<_> = moved
        .iter()
        .filter_map(|(entry, place)| {
            let before = place.before.as_ref()?;
            Some((before.parent, before.key.as_slice(), replica.entries.id(*entry), *entry))
        })
        .collect();
    old.sort_unstable();
    for (parent, key, id, entry) in old {
        let Touched { old, new } = containers.entry(parent).or_default();
        let rank = replica.display.rank(parent, (key, id), replica.facts());
        let gap = rank - new.partition_point(|stand| stand.index < rank);
        old.push(Stand { entry, gap, index: gap + old.len() });
    }
    containers
}

impl Touched {
    /// The entries that can be taken to have stayed, in order.
    fn stays(&self) -> Vec<EntryIx> {
        let mut before: Vec<(EntryIx, usize, usize)> =
            self.old.iter().enumerate().map(|(at, stand)| (stand.entry, stand.gap, at)).collect();
        before.sort_unstable();
        let common = self.new.iter().filter_map(|stand| {
            let at = before.binary_search_by_key(&stand.entry, |(entry, ..)| *entry).ok()?;
            let (entry, gap, at) = before[at];
            (gap == stand.gap).then_some((entry, at))
        });
        let common: Vec<(EntryIx, usize)> = common.collect();
        let mut stays = longest_rise(&common);
        stays.sort_unstable();
        stays
    }
}

/// The entries of a longest sequence among these in which the numbers rise.
pub(super) fn longest_rise<E: Copy>(numbered: &[(E, usize)]) -> Vec<E> {
    // The last of the best sequence of each length, and before each the one that leads to it.
    let mut ends: Vec<usize> = Vec::new();
    let mut leads: Vec<Option<usize>> = Vec::with_capacity(numbered.len());
    for (at, (_, number)) in numbered.iter().enumerate() {
        let len = ends.partition_point(|end| numbered[*end].1 < *number);
        leads.push(len.checked_sub(1).map(|shorter| ends[shorter]));
        if len == ends.len() {
            ends.push(at);
        } else {
            ends[len] = at;
        }
    }
    let last = ends.last().copied();
    std::iter::successors(last, |at| leads[*at]).map(|at| numbered[at].0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longest_rise_is_found() {
        let check = |numbers: &[usize], len: usize| {
            let numbered: Vec<_> =
                numbers.iter().map(|number| (EntryIx::new(*number), *number)).collect();
            let mut rise = longest_rise(&numbered);
            rise.reverse();
            assert!(rise.is_sorted(), "{rise:?}");
            assert_eq!(rise.len(), len, "{numbers:?}");
        };
        check(&[], 0);
        check(&[7], 1);
        check(&[0, 1, 2, 3], 4);
        check(&[3, 2, 1, 0], 1);
        check(&[3, 0, 1, 2], 3);
        check(&[5, 1, 6, 2, 7, 3, 4], 4);
    }
}
