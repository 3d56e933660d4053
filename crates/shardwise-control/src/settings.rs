//! The times of the protocol, and the one condition that ties them together.

use serde::{Deserialize, Serialize};
use shardwise_types::{InvalidInput, Timestamp};

/// Times of the protocol in ms. Coordinator and agents of a fleet use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// From the proposal to the instant from which the change holds.
    pub lead_ms: u64,
    /// From the latest decision to that instant; the time before is for acknowledgements.
    pub margin_ms: u64,
    /// How long an agent may take its version for certain after it was last confirmed.
    pub lease_ms: u64,
    /// How often an agent asks the coordinator.
    pub ask_every_ms: u64,
    /// How often the coordinator repeats what was not acknowledged.
    pub repeat_every_ms: u64,
    /// How far any clock may be from true time.
    pub clock_error_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lead_ms: 10_000,
            margin_ms: 5_000,
            lease_ms: 4_000,
            ask_every_ms: 1_000,
            repeat_every_ms: 500,
            clock_error_ms: 250,
        }
    }
}

impl Settings {
    /// Checks the times against each other.
    ///
    /// # Errors
    /// Refused are times of 0 (but for the clocks' error), a margin that leaves no time for acknowledgements, agents
    /// that ask more seldom than their lease lasts, and a lease that, with twice the clocks' error, is longer than the
    /// margin: then an agent could be certain of a version that is not the decided one.
    pub fn check(&self) -> Result<(), InvalidInput> {
        for (field, ms) in [
            ("leadMs", self.lead_ms),
            ("marginMs", self.margin_ms),
            ("leaseMs", self.lease_ms),
            ("askEveryMs", self.ask_every_ms),
            ("repeatEveryMs", self.repeat_every_ms),
        ] {
            if !(1..=86_400_000).contains(&ms) {
                return Err(InvalidInput::new(field, format!("{ms} is not between 1 ms and a day")));
            }
        }
        if self.margin_ms >= self.lead_ms {
            let problem =
                format!("{} leaves no time for acknowledgements within leadMs {}", self.margin_ms, self.lead_ms);
            return Err(InvalidInput::new("marginMs", problem));
        }
        if self.lease_ms.saturating_add(self.clock_error_ms.saturating_mul(2)) > self.margin_ms {
            let problem = format!(
                "{} with twice clockErrorMs {} is more than marginMs {}: an agent could miss a decision unawares",
                self.lease_ms, self.clock_error_ms, self.margin_ms
            );
            return Err(InvalidInput::new("leaseMs", problem));
        }
        if self.ask_every_ms >= self.lease_ms {
            let problem = format!("{} is not below leaseMs {}: no lease would last", self.ask_every_ms, self.lease_ms);
            return Err(InvalidInput::new("askEveryMs", problem));
        }
        Ok(())
    }
}

/// The instant `ms` later, without the rounding of floats.
pub(crate) fn later(at: Timestamp, ms: u64) -> Timestamp {
    Timestamp::from_nanos(at.nanos().saturating_add(nanos(ms)))
}

/// The instant `ms` earlier.
pub(crate) fn earlier(at: Timestamp, ms: u64) -> Timestamp {
    Timestamp::from_nanos(at.nanos().saturating_sub(nanos(ms)))
}

fn nanos(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_break_the_guarantee_are_refused() {
        let right = Settings::default();
        right.check().expect("the defaults hold");
        for (settings, field) in [
            (Settings { lead_ms: 0, ..right }, "leadMs"),
            (Settings { margin_ms: 10_000, ..right }, "marginMs"),
            (Settings { lease_ms: 4_501, ..right }, "leaseMs"),
            (Settings { clock_error_ms: 501, ..right }, "leaseMs"),
            (Settings { ask_every_ms: 4_000, ..right }, "askEveryMs"),
        ] {
            assert_eq!(settings.check().expect_err("wrong").field, field, "{settings:?}");
        }
    }
}
