//! What goes wrong on a reference shard, on purpose.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use shardwise_types::InvalidInput;

/// Something that goes wrong for a while; times count from the start of the shard. It is written as
/// `kind[=value][@from[..until]]` with times in ms: `slow=3@10000..20000`, `failing=0.1`, `crash@60000`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fault {
    /// When it begins, in ms.
    pub from_ms: f64,
    /// When it ends, in ms; infinite when it does not.
    pub until_ms: f64,
    /// What happens.
    pub kind: FaultKind,
}

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FaultKind {
    /// Everything takes so many times as long; at least 1.
    Slow(f64),
    /// This share of requests fails at once, drawn by seed.
    Failing(f64),
    /// No request is begun; what runs is finished.
    Stall,
    /// Requests are taken and never answered; reports go on as if nothing were wrong.
    BlackHole,
    /// Reports hold what cannot be: a load of −1, more than all errors.
    Nonsense,
    /// It calls itself unhealthy, and works on.
    Unhealthy,
    /// The process ends on the spot, with all its work.
    Crash,
}

impl Fault {
    fn new(text: &str) -> Option<Self> {
        let (what, window) = text.split_once('@').unwrap_or((text, "0"));
        let (from, until) = window.split_once("..").unwrap_or((window, "inf"));
        let (from_ms, until_ms): (f64, f64) = (from.parse().ok()?, until.parse().ok()?);
        let (name, value) = what.split_once('=').map_or((what, None), |(name, value)| (name, value.parse().ok()));
        let kind = match (name, value) {
            ("slow", Some(factor)) if (1.0..=1e4).contains(&factor) => FaultKind::Slow(factor),
            ("failing", Some(share)) if (0.0..=1.0).contains(&share) => FaultKind::Failing(share),
            ("stall", None) => FaultKind::Stall,
            ("black-hole", None) => FaultKind::BlackHole,
            ("nonsense", None) => FaultKind::Nonsense,
            ("unhealthy", None) => FaultKind::Unhealthy,
            ("crash", None) => FaultKind::Crash,
            _ => return None,
        };
        (from_ms >= 0.0 && from_ms.is_finite() && until_ms >= from_ms).then_some(Self { from_ms, until_ms, kind })
    }
}

impl FromStr for Fault {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        Self::new(text).ok_or_else(|| {
            InvalidInput::new(
                "fault",
                format!(
                    "'{text}' is none; write it as kind[=value][@from[..until]] in ms, the kind being slow=FACTOR (1 or more), \
                     failing=SHARE (0 to 1), stall, black-hole, nonsense, unhealthy or crash"
                ),
            )
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FaultKind::Slow(factor) => write!(f, "slow={factor}")?,
            FaultKind::Failing(share) => write!(f, "failing={share}")?,
            FaultKind::Stall => f.write_str("stall")?,
            FaultKind::BlackHole => f.write_str("black-hole")?,
            FaultKind::Nonsense => f.write_str("nonsense")?,
            FaultKind::Unhealthy => f.write_str("unhealthy")?,
            FaultKind::Crash => f.write_str("crash")?,
        }
        write!(f, "@{}..{}", self.from_ms, self.until_ms)
    }
}

impl TryFrom<String> for Fault {
    type Error = InvalidInput;

    fn try_from(text: String) -> Result<Self, InvalidInput> {
        text.parse()
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> Self {
        fault.to_string()
    }
}

/// The faults of a shard that act at one moment, `at_ms` after its start.
#[derive(Clone, Copy)]
pub(super) struct FaultsAt<'a> {
    faults: &'a [Fault],
    at_ms: f64,
}

impl<'a> FaultsAt<'a> {
    pub(super) fn new(faults: &'a [Fault], at_ms: f64) -> Self {
        Self { faults, at_ms }
    }

    fn active(&self) -> impl Iterator<Item = FaultKind> {
        let at_ms = self.at_ms;
        self.faults.iter().filter(move |fault| fault.from_ms <= at_ms && at_ms < fault.until_ms).map(|fault| fault.kind)
    }

    pub(super) fn has(&self, kind: FaultKind) -> bool {
        self.active().any(|active| active == kind)
    }

    /// How many times as long everything takes.
    pub(super) fn slowness(&self) -> f64 {
        self.active().map(|kind| if let FaultKind::Slow(factor) = kind { factor } else { 1.0 }).product()
    }

    /// Share of requests that fail.
    pub(super) fn failing(&self) -> f64 {
        self.active().map(|kind| if let FaultKind::Failing(share) = kind { share } else { 0.0 }).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_what_it_was_written_as() {
        for text in ["slow=3@10000..20000", "failing=0.25@0..inf", "stall@5..6", "black-hole@1..2", "crash@7..inf"] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
        let always: Fault = "nonsense".parse().unwrap();
        assert_eq!((always.from_ms, always.until_ms), (0.0, f64::INFINITY));
        for wrong in ["", "slow", "slow=0.5", "failing=2", "stall=1", "stall@9..1", "stall@x", "stall@-1", "slow=NaN"] {
            let error = wrong.parse::<Fault>().unwrap_err().to_string();
            assert!(error.contains("black-hole"), "{wrong}: {error}");
        }
    }

    #[test]
    fn faults_act_in_their_windows_and_add_up() {
        let faults: Vec<Fault> =
            ["slow=3@10..20", "slow=2@15..30", "failing=0.1@15..16"].map(|text| text.parse().unwrap()).to_vec();
        let slowness = |at_ms| FaultsAt::new(&faults, at_ms).slowness();
        assert_eq!([9.0, 10.0, 15.0, 20.0, 30.0].map(slowness), [1.0, 3.0, 6.0, 2.0, 1.0]);
        assert_eq!(FaultsAt::new(&faults, 15.5).failing(), 0.1);
        assert!(!FaultsAt::new(&faults, 15.5).has(FaultKind::Stall));
    }
}
