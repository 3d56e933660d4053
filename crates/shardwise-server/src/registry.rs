//! A registry that need not be there when a router starts: it decides without a model, and takes the first that it finds.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use shardwise_inference::{BundleSource, SourceError};
use shardwise_models::{ModelBundle, Registry, RegistryError};

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
