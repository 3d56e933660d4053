//! `cargo dev`, the project's task runner: set-up, checks, tests, the demo and generated files.
//!
//! It leaves out all logic of shardwise itself, and stays nearly free of dependencies, so that it builds in seconds.

mod arguments;
mod build_env;
mod debian;
mod failure;
mod feature_page;
mod neural;
mod python;
mod steps;
mod tasks;
mod workspace;

use std::process::ExitCode;

use failure::Failure;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("cargo dev: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Failure> {
    tasks::perform(arguments::parse(arguments)?)
}
