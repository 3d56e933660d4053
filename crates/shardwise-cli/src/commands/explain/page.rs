//! A decision as a page.

use std::path::Path;

use miette::IntoDiagnostic;
use shardwise_evaluation::{
    DecisionPage, Fact, PageCandidate, PageRival, PageWhatIf, WhatIfRow, plain, write_decision_page,
};
use shardwise_features::FEATURES;
use shardwise_types::{CostTerms, ErrorClass};

use super::account::{Account, Answer, Candidate, Knew, Outcome, Rival, Terms};
use super::what_if::WhatIf;

pub(super) fn write(path: &Path, account: &Account) -> miette::Result<()> {
    write_decision_page(path, &page(account)).into_diagnostic()
}

fn page(account: &Account) -> DecisionPage {
    DecisionPage {
        id: account.decision_id,
        shard: account.logged.shard.clone(),
        command: account.command.clone(),
        facts: facts(account),
        identical: account.identical,
        made: made(account),
        request: account.request.clone(),
        knew: knew(&account.knew),
        answer: account.answer.as_ref().map(answer).unwrap_or_default(),
        reasons: account.reasons.clone(),
        candidates: account.candidates.iter().map(candidate).collect(),
        features: FEATURES.iter().map(|feature| feature.name).collect(),
        rivals: account.rivals.iter().map(rival).collect(),
        outcome: account.outcome.as_ref().map(outcome).unwrap_or_default(),
        what_if: account.what_if.as_ref().map(what_if),
        notes: account.notes.clone(),
    }
}

fn facts(account: &Account) -> Vec<Fact> {
    vec![
        Fact::new("decided at", account.decided_at.to_string()),
        Fact::new("router", format!("{} in {}", account.router, account.router_region)),
        Fact::new("policy", &*account.policy),
        Fact::new("model", account.model_version.as_deref().unwrap_or("none")),
    ]
}

fn made(account: &Account) -> Vec<[String; 3]> {
    let again = account.again.as_ref().map(|made| made.fields().map(|(_, now)| now));
    let fields = account.logged.fields().into_iter().enumerate().map(|(place, (field, logged))| {
        let now = again.as_ref().map_or("–", |now| &*now[place]).to_owned();
        [field.replace('_', " "), logged, now]
    });
    // Fields that differ stand there already; features do not.
    let of_features = account.differences.iter().filter(|difference| difference.field.contains(" of "));
    let of_features =
        of_features.map(|difference| [difference.field.clone(), difference.logged.clone(), difference.again.clone()]);
    fields.chain(of_features).collect()
}

fn ms(ms: impl Into<f64>) -> String {
    format!("{} ms", plain(ms.into()))
}

fn percent(share: f64) -> String {
    format!("{:.2}\u{a0}%", share * 100.0)
}

fn known(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| format!("{}{unit}", plain(value)))
}

fn knew(knew: &Knew) -> Vec<Fact> {
    let market = &knew.market;
    let bp = |bp: Option<f32>| known(bp.map(f64::from), " bp");
    vec![
        Fact::new("shards", format!("{}, {} healthy, {} eligible", knew.shards, knew.healthy, knew.eligible)),
        Fact::new("newest report", known(knew.newest_report_ms, " ms old")),
        Fact::new("oldest report", known(knew.oldest_report_ms, " ms old")),
        Fact::new("own requests out", plain(knew.in_flight)),
        Fact::new("arrivals", format!("{} per s", plain(knew.arrivals_per_s))),
        Fact::new("its answers take", known(knew.response_ms, " ms")),
        Fact::new("failures", knew.error_rate.map_or_else(|| "unknown".to_owned(), percent)),
        Fact::new("volatility", bp(market.volatility)),
        Fact::new("trend", bp(market.trend)),
    ]
}

fn answer(answer: &Answer) -> Vec<Fact> {
    vec![
        Fact::new("confidence", percent(answer.confidence)),
        Fact::new("expected latency", ms(answer.expected_ms)),
        Fact::new("p50, p90, p99", [answer.p50_ms, answer.p90_ms, answer.p99_ms].map(ms).join(", ")),
        Fact::new("succeeds", percent(answer.success_probability)),
        Fact::new("expected load", format!("{} requests per core", plain(answer.expected_load))),
        Fact::new("hard rules", if answer.widening == "none" { "all kept" } else { answer.widening }),
    ]
}

fn terms_of(terms: &Terms) -> CostTerms {
    CostTerms {
        network_ms: terms.network,
        execution_ms: terms.execution,
        cold_ms: terms.cold,
        wait_ms: terms.wait,
        error_ms: terms.errors,
        congestion_ms: terms.congestion,
    }
}

fn candidate(candidate: &Candidate) -> PageCandidate {
    PageCandidate {
        shard: candidate.shard.clone(),
        chosen: candidate.chosen,
        best: candidate.best,
        by_model: candidate.by_model,
        terms: candidate.terms_ms.as_ref().map(terms_of),
        cold_probability: candidate.cold_probability,
        utilisation: candidate.utilisation,
        features: FEATURES.iter().map(|feature| candidate.features[feature.name]).collect(),
    }
}

fn rival(rival: &Rival) -> PageRival {
    PageRival {
        policy: rival.policy.clone(),
        shard: rival.shard.clone(),
        agrees: rival.agrees,
        propensity: rival.propensity,
        expected_ms: rival.expected_ms,
        cost_ms: rival.cost_ms,
    }
}

fn outcome(outcome: &Outcome) -> Vec<Fact> {
    let response = &outcome.response;
    vec![
        Fact::new("ended", response.error.map_or("succeeded", ErrorClass::as_str)),
        Fact::new("known at", outcome.known_at.to_string()),
        Fact::new("took", ms(response.total_ms)),
        Fact::new("on a core", format!("{}{}", ms(response.exec_ms), if response.cold { ", cold" } else { "" })),
        Fact::new("in the queue", format!("{}, behind {}", ms(response.queue_ms), response.queue_len)),
    ]
}

fn what_if(what_if: &WhatIf) -> PageWhatIf {
    PageWhatIf {
        changes: what_if.changes.iter().map(|change| (change.feature.to_owned(), change.value)).collect(),
        before: what_if.before.shard.clone(),
        after: what_if.after.shard.clone(),
        rows: what_if
            .candidates
            .iter()
            .map(|candidate| WhatIfRow {
                shard: candidate.shard.clone(),
                exec_ms: [candidate.before.model_exec_ms, candidate.after.model_exec_ms],
                cost_ms: [candidate.before.cost_ms, candidate.after.cost_ms],
            })
            .collect(),
    }
}
