//! `shardwise bench …`: how fast models are answered, here and elsewhere.

use miette::{IntoDiagnostic, miette};
use serde_json::json;
use shardwise_training::{EngineTime, ScoreBench, ScoreBenchOptions, check_parity, score_bench};

use crate::arguments::BenchScoreArguments;
use crate::output::{self, Stage};

pub(crate) fn score(options: &BenchScoreArguments, json: bool) -> miette::Result<()> {
    let python = std::env::var_os("SHARDWISE_PYTHON").map(Into::into);
    let BenchScoreArguments { trees, leaves, features, seed, parity } = *options;
    let bench = ScoreBenchOptions { trees, leaves, features, seed, python };
    match parity {
        Some(rows) => compare(&bench, rows, json),
        None => time(&bench, json),
    }
}

fn time(options: &ScoreBenchOptions, json: bool) -> miette::Result<()> {
    let mut stage = Stage::start("scoring");
    let measured = score_bench(options, output::clock_ns, &mut |progress| stage.at(progress)).into_diagnostic()?;
    stage.done(format!("{} engines", measured.differences.len()));
    let ScoreBenchOptions { trees, leaves, features, .. } = options;
    println!(
        "{trees} trees of up to {leaves} leaves on {features} features; one thread, engines in turns; ns are per row"
    );
    print(&measured);
    if json {
        output::print_json(&json!({
            "trees": trees, "leaves": leaves, "features": features, "threads": 1, "results": measured.results,
            "differences": measured.differences, "left_out": measured.left_out,
        }))?;
    }
    Ok(())
}

fn print(measured: &ScoreBench) {
    let shared = measured.results.iter().map(|time| time.shared_features).max().unwrap_or_default();
    println!(
        "rows of one call share the first {shared} features, as candidates of one decision do; last column: none\n"
    );
    println!(
        "  {:<6}{:<13}{:<23}{:>10}{:>10}{:>9}{:>13}",
        "rows", "engine", "way", "p50 µs", "p99 µs", "ns", "none shared"
    );
    for time in measured.results.iter().filter(|time| time.shared_features > 0) {
        let is_same =
            |other: &&EngineTime| other.shared_features == 0 && (other.engine, other.rows) == (time.engine, time.rows);
        let alone = measured.results.iter().find(is_same).map_or(f64::NAN, |alone| alone.ns_per_row);
        let EngineTime { engine, way, rows, p50_us, p99_us, ns_per_row, .. } = time;
        println!("  {rows:<6}{engine:<13}{way:<23}{p50_us:>10.2}{p99_us:>10.2}{ns_per_row:>9.0}{alone:>13.0}");
    }
    println!();
    for difference in &measured.differences {
        let (engine, rows) = (difference.engine, difference.rows);
        println!("  {engine}: largest difference from LightGBM {:.1e} on {rows} rows", difference.max_difference);
    }
    for left_out in &measured.left_out {
        println!("  {} is left out: {}", left_out.engine, left_out.reason);
    }
}

fn compare(options: &ScoreBenchOptions, rows: usize, json: bool) -> miette::Result<()> {
    let mut stage = Stage::start("comparing with LightGBM");
    let parities = check_parity(options, rows, &mut |progress| stage.at(progress)).into_diagnostic()?;
    let different: usize = parities.iter().map(|parity| parity.different).sum();
    let different_leaves: usize = parities.iter().map(|parity| parity.different_leaves).sum();
    stage.done(format!("{different} sums and {different_leaves} leaves differ"));
    for parity in &parities {
        println!(
            "{} rows, zero {} missing, by {}: {} sums differ in any bit, {} leaves are others ({} NaN, {} infinite values, {} \
             exact thresholds){}",
            parity.rows,
            if parity.zero_is_missing { "is" } else { "is not" },
            parity.ways.join(" and "),
            parity.different,
            parity.different_leaves,
            parity.nan,
            parity.infinite,
            parity.thresholds,
            parity
                .onnx_max_difference
                .map_or(String::new(), |most| format!("; ONNX Runtime differs by at most {most:.1e}")),
        );
    }
    if json {
        output::print_json(
            &json!({ "parity": parities, "different": different, "different_leaves": different_leaves }),
        )?;
    }
    match different + different_leaves {
        0 => Ok(()),
        _ => Err(miette!(
            "{different} sums and {different_leaves} leaves are not LightGBM's: this is a bug, do not serve models of this \
             version"
        )),
    }
}
