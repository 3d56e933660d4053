//! Claims about the sample: rare congestion stays, weights make up for it, and only the rows decide.

use std::path::PathBuf;

use polars::prelude::{Column, DataFrame};

use super::*;
use crate::card::{CARD_FILE, load_card};
use crate::files::{read_parquet, write_parquet};
use crate::rows::RowHasher;
use crate::sample::{history, write};
use crate::{BuildOptions, TrainingData, build, files, training_data};
use shardwise_features::{FEATURE_COUNT, position};

/// One decision in a hundred.
fn is_congested(decision_id: i64) -> bool {
    combine_keys(decision_id.cast_unsigned(), 77).is_multiple_of(100)
}

/// A dataset of 18,000 decisions, a hundredth of which met a shard that 1.5 cores were wanted on for each of its own.
fn dataset() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("history"), folder.path().join("dataset"));
    write(&source, &history("2026-01-05T12:00:00Z", 60.0, 200.0));
    build(&source, &out, &BuildOptions::default(), &mut |_| true).unwrap();
    each_file(&out, |frame| {
        let ids = frame.column("decision_id").unwrap().i64().unwrap().clone();
        let load: Vec<f32> = ids.iter().map(|id| if id.is_some_and(is_congested) { 1.5 } else { 0.2 }).collect();
        let others = vec![0.0_f32; load.len()];
        frame.with_column(Column::new("cores_in_flight_per_core".into(), load)).unwrap();
        frame.with_column(Column::new("others_per_core".into(), others)).unwrap();
    });
    (folder, out)
}

/// Changes all files of a dataset and lets its card know.
fn each_file(dataset: &Path, change: impl Fn(&mut DataFrame)) {
    let mut card = load_card(dataset).unwrap();
    for day in &mut card.days {
        let mut hasher = RowHasher::default();
        for part in 0..day.parts {
            let path = dataset.join(day_dir(&day.date)).join(part_file(part));
            let mut frame = read_parquet(&path, None).unwrap();
            change(&mut frame);
            write_parquet(&path, &mut frame).unwrap();
            hasher.add(&PartRows::read(&path).unwrap());
        }
        day.content_hash = hasher.finish();
    }
    files::write(&dataset.join(CARD_FILE), &serde_json::to_vec(&card).unwrap()).unwrap();
}

fn loads(data: &TrainingData) -> Vec<f64> {
    let load = position("cores_in_flight_per_core").unwrap();
    data.features.chunks_exact(FEATURE_COUNT).map(|row| f64::from(row[load])).collect()
}

/// Weighted mean of the training rows, and its standard error (of the ratio estimator, by linearisation).
fn mean(data: &TrainingData, values: &[f64]) -> (f64, f64) {
    let rows: Vec<(f64, f64)> = (0..data.len())
        .filter(|row| data.split[*row] == Split::Train)
        .map(|row| (values[row], f64::from(data.weight[row])))
        .collect();
    let weight: f64 = rows.iter().map(|(_, weight)| weight).sum();
    let mean = rows.iter().map(|(value, weight)| value * weight).sum::<f64>() / weight;
    let squares: f64 = rows.iter().map(|(value, weight)| (weight * (value - mean)).powi(2)).sum();
    (mean, squares.sqrt() / weight)
}

#[test]
fn rare_congestion_stays_and_means_are_those_of_all_rows() {
    let (_folder, out) = dataset();
    let (all, kept) = (training_data(&out, None).unwrap(), training_data(&out, Some(2_000)).unwrap());
    assert!(all.len() > 17_000 && (1_900..=2_000).contains(&kept.len()), "{} of {}", kept.len(), all.len());
    let share = |data: &TrainingData| {
        let training = || data.split.iter().zip(loads(data)).filter(|(split, _)| **split == Split::Train);
        training().filter(|(_, load)| *load > 0.9).count() as f64 / training().count() as f64
    };
    assert!((0.005..0.015).contains(&share(&all)), "{}", share(&all));
    assert!(share(&kept) > 5.0 * share(&all), "{} against {}, which is uniform", share(&kept), share(&all));

    let floats = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<f64>>();
    type Values = fn(&TrainingData) -> Vec<f32>;
    let columns: [(&str, Values); 3] = [
        ("exec_ms", |data| data.exec_ms.clone()),
        ("queue_ms", |data| data.queue_ms.clone()),
        ("load", |data| loads(data).into_iter().map(|load| load as f32).collect()),
    ];
    for (name, values) in columns {
        let (full, _) = mean(&all, &floats(&values(&all)));
        let (estimate, error) = mean(&kept, &floats(&values(&kept)));
        assert!((full - estimate).abs() <= 2.0 * error, "{name}: {full} and {estimate} ± {error}");
    }
    // Without the weights it would be another load.
    let unweighted = TrainingData { weight: vec![1.0; kept.len()], ..kept.clone() };
    assert!(mean(&unweighted, &loads(&unweighted)).0 > 1.2 * mean(&all, &loads(&all)).0);
    let total: f64 = kept.weight.iter().map(|weight| f64::from(*weight)).sum();
    assert!((total / all.len() as f64 - 1.0).abs() < 1e-6, "a row stands for those that were left out");
}

#[test]
fn only_the_rows_decide_not_their_order_nor_their_files() {
    let (_folder, out) = dataset();
    let chosen = || {
        let card = load_card(&out).unwrap();
        let reservoir = Reservoir::fill(&out, &card, 2_000).unwrap();
        let mut kept: Vec<(Stratum, (u64, f32))> = reservoir.kept.into_iter().collect();
        kept.sort_unstable_by_key(|(stratum, _)| *stratum);
        kept
    };
    let before = chosen();
    each_file(&out, |frame| *frame = frame.reverse());
    assert_eq!(chosen(), before);
    let card = load_card(&out).unwrap();
    let parts = card.days[0].parts;
    let part = |n: u32| out.join(day_dir(&card.days[0].date)).join(part_file(n));
    let (first, last) = (std::fs::read(part(0)).unwrap(), std::fs::read(part(parts - 1)).unwrap());
    std::fs::write(part(0), last).unwrap();
    std::fs::write(part(parts - 1), first).unwrap();
    assert_eq!(chosen(), before);
}

#[test]
fn with_more_strata_than_rows_shards_are_not_told_apart() {
    let (_folder, out) = dataset();
    let card = load_card(&out).unwrap();
    let sample = |max| Reservoir::fill(&out, &card, max).unwrap();
    assert!(matches!(sample(2_000).detail, Detail::Shards));
    assert!(matches!(sample(300).detail, Detail::Functions));
    assert!(matches!(sample(100).detail, Detail::Loads));
    assert!((90..=100).contains(&training_data(&out, Some(100)).unwrap().len()));
}
