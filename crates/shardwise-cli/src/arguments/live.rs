//! The options of the live system.

use std::path::PathBuf;

use clap::Args;

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
