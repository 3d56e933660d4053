//! Options of `shardwise plan`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use shardwise_planner::PlanKind;

use super::AccessArguments;

#[derive(Subcommand)]
pub(crate) enum PlanCommand {
    /// Functions that do badly on a shard, and where they would do better.
    Optimize(PlanArguments),
    /// Shards that will run out of something within a quarter of an hour, and the moves that prevent it.
    Predict(PlanArguments),
    /// What a jump of the market's volatility will ask for, and the shards to have ready.
    Spike(PlanSpikeArguments),
    /// How many shards each protocol needs.
    Protocol(PlanArguments),
    /// Which functions to keep loaded where, though nobody may ask for them for a while.
    Warm(PlanArguments),
}

impl PlanCommand {
    /// What to plan, its options, and the spike that is assumed.
    pub(crate) fn parts(&self) -> (PlanKind, &PlanArguments, Option<f64>) {
        match self {
            Self::Optimize(options) => (PlanKind::Optimize, options, None),
            Self::Predict(options) => (PlanKind::Predict, options, None),
            Self::Spike(options) => (PlanKind::Spike, &options.plan, options.factor),
            Self::Protocol(options) => (PlanKind::Protocol, options, None),
            Self::Warm(options) => (PlanKind::Warm, options, None),
        }
    }
}

#[derive(Args)]
pub(crate) struct PlanArguments {
    /// Plan from a history; its last record is now.
    #[arg(long, conflicts_with = "live", required_unless_present = "live")]
    pub(crate) history: Option<PathBuf>,
    /// Plan from what a running router has seen; to apply a plan it must be the one that coordinates the fleet.
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "http://127.0.0.1:7070")]
    pub(crate) live: Option<String>,
    #[command(flatten)]
    pub(crate) access: AccessArguments,
    /// JSON file with settings of the planner, of a plan from a history; what it leaves out is as usual.
    #[arg(long, value_name = "FILE", conflicts_with = "live")]
    pub(crate) settings: Option<PathBuf>,
    /// JSON file with past moves, of a plan from a history; those that the history tells of when left out.
    #[arg(long, value_name = "FILE", conflicts_with = "live")]
    pub(crate) ledger: Option<PathBuf>,
    /// The models, a folder or a URL: what the one in use was taught of functions and shards counts as well, of a plan from a
    /// history. A router uses its own.
    #[arg(long, conflicts_with = "live")]
    pub(crate) models: Option<PathBuf>,
    /// The models' name.
    #[arg(long, default_value = "default", requires = "models")]
    pub(crate) name: String,
    /// Write a page with a picture of before and after.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Carry the steps out, one at a time; each is watched, and taken back when its effect does not appear. What is to be kept
    /// warm is one step, so is what may cool: each function by itself is asked for too seldom to be judged.
    #[arg(long)]
    pub(crate) apply: bool,
    /// Carry out the steps of a plan that was written with --json, instead of a new one.
    #[arg(long, value_name = "FILE", requires = "apply", conflicts_with = "html")]
    pub(crate) steps_from: Option<PathBuf>,
    /// How long a step is watched, and what was before it, in seconds.
    #[arg(long, default_value_t = 60.0, requires = "apply")]
    pub(crate) watch_s: f64,
    /// Steps that are carried out at most.
    #[arg(long, default_value_t = 5, requires = "apply")]
    pub(crate) most_steps: usize,
    /// Member that need not agree, as shard/NAME or router/NAME. May be given several times.
    #[arg(long, value_name = "MEMBER", requires = "apply")]
    pub(crate) without: Vec<String>,
}

#[derive(Args)]
pub(crate) struct PlanSpikeArguments {
    /// Volatility over the usual that is assumed, above 1; what the market shows when left out.
    #[arg(long)]
    pub(crate) factor: Option<f64>,
    #[command(flatten)]
    pub(crate) plan: PlanArguments,
}

#[derive(Args)]
pub(crate) struct BenchPlansArguments {
    /// What is played: day, spike, warm, or all.
    #[arg(long, default_value = "all")]
    pub(crate) case: String,
    /// Who places, in all arms: shardwise, with a model that is trained on each world first, or a policy without one.
    #[arg(long, default_value = "shardwise")]
    pub(crate) policy: String,
    /// The first seed; knobs were tuned on 1 to 9.
    #[arg(long, default_value_t = 11)]
    pub(crate) first_seed: u64,
    /// Seeds, each a world of its own.
    #[arg(long, default_value_t = 1)]
    pub(crate) seeds: u64,
    /// Offered load; what suits the case when left out.
    #[arg(long)]
    pub(crate) load: Option<f64>,
    /// Hours of a day and of cold starts; 24 when left out.
    #[arg(long)]
    pub(crate) hours: Option<f64>,
    /// Functions of generated traces.
    #[arg(long, default_value_t = 300)]
    pub(crate) functions: usize,
    /// Folder with real traces; without it, and without SHARDWISE_TRACES, generated ones.
    #[arg(long)]
    pub(crate) traces: Option<PathBuf>,
    /// Where trained models are kept for the next run.
    #[arg(long, default_value = "shardwise-plans")]
    pub(crate) work: PathBuf,
}
