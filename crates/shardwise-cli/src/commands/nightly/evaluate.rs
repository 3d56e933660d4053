//! May the new version go live: the end of the history is played with it and its rivals, judged, and the champion's alias moved.

use std::sync::{Arc, Mutex};

use miette::{IntoDiagnostic, miette};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shardwise_datasets::{DatasetCard, History};
use shardwise_evaluation::{
    ClosedLoop, Evidence, Fact, SamplePaths, ShadowTest, Verdict, grouped, judge, run as run_closed_loop, until_decided,
};
use shardwise_models::{AliasMove, BundleError, CHAMPION, Judgement, ModelBundle, Registry, RegistryError};
use shardwise_simulator::{Workload, WorldError, WorldSpec, WorldSurvey};
use shardwise_types::{FleetSnapshot, HistoryRecord, PlacementRequest, Timestamp};

use super::failure::{NightFailure, NightResult, history_is_broken, stop_if_interrupted};
use super::report::table;
use super::window::{Measured, Played, Window, learned_from};
use super::{Night, Outcome, TrainedVersion};
use crate::commands::contenders::{contenders, without_model};
use crate::commands::files;
use crate::commands::shadowed::shadow_test;
use crate::output::{self, Stage, note};

/// Seeds of the closed loop begin here; lower ones are for tuning.
const FIRST_SEED: u64 = 11;
/// Policies that need no model and play beside it; the verdict asks for the last two.
const RIVALS: [&str; 5] = ["random", "p2c_in_flight", "least_in_flight", "sed_tab", "sed_tab_lambda"];

/// What the evaluation leaves for the next; `None` when the history has no world to simulate.
#[derive(Serialize, Deserialize)]
pub(crate) struct Judged {
    pub(crate) closed_loop: ClosedLoop,
    shadow: Option<ShadowTest>,
    pub(crate) verdict: Verdict,
    pub(crate) champion: Option<String>,
}

/// A stretch of a history, the end of which is held out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Period {
    pub(crate) from: Timestamp,
    /// Where the held-out part begins.
    pub(crate) test_from: Timestamp,
    pub(crate) to: Timestamp,
}

impl From<&DatasetCard> for Period {
    fn from(card: &DatasetCard) -> Self {
        Self { from: card.from, test_from: card.splits.test.from, to: card.to }
    }
}

/// The held-out end of the history, to be played again, or the last part of a long one.
pub(crate) struct EndOfHistory {
    /// The held-out end, and what comes before it of which it is told.
    period: Period,
    workload: Workload,
    pub(crate) world: WorldSpec,
    measured: Measured,
    /// Share of the workload before it is measured.
    warm_up: f64,
    /// Whether nobody knows the true world, and this one was estimated.
    is_estimated: bool,
}

/// The last request, and the fleet as it was then.
type LastRequest = Option<(PlacementRequest, FleetSnapshot)>;

impl EndOfHistory {
    /// Reads what was known before `to`: arrivals for the closed loop where there is a world, and the last request with the
    /// fleet as it was then. What is held is bounded, however long the history is.
    pub(crate) fn read(history: &History, whole: Period, to: Timestamp) -> NightResult<(Option<Self>, LastRequest)> {
        let test_from = whole.test_from;
        let from = learned_from(test_from, whole);
        let (mut window, mut reports) = (Window::new(test_from), Vec::new());
        let network = history.network();
        let mut fleet = FleetSnapshot::new(Vec::new(), network.clone(), network.default_region.clone())
            .map_err(history_is_broken)?;
        for record in history.records(Some(from), Some(to))? {
            match record? {
                HistoryRecord::Decision(decision) => {
                    // The fleet is kept as the last decision saw it.
                    reports.drain(..).for_each(|report| fleet.apply_report(&report));
                    fleet.router_region.clone_from(&decision.router_region);
                    window.decided(*decision);
                }
                HistoryRecord::Report(report) => reports.push(*report),
                HistoryRecord::Market(minute) => window.heard(minute),
                HistoryRecord::Outcome(_) | HistoryRecord::Shadow(_) | HistoryRecord::Directive(_) => {}
            }
        }
        let last = window.last().map(|last| (last.request.clone(), fleet));
        let (world, counts_from, is_estimated) = match history.world_json() {
            Some(world) => {
                let world: WorldSpec = serde_json::from_str(world).map_err(history_is_broken)?;
                world.check().map_err(history_is_broken)?;
                (world, whole.from, false)
            }
            None => match estimated_world(history, to)? {
                Ok((world, counts_from)) => (world, counts_from, true),
                Err(error) => {
                    note(format!("the history has no world.json and none can be estimated: {error}"));
                    return Ok((None, last));
                }
            },
        };
        let Played { decisions, market, measured } = window.close(whole);
        let workload = Workload::from_decisions(&world, decisions, market, counts_from).map_err(history_is_broken)?;
        let warm_up = measured.warm_up(&workload);
        let period = Period { from, test_from, to };
        Ok((Some(Self { period, workload, world, measured, warm_up, is_estimated }), last))
    }

    /// The held-out end, and as much before it as routers would learn from were all of it measured.
    pub(crate) fn period(&self) -> Period {
        self.period
    }

    /// From where it is measured: from where it is held out, or later.
    pub(crate) fn measured_from(&self) -> Timestamp {
        self.measured.from
    }

    /// What the paths are made of, in words.
    fn setting(&self) -> Vec<Fact> {
        let world = if self.is_estimated { "estimated from the history" } else { "the one that made the history" };
        let Measured { from, requests, learned, held_out, .. } = self.measured;
        let (requests, learned) = (grouped(requests), grouped(learned));
        let mut setting = vec![
            Fact::new("world", world),
            Fact::new("measured", format!("{requests} of them, from {from} on; routers learn from {learned} before")),
        ];
        if self.measured.requests < held_out {
            let of = grouped(held_out);
            setting.push(Fact::new(
                "cut",
                format!(
                    "{of} requests are held out; the last {requests} are played, which is as much as a report holds"
                ),
            ));
        }
        setting
    }

    /// What all contenders are run on.
    pub(crate) fn paths<'a>(&'a self, seeds: &'a [u64]) -> SamplePaths<'a> {
        SamplePaths { world: &self.world, workload: &self.workload, warm_up: self.warm_up, seeds }
    }
}

/// The world that what was known before `to` lets one guess, and the instant that its traces count from.
fn estimated_world(history: &History, to: Timestamp) -> NightResult<Result<(WorldSpec, Timestamp), WorldError>> {
    let stage = Stage::start("estimating the world from the history".to_owned());
    let mut survey = WorldSurvey::new(history.network().clone());
    for record in history.records(None, Some(to))? {
        survey.observe(&record?);
    }
    stop_if_interrupted()?;
    let mut fit = match survey.fit() {
        Ok(fit) => fit,
        Err(error) => return Ok(Err(error)),
    };
    for record in history.records(None, Some(to))? {
        fit.observe(&record?);
    }
    let world = fit.world();
    if let Ok(world) = &world {
        stage.done(format!("{} shards, {} functions", world.shards.len(), world.functions.len()));
    }
    Ok(world.map(|world| (world, fit.from())))
}

/// Seeds of so many replicates.
pub(crate) fn seeds(replicates: u64) -> Vec<u64> {
    (FIRST_SEED..FIRST_SEED + replicates).collect()
}

impl Night<'_> {
    /// Reads the end of the history, and leaves the last request and fleet for a decision.
    pub(super) fn end_of_history(&self, card: &DatasetCard) -> NightResult<Option<EndOfHistory>> {
        let (end, last) = EndOfHistory::read(&self.history, card.into(), self.to)?;
        if let Some((request, fleet)) = last {
            files::write_json(&self.request_file(), &request)?;
            files::write_json(&self.fleet_file(), &fleet)?;
        }
        Ok(end)
    }

    /// Plays the held-out end of the history with the model and its rivals. A version that is champion already was
    /// judged when it became so, and that judgement stands.
    pub(super) fn evaluate(
        &self,
        key: &str,
        trained: &TrainedVersion,
        bundle: &Arc<ModelBundle>,
        end: Option<&EndOfHistory>,
    ) -> NightResult<Option<Judged>> {
        let Some(end) = end else {
            note("there is no world to simulate, so there is no closed loop and the model is not promoted");
            return Ok(None);
        };
        let alias = self.registry.alias(CHAMPION).into_diagnostic()?;
        let is_champion = alias.as_deref() == Some(trained.version.as_str());
        let champion = if is_champion { None } else { champion_of(&self.registry)? };
        let against = champion.as_ref().map(|champion| champion.version().to_owned());
        let (replicates, most) = (self.options.replicates, self.options.most_replicates());
        let key = format!("{key} {}, {replicates} to {most} replicates", trained.version);
        let still_stands = |judged: &Judged| is_champion || judged.champion == against;
        let contest = Contest {
            bundle,
            version: &trained.version,
            champion: champion.as_ref(),
            is_champion,
            rmse: [trained.metrics.rmse, trained.metrics.table_rmse].map(Some),
            end,
        };
        let judged = self.once("evaluate", &key, still_stands, || contest.judge(replicates, most))?;
        Ok(Some(judged))
    }

    /// Moves the champion alias when the verdict allows; returns what became of this version.
    pub(super) fn publish(&self, trained: &TrainedVersion, judged: Option<&Judged>) -> NightResult<Outcome> {
        let champion = self.registry.alias(CHAMPION).into_diagnostic()?;
        if champion.as_deref() == Some(trained.version.as_str()) {
            return Ok(Outcome::Champion);
        }
        let Some(judged) = judged else { return Ok(Outcome::NotJudged) };
        let sentences = |failing_only: bool| -> Vec<String> {
            let reasons = judged.verdict.reasons.iter().filter(|reason| !(failing_only && reason.holds));
            reasons.map(ToString::to_string).collect()
        };
        let by = AliasMove {
            at: output::wall_clock(),
            who: "nightly".to_owned(),
            why: sentences(false).join(" "),
            metrics: json!({ "exec": trained.metrics, "closed_loop": table(&judged.closed_loop) }),
            judgement: Some(Judgement {
                version: trained.version.clone(),
                may_go_live: judged.verdict.may_go_live,
                reasons: sentences(true),
            }),
            ..AliasMove::default()
        };
        if !judged.verdict.may_go_live {
            // Whoever promotes it by hand is told.
            self.registry.record_judgement(&by).into_diagnostic()?;
            return Ok(Outcome::Refused);
        }
        // Who rolled back or promoted during the night knew more.
        if judged.champion.is_some() && judged.champion != champion {
            return Err(miette!(
                help = "run the same command again to judge against the present one",
                "the champion was changed while this version was judged"
            )
            .into());
        }
        self.registry.set_alias_if(CHAMPION, &trained.version, champion.as_deref(), &by).into_diagnostic()?;
        Ok(Outcome::Promoted)
    }
}

/// The present champion; `None` when there is none, or when it was made for other features, so that no router of this
/// version could serve it.
pub(crate) fn champion_of(registry: &Registry) -> NightResult<Option<Arc<ModelBundle>>> {
    match registry.load(CHAMPION) {
        Ok(champion) => Ok(Some(Arc::new(champion))),
        Err(RegistryError::NoSuchAlias { .. }) => Ok(None),
        Err(RegistryError::Bundle(error @ BundleError::Fingerprint { .. })) => {
            note(format!("the champion is left out: {error}"));
            Ok(None)
        }
        Err(error) => Err(error).into_diagnostic()?,
    }
}

/// A model before its judge.
pub(crate) struct Contest<'a> {
    pub(crate) bundle: &'a Arc<ModelBundle>,
    pub(crate) version: &'a str,
    /// The champion that it would replace.
    pub(crate) champion: Option<&'a Arc<ModelBundle>>,
    /// Whether it is the champion itself, which has nobody to replace or to watch.
    pub(crate) is_champion: bool,
    /// Errors on the later split of its execution head and of its service table alone.
    pub(crate) rmse: [Option<f64>; 2],
    pub(crate) end: &'a EndOfHistory,
}

impl Contest<'_> {
    /// Judges it on so many replicates, or more while that decides nothing.
    pub(crate) fn judge(&self, replicates: u64, most: u64) -> NightResult<Judged> {
        until_decided(replicates, most, |replicates| self.judge_on(replicates), |judged: &Judged| &judged.verdict)
    }

    fn judge_on(&self, replicates: u64) -> NightResult<Judged> {
        let seeds = seeds(replicates);
        let champion = self.champion.map(|champion| champion.version());
        let closed_loop = closed_loop(Some(self.bundle), self.champion, self.end, &seeds)?;
        stop_if_interrupted()?;
        let shadow = (!self.is_champion).then(|| shadow(self.bundle, self.champion, self.end, &seeds)).transpose()?;
        let [exec_rmse, table_rmse] = self.rmse;
        let verdict = judge(&Evidence {
            closed_loop: &closed_loop,
            shadow: shadow.as_ref(),
            candidate_version: self.version,
            champion_version: if self.is_champion { Some(self.version) } else { champion },
            exec_rmse,
            table_rmse,
        });
        Ok(Judged { closed_loop, shadow, verdict, champion: champion.map(str::to_owned) })
    }
}

/// Plays the model, or a router without one, and its rivals on these seeds.
pub(crate) fn closed_loop(
    bundle: Option<&Arc<ModelBundle>>,
    champion: Option<&Arc<ModelBundle>>,
    end: &EndOfHistory,
    seeds: &[u64],
) -> NightResult<ClosedLoop> {
    let runtime = end.world.timing.runtime();
    let contenders = match bundle {
        Some(bundle) => contenders(bundle, champion, &RIVALS, runtime),
        None => without_model(&RIVALS, runtime),
    };
    let stage = Mutex::new(Stage::start(format!(
        "closed loop: {} policies × {} seeds × {} requests",
        contenders.len(),
        seeds.len(),
        end.workload.arrivals.len()
    )));
    let progress = |policy: &str, done: usize, all: usize| {
        let mut stage = stage.lock().expect("no holder panics");
        stage.count(done as u64, all as u64, format!("{done} of {all} runs, last {policy}"));
    };
    let mut closed_loop = run_closed_loop(&end.paths(seeds), &contenders, &progress, output::interrupt_flag())?;
    closed_loop.setting.extend(end.setting());
    stage.into_inner().expect("no holder panics").done("all on the same sample paths");
    Ok(closed_loop)
}

/// Lets the model watch the champion decide, or its own service table where there is none.
fn shadow(
    bundle: &Arc<ModelBundle>,
    champion: Option<&Arc<ModelBundle>>,
    end: &EndOfHistory,
    seeds: &[u64],
) -> NightResult<ShadowTest> {
    let stage = Stage::start("watching decisions beside what serves".to_owned());
    let live = champion.map_or_else(|| Arc::new(bundle.with_exec(None)), Arc::clone);
    let test = shadow_test(&end.paths(seeds), &live, bundle).map_err(NightFailure::of_stoppable)?;
    stage.done(format!("{} executions foretold by both", test.compared));
    Ok(test)
}
