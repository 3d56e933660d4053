//! The models of one generated fleet: its logs are simulated, made into a dataset and learned from, all in a folder that is
//! gone afterwards; finished models may be kept for the next run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::IntoDiagnostic;
use serde::{Deserialize, Serialize};
use shardwise_datasets::{BuildOptions, HistoryWriter};
use shardwise_features::FeatureGroup;
use shardwise_models::forest::Forest;
use shardwise_models::{BundleDraft, HeadMetrics, LatencyColumns, LatencyHead, ModelBundle};
use shardwise_simulator::{Episode, EpisodeOptions, WorldSpec, failing_episodes, simulate_episodes, training_episodes};
use shardwise_training::{LatencyMetrics, LatencyModels, TrainOptions, train_latency};
use shardwise_types::{Timestamp, key_of};

use super::history::Recording;
use super::{dataset, files};
use crate::output::{self, Stage};

/// Requests of each training episode.
const REQUESTS: usize = 23_000;
/// Episodes are weeks apart, so that no model tells them apart by hour or weekday.
pub(crate) const EVERY_MS: f64 = 7.0 * 86_400_000.0;
/// Blocks of the service encodings, in minutes: four weeks and so four episodes.
const BLOCK_MINUTES: u32 = 28 * 1_440;
/// When the first episode begins: on 2026-01-15 at noon, the day on which a block begins, in ns.
pub(crate) const START_NS: i64 = 1_768_478_400_000_000_000;

/// Share of the features that each tree of the execution head may look at: on held-out episodes of three fleets the head errs
/// less with 0.3 than with the usual share, the latency heads more.
pub(crate) const EXEC_FEATURE_FRACTION: f64 = 0.3;

/// What a fleet's own history taught.
pub(crate) struct FleetModels {
    /// Execution head and service table.
    pub(crate) bundle: Arc<ModelBundle>,
    /// How well the execution head does.
    pub(crate) exec: HeadMetrics,
    /// The rivals that predict latency.
    pub(crate) latency: LatencyModels,
    /// The same trained without each of the groups that were asked for.
    pub(crate) blind: BTreeMap<FeatureGroup, Arc<ModelBundle>>,
}

/// What is kept of the models beside their forests and the bundle; written last.
#[derive(Serialize, Deserialize)]
struct Kept {
    exec: HeadMetrics,
    latency: LatencyMetrics,
    specification: LatencyColumns,
}

/// Trains the models of a fleet, on logs with failing shards or without, and once more without each of these groups of features, or takes those that an earlier run
/// of this program kept below `work` for the same world.
pub(crate) fn fleet_models(
    world: &WorldSpec,
    fleet_seed: u64,
    groups: &[FeatureGroup],
    with_failures: bool,
    work: &Path,
) -> miette::Result<FleetModels> {
    let folder = work.join(format!("fleet-{fleet_seed}-{:016x}", key(world, fleet_seed, with_failures)?));
    if let Some(models) = load(&folder, groups) {
        eprintln!("models of fleet {fleet_seed}: kept from an earlier run");
        return Ok(models);
    }
    fs::create_dir_all(work).into_diagnostic()?;
    let scratch = tempfile::tempdir_in(work).into_diagnostic()?;
    let (history, made) = (scratch.path().join("history"), scratch.path().join("dataset"));
    let episodes = if with_failures { failing_episodes() } else { training_episodes() };
    record(world, &format!("fleet {fleet_seed}"), &episodes, REQUESTS, &history)?;
    dataset::build_with(&history, &made, &blocks()).into_diagnostic()?;
    output::stop_if_interrupted()?;
    let (draft, mut models) = train(&made, fleet_seed, world.timing.timeout_ms)?;
    keep(&folder, &draft, &models)?;
    for group in groups {
        let (draft, _) = train_bundle(&made, fleet_seed, Some(*group))?;
        draft.write(&blind_folder(&folder, *group)).into_diagnostic()?;
        models.blind.insert(*group, Arc::new(draft.bundle().into_diagnostic()?));
        output::stop_if_interrupted()?;
    }
    Ok(models)
}

fn blind_folder(folder: &Path, group: FeatureGroup) -> PathBuf {
    folder.join(format!("without-{}", group.name()))
}

/// What the models are made of: the world, the seed, how they are trained, and this build of shardwise.
fn key(world: &WorldSpec, fleet_seed: u64, with_failures: bool) -> miette::Result<u64> {
    let world = serde_json::to_string(world).into_diagnostic()?;
    let options = options(fleet_seed);
    let program = files::this_program();
    Ok(key_of(&format!("{world} {options:?} {REQUESTS} {with_failures} {program:?}")))
}

/// Smaller trees than for one fleet that is served: there are many fleets, and each has a few hundred thousand rows.
pub(crate) fn options(fleet_seed: u64) -> TrainOptions {
    TrainOptions {
        name: format!("fleet-{fleet_seed}"),
        seed: fleet_seed,
        trees: 100,
        leaves: 31,
        learning_rate: 0.1,
        patience: 10,
        rivals: false,
        how_to_make_again: "shardwise arena --train".to_owned(),
        ..TrainOptions::default()
    }
}

/// How datasets of episodes are made.
pub(crate) fn blocks() -> BuildOptions {
    BuildOptions { candidate_share: 0.0, block_minutes: Some(BLOCK_MINUTES), ..BuildOptions::default() }
}

/// Simulates episodes of so many requests each into a history.
pub(crate) fn record(
    world: &WorldSpec,
    whose: &str,
    episodes: &[Episode],
    requests: usize,
    history: &Path,
) -> miette::Result<()> {
    let stage = Stage::start(format!("{whose}: simulating {} episodes to learn from", episodes.len()));
    let mut recording = Recording::new(HistoryWriter::create(history, &world.network, None).into_diagnostic()?, stage);
    let options = EpisodeOptions { start: Timestamp::from_nanos(START_NS), every_ms: EVERY_MS, requests };
    simulate_episodes(world, episodes, &options, &mut recording).into_diagnostic()?;
    let (written, stage) = recording.finish()?;
    stage.done(format!("{} decisions", written.rows["decisions"]));
    Ok(())
}

fn train(made: &Path, fleet_seed: u64, timeout_ms: f64) -> miette::Result<(BundleDraft, FleetModels)> {
    let (draft, exec) = train_bundle(made, fleet_seed, None)?;
    output::stop_if_interrupted()?;
    let mut stage = Stage::start(format!("fleet {fleet_seed}: training its rivals"));
    let options = options(fleet_seed);
    let latency = train_latency(made, timeout_ms, &options, &mut |step| stage.at(step)).into_diagnostic()?;
    let LatencyMetrics { end_to_end_rmse, specification_rmse, .. } = latency.metrics;
    stage.done(format!(
        "rmse {end_to_end_rmse:.4} of ln latency from all features, {specification_rmse:.4} from the specification's"
    ));
    let bundle = Arc::new(draft.bundle().into_diagnostic()?);
    Ok((draft, FleetModels { bundle, exec, latency, blind: BTreeMap::new() }))
}

fn train_bundle(
    made: &Path,
    fleet_seed: u64,
    blind_to: Option<FeatureGroup>,
) -> miette::Result<(BundleDraft, HeadMetrics)> {
    let without = blind_to.map_or_else(String::new, |group| format!(" without features of the {}", group.name()));
    let mut stage = Stage::start(format!("fleet {fleet_seed}: training the model{without}"));
    let options = TrainOptions { feature_fraction: EXEC_FEATURE_FRACTION, blind_to, ..options(fleet_seed) };
    let trained = shardwise_training::train(made, &options, &mut |step| stage.at(step)).into_diagnostic()?;
    let exec = trained.metrics;
    stage.done(format!("rmse {:.4}, the table alone {:.4}", exec.rmse, exec.table_rmse));
    Ok((trained.draft, exec))
}

/// The files of kept models: the bundle's folder, the two forests, and the rest.
fn parts(folder: &Path) -> [PathBuf; 4] {
    ["bundle", "end-to-end.forest", "specification.forest", "models.json"].map(|name| folder.join(name))
}

/// Keeps models; a run that ended in the middle leaves no `models.json`, and is cleared away.
fn keep(folder: &Path, draft: &BundleDraft, models: &FleetModels) -> miette::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).into_diagnostic()?;
    }
    let [bundle, end_to_end, specification, rest] = parts(folder);
    draft.write(&bundle).into_diagnostic()?;
    let LatencyModels { end_to_end: all, specification: named, metrics } = &models.latency;
    fs::write(end_to_end, all.forest().to_bytes()).into_diagnostic()?;
    fs::write(specification, named.forest().to_bytes()).into_diagnostic()?;
    let kept = Kept { exec: models.exec, latency: *metrics, specification: named.columns().clone() };
    files::write_json(&rest, &kept)
}

/// Models that are whole and sound; any others are made again.
fn load(folder: &Path, groups: &[FeatureGroup]) -> Option<FleetModels> {
    let [bundle, end_to_end, specification, rest] = parts(folder);
    let kept: Kept = serde_json::from_slice(&fs::read(rest).ok()?).ok()?;
    let head = |columns, path: &Path| LatencyHead::new(columns, Forest::from_bytes(&fs::read(path).ok()?).ok()?).ok();
    let blind = groups.iter().map(|group| {
        let bundle = ModelBundle::load(&blind_folder(folder, *group)).ok()?;
        Some((*group, Arc::new(bundle)))
    });
    Some(FleetModels {
        blind: blind.collect::<Option<_>>()?,
        bundle: Arc::new(ModelBundle::load(&bundle).ok()?),
        exec: kept.exec,
        latency: LatencyModels {
            end_to_end: head(LatencyColumns::Features, &end_to_end)?,
            specification: head(kept.specification, &specification)?,
            metrics: kept.latency,
        },
    })
}
