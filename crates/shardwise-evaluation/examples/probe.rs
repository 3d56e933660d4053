use shardwise_evaluation::*;
use shardwise_policies::by_name;
use shardwise_simulator::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let case = PlanCase::ALL.into_iter().find(|c| c.as_str() == a[1]).unwrap();
    let (from, to): (u64, u64) = (a[2].parse().unwrap(), a[3].parse().unwrap());
    let functions: usize = a[4].parse().unwrap();
    let load: f64 = a[5].parse().unwrap();
    let policy = a.get(6).map_or("sed_tab_lambda", |p| p.as_str());
    let mut results = vec![];
    for seed in from..=to {
        let t = std::time::Instant::now();
        let traces = generate_traces(seed, &GeneratorOptions { functions, days: 2, market_minutes: 3 * 1440 }).unwrap();
        let mut options = CaseOptions::new(case, seed);
        options.load = load;
        if let Some(v) = a.get(7) {
            options.assumed_volatility = v.parse().unwrap();
        }
        let world = case_world(case, options, &traces.inputs, &traces.crash).unwrap();
        println!(
            "== seed {seed} load {:.3} arrivals {} made in {:.1} s",
            world.load,
            world.workload.arrivals.len(),
            t.elapsed().as_secs_f64()
        );
        let make = || by_name(policy, world.world.timing.runtime()).unwrap();
        let mut t = std::time::Instant::now();
        let result = world.run(&make, &mut |r| {
            println!("{:22} mean {:.1} p50 {:.1} p99 {:.1} slo {:.4} err {:.4} cold {:.4} use {:.3} mem {:.3} over {}/{} mv {} ret {} +{} -{} join {} idle {} nonidem {} off {:?} {:.1} s",
                r.name, r.mean_ms, r.p50_ms, r.p99_ms, r.slo_miss, r.error_rate, r.cold_rate, r.core_use, r.memory, r.shard_minutes_over, r.shard_minutes,
                r.moves, r.returns, r.warmed, r.cooled, r.joined, r.idle_plans, r.not_idempotent, r.switched_off, t.elapsed().as_secs_f64());
            if !r.phases.is_empty() { println!("    {}", r.phases.iter().map(|p| format!("{} n {} mean {:.1} p99 {:.1} ({:.2})", p.name, p.requests, p.mean_ms, p.p99_ms, p.p99_ms / r.phases[0].p99_ms)).collect::<Vec<_>>().join("; ")); }
            if let Some(s) = &r.spike_plan { println!("    asked {:?} cost {:.0} load {:?}", s.resource_allocation, s.cost_estimate, s.load_prediction); }
            t = std::time::Instant::now();
        }, &false.into()).unwrap();
        if let Some(s) = result.spike {
            println!("demand {s:?}");
        }
        for c in result.checks.iter().filter(|c| !c.holds) {
            println!("FAILS {c:?}");
        }
        results.push(result);
    }
    for p in paired_arms(&results) {
        println!(
            "{:22} {:32} {:.3} [{:.3}, {:.3}] n {}",
            p.name,
            p.metric,
            p.ratio,
            p.low.unwrap_or(0.),
            p.high.unwrap_or(0.),
            p.seeds
        );
    }
}
