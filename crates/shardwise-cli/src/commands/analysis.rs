//! Why a model decides as it does, and where: its choices on the paths that judge it, its trees on what the history logged.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use miette::IntoDiagnostic;
use rand::Rng;
use shardwise_datasets::{History, Replay, rows_drift};
use shardwise_evaluation::{
    Analysis, Contender, Drift, DriftRow, LoggedError, LoggedRows, STANDARD, Said, Speaker, Spoken, Validated,
    ValidatedShard, Weigh, importance, play,
};
use shardwise_features::{DecisionContext, DecisionFeatures, FEATURE_COUNT, FeatureVector, ServiceTable};
use shardwise_inference::{Placement, Placer};
use shardwise_models::{ExecHead, ModelBundle};
use shardwise_policies::{Decision, Observed, Policy, Sed, by_name};
use shardwise_simulator::validate;
use shardwise_types::{HistoryRecord, NoEligibleShard, ShardId};

use super::nightly::EndOfHistory;
use super::placers::{MODEL_POLICY, placer};
use crate::output::{self, Stage};

/// Paths on which single choices are looked at.
const MOST_PATHS: usize = 2;
/// Logged decisions that are looked at before the held-out period and in it, about.
const MOST_LOGGED: u64 = 40_000;
/// Share of the time before the held-out period in which routers come to know what they would know.
const WARM_UP: f64 = 0.2;
/// Rows that are explained.
const MOST_EXPLAINED: usize = 4_000;
/// What routers without a model are held against.
const WITHOUT_TABLE: &str = "sed_tab_lambda";

/// Looks into a model, or into what routers do without one.
pub(crate) fn analyse(
    history: &History,
    end: &EndOfHistory,
    bundle: Option<&Arc<ModelBundle>>,
    seeds: &[u64],
) -> miette::Result<Analysis> {
    let stage = Stage::start("reading what was logged".to_owned());
    let table = bundle.map(|bundle| bundle.service_table());
    let logged = Logged::read(history, end, table)?;
    stage.done(format!("{} decisions of the held-out period, {} before", logged.held_out.len(), logged.before.len()));
    output::stop_if_interrupted()?;

    let mut stage = Stage::start("looking at single choices".to_owned());
    let runtime = end.world.timing.runtime();
    let model = bundle.cloned();
    let speaker =
        Speaker { make: Box::new(move |said: &Said| Box::new(Speaking::new(placer(model.as_ref(), runtime), said))) };
    let rival = match bundle.map(|bundle| bundle.service_table()) {
        Some(table) => Contender::new(STANDARD, move || Box::new(Sed::offline(Arc::clone(&table), runtime))),
        None => Contender::new(WITHOUT_TABLE, move || by_name(WITHOUT_TABLE, runtime).expect("a known policy")),
    };
    let seeds = &seeds[..seeds.len().min(MOST_PATHS)];
    let mut progress = |done: u64, all: u64| stage.count(done, all, format!("{done} of {all} runs"));
    let (played, traffic) =
        play(&end.paths(seeds), &speaker, &rival, &mut progress, output::interrupt_flag()).into_diagnostic()?;
    stage.done(format!("{} requests", played.requests));

    let head = bundle.and_then(|bundle| bundle.exec());
    let stage = Stage::start("explaining predictions".to_owned());
    let importance = head.and_then(|head| importance(head, &logged.held_out, MOST_EXPLAINED));
    stage.done(importance.as_ref().map_or("nothing to explain".to_owned(), |found| format!("{} rows", found.rows)));
    let errors = head.map_or_else(Vec::new, |head| {
        let of = |period: &str, rows: &LoggedRows| logged_error(period, head, rows);
        [of("before", &logged.before), of("held out", &logged.held_out)].into_iter().flatten().collect()
    });
    let drift: Vec<DriftRow> = rows_drift(&logged.before.features, &logged.held_out.features)
        .into_iter()
        .map(|row| DriftRow { feature: row.column.to_owned(), psi: row.psi, ks: row.ks })
        .collect();
    Ok(Analysis {
        validated: validated(&traffic, &logged.traffic)?,
        played: Some(played),
        importance,
        drift: (!drift.is_empty()).then(|| Drift::new(drift)),
        logged: errors,
    })
}

/// A placer that leaves what it said.
struct Speaking {
    placer: Arc<Placer>,
    weigh: Weigh,
    said: Said,
}

impl Speaking {
    fn new(placer: Placer, said: &Said) -> Self {
        let placer = Arc::new(placer);
        let asked = Arc::clone(&placer);
        let weigh: Weigh = Arc::new(move |context, chosen| {
            let weighed = asked.revisit(context, chosen).map(|revisited| revisited.candidates).unwrap_or_default();
            weighed.iter().map(|weighed| (weighed.position, weighed.terms)).collect()
        });
        Self { placer, weigh, said: Arc::clone(said) }
    }
}

impl Policy for Speaking {
    fn name(&self) -> &str {
        MODEL_POLICY
    }

    fn decide(&mut self, context: &DecisionContext<'_>, _rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        let Placement { prediction, decision, service_table } = self.placer.place(context)?;
        let spoken = Spoken { prediction, service_table, weigh: Arc::clone(&self.weigh) };
        *self.said.lock().expect("no holder panics") = Some(spoken);
        Ok(decision)
    }

    fn on_response(&mut self, observed: &Observed<'_>) {
        self.placer.learn(observed);
    }

    fn service_table(&self) -> Option<Arc<ServiceTable>> {
        self.placer.service_table()
    }
}

/// A sample of the logged decisions with what became of them.
#[derive(Default)]
struct Logged {
    before: LoggedRows,
    held_out: LoggedRows,
    /// All requests of what is measured by shard.
    traffic: BTreeMap<ShardId, f64>,
}

impl Logged {
    /// Replays the end of the history with the service table of the model.
    fn read(history: &History, end: &EndOfHistory, table: Option<Arc<ServiceTable>>) -> miette::Result<Self> {
        let period = end.period();
        let decisions = history.row_counts().get("decisions").copied().unwrap_or(0);
        let every = decisions.div_ceil(MOST_LOGGED).max(1);
        let mut replay = Replay::new(history.network().clone());
        replay.set_table(table);
        let mut logged = Self::default();
        // Rows of decisions whose outcome is not there yet, and whether they are held out.
        let mut open: HashMap<u64, (bool, usize)> = HashMap::new();
        let mut count = 0_u64;
        // Routers that start with nothing to remember are another population than those that have run for a while.
        let remembered_ms = WARM_UP * period.test_from.millis_since(period.from);
        let looked_from = period.from.plus_millis(remembered_ms);
        for record in history.records(Some(period.from), Some(period.to)).into_diagnostic()? {
            let record = record.into_diagnostic()?;
            match &record {
                HistoryRecord::Decision(decision) => {
                    count += 1;
                    let is_held_out = decision.known_at >= period.test_from;
                    if decision.known_at >= end.measured_from() {
                        *logged.traffic.entry(decision.shard.clone()).or_default() += 1.0;
                    }
                    let context = replay.context(decision);
                    // What a shard reported before the period is not known.
                    let Some(chosen) = context.fleet.position(&decision.shard) else { continue };
                    if count.is_multiple_of(every) && decision.known_at >= looked_from {
                        let features = FeatureVector::extract(&DecisionFeatures::new(&context), chosen);
                        let rows = if is_held_out { &mut logged.held_out } else { &mut logged.before };
                        open.insert(decision.decision_id, (is_held_out, rows.len()));
                        rows.features.extend_from_slice(features.as_slice());
                        rows.warm_exec_ms.push(f32::NAN);
                    }
                }
                HistoryRecord::Outcome(outcome) => {
                    if !replay.is_open(outcome.decision_id) {
                        continue;
                    }
                    let response = &outcome.response;
                    if let Some((is_held_out, row)) = open.remove(&outcome.decision_id)
                        && response.is_ok()
                        && !response.cold
                    {
                        let rows = if is_held_out { &mut logged.held_out } else { &mut logged.before };
                        rows.warm_exec_ms[row] = response.exec_ms;
                    }
                }
                HistoryRecord::Report(_)
                | HistoryRecord::Market(_)
                | HistoryRecord::Shadow(_)
                | HistoryRecord::Directive(_) => {}
            }
            replay.apply(&record).into_diagnostic()?;
            if count.is_multiple_of(1 << 16) {
                output::stop_if_interrupted()?;
            }
        }
        Ok(logged)
    }
}

/// How far a head is off; `None` without warm executions.
fn logged_error(period: &str, head: &ExecHead, rows: &LoggedRows) -> Option<LoggedError> {
    let (mut n, mut squares, mut sum, mut of_table) = (0_u64, 0.0, 0.0, 0.0);
    for (row, ms) in rows.features.chunks_exact(FEATURE_COUNT).zip(&rows.warm_exec_ms).filter(|(_, ms)| **ms > 0.0) {
        let ln_ms = f64::from(*ms).ln();
        let missed = head.predict_ln_ms(row) - ln_ms;
        n += 1;
        sum += missed;
        squares += missed * missed;
        of_table += (head.offset_ln_ms(row) - ln_ms).powi(2);
    }
    let mean = |sum: f64| sum / n as f64;
    (n > 0).then(|| LoggedError {
        period: period.to_owned(),
        rows: n,
        rmse: mean(squares).sqrt(),
        bias: mean(sum),
        table_rmse: mean(of_table).sqrt(),
    })
}

/// How traffic moves when the model decides: its requests by shard against those that were logged.
fn validated(traffic: &BTreeMap<ShardId, f64>, logged: &BTreeMap<ShardId, f64>) -> miette::Result<Option<Validated>> {
    if logged.is_empty() {
        return Ok(None);
    }
    let verdict = validate(traffic, logged).into_diagnostic()?.verdict;
    let [all, all_logged] = [traffic, logged].map(|requests| requests.values().sum::<f64>().max(1.0));
    let mut shards: Vec<ValidatedShard> = logged
        .iter()
        .map(|(shard, expected)| {
            let requests = traffic.get(shard).copied().unwrap_or(0.0);
            let (share, expected) = (requests / all, expected / all_logged);
            ValidatedShard {
                shard: shard.as_str().to_owned(),
                requests: requests as u64,
                share,
                expected,
                ratio: share / expected,
            }
        })
        .collect();
    let off = |shard: &ValidatedShard| (shard.ratio - 1.0).abs();
    shards.sort_by(|a, b| off(b).total_cmp(&off(a)).then_with(|| a.shard.cmp(&b.shard)));
    let word = serde_json::to_value(verdict).into_diagnostic()?.as_str().unwrap_or_default().to_owned();
    Ok(Some(Validated {
        verdict: word,
        meaning: "What the shards got of the logged requests of the same period is expected: what differs is how traffic moves \
                  when this model decides. Moving it is no fault; a shard that nobody sized for it is."
            .to_owned(),
        shards,
    }))
}
