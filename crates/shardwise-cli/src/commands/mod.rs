//! One file per command; each reads its inputs, calls one crate, and says what came out.

mod arena;
mod dataset;
mod files;
mod fleet_models;
mod generator;
mod history;
mod keys;
mod loadtest;
mod models;
mod nightly;
mod predict;
mod roster;
mod train;
mod validate;
mod variants;

use std::process::ExitCode;

use crate::arguments::{Arguments, Command, DatasetCommand, GeneratorCommand, HistoryCommand};

/// Runs the command that was asked for. Done is a success, except for a validation, whose verdict is the exit code.
pub(crate) fn run(arguments: &Arguments) -> miette::Result<ExitCode> {
    let json = arguments.json;
    let done = match &arguments.command {
        Command::History(HistoryCommand::Simulate(options)) => history::simulate(options, json),
        Command::History(HistoryCommand::Replay(options)) => history::replay(options, json),
        Command::Dataset(DatasetCommand::Build(options)) => dataset::build(options, json),
        Command::Dataset(DatasetCommand::Verify(options)) => dataset::verify(options, json),
        Command::Train(options) => train::run(options, json),
        Command::Models(command) => models::run(command, json),
        Command::Predict(options) => predict::run(options, json),
        Command::Strategies(options) => predict::strategies(options, json),
        Command::Generator(GeneratorCommand::Check(options)) => generator::check(options, json),
        Command::Nightly(options) => nightly::run(options, json),
        Command::Arena(options) => arena::run(options, json),
        Command::Loadtest(options) => loadtest::run(options, json),
        Command::Validate(options) => return validate::run(options, json),
    };
    done.map(|()| ExitCode::SUCCESS)
}
