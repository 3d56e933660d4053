//! Claims about the placer over hostile contexts: absurd numbers and times, broken fleets, poisoned histories.
//!
//! 200,000 contexts by default, `SHARDWISE_HOSTILE=N` for N; before a release it is 10,000,000. A failure names its world,
//! and `SHARDWISE_HOSTILE_WORLD` replays that one alone.

#[path = "hostile/generate.rs"]
mod generate;
#[path = "hostile/world.rs"]
mod world;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use world::{Seen, Supplies, World};

const CONTEXTS: u64 = 200_000;
/// Contexts that share a router and a placer.
const PER_WORLD: u64 = 4_000;
const PROGRESS_EVERY: u64 = 1_000_000;
const THREADS: usize = 2;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not '{text}'")))
}

/// Past the capture of the test harness, so that progress is seen while it runs.
fn tell(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("stderr can be written");
}

/// Plays so many contexts of a world; a broken claim is reported with what replays it.
fn play(supplies: &Supplies, seed: u64, contexts: u64) -> Seen {
    let mut world = World::new(supplies, seed);
    for index in 0..contexts {
        if catch_unwind(AssertUnwindSafe(|| world.step())).is_err() {
            panic!("broken by context {index}; replay with SHARDWISE_HOSTILE_WORLD={seed}");
        }
    }
    world.seen
}

fn play_all(supplies: &Supplies, contexts: u64) -> Seen {
    let (next, done, seen) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(Seen::default()));
    let worlds = contexts.div_ceil(PER_WORLD);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= worlds {
                return;
            }
            let part = PER_WORLD.min(contexts - seed * PER_WORLD);
            let played = play(supplies, seed, part);
            seen.lock().expect("no thread panics while it adds").add(&played);
            let before = done.fetch_add(part, Relaxed);
            if (before + part) / PROGRESS_EVERY > before / PROGRESS_EVERY {
                tell(&format!("{} million contexts", (before + part) / PROGRESS_EVERY));
            }
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(work))));
    seen.into_inner().expect("all threads are done")
}

/// What is claimed of each context stands in [`World::step`].
#[test]
fn no_context_breaks_a_rule() {
    let supplies = Supplies::new();
    if let Some(seed) = variable("SHARDWISE_HOSTILE_WORLD") {
        tell(&format!("{:?}", play(&supplies, seed, PER_WORLD)));
        return;
    }
    let asked = variable("SHARDWISE_HOSTILE");
    let contexts = asked.unwrap_or(CONTEXTS);
    let seen = play_all(&supplies, contexts);
    if asked.is_some() {
        tell(&format!("{contexts} hostile contexts, none broke a rule: {seen:?}"));
    }
    assert_eq!(seen.placed + seen.refused, contexts);
    if contexts >= CONTEXTS {
        seen.assert_wide();
    }
}

#[test]
fn two_placers_of_one_seed_agree_on_shuffled_fleets() {
    let supplies = Supplies::new();
    for seed in 0..8 {
        World::new(&supplies, seed).agrees_with_its_twin(&World::new(&supplies, seed), 500);
    }
}
