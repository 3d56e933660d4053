//! How true a policy's answers were: latencies against the quantiles that it named, choices against its confidence.

use serde::{Deserialize, Serialize};
use shardwise_features::Answer;
use shardwise_types::RiskLevel;

/// Bins of confidence, of equal width.
pub const CONFIDENCE_BINS: usize = 20;

/// How many requests were done within the latencies that were named for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Coverage {
    /// Requests.
    pub requests: u64,
    /// Of these, done within the named p50, p90 and p99.
    pub within: [u64; 3],
}

impl Coverage {
    /// Shares within p50, p90 and p99; `None` without requests.
    pub fn shares(&self) -> Option<[f64; 3]> {
        (self.requests > 0).then(|| self.within.map(|within| within as f64 / self.requests as f64))
    }

    /// Adds another's requests.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.within.iter_mut().zip(other.within).for_each(|(sum, within)| *sum += within);
    }

    /// Counts a request that took so long, for which these latencies were named.
    pub fn count(&mut self, quantiles_ms: [f32; 3], measured_ms: f32) {
        self.requests += 1;
        for (within, quantile_ms) in self.within.iter_mut().zip(quantiles_ms) {
            *within += u64::from(measured_ms <= quantile_ms);
        }
    }
}

/// Choices that were made with about the same confidence.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfidenceBin {
    /// Choices that were looked at.
    pub choices: u64,
    /// Sum of their confidences.
    pub confidence: f64,
    /// Of these, within 10 % and 5 ms of the best eligible shard, foreseen with the truth.
    pub right: u64,
}

/// All of it, of one run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnswerRecord {
    /// Of all measured requests.
    pub all: Coverage,
    /// By risk, lowest first.
    pub by_risk: [Coverage; RiskLevel::ALL.len()],
    /// Of those that went to a busy shard.
    pub congested: Coverage,
    /// By confidence, lowest first.
    pub by_confidence: [ConfidenceBin; CONFIDENCE_BINS],
}

impl AnswerRecord {
    /// Counts what became of a request; a failure took the timeout.
    pub(crate) fn count(&mut self, answer: &Answer, risk: RiskLevel, measured_ms: f32) {
        self.all.count(answer.quantiles_ms, measured_ms);
        self.by_risk[usize::from(risk.rank())].count(answer.quantiles_ms, measured_ms);
        if answer.congested {
            self.congested.count(answer.quantiles_ms, measured_ms);
        }
    }

    /// Counts a choice of which the truth is known.
    pub(crate) fn judge(&mut self, answer: &Answer, was_right: bool) {
        let confidence = f64::from(answer.confidence).clamp(0.0, 1.0);
        let bin = ((confidence * CONFIDENCE_BINS as f64) as usize).min(CONFIDENCE_BINS - 1);
        let bin = &mut self.by_confidence[bin];
        bin.choices += 1;
        bin.confidence += confidence;
        bin.right += u64::from(was_right);
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.all.add(&other.all);
        self.congested.add(&other.congested);
        self.by_risk.iter_mut().zip(&other.by_risk).for_each(|(sum, other)| sum.add(other));
        for (sum, other) in self.by_confidence.iter_mut().zip(&other.by_confidence) {
            sum.choices += other.choices;
            sum.confidence += other.confidence;
            sum.right += other.right;
        }
    }

    /// Expected calibration error: the mean distance of confidence from the share that was right, weighted by choices.
    /// `None` when no choice was looked at.
    pub fn calibration_error(&self) -> Option<f64> {
        let choices: u64 = self.by_confidence.iter().map(|bin| bin.choices).sum();
        let off = |bin: &ConfidenceBin| (bin.confidence - bin.right as f64).abs();
        (choices > 0).then(|| self.by_confidence.iter().map(off).sum::<f64>() / choices as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_seven_in_ten_must_be_right_seven_times() {
        let mut record = AnswerRecord::default();
        let answer = Answer {
            expected_ms: 10.0,
            quantiles_ms: [9.0, 20.0, 50.0],
            base_ms: [10.0; 3],
            confidence: 0.72,
            congested: true,
            kind: 0,
        };
        (0..10).for_each(|i| record.judge(&answer, i < 7));
        assert!((record.calibration_error().unwrap() - 0.02).abs() < 1e-6);
        for ms in [5.0, 15.0, 30.0, 60.0] {
            record.count(&answer, RiskLevel::High, ms);
        }
        assert_eq!(record.congested.shares(), Some([0.25, 0.5, 0.75]));
        assert_eq!(record.by_risk[2].requests, 4);
        let mut twice = record.clone();
        twice.add(&record);
        assert_eq!(twice.all.requests, 8);
    }
}
