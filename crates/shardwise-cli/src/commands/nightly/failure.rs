//! How a night ends when it does not get to its end: what kind of failure it is, in words, JSON and exit codes.

use miette::{IntoDiagnostic, Report, miette};
use serde_json::{Value, json};
use shardwise_datasets::DatasetError;
use shardwise_evaluation::EvaluationError;
use shardwise_training::TrainingError;

use crate::commands::DATA_REFUSED;
use crate::output;

/// What went wrong, as scripts tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anything that is not below.
    Failed,
    /// Another night works in the same folder.
    Locked,
    /// The history is of no use as it is; the same command will say the same.
    DataRefused,
    /// It was asked to stop.
    Interrupted,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Locked => "locked",
            Self::DataRefused => "data_refused",
            Self::Interrupted => "interrupted",
        }
    }

    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Failed | Self::Locked => 1,
            Self::DataRefused => DATA_REFUSED,
            Self::Interrupted => output::interrupted_code(),
        }
    }

    /// What to do when the error itself does not say.
    fn help(self) -> &'static str {
        match self {
            Self::Failed => "mend what the message names and run the same command: finished stages are kept",
            Self::Locked => "wait until the other night has ended; there is nothing to clean up",
            Self::DataRefused => "bring or mend the history's days and run the same command",
            Self::Interrupted => "run the same command to go on: finished stages are kept",
        }
    }
}

/// A night that did not get to its end.
#[derive(Debug)]
pub(crate) struct NightFailure {
    pub(crate) kind: Kind,
    pub(crate) report: Report,
}

pub(crate) type NightResult<T> = Result<T, NightFailure>;

impl NightFailure {
    pub(crate) fn new(kind: Kind, report: Report) -> Self {
        Self { kind, report }
    }

    /// Work that stops when it is asked to and says so in words only.
    pub(crate) fn of_stoppable(report: Report) -> Self {
        if output::is_interrupted() { Self::interrupted() } else { report.into() }
    }

    fn interrupted() -> Self {
        Self::new(Kind::Interrupted, miette!("interrupted; run the same command to go on"))
    }

    /// The object that stands in the place of the result.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "error": { "kind": self.kind.name(), "message": self.message(), "help": self.help() } })
    }

    pub(crate) fn message(&self) -> String {
        output::progress::in_one_line(&self.report)
    }

    fn help(&self) -> String {
        self.report.help().map_or_else(|| self.kind.help().to_owned(), |help| help.to_string())
    }
}

impl From<Report> for NightFailure {
    fn from(report: Report) -> Self {
        Self::new(Kind::Failed, report)
    }
}

/// Takes a plain error with a kind of its own.
fn classified<E: std::error::Error + Send + Sync + 'static>(kind: Kind, error: E) -> NightFailure {
    let report: Result<(), E> = Err(error);
    NightFailure::new(kind, report.into_diagnostic().expect_err("it is an error"))
}

impl From<DatasetError> for NightFailure {
    fn from(error: DatasetError) -> Self {
        let kind = match &error {
            DatasetError::Interrupted => Kind::Interrupted,
            error if error.is_of_the_history() => Kind::DataRefused,
            _ => Kind::Failed,
        };
        classified(kind, error)
    }
}

impl From<TrainingError> for NightFailure {
    fn from(error: TrainingError) -> Self {
        match error {
            TrainingError::Dataset(error) => error.into(),
            error @ TrainingError::Interrupted => classified(Kind::Interrupted, error),
            error @ TrainingError::TooFewRows { .. } => classified(Kind::DataRefused, error),
            error => classified(Kind::Failed, error),
        }
    }
}

impl From<EvaluationError> for NightFailure {
    fn from(error: EvaluationError) -> Self {
        let kind = match &error {
            EvaluationError::Interrupted => Kind::Interrupted,
            // The held-out end of the history is too short to measure anything in.
            EvaluationError::NothingMeasured { .. } => Kind::DataRefused,
            _ => Kind::Failed,
        };
        classified(kind, error)
    }
}

/// An error about the history that another crate tells.
pub(crate) fn history_is_broken<E: std::error::Error + Send + Sync + 'static>(error: E) -> NightFailure {
    classified(Kind::DataRefused, error)
}

/// Fails when somebody asked to stop.
pub(crate) fn stop_if_interrupted() -> NightResult<()> {
    if output::is_interrupted() { Err(NightFailure::interrupted()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_data_is_told_apart_from_the_rest() {
        let path = std::path::PathBuf::from("/history");
        let empty = DatasetError::EmptyHistory { path: path.clone(), range: String::new() };
        let full = DatasetError::Unwritable { path, problem: "no space left".to_owned() };
        assert_eq!(NightFailure::from(empty).kind.exit_code(), 4);
        assert_eq!(NightFailure::from(full).kind.exit_code(), 1);
        assert_eq!(NightFailure::from(DatasetError::Interrupted).kind, Kind::Interrupted);
    }

    #[test]
    fn the_object_has_kind_message_and_help() {
        let failure = NightFailure::from(miette!(help = "free some space", "the disk is full"));
        let expected =
            json!({ "error": { "kind": "failed", "message": "the disk is full", "help": "free some space" } });
        assert_eq!(failure.to_json(), expected);
        let bare = NightFailure::new(Kind::DataRefused, miette!("no rows")).to_json();
        assert_eq!(bare["error"]["kind"], "data_refused");
        assert!(bare["error"]["help"].as_str().is_some_and(|help| !help.is_empty()));
    }
}
