//! Plays a model and a rival, and gathers what became of each choice while it is made.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use shardwise_features::{Answer, DecisionContext, ServiceTable};
use shardwise_policies::Policy;
use shardwise_simulator::{AnswerRecord, Choice, Coverage, Foreseen, Recorder, SimulateOptions};
use shardwise_types::{CostTerms, HistoryRecord, RiskLevel, ShardId, ShardPrediction};

use super::Played;
use super::figures::{ConfidenceFigures, ConfidencePoint, CoverageFigures, DeciderFigures, Regret, RegretParts};
use super::slices::{Bands, LOADS, Outcomes, slices};
use super::worst::{Worst, differences};
use crate::closed_loop::run_path;
use crate::{CANDIDATE, Contender, EvaluationError, SamplePaths};

/// Every so many choices one is held against the truth, which costs a look at every shard's queue.
const REGRET_EVERY: usize = 16;

/// What a placer said last, for the one that plays it; one for all routers of a run, which decide one after the other.
pub type Said = Arc<Mutex<Option<Spoken>>>;

/// Asks a placer, which stays as it is, what each eligible shard costs in the state in which it has just chosen the one at this
/// position, by position in the context's fleet.
pub type Weigh = Arc<dyn Fn(&DecisionContext<'_>, usize) -> Vec<(usize, CostTerms)> + Send + Sync>;

/// A prediction, and what can be asked about it.
pub struct Spoken {
    /// The prediction.
    pub prediction: ShardPrediction,
    /// The service table that it was made with.
    pub service_table: Option<Arc<ServiceTable>>,
    /// What all shards cost by whoever made it.
    pub weigh: Weigh,
}

type MakeSpeaker = dyn Fn(&Said) -> Box<dyn Policy> + Send + Sync;

/// The model under test: a policy that leaves each of its predictions where it is told.
pub struct Speaker {
    /// Makes one policy object; it is called once per router and run.
    pub make: Box<MakeSpeaker>,
}

/// Plays the model and the rival on all paths and says what became of the choices, and how many requests went to each shard.
/// `progress` hears the runs done and the runs in all.
///
/// # Errors
/// When a run fails or measures nothing, or it was interrupted.
pub fn play(
    paths: &SamplePaths<'_>,
    model: &Speaker,
    rival: &Contender,
    progress: &mut dyn FnMut(u64, u64),
    interrupted: &AtomicBool,
) -> Result<(Played, BTreeMap<ShardId, f64>), EvaluationError> {
    let bands = Bands::new(paths);
    let options = SimulateOptions { warm_up: paths.warm_up, regret_every: REGRET_EVERY, ..SimulateOptions::default() };
    let runs = 2 * paths.seeds.len() as u64;
    let mut worst = Worst::new(paths.world.timing.runtime());
    let (mut regrets, mut rival_regret) = (Regrets::default(), Mean::default());
    let mut answers = AnswerRecord::default();
    let mut coverage = CoverageBy::default();
    let mut traffic = BTreeMap::new();
    let mut outcomes = Vec::new();
    for (done, &seed) in paths.seeds.iter().enumerate() {
        let said = Said::default();
        let mut watch = Watch::new(paths, Some(&said), Some((&mut worst, seed)));
        let make = || (model.make)(&said);
        let summary = run_path(paths, seed, (CANDIDATE, &make), &options, &mut watch, interrupted)?;
        progress(2 * done as u64 + 1, runs);
        let mut other = Watch::new(paths, None, None);
        let rival_summary = run_path(paths, seed, (&rival.name, &*rival.make), &options, &mut other, interrupted)?;
        progress(2 * done as u64 + 2, runs);
        if let Some(of_run) = &summary.answers {
            answers.add(of_run);
        }
        if let Some(ms) = rival_summary.regret_ms {
            rival_regret.add(ms);
        }
        regrets.add(&watch.regrets);
        coverage.add(paths, &bands, &watch);
        for seen in &watch.seen {
            if let Some(shard) = watch.shards.get(usize::from(seen.shard)) {
                *traffic.entry(shard.clone()).or_insert(0.0) += 1.0;
            }
        }
        outcomes.push(Outcomes { ours: watch.latencies(), rival: other.latencies() });
    }
    let played = Played {
        rival: rival.name.clone(),
        seeds: paths.seeds.to_vec(),
        requests: outcomes.iter().map(Outcomes::requests).sum(),
        coverage: coverage.figures(),
        confidence: confidence(&answers),
        regret: regrets.figures(rival_regret.value()),
        slices: slices(paths, &bands, &outcomes),
        worst: worst.decisions,
    };
    Ok((played, traffic))
}

/// What became of one arrival.
#[derive(Clone, Copy)]
struct Seen {
    /// Effective latency; NaN until it is settled.
    latency_ms: f32,
    /// Latencies that were named; NaN without an answer.
    quantiles_ms: [f32; 3],
    /// By place among those that were chosen.
    shard: u16,
}

const NOT_SEEN: Seen = Seen { latency_ms: f32::NAN, quantiles_ms: [f32::NAN; 3], shard: u16::MAX };

/// Gathers a run.
struct Watch<'a> {
    timeout_ms: f32,
    seen: Vec<Seen>,
    shards: Vec<ShardId>,
    regrets: Regrets,
    said: Option<&'a Said>,
    worst: Option<(&'a mut Worst, u64)>,
}

impl<'a> Watch<'a> {
    fn new(paths: &SamplePaths<'_>, said: Option<&'a Said>, worst: Option<(&'a mut Worst, u64)>) -> Self {
        Self {
            timeout_ms: paths.world.timing.timeout_ms as f32,
            seen: vec![NOT_SEEN; paths.workload.arrivals.len()],
            shards: Vec::new(),
            regrets: Regrets::default(),
            said,
            worst,
        }
    }

    fn latencies(&self) -> Vec<f32> {
        self.seen.iter().map(|seen| seen.latency_ms).collect()
    }

    fn judge(&mut self, choice: &Choice<'_>) {
        let own = choice.foreseen.iter().find(|(position, _)| *position == choice.decision.chosen);
        let best = choice.foreseen.iter().min_by(|a, b| a.1.latency_ms.total_cmp(&b.1.latency_ms));
        let (Some((_, own)), Some((_, best))) = (own, best) else { return };
        let parts = differences(own, best);
        self.regrets.count(choice, own, best, &parts);
        let spoken = self.said.and_then(|said| said.lock().expect("no holder panics").take());
        if let (Some((worst, seed)), Some(spoken)) = (&mut self.worst, spoken) {
            worst.look(*seed, choice, own.latency_ms - best.latency_ms, parts, &spoken);
        }
    }
}

impl Recorder for Watch<'_> {
    fn wants_history(&self) -> bool {
        false
    }

    fn record(&mut self, _record: HistoryRecord) -> std::ops::ControlFlow<()> {
        std::ops::ControlFlow::Continue(())
    }

    fn choice(&mut self, choice: &Choice<'_>) {
        let shard = &choice.context.fleet.shards[choice.decision.chosen].id;
        let place = self.shards.iter().position(|known| known == shard).unwrap_or_else(|| {
            self.shards.push(shard.clone());
            self.shards.len() - 1
        });
        let quantiles_ms =
            choice.decision.forecast.answer.map_or([f32::NAN; 3], |Answer { quantiles_ms, .. }| quantiles_ms);
        self.seen[choice.arrival] = Seen { latency_ms: f32::NAN, quantiles_ms, shard: place as u16 };
        self.judge(choice);
    }

    fn settled(&mut self, arrival: usize, good_ms: Option<f32>) {
        self.seen[arrival].latency_ms = good_ms.unwrap_or(self.timeout_ms);
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    n: u64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.n += 1;
    }

    fn value(self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }
}

/// Sums of regret.
#[derive(Default)]
struct Regrets {
    choices: u64,
    ms: f64,
    right: u64,
    parts: RegretParts,
    by_decider: BTreeMap<&'static str, (u64, f64)>,
}

impl Regrets {
    fn count(&mut self, choice: &Choice<'_>, own: &Foreseen, best: &Foreseen, parts: &RegretParts) {
        let ms = own.latency_ms - best.latency_ms;
        self.choices += 1;
        self.ms += ms;
        self.right += u64::from(own.latency_ms <= 1.1 * best.latency_ms + 5.0);
        self.add_parts(parts);
        let decider = self.by_decider.entry(choice.decision.decided_by.as_str()).or_default();
        *decider = (decider.0 + 1, decider.1 + ms);
    }

    fn add_parts(&mut self, parts: &RegretParts) {
        let RegretParts { network_ms, wait_ms, execution_ms, cold_ms, failure_ms } = parts;
        self.parts.network_ms += network_ms;
        self.parts.wait_ms += wait_ms;
        self.parts.execution_ms += execution_ms;
        self.parts.cold_ms += cold_ms;
        self.parts.failure_ms += failure_ms;
    }

    fn add(&mut self, other: &Self) {
        self.choices += other.choices;
        self.ms += other.ms;
        self.right += other.right;
        self.add_parts(&other.parts);
        for (decider, (choices, ms)) in &other.by_decider {
            let sum = self.by_decider.entry(decider).or_default();
            *sum = (sum.0 + choices, sum.1 + ms);
        }
    }

    fn figures(&self, rival_mean_ms: Option<f64>) -> Option<Regret> {
        let n = self.choices as f64;
        let RegretParts { network_ms, wait_ms, execution_ms, cold_ms, failure_ms } = self.parts;
        let mut by_decider: Vec<DeciderFigures> = self
            .by_decider
            .iter()
            .map(|(decider, (choices, ms))| DeciderFigures {
                decided_by: (*decider).to_owned(),
                choices: *choices,
                mean_ms: ms / *choices as f64,
                share: if self.ms > 0.0 { ms / self.ms } else { 0.0 },
            })
            .collect();
        by_decider.sort_by(|a, b| b.share.total_cmp(&a.share));
        (self.choices > 0).then(|| Regret {
            choices: self.choices,
            mean_ms: self.ms / n,
            rival_mean_ms,
            right: self.right as f64 / n,
            parts: RegretParts {
                network_ms: network_ms / n,
                wait_ms: wait_ms / n,
                execution_ms: execution_ms / n,
                cold_ms: cold_ms / n,
                failure_ms: failure_ms / n,
            },
            by_decider,
        })
    }
}

/// Coverage of the latencies that were named, by what requests have in common.
#[derive(Default)]
struct CoverageBy {
    all: Coverage,
    risk: [Coverage; RiskLevel::ALL.len()],
    load: [Coverage; LOADS.len()],
    shard: BTreeMap<ShardId, Coverage>,
}

impl CoverageBy {
    fn add(&mut self, paths: &SamplePaths<'_>, bands: &Bands, watch: &Watch<'_>) {
        let mut by_shard = vec![Coverage::default(); watch.shards.len()];
        let answered = |seen: &Seen| !seen.latency_ms.is_nan() && !seen.quantiles_ms[0].is_nan();
        for (arrival, seen) in watch.seen.iter().enumerate().filter(|(_, seen)| answered(seen)) {
            let risk = paths.workload.arrivals[arrival].request.risk;
            self.all.count(seen.quantiles_ms, seen.latency_ms);
            self.risk[usize::from(risk.rank())].count(seen.quantiles_ms, seen.latency_ms);
            self.load[usize::from(bands.load[arrival])].count(seen.quantiles_ms, seen.latency_ms);
            by_shard[usize::from(seen.shard)].count(seen.quantiles_ms, seen.latency_ms);
        }
        for (shard, coverage) in watch.shards.iter().zip(&by_shard) {
            self.shard.entry(shard.clone()).or_default().add(coverage);
        }
    }

    fn figures(&self) -> Vec<CoverageFigures> {
        let risks = RiskLevel::ALL.iter().zip(&self.risk).map(|(risk, coverage)| ("risk", risk.as_str(), coverage));
        let loads = LOADS.iter().zip(&self.load).map(|(load, coverage)| ("load", *load, coverage));
        let shards = self.shard.iter().map(|(shard, coverage)| ("shard", shard.as_str(), coverage));
        let all = std::iter::once(("all", "all requests", &self.all)).chain(risks).chain(loads).chain(shards);
        all.filter_map(|(by, of, coverage)| {
            let ([p50, p90, p99], requests) = (coverage.shares()?, coverage.requests);
            Some(CoverageFigures { by: by.to_owned(), of: of.to_owned(), requests, p50, p90, p99 })
        })
        .collect()
    }
}

fn confidence(answers: &AnswerRecord) -> Option<ConfidenceFigures> {
    let points: Vec<ConfidencePoint> = answers
        .by_confidence
        .iter()
        .filter(|bin| bin.choices > 0)
        .map(|bin| ConfidencePoint {
            confidence: bin.confidence / bin.choices as f64,
            right: bin.right as f64 / bin.choices as f64,
            choices: bin.choices,
        })
        .collect();
    Some(ConfidenceFigures {
        choices: points.iter().map(|point| point.choices).sum(),
        calibration_error: answers.calibration_error()?,
        points,
    })
}
