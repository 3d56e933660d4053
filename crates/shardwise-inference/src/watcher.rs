//! Hot reload: a thread that asks which version an alias names, verifies that version beside the traffic, and swaps it in.
//!
//! What cannot be verified is never served: the last good bundle goes on. A version that was refused is tried again after
//! twice the time each time, another one at once. Router state is the caller's, and no swap touches it.

use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, mpsc::Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use shardwise_features::{DecisionContext, DecisionFeatures, FeatureVector, golden};
use shardwise_models::{ModelBundle, Predictions, Registry, TrustPolicy};

use crate::model_slot::ModelSlot;
use crate::ranking::SANE_LN_MS;

/// Whatever keeps a source from answering, in its own words.
pub type SourceError = Box<dyn Error + Send + Sync>;

/// Where bundles come from. Calls may take as long as they like: they hold up the watcher and nobody else.
pub trait BundleSource: Send {
    /// The version that an alias names now; none while there is no such alias.
    ///
    /// # Errors
    /// When the source cannot say.
    fn version(&self, alias: &str) -> Result<Option<String>, SourceError>;

    /// Loads and verifies a version.
    ///
    /// # Errors
    /// When the version cannot be read or must not be served.
    fn load(&self, version: &str) -> Result<ModelBundle, SourceError>;
}

impl BundleSource for Registry {
    fn version(&self, alias: &str) -> Result<Option<String>, SourceError> {
        Ok(self.alias(alias)?)
    }

    fn load(&self, version: &str) -> Result<ModelBundle, SourceError> {
        Ok(Registry::load(self, version)?)
    }
}

/// A registry from which only what a policy trusts is served.
#[derive(Debug, Clone)]
pub struct TrustedSource {
    /// The registry.
    pub registry: Registry,
    /// What is trusted.
    pub policy: TrustPolicy,
}

impl BundleSource for TrustedSource {
    fn version(&self, alias: &str) -> Result<Option<String>, SourceError> {
        self.registry.version(alias)
    }

    fn load(&self, version: &str) -> Result<ModelBundle, SourceError> {
        Ok(self.registry.load_trusted(version, &self.policy)?)
    }
}

/// What a watcher follows, and how often it looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchConfig {
    /// The alias.
    pub alias: String,
    /// Time between two looks; a millisecond at least.
    pub every: Duration,
    /// Longest time until what failed is tried again; the first time is `every`, each further one twice as long.
    pub retry_at_most: Duration,
}

impl WatchConfig {
    /// Looks every five seconds, and tries what failed again within ten minutes.
    pub fn of(alias: &str) -> Self {
        Self { alias: alias.to_owned(), every: Duration::from_secs(5), retry_at_most: Duration::from_secs(600) }
    }

    fn every(&self) -> Duration {
        self.every.max(Duration::from_millis(1))
    }

    /// How long to wait after so many failures in a row.
    fn wait(&self, failures: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        self.every().saturating_mul(doubled).min(self.retry_at_most).max(self.every())
    }
}

/// What a watcher did.
#[derive(Debug)]
pub enum WatchEvent {
    /// The source does not say what the alias names. What is served goes on.
    Unreachable {
        /// Why.
        error: SourceError,
        /// When it is asked again.
        retry_after: Duration,
    },
    /// There is no such alias. What is served goes on. Told once, until there is one.
    Unnamed,
    /// The alias names another version than the one that is served; it is being loaded and verified.
    Loading {
        /// The version.
        version: String,
    },
    /// The version cannot be served. What is served goes on.
    Refused {
        /// The version.
        version: String,
        /// Why.
        error: SourceError,
        /// When it is tried again; another version is tried as soon as it is named.
        retry_after: Duration,
    },
    /// The version is served from now on.
    Swapped {
        /// What was served before.
        from: Option<Arc<str>>,
        /// The version.
        to: String,
    },
}

/// Follows an alias on a thread of its own, until it is stopped or dropped.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use shardwise_inference::{Placer, WatchConfig, Watcher};
/// use shardwise_models::{CHAMPION, Registry};
///
/// let placer = Arc::new(Placer::without_model());
/// let registry = Registry::open("models".as_ref(), "default")?;
/// let watcher = Watcher::start(Arc::clone(&placer), registry, WatchConfig::of(CHAMPION), |event| println!("{event:?}"))?;
/// // … the router decides with `placer` …
/// watcher.stop();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Watcher {
    /// Dropping it wakes the thread and ends it.
    running: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Begins to follow an alias; the first look is at once.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(
        slot: Arc<impl ModelSlot + 'static>,
        source: impl BundleSource + 'static,
        config: WatchConfig,
        on_event: impl FnMut(WatchEvent) + Send + 'static,
    ) -> io::Result<Self> {
        let (running, stopped) = channel();
        let mut watch = Watch::new(slot, source, config, on_event);
        let thread = thread::Builder::new().name("shardwise-watcher".to_owned()).spawn(move || watch.run(&stopped))?;
        Ok(Self { running: Some(running), thread: Some(thread) })
    }

    /// Stops: waits for a look that has begun, and for nothing else. What is served goes on.
    pub fn stop(self) {}
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.running.take());
        if let Some(thread) = self.thread.take() {
            // It ends in panic only if the caller's `on_event` panicked, which has been reported by then.
            _ = thread.join();
        }
    }
}

/// A version that was refused.
struct Refused {
    version: String,
    failures: u32,
    looks_to_skip: u32,
}

/// A watcher without its thread.
struct Watch<M, S, F> {
    slot: Arc<M>,
    source: S,
    config: WatchConfig,
    on_event: F,
    /// What was served before, kept for as long as decisions may be using it, so that none of them has to free it.
    retired: Option<Arc<ModelBundle>>,
    refused: Option<Refused>,
    unreachable: u32,
    is_unnamed: bool,
}

impl<M: ModelSlot, S: BundleSource, F: FnMut(WatchEvent)> Watch<M, S, F> {
    fn new(slot: Arc<M>, source: S, config: WatchConfig, on_event: F) -> Self {
        Self { slot, source, config, on_event, retired: None, refused: None, unreachable: 0, is_unnamed: false }
    }

    fn run(&mut self, stopped: &Receiver<()>) {
        loop {
            let wait = self.look();
            if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// Looks once; returns how long to wait until the next time.
    fn look(&mut self) -> Duration {
        self.retired = None;
        let named = match unpanicked(|| self.source.version(&self.config.alias)) {
            Ok(named) => named,
            Err(error) => {
                self.unreachable = self.unreachable.saturating_add(1);
                let retry_after = self.config.wait(self.unreachable);
                (self.on_event)(WatchEvent::Unreachable { error, retry_after });
                return retry_after;
            }
        };
        self.unreachable = 0;
        match named {
            Some(version) => {
                self.is_unnamed = false;
                self.follow(version);
            }
            None if !self.is_unnamed => {
                self.is_unnamed = true;
                (self.on_event)(WatchEvent::Unnamed);
            }
            None => {}
        }
        self.config.every()
    }

    fn follow(&mut self, version: String) {
        let from = self.slot.serving();
        if from.as_deref() == Some(&version) {
            self.refused = None;
            return;
        }
        self.refused.take_if(|refused| refused.version != version);
        if let Some(refused) = self.refused.as_mut().filter(|refused| refused.looks_to_skip > 0) {
            refused.looks_to_skip -= 1;
            return;
        }
        (self.on_event)(WatchEvent::Loading { version: version.clone() });
        match unpanicked(|| verified(&self.source, &version)) {
            Ok(bundle) => {
                self.retired = self.slot.replace(Arc::new(bundle));
                self.refused = None;
                (self.on_event)(WatchEvent::Swapped { from, to: version });
            }
            Err(error) => self.refuse(version, error),
        }
    }

    fn refuse(&mut self, version: String, error: SourceError) {
        let failures = self.refused.take().map_or(0, |refused| refused.failures).saturating_add(1);
        let retry_after = self.config.wait(failures);
        let looks = retry_after.as_nanos() / self.config.every().as_nanos();
        let looks_to_skip = u32::try_from(looks).unwrap_or(u32::MAX).saturating_sub(1);
        self.refused = Some(Refused { version: version.clone(), failures, looks_to_skip });
        (self.on_event)(WatchEvent::Refused { version, error, retry_after });
    }
}

/// A source that panics is one that failed: nobody would notice that the thread is gone.
fn unpanicked<T>(call: impl FnOnce() -> Result<T, SourceError>) -> Result<T, SourceError> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err("it panicked while it was read: that is a bug of the source or of the loader".into()))
}

/// Loads a version that is what it is called and answers sensibly where answers are known to be possible.
fn verified(source: &impl BundleSource, version: &str) -> Result<ModelBundle, SourceError> {
    let bundle = source.load(version)?;
    if bundle.version() != version {
        return Err(format!("the source gave version {} for {version}: repair the source", bundle.version()).into());
    }
    let table = bundle.service_table();
    let mut predictions = Predictions::default();
    for golden in golden::contexts() {
        let context = DecisionContext { service_table: Some(&table), ..golden.context() };
        let features = DecisionFeatures::new(&context);
        let rows: Vec<f32> = (0..golden.fleet.shards.len())
            .flat_map(|position| FeatureVector::extract(&features, position).into_array())
            .collect();
        bundle.predict(&rows, &mut predictions);
        if let Some(ln_ms) = predictions.exec_ln_ms.iter().find(|ln_ms| !SANE_LN_MS.contains(ln_ms)) {
            return Err(format!("it predicts executions of e^{ln_ms} ms: train again").into());
        }
    }
    Ok(bundle)
}

#[cfg(test)]
mod tests;
