//! The command line: names and options as users type them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use shardwise_types::Timestamp;

/// Learns where work should run: history of placements in, verified model out, decisions with reasons.
#[derive(Parser)]
#[command(name = "shardwise", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print one JSON object as the last line of standard output.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a history of placements.
    #[command(subcommand)]
    History(HistoryCommand),
    /// Turn a history into a training dataset, or check one against it.
    #[command(subcommand)]
    Dataset(DatasetCommand),
    /// Train a model on a dataset and put it into a models folder.
    Train(TrainArguments),
    /// Decide one request.
    Predict(PredictArguments),
    /// Check the generator of traces.
    #[command(subcommand)]
    Generator(GeneratorCommand),
    /// Do the night's work: build, verify, train, evaluate, publish when better, decide.
    Nightly(NightlyArguments),
}

#[derive(Subcommand)]
pub(crate) enum HistoryCommand {
    /// From a simulated fleet under generated traffic.
    Simulate(SimulateArguments),
    /// From a simulated fleet under real arrivals, run times, market and machine noise.
    Replay(ReplayArguments),
}

#[derive(Subcommand)]
pub(crate) enum DatasetCommand {
    /// Build or extend a dataset; finished days are kept.
    Build(BuildArguments),
    /// Re-extract what routers logged and what the dataset holds, and compare bit for bit.
    Verify(VerifyArguments),
}

#[derive(Subcommand)]
pub(crate) enum GeneratorCommand {
    /// Print each statistic of generated traces beside its band, and draw both.
    Check(GeneratorCheckArguments),
}

/// What simulated and replayed histories have in common.
#[derive(Args)]
pub(crate) struct RunArguments {
    /// Seed of the traffic and of all else that is left to chance.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The policy that places: sed_tab_softmax explores, so that the history can teach.
    #[arg(long, default_value = "sed_tab_softmax")]
    pub(crate) policy: String,
    /// Shards in the fleet.
    #[arg(long, default_value_t = 20)]
    pub(crate) shards: usize,
    /// Routers.
    #[arg(long, default_value_t = 2)]
    pub(crate) routers: usize,
    /// Share of decisions whose candidates are logged with all features.
    #[arg(long, default_value_t = 0.01)]
    pub(crate) log_share: f64,
    /// Folder to write; must not exist or be empty.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Args)]
pub(crate) struct SimulateArguments {
    /// Seed of the fleet: shards, functions, distances.
    #[arg(long, default_value_t = 1)]
    pub(crate) fleet_seed: u64,
    /// What comes: traffic that follows the market, or traces that are calibrated to real ones.
    #[arg(long, value_enum, default_value_t = Traffic::Market)]
    pub(crate) traffic: Traffic,
    /// Hours of traffic.
    #[arg(long, default_value_t = 0.02)]
    pub(crate) hours: f64,
    /// Offered core time over the fleet's core time; of market traffic only.
    #[arg(long, default_value_t = 0.6)]
    pub(crate) load: f64,
    /// Functions; of calibrated traffic only.
    #[arg(long, default_value_t = 2_200)]
    pub(crate) functions: usize,
    /// Run times are multiplied by this, which sets the load; of calibrated traffic only.
    #[arg(long, default_value_t = 0.05)]
    pub(crate) duration_scale: f64,
    /// First instant, such as 2026-01-05T12:00:00Z.
    #[arg(long, default_value = "2026-01-05T12:00:00Z")]
    pub(crate) start: Timestamp,
    #[command(flatten)]
    pub(crate) run: RunArguments,
}

/// Where simulated requests come from.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Traffic {
    /// Calm and hot spells that follow the market, at a load that is chosen.
    Market,
    /// Generated traces with the statistics of real ones, from midnight of a Monday on.
    Calibrated,
}

#[derive(Args)]
pub(crate) struct ReplayArguments {
    /// Parquet: counts per minute of functions (Azure Functions 2019).
    #[arg(long)]
    pub(crate) arrivals: PathBuf,
    /// Parquet: percentiles of run times (Azure Functions 2019).
    #[arg(long)]
    pub(crate) durations: PathBuf,
    /// Parquet: percentiles of memory (Azure Functions 2019).
    #[arg(long)]
    pub(crate) memory: PathBuf,
    /// Parquet: one-minute bars (BTC-PERP or Uniswap).
    #[arg(long)]
    pub(crate) market: PathBuf,
    /// Parquet: benchmark repetitions on virtual machines (Azure VM noise).
    #[arg(long)]
    pub(crate) speed_noise: PathBuf,
    /// Hours to replay, 24 at most.
    #[arg(long, default_value_t = 24.0)]
    pub(crate) hours: f64,
    /// Run times are multiplied by this: traced functions run for seconds, those of a trading runtime for tens of ms.
    #[arg(long, default_value_t = 0.1)]
    pub(crate) duration_scale: f64,
    /// First instant, midnight UTC of the replayed day.
    #[arg(long, default_value = "2026-01-05")]
    pub(crate) start: Timestamp,
    #[command(flatten)]
    pub(crate) run: RunArguments,
}

#[derive(Args)]
pub(crate) struct BuildArguments {
    /// The history.
    #[arg(long)]
    pub(crate) history: PathBuf,
    /// The dataset's folder.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Only what was known from this instant on.
    #[arg(long)]
    pub(crate) from: Option<Timestamp>,
    /// Only what was known before this instant.
    #[arg(long)]
    pub(crate) to: Option<Timestamp>,
}

#[derive(Args)]
pub(crate) struct VerifyArguments {
    /// The history.
    #[arg(long)]
    pub(crate) history: PathBuf,
    /// The dataset.
    #[arg(long)]
    pub(crate) dataset: PathBuf,
    /// Models whose service tables the routers had when they logged; needed when a model placed.
    #[arg(long)]
    pub(crate) models: Option<PathBuf>,
    /// The models' name.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
}

#[derive(Args)]
pub(crate) struct TrainArguments {
    /// The dataset.
    #[arg(long)]
    pub(crate) dataset: PathBuf,
    /// The models folder.
    #[arg(long)]
    pub(crate) models: PathBuf,
    /// The model's name.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// Seed of the training.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Args)]
pub(crate) struct PredictArguments {
    /// The models folder.
    #[arg(long)]
    pub(crate) models: PathBuf,
    /// The model's name.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// JSON file with the request.
    #[arg(long)]
    pub(crate) request: PathBuf,
    /// JSON file with the fleet.
    #[arg(long)]
    pub(crate) fleet: PathBuf,
}

#[derive(Args)]
pub(crate) struct GeneratorCheckArguments {
    /// Seeds, such as 1-10 or 1,2,5.
    #[arg(long, default_value = "1-10")]
    pub(crate) seeds: String,
    /// Functions; the bands hold for about the default.
    #[arg(long, default_value_t = 2_200)]
    pub(crate) functions: usize,
    /// Folder with real traces, whose statistics are shown beside.
    #[arg(long)]
    pub(crate) traces: Option<PathBuf>,
    /// The page to write.
    #[arg(long, default_value = "target/generator.html")]
    pub(crate) out: PathBuf,
}

#[derive(Args)]
pub(crate) struct NightlyArguments {
    /// The history.
    #[arg(long)]
    pub(crate) history: PathBuf,
    /// Folder for the dataset, the report and what is needed to resume.
    #[arg(long)]
    pub(crate) work: PathBuf,
    /// The models folder; WORK/models when left out.
    #[arg(long)]
    pub(crate) models: Option<PathBuf>,
    /// The model's name.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// Seed of the training.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Replicates of the closed loop; seeds 11 and up.
    #[arg(long, default_value_t = 4)]
    pub(crate) replicates: u64,
}
