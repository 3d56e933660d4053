//! What a shard has of the world beside its clients: the bus, and its part in changes of the configuration.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shardwise_control::{
    AgentHost, AgentParts, COORDINATOR, Configuration, Enforcer, Member, Nats, Settings, ShardUsage, StateFile,
    Surroundings, Transport,
};
use shardwise_monitor::{Bus, Envelope, NatsBus};
use shardwise_types::ShardId;
use tokio::runtime::Handle;
use tracing::warn;

use super::ShardError;
use super::options::ShardOptions;
use super::publish::Publish;
use super::workers::Workers;
use crate::bus;
use crate::control::HttpTransport;

/// How long a report may wait for the broker; then it stays in the bus's buffer.
const STORED_WITHIN: Duration = Duration::from_millis(500);

/// What lives as long as the shard.
#[derive(Clone, Default)]
pub(super) struct Outside {
    pub(super) bus: Option<Arc<NatsBus>>,
    pub(super) transport: Option<Arc<HttpTransport>>,
    agent: Option<Arc<AgentHost>>,
}

/// A shard knows its own use, and takes limits; which other shards there are it leaves to others.
struct Own {
    shard: ShardId,
    workers: Arc<Workers>,
}

impl Surroundings for Own {
    fn usage(&self) -> Option<ShardUsage> {
        Some(self.workers.usage())
    }

    fn knows(&self, _: &ShardId) -> bool {
        true
    }
}

impl Enforcer for Own {
    fn update(&self, holds: &Configuration) {
        self.workers.limit(holds.limits.get(&self.shard).copied());
        let mine = holds.placements.warm().iter().filter(|pair| pair.shard == self.shard);
        self.workers.keep_warm(mine.map(|pair| pair.function.clone()).collect());
    }
}

/// Connects to the bus and starts the agent, as far as the options ask for them.
///
/// # Errors
/// An address that is none, or a state that cannot be read.
pub(super) async fn reach_out(options: &ShardOptions, workers: &Arc<Workers>) -> Result<Outside, ShardError> {
    let mut outside = Outside::default();
    if let Some(url) = &options.nats {
        let bus =
            bus::connect(url, options.id.as_str()).await.map_err(|error| ShardError::Outside(error.to_string()))?;
        outside.bus = Some(Arc::new(bus));
    }
    if let Some(folder) = &options.state {
        let coordinator = options.report_to.first().cloned();
        let http = HttpTransport::new(options.access().open()?, move |endpoint| {
            coordinator.clone().filter(|_| endpoint == COORDINATOR)
        });
        let http = Arc::new(http);
        let way: Arc<dyn Transport> = match &outside.bus {
            Some(bus) => Arc::new(Nats::new(bus.client().clone())),
            None => Arc::clone(&http) as Arc<dyn Transport>,
        };
        let agent = agent(options, folder, way, workers).await?;
        (outside.transport, outside.agent) = (Some(http), Some(Arc::new(agent)));
    }
    Ok(outside)
}

async fn agent(
    options: &ShardOptions,
    folder: &Path,
    transport: Arc<dyn Transport>,
    workers: &Arc<Workers>,
) -> Result<AgentHost, ShardError> {
    std::fs::create_dir_all(folder).map_err(ShardError::System)?;
    let own = || Own { shard: options.id.clone(), workers: Arc::clone(workers) };
    let parts = AgentParts {
        member: Member::Shard(options.id.clone()),
        settings: Settings::default(),
        file: StateFile::new(&folder.join(format!("{}.agent.json", options.id))),
        transport,
        surroundings: Box::new(own()),
        enforcer: Box::new(own()),
        clock: shardwise_control::system_clock(),
    };
    AgentHost::start(parts).await.map_err(|error| ShardError::Outside(error.to_string()))
}

/// Publishes reports on the bus.
pub(super) struct BusPublisher {
    pub(super) bus: Arc<NatsBus>,
    pub(super) runtime: Handle,
}

impl Publish for BusPublisher {
    fn publish(&mut self, envelope: &Envelope) {
        let told = (envelope.subject(), envelope.message_id(), envelope.to_json());
        let (Ok(subject), Ok(message_id), Ok(json)) = told else {
            warn!(shard = envelope.shard.as_str(), "a report cannot be published under this name");
            return;
        };
        let stored = async { tokio::time::timeout(STORED_WITHIN, self.bus.publish(&subject, &message_id, json)).await };
        if let Ok(Err(error)) = self.runtime.block_on(stored) {
            warn!(%error, "a report was not stored");
        }
    }
}
