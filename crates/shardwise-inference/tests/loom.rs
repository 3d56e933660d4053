//! Every interleaving of a swap with decisions, in small: what the placer relies on is that a bundle is whole before its one
//! pointer is published, and that a decision loads that pointer once. `arc_swap` does the publishing in the placer.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p shardwise-inference --test loom --target-dir target/loom`

#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};
use loom::sync::atomic::{AtomicU64, AtomicUsize};
use loom::thread;

/// A slot with room for the bundles of three versions. The halves of each, as trees and table, are plain memory: relaxed.
struct Slot {
    bundles: [[AtomicU64; 2]; 3],
    current: AtomicUsize,
}

impl Slot {
    fn new() -> Self {
        let bundle = |version: u64| [AtomicU64::new(version), AtomicU64::new(version)];
        Self { bundles: [bundle(1), bundle(0), bundle(0)], current: AtomicUsize::new(0) }
    }

    fn swap(&self, place: usize, publish: Ordering) {
        self.bundles[place].iter().for_each(|half| half.store(place as u64 + 1, Relaxed));
        self.current.store(place, publish);
    }

    fn load(&self) -> &[AtomicU64; 2] {
        &self.bundles[self.current.load(Acquire)]
    }
}

/// Two swaps beside two threads that decide twice each.
fn explore(publish: Ordering, decide: fn(&Slot) -> [u64; 2]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let slot = Arc::new(Slot::new());
        let deciders = [(); 2].map(|()| {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                let mut before = 0;
                for _ in 0..2 {
                    let [trees, table] = decide(&slot);
                    assert_eq!(trees, table, "a mixture");
                    assert!(trees >= before.max(1), "an older version, or one that is not whole");
                    before = trees;
                }
            })
        });
        (1..3).for_each(|place| slot.swap(place, publish));
        deciders.into_iter().for_each(|decider| decider.join().expect("a sound thread"));
    });
}

fn load_once(slot: &Slot) -> [u64; 2] {
    slot.load().each_ref().map(|half| half.load(Relaxed))
}

fn load_for_each_half(slot: &Slot) -> [u64; 2] {
    [0, 1].map(|half| slot.load()[half].load(Relaxed))
}

#[test]
fn a_decision_that_loads_once_sees_one_whole_bundle() {
    explore(Release, load_once);
}

#[test]
#[should_panic(expected = "a mixture")]
fn a_decision_that_loads_twice_would_mix_two() {
    explore(Release, load_for_each_half);
}

#[test]
#[should_panic]
fn a_pointer_published_without_its_bundle_would_show() {
    explore(Relaxed, load_once);
}
