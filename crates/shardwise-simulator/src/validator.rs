//! Whether requests went where they were expected to go: deviations, hot and cold spots, a verdict (S11).
//!
//! A deviation counts when it is large *and* more than chance: few events prove nothing. Tests take events as
//! independent; placements that follow each other are not quite, so p values err on the low side and the limits on
//! size hold beside them. Where the expectation comes from is the caller's to say: an even one is wrong for unequal
//! shards.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use shardwise_types::{InvalidInput, ShardId};
use statrs::distribution::{Binomial, ChiSquared, ContinuousCDF, DiscreteCDF, Normal};

/// Deviations above this share of the expectation are warnings, above the next critical (S11).
const WARNING: f64 = 0.2;
const CRITICAL: f64 = 0.5;
/// What rounding of shares may add to a deviation.
const ROUNDING: f64 = 1e-9;
/// Hot is a shard whose load per expected load is this many times the median's, cold below this many times.
const HOT: f64 = 1.5;
const COLD: f64 = 0.5;
/// Chance of calling any shard of a sound fleet off.
const SIGNIFICANCE: f64 = 0.01;
/// Chance of finding a critical deviation that is there.
const POWER: f64 = 0.8;
/// No verdict on fewer events, whatever the shares.
const LEAST_EVENTS: u64 = 30;

/// What became of an expectation.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Validation {
    /// Neither deviation nor hot spot; `None` when there are too few events to say.
    pub is_valid: Option<bool>,
    /// The same in a word.
    pub verdict: Verdict,
    /// Events that were looked at.
    pub events: u64,
    /// Events that it takes to see a critical deviation of every shard.
    pub events_needed: u64,
    /// Shards that got too little or too much, by shard.
    pub deviations: Vec<Deviation>,
    /// Shards that are off by more than 20 % as far as these events go, which may be chance.
    pub unproven: Vec<ShardId>,
    /// Shards with more than 1.5 times the median load per expected load, and more than chance gives.
    pub hot_spots: Vec<Spot>,
    /// Shards with less than half of the median load per expected load, and less than chance gives.
    pub cold_spots: Vec<Spot>,
    /// Jain's index of load over expected load, in (0, 1]: 1 is exactly as expected; 0 when nothing went where it was
    /// expected. Traffic to shards where none is expected is no part of it.
    pub overall_distribution_score: f64,
    /// Chance of a distribution this far off or farther (Pearson's χ²); `None` without events or with a single shard.
    pub chi_square_p_value: Option<f64>,
    /// What to do, most pressing first.
    pub recommendations: Vec<String>,
}

/// What the events allow to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As expected.
    Valid,
    /// Not as expected.
    Invalid,
    /// Too few events to say.
    Insufficient,
}

/// A shard that got too little or too much; loads are shares of all events.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deviation {
    /// The shard.
    pub shard_id: ShardId,
    /// Its share as expected.
    pub expected_load: f64,
    /// Its share as it was.
    pub actual_load: f64,
    /// |actual − expected| / expected; `None` where nothing was expected.
    pub deviation: Option<f64>,
    /// Critical above 0.5 and where nothing was expected, else a warning.
    pub severity: Severity,
    /// Chance of as much in a fleet that is as expected: two-sided exact binomial test, corrected for the number of shards
    /// (Holm).
    pub p_value: f64,
}

/// How bad a deviation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// More than 20 % off.
    Warning,
    /// More than 50 % off, or traffic where none was expected.
    Critical,
}

/// A shard that is hotter or colder than the rest.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spot {
    /// The shard.
    pub shard_id: ShardId,
    /// Its load over its expected load, over that of the median shard.
    pub ratio: f64,
}

/// Compares requests by shard with the shares expected of them, which may be given in any positive unit.
///
/// A shard that is missing on one side counts as 0 there.
///
/// # Errors
/// When a number is negative or not finite, a count is not whole, or nothing is expected anywhere; the shard is named.
///
/// ```
/// use shardwise_simulator::{Severity, validate};
///
/// let requests = [("shard-a".into(), 6_050.0), ("shard-b".into(), 3_950.0)].into();
/// let expected = [("shard-a".into(), 1.0), ("shard-b".into(), 1.0)].into();
/// let validation = validate(&requests, &expected)?;
/// assert_eq!(validation.is_valid, Some(false));
/// assert_eq!(validation.deviations[0].severity, Severity::Warning);
/// # Ok::<(), shardwise_types::InvalidInput>(())
/// ```
pub fn validate(
    requests: &BTreeMap<ShardId, f64>,
    expected: &BTreeMap<ShardId, f64>,
) -> Result<Validation, InvalidInput> {
    let shards = Shards::new(requests, expected)?;
    let events = shards.events;
    let least = events_needed(&shards, f64::max).max(LEAST_EVENTS);
    let needed = events_needed(&shards, f64::min).max(LEAST_EVENTS);
    let (deviations, unproven) = deviations(&shards, events >= least);
    let spots = if events >= least { spots(&shards) } else { (Vec::new(), Vec::new()) };
    let (hot_spots, cold_spots) = spots;
    let verdict = match (deviations.is_empty() && hot_spots.is_empty(), events >= needed) {
        (false, _) => Verdict::Invalid,
        (true, true) => Verdict::Valid,
        (true, false) => Verdict::Insufficient,
    };
    let mut validation = Validation {
        is_valid: (verdict != Verdict::Insufficient).then_some(verdict == Verdict::Valid),
        verdict,
        events,
        events_needed: needed,
        deviations,
        unproven,
        hot_spots,
        cold_spots,
        overall_distribution_score: jain(&shards),
        chi_square_p_value: chi_square_p_value(&shards),
        recommendations: Vec::new(),
    };
    validation.recommendations = recommendations(&validation);
    Ok(validation)
}

/// Both sides of one shard.
struct Shard {
    id: ShardId,
    requests: u64,
    expected: f64,
    actual: f64,
    /// Corrected for the number of shards.
    p_value: f64,
}

struct Shards {
    events: u64,
    rows: Vec<Shard>,
}

impl Shards {
    fn new(requests: &BTreeMap<ShardId, f64>, expected: &BTreeMap<ShardId, f64>) -> Result<Self, InvalidInput> {
        for (shard, count) in requests {
            let whole = *count >= 0.0 && count.fract() == 0.0 && *count <= 1e15;
            check(whole, shard, || format!("{count} is no number of requests; it must be whole and 0 or more"))?;
        }
        for (shard, weight) in expected {
            let sound = weight.is_finite() && *weight >= 0.0;
            check(sound, shard, || format!("{weight} cannot be expected; it must be a finite share, 0 or more"))?;
        }
        let all: f64 = expected.values().sum();
        if !(all.is_finite() && all > 0.0) {
            let problem = format!("expected shares add up to {all}; at least one shard must expect traffic");
            return Err(InvalidInput::new("byShardId", problem));
        }
        let events: f64 = requests.values().sum();
        let ids: BTreeSet<&ShardId> = requests.keys().chain(expected.keys()).collect();
        let row = |id: &ShardId| {
            let requests = requests.get(id).copied().unwrap_or(0.0);
            let expected = expected.get(id).copied().unwrap_or(0.0) / all;
            let actual = if events > 0.0 { requests / events } else { 0.0 };
            let p_value = binomial_p_value(requests as u64, events as u64, expected);
            Shard { id: id.clone(), requests: requests as u64, expected, actual, p_value }
        };
        let mut rows: Vec<Shard> = ids.into_iter().map(row).collect();
        holm(&mut rows);
        Ok(Self { events: events as u64, rows })
    }

    /// Shards that expect traffic.
    fn expecting(&self) -> impl Iterator<Item = &Shard> {
        self.rows.iter().filter(|shard| shard.expected > 0.0)
    }
}

impl Shard {
    /// Load over expected load; infinite where nothing is expected.
    fn ratio(&self) -> f64 {
        self.actual / self.expected
    }

    fn is_significant(&self) -> bool {
        self.p_value <= SIGNIFICANCE
    }
}

fn check(holds: bool, shard: &ShardId, problem: impl FnOnce() -> String) -> Result<(), InvalidInput> {
    if holds { Ok(()) } else { Err(InvalidInput::new(&format!("byShardId[{shard}]"), problem())) }
}

/// Chance of so many of `events` or of anything as far out on its side, doubled for the other side.
fn binomial_p_value(requests: u64, events: u64, expected: f64) -> f64 {
    if expected <= 0.0 || expected >= 1.0 {
        return if (requests as f64) == expected.round() * events as f64 { 1.0 } else { 0.0 };
    }
    let binomial = Binomial::new(expected, events).expect("a probability");
    let at_least = if requests == 0 { 1.0 } else { binomial.sf(requests - 1) };
    (2.0 * binomial.cdf(requests).min(at_least)).min(1.0)
}

/// Makes the p values hold for all shards together (Holm 1979).
fn holm(rows: &mut [Shard]) {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|a, b| rows[*a].p_value.total_cmp(&rows[*b].p_value));
    let mut before: f64 = 0.0;
    for (rank, row) in order.into_iter().enumerate() {
        let left = (rows.len() - rank) as f64;
        before = before.max((left * rows[row].p_value).min(1.0));
        rows[row].p_value = before;
    }
}

/// Events that it takes to see a critical deviation of the shard with the smallest or largest expected share, by the
/// normal approximation: the smaller the share, the more.
fn events_needed(shards: &Shards, pick: fn(f64, f64) -> f64) -> u64 {
    let Some(share) = shards.expecting().map(|shard| shard.expected).reduce(pick) else { return 0 };
    let normal = Normal::standard();
    let tested = shards.expecting().count() as f64;
    let quantiles = normal.inverse_cdf(1.0 - SIGNIFICANCE / (2.0 * tested)) + normal.inverse_cdf(POWER);
    (quantiles.powi(2) * (1.0 - share) / (share * CRITICAL.powi(2))).ceil() as u64
}

/// Deviations that are proven, and shards that may be off. Traffic where none is expected is a fact, not an estimate.
fn deviations(shards: &Shards, enough: bool) -> (Vec<Deviation>, Vec<ShardId>) {
    let (mut proven, mut unproven) = (Vec::new(), Vec::new());
    for shard in &shards.rows {
        let unexpected = shard.expected == 0.0;
        let deviation = (shard.actual - shard.expected).abs() / shard.expected;
        // 0 / 0 is no deviation: nothing was expected and nothing came.
        if deviation.is_nan() || deviation <= WARNING + ROUNDING {
            continue;
        }
        let is_proven = unexpected || (enough && shard.is_significant());
        if !is_proven {
            unproven.push(shard.id.clone());
            continue;
        }
        proven.push(Deviation {
            shard_id: shard.id.clone(),
            expected_load: shard.expected,
            actual_load: shard.actual,
            deviation: (!unexpected).then_some(deviation),
            severity: if deviation > CRITICAL + ROUNDING { Severity::Critical } else { Severity::Warning },
            p_value: shard.p_value,
        });
    }
    (proven, unproven)
}

/// Hot and cold spots.
fn spots(shards: &Shards) -> (Vec<Spot>, Vec<Spot>) {
    let mut ratios: Vec<f64> = shards.expecting().map(Shard::ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let median = f64::midpoint(ratios[(ratios.len() - 1) / 2], ratios[ratios.len() / 2]);
    let spot = |shard: &Shard| Spot { shard_id: shard.id.clone(), ratio: shard.ratio() / median };
    let significant = || shards.expecting().filter(|shard| shard.is_significant());
    let hot = significant().filter(|shard| shard.ratio() > (HOT * median).max(1.0));
    let cold = significant().filter(|shard| shard.ratio() < (COLD * median).min(1.0));
    (hot.map(spot).collect(), cold.map(spot).collect())
}

fn jain(shards: &Shards) -> f64 {
    let (sum, squares) = shards.expecting().map(Shard::ratio).fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
    if squares > 0.0 { sum * sum / (shards.expecting().count() as f64 * squares) } else { 0.0 }
}

fn chi_square_p_value(shards: &Shards) -> Option<f64> {
    let degrees = shards.expecting().count() - 1;
    if shards.events == 0 || degrees == 0 {
        return None;
    }
    if shards.rows.iter().any(|shard| shard.expected == 0.0 && shard.requests > 0) {
        return Some(0.0);
    }
    let part = |shard: &Shard| (shard.actual - shard.expected).powi(2) / shard.expected;
    let statistic = shards.events as f64 * shards.expecting().map(part).sum::<f64>();
    Some(ChiSquared::new(degrees as f64).expect("degrees above 0").sf(statistic))
}

fn recommendations(validation: &Validation) -> Vec<String> {
    let mut advice = Vec::new();
    if validation.verdict == Verdict::Insufficient {
        advice.push(format!(
            "{} events are too few for a verdict; send {} or more",
            validation.events, validation.events_needed
        ));
    }
    let those = |which: fn(&Deviation) -> bool| -> Vec<&str> {
        validation.deviations.iter().filter(|off| which(off)).map(|off| off.shard_id.as_str()).collect()
    };
    for (shards, what_to_do) in [
        (
            those(|off| off.deviation.is_none()),
            "got traffic where none is expected: look for a rule that does not hold",
        ),
        (
            those(|off| off.deviation.is_some() && off.actual_load > off.expected_load),
            "got too much: lower their weights, or expect more if they are the better places",
        ),
        (
            those(|off| off.actual_load < off.expected_load),
            "got too little: look at their health and weights, or expect less",
        ),
    ] {
        if !shards.is_empty() {
            advice.push(format!("{} {what_to_do}", shards.join(", ")));
        }
    }
    let names = |spots: &[Spot]| spots.iter().map(|spot| spot.shard_id.as_str()).collect::<Vec<_>>().join(", ");
    if !validation.hot_spots.is_empty() {
        advice.push(format!("hot spots: move traffic away from {}", names(&validation.hot_spots)));
    }
    if !validation.cold_spots.is_empty() {
        advice.push(format!("cold spots: {} could take more, or be released", names(&validation.cold_spots)));
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(values: &[f64]) -> BTreeMap<ShardId, f64> {
        values.iter().enumerate().map(|(index, value)| (format!("shard-{index}").into(), *value)).collect()
    }

    fn judge(requests: &[f64], expected: &[f64]) -> Validation {
        validate(&shares(requests), &shares(expected)).unwrap()
    }

    #[test]
    fn off_by_21_percent_is_a_warning_and_by_51_percent_critical() {
        let rest = |first: f64| [first, 40_000.0 - first - 20_000.0, 10_000.0, 10_000.0];
        for (percent, severity) in [
            (20.0, None),
            (21.0, Some(Severity::Warning)),
            (50.0, Some(Severity::Warning)),
            (51.0, Some(Severity::Critical)),
        ] {
            let validation = judge(&rest(10_000.0 + 100.0 * percent), &[1.0; 4]);
            let found: Vec<Severity> = validation.deviations.iter().map(|deviation| deviation.severity).collect();
            assert_eq!(found, severity.map_or(vec![], |severity| vec![severity; 2]), "{percent} %");
            assert_eq!(validation.is_valid, Some(severity.is_none()), "{percent} %");
        }
    }

    #[test]
    fn ten_events_give_no_verdict() {
        for requests in [[5.0, 5.0], [10.0, 0.0]] {
            let validation = judge(&requests, &[1.0, 1.0]);
            assert_eq!((validation.verdict, validation.is_valid), (Verdict::Insufficient, None), "{requests:?}");
            assert!(validation.deviations.is_empty() && validation.hot_spots.is_empty());
            assert!(validation.events_needed > 30 && validation.recommendations[0].contains("too few"));
        }
        assert_eq!(judge(&[10.0, 0.0], &[1.0, 1.0]).unproven.len(), 2);
        assert_eq!(judge(&[0.0, 0.0], &[1.0, 1.0]).verdict, Verdict::Insufficient);
    }

    #[test]
    fn few_events_prove_a_flood_but_not_the_absence_of_a_trickle() {
        let expected = [0.5, 0.3, 0.199, 0.001];
        let flood = judge(&[20.0, 10.0, 170.0, 0.0], &expected);
        assert_eq!(flood.verdict, Verdict::Invalid);
        let calm = judge(&[100.0, 60.0, 40.0, 0.0], &expected);
        assert_eq!(
            (calm.verdict, calm.unproven.len()),
            (Verdict::Insufficient, 1),
            "the last shard was not to be seen"
        );
        assert_eq!(judge(&[50_000.0, 30_000.0, 19_900.0, 100.0], &expected).verdict, Verdict::Valid);
    }

    #[test]
    fn chance_alone_is_rarely_called_off() {
        use crate::streams::{Purpose, stream};
        use rand::RngExt;
        let mut off = 0;
        for run in 0..400 {
            let mut rng = stream(run, Purpose::LoadEvents, 0);
            let mut counts = vec![0.0; 20];
            (0..400).for_each(|_| counts[rng.random_range(0..20_usize)] += 1.0);
            off += usize::from(judge(&counts, &[1.0; 20]).verdict == Verdict::Invalid);
        }
        assert!(off <= 8, "{off} of 400 sound distributions were called off");
    }

    #[test]
    fn traffic_where_none_is_expected_is_critical_and_a_silent_shard_is_not_forgotten() {
        let validation = judge(&[500.0, 499.0, 1.0], &[1.0, 1.0, 0.0]);
        let [stray] = &validation.deviations[..] else { panic!("{:?}", validation.deviations) };
        assert_eq!((stray.severity, stray.deviation, stray.p_value), (Severity::Critical, None, 0.0));
        let silent = validate(&shares(&[1_000.0]), &shares(&[1.0, 1.0])).unwrap();
        assert_eq!((silent.deviations.len(), silent.cold_spots.len()), (2, 1), "{silent:?}");
        assert_eq!(judge(&[100.0, 0.0], &[1.0, 0.0]).verdict, Verdict::Valid);
    }

    #[test]
    fn hot_and_cold_are_measured_against_what_is_expected() {
        let even = judge(&[8_000.0, 1_000.0, 1_000.0], &[8.0, 1.0, 1.0]);
        assert!(even.hot_spots.is_empty() && even.cold_spots.is_empty());
        assert!((even.overall_distribution_score - 1.0).abs() < 1e-12);
        assert!(even.chi_square_p_value.unwrap() > 0.999);
        let hot = judge(&[2_000.0, 2_000.0, 2_000.0, 4_000.0, 500.0], &[1.0; 5]);
        assert_eq!((hot.hot_spots[0].shard_id.as_str(), hot.hot_spots[0].ratio), ("shard-3", 2.0));
        assert_eq!((hot.hot_spots.len(), hot.cold_spots.len()), (1, 1));
        assert!(hot.chi_square_p_value.unwrap() < 1e-9 && hot.overall_distribution_score < 0.8);
    }

    #[test]
    fn numbers_that_are_none_are_refused_with_the_shard() {
        for (requests, expected, named) in [
            (vec![-1.0], vec![1.0], "shard-0"),
            (vec![1.0, 0.5], vec![1.0], "shard-1"),
            (vec![f64::NAN], vec![1.0], "shard-0"),
            (vec![1.0], vec![1.0, -0.1], "shard-1"),
            (vec![1.0], vec![f64::INFINITY], "shard-0"),
            (vec![1.0], vec![0.0], "add up to 0"),
            (vec![], vec![], "at least one shard"),
        ] {
            let error = validate(&shares(&requests), &shares(&expected)).unwrap_err();
            assert!(error.to_string().contains(named), "{named}: {error}");
        }
    }

    #[test]
    fn p_values_are_those_of_the_textbook() {
        // 8 heads of 10: P(X ≥ 8) = 56 / 1024, doubled.
        assert!((binomial_p_value(8, 10, 0.5) - 112.0 / 1024.0).abs() < 1e-12);
        assert_eq!(binomial_p_value(5, 10, 0.5), 1.0);
        // Rolls of a die: χ² = 32 / 10 with 5 degrees, p = 0.6692 in the tables.
        let die = judge(&[14.0, 6.0, 10.0, 10.0, 10.0, 10.0], &[1.0; 6]);
        assert!((die.chi_square_p_value.unwrap() - 0.6692).abs() < 1e-4, "{:?}", die.chi_square_p_value);
    }
}
