//! A validated, immutable regression forest on rows of `f32`: the form in which boosted trees are served.
//!
//! Trees arrive as [`TreeNode`]s with explicit children, are checked once ([`Forest::new`]) and are kept flat: eight bytes
//! a node, level by level, siblings side by side, so that a step is one comparison and one addition, and several walks in
//! step hide each other's latency. Left out: categorical splits, more than one output, link functions, training.
//!
//! # Bytes
//!
//! Little-endian, without gaps. One forest has exactly one byte string, and the reader takes no other for it.
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 8 | magic, `SWFOREST` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | number of features |
//! | 16 | 4 | number of trees, *t* |
//! | 20 | 4 | number of nodes of all trees, *n* |
//! | 24 | 4 *t* | number of nodes of each tree |
//! | 24 + 4 *t* | 12 *n* | the nodes, tree by tree, each tree level by level from its root |
//! | 24 + 4 *t* + 12 *n* | 32 | BLAKE3 of all that precedes |
//!
//! A node is twelve bytes. Its children are not written: those of a tree's *k*-th split (from 0) are its nodes
//! 2 *k* + 1 and 2 *k* + 2, of which the second is the one that missing values go to. Hence a cycle or a shared child
//! cannot be expressed.
//!
//! | offset | size | leaf | split |
//! |---|---|---|---|
//! | 0 | 1 | 0 | where missing values go: 1 NaN right, 2 NaN left, 3 NaN and zero right, 4 NaN and zero left |
//! | 1 | 1 | 0 | 0 |
//! | 2 | 2 | 0 | feature |
//! | 4 | 8 | value, `f64` | threshold, `f32`, not -0, then four bytes of 0 |

mod codec;
mod contributions;
mod error;
mod factored;
mod layout;

pub use contributions::{Covers, CoversError};
pub use error::ForestError;
pub use factored::{Factored, MAX_LEAVES, Scratch};
use layout::{FlatNode, FlatTree, LaidOut, MAX_LAID_OUT, Readings};

/// Values no further from zero than this count as zero under [`Missing::ZeroLeft`] and [`Missing::ZeroRight`].
pub const ZERO_THRESHOLD: f32 = 1e-35;
/// More features than this do not fit into a node.
pub const MAX_FEATURES: usize = 1 << 14;
/// Bounds the work of one prediction.
pub const MAX_TREES: usize = 100_000;
/// More nodes in one tree than this do not fit a node's child index.
pub const MAX_NODES_PER_TREE: usize = u16::MAX as usize;
/// Bounds the memory of a forest.
pub const MAX_NODES: usize = 1 << 24;
/// Splits on the longest way from a root to a leaf; every row pays for the deepest leaf of a tree.
pub const MAX_DEPTH: usize = 64;

/// Trees that one row walks at a time.
const TREE_LANES: usize = 8;

/// Says where a split sends rows whose feature is missing; all others go left when `value <= threshold`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// NaN goes right.
    NanRight,
    /// NaN goes left.
    NanLeft,
    /// NaN and zero (within [`ZERO_THRESHOLD`]) go right, whatever the threshold.
    ZeroRight,
    /// NaN and zero (within [`ZERO_THRESHOLD`]) go left, whatever the threshold.
    ZeroLeft,
}

impl Missing {
    pub(crate) fn goes_left(self) -> bool {
        matches!(self, Self::NanLeft | Self::ZeroLeft)
    }
}

/// One node of a tree as a converter writes it; the root is the tree's node 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TreeNode {
    /// Ends the walk with this value, which must be finite.
    Leaf(f64),
    /// Sends a row to one of two other nodes of the same tree.
    Split {
        /// Position of the tested value in the row.
        feature: u32,
        /// Rows with `value <= threshold` go left; infinite is allowed, NaN is not.
        threshold: f32,
        /// Where missing values go.
        missing: Missing,
        /// Index of the left child in the tree.
        left: u32,
        /// Index of the right child in the tree.
        right: u32,
    },
}

/// A sum of regression trees. Each prediction is finite, for every row there is.
#[derive(Debug, Clone, PartialEq)]
pub struct Forest {
    n_features: usize,
    trees: Vec<FlatTree>,
    nodes: Vec<FlatNode>,
    /// Beside `nodes`: the value of each leaf, 0 for splits.
    values: Vec<f64>,
}

impl Forest {
    /// Checks the trees and lays them out; the only way to a forest, also for [`Forest::from_bytes`].
    ///
    /// # Errors
    /// Says which tree and node break which rule: every node but the root is the child of exactly one split, features are
    /// below `n_features`, thresholds are not NaN, leaves and their largest sums are finite, and the limits of this module hold.
    pub fn new(n_features: usize, trees: &[Vec<TreeNode>]) -> Result<Self, ForestError> {
        layout::check_counts(n_features, trees)?;
        let n_nodes = trees.iter().map(Vec::len).sum();
        let mut forest = Self {
            n_features,
            trees: Vec::with_capacity(trees.len()),
            nodes: Vec::with_capacity(n_nodes),
            values: Vec::with_capacity(n_nodes),
        };
        let mut largest_sum = 0.0;
        for (index, tree) in trees.iter().enumerate() {
            largest_sum += layout::append_tree(&mut forest, index, tree)?;
        }
        if !f64::is_finite(largest_sum) {
            return Err(ForestError::SumOverflows);
        }
        Ok(forest)
    }

    /// The same trees with all that they say times `factor`.
    ///
    /// # Panics
    /// If what they say is no longer finite.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let values: Vec<f64> = self.values.iter().map(|value| value * factor).collect();
        assert!(values.iter().all(|value| value.is_finite()), "a forest says finite numbers");
        Self { values, ..self.clone() }
    }

    /// Counts the values that a row must have at least.
    pub fn n_features(&self) -> usize {
        self.n_features
    }

    /// Counts the trees, at least one.
    pub fn n_trees(&self) -> usize {
        self.trees.len()
    }

    /// Counts the nodes of all trees, leaves included.
    pub fn n_nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Adds up the leaves that `row` reaches, in `f64` and in the order of the trees. Allocates nothing.
    ///
    /// # Panics
    /// If `row` is shorter than [`Forest::n_features`].
    pub fn predict(&self, row: &[f32]) -> f64 {
        let row = &row[..self.n_features];
        if self.n_features <= MAX_LAID_OUT { self.sum_trees(&LaidOut::new(row)) } else { self.sum_trees(&row) }
    }

    /// What [`Forest::predict`] says of one row in each of several forests; sooner, for the row is laid out once.
    ///
    /// # Panics
    /// If `row` is shorter than the [`Forest::n_features`] of any.
    pub(crate) fn predict_each<const N: usize>(forests: [&Self; N], row: &[f32]) -> [f64; N] {
        let width = forests.iter().map(|forest| forest.n_features).max().unwrap_or(0);
        let row = &row[..width];
        if width > MAX_LAID_OUT {
            return forests.map(|forest| forest.sum_trees(&row));
        }
        let laid_out = LaidOut::new(row);
        forests.map(|forest| forest.sum_trees(&laid_out))
    }

    /// Predicts `out.len()` rows of `width` values each; the answers are those of [`Forest::predict`], bit for bit, and come
    /// several times sooner. Allocates nothing.
    ///
    /// # Panics
    /// If `width` is below [`Forest::n_features`], or `rows` does not hold `width` values for each place in `out`.
    pub fn predict_rows(&self, rows: &[f32], width: usize, out: &mut [f64]) {
        assert!(width >= self.n_features, "rows of {width} values, but the forest reads {}", self.n_features);
        assert_eq!(Some(rows.len()), width.checked_mul(out.len()), "rows and answers must match");
        if self.n_features <= MAX_LAID_OUT {
            self.sum_rows(rows, width, out, LaidOut::new);
        } else {
            self.sum_rows(rows, width, out, |row| row);
        }
    }

    fn sum_trees(&self, row: &impl Readings) -> f64 {
        let mut sum = 0.0;
        let (groups, rest) = self.trees.as_chunks::<TREE_LANES>();
        for group in groups {
            self.add_trees(group, row, &mut sum);
        }
        for tree in rest {
            self.add_trees(std::array::from_ref(tree), row, &mut sum);
        }
        sum
    }

    /// Walks one row down several trees in step: leaves lead to themselves, so the deepest tree sets the number of steps.
    fn add_trees<const LANES: usize>(&self, trees: &[FlatTree; LANES], row: &impl Readings, sum: &mut f64) {
        let nodes = trees.each_ref().map(|tree| &self.nodes[tree.range()]);
        let mut at = [0_u16; LANES];
        for _ in 0..trees.iter().map(|tree| tree.depth).max().unwrap_or(0) {
            for (nodes, at) in nodes.iter().zip(&mut at) {
                *at = nodes[usize::from(*at)].next(row);
            }
        }
        for (tree, at) in trees.iter().zip(at) {
            *sum += self.values[tree.start + usize::from(at)];
        }
    }

    fn sum_rows<'a, R: Readings>(&self, rows: &'a [f32], width: usize, out: &mut [f64], read: fn(&'a [f32]) -> R) {
        let row = |index: usize| read(&rows[index * width..][..self.n_features]);
        let mut done = 0;
        done += self.sum_blocks::<16, R>(&mut out[done..], |lane| row(done + lane));
        done += self.sum_blocks::<8, R>(&mut out[done..], |lane| row(done + lane));
        for (index, sum) in out.iter_mut().enumerate().skip(done) {
            *sum = self.sum_trees(&row(index));
        }
    }

    /// Predicts as many whole blocks of `LANES` rows as there are, and returns how many rows that were.
    fn sum_blocks<const LANES: usize, R: Readings>(&self, out: &mut [f64], row: impl Fn(usize) -> R) -> usize {
        let (blocks, _) = out.as_chunks_mut::<LANES>();
        for (block, sums) in blocks.iter_mut().enumerate() {
            *sums = self.sum_block(&std::array::from_fn(|lane| row(block * LANES + lane)));
        }
        blocks.len() * LANES
    }

    /// Walks several rows down one tree in step, tree after tree.
    fn sum_block<const LANES: usize, R: Readings>(&self, rows: &[R; LANES]) -> [f64; LANES] {
        let mut sums = [0.0; LANES];
        for tree in &self.trees {
            let nodes = &self.nodes[tree.range()];
            let mut at = [0_u16; LANES];
            for _ in 0..tree.depth {
                for (row, at) in rows.iter().zip(&mut at) {
                    *at = nodes[usize::from(*at)].next(row);
                }
            }
            let values = &self.values[tree.range()];
            for (sum, at) in sums.iter_mut().zip(at) {
                *sum += values[usize::from(at)];
            }
        }
        sums
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const N_FEATURES: usize = 5;
    pub(crate) const MISSING: [Missing; 4] =
        [Missing::NanRight, Missing::NanLeft, Missing::ZeroRight, Missing::ZeroLeft];
    const SPECIAL: [f32; 16] = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        0.0,
        -0.0,
        1e-36,
        -1e-36,
        ZERO_THRESHOLD,
        -ZERO_THRESHOLD,
        ZERO_THRESHOLD.next_up(),
        (-ZERO_THRESHOLD).next_down(),
        f32::from_bits(1), // the smallest subnormal
        1.5,
        -2.25,
    ];

    /// SplitMix64: enough to shape test trees, the same for ever.
    pub(crate) struct Dice {
        state: u64,
        pub(crate) n_features: usize,
    }

    impl Dice {
        pub(crate) fn new(seed: u64) -> Self {
            Self { state: seed, n_features: N_FEATURES }
        }

        fn roll(&mut self, sides: usize) -> usize {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) % sides as u64) as usize
        }

        fn threshold(&mut self) -> f32 {
            let special = SPECIAL[1 + self.roll(SPECIAL.len() - 1)];
            if self.roll(2) == 0 { special } else { self.roll(2000) as f32 / 500.0 - 2.0 }
        }

        fn leaf(&mut self) -> TreeNode {
            TreeNode::Leaf(self.roll(1_000_003) as f64 / 7.0 - 70_000.0)
        }

        /// Grows a tree as LightGBM does: each split takes a leaf's place.
        pub(crate) fn tree(&mut self, n_splits: usize, missing: &[Missing]) -> Vec<TreeNode> {
            let mut nodes = vec![self.leaf()];
            while nodes.len() < 2 * n_splits {
                let place = self.roll(nodes.len());
                if let TreeNode::Leaf(_) = nodes[place] {
                    let left = nodes.len() as u32;
                    nodes.push(nodes[place]);
                    nodes.push(self.leaf());
                    nodes[place] = self.split(missing, left);
                }
            }
            nodes
        }

        fn split(&mut self, missing: &[Missing], left: u32) -> TreeNode {
            let feature = self.roll(self.n_features) as u32;
            let missing = missing[self.roll(missing.len())];
            TreeNode::Split { feature, threshold: self.threshold(), missing, left, right: left + 1 }
        }

        pub(crate) fn trees(&mut self, n_trees: usize, missing: &[Missing]) -> Vec<Vec<TreeNode>> {
            (0..n_trees)
                .map(|_| {
                    let n_splits = self.roll(40);
                    self.tree(n_splits, missing)
                })
                .collect()
        }

        /// A value that a threshold may hit, or its neighbour.
        fn value(&mut self) -> f32 {
            let value = if self.roll(4) == 0 { SPECIAL[0] } else { self.threshold() };
            [value, value.next_up(), value.next_down()][self.roll(3)]
        }

        pub(crate) fn rows(&mut self, n_rows: usize, width: usize) -> Vec<f32> {
            (0..n_rows * width).map(|_| self.value()).collect()
        }
    }

    /// What the documentation of [`Missing`] and [`TreeNode`] says, word by word.
    fn predict_by_the_book(trees: &[Vec<TreeNode>], row: &[f32]) -> f64 {
        trees.iter().fold(0.0, |sum, tree| sum + reached_leaf(tree, row))
    }

    fn reached_leaf(tree: &[TreeNode], row: &[f32]) -> f64 {
        let mut at = 0;
        loop {
            match tree[at as usize] {
                TreeNode::Leaf(value) => return value,
                TreeNode::Split { feature, threshold, missing, left, right } => {
                    let value = row[feature as usize];
                    let is_zero = (-ZERO_THRESHOLD..=ZERO_THRESHOLD).contains(&value);
                    let goes_left = match missing {
                        Missing::NanRight if value.is_nan() => false,
                        Missing::NanLeft if value.is_nan() => true,
                        Missing::ZeroRight if value.is_nan() || is_zero => false,
                        Missing::ZeroLeft if value.is_nan() || is_zero => true,
                        _ => value <= threshold,
                    };
                    at = if goes_left { left } else { right };
                }
            }
        }
    }

    fn split(left: u32, right: u32) -> TreeNode {
        TreeNode::Split { feature: 0, threshold: 0.5, missing: Missing::NanRight, left, right }
    }

    fn refusal(trees: &[Vec<TreeNode>]) -> String {
        Forest::new(N_FEATURES, trees).expect_err("a refusal").to_string()
    }

    #[test]
    fn forest_answers_by_the_book_whatever_the_row() {
        for n_features in [1, N_FEATURES, MAX_LAID_OUT, MAX_LAID_OUT + 1, 200] {
            let mut dice = Dice { state: 1, n_features };
            for n_trees in [1, 2, 7, 8, 9, 17, 30] {
                let trees = dice.trees(n_trees, &MISSING);
                let forest = Forest::new(n_features, &trees).expect("sound trees");
                for row in dice.rows(300, n_features).chunks_exact(n_features) {
                    let expected = predict_by_the_book(&trees, row);
                    assert_eq!(forest.predict(row).to_bits(), expected.to_bits(), "{row:?}");
                }
            }
        }
    }

    #[test]
    fn many_rows_get_the_answers_of_one_row_at_a_time() {
        for n_features in [N_FEATURES, MAX_LAID_OUT, MAX_LAID_OUT + 1] {
            let mut dice = Dice { state: 2, n_features };
            let forest = Forest::new(n_features, &dice.trees(21, &MISSING)).expect("sound trees");
            for (n_rows, surplus) in (0..40).chain([257]).flat_map(|n_rows| [(n_rows, 0), (n_rows, 3)]) {
                let width = n_features + surplus;
                let rows = dice.rows(n_rows, width);
                let mut answers = vec![f64::NAN; n_rows];
                forest.predict_rows(&rows, width, &mut answers);
                for (row, answer) in rows.chunks_exact(width).zip(answers) {
                    assert_eq!(answer.to_bits(), forest.predict(row).to_bits(), "{row:?}");
                }
            }
        }
    }

    #[test]
    fn infinite_threshold_takes_infinity_left() {
        let trees = [vec![
            TreeNode::Split { feature: 0, threshold: f32::INFINITY, missing: Missing::NanRight, left: 1, right: 2 },
            TreeNode::Leaf(1.0),
            TreeNode::Leaf(2.0),
        ]];
        let forest = Forest::new(1, &trees).expect("a sound tree");
        assert_eq!([f32::INFINITY, f32::MAX, f32::NAN].map(|x| forest.predict(&[x])), [1.0, 1.0, 2.0]);
    }

    #[test]
    fn order_of_the_nodes_given_does_not_matter() {
        let one = [vec![split(1, 2), TreeNode::Leaf(1.0), split(3, 4), TreeNode::Leaf(2.0), TreeNode::Leaf(3.0)]];
        let other = [vec![split(4, 1), split(3, 2), TreeNode::Leaf(3.0), TreeNode::Leaf(2.0), TreeNode::Leaf(1.0)]];
        let [one, other] = [one, other].map(|trees| Forest::new(1, &trees).expect("sound trees"));
        assert_eq!(one, other);
        assert_eq!(one.to_bytes(), other.to_bytes());
    }

    #[test]
    fn cycles_and_shared_children_are_refused() {
        let leaf = TreeNode::Leaf(1.0);
        for (nodes, place) in [
            (vec![split(0, 1), leaf], "tree 0, node 0: more than one way leads to node 0"),
            (vec![split(1, 1), leaf], "tree 0, node 0: more than one way leads to node 1"),
            (vec![split(1, 2), split(0, 3), leaf, leaf], "tree 0, node 1: more than one way leads to node 0"),
            (vec![split(1, 2), split(3, 2), leaf, leaf], "tree 0, node 1: more than one way leads to node 2"),
            (vec![split(1, 2), leaf, leaf, split(4, 3), leaf], "tree 0, node 3: no way leads there from the root"),
            (vec![leaf, leaf], "tree 0, node 1: no way leads there from the root"),
            (vec![split(1, 3), leaf, leaf], "tree 0, node 0: child 3 is not among the tree's 3 nodes"),
        ] {
            assert_eq!(refusal(&[nodes]), place);
        }
    }

    #[test]
    fn numbers_that_cannot_be_served_are_refused() {
        let leaf = TreeNode::Leaf(1.0);
        let test =
            |feature, threshold| TreeNode::Split { feature, threshold, missing: Missing::NanLeft, left: 1, right: 2 };
        for (trees, place) in [
            (
                vec![vec![test(5, 0.0), leaf, leaf]],
                "tree 0, node 0: feature 5 is not below the 5 features of the forest",
            ),
            (vec![vec![leaf], vec![test(0, f32::NAN), leaf, leaf]], "tree 1, node 0: the threshold is not a number"),
            (vec![vec![test(0, 0.0), leaf, TreeNode::Leaf(f64::NAN)]], "tree 0, node 2: the leaf is not finite"),
            (vec![vec![TreeNode::Leaf(f64::INFINITY)]], "tree 0, node 0: the leaf is not finite"),
            (vec![vec![TreeNode::Leaf(-1e308)]; 2], "the largest leaves of the trees add up to infinity"),
            (vec![], "no tree: a forest has at least one tree, a tree at least one node"),
            (vec![vec![leaf], vec![]], "no node in tree 1: a forest has at least one tree, a tree at least one node"),
        ] {
            assert_eq!(refusal(&trees), place);
        }
        for n_features in [0, MAX_FEATURES + 1] {
            let refused = Forest::new(n_features, &[vec![leaf]]);
            assert_eq!(refused, Err(ForestError::FeatureCount { n_features }));
        }
    }

    /// Splits in a chain, each with a leaf on its left.
    fn chain(n_splits: u32) -> Vec<TreeNode> {
        let mut nodes: Vec<_> =
            (0..n_splits).flat_map(|k| [split(2 * k + 1, 2 * k + 2), TreeNode::Leaf(k.into())]).collect();
        nodes.push(TreeNode::Leaf(-1.0));
        nodes
    }

    #[test]
    fn depth_and_size_have_their_limits() {
        let deepest = Forest::new(1, &[chain(64)]).expect("as deep as allowed");
        assert_eq!([0.0, 1.0].map(|x| deepest.predict(&[x])), [0.0, -1.0]);
        assert_eq!(refusal(&[chain(65)]), "tree 0 is deeper than 64 splits: set a maximum depth in training");
        let most = Dice::new(3).tree(32_767, &MISSING);
        assert_eq!(most.len(), MAX_NODES_PER_TREE);
        assert!(Forest::new(N_FEATURES, &[most]).is_ok());
        let more = Dice::new(3).tree(32_768, &MISSING);
        assert_eq!(
            refusal(&[more]),
            "65537 nodes in tree 0 are more than the 65535 that are allowed: train a smaller forest"
        );
        let too_many = vec![vec![TreeNode::Leaf(0.0)]; MAX_TREES + 1];
        assert_eq!(
            refusal(&too_many),
            "100001 trees are more than the 100000 that are allowed: train a smaller forest"
        );
    }

    #[test]
    #[should_panic(expected = "rows and answers must match")]
    fn rows_that_do_not_match_the_answers_are_a_bug() {
        let forest = Forest::new(1, &[chain(1)]).expect("a sound tree");
        forest.predict_rows(&[0.0; 5], 2, &mut [0.0; 2]);
    }

    fn forests() -> Vec<Forest> {
        let mut dice = Dice::new(4);
        (1..30).map(|n_trees| Forest::new(N_FEATURES, &dice.trees(n_trees, &MISSING)).expect("sound trees")).collect()
    }

    #[test]
    fn bytes_bring_the_same_forest_back() {
        for forest in forests() {
            let bytes = forest.to_bytes();
            let read = Forest::from_bytes(&bytes).expect("own bytes");
            assert_eq!(read, forest);
            assert_eq!(read.to_bytes(), bytes);
        }
    }

    #[test]
    fn thresholds_come_back_bit_by_bit() {
        for threshold in SPECIAL.into_iter().skip(1).flat_map(|x| [x.next_down(), x + 0.0, x.next_up()]) {
            for missing in MISSING {
                let split = TreeNode::Split { feature: 0, threshold: threshold + 0.0, missing, left: 1, right: 2 };
                let forest = Forest::new(1, &[vec![split, TreeNode::Leaf(1.0), TreeNode::Leaf(2.0)]]).expect("a tree");
                let bytes = forest.to_bytes();
                assert_eq!(bytes[32..36], (threshold + 0.0).to_le_bytes(), "{threshold:e} {missing:?}");
                assert_eq!(Forest::from_bytes(&bytes), Ok(forest));
            }
        }
    }

    #[test]
    fn layout_is_the_documented_one() {
        let test = TreeNode::Split { feature: 3, threshold: 0.5, missing: Missing::ZeroLeft, left: 2, right: 1 };
        let forest = Forest::new(7, &[vec![test, TreeNode::Leaf(-2.0), TreeNode::Leaf(1.0)]]).expect("a sound tree");
        let mut expected = b"SWFOREST\x01\0\0\0\x07\0\0\0\x01\0\0\0\x03\0\0\0\x03\0\0\0".to_vec();
        expected.extend(b"\x04\0\x03\0\0\0\0\x3f\0\0\0\0");
        expected.extend(b"\0\0\0\0\0\0\0\0\0\0\0\xc0");
        expected.extend(b"\0\0\0\0\0\0\0\0\0\0\xf0\x3f");
        expected.extend(blake3::hash(&expected).as_bytes());
        assert_eq!(forest.to_bytes(), expected);
    }

    fn small_bytes() -> Vec<u8> {
        let mut dice = Dice::new(5);
        let trees = [dice.tree(4, &MISSING), dice.tree(0, &MISSING), dice.tree(2, &MISSING)];
        Forest::new(N_FEATURES, &trees).expect("sound trees").to_bytes()
    }

    /// All byte strings that differ from the given one in exactly one byte.
    fn mutants(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        (0..bytes.len()).flat_map(move |place| {
            (1..=255).map(move |change: u8| {
                let mut mutant = bytes.to_vec();
                mutant[place] ^= change;
                mutant
            })
        })
    }

    fn with_checksum(content: &[u8]) -> Vec<u8> {
        [content, blake3::hash(content).as_bytes()].concat()
    }

    #[test]
    fn any_changed_byte_is_refused() {
        for mutant in mutants(&small_bytes()) {
            assert!(Forest::from_bytes(&mutant).is_err());
        }
    }

    #[test]
    fn changed_bytes_under_a_new_checksum_are_refused_or_a_forest_of_their_own() {
        let bytes = small_bytes();
        let content = &bytes[..bytes.len() - blake3::OUT_LEN];
        let mut dice = Dice::new(6);
        let mut n_taken = 0;
        for mutant in mutants(content).map(|content| with_checksum(&content)) {
            let Ok(forest) = Forest::from_bytes(&mutant) else { continue };
            assert_eq!(forest.to_bytes(), mutant, "no two byte strings are the same forest");
            let rows = dice.rows(5, forest.n_features());
            let mut answers = [f64::NAN; 5];
            forest.predict_rows(&rows, forest.n_features(), &mut answers);
            assert!(answers.iter().all(|answer| answer.is_finite()));
            n_taken += 1;
        }
        assert!(n_taken > 1000, "other thresholds and leaves make other forests, {n_taken} here");
    }

    #[test]
    fn cut_off_or_longer_bytes_are_refused() {
        let bytes = small_bytes();
        for length in 0..bytes.len() {
            assert!(Forest::from_bytes(&bytes[..length]).is_err());
            let content_length = length.min(bytes.len() - blake3::OUT_LEN - 1);
            assert!(Forest::from_bytes(&with_checksum(&bytes[..content_length])).is_err());
        }
        let mut longer = bytes.clone();
        longer.push(0);
        let expected = ForestError::Length { expected: bytes.len() as u64, found: longer.len() as u64 };
        assert_eq!(Forest::from_bytes(&longer), Err(expected));
    }

    #[test]
    fn counts_beyond_the_limits_are_refused() {
        let counts = [u32::MAX; 3].map(u32::to_le_bytes).concat();
        let bytes = with_checksum(&[b"SWFOREST\x01\0\0\0", &counts[..]].concat());
        let refused = Forest::from_bytes(&bytes).expect_err("a refusal");
        assert_eq!(refused, ForestError::TooMany { what: "trees".into(), n: u32::MAX as usize, limit: MAX_TREES });
    }

    #[test]
    fn other_files_and_versions_are_told_apart() {
        assert_eq!(Forest::from_bytes(b"tree\nversion=v4\n"), Err(ForestError::NotAForest));
        let mut later = small_bytes();
        later[8] = 2;
        assert_eq!(Forest::from_bytes(&later), Err(ForestError::Version { found: 2 }));
    }
}
