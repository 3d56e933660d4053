//! Functions that stay away from a shard are let back, to be measured again.
//!
//! What a plan moved away is not measured any longer: what made it move may be over, and nobody would know. As a circuit
//! breaker does, a stay ends after a while by itself. What turns out to be as bad as before leaves again, and stays away twice
//! as long each time.

use serde::{Deserialize, Serialize};
use shardwise_types::{InvalidInput, Timestamp};

use crate::{Action, Estimate, Ledger, PlanError, Unit};

/// How long functions stay away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ReturnSettings {
    /// Minutes of the first stay, above 0. No less than the cooldowns of those who move, and than the window of their
    /// statistics: what they judge by is then all from after the return.
    pub after_minutes: f64,
    /// Minutes of the longest stay; each lasts twice as long as the one before.
    pub most_minutes: f64,
}

impl Default for ReturnSettings {
    fn default() -> Self {
        Self { after_minutes: 75.0, most_minutes: 600.0 }
    }
}

impl ReturnSettings {
    pub(crate) fn check(&self) -> Result<(), InvalidInput> {
        if !(self.after_minutes > 0.0 && self.after_minutes.is_finite()) {
            let problem = format!("{} must be a finite number above 0", self.after_minutes);
            return Err(InvalidInput::new("afterMinutes", problem));
        }
        if self.most_minutes.is_nan() || self.most_minutes < self.after_minutes {
            return Err(InvalidInput::new(
                "mostMinutes",
                format!("{} must be afterMinutes or more", self.most_minutes),
            ));
        }
        Ok(())
    }
}

/// The stays that are over, in the order of shards and functions.
///
/// # Errors
/// Settings out of range.
pub fn returns(ledger: &Ledger, now: Timestamp, settings: &ReturnSettings) -> Result<Vec<Action>, PlanError> {
    settings.check()?;
    let over = |(function, shard, away): (_, _, &crate::Away)| {
        let stay = (settings.after_minutes * f64::from(away.times.saturating_sub(1)).exp2()).min(settings.most_minutes);
        let minutes = now.millis_since(away.since?) / 60_000.0;
        (minutes >= stay).then(|| Action::ReturnFunction {
            function_name: function,
            shard,
            reason: format!("away for {minutes:.0} minutes: what was measured there is old"),
            estimated_benefit: Estimate::new(0.0, 0.0, 0.0, Unit::LatencyMs),
        })
    };
    Ok(ledger.away().map(|(function, shard, away)| (function.clone(), shard.clone(), away)).filter_map(over).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(minute: i64) -> Timestamp {
        Timestamp::from_nanos(minute * 60_000_000_000)
    }

    fn migrate() -> Action {
        Action::MigrateFunction {
            function_name: "f".into(),
            from_shard: "a".into(),
            to_shard: "b".into(),
            reason: String::new(),
            estimated_benefit: Estimate::new(1.0, 1.0, 1.0, Unit::LatencyMs),
        }
    }

    fn at(ledger: &Ledger, now: i64) -> Vec<Action> {
        let settings = ReturnSettings { after_minutes: 60.0, most_minutes: 150.0 };
        returns(ledger, minute(now), &settings).unwrap()
    }

    #[test]
    fn each_stay_is_twice_as_long_as_the_one_before_up_to_the_longest() {
        let mut ledger = Ledger::default();
        let mut left = 0;
        for stay in [60, 120, 150, 150] {
            ledger.record(&migrate(), minute(left));
            assert_eq!(at(&ledger, left + stay - 1), [], "after {left}");
            let back = at(&ledger, left + stay);
            assert!(
                matches!(&back[..], [Action::ReturnFunction { function_name, shard, .. }]
                    if function_name.as_str() == "f" && shard.as_str() == "a"),
                "{back:?}"
            );
            left += stay;
            ledger.record(&back[0], minute(left));
            assert_eq!(at(&ledger, left + 1_000), [], "it is back");
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        for (after_minutes, most_minutes, field) in [(0.0, 9.0, "afterMinutes"), (9.0, 8.0, "mostMinutes")] {
            let error = returns(&Ledger::default(), minute(0), &ReturnSettings { after_minutes, most_minutes });
            assert!(error.unwrap_err().to_string().contains(field));
        }
    }
}
