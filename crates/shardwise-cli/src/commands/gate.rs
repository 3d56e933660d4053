//! `shardwise gate trial`: does the gate keep bad models out and let better ones in? In worlds of its own making, with models
//! that are known to be one or the other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{IntoDiagnostic, miette};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shardwise_evaluation::{BASELINES, Evidence, SamplePaths, Verdict, judge, run as run_closed_loop, until_decided};
use shardwise_features::{FEATURE_COUNT, FEATURES};
use shardwise_models::{HeadMetrics, ModelBundle};
use shardwise_policies::{Policy, Runtime, by_name};
use shardwise_simulator::{Episode, FleetOptions, Workload, WorldSpec, training_episodes, workload_of_requests};
use shardwise_training::{Rows, TrainOptions, Trained, dataset_rows, measure_exec, train_rows};
use shardwise_types::{Timestamp, key_of};

use super::contenders::contenders;
use super::fleet_models::{self, START_NS, record};
use super::shadowed::shadow_test;
use super::variants::{constant, scaled};
use super::{dataset, files};
use crate::arguments::GateTrialArguments;
use crate::output::{self, Stage};

/// Worlds begin behind this, so that none is one that anything was tuned on.
const FIRST_WORLD: u64 = 1_000;
/// Requests of each episode that a champion learns from; better models learn from ten times as many.
const CHAMPIONS_REQUESTS: usize = 2_300;
const MORE: usize = 10;
/// Requests that models are judged on, with so many seeds from the first on, and at most so many while nothing is decided.
const JUDGED_REQUESTS: usize = 15_000;
const JUDGED_SEEDS: u64 = 8;
const MOST_SEEDS: u64 = 32;
const FIRST_SEED: u64 = 11;
const JUDGED_LOAD: f64 = 0.7;
/// Weeks from the first episode to the traffic that models are judged on; the last two episodes are held out.
const JUDGED_WEEK: f64 = 11.0;
/// Standard deviation of what is added to a leaked label, in ln: the leak need not be exact to be the best feature.
const LEAK_SD: f64 = 0.05;

/// What is wrong with a model; each world has one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Bad {
    /// Its trees say the opposite of what they learned.
    Inverted,
    /// The same for all shards.
    Constant,
    /// Trained on labels of other rows.
    ShuffledLabels,
    /// Trained on the logs of a router that never explored, of which there are no more than the champion had.
    GreedyLogs,
    /// Trained on features that know what came.
    LeakedFuture,
}

const BAD: [Bad; 5] = [Bad::Inverted, Bad::Constant, Bad::ShuffledLabels, Bad::GreedyLogs, Bad::LeakedFuture];

/// What became of one world's models.
#[derive(Serialize, Deserialize)]
struct WorldResult {
    bad: Vec<(Bad, Verdict)>,
    good: Vec<Verdict>,
}

#[derive(Default, Serialize)]
struct Count {
    trials: usize,
    promoted: usize,
}

impl Count {
    fn add(&mut self, verdict: &Verdict) {
        self.trials += 1;
        self.promoted += usize::from(verdict.may_go_live);
    }
}

pub(crate) fn trial(options: &GateTrialArguments, json: bool) -> miette::Result<()> {
    if options.trials == 0 {
        return Err(miette!(help = "a hundred tell something", "--trials 0 tries nothing"));
    }
    let (mut bad, mut good) = (Count::default(), Count::default());
    let mut by_kind: BTreeMap<Bad, Count> = BTreeMap::new();
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..options.trials.div_ceil(BAD.len()) as u64 {
        let world = FIRST_WORLD + options.seed + number;
        let result = world_result(options, world)?;
        for (kind, verdict) in result.bad.iter().take(options.trials - bad.trials) {
            bad.add(verdict);
            by_kind.entry(*kind).or_default().add(verdict);
            if verdict.may_go_live {
                eprintln!("world {world}: a model that is {kind:?} was promoted");
            }
        }
        for verdict in result.good.iter().take(options.trials - good.trials) {
            good.add(verdict);
            for reason in verdict.reasons.iter().filter(|reason| !reason.holds) {
                eprintln!("world {world}: a better model was refused: {reason}");
                *refusals.entry(kind_of(&reason.sentence)).or_default() += 1;
            }
        }
        eprintln!(
            "so far {} of {} bad ones promoted, {} of {} better ones",
            bad.promoted, bad.trials, good.promoted, good.trials
        );
    }
    if json {
        let result = json!({ "bad": bad, "good": good, "byKind": by_kind, "refusals": refusals });
        return output::print_json(&result);
    }
    println!(
        "{} of {} bad models were promoted, {} of {} better ones",
        bad.promoted, bad.trials, good.promoted, good.trials
    );
    Ok(())
}

/// The first words of a reason, without its figures.
fn kind_of(sentence: &str) -> String {
    let end = sentence.find(|letter: char| letter.is_ascii_digit()).unwrap_or(sentence.len());
    sentence[..end].trim_end().to_owned()
}

/// Tries the models of one world, or takes what an earlier run of this program found.
fn world_result(options: &GateTrialArguments, seed: u64) -> miette::Result<WorldResult> {
    let key = key_of(&format!("{seed} {:?}", files::this_program()));
    let file = options.out.join(format!("world-{seed}-{key:016x}.json"));
    if let Some(result) = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        return Ok(result);
    }
    fs::create_dir_all(&options.out).into_diagnostic()?;
    let scratch = tempfile::tempdir_in(&options.out).into_diagnostic()?;
    let world = WorldSpec::generate(seed, &FleetOptions { routers: 4, ..FleetOptions::default() });
    let maker = Maker { world: &world, seed, folder: scratch.path() };
    let result = maker.try_models()?;
    files::write_json(&file, &result)?;
    Ok(result)
}

/// Makes the models of a world.
struct Maker<'a> {
    world: &'a WorldSpec,
    seed: u64,
    folder: &'a Path,
}

impl Maker<'_> {
    fn try_models(&self) -> miette::Result<WorldResult> {
        let stage = Stage::start(format!("world {}: making models", self.seed));
        let champions = (0..BAD.len() as u64)
            .map(|number| Ok(self.learned(&self.explored(number, CHAMPIONS_REQUESTS)?, |_| ())?.0))
            .collect::<miette::Result<Vec<_>>>()?;
        let much = self.explored(BAD.len() as u64, CHAMPIONS_REQUESTS * MORE)?;
        let (better, metrics) = self.learned(&much, |_| ())?;
        stage.done("champions and one that is better");
        let stage = Stage::start(format!("world {}: judging", self.seed));
        let (mut bad, mut good) = (Vec::new(), Vec::new());
        for (number, (kind, champion)) in (0_u64..).zip(BAD.into_iter().zip(&champions)) {
            let judging = Judging::new(self.world, number)?;
            let (model, metrics_of_it) = match kind {
                Bad::Inverted => self.measured(scaled(&better, -1.0), &much)?,
                Bad::Constant => self.measured(constant(&better), &much)?,
                Bad::ShuffledLabels => self.learned(&much, shuffle_labels)?,
                Bad::LeakedFuture => self.learned(&much, leak_the_future)?,
                Bad::GreedyLogs => {
                    let greedy: fn(Runtime) -> Box<dyn Policy> =
                        |runtime| by_name("sed_tab", runtime).expect("a known policy");
                    let folder = self.folder.join("greedy");
                    self.history(&folder, number, CHAMPIONS_REQUESTS, |episode| Episode { policy: greedy, ..episode })?;
                    self.learned(&folder, |_| ())?
                }
            };
            bad.push((kind, judging.verdict(champion, &model, metrics_of_it)?));
            good.push(judging.verdict(champion, &better, metrics)?);
            output::stop_if_interrupted()?;
        }
        stage.done("done");
        Ok(WorldResult { bad, good })
    }

    /// The dataset of routers that explored.
    fn explored(&self, number: u64, requests: usize) -> miette::Result<PathBuf> {
        let folder = self.folder.join(format!("explored-{number}"));
        self.history(&folder, number, requests, |episode| episode)?;
        Ok(folder)
    }

    /// Simulates episodes with seeds of their own and makes a dataset of them.
    fn history(
        &self,
        folder: &Path,
        number: u64,
        requests: usize,
        change: impl Fn(Episode) -> Episode,
    ) -> miette::Result<()> {
        let own_seeds = |episode: Episode| Episode { seed: episode.seed + 100 * (number + 1), ..episode };
        let episodes: Vec<Episode> = training_episodes().into_iter().map(own_seeds).map(change).collect();
        let history = folder.with_extension("history");
        record(self.world, &format!("world {}", self.seed), &episodes, requests, &history)?;
        dataset::build_with(&history, folder, &fleet_models::blocks()).into_diagnostic()?;
        fs::remove_dir_all(&history).into_diagnostic()?;
        output::stop_if_interrupted()
    }

    /// A model of a dataset whose rows were changed, and its errors on its own held-out rows.
    fn learned(&self, dataset: &Path, change: impl Fn(&mut Rows)) -> miette::Result<(Arc<ModelBundle>, [f64; 2])> {
        let options = fleet_models::options(self.seed);
        let (mut rows, origin) = dataset_rows(dataset, options.max_rows).into_diagnostic()?;
        change(&mut rows);
        let options = TrainOptions { feature_fraction: fleet_models::EXEC_FEATURE_FRACTION, ..options };
        let Trained { draft, metrics } = train_rows(&rows, origin, &options, &mut |_| ()).into_diagnostic()?;
        Ok((Arc::new(draft.bundle().into_diagnostic()?), errors(metrics)))
    }

    /// A model with its errors on the held-out rows of a dataset.
    fn measured(&self, model: Arc<ModelBundle>, dataset: &Path) -> miette::Result<(Arc<ModelBundle>, [f64; 2])> {
        let options = fleet_models::options(self.seed);
        let (rows, _) = dataset_rows(dataset, options.max_rows).into_diagnostic()?;
        let head = model.exec().expect("it was trained with one");
        let metrics = measure_exec(head, &rows, options.max_rows).into_diagnostic()?;
        Ok((model, errors(metrics)))
    }
}

/// Errors of an execution head and of the service table on held-out rows.
fn errors(metrics: HeadMetrics) -> [f64; 2] {
    [metrics.rmse, metrics.table_rmse]
}

/// Traffic that no model of the world has seen.
struct Judging<'a> {
    world: &'a WorldSpec,
    workload: Workload,
    first_seed: u64,
}

impl<'a> Judging<'a> {
    fn new(world: &'a WorldSpec, number: u64) -> miette::Result<Self> {
        // A week after the last row that is trained on, and not later: no placer trusts a model that is older.
        let start = Timestamp::from_nanos(START_NS).plus_millis(JUDGED_WEEK * fleet_models::EVERY_MS);
        let seed = FIRST_SEED + number;
        let workload = workload_of_requests(world, seed, start, JUDGED_LOAD, JUDGED_REQUESTS).into_diagnostic()?;
        Ok(Self { world, workload, first_seed: seed })
    }

    fn verdict(
        &self,
        champion: &Arc<ModelBundle>,
        model: &Arc<ModelBundle>,
        [exec_rmse, table_rmse]: [f64; 2],
    ) -> miette::Result<Verdict> {
        let contenders = contenders(model, Some(champion), &BASELINES, self.world.timing.runtime());
        let judged = |replicates| {
            let seeds: Vec<u64> = (0..replicates).map(|replicate| self.first_seed + 10 * replicate).collect();
            let paths = SamplePaths { world: self.world, workload: &self.workload, warm_up: 0.2, seeds: &seeds };
            let closed_loop =
                run_closed_loop(&paths, &contenders, &|_, _, _| (), output::interrupt_flag()).into_diagnostic()?;
            let shadow = shadow_test(&paths, champion, model)?;
            Ok(judge(&Evidence {
                closed_loop: &closed_loop,
                candidate_version: "candidate",
                champion_version: Some("champion"),
                exec_rmse: Some(exec_rmse),
                table_rmse: Some(table_rmse),
                shadow: Some(&shadow),
            }))
        };
        until_decided(JUDGED_SEEDS, MOST_SEEDS, judged, |verdict| verdict)
    }
}

/// Gives each row the labels of another.
fn shuffle_labels(rows: &mut Rows) {
    for place in (1..rows.len()).rev() {
        let other = (key_of(&format!("shuffle {place}")) % (place as u64 + 1)) as usize;
        rows.total_ms.swap(place, other);
        rows.exec_ms.swap(place, other);
        rows.queue_ms.swap(place, other);
        rows.cold.swap(place, other);
        rows.ok.swap(place, other);
    }
}

/// Puts what came, or nearly, where the service table's expectation of it belongs.
fn leak_the_future(rows: &mut Rows) {
    let leaks: Vec<usize> = ["service_ln_ms", "prior_service_ln_ms", "online_service_ln_ms"]
        .into_iter()
        .filter_map(|name| FEATURES.iter().position(|feature| feature.name == name))
        .collect();
    for (place, (row, exec_ms)) in rows.features.chunks_exact_mut(FEATURE_COUNT).zip(&rows.exec_ms).enumerate() {
        // About normal.
        let noise: f64 =
            (0..12).map(|draw| key_of(&format!("leak {place} {draw}")) as f64 / u64::MAX as f64).sum::<f64>() - 6.0;
        for leak in &leaks {
            row[*leak] = (f64::from(exec_ms.max(1e-3)).ln() + LEAK_SD * noise) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use shardwise_training::Part;

    use super::*;

    fn rows() -> Rows {
        let n = 500;
        Rows {
            weight: Vec::new(),
            features: (0..n * FEATURE_COUNT).map(|i| i as f32).collect(),
            known_at: (0..n).map(|i| Timestamp::from_nanos(i as i64)).collect(),
            block: vec![1; n],
            cold: (0..n).map(|i| i % 7 == 0).collect(),
            queue_ms: (0..n).map(|i| 2.0 * i as f32).collect(),
            total_ms: (0..n).map(|i| 3.0 * i as f32).collect(),
            exec_ms: (0..n).map(|i| 1.0 + i as f32).collect(),
            ok: vec![true; n],
            part: vec![Part::Train; n],
        }
    }

    #[test]
    fn shuffled_labels_stay_together_and_leave_their_rows() {
        let (before, mut after) = (rows(), rows());
        shuffle_labels(&mut after);
        assert_eq!(after.features, before.features);
        let labels = |rows: &Rows| {
            let times = |row: usize| [rows.total_ms[row], rows.exec_ms[row], rows.queue_ms[row]].map(|ms| ms as u64);
            let of_row = |row: usize| (times(row), rows.cold[row]);
            (0..rows.len()).map(of_row).collect::<Vec<_>>()
        };
        let (mut was, mut is) = (labels(&before), labels(&after));
        let stayed = was.iter().zip(&is).filter(|(was, is)| was == is).count();
        assert!(stayed < 20, "{stayed} of 500 rows kept their labels");
        was.sort_unstable();
        is.sort_unstable();
        assert_eq!(was, is);
    }

    #[test]
    fn leaked_features_are_the_labels_but_for_some_noise() {
        let (before, mut after) = (rows(), rows());
        leak_the_future(&mut after);
        let leaked = FEATURES.iter().position(|feature| feature.name == "service_ln_ms").expect("a feature");
        let changed = before.features.iter().zip(&after.features).filter(|(before, after)| before != after).count();
        assert_eq!(changed, 3 * before.len());
        let off =
            |row: usize| f64::from(after.features[row * FEATURE_COUNT + leaked]) - f64::from(after.exec_ms[row]).ln();
        let sd = ((0..after.len()).map(|row| off(row).powi(2)).sum::<f64>() / after.len() as f64).sqrt();
        assert!((0.8 * LEAK_SD..1.2 * LEAK_SD).contains(&sd), "{sd}");
    }

    #[test]
    fn reasons_are_counted_by_their_words() {
        assert_eq!(kind_of("Mean latency is 0.5 % below"), "Mean latency is");
        assert_eq!(kind_of("no figure"), "no figure");
    }
}
