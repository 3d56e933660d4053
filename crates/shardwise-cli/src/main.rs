//! The `shardwise` command: it reads arguments, wires the crates together and prints. No logic of its own.

mod arguments;
mod commands;
mod lists;
mod output;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    output::progress::show(arguments.progress);
    output::listen_for_interrupts();
    match commands::run(&arguments) {
        Ok(code) => code,
        Err(report) => {
            output::progress::error(&report);
            ExitCode::from(if output::is_interrupted() { output::interrupted_code() } else { 1 })
        }
    }
}
