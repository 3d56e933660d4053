//! Claims about the neural head: it learns what the offset misses, the same again from the same seed, and answers everywhere as
//! it was trained.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shardwise_features::{FEATURE_COUNT, fingerprint, position};
use shardwise_models::onnx::{FeatureCheck, OnnxModel, OnnxRuntime, export_neural, read_neural};
use shardwise_models::{ExecModel, ExecRows};
use shardwise_neural::{FitOptions, Fitted, fit};

/// Standard deviation of what nobody can know.
const NOISE: f64 = 0.1;
const PARITY_ROWS: usize = 10_000;
const ODD_VALUES: [f32; 7] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e30, -1e30];

fn at(name: &str) -> usize {
    position(name).expect("a feature")
}

/// Rows whose time the table knows but for one thing: a loaded burstable shard is slow. A tenth of all values is missing.
fn world(n_rows: usize, seed: u64) -> ExecRows {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut features, mut ln_ms) = (Vec::new(), Vec::new());
    for _ in 0..n_rows {
        let value = |rng: &mut StdRng| if rng.random_bool(0.1) { f32::NAN } else { rng.random_range(0.0..1.0) };
        let mut row: Vec<f32> = (0..FEATURE_COUNT).map(|_| value(&mut rng)).collect();
        let (table, load, is_burstable) =
            (rng.random_range(2.0..4.0), rng.random_range(0.0..1.0_f32), rng.random_bool(0.5));
        row[at("prior_service_ln_ms")] = table;
        row[at("report_load")] = load;
        row[at("hardware_burstable")] = f32::from(u8::from(is_burstable));
        let slower = if is_burstable && load > 0.5 { 0.6 } else { 0.0 };
        let noise: f64 = (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
        ln_ms.push(f64::from(table) + slower + NOISE * noise);
        features.extend(row);
    }
    ExecRows {
        feature_fingerprint: fingerprint().to_owned(),
        dataset: "world".to_owned(),
        dataset_hash: String::new(),
        trained_from_ns: 0,
        trained_to_ns: n_rows as i64,
        offset_feature: "prior_service_ln_ms".to_owned(),
        offset_default_ln_ms: 3.0,
        early: (n_rows as f64 * 0.85) as u64,
        features,
        ln_ms,
        weights: Vec::new(),
    }
}

fn options() -> FitOptions {
    FitOptions { width: 32, epochs: 20, batch: 64, ..FitOptions::default() }
}

fn fitted(rows: &ExecRows, options: &FitOptions) -> Fitted {
    fit(rows, options, &mut |_| ()).expect("a head")
}

fn rmse(head: &dyn ExecModel, rows: &ExecRows) -> f64 {
    let mut said = vec![f64::NAN; rows.len()];
    head.predict_ln_ms_rows(&rows.features, &mut said);
    let squares: f64 = said.iter().zip(&rows.ln_ms).map(|(said, came)| (said - came).powi(2)).sum();
    (squares / rows.len() as f64).sqrt()
}

#[test]
fn a_known_world_is_learned_nearly_down_to_its_noise() {
    let (rows, held_out) = (world(12_000, 1), world(3_000, 2));
    let fitted = fitted(&rows, &options());
    let error = rmse(&fitted.head, &held_out);
    assert!((0.9 * NOISE..1.6 * NOISE).contains(&error), "{error}");
    // The table alone misses 0.6 in a quarter of the rows.
    assert!((0.9 * error..1.2 * error).contains(&fitted.late_rmse), "what it says of itself: {}", fitted.late_rmse);
    assert!((fitted.head.smearing() - (error * error / 2.0).exp()).abs() < 0.02, "{}", fitted.head.smearing());
}

#[test]
fn the_same_rows_and_seed_give_the_same_bytes() {
    let rows = world(2_000, 3);
    let bytes = |seed| export_neural(&fitted(&rows, &FitOptions { seed, epochs: 2, ..options() }).head, &[]);
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}

#[test]
fn rows_count_as_often_as_they_weigh() {
    // Half of the rows are twice as slow as the table says, and nothing tells them apart.
    let mut rows = world(4_000, 4);
    for (place, (row, ln_ms)) in rows.features.chunks_exact(FEATURE_COUNT).zip(&mut rows.ln_ms).enumerate() {
        *ln_ms = f64::from(row[at("prior_service_ln_ms")]) + f64::from(u8::from(place % 2 == 0));
    }
    // On the rows that it learned from it might remember each.
    let held_out = world(1_000, 9);
    let mut mean = |weights: [f32; 2]| {
        rows.weights = (0..rows.len()).map(|place| weights[place % 2]).collect();
        let head = fitted(&rows, &FitOptions { epochs: 10, ..options() }).head;
        let added = |row: &[f32]| head.predict_ln_ms(row) - f64::from(row[at("prior_service_ln_ms")]);
        held_out.rows().map(added).sum::<f64>() / held_out.len() as f64
    };
    let (alike, weighted) = (mean([1.0, 1.0]), mean([1.5, 0.5]));
    assert!((alike - 0.5).abs() < 0.05 && (weighted - 0.75).abs() < 0.05, "{alike}, {weighted}");
}

#[test]
fn what_is_served_answers_as_what_was_trained() {
    let Fitted { head, network, inputs, .. } = fitted(&world(4_000, 5), &options());
    let mut rows = world(PARITY_ROWS, 6).features;
    let mut rng = StdRng::seed_from_u64(7);
    for value in &mut rows {
        if rng.random_bool(0.05) {
            *value = ODD_VALUES[rng.random_range(0..ODD_VALUES.len())];
        }
    }
    // Where the offset is that large nothing that is added can be told.
    rows.chunks_exact_mut(FEATURE_COUNT).for_each(|row| {
        let offset = &mut row[at("prior_service_ln_ms")];
        *offset = if offset.abs() == 1e30 { 2.5 } else { *offset };
    });
    let mut columns = vec![0.0; PARITY_ROWS * inputs.width()];
    let each = rows.chunks_exact(FEATURE_COUNT);
    each.clone().zip(columns.chunks_exact_mut(inputs.width())).for_each(|(row, out)| inputs.write(row, out));
    let offset = |row: &[f32]| Some(row[at("prior_service_ln_ms")]).filter(|it| it.is_finite()).unwrap_or(3.0);
    let added = network.predict(&columns, inputs.width());
    let trained: Vec<f64> = each.zip(added).map(|(row, added)| f64::from(offset(row) + added)).collect();
    let assert_close = |what: &str, answers: &[f64]| {
        for (row, (trained, answer)) in trained.iter().zip(answers).enumerate() {
            assert!(
                (trained - answer).abs() <= 1e-5 * trained.abs().max(1.0),
                "{what}, row {row}: {answer}, not {trained}"
            );
        }
    };
    let mut answers = vec![f64::NAN; PARITY_ROWS];
    head.predict_ln_ms_rows(&rows, &mut answers);
    assert_close("the head", &answers);
    let bytes = export_neural(&head, &[]);
    assert_eq!(read_neural(&bytes).expect("our own head"), head);
    let Ok(library) = OnnxRuntime::find() else {
        eprintln!("skipped: there is no ONNX Runtime; run this test with cargo dev neural");
        return;
    };
    let runtime = OnnxRuntime::load(&library).expect("ONNX Runtime");
    let mut model = OnnxModel::from_bytes(&runtime, &bytes).expect("a model");
    model.signature().check(Path::new("exec.onnx"), FeatureCheck::Fingerprint).expect("our own features");
    answers.fill(f64::NAN);
    model.predict_rows(&rows, &mut answers).expect("answers");
    assert_close("ONNX Runtime", &answers);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let refusal =
        |rows: &ExecRows, options: FitOptions| fit(rows, &options, &mut |_| ()).expect_err("a refusal").to_string();
    let mut rows = world(200, 8);
    assert!(refusal(&rows, FitOptions { width: 0, ..options() }).contains("--width is 0"));
    rows.features.fill(1.0);
    assert!(refusal(&rows, options()).contains("reads 0 columns"));
}
