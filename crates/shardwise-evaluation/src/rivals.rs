//! What others would have chosen in the state in which somebody chose.

use std::sync::Arc;

use shardwise_features::{DecisionContext, ServiceTable};
use shardwise_policies::{Policy, Runtime, Sed, by_name};

/// Policies that decide by nothing but what the router knows at that instant, ties aside.
const RIVALS: [&str; 5] = ["sed_tab", "sed_tab_lambda", "least_in_flight", "least_reported", "bounded_hash"];

/// What another policy would have chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct RivalChoice {
    /// The policy.
    pub policy: String,
    /// Position of its shard in the context's fleet; `None` when it finds none.
    pub chosen: Option<usize>,
    /// Probability of that choice, below 1 where shards tie.
    pub propensity: Option<f64>,
    /// Latency that it expects there, in ms.
    pub expected_ms: Option<f64>,
}

/// What others than the policy of this name choose where the shard at the position `chosen` was chosen; a tie is broken in its
/// favour. With the service table of a model that table alone is one of them.
pub fn rivals(
    context: &DecisionContext<'_>,
    chosen: usize,
    policy: &str,
    table: Option<Arc<ServiceTable>>,
    runtime: Runtime,
) -> Vec<RivalChoice> {
    let table_alone = table.map(|table| Box::new(Sed::offline(table, runtime)) as Box<dyn Policy>);
    let others = RIVALS.iter().filter(|name| **name != policy).filter_map(|name| by_name(name, runtime));
    table_alone.into_iter().chain(others).map(|policy| rival(context, chosen, policy)).collect()
}

fn rival(context: &DecisionContext<'_>, chosen: usize, mut policy: Box<dyn Policy>) -> RivalChoice {
    let table = policy.service_table();
    let context = DecisionContext { service_table: table.as_deref(), ..*context };
    let decided = policy.revisit(&context, chosen).and_then(Result::ok);
    RivalChoice {
        policy: policy.name().to_owned(),
        chosen: decided.map(|decision| decision.chosen),
        propensity: decided.map(|decision| decision.propensity),
        expected_ms: decided.and_then(|decision| decision.predicted_ms),
    }
}

#[cfg(test)]
mod tests {
    use shardwise_features::golden::contexts;

    use super::*;

    #[test]
    fn rivals_choose_in_the_state_that_is_given_and_not_for_themselves() {
        let golden = contexts().remove(1);
        let names = |policy: &str| -> Vec<String> {
            let all = rivals(&golden.context(), 0, policy, None, Runtime::default());
            assert!(all.iter().all(|rival| rival.chosen.is_some_and(|chosen| chosen < golden.fleet.shards.len())));
            all.into_iter().map(|rival| rival.policy).collect()
        };
        assert_eq!(names("shardwise"), RIVALS);
        assert_eq!(names("sed_tab"), RIVALS[1..]);
    }
}
