//! The coordinator of this process: writes the history, sends commands, takes answers, and answers agents.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use shardwise_types::{InvalidInput, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::{Clock, until};
use crate::commands::ChangeOptions;
use crate::transport::{Handler, Serving, Transport, TransportError};
use crate::{
    Answer, Ask, COORDINATOR, Command, Configuration, Coordinator, Entry, FileError, Heard, History, Inconsistent,
    LoadBalancingConfigUpdated, Member, Output, Pending, Proposal, Record, Refusal, Settings, Truth, entries,
};

/// Who tells the world of committed changes.
#[async_trait]
pub trait Events: Send + Sync {
    /// Publishes `LoadBalancingConfigUpdated`; after a crash of the coordinator the same change may come again.
    async fn publish(&self, event: &LoadBalancingConfigUpdated);
}

/// Writes events to the log, for fleets without a bus.
pub struct LogEvents;

#[async_trait]
impl Events for LogEvents {
    async fn publish(&self, event: &LoadBalancingConfigUpdated) {
        let (version, author) = (event.change.version, &event.change.author);
        tracing::info!(version, author, effective_at = %event.change.effective_at, "LoadBalancingConfigUpdated");
    }
}

/// Why a coordinator cannot start, or a change cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Times, names or numbers are wrong.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// The change cannot be made, or not now.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The history cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The history contradicts itself.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
    /// It cannot listen.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// There is no such version to go back to.
    #[error("version {0} was never committed; `shardwise config history` lists those that were")]
    NoSuchVersion(u64),
}

/// What a coordinator needs.
pub struct ControlParts {
    /// The times of the protocol.
    pub settings: Settings,
    /// The way to the agents.
    pub transport: Arc<dyn Transport>,
    /// Who tells the world.
    pub events: Box<dyn Events>,
    /// The time.
    pub clock: Clock,
}

/// What holds, and what members say of themselves.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlStatus {
    /// What holds now.
    pub current: Configuration,
    /// What is decided and holds later.
    pub pending: Option<Pending>,
    /// The change that members are being told of.
    pub open_version: Option<u64>,
    /// What each member said of itself when it asked last.
    pub heard: BTreeMap<Member, Heard>,
}

/// A running coordinator; it stops when this is dropped, as if the process had died.
pub struct ControlPlane {
    inner: Arc<Inner>,
    ticking: JoinHandle<()>,
    _serving: Serving,
}

struct Inner {
    core: Mutex<Core>,
    parts: ControlParts,
    stepped: watch::Sender<()>,
}

struct Core {
    machine: Coordinator,
    history: History,
}

impl ControlPlane {
    /// Opens the history in a folder, takes over from it, and listens to agents. Needs a tokio runtime with time.
    ///
    /// # Errors
    /// When the settings are wrong, another coordinator has the history open, it is damaged, or it cannot listen.
    pub async fn start(folder: &Path, parts: ControlParts) -> Result<Self, ControlError> {
        parts.settings.check()?;
        let history = History::open(folder)?;
        let machine = Coordinator::new(parts.settings, history.records())?;
        let core = Mutex::new(Core { machine, history });
        let inner = Arc::new(Inner { core, parts, stepped: watch::Sender::new(()) });
        let serving = inner.parts.transport.serve(COORDINATOR, Arc::new(Questions(Arc::clone(&inner)))).await?;
        let ticking = tokio::spawn(tick_in_time(Arc::clone(&inner)));
        Ok(Self { inner, ticking, _serving: serving })
    }

    /// Makes a change in all members or in none, and says what became of it: as soon as it is withdrawn, or when all
    /// have acknowledged the commit or its instant has come. What is not even decided then could not be recorded.
    ///
    /// # Errors
    /// When the change is wrong, another one is open, or the history cannot be written; then nobody was asked.
    pub async fn change(&self, proposal: Proposal, members: &[Member]) -> Result<Entry, ControlError> {
        let mut stepped = self.inner.stepped.subscribe();
        let members = members.to_vec();
        let version = self.inner.step(move |machine, now| machine.propose(now, proposal, &members)).await??;
        loop {
            stepped.borrow_and_update();
            if let Some(entry) = self.finished(version) {
                return Ok(entry);
            }
            // A step or a second, for the instant itself is no step.
            _ = tokio::time::timeout(Duration::from_secs(1), stepped.changed()).await;
        }
    }

    /// Goes back to what held at an earlier version, as a change of its own.
    ///
    /// # Errors
    /// As of [`Self::change`], and when that version was never committed.
    pub async fn rollback(&self, to: u64, change: &ChangeOptions, members: &[Member]) -> Result<Entry, ControlError> {
        let configuration = self.inner.lock().history.configuration(to).ok_or(ControlError::NoSuchVersion(to))?;
        let ChangeOptions { author, why, from_version, .. } = change.clone();
        let what = crate::What::Rollback { configuration };
        self.change(Proposal { author, why, what, from_version }, members).await
    }

    /// All changes, oldest first.
    pub fn history(&self) -> Vec<Entry> {
        entries(self.inner.lock().history.records())
    }

    /// What holds, and what members say of themselves.
    pub fn status(&self) -> ControlStatus {
        let now = (self.inner.parts.clock)();
        let core = self.inner.lock();
        ControlStatus {
            current: core.machine.current(now).clone(),
            pending: core.machine.pending(now).cloned(),
            open_version: core.machine.open_version(),
            heard: core.machine.heard().clone(),
        }
    }

    fn finished(&self, version: u64) -> Option<Entry> {
        let core = self.inner.lock();
        let entry = entries(core.history.records().iter().filter(|record| record.version() == version)).pop()?;
        drop(core);
        let has_come = entry.change.effective_at <= (self.inner.parts.clock)();
        entry.is_finished(has_come).then_some(entry)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.ticking.abort();
        // What is under way holds on to the rest.
        self.inner.lock().history.close();
    }
}

/// What a step of the machine returns besides its outputs.
trait Step: Send + 'static {
    type Result: Send + 'static;

    fn split(self) -> (Self::Result, Vec<Output>);
}

impl Step for Vec<Output> {
    type Result = ();

    fn split(self) -> ((), Vec<Output>) {
        ((), self)
    }
}

impl Step for Truth {
    type Result = Self;

    fn split(self) -> (Self, Vec<Output>) {
        (self, Vec::new())
    }
}

impl Step for Result<(u64, Vec<Output>), Refusal> {
    type Result = Result<u64, Refusal>;

    fn split(self) -> (Self::Result, Vec<Output>) {
        match self {
            Ok((version, outputs)) => (Ok(version), outputs),
            Err(refusal) => (Err(refusal), Vec::new()),
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Core> {
        // The machine is replaced whole or not at all, and the history says itself when it is broken.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the machine make a step. Its records are on the disk before anything is sent; if they cannot be, there was
    /// no step.
    async fn step<S: Step>(
        self: &Arc<Self>,
        act: impl FnOnce(&mut Coordinator, Timestamp) -> S + Send + 'static,
    ) -> Result<S::Result, FileError> {
        let inner = Arc::clone(self);
        let stepping = tokio::task::spawn_blocking(move || {
            let mut core = inner.lock();
            // A coordinator that was stopped, or does not know what is on its disk, must not even answer questions.
            core.history.check_open()?;
            let mut next = core.machine.clone();
            let (result, outputs) = act(&mut next, (inner.parts.clock)()).split();
            let records: Vec<Record> = outputs.iter().filter_map(Output::as_record).cloned().collect();
            if !records.is_empty() {
                core.history
                    .append(&records)
                    .inspect_err(|error| tracing::error!(%error, "a change cannot be recorded"))?;
            }
            core.machine = next;
            Ok((result, outputs))
        });
        let (result, outputs) = match stepping.await {
            Ok(stepped) => stepped?,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is being shut down, and this task with it.
            Err(_) => std::future::pending().await,
        };
        self.dispatch(outputs);
        self.stepped.send_replace(());
        Ok(result)
    }

    fn dispatch(self: &Arc<Self>, outputs: Vec<Output>) {
        for output in outputs {
            let inner = Arc::clone(self);
            match output {
                Output::Record(_) => {}
                Output::Send { to, command } => drop(tokio::spawn(async move { inner.send(&to, &command).await })),
                Output::Publish(event) => drop(tokio::spawn(async move { inner.parts.events.publish(&event).await })),
            }
        }
    }

    async fn send(self: &Arc<Self>, to: &Member, command: &Command) {
        let body = serde_json::to_vec(command).expect("names and numbers are always JSON");
        let within = Duration::from_millis(self.parts.settings.lead_ms);
        let answer = match self.parts.transport.request(&to.endpoint(), body, within).await {
            Ok(answer) => answer,
            Err(error) => return tracing::debug!(%error, version = command.version(), "a command is not answered"),
        };
        match serde_json::from_slice::<Answer>(&answer) {
            // A failure to record is said where it happens, and the next tick tries again.
            Ok(answer) => drop(self.step(move |machine, now| machine.answer(now, &answer)).await),
            Err(error) => tracing::warn!(%error, member = %to, "an answer cannot be read"),
        }
    }
}

impl Output {
    fn as_record(&self) -> Option<&Record> {
        match self {
            Self::Record(record) => Some(record),
            _ => None,
        }
    }
}

struct Questions(Arc<Inner>);

#[async_trait]
impl Handler for Questions {
    async fn handle(&self, body: Vec<u8>) -> Option<Vec<u8>> {
        let ask: Ask = serde_json::from_slice(&body)
            .inspect_err(|error| tracing::warn!(%error, "a question cannot be read"))
            .ok()?;
        let truth = self.0.step(move |machine, now| machine.ask(now, &ask)).await.ok()?;
        Some(serde_json::to_vec(&truth).expect("names and numbers are always JSON"))
    }
}

async fn tick_in_time(inner: Arc<Inner>) {
    let mut stepped = inner.stepped.subscribe();
    loop {
        stepped.borrow_and_update();
        let next = inner.lock().machine.next_tick();
        let now = (inner.parts.clock)();
        if next.is_some_and(|next| next <= now) && inner.step(Coordinator::tick).await.is_err() {
            // It was said; the disk gets some time.
            tokio::time::sleep(Duration::from_millis(inner.parts.settings.repeat_every_ms)).await;
            continue;
        }
        let next = inner.lock().machine.next_tick();
        tokio::select! {
            () = tokio::time::sleep(until((inner.parts.clock)(), next)) => {}
            _ = stepped.changed() => {}
        }
    }
}
