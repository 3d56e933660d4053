//! What a shard publishes: one JSON document a period, versioned, numbered within its boot.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use shardwise_types::{InvalidInput, ShardId, ShardReport, ShardShape, Timestamp};

use crate::details::{BusinessMetrics, FunctionMetrics, NetworkMetrics, SystemMetrics};
use crate::load::{LoadFormula, OtherResources, Standing};
use crate::subject::{shard_subject, shard_token};

/// The version that this crate writes, and the only one that it reads.
pub const SCHEMA_VERSION: u32 = 1;
/// Largest document in bytes; larger ones are neither published nor read.
pub const LARGEST_ENVELOPE: usize = 256 * 1024;

const LONGEST_BOOT_ID: usize = 64;
const LONGEST_ADDRESS: usize = 512;

/// One life of a shard's process: sequences start anew with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct BootId(String);

impl BootId {
    /// The boot of the process `pid` that started at that time.
    pub fn new(started_at: Timestamp, pid: u32) -> Self {
        Self(format!("{:x}-{pid:x}", started_at.nanos()))
    }

    /// Reads a boot id.
    ///
    /// # Errors
    /// It must have 1 to 64 bytes, ASCII letters, digits and `-` only.
    pub fn parse(text: &str) -> Result<Self, InvalidInput> {
        let legal = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if text.is_empty() || text.len() > LONGEST_BOOT_ID || !legal {
            let problem = format!("must be 1 to {LONGEST_BOOT_ID} ASCII letters, digits and '-'");
            return Err(InvalidInput::new("bootId", problem));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for BootId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What tells one envelope from all others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EnvelopeId {
    /// The shard.
    pub shard: ShardId,
    /// Its boot.
    pub boot: BootId,
    /// The number within the boot.
    pub sequence: u64,
}

/// What a shard publishes once a period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The shard.
    pub shard: ShardId,
    /// Its boot.
    pub boot_id: BootId,
    /// Counts the envelopes of the boot from 0, without a gap.
    pub sequence: u64,
    /// Time since the boot in ms, by a clock that never jumps.
    pub since_boot_ms: u64,
    /// URL where the shard answers; none when it takes no requests from outside.
    #[serde(default)]
    pub address: Option<String>,
    /// What does not change about the shard.
    pub shape: ShardShape,
    /// What routers decide by. `eventAt` is the shard's wall clock; `knownAt` says the same, and routers put their own
    /// there.
    pub report: ShardReport,
    /// Load, health and remaining capacity, as the shard sees them.
    pub standing: Standing,
    /// The machine.
    #[serde(default)]
    pub system: SystemMetrics,
    /// The functions that did something since the envelope before, or still do.
    #[serde(default)]
    pub functions: Vec<FunctionMetrics>,
    /// The trades; none when the shard does not tell.
    #[serde(default)]
    pub business: Option<BusinessMetrics>,
    /// The networks; none when the shard does not tell.
    #[serde(default)]
    pub network: Option<NetworkMetrics>,
}

/// Why bytes are no envelope; few, so that they can be a label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// More than [`LARGEST_ENVELOPE`] bytes.
    TooLarge,
    /// No JSON, or not the fields of an envelope.
    Malformed,
    /// Written by another version.
    UnknownVersion,
    /// Published where another shard publishes.
    WrongSubject,
}

/// Bytes that are no envelope, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Refused {
    /// What is wrong, in kind.
    pub kind: RefusalKind,
    /// The shard that the bytes name, where they name one.
    pub shard: Option<ShardId>,
    /// What is wrong.
    pub problem: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    schema_version: Option<u32>,
    shard: Option<ShardId>,
}

impl Envelope {
    /// An envelope that tells nothing beyond the report.
    pub fn new(id: EnvelopeId, since_boot_ms: u64, shape: ShardShape, report: ShardReport) -> Self {
        let standing = Standing::of(LoadFormula::default(), &report, shape.cores, OtherResources::default());
        Self {
            schema_version: SCHEMA_VERSION,
            shard: id.shard,
            boot_id: id.boot,
            sequence: id.sequence,
            since_boot_ms,
            address: None,
            shape,
            report,
            standing,
            system: SystemMetrics::default(),
            functions: Vec::new(),
            business: None,
            network: None,
        }
    }

    /// What tells it from all others.
    pub fn id(&self) -> EnvelopeId {
        EnvelopeId { shard: self.shard.clone(), boot: self.boot_id.clone(), sequence: self.sequence }
    }

    /// When it was measured, by the shard's wall clock.
    pub fn event_at(&self) -> Timestamp {
        self.report.event_at
    }

    /// The subject on which it is published.
    ///
    /// # Errors
    /// See [`shard_subject`].
    pub fn subject(&self) -> Result<String, InvalidInput> {
        shard_subject(&self.shard)
    }

    /// The id by which a bus knows a second copy of it.
    ///
    /// # Errors
    /// See [`shard_subject`].
    pub fn message_id(&self) -> Result<String, InvalidInput> {
        Ok(format!("{}/{}/{}", shard_token(&self.shard)?, self.boot_id, self.sequence))
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// More than [`LARGEST_ENVELOPE`] bytes.
    pub fn to_json(&self) -> Result<Bytes, InvalidInput> {
        let json = serde_json::to_vec(self).map_err(|error| InvalidInput::new("envelope", error.to_string()))?;
        if json.len() > LARGEST_ENVELOPE {
            let problem = format!("{} bytes; at most {LARGEST_ENVELOPE} can be published: tell less", json.len());
            return Err(InvalidInput::new("envelope", problem));
        }
        Ok(json.into())
    }

    /// Reads what was published on a subject. Values are not judged here; the fleet view does that.
    ///
    /// # Errors
    /// Bytes that are no envelope of this version, or one of another shard than the subject's, are refused with the
    /// reason.
    pub fn from_json(subject: &str, json: &[u8]) -> Result<Self, Refused> {
        let refused = |kind, shard: Option<ShardId>, problem: String| Refused { kind, shard, problem };
        if json.len() > LARGEST_ENVELOPE {
            let problem = format!("{} bytes on {subject}; at most {LARGEST_ENVELOPE} are read", json.len());
            return Err(refused(RefusalKind::TooLarge, None, problem));
        }
        let malformed = |shard: Option<ShardId>, error: serde_json::Error| {
            refused(RefusalKind::Malformed, shard, format!("no envelope on {subject}: {error}"))
        };
        let head: Head = serde_json::from_slice(json).map_err(|error| malformed(None, error))?;
        // Only a shard's own subject may speak of it.
        let owner = head.shard.filter(|shard| shard_subject(shard).is_ok_and(|own| own == subject));
        if head.schema_version != Some(SCHEMA_VERSION) {
            let found = head.schema_version.map_or("none".to_owned(), |version| version.to_string());
            let problem = format!("schemaVersion on {subject} is {found}; only {SCHEMA_VERSION} is understood");
            return Err(refused(RefusalKind::UnknownVersion, owner, problem));
        }
        let envelope: Self = serde_json::from_slice(json).map_err(|error| malformed(owner.clone(), error))?;
        let Some(owner) = owner else {
            let problem = format!("an envelope of shard '{}' on {subject}, which is not its subject", envelope.shard);
            return Err(refused(RefusalKind::WrongSubject, None, problem));
        };
        if envelope.address.as_ref().is_some_and(|address| address.len() > LONGEST_ADDRESS) {
            let problem = format!("address on {subject} has more than {LONGEST_ADDRESS} bytes");
            return Err(refused(RefusalKind::Malformed, Some(owner), problem));
        }
        Ok(envelope)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_support::envelope;

    fn subject() -> String {
        envelope("a", 7).subject().unwrap()
    }

    fn refusal(json: &str) -> Refused {
        Envelope::from_json(&subject(), json.as_bytes()).unwrap_err()
    }

    fn changed(from: &str, to: &str) -> String {
        let json = String::from_utf8(envelope("a", 7).to_json().unwrap().to_vec()).unwrap();
        let changed = json.replacen(from, to, 1);
        assert_ne!(json, changed, "{json}");
        changed
    }

    #[test]
    fn what_is_written_is_read() {
        let mut written = envelope("a", 7);
        written.address = Some("http://10.0.0.1:7000".to_owned());
        written.business = Some(BusinessMetrics { trades_ok: 3, mean_value_usd: 0.1, ..BusinessMetrics::default() });
        written.network =
            Some(NetworkMetrics { exchange_ms: vec![("kraken".into(), 1.5)], ..NetworkMetrics::default() });
        let json = written.to_json().unwrap();
        assert_eq!(Envelope::from_json(&subject(), &json), Ok(written.clone()));
        assert_eq!(written.message_id().unwrap(), "a/boot-1/7");
    }

    #[test]
    fn other_versions_are_refused_by_number() {
        let refused = refusal(&changed("\"schemaVersion\":1", "\"schemaVersion\":2"));
        assert_eq!((refused.kind, refused.shard.clone()), (RefusalKind::UnknownVersion, Some("a".into())));
        assert!(refused.to_string().contains("is 2; only 1"), "{refused}");
        assert!(refusal("{}").to_string().contains("is none; only 1"));
    }

    #[test]
    fn malformed_bytes_name_the_shard_where_they_can() {
        assert_eq!(refusal("nonsense").shard, None);
        let refused = refusal(&changed("\"queueLen\":2", "\"queueLen\":-1"));
        assert_eq!((refused.kind, refused.shard.clone()), (RefusalKind::Malformed, Some("a".into())));
        assert!(refused.to_string().contains("-1"), "{refused}");
        for boot in ["", "a b", "ü"] {
            assert_eq!(refusal(&changed("\"boot-1\"", &format!("\"{boot}\""))).kind, RefusalKind::Malformed);
        }
        let address = format!("\"address\":\"{}\"", "x".repeat(513));
        assert_eq!(refusal(&changed("\"address\":null", &address)).kind, RefusalKind::Malformed);
    }

    #[test]
    fn no_shard_speaks_for_another() {
        let json = envelope("b", 1).to_json().unwrap();
        let refused = Envelope::from_json(&subject(), &json).unwrap_err();
        assert_eq!((refused.kind, refused.shard), (RefusalKind::WrongSubject, None));
    }

    #[test]
    fn documents_without_end_are_neither_written_nor_read() {
        let mut long = envelope("a", 1);
        long.address = Some("x".repeat(LARGEST_ENVELOPE));
        assert!(long.to_json().unwrap_err().to_string().contains("tell less"));
        let refused = Envelope::from_json(&subject(), &vec![b' '; LARGEST_ENVELOPE + 1]).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::TooLarge);
    }

    #[test]
    fn a_later_writer_of_this_version_may_add_fields() {
        let json = changed("{\"schemaVersion\":1", "{\"mood\":\"good\",\"schemaVersion\":1");
        assert_eq!(Envelope::from_json(&subject(), json.as_bytes()), Ok(envelope("a", 7)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Envelope::from_json(&subject(), &bytes).is_err());
        }

        #[test]
        fn no_damage_makes_it_panic(place in 0usize..2000, byte in any::<u8>(), end in 0usize..2000) {
            let mut json = envelope("a", 7).to_json().unwrap().to_vec();
            let place = place % json.len();
            json[place] = byte;
            json.truncate(json.len().min(end));
            // Damage may leave it legible.
            let _ = Envelope::from_json(&subject(), &json);
        }
    }
}
