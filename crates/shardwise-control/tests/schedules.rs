//! Random schedules of loss, delay, duplication, reordering, cuts, crashes, restarts and wrong clocks: whoever is
//! certain serves what the history says, and in the end all do.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

mod world;

use world::{Crash, Cut, MEMBERS, Schedule, Seen, World};

fn spans() -> impl Strategy<Value = (u64, u64)> {
    (0_u64..20_000, 50_u64..6_000)
}

fn schedules() -> impl Strategy<Value = Schedule> {
    let member = 0..MEMBERS;
    let crash = (0..=MEMBERS, spans()).prop_map(|(node, (at_ms, for_ms))| Crash { node, at_ms, for_ms });
    let cut = (member.clone(), spans()).prop_map(|(member, (at_ms, for_ms))| Cut { member, at_ms, for_ms });
    let change = (0_u64..20_000, prop::option::weighted(0.2, member));
    let network = (
        prop_oneof![Just(0.0), 0.0..0.5],
        prop_oneof![Just(0.0), 0.0..0.5],
        prop_oneof![Just(5_u64), 5_u64..2_500],
        prop_oneof![Just(0.0), 0.0..0.05],
    );
    (
        any::<u64>(),
        network,
        prop::collection::vec(crash, 0..6),
        prop::collection::vec(cut, 0..4),
        prop::collection::vec(change, 1..8),
        prop::collection::vec(-100_i64..=100, MEMBERS + 1),
    )
        .prop_map(|(seed, (loss, duplication, delay_ms, refusals), crashes, cuts, changes, clock_errors_ms)| {
            Schedule {
                seed,
                loss,
                duplication,
                delay_ms,
                refusals,
                sudden_deaths: true,
                crashes,
                cuts,
                changes,
                clock_errors_ms,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_is_certain_serves_what_was_decided(schedule in schedules()) {
        let mut world = World::new(schedule);
        world.run();
        world.heal();
    }

    /// Without it, a protocol that withdraws everything would do.
    #[test]
    fn without_faults_all_is_committed(schedule in schedules(), delay_ms in 1_u64..200) {
        let (crashes, cuts) = (Vec::new(), Vec::new());
        let mild = Schedule { loss: 0.0, delay_ms, refusals: 0.0, sudden_deaths: false, crashes, cuts, ..schedule };
        let mut world = World::new(mild);
        world.run();
        world.heal();
        prop_assert!(world.decided().0 > 0 && world.decided().1 == 0, "{:?}", world.decided());
    }
}

/// The claim would also hold where nothing ever happens.
#[test]
fn the_schedules_reach_all_that_can_happen() {
    let mut runner = TestRunner::deterministic();
    let mut seen = Seen::default();
    for _ in 0..300 {
        let mut world = World::new(schedules().new_tree(&mut runner).expect("no filters").current());
        world.run();
        world.heal();
        seen.add(&world.seen);
    }
    println!("{seen:?}");
    for (what, count) in seen.all() {
        assert!(count > 0, "{what} never happened: {seen:?}");
    }
}
