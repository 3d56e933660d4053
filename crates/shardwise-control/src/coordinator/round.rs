//! One change on its way through the fleet.

use std::collections::BTreeMap;

use shardwise_types::Timestamp;

use super::Output;
use crate::settings::{earlier, later};
use crate::{Acknowledgement, Answer, Change, Command, Member, Record, Verdict};

/// A change, who must agree, and what they have said.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) change: Change,
    /// The latest instant of a commit.
    pub(super) decide_by: Timestamp,
    pub(super) phase: Phase,
    /// When something is to be repeated or decided.
    pub(super) next_at: Timestamp,
    progress: BTreeMap<Member, Progress>,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Promises are being collected.
    Preparing { since: Timestamp },
    /// The coordinator that collected them is gone.
    Abandoned,
    /// It holds from its instant on.
    Committed { published: bool },
    /// It never holds.
    Withdrawn { why: String },
}

/// What one member has said.
#[derive(Debug, Clone, Default)]
struct Progress {
    prepared_at: Option<Timestamp>,
    refused: Option<String>,
    /// Why an answer did not count.
    odd: Option<String>,
    /// Whether it knows the decision.
    acknowledged: bool,
}

impl Phase {
    pub(super) fn is_decided(&self) -> bool {
        matches!(self, Self::Committed { .. } | Self::Withdrawn { .. })
    }
}

impl Round {
    pub(super) fn new(change: Change, members: Vec<Member>, decide_by: Timestamp, phase: Phase) -> Self {
        let progress = members.into_iter().map(|member| (member, Progress::default())).collect();
        Self { next_at: change.created_at, change, decide_by, phase, progress }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.progress.keys()
    }

    pub(super) fn all_acknowledged(&self) -> bool {
        self.progress.values().all(|progress| progress.acknowledged)
    }

    /// Notes an answer; one that is about another change, or by a clock that is too far off, does not count.
    pub(super) fn take(&mut self, now: Timestamp, answer: &Answer, clock_error_ms: u64) {
        let Some(progress) = self.progress.get_mut(&answer.member) else { return };
        if answer.version != self.change.version {
            progress.odd = Some(format!("answered for version {}", answer.version));
            return;
        }
        match (&self.phase, &answer.verdict) {
            (Phase::Preparing { since }, Verdict::Prepared) => {
                // Two clocks, each off by so much at most; the answer was given between the first question and now.
                let (from, to) = (earlier(*since, 2 * clock_error_ms), later(now, 2 * clock_error_ms));
                if (from..=to).contains(&answer.at) {
                    progress.prepared_at.get_or_insert(answer.at);
                } else {
                    progress.refused = Some(format!("its clock says {}, the coordinator's {now}; set it", answer.at));
                }
            }
            (Phase::Preparing { .. }, Verdict::Refused { why }) => progress.refused = Some(why.clone()),
            (Phase::Committed { .. }, Verdict::Committed) | (Phase::Withdrawn { .. }, Verdict::Withdrawn) => {
                progress.acknowledged = true;
            }
            _ => {}
        }
    }

    /// Decides, if it can or must be decided now.
    pub(super) fn decide(&mut self, now: Timestamp) -> Option<Output> {
        let reasons = match self.phase {
            Phase::Abandoned => vec!["the coordinator was restarted before all had acknowledged".to_owned()],
            Phase::Preparing { .. } => self.reasons(now)?,
            Phase::Committed { .. } | Phase::Withdrawn { .. } => return None,
        };
        let (version, acknowledgements) = (self.change.version, self.acknowledgements());
        // What is repeated next is the decision.
        self.next_at = now;
        if reasons.is_empty() {
            self.phase = Phase::Committed { published: false };
            return Some(Output::Record(Record::Committed { version, at: now, acknowledgements }));
        }
        self.phase = Phase::Withdrawn { why: reasons.join("; ") };
        Some(Output::Record(Record::Withdrawn { version, at: now, reasons, acknowledgements }))
    }

    /// Why not; empty when all have promised in time, `None` while that is open.
    fn reasons(&self, now: Timestamp) -> Option<Vec<String>> {
        let is_late = now > self.decide_by;
        let has_refusal = self.progress.values().any(|progress| progress.refused.is_some());
        let all_prepared = self.progress.values().all(|progress| progress.prepared_at.is_some());
        if !(is_late || has_refusal || all_prepared) {
            return None;
        }
        let due_ms = self.decide_by.millis_since(self.change.created_at);
        let mut reasons: Vec<String> = Vec::new();
        for (member, progress) in &self.progress {
            match (&progress.refused, &progress.odd, progress.prepared_at) {
                (Some(why), ..) => reasons.push(format!("{member} said no: {why}")),
                (None, Some(odd), None) if is_late => reasons.push(format!("{member} {odd}")),
                (None, None, None) if is_late => {
                    reasons.push(format!("{member} did not acknowledge within {due_ms} ms"));
                }
                _ => {}
            }
        }
        if reasons.is_empty() && is_late {
            reasons.push("the coordinator was too late to decide".to_owned());
        }
        Some(reasons)
    }

    fn acknowledgements(&self) -> Vec<Acknowledgement> {
        let of = |(member, progress): (&Member, &Progress)| Acknowledgement {
            member: member.clone(),
            prepared_at: progress.prepared_at,
            refused: progress
                .refused
                .clone()
                .or_else(|| progress.odd.clone().filter(|_| progress.prepared_at.is_none())),
        };
        self.progress.iter().map(of).collect()
    }

    /// What is to be sent again, if it is time.
    pub(super) fn repeat(&mut self, now: Timestamp, every_ms: u64) -> Vec<Output> {
        if now < self.next_at {
            return Vec::new();
        }
        self.next_at = later(now, every_ms);
        let version = self.change.version;
        let (command, waits): (Command, fn(&Progress) -> bool) = match &self.phase {
            Phase::Preparing { .. } => {
                (Command::prepare(self.change.clone(), self.decide_by), |progress| progress.prepared_at.is_none())
            }
            Phase::Abandoned => return Vec::new(),
            Phase::Committed { .. } => (Command::Commit { version }, |progress| !progress.acknowledged),
            Phase::Withdrawn { why } => {
                (Command::Withdraw { version, why: why.clone() }, |progress| !progress.acknowledged)
            }
        };
        let waiting = self.progress.iter().filter(|(_, progress)| waits(progress));
        waiting.map(|(to, _)| Output::Send { to: to.clone(), command: command.clone() }).collect()
    }

    /// The record that ends it.
    pub(super) fn settled(self, now: Timestamp) -> Output {
        let late = self.progress.into_iter().filter(|(_, progress)| !progress.acknowledged);
        let unacknowledged = late.map(|(member, _)| member).collect();
        Output::Record(Record::Settled { version: self.change.version, at: now, unacknowledged })
    }
}
