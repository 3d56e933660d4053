//! C3's replica ranking: R − 1/μ + q̂³/μ, cubic in the queue so that a long one outweighs a fast shard.
//!
//! Suresh et al., *C3: Cutting tail latency in cloud data stores via adaptive replica selection* (NSDI 2015), with the
//! formula as Elasticsearch's `ResponseCollectorService` has it. Rate control is left out: a router here may not hold requests
//! back. Shards have several cores, so queues count per core; how many clients there are is estimated.

use rand::Rng;
use rustc_hash::FxHashMap;
use shardwise_features::DecisionContext;
use shardwise_types::{ErrorClass, NoEligibleShard, Response};

use crate::loads::Loads;
use crate::{Decision, Observed, Policy, Runtime};

/// Weight of one decision in the estimate of the number of clients.
const CLIENTS_WEIGHT: f64 = 0.02;

/// Knobs of [`C3`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct C3Config {
    /// Weight of the newest sample in the moving means, in (0, 1].
    pub weight: f64,
    /// Routers that send to the same shards, this one included; `None` estimates it as all work that is seen over the
    /// own share of it.
    pub clients: Option<f64>,
    /// What it places for.
    pub runtime: Runtime,
}

impl Default for C3Config {
    /// The paper's weight of 0.1 (Elasticsearch's 0.3 did no better in simulated fleets, seeds 1 to 9), and an estimated
    /// number of clients.
    fn default() -> Self {
        Self { weight: 0.1, clients: None, runtime: Runtime::default() }
    }
}

/// Moving means of what a shard's responses say.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Feedback {
    /// R: from dispatch to response, in ms.
    response_ms: f64,
    /// 1/μ: on a core, in ms.
    service_ms: f64,
    /// Requests on the shard.
    queue: f64,
}

impl Feedback {
    /// The rank in ms with an estimated queue q̂; lower is better.
    fn rank(&self, queue_estimate: f64) -> f64 {
        self.response_ms - self.service_ms + queue_estimate.powi(3) * self.service_ms
    }

    fn learn(&mut self, response: &Response, weight: f64, timeout_ms: f64) {
        let smooth = |mean: &mut f64, value: f64| *mean += weight * (value - *mean);
        // A failure costs its caller the timeout, and tells nothing about how long work takes.
        match response.is_ok() {
            true => {
                smooth(&mut self.response_ms, f64::from(response.total_ms));
                smooth(&mut self.service_ms, f64::from(response.exec_ms));
            }
            false => smooth(&mut self.response_ms, timeout_ms),
        }
        if response.error != Some(ErrorClass::Timeout) {
            smooth(&mut self.queue, f64::from(response.queue_len));
        }
    }
}

/// The lowest rank; ties are drawn.
pub struct C3 {
    config: C3Config,
    feedback: FxHashMap<u64, Feedback>,
    /// Moving mean of the service time anywhere, in ms: what a shard that has not answered yet is taken to need.
    service_ms: f64,
    clients: f64,
    loads: Loads,
}

impl C3 {
    /// With its knobs.
    pub fn new(config: C3Config) -> Self {
        let clients = config.clients.unwrap_or(1.0);
        Self { config, feedback: FxHashMap::default(), service_ms: 0.0, clients, loads: Loads::default() }
    }

    fn unknown(&self) -> Feedback {
        Feedback { response_ms: self.service_ms, service_ms: self.service_ms, queue: 0.0 }
    }

    /// Ranks the eligible shards, and learns of clients.
    fn read(&mut self, context: &DecisionContext<'_>) -> Result<(), NoEligibleShard> {
        let (unknown, clients, feedback) = (self.unknown(), self.clients, &self.feedback);
        let (mut own, mut others) = (0.0, 0.0);
        self.loads.read(context, |position| {
            let shard = &context.fleet.shards[position];
            let local = context.router.shard(&shard.id, context.decided_at);
            own += local.in_flight_cores;
            others += local.others;
            let feedback = feedback.get(&shard.id.key()).unwrap_or(&unknown);
            let queue = (local.in_flight * clients + feedback.queue) / f64::from(shard.shape.cores);
            feedback.rank(1.0 + queue)
        })?;
        if self.config.clients.is_none() && own > 0.0 {
            self.clients += CLIENTS_WEIGHT * (1.0 + others / own - self.clients);
        }
        Ok(())
    }
}

impl Policy for C3 {
    fn name(&self) -> &'static str {
        "c3"
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        self.read(context)?;
        Ok(self.loads.draw_least(rng))
    }

    fn revisit(&mut self, context: &DecisionContext<'_>, chosen: usize) -> Option<Result<Decision, NoEligibleShard>> {
        Some(self.read(context).map(|()| self.loads.revisit_least(chosen)))
    }

    fn on_response(&mut self, observed: &Observed<'_>) {
        let response = observed.response;
        if response.error == Some(ErrorClass::Cancelled) {
            return;
        }
        let unknown = self.unknown();
        let (weight, timeout_ms) = (self.config.weight, self.config.runtime.timeout_ms);
        self.feedback.entry(observed.shard.key()).or_insert(unknown).learn(response, weight, timeout_ms);
        if response.is_ok() {
            self.service_ms += weight * (f64::from(response.exec_ms) - self.service_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Feedback = Feedback { response_ms: 14.0, service_ms: 4.0, queue: 0.0 };
    const SLOW: Feedback = Feedback { response_ms: 30.0, service_ms: 20.0, queue: 0.0 };

    #[test]
    fn the_queue_counts_cubed() {
        assert_eq!(FAST.rank(1.0), 14.0, "without a queue the rank is the response time");
        assert_eq!(FAST.rank(3.0), 10.0 + 27.0 * 4.0);
        assert!(FAST.rank(1.7) < SLOW.rank(1.0), "a fast shard may queue a little");
        assert!(FAST.rank(2.0) > SLOW.rank(1.0), "but not for long, although five times as fast would allow 5");
    }

    #[test]
    fn failing_fast_raises_the_rank() {
        let failed = Response {
            error: Some(ErrorClass::Failed),
            total_ms: 1.0,
            exec_ms: 0.1,
            queue_ms: 0.0,
            queue_len: 0,
            cold: false,
        };
        let mut failing = FAST;
        failing.learn(&failed, 0.3, 3_000.0);
        assert!(failing.rank(1.0) > SLOW.rank(1.0));
        assert_eq!(failing.service_ms, FAST.service_ms);
    }
}
