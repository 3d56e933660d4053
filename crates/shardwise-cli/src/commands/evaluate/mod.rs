//! `shardwise evaluate …`: may a model go live, and why.

mod diff;
mod ope;
mod report;

use crate::arguments::{EvaluateArguments, EvaluateCommand};

pub(crate) fn run(arguments: &EvaluateArguments, json: bool) -> miette::Result<()> {
    match &arguments.command {
        Some(EvaluateCommand::Diff(options)) => diff::run(options, json),
        Some(EvaluateCommand::Ope(options)) => ope::run(options, json),
        None => report::run(&arguments.report, json),
    }
}
