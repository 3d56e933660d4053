//! Claims about models that somebody else made: they are heard in the place of the execution head, and passed over when they
//! cannot answer.

use std::sync::Arc;

use shardwise_features::{FEATURE_COUNT, golden};
use shardwise_inference::Placer;
use shardwise_models::{BundleDraft, ExecModel};
use shardwise_types::{DecidedBy, FallbackReason};

/// Says the same of all.
struct Constant(f64);

impl ExecModel for Constant {
    fn predict_ln_ms_rows(&self, rows: &[f32], out: &mut [f64]) {
        assert_eq!(rows.len(), out.len() * FEATURE_COUNT);
        out.fill(self.0);
    }
}

fn answer(ln_ms: f64) -> (DecidedBy, Option<FallbackReason>, f64) {
    let golden = golden::contexts().remove(1);
    let table = golden.service_table.clone().expect("the golden context has a table");
    let draft = BundleDraft { service_table: table, ..BundleDraft::example() };
    let bundle = draft.bundle().expect("a sound draft").with_exec_model(Arc::new(Constant(ln_ms)));
    let placer = Placer::with_model(Arc::new(bundle));
    let context = golden.context();
    let prediction = placer.predict_optimal_shard(&context).expect("a healthy fleet");
    (prediction.decided_by, prediction.fallback_reason, prediction.cost.execution_ms)
}

#[test]
fn what_it_says_is_what_execution_costs() {
    let [(decided_by, fallback, short_ms), (.., long_ms)] = [2.0, 3.0].map(answer);
    assert_eq!((decided_by, fallback), (DecidedBy::Model, None));
    assert!((long_ms / short_ms - 1.0_f64.exp()).abs() < 1e-9, "{short_ms} ms, then {long_ms} ms");
}

#[test]
fn what_cannot_answer_is_passed_over() {
    for ln_ms in [f64::NAN, f64::INFINITY, 1e9] {
        let (decided_by, fallback, _) = answer(ln_ms);
        assert_eq!((decided_by, fallback), (DecidedBy::ServiceTable, Some(FallbackReason::BadPrediction)));
    }
}
