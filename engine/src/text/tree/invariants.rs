//! Whether everything that the tree says of itself is true.

use super::nodes::NEWEST;
use super::{Child, FAN_OUT, FIRST_LEAF, LEAF_BYTES, LEAF_RUNS, Lengths, NONE, RunTree, Spot};
use crate::id::{OpId, Stamp};

impl RunTree {
    /// Panics if B1 to B8 do not hold, or an invariant of the parts.
    pub(in crate::text) fn assert_invariants(&self, clock: &impl Fn(OpId) -> Stamp) {
        self.authors.assert_invariants();
        if let Some(index) = self.index.get() {
            index.assert_invariants();
        }
        let mut leaf = FIRST_LEAF;
        let mut in_order = Vec::new();
        while leaf != NONE {
            in_order.push(leaf);
            self.assert_leaf(leaf, clock);
            leaf = self.leaves[leaf as usize].next;
        }
        assert_eq!(in_order.len(), self.leaves.len(), "B6: a leaf is off the chain");
        let mut below = Vec::new();
        let root = self.assert_node(self.root, self.height, &mut below);
        assert_eq!(root.shown, self.shown, "B2: the whole");
        assert_eq!(below, in_order, "B6: the chain is in another order than the tree");
        self.assert_cursor(&in_order);
        self.assert_tip(clock);
    }

    fn assert_leaf(&self, leaf: u32, clock: &impl Fn(OpId) -> Stamp) {
        let here = &self.leaves[leaf as usize];
        assert!(here.runs.len() <= LEAF_RUNS && here.text.len() <= LEAF_BYTES, "B4: leaf {leaf}");
        assert!(!here.runs.is_empty() || self.leaves.len() == 1, "B4: leaf {leaf} is empty");
        let mut byte = 0;
        for (at, run) in here.runs.iter().enumerate() {
            assert!(run.len > 0, "B1: an empty run");
            let text = &here.text[byte..byte + run.lengths().bytes];
            byte += text.len();
            assert_eq!(Lengths::of(text), run.lengths(), "B1: {run:?}");
            let joins = here.runs.get(at + 1).is_some_and(|next| run.continues_with(next));
            assert!(!joins, "B5: {run:?}");
            assert!(run.end() <= self.authors.end_of(run.first), "B3: past its author's end");
            assert!(here.oldest <= clock(self.authors.op(run.first)), "B7: {run:?}");
            if let Some(index) = self.index.get() {
                let last = run.first.plus(run.len - 1);
                assert_eq!(index.leaf_of(run.first), leaf, "B3: {run:?}");
                assert_eq!(index.leaf_of(last), leaf, "B3: {run:?}");
                assert!(index.piece_end(run.first) > last, "B3: {run:?}");
            }
        }
        assert_eq!(byte, here.text.len(), "B1: text of no run");
    }

    /// What is true of a node, but for the cursor's pending length.
    fn assert_node(&self, node: u32, level: usize, leaves: &mut Vec<u32>) -> Child {
        if level == 0 {
            leaves.push(node);
            let here = &self.leaves[node as usize];
            return Child { node, shown: here.shown(), oldest: here.oldest };
        }
        let here = &self.inners[node as usize];
        assert!((1..=FAN_OUT).contains(&here.children.len()), "B4: inner node {node}");
        let path = self.pending_path();
        let mut summary = Child { node, shown: Lengths::ZERO, oldest: NEWEST };
        for child in &here.children {
            let found = self.assert_node(child.node, level - 1, leaves);
            assert_eq!(found.shown, self.shown_below(child, level - 1, &path), "B2: {child:?}");
            assert!(child.oldest <= found.oldest, "B7: {child:?}");
            let parent = match level {
                1 => self.leaves[child.node as usize].parent,
                _ => self.inners[child.node as usize].parent,
            };
            assert_eq!(parent, node, "B2: the parent of {child:?}");
            summary.shown += found.shown;
            summary.oldest = child.oldest.min(summary.oldest);
        }
        summary
    }

    fn assert_cursor(&self, in_order: &[u32]) {
        let spot = self.cursor.spot;
        let runs = &self.leaves[spot.leaf as usize].runs;
        assert!(spot.run <= runs.len(), "B8: {spot:?}");
        let within =
            runs[..spot.run].iter().fold(Lengths::ZERO, |shown, run| shown + run.lengths());
        assert_eq!(spot.byte, within.bytes, "B8: {spot:?}");
        let before = in_order.iter().take_while(|leaf| **leaf != spot.leaf);
        let before =
            before.fold(Lengths::ZERO, |shown, leaf| shown + self.leaves[*leaf as usize].shown());
        assert_eq!(self.before_leaf(spot.leaf), before, "B2: before {spot:?}");
        assert!(self.cursor.at.is_none_or(|at| at == before + within), "B8: {:?}", self.cursor);
    }

    fn assert_tip(&self, clock: &impl Fn(OpId) -> Stamp) {
        let cursor = self.cursor;
        let Some(tip) = cursor.tip else { return };
        let run = self.run(cursor.spot).expect("B8: a tip is the end of a run");
        assert!(!run.is_deleted(), "B8: {tip:?}");
        assert_eq!(tip.last, self.authors.op(run.first.plus(run.len - 1)), "B8: {tip:?}");
        assert_eq!(tip.byte, cursor.spot.byte + run.lengths().bytes, "B8: {tip:?}");
        assert_eq!(tip.at, cursor.at.map(|at| at + run.lengths()), "B8: {tip:?}");
        let mut spot = Spot { run: cursor.spot.run + 1, ..cursor.spot };
        while self.run(spot).is_none() {
            let leaf = self.leaves[spot.leaf as usize].next;
            if leaf == NONE {
                return;
            }
            spot = Spot { leaf, run: 0, byte: 0 };
        }
        let next = self.run(spot).map(|run| clock(self.authors.op(run.first)));
        assert!(tip.newer.is_none_or(|newer| next < Some(newer)), "B8: {tip:?}");
    }
}
