//! From a character's id to the leaf that it is in.
//!
//! The ids of a text fall into pieces: within one, all characters are in the same leaf. Each piece is
//! known by its first id and reaches to the next one or to its author's end; what lies in a piece
//! without being in the text may be said to be anywhere. A run that is cut inside a leaf, or typing that
//! goes on, changes nothing here. Pieces stand in chunks of bounded size.
//!
//! Invariants, checked by `assert_invariants`:
//! - I1. Keys rise, within a chunk and from one to the next; no chunk is empty or over its size.
//! - I2. `heads` has the first key of each chunk.
//!
//! Cost: two binary searches. A new piece also moves half a chunk, and once in a while the heads.

use std::ops::Range;

use super::authors::CharId;

/// The most pieces in a chunk.
const CHUNK: usize = if cfg!(any(test, feature = "small-nodes")) { 4 } else { 256 };

#[derive(Clone, Debug, Default)]
struct Chunk {
    keys: Vec<CharId>,
    leaves: Vec<u32>,
}

/// The pieces of a text's ids. What lies before an author's first piece is in the first leaf.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    heads: Vec<CharId>,
    chunks: Vec<Chunk>,
}

impl Index {
    /// The index of spans of ids and their leaves, in order of id.
    pub(super) fn from_sorted(spans: impl IntoIterator<Item = (CharId, u32)>) -> Self {
        let mut index = Self::default();
        let mut before = None;
        for (key, leaf) in spans {
            let known = before.filter(|(id, _)| key.is_of_author_of(*id));
            if leaf != known.map_or(0, |(_, leaf)| leaf) {
                index.push(key, leaf);
            }
            before = Some((key, leaf));
        }
        index
    }

    /// The leaf of a character, if it is here at all.
    #[inline]
    pub(super) fn leaf_of(&self, id: CharId) -> u32 {
        self.piece(self.piece_before(id), id).1
    }

    /// Where the piece that `id` is in ends.
    pub(super) fn piece_end(&self, id: CharId) -> CharId {
        self.piece(self.piece_before(id), id).0
    }

    /// Says that the characters `ids` are in `leaf`. `are_last`: their author has none after them.
    pub(super) fn assign(&mut self, ids: Range<CharId>, leaf: u32, are_last: bool) {
        let before = self.last_piece_if_before(ids.start).or_else(|| self.piece_before(ids.start));
        let (next, known) = self.piece(before, ids.start);
        if next < ids.end {
            // What comes behind may be in a piece that begins inside.
            let rest = self.leaf_of(ids.end);
            self.remove_between(&ids);
            if !are_last {
                self.begin_piece(ids.end, rest);
            }
            self.assign(ids, leaf, are_last);
            return;
        }
        if known == leaf {
            return;
        }
        let keeps_rest = !are_last && ids.end < next;
        let rest = keeps_rest.then_some((ids.end, known));
        match before {
            Some((number, at)) if self.chunks[number].keys[at] == ids.start => {
                self.chunks[number].leaves[at] = leaf;
                self.insert(number, at + 1, None, rest);
            }
            Some((number, at)) => self.insert(number, at + 1, Some((ids.start, leaf)), rest),
            None => self.insert(0, 0, Some((ids.start, leaf)), rest),
        }
    }

    /// Lets a piece begin at `key`, if none does.
    fn begin_piece(&mut self, key: CharId, leaf: u32) {
        match self.piece_before(key) {
            Some((number, at)) if self.chunks[number].keys[at] == key => {}
            Some((number, at)) => self.insert(number, at + 1, Some((key, leaf)), None),
            None => self.insert(0, 0, Some((key, leaf)), None),
        }
    }

    /// Of the piece that `id` is in, given the key before that: where it ends, and its leaf.
    #[inline]
    fn piece(&self, before: Option<(usize, usize)>, id: CharId) -> (CharId, u32) {
        let Some((number, at)) = before else {
            return (self.heads.first().copied().unwrap_or(CharId::MAX), 0);
        };
        let chunk = &self.chunks[number];
        let next = chunk.keys.get(at + 1).or_else(|| self.heads.get(number + 1));
        let leaf = if id.is_of_author_of(chunk.keys[at]) { chunk.leaves[at] } else { 0 };
        (next.copied().unwrap_or(CharId::MAX), leaf)
    }

    /// Puts up to two pieces in, which follow each other.
    fn insert(
        &mut self,
        number: usize,
        at: usize,
        first: Option<(CharId, u32)>,
        second: Option<(CharId, u32)>,
    ) {
        if self.chunks.is_empty() {
            first.into_iter().chain(second).for_each(|(key, leaf)| self.push(key, leaf));
            return;
        }
        let chunk = &mut self.chunks[number];
        for (key, leaf) in second.into_iter().chain(first) {
            chunk.insert(at, key, leaf);
        }
        if at == 0 {
            self.heads[number] = chunk.keys[0];
        }
        if chunk.keys.len() <= CHUNK {
            return;
        }
        // Ids mostly come in rising order: then the full chunk stays full.
        let cut = if at >= CHUNK - 1 { CHUNK } else { CHUNK / 2 };
        let rest = chunk.split_off(cut);
        self.heads.insert(number + 1, rest.keys[0]);
        self.chunks.insert(number + 1, rest);
    }

    /// Adds a piece behind all others.
    fn push(&mut self, key: CharId, leaf: u32) {
        match self.chunks.last_mut() {
            Some(chunk) if chunk.keys.len() < CHUNK => chunk.insert(chunk.keys.len(), key, leaf),
            _ => {
                self.heads.push(key);
                self.chunks.push(Chunk { keys: vec![key], leaves: vec![leaf] });
            }
        }
    }

    /// Removes the keys inside of `ids`, without their ends.
    fn remove_between(&mut self, ids: &Range<CharId>) {
        loop {
            let key = self.piece_end(ids.start);
            if key >= ids.end {
                return;
            }
            let Some((number, at)) = self.piece_before(key) else { return };
            let chunk = &mut self.chunks[number];
            chunk.keys.remove(at);
            chunk.leaves.remove(at);
            match chunk.keys.first() {
                Some(first) => self.heads[number] = *first,
                None => {
                    self.heads.remove(number);
                    self.chunks.remove(number);
                }
            }
        }
    }

    /// The piece with the greatest key up to `id`: its chunk and its place there.
    #[inline]
    fn piece_before(&self, id: CharId) -> Option<(usize, usize)> {
        let chunk = self.heads.partition_point(|head| *head <= id).checked_sub(1)?;
        let at = self.chunks[chunk].keys.partition_point(|key| *key <= id);
        // I2: the chunk's first key is its head.
        Some((chunk, at.saturating_sub(1)))
    }

    /// The last piece of all, if it begins before `id`: new characters mostly have the greatest ids.
    #[inline]
    fn last_piece_if_before(&self, id: CharId) -> Option<(usize, usize)> {
        let chunk = self.chunks.last()?;
        let is_before = chunk.keys.last().is_some_and(|key| *key < id);
        is_before.then(|| (self.chunks.len() - 1, chunk.keys.len() - 1))
    }

    /// Panics if I1 or I2 does not hold.
    pub(super) fn assert_invariants(&self) {
        let heads = self.chunks.iter().map(|chunk| chunk.keys[0]);
        assert!(heads.eq(self.heads.iter().copied()), "I2");
        for chunk in &self.chunks {
            assert!((1..=CHUNK).contains(&chunk.keys.len()), "I1: size of a chunk");
            assert_eq!(chunk.keys.len(), chunk.leaves.len(), "I1");
        }
        let keys: Vec<CharId> = self.chunks.iter().flat_map(|chunk| chunk.keys.clone()).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "I1: keys out of order");
    }
}

impl Chunk {
    fn insert(&mut self, at: usize, key: CharId, leaf: u32) {
        if self.keys.len() == self.keys.capacity() {
            let more = (self.keys.len() / 4).max(4);
            self.keys.reserve_exact(more);
            self.leaves.reserve_exact(more);
        }
        self.keys.insert(at, key);
        self.leaves.insert(at, leaf);
    }

    fn split_off(&mut self, at: usize) -> Self {
        let rest = Self { keys: self.keys.split_off(at), leaves: self.leaves.split_off(at) };
        self.keys.shrink_to_fit();
        self.leaves.shrink_to_fit();
        rest
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::authors::Authors;
    use super::*;
    use crate::id::{OpId, ReplicaId};

    proptest! {
        /// Spans of two authors go to leaves in any order, some of them again and again.
        #[test]
        fn every_assigned_id_is_in_the_leaf_that_it_was_assigned_to_last(
            spans in prop::collection::vec((1u64..3, 0u64..100, 1u64..9, 0u32..5), 1..60),
        ) {
            let (mut authors, mut index) = (Authors::default(), Index::default());
            let mut leaves = BTreeMap::new();
            for (replica, start, len, leaf) in spans {
                let replica = ReplicaId::new(replica).unwrap();
                let id = |counter| OpId { replica, counter };
                let ids: Vec<CharId> =
                    (start..start + len).map(|at| authors.find_or_add(id(at))).collect();
                let (first, last) = (ids[0], ids[ids.len() - 1]);
                let are_last = authors.end_of(first) <= first;
                authors.reach(last);
                index.assign(first..last.plus(1), leaf, are_last);
                leaves.extend(ids.into_iter().map(|id| (id, leaf)));
                index.assert_invariants();
                for (id, leaf) in &leaves {
                    prop_assert_eq!(index.leaf_of(*id), *leaf);
                }
            }
            let loaded = Index::from_sorted(leaves.clone());
            loaded.assert_invariants();
            for (id, leaf) in &leaves {
                prop_assert_eq!(loaded.leaf_of(*id), *leaf);
                prop_assert!(loaded.piece_end(*id) > *id);
            }
        }
    }
}
