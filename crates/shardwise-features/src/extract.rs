//! Computes feature vectors: what is common to a decision once, what belongs to a candidate once each.

use std::ops::Deref;

use shardwise_types::{HardwareClass, MarketSnapshot, Region, ShardReport, ShardSnapshot};

use crate::table::Source;
use crate::{DecisionContext, FEATURES, RequestService, ShardLocal, ShardService};

/// Number of features.
pub const FEATURE_COUNT: usize = FEATURES.len();

/// How many of them, at the front, are the same for all candidates.
const PER_DECISION: usize = {
    let mut count = 0;
    while count < FEATURE_COUNT && matches!(FEATURES[count].source, Source::Decision(_)) {
        count += 1;
    }
    count
};

/// What decision-wide features are computed from.
pub(crate) struct DecisionInputs<'a> {
    pub(crate) context: DecisionContext<'a>,
    pub(crate) market: MarketSnapshot,
    pub(crate) fleet: FleetTotals,
    pub(crate) service: Option<RequestService<'a>>,
    /// Extra ms of a cold start by history.
    pub(crate) cold_ms: Option<f64>,
    exchange_region: &'a Region,
}

impl<'a> Deref for DecisionInputs<'a> {
    type Target = DecisionContext<'a>;
    fn deref(&self) -> &Self::Target {
        &self.context
    }
}

impl DecisionInputs<'_> {
    pub(crate) fn category(&self, key: u64) -> Option<f64> {
        self.service_table.and_then(|table| table.category_ln_ms(key))
    }
}

/// The specification's four numbers about the fleet.
pub(crate) struct FleetTotals {
    pub(crate) load_mean: f64,
    pub(crate) load_max: f64,
    pub(crate) load_variance: f64,
    pub(crate) healthy: f64,
}

impl FleetTotals {
    fn of(shards: &[ShardSnapshot]) -> Self {
        let (mut n, mut sum, mut squares, mut max) = (0.0, 0.0, 0.0, f64::NAN);
        let mut healthy = 0.0;
        for shard in shards {
            let Some(report) = &shard.report else { continue };
            healthy += f64::from(u8::from(report.healthy));
            let load = f64::from(report.load(shard.shape.cores));
            n += 1.0;
            sum += load;
            squares += load * load;
            max = load.max(max);
        }
        let mean = sum / n;
        Self { load_mean: mean, load_max: max, load_variance: (squares / n - mean * mean).max(0.0 * mean), healthy }
    }
}

/// What a candidate's features are computed from.
pub(crate) struct CandidateInputs<'a> {
    decision: &'a DecisionInputs<'a>,
    pub(crate) shard: &'a ShardSnapshot,
    pub(crate) local: ShardLocal,
    pub(crate) cores: f64,
    pub(crate) rtt_ms: f64,
    pub(crate) exchange_rtt_ms: f64,
    /// By history alone.
    pub(crate) service: Option<ShardService>,
    /// By history, else by what the router measured, else by the caller.
    pub(crate) prior_service_ln_ms: Option<f64>,
}

impl<'a> Deref for CandidateInputs<'a> {
    type Target = DecisionInputs<'a>;
    fn deref(&self) -> &Self::Target {
        self.decision
    }
}

impl<'a> CandidateInputs<'a> {
    fn new(decision: &'a DecisionInputs<'a>, candidate: usize) -> Self {
        let (request, fleet) = (decision.request, decision.context.fleet);
        let shard = &fleet.shards[candidate];
        let (network, region) = (&fleet.network, &shard.shape.region);
        let service = decision.service.map(|service| service.on(&shard.id));
        Self {
            decision,
            shard,
            local: decision.router.shard(&shard.id, decision.decided_at),
            cores: f64::from(shard.shape.cores),
            rtt_ms: f64::from(network.rtt_ms(&fleet.router_region, region)),
            exchange_rtt_ms: f64::from(network.rtt_ms(region, decision.exchange_region)),
            service,
            prior_service_ln_ms: service
                .and_then(|service| service.ln_ms)
                .or_else(|| decision.router.service_ln_ms_without_table(request, &shard.id)),
        }
    }

    pub(crate) fn report(&self, value: impl Fn(&ShardReport) -> f64) -> f64 {
        self.shard.report.as_ref().map_or(f64::NAN, value)
    }

    pub(crate) fn is_hardware(&self, class: HardwareClass) -> f64 {
        f64::from(u8::from(self.shard.shape.hardware == class))
    }
}

/// The part of the feature vector that all candidates of one decision share, computed once.
pub struct DecisionFeatures<'a> {
    inputs: DecisionInputs<'a>,
    shared: [f32; PER_DECISION],
}

impl<'a> DecisionFeatures<'a> {
    /// Computes what the candidates share.
    pub fn new(context: &DecisionContext<'a>) -> Self {
        let inputs = DecisionInputs {
            context: *context,
            market: context.market_now(),
            fleet: FleetTotals::of(&context.fleet.shards),
            service: context.service_table.map(|table| table.of(context.request)),
            cold_ms: context.service_table.map(|table| table.cold_ms(context.request)),
            exchange_region: context.fleet.network.exchange_region(&context.request.exchange),
        };
        let shared = std::array::from_fn(|i| match FEATURES[i].source {
            Source::Decision(compute) => compute(&inputs) as f32,
            Source::Candidate(_) => unreachable!("PER_DECISION counts the features of the decision"),
        });
        Self { inputs, shared }
    }
}

/// One row of model input: the features of a candidate in one decision, in the order of [`FEATURES`].
///
/// Units are in the features' names; a value that is not known is NaN. The field is private: [`Self::extract`] is the
/// only way to make one.
#[derive(Debug, Clone, Copy)]
pub struct FeatureVector([f32; FEATURE_COUNT]);

impl FeatureVector {
    /// Computes the features of the candidate at a position of the context's fleet.
    pub fn extract(decision: &DecisionFeatures<'_>, candidate: usize) -> Self {
        let inputs = CandidateInputs::new(&decision.inputs, candidate);
        let mut row = [0.0; FEATURE_COUNT];
        row[..PER_DECISION].copy_from_slice(&decision.shared);
        for (value, feature) in row.iter_mut().zip(FEATURES).skip(PER_DECISION) {
            if let Source::Candidate(compute) = feature.source {
                *value = compute(&inputs) as f32;
            }
        }
        Self(row)
    }

    /// The values.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// The values, to be laid beside other rows.
    pub fn into_array(self) -> [f32; FEATURE_COUNT] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{golden, position};

    fn value(row: &FeatureVector, name: &str) -> f32 {
        row.as_slice()[position(name).unwrap_or_else(|| panic!("no feature {name}"))]
    }

    #[test]
    fn what_is_unknown_is_nan_and_what_is_zero_is_zero() {
        let golden = golden::contexts().remove(0);
        let decision = DecisionFeatures::new(&golden.context());
        let row = FeatureVector::extract(&decision, 0);
        for name in ["service_ln_ms", "since_dispatch_s", "response_ms_mean", "volatility_bp", "report_cpu"] {
            assert!(value(&row, name).is_nan(), "{name}");
        }
        for name in ["in_flight_per_core", "shard_error_rate", "residual_ln"] {
            assert_eq!(value(&row, name), 0.0, "{name}");
        }
    }

    #[test]
    fn candidates_differ_only_in_what_is_theirs() {
        let golden = golden::contexts().remove(1);
        let decision = DecisionFeatures::new(&golden.context());
        let (first, second) = (FeatureVector::extract(&decision, 0), FeatureVector::extract(&decision, 1));
        let bits = |row: &FeatureVector| row.0.map(f32::to_bits);
        assert_eq!(bits(&first)[..PER_DECISION], bits(&second)[..PER_DECISION]);
        assert_ne!(bits(&first)[PER_DECISION..], bits(&second)[PER_DECISION..]);
    }
}
