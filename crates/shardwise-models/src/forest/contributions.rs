//! What each feature contributes to a forest's answer: exact Shapley values of the path-dependent game (TreeSHAP).
//!
//! In that game the players are the features. Where one is absent, a row goes to both children of a split that tests it, in
//! proportion to the training rows that went there; the value is the mean of the leaves that are reached. Contributions and
//! the mean over all training rows add up to the answer. Algorithm 2 of Lundberg, Erion and Lee, "Consistent
//! Individualized Feature Attribution for Tree Ensembles", 2018; LightGBM's `pred_contrib` computes the same.

use super::layout::FlatNode;
use super::{Forest, TreeNode};

/// How many training rows reached each node of a forest, without which no mean over absent features can be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covers {
    /// In the order of the forest's bytes.
    rows: Vec<u32>,
}

/// Says why counts are not those of a forest's nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CoversError {
    /// There are too many or too few.
    #[error("{found} counts of rows for {expected} nodes")]
    Length {
        /// Nodes of the forest.
        expected: usize,
        /// Counts that are there.
        found: usize,
    },
    /// No row reached a node, or a split's children do not add up to it.
    #[error("node {node}: its rows are none, or not those of its children")]
    Sum {
        /// The node, counted over all trees.
        node: usize,
    },
}

impl Covers {
    /// Takes the counts as the trees are given to [`Forest::new`]: tree by tree, node by node.
    ///
    /// # Errors
    /// As [`Covers::in_order`].
    pub fn new(forest: &Forest, trees: &[Vec<TreeNode>], rows: &[Vec<u32>]) -> Result<Self, CoversError> {
        let lengths = || trees.iter().zip(rows).all(|(nodes, rows)| nodes.len() == rows.len());
        if trees.len() != rows.len() || !lengths() {
            let found = rows.iter().map(Vec::len).sum();
            return Err(CoversError::Length { expected: forest.n_nodes(), found });
        }
        let level_by_level = trees.iter().zip(rows).flat_map(|(nodes, rows)| by_levels(nodes, rows));
        Self::in_order(forest, level_by_level.collect())
    }

    /// Takes the counts in the order of the forest's bytes: each tree level by level.
    ///
    /// # Errors
    /// When there is not one count for each node, a count is 0, or the counts of children do not add up to their parent's.
    pub fn in_order(forest: &Forest, rows: Vec<u32>) -> Result<Self, CoversError> {
        if rows.len() != forest.n_nodes() {
            return Err(CoversError::Length { expected: forest.n_nodes(), found: rows.len() });
        }
        for tree in &forest.trees {
            let (nodes, rows) = (&forest.nodes[tree.range()], &rows[tree.range()]);
            for (place, node) in nodes.iter().enumerate() {
                let below = if node.is_leaf(place) {
                    u64::from(rows[place])
                } else {
                    let first = node.first_child();
                    u64::from(rows[first]) + u64::from(rows[first + 1])
                };
                if rows[place] == 0 || below != u64::from(rows[place]) {
                    return Err(CoversError::Sum { node: tree.start + place });
                }
            }
        }
        Ok(Self { rows })
    }

    /// Counts how many rows of `width` values each reach each node, and one more for each leaf, so that none is unreached.
    ///
    /// # Panics
    /// If `width` is below [`Forest::n_features`].
    pub fn on_rows(forest: &Forest, rows: &[f32], width: usize) -> Self {
        let mut counts = vec![0_u32; forest.nodes.len()];
        for tree in &forest.trees {
            let (nodes, counts) = (&forest.nodes[tree.range()], &mut counts[tree.range()]);
            for (place, node) in nodes.iter().enumerate() {
                counts[place] = u32::from(node.is_leaf(place));
            }
            for row in rows.chunks_exact(width) {
                counts[leaf_of(nodes, &&row[..forest.n_features], |_| ())] += 1;
            }
            // Children come after their parents.
            for place in (0..nodes.len()).rev().filter(|place| !nodes[*place].is_leaf(*place)) {
                let first = nodes[place].first_child();
                counts[place] = counts[first] + counts[first + 1];
            }
        }
        Self { rows: counts }
    }

    /// The counts, in the order of the forest's bytes.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }
}

/// The counts of a tree in the order in which a forest lays it out.
fn by_levels(nodes: &[TreeNode], rows: &[u32]) -> Vec<u32> {
    let mut order = vec![0_usize];
    let mut at = 0;
    // A forest of these trees was made, so every node is a child once.
    while let Some(node) = order.get(at) {
        if let TreeNode::Split { missing, left, right, .. } = nodes[*node] {
            let [first, second] = if missing.goes_left() { [right, left] } else { [left, right] };
            order.extend([first as usize, second as usize]);
        }
        at += 1;
    }
    order.into_iter().map(|node| rows[node]).collect()
}

/// A feature on the way from the root, with the share of the paths that reach further where it is absent and present, and the
/// weight of the subsets of as many features as its place says.
#[derive(Clone, Copy)]
struct Element {
    feature: usize,
    absent: f64,
    present: f64,
    weight: f64,
}

/// The root is no feature.
const NO_FEATURE: usize = usize::MAX;

impl Forest {
    /// Adds to `out` what each feature contributes to [`Forest::predict`] of `row`, and returns the forest's mean over its
    /// training rows. Both add up to the prediction but for rounding. The time grows with the leaves times their depth
    /// squared: about a thousand times that of a prediction.
    ///
    /// # Panics
    /// If `row` or `out` is shorter than [`Forest::n_features`], or the covers are another forest's.
    pub fn contributions(&self, covers: &Covers, row: &[f32], out: &mut [f64]) -> f64 {
        assert_eq!(covers.rows.len(), self.nodes.len(), "covers of another forest");
        let row = &row[..self.n_features];
        let out = &mut out[..self.n_features];
        let mut path = Vec::new();
        let mut mean = 0.0;
        for tree in &self.trees {
            let range = tree.range();
            let walk = Walk {
                nodes: &self.nodes[range.clone()],
                values: &self.values[range.clone()],
                rows: &covers.rows[range],
                row,
            };
            mean += walk.mean();
            path.clear();
            walk.down(0, &mut path, 0, Element { feature: NO_FEATURE, absent: 1.0, present: 1.0, weight: 0.0 }, out);
        }
        mean
    }
}

/// Walks a row to its leaf; `visit` hears of each node, the leaf included.
fn leaf_of(nodes: &[FlatNode], row: &&[f32], mut visit: impl FnMut(usize)) -> usize {
    let mut place = 0;
    visit(place);
    while !nodes[place].is_leaf(place) {
        place = usize::from(nodes[place].next(row));
        visit(place);
    }
    place
}

impl Forest {
    /// By how much the splits on each feature lower the sum of squares that the trees before them leave of `labels`: the gain of
    /// boosting (Friedman, "Greedy function approximation: a gradient boosting machine", 2001, section 8.1), on any rows
    /// of `width` values each. On rows that the forest was not grown on, splits that learned noise gain next to nothing.
    ///
    /// # Panics
    /// If there is not a row for each label, or `width` is below [`Forest::n_features`].
    pub fn gains(&self, rows: &[f32], width: usize, labels: &[f64]) -> Vec<f64> {
        assert_eq!(Some(rows.len()), labels.len().checked_mul(width), "rows and labels must match");
        let mut gains = vec![0.0; self.n_features];
        let mut left = labels.to_vec();
        for tree in &self.trees {
            let (nodes, values) = (&self.nodes[tree.range()], &self.values[tree.range()]);
            // Sum and number of what is left, by node.
            let mut sums = vec![(0.0, 0.0); nodes.len()];
            for (row, left) in rows.chunks_exact(width).zip(&mut left) {
                let visit = |place: usize| sums[place] = (sums[place].0 + *left, sums[place].1 + 1.0);
                *left -= values[leaf_of(nodes, &&row[..self.n_features], visit)];
            }
            let square = |(sum, n): (f64, f64)| if n > 0.0 { sum * sum / n } else { 0.0 };
            for (place, node) in nodes.iter().enumerate().filter(|(place, node)| !node.is_leaf(*place)) {
                let first = node.first_child();
                let gain = square(sums[first]) + square(sums[first + 1]) - square(sums[place]);
                gains[usize::from(node.feature())] += gain.max(0.0);
            }
        }
        gains
    }
}

/// One tree and the row that is explained.
struct Walk<'a> {
    nodes: &'a [FlatNode],
    values: &'a [f64],
    rows: &'a [u32],
    row: &'a [f32],
}

impl Walk<'_> {
    /// The mean of the leaves over the training rows.
    fn mean(&self) -> f64 {
        let leaves = (0..self.nodes.len()).filter(|place| self.nodes[*place].is_leaf(*place));
        leaves.map(|place| self.share(place, 0) * self.values[place]).sum()
    }

    fn share(&self, node: usize, of: usize) -> f64 {
        f64::from(self.rows[node]) / f64::from(self.rows[of])
    }

    /// Goes down from `place` with the path that begins at `parent` in `path`, and one element more.
    fn down(&self, place: usize, path: &mut Vec<Element>, parent: usize, added: Element, out: &mut [f64]) {
        let begin = path.len();
        path.extend_from_within(parent..begin);
        path.push(added);
        extend(&mut path[begin..]);
        let node = self.nodes[place];
        if node.is_leaf(place) {
            let own = &path[begin..];
            for (index, element) in own.iter().enumerate().skip(1) {
                out[element.feature] += unwound(own, index) * (element.present - element.absent) * self.values[place];
            }
        } else {
            let feature = usize::from(node.feature());
            let (mut absent, mut present) = (1.0, 1.0);
            // A feature that was tested before is one player still.
            if let Some(index) = path[begin..].iter().position(|element| element.feature == feature) {
                (absent, present) = (path[begin + index].absent, path[begin + index].present);
                unwind(&mut path[begin..], index);
                path.pop();
            }
            let hot = usize::from(node.next(&self.row));
            let first = node.first_child();
            let cold = if hot == first { first + 1 } else { first };
            for (child, present) in [(hot, present), (cold, 0.0)] {
                let absent = absent * self.share(child, place);
                self.down(child, path, begin, Element { feature, absent, present, weight: 0.0 }, out);
            }
        }
        path.truncate(begin);
    }
}

/// Gives the last element its place in all subsets.
fn extend(path: &mut [Element]) {
    let last = path.len() - 1;
    let Element { absent, present, .. } = path[last];
    path[last].weight = if last == 0 { 1.0 } else { 0.0 };
    let n = (last + 1) as f64;
    for i in (0..last).rev() {
        path[i + 1].weight += present * path[i].weight * (i + 1) as f64 / n;
        path[i].weight *= absent * (last - i) as f64 / n;
    }
}

/// Takes an element out of all subsets; the last place is free afterwards.
fn unwind(path: &mut [Element], index: usize) {
    let last = path.len() - 1;
    let Element { absent, present, .. } = path[index];
    let n = (last + 1) as f64;
    let mut next = path[last].weight;
    for i in (0..last).rev() {
        if present == 0.0 {
            path[i].weight *= n / (absent * (last - i) as f64);
        } else {
            let before = path[i].weight;
            path[i].weight = next * n / ((i + 1) as f64 * present);
            next = before - path[i].weight * absent * (last - i) as f64 / n;
        }
    }
    for i in index..last {
        path[i] = Element { weight: path[i].weight, ..path[i + 1] };
    }
}

/// The sum of the weights that are left when an element is taken out.
fn unwound(path: &[Element], index: usize) -> f64 {
    let last = path.len() - 1;
    let Element { absent, present, .. } = path[index];
    let n = (last + 1) as f64;
    let (mut next, mut total) = (path[last].weight, 0.0);
    for i in (0..last).rev() {
        if present == 0.0 {
            total += path[i].weight / absent / ((last - i) as f64 / n);
        } else {
            let weight = next * n / ((i + 1) as f64 * present);
            total += weight;
            next = path[i].weight - weight * absent * ((last - i) as f64 / n);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::tests::{Dice, MISSING};

    /// Counts for a tree: each leaf is reached by some rows, each split by those of its children.
    fn counts(nodes: &[TreeNode], node: usize, rows: &mut [u32]) -> u32 {
        rows[node] = match nodes[node] {
            TreeNode::Leaf(_) => 1 + (node as u32 * 7) % 13,
            TreeNode::Split { left, right, .. } => {
                counts(nodes, left as usize, rows) + counts(nodes, right as usize, rows)
            }
        };
        rows[node]
    }

    fn covered(trees: &[Vec<TreeNode>]) -> (Forest, Covers) {
        let forest = Forest::new(5, trees).expect("sound trees");
        let rows: Vec<Vec<u32>> = trees
            .iter()
            .map(|nodes| {
                let mut rows = vec![0; nodes.len()];
                counts(nodes, 0, &mut rows);
                rows
            })
            .collect();
        let covers = Covers::new(&forest, trees, &rows).expect("they add up");
        (forest, covers)
    }

    /// The game's value when only the features in `present` are known, by its definition.
    fn value(walk: &Walk<'_>, place: usize, present: u32) -> f64 {
        let node = walk.nodes[place];
        if node.is_leaf(place) {
            return walk.values[place];
        }
        if present & (1 << node.feature()) != 0 {
            return value(walk, usize::from(node.next(&walk.row)), present);
        }
        let first = node.first_child();
        [first, first + 1].iter().map(|child| walk.share(*child, place) * value(walk, *child, present)).sum()
    }

    /// Shapley's formula over all subsets of five features.
    fn by_definition(forest: &Forest, covers: &Covers, row: &[f32]) -> [f64; 5] {
        let factorial = |n: u32| (1..=n).map(f64::from).product::<f64>();
        let mut out = [0.0; 5];
        for tree in &forest.trees {
            let range = tree.range();
            let (nodes, values) = (&forest.nodes[range.clone()], &forest.values[range.clone()]);
            let walk = Walk { nodes, values, rows: &covers.rows[range], row };
            for (feature, out) in out.iter_mut().enumerate() {
                for others in (0..32_u32).filter(|set| set & (1 << feature) == 0) {
                    let size = others.count_ones();
                    let weight = factorial(size) * factorial(4 - size) / factorial(5);
                    *out += weight * (value(&walk, 0, others | (1 << feature)) - value(&walk, 0, others));
                }
            }
        }
        out
    }

    #[test]
    fn contributions_are_shapley_values_and_add_up() {
        for seed in 0..60 {
            let mut dice = Dice::new(seed);
            let (forest, covers) = covered(&dice.trees(3, &MISSING));
            for shift in 0..5 {
                let row: Vec<f32> = (0..5).map(|i| [f32::NAN, -1.5, 0.0, 0.4, 3.0][(i + shift) % 5]).collect();
                let mut out = [0.0; 5];
                let mean = forest.contributions(&covers, &row, &mut out);
                let (sum, answer) = (mean + out.iter().sum::<f64>(), forest.predict(&row));
                let scale = 1.0 + forest.values.iter().map(|value| value.abs()).fold(0.0, f64::max);
                assert!((sum - answer).abs() < 1e-9 * scale, "{sum} is not {answer}");
                for (found, expected) in out.into_iter().zip(by_definition(&forest, &covers, &row)) {
                    assert!((found - expected).abs() < 1e-9 * scale, "{found} is not {expected}");
                }
            }
        }
    }

    #[test]
    fn counts_on_rows_are_those_of_the_walk() {
        let mut dice = Dice::new(8);
        let forest = Forest::new(5, &dice.trees(3, &MISSING)).expect("sound trees");
        let rows: Vec<f32> = (0..500).map(|i| ((i * 37 % 101) as f32 - 50.0) / 9.0).collect();
        let covers = Covers::on_rows(&forest, &rows, 5);
        assert_eq!(Covers::in_order(&forest, covers.rows().to_vec()), Ok(covers.clone()), "they add up");
        for tree in &forest.trees {
            let leaves = tree.n_nodes.div_ceil(2) as u32;
            assert_eq!(
                covers.rows()[tree.start],
                100 + leaves,
                "each row reaches the root, and one more for each leaf"
            );
        }
    }

    #[test]
    fn gains_add_up_to_what_the_trees_explain() {
        // One tree that splits feature 1, then feature 0; its leaves are the means of their labels.
        let split = |feature, threshold, left| TreeNode::Split {
            feature,
            threshold,
            missing: crate::forest::Missing::NanRight,
            left,
            right: left + 1,
        };
        let leaf = TreeNode::Leaf;
        let tree = vec![split(1, 0.5, 1), split(0, 0.5, 3), leaf(10.0), leaf(1.0), leaf(3.0)];
        let forest = Forest::new(2, &[tree]).expect("a sound tree");
        let rows = [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
        let labels = [1.0, 3.0, 9.0, 11.0];
        // Sums of squares around the means: 68 of all; 2 within {1, 3} and 2 within {9, 11}.
        assert_eq!(forest.gains(&rows, 2, &labels), [2.0, 64.0]);
        // The same tree again finds nothing left but what its leaves missed.
        let again = Forest::new(2, &[forest.to_trees()[0].clone(), forest.to_trees()[0].clone()]).expect("sound trees");
        assert_eq!(again.gains(&rows, 2, &labels), [2.0, 64.0]);
    }

    #[test]
    fn counts_that_are_not_the_trees_are_refused() {
        let trees = Dice::new(3).trees(2, &MISSING);
        let (forest, covers) = covered(&trees);
        let mut rows = covers.rows().to_vec();
        assert_eq!(Covers::in_order(&forest, rows.clone()), Ok(covers));
        rows[0] += 1;
        assert_eq!(Covers::in_order(&forest, rows.clone()), Err(CoversError::Sum { node: 0 }));
        rows.pop();
        assert!(matches!(Covers::in_order(&forest, rows), Err(CoversError::Length { .. })));
        assert!(matches!(Covers::new(&forest, &trees, &[]), Err(CoversError::Length { found: 0, .. })));
        assert!(Covers::in_order(&forest, vec![0; forest.n_nodes()]).is_err());
    }
}
