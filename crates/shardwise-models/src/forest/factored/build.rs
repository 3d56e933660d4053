//! What a [`Factored`] is made of: forests, tree by tree.

use super::{BANK, Column, Factored, GROUP, Group, HALF, MAX_LEAVES, OwnTests, STEP, SharedTests, Step};
use crate::forest::Forest;
use crate::forest::layout::FlatTree;

/// A row passes if its reading is at most the threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
struct SharedTest {
    threshold: f32,
    column: usize,
    /// The leaves that a row may still reach when it fails.
    left: u64,
}

/// The same for the leaves of one half.
#[derive(Debug, Clone, Copy, PartialEq)]
struct OwnTest {
    threshold: f32,
    left: u32,
    column: u8,
}

impl Factored {
    /// Joins forests whose rows share their first `n_shared` values; `None` when a tree has more than [`MAX_LEAVES`] leaves,
    /// when the forests read rows of different widths, or when they read the other values in more than 256 ways.
    pub fn new(forests: &[&Forest], n_shared: usize) -> Option<Self> {
        let n_features = forests.first()?.n_features;
        if forests.iter().any(|forest| forest.n_features != n_features) {
            return None;
        }
        let mut parts = Parts { n_shared, ..Parts::default() };
        let mut ends = Vec::with_capacity(forests.len());
        for forest in forests {
            for tree in &forest.trees {
                parts.add(forest, tree)?;
            }
            ends.push(parts.trees.len());
        }
        parts.join(n_features, ends)
    }
}

/// Forests while trees are added.
#[derive(Default)]
struct Parts {
    n_shared: usize,
    leaves: Vec<f64>,
    shared_columns: Vec<Column>,
    own_columns: Vec<Column>,
    trees: Vec<TreeTests>,
}

/// One tree of them.
#[derive(Default)]
struct TreeTests {
    first_leaf: u32,
    /// All leaves.
    whole: u64,
    /// Leaves that no row reaches, because a test before them lets none pass.
    unreached: u64,
    shared: Vec<SharedTest>,
    own: [Vec<OwnTest>; 2],
}

impl Parts {
    /// `None` when a word cannot hold the tree's leaves.
    fn add(&mut self, forest: &Forest, tree: &FlatTree) -> Option<()> {
        let first_leaf = u32::try_from(self.leaves.len()).ok()?;
        let mut tests = TreeTests { first_leaf, ..TreeTests::default() };
        tests.whole = self.add_node(forest, tree, 0, &mut tests)?;
        self.trees.push(tests);
        Some(())
    }

    fn join(self, n_features: usize, ends: Vec<usize>) -> Option<Factored> {
        let Self { mut leaves, shared_columns, own_columns, trees, .. } = self;
        leaves.extend([0.0; MAX_LEAVES]);
        let mut first_leaves = Vec::with_capacity(trees.len());
        let mut whole = Vec::with_capacity(trees.len());
        let mut shared = SharedTests { columns: shared_columns, ..SharedTests::default() };
        let mut own = OwnTests { columns: own_columns, ..OwnTests::default() };
        for tests in trees {
            first_leaves.push(tests.first_leaf);
            whole.push(tests.whole & !tests.unreached);
            shared.add_tree(tests.shared)?;
            own.add_tree(tests.own)?;
        }
        Some(Factored { n_features, ends, leaves, first_leaves, whole, shared, own })
    }

    /// Adds what is at and below a node; returns its leaves.
    fn add_node(&mut self, forest: &Forest, tree: &FlatTree, place: usize, tests: &mut TreeTests) -> Option<u64> {
        let node = forest.nodes[tree.range()][place];
        if node.is_leaf(place) {
            let bit = 1_u64.checked_shl(u32::try_from(self.leaves.len()).ok()? - tests.first_leaf)?;
            self.leaves.push(forest.values[tree.start + place]);
            return Some(bit);
        }
        let passed = self.add_node(forest, tree, node.first_child(), tests)?;
        let failed = self.add_node(forest, tree, node.first_child() + 1, tests)?;
        let column = Column { feature: node.feature(), reading: node.reading() };
        match node.compared_with() {
            threshold if threshold.is_nan() => tests.unreached |= passed,
            threshold if usize::from(column.feature) < self.n_shared => {
                let column = place_of(column, &mut self.shared_columns);
                tests.shared.push(SharedTest { threshold, column, left: !passed });
            }
            threshold => {
                let column = place_of(column, &mut self.own_columns).try_into().ok()?;
                for (half, tests) in tests.own.iter_mut().enumerate() {
                    let left = !((passed >> (half * HALF)) as u32);
                    if left != u32::MAX {
                        tests.push(OwnTest { threshold, left, column });
                    }
                }
            }
        }
        Some(passed | failed)
    }
}

/// Where a column is among those known, which it joins if it is new.
fn place_of(column: Column, known: &mut Vec<Column>) -> usize {
    known.iter().position(|one| *one == column).unwrap_or_else(|| {
        known.push(column);
        known.len() - 1
    })
}

impl Step {
    fn new(tests: &[OwnTest]) -> Self {
        let mut step = Self { thresholds: [0.0; STEP], left: [u32::MAX; STEP], columns: [0; STEP] };
        for (place, test) in tests.iter().enumerate() {
            step.thresholds[place] = test.threshold;
            step.left[place] = test.left;
            step.columns[place] = test.column;
        }
        step
    }
}

impl SharedTests {
    /// Adds the tests of the next tree.
    fn add_tree(&mut self, mut tests: Vec<SharedTest>) -> Option<()> {
        let bank = |test: &SharedTest| test.column / BANK;
        tests.sort_by_key(bank);
        for of_bank in tests.chunk_by(|a, b| bank(a) == bank(b)) {
            for tests in of_bank.chunks(GROUP) {
                let mut group = Group {
                    left: [u64::MAX; GROUP],
                    thresholds: [0.0; GROUP],
                    columns: [0; GROUP],
                    bank: bank(&tests[0]) as u32,
                };
                for (place, test) in tests.iter().enumerate() {
                    group.left[place] = test.left;
                    group.thresholds[place] = test.threshold;
                    group.columns[place] = (test.column % BANK) as u8;
                }
                self.groups.push(group);
            }
        }
        self.ends.push(u32::try_from(self.groups.len()).ok()?);
        Some(())
    }
}

impl OwnTests {
    /// Adds the tests of the next tree.
    fn add_tree(&mut self, halves: [Vec<OwnTest>; 2]) -> Option<()> {
        let mut ends = [0; 2];
        for (tests, end) in halves.into_iter().zip(&mut ends) {
            self.steps.extend(tests.chunks(STEP).map(Step::new));
            *end = u32::try_from(self.steps.len()).ok()?;
        }
        self.ends.push(ends);
        Some(())
    }
}
