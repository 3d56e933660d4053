//! Records that come seldom, on their way to the journal.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Records that may wait.
const CAPACITY: usize = 8_192;

/// They come seldom, hence a plain queue under a lock.
pub(crate) struct Queue<R>(Mutex<VecDeque<R>>);

impl<R> Default for Queue<R> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<R> Queue<R> {
    /// Whether there was room.
    pub(crate) fn add(&self, record: R) -> bool {
        let mut waiting = self.waiting();
        let has_room = waiting.len() < CAPACITY;
        if has_room {
            waiting.push_back(record);
        }
        has_room
    }

    pub(crate) fn take(&self) -> Option<R> {
        self.waiting().pop_front()
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<R>> {
        // Each change is one call, so that it is whole whatever a holder did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
