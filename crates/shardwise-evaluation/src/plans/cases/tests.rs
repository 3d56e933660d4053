use shardwise_policies::by_name;
use shardwise_simulator::{GeneratorOptions, generate_inputs, generate_traces};

use super::*;

fn play(world: &CaseWorld, arms: &[&str]) -> CaseResult {
    let make = || by_name("sed_tab_lambda", world.world.timing.runtime()).unwrap();
    world.run_some(arms, &make, &mut |_| {}, &AtomicBool::new(false)).unwrap()
}

fn inputs(functions: usize) -> ReplayInputs {
    generate_inputs(2, &GeneratorOptions { functions, days: 1, market_minutes: 1_440 }).unwrap()
}
