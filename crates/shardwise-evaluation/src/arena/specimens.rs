//! Policies with a bug each, so that anyone can see that the arena finds them. They are in no `all`.

use std::time::Duration;

use rand::Rng;
use shardwise_features::DecisionContext;
use shardwise_policies::{Decision, LeastInFlight, Policy, Rules, is_eligible};
use shardwise_types::NoEligibleShard;

/// Names of the policies with a bug.
pub const SPECIMENS: [&str; 5] =
    ["faulty_same_shard", "faulty_nan_scores", "faulty_ineligible_shard", "faulty_slow", "faulty_panic"];

/// Makes one; `None` for other names.
pub fn specimen(name: &str) -> Option<Box<dyn Policy>> {
    let name = SPECIMENS.into_iter().find(|specimen| *specimen == name)?;
    Some(Box::new(Specimen { name, decisions: 0, inner: LeastInFlight::default() }))
}

/// How long a slow decision takes.
const SLOW: Duration = Duration::from_micros(400);
/// Decisions after which one panics.
const PATIENCE: u32 = 1_000;

struct Specimen {
    name: &'static str,
    decisions: u32,
    /// What it does when its bug does not show.
    inner: LeastInFlight,
}

impl Policy for Specimen {
    fn name(&self) -> &str {
        self.name
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        self.decisions += 1;
        let decision = self.inner.decide(context, rng)?;
        let all = 0..context.fleet.shards.len();
        Ok(match self.name {
            "faulty_same_shard" => {
                let first = all.into_iter().find(|position| is_eligible(context, &Rules::default(), *position));
                Decision { chosen: first.unwrap_or(decision.chosen), propensity: 1.0, ..decision }
            }
            "faulty_nan_scores" => Decision { predicted_ms: Some(f64::NAN), ..decision },
            "faulty_ineligible_shard" => {
                let forbidden = all.into_iter().find(|position| !is_eligible(context, &Rules::default(), *position));
                Decision { chosen: forbidden.unwrap_or(decision.chosen), ..decision }
            }
            "faulty_slow" => {
                std::thread::sleep(SLOW);
                decision
            }
            _ if self.decisions > PATIENCE => panic!("decision {} is one too many", self.decisions),
            _ => decision,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::time::Instant;

    use shardwise_policies::by_name;
    use shardwise_simulator::{Bug, Player, WorldSpec};

    use super::*;
    use crate::arena::{ArenaPlan, ArenaResult, Roster, run_arena};

    struct WithSpecimens;

    impl Roster for WithSpecimens {
        fn player(&self, policy: &str, _: u64, world: &WorldSpec, _: bool) -> Result<Option<Player>, String> {
            let known = || by_name(policy, world.timing.runtime());
            Ok(Some(specimen(policy).or_else(known).ok_or("unknown")?.into()))
        }
    }

    #[expect(clippy::disallowed_methods, reason = "decisions are timed by a real clock")]
    fn clock_ns() -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }

    fn arena(policies: &[&str]) -> ArenaResult {
        let plan = ArenaPlan {
            policies: policies.iter().map(|name| (*name).to_owned()).collect(),
            requests: 8_000,
            ..ArenaPlan::default()
        };
        run_arena(&plan, &WithSpecimens, clock_ns, &[], &|_| (), &false.into()).unwrap()
    }

    #[test]
    fn every_bug_is_named_and_kept_out_of_the_averages() {
        let mut policies = SPECIMENS.to_vec();
        policies.extend(["least_in_flight", "random"]);
        let result = arena(&policies);
        for (specimen, bug) in SPECIMENS.into_iter().zip([
            Bug::OneShardOnly,
            Bug::BadPrediction,
            Bug::IneligibleShard,
            Bug::SlowDecisions,
            Bug::Panic,
        ]) {
            let found: Vec<Bug> = result
                .problems
                .iter()
                .filter(|problem| problem.policy == specimen)
                .map(|problem| problem.bug)
                .collect();
            assert_eq!(found, [bug], "{specimen}");
            assert!(result.paired.iter().all(|pair| pair.policy != specimen && pair.versus != specimen));
        }
        assert!(!result.is_faulty("least_in_flight") && !result.is_faulty("random"), "{:?}", result.problems);
        assert!(result.paired.iter().any(|pair| pair.policy == "least_in_flight" && pair.ratio < 1.0));
    }

    #[test]
    fn a_cell_alone_is_the_same_cell() {
        let alone = arena(&["least_in_flight"]);
        let among = arena(&["random", "least_in_flight"]);
        assert_eq!(alone.cells[0].log_hash, among.cells[1].log_hash);
        assert_eq!(alone.cells[0].metrics.mean_ms.to_bits(), among.cells[1].metrics.mean_ms.to_bits());
    }
}
