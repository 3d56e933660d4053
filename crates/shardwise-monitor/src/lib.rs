//! What shards measure and publish, and what routers make of it.

mod backoff;
mod bus;
mod details;
mod embedded;
mod envelope;
mod follower;
mod load;
#[cfg(feature = "nats")]
mod nats;
mod subject;
#[cfg(test)]
mod test_support;
mod view;

pub use bus::{Acknowledge, Bus, BusCounts, BusError, Delivery, Subscription};
pub use details::{BusinessMetrics, BusinessSource, FunctionMetrics, NetworkMetrics, NetworkSource, SystemMetrics};
pub use embedded::EmbeddedBus;
pub use envelope::{BootId, Envelope, EnvelopeId, LARGEST_ENVELOPE, RefusalKind, Refused, SCHEMA_VERSION};
pub use follower::{Clock, Follower, FollowerConfig, FollowerCounts, ReportSink, SinkError};
pub use load::{LoadFormula, OtherResources, Standing};
#[cfg(feature = "nats")]
pub use nats::{NatsBus, NatsConfig};
pub use subject::{ALL_SHARDS, shard_subject, subject_matches};
pub use view::{Distrust, FleetCounts, FleetImage, FleetStatus, FleetView, FleetViewConfig, Ingested, ShardStatus};
