//! Traffic splits and shard limits, changed everywhere or nowhere.

mod agent;
mod configuration;
mod coordinator;
mod history;
mod limits;
mod messages;
mod settings;
mod split;

pub use agent::{Agent, AgentState, Prepared, Standing, Surroundings};
pub use configuration::{ActiveSplit, Change, Configuration, What};
pub use coordinator::{Coordinator, Heard, LoadBalancingConfigUpdated, Output, Proposal, Refusal};
pub use history::{Acknowledgement, Inconsistent, Record};
pub use limits::{ShardLimits, ShardUsage};
pub use messages::{Answer, Ask, COORDINATOR, Command, Member, Pending, Prepare, Truth, Verdict};
pub use settings::Settings;
pub use split::{MOST_SHARDS, MOST_STEPS, SplitStep, TrafficSplit, WEIGHT_TOLERANCE};
