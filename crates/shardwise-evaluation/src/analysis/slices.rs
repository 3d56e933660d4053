//! Parts of the traffic: the model against its rival where requests have something in common.

use std::collections::BTreeMap;

use shardwise_simulator::Arrival;
use shardwise_types::UsdAmount;

use super::figures::{Slice, SliceKind};
use crate::SamplePaths;
use crate::statistics::student_t_975;

/// Smaller slices say nothing.
const FEWEST_REQUESTS: u64 = 200;
/// Most slices of a kind; those with the fewest requests are put together as others.
const MOST_SLICES: usize = 12;
/// Stretches of time of each path that the jackknife leaves out one by one: requests that share a queue are not independent.
const STRETCHES: usize = 10;
/// Bands of load: fifths of the seconds, by how many requests arrived in them.
pub(super) const LOADS: [&str; 5] = ["quietest fifth", "second fifth", "middle fifth", "fourth fifth", "busiest fifth"];
/// Names of the bands of the amount in USD, by powers of ten.
const AMOUNTS: [&str; 6] = [
    "none or unknown",
    "below 1,000 USD",
    "1,000 to 10,000 USD",
    "10,000 to 100,000 USD",
    "100,000 USD to 1 M",
    "1 M USD and more",
];
/// The rest of a kind.
const OTHERS: &str = "others";

/// Bands of all arrivals that no policy can change.
pub(super) struct Bands {
    /// Places among the [`LOADS`], by arrival.
    pub(super) load: Vec<u8>,
}

impl Bands {
    /// Bands by the arrivals in the same second.
    pub(super) fn new(paths: &SamplePaths<'_>) -> Self {
        let workload = paths.workload;
        let second = |arrival: &Arrival| (arrival.at.millis_since(workload.start) / 1e3).max(0.0) as usize;
        let seconds = (workload.end.millis_since(workload.start) / 1e3).ceil().max(1.0);
        let mut arrivals = vec![0_u32; seconds as usize + 1];
        for arrival in &workload.arrivals {
            if let Some(count) = arrivals.get_mut(second(arrival)) {
                *count += 1;
            }
        }
        let mut sorted: Vec<u32> = arrivals.iter().copied().filter(|count| *count > 0).collect();
        sorted.sort_unstable();
        let bounds =
            [1, 2, 3, 4].map(|fifth| sorted.get(sorted.len() * fifth / LOADS.len()).copied().unwrap_or(u32::MAX));
        let band = |arrival: &Arrival| {
            let here = arrivals.get(second(arrival)).copied().unwrap_or(0);
            bounds.iter().filter(|bound| here >= **bound).count() as u8
        };
        Self { load: workload.arrivals.iter().map(band).collect() }
    }
}

/// Latencies by arrival on one path; NaN where nothing was measured.
pub(super) struct Outcomes {
    pub(super) ours: Vec<f32>,
    pub(super) rival: Vec<f32>,
}

impl Outcomes {
    pub(super) fn requests(&self) -> u64 {
        self.measured().count() as u64
    }

    fn measured(&self) -> impl Iterator<Item = (usize, [f32; 2])> {
        let both = self.ours.iter().zip(&self.rival).map(|(ours, rival)| [*ours, *rival]);
        both.enumerate().filter(|(_, both)| both.iter().all(|ms| !ms.is_nan()))
    }
}

/// One part while it is gathered.
#[derive(Default)]
struct Part {
    latencies: [Vec<f32>; 2],
    missed: [u64; 2],
    /// Sums by stretch of time.
    sums: Vec<[f64; 2]>,
}

/// Cuts the traffic in all ways.
pub(super) fn slices(paths: &SamplePaths<'_>, bands: &Bands, outcomes: &[Outcomes]) -> Vec<Slice> {
    SliceKind::ALL.into_iter().flat_map(|kind| slices_of(kind, paths, bands, outcomes)).collect()
}

fn slices_of(kind: SliceKind, paths: &SamplePaths<'_>, bands: &Bands, outcomes: &[Outcomes]) -> Vec<Slice> {
    let (places, names) = places_of(kind, paths, bands);
    let stretches = outcomes.len() * STRETCHES;
    let part = |_: &String| Part { sums: vec![[0.0; 2]; stretches], ..Part::default() };
    let mut parts: Vec<Part> = names.iter().map(part).collect();
    for (path, outcomes) in outcomes.iter().enumerate() {
        let Some(first) = outcomes.measured().next().map(|(arrival, _)| arrival) else { continue };
        let measured = (outcomes.ours.len() - first).max(1);
        for (arrival, both) in outcomes.measured() {
            let part = &mut parts[usize::from(places[arrival])];
            let stretch = path * STRETCHES + (arrival - first) * STRETCHES / measured;
            let objective_ms = paths.workload.arrivals[arrival].request.urgency.objective_ms();
            for (side, ms) in both.into_iter().enumerate() {
                part.latencies[side].push(ms);
                part.missed[side] += u64::from(f64::from(ms) > objective_ms);
                part.sums[stretch][side] += f64::from(ms);
            }
        }
    }
    let mut found: Vec<Slice> = names.into_iter().zip(parts).filter_map(|(of, part)| part.slice(kind, of)).collect();
    if matches!(kind, SliceKind::Protocol | SliceKind::Region) {
        found.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.of.cmp(&b.of)));
    }
    found
}

/// The name of each arrival's slice, by its place among the names.
fn places_of(kind: SliceKind, paths: &SamplePaths<'_>, bands: &Bands) -> (Vec<u16>, Vec<String>) {
    let fixed = |names: &[&str], place: &dyn Fn(usize, &Arrival) -> usize| {
        let arrivals = paths.workload.arrivals.iter().enumerate();
        let places = arrivals.map(|(index, arrival)| place(index, arrival) as u16).collect();
        (places, names.iter().map(|name| (*name).to_owned()).collect())
    };
    match kind {
        SliceKind::Risk => {
            let names: Vec<&str> = shardwise_types::RiskLevel::ALL.iter().map(|risk| risk.as_str()).collect();
            fixed(&names, &|_, arrival| usize::from(arrival.request.risk.rank()))
        }
        SliceKind::Load => fixed(&LOADS, &|index, _| usize::from(bands.load[index])),
        SliceKind::Amount => fixed(&AMOUNTS, &|_, arrival| {
            let usd = arrival.request.amount_usd.map_or(0.0, UsdAmount::usd);
            if usd > 0.0 { (usd.log10().floor() as i64 - 1).clamp(1, 5) as usize } else { 0 }
        }),
        SliceKind::Hour => {
            let names: Vec<String> = (0..24).map(|hour| format!("{hour:02}:00")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            fixed(&names, &|_, arrival| hour_of(arrival.request.event_at.nanos()))
        }
        SliceKind::Protocol => named(paths, |arrival| arrival.request.protocol.as_str().to_owned()),
        SliceKind::Region => {
            named(paths, |arrival| paths.world.routers[arrival.router as usize].region.as_str().to_owned())
        }
    }
}

/// The hour of day, UTC, of an instant in ns since 1970.
fn hour_of(nanos: i64) -> usize {
    (nanos.div_euclid(3_600_000_000_000)).rem_euclid(24) as usize
}

/// Slices by names of which there may be any number: the most frequent, and the others.
fn named(paths: &SamplePaths<'_>, name: impl Fn(&Arrival) -> String) -> (Vec<u16>, Vec<String>) {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    paths.workload.arrivals.iter().for_each(|arrival| *counts.entry(name(arrival)).or_default() += 1);
    let mut by_count: Vec<(&String, &u64)> = counts.iter().collect();
    by_count.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
    let kept = if by_count.len() > MOST_SLICES { MOST_SLICES - 1 } else { by_count.len() };
    let mut names: Vec<String> = by_count[..kept].iter().map(|(name, _)| (*name).clone()).collect();
    let place_of: BTreeMap<String, u16> =
        names.iter().enumerate().map(|(place, name)| (name.clone(), place as u16)).collect();
    let places = paths.workload.arrivals.iter().map(|arrival| place_of.get(&name(arrival)).copied());
    let places = places.map(|place| place.unwrap_or(kept as u16)).collect();
    names.push(OTHERS.to_owned());
    names.iter_mut().filter(|name| name.is_empty()).for_each(|name| "not named".clone_into(name));
    (places, names)
}

impl Part {
    /// The figures; `None` of a part that is too small to say anything.
    fn slice(mut self, kind: SliceKind, of: String) -> Option<Slice> {
        let requests = self.latencies[0].len() as u64;
        if requests < FEWEST_REQUESTS {
            return None;
        }
        let n = requests as f64;
        let sums = self.sums.iter().fold([0.0; 2], |sums, own| [sums[0] + own[0], sums[1] + own[1]]);
        let [p99_ms, rival_p99_ms] = self.latencies.each_mut().map(|latencies| p99(latencies));
        Some(Slice {
            kind,
            of,
            requests,
            mean_ms: sums[0] / n,
            rival_mean_ms: sums[1] / n,
            p99_ms,
            rival_p99_ms,
            slo_miss: self.missed[0] as f64 / n,
            rival_slo_miss: self.missed[1] as f64 / n,
            ratio: sums[0] / sums[1],
            interval: jackknife(&self.sums),
        })
    }
}

fn p99(latencies: &mut [f32]) -> f64 {
    let place = (latencies.len() * 99).div_ceil(100).saturating_sub(1);
    f64::from(*latencies.select_nth_unstable_by(place, f32::total_cmp).1)
}

/// 95 % interval of the ratio of two sums over blocks: the delete-one jackknife of its logarithm (Efron and Stein, "The jackknife
/// estimate of variance", 1981). `None` with fewer than five blocks that hold anything.
fn jackknife(blocks: &[[f64; 2]]) -> Option<[f64; 2]> {
    let blocks: Vec<&[f64; 2]> = blocks.iter().filter(|sums| sums.iter().all(|sum| *sum > 0.0)).collect();
    let n = blocks.len();
    if n < 5 {
        return None;
    }
    let all = blocks.iter().fold([0.0; 2], |all, own| [all[0] + own[0], all[1] + own[1]]);
    let without: Vec<f64> = blocks.iter().map(|own| ((all[0] - own[0]) / (all[1] - own[1])).ln()).collect();
    let mean = without.iter().sum::<f64>() / n as f64;
    let squares: f64 = without.iter().map(|ln| (ln - mean).powi(2)).sum();
    let half_width = student_t_975(n - 1) * (squares * (n - 1) as f64 / n as f64).sqrt();
    let ln = (all[0] / all[1]).ln();
    Some([(ln - half_width).exp(), (ln + half_width).exp()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_covers_the_ratio_as_often_as_it_says() {
        let mut state = 5_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let covers = (0..2_000)
            .filter(|_| {
                let blocks: Vec<[f64; 2]> = (0..20)
                    .map(|_| {
                        let common = 5.0 + 10.0 * uniform();
                        [0.9 * common * (0.8 + 0.4 * uniform()), common * (0.8 + 0.4 * uniform())]
                    })
                    .collect();
                jackknife(&blocks).is_some_and(|[low, high]| low <= 0.9 && 0.9 <= high)
            })
            .count();
        assert!((1_850..1_950).contains(&covers), "{covers} of 2,000");
        assert_eq!(jackknife(&[[1.0, 1.0]; 4]), None);
        assert_eq!(jackknife(&[[2.0, 1.0]; 5]), Some([2.0, 2.0]));
    }

    #[test]
    fn hours_and_percentiles_are_the_usual_ones() {
        let at = |text: &str| hour_of(text.parse::<shardwise_types::Timestamp>().unwrap().nanos());
        assert_eq!(at("2026-01-05T00:59:59Z"), 0);
        assert_eq!(at("2026-01-05T23:00:00Z"), 23);
        assert_eq!(at("1969-12-31T23:30:00Z"), 23);
        let mut all: Vec<f32> = (1..=200).map(|ms| ms as f32).collect();
        assert_eq!(p99(&mut all), 198.0);
    }
}
