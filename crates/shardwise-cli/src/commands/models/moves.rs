//! `shardwise models promote` and `rollback`: aliases move, with who and why, and past the gate by force only.

use miette::{IntoDiagnostic, miette};
use serde_json::{Value, json};
use shardwise_models::{AliasMove, CHAMPION, Judgement, PREVIOUS, Registry};

use super::super::keys;
use super::open;
use crate::arguments::{PromoteArguments, RollbackArguments, WhoArguments};
use crate::output;

pub(super) fn by(who: &WhoArguments, why: &str, metrics: Value) -> miette::Result<AliasMove> {
    if why.trim().is_empty() {
        return Err(miette!("--why is empty; say in a sentence why, those who read the history will ask"));
    }
    let who = who.who.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "operator".to_owned());
    Ok(AliasMove { at: output::wall_clock(), who, why: why.to_owned(), metrics, ..AliasMove::default() })
}

pub(crate) fn promote(options: &PromoteArguments, json: bool) -> miette::Result<()> {
    let registry = open(&options.place)?;
    let key = keys::signing_key(&options.signing)?;
    let bundle = registry.load_trusted(&options.version, &keys::policy(&options.trust)?).into_diagnostic()?;
    let version = bundle.version();
    let mut by = by(&options.who, &options.why, json!({ "heads": bundle.manifest().heads }))?;
    let against = objections(&registry, &options.alias, version)?;
    if !options.force && !against.is_empty() {
        let help = "let `shardwise nightly` judge it, or put it live all the same with --force --why \"…\", which the \
                    history keeps";
        return Err(miette!(help = help, "version {version} may not go live: {}", against.join(" ")));
    }
    if let Some(key) = key {
        registry.sign(version, &key, by.at).into_diagnostic()?;
    }
    by.forced = against;
    let moved = registry.set_alias(&options.alias, version, &by).into_diagnostic()?;
    let forced = moved && !by.forced.is_empty();
    if json {
        let PromoteArguments { alias, .. } = options;
        return output::print_json(&json!({ "alias": alias, "version": version, "moved": moved, "forced": forced }));
    }
    let how = if forced { ", by force" } else { "" };
    println!("{} {} {version}{how}", options.alias, if moved { "is now" } else { "was already" });
    Ok(())
}

/// What speaks against letting a version go live; nothing does where the alias is not one that leads there, or points to the
/// version already.
fn objections(registry: &Registry, alias: &str, version: &str) -> miette::Result<Vec<String>> {
    // Rolling back makes `previous` the champion, and asks nothing.
    if ![CHAMPION, PREVIOUS].contains(&alias) || registry.alias(alias).into_diagnostic()?.as_deref() == Some(version) {
        return Ok(Vec::new());
    }
    Ok(match registry.last_judgement(version).into_diagnostic()? {
        Some(Judgement { may_go_live: true, .. }) => Vec::new(),
        Some(Judgement { reasons, .. }) => reasons,
        None => vec!["It was never judged here.".to_owned()],
    })
}

pub(super) fn roll_back(options: &RollbackArguments, json: bool) -> miette::Result<()> {
    let registry = open(&options.place)?;
    let champion = registry.roll_back(&by(&options.who, &options.why, Value::Null)?).into_diagnostic()?;
    let previous = registry.alias(PREVIOUS).into_diagnostic()?;
    if json {
        return output::print_json(&json!({ CHAMPION: champion, PREVIOUS: previous }));
    }
    println!("{CHAMPION} is {champion} again; {PREVIOUS} is {}", previous.as_deref().unwrap_or("none"));
    Ok(())
}
