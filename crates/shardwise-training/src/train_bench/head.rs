//! What each head learns from, chosen and labelled by the code that trains it.

use shardwise_datasets::TrainingData;
use shardwise_models::SideTarget;

use super::TrainBenchPlan;
use crate::TrainingError;
use crate::dataset;
use crate::exec::Offset;
use crate::grow::Loss;
use crate::latency::effective_ln_ms;
use crate::rows::{ExecSamples, Rows, choose_rows, early_of, weights_of};
use crate::side::{Labelled, SideSamples, loss_of, rising_of};

/// The heads that are fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BenchHead {
    /// What the service table misses of ln execution.
    Exec,
    /// Whether the function had to be loaded.
    Cold,
    /// ln(1 + ms) in the queue.
    Wait,
    /// ln of the whole latency, that of rivals which learn it in one piece.
    Latency,
}

impl BenchHead {
    /// All of them, in the order in which they are fitted.
    pub const ALL: [Self; 4] = [Self::Exec, Self::Cold, Self::Wait, Self::Latency];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Cold => "cold",
            Self::Wait => "wait",
            Self::Latency => "latency",
        }
    }

    /// Features of which more never means less.
    pub(super) fn rising(self) -> &'static [&'static str] {
        match self {
            Self::Exec | Self::Latency => &[],
            Self::Cold => rising_of(SideTarget::Cold),
            Self::Wait => rising_of(SideTarget::Wait),
        }
    }

    pub(super) fn loss(self) -> Loss {
        match self {
            Self::Exec | Self::Latency => Loss::Squared,
            Self::Cold => loss_of(SideTarget::Cold),
            Self::Wait => loss_of(SideTarget::Wait),
        }
    }
}

/// What one head learns from and is measured on.
pub(super) struct Lesson {
    pub(super) train: Labelled,
    pub(super) test: Labelled,
    /// Training rows before those that tell when to stop.
    pub(super) early: usize,
}

/// The rows of a dataset.
pub(super) struct Source {
    rows: Rows,
}

impl Source {
    pub(super) fn new(data: TrainingData) -> Self {
        Self { rows: dataset::rows(data) }
    }

    pub(super) fn lesson(&self, head: BenchHead, plan: &TrainBenchPlan) -> Result<Lesson, TrainingError> {
        let (train, test) = match head {
            BenchHead::Exec => {
                let samples = ExecSamples::choose(&self.rows, plan.rows)?;
                let offset = Offset::of(&samples.train);
                (offset.labelled(samples.train), offset.labelled(samples.test))
            }
            BenchHead::Cold => self.side(SideTarget::Cold, plan)?,
            BenchHead::Wait => self.side(SideTarget::Wait, plan)?,
            BenchHead::Latency => self.latency(plan)?,
        };
        let early = early_of(train.labels.len());
        Ok(Lesson { train, test, early })
    }

    fn side(&self, target: SideTarget, plan: &TrainBenchPlan) -> Result<(Labelled, Labelled), TrainingError> {
        let samples = SideSamples::choose(target, &self.rows, plan.rows)?;
        Ok((samples.train, samples.test))
    }

    fn latency(&self, plan: &TrainBenchPlan) -> Result<(Labelled, Labelled), TrainingError> {
        let (train, test) = choose_rows(&self.rows, plan.rows, |_| None)?;
        let part = |chosen: &[usize]| {
            let ln_ms = |row: &usize| effective_ln_ms(self.rows.ok[*row], self.rows.total_ms[*row], plan.timeout_ms);
            Labelled {
                features: self.rows.features_of(chosen),
                labels: chosen.iter().map(ln_ms).collect(),
                weights: weights_of(&self.rows.weight, chosen),
                rising: &[],
            }
        };
        Ok((part(&train), part(&test)))
    }
}
