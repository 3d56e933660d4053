//! The last decisions, for people who look: a sample of at most twenty a second.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use shardwise_policies::Decision;
use shardwise_types::{DecidedBy, FallbackReason, FunctionId, PlacementRequest, ShardId, ShardPrediction, Timestamp};

/// Decisions that are kept.
const KEPT: usize = 64;
/// Nanoseconds between two of them, at least.
const GAP_NS: i64 = 50_000_000;

/// A decision as people read it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Noted {
    decided_at: Timestamp,
    decision_id: String,
    function: FunctionId,
    shard: ShardId,
    decided_by: DecidedBy,
    fallback_reason: Option<FallbackReason>,
    expected_ms: Option<f64>,
    confidence: Option<f64>,
    reasoning: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Recent {
    next_at: AtomicI64,
    kept: Mutex<VecDeque<Noted>>,
}

impl Recent {
    /// Keeps a decision unless one was kept a moment ago.
    pub(crate) fn note(
        &self,
        decided_at: Timestamp,
        decision_id: u64,
        request: &PlacementRequest,
        shard: &ShardId,
        decision: &Decision,
        prediction: Option<&ShardPrediction>,
    ) {
        let (now, next_at) = (decided_at.nanos(), self.next_at.load(Relaxed));
        if now < next_at || self.next_at.compare_exchange(next_at, now + GAP_NS, Relaxed, Relaxed).is_err() {
            return;
        }
        let noted = Noted {
            decided_at,
            decision_id: decision_id.to_string(),
            function: request.function.clone(),
            shard: shard.clone(),
            decided_by: decision.decided_by,
            fallback_reason: decision.fallback_reason,
            expected_ms: decision.predicted_ms,
            confidence: prediction.map(|prediction| prediction.confidence.value()),
            reasoning: prediction.map(ShardPrediction::reasoning).unwrap_or_default(),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_back();
        }
        kept.push_front(noted);
    }

    /// The latest `most` of them, the last one first.
    pub(crate) fn latest(&self, most: usize) -> Vec<Noted> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().take(most).cloned().collect()
    }
}
