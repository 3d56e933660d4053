//! The datasets and histories open in the tools that analysts use, with the documented columns.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{night, skipped};

/// The environment's Python that `cargo dev setup` made; `None` when tests run without it.
pub(crate) fn python() -> Option<PathBuf> {
    let python = std::env::var_os("SHARDWISE_PYTHON").map(PathBuf::from);
    if python.is_none() {
        skipped("SHARDWISE_PYTHON is not set; run the tests with cargo dev test");
    }
    python
}

const READ: &str = r#"
import glob, json, sys
import duckdb, polars, pyarrow.dataset, pyarrow.parquet
folder, features = sys.argv[1], sys.argv[2].split(",")
card = json.load(open(folder + "/dataset.json"))
files = sorted(glob.glob(folder + "/date=*/*.parquet"))
arrow = pyarrow.parquet.read_table(files[0], partitioning=None)
frame = polars.read_parquet(files, hive_partitioning=False)
rows = duckdb.sql(f"select count(*), count(distinct decision_id), sum(chosen::int) from read_parquet({files!r}, hive_partitioning=false)").fetchall()[0]
assert frame.height == rows[0], (frame.height, rows)
assert rows[1] == rows[2], "one chosen row a decision"
for name in ["decision_id", "router", "shard", "chosen", "known_at", "event_at", "block", "propensity", "exec_ms", "queue_ms", "net_ms", "total_ms", "cold", "ok", "censored"] + features:
    assert name in arrow.schema.names, name
    assert name in frame.columns, name
for name in features:
    assert str(arrow.schema.field(name).type) == "float", name
print(rows[0])
"#;

#[test]
fn datasets_open_in_pyarrow_duckdb_and_polars() {
    let Some(python) = python() else { return };
    let names: Vec<&str> = shardwise_features::FEATURES.iter().map(|feature| feature.name).collect();
    let output = Command::new(python)
        .args(["-c", READ])
        .arg(night().path("work/dataset"))
        .arg(names.join(","))
        .output()
        .expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a count");
    assert_eq!(Some(rows), night().result["dataset"]["rows"].as_f64());
}

const READ_HISTORY: &str = r#"
import glob, sys
import duckdb, polars, pyarrow.parquet
for table, columns in [
    ("decisions", ["decision_id", "event_at", "known_at", "sequence", "router", "function", "shard", "propensity"]),
    ("outcomes", ["decision_id", "event_at", "known_at", "sequence", "exec_ms", "queue_ms", "queue_len", "cold"]),
    ("shard_reports", ["shard", "event_at", "known_at", "sequence", "cores", "cpu", "memory", "healthy"]),
    ("market", ["event_at", "known_at", "sequence", "price_usd", "volume", "volatility_bp", "trend_bp"]),
]:
    files = sorted(glob.glob(f"{sys.argv[1]}/{table}/date=*/*.parquet"))
    arrow = pyarrow.parquet.read_table(files[0], partitioning=None)
    assert polars.read_parquet(files[0], hive_partitioning=False).height == arrow.num_rows
    assert duckdb.sql(f"select count(*) from read_parquet('{files[0]}', hive_partitioning=false)").fetchall()[0][0] == arrow.num_rows
    for column in columns:
        assert column in arrow.schema.names, (table, column)
"#;

#[test]
fn histories_open_there_too() {
    let Some(python) = python() else { return };
    let output =
        Command::new(python).args(["-c", READ_HISTORY]).arg(night().path("history")).output().expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
