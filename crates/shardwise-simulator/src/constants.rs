//! The numbers behind generated worlds and workloads, in one place. What a world can change is in its
//! [`Timing`](crate::Timing); how unequal shards are is in `heterogeneity`; these are the habits of the generators.
//!
//! | what | value | source |
//! |---|---|---|
//! | calm and hot spells of the market | 16 s and 4 s, hot × 1.5 | two-state Markov-modulated Poisson process |
//! | cascades | 2 % of events, 8 more on average within 25 ms | liquidations and arbitrage follow each other |
//! | popularity | Zipf, slope 0.95 | Azure Functions 2019: 0.86–1.03 over ranks 1–300 |
//! | amounts in USD | ln-normal, mu 5.4, sigma 2.3; 0.4 % above 1 M | trade sizes on Uniswap v3 |
//! | memory of a function | ln-normal, median 142 MB | Azure Functions 2019: q5/50/95 = 100/142/240 MB |
//! | run time noise | sigma of ln 0.2–0.7 by function | Azure Functions 2019: 0.45–0.73 |
//! | run time, hot functions faster | correlation of logs −0.23 | Azure Functions 2019 |
//! | container cold start of replays | median 1.25 s | Azure, published measurements |
//! | share of the variance of ln run time that is input size | 10 % | GenTD26: 8–12 % |
//! | volatility of ln volatility | two AR(1) parts and spikes | BTC-PERP and Uniswap v3: autocorrelation of absolute returns .22–.39 at 1 min, .12–.18 at 1 h |
//! | volume over range | elasticity 1.25 | the same: 1.0–1.4 |
//! | spikes of the market | 8.6 a month | the same: 6–12 a month, 24–60 min, volume × 5–11 |

/// Nanoseconds in a millisecond.
pub(crate) const NANOS_PER_MS: f64 = 1e6;
/// Nanoseconds in a minute.
pub(crate) const MINUTE_NS: i64 = 60_000_000_000;

/// Mean length of a calm and of a hot spell, in ms.
pub(crate) const CALM_MS: f64 = 16_000.0;
pub(crate) const HOT_MS: f64 = 4_000.0;
/// Rate in a hot spell over the rate in a calm one.
pub(crate) const HOT_RATE: f64 = 1.5;
/// Weight of arbitrage and DEX functions in a hot spell.
pub(crate) const HOT_MIX: f64 = 2.0;
/// Chance that a request in a hot spell is one level more urgent.
pub(crate) const HOT_URGENCY: f64 = 0.4;
/// Protocols that hot spells favour.
pub(crate) const HOT_PROTOCOLS: [&str; 4] = ["arbitrage", "uniswap", "curve", "dex"];

/// Share of events that start a cascade, its mean size, and the time that it takes.
pub(crate) const CASCADE_SHARE: f64 = 0.02;
pub(crate) const CASCADE_MEAN: f64 = 8.0;
pub(crate) const CASCADE_MS: f64 = 25.0;

/// Slope of the popularity of functions over their ranks.
pub(crate) const ZIPF_SLOPE: f64 = 0.95;

/// Amounts at stake.
pub(crate) const AMOUNT_MU: f64 = 5.4;
pub(crate) const AMOUNT_SIGMA: f64 = 2.3;
pub(crate) const WHALE_SHARE: f64 = 0.004;
pub(crate) const WHALE_USD: f64 = 1e6;
pub(crate) const AMOUNT_MISSING: f64 = 0.15;
/// Share of requests whose caller says what it expects, and how wrong it is (sigma of ln).
pub(crate) const EXPECTED_SHARE: f64 = 0.3;
pub(crate) const EXPECTED_SIGMA: f64 = 0.5;
/// Share of requests that must stay in one region.
pub(crate) const RESIDENCY_SHARE: f64 = 0.005;
/// Share of requests that call another exchange than the function's usual one.
pub(crate) const OTHER_EXCHANGE: f64 = 0.2;

/// How much faster a shard is on its own protocol, where the fleet is the specification's.
pub(crate) const SPECIALITY: f64 = 1.5;

/// Standard deviation of one-minute log returns at the median volatility.
pub(crate) const MINUTE_RETURN: f64 = 6e-4;
/// Two parts of ln volatility: persistence per minute and stationary standard deviation of each.
pub(crate) const FAST_VOLATILITY: (f64, f64) = (0.85, 0.22);
pub(crate) const SLOW_VOLATILITY: (f64, f64) = (0.996, 0.46);
/// Most of the slow part: without a spike volatility stays below one.
pub(crate) const SLOW_CEILING: f64 = 0.95;
/// Steps of the price within a minute, for its range.
pub(crate) const STEPS_PER_MINUTE: u32 = 8;
/// Spikes: one in so many minutes, how long it holds, the minutes in which its ln falls to 1/e then, and the median and
/// sigma of ln of the volatility at its height over the usual one.
pub(crate) const SPIKE_EVERY: usize = 5_000;
pub(crate) const SPIKE_HOLDS: usize = 43;
pub(crate) const SPIKE_MINUTES: f64 = 6.0;
pub(crate) const SPIKE_VOLATILITY: f64 = 6.0;
pub(crate) const SPIKE_SIGMA: f64 = 0.02;
/// Below this ln volatility a spike is over; within it only this part of the fast AR(1) is felt.
pub(crate) const SPIKE_LEAST: f64 = 0.7;
pub(crate) const SPIKE_FAST: f64 = 0.1;
/// A crash: volatility over the usual one at its height, and the minutes in which its ln falls to 1/e.
pub(crate) const CRASH_VOLATILITY: f64 = 71.0;
pub(crate) const CRASH_MINUTES: f64 = 400.0;
/// ln volume at a usual range, and its rise with ln range: up to some ln range, and beyond it.
pub(crate) const LN_VOLUME: f64 = 3.0;
pub(crate) const VOLUME_ELASTICITY: f64 = 1.25;
pub(crate) const VOLUME_SATURATION: f64 = 2.3;
pub(crate) const SATURATED_ELASTICITY: f64 = 0.1;
/// What volume does of its own: an AR(1), which a spike replaces by a constant, and noise.
pub(crate) const VOLUME_MOOD: (f64, f64) = (0.99, 0.45);
pub(crate) const SPIKE_MOOD: f64 = 0.36;
pub(crate) const VOLUME_NOISE: f64 = 0.55;
/// Minutes of returns behind volatility and trend, and the fewest that say anything.
pub(crate) const VOLATILITY_MINUTES: usize = 60;
pub(crate) const LEAST_RETURNS: usize = 10;

/// Correlation of ln popularity and ln run time in replays.
pub(crate) const POPULARITY_SPEED: f64 = -0.23;
/// Share of the variance of ln run time that the input's size explains in replays.
pub(crate) const SIZE_VARIANCE: f64 = 0.10;
/// Cold start of replays: median in ms and sigma of ln.
pub(crate) const REPLAY_LOAD_MS: f64 = 1_250.0;
pub(crate) const REPLAY_LOAD_SIGMA: f64 = 0.4;
