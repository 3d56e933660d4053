//! What shards measure and publish, and what routers make of it.
//!
//! A shard has a [`FunctionRecorder`] and a [`Collector`], whose [`Envelope`] it publishes once a period on a [`Bus`]:
//! [`EmbeddedBus`] within one process, [`NatsBus`] between processes. A router has a [`FleetView`], which a
//! [`Follower`] fills; the follower hands each report to a [`ReportSink`], and acknowledges it once it is stored there.
//! No clock is read here: whoever calls says what time it is.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use shardwise_monitor::*;
//! use shardwise_types::{HardwareClass, Network, ReportRecord, ShardShape, Timestamp};
//!
//! struct History;
//! impl ReportSink for History {
//!     fn append(&self, record: &ReportRecord) -> Result<(), SinkError> {
//!         println!("{} is healthy: {}", record.shard, record.report.healthy);
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now: Timestamp = "2026-01-05T12:00:00Z".parse()?;
//! let bus = EmbeddedBus::default();
//!
//! // A shard: what runs is recorded, what is measured is published.
//! let recorder = Arc::new(FunctionRecorder::default());
//! recorder.arrive(&"price_arbitrage".into()).start().finish(Duration::from_millis(12), true);
//! let shape = ShardShape {
//!     region: "eu".into(),
//!     cores: 2.0,
//!     clock_ghz: 3.0,
//!     memory_mb: 4096.0,
//!     hardware: HardwareClass::General,
//!     max_amount_usd: None,
//! };
//! let config = CollectorConfig {
//!     shard: "shard-a".into(),
//!     boot: BootId::new(now, std::process::id()),
//!     address: Some("http://127.0.0.1:7000".to_owned()),
//!     shape,
//!     formula: LoadFormula::default(),
//!     scope: Scope::default(),
//!     root: "/".into(),
//!     work_folder: ".".into(),
//! };
//! let mut collector = Collector::new(config, recorder)?;
//! let envelope = collector.collect(now, Duration::from_secs(1), true);
//! bus.publish(&envelope.subject()?, &envelope.message_id()?, envelope.to_json()?).await?;
//!
//! // A router: what is delivered is seen, stored and acknowledged.
//! let regions = vec!["eu".into()];
//! let network = Network { regions, rtt_ms: vec![0.5], exchanges: Vec::new(), default_region: "eu".into() };
//! let view = Arc::new(FleetView::new(FleetViewConfig::default(), network, "eu".into())?);
//! let follower = Follower::new(view.clone(), Arc::new(History), Arc::new(move || now), FollowerConfig::default());
//! let seen = async {
//!     while follower.counts().saved == 0 {
//!         tokio::time::sleep(Duration::from_millis(1)).await;
//!     }
//! };
//! follower.run(&bus, "router-1", seen).await?;
//!
//! assert_eq!(view.snapshot().shards[0].id.as_str(), "shard-a");
//! assert_eq!(view.address(&"shard-a".into()).as_deref(), Some("http://127.0.0.1:7000"));
//! assert_eq!(view.counts().new, 1);
//! # Ok(())
//! # }
//! ```

mod backoff;
mod bus;
mod cgroup;
mod collector;
mod details;
mod embedded;
mod envelope;
mod follower;
mod load;
#[cfg(feature = "nats")]
mod nats;
mod recorder;
mod subject;
mod system;
#[cfg(test)]
mod test_support;
mod view;

pub use bus::{Acknowledge, Bus, BusCounts, BusError, Delivery, Subscription};
pub use collector::{Collector, CollectorConfig, CollectorError};
pub use details::{BusinessMetrics, BusinessSource, FunctionMetrics, NetworkMetrics, NetworkSource, SystemMetrics};
pub use embedded::EmbeddedBus;
pub use envelope::{BootId, Envelope, EnvelopeId, LARGEST_ENVELOPE, RefusalKind, Refused, SCHEMA_VERSION};
pub use follower::{Clock, Follower, FollowerConfig, FollowerCounts, ReportSink, SinkError};
pub use load::{LoadFormula, OtherResources, Standing};
#[cfg(feature = "nats")]
pub use nats::{NatsBus, NatsConfig};
pub use recorder::{Activity, FunctionRecorder, RunningCall, WaitingCall};
pub use subject::{ALL_SHARDS, shard_subject, subject_matches};
pub use system::{Scope, SystemError, Usable};
pub use view::{
    Capacity, Distrust, FleetCounts, FleetImage, FleetStatus, FleetView, FleetViewConfig, Ingested, ShardStatus,
};
