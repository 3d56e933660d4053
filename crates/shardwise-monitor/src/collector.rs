//! Composes what a shard publishes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shardwise_types::{InvalidInput, ShardId, ShardReport, ShardShape, Timestamp};

use crate::details::{BusinessSource, NetworkSource};
use crate::envelope::{BootId, Envelope, EnvelopeId};
use crate::load::{LoadFormula, OtherResources, Standing};
use crate::recorder::{Activity, FunctionRecorder};
use crate::subject::shard_subject;
use crate::system::{Allotment, Scope, SystemError, SystemProbe};

/// Calls that must have ended before their errors can make a shard sick.
const ENOUGH_CALLS: u64 = 20;
/// Share of failed calls above which a shard calls itself sick.
const SICK_ERROR_RATE: f32 = 0.5;

/// Who publishes, and what it measures.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectorConfig {
    /// The shard.
    pub shard: ShardId,
    /// This life of its process.
    pub boot: BootId,
    /// URL where it answers; none when it takes no requests from outside.
    pub address: Option<String>,
    /// What does not change about it.
    pub shape: ShardShape,
    /// How its overall load is made.
    pub formula: LoadFormula,
    /// Whose CPU time and memory it reports.
    pub scope: Scope,
    /// Where `proc` and `sys` are: `/`, but for tests.
    pub root: PathBuf,
    /// The folder whose disk counts.
    pub work_folder: PathBuf,
}

/// A collector that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// An id under which nothing can be published.
    #[error(transparent)]
    Input(#[from] InvalidInput),
    /// The system does not tell what it is doing.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// Measures a shard, once a period.
pub struct Collector {
    config: CollectorConfig,
    recorder: Arc<FunctionRecorder>,
    probe: SystemProbe,
    business: Option<Arc<dyn BusinessSource>>,
    network: Option<Arc<dyn NetworkSource>>,
    sequence: u64,
    before: Duration,
}

impl Collector {
    /// A collector of what the machine does and the recorder saw.
    ///
    /// # Errors
    /// A shard id that makes no subject, or a system that cannot be measured.
    pub fn new(config: CollectorConfig, recorder: Arc<FunctionRecorder>) -> Result<Self, CollectorError> {
        shard_subject(&config.shard)?;
        let allotment = match config.scope {
            Scope::Machine => None,
            Scope::Process => Some(Allotment { cores: config.shape.cores, memory_mb: config.shape.memory_mb }),
        };
        let probe = SystemProbe::new(config.root.clone(), config.work_folder.clone(), allotment)?;
        Ok(Self { config, recorder, probe, business: None, network: None, sequence: 0, before: Duration::ZERO })
    }

    /// Adds the trades.
    #[must_use]
    pub fn with_business(mut self, source: Arc<dyn BusinessSource>) -> Self {
        self.business = Some(source);
        self
    }

    /// Adds the networks.
    #[must_use]
    pub fn with_network(mut self, source: Arc<dyn NetworkSource>) -> Self {
        self.network = Some(source);
        self
    }

    /// Measures everything, which takes some ms and blocks; `since_boot` is read from a clock that never jumps. The
    /// shard calls itself healthy when it `accepts` requests and, of at least 20 calls since the envelope before, not
    /// more than half failed.
    pub fn collect(&mut self, now: Timestamp, since_boot: Duration, accepts: bool) -> Envelope {
        let measured = self.probe.measure(since_boot);
        let activity = self.recorder.take(since_boot.saturating_sub(self.before));
        self.before = since_boot;
        let business = self.business.as_ref().map(|source| source.business());
        let report = ShardReport {
            event_at: now,
            known_at: now,
            healthy: accepts && !is_sick(&activity),
            cpu: measured.cpu,
            memory: measured.memory,
            queue_len: activity.queued,
            running: activity.active,
            error_rate: activity.error_rate,
            mean_latency_ms: activity.mean_ms,
        };
        let share = |value: f32| if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
        let other = OtherResources {
            disk: measured.system.disk.unwrap_or(0.0),
            business: business.as_ref().map_or(0.0, |business| share(business.load)),
        };
        let standing = Standing::of(self.config.formula, &report, self.config.shape.cores, other);
        let envelope = Envelope::new(self.next_id(), millis(since_boot), self.config.shape.clone(), report);
        Envelope {
            address: self.config.address.clone(),
            standing,
            system: measured.system,
            functions: activity.functions,
            business,
            network: self.network.as_ref().map(|source| source.network()),
            ..envelope
        }
    }

    fn next_id(&mut self) -> EnvelopeId {
        let sequence = self.sequence;
        self.sequence += 1;
        EnvelopeId { shard: self.config.shard.clone(), boot: self.config.boot.clone(), sequence }
    }
}

fn is_sick(activity: &Activity) -> bool {
    activity.ended >= ENOUGH_CALLS && activity.error_rate > SICK_ERROR_RATE
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::details::{BusinessMetrics, NetworkMetrics};
    use crate::test_support::{at, network, shape};
    use crate::view::{FleetView, FleetViewConfig, Ingested};

    struct Trades;

    impl BusinessSource for Trades {
        fn business(&self) -> BusinessMetrics {
            BusinessMetrics { trades_ok: 5, load: 0.95, ..BusinessMetrics::default() }
        }
    }

    struct Links;

    impl NetworkSource for Links {
        fn network(&self) -> NetworkMetrics {
            NetworkMetrics { exchange_ms: vec![("kraken".into(), 2.5)], ..NetworkMetrics::default() }
        }
    }

    fn collector(shard: &str) -> Result<(Collector, Arc<FunctionRecorder>), CollectorError> {
        let recorder = Arc::new(FunctionRecorder::default());
        let config = CollectorConfig {
            shard: shard.into(),
            boot: BootId::new(at(0.0), 1),
            address: Some("http://127.0.0.1:7000".to_owned()),
            shape: shape(),
            formula: LoadFormula::default(),
            scope: Scope::Process,
            root: "/".into(),
            work_folder: std::env::temp_dir(),
        };
        Ok((Collector::new(config, recorder.clone())?, recorder))
    }

    #[test]
    fn an_envelope_holds_all_that_was_measured_and_routers_believe_it() {
        let (collector, recorder) = collector("a").unwrap();
        let mut collector = collector.with_business(Arc::new(Trades)).with_network(Arc::new(Links));
        recorder.arrive(&"price".into()).start().finish(Duration::from_millis(4), true);
        let _waits = recorder.arrive(&"price".into());
        let first = collector.collect(at(1.0), Duration::from_secs(1), true);
        let second = collector.collect(at(2.0), Duration::from_secs(2), true);
        assert_eq!((first.sequence, second.sequence, second.since_boot_ms), (0, 1, 2000));
        assert_eq!((first.report.queue_len, first.report.mean_latency_ms), (1, 4.0));
        assert_eq!((first.functions[0].throughput_per_s, second.functions[0].throughput_per_s), (1.0, 0.0));
        assert!(first.standing.load >= 0.95, "trades count in the load");
        assert_eq!(first.business.as_ref().map(|business| business.trades_ok), Some(5));
        assert_eq!(first.network.as_ref().map(|network| network.exchange_ms.len()), Some(1));

        let view = FleetView::new(FleetViewConfig::default(), network(), "us-east".into()).unwrap();
        for envelope in [first, second] {
            let read = Envelope::from_json(&envelope.subject().unwrap(), &envelope.to_json().unwrap()).unwrap();
            assert_eq!(read, envelope);
            assert!(matches!(view.ingest(&read, at(2.0)), Ingested::New(_)));
        }
    }

    #[test]
    fn a_shard_is_sick_when_it_says_so_or_when_most_calls_fail() {
        let (mut collector, recorder) = collector("a").unwrap();
        let mut healthy = |failures: u64, accepts: bool| {
            for call in 0..ENOUGH_CALLS {
                recorder.arrive(&"f".into()).start().finish(Duration::from_millis(1), call >= failures);
            }
            collector.collect(at(0.0), Duration::from_secs(1), accepts).report.healthy
        };
        assert!(healthy(0, true) && healthy(10, true));
        assert!(!healthy(11, true) && !healthy(0, false));
    }

    #[test]
    fn an_id_that_cannot_be_published_is_refused_at_once() {
        assert!(matches!(collector(""), Err(CollectorError::Input(_))));
    }
}
