//! Markets of known elasticity, and the arithmetic of what is made ready.

use super::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Normal, Poisson};

fn event(jump: f64) -> VolatilitySpike {
    VolatilitySpike { at: Timestamp::default(), volatility_bp: 5.0 * jump, baseline_bp: 5.0, expected_duration: 30.0 }
}

fn problem(jump: f64) -> SpikeProblem {
    let elasticity = Elasticity { value: 1.0, deviation: 0.0, minutes: 1000 };
    let load = GroupLoad { busy_cores: 2.0, cores: 10.0, cores_per_shard: 4.0, elasticity };
    let mut groups = ByGroup::of(|_| load);
    groups.yields.elasticity.value = 0.0;
    SpikeProblem { event: event(jump), groups }
}

/// A day of minutes whose arrivals go with volatility by the exponent.
fn market(seed: u64, exponent: f64) -> (Series, Series) {
    let mut rng = StdRng::seed_from_u64(seed);
    let normal = Normal::new(0.0, 0.15).unwrap();
    let mut ln: f64 = 1.5;
    let mut volatility = vec![];
    for _ in 0..1440 {
        ln += (1.5 - ln) * 0.02 + normal.sample(&mut rng);
        volatility.push(ln.exp());
    }
    let arrivals =
        volatility.iter().map(|bp| Poisson::new(20.0 * (bp / 4.5).powf(exponent)).unwrap().sample(&mut rng)).collect();
    let series = |values| Series { start: Timestamp::default(), step_minutes: 1, values };
    (series(arrivals), series(volatility))
}

#[test]
fn elasticities_are_learned() {
    for exponent in [0.0, 0.5, 1.2] {
        let held = (11..31).filter(|seed| {
            let (arrivals, volatility) = market(*seed, exponent);
            let learned = Elasticity::learn(&arrivals, &volatility, &SpikeSettings::default()).unwrap();
            (learned.value - exponent).abs() <= 3.0 * learned.deviation.max(0.01)
        });
        assert!(held.count() >= 18, "{exponent}");
    }
    let (mut arrivals, volatility) = market(11, 1.0);
    arrivals.values.truncate(100);
    assert_eq!(Elasticity::learn(&arrivals, &volatility, &SpikeSettings::default()), None, "too short");
}

#[test]
fn a_market_that_stands_still_teaches_no_elasticity() {
    let settings = SpikeSettings::default();
    let mut rng = StdRng::seed_from_u64(11);
    let mut series = |value: &mut dyn FnMut(usize, &mut StdRng) -> f64| {
        let values = (0..1440).map(|minute| value(minute, &mut rng)).collect();
        Series { start: Timestamp::default(), step_minutes: 1, values }
    };
    let arrivals = series(&mut |_, rng| Poisson::new(20.0).unwrap().sample(rng));
    let constant = series(&mut |_, _| 5.0);
    let rounded = series(&mut |minute, _| if minute % 2 == 0 { 5.0 } else { 5.05 });
    let noise = Normal::new(0.0, 0.001).unwrap();
    // What goes with the hour alone cannot be told from the hour.
    let hourly = series(&mut |minute, rng| {
        let angle = minute as f64 / 1440.0 * std::f64::consts::TAU;
        (1.5 + 0.3 * angle.sin() + noise.sample(rng)).exp()
    });
    for (name, market) in [("constant", &constant), ("rounded", &rounded), ("hourly", &hourly)] {
        assert_eq!(Elasticity::learn(&arrivals, market, &settings), None, "{name}");
    }
}

#[test]
fn an_assumed_spike_is_of_what_was_usual() {
    let settings = SpikeSettings::default();
    let series = |values: &[f64]| Series { start: Timestamp::default(), step_minutes: 1, values: values.to_vec() };
    let assumed = |factor: f64, values: &[f64]| {
        VolatilitySpike::assumed(factor, &series(values), Timestamp::default(), &settings)
    };
    let spike = assumed(10.0, &[4.0, f64::NAN, 5.0, 60.0]).unwrap();
    assert_eq!((spike.volatility_bp, spike.baseline_bp, spike.expected_duration), (50.0, 5.0, 45.0));
    let unseen = assumed(10.0, &[]).unwrap();
    assert_eq!((unseen.volatility_bp, unseen.baseline_bp), (10.0, 1.0));
    for factor in [1.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(assumed(factor, &[5.0]).unwrap_err().field, "factor");
    }
}

#[test]
fn settings_out_of_range_are_named() {
    let named = |change: &dyn Fn(&mut SpikeSettings)| {
        let mut settings = SpikeSettings::default();
        change(&mut settings);
        settings.check().unwrap_err().field
    };
    assert_eq!(named(&|settings| settings.factor = 1.0), "factor");
    assert_eq!(named(&|settings| settings.prior.yields = -0.1), "prior.yield");
    assert_eq!(named(&|settings| settings.prior.trading = f64::NAN), "prior.trading");
}

#[test]
fn a_spike_is_four_times_the_usual() {
    let settings = SpikeSettings::default();
    let with_end = |end: f64| {
        let mut values = vec![5.0; 100];
        values.push(end);
        VolatilitySpike::at_the_end_of(&Series { start: Timestamp::default(), step_minutes: 1, values }, &settings)
    };
    assert_eq!(with_end(19.0), None);
    assert_eq!(with_end(20.0).unwrap().baseline_bp, 5.0);
    assert_eq!(with_end(f64::NAN), None);
}

#[test]
fn what_is_made_ready_is_what_is_missing() {
    let plan = problem(10.0).solve(&SpikeSettings::default()).unwrap();
    assert_eq!(plan.load_prediction.arbitrage.multiplier, 10.0);
    assert_eq!(plan.load_prediction.arbitrage.extra_cores, 18.0);
    // 20 cores' load at 70 % are 28.6 cores, of which 10 are there: 18.6, five shards of four.
    let arbitrage = plan.resource_allocation.arbitrage_shards;
    assert!((arbitrage.extra_cores - (20.0 / 0.7 - 10.0)).abs() < 1e-9, "{arbitrage:?}");
    assert_eq!((arbitrage.shards, plan.resource_allocation.yield_shards.shards), (5, 0));
    assert_eq!(plan.cost_estimate, 3.0 * 5.0 * 4.0 * 30.0);
    assert_eq!(plan.time_window.to.millis_since(plan.time_window.from), 30.0 * 60_000.0);
    assert_eq!(plan.actions.len(), 3);
    let json = serde_json::to_value(&plan).unwrap();
    for field in ["triggerEvent", "loadPrediction", "resourceAllocation", "timeWindow", "costEstimate"] {
        assert!(!json[field].is_null(), "{field} is missing");
    }
    for field in ["arbitrageShards", "yieldShards", "riskShards", "tradingShards"] {
        assert!(!json["resourceAllocation"][field].is_null(), "{field} is missing");
    }
    assert!(!json["loadPrediction"]["yield"].is_null());
}

#[test]
fn who_has_joined_is_counted() {
    let mut problem = problem(10.0);
    let plan = problem.solve(&SpikeSettings::default()).unwrap();
    let joined = plan.resource_allocation.arbitrage_shards.shards;
    problem.groups = ByGroup::of(|group| {
        let load = *problem.groups.get(group);
        GroupLoad { cores: load.cores + f64::from(joined) * load.cores_per_shard, ..load }
    });
    assert_eq!(problem.solve(&SpikeSettings::default()).unwrap().actions, vec![]);
}

#[test]
fn a_calm_market_and_absurd_ones() {
    assert_eq!(problem(1.0).solve(&SpikeSettings::default()).unwrap().actions, vec![]);
    let beyond = problem(1e9).solve(&SpikeSettings::default()).unwrap();
    assert_eq!(beyond.load_prediction.arbitrage.multiplier, 20.0, "beyond history nothing is known");
    assert!(problem(f64::NAN).solve(&SpikeSettings::default()).unwrap_err().to_string().contains("volatilityBp"));
    let mut wrong = problem(2.0);
    wrong.groups.risk.cores_per_shard = 0.0;
    assert!(wrong.solve(&SpikeSettings::default()).unwrap_err().to_string().contains("groups.risk"));
}

#[test]
fn functions_belong_to_groups_by_their_words() {
    let words = SpikeSettings::default().words;
    for (function, protocol, group) in [
        ("price_arbitrage", "uniswap", Some(LoadGroup::Arbitrage)),
        ("scan", "arbitrage", Some(LoadGroup::Arbitrage)),
        ("optimize", "aave", Some(LoadGroup::Yield)),
        ("check_liquidation", "other", Some(LoadGroup::Risk)),
        ("swap", "curve", Some(LoadGroup::Trading)),
        ("hash", "other", None),
    ] {
        assert_eq!(LoadGroup::of(&function.into(), &protocol.into(), &words), group, "{function} {protocol}");
    }
}
