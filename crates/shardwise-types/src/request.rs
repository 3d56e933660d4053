//! What is asked: run this function for this event. Parsed once from JSON or a history row, trusted afterwards.

use serde::{Deserialize, Serialize};

use crate::{
    EventType, Exchange, FunctionId, InvalidInput, MarketSnapshot, Protocol, Region, Timestamp, TradingPair, UsdAmount,
};

macro_rules! levels {
    ($(#[$doc:meta])* $name:ident, $field:literal, $($(#[$vdoc:meta])* $variant:ident = $text:literal),*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// All levels, lowest first.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The level as it is written in requests and in the history.
            pub fn as_str(self) -> &'static str { match self { $(Self::$variant => $text),* } }

            /// Its rank from 0, as the model sees it.
            pub fn rank(self) -> u8 { self as u8 }

            /// Reads a level.
            ///
            /// # Errors
            /// Anything but the listed words is refused.
            pub fn parse(text: &str) -> Result<Self, InvalidInput> {
                Self::ALL.iter().copied().find(|level| level.as_str() == text).ok_or_else(|| {
                    InvalidInput::new($field, format!("'{text}' is not one of {}", [$($text),*].join(", ")))
                })
            }
        }
    };
}

levels! {
    /// How risky the operation is.
    RiskLevel, "riskLevel",
    /// Retail sized and reversible.
    Low = "low",
    /// The default when nothing is said.
    Medium = "medium",
    /// Large amounts.
    High = "high",
    /// Must not fail.
    Critical = "critical"
}

levels! {
    /// How soon the answer is needed; it sets the latency objective.
    Urgency, "urgency",
    /// Answer within 1,000 ms.
    Low = "low",
    /// Answer within 400 ms.
    Medium = "medium",
    /// Answer within 200 ms.
    High = "high",
    /// Answer within 120 ms.
    Critical = "critical"
}

impl Urgency {
    /// The latency objective in milliseconds: 1,000, 400, 200 and 120 from low to critical.
    pub fn objective_ms(self) -> f64 {
        match self {
            Self::Low => 1000.0,
            Self::Medium => 400.0,
            Self::High => 200.0,
            Self::Critical => 120.0,
        }
    }
}

levels! {
    /// How much the business wants it done.
    Priority, "priority",
    /// Background work.
    Low = "low",
    /// The default when nothing is said.
    Normal = "normal",
    /// Ahead of the rest.
    High = "high",
    /// Ahead of everything.
    Critical = "critical"
}

/// One request to place: a pure function to run for an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "RawRequest")]
pub struct PlacementRequest {
    /// The function to run.
    pub function: FunctionId,
    /// The kind of event that asked for it.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// The protocol that it concerns.
    pub protocol: Protocol,
    /// The trading pair that it concerns.
    pub trading_pair: TradingPair,
    /// The exchange that the function will call.
    pub exchange: Exchange,
    /// How risky it is.
    #[serde(rename = "riskLevel")]
    pub risk: RiskLevel,
    /// How soon the answer is needed.
    pub urgency: Urgency,
    /// How much the business wants it.
    pub priority: Priority,
    /// The amount at stake, when known.
    pub amount_usd: Option<UsdAmount>,
    /// Size of the input relative to the function's usual one; finite and above 0, 1 when unknown.
    pub data_complexity: f32,
    /// What the caller expects the function to take, in ms on an ordinary shard, when known.
    pub expected_compute_ms: Option<f32>,
    /// How many sequential calls to the exchange it makes.
    pub exchange_calls: u32,
    /// Memory that it needs, in MB.
    pub memory_mb: f32,
    /// The only region where it may run, if any.
    pub residency: Option<Region>,
    /// When the event happened.
    pub event_at: Timestamp,
    /// The market as the event reports it; otherwise the router's own view serves.
    #[serde(rename = "marketConditions")]
    pub market: Option<MarketSnapshot>,
}

/// The request as users write it; every field but `function`, `type`, `protocol` and `eventAt` may be left out.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawRequest {
    function: String,
    #[serde(rename = "type")]
    event_type: String,
    protocol: String,
    #[serde(default)]
    trading_pair: String,
    #[serde(default)]
    exchange: String,
    risk_level: Option<String>,
    urgency: Option<String>,
    priority: Option<String>,
    amount_usd: Option<f64>,
    data_complexity: Option<f32>,
    expected_compute_ms: Option<f32>,
    #[serde(default)]
    exchange_calls: u32,
    #[serde(default)]
    memory_mb: f32,
    residency: Option<String>,
    event_at: Timestamp,
    market_conditions: Option<MarketSnapshot>,
}

impl TryFrom<RawRequest> for PlacementRequest {
    type Error = InvalidInput;

    fn try_from(raw: RawRequest) -> Result<Self, InvalidInput> {
        let level = |text: Option<String>, default: &str| text.unwrap_or_else(|| default.to_owned());
        Self {
            function: raw.function.into(),
            event_type: raw.event_type.into(),
            protocol: raw.protocol.into(),
            trading_pair: raw.trading_pair.into(),
            exchange: raw.exchange.into(),
            risk: RiskLevel::parse(&level(raw.risk_level, "medium"))?,
            urgency: Urgency::parse(&level(raw.urgency, "medium"))?,
            priority: Priority::parse(&level(raw.priority, "normal"))?,
            amount_usd: raw.amount_usd.map(UsdAmount::new).transpose()?,
            data_complexity: raw.data_complexity.unwrap_or(1.0),
            expected_compute_ms: raw.expected_compute_ms,
            exchange_calls: raw.exchange_calls,
            memory_mb: raw.memory_mb,
            residency: raw.residency.map(Region::from),
            event_at: raw.event_at,
            market: raw.market_conditions,
        }
        .check()
    }
}

impl PlacementRequest {
    /// Reads a request from JSON with the specification's names (`type`, `tradingPair`, `riskLevel`, `amountUsd` …).
    ///
    /// # Errors
    /// Names the field that is missing, unknown or out of range, and what it may hold.
    pub fn from_json(json: &str) -> Result<Self, InvalidInput> {
        let raw: RawRequest = serde_json::from_str(json).map_err(|e| InvalidInput::new("request", e.to_string()))?;
        raw.try_into()
    }

    /// Checks the fields whose types allow more than their meaning; every border calls it once.
    ///
    /// # Errors
    /// Names the field and its range.
    pub fn check(self) -> Result<Self, InvalidInput> {
        let positive = |field: &str, value: f32| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => {
                Err(InvalidInput::new(field, format!("{value} is out of range; it must be a finite number above 0")))
            }
        };
        if self.function.as_str().is_empty() {
            return Err(InvalidInput::new("function", "is empty; name the function to run"));
        }
        positive("dataComplexity", self.data_complexity)?;
        if let Some(expected_ms) = self.expected_compute_ms {
            positive("expectedComputeMs", expected_ms)?;
        }
        if !(self.memory_mb.is_finite() && self.memory_mb >= 0.0) {
            return Err(InvalidInput::new(
                "memoryMb",
                format!("{} is out of range; it must be 0 or more", self.memory_mb),
            ));
        }
        if let Some(market) = &self.market {
            market.check()?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str =
        r#"{"function":"f","type":"PriceUpdated","protocol":"aave","eventAt":"2026-01-05T12:00:00Z"}"#;

    #[test]
    fn what_is_left_out_takes_its_default() {
        let request = PlacementRequest::from_json(MINIMAL).unwrap();
        assert_eq!(
            (request.risk, request.urgency, request.priority),
            (RiskLevel::Medium, Urgency::Medium, Priority::Normal)
        );
        assert_eq!((request.amount_usd, request.data_complexity), (None, 1.0));
    }

    #[test]
    fn wrong_fields_are_named() {
        for (field, json) in [
            ("amountUsd", r#""amountUsd":-5"#),
            ("riskLevel", r#""riskLevel":"extreme""#),
            ("urgency", r#""urgency":"now""#),
            ("dataComplexity", r#""dataComplexity":0"#),
            ("memoryMb", r#""memoryMb":-1"#),
            ("marketConditions", r#""marketConditions":{"volatility":-1}"#),
            ("amountUSD", r#""amountUSD":5"#),
        ] {
            let error = PlacementRequest::from_json(&MINIMAL.replace("\"function\"", &format!("{json},\"function\"")))
                .unwrap_err();
            assert!(error.to_string().contains(field), "{field}: {error}");
        }
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = PlacementRequest::from_json(r#"{"type":"x","protocol":"aave","eventAt":0}"#).unwrap_err();
        assert!(error.to_string().contains("function"), "{error}");
    }
}
