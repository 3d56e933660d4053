//! What the user sees: progress on standard error, results on standard output, JSON as its last line.

use std::fmt::Display;
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use miette::miette;
use serde::Serialize;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The first Ctrl-C asks the work to stop at a good place, the second ends the process.
pub(crate) fn listen_for_interrupts() {
    let handler = || {
        if INTERRUPTED.swap(true, Relaxed) {
            std::process::exit(130);
        }
        eprintln!(
            "interrupted: stopping at the next safe place; what is finished is kept, run the same command to go on"
        );
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        eprintln!("warning: Ctrl-C ends the process at once: {error}");
    }
}

/// Whether the user asked to stop.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Relaxed)
}

/// The flag itself, for work that watches it.
pub(crate) fn interrupt_flag() -> &'static AtomicBool {
    &INTERRUPTED
}

/// Fails when the user asked to stop.
pub(crate) fn stop_if_interrupted() -> miette::Result<()> {
    if is_interrupted() { Err(miette!("interrupted; run the same command to go on")) } else { Ok(()) }
}

/// Prints an object as one line of JSON.
pub(crate) fn print_json(value: &impl Serialize) -> miette::Result<()> {
    let line = serde_json::to_string(value).map_err(|error| miette!("cannot write the result as JSON: {error}"))?;
    println!("{line}");
    Ok(())
}

/// A piece of long work: it says what it does, how far it is, and how long it took.
pub(crate) struct Stage {
    bar: ProgressBar,
    name: String,
    started: Instant,
    last_line: Instant,
}

/// Without a terminal a line is printed this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Stage {
    /// Starts the work and says so.
    pub(crate) fn start(name: impl Display) -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.set_style(ProgressStyle::with_template("{spinner} {prefix} {wide_msg}").expect("the template is valid"));
        bar.set_prefix(name.to_string());
        let now = now();
        eprintln!("{name} …");
        Self { bar, name: name.to_string(), started: now, last_line: now }
    }

    /// Says how far it is.
    pub(crate) fn at(&mut self, message: impl Display) {
        if self.bar.is_hidden() {
            if now() - self.last_line > LINE_EVERY {
                self.last_line = now();
                eprintln!("  {}: {message}", self.name);
            }
        } else {
            self.bar.set_message(message.to_string());
            self.bar.tick();
        }
    }

    /// Ends the work with its result.
    pub(crate) fn done(self, result: impl Display) {
        self.bar.finish_and_clear();
        let seconds = (now() - self.started).as_secs_f64();
        eprintln!("{}: {result} ({seconds:.1} s)", self.name);
    }
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
