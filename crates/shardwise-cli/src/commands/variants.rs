//! Ours with something taken away, or with a model that is wrong: what each part is worth, and what the guards are.

use std::sync::Arc;

use shardwise_features::{FeatureGroup, position};
use shardwise_inference::{Guards, Placer, PlacerConfig};
use shardwise_models::{ExecHead, ModelBundle};

type TakeAway = fn(&mut PlacerConfig);

/// Variants whose configuration lacks something, or uses what is off by default.
const WITHOUT: [(&str, TakeAway); 16] = [
    ("shardwise_without_cold_head", |config| config.cold_head = false),
    ("shardwise_with_error_head", |config| config.error_blend = 1.0),
    ("shardwise_with_half_error_head", |config| config.error_blend = 0.5),
    ("shardwise_without_quantile_heads", |config| config.quantile_heads = false),
    ("shardwise_without_adaptive_quantiles", |config| config.adaptive_quantiles = false),
    ("shardwise_without_wait_head", |config| config.wait_blend = 0.0),
    ("shardwise_without_wait_formula", |config| config.wait_blend = 1.0),
    ("shardwise_without_cut", |config| config.model_candidates = usize::MAX),
    ("shardwise_without_lambda", |config| config.cost.lambda = 0.0),
    ("shardwise_without_fleet_price", |config| config.fleet_price = 0.0),
    ("shardwise_without_gate", |config| config.guards.gate = None),
    ("shardwise_without_cap", |config| config.guards.cap = None),
    ("shardwise_without_admission", |config| config.guards.admission = None),
    ("shardwise_without_slow_start", |config| config.guards.slow_start = false),
    ("shardwise_without_guards", |config| config.guards = Guards::none()),
    ("shardwise_without_exploration", |config| config.exploration = None),
];

/// What is wrong with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// No execution head: the service table decides.
    NoTrees,
    /// The trees of another fleet over the own service table.
    OtherTrees,
    /// Everything of another fleet.
    OtherBundle,
    /// Trees that say the opposite of what they learned.
    Inverted,
    /// The same for all shards.
    Constant,
    /// Predictions that are no times. A forest that holds NaN is never loaded; its sums can still be beyond all bounds.
    NotANumber,
}

const WRONG: [(&str, Wrong); 6] = [
    ("shardwise_without_trees", Wrong::NoTrees),
    ("shardwise_wrong_trees", Wrong::OtherTrees),
    ("shardwise_wrong_bundle", Wrong::OtherBundle),
    ("shardwise_inverted_model", Wrong::Inverted),
    ("shardwise_constant_model", Wrong::Constant),
    ("shardwise_nan_model", Wrong::NotANumber),
];

/// Variants that are trained without a group of features.
const BLIND: [(&str, FeatureGroup); 9] = [
    ("shardwise_without_request_features", FeatureGroup::Request),
    ("shardwise_without_fleet_features", FeatureGroup::Fleet),
    ("shardwise_without_market_features", FeatureGroup::Market),
    ("shardwise_without_time_features", FeatureGroup::Time),
    ("shardwise_without_local_features", FeatureGroup::Local),
    ("shardwise_without_pair_features", FeatureGroup::Pair),
    ("shardwise_without_net_features", FeatureGroup::Net),
    ("shardwise_without_shape_features", FeatureGroup::Shape),
    ("shardwise_without_report_features", FeatureGroup::Report),
];

/// The group of features that a variant is trained without.
pub(crate) fn blind_to(name: &str) -> Option<FeatureGroup> {
    BLIND.iter().find(|(known, _)| *known == name).map(|(_, group)| *group)
}

/// Names of all variants.
pub(crate) fn variant_names() -> impl Iterator<Item = &'static str> {
    let without = WITHOUT.iter().map(|(name, _)| *name);
    without.chain(WRONG.iter().map(|(name, _)| *name)).chain(BLIND.iter().map(|(name, _)| *name))
}

/// Makes a variant; `None` for other names.
///
/// # Errors
/// When it needs the model of another fleet and there is none.
pub(crate) fn variant(
    name: &str,
    config: PlacerConfig,
    bundle: &Arc<ModelBundle>,
    other: Option<&Arc<ModelBundle>>,
) -> Option<Result<Placer, String>> {
    if let Some((_, take_away)) = WITHOUT.iter().find(|(known, _)| *known == name) {
        let mut config = config;
        take_away(&mut config);
        return Some(Ok(Placer::with_model(Arc::clone(bundle)).with_config(config)));
    }
    let (_, wrong) = WRONG.iter().find(|(known, _)| *known == name)?;
    let missing = || format!("{name} needs the model of another fleet; name two fleets or more with --fleets");
    let made = match wrong {
        Wrong::NoTrees => Ok(Arc::new(bundle.with_exec(None))),
        Wrong::OtherBundle => other.cloned().ok_or_else(missing),
        Wrong::OtherTrees => other.map(|other| Arc::new(bundle.with_heads_of(other))).ok_or_else(missing),
        Wrong::Inverted => Ok(scaled(bundle, -1.0)),
        Wrong::NotANumber => Ok(scaled(bundle, 1e200)),
        Wrong::Constant => Ok(constant(bundle)),
    };
    Some(made.map(|bundle| Placer::with_model(bundle).with_config(config)))
}

pub(crate) fn scaled(bundle: &ModelBundle, factor: f64) -> Arc<ModelBundle> {
    Arc::new(bundle.with_exec(bundle.exec().map(|head| head.with_trees_scaled(factor))))
}

/// Adds nothing to the function's mean, which is the same for all shards.
pub(crate) fn constant(bundle: &ModelBundle) -> Arc<ModelBundle> {
    let same_for_all = position("function_ln_ms").expect("the feature exists");
    let head = bundle.exec().and_then(|head| {
        let trees = head.with_trees_scaled(0.0).forest().clone();
        ExecHead::new(trees, same_for_all, head.offset_default_ln_ms(), head.smearing(), head.residual_sd()).ok()
    });
    Arc::new(bundle.with_exec(head))
}
