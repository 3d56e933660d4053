//! Histories of a few records, made by hand.

use super::*;
use shardwise_types::{DecidedBy, HardwareClass, PlacementRequest, Response};

fn at(seconds: f64) -> Timestamp {
    Timestamp::default().plus_millis(seconds * 1e3)
}

fn decision(id: u64, seconds: f64, function: &str, shard: &str) -> HistoryRecord {
    let request = format!(
        r#"{{"function":"{function}","type":"PriceUpdated","protocol":"aave","memoryMb":128,"eventAt":"{}"}}"#,
        at(seconds)
    );
    HistoryRecord::Decision(Box::new(DecisionRecord {
        decision_id: id,
        sequence: id,
        known_at: at(seconds),
        router: "r".into(),
        router_region: "us-east".into(),
        request: PlacementRequest::from_json(&request).unwrap(),
        shard: shard.into(),
        propensity: 1.0,
        eligible: 1,
        predicted_ms: None,
        policy: "p".to_owned(),
        decided_by: DecidedBy::Policy,
        fallback_reason: None,
        model_version: None,
        logged_shards: vec![],
        logged_features: vec![],
    }))
}

fn outcome(id: u64, seconds: f64, exec_ms: f32, cold: bool, error: Option<ErrorClass>) -> HistoryRecord {
    HistoryRecord::Outcome(OutcomeRecord {
        decision_id: id,
        sequence: 1_000 + id,
        event_at: at(seconds),
        known_at: at(seconds),
        router: "r".into(),
        response: Response { error, total_ms: exec_ms + 2.0, exec_ms, queue_ms: 1.0, queue_len: 0, cold },
    })
}

fn report(seconds: f64, shard: &str, cpu: f32) -> HistoryRecord {
    HistoryRecord::Report(Box::new(ReportRecord {
        sequence: 0,
        router: None,
        shard: shard.into(),
        shape: ShardShape {
            region: "us-east".into(),
            cores: 2.0,
            clock_ghz: 3.0,
            memory_mb: 4096.0,
            hardware: HardwareClass::General,
            max_amount_usd: None,
        },
        report: ShardReport {
            event_at: at(seconds),
            known_at: at(seconds),
            healthy: true,
            cpu,
            memory: 0.5,
            queue_len: 3,
            running: 1,
            error_rate: 0.0,
            mean_latency_ms: 12.0,
        },
    }))
}

fn seen(records: &[HistoryRecord]) -> Observations {
    let mut observations = Observations::new(ObservationSettings::default()).unwrap();
    records.iter().for_each(|record| observations.observe(record).unwrap());
    observations
}

#[test]
fn reports_become_series_of_finished_minutes() {
    let observations = seen(&[report(0.0, "a", 0.2), report(30.0, "a", 0.4), report(150.0, "a", 0.9)]);
    let shard = observations.shards()[0];
    let cpu = shard.series(Metric::Cpu).values;
    assert!((cpu[0] - 0.3).abs() < 1e-6 && cpu[1].is_nan() && cpu.len() == 2, "{cpu:?}");
    assert_eq!(shard.series(Metric::QueuePerCore).values[0], 1.5);
    assert_eq!(shard.last.unwrap().0.cores, 2.0);
}

#[test]
fn outcomes_belong_to_the_function_and_shard_of_their_decision() {
    let observations = seen(&[
        decision(1, 0.0, "f", "a"),
        decision(2, 0.0, "f", "b"),
        outcome(1, 1.0, 10.0, false, None),
        outcome(2, 2.0, 30.0, false, Some(ErrorClass::Failed)),
        outcome(9, 3.0, 30.0, false, None),
    ]);
    let cells = observations.cells();
    assert_eq!(cells.len(), 2);
    assert_eq!((cells[0].shard.as_str(), cells[0].seen.requests, cells[0].seen.errors), ("a", 1.0, 0.0));
    assert_eq!(cells[0].seen.busy_ms, 10.0);
    assert_eq!(cells[1].seen.error_rate(), Some(1.0));
    assert_eq!(cells[1].seen.exec_ms.count, 0.0, "failures say nothing of how long success takes");
    assert_eq!(observations.left_out().unknown_decision, 1);
}

#[test]
fn what_was_called_off_says_nothing() {
    let observations = seen(&[decision(1, 0.0, "f", "a"), outcome(1, 1.0, 5.0, false, Some(ErrorClass::Cancelled))]);
    assert_eq!(observations.cells(), []);
}

#[test]
fn a_load_costs_what_cold_runs_take_more_than_warm_ones() {
    let mut records: Vec<_> = (0..6).map(|id| decision(id, 0.0, "f", "a")).collect();
    records.extend((0..6).map(|id| outcome(id, 1.0, if id < 3 { 60.0 } else { 5.0 }, id < 3, None)));
    let observations = seen(&records);
    let function = observations.functions()[0];
    assert_eq!((function.cold_cost_ms, function.memory_mb), (Some(55.0), 128.0));
    assert_eq!(seen(&records[..8]).functions()[0].cold_cost_ms, None, "too few");
}

#[test]
fn the_window_slides() {
    let old = [decision(1, 0.0, "f", "a"), outcome(1, 1.0, 5.0, false, None)];
    let new = [decision(2, 7200.0, "g", "a"), outcome(2, 7201.0, 5.0, false, None)];
    assert_eq!(seen(&[&old[..], &[report(7200.0, "a", 0.1)]].concat()).cells(), [], "whether others come or not");
    let observations = seen(&[old, new].concat());
    assert_eq!(observations.cells().len(), 1, "the first is two hours old");
    assert_eq!(observations.functions()[0].arrivals().values.iter().sum::<f64>(), 1.0, "arrivals are kept for longer");
    assert!(observations.window_start() > at(3000.0));
}

#[test]
fn records_out_of_order_are_refused_and_not_counted() {
    let mut observations = seen(&[report(120.0, "a", 0.2)]);
    observations.observe(&report(90.0, "b", 0.9)).expect("within a minute order does not matter");
    let error = observations.observe(&report(0.0, "a", 0.9)).unwrap_err();
    assert!(matches!(error, PlanError::OutOfOrder { .. }) && error.to_string().contains("sort"), "{error}");
    assert_eq!(observations.shards()[0].last.unwrap().1.cpu, 0.2);
    assert_eq!(observations.left_out(), LeftOut { too_late: 1, ..LeftOut::default() });
}

#[test]
fn memory_is_bounded_and_what_has_no_room_is_counted() {
    let settings =
        ObservationSettings { most_shards: 1, most_functions: 1, most_pending: 2, ..ObservationSettings::default() };
    let mut observations = Observations::new(settings).unwrap();
    for record in [
        decision(1, 0.0, "f", "a"),
        decision(2, 0.0, "g", "a"),
        decision(3, 0.0, "f", "b"),
        report(0.0, "c", 0.5).with_sequence(3),
        decision(4, 0.0, "f", "a"),
        decision(5, 0.0, "f", "a"),
    ] {
        observations.observe(&record).unwrap();
    }
    assert_eq!((observations.shards().len(), observations.functions().len()), (1, 1));
    assert_eq!((observations.left_out().no_room, observations.left_out().given_up), (3, 1));
}

#[test]
fn decisions_are_given_up_for_those_that_wait_and_not_for_those_that_have_their_outcome() {
    let settings = ObservationSettings { most_pending: 2, ..ObservationSettings::default() };
    let mut observations = Observations::new(settings).unwrap();
    observations.observe(&decision(0, 0.0, "f", "a")).unwrap();
    for id in 1..5_000 {
        observations.observe(&decision(id, 0.0, "f", "a")).unwrap();
        observations.observe(&outcome(id, 0.0, 5.0, false, None)).unwrap();
    }
    assert!(observations.pending_order.len() <= 4 + SETTLED, "{}", observations.pending_order.len());
    observations.observe(&outcome(0, 1.0, 5.0, false, None)).unwrap();
    assert_eq!(observations.left_out(), LeftOut::default(), "never more than two waited");
    assert_eq!(observations.cells()[0].seen.requests, 5_000.0);
}

#[test]
fn who_is_silent_for_long_makes_way_for_new_names() {
    let settings =
        ObservationSettings { keep_minutes: 60, most_shards: 2, most_functions: 2, ..ObservationSettings::default() };
    let mut observations = Observations::new(settings).unwrap();
    let minute = |minute: u32| f64::from(minute) * 60.0;
    let mut told = |records: &[HistoryRecord]| {
        records.iter().for_each(|record| observations.observe(record).unwrap());
        let shards: Vec<String> = observations.shards().iter().map(|shard| shard.id.to_string()).collect();
        let functions: Vec<String> = observations.functions().iter().map(|view| view.id.to_string()).collect();
        (shards.join(" "), functions.join(" "), observations.left_out())
    };
    let none = LeftOut::default();
    let first = told(&[
        decision(1, 0.0, "f", "a-1"),
        decision(2, 0.0, "g", "b-1"),
        outcome(2, 1.0, 5.0, false, None),
        decision(3, minute(30), "f", "a-1"),
    ]);
    assert_eq!(first, ("a-1 b-1".into(), "f g".into(), none));
    let crowded = told(&[report(minute(60), "c-1", 0.1)]);
    assert_eq!(crowded, ("a-1 b-1".into(), "f g".into(), LeftOut { no_room: 1, ..none }), "all were heard of");
    let gone = told(&[report(minute(61), "c-1", 0.1), decision(4, minute(61), "h", "c-1")]);
    assert_eq!(gone, ("a-1 c-1".into(), "f h".into(), LeftOut { no_room: 1, ..none }), "b-1 and g were silent");
    // What still waits belongs to those who left.
    let late = told(&[
        decision(5, minute(200), "i", "d-1"),
        outcome(1, minute(200), 5.0, false, None),
        outcome(5, minute(200), 5.0, false, None),
    ]);
    assert_eq!(late, ("c-1 d-1".into(), "h i".into(), LeftOut { no_room: 1, unknown_decision: 1, ..none }));
    let cells: Vec<String> =
        observations.cells().iter().map(|cell| format!("{} {}", cell.function, cell.shard)).collect();
    assert_eq!(cells, ["i d-1"]);
    assert_eq!(observations.totals()[&FunctionId::new("i")].requests, 1.0);
}

#[test]
fn windows_that_cannot_be_kept_to_are_refused() {
    for (window_minutes, keep_minutes, says) in
        [(11, 2_880, "multiple of 6"), (0, 2_880, "multiple of 6"), (60, 59, "keepMinutes")]
    {
        let settings = ObservationSettings { window_minutes, keep_minutes, ..ObservationSettings::default() };
        let error = Observations::new(settings).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

trait WithSequence {
    fn with_sequence(self, sequence: u64) -> Self;
}

impl WithSequence for HistoryRecord {
    fn with_sequence(mut self, sequence: u64) -> Self {
        if let HistoryRecord::Report(record) = &mut self {
            record.sequence = sequence;
        }
        self
    }
}

/// What a shard says of itself.
pub(crate) fn report_of(shard: &str, at: Timestamp, healthy: bool) -> HistoryRecord {
    let mut record = report(at.millis_since(Timestamp::default()) / 1e3, shard, 0.3).with_sequence(u64::MAX);
    if let HistoryRecord::Report(record) = &mut record {
        record.report.healthy = healthy;
    }
    record
}

/// Seventy minutes in which every shard reports and answers one request of one function, which takes so many ms, a minute; none
/// where that is below 0. `cpu` is the share of its cores in use.
pub(crate) fn history_of(
    shards: &[&str],
    exec_ms: impl Fn(&str, u32) -> f32,
    cpu: impl Fn(&str, u32) -> f32,
) -> Observations {
    let mut records = vec![];
    for minute in 0..70_u32 {
        let seconds = f64::from(minute) * 60.0;
        for (at, shard) in shards.iter().enumerate() {
            let id = u64::from(minute) * shards.len() as u64 + at as u64;
            records.push(report(seconds, shard, cpu(shard, minute)).with_sequence(id));
            let exec_ms = exec_ms(shard, minute);
            if exec_ms >= 0.0 {
                records.push(decision(id, seconds, "f", shard));
                records.push(outcome(id, seconds + 1.0, exec_ms, false, None));
            }
        }
    }
    records.sort_by_key(HistoryRecord::order);
    seen(&records)
}

/// Seventy minutes of one function on two shards, a request a minute on each; b takes five times as long, and every tenth
/// request is cold.
pub(crate) fn small_history() -> Observations {
    let mut records = vec![];
    for minute in 0..70_u32 {
        let seconds = f64::from(minute) * 60.0;
        for (at, shard) in ["a", "b"].into_iter().enumerate() {
            let id = u64::from(minute) * 2 + at as u64;
            let exec_ms = (if shard == "a" { 10.0 } else { 50.0 }) + (minute % 7) as f32;
            let cold = minute % 10 == 0;
            records.push(report(seconds, shard, 0.3).with_sequence(id));
            records.push(decision(id, seconds, "f", shard));
            records.push(outcome(id, seconds + 1.0, exec_ms + if cold { 100.0 } else { 0.0 }, cold, None));
        }
    }
    records.sort_by_key(HistoryRecord::order);
    seen(&records)
}
