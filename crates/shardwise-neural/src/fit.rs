//! Fits a head: the earlier rows teach, the later ones tell when to stop and how far answers lie off; then all teach as long.
//!
//! That is how the head of trees is grown. The loss is the squared error of what the offset misses of ln exec_ms.

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::Device;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use shardwise_features::FEATURE_COUNT;
use shardwise_models::{Design, ExecModel, ExecRows, NeuralHead, NeuralInputs};

use crate::network::{Network, rows_of};
use crate::{FitError, FitOptions};

/// Smallest gain on later rows, relative to their mean squared error, that counts.
const LEAST_GAIN: f64 = 1e-4;
/// Smallest factor that rounding leaves above 0.
const MIN_SMEARING: f64 = 1e-6;

/// What was fitted.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// To be served.
    pub head: NeuralHead,
    /// The network that the head was made of.
    pub network: Network,
    /// What the network reads.
    pub inputs: NeuralInputs,
    /// Passes over the rows.
    pub epochs: usize,
    /// Root of the mean squared error on the later rows, before they taught too.
    pub late_rmse: f64,
}

/// Fits a head on rows; `progress` hears of each pass.
///
/// # Errors
/// When an option makes no sense, training leaves the numbers, or the rows have nothing to read.
pub fn fit(rows: &ExecRows, options: &FitOptions, progress: &mut dyn FnMut(&str)) -> Result<Fitted, FitError> {
    options.check()?;
    let early = usize::try_from(rows.early).unwrap_or(usize::MAX).min(rows.len());
    let (n_rows, labels) = (rows.len(), residuals(rows));
    let part = |from: usize, to: usize| Part {
        features: &rows.features[from * FEATURE_COUNT..to * FEATURE_COUNT],
        labels: &labels[from..to],
        weights: rows.weights.get(from..to).unwrap_or_default(),
    };
    let (teaching, late) = (part(0, early), part(early, n_rows));
    let stopped = train(&teaching, Some(&late), options, progress)?;
    let head = head_of(&stopped, rows, (1.0, 0.0))?;
    let mut said = vec![0.0; n_rows - early];
    head.predict_ln_ms_rows(late.features, &mut said);
    let missed: Vec<f64> = rows.ln_ms[early..].iter().zip(&said).map(|(came, said)| came - said).collect();
    let smearing = rounded(weighted_mean(&missed, late.weights, f64::exp)).max(MIN_SMEARING);
    let residual_sd = rounded(weighted_mean(&missed, late.weights, |missed| missed * missed).sqrt());
    progress(&format!("rmse {residual_sd:.4} on later rows; once more, {} passes on all rows", stopped.epochs));
    let whole = train(&part(0, n_rows), None, &FitOptions { patience: stopped.epochs, ..options.clone() }, progress)?;
    let head = head_of(&whole, rows, (smearing, residual_sd))?;
    let Trained { network, inputs, epochs } = whole;
    Ok(Fitted { head, network, inputs, epochs, late_rmse: residual_sd })
}

/// What the offset misses of each row.
fn residuals(rows: &ExecRows) -> Vec<f32> {
    let (feature, default) = rows.offset();
    let offset = |row: &[f32]| if row[feature].is_finite() { f64::from(row[feature]) } else { default };
    rows.rows().zip(&rows.ln_ms).map(|(row, ln_ms)| (ln_ms - offset(row)) as f32).collect()
}

fn head_of(trained: &Trained, rows: &ExecRows, (smearing, residual_sd): (f64, f64)) -> Result<NeuralHead, FitError> {
    let (inputs, layers) = (trained.inputs.clone(), trained.network.dense());
    Ok(NeuralHead::new(inputs, layers, rows.offset(), smearing, residual_sd)?)
}

fn weighted_mean(values: &[f64], weights: &[f32], of: impl Fn(f64) -> f64) -> f64 {
    let weight = |place: usize| weights.get(place).map_or(1.0, |weight| f64::from(*weight));
    let (sum, all) = values
        .iter()
        .enumerate()
        .fold((0.0, 0.0), |(sum, all), (place, value)| (sum + weight(place) * of(*value), all + weight(place)));
    sum / all
}

/// Rounds to six decimals, as figures of models are.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// Some rows in the order of time.
struct Part<'a> {
    features: &'a [f32],
    labels: &'a [f32],
    /// Empty when all count alike.
    weights: &'a [f32],
}

impl Part<'_> {
    fn columns(&self, inputs: &NeuralInputs) -> Vec<f32> {
        let mut columns = vec![0.0; self.labels.len() * inputs.width()];
        let rows = self.features.chunks_exact(FEATURE_COUNT);
        rows.zip(columns.chunks_exact_mut(inputs.width())).for_each(|(row, out)| inputs.write(row, out));
        columns
    }
}

/// A network after so many passes.
struct Trained {
    network: Network,
    inputs: NeuralInputs,
    epochs: usize,
}

/// Trains until later rows gain nothing more, and returns the network that was best on them; without later rows, exactly
/// `options.patience` passes.
fn train(
    part: &Part<'_>,
    late: Option<&Part<'_>>,
    options: &FitOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<Trained, FitError> {
    let inputs = NeuralInputs::from(&Design::fit(&part.features.chunks_exact(FEATURE_COUNT)));
    // What has nothing to read is refused before anything is trained.
    let width = inputs.width();
    if width == 0 {
        return Err(shardwise_models::NeuralProblem::Columns { columns: 0 }.into());
    }
    let columns = part.columns(&inputs);
    let late = late.map(|late| (late, late.columns(&inputs)));
    let device = Device::flex().autodiff();
    let mut steps = Steps::new(part, &columns, width, options, device.clone());
    let labels: Vec<f64> = part.labels.iter().copied().map(f64::from).collect();
    let at_first = weighted_mean(&labels, part.weights, |label| label) as f32;
    let mut network = Network::new(width, &vec![options.width; options.layers], at_first, options.seed, &device);
    let mut best: Option<(f64, Trained)> = None;
    let epochs = if late.is_some() { options.epochs } else { options.patience };
    for epoch in 1..=epochs {
        network = steps.pass(network);
        let served = network.valid();
        let Some((late, columns)) = &late else {
            best = Some((0.0, Trained { network: served, inputs: inputs.clone(), epochs: epoch }));
            continue;
        };
        let error = mean_squared_error(&served, columns, width, late);
        if !error.is_finite() {
            return Err(FitError::Diverged { epoch });
        }
        progress(&format!("pass {epoch}: rmse {:.4} on later rows", error.sqrt()));
        let so_far = best.as_ref().map_or(f64::INFINITY, |(error, _)| *error);
        if error < so_far * (1.0 - LEAST_GAIN) {
            best = Some((error, Trained { network: served, inputs: inputs.clone(), epochs: epoch }));
        } else if best.as_ref().is_some_and(|(_, best)| epoch >= best.epochs + options.patience) {
            break;
        }
    }
    Ok(best.expect("the first finite error is below infinity").1)
}

fn mean_squared_error(network: &Network, columns: &[f32], width: usize, part: &Part<'_>) -> f64 {
    let said = network.predict(columns, width);
    let missed: Vec<f64> = part.labels.iter().zip(said).map(|(label, said)| f64::from(label - said)).collect();
    weighted_mean(&missed, part.weights, |missed| missed * missed)
}

/// The steps of a training: AdamW (Loshchilov and Hutter, 2019) on rows in an order drawn for each pass.
struct Steps<'a> {
    part: &'a Part<'a>,
    columns: &'a [f32],
    width: usize,
    options: &'a FitOptions,
    device: Device,
    optimizer: burn::optim::ModuleOptimizer,
    rng: StdRng,
    order: Vec<usize>,
    taken: usize,
}

impl<'a> Steps<'a> {
    fn new(part: &'a Part<'a>, columns: &'a [f32], width: usize, options: &'a FitOptions, device: Device) -> Self {
        let optimizer = AdamWConfig::new().with_weight_decay(options.weight_decay).init();
        // Another stream than that of the first weights.
        let rng = StdRng::seed_from_u64(options.seed ^ 0x6f72_6465_7200);
        let order = (0..part.labels.len()).collect();
        Self { part, columns, width, options, device, optimizer, rng, order, taken: 0 }
    }

    fn pass(&mut self, mut network: Network) -> Network {
        let mut order = std::mem::take(&mut self.order);
        order.shuffle(&mut self.rng);
        for rows in order.chunks(self.options.batch) {
            network = self.step(network, rows);
        }
        self.order = order;
        network
    }

    fn step(&mut self, network: Network, rows: &[usize]) -> Network {
        let columns = rows.iter().flat_map(|row| &self.columns[row * self.width..][..self.width]).copied().collect();
        let labels = rows.iter().map(|row| self.part.labels[*row]).collect();
        let said = network.forward(rows_of(columns, self.width, &self.device));
        let mut squares = (said - rows_of(labels, 1, &self.device)).square();
        if !self.part.weights.is_empty() {
            let weights = rows.iter().map(|row| self.part.weights[*row]).collect();
            squares = squares * rows_of(weights, 1, &self.device);
        }
        let gradients = GradientsParams::from_grads(squares.mean().backward(), &network);
        let rate = self.learning_rate();
        self.taken += 1;
        self.optimizer.step(rate, network, gradients)
    }

    /// Half a cosine over as many steps as the most passes have, so that a training that is stopped and its repetition take
    /// the same.
    fn learning_rate(&self) -> f64 {
        let steps = self.options.epochs * self.part.labels.len().div_ceil(self.options.batch);
        let share = self.taken as f64 / steps as f64;
        self.options.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
    }
}
