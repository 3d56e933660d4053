//! The analysis as texts and drawings for the page.

use super::figures::{CoverageFigures, Slice, SliceKind, WorstCandidate, WorstDecision, WorstRival};
use super::{Analysis, view};
use crate::charts;
use crate::numbers::{change_percent, grouped, millis, percent};

/// Fewer choices of a confidence are not drawn.
const FEWEST_CHOICES: u64 = 30;
/// Features in the table.
const LISTED: usize = 15;
/// Shards that are furthest from their share.
const SHARDS: usize = 12;

/// What the template lays out; each part is empty when nothing is known of it.
pub(crate) struct AnalysisView {
    pub(crate) played: Option<PlayedView>,
    pub(crate) importance: Option<ImportanceView>,
    pub(crate) drift: Option<DriftView>,
    /// Period, rows, rmse, bias, rmse of the table.
    pub(crate) logged: Vec<[String; 5]>,
    pub(crate) validated: Option<ValidatedView>,
}

pub(crate) struct PlayedView {
    pub(crate) rival: String,
    pub(crate) requests: String,
    pub(crate) seeds: String,
    pub(crate) regret: Option<RegretView>,
    pub(crate) reliability: Option<String>,
    pub(crate) calibration_error: Option<String>,
    /// By, of, requests, three shares.
    pub(crate) coverage: Vec<[String; 6]>,
    pub(crate) shards: Vec<[String; 6]>,
    pub(crate) slices: Vec<(&'static str, String)>,
    pub(crate) losing: Vec<[String; 6]>,
    pub(crate) worst: Vec<WorstView>,
}

pub(crate) struct RegretView {
    pub(crate) sentence: String,
    pub(crate) parts: Option<String>,
    /// Decider, choices, mean, share of all regret.
    pub(crate) deciders: Vec<[String; 4]>,
}

pub(crate) struct WorstView {
    pub(crate) title: String,
    pub(crate) facts: Vec<crate::Fact>,
    pub(crate) made_of: String,
    pub(crate) reasoning: Vec<String>,
    pub(crate) candidates: Vec<CandidateView>,
    /// Policy, shard, what it expected, cost and truth there.
    pub(crate) rivals: Vec<[String; 5]>,
}

pub(crate) struct CandidateView {
    pub(crate) shard: String,
    pub(crate) role: String,
    /// Terms, cost, expected latency, what it would have been.
    pub(crate) cells: Vec<String>,
}

pub(crate) struct ImportanceView {
    pub(crate) rows: String,
    pub(crate) gap: String,
    pub(crate) mean: String,
    pub(crate) bars: Option<String>,
    /// Feature, contribution, gain.
    pub(crate) table: Vec<[String; 3]>,
    pub(crate) effects: Vec<(String, String)>,
}

pub(crate) struct DriftView {
    pub(crate) sentence: String,
    pub(crate) bars: Option<String>,
    /// Feature, index, distance.
    pub(crate) table: Vec<[String; 3]>,
}

pub(crate) struct ValidatedView {
    pub(crate) verdict: String,
    pub(crate) meaning: String,
    /// Shard, requests, share, expected share, change.
    pub(crate) shards: Vec<[String; 5]>,
}

impl AnalysisView {
    pub(crate) fn new(analysis: &Analysis) -> Self {
        let logged = analysis.logged.iter().map(|error| {
            let rmse = |rmse: f64| format!("{rmse:.4}");
            [
                error.period.clone(),
                grouped(error.rows),
                rmse(error.rmse),
                format!("{:+.4}", error.bias).replace('-', "−"),
                rmse(error.table_rmse),
            ]
        });
        Self {
            played: analysis.played.as_ref().map(played_view),
            importance: analysis.importance.as_ref().map(importance_view),
            drift: analysis.drift.as_ref().map(drift_view),
            logged: logged.collect(),
            validated: analysis.validated.as_ref().map(validated_view),
        }
    }
}

fn played_view(played: &super::Played) -> PlayedView {
    let share = |share: f64| format!("{:.1} %", share * 100.0);
    let coverage = |row: &CoverageFigures| {
        [row.by.clone(), row.of.clone(), grouped(row.requests), share(row.p50), share(row.p90), share(row.p99)]
    };
    let (shards, others): (Vec<&CoverageFigures>, Vec<&CoverageFigures>) =
        played.coverage.iter().partition(|row| row.by == "shard");
    let reliability = played.confidence.as_ref().and_then(|confidence| {
        let points = confidence.points.iter().filter(|point| point.choices >= FEWEST_CHOICES);
        charts::reliability("the model", &points.map(|point| (point.confidence, point.right)).collect::<Vec<_>>())
    });
    let of_kind =
        |kind: SliceKind| -> Vec<&Slice> { played.slices.iter().filter(|slice| slice.kind == kind).collect() };
    let drawn = SliceKind::ALL
        .into_iter()
        .filter_map(|kind| Some((kind.name(), view::slices(kind, &played.rival, &of_kind(kind))?)));
    let losing = played.slices.iter().filter(|slice| slice.loses()).map(|slice| {
        [
            format!("{} {}", slice.kind.name(), slice.of),
            grouped(slice.requests),
            millis(slice.mean_ms),
            millis(slice.rival_mean_ms),
            change_percent(slice.ratio),
            slice
                .interval
                .map_or_else(String::new, |[low, high]| format!("{} to {}", change_percent(low), change_percent(high))),
        ]
    });
    PlayedView {
        rival: played.rival.clone(),
        requests: grouped(played.requests),
        seeds: played.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
        regret: played.regret.as_ref().map(|regret| RegretView {
            sentence: regret_sentence(regret, &played.rival),
            parts: view::regret_parts(&regret.parts),
            deciders: regret
                .by_decider
                .iter()
                .map(|row| {
                    [
                        row.decided_by.replace('_', " "),
                        grouped(row.choices),
                        format!("{:.2}", row.mean_ms),
                        share(row.share),
                    ]
                })
                .collect(),
        }),
        reliability,
        calibration_error: played.confidence.as_ref().map(|confidence| format!("{:.3}", confidence.calibration_error)),
        coverage: others.into_iter().map(coverage).collect(),
        shards: shards.into_iter().map(coverage).collect(),
        slices: drawn.collect(),
        losing: losing.collect(),
        worst: played.worst.iter().enumerate().map(|(place, worst)| worst_view(place + 1, worst)).collect(),
    }
}

fn regret_sentence(regret: &super::Regret, rival: &str) -> String {
    let of_rival =
        regret.rival_mean_ms.map_or_else(String::new, |ms| format!(" {rival} loses {ms:.2} ms on its own queues."));
    format!(
        "Of {} choices that were held against the truth, {} % went to the best shard or within 10\u{a0}% and 5\u{a0}ms of it; in the \
         mean a request is done {:.2} ms later than it could be.{of_rival}",
        grouped(regret.choices),
        percent(regret.right),
        regret.mean_ms
    )
}

fn worst_view(place: usize, worst: &WorstDecision) -> WorstView {
    let chosen = worst.candidates.iter().find(|candidate| candidate.role == "chosen");
    let best = worst.candidates.iter().find(|candidate| candidate.role == "best");
    let name =
        |candidate: Option<&WorstCandidate>| candidate.map_or("–", |candidate| candidate.shard.as_str()).to_owned();
    let made_of = worst.parts.named().into_iter().filter(|(_, ms)| ms.abs() >= 0.05);
    let made_of = made_of.map(|(part, ms)| format!("{part} {} ms", millis(ms))).collect::<Vec<_>>().join(", ");
    let or_dash = |ms: Option<f64>| ms.map_or_else(|| "–".to_owned(), millis);
    let rival = |rival: &WorstRival| {
        let shard = match &rival.shard {
            Some(_) if rival.agrees => "the same".to_owned(),
            Some(shard) => shard.clone(),
            None => "none".to_owned(),
        };
        let [expected, cost, truth] = [rival.expected_ms, rival.cost_ms, rival.foreseen_ms].map(or_dash);
        [rival.policy.clone(), shard, expected, cost, truth]
    };
    let candidate = |candidate: &WorstCandidate| {
        let terms = (0..6).map(|term| or_dash(candidate.cost.map(|cost| cost.named()[term].1)));
        let total = or_dash(candidate.cost_ms);
        CandidateView {
            shard: candidate.shard.clone(),
            role: candidate.role.clone(),
            cells: terms.chain([total, or_dash(candidate.expected_ms), millis(candidate.foreseen_ms)]).collect(),
        }
    };
    WorstView {
        title: format!(
            "{place}. {}\u{a0}ms later than on {}: sent to {} by {}, confidence {}\u{a0}%",
            millis(worst.regret_ms),
            name(best),
            name(chosen),
            worst.decided_by.replace('_', " "),
            percent(worst.confidence)
        ),
        facts: [crate::Fact::new("seed", worst.seed.to_string()), crate::Fact::new("decided at", &*worst.at)]
            .into_iter()
            .chain(worst.request.iter().cloned())
            .collect(),
        made_of,
        reasoning: worst.reasoning.clone(),
        candidates: worst.candidates.iter().map(candidate).collect(),
        rivals: worst.rivals.iter().map(rival).collect(),
    }
}

fn importance_view(importance: &super::Importance) -> ImportanceView {
    let row = |feature: &super::FeatureImportance| {
        [feature.feature.clone(), format!("{:.4}", feature.mean_contribution), format!("{} %", percent(feature.gain))]
    };
    let effects = importance.effects.iter().filter_map(|effect| Some((effect.feature.clone(), view::effect(effect)?)));
    ImportanceView {
        rows: grouped(importance.rows),
        gap: format!("{:.1e}", importance.largest_gap),
        mean: format!("{:.3}", importance.mean_ln_ms),
        bars: view::importance(&importance.features),
        table: importance.features.iter().take(LISTED).map(row).collect(),
        effects: effects.collect(),
    }
}

fn drift_view(drift: &super::Drift) -> DriftView {
    let row = |row: &super::DriftRow| [row.feature.clone(), format!("{:.3}", row.psi), format!("{:.3}", row.ks)];
    DriftView {
        sentence: format!(
            "{} of {} features are another population than before the held-out period (index above 0.25), {} moved (above 0.1).",
            drift.other,
            drift.features.len(),
            drift.moved
        ),
        bars: view::drift(&drift.features),
        table: drift.features.iter().take(LISTED).map(row).collect(),
    }
}

fn validated_view(validated: &super::Validated) -> ValidatedView {
    let shards = validated.shards.iter().take(SHARDS).map(|shard| {
        [
            shard.shard.clone(),
            grouped(shard.requests),
            format!("{} %", percent(shard.share)),
            format!("{} %", percent(shard.expected)),
            change_percent(shard.ratio),
        ]
    });
    ValidatedView { verdict: validated.verdict.clone(), meaning: validated.meaning.clone(), shards: shards.collect() }
}
