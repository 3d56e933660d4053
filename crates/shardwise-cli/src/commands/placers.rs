//! Policies of simulated routers: by name those that need no model, and the placer with a version of one.

use std::path::Path;
use std::sync::Arc;

use miette::{IntoDiagnostic, miette};
use shardwise_inference::{Placer, PlacerConfig};
use shardwise_models::{ModelBundle, Registry};
use shardwise_policies::{NAMES, Policy, Runtime, by_name};

/// The policy that needs a model.
pub(crate) const MODEL_POLICY: &str = "shardwise";

/// How the policy of one router is made.
pub(crate) type MakePolicy = Box<dyn Fn() -> Box<dyn Policy>>;

/// Which model [`MODEL_POLICY`] decides with.
pub(crate) struct Wanted<'a> {
    pub(crate) models: Option<&'a Path>,
    pub(crate) name: &'a str,
    /// An alias, a version or the beginning of one.
    pub(crate) version: &'a str,
}

/// How to make the policy of this name.
pub(crate) fn maker(policy: &str, wanted: &Wanted<'_>, runtime: Runtime) -> miette::Result<MakePolicy> {
    if policy == MODEL_POLICY {
        let bundle = load(wanted)?;
        return Ok(Box::new(move || Box::new(placer(Some(&bundle), runtime))));
    }
    if !NAMES.contains(&policy) {
        let help = format!("choose {MODEL_POLICY} with --models, or one of {}", NAMES.join(", "));
        return Err(miette!(help = help, "there is no policy '{policy}'"));
    }
    let name = policy.to_owned();
    Ok(Box::new(move || by_name(&name, runtime).expect("its name was just found")))
}

/// What a router embeds, with a model or before there is one.
pub(crate) fn placer(live: Option<&Arc<ModelBundle>>, runtime: Runtime) -> Placer {
    let placer = live.map_or_else(Placer::without_model, |live| Placer::with_model(Arc::clone(live)));
    placer.with_config(PlacerConfig::for_runtime(runtime))
}

fn load(wanted: &Wanted<'_>) -> miette::Result<Arc<ModelBundle>> {
    let models = wanted.models.ok_or_else(|| {
        miette!(help = "name the models folder with --models", "the policy '{MODEL_POLICY}' needs a model")
    })?;
    let registry = Registry::open(models, wanted.name).into_diagnostic()?;
    registry.load(wanted.version).into_diagnostic().map(Arc::new)
}
