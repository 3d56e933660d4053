//! The distributions behind the statistics, as curves to draw, and what they should look like.

use shardwise_types::MarketBar;

use super::arrivals::HOUR_OF_DAY;
use super::bands::{Band, bands};
use super::durations::{MEAN_MU, MEAN_SIGMA};
use super::statistics::{
    CLASSES, DISPERSION_NAMES, DISPERSION_QUANTILES, aggregate, autocorrelation, daily_counts, days,
    dispersion_of_class, hour_of_day, ln_mean_seconds, ln_volumes, memory_of_functions, minute_of_hour, quantile,
    returns,
};
use super::{Traces, normal_quantile};

/// Longest lag of an autocorrelation, in minutes.
const LAGS: usize = 120;
/// Shares at which distributions of functions are drawn.
const SHARES: [f64; 13] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995];

/// A curve of some traces.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Which drawing it belongs to, see [`references`].
    pub key: &'static str,
    /// (x, y), x rising.
    pub points: Vec<(f64, f64)>,
}

/// What is known of a curve at some x: a band, or a value when both ends are equal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mark {
    /// Where.
    pub x: f64,
    /// Least y.
    pub low: f64,
    /// Most y.
    pub high: f64,
}

/// How a curve is drawn and what it should look like.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// Key of the curve.
    pub key: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// What the horizontal axis is.
    pub x_label: &'static str,
    /// What the vertical axis is.
    pub y_label: &'static str,
    /// Whether the axes are logarithmic.
    pub log: (bool, bool),
    /// What is known of it.
    pub marks: Vec<Mark>,
}

/// The curves that the traces allow.
pub fn curves(traces: &Traces) -> Vec<Curve> {
    let inputs = &traces.inputs;
    let mut curves = Vec::new();
    let rows = days(&inputs.arrivals);
    if !rows.is_empty() {
        arrival_curves(&rows, &mut curves);
    }
    let (mut ln_means, _) = ln_mean_seconds(&inputs.durations_ms);
    ln_means.sort_by(f64::total_cmp);
    let scores = SHARES.map(|share| (normal_quantile(share), quantile(&ln_means, share)));
    curves.push(Curve { key: "run-times", points: scores.to_vec() });
    let memory = memory_of_functions(&inputs.memory_mb);
    let of_share = SHARES.map(|share| (normal_quantile(share), quantile(&memory, share)));
    curves.push(Curve { key: "memory", points: of_share.to_vec() });
    if inputs.market.len() > LAGS {
        market_curves(&inputs.market, &mut curves);
    }
    curves.iter_mut().for_each(|curve| curve.points.retain(|(_, y)| y.is_finite()));
    curves.retain(|curve| !curve.points.is_empty());
    curves
}

fn arrival_curves(rows: &[&[u32]], curves: &mut Vec<Curve>) {
    let mut counts = daily_counts(rows);
    counts.sort_by(|a, b| b.total_cmp(a));
    let mut ranks: Vec<usize> =
        (0..=60).map(|step| (counts.len() as f64).powf(f64::from(step) / 60.0) as usize).collect();
    ranks.dedup();
    let points = ranks.into_iter().filter_map(|rank| Some((rank as f64, *counts.get(rank.checked_sub(1)?)?))).collect();
    curves.push(Curve { key: "rank-frequency", points });
    let dispersion = CLASSES.iter().enumerate().flat_map(|(class, rates)| {
        let indices = dispersion_of_class(rows, *rates);
        DISPERSION_QUANTILES.map(|share| quantile(&indices, share)).into_iter().zip(3 * class + 1..)
    });
    curves.push(Curve { key: "dispersion", points: dispersion.map(|(y, x)| (x as f64, y)).collect() });
    let per_minute = aggregate(rows);
    let from = |first: usize, values: Vec<f64>| values.into_iter().zip(first..).map(|(y, x)| (x as f64, y)).collect();
    curves.push(Curve { key: "hour-of-day", points: from(0, hour_of_day(&per_minute)) });
    curves.push(Curve { key: "minute-of-hour", points: from(0, minute_of_hour(&per_minute)) });
    curves.push(Curve { key: "arrivals", points: from(1, autocorrelations(&per_minute)) });
}

fn market_curves(bars: &[MarketBar], curves: &mut Vec<Curve>) {
    let moves: Vec<f64> = returns(bars).iter().map(|r| r.abs()).collect();
    let from_one = |values: Vec<f64>| values.into_iter().zip(1..).map(|(y, lag)| (f64::from(lag), y)).collect();
    curves.push(Curve { key: "returns", points: from_one(autocorrelations(&moves)) });
    curves.push(Curve { key: "volume", points: from_one(autocorrelations(&ln_volumes(bars))) });
}

fn autocorrelations(values: &[f64]) -> Vec<f64> {
    (1..=LAGS).map(|lag| autocorrelation(values, lag)).collect()
}

/// The drawings, in the order in which they are shown.
pub fn references() -> Vec<Reference> {
    let band = |x: f64, group: &str, name: &str| {
        let band = bands().iter().find(|band| (band.group, band.name) == (group, name));
        band.map(Band::range).map(|(low, high)| Mark { x, low, high })
    };
    let banded = |group: &str, names: &[(f64, &str)]| -> Vec<Mark> {
        names.iter().filter_map(|(x, name)| band(*x, group, name)).collect()
    };
    let hours = HOUR_OF_DAY.iter().zip(0_u8..).map(|(y, hour)| Mark { x: hour.into(), low: *y, high: *y });
    let minutes = [
        (0.0, "minute :00"),
        (5.0, "minute :05"),
        (10.0, "minute :10"),
        (15.0, "minute :15"),
        (30.0, "minute :30"),
        (45.0, "minute :45"),
    ];
    let classes: Vec<(f64, &str)> = (1_u8..).map(f64::from).zip(DISPERSION_NAMES.into_iter().flatten()).collect();
    let ln_normal = SHARES.map(|share| {
        let score = normal_quantile(share);
        Mark { x: score, low: MEAN_MU + MEAN_SIGMA * score, high: MEAN_MU + MEAN_SIGMA * score }
    });
    let memory = [
        (normal_quantile(0.05), "5 %"),
        (0.0, "median"),
        (normal_quantile(0.95), "95 %"),
        (normal_quantile(0.99), "99 %"),
    ];
    vec![
        Reference {
            key: "rank-frequency",
            title: "Invocations a day by rank of the function",
            x_label: "rank (log)",
            y_label: "invocations a day (log)",
            log: (true, true),
            marks: Vec::new(),
        },
        Reference {
            key: "dispersion",
            title: "Index of dispersion at one minute",
            x_label: "median, 75 %, 95 %; 1–24, 24–288, 288–1,440, more a day",
            y_label: "variance over mean",
            log: (false, true),
            marks: banded("dispersion", &classes),
        },
        Reference {
            key: "hour-of-day",
            title: "Invocations by hour of the day",
            x_label: "hour, UTC",
            y_label: "over the mean",
            log: (false, false),
            marks: hours.collect(),
        },
        Reference {
            key: "minute-of-hour",
            title: "Invocations by minute of the hour",
            x_label: "minute",
            y_label: "over the median",
            log: (false, false),
            marks: banded("rhythm", &minutes),
        },
        Reference {
            key: "arrivals",
            title: "Autocorrelation of all invocations per minute",
            x_label: "lag in minutes",
            y_label: "autocorrelation",
            log: (false, false),
            marks: banded(
                "rhythm",
                &[
                    (1.0, "autocorrelation, 1 min"),
                    (5.0, "autocorrelation, 5 min"),
                    (15.0, "autocorrelation, 15 min"),
                    (60.0, "autocorrelation, 60 min"),
                ],
            ),
        },
        Reference {
            key: "run-times",
            title: "Mean run times of functions against a normal distribution",
            x_label: "normal score of the function's rank",
            y_label: "ln of the mean run time in s",
            log: (false, false),
            marks: ln_normal.to_vec(),
        },
        Reference {
            key: "memory",
            title: "Memory of functions",
            x_label: "normal score of the function's rank",
            y_label: "MB (log)",
            log: (false, true),
            marks: banded("memory", &memory),
        },
        Reference {
            key: "returns",
            title: "Autocorrelation of absolute returns",
            x_label: "lag in minutes",
            y_label: "autocorrelation",
            log: (false, false),
            marks: banded(
                "market",
                &[(1.0, "absolute return, autocorrelation 1 min"), (60.0, "absolute return, autocorrelation 1 h")],
            ),
        },
        Reference {
            key: "volume",
            title: "Autocorrelation of log volume",
            x_label: "lag in minutes",
            y_label: "autocorrelation",
            log: (false, false),
            marks: banded(
                "market",
                &[(1.0, "log volume, autocorrelation 1 min"), (60.0, "log volume, autocorrelation 1 h")],
            ),
        },
    ]
}
