//! Claims about the strategies together, on a small fleet by hand and on many by chance.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use shardwise_features::golden::GoldenContext;
use shardwise_types::{ErrorClass, Response, RiskLevel, ShardId, Urgency};

use super::*;
use crate::samples::named_fleet;
use crate::{LocalConfig, Rejection, RiskConfig, is_eligible};

const FLEET: [&str; 7] = [
    "shard-critical-primary",
    "shard-general",
    "shard-institutional-primary",
    "shard-overflow",
    "shard-us-east-1",
    "shard-whale-primary",
    "shard-whale-secondary",
];

/// Half loaded and without limits of amount; a medium request of 100 dollars.
fn fleet() -> GoldenContext {
    let mut golden = named_fleet(&FLEET.map(|name| (name, 0.5)));
    golden.fleet.shards.iter_mut().for_each(|shard| shard.shape.max_amount_usd = None);
    golden.request.risk = RiskLevel::Medium;
    golden.request.urgency = Urgency::Medium;
    golden.request.amount_usd = UsdAmount::new(100.0).ok();
    golden
}

fn constrained(names: &[StrategyName]) -> Strategies {
    let mut config = StrategiesConfig::default();
    names.iter().for_each(|name| set_mode(&mut config, *name, Mode::Constraint));
    Strategies::new(config).unwrap()
}

fn set_mode(config: &mut StrategiesConfig, name: StrategyName, mode: Mode) {
    match name {
        StrategyName::Protocol => config.protocol.mode = mode,
        StrategyName::Risk => config.risk.mode = mode,
        StrategyName::Geographic => config.geographic.mode = mode,
        StrategyName::Resource => config.resource.mode = mode,
    }
}

/// The candidates by name without `shard-`, and the rung.
fn candidates(strategies: &Strategies, golden: &GoldenContext) -> (Vec<String>, Option<Widening>) {
    let mut out = Vec::new();
    let rung = strategies.candidates(&golden.context(), &mut out);
    let name = |position: &usize| golden.fleet.shards[*position].id.as_str().trim_start_matches("shard-").to_owned();
    (out.iter().map(name).collect(), rung.ok())
}

fn break_down(golden: &mut GoldenContext, names: &[&str]) {
    for name in names {
        let position = golden.fleet.position(&format!("shard-{name}").into()).unwrap();
        golden.fleet.shards[position].report.as_mut().unwrap().healthy = false;
    }
}

fn fill_up(golden: &mut GoldenContext, name: &str) {
    let position = golden.fleet.position(&format!("shard-{name}").into()).unwrap();
    golden.fleet.shards[position].report.as_mut().unwrap().cpu = 1.0;
}

#[test]
fn every_rung_of_the_ladder_is_reached_in_its_turn() {
    let (strategies, mut golden) = (constrained(&[StrategyName::Risk]), fleet());
    let mut claim = |down: &[&str], left: &[&str], rung: Option<Widening>| {
        break_down(&mut golden, down);
        let expected = (left.iter().map(|name| (*name).to_owned()).collect(), rung);
        assert_eq!(candidates(&strategies, &golden), expected, "after {down:?} went down");
    };
    claim(&[], &["institutional-primary"], Some(Widening::None));
    claim(&["institutional-primary"], &["whale-primary", "whale-secondary"], Some(Widening::HigherTier));
    claim(&["whale-primary", "whale-secondary"], &["critical-primary"], Some(Widening::HigherTier));
    claim(&["critical-primary"], &["general"], Some(Widening::General));
    claim(&["general"], &["overflow", "us-east-1"], Some(Widening::AnyHealthy));
    let now = golden.decided_at;
    golden.decided_at = now.plus_millis(60_000.0);
    assert_eq!(candidates(&strategies, &golden).1, Some(Widening::Doubtful));
    break_down(&mut golden, &["overflow", "us-east-1"]);
    let refusal = strategies.candidates(&golden.context(), &mut Vec::new()).unwrap_err();
    assert_eq!((refusal.shards, refusal.unhealthy), (7, 7));
}

#[test]
fn amounts_are_never_widened() {
    let (strategies, mut golden) = (constrained(&[StrategyName::Risk]), fleet());
    golden.request.amount_usd = UsdAmount::new(2e7).ok();
    assert_eq!(candidates(&strategies, &golden), (vec!["whale-primary".to_owned()], Some(Widening::None)));
    let silent = golden.decided_at.plus_millis(-60_000.0);
    golden.fleet.shards[5].report.as_mut().unwrap().event_at = silent;
    assert_eq!(candidates(&strategies, &golden), (vec!["whale-primary".to_owned()], Some(Widening::Doubtful)));
    break_down(&mut golden, &["whale-primary"]);
    let refusal = strategies.candidates(&golden.context(), &mut Vec::new()).unwrap_err();
    assert_eq!((refusal.forbidden, refusal.unhealthy), (6, 1));
    golden.request.amount_usd = UsdAmount::new(2e6).ok();
    assert_eq!(candidates(&strategies, &golden).0, ["whale-secondary"]);
    golden.request.risk = RiskLevel::Critical;
    break_down(&mut golden, &["critical-primary"]);
    assert_eq!(candidates(&strategies, &golden), (vec!["whale-secondary".to_owned()], Some(Widening::AnyHealthy)));
}

#[test]
fn critical_urgency_keeps_capable_shards_while_there_are_any() {
    let (strategies, mut golden) = (constrained(&[StrategyName::Risk]), fleet());
    golden.request.urgency = Urgency::Critical;
    break_down(&mut golden, &["institutional-primary"]);
    assert_eq!(candidates(&strategies, &golden), (vec!["whale-primary".to_owned()], Some(Widening::HigherTier)));
    break_down(&mut golden, &["whale-primary", "critical-primary"]);
    assert_eq!(candidates(&strategies, &golden).1, Some(Widening::AnyHealthy), "general shards are not capable");
}

#[test]
fn each_strategy_constrains_by_what_it_would_take_itself() {
    let mut golden = fleet();
    golden.request.protocol = "unheard-of".into();
    golden.request.exchange = "unheard-of".into();
    let protocol = constrained(&[StrategyName::Protocol]);
    assert_eq!(candidates(&protocol, &golden), (vec!["general".to_owned()], Some(Widening::None)));
    let geographic = constrained(&[StrategyName::Geographic]);
    assert_eq!(candidates(&geographic, &golden), (vec!["us-east-1".to_owned()], Some(Widening::None)));
    fill_up(&mut golden, "us-east-1");
    assert_eq!(candidates(&geographic, &golden).1, Some(Widening::AnyHealthy));
    let resource = constrained(&[StrategyName::Resource]);
    assert_eq!(candidates(&resource, &golden).0.len(), 6, "no core is free in us-east-1");
    FLEET.iter().for_each(|name| fill_up(&mut golden, name.trim_start_matches("shard-")));
    assert_eq!(candidates(&resource, &golden), (vec!["overflow".to_owned()], Some(Widening::General)));
    let both = constrained(&[StrategyName::Protocol, StrategyName::Resource]);
    assert_eq!(candidates(&both, &golden).1, Some(Widening::AnyHealthy), "each shard breaks one of them");
}

#[test]
fn the_first_strategy_that_keeps_to_its_map_decides() {
    let (strategies, mut golden) = (Strategies::default(), fleet());
    let decide = |strategies: &Strategies, golden: &GoldenContext| {
        let (mut positions, mut ranking) = (Vec::new(), Ranking::default());
        strategies.candidates(&golden.context(), &mut positions).unwrap();
        let decided_by = strategies.fall_back(&golden.context(), &positions, &mut ranking);
        (decided_by, ranking.best().map(|best| golden.fleet.shards[best.position].id.to_string()))
    };
    let by = |decided_by, shard: &str| (Some(decided_by), Some(format!("shard-{shard}")));
    assert_eq!(decide(&strategies, &golden), by(DecidedBy::RiskStrategy, "institutional-primary"));
    break_down(&mut golden, &["institutional-primary"]);
    golden.request.protocol = "unheard-of".into();
    assert_eq!(decide(&strategies, &golden), by(DecidedBy::ProtocolStrategy, "general"));
    break_down(&mut golden, &["general"]);
    golden.request.exchange = "unheard-of".into();
    assert_eq!(decide(&strategies, &golden), by(DecidedBy::GeographicStrategy, "us-east-1"));
    break_down(&mut golden, &["us-east-1"]);
    assert_eq!(decide(&strategies, &golden).0, Some(DecidedBy::ResourceMatcher));
    strategies.update(|config| config.resource.mode = Mode::Off).unwrap();
    assert_eq!(decide(&strategies, &golden), (None, None));
    strategies.update(|config| config.order.clear()).unwrap();
    assert_eq!(decide(&strategies, &fleet()), (None, None));
}

#[test]
fn maps_grow_while_the_strategies_decide_and_what_was_learned_stays() {
    let (strategies, mut golden) = (Strategies::default(), fleet());
    golden.request.protocol = "lido".into();
    strategies.update(|config| config.order = vec![StrategyName::Protocol]).unwrap();
    let affinity = || {
        let mut ranking = Ranking::default();
        let all: Vec<usize> = (0..FLEET.len()).collect();
        strategies.fall_back(&golden.context(), &all, &mut ranking)?;
        let best = ranking.best()?;
        Some((golden.fleet.shards[best.position].id.to_string(), best.parts[1].1))
    };
    assert_eq!(affinity(), Some(("shard-general".to_owned(), 0.3 * 0.5)));
    fail(&strategies, &golden, 4);
    let made_for_it = || vec![ShardId::from("shard-us-east-1")];
    strategies.update(|config| drop(config.protocol.shards.insert("lido".into(), made_for_it()))).unwrap();
    assert_eq!(affinity(), Some(("shard-us-east-1".to_owned(), 0.0)), "its failure is remembered");
    let refused = strategies.update(|config| config.protocol.max_load = 2.0).unwrap_err();
    assert_eq!(refused.field, "protocol.max_load");
    assert_eq!(affinity(), Some(("shard-us-east-1".to_owned(), 0.0)), "all stays as it is");
    let mut other_window = StrategiesConfig::clone(&strategies.config());
    other_window.protocol.executions.window = 10;
    strategies.replace(other_window).unwrap();
    assert_eq!(affinity(), Some(("shard-us-east-1".to_owned(), 0.3 * 0.5)), "another window begins anew");
}

#[test]
fn no_change_is_lost_between_threads() {
    let (strategies, golden) = (Strategies::default(), fleet());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let strategies = &strategies;
            let add = move |i: usize| {
                let protocol = format!("protocol-{thread}-{i}");
                strategies
                    .update(|config| {
                        config.protocol.shards.insert(protocol.as_str().into(), vec!["shard-general".into()]);
                    })
                    .unwrap();
            };
            scope.spawn(move || (0..5).for_each(add));
        }
        scope.spawn(|| (0..1_000).for_each(|_| assert_eq!(candidates(&strategies, &golden).0.len(), FLEET.len())));
    });
    assert_eq!(strategies.config().protocol.shards.len(), 5 + 20);
}

#[test]
fn the_router_runs_what_is_small_and_may_stay() {
    let mut golden = fleet();
    golden.request.memory_mb = 256.0;
    assert!(!Strategies::default().may_run_locally(&golden.context()), "not enabled");
    let local = LocalConfig { enabled: true, max_amount_usd: 1e9, ..LocalConfig::default() };
    let strategies = Strategies::new(StrategiesConfig { local, ..StrategiesConfig::default() }).unwrap();
    assert!(strategies.may_run_locally(&golden.context()));
    golden.request.amount_usd = UsdAmount::new(2e6).ok();
    assert!(strategies.may_run_locally(&golden.context()));
    strategies.update(|config| config.risk.mode = Mode::Constraint).unwrap();
    assert!(!strategies.may_run_locally(&golden.context()), "bound to the high tiers");
    golden.request.amount_usd = None;
    assert!(strategies.may_run_locally(&golden.context()));
    golden.request.residency = Some("elsewhere".into());
    assert!(!strategies.may_run_locally(&golden.context()));
    golden.request.residency = Some(golden.fleet.router_region.clone());
    assert!(strategies.may_run_locally(&golden.context()));
    golden.request.memory_mb = 1_024.0;
    assert!(!strategies.may_run_locally(&golden.context()));
}

/// A failure of the request on the shard at a position.
fn fail(strategies: &Strategies, golden: &GoldenContext, position: usize) {
    let ticket = golden.router.on_dispatch(&golden.context(), position);
    let error = Some(ErrorClass::Failed);
    let response = Response { error, total_ms: 1.0, exec_ms: 1.0, queue_ms: 0.0, queue_len: 0, cold: false };
    strategies.on_response(&Observed {
        request: &golden.request,
        shard: &golden.fleet.shards[position].id,
        ticket: &ticket,
        response: &response,
        known_at: golden.decided_at,
    });
}

/// Makes it some of the fleet, each shard in any state, and any request.
fn disturb(golden: &mut GoldenContext, all: &[ShardSnapshot], rng: &mut StdRng) {
    golden.fleet.shards = all.iter().filter(|_| rng.random_bool(0.7)).cloned().collect();
    for shard in &mut golden.fleet.shards {
        shard.shape.max_amount_usd = [None, None, Some(1e5), Some(5e6)][rng.random_range(0..4)];
        shard.shape.region = ["us-east", "us-west", "asia-pacific"][rng.random_range(0..3)].into();
        let report = shard.report.as_mut().unwrap();
        report.healthy = rng.random_bool(0.8);
        report.cpu = [0.0, 0.3, 0.82, 0.9, 1.0, f32::NAN][rng.random_range(0..6)];
        report.mean_latency_ms = [0.0, 40.0, 5_000.0, f32::NAN][rng.random_range(0..4)];
        report.event_at = golden.decided_at.plus_millis(-rng.random_range(0.0..5_000.0));
    }
    let request = &mut golden.request;
    let amounts = [None, Some(0.0), Some(1e6), Some(1.5e6), Some(1e7), Some(2e7)];
    request.amount_usd = amounts[rng.random_range(0..6)].and_then(|usd| UsdAmount::new(usd).ok());
    request.risk = RiskLevel::ALL[rng.random_range(0..4)];
    request.urgency = Urgency::ALL[rng.random_range(0..4)];
    request.protocol = ["uniswap", "unheard-of"][rng.random_range(0..2)].into();
    request.exchange = ["binance", "kraken", "unheard-of"][rng.random_range(0..3)].into();
}

/// So many fleets and requests by chance. The router's memory is made once, which takes longest.
fn by_chance(seed: u64, times: usize, mut claim: impl FnMut(&GoldenContext, &mut StdRng)) {
    let (mut rng, mut golden) = (StdRng::seed_from_u64(seed), fleet());
    let all = golden.fleet.shards.clone();
    for _ in 0..times {
        disturb(&mut golden, &all, &mut rng);
        claim(&golden, &mut rng);
    }
}

fn any_modes(rng: &mut StdRng) -> StrategiesConfig {
    let mut config = StrategiesConfig::default();
    for name in StrategyName::ALL {
        set_mode(&mut config, name, [Mode::Off, Mode::Fallback, Mode::Constraint][rng.random_range(0..3)]);
    }
    config
}

/// The rule of amounts, said once more and otherwise.
fn amount_may_go(golden: &GoldenContext, shard: &ShardId) -> bool {
    let config = RiskConfig::default();
    match golden.request.amount_usd.map_or(0.0, UsdAmount::usd) {
        usd if usd > 1e7 => shard.as_str() == "shard-whale-primary",
        usd if usd > 1e6 => {
            config.shards[&RiskLevel::High].contains(shard) || config.shards[&RiskLevel::Critical].contains(shard)
        }
        _ => true,
    }
}

#[test]
fn no_mode_breaks_a_hard_rule() {
    let strategies = Strategies::default();
    let (mut positions, mut ranking, mut refused) = (Vec::new(), Ranking::default(), 0);
    by_chance(5, 3_000, |golden, rng| {
        let config = any_modes(rng);
        strategies.replace(config.clone()).unwrap();
        let context = golden.context();
        let is_bound = config.risk.mode == Mode::Constraint;
        let verdict = strategies.candidates(&context, &mut positions);
        refused += u32::from(verdict.is_err());
        for (position, shard) in golden.fleet.shards.iter().enumerate() {
            let is_candidate = positions.contains(&position);
            assert_eq!(strategies.is_allowed(&context, position), is_candidate, "the audit agrees");
            let usd = golden.request.amount_usd.map_or(0.0, UsdAmount::usd);
            let keeps_limit = shard.shape.max_amount_usd.is_none_or(|limit| usd <= limit);
            let keeps_ladder = !is_bound || amount_may_go(golden, &shard.id);
            assert!(!is_candidate || shard.is_healthy() && keeps_limit && keeps_ladder, "{}", shard.id);
            let is_doubtful = !is_eligible(&context, &config.rules, position);
            assert!(!is_candidate || !is_doubtful || verdict == Ok(Widening::Doubtful), "{}", shard.id);
        }
        let decided_by = strategies.fall_back(&context, &positions, &mut ranking);
        if let Some(best) = ranking.best() {
            assert!(decided_by.is_some() && positions.contains(&best.position));
            let by_risk = decided_by == Some(DecidedBy::RiskStrategy);
            assert!(!by_risk || amount_may_go(golden, &golden.fleet.shards[best.position].id));
        }
    });
    assert!((100..2_000).contains(&refused), "both must be tried: {refused}");
}

#[test]
fn without_constraints_the_candidates_are_the_eligible() {
    let strategies = Strategies::default();
    by_chance(6, 500, |golden, _| {
        let (mut all, mut some) = (Vec::new(), Vec::new());
        let verdict = eligible(&golden.context(), &Rules::default(), &mut all);
        let rung = strategies.candidates(&golden.context(), &mut some);
        assert_eq!((verdict.err(), all), (rung.clone().err(), some));
        assert!(matches!(rung, Ok(Widening::None | Widening::Doubtful) | Err(_)));
    });
}

#[test]
fn rankings_are_total_explained_and_the_same_in_any_order() {
    let snapshot = Snapshot::new(StrategiesConfig::default(), None).unwrap();
    let (mut ranking, mut again) = (Ranking::default(), Ranking::default());
    by_chance(7, 500, |golden, rng| {
        let mut positions: Vec<usize> = (0..golden.fleet.shards.len()).collect();
        for strategy in StrategyName::ALL.map(|name| snapshot.strategy(name)) {
            strategy.rank(&golden.context(), &positions, &mut ranking);
            positions.shuffle(rng);
            strategy.rank(&golden.context(), &positions, &mut again);
            assert_eq!(format!("{ranking:?}"), format!("{again:?}"));
            check_ranking(&ranking, positions.len());
        }
    });
}

fn check_ranking(ranking: &Ranking, eligible: usize) {
    let pairs = ranking.ranked.windows(2);
    let order = |pair: &[crate::Ranked]| (-pair[0].score, pair[0].position) < (-pair[1].score, pair[1].position);
    assert!(pairs.into_iter().all(order), "best first, ties by position: {ranking:?}");
    for ranked in &ranking.ranked {
        let sum: f64 = ranked.parts.iter().map(|(_, part)| part).sum();
        assert_eq!(sum, ranked.score, "the parts add up");
    }
    let rejected: Vec<usize> = ranking.rejected.iter().map(|(position, _)| *position).collect();
    assert!(rejected.is_sorted_by(|a, b| a < b), "each once");
    let mut all: Vec<usize> = ranking.ranked.iter().map(|ranked| ranked.position).chain(rejected).collect();
    all.sort_unstable();
    assert!(ranking.widening != Widening::None || all.is_sorted_by(|a, b| a < b), "ranked or rejected");
    all.dedup();
    assert_eq!(all.len(), eligible, "every shard is accounted for");
}

#[test]
fn rejections_say_why() {
    let mut golden = fleet();
    golden.request.protocol = "unheard-of".into();
    fill_up(&mut golden, "general");
    let mut ranking = Ranking::default();
    let why = |strategy: &dyn Strategy, golden: &GoldenContext, ranking: &mut Ranking| {
        strategy.rank(&golden.context(), &[1, 3, 6], ranking);
        (ranking.rejected.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>(), ranking.widening)
    };
    let by_protocol = why(&ProtocolStrategy::default(), &golden, &mut ranking);
    assert_eq!(by_protocol, (vec!["full", "not_in_map", "not_in_map"], Widening::General));
    let by_resource = why(&ResourceMatcher::default(), &golden, &mut ranking);
    assert_eq!(by_resource, (vec!["cpu_too_small"], Widening::None));
    golden.request.amount_usd = UsdAmount::new(2e6).ok();
    golden.request.urgency = Urgency::Critical;
    let by_risk = why(&RiskStrategy::default(), &golden, &mut ranking);
    assert_eq!(by_risk, (vec!["amount_too_large", "amount_too_large", "not_capable"], Widening::AnyHealthy));
    assert_eq!(ranking.best().unwrap().position, 6, "what the amount may use comes first even there");
    assert_eq!(Rejection::NotCapable.to_string(), "it is not capable of what is critically urgent");
}

#[test]
fn answers_reuse_their_memory() {
    let all = StrategyName::ALL;
    let (strategies, golden) = (constrained(&all[..2]), fleet());
    let (mut positions, mut ranking) = (Vec::new(), Ranking::default());
    let mut answer = || {
        strategies.candidates(&golden.context(), &mut positions).unwrap();
        for name in all {
            strategies.now.load().strategy(name).rank(&golden.context(), &[0, 1, 2, 3, 4, 5, 6], &mut ranking);
        }
        (positions.as_ptr(), ranking.ranked.as_ptr(), ranking.rejected.as_ptr())
    };
    let first = answer();
    (0..10).for_each(|_| assert_eq!(answer(), first));
}

#[test]
fn strategies_are_shared_between_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Strategies>();
}
