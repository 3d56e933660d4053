//! Configuration that operators change while the system runs (S12): the way to the shards, the router's own agent, and the
//! coordinator where this router has it.

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use shardwise_client::Access;
use shardwise_control::{
    AgentHost, AgentParts, COORDINATOR, Configuration, ControlParts, ControlPlane, Enforcer, Handler, InProcess,
    LogEvents, Member, Serving, Settings, ShardLimits, ShardUsage, StateFile, Surroundings, Transport, TransportError,
};
use shardwise_monitor::{Capacity, FleetView};
use shardwise_types::ShardId;
use ureq::RequestBuilder;
use ureq::typestate::WithBody;

use crate::config::ServeConfig;
use crate::live::Live;
use crate::sidecar::StartError;

/// Largest answer that is read: a large fleet's placements, twice.
const LARGEST: u64 = 64 << 20;
/// The path under which endpoints answer.
pub(crate) const PATH: &str = "/v1/control/";

/// Requests to endpoints of this process, and by HTTP to those of others.
pub(crate) struct HttpTransport {
    own: InProcess,
    agent: ureq::Agent,
    /// What the coordinator asks of its clients.
    access: Access,
    address_of: Box<AddressOf>,
}

/// Where an endpoint answers, as `http://host:port`.
type AddressOf = dyn Fn(&str) -> Option<String> + Send + Sync;

impl HttpTransport {
    pub(crate) fn new(access: Access, address_of: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let agent = access.agent(ureq::Agent::config_builder().proxy(None).http_status_as_error(false).build());
        Self { own: InProcess::default(), agent, access, address_of: Box::new(address_of) }
    }

    /// Answers what another process asked of an endpoint here.
    pub(crate) async fn answer(
        &self,
        endpoint: &str,
        body: Vec<u8>,
        within: Duration,
    ) -> Result<Vec<u8>, TransportError> {
        self.own.request(endpoint, body, within).await
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn request(&self, to: &str, body: Vec<u8>, within: Duration) -> Result<Vec<u8>, TransportError> {
        let Some(address) = (self.address_of)(to) else { return self.own.request(to, body, within).await };
        let url = format!("{}{PATH}{to}", address.trim_end_matches('/'));
        let mut request = self.agent.post(&url);
        // A shard says itself where it is; it is not told the token.
        if to == COORDINATOR {
            request = self.access.sign(request);
        }
        let endpoint = to.to_owned();
        let asked = tokio::task::spawn_blocking(move || post(request, &endpoint, &body, within));
        asked.await.unwrap_or_else(|error| Err(broken(to, &error)))
    }

    async fn serve(&self, endpoint: &str, handler: Arc<dyn Handler>) -> Result<Serving, TransportError> {
        self.own.serve(endpoint, handler).await
    }
}

fn post(request: RequestBuilder<WithBody>, to: &str, body: &[u8], within: Duration) -> Result<Vec<u8>, TransportError> {
    let request = request.config().timeout_global(Some(within)).build();
    let response = request.content_type("application/json").send(body).map_err(|error| match error {
        ureq::Error::Timeout(_) => TransportError::Late(to.to_owned()),
        error => broken(to, &error),
    })?;
    if !response.status().is_success() {
        return Err(broken(to, &format!("it answers {}", response.status())));
    }
    let mut answer = Vec::new();
    let reader = response.into_body().into_reader().take(LARGEST + 1).read_to_end(&mut answer);
    match reader {
        Ok(_) if answer.len() as u64 > LARGEST => {
            Err(broken(to, &format!("it answers with more than {LARGEST} bytes")))
        }
        Ok(_) => Ok(answer),
        Err(error) => Err(broken(to, &error)),
    }
}

fn broken(to: &str, problem: &dyn std::fmt::Display) -> TransportError {
    TransportError::Broken { to: to.to_owned(), problem: problem.to_string() }
}

/// What this process has of it.
pub(crate) struct Control {
    pub(crate) transport: Arc<HttpTransport>,
    /// Where this router is the coordinator.
    pub(crate) plane: Option<ControlPlane>,
    own: Member,
    view: Arc<FleetView>,
}

impl Control {
    /// Whoever must agree to a change: the shards that are known, this router, and the routers that have asked.
    pub(crate) fn members(&self) -> Vec<Member> {
        let shards =
            self.view.snapshot().shards.iter().map(|shard| Member::Shard(shard.id.clone())).collect::<Vec<_>>();
        let heard = self.plane.as_ref().map(|plane| plane.status().heard).unwrap_or_default();
        let routers = heard.into_keys().filter(|member| member.as_shard().is_none());
        let mut members: Vec<Member> = shards.into_iter().chain(routers).chain([self.own.clone()]).collect();
        members.sort();
        members.dedup();
        members
    }
}

/// A router takes part in every change, and enforces no limits but by what it takes shards' capacities for.
struct Router {
    view: Arc<FleetView>,
    /// It has the agent that has this.
    live: Weak<Live>,
}

impl Surroundings for Router {
    fn usage(&self) -> Option<ShardUsage> {
        None
    }

    fn knows(&self, shard: &ShardId) -> bool {
        self.view.snapshot().position(shard).is_some()
    }
}

impl Enforcer for Router {
    fn update(&self, holds: &Configuration) {
        let capacity = |limits: &ShardLimits| Capacity {
            cores: limits.max_cpu_cores as f32,
            memory_mb: limits.max_memory_mb as f32,
        };
        // It goes with the process.
        if let Some(live) = self.live.upgrade() {
            live.limit(holds.limits.iter().map(|(shard, limits)| (shard.clone(), capacity(limits))).collect());
            live.take_placements(&Arc::new(holds.placements.clone()));
        }
    }
}

/// Starts the router's agent, and the coordinator if it is to be here.
///
/// # Errors
/// What is kept of before is damaged, or another process has it.
pub(crate) async fn start(
    live: &Arc<Live>,
    config: &ServeConfig,
    folder: &Path,
    nats: Option<Arc<dyn Transport>>,
) -> Result<Control, StartError> {
    let view = Arc::clone(&live.view);
    let known = Arc::clone(&view);
    let own = Member::router(&config.router);
    let coordinator_at = config.coordinator_at.clone();
    let access = config.access.to_others().open().map_err(|error| StartError::Control(error.to_string()))?;
    let transport =
        Arc::new(HttpTransport::new(access, move |endpoint| match endpoint.strip_prefix("function-manager-") {
            Some(shard) => known.address(&ShardId::new(shard)).map(|address| address.to_string()),
            None => coordinator_at.clone().filter(|_| endpoint == COORDINATOR),
        }));
    let way: Arc<dyn Transport> = nats.unwrap_or_else(|| Arc::clone(&transport) as Arc<dyn Transport>);
    let settings = Settings::default();
    let plane = if config.is_coordinator() {
        let parts = ControlParts {
            settings,
            transport: Arc::clone(&way),
            events: Box::new(LogEvents),
            clock: shardwise_control::system_clock(),
        };
        Some(ControlPlane::start(folder, parts).await.map_err(|error| StartError::Control(error.to_string()))?)
    } else {
        None
    };
    let parts = AgentParts {
        member: own.clone(),
        settings,
        file: StateFile::new(&folder.join("agent.json")),
        transport: way,
        surroundings: Box::new(Router { view: Arc::clone(&view), live: Arc::downgrade(live) }),
        enforcer: Box::new(Router { view: Arc::clone(&view), live: Arc::downgrade(live) }),
        clock: shardwise_control::system_clock(),
    };
    let agent = AgentHost::start(parts).await.map_err(|error| StartError::Control(error.to_string()))?;
    // It is started once.
    _ = live.agent.set(agent);
    Ok(Control { transport, plane, own, view })
}
