//! Claims about builds: point in time, incremental as from nothing, nothing half written.

use super::*;
use crate::columns::Cell;
use crate::rows::{FIRST_FEATURE, dataset_columns, same};
use crate::sample::{at, edit, file_of, history, names, write};
use crate::schema::Table;
use crate::{load_card, load_observations};
use shardwise_features::position;
use shardwise_types::HistoryRecord;

mod metamorphic;

/// A folder with a history of these records.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new(records: &[HistoryRecord]) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        write(&bench.history(), records);
        bench
    }

    fn history(&self) -> PathBuf {
        self.folder.path().join("history")
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("dataset")
    }

    fn rewrite(&self, records: &[HistoryRecord]) {
        std::fs::remove_dir_all(self.history()).unwrap();
        write(&self.history(), records);
    }

    fn try_build(&self) -> Result<DatasetCard, DatasetError> {
        build(&self.history(), &self.out(), &options(), &mut |_| true)
    }

    fn build(&self) -> DatasetCard {
        self.try_build().unwrap()
    }

    fn parts(&self) -> Vec<PartRows> {
        let card = load_card(&self.out()).unwrap();
        let part =
            |day: &DayCard, part| PartRows::read(&self.out().join(day_dir(&day.date)).join(part_file(part))).unwrap();
        card.days.iter().flat_map(|day| (0..day.parts).map(|n| part(day, n)).collect::<Vec<_>>()).collect()
    }
}

fn options() -> BuildOptions {
    BuildOptions { candidate_share: 0.2, ..BuildOptions::default() }
}

/// Half an hour around midnight.
fn night() -> Vec<HistoryRecord> {
    history("2026-01-05T23:45:00Z", 30.0, 1_000.0)
}

fn before(records: &[HistoryRecord], end: &str) -> Vec<HistoryRecord> {
    records.iter().filter(|record| record.order().0 < at(end)).cloned().collect()
}

/// The same records with other outcomes from an instant on.
fn perturbed(records: &[HistoryRecord], from: Timestamp) -> Vec<HistoryRecord> {
    let mut records = records.to_vec();
    for record in &mut records {
        if let HistoryRecord::Outcome(outcome) = record
            && outcome.known_at >= from
        {
            outcome.response.exec_ms *= 3.0;
            outcome.response.queue_len += 5;
            outcome.response.error = None;
        }
    }
    records
}

/// Rows decided before an instant, whose features are not the same bits in both.
fn changed_before(a: &[PartRows], b: &[PartRows], until: Timestamp, features: &[usize]) -> usize {
    let mut changed = 0;
    for (a, b) in a.iter().zip(b) {
        for row in (0..a.rows).filter(|row| a.i64(column("known_at"), *row) < until.nanos()) {
            assert!(same(a.cell(0, row), b.cell(0, row)), "the same decisions in the same order");
            changed += usize::from(features.iter().any(|column| !same(a.cell(*column, row), b.cell(*column, row))));
        }
    }
    changed
}

#[test]
fn every_decision_has_one_chosen_row_with_its_label() {
    let bench = Bench::new(&night());
    let card = bench.build();
    assert_eq!(card.decisions, 1_800);
    assert_eq!(card.labelled + card.censored, card.decisions);
    // Every 97th is lost; the slow ones of the last two minutes are not known yet.
    assert!((18..=25).contains(&card.censored), "{}", card.censored);
    assert!(card.rows > card.decisions && card.rows < 2 * card.decisions);
    assert_eq!(card.candidates_per_decision, 3.0);
    let (mut chosen, mut labelled, mut last) = (0, 0, (i64::MIN, String::new()));
    for part in bench.parts() {
        for row in 0..part.rows {
            let is_chosen = part.flag(column("chosen"), row);
            chosen += u64::from(is_chosen);
            labelled += u64::from(part.cell(column("exec_ms"), row) != Cell::Null);
            let censored = is_chosen && part.cell(column("total_ms"), row) == Cell::Null;
            assert_eq!(part.flag(column("censored"), row), censored);
            let at = part.i64(column("known_at"), row);
            assert!(at >= last.0, "rows are in the order of time");
            last = (at, String::new());
        }
    }
    assert_eq!((chosen, labelled), (card.decisions, card.labelled));
    assert_eq!(load_card(&bench.out()).unwrap(), card);
}

#[test]
fn labels_are_those_of_the_outcome_even_after_midnight() {
    let records = night();
    let bench = Bench::new(&records);
    bench.build();
    let mut outcomes: BTreeMap<u64, Response> = records
        .iter()
        .filter_map(|record| match record {
            HistoryRecord::Outcome(outcome) => Some((outcome.decision_id, outcome.response)),
            _ => None,
        })
        .collect();
    for part in bench.parts() {
        for row in (0..part.rows).filter(|row| part.flag(column("chosen"), *row)) {
            let outcome = outcomes.remove(&part.i64(column("decision_id"), row).cast_unsigned());
            let expected = outcome.map_or(f32::NAN, |response| response.exec_ms);
            assert!(same(Cell::F32(part.f32(column("exec_ms"), row)), Cell::F32(expected)));
            if let Some(response) = outcome {
                let parts_ms = response.exec_ms + response.queue_ms + part.f32(column("net_ms"), row);
                assert!((parts_ms - response.total_ms).abs() < 0.02);
                assert_eq!(part.flag(column("ok"), row), response.is_ok());
            }
        }
    }
    assert!(outcomes.is_empty());
}

#[test]
fn a_day_more_gives_what_a_build_from_nothing_gives() {
    // Decision 249, a slow one, is made a minute before midnight.
    let records = history("2026-01-05T21:54:30Z", 27.0 * 60.0, 30_000.0);
    let bench = Bench::new(&before(&records, "2026-01-06T00:00:00Z"));
    let first = bench.build();
    assert_eq!((first.days_built, first.days_reused), (1, 0));
    bench.rewrite(&before(&records, "2026-01-07T00:00:00Z"));
    let second = bench.build();
    assert_eq!((second.days_built, second.days_reused), (1, 1));
    assert_ne!(second.days[0].content_hash, first.days[0].content_hash, "labels that came after midnight");
    bench.rewrite(&records);
    let third = bench.build();
    assert_eq!((third.days_built, third.days_reused), (1, 2));

    let fresh = Bench::new(&records);
    let whole = fresh.build();
    assert_eq!((whole.days_built, whole.days_reused), (3, 0));
    assert_eq!(third.content_hash, whole.content_hash);
    assert_eq!((third.splits, third.labelled, third.blocks), (whole.splits, whole.labelled, whole.blocks));
    assert_eq!(load_observations(&bench.out()).unwrap(), load_observations(&fresh.out()).unwrap());
    assert_eq!(bench.build().days_reused, 3);
}

#[test]
fn a_later_day_that_changed_takes_its_labels_back() {
    let records = night();
    let bench = Bench::new(&records);
    bench.build();
    let midnight = at("2026-01-06T00:00:00Z");
    let lost: Vec<HistoryRecord> = records
        .into_iter()
        .filter(|record| !matches!(record, HistoryRecord::Outcome(outcome) if outcome.known_at >= midnight))
        .collect();
    bench.rewrite(&lost);
    let again = bench.build();
    assert_eq!(again.days_reused, 1);
    assert_eq!(again.content_hash, Bench::new(&lost).build().content_hash);
}

#[test]
fn the_hash_does_not_depend_on_files() {
    let bench = Bench::new(&night());
    let hash = bench.build().content_hash;
    for table in Table::ALL {
        let file = file_of(&bench.history(), table, "2026-01-05");
        let frame = files::read_parquet(&file, None).unwrap().reverse();
        files::write_parquet(&file, &mut frame.slice(5, frame.height())).unwrap();
        files::write_parquet(&file.with_file_name("a.parquet"), &mut frame.slice(0, 5)).unwrap();
    }
    let again = bench.build();
    // The second day, whose files are as they were, begins where it did.
    assert_eq!((again.days_built, again.content_hash), (1, hash));
}

#[test]
fn a_challenger_changes_no_row() {
    let mut records = night();
    let with = Bench::new(&records).build();
    records.retain(|record| !matches!(record, HistoryRecord::Shadow(_)));
    let without = Bench::new(&records).build();
    assert_eq!((&with.content_hash, with.rows), (&without.content_hash, without.rows));
    let of_shadow =
        |card: &DatasetCard| card.sources.iter().filter(|source| source.path.starts_with("shadow/")).count();
    assert_eq!((of_shadow(&with), of_shadow(&without)), (2, 0), "a source is what was read");
}

#[test]
fn what_came_later_does_not_change_earlier_rows() {
    let records = night();
    let then = at("2026-01-06T00:03:00Z");
    let (a, b) = (Bench::new(&records), Bench::new(&perturbed(&records, then)));
    a.build();
    b.build();
    let all: Vec<usize> = (0..FIRST_FEATURE + FEATURES.len()).collect();
    assert_eq!(changed_before(&a.parts(), &b.parts(), then, &all), 0);
    assert!(changed_before(&a.parts(), &b.parts(), at("2026-01-06T00:15:00Z"), &all) > 100);
}

#[test]
fn encodings_know_only_earlier_blocks() {
    let records = night();
    let bench = Bench::new(&records);
    let card = bench.build();
    let of_table = ["function_ln_ms", "service_ln_ms", "pair_samples_ln", "protocol_ln_ms", "function_cold_ms"];
    let of_table = of_table.map(|name| FIRST_FEATURE + position(name).unwrap());
    let parts = bench.parts();
    let (mut without, mut with) = (0, 0);
    for part in &parts {
        for row in 0..part.rows {
            let known = of_table.iter().filter(|column| !part.f32(**column, row).is_nan()).count();
            match part.i64(column("block"), row) {
                0 => without += known,
                _ => with += known,
            }
        }
    }
    assert_eq!(without, 0);
    assert!(with > 1_000);

    let length_ns = card.blocks.length_s as i64 * 1_000_000_000;
    let border = (card.blocks.first_at.nanos() / length_ns + 3) * length_ns;
    let other = Bench::new(&perturbed(&records, Timestamp::from_nanos(border)));
    other.build();
    let end = Timestamp::from_nanos(border + length_ns);
    assert_eq!(changed_before(&parts, &other.parts(), end, &of_table), 0, "the table of a block is older than it");
    let later = Timestamp::from_nanos(border + 2 * length_ns);
    assert!(changed_before(&parts, &other.parts(), later, &of_table) > 0);
}

#[test]
fn splits_follow_time_and_leave_out_block_zero() {
    let bench = Bench::new(&night());
    let card = bench.build();
    let Splits { train, gap, test } = card.splits;
    assert_eq!(train.from.nanos() % (card.blocks.length_s as i64 * 1_000_000_000), 0);
    assert_eq!((train.to, gap.to, test.to), (gap.from, test.from, card.to));
    assert_eq!(gap.to.millis_since(gap.from).round(), card.label_horizon_ms.round());
    assert!(card.label_horizon_ms > 100_000.0, "one outcome in fifty takes two minutes");
    let outside: u64 = bench
        .parts()
        .iter()
        .map(|part| (0..part.rows).filter(|row| part.i64(column("known_at"), *row) < train.from.nanos()).count() as u64)
        .sum();
    assert_eq!(train.rows + gap.rows + test.rows + outside, card.rows);
    let seen = load_observations(&bench.out()).unwrap().samples();
    assert!(0.0 < seen && seen < card.labelled as f64, "what came after the training part is not in it");
}

#[test]
fn training_may_end_on_a_day_without_history() {
    let mut records = history("2026-01-05T12:00:00Z", 10.0, 1_000.0);
    let mut replay = Replay::new(crate::sample::network());
    records.iter().for_each(|record| drop(replay.apply(record).unwrap()));
    let mut later = history("2026-01-19T12:00:00Z", 10.0, 1_000.0);
    for record in &mut later {
        match record {
            HistoryRecord::Decision(decision) => decision.decision_id += 1_000_000,
            HistoryRecord::Outcome(outcome) => outcome.decision_id += 1_000_000,
            HistoryRecord::Shadow(shadow) => shadow.decision_id += 1_000_000,
            HistoryRecord::Report(_) | HistoryRecord::Market(_) | HistoryRecord::Directive(_) => {}
        }
    }
    records.extend(later);
    let bench = Bench::new(&records);
    let splits = bench.build().splits;
    assert!(at("2026-01-06T00:00:00Z") < splits.train.to && splits.train.to < at("2026-01-19T00:00:00Z"));
    assert_eq!(load_observations(&bench.out()).unwrap(), *replay.observations());
}

#[test]
fn a_range_warms_up_on_what_came_before_it() {
    let bench = Bench::new(&night());
    let (from, to) = (at("2026-01-05T23:58:00Z"), at("2026-01-06T00:05:00Z"));
    let range = BuildOptions { from: Some(from), to: Some(to), ..options() };
    let card = build(&bench.history(), &bench.out(), &range, &mut |_| true).unwrap();
    assert_eq!(card.decisions, 420);
    assert!(card.from >= from && card.to <= to);
    let residual = FIRST_FEATURE + position("response_ms_mean").unwrap();
    assert!(!bench.parts()[0].f32(residual, 0).is_nan(), "the router had seen responses");
    let nothing = BuildOptions { from: Some(at("2027-01-01")), ..options() };
    let error = build(&bench.history(), &bench.out(), &nothing, &mut |_| true).unwrap_err();
    assert!(error.to_string().contains("no decisions from 2027-01-01"), "{error}");
}

#[test]
fn a_build_that_was_stopped_goes_on() {
    let bench = Bench::new(&night());
    let stop = |progress: Progress| progress.days_done == 0;
    let error = build(&bench.history(), &bench.out(), &options(), &mut { stop }).unwrap_err();
    assert!(matches!(error, DatasetError::Interrupted));
    assert!(!bench.out().exists());
    let card = bench.build();
    assert_eq!((card.days_built, card.days_reused), (1, 1));
    assert_eq!(card.content_hash, Bench::new(&night()).build().content_hash);
    assert_eq!(names(bench.folder.path()), ["dataset", "history"]);
}

#[test]
fn an_error_leaves_the_dataset_before_it_as_it_was() {
    let bench = Bench::new(&night());
    let card = bench.build();
    let file = file_of(&bench.history(), Table::Outcomes, "2026-01-06");
    edit(&file, &Table::Outcomes.specs(), "exec_ms", 600, Cell::F32(f32::NAN));
    let error = bench.try_build().unwrap_err().to_string();
    assert!(error.contains("exec_ms") && error.contains("row 600"), "{error}");
    assert_eq!(load_card(&bench.out()).unwrap(), card);
    assert_eq!(names(bench.folder.path()), ["dataset", "history"]);
    let report = bench.parts().iter().map(|part| part.rows as u64).sum::<u64>();
    assert_eq!(report, card.rows);
}

#[test]
fn an_error_leaves_nothing_where_nothing_was() {
    let mut records = night();
    records.retain(|record| !matches!(record, HistoryRecord::Decision(decision) if decision.decision_id == 700));
    let bench = Bench::new(&records);
    let error = bench.try_build().unwrap_err().to_string();
    assert!(error.contains("outcome of decision 700") && error.contains("row "), "{error}");
    assert_eq!(names(bench.folder.path()), ["history"]);
}

#[test]
fn a_shard_that_never_reported_is_named() {
    let mut records = night();
    records.retain(|record| !matches!(record, HistoryRecord::Report(report) if report.shard.as_str() == "shard-b"));
    for record in &mut records {
        if let HistoryRecord::Decision(decision) = record {
            decision.logged_shards.clear();
        }
    }
    let error = Bench::new(&records).try_build().unwrap_err().to_string();
    assert!(error.contains("shard-b") && error.contains("report"), "{error}");
}

#[test]
fn only_datasets_are_replaced() {
    let bench = Bench::new(&night());
    std::fs::create_dir(bench.out()).unwrap();
    std::fs::write(bench.out().join("thesis.txt"), "mine").unwrap();
    assert!(matches!(bench.try_build().unwrap_err(), DatasetError::NotEmpty { .. }));
    std::fs::remove_file(bench.out().join("thesis.txt")).unwrap();
    bench.build();
    std::fs::write(bench.out().join("thesis.txt"), "mine").unwrap();
    assert!(bench.try_build().unwrap_err().to_string().contains("thesis.txt"));
    assert_eq!(std::fs::read_to_string(bench.out().join("thesis.txt")).unwrap(), "mine");
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let bench = Bench::new(&night());
    let out = bench.history().join("topology.json/dataset");
    let error = build(&bench.history(), &out, &options(), &mut |_| true).unwrap_err().to_string();
    assert!(error.contains("topology.json"), "{error}");
}

#[test]
fn options_out_of_range_are_refused() {
    let bench = Bench::new(&night());
    let refused = |options: BuildOptions| build(&bench.history(), &bench.out(), &options, &mut |_| true).unwrap_err();
    assert!(refused(BuildOptions { candidate_share: 1.5, ..options() }).to_string().contains("candidate_share"));
    assert!(refused(BuildOptions { block_minutes: Some(0), ..options() }).to_string().contains("block_minutes"));
    assert_eq!(names(bench.folder.path()), ["history"]);
}

#[test]
fn files_hold_the_documented_columns() {
    let bench = Bench::new(&night());
    bench.build();
    let file = bench.out().join(day_dir("2026-01-05")).join(part_file(0));
    let frame = files::read_parquet(&file, None).unwrap();
    let found: Vec<&str> = frame.get_column_names().into_iter().map(polars::prelude::PlSmallStr::as_str).collect();
    assert_eq!(found, dataset_columns().iter().map(|spec| spec.name).collect::<Vec<_>>());
}
