//! One value on its way from a source into a column: what sources know, and how a field reads it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use shardwise_types::ShardId;

use super::time::TimeFormat;
use super::units::Factor;
use crate::columns::{Cell, Names};
use crate::{ColumnSpec, Kind};

/// A value as its source has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Raw {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    /// Nanoseconds since 1970, UTC.
    Instant(i128),
    /// Nanoseconds that a clock on the wall would show since 1970, of a zone that is not said.
    Naive(i128),
    List(Vec<Raw>),
}

impl std::fmt::Display for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "'{text}'"),
            Self::Instant(nanos) | Self::Naive(nanos) => write!(f, "{nanos} ns since 1970"),
            Self::List(items) => write!(f, "a list of {}", items.len()),
        }
    }
}

impl Raw {
    pub(crate) fn from_json(value: serde_json::Value) -> Self {
        use serde_json::Value as J;
        match value {
            J::Null => Self::Null,
            J::Bool(value) => Self::Bool(value),
            J::Number(number) => match number.as_i128() {
                Some(value) => Self::Int(value),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            J::String(text) => Self::Text(text),
            J::Array(items) => Self::List(items.into_iter().map(Self::from_json).collect()),
            // No column of a history holds an object; its text is what a reason can show.
            J::Object(_) => Self::Text(value.to_string()),
        }
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) | Self::Instant(value) | Self::Naive(value) => {
                i64::try_from(*value).map_or_else(|_| value.to_string().into(), Into::into)
            }
            Self::Float(value) => (*value).into(),
            Self::Text(text) => text.as_str().into(),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
        }
    }

    /// The value as a word: for `words`, ids that are hashed, and names that are written as numbers.
    fn word(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            other => Cow::Owned(other.to_string()),
        }
    }
}

/// Why a row is refused: in general, by which refusals are counted, and in particular.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) detail: String,
}

impl Refusal {
    pub(crate) fn of(reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { reason: reason.into(), detail: detail.into() }
    }

    fn in_field(self, field: &str, column: &str) -> Self {
        Self {
            reason: format!("{field} {}", self.reason),
            detail: format!("{field} from column '{column}': {}", self.detail),
        }
    }
}

/// A value as a column of the history holds it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stored {
    Null,
    I64(i64),
    F64(f64),
    F32(f32),
    Bool(bool),
    Text(String),
    Shards(Vec<ShardId>),
    Floats(Vec<f32>),
}

impl Stored {
    pub(crate) fn cell(&self) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::I64(value) => Cell::I64(*value),
            Self::F64(value) => Cell::F64(*value),
            Self::F32(value) => Cell::F32(*value),
            Self::Bool(value) => Cell::Bool(*value),
            Self::Text(text) => Cell::Text(text),
            Self::Shards(shards) => Cell::Names(Names::List(shards)),
            Self::Floats(values) => Cell::Floats(values),
        }
    }
}

/// How a field is read from a source's column.
#[derive(Debug, Clone)]
pub(crate) struct Convert {
    pub(crate) field: String,
    pub(crate) column: String,
    pub(crate) spec: ColumnSpec,
    pub(crate) factor: Factor,
    pub(crate) time: TimeFormat,
    /// Words of the source and what they stand for; an empty one is null.
    pub(crate) words: BTreeMap<String, String>,
    /// What words stand for that are not listed.
    pub(crate) other: Option<String>,
    /// Ids that are texts become numbers by a digest.
    pub(crate) hash: bool,
    /// Fractions are rounded to whole numbers.
    pub(crate) round: bool,
    pub(crate) decimal_comma: bool,
}

impl Convert {
    /// The value to store; null when there is none.
    pub(crate) fn read(&self, raw: &Raw) -> Result<Stored, Refusal> {
        self.try_read(raw).map_err(|refusal| refusal.in_field(&self.field, &self.column))
    }

    fn try_read(&self, raw: &Raw) -> Result<Stored, Refusal> {
        let translated;
        let raw = if self.words.is_empty() && self.other.is_none() || *raw == Raw::Null {
            raw
        } else {
            let word = raw.word();
            match self.words.get(word.as_ref()).or(self.other.as_ref()) {
                Some(meaning) if meaning.is_empty() => &Raw::Null,
                Some(meaning) => {
                    translated = Raw::Text(meaning.clone());
                    &translated
                }
                None => raw,
            }
        };
        if *raw == Raw::Null {
            return Ok(Stored::Null);
        }
        let stored = match self.spec.kind {
            Kind::Time => Stored::I64(self.time.read(raw)?),
            Kind::I64 if self.hash => Stored::I64(hashed(&raw.word())),
            Kind::I64 => Stored::I64(self.whole(raw)?),
            Kind::F64 => Stored::F64(self.factor.apply(self.number(raw)?)),
            Kind::F32 => Stored::F32(self.single(raw)?),
            Kind::Bool => Stored::Bool(flag(raw)?),
            Kind::Text => match raw {
                Raw::List(_) => return Err(Refusal::of("is no text", format!("{raw} is no text"))),
                raw => Stored::Text(raw.word().into_owned()),
            },
            Kind::TextList => Stored::Shards(list(raw)?.iter().map(|item| item.word().as_ref().into()).collect()),
            Kind::F32List => {
                Stored::Floats(list(raw)?.iter().map(|item| self.feature(item)).collect::<Result<_, _>>()?)
            }
        };
        check(&self.spec, &stored)?;
        Ok(stored)
    }

    fn number(&self, raw: &Raw) -> Result<f64, Refusal> {
        match raw {
            Raw::Int(value) => Some(*value as f64),
            Raw::Float(value) => Some(*value),
            Raw::Text(text) => self.plain(text).parse().ok(),
            _ => None,
        }
        .ok_or_else(|| no_number(raw))
    }

    /// Text in the stored unit is rounded once, straight to 32 bits.
    fn single(&self, raw: &Raw) -> Result<f32, Refusal> {
        match raw {
            Raw::Text(text) if self.factor == Factor::ONE => self.plain(text).parse().map_err(|_| no_number(raw)),
            raw => Ok(self.factor.apply(self.number(raw)?) as f32),
        }
    }

    fn feature(&self, raw: &Raw) -> Result<f32, Refusal> {
        if *raw == Raw::Null { Ok(f32::NAN) } else { self.single(raw) }
    }

    fn plain<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let text = text.trim();
        if self.decimal_comma { Cow::Owned(text.replace(',', ".")) } else { Cow::Borrowed(text) }
    }

    fn whole(&self, raw: &Raw) -> Result<i64, Refusal> {
        let no_whole = || Refusal::of("is no whole number", format!("{raw} is no whole number that fits"));
        let exact = match raw {
            Raw::Int(value) => Some(*value),
            Raw::Text(text) => text.trim().parse::<i128>().ok(),
            _ => None,
        };
        if let Some(value) = exact {
            return i64::try_from(value).map_err(|_| no_whole());
        }
        let value = self.number(raw).map_err(|_| no_whole())?;
        let value = if self.round { value.round() } else { value };
        // Beyond 2^53 a float no longer tells neighbours apart, so an id would become another one.
        if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 { Ok(value as i64) } else { Err(no_whole()) }
    }
}

/// Refuses what the column does not allow, but for nulls, which may have a default.
pub(crate) fn check(spec: &ColumnSpec, stored: &Stored) -> Result<(), Refusal> {
    match spec.problem(&stored.cell()) {
        Some(rule) => Err(Refusal::of("is not allowed", format!("{} is not allowed: {rule}", stored.cell()))),
        None => Ok(()),
    }
}

fn no_number(raw: &Raw) -> Refusal {
    Refusal::of("is no number", format!("{raw} is no number"))
}

fn flag(raw: &Raw) -> Result<bool, Refusal> {
    let lower = raw.word().trim().to_ascii_lowercase();
    match (raw, lower.as_str()) {
        (Raw::Bool(value), _) => Ok(*value),
        (_, "true" | "t" | "yes" | "y" | "1") => Ok(true),
        (_, "false" | "f" | "no" | "n" | "0") => Ok(false),
        _ => Err(Refusal::of(
            "is neither true nor false",
            format!("{raw} is neither true nor false (nor 1, 0, yes, no)"),
        )),
    }
}

/// A list, or a text that holds one as JSON.
fn list(raw: &Raw) -> Result<Vec<Raw>, Refusal> {
    match raw {
        Raw::List(items) => return Ok(items.clone()),
        Raw::Text(text) => {
            if let Ok(items) = serde_json::from_str::<Vec<serde_json::Value>>(text) {
                return Ok(items.into_iter().map(Raw::from_json).collect());
            }
        }
        _ => {}
    }
    Err(Refusal::of("is no list", format!("{raw} is no list; write it as a JSON array")))
}

/// A positive 63-bit number that stands for a text: the same in every import.
fn hashed(text: &str) -> i64 {
    let digest = blake3::hash(text.as_bytes());
    let bytes: [u8; 8] = digest.as_bytes()[..8].try_into().expect("a digest has 32 bytes");
    (u64::from_le_bytes(bytes) >> 1).cast_signed()
}
