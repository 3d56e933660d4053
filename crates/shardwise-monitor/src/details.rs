//! What an envelope tells beside the report: for people and dashboards, not for decisions.

use serde::{Deserialize, Serialize};
use shardwise_types::{Exchange, FunctionId};

/// What the machine, or the part of it that the shard may use, is doing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SystemMetrics {
    /// Share of the disk that holds the work folder in use, in [0, 1]; none when unknown.
    pub disk: Option<f32>,
    /// Bytes a second that disks read for the control group of the process, or for the process where no group counts them or
    /// several shards share a machine; none before the second measurement. What the page cache answers is not read.
    pub disk_read_bytes_per_s: Option<f64>,
    /// Bytes a second that are written to disks, counted in the same way; what a process writes counts when the cache takes it.
    pub disk_written_bytes_per_s: Option<f64>,
    /// Bytes received a second over all networks but the loopback; none before the second measurement.
    pub received_bytes_per_s: Option<f64>,
    /// Bytes sent a second over all networks but the loopback; none before the second measurement.
    pub sent_bytes_per_s: Option<f64>,
    /// Established TCP connections; none when the system does not tell.
    pub connections: Option<u32>,
}

/// What one function did since the envelope before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionMetrics {
    /// The function.
    pub function: FunctionId,
    /// Calls that ended since the boot.
    pub total: u64,
    /// Calls that failed since the boot.
    pub failed: u64,
    /// Calls that run now.
    pub active: u32,
    /// Calls that wait now.
    pub queued: u32,
    /// Calls a second that ended.
    pub throughput_per_s: f64,
    /// Share of them that failed, in [0, 1].
    pub error_rate: f32,
    /// Mean time in ms; 0 when none ended.
    pub mean_ms: f32,
    /// Median time in ms; 0 when none ended.
    pub p50_ms: f32,
    /// 99th percentile of the times in ms; 0 when none ended.
    pub p99_ms: f32,
}

/// What the trades of a shard came to since the envelope before.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BusinessMetrics {
    /// Trades that succeeded.
    pub trades_ok: u64,
    /// Trades that failed.
    pub trades_failed: u64,
    /// Mean value of a trade in US dollars.
    pub mean_value_usd: f64,
    /// Value of all trades in US dollars.
    pub volume_usd: f64,
    /// Profit by volume; negative is a loss.
    pub profitability: f64,
    /// How near the business is to what it can do, in [0, 1]; it counts in the load.
    pub load: f32,
}

/// What a shard sees of the networks between it and others.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkMetrics {
    /// Round-trip time to each exchange, in ms.
    pub exchange_ms: Vec<(Exchange, f32)>,
    /// Time of a message over the bus, in ms; none when unknown.
    pub messaging_ms: Option<f32>,
    /// Bandwidth in Mbit/s; none when unknown.
    pub bandwidth_mbps: Option<f32>,
    /// Share of the connections that work, in [0, 1]; none when unknown.
    pub connection_health: Option<f32>,
}

/// Tells of trades; asked once an envelope.
pub trait BusinessSource: Send + Sync {
    /// The trades since it was asked before.
    fn business(&self) -> BusinessMetrics;
}

/// Tells of networks; asked once an envelope.
pub trait NetworkSource: Send + Sync {
    /// What is known now.
    fn network(&self) -> NetworkMetrics;
}
