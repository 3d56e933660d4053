//! How long plans for 1,000 shards and 20,000 functions take, and how far from the best possible they can be at most.
//!
//! `cargo run --release -p shardwise-planner --example large_plan -- [SHARDS] [FUNCTIONS] [SEED]`

use std::ops::Range;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shardwise_planner::{BalanceProblem, BalanceSettings, Expected, Ledger, Part, ShardOutlook};
use shardwise_types::{FunctionId, ShardId, Timestamp};

/// How loaded a fleet is. Shards take something up to .75 of their cores and .8 of their memory.
struct Shape {
    name: &'static str,
    /// One shard in so many runs hot.
    hot: usize,
    /// Shares in use on the others.
    cores: Range<f64>,
    memory: Range<f64>,
    /// Of the others, one in so many takes anything.
    takes: usize,
    /// How unequal functions are: the power that an even draw is taken to.
    skew: i32,
    /// Shards on which a function runs.
    spread: usize,
    most_moves: usize,
}

const PLENTY: Shape = Shape {
    name: "plenty",
    hot: 5,
    cores: 0.3..0.8,
    memory: 0.3..0.8,
    takes: 1,
    skew: 4,
    spread: 10,
    most_moves: usize::MAX,
};

fn shapes() -> Vec<Shape> {
    vec![
        PLENTY,
        Shape { name: "cores scarce", hot: 2, cores: 0.66..0.76, ..PLENTY },
        Shape { name: "memory scarce", hot: 2, memory: 0.77..0.81, ..PLENTY },
        Shape { name: "both scarce", hot: 2, cores: 0.66..0.76, memory: 0.77..0.81, ..PLENTY },
        Shape { name: "moves scarce", most_moves: 200, ..PLENTY },
        Shape { name: "all scarce", hot: 2, cores: 0.66..0.76, memory: 0.77..0.81, most_moves: 1_000, ..PLENTY },
        Shape { name: "one shard in fifty takes", takes: 50, ..PLENTY },
        Shape { name: "functions alike", hot: 2, cores: 0.66..0.76, memory: 0.77..0.81, skew: 1, ..PLENTY },
        Shape { name: "functions coarse", hot: 2, cores: 0.5..0.76, memory: 0.5..0.81, skew: 1, spread: 1, ..PLENTY },
    ]
}

fn main() {
    let arguments: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let of = |place: usize, default: usize| arguments.get(place).copied().unwrap_or(default);
    let (shards, functions, seed) = (of(0, 1_000), of(1, 20_000), of(2, 11));
    println!("fleet | parts | bottlenecks | moves | core-minutes | at most below the best possible | time");
    for shape in shapes() {
        let (shards, parts) = fleet(&shape, shards, functions, seed as u64);
        let ledger = Ledger::default();
        let problem = BalanceProblem { now: Timestamp::default(), shards, parts, ledger: &ledger };
        let settings = BalanceSettings { most_moves_hour: shape.most_moves, ..BalanceSettings::default() };
        #[expect(clippy::disallowed_methods, reason = "the example measures time")]
        let begin = Instant::now();
        let plan = problem.solve(&settings).expect("a problem that makes sense");
        println!(
            "{} | {} | {} | {} | {:.1} | {:.2} % | {:.2} s",
            shape.name,
            problem.parts.len(),
            plan.bottlenecks.len(),
            plan.actions.len(),
            plan.estimated_benefit.value,
            plan.proven_gap * 100.0,
            begin.elapsed().as_secs_f64(),
        );
    }
}

fn fleet(shape: &Shape, shards: usize, functions: usize, seed: u64) -> (Vec<ShardOutlook>, Vec<Part>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut parts: Vec<Part> = vec![];
    for function in 0..functions {
        let first = rng.random_range(0..shards);
        let demand = rng.random_range(0.001..1.0_f64).powi(shape.skew);
        for at in 0..shape.spread.min(shards) {
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
        let hot = at % shape.hot == 0;
        let (cpu, memory): (f64, f64) = match hot {
            true => (rng.random_range(0.86..1.0), rng.random_range(0.5..1.0)),
            false => (rng.random_range(shape.cores.clone()), rng.random_range(shape.memory.clone())),
        };
        ShardOutlook {
            id: on_it[0].shard.clone(),
            cores: cores / cpu,
            memory_mb: memory_mb / memory,
            accepts: at % shape.takes == 1 % shape.takes,
            cpu: Some(Expected::exactly(cpu)),
            memory: Some(Expected::exactly(memory)),
            latency_ms: None,
            queue_per_core: None,
        }
    });
    (outlooks.collect(), parts)
}
