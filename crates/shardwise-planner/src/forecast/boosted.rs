//! Boosted regression trees on lags, hour, volatility and market: what is added to the regression, which no line follows.
//!
//! Gradient boosting for absolute errors (Friedman, *Annals of Statistics* 29, 2001, algorithm 3): a tree is grown on the signs
//! of what the trees before it leave over, and each leaf adds a share of the median of what is left in it. Values are sorted
//! into bins once, so that a tree costs a pass over the rows for each level. Nothing is drawn at random.

use super::lags::{FEATURES as OF_LAGS, Lags, features as of_lags};
use super::methods::{Forecaster, Method};
use super::prepared::{Past, Prepared, Target};

const FEATURES: usize = OF_LAGS + 6;
/// Rows that a fit sees, evenly spread over the training part, and the fewest for a fit.
const MOST_ROWS: usize = 800;
const FEWEST_ROWS: usize = 120;
/// The last share of the rows says when to stop, and no tree learns from it.
const HELD_OUT: f64 = 0.25;
const BINS: usize = 16;
const DEPTH: u32 = 3;
const SPLITS: usize = (1 << DEPTH) - 1;
const FEWEST_IN_LEAF: usize = 12;
const MOST_TREES: usize = 60;
const SHRINKAGE: f64 = 0.12;
/// Trees without a smaller error on the held-out rows before it stops.
const PATIENCE: usize = 8;

type Row = [f64; FEATURES];

/// See [`Method::Boosted`]; trees for each target for which they help.
pub(super) struct Boosted {
    lags: Lags,
    fits: Vec<(Target, Vec<Tree>)>,
}

/// A complete binary tree: the children of a split are at twice its place and one or two more.
#[derive(Debug, Clone)]
struct Tree {
    /// What is above the value goes to the second child; all else, what is missing too, to the first.
    splits: [(usize, f64); SPLITS],
    leaves: [f64; SPLITS + 1],
}

impl Boosted {
    /// Fits all targets on the steps before `end`, on what the regression leaves over.
    pub(super) fn fit(train: &Prepared, end: usize, targets: &[Target], lags: Lags) -> Self {
        let fits = targets.iter().filter_map(|target| {
            let last = end.checked_sub(target.reach())?;
            let rows = (2..=last).step_by(last.div_ceil(MOST_ROWS).max(1)).filter_map(|step| {
                let past = train.until(step);
                let (row, said) = (features(&past, *target, lags.level)?, lags.forecast(&past, *target)?);
                Some((row, train.truth(step, *target)? - said))
            });
            let trees = boost(&rows.collect::<Vec<_>>());
            (!trees.is_empty()).then_some((*target, trees))
        });
        Self { fits: fits.collect(), lags }
    }
}

impl Forecaster for Boosted {
    fn method(&self) -> Method {
        Method::Boosted
    }

    fn forecast(&self, past: &Past<'_>, target: Target) -> Option<f64> {
        let said = self.lags.forecast(past, target)?;
        let Some((_, trees)) = self.fits.iter().find(|(known, _)| *known == target) else { return Some(said) };
        let row = features(past, target, self.lags.level)?;
        Some(said + trees.iter().map(|tree| tree.predict(&row)).sum::<f64>())
    }
}

/// Those of the regression, how much the series moved of late, and how much the market did.
fn features(past: &Past<'_>, target: Target, level: f64) -> Option<Row> {
    let last = past.last()?;
    let (lags, market) = (of_lags(past, target, level)?, &past.prepared.market[..]);
    let scatter = |steps: usize| {
        let mut moments = crate::Moments::default();
        let recent = &past.values[past.values.len().saturating_sub(steps)..];
        recent.iter().filter(|value| value.is_finite()).for_each(|value| moments.push(*value));
        moments.variance().map_or(f64::NAN, f64::sqrt)
    };
    let recent = || past.values[past.values.len().saturating_sub(15)..].iter().copied().filter(|it| it.is_finite());
    let market_at = |back: usize| past.values.len().checked_sub(back).and_then(|at| market.get(at)).copied();
    let risen = market_at(1).zip(market_at(6)).map_or(f64::NAN, |(now, before)| now - before);
    let more = [
        last,
        scatter(6),
        scatter(30),
        recent().fold(f64::NEG_INFINITY, f64::max) - last,
        recent().fold(f64::INFINITY, f64::min) - last,
        risen,
    ];
    Some(std::array::from_fn(|at| if at < OF_LAGS { lags[at] } else { more[at - OF_LAGS] }))
}

impl Tree {
    fn leaf(&self, is_above: impl Fn(usize, f64) -> bool) -> usize {
        let mut place = 0;
        for _ in 0..DEPTH {
            let (feature, value) = self.splits[place];
            place = 2 * place + 1 + usize::from(is_above(feature, value));
        }
        place - SPLITS
    }

    fn predict(&self, row: &Row) -> f64 {
        self.leaves[self.leaf(|feature, value| row[feature] > value)]
    }
}

/// Trees for rows in the order of time; none where not even the first makes held-out errors smaller.
fn boost(rows: &[(Row, f64)]) -> Vec<Tree> {
    let learned = (rows.len() as f64 * (1.0 - HELD_OUT)) as usize;
    if learned < FEWEST_ROWS {
        return vec![];
    }
    let edges: Vec<Vec<f64>> = (0..FEATURES).map(|feature| edges(&rows[..learned], feature)).collect();
    let bin = |row: &Row| -> [u8; FEATURES] {
        std::array::from_fn(|at| u8::try_from(edges[at].partition_point(|edge| row[at] > *edge)).unwrap_or(u8::MAX))
    };
    let bins: Vec<[u8; FEATURES]> = rows[..learned].iter().map(|(row, _)| bin(row)).collect();
    let mut left: Vec<f64> = rows.iter().map(|(_, y)| *y).collect();
    let error = |left: &[f64]| left[learned..].iter().map(|left| left.abs()).sum::<f64>();
    let (mut trees, mut best) = (vec![], (error(&left), 0));
    while trees.len() < MOST_TREES && trees.len() < best.1 + PATIENCE {
        let tree = grow(&bins, &left[..learned], &edges);
        rows.iter().zip(&mut left).for_each(|((row, _), left)| *left -= tree.predict(row));
        trees.push(tree);
        let now = error(&left);
        if now < best.0 {
            best = (now, trees.len());
        }
    }
    trees.truncate(best.1);
    trees
}

/// Values between the bins of a feature, rising, about as many rows in each.
fn edges(rows: &[(Row, f64)], feature: usize) -> Vec<f64> {
    let mut values: Vec<f64> = rows.iter().map(|(row, _)| row[feature]).filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let mut edges: Vec<f64> = (1..BINS).filter_map(|at| values.get(at * values.len() / BINS).copied()).collect();
    edges.dedup();
    edges
}

/// Signs that are above and below in a bin, as their sum, and how many.
type Sums = [(f64, usize); BINS];

fn grow(bins: &[[u8; FEATURES]], left: &[f64], edges: &[Vec<f64>]) -> Tree {
    let mut tree = Tree { splits: [(0, f64::INFINITY); SPLITS], leaves: [0.0; SPLITS + 1] };
    let mut at = vec![0_usize; bins.len()];
    for depth in 0..DEPTH {
        let (first, count) = ((1 << depth) - 1, 1 << depth);
        let mut sums: Vec<[Sums; FEATURES]> = vec![[[(0.0, 0); BINS]; FEATURES]; count];
        for ((row, left), at) in bins.iter().zip(left).zip(&at) {
            for (bin, sums) in row.iter().zip(&mut sums[at - first]) {
                let sum = &mut sums[usize::from(*bin)];
                // The sign of 0 would be 1.
                *sum = (sum.0 + if *left == 0.0 { 0.0 } else { left.signum() }, sum.1 + 1);
            }
        }
        let chosen: Vec<Option<(usize, usize)>> = sums.iter().map(best_split).collect();
        for (place, split) in chosen.iter().enumerate() {
            if let Some((feature, bin)) = split {
                tree.splits[first + place] = (*feature, edges[*feature][*bin]);
            }
        }
        for (row, at) in bins.iter().zip(&mut at) {
            let is_above = chosen[*at - first].is_some_and(|(feature, bin)| usize::from(row[feature]) > bin);
            *at = 2 * *at + 1 + usize::from(is_above);
        }
    }
    let mut in_leaf: Vec<Vec<f64>> = vec![vec![]; SPLITS + 1];
    left.iter().zip(&at).for_each(|(left, at)| in_leaf[at - SPLITS].push(*left));
    for (leaf, mut left) in tree.leaves.iter_mut().zip(in_leaf) {
        let middle = left.len() / 2;
        if !left.is_empty() {
            *leaf = SHRINKAGE * *left.select_nth_unstable_by(middle, f64::total_cmp).1;
        }
    }
    tree
}

/// The feature and the last bin of its first child that leave the smallest squares of signs; none where nothing is gained.
fn best_split(sums: &[Sums; FEATURES]) -> Option<(usize, usize)> {
    let whole = sums[0].iter().fold((0.0, 0), |sum, bin| (sum.0 + bin.0, sum.1 + bin.1));
    let score = |(sum, count): (f64, usize)| sum * sum / count.max(1) as f64;
    let mut best = (score(whole) + 1e-9, None);
    for (feature, bins) in sums.iter().enumerate() {
        let mut below = (0.0, 0);
        for (bin, sum) in bins[..BINS - 1].iter().enumerate() {
            below = (below.0 + sum.0, below.1 + sum.1);
            let above = (whole.0 - below.0, whole.1 - below.1);
            let gained = score(below) + score(above);
            if sum.1 > 0 && below.1.min(above.1) >= FEWEST_IN_LEAF && gained > best.0 {
                best = (gained, Some((feature, bin)));
            }
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(first: f64) -> Row {
        std::array::from_fn(|at| if at == 0 { first } else { f64::NAN })
    }

    #[test]
    fn a_step_that_no_line_follows_is_learned_and_outliers_are_not() {
        let rows: Vec<(Row, f64)> = (0..400_u32)
            .map(|at| {
                let x = f64::from(at * 7919 % 101) / 101.0;
                let outlier = if at % 23 == 0 { 50.0 } else { 0.0 };
                (row(x), if (0.3..0.6).contains(&x) { 1.0 } else { 0.0 } + outlier)
            })
            .collect();
        let trees = boost(&rows);
        let at = |x: f64| trees.iter().map(|tree| tree.predict(&row(x))).sum::<f64>();
        assert!((at(0.45) - 1.0).abs() < 0.1 && at(0.1).abs() < 0.1 && at(0.9).abs() < 0.1, "{} trees", trees.len());
    }

    #[test]
    fn of_noise_and_of_little_nothing_is_learned() {
        let noise = |count: u32| -> Vec<(Row, f64)> {
            (0..count).map(|at| (row(f64::from(at * 7919 % 101)), f64::from(at * 104_729 % 103) - 51.0)).collect()
        };
        assert!(boost(&noise(100)).is_empty());
        let trees = boost(&noise(600));
        let said = trees.iter().map(|tree| tree.predict(&row(50.0))).sum::<f64>();
        assert!(said.abs() < 10.0, "{said} of at most 51");
    }
}
