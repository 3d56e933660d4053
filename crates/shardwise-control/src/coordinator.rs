//! The side that decides, as a pure state machine: one change at a time, by all or by none.
//!
//! No clock, no disk, no network: each step returns what is to be done, in this order. A record must be on the disk
//! before what follows it is done; when it cannot be written, the step is to be forgotten as a whole (the machine is
//! `Clone`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shardwise_types::{InvalidInput, ShardId, Timestamp};

use crate::history::{Decided, Inconsistent, Open, summarise};
use crate::settings::{earlier, later};
use crate::{Answer, Ask, Change, Command, Configuration, Member, Pending, Record, Settings, Standing, Truth, What};

mod round;
#[cfg(test)]
mod tests;

use round::{Phase, Round};

/// Members of which it is kept what they said.
const MOST_HEARD: usize = 4096;

/// What a coordinator wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Write it down, durably, before what follows.
    Record(Record),
    /// Send it; it may be lost, and is repeated.
    Send {
        /// To whom.
        to: Member,
        /// What.
        command: Command,
    },
    /// Tell the world; at least once for each committed change.
    Publish(LoadBalancingConfigUpdated),
}

/// The event that follows a commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancingConfigUpdated {
    /// The change, with its version and the instant from which it holds.
    pub change: Change,
    /// When it was decided.
    pub committed_at: Timestamp,
}

/// A change that somebody wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// Who.
    pub author: String,
    /// Why.
    pub why: String,
    /// What.
    pub what: What,
    /// The version that it was made from: it is refused when another one holds by now. None is whichever holds.
    pub from_version: Option<u64>,
}

/// Why a change was not even proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The change itself is wrong.
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
    /// Another one is not decided, or does not hold yet.
    #[error("change {version} {state}; try again after {until}")]
    Busy {
        /// The other one.
        version: u64,
        /// What it waits for.
        state: &'static str,
        /// When that will be over.
        until: Timestamp,
    },
    /// It was made from what holds no longer.
    #[error("version {holds} holds by now, and the change was made from {from}; look again, and make it from that")]
    Moved {
        /// What it was made from.
        from: u64,
        /// What holds.
        holds: u64,
    },
}

/// What a member last said of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heard {
    /// When it asked, by the coordinator's clock.
    pub at: Timestamp,
    /// The version that it served.
    pub serves: u64,
    /// How certain it was.
    pub standing: Standing,
}

/// The one that decides.
#[derive(Debug, Clone)]
pub struct Coordinator {
    settings: Settings,
    highest: u64,
    current: Configuration,
    current_from: Timestamp,
    pending: Option<Pending>,
    round: Option<Round>,
    heard: BTreeMap<Member, Heard>,
}

impl Coordinator {
    /// Takes over from what the history says. What was proposed and not decided is withdrawn by the first tick; what
    /// was decided and not settled is told to the members again.
    ///
    /// # Errors
    /// A history that contradicts itself is refused.
    pub fn new(settings: Settings, history: &[Record]) -> Result<Self, Inconsistent> {
        let summary = summarise(history)?;
        let round = summary.open.map(|open| resume(&settings, open));
        // The first step finds out whether the newest holds already.
        let pending = Some(Pending { effective_at: summary.newest_from, configuration: summary.newest });
        Ok(Self {
            settings,
            highest: summary.highest,
            current: summary.before,
            current_from: summary.newest_from,
            pending,
            round,
            heard: BTreeMap::new(),
        })
    }

    /// What holds at `now`.
    pub fn current(&self, now: Timestamp) -> &Configuration {
        match &self.pending {
            Some(pending) if pending.effective_at <= now => &pending.configuration,
            _ => &self.current,
        }
    }

    /// What is decided and does not hold yet at `now`.
    pub fn pending(&self, now: Timestamp) -> Option<&Pending> {
        self.pending.as_ref().filter(|pending| pending.effective_at > now)
    }

    /// The change that is being told to the members, if there is one.
    pub fn open_version(&self) -> Option<u64> {
        self.round.as_ref().map(|round| round.change.version)
    }

    /// What each member last said of itself; whoever does not ask is not here.
    pub fn heard(&self) -> &BTreeMap<Member, Heard> {
        &self.heard
    }

    /// When [`Self::tick`] has something to do; `None` when nothing is open.
    pub fn next_tick(&self) -> Option<Timestamp> {
        self.round.as_ref().map(|round| round.next_at)
    }

    /// Proposes a change to all members. Its version is the first output's.
    ///
    /// # Errors
    /// Refused are a change without author or reason, one that names shards that are no members, and any while another
    /// one is not decided or does not hold yet.
    pub fn propose(
        &mut self,
        now: Timestamp,
        proposal: Proposal,
        members: &[Member],
    ) -> Result<(u64, Vec<Output>), Refusal> {
        self.settle(now);
        for (field, text) in [("author", &proposal.author), ("why", &proposal.why)] {
            if text.trim().is_empty() {
                return Err(
                    InvalidInput::new(field, "it is empty; the history must say who changed what and why").into()
                );
            }
        }
        if members.is_empty() {
            return Err(InvalidInput::new("members", "there is no shard or router to tell").into());
        }
        // Placements replace all that held, also of shards that need not agree because they are dead; whether there are such
        // shards the routers know, who are asked.
        let speaks_of_all = matches!(proposal.what, What::Placements { .. });
        let is_member = |shard: &ShardId| members.iter().any(|member| member.as_shard() == Some(shard));
        proposal.what.check(|shard| speaks_of_all || is_member(shard))?;
        let mut outputs = self.make_room(now)?;
        let holds = self.current.version;
        if let Some(from) = proposal.from_version.filter(|from| *from != holds) {
            return Err(Refusal::Moved { from, holds });
        }
        let change = Change {
            version: self.highest + 1,
            from_version: self.current.version,
            author: proposal.author,
            why: proposal.why,
            created_at: now,
            effective_at: later(now, self.settings.lead_ms),
            what: proposal.what,
        };
        let decide_by = earlier(change.effective_at, self.settings.margin_ms);
        self.highest = change.version;
        let round = Round::new(change.clone(), members.to_vec(), decide_by, Phase::Preparing { since: now });
        outputs.push(Output::Record(Record::Proposed { change, members: round.members().cloned().collect() }));
        self.round = Some(round);
        outputs.extend(self.tick(now));
        Ok((self.highest, outputs))
    }

    /// Closes what is only being told to stragglers; they learn it when they ask.
    fn make_room(&mut self, now: Timestamp) -> Result<Vec<Output>, Refusal> {
        let busy = |version, state, until| Refusal::Busy { version, state, until };
        if let Some(round) = &self.round
            && !round.phase.is_decided()
        {
            return Err(busy(round.change.version, "is not decided", round.decide_by));
        }
        if let Some(pending) = &self.pending {
            let (version, until) = (pending.configuration.version, pending.effective_at);
            return Err(busy(version, "is committed and does not hold yet", until));
        }
        // A member whose clock is behind still serves the version before, and would have to refuse.
        let until = later(self.current_from, 2 * self.settings.clock_error_ms);
        if now < until {
            return Err(busy(self.current.version, "has just taken effect", until));
        }
        Ok(self.round.take().map(|round| round.settled(now)).into_iter().collect())
    }

    /// Takes an answer. Answers may come late, twice, in any order, and from whom nobody asked.
    pub fn answer(&mut self, now: Timestamp, answer: &Answer) -> Vec<Output> {
        self.settle(now);
        let Some(round) = &mut self.round else { return Vec::new() };
        round.take(now, answer, self.settings.clock_error_ms);
        self.advance(now)
    }

    /// Decides what is due, and repeats what was not acknowledged.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Output> {
        self.settle(now);
        let mut outputs = self.advance(now);
        if let Some(round) = &mut self.round {
            outputs.extend(round.repeat(now, self.settings.repeat_every_ms));
        }
        outputs
    }

    fn advance(&mut self, now: Timestamp) -> Vec<Output> {
        let Some(round) = &mut self.round else { return Vec::new() };
        let mut outputs = Vec::new();
        let was_decided = round.phase.is_decided();
        outputs.extend(round.decide(now));
        if let Phase::Committed { published } = &mut round.phase {
            if !was_decided {
                let configuration = self.current.after(&round.change);
                self.pending = Some(Pending { effective_at: round.change.effective_at, configuration });
            }
            if !std::mem::replace(published, true) {
                let change = round.change.clone();
                outputs.push(Output::Publish(LoadBalancingConfigUpdated { change, committed_at: now }));
            }
        }
        if !was_decided && round.phase.is_decided() {
            outputs.extend(round.repeat(now, self.settings.repeat_every_ms));
        }
        let until = later(round.change.effective_at, self.settings.lead_ms);
        if round.phase.is_decided() && (round.all_acknowledged() || until < now) {
            outputs.extend(self.round.take().map(|round| round.settled(now)));
        }
        outputs
    }

    /// Answers the question of an agent.
    pub fn ask(&mut self, now: Timestamp, ask: &Ask) -> Truth {
        self.settle(now);
        // Whoever can reach it can ask under any name.
        if self.heard.len() < MOST_HEARD || self.heard.contains_key(&ask.member) {
            self.heard.insert(ask.member.clone(), Heard { at: now, serves: ask.serves, standing: ask.standing });
        }
        Truth {
            asked_at: ask.asked_at,
            asked_serving: ask.serves,
            highest: self.highest,
            current: self.current.clone(),
            pending: self.pending.clone(),
            undecided: self.round.as_ref().filter(|round| !round.phase.is_decided()).map(|round| round.change.version),
        }
    }

    /// Makes a committed change whose instant has come the current one.
    fn settle(&mut self, now: Timestamp) {
        if let Some(pending) = self.pending.take_if(|pending| pending.effective_at <= now) {
            self.current = pending.configuration;
            self.current_from = pending.effective_at;
        }
    }
}

/// A change that another coordinator has begun.
fn resume(settings: &Settings, open: Open) -> Round {
    let phase = match open.decided {
        None => Phase::Abandoned,
        Some(Decided::Committed) => Phase::Committed { published: false },
        Some(Decided::Withdrawn) => Phase::Withdrawn { why: "it was withdrawn".to_owned() },
    };
    let decide_by = earlier(open.change.effective_at, settings.margin_ms);
    Round::new(open.change, open.members, decide_by, phase)
}
