//! The options of load tests, their validation and the arena.

use std::path::PathBuf;

use clap::Args;
use shardwise_simulator::LoadScenario;

use super::live::AccessArguments;
use crate::lists::{Decimals, Numbers, Words};

#[derive(Args)]
pub(crate) struct LoadtestArguments {
    /// What to play: market_volatility, arbitrage_surge, whale_activity or protocol_launch.
    #[arg(long, value_parser = LoadScenario::parse)]
    pub(crate) scenario: LoadScenario,
    /// `sim`, which measures whole requests; or a server as http://host:port (or https), of which the decisions are measured; or routers as
    /// name=http://host:port,name=…, which take turns in placing the same requests on the same real shards.
    #[arg(long, default_value = "sim")]
    pub(crate) target: String,
    #[command(flatten)]
    pub(crate) access: AccessArguments,
    /// Of routers: how long each takes its turn, in seconds.
    #[arg(long, default_value_t = 15.0, value_name = "SECONDS")]
    pub(crate) block: f64,
    /// Of routers: the beginning of each turn that does not count, in seconds, while the queues of the one before drain.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    pub(crate) settle: f64,
    /// Of routers: the one that the others are held against; the first when left out.
    #[arg(long, value_name = "NAME")]
    pub(crate) baseline: Option<String>,
    /// The policy that places in the simulator; `shardwise` is the model in --models.
    #[arg(long, default_value = "sed_tab_lambda")]
    pub(crate) policy: String,
    /// The models folder, for the policy `shardwise`.
    #[arg(long)]
    pub(crate) models: Option<PathBuf>,
    /// The model's name.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// Seed of the fleet: shards, functions, distances.
    #[arg(long, default_value_t = 1)]
    pub(crate) fleet_seed: u64,
    /// Seed of the events and of all else that is left to chance.
    #[arg(long, default_value_t = 11)]
    pub(crate) seed: u64,
    /// Mean rate in events per second; bursts are faster. Left out, what suits the scenario.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// How many events. Left out, what suits the scenario.
    #[arg(long)]
    pub(crate) events: Option<usize>,
    /// How long, in seconds, instead of how many.
    #[arg(long, conflicts_with = "events")]
    pub(crate) duration: Option<f64>,
    /// Ordinary traffic beside the events in the simulator, as offered core time over the fleet's; 0 for none.
    #[arg(long, default_value_t = 0.7)]
    pub(crate) load: f64,
    /// Requests on their way to a server at once; further ones wait in the driver.
    #[arg(long, default_value_t = 1_024)]
    pub(crate) concurrency: usize,
    /// When a request to a server has failed, in ms.
    #[arg(long, default_value_t = 3_000.0)]
    pub(crate) timeout_ms: f64,
    /// What cannot leave within so many ms of its moment is not sent, and counted; as long as the timeout when left out. Only
    /// for a single server.
    #[arg(long)]
    pub(crate) latest_ms: Option<f64>,
    /// JSON file for the result.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// JSON file for the distribution to expect when the fleet is filled by what its shards can do.
    #[arg(long)]
    pub(crate) expected_out: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct ValidateArguments {
    /// JSON file: a load test's result, or requests as {"byShardId": {"shard-a": 120, …}}.
    #[arg(long)]
    pub(crate) result: PathBuf,
    /// JSON file: shares in any unit as {"byShardId": {"shard-a": 0.3, …}}, or another result.
    #[arg(long)]
    pub(crate) expected: PathBuf,
}

#[derive(Args)]
pub(crate) struct ArenaArguments {
    /// Seeds of fleets, such as 1,2,3 or 1-3.
    #[arg(long, default_value = "1")]
    pub(crate) fleets: Numbers,
    /// Seeds of traffic, run times and noise. Lower ones than 10 train and tune; judge on 11 and up.
    #[arg(long, default_value = "11")]
    pub(crate) seeds: Numbers,
    /// Offered core time over the fleet's, such as 0.5,0.7,0.85,0.95.
    #[arg(long, default_value = "0.7")]
    pub(crate) load: Decimals,
    /// Numbers of routers, such as 1,4.
    #[arg(long, default_value = "1")]
    pub(crate) routers: Numbers,
    /// Seconds between reports, such as 0.1,1,10.
    #[arg(long, default_value = "1")]
    pub(crate) report_age: Decimals,
    /// Distances: lan, metro, global.
    #[arg(long, default_value = "metro")]
    pub(crate) net: Words,
    /// Scenarios, or all; an unknown name lists them.
    #[arg(long, default_value = "base")]
    pub(crate) scenario: Words,
    /// Policies, or all; an unknown name lists them.
    #[arg(long, default_value = "all")]
    pub(crate) policies: Words,
    /// heterogeneous, homogeneous or as-specified.
    #[arg(long, default_value = "heterogeneous")]
    pub(crate) fleet_kind: String,
    /// How unequal machines are: 1 as measured, 0 identical.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) heterogeneity: f32,
    /// Shards in a fleet; the specification's has its own.
    #[arg(long, default_value_t = 20)]
    pub(crate) shards: usize,
    /// Requests of a cell, about.
    #[arg(long, default_value_t = 30_000)]
    pub(crate) requests: usize,
    /// Train models for each fleet on simulated logs of seeds 1 to 9.
    #[arg(long, conflicts_with = "models")]
    pub(crate) train: bool,
    /// Let a shard fail in every second of these logs, so that failures can be learned.
    #[arg(long, requires = "train")]
    pub(crate) train_failures: bool,
    /// Folder of models to run instead, the same for all fleets.
    #[arg(long)]
    pub(crate) models: Option<PathBuf>,
    /// The models' name.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// Folder with real traces for the scenario replay; without it, and without SHARDWISE_TRACES, generated ones.
    #[arg(long)]
    pub(crate) traces: Option<PathBuf>,
    /// The policy that the page is about; shardwise when it takes part, else the best.
    #[arg(long)]
    pub(crate) subject: Option<String>,
    /// Folder for the page, the results and what is needed to resume.
    #[arg(long, default_value = "target/arena")]
    pub(crate) out: PathBuf,
}
