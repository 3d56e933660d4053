//! Made-up figures for this crate's tests; nothing of it is part of the library.

use shardwise_types::{Alternative, Confidence, CostTerms, DecidedBy, PlacementRequest, ShardPrediction, Widening};

use crate::closed_loop::{average, compare};
use crate::{
    CdfPoint, Cell, CellKey, ClosedLoop, DatasetFacts, Evidence, ExecScore, Fact, Foretold, Metrics, ModelFacts, Net,
    PolicyResult, ReportInput, SampleDecision, SeedResult, ShadowTest, TimelinePoint, judge,
};

/// Plausible figures around a mean latency.
pub(crate) fn metrics(mean_ms: f64) -> Metrics {
    Metrics {
        mean_ms,
        p50_ms: mean_ms * 0.7,
        p90_ms: mean_ms * 2.0,
        p99_ms: (mean_ms * 4.2).min(3000.0),
        p999_ms: (mean_ms * 9.0).min(3000.0),
        slo_miss: mean_ms / 4000.0,
        error_rate: mean_ms / 40_000.0,
        core_use: 0.4 + mean_ms / 5000.0,
        cold_rate: 0.02 + mean_ms / 10_000.0,
        jain: 0.9,
        max_over_mean: 1.4,
    }
}

/// Policies that differ in their mean and waver from seed to seed; the first is the candidate.
pub(crate) fn closed_loop(names: &[&str], seeds: u64) -> ClosedLoop {
    let policies: Vec<PolicyResult> = names.iter().enumerate().map(|(i, name)| policy(name, i, seeds)).collect();
    let candidate = names[0].to_owned();
    ClosedLoop {
        seeds: (1..=seeds).collect(),
        setting: vec![Fact::new("shards", "20"), Fact::new("routers", "4"), Fact::new("requests per second", "620")],
        comparisons: compare(&candidate, &policies),
        candidate,
        policies,
    }
}

fn policy(name: &str, rank: usize, seeds: u64) -> PolicyResult {
    let mean_ms = 32.0 * (1.0 + rank as f64 * 0.12 + (rank as f64 / 4.0).powi(4));
    let wavering = |seed: u64| 1.0 + 0.06 * ((seed * 7 + rank as u64 * 3) as f64).sin();
    let result = |seed| SeedResult { seed, requests: 25_000, metrics: metrics(mean_ms * wavering(seed)) };
    let results: Vec<SeedResult> = (1..=seeds).map(result).collect();
    PolicyResult {
        name: name.to_owned(),
        requests: 25_000 * seeds,
        pooled: average(results.iter().map(|result| &result.metrics)),
        seeds: results,
        cdf: (1..=200).map(|i| cdf_point(mean_ms, f64::from(i))).collect(),
        timeline: (0..60).map(|i| timeline_point(mean_ms, i, rank)).collect(),
    }
}

/// A log-logistic distribution, cut off at the timeout.
fn cdf_point(mean_ms: f64, i: f64) -> CdfPoint {
    let share = 1.0 - 10_f64.powf(-4.0 * i / 200.0);
    CdfPoint { latency_ms: (mean_ms * 0.7 * (share / (1.0 - share)).powf(0.4)).min(3000.0), share }
}

fn timeline_point(mean_ms: f64, i: u32, rank: usize) -> TimelinePoint {
    let wave = 1.0 + 0.25 * (f64::from(i) / 5.0 + rank as f64).sin() + 0.1 * (f64::from(i) * 2.3).cos();
    TimelinePoint { at_s: f64::from(i), p99_ms: mean_ms * 4.2 * wave }
}

/// A whole report with the policies that the demo runs.
pub(crate) fn report_input() -> ReportInput {
    let closed_loop = closed_loop(
        &[
            "shardwise",
            "champion",
            "sed_off_lambda",
            "sed_tab",
            "sed_tab_softmax",
            "least_in_flight",
            "p2c_in_flight",
            "random",
        ],
        4,
    );
    let mut shadow = ShadowTest::default();
    (0..4_000).for_each(|_| shadow.learn(&Foretold { live_ms: 12.0, challenger_ms: 11.0, measured_ms: 10.0 }));
    let verdict = judge(&Evidence {
        closed_loop: &closed_loop,
        shadow: Some(&shadow),
        candidate_version: "v2-5f0c",
        champion_version: Some("v1-91be"),
        exec_rmse: Some(0.3111),
        table_rmse: Some(0.3540),
    });
    ReportInput {
        title: "shardwise train, demo history, 2026-01-05".to_owned(),
        command: "shardwise train --history history --seed 7 --out models".to_owned(),
        explain: "shardwise explain --history history --decision ID --html decision-ID.html".to_owned(),
        dataset: DatasetFacts {
            id: "demo-9c1f".to_owned(),
            source: "history".to_owned(),
            rows: 204_812,
            earlier_rows: 163_849,
            later_rows: 40_963,
            from_utc: "2026-01-05T00:00:00Z".to_owned(),
            to_utc: "2026-01-05T11:59:58Z".to_owned(),
            features: 57,
            feature_fingerprint: "f3a1c0de5b7794aa".to_owned(),
            hash: "4be1a2a0c9d8e7f6".repeat(4),
            card: Vec::new(),
        },
        model: ModelFacts {
            name: "placement".to_owned(),
            version: "v2-5f0c".to_owned(),
            published: verdict.may_go_live,
            champion_version: Some("v1-91be".to_owned()),
            exec: Some(score("gradient boosted trees", 0.3111, Some(0.931))),
            table: Some(score("service table alone", 0.3540, None)),
            others: vec![score("elastic net", 0.5220, None), score("random forest", 0.3304, None)],
            card: Vec::new(),
        },
        closed_loop,
        verdict,
        analysis: None,
        decision: Some(decision()),
        notes: vec!["The fleet is simulated; its speed noise and its arrivals are those of real traces.".to_owned()],
    }
}

fn score(predictor: &str, rmse: f64, r2: Option<f64>) -> ExecScore {
    ExecScore { predictor: predictor.to_owned(), rmse, r2 }
}

fn decision() -> SampleDecision {
    let request = PlacementRequest::from_json(
        r#"{"function":"price_arbitrage","type":"PriceUpdated","protocol":"uniswap","tradingPair":"ETH/USDC",
            "amountUsd":25000,"riskLevel":"high","eventAt":"2026-01-05T12:00:00Z"}"#,
    )
    .unwrap();
    let alternative = |shard: &str, cost_ms: f64, best: f64| Alternative {
        shard: shard.into(),
        cost: CostTerms { execution_ms: cost_ms - 6.0, error_ms: 1.0, congestion_ms: 5.0, ..CostTerms::default() },
        expected_latency: cost_ms - 6.0,
        probability_best: Confidence::clamped(best),
    };
    let cost = CostTerms {
        network_ms: 4.1,
        execution_ms: 21.7,
        cold_ms: 0.0,
        wait_ms: 2.2,
        error_ms: 0.9,
        congestion_ms: 3.4,
    };
    let prediction = ShardPrediction {
        recommended_shard: "shard-uniswap-primary".into(),
        confidence: Confidence::clamped(0.86),
        expected_latency: cost.latency_ms(),
        expected_load: 0.62,
        latency_p50: 26.0,
        latency_p90: 44.0,
        latency_p99: 130.0,
        success_probability: Confidence::clamped(0.999),
        eligible: 12,
        widening: Widening::None,
        degraded: false,
        alternative_shards: [
            alternative("shard-general", 38.0, 0.09),
            alternative("shard-uniswap-secondary", 41.5, 0.05),
        ]
        .into_iter()
        .collect(),
        cost,
        propensity: 1.0,
        decided_by: DecidedBy::Model,
        fallback_reason: None,
        model_version: Some("v2-5f0c".into()),
    };
    SampleDecision::new(&request, &prediction)
}

/// One fleet and so many seeds at two loads with one and four routers; policies are the slower, the later they are named.
pub(crate) fn arena_cells(names: &[&str], seeds: u64) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (routers, load) in [(1, 0.5), (1, 0.8), (4, 0.5), (4, 0.8)] {
        for seed in 1..=seeds {
            let key = CellKey {
                scenario: "base".to_owned(),
                load,
                routers,
                report_age_s: 1.0,
                net: Net::Metro,
                fleet: 1,
                seed,
            };
            cells.extend(names.iter().enumerate().map(|(rank, name)| arena_cell(&key, name, rank)));
        }
    }
    cells
}

fn arena_cell(key: &CellKey, name: &str, rank: usize) -> Cell {
    let wavering = 1.0 + 0.01 * ((key.seed * 7 + rank as u64 * 3) as f64).sin();
    let mean_ms = 30.0 * (1.0 + key.load.powi(4)) * (1.0 + rank as f64 * 0.1) * wavering;
    Cell {
        key: key.clone(),
        policy: name.to_owned(),
        metrics: metrics(mean_ms),
        risk_gap_pp: 0.4,
        regret: Some(2.5),
        answers: None,
        decide_us_p50: Some(3.0),
        decide_us_p99: Some(9.0),
        requests: 25_000,
        copies: 0,
        log_hash: "0123456789abcdef".to_owned(),
    }
}
