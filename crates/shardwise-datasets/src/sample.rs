//! A small history made by hand for tests: two routers, three shards, ties in time, slow and lost outcomes. It plays the
//! routers' runtime itself, so what it logs is independent of the replay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polars::prelude::DataFrame;
use shardwise_features::{DecisionContext, DecisionFeatures, FeatureVector, RouterState, Ticket};
use shardwise_types::{
    DecidedBy, DecisionRecord, DirectiveRecord, ErrorClass, FallbackReason, FleetSnapshot, HardwareClass,
    HistoryRecord, MarketRecord, MarketSnapshot, Network, OutcomeRecord, PlacementRequest, Placements, ReportRecord,
    Residence, Resized, Response, RouterId, ShadowRecord, ShardReport, ShardShape, Timestamp, UsdAmount, combine_keys,
};

use crate::columns::{Cell, TableBuffer};
use crate::files::{parquet_files, read_parquet, write_parquet};
use crate::history::HistoryWriter;
use crate::schema::Table;
use crate::values::Values;

const SHARDS: [(&str, &str, f32, f32); 3] =
    [("shard-a", "us-east", 4.0, 1.0), ("shard-b", "us-west", 2.0, 1.4), ("shard-c", "us-east", 1.0, 0.7)];
const FUNCTIONS: [(&str, f32); 4] = [("price", 8.0), ("risk", 30.0), ("report", 120.0), ("sync", 3.0)];
const ROUTERS: [(&str, &str); 2] = [("router-1", "us-east"), ("router-2", "us-west")];

pub(crate) fn network() -> Network {
    Network {
        regions: vec!["us-east".into(), "us-west".into()],
        rtt_ms: vec![0.5, 60.0, 60.0, 0.5],
        exchanges: vec![("kraken".into(), "us-west".into())],
        default_region: "us-east".into(),
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A number in [0, 1) that belongs to `n` and `salt`.
fn fraction(n: u64, salt: u64) -> f32 {
    (combine_keys(n + 1, salt) >> 40) as f32 / (1_u32 << 24) as f32
}

/// Records in their total order: a decision every `step_ms` over `minutes` from `start` on.
pub(crate) fn history(start: &str, minutes: f64, step_ms: f64) -> Vec<HistoryRecord> {
    let start = at(start);
    let mut records = Vec::new();
    for minute in 0..minutes.ceil() as u64 {
        let now = start.plus_millis(minute as f64 * 60_000.0);
        records.extend((0..SHARDS.len()).map(|shard| report(now, minute, shard)));
        records.push(market(now, minute));
        records.extend((0..ROUTERS.len()).filter_map(|router| directive(now, minute, router)));
    }
    let decisions = (minutes * 60_000.0 / step_ms) as u64;
    for n in 0..decisions {
        // Every tenth decision is made at the instant of the one before.
        let tied = if n % 10 == 9 { n - 1 } else { n };
        let decision = decision(n, start.plus_millis(5.0 + tied as f64 * step_ms));
        let (outcome, shadows) = (outcome(n, &decision), shadows(n, &decision));
        // The sort below keeps the order of what shares a place: what is said of a decision comes behind it.
        records.push(HistoryRecord::Decision(Box::new(decision)));
        records.extend(shadows);
        records.extend(outcome);
    }
    records.sort_by_key(HistoryRecord::order);
    log_features(&mut records);
    records
}

fn report(known_at: Timestamp, minute: u64, shard: usize) -> HistoryRecord {
    let (name, region, cores, _) = SHARDS[shard];
    let n = minute * 3 + shard as u64;
    let hardware = HardwareClass::ALL[shard];
    let max_amount_usd = (shard == 2).then_some(1e4);
    let shape =
        ShardShape { region: region.into(), cores, clock_ghz: 3.0, memory_mb: 8192.0, hardware, max_amount_usd };
    let report = ShardReport {
        event_at: known_at.plus_millis(-40.0),
        known_at,
        healthy: n % 41 != 40,
        cpu: fraction(n, 1),
        memory: 0.4,
        queue_len: (fraction(n, 2) * 6.0) as u32,
        running: 2,
        error_rate: 0.0,
        mean_latency_ms: 20.0 + 30.0 * fraction(n, 3),
    };
    HistoryRecord::Report(Box::new(ReportRecord {
        sequence: shard as u64,
        router: None,
        shard: name.into(),
        shape,
        report,
    }))
}

fn market(known_at: Timestamp, minute: u64) -> HistoryRecord {
    HistoryRecord::Market(MarketRecord {
        sequence: 10,
        router: None,
        event_at: known_at,
        known_at,
        instrument: "BTC-PERP".to_owned(),
        price_usd: 40_000.0 + minute as f64,
        volume: 3.0,
        volatility_bp: (minute > 0).then(|| 5.0 + fraction(minute, 4)),
        trend_bp: (minute > 0).then(|| fraction(minute, 5) - 0.5),
    })
}

/// Every third minute each router is told what to avoid, what is kept warm, and at times to leave a shard alone.
fn directive(known_at: Timestamp, minute: u64, router: usize) -> Option<HistoryRecord> {
    let pair = |function: u64, shard: u64| {
        Residence::new(FUNCTIONS[(function % 4) as usize].0, SHARDS[(shard % 3) as usize].0)
    };
    let placements = Placements::new(
        [pair(minute, minute)].into(),
        (0..minute % 4).map(|n| pair(minute + n, n)).collect(),
        if minute.is_multiple_of(2) { [SHARDS[1].0.into()].into() } else { [].into() },
    );
    (minute % 3 == 1).then(|| {
        HistoryRecord::Directive(Box::new(DirectiveRecord {
            sequence: 11,
            event_at: known_at.plus_millis(-2.0),
            known_at,
            router: ROUTERS[router].0.into(),
            placements,
            // Decisions may go to any of the three.
            gone: if minute % 9 == 4 { vec!["shard-gone".into()] } else { vec![] },
            resized: match minute % 9 {
                7 => Resized { shards: vec![SHARDS[0].0.into()], cores: vec![1.5], memory_mb: vec![2_048.0] },
                _ => Resized::default(),
            },
        }))
    })
}

fn decision(n: u64, known_at: Timestamp) -> DecisionRecord {
    let (function, _) = FUNCTIONS[(fraction(n, 6) * 4.0) as usize];
    let (router, router_region) = ROUTERS[(n % 2) as usize];
    let (shard, ..) = SHARDS[(fraction(n, 7) * 3.0) as usize];
    let json = format!(
        r#"{{"function":"{function}","type":"PriceUpdated","protocol":"aave","exchange":"kraken","exchangeCalls":1,"eventAt":{}}}"#,
        known_at.plus_millis(-3.0).nanos()
    );
    let request = PlacementRequest::from_json(&json).unwrap();
    DecisionRecord {
        decision_id: n,
        sequence: 100 + n,
        known_at,
        router: router.into(),
        router_region: router_region.into(),
        request: PlacementRequest {
            amount_usd: n.is_multiple_of(3).then(|| UsdAmount::new(100.0 * n as f64).unwrap()),
            data_complexity: 0.5 + fraction(n, 8),
            residency: (n % 50 == 7).then(|| "us-east".into()),
            market: (n % 20 == 3).then_some(MarketSnapshot { volatility: Some(3.0), trend: None }),
            ..request
        },
        shard: shard.into(),
        propensity: 1.0 / 3.0,
        eligible: 3,
        predicted_ms: n.is_multiple_of(2).then_some(12.5),
        policy: "random".to_owned(),
        decided_by: DecidedBy::Policy,
        fallback_reason: None,
        model_version: None,
        logged_shards: Vec::new(),
        logged_features: Vec::new(),
    }
}

/// Every 97th decision is never answered, every 50th only after two minutes, every 31st fails.
fn outcome(n: u64, decision: &DecisionRecord) -> Option<HistoryRecord> {
    let base = FUNCTIONS.iter().find(|(name, _)| *name == decision.request.function.as_str())?.1;
    let speed = SHARDS.iter().find(|(name, ..)| *name == decision.shard.as_str())?.3;
    let exec_ms = base * speed * (0.7 + 0.6 * fraction(n, 9));
    let delay_ms = if n % 50 == 49 { 120_000.0 } else { 0.0 };
    let queue_ms = 4.0 * fraction(n, 10) + delay_ms;
    let total_ms = exec_ms + queue_ms + 3.0;
    let known_at = decision.known_at.plus_millis(f64::from(total_ms));
    let error = (n % 31 == 30).then_some(ErrorClass::Failed);
    let response =
        Response { error, total_ms, exec_ms, queue_ms, queue_len: (n % 4) as u32, cold: n.is_multiple_of(23) };
    (n % 97 != 96).then(|| {
        HistoryRecord::Outcome(OutcomeRecord {
            decision_id: n,
            sequence: 1_000_000 + n,
            event_at: known_at.plus_millis(-1.0),
            known_at,
            router: decision.router.clone(),
            response,
        })
    })
}

/// A challenger speaks of every fourth decision, and of every sixteenth another one too, which has no heads.
fn shadows(n: u64, decision: &DecisionRecord) -> Vec<HistoryRecord> {
    let challengers: &[&str] = match n % 16 {
        2 => &["v1", "v2"],
        6 | 10 | 14 => &["v1"],
        _ => &[],
    };
    let said = |version: &&str| {
        let has_heads = *version == "v1";
        let (shard, ..) = SHARDS[(fraction(n, 11) * 3.0) as usize];
        let expected_ms = 5.0 + f64::from(fraction(n, 12));
        HistoryRecord::Shadow(Box::new(ShadowRecord {
            decision_id: n,
            sequence: decision.sequence,
            event_at: decision.request.event_at,
            known_at: decision.known_at,
            model_version: (*version).to_owned(),
            agrees: decision.shard.as_str() == shard,
            shard: shard.into(),
            expected_ms,
            chosen_expected_ms: (!n.is_multiple_of(5)).then_some(expected_ms + 1.5),
            chosen_exec_ms: has_heads.then_some(2.5 + fraction(n, 13)),
            fallback_reason: (!has_heads).then_some(FallbackReason::NoExecHead),
        }))
    };
    challengers.iter().map(said).collect()
}

/// Plays the routers and logs the features of every fifth decision.
fn log_features(records: &mut [HistoryRecord]) {
    let view = |region: &str| FleetSnapshot::new(Vec::new(), network(), region.into()).unwrap();
    let mut routers: BTreeMap<RouterId, (RouterState, FleetSnapshot)> =
        ROUTERS.iter().map(|(id, region)| ((*id).into(), (RouterState::new(), view(region)))).collect();
    let mut market = MarketSnapshot::default();
    let mut tickets: BTreeMap<u64, (RouterId, Ticket)> = BTreeMap::new();
    for record in records {
        match record {
            HistoryRecord::Decision(decision) => {
                let (router, fleet) = &routers[&decision.router];
                let request = decision.request.clone();
                let decided_at = decision.known_at;
                let context = DecisionContext {
                    request: &request,
                    decided_at,
                    fleet,
                    router,
                    market: &market,
                    service_table: None,
                };
                if decision.decision_id % 5 == 0 {
                    let features = DecisionFeatures::new(&context);
                    for (candidate, shard) in fleet.shards.iter().enumerate() {
                        decision.logged_shards.push(shard.id.clone());
                        decision.logged_features.extend(FeatureVector::extract(&features, candidate).into_array());
                    }
                }
                let ticket = router.on_dispatch(&context, fleet.position(&decision.shard).unwrap());
                tickets.insert(decision.decision_id, (decision.router.clone(), ticket));
            }
            HistoryRecord::Outcome(outcome) => {
                let (router, ticket) = &tickets[&outcome.decision_id];
                routers[router].0.on_response(ticket, &outcome.response, outcome.known_at);
            }
            HistoryRecord::Report(report) => {
                for (router, fleet) in routers.values_mut() {
                    fleet.apply_report(report);
                    router.on_report(&report.shard, report.report.known_at);
                }
            }
            HistoryRecord::Market(minute) => {
                market = MarketSnapshot { volatility: minute.volatility_bp, trend: minute.trend_bp };
            }
            HistoryRecord::Shadow(_) => {}
            HistoryRecord::Directive(directive) => {
                let (router, fleet) = routers.get_mut(&directive.router).unwrap();
                directive.resized.apply(fleet);
                router.on_placements(&fleet.placements, &directive.placements, directive.known_at);
                fleet.placements = Arc::new(directive.placements.clone());
            }
        }
    }
}

/// Compares records value by value; unknown features, which are NaN, are equal.
pub(crate) fn assert_same(found: &[HistoryRecord], expected: &[HistoryRecord]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(format!("{found:?}"), format!("{expected:?}"));
    }
}

/// Writes records as a history.
pub(crate) fn write(dir: &Path, records: &[HistoryRecord]) {
    let mut writer = HistoryWriter::create(dir, &network(), None).unwrap();
    records.iter().for_each(|record| writer.record(record.clone()).unwrap());
    writer.finish().unwrap();
}

/// The first file of a table's day.
pub(crate) fn file_of(history: &Path, table: Table, day: &str) -> PathBuf {
    parquet_files(&history.join(table.name()).join(format!("date={day}"))).unwrap().remove(0)
}

/// Replaces one value of a file.
pub(crate) fn edit(path: &Path, specs: &[crate::ColumnSpec], column: &str, row: usize, cell: Cell<'_>) {
    let frame = read_parquet(path, None).unwrap();
    let spec = *specs.iter().find(|spec| spec.name == column).unwrap();
    let values = Values::of(&frame, &spec).unwrap();
    let mut buffer = TableBuffer::new([spec]);
    for at in 0..frame.height() {
        buffer.push([if at == row { cell } else { values.cell(at) }]);
    }
    let mut frame: DataFrame = frame;
    frame.with_column(buffer.take().remove(0)).unwrap();
    write_parquet(path, &mut frame).unwrap();
}

/// The names in a folder, to see what a failure leaves.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    crate::files::names_in(dir).unwrap()
}
