//! Hard rules as filters: what a request may use at all. No score, no model and no fallback gets past them.

use serde::{Deserialize, Serialize};
use shardwise_features::DecisionContext;
use shardwise_types::{NoEligibleShard, ShardSnapshot, Timestamp, Widening};

use crate::ranking::Rung;

/// Reports in a row that a shard may miss before it is taken to be silent.
const MISSED_REPORTS: f64 = 3.0;

/// Limits of the hard rules.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// A shard whose last report is older than this, and than three times the usual time between its reports, is passed
    /// over while others are fresh, in ms.
    pub max_report_age_ms: f64,
}

impl Default for Rules {
    /// Three seconds: three reports missed at the usual interval of one second.
    fn default() -> Self {
        Self { max_report_age_ms: 3_000.0 }
    }
}

/// The rules for one request: what is the same for all shards is worked out once.
struct Judge<'a> {
    context: &'a DecisionContext<'a>,
    /// Reports from before this instant are old.
    oldest_report_ns: i64,
    /// Whether any shard may be ejected or half-open.
    has_ejected: bool,
    /// Whether any function should stay away from any shard.
    avoids_any: bool,
}

/// Why a shard is out of the question.
#[derive(Clone, Copy)]
enum Refused {
    Unhealthy,
    Forbidden,
    TooSmall,
}

/// Puts the positions of the shards that the request may go to into `out`, in the order of the fleet.
///
/// Silence, the breaker and [placements](shardwise_types::Placements) are doubts, not rules: when they would leave nothing,
/// doubtful shards are let in. Health by the shard's own word, amount, residency and memory hold always.
///
/// # Errors
/// When nothing is left; the refusal counts the reasons.
pub fn eligible(context: &DecisionContext<'_>, rules: &Rules, out: &mut Vec<usize>) -> Result<(), NoEligibleShard> {
    admit(context, rules, anywhere, out).map(|_| ())
}

/// Whether [`eligible`] lets in the shard at a position: what is asked of a choice after it was made.
pub fn is_eligible(context: &DecisionContext<'_>, rules: &Rules, position: usize) -> bool {
    is_admitted(context, rules, anywhere, position)
}

/// No constraint beyond the hard rules.
fn anywhere(_: &ShardSnapshot) -> Option<Rung> {
    Some(Rung::FIRST)
}

/// As [`eligible`], with constraints: only the shards on the first rung that has any are let in. `rung` says on which
/// one a shard is; `None` when a hard rule forbids it.
pub(crate) fn admit(
    context: &DecisionContext<'_>,
    rules: &Rules,
    rung: impl Fn(&ShardSnapshot) -> Option<Rung>,
    out: &mut Vec<usize>,
) -> Result<Widening, NoEligibleShard> {
    out.clear();
    let judge = Judge::new(context, rules);
    let mut refusal =
        NoEligibleShard { shards: 0, unhealthy: 0, stale: 0, forbidden: 0, too_small: 0, may_run_locally: false };
    let mut reached = Rung::LAST;
    for (position, shard) in context.fleet.shards.iter().enumerate() {
        refusal.shards += 1;
        match judge.rung(shard, &rung) {
            Ok(rung) if rung == reached => out.push(position),
            Ok(rung) if rung < reached => {
                reached = rung;
                out.clear();
                out.push(position);
            }
            Ok(_) => {}
            Err(why) => *why.counter(&mut refusal) += 1,
        }
    }
    if out.is_empty() { Err(refusal) } else { Ok(reached.widening()) }
}

/// Whether [`admit`] lets in the shard at a position.
pub(crate) fn is_admitted(
    context: &DecisionContext<'_>,
    rules: &Rules,
    rung: impl Fn(&ShardSnapshot) -> Option<Rung>,
    position: usize,
) -> bool {
    let (judge, shards) = (Judge::new(context, rules), &context.fleet.shards);
    let rung = |shard: &ShardSnapshot| judge.rung(shard, &rung).ok();
    rung(&shards[position]).is_some_and(|mine| shards.iter().filter_map(rung).all(|other| mine <= other))
}

impl Refused {
    fn counter(self, refusal: &mut NoEligibleShard) -> &mut u32 {
        match self {
            Self::Unhealthy => &mut refusal.unhealthy,
            Self::Forbidden => &mut refusal.forbidden,
            Self::TooSmall => &mut refusal.too_small,
        }
    }
}

impl<'a> Judge<'a> {
    fn new(context: &'a DecisionContext<'a>, rules: &Rules) -> Self {
        let max_age_ns = (rules.max_report_age_ms * 1e6) as i64;
        Self {
            context,
            oldest_report_ns: context.decided_at.nanos().saturating_sub(max_age_ns),
            has_ejected: context.router.has_ejected(context.decided_at),
            avoids_any: context.fleet.placements.avoids_any(),
        }
    }

    /// Where on the ladder a shard is let in: those in doubt after all others, however many constraints they meet.
    #[inline]
    fn rung(&self, shard: &ShardSnapshot, rung: impl Fn(&ShardSnapshot) -> Option<Rung>) -> Result<Rung, Refused> {
        let is_doubtful = self.doubts(shard)?;
        let rung = rung(shard).ok_or(Refused::Forbidden)?;
        Ok(if is_doubtful { rung.in_doubt() } else { rung })
    }

    /// Whether a shard that no hard rule forbids is in doubt: its report is old, the breaker has ejected it, or the function
    /// was moved away from it.
    #[inline]
    fn doubts(&self, shard: &ShardSnapshot) -> Result<bool, Refused> {
        let (request, shape) = (self.context.request, &shard.shape);
        if request.residency.as_ref().is_some_and(|region| *region != shape.region) {
            return Err(Refused::Forbidden);
        }
        if let (Some(amount), Some(limit_usd)) = (request.amount_usd, shape.max_amount_usd)
            && amount.usd() > limit_usd
        {
            return Err(Refused::Forbidden);
        }
        if request.memory_mb > shape.memory_mb {
            return Err(Refused::TooSmall);
        }
        let report = shard.report.as_ref().filter(|report| report.healthy).ok_or(Refused::Unhealthy)?;
        let is_old = report.event_at.nanos() < self.oldest_report_ns && self.is_overdue(shard, report.event_at);
        Ok(is_old || self.is_ejected(shard) || self.is_avoided(shard))
    }

    /// Whether more reports are missing than a shard that reports as seldom as this one may miss.
    fn is_overdue(&self, shard: &ShardSnapshot, reported_at: Timestamp) -> bool {
        let usual_ms = self.context.router.report_gap_ms(&shard.id);
        self.context.decided_at.millis_since(reported_at) > MISSED_REPORTS * usual_ms
    }

    fn is_avoided(&self, shard: &ShardSnapshot) -> bool {
        self.avoids_any && self.context.fleet.placements.avoids(&self.context.request.function, &shard.id)
    }

    fn is_ejected(&self, shard: &ShardSnapshot) -> bool {
        self.has_ejected && !self.context.router.breaker_admits(&shard.id, self.context.decided_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardwise_features::golden::{GoldenContext, contexts};
    use shardwise_types::{ErrorClass, Placements, Residence, Response, UsdAmount};
    use std::collections::BTreeSet;
    use std::sync::Arc;

    fn informed() -> GoldenContext {
        contexts().remove(1)
    }

    fn positions(golden: &GoldenContext) -> Result<Vec<usize>, NoEligibleShard> {
        let mut out = Vec::new();
        eligible(&golden.context(), &Rules::default(), &mut out).map(|()| out)
    }

    #[test]
    fn large_amounts_only_reach_shards_that_may_take_them() {
        let mut golden = informed();
        assert_eq!(positions(&golden).unwrap(), [0, 1, 2]);
        golden.request.amount_usd = UsdAmount::new(2e6).ok();
        assert_eq!(positions(&golden).unwrap(), [0]);
    }

    #[test]
    fn residency_and_memory_hold() {
        let mut golden = informed();
        golden.request.residency = Some("us-west".into());
        assert_eq!(positions(&golden).unwrap(), [1]);
        golden.request.memory_mb = 1e6;
        assert_eq!(positions(&golden).unwrap_err().too_small, 1);
    }

    #[test]
    fn silence_is_a_doubt_until_nothing_else_is_left() {
        let mut golden = informed();
        golden.fleet.shards[0].report.as_mut().unwrap().event_at = golden.decided_at.plus_millis(-60_000.0);
        assert_eq!(positions(&golden).unwrap(), [1, 2]);
        golden.decided_at = golden.decided_at.plus_millis(60_000.0);
        assert_eq!(positions(&golden).unwrap(), [0, 1, 2]);
    }

    #[test]
    fn a_function_that_was_moved_away_comes_back_only_when_nothing_else_is_left() {
        let mut golden = informed();
        let away = |shards: &[usize]| {
            let pair =
                |shard: &usize| Residence::new(golden.request.function.clone(), golden.fleet.shards[*shard].id.clone());
            Placements::new(shards.iter().map(pair).collect(), BTreeSet::new(), BTreeSet::new())
        };
        let (from_two, from_all) = (away(&[0, 2]), away(&[0, 1, 2]));
        golden.fleet.placements = Arc::new(from_two);
        assert_eq!(positions(&golden).unwrap(), [1]);
        assert!(!is_eligible(&golden.context(), &Rules::default(), 0));
        golden.fleet.placements = Arc::new(from_all);
        assert_eq!(positions(&golden).unwrap(), [0, 1, 2]);
    }

    /// Sends a request to the second shard and answers it at the same instant.
    fn play(golden: &GoldenContext, error: Option<ErrorClass>) {
        let response = Response { error, total_ms: 1.0, exec_ms: 0.0, queue_ms: 0.0, queue_len: 0, cold: false };
        let ticket = golden.router.on_dispatch(&golden.context(), 1);
        golden.router.on_response(&ticket, &response, golden.decided_at);
    }

    #[test]
    fn an_ejected_shard_is_passed_over_and_then_tried_with_one_request_at_a_time() {
        let mut golden = informed();
        (0..5).for_each(|_| play(&golden, Some(ErrorClass::Failed)));
        assert_eq!(positions(&golden).unwrap(), [0, 2]);
        golden.decided_at = golden.decided_at.plus_millis(1_000.0);
        golden.fleet.shards.iter_mut().for_each(|shard| shard.report.as_mut().unwrap().event_at = golden.decided_at);
        assert_eq!(positions(&golden).unwrap(), [0, 1, 2]);
        golden.router.on_dispatch(&golden.context(), 1);
        assert_eq!(positions(&golden).unwrap(), [0, 2], "its trial is out");
        assert!(!is_eligible(&golden.context(), &Rules::default(), 1));
    }

    #[test]
    fn a_fleet_without_a_healthy_shard_is_refused_with_the_reasons() {
        let golden = contexts().remove(0);
        let refusal = positions(&golden).unwrap_err();
        assert_eq!((refusal.shards, refusal.unhealthy), (3, 3));
        assert!(refusal.to_string().contains("3 unhealthy"), "{refusal}");
    }
}
