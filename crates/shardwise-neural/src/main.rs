//! `shardwise-neural`: rows that `shardwise dataset rows` wrote into an execution head as ONNX.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use shardwise_models::ExecRows;
use shardwise_models::onnx::export_neural;
use shardwise_neural::{FitOptions, Fitted, fit};

/// Trains a neural execution head and writes it as ONNX.
#[derive(Parser)]
#[command(name = "shardwise-neural", version, arg_required_else_help = true)]
struct Arguments {
    /// The rows, as `shardwise dataset rows` writes them.
    #[arg(long)]
    rows: PathBuf,
    /// The ONNX file to write; one of the same name is replaced.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    options: FitOptions,
    /// Print one JSON object as the last line of standard output.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shardwise-neural: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { rows: path, out, options, json }: &Arguments) -> Result<(), Box<dyn Error>> {
    let bytes = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let rows = ExecRows::from_bytes(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    let Fitted { head, epochs, late_rmse, .. } = fit(&rows, options, &mut |said| eprintln!("neural: {said}"))?;
    let parameters = json!({
        "width": options.width, "layers": options.layers, "epochs": options.epochs, "patience": options.patience,
        "batch": options.batch, "learning_rate": options.learning_rate, "weight_decay": options.weight_decay,
    });
    let more = [
        ("trained_from", shardwise_types::Timestamp::from_nanos(rows.trained_from_ns).to_string()),
        ("trained_to", shardwise_types::Timestamp::from_nanos(rows.trained_to_ns).to_string()),
        ("dataset", rows.dataset.clone()),
        ("dataset_hash", rows.dataset_hash.clone()),
        ("seed", options.seed.to_string()),
        ("parameters", parameters.to_string()),
    ];
    let content = export_neural(&head, &more);
    fs::write(out, &content).map_err(|error| format!("cannot write {}: {error}", out.display()))?;
    if *json {
        let result = json!({
            "out": out, "bytes": content.len(), "rows": rows.len(), "hidden": head.hidden(), "epochs": epochs,
            "late_rmse": late_rmse, "smearing": head.smearing(),
        });
        println!("{result}");
    } else {
        println!("{}: {} rows, {epochs} passes, rmse {late_rmse:.4} on later rows", out.display(), rows.len());
    }
    Ok(())
}
