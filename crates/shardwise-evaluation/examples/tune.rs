use shardwise_evaluation::*;
use shardwise_planner::*;
use shardwise_policies::by_name;
use shardwise_simulator::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let case = PlanCase::ALL.into_iter().find(|c| c.as_str() == a[1]).unwrap();
    let (from, to): (u64, u64) = (a[2].parse().unwrap(), a[3].parse().unwrap());
    let functions: usize = a[4].parse().unwrap();
    let load: f64 = a[5].parse().unwrap();
    let w = |f: &dyn Fn(&mut WarmSettings), every: u64| {
        let mut s = WarmSettings { time_to_live_minutes: 10.0, ..Default::default() };
        f(&mut s);
        StewardParts { warm: Some((s, every)), ..Default::default() }
    };
    let b = |f: &dyn Fn(&mut BalanceSettings), every: u64| {
        let mut s = BalanceSettings { reactive: true, foretell_queues: false, ..Default::default() };
        f(&mut s);
        StewardParts {
            balance: Some((s, ForecastSettings { fewest_steps: usize::MAX, ..Default::default() }, every)),
            ..Default::default()
        }
    };
    let variants: Vec<(&str, StewardParts)> = if a[6] == "warm" {
        vec![
            ("default/15", w(&|_| (), 15)),
            ("every 5", w(&|_| (), 5)),
            ("every 30", w(&|_| (), 30)),
            ("least 0", w(&|s| s.least_benefit_ms = 0.0, 15)),
            ("price .1", w(&|s| s.price_ms_per_gb_minute = 0.1, 15)),
            ("price 10", w(&|s| s.price_ms_per_gb_minute = 10.0, 15)),
            ("core 0", w(&|s| s.price_ms_per_core_ms = 0.0, 15)),
            ("hyst .1", w(&|s| s.hysteresis = 0.1, 15)),
            ("horizon 60", w(&|s| s.horizon_minutes = 60.0, 15)),
            (
                "h60 price .1 hyst .1",
                w(
                    &|s| {
                        s.horizon_minutes = 60.0;
                        s.price_ms_per_gb_minute = 0.1;
                        s.hysteresis = 0.1
                    },
                    15,
                ),
            ),
            ("pressure .7", w(&|s| s.pressure = 0.7, 15)),
        ]
    } else {
        vec![
            ("reactive", b(&|_| (), 15)),
            ("cpu only", b(&|s| s.latency_threshold_ms = 1e9, 15)),
            (
                "cpu, price .2",
                b(
                    &|s| {
                        s.latency_threshold_ms = 1e9;
                        s.move_price_core_minutes = 0.2
                    },
                    15,
                ),
            ),
            ("cpu, every 5", b(&|s| s.latency_threshold_ms = 1e9, 5)),
            (
                "cpu, head .3",
                b(
                    &|s| {
                        s.latency_threshold_ms = 1e9;
                        s.headroom = 0.3
                    },
                    15,
                ),
            ),
            (
                "cpu, price 1",
                b(
                    &|s| {
                        s.latency_threshold_ms = 1e9;
                        s.move_price_core_minutes = 1.0
                    },
                    15,
                ),
            ),
        ]
    };
    let mut sums = vec![[0.0; 7]; variants.len()];
    let mut mv = vec![0; variants.len()];
    for seed in from..=to {
        let traces = generate_traces(seed, &GeneratorOptions { functions, days: 2, market_minutes: 3 * 1440 }).unwrap();
        let mut options = CaseOptions::new(case, seed);
        options.load = load;
        let world = case_world(case, options, &traces.inputs, &traces.crash).unwrap();
        let make = || by_name("sed_tab_lambda", world.world.timing.runtime()).unwrap();
        let setting = PlanSetting {
            world: &world.world,
            workload: &world.workload,
            make: &make,
            seed,
            warm_up: 0.1,
            phases: &[],
            look_ms: 60_000.0,
            boot_ms: 30_000.0,
        };
        let base = run_plans(&setting, "none", None, &false.into()).unwrap();
        for (i, (name, parts)) in variants.iter().enumerate() {
            let r = run_plans(
                &setting,
                name,
                Some(Steward::new(parts.clone(), ObservationSettings::default()).unwrap()),
                &false.into(),
            )
            .unwrap();
            let v = [
                r.mean_ms / base.mean_ms,
                r.p99_ms / base.p99_ms,
                r.slo_miss / base.slo_miss,
                r.cold_rate / base.cold_rate,
                r.core_use / base.core_use,
                r.memory / base.memory,
                (r.shard_minutes_over as f64 + 1.0) / (base.shard_minutes_over as f64 + 1.0),
            ];
            for k in 0..7 {
                sums[i][k] += v[k].ln() / (to - from + 1) as f64;
            }
            mv[i] += r.moves + r.warmed + r.cooled;
        }
    }
    println!("                      mean   p99    slo    cold   core   mem    over   steps");
    for (i, (name, _)) in variants.iter().enumerate() {
        println!("{name:20} {} {}", sums[i].map(|x| format!("{:.3}", x.exp())).join("  "), mv[i]);
    }
}
