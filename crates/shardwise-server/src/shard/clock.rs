//! The clocks of a reference shard: it measures real work, so it reads them.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

pub(crate) use crate::clock::{instant as now, wall};

/// Processor time of the calling thread so far. Unlike the monotonic clock it stands still while others have the core,
/// so that a shard is as slow as it is told to be on a busy machine, too.
pub(super) fn thread_cpu() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok().map(Duration::from)
}

/// Milliseconds of a duration.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
