//! Claims about the heads beside the cost: failures, quantiles of the latency, and what confidence stands for.

use std::sync::Arc;

use shardwise_features::golden::{GoldenContext, contexts};
use shardwise_features::{DecisionFeatures, FEATURE_COUNT, FeatureVector, position};
use shardwise_inference::{Placer, PlacerConfig};
use shardwise_models::forest::{Forest, Missing, TreeNode};
use shardwise_models::{
    BundleDraft, CalibrationDraft, CalibrationMetrics, ConfidenceCurve, QuantileDraft, QuantileFigures, QuantileHead,
    QuantileMetrics, SideDraft, SideHead, SideMetrics, SideTarget, formula_latency_ln_ms,
};
use shardwise_policies::Observed;
use shardwise_types::{Response, ShardPrediction};

fn golden() -> GoldenContext {
    contexts().remove(1)
}

fn plain() -> BundleDraft {
    let golden = golden();
    BundleDraft {
        service_table: golden.service_table.expect("the golden context has a table"),
        ..BundleDraft::example()
    }
}

fn forest(tree: Vec<TreeNode>) -> Forest {
    Forest::new(FEATURE_COUNT, &[tree]).expect("a sound tree")
}

fn error_head(tree: Vec<TreeNode>) -> Option<SideDraft> {
    let metrics = SideMetrics { train_rows: 0, test_rows: 0, loss: 0.1, formula_loss: 0.1, bias: 1.0 };
    let head = SideHead::new(SideTarget::Error, forest(tree)).expect("a forest on the features");
    Some(SideDraft { head, metrics })
}

fn quantile_heads(leaves: [f64; 2]) -> Option<QuantileDraft> {
    let figures = |coverage| QuantileFigures { loss: 0.1, formula_loss: 0.1, coverage };
    let metrics = QuantileMetrics { train_rows: 0, test_rows: 0, q50: figures(0.5), q90: figures(0.9) };
    let head =
        QuantileHead::new(leaves.map(|leaf| forest(vec![TreeNode::Leaf(leaf)]))).expect("forests on the features");
    Some(QuantileDraft { head, metrics })
}

fn curve(level: f64) -> Option<CalibrationDraft> {
    let metrics = CalibrationMetrics { train_choices: 1, test_choices: 1, error: 0.1, built_in_error: 0.1 };
    Some(CalibrationDraft { curve: ConfidenceCurve::new(vec![[0.5, level]]).expect("a knot"), metrics })
}

/// Without draws, so that the cheapest is chosen.
fn config() -> PlacerConfig {
    PlacerConfig { exploration: None, ..PlacerConfig::default() }
}

fn placer(draft: &BundleDraft, config: PlacerConfig) -> Placer {
    Placer::with_model(Arc::new(draft.bundle().expect("a sound draft"))).with_config(config)
}

fn predict(draft: &BundleDraft, config: PlacerConfig) -> ShardPrediction {
    let golden = golden();
    let prediction = placer(draft, config).predict_optimal_shard(&golden.context()).expect("a healthy shard");
    assert_eq!(prediction.fallback_reason, None);
    prediction
}

/// Likely to fail wherever the chosen shard's value of a feature is reached, and nowhere else.
fn fails_on(shard: &str, name: &str) -> Vec<TreeNode> {
    let golden = golden();
    let context = golden.context();
    let features = DecisionFeatures::new(&context);
    let column = position(name).expect("a feature");
    let value = |at: usize| FeatureVector::extract(&features, at).as_slice()[column];
    let at = golden.fleet.position(&shard.into()).expect("a shard of the fleet");
    let others: Vec<f32> = (0..golden.fleet.shards.len()).filter(|other| *other != at).map(value).collect();
    let (mine, bad, good) = (value(at), TreeNode::Leaf(3.0), TreeNode::Leaf(-7.0));
    let split = |threshold: f32, [left, right]: [TreeNode; 2]| {
        let feature = u32::try_from(column).expect("few features");
        vec![TreeNode::Split { feature, threshold, missing: Missing::NanRight, left: 1, right: 2 }, left, right]
    };
    let (least, most) = others.iter().fold((f32::MAX, f32::MIN), |(least, most), x| (x.min(least), x.max(most)));
    match mine {
        mine if mine < least => split(f32::midpoint(mine, least), [bad, good]),
        mine if mine > most => split(f32::midpoint(mine, most), [good, bad]),
        mine => panic!("{name} is {mine} on {shard} and {others:?} elsewhere"),
    }
}

#[test]
fn a_learned_failure_costs_a_timeout_where_it_is_used() {
    let before = predict(&plain(), config());
    let shard = before.recommended_shard.to_string();
    let draft = BundleDraft { error: error_head(fails_on(&shard, "rtt_ms")), ..plain() };
    let unused = predict(&draft, config());
    assert_eq!((&unused.recommended_shard, unused.cost), (&before.recommended_shard, before.cost));
    assert!(unused.success_probability.value() < 0.06, "it is still said: {unused:?}");
    let used = predict(&draft, PlacerConfig { error_blend: 1.0, ..config() });
    assert_ne!(used.recommended_shard, before.recommended_shard);
    assert!(used.success_probability.value() > 0.9, "{used:?}");
    let shunned = used.alternative_shards.iter().find(|other| other.shard == before.recommended_shard);
    let error_ms = shunned.expect("an alternative").cost.error_ms;
    let timeout_ms = config().cost.runtime.timeout_ms;
    assert!((error_ms - timeout_ms / (1.0 + (-3_f64).exp())).abs() < 1.0, "{error_ms}");
    let half = predict(&draft, PlacerConfig { error_blend: 0.5, ..config() });
    let shunned = half.alternative_shards.iter().find(|other| other.shard == before.recommended_shard);
    assert!((shunned.expect("an alternative").cost.error_ms - error_ms / 2.0).abs() < 1.0);
}

#[test]
fn quantiles_start_from_the_heads() {
    let golden = golden();
    let draft = BundleDraft { quantiles: quantile_heads([0.0, 3_f64.ln()]), ..plain() };
    let prediction = predict(&draft, config());
    let bundle = draft.bundle().expect("a sound draft");
    let context = golden.context();
    let context = shardwise_features::DecisionContext { service_table: Some(&draft.service_table), ..context };
    let at = golden.fleet.position(&prediction.recommended_shard).expect("a shard of the fleet");
    let features = FeatureVector::extract(&DecisionFeatures::new(&context), at).into_array();
    let formula_ms = formula_latency_ln_ms(&features).exp();
    assert!((prediction.latency_p50 / formula_ms - 1.0).abs() < 1e-5, "{prediction:?} {formula_ms}");
    assert!((prediction.latency_p90 / formula_ms - 3.0).abs() < 1e-5, "{prediction:?} {formula_ms}");
    assert!(prediction.latency_p99 >= prediction.latency_p90);
    assert_eq!(bundle.quantiles().expect("heads").predict_ms(&features)[0], formula_ms);
    let crossed = predict(&BundleDraft { quantiles: quantile_heads([1.0, -1.0]), ..plain() }, config());
    assert!(crossed.latency_p50 <= crossed.latency_p90, "{crossed:?}");
    let off = predict(&draft, PlacerConfig { quantile_heads: false, ..config() });
    let without = predict(&plain(), config());
    assert_eq!(
        [off.latency_p50, off.latency_p90, off.latency_p99],
        [without.latency_p50, without.latency_p90, without.latency_p99]
    );
}

/// Shares of responses within the p90, before and after the world takes five times as long.
fn coverage(config: PlacerConfig) -> [f64; 2] {
    let [golden, elsewhere] = [(); 2].map(|()| golden());
    let context = golden.context();
    let placer = placer(&BundleDraft { quantiles: quantile_heads([0.0, 1.5_f64.ln()]), ..plain() }, config);
    let mut state = 3_u64;
    [1.0, 5.0].map(|slower| {
        let rounds = 4_000;
        let mut within = 0;
        for _ in 0..rounds {
            let placement = placer.place(&context).expect("a healthy shard");
            let base_ms = f64::from(placement.decision.forecast.answer.expect("an answer").base_ms[0]);
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let uniform = (state >> 11) as f64 / (1_u64 << 53) as f64;
            // The heads are right before: nine in ten are done within 1.5 times the median.
            let total_ms = (slower * base_ms * (0.6 + uniform)) as f32;
            within += u32::from(f64::from(total_ms) <= placement.prediction.latency_p90);
            let chosen = placement.decision.chosen;
            // Only the placer learns: the router's state stays as it is.
            let mut ticket = elsewhere.router.on_dispatch(&elsewhere.context(), chosen);
            ticket.forecast = placement.decision.forecast;
            let response = Response { error: None, total_ms, exec_ms: 9.0, queue_ms: 0.0, queue_len: 0, cold: false };
            let shard = &golden.fleet.shards[chosen].id;
            placer.learn(&Observed {
                request: &golden.request,
                shard,
                ticket: &ticket,
                response: &response,
                known_at: context.decided_at,
            });
        }
        f64::from(within) / f64::from(rounds)
    })
}

#[test]
fn the_ninetieth_percentile_follows_a_world_that_changes() {
    let [before, after] = coverage(config());
    assert!((before - 0.9).abs() < 0.02 && (after - 0.9).abs() < 0.03, "{before} {after}");
    let [before, after] = coverage(PlacerConfig { adaptive_quantiles: false, ..config() });
    assert!((before - 0.9).abs() < 0.02 && after < 0.1, "without it nothing follows: {before} {after}");
}

#[test]
fn confidence_is_the_bundles_own_where_its_heads_decide() {
    let draft = BundleDraft { calibration: curve(0.25), ..plain() };
    assert_eq!(predict(&draft, config()).confidence.value() as f32, 0.25);
    assert_ne!(predict(&plain(), config()).confidence.value() as f32, 0.25);
    let table_alone = BundleDraft { exec: None, ..draft };
    let golden = golden();
    let placer = placer(&table_alone, config());
    let prediction = placer.predict_optimal_shard(&golden.context()).expect("a healthy shard");
    assert_ne!(prediction.confidence.value() as f32, 0.25, "it says nothing of what the table decides");
}
