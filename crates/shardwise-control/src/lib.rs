//! Traffic splits, shard limits and placements of functions, changed everywhere or nowhere.
//!
//! A change is proposed to all members, shards and routers, with one **effective time** (10 s ahead by default) from
//! which it holds. All splits, limits and placements together have one version, and whoever has the same version has the
//! same configuration.
//!
//! # The protocol
//!
//! 1. The coordinator writes `proposed` to its history and sends `UpdateTrafficSplit`, `UpdateResourceLimits` or
//!    `UpdatePlacements`. An agent checks the change (known shards; limits against what is used now), writes it down and
//!    answers `prepared`: a promise to follow the decision.
//! 2. When *all* have promised by `effective time − margin`, the coordinator writes `committed` to its history. This
//!    line is the decision; there is no other. Whoever is missing, refuses, answers for another version, or whose clock
//!    is too far off, makes it `withdrawn`.
//! 3. The decision is sent, and repeated until it is acknowledged. An agent that knows of a commit serves the new
//!    version from the effective time on, by comparing times at each decision: no timer has to fire.
//!
//! Beside that, each agent asks the coordinator about once a second what holds, and is answered with the whole
//! configuration, what is committed for later, and which change is open. An answer confirms its version for a **lease**
//! (4 s), counted from the question.
//!
//! # What is guaranteed
//!
//! **Whoever is [`Standing::Certain`] serves exactly what the history says at that instant**, to within the error of
//! the clocks. So no two members that are certain ever serve different versions. It holds because a decision is made a
//! margin before its effective time, and a lease with twice the clocks' error fits into the margin
//! ([`Settings::check`]): an agent that was confirmed before the decision is not certain any more when the change
//! begins to hold, and one that was confirmed after it was told. **What was withdrawn is never served by anybody.**
//!
//! No protocol can also promise that *all* switch at that instant: the last message to a member can always be lost (the
//! two generals). A member that is cut off after its promise stays at the version before, is [`Standing::InDoubt`] from
//! the effective time on, and says so; one that is cut off longer than its lease is [`Standing::Unconfirmed`]. The
//! version before is the right one to serve: it was decided once, while the new one may have been withdrawn, and a
//! request that is placed by an old split is placed well enough, where a request that is not placed is lost. More
//! rounds would not help: an acknowledged commit that can still be withdrawn can have its withdrawal lost, and then a
//! member would be wrong and certain.
//!
//! # After a crash
//!
//! | who, when | what follows |
//! |---|---|
//! | coordinator, before the decision | its successor finds `proposed` alone and withdraws |
//! | coordinator, after the decision | its successor finds `committed` and repeats it; some are in doubt till then |
//! | coordinator, for good | who knows the commit serves it, others are in doubt; all are unconfirmed after a lease |
//! | member, before its promise was written | it did not answer; it is asked again or the change is withdrawn |
//! | member, with a promise | after the restart it still has it, asks, and follows the decision |
//! | member, with a commit | after the restart it serves the new version from the effective time on |
//! | member whose file is lost, or that was left out of a change | unconfirmed until the coordinator has told it all |
//! | coordinator whose history is lost | [`Standing::Contradicted`]; members refuse changes of a version not theirs |
//!
//! A fleet has one coordinator. The lock of its history keeps a second one out of the same folder; one with a folder of
//! its own must not be started: a change names the version that it was made on and members refuse all that do not fit,
//! but whom they ask would be left to chance. A line of the history that a killed writer left unfinished never was.
//!
//! ```
//! use shardwise_control::{AgentState, Change, Configuration, Pick, Splits, TrafficSplit, What};
//! use shardwise_types::{FunctionId, ShardId, Timestamp};
//!
//! let function = FunctionId::new("price_arbitrage");
//! let canary = TrafficSplit::of([(ShardId::new("shard-old"), 0.9), (ShardId::new("shard-new"), 0.1)])?;
//! let now = Timestamp::from_nanos(0);
//! let change = Change {
//!     version: 1,
//!     from_version: 0,
//!     author: "ann".to_owned(),
//!     why: "try the new machine".to_owned(),
//!     created_at: now,
//!     effective_at: now.plus_millis(10_000.0),
//!     what: What::Split { function: function.clone(), split: canary },
//! };
//! // An agent does this by itself once the change is committed; a router asks its agent for the splits.
//! let state = AgentState { applied: Configuration::default().after(&change), ..AgentState::default() };
//! let splits = Splits::of(&state);
//! let pick = splits.pick(&function, change.effective_at, 0.95, |_eligible| true);
//! assert_eq!(pick, Pick::Shard(&ShardId::new("shard-old")));
//! # Ok::<(), shardwise_types::InvalidInput>(())
//! ```

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
pub use agent_host::{AgentError, AgentHost, AgentParts, AgentStatus, Enforcer};
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
