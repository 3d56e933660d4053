//! What happened to models in this process: what is served, what was refused, when it was swapped.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use shardwise_inference::WatchEvent;
use shardwise_types::Timestamp;

/// Events that are kept.
const KEPT: usize = 64;
/// A look at a registry that is slow may take so long.
const PATIENCE_MS: f64 = 1_000.0;

/// Something that happened to an alias that is followed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ModelEvent {
    at: Timestamp,
    alias: String,
    what: &'static str,
    version: Option<String>,
    why: Option<String>,
}

/// The log of one process.
#[derive(Default)]
pub(crate) struct ModelLog {
    events: Mutex<VecDeque<ModelEvent>>,
    serving: Mutex<Option<String>>,
    failures: AtomicU64,
    swaps: AtomicU64,
    /// Until when the registry counts as out of reach, in ns: it is looked for again before.
    unreachable_until: AtomicI64,
}

impl ModelLog {
    /// Notes what a watcher did; `serves` for the one whose model decides.
    pub(crate) fn note(&self, at: Timestamp, alias: &str, serves: bool, event: &WatchEvent) {
        let (what, version, why) = match event {
            WatchEvent::Unreachable { error, .. } => ("unreachable", None, Some(error.to_string())),
            WatchEvent::Unnamed => ("unnamed", None, None),
            WatchEvent::Loading { version } => ("loading", Some(version.clone()), None),
            WatchEvent::Refused { version, error, .. } => ("refused", Some(version.clone()), Some(error.to_string())),
            WatchEvent::Swapped { to, .. } => ("swapped", Some(to.clone()), None),
        };
        if let WatchEvent::Unreachable { retry_after, .. } = event {
            let until = at.plus_millis(2e3 * retry_after.as_secs_f64() + PATIENCE_MS);
            self.unreachable_until.fetch_max(until.nanos(), Relaxed);
        }
        match what {
            "unreachable" | "refused" => {
                self.failures.fetch_add(1, Relaxed);
                tracing::warn!(alias, version, why, "the model was not changed");
            }
            "swapped" => {
                self.swaps.fetch_add(1, Relaxed);
                tracing::info!(alias, version, "another model decides or looks on");
                if serves {
                    self.serving.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&version);
                }
            }
            _ => {}
        }
        let event = ModelEvent { at, alias: alias.to_owned(), what, version, why };
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == KEPT {
            events.pop_back();
        }
        events.push_front(event);
    }

    /// The version that decides.
    pub(crate) fn serving(&self) -> Option<String> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last events, the last one first.
    pub(crate) fn events(&self) -> Vec<ModelEvent> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    pub(crate) fn swaps(&self) -> u64 {
        self.swaps.load(Relaxed)
    }

    /// Whether the registry could not be reached of late.
    pub(crate) fn is_unreachable(&self, now: Timestamp) -> bool {
        now.nanos() < self.unreachable_until.load(Relaxed)
    }
}
