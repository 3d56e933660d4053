//! `shardwise evaluate …`: may a model go live, and why.

mod diff;

use crate::arguments::EvaluateCommand;

pub(crate) fn run(command: &EvaluateCommand, json: bool) -> miette::Result<()> {
    match command {
        EvaluateCommand::Diff(options) => diff::run(options, json),
    }
}
