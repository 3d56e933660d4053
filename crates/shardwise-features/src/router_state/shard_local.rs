//! What a router knows of one shard, read at one instant.

use shardwise_types::Timestamp;

/// What a router knows of one shard from its own traffic.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ShardLocal {
    /// Own requests that have not come back.
    pub in_flight: f64,
    /// The same in cores: a request counts for the share of its time that it is expected to spend on a core.
    pub in_flight_cores: f64,
    /// Predicted execution time of own requests in flight, in ms.
    pub pending_ms: f64,
    /// Sum over own requests in flight of when they were sent, in ns, modulo 2^64: see [`in_flight_age_ms`](Self::in_flight_age_ms).
    pub(super) sent_at: u64,
    /// Requests ever sent.
    pub dispatches: f64,
    /// Cores that other routers' requests are estimated to want.
    pub others: f64,
    /// Moving mean of ln execution ms here, 0 before the first.
    pub exec_ln_ms: f64,
    /// Moving mean of ln(measured / expected) execution: above 0 the shard is slower than it should be.
    pub residual: f64,
    /// Share of failed requests over the last ten seconds or so, as if a hundred good ones had come before.
    pub error_rate: f64,
    /// Moving mean of the time from dispatch to response, in ms.
    pub latency_ms: f64,
    /// Requests on the shard when it last answered.
    pub piggyback_queue: f64,
    /// When it last answered.
    pub piggyback_at: Option<Timestamp>,
    /// Own requests sent since the shard's last report.
    pub since_report: f64,
    /// Responses ever.
    pub responses: f64,
    /// Successful warm executions ever.
    pub executions: f64,
}

impl ShardLocal {
    /// Cores that are wanted on the shard now: own and others'.
    pub fn cores_wanted(&self) -> f64 {
        self.in_flight_cores + self.others
    }

    /// How long own requests have been in flight on average, in ms; `None` when there are none. One that runs far longer
    /// than expected holds up what comes after it, and shows here.
    pub fn in_flight_age_ms(&self, now: Timestamp) -> Option<f64> {
        let n = self.in_flight as u64;
        let sum_ns = now.nanos().cast_unsigned().wrapping_mul(n).wrapping_sub(self.sent_at).cast_signed();
        (n > 0).then(|| (sum_ns as f64 / n as f64 / 1e6).max(0.0))
    }

    /// Expected time in the queue of a shard with so many cores, in ms: what is ahead of a request that arrives now, each
    /// taking as long as those in flight are expected to, or `execution_ms` when none of them is this router's.
    pub fn wait_ms(&self, cores: f64, execution_ms: f64) -> f64 {
        let ahead = (self.cores_wanted() - cores + 1.0).max(0.0) / cores;
        let mean_ms = match self.in_flight > 0.0 {
            true => self.pending_ms / self.in_flight * self.residual.exp(),
            false => execution_ms,
        };
        ahead * mean_ms
    }
}
