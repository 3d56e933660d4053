//! Writes `report.schema.json` anew after a report has changed:
//! `cargo run --release -p shardwise-evaluation --features schema --example report_schema > crates/shardwise-evaluation/report.schema.json`

fn main() -> Result<(), serde_json::Error> {
    print!("{}", shardwise_evaluation::report_schema()?);
    Ok(())
}
