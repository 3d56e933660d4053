//! `shardwise train`: a dataset into a version of a model.

use std::path::Path;

use miette::IntoDiagnostic;
use serde_json::{Value, json};
use shardwise_models::{AliasMove, CHAMPION, Registry, SigningKey};
use shardwise_training::{TrainOptions, Trained, TrainingError};

use super::keys;
use crate::arguments::TrainArguments;
use crate::output::{self, Stage};

pub(crate) fn run(options: &TrainArguments, json: bool) -> miette::Result<()> {
    let key = keys::signing_key(&options.signing)?;
    let trained = train_with(&options.dataset, &options.name, options.seed).into_diagnostic()?;
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

/// Trains with progress.
pub(crate) fn train_with(dataset: &Path, name: &str, seed: u64) -> Result<Trained, TrainingError> {
    let mut stage = Stage::start("training");
    // Placeholders instead of paths: where a dataset lies must not change the version of the model made from it.
    let how_to_make_again = format!(
        "shardwise dataset build --history HISTORY --out DATASET && \
         shardwise train --dataset DATASET --models MODELS --name {name} --seed {seed}"
    );
    let options = TrainOptions { name: name.to_owned(), seed, how_to_make_again, ..TrainOptions::default() };
    let trained = shardwise_training::train(dataset, &options, &mut |progress| stage.at(progress))?;
    let metrics = &trained.metrics;
    stage.done(format!("rmse {:.4}, the table alone {:.4}", metrics.rmse, metrics.table_rmse));
    Ok(trained)
}
