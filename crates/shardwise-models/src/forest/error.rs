//! What can be wrong with trees or with the bytes of a forest; every text names the place.

use super::{MAX_DEPTH, MAX_FEATURES};

/// Says why trees or bytes are not a forest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForestError {
    /// The number of features is 0 or too large.
    #[error("a forest reads 1 to {MAX_FEATURES} features, not {n_features}")]
    FeatureCount {
        /// The number given.
        n_features: usize,
    },
    /// There is no tree, or a tree without a node.
    #[error("no {what}: a forest has at least one tree, a tree at least one node")]
    Empty {
        /// What is not there.
        what: String,
    },
    /// A limit is passed.
    #[error("{n} {what} are more than the {limit} that are allowed: train a smaller forest")]
    TooMany {
        /// What there is too much of.
        what: String,
        /// How many there are.
        n: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A tree is too deep.
    #[error("tree {tree} is deeper than {MAX_DEPTH} splits: set a maximum depth in training")]
    TooDeep {
        /// Index of the tree.
        tree: usize,
    },
    /// A split leads out of its tree.
    #[error("tree {tree}, node {node}: child {child} is not among the tree's {n_nodes} nodes")]
    ChildOutOfRange {
        /// Index of the tree.
        tree: usize,
        /// Index of the split.
        node: usize,
        /// The child that is not there.
        child: u32,
        /// Nodes of the tree.
        n_nodes: usize,
    },
    /// Two ways lead to a node, or a cycle.
    #[error("tree {tree}, node {node}: more than one way leads to node {child}")]
    ReachedTwice {
        /// Index of the tree.
        tree: usize,
        /// Index of the split that leads there again.
        node: usize,
        /// The child reached again.
        child: u32,
    },
    /// No way leads from the root to a node.
    #[error("tree {tree}, node {node}: no way leads there from the root")]
    Unreached {
        /// Index of the tree.
        tree: usize,
        /// Index of the node.
        node: usize,
    },
    /// A split tests a feature that rows do not have.
    #[error("tree {tree}, node {node}: feature {feature} is not below the {n_features} features of the forest")]
    FeatureOutOfRange {
        /// Index of the tree.
        tree: usize,
        /// Index of the split.
        node: usize,
        /// The feature tested.
        feature: u32,
        /// Features of the forest.
        n_features: usize,
    },
    /// A threshold is NaN.
    #[error("tree {tree}, node {node}: the threshold is not a number")]
    ThresholdIsNan {
        /// Index of the tree.
        tree: usize,
        /// Index of the split.
        node: usize,
    },
    /// A leaf is NaN or infinite.
    #[error("tree {tree}, node {node}: the leaf is not finite")]
    LeafIsNotFinite {
        /// Index of the tree.
        tree: usize,
        /// Index of the leaf.
        node: usize,
    },
    /// The leaves are finite, but not their sum.
    #[error("the largest leaves of the trees add up to infinity")]
    SumOverflows,
    /// The bytes are something else.
    #[error("these bytes are not a forest: they do not begin with `SWFOREST`")]
    NotAForest,
    /// The bytes are of another format version.
    #[error("forest format version {found} is not the version 1 that is read here: write the forest again")]
    Version {
        /// The version found.
        found: u32,
    },
    /// The number of bytes is not what the counts in them ask for.
    #[error("a forest of {found} bytes where {expected} were expected: it is cut off or something was appended")]
    Length {
        /// Bytes that the counts ask for.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// The bytes were changed after they were written.
    #[error("the forest's checksum does not match: the file is damaged, fetch it again")]
    Checksum,
    /// The trees' sizes do not add up to the number of nodes.
    #[error("the trees have {found} nodes together, not the {expected} of the header")]
    NodeCount {
        /// Nodes by the header.
        expected: usize,
        /// Nodes by the sizes of the trees.
        found: u64,
    },
    /// The bytes of a node are none that a writer makes.
    #[error("tree {tree}, node {node}: not the bytes of a leaf or of a split")]
    NodeBytes {
        /// Index of the tree.
        tree: usize,
        /// Index of the node.
        node: usize,
    },
}
