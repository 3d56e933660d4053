//! `shardwise config`: changes of splits, limits and drained shards, asked of the router that coordinates the fleet.

use std::process::ExitCode;
use std::time::Duration;

use miette::{IntoDiagnostic, miette};
use serde_json::{Value, json};
use shardwise_client::AccessFiles;
use shardwise_control::Configuration;
use shardwise_control::commands::{Changed, Changes};
use shardwise_types::{Placements, ShardId};

use crate::arguments::{ChangeArguments, ConfigCommand, ConfigDrainArguments};
use crate::output;

/// A change takes ten seconds when all is well.
const PATIENCE: Duration = Duration::from_secs(60);
/// Totals of some hundred thousand functions, in bytes.
const LARGEST_ANSWER: u64 = 256 << 20;
/// The exit code of a change that was withdrawn: it holds nowhere.
const WITHDRAWN: u8 = 3;

pub(crate) fn run(command: &ConfigCommand, json: bool) -> miette::Result<ExitCode> {
    match command {
        ConfigCommand::History(options) => {
            let asked = ask(&options.server, &options.access.files(), "history", None)?;
            let changes: Changes = serde_json::from_value(asked.1).into_diagnostic()?;
            told(&changes, &changes.table(), json).map(|()| ExitCode::SUCCESS)
        }
        ConfigCommand::Split(options) => {
            let body = json!({ "function": options.function, "steps": options.step, "change": who(&options.change) });
            change(&options.change, "splits", &body, json)
        }
        ConfigCommand::Limits(options) => {
            let limits = json!({
                "maxCpuCores": options.max_cpu_cores, "maxMemoryMb": options.max_memory_mb,
                "maxConcurrentFunctions": options.max_concurrent_functions,
                "maxRequestsInFlight": options.max_requests_in_flight,
            });
            let body = json!({ "shard": options.shard, "limits": limits, "change": who(&options.change) });
            change(&options.change, "limits", &body, json)
        }
        ConfigCommand::Drain(options) => drain(options, true, json),
        ConfigCommand::Undrain(options) => drain(options, false, json),
        ConfigCommand::Rollback(options) => {
            let body = json!({ "to": options.to, "change": who(&options.change) });
            change(&options.change, "rollback", &body, json)
        }
    }
}

/// Has shards run empty, or take work again, and leaves all other placements as they are.
fn drain(options: &ConfigDrainArguments, empty: bool, json: bool) -> miette::Result<ExitCode> {
    let Configuration { version, placements, .. } =
        held(&options.change.server, &options.change.access.files(), "--server")?;
    let mut drained = placements.drained().clone();
    for shard in &options.shard {
        let shard = ShardId::new(shard);
        if empty {
            drained.insert(shard);
        } else if !drained.remove(&shard) {
            let names: Vec<&str> = drained.iter().map(ShardId::as_str).collect();
            return Err(miette!("{shard} is not drained; drained are: {}", names.join(", ")));
        }
    }
    let placements = Placements::new(placements.avoided().clone(), placements.warm().clone(), drained);
    let mut who = who(&options.change);
    who["fromVersion"] = json!(version);
    let body = json!({ "placements": placements, "change": who });
    change(&options.change, "placements", &body, json)
}

fn who(change: &ChangeArguments) -> Value {
    let user = || std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
    let author = change.author.clone().unwrap_or_else(user);
    json!({ "author": author, "why": change.why, "without": change.without })
}

fn change(options: &ChangeArguments, what: &str, body: &Value, json: bool) -> miette::Result<ExitCode> {
    let (withdrawn, entry) = ask(&options.server, &options.access.files(), what, Some(body))?;
    let changed: Changed = serde_json::from_value(entry).into_diagnostic()?;
    told(&changed, &changed.table(), json)?;
    Ok(if withdrawn { ExitCode::from(WITHDRAWN) } else { ExitCode::SUCCESS })
}

fn told(value: &impl serde::Serialize, table: &str, json: bool) -> miette::Result<()> {
    if json {
        return output::print_json(value);
    }
    print!("{}", shardwise_evaluation::visible(table));
    Ok(())
}

fn ask(server: &str, access: &AccessFiles, what: &str, body: Option<&Value>) -> miette::Result<(bool, Value)> {
    ask_at(server, access, "--server", &format!("config/{what}"), body)
}

/// What holds in the fleet; `option` is where the user said who coordinates it.
pub(crate) fn held(server: &str, access: &AccessFiles, option: &str) -> miette::Result<Configuration> {
    let (_, mut answer) = ask_at(server, access, option, "config", None)?;
    let help = format!("name the router that coordinates the fleet with {option}");
    match answer["coordinator"]["current"].take() {
        Value::Null => Err(miette!(help = help, "{server} is not the coordinator of its fleet")),
        current => serde_json::from_value(current).into_diagnostic(),
    }
}

/// Whether a change was withdrawn, and the router's answer at a path below `/v1`; `option` is where the user named it.
pub(crate) fn ask_at(
    server: &str,
    access: &AccessFiles,
    option: &str,
    path: &str,
    body: Option<&Value>,
) -> miette::Result<(bool, Value)> {
    let url = format!("{}/v1/{path}", server.trim_end_matches('/'));
    let config = ureq::Agent::config_builder().proxy(None).http_status_as_error(false);
    let access = access.open().into_diagnostic()?;
    let agent = access.agent(config.timeout_global(Some(PATIENCE)).build());
    let help = format!("name a router that runs with {option}");
    let unreachable = |error: ureq::Error| miette!(help = help.clone(), "{url} does not answer: {error}");
    let mut response = match body {
        Some(body) => access.sign(agent.post(&url)).content_type("application/json").send(body.to_string()),
        None => access.sign(agent.get(&url)).call(),
    }
    .map_err(&unreachable)?;
    let text = response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_string().map_err(unreachable)?;
    let value: Value = serde_json::from_str(&text).map_err(|_| miette!("{url} does not answer with JSON"))?;
    match (response.status().as_u16(), value["reason"].as_str()) {
        (200, _) => Ok((false, value)),
        (409, Some("withdrawn")) => Ok((true, value["extra"].clone())),
        (status, _) => Err(miette!("{url} answers {status}: {}", value["detail"].as_str().unwrap_or(&text))),
    }
}
