//! The bus over NATS JetStream: what was stored survives the broker's death, and the connection comes back by itself.

mod config;
mod publisher;
mod subscription;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use async_nats::{Client, ConnectOptions, Event};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;

use self::publisher::Outgoing;
use self::subscription::NatsSubscription;
use crate::bus::{Bus, BusCounts, BusError, Subscription};
use crate::subject::subject_matches;

pub use config::NatsConfig;

const LONGEST_RECONNECT_PAUSE: Duration = Duration::from_secs(2);

/// The bus over NATS JetStream. It makes the stream when that is missing, connects again for ever, and buffers what is
/// published while the broker is away: `buffer` messages, after which the oldest gives way to the newest and is
/// counted.
pub struct NatsBus {
    client: Client,
    shared: Arc<Shared>,
    writer: JoinHandle<()>,
}

impl NatsBus {
    /// Begins to connect; done at once, whether or not the broker is there. Must run within tokio, and its tasks live
    /// there.
    ///
    /// # Errors
    /// A setting that makes no sense is refused.
    pub async fn connect(config: NatsConfig) -> Result<Self, BusError> {
        config.check()?;
        let counts = Arc::new(Counts::default());
        let (connected, connection) = watch::channel(Connection::default());
        let events = counts.clone();
        let options = ConnectOptions::new()
            .name(&config.client_name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|attempts| {
                Duration::from_millis(50 * (attempts as u64).min(100)).min(LONGEST_RECONNECT_PAUSE)
            })
            .event_callback(move |event| {
                note(&event, &connected, &events);
                std::future::ready(())
            });
        let servers = config.servers.join(",");
        let client = options.connect(servers).await.map_err(|error| BusError::Refused(error.to_string()))?;
        let jetstream = jetstream::context::ContextBuilder::new().timeout(config.ack_timeout).build(client.clone());
        let queue = Mutex::default();
        let shared = Arc::new(Shared { config, jetstream, connection, queue, wake: Notify::new(), counts });
        let writer = tokio::spawn(publisher::write(shared.clone()));
        Ok(Self { client, shared, writer })
    }

    /// The connection itself, for what is asked and answered without being stored.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether it is connected now.
    pub fn is_connected(&self) -> bool {
        self.shared.connection.borrow().is_up
    }
}

impl Drop for NatsBus {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

#[async_trait]
impl Bus for NatsBus {
    async fn publish(&self, subject: &str, message_id: &str, payload: Bytes) -> Result<(), BusError> {
        self.shared.check_publish(subject, message_id)?;
        let (done, stored) = oneshot::channel();
        let (subject, message_id) = (subject.to_owned(), message_id.to_owned());
        self.shared.enqueue(Outgoing { subject, message_id, payload, done });
        stored.await.unwrap_or(Err(BusError::Closed))
    }

    async fn subscribe(&self, filter: &str, durable: &str) -> Result<Box<dyn Subscription>, BusError> {
        config::check_durable(durable)?;
        Ok(Box::new(NatsSubscription::start(self.shared.clone(), filter.to_owned(), durable.to_owned())))
    }

    fn counts(&self) -> BusCounts {
        self.shared.counts.read()
    }
}

/// Whether there is a connection, and the how many-th it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Connection {
    is_up: bool,
    number: u64,
}

fn note(event: &Event, connection: &watch::Sender<Connection>, counts: &Counts) {
    match event {
        Event::Connected => connection.send_modify(|connection| {
            connection.is_up = true;
            connection.number += 1;
        }),
        Event::Disconnected | Event::Closed => {
            counts.disconnects.fetch_add(1, Relaxed);
            connection.send_modify(|connection| connection.is_up = false);
        }
        _ => {}
    }
    tracing::info!(%event, "nats");
}

/// What publishing and subscribing have in common.
struct Shared {
    config: NatsConfig,
    jetstream: jetstream::Context,
    connection: watch::Receiver<Connection>,
    queue: Mutex<VecDeque<Outgoing>>,
    wake: Notify,
    counts: Arc<Counts>,
}

impl Shared {
    fn check_publish(&self, subject: &str, message_id: &str) -> Result<(), BusError> {
        if !self.config.subjects.iter().any(|filter| subject_matches(filter, subject)) {
            let (stream, subjects) = (&self.config.stream, self.config.subjects.join(", "));
            let problem = format!("subject '{subject}' is none of stream {stream}, which takes {subjects}");
            return Err(BusError::Refused(problem));
        }
        for (what, text) in [("subject", subject), ("message id", message_id)] {
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(BusError::Refused(format!("{what} '{text}' must be printable ASCII without blanks")));
            }
        }
        Ok(())
    }

    /// Puts a message into the buffer; when that is full, the oldest one gives way.
    fn enqueue(&self, message: Outgoing) {
        self.counts.accepted.fetch_add(1, Relaxed);
        let mut queue = self.queue();
        if queue.len() >= self.config.buffer
            && let Some(oldest) = queue.pop_front()
        {
            self.counts.dropped.fetch_add(1, Relaxed);
            oldest.finish(Err(BusError::Dropped(self.config.buffer)));
        }
        queue.push_back(message);
        drop(queue);
        self.wake.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Outgoing>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is a connection.
    async fn connected(&self) {
        // The sender lives in the client, which lives here.
        let _ = self.connection.clone().wait_for(|connection| connection.is_up).await;
    }

    /// Waits until the connection is another one than that.
    async fn reconnected(&self, number: u64) {
        let _ = self.connection.clone().wait_for(|connection| connection.number != number).await;
    }

    /// The stream, made when it is missing; one that is there keeps its limits.
    async fn stream(&self) -> Result<stream::Stream, async_nats::Error> {
        let stream = self.jetstream.get_or_create_stream(self.config.stream_config()).await?;
        let taken = &stream.cached_info().config.subjects;
        match self.config.subjects.iter().find(|subject| !taken.contains(subject)) {
            None => Ok(stream),
            Some(subject) => {
                let name = &self.config.stream;
                Err(format!("stream {name} is there and does not take {subject}: add that subject to it").into())
            }
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    stored: AtomicU64,
    duplicates: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
    retries: AtomicU64,
    disconnects: AtomicU64,
    redelivered: AtomicU64,
}

impl Counts {
    fn read(&self) -> BusCounts {
        // What became of a message is read before what was accepted: it was accepted first.
        let mut counts = BusCounts {
            stored: self.stored.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            refused: self.refused.load(Relaxed),
            retries: self.retries.load(Relaxed),
            disconnects: self.disconnects.load(Relaxed),
            redelivered: self.redelivered.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
            waiting: 0,
        };
        let done = counts.stored + counts.duplicates + counts.dropped + counts.refused;
        counts.waiting = counts.accepted.saturating_sub(done);
        counts
    }
}
