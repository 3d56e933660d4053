//! What `serve` can be told: a TOML file, over it variables of the environment, over them options of the command line.

mod planner;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shardwise_client::AccessFiles;
use shardwise_planner::PlannerSettings;
use shardwise_policies::StrategiesConfig;
use toml::{Table, Value};

/// Variables of the environment begin with this; two underscores part a section from its field, as in
/// `SHARDWISE_SERVE_LIMITS__BODY_BYTES`.
pub const PREFIX: &str = "SHARDWISE_SERVE_";

/// Rivals that need more than requests, responses and reports: without it they would be given less than the others.
const PROBING: [&str; 2] = ["join_idle", "prequal"];

/// All settings of a sidecar. What a file does not say is the default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeConfig {
    /// Where requests are answered: `host:port`, or `unix:/path`.
    pub listen: String,
    /// Where operators look and act: dashboard, metrics, configuration. With the requests when left out.
    pub admin: Option<String>,
    /// The registry; without one the router decides by what it measures itself.
    pub models: Option<PathBuf>,
    /// The model's name in the registry.
    pub name: String,
    /// The alias that decides.
    pub alias: String,
    /// The alias that only says what it would have done.
    pub challenger: Option<String>,
    /// `shardwise`, or a policy to compare it with, which needs no model.
    pub policy: String,
    /// The router's own name, in the history.
    pub router: String,
    /// Fleet file (`shards`, `network`, `routerRegion`) to begin with; shards that report join it.
    pub fleet: PathBuf,
    /// Where the journal, the audit and what is remembered lie.
    pub data: PathBuf,
    /// NATS server such as `nats://127.0.0.1:4222`; without one shards report by HTTP.
    pub nats: Option<String>,
    /// Whether this router coordinates changes of the configuration: one of a fleet must, and only one. With NATS it must be
    /// said, without it each router has shards of its own.
    pub coordinator: Option<bool>,
    /// Where the coordinator answers, as `http://host:port` or `https://host:port`, when it is another router and there is no NATS.
    pub coordinator_at: Option<String>,
    /// Threads that answer.
    pub workers: usize,
    /// Seconds between two looks at the registry.
    pub watch_s: f64,
    /// Share of the decisions whose candidates' features are logged, in [0, 1].
    pub log_share: f64,
    /// Age at which a report no longer counts, in ms, for what the fleet's view shows as stale.
    pub stale_after_ms: f64,
    /// Milliseconds after which an outcome that has not come is given up.
    pub outcome_wait_ms: f64,
    /// Limits of requests and of load.
    pub limits: Limits,
    /// Who may ask, and over what.
    pub access: Access,
    /// Where spans of requests go.
    pub traces: TracesConfig,
    /// The specification's strategies: constraints and fallbacks.
    pub strategies: StrategiesConfig,
    /// What plans go by.
    #[serde(with = "planner")]
    pub planner: PlannerSettings,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7070".to_owned(),
            admin: None,
            models: None,
            name: "default".to_owned(),
            alias: "champion".to_owned(),
            challenger: None,
            policy: "shardwise".to_owned(),
            router: "router-1".to_owned(),
            fleet: PathBuf::from("data/sample-fleet.json"),
            data: PathBuf::from("shardwise-data"),
            nats: None,
            coordinator: None,
            coordinator_at: None,
            workers: 2,
            watch_s: 5.0,
            log_share: 0.02,
            stale_after_ms: 10_000.0,
            outcome_wait_ms: 60_000.0,
            limits: Limits::default(),
            access: Access::default(),
            traces: TracesConfig::default(),
            strategies: StrategiesConfig::default(),
            planner: planner::usual(),
        }
    }
}

/// Limits of requests and of load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest body, in bytes.
    pub body_bytes: usize,
    /// Milliseconds in which the head of a request must have come.
    pub head_ms: u64,
    /// Milliseconds in which its body must have come.
    pub body_ms: u64,
    /// Connections at once; further ones are told 503 and closed.
    pub connections: usize,
    /// Requests of one batch.
    pub batch: usize,
    /// Milliseconds that work may wait for a thread before new work is refused with 503.
    pub shed_above_ms: f64,
    /// Microseconds that the model may take of a decision on the average of late; beyond, the service table decides. 0 for as long
    /// as it takes.
    pub model_us: f64,
    /// Share of all features, in [0, 1], that may be missing of a request before the service table decides instead of the model.
    pub missing_share: f64,
    /// Decisions without an outcome that are remembered.
    pub pending: usize,
    /// Milliseconds that a stop may take.
    pub drain_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1 << 20,
            head_ms: 5_000,
            body_ms: 5_000,
            connections: 4_096,
            batch: 1_024,
            shed_above_ms: 5.0,
            model_us: 0.0,
            missing_share: 0.5,
            pending: 200_000,
            drain_ms: 10_000,
        }
    }
}

/// Who may ask, and over what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// File whose first line is the bearer token that all requests but those for health must carry.
    pub token_file: Option<PathBuf>,
    /// Certificate chain in PEM; TLS is on when both files are named.
    pub tls_certificate: Option<PathBuf>,
    /// Private key in PEM.
    pub tls_key: Option<PathBuf>,
    /// Certificate in PEM of the authority to be trusted when `coordinator_at` is asked over TLS; the token is sent along.
    pub ca_file: Option<PathBuf>,
}

impl Access {
    /// What other routers ask of this one: the routers of a fleet share a token.
    pub(crate) fn to_others(&self) -> AccessFiles {
        AccessFiles { token_file: self.token_file.clone(), ca_file: self.ca_file.clone() }
    }
}

/// OpenTelemetry, in programs that are built with the feature `otel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracesConfig {
    /// Where a collector takes OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`; without one there are no traces.
    pub endpoint: Option<String>,
    /// Share in [0, 1] of the requests without a `traceparent` that are traced; with one, the caller has decided.
    pub share: f64,
}

impl Default for TracesConfig {
    fn default() -> Self {
        Self { endpoint: None, share: 0.01 }
    }
}

impl TracesConfig {
    fn check(&self) -> Result<(), ConfigError> {
        if !(0.0..=1.0).contains(&self.share) {
            return Err(ConfigError::new("traces.share", "must be a share between 0 and 1"));
        }
        match &self.endpoint {
            Some(_) if !cfg!(feature = "otel") => {
                let problem =
                    "this program was built without traces; build it with the feature `otel`, or leave this out";
                Err(ConfigError::new("traces.endpoint", problem))
            }
            Some(endpoint) if !endpoint.starts_with("http://") => {
                let problem = format!("'{endpoint}' must be written as http://host:port/v1/traces");
                Err(ConfigError::new("traces.endpoint", problem))
            }
            _ => Ok(()),
        }
    }
}

/// A configuration that is refused: where it was said, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// A file, a variable, or a field.
    pub place: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl ConfigError {
    pub(crate) fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}

impl ServeConfig {
    /// Reads a file, then variables of the environment, then `options`, pairs of a field such as `limits.body_bytes` and its
    /// value; later ones win. Everything is checked.
    ///
    /// # Errors
    /// Names the file, variable or field, and what it may hold.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        options: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let mut table = file.map_or_else(|| Ok(Table::new()), read)?;
        let variables: BTreeMap<String, String> = environment.into_iter().collect();
        for (name, value) in &variables {
            if let Some(field) = name.strip_prefix(PREFIX) {
                put(&mut table, &field.to_lowercase().replace("__", "."), value, name)?;
            }
        }
        for (field, value) in options {
            put(&mut table, field, value, &format!("--{}", field.replace(['_', '.'], "-")))?;
        }
        let place = || file.map_or_else(|| "the configuration".to_owned(), |file| file.display().to_string());
        let config: Self = table.try_into().map_err(|error| ConfigError::new(place(), told(&error)))?;
        config.check()?;
        Ok(config)
    }

    /// Whether this router is the coordinator.
    pub fn is_coordinator(&self) -> bool {
        self.coordinator.unwrap_or(self.nats.is_none() && self.coordinator_at.is_none())
    }

    /// All fields as TOML that [`load`](Self::load) reads.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("the configuration is plain data")
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field: &str, problem: &str| Err(ConfigError::new(field, problem));
        for (field, address) in [("listen", Some(&self.listen)), ("admin", self.admin.as_ref())] {
            if let Some(address) = address {
                Address::parse(address).map_err(|problem| ConfigError::new(field, problem))?;
            }
        }
        for (field, text) in [("name", &self.name), ("alias", &self.alias), ("router", &self.router)] {
            if text.is_empty() {
                return wrong(field, "is empty; name it");
            }
        }
        if self.policy != crate::PLACER && !shardwise_policies::NAMES.contains(&self.policy.as_str()) {
            let all = shardwise_policies::NAMES.join(", ");
            return Err(ConfigError::new(
                "policy",
                format!("'{}' is none; choose {} or one of {all}", self.policy, crate::PLACER),
            ));
        }
        if PROBING.contains(&self.policy.as_str()) {
            let problem = "lives on probes or notices of idle cores, which a sidecar does not send; choose another";
            return Err(ConfigError::new("policy", format!("'{}' {problem}", self.policy)));
        }
        for (field, share) in [("log_share", self.log_share), ("limits.missing_share", self.limits.missing_share)] {
            if !(0.0..=1.0).contains(&share) {
                return wrong(field, "must be a share between 0 and 1");
            }
        }
        if !(1..=1_024).contains(&self.workers) {
            return wrong("workers", "must be between 1 and 1024");
        }
        for (field, value) in [
            ("watch_s", self.watch_s),
            ("stale_after_ms", self.stale_after_ms),
            ("outcome_wait_ms", self.outcome_wait_ms),
            ("limits.shed_above_ms", self.limits.shed_above_ms),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return wrong(field, "must be a finite number above 0");
            }
        }
        let limits = &self.limits;
        if !(limits.model_us.is_finite() && limits.model_us >= 0.0) {
            return wrong("limits.model_us", "must be a finite number, 0 or more");
        }
        for (field, value) in [
            ("limits.body_bytes", limits.body_bytes),
            ("limits.connections", limits.connections),
            ("limits.batch", limits.batch),
            ("limits.pending", limits.pending),
        ] {
            if value == 0 {
                return wrong(field, "must be at least 1");
            }
        }
        if self.coordinator_at.as_ref().is_some_and(|at| at.starts_with("https://")) && self.access.ca_file.is_none() {
            return wrong(
                "access.ca_file",
                "must name the certificate of the authority that coordinator_at is trusted by",
            );
        }
        self.traces.check()?;
        planner::check(&self.planner)?;
        if self.access.tls_certificate.is_some() != self.access.tls_key.is_some() {
            return wrong("access", "names only one of tls_certificate and tls_key; TLS needs both");
        }
        self.strategies.check().map_err(|error| ConfigError::new(format!("strategies.{}", error.field), error.problem))
    }
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `host:port`; port 0 is any that is free.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Reads `host:port` or `unix:/path`.
    ///
    /// # Errors
    /// Says what an address looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.is_empty() {
                true => Err("names no path; write unix:/run/shardwise.sock".to_owned()),
                false => Ok(Self::Unix(PathBuf::from(path))),
            };
        }
        let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        match port {
            Some(Ok(_)) => Ok(Self::Tcp(text.to_owned())),
            _ => Err(format!("'{text}' is no address; write host:port such as 127.0.0.1:7070, or unix:/path")),
        }
    }
}

fn read(file: &Path) -> Result<Table, ConfigError> {
    let place = || file.display().to_string();
    let text =
        std::fs::read_to_string(file).map_err(|error| ConfigError::new(place(), format!("cannot read: {error}")))?;
    text.parse::<Table>().map_err(|error| ConfigError::new(place(), told(&error)))
}

/// One line of what the parser says; it draws the place over several.
fn told(error: &toml::de::Error) -> String {
    error.to_string().trim().replace('\n', "; ")
}

/// Puts a value at `section.field`.
fn put(table: &mut Table, field: &str, text: &str, place: &str) -> Result<(), ConfigError> {
    let mut sections: Vec<&str> = field.split('.').collect();
    let last = sections.pop().unwrap_or_default();
    let mut at = table;
    for section in sections {
        let below = at.entry(section.to_owned()).or_insert_with(|| Value::Table(Table::new()));
        at = below.as_table_mut().ok_or_else(|| ConfigError::new(place, format!("'{section}' is no section")))?;
    }
    at.insert(last.to_owned(), value_of(field, text));
    Ok(())
}

/// Reads text as what the field is by default, for nobody quotes in a shell; fields without a default are text.
fn value_of(field: &str, text: &str) -> Value {
    let defaults = Table::try_from(ServeConfig::default()).expect("the configuration is plain data");
    let default = field.split('.').try_fold(Value::Table(defaults), |at, part| at.get(part).cloned());
    if matches!((default.as_ref(), text), (None, "true" | "false")) {
        return Value::Boolean(text == "true");
    }
    if matches!(default, None | Some(Value::String(_))) {
        return Value::String(text.to_owned());
    }
    let parsed = format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    match (parsed, default) {
        (Some(Value::Integer(whole)), Some(Value::Float(_))) => Value::Float(whole as f64),
        (Some(value), _) => value,
        (None, _) => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
