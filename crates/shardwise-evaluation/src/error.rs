//! What can go wrong in an evaluation, and what to do about it.

use std::path::PathBuf;

/// Why an evaluation or its report failed.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The arena has nothing to run.
    #[error("no {0}; name at least one")]
    EmptyList(&'static str),
    /// A world or its traffic cannot be made.
    #[error(transparent)]
    World(#[from] shardwise_simulator::LoadTestError),
    /// A target policy that cannot say how probable its choices are.
    #[error(
        "policy '{0}' cannot say how probable its choices are in a logged state: its choices hang on what it drew before"
    )]
    NoOdds(String),
    /// Nothing to run on.
    #[error("no seed is given; name at least one, two or more for an interval")]
    NoSeed,
    /// A seed twice would count the same sample path twice.
    #[error("seed {0} is given twice; every seed must be another sample path")]
    RepeatedSeed(u64),
    /// A name twice would hide one of the policies.
    #[error("two contenders are named '{0}'; give each its own name")]
    RepeatedContender(String),
    /// The policy under test is missing.
    #[error("no contender is named '{0}'; the policy under test must run")]
    NoCandidate(String),
    /// Nothing to compare with.
    #[error("'{0}' is the only contender; add at least one rival")]
    NoRival(String),
    /// A run without measured requests has no figures.
    #[error("policy '{policy}', seed {seed}: no request was measured; make the workload longer or its warm-up shorter")]
    NothingMeasured {
        /// The policy that ran.
        policy: String,
        /// Its seed.
        seed: u64,
    },
    /// The simulator refused.
    #[error("policy '{policy}', seed {seed}: {problem}")]
    Simulation {
        /// The policy that ran.
        policy: String,
        /// Its seed.
        seed: u64,
        /// What the simulator says.
        problem: String,
    },
    /// The user stopped it.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// The template failed.
    #[error("the report page cannot be rendered: {0}")]
    Render(#[from] askama::Error),
    /// The figures cannot be written as JSON.
    #[error("the report's figures cannot be written as json: {0}")]
    Encode(#[from] serde_json::Error),
    /// A file cannot be written.
    #[error("{path}: {source}; check that the folder can be written and that the disk has room")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}
