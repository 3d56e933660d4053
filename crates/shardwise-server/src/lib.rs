//! The sidecar that answers over HTTP, its dashboard, and the reference shard.

mod accepted;
mod agreement;
mod bus;
mod clock;
mod config;
mod control;
mod decider;
mod disk;
mod figures;
mod files;
mod first_view;
pub mod fleet_up;
mod http;
mod journal;
mod keeper;
mod live;
mod memory;
mod metrics;
mod model_log;
mod pending;
mod queue;
mod recent;
mod registry;
pub mod shard;
mod sidecar;
#[cfg(feature = "otel")]
mod traces;

pub use clock::Clock;
pub use config::{Access, Address, ConfigError, Limits, PREFIX, ServeConfig, TracesConfig};
pub use decider::PLACER;
pub use disk::{Disk, DiskFile};
pub use journal::{Journal, JournalLimits, LateRecord, Recovered};
pub use sidecar::{StartError, Started, Summary, serve, serve_on};
