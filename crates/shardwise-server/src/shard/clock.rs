//! The clocks of a reference shard: it measures real work, so it reads them.

use std::time::{Duration, Instant, SystemTime};

use nix::time::{ClockId, clock_gettime};
use shardwise_types::Timestamp;

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "a reference shard runs and measures real work")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "reports carry the time at which they were measured")]
pub(crate) fn wall() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX))
}

/// Processor time of the calling thread so far. Unlike the monotonic clock it stands still while others have the core,
/// so that a shard is as slow as it is told to be on a busy machine, too.
pub(super) fn thread_cpu() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok().map(Duration::from)
}

/// Milliseconds of a duration.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
