//! The arena's page: one file that needs no network. Turns figures into the texts that the template lays out; all text is
//! escaped by the template or by the SVG helpers.

use std::path::Path;

use askama::Template;
use shardwise_simulator::{NO_QUEUE_BOUND, Scenario, Timing};

use super::answers::CalibrationView;
use super::charts::{Cast, DRAWN, ScenarioRatios, Standings, curves, dots_by_policy, forest, scenario_dots};
use super::facets::{Differing, Facet, facets};
use super::headline::{Headline, arena_subject, counted, headline};
use super::pairs::{compare, knows_the_truth, league};
use super::plan::WARM_UP;
use super::run::DECISION_BUDGET_US;
use super::tables::{CloserView, LeagueView, closer_view, columns, league_view};
use super::{ArenaLoss, ArenaPlan, ArenaResult, Cell, LeagueRow, LossKind, Paired, Problem, Setting, arena_losses};
use crate::numbers::{change, change_percent, grouped};
use crate::report::write_atomically;
use crate::{EvaluationError, Fact, Metric};

/// Rivals that stand out in the drawings.
const MOST_RIVALS: usize = 6;
/// Settings that are drawn, as curves over loads or as dots at one load; the tables have all.
const MOST_CURVES: usize = 6;
const MOST_DOTS: usize = 3;
/// Losses that are listed, and players listed that know the truth.
const MOST_LOSSES: usize = 40;
const MOST_TRUTHS: usize = 12;
/// What a page shows.
#[derive(Debug, Clone, Copy)]
pub struct ArenaPage<'a> {
    /// What was asked.
    pub plan: &'a ArenaPlan,
    /// What was found.
    pub result: &'a ArenaResult,
    /// The policy that the page is about, see [`arena_subject`](crate::arena_subject). One with a bug gives way to the
    /// best without.
    pub subject: &'a str,
    /// The command that makes the result again.
    pub command: &'a str,
}

/// Writes the page, whole or not at all.
///
/// # Errors
/// When the subject did not run or the file cannot be written.
pub fn write_arena_page(path: &Path, page: &ArenaPage<'_>) -> Result<(), EvaluationError> {
    write_atomically(path, render(page)?.as_bytes())
}

#[derive(Template)]
#[template(path = "arena.html")]
struct Page<'a> {
    asked: &'a str,
    is_faulty: bool,
    subject: Option<SubjectView>,
    problems: Vec<ProblemRow>,
    audited: String,
    shared: String,
    league: LeagueView,
    closer: CloserView,
    drawings: Vec<Drawing>,
    drawn: String,
    losses_listed: usize,
    warm_up: String,
    timeout_s: f64,
    budget_us: [f64; 2],
    machines: String,
    facts: Vec<Fact>,
    stories: Vec<Fact>,
    terms: Vec<Fact>,
    command: &'a str,
}

/// All that is about the subject.
struct SubjectView {
    name: String,
    headline: Headline,
    scenarios: Option<ScenarioView>,
    forests: Vec<String>,
    /// Rivals, and those that know the truth, best first.
    pairs: [Vec<PairRow>; 2],
    /// Against rivals, and against those that know the truth.
    losses: [LossTable; 2],
    /// When it gives answers beside choices.
    calibration: Option<CalibrationView>,
}

struct ProblemRow {
    policy: String,
    meaning: &'static str,
    extent: String,
    detail: String,
    first: String,
}

/// A setting's drawings, side by side.
struct Drawing {
    label: String,
    svgs: Vec<String>,
}

struct ScenarioView {
    svgs: Vec<String>,
    rivals: Vec<String>,
    rows: Vec<ScenarioRow>,
}

struct ScenarioRow {
    scenario: String,
    story: &'static str,
    cells: Vec<String>,
}

struct PairRow {
    versus: String,
    goals: Vec<[String; 4]>,
    others: Vec<String>,
}

struct LossTable {
    caption: &'static str,
    rows: Vec<LossRow>,
    more: usize,
}

struct LossRow {
    kind: &'static str,
    metric: &'static str,
    versus: String,
    setting: String,
    change: String,
    interval: String,
    worst: String,
    wins: String,
}

fn render(page: &ArenaPage<'_>) -> Result<String, EvaluationError> {
    let ArenaPage { plan, result, subject: asked, command } = *page;
    let is_faulty = result.is_faulty(asked);
    if !is_faulty && !result.cells.iter().any(|cell| cell.policy == asked) {
        return Err(EvaluationError::NoCandidate(asked.to_owned()));
    }
    let cells = result.sound_cells();
    let subject = if is_faulty { arena_subject(result) } else { Some(asked.to_owned()) };
    let (settings, rows) = league(&cells);
    let standings = Standings { settings: &settings, rows: &rows };
    let facets = facets(&settings);
    let differing = Differing::among(&settings);
    let name = subject.as_deref().unwrap_or_default();
    let rivals = best_rivals(&rows, name);
    let cast = Cast { subject: name, rivals: &rivals, oracle: best_oracle(&rows) };
    let (drawings, drawn) = drawings(&standings, &cast, &facets, differing.in_load());
    let html = Page {
        asked,
        is_faulty,
        problems: result.problems.iter().map(problem_row).collect(),
        audited: audited(result),
        shared: settings.first().map(|setting| differing.shared(setting)).unwrap_or_default(),
        league: league_view(&standings, &facets, differing, name),
        closer: closer_view(&standings, name),
        drawings,
        drawn,
        subject: subject.as_deref().map(|name| subject_view(name, &cells, result, &rows, &cast, differing)),
        losses_listed: MOST_LOSSES,
        warm_up: format!("{:.0} %", WARM_UP * 100.0),
        timeout_s: Timing::default().timeout_ms / 1e3,
        budget_us: DECISION_BUDGET_US,
        machines: machines(plan),
        facts: facts(plan, result),
        stories: plan.scenarios.iter().map(|scenario| Fact::new(scenario.as_str(), scenario.story())).collect(),
        terms: columns().into_iter().map(|column| Fact::new(column.label, column.meaning)).collect(),
        command,
    };
    Ok(html.render()?)
}

fn best_rivals<'a>(rows: &'a [LeagueRow], subject: &str) -> Vec<&'a str> {
    let names = rows.iter().map(|row| row.policy.as_str());
    names.filter(|name| *name != subject && !knows_the_truth(name)).take(MOST_RIVALS).collect()
}

fn best_oracle(rows: &[LeagueRow]) -> Option<&str> {
    rows.iter().map(|row| row.policy.as_str()).find(|name| knows_the_truth(name) && *name != NO_QUEUE_BOUND)
}

fn subject_view(
    subject: &str,
    cells: &[Cell],
    ArenaResult { paired, calibration, .. }: &ArenaResult,
    rows: &[LeagueRow],
    cast: &Cast<'_>,
    differing: Differing,
) -> SubjectView {
    // In the league's order, those that know the truth last, as in the table.
    let mut others: Vec<&str> = rows.iter().map(|row| row.policy.as_str()).filter(|name| *name != subject).collect();
    others.sort_by_key(|name| knows_the_truth(name));
    let of = |versus: &str, metric: &str| {
        paired.iter().find(|pair| pair.policy == subject && pair.versus == versus && pair.metric == metric)
    };
    let forests = DRAWN.iter().filter_map(|drawn| {
        let pairs: Vec<&Paired> = others.iter().filter_map(|versus| of(versus, drawn.key)).collect();
        (!pairs.is_empty()).then(|| forest(&pairs, subject, *drawn))
    });
    let pairs = |knowing: bool| {
        let those = others.iter().filter(|versus| knows_the_truth(versus) == knowing);
        those.map(|versus| pair_row(versus, |metric| of(versus, metric))).collect()
    };
    let (truths, mut losses): (Vec<ArenaLoss>, Vec<ArenaLoss>) =
        arena_losses(subject, cells).into_iter().partition(|loss| loss.kind == LossKind::Truth);
    // What holds over the replicates weighs more than a single cell.
    losses.sort_by_key(|loss| loss.kind == LossKind::Cell);
    SubjectView {
        name: subject.to_owned(),
        headline: headline(paired, subject),
        scenarios: scenario_view(cells, cast),
        forests: forests.collect(),
        pairs: [pairs(false), pairs(true)],
        losses: [
            loss_table("Against rivals.", &losses, differing, MOST_LOSSES),
            loss_table("Against those that know the truth: what is left to gain.", &truths, differing, MOST_TRUTHS),
        ],
        calibration: calibration.iter().find(|answers| answers.policy == subject).map(CalibrationView::new),
    }
}

fn problem_row(problem: &Problem) -> ProblemRow {
    let key = &problem.first;
    let decisions = format!("{} in {}", grouped(problem.count), counted(problem.cells, "cell", "cells"));
    ProblemRow {
        policy: problem.policy.clone(),
        meaning: problem.bug.meaning(),
        extent: decisions,
        detail: problem.detail.clone(),
        first: format!("{}, fleet {}, seed {}", Setting::of(key).label(), key.fleet, key.seed),
    }
}

fn audited(result: &ArenaResult) -> String {
    let requests: u64 = result.cells.iter().map(|cell| cell.requests).sum();
    format!("{} and {} requests", counted(result.cells.len(), "run", "runs"), grouped(requests))
}

/// The drawings of the first settings, and what is drawn in words.
fn drawings(standings: &Standings<'_>, cast: &Cast<'_>, facets: &[Facet], over_loads: bool) -> (Vec<Drawing>, String) {
    let most = if over_loads { MOST_CURVES } else { MOST_DOTS };
    let shown = &facets[..facets.len().min(most)];
    let svgs = |place: usize| match over_loads {
        true => DRAWN.iter().map(|drawn| curves(standings, cast, shown, place, *drawn)).collect(),
        false => vec![dots_by_policy(standings, cast, &shown[place], place)],
    };
    let drawings = (0..shown.len()).map(|place| Drawing { label: shown[place].label.clone(), svgs: svgs(place) });
    let left_out = match facets.len() - shown.len() {
        0 => String::new(),
        _ => format!(" Drawn are the first {} of {} settings; all are in the league table.", shown.len(), facets.len()),
    };
    let grey = standings.rows.len().saturating_sub(cast.rivals.len() + 1 + usize::from(cast.oracle.is_some()));
    let grey = match grey {
        0 => String::new(),
        _ => format!(
            " Grey: {}{}.",
            counted(grey, "other player", "other players"),
            if over_loads { ", at the upper edge where off the scale" } else { "" }
        ),
    };
    (drawings.collect(), format!("{grey}{left_out}"))
}

fn scenario_view(cells: &[Cell], cast: &Cast<'_>) -> Option<ScenarioView> {
    let mut scenarios: Vec<&str> = Vec::new();
    for cell in cells {
        if !scenarios.contains(&cell.key.scenario.as_str()) {
            scenarios.push(&cell.key.scenario);
        }
    }
    if scenarios.len() < 2 || cast.rivals.is_empty() {
        return None;
    }
    let ratios = |drawn: super::charts::Drawn| -> Vec<ScenarioRatios> {
        let row = |scenario: &&str| {
            let of = |name: &str| -> Vec<&Cell> {
                cells.iter().filter(|cell| cell.policy == name && cell.key.scenario == **scenario).collect()
            };
            let ours = of(cast.subject);
            let against = |rival: &&str| {
                compare(cast.subject, &ours, rival, &of(rival), drawn.key, drawn.read).map(|paired| paired.ratio)
            };
            ScenarioRatios { scenario: (**scenario).to_owned(), by_rival: cast.rivals.iter().map(against).collect() }
        };
        scenarios.iter().map(row).collect()
    };
    let by_goal = DRAWN.map(ratios);
    let written = |ratio: Option<f64>| ratio.map_or("–".to_owned(), change_percent);
    let row = |place: usize| ScenarioRow {
        scenario: scenarios[place].to_owned(),
        story: Scenario::parse(scenarios[place]).map_or("", Scenario::story),
        cells: (0..cast.rivals.len())
            .map(|rival| by_goal.each_ref().map(|rows| written(rows[place].by_rival[rival])).join(" / "))
            .collect(),
    };
    Some(ScenarioView {
        svgs: DRAWN.iter().zip(&by_goal).map(|(drawn, rows)| scenario_dots(rows, cast, *drawn)).collect(),
        rivals: cast.rivals.iter().map(|rival| (*rival).to_owned()).collect(),
        rows: (0..scenarios.len()).map(row).collect(),
    })
}

fn pair_row<'a>(versus: &str, of: impl Fn(&str) -> Option<&'a Paired>) -> PairRow {
    let missing = || "–".to_owned();
    let goal = |metric: &str| match of(metric) {
        Some(pair) => [change_percent(pair.ratio), interval(pair), change_percent(pair.worst), wins(pair)],
        None => std::array::from_fn(|_| missing()),
    };
    let other = |metric: &str| of(metric).map_or_else(missing, |pair| change_percent(pair.ratio));
    PairRow {
        versus: versus.to_owned(),
        goals: DRAWN.iter().map(|drawn| goal(drawn.key)).collect(),
        others: ["p50_ms", "p999_ms", "core_use"].map(other).to_vec(),
    }
}

fn interval(pair: &Paired) -> String {
    match pair.low.zip(pair.high) {
        Some((low, high)) => format!("{} to {}", change(low), change_percent(high)),
        None => "none".to_owned(),
    }
}

fn wins(pair: &Paired) -> String {
    format!("{} of {}", pair.wins, pair.replicates)
}

fn loss_table(caption: &'static str, losses: &[ArenaLoss], differing: Differing, most: usize) -> LossTable {
    let row = |loss: &ArenaLoss| LossRow {
        kind: match loss.kind {
            LossKind::Setting => "setting",
            LossKind::Cell => "single cell",
            LossKind::Truth => "knows the truth",
            LossKind::Closest => "closest call",
        },
        metric: Metric::by_key(&loss.paired.metric).map_or("", |metric| metric.label),
        versus: loss.paired.versus.clone(),
        setting: differing.label(&loss.setting),
        change: change_percent(loss.paired.ratio),
        interval: interval(&loss.paired),
        worst: change_percent(loss.paired.worst),
        wins: wins(&loss.paired),
    };
    LossTable { caption, rows: losses.iter().take(most).map(row).collect(), more: losses.len().saturating_sub(most) }
}

fn machines(plan: &ArenaPlan) -> String {
    let unequal = match plan.heterogeneity {
        1.0 => String::new(),
        share => format!(" All of it is scaled by {share}: 0 makes machines identical."),
    };
    plan.kind.story() + &unequal
}

fn facts(plan: &ArenaPlan, result: &ArenaResult) -> Vec<Fact> {
    let list = |values: Vec<String>| values.join(", ");
    let numbers = |values: &[u64]| list(values.iter().map(u64::to_string).collect());
    let replicates = plan.fleets.len() * plan.seeds.len();
    vec![
        Fact::new("policies", list(plan.policies.clone())),
        Fact::new("kind of fleet", plan.kind.as_str()),
        Fact::new("shards", plan.shards.to_string()),
        Fact::new("fleets", numbers(&plan.fleets)),
        Fact::new("seeds", numbers(&plan.seeds)),
        Fact::new("replicates", format!("{replicates} (a fleet with a seed each)")),
        Fact::new("scenarios", list(plan.scenarios.iter().map(|scenario| scenario.as_str().to_owned()).collect())),
        Fact::new("loads", list(plan.loads.iter().map(f64::to_string).collect())),
        Fact::new("routers", list(plan.routers.iter().map(usize::to_string).collect())),
        Fact::new("seconds between reports", list(plan.report_ages_s.iter().map(f64::to_string).collect())),
        Fact::new("distances", list(plan.nets.iter().map(|net| net.as_str().to_owned()).collect())),
        Fact::new("requests in a cell", format!("about {}", grouped(plan.requests as u64))),
        Fact::new("runs", grouped(plan.runs() as u64)),
        Fact::new("took", duration(result.elapsed_s)),
        Fact::new("simulated requests per second of one core", grouped(result.requests_per_s as u64)),
    ]
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use shardwise_simulator::{Bug, ConfidenceBin};

    use super::*;
    use crate::arena::paired;
    use crate::arena::{Calibration, CoverageRow};
    use crate::synthetic::arena_cells;

    fn result(cells: Vec<Cell>, faulty: &[&str]) -> ArenaResult {
        let problem = |policy: &&str| Problem {
            policy: (*policy).to_owned(),
            bug: Bug::IneligibleShard,
            cells: 2,
            count: 1234,
            detail: "request 17 on shard-ap-1".to_owned(),
            first: cells[0].key.clone(),
        };
        let sound: Vec<Cell> = cells.iter().filter(|cell| !faulty.contains(&cell.policy.as_str())).cloned().collect();
        ArenaResult {
            paired: paired(&sound),
            calibration: vec![calibration()],
            problems: faulty.iter().map(problem).collect(),
            cells,
            requests_per_s: 412_345.6,
            elapsed_s: 75.2,
        }
    }

    fn calibration() -> Calibration {
        let bin = |choices: u64, right: u64| ConfidenceBin { choices, confidence: 0.7 * choices as f64, right };
        Calibration {
            policy: "shardwise".to_owned(),
            coverage: vec![CoverageRow { of: "critical".to_owned(), requests: 1234, p50: 0.512, p90: 0.9, p99: 0.99 }],
            confidence_ece: Some(0.0213),
            by_confidence: vec![bin(100, 80), bin(3, 0)],
        }
    }

    #[test]
    fn answers_are_shown_beside_what_came_true() {
        let result = result(arena_cells(&["shardwise", "sed_tab"], 2), &[]);
        let html = rendered(&result, "shardwise");
        let part = section(&html, "How true its answers are");
        assert!(part.contains("0.021") && part.contains("critical") && part.contains("51.2 %"), "{part}");
        assert_eq!(part.matches("<circle").count(), 1, "a bin of three choices is not drawn");
        let other = rendered(&result, "sed_tab");
        assert!(!other.contains("How true its answers are"), "it gives no answers");
    }

    fn rendered(result: &ArenaResult, subject: &str) -> String {
        let plan = ArenaPlan::default();
        render(&ArenaPage { plan: &plan, result, subject, command: "shardwise arena --seeds 1,2" }).unwrap()
    }

    /// A section of the page, from its heading to the next.
    fn section<'a>(html: &'a str, heading: &str) -> &'a str {
        let from = html.find(&format!("<h2>{heading}</h2>")).unwrap_or_else(|| panic!("no section '{heading}'"));
        html[from + 4..].split("<h2>").next().unwrap_or_default()
    }

    #[test]
    fn every_policy_is_in_the_league_and_those_that_know_the_truth_are_apart() {
        let names = ["shardwise", "b", "c", "oracle_greedy", "no_queue_bound"];
        let html = rendered(&result(arena_cells(&names, 2), &[]), "shardwise");
        let league = section(&html, "League");
        let apart = league.find("Know the truth").unwrap();
        for name in names {
            let row = league.find(&format!("<th scope=\"row\">{name}</th>")).unwrap();
            assert_eq!(row > apart, knows_the_truth(name), "{name}");
        }
        assert!(section(&html, "Bugs").contains("No policy showed a bug in 40 runs"));
    }

    #[test]
    fn hostile_names_are_text() {
        let html = rendered(&result(arena_cells(&["<b>", "</svg><script>"], 2), &["</svg><script>"]), "<b>");
        assert!(!html.contains("<b>") && !html.contains("<script"), "a name became markup");
    }

    #[test]
    fn a_faulty_policy_is_named_and_in_no_average() {
        let html = rendered(&result(arena_cells(&["broken", "b", "c"], 2), &["broken"]), "b");
        let (before, after) = html.split_once("<h2>League</h2>").unwrap();
        assert!(before.contains("broken") && before.contains("chose shards that a hard rule forbids"));
        assert!(before.contains("1,234 in 2 cells") && !after.contains("broken"));
    }

    #[test]
    fn a_faulty_subject_gives_way_and_the_page_says_so() {
        let cells = arena_cells(&["shardwise", "b", "c"], 2);
        let html = rendered(&result(cells.clone(), &["shardwise"]), "shardwise");
        assert!(html.contains("Does b win?") && html.contains("shardwise shows a bug"));
        let none = rendered(&result(cells, &["shardwise", "b", "c"]), "shardwise");
        assert!(none.contains("so does every other policy") && !none.contains("<h2>League</h2>"));
    }

    #[test]
    fn a_subject_that_did_not_run_is_refused() {
        let result = result(arena_cells(&["a"], 1), &[]);
        let page = ArenaPage { plan: &ArenaPlan::default(), result: &result, subject: "absent", command: "" };
        assert!(render(&page).unwrap_err().to_string().contains("absent"));
    }

    #[test]
    fn where_it_loses_is_never_empty() {
        let html = rendered(&result(arena_cells(&["a", "b", "oracle_greedy"], 3), &[]), "a");
        let lost = section(&html, "Where it loses");
        assert!(lost.contains("<td>closest call</td>") && lost.contains("<th scope=\"row\">b</th>"));
        let html = rendered(&result(arena_cells(&["a", "b"], 3), &[]), "b");
        assert!(section(&html, "Where it loses").contains("<td>setting</td>"));
    }

    #[test]
    fn one_cell_and_one_policy_make_a_page() {
        let mut cells = arena_cells(&["a", "b"], 1);
        cells.truncate(2);
        let html = rendered(&result(cells.clone(), &[]), "a");
        assert!(html.contains("dots-0-title") && !html.contains("curves-0"), "one load is drawn as dots");
        cells.truncate(1);
        let html = rendered(&result(cells, &[]), "a");
        assert!(html.contains("no rival to win against"));
        assert!(section(&html, "Where it loses").contains("No rival ran"));
    }

    #[test]
    fn scenarios_are_compared_one_by_one() {
        let mut cells = arena_cells(&["a", "b", "c"], 2);
        let mut other = cells.clone();
        for cell in &mut other {
            cell.key.scenario = "fail_stop".to_owned();
        }
        cells.extend(other);
        let html = rendered(&result(cells, &[]), "a");
        let scenarios = section(&html, "a by scenario");
        assert!(scenarios.contains("<th scope=\"row\">fail_stop</th>") && scenarios.contains("largest shard is gone"));
    }

    #[test]
    fn tables_have_captions_drawings_descriptions_and_ids_are_unique() {
        let html = rendered(&result(arena_cells(&["a", "b", "oracle_greedy"], 2), &["b"]), "a");
        assert_eq!(html.matches("<table").count(), html.matches("<caption").count());
        assert_eq!(html.matches("<svg").count(), html.matches("<desc").count());
        let mut ids: Vec<&str> = html.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all);
        for outside in ["http://", "https://", "src=", "<link", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
    }
}
