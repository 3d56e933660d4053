//! Numbers in atomic fields: how a router's memory is read and changed by several threads without a lock.

use std::sync::atomic::Ordering::Relaxed;

/// A field; under `--cfg loom` one whose every interleaving is tried.
#[cfg(loom)]
pub use loom::sync::atomic::AtomicU64;
#[cfg(not(loom))]
pub use std::sync::atomic::AtomicU64;

/// The field as a number.
pub fn get(field: &AtomicU64) -> f64 {
    f64::from_bits(field.load(Relaxed))
}

/// Sets the field.
pub fn set(field: &AtomicU64, value: f64) {
    field.store(value.to_bits(), Relaxed);
}

/// Changes the field; lost updates are impossible, the order among threads is open.
pub fn update(field: &AtomicU64, mut change: impl FnMut(f64) -> f64) -> f64 {
    let mut before = field.load(Relaxed);
    loop {
        let after = change(f64::from_bits(before)).to_bits();
        match field.compare_exchange_weak(before, after, Relaxed, Relaxed) {
            Ok(_) => return f64::from_bits(after),
            Err(now) => before = now,
        }
    }
}

/// Moves the field toward a sample by `weight`. When two threads do so at the same instant one sample may be lost: a mean
/// is none the worse for it, and a locked instruction saved.
pub fn smooth(field: &AtomicU64, sample: f64, weight: f64) {
    let old = get(field);
    set(field, old + weight * (sample - old));
}
