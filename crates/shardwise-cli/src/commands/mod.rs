//! One file per command; each reads its inputs, calls one crate, and says what came out.

mod analysis;
mod arena;
mod bench;
mod configuration;
mod contenders;
mod dataset;
mod evaluate;
mod explain;
mod files;
mod fleet_models;
mod gate;
mod generator;
mod history;
mod import;
mod keys;
mod loadtest;
mod models;
mod nightly;
mod nights;
mod onnx;
mod onnx_compare;
mod placers;
mod plan;
mod predict;
mod roster;
mod serve;
mod shadowed;
mod shard;
mod train;
mod validate;
mod variants;

use std::process::ExitCode;

use crate::arguments::{
    Arguments, BenchCommand, Command, DatasetCommand, FleetCommand, GateCommand, GeneratorCommand, HistoryCommand,
    OnnxCommand,
};

/// The exit code when the data is to be refused: of an import, of the check of a dataset, of a night.
const DATA_REFUSED: u8 = 4;

/// Runs the command that was asked for. Done is a success, except for a validation and a night, whose verdicts are exit codes,
/// and for what may find that the data is to be refused.
pub(crate) fn run(arguments: &Arguments) -> miette::Result<ExitCode> {
    let json = arguments.json;
    let done = match &arguments.command {
        Command::History(HistoryCommand::Simulate(options)) => history::simulate(options, json),
        Command::History(HistoryCommand::Replay(options)) => history::replay(options, json),
        Command::History(HistoryCommand::Import(options)) => return import::run(options, json),
        Command::Dataset(DatasetCommand::Build(options)) => dataset::build(options, json),
        Command::Dataset(DatasetCommand::Check(options)) => return dataset::check(options, json),
        Command::Dataset(DatasetCommand::Rows(options)) => dataset::rows(options, json),
        Command::Dataset(DatasetCommand::Verify(options)) => dataset::verify(options, json),
        Command::Train(options) => train::run(options, json),
        Command::Models(command) => models::run(command, json),
        Command::Promote(options) => models::promote(options, json),
        Command::Predict(options) => predict::run(options, json),
        Command::Explain(options) => explain::run(options, json),
        Command::Strategies(options) => predict::strategies(options, json),
        Command::Generator(GeneratorCommand::Check(options)) => generator::check(options, json),
        Command::Gate(GateCommand::Trial(options)) => gate::trial(options, json),
        Command::Gate(GateCommand::Nights(options)) => nights::nights(options, json),
        Command::Evaluate(arguments) => evaluate::run(arguments, json),
        Command::Nightly(options) => return nightly::run(options, json),
        Command::Serve(options) => return serve::run(options, json),
        Command::Shard(options) => shard::run(options),
        Command::Fleet(FleetCommand::Up(options)) => shard::fleet_up(options, json),
        Command::Config(command) => return configuration::run(command, json),
        Command::Plan(command) => plan::run(command, json),
        Command::CheckConfig(options) => return serve::check_config(options, json),
        Command::Arena(options) => arena::run(options, json),
        Command::Loadtest(options) => loadtest::run(options, json),
        Command::Bench(BenchCommand::Plans(options)) => bench::plans(options, json),
        Command::Bench(BenchCommand::Decide(options)) => bench::decide(options, json),
        Command::Onnx(OnnxCommand::Export(options)) => onnx::export(options, json),
        Command::Onnx(OnnxCommand::Check(options)) => onnx::check(options, json),
        Command::Onnx(OnnxCommand::Compare(options)) => onnx_compare::run(options, json),
        Command::Bench(BenchCommand::Score(options)) => bench::score(options, json),
        Command::Bench(BenchCommand::Dataset(options)) => bench::dataset(options, json),
        Command::Bench(BenchCommand::Train(options)) => bench::train(options, json),
        Command::Bench(BenchCommand::TrainHere) => bench::train_here(),
        Command::Validate(options) => return validate::run(options, json),
    };
    done.map(|()| ExitCode::SUCCESS)
}
