//! Decisions whose outcome has not come yet, and those of which it came lately.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use shardwise_features::Ticket;
use shardwise_types::{PlacementRequest, ShardId, Timestamp};

/// Parts with a lock each, so that threads seldom meet.
const PARTS: usize = 32;

/// A decision that waits for its outcome.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) request: PlacementRequest,
    pub(crate) shard: ShardId,
    pub(crate) ticket: Ticket,
    pub(crate) decided_at: Timestamp,
}

/// What is known of a decision whose outcome comes.
pub(crate) enum Claim {
    /// It waited; now it does no longer.
    Waiting(Box<Waiting>),
    /// Its outcome came before.
    Settled,
    /// Nothing: it was given up, or another process decided it.
    Unknown,
}

#[derive(Default)]
struct Part {
    waiting: HashMap<u64, Box<Waiting>>,
    /// Settled since the last turn, and in the turn before.
    settled: [HashSet<u64>; 2],
}

/// All decisions of this process that may still get an outcome, as many as the limit at most.
pub(crate) struct Pending {
    parts: [Mutex<Part>; PARTS],
    limit: usize,
    count: AtomicUsize,
    given_up: AtomicU64,
    turned_away: AtomicU64,
}

impl Pending {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            limit,
            count: AtomicUsize::new(0),
            given_up: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
        }
    }

    /// Whether one more may wait; if not, that is counted.
    pub(crate) fn has_room(&self) -> bool {
        let has_room = self.count.load(Relaxed) < self.limit;
        if !has_room {
            self.turned_away.fetch_add(1, Relaxed);
        }
        has_room
    }

    pub(crate) fn insert(&self, id: u64, waiting: Waiting) {
        if self.part(id).waiting.insert(id, Box::new(waiting)).is_none() {
            self.count.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn claim(&self, id: u64) -> Claim {
        let mut part = self.part(id);
        if let Some(waiting) = part.waiting.remove(&id) {
            part.settled[0].insert(id);
            self.count.fetch_sub(1, Relaxed);
            return Claim::Waiting(waiting);
        }
        if part.settled.iter().any(|settled| settled.contains(&id)) { Claim::Settled } else { Claim::Unknown }
    }

    /// Notes that the outcome of a decision came that does not wait any more; the next one is a duplicate.
    pub(crate) fn settle_late(&self, id: u64) {
        self.part(id).settled[0].insert(id);
    }

    /// Puts back what was claimed and could not be kept, so that it can be claimed again.
    pub(crate) fn put_back(&self, id: u64, waiting: Box<Waiting>) {
        let mut part = self.part(id);
        part.settled[0].remove(&id);
        part.waiting.insert(id, waiting);
        self.count.fetch_add(1, Relaxed);
    }

    /// Gives up what was decided before `oldest`; to be called now and then.
    pub(crate) fn give_up(&self, oldest: Timestamp) {
        for part in &self.parts {
            let mut part = lock(part);
            let before = part.waiting.len();
            part.waiting.retain(|_, waiting| waiting.decided_at >= oldest);
            let given_up = before - part.waiting.len();
            self.count.fetch_sub(given_up, Relaxed);
            self.given_up.fetch_add(given_up as u64, Relaxed);
        }
    }

    /// Forgets what was settled before the last turn.
    pub(crate) fn turn(&self) {
        for part in &self.parts {
            let mut part = lock(part);
            part.settled.swap(0, 1);
            part.settled[0].clear();
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Decisions whose outcome never came.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up.load(Relaxed)
    }

    /// Decisions that were not remembered, because too many waited.
    pub(crate) fn turned_away(&self) -> u64 {
        self.turned_away.load(Relaxed)
    }

    fn part(&self, id: u64) -> MutexGuard<'_, Part> {
        lock(&self.parts[(id % PARTS as u64) as usize])
    }
}

/// Nothing panics while it holds a part; were it so, what it left is whole all the same.
fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
