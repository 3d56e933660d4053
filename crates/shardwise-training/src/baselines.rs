//! The rivals of the execution head, on the same rows and, where they learn, with the same offset: the service table alone,
//! an elastic net and a random forest. They are measured, never served.

use linfa::Dataset;
use linfa::traits::{Fit, Predict};
use linfa_elasticnet::ElasticNet;
use ndarray::{Array1, Array2, ShapeBuilder};
use shardwise_models::Design;
use smartcore::ensemble::random_forest_regressor::{RandomForestRegressor, RandomForestRegressorParameters};
use smartcore::linalg::basic::matrix::DenseMatrix;

use crate::TrainingError;
use crate::exec::Offset;
use crate::figures::{mean, rmse};
use crate::rows::{Samples, known_feature};

/// Rows that the elastic net learns from: more change nothing that can be measured.
const ELASTIC_NET_ROWS: usize = 20_000;
const ELASTIC_NET_SWEEPS: u32 = 300;
/// Penalties that the elastic net may choose from.
const PENALTIES: [f64; 3] = [0.03, 0.003, 0.0003];
/// Rows that the random forest learns from: its time grows faster than they do.
const FOREST_ROWS: usize = 20_000;
const FOREST_TREES: usize = 50;
const FOREST_MIN_LEAF: usize = 5;
/// What the service table says by itself of a warm execution: its expectation and the candidate's residual, as the
/// shortest-expected-delay cost uses them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TableRule {
    /// Whether the candidate's recent slowness is added.
    pub(crate) with_residual: bool,
}

impl TableRule {
    /// The rule that errs least on training rows: the rival gets its knobs tuned as the model does.
    pub(crate) fn choose(offset: &Offset, train: &Samples) -> Self {
        let rules = [false, true].into_iter().map(|with_residual| Self { with_residual });
        let error = |rule: &Self| rmse(&train.ln_ms, &rule.ln_ms(offset, train));
        rules.min_by(|a, b| error(a).total_cmp(&error(b))).expect("there are rules to choose from")
    }

    /// Predicts ln exec_ms.
    pub(crate) fn ln_ms(self, offset: &Offset, samples: &Samples) -> Vec<f64> {
        let residual = known_feature("residual_ln");
        let predict = |row: &[f32]| {
            let slower_ln = if self.with_residual { f64::from(row[residual]) } else { 0.0 };
            offset.ln_ms(row) + if slower_ln.is_finite() { slower_ln } else { 0.0 }
        };
        samples.rows().map(predict).collect()
    }
}

/// Fits an elastic net, whose penalty the training rows after the `early` ones choose, and predicts the test rows.
pub(crate) fn elastic_net_ln_ms(
    offset: &Offset,
    early: usize,
    train: &Samples,
    test: &Samples,
) -> Result<Vec<f64>, TrainingError> {
    let (early, late) =
        (train.thinned(0..early, ELASTIC_NET_ROWS), train.thinned(early..train.len(), ELASTIC_NET_ROWS));
    let mut best = (f64::INFINITY, PENALTIES[0]);
    for penalty in PENALTIES {
        let error = rmse(&late.ln_ms, &fit_elastic_net(offset, &early, &late, penalty)?);
        if error < best.0 {
            best = (error, penalty);
        }
    }
    fit_elastic_net(offset, &train.thinned(0..train.len(), ELASTIC_NET_ROWS), test, best.1)
}

fn fit_elastic_net(offset: &Offset, train: &Samples, test: &Samples, penalty: f64) -> Result<Vec<f64>, TrainingError> {
    let design = Design::fit(&train.rows());
    let residuals = offset.residuals(train);
    if design.width() == 0 || is_constant(&residuals) {
        return Ok(offset.added_to(test, &vec![mean(&residuals); test.len()]));
    }
    let dataset = Dataset::new(matrix(&design, train), Array1::from_vec(residuals));
    let parameters = ElasticNet::params().penalty(penalty).l1_ratio(0.5).max_iterations(ELASTIC_NET_SWEEPS);
    let model = parameters
        .fit(&dataset)
        .map_err(|error| TrainingError::Rival { rival: "elastic net", problem: error.to_string() })?;
    let predicted: Array1<f64> = model.predict(&matrix(&design, test));
    Ok(offset.added_to(test, &predicted.to_vec()))
}

/// Column by column, as coordinate descent walks it.
fn matrix(design: &Design, samples: &Samples) -> Array2<f64> {
    Array2::from_shape_vec((samples.len(), design.width()).f(), design.column_major(&samples.rows()))
        .expect("a design has one value per row and column")
}

fn is_constant(values: &[f64]) -> bool {
    values.windows(2).all(|pair| pair[0] == pair[1])
}

/// Fits a random forest and predicts the test rows.
pub(crate) fn random_forest_ln_ms(
    offset: &Offset,
    seed: u64,
    train: &Samples,
    test: &Samples,
) -> Result<Vec<f64>, TrainingError> {
    let train = train.thinned(0..train.len(), FOREST_ROWS);
    let design = Design::fit(&train.rows());
    let residuals = offset.residuals(&train);
    if design.width() == 0 || is_constant(&residuals) {
        return Ok(offset.added_to(test, &vec![mean(&residuals); test.len()]));
    }
    let failed =
        |error: smartcore::error::Failed| TrainingError::Rival { rival: "random forest", problem: error.to_string() };
    let matrix = |samples: &Samples| {
        DenseMatrix::new(samples.len(), design.width(), design.column_major(&samples.rows()), true).map_err(failed)
    };
    let parameters = RandomForestRegressorParameters::default()
        .with_n_trees(FOREST_TREES)
        .with_min_samples_leaf(FOREST_MIN_LEAF)
        .with_m(design.width().div_ceil(3))
        .with_seed(seed);
    let model = RandomForestRegressor::fit(&matrix(&train)?, &residuals, parameters).map_err(failed)?;
    Ok(offset.added_to(test, &model.predict(&matrix(test)?).map_err(failed)?))
}
