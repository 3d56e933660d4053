//! A challenger beside what serves, on the same simulated decisions: whose executions are foretold better.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use miette::IntoDiagnostic;
use rand::Rng;
use rayon::prelude::*;
use shardwise_evaluation::{Foretold, SamplePaths, ShadowTest};
use shardwise_features::{DecisionContext, ServiceTable};
use shardwise_inference::{LoggedDecision, ModelSlot, Placer, PlacerConfig, Shadow, ShadowConfig};
use shardwise_models::ModelBundle;
use shardwise_policies::{Decision, Observed, Policy, Rules, eligible};
use shardwise_simulator::{NoRecorder, SimulateOptions, simulate_with};
use shardwise_types::{NoEligibleShard, ShardId, ShardReport};

use crate::output;

/// Plays all sample paths with what serves, and holds what both foretold of warm executions against what they took. Only
/// choices that the challenger agrees with are compared: whoever picks a shard alone picks where it errs in the shard's
/// favour.
pub(crate) fn shadow_test(
    paths: &SamplePaths<'_>,
    live: &Arc<ModelBundle>,
    challenger: &Arc<ModelBundle>,
) -> miette::Result<ShadowTest> {
    let config = PlacerConfig::for_runtime(paths.world.timing.runtime());
    let play = |&seed: &u64| {
        output::stop_if_interrupted()?;
        let (sender, foretold) = channel();
        let router = || Shadowed::new(live, challenger, config, sender.clone());
        let routers: Vec<Box<dyn Policy>> = paths.world.routers.iter().map(|_| Box::new(router()) as _).collect();
        let options = SimulateOptions { warm_up: paths.warm_up, ..SimulateOptions::default() };
        simulate_with(paths.world, paths.workload, seed, routers, &mut NoRecorder, &options).into_diagnostic()?;
        drop(sender);
        Ok(foretold.into_iter().collect::<Vec<Foretold>>())
    };
    // Learned in the order of the seeds, so that threads change nothing.
    let foretold = paths.seeds.par_iter().map(play).collect::<miette::Result<Vec<_>>>()?;
    let mut test = ShadowTest::default();
    foretold.iter().flatten().for_each(|foretold| test.learn(foretold));
    Ok(test)
}

/// What serves, with a challenger that speaks of each decision before it is sent.
struct Shadowed {
    live: Placer,
    shadow: Shadow,
    decisions: u64,
    candidates: Vec<usize>,
    foretold: Sender<Foretold>,
}

impl Shadowed {
    fn new(
        live: &Arc<ModelBundle>,
        challenger: &Arc<ModelBundle>,
        config: PlacerConfig,
        foretold: Sender<Foretold>,
    ) -> Self {
        let shadow = Shadow::new(ShadowConfig { capacity: 1, share: 1.0, placer: config });
        shadow.replace(Arc::clone(challenger));
        let live = Placer::with_model(Arc::clone(live)).with_config(config);
        Self { live, shadow, decisions: 0, candidates: Vec::new(), foretold }
    }
}

impl Policy for Shadowed {
    fn name(&self) -> &str {
        self.live.name()
    }

    fn decide(&mut self, context: &DecisionContext<'_>, rng: &mut dyn Rng) -> Result<Decision, NoEligibleShard> {
        let mut decision = self.live.decide(context, rng)?;
        eligible(context, &Rules::default(), &mut self.candidates)?;
        self.decisions += 1;
        self.shadow.observe(&LoggedDecision {
            decision_id: self.decisions,
            sequence: self.decisions,
            context,
            decision: &decision,
            policy: "shardwise",
            model_version: None,
            candidates: &self.candidates,
        });
        self.shadow.score(1, |said| {
            decision.forecast.challenger_ms = said.chosen_exec_ms.filter(|_| said.agrees);
        });
        Ok(decision)
    }

    fn on_response(&mut self, observed: &Observed<'_>) {
        self.live.on_response(observed);
        let (forecast, response) = (&observed.ticket.forecast, observed.response);
        // What serves may have no trees; then its table speaks.
        let live_ms = forecast.model_ms.or(forecast.table_ms);
        if let (Some(live_ms), Some(challenger_ms), true) = (live_ms, forecast.challenger_ms, response.is_ok())
            && !response.cold
        {
            let [live_ms, challenger_ms, measured_ms] = [live_ms, challenger_ms, response.exec_ms].map(f64::from);
            // Whoever no longer listens has all that it wants.
            _ = self.foretold.send(Foretold { live_ms, challenger_ms, measured_ms });
        }
    }

    fn on_report(&mut self, shard: &ShardId, report: &ShardReport) {
        self.live.on_report(shard, report);
    }

    fn service_table(&self) -> Option<Arc<ServiceTable>> {
        self.live.service_table()
    }
}
