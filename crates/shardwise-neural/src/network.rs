//! The network as `burn` trains it, and its weights as they are served.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shardwise_models::Dense;

/// Rows that are asked at a time.
const ROWS_AT_A_TIME: usize = 8192;

/// Rectified layers and one linear unit behind them.
#[derive(Module, Debug)]
pub struct Network {
    layers: Vec<Linear>,
}

impl Network {
    /// A network whose first weights are drawn as He et al. (2015) do for rectified units: uniformly, with a variance of two over
    /// the number of inputs; the last layer's of one. Biases are 0, the last one is what the network is to say of all at first.
    pub(crate) fn new(inputs: usize, hidden: &[usize], at_first: f32, seed: u64, device: &Device) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut n_inputs = inputs;
        let mut layer = |units: usize, variance: f32, bias: f32| {
            let bound = (3.0 * variance / n_inputs as f32).sqrt();
            let weights: Vec<f32> = (0..n_inputs * units).map(|_| rng.random_range(-bound..bound)).collect();
            let weight = Param::from_data(TensorData::new(weights, [n_inputs, units]), device);
            let bias = Some(Param::from_data(TensorData::new(vec![bias; units], [units]), device));
            n_inputs = units;
            Linear { weight, bias }
        };
        let mut layers: Vec<Linear> = hidden.iter().map(|units| layer(*units, 2.0, 0.0)).collect();
        layers.push(layer(1, 1.0, at_first));
        Self { layers }
    }

    /// From standardised columns `[N, columns]` to what they add to the offset, `[N, 1]`.
    pub(crate) fn forward(&self, columns: Tensor<2>) -> Tensor<2> {
        let last = self.layers.len() - 1;
        let rectified = self.layers[..last].iter().fold(columns, |from, layer| relu(layer.forward(from)));
        self.layers[last].forward(rectified)
    }

    /// What rows of standardised columns, one after the other, add to the offset. The network must not be one in training.
    pub fn predict(&self, columns: &[f32], width: usize) -> Vec<f32> {
        let rows = |columns: &[f32]| rows_of(columns.to_vec(), width, &Device::flex());
        columns.chunks(ROWS_AT_A_TIME * width).flat_map(|part| values(self.forward(rows(part)))).collect()
    }

    /// The layers as they are served.
    pub(crate) fn dense(&self) -> Vec<Dense> {
        let dense = |layer: &Linear| Dense {
            weights: values(layer.weight.val()),
            biases: layer.bias.as_ref().map(|bias| values(bias.val())).expect("every layer was made with biases"),
        };
        self.layers.iter().map(dense).collect()
    }
}

/// Values as rows of this width.
pub(crate) fn rows_of(values: Vec<f32>, width: usize, device: &Device) -> Tensor<2> {
    let n_rows = values.len() / width;
    Tensor::from_data(TensorData::new(values, [n_rows, width]), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("all tensors here hold 32-bit floats")
}
