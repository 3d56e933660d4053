//! One checked configuration of the specification's strategies, the hard rules and local execution, read from TOML.
//!
//! Every field has the specification's number as its default, so a file says only what differs.

use serde::{Deserialize, Serialize};
use shardwise_types::{DecidedBy, InvalidInput, ShardId};

use crate::{AffinityConfig, GeographicConfig, ProtocolConfig, ResourceConfig, RiskConfig, RiskWeights, Rules};

/// What a strategy is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing.
    Off,
    /// It decides when nothing is known that would decide better.
    #[default]
    Fallback,
    /// What it would not take by itself is a candidate only while nothing else is left, whoever decides.
    Constraint,
}

/// A strategy by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrategyName {
    /// S1.
    Protocol,
    /// S2.
    Risk,
    /// S3.
    Geographic,
    /// S5.
    Resource,
}

impl StrategyName {
    /// All of them, in the order in which they are asked by default.
    pub const ALL: [Self; 4] = [Self::Risk, Self::Protocol, Self::Geographic, Self::Resource];

    /// Its name as a decider.
    pub fn decided_by(self) -> DecidedBy {
        match self {
            Self::Protocol => DecidedBy::ProtocolStrategy,
            Self::Risk => DecidedBy::RiskStrategy,
            Self::Geographic => DecidedBy::GeographicStrategy,
            Self::Resource => DecidedBy::ResourceMatcher,
        }
    }
}

/// What a router may run itself when no shard is eligible (S13).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalConfig {
    /// Whether it may run anything.
    pub enabled: bool,
    /// The largest amount, in US dollars; an unknown amount is allowed.
    pub max_amount_usd: f64,
    /// The most memory that a function may need, in MB.
    pub memory_mb: f32,
}

impl Default for LocalConfig {
    /// Nothing until it is enabled, then small amounts and small functions.
    fn default() -> Self {
        Self { enabled: false, max_amount_usd: 10_000.0, memory_mb: 512.0 }
    }
}

/// All of it. Made by [`Default`], changed and checked by whoever takes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StrategiesConfig {
    /// In which order strategies of mode `fallback` are asked; one that is not listed is not asked.
    pub order: Vec<StrategyName>,
    /// Limits of the hard rules.
    pub rules: Rules,
    /// What the router may run itself.
    pub local: LocalConfig,
    /// S1.
    pub protocol: ProtocolConfig,
    /// S2.
    pub risk: RiskConfig,
    /// S3.
    pub geographic: GeographicConfig,
    /// S5.
    pub resource: ResourceConfig,
}

impl Default for StrategiesConfig {
    fn default() -> Self {
        Self {
            order: StrategyName::ALL.to_vec(),
            rules: Rules::default(),
            local: LocalConfig::default(),
            protocol: ProtocolConfig::default(),
            risk: RiskConfig::default(),
            geographic: GeographicConfig::default(),
            resource: ResourceConfig::default(),
        }
    }
}

/// Most executions that a window may hold: it bounds the memory.
const MOST_EXECUTIONS: usize = 10_000;

impl StrategiesConfig {
    /// Reads and checks TOML; what it does not say is the default.
    ///
    /// # Errors
    /// Names the line of what cannot be read, or the field that is out of range.
    pub fn from_toml(text: &str) -> Result<Self, InvalidInput> {
        let config: Self = toml::from_str(text).map_err(|e| unreadable(text, &e))?;
        config.check()?;
        Ok(config)
    }

    /// All fields as TOML that [`from_toml`](Self::from_toml) reads.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("names and numbers can be written as TOML")
    }

    /// Checks every field.
    ///
    /// # Errors
    /// Names the field that is out of range, and the range.
    pub fn check(&self) -> Result<(), InvalidInput> {
        self.check_order()?;
        at_least_zero("rules.max_report_age_ms", self.rules.max_report_age_ms)?;
        at_least_zero("local.max_amount_usd", self.local.max_amount_usd)?;
        at_least_zero("local.memory_mb", f64::from(self.local.memory_mb))?;
        self.protocol.check()?;
        self.risk.check()?;
        self.geographic.check()?;
        self.resource.check()
    }

    /// What a strategy is used for.
    pub fn mode(&self, name: StrategyName) -> Mode {
        match name {
            StrategyName::Protocol => self.protocol.mode,
            StrategyName::Risk => self.risk.mode,
            StrategyName::Geographic => self.geographic.mode,
            StrategyName::Resource => self.resource.mode,
        }
    }

    fn check_order(&self) -> Result<(), InvalidInput> {
        let is_twice = |name: &&StrategyName| self.order.iter().filter(|other| other == name).count() > 1;
        match self.order.iter().find(is_twice) {
            Some(name) => Err(InvalidInput::new("order", format!("names {name:?} twice").to_lowercase())),
            None => Ok(()),
        }
    }
}

impl ProtocolConfig {
    fn check(&self) -> Result<(), InvalidInput> {
        let weights = &self.weights;
        share("protocol.max_load", self.max_load)?;
        above_zero("protocol.latency_scale_ms", self.latency_scale_ms)?;
        sum_to_one("protocol.weights", &[weights.load, weights.affinity, weights.latency])?;
        self.executions.check("protocol.executions")?;
        no_empty_names("protocol.general", &self.general)?;
        lists("protocol.shards", self.shards.iter().map(|(protocol, shards)| (protocol.as_str(), shards)))
    }
}

impl RiskConfig {
    fn check(&self) -> Result<(), InvalidInput> {
        at_least_zero("risk.large_usd", self.large_usd)?;
        at_least_zero("risk.huge_usd", self.huge_usd)?;
        if self.huge_usd < self.large_usd {
            return Err(out_of_range("risk.huge_usd", self.huge_usd, "it must be risk.large_usd or more"));
        }
        above_zero("risk.latency_scale_ms", self.latency_scale_ms)?;
        at_least_zero("risk.experience_prior", self.experience_prior)?;
        at_least_zero("risk.core_hour_usd", self.core_hour_usd)?;
        window("risk.window", self.window)?;
        for (urgency, weights) in &self.weights {
            let RiskWeights { latency, load, experience, cost } = *weights;
            sum_to_one(&format!("risk.weights.{}", urgency.as_str()), &[latency, load, experience, cost])?;
        }
        no_empty_names("risk.huge_shards", &self.huge_shards)?;
        no_empty_names("risk.critical_capable", &self.critical_capable)?;
        no_empty_names("risk.general", &self.general)?;
        lists("risk.shards", self.shards.iter().map(|(risk, shards)| (risk.as_str(), shards)))
    }
}

impl GeographicConfig {
    fn check(&self) -> Result<(), InvalidInput> {
        share("geographic.max_load", self.max_load)?;
        at_least_zero("geographic.latency_margin_ms", self.latency_margin_ms)?;
        at_least_zero("geographic.affinity_margin", self.affinity_margin)?;
        self.executions.check("geographic.executions")?;
        lists("geographic.shards", self.shards.iter().map(|(region, shards)| (region.as_str(), shards)))
    }
}

impl ResourceConfig {
    fn check(&self) -> Result<(), InvalidInput> {
        let weights = &self.weights;
        share("resource.success_prior", self.success_prior)?;
        at_least_zero("resource.success_prior_weight", self.success_prior_weight)?;
        let parts = [weights.cpu, weights.memory, weights.load, weights.priority, weights.affinity];
        sum_to_one("resource.weights", &parts)?;
        self.executions.check("resource.executions")?;
        no_empty_names("resource.overflow", std::slice::from_ref(&self.overflow))
    }
}

impl AffinityConfig {
    fn check(&self, field: &str) -> Result<(), InvalidInput> {
        window(&format!("{field}.window"), self.window)?;
        share(&format!("{field}.unknown"), self.unknown)?;
        above_zero(&format!("{field}.scale_ms"), self.scale_ms)?;
        sum_to_one(&format!("{field}, success and speed"), &[self.success, self.speed])
    }
}

/// What TOML says of its own faults, with the line.
fn unreadable(text: &str, error: &toml::de::Error) -> InvalidInput {
    let line = error.span().map(|span| 1 + text[..span.start].matches('\n').count());
    let field = line.map_or_else(|| "strategies".to_owned(), |line| format!("strategies, line {line}"));
    InvalidInput::new(&field, error.message())
}

fn out_of_range(field: &str, value: f64, range: &str) -> InvalidInput {
    InvalidInput::new(field, format!("{value} is out of range; {range}"))
}

fn ensure(holds: bool, field: &str, value: f64, range: &str) -> Result<(), InvalidInput> {
    if holds { Ok(()) } else { Err(out_of_range(field, value, range)) }
}

fn share(field: &str, value: f64) -> Result<(), InvalidInput> {
    ensure((0.0..=1.0).contains(&value), field, value, "it must lie between 0 and 1")
}

fn at_least_zero(field: &str, value: f64) -> Result<(), InvalidInput> {
    ensure(value.is_finite() && value >= 0.0, field, value, "it must be a finite number, 0 or more")
}

fn above_zero(field: &str, value: f64) -> Result<(), InvalidInput> {
    ensure(value.is_finite() && value > 0.0, field, value, "it must be a finite number above 0")
}

fn window(field: &str, value: usize) -> Result<(), InvalidInput> {
    let range = format!("it must be 1 to {MOST_EXECUTIONS} executions");
    ensure((1..=MOST_EXECUTIONS).contains(&value), field, value as f64, &range)
}

fn sum_to_one(field: &str, weights: &[f64]) -> Result<(), InvalidInput> {
    weights.iter().try_for_each(|weight| at_least_zero(field, *weight))?;
    let sum: f64 = weights.iter().sum();
    ensure((sum - 1.0).abs() < 1e-6, field, sum, "the weights must add up to 1")
}

fn no_empty_names(field: &str, names: &[ShardId]) -> Result<(), InvalidInput> {
    match names.iter().any(|name| name.as_str().trim().is_empty()) {
        true => Err(InvalidInput::new(field, "holds an empty name; a shard has a name such as shard-general")),
        false => Ok(()),
    }
}

fn lists<'a>(field: &str, map: impl Iterator<Item = (&'a str, &'a Vec<ShardId>)>) -> Result<(), InvalidInput> {
    for (key, names) in map {
        no_empty_names(&format!("{field}.{key}"), names)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_specification() {
        let config = StrategiesConfig::from_toml("").unwrap();
        assert_eq!(config, StrategiesConfig::default());
        assert_eq!(StrategyName::ALL.map(|name| config.mode(name)), [Mode::Fallback; 4]);
        assert!(!config.local.enabled);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut config = StrategiesConfig::from_toml(
            r#"
            order = ["resource", "risk"]
            [local]
            enabled = true
            [protocol]
            mode = "constraint"
            shards = { lido = ["shard-lido-1"] }
            [risk.weights]
            high = { latency = 1, load = 0, experience = 0, cost = 0 }
            [resource.functions.price_arbitrage]
            cpu = "1500m"
            memory = "512Mi"
            "#,
        )
        .unwrap();
        let needs = config.resource.functions["price_arbitrage"];
        assert_eq!((needs.cpu.value(), needs.memory.unwrap().megabytes()), (1.5, 512.0));
        assert_eq!(config.protocol.max_load, 0.8, "what is not said is the default");
        config.geographic.max_load = 0.1 + 0.2;
        let written = config.to_toml();
        assert_eq!(StrategiesConfig::from_toml(&written).unwrap(), config, "{written}");
        assert!(written.contains("\"1500m\"") && written.contains("\"512Mi\""), "{written}");
        let defaults = StrategiesConfig::default();
        assert_eq!(StrategiesConfig::from_toml(&defaults.to_toml()).unwrap(), defaults);
    }

    #[test]
    fn wrong_values_are_refused_by_field_and_range() {
        for (text, field, problem) in [
            ("[protocol]\nmax_load = 1.5", "protocol.max_load", "between 0 and 1"),
            ("[protocol.weights]\nload = 0.9", "protocol.weights", "add up to 1"),
            ("[resource.weights]\ncpu = -0.25\nmemory = 0.75", "resource.weights", "0 or more"),
            ("[protocol]\ngeneral = [\"\"]", "protocol.general", "empty name"),
            ("[geographic.shards]\nus-west = [\" \"]", "geographic.shards.us-west", "empty name"),
            ("[resource]\noverflow = \"\"", "resource.overflow", "empty name"),
            ("[risk]\nwindow = 0", "risk.window", "1 to 10000"),
            ("[geographic.executions]\nwindow = 0", "geographic.executions.window", "1 to 10000"),
            ("[risk]\nlarge_usd = 2e7", "risk.huge_usd", "risk.large_usd or more"),
            ("[risk.weights]\nlow = { latency = 1, load = 1, experience = 0, cost = 0 }", "risk.weights.low", "add up"),
            ("[local]\nmax_amount_usd = nan", "local.max_amount_usd", "0 or more"),
            ("order = [\"risk\", \"risk\"]", "order", "names risk twice"),
        ] {
            let error = StrategiesConfig::from_toml(text).unwrap_err();
            assert!(error.field == field && error.problem.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_line() {
        for (text, field, problem) in [
            ("[risk]\nmode = \"maybe\"", "strategies, line 2", "expected one of `off`, `fallback`, `constraint`"),
            ("[risk]\nmood = \"off\"", "strategies, line 2", "unknown field `mood`"),
            ("order = [\"luck\"]", "strategies, line 1", "`protocol`, `risk`, `geographic`, `resource`"),
            ("[risk.shards]\nsome = []", "strategies, line 2", "`low`, `medium`, `high`, `critical`"),
            ("[resource.others]\ncpu = \"half\"", "strategies, line 2", "'half' is not a quantity"),
            ("[protocol", "strategies, line 1", ""),
        ] {
            let error = StrategiesConfig::from_toml(text).unwrap_err();
            assert!(error.field == field && error.problem.contains(problem), "{text}: {error}");
        }
    }
}
