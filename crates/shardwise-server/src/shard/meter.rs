//! What a shard knows of itself between two reports: how busy its cores were, what failed, how long requests took.

use std::time::Instant;

use super::clock::millis;

/// Counts since the last report.
pub(super) struct Meter {
    cores: u32,
    since: Instant,
    counted_until: Instant,
    running: u32,
    /// Core time in use since the last report, in ms.
    busy_ms: f64,
    answered: u32,
    failed: u32,
    latency_ms: f64,
}

/// What was measured since the last report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    /// Share of the core time in use, in [0, 1].
    pub(super) cpu: f32,
    /// Requests that run.
    pub(super) running: u32,
    /// Share of requests that failed, in [0, 1].
    pub(super) error_rate: f32,
    /// Mean time on the shard, in ms; 0 without any.
    pub(super) mean_latency_ms: f32,
}

impl Meter {
    pub(super) fn new(cores: u32, now: Instant) -> Self {
        Self {
            cores,
            since: now,
            counted_until: now,
            running: 0,
            busy_ms: 0.0,
            answered: 0,
            failed: 0,
            latency_ms: 0.0,
        }
    }

    pub(super) fn running(&self) -> u32 {
        self.running
    }

    /// A core begins.
    pub(super) fn began(&mut self, now: Instant) {
        self.count_until(now);
        self.running += 1;
    }

    /// A core is free again.
    pub(super) fn ended(&mut self, now: Instant) {
        self.count_until(now);
        self.running -= 1;
    }

    /// A request got its answer after so long on the shard.
    pub(super) fn answered(&mut self, latency_ms: f64, failed: bool) {
        self.answered += 1;
        self.failed += u32::from(failed);
        self.latency_ms += latency_ms;
    }

    /// What was measured since the last report, and begins anew.
    pub(super) fn take(&mut self, now: Instant) -> Measured {
        let measured = self.look(now);
        *self = Self { running: self.running, ..Self::new(self.cores, now) };
        measured
    }

    /// What was measured since the last report.
    pub(super) fn look(&mut self, now: Instant) -> Measured {
        self.count_until(now);
        let core_ms = millis(now.saturating_duration_since(self.since)) * f64::from(self.cores);
        let answers = f64::from(self.answered.max(1));
        Measured {
            cpu: (self.busy_ms / core_ms.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0) as f32,
            running: self.running,
            error_rate: (f64::from(self.failed) / answers) as f32,
            mean_latency_ms: (self.latency_ms / answers) as f32,
        }
    }

    fn count_until(&mut self, now: Instant) {
        self.busy_ms += f64::from(self.running) * millis(now.saturating_duration_since(self.counted_until));
        self.counted_until = self.counted_until.max(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::shard::clock;

    #[test]
    fn a_core_that_is_still_busy_counts_in_both_reports() {
        let start = clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut meter = Meter::new(2, start);
        meter.began(at(500));
        meter.began(at(750));
        let first = meter.take(at(1_000));
        assert!((first.cpu - 0.375).abs() < 1e-6 && first.running == 2, "{first:?}");
        meter.ended(at(1_500));
        meter.answered(1_000.0, false);
        meter.ended(at(1_500));
        meter.answered(500.0, true);
        let second = meter.take(at(2_000));
        assert_eq!(second, Measured { cpu: 0.5, running: 0, error_rate: 0.5, mean_latency_ms: 750.0 });
        assert_eq!(meter.take(at(3_000)), Measured { cpu: 0.0, running: 0, error_rate: 0.0, mean_latency_ms: 0.0 });
    }
}
