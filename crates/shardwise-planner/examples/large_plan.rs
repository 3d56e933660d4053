//! How long a plan for 1,000 shards and 20,000 functions takes, and how far from an upper bound it is.
//!
//! `cargo run --release -p shardwise-planner --example large_plan -- [SHARDS] [FUNCTIONS] [SEED]`

use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shardwise_planner::{BalanceProblem, BalanceSettings, BottleneckKind, Expected, Ledger, Part, ShardOutlook};
use shardwise_types::{FunctionId, ShardId, Timestamp};

/// Shards on which a function runs.
const SPREAD: usize = 10;
/// One shard in five runs hot.
const HOT: usize = 5;

fn main() {
    let arguments: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let of = |place: usize, default: usize| arguments.get(place).copied().unwrap_or(default);
    let (shards, functions, seed) = (of(0, 1_000), of(1, 20_000), of(2, 11));
    let (shards, parts) = fleet(shards, functions, seed as u64);
    let ledger = Ledger::default();
    let problem = BalanceProblem { now: Timestamp::default(), shards, parts, ledger: &ledger };
    let settings = BalanceSettings { most_moves_hour: usize::MAX, ..BalanceSettings::default() };
    #[expect(clippy::disallowed_methods, reason = "the example measures time")]
    let begin = Instant::now();
    let plan = problem.solve(&settings).expect("a problem that makes sense");
    let seconds = begin.elapsed().as_secs_f64();
    // Were room no matter and moves free, all overload would go.
    let kinds = [BottleneckKind::CpuExhaustion, BottleneckKind::MemoryExhaustion];
    let of_kind = |kind| plan.bottlenecks.iter().filter(move |bottleneck| bottleneck.kind == kind);
    let excess: f64 = kinds.into_iter().flat_map(of_kind).map(|bottleneck| bottleneck.excess_cores.value).sum();
    let bound = excess * settings.horizon_minutes;
    println!(
        "{} shards, {} parts: {} bottlenecks, {} moves, {:.1} of at most {bound:.1} core-minutes, {seconds:.2} s",
        problem.shards.len(),
        problem.parts.len(),
        plan.bottlenecks.len(),
        plan.actions.len(),
        plan.estimated_benefit.value,
    );
}

fn fleet(shards: usize, functions: usize, seed: u64) -> (Vec<ShardOutlook>, Vec<Part>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut parts: Vec<Part> = vec![];
    for function in 0..functions {
        let first = rng.random_range(0..shards);
        let demand = rng.random_range(0.001..1.0_f64).powi(4);
        for at in 0..SPREAD.min(shards) {
            parts.push(Part {
                function: FunctionId::new(&format!("function-{function:05}")),
                shard: ShardId::new(&format!("shard-{:05}", (first + at * 97) % shards)),
                cores: demand * rng.random_range(0.1..1.0),
                memory_mb: rng.random_range(10.0..200.0),
                exec_ms: rng.random_range(2.0..100.0),
                load_core_minutes: rng.random_range(0.0..0.03),
                allowed: None,
            });
        }
    }
    parts.sort_by(|a, b| (&a.shard, &a.function).cmp(&(&b.shard, &b.function)));
    parts.dedup_by(|a, b| a.shard == b.shard && a.function == b.function);
    let outlooks = parts.chunk_by(|a, b| a.shard == b.shard).enumerate().map(|(at, on_it)| {
        let (cores, memory_mb) =
            on_it.iter().fold((0.0, 0.0), |sum, part| (sum.0 + part.cores, sum.1 + part.memory_mb));
        let hot = at % HOT == 0;
        let (cpu, memory): (f64, f64) = match hot {
            true => (rng.random_range(0.86..1.0), rng.random_range(0.5..1.0)),
            false => (rng.random_range(0.3..0.8), rng.random_range(0.3..0.8)),
        };
        ShardOutlook {
            id: on_it[0].shard.clone(),
            cores: cores / cpu,
            memory_mb: memory_mb / memory,
            accepts: true,
            cpu: Some(Expected::exactly(cpu)),
            memory: Some(Expected::exactly(memory)),
            latency_ms: None,
            queue_per_core: None,
        }
    });
    (outlooks.collect(), parts)
}
