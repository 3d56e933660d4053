//! How good parameters are: losses of all heads on blocks of later training rows.

use shardwise_models::SideTarget;
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::exec::Offset;
use crate::figures::{mean, weighted_mean};
use crate::grow::{Examples, Loss, grow};
use crate::rows::{ExecSamples, Rows, early_of};
use crate::side::{Labelled, SideSamples, loss_of};
use crate::{TrainOptions, TrainingError};

/// Most training rows that a trial looks at, evenly thinned over time.
const MAX_ROWS: usize = 60_000;
/// The training rows in so many parts of time; each of the last `WINDOWS` is judged by what was learned before it.
const PARTS: usize = 6;
const WINDOWS: usize = 3;
/// Blocks of a window, which are compared one by one.
const BLOCKS: usize = 4;

/// What trials are judged on; no test row is in it.
pub(super) struct Course {
    heads: Vec<(Loss, Labelled)>,
}

impl Course {
    pub(super) fn new(rows: &Rows, options: &TrainOptions) -> Result<Self, TrainingError> {
        let max_rows = options.max_rows.min(MAX_ROWS);
        let train = ExecSamples::choose(rows, max_rows)?.train;
        let mut heads = vec![(Loss::Squared, Offset::of(&train).labelled(train))];
        for target in [SideTarget::Cold, SideTarget::Wait] {
            heads.push((loss_of(target), SideSamples::choose(target, rows, max_rows)?.train));
        }
        Ok(Self { heads })
    }

    /// Losses by head and block.
    pub(super) fn losses(&self, options: &TrainOptions) -> Result<Vec<Vec<f64>>, TrainingError> {
        self.heads.iter().map(|(loss, labelled)| losses_of(*loss, &labelled.examples(), options)).collect()
    }
}

/// Losses on the blocks of the last windows. A window is judged by trees that were grown, and stopped, on rows before it.
fn losses_of(loss: Loss, all: &Examples<'_>, options: &TrainOptions) -> Result<Vec<f64>, TrainingError> {
    let mut losses = Vec::with_capacity(WINDOWS * BLOCKS);
    for window in PARTS - WINDOWS..PARTS {
        let [from, to] = [window, window + 1].map(|part| part * all.labels.len() / PARTS);
        let (known, _) = all.split_at(from);
        let (early, late) = known.split_at(early_of(from));
        let (forest, _) = grow(&early, Some(&late), loss, options.trees, options)?;
        let (upto, _) = all.split_at(to);
        let (_, judged) = upto.split_at(from);
        let mut sums = vec![0.0; judged.labels.len()];
        forest.predict_rows(judged.rows, judged.width, &mut sums);
        let each: Vec<f64> = sums.iter().zip(judged.labels).map(|(sum, label)| loss.of_sum(*sum, *label)).collect();
        for block in 0..BLOCKS {
            let [from, to] = [block, block + 1].map(|block| block * each.len() / BLOCKS);
            let weights = if judged.weights.is_empty() { &[] } else { &judged.weights[from..to] };
            losses.push(weighted_mean(&each[from..to], weights));
        }
    }
    Ok(losses)
}

/// Loss on each block over another trial's there, mean over heads.
pub(super) fn relative(losses: &[Vec<f64>], to: &[Vec<f64>]) -> Vec<f64> {
    let blocks = losses.first().map_or(0, Vec::len);
    // A head that errs nowhere in a block has nothing to gain there.
    let ratio = |loss: f64, to: f64| if to > 0.0 { loss / to } else { 1.0 + loss };
    let of_block = |block: usize| {
        let ratios: Vec<f64> = losses.iter().zip(to).map(|(losses, to)| ratio(losses[block], to[block])).collect();
        mean(&ratios)
    };
    (0..blocks).map(of_block).collect()
}

/// Whether a mean of 1 or more is unlikely to give such values: a one-sided t-test at this level.
pub(super) fn is_below_one(blocks: &[f64], level: f64) -> bool {
    let n = blocks.len() as f64;
    let centre = mean(blocks);
    let variance = blocks.iter().map(|block| (block - centre).powi(2)).sum::<f64>() / (n - 1.0);
    let Ok(distribution) = StudentsT::new(0.0, 1.0, n - 1.0) else { return false };
    let margin = distribution.inverse_cdf(1.0 - level) * (variance / n).sqrt();
    // What differs by rounding alone is the same.
    centre + margin < 1.0 - 1e-9
}
