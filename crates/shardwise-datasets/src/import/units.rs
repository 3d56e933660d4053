//! Units of numbers, and what a field's number measures. All are turned into the unit that the history's column names.

/// What a number measures, and hence in which units it may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dimension {
    /// It has no unit: a count, an id, a text.
    Plain,
    /// Stored in ms.
    Duration,
    /// Stored in MB of 1,048,576 bytes: a machine of 16 GB has 16384.
    Memory,
    /// Stored as a share between 0 and 1.
    Share,
    /// Stored in basis points.
    BasisPoints,
    /// Stored in GHz.
    Clock,
    /// Stored in US dollars.
    Money,
}

/// How a number is turned into the stored unit: times the first, by the second. A division by a whole number is rounded
/// once, where a factor such as 0.001 would be rounded twice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Factor {
    pub(crate) times: f64,
    pub(crate) by: f64,
}

impl Factor {
    pub(crate) const ONE: Self = Self { times: 1.0, by: 1.0 };

    pub(crate) fn apply(self, value: f64) -> f64 {
        value * self.times / self.by
    }
}

const KIB: f64 = 1024.0;

/// Units by name, each with its factor; the stored one is first.
type Units = &'static [(&'static str, f64, f64)];

impl Dimension {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 7] =
        [Self::Plain, Self::Duration, Self::Memory, Self::Share, Self::BasisPoints, Self::Clock, Self::Money];

    /// What the column's name says: its unit stands last.
    pub(crate) fn of(column: &str) -> Self {
        match column {
            "cpu" | "memory" | "error_rate" | "propensity" => Self::Share,
            name if name.ends_with("_ms") => Self::Duration,
            name if name.ends_with("_mb") => Self::Memory,
            name if name.ends_with("_bp") => Self::BasisPoints,
            name if name.ends_with("_ghz") => Self::Clock,
            name if name.ends_with("_usd") => Self::Money,
            _ => Self::Plain,
        }
    }

    fn units(self) -> Units {
        match self {
            Self::Plain => &[],
            Self::Duration => &[("ms", 1.0, 1.0), ("ns", 1.0, 1e6), ("us", 1.0, 1e3), ("s", 1e3, 1.0)],
            Self::Memory => &[("mb", 1.0, 1.0), ("bytes", 1.0, KIB * KIB), ("kb", 1.0, KIB), ("gb", KIB, 1.0)],
            Self::Share => &[("share", 1.0, 1.0), ("percent", 1.0, 1e2), ("permille", 1.0, 1e3)],
            Self::BasisPoints => &[("bp", 1.0, 1.0), ("percent", 1e2, 1.0), ("share", 1e4, 1.0)],
            Self::Clock => &[("ghz", 1.0, 1.0), ("mhz", 1.0, 1e3), ("hz", 1.0, 1e9)],
            Self::Money => &[("usd", 1.0, 1.0), ("cents", 1.0, 1e2)],
        }
    }

    /// The names of its units, the stored one first.
    pub(crate) fn names(self) -> Vec<&'static str> {
        self.units().iter().map(|(name, _, _)| *name).collect()
    }

    pub(crate) fn factor(self, unit: &str) -> Option<Factor> {
        let (_, times, by) = self.units().iter().find(|(name, _, _)| *name == unit)?;
        Some(Factor { times: *times, by: *by })
    }
}

/// Nanoseconds of a unit of time.
pub(crate) fn nanos_of(unit: &str) -> Option<i128> {
    match unit {
        "ns" => Some(1),
        "us" => Some(1_000),
        "ms" => Some(1_000_000),
        "s" => Some(1_000_000_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_of_one_amount_is_stored_as_the_same_number() {
        type Same = (Dimension, f64, &'static [(&'static str, f64)]);
        let same: [Same; 6] = [
            (Dimension::Duration, 1.5, &[("ns", 1_500_000.0), ("us", 1500.0), ("ms", 1.5), ("s", 0.0015)]),
            (
                Dimension::Memory,
                2048.0,
                &[("bytes", 2_147_483_648.0), ("kb", 2_097_152.0), ("mb", 2048.0), ("gb", 2.0)],
            ),
            (Dimension::Share, 0.25, &[("share", 0.25), ("percent", 25.0), ("permille", 250.0)]),
            (Dimension::BasisPoints, 150.0, &[("bp", 150.0), ("percent", 1.5), ("share", 0.015)]),
            (Dimension::Clock, 3.2, &[("ghz", 3.2), ("mhz", 3200.0), ("hz", 3.2e9)]),
            (Dimension::Money, 12.5, &[("usd", 12.5), ("cents", 1250.0)]),
        ];
        for (dimension, stored, units) in same {
            let named: Vec<&str> = units.iter().map(|(unit, _)| *unit).collect();
            assert!(
                dimension.names().iter().all(|name| named.contains(name)),
                "{dimension:?} has a unit without a test"
            );
            for (unit, value) in units {
                let factor = dimension.factor(unit).unwrap();
                assert_eq!(factor.apply(*value), stored, "{value} {unit}");
            }
        }
        assert_eq!(Dimension::ALL.len(), same.len() + 1);
        assert_eq!(Dimension::Duration.factor("percent"), None);
    }
}
