//! A simulated fleet: seeded discrete events, the same policies and router state as in production, a known truth.
//!
//! No I/O and no clock: a world, a workload, a seed and policies go in, a history and a summary come out, the same ones
//! every time. Worlds are generated ([`WorldSpec::generate`]) or built around traces ([`world_and_workload`]),
//! real ones or calibrated ones ([`generate_traces`]).
//! See [`simulate`] for an example.

mod answers;
mod audit;
#[cfg(test)]
mod conformance;
mod constants;
mod engine;
mod episodes;
mod estimate;
mod events;
mod fleet;
mod generator;
mod heterogeneity;
#[cfg(test)]
mod lifecycle;
mod load_events;
mod load_result;
mod load_test;
mod market;
mod notices;
mod operator;
mod player;
mod recorder;
mod replay;
mod requests;
mod router;
mod scenario;
mod shard;
mod spike;
mod streams;
mod summary;
mod tables;
#[cfg(test)]
mod theory;
mod truth;
mod validator;
mod workload;
mod world;

pub use answers::{AnswerRecord, CONFIDENCE_BINS, ConfidenceBin, Coverage};
pub use audit::{Bug, Finding};
pub use engine::{SimulateOptions, SimulationError, simulate, simulate_operated, simulate_with};
pub use episodes::{
    Episode, EpisodeOptions, Numbered, duration_of_requests, failing_episodes, simulate_episodes, training_episodes,
    workload_of_requests,
};
pub use estimate::{WorldFit, WorldSurvey};
pub use fleet::{FleetKind, FleetOptions};
pub use generator::{
    Band, Curve, GeneratorOptions, Mark, Reference, Statistic, Traces, bands, curves, generate_inputs, generate_traces,
    measure, references,
};
pub use load_events::{LoadEvent, LoadEventData, LoadMetadata, LoadParameters, LoadScenario, generate_load};
pub use load_result::{
    Bottleneck, BottleneckKind, LatencyPercentiles, Lateness, LoadResult, LoadRun, LoadSample, LoadSecond, NOT_SENT,
    NoSamples, ShardDistribution, ShardLoad,
};
pub use load_test::{LoadTestError, capacity_plan, load_arrivals, simulate_load, with_launch};
pub use market::{generate_bars, records_of_bars};
pub use operator::{Operations, Operator, Order};
pub use player::{NO_QUEUE_BOUND, ORACLES, Player};
pub use recorder::{Choice, KeepAll, NoRecorder, Recorder};
pub use replay::{ReplayInputs, ReplayOptions, world_and_workload};
pub use scenario::Scenario;
pub use spike::Spike;
pub use streams::{KeyedStream, Purpose, stream};
pub use summary::{Counts, LatencyHistogram, RunSummary, TimelineBin};
pub use truth::Foreseen;
pub use validator::{Deviation, Severity, Spot, Validation, Verdict, validate};
pub use workload::{Arrival, ArrivalProcess, Surge, Workload, WorkloadOptions};
pub use world::{
    Antagonist, Discipline, Fault, FaultKind, FunctionSpec, ResourceClass, RouterSpec, ServiceNoise, ShardSpec,
    ShardSpeed, SlownessTrace, SpeedNoise, Timing, WorldError, WorldSpec,
};
