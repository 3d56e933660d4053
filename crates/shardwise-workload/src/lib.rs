//! Fleets, traffic and bundles of any size, for benchmarks and tests of decisions: what a router meets, without a simulator
//! of what shards do. Left out: whoever decides.

mod forests;
mod stopwatch;
mod traffic;
mod world;

pub use forests::{Row, draft};
pub use stopwatch::{Stopwatch, Time, clock_ns, processor_ns};
pub use traffic::{Traffic, in_flight, typical_rows};
pub use world::World;
