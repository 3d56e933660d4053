//! All heads of a bundle in one pass over the candidates of a decision.

use shardwise_features::{FEATURE_COUNT, FEATURES};

use crate::forest::{Factored, Forest, Scratch};
use crate::{ExecHead, SideHead};

/// What the heads say of each candidate, and the buffers that they need. An absent head says nothing.
#[derive(Debug, Default)]
pub struct Predictions {
    /// Mean of ln warm execution ms.
    pub exec_ln_ms: Vec<f64>,
    /// Probability of a cold start, in [0, 1].
    pub cold: Vec<f64>,
    /// Time in the queue in ms.
    pub wait_ms: Vec<f64>,
    /// Probability of a failure, in [0, 1]; filled by whoever asks that head.
    pub error: Vec<f64>,
    scores: Vec<f64>,
    scratch: Scratch,
}

/// How the heads of a bundle are asked; they say the same, bit for bit, however they are.
#[derive(Debug, Clone)]
pub(crate) struct Scorer {
    /// `None` when a tree is too large for it, or the processor too old; then each forest is walked.
    factored: Option<Factored>,
}

impl Scorer {
    pub(crate) fn new(exec: Option<&ExecHead>, sides: [Option<&SideHead>; 2]) -> Self {
        let sides = sides.into_iter().flatten().map(SideHead::forest);
        let forests: Vec<&Forest> = exec.map(ExecHead::forest).into_iter().chain(sides).collect();
        let n_shared = FEATURES.iter().filter(|feature| feature.is_per_decision()).count();
        Self { factored: Factored::new(&forests, n_shared).filter(|_| Factored::is_worth_it()) }
    }

    pub(crate) fn predict(
        &self,
        exec: Option<&ExecHead>,
        [cold, wait]: [Option<&SideHead>; 2],
        rows: &[f32],
        into: &mut Predictions,
    ) {
        let n_rows = rows.len() / FEATURE_COUNT;
        let Predictions { exec_ln_ms, cold: cold_out, wait_ms, scores, scratch, .. } = into;
        let sides = [(cold, cold_out), (wait, wait_ms)];
        exec_ln_ms.resize(if exec.is_some() { n_rows } else { 0 }, 0.0);
        // One row is walked sooner than the tests of all trees are read.
        let Some(factored) = self.factored.as_ref().filter(|_| n_rows > 1) else {
            if let Some(head) = exec {
                head.predict_ln_ms_rows(rows, exec_ln_ms);
            }
            for (head, out) in sides {
                out.resize(if head.is_some() { n_rows } else { 0 }, 0.0);
                if let Some(head) = head {
                    head.predict_rows(rows, out);
                }
            }
            return;
        };
        scores.resize(factored.n_forests() * n_rows, 0.0);
        factored.predict_rows(rows, FEATURE_COUNT, scratch, scores);
        let mut scores = scores.chunks_exact(n_rows);
        let mut next = || scores.next().expect("one answer of each forest to each row");
        if let Some(head) = exec {
            exec_ln_ms.copy_from_slice(next());
            head.add_offsets(rows, exec_ln_ms);
        }
        for (head, out) in sides {
            out.clear();
            if let Some(head) = head {
                out.extend(next().iter().map(|score| head.target().of_score(*score)));
            }
        }
    }
}
