//! From logs to estimates: a model of costs is fitted across time, each round is weighed, and what holds is said.

use serde::{Deserialize, Serialize};
use shardwise_features::FEATURE_COUNT;

use super::logs::{LogCounts, Logged, Logs};
use super::{Estimate, Limits, OpeOptions, Round, Validity, Weighed, estimate, validity};

/// Time blocks; costs in each are foretold by a model that saw the others only.
pub const FOLDS: usize = 5;

/// What rows of features cost, in ms.
pub trait CostModel {
    /// Foretells the cost of `out.len()` rows of [`FEATURE_COUNT`] values each.
    fn predict_rows(&self, rows: &[f32], out: &mut [f64]);
}

/// What logs say of a target policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OffPolicy {
    /// What became of the decisions.
    pub counts: LogCounts,
    /// Mean cost of the settled decisions as they were made, in ms; `None` without any.
    pub logged_ms: Option<f64>,
    /// Whether estimates may be given, and what speaks against it.
    pub validity: Validity,
    /// What the target would have cost; `None` where nothing can be said.
    pub estimates: Option<Vec<Estimate>>,
}

/// Estimates what the target would have cost; `fit` learns costs from rows of features. Where the logs do not carry an estimate
/// nothing is fitted and none is given.
///
/// # Errors
/// Those of `fit`.
pub fn off_policy<M: CostModel, E>(
    logs: &Logs,
    fit: &mut dyn FnMut(&[f32], &[f64]) -> Result<M, E>,
    limits: Limits,
    options: &OpeOptions,
) -> Result<OffPolicy, E> {
    let mut rounds: Vec<Round> = logs.decisions.iter().map(|logged| unforetold(logs, logged)).collect();
    let beside = logs.decisions.iter().zip(&rounds);
    let weighed = beside.map(|(logged, round)| Weighed {
        round,
        propensity: logged.propensity,
        shard: logs.shards[logged.shard].as_str(),
        exec_ms: logged.exec_ms,
        queue_ms: logged.queue_ms,
    });
    let validity = validity(weighed, logs.core_ms, limits);
    let mean = rounds.iter().map(|round| round.outcome).sum::<f64>() / rounds.len() as f64;
    let mut result =
        OffPolicy { counts: logs.counts(), logged_ms: (!rounds.is_empty()).then_some(mean), validity, estimates: None };
    if result.validity.holds() {
        foretell(logs, &mut rounds, fit)?;
        result.estimates = Some(estimate(&rounds, options));
    }
    Ok(result)
}

/// A round without predictions.
fn unforetold(logs: &Logs, logged: &Logged) -> Round {
    Round {
        at_ns: logged.at.nanos(),
        weight: logs.odds[logged.rows.start] / logged.propensity,
        outcome: logged.cost_ms,
        predicted: 0.0,
        predicted_target: 0.0,
    }
}

/// Fills in what models say that were fitted on the other blocks of time.
fn foretell<M: CostModel, E>(
    logs: &Logs,
    rounds: &mut [Round],
    fit: &mut dyn FnMut(&[f32], &[f64]) -> Result<M, E>,
) -> Result<(), E> {
    let n = rounds.len();
    for fold in 0..FOLDS {
        let own = fold * n / FOLDS..(fold + 1) * n / FOLDS;
        let (mut rows, mut costs) = (Vec::with_capacity(n * FEATURE_COUNT), Vec::with_capacity(n));
        for logged in logs.decisions[..own.start].iter().chain(&logs.decisions[own.end..]) {
            rows.extend_from_slice(logs.row(logged.rows.start));
            costs.push(logged.cost_ms);
        }
        let model = fit(&rows, &costs)?;
        let mut predicted = Vec::new();
        for (logged, round) in logs.decisions[own.clone()].iter().zip(&mut rounds[own]) {
            let span = logged.rows.start * FEATURE_COUNT..logged.rows.end * FEATURE_COUNT;
            predicted.clear();
            predicted.resize(logged.rows.len(), 0.0);
            model.predict_rows(&logs.features[span], &mut predicted);
            round.predicted = predicted[0];
            let odds = &logs.odds[logged.rows.clone()];
            round.predicted_target = odds.iter().zip(&predicted).map(|(odds, ms)| odds * ms).sum();
        }
    }
    Ok(())
}
