//! A crash's traffic: what some functions are asked for grows many times over within seconds, and falls as the volume of
//! a market's crash does.

use rand::RngExt;
use shardwise_types::MarketBar;

use crate::streams::{Purpose, stream};
use crate::workload::Workload;
use crate::world::{FunctionSpec, WorldError, WorldSpec};

/// Index of the stream among those of scenarios.
const STREAM: u64 = 200;
/// Copies of an arrival come within this of it, in ms.
const SPREAD_MS: f64 = 1_000.0;

/// How traffic grows and falls.
#[derive(Debug, Clone, PartialEq)]
pub struct Spike {
    /// When it begins, in ms since the start of the workload.
    pub from_ms: f64,
    /// How long it takes to reach its height, in ms.
    pub ramp_ms: f64,
    /// Its height: so many times as much.
    pub factor: f64,
    /// What is left of the height, minute by minute from its beginning on, in [0, 1]; nothing after its end.
    pub shape: Vec<f64>,
}

impl Spike {
    /// A spike with the shape of a crash: the minute of the largest volume is its height, and what follows falls as the
    /// volume above the usual one (the median) does.
    ///
    /// # Errors
    /// When there are no bars, or none has a volume above the usual.
    pub fn of_crash(bars: &[MarketBar], from_ms: f64, ramp_ms: f64, factor: f64) -> Result<Self, WorldError> {
        let mut volumes: Vec<f64> = bars.iter().map(|bar| bar.volume).collect();
        let peak = (0..volumes.len()).max_by(|a, b| volumes[*a].total_cmp(&volumes[*b]));
        let after: Vec<f64> = peak.map_or_else(Vec::new, |peak| volumes[peak..].to_vec());
        volumes.sort_by(f64::total_cmp);
        let usual = volumes.get(volumes.len() / 2).copied().unwrap_or_default();
        let height = after.first().map_or(0.0, |most| most - usual);
        if !(height > 0.0 && height.is_finite()) {
            return Err(WorldError::Empty { what: "the crash", remedy: "give bars of a market whose volume rises" });
        }
        let shape = after.iter().map(|volume| ((volume - usual) / height).clamp(0.0, 1.0)).collect();
        Ok(Self { from_ms, ramp_ms, factor, shape })
    }

    /// Rate over the usual one at an instant.
    fn factor_at(&self, at_ms: f64) -> f64 {
        let since_ms = at_ms - self.from_ms;
        if since_ms < 0.0 {
            return 1.0;
        }
        let ramp = (since_ms / self.ramp_ms.max(1.0)).min(1.0);
        let left = self.shape.get((since_ms / 60_000.0) as usize).copied().unwrap_or(0.0);
        1.0 + (self.factor - 1.0) * ramp * left
    }
}

impl Workload {
    /// Adds a spike to what some functions are asked for: copies of their arrivals, within a second of them, as many as
    /// the factor at that instant says; the same seed adds the same ones.
    #[must_use]
    pub fn with_spike(
        mut self,
        world: &WorldSpec,
        seed: u64,
        spike: &Spike,
        wanted: impl Fn(&FunctionSpec) -> bool,
    ) -> Self {
        let mut rng = stream(seed, Purpose::Scenario, STREAM);
        let is_wanted: Vec<bool> = world.functions.iter().map(wanted).collect();
        let mut more = Vec::new();
        for arrival in self.arrivals.iter().filter(|arrival| is_wanted[arrival.function as usize]) {
            let extra = spike.factor_at(arrival.at.millis_since(self.start)) - 1.0;
            let copies = extra.floor() as u32 + u32::from(rng.random::<f64>() < extra.fract());
            for _ in 0..copies {
                let mut copy = arrival.clone();
                copy.at = arrival.at.plus_millis(SPREAD_MS * rng.random::<f64>()).min(self.end);
                copy.request.event_at = copy.at;
                copy.router = rng.random_range(0..world.routers.len()) as u32;
                more.push(copy);
            }
        }
        self.arrivals.append(&mut more);
        self.arrivals.sort_by_key(|arrival| arrival.at);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::start;
    use crate::market::generate_crash;
    use crate::{FleetOptions, WorkloadOptions};

    #[test]
    fn it_grows_tenfold_within_its_ramp_and_falls_as_a_crash_does() {
        let spike = Spike::of_crash(&generate_crash(1), 60_000.0, 30_000.0, 10.0).unwrap();
        assert_eq!(spike.factor_at(59_999.0), 1.0);
        assert!((spike.factor_at(75_000.0) - 5.5).abs() < 0.01, "half way up");
        assert!((spike.factor_at(90_000.0) - 10.0).abs() < 1e-9);
        let later = spike.factor_at(60_000.0 + 30.0 * 60_000.0);
        assert!((1.0..8.0).contains(&later), "{later}");
        assert_eq!(spike.factor_at(1e12), 1.0);
        assert!(Spike::of_crash(&[], 0.0, 1.0, 10.0).is_err());
    }

    #[test]
    fn only_what_is_wanted_is_asked_for_more() {
        let world = WorldSpec::generate(3, &FleetOptions::default());
        let calm = Workload::generate(&world, 4, &WorkloadOptions::new(start(), 120_000.0, 0.3)).unwrap();
        let spike = Spike { from_ms: 60_000.0, ramp_ms: 10_000.0, factor: 10.0, shape: vec![1.0; 10] };
        let is_it = |function: &FunctionSpec| function.protocol.as_str() == "arbitrage";
        let spiked = calm.clone().with_spike(&world, 4, &spike, is_it);
        assert_eq!(spiked, calm.clone().with_spike(&world, 4, &spike, is_it));
        let count = |workload: &Workload, from_ms: f64, wanted: bool| {
            let arrivals = workload.arrivals.iter();
            let is_counted = |arrival: &&crate::Arrival| {
                is_it(&world.functions[arrival.function as usize]) == wanted
                    && arrival.at.millis_since(start()) >= from_ms
            };
            arrivals.filter(is_counted).count()
        };
        assert_eq!(count(&spiked, 0.0, false), count(&calm, 0.0, false));
        let ratio = count(&spiked, 72_000.0, true) as f64 / count(&calm, 72_000.0, true) as f64;
        assert!((9.0..11.0).contains(&ratio), "{ratio}");
        assert!(spiked.arrivals.is_sorted_by_key(|arrival| arrival.at));
        assert!(spiked.arrivals.iter().all(|arrival| arrival.at <= spiked.end));
    }
}
