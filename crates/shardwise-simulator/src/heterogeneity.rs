//! How unequal shards are: the one table of it. All of it shrinks with [`FleetOptions::heterogeneity`], to identical
//! machines at 0, so that anyone can see what a placer gains from it.
//!
//! Measured are two kinds of virtual machines, a general one (D8s v5) and a burstable one (B8ms), with eleven benchmarks
//! repeated over 16 months (Azure's public data set of VM noise, TUNA, EuroSys 2025). Benchmarks are put into resource
//! classes: *compute* (sysbench CPU, stress-ng CPU, thread creation), *memory* (stress-ng cache, idle memory latency) and
//! *i/o* (Redis GET and SET, PostgreSQL read latency). Slowness is time per operation.
//!
//! | constant | compute | memory | i/o | where it comes from |
//! |---|---|---|---|---|
//! | median slowness of burstable over general | 1.83 | 1.29 | 1.90 | ratio of medians: sysbench CPU; cache; Redis GET 1.96, SET 1.88 |
//! | spread among machines, general, σ of ln | .002 | .02 | .06 | medians of short-lived machines, the noise of single runs taken off |
//! | spread among machines, burstable, σ of ln | .08 | .035 | .11 | the same |
//! | noise over time, general, σ of ln | .001 | .135 | .04 | long-lived machines, run after run |
//! | noise over time, burstable, σ of ln | .008 | .134 | .03 | the same |
//! | function × hardware, burstable, σ of ln | .26 | .26 | .26 | spread of ln slowness over the eleven benchmarks |
//!
//! The data set's runs last about a minute and come hours apart, with an autocorrelation of .01–.2 for what varies most; what
//! happens within a run it cannot say. Here the noise is an AR(1) in steps of 5 s that forgets half in half a minute.
//!
//! Not in the data set, and so taken from elsewhere or chosen:
//!
//! | constant | value | where it comes from |
//! |---|---|---|
//! | clocks of generations | 2.3, 2.6, 2.8 GHz general; 3.4, 3.7 compute; 2.6, 2.8 memory; 2.3 burstable | makers' base clocks of server generations |
//! | effect of the clock | compute and i/o run by the plain ratio to 2.8 GHz, memory does not | by definition of the classes |
//! | function × clock, σ of ln | .3 × abs(ln(clock / 2.8)) | a function feels the clock between not at all and fully: uniform has σ .29 |
//! | mix of hardware | 40 % general, 25 % compute, 20 % memory, 15 % burstable | chosen |
//! | cores | 1 to 4, equally likely | chosen |
//! | antagonists | there 6 s, away 18 s, take 20–70 % | chosen: containers share machines as virtual ones share hosts |

use std::collections::BTreeMap;

use rand::RngExt;
use rand_distr::StandardNormal;
use shardwise_types::HardwareClass;

use crate::fleet::{FleetOptions, pick, tidy};
use crate::streams::KeyedStream;
use crate::world::{Antagonist, ShardSpeed, SpeedNoise};

/// Clock of the general machine that was measured, in GHz.
const MEASURED_GHZ: f64 = 2.8;

/// Hardware in a fleet: class, share, clocks in GHz.
const HARDWARE: [(HardwareClass, f64, &[f64]); 4] = [
    (HardwareClass::General, 0.4, &[2.3, 2.6, 2.8]),
    (HardwareClass::Compute, 0.25, &[3.4, 3.7]),
    (HardwareClass::Memory, 0.2, &[2.6, 2.8]),
    (HardwareClass::Burstable, 0.15, &[2.3]),
];

/// Numbers by resource class: compute, memory, i/o.
type ByResource = [f64; 3];

const BURSTABLE_SLOWNESS: ByResource = [1.83, 1.29, 1.90];
const MACHINE_SIGMA: ByResource = [0.002, 0.02, 0.06];
const BURSTABLE_MACHINE_SIGMA: ByResource = [0.08, 0.035, 0.11];
const NOISE_SIGMA: ByResource = [0.001, 0.135, 0.04];
const BURSTABLE_NOISE_SIGMA: ByResource = [0.008, 0.134, 0.03];
const BURSTABLE_PAIR_SIGMA: f64 = 0.26;
const CLOCK_PAIR_SIGMA: f64 = 0.3;

/// Steps of the noise over time and what one keeps of the one before.
const NOISE_STEP_MS: f64 = 5_000.0;
const NOISE_PERSISTENCE: f64 = 0.9;

const ANTAGONIST: Antagonist = Antagonist { on_ms: 6_000.0, off_ms: 18_000.0, least_share: 0.2, most_share: 0.7 };

/// The table in sentences, for reports.
pub(crate) fn in_words() -> String {
    let shares = HARDWARE.map(|(class, share, _)| format!("{:.0} % {}", share * 100.0, class.as_str())).join(", ");
    let clocks = || HARDWARE.iter().flat_map(|(.., clocks)| clocks.iter().copied());
    let (slowest, fastest) = (clocks().fold(f64::INFINITY, f64::min), clocks().fold(0.0, f64::max));
    let list = |by_resource: ByResource| by_resource.map(|value| value.to_string()).join(", ");
    let Antagonist { on_ms, off_ms, least_share, most_share } = ANTAGONIST;
    format!(
        "Shards have 1 to 4 cores; {shares} machines, clocks from {slowest} to {fastest} GHz. All triples are for \
         compute, memory and i/o. A burstable machine takes {} times as long as a general one at {MEASURED_GHZ} GHz, as \
         measured on virtual machines (TUNA, EuroSys 2025), and functions differ from that with σ {BURSTABLE_PAIR_SIGMA} \
         of ln time. On the others compute and i/o go by the clock, and functions differ from that with σ \
         {CLOCK_PAIR_SIGMA} × |ln(clock / {MEASURED_GHZ})|. Machines of a kind differ with σ {} (burstable {}), and each \
         wavers over time with σ {} (burstable {}). Neighbours take {:.0} to {:.0} % of a machine for {} s, every {} s.",
        list(BURSTABLE_SLOWNESS),
        list(MACHINE_SIGMA),
        list(BURSTABLE_MACHINE_SIGMA),
        list(NOISE_SIGMA),
        list(BURSTABLE_NOISE_SIGMA),
        least_share * 100.0,
        most_share * 100.0,
        on_ms / 1e3,
        (on_ms + off_ms) / 1e3,
    )
}

/// What a shard's machine is like.
pub(crate) struct Machine {
    pub(crate) cores: u8,
    pub(crate) hardware: HardwareClass,
    pub(crate) clock_ghz: f64,
    pub(crate) speed: ShardSpeed,
    pub(crate) noise: SpeedNoise,
    pub(crate) antagonist: Option<Antagonist>,
}

impl Machine {
    /// Draws a machine; `fleet_pairs` is the same for all machines of a fleet.
    pub(crate) fn draw(rng: &mut KeyedStream, options: &FleetOptions, fleet_pairs: u64) -> Self {
        let unequal = f64::from(options.heterogeneity);
        let cores = rng.random_range(1..=4_u8);
        let hardware = pick(rng, &HARDWARE.map(|(class, share, _)| (class, share)));
        let (_, _, clocks) = HARDWARE.into_iter().find(|(class, ..)| *class == hardware).expect("it was drawn there");
        let clock_ghz = clocks[rng.random_range(0..clocks.len())];
        let machine: ByResource = std::array::from_fn(|_| rng.sample(StandardNormal));
        let own_pairs = u64::from(rng.random::<u32>());
        let is_burstable = hardware == HardwareClass::Burstable;
        let (slowness, machine_sigma, noise_sigma) = match is_burstable {
            true => (BURSTABLE_SLOWNESS, BURSTABLE_MACHINE_SIGMA, BURSTABLE_NOISE_SIGMA),
            false => {
                let by_clock = MEASURED_GHZ / clock_ghz;
                ([by_clock, 1.0, by_clock], MACHINE_SIGMA, NOISE_SIGMA)
            }
        };
        let ln_speed = |resource: usize| machine_sigma[resource] * machine[resource] - f64::ln(slowness[resource]);
        // What a function makes of burstable machines is the same on all of them.
        let (pair_seed, pair_sigma) = match is_burstable {
            true => (fleet_pairs, BURSTABLE_PAIR_SIGMA),
            false => (own_pairs, CLOCK_PAIR_SIGMA * (clock_ghz / MEASURED_GHZ).ln().abs()),
        };
        let is_unequal = unequal > 0.0;
        Self {
            cores: if is_unequal { cores } else { 2 },
            hardware: if is_unequal { hardware } else { HardwareClass::General },
            clock_ghz: MEASURED_GHZ * (clock_ghz / MEASURED_GHZ).powf(unequal),
            speed: ShardSpeed {
                base: 1.0,
                by_resource: std::array::from_fn(|resource| tidy((ln_speed(resource) * unequal).exp())),
                specialities: Vec::new(),
                speciality: 1.0,
                pair_seed,
                pair_sigma: tidy(pair_sigma * unequal),
                measured: BTreeMap::new(),
            },
            noise: SpeedNoise {
                sigma: noise_sigma.map(|sigma| tidy(sigma * unequal)),
                step_ms: NOISE_STEP_MS,
                persistence: NOISE_PERSISTENCE,
            },
            antagonist: is_unequal.then(|| Antagonist {
                least_share: tidy(ANTAGONIST.least_share * unequal.min(1.0)),
                most_share: tidy(ANTAGONIST.most_share * unequal.min(1.0)),
                ..ANTAGONIST
            }),
        }
    }
}
