//! The command line: names and options as users type them.

mod evaluate;
mod explain;
mod import;
mod live;
mod models;
mod nightly;
mod plan;
mod trials;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use shardwise_types::Timestamp;

pub(crate) use self::evaluate::*;
pub(crate) use self::explain::*;
pub(crate) use self::import::*;
pub(crate) use self::live::*;
pub(crate) use self::models::*;
pub(crate) use self::nightly::{MlflowArguments, NightlyArguments};
pub(crate) use self::plan::*;
pub(crate) use self::trials::*;
use crate::lists::Numbers;
use crate::output::progress::Progress;

/// Learns where work should run: history of placements in, verified model out, decisions with reasons.
#[derive(Parser)]
#[command(name = "shardwise", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print one JSON object as the last line of standard output.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How progress is shown on standard error.
    #[arg(long, global = true, value_enum, default_value_t = Progress::Auto)]
    pub(crate) progress: Progress,
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
    /// Look after the versions of models: list, verify, promote, roll back, move about.
    #[command(subcommand)]
    Models(ModelsCommand),
    /// The same as `models promote`.
    Promote(PromoteArguments),
    /// Decide one request.
    Predict(PredictArguments),
    /// Show a logged decision again, computed by the code that made it: what was known, what each shard would have cost, what
    /// others would have chosen, and what became of it.
    Explain(ExplainArguments),
    /// Print the defaults of the specification's strategies as TOML, or check a file of them.
    Strategies(StrategiesArguments),
    /// Check the generator of traces.
    #[command(subcommand)]
    Generator(GeneratorCommand),
    /// Try the gate that decides who goes live.
    #[command(subcommand)]
    Gate(GateCommand),
    /// Do the night's work: build, check, verify, train, evaluate, publish when better, decide.
    Nightly(NightlyArguments),
    /// May a model go live, and why.
    Evaluate(EvaluateArguments),
    /// Answer over HTTP where requests should run, learn from what becomes of them, and keep the history.
    Serve(ServeArguments),
    /// Run real functions as a reference shard: with so many cores, so fast, and with what goes wrong.
    Shard(ShardArguments),
    /// Start a fleet of reference shards.
    #[command(subcommand)]
    Fleet(FleetCommand),
    /// Change traffic splits and limits while the system runs.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Plan what to move, to keep warm and to have ready, from a history or a running fleet, and carry it out when asked.
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Check the settings of `serve`, and print them as TOML.
    CheckConfig(CheckConfigArguments),
    /// Send a scenario's events to the simulated fleet or to a running server, each at its time, and measure.
    Loadtest(LoadtestArguments),
    /// Judge where a load test's events went; exit code 0 as expected, 1 not, 3 too few events to say.
    Validate(ValidateArguments),
    /// Let every policy meet every rival on the same simulated traffic.
    Arena(ArenaArguments),
    /// Write models as ONNX, or check one.
    #[command(subcommand)]
    Onnx(OnnxCommand),
    /// Measure how fast the parts that routers embed are on this machine, beside what others use.
    #[command(subcommand)]
    Bench(BenchCommand),
}

#[derive(Subcommand)]
pub(crate) enum OnnxCommand {
    /// Write each head of a model as an ONNX file.
    Export(OnnxExportArguments),
    /// Check that an ONNX file takes the features of this version, and score a few rows with ONNX Runtime.
    Check(OnnxCheckArguments),
    /// Let an ONNX execution head compete with the one of trees that is trained on the same dataset: errors, calibration, the
    /// closed loop on the end of the history, time of a decision, and the gate's verdict on either.
    Compare(OnnxCompareArguments),
}

#[derive(Subcommand)]
pub(crate) enum BenchCommand {
    /// Whole decisions with all heads and guards, one by one.
    Decide(BenchDecideArguments),
    /// Score rows with one boosted model: shardwise, LightGBM, ONNX Runtime, and compiled by tl2cgen.
    Score(BenchScoreArguments),
    /// Build a dataset, beside the same joins and windows in DuckDB and in Python's polars.
    Dataset(BenchDatasetArguments),
    /// Train four heads on a million rows, here and by Python's LightGBM on the same files: time, memory, errors.
    Train(BenchTrainArguments),
    /// What plans do to a simulated fleet: a day, a spike of volatility, cold starts; the same placement with and without.
    Plans(BenchPlansArguments),
    /// One side of `bench train`, which runs it in a process of its own; its plan is on standard input.
    #[command(hide = true)]
    TrainHere,
}

#[derive(Args)]
pub(crate) struct BenchDatasetArguments {
    /// Decisions of the simulated history.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) decisions: u64,
    /// Days of the history, each with as many decisions.
    #[arg(long, default_value_t = 4)]
    pub(crate) days: u64,
    /// Routers.
    #[arg(long, default_value_t = 4)]
    pub(crate) routers: usize,
    /// Seed of the fleet and of its traffic.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Threads of each engine.
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
    /// Memory that DuckDB may use before it spills to disk, in GiB.
    #[arg(long, default_value_t = 6)]
    pub(crate) memory_gib: u64,
    /// Folder in which the history is kept for the next run, and datasets are written while it runs; a temporary one when left out.
    #[arg(long)]
    pub(crate) keep: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct BenchTrainArguments {
    /// Most training rows of each head; as many are simulated when no dataset is given.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) rows: usize,
    /// Most trees of a head.
    #[arg(long, default_value_t = 200)]
    pub(crate) trees: u32,
    /// Seed of traffic and training.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Rounds; in each both sides train, in turns the one and the other first, and their times are the means.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// The dataset; one is simulated when left out, and kept in --out.
    #[arg(long)]
    pub(crate) dataset: Option<PathBuf>,
    /// Folder for what is simulated.
    #[arg(long, default_value = "target/bench-train")]
    pub(crate) out: PathBuf,
}

#[derive(Args)]
pub(crate) struct BenchDecideArguments {
    /// Numbers of shards to decide between.
    #[arg(long, default_value = "20,64,256,1024")]
    pub(crate) candidates: Numbers,
    /// Numbers of threads that share one placer.
    #[arg(long, default_value = "1,2")]
    pub(crate) threads: Numbers,
}

#[derive(Subcommand)]
pub(crate) enum HistoryCommand {
    /// From a simulated fleet under generated traffic.
    Simulate(SimulateArguments),
    /// From a simulated fleet under real arrivals, run times, market and machine noise.
    Replay(ReplayArguments),
    /// From files or a Prometheus that you have, by a mapping file; exit code 4 when too many rows are refused.
    Import(HistoryImportArguments),
}

#[derive(Subcommand)]
pub(crate) enum DatasetCommand {
    /// Build or extend a dataset; finished days are kept.
    Build(BuildArguments),
    /// Write the rows that the execution head learns from into a file for other trainers; none that models are measured on.
    Rows(RowsArguments),
    /// Check what a dataset holds, and whether it looks as another one did; exit code 4 when it is to be refused.
    Check(CheckArguments),
    /// Re-extract what routers logged and what the dataset holds, and compare bit for bit.
    Verify(VerifyArguments),
}

#[derive(Subcommand)]
pub(crate) enum GeneratorCommand {
    /// Print each statistic of generated traces beside its band, and draw both.
    Check(GeneratorCheckArguments),
}

#[derive(Subcommand)]
pub(crate) enum GateCommand {
    /// Offer the gate models that are known to be bad, or better than the champion, in simulated worlds; five of each in
    /// some two and a half minutes on two cores.
    Trial(GateTrialArguments),
    /// Weeks in fast motion: every day the live model places, every night a model is trained, judged and perhaps made live, while
    /// the world drifts, a shard joins, the market crashes and a day is lost.
    Nights(GateNightsArguments),
}

#[derive(Args)]
pub(crate) struct GateTrialArguments {
    /// Trials with bad models, and as many with better ones.
    #[arg(long, default_value_t = 200)]
    pub(crate) trials: usize,
    /// The first of the worlds' seeds.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Folder for what is needed to resume.
    #[arg(long, default_value = "target/gate")]
    pub(crate) out: PathBuf,
}

#[derive(Args)]
pub(crate) struct GateNightsArguments {
    /// Days, each with its night.
    #[arg(long, default_value_t = 14)]
    pub(crate) days: u64,
    /// Seed of the fleet: shards, functions, distances.
    #[arg(long, default_value_t = 1)]
    pub(crate) fleet_seed: u64,
    /// Seed of traffic and training; each day's is one more.
    #[arg(long, default_value_t = 101)]
    pub(crate) seed: u64,
    /// Requests of a day, about.
    #[arg(long, default_value_t = 24_000)]
    pub(crate) requests: usize,
    /// Replicates of each night's closed loop.
    #[arg(long, default_value_t = 8)]
    pub(crate) replicates: u64,
    /// Parquet: one-minute bars of a real market, whose wildest hour is the day of the crash; a generated one when left out.
    #[arg(long)]
    pub(crate) market: Option<PathBuf>,
    /// Folder for history, models, runs, and what is needed to resume.
    #[arg(long, default_value = "target/nights")]
    pub(crate) out: PathBuf,
}

/// What simulated and replayed histories have in common.
#[derive(Args)]
pub(crate) struct RunArguments {
    /// Seed of the traffic and of all else that is left to chance.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The policy that places: sed_tab_softmax explores, so that the history can teach; `shardwise` is a model in --models.
    #[arg(long, default_value = "sed_tab_softmax")]
    pub(crate) policy: String,
    /// The models, for the policy `shardwise`: a folder, or a URL such as file:///folder or s3://bucket/prefix.
    #[arg(long)]
    pub(crate) models: Option<PathBuf>,
    /// The model's name.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// Which of its versions: an alias, a version or the beginning of one.
    #[arg(long, default_value = "champion")]
    pub(crate) version: String,
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
pub(crate) struct RowsArguments {
    /// The dataset.
    #[arg(long)]
    pub(crate) dataset: PathBuf,
    /// The file to write.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Args)]
pub(crate) struct CheckArguments {
    /// The dataset; its profile is written into it.
    #[arg(long)]
    pub(crate) dataset: PathBuf,
    /// What it is to look like: another dataset, or a profile such as a night records as WORK/accepted-profile.json.
    #[arg(long)]
    pub(crate) against: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) quality: QualityArguments,
}

/// How good a dataset must be.
#[derive(Args)]
pub(crate) struct QualityArguments {
    /// Limits of the quality gate in TOML; those that are left out keep their defaults.
    #[arg(long)]
    pub(crate) limits: Option<PathBuf>,
    /// Take the dataset however far its columns have drifted.
    #[arg(long)]
    pub(crate) accept_drift: bool,
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
    /// The models: a folder, or a URL such as file:///folder or s3://bucket/prefix.
    #[arg(long)]
    pub(crate) models: PathBuf,
    /// The model's name.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// Seed of the training.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) search: SearchArguments,
    /// File for the search's trials, by which it resumes; DATASET.search-SEED.ndjson when left out.
    #[arg(long, value_name = "FILE", requires = "search")]
    pub(crate) search_journal: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) signing: SigningArguments,
}

/// Whether better learning parameters are looked for.
#[derive(Args, Clone, Copy)]
pub(crate) struct SearchArguments {
    /// Try so many sets of learning parameters at most, the usual ones first, on later training rows; take the best if it is
    /// better by more than noise.
    #[arg(long, value_name = "TRIALS")]
    pub(crate) search: Option<u32>,
    /// Minutes after which no trial begins; how far a search comes then depends on the machine.
    #[arg(long, value_name = "MINUTES", requires = "search")]
    pub(crate) search_minutes: Option<f64>,
}

#[derive(Args)]
pub(crate) struct PredictArguments {
    /// The models: a folder, or a URL such as file:///folder or s3://bucket/prefix.
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
    /// TOML file that makes the specification's strategies constraints, fallbacks, or turns them off.
    #[arg(long)]
    pub(crate) strategies: Option<PathBuf>,
    /// ONNX file of a model that predicts ln execution ms from the features, to decide with in the place of the execution head.
    #[arg(long)]
    pub(crate) onnx: Option<PathBuf>,
    /// Take an ONNX file that does not say which features it was trained on.
    #[arg(long, requires = "onnx")]
    pub(crate) any_features: bool,
    #[command(flatten)]
    pub(crate) trust: TrustArguments,
}

/// Prints the strategies' configuration.
#[derive(Args)]
pub(crate) struct StrategiesArguments {
    /// A TOML file to check; without it the defaults are printed.
    #[arg(long)]
    pub(crate) check: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct GeneratorCheckArguments {
    /// Seeds, such as 1-10 or 1,2,5.
    #[arg(long, default_value = "1-10")]
    pub(crate) seeds: Numbers,
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
pub(crate) struct OnnxExportArguments {
    /// Folder of models.
    #[arg(long, default_value = "models")]
    pub(crate) models: PathBuf,
    /// The model's name.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// Alias, version or the beginning of one.
    #[arg(long, default_value = "champion")]
    pub(crate) version: String,
    /// Folder for the files; those of the same names are replaced.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Args)]
pub(crate) struct OnnxCheckArguments {
    /// The ONNX file.
    pub(crate) file: PathBuf,
    /// Accept a model that does not name the features it was made for, or names others of the same number.
    #[arg(long)]
    pub(crate) any_features: bool,
}

#[derive(Args)]
pub(crate) struct OnnxCompareArguments {
    /// The ONNX file of an execution head, with its smearing and standard deviation among its metadata.
    pub(crate) file: PathBuf,
    /// The history that the dataset was built from; a simulated one, because the closed loop needs its world.
    #[arg(long)]
    pub(crate) history: PathBuf,
    /// The dataset.
    #[arg(long)]
    pub(crate) dataset: PathBuf,
    /// Seed of the training of trees.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Replicates of the closed loop, with seeds from 11 on.
    #[arg(long, default_value_t = 8)]
    pub(crate) replicates: u64,
}

#[derive(Args)]
pub(crate) struct BenchScoreArguments {
    /// Trees of the model.
    #[arg(long, default_value_t = 200)]
    pub(crate) trees: u32,
    /// Most leaves of a tree.
    #[arg(long, default_value_t = 63)]
    pub(crate) leaves: u32,
    /// Features in a row.
    #[arg(long, default_value_t = 40)]
    pub(crate) features: usize,
    /// Seed of rows and training.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Instead, compare leaves, and sums bit by bit, with LightGBM on so many rows made to find a difference.
    #[arg(long, value_name = "ROWS")]
    pub(crate) parity: Option<usize>,
}
