//! Which characters stand together, and whether they show.

use super::RunTree;
use crate::id::OpId;
use crate::op::IdRange;

impl RunTree {
    /// The characters among `len` ids from `first` on that are in this text: pieces in which nothing,
    /// not even what was deleted, stands between two of them, each with whether it shows. O(log n) for
    /// each piece.
    pub(in crate::text) fn standing(&self, first: OpId, len: u64) -> Vec<(IdRange, bool)> {
        let mut pieces: Vec<(IdRange, bool)> = Vec::new();
        // The place after the last piece, if the run goes on in the next leaf.
        let mut next_leaf = None;
        for (mut from, to) in self.authors.ranges(first, len) {
            while from < to {
                let Some((leaf, number)) = self.locate(from) else {
                    from = self.next_char(from);
                    next_leaf = None;
                    continue;
                };
                let here = &self.leaves[leaf as usize];
                let run = here.runs[number];
                let upto = run.end().min(to);
                let (first, len) = (self.authors.op(from), upto.distance_from(from));
                match pieces.last_mut() {
                    Some((piece, is_visible))
                        if next_leaf == Some(leaf)
                            && (number, *is_visible) == (0, !run.is_deleted())
                            && (from, piece.first.plus(piece.len)) == (run.first, first) =>
                    {
                        piece.len += len;
                    }
                    _ => pieces.push((IdRange { first, len }, !run.is_deleted())),
                }
                let is_last = number + 1 == here.runs.len() && upto == run.end();
                next_leaf = is_last.then_some(here.next);
                from = upto;
            }
        }
        pieces
    }
}
