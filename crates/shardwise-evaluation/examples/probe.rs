use shardwise_evaluation::*;
use shardwise_planner::*;
use shardwise_policies::by_name;
use shardwise_simulator::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let seed: u64 = a[1].parse().unwrap();
    let functions: usize = a[2].parse().unwrap();
    let hours: f64 = a[3].parse().unwrap();
    let scale: f64 = a[4].parse().unwrap();
    let arms = a[5].as_str();
    let inputs = generate_inputs(seed, &GeneratorOptions { functions, days: 2, market_minutes: 3 * 1440 }).unwrap();
    let mut options = ReplayOptions::new(seed, "2026-01-05T00:00:00Z".parse().unwrap(), hours);
    options.duration_scale = scale;
    let (world, workload) = world_and_workload(&inputs, &options).unwrap();
    println!(
        "{} arrivals, load {:.3}, cores {}",
        workload.arrivals.len(),
        workload.offered_load(&world),
        world.cores()
    );
    let make = || by_name("sed_tab_lambda", world.timing.runtime()).unwrap();
    let setting = PlanSetting {
        world: &world,
        workload: &workload,
        make: &make,
        seed,
        warm_up: 0.1,
        phases: &[],
        look_ms: 60_000.0,
        boot_ms: 30_000.0,
    };
    for arm in arms.split(',') {
        let warm = WarmSettings { time_to_live_minutes: 10.0, ..Default::default() };
        let parts = match arm {
            "none" => None,
            "idle" => Some(StewardParts::default()),
            "warm" => Some(StewardParts { warm: Some((warm, 15)), ..Default::default() }),
            "balance" => {
                Some(StewardParts { balance: Some((Default::default(), Default::default(), 5)), ..Default::default() })
            }
            "reactive" => Some(StewardParts {
                balance: Some((BalanceSettings { reactive: true, ..Default::default() }, Default::default(), 5)),
                ..Default::default()
            }),
            "both" => Some(StewardParts {
                warm: Some((warm, 15)),
                balance: Some((Default::default(), Default::default(), 5)),
                ..Default::default()
            }),
            _ => panic!(),
        };
        let t = std::time::Instant::now();
        let steward = parts.map(|parts| Steward::new(parts, ObservationSettings::default()).unwrap());
        let r = run_plans(&setting, arm, steward, &false.into()).unwrap();
        println!(
            "{arm}: mean {:.1} p50 {:.1} p99 {:.1} p999 {:.1} cold {:.4} slo {:.4} use {:.3} mem {:.3} over {}/{} moves {} ret {} warm {} cool {} idle {} nonidem {} off {:?} {:.1} s",
            r.mean_ms,
            r.p50_ms,
            r.p99_ms,
            r.p999_ms,
            r.cold_rate,
            r.slo_miss,
            r.core_use,
            r.memory,
            r.shard_minutes_over,
            r.shard_minutes,
            r.moves,
            r.returns,
            r.warmed,
            r.cooled,
            r.idle_plans,
            r.not_idempotent,
            r.switched_off,
            t.elapsed().as_secs_f64()
        );
    }
}
