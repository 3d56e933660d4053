//! The checks. Each loads bytes and says whether they were accepted; what is wrong with an acceptance is the error.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use shardwise_features::golden::{GoldenContext, contexts};
use shardwise_features::{DecisionContext, DecisionFeatures, FEATURE_COUNT, FeatureVector, position};
use shardwise_models::forest::{Factored, Forest, Scratch};
use shardwise_models::{ModelBundle, Predictions, SideHead, table_from_bytes, table_to_bytes};

use super::book::Book;

/// Rows that an accepted forest is asked about: more than are answered in one step.
const ROWS: usize = 19;

static GOLDEN: LazyLock<Vec<GoldenContext>> = LazyLock::new(contexts);

/// Bytes of a forest.
///
/// # Errors
/// When they are accepted and any way to ask the forest answers otherwise than they say.
pub fn forest(bytes: &[u8]) -> Result<bool, String> {
    let Ok(forest) = Forest::from_bytes(bytes) else { return Ok(false) };
    if forest.to_bytes() != bytes {
        return Err("two byte strings are the same forest".to_owned());
    }
    let book = Book::new(bytes);
    let width = book.n_features;
    let rows = rows(&book);
    let expected: Vec<u64> = rows.chunks_exact(width).map(|row| book.answer(row).to_bits()).collect();
    let same = |way: &str, answers: &[f64]| match answers.iter().map(|x| x.to_bits()).eq(expected.iter().copied()) {
        true => Ok(()),
        false => Err(format!("{way}: {answers:?}")),
    };
    let mut answers: Vec<f64> = rows.chunks_exact(width).map(|row| forest.predict(row)).collect();
    same("one row at a time", &answers)?;
    forest.predict_rows(&rows, width, &mut answers);
    same("many rows", &answers)?;
    if let Some(factored) = Factored::new(&[&forest], 0) {
        factored.predict_rows(&rows, width, &mut Scratch::default(), &mut answers);
        same("factored", &answers)?;
    }
    Ok(true)
}

/// Rows of special values, thresholds of the forest and numbers between, the same for the same forest.
fn rows(book: &Book<'_>) -> Vec<f32> {
    let mut values = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-36, 1e-35, -1e-34, 0.5, -3.0, 40.0];
    values.extend(book.thresholds().take(64).flat_map(|threshold| [threshold, threshold.next_up()]));
    (0..ROWS * book.n_features).map(|i| values[(i.wrapping_mul(0x9e37_79b1) >> 7) % values.len()]).collect()
}

/// Bytes of a service table.
///
/// # Errors
/// When they are accepted and are not the table's own.
pub fn service_table(bytes: &[u8]) -> Result<bool, String> {
    let Ok(table) = table_from_bytes(bytes) else { return Ok(false) };
    if table_to_bytes(&table).as_deref() != Ok(bytes) {
        return Err("the table is written otherwise than it was read".to_owned());
    }
    // Whatever numbers are in it, features can be computed under it.
    let context = DecisionContext { service_table: Some(&table), ..GOLDEN[1].context() };
    FeatureVector::extract(&DecisionFeatures::new(&context), 0);
    Ok(true)
}

/// A manifest and the files beside it.
///
/// # Errors
/// When they are accepted and the bundle's name or any of its answers is not by these very bytes.
pub fn bundle(manifest: &[u8], files: &BTreeMap<String, Vec<u8>>) -> Result<bool, String> {
    let Ok(bundle) = ModelBundle::from_memory(manifest, files) else { return Ok(false) };
    let digest = blake3::hash(manifest).to_hex();
    if bundle.digest() != digest.as_str() || !digest.starts_with(bundle.version()) || bundle.version().len() != 16 {
        return Err(format!("version {} of digest {digest}", bundle.version()));
    }
    let said: serde_json::Value = serde_json::from_slice(manifest).map_err(|error| format!("no JSON: {error}"))?;
    for (name, entry) in said["files"].as_object().ok_or("no files")? {
        let content = files.get(name).ok_or_else(|| format!("{name} is not there"))?;
        if entry["blake3"] != blake3::hash(content).to_hex().as_str() || entry["bytes"] != content.len() {
            return Err(format!("{name} is not what the manifest lists"));
        }
    }
    for content in files.values() {
        forest(content)?;
        service_table(content)?;
    }
    answers(&bundle, &said, files).map(|()| true)
}

/// What the quantile heads say, against the files' forests by the book.
fn quantiles(
    bundle: &ModelBundle,
    said: &serde_json::Value,
    files: &BTreeMap<String, Vec<u8>>,
    vectors: &[[f32; FEATURE_COUNT]],
) -> Result<(), String> {
    let said = &said["heads"]["quantiles"];
    let Some(head) = bundle.quantiles() else {
        return if said.is_null() { Ok(()) } else { Err("the quantile heads were not read".to_owned()) };
    };
    for row in vectors {
        let formula = shardwise_models::formula_latency_ln_ms(row);
        let by_book = [0, 1].map(|which: usize| {
            let sum = Book::new(&files[said["files"][which].as_str().unwrap_or_default()]).answer(row);
            (formula + sum).clamp(-6.9, 20.6).exp()
        });
        let found = head.predict_ms(row);
        if found != [by_book[0], by_book[0].max(by_book[1])] {
            return Err(format!("quantiles: {found:?} where {by_book:?} was expected"));
        }
    }
    Ok(())
}

/// What all heads say in one pass, against the files' forests by the book.
fn answers(bundle: &ModelBundle, said: &serde_json::Value, files: &BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    let table = bundle.service_table();
    if table_to_bytes(&table).as_ref() != Ok(&files["service_table.bin"]) {
        return Err("the table is not the file's".to_owned());
    }
    let sums = |head: &str, row: &[f32]| {
        let file = said["heads"][head]["file"].as_str().unwrap_or_default();
        Book::new(&files[file]).answer(row)
    };
    let exec = &said["heads"]["exec"];
    let offset = |row: &[f32]| {
        let feature = position(exec["offset_feature"].as_str().unwrap_or_default()).unwrap_or(FEATURE_COUNT);
        let known = f64::from(row[feature]);
        if known.is_finite() { known } else { exec["offset_default_ln_ms"].as_f64().unwrap_or(f64::NAN) }
    };
    let mut predictions = Predictions::default();
    for golden in GOLDEN.iter() {
        let context = DecisionContext { service_table: Some(&table), ..golden.context() };
        let features = DecisionFeatures::new(&context);
        let vectors: Vec<_> = (0..3).map(|at| FeatureVector::extract(&features, at).into_array()).collect();
        bundle.predict(vectors.as_flattened(), &mut predictions);
        let same = |head: &str, answers: &[f64], expected: &dyn Fn(&[f32]) -> f64| {
            let is_there = !said["heads"][head].is_null();
            let expected: Vec<u64> = vectors.iter().filter(|_| is_there).map(|row| expected(row).to_bits()).collect();
            match answers.iter().map(|x| x.to_bits()).eq(expected) {
                true => Ok(()),
                false => Err(format!("{head}: {answers:?}")),
            }
        };
        let link = |head: Option<&SideHead>, sum: f64| head.map_or(f64::NAN, |head| head.target().of_score(sum));
        same("exec", &predictions.exec_ln_ms, &|row| offset(row) + sums("exec", row))?;
        same("cold", &predictions.cold, &|row| link(bundle.cold(), sums("cold", row)))?;
        same("wait", &predictions.wait_ms, &|row| link(bundle.wait(), sums("wait", row)))?;
        let mut errors = vec![f64::NAN; if bundle.error().is_some() { vectors.len() } else { 0 }];
        if let Some(head) = bundle.error() {
            head.predict_rows(vectors.as_flattened(), &mut errors);
        }
        same("error", &errors, &|row| link(bundle.error(), sums("error", row)))?;
        quantiles(bundle, said, files, &vectors)?;
    }
    let Some(head) = bundle.exec() else { return Ok(()) };
    match exec["smearing"].as_f64() == Some(head.smearing()) && exec["residual_sd"].as_f64() == Some(head.residual_sd())
    {
        true => Ok(()),
        false => Err("the head's numbers are not the manifest's".to_owned()),
    }
}
