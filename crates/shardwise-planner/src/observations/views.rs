//! What observations show of shards and functions.

use serde::{Deserialize, Serialize};
use shardwise_types::{FunctionId, Protocol, Region, ShardId, ShardReport, ShardShape, Timestamp};

use super::series::{MINUTE_NS, Minutes, Series, SparseCounts};

/// What a shard's series tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Metric {
    /// Share of the cores in use, in [0, 1].
    Cpu,
    /// Share of the memory in use, in [0, 1].
    Memory,
    /// Mean time of a request on the shard, in ms.
    Latency,
    /// Requests that wait, per core.
    QueuePerCore,
    /// Requests that were sent to it, a minute.
    Arrivals,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::Memory, Self::Latency, Self::QueuePerCore, Self::Arrivals];

    /// Its name, as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Latency => "latency",
            Self::QueuePerCore => "queuePerCore",
            Self::Arrivals => "arrivals",
        }
    }

    /// Whether it is a share, which cannot go above 1.
    pub fn is_share(self) -> bool {
        matches!(self, Self::Cpu | Self::Memory)
    }
}

/// A shard as it was observed.
#[derive(Debug, Clone, Copy)]
pub struct ShardView<'a> {
    /// Its name.
    pub id: &'a ShardId,
    /// Its shape and last report; `None` when requests went there and it never reported.
    pub last: Option<&'a (ShardShape, ShardReport)>,
    pub(super) minutes: &'a [Minutes; 5],
    pub(super) since: i64,
    pub(super) until: i64,
}

impl ShardView<'_> {
    /// The finished minutes of a metric.
    pub fn series(&self, metric: Metric) -> Series {
        let minutes = &self.minutes[metric as usize];
        if metric == Metric::Arrivals {
            minutes.counts(self.since, self.until)
        } else {
            minutes.means(self.since, self.until)
        }
    }
}

/// A function as it was observed.
#[derive(Debug, Clone, Copy)]
pub struct FunctionView<'a> {
    /// Its name.
    pub id: &'a FunctionId,
    /// The protocol of its last request.
    pub protocol: &'a Protocol,
    /// The region that its last request was bound to, if any.
    pub residency: Option<&'a Region>,
    /// The largest amount at stake in US dollars; 0 when none was known.
    pub max_amount_usd: f64,
    /// Memory of its requests in MB, the mean.
    pub memory_mb: f64,
    /// What a load adds to an execution, in ms; none until a few cold and warm ones were seen.
    pub cold_cost_ms: Option<f64>,
    pub(super) arrivals: &'a SparseCounts,
    pub(super) first: i64,
    pub(super) until: i64,
}

impl FunctionView<'_> {
    /// Requests a minute, over all finished minutes that are kept.
    pub fn arrivals(&self) -> Series {
        let mut series = zeros(self.first, self.until);
        self.arrivals.add_to(self.first, &mut series.values);
        series
    }
}

pub(super) fn zeros(first: i64, until: i64) -> Series {
    let start = Timestamp::from_nanos(first.saturating_mul(MINUTE_NS));
    Series { start, step_minutes: 1, values: vec![0.0; usize::try_from(until - first).unwrap_or(0)] }
}

/// How many records were not counted, for want of room or of a partner, or because they came late; none of it is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// Of shards or functions beyond the most that are kept.
    pub no_room: u64,
    /// Outcomes of decisions that were not seen, or were given up.
    pub unknown_decision: u64,
    /// Decisions that were given up before their outcome came.
    pub given_up: u64,
    /// Records that came more than a minute after one that was known later; they are refused as well.
    pub too_late: u64,
}
