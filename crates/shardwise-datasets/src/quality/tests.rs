//! Claims about the gate: what is sound passes, what is broken is named, what drifted is told from it.

use std::path::PathBuf;

use shardwise_types::{HistoryRecord, Timestamp};

use super::*;
use crate::columns::Cell;
use crate::files::{read_parquet, write_parquet};
use crate::rows::{PartRows, column};
use crate::sample::{at, edit, history, write};
use crate::{BuildOptions, DatasetCard, build, dataset_columns};

const DAY: &str = "2026-01-06";

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// A dataset of these records.
    fn new(records: &[HistoryRecord]) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        write(&bench.folder.path().join("history"), records);
        bench.build();
        bench
    }

    fn build(&self) -> DatasetCard {
        build(&self.folder.path().join("history"), &self.dataset(), &BuildOptions::default(), &mut |_| true).unwrap()
    }

    fn dataset(&self) -> PathBuf {
        self.folder.path().join("dataset")
    }

    fn file(&self) -> PathBuf {
        self.dataset().join(format!("date={DAY}/part-0000.parquet"))
    }

    fn check(&self, against: Option<&Path>) -> QualityReport {
        check_quality(&self.dataset(), against, &limits(), false).unwrap()
    }

    /// The one check that refuses the dataset.
    fn refusal(&self) -> QualityCheck {
        let report = self.check(None);
        assert!(!report.accepted);
        let mut failed = report.checks.into_iter().filter(|check| !check.ok);
        let check = failed.next().unwrap();
        assert!(failed.next().is_none() && check.refuses);
        check
    }
}

/// The sample's days are short.
fn limits() -> QualityLimits {
    QualityLimits { min_decisions: 200, ..QualityLimits::default() }
}

/// An hour around midnight.
fn night() -> Vec<HistoryRecord> {
    history("2026-01-05T23:30:00Z", 60.0, 1_000.0)
}

fn spot(column: Option<&str>, day: &str, shard: Option<&str>) -> Spot {
    Spot::new(column, Some(day), shard)
}

fn named<'a>(report: &'a QualityReport, name: &str) -> &'a QualityCheck {
    report.checks.iter().find(|check| check.name == name).unwrap()
}

#[test]
fn a_sound_dataset_passes_and_is_no_other_than_itself() {
    let bench = Bench::new(&night());
    let first = bench.check(None);
    assert!(first.accepted && first.checks.iter().all(|check| check.ok), "{first:?}");
    let names: Vec<&str> = first.checks.iter().map(|check| check.name).collect();
    let expected = ["schema", "nulls", "ranges", "duplicates", "join_rate", "clock_skew", "psi", "ks", "drift"];
    assert_eq!((names, first.columns.len()), (expected.to_vec(), 0));
    let profile = bench.dataset().join(PROFILE_FILE);
    for against in [bench.dataset(), profile.clone()] {
        let again = bench.check(Some(&against));
        assert!(again.columns.len() > 70 && again.columns.iter().all(|column| (column.psi, column.ks) == (0.0, 0.0)));
        assert!(again.columns.iter().all(|column| column.new_days_psi.is_none()));
    }
    assert!(std::fs::metadata(&profile).unwrap().len() < 300_000, "a profile is small");
    // Without the profile a dataset is read again, to the same end.
    let kept = std::fs::read(&profile).unwrap();
    std::fs::remove_file(&profile).unwrap();
    assert_eq!(reference(&bench.dataset()).unwrap(), serde_json::from_slice(&kept).unwrap());
    bench.build();
}

#[test]
fn values_that_may_not_be_are_named() {
    for (name, column, cell) in [
        ("nulls", "function", Cell::Null),
        ("nulls", "rtt_ms", Cell::Null),
        ("ranges", "propensity", Cell::F64(1.5)),
        ("ranges", "rtt_ms", Cell::F32(f32::INFINITY)),
        ("ranges", "exec_ms", Cell::F32(-1.0)),
    ] {
        let bench = Bench::new(&night());
        let shard = PartRows::read(&bench.file()).unwrap().text(crate::rows::column("shard"), 30).to_owned();
        edit(&bench.file(), dataset_columns(), column, 30, cell);
        let check = bench.refusal();
        assert_eq!((check.name, check.value), (name, 1.0));
        assert_eq!(check.spot, spot(Some(column), DAY, Some(&shard)));
        assert!(check.sentence.contains(&format!("column {column}, on {DAY}, shard {shard}")), "{}", check.sentence);
    }
}

#[test]
fn a_label_that_is_missing_where_an_outcome_is_known_is_a_null() {
    let bench = Bench::new(&night());
    let rows = PartRows::read(&bench.file()).unwrap();
    let labelled = |row: &usize| rows.cell(column("exec_ms"), *row) != Cell::Null;
    edit(&bench.file(), dataset_columns(), "exec_ms", (0..rows.rows).find(labelled).unwrap(), Cell::Null);
    let check = bench.refusal();
    assert_eq!((check.name, check.spot.column.as_deref()), ("nulls", Some("exec_ms")));
}

#[test]
fn a_key_that_is_there_twice_is_named() {
    let bench = Bench::new(&night());
    let rows = PartRows::read(&bench.file()).unwrap();
    let shard = rows.text(column("shard"), 0).to_owned();
    let other = (1..rows.rows).find(|row| rows.text(column("shard"), *row) == shard).unwrap();
    edit(&bench.file(), dataset_columns(), "decision_id", other, rows.cell(column("decision_id"), 0));
    let check = bench.refusal();
    assert_eq!((check.name, check.value), ("duplicates", 1.0));
    assert_eq!(check.spot, spot(Some("decision_id"), DAY, Some(&shard)));
}

#[test]
fn files_that_are_not_as_the_card_says_are_named() {
    let bench = Bench::new(&night());
    let whole = read_parquet(&bench.file(), None).unwrap();
    write_parquet(&bench.file(), &mut whole.slice(1, 1_000_000)).unwrap();
    assert!(bench.refusal().sentence.contains("rows"), "{}", bench.refusal().sentence);
    write_parquet(&bench.file(), &mut whole.drop("rtt_ms").unwrap()).unwrap();
    assert_eq!((bench.refusal().name, bench.refusal().spot.column.as_deref()), ("schema", Some("rtt_ms")));
    std::fs::write(bench.file(), "PAR1").unwrap();
    assert_eq!(bench.refusal().name, "schema");
    std::fs::remove_file(bench.file()).unwrap();
    assert!(bench.refusal().sentence.contains("part-0000.parquet"));
    std::fs::remove_file(bench.dataset().join("dataset.json")).unwrap();
    assert!(check_quality(&bench.dataset(), None, &limits(), false).is_err());
}

#[test]
fn outcomes_that_are_lost_on_one_shard_are_found_there() {
    let mut records = night();
    let lost: Vec<u64> = records
        .iter()
        .filter_map(|record| match record {
            HistoryRecord::Decision(decision)
                if decision.shard.as_str() == "shard-b"
                    && decision.known_at >= at("2026-01-06T00:00:00Z")
                    && decision.decision_id % 10 == 0 =>
            {
                Some(decision.decision_id)
            }
            _ => None,
        })
        .collect();
    records.retain(|record| !matches!(record, HistoryRecord::Outcome(outcome) if lost.contains(&outcome.decision_id)));
    // A tenth of a third of the outcomes: the day as a whole is within the limit.
    let check = Bench::new(&records).refusal();
    assert_eq!((check.name, &check.spot), ("join_rate", &spot(None, DAY, Some("shard-b"))));
    assert!((0.87..0.91).contains(&check.value) && check.limit == 0.95, "{}", check.sentence);
}

/// The records with some clocks moved.
fn skewed(clock: impl Fn(&mut HistoryRecord)) -> QualityCheck {
    let mut records = night();
    records.iter_mut().for_each(clock);
    Bench::new(&records).refusal()
}

#[test]
fn clocks_that_are_apart_are_named() {
    let (hour_ms, later) = (3_600_000.0, |at: &mut Timestamp, ms: f64| *at = at.plus_millis(ms));
    let reports = skewed(|record| {
        if let HistoryRecord::Report(report) = record
            && report.shard.as_str() == "shard-c"
        {
            later(&mut report.report.event_at, hour_ms);
        }
    });
    assert_eq!((reports.name, reports.spot.shard.as_deref()), ("clock_skew", Some("shard-c")));
    assert!((reports.value / hour_ms - 1.0).abs() < 0.02 && reports.sentence.contains("shard_reports"));
    // Behind: every response would have left before it was asked for.
    let outcomes = skewed(|record| {
        if let HistoryRecord::Outcome(outcome) = record
            && outcome.decision_id % 2 == 0
        {
            later(&mut outcome.event_at, -hour_ms);
        }
    });
    assert!(outcomes.sentence.contains("outcomes") && outcomes.value > 0.9 * hour_ms, "{}", outcomes.sentence);
    let events = skewed(|record| {
        if let HistoryRecord::Decision(decision) = record
            && decision.router.as_str() == "router-2"
        {
            later(&mut decision.request.event_at, 5_000.0);
        }
    });
    assert!(
        events.sentence.contains("that of router-2 on") && events.sentence.contains("in decisions"),
        "{}",
        events.sentence
    );
    // One slip in a thousand is none of the clock.
    let mut records = night();
    for record in &mut records {
        if let HistoryRecord::Outcome(outcome) = record
            && outcome.decision_id % 1_000 == 5
        {
            later(&mut outcome.event_at, hour_ms);
        }
    }
    assert!(Bench::new(&records).check(None).accepted);
}

/// The second day's executions in another unit.
fn in_microseconds() -> Vec<HistoryRecord> {
    let mut records = night();
    for record in &mut records {
        if let HistoryRecord::Outcome(outcome) = record
            && outcome.decision_id >= 1_800
        {
            outcome.response.exec_ms *= 1_000.0;
            outcome.response.total_ms += outcome.response.exec_ms;
        }
    }
    records
}

#[test]
fn drift_is_a_warning_until_most_columns_drift() {
    let before = Bench::new(&night());
    before.check(None);
    let reference = before.dataset();
    let after = Bench::new(&in_microseconds());
    let report = after.check(Some(&reference));
    let (psi, ks) = (named(&report, "psi"), named(&report, "ks"));
    assert!(report.accepted && !psi.ok && !psi.refuses && !ks.ok && !ks.refuses, "{report:?}");
    assert_eq!(psi.spot.day.as_deref(), Some(DAY), "that day is another one");
    let exec = report.columns.iter().find(|column| column.column == "exec_ms").unwrap();
    assert!(exec.psi > 1.0 && exec.ks > 0.4 && exec.new_days_ks.unwrap() > 0.9, "{exec:?}");
    let steady = report.columns.iter().find(|column| column.column == "data_complexity").unwrap();
    assert!(steady.psi < 0.01 && steady.ks < 0.01, "{steady:?}");
    let share = named(&report, "drift");
    assert!(share.ok && share.refuses && share.value > 0.0);

    let strict = QualityLimits { max_drifted: share.value / 2.0, ..limits() };
    let refused = check_quality(&after.dataset(), Some(&reference), &strict, false).unwrap();
    assert!(!refused.accepted && !named(&refused, "drift").ok);
    let taken = check_quality(&after.dataset(), Some(&reference), &strict, true).unwrap();
    assert!(taken.accepted && !named(&taken, "drift").ok && named(&taken, "drift").sentence.contains("was accepted"));
}

#[test]
fn a_crash_of_the_market_does_not_stop_the_night() {
    let before = Bench::new(&night());
    before.check(None);
    let mut records = night();
    for record in &mut records {
        if let HistoryRecord::Market(minute) = record
            && minute.known_at >= at("2026-01-06T00:00:00Z")
        {
            minute.volatility_bp = minute.volatility_bp.map(|volatility| volatility * 40.0);
            minute.trend_bp = minute.trend_bp.map(|trend| trend - 900.0);
        }
    }
    let report = Bench::new(&records).check(Some(&before.dataset()));
    assert!(report.accepted && !named(&report, "psi").ok && named(&report, "drift").ok, "{report:?}");
    assert!(["volatility_bp", "trend_bp"].contains(&report.columns[0].column));
}

#[test]
fn a_reference_that_is_none_is_named() {
    let bench = Bench::new(&night());
    let file = bench.folder.path().join("profile.json");
    std::fs::write(&file, "{}").unwrap();
    let error = check_quality(&bench.dataset(), Some(&file), &limits(), false).unwrap_err();
    assert!(error.to_string().contains("profile.json") && !error.is_of_the_history(), "{error}");
}

#[test]
fn a_feature_that_moved_comes_first_and_others_stay() {
    use shardwise_features::{FEATURE_COUNT, FEATURES};

    let rows = |shift: f32| -> Vec<f32> {
        let value = |row: usize, feature: usize| {
            ((row * 31 + feature * 17) % 97) as f32 + if feature == 3 { shift } else { 0.0 }
        };
        (0..2_000).flat_map(|row| (0..FEATURE_COUNT).map(move |feature| value(row, feature))).collect()
    };
    let moved = super::rows_drift(&rows(0.0), &rows(60.0));
    assert_eq!(moved.len(), FEATURE_COUNT);
    assert_eq!(moved[0].column, FEATURES[3].name);
    assert!(moved[0].psi > 0.25 && moved[0].ks > 0.4, "{:?}", moved[0]);
    assert!(moved[1..].iter().all(|other| other.psi == 0.0 && other.ks == 0.0), "the others are as they were");
    assert!(super::rows_drift(&[], &rows(0.0)).is_empty());
}
