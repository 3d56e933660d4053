use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::Part;
use crate::train::tests::world;

const TRIALS: u32 = 4;

/// A clock that stands still: what a search finds must not depend on time.
fn still() -> u64 {
    0
}

fn options() -> TrainOptions {
    TrainOptions { trees: 12, leaves: 7, min_leaf: 20, patience: 3, ..TrainOptions::default() }
}

fn rows() -> Rows {
    world(2400, 600, 0.1)
}

fn bounds(folder: &Path) -> SearchOptions {
    SearchOptions { trials: TRIALS, minutes: None, journal: folder.join("search.ndjson") }
}

fn searched(rows: &Rows, folder: &Path) -> Searched {
    search(rows, "data", &options(), &bounds(folder), still, &mut |_| true).expect("a search")
}

fn refusal(data: &str, options: &TrainOptions, folder: &Path) -> String {
    search(&rows(), data, options, &bounds(folder), still, &mut |_| true).expect_err("a refusal").to_string()
}

#[test]
fn a_search_that_was_stopped_ends_as_one_that_was_not() {
    let (rows, whole, parts) = (rows(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = searched(&rows, whole.path());
    assert_eq!(expected.trials.len(), TRIALS as usize);
    let mut asked = 0;
    let mut stop = |_: &str| {
        asked += 1;
        asked <= 2
    };
    let stopped = search(&rows, "data", &options(), &bounds(parts.path()), still, &mut stop);
    assert!(matches!(stopped, Err(TrainingError::Interrupted)));
    let mut again = Vec::new();
    let mut listen = |trial: &str| {
        again.push(trial.to_owned());
        true
    };
    let resumed = search(&rows, "data", &options(), &bounds(parts.path()), still, &mut listen).expect("a search");
    assert_eq!(resumed, expected);
    assert_eq!(again.len(), 2, "finished trials are not made again: {again:?}");
    let [one, other] = [&whole, &parts].map(|folder| fs::read(bounds(folder.path()).journal).unwrap());
    assert_eq!(one, other);
}

#[test]
fn a_line_that_was_not_written_to_its_end_is_made_again() {
    let (rows, folder) = (rows(), tempfile::tempdir().unwrap());
    let expected = searched(&rows, folder.path());
    let journal = bounds(folder.path()).journal;
    let whole = fs::read(&journal).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for cut in [whole.len() - 1, last + 7, last, 5, 0] {
        fs::write(&journal, &whole[..cut]).unwrap();
        assert_eq!(searched(&rows, folder.path()), expected, "cut at {cut}");
        assert_eq!(fs::read(&journal).unwrap(), whole, "cut at {cut}");
    }
}

#[test]
fn the_journal_of_another_search_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    searched(&rows(), folder.path());
    let others = [("other", options()), ("data", TrainOptions { seed: 2, ..options() })];
    for (data, options) in others.into_iter().chain([("data", TrainOptions { leaves: 8, ..options() })]) {
        let said = refusal(data, &options, folder.path());
        assert!(said.contains("other data or with other options; remove it"), "{said}");
    }
    let journal = bounds(folder.path()).journal;
    let text = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, text.replacen("\"number\":1", "\"number\":7", 1)).unwrap();
    let said = refusal("data", &options(), folder.path());
    assert!(said.contains("damaged in line 3; remove it"), "{said}");
    let _held = Journal::open(&folder.path().join("held"), "key").expect("a journal");
    let error = Journal::open(&folder.path().join("held"), "key").expect_err("it is in use");
    assert!(error.to_string().contains("in use by another search"), "{error}");
}

#[test]
fn test_rows_are_never_looked_at() {
    let (mut other, [one, two]) = (rows(), [0; 2].map(|_| tempfile::tempdir().unwrap()));
    for row in (0..other.len()).filter(|row| other.part[*row] == Part::Test).collect::<Vec<_>>() {
        (other.exec_ms[row], other.queue_ms[row], other.cold[row]) = (1e6, 1e6, row % 2 == 0);
    }
    assert_eq!(searched(&rows(), one.path()), searched(&other, two.path()));
}

#[test]
fn what_is_better_wins_and_is_trained_with() {
    let (rows, folder) = (world(6000, 300, 0.1), tempfile::tempdir().unwrap());
    let stump = TrainOptions { trees: 20, leaves: 2, learning_rate: 0.01, ..options() };
    let found = search(&rows, "data", &stump, &bounds(folder.path()), still, &mut |_| true).expect("a search");
    assert_ne!(found.winner, 0, "{found:?}");
    let chosen = &found.trials[found.winner as usize];
    assert!(chosen.score < 0.9, "{chosen:?}");
    assert_eq!(found.trials[0].score, 1.0);
    assert_eq!(found.applied_to(&stump).leaves, chosen.parameters.leaves);
    assert_eq!(found.applied_to(&stump).patience, stump.patience);
}

#[test]
fn noise_does_not_win() {
    let trial = |number: u32, blocks: &[f64]| Trial {
        number,
        seed: 1,
        parameters: Parameters::of(&options()),
        score: crate::figures::mean(blocks),
        blocks: blocks.to_vec(),
        losses: Vec::new(),
        seconds: 0.0,
    };
    let usual = trial(0, &[1.0; 6]);
    let lucky = trial(1, &[0.5, 1.2, 0.9, 1.1, 0.8, 1.2]);
    let better = trial(2, &[0.98, 0.97, 0.98, 0.96, 0.97, 0.98]);
    assert_eq!(winner(std::slice::from_ref(&usual)), 0);
    assert_eq!(winner(&[usual.clone(), lucky.clone()]), 0);
    assert_eq!(winner(&[usual.clone(), trial(1, &[1.1; 6]), better.clone()]), 2);
    assert_eq!(winner(&[usual.clone(), trial(1, &[1.0; 6])]), 0, "the same is not better");
    // The lucky one has the lowest score, and is not told from chance.
    assert!(lucky.score < better.score);
    assert_eq!(winner(&[usual, lucky, better]), 0);
}

#[test]
fn trials_do_not_depend_on_each_other_and_stay_in_range() {
    let options = TrainOptions::default();
    let drawn: Vec<Parameters> = (0..200).map(|number| Parameters::of_trial(number, &options)).collect();
    assert_eq!(drawn[0], Parameters::of(&options));
    assert_eq!(drawn[7], Parameters::of_trial(7, &options));
    for (number, parameters) in drawn.iter().enumerate() {
        parameters.applied_to(&options).check().expect("legal parameters");
        assert!(parameters.trees <= 2 * options.trees);
        assert!(!drawn[..number].contains(parameters));
        let text = serde_json::to_string(parameters).unwrap();
        assert_eq!(serde_json::from_str::<Parameters>(&text).unwrap(), *parameters);
    }
    let tiny = TrainOptions { trees: 1, ..options };
    assert!((0..50).all(|number| Parameters::of_trial(number, &tiny).applied_to(&tiny).check().is_ok()));
}

#[test]
fn time_is_bounded_over_all_runs() {
    /// Half a minute passes at each look.
    fn hurried() -> u64 {
        static NOW: AtomicU64 = AtomicU64::new(0);
        NOW.fetch_add(30_000_000_000, Ordering::Relaxed)
    }
    let folder = tempfile::tempdir().unwrap();
    let run = |minutes: f64| {
        let bounds = SearchOptions { minutes: Some(minutes), ..bounds(folder.path()) };
        search(&rows(), "data", &options(), &bounds, hurried, &mut |_| true).expect("a search").trials.len()
    };
    assert_eq!([run(0.1), run(1.0), run(1.0), run(9.0)], [1, 2, 2, TRIALS as usize]);
    for (trials, minutes, named) in
        [(0, 1.0, "`search`"), (4, 0.0, "`search_minutes`"), (4, f64::NAN, "search_minutes")]
    {
        let bounds = SearchOptions { trials, minutes: Some(minutes), ..bounds(folder.path()) };
        let refused = search(&rows(), "data", &options(), &bounds, still, &mut |_| true).expect_err(named);
        assert!(refused.to_string().contains(named), "{refused}");
    }
}
