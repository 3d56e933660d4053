//! What shards and routers ask of a message bus.

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;

/// Why a message was not published, or a subscription not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The bus will never take this: what is asked for makes no sense there.
    #[error("the bus refuses this: {0}")]
    Refused(String),
    /// The broker was away for so long that the buffer was full: the message gave way to later ones.
    #[error("dropped: the broker is away and the buffer of {0} messages is full")]
    Dropped(usize),
    /// The broker did not take it now.
    #[error("the bus is not reachable: {0}")]
    Unreachable(String),
    /// The bus was shut down.
    #[error("the bus was shut down")]
    Closed,
}

/// What a bus did since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BusCounts {
    /// Messages that callers gave it and that it did not refuse at once.
    pub accepted: u64,
    /// Messages of them that are stored for good; they reach every subscription at least once.
    pub stored: u64,
    /// Messages of them that were stored under the same id before.
    pub duplicates: u64,
    /// Messages that were lost because a buffer was full.
    pub dropped: u64,
    /// Messages that the broker refused, and so will it ever.
    pub refused: u64,
    /// Attempts to publish that failed and were made again.
    pub retries: u64,
    /// Messages that wait to be stored now.
    pub waiting: u64,
    /// Times that the connection was lost.
    pub disconnects: u64,
    /// Messages that were delivered for the second time or later.
    pub redelivered: u64,
}

/// A bus that delivers every stored message to every durable subscription at least once.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Publishes a message; done when the bus has stored it.
    ///
    /// The message is in the bus' bounded buffer once this was polled for the first time: whoever does not want to wait
    /// gives up by a timeout, and the message goes on. A second message of the same id, within the bus' window, is
    /// stored once.
    ///
    /// # Errors
    /// Tells why the message is not stored; a message that was dropped is counted, too.
    async fn publish(&self, subject: &str, message_id: &str, payload: Bytes) -> Result<(), BusError>;

    /// Takes part in the durable subscription of that name, from where it stopped: each message that the filter (`*`
    /// one token, `>` the rest) takes is delivered to one of those who take part.
    ///
    /// # Errors
    /// An illegal name or filter is refused. A broker that is away is none: deliveries begin when it is back.
    async fn subscribe(&self, filter: &str, durable: &str) -> Result<Box<dyn Subscription>, BusError>;

    /// What it did so far.
    fn counts(&self) -> BusCounts;
}

/// A stream of deliveries.
#[async_trait]
pub trait Subscription: Send {
    /// Waits for the next delivery, however long that takes and whatever becomes of the broker meanwhile. May be
    /// cancelled.
    async fn next(&mut self) -> Delivery;
}

/// A message, which comes again until it is acknowledged.
pub struct Delivery {
    /// Where it was published.
    pub subject: String,
    /// What was published.
    pub payload: Bytes,
    receipt: Box<dyn Acknowledge>,
}

impl Delivery {
    /// A delivery that is acknowledged by that receipt.
    pub fn new(subject: String, payload: Bytes, receipt: Box<dyn Acknowledge>) -> Self {
        Self { subject, payload, receipt }
    }

    /// Says that the message is dealt with for good.
    ///
    /// # Errors
    /// The bus did not hear it: the message will come again.
    pub async fn ack(self) -> Result<(), BusError> {
        self.receipt.ack().await
    }
}

/// Acknowledges one message; dropped without that, the message comes again.
#[async_trait]
pub trait Acknowledge: Send + Sync {
    /// See [`Delivery::ack`].
    async fn ack(self: Box<Self>) -> Result<(), BusError>;
}
