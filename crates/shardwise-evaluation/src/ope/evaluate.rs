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
pub fn off_policy<M: CostModel, E, F: FnMut(&[f32], &[f64]) -> Result<M, E>>(
    logs: &Logs,
    fit: &mut F,
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
fn foretell<M: CostModel, E, F: FnMut(&[f32], &[f64]) -> Result<M, E>>(
    logs: &Logs,
    rounds: &mut [Round],
    fit: &mut F,
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use shardwise_features::golden::{GoldenContext, contexts};
    use shardwise_policies::{Runtime, by_name};
    use shardwise_types::{DecidedBy, DecisionRecord, ErrorClass, Response, RouterId, Timestamp};

    use super::super::LogReader;
    use super::*;
    use crate::EvaluationError;

    const TIMEOUT_MS: f64 = 3_000.0;

    fn decision(golden: &GoldenContext, id: u64, position: usize, propensity: f64) -> DecisionRecord {
        DecisionRecord {
            decision_id: id,
            sequence: id,
            known_at: golden.decided_at.plus_millis(100.0 * id as f64),
            router: RouterId::new("r"),
            router_region: golden.fleet.router_region.clone(),
            request: golden.request.clone(),
            shard: golden.fleet.shards[position].id.clone(),
            propensity,
            eligible: 3,
            predicted_ms: None,
            policy: "logging".to_owned(),
            decided_by: DecidedBy::Policy,
            fallback_reason: None,
            model_version: None,
            logged_shards: Vec::new(),
            logged_features: Vec::new(),
        }
    }

    fn response(total_ms: f32, error: Option<ErrorClass>) -> Response {
        Response { error, total_ms, exec_ms: total_ms / 2.0, queue_ms: 0.0, queue_len: 0, cold: false }
    }

    fn reader(target: &str) -> LogReader {
        let target = by_name(target, Runtime::default()).expect("a known policy");
        LogReader::new(target, TIMEOUT_MS, Timestamp::from_nanos(i64::MIN), 1)
    }

    /// Ten decisions, each answered after ten times its number in ms.
    fn ten() -> Logs {
        let (golden, mut reader) = (contexts().remove(1), reader("random"));
        for id in 0..10 {
            let position = id as usize % 3;
            let propensity = [0.5, 0.25, 0.25][position];
            reader.decided(&golden.context(), &decision(&golden, id, position, propensity)).expect("it knows its odds");
            reader.answered(id, &response(10.0 * id as f32, None));
        }
        reader.finish()
    }

    /// Foretells the mean.
    struct Flat(f64);

    impl CostModel for Flat {
        fn predict_rows(&self, _rows: &[f32], out: &mut [f64]) {
            out.fill(self.0);
        }
    }

    fn fit(rows: &[f32], costs: &[f64]) -> Result<Flat, Infallible> {
        assert_eq!(rows.len(), costs.len() * FEATURE_COUNT);
        Ok(Flat(costs.iter().sum::<f64>() / costs.len() as f64))
    }

    #[test]
    fn nothing_is_dropped_in_silence() {
        let (golden, mut reader) = (contexts().remove(1), reader("random"));
        let context = golden.context();
        for id in 0..4 {
            reader.decided(&context, &decision(&golden, id, 0, 0.5)).expect("it knows its odds");
        }
        reader.answered(0, &response(40.0, None));
        reader.answered(1, &response(1.0, Some(ErrorClass::Failed)));
        reader.answered(2, &response(1.0, Some(ErrorClass::Cancelled)));
        let mut stranger = decision(&golden, 4, 0, 0.5);
        stranger.shard = shardwise_types::ShardId::new("stranger");
        reader.decided(&context, &stranger).expect("it is counted");
        let logs = reader.finish();
        let counts = LogCounts { decisions: 5, settled: 2, censored: 1, cancelled: 1, refused: 0, unknown: 1 };
        assert_eq!(logs.counts(), counts);
        assert_eq!(logs.decisions.iter().map(|logged| logged.cost_ms).collect::<Vec<_>>(), [40.0, TIMEOUT_MS]);
    }

    #[test]
    fn a_policy_without_odds_is_refused_by_name() {
        let golden = contexts().remove(1);
        let said = reader("c3").decided(&golden.context(), &decision(&golden, 0, 0, 0.5)).expect_err("a refusal");
        assert!(matches!(&said, EvaluationError::NoOdds(name) if name == "c3"), "{said}");
    }

    #[test]
    fn rounds_are_weighed_and_foretold_without_their_own_block() {
        let logs = ten();
        let mut rounds: Vec<Round> = logs.decisions.iter().map(|logged| unforetold(&logs, logged)).collect();
        foretell(&logs, &mut rounds, &mut fit).expect("no fit fails");
        for (n, round) in rounds.iter().enumerate() {
            let weight = [2.0, 4.0, 4.0][n % 3] / 3.0;
            assert!((round.weight - weight).abs() < 1e-12, "{round:?}");
            // All ten add up to 450; the block's own two are left out.
            let block = n / 2;
            let others = (450.0 - 10.0 * (4 * block + 1) as f64) / 8.0;
            assert!((round.predicted - others).abs() < 1e-9 && (round.predicted_target - others).abs() < 1e-9);
        }
    }

    #[test]
    fn where_nothing_holds_nothing_is_fitted() {
        let (golden, mut late) = (contexts().remove(1), reader("random"));
        late.decided(&golden.context(), &decision(&golden, 0, 0, 0.5)).expect("it knows its odds");
        late.answered(0, &response(1.0, Some(ErrorClass::Timeout)));
        let unfit = &mut |_: &[f32], _: &[f64]| -> Result<Flat, Infallible> { unreachable!("there is nothing to fit") };
        let found = off_policy(&late.finish(), unfit, Limits::default(), &OpeOptions::default()).expect("no fit fails");
        assert_eq!((found.validity.shift.queueing, found.estimates), (1.0, None), "a timeout is all waiting");
        let limits = Limits { most_utilisation: 0.0, ..Limits::default() };
        let found = off_policy(&ten(), unfit, limits, &OpeOptions::default()).expect("no fit fails");
        assert_eq!((found.estimates, found.logged_ms), (None, Some(45.0)));
        let open = Limits { most_utilisation: 9.0, most_moved: 9.0, ..limits };
        let found = off_policy(&ten(), &mut fit, open, &OpeOptions::default()).expect("no fit fails");
        assert_eq!(found.estimates.map(|estimates| estimates.len()), Some(7), "{}", found.validity);
        let nothing = off_policy(&Logs::default(), &mut fit, open, &OpeOptions::default()).expect("no fit fails");
        assert_eq!((nothing.logged_ms, nothing.estimates), (None, None));
    }
}
