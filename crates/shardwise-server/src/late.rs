//! Outcomes of decisions that are no longer waited for, on their way to the journal.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use shardwise_types::OutcomeRecord;

/// Outcomes that may wait.
const CAPACITY: usize = 8_192;

/// They come seldom, hence a plain queue under a lock.
#[derive(Default)]
pub(crate) struct LateOutcomes(Mutex<VecDeque<OutcomeRecord>>);

impl LateOutcomes {
    /// Whether there was room.
    pub(crate) fn add(&self, outcome: OutcomeRecord) -> bool {
        let mut waiting = self.waiting();
        let has_room = waiting.len() < CAPACITY;
        if has_room {
            waiting.push_back(outcome);
        }
        has_room
    }

    pub(crate) fn take(&self) -> Option<OutcomeRecord> {
        self.waiting().pop_front()
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<OutcomeRecord>> {
        // Each change is one call, so that it is whole whatever a holder did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
