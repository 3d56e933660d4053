//! Graphs of a head: one `TreeEnsembleRegressor` with what comes before and after it.
//!
//! Its branches send a row to the true child when `x <= threshold`, or when x is NaN and the branch says so. For the rules
//! that take zero for missing, the ensemble reads a second copy of the row in which NaN stands for zero.

use super::OnnxError;
use super::proto::{Attribute, Graph, Node, Tensor, ValueInfo};
use crate::forest::{Forest, Missing, TreeNode, ZERO_THRESHOLD};
use crate::side_head::{MAX_WAIT_MS, SideTarget};

/// The domain of trees.
pub(super) const ML_DOMAIN: &str = "ai.onnx.ml";
/// Names of the graph's input and output.
pub(super) const INPUT: &str = "features";
pub(super) const OUTPUT: &str = "prediction";

/// What makes a prediction out of the sum of leaves.
#[derive(Debug, Clone, Copy)]
pub(super) enum After {
    /// Nothing.
    Sum,
    /// A feature is added, or a default where it is not finite.
    Offset { feature: usize, default: f64 },
    /// The link function of a side head.
    Link(SideTarget),
}

pub(super) fn graph(name: &str, forest: &Forest, after: After) -> Result<Graph, OnnxError> {
    let width = forest.n_features();
    let mut graph = Graph {
        name: Some(name.to_owned()),
        input: vec![ValueInfo::rows(INPUT, width)],
        output: vec![ValueInfo::rows(OUTPUT, 1)],
        ..Graph::default()
    };
    let trees = forest.to_trees();
    let reads = if trees.iter().flatten().any(takes_zero_for_missing) { graph.with_zeros_missing() } else { INPUT };
    let sum = if matches!(after, After::Sum) { OUTPUT } else { "sum" };
    graph.node.push(Node {
        domain: Some(ML_DOMAIN.to_owned()),
        attribute: ensemble(&trees, width)?,
        ..operator("TreeEnsembleRegressor", &[reads], sum)
    });
    match after {
        After::Sum => {}
        After::Offset { feature, default } => graph.add_offset(sum, feature, default),
        After::Link(SideTarget::Cold | SideTarget::Error) => graph.add("Sigmoid", &[sum], OUTPUT),
        After::Link(SideTarget::Wait) => graph.add_wait(sum),
    }
    Ok(graph)
}

impl Graph {
    pub(super) fn add(&mut self, op_type: &str, inputs: &[&str], output: &str) {
        self.node.push(operator(op_type, inputs, output));
    }

    pub(super) fn constant(&mut self, name: &'static str, value: f32) -> &'static str {
        self.initializer.push(Tensor::scalar(name, value));
        name
    }

    /// The row, then the row again with NaN for zero.
    fn with_zeros_missing(&mut self) -> &'static str {
        let zero = self.constant("zero_threshold", ZERO_THRESHOLD);
        let nan = self.constant("missing", f32::NAN);
        self.add("Abs", &[INPUT], "magnitude");
        self.add("LessOrEqual", &["magnitude", zero], "is_zero");
        self.add("Where", &["is_zero", nan, INPUT], "zero_is_missing");
        let axis = vec![Attribute::int("axis", 1)];
        self.node.push(Node { attribute: axis, ..operator("Concat", &[INPUT, "zero_is_missing"], "both") });
        "both"
    }

    pub(super) fn add_offset(&mut self, sum: &str, feature: usize, default: f64) {
        self.initializer.push(Tensor::indices("offset_feature", vec![feature as i64])); // below MAX_FEATURES
        let default = self.constant("offset_default", default as f32);
        let axis = vec![Attribute::int("axis", 1)];
        self.node.push(Node { attribute: axis, ..operator("Gather", &[INPUT, "offset_feature"], "known") });
        self.add("IsNaN", &["known"], "is_nan");
        self.add("IsInf", &["known"], "is_infinite");
        self.add("Or", &["is_nan", "is_infinite"], "is_unknown");
        self.add("Where", &["is_unknown", default, "known"], "offset");
        self.add("Add", &["offset", sum], OUTPUT);
    }

    fn add_wait(&mut self, sum: &str) {
        let one = self.constant("one", 1.0);
        let least = self.constant("least", 0.0);
        let most = self.constant("most", MAX_WAIT_MS as f32);
        self.add("Exp", &[sum], "exponential");
        self.add("Sub", &["exponential", one], "wait");
        self.add("Clip", &["wait", least, most], OUTPUT);
    }
}

pub(super) fn operator(op_type: &str, inputs: &[&str], output: &str) -> Node {
    Node {
        name: Some(format!("{op_type} to {output}")),
        op_type: Some(op_type.to_owned()),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..Node::default()
    }
}

fn takes_zero_for_missing(node: &TreeNode) -> bool {
    matches!(node, TreeNode::Split { missing: Missing::ZeroLeft | Missing::ZeroRight, .. })
}

/// The columns of the ensemble's nodes and of its leaves.
#[derive(Default)]
struct Columns {
    tree: Vec<i64>,
    node: Vec<i64>,
    feature: Vec<i64>,
    mode: Vec<Vec<u8>>,
    threshold: Vec<f32>,
    passed: Vec<i64>,
    failed: Vec<i64>,
    missing_passes: Vec<i64>,
    leaf_tree: Vec<i64>,
    leaf_node: Vec<i64>,
    leaf_value: Vec<f32>,
}

fn ensemble(trees: &[Vec<TreeNode>], width: usize) -> Result<Vec<Attribute>, OnnxError> {
    let mut columns = Columns::default();
    let mut largest_sum = 0.0;
    for (number, tree) in trees.iter().enumerate() {
        let mut largest_leaf = 0.0_f64;
        for (index, node) in tree.iter().enumerate() {
            columns.push(number as i64, index as i64, node, width); // below MAX_TREES and MAX_NODES_PER_TREE
            if let TreeNode::Leaf(value) = node {
                largest_leaf = largest_leaf.max(value.abs());
            }
        }
        largest_sum += largest_leaf;
    }
    if largest_sum >= f64::from(f32::MAX) {
        return Err(OnnxError::NotSingle);
    }
    Ok(columns.into_attributes())
}

impl Columns {
    fn push(&mut self, tree: i64, index: i64, node: &TreeNode, width: usize) {
        let (mode, feature, threshold, [passed, failed], missing_passes) = match *node {
            TreeNode::Leaf(value) => {
                self.leaf_tree.push(tree);
                self.leaf_node.push(index);
                self.leaf_value.push(value as f32);
                ("LEAF", 0, 0.0, [0, 0], false)
            }
            TreeNode::Split { feature, threshold, missing, left, right } => {
                let copy = if takes_zero_for_missing(node) { width as i64 } else { 0 };
                let children = [left.into(), right.into()];
                ("BRANCH_LEQ", copy + i64::from(feature), threshold, children, missing.goes_left())
            }
        };
        self.tree.push(tree);
        self.node.push(index);
        self.mode.push(mode.into());
        self.feature.push(feature);
        self.threshold.push(threshold);
        self.passed.push(passed);
        self.failed.push(failed);
        self.missing_passes.push(missing_passes.into());
    }

    fn into_attributes(self) -> Vec<Attribute> {
        vec![
            Attribute::int("n_targets", 1),
            Attribute::string("aggregate_function", "SUM"),
            Attribute::string("post_transform", "NONE"),
            Attribute::ints("nodes_treeids", self.tree),
            Attribute::ints("nodes_nodeids", self.node),
            Attribute::ints("nodes_featureids", self.feature),
            Attribute::strings("nodes_modes", self.mode),
            Attribute::floats("nodes_values", self.threshold),
            Attribute::ints("nodes_truenodeids", self.passed),
            Attribute::ints("nodes_falsenodeids", self.failed),
            Attribute::ints("nodes_missing_value_tracks_true", self.missing_passes),
            Attribute::ints("target_ids", vec![0; self.leaf_tree.len()]),
            Attribute::ints("target_treeids", self.leaf_tree),
            Attribute::ints("target_nodeids", self.leaf_node),
            Attribute::floats("target_weights", self.leaf_value),
        ]
    }
}
