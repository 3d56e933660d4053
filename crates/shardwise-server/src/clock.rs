//! The time of a router: the wall clock's when it started, and from then on a clock that never goes back.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use shardwise_types::Timestamp;

/// The wall clock is followed forward when it is so far ahead, as after a sleep of the machine.
const JUMP: Duration = Duration::from_secs(1);

/// Reads time for a process. What arrives later is never known earlier, whatever is done to the wall clock: when that is set
/// back, this clock goes on; when it leaps ahead, this clock follows.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    wall_start: i64,
    /// Nanoseconds that were leapt.
    ahead: AtomicI64,
    jumps: AtomicU64,
    /// How far the wall clock was ahead the last time, in ns.
    was_ahead: AtomicI64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that shows the wall clock's time now.
    pub fn new() -> Self {
        Self {
            start: instant(),
            wall_start: wall().nanos(),
            ahead: AtomicI64::new(0),
            jumps: AtomicU64::new(0),
            was_ahead: AtomicI64::new(0),
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        let passed = i64::try_from(instant().duration_since(self.start).as_nanos()).unwrap_or(i64::MAX);
        Timestamp::from_nanos(self.wall_start.saturating_add(passed).saturating_add(self.ahead.load(Relaxed)))
    }

    /// Compares with the wall clock, to be called now and then. Returns by how many ms the wall clock is ahead.
    pub fn look_at_the_wall(&self) -> f64 {
        self.compare(wall().nanos())
    }

    /// How often the wall clock was found to have jumped.
    pub fn jumps(&self) -> u64 {
        self.jumps.load(Relaxed)
    }

    /// Lets time pass that does not, for tests of whole days.
    #[cfg(test)]
    pub(crate) fn advance(&self, ms: f64) {
        self.ahead.fetch_add((ms * 1e6) as i64, Relaxed);
    }

    fn compare(&self, wall: i64) -> f64 {
        let ahead = wall.saturating_sub(self.now().nanos());
        let far = JUMP.as_nanos() as u64;
        let was_ahead = self.was_ahead.swap(ahead, Relaxed);
        // One that was set back stays behind: that is one jump, not one at each look.
        if ahead.abs_diff(was_ahead) > far && ahead.unsigned_abs() > far {
            self.jumps.fetch_add(1, Relaxed);
        }
        if ahead > 0 && ahead.unsigned_abs() > far {
            self.ahead.fetch_add(ahead, Relaxed);
            self.was_ahead.store(0, Relaxed);
        }
        ahead as f64 / 1e6
    }
}

/// A monotonic clock, in ns since it was first read.
pub(crate) fn monotonic_ns() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    u64::try_from(FIRST.get_or_init(instant).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "a server answers at real times")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a server answers at real times")]
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_leaps_and_never_goes_back() {
        let clock = Clock::new();
        let before = clock.now();
        assert!(clock.compare(before.nanos() - 3_600_000_000_000) < -3_500_000.0);
        clock.compare(before.nanos() - 3_600_000_000_000);
        assert_eq!(clock.jumps(), 1, "it was set back once, and stays behind");
        assert!(clock.now() >= before, "set back by an hour");
        assert!(clock.now().millis_since(before) < 60_000.0);
        clock.compare(before.nanos() + 3_600_000_000_000);
        assert!(clock.now().millis_since(before) >= 3_600_000.0 - 1.0, "an hour ahead");
        assert_eq!(clock.jumps(), 2);
        clock.compare(clock.now().nanos());
        assert_eq!(clock.jumps(), 2, "no jump is counted twice");
    }
}
