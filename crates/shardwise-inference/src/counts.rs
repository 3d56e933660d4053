//! How often each decider spoke and each guard fired.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use shardwise_types::{DecidedBy, FallbackReason, Widening};

/// Counts since a placer was made.
#[derive(Debug, Default)]
pub struct DecisionCounts {
    decided_by: [AtomicU64; DecidedBy::ALL.len()],
    fallbacks: [AtomicU64; FallbackReason::ALL.len()],
    widened: [AtomicU64; Widening::ALL.len()],
    refused: AtomicU64,
}

impl DecisionCounts {
    /// Decisions by a decider; a guard that changed the choice is one.
    pub fn decided_by(&self, decider: DecidedBy) -> u64 {
        self.decided_by[decider as usize].load(Relaxed)
    }

    /// Decisions for which a better decider was passed over for this reason.
    pub fn fallbacks(&self, reason: FallbackReason) -> u64 {
        self.fallbacks[reason as usize].load(Relaxed)
    }

    /// Decisions for which the search was widened so far.
    pub fn widened(&self, widening: Widening) -> u64 {
        self.widened[widening as usize].load(Relaxed)
    }

    /// Decisions that found no eligible shard; those that the router may run itself count by [`DecidedBy::Local`] too.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    pub(crate) fn count(&self, decided_by: DecidedBy, fallback: Option<FallbackReason>, widening: Widening) {
        self.decided_by[decided_by as usize].fetch_add(1, Relaxed);
        self.widened[widening as usize].fetch_add(1, Relaxed);
        if let Some(reason) = fallback {
            self.fallbacks[reason as usize].fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn refuse(&self, may_run_locally: bool) {
        self.refused.fetch_add(1, Relaxed);
        if may_run_locally {
            self.decided_by[DecidedBy::Local as usize].fetch_add(1, Relaxed);
        }
    }
}
