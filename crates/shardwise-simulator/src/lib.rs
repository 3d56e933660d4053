//! A simulated fleet: seeded discrete events, the same policies and router state as in production, a known truth.
//!
//! No I/O and no clock: a world, a workload, a seed and policies go in, a history and a summary come out, the same ones
//! every time. Worlds are generated ([`WorldSpec::generate`]) or built around real traces ([`world_and_workload`]).
//! See [`simulate`] for an example.

#[cfg(test)]
mod conformance;
mod constants;
mod engine;
mod fleet;
mod load_events;
mod load_result;
mod load_test;
mod market;
mod recorder;
mod replay;
mod router;
mod shard;
mod streams;
mod summary;
mod tables;
mod validator;
mod workload;
mod world;

pub use engine::{SimulateOptions, SimulationError, simulate, simulate_with};
pub use fleet::FleetOptions;
pub use load_events::{LoadEvent, LoadEventData, LoadMetadata, LoadParameters, LoadScenario, generate_load};
pub use load_result::{
    Bottleneck, BottleneckKind, LatencyPercentiles, Lateness, LoadResult, LoadRun, LoadSample, NoSamples,
    ShardDistribution, ShardLoad,
};
pub use load_test::{LoadTestError, capacity_plan, load_arrivals, simulate_load, with_launch};
pub use market::{generate_bars, records_of_bars};
pub use recorder::{KeepAll, NoRecorder, Recorder};
pub use replay::{ReplayInputs, ReplayOptions, world_and_workload};
pub use streams::{KeyedStream, Purpose, stream};
pub use summary::{Counts, LatencyHistogram, RunSummary, TimelineBin};
pub use validator::{Deviation, Severity, Spot, Validation, Verdict, validate};
pub use workload::{Arrival, ArrivalProcess, Workload, WorkloadOptions};
pub use world::{
    Antagonist, Fault, FaultKind, FunctionSpec, ResourceClass, RouterSpec, ServiceNoise, ShardSpec, ShardSpeed,
    SlownessTrace, Timing, WorldError, WorldSpec,
};
