//! Starting a sidecar, running it until it is told to stop, and stopping it so that nothing accepted is lost.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use shardwise_control::Transport;
use shardwise_features::RouterState;
use shardwise_inference::{Budget, DecisionLog, Guards, LogConfig, Placer, PlacerConfig, Shadow, ShadowConfig};
use shardwise_models::RegistryError;
use shardwise_monitor::{BusError, FleetImage};
use shardwise_planner::{ObservationSettings, Observations};
use shardwise_policies::{Runtime, Strategies, by_name};
use shardwise_types::{DirectiveRecord, HistoryRecord, MarketSnapshot, Placements, Resized, RouterId, key_of};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::accepted::Accepted;
use crate::bus;
use crate::clock::{Clock, monotonic_ns};
use crate::config::{Address, ConfigError, ServeConfig};
use crate::control;
use crate::decider::{Decider, PLACER};
use crate::disk::{Disk, SystemDisk};
use crate::figures::Figures;
use crate::first_view::first_view;
use crate::http::{self, App, Listener, Pressure, Token};
use crate::journal::{Journal, JournalLimits, Recovered};
use crate::keeper::{self, Keeper, Keeping};
use crate::live::{Ids, Live};
use crate::memory;
use crate::model_log::ModelLog;
use crate::pending::Pending;
use crate::queue::Queue;
use crate::recent::Recent;
use crate::registry::follow;

/// Records that may wait for the journal.
const LOG_CAPACITY: usize = 65_536;
/// Decisions that may wait for a challenger.
const SHADOW_CAPACITY: usize = 8_192;
/// Time between two looks at the signal to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Seconds between two times that the memory is saved, and between two turns of settled decisions.
const SAVE_EVERY_S: u64 = 10;
const TURN_EVERY_S: u64 = 30;

/// Why a sidecar does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration, or a file that it names.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model has a name that no registry can have.
    #[error("{0}")]
    Registry(#[from] RegistryError),
    /// What is kept of configuration changes.
    #[error("{0}")]
    Control(String),
    /// The message bus.
    #[error("nats: {0}")]
    Bus(#[from] BusError),
    /// Something that the system refuses.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        error: io::Error,
    },
}

pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let what = what.into();
    move |error| StartError::System { what, error }
}

/// A sidecar that answers.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// Where requests are answered.
    pub listen: String,
    /// Where operators look, if apart.
    pub admin: Option<String>,
    /// What the process before left unfinished in the journal.
    pub recovered_files: u64,
    /// Decisions that the process before answered and did not write.
    pub lost_before: u64,
}

/// What a sidecar did in its life.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Decisions.
    pub decisions: u64,
    /// Requests that found no shard.
    pub refused: u64,
    /// Outcomes that were learned from.
    pub outcomes: u64,
    /// Decisions in the journal.
    pub journaled: u64,
    /// Decisions that were dropped because the log was full, and decisions and outcomes that the disk did not take in the end.
    pub dropped: u64,
}

/// Runs a sidecar until `stop` is set. `started` hears where it listens, once it does.
///
/// # Errors
/// Nothing is served: what is wrong, and what to do.
pub fn serve(
    config: ServeConfig,
    stop: &'static AtomicBool,
    started: impl FnOnce(&Started),
) -> Result<Summary, StartError> {
    serve_on(Box::new(SystemDisk), config, stop, started)
}

/// The same, but that the journal is written to `disk`.
///
/// # Errors
/// As [`serve`].
pub fn serve_on(
    disk: Box<dyn Disk>,
    config: ServeConfig,
    stop: &'static AtomicBool,
    started: impl FnOnce(&Started),
) -> Result<Summary, StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.workers)
        .enable_all()
        .build()
        .map_err(system("the threads that answer cannot be started"))?;
    runtime.block_on(run(disk, config, stop, started))
}

/// What is made of a configuration.
struct Made {
    app: Arc<App>,
    journal: Journal,
    records: keeper::DurableRecords,
    recovered: Recovered,
    placer: Option<Arc<Placer>>,
    memory: PathBuf,
    /// Goes with the process, however it ends.
    lock: File,
}

async fn run(
    disk: Box<dyn Disk>,
    config: ServeConfig,
    stop: &'static AtomicBool,
    started: impl FnOnce(&Started),
) -> Result<Summary, StartError> {
    let Made { app, journal, records, recovered, placer, memory, lock } = make(disk, config)?;
    let config = &app.config;
    let tls = http::acceptor(&config.access)?;
    let listen = bind("listen", &config.listen).await?;
    let admin = match &config.admin {
        Some(address) => Some(bind("admin", address).await?),
        None => None,
    };
    let told = Started {
        listen: listen.told(),
        admin: admin.as_ref().map(Listener::told),
        recovered_files: recovered.files,
        lost_before: app.lost_before,
    };
    let watchers = follow(&app, placer)?;
    let finish_within = Duration::from_millis(config.limits.drain_ms);
    let keeper = Keeper::start(Arc::clone(&app.live), journal, records, Arc::clone(&app.keeping), finish_within)
        .map_err(system("the thread of the journal cannot be started"))?;
    let is_over = Arc::new(AtomicBool::new(false));
    app.pressure
        .watch(Handle::current(), Arc::clone(&is_over))
        .map_err(system("the thread that measures how long work waits cannot be started"))?;
    let (end, ended) = watch::channel(false);
    let beside =
        [tokio::spawn(http::publish(Arc::clone(&app))), tokio::spawn(attend(Arc::clone(&app), memory.clone()))];
    let following = reach_out(&app, &ended).await?;
    let router = if admin.is_some() { http::requests(&app) } else { http::everything(&app) };
    let mut servers = vec![tokio::spawn(http::serve(listen, tls.clone(), router, Arc::clone(&app), ended.clone()))];
    if let Some(admin) = admin {
        let router = http::administration(&app);
        servers.push(tokio::spawn(http::serve(admin, tls, router, Arc::clone(&app), ended)));
    }
    started(&told);

    while !stop.load(Relaxed) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    app.is_draining.store(true, Relaxed);
    // Whoever looks at the dashboard is let go.
    app.moments.send_modify(|_| ());
    tracing::info!("ending: what was accepted is answered and written");
    // It fails only when no server listens any more.
    _ = end.send(true);
    for server in servers {
        if let Err(error) = server.await {
            tracing::error!(%error, "a server ended before its time");
        }
    }
    if let Some(following) = following
        && let Err(error) = following.await
    {
        tracing::error!(%error, "the follower of reports ended before its time");
    }
    is_over.store(true, Relaxed);
    beside.into_iter().for_each(|task| task.abort());
    drop(watchers);
    let summary = finish(&app, keeper, &memory).await;
    drop(lock);
    summary
}

/// Connects to NATS where it is to, follows the reports there, and takes part in changes of the configuration.
async fn reach_out(app: &Arc<App>, ended: &watch::Receiver<bool>) -> Result<Option<JoinHandle<()>>, StartError> {
    let config = &app.config;
    let bus = match &config.nats {
        Some(url) => Some(Arc::new(bus::connect(url, &config.router).await?)),
        None => None,
    };
    let way =
        bus.as_ref().map(|bus| Arc::new(shardwise_control::Nats::new(bus.client().clone())) as Arc<dyn Transport>);
    let folder = config.data.join("control");
    let control = control::start(&app.live, config, &folder, way).await?;
    // It is started once.
    _ = app.control.set(control);
    Ok(bus.map(|bus| {
        let (live, keep, router) = (Arc::clone(&app.live), app.keep.clone(), config.router.clone());
        tokio::spawn(bus::follow(bus, live, keep, router, ended.clone()))
    }))
}

async fn bind(field: &str, address: &str) -> Result<Listener, StartError> {
    let parsed = Address::parse(address).map_err(|problem| ConfigError::new(field, problem))?;
    Listener::bind(&parsed).await.map_err(system(format!("cannot listen at {address}")))
}

/// Writes what is left, and what is to be remembered.
async fn finish(app: &Arc<App>, keeper: Keeper, memory: &Path) -> Result<Summary, StartError> {
    #[cfg(feature = "otel")]
    let traced = Arc::clone(app);
    let stopped = tokio::task::spawn_blocking(move || {
        #[cfg(feature = "otel")]
        traced.traces.as_ref().inspect(|traces| traces.finish());
        keeper.stop()
    });
    let stopped = stopped.await.ok().flatten();
    let is_whole = stopped.as_ref().is_some_and(|ended| ended.is_whole);
    let counted = if is_whole { app.live.accepted.clear() } else { Ok(()) };
    if let Err(error) = counted.and_then(|()| memory::save(memory, &app.live)) {
        tracing::warn!(%error, "what was learned could not be saved; the next start begins without it");
    }
    let live = &app.live;
    Ok(Summary {
        decisions: live.figures.decisions().iter().map(|(_, _, count)| count).sum(),
        refused: live.figures.refused(),
        outcomes: live.figures.outcomes().map(|(_, count)| count).sum(),
        journaled: stopped.as_ref().map_or(0, |ended| ended.decisions),
        dropped: live.log.dropped_decisions() + stopped.map_or(0, |ended| ended.lost),
    })
}

fn make(disk: Box<dyn Disk>, config: ServeConfig) -> Result<Made, StartError> {
    let clock = Clock::new();
    let now = clock.now();
    let data = &config.data;
    std::fs::create_dir_all(data).map_err(system(format!("cannot make the folder {}", data.display())))?;
    let lock = locked(data)?;
    let boot = format!("{:016x}", now.nanos());
    let folder = data.join("journal");
    let (mut journal, recovered) = Journal::open_on(disk, &folder, &boot, JournalLimits::default())
        .map_err(system(format!("cannot open the journal in {}", folder.display())))?;
    let counts = data.join("accepted");
    let (accepted, answered, completed) =
        Accepted::open(&counts).map_err(system(format!("cannot open {}", counts.display())))?;
    let memory = data.join("memory.json");
    let restored = memory::restore(&memory, now);
    // A history that goes on from an earlier process knows other things than this one remembers: features could not be made
    // again from it, and would look like skew.
    let has_past = restored.is_some() || recovered.has_predecessor;
    let log_share = if has_past { 0.0 } else { config.log_share };
    let (router, image) = restored.unwrap_or_else(|| (RouterState::new(), FleetImage::default()));
    let (view, stand_ins) = first_view(&config, image, now)?;
    // What is decided on them must be found in the history.
    stand_ins.into_iter().for_each(|record| journal.add(&HistoryRecord::Report(Box::new(record))));
    if recovered.has_predecessor {
        // What an earlier process was directed holds no longer; what does, the agent says again.
        journal.add(&HistoryRecord::Directive(Box::new(DirectiveRecord {
            sequence: 0,
            event_at: now,
            known_at: now,
            router: RouterId::new(&config.router),
            placements: Placements::default(),
            gone: Vec::new(),
            resized: Resized::default(),
        })));
    }
    let (decider, placer) = decider(&config)?;
    let network = serde_json::to_vec_pretty(&view.snapshot().network).expect("a network is plain data");
    crate::files::replace(&folder.join("topology.json"), &network)
        .map_err(system(format!("cannot write into {}", folder.display())))?;
    let token = config
        .access
        .token_file
        .as_deref()
        .map(|path| Token::read(path).map_err(|error| ConfigError::new(path.display().to_string(), error.problem)));
    let shadow = config.challenger.is_some().then(|| {
        Arc::new(Shadow::new(ShadowConfig { capacity: SHADOW_CAPACITY, share: 1.0, placer: PlacerConfig::default() }))
    });
    let log = DecisionLog::new(LogConfig {
        capacity: LOG_CAPACITY,
        router: RouterId::new(&config.router),
        router_region: view.snapshot().router_region.clone(),
        candidate_share: log_share,
    });
    let observing = ObservationSettings { most_pending: config.limits.pending, ..ObservationSettings::default() };
    let live = Arc::new(Live {
        decider,
        shadow,
        router,
        view: Arc::new(view),
        agent: OnceLock::new(),
        market: ArcSwap::from_pointee(MarketSnapshot::default()),
        observations: Mutex::new(
            Observations::new(observing).expect("but for one number these are the usual settings"),
        ),
        log,
        pending: Pending::new(config.limits.pending),
        late: Queue::default(),
        directives: Queue::default(),
        order: Mutex::new(()),
        ids: Ids::of(&config.router, now),
        accepted,
        figures: Figures::default(),
        recent: Recent::default(),
        clock,
    });
    let (keep, records) = keeper::channel();
    let app = Arc::new(App {
        pressure: Pressure::new(config.limits.shed_above_ms),
        planning: Semaphore::new(1),
        token: token.transpose()?,
        models: ModelLog::default(),
        control: OnceLock::new(),
        moments: watch::Sender::new(String::new()),
        #[cfg(feature = "otel")]
        traces: traces(&config)?,
        is_draining: AtomicBool::new(false),
        lost_before: answered.saturating_sub(completed + recovered.decisions),
        keeping: Arc::new(Keeping::default()),
        keep,
        live,
        config,
    });
    Ok(Made { app, journal, records, recovered, placer, memory, lock })
}

#[cfg(feature = "otel")]
fn traces(config: &ServeConfig) -> Result<Option<crate::traces::Traces>, StartError> {
    let start = |endpoint: &String| crate::traces::Traces::start(endpoint, config.traces.share, &config.router);
    let started = config.traces.endpoint.as_ref().map(start).transpose();
    started.map_err(|problem| ConfigError::new("traces.endpoint", problem).into())
}

/// Keeps other routers out of the folder: they would take each other's journals for those of dead ones.
fn locked(data: &Path) -> Result<File, StartError> {
    let path = data.join("lock");
    let lock = File::create(&path).map_err(system(format!("cannot open {}", path.display())))?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => StartError::from(ConfigError::new(
            data.display().to_string(),
            "another router has it; give each its own --data",
        )),
        TryLockError::Error(error) => system(format!("cannot lock {}", path.display()))(error),
    })?;
    Ok(lock)
}

fn decider(config: &ServeConfig) -> Result<(Decider, Option<Arc<Placer>>), StartError> {
    if config.policy != PLACER {
        let policy = by_name(&config.policy, Runtime::default())
            .ok_or_else(|| ConfigError::new("policy", format!("there is no policy '{}'", config.policy)))?;
        return Ok((Decider::rival(policy, key_of(&config.router)), None));
    }
    let strategies = Strategies::new(config.strategies.clone())
        .map_err(|error| ConfigError::new(format!("strategies.{}", error.field), error.problem))?;
    let seed = key_of(&config.router);
    let model_us = config.limits.model_us;
    let budget = (model_us > 0.0).then_some(Budget { model_us, clock_ns: monotonic_ns });
    let guards = Guards { budget, max_missing: Some(config.limits.missing_share), ..Guards::default() };
    let placer = Placer::without_model()
        .with_config(PlacerConfig { seed, guards, ..PlacerConfig::default() })
        .with_strategies(strategies);
    let placer = Arc::new(placer);
    Ok((Decider::Placer(Arc::clone(&placer)), Some(placer)))
}

/// What is done every second beside the requests, until it is aborted.
async fn attend(app: Arc<App>, memory: PathBuf) {
    for second in 1_u64.. {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let live = &app.live;
        live.tick(app.config.outcome_wait_ms);
        for shard in live.let_go(&|| live.view.tick(live.clock.now())) {
            tracing::warn!(shard = shard.as_str(), "was not heard for long and is removed");
        }
        if second.is_multiple_of(TURN_EVERY_S) {
            live.pending.turn();
        }
        if second.is_multiple_of(SAVE_EVERY_S) {
            let (live, memory) = (Arc::clone(live), memory.clone());
            let saved = tokio::task::spawn_blocking(move || memory::save(&memory, &live)).await;
            if let Ok(Err(error)) = saved {
                tracing::warn!(%error, "what was learned could not be saved; it is tried again");
            }
        }
    }
}

#[cfg(test)]
#[path = "sidecar/tests.rs"]
mod tests;
