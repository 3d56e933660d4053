//! The report's page: turns figures into the texts that the template lays out. All text is escaped by the template or
//! by the SVG helpers.

use askama::Template;
use shardwise_types::CostTerms;

use crate::analysis::AnalysisView;
use crate::losses::{Loss, SeedPair, WhereItLoses};
use crate::numbers::{change_percent, grouped, in_unit, millis, percent, unit_name};
use crate::report::{ExecScore, ReportInput};
use crate::{
    Comparison, EvaluationError, Fact, METRICS, Metric, PolicyResult, Reason, SampleDecision, charts, verdict,
};

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    title: &'a str,
    command: String,
    explain: String,
    may_go_live: bool,
    rule: String,
    reasons: Vec<Reason>,
    candidate: &'a str,
    seeds: String,
    columns: &'static [Metric],
    setting: &'a [Fact],
    rows: Vec<PolicyRow>,
    distribution: String,
    percentiles: String,
    timeline: Option<String>,
    timeline_rival: &'a str,
    forest: Option<String>,
    pairs: Vec<PairRow>,
    never_loses: bool,
    losses: Vec<LossRow>,
    analysis: Option<AnalysisView>,
    model: Vec<Fact>,
    scores: Vec<ScoreRow<'a>>,
    dataset: Vec<Fact>,
    decision: Option<DecisionView<'a>>,
    notes: &'a [String],
}

struct PolicyRow {
    name: String,
    is_candidate: bool,
    cells: Vec<Cell>,
}

struct Cell {
    text: String,
    is_best: bool,
}

struct PairRow {
    rival: String,
    metric: String,
    change: String,
    interval: String,
    wins: String,
    worst: String,
}

struct LossRow {
    metric: String,
    rival: String,
    how_often: String,
    candidate: String,
    rival_value: String,
    harm: String,
    seed: u64,
}

struct ScoreRow<'a> {
    predictor: &'a str,
    rmse: String,
    r2: String,
    is_model: bool,
    is_best: bool,
}

struct DecisionView<'a> {
    sample: &'a SampleDecision,
    facts: Vec<Fact>,
    shards: Vec<&'a str>,
    terms: Vec<TermRow>,
    total: TermRow,
}

struct TermRow {
    name: &'static str,
    millis: Vec<String>,
}

/// Renders the page.
pub(crate) fn render(input: &ReportInput, losses: &WhereItLoses) -> Result<String, EvaluationError> {
    let closed_loop = &input.closed_loop;
    let page = Page {
        title: &input.title,
        command: in_lines(&input.command),
        explain: in_lines(&input.explain),
        may_go_live: input.verdict.may_go_live,
        rule: verdict::rule_in_words(),
        reasons: input.verdict.reasons.iter().map(with_units_kept).collect(),
        candidate: &closed_loop.candidate,
        seeds: closed_loop.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
        columns: METRICS,
        setting: &closed_loop.setting,
        rows: policy_rows(&closed_loop.policies, &closed_loop.candidate),
        distribution: charts::distribution(closed_loop),
        percentiles: charts::percentile_dots(closed_loop),
        timeline: charts::timeline(closed_loop),
        timeline_rival: charts::best_rival(closed_loop).map_or("", |rival| rival.name.as_str()),
        forest: charts::forest(closed_loop),
        pairs: closed_loop.comparisons.iter().map(pair_row).collect(),
        never_loses: losses.never,
        losses: losses.losses.iter().filter_map(loss_row).collect(),
        analysis: input.analysis.as_ref().map(AnalysisView::new),
        model: model_facts(input),
        scores: score_rows(input),
        dataset: dataset_facts(input),
        decision: input.decision.as_ref().map(decision_view),
        notes: &input.notes,
    };
    Ok(page.render()?)
}

/// A command with every option on a line of its own, as a shell takes it.
pub(crate) fn in_lines(command: &str) -> String {
    command.replace(" --", " \\\n  --")
}

/// Keeps a number and its unit on one line.
fn with_units_kept(reason: &Reason) -> Reason {
    let sentence = reason.sentence.replace(" %", "\u{a0}%").replace(" ms", "\u{a0}ms");
    Reason { sentence, ..*reason }
}

fn policy_rows(policies: &[PolicyResult], candidate: &str) -> Vec<PolicyRow> {
    let best: Vec<Option<f64>> = METRICS.iter().map(|metric| best_of(metric, policies)).collect();
    let row = |policy: &PolicyResult| PolicyRow {
        name: policy.name.clone(),
        is_candidate: policy.name == candidate,
        cells: METRICS.iter().zip(&best).map(|(metric, best)| cell(metric, policy, *best)).collect(),
    };
    policies.iter().map(row).collect()
}

/// The best figure of a goal; `None` when it is no goal or when most have that figure, which then marks nobody out.
fn best_of(metric: &Metric, policies: &[PolicyResult]) -> Option<f64> {
    let values = || policies.iter().map(|policy| (metric.read)(&policy.pooled));
    let best = if metric.lower_is_better { values().min_by(f64::total_cmp) } else { values().max_by(f64::total_cmp) }?;
    (metric.is_goal && 2 * values().filter(|value| *value == best).count() <= policies.len()).then_some(best)
}

fn cell(metric: &Metric, policy: &PolicyResult, best: Option<f64>) -> Cell {
    let value = (metric.read)(&policy.pooled);
    Cell { text: in_unit(metric.unit, value), is_best: best == Some(value) }
}

fn label_of(key: &str) -> String {
    Metric::by_key(key).map_or(key, |metric| metric.label).to_owned()
}

fn pair_row(comparison: &Comparison) -> PairRow {
    let interval = match (comparison.low, comparison.high) {
        (Some(low), Some(high)) => format!("{} to {}", change_percent(low), change_percent(high)),
        _ => "none (one seed)".to_owned(),
    };
    PairRow {
        rival: comparison.rival.clone(),
        metric: label_of(&comparison.metric),
        change: change_percent(comparison.ratio),
        interval,
        wins: format!("{} of {}", comparison.wins, comparison.seeds),
        worst: format!("{} (seed {})", change_percent(comparison.worst.ratio), comparison.worst.seed),
    }
}

fn loss_row(loss: &Loss) -> Option<LossRow> {
    let worst = loss.pairs.first()?;
    let metric = Metric::by_key(&loss.metric)?;
    let value = |value: f64| format!("{}{}", in_unit(metric.unit, value), unit_name(metric.unit));
    let is_worse = worst.harm.is_none_or(|harm| harm > 1.0);
    let how_often = match is_worse {
        true => format!("worse in {} of {} seeds", loss.pairs.len(), loss.seeds),
        false => format!("worse in none of {} seeds", loss.seeds),
    };
    Some(LossRow {
        metric: if metric.is_goal { metric.label.to_owned() } else { format!("{} (for information)", metric.label) },
        rival: loss.rival.clone(),
        how_often,
        candidate: value(worst.candidate),
        rival_value: value(worst.rival),
        harm: difference(worst),
        seed: worst.seed,
    })
}

fn difference(pair: &SeedPair) -> String {
    if pair.candidate == pair.rival {
        return "none".to_owned();
    }
    match pair.ratio.map(change_percent) {
        Some(change) if change.starts_with('0') => "below 0.1 %".to_owned(),
        Some(change) => change,
        None => "from zero".to_owned(),
    }
}

fn model_facts(input: &ReportInput) -> Vec<Fact> {
    let model = &input.model;
    let facts = [
        Fact::new("name", &*model.name),
        Fact::new("version", &*model.version),
        Fact::new("published", if model.published { "yes, as champion" } else { "no" }),
        Fact::new("champion before", model.champion_version.as_deref().unwrap_or("none")),
    ];
    facts.into_iter().chain(model.card.iter().cloned()).collect()
}

fn score_rows(input: &ReportInput) -> Vec<ScoreRow<'_>> {
    let model = &input.model;
    let scores: Vec<&ExecScore> = model.exec.iter().chain(&model.table).chain(&model.others).collect();
    let best = scores.iter().map(|score| score.rmse).min_by(f64::total_cmp);
    scores
        .into_iter()
        .map(|score| ScoreRow {
            predictor: &score.predictor,
            rmse: format!("{:.4}", score.rmse),
            r2: score.r2.map_or("not measured".to_owned(), |r2| format!("{r2:.4}")),
            is_model: model.exec.as_ref().is_some_and(|exec| std::ptr::eq(exec, score)),
            is_best: best == Some(score.rmse),
        })
        .collect()
}

fn dataset_facts(input: &ReportInput) -> Vec<Fact> {
    let dataset = &input.dataset;
    let facts = [
        Fact::new("id", &*dataset.id),
        Fact::new("source", &*dataset.source),
        Fact::new("rows", grouped(dataset.rows)),
        Fact::new("earlier split (fitted on)", format!("{} rows", grouped(dataset.earlier_rows))),
        Fact::new("later split (measured on)", format!("{} rows", grouped(dataset.later_rows))),
        Fact::new("first decision (UTC)", &*dataset.from_utc),
        Fact::new("last decision (UTC)", &*dataset.to_utc),
        Fact::new("features", grouped(dataset.features)),
        Fact::new("feature fingerprint", &*dataset.feature_fingerprint),
        Fact::new("hash of the contents", &*dataset.hash),
    ];
    facts.into_iter().filter(|fact| !fact.value.is_empty()).chain(dataset.card.iter().cloned()).collect()
}

fn decision_view(sample: &SampleDecision) -> DecisionView<'_> {
    let costs: Vec<&CostTerms> =
        [&sample.cost].into_iter().chain(sample.alternatives.iter().map(|alternative| &alternative.cost)).collect();
    let row = |name, read: &dyn Fn(&CostTerms) -> f64| TermRow {
        name,
        millis: costs.iter().map(|cost| millis(read(cost))).collect(),
    };
    let names = sample.cost.named().map(|(name, _)| name);
    let mut facts = vec![
        Fact::new("recommended shard", &*sample.recommended_shard),
        Fact::new("confidence", format!("{} %", percent(sample.confidence))),
        Fact::new("expected latency", format!("{} ms", millis(sample.expected_latency_ms))),
        Fact::new("expected load", format!("{:.2} requests per core", sample.expected_load)),
        Fact::new("decided by", sample.decided_by.replace('_', " ")),
    ];
    facts.extend(sample.fallback_reason.as_deref().map(|reason| Fact::new("fallback because", reason)));
    facts.extend(sample.alternatives.iter().map(|alternative| {
        Fact::new(
            &*alternative.shard,
            format!("best with probability {}\u{a0}%", percent(alternative.probability_best)),
        )
    }));
    DecisionView {
        sample,
        facts,
        shards: sample.alternatives.iter().map(|alternative| alternative.shard.as_str()).collect(),
        terms: names.iter().enumerate().map(|(i, name)| row(name, &|cost| cost.named()[i].1)).collect(),
        total: row("cost", &CostTerms::total_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::where_it_loses;
    use crate::synthetic;

    fn rendered(input: &ReportInput) -> String {
        render(input, &where_it_loses(&input.closed_loop)).unwrap()
    }

    #[test]
    fn the_page_refers_to_nothing_outside() {
        let html = rendered(&synthetic::report_input());
        for outside in ["http://", "https://", "src=", "<script", "<link rel=\"stylesheet", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
    }

    #[test]
    fn hostile_names_are_text() {
        let mut input = synthetic::report_input();
        let hostile = "</svg><script>alert('x')</script>\"&";
        input.title = hostile.to_owned();
        input.closed_loop = synthetic::closed_loop(&["shardwise", hostile], 2);
        input.notes = vec![hostile.to_owned()];
        let html = rendered(&input);
        assert!(!html.contains("<script"), "a name became markup");
        assert!(html.contains("&lt;script&gt;") || html.contains("&#60;script&#62;"));
    }

    #[test]
    fn the_best_of_a_column_is_said_in_words() {
        let policies = synthetic::closed_loop(&["shardwise", "rival"], 2).policies;
        let rows = policy_rows(&policies, "shardwise");
        assert!(rows[0].cells[0].is_best && !rows[1].cells[0].is_best);
        let equal = policy_rows(&[policies[0].clone(), policies[0].clone()], "shardwise");
        assert!(equal.iter().all(|row| row.cells.iter().all(|cell| !cell.is_best)), "no best among equals");
    }

    #[test]
    fn headings_descend_by_one_and_tables_have_captions() {
        let html = rendered(&synthetic::report_input());
        let levels: Vec<u8> = html
            .match_indices("<h")
            .filter_map(|(at, _)| html.as_bytes().get(at + 2).copied())
            .filter(u8::is_ascii_digit)
            .map(|digit| digit - b'0')
            .collect();
        assert_eq!(levels.first(), Some(&1));
        assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{levels:?}");
        assert_eq!(html.matches("<table").count(), html.matches("<caption").count());
        assert_eq!(html.matches("<svg").count(), html.matches("<desc").count());
    }

    #[test]
    fn a_failing_verdict_says_no_in_words() {
        let mut input = synthetic::report_input();
        input.verdict.may_go_live = false;
        input.verdict.reasons[0].holds = false;
        let html = rendered(&input);
        assert!(html.contains("No, not yet") && html.contains("Fails:"));
    }
}
