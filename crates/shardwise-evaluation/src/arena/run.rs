//! Runs the cells of a plan, in parallel, and audits every policy.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use shardwise_simulator::{
    AnswerRecord, Bug, Finding, NoRecorder, Player, RunSummary, Scenario, SimulateOptions, Workload, WorldSpec,
    simulate_with,
};

use super::plan::{ArenaPlan, CellKey, CellPlan, WARM_UP};
use super::{ArenaResult, calibrations, paired};
use crate::closed_loop::metrics_of;
use crate::{EvaluationError, Metrics};

/// Regret is measured on every so many requests: it looks at every shard's queue.
pub(super) const REGRET_EVERY: usize = 64;
/// A decision may take so long, in µs, at the median and at the 95th percentile. A policy that is slower is too slow to
/// route events whose answers take tens of ms. On a busy machine a few decisions in a hundred wait for a core for some
/// ms, so p99 would judge the machine.
pub(crate) const DECISION_BUDGET_US: [f64; 2] = [250.0, 2_000.0];

/// A model on the specification's features cannot tell shards apart by their state, so that it names one shard for all.
/// It is shown as it is: that is a finding about the features, not a bug of the policy.
const STATIC_RIVAL: &str = "spec_feature_model";

/// Makes policies by name.
pub trait Roster: Sync {
    /// Makes one object for one router of a fleet; `with_model` is false where the scenario takes the model away. `None`
    /// when the policy cannot take part in that.
    ///
    /// # Errors
    /// Says what is missing, such as a model for that fleet.
    fn player(&self, policy: &str, fleet: u64, world: &WorldSpec, with_model: bool) -> Result<Option<Player>, String>;
}

/// How one policy did in one cell. Times are effective latencies: what failed or timed out counts as the timeout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Which cell.
    #[serde(flatten)]
    pub key: CellKey,
    /// Which policy.
    pub policy: String,
    /// Its figures, measured as in every closed loop.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Objectives missed in the worst risk tier less the best, in percentage points.
    pub risk_gap_pp: f64,
    /// How much later than on the best eligible shard a request was foreseen to be done, in ms; mean over every 64th.
    pub regret: Option<f64>,
    /// How true its answers were; `None` when it gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<AnswerRecord>,
    /// Median time of a decision in µs; `None` for what does not decide as a router does.
    pub decide_us_p50: Option<f64>,
    /// 99th percentile of the same.
    pub decide_us_p99: Option<f64>,
    /// Requests that were measured.
    pub requests: u64,
    /// Copies that were sent while the first was out.
    pub copies: u64,
    /// Every end of a request in order, as a hash: the same whenever the cell is run.
    pub log_hash: String,
}

/// A bug of a policy, with the first cell that shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// The policy.
    pub policy: String,
    /// The kind of bug.
    pub bug: Bug,
    /// Cells that show it.
    pub cells: usize,
    /// Decisions that show it, over all cells.
    pub count: u64,
    /// The first case.
    pub detail: String,
    /// The first cell that shows it.
    pub first: CellKey,
}

/// A finished run: a row, unless the policy broke down or takes no part, and what the audit found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunCell {
    /// Which cell.
    pub key: CellKey,
    /// Which policy.
    pub policy: String,
    /// Its figures; `None` when it panicked, or takes no part in this scenario.
    pub cell: Option<Cell>,
    /// What it did wrong.
    pub findings: Vec<Finding>,
    /// Requests of the run, measured or not, and the core time that it took in s.
    pub cost: (u64, f64),
}

/// How far an arena is.
#[derive(Debug, Clone, Copy)]
pub struct ArenaProgress<'a> {
    /// What was run last.
    pub run: &'a RunCell,
    /// Runs done.
    pub done: usize,
    /// Runs in all.
    pub all: usize,
}

/// Runs all cells that `earlier` does not hold already, in parallel. The result does not depend on the number of
/// threads.
///
/// `clock_ns` reads a clock, to time decisions and runs. `progress` hears of every new run; setting `interrupted` ends
/// the arena before the next run.
///
/// # Errors
/// When the plan is empty or names something twice, a policy cannot be made, a world is not sound, a run contradicts
/// itself, or it was interrupted.
pub fn run_arena(
    plan: &ArenaPlan,
    roster: &dyn Roster,
    clock_ns: fn() -> u64,
    earlier: &[RunCell],
    progress: &(dyn Fn(&ArenaProgress<'_>) + Sync),
    interrupted: &AtomicBool,
) -> Result<ArenaResult, EvaluationError> {
    check(plan)?;
    let started_ns = clock_ns();
    let (cells, all) = (plan.cells(), plan.runs());
    let done = AtomicUsize::new(0);
    let arena = Arena { plan, roster, clock_ns, interrupted };
    let run_cell = |(place, cell): (usize, &CellPlan)| -> Result<Vec<RunCell>, EvaluationError> {
        let key = cell.key();
        let known = |policy: &String| earlier.iter().find(|run| run.key == key && run.policy == *policy).cloned();
        let found: Vec<Option<RunCell>> = plan.policies.iter().map(known).collect();
        let made = if found.iter().all(Option::is_some) { None } else { Some(arena.play(cell)?) };
        let runs = plan.policies.par_iter().zip(found).map(|(policy, found)| {
            let Some((world, workload)) = made.as_ref().filter(|_| found.is_none()) else {
                done.fetch_add(1, Ordering::Relaxed);
                return Ok(found.expect("a cell that was not made was found"));
            };
            let run = arena.run(cell, policy, world, workload, place == 0)?;
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            progress(&ArenaProgress { run: &run, done, all });
            Ok(run)
        });
        runs.collect()
    };
    // Collected in the order of the plan, so that threads change nothing.
    let runs: Vec<Vec<RunCell>> = cells.par_iter().enumerate().map(run_cell).collect::<Result<_, _>>()?;
    let runs: Vec<RunCell> = runs.into_iter().flatten().collect();
    let (requests, busy_s) = runs.iter().fold((0, 0.0), |sum, run| (sum.0 + run.cost.0, sum.1 + run.cost.1));
    let problems = problems(&runs);
    let cells: Vec<Cell> = runs.into_iter().filter_map(|run| run.cell).collect();
    let sound = |cell: &&Cell| !problems.iter().any(|problem| problem.policy == cell.policy);
    Ok(ArenaResult {
        paired: paired(&cells.iter().filter(sound).cloned().collect::<Vec<_>>()),
        calibration: calibrations(&cells),
        cells,
        problems,
        requests_per_s: requests as f64 / f64::max(busy_s, 1e-9),
        elapsed_s: clock_ns().saturating_sub(started_ns) as f64 / 1e9,
    })
}

fn check(plan: &ArenaPlan) -> Result<(), EvaluationError> {
    let lists = [
        ("policies", plan.policies.len()),
        ("fleets", plan.fleets.len()),
        ("seeds", plan.seeds.len()),
        ("loads", plan.loads.len()),
        ("numbers of routers", plan.routers.len()),
        ("ages of reports", plan.report_ages_s.len()),
        ("distances", plan.nets.len()),
        ("scenarios", plan.scenarios.len()),
    ];
    match lists.into_iter().find(|(_, length)| *length == 0) {
        Some((list, _)) => Err(EvaluationError::EmptyList(list)),
        None => Ok(()),
    }
}

struct Arena<'a> {
    plan: &'a ArenaPlan,
    roster: &'a dyn Roster,
    clock_ns: fn() -> u64,
    interrupted: &'a AtomicBool,
}

impl Arena<'_> {
    fn play(&self, cell: &CellPlan) -> Result<(WorldSpec, Workload), EvaluationError> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(EvaluationError::Interrupted);
        }
        Ok(self.plan.play(cell)?)
    }

    fn run(
        &self,
        cell: &CellPlan,
        policy: &str,
        world: &WorldSpec,
        workload: &Workload,
        twice: bool,
    ) -> Result<RunCell, EvaluationError> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(EvaluationError::Interrupted);
        }
        let started_ns = (self.clock_ns)();
        let outcome = self.simulate(cell, policy, world, workload)?;
        let seconds = (self.clock_ns)().saturating_sub(started_ns) as f64 / 1e9;
        let mut run = RunCell {
            key: cell.key(),
            policy: policy.to_owned(),
            cell: None,
            findings: Vec::new(),
            cost: (workload.arrivals.len() as u64, seconds),
        };
        let summary = match outcome {
            Ok(Some(summary)) => summary,
            Ok(None) => return Ok(run),
            Err(panic) => {
                run.findings.push(Finding { bug: Bug::Panic, count: 1, detail: panic });
                return Ok(run);
            }
        };
        let is_known = |finding: &&Finding| policy == STATIC_RIVAL && finding.bug == Bug::OneShardOnly;
        run.findings = summary.findings.iter().filter(|finding| !is_known(finding)).cloned().collect();
        run.findings.extend(slowness(&summary));
        if twice {
            let again = self.simulate(cell, policy, world, workload)?;
            run.findings.extend(difference(&summary, again.ok().flatten().as_ref()));
        }
        run.cell = Some(row(cell.key(), policy, &summary));
        Ok(run)
    }

    /// The outer error is ours, the inner one is the text of the policy's panic.
    fn simulate(
        &self,
        cell: &CellPlan,
        policy: &str,
        world: &WorldSpec,
        workload: &Workload,
    ) -> Result<Result<Option<RunSummary>, String>, EvaluationError> {
        let wrong =
            |problem: String| EvaluationError::Simulation { policy: policy.to_owned(), seed: cell.seed, problem };
        let with_model = !Scenario::takes_model(cell.scenario);
        let player = |_| self.roster.player(policy, cell.fleet, world, with_model);
        let players: Option<Vec<Player>> = world.routers.iter().map(player).collect::<Result<_, _>>().map_err(wrong)?;
        let Some(players) = players else { return Ok(Ok(None)) };
        let decides = players.iter().all(|player| matches!(player, Player::Policy(_)));
        let options = SimulateOptions {
            warm_up: WARM_UP,
            regret_every: REGRET_EVERY,
            stopwatch: decides.then_some(self.clock_ns),
        };
        let run = || simulate_with(world, workload, cell.seed, players, &mut NoRecorder, &options);
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(summary)) => Ok(Ok(Some(summary))),
            Ok(Err(error)) => Err(wrong(error.to_string())),
            Err(panic) => Ok(Err(text_of(panic.as_ref()))),
        }
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

fn slowness(summary: &RunSummary) -> Option<Finding> {
    let [p50, p95, _] = summary.decide_us?;
    let [most_p50, most_p95] = DECISION_BUDGET_US;
    (p50 > most_p50 || p95 > most_p95).then(|| Finding {
        bug: Bug::SlowDecisions,
        count: 1,
        detail: format!("{p50:.0} µs at the median and {p95:.0} µs at p95; {most_p50} and {most_p95} are allowed"),
    })
}

fn difference(first: &RunSummary, again: Option<&RunSummary>) -> Option<Finding> {
    let same = again.is_some_and(|again| again.log_hash == first.log_hash);
    (!same).then(|| Finding {
        bug: Bug::NotRepeatable,
        count: 1,
        detail: "two runs of the first cell differ".to_owned(),
    })
}

fn row(key: CellKey, policy: &str, run: &RunSummary) -> Cell {
    Cell {
        key,
        policy: policy.to_owned(),
        metrics: metrics_of(run),
        risk_gap_pp: run.risk_gap_pp,
        regret: run.regret_ms,
        answers: run.answers.clone(),
        decide_us_p50: run.decide_us.map(|[p50, ..]| p50),
        decide_us_p99: run.decide_us.map(|[.., p99]| p99),
        requests: run.requests,
        copies: run.counts.copies,
        log_hash: format!("{:016x}", run.log_hash),
    }
}

/// Findings by policy and kind, the first cell of each named.
fn problems(runs: &[RunCell]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for run in runs {
        for finding in &run.findings {
            let known = problems.iter_mut().find(|known| known.policy == run.policy && known.bug == finding.bug);
            match known {
                Some(known) => (known.cells, known.count) = (known.cells + 1, known.count + finding.count),
                None => problems.push(Problem {
                    policy: run.policy.clone(),
                    bug: finding.bug,
                    cells: 1,
                    count: finding.count,
                    detail: finding.detail.clone(),
                    first: run.key.clone(),
                }),
            }
        }
    }
    problems
}
