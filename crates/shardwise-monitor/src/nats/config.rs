//! What there is to set about the bus over NATS.

use std::time::Duration;

use async_nats::jetstream::{consumer, stream};

use crate::bus::BusError;

/// How to reach NATS, and the stream in which messages are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsConfig {
    /// URLs of the brokers, such as `nats://127.0.0.1:4222`; they may hold user and password, `tls://` asks for TLS.
    pub servers: Vec<String>,
    /// How the broker lists this client.
    pub client_name: String,
    /// Name of the stream: ASCII letters, digits, `-` and `_`.
    pub stream: String,
    /// Subjects that the stream takes, with wildcards.
    pub subjects: Vec<String>,
    /// How long the stream keeps messages.
    pub max_age: Duration,
    /// How many bytes the stream keeps; the oldest messages give way.
    pub max_bytes: u64,
    /// Within which time a second message of the same id is stored only once; at most `max_age`.
    pub duplicate_window: Duration,
    /// Messages that may wait here while the broker is away, at least 1.
    pub buffer: usize,
    /// Messages that may be on the way to the broker at a time, at least 1.
    pub in_flight: usize,
    /// How long to wait for the broker's answer before trying again.
    pub ack_timeout: Duration,
    /// How long the broker waits for an acknowledgement before it delivers again.
    pub ack_wait: Duration,
    /// Messages that a durable subscription may hold without acknowledgement; more than its follower's `most_unsaved`.
    pub max_unacknowledged: u32,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            servers: vec!["nats://127.0.0.1:4222".to_owned()],
            client_name: "shardwise".to_owned(),
            stream: "lucent-metrics".to_owned(),
            subjects: vec!["lucent.metrics.>".to_owned()],
            max_age: Duration::from_secs(24 * 3600),
            max_bytes: 1 << 30,
            duplicate_window: Duration::from_secs(120),
            buffer: 1024,
            in_flight: 64,
            ack_timeout: Duration::from_secs(2),
            ack_wait: Duration::from_secs(30),
            max_unacknowledged: 65_536,
        }
    }
}

impl NatsConfig {
    pub(super) fn check(&self) -> Result<(), BusError> {
        let wrong = [
            (self.servers.is_empty(), "servers: name at least one"),
            (!is_name(&self.stream), "stream: write letters, digits, '-' and '_'"),
            (self.subjects.is_empty(), "subjects: name at least one"),
            (self.buffer == 0, "buffer: at least 1"),
            (self.in_flight == 0, "in_flight: at least 1"),
            (self.max_unacknowledged == 0, "max_unacknowledged: at least 1"),
            (self.max_bytes == 0, "max_bytes: at least 1"),
            (i64::try_from(self.max_bytes).is_err(), "max_bytes: at most 2^63 - 1"),
            (self.duplicate_window > self.max_age, "duplicate_window: at most max_age"),
            (self.duplicate_window.is_zero(), "duplicate_window: above 0"),
            (self.ack_timeout.is_zero() || self.ack_wait.is_zero(), "ack_timeout and ack_wait: above 0"),
        ];
        match wrong.into_iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, problem)) => Err(BusError::Refused(problem.to_owned())),
            None => Ok(()),
        }
    }

    pub(super) fn stream_config(&self) -> stream::Config {
        stream::Config {
            name: self.stream.clone(),
            subjects: self.subjects.clone(),
            storage: stream::StorageType::File,
            retention: stream::RetentionPolicy::Limits,
            discard: stream::DiscardPolicy::Old,
            max_age: self.max_age,
            max_bytes: i64::try_from(self.max_bytes).unwrap_or(i64::MAX),
            duplicate_window: self.duplicate_window,
            num_replicas: 1,
            ..stream::Config::default()
        }
    }

    pub(super) fn consumer_config(&self, filter: &str, durable: &str) -> consumer::pull::Config {
        consumer::pull::Config {
            durable_name: Some(durable.to_owned()),
            filter_subject: filter.to_owned(),
            deliver_policy: consumer::DeliverPolicy::All,
            ack_policy: consumer::AckPolicy::Explicit,
            ack_wait: self.ack_wait,
            max_ack_pending: i64::from(self.max_unacknowledged),
            ..consumer::pull::Config::default()
        }
    }
}

pub(super) fn check_durable(durable: &str) -> Result<(), BusError> {
    if is_name(durable) {
        return Ok(());
    }
    Err(BusError::Refused(format!("durable name '{durable}': write letters, digits, '-' and '_'")))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_named() {
        assert_eq!(NatsConfig::default().check(), Ok(()));
        let default = NatsConfig::default;
        for (field, config) in [
            ("servers", NatsConfig { servers: Vec::new(), ..default() }),
            ("stream", NatsConfig { stream: "a.b".to_owned(), ..default() }),
            ("subjects", NatsConfig { subjects: Vec::new(), ..default() }),
            ("buffer", NatsConfig { buffer: 0, ..default() }),
            ("in_flight", NatsConfig { in_flight: 0, ..default() }),
            ("max_unacknowledged", NatsConfig { max_unacknowledged: 0, ..default() }),
            ("max_bytes", NatsConfig { max_bytes: u64::MAX, ..default() }),
            ("duplicate_window", NatsConfig { max_age: Duration::from_secs(1), ..default() }),
            ("ack_wait", NatsConfig { ack_wait: Duration::ZERO, ..default() }),
        ] {
            assert!(config.check().unwrap_err().to_string().contains(field), "{field}");
        }
        for durable in ["", "a.b", "a b", "*"] {
            assert!(check_durable(durable).is_err(), "{durable}");
        }
    }
}
