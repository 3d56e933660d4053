//! Whether a step did what it was made for: the function before against the function after, in the same fleet.
//!
//! It is judged by requests, not by forecasts: a step whose effect does not appear is taken back by whoever applied it. That
//! something else changed at the same time cannot be told from here; hence steps are small, and made one at a time.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

use crate::{Action, Moments, Observed};

/// How sure one must be, both of an effect and of harm, after all looks together.
const CONFIDENCE: f64 = 0.9;
/// Requests before and after, at least, before anything is said.
const FEWEST: f64 = 20.0;

/// What is to be said of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// What it was made for is there, beyond chance.
    Seen,
    /// It is worse than before, beyond chance.
    Harm,
    /// Neither can be said yet.
    Unclear,
}

/// A verdict, and what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectReport {
    /// The verdict.
    pub effect: Effect,
    /// Geometric mean of the latency after over before, and an interval that holds it nine times in ten at all looks together; 1 is
    /// no change. None of fewer than two successes before or after.
    pub latency_ratio: Option<[f64; 3]>,
    /// Share that failed, before and after.
    pub errors: [f64; 2],
    /// Share that had to load first, before and after.
    pub cold: [f64; 2],
    /// Requests, before and after.
    pub requests: [f64; 2],
}

/// Judges a step by what was measured of its function (of the fleet, for steps that concern whole shards) before and after.
///
/// A move must lower latency or failures; what is kept warm must be cold more seldom; letting cool, letting
/// come back and draining must not harm: they are made for what they give back. Shards that join come before the load that they
/// are for, so that before and after say nothing: they (`after`) are held against the others in the same time (`before`), and must
/// answer without failing more often. That some are slower is no harm, for routers know it.
///
/// Whoever looks several times and takes the first verdict says so by `looks`, at least 1: each look must be the surer (Bonferroni).
pub fn judge_effect(action: &Action, before: &Observed, after: &Observed, looks: u32) -> EffectReport {
    let quantile = Normal::standard().inverse_cdf(1.0 - (1.0 - CONFIDENCE) / (2.0 * f64::from(looks.max(1))));
    let latency_ratio = ratio_of_means(&before.total_ln, &after.total_ln, quantile);
    let share = |count: fn(&Observed) -> f64| [before, after].map(|seen| count(seen) / seen.requests.max(1.0));
    let (errors, cold) = (share(|seen| seen.errors), share(|seen| seen.cold));
    let requests = [before.requests, after.requests];
    let change = |shares: [f64; 2]| change_of_share(shares, requests, quantile);
    let is_slower = latency_ratio.is_some_and(|[_, low, _]| low > 1.0);
    let is_faster = latency_ratio.is_some_and(|[_, _, high]| high < 1.0);
    let may_be_slower = matches!(action, Action::JoinShards { .. });
    let effect = match () {
        () if requests.iter().any(|requests| *requests < FEWEST) => Effect::Unclear,
        () if (is_slower && !may_be_slower) || change(errors) == Some(true) => Effect::Harm,
        () => match action {
            Action::MigrateFunction { .. } if is_faster || change(errors) == Some(false) => Effect::Seen,
            Action::KeepWarm { .. } if change(cold) == Some(false) => Effect::Seen,
            Action::LetCool { .. }
            | Action::ReturnFunction { .. }
            | Action::DrainShards { .. }
            | Action::JoinShards { .. } => Effect::Seen,
            _ => Effect::Unclear,
        },
    };
    EffectReport { effect, latency_ratio, errors, cold, requests }
}

/// exp of the difference of two means of logarithms, with its interval (normal, unequal variances).
fn ratio_of_means(before: &Moments, after: &Moments, quantile: f64) -> Option<[f64; 3]> {
    let (of_before, of_after) = (before.variance()?, after.variance()?);
    let difference = after.mean - before.mean;
    let half = quantile * (of_before / before.count + of_after / after.count).sqrt();
    Some([difference, difference - half, difference + half].map(f64::exp))
}

/// Whether a share rose (`true`) or fell (`false`) beyond chance.
fn change_of_share([before, after]: [f64; 2], requests: [f64; 2], quantile: f64) -> Option<bool> {
    let pooled = (before * requests[0] + after * requests[1]) / (requests[0] + requests[1]);
    let deviation = (pooled * (1.0 - pooled) * (1.0 / requests[0] + 1.0 / requests[1])).sqrt();
    ((after - before).abs() > quantile * deviation && deviation > 0.0).then_some(after > before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Estimate, Unit};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use shardwise_types::Response;

    fn benefit() -> Estimate {
        Estimate::new(1.0, 0.0, 2.0, Unit::LatencyMs)
    }

    fn migrate() -> Action {
        let (reason, estimated_benefit) = (String::new(), benefit());
        Action::MigrateFunction {
            function_name: "f".into(),
            from_shard: "a".into(),
            to_shard: "b".into(),
            reason,
            estimated_benefit,
        }
    }

    fn keep_warm() -> Action {
        let (reason, estimated_benefit) = (String::new(), benefit());
        Action::KeepWarm { function_name: "f".into(), shard: "a".into(), reason, estimated_benefit }
    }

    fn seen(seed: u64, requests: u32, factor: f32, cold_share: f64) -> Observed {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut seen = Observed::default();
        for _ in 0..requests {
            let total_ms = factor * 20.0 * rng.random_range(0.5..2.0_f32);
            let cold = rng.random_bool(cold_share);
            seen.push(&Response { error: None, total_ms, exec_ms: total_ms, queue_ms: 0.0, queue_len: 0, cold });
        }
        seen
    }

    #[test]
    fn a_move_must_make_it_faster() {
        let effect =
            |factor: f32| judge_effect(&migrate(), &seen(1, 200, 1.0, 0.1), &seen(2, 200, factor, 0.1), 1).effect;
        assert_eq!([effect(0.7), effect(1.0), effect(1.4)], [Effect::Seen, Effect::Unclear, Effect::Harm]);
    }

    #[test]
    fn what_is_kept_warm_must_be_cold_more_seldom_and_harm_comes_first() {
        let effect = |factor: f32, cold: f64| {
            judge_effect(&keep_warm(), &seen(1, 300, 1.0, 0.3), &seen(2, 300, factor, cold), 1).effect
        };
        assert_eq!(
            [effect(1.0, 0.05), effect(1.0, 0.3), effect(1.5, 0.05)],
            [Effect::Seen, Effect::Unclear, Effect::Harm]
        );
    }

    #[test]
    fn shards_that_join_must_answer_and_may_be_slower() {
        let join = Action::JoinShards {
            group: "aave".to_owned(),
            count: 1,
            reason: String::new(),
            estimated_benefit: Estimate::new(1.0, 1.0, 1.0, Unit::Shards),
        };
        let failing = |requests: u32, failures: u32| {
            let mut seen = seen(3, requests, 1.5, 0.0);
            seen.errors = f64::from(failures);
            seen
        };
        let effect = |joined: &Observed| judge_effect(&join, &failing(300, 3), joined, 1).effect;
        assert_eq!(
            [effect(&failing(100, 1)), effect(&failing(100, 30)), effect(&failing(3, 0))],
            [Effect::Seen, Effect::Harm, Effect::Unclear]
        );
    }

    #[test]
    fn a_few_requests_say_nothing() {
        let report = judge_effect(&migrate(), &seen(1, 300, 1.0, 0.1), &seen(2, 10, 0.1, 0.1), 1);
        assert_eq!(report.effect, Effect::Unclear);
        assert_eq!(judge_effect(&migrate(), &Observed::default(), &Observed::default(), 1).effect, Effect::Unclear);
    }

    #[test]
    fn a_report_without_successes_survives_json() {
        let mut failed = Observed { requests: 50.0, errors: 50.0, ..Observed::default() };
        for seen in [failed, seen(1, 300, 1.0, 0.1)] {
            let report = judge_effect(&migrate(), &seen, &failed, 1);
            assert_eq!(report.latency_ratio, None);
            let json = serde_json::to_string(&report).unwrap();
            assert_eq!(serde_json::from_str::<EffectReport>(&json).unwrap(), report);
        }
        failed.errors = 0.0;
        assert_eq!(judge_effect(&migrate(), &failed, &failed, 1).effect, Effect::Unclear);
    }

    #[test]
    fn no_change_is_taken_for_one_seldom() {
        let said =
            |seed| judge_effect(&migrate(), &seen(seed, 200, 1.0, 0.1), &seen(seed + 1_000, 200, 1.0, 0.1), 1).effect;
        let wrong = (0..300).filter(|seed| said(*seed) != Effect::Unclear).count();
        // A tenth by latency, and as much again by failures, of which there are none here.
        assert!((10..50).contains(&wrong), "{wrong} of 300");
        // Whoever looks three times at what grows is no oftener wrong than who looks once.
        let first_of_three = |seed: u64| {
            (1..=3).any(|look| {
                let after = seen(seed + 1_000, 70 * look, 1.0, 0.1);
                judge_effect(&migrate(), &seen(seed, 200, 1.0, 0.1), &after, 3).effect != Effect::Unclear
            })
        };
        let wrong = (0..300).filter(|seed| first_of_three(*seed)).count();
        assert!((3..45).contains(&wrong), "{wrong} of 300");
    }
}
