//! Real traces as plain data, to be replayed: arrivals, run times, memory, market, speed noise.

/// Invocations of one function, minute by minute.
#[derive(Debug, Clone, PartialEq)]
pub struct ArrivalTrace {
    /// Name of the function's series.
    pub function: String,
    /// Invocations in each minute of a day, or of several whole days.
    pub per_minute: Vec<u32>,
}

/// Some quantity of one function over a day.
#[derive(Debug, Clone, PartialEq)]
pub struct Percentiles {
    /// Its percentiles: (percent in [0, 100], value), both rising.
    pub points: Vec<(f32, f32)>,
    /// Its mean; 0 or more.
    pub mean: f32,
    /// How many values are behind it: invocations of the function, or samples; 0 or more.
    pub samples: f64,
}

/// One minute of a market.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MarketBar {
    /// Highest price in US dollars.
    pub high_usd: f64,
    /// Lowest price in US dollars.
    pub low_usd: f64,
    /// Closing price in US dollars.
    pub close_usd: f64,
    /// Volume in the minute.
    pub volume: f64,
}

/// How unequal equal machines are: run times of one benchmark on one machine, in time order, relative to the
/// benchmark's median.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeedTrace {
    /// What was measured, such as `cpu` or `cache`.
    pub benchmark: String,
    /// Slowness, 1 is the median; larger is slower.
    pub slowness: Vec<f32>,
}
