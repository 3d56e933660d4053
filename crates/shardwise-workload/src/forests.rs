//! Bundles with heads of the size of real ones: random trees that split where rows of features really lie.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shardwise_features::{FEATURE_COUNT, ServiceTable};
use shardwise_models::forest::{Forest, Missing, TreeNode};
use shardwise_models::{
    BundleDraft, ExecDraft, ExecHead, QuantileDraft, QuantileFigures, QuantileHead, QuantileMetrics, SideDraft,
    SideHead, SideMetrics, SideTarget,
};

const TREES: usize = 100;
const LEAVES: usize = 31;
/// Of the heads that are kept small.
const SMALL: [usize; 2] = [30, 8];

/// One row of features.
pub type Row = [f32; FEATURE_COUNT];

/// The example bundle with three heads of 100 trees of 31 leaves, heads of failures and quantiles of 30 trees of 8, and this
/// service table.
pub fn draft(rows: &[Row], service_table: ServiceTable) -> BundleDraft {
    let example = BundleDraft::example();
    let exec = example.exec.as_ref().expect("the example has an execution head");
    let (place, default) = (exec.head.offset_feature(), exec.head.offset_default_ln_ms());
    // Sums of a hundred leaves: some per cent of the execution time, a few per cent of cold starts, a ms of waiting.
    let head = ExecHead::new(forest(rows, 1, 0.0, [TREES, LEAVES]), place, default, 1.02, 0.3).expect("sound numbers");
    BundleDraft {
        exec: Some(ExecDraft { head, metrics: exec.metrics }),
        cold: Some(side(SideTarget::Cold, forest(rows, 2, -0.03, [TREES, LEAVES]))),
        wait: Some(side(SideTarget::Wait, forest(rows, 3, 0.008, [TREES, LEAVES]))),
        // One failure in four hundred; tenths above and below what a formula says.
        error: Some(side(SideTarget::Error, forest(rows, 4, -0.2, SMALL))),
        quantiles: Some(quantiles([forest(rows, 5, -0.002, SMALL), forest(rows, 6, 0.01, SMALL)])),
        service_table,
        ..example
    }
}

fn side(target: SideTarget, forest: Forest) -> SideDraft {
    let metrics = SideMetrics { train_rows: 0, test_rows: 0, loss: 0.1, formula_loss: 0.1, bias: 1.0 };
    SideDraft { head: SideHead::new(target, forest).expect("a forest on the features"), metrics }
}

fn quantiles(forests: [Forest; 2]) -> QuantileDraft {
    let figures = |coverage| QuantileFigures { loss: 0.1, formula_loss: 0.1, coverage };
    let metrics = QuantileMetrics { train_rows: 0, test_rows: 0, q50: figures(0.5), q90: figures(0.9) };
    QuantileDraft { head: QuantileHead::new(forests).expect("forests on the features"), metrics }
}

fn forest(rows: &[Row], seed: u64, leaf_mean: f64, [trees, leaves]: [usize; 2]) -> Forest {
    let mut rng = StdRng::seed_from_u64(seed);
    let trees: Vec<_> = (0..trees).map(|_| tree(rows, &mut rng, leaf_mean, leaves)).collect();
    Forest::new(FEATURE_COUNT, &trees).expect("sound trees")
}

/// Splits a leaf drawn at random until there are enough, as trees grown leaf by leaf come out.
fn tree(rows: &[Row], rng: &mut StdRng, leaf_mean: f64, most: usize) -> Vec<TreeNode> {
    let leaf = |rng: &mut StdRng| TreeNode::Leaf(leaf_mean + rng.random_range(-0.01..0.01));
    let mut nodes = vec![leaf(rng)];
    let mut leaves = vec![0];
    while leaves.len() < most {
        let parent: usize = leaves.swap_remove(rng.random_range(0..leaves.len()));
        let children = [nodes.len(), nodes.len() + 1];
        nodes.extend([leaf(rng), leaf(rng)]);
        nodes[parent] = split(rows, rng, children.map(|child| u32::try_from(child).expect("a small tree")));
        leaves.extend(children);
    }
    nodes
}

fn split(rows: &[Row], rng: &mut StdRng, [left, right]: [u32; 2]) -> TreeNode {
    let feature = rng.random_range(0..FEATURE_COUNT);
    let value = rows[rng.random_range(0..rows.len())][feature];
    let threshold = if value.is_nan() { 0.0 } else { value };
    TreeNode::Split {
        feature: u32::try_from(feature).expect("few features"),
        threshold,
        missing: Missing::NanLeft,
        left,
        right,
    }
}
