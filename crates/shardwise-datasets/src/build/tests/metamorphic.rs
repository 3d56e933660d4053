//! Claims about what may change without a change of the rows, and which days are built again when something comes late.

use super::*;

/// Every kind of row that is known from an instant on says something else.
fn all_changed_from(records: &[HistoryRecord], from: Timestamp) -> Vec<HistoryRecord> {
    let mut records = perturbed(records, from);
    for record in records.iter_mut().filter(|record| record.order().0 >= from) {
        match record {
            HistoryRecord::Decision(decision) => {
                decision.request.function = "risk".into();
                decision.request.data_complexity += 1.0;
                decision.shard = "shard-a".into();
                decision.propensity = 0.5;
            }
            HistoryRecord::Report(report) => {
                report.report.cpu = 1.0 - report.report.cpu;
                report.report.queue_len += 7;
                report.report.event_at = report.report.event_at.plus_millis(-500.0);
            }
            HistoryRecord::Market(minute) => minute.volatility_bp = Some(90.0),
            HistoryRecord::Shadow(shadow) => shadow.agrees = shadow.shard.as_str() == "shard-a",
            HistoryRecord::Directive(directive) => directive.placements = shardwise_types::Placements::default(),
            HistoryRecord::Outcome(_) => {}
        }
    }
    records
}

#[test]
fn whatever_row_changes_no_feature_before_it_does() {
    let records = night();
    let bench = Bench::new(&records);
    let hash = bench.build().content_hash;
    let facts_and_features: Vec<usize> = (0..FIRST_FEATURE + FEATURES.len()).collect();
    // At midnight, at the instant of a decision, and between two.
    for then in ["2026-01-05T23:50:00.005Z", "2026-01-06T00:00:00Z", "2026-01-06T00:07:30.3Z"] {
        let then = at(then);
        let other = Bench::new(&all_changed_from(&records, then));
        other.build();
        let (a, b) = (bench.parts(), other.parts());
        assert_eq!(changed_before(&a, &b, then, &facts_and_features), 0, "{then}");
        assert_ne!(load_card(&other.out()).unwrap().content_hash, hash, "{then}: later rows do change");
    }
}

#[test]
fn the_hash_does_not_depend_on_where_rows_stand() {
    let bench = Bench::new(&night());
    let hash = bench.build().content_hash;
    for (salt, table) in (1..).zip(Table::ALL) {
        for day in ["2026-01-05", "2026-01-06"] {
            let file = file_of(&bench.history(), table, day);
            let frame = files::read_parquet(&file, None).unwrap();
            let mut order: Vec<u32> = (0..frame.height() as u32).collect();
            order.sort_by_key(|row| shardwise_types::combine_keys(u64::from(*row), salt));
            // Scattered over three files.
            for (n, rows) in order.chunks(order.len().div_ceil(3)).enumerate() {
                let rows = polars::prelude::UInt32Chunked::from_vec("rows".into(), rows.to_vec());
                let mut scattered = frame.take(&rows).unwrap();
                files::write_parquet(&file.with_file_name(format!("{n}.parquet")), &mut scattered).unwrap();
            }
            std::fs::remove_file(&file).unwrap();
        }
    }
    let again = bench.build();
    assert_eq!((again.days_built, again.content_hash), (2, hash));
}

/// 54 hours from the evening of the 5th on, so that there are four days.
fn four_days() -> Vec<HistoryRecord> {
    history("2026-01-05T21:54:30Z", 54.0 * 60.0, 30_000.0)
}

/// Brings the files of further records, as if they came late.
fn bring(bench: &Bench, late: &[HistoryRecord]) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("late");
    write(&dir, late);
    for record in late {
        let (table, day) = (Table::of(record), record.order().0.date_utc().to_string());
        std::fs::copy(
            file_of(&dir, table, &day),
            file_of(&bench.history(), table, &day).with_file_name("late.parquet"),
        )
        .unwrap();
    }
}

fn in_order(mut records: Vec<HistoryRecord>, late: &[HistoryRecord]) -> Vec<HistoryRecord> {
    records.extend_from_slice(late);
    records.sort_by_key(HistoryRecord::order);
    records
}

#[test]
fn a_late_outcome_opens_the_days_that_know_it_and_no_other() {
    let records = four_days();
    let bench = Bench::new(&records);
    let before = bench.build();
    assert_eq!((before.days_built, before.days.len()), (4, 4));
    // Decision 96, of the first day, was never answered; its outcome is known on the third.
    let answered = records.iter().find_map(|record| match record {
        HistoryRecord::Outcome(outcome) => Some(outcome.clone()),
        _ => None,
    });
    let known_at = at("2026-01-07T10:00:00Z");
    let outcome = shardwise_types::OutcomeRecord {
        decision_id: 96,
        sequence: 5_000_000,
        event_at: known_at.plus_millis(-1.0),
        known_at,
        ..answered.unwrap()
    };
    let late = [HistoryRecord::Outcome(outcome)];
    bring(&bench, &late);
    let after = bench.build();
    assert_eq!((after.days_built, after.days_reused), (2, 2), "the third day, and the fourth, which knows of it");
    assert_eq!(after.labelled, before.labelled + 1);
    assert_ne!(after.days[0].content_hash, before.days[0].content_hash, "the first day has the label");
    assert_eq!(after.days[1].content_hash, before.days[1].content_hash);
    let whole = Bench::new(&in_order(records, &late)).build();
    assert_eq!((after.content_hash, after.splits), (whole.content_hash, whole.splits));
}

#[test]
fn what_is_over_by_the_end_of_its_day_opens_that_day_only() {
    let records = four_days();
    let bench = Bench::new(&records);
    let before = bench.build();
    // The next minute of the market says otherwise.
    let minute = records.iter().find_map(|record| match record {
        HistoryRecord::Market(minute) if minute.known_at >= at("2026-01-06T10:00:00Z") => Some(minute.clone()),
        _ => None,
    });
    let minute = minute.unwrap();
    let known_at = minute.known_at.plus_millis(20_000.0);
    let late = [HistoryRecord::Market(shardwise_types::MarketRecord { known_at, volatility_bp: Some(77.0), ..minute })];
    bring(&bench, &late);
    let after = bench.build();
    assert_eq!((after.days_built, after.days_reused), (1, 3));
    assert_ne!(after.days[1].content_hash, before.days[1].content_hash);
    assert_eq!(after.content_hash, Bench::new(&in_order(records, &late)).build().content_hash);
    // The same rows in other files.
    let file = file_of(&bench.history(), Table::Outcomes, "2026-01-07");
    let frame = files::read_parquet(&file, None).unwrap();
    files::write_parquet(&file, &mut frame.slice(9, frame.height())).unwrap();
    files::write_parquet(&file.with_file_name("a.parquet"), &mut frame.slice(0, 9)).unwrap();
    let moved = bench.build();
    assert_eq!((moved.days_built, moved.days_reused, moved.content_hash), (1, 3, after.content_hash));
}
