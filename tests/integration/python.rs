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

const AS_OF: &str = r#"
import sys
import duckdb
history, dataset = sys.argv[1:]
table = lambda name: f"read_parquet('{history}/{name}/date=*/*.parquet', hive_partitioning=false)"
duckdb.sql(f"create view rows as select * from read_parquet('{dataset}/date=*/*.parquet', hive_partitioning=false)")
duckdb.sql(f"create view decisions as select * from {table('decisions')}")
duckdb.sql(f"create view reports as select * from {table('shard_reports')}")
duckdb.sql(f"create view market as select * from {table('market')}")
# What is known at the very instant of a decision comes before or after it by its sequence, which no as-of join knows.
differing = duckdb.sql("""
with untied as (
    select * from rows
    where known_at not in (select known_at from reports) and known_at not in (select known_at from market)
), reported as (
    select rows.*, reports.cpu, reports.memory, reports.error_rate as reported_error_rate
    from untied as rows asof left join reports on rows.shard = reports.shard and rows.known_at >= reports.known_at
), priced as (
    select reported.*, market.volatility_bp as market_volatility_bp, market.trend_bp as market_trend_bp
    from reported asof left join market on reported.known_at >= market.known_at
)
select count(*),
    count(*) filter (where report_cpu is distinct from coalesce(cpu, 'nan'::float)
        or report_memory is distinct from coalesce(memory, 'nan'::float)
        or report_error_rate is distinct from coalesce(reported_error_rate, 'nan'::float)),
    count(*) filter (where not isnan(report_cpu)),
    count(*) filter (where priced.volatility_bp is distinct from
            coalesce(decisions.event_volatility_bp, market_volatility_bp, 'nan'::float)
        or priced.trend_bp is distinct from coalesce(decisions.event_trend_bp, market_trend_bp, 'nan'::float)),
    count(*) filter (where not isnan(priced.volatility_bp))
from priced join decisions using (decision_id)
""").fetchall()[0]
print(*differing)
"#;

#[test]
fn what_was_known_of_reports_and_market_is_what_an_as_of_join_finds() {
    let Some(python) = python() else { return };
    let has_duckdb = Command::new(&python).args(["-c", "import duckdb"]).output().expect("python starts");
    if !has_duckdb.status.success() {
        skipped("duckdb cannot be imported; `cargo dev setup` installs it");
        return;
    }
    let output = Command::new(python)
        .args(["-c", AS_OF])
        .args([night().path("history"), night().path("work/dataset")])
        .output()
        .expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let counts: Vec<u64> = said.split_whitespace().map(|count| count.parse().expect("a count")).collect();
    let [rows, of_reports, reported, of_market, priced] = counts[..] else { panic!("{said}") };
    assert!(rows > 1_000 && reported > 1_000 && priced > 0, "there is something to compare: {said}");
    assert_eq!((of_reports, of_market), (0, 0), "rows that differ in what reports and the market say: {said}");
}
