//! Looks for better learning parameters: a bounded number of seeded trials, kept in a journal, so that a search that was
//! killed goes on where it was and ends as if it never had been.
//!
//! Trial 0 is what is searched around. A trial is judged on later training rows, in windows of time after those that it
//! learned from; test rows are never looked at. The winner must beat trial 0 by more than noise, or trial 0 stays.

mod journal;
mod score;
mod space;

use std::path::PathBuf;

use self::journal::Journal;
use self::score::Course;
pub use self::space::Parameters;
use crate::{Rows, TrainOptions, TrainingError};

/// Chance that trial 0 is left although none is better, over all trials.
const FALSE_WINNER: f64 = 0.05;

/// How long to look.
#[derive(Debug, Clone)]
pub struct SearchOptions {
    /// Trials at most, trial 0 among them.
    pub trials: u32,
    /// Minutes of trials at most, those of earlier runs of the same search among them; `None` for no bound.
    pub minutes: Option<f64>,
    /// File of the journal, one JSON object a line; made when it is not there.
    pub journal: PathBuf,
}

/// One set of parameters and how well it does.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Which one it is; 0 is what is searched around.
    pub number: u32,
    /// Seed that its parameters were drawn by.
    pub seed: u64,
    /// What is tried.
    pub parameters: Parameters,
    /// Mean of `blocks` over trial 0's: below 1 is better.
    pub score: f64,
    /// Loss on each block of time over trial 0's there, mean over heads; 1 for trial 0 itself.
    pub blocks: Vec<f64>,
    /// Loss of each head on each block of time, in the order of the blocks.
    pub losses: Vec<Vec<f64>>,
    /// How long it took.
    pub seconds: f64,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Searched {
    /// Trials that were made, in their order.
    pub trials: Vec<Trial>,
    /// The trial to train with: 0 when none is better by more than noise.
    pub winner: u32,
}

impl Searched {
    /// The options with the winner's parameters.
    pub fn applied_to(&self, options: &TrainOptions) -> TrainOptions {
        self.trials[self.winner as usize].parameters.applied_to(options)
    }
}

/// Searches around `options` on the training rows. `data` names the rows (a digest, say) in the journal; the clock gives
/// nanoseconds. `progress` hears of each trial before it begins and returns whether to go on.
///
/// # Errors
/// When `progress` says stop, there are too few rows, a parameter makes no sense, or the journal is another search's or cannot be written.
pub fn search(
    rows: &Rows,
    data: &str,
    options: &TrainOptions,
    search: &SearchOptions,
    clock_ns: fn() -> u64,
    progress: &mut dyn FnMut(&str) -> bool,
) -> Result<Searched, TrainingError> {
    options.check()?;
    search.check()?;
    let course = Course::new(rows, options)?;
    let mut journal = Journal::open(&search.journal, &key(data, options))?;
    while let Some(number) = next(&journal.trials, search) {
        let parameters = Parameters::of_trial(number, options);
        if !progress(&format!("trial {} of {}: {parameters}", number + 1, search.trials)) {
            return Err(TrainingError::Interrupted);
        }
        let start = clock_ns();
        let losses = course.losses(&parameters.applied_to(options))?;
        let seconds = clock_ns().saturating_sub(start) as f64 / 1e9;
        let first = journal.trials.first().map_or(&losses, |first| &first.losses);
        let blocks = score::relative(&losses, first);
        let trial = Trial {
            number,
            seed: options.seed,
            parameters,
            score: crate::figures::mean(&blocks),
            blocks,
            losses,
            seconds,
        };
        journal.append(trial)?;
    }
    let trials = journal.trials;
    let winner = winner(&trials);
    Ok(Searched { trials, winner })
}

impl SearchOptions {
    fn check(&self) -> Result<(), TrainingError> {
        let minutes = self.minutes.unwrap_or(1.0);
        for (name, value, holds, rule) in [
            ("search", f64::from(self.trials), (1..=10_000).contains(&self.trials), "1 to 10000"),
            ("search_minutes", minutes, minutes > 0.0 && minutes.is_finite(), "above 0"),
        ] {
            if !holds {
                return Err(TrainingError::Option { name, value, rule });
            }
        }
        Ok(())
    }
}

/// Number of the next trial, if there is one. Trial 0 is always made.
fn next(trials: &[Trial], search: &SearchOptions) -> Option<u32> {
    let spent_s: f64 = trials.iter().map(|trial| trial.seconds).sum();
    let number = trials.len() as u32;
    let has_time = search.minutes.is_none_or(|minutes| spent_s < minutes * 60.0);
    (number < search.trials && (number == 0 || has_time)).then_some(number)
}

/// What a journal must agree on: the rows, and all that a trial depends on beside its number.
fn key(data: &str, options: &TrainOptions) -> String {
    let named =
        TrainOptions { name: String::new(), how_to_make_again: String::new(), rivals: false, ..options.clone() };
    format!("{} {data} {named:?}", env!("CARGO_PKG_VERSION"))
}

/// The trial of the lowest score, when it is lower than trial 0's on so many blocks and by so much that chance does that
/// seldom; ties go to the earlier.
fn winner(trials: &[Trial]) -> u32 {
    let tried = trials.len().saturating_sub(1);
    let best = trials.iter().skip(1).min_by(|a, b| a.score.total_cmp(&b.score));
    best.filter(|best| score::is_below_one(&best.blocks, FALSE_WINNER / tried as f64)).map_or(0, |best| best.number)
}

#[cfg(test)]
mod tests;
