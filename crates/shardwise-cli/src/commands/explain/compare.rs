//! What was logged against what is computed now, bit for bit.

use serde::Serialize;
use shardwise_features::{DecisionFeatures, FEATURE_COUNT, FEATURES, FeatureVector};
use shardwise_policies::Decision;
use shardwise_types::{DecidedBy, DecisionRecord, FallbackReason, FleetSnapshot};

use super::travel::{Again, Scene};

/// What a decision leaves in the log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Made {
    pub(super) shard: String,
    pub(super) propensity: f64,
    pub(super) eligible: u32,
    /// Expected latency.
    pub(super) predicted_ms: Option<f64>,
    pub(super) decided_by: DecidedBy,
    pub(super) fallback_reason: Option<FallbackReason>,
}

impl Made {
    pub(super) fn logged(decision: &DecisionRecord) -> Self {
        Self {
            shard: decision.shard.as_str().to_owned(),
            propensity: decision.propensity,
            eligible: decision.eligible,
            predicted_ms: decision.predicted_ms,
            decided_by: decision.decided_by,
            fallback_reason: decision.fallback_reason,
        }
    }

    pub(super) fn now(decision: &Decision, fleet: &FleetSnapshot) -> Self {
        Self {
            shard: fleet.shards[decision.chosen].id.as_str().to_owned(),
            propensity: decision.propensity,
            eligible: decision.eligible,
            predicted_ms: decision.predicted_ms,
            decided_by: decision.decided_by,
            fallback_reason: decision.fallback_reason,
        }
    }

    /// The fields in words from which every bit can be read.
    pub(super) fn fields(&self) -> [(&'static str, String); 6] {
        let fallback = self.fallback_reason.map_or("none", FallbackReason::as_str);
        [
            ("shard", self.shard.clone()),
            ("propensity", exact(self.propensity)),
            ("eligible", self.eligible.to_string()),
            ("predicted_ms", self.predicted_ms.map_or("none".to_owned(), exact)),
            ("decided_by", self.decided_by.as_str().to_owned()),
            ("fallback_reason", fallback.to_owned()),
        ]
    }
}

/// The shortest decimal that is this number and no other; it tells 0 from −0.
fn exact(number: f64) -> String {
    format!("{number:?}")
}

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    pub(super) field: String,
    pub(super) logged: String,
    pub(super) again: String,
}

/// What comparing found.
pub(super) struct Compared {
    /// `None` when it could not be made again.
    pub(super) again: Option<Made>,
    pub(super) differences: Vec<Difference>,
    /// Logged feature vectors that were compared.
    pub(super) feature_rows: u64,
}

/// Compares a decision and its logged features with what they are now.
pub(super) fn compare(scene: &Scene<'_>, again: &Again) -> Compared {
    let logged = Made::logged(scene.decision);
    let (made, mut differences) = match again {
        Again::Unknown => (None, Vec::new()),
        Again::Decided(decision) => {
            let made = Made::now(decision, scene.context.fleet);
            let fields = logged.fields().into_iter().zip(made.fields());
            let differing = fields.filter(|(logged, again)| logged != again);
            let difference = |((field, logged), (_, again)): ((&str, String), (&str, String))| Difference {
                field: field.to_owned(),
                logged,
                again,
            };
            (Some(made), differing.map(difference).collect())
        }
        Again::Refused(refusal) => {
            let again = refusal.to_string();
            (None, vec![Difference { field: "shard".to_owned(), logged: logged.shard, again }])
        }
    };
    let feature_rows = features(scene, &mut differences);
    Compared { again: made, differences, feature_rows }
}

/// Adds the logged features that differ; returns how many vectors were logged.
fn features(scene: &Scene<'_>, differences: &mut Vec<Difference>) -> u64 {
    let Scene { decision, context, .. } = scene;
    if decision.logged_shards.is_empty() {
        return 0;
    }
    let inputs = DecisionFeatures::new(context);
    for (shard, logged) in decision.logged_shards.iter().zip(decision.logged_features.chunks(FEATURE_COUNT)) {
        let difference = |field: &str, logged: String, again: String| Difference {
            field: format!("{field} of {shard}"),
            logged,
            again,
        };
        let Some(candidate) = context.fleet.position(shard) else {
            differences.push(difference("features", "logged".to_owned(), "the shard is not known".to_owned()));
            continue;
        };
        let extracted = FeatureVector::extract(&inputs, candidate);
        if logged.len() != FEATURE_COUNT {
            differences.push(difference("features", logged.len().to_string(), FEATURE_COUNT.to_string()));
            continue;
        }
        let is_same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        let values = logged.iter().zip(extracted.as_slice()).zip(FEATURES);
        let differing = values.filter(|((logged, again), _)| !is_same(**logged, **again));
        differences.extend(
            differing.map(|((logged, again), feature)| {
                difference(feature.name, format!("{logged:?}"), format!("{again:?}"))
            }),
        );
    }
    decision.logged_shards.len() as u64
}
