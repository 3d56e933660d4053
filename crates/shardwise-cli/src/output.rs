//! What the user sees: progress on standard error, results on standard output, JSON as its last line.

pub(crate) mod log;
pub(crate) mod progress;
mod signals;

use std::sync::OnceLock;
use std::time::Instant;

use miette::miette;
use serde::Serialize;

pub(crate) use self::progress::{Stage, note};
pub(crate) use self::signals::{
    interrupt_flag, interrupted_code, is_interrupted, listen_for_interrupts, stop_if_interrupted,
};

/// Prints an object as one line of JSON.
pub(crate) fn print_json(value: &impl Serialize) -> miette::Result<()> {
    let line = serde_json::to_string(value).map_err(|error| miette!("cannot write the result as JSON: {error}"))?;
    println!("{line}");
    Ok(())
}

/// Nanoseconds since the first call, for timing decisions.
pub(crate) fn clock_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(now().duration_since(*START.get_or_init(now)).as_nanos()).unwrap_or(u64::MAX)
}

/// The wall clock, for what users see; no result depends on it.
#[expect(clippy::disallowed_methods, reason = "the binary may read the clock to show how long work took")]
fn now() -> Instant {
    Instant::now()
}

/// The date and time of now, for the history of aliases.
#[expect(clippy::disallowed_methods, reason = "the registry's history says when an alias was moved")]
pub(crate) fn wall_clock() -> shardwise_types::Timestamp {
    let nanos = jiff::Timestamp::now().as_nanosecond();
    shardwise_types::Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// The most memory that this process held so far; `None` where the system does not say.
pub(crate) fn peak_memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}
