//! Times whole decisions, one by one, beside those of tower's balancer in the same run.
//!
//! `cargo run --release --manifest-path crates/shardwise-bench/Cargo.toml -- --bench` prints a table; with `--json` the last line is one
//! JSON object.
//! Contenders take turns, so that what disturbs the machine disturbs all of them. State changes between decisions:
//! every request is dispatched and answered, which is not timed. A decision during which the kernel gave the core to others
//! says more of the machine than of the code: the column "on core" leaves those out, all other columns do not.

mod contenders;

use std::sync::{Arc, Barrier};
use std::thread;

use contenders::{CONTENDERS, Lane, TOWER, lanes};
use serde_json::{Value, json};
use shardwise_workload::{Stopwatch, Time, World, clock_ns};

/// How much is run.
struct Plan {
    shards: &'static [usize],
    warm_up: usize,
    rounds: usize,
    /// Decisions of each thread in a round.
    per_round: usize,
}

const WHOLE: Plan = Plan { shards: &[20, 64, 256, 1_024], warm_up: 3_000, rounds: 20, per_round: 1_500 };
/// For `cargo test --benches`: only that it runs.
const GLANCE: Plan = Plan { shards: &[20], warm_up: 100, rounds: 1, per_round: 100 };

/// What was measured of one contender.
struct Row {
    shards: usize,
    threads: usize,
    contender: &'static str,
    p50_us: f64,
    p99_us: f64,
    /// The same without the decisions that the kernel interrupted.
    p99_on_core_us: f64,
    /// Share of those.
    interrupted: f64,
}

fn main() {
    let is_asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    let plan = if is_asked("--bench") { WHOLE } else { GLANCE };
    println!("reading the clock takes {} ns, which every time includes", clock_ns());
    let mut json = Vec::new();
    for &shards in plan.shards {
        let world = Arc::new(World::new(shards));
        for threads in [1, 2] {
            let rows = measure(&plan, &world, threads);
            let peer = rows.iter().find(|row| row.contender == TOWER).expect("the peer is a contender");
            print(&rows, peer);
            json.extend(rows.iter().map(|row| as_json(row, peer)));
        }
    }
    if is_asked("--json") {
        println!("{}", json!({ "clock_ns": clock_ns(), "rows": json }));
    }
}

fn measure(plan: &Plan, world: &Arc<World>, threads: usize) -> Vec<Row> {
    let mut contenders = CONTENDERS.map(|name| (lanes(name, world, threads), Vec::new()));
    for (lanes, _) in &mut contenders {
        place(lanes, plan.warm_up);
    }
    for round in 0..plan.rounds {
        for turn in 0..contenders.len() {
            let (lanes, times) = &mut contenders[(round + turn) % CONTENDERS.len()];
            times.extend(place(lanes, plan.per_round));
        }
    }
    let rows = CONTENDERS.into_iter().zip(contenders);
    rows.map(|(contender, (_, times))| row(world.fleet.shards.len(), threads, contender, &times)).collect()
}

fn row(shards: usize, threads: usize, contender: &'static str, times: &[Time]) -> Row {
    let all = sorted(times.iter());
    let on_core = sorted(times.iter().filter(|time| !time.interrupted));
    Row {
        shards,
        threads,
        contender,
        p50_us: at(&all, 0.5),
        p99_us: at(&all, 0.99),
        p99_on_core_us: at(&on_core, 0.99),
        interrupted: 1.0 - on_core.len() as f64 / all.len() as f64,
    }
}

fn sorted<'a>(times: impl Iterator<Item = &'a Time>) -> Vec<u64> {
    let mut times: Vec<_> = times.map(|time| time.ns).collect();
    times.sort_unstable();
    times
}

/// A quantile of sorted times, in µs; NaN when there are none.
fn at(sorted_ns: &[u64], share: f64) -> f64 {
    let place = (share * sorted_ns.len().saturating_sub(1) as f64) as usize;
    sorted_ns.get(place).map_or(f64::NAN, |ns| *ns as f64 / 1e3)
}

/// Lets all lanes place so many requests at the same time, and returns what each decision took.
fn place(lanes: &mut [Box<dyn Lane>], count: usize) -> Vec<Time> {
    let start = Barrier::new(lanes.len());
    thread::scope(|scope| {
        let lanes = lanes.iter_mut().map(|lane| {
            let start = &start;
            scope.spawn(move || {
                let mut watch = Stopwatch::new(count);
                start.wait();
                lane.place(count, &mut watch);
                watch.into_times()
            })
        });
        let lanes: Vec<_> = lanes.collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("no lane panics")).collect()
    })
}

fn print(rows: &[Row], peer: &Row) {
    println!("\n{} shards, {} thread(s); times in µs, then over the peer's", peer.shards, peer.threads);
    println!(
        "  {:<20}{:>9}{:>9}{:>9}{:>12}{:>8}{:>8}{:>9}",
        "", "p50", "p99", "on core", "interrupted", "p50", "p99", "on core"
    );
    for row in rows {
        let [p50, p99, on_core] = of_peer(row, peer);
        println!(
            "  {:<20}{:>9.2}{:>9.2}{:>9.2}{:>11.2}%{p50:>8.1}{p99:>8.1}{on_core:>9.1}",
            row.contender,
            row.p50_us,
            row.p99_us,
            row.p99_on_core_us,
            100.0 * row.interrupted
        );
    }
}

fn of_peer(row: &Row, peer: &Row) -> [f64; 3] {
    [row.p50_us / peer.p50_us, row.p99_us / peer.p99_us, row.p99_on_core_us / peer.p99_on_core_us]
}

fn as_json(row: &Row, peer: &Row) -> Value {
    let [p50_of_peer, p99_of_peer, p99_on_core_of_peer] = of_peer(row, peer);
    json!({
        "shards": row.shards,
        "threads": row.threads,
        "contender": row.contender,
        "p50_us": row.p50_us,
        "p99_us": row.p99_us,
        "p99_on_core_us": row.p99_on_core_us,
        "interrupted": row.interrupted,
        "p50_of_peer": p50_of_peer,
        "p99_of_peer": p99_of_peer,
        "p99_on_core_of_peer": p99_on_core_of_peer,
    })
}
