//! A world and a workload around real traces.
//!
//! | real | drawn by seed |
//! |---|---|
//! | how many invocations each function has in each minute | where in its minute an invocation falls; its router |
//! | the distribution of run times of some function | which function has it: by rank of popularity with the correlation of logs that was published (hot functions are faster), since the traces cannot be joined |
//! | the distribution of memory of some function | which function has it |
//! | slowness of machines over time, by benchmark | which machine's trace a shard has, and from when; one sample per step, so months become hours |
//! | prices and volumes of the market | – |
//! | – | protocol, event, exchange, urgency, amount, cold start, the fleet and its network |
//!
//! What would have happened on another shard is nobody's record: it is simulated.

use rand::RngExt;
use rand_distr::StandardNormal;
use rustc_hash::FxHashSet;
use shardwise_types::{ArrivalTrace, FunctionId, MarketBar, MarketRecord, Percentiles, SpeedTrace, Timestamp};

use crate::constants::{MINUTE_NS, POPULARITY_SPEED, SIZE_VARIANCE, VOLATILITY_MINUTES};
use crate::fleet::{FleetOptions, function_profile, tidy};
use crate::generator::cold_start_ms;
use crate::market::records_of_bars;
use crate::streams::{KeyedStream, Purpose, stream};
use crate::workload::{RequestMaker, Workload};
use crate::world::{FunctionSpec, ResourceClass, SlownessTrace, Timing, WorldError, WorldSpec};

/// Real traces.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReplayInputs {
    /// Invocations by function and minute, from midnight UTC; a name that comes again is left out of a replay.
    pub arrivals: Vec<ArrivalTrace>,
    /// Run times in ms, by some function.
    pub durations_ms: Vec<Percentiles>,
    /// Memory in MB, by some function; empty draws it.
    pub memory_mb: Vec<Percentiles>,
    /// How long a cold start takes in ms, by some function; empty draws it.
    pub load_ms: Vec<f32>,
    /// The market by minute; its first hour only feeds volatility and trend. Empty leaves the market unknown.
    pub market: Vec<MarketBar>,
    /// Slowness of machines; empty keeps the synthetic antagonists.
    pub speed: Vec<SpeedTrace>,
}

/// What to make of the traces.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayOptions {
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// When the replay begins; its hour of the day chooses the first minute of the arrivals.
    pub start: Timestamp,
    /// How long it is; a day's arrivals start over when it is longer.
    pub hours: f64,
    /// Shards.
    pub shards: usize,
    /// Routers.
    pub routers: usize,
    /// Factor on all run times, to set the load.
    pub duration_scale: f64,
    /// Timeout in ms; real functions run for seconds.
    pub timeout_ms: f64,
    /// How long a function stays warm, in ms.
    pub warm_ttl_ms: f64,
    /// Minutes that one sample of a speed trace holds.
    pub slowness_minutes: f64,
    /// Distances, see [`FleetOptions`].
    pub net_scale: f32,
    /// Inequality of machines beside the speed traces, see [`FleetOptions`].
    pub heterogeneity: f32,
    /// What the market's bars are of.
    pub instrument: String,
}

impl ReplayOptions {
    /// Twelve shards and two routers, a timeout of 30 s and ten minutes of warmth.
    pub fn new(seed: u64, start: Timestamp, hours: f64) -> Self {
        Self {
            seed,
            start,
            hours,
            shards: 12,
            routers: 2,
            duration_scale: 1.0,
            timeout_ms: 30_000.0,
            warm_ttl_ms: 600_000.0,
            slowness_minutes: 5.0,
            net_scale: 0.1,
            heterogeneity: 1.0,
            instrument: "BTC-PERP".to_owned(),
        }
    }

    fn minutes(&self) -> usize {
        (self.hours * 60.0).ceil() as usize
    }
}

/// Builds a world and a workload; the same traces and options give the same ones.
///
/// # Errors
/// When arrivals or run times are missing, an option is out of range, or the world would not be sound.
pub fn world_and_workload(inputs: &ReplayInputs, options: &ReplayOptions) -> Result<(WorldSpec, Workload), WorldError> {
    check(inputs, options)?;
    let series = distinct(&inputs.arrivals);
    let world = world(inputs, options, &series);
    world.check()?;
    let workload = workload(inputs, options, &world, &series);
    Ok((world, workload))
}

fn check(inputs: &ReplayInputs, options: &ReplayOptions) -> Result<(), WorldError> {
    if inputs.arrivals.iter().all(|trace| trace.per_minute.is_empty()) {
        return Err(WorldError::Empty {
            what: "arrival traces",
            remedy: "give the invocations by function and minute",
        });
    }
    if inputs.durations_ms.iter().all(|profile| profile.points.is_empty()) {
        return Err(WorldError::Empty { what: "run time traces", remedy: "give percentiles of run times" });
    }
    for (field, value, most) in [
        ("hours", options.hours, 24.0 * 31.0),
        ("durationScale", options.duration_scale, 1e6),
        ("slownessMinutes", options.slowness_minutes, 1e6),
    ] {
        if !(value > 0.0 && value <= most) {
            return Err(WorldError::field(
                field,
                format!("{value} is out of range; it must lie above 0, up to {most}"),
            ));
        }
    }
    Ok(())
}

fn distinct(traces: &[ArrivalTrace]) -> Vec<&ArrivalTrace> {
    let mut seen = FxHashSet::default();
    traces.iter().filter(|trace| !trace.per_minute.is_empty() && seen.insert(trace.function.as_str())).collect()
}

fn total(trace: &ArrivalTrace) -> u64 {
    trace.per_minute.iter().map(|count| u64::from(*count)).sum()
}

fn world(inputs: &ReplayInputs, options: &ReplayOptions, series: &[&ArrivalTrace]) -> WorldSpec {
    let fleet = FleetOptions {
        shards: options.shards,
        routers: options.routers,
        functions: 0,
        net_scale: options.net_scale,
        heterogeneity: options.heterogeneity,
    };
    let mut world = WorldSpec::generate(options.seed, &fleet);
    world.timing = Timing {
        timeout_ms: options.timeout_ms,
        warm_ttl_ms: options.warm_ttl_ms,
        // The profiles hold their own tails.
        tail_share: 0.0,
        ..Timing::default()
    };
    world.functions = functions(inputs, options, series);
    if !inputs.speed.is_empty() {
        for (index, shard) in world.shards.iter_mut().enumerate() {
            shard.antagonist = None;
            shard.slowness = slowness(&inputs.speed, options, index);
        }
    }
    world
}

fn functions(inputs: &ReplayInputs, options: &ReplayOptions, series: &[&ArrivalTrace]) -> Vec<FunctionSpec> {
    let mut profiles: Vec<RunTime> = inputs.durations_ms.iter().filter_map(RunTime::of).collect();
    profiles.sort_by(|a, b| a.median_ms.total_cmp(&b.median_ms));
    let places = couple(options.seed, series);
    let function = |(index, trace): (usize, &&ArrivalTrace)| {
        let mut rng = stream(options.seed, Purpose::Functions, index as u64);
        let mut function = function_profile(&mut rng, |_| FunctionId::new(&trace.function));
        let place = (places[index] * profiles.len() as f64) as usize;
        let run_time = profiles[place.min(profiles.len() - 1)];
        function.base_ms = tidy((run_time.median_ms * options.duration_scale).clamp(0.5, options.timeout_ms / 3.0));
        function.log_sd = tidy(run_time.log_sd * (1.0 - SIZE_VARIANCE).sqrt());
        function.load_ms = tidy(match inputs.load_ms.len() {
            0 => cold_start_ms(&mut rng),
            loads => inputs.load_ms[rng.random_range(0..loads)].into(),
        });
        function.weight = total(trace) as f64;
        if !inputs.memory_mb.is_empty() {
            let profile = &inputs.memory_mb[rng.random_range(0..inputs.memory_mb.len())];
            function.memory_mb = percentile(profile, 50.0).map_or(function.memory_mb, |mb| mb.max(1.0) as f32);
        }
        function
    };
    series.iter().enumerate().map(function).collect()
}

/// Where each function stands among the run times, in [0, 1): by its popularity and noise, so that the ranks
/// correlate as the logs are known to.
fn couple(seed: u64, series: &[&ArrivalTrace]) -> Vec<f64> {
    let n = series.len() as f64;
    let rank = |mut keyed: Vec<(f64, usize)>| {
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut ranks = vec![0.0; keyed.len()];
        keyed.iter().enumerate().for_each(|(rank, (_, index))| ranks[*index] = (rank as f64 + 0.5) / n);
        ranks
    };
    let popularity = rank(series.iter().enumerate().map(|(index, trace)| (total(trace) as f64, index)).collect());
    let noise = (1.0 - POPULARITY_SPEED * POPULARITY_SPEED).sqrt();
    let key = |(index, popularity): (usize, &f64)| {
        let draw: f64 = stream(seed, Purpose::Replay, index as u64).sample(StandardNormal);
        // A uniform of variance 1 stands in for the normal score.
        (POPULARITY_SPEED * (popularity - 0.5) * 12.0_f64.sqrt() + noise * draw, index)
    };
    rank(popularity.iter().enumerate().map(key).collect())
}

#[derive(Clone, Copy)]
struct RunTime {
    median_ms: f64,
    log_sd: f64,
}

impl RunTime {
    fn of(profile: &Percentiles) -> Option<Self> {
        // Sub-millisecond run times were rounded to 0 in the traces.
        let at = |percent| percentile(profile, percent).map(|ms| ms.max(0.5));
        let median_ms = at(50.0)?;
        let quartiles = at(25.0).zip(at(75.0)).map(|(low, high)| (high / low).ln() / 1.349);
        let tail = at(99.0).map(|high| (high / median_ms).ln() / 2.326);
        let spreads: Vec<f64> = [quartiles, tail].into_iter().flatten().collect();
        let log_sd = if spreads.is_empty() { 0.6 } else { spreads.iter().sum::<f64>() / spreads.len() as f64 };
        Some(Self { median_ms, log_sd: log_sd.clamp(0.05, 1.5) }).filter(|_| median_ms.is_finite())
    }
}

/// Linear between the points; `None` outside of them.
fn percentile(profile: &Percentiles, percent: f32) -> Option<f64> {
    let above = profile.points.partition_point(|(at, _)| *at < percent);
    let (at, value) = *profile.points.get(above)?;
    if at == percent {
        return Some(value.into());
    }
    let (before_at, before) = profile.points[above.checked_sub(1)?];
    let part = f64::from((percent - before_at) / (at - before_at));
    Some(f64::from(before) + part * f64::from(value - before))
}

/// One trace per resource for which there is one, from a random machine and a random time on.
fn slowness(traces: &[SpeedTrace], options: &ReplayOptions, shard: usize) -> Vec<SlownessTrace> {
    let mut rng = stream(options.seed, Purpose::SpeedTraces, shard as u64);
    let steps = (options.hours * 60.0 / options.slowness_minutes).ceil() as usize + 1;
    let mut of_resource = |resource| {
        let sound = |value: &&f32| value.is_finite() && **value > 0.0;
        let fitting: Vec<&SpeedTrace> = traces
            .iter()
            .filter(|trace| resource_of(&trace.benchmark) == resource && trace.slowness.iter().any(|v| sound(&v)))
            .collect();
        let chosen = *fitting.get(rng.random_range(0..fitting.len().max(1)))?;
        let values: Vec<f32> = chosen.slowness.iter().filter(sound).map(|value| value.clamp(0.2, 20.0)).collect();
        let from = rng.random_range(0..values.len());
        let values = (0..steps).map(|step| values[(from + step) % values.len()]).collect();
        Some(SlownessTrace { resource, step_ms: options.slowness_minutes * 60_000.0, values })
    };
    [ResourceClass::Compute, ResourceClass::Memory, ResourceClass::Io]
        .into_iter()
        .filter_map(&mut of_resource)
        .collect()
}

/// By the name of the benchmark: `cpu…` is compute, `cache…`, `mem…`, `redis…` memory, all else i/o.
fn resource_of(benchmark: &str) -> ResourceClass {
    let name = benchmark.to_ascii_lowercase();
    let is = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if is(&["cache", "mem", "redis"]) {
        ResourceClass::Memory
    } else if is(&["cpu", "compute"]) {
        ResourceClass::Compute
    } else {
        ResourceClass::Io
    }
}

fn workload(inputs: &ReplayInputs, options: &ReplayOptions, world: &WorldSpec, series: &[&ArrivalTrace]) -> Workload {
    let end = options.start.plus_millis(options.hours * 3.6e6);
    let mut moments: Vec<(i64, u32)> = Vec::new();
    for (function, trace) in series.iter().enumerate() {
        let mut rng = stream(options.seed, Purpose::Arrivals, function as u64);
        place(&mut rng, options, function as u32, trace, &mut moments);
    }
    moments.retain(|(at, _)| *at < end.nanos());
    moments.sort_unstable();
    let maker = RequestMaker::at(world, options.seed, options.start, 0.0);
    let arrival = |(index, (at, function)): (usize, &(i64, u32))| {
        let mut rng = stream(options.seed, Purpose::Requests, index as u64);
        let spec = &world.functions[*function as usize];
        // Of the spread of the profile, the size of the input explains its share.
        let sigma = spec.log_sd * (SIZE_VARIANCE / (1.0 - SIZE_VARIANCE)).sqrt() / spec.complexity_exponent;
        maker.request(&mut rng, Timestamp::from_nanos(*at), *function, false, sigma)
    };
    let arrivals = moments.iter().enumerate().map(arrival).collect();
    Workload { start: options.start, end, elapsed_ms: 0.0, arrivals, market: market(inputs, options, world, end) }
}

/// Puts a function's invocations at random instants of their minutes; a timer at the same instant of each.
fn place(
    rng: &mut KeyedStream,
    options: &ReplayOptions,
    function: u32,
    trace: &ArrivalTrace,
    moments: &mut Vec<(i64, u32)>,
) {
    let first_minute = (options.start.hour_utc() * 60.0) as usize;
    let timer = trace.per_minute.iter().all(|count| *count == 1);
    let timer_offset = rng.random_range(0..MINUTE_NS);
    for minute in 0..options.minutes() {
        let from = options.start.nanos() + minute as i64 * MINUTE_NS;
        for _ in 0..trace.per_minute[(first_minute + minute) % trace.per_minute.len()] {
            let offset = if timer { timer_offset } else { rng.random_range(0..MINUTE_NS) };
            moments.push((from + offset, function));
        }
    }
}

/// The bars' first hour lies before the start.
fn market(inputs: &ReplayInputs, options: &ReplayOptions, world: &WorldSpec, end: Timestamp) -> Vec<MarketRecord> {
    let before = VOLATILITY_MINUTES.min(inputs.market.len().saturating_sub(1));
    let first_end = Timestamp::from_nanos(options.start.nanos() - before as i64 * MINUTE_NS);
    let bars = &inputs.market[..inputs.market.len().min(before + options.minutes() + 1)];
    let earliest = Timestamp::from_nanos(options.start.nanos() - MINUTE_NS);
    records_of_bars(bars, first_end, world.timing.market_delay_ms, &options.instrument)
        .into_iter()
        .filter(|record| (earliest..=end).contains(&record.event_at))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> ReplayInputs {
        let trace = |index: u32| ArrivalTrace {
            function: format!("series-{index}"),
            per_minute: (0..1440)
                .map(|minute| if index == 0 { 1 } else { (minute * index) % (index / 4 + 2) })
                .collect(),
        };
        let profile = |median: f32| Percentiles {
            points: vec![
                (0.0, 0.2 * median),
                (25.0, 0.7 * median),
                (50.0, median),
                (75.0, 1.5 * median),
                (99.0, 5.0 * median),
            ],
            mean: 1.2 * median,
            samples: 100.0,
        };
        let speed = |name: &str, base: f32| SpeedTrace {
            benchmark: name.to_owned(),
            slowness: (0..500_u16).map(|i| base + f32::from(i % 7) * 0.1).collect(),
        };
        ReplayInputs {
            arrivals: (0..60).map(trace).collect(),
            durations_ms: (1..200_u16).map(|i| profile(f32::from(i) * 4.0)).collect(),
            memory_mb: vec![profile(150.0)],
            load_ms: Vec::new(),
            market: crate::generate_bars(1, 400),
            speed: vec![speed("cpu-prime", 0.9), speed("cache-sweep", 0.8), speed("disk-io", 1.0)],
        }
    }

    fn options() -> ReplayOptions {
        ReplayOptions::new(5, "2026-01-05T06:00:00Z".parse().unwrap(), 2.0)
    }

    #[test]
    fn every_minute_has_the_real_number_of_invocations() {
        let inputs = inputs();
        let (_, workload) = world_and_workload(&inputs, &options()).unwrap();
        for (function, trace) in inputs.arrivals.iter().enumerate() {
            let mut counts = vec![0; 120];
            for arrival in workload.arrivals.iter().filter(|arrival| arrival.function as usize == function) {
                counts[(arrival.at.millis_since(workload.start) / 6e4) as usize] += 1;
            }
            assert_eq!(counts, trace.per_minute[360..480], "{}", trace.function);
        }
    }

    #[test]
    fn timers_keep_their_second() {
        let (_, workload) = world_and_workload(&inputs(), &options()).unwrap();
        let timer: Vec<i64> = workload.arrivals.iter().filter(|a| a.function == 0).map(|a| a.at.nanos()).collect();
        assert!(timer.windows(2).all(|pair| pair[1] - pair[0] == MINUTE_NS));
    }

    #[test]
    fn hot_functions_tend_to_be_faster() {
        let traces: Vec<ArrivalTrace> =
            (0..2000).map(|i| ArrivalTrace { function: i.to_string(), per_minute: vec![i + 1] }).collect();
        let series: Vec<&ArrivalTrace> = traces.iter().collect();
        let places = couple(1, &series);
        let covariance: f64 =
            places.iter().enumerate().map(|(i, place)| ((i as f64 + 0.5) / 2e3 - 0.5) * (place - 0.5)).sum();
        let correlation = covariance / 2e3 * 12.0;
        assert!((correlation + 0.23).abs() < 0.06, "{correlation}");
    }

    #[test]
    fn real_slowness_takes_the_place_of_antagonists() {
        let (world, _) = world_and_workload(&inputs(), &options()).unwrap();
        assert_eq!(world.shards.len(), 12);
        for shard in &world.shards {
            assert_eq!((shard.antagonist, shard.slowness.len()), (None, 3));
        }
        assert_ne!(world.shards[0].slowness, world.shards[1].slowness);
    }

    #[test]
    fn what_the_market_did_before_is_known_at_the_start() {
        let (_, workload) = world_and_workload(&inputs(), &options()).unwrap();
        let first = &workload.market[0];
        assert!(first.known_at < workload.start && first.volatility_bp.is_some());
        assert_eq!(workload.market.len(), 122);
    }

    #[test]
    fn a_profile_gives_its_median_and_spread() {
        let run_time = RunTime::of(&inputs().durations_ms[24]).unwrap();
        assert_eq!(run_time.median_ms, 100.0);
        assert!((run_time.log_sd - ((1.5_f64 / 0.7).ln() / 1.349 + 5.0_f64.ln() / 2.326) / 2.0).abs() < 1e-6);
    }

    #[test]
    fn missing_traces_are_refused() {
        let error = world_and_workload(&ReplayInputs::default(), &options()).unwrap_err();
        assert!(error.to_string().contains("arrival traces"), "{error}");
        let error = world_and_workload(&inputs(), &ReplayOptions { hours: 0.0, ..options() }).unwrap_err();
        assert!(error.to_string().contains("hours"), "{error}");
    }
}
