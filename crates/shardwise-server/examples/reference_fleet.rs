//! A demo fleet under the simulator's traffic, placed by chance: what it takes of this machine, and how long what takes
//! where.
//!
//! ```sh
//! cargo run --release -p shardwise-server --example reference_fleet -- trial 100 200 400   # requests a second
//! cargo run --release -p shardwise-server --example reference_fleet -- up 8 target/fleet   # until Ctrl-C
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use serde::Deserialize;
use shardwise_server::fleet_up::{FleetEvent, FleetFile, FleetOptions, FleetPlan, RunOptions, run, this_program};
use shardwise_server::shard::{self, Envelope, FunctionBody, FunctionKind, ShardOptions};
use shardwise_simulator::{Arrival, Workload, WorkloadOptions, WorldSpec};
use shardwise_types::{UsdAmount, combine_keys};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Seconds of each rate, and clients that may wait at once.
const SECONDS: f64 = 20.0;
const CLIENTS: usize = 128;
/// Ticks of `/proc/PID/stat` in a second.
const TICKS_PER_S: f64 = 100.0;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["shard", "--options", path] => {
            let options: ShardOptions = serde_json::from_str(&fs::read_to_string(path)?)?;
            Ok(shard::run(&options, |_: &Envelope| (), &AtomicBool::new(false), |_| ())?)
        }
        ["up", shards, directory] => {
            let plan = FleetPlan::new(&FleetOptions { shards: shards.parse()?, ..FleetOptions::default() })?;
            let options = RunOptions { directory: Path::new(directory), restart: true };
            let event = &mut |event: &FleetEvent| println!("{event:?}");
            Ok(run(&plan, &options, &this_program, &AtomicBool::new(false), event)?)
        }
        ["trial", ref rates @ ..] if !rates.is_empty() => {
            trial(&rates.iter().map(|rate| rate.parse()).collect::<Result<Vec<f64>, _>>()?)
        }
        _ => Err("say 'trial RATE…' or 'up SHARDS DIRECTORY'".into()),
    }
}

/// Starts eight shards and sends them each rate in turn.
fn trial(rates: &[f64]) -> Result<(), Failure> {
    let plan = FleetPlan::new(&FleetOptions::default())?;
    let (directory, stop) = (env::temp_dir().join("shardwise-reference-fleet"), AtomicBool::new(false));
    let options = RunOptions { directory: &directory, restart: false };
    let (ready, wait) = std::sync::mpsc::channel();
    let mut event = move |event: &FleetEvent| match event {
        FleetEvent::Ready(file) => drop(ready.send(file.clone())),
        other => eprintln!("{other:?}"),
    };
    thread::scope(|scope| {
        let fleet = scope.spawn(|| run(&plan, &options, &this_program, &stop, &mut event));
        let measured = wait.recv().map_err(Failure::from).and_then(|file| {
            // The first seconds load all functions and are not printed.
            measure(&plan, &file, rates[0])?;
            for rate in rates {
                println!("{}", measure(&plan, &file, *rate)?);
            }
            Ok(())
        });
        stop.store(true, Relaxed);
        fleet.join().expect("running a fleet does not panic")?;
        measured
    })
}

/// What a shard answers, and where it was asked.
#[derive(Deserialize)]
struct Execution {
    exec_ms: f64,
    queue_ms: f64,
    cold: bool,
}

struct Done {
    shard: usize,
    kind: FunctionKind,
    /// `None` when it was refused or failed.
    execution: Option<Execution>,
}

fn measure(plan: &FleetPlan, fleet: &FleetFile, rate: f64) -> Result<String, Failure> {
    let arrivals = arrivals(rate)?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_idle_connections_per_host(CLIENTS)
        .max_idle_connections(CLIENTS * 8)
        .build()
        .into();
    let (next, done, start) = (AtomicUsize::new(0), Mutex::new(Vec::new()), now());
    let cpu_before = processor_s(fleet)?;
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while let Some(arrival) = arrivals.get(next.fetch_add(1, Relaxed)) {
                    let due = Duration::from_secs_f64(arrival.at.millis_since(arrivals[0].at) / 1e3);
                    thread::sleep(due.saturating_sub(start.elapsed()));
                    if let Some(one) = send(&agent, plan, fleet, arrival) {
                        done.lock().expect("no panic").push(one);
                    }
                }
            });
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let used = (processor_s(fleet)? - cpu_before) / seconds;
    Ok(table(plan, &done.into_inner().expect("no panic"), arrivals.len() as f64 / seconds, used)?)
}

/// The simulator's traffic, about as dense as asked.
fn arrivals(rate: f64) -> Result<Vec<Arrival>, Failure> {
    let world = WorldSpec::generate(1, &shardwise_simulator::FleetOptions::default());
    let generate = |load| {
        let options = WorkloadOptions::new("2026-01-05T12:00:00Z".parse()?, SECONDS * 1e3, load);
        Ok::<_, Failure>(Workload::generate(&world, 1, &options)?.arrivals)
    };
    let at_a_tenth = generate(0.1)?.len() as f64 / SECONDS;
    generate(0.1 * rate / at_a_tenth)
}

/// Sends a request to a shard that may take it, drawn by capacity; `None` when no shard may.
fn send(agent: &ureq::Agent, plan: &FleetPlan, fleet: &FleetFile, arrival: &Arrival) -> Option<Done> {
    let request = &arrival.request;
    let amount_usd = request.amount_usd.map_or(0.0, UsdAmount::usd);
    let weight = |shard: &ShardOptions| {
        let allowed = shard.shape.max_amount_usd.is_none_or(|limit_usd| amount_usd <= limit_usd)
            && request.residency.as_ref().is_none_or(|region| *region == shard.shape.region);
        if allowed { f64::from(shard.shape.cores) * shard.speed } else { 0.0 }
    };
    let all: f64 = plan.shards.iter().map(weight).sum();
    let draw = combine_keys(arrival.at.nanos() as u64, request.function.key()) >> 11;
    let mut left = all * draw as f64 / (1_u64 << 53) as f64;
    let shard = plan.shards.iter().position(|shard| {
        left -= weight(shard);
        left < 0.0
    })?;
    let body = serde_json::to_string(request).expect("a request has nothing that JSON lacks");
    let mut answer = agent.post(format!("{}/v1/execute", fleet.shards[shard].address)).send(&body).ok()?;
    let text = answer.body_mut().read_to_string().ok()?;
    let execution = if answer.status() == 200 { serde_json::from_str(&text).ok() } else { None };
    Some(Done { shard, kind: FunctionBody::of(&request.function).kind, execution })
}

#[expect(clippy::disallowed_methods, reason = "a trial of real processes sends at real times")]
fn now() -> Instant {
    Instant::now()
}

/// Processor time of all shards, in seconds.
fn processor_s(fleet: &FleetFile) -> Result<f64, Failure> {
    let mut ticks = 0.0;
    for pid in fleet.shards.iter().filter_map(|shard| shard.pid) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        ticks += fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    }
    Ok(ticks / TICKS_PER_S)
}

fn table(plan: &FleetPlan, done: &[Done], rate: f64, used: f64) -> Result<String, std::fmt::Error> {
    let good: Vec<(usize, FunctionKind, &Execution)> =
        done.iter().filter_map(|done| Some((done.shard, done.kind, done.execution.as_ref()?))).collect();
    let answered = good.len().max(1) as f64;
    let cold = 100.0 * good.iter().filter(|(.., execution)| execution.cold).count() as f64 / answered;
    let queue = good.iter().map(|(.., execution)| execution.queue_ms).sum::<f64>() / answered;
    let (each, sent) = (1e3 * used / rate, done.len());
    let mut text = String::new();
    writeln!(text, "{rate:.0}/s: shards use {used:.2} processors, {each:.2} ms a request")?;
    writeln!(text, "{} of {sent} answered, {cold:.1} % cold, {queue:.1} ms in queues on average", good.len())?;
    let [a, b, c, d] = FunctionKind::ALL.map(FunctionKind::as_str);
    writeln!(text, "{:<26}  cores   hardware   speed {a:>9} {b:>9} {c:>9} {d:>9}", "median warm exec ms")?;
    let mut warm: BTreeMap<(usize, FunctionKind), Vec<f64>> = BTreeMap::new();
    for (shard, kind, execution) in good.iter().filter(|(.., execution)| !execution.cold) {
        warm.entry((*shard, *kind)).or_default().push(execution.exec_ms);
    }
    for (index, shard) in plan.shards.iter().enumerate() {
        let (cores, hardware) = (shard.shape.cores, shard.shape.hardware.as_str());
        write!(text, "{:<26} {cores:>6} {hardware:>10} {:>7.3}", shard.id, shard.speed)?;
        for kind in FunctionKind::ALL {
            let mut times = warm.remove(&(index, kind)).unwrap_or_default();
            times.sort_by(f64::total_cmp);
            write!(text, " {:>9.1}", times.get(times.len() / 2).copied().unwrap_or(f64::NAN))?;
        }
        writeln!(text)?;
    }
    Ok(text)
}
