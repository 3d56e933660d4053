//! What one shard may use at most, and what it uses now.

use serde::{Deserialize, Serialize};
use shardwise_types::InvalidInput;

/// What a shard may use at most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShardLimits {
    /// Cores that run requests, above 0.
    pub max_cpu_cores: f64,
    /// Memory in MB, above 0.
    pub max_memory_mb: f64,
    /// Functions that are loaded at a time, 1 or more; `None` is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent_functions: Option<u32>,
    /// Requests that wait or run, 1 or more; `None` is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests_in_flight: Option<u32>,
}

/// What a shard uses now.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardUsage {
    /// Cores that are busy.
    pub cpu_cores: f64,
    /// Memory in use, in MB.
    pub memory_mb: f64,
    /// Functions that are loaded.
    pub functions: u32,
    /// Requests that wait or run.
    pub requests_in_flight: u32,
}

impl ShardLimits {
    /// Checks the numbers by themselves.
    ///
    /// # Errors
    /// Names the first that is not a limit.
    pub fn check(&self) -> Result<(), InvalidInput> {
        for (field, value) in [("maxCpuCores", self.max_cpu_cores), ("maxMemoryMb", self.max_memory_mb)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(InvalidInput::new(field, format!("{value} must be a finite number above 0")));
            }
        }
        let counts = [
            ("maxConcurrentFunctions", self.max_concurrent_functions),
            ("maxRequestsInFlight", self.max_requests_in_flight),
        ];
        match counts.into_iter().find(|(_, count)| *count == Some(0)) {
            Some((field, _)) => Err(InvalidInput::new(field, "0 would stop the shard; leave it out for no limit")),
            None => Ok(()),
        }
    }

    /// Checks that what is used now fits.
    ///
    /// # Errors
    /// Lists all that does not fit, with both numbers; a usage that is not a number does not fit, either.
    pub fn admit(&self, usage: &ShardUsage) -> Result<(), InvalidInput> {
        let no_limit = |count: Option<u32>| count.map_or(f64::INFINITY, f64::from);
        let exceeded: Vec<String> = [
            (usage.cpu_cores, self.max_cpu_cores, "cores"),
            (usage.memory_mb, self.max_memory_mb, "MB of memory"),
            (f64::from(usage.functions), no_limit(self.max_concurrent_functions), "functions"),
            (f64::from(usage.requests_in_flight), no_limit(self.max_requests_in_flight), "requests in flight"),
        ]
        .into_iter()
        .filter(|(used, most, _)| used.is_nan() || used > most)
        .map(|(used, most, what)| format!("{used} {what} in use, {most} allowed"))
        .collect();
        if exceeded.is_empty() {
            return Ok(());
        }
        let problem =
            format!("current usage exceeds the new limits ({}); migrate functions first", exceeded.join(", "));
        Err(InvalidInput::new("limits", problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ShardLimits = ShardLimits {
        max_cpu_cores: 4.0,
        max_memory_mb: 8192.0,
        max_concurrent_functions: Some(32),
        max_requests_in_flight: None,
    };

    #[test]
    fn absurd_limits_are_refused() {
        LIMITS.check().expect("they are right");
        for (limits, field) in [
            (ShardLimits { max_cpu_cores: 0.0, ..LIMITS }, "maxCpuCores"),
            (ShardLimits { max_memory_mb: f64::NAN, ..LIMITS }, "maxMemoryMb"),
            (ShardLimits { max_concurrent_functions: Some(0), ..LIMITS }, "maxConcurrentFunctions"),
            (ShardLimits { max_requests_in_flight: Some(0), ..LIMITS }, "maxRequestsInFlight"),
        ] {
            assert_eq!(limits.check().expect_err("absurd").field, field);
        }
    }

    #[test]
    fn a_refusal_gives_all_numbers() {
        let usage = ShardUsage { cpu_cores: 4.0, memory_mb: 8192.0, functions: 32, requests_in_flight: 1_000_000 };
        LIMITS.admit(&usage).expect("just fits");
        let usage = ShardUsage { cpu_cores: 5.5, functions: 33, ..usage };
        let problem = LIMITS.admit(&usage).expect_err("too much").problem;
        for part in ["5.5 cores in use, 4 allowed", "33 functions in use, 32 allowed", "migrate functions first"] {
            assert!(problem.contains(part), "'{part}' is not in {problem}");
        }
        assert!(!problem.contains("memory"), "{problem}");
        assert!(LIMITS.admit(&ShardUsage { cpu_cores: f64::NAN, ..ShardUsage::default() }).is_err());
    }
}
