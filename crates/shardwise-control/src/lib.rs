//! Traffic splits and shard limits, changed everywhere or nowhere.

mod agent;
mod agent_host;
mod clock;
pub mod commands;
mod configuration;
mod control_plane;
mod coordinator;
mod files;
mod history;
mod limits;
mod messages;
#[cfg(feature = "nats")]
mod nats;
mod settings;
mod split;
mod splits;
mod transport;

pub use agent::{Agent, AgentState, Prepared, Standing, Surroundings};
pub use agent_host::{AgentError, AgentHost, AgentParts, AgentStatus, Capacities};
pub use clock::{Clock, system_clock};
pub use configuration::{ActiveSplit, Change, Configuration, What};
pub use control_plane::{ControlError, ControlParts, ControlPlane, ControlStatus, Events, LogEvents};
pub use coordinator::{Coordinator, Heard, LoadBalancingConfigUpdated, Output, Proposal, Refusal};
pub use files::{FileError, History, StateFile};
pub use history::{Acknowledgement, Entry, Inconsistent, Outcome, Record, entries};
pub use limits::{ShardLimits, ShardUsage};
pub use messages::{Answer, Ask, COORDINATOR, Command, Member, Pending, Prepare, Truth, Verdict};
#[cfg(feature = "nats")]
pub use nats::{EVENT_SUBJECT, Nats};
pub use settings::Settings;
pub use split::{MOST_SHARDS, MOST_STEPS, SplitStep, TrafficSplit, WEIGHT_TOLERANCE};
pub use splits::{Pick, Splits};
pub use transport::{Handler, InProcess, Serving, Transport, TransportError};
