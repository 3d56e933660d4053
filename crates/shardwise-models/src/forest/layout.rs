//! The check of a forest's trees and their flat layout in memory; the walk over it is in `forest.rs`.

use std::ops::Range;

use super::{
    Forest, ForestError, MAX_DEPTH, MAX_FEATURES, MAX_NODES, MAX_NODES_PER_TREE, MAX_TREES, Missing, TreeNode,
    ZERO_THRESHOLD,
};

impl Forest {
    /// The trees as [`Forest::new`] takes them, each level by level from its root.
    pub fn to_trees(&self) -> Vec<Vec<TreeNode>> {
        let tree = |tree: &FlatTree| {
            let nodes = self.nodes[tree.range()].iter().zip(&self.values[tree.range()]).enumerate();
            nodes.map(|(place, (node, value))| node.unfold(place, *value)).collect()
        };
        self.trees.iter().map(tree).collect()
    }
}

/// Where one tree lies among the forest's nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FlatTree {
    pub(super) start: usize,
    pub(super) n_nodes: usize,
    pub(super) depth: usize,
}

impl FlatTree {
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.start + self.n_nodes
    }
}

/// One comparison: a row goes to the first child if the reading that `test` names is at most the threshold, else to the
/// second, which follows the first. NaN passes no comparison, so missing values go to the second child, and a test is put
/// such that they belong there: `x <= t` as it stands where they go right, `-x <= -u` with *u* the next number above *t*
/// (that is `x > t`) and the children exchanged where they go left.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlatNode {
    /// NaN lets no row pass.
    threshold: f32,
    /// The feature times four, plus which of its [`readings`].
    test: u16,
    /// Index of the first child in the tree; in a leaf one less than its own, and no row passes: it leads to itself.
    first: u16,
}

impl FlatNode {
    fn leaf(own_index: u16) -> Self {
        Self { threshold: f32::NAN, test: 0, first: own_index.wrapping_sub(1) }
    }

    fn split(feature: u16, threshold: f32, missing: Missing, first: u16) -> Self {
        let (threshold, reading) = match missing {
            Missing::NanRight => (threshold, 0),
            Missing::NanLeft => (flip(threshold), 1),
            Missing::ZeroRight => (threshold, 2),
            Missing::ZeroLeft => (flip(threshold), 3),
        };
        Self { threshold, test: feature * 4 + reading, first }
    }

    /// Steps down, or stays on a leaf.
    #[inline(always)]
    pub(super) fn next(self, row: &impl Readings) -> u16 {
        let passes = row.reading(self.test) <= self.threshold;
        self.first.wrapping_add(u16::from(!passes))
    }

    /// Which of the feature's [`readings`] is tested.
    pub(super) fn reading(self) -> u16 {
        self.test % 4
    }

    /// What the reading must not exceed to pass; NaN lets none pass.
    pub(super) fn compared_with(self) -> f32 {
        self.threshold
    }

    /// Index in the tree of the child that rows pass to.
    pub(super) fn first_child(self) -> usize {
        usize::from(self.first)
    }

    pub(super) fn feature(self) -> u16 {
        self.test / 4
    }

    pub(super) fn missing(self) -> Missing {
        match self.test % 4 {
            0 => Missing::NanRight,
            1 => Missing::NanLeft,
            2 => Missing::ZeroRight,
            _ => Missing::ZeroLeft,
        }
    }

    /// Returns the threshold that the split was given.
    pub(super) fn threshold(self) -> f32 {
        if self.missing().goes_left() { flip_back(self.threshold) } else { self.threshold }
    }

    fn unfold(self, own_index: usize, value: f64) -> TreeNode {
        if self.is_leaf(own_index) {
            return TreeNode::Leaf(value);
        }
        let [first, second] = [u32::from(self.first), u32::from(self.first) + 1];
        let missing = self.missing();
        let [left, right] = if missing.goes_left() { [second, first] } else { [first, second] };
        TreeNode::Split { feature: self.feature().into(), threshold: self.threshold(), missing, left, right }
    }

    /// Tells a leaf from a split by its place: only a leaf leads to itself.
    pub(super) fn is_leaf(self, own_index: usize) -> bool {
        usize::from(self.first.wrapping_add(1)) == own_index
    }
}

/// Bit by bit: the threshold that no row passes equals itself.
impl PartialEq for FlatNode {
    fn eq(&self, other: &Self) -> bool {
        let bits = |node: &Self| (node.threshold.to_bits(), node.test, node.first);
        bits(self) == bits(other)
    }
}

/// Turns *t* into the number that `-x` is at most when *x* is above *t*.
fn flip(threshold: f32) -> f32 {
    if threshold == f32::INFINITY { f32::NAN } else { -threshold.next_up() }
}

fn flip_back(flipped: f32) -> f32 {
    if flipped.is_nan() { f32::INFINITY } else { (-flipped).next_down() }
}

/// A row as the nodes read it.
pub(super) trait Readings {
    fn reading(&self, test: u16) -> f32;
}

/// The four ways to read a value: as it is, with its sign changed, and both with NaN for zero.
fn readings(value: f32) -> [f32; 4] {
    let zero_is_nan = if value.abs() <= ZERO_THRESHOLD { f32::NAN } else { value };
    [value, -value, zero_is_nan, -zero_is_nan]
}

/// One of the [`readings`], by its number.
#[inline(always)]
pub(super) fn reading(value: f32, number: u16) -> f32 {
    let value = if number >= 2 && value.abs() <= ZERO_THRESHOLD { f32::NAN } else { value };
    if number % 2 == 1 { -value } else { value }
}

/// A row of any width, read as the walk goes.
impl Readings for &[f32] {
    #[inline(always)]
    fn reading(&self, test: u16) -> f32 {
        readings(self[usize::from(test / 4)])[usize::from(test % 4)]
    }
}

/// Features whose readings are laid out before the walk.
pub(super) const MAX_LAID_OUT: usize = 128;

/// A row of at most [`MAX_LAID_OUT`] values with all its readings side by side.
pub(super) struct LaidOut([f32; 4 * MAX_LAID_OUT]);

impl LaidOut {
    pub(super) fn new(row: &[f32]) -> Self {
        let mut laid_out = [0.0; 4 * MAX_LAID_OUT];
        for (value, place) in row.iter().zip(laid_out.as_chunks_mut().0) {
            *place = readings(*value);
        }
        Self(laid_out)
    }
}

impl Readings for LaidOut {
    #[inline(always)]
    fn reading(&self, test: u16) -> f32 {
        // A power of two: the remainder changes no test of a feature laid out, and spares the check of the index.
        self.0[usize::from(test) % (4 * MAX_LAID_OUT)]
    }
}

/// Checks all that can be said without looking at a node.
pub(super) fn check_counts(n_features: usize, trees: &[Vec<TreeNode>]) -> Result<(), ForestError> {
    if n_features == 0 || n_features > MAX_FEATURES {
        return Err(ForestError::FeatureCount { n_features });
    }
    if trees.is_empty() {
        return Err(ForestError::Empty { what: "tree".to_owned() });
    }
    check_limit("trees", trees.len(), MAX_TREES)?;
    check_limit("nodes", trees.iter().map(Vec::len).sum(), MAX_NODES)?;
    for (index, tree) in trees.iter().enumerate() {
        if tree.is_empty() {
            return Err(ForestError::Empty { what: format!("node in tree {index}") });
        }
        check_limit(&format!("nodes in tree {index}"), tree.len(), MAX_NODES_PER_TREE)?;
    }
    Ok(())
}

pub(super) fn check_limit(what: &str, n: usize, limit: usize) -> Result<(), ForestError> {
    if n > limit { Err(ForestError::TooMany { what: what.to_owned(), n, limit }) } else { Ok(()) }
}

/// Checks one tree, appends it level by level and returns the largest absolute value of its leaves.
pub(super) fn append_tree(forest: &mut Forest, tree: usize, nodes: &[TreeNode]) -> Result<f64, ForestError> {
    let mut levels = Levels::new(tree, nodes.len());
    let mut largest_leaf = 0.0_f64;
    let start = forest.nodes.len();
    while let Some((place, node)) = levels.next_node() {
        let (flat, value) = match nodes[node] {
            TreeNode::Leaf(value) if value.is_finite() => (FlatNode::leaf(place), value),
            TreeNode::Leaf(_) => return Err(ForestError::LeafIsNotFinite { tree, node }),
            TreeNode::Split { feature, threshold, missing, left, right } => {
                let feature = check_feature(tree, node, feature, forest.n_features)?;
                if threshold.is_nan() {
                    return Err(ForestError::ThresholdIsNan { tree, node });
                }
                let [first, second] = if missing.goes_left() { [right, left] } else { [left, right] };
                let first_place = levels.add_children(node, first, second)?;
                // Adding 0 makes -0 a 0: the same split, and the same bytes.
                (FlatNode::split(feature, threshold + 0.0, missing, first_place), 0.0)
            }
        };
        forest.nodes.push(flat);
        forest.values.push(value);
        largest_leaf = largest_leaf.max(value.abs());
    }
    levels.check_all_reached()?;
    forest.trees.push(FlatTree { start, n_nodes: nodes.len(), depth: levels.depth });
    Ok(largest_leaf)
}

fn check_feature(tree: usize, node: usize, feature: u32, n_features: usize) -> Result<u16, ForestError> {
    match u16::try_from(feature) {
        Ok(small) if usize::from(small) < n_features => Ok(small),
        _ => Err(ForestError::FeatureOutOfRange { tree, node, feature, n_features }),
    }
}

/// The queue of a walk level by level that meets each node of one tree exactly once, or says why not.
struct Levels {
    tree: usize,
    /// Nodes in the order of the layout, those still to be visited included.
    order: Vec<usize>,
    visited: usize,
    is_reached: Vec<bool>,
    /// Where in `order` the level that is being visited ends.
    level_end: usize,
    depth: usize,
}

impl Levels {
    fn new(tree: usize, n_nodes: usize) -> Self {
        let mut is_reached = vec![false; n_nodes];
        is_reached[0] = true;
        Self { tree, order: vec![0], visited: 0, is_reached, level_end: 1, depth: 0 }
    }

    /// Returns the next node's place in the layout and its index in the tree as given.
    fn next_node(&mut self) -> Option<(u16, usize)> {
        let node = *self.order.get(self.visited)?;
        if self.visited == self.level_end {
            self.level_end = self.order.len();
            self.depth += 1;
        }
        let place = self.visited as u16; // below MAX_NODES_PER_TREE: each node is queued once
        self.visited += 1;
        Some((place, node))
    }

    /// Queues two children side by side and returns the place of the first.
    fn add_children(&mut self, node: usize, first: u32, second: u32) -> Result<u16, ForestError> {
        if self.depth == MAX_DEPTH {
            return Err(ForestError::TooDeep { tree: self.tree });
        }
        let first_place = self.order.len() as u16; // below MAX_NODES_PER_TREE: each node is queued once
        self.add_child(node, first)?;
        self.add_child(node, second)?;
        Ok(first_place)
    }

    fn add_child(&mut self, node: usize, child: u32) -> Result<(), ForestError> {
        let n_nodes = self.is_reached.len();
        let Some(is_reached) = self.is_reached.get_mut(child as usize) else {
            return Err(ForestError::ChildOutOfRange { tree: self.tree, node, child, n_nodes });
        };
        if std::mem::replace(is_reached, true) {
            return Err(ForestError::ReachedTwice { tree: self.tree, node, child });
        }
        self.order.push(child as usize);
        Ok(())
    }

    fn check_all_reached(&self) -> Result<(), ForestError> {
        match self.is_reached.iter().position(|is_reached| !is_reached) {
            Some(node) => Err(ForestError::Unreached { tree: self.tree, node }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::tests::{Dice, MISSING};

    #[test]
    fn trees_taken_out_make_the_same_forest() {
        for seed in 0..20 {
            let forest = Forest::new(5, &Dice::new(seed).trees(9, &MISSING)).expect("sound trees");
            assert_eq!(Forest::new(5, &forest.to_trees()), Ok(forest));
        }
    }
}
