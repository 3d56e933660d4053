//! What the tests of several modules make use of.

use shardwise_types::{HardwareClass, Network, ShardReport, ShardShape, Timestamp};

use crate::envelope::{BootId, Envelope, EnvelopeId};

/// An instant so many seconds after the start of the tests' time.
pub(crate) fn at(seconds: f64) -> Timestamp {
    Timestamp::from_nanos(1_767_614_400_000_000_000).plus_millis(seconds * 1e3)
}

pub(crate) fn shape() -> ShardShape {
    ShardShape {
        region: "us-east".into(),
        cores: 4.0,
        clock_ghz: 3.0,
        memory_mb: 8192.0,
        hardware: HardwareClass::General,
        max_amount_usd: None,
    }
}

pub(crate) fn report() -> ShardReport {
    ShardReport {
        event_at: at(0.0),
        known_at: at(0.0),
        healthy: true,
        cpu: 0.25,
        memory: 0.5,
        queue_len: 2,
        running: 1,
        error_rate: 0.0,
        mean_latency_ms: 12.5,
    }
}

/// Envelope number `sequence` of the shard's boot, measured that many seconds after the start.
pub(crate) fn envelope(shard: &str, sequence: u64) -> Envelope {
    envelope_of(shard, "boot-1", sequence, sequence as f64)
}

pub(crate) fn envelope_of(shard: &str, boot: &str, sequence: u64, seconds: f64) -> Envelope {
    let id = EnvelopeId { shard: shard.into(), boot: BootId::parse(boot).expect("a legal boot id"), sequence };
    let report = ShardReport { event_at: at(seconds), known_at: at(seconds), ..report() };
    Envelope::new(id, sequence * 1000, shape(), report)
}

pub(crate) fn network() -> Network {
    Network {
        regions: vec!["us-east".into()],
        rtt_ms: vec![0.5],
        exchanges: Vec::new(),
        default_region: "us-east".into(),
    }
}
