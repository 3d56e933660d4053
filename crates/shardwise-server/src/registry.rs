//! A registry that need not be there when a router starts: it decides without a model, and takes the first that it finds.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use shardwise_inference::{BundleSource, ModelSlot, Placer, SourceError, WatchConfig, Watcher};
use shardwise_models::{ModelBundle, Registry, RegistryError};

use crate::http::App;
use crate::sidecar::{StartError, system};

/// Longest time until a registry that could not be read is looked at again.
const RETRY_AT_MOST: Duration = Duration::from_secs(60);

/// Opened at the first look at which it can be.
#[derive(Clone)]
pub(crate) struct LazyRegistry {
    models: PathBuf,
    name: String,
    opened: Arc<OnceLock<Registry>>,
}

impl LazyRegistry {
    /// # Errors
    /// The name is one that no model can have: waiting would not help.
    pub(crate) fn new(models: &Path, name: &str) -> Result<Self, RegistryError> {
        let lazy = Self { models: models.to_owned(), name: name.to_owned(), opened: Arc::default() };
        match lazy.registry() {
            Err(error @ RegistryError::BadName { .. }) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "decisions are made without a model until the registry can be read");
                Ok(lazy)
            }
            Ok(_) => Ok(lazy),
        }
    }

    /// # Errors
    /// It is not there, or cannot be read.
    pub(crate) fn registry(&self) -> Result<&Registry, RegistryError> {
        match self.opened.get() {
            Some(registry) => Ok(registry),
            None => Registry::open(&self.models, &self.name).map(|registry| self.opened.get_or_init(|| registry)),
        }
    }
}

impl BundleSource for LazyRegistry {
    fn version(&self, alias: &str) -> Result<Option<String>, SourceError> {
        self.registry()?.version(alias)
    }

    fn load(&self, version: &str) -> Result<ModelBundle, SourceError> {
        BundleSource::load(self.registry()?, version)
    }
}

/// Follows the aliases; one that names nothing yet is looked for until it does.
pub(crate) fn follow(app: &Arc<App>, placer: Option<Arc<Placer>>) -> Result<Vec<Watcher>, StartError> {
    let config = &app.config;
    let Some(models) = &config.models else { return Ok(Vec::new()) };
    let registry = LazyRegistry::new(models, &config.name)?;
    let mut watchers = Vec::new();
    if let Some(placer) = placer {
        watchers.push(watcher(app, placer, &registry, &config.alias, true)?);
    }
    if let (Some(alias), Some(shadow)) = (&config.challenger, &app.live.shadow) {
        watchers.push(watcher(app, Arc::clone(shadow), &registry, alias, false)?);
    }
    Ok(watchers)
}

fn watcher(
    app: &Arc<App>,
    slot: Arc<impl ModelSlot + 'static>,
    registry: &LazyRegistry,
    alias: &str,
    serves: bool,
) -> Result<Watcher, StartError> {
    let every = Duration::from_secs_f64(app.config.watch_s);
    let watched = WatchConfig { every, retry_at_most: RETRY_AT_MOST.max(every), ..WatchConfig::of(alias) };
    let (app, name) = (Arc::clone(app), alias.to_owned());
    let on_event = move |event| app.models.note(app.live.clock.now(), &name, serves, &event);
    Watcher::start(slot, registry.clone(), watched, on_event)
        .map_err(system(format!("the thread that follows '{alias}' cannot be started")))
}
