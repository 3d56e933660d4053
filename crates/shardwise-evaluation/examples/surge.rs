//! A router below its limits, beyond them, and below them again, second by second:
//! `cargo run --release -p shardwise-evaluation --example surge -- http://127.0.0.1:7070 1000 30000 [SECONDS] [IN_FLIGHT]`
//! asks for 1,000 decisions a second for five seconds, 30,000 for as many and 1,000 again, each when it is due whatever the answers
//! do, with 1,024 on their way at once at most. What cannot leave within 20 ms is not sent, and counted.

use std::error::Error;
use std::sync::atomic::AtomicBool;

use shardwise_evaluation::{HttpOptions, drive_http};
use shardwise_simulator::{
    Arrival, FleetOptions, LoadParameters, LoadResult, LoadRun, LoadScenario, LoadSecond, WorldSpec, generate_load,
    load_arrivals,
};
use shardwise_types::{Timestamp, combine_keys, unit_of};

const SEED: u64 = 1;
/// What cannot leave so soon is not sent: the driver has no queue.
const LATEST_MS: f64 = 20.0;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, usual: f64| arguments.get(at).map_or(Ok(usual), |text| text.parse::<f64>());
    let target = arguments.first().ok_or("name a router, as http://host:port")?;
    let (usual, surge, seconds) = (number(1, 1_000.0)?, number(2, 30_000.0)?, number(3, 5.0)?);
    let concurrency = number(4, 1_024.0)? as usize;
    let arrivals = arrivals(&[(usual, seconds), (surge, seconds), (usual, seconds)])?;
    let options = HttpOptions { concurrency, latest_ms: LATEST_MS, ..HttpOptions::default() };
    let samples = drive_http(target, &arrivals, &options, &AtomicBool::new(false))?;
    let scenario = LoadScenario::MarketVolatility;
    let result = LoadResult::new(LoadRun { scenario, target: target.clone(), policy: None, seed: SEED }, &samples)?;
    println!("{:>6}{:>9}{:>10}{:>9}{:>9}  failures", "second", "asked", "answered", "p50 ms", "p99 ms");
    for (second, LoadSecond { events, p50_ms, p99_ms, failures }) in result.by_second.iter().enumerate() {
        let failed: u64 = failures.values().sum();
        let millis = |ms: Option<f64>| ms.map_or("–".to_owned(), |ms| format!("{ms:.2}"));
        let (answered, p50, p99) = (events - failed, millis(*p50_ms), millis(*p99_ms));
        println!("{second:>6}{events:>9}{answered:>10}{p50:>9}{p99:>9}  {failures:?}");
    }
    let late = result.lateness;
    println!("at most {} on their way of {concurrency}, {} not sent", result.most_in_flight, result.not_sent);
    println!("the driver was late by {:.2} ms on the average, 99 % by at most {:.2} ms", late.mean, late.p99);
    Ok(())
}

/// Requests of a scenario, one after the other at so many a second for so many seconds, as independent clients send them.
fn arrivals(phases: &[(f64, f64)]) -> Result<Vec<Arrival>, Box<dyn Error>> {
    let world = WorldSpec::generate(SEED, &FleetOptions::default());
    let scenario = LoadScenario::MarketVolatility;
    let start: Timestamp = "2026-01-05T12:00:00Z".parse()?;
    let events = generate_load(scenario, &LoadParameters::sized(scenario, 5_000, 100.0), start, SEED)?;
    let requests = load_arrivals(&world, &events, SEED)?;
    let (mut arrivals, mut at_s, mut begins_s) = (Vec::new(), 0.0, 0.0);
    for (rate, seconds) in phases {
        while at_s < begins_s + seconds {
            let nth = arrivals.len();
            let arrival = requests[nth % requests.len()].clone();
            arrivals.push(Arrival { at: start.plus_millis(at_s * 1e3), ..arrival });
            at_s -= (1.0 - unit_of(combine_keys(SEED, nth as u64))).ln() / rate;
        }
        begins_s += seconds;
        at_s = begins_s;
    }
    Ok(arrivals)
}
