//! A pick takes no memory; alone in its program, for the allocator counts for all threads.

use shardwise_control::{ActiveSplit, AgentState, Configuration, Pick, Splits, TrafficSplit};
use shardwise_types::{FunctionId, ShardId, Timestamp};

#[test]
fn picks_allocate_nothing() {
    let functions: Vec<FunctionId> = (0..100).map(|number| FunctionId::new(&format!("f{number}"))).collect();
    let weights = (0..16).map(|number| (ShardId::new(&format!("shard-{number:02}")), 1.0 / 16.0));
    let since = Timestamp::from_nanos(0);
    let active = ActiveSplit { since, split: TrafficSplit::of(weights).expect("it is right") };
    let splits = functions.iter().map(|function| (function.clone(), active.clone())).collect();
    let applied = Configuration { version: 1, splits, ..Configuration::default() };
    let splits = Splits::of(&AgentState { applied, ..AgentState::default() });
    let mut picked = 0_u32;
    let used = allocation_counter::measure(|| {
        for number in 0..10_000_u32 {
            let function = &functions[number as usize % functions.len()];
            let draw = f64::from(number) / 10_000.0;
            let pick = splits.pick(function, since, draw, |shard| shard.key() % 4 != 0);
            picked += u32::from(matches!(pick, Pick::Shard(_)));
        }
    });
    assert_eq!((used.count_total, picked), (0, 10_000));
}
