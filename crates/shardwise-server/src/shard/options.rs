//! What a reference shard is told when it starts.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shardwise_client::AccessFiles;
use shardwise_types::{HardwareClass, InvalidInput, Region, ShardId, ShardShape};

use super::faults::Fault;

/// The most cores of a shard: each is a thread.
const MOST_CORES: f32 = 64.0;
/// The longest time that any option may name, in ms: an hour.
const MOST_MS: f64 = 3.6e6;

/// A reference shard; in files all fields but `id` may be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ShardOptions {
    /// Its name.
    pub id: ShardId,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where others reach it, as `http://host:port`; `None` is where it listens.
    pub address: Option<String>,
    /// What it says of itself. `cores` is also how many threads run requests, and `hardware` which functions run fast;
    /// the clock is only told, `speed` holds for it.
    pub shape: ShardShape,
    /// Speed of a core in [0.001, 1]: 1 is this machine; at 0.5 everything takes twice as long. The rest of the time
    /// the core is held asleep, so that many shards fit on a small machine.
    pub speed: f64,
    /// Requests that may wait; one more is refused with 503.
    pub queue_capacity: usize,
    /// A function that was not used for this long must be loaded again, in ms.
    pub warm_ttl_ms: f64,
    /// Round trip to the router, in ms: answers are held back for so long.
    pub rtt_ms: f64,
    /// Round trip to each exchange, in ms: an answer is held back for so long for each call that the function makes to
    /// it.
    pub exchange_rtt_ms: BTreeMap<String, f64>,
    /// Round trip to an exchange that is not listed, in ms.
    pub other_exchange_rtt_ms: f64,
    /// What goes wrong, and when.
    pub faults: Vec<Fault>,
    /// Seed of what fails by chance.
    pub seed: u64,
    /// Routers that reports are posted to, as `http://host:port` or `https://host:port`.
    pub report_to: Vec<String>,
    /// File whose first line is the bearer token of these routers.
    pub token_file: Option<PathBuf>,
    /// Certificate in PEM of the authority that signed theirs, for `https`.
    pub ca_file: Option<PathBuf>,
    /// NATS server on which reports are published and configuration is changed, such as `nats://127.0.0.1:4222`; without one
    /// both go by HTTP, the configuration with the first of these routers.
    pub nats: Option<String>,
    /// Where it keeps what was changed of its configuration; `None` takes part in no changes.
    pub state: Option<PathBuf>,
    /// Time between reports, in ms.
    pub report_every_ms: u64,
    /// Ends when its standard input ends: a child then never outlives whoever started it.
    pub ends_with_stdin: bool,
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self {
            id: ShardId::new("shard-general"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            address: None,
            shape: ShardShape {
                region: Region::new("us-east"),
                cores: 2.0,
                clock_ghz: 2.8,
                memory_mb: 16_384.0,
                hardware: HardwareClass::General,
                max_amount_usd: None,
            },
            speed: 1.0,
            queue_capacity: 256,
            warm_ttl_ms: 30_000.0,
            rtt_ms: 0.0,
            exchange_rtt_ms: BTreeMap::new(),
            other_exchange_rtt_ms: 0.0,
            faults: Vec::new(),
            seed: 1,
            report_to: Vec::new(),
            token_file: None,
            ca_file: None,
            nats: None,
            state: None,
            report_every_ms: 1_000,
            ends_with_stdin: false,
        }
    }
}

impl ShardOptions {
    /// Checks the fields whose types allow more than their meaning.
    ///
    /// # Errors
    /// Names the field and its range.
    pub fn check(&self) -> Result<(), InvalidInput> {
        let within = |field: &str, value: f64, least: f64, most: f64| match (least..=most).contains(&value) {
            true => Ok(()),
            false => Err(InvalidInput::new(field, format!("{value} must lie between {least} and {most}"))),
        };
        let shape = &self.shape;
        if self.id.as_str().is_empty() {
            return Err(InvalidInput::new("id", "is empty; name the shard"));
        }
        if !(shape.cores.fract() == 0.0 && (1.0..=MOST_CORES).contains(&shape.cores)) {
            let problem = format!("{} must be a whole number from 1 to {MOST_CORES}", shape.cores);
            return Err(InvalidInput::new("shape.cores", problem));
        }
        within("shape.clockGhz", f64::from(shape.clock_ghz), 0.1, 100.0)?;
        within("shape.memoryMb", f64::from(shape.memory_mb), 1.0, 1e9)?;
        if shape.max_amount_usd.is_some_and(|usd| usd.is_nan() || usd < 0.0) {
            return Err(InvalidInput::new("shape.maxAmountUsd", "must be 0 or more, or left out for no limit"));
        }
        within("speed", self.speed, 0.001, 1.0)?;
        within("queueCapacity", self.queue_capacity as f64, 1.0, 1e6)?;
        within("warmTtlMs", self.warm_ttl_ms, 0.0, MOST_MS)?;
        within("rttMs", self.rtt_ms, 0.0, MOST_MS)?;
        within("otherExchangeRttMs", self.other_exchange_rtt_ms, 0.0, MOST_MS)?;
        self.exchange_rtt_ms.values().try_for_each(|rtt_ms| within("exchangeRttMs", *rtt_ms, 0.0, MOST_MS))?;
        within("reportEveryMs", self.report_every_ms as f64, 10.0, MOST_MS)?;
        if let Some(url) = self.address.as_ref().filter(|url| !url.starts_with("http://")) {
            return Err(InvalidInput::new("address", format!("'{url}' must be written as http://host:port")));
        }
        let is_router = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        match self.report_to.iter().find(|url| !is_router(url)) {
            Some(url) => {
                let problem = format!("'{url}' must be written as http://host:port or https://host:port");
                Err(InvalidInput::new("reportTo", problem))
            }
            None if self.ca_file.is_none() && self.report_to.iter().any(|url| url.starts_with("https://")) => Err(
                InvalidInput::new("caFile", "must name the certificate of the authority that https://… is trusted by"),
            ),
            None => Ok(()),
        }
    }

    /// What the routers ask of their clients.
    pub(super) fn access(&self) -> AccessFiles {
        AccessFiles { token_file: self.token_file.clone(), ca_file: self.ca_file.clone() }
    }

    /// Threads that run requests.
    pub(super) fn workers(&self) -> usize {
        self.shape.cores as usize
    }

    /// Round trip to an exchange, in ms.
    pub(super) fn rtt_to_exchange_ms(&self, exchange: &str) -> f64 {
        self.exchange_rtt_ms.get(exchange).copied().unwrap_or(self.other_exchange_rtt_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        type Spoil = fn(&mut ShardOptions);
        let cases: [(&str, Spoil); 9] = [
            ("id", |options| options.id = "".into()),
            ("shape.cores", |options| options.shape.cores = 1.5),
            ("shape.memoryMb", |options| options.shape.memory_mb = f32::NAN),
            ("speed", |options| options.speed = 2.0),
            ("rttMs", |options| options.rtt_ms = -1.0),
            ("reportEveryMs", |options| options.report_every_ms = 0),
            ("reportTo", |options| options.report_to = vec!["router:80".to_owned()]),
            ("caFile", |options| options.report_to = vec!["https://router:80".to_owned()]),
            ("address", |options| options.address = Some("router:80".to_owned())),
        ];
        assert_eq!(ShardOptions::default().check(), Ok(()));
        for (field, spoil) in cases {
            let mut options = ShardOptions::default();
            spoil(&mut options);
            let error = options.check().unwrap_err().to_string();
            assert!(error.contains(field), "{field}: {error}");
        }
    }

    #[test]
    fn options_survive_being_written() {
        let options = ShardOptions {
            exchange_rtt_ms: BTreeMap::from([("binance".to_owned(), 18.25)]),
            faults: vec!["slow=3@1000..2000".parse().unwrap(), "stall".parse().unwrap()],
            ..ShardOptions::default()
        };
        let json = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<ShardOptions>(&json).unwrap(), options);
        let short: ShardOptions = serde_json::from_str(r#"{"id":"shard-general"}"#).unwrap();
        assert_eq!(short, ShardOptions::default());
    }
}
