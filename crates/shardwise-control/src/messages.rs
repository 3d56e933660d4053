//! Who takes part, and what they say to each other; JSON on the wire.

use std::fmt;

use serde::{Deserialize, Serialize};
use shardwise_types::{InvalidInput, RouterId, ShardId, Timestamp};

use crate::{Change, Configuration, Standing, What};

/// The name under which the coordinator answers agents.
pub const COORDINATOR: &str = "config-coordinator";

/// A shard or a router: whoever must have the same version as all others. Written as `shard/NAME` or `router/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Member {
    /// A shard.
    Shard(ShardId),
    /// A router.
    Router(RouterId),
}

impl Member {
    /// The shard with this name.
    pub fn shard(name: &str) -> Self {
        Self::Shard(ShardId::new(name))
    }

    /// The router with this name.
    pub fn router(name: &str) -> Self {
        Self::Router(RouterId::new(name))
    }

    /// Where its agent listens: `function-manager-<shard>` or `router-manager-<router>`.
    pub fn endpoint(&self) -> String {
        match self {
            Self::Shard(shard) => format!("function-manager-{shard}"),
            Self::Router(router) => format!("router-manager-{router}"),
        }
    }

    /// The shard, if it is one.
    pub fn as_shard(&self) -> Option<&ShardId> {
        match self {
            Self::Shard(shard) => Some(shard),
            Self::Router(_) => None,
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shard(shard) => write!(f, "shard/{shard}"),
            Self::Router(router) => write!(f, "router/{router}"),
        }
    }
}

impl From<Member> for String {
    fn from(member: Member) -> Self {
        member.to_string()
    }
}

impl TryFrom<String> for Member {
    type Error = InvalidInput;

    fn try_from(text: String) -> Result<Self, InvalidInput> {
        match text.split_once('/') {
            Some(("shard", name)) if !name.is_empty() => Ok(Self::shard(name)),
            Some(("router", name)) if !name.is_empty() => Ok(Self::router(name)),
            _ => Err(InvalidInput::new("member", format!("'{text}' is neither shard/NAME nor router/NAME"))),
        }
    }
}

/// What the coordinator tells an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all_fields = "camelCase")]
pub enum Command {
    /// A split is to change: check it, keep it, and promise to follow the decision.
    UpdateTrafficSplit(Prepare),
    /// The limits of a shard are to change.
    UpdateResourceLimits(Prepare),
    /// Functions are to live elsewhere.
    UpdatePlacements(Prepare),
    /// All is to be as it was.
    RestoreConfiguration(Prepare),
    /// All have promised: the change holds from its effective time on.
    Commit {
        /// Which change.
        version: u64,
    },
    /// Not all have promised: the change never holds.
    Withdraw {
        /// Which change.
        version: u64,
        /// Why.
        why: String,
    },
}

/// A change to be kept ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prepare {
    /// The change.
    pub change: Change,
    /// When an acknowledgement is too late.
    pub decide_by: Timestamp,
}

impl Command {
    /// The command that prepares a change, by its kind.
    pub fn prepare(change: Change, decide_by: Timestamp) -> Self {
        let prepare = |change| Prepare { change, decide_by };
        match change.what {
            What::Split { .. } | What::NoSplit { .. } => Self::UpdateTrafficSplit(prepare(change)),
            What::Limits { .. } => Self::UpdateResourceLimits(prepare(change)),
            What::Placements { .. } => Self::UpdatePlacements(prepare(change)),
            What::Rollback { .. } => Self::RestoreConfiguration(prepare(change)),
        }
    }

    /// The change that it is about.
    pub fn version(&self) -> u64 {
        match self {
            Self::UpdateTrafficSplit(prepare)
            | Self::UpdateResourceLimits(prepare)
            | Self::UpdatePlacements(prepare)
            | Self::RestoreConfiguration(prepare) => prepare.change.version,
            Self::Commit { version } | Self::Withdraw { version, .. } => *version,
        }
    }
}

/// What an agent answers to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Who answers.
    pub member: Member,
    /// The change that the answer is about.
    pub version: u64,
    /// When, by the agent's clock; a clock that is too far off is refused.
    pub at: Timestamp,
    /// What it says.
    pub verdict: Verdict,
}

/// What an agent says of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "camelCase")]
pub enum Verdict {
    /// It is on this agent's disk, and follows the decision.
    Prepared,
    /// It holds from its effective time on, or does already.
    Committed,
    /// It never holds here.
    Withdrawn,
    /// No.
    Refused {
        /// Why, and what to do.
        why: String,
    },
}

/// What an agent asks the coordinator: at its start, now and then, and when it is in doubt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ask {
    /// Who asks.
    pub member: Member,
    /// When, by its own clock; comes back in the answer.
    pub asked_at: Timestamp,
    /// The version that it serves.
    pub serves: u64,
    /// How certain it is of that.
    pub standing: Standing,
}

/// What the coordinator knows, which is what holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Truth {
    /// When the question was asked, by the clock of who asked.
    pub asked_at: Timestamp,
    /// The version that was served there when it was asked.
    pub asked_serving: u64,
    /// The highest version that was ever proposed.
    pub highest: u64,
    /// What holds.
    pub current: Configuration,
    /// What is decided and holds later.
    pub pending: Option<Pending>,
    /// The change that is not decided yet.
    pub undecided: Option<u64>,
}

/// A configuration that is decided and holds from some instant on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// From when on.
    pub effective_at: Timestamp,
    /// What.
    pub configuration: Configuration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_written_as_text() {
        for member in [Member::shard("shard-a/b"), Member::router("r1")] {
            let json = serde_json::to_string(&member).expect("text");
            assert_eq!(serde_json::from_str::<Member>(&json).expect("its own"), member);
        }
        assert_eq!(Member::shard("x").endpoint(), "function-manager-x");
        assert!(serde_json::from_str::<Member>("\"x\"").expect_err("no kind").to_string().contains("shard/NAME"));
    }

    #[test]
    fn commands_carry_their_names() {
        let json = serde_json::to_string(&Command::Withdraw { version: 3, why: "no".to_owned() }).expect("text");
        assert_eq!(json, r#"{"command":"Withdraw","version":3,"why":"no"}"#);
    }
}
