//! Times whole decisions, one by one, beside those of tower's balancer in the same run.
//!
//! `cargo bench -p shardwise-inference --bench decision` prints a table; with `-- --json` the last line is one JSON object.
//! Contenders take turns, so that what disturbs the machine disturbs all of them. State changes between decisions:
//! every request is dispatched and answered, which is not timed.

mod contenders;
mod forests;
mod traffic;
mod world;

use std::sync::{Arc, Barrier};
use std::thread;

use contenders::{CONTENDERS, Lane, TOWER, lanes, now};
use serde_json::{Value, json};
use world::World;

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
            let (lanes, times_ns) = &mut contenders[(round + turn) % CONTENDERS.len()];
            times_ns.extend(place(lanes, plan.per_round));
        }
    }
    let rows = CONTENDERS.into_iter().zip(contenders).map(|(contender, (_, mut times_ns))| {
        times_ns.sort_unstable();
        let at = |share: f64| times_ns[(share * (times_ns.len() - 1) as f64) as usize] as f64 / 1e3;
        Row { shards: world.fleet.shards.len(), threads, contender, p50_us: at(0.5), p99_us: at(0.99) }
    });
    rows.collect()
}

/// Lets all lanes place so many requests at the same time, and returns what each decision took.
fn place(lanes: &mut [Box<dyn Lane>], count: usize) -> Vec<u64> {
    let start = Barrier::new(lanes.len());
    thread::scope(|scope| {
        let lanes = lanes.iter_mut().map(|lane| {
            let start = &start;
            scope.spawn(move || {
                let mut times_ns = Vec::with_capacity(count);
                start.wait();
                lane.place(count, &mut times_ns);
                times_ns
            })
        });
        let lanes: Vec<_> = lanes.collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("no lane panics")).collect()
    })
}

/// The median of a thousand.
fn clock_ns() -> u64 {
    let mut times: Vec<_> = (0..1_000).map(|_| now().elapsed().as_nanos()).collect();
    times.sort_unstable();
    u64::try_from(times[500]).unwrap_or(u64::MAX)
}

fn print(rows: &[Row], peer: &Row) {
    println!("\n{} shards, {} thread(s)", peer.shards, peer.threads);
    println!("  {:<22}{:>10}{:>10}{:>12}{:>12}", "", "p50 µs", "p99 µs", "p50 / peer", "p99 / peer");
    for row in rows {
        let [p50, p99] = of_peer(row, peer);
        println!("  {:<22}{:>10.2}{:>10.2}{p50:>12.2}{p99:>12.2}", row.contender, row.p50_us, row.p99_us);
    }
}

fn of_peer(row: &Row, peer: &Row) -> [f64; 2] {
    [row.p50_us / peer.p50_us, row.p99_us / peer.p99_us]
}

fn as_json(row: &Row, peer: &Row) -> Value {
    let [p50_of_peer, p99_of_peer] = of_peer(row, peer);
    json!({
        "shards": row.shards,
        "threads": row.threads,
        "contender": row.contender,
        "p50_us": row.p50_us,
        "p99_us": row.p99_us,
        "p50_of_peer": p50_of_peer,
        "p99_of_peer": p99_of_peer,
    })
}
