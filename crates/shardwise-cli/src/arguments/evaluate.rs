//! Names and options of `shardwise evaluate …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub(crate) enum EvaluateCommand {
    /// Show in what two runs, reports or versions of a model differ, the largest changes first.
    Diff(EvaluateDiffArguments),
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
