//! Where the statistics of traces should lie.
//!
//! A band is what was published of whole traces, widened by what a sample of the traces' size varies: three standard
//! errors to either side, so that of the 700 checks of ten seeds one or two would fail by chance if the generator varied
//! as much as a sample does. A published value stands for all that round to it. No band was made from what the generator
//! gives.
//!
//! | statistics | standard error |
//! |---|---|
//! | of functions, run times, memory | bootstrap: 200 resamples of the rows of the Azure Functions 2019 samples (2,210, 1,845 and 275 rows) |
//! | of the market | bootstrap: 200 resamples of the days of the BTC-PERP month |
//! | of spikes, volume of a crash | none: the published range is the spread of months and crashes already |
//! | of the week, cold starts, trades, crashes | stated beside the row: those traces are not at hand, so that no error can be measured |
//!
//! Errors are of ln where the scale says so.

/// Sources, as they are shown beside the bands.
const AZURE: &str = "Azure Functions 2019; bootstrap of rows";
const SAMPLE: &str = "samples of Azure Functions 2019, no published figure; bootstrap of rows";
const WEEK: &str = "Azure Functions 2019, fourteen days; error of 1 % assumed";
const GAPS: &str = "request traces with time stamps; bootstrap of Azure Functions 2019";
const PUBLISHED: &str = "published measurements of container platforms; error of 5 % assumed";
const GENTD: &str = "Alibaba GenTD26; error of 5 % assumed";
const MARKET: &str = "range between BTC-PERP and Uniswap v3 series; bootstrap of days";
const CRASH: &str = "one crash; error of 10 % assumed";
const TRADES: &str = "Uniswap v3 trades; error of 1 % of their deviation assumed";

/// How far a value may lie from what was published.
const STANDARD_ERRORS: f64 = 3.0;

/// On which scale errors are symmetric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    Log,
}

/// Where a statistic should lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    /// What it belongs to.
    pub group: &'static str,
    /// The statistic.
    pub name: &'static str,
    /// Its unit; empty for ratios, shares and correlations.
    pub unit: &'static str,
    /// Least and most of what was published, or of what the samples show.
    pub published: (f64, f64),
    /// Standard error of a sample.
    error: f64,
    scale: Scale,
    /// Where it comes from.
    pub source: &'static str,
}

impl Band {
    /// Least and most value.
    pub fn range(&self) -> (f64, f64) {
        let (low, high) = self.published;
        let reach = STANDARD_ERRORS * self.error;
        match self.scale {
            Scale::Linear => (low - reach, high + reach),
            Scale::Log => (low * (-reach).exp(), high * reach.exp()),
        }
    }
}

/// All bands, in the order in which they are shown.
pub fn bands() -> &'static [Band] {
    &BANDS
}

#[rustfmt::skip] // a table reads by rows
const BANDS: [Band; 70] = [
    Band { group: "popularity", name: "ln daily count, mean", unit: "", published: (3.65, 3.75), error: 0.055, scale: Scale::Linear, source: AZURE },
    Band { group: "popularity", name: "ln daily count, deviation", unit: "", published: (2.55, 2.65), error: 0.028, scale: Scale::Linear, source: AZURE },
    Band { group: "popularity", name: "at most hourly", unit: "", published: (0.445, 0.455), error: 0.01, scale: Scale::Linear, source: AZURE },
    Band { group: "popularity", name: "at most once a minute", unit: "", published: (0.895, 0.905), error: 0.0067, scale: Scale::Linear, source: AZURE },
    Band { group: "popularity", name: "Zipf slope", unit: "", published: (0.86, 1.03), error: 0.048, scale: Scale::Linear, source: AZURE },
    Band { group: "dispersion", name: "1–24 a day, median", unit: "", published: (0.95, 1.05), error: 0.0, scale: Scale::Log, source: AZURE },
    Band { group: "dispersion", name: "1–24 a day, 75 %", unit: "", published: (0.95, 1.05), error: 0.0, scale: Scale::Log, source: AZURE },
    Band { group: "dispersion", name: "1–24 a day, 95 %", unit: "", published: (1.65, 1.75), error: 0.072, scale: Scale::Log, source: AZURE },
    Band { group: "dispersion", name: "24–288 a day, median", unit: "", published: (0.975, 0.985), error: 0.0026, scale: Scale::Log, source: AZURE },
    Band { group: "dispersion", name: "24–288 a day, 75 %", unit: "", published: (1.05, 1.15), error: 0.091, scale: Scale::Log, source: AZURE },
    Band { group: "dispersion", name: "24–288 a day, 95 %", unit: "", published: (8.15, 8.25), error: 0.18, scale: Scale::Log, source: AZURE },
    Band { group: "dispersion", name: "288–1,440 a day, median", unit: "", published: (0.715, 0.725), error: 0.021, scale: Scale::Log, source: AZURE },
    Band { group: "dispersion", name: "288–1,440 a day, 75 %", unit: "", published: (1.35, 1.45), error: 0.13, scale: Scale::Log, source: AZURE },
    Band { group: "dispersion", name: "288–1,440 a day, 95 %", unit: "", published: (57.5, 58.5), error: 0.43, scale: Scale::Log, source: AZURE },
    Band { group: "dispersion", name: "above 1,440 a day, median", unit: "", published: (0.275, 0.285), error: 0.43, scale: Scale::Log, source: AZURE },
    Band { group: "dispersion", name: "above 1,440 a day, 75 %", unit: "", published: (5.25, 5.35), error: 0.33, scale: Scale::Log, source: AZURE },
    Band { group: "dispersion", name: "above 1,440 a day, 95 %", unit: "", published: (143.5, 144.5), error: 0.52, scale: Scale::Log, source: AZURE },
    Band { group: "peak to mean", name: "50 functions, median", unit: "", published: (6.85, 6.95), error: 0.16, scale: Scale::Log, source: AZURE },
    Band { group: "peak to mean", name: "50 functions, 90 %", unit: "", published: (46.5, 47.5), error: 0.3, scale: Scale::Log, source: AZURE },
    Band { group: "peak to mean", name: "200 functions, median", unit: "", published: (6.85, 6.95), error: 0.25, scale: Scale::Log, source: AZURE },
    Band { group: "peak to mean", name: "200 functions, 90 %", unit: "", published: (23.5, 24.5), error: 0.35, scale: Scale::Log, source: AZURE },
    Band { group: "peak to mean", name: "1,000 functions, median", unit: "", published: (6.25, 6.35), error: 0.3, scale: Scale::Log, source: AZURE },
    Band { group: "peak to mean", name: "1,000 functions, 90 %", unit: "", published: (7.25, 7.35), error: 0.37, scale: Scale::Log, source: AZURE },
    Band { group: "rhythm", name: "minute :00", unit: "", published: (1.705, 1.715), error: 0.082, scale: Scale::Log, source: AZURE },
    Band { group: "rhythm", name: "minute :30", unit: "", published: (1.475, 1.485), error: 0.067, scale: Scale::Log, source: AZURE },
    Band { group: "rhythm", name: "minute :05", unit: "", published: (1.22, 1.26), error: 0.037, scale: Scale::Log, source: AZURE },
    Band { group: "rhythm", name: "minute :10", unit: "", published: (1.22, 1.26), error: 0.046, scale: Scale::Log, source: AZURE },
    Band { group: "rhythm", name: "minute :15", unit: "", published: (1.22, 1.26), error: 0.059, scale: Scale::Log, source: AZURE },
    Band { group: "rhythm", name: "minute :45", unit: "", published: (1.22, 1.26), error: 0.065, scale: Scale::Log, source: AZURE },
    Band { group: "rhythm", name: "hour of day, departure", unit: "", published: (0.0, 0.1), error: 0.28, scale: Scale::Log, source: SAMPLE },
    Band { group: "rhythm", name: "autocorrelation, 1 min", unit: "", published: (0.435, 0.445), error: 0.11, scale: Scale::Linear, source: AZURE },
    Band { group: "rhythm", name: "autocorrelation, 5 min", unit: "", published: (0.435, 0.445), error: 0.098, scale: Scale::Linear, source: AZURE },
    Band { group: "rhythm", name: "autocorrelation, 15 min", unit: "", published: (0.385, 0.395), error: 0.13, scale: Scale::Linear, source: AZURE },
    Band { group: "rhythm", name: "autocorrelation, 60 min", unit: "", published: (0.365, 0.375), error: 0.11, scale: Scale::Linear, source: AZURE },
    Band { group: "rhythm", name: "weekend", unit: "", published: (0.915, 0.925), error: 0.01, scale: Scale::Linear, source: WEEK },
    Band { group: "rhythm", name: "mid-week", unit: "", published: (1.025, 1.035), error: 0.01, scale: Scale::Linear, source: WEEK },
    Band { group: "rhythm", name: "near-periodic functions", unit: "", published: (0.255, 0.265), error: 0.0094, scale: Scale::Linear, source: AZURE },
    Band { group: "rhythm", name: "near-periodic, every minute", unit: "", published: (0.635, 0.645), error: 0.023, scale: Scale::Linear, source: SAMPLE },
    Band { group: "gaps", name: "variation, 75 %", unit: "", published: (2.665, 2.675), error: 0.088, scale: Scale::Log, source: SAMPLE },
    Band { group: "gaps", name: "variation, 95 %", unit: "", published: (12.0, 13.0), error: 0.09, scale: Scale::Log, source: GAPS },
    Band { group: "run times", name: "ln mean of a function, mean", unit: "", published: (-0.385, -0.375), error: 0.041, scale: Scale::Linear, source: AZURE },
    Band { group: "run times", name: "ln mean of a function, deviation", unit: "", published: (2.45, 2.55), error: 0.035, scale: Scale::Linear, source: AZURE },
    Band { group: "run times", name: "weighted by invocation, mean", unit: "", published: (-1.755, -1.745), error: 0.46, scale: Scale::Linear, source: AZURE },
    Band { group: "run times", name: "weighted by invocation, deviation", unit: "", published: (1.735, 1.745), error: 0.29, scale: Scale::Linear, source: AZURE },
    Band { group: "run times", name: "correlation with popularity", unit: "", published: (-0.235, -0.225), error: 0.024, scale: Scale::Linear, source: AZURE },
    Band { group: "run times", name: "sigma within a function, by quartiles", unit: "", published: (0.45, 0.73), error: 0.033, scale: Scale::Linear, source: AZURE },
    Band { group: "run times", name: "p99 / p50 within a function", unit: "", published: (5.45, 5.55), error: 0.058, scale: Scale::Log, source: AZURE },
    Band { group: "run times", name: "mean / p50 within a function", unit: "", published: (1.295, 1.305), error: 0.02, scale: Scale::Log, source: AZURE },
    Band { group: "cold starts", name: "container, median", unit: "s", published: (1.245, 1.255), error: 0.05, scale: Scale::Log, source: PUBLISHED },
    Band { group: "cold starts", name: "model load, 5 %", unit: "s", published: (3.5, 4.5), error: 0.05, scale: Scale::Log, source: GENTD },
    Band { group: "cold starts", name: "model load, 95 %", unit: "s", published: (22.5, 23.5), error: 0.05, scale: Scale::Log, source: GENTD },
    Band { group: "memory", name: "5 %", unit: "MB", published: (99.5, 100.5), error: 0.039, scale: Scale::Log, source: AZURE },
    Band { group: "memory", name: "median", unit: "MB", published: (141.5, 142.5), error: 0.033, scale: Scale::Log, source: AZURE },
    Band { group: "memory", name: "95 %", unit: "MB", published: (239.5, 240.5), error: 0.055, scale: Scale::Log, source: AZURE },
    Band { group: "memory", name: "99 %", unit: "MB", published: (360.5, 361.5), error: 0.17, scale: Scale::Log, source: AZURE },
    Band { group: "market", name: "absolute return, autocorrelation 1 min", unit: "", published: (0.22, 0.39), error: 0.021, scale: Scale::Linear, source: MARKET },
    Band { group: "market", name: "absolute return, autocorrelation 1 h", unit: "", published: (0.12, 0.18), error: 0.02, scale: Scale::Linear, source: MARKET },
    Band { group: "market", name: "log volume, autocorrelation 1 min", unit: "", published: (0.46, 0.7), error: 0.019, scale: Scale::Linear, source: MARKET },
    Band { group: "market", name: "log volume, autocorrelation 1 h", unit: "", published: (0.16, 0.4), error: 0.025, scale: Scale::Linear, source: MARKET },
    Band { group: "market", name: "return, autocorrelation 1 min", unit: "", published: (0.0, 0.0), error: 0.011, scale: Scale::Linear, source: MARKET },
    Band { group: "market", name: "absolute return and log volume", unit: "", published: (0.42, 0.58), error: 0.01, scale: Scale::Linear, source: MARKET },
    Band { group: "market", name: "range and log volume", unit: "", published: (0.63, 0.81), error: 0.0098, scale: Scale::Linear, source: MARKET },
    Band { group: "market", name: "elasticity of volume to range", unit: "", published: (1.0, 1.4), error: 0.022, scale: Scale::Linear, source: MARKET },
    Band { group: "market", name: "spikes a month", unit: "", published: (6.0, 12.0), error: 0.0, scale: Scale::Linear, source: MARKET },
    Band { group: "market", name: "length of a spike", unit: "min", published: (24.0, 60.0), error: 0.0, scale: Scale::Linear, source: MARKET },
    Band { group: "market", name: "volume in a spike", unit: "", published: (5.0, 11.0), error: 0.0, scale: Scale::Linear, source: MARKET },
    Band { group: "crash", name: "volatility at its height", unit: "", published: (47.5, 48.5), error: 0.1, scale: Scale::Log, source: CRASH },
    Band { group: "crash", name: "volume of its busiest hour", unit: "", published: (15.0, 40.0), error: 0.0, scale: Scale::Linear, source: CRASH },
    Band { group: "trades", name: "ln size, mean", unit: "", published: (5.35, 5.45), error: 0.023, scale: Scale::Linear, source: TRADES },
    Band { group: "trades", name: "ln size, deviation", unit: "", published: (2.25, 2.35), error: 0.023, scale: Scale::Linear, source: TRADES },
];
