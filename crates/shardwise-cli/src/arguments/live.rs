//! The options of the live system.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use shardwise_client::AccessFiles;

/// What routers ask of their clients.
#[derive(Args)]
pub(crate) struct AccessArguments {
    /// File whose first line is the bearer token of the router; that of SHARDWISE_TOKEN_FILE when left out.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificate in PEM of the authority to trust where the router is https://…; that of SHARDWISE_CA_FILE when left out.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl AccessArguments {
    /// The files, those of the environment where the command line names none.
    pub(crate) fn files(&self) -> AccessFiles {
        let named = AccessFiles { token_file: self.token_file.clone(), ca_file: self.ca_file.clone() };
        named.or_of(std::env::var_os)
    }
}

#[derive(Args)]
pub(crate) struct ServeArguments {
    /// TOML file with all settings; variables such as SHARDWISE_SERVE_LISTEN win over it, options over both.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Where requests are answered: host:port, or unix:/path.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Where operators look and act: dashboard, metrics, configuration; with the requests when left out.
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<String>,
    /// Models folder; without one the router decides by what it measures itself.
    #[arg(long)]
    pub(crate) models: Option<PathBuf>,
    /// Name of the model in that folder.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Alias that decides.
    #[arg(long)]
    pub(crate) alias: Option<String>,
    /// Alias of a challenger, which only says what it would have done.
    #[arg(long)]
    pub(crate) challenger: Option<String>,
    /// shardwise, or a policy to compare it with.
    #[arg(long)]
    pub(crate) policy: Option<String>,
    /// The router's name in the history.
    #[arg(long)]
    pub(crate) router: Option<String>,
    /// Fleet file to begin with; shards that report join it.
    #[arg(long)]
    pub(crate) fleet: Option<PathBuf>,
    /// Folder for the journal and for what is remembered over a restart.
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// NATS server on which shards publish, such as nats://127.0.0.1:4222.
    #[arg(long, value_name = "URL")]
    pub(crate) nats: Option<String>,
    /// Threads that answer.
    #[arg(long)]
    pub(crate) workers: Option<usize>,
    /// File whose first line is the bearer token that requests must carry.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Check the settings, print them as TOML, and serve nothing.
    #[arg(long)]
    pub(crate) check_config: bool,
}

impl ServeArguments {
    /// The fields that options name, with their values.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        [
            ("listen", self.listen.clone()),
            ("admin", self.admin.clone()),
            ("models", path(&self.models)),
            ("name", self.name.clone()),
            ("alias", self.alias.clone()),
            ("challenger", self.challenger.clone()),
            ("policy", self.policy.clone()),
            ("router", self.router.clone()),
            ("fleet", path(&self.fleet)),
            ("data", path(&self.data)),
            ("nats", self.nats.clone()),
            ("workers", self.workers.map(|workers| workers.to_string())),
            ("access.token_file", path(&self.token_file)),
        ]
        .into_iter()
        .filter_map(|(field, value)| Some((field, value?)))
        .collect()
    }
}

#[derive(Args)]
pub(crate) struct CheckConfigArguments {
    /// TOML file with the settings of `serve`; without one the variables of the environment over the defaults are checked.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct ShardArguments {
    /// JSON file with all options; options of the command line win over it.
    #[arg(long, value_name = "FILE")]
    pub(crate) options: Option<PathBuf>,
    /// Its name.
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Where it listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// Where it stands.
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// What it is good at: general, compute, memory or burstable.
    #[arg(long)]
    pub(crate) hardware: Option<String>,
    /// Cores that run requests, each a thread.
    #[arg(long)]
    pub(crate) cores: Option<f32>,
    /// Memory for loaded functions, in MB.
    #[arg(long)]
    pub(crate) memory_mb: Option<f32>,
    /// Speed of a core over one of this machine, in [0.001, 1].
    #[arg(long)]
    pub(crate) speed: Option<f64>,
    /// Seed of what fails by chance.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Router to which reports are posted, as http://host:port or https://host:port; may be given several times.
    #[arg(long, value_name = "URL")]
    pub(crate) report_to: Vec<String>,
    #[command(flatten)]
    pub(crate) access: AccessArguments,
    /// NATS server on which reports are published.
    #[arg(long, value_name = "URL")]
    pub(crate) nats: Option<String>,
    /// Folder for its part in changes of the configuration; without one it takes part in none.
    #[arg(long)]
    pub(crate) state: Option<PathBuf>,
    /// What goes wrong, such as slow=3@10000..20000, failing=0.1, stall, black-hole, nonsense, unhealthy, crash@60000; times in
    /// ms since the start. May be given several times.
    #[arg(long, value_name = "FAULT")]
    pub(crate) fault: Vec<String>,
}

#[derive(Subcommand)]
pub(crate) enum FleetCommand {
    /// Start unequal reference shards as processes, look after them, and stop them when this command is stopped.
    Up(FleetUpArguments),
}

#[derive(Args)]
pub(crate) struct FleetUpArguments {
    /// How many, 1 to 64.
    #[arg(long, default_value_t = 8)]
    pub(crate) shards: usize,
    /// Seed of their machines.
    #[arg(long, default_value_t = 2)]
    pub(crate) seed: u64,
    /// Folder for fleet.json and the shards' files.
    #[arg(long, default_value = "shardwise-fleet")]
    pub(crate) dir: PathBuf,
    /// Speed of an ordinary core over one of this machine: the smaller, the less processor time the fleet takes.
    #[arg(long)]
    pub(crate) pace: Option<f64>,
    /// The first shard's port, the others follow; free ones when left out.
    #[arg(long)]
    pub(crate) first_port: Option<u16>,
    /// Router to which reports are posted, as http://host:port or https://host:port; may be given several times.
    #[arg(long, value_name = "URL")]
    pub(crate) report_to: Vec<String>,
    #[command(flatten)]
    pub(crate) access: AccessArguments,
    /// NATS server on which reports are published.
    #[arg(long, value_name = "URL")]
    pub(crate) nats: Option<String>,
    /// What goes wrong where, as SHARD:FAULT; see `shardwise shard --help`. May be given several times.
    #[arg(long, value_name = "SHARD:FAULT")]
    pub(crate) fault: Vec<String>,
    /// Leave shards that end as they are.
    #[arg(long)]
    pub(crate) no_restart: bool,
}

/// The router that coordinates the fleet, and who is asking.
#[derive(Args)]
pub(crate) struct ChangeArguments {
    /// The sidecar that coordinates the fleet, or its admin address.
    #[arg(long, default_value = "http://127.0.0.1:7070", value_name = "URL")]
    pub(crate) server: String,
    #[command(flatten)]
    pub(crate) access: AccessArguments,
    /// Who wants it; the user of this shell when left out.
    #[arg(long)]
    pub(crate) author: Option<String>,
    /// Why.
    #[arg(long)]
    pub(crate) why: String,
    /// Member that need not agree, as shard/NAME or router/NAME: a dead one would have every change withdrawn. May be given
    /// several times.
    #[arg(long, value_name = "MEMBER")]
    pub(crate) without: Vec<String>,
}

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Share the requests of a function out by weights, everywhere at one instant or nowhere.
    Split(ConfigSplitArguments),
    /// Limit what a shard may use.
    Limits(ConfigLimitsArguments),
    /// Have shards run empty: they get nothing while others can take it, and stand by.
    Drain(ConfigDrainArguments),
    /// Have drained shards take work again.
    Undrain(ConfigDrainArguments),
    /// What was changed, by whom, and what became of it.
    History(ConfigHistoryArguments),
    /// Go back to an earlier version; that is a change as well.
    Rollback(ConfigRollbackArguments),
}

#[derive(Args)]
pub(crate) struct ConfigSplitArguments {
    /// The function.
    #[arg(long)]
    pub(crate) function: String,
    /// Weights that add up to 1, as shard-a=0.9,shard-b=0.1; further steps of a canary as 10m@shard-a=0.5,shard-b=0.5. Without
    /// any the function's split is taken away.
    #[arg(long, value_name = "WEIGHTS")]
    pub(crate) step: Vec<String>,
    #[command(flatten)]
    pub(crate) change: ChangeArguments,
}

#[derive(Args)]
pub(crate) struct ConfigLimitsArguments {
    /// The shard.
    #[arg(long)]
    pub(crate) shard: String,
    /// Cores that run requests.
    #[arg(long)]
    pub(crate) max_cpu_cores: f64,
    /// Memory, in MB.
    #[arg(long)]
    pub(crate) max_memory_mb: f64,
    /// Functions that are loaded at a time.
    #[arg(long)]
    pub(crate) max_concurrent_functions: Option<u32>,
    /// Requests that wait or run.
    #[arg(long)]
    pub(crate) max_requests_in_flight: Option<u32>,
    #[command(flatten)]
    pub(crate) change: ChangeArguments,
}

#[derive(Args)]
pub(crate) struct ConfigDrainArguments {
    /// The shard; may be given several times.
    #[arg(long, required = true)]
    pub(crate) shard: Vec<String>,
    #[command(flatten)]
    pub(crate) change: ChangeArguments,
}

#[derive(Args)]
pub(crate) struct ConfigHistoryArguments {
    /// The sidecar that coordinates the fleet, or its admin address.
    #[arg(long, default_value = "http://127.0.0.1:7070", value_name = "URL")]
    pub(crate) server: String,
    #[command(flatten)]
    pub(crate) access: AccessArguments,
}

#[derive(Args)]
pub(crate) struct ConfigRollbackArguments {
    /// The version; 0 is without any splits, limits and placements.
    #[arg(long)]
    pub(crate) to: u64,
    #[command(flatten)]
    pub(crate) change: ChangeArguments,
}
