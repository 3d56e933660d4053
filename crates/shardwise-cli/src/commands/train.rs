//! `shardwise train`: a dataset into a version of a model.

use std::path::{Path, PathBuf};

use miette::IntoDiagnostic;
use serde_json::{Value, json};
use shardwise_models::{AliasMove, CHAMPION, Registry, SigningKey};
use shardwise_training::{
    Origin, Rows, SearchOptions, Searched, TrainOptions, Trained, TrainingError, Trial, dataset_rows, search,
    train_rows,
};

use super::keys;
use crate::arguments::{SearchArguments, TrainArguments};
use crate::output::{self, Stage, note};

pub(crate) fn run(options: &TrainArguments, json: bool) -> miette::Result<()> {
    let key = keys::signing_key(&options.signing)?;
    let TrainArguments { dataset, name, seed, search, search_journal, .. } = options;
    let journal = search_journal.clone().unwrap_or_else(|| beside(dataset, *seed));
    let lesson = Lesson { dataset, name, seed: *seed, search: *search, journal };
    let trained = train_with(&lesson).into_diagnostic()?;
    let registry = Registry::open_or_create(&options.models, &options.name).into_diagnostic()?;
    let (version, heads) = publish(&registry, &trained, key.as_ref())?;
    let first = registry.alias(CHAMPION).into_diagnostic()?.is_none();
    if first {
        let by = AliasMove {
            at: output::wall_clock(),
            who: "train".to_owned(),
            why: "the first version of this model".to_owned(),
            metrics: heads.clone(),
            ..AliasMove::default()
        };
        registry.set_alias(CHAMPION, &version, &by).into_diagnostic()?;
    }
    if json {
        return output::print_json(&json!({ "version": version, "champion": first, "heads": heads }));
    }
    println!(
        "version {version}: rmse {:.4} of ln ms against the table's {:.4}",
        trained.metrics.rmse, trained.metrics.table_rmse
    );
    print!("{}", table(&heads));
    if !first {
        println!("the champion stays; `shardwise nightly` judges whether this version may replace it");
    }
    Ok(())
}

/// The journal of a search on a dataset, when no other file is named.
fn beside(dataset: &Path, seed: u64) -> PathBuf {
    let mut path = dataset.components().as_path().as_os_str().to_owned();
    path.push(format!(".search-{seed}.ndjson"));
    path.into()
}

/// The losses of the heads beside those of formulas.
fn table(heads: &Value) -> String {
    let rows = [
        ("cold starts", &heads["cold"]),
        ("waits", &heads["wait"]),
        ("failures", &heads["error"]),
        ("latency, p50", &heads["quantiles"]["q50"]),
        ("latency, p90", &heads["quantiles"]["q90"]),
    ];
    let mut text = format!("{:<14}{:>10}{:>14}\n", "head", "loss", "by a formula");
    for (head, metrics) in rows {
        text += &match (metrics["loss"].as_f64(), metrics["formula_loss"].as_f64()) {
            (Some(loss), Some(formula)) => format!("{head:<14}{loss:>10.4}{formula:>14.4}\n"),
            _ => format!("{head:<14} there was too little to learn from\n"),
        };
    }
    text
}

/// Signs what was trained, when there is a key, and puts it into the registry. Returns the version and how well its heads do.
pub(crate) fn publish(
    registry: &Registry,
    trained: &Trained,
    key: Option<&SigningKey>,
) -> miette::Result<(String, Value)> {
    let mut package = trained.draft.package().into_diagnostic()?;
    if let Some(key) = key {
        package.sign(key, output::wall_clock());
    }
    let version = registry.publish_package(&package).into_diagnostic()?;
    let heads = registry.describe(&version).into_diagnostic()?.metrics();
    Ok((version, heads))
}

/// What to train on, and as what.
pub(crate) struct Lesson<'a> {
    pub(crate) dataset: &'a Path,
    pub(crate) name: &'a str,
    pub(crate) seed: u64,
    pub(crate) search: SearchArguments,
    /// File for the search's trials.
    pub(crate) journal: PathBuf,
}

/// Trains with progress, with the parameters that a search finds when one is asked for.
pub(crate) fn train_with(lesson: &Lesson<'_>) -> Result<Trained, TrainingError> {
    let Lesson { dataset, name, seed, .. } = *lesson;
    let mut stage = Stage::start("training");
    let mut options = TrainOptions { name: name.to_owned(), seed, ..TrainOptions::default() };
    stage.at("reading the dataset");
    let (rows, origin) = dataset_rows(dataset, options.max_rows)?;
    let searched = lesson.search(&rows, &origin, &options, &mut stage)?;
    if let Some(searched) = &searched {
        options = searched.applied_to(&options);
    }
    options.how_to_make_again = how_to_make_again(name, seed, searched.as_ref());
    let mut trained = train_rows(&rows, origin, &options, &mut |progress| stage.at(progress))?;
    if let Some(Searched { trials, winner }) = &searched {
        trained.draft.parameters.insert("search_trials".to_owned(), json!(trials.len()));
        trained.draft.parameters.insert("search_winner".to_owned(), json!(winner));
    }
    let metrics = &trained.metrics;
    stage.done(format!("rmse {:.4}, the table alone {:.4}", metrics.rmse, metrics.table_rmse));
    Ok(trained)
}

impl Lesson<'_> {
    fn search(
        &self,
        rows: &Rows,
        origin: &Origin,
        options: &TrainOptions,
        stage: &mut Stage,
    ) -> Result<Option<Searched>, TrainingError> {
        let SearchArguments { search: Some(trials), search_minutes: minutes } = self.search else { return Ok(None) };
        let bounds = SearchOptions { trials, minutes, journal: self.journal.clone() };
        let mut progress = |trial: &str| {
            stage.at(trial);
            !output::is_interrupted()
        };
        let searched = search(rows, &origin.dataset.hash, options, &bounds, output::clock_ns, &mut progress)?;
        let Trial { number, score, parameters, .. } = &searched.trials[searched.winner as usize];
        note(format!(
            "{} trials, taken is {number} (loss {score:.4} of the usual): {parameters}",
            searched.trials.len()
        ));
        Ok(Some(searched))
    }
}

/// Placeholders instead of paths: where a dataset lies must not change the version of the model made from it. The trials that
/// were made, not the minutes that they were given: those are the same on no other machine.
fn how_to_make_again(name: &str, seed: u64, searched: Option<&Searched>) -> String {
    let search = searched.map_or_else(String::new, |searched| format!(" --search {}", searched.trials.len()));
    format!(
        "shardwise dataset build --history HISTORY --out DATASET && \
         shardwise train --dataset DATASET --models MODELS --name {name} --seed {seed}{search}"
    )
}
