//! SIGINT and SIGTERM: the first asks the work to stop at a good place, the second ends the process.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use miette::miette;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::progress;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static SIGNAL: AtomicI32 = AtomicI32::new(SIGINT);

/// Listens from now on, on a thread of its own.
pub(crate) fn listen_for_interrupts() {
    let mut signals = match Signals::new([SIGINT, SIGTERM]) {
        Ok(signals) => signals,
        Err(error) => {
            progress::warn(format!("Ctrl-C and SIGTERM end the process at once: {error}"));
            return;
        }
    };
    std::thread::spawn(move || {
        for signal in &mut signals {
            if INTERRUPTED.load(Relaxed) {
                // Not through destructors: other threads are at work in them, or in C++.
                signal_hook::low_level::exit(exit_code_of(signal));
            }
            // The signal first, for whoever sees the flag asks which it was.
            SIGNAL.store(signal, Relaxed);
            INTERRUPTED.store(true, Release);
            progress::warn(
                "interrupted: stopping at the next safe place; what is finished is kept, run the same command to go on",
            );
        }
    });
}

/// What shells answer for a process that a signal ended.
fn exit_code_of(signal: i32) -> i32 {
    128 + signal
}

/// Whether the user, or whoever runs the service, asked to stop.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Acquire)
}

/// The exit code of work that stopped because it was asked to: 130 after SIGINT, 143 after SIGTERM.
pub(crate) fn interrupted_code() -> u8 {
    u8::try_from(exit_code_of(SIGNAL.load(Relaxed))).unwrap_or(1)
}

/// The flag itself, for work that watches it.
pub(crate) fn interrupt_flag() -> &'static AtomicBool {
    &INTERRUPTED
}

/// Fails when the user asked to stop.
pub(crate) fn stop_if_interrupted() -> miette::Result<()> {
    if is_interrupted() { Err(miette!("interrupted; run the same command to go on")) } else { Ok(()) }
}
