//! The agent of this process: listens to the coordinator, keeps its state on disk, and hands routers their snapshot.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use shardwise_types::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::clock::{Clock, until};
use crate::transport::{Handler, Serving, Transport, TransportError};
use crate::{
    Agent, Answer, COORDINATOR, Command, Configuration, FileError, Member, Settings, Splits, Standing, StateFile,
    Surroundings, Truth, Verdict,
};

/// Who enforces limits and placements: the shard its own, the balancer of a router those of all.
pub trait Enforcer: Send + Sync {
    /// Takes what holds from now on; a shard that is not among the limits has none of its own.
    fn update(&self, holds: &Configuration);
}

/// What an agent needs.
pub struct AgentParts {
    /// Who it is.
    pub member: Member,
    /// The times of the protocol.
    pub settings: Settings,
    /// Where it keeps its state.
    pub file: StateFile,
    /// The way to the coordinator.
    pub transport: Arc<dyn Transport>,
    /// What it must know of the machine and the fleet.
    pub surroundings: Box<dyn Surroundings + Send + Sync>,
    /// Who enforces limits and placements.
    pub enforcer: Box<dyn Enforcer>,
    /// The time.
    pub clock: Clock,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The times of the protocol contradict each other.
    #[error(transparent)]
    Settings(#[from] shardwise_types::InvalidInput),
    /// Its state cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It cannot listen.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Who.
    pub member: Member,
    /// The version that it serves.
    pub serves: u64,
    /// How certain it is that this is what holds.
    pub standing: Standing,
    /// The version that it keeps ready.
    pub prepared: Option<u64>,
    /// How often its state could not be written; it then did as if it had not heard.
    pub write_failures: u64,
    /// How often the coordinator did not answer.
    pub unanswered: u64,
}

/// A running agent; it stops when this is dropped, as if the process had died.
pub struct AgentHost {
    inner: Arc<Inner>,
    tasks: Vec<JoinHandle<()>>,
    _serving: Serving,
}

struct Inner {
    agent: Mutex<Agent>,
    parts: AgentParts,
    splits: ArcSwap<Splits>,
    changed: Notify,
    stopped: AtomicBool,
    write_failures: AtomicU64,
    unanswered: AtomicU64,
}

impl AgentHost {
    /// Restores the state of before, listens, and asks the coordinator. Needs a tokio runtime with time.
    ///
    /// # Errors
    /// When the settings are wrong, the state cannot be read, or it cannot listen.
    pub async fn start(parts: AgentParts) -> Result<Self, AgentError> {
        parts.settings.check()?;
        let state = parts.file.load()?.unwrap_or_default();
        let splits = ArcSwap::from_pointee(Splits::of(&state));
        let agent = Mutex::new(Agent::new(parts.member.clone(), parts.settings, state));
        let inner = Arc::new(Inner {
            agent,
            parts,
            splits,
            changed: Notify::new(),
            stopped: AtomicBool::new(false),
            write_failures: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
        });
        let endpoint = inner.parts.member.endpoint();
        let handler = Arc::new(Commands(Arc::clone(&inner)));
        let serving = inner.parts.transport.serve(&endpoint, handler).await?;
        let tasks =
            vec![tokio::spawn(apply_in_time(Arc::clone(&inner))), tokio::spawn(ask_now_and_then(Arc::clone(&inner)))];
        Ok(Self { inner, tasks, _serving: serving })
    }

    /// The splits to pick from, newest commit included; one pointer, never two that must agree.
    pub fn splits(&self) -> Arc<Splits> {
        self.inner.splits.load_full()
    }

    /// What it says of itself now.
    pub fn status(&self) -> AgentStatus {
        let now = (self.inner.parts.clock)();
        let agent = self.inner.lock();
        AgentStatus {
            member: agent.member().clone(),
            serves: agent.serving(now).version,
            standing: agent.standing(now),
            prepared: agent.state().prepared.as_ref().map(|prepared| prepared.next.version),
            write_failures: self.inner.write_failures.load(Ordering::Relaxed),
            unanswered: self.inner.unanswered.load(Ordering::Relaxed),
        }
    }
}

impl Drop for AgentHost {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        // Under the lock: what is under way must not write over a successor's state.
        let _agent = self.inner.lock();
        self.inner.stopped.store(true, Ordering::Relaxed);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Agent> {
        // The agent is replaced whole or not at all.
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the agent act. What it must not forget is on the disk when this returns; if it cannot be, it has not acted.
    fn act<T>(&self, act: impl FnOnce(&mut Agent, Timestamp) -> T) -> Result<T, FileError> {
        let mut agent = self.lock();
        if self.stopped.load(Ordering::Relaxed) {
            return Err(self.parts.file.stopped());
        }
        let mut next = agent.clone();
        let result = act(&mut next, (self.parts.clock)());
        if next.state() != agent.state() {
            if let Err(error) = self.parts.file.save(next.state()) {
                self.write_failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "the configuration's state cannot be kept");
                return Err(error);
            }
            self.splits.store(Arc::new(Splits::of(next.state())));
            self.changed.notify_one();
        }
        *agent = next;
        Ok(result)
    }

    fn command(&self, body: &[u8]) -> Option<Answer> {
        let command: Command = serde_json::from_slice(body)
            .inspect_err(|error| tracing::warn!(%error, "a command cannot be read"))
            .ok()?;
        let answer = self.act(|agent, now| agent.handle(now, &command, &*self.parts.surroundings));
        Some(answer.unwrap_or_else(|error| Answer {
            member: self.parts.member.clone(),
            version: command.version(),
            at: (self.parts.clock)(),
            verdict: Verdict::Refused { why: format!("its state cannot be kept: {error}") },
        }))
    }

    /// What holds by now for whoever enforces it, and when that changes.
    fn holds(&self) -> (Configuration, Option<Timestamp>) {
        let now = (self.parts.clock)();
        let agent = self.lock();
        let next = agent.state().prepared.as_ref().filter(|it| it.committed && it.effective_at > now);
        (agent.serving(now).clone(), next.map(|prepared| prepared.effective_at))
    }
}

struct Commands(Arc<Inner>);

#[async_trait]
impl Handler for Commands {
    async fn handle(&self, body: Vec<u8>) -> Option<Vec<u8>> {
        let inner = Arc::clone(&self.0);
        let answer = tokio::task::spawn_blocking(move || inner.command(&body)).await.ok()??;
        Some(serde_json::to_vec(&answer).expect("names and numbers are always JSON"))
    }
}

/// Hands on limits and placements at their instant; the splits switch by themselves.
async fn apply_in_time(inner: Arc<Inner>) {
    let mut before = None;
    loop {
        let (holds, next) = inner.holds();
        if before.as_ref() != Some(&holds.version) {
            inner.parts.enforcer.update(&holds);
            before = Some(holds.version);
        }
        // A failure is counted and said; what is served does not depend on it.
        let settling = Arc::clone(&inner);
        _ = tokio::task::spawn_blocking(move || settling.act(Agent::settle)).await;
        let sleep = until((inner.parts.clock)(), next);
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            () = inner.changed.notified() => {}
        }
    }
}

async fn ask_now_and_then(inner: Arc<Inner>) {
    let settings = inner.parts.settings;
    let pause = Duration::from_millis(settings.ask_every_ms.div_ceil(4));
    loop {
        let question = inner.lock().question((inner.parts.clock)());
        if let Some(ask) = question {
            let body = serde_json::to_vec(&ask).expect("names and numbers are always JSON");
            let within = Duration::from_millis(settings.lease_ms);
            match inner.parts.transport.request(COORDINATOR, body, within).await {
                Ok(answer) => learn(&inner, answer).await,
                Err(error) => {
                    inner.unanswered.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%error, "the coordinator of the configuration does not answer");
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn learn(inner: &Arc<Inner>, answer: Vec<u8>) {
    let truth: Truth = match serde_json::from_slice(&answer) {
        Ok(truth) => truth,
        Err(error) => return tracing::warn!(%error, "an answer of the coordinator cannot be read"),
    };
    let inner = Arc::clone(inner);
    // A failure to write is counted and said where it happens.
    _ = tokio::task::spawn_blocking(move || inner.act(|agent, now| agent.learn(now, &truth))).await;
}
