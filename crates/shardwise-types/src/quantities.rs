//! Quantities that are checked once, at the border: time, money, confidence.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An input that is refused: which field, what it holds, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidInput {
    /// The field as the user wrote it, such as `amountUsd`.
    pub field: String,
    /// What is wrong with it and what to do.
    pub problem: String,
}

impl InvalidInput {
    /// Names the field and what is wrong with it.
    pub fn new(field: &str, problem: impl Into<String>) -> Self {
        Self { field: field.to_owned(), problem: problem.into() }
    }
}

/// An instant: nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Makes an instant from nanoseconds since the Unix epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Milliseconds from `earlier` to this instant; negative when `earlier` is later.
    pub fn millis_since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / 1e6
    }

    /// The instant `millis` later.
    #[must_use]
    pub fn plus_millis(self, millis: f64) -> Self {
        Self(self.0.saturating_add((millis * 1e6) as i64))
    }

    /// Hour of the day in UTC with its fraction, in [0, 24).
    pub fn hour_utc(self) -> f64 {
        self.0.rem_euclid(86_400_000_000_000) as f64 / 3.6e12
    }

    /// Day of the week in UTC with its fraction, in [0, 7); 0 is Sunday, as in the specification.
    pub fn weekday_utc(self) -> f64 {
        // 1970-01-01 was a Thursday.
        let nanos = self.0.rem_euclid(7 * 86_400_000_000_000);
        (nanos as f64 / 8.64e13 + 4.0) % 7.0
    }

    /// The calendar day in UTC as `YYYY-MM-DD`, the name of a history partition.
    pub fn date_utc(self) -> String {
        let timestamp =
            jiff::Timestamp::from_nanosecond(i128::from(self.0)).expect("64-bit nanoseconds lie within the calendar");
        jiff::tz::TimeZone::UTC.to_datetime(timestamp).date().to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(timestamp) => write!(f, "{timestamp}"),
            Err(_) => write!(f, "{} ns", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = InvalidInput;

    /// Reads `2026-01-05T12:00:00Z` or a plain date `2026-01-05` (midnight UTC).
    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        let wrong = || {
            InvalidInput::new(
                "time",
                format!("'{text}' is not a UTC time; write it as 2026-01-05T12:00:00Z or 2026-01-05"),
            )
        };
        let timestamp = text
            .parse::<jiff::Timestamp>()
            .or_else(|_| format!("{text}T00:00:00Z").parse::<jiff::Timestamp>())
            .map_err(|_| wrong())?;
        i64::try_from(timestamp.as_nanosecond()).map(Self).map_err(|_| wrong())
    }
}

impl Serialize for Timestamp {
    /// As text where people read, as nanoseconds elsewhere.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a UTC time such as \"2026-01-05T12:00:00Z\", or nanoseconds since 1970")
            }
            fn visit_i64<E: serde::de::Error>(self, nanos: i64) -> Result<Timestamp, E> {
                Ok(Timestamp(nanos))
            }
            fn visit_u64<E: serde::de::Error>(self, nanos: u64) -> Result<Timestamp, E> {
                i64::try_from(nanos).map(Timestamp).map_err(|_| E::custom("nanoseconds beyond the year 2262"))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(E::custom)
            }
        }
        // Text formats tell a string from a number by looking; the binary ones only ever hold the number.
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(Visitor)
        } else {
            deserializer.deserialize_i64(Visitor)
        }
    }
}

/// An amount of money at stake in US dollars: finite and not negative.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct UsdAmount(f64);

impl UsdAmount {
    /// Checks the amount.
    ///
    /// # Errors
    /// NaN, infinite and negative amounts are refused.
    pub fn new(usd: f64) -> Result<Self, InvalidInput> {
        if usd.is_finite() && usd >= 0.0 {
            Ok(Self(usd))
        } else {
            Err(InvalidInput::new(
                "amountUsd",
                format!(
                    "{usd} is not an amount; it must be a finite number of dollars, 0 or more (leave it out when unknown)"
                ),
            ))
        }
    }

    /// The amount in US dollars.
    pub fn usd(self) -> f64 {
        self.0
    }
}

/// A probability in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Confidence(f64);

impl Confidence {
    /// Clamps to [0, 1]; NaN, which says nothing, becomes 0.
    pub fn clamped(value: f64) -> Self {
        Self(if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) })
    }

    /// The probability.
    pub fn value(self) -> f64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_utc() {
        let noon: Timestamp = "2026-01-05T12:30:00Z".parse().unwrap();
        assert_eq!(noon.hour_utc(), 12.5);
        assert_eq!(noon.weekday_utc().floor(), 1.0, "a Monday");
        assert_eq!(noon.date_utc(), "2026-01-05");
        assert_eq!("2026-01-05".parse::<Timestamp>().unwrap().hour_utc(), 0.0);
        assert_eq!(Timestamp::from_nanos(-1).date_utc(), "1969-12-31");
        assert!("yesterday".parse::<Timestamp>().unwrap_err().to_string().contains("2026-01-05T12:00:00Z"));
    }

    #[test]
    fn absurd_amounts_are_refused() {
        for usd in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(UsdAmount::new(usd).is_err(), "{usd}");
        }
        assert_eq!(UsdAmount::new(0.0).unwrap().usd(), 0.0);
    }

    #[test]
    fn confidence_is_a_probability() {
        assert_eq!(Confidence::clamped(f64::NAN).value(), 0.0);
        assert_eq!(Confidence::clamped(1.5).value(), 1.0);
    }
}
