//! From rows to a bundle: choose, fit, measure beside the rivals, draft.

use std::thread;

use shardwise_features::ServiceTable;
use shardwise_models::{BundleDraft, DatasetSource, ExecDraft, ExecHead, HeadMetrics, SideTarget};

use crate::baselines::{TableRule, elastic_net_ln_ms, random_forest_ln_ms};
use crate::error_head::fit_error_head;
use crate::exec::{Offset, fit_exec_head, predict};
use crate::figures::{r2, rmse_of, rounded};
use crate::quantiles::fit_quantile_heads;
use crate::rows::{ExecSamples, Rows};
use crate::side::fit_side_head;
use crate::{TrainOptions, TrainingError};

/// What a model takes from a dataset beside its rows.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Which dataset it is.
    pub dataset: DatasetSource,
    /// The service table to serve; training rows must have been made with earlier ones.
    pub service_table: ServiceTable,
}

/// A trained model, not published yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// What to publish.
    pub draft: BundleDraft,
    /// How well the execution head does on the test rows.
    pub metrics: HeadMetrics,
}

/// Trains on rows that are in memory; `progress` hears what comes next.
///
/// # Errors
/// Says what is missing when there are too few rows, and refuses a model that would not be served as it was trained.
pub fn train_rows(
    rows: &Rows,
    origin: Origin,
    options: &TrainOptions,
    progress: &mut dyn FnMut(&str),
) -> Result<Trained, TrainingError> {
    options.check()?;
    let samples = ExecSamples::choose(rows, options.max_rows)?;
    let offset = Offset::of(&samples.train);
    progress(&format!("growing up to {} trees on {} rows", options.trees, samples.train.len()));
    let head = fit_exec_head(&offset, &samples, options)?;
    let mut metrics = measure(&head, &offset, &samples);
    if options.rivals {
        progress("fitting an elastic net and a random forest to compare with");
        measure_rivals(&mut metrics, &offset, &samples, options.seed)?;
    }
    let (trained_from, trained_to) = (samples.trained_from, samples.trained_to);
    // The side heads choose their own rows: no two choices are held at a time.
    drop(samples);
    let mut side = |target, what: &str| {
        progress(&format!("growing trees of {what}"));
        fit_side_head(target, rows, options)
    };
    let (cold, wait) = (side(SideTarget::Cold, "cold starts")?, side(SideTarget::Wait, "waits")?);
    progress("growing trees of failures and of quantiles of the latency");
    let (error, quantiles) = (fit_error_head(rows, options)?, fit_quantile_heads(rows, options)?);
    let draft = BundleDraft {
        name: options.name.clone(),
        trained_from,
        trained_to,
        seed: options.seed,
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        parameters: options.for_manifest(),
        how_to_make_again: how_to_make_again(options, &origin.dataset.id),
        exec: Some(ExecDraft { head, metrics }),
        cold: Some(cold),
        wait: Some(wait),
        error,
        quantiles: Some(quantiles),
        calibration: None,
        dataset: origin.dataset,
        service_table: origin.service_table,
    };
    Ok(Trained { draft, metrics })
}

/// Names no folder: where a dataset lies must not change the version.
fn how_to_make_again(options: &TrainOptions, dataset: &str) -> String {
    let TrainOptions { name, seed, how_to_make_again, .. } = options;
    if how_to_make_again.is_empty() {
        return format!(
            "shardwise train --dataset <folder of {dataset}> --models <folder> --name {name} --seed {seed}"
        );
    }
    how_to_make_again.clone()
}

/// Measures an execution head on test rows that it was not trained on, beside the service table.
///
/// # Errors
/// When there are too few rows.
pub fn measure_exec(head: &ExecHead, rows: &Rows, max_rows: usize) -> Result<HeadMetrics, TrainingError> {
    let samples = ExecSamples::choose(rows, max_rows)?;
    Ok(measure(head, &Offset::of(&samples.train), &samples))
}

/// Measures the head and the service table on the test rows.
fn measure(head: &ExecHead, offset: &Offset, samples: &ExecSamples) -> HeadMetrics {
    let (train, test) = (&samples.train, &samples.test);
    let predicted = offset.added_to(test, &predict(head.forest(), &test.features));
    HeadMetrics {
        train_rows: train.len() as u64,
        test_rows: test.len() as u64,
        rmse: rmse_of(test, &predicted),
        r2: rounded(r2(&test.ln_ms, &predicted)),
        table_rmse: rmse_of(test, &TableRule::choose(offset, train).ln_ms(offset, test)),
        elastic_net_rmse: None,
        forest_rmse: None,
    }
}

/// Fits the rivals and measures them on the same rows.
fn measure_rivals(
    metrics: &mut HeadMetrics,
    offset: &Offset,
    samples: &ExecSamples,
    seed: u64,
) -> Result<(), TrainingError> {
    let (train, test) = (&samples.train, &samples.test);
    let (elastic_net, random_forest) = thread::scope(|scope| {
        let random_forest = scope.spawn(|| random_forest_ln_ms(offset, seed, train, test));
        let elastic_net = elastic_net_ln_ms(offset, samples.early, train, test);
        (elastic_net, random_forest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    metrics.elastic_net_rmse = Some(rmse_of(test, &elastic_net?));
    metrics.forest_rmse = Some(rmse_of(test, &random_forest?));
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use shardwise_features::{FEATURE_COUNT, position};
    use shardwise_types::Timestamp;

    use super::*;
    use crate::Part;
    use crate::rows::Samples;

    const NOISE: f64 = 0.1;

    /// SplitMix64: the same data for ever.
    struct Dice(u64);

    impl Dice {
        fn unit(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        }

        /// About normal, of variance 1.
        fn normal(&mut self) -> f64 {
            (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
        }
    }

    fn at(name: &str) -> usize {
        position(name).expect("a feature")
    }

    /// Rows whose warm execution times the table knows but for one thing: a loaded burstable shard is slow. Every tenth row
    /// was sent there long ago and is cold, a loaded shard queues. Every fifth row is unknown to the table, `missing` of all other values are NaN.
    pub(crate) fn world(n_train: usize, n_test: usize, missing: f64) -> Rows {
        let mut dice = Dice(7);
        let mut rows = Rows::default();
        for row in 0..n_train + n_test {
            let (features, exec_ms, load) = world_row(&mut dice, row, missing);
            rows.features.extend(features);
            rows.cold.push(row % 10 == 9);
            rows.queue_ms.push(if load > 0.5 { 100.0 * load } else { 0.0 });
            rows.total_ms.push(exec_ms + 5.0);
            rows.exec_ms.push(exec_ms);
            rows.known_at.push(Timestamp::from_nanos(row as i64 * 1_000_000));
            rows.block.push(1 + (row / 1000) as i32);
            rows.ok.push(true);
            rows.part.push(if row < n_train { Part::Train } else { Part::Test });
        }
        rows
    }

    fn world_row(dice: &mut Dice, row: usize, missing: f64) -> (Vec<f32>, f32, f32) {
        let mut features: Vec<f32> =
            (0..FEATURE_COUNT).map(|_| if dice.unit() < missing { f32::NAN } else { dice.unit() as f32 }).collect();
        let service_ln_ms = 2.0 + dice.unit() * 2.0;
        let (load, is_burstable) = (dice.unit(), dice.unit() < 0.5);
        let slow_ln = if is_burstable && load > 0.5 { 0.6 } else { 0.0 };
        let exec_ms = (service_ln_ms + slow_ln).exp();
        let is_known = !row.is_multiple_of(5);
        features[at("prior_service_ln_ms")] = if is_known { service_ln_ms as f32 } else { f32::NAN };
        features[at("function_ln_ms")] = service_ln_ms as f32;
        features[at("report_load")] = load as f32;
        features[at("hardware_burstable")] = f32::from(u8::from(is_burstable));
        features[at("since_dispatch_s")] = if row % 10 == 9 { 300.0 } else { 1.0 };
        (features, (exec_ms * (NOISE * dice.normal()).exp()) as f32, load as f32)
    }

    fn history() -> Origin {
        let example = BundleDraft::example();
        Origin { dataset: example.dataset, service_table: example.service_table }
    }

    fn trained(rows: &Rows) -> Trained {
        train_rows(rows, history(), &TrainOptions::default(), &mut |_| {}).expect("a model")
    }

    fn rivals_rmse(metrics: &HeadMetrics) -> [f64; 2] {
        [metrics.elastic_net_rmse, metrics.forest_rmse].map(|rmse| rmse.expect("rivals were fitted"))
    }

    #[test]
    fn rivals_that_are_not_wanted_are_not_fitted() {
        let rows = world(1500, 300, 0.1);
        let with = trained(&rows).metrics;
        let options = TrainOptions { rivals: false, ..TrainOptions::default() };
        let without = train_rows(&rows, history(), &options, &mut |_| {}).expect("a model").metrics;
        assert_eq!(without, HeadMetrics { elastic_net_rmse: None, forest_rmse: None, ..with });
    }

    #[test]
    fn known_world_is_learned_down_to_its_noise() {
        let trained = trained(&world(12_000, 3000, 0.1));
        let metrics = trained.metrics;
        assert!((NOISE * 0.9..NOISE * 1.5).contains(&metrics.rmse), "{metrics:?}");
        assert!(metrics.r2 > 0.9, "{metrics:?}");
        // Neither knows that load matters on burstable shards only; the random forest finds it as well as the head does.
        let [elastic_net_rmse, forest_rmse] = rivals_rmse(&metrics);
        for rival in [metrics.table_rmse, elastic_net_rmse] {
            assert!(rival > metrics.rmse * 1.5, "{metrics:?}");
        }
        let rivals = [metrics.table_rmse, elastic_net_rmse, forest_rmse];
        assert!(rivals.iter().all(|rival| *rival < 0.5), "rivals are given a chance: {metrics:?}");
        let head = trained.draft.exec.expect("a head").head;
        assert!((NOISE * 0.9..NOISE * 1.6).contains(&head.residual_sd()));
        assert!((head.smearing() - (NOISE * NOISE / 2.0).exp()).abs() < 0.02);
        assert_eq!(trained.draft.error, None, "nothing fails in this world");
        for side in [trained.draft.cold, trained.draft.wait].map(|side| side.expect("a head").metrics) {
            assert!(side.loss < 0.1 * side.formula_loss && (side.bias - 1.0).abs() < 0.05, "{side:?}");
        }
    }

    #[test]
    fn expected_executions_are_unbiased_on_late_rows() {
        let mut rows = world(12_000, 3000, 0.1);
        let mut dice = Dice(11);
        rows.exec_ms.iter_mut().for_each(|ms| *ms *= (0.5 * dice.normal()).exp() as f32);
        let head = trained(&rows).draft.exec.expect("a head").head;
        let late: Vec<usize> = (12_000..15_000).filter(|row| !rows.cold[*row]).collect();
        let features: Vec<f32> = late.iter().flat_map(|row| rows.features(*row)).copied().collect();
        let mut ln_ms = vec![0.0; late.len()];
        head.predict_ln_ms_rows(&features, &mut ln_ms);
        let measured: f64 = late.iter().map(|row| f64::from(rows.exec_ms[*row])).sum();
        let typical: f64 = ln_ms.iter().map(|ln_ms| ln_ms.exp()).sum();
        let bias = head.smearing() * typical / measured;
        assert!((bias - 1.0).abs() < 0.03, "expected over measured: {bias}");
        assert!(typical / measured < 0.92, "without smearing a log-normal's mean is missed: {}", typical / measured);
    }

    #[test]
    fn same_rows_and_seed_give_the_same_bundle() {
        let rows = world(3000, 600, 0.2);
        let [one, other] = [0; 2].map(|_| trained(&rows));
        assert_eq!(one, other);
        let digest = |trained: &Trained| trained.draft.bundle().expect("a bundle").digest().to_owned();
        assert_eq!(digest(&one), digest(&other));
        let options = TrainOptions { seed: 2, ..TrainOptions::default() };
        let third = train_rows(&rows, history(), &options, &mut |_| {}).expect("a model");
        assert_ne!(digest(&one), digest(&third));
    }

    #[test]
    fn what_is_loaded_answers_as_what_was_trained() {
        let rows = world(2000, 400, 0.3);
        let trained = trained(&rows);
        let folder = tempfile::tempdir().expect("a folder");
        let bundle_folder = folder.path().join("bundle");
        trained.draft.write(&bundle_folder).expect("a bundle");
        let bundle = shardwise_models::ModelBundle::load(&bundle_folder).expect("a sound bundle");
        assert_eq!(bundle.exec(), trained.draft.exec.as_ref().map(|exec| &exec.head));
        assert_eq!(bundle.manifest().heads.exec.as_ref().expect("a head").metrics, trained.metrics);
    }

    #[test]
    fn mostly_missing_values_are_no_obstacle() {
        let mut rows = world(3000, 600, 0.95);
        let rmse = trained(&rows).metrics.rmse;
        assert!(rmse < 0.4, "{rmse}");
        for (place, value) in rows.features.iter_mut().enumerate() {
            *value = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, *value][place * 7 % 4];
        }
        assert!(trained(&rows).metrics.rmse.is_finite());
        rows.features.fill(f32::NAN);
        let metrics = trained(&rows).metrics;
        assert!(metrics.r2.abs() < 0.05, "nothing can be known: {metrics:?}");
        assert_eq!(metrics.elastic_net_rmse, metrics.forest_rmse);
    }

    #[test]
    fn nothing_that_varies_is_no_obstacle() {
        let mut rows = world(1500, 300, 0.1);
        rows.exec_ms.fill(12.5);
        let metrics = trained(&rows).metrics;
        assert_eq!(metrics.r2, 0.0);
        assert!(metrics.rmse < metrics.table_rmse);
        rows.features.fill(1.0);
        let metrics = trained(&rows).metrics;
        assert!(metrics.rmse < 1e-6 && rivals_rmse(&metrics).iter().all(|rmse| *rmse < 1e-5), "{metrics:?}");
    }

    #[test]
    fn all_cold_is_no_obstacle() {
        let mut rows = world(1500, 300, 0.1);
        for row in rows.features.chunks_exact_mut(FEATURE_COUNT) {
            row[at("since_dispatch_s")] = f32::NAN;
        }
        assert!(trained(&rows).metrics.rmse.is_finite());
    }

    #[test]
    fn too_few_rows_are_refused_before_any_work() {
        let refuse = |rows: &Rows| {
            let mut steps = 0;
            let refused = train_rows(rows, history(), &TrainOptions::default(), &mut |_| steps += 1);
            assert_eq!(steps, 0);
            refused.expect_err("a refusal").to_string()
        };
        assert!(refuse(&world(500, 300, 0.1)).contains("450 usable training rows"));
        assert!(refuse(&world(1500, 0, 0.1)).contains("0 usable test rows"));
        assert!(refuse(&Rows::default()).contains("longer history"));
    }

    #[test]
    fn table_is_given_the_candidates_residual_where_it_helps() {
        let offset = Offset { feature: at("prior_service_ln_ms"), default_ln_ms: 0.0 };
        let mut row = vec![f32::NAN; FEATURE_COUNT];
        row[at("prior_service_ln_ms")] = 10.0_f32.ln();
        let mut samples =
            Samples { features: row.repeat(2), ln_ms: [10.0_f64, 20.0].map(f64::ln).to_vec(), weights: Vec::new() };
        assert_eq!(TableRule::choose(&offset, &samples), TableRule { with_residual: false }, "there is none");
        samples.features[at("residual_ln") + FEATURE_COUNT] = 2.0_f32.ln();
        assert_eq!(TableRule::choose(&offset, &samples), TableRule { with_residual: true });
    }
}
