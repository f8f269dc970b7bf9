//! Which characters stand together, and whether they show.

use super::RunTree;
use crate::id::OpId;
use crate::op::IdRange;

impl RunTree {
    /// The characters among `len` ids from `first` on that are in this text: pieces in which nothing,
    /// not even what was deleted, stands between two of them, each with whether it shows. O(log n) for
    /// each piece.
    pub(in crate::text) fn standing(&mut self, first: OpId, len: u64) -> Vec<(IdRange, bool)> {
        self.build_index();
        let mut pieces = Vec::new();
        for (mut from, to) in self.authors.ranges(first, len) {
            while from < to {
                let Some((leaf, number)) = self.locate(from) else {
                    from = self.next_char(from);
                    continue;
                };
                let run = self.leaves[leaf as usize].runs[number];
                let upto = run.end().min(to);
                let piece = IdRange { first: self.authors.op(from), len: upto.distance_from(from) };
                pieces.push((piece, !run.is_deleted()));
                from = upto;
            }
        }
        pieces
    }
}
