//! Plans beside the optimum, which is found by trying everything.

use super::super::state::{Piece, Source, Taker};
use super::*;
use crate::Part;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shardwise_types::ShardId;

struct Drawn {
    sources: Vec<(f64, f64)>,
    targets: Vec<(ShardId, f64, f64)>,
    parts: Vec<(usize, Part)>,
}

/// Two or three shards with too much, two or three with some room: mostly not enough for all.
fn drawn(seed: u64) -> Drawn {
    let mut rng = StdRng::seed_from_u64(seed);
    let sources: Vec<(f64, f64)> = (0..rng.random_range(1..4))
        .map(|_| (rng.random_range(0.1..2.0), if rng.random_bool(0.4) { rng.random_range(0.1..1.0) } else { 0.0 }))
        .collect();
    let targets = (0..rng.random_range(1..4_usize))
        .map(|at| (ShardId::new(&format!("t{at}")), rng.random_range(0.2..2.0), rng.random_range(200.0..2000.0)))
        .collect();
    let parts = (0..rng.random_range(3..9_usize))
        .map(|at| {
            let part = Part {
                function: format!("f{at}").into(),
                shard: "s".into(),
                cores: rng.random_range(0.05..1.2),
                memory_mb: rng.random_range(50.0..600.0),
                exec_ms: 10.0,
                load_core_minutes: rng.random_range(0.0..0.5),
                allowed: None,
            };
            (rng.random_range(0..sources.len()), part)
        })
        .collect();
    Drawn { sources, targets, parts }
}

fn reduced(drawn: &Drawn) -> Reduced<'_> {
    let sources = drawn.sources.iter().map(|(cpu, memory)| Source { cores: 4.0, cpu: *cpu, memory: *memory });
    let targets = drawn.targets.iter().map(|(id, cores, mb)| Taker { id, cores: *cores, memory_mb: *mb });
    let pieces = drawn.parts.iter().enumerate().map(|(function, (source, part))| Piece {
        part,
        source: *source,
        cpu: part.cores,
        memory: part.memory_mb / 8192.0 * 4.0,
        price: 0.02 + part.load_core_minutes,
        allowed: None,
        function,
    });
    Reduced {
        sources: sources.collect(),
        targets: targets.collect(),
        pieces: pieces.collect(),
        function_moves: vec![1; drawn.parts.len()],
        moves: drawn.parts.len() - 1,
        minutes: 15.0,
    }
}

/// The worth of moves (0 is none, else the target's place and 1), reckoned from scratch; none when they break a rule.
fn worth_of(problem: &Reduced<'_>, to: &[usize]) -> Option<f64> {
    let on = |target: usize, of: &dyn Fn(&Piece<'_>) -> f64| -> f64 {
        problem.pieces.iter().zip(to).filter(|(_, to)| **to == target + 1).map(|(piece, _)| of(piece)).sum()
    };
    let fits = problem.targets.iter().enumerate().all(|(at, target)| {
        on(at, &|piece| piece.part.cores) <= target.cores + 1e-6
            && on(at, &|piece| piece.part.memory_mb) <= target.memory_mb + 1e-6
    });
    let moved = || problem.pieces.iter().zip(to).filter(|(_, to)| **to > 0).map(|(piece, _)| piece);
    let relief = problem.sources.iter().enumerate().map(|(at, source)| {
        let (cpu, memory) = moved()
            .filter(|piece| piece.source == at)
            .fold((0.0, 0.0), |sum, piece| (sum.0 + piece.cpu, sum.1 + piece.memory));
        cpu.min(source.cpu) + memory.min(source.memory)
    });
    let worth = relief.sum::<f64>() * problem.minutes - moved().map(|piece| piece.price).sum::<f64>();
    (fits && moved().count() <= problem.moves).then_some(worth)
}

/// All sets of moves, one by one: the optimum, by nothing that the search knows of.
fn optimum(problem: &Reduced<'_>) -> f64 {
    let (ways, count) = (problem.targets.len() + 1, problem.pieces.len());
    let codes = 0..ways.pow(u32::try_from(count).unwrap());
    let worths = codes.filter_map(|code| {
        let to: Vec<usize> = (0..count).map(|at| code / ways.pow(u32::try_from(at).unwrap()) % ways).collect();
        worth_of(problem, &to)
    });
    worths.fold(0.0, f64::max)
}

/// The worth of what the search found, and that it believes the same.
fn found(problem: &Reduced<'_>, state: &State) -> f64 {
    let to: Vec<usize> = state.to.iter().map(|to| to.map_or(0, |target| target + 1)).collect();
    let worth = worth_of(problem, &to).expect("no rule is broken");
    assert!((worth - state.worth).abs() < 1e-6, "{worth} is taken for {}", state.worth);
    worth
}

#[test]
fn plans_are_within_two_percent_of_the_optimum() {
    let (mut worst, mut lost, mut all) = (0.0_f64, 0.0, 0.0);
    for seed in 7011..7411 {
        let drawn = drawn(seed);
        let problem = reduced(&drawn);
        let best = optimum(&problem);
        let mut search = Search::new(&problem);
        let heuristic = search.heuristic();
        let mut exact = search.branch_and_bound(heuristic.clone());
        search.improve(&mut exact);
        let (heuristic, exact) = (found(&problem, &heuristic), found(&problem, &exact));
        assert!(exact >= best * 0.999 - 1e-6, "seed {seed}: {exact} of {best}");
        lost += best - heuristic;
        all += best;
        worst = worst.max(if best > 0.0 { 1.0 - heuristic / best } else { 0.0 });
    }
    println!("greedy and local search alone lose {:.2} %, {:.2} % at worst", lost / all * 100.0, worst * 100.0);
    assert!(lost <= all * 0.02, "{lost} of {all}");
}
