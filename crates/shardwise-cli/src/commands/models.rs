//! `shardwise models …`: versions, aliases, signatures, and moving versions about.

mod moves;

use std::collections::BTreeMap;
use std::fs::File;

use miette::{IntoDiagnostic, miette};
use serde_json::{Value, json};
use shardwise_models::{Garbage, HistoryEntry, Manifest, Package, Registry, RegistryError, model_names};
use shardwise_types::Timestamp;

pub(crate) use self::moves::promote;
use self::moves::{by, roll_back};
use super::{files, keys};
use crate::arguments::{
    DiffArguments, ExportArguments, GcArguments, ImportArguments, ListArguments, ModelsCommand, PlaceArguments,
    ShowArguments, VerifyModelsArguments,
};
use crate::output::{self, Stage};

pub(crate) fn run(command: &ModelsCommand, json: bool) -> miette::Result<()> {
    match command {
        ModelsCommand::List(options) => list(options, json),
        ModelsCommand::Show(options) => show(options, json),
        ModelsCommand::Diff(options) => diff(options, json),
        ModelsCommand::Verify(options) => verify(options, json),
        ModelsCommand::Promote(options) => promote(options, json),
        ModelsCommand::Rollback(options) => roll_back(options, json),
        ModelsCommand::Export(options) => export(options, json),
        ModelsCommand::Import(options) => import(options, json),
        ModelsCommand::Gc(options) => collect_garbage(options, json),
    }
}

fn open(place: &PlaceArguments) -> miette::Result<Registry> {
    Registry::open(&place.models, &place.name).into_diagnostic()
}

fn aliases_of<'a>(aliases: &'a BTreeMap<String, String>, version: &str) -> Vec<&'a str> {
    aliases.iter().filter(|(_, to)| *to == version).map(|(alias, _)| alias.as_str()).collect()
}

fn rmse(manifest: &Manifest) -> Option<f64> {
    manifest.heads.exec.as_ref().map(|exec| exec.metrics.rmse)
}

fn list(options: &ListArguments, json: bool) -> miette::Result<()> {
    let names = match &options.name {
        Some(name) => vec![name.clone()],
        None => model_names(&options.models).into_diagnostic()?,
    };
    let mut models = Vec::new();
    for name in names {
        let registry = Registry::open(&options.models, &name).into_diagnostic()?;
        let aliases = registry.aliases().into_diagnostic()?;
        let mut versions = Vec::new();
        for version in registry.versions().into_diagnostic()? {
            let aliases = aliases_of(&aliases, &version);
            versions.push(match registry.describe(&version) {
                Ok(manifest) => json!({
                    "version": version, "aliases": aliases, "trainedTo": manifest.trained_to.to_string(),
                    "codeVersion": manifest.code_version, "rmse": rmse(&manifest), "heads": manifest.metrics(),
                }),
                Err(error) => json!({ "version": version, "aliases": aliases, "problem": error.to_string() }),
            });
        }
        models.push(json!({ "name": name, "aliases": aliases, "versions": versions }));
    }
    if json {
        return output::print_json(&json!({ "models": models }));
    }
    if models.is_empty() {
        println!("no models in {}; `shardwise nightly` or `shardwise train` makes one", options.models.display());
    }
    for model in &models {
        println!("{}", text(&model["name"]));
        for version in model["versions"].as_array().into_iter().flatten() {
            let aliases: Vec<_> = version["aliases"].as_array().into_iter().flatten().map(text).collect();
            let about = match &version["problem"] {
                Value::Null => {
                    let heads: Vec<&str> =
                        version["heads"].as_object().into_iter().flatten().map(|(head, _)| head.as_str()).collect();
                    let [to, rmse] = ["trainedTo", "rmse"].map(|field| text(&version[field]));
                    format!("trained to {to}, rmse {rmse}, with {}", heads.join(", "))
                }
                problem => text(problem),
            };
            println!("  {}  {about}  {}", text(&version["version"]), aliases.join(", "));
        }
    }
    Ok(())
}

/// A value without the quotes of JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn show(options: &ShowArguments, json: bool) -> miette::Result<()> {
    let registry = open(&options.place)?;
    let version = registry.resolve(&options.version).into_diagnostic()?;
    let manifest = registry.describe(&version).into_diagnostic()?;
    let problem = registry.load(&version).err().map(|error| error.to_string());
    let signatures = registry.signatures(&version).into_diagnostic()?;
    let aliases = registry.aliases().into_diagnostic()?;
    let aliases = aliases_of(&aliases, &version);
    let names = |entry: &HistoryEntry| {
        let judged = entry.judgement.as_ref().map(|judgement| &judgement.version);
        [entry.from.as_ref(), entry.to.as_ref(), judged].contains(&Some(&version))
    };
    let history: Vec<_> = registry.history().into_diagnostic()?.into_iter().filter(names).collect();
    if json {
        return output::print_json(&json!({
            "version": version, "aliases": aliases, "problem": problem, "manifest": manifest,
            "signatures": signatures, "history": history,
        }));
    }
    println!("{version}  {}", aliases.join(", "));
    println!("  trained on {} from {} to {}", manifest.dataset.id, manifest.trained_from, manifest.trained_to);
    println!("  by shardwise {} with seed {}", manifest.code_version, manifest.seed);
    println!("  made again with: {}", manifest.how_to_make_again);
    match problem {
        Some(problem) => println!("  cannot be served: {problem}"),
        None => println!("  whole, and served by this version of shardwise"),
    }
    for signature in &signatures {
        println!("  signed by {} at {}", signature.key, signature.signed_at);
    }
    for HistoryEntry { at, who, why, alias, from, to, forced, .. } in &history {
        if alias.is_none() {
            println!("  {at}  refused by {who}: {why}");
            continue;
        }
        let [alias, from, to] = [alias, from, to].map(|name| name.as_deref().unwrap_or("none"));
        let how = if forced.is_empty() { String::new() } else { format!(", in spite of: {}", forced.join(" ")) };
        println!("  {at}  {alias}: {from} → {to}, by {who}: {why}{how}");
    }
    Ok(())
}

fn diff(options: &DiffArguments, json: bool) -> miette::Result<()> {
    let registry = open(&options.place)?;
    let fields = |wanted: &str| -> miette::Result<(String, BTreeMap<String, Value>)> {
        let version = registry.resolve(wanted).into_diagnostic()?;
        let manifest = serde_json::to_value(registry.describe(&version).into_diagnostic()?).into_diagnostic()?;
        let mut fields = BTreeMap::new();
        flatten("", manifest, &mut fields);
        Ok((version, fields))
    };
    let ((from, old), (to, new)) = (fields(&options.from)?, fields(&options.to)?);
    let mut names: Vec<_> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let changed: Vec<_> = names.into_iter().filter(|name| old.get(*name) != new.get(*name)).collect();
    if json {
        let changes: Vec<_> =
            changed.iter().map(|name| json!({ "field": name, "from": old.get(*name), "to": new.get(*name) })).collect();
        return output::print_json(&json!({ "from": from, "to": to, "changes": changes }));
    }
    println!("{from} → {to}: {} fields differ", changed.len());
    let shown = |value: Option<&Value>| value.map_or_else(|| "–".to_owned(), text);
    for name in changed {
        println!("  {name}: {} → {}", shown(old.get(name)), shown(new.get(name)));
    }
    Ok(())
}

/// Fields by their dotted path; lists are taken as they are.
fn flatten(path: &str, value: Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                flatten(&path, value, into);
            }
        }
        value => drop(into.insert(path.to_owned(), value)),
    }
}

fn verify(options: &VerifyModelsArguments, json: bool) -> miette::Result<()> {
    let registry = open(&options.place)?;
    let policy = keys::policy(&options.trust)?;
    let wanted = match &options.version {
        Some(version) => vec![registry.resolve(version).into_diagnostic()?],
        None => {
            registry.history().into_diagnostic()?;
            // An alias of a version that is gone would else not be noticed.
            let mut all = registry.versions().into_diagnostic()?;
            all.extend(registry.aliases().into_diagnostic()?.into_values());
            all.sort();
            all.dedup();
            all
        }
    };
    let mut stage = Stage::start(format!("verifying {} versions", wanted.len()));
    let mut refused = Vec::new();
    let mut versions = Vec::new();
    for version in &wanted {
        output::stop_if_interrupted()?;
        stage.at(version);
        let outcome = registry.load_trusted(version, &policy);
        let reason = outcome.as_ref().err().map(|error| match error {
            RegistryError::NoSuchVersion { .. } => "missing",
            error => error.reason().unwrap_or("unreadable"),
        });
        let problem = outcome.err().map(|error| error.to_string());
        versions.push(json!({ "version": version, "ok": problem.is_none(), "reason": reason, "problem": problem }));
        if let (Some(reason), Some(problem)) = (reason, problem) {
            refused.push(format!("{version} ({reason}): {problem}"));
        } else if !json {
            println!("{version}: sound");
        }
    }
    stage.done(format!("{} refused", refused.len()));
    if json {
        output::print_json(&json!({ "versions": versions }))?;
    }
    if refused.is_empty() { Ok(()) } else { Err(miette!("{}", refused.join("\n"))) }
}

fn export(options: &ExportArguments, json: bool) -> miette::Result<()> {
    let package = open(&options.place)?.package(&options.version).into_diagnostic()?;
    let tar = package.to_tar().into_diagnostic()?;
    files::write_new(&options.out, &tar)?;
    if json {
        let (version, bytes) = (package.version(), tar.len());
        return output::print_json(&json!({ "version": version, "file": options.out, "bytes": bytes }));
    }
    println!("{}: version {}, {} bytes", options.out.display(), package.version(), tar.len());
    Ok(())
}

fn import(options: &ImportArguments, json: bool) -> miette::Result<()> {
    let file = File::open(&options.file).map_err(|error| miette!("cannot read {}: {error}", options.file.display()))?;
    let package = Package::from_tar(file).map_err(|error| miette!("{}: {error}", options.file.display()))?;
    package.admit(&options.file, &keys::policy(&options.trust)?).into_diagnostic()?;
    let registry = Registry::open_or_create(&options.place.models, &options.place.name).into_diagnostic()?;
    let version = registry.publish_package(&package).into_diagnostic()?;
    if json {
        return output::print_json(&json!({ "version": version, "name": registry.name() }));
    }
    println!("version {version} of {} is there; `shardwise models promote` lets routers serve it", registry.name());
    Ok(())
}

fn collect_garbage(options: &GcArguments, json: bool) -> miette::Result<()> {
    let registry = open(&options.place)?;
    let by = by(&options.who, "versions that nothing names any more are removed", Value::Null)?;
    let written_before: Timestamp = by.at.plus_millis(-3.6e6 * f64::from(options.min_age_hours));
    let recent = options.keep_entries as usize;
    let found = if options.delete {
        registry.remove_garbage(recent, written_before, &by)
    } else {
        registry.garbage(recent, written_before)
    };
    let Garbage { versions, unfinished, staged } = found.into_diagnostic()?;
    if json {
        return output::print_json(&json!({
            "deleted": options.delete, "versions": versions, "unfinished": unfinished, "staged": staged,
        }));
    }
    let what = if options.delete { "removed" } else { "would be removed by --delete" };
    let (finished, broken_off, files) = (versions.len(), unfinished.len(), staged.len());
    println!("{finished} versions, {broken_off} unfinished ones and {files} files of killed writers {what}");
    versions.iter().chain(&unfinished).chain(&staged).for_each(|found| println!("  {found}"));
    Ok(())
}
