//! Times one thing after the other, and notes when the kernel took the core away meanwhile.

use std::time::Instant;

/// How long something took.
pub struct Time {
    /// In ns.
    pub ns: u64,
    /// Whether others had the core since the time before.
    pub interrupted: bool,
}

/// Belongs to the thread that reads it.
pub struct Stopwatch {
    started: Instant,
    interruptions: i64,
    times: Vec<Time>,
}

impl Stopwatch {
    /// With room for so many times, so that taking them allocates nothing.
    pub fn new(count: usize) -> Self {
        Self { started: now(), interruptions: interruptions(), times: Vec::with_capacity(count) }
    }

    /// Begins a time.
    pub fn start(&mut self) {
        self.started = now();
    }

    /// Ends it.
    pub fn stop(&mut self) {
        let ns = ns_since(self.started);
        let before = std::mem::replace(&mut self.interruptions, interruptions());
        self.times.push(Time { ns, interrupted: self.interruptions != before });
    }

    /// All times, in the order in which they were taken.
    pub fn into_times(self) -> Vec<Time> {
        self.times
    }
}

/// What reading the clock takes: the median of a thousand.
pub fn clock_ns() -> u64 {
    let mut times: Vec<_> = (0..1_000).map(|_| ns_since(now())).collect();
    times.sort_unstable();
    times[500]
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}

fn ns_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Processor time of this process so far, of all its threads, in ns: what else the machine does lengthens it little, where a
/// clock runs on. 0 where the system does not say.
#[cfg(target_os = "linux")]
pub fn processor_ns() -> u64 {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    let spent = |usage: nix::sys::resource::Usage| (usage.user_time() + usage.system_time()).num_microseconds();
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| spent(usage).unsigned_abs() * 1_000)
}

/// Not known here.
#[cfg(not(target_os = "linux"))]
pub fn processor_ns() -> u64 {
    0
}

/// How often this thread had to leave its core although it had work.
#[cfg(target_os = "linux")]
fn interruptions() -> i64 {
    use nix::sys::resource::{UsageWho, getrusage};
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.involuntary_context_switches())
}

/// Not known here: nothing is left out.
#[cfg(not(target_os = "linux"))]
fn interruptions() -> i64 {
    0
}
