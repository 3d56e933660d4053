//! What a bundle can be put into while it is in use.

use std::sync::Arc;

use shardwise_models::ModelBundle;
use shardwise_policies::Policy;

use crate::Placer;

/// Serves one bundle at a time and lets it be exchanged under traffic.
pub trait ModelSlot: Send + Sync {
    /// Serves this bundle from now on and returns the one before, which may be in use for as long as a decision takes.
    fn replace(&self, bundle: Arc<ModelBundle>) -> Option<Arc<ModelBundle>>;

    /// Version of the bundle that is served.
    fn serving(&self) -> Option<Arc<str>>;
}

impl ModelSlot for Placer {
    fn replace(&self, bundle: Arc<ModelBundle>) -> Option<Arc<ModelBundle>> {
        self.swap_model(Some(bundle))
    }

    fn serving(&self) -> Option<Arc<str>> {
        Policy::model_version(self)
    }
}
