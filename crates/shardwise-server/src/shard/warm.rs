//! Which functions are loaded: by memory and by time, the least recently used go first. Those that are to be kept stay.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shardwise_types::FunctionId;

use super::functions::Table;

/// A function that is loaded.
struct Loaded {
    function: FunctionId,
    table: Arc<Table>,
    memory_mb: f32,
    used: Instant,
}

/// The loaded functions of a shard, the least recently used first.
pub(super) struct WarmSet {
    loaded: Vec<Loaded>,
    memory_mb: f32,
    /// Functions that may be loaded at a time.
    most: usize,
    ttl: Duration,
    /// Functions that stay, once they are loaded.
    kept: BTreeSet<FunctionId>,
}

impl WarmSet {
    pub(super) fn new(memory_mb: f32, ttl: Duration) -> Self {
        Self { loaded: Vec::new(), memory_mb, most: usize::MAX, ttl, kept: BTreeSet::new() }
    }

    /// What a loaded function holds, and from now on it is the most recently used; `None` when it must be loaded.
    pub(super) fn touch(&mut self, function: &FunctionId, now: Instant) -> Option<Arc<Table>> {
        self.expire(now);
        let place = self.loaded.iter().position(|loaded| loaded.function == *function)?;
        let mut loaded = self.loaded.remove(place);
        loaded.used = now;
        let table = Arc::clone(&loaded.table);
        self.loaded.push(loaded);
        Some(table)
    }

    /// Takes in what was just loaded; others make room.
    pub(super) fn insert(&mut self, function: &FunctionId, table: Arc<Table>, memory_mb: f32, now: Instant) {
        self.loaded.retain(|loaded| loaded.function != *function);
        while self.loaded.len() >= self.most.max(1) && self.unload_one() {}
        while self.used_mb() + memory_mb > self.memory_mb && self.unload_one() {}
        self.loaded.push(Loaded { function: function.clone(), table, memory_mb, used: now });
    }

    /// Share of the memory in use, in [0, 1].
    pub(super) fn share(&mut self, now: Instant) -> f32 {
        self.expire(now);
        (self.used_mb() / self.memory_mb).clamp(0.0, 1.0)
    }

    /// Changes the memory that there is, and how many functions may be loaded at a time; who no longer fits makes room, the least
    /// recently used first.
    pub(super) fn limit(&mut self, memory_mb: f32, most: usize) {
        (self.memory_mb, self.most) = (memory_mb, most);
        while (self.used_mb() > self.memory_mb || self.loaded.len() > self.most) && self.unload_one() {}
    }

    /// From now on these stay, once they are loaded, and others do not.
    pub(super) fn keep(&mut self, functions: BTreeSet<FunctionId>) {
        self.kept = functions;
    }

    /// Unloads the least recently used, one that is to be kept only when there is no other. Returns whether there was any.
    fn unload_one(&mut self) -> bool {
        let place = self.loaded.iter().position(|loaded| !self.kept.contains(&loaded.function)).unwrap_or(0);
        let is_there = place < self.loaded.len();
        if is_there {
            self.loaded.remove(place);
        }
        is_there
    }

    /// Functions that are loaded.
    pub(super) fn len(&self) -> usize {
        self.loaded.len()
    }

    /// Memory that they take, in MB.
    pub(super) fn used_mb(&self) -> f32 {
        // From 0 on: the sum of nothing would be -0.
        self.loaded.iter().fold(0.0, |sum, loaded| sum + loaded.memory_mb)
    }

    fn expire(&mut self, now: Instant) {
        let (ttl, kept) = (self.ttl, &self.kept);
        self.loaded
            .retain(|loaded| kept.contains(&loaded.function) || now.saturating_duration_since(loaded.used) < ttl);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::clock;

    fn insert(warm: &mut WarmSet, name: &str, now: Instant) {
        warm.insert(&name.into(), Arc::new(Table::empty()), 40.0, now);
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let (mut warm, now) = (WarmSet::new(100.0, Duration::from_secs(1)), clock::now());
        insert(&mut warm, "a", now);
        insert(&mut warm, "b", now);
        assert!(warm.touch(&"a".into(), now).is_some());
        insert(&mut warm, "c", now);
        assert!(warm.touch(&"b".into(), now).is_none(), "it was used before the others");
        assert!(warm.touch(&"a".into(), now).is_some() && warm.touch(&"c".into(), now).is_some());
        assert_eq!(warm.share(now), 0.8);
    }

    #[test]
    fn what_is_kept_neither_expires_nor_makes_room_while_others_can() {
        let (mut warm, now) = (WarmSet::new(100.0, Duration::from_secs(1)), clock::now());
        warm.keep(["a".into()].into());
        insert(&mut warm, "a", now);
        insert(&mut warm, "b", now);
        insert(&mut warm, "c", now);
        let later = now + Duration::from_millis(900);
        assert!(warm.touch(&"b".into(), later).is_none(), "it made room");
        assert!(warm.touch(&"c".into(), later).is_some());
        assert!(warm.touch(&"a".into(), now + Duration::from_secs(60)).is_some());
        warm.keep(BTreeSet::new());
        assert!(warm.touch(&"a".into(), now + Duration::from_secs(120)).is_none());
    }

    #[test]
    fn what_is_not_used_in_time_is_gone() {
        let (mut warm, now) = (WarmSet::new(100.0, Duration::from_secs(1)), clock::now());
        insert(&mut warm, "a", now);
        assert!(warm.touch(&"a".into(), now + Duration::from_millis(900)).is_some());
        assert!(warm.touch(&"a".into(), now + Duration::from_millis(1_800)).is_some(), "using it keeps it");
        assert!(warm.touch(&"a".into(), now + Duration::from_millis(2_900)).is_none());
        assert_eq!(warm.share(now + Duration::from_secs(3)), 0.0);
    }
}
