//! The policies of an arena: those that need no model, those that know the truth, and those of the fleets' models.

use std::collections::BTreeMap;
use std::sync::Arc;

use miette::IntoDiagnostic;
use shardwise_evaluation::{ArenaPlan, CANDIDATE, LowestLatency, Roster, specimen};
use shardwise_features::FeatureGroup;
use shardwise_inference::{Placer, PlacerConfig};
use shardwise_models::{CHAMPION, LatencyHead, ModelBundle, Registry};
use shardwise_policies::{Policy, Runtime, Sed, by_name};
use shardwise_simulator::{Player, WorldSpec};

use super::fleet_models::fleet_models;
use super::variants::{blind_to, variant, variant_names};
use crate::arguments::ArenaArguments;
use crate::output;

/// Policies that need a model of the fleet; [`CANDIDATE`] has fallbacks without one.
pub(crate) const MODEL_POLICIES: [&str; 4] = ["sed_off_lambda", "end_to_end_model", "spec_feature_model", CANDIDATE];

/// Whether a policy needs a model of the fleet.
pub(crate) fn needs_model(policy: &str) -> bool {
    policy != CANDIDATE && (MODEL_POLICIES.contains(&policy) || variant_names().any(|name| name == policy))
}

/// Whether a policy needs models that only training for the arena makes.
pub(crate) fn needs_training(policy: &str) -> bool {
    ["end_to_end_model", "spec_feature_model"].contains(&policy) || blind_to(policy).is_some()
}

/// What is known of a fleet.
struct Models {
    bundle: Arc<ModelBundle>,
    /// End-to-end and specification.
    latency: Option<[Arc<LatencyHead>; 2]>,
    /// Trained without a group of features.
    blind: BTreeMap<FeatureGroup, Arc<ModelBundle>>,
}

/// Makes the policies.
pub(crate) struct FleetRoster {
    by_fleet: BTreeMap<u64, Models>,
}

impl FleetRoster {
    /// Trains or loads the models that the arguments ask for.
    pub(crate) fn make(options: &ArenaArguments, plan: &ArenaPlan) -> miette::Result<Self> {
        let mut by_fleet = BTreeMap::new();
        if options.train {
            let groups: Vec<_> = plan.policies.iter().filter_map(|policy| blind_to(policy)).collect();
            for &fleet in &plan.fleets {
                let routers = plan.routers.iter().copied().max().unwrap_or(1).max(4);
                let net = plan.nets[0];
                let world = plan.world(fleet, routers, net);
                let models = fleet_models(&world, fleet, &groups, options.train_failures, &options.out.join("models"))?;
                let latency = [models.latency.end_to_end, models.latency.specification].map(Arc::new);
                let models = Models { bundle: models.bundle, latency: Some(latency), blind: models.blind };
                by_fleet.insert(fleet, models);
                output::stop_if_interrupted()?;
            }
        } else if let Some(folder) = &options.models {
            let bundle = Registry::open(folder, &options.name).into_diagnostic()?.load(CHAMPION).into_diagnostic()?;
            let bundle = Arc::new(bundle);
            let models =
                |fleet: &u64| (*fleet, Models { bundle: Arc::clone(&bundle), latency: None, blind: BTreeMap::new() });
            by_fleet = plan.fleets.iter().map(models).collect();
        }
        Ok(Self { by_fleet })
    }

    /// Which models these are, so that results of others are not gone on with.
    pub(crate) fn identity(&self) -> String {
        let version = |(fleet, models): (&u64, &Models)| format!("{fleet}={}", models.bundle.version());
        self.by_fleet.iter().map(version).collect::<Vec<_>>().join(",")
    }

    fn with_model(&self, policy: &str, fleet: u64, runtime: Runtime) -> Result<Box<dyn Policy>, String> {
        let missing = || format!("there is no model of fleet {fleet}; add --train or --models");
        let models = self.by_fleet.get(&fleet).ok_or_else(missing)?;
        let table = models.bundle.service_table();
        let latency = |index: usize| models.latency.as_ref().map(|heads| Arc::clone(&heads[index])).ok_or_else(missing);
        Ok(match policy {
            "sed_off_lambda" => Box::new(Sed::offline(table, runtime)),
            "end_to_end_model" => Box::new(LowestLatency::end_to_end(latency(0)?, table)),
            "spec_feature_model" => Box::new(LowestLatency::specification(latency(1)?, table)),
            CANDIDATE => {
                Box::new(Placer::with_model(Arc::clone(&models.bundle)).with_config(PlacerConfig::for_runtime(runtime)))
            }
            other if let Some(group) = blind_to(other) => {
                let blind = models.blind.get(&group).ok_or_else(missing)?;
                Box::new(Placer::with_model(Arc::clone(blind)).with_config(PlacerConfig::for_runtime(runtime)))
            }
            other => {
                let next = self.by_fleet.range(fleet + 1..).next().or_else(|| self.by_fleet.range(..fleet).next());
                let others = next.map(|(_, models)| &models.bundle);
                let made = variant(other, PlacerConfig::for_runtime(runtime), &models.bundle, others);
                Box::new(made.ok_or_else(|| format!("there is no policy '{other}'"))??)
            }
        })
    }
}

impl Roster for FleetRoster {
    fn player(&self, policy: &str, fleet: u64, world: &WorldSpec, with_model: bool) -> Result<Option<Player>, String> {
        let runtime = world.timing.runtime();
        if let Some(player) = Player::knowing(policy) {
            return Ok(Some(player));
        }
        if let Some(policy) = by_name(policy, runtime).or_else(|| specimen(policy)) {
            return Ok(Some(policy.into()));
        }
        let has_model = with_model && self.by_fleet.contains_key(&fleet);
        match policy {
            CANDIDATE if !has_model => {
                let policy: Box<dyn Policy> =
                    Box::new(Placer::without_model().with_config(PlacerConfig::for_runtime(runtime)));
                Ok(Some(policy.into()))
            }
            _ if !with_model => Ok(None),
            _ => Ok(Some(self.with_model(policy, fleet, runtime)?.into())),
        }
    }
}
