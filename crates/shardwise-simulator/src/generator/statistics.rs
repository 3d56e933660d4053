//! What is measured on traces, generated or real; where it should lie is in `bands`.
//!
//! | word | meaning |
//! |---|---|
//! | daily count | invocations of a function on the first day; functions without any are left out |
//! | index of dispersion | variance over mean of a function's counts per minute on the first day |
//! | peak to mean | largest over mean count per minute of the sum over functions, drawn with repetition, 200 times |
//! | near-periodic | at least ten active minutes, four of five gaps between them alike, counts in them that vary by 30 % at most |
//! | minute of the hour | its share of all invocations over the median of the sixty |
//! | gaps | between a function's requests, spread evenly within their minutes; functions with more than 288 a day |
//! | range | ln of highest over lowest price of a minute |
//! | spike | volatility of 60 minutes above 4 × its median; stretches within an hour of each other are one |
//!
//! What the traces do not hold is left out of the answer.

use rand::RngExt;
use rustc_hash::FxHashSet;
use shardwise_types::{ArrivalTrace, MarketBar, Percentiles};

use super::arrivals::HOUR_OF_DAY;
use super::bands::bands;
use super::{DAY_MINUTES, Traces};
use crate::constants::VOLATILITY_MINUTES;
use crate::market::MINUTES_PER_MONTH;
use crate::streams::{Purpose, stream};

/// Rates by which functions are told apart: above the first, up to the second a day.
pub(super) const CLASSES: [(f64, f64); 4] = [(0.0, 24.0), (24.0, 288.0), (288.0, 1440.0), (1440.0, f64::INFINITY)];
/// Ranks over which the Zipf slope is taken.
const ZIPF_RANKS: usize = 300;
/// How many mixes of functions show the peaks.
const MIXES: u64 = 200;
/// Fewest invocations that show how run times spread within a function.
const LEAST_RUNS: f64 = 100.0;
/// Cold starts longer than this load a model.
const MODEL_LOAD_MS: f64 = 3_600.0;
/// Volatility over its median that makes a spike.
const SPIKE: f64 = 4.0;

/// A statistic of traces and where it should lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistic {
    /// What it belongs to, such as `market`.
    pub group: &'static str,
    /// What it is; unique within its group.
    pub name: &'static str,
    /// Its value, in `unit`.
    pub value: f64,
    /// Least value in the band.
    pub low: f64,
    /// Most value in the band.
    pub high: f64,
    /// Unit; empty for ratios, shares and correlations.
    pub unit: &'static str,
    /// Where the band comes from.
    pub source: &'static str,
}

impl Statistic {
    /// Whether the value lies in its band.
    pub fn in_band(&self) -> bool {
        (self.low..=self.high).contains(&self.value)
    }
}

/// Measures every statistic that the traces allow, in the order of [`bands`].
pub fn measure(traces: &Traces) -> Vec<Statistic> {
    let values = values(traces);
    let statistic = |band: &super::Band| {
        let (.., value) = values.iter().find(|(group, name, _)| (*group, *name) == (band.group, band.name))?;
        let (low, high) = band.range();
        let (group, name, unit, source) = (band.group, band.name, band.unit, band.source);
        Some(Statistic { group, name, value: *value, low, high, unit, source })
    };
    bands().iter().filter_map(statistic).collect()
}

/// (group, name, value)
type Value = (&'static str, &'static str, f64);

fn values(traces: &Traces) -> Vec<Value> {
    let inputs = &traces.inputs;
    let mut values = Vec::new();
    let rows = days(&inputs.arrivals);
    if !rows.is_empty() {
        popularity(&rows, &mut values);
        dispersion(&rows, &mut values);
        peaks(&rows, &mut values);
        rhythm(&rows, &mut values);
        let mut seen = FxHashSet::default();
        let distinct: Vec<&[u32]> = inputs
            .arrivals
            .iter()
            .zip(&rows)
            .filter(|(trace, _)| seen.insert(&trace.function))
            .map(|(_, day)| *day)
            .collect();
        shapes(&distinct, &mut values);
        week(&inputs.arrivals, &mut values);
    }
    run_times(&inputs.durations_ms, &mut values);
    loads(&inputs.load_ms, &mut values);
    memory(&inputs.memory_mb, &mut values);
    market(&inputs.market, &mut values);
    crash(&traces.crash, &mut values);
    if !traces.trades_usd.is_empty() {
        let ln: Vec<f64> = traces.trades_usd.iter().map(|usd| usd.ln()).collect();
        values.extend([("trades", "ln size, mean", mean(&ln)), ("trades", "ln size, deviation", deviation(&ln))]);
    }
    values.retain(|(.., value)| value.is_finite());
    values
}

/// The first day of every function that has one.
pub(super) fn days(arrivals: &[ArrivalTrace]) -> Vec<&[u32]> {
    arrivals.iter().filter_map(|trace| trace.per_minute.get(..DAY_MINUTES)).collect()
}

pub(super) fn daily_counts(rows: &[&[u32]]) -> Vec<f64> {
    rows.iter().map(|day| total(day)).filter(|count| *count > 0.0).collect()
}

pub(super) fn total(day: &[u32]) -> f64 {
    day.iter().map(|count| f64::from(*count)).sum()
}

fn popularity(rows: &[&[u32]], values: &mut Vec<Value>) {
    let mut counts = daily_counts(rows);
    let ln: Vec<f64> = counts.iter().map(|count| count.ln()).collect();
    let share = |most: f64| counts.iter().filter(|count| **count <= most).count() as f64 / counts.len() as f64;
    values.extend([
        ("popularity", "ln daily count, mean", mean(&ln)),
        ("popularity", "ln daily count, deviation", deviation(&ln)),
        ("popularity", "at most hourly", share(24.0)),
        ("popularity", "at most once a minute", share(1440.0)),
    ]);
    counts.sort_by(|a, b| b.total_cmp(a));
    let top: (Vec<f64>, Vec<f64>) =
        counts.iter().take(ZIPF_RANKS).enumerate().map(|(rank, count)| ((rank as f64 + 1.0).ln(), count.ln())).unzip();
    values.push(("popularity", "Zipf slope", -slope(&top.0, &top.1)));
}

pub(super) const DISPERSION_NAMES: [[&str; 3]; 4] = [
    ["1–24 a day, median", "1–24 a day, 75 %", "1–24 a day, 95 %"],
    ["24–288 a day, median", "24–288 a day, 75 %", "24–288 a day, 95 %"],
    ["288–1,440 a day, median", "288–1,440 a day, 75 %", "288–1,440 a day, 95 %"],
    ["above 1,440 a day, median", "above 1,440 a day, 75 %", "above 1,440 a day, 95 %"],
];
pub(super) const DISPERSION_QUANTILES: [f64; 3] = [0.5, 0.75, 0.95];

fn dispersion(rows: &[&[u32]], values: &mut Vec<Value>) {
    for (class, names) in CLASSES.iter().zip(DISPERSION_NAMES) {
        let indices = dispersion_of_class(rows, *class);
        for (share, name) in DISPERSION_QUANTILES.into_iter().zip(names) {
            values.push(("dispersion", name, quantile(&indices, share)));
        }
    }
}

/// The indices of dispersion of a class of rates, rising.
pub(super) fn dispersion_of_class(rows: &[&[u32]], (above, most): (f64, f64)) -> Vec<f64> {
    let of_class = rows.iter().filter(|day| (above..=most).contains(&total(day)) && total(day) > above);
    sorted(of_class.map(|day| index_of_dispersion(day)))
}

fn index_of_dispersion(day: &[u32]) -> f64 {
    let mean = total(day) / day.len() as f64;
    let squares: f64 = day.iter().map(|count| (f64::from(*count) - mean).powi(2)).sum();
    squares / day.len() as f64 / mean
}

fn peaks(rows: &[&[u32]], values: &mut Vec<Value>) {
    for (functions, median, most) in [
        (50_u64, "50 functions, median", "50 functions, 90 %"),
        (200, "200 functions, median", "200 functions, 90 %"),
        (1000, "1,000 functions, median", "1,000 functions, 90 %"),
    ] {
        let mut rng = stream(0, Purpose::Mixes, functions);
        let mut peak = || {
            let mut sum = [0_u64; DAY_MINUTES];
            for _ in 0..functions {
                let day = rows[rng.random_range(0..rows.len())];
                sum.iter_mut().zip(day).for_each(|(sum, count)| *sum += u64::from(*count));
            }
            let most = sum.iter().copied().max().unwrap_or(0) as f64;
            most / (sum.iter().sum::<u64>() as f64 / DAY_MINUTES as f64)
        };
        let peaks = sorted((0..MIXES).map(|_| peak()).filter(|peak| peak.is_finite()));
        values.push(("peak to mean", median, quantile(&peaks, 0.5)));
        values.push(("peak to mean", most, quantile(&peaks, 0.9)));
    }
}

/// Invocations of all functions by minute of the first day.
pub(super) fn aggregate(rows: &[&[u32]]) -> Vec<f64> {
    let mut sum = vec![0.0; DAY_MINUTES];
    for day in rows {
        sum.iter_mut().zip(*day).for_each(|(sum, count)| *sum += f64::from(*count));
    }
    sum
}

/// The hour of the day over the mean of the day.
pub(super) fn hour_of_day(per_minute: &[f64]) -> Vec<f64> {
    let of_mean = mean(per_minute);
    per_minute.chunks(60).map(|hour| mean(hour) / of_mean).collect()
}

/// The minute of the hour over the median of the sixty.
pub(super) fn minute_of_hour(per_minute: &[f64]) -> Vec<f64> {
    let sums: Vec<f64> = (0..60).map(|minute| per_minute.iter().skip(minute).step_by(60).sum()).collect();
    let usual = quantile(&sorted(sums.iter().copied()), 0.5);
    sums.into_iter().map(|sum| sum / usual).collect()
}

fn rhythm(rows: &[&[u32]], values: &mut Vec<Value>) {
    let per_minute = aggregate(rows);
    let minutes = minute_of_hour(&per_minute);
    for (minute, name) in [
        (0, "minute :00"),
        (30, "minute :30"),
        (5, "minute :05"),
        (10, "minute :10"),
        (15, "minute :15"),
        (45, "minute :45"),
    ] {
        values.push(("rhythm", name, minutes[minute]));
    }
    let hours = hour_of_day(&per_minute);
    let departures: Vec<f64> = hours.iter().zip(HOUR_OF_DAY).map(|(hour, usual)| (hour - usual).powi(2)).collect();
    values.push(("rhythm", "hour of day, departure", mean(&departures).sqrt()));
    for (lag, name) in [
        (1, "autocorrelation, 1 min"),
        (5, "autocorrelation, 5 min"),
        (15, "autocorrelation, 15 min"),
        (60, "autocorrelation, 60 min"),
    ] {
        values.push(("rhythm", name, autocorrelation(&per_minute, lag)));
    }
}

fn shapes(distinct: &[&[u32]], values: &mut Vec<Value>) {
    let active: Vec<Option<usize>> = distinct.iter().filter_map(|day| period(day)).collect();
    let periodic: Vec<usize> = active.iter().copied().flatten().collect();
    let every_minute = periodic.iter().filter(|period| **period == 1).count() as f64;
    values.push(("rhythm", "near-periodic functions", periodic.len() as f64 / active.len() as f64));
    values.push(("rhythm", "near-periodic, every minute", every_minute / periodic.len() as f64));
    let busy = distinct.iter().filter(|day| total(day) > CLASSES[2].0);
    let gaps = sorted(busy.map(|day| gap_variation(day)));
    values.push(("gaps", "variation, 75 %", quantile(&gaps, 0.75)));
    values.push(("gaps", "variation, 95 %", quantile(&gaps, 0.95)));
}

/// `None` with fewer than ten active minutes; the period in minutes when the function is near-periodic.
fn period(day: &[u32]) -> Option<Option<usize>> {
    let active: Vec<usize> = (0..day.len()).filter(|minute| day[*minute] > 0).collect();
    if active.len() < 10 {
        return None;
    }
    let gaps: Vec<usize> = active.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mut in_order = gaps.clone();
    in_order.sort_unstable();
    let usual = in_order[in_order.len() / 2];
    let alike = gaps.iter().filter(|gap| **gap == usual).count() as f64 / gaps.len() as f64;
    let counts: Vec<f64> = active.iter().map(|minute| f64::from(day[*minute])).collect();
    Some((alike >= 0.8 && deviation(&counts) <= 0.3 * mean(&counts)).then_some(usual))
}

/// Coefficient of variation of the gaps between requests.
fn gap_variation(day: &[u32]) -> f64 {
    let mut last = None;
    let mut gaps = Vec::new();
    for (minute, count) in day.iter().enumerate() {
        for request in 0..*count {
            let at = minute as f64 + (f64::from(request) + 0.5) / f64::from(*count);
            gaps.extend(last.map(|last: f64| at - last));
            last = Some(at);
        }
    }
    deviation(&gaps) / mean(&gaps)
}

/// Weekend and mid-week over the mean of the week; the first day is a Monday.
fn week(arrivals: &[ArrivalTrace], values: &mut Vec<Value>) {
    if arrivals.iter().any(|trace| trace.per_minute.len() < 7 * DAY_MINUTES) {
        return;
    }
    let day = |day: usize| {
        arrivals.iter().map(|trace| total(&trace.per_minute[day * DAY_MINUTES..][..DAY_MINUTES])).sum::<f64>()
    };
    let days: Vec<f64> = (0..7).map(day).collect();
    let of_mean = mean(&days);
    values.push(("rhythm", "weekend", mean(&days[5..]) / of_mean));
    values.push(("rhythm", "mid-week", mean(&days[1..4]) / of_mean));
}

/// ln of the mean run time in s of functions that ran, with the number of runs.
pub(super) fn ln_mean_seconds(profiles: &[Percentiles]) -> (Vec<f64>, Vec<f64>) {
    let ran = profiles.iter().filter(|profile| profile.samples >= 1.0);
    // Means below a millisecond were rounded to 0 in the traces.
    ran.map(|profile| ((f64::from(profile.mean).max(1.0) / 1e3).ln(), profile.samples)).unzip()
}

fn run_times(profiles: &[Percentiles], values: &mut Vec<Value>) {
    if profiles.is_empty() {
        return;
    }
    let (ln, runs) = ln_mean_seconds(profiles);
    let all: f64 = runs.iter().sum();
    let weighted_mean = ln.iter().zip(&runs).map(|(ln, runs)| ln * runs).sum::<f64>() / all;
    let squares = ln.iter().zip(&runs).map(|(ln, runs)| (ln - weighted_mean).powi(2) * runs).sum::<f64>();
    let ln_runs: Vec<f64> = runs.iter().map(|runs| runs.ln()).collect();
    values.extend([
        ("run times", "ln mean of a function, mean", mean(&ln)),
        ("run times", "ln mean of a function, deviation", deviation(&ln)),
        ("run times", "weighted by invocation, mean", weighted_mean),
        ("run times", "weighted by invocation, deviation", (squares / all).sqrt()),
        ("run times", "correlation with popularity", correlation(&ln, &ln_runs)),
    ]);
    let at = |profile: &Percentiles, percent: f32| {
        profile.points.iter().find(|(at, _)| *at == percent).map(|(_, value)| f64::from(*value))
    };
    let spread = |profile: &Percentiles| {
        let (low, middle) = (at(profile, 25.0)?, at(profile, 50.0)?);
        let (high, tail) = (at(profile, 75.0)?, at(profile, 99.0)?);
        let seen = profile.samples >= LEAST_RUNS && low >= 1.0;
        seen.then(|| [(high / low).ln() / 1.349, tail / middle, f64::from(profile.mean) / middle])
    };
    let spreads: Vec<[f64; 3]> = profiles.iter().filter_map(spread).collect();
    for (column, name) in
        ["sigma within a function, by quartiles", "p99 / p50 within a function", "mean / p50 within a function"]
            .into_iter()
            .enumerate()
    {
        let of_functions = sorted(spreads.iter().map(|spread| spread[column]));
        values.push(("run times", name, quantile(&of_functions, 0.5)));
    }
}

fn loads(load_ms: &[f32], values: &mut Vec<Value>) {
    let seconds = sorted(load_ms.iter().map(|ms| f64::from(*ms) / 1e3));
    let (containers, models) = seconds.split_at(seconds.partition_point(|s| s * 1e3 <= MODEL_LOAD_MS));
    values.extend([
        ("cold starts", "container, median", quantile(containers, 0.5)),
        ("cold starts", "model load, 5 %", quantile(models, 0.05)),
        ("cold starts", "model load, 95 %", quantile(models, 0.95)),
    ]);
}

/// Medians of functions in MB, rising.
pub(super) fn memory_of_functions(profiles: &[Percentiles]) -> Vec<f64> {
    let median =
        |profile: &Percentiles| profile.points.iter().find(|(at, _)| *at == 50.0).map(|(_, mb)| f64::from(*mb));
    sorted(profiles.iter().filter_map(median))
}

fn memory(profiles: &[Percentiles], values: &mut Vec<Value>) {
    let functions = memory_of_functions(profiles);
    for (share, name) in [(0.05, "5 %"), (0.5, "median"), (0.95, "95 %"), (0.99, "99 %")] {
        values.push(("memory", name, quantile(&functions, share)));
    }
}

/// ln returns of minutes.
pub(super) fn returns(bars: &[MarketBar]) -> Vec<f64> {
    bars.windows(2).map(|pair| (pair[1].close_usd / pair[0].close_usd).ln()).collect()
}

/// ln volume; a minute without trade counts as a thousandth of the usual one.
pub(super) fn ln_volumes(bars: &[MarketBar]) -> Vec<f64> {
    let least = 1e-3 * median_volume(bars);
    bars.iter().map(|bar| (bar.volume + if bar.volume > 0.0 { 0.0 } else { least }).max(1e-300).ln()).collect()
}

fn median_volume(bars: &[MarketBar]) -> f64 {
    quantile(&sorted(bars.iter().map(|bar| bar.volume)), 0.5)
}

fn market(bars: &[MarketBar], values: &mut Vec<Value>) {
    if bars.len() < 2 * VOLATILITY_MINUTES {
        return;
    }
    let returns = returns(bars);
    let moves: Vec<f64> = returns.iter().map(|r| r.abs()).collect();
    let volumes = ln_volumes(bars);
    let ranges: Vec<f64> = bars.iter().map(|bar| (bar.high_usd / bar.low_usd).ln()).collect();
    let (ln_ranges, their_volumes): (Vec<f64>, Vec<f64>) = ranges
        .iter()
        .zip(bars)
        .filter(|(range, bar)| **range > 0.0 && bar.volume > 0.0)
        .map(|(range, bar)| (range.ln(), bar.volume.ln()))
        .unzip();
    let spikes = spikes(bars, &returns);
    let typical = |read: fn(&SpikeFacts) -> f64| quantile(&sorted(spikes.iter().map(read)), 0.5);
    values.extend([
        ("market", "absolute return, autocorrelation 1 min", autocorrelation(&moves, 1)),
        ("market", "absolute return, autocorrelation 1 h", autocorrelation(&moves, 60)),
        ("market", "log volume, autocorrelation 1 min", autocorrelation(&volumes, 1)),
        ("market", "log volume, autocorrelation 1 h", autocorrelation(&volumes, 60)),
        ("market", "return, autocorrelation 1 min", autocorrelation(&returns, 1)),
        ("market", "absolute return and log volume", correlation(&moves, &volumes[1..])),
        ("market", "range and log volume", correlation(&ranges, &volumes)),
        ("market", "elasticity of volume to range", slope(&ln_ranges, &their_volumes)),
        ("market", "spikes a month", spikes.len() as f64 * MINUTES_PER_MONTH as f64 / bars.len() as f64),
        ("market", "length of a spike", typical(|spike| spike.minutes)),
        ("market", "volume in a spike", typical(|spike| spike.volume)),
    ]);
}

/// Volatility of the sixty minutes up to each return from the sixtieth on, over its median.
fn relative_volatility(returns: &[f64]) -> Vec<f64> {
    let hours: Vec<f64> = returns.windows(VOLATILITY_MINUTES).map(deviation).collect();
    let usual = quantile(&sorted(hours.iter().copied()), 0.5);
    hours.into_iter().map(|hour| hour / usual).collect()
}

struct SpikeFacts {
    minutes: f64,
    /// Mean volume over the median of all minutes.
    volume: f64,
}

fn spikes(bars: &[MarketBar], returns: &[f64]) -> Vec<SpikeFacts> {
    let mut stretches: Vec<(usize, usize)> = Vec::new();
    for (at, _) in relative_volatility(returns).iter().enumerate().filter(|(_, volatility)| **volatility > SPIKE) {
        match stretches.last_mut() {
            Some((_, end)) if at - *end <= VOLATILITY_MINUTES => *end = at,
            _ => stretches.push((at, at)),
        }
    }
    let usual = median_volume(bars);
    let facts = |(start, end): (usize, usize)| {
        // The return at `i` ends the hour of volatility `i − 59`, and its bar is the next one.
        let volumes: Vec<f64> =
            bars[start + VOLATILITY_MINUTES..=end + VOLATILITY_MINUTES].iter().map(|bar| bar.volume).collect();
        SpikeFacts { minutes: volumes.len() as f64, volume: mean(&volumes) / usual }
    };
    stretches.into_iter().map(facts).collect()
}

fn crash(bars: &[MarketBar], values: &mut Vec<Value>) {
    if bars.is_empty() {
        return;
    }
    let volatility = relative_volatility(&returns(bars)).into_iter().fold(0.0, f64::max);
    let hours: Vec<f64> = bars.chunks(60).map(|hour| hour.iter().map(|bar| bar.volume).sum()).collect();
    let hours = sorted(hours.into_iter());
    values.push(("crash", "volatility at its height", volatility));
    values.push(("crash", "volume of its busiest hour", quantile(&hours, 1.0) / quantile(&hours, 0.5)));
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn deviation(values: &[f64]) -> f64 {
    let of_mean = mean(values);
    (values.iter().map(|value| (value - of_mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

fn covariance(a: &[f64], b: &[f64]) -> f64 {
    let (mean_a, mean_b) = (mean(a), mean(b));
    a.iter().zip(b).map(|(a, b)| (a - mean_a) * (b - mean_b)).sum::<f64>() / a.len() as f64
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    covariance(a, b) / (deviation(a) * deviation(b))
}

/// Slope of the least-squares line of `y` over `x`.
fn slope(x: &[f64], y: &[f64]) -> f64 {
    covariance(x, y) / deviation(x).powi(2)
}

pub(super) fn autocorrelation(values: &[f64], lag: usize) -> f64 {
    let of_mean = mean(values);
    let product = |lag: usize| -> f64 {
        values.iter().zip(&values[lag.min(values.len())..]).map(|(a, b)| (a - of_mean) * (b - of_mean)).sum()
    };
    product(lag) / product(0)
}

pub(super) fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Linear between the rising values; not a number without any.
pub(super) fn quantile(rising: &[f64], share: f64) -> f64 {
    let Some(last) = rising.len().checked_sub(1) else { return f64::NAN };
    let at = share * last as f64;
    let below = at as usize;
    let above = (below + 1).min(last);
    rising[below] + (at - below as f64) * (rising[above] - rising[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(values: &[Value], name: &str) -> f64 {
        values.iter().find(|(_, other, _)| *other == name).map(|(.., value)| *value).unwrap()
    }

    fn rows(days: &[Vec<u32>]) -> Vec<&[u32]> {
        days.iter().map(Vec::as_slice).collect()
    }

    #[test]
    fn a_timer_is_near_periodic_and_hardly_dispersed() {
        let timer: Vec<u32> = (0..1440).map(|minute| u32::from(minute % 5 == 0)).collect();
        assert_eq!(period(&timer), Some(Some(5)));
        assert!((index_of_dispersion(&timer) - 0.8).abs() < 1e-12, "one minus the rate");
        assert!(gap_variation(&timer).abs() < 1e-12);
        let growing: Vec<u32> = (0..1440_usize).map(|minute| u32::from((minute + 1).is_power_of_two())).collect();
        assert_eq!(period(&growing), Some(None));
        assert_eq!(period(&[1; 9]), None, "too few minutes to say");
    }

    #[test]
    fn a_burst_in_one_minute_has_its_size_as_dispersion() {
        let mut burst = vec![0; 1440];
        burst[700] = 50;
        assert!((index_of_dispersion(&burst) - 50.0 * (1.0 - 1.0 / 1440.0)).abs() < 1e-9);
        let mut values = Vec::new();
        peaks(&rows(&[burst]), &mut values);
        assert_eq!(value(&values, "200 functions, 90 %"), 1440.0);
    }

    #[test]
    fn popularity_is_read_off_the_ranks() {
        let days: Vec<Vec<u32>> = (1..=300_u32)
            .map(|rank| {
                let mut day = vec![0; 1440];
                day[0] = 3_000_000 / rank;
                day
            })
            .collect();
        let mut values = Vec::new();
        popularity(&rows(&days), &mut values);
        assert!((value(&values, "Zipf slope") - 1.0).abs() < 1e-3);
        assert_eq!(value(&values, "at most hourly"), 0.0);
    }

    #[test]
    fn the_full_hour_stands_out_against_the_median_minute() {
        let day: Vec<u32> = (0..1440).map(|minute| if minute % 60 == 0 { 30 } else { 10 }).collect();
        let mut values = Vec::new();
        rhythm(&rows(&[day]), &mut values);
        assert_eq!(value(&values, "minute :00"), 3.0);
        assert_eq!(value(&values, "minute :30"), 1.0);
        // The last hour has no successor: 23 of 24 products are left.
        assert!((value(&values, "autocorrelation, 60 min") - 23.0 / 24.0).abs() < 0.01);
    }

    #[test]
    fn one_wild_hour_is_one_spike() {
        let mut price = 100.0_f64;
        let bar = |minute: usize| {
            let wild = (5_000..5_060).contains(&minute);
            let step = if wild { 0.01 } else { 0.001 };
            price *= if minute.is_multiple_of(2) { 1.0 + step } else { 1.0 / (1.0 + step) };
            let volume = if wild { 70.0 } else { 10.0 };
            MarketBar { high_usd: price * (1.0 + step), low_usd: price, close_usd: price, volume }
        };
        let bars: Vec<MarketBar> = (0..MINUTES_PER_MONTH).map(bar).collect();
        let mut values = Vec::new();
        market(&bars, &mut values);
        assert_eq!(value(&values, "spikes a month"), 1.0);
        // From the tenth wild minute (√(10 / 60) × 10 > 4) until fewer than ten are left in the hour.
        assert_eq!(value(&values, "length of a spike"), 101.0);
        assert!((value(&values, "return, autocorrelation 1 min") + 1.0).abs() < 0.01);
        assert!((value(&values, "range and log volume") - 1.0).abs() < 1e-6);
        assert!((value(&values, "elasticity of volume to range") - 7.0_f64.ln() / 10.0_f64.ln()).abs() < 0.01);
    }

    #[test]
    fn run_times_are_weighted_by_invocation() {
        let profile = |mean: f32, samples: f64| Percentiles {
            points: vec![(25.0, 50.0), (50.0, 100.0), (75.0, 200.0), (99.0, 400.0)],
            mean,
            samples,
        };
        let mut values = Vec::new();
        run_times(&[profile(1_000.0, 100.0), profile(std::f32::consts::E * 1_000.0, 300.0)], &mut values);
        assert!((value(&values, "ln mean of a function, mean") - 0.5).abs() < 1e-6);
        assert!((value(&values, "weighted by invocation, mean") - 0.75).abs() < 1e-6);
        assert!((value(&values, "correlation with popularity") - 1.0).abs() < 1e-9);
        assert_eq!(value(&values, "p99 / p50 within a function"), 4.0);
    }

    #[test]
    fn what_traces_do_not_hold_is_not_measured() {
        assert_eq!(measure(&Traces::default()), []);
    }
}
