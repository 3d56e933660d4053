//! The side of a shard or router as a pure state machine: what it keeps, promises, serves, and how certain it is.
//!
//! No clock and no disk: time is an argument, and whoever drives it writes [`Agent::state`] down before an answer
//! leaves.

use serde::{Deserialize, Serialize};
use shardwise_types::{ShardId, Timestamp};

use crate::settings::{earlier, later};
use crate::{Answer, Ask, Change, Command, Configuration, Member, Prepare, Settings, ShardUsage, Truth, Verdict, What};

#[cfg(test)]
mod tests;

/// What an agent must not forget.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentState {
    /// What it served last.
    pub applied: Configuration,
    /// The change that it keeps ready.
    pub prepared: Option<Prepared>,
    /// The highest version that it has heard of; lower ones come too late.
    pub highest: u64,
}

/// A change that is kept ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prepared {
    /// From when on it holds, if it does.
    pub effective_at: Timestamp,
    /// The configuration with the change.
    pub next: Configuration,
    /// Whether the coordinator has said that it holds.
    pub committed: bool,
}

/// How certain an agent is that it serves what holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Standing {
    /// What it serves is what holds.
    Certain,
    /// It has promised a change, the instant has passed, and it was not told whether the change holds. It serves the
    /// version before.
    InDoubt {
        /// Which change.
        version: u64,
        /// The instant.
        since: Timestamp,
    },
    /// The coordinator has not confirmed its version for longer than the lease: there may be another. It serves what it
    /// has.
    Unconfirmed {
        /// When it was confirmed last; `None` is never since the start.
        last: Option<Timestamp>,
    },
    /// The coordinator has never proposed the version that is served here: its history was lost, or it is another's.
    Contradicted {
        /// The highest version that the coordinator knows.
        coordinator: u64,
    },
}

impl Standing {
    /// Whether it is [`Self::Certain`].
    pub fn is_certain(&self) -> bool {
        matches!(self, Self::Certain)
    }
}

/// What an agent must know of the machine and the fleet around it.
pub trait Surroundings {
    /// What this shard uses now; `None` when it cannot be told. Only asked when limits of this very shard are to
    /// change.
    fn usage(&self) -> Option<ShardUsage>;

    /// Whether the fleet has this shard.
    fn knows(&self, shard: &ShardId) -> bool;
}

/// The agent of one shard or router.
#[derive(Debug, Clone)]
pub struct Agent {
    member: Member,
    settings: Settings,
    state: AgentState,
    /// When the question was asked whose answer was taken last; a restart forgets it.
    confirmed_at: Option<Timestamp>,
    asked_at: Option<Timestamp>,
    /// What the coordinator knew when it contradicted.
    contradicted: Option<u64>,
}

impl Agent {
    /// With what it kept before, or the default for a new one. It is not certain until the coordinator has answered.
    pub fn new(member: Member, settings: Settings, state: AgentState) -> Self {
        Self { member, settings, state, confirmed_at: None, asked_at: None, contradicted: None }
    }

    /// Who it is.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// What it must not forget.
    pub fn state(&self) -> &AgentState {
        &self.state
    }

    /// What is served at `now`. A change that is committed holds from its instant on, whether or not anybody ticks.
    pub fn serving(&self, now: Timestamp) -> &Configuration {
        match &self.state.prepared {
            Some(prepared) if prepared.committed && prepared.effective_at <= now => &prepared.next,
            _ => &self.state.applied,
        }
    }

    /// How certain it is, at `now`, of what it serves.
    pub fn standing(&self, now: Timestamp) -> Standing {
        if let Some(prepared) = &self.state.prepared
            && !prepared.committed
            && prepared.effective_at <= now
        {
            return Standing::InDoubt { version: prepared.next.version, since: prepared.effective_at };
        }
        if let Some(coordinator) = self.contradicted {
            return Standing::Contradicted { coordinator };
        }
        // A confirmation from the future is one from before the clock was set back.
        let oldest = earlier(now, self.settings.lease_ms);
        match self.confirmed_at {
            Some(at) if (oldest..=now).contains(&at) => Standing::Certain,
            last => Standing::Unconfirmed { last },
        }
    }

    /// Makes a committed change whose instant has come the applied one.
    pub fn settle(&mut self, now: Timestamp) {
        if let Some(prepared) = self.state.prepared.take_if(|it| it.committed && it.effective_at <= now) {
            self.state.applied = prepared.next;
        }
    }

    /// Takes a command and answers. The same command again gets the same answer.
    pub fn handle(&mut self, now: Timestamp, command: &Command, surroundings: &dyn Surroundings) -> Answer {
        self.settle(now);
        let verdict = match command {
            Command::UpdateTrafficSplit(prepare)
            | Command::UpdateResourceLimits(prepare)
            | Command::UpdatePlacements(prepare)
            | Command::RestoreConfiguration(prepare) => self.prepare(now, prepare, surroundings),
            Command::Commit { version } => self.commit(now, *version),
            Command::Withdraw { version, .. } => self.withdraw(*version),
        };
        let verdict = verdict.unwrap_or_else(|why| Verdict::Refused { why });
        Answer { member: self.member.clone(), version: command.version(), at: now, verdict }
    }

    fn prepare(&mut self, now: Timestamp, prepare: &Prepare, around: &dyn Surroundings) -> Result<Verdict, String> {
        let Prepare { change, decide_by } = prepare;
        let version = change.version;
        if let Some(prepared) = self.state.prepared.as_ref().filter(|prepared| prepared.next.version == version) {
            let next = self.state.applied.after(change);
            return match prepared.effective_at == change.effective_at && prepared.next == next {
                true => Ok(Verdict::Prepared),
                false => Err(format!("another change is kept as version {version}; a fleet has one coordinator")),
            };
        }
        if version <= self.state.highest {
            return Err(format!("version {version} comes too late: {} was heard of before", self.state.highest));
        }
        if *decide_by < now {
            return Err(format!("it is {now}, the acknowledgement was due by {decide_by}; propose it again"));
        }
        if change.from_version != self.state.applied.version {
            self.ask_soon();
            let (theirs, ours) = (change.from_version, self.state.applied.version);
            return Err(format!(
                "it changes version {theirs}, but {ours} is served here; the coordinator is being asked"
            ));
        }
        if self.state.prepared.as_ref().is_some_and(|prepared| prepared.committed) {
            return Err("a committed change has not taken effect yet; propose it again after that".to_owned());
        }
        self.check(change, around)?;
        // One that is kept uncommitted is replaced: had it been committed, this one would have been made on it.
        self.state.highest = version;
        let next = self.state.applied.after(change);
        self.state.prepared = Some(Prepared { effective_at: change.effective_at, next, committed: false });
        Ok(Verdict::Prepared)
    }

    fn check(&self, change: &Change, around: &dyn Surroundings) -> Result<(), String> {
        // What holds is carried on by changes of other things, also of shards that have gone since.
        let is_carried_on = |shard: &ShardId| {
            matches!(change.what, What::Placements { .. }) && self.state.applied.placements.names(shard)
        };
        change.what.check(|shard| around.knows(shard) || is_carried_on(shard)).map_err(|wrong| wrong.to_string())?;
        let Some(own) = self.member.as_shard() else { return Ok(()) };
        let wanted = match &change.what {
            What::Limits { shard, limits } if shard == own => Some(limits),
            What::Rollback { configuration } => configuration.limits.get(own),
            _ => None,
        };
        let Some(limits) = wanted.filter(|limits| self.state.applied.limits.get(own) != Some(limits)) else {
            return Ok(());
        };
        let usage = around.usage().ok_or("what this shard uses cannot be told, so that limits cannot be checked")?;
        limits.admit(&usage).map_err(|wrong| wrong.problem)
    }

    fn commit(&mut self, now: Timestamp, version: u64) -> Result<Verdict, String> {
        if let Some(prepared) = self.state.prepared.as_mut().filter(|prepared| prepared.next.version == version) {
            prepared.committed = true;
            self.settle(now);
            return Ok(Verdict::Committed);
        }
        if self.state.applied.version == version {
            return Ok(Verdict::Committed);
        }
        self.ask_soon();
        Err(format!("version {version} was not prepared here; the coordinator is being asked"))
    }

    fn withdraw(&mut self, version: u64) -> Result<Verdict, String> {
        let committed = self.state.prepared.as_ref().is_some_and(|it| it.committed && it.next.version == version);
        if committed || self.state.applied.version == version {
            self.ask_soon();
            return Err(format!("version {version} is committed here; the coordinator is being asked"));
        }
        self.state.prepared.take_if(|prepared| prepared.next.version == version);
        // The command to prepare it may still be under way.
        self.state.highest = self.state.highest.max(version);
        Ok(Verdict::Withdrawn)
    }

    /// What to ask the coordinator now, if it is time.
    pub fn question(&mut self, now: Timestamp) -> Option<Ask> {
        let next = self.asked_at.map(|at| later(at, self.settings.ask_every_ms));
        // A clock that was set back must not silence it.
        let is_time = next.is_none_or(|next| next <= now || self.asked_at > Some(now));
        is_time.then(|| {
            self.asked_at = Some(now);
            let standing = self.standing(now);
            Ask { member: self.member.clone(), asked_at: now, serves: self.serving(now).version, standing }
        })
    }

    fn ask_soon(&mut self) {
        self.asked_at = None;
    }

    /// Takes what the coordinator answered to [`Self::question`]. Answers may come late, twice and in any order.
    pub fn learn(&mut self, now: Timestamp, truth: &Truth) {
        self.settle(now);
        // Before it was set back, the clock gave times that are still to come.
        self.confirmed_at.take_if(|at| *at > now);
        if truth.highest < truth.asked_serving {
            self.contradicted = Some(truth.highest);
            return;
        }
        if self.state.applied.version < truth.current.version {
            self.state.applied = truth.current.clone();
        }
        self.follow(truth);
        self.settle(now);
        // The command to prepare the one that is open may still be under way.
        let decided = truth.highest.saturating_sub(u64::from(truth.undecided.is_some()));
        self.state.highest = self.state.highest.max(decided);
        if self.confirmed_at <= Some(truth.asked_at) && truth.asked_at <= now {
            self.confirmed_at = Some(truth.asked_at);
            self.contradicted = None;
        }
    }

    /// Keeps, drops or replaces the change that is kept ready.
    fn follow(&mut self, truth: &Truth) {
        let applied = self.state.applied.version;
        let is_open = |version: u64| version > truth.highest || truth.undecided == Some(version);
        let of_pending = truth.pending.as_ref().map(|pending| pending.configuration.version);
        self.state.prepared.take_if(|prepared| {
            let version = prepared.next.version;
            // What is older than what is applied was decided long ago. What is committed stays committed.
            version <= applied || !(prepared.committed || is_open(version) || of_pending == Some(version))
        });
        let Some(pending) = truth.pending.as_ref().filter(|pending| pending.configuration.version > applied) else {
            return;
        };
        let is_newer = |prepared: &Prepared| prepared.next.version > pending.configuration.version;
        if !self.state.prepared.as_ref().is_some_and(is_newer) {
            let (effective_at, next) = (pending.effective_at, pending.configuration.clone());
            self.state.prepared = Some(Prepared { effective_at, next, committed: true });
        }
    }
}
