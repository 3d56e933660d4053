//! Kubernetes quantities: `500m`, `2`, `512Mi`, `1.5Gi`, `2G`.
//!
//! Decimal suffixes are m, k, M, G, T, P, E, binary ones Ki, Mi, Gi, Ti, Pi, Ei; exponents such as `1e3` are read too.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shardwise_types::InvalidInput;

/// An amount of a resource in its base unit: cores, or bytes.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Quantity(f64);

const SUFFIXES: [(&str, f64); 13] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
];

/// Bytes of a megabyte as shapes and requests count it.
const BYTES_PER_MB: f64 = 1_048_576.0;

impl Quantity {
    /// The amount in base units.
    pub fn value(self) -> f64 {
        self.0
    }

    /// The amount of memory in MB as shapes and requests count it, 1,048,576 bytes each.
    pub fn megabytes(self) -> f64 {
        self.0 / BYTES_PER_MB
    }
}

impl fmt::Display for Quantity {
    /// The shortest text that is read as the same quantity, a whole number if there is one, as Kubernetes writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = |(suffix, factor): &(&str, f64)| format!("{}{suffix}", self.0 / factor);
        let texts = SUFFIXES.iter().map(written).filter(|text| text.parse() == Ok(*self));
        let rank = |text: &String| (text.contains('.'), text.len());
        let best = std::iter::once(self.0.to_string()).chain(texts).min_by_key(rank);
        f.write_str(&best.expect("there is one at least"))
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The field is known to whoever reads the file; the quantity's own name for it would say it twice.
        String::deserialize(deserializer)?.parse().map_err(|e: InvalidInput| D::Error::custom(e.problem))
    }
}

impl FromStr for Quantity {
    type Err = InvalidInput;

    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        let suffix = SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
        let (number, factor) = suffix.unwrap_or((text, 1.0));
        // Rust reads words such as "inf" as numbers; a quantity is digits.
        let is_number = number.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        match number.parse::<f64>() {
            Ok(value) if is_number && (value * factor).is_finite() => Ok(Self(value * factor)),
            _ => Err(InvalidInput::new(
                "quantity",
                format!("'{text}' is not a quantity; write it as 500m, 2, 512Mi, 1.5Gi or 2G"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, value) in [
            ("500m", 0.5),
            ("2", 2.0),
            ("0.1", 0.1),
            ("512Mi", 536_870_912.0),
            ("1.5Gi", 1_610_612_736.0),
            ("2G", 2e9),
            ("64k", 64e3),
            ("1e3", 1e3),
            ("1E", 1e18),
            ("1E3", 1e3),
            ("0", 0.0),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().value(), value, "{text}");
        }
        assert_eq!("512Mi".parse::<Quantity>().unwrap().megabytes(), 512.0);
    }

    #[test]
    fn quantities_are_written_as_they_are_read() {
        for text in ["500m", "2", "512Mi", "1536Mi", "2G", "0", "64k", "1E", "1537"] {
            assert_eq!(text.parse::<Quantity>().unwrap().to_string(), text);
        }
        let odd: Quantity = "0.1234567891".parse().unwrap();
        assert_eq!(odd.to_string().parse(), Ok(odd));
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for text in ["", "m", "Mi", "-1", "+1", "inf", "NaN", "1 Gi", "1gi", "two", "1e999", "9e300E"] {
            let error = text.parse::<Quantity>().unwrap_err().to_string();
            assert!(error.contains(&format!("'{text}'")) && error.contains("512Mi"), "{error}");
        }
    }
}
