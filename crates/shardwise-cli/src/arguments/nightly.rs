//! The options of `shardwise nightly`.

use std::path::PathBuf;

use clap::Args;
use jiff::civil::Date;

use super::{QualityArguments, SearchArguments, SigningArguments};

/// How a night ends, for whoever watches exit codes.
const EXIT_CODES: &str = "Exit codes:
  0    done: the model was promoted, is the champion already, or there is no world to judge it in
  1    failed: see the error; the same command goes on where it was
  2    the command line makes no sense
  3    the gate refused the model: it was judged and not shown to be better; all else is done
  4    the data was refused: the history is empty, broken, too short to train, or has no such day, or
       its dataset does not pass the quality gate
  130  stopped by SIGINT, 143 by SIGTERM: what is finished is kept, the same command goes on";

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct NightlyArguments {
    /// The history.
    #[arg(long)]
    pub(crate) history: PathBuf,
    /// Folder for the dataset, the runs, the report and what is needed to resume.
    #[arg(long)]
    pub(crate) work: PathBuf,
    /// The models folder; WORK/models when left out.
    #[arg(long)]
    pub(crate) models: Option<PathBuf>,
    /// The model's name.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// The night of this day in UTC, YYYY-MM-DD: nothing that was known later is read. The history's last day when left out.
    #[arg(long)]
    pub(crate) date: Option<Date>,
    /// Seed of the training.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Replicates of the closed loop; seeds 11 and up.
    #[arg(long, default_value_t = 4)]
    pub(crate) replicates: u64,
    /// Replicates while nothing but what may be chance speaks against a model: they are doubled up to so many; four times
    /// --replicates when left out.
    #[arg(long)]
    pub(crate) most_replicates: Option<u64>,
    /// Ended runs that are kept in WORK/runs; the newest and those that may still go on are kept in any case.
    #[arg(long, default_value_t = 30)]
    pub(crate) keep_runs: usize,
    #[command(flatten)]
    pub(crate) search: SearchArguments,
    #[command(flatten)]
    pub(crate) quality: QualityArguments,
    #[command(flatten)]
    pub(crate) signing: SigningArguments,
    #[command(flatten)]
    pub(crate) mlflow: MlflowArguments,
}

impl NightlyArguments {
    /// The most replicates that a model is judged on.
    pub(crate) fn most_replicates(&self) -> u64 {
        self.most_replicates.unwrap_or(self.replicates.saturating_mul(4))
    }
}

/// Whom to tell of a night; that it cannot be told is a warning.
#[derive(Args)]
pub(crate) struct MlflowArguments {
    /// MLflow tracking server that is told of the night, as http://host:port; MLFLOW_TRACKING_URI when left out, or nobody.
    #[arg(long, value_name = "URL")]
    pub(crate) mlflow: Option<String>,
    /// The experiment there; MLFLOW_EXPERIMENT_NAME when left out, or shardwise.
    #[arg(long, value_name = "NAME")]
    pub(crate) mlflow_experiment: Option<String>,
    /// Seconds that it may take altogether.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) mlflow_timeout: u64,
}
