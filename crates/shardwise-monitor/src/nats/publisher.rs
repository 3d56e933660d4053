//! Gets buffered messages stored: tries each until the broker says that it has it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;

use super::Shared;
use crate::backoff::Backoff;
use crate::bus::BusError;

/// A message, and who waits for it to be stored.
pub(super) struct Outgoing {
    pub(super) subject: String,
    pub(super) message_id: String,
    pub(super) payload: Bytes,
    pub(super) done: oneshot::Sender<Result<(), BusError>>,
}

impl Outgoing {
    pub(super) fn finish(self, result: Result<(), BusError>) {
        // Whoever gave it may have stopped to wait.
        let _ = self.done.send(result);
    }
}

/// Sends what is in the buffer, for ever.
pub(super) async fn write(shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(shared.config.in_flight));
    // Dropped with this task, and ended by that.
    let mut sending = JoinSet::new();
    loop {
        // What cannot be sent stays in the buffer, where its length is limited.
        shared.connected().await;
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let message = next(&shared).await;
        sending.spawn(send(shared.clone(), message, slot));
        while sending.try_join_next().is_some() {}
    }
}

async fn next(shared: &Shared) -> Outgoing {
    loop {
        if let Some(message) = shared.queue().pop_front() {
            return message;
        }
        shared.wake.notified().await;
    }
}

async fn send(shared: Arc<Shared>, message: Outgoing, _slot: OwnedSemaphorePermit) {
    let mut pause = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
    loop {
        tokio::time::sleep(pause.next_pause()).await;
        shared.connected().await;
        let error = match try_once(&shared, &message).await {
            Ok(ack) => {
                let count = if ack.duplicate { &shared.counts.duplicates } else { &shared.counts.stored };
                count.fetch_add(1, Relaxed);
                return message.finish(Ok(()));
            }
            Err(error) => error,
        };
        if error.kind() == PublishErrorKind::MaxPayloadExceeded {
            shared.counts.refused.fetch_add(1, Relaxed);
            return message.finish(Err(BusError::Refused(error.to_string())));
        }
        if error.kind() == PublishErrorKind::StreamNotFound
            && let Err(error) = shared.stream().await
        {
            tracing::warn!(%error, "the stream cannot be made now");
        }
        tracing::debug!(%error, id = message.message_id, "not stored yet");
        shared.counts.retries.fetch_add(1, Relaxed);
        pause.failed();
    }
}

async fn try_once(shared: &Shared, message: &Outgoing) -> Result<PublishAck, PublishError> {
    let publish = PublishMessage::build().payload(message.payload.clone()).message_id(&message.message_id);
    shared.jetstream.send_publish(message.subject.clone(), publish).await?.await
}
