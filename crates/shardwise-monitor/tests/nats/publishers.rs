//! Shards that publish in disorder: late, twice, nonsense.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardwise_monitor::{BootId, Bus, BusError, Envelope, EnvelopeId, NatsBus};
use shardwise_types::{HardwareClass, ShardId, ShardReport, ShardShape, Timestamp};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::now;

const SHARDS_PER_BUS: usize = 2;
const PERIOD: Duration = Duration::from_millis(10);
/// What the broker does not know for a copy, but the view does.
const COPY: &str = "copy-of-";

/// What is published.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Good,
    /// A good one again, under another message id.
    Copy,
    Impossible,
    Nonsense,
}

/// What was published, and what became of it.
#[derive(Default)]
pub(crate) struct Published {
    /// Good reports that were acknowledged, each once.
    pub(crate) good: BTreeSet<(ShardId, Timestamp)>,
    /// Messages of good reports that were acknowledged, each once.
    good_messages: BTreeSet<String>,
    pub(crate) calls: u64,
    pub(crate) acknowledged: u64,
    pub(crate) dropped: u64,
    pub(crate) impossible: u64,
    pub(crate) nonsense: u64,
}

impl Published {
    /// Second messages of good reports that were acknowledged.
    pub(crate) fn copies(&self) -> u64 {
        (self.good_messages.len() - self.good.len()) as u64
    }

    /// Messages that were acknowledged, each once.
    pub(crate) fn messages(&self) -> u64 {
        self.good_messages.len() as u64 + self.impossible + self.nonsense
    }

    pub(crate) fn summary(&self) -> String {
        let Self { calls, acknowledged, dropped, impossible, nonsense, .. } = self;
        let (good, copies, messages) = (self.good.len(), self.copies(), self.messages());
        format!(
            "{calls} calls: {acknowledged} acknowledged, {dropped} dropped; {messages} messages: {good} good reports, \
             {copies} copies, {impossible} impossible, {nonsense} nonsense"
        )
    }

    fn note(&mut self, sent: &Sent) {
        self.calls += 1;
        match sent.result {
            Ok(()) => self.acknowledged += 1,
            Err(BusError::Dropped(_)) => {
                self.dropped += 1;
                return;
            }
            ref other => panic!("{other:?}"),
        }
        match sent.kind {
            // The first message of a report may have been dropped, and its copy not.
            Kind::Good | Kind::Copy => {
                self.good.insert(sent.report.clone());
                self.good_messages.insert(sent.message_id.clone());
            }
            Kind::Impossible => self.impossible += 1,
            Kind::Nonsense => self.nonsense += 1,
        }
    }
}

struct Sent {
    kind: Kind,
    message_id: String,
    report: (ShardId, Timestamp),
    result: Result<(), BusError>,
}

pub(crate) struct Publishers {
    stop: watch::Sender<bool>,
    running: Vec<JoinHandle<Vec<Sent>>>,
}

impl Publishers {
    pub(crate) fn start(buses: &[Arc<NatsBus>], longest_delay: Duration) -> Self {
        let (stop, stopped) = watch::channel(false);
        let shards = buses.iter().enumerate().flat_map(|(place, bus)| {
            (0..SHARDS_PER_BUS).map(move |shard| (bus.clone(), format!("shard-{place}.{shard}")))
        });
        let running = shards
            .map(|(bus, shard)| tokio::spawn(run(bus, ShardId::new(&shard), longest_delay, stopped.clone())))
            .collect();
        Self { stop, running }
    }

    /// Ends them, and waits until it is known of each message what became of it.
    pub(crate) async fn finish(self) -> Published {
        self.stop.send_replace(true);
        let mut published = Published::default();
        for shard in self.running {
            shard.await.expect("no panic").iter().for_each(|sent| published.note(sent));
        }
        published
    }
}

async fn run(bus: Arc<NatsBus>, shard: ShardId, longest_delay: Duration, stopped: watch::Receiver<bool>) -> Vec<Sent> {
    let boot = BootId::new(now(), std::process::id());
    let mut sending = JoinSet::new();
    let mut sequence = 0;
    while !*stopped.borrow() {
        let envelope = envelope(EnvelopeId { shard: shard.clone(), boot: boot.clone(), sequence });
        for (kind, delay) in disturbed(sequence, longest_delay) {
            sending.spawn(send(bus.clone(), envelope.clone(), kind, delay));
        }
        sequence += 1;
        tokio::time::sleep(PERIOD).await;
    }
    sending.join_all().await
}

/// When the report of that number is sent, as what, and what else is.
fn disturbed(sequence: u64, longest_delay: Duration) -> Vec<(Kind, Duration)> {
    let delay = match sequence % 100 {
        7 | 8 => longest_delay,
        number if number % 9 == 4 => Duration::from_millis(number * 5),
        _ => Duration::ZERO,
    };
    let mut sent = vec![(Kind::Good, delay)];
    match sequence % 20 {
        3 => sent.push((Kind::Good, Duration::from_millis(30))),
        5 => sent.push((Kind::Copy, Duration::from_millis(60))),
        11 => sent.push((Kind::Impossible, Duration::ZERO)),
        13 => sent.push((Kind::Nonsense, Duration::ZERO)),
        _ => {}
    }
    sent
}

async fn send(bus: Arc<NatsBus>, envelope: Envelope, kind: Kind, delay: Duration) -> Sent {
    tokio::time::sleep(delay).await;
    let report = (envelope.shard.clone(), envelope.report.event_at);
    let subject = envelope.subject().expect("a legal id");
    let id = envelope.message_id().expect("a legal id");
    let (id, payload) = match kind {
        Kind::Good => (id, json(&envelope)),
        Kind::Copy => (format!("{COPY}{id}"), json(&envelope)),
        Kind::Impossible => {
            let report = ShardReport { cpu: -1.0, ..envelope.report.clone() };
            (format!("impossible-{id}"), json(&Envelope { report, ..envelope }))
        }
        Kind::Nonsense => (format!("nonsense-{id}"), Bytes::from_static(b"{\"schemaVersion\":1")),
    };
    let result = bus.publish(&subject, &id, payload).await;
    Sent { kind, message_id: id, report, result }
}

fn json(envelope: &Envelope) -> Bytes {
    envelope.to_json().expect("it is small")
}

fn envelope(id: EnvelopeId) -> Envelope {
    let shape = ShardShape {
        region: "eu".into(),
        cores: 2.0,
        clock_ghz: 3.0,
        memory_mb: 4096.0,
        hardware: HardwareClass::General,
        max_amount_usd: None,
    };
    let at = now();
    let report = ShardReport {
        event_at: at,
        known_at: at,
        healthy: true,
        cpu: 0.3,
        memory: 0.4,
        queue_len: 1,
        running: 1,
        error_rate: 0.0,
        mean_latency_ms: 10.0,
    };
    let since_boot_ms = id.sequence * 10;
    Envelope::new(id, since_boot_ms, shape, report)
}
