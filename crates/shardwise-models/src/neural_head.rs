//! The neural execution head: a multilayer perceptron on standardised columns, which adds to what history expects.
//!
//! It predicts what the execution head of trees predicts, the mean of ln warm exec_ms. Left out: training, and its form as
//! ONNX.

use shardwise_features::{FEATURE_COUNT, FEATURES};

use crate::design::{Column, Design, MAX_DEVIATION, Source};
use crate::exec_head::check_numbers;
use crate::{ExecModel, HeadProblem};

/// Most columns or units of a layer: answers take no memory but the stack.
pub const MAX_UNITS: usize = 512;

/// A layer of units, each a weighted sum of all inputs and a bias.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    /// Inputs times units; the weights of one input lie together.
    pub weights: Vec<f32>,
    /// One for each unit.
    pub biases: Vec<f32>,
}

/// Says why the parts do not make a neural head.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NeuralProblem {
    /// A layer does not fit onto the one before it.
    #[error(
        "layer {layer} has {weights} weights and {biases} biases after {inputs} inputs: it needs inputs times biases weights, and 1 to {MAX_UNITS} biases, the last layer 1"
    )]
    Layer {
        /// Its number, from 0.
        layer: usize,
        /// Inputs that come to it.
        inputs: usize,
        /// Its weights.
        weights: usize,
        /// Its biases.
        biases: usize,
    },
    /// There is nothing to read.
    #[error("it reads {columns} columns, not 1 to {MAX_UNITS}: train it on rows whose features vary")]
    Columns {
        /// Their number.
        columns: usize,
    },
    /// A weight, bias, mean or standard deviation cannot be worked with.
    #[error("a {what} is {value}: it must be finite, and a standard deviation above 0")]
    Number {
        /// What it is.
        what: &'static str,
        /// Its value.
        value: f32,
    },
    /// What it shares with the head of trees is wrong.
    #[error(transparent)]
    Head(#[from] HeadProblem),
}

/// A column in the precision in which it is served.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SingleColumn {
    pub(crate) source: Source,
    pub(crate) mean: f32,
    pub(crate) sd: f32,
}

/// The columns that a neural head reads, in 32-bit floats, as ONNX Runtime computes them.
#[derive(Debug, Clone, PartialEq)]
pub struct NeuralInputs {
    pub(crate) columns: Vec<SingleColumn>,
}

impl From<&Design> for NeuralInputs {
    fn from(design: &Design) -> Self {
        let single = |column: &Column| {
            let (mean, sd) = (column.mean as f32, column.sd as f32);
            SingleColumn { source: column.source, mean, sd }
        };
        Self { columns: design.columns().iter().map(single).collect() }
    }
}

impl NeuralInputs {
    /// Number of columns.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Computes the columns of one feature vector into the first [`Self::width`] places of `out`.
    ///
    /// # Panics
    /// If `row` is shorter than a feature vector or `out` than the columns.
    pub fn write(&self, row: &[f32], out: &mut [f32]) {
        for (column, out) in self.columns.iter().zip(&mut out[..self.columns.len()]) {
            *out = column.value(row);
        }
    }
}

impl SingleColumn {
    fn value(&self, row: &[f32]) -> f32 {
        let value = match self.source {
            Source::Value(feature) if row[feature].is_finite() => row[feature],
            Source::Value(_) => self.mean,
            Source::Missing(feature) => f32::from(u8::from(!row[feature].is_finite())),
        };
        ((value - self.mean) / self.sd).clamp(-MAX_DEVIATION as f32, MAX_DEVIATION as f32)
    }
}

/// A multilayer perceptron with rectified units that predicts ln exec_ms of a request on a candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct NeuralHead {
    pub(crate) inputs: NeuralInputs,
    pub(crate) layers: Vec<Dense>,
    pub(crate) offset_feature: usize,
    pub(crate) offset_default_ln_ms: f32,
    smearing: f64,
    residual_sd: f64,
}

impl NeuralHead {
    /// Checks the parts and joins them. The offset feature is given by its position; it is what the last layer, which is not
    /// rectified, adds to, with `offset_default_ln_ms` where it is not known.
    ///
    /// # Errors
    /// Says which part cannot be served.
    pub fn new(
        inputs: NeuralInputs,
        layers: Vec<Dense>,
        offset: (usize, f64),
        smearing: f64,
        residual_sd: f64,
    ) -> Result<Self, NeuralProblem> {
        check_inputs(&inputs)?;
        check_layers(inputs.width(), &layers)?;
        let (offset_feature, offset_default_ln_ms) = offset;
        check_numbers(offset, smearing, residual_sd)?;
        let offset_default_ln_ms = offset_default_ln_ms as f32;
        Ok(Self { inputs, layers, offset_feature, offset_default_ln_ms, smearing, residual_sd })
    }

    /// Factor from the exponential of a prediction to the mean execution time.
    pub fn smearing(&self) -> f64 {
        self.smearing
    }

    /// Standard deviation of ln exec_ms around a prediction.
    pub fn residual_sd(&self) -> f64 {
        self.residual_sd
    }

    /// The same layers with other figures of their errors.
    ///
    /// # Errors
    /// When a figure is not one that can be served.
    pub fn with_errors(self, smearing: f64, residual_sd: f64) -> Result<Self, NeuralProblem> {
        check_numbers((self.offset_feature, f64::from(self.offset_default_ln_ms)), smearing, residual_sd)?;
        Ok(Self { smearing, residual_sd, ..self })
    }

    /// Units of each hidden layer.
    pub fn hidden(&self) -> Vec<usize> {
        self.layers[..self.layers.len() - 1].iter().map(|layer| layer.biases.len()).collect()
    }

    /// Mean of ln warm execution ms for this row. Allocates nothing.
    ///
    /// # Panics
    /// If `row` is shorter than a feature vector.
    pub fn predict_ln_ms(&self, row: &[f32]) -> f64 {
        let known = row[self.offset_feature];
        let offset = if known.is_finite() { known } else { self.offset_default_ln_ms };
        f64::from(offset + self.added(row))
    }

    /// What the layers add to the offset.
    fn added(&self, row: &[f32]) -> f32 {
        let (mut from, mut to) = ([0.0; MAX_UNITS], [0.0; MAX_UNITS]);
        self.inputs.write(row, &mut from);
        let mut n_inputs = self.inputs.width();
        for (number, layer) in self.layers.iter().enumerate() {
            let units = &mut to[..layer.biases.len()];
            layer.sum(&from[..n_inputs], units);
            if number + 1 < self.layers.len() {
                units.iter_mut().for_each(|unit| *unit = unit.max(0.0));
            }
            n_inputs = units.len();
            std::mem::swap(&mut from, &mut to);
        }
        from[0]
    }
}

impl Dense {
    /// Input by input, so that the sums of all units grow side by side in the registers of the processor.
    fn sum(&self, inputs: &[f32], units: &mut [f32]) {
        units.copy_from_slice(&self.biases);
        for (input, weights) in inputs.iter().zip(self.weights.chunks_exact(units.len())) {
            // Behind rectified units half of the inputs are nothing.
            if *input != 0.0 {
                for (unit, weight) in units.iter_mut().zip(weights) {
                    *unit += input * weight;
                }
            }
        }
    }
}

impl ExecModel for NeuralHead {
    fn predict_ln_ms_rows(&self, rows: &[f32], out: &mut [f64]) {
        for (row, out) in rows.chunks_exact(FEATURE_COUNT).zip(out) {
            *out = self.predict_ln_ms(row);
        }
    }
}

fn check_inputs(inputs: &NeuralInputs) -> Result<(), NeuralProblem> {
    if !(1..=MAX_UNITS).contains(&inputs.width()) {
        return Err(NeuralProblem::Columns { columns: inputs.width() });
    }
    for column in &inputs.columns {
        let (Source::Value(feature) | Source::Missing(feature)) = column.source;
        if feature >= FEATURES.len() {
            return Err(HeadProblem::NoSuchFeature { name: format!("number {feature}") }.into());
        }
        if !column.mean.is_finite() {
            return Err(NeuralProblem::Number { what: "mean", value: column.mean });
        }
        if !(column.sd.is_finite() && column.sd > 0.0) {
            return Err(NeuralProblem::Number { what: "standard deviation", value: column.sd });
        }
    }
    Ok(())
}

fn check_layers(width: usize, layers: &[Dense]) -> Result<(), NeuralProblem> {
    let mut inputs = width;
    for (number, layer) in layers.iter().enumerate() {
        let (weights, biases) = (layer.weights.len(), layer.biases.len());
        let most = if number + 1 == layers.len() { 1 } else { MAX_UNITS };
        if !(1..=most).contains(&biases) || weights != inputs * biases {
            return Err(NeuralProblem::Layer { layer: number, inputs, weights, biases });
        }
        for (what, values) in [("weight", &layer.weights), ("bias", &layer.biases)] {
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(NeuralProblem::Number { what, value: *value });
            }
        }
        inputs = biases;
    }
    match layers.is_empty() {
        true => Err(NeuralProblem::Layer { layer: 0, inputs, weights: 0, biases: 0 }),
        false => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use shardwise_features::position;

    use super::*;

    /// Numbers between -1 and 1 that look like chance.
    fn number(i: usize) -> f32 {
        ((i * 7919 + 13) % 2003) as f32 / 1001.5 - 1.0
    }

    fn rows() -> Vec<f32> {
        let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0, -0.0];
        let value = |i: usize| if i.is_multiple_of(5) { special[i / 5 % special.len()] } else { 3.0 * number(i) };
        (0..40 * FEATURE_COUNT).map(value).collect()
    }

    pub(crate) fn head(hidden: &[usize]) -> NeuralHead {
        let inputs = NeuralInputs::from(&Design::fit(&rows().chunks_exact(FEATURE_COUNT)));
        let mut width = inputs.width();
        let mut layer = |units: &usize| {
            let weights = (0..width * units).map(|i| number(i + width) / (width as f32).sqrt()).collect();
            width = *units;
            Dense { weights, biases: (0..*units).map(number).collect() }
        };
        let layers = hidden.iter().chain(&[1]).map(&mut layer).collect();
        NeuralHead::new(inputs, layers, (offset_feature(), 3.25), 1.125, 0.5).expect("sound parts")
    }

    fn offset_feature() -> usize {
        position("prior_service_ln_ms").expect("the feature exists")
    }

    /// The textbook's forward pass in 64-bit floats.
    fn textbook(head: &NeuralHead, row: &[f32]) -> f64 {
        let mut values: Vec<f64> = head.inputs.columns.iter().map(|column| f64::from(column.value(row))).collect();
        for (number, layer) in head.layers.iter().enumerate() {
            let n_units = layer.biases.len();
            let sum = |unit: usize| {
                let products = values.iter().enumerate();
                let sum: f64 = products.map(|(i, value)| value * f64::from(layer.weights[i * n_units + unit])).sum();
                sum + f64::from(layer.biases[unit])
            };
            let rectified = |sum: f64| if number + 1 < head.layers.len() { sum.max(0.0) } else { sum };
            values = (0..n_units).map(|unit| rectified(sum(unit))).collect();
        }
        let known = row[head.offset_feature];
        values[0] + f64::from(if known.is_finite() { known } else { head.offset_default_ln_ms })
    }

    #[test]
    fn answers_are_those_of_the_textbook_whatever_is_missing() {
        for hidden in [&[][..], &[7], &[64, 64]] {
            let (head, rows) = (head(hidden), rows());
            let mut answers = vec![0.0; 40];
            head.predict_ln_ms_rows(&rows, &mut answers);
            let mut distinct = std::collections::BTreeSet::new();
            for (row, answer) in rows.chunks_exact(FEATURE_COUNT).zip(&answers) {
                // The largest floats as an offset have no room for anything to be added.
                if row[head.offset_feature].abs() < 1e6 || !row[head.offset_feature].is_finite() {
                    assert!((answer - textbook(&head, row)).abs() < 1e-4, "{answer}");
                    distinct.insert(answer.to_bits());
                }
            }
            assert!(distinct.len() > 20, "rows differ: {}", distinct.len());
        }
    }

    #[test]
    fn parts_that_cannot_be_served_are_refused() {
        let sound = head(&[4]);
        let refusal = |change: &dyn Fn(&mut NeuralInputs, &mut Vec<Dense>)| {
            let NeuralHead { mut inputs, mut layers, .. } = sound.clone();
            change(&mut inputs, &mut layers);
            NeuralHead::new(inputs, layers, (0, 1.0), 1.0, 0.1).expect_err("a refusal").to_string()
        };
        assert!(refusal(&|_, layers| layers.clear()).contains("layer 0 has 0 weights"));
        assert!(refusal(&|_, layers| _ = layers.pop()).contains("the last layer 1"));
        assert!(refusal(&|_, layers| layers[0].biases.push(0.0)).contains("layer 0"));
        assert!(refusal(&|_, layers| layers[1].weights[2] = f32::NAN).contains("a weight is NaN"));
        assert!(refusal(&|_, layers| layers[0].biases[0] = f32::INFINITY).contains("a bias is inf"));
        assert!(refusal(&|inputs, _| inputs.columns.clear()).contains("reads 0 columns"));
        assert!(refusal(&|inputs, _| inputs.columns[0].sd = 0.0).contains("standard deviation is 0"));
        assert!(refusal(&|inputs, _| inputs.columns[0].mean = f32::NAN).contains("a mean is NaN"));
        let missing = Source::Missing(FEATURE_COUNT);
        assert!(refusal(&|inputs, _| inputs.columns[0].source = missing).contains("no feature"));
        assert!(sound.clone().with_errors(0.0, 0.1).is_err_and(|error| error.to_string().contains("smearing")));
    }
}
