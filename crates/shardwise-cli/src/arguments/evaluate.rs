//! Names and options of `shardwise evaluate …`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct EvaluateArguments {
    #[command(subcommand)]
    pub(crate) command: Option<EvaluateCommand>,
    #[command(flatten)]
    pub(crate) report: EvaluateReportArguments,
}

/// Judge a version on the held-out end of a history, and write report.html and report.json.
#[derive(Args)]
pub(crate) struct EvaluateReportArguments {
    /// The models folder; without a model in it, what routers do without one is reported.
    #[arg(long, required = true)]
    models: Option<PathBuf>,
    /// The history.
    #[arg(long, required = true)]
    history: Option<PathBuf>,
    /// Folder for the report.
    #[arg(long, required = true)]
    out: Option<PathBuf>,
    /// The model's name.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// Version or alias; the version that was trained on the latest rows when left out.
    #[arg(long)]
    pub(crate) version: Option<String>,
    /// Replicates of the closed loop; seeds 11 and up.
    #[arg(long, default_value_t = 4)]
    pub(crate) replicates: u64,
    /// Replicates while nothing but what may be chance speaks against a model: they are doubled up to so many; four times
    /// --replicates when left out.
    #[arg(long)]
    pub(crate) most_replicates: Option<u64>,
}

impl EvaluateReportArguments {
    /// Models, history and the folder of the report.
    ///
    /// # Panics
    /// If a subcommand was given, which alone may come without them.
    pub(crate) fn places(&self) -> (&Path, &Path, &Path) {
        let [Some(models), Some(history), Some(out)] = [&self.models, &self.history, &self.out] else {
            unreachable!("required without a subcommand");
        };
        (models, history, out)
    }

    /// The most replicates that a model is judged on.
    pub(crate) fn most_replicates(&self) -> u64 {
        self.most_replicates.unwrap_or(self.replicates.saturating_mul(4))
    }
}

#[derive(Subcommand)]
pub(crate) enum EvaluateCommand {
    /// Show in what two runs, reports or versions of a model differ, the largest changes first.
    Diff(EvaluateDiffArguments),
    /// Estimate from logged decisions what a model, or a policy, would have cost; refused where queues would make it wrong.
    Ope(EvaluateOpeArguments),
}

#[derive(Args)]
pub(crate) struct EvaluateOpeArguments {
    /// The models folder.
    #[arg(long, required_unless_present = "policy")]
    pub(crate) models: Option<PathBuf>,
    /// The history, logged by a policy that explores.
    #[arg(long)]
    pub(crate) history: PathBuf,
    /// The model's name.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// Version or alias; the champion when left out.
    #[arg(long)]
    pub(crate) version: Option<String>,
    /// A policy that needs no model, in the place of one.
    #[arg(long, conflicts_with_all = ["models", "version"])]
    pub(crate) policy: Option<String>,
    /// Share of the history's time before the measured part; 0.8 for a model, which may have learned from it, else 0.1.
    #[arg(long)]
    pub(crate) skip: Option<f64>,
}

#[derive(Args)]
pub(crate) struct EvaluateDiffArguments {
    /// A JSON file, a folder with report.json or report/report.json (such as a night's run), or with --models a version or alias.
    pub(crate) a: String,
    /// What it is held against.
    pub(crate) b: String,
    /// The models that versions and aliases are looked up in.
    #[arg(long)]
    pub(crate) models: Option<PathBuf>,
    /// The model's name.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// Most lines that are printed of what changed; --json has all.
    #[arg(long, default_value_t = 30)]
    pub(crate) most: usize,
}
