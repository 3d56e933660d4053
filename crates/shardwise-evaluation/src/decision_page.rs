//! The page of one logged decision: what was known, what every shard would have cost, what others would have chosen, what became
//! of it. It computes nothing; who explains fills it in.

use std::fs;
use std::path::Path;

use askama::Template;
use shardwise_types::{CostTerms, PlacementRequest};

use crate::numbers::{millis, plain};
use crate::page::in_lines;
use crate::report::{request_facts, write_atomically};
use crate::{EvaluationError, Fact, cost_bars};

/// Candidates that are shown, the cheapest and the chosen one: on more nobody looks.
const MOST_CANDIDATES: usize = 40;
/// Candidates whose features stand beside each other.
const MOST_COMPARED: usize = 4;

/// All that the page shows.
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionPage {
    /// The decision's id.
    pub id: u64,
    /// The shard that it went to.
    pub shard: String,
    /// The command that makes this page again.
    pub command: String,
    /// Who decided, and when.
    pub facts: Vec<Fact>,
    /// Whether it came out bit for bit when it was made again; `None` when it could not be made again.
    pub identical: Option<bool>,
    /// Field, as it was logged, as it is computed now; those that differ when any do.
    pub made: Vec<[String; 3]>,
    /// The request.
    pub request: PlacementRequest,
    /// What the router knew.
    pub knew: Vec<Fact>,
    /// What was answered, of a placer.
    pub answer: Vec<Fact>,
    /// Why, in words.
    pub reasons: Vec<String>,
    /// Every eligible shard, the cheapest first.
    pub candidates: Vec<PageCandidate>,
    /// The features' names, in the order of the candidates' values.
    pub features: Vec<&'static str>,
    /// What others would have chosen in the same state.
    pub rivals: Vec<PageRival>,
    /// What became of it; empty when the history does not say.
    pub outcome: Vec<Fact>,
    /// What other features would have changed, when that was asked.
    pub what_if: Option<PageWhatIf>,
    /// What must be taken on trust.
    pub notes: Vec<String>,
}

/// A shard that was eligible.
#[derive(Debug, Clone, PartialEq)]
pub struct PageCandidate {
    /// The shard.
    pub shard: String,
    /// Whether it was chosen.
    pub chosen: bool,
    /// Whether nothing costs less.
    pub best: bool,
    /// Whether the heads of the model were asked about it.
    pub by_model: bool,
    /// The terms of its cost; `None` when the policy goes by no such cost.
    pub terms: Option<CostTerms>,
    /// Probability of a cold start there, where a placer decided.
    pub cold_probability: Option<f64>,
    /// Cores wanted over cores.
    pub utilisation: f64,
    /// The features; NaN where they are missing.
    pub features: Vec<f32>,
}

/// What another policy would have chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct PageRival {
    /// The policy.
    pub policy: String,
    /// Its shard; `None` when it finds none.
    pub shard: Option<String>,
    /// Whether that is the shard that was chosen.
    pub agrees: bool,
    /// Probability of that choice, below 1 where shards tie.
    pub propensity: Option<f64>,
    /// Latency that it expects there, in ms.
    pub expected_ms: Option<f64>,
    /// What the shard costs by the policy that decided, in ms.
    pub cost_ms: Option<f64>,
}

/// What the model would have said, had it seen other features.
#[derive(Debug, Clone, PartialEq)]
pub struct PageWhatIf {
    /// The features and what they are changed to.
    pub changes: Vec<(String, f32)>,
    /// Chosen as the features are, with nothing left to chance.
    pub before: String,
    /// Chosen as they are changed.
    pub after: String,
    /// The shards, cheapest first after the change.
    pub rows: Vec<WhatIfRow>,
}

/// A shard before and after the change.
#[derive(Debug, Clone, PartialEq)]
pub struct WhatIfRow {
    /// The shard.
    pub shard: String,
    /// Warm execution by the model in ms, where it was asked.
    pub exec_ms: [Option<f32>; 2],
    /// Cost in ms.
    pub cost_ms: [f64; 2],
}

#[derive(Template)]
#[template(path = "decision.html")]
struct View<'a> {
    page: &'a DecisionPage,
    command: String,
    verdict: &'static str,
    answer: &'static str,
    request: Vec<Fact>,
    bars: Option<String>,
    has_costs: bool,
    is_cut: bool,
    candidates: Vec<CandidateRow<'a>>,
    rivals: Vec<[String; 6]>,
    compared: Vec<&'a PageCandidate>,
    apart: Vec<FeatureRow>,
    alike: Vec<FeatureRow>,
    what_if: Option<WhatIfView<'a>>,
}

struct CandidateRow<'a> {
    candidate: &'a PageCandidate,
    role: String,
    cells: Vec<String>,
}

struct FeatureRow {
    name: &'static str,
    values: Vec<String>,
}

struct WhatIfView<'a> {
    changes: String,
    sentence: String,
    rows: Vec<(&'a str, bool, [String; 4])>,
}

/// Writes the page, one file that needs no network. The file is whole or untouched.
///
/// # Errors
/// When the page cannot be rendered or written.
pub fn write_decision_page(path: &Path, page: &DecisionPage) -> Result<(), EvaluationError> {
    let html = render(page)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|source| EvaluationError::Write { path: folder.to_owned(), source })?;
    }
    write_atomically(path, html.as_bytes())
}

fn render(page: &DecisionPage) -> Result<String, EvaluationError> {
    let shown: Vec<&PageCandidate> = shown(&page.candidates).collect();
    let compared = compared(&page.candidates);
    let rows = || page.features.iter().enumerate().map(|(place, name)| feature_row(name, place, &compared));
    let is_alike = |row: &FeatureRow| row.values.iter().all(|value| *value == row.values[0]);
    let (verdict, answer) = match page.identical {
        Some(true) => ("yes", "Made again, it comes out the same, bit for bit."),
        Some(false) => ("no", "Made again, it comes out otherwise."),
        None => ("open", "It cannot be made again; it is shown as it was logged."),
    };
    let view = View {
        page,
        command: in_lines(&page.command),
        verdict,
        answer,
        request: request_facts(&page.request),
        bars: cost_bars::cost_bars(&shown),
        has_costs: shown.iter().any(|candidate| candidate.terms.is_some()),
        is_cut: shown.len() < page.candidates.len(),
        candidates: shown.into_iter().map(candidate_row).collect(),
        rivals: page.rivals.iter().map(rival_row).collect(),
        apart: rows().filter(|row| !is_alike(row)).collect(),
        alike: rows().filter(is_alike).collect(),
        compared,
        what_if: page.what_if.as_ref().map(what_if_view),
    };
    Ok(view.render()?)
}

fn shown(candidates: &[PageCandidate]) -> impl Iterator<Item = &PageCandidate> {
    let rows = candidates.iter().enumerate();
    rows.filter(|(place, candidate)| *place < MOST_CANDIDATES || candidate.chosen).map(|(_, candidate)| candidate)
}

/// The chosen one, and the cheapest of the others.
fn compared(candidates: &[PageCandidate]) -> Vec<&PageCandidate> {
    let (chosen, others): (Vec<_>, Vec<_>) = candidates.iter().partition(|candidate| candidate.chosen);
    chosen.into_iter().chain(others).take(MOST_COMPARED).collect()
}

fn feature_row(name: &'static str, place: usize, compared: &[&PageCandidate]) -> FeatureRow {
    let value = |candidate: &&PageCandidate| {
        candidate.features.get(place).map_or("–".to_owned(), |value| plain(f64::from(*value)))
    };
    FeatureRow { name, values: compared.iter().map(value).collect() }
}

fn or_dash(ms: Option<f64>) -> String {
    ms.map_or_else(|| "–".to_owned(), millis)
}

fn candidate_row(candidate: &PageCandidate) -> CandidateRow<'_> {
    let roles = [(candidate.chosen, "chosen"), (candidate.best, "cheapest"), (candidate.by_model, "model")];
    let roles: Vec<&str> = roles.into_iter().filter(|(is, _)| *is).map(|(_, role)| role).collect();
    let terms = (0..6).map(|term| or_dash(candidate.terms.map(|terms| terms.named()[term].1)));
    let cost = or_dash(candidate.terms.map(|terms| terms.total_ms()));
    let shares = [candidate.cold_probability.map_or("–".to_owned(), plain), plain(candidate.utilisation)];
    CandidateRow { candidate, role: roles.join(", "), cells: terms.chain([cost]).chain(shares).collect() }
}

/// Policy, shard, whether it agrees, expected latency, cost, odds.
fn rival_row(rival: &PageRival) -> [String; 6] {
    [
        rival.policy.clone(),
        rival.shard.clone().unwrap_or_else(|| "none".to_owned()),
        if rival.agrees { "the same" } else { "another" }.to_owned(),
        or_dash(rival.expected_ms),
        or_dash(rival.cost_ms),
        rival.propensity.map_or("–".to_owned(), plain),
    ]
}

fn what_if_view(what_if: &PageWhatIf) -> WhatIfView<'_> {
    let changes: Vec<String> = what_if.changes.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let PageWhatIf { before, after, .. } = what_if;
    let row = |row: &'_ WhatIfRow| {
        let exec = row.exec_ms.map(|ms| or_dash(ms.map(f64::from)));
        let cost = row.cost_ms.map(millis);
        let [exec_was, exec_is] = exec;
        let [cost_was, cost_is] = cost;
        [exec_was, exec_is, cost_was, cost_is]
    };
    // What the model was not asked about stays as it is, and is no news.
    let (asked, others): (Vec<_>, Vec<_>) = what_if.rows.iter().partition(|row| row.exec_ms[1].is_some());
    let rows = asked.into_iter().chain(others).take(MOST_CANDIDATES);
    WhatIfView {
        changes: changes.join(", "),
        sentence: match before == after {
            true => format!("{after} would be taken all the same."),
            false => format!("{after} would be taken in the place of {before}."),
        },
        rows: rows.map(|of| (of.shard.as_str(), of.shard == *after, row(of))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "</td></svg><script>alert('x')</script><img src=x onerror=alert(1)>\"&\u{202e}\u{1b}[31m";

    fn candidate(shard: &str, cost_ms: f64, chosen: bool) -> PageCandidate {
        let terms = CostTerms { network_ms: 2.0, execution_ms: cost_ms - 2.0, ..CostTerms::default() };
        PageCandidate {
            shard: shard.to_owned(),
            chosen,
            best: false,
            by_model: true,
            terms: Some(terms),
            cold_probability: Some(0.25),
            utilisation: 0.5,
            features: vec![1.0, cost_ms as f32, f32::NAN],
        }
    }

    fn page(name: &str, candidates: Vec<PageCandidate>) -> DecisionPage {
        let request = PlacementRequest::from_json(
            r#"{"function":"f","type":"PriceUpdated","protocol":"aave","amountUsd":1250,"eventAt":"2026-01-05"}"#,
        )
        .unwrap();
        DecisionPage {
            id: 42,
            shard: name.to_owned(),
            command: format!("shardwise explain --decision 42 {name}"),
            facts: vec![Fact::new("router", name)],
            identical: Some(true),
            made: vec![["shard".to_owned(), name.to_owned(), name.to_owned()]],
            request: PlacementRequest { function: name.into(), protocol: name.into(), ..request },
            knew: vec![Fact::new("shards", "20")],
            answer: vec![Fact::new("confidence", "86.00 %")],
            reasons: vec![name.to_owned()],
            candidates,
            features: vec!["alike", "apart", "missing"],
            rivals: vec![PageRival {
                policy: "sed_tab".to_owned(),
                shard: Some(name.to_owned()),
                agrees: false,
                propensity: Some(1.0),
                expected_ms: Some(12.5),
                cost_ms: None,
            }],
            outcome: Vec::new(),
            what_if: Some(PageWhatIf {
                changes: vec![("apart".to_owned(), 2.5)],
                before: "a".to_owned(),
                after: name.to_owned(),
                rows: vec![WhatIfRow { shard: name.to_owned(), exec_ms: [Some(1.5), None], cost_ms: [17.25, 31.75] }],
            }),
            notes: vec![name.to_owned()],
        }
    }

    fn some_page(name: &str) -> DecisionPage {
        page(name, vec![candidate("a", 10.0, false), candidate(name, 21.5, true)])
    }

    #[test]
    fn hostile_names_are_text_and_nothing_comes_from_outside() {
        let html = render(&some_page(HOSTILE)).unwrap();
        for harm in ["<script", "<img", "\u{202e}", "\u{1b}", "http://", "https://", "src=\"", "url(", "@import"] {
            assert!(!html.contains(harm), "{harm:?}");
        }
        assert!(html.contains("&lt;script&gt;") && html.contains("⟨U+202E⟩"));
    }

    #[test]
    fn features_are_told_apart_by_whether_they_differ() {
        let html = render(&some_page("b")).unwrap();
        let place = |text: &str| html.find(text).unwrap_or_else(|| panic!("no {text}"));
        assert!(place(">apart<") < place(">alike<") && place(">alike<") < place(">missing<"));
        assert!(html.contains("b would be taken in the place of a."));
        assert!(html.contains("The history holds no outcome"));
    }

    #[test]
    fn of_many_candidates_the_cheapest_and_the_chosen_are_shown() {
        let many = (0..100).map(|n| candidate(&format!("shard-{n:03}"), 10.0 + f64::from(n), n == 90)).collect();
        let html = render(&page("shard-090", many)).unwrap();
        assert!(html.contains("shard-039") && html.contains("shard-090") && !html.contains("shard-040"));
        assert!(html.contains("The cheapest are shown"));
        assert_eq!(html.matches("<table").count(), html.matches("<caption").count());
    }

    #[test]
    fn a_policy_without_costs_has_no_bars() {
        let bare = PageCandidate { terms: None, cold_probability: None, by_model: false, ..candidate("a", 9.0, true) };
        let html = render(&page("a", vec![bare])).unwrap();
        assert!(!html.contains("<svg") && html.contains("goes by no such cost"));
    }

    #[test]
    fn the_page_is_a_whole_file_in_a_folder_that_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/decision-42.html");
        write_decision_page(&path, &some_page("b")).unwrap();
        assert!(fs::read_to_string(&path).unwrap().trim_end().ends_with("</html>"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    }
}
