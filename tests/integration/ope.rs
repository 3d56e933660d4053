//! Off-policy estimates: against the Open Bandit Pipeline, against runs of the target, and as a command.

use std::sync::Mutex;

use shardwise_datasets::Replay;
use shardwise_evaluation::ope::{
    CostModel, Limits, LogReader, OpeOptions, off_policy,
};
use shardwise_policies::{Policy, SedSoftmax};
use shardwise_simulator::{
    FleetOptions, KeepAll, NoRecorder, Workload, WorkloadOptions, WorldSpec, simulate,
};
use shardwise_training::{TrainingError, fit_cost_model};
use shardwise_types::HistoryRecord;

const WARM_UP: f64 = 0.1;

struct Trees(shardwise_training::CostModel);

impl CostModel for Trees {
    fn predict_rows(&self, rows: &[f32], out: &mut [f64]) {
        self.0.predict_rows(rows, out);
    }
}

fn env(name: &str, or: f64) -> f64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or)
}

#[test]
fn explore() {
    let seeds = env("SEEDS", 4.0) as u64;
    let load = env("LOAD", 0.5);
    let next = Mutex::new(100_u64);
    let work = || loop {
        let seed = {
            let mut next = next.lock().unwrap();
            if *next >= 100 + seeds { return; }
            *next += 1;
            *next - 1
        };
        let t0 = std::time::Instant::now();
        let world = WorldSpec::generate(seed % 4 + 1, &FleetOptions { routers: env("ROUTERS", 1.0) as usize, ..FleetOptions::default() });
        let ms = env("MS", 120_000.0);
        let options = WorkloadOptions::new("2026-01-05T12:00:00Z".parse().unwrap(), ms, load);
        let options = if env("POISSON", 0.0) > 0.0 { WorkloadOptions { process: shardwise_simulator::ArrivalProcess::Poisson, ..options } } else { options };
        let workload = Workload::generate(&world, seed, &options).unwrap();
        let runtime = world.timing.runtime();
        let logging = || -> Vec<Box<dyn Policy>> { world.routers.iter().map(|_| Box::new(SedSoftmax::new(runtime)) as _).collect() };
        let make = || SedSoftmax::new(runtime).exploring(env("T", 0.25), env("U", 0.12)).pricing(env("LAMBDA", 0.0));
        let target = || -> Vec<Box<dyn Policy>> { world.routers.iter().map(|_| Box::new(make()) as _).collect() };
        let mut log = KeepAll::default();
        let logged = simulate(&world, &workload, seed, logging(), &mut log).unwrap();
        let truth = simulate(&world, &workload, seed, target(), &mut NoRecorder).unwrap();
        let t1 = t0.elapsed();
        let from = workload.start.plus_millis(WARM_UP * ms);
        let mut reader = LogReader::new(Box::new(make()), runtime.timeout_ms, from, 1);
        let mut replay = Replay::new(world.network.clone());
        for record in &log.records {
            match record {
                HistoryRecord::Decision(decision) => reader.decided(&replay.context(decision), decision).unwrap(),
                HistoryRecord::Outcome(outcome) => reader.answered(outcome.decision_id, &outcome.response),
                _ => {}
            }
            replay.apply(record).unwrap();
        }
        let logs = reader.finish();
        let t2 = t0.elapsed();
        let mut fit = |rows: &[f32], costs: &[f64]| -> Result<Trees, TrainingError> { fit_cost_model(rows, costs, 1).map(Trees) };
        let limits = Limits { most_utilisation: 9.0, most_moved: 9.0, least_effective_share: 0.0, largest_weight: 1e9, ..Limits::default() };
        let found = off_policy(&logs, &mut fit, limits, &OpeOptions { block_ms: env("BLOCK", 5000.0), ..OpeOptions::default() }).unwrap();
        let s = found.validity.support; let h = found.validity.shift;
        let e = found.estimates.unwrap_or_default();
        let words: Vec<String> = e.iter().map(|e| format!("{}={:.3}[{:.3},{:.3}]", e.estimator.name(), e.mean_ms / truth.mean_ms, e.low_ms / truth.mean_ms, e.high_ms / truth.mean_ms)).collect();
        println!("seed {seed} n {} truth {:.2} logged {:.3} (summary {:.3}) util {:.3}/{:.3}->{:.3} moved {:.3} core time {:.3} queueing {:.3} cov {:.3} ess {:.2} max {:.1} | {} | {:.1?} {:.1?} {:.1?} {:?}",
            found.counts.settled, truth.mean_ms, found.logged_ms.unwrap() / truth.mean_ms, logged.mean_ms / truth.mean_ms, h.utilisation, logged.core_use, truth.core_use, h.moved, h.core_time, h.queueing, s.covered, s.effective_share, s.largest_weight, words.join(" "), t1, t2, t0.elapsed(), found.counts);
    };
    std::thread::scope(|scope| { scope.spawn(work); scope.spawn(work); });
}
