//! The check of a forest's trees and their flat layout in memory; the walk over it is in `forest.rs`.

use std::ops::Range;

use super::{
    Forest, ForestError, MAX_DEPTH, MAX_FEATURES, MAX_NODES, MAX_NODES_PER_TREE, MAX_TREES, Missing, TreeNode,
    ZERO_THRESHOLD,
};

const FEATURE: u16 = (MAX_FEATURES - 1) as u16;
const MISSING_LEFT: u16 = 1 << 14;
const ZERO_IS_MISSING: u16 = 1 << 15;

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

/// A split whose right child follows the left one, or a leaf, which is a split that always leads left, to itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FlatNode {
    threshold: f32,
    /// The feature and two flags.
    test: u16,
    /// Index of the left child in the tree.
    left: u16,
}

impl FlatNode {
    fn leaf(own_index: u16) -> Self {
        Self { threshold: f32::INFINITY, test: MISSING_LEFT, left: own_index }
    }

    fn split(feature: u16, threshold: f32, missing: Missing, left: u16) -> Self {
        let flags = match missing {
            Missing::NanRight => 0,
            Missing::NanLeft => MISSING_LEFT,
            Missing::ZeroRight => ZERO_IS_MISSING,
            Missing::ZeroLeft => ZERO_IS_MISSING | MISSING_LEFT,
        };
        Self { threshold, test: feature | flags, left }
    }

    /// Steps down, or stays on a leaf. `ZERO` is false where no split of the forest asks for a zero rule.
    #[inline(always)]
    pub(super) fn next<const ZERO: bool>(self, row: &[f32]) -> u16 {
        let value = row[usize::from(self.feature())];
        let mut is_missing = value.is_nan();
        if ZERO {
            is_missing |= self.tests_zero() & (value.abs() <= ZERO_THRESHOLD);
        }
        // Both sides are computed, none is branched to: which way a row goes cannot be foretold.
        let goes_left = (is_missing & self.sends_missing_left()) | (!is_missing & (value <= self.threshold));
        self.left + u16::from(!goes_left)
    }

    pub(super) fn tests_zero(&self) -> bool {
        self.test & ZERO_IS_MISSING != 0
    }

    fn sends_missing_left(self) -> bool {
        self.test & MISSING_LEFT != 0
    }

    pub(super) fn feature(self) -> u16 {
        self.test & FEATURE
    }

    pub(super) fn threshold(self) -> f32 {
        self.threshold
    }

    /// Tells a leaf from a split by its place: only a leaf leads to itself.
    pub(super) fn is_leaf(self, own_index: usize) -> bool {
        usize::from(self.left) == own_index
    }

    pub(super) fn missing(self) -> Missing {
        match (self.tests_zero(), self.sends_missing_left()) {
            (false, false) => Missing::NanRight,
            (false, true) => Missing::NanLeft,
            (true, false) => Missing::ZeroRight,
            (true, true) => Missing::ZeroLeft,
        }
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
                let left_place = levels.add_children(node, left, right)?;
                (FlatNode::split(feature, threshold, missing, left_place), 0.0)
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

    /// Queues two children side by side and returns the place of the left one.
    fn add_children(&mut self, node: usize, left: u32, right: u32) -> Result<u16, ForestError> {
        if self.depth == MAX_DEPTH {
            return Err(ForestError::TooDeep { tree: self.tree });
        }
        let left_place = self.order.len() as u16; // below MAX_NODES_PER_TREE: each node is queued once
        self.add_child(node, left)?;
        self.add_child(node, right)?;
        Ok(left_place)
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
