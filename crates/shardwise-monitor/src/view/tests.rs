use proptest::prelude::*;
use shardwise_types::ShardReport;

use super::*;
use crate::test_support::{at, envelope, envelope_of, network};

fn view() -> FleetView {
    FleetView::new(FleetViewConfig::default(), network(), "us-east".into()).unwrap()
}

fn restored(image: &FleetImage) -> FleetView {
    let json = serde_json::to_string(image).unwrap();
    let image = serde_json::from_str(&json).unwrap();
    FleetView::restore(image, FleetViewConfig::default(), network(), "us-east".into()).unwrap()
}

/// Changes the report of shard a's envelope number 1 and hands it in at second 1.
fn judged(view: &FleetView, change: impl FnOnce(&mut Envelope)) -> Ingested {
    let mut envelope = envelope("a", 1);
    change(&mut envelope);
    view.ingest(&envelope, at(1.0))
}

fn event_at(view: &FleetView, shard: &str) -> Timestamp {
    let snapshot = view.snapshot();
    let place = snapshot.position(&shard.into()).expect("it is known");
    snapshot.shards[place].report.as_ref().expect("it reported").event_at
}

#[test]
fn the_newest_is_followed_and_the_rest_is_told_apart() {
    let view = view();
    let Ingested::New(record) = view.ingest(&envelope("a", 0), at(0.1)) else { panic!("it is new") };
    assert_eq!((record.sequence, record.report.event_at, record.report.known_at), (0, at(0.0), at(0.1)));
    assert!(matches!(view.ingest(&envelope("a", 2), at(2.0)), Ingested::New(_)));
    assert_eq!(view.counts().missing, 1);
    let Ingested::Late(record) = view.ingest(&envelope("a", 1), at(2.1)) else { panic!("it is late") };
    assert_eq!((record.sequence, record.report.event_at), (2, at(1.0)));
    for number in 0..3 {
        assert_eq!(view.ingest(&envelope("a", number), at(2.2)), Ingested::Duplicate);
    }
    assert_eq!(event_at(&view, "a"), at(2.0));
    let counts = view.counts();
    assert_eq!((counts.new, counts.late, counts.duplicates, counts.missing, counts.unsaved), (2, 1, 3, 0, 3));
    assert_eq!(counts.deliveries(), 6);
}

#[test]
fn what_cannot_be_is_not_followed() {
    type Change = fn(&mut Envelope);
    let impossible: [(&str, Change); 16] = [
        ("cpu", |envelope| envelope.report.cpu = -1.0),
        ("cpu", |envelope| envelope.report.cpu = f32::NAN),
        ("memory", |envelope| envelope.report.memory = 1.5),
        ("errorRate", |envelope| envelope.report.error_rate = f32::INFINITY),
        ("meanLatencyMs", |envelope| envelope.report.mean_latency_ms = -1.0),
        ("meanLatencyMs", |envelope| envelope.report.mean_latency_ms = 1e9),
        ("queueLen", |envelope| envelope.report.queue_len = u32::MAX),
        ("running", |envelope| envelope.report.running = 2_000_000),
        ("cores", |envelope| envelope.shape.cores = 0.0),
        ("clockGhz", |envelope| envelope.shape.clock_ghz = f32::NAN),
        ("maxAmountUsd", |envelope| envelope.shape.max_amount_usd = Some(-1.0)),
        ("eventAt", |envelope| envelope.report.event_at = at(3600.0)),
        ("load", |envelope| envelope.standing.load = 7.0),
        ("health", |envelope| envelope.standing.health = f32::NAN),
        ("remainingCores", |envelope| envelope.standing.remaining_cores = 5.0),
        ("sequence", |envelope| envelope.sequence = u64::MAX),
    ];
    let view = view();
    view.ingest(&envelope("a", 0), at(0.0));
    for (times, (field, change)) in impossible.into_iter().enumerate() {
        let Ingested::Distrusted(problem) = judged(&view, change) else { panic!("{field} is believed") };
        assert!(problem.field.ends_with(field), "{problem}");
        let status = view.status(at(7.0));
        let distrust = status.shards[0].distrust.clone().expect("it is visible");
        assert_eq!((distrust.since, distrust.times), (at(1.0), times as u64 + 1));
        assert!(distrust.problem.contains(field));
        assert_eq!((status.shards[0].age_ms, status.shards[0].stale), (Some(7000.0), true), "the good report ages");
        assert_eq!(event_at(&view, "a"), at(0.0));
    }
    assert_eq!(view.counts().distrusted, 16);
    assert!(matches!(judged(&view, |_| ()), Ingested::New(_)));
    assert_eq!(view.status(at(2.0)).shards[0].distrust, None, "a good report mends it");
}

#[test]
fn a_shard_that_never_said_anything_good_is_visible_but_not_in_the_fleet() {
    let view = view();
    judged(&view, |envelope| envelope.report.cpu = 2.0);
    assert!(view.snapshot().shards.is_empty());
    let status = view.status(at(1.0));
    assert_eq!((status.shards.len(), status.shards[0].age_ms, status.shards[0].stale), (1, None, true));
}

#[test]
fn bytes_that_are_no_envelope_are_counted_and_distrusted() {
    let view = view();
    view.ingest(&envelope("a", 0), at(0.0));
    let json = envelope("a", 1).to_json().unwrap();
    let wrong = String::from_utf8(json.to_vec()).unwrap().replace("\"queueLen\":2", "\"queueLen\":-1");
    let subject = envelope("a", 1).subject().unwrap();
    let refused = Envelope::from_json(&subject, wrong.as_bytes()).unwrap_err();
    view.refuse(&refused, at(1.0));
    assert_eq!((view.counts().refused_malformed, view.counts().deliveries()), (1, 2));
    assert!(view.status(at(1.0)).shards[0].distrust.as_ref().unwrap().problem.contains("-1"));
}

#[test]
fn a_new_boot_is_followed_and_the_old_one_is_late() {
    let view = view();
    view.ingest(&envelope_of("a", "boot-1", 100, 100.0), at(100.0));
    let mut reborn = envelope_of("a", "boot-2", 0, 101.0);
    reborn.shape.cores = 8.0;
    assert!(matches!(view.ingest(&reborn, at(101.0)), Ingested::New(_)));
    assert_eq!(view.snapshot().shards[0].shape.cores, 8.0, "its shape is the new one");
    assert!(matches!(view.ingest(&envelope_of("a", "boot-1", 99, 99.0), at(102.0)), Ingested::Late(_)));
    assert_eq!(event_at(&view, "a"), at(101.0));
}

#[test]
fn a_clock_that_was_set_back_does_not_mute_a_shard() {
    let view = view();
    view.ingest(&envelope_of("a", "boot-1", 1, 5.0), at(5.0));
    assert!(matches!(view.ingest(&envelope_of("a", "boot-1", 2, -3600.0), at(6.0)), Ingested::New(_)), "same boot");
    view.ingest(&envelope_of("a", "boot-1", 3, 7.0), at(7.0));
    assert!(matches!(view.ingest(&envelope_of("a", "boot-2", 0, -3600.0), at(8.0)), Ingested::Late(_)));
    assert!(matches!(view.ingest(&envelope_of("a", "boot-2", 1, -3594.0), at(14.0)), Ingested::New(_)), "it took over");
}

#[test]
fn silence_is_noticed_and_nobody_is_removed_for_it() {
    let view = view();
    view.ingest(&envelope("a", 0), at(0.0));
    for second in 1..=5 {
        assert_eq!(view.tick(at(f64::from(second))), []);
    }
    assert!(!view.status(at(5.0)).silent);
    (6..1000).for_each(|second| assert_eq!(view.tick(at(f64::from(second))), []));
    let status = view.status(at(999.0));
    assert!(status.silent && status.silent_ms > 900_000.0);
    assert_eq!(view.snapshot().shards.len(), 1, "decisions go on with what is known");
    view.ingest(&envelope("b", 0), at(1000.0));
    assert!(!view.status(at(1000.0)).silent);
    assert_eq!(view.tick(at(1000.1)), [], "it may be the next to be heard");
}

#[test]
fn shards_that_vanish_are_removed_while_others_report() {
    let view = view();
    let mut addressed = envelope("a", 0);
    addressed.address = Some("http://a".to_owned());
    view.ingest(&addressed, at(0.0));
    view.ingest(&envelope("a", 2), at(0.1));
    view.ingest(&addressed, at(0.2));
    for number in [0, 2] {
        view.saved(&envelope("a", number).id());
    }
    let mut removed = Vec::new();
    for second in 1..=302 {
        view.ingest(&envelope("b", second), at(second as f64));
        removed.extend(view.tick(at(second as f64)));
    }
    assert_eq!(removed, ["a".into()]);
    assert_eq!(view.snapshot().shards.len(), 1);
    assert_eq!((view.counts().removed, view.counts().missing), (1, 1));
    assert!(matches!(view.ingest(&envelope("a", 3), at(303.0)), Ingested::New(_)), "it may come back");
}

#[test]
fn a_clock_that_jumps_ages_and_removes_nobody() {
    let view = view();
    for (step, now) in [0.0, 1.0, 1e8, 1e8 + 1.0, -1e8, -1e8 + 1.0].into_iter().enumerate() {
        view.ingest(&envelope_of("b", "boot-1", step as u64, now), at(now));
        view.ingest(&envelope_of("a", "boot-1", step as u64, now), at(now));
        assert_eq!(view.tick(at(now)), []);
        assert!(!view.status(at(now)).silent);
        assert_eq!(event_at(&view, "a"), at(now));
    }
}

#[test]
fn addresses_follow_the_newest() {
    let view = view();
    let mut moved = envelope("a", 0);
    for (number, address) in [Some("http://a:1"), Some("http://a:2"), None].into_iter().enumerate() {
        moved.sequence = number as u64;
        moved.address = address.map(str::to_owned);
        view.ingest(&moved, at(0.0));
        assert_eq!(view.address(&"a".into()).as_deref(), address);
    }
}

#[test]
fn nonsense_cannot_fill_the_memory() {
    let config = FleetViewConfig { most_shards: 2, ..FleetViewConfig::default() };
    let view = FleetView::new(config, network(), "us-east".into()).unwrap();
    for (shard, fits) in [("a", true), ("b", true), ("c", false), ("d", false), ("a", true)] {
        let ingested = view.ingest(&envelope_of(shard, "boot-1", 1, 1.0), at(1.0));
        assert_eq!(!matches!(ingested, Ingested::Distrusted(_)), fits, "{shard}");
    }
    assert_eq!(view.status(at(1.0)).shards.len(), 2);
}

#[test]
fn settings_out_of_range_are_named() {
    let default = FleetViewConfig::default;
    for (field, config) in [
        ("reportPeriodMs", FleetViewConfig { report_period_ms: 0.0, ..default() }),
        ("staleAfterMs", FleetViewConfig { stale_after_ms: 10.0, ..default() }),
        ("silentAfterPeriods", FleetViewConfig { silent_after_periods: f64::NAN, ..default() }),
        ("removeAfterMs", FleetViewConfig { remove_after_ms: 1.0, ..default() }),
        ("mostShards", FleetViewConfig { most_shards: 0, ..default() }),
    ] {
        let error = FleetView::new(config, network(), "us-east".into()).err().expect(field);
        assert_eq!(error.field, field);
    }
}

#[test]
fn a_restored_view_goes_on_where_the_image_was_taken() {
    let before = view();
    before.ingest(&envelope("a", 0), at(0.0));
    before.saved(&envelope("a", 0).id());
    before.ingest(&envelope("a", 1), at(1.0));
    let after = restored(&before.image());
    assert_eq!(after.snapshot(), before.snapshot(), "decisions go on");
    assert_eq!(after.ingest(&envelope("a", 0), at(2.0)), Ingested::Duplicate);
    let Ingested::New(record) = after.ingest(&envelope("a", 1), at(2.0)) else { panic!("it was not saved") };
    assert_eq!(record.sequence, 2, "no place in the order is used twice");
    let counts = after.counts();
    assert_eq!((counts.new, counts.forgotten, counts.unsaved), (3, 1, 1), "one is in the history");
}

#[test]
fn what_the_history_got_after_the_image_is_a_duplicate() {
    let before = view();
    let image = before.image();
    let Ingested::New(record) = before.ingest(&envelope("a", 4), at(4.0)) else { panic!("it is new") };
    let after = restored(&image);
    after.recover(&record);
    assert_eq!(event_at(&after, "a"), at(4.0));
    assert_eq!(after.ingest(&envelope("a", 4), at(5.0)), Ingested::Duplicate);
    let Ingested::New(next) = after.ingest(&envelope("a", 5), at(5.0)) else { panic!("it is new") };
    assert!(next.sequence > record.sequence);
    assert_eq!(restored(&after.image()).ingest(&envelope("a", 4), at(6.0)), Ingested::Duplicate);
}

proptest! {
    #[test]
    fn whatever_the_order_each_is_kept_once_and_the_newest_is_followed(
        deliveries in proptest::collection::vec((0usize..3, 0u64..20), 1..120),
    ) {
        let view = view();
        let mut kept = Vec::new();
        let mut newest = [None; 3];
        for (count, (shard, number)) in deliveries.iter().enumerate() {
            let name = ["a", "b", "c"][*shard];
            match view.ingest(&envelope(name, *number), at(20.0 + count as f64 / 100.0)) {
                Ingested::New(record) | Ingested::Late(record) => kept.push((name, record.report.event_at)),
                Ingested::Duplicate => prop_assert!(kept.contains(&(name, at(*number as f64)))),
                Ingested::Distrusted(problem) => prop_assert!(false, "{}", problem),
            }
            newest[*shard] = newest[*shard].max(Some(*number));
            prop_assert_eq!(event_at(&view, name), at(newest[*shard].unwrap() as f64));
        }
        let all = kept.len();
        kept.sort();
        kept.dedup();
        prop_assert_eq!(kept.len(), all);
        let counts = view.counts();
        prop_assert_eq!(counts.new + counts.late, all as u64);
        prop_assert_eq!(counts.deliveries(), deliveries.len() as u64);
    }

    #[test]
    fn no_report_makes_the_snapshot_illegal(
        (cpu, memory, error_rate, mean_latency_ms) in (any::<f32>(), any::<f32>(), any::<f32>(), any::<f32>()),
        (cores, queue_len, sequence, seconds) in (any::<f32>(), any::<u32>(), any::<u64>(), -1e9f64..1e9),
    ) {
        let view = view();
        let mut envelope = envelope_of("a", "boot-1", 0, seconds);
        envelope.sequence = sequence;
        envelope.report = ShardReport { cpu, memory, error_rate, mean_latency_ms, queue_len, ..envelope.report };
        envelope.shape.cores = cores;
        view.ingest(&envelope, at(0.0));
        let fleet = FleetSnapshot::clone(&view.snapshot());
        prop_assert!(FleetSnapshot::new(fleet.shards, fleet.network, fleet.router_region).is_ok());
    }
}
