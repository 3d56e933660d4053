//! Pulls messages from a durable consumer, whatever becomes of the broker meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_nats::jetstream::message::Acker;
use async_nats::jetstream::{self, consumer::PullConsumer};
use async_trait::async_trait;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Shared;
use crate::backoff::Backoff;
use crate::bus::{Acknowledge, BusError, Delivery, Subscription};

/// Messages that one request asks for; so many may wait here, too.
const BATCH: usize = 256;
/// How long a request waits for messages.
const PULL_FOR: Duration = Duration::from_secs(5);

pub(super) struct NatsSubscription {
    deliveries: mpsc::Receiver<Delivery>,
    puller: JoinHandle<()>,
}

impl NatsSubscription {
    pub(super) fn start(shared: Arc<Shared>, filter: String, durable: String) -> Self {
        let (sender, deliveries) = mpsc::channel(BATCH);
        let puller = tokio::spawn(async move {
            let mut pause = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
            loop {
                tokio::time::sleep(pause.next_pause()).await;
                match pull(&shared, &filter, &durable, &sender, &mut pause).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%error, durable, "cannot pull now; trying again"),
                }
                pause.failed();
            }
        });
        Self { deliveries, puller }
    }
}

impl Drop for NatsSubscription {
    fn drop(&mut self) {
        self.puller.abort();
    }
}

#[async_trait]
impl Subscription for NatsSubscription {
    async fn next(&mut self) -> Delivery {
        match self.deliveries.recv().await {
            Some(delivery) => delivery,
            // The puller ends with this subscription only, or with the runtime.
            None => std::future::pending().await,
        }
    }
}

/// Pulls until nobody listens any more.
async fn pull(
    shared: &Shared,
    filter: &str,
    durable: &str,
    sender: &mpsc::Sender<Delivery>,
    pause: &mut Backoff,
) -> Result<(), async_nats::Error> {
    shared.connected().await;
    let config = shared.config.consumer_config(filter, durable);
    let consumer: PullConsumer = shared.stream().await?.get_or_create_consumer(durable, config).await?;
    let found = &consumer.cached_info().config.filter_subject;
    if found != filter {
        let problem = format!("consumer {durable} is there with the filter {found}, not {filter}: delete it");
        return Err(problem.into());
    }
    pause.reset();
    while pull_batch(shared, &consumer, sender).await? {}
    Ok(())
}

/// Whether to go on.
async fn pull_batch(
    shared: &Shared,
    consumer: &PullConsumer,
    sender: &mpsc::Sender<Delivery>,
) -> Result<bool, async_nats::Error> {
    let number = shared.connection.borrow().number;
    let mut batch = consumer.batch().max_messages(BATCH).expires(PULL_FOR).messages().await?;
    loop {
        tokio::select! {
            biased;
            message = batch.next() => match message {
                Some(message) => {
                    if sender.send(delivery(shared, message?)).await.is_err() {
                        return Ok(false);
                    }
                }
                None => return Ok(true),
            },
            // A broker that was away has forgotten the request.
            () = shared.reconnected(number) => return Ok(true),
            () = sender.closed() => return Ok(false),
        }
    }
}

fn delivery(shared: &Shared, message: jetstream::Message) -> Delivery {
    if message.info().is_ok_and(|info| info.delivered > 1) {
        shared.counts.redelivered.fetch_add(1, Relaxed);
    }
    let (message, acker) = message.split();
    Delivery::new(message.subject.to_string(), message.payload, Box::new(Receipt(acker)))
}

struct Receipt(Acker);

#[async_trait]
impl Acknowledge for Receipt {
    async fn ack(self: Box<Self>) -> Result<(), BusError> {
        self.0.ack().await.map_err(|error| BusError::Unreachable(error.to_string()))
    }
}
