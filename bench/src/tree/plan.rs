//! What to do to a tree, worked out beforehand on a plain model, alike for all engines.
//!
//! Nodes are numbers. Node 0 is at the top and all others are below it.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use anyhow::{Result, ensure};

use super::OPS_A_CHANGE;
use crate::engines::Tree;
use crate::measure::Dice;

/// A tree as lists of children.
#[derive(Clone, Debug)]
pub(super) struct Model {
    parents: Vec<usize>,
    children: Vec<Vec<usize>>,
}

/// A node goes into a parent, to stand at `index` afterwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) node: usize,
    pub(super) parent: usize,
    pub(super) index: usize,
}

/// Where the nodes of a new tree go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// All under node 0.
    Flat,
    /// Each under any node before it.
    Random,
    /// Each under the one before it.
    Chain,
    /// [`FOLDERS`] under node 0, all others in any of these.
    Folders,
}

/// How many nodes of [`Shape::Folders`] have children, from node 1 on.
pub(super) const FOLDERS: usize = 100;

/// Which nodes random moves take, and into which they put them.
#[derive(Clone, Debug)]
pub(super) struct Among {
    pub(super) nodes: Range<usize>,
    pub(super) parents: Range<usize>,
}

impl Among {
    /// Any into any, but for the last `spare` ones of so many.
    pub(super) const fn all_of(nodes: usize, spare: usize) -> Self {
        Self { nodes: 1..nodes - spare, parents: 0..nodes - spare }
    }
}

impl Model {
    /// A tree of so many nodes, node 0 included, each created last in its parent.
    pub(super) fn of(shape: Shape, nodes: usize, spare: usize) -> Self {
        let mut dice = Dice::new(4);
        let mut model = Self { parents: vec![0], children: vec![Vec::new()] };
        for node in 1..nodes {
            let parent = match shape {
                Shape::Flat => 0,
                Shape::Random => dice.below(node.min(nodes - spare)),
                Shape::Chain => node - 1,
                Shape::Folders if node <= FOLDERS => 0,
                Shape::Folders => 1 + dice.below(FOLDERS),
            };
            model.parents.push(parent);
            model.children.push(Vec::new());
            model.children[parent].push(node);
        }
        model
    }

    /// Nodes moved to any place where they can go, and so moved in this model.
    pub(super) fn random_moves(&mut self, count: usize, among: &Among, seed: u64) -> Vec<Move> {
        let Among { nodes, parents } = among;
        let mut dice = Dice::new(seed);
        let mut moves = Vec::with_capacity(count);
        while moves.len() < count {
            let node = nodes.start + dice.below(nodes.len());
            let parent = parents.start + dice.below(parents.len());
            if self.is_at_or_above(node, parent) {
                continue;
            }
            let siblings = self.children[parent].len() - usize::from(self.parents[node] == parent);
            let step = Move { node, parent, index: dice.below(siblings + 1) };
            self.apply(step);
            moves.push(step);
        }
        moves
    }

    pub(super) fn apply(&mut self, Move { node, parent, index }: Move) {
        let before = self.parents[node];
        self.children[before].retain(|child| *child != node);
        self.children[parent].insert(index, node);
        self.parents[node] = parent;
    }

    pub(super) fn len(&self) -> usize {
        self.parents.len()
    }

    fn is_at_or_above(&self, node: usize, mut below: usize) -> bool {
        while below != node && below != 0 {
            below = self.parents[below];
        }
        below == node
    }

    /// Whether an engine's tree is this one.
    pub(super) fn check<T: Tree>(&self, tree: &T, nodes: &[T::Node]) -> Result<()> {
        ensure!(tree.tops() == nodes[..1], "not one node at the top");
        for (node, expected) in nodes.iter().zip(&self.children) {
            let children = tree.children(*node);
            let is_equal = children.len() == expected.len()
                && children.iter().zip(expected).all(|(child, number)| *child == nodes[*number]);
            ensure!(is_equal, "a node has other children than it should");
        }
        Ok(())
    }
}

/// Creates the nodes of a model, in order.
pub(super) fn create<T: Tree>(tree: &mut T, model: &Model) -> Result<Vec<T::Node>> {
    let mut nodes: Vec<T::Node> = Vec::with_capacity(model.len());
    while nodes.len() < model.len() {
        create_some(tree, model, &mut nodes)?;
    }
    Ok(nodes)
}

/// Creates the next nodes of a model, in one change.
pub(super) fn create_some<T: Tree>(
    tree: &mut T,
    model: &Model,
    nodes: &mut Vec<T::Node>,
) -> Result<()> {
    tree.begin();
    let until = model.len().min(nodes.len() + OPS_A_CHANGE);
    while nodes.len() < until {
        let parent = (!nodes.is_empty()).then(|| nodes[model.parents[nodes.len()]]);
        nodes.push(tree.create(parent, None)?);
    }
    tree.commit()
}

/// Makes moves, in one change.
pub(super) fn make_moves<T: Tree>(tree: &mut T, nodes: &[T::Node], moves: &[Move]) -> Result<()> {
    tree.begin();
    for Move { node, parent, index } in moves {
        tree.move_to(nodes[*node], nodes[*parent], *index)?;
    }
    tree.commit()
}

/// Visits every node, and returns how many there are.
pub(super) fn walk<T: Tree>(tree: &T) -> usize {
    let mut ahead = VecDeque::from(tree.tops());
    let mut count = 0;
    while let Some(node) = ahead.pop_front() {
        count += 1;
        ahead.extend(tree.children(node));
    }
    count
}

/// Whether two replicas hold the same tree.
pub(super) fn check_same<T: Tree>(one: &T, other: &T, nodes: &[T::Node]) -> Result<()> {
    let order = |tree: &T| -> HashMap<T::Node, Vec<T::Node>> {
        nodes.iter().map(|node| (*node, tree.children(*node))).collect()
    };
    ensure!(one.tops() == other.tops() && order(one) == order(other), "the replicas differ");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::loro::LoroNodes;
    use crate::engines::sds::SdsTree;

    #[test]
    fn random_moves_keep_the_model_a_tree() {
        let mut model = Model::of(Shape::Random, 50, 5);
        let moves = model.random_moves(500, &Among::all_of(50, 5), 9);
        assert!(moves.iter().all(|step| step.node < 45 && step.parent < 45));
        for node in 0..50 {
            assert!(model.is_at_or_above(0, node));
            assert_eq!(model.children[node].iter().filter(|child| **child == node).count(), 0);
        }
        assert_eq!(model.children.iter().map(Vec::len).sum::<usize>(), 49);
    }

    #[test]
    fn engines_do_as_the_model_does() {
        check_engine::<SdsTree>();
        check_engine::<LoroNodes>();
    }

    fn check_engine<T: Tree>() {
        let mut model = Model::of(Shape::Random, 60, 0);
        let mut tree = T::new(1);
        let nodes = create(&mut tree, &model).unwrap();
        model.check(&tree, &nodes).unwrap();
        let moves = model.random_moves(300, &Among::all_of(60, 0), 5);
        make_moves(&mut tree, &nodes, &moves).unwrap();
        model.check(&tree, &nodes).unwrap();
        assert_eq!(walk(&tree), 60);
        let mut other = T::new(2);
        other.receive(&tree.message().unwrap()).unwrap();
        check_same(&tree, &other, &nodes).unwrap();
    }
}
