//! Instants as others write them: with an offset, as a number since 1970, or as local time of a named zone.

use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::value::{Raw, Refusal};

/// How a column writes instants.
#[derive(Debug, Clone)]
pub(crate) enum TimeFormat {
    /// `2026-01-05T12:00:00Z` or with another offset.
    Rfc3339,
    /// A number of units of so many nanoseconds since 1970, UTC.
    Epoch(i128),
    /// What clocks on the wall show in a zone.
    Local { zone: TimeZone, pattern: Option<String>, ambiguous: Ambiguous },
}

/// What becomes of a local time that clocks show twice, when they are put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ambiguous {
    /// The row is refused: nothing in it says which one is meant.
    Refuse,
    /// The first, still in summer time.
    Earlier,
    /// The second, already in winter time.
    Later,
}

/// Placements older or newer than this are a wrong unit, not a history.
const FIRST_YEAR: i16 = 2000;
const LAST_YEAR: i16 = 2099;

impl TimeFormat {
    /// Nanoseconds since 1970.
    pub(crate) fn read(&self, raw: &Raw) -> Result<i64, Refusal> {
        let nanos = match (raw, self) {
            // A Parquet column that knows its zone needs no words about it.
            (Raw::Instant(nanos), _) => *nanos,
            (Raw::Naive(nanos), Self::Local { zone, ambiguous, .. }) => {
                let civil = jiff::Timestamp::from_nanosecond(*nanos).map_err(|_| {
                    Refusal::of("is out of range", format!("{nanos} ns since 1970 are beyond all dates"))
                })?;
                instant(TimeZone::UTC.to_datetime(civil), zone, *ambiguous)?
            }
            (Raw::Naive(_), _) => {
                return Err(Refusal::of(
                    "has no time zone",
                    "the file's timestamps have no zone; say format = \"local\" and zone = \"Area/City\" (or \"UTC\")",
                ));
            }
            (Raw::Text(text), Self::Rfc3339) => jiff::Timestamp::from_str(text.trim())
                .map_err(|_| {
                    Refusal::of(
                        "is no RFC 3339 time",
                        format!("'{text}' is no RFC 3339 time with an offset, such as 2026-01-05T12:00:00Z"),
                    )
                })?
                .as_nanosecond(),
            (Raw::Text(text), Self::Local { zone, pattern, ambiguous }) => {
                instant(local(text, pattern.as_deref())?, zone, *ambiguous)?
            }
            (raw, Self::Epoch(unit)) => epoch(raw, *unit)?,
            (raw, _) => {
                return Err(Refusal::of(
                    "is a number, not a time as text",
                    format!("{raw} is a number; say format = \"epoch\" and its unit"),
                ));
            }
        };
        plausible(nanos)
    }
}

fn local(text: &str, pattern: Option<&str>) -> Result<DateTime, Refusal> {
    let text = text.trim();
    let (parsed, form) = match pattern {
        Some(pattern) => (DateTime::strptime(pattern, text), format!("of the form {pattern}")),
        None => (DateTime::from_str(text), "such as 2026-01-05 12:00:00 (a pattern can say another form)".to_owned()),
    };
    parsed.map_err(|_| Refusal::of("is no local time", format!("'{text}' is no local time {form}")))
}

fn instant(civil: DateTime, zone: &TimeZone, ambiguous: Ambiguous) -> Result<i128, Refusal> {
    let found = zone.to_ambiguous_timestamp(civil);
    let name = zone.iana_name().unwrap_or("UTC");
    let chosen = match (found.offset(), ambiguous) {
        (AmbiguousOffset::Gap { .. }, _) => {
            return Err(Refusal::of(
                "does not exist in its zone",
                format!("{civil} does not exist in {name}: clocks were put forward over it"),
            ));
        }
        (AmbiguousOffset::Fold { .. }, Ambiguous::Refuse) => {
            return Err(Refusal::of(
                "exists twice in its zone",
                format!(
                    "{civil} exists twice in {name}, for clocks were put back; say ambiguous = \"earlier\" or \"later\""
                ),
            ));
        }
        (_, Ambiguous::Later) => found.later(),
        _ => found.earlier(),
    };
    let out_of_range = |_| Refusal::of("is out of range", format!("{civil} is beyond all dates"));
    chosen.map(jiff::Timestamp::as_nanosecond).map_err(out_of_range)
}

/// By decimal digits, so that no nanosecond is lost where they are written.
fn epoch(raw: &Raw, unit: i128) -> Result<i128, Refusal> {
    let wrong = || Refusal::of("is no number since 1970", format!("{raw} is no number of units since 1970"));
    let text = match raw {
        Raw::Int(value) => return value.checked_mul(unit).ok_or_else(wrong),
        Raw::Float(value) if value.is_finite() => format!("{value}"),
        Raw::Text(text) => text.trim().to_owned(),
        _ => return Err(wrong()),
    };
    let (sign, digits) = text.strip_prefix('-').map_or((1, text.as_str()), |rest| (-1, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = !whole.is_empty() && (whole.to_owned() + fraction).bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits {
        return Err(wrong());
    }
    // Beyond eighteen places a fraction of any unit is less than a nanosecond.
    let fraction = &fraction[..fraction.len().min(18)];
    let whole: i128 = whole.parse().map_err(|_| wrong())?;
    let parts: i128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| wrong())? };
    let places = 10_i128.pow(fraction.len() as u32);
    let nanos = whole.checked_mul(unit).ok_or_else(wrong)? + parts * unit / places;
    Ok(sign * nanos)
}

fn plausible(nanos: i128) -> Result<i64, Refusal> {
    let year = jiff::Timestamp::from_nanosecond(nanos).ok().map(|at| TimeZone::UTC.to_datetime(at).year());
    match (year, i64::try_from(nanos)) {
        (Some(FIRST_YEAR..=LAST_YEAR), Ok(nanos)) => Ok(nanos),
        (year, _) => {
            let year = year.map_or("beyond all dates".to_owned(), |year| format!("in the year {year}"));
            Err(Refusal::of(
                "lies outside 2000 to 2099",
                format!("the time would lie {year}, outside 2000 to 2099; is its unit right?"),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    fn at(text: &str) -> i64 {
        text.parse::<shardwise_types::Timestamp>().unwrap().nanos()
    }

    fn berlin(pattern: Option<&str>, ambiguous: Ambiguous) -> TimeFormat {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        TimeFormat::Local { zone, pattern: pattern.map(str::to_owned), ambiguous }
    }

    #[test]
    fn local_times_follow_daylight_saving() {
        let format = berlin(None, Ambiguous::Refuse);
        // 2026: clocks go forward on 29 March at 2 and back on 25 October at 3.
        for (local, utc) in [
            ("2026-03-29 01:59:59.999", "2026-03-29T00:59:59.999Z"),
            ("2026-03-29T03:00:00", "2026-03-29T01:00:00Z"),
            ("2026-10-25 01:59:59", "2026-10-24T23:59:59Z"),
            ("2026-10-25 03:00:00", "2026-10-25T02:00:00Z"),
        ] {
            assert_eq!(format.read(&text(local)).unwrap(), at(utc), "{local}");
        }
        assert_eq!(format.read(&text("2026-03-29 02:30:00")).unwrap_err().reason, "does not exist in its zone");
        assert_eq!(format.read(&text("2026-10-25 02:30:00")).unwrap_err().reason, "exists twice in its zone");
        let read = |ambiguous| berlin(None, ambiguous).read(&text("2026-10-25 02:30:00")).unwrap();
        assert_eq!(read(Ambiguous::Earlier), at("2026-10-25T00:30:00Z"));
        assert_eq!(read(Ambiguous::Later), at("2026-10-25T01:30:00Z"));
        // What does not exist is not guessed, whatever is said of what exists twice.
        assert!(berlin(None, Ambiguous::Later).read(&text("2026-03-29 02:30:00")).is_err());
        let naive = Raw::Naive(i128::from(at("2026-07-01T12:00:00Z")));
        assert_eq!(format.read(&naive).unwrap(), at("2026-07-01T10:00:00Z"));
        assert_eq!(TimeFormat::Rfc3339.read(&naive).unwrap_err().reason, "has no time zone");
    }

    #[test]
    fn a_pattern_says_another_form() {
        let format = berlin(Some("%d.%m.%Y %H:%M:%S%.f"), Ambiguous::Refuse);
        assert_eq!(format.read(&text("05.01.2026 13:00:00.25")).unwrap(), at("2026-01-05T12:00:00.25Z"));
        assert_eq!(format.read(&text("2026-01-05 13:00:00")).unwrap_err().reason, "is no local time");
    }

    #[test]
    fn epochs_of_every_unit_are_one_instant_to_the_nanosecond() {
        let nanos = at("2026-01-05T12:00:00.123456789Z");
        for (unit, written) in [
            ("ns", "1767614400123456789"),
            ("us", "1767614400123456.789"),
            ("ms", "1767614400123.456789"),
            ("s", "1767614400.123456789"),
        ] {
            let format = TimeFormat::Epoch(super::super::units::nanos_of(unit).unwrap());
            assert_eq!(format.read(&text(written)).unwrap(), nanos, "{unit}");
        }
        assert_eq!(TimeFormat::Epoch(1_000_000_000).read(&Raw::Float(1_767_614_400.125)).unwrap(), nanos + 1_543_211);
        assert!(TimeFormat::Epoch(1).read(&text("12:00")).is_err());
    }

    #[test]
    fn a_wrong_unit_is_told_from_a_history() {
        let seconds = TimeFormat::Epoch(1_000_000_000);
        let refusal = seconds.read(&Raw::Int(1_767_614_400_000)).unwrap_err();
        assert!(refusal.detail.contains("is its unit right"), "{refusal:?}");
        let refusal = TimeFormat::Epoch(1_000_000).read(&Raw::Int(1_767_614_400)).unwrap_err();
        assert!(refusal.detail.contains("1970"), "{refusal:?}");
        let refusal = TimeFormat::Rfc3339.read(&Raw::Int(1_767_614_400)).unwrap_err();
        assert!(refusal.detail.contains("epoch"), "{refusal:?}");
        assert!(TimeFormat::Rfc3339.read(&text("2026-01-05 12:00:00")).is_err(), "an offset is needed");
        let offset = TimeFormat::Rfc3339.read(&text("2026-01-05T13:00:00+01:00")).unwrap();
        assert_eq!(offset, at("2026-01-05T12:00:00Z"));
    }
}
