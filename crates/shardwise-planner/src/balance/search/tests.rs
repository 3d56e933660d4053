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

/// How pieces and room are drawn: of how many, and between what.
struct Shape {
    sources: usize,
    targets: usize,
    pieces: usize,
    /// Cores of a piece.
    cores: (f64, f64),
    /// Memory goes with cores, so that what relieves most takes most of both.
    correlated: bool,
    /// Room as a share of what all pieces take, of cores and of memory.
    room: (f64, f64),
    /// How much too much sources have of what their pieces take.
    excess: f64,
}

/// One of a shape.
fn planted(shape: &Shape, seed: u64) -> Drawn {
    let mut rng = StdRng::seed_from_u64(seed);
    let parts: Vec<(usize, Part)> = (0..shape.pieces)
        .map(|at| {
            let cores = rng.random_range(shape.cores.0..shape.cores.1);
            let memory = if shape.correlated { cores * 500.0 } else { 250.0 };
            let part = part(at, cores, memory * rng.random_range(0.8..1.2), &mut rng);
            (at % shape.sources, part)
        })
        .collect();
    let (cores, memory) = parts.iter().fold((0.0, 0.0), |sum, (_, it)| (sum.0 + it.cores, sum.1 + it.memory_mb));
    let each = |of: f64, rng: &mut StdRng| of / shape.targets as f64 * rng.random_range(0.6..1.4);
    let targets = (0..shape.targets).map(|at| {
        let id = ShardId::new(&format!("t{at:04}"));
        (id, each(cores * shape.room.0, &mut rng), each(memory * shape.room.1, &mut rng))
    });
    let targets = targets.collect();
    let sources = (0..shape.sources).map(|at| {
        let of = parts.iter().filter(|(source, _)| *source == at).map(|(_, part)| part.cores).sum::<f64>();
        (of * shape.excess, if rng.random_bool(0.3) { of * shape.excess * 0.3 } else { 0.0 })
    });
    Drawn { sources: sources.collect(), targets, parts }
}

fn part(at: usize, cores: f64, memory_mb: f64, rng: &mut StdRng) -> Part {
    Part {
        function: format!("f{at:05}").into(),
        shard: "s".into(),
        cores,
        memory_mb,
        exec_ms: 10.0,
        load_core_minutes: rng.random_range(0.0..0.5) * cores,
        allowed: None,
    }
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
        let (heuristic, best_possible) = search.heuristic();
        assert!(
            best_possible >= best - 1e-6,
            "seed {seed}: {best} is possible, {best_possible} is said to be the most"
        );
        let relaxed = search.relaxed.take().unwrap();
        let (mut exact, is_proven) = search.branch_and_bound(heuristic.clone(), &relaxed);
        assert!(is_proven, "seed {seed}");
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

const ALIKE: Shape =
    Shape { sources: 2, targets: 3, pieces: 9, cores: (0.3, 0.6), correlated: false, room: (0.4, 0.6), excess: 0.6 };

#[test]
fn scarce_plans_are_within_two_percent_of_the_optimum_and_know_how_far_at_most() {
    let shapes = [
        Shape { targets: 1, pieces: 12, ..ALIKE },
        Shape { correlated: true, ..ALIKE },
        Shape { cores: (0.05, 1.0), room: (0.3, 0.3), correlated: true, ..ALIKE },
        Shape { cores: (0.05, 1.0), room: (0.6, 0.2), ..ALIKE },
        ALIKE,
    ];
    for (shape, seed) in shapes.iter().flat_map(|shape| (7011..7031).map(move |seed| (shape, seed))) {
        let drawn = planted(shape, seed);
        let problem = reduced(&drawn);
        let (best, plan) = (optimum(&problem), Search::new(&problem).run());
        let mut to = vec![0; problem.pieces.len()];
        plan.moves.iter().for_each(|(piece, target)| to[*piece] = target + 1);
        let worth = worth_of(&problem, &to).expect("no rule is broken");
        assert!(worth >= best * 0.98 - 1e-6, "seed {seed}: {worth} of {best}");
        assert!(best <= worth / (1.0 - plan.gap) + 1e-6, "seed {seed}: {best}, not {worth} and {}", plan.gap);
    }
}

#[test]
fn large_scarce_plans_are_proven_to_be_close() {
    let large = Shape { sources: 20, targets: 20, pieces: 2_000, cores: (0.001, 0.2), ..ALIKE };
    let shapes = [
        ("many small", Shape { room: (0.3, 0.3), ..large }),
        ("one target", Shape { targets: 1, room: (0.2, 0.2), ..large }),
        ("one source", Shape { sources: 1, room: (0.2, 0.3), ..large }),
        ("sizes go together", Shape { correlated: true, room: (0.3, 0.3), ..large }),
        ("memory alone", Shape { room: (2.0, 0.2), ..large }),
        ("cores alone", Shape { room: (0.2, 2.0), ..large }),
    ];
    for (name, shape) in shapes {
        for seed in 7011..7013 {
            let drawn = planted(&shape, seed);
            let gap = Search::new(&reduced(&drawn)).run().gap;
            println!("{name}: at most {:.2} % below the best possible", gap * 100.0);
            assert!(gap <= 0.02, "{name}, seed {seed}: {gap}");
        }
    }
}

#[test]
fn room_that_nothing_fits_in_is_worth_nothing() {
    let mut drawn = planted(&Shape { room: (0.3, 0.3), ..ALIKE }, 7011);
    let most = Search::new(&reduced(&drawn)).heuristic().1;
    // Cores without memory, and memory without cores.
    drawn.targets.extend([("u1".into(), 100.0, 1.0), ("u2".into(), 0.01, 1e6)]);
    let with_them = Search::new(&reduced(&drawn)).heuristic().1;
    assert!((with_them - most).abs() <= 2e-3 * most, "{with_them} was {most}");
}

#[test]
fn exchanges_fill_targets_and_never_make_a_plan_worse() {
    let large = Shape { sources: 20, targets: 20, pieces: 2_000, cores: (0.001, 0.2), room: (0.3, 0.3), ..ALIKE };
    let drawn = planted(&large, 7011);
    let problem = reduced(&drawn);
    let mut search = Search::new(&problem);
    let plain = search.greedy_by(Way::MostForRoom, true);
    search.relaxed = Some(Rc::new(tighten(&problem, plain.worth)));
    let mut state = plain.clone();
    let order = search.hopeful(&state);
    search.exchange_all(&mut state, &order);
    assert!(found(&problem, &state) > plain.worth * 1.01, "{} was {}", state.worth, plain.worth);
    let filled = state.worth;
    search.exchange_all(&mut state, &order);
    assert!(found(&problem, &state) >= filled, "{} was {filled}", state.worth);
}
