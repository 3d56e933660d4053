//! `shardwise bench decide`: whole decisions, with all heads and guards, one by one.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;

use allocation_counter::measure;
use miette::{IntoDiagnostic, miette};
use serde::Serialize;
use shardwise_features::RouterState;
use shardwise_inference::Placer;
use shardwise_policies::Observed;
use shardwise_workload::{Stopwatch, Traffic, World, clock_ns, draft, typical_rows};

use crate::arguments::BenchDecideArguments;
use crate::output::{self, Stage};

const MOST_SHARDS: u64 = 10_000;
const MOST_THREADS: u64 = 256;
/// Decisions of each thread before any is timed.
const WARM_UP: usize = 3_000;
/// Rounds, each of so many decisions of each thread.
const ROUNDS: usize = 20;
const PER_ROUND: usize = 1_500;
/// Decisions whose allocations are counted, after those that are timed.
const COUNTED: usize = 2_000;

#[derive(Serialize)]
struct Results {
    clock_ns: u64,
    results: Vec<Row>,
}

/// What was measured of one number of candidates and threads.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) candidates: u64,
    threads: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// The same without decisions during which the kernel gave the core to others.
    p99_on_core_us: f64,
    /// Allocations in 2,000 decisions.
    allocations: u64,
}

pub(crate) fn decide(options: &BenchDecideArguments, json: bool) -> miette::Result<()> {
    let of = |list: &[u64], most: u64, what: &str| match list.iter().find(|n| !(1..=most).contains(*n)) {
        Some(wrong) => Err(miette!(help = format!("give 1 to {most}"), "{wrong} {what} cannot be measured")),
        None => Ok(()),
    };
    of(&options.candidates.0, MOST_SHARDS, "candidates")?;
    of(&options.threads.0, MOST_THREADS, "threads")?;
    let mut results = Vec::new();
    for &candidates in &options.candidates.0 {
        let world = Arc::new(World::new(candidates as usize));
        let bundle = draft(&typical_rows(&world), (*world.table).clone()).bundle().into_diagnostic()?;
        let bundle = Arc::new(bundle);
        for &threads in &options.threads.0 {
            let mut stage = Stage::start(format!("{candidates} candidates, {threads} thread(s)"));
            let placer = Placer::with_model(Arc::clone(&bundle));
            let row = measured(&world, &placer, threads, &mut stage)?;
            stage.done(format!("p50 {:.2} µs, p99 {:.2} µs", row.p50_us, row.p99_us));
            results.push(row);
        }
    }
    let results = Results { clock_ns: clock_ns(), results };
    if json {
        return output::print_json(&results);
    }
    println!(
        "{:>10}{:>9}{:>10}{:>10}{:>17}{:>14}",
        "candidates", "threads", "p50 µs", "p99 µs", "p99 on core µs", "allocations"
    );
    for row in &results.results {
        let Row { candidates, threads, p50_us, p99_us, p99_on_core_us, allocations } = row;
        println!("{candidates:>10}{threads:>9}{p50_us:>10.2}{p99_us:>10.2}{p99_on_core_us:>17.2}{allocations:>14}");
    }
    println!("every time includes reading the clock, {} ns", results.clock_ns);
    Ok(())
}

/// The threads share placer and router state, as a router's do.
pub(crate) fn measured(world: &Arc<World>, placer: &Placer, threads: u64, stage: &mut Stage) -> miette::Result<Row> {
    let router = Arc::new(RouterState::new());
    let lane = |thread: u64| {
        let mut traffic = Traffic::new(world, &router, thread as usize, threads as usize);
        traffic.table = Some(Arc::clone(&world.table));
        traffic
    };
    let mut lanes: Vec<Traffic> = (0..threads).map(lane).collect();
    in_step(&mut lanes, |traffic| place(traffic, placer, WARM_UP, &mut Stopwatch::new(WARM_UP)));
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        output::stop_if_interrupted()?;
        stage.at(format!("round {} of {ROUNDS}", round + 1));
        times.extend(in_step(&mut lanes, |traffic| {
            let mut watch = Stopwatch::new(PER_ROUND);
            place(traffic, placer, PER_ROUND, &mut watch);
            watch.into_times()
        }));
    }
    let allocations = in_step(&mut lanes, |traffic| count_allocations(traffic, placer)).iter().sum();
    let times: Vec<_> = times.into_iter().flatten().collect();
    let all = sorted(times.iter().map(|time| time.ns));
    let on_core = sorted(times.iter().filter(|time| !time.interrupted).map(|time| time.ns));
    Ok(Row {
        candidates: world.fleet.shards.len() as u64,
        threads,
        p50_us: quantile_us(&all, 0.5),
        p99_us: quantile_us(&all, 0.99),
        p99_on_core_us: quantile_us(&on_core, 0.99),
        allocations,
    })
}

/// Lets all lanes work at the same time.
fn in_step<T: Send>(lanes: &mut [Traffic], work: impl Fn(&mut Traffic) -> T + Sync) -> Vec<T> {
    let (start, work) = (Barrier::new(lanes.len()), &work);
    thread::scope(|scope| {
        let begin = |traffic| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                work(traffic)
            })
        };
        let running: Vec<_> = lanes.iter_mut().map(begin).collect();
        running.into_iter().map(|lane| lane.join().expect("no lane panics")).collect()
    })
}

/// Places so many requests and times each decision; dispatch, response and learning are not timed.
fn place(traffic: &mut Traffic, placer: &Placer, count: usize, watch: &mut Stopwatch) {
    for _ in 0..count {
        traffic.next();
        watch.start();
        let placement = black_box(placer.place(black_box(&traffic.context())));
        watch.stop();
        let position = placement.expect("all shards are healthy").decision.chosen;
        traffic.dispatch(position, |observed: &Observed<'_>| placer.learn(observed));
    }
}

fn count_allocations(traffic: &mut Traffic, placer: &Placer) -> u64 {
    let mut allocations = 0;
    // The thread is new, and its buffers have to grow first.
    place(traffic, placer, PER_ROUND, &mut Stopwatch::new(PER_ROUND));
    for _ in 0..COUNTED {
        traffic.next();
        let mut position = 0;
        allocations += measure(|| {
            position = placer.place(&traffic.context()).expect("all shards are healthy").decision.chosen;
        })
        .count_total;
        traffic.dispatch(position, |observed: &Observed<'_>| placer.learn(observed));
    }
    allocations
}

fn sorted(times: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}

/// NaN when there are none.
fn quantile_us(sorted_ns: &[u64], share: f64) -> f64 {
    let place = (share * sorted_ns.len().saturating_sub(1) as f64) as usize;
    sorted_ns.get(place).map_or(f64::NAN, |ns| *ns as f64 / 1e3)
}
