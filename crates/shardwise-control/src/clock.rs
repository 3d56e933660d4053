//! The clock of the drivers; the state machines have none.

use std::sync::Arc;
use std::time::Duration;

use shardwise_types::Timestamp;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The clock of this machine. Those of a fleet must agree to within [`crate::Settings::clock_error_ms`].
pub fn system_clock() -> Clock {
    Arc::new(|| {
        #[expect(clippy::disallowed_methods, reason = "the drivers act at instants of the wall clock")]
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp::from_nanos(since.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)))
    })
}

/// How long to sleep until an instant; at most a second, for the clock may be set meanwhile.
pub(crate) fn until(now: Timestamp, at: Option<Timestamp>) -> Duration {
    let most = Duration::from_secs(1);
    at.map_or(most, |at| {
        let nanos = u64::try_from(at.nanos().saturating_sub(now.nanos())).unwrap_or(0);
        Duration::from_nanos(nanos).min(most)
    })
}
