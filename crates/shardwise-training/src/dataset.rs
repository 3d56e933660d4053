//! Trains on a dataset that lies on disk: reads it, checks it, and hands its rows and its service times on.

use std::path::Path;

use shardwise_datasets::{DatasetCard, Split, TrainingData, load_card, load_observations, training_data};
use shardwise_models::DatasetSource;

use crate::{Origin, Part, Rows, TrainOptions, Trained, TrainingError, train_rows};

/// Rows read at most: a few more than are trained on, because some failed or lie in the gap.
pub(crate) const READ_FOR_EACH_TRAINED: usize = 2;

/// Trains on a dataset. Both the trees and the service table that is served know the training part only, so that the later
/// part is held out from all that is judged on it.
///
/// # Errors
/// When the dataset cannot be read or does not match its card, and as [`train_rows`].
pub fn train(dataset: &Path, options: &TrainOptions, progress: &mut dyn FnMut(&str)) -> Result<Trained, TrainingError> {
    progress("reading the dataset");
    let (rows, origin) = dataset_rows(dataset, options.max_rows)?;
    train_rows(&rows, origin, options, progress)
}

/// The rows of a dataset that a training of at most `max_rows` looks at, and what it takes from the dataset beside them.
///
/// # Errors
/// When the dataset cannot be read or does not match its card.
pub fn dataset_rows(dataset: &Path, max_rows: usize) -> Result<(Rows, Origin), TrainingError> {
    let card = load_card(dataset)?;
    let data = training_data(dataset, Some(max_rows.saturating_mul(READ_FOR_EACH_TRAINED)))?;
    let origin = Origin { dataset: source(&card), service_table: load_observations(dataset)?.fit() };
    Ok((rows(data), origin))
}

fn source(card: &DatasetCard) -> DatasetSource {
    DatasetSource {
        id: card.id.clone(),
        hash: card.content_hash.clone(),
        rows: card.rows,
        from: card.from,
        to: card.to,
    }
}

/// The columns that heads are fitted on.
pub(crate) fn rows(data: TrainingData) -> Rows {
    let part = |split: &Split| match split {
        Split::Train => Part::Train,
        Split::Gap => Part::Gap,
        Split::Test => Part::Test,
    };
    Rows {
        part: data.split.iter().map(part).collect(),
        features: data.features,
        known_at: data.known_at,
        block: data.block,
        cold: data.cold,
        queue_ms: data.queue_ms,
        total_ms: data.total_ms,
        exec_ms: data.exec_ms,
        ok: data.ok,
        weight: data.weight,
    }
}
