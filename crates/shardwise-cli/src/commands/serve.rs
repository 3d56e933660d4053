//! `shardwise serve` and `shardwise check-config`: the sidecar, and whether it could start.

use std::path::Path;
use std::process::ExitCode;

use miette::{IntoDiagnostic, miette};
use shardwise_server::{ServeConfig, serve};

use crate::arguments::{CheckConfigArguments, ServeArguments};
use crate::output;

pub(crate) fn run(options: &ServeArguments, json: bool) -> miette::Result<ExitCode> {
    let config = load(options.config.as_deref(), &options.settings())?;
    if options.check_config {
        return told(&config, json);
    }
    output::log::show();
    let summary = serve(config, output::interrupt_flag(), |started| {
        output::note(format!("serving at {}", started.listen));
        if let Some(admin) = &started.admin {
            output::note(format!("operators look at {admin}"));
        }
        if started.lost_before > 0 {
            output::note(format!("{} decisions were lost when the process before was killed", started.lost_before));
        }
    })
    .into_diagnostic()?;
    if json {
        output::print_json(&summary)?;
    }
    // It was told to stop, and did all that it had to do: that is how it ends.
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn check_config(options: &CheckConfigArguments, json: bool) -> miette::Result<ExitCode> {
    told(&load(options.config.as_deref(), &[])?, json)
}

fn load(file: Option<&Path>, settings: &[(&str, String)]) -> miette::Result<ServeConfig> {
    let help = "`shardwise check-config` prints all settings as they are";
    ServeConfig::load(file, std::env::vars(), settings).map_err(|error| miette!(help = help, "{error}"))
}

fn told(config: &ServeConfig, json: bool) -> miette::Result<ExitCode> {
    match json {
        true => output::print_json(config)?,
        false => print!("{}", config.to_toml()),
    }
    Ok(ExitCode::SUCCESS)
}
