//! How true the answers of each policy were, over all its cells.

use serde::{Deserialize, Serialize};
use shardwise_simulator::{AnswerRecord, ConfidenceBin};
use shardwise_types::RiskLevel;

use super::run::Cell;

/// Shares of requests that were done within the latencies that were named for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoverageRow {
    /// Which requests: `all`, a risk level, or `congested`.
    pub of: String,
    /// Requests.
    pub requests: u64,
    /// Share within the named p50; 0.5 is right.
    pub p50: f64,
    /// Share within the named p90; 0.9 is right.
    pub p90: f64,
    /// Share within the named p99; 0.99 is right.
    pub p99: f64,
}

/// Calibration of one policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The policy.
    pub policy: String,
    /// Coverage of the latencies that it named.
    pub coverage: Vec<CoverageRow>,
    /// Expected calibration error of its confidence; `None` when no choice was looked at.
    pub confidence_ece: Option<f64>,
    /// What it is made of.
    pub by_confidence: Vec<ConfidenceBin>,
}

/// Of all policies that give answers, in the order in which they come.
pub(crate) fn calibrations(cells: &[Cell]) -> Vec<Calibration> {
    let mut pooled: Vec<(&str, AnswerRecord)> = Vec::new();
    for cell in cells {
        let Some(answers) = &cell.answers else { continue };
        match pooled.iter_mut().find(|(policy, _)| *policy == cell.policy) {
            Some((_, sum)) => sum.add(answers),
            None => pooled.push((&cell.policy, answers.clone())),
        }
    }
    pooled.iter().map(|(policy, answers)| calibration(policy, answers)).collect()
}

fn calibration(policy: &str, answers: &AnswerRecord) -> Calibration {
    let tiers = RiskLevel::ALL.iter().map(|risk| risk.as_str()).zip(&answers.by_risk);
    let parts = [("all", &answers.all), ("congested", &answers.congested)].into_iter().chain(tiers);
    let row = |(of, coverage): (&str, &shardwise_simulator::Coverage)| {
        let [p50, p90, p99] = coverage.shares()?;
        Some(CoverageRow { of: of.to_owned(), requests: coverage.requests, p50, p90, p99 })
    };
    Calibration {
        policy: policy.to_owned(),
        coverage: parts.filter_map(row).collect(),
        confidence_ece: answers.calibration_error(),
        by_confidence: answers.by_confidence.to_vec(),
    }
}
