//! Readers of real traces: Parquet files of arrivals, run times, memory, markets and machine speed as plain data.
//!
//! What they mean for a simulated fleet is the simulator's business.

use std::collections::BTreeMap;
use std::path::Path;

use polars::prelude::*;
use shardwise_types::{ArrivalTrace, MarketBar, Percentiles, SpeedTrace};

use crate::DatasetError;

/// Slowness beyond these is an accident of the measurement, not of the machine.
const SLOWNESS_RANGE: (f32, f32) = (0.5, 3.0);
/// Price ratio of one tick of Uniswap v3.
const TICK: f64 = 1.0001;
/// Decimals of the two tokens of the pool: USDC and WETH.
const USDC_DECIMALS: i32 = 6;
const WETH_DECIMALS: i32 = 18;

/// Reads invocations per minute of functions (Azure Functions 2019: `series_id`, `counts_per_minute`). Repeats of a
/// series are kept: they say how popular functions are; a replay leaves them out.
///
/// # Errors
/// A file that cannot be read, or columns that are missing or of another type.
pub fn read_arrivals(path: &Path) -> Result<Vec<ArrivalTrace>, DatasetError> {
    let frame = read(path, &["series_id", "counts_per_minute"])?;
    let series = text(&frame, path, "series_id")?;
    let column = series_of(&frame, path, "counts_per_minute")?;
    let counts = column.list().map_err(|_| wrong_type(path, "counts_per_minute", "list<int64>", column.dtype()))?;
    let mut traces = Vec::new();
    for (row, function) in series.iter().enumerate() {
        let Some(function) = function else { continue };
        let minutes = counts.get_as_series(row).ok_or_else(|| null(path, "counts_per_minute", row))?;
        let minutes =
            minutes.i64().map_err(|_| wrong_type(path, "counts_per_minute", "list<int64>", column.dtype()))?;
        let per_minute: Option<Vec<u32>> = minutes.iter().map(|n| n.and_then(|n| u32::try_from(n).ok())).collect();
        let per_minute = per_minute.ok_or_else(|| {
            bad(path, format!("row {row}: counts_per_minute holds a null, a negative or a huge count"))
        })?;
        traces.push(ArrivalTrace { function: function.to_owned(), per_minute });
    }
    not_empty(path, traces)
}

/// Reads percentiles of run times in ms, one set per function (Azure Functions 2019: `p0` … `p100`, `avg_ms`, `count`).
///
/// # Errors
/// A file that cannot be read, or columns that are missing or of another type.
pub fn read_durations(path: &Path) -> Result<Vec<Percentiles>, DatasetError> {
    percentiles(path, ["avg_ms", "count"], "p", &[0, 1, 25, 50, 75, 99, 100])
}

/// Reads percentiles of memory in MB, one set per function (Azure Functions 2019: `pct1` … `pct100`, `avg_mb`,
/// `sample_count`).
///
/// # Errors
/// A file that cannot be read, or columns that are missing or of another type.
pub fn read_memory(path: &Path) -> Result<Vec<Percentiles>, DatasetError> {
    percentiles(path, ["avg_mb", "sample_count"], "pct", &[1, 5, 25, 50, 75, 95, 99, 100])
}

/// `summary` names the columns of the mean and of the number of values.
fn percentiles(
    path: &Path,
    summary: [&str; 2],
    prefix: &str,
    percents: &[u8],
) -> Result<Vec<Percentiles>, DatasetError> {
    let names: Vec<String> = percents.iter().map(|percent| format!("{prefix}{percent}")).collect();
    let names: Vec<&str> = summary.into_iter().chain(names.iter().map(String::as_str)).collect();
    let frame = read(path, &names)?;
    let columns: Result<Vec<Float64Chunked>, DatasetError> =
        names.iter().map(|name| number(&frame, path, name)).collect();
    let columns = columns?;
    let at = |column: usize, row: usize| {
        let value = columns[column].get(row).filter(|value| value.is_finite() && *value >= 0.0);
        value.ok_or_else(|| bad(path, format!("row {row}: {} must be a finite number, 0 or more", names[column])))
    };
    let mut all = Vec::with_capacity(frame.height());
    for row in 0..frame.height() {
        let mut points: Vec<(f32, f32)> = Vec::with_capacity(percents.len());
        for (percent, column) in percents.iter().zip(summary.len()..) {
            // Percentiles of a sample can fall by its rounding; a distribution's do not.
            let before = points.last().map_or(0.0, |(_, before)| *before);
            points.push((f32::from(*percent), (at(column, row)? as f32).max(before)));
        }
        all.push(Percentiles { points, mean: at(0, row)? as f32, samples: at(1, row)? });
    }
    not_empty(path, all)
}

/// Reads the minutes of a market in time order: bars (`timestamp`, `high`, `low`, `close`, `volume`) or a Uniswap v3
/// pool of USDC and WETH (`timestamp`, `lowestTick`, `highestTick`, `closeTick`, `inAmount0`, `inAmount1`), whose volume
/// is that of WETH.
///
/// # Errors
/// A file that cannot be read, columns of neither kind, or prices that are none.
pub fn read_market(path: &Path) -> Result<Vec<MarketBar>, DatasetError> {
    let schema = schema(path)?;
    let mut bars = match (schema.contains("close"), schema.contains("closeTick")) {
        (true, _) => read_bars(path)?,
        (_, true) => read_pool(path)?,
        _ => {
            return Err(bad(
                path,
                "it has neither a column 'close' (bars) nor 'closeTick' (a Uniswap pool)".to_owned(),
            ));
        }
    };
    bars.sort_by(|(a, _), (b, _)| a.cmp(b));
    let good = |bar: &MarketBar| {
        let prices = [bar.high_usd, bar.low_usd, bar.close_usd];
        prices.iter().all(|usd| usd.is_finite() && *usd > 0.0) && bar.volume.is_finite() && bar.volume >= 0.0
    };
    match bars.iter().find(|(_, bar)| !good(bar)) {
        Some((at, bar)) => Err(bad(path, format!("at {at}: {bar:?} is not a minute of a market"))),
        None => not_empty(path, bars.into_iter().map(|(_, bar)| bar).collect()),
    }
}

fn read_bars(path: &Path) -> Result<Vec<(String, MarketBar)>, DatasetError> {
    let frame = read(path, &["timestamp", "high", "low", "close", "volume"])?;
    let (at, close, volume) =
        (text(&frame, path, "timestamp")?, number(&frame, path, "close")?, number(&frame, path, "volume")?);
    let (high, low) = (number(&frame, path, "high")?, number(&frame, path, "low")?);
    let bar = |row: usize| MarketBar {
        high_usd: high.get(row).unwrap_or(f64::NAN),
        low_usd: low.get(row).unwrap_or(f64::NAN),
        close_usd: close.get(row).unwrap_or(f64::NAN),
        volume: volume.get(row).unwrap_or(f64::NAN),
    };
    Ok((0..frame.height()).map(|row| (at.get(row).unwrap_or_default().to_owned(), bar(row))).collect())
}

fn read_pool(path: &Path) -> Result<Vec<(String, MarketBar)>, DatasetError> {
    let frame = read(path, &["timestamp", "lowestTick", "highestTick", "closeTick", "inAmount0", "inAmount1"])?;
    let (at, close) = (text(&frame, path, "timestamp")?, number(&frame, path, "closeTick")?);
    let (lowest, highest) = (number(&frame, path, "lowestTick")?, number(&frame, path, "highestTick")?);
    let (usdc_in, weth_in) = (number(&frame, path, "inAmount0")?, number(&frame, path, "inAmount1")?);
    // A tick prices token 0 in token 1, in their smallest units; the lowest one is the highest price.
    let usd = |ticks: &Float64Chunked, row: usize| {
        10_f64.powi(WETH_DECIMALS - USDC_DECIMALS) / TICK.powf(ticks.get(row).unwrap_or(f64::NAN))
    };
    let bar = |row: usize| {
        let close_usd = usd(&close, row);
        let usdc = usdc_in.get(row).unwrap_or(f64::NAN) * 10_f64.powi(-USDC_DECIMALS);
        let weth = weth_in.get(row).unwrap_or(f64::NAN) * 10_f64.powi(-WETH_DECIMALS);
        let volume = weth + usdc / close_usd;
        MarketBar { high_usd: usd(&lowest, row), low_usd: usd(&highest, row), close_usd, volume }
    };
    Ok((0..frame.height()).map(|row| (at.get(row).unwrap_or_default().to_owned(), bar(row))).collect())
}

/// Reads how unequal equal machines are (Azure VM noise: `value`, `unit`, `starttime`, `VM_id`, `test_suite`,
/// `test_name`, `vm_sku`): per benchmark and machine a series in time order, as slowness relative to the median of the
/// benchmark on machines of its kind.
///
/// # Errors
/// A file that cannot be read, or columns that are missing or of another type.
pub fn read_speed_noise(path: &Path) -> Result<Vec<SpeedTrace>, DatasetError> {
    let frame = read(path, &["value", "starttime", "VM_id", "test_suite", "test_name", "vm_sku", "unit"])?;
    let value = number(&frame, path, "value")?;
    let started = number(&frame, path, "starttime")?;
    let machine = number(&frame, path, "VM_id")?;
    let (suite, test) = (text(&frame, path, "test_suite")?, text(&frame, path, "test_name")?);
    let (sku, unit) = (text(&frame, path, "vm_sku")?, text(&frame, path, "unit")?);
    let mut kinds: BTreeMap<[&str; 4], Vec<(i64, i64, f32)>> = BTreeMap::new();
    for row in 0..frame.height() {
        let word = |words: &'_ StringChunked| words.get(row).is_some();
        let good = value.get(row).filter(|value| value.is_finite() && *value > 0.0);
        let Some(value) = good.filter(|_| [&suite, &test, &sku, &unit].into_iter().all(word)) else { continue };
        let kind = [&suite, &test, &sku, &unit].map(|words| words.get(row).unwrap_or_default());
        let (machine, started) = (machine.get(row).unwrap_or(0.0) as i64, started.get(row).unwrap_or(0.0) as i64);
        kinds.entry(kind).or_default().push((machine, started, value as f32));
    }
    let traces = kinds.into_iter().flat_map(|([suite, test, _, unit], samples)| {
        speed_traces(&format!("{suite}/{test}"), is_higher_better(unit), samples)
    });
    not_empty(path, traces.collect())
}

/// Whether more of the unit is faster: rates are, times and their parts are not.
fn is_higher_better(unit: &str) -> bool {
    let unit = unit.to_lowercase();
    ["/s", "per sec", "per second", "ops", "rps", "tps", "iops", "score", "flops", "mips", "qps", "req"]
        .iter()
        .any(|rate| unit.contains(rate))
}

fn speed_traces(benchmark: &str, higher_is_better: bool, mut samples: Vec<(i64, i64, f32)>) -> Vec<SpeedTrace> {
    let mut values: Vec<f32> = samples.iter().map(|(_, _, value)| *value).collect();
    values.sort_by(f32::total_cmp);
    let median = values[values.len() / 2];
    samples.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)));
    let slowness = |value: f32| {
        let ratio = if higher_is_better { median / value } else { value / median };
        ratio.clamp(SLOWNESS_RANGE.0, SLOWNESS_RANGE.1)
    };
    samples
        .chunk_by(|a, b| a.0 == b.0)
        .map(|machine| SpeedTrace {
            benchmark: benchmark.to_owned(),
            slowness: machine.iter().map(|(_, _, value)| slowness(*value)).collect(),
        })
        .collect()
}

fn bad(path: &Path, problem: String) -> DatasetError {
    DatasetError::Trace { path: path.to_owned(), problem }
}

fn null(path: &Path, column: &str, row: usize) -> DatasetError {
    bad(path, format!("row {row}: {column} is null; leave the row out"))
}

fn wrong_type(path: &Path, column: &str, expected: &str, found: &DataType) -> DatasetError {
    DatasetError::WrongType {
        path: path.to_owned(),
        column: column.to_owned(),
        expected: expected.to_owned(),
        found: found.to_string(),
    }
}

fn not_empty<T>(path: &Path, rows: Vec<T>) -> Result<Vec<T>, DatasetError> {
    if rows.is_empty() { Err(bad(path, "it holds no rows that can be used".to_owned())) } else { Ok(rows) }
}

fn schema(path: &Path) -> Result<std::sync::Arc<ArrowSchema>, DatasetError> {
    let file = std::fs::File::open(path).map_err(DatasetError::io("open", path))?;
    ParquetReader::new(file).schema().map_err(DatasetError::unreadable(path))
}

fn read(path: &Path, columns: &[&str]) -> Result<DataFrame, DatasetError> {
    let schema = schema(path)?;
    if let Some(missing) = columns.iter().find(|column| !schema.contains(column)) {
        let column = (*missing).to_owned();
        let expected = "described with this reader".to_owned();
        return Err(DatasetError::MissingColumn { path: path.to_owned(), column, expected });
    }
    crate::files::read_parquet(path, Some(columns.iter().map(|column| (*column).to_owned()).collect()))
}

fn series_of(frame: &DataFrame, path: &Path, name: &str) -> Result<Series, DatasetError> {
    let column = frame.column(name).map_err(DatasetError::unreadable(path))?;
    Ok(column.as_materialized_series().rechunk())
}

fn text(frame: &DataFrame, path: &Path, name: &str) -> Result<StringChunked, DatasetError> {
    let series = series_of(frame, path, name)?;
    let cast = series.cast(&DataType::String).map_err(|_| wrong_type(path, name, "string", series.dtype()))?;
    Ok(cast.str().map_err(DatasetError::unreadable(path))?.clone())
}

fn number(frame: &DataFrame, path: &Path, name: &str) -> Result<Float64Chunked, DatasetError> {
    let series = series_of(frame, path, name)?;
    let cast = series.cast(&DataType::Float64).map_err(|_| wrong_type(path, name, "float64", series.dtype()))?;
    Ok(cast.f64().map_err(DatasetError::unreadable(path))?.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A file of the folder with real traces; `None`, and a word about it, without one.
    fn trace(name: &str) -> Option<PathBuf> {
        let folder = std::env::var_os("SHARDWISE_TRACES").map(PathBuf::from);
        if folder.is_none() {
            // Straight to the terminal: the test runner swallows what passing tests print.
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                b"skipped: SHARDWISE_TRACES names no folder with real traces\n",
            );
        }
        folder.map(|folder| folder.join(name))
    }

    #[test]
    fn arrivals_are_whole_days() {
        let Some(path) = trace("requests/azure_functions_2019_invocations.parquet") else { return };
        let traces = read_arrivals(&path).unwrap();
        assert!(traces.iter().all(|trace| trace.per_minute.len() == 1440));
    }

    #[test]
    fn percentiles_rise() {
        let Some(durations) = trace("requests/azure_functions_2019_durations.parquet") else { return };
        let Some(memory) = trace("requests/azure_functions_2019_memory.parquet") else { return };
        for set in [read_durations(&durations).unwrap(), read_memory(&memory).unwrap()].into_iter().flatten() {
            assert!(set.points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        }
    }

    #[test]
    fn both_kinds_of_market_give_plausible_prices() {
        let Some(btc) = trace("crypto/btc_perp_1m_20211231-20220201.parquet") else { return };
        let Some(eth) = trace("crypto/uniswap_v3_polygon_usdc_weth_1m.parquet") else { return };
        assert!(read_market(&btc).unwrap().iter().all(|bar| (30_000.0..60_000.0).contains(&bar.close_usd)));
        assert!(read_market(&eth).unwrap().iter().all(|bar| (800.0..5_000.0).contains(&bar.close_usd)));
    }

    #[test]
    fn machines_are_about_as_slow_as_their_median() {
        let Some(path) = trace("nodes/azure_vm_noise_westus2.parquet") else { return };
        let traces = read_speed_noise(&path).unwrap();
        let all: Vec<f32> = traces.iter().flat_map(|trace| trace.slowness.iter().copied()).collect();
        let mean = all.iter().map(|s| f64::from(*s)).sum::<f64>() / all.len() as f64;
        assert!((0.9..1.2).contains(&mean), "{mean}");
        assert!(all.iter().all(|s| (0.5..=3.0).contains(s)));
    }

    #[test]
    fn rates_are_told_from_times() {
        assert!(is_higher_better("MB/s") && is_higher_better("Requests Per Second"));
        assert!(!is_higher_better("ns") && !is_higher_better("seconds"));
    }

    #[test]
    fn a_trace_without_its_columns_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arrivals.parquet");
        let column = Column::new("series_id".into(), ["a"]);
        crate::files::write_parquet(&path, &mut DataFrame::new(1, vec![column]).unwrap()).unwrap();
        let error = read_arrivals(&path).unwrap_err().to_string();
        assert!(error.contains("counts_per_minute") && error.contains("arrivals.parquet"), "{error}");
    }

    #[test]
    fn a_trace_that_is_no_parquet_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("market.parquet");
        std::fs::write(&path, b"timestamp,close\n").unwrap();
        assert!(read_market(&path).unwrap_err().to_string().contains("market.parquet"));
    }
}
