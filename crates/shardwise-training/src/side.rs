//! Fits the side heads: the probabilities of a cold start and of a failure by logarithmic loss, and the time in a queue by squared error on
//! ln(1 + ms), which a few endless queues do not rule.

use shardwise_features::FEATURE_COUNT;
use shardwise_models::{SideDraft, SideHead, SideMetrics, SideTarget};

use crate::figures::{mean, rounded};
use crate::grow::{Examples, Loss, grow};
use crate::rows::{Rows, Unfit, choose_rows, early_of, known_feature, weights_of};
use crate::{TrainOptions, TrainingError};

/// Queues longer than this are all as bad, in ms.
pub(crate) const MAX_QUEUE_MS: f32 = 10_000.0;
/// How long the formula takes a function to be warm, in seconds; a runtime's usual time to live.
const FORMULA_WARM_S: f32 = 30.0;
/// The formula is wrong at times; it must not claim to be certain.
const FORMULA_CERTAINTY: f64 = 0.98;
/// Without a failure of late one in a thousand may still fail.
const FORMULA_CERTAINTY_OF_SUCCESS: f64 = 0.999;

/// Fits a side head on the training rows; as many trees as the later of them gain from.
///
/// # Errors
/// As [`crate::train_rows`].
pub(crate) fn fit_side_head(
    target: SideTarget,
    rows: &Rows,
    options: &TrainOptions,
) -> Result<SideDraft, TrainingError> {
    let samples = SideSamples::choose(target, rows, options.max_rows)?;
    let early = early_of(samples.train.labels.len());
    let loss = loss_of(target);
    let (_, trees) = grow(
        &samples.train.part(0..early),
        Some(&samples.train.part(early..usize::MAX)),
        loss,
        options.trees,
        options,
    )?;
    let (forest, _) = grow(&samples.train.part(0..usize::MAX), None, loss, trees, options)?;
    let head = SideHead::new(target, forest)?;
    let metrics = measure(&head, &samples);
    Ok(SideDraft { head, metrics })
}

pub(crate) fn loss_of(target: SideTarget) -> Loss {
    match target {
        SideTarget::Cold | SideTarget::Error => Loss::Logarithmic,
        SideTarget::Wait => Loss::Squared,
    }
}

/// Features of which more never means less of a target.
///
/// For waits the queue formula's own expectation. Constraining more costs accuracy: on simulated waits each of work in flight
/// and reported queues alone costs nothing or half a per cent, five of them together one, eight two and a half. They say the same
/// thing with different delays, and given the others more of one often means an older one. For cold starts none: longer since the last
/// dispatch is colder as a rule, but other routers keep functions warm, and a function that was pushed out may be back.
pub(crate) fn rising_of(target: SideTarget) -> &'static [&'static str] {
    match target {
        SideTarget::Wait => &["expected_wait_ms"],
        SideTarget::Cold | SideTarget::Error => &[],
    }
}

/// Rows with what to predict of them.
pub(crate) struct Labelled {
    pub(crate) features: Vec<f32>,
    pub(crate) labels: Vec<f64>,
    pub(crate) weights: Vec<f32>,
    /// Features of which more never means less.
    pub(crate) rising: &'static [&'static str],
}

impl Labelled {
    fn gather(target: SideTarget, rows: &Rows, chosen: &[usize]) -> Self {
        let label = |row: usize| match target {
            SideTarget::Cold => f64::from(u8::from(rows.cold[row])),
            SideTarget::Wait => f64::from(rows.queue_ms[row].clamp(0.0, MAX_QUEUE_MS)).ln_1p(),
            SideTarget::Error => f64::from(u8::from(!rows.ok[row])),
        };
        Self {
            features: rows.features_of(chosen),
            labels: chosen.iter().map(|row| label(*row)).collect(),
            weights: weights_of(&rows.weight, chosen),
            rising: rising_of(target),
        }
    }

    pub(crate) fn examples(&self) -> Examples<'_> {
        self.part(0..usize::MAX)
    }

    fn part(&self, places: std::ops::Range<usize>) -> Examples<'_> {
        let (from, to) = (places.start, places.end.min(self.labels.len()));
        let rows = &self.features[from * FEATURE_COUNT..to * FEATURE_COUNT];
        let weights = if self.weights.is_empty() { &[] } else { &self.weights[from..to] };
        Examples { rows, width: FEATURE_COUNT, labels: &self.labels[from..to], weights, rising: self.rising }
    }
}

/// The rows of a dataset that tell of cold starts or of queues: those that ran, and for queues those that were dropped in
/// one, without which the longest queues would be missing. All tell of failures.
pub(crate) struct SideSamples {
    pub(crate) train: Labelled,
    pub(crate) test: Labelled,
}

impl SideSamples {
    pub(crate) fn choose(target: SideTarget, rows: &Rows, max_rows: usize) -> Result<Self, TrainingError> {
        let tells = |row: usize| match target {
            SideTarget::Cold => rows.is_executed(row),
            SideTarget::Wait => rows.is_executed(row) || rows.queue_ms[row] > 0.0,
            SideTarget::Error => true,
        };
        let unfit = |row: usize| (!tells(row)).then_some(Unfit::NotExecuted);
        let (train, test) = choose_rows(rows, max_rows, unfit)?;
        Ok(Self { train: Labelled::gather(target, rows, &train), test: Labelled::gather(target, rows, &test) })
    }
}

fn measure(head: &SideHead, samples: &SideSamples) -> SideMetrics {
    let (test, target) = (&samples.test, head.target());
    let mut predicted = vec![0.0; test.labels.len()];
    head.predict_rows(&test.features, &mut predicted);
    if target == SideTarget::Wait {
        predicted.iter_mut().for_each(|ms| *ms = ms.ln_1p());
    }
    let formula: Vec<f64> = test.features.chunks_exact(FEATURE_COUNT).map(|row| by_formula(target, row)).collect();
    let loss = |predicted: &[f64]| {
        let losses: Vec<f64> = predicted.iter().zip(&test.labels).map(|(p, y)| loss_of(target).of(*p, *y)).collect();
        rounded(mean(&losses))
    };
    SideMetrics {
        train_rows: samples.train.labels.len() as u64,
        test_rows: test.labels.len() as u64,
        loss: loss(&predicted),
        formula_loss: loss(&formula),
        bias: rounded(mean(&predicted) / mean(&test.labels).max(f64::MIN_POSITIVE)),
    }
}

/// What a router without the head would assume of a row.
fn by_formula(target: SideTarget, row: &[f32]) -> f64 {
    match target {
        SideTarget::Cold => {
            let is_warm = row[known_feature("since_dispatch_s")] < FORMULA_WARM_S;
            if is_warm { 1.0 - FORMULA_CERTAINTY } else { FORMULA_CERTAINTY }
        }
        SideTarget::Wait => f64::from(row[known_feature("expected_wait_ms")]).max(0.0).ln_1p(),
        SideTarget::Error => {
            let counted = f64::from(row[known_feature("shard_error_rate")]);
            let counted = if counted.is_nan() { 0.0 } else { counted };
            counted.clamp(1.0 - FORMULA_CERTAINTY_OF_SUCCESS, FORMULA_CERTAINTY)
        }
    }
}
