//! What shards measure and publish, and what routers make of it.

mod bus;
mod details;
mod envelope;
mod load;
mod subject;
#[cfg(test)]
mod test_support;
mod view;

pub use bus::{Acknowledge, Bus, BusCounts, BusError, Delivery, Subscription};
pub use details::{BusinessMetrics, BusinessSource, FunctionMetrics, NetworkMetrics, NetworkSource, SystemMetrics};
pub use envelope::{BootId, Envelope, EnvelopeId, LARGEST_ENVELOPE, RefusalKind, Refused, SCHEMA_VERSION};
pub use load::{LoadFormula, OtherResources, Standing};
pub use subject::{ALL_SHARDS, shard_subject, subject_matches};
pub use view::{Distrust, FleetCounts, FleetImage, FleetStatus, FleetView, FleetViewConfig, Ingested, ShardStatus};
