//! A tree from a list of runs and back, and the index when it is needed.

use std::ops::Range;
use std::sync::OnceLock;

use smallvec::SmallVec;

use super::cursor::Cursor;
use super::{
    Authors, CharId, Child, FAN_OUT, FIRST_LEAF, Index, LEAF_BYTES, LEAF_RUNS, Leaf, Lengths, NONE,
    Run, RunTree, Spot,
};
use crate::id::{OpId, ReplicaId, Stamp};

/// Older than any stamp there is: the bound of a leaf whose runs nobody has looked at.
const OLDEST: Stamp = Stamp { lamport: 0, replica: ReplicaId::MAX, counter: 0 };

/// Characters with consecutive ids, each of which has the one before as its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    /// The id of the first character.
    pub(crate) first: OpId,
    /// Whether the characters show.
    pub(crate) fate: Fate<'a>,
}

/// Whether characters show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate<'a> {
    /// These characters show.
    Visible(&'a str),
    /// This many characters were deleted.
    Deleted(u64),
}

/// Leaves in the making. The last one is collected in buffers, so that no leaf has room to spare.
#[derive(Default)]
struct Shelf {
    leaves: Vec<Leaf>,
    children: Vec<Child>,
    authors: Authors,
    runs: Vec<Run>,
    text: String,
    /// What shows of the last leaf.
    shown: Lengths,
}

impl RunTree {
    /// The tree of these characters, which are all of a text, in order. Takes no look at stamps and
    /// builds no index yet. The pieces may be of any length; no id may be there twice.
    pub(in crate::text) fn from_pieces<'a>(pieces: impl IntoIterator<Item = Piece<'a>>) -> Self {
        let mut shelf = Shelf::default();
        for Piece { first, fate } in pieces {
            match fate {
                Fate::Visible(text) => shelf.add_visible(first, text),
                Fate::Deleted(len) => shelf.add_deleted(first, len),
            }
        }
        let Shelf { mut leaves, mut children, authors, .. } = shelf.finish();
        leaves.shrink_to_fit();
        let shown = children.iter().fold(Lengths::ZERO, |shown, child| shown + child.shown);
        // All that is in the first leaf needs no index.
        let index = if leaves.len() == 1 { Index::default().into() } else { OnceLock::new() };
        let mut tree = Self {
            leaves,
            inners: Vec::new(),
            root: FIRST_LEAF,
            height: 0,
            shown,
            authors,
            index,
            cursor: Cursor::START,
        };
        let mut level = 0;
        while children.len() > 1 {
            let nodes = children.chunks(FAN_OUT);
            let nodes: Vec<u32> =
                nodes.map(|below| tree.add_inner(below.to_vec(), NONE, level)).collect();
            level += 1;
            children = nodes.into_iter().map(|node| tree.summarize(node)).collect();
        }
        (tree.root, tree.height) = (children.first().map_or(FIRST_LEAF, |root| root.node), level);
        tree
    }

    /// The characters of the text, in order.
    pub(in crate::text) fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let mut spot = Spot { leaf: FIRST_LEAF, run: 0, byte: 0 };
        std::iter::from_fn(move || {
            let run = loop {
                if spot.leaf == NONE {
                    return None;
                }
                match self.run(spot) {
                    Some(run) => break run,
                    None => {
                        let leaf = self.leaves[spot.leaf as usize].next;
                        spot = Spot { leaf, run: 0, byte: 0 };
                    }
                }
            };
            let text = self.run_text(spot);
            spot = Spot { run: spot.run + 1, byte: spot.byte + text.len(), ..spot };
            let fate =
                if run.is_deleted() { Fate::Deleted(run.len.into()) } else { Fate::Visible(text) };
            Some(Piece { first: self.authors.op(run.first), fate })
        })
    }

    /// The index. Of a text that was loaded it is built when it is first asked for, in O(n log n).
    #[inline]
    pub(super) fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let leaves = (0..).zip(&self.leaves);
            let spans =
                leaves.flat_map(|(at, leaf)| leaf.runs.iter().map(move |run| (run.first, at)));
            let mut spans: Vec<(CharId, u32)> = spans.collect();
            spans.sort_unstable();
            Index::from_sorted(spans)
        })
    }

    /// Brings the index up to date with what is in a new leaf.
    pub(super) fn index_leaf(&mut self, leaf: u32) {
        let Some(index) = self.index.get_mut() else { return };
        let runs = &self.leaves[leaf as usize].runs;
        let spans = runs.iter().map(|run| run.first..run.end());
        let mut spans: SmallVec<[Range<CharId>; 32]> = spans.collect();
        spans.sort_unstable_by_key(|ids| ids.start);
        spans.dedup_by(|next, ids| {
            let goes_on = ids.end == next.start && !next.start.begins_era();
            if goes_on {
                ids.end = next.end;
            }
            goes_on
        });
        for ids in spans {
            let are_last = self.authors.end_of(ids.start) == ids.end;
            index.assign(ids, leaf, are_last);
        }
    }

    /// The first id after `id`, which is not in this text, that may be.
    pub(super) fn next_char(&self, id: CharId) -> CharId {
        let end = self.index().piece_end(id);
        let runs = &self.leaves[self.index().leaf_of(id) as usize].runs;
        let later = runs.iter().map(|run| run.first).filter(|first| (id..end).contains(first));
        later.min().unwrap_or(end)
    }
}

impl Shelf {
    fn add_visible(&mut self, mut first: OpId, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            let id = self.authors.find_or_add(first);
            let mut piece = rest;
            if self.text.len() + piece.len() > LEAF_BYTES {
                piece = &rest[..rest.floor_char_boundary(LEAF_BYTES - self.text.len())];
            }
            let mut lengths = Lengths::of(piece);
            if lengths.chars as u64 > Authors::room(id) {
                let room = usize::try_from(Authors::room(id)).unwrap_or(usize::MAX);
                let end = piece.char_indices().nth(room);
                piece = &piece[..end.map_or(piece.len(), |(byte, _)| byte)];
                lengths = Lengths::of(piece);
            }
            if piece.is_empty() {
                self.end_leaf();
                continue;
            }
            self.add(Run::visible(id, lengths));
            self.text.push_str(piece);
            self.shown += lengths;
            first = first.plus(lengths.chars as u64);
            rest = &rest[piece.len()..];
        }
    }

    fn add_deleted(&mut self, mut first: OpId, mut left: u64) {
        while left > 0 {
            let id = self.authors.find_or_add(first);
            let len = left.min(Authors::room(id)).min(u32::MAX.into());
            left -= len;
            first = first.plus(len);
            self.add(Run::deleted(id, u32::try_from(len).unwrap_or(u32::MAX)));
        }
    }

    #[inline]
    fn add(&mut self, run: Run) {
        self.authors.reach(run.first.plus(run.len - 1));
        match self.runs.last_mut() {
            Some(last) if last.continues_with(&run) => last.join(&run),
            _ => {
                if self.runs.len() == LEAF_RUNS {
                    self.end_leaf();
                }
                self.runs.push(run);
            }
        }
    }

    fn end_leaf(&mut self) {
        // Leaves are fewer than runs, and these fewer than 2^32.
        let node = u32::try_from(self.leaves.len()).unwrap_or(NONE);
        if let Some(last) = self.leaves.last_mut() {
            last.next = node;
        }
        let (runs, text) = (self.runs.clone(), self.text.clone());
        self.leaves.push(Leaf { runs, text, parent: NONE, next: NONE, oldest: OLDEST });
        self.children.push(Child { node, shown: self.shown, oldest: OLDEST });
        self.runs.clear();
        self.text.clear();
        self.shown = Lengths::ZERO;
    }

    fn finish(mut self) -> Self {
        if !self.runs.is_empty() {
            self.end_leaf();
        }
        if self.leaves.is_empty() {
            self.leaves.push(Leaf::empty());
        }
        self
    }
}
